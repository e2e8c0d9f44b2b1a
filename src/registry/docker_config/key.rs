//! The keys under which configurations keep credentials, and for whom each is.

use std::cmp::Reverse;

use crate::error::printable;
use crate::reference::DEFAULT_HOST;
use crate::registry::credentials::DOCKER_HUB_KEY;
use crate::registry::credentials::is_docker_hub;

/// Whom credentials are asked for: a host, and a repository on it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Server<'a> {
    host: &'a str,
    repository: &'a str,
}

/// A key: a host, or the beginning of repositories' names on it.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Key {
    host: String,
    /// Empty, or one or more whole components.
    path: String,
    /// As it was written.
    text: String,
}

/// How good a key is, best first: the longer path, and then the usual way to write it.
pub(super) type Rank = Reverse<(usize, bool)>;

impl<'a> Server<'a> {
    /// Docker Hub under its first name, others as they are.
    pub(super) fn new(host: &'a str, repository: &'a str) -> Server<'a> {
        Server { host: if is_docker_hub(host) { DEFAULT_HOST } else { host }, repository }
    }

    /// What helpers know the host by that has no key.
    pub(super) fn name(&self) -> &'a str {
        if self.host == DEFAULT_HOST { DOCKER_HUB_KEY } else { self.host }
    }
}

impl Key {
    /// None for text that no host is asked for by.
    pub(super) fn parse(text: &str) -> Option<Key> {
        let (rest, has_scheme) = match without_scheme(text) {
            Some(rest) => (rest, true),
            None => (text, false),
        };
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        let path = match path {
            "v1/" | "v2/" => "",
            // Without a scheme it is a repository.
            "v1" | "v2" if has_scheme => "",
            path => path.trim_end_matches('/'),
        };
        let host = if is_docker_hub(host) { DEFAULT_HOST } else { host };
        let key = Key { host: host.to_ascii_lowercase(), path: path.to_owned(), text: text.to_owned() };
        is_host(host).then_some(key)
    }

    /// How well the key fits; none if it is another's.
    pub(super) fn rank(&self, server: &Server<'_>) -> Option<Rank> {
        let below = match server.repository.strip_prefix(&self.path) {
            Some(rest) => self.path.is_empty() || rest.is_empty() || rest.starts_with('/'),
            None => false,
        };
        let fits = below && self.host.eq_ignore_ascii_case(server.host);
        fits.then(|| Reverse((self.path.len(), self.text.eq_ignore_ascii_case(server.name()))))
    }

    /// Whether it is for all repositories of the host.
    pub(super) fn is_host(&self) -> bool {
        self.path.is_empty()
    }

    /// What a helper knows it by.
    pub(super) fn name(&self) -> &str {
        if self.host == DEFAULT_HOST { DOCKER_HUB_KEY } else { &self.text }
    }

    /// As it was written, for errors.
    pub(super) fn shown(&self) -> String {
        printable(&self.text, 300)
    }

    pub(super) fn host(&self) -> &str {
        &self.host
    }
}

fn without_scheme(text: &str) -> Option<&str> {
    ["https://", "http://"].iter().find_map(|scheme| {
        let start = text.get(..scheme.len())?;
        start.eq_ignore_ascii_case(scheme).then(|| &text[scheme.len()..])
    })
}

/// Whether it has the characters of a host and a port. User names and passwords of URLs have others.
fn is_host(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_:[]".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn fits(key: &str, host: &str, repository: &str) -> bool {
        Key::parse(key).is_some_and(|key| key.rank(&Server::new(host, repository)).is_some())
    }

    /// Case 165: every spelling of a host, and no other host or port.
    #[test]
    fn a_key_fits_its_host_in_every_spelling() {
        let spellings = ["{}", "{}/", "{}/v1/", "{}/v2/", "https://{}", "http://{}", "https://{}/", "HTTPS://{}/v1"];
        for spelling in spellings.into_iter().chain(["https://{}/v1/", "https://{}/v2", "http://{}/v2/"]) {
            for host in ["host", "host.example", "host:5000", "HOST:5000", "[::1]:5000", "127.0.0.1", "a_b.example"] {
                let key = spelling.replace("{}", host);
                assert!(fits(&key, &host.to_lowercase(), "a/b"), "{key}");
                assert!(fits(&key, &host.to_lowercase(), ""), "{key}");
                for other in ["host.evil.com", "evil", "host:5001", "hos", "host.example:443", "[::1]", "127.0.0.1:80"]
                {
                    assert!(!fits(&key, other, "a/b"), "{key} for {other}");
                }
            }
        }
    }

    /// Case 165: `/` borders components, and a host is not a path.
    #[test]
    fn a_path_fits_whole_components() {
        for (key, repository, expected) in [
            ("quay.io/org", "org", true),
            ("quay.io/org", "org/app", true),
            ("quay.io/org/", "org/app", true),
            ("https://quay.io/org/app", "org/app", true),
            ("quay.io/org", "organ/app", false),
            ("quay.io/org", "other/org", false),
            ("quay.io/org", "", false),
            ("quay.io/org/app", "org", false),
            ("quay.io/org/app:1", "org/app", false),
            ("quay.io/v2", "v2/app", true),
            ("quay.io/v2", "app", false),
        ] {
            assert_eq!(fits(key, "quay.io", repository), expected, "{key} for {repository}");
        }
    }

    /// Case 166.
    #[test]
    fn docker_hub_is_one_identity() {
        let keys = ["docker.io", "index.docker.io", "registry-1.docker.io", "https://index.docker.io/v1/", "Docker.IO"];
        for key in keys {
            for host in ["docker.io", "index.docker.io", "registry-1.docker.io"] {
                assert!(fits(key, host, "library/ubuntu"), "{key} for {host}");
            }
            assert_eq!(Key::parse(key).unwrap().name(), "https://index.docker.io/v1/");
            assert!(!fits(key, "docker.io:443", "library/ubuntu") && !fits(key, "auth.docker.io", ""), "{key}");
        }
        assert!(!fits("https://index.docker.io/v1/access-token", "docker.io", "library/ubuntu"));
    }

    #[test]
    fn what_is_no_host_is_no_key() {
        for text in ["", "https://", "/", "/v1/", "user:pw@host", "a b", "bücher.example", "ho\nst", "host?x"] {
            assert!(Key::parse(text).is_none(), "{text:?}");
        }
    }
}
