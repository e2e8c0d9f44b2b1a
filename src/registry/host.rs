//! Settings for one host.

use std::fmt;
use std::num::NonZeroUsize;

use super::secret::Secret;

use crate::error::Error;
use crate::error::Result;

/// Settings for one host, for [`Builder::host`](super::Builder::host). Each holds for that host and its port only, and
/// for no host that it redirects to; where another host redirects to this one, its certificates are checked as is said
/// here, and it gets neither the headers nor the client's certificate.
///
/// ```
/// use layercake::Registry;
/// use layercake::registry::Host;
///
/// let registry = Registry::builder()
///     .host("registry.corp.example:5000", Host::new().header("x-team", "builds").connections(2))
///     .host("docker.io", Host::new().mirror("mirror.corp.example"))
///     .build()?;
/// # Ok::<(), layercake::Error>(())
/// ```
#[derive(Clone, Default)]
#[must_use = "settings do nothing before they are given to a builder"]
pub struct Host {
    /// Plain http, or https even on a loopback address; where nothing is said, the address decides.
    pub(super) encrypted: Option<bool>,
    pub(super) unverified: bool,
    /// PEM files of certificates.
    pub(super) authorities: Vec<String>,
    /// The client's certificates and key, both PEM.
    pub(super) identity: Option<(String, Secret)>,
    pub(super) headers: Vec<(String, String)>,
    pub(super) mirrors: Vec<String>,
    pub(super) connections: Option<NonZeroUsize>,
    pub(super) requests_per_second: Option<NonZeroUsize>,
}

impl Host {
    /// No settings but the usual ones.
    pub fn new() -> Host {
        Host::default()
    }

    /// Speaks to the host without encryption.
    pub fn plain_http(self) -> Host {
        Host { encrypted: Some(false), ..self }
    }

    /// Speaks https to the host, although its address is a loopback one.
    pub fn https(self) -> Host {
        Host { encrypted: Some(true), ..self }
    }

    /// Sends this header with each request.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Host {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Reads from this host first, which has the same repositories; several are tried in their order. What a mirror
    /// does not have, or cannot give, comes from the next, and in the end from the host itself. A mirror never sees
    /// the host's credentials; it may have its own, and its own settings. All that is asked of it by digest is
    /// verified, and a blob with another digest than it should have is an error; of what a tag means, its word counts.
    pub fn mirror(mut self, host: impl Into<String>) -> Host {
        self.mirrors.push(host.into().to_ascii_lowercase());
        self
    }

    /// Uses at most this many connections at once; at least one. Where something is copied, each of the blobs on their
    /// way may take one more, so that nobody waits for himself. Token servers, and hosts that are redirected to, are not
    /// counted.
    pub fn connections(self, most: usize) -> Host {
        Host { connections: Some(NonZeroUsize::new(most).unwrap_or(NonZeroUsize::MIN)), ..self }
    }

    /// Makes at most this many requests in a second; at least one.
    pub fn requests_per_second(self, most: usize) -> Host {
        Host { requests_per_second: Some(NonZeroUsize::new(most).unwrap_or(NonZeroUsize::MIN)), ..self }
    }

    /// The same for requests that must not say who we are.
    pub(super) fn without_identity(&self) -> Host {
        Host { identity: None, ..self.clone() }
    }

    /// Whether its connections are secured otherwise than those of other hosts.
    pub(super) fn is_secured_otherwise(&self) -> bool {
        self.unverified || !self.authorities.is_empty() || self.identity.is_some()
    }

    /// Headers that would break a request, or undo what this client decides, are refused.
    pub(super) fn check(&self) -> Result<()> {
        let own = [
            "accept",
            "accept-encoding",
            "authorization",
            "connection",
            "content-length",
            "content-range",
            "content-type",
            "expect",
            "host",
            "proxy-authorization",
            "range",
            "transfer-encoding",
            "upgrade",
        ];
        for (name, value) in &self.headers {
            let token = |b: u8| b.is_ascii_alphanumeric() || b"-_!#$%&'*+.^`|~".contains(&b);
            let is_name = !name.is_empty() && name.bytes().all(token);
            let is_value = value.bytes().all(|b| b == b' ' || b.is_ascii_graphic());
            if !is_name || !is_value || own.iter().any(|own| own.eq_ignore_ascii_case(name)) {
                return Err(Error::invalid_input(format!("the header {name:?} cannot be set")));
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Host {
    /// Headers may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host")
            .field("encrypted", &self.encrypted)
            .field("unverified", &self.unverified)
            .field("mirrors", &self.mirrors)
            .finish_non_exhaustive()
    }
}
