//! Images in registries: a blocking client of the OCI distribution protocol, for any host.
//!
//! * [`Registry`] is the client. It is made once, and keeps connections and tokens.
//! * [`Builder`] sets it up: credentials, time limits, what to do after failures, proxies.
//! * [`Repository`] is one name on one host, with a method for each thing that can be asked.
//! * [`CredentialSource`], [`Credentials`] and [`Login`] are who we are.
//! * [`Retry`], [`Backoff`] and [`Never`] are when to try again.
//!
//! Most callers need [`Registry::pull`] and nothing else.
//!
//! ```
//! # use layercake::testing;
//! use layercake::{ImageReference, Registry, Store};
//!
//! # let dir = tempfile::tempdir()?;
//! # let served = Store::create(dir.path().join("served"))?;
//! # let name: ImageReference = "example.com/greeter:1".parse()?;
//! # testing::Fixture::demo().tag(&served, &name)?;
//! # let server = testing::Registry::start(&served)?;
//! # let image = server.reference("greeter:1")?;
//! let registry = Registry::new();
//! let repository = registry.repository(&image)?;
//! let root = repository.fetch(&image.identifier())?;
//! println!("{}", root.descriptor().digest);
//! # Ok::<(), layercake::Error>(())
//! ```
//!
//! What holds, whatever a registry answers: bodies are verified against their descriptors and never read beyond
//! them; documents, tokens and error texts have limits; credentials go to the host that they were given for, and to
//! a token server that belongs to it; no answer leads from https to http; nothing is decompressed.
//!
//! # Which transport
//!
//! `localhost`, addresses in 127.0.0.0/8 and `[::1]` are spoken to over plain http. All other hosts are spoken to
//! over https, unless [`Builder::plain_http`] names them. There is no falling back from one to the other.
//!
//! # Threads and cloning
//!
//! A client is cheap to clone, and clones share connections, tokens and settings. All of it may be used from many
//! threads.

mod auth;
mod challenge;
mod credentials;
mod download;
mod endpoint;
mod fault;
mod http;
mod repository;
mod retry;
mod url;

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use auth::Authenticator;
use auth::Purpose;
use http::Http;
use http::ProxyChoice;
use http::Request;
use http::Response;
use http::Secret;
use http::Timeouts;
use url::Origin;

use crate::descriptor::Descriptor;
use crate::error::Error;
use crate::error::Result;
use crate::error::printable;
use crate::event::Event;
use crate::event::Watch;
use crate::reference::DEFAULT_HOST;
use crate::reference::ImageReference;
use crate::sync::lock;

pub use credentials::CredentialSource;
pub use credentials::Credentials;
pub use credentials::Login;
pub use repository::Blob;
pub use repository::Repository;
pub use retry::Backoff;
pub use retry::Failure;
pub use retry::Never;
pub use retry::Retry;

/// The host that serves `docker.io`.
const DOCKER_HUB: &str = "registry-1.docker.io";
/// How many different warnings are told of; a registry that has more to say is not listened to.
const MAX_WARNINGS: usize = 100;

/// A client of registries.
#[derive(Clone)]
pub struct Registry(Arc<Shared>);

struct Shared {
    http: Http,
    auth: Authenticator,
    retry: Box<dyn Retry>,
    plain_http: Vec<String>,
    https: Vec<String>,
    /// The warnings that were told of.
    warned: Mutex<HashSet<String>>,
}

impl Registry {
    /// A client without credentials, with the settings that [`Builder`] lists as defaults.
    pub fn new() -> Registry {
        Registry::builder().build().expect("the defaults are valid settings")
    }

    /// Settings for a client.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// The repository of a name; its tag and digest do not matter. No request is made.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Protocol`](crate::ErrorKind::Protocol) if the name's host is one that resolvers take for an
    /// oddly written address (`127.1`).
    pub fn repository(&self, reference: &ImageReference) -> Result<Repository> {
        let host = reference.host().to_ascii_lowercase();
        let origin = self.0.origin(&host)?;
        Ok(Repository::new(self.clone(), host, origin, reference.repository()))
    }

    /// Asks whether a host is a registry (distribution-spec, "Determining Support"), and signs in if it wants that.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Registry`](crate::ErrorKind::Registry) if it answers with another status than 200; the kinds of
    /// failing connections.
    pub fn ping(&self, host: &str) -> Result<()> {
        let host = host.to_ascii_lowercase();
        let request = Request::get(self.0.origin(&host)?.url("/v2/".to_owned()));
        let response = self.0.auth.send(&self.0.http, request, &Purpose { host, scope: String::new() })?;
        if response.status() == 200 { Ok(()) } else { Err(fault::refusal(response)) }
    }

    /// Does something until it succeeds, fails for good, or the policy has had enough. Pauses are told to `watch`.
    fn retrying<T>(&self, watch: &Watch<'_>, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
        let mut failures = 0;
        loop {
            watch.check()?;
            match attempt() {
                Ok(result) => return Ok(result),
                Err(error) => {
                    failures += 1;
                    self.pause(watch, None, failures, error)?;
                }
            }
        }
    }

    /// Waits before the next attempt, or fails with `error` if there is to be none.
    fn pause(&self, watch: &Watch<'_>, blob: Option<&Descriptor>, attempt: u32, error: Error) -> Result<()> {
        if !fault::may_pass(&error, |host| self.0.http.has_reached(host)) {
            return Err(error);
        }
        let Some(delay) = self.0.retry.delay(&Failure::new(attempt, &error)) else {
            return Err(if attempt > 1 { error.context(format!("after {attempt} attempts")) } else { error });
        };
        watch.tell(&Event::Retrying { blob, attempt, delay, error: &error });
        watch.sleep(delay)
    }

    /// Sends a request with whatever credentials it takes.
    fn send(&self, request: Request, purpose: &Purpose, watch: &Watch<'_>) -> Result<Response> {
        let response = self.0.auth.send(&self.0.http, request, purpose)?;
        self.warn(&response, watch);
        Ok(response)
    }

    /// Tells of the answer's warnings, each once (distribution-spec, "Warnings").
    fn warn(&self, response: &Response, watch: &Watch<'_>) {
        for text in response.headers("warning").filter_map(warning_text) {
            let mut warned = lock(&self.0.warned);
            if warned.len() < MAX_WARNINGS && warned.insert(text.clone()) {
                drop(warned);
                watch.tell(&Event::Warning { text: &text });
            }
        }
    }
}

impl Default for Registry {
    fn default() -> Registry {
        Registry::new()
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").finish_non_exhaustive()
    }
}

impl Shared {
    /// Where a name's host is, and how it is spoken to.
    fn origin(&self, host: &str) -> Result<Origin> {
        if host == DEFAULT_HOST {
            return Origin::new(true, DOCKER_HUB);
        }
        let listed = |hosts: &[String]| hosts.iter().any(|listed| listed == host);
        if listed(&self.plain_http) {
            return Origin::new(false, host);
        }
        let https = Origin::new(true, host)?;
        let exact = !https.host.ends_with('.') && !https.host.ends_with(".localhost");
        if https.is_loopback() && exact && !listed(&self.https) { Origin::new(false, host) } else { Ok(https) }
    }
}

/// `299 - "text"`; other forms are not for us.
fn warning_text(header: &str) -> Option<String> {
    let quoted = header.trim().strip_prefix("299 - \"")?.strip_suffix('"')?;
    let mut text = String::with_capacity(quoted.len());
    let mut chars = quoted.chars();
    while let Some(c) = chars.next() {
        text.push(if c == '\\' { chars.next()? } else { c });
    }
    Some(printable(&text, 1000))
}

/// Settings for a [`Registry`].
///
/// Nothing is read from files or from the environment unless a method says so.
#[must_use = "a builder makes nothing before `build`"]
pub struct Builder {
    credentials: Option<Box<dyn CredentialSource>>,
    trusted_realms: Vec<String>,
    retry: Box<dyn Retry>,
    timeouts: Timeouts,
    proxy: ProxyChoice,
    user_agent: String,
    plain_http: Vec<String>,
    https: Vec<String>,
}

impl Default for Builder {
    fn default() -> Builder {
        Builder {
            credentials: None,
            trusted_realms: Vec::new(),
            retry: Box::new(Backoff::default()),
            timeouts: Timeouts {
                connect: Duration::from_secs(15),
                idle: Duration::from_secs(30),
                total: Duration::from_secs(120),
                slowest: 16 << 10,
            },
            proxy: ProxyChoice::Direct,
            user_agent: concat!("layercake/", env!("CARGO_PKG_VERSION")).to_owned(),
            plain_http: Vec::new(),
            https: Vec::new(),
        }
    }
}

impl Builder {
    /// Where credentials come from; by default there are none.
    pub fn credentials(self, source: impl CredentialSource + 'static) -> Builder {
        Builder { credentials: Some(Box::new(source)), ..self }
    }

    /// Lets a token server have the credentials of registries that name it, although it is not a host under the
    /// registry's own domain. `host` is a host, or a host and a port.
    pub fn trust_token_server(mut self, host: &str) -> Builder {
        self.trusted_realms.push(host.to_ascii_lowercase());
        self
    }

    /// What to do after failures that may pass; by default [`Backoff::default`].
    pub fn retry(self, policy: impl Retry + 'static) -> Builder {
        Builder { retry: Box::new(policy), ..self }
    }

    /// How long making a connection may take; 15 seconds by default.
    pub fn connect_timeout(mut self, limit: Duration) -> Builder {
        self.timeouts.connect = limit;
        self
    }

    /// How long a registry may be silent in the middle of an answer, or before it; 30 seconds by default.
    pub fn idle_timeout(mut self, limit: Duration) -> Builder {
        self.timeouts.idle = limit;
        self
    }

    /// How long one request and its answer may take, besides what the answer's size allows at the
    /// [slowest rate](Builder::slowest_rate); two minutes by default.
    pub fn total_timeout(mut self, limit: Duration) -> Builder {
        self.timeouts.total = limit;
        self
    }

    /// How slow a download may be, in bytes per second; 16 KiB by default. A blob of a gigabyte may so take 18 hours,
    /// and one of a kilobyte two minutes.
    pub fn slowest_rate(mut self, bytes_per_second: u64) -> Builder {
        self.timeouts.slowest = bytes_per_second;
        self
    }

    /// Takes the proxy for encrypted connections from the environment: `ALL_PROXY`, `HTTPS_PROXY` or `HTTP_PROXY`,
    /// with the exceptions of `NO_PROXY`. Plain connections, to loopback hosts and to those of
    /// [`plain_http`](Builder::plain_http), never go through a proxy.
    pub fn proxy_from_env(self) -> Builder {
        Builder { proxy: ProxyChoice::Environment, ..self }
    }

    /// The proxy for encrypted connections, such as `http://user:password@proxy.example.com:3128`. It sees which
    /// hosts are spoken to and nothing more.
    pub fn proxy(self, url: &str) -> Builder {
        Builder { proxy: ProxyChoice::Url(Secret::new(url)), ..self }
    }

    /// What the client calls itself; `layercake/` and its version by default.
    pub fn user_agent(self, name: impl Into<String>) -> Builder {
        Builder { user_agent: name.into(), ..self }
    }

    /// Speaks to this host without encryption. It is named as in images' names, such as `registry.test:5000`; a host
    /// without port means port 80.
    pub fn plain_http(mut self, host: &str) -> Builder {
        self.plain_http.push(host.to_ascii_lowercase());
        self
    }

    /// Speaks https to this loopback host, which without this gets plain http.
    pub fn https(mut self, host: &str) -> Builder {
        self.https.push(host.to_ascii_lowercase());
        self
    }

    /// Makes the client. No request is made.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) if the proxy's address or the user agent cannot
    /// be used.
    pub fn build(self) -> Result<Registry> {
        if !self.user_agent.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()) {
            return Err(Error::invalid_input("the user agent has characters that headers do not have"));
        }
        Ok(Registry(Arc::new(Shared {
            http: Http::new(self.timeouts, &self.user_agent, &self.proxy)?,
            auth: Authenticator::new(self.credentials, self.trusted_realms),
            retry: self.retry,
            plain_http: self.plain_http,
            https: self.https,
            warned: Mutex::default(),
        })))
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(registry: &Registry, host: &str) -> String {
        registry.0.origin(host).unwrap().to_string()
    }

    /// Loopback hosts get plain http, and nothing that only looks like one.
    #[test]
    fn only_loopback_hosts_are_spoken_to_over_plain_http() {
        let registry = Registry::builder().plain_http("registry.test:5000").https("127.0.0.1:8443").build().unwrap();
        for (host, expected) in [
            ("docker.io", "https://registry-1.docker.io"),
            ("localhost", "http://localhost"),
            ("localhost:5000", "http://localhost:5000"),
            ("127.8.9.1:5000", "http://127.8.9.1:5000"),
            ("[::1]:5000", "http://[::1]:5000"),
            ("localhost.evil.com", "https://localhost.evil.com"),
            ("evil.localhost", "https://evil.localhost"),
            ("127.0.0.1.evil.com", "https://127.0.0.1.evil.com"),
            ("128.0.0.1", "https://128.0.0.1"),
            ("registry.test:5000", "http://registry.test:5000"),
            ("registry.test", "https://registry.test"),
            ("127.0.0.1:8443", "https://127.0.0.1:8443"),
        ] {
            assert_eq!(origin(&registry, host), expected);
        }
        assert!(registry.0.origin("127.1").is_err());
        assert!(registry.0.origin("2130706433").is_err());
    }

    /// D30: only code 299 and agent `-`; escapes are undone.
    #[test]
    fn warnings_are_read_in_their_one_form() {
        assert_eq!(warning_text(r#"299 - "deprecated: \"v1\"""#).as_deref(), Some(r#"deprecated: "v1""#));
        for other in [r#"110 - "stale""#, r#"299 host "text""#, "299 -", r#"299 - "x\""#, ""] {
            assert_eq!(warning_text(other), None, "{other:?}");
        }
    }
}
