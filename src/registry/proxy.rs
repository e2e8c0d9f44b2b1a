//! Which proxy encrypted connections go through, and which hosts are reached without it.

use super::secret::Secret;
use super::url::Origin;

/// Where the environment names a proxy; the first that says anything counts. What is for https goes before what is for
/// everything.
const PROXIES: [&str; 6] = ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "HTTP_PROXY", "http_proxy"];
const EXCEPTIONS: [&str; 2] = ["NO_PROXY", "no_proxy"];

/// Which proxy encrypted connections go through.
#[derive(Clone, Debug)]
pub(super) enum ProxyChoice {
    Direct,
    Environment,
    Url(Secret),
}

/// A proxy that was asked for.
#[derive(Debug)]
pub(super) struct Proxy {
    pub(super) address: Secret,
    /// Who asked for it, for errors.
    pub(super) whose: &'static str,
    exceptions: Vec<String>,
}

impl ProxyChoice {
    /// The proxy, where the environment has these variables.
    pub(super) fn find(&self, variable: impl Fn(&str) -> Option<String>) -> Option<Proxy> {
        let first = |names: &[&str]| names.iter().find_map(|name| variable(name).filter(|value| !value.is_empty()));
        match self {
            ProxyChoice::Direct => None,
            ProxyChoice::Url(url) => {
                Some(Proxy { address: url.clone(), whose: "the proxy's address", exceptions: Vec::new() })
            }
            ProxyChoice::Environment => {
                let address = Secret::new(first(&PROXIES)?);
                let exceptions = first(&EXCEPTIONS).unwrap_or_default();
                let exceptions = exceptions.split(',').map(|entry| entry.trim().to_ascii_lowercase());
                let exceptions = exceptions.filter(|entry| !entry.is_empty()).collect();
                Some(Proxy { address, whose: "the environment's proxy", exceptions })
            }
        }
    }
}

impl Proxy {
    /// Whether this is reached without the proxy. As curl and Go have it, a domain excepts its subdomains too, and an
    /// entry with a port only that port.
    pub(super) fn excepts(&self, origin: &Origin) -> bool {
        self.exceptions.iter().any(|entry| {
            let (host, port) = split(entry);
            port.is_none_or(|port| port == origin.port) && covers(host, &origin.host)
        })
    }
}

/// A host and its port. An IPv6 address without brackets has no port.
fn split(entry: &str) -> (&str, Option<u16>) {
    match entry.rsplit_once(':') {
        Some((host, port)) if host.ends_with(']') || !host.contains(':') => {
            port.parse().map_or((entry, None), |port| (host, Some(port)))
        }
        _ => (entry, None),
    }
}

/// `.example.com` and `*.example.com` are the subdomains alone, `*` is all, and nothing is none.
fn covers(entry: &str, host: &str) -> bool {
    if entry.is_empty() {
        return false;
    }
    let bare = |text: &str| text.trim_start_matches('[').trim_end_matches(']').to_owned();
    let domain = entry.trim_start_matches('*');
    if domain.starts_with('.') || domain.is_empty() {
        return host.ends_with(domain);
    }
    let below = host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'));
    below || bare(host) == bare(domain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(variables: &[(&str, &str)]) -> Option<Proxy> {
        let value = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.to_string());
        ProxyChoice::Environment.find(value)
    }

    /// What is for https goes before what is for everything, and what is empty says nothing.
    #[test]
    fn the_environment_names_one_proxy() {
        let address = |variables: &[(&str, &str)]| find(variables).map(|proxy| proxy.address.reveal().to_owned());
        let all = [("http_proxy", "http://c"), ("ALL_PROXY", "socks5://b"), ("https_proxy", "http://a")];
        assert_eq!(address(&all).as_deref(), Some("http://a"));
        assert_eq!(address(&all[..2]).as_deref(), Some("socks5://b"));
        assert_eq!(address(&all[..1]).as_deref(), Some("http://c"));
        assert_eq!(address(&[("HTTPS_PROXY", ""), ("NO_PROXY", "*")]), None);
    }

    /// As curl and Go read it: blanks do not matter, and a domain excepts what is below it.
    #[test]
    fn exceptions_are_read_as_elsewhere() {
        for (exceptions, host, expected) in [
            ("localhost, registry.example.com", "registry.example.com", true),
            ("Example.COM", "registry.example.com", true),
            ("example.com", "example.com", true),
            ("example.com", "badexample.com", false),
            ("example.com", "example.com.evil.com", false),
            (".example.com", "registry.example.com", true),
            (".example.com", "example.com", false),
            ("*.example.com", "registry.example.com", true),
            ("*", "anything.example", true),
            ("example.com:5000", "registry.example.com", false),
            ("example.com:443", "registry.example.com", true),
            ("192.0.2.1", "192.0.2.1", true),
            ("2001:db8::1", "[2001:db8::1]", true),
            ("[2001:db8::1]:443", "[2001:db8::1]", true),
            (" ,", "example.com", false),
            (":443", "example.com", false),
        ] {
            let proxy = find(&[("HTTPS_PROXY", "http://proxy"), ("no_proxy", exceptions)]).unwrap();
            let origin = Origin { https: true, host: host.to_owned(), port: 443 };
            assert_eq!(proxy.excepts(&origin), expected, "{exceptions} {host}");
        }
    }
}
