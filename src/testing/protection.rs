//! Protects a registry from other users of the machine and from web pages.

use std::net::SocketAddr;

use super::refusal::Code;
use super::refusal::Reply;
use super::request::Request;

/// How a registry is protected from those who reach its port without being meant to: other users of the machine, and
/// web pages in a browser on it. By default not at all, for tests.
///
/// ```
/// use layercake::testing::{Protection, Registry};
/// # let dir = tempfile::tempdir()?;
/// # let store = layercake::Store::create(dir.path().join("store"))?;
/// let registry = Registry::start_protected(&store, ([127, 0, 0, 1], 0).into(), Protection::full())?;
/// # Ok::<(), layercake::Error>(())
/// ```
#[non_exhaustive]
#[derive(Clone, Debug, Default)]
pub struct Protection {
    /// Whether all requests that would change something are refused. Default: false.
    pub read_only: bool,
    /// Whether only names of the registry's own host are changed: `app:1` is stored as `127.0.0.1:5000/app:1`, and no
    /// name of another registry is replaced or removed. Names of other hosts are served all the same. Default: false.
    pub own_names: bool,
    /// Whether the headers `Host` and `Origin` must name this server, which a web page that reaches it by a name of its
    /// own (DNS rebinding) cannot achieve. Default: false.
    pub check_host: bool,
}

impl Protection {
    /// All of it.
    pub fn full() -> Protection {
        Protection { read_only: true, own_names: true, check_host: true }
    }

    /// The same, but pushes are accepted, from every user of the machine.
    pub fn writable(self) -> Protection {
        Protection { read_only: false, ..self }
    }

    pub(super) fn check(&self, request: &Request, address: SocketAddr) -> Reply<()> {
        if self.check_host {
            check_host(request, address)?;
        }
        if self.read_only && !matches!(request.method.as_str(), "GET" | "HEAD") {
            return Err(Code::Denied.because(&"this registry is read-only"));
        }
        Ok(())
    }
}

fn check_host(request: &Request, address: SocketAddr) -> Reply<()> {
    let values = |name: &'static str| request.headers.iter().filter(move |(found, _)| found.eq_ignore_ascii_case(name));
    let mut hosts = values("host");
    match (hosts.next(), hosts.next()) {
        (Some((_, host)), None) if is_own(host, address) => {}
        _ => return Err(Code::Denied.because(&format_args!("the header Host must be {address}"))),
    }
    let is_own_origin = |origin: &str| origin.strip_prefix("http://").is_some_and(|host| is_own(host, address));
    if values("origin").all(|(_, origin)| is_own_origin(origin)) {
        Ok(())
    } else {
        Err(Code::Denied.because(&"the request is of a page of another host"))
    }
}

/// Whether a host with its port is this server: the usual names of this machine, or the address that it listens on.
fn is_own(host: &str, address: SocketAddr) -> bool {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, port.parse().ok()),
        _ => (host, Some(80)),
    };
    let listening = match address {
        SocketAddr::V4(address) => address.ip().to_string(),
        SocketAddr::V6(address) => format!("[{}]", address.ip()),
    };
    let is_name = ["localhost", "127.0.0.1", "[::1]", &listening].iter().any(|own| own.eq_ignore_ascii_case(name));
    is_name && port == Some(address.port())
}
