//! Which addresses an answer may lead the client to: redirects, token realms and the locations of uploads.
//!
//! A host that the caller names is visited wherever it is. A host that an answer names is visited only where the host
//! that answered could send its users honestly: a public registry has no business on this machine or in the networks
//! around it (CVE-2026-24845, CVE-2026-33540). The text of an address is checked first, and then each address that its
//! name resolves to; the connection goes to those that passed and to no other, so that a name cannot change between
//! check and use. Behind a proxy the proxy resolves names, so that only the text is checked; a registry that was asked
//! through a proxy counts as public.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::sync::Mutex;

use super::url::Origin;

use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::sync::lock;

/// Names whose reach is remembered. Others count as public.
const MAX_NAMES: usize = 4096;

/// From where an address can be reached. The order is from the widest to the narrowest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reach {
    /// From everywhere.
    Public,
    /// From within a private network.
    Private,
    /// From this machine.
    Loopback,
    /// From the local link, where clouds keep the secrets of their instances; also addresses that no host has.
    Link,
}

impl Reach {
    pub(super) fn of(address: IpAddr) -> Reach {
        match address {
            IpAddr::V4(address) => of_v4(address),
            IpAddr::V6(address) => of_v6(address),
        }
    }

    /// The same as text, with an article.
    pub(super) fn name(self) -> &'static str {
        match self {
            Reach::Public => "a public address",
            Reach::Private => "a private address",
            Reach::Loopback | Reach::Link => "a local address",
        }
    }
}

/// The registry of special addresses (RFC 6890), as far as it tells private from public ones.
fn of_v4(address: Ipv4Addr) -> Reach {
    match address.octets() {
        [127, ..] => Reach::Loopback,
        // "This network", link-local, multicast, reserved and broadcast.
        [0, ..] | [169, 254, ..] | [224..=255, ..] => Reach::Link,
        // RFC 1918, shared address space of carriers (RFC 6598), protocol assignments, benchmarks.
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] | [100, 64..=127, ..] | [192, 0, 0, _] | [198, 18..=19, ..] => {
            Reach::Private
        }
        _ => Reach::Public,
    }
}

/// An address that contains an IPv4 address is judged by that one.
fn of_v6(address: Ipv6Addr) -> Reach {
    let v4 = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        of_v4(Ipv4Addr::new(a, b, c, d))
    };
    match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0] => Reach::Link,
        [0, 0, 0, 0, 0, 0, 0, 1] => Reach::Loopback,
        // IPv4-compatible, IPv4-mapped, IPv4-translated (RFC 2765) and NAT64 (RFC 6052).
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low]
        | [0, 0, 0, 0, 0xffff, 0, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => v4(high, low),
        // NAT64 of the local network (RFC 8215).
        [0x64, 0xff9b, 1, ..] => Reach::Private,
        // 6to4.
        [0x2002, high, low, ..] => v4(high, low),
        // Teredo: the address of the server, and that of the client with all bits inverted.
        [0x2001, 0, high, low, _, _, client_high, client_low] => v4(high, low).max(v4(!client_high, !client_low)),
        // Unique local and the deprecated site-local addresses.
        [first, ..] if first & 0xfe00 == 0xfc00 || first & 0xffc0 == 0xfec0 => Reach::Private,
        // Link-local, multicast, discard-only.
        [first, ..] if first & 0xffc0 == 0xfe80 || first & 0xff00 == 0xff00 => Reach::Link,
        [0x100, 0, 0, 0, ..] => Reach::Link,
        _ => Reach::Public,
    }
}

/// What names the next address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Redirect,
    /// The address of a token server, and whether the caller trusts that server.
    Realm {
        trusted: bool,
    },
    /// The `Location` of an upload.
    Upload,
}

/// An answer that names the next address.
#[derive(Clone, Debug)]
pub(super) struct Lead {
    pub(super) from: Origin,
    pub(super) way: Way,
}

impl Lead {
    /// Checks the text of an address that the answer names, and returns how narrow an address its name may resolve to.
    /// `reach` is that of the host that answered.
    pub(super) fn limit(&self, to: &Origin, reach: Reach) -> Result<Reach> {
        if self.from.https && !to.https {
            return Err(self.refuse(to, "which is not encrypted"));
        }
        let limit = self.narrowest(to, reach);
        match to.reach() {
            Some(found) if found > limit => Err(self.refuse(to, found.name())),
            _ => Ok(limit),
        }
    }

    fn narrowest(&self, to: &Origin, reach: Reach) -> Reach {
        if *to == self.from || self.way == (Way::Realm { trusted: true }) {
            return Reach::Link;
        }
        match (self.way, reach) {
            // A service on this machine may lead to another one; a device of the link only to itself.
            (_, Reach::Loopback) => Reach::Loopback,
            (_, Reach::Link) if to.host == self.from.host => Reach::Link,
            // A public registry may keep its blobs in a private network: storage that a cloud offers within it.
            (Way::Redirect, _) | (_, Reach::Private | Reach::Link) => Reach::Private,
            (Way::Realm { .. } | Way::Upload, Reach::Public) => Reach::Public,
        }
    }

    /// The error for an address that the client does not visit, and the reason.
    pub(super) fn refuse(&self, to: &Origin, reason: &str) -> Error {
        let from = &self.from;
        match self.way {
            Way::Redirect => ErrorKind::Protocol { reason: format!("{from} redirects to {to}, {reason}") }.into(),
            Way::Upload => ErrorKind::Protocol { reason: format!("{from} sends an upload to {to}, {reason}") }.into(),
            Way::Realm { .. } => {
                let reason = format!("{from} sends its users to {to}, {reason}");
                ErrorKind::Authentication { reason }.into()
            }
        }
    }
}

/// The widest reach of the addresses that each name has resolved to so far. A name that was public once stays public,
/// since a connection to that address may still be in use.
#[derive(Debug, Default)]
pub(super) struct Names(Mutex<HashMap<String, Reach>>);

impl Names {
    /// The reach of a host. A name that was not resolved here, but by a proxy, is a public one.
    pub(super) fn reach(&self, origin: &Origin) -> Reach {
        let resolved = || lock(&self.0).get(&origin.host).copied();
        match origin.reach() {
            Some(Reach::Loopback) | None => resolved().or(origin.reach()).unwrap_or(Reach::Public),
            Some(reach) => reach,
        }
    }

    pub(super) fn note(&self, host: &str, reach: Reach) {
        let mut names = lock(&self.0);
        if let Some(known) = names.get_mut(host) {
            *known = reach.min(*known);
        } else if names.len() < MAX_NAMES {
            names.insert(host.to_owned(), reach);
        }
    }
}

/// A name resolves to this address, and to none that the request may connect to.
#[derive(Debug)]
pub(super) struct OutOfReach(pub(super) IpAddr);

impl fmt::Display for OutOfReach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "whose name resolves to {}, {}", self.0, Reach::of(self.0).name())
    }
}

impl std::error::Error for OutOfReach {}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::registry::url::Url;

    fn reach(address: &str) -> Reach {
        Reach::of(address.parse().unwrap())
    }

    fn lead(way: Way, from: &str, to: &str) -> Result<Reach> {
        let origin = |url: &str| Url::parse(url).unwrap().origin;
        let (from, to) = (origin(from), origin(to));
        let reach = from.reach().unwrap_or(Reach::Public);
        Lead { from, way }.limit(&to, reach)
    }

    /// X2: the lists of addresses are complete, at both ends of each range.
    #[test]
    fn special_addresses_are_recognized() {
        for (expected, addresses) in [
            (
                Reach::Public,
                "1.1.1.1 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.0 169.253.255.255 \
                 169.255.0.0 172.15.255.255 172.32.0.0 192.0.1.0 192.167.255.255 192.169.0.0 198.17.255.255 198.20.0.0 \
                 223.255.255.255 2600::1 ::ffff:8.8.8.8 ::8.8.8.8 64:ff9b::8.8.8.8 2002:808:808::1 \
                 2001:0:808:808::f7f7:f7f7",
            ),
            (
                Reach::Private,
                "10.0.0.0 10.255.255.255 172.16.0.0 172.31.255.255 192.168.0.0 192.168.255.255 100.64.0.0 \
                 100.127.255.255 192.0.0.0 192.0.0.255 198.18.0.0 198.19.255.255 fc00::1 fd00::1 fdff::1 fec0::1 \
                 ::ffff:10.0.0.1 ::10.0.0.1 64:ff9b::10.0.0.1 64:ff9b:1::1 2002:a00:1::1 ::ffff:0:10.0.0.1 \
                 2001:0:808:808::f5ff:fffe",
            ),
            (
                Reach::Loopback,
                "127.0.0.1 127.255.255.255 ::1 ::ffff:127.0.0.1 ::127.0.0.1 64:ff9b::127.0.0.1 2002:7f00:1::",
            ),
            (
                Reach::Link,
                "0.0.0.0 0.255.255.255 169.254.169.254 224.0.0.1 239.255.255.255 240.0.0.1 255.255.255.255 :: fe80::1 \
                 febf::1 ff02::1 100::1 ::ffff:169.254.169.254 ::169.254.169.254 64:ff9b::169.254.169.254 \
                 2002:a9fe:a9fe::1 ::2",
            ),
        ] {
            for address in addresses.split_whitespace() {
                assert_eq!(reach(address), expected, "{address}");
            }
        }
    }

    /// X4, X2: not from https to http, and not to this machine or its link from elsewhere.
    #[test]
    fn redirects_lead_to_no_weaker_or_local_place() {
        for (from, to) in [
            ("https://example.com/", "http://example.com/"),
            ("https://example.com/", "https://127.0.0.1/"),
            ("https://example.com/", "https://localhost/"),
            ("https://example.com/", "https://169.254.169.254/latest"),
            ("https://example.com/", "https://[::ffff:169.254.169.254]/"),
            ("https://example.com/", "https://[64:ff9b::7f00:1]/"),
            ("https://example.com/", "https://[fe80::1]/"),
            ("http://10.0.0.1/", "http://0.0.0.0/"),
            ("http://10.0.0.1/", "http://127.0.0.1/"),
            ("https://example.com/", "https://localhost./"),
            ("https://example.com/", "https://x.LOCALHOST/"),
            ("http://127.0.0.1/", "http://169.254.169.254/"),
        ] {
            assert!(lead(Way::Redirect, from, to).is_err(), "{from} {to}");
        }
        for (from, to, limit) in [
            ("https://example.com/", "https://storage.test/", Reach::Private),
            ("https://example.com/", "https://10.0.0.1/", Reach::Private),
            ("http://127.0.0.1:1/", "http://127.0.0.2:2/", Reach::Loopback),
            ("http://127.0.0.1:1/", "https://storage.test/", Reach::Loopback),
            ("https://example.com/a", "https://example.com/b", Reach::Link),
            ("https://example.com/", "https://example.com:444/", Reach::Private),
        ] {
            assert_eq!(lead(Way::Redirect, from, to).unwrap(), limit, "{from} {to}");
        }
    }

    /// X2: no downgrade, no private addresses from outside, no cloud metadata from anywhere.
    #[test]
    fn realms_are_refused_where_they_cannot_be_honest() {
        let realm = |from, to| lead(Way::Realm { trusted: false }, from, to);
        for (registry, to) in [
            ("https://registry.example.com", "http://registry.example.com/token"),
            ("https://registry.example.com", "https://10.0.0.1/token"),
            ("https://registry.example.com", "https://100.64.0.1/token"),
            ("https://registry.example.com", "https://[fd00::1]/token"),
            ("https://registry.example.com", "https://127.0.0.1/token"),
            ("https://registry.example.com", "https://169.254.169.254/latest"),
            ("https://registry.example.com", "https://[::ffff:10.0.0.1]/token"),
            ("https://registry.example.com", "https://[2002:a00:1::]/token"),
            ("http://10.0.0.1", "http://169.254.169.254/latest"),
            ("http://10.0.0.1", "http://127.0.0.1/token"),
            ("http://127.0.0.1", "http://0.0.0.0/token"),
        ] {
            assert!(realm(registry, to).is_err(), "{registry} {to}");
            assert!(lead(Way::Upload, registry, to).is_err(), "{registry} {to}");
        }
        for (registry, to, limit) in [
            ("http://127.0.0.1:5000", "http://127.0.0.2:5001", Reach::Loopback),
            ("https://registry-1.docker.io", "https://auth.docker.io", Reach::Public),
            ("https://registry-1.docker.io", "https://registry-1.docker.io/token", Reach::Link),
            ("https://10.0.0.1", "https://10.0.0.2", Reach::Private),
            ("https://[fd00::1]", "https://auth.test", Reach::Private),
        ] {
            assert_eq!(realm(registry, to).unwrap(), limit, "{registry} {to}");
        }
        let trusted = Way::Realm { trusted: true };
        assert_eq!(lead(trusted, "https://example.com", "https://auth.corp.example").unwrap(), Reach::Link);
        assert!(lead(trusted, "https://example.com", "http://auth.corp.example").is_err());
    }
}
