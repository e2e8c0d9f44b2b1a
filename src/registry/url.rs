//! Addresses of registries.

use std::fmt;
use std::net::IpAddr;
use std::net::Ipv6Addr;

use super::reach::Reach;

use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::error::printable;

/// A scheme, a host and a port: what credentials belong to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Origin {
    pub(super) https: bool,
    /// In lower case; an IPv6 address is in brackets.
    pub(super) host: String,
    pub(super) port: u16,
}

/// An `http` or `https` address without user name and fragment. Nothing in it breaks a request's line.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Url {
    pub(super) origin: Origin,
    /// Path and query; begins with `/`.
    target: String,
}

impl Origin {
    /// `host` is a name's: a domain or an address, and perhaps a port.
    pub(super) fn new(https: bool, host: &str) -> Result<Origin> {
        let (name, port) = match host.rsplit_once(':') {
            Some((name, port)) if !port.ends_with(']') => (name, port.parse().ok().filter(|port| *port != 0)),
            _ => (host, Some(if https { 443 } else { 80 })),
        };
        match port {
            Some(port) if is_host(name) => Ok(Origin { https, host: name.to_ascii_lowercase(), port }),
            _ => Err(protocol(format!("invalid host {:?}", printable(redact(host), 100)))),
        }
    }

    pub(super) fn url(&self, target: String) -> Url {
        Url { origin: self.clone(), target }
    }

    /// `host:port`, for messages.
    pub(super) fn authority(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// Whether the host is this machine by its own word: `localhost` or a loopback address, and nothing that only
    /// begins so.
    pub(super) fn is_loopback(&self) -> bool {
        let name = self.host.trim_end_matches('.');
        name == "localhost"
            || name.ends_with(".localhost")
            || self.address().is_some_and(|address| address.is_loopback())
    }

    /// From where the host can be reached, as far as its text shows it: it is an address, or a name of this machine.
    pub(super) fn reach(&self) -> Option<Reach> {
        let by_name = || self.is_loopback().then_some(Reach::Loopback);
        self.address().map(Reach::of).or_else(by_name)
    }

    fn address(&self) -> Option<IpAddr> {
        let text = self.host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(&self.host);
        text.parse().ok().map(|address: IpAddr| address.to_canonical())
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, usual) = if self.https { ("https", 443) } else { ("http", 80) };
        write!(f, "{scheme}://{}", self.host)?;
        if self.port == usual { Ok(()) } else { write!(f, ":{}", self.port) }
    }
}

impl Url {
    pub(super) fn parse(text: &str) -> Result<Url> {
        let invalid = || protocol(format!("invalid address {:?}", printable(redact(text), 200)));
        let (scheme, rest) = text.split_once("://").ok_or_else(invalid)?;
        let https = match scheme.to_ascii_lowercase().as_str() {
            "https" => true,
            "http" => false,
            _ => return Err(invalid()),
        };
        let rest = rest.split('#').next().unwrap_or_default();
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (host, target) = rest.split_at(end);
        if !target.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(invalid());
        }
        let origin = Origin::new(https, host)?;
        let target = if target.starts_with('/') { target.to_owned() } else { format!("/{target}") };
        Ok(Url { origin, target })
    }

    /// What a `Location` or a `Link` of this address's answer leads to (RFC 3986, section 5; without dot segments,
    /// which no registry sends).
    pub(super) fn join(&self, location: &str) -> Result<Url> {
        let scheme = if self.origin.https { "https" } else { "http" };
        let is_whole = location.split(['/', '?', '#']).next().is_some_and(|scheme| scheme.ends_with(':'));
        if is_whole {
            Url::parse(location)
        } else if location.starts_with("//") {
            Url::parse(&format!("{scheme}:{location}"))
        } else if location.starts_with('/') {
            Url::parse(&format!("{}{location}", self.origin))
        } else if location.starts_with('?') {
            let path = self.target.split('?').next().unwrap_or_default();
            Url::parse(&format!("{}{path}{location}", self.origin))
        } else {
            let path = self.target.split('?').next().unwrap_or_default();
            let folder = path.rfind('/').map_or("/", |end| &path[..=end]);
            Url::parse(&format!("{}{folder}{location}", self.origin))
        }
    }

    /// The same with another parameter in the query, its value escaped.
    pub(super) fn with_query(mut self, name: &str, value: &str) -> Url {
        self.target.push(if self.target.contains('?') { '&' } else { '?' });
        self.target.push_str(name);
        self.target.push('=');
        for byte in value.bytes() {
            match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b':' | b'/' | b',' => {
                    self.target.push(char::from(byte));
                }
                byte => self.target.push_str(&format!("%{byte:02X}")),
            }
        }
        self
    }

    pub(super) fn has_query(&self) -> bool {
        self.target.contains('?')
    }

    /// The whole address, with a query that may be secret.
    pub(super) fn full(&self) -> String {
        format!("{}{}", self.origin, self.target)
    }
}

impl fmt::Display for Url {
    /// Without the query: those of storage services hold signatures.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.origin, redact(&self.target))
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn redact(text: &str) -> &str {
    let text = text.split(['?', '#']).next().unwrap_or_default();
    match text.rfind('@') {
        Some(at) => &text[at + 1..],
        None => text,
    }
}

/// A domain name, an IPv4 address in its usual form, or an IPv6 address in brackets. Names that end in a number, which
/// resolvers take for oddly written addresses (`127.1`, `0x7f000001`), are none of them.
fn is_host(name: &str) -> bool {
    if let Some(address) = name.strip_prefix('[') {
        return address.strip_suffix(']').is_some_and(|address| address.parse::<Ipv6Addr>().is_ok());
    }
    if name.parse::<IpAddr>().is_ok() {
        return !name.contains(':');
    }
    let valid = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    let last = name.trim_end_matches('.').rsplit('.').next().unwrap_or_default();
    let number = last.starts_with(|c: char| c.is_ascii_digit())
        && (last.bytes().all(|b| b.is_ascii_digit()) || last.to_ascii_lowercase().starts_with("0x"));
    !name.is_empty() && name.len() <= 255 && !number && name.bytes().all(valid)
}

fn protocol(reason: String) -> Error {
    ErrorKind::Protocol { reason }.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    #[test]
    fn locations_of_all_forms_are_followed() {
        let base = url("https://example.com:8443/v2/a/blobs/x?y=z");
        for (location, expected) in [
            ("https://storage.test/b?sig=1", "https://storage.test/b?sig=1"),
            ("HTTPS://Storage.test:443/b#fragment", "https://storage.test/b"),
            ("//storage.test/b", "https://storage.test/b"),
            ("/b?c=d", "https://example.com:8443/b?c=d"),
            ("b", "https://example.com:8443/v2/a/blobs/b"),
            ("?last=z", "https://example.com:8443/v2/a/blobs/x?last=z"),
            ("b?to=http://other", "https://example.com:8443/v2/a/blobs/b?to=http://other"),
            ("/b?to=http://other", "https://example.com:8443/b?to=http://other"),
            ("https://storage.test", "https://storage.test/"),
            ("https://storage.test?q", "https://storage.test/?q"),
        ] {
            assert_eq!(base.join(location).unwrap().full(), expected, "{location}");
        }
    }

    /// No user names, no line breaks, no addresses in disguise.
    #[test]
    fn strange_addresses_are_refused() {
        for text in [
            "",
            "example.com",
            "ftp://example.com/",
            "https://",
            "https:///x",
            "https://user@example.com/",
            "https://example.com:0/",
            "https://example.com:99999/",
            "https://exa mple.com/",
            "https://example.com/a b",
            "https://example.com/\r\nHost: x",
            "https://\u{fc}.com/",
            "https://127.1/",
            "https://0x7f000001/",
            "https://2130706433/",
            "https://[::1/",
            "https://::1/",
            "https://1.2.3/",
        ] {
            assert!(Url::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn queries_are_not_shown() {
        let signed = url("https://storage.test/blob?X-Amz-Signature=secret");
        assert_eq!(signed.to_string(), "https://storage.test/blob");
        assert_eq!(format!("{signed:?}"), "https://storage.test/blob");
        let error = Url::parse("https://user:secret@storage.test/x y?secret").unwrap_err();
        assert!(!error.to_string().contains("secret"), "{error}");
    }
}
