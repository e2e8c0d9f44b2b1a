//! Images in registries: a blocking client of the OCI distribution protocol, for any host.
//!
//! * [`Registry`] is the client. It is made once, and keeps connections and tokens.
//! * [`Builder`] sets it up: credentials, time limits, what to do after failures, proxies; and [`Host`] what holds for
//!   one host only: certificates, mirrors, headers, limits.
//! * [`Repository`] is one name on one host, with a method for each thing that can be asked.
//! * [`CredentialSource`], [`Credentials`] and [`Login`] are who we are; [`DockerConfig`] is who we are by the files that
//!   `docker login` and `podman login` leave.
//! * [`Listing`] is a list that comes in pages: tags, repositories, referrers. [`Search`] finds repositories, and
//!   [`SearchHit`] is one.
//! * [`BlobSource`] is a blob's bytes, to be sent.
//! * [`RateLimit`] is how much a registry will give.
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
//! # What is logged
//!
//! This crate logs nothing, and no error or `Debug` of it has a secret. The crates below it log by `log`'s rules: with
//! the level `trace`, `ureq_proto` writes down whatever goes over the wire, passwords and tokens included. A program
//! that turns that level on for all crates should turn it off for that one (`RUST_LOG=trace,ureq_proto=debug`).
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
mod builder;
mod catalog;
#[cfg(feature = "rustls")]
mod certificates;
mod challenge;
mod clock;
mod credentials;
mod docker_config;
mod download;
mod endpoint;
mod fault;
#[cfg(feature = "testing")]
pub(crate) mod fuzzing;
mod host;
mod http;
mod listing;
mod pace;
mod piece;
mod proxy;
mod publish;
mod rate;
mod reach;
mod referrers;
mod repository;
mod request;
mod retry;
mod search;
mod secret;
mod session;
mod upload;
mod url;

use std::collections::HashMap;
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use auth::Access;
use auth::Authenticator;
use auth::Purpose;
use clock::Time;
use credentials::identity;
use endpoint::Endpoint;
use endpoint::Place;
use http::Http;
use http::Request;
use http::Response;
use pace::Pace;
use reach::Lead;
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

pub use builder::Builder;
pub use clock::Clock;
pub use credentials::CredentialSource;
pub use credentials::Credentials;
pub use credentials::Login;
pub use docker_config::DockerConfig;
pub(crate) use download::Download;
pub(crate) use fault::is_refused;
pub use host::Host;
pub use listing::Listing;
pub use piece::BlobSource;
pub use rate::RateLimit;
pub use repository::Blob;
pub use repository::Repository;
use repository::silent;
pub use retry::Backoff;
pub use retry::Failure;
pub use retry::Never;
pub use retry::Retry;
pub use search::Search;
pub use search::SearchHit;

/// The host that serves `docker.io`.
const DOCKER_HUB: &str = "registry-1.docker.io";
/// How many different warnings are told of; a registry that has more to say is not listened to.
const MAX_WARNINGS: usize = 100;
/// How long a mirror that could not be talked to is left alone.
const REST: Duration = Duration::from_secs(60);

/// A client of registries.
#[derive(Clone)]
pub struct Registry(Arc<Shared>);

struct Shared {
    http: Http,
    auth: Authenticator,
    retry: Box<dyn Retry>,
    time: Arc<Time>,
    pace: Pace,
    /// Settings for some hosts, as names write them.
    hosts: HashMap<String, Host>,
    /// The warnings that were told of.
    warned: Mutex<HashSet<String>>,
    /// Mirrors that could not be talked to, and until when they are left alone.
    resting: Mutex<HashMap<Origin, Duration>>,
    /// What the hosts last said of how much they will give.
    rates: Mutex<HashMap<Origin, RateLimit>>,
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
        let own = self.0.place(reference.host())?;
        let settings = self.0.hosts.get(&reference.host().to_ascii_lowercase());
        let mirrors = settings.map_or(&[][..], |host| &host.mirrors);
        let mirrors = mirrors.iter().map(|mirror| self.0.place(mirror)).collect::<Result<_>>()?;
        Ok(Repository(Endpoint::new(self.clone(), own, mirrors, reference.repository())))
    }

    /// Asks whether a host is a registry (distribution-spec, "Determining Support"), and signs in if it wants that.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Registry`](crate::ErrorKind::Registry) if it answers with another status than 200; the kinds of
    /// failing connections.
    pub fn ping(&self, host: &str) -> Result<()> {
        let place = self.0.place(host)?;
        let request = Request::get(place.origin.url("/v2/".to_owned()));
        let response = self.send(request, &Purpose::new(&place.host, "", &[]), &silent())?;
        if response.status() == 200 { Ok(()) } else { Err(fault::refusal(response)) }
    }

    /// What a host, as names write it, last said of how many pulls it allows; none if it said nothing yet.
    ///
    /// Docker Hub says it with each answer about a manifest, also to [`Repository::resolve`], which it does not count.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Protocol`](crate::ErrorKind::Protocol) if this is no host.
    pub fn rate_limit(&self, host: &str) -> Result<Option<RateLimit>> {
        let place = self.0.place(host)?;
        Ok(lock(&self.0.rates).get(&place.origin).cloned())
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
        self.0.time.sleep(delay, watch)
    }

    /// Waits, by the client's clock.
    fn wait(&self, delay: Duration, watch: &Watch<'_>) -> Result<()> {
        if delay.is_zero() { Ok(()) } else { self.0.time.sleep(delay, watch) }
    }

    /// Sends a request with whatever credentials it takes.
    fn send(&self, request: Request<'_>, purpose: &Purpose, watch: &Watch<'_>) -> Result<Response> {
        let origin = request.url.origin.clone();
        let permit = self.0.pace.enter(&origin, &self.0.time, watch)?;
        let response = self.0.auth.send(&self.0.http, request, purpose)?.holding(permit);
        self.warn(&response, watch);
        if let Some(rate) = RateLimit::of(&response) {
            lock(&self.0.rates).insert(origin, rate);
        }
        Ok(response)
    }

    /// Sends a request to a host that must not know who we are.
    fn send_as_nobody(&self, request: Request<'_>) -> Result<Response> {
        self.0.http.send(&Request { as_nobody: true, ..request })
    }

    /// Checks an address that an answer names; see [`Lead::limit`].
    fn check_lead(&self, lead: &Lead, to: &Origin) -> Result<()> {
        self.0.http.limit(lead, to).map(drop)
    }

    /// Whether a mirror could not be talked to a short while ago.
    fn is_out_of_reach(&self, mirror: &Origin) -> bool {
        lock(&self.0.resting).get(mirror).is_some_and(|until| *until > self.0.time.now())
    }

    fn note_out_of_reach(&self, mirror: &Origin) {
        lock(&self.0.resting).insert(mirror.clone(), self.0.time.now() + REST);
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
    /// Whom credentials for a name's host are kept under, and where it is.
    fn place(&self, host: &str) -> Result<Place> {
        let name = host.to_ascii_lowercase();
        let encrypted = self.hosts.get(&name).and_then(|settings| settings.encrypted);
        Ok(Place { host: identity(host), origin: origin(&name, encrypted)? })
    }
}

/// Where a name's host is, and how it is spoken to: as was said, or as its address is.
fn origin(host: &str, encrypted: Option<bool>) -> Result<Origin> {
    let address = if host == DEFAULT_HOST { DOCKER_HUB } else { host };
    if let Some(encrypted) = encrypted {
        return Origin::new(encrypted, address);
    }
    let https = Origin::new(true, address)?;
    let exact = !https.host.ends_with('.') && !https.host.ends_with(".localhost");
    if https.is_loopback() && exact { Origin::new(false, address) } else { Ok(https) }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(registry: &Registry, host: &str) -> String {
        registry.0.place(host).unwrap().origin.to_string()
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
        assert!(registry.0.place("127.1").is_err());
        assert!(registry.0.place("2130706433").is_err());
    }

    /// Case 166: Docker Hub is one identity at all its addresses, and no host's case matters.
    #[test]
    fn a_host_has_one_identity() {
        let registry = Registry::new();
        for (host, identity, address) in [
            ("docker.io", "docker.io", "registry-1.docker.io"),
            ("registry-1.docker.io", "docker.io", "registry-1.docker.io"),
            ("Index.Docker.io", "docker.io", "index.docker.io"),
            ("Quay.io:443", "quay.io:443", "quay.io"),
            ("auth.docker.io", "auth.docker.io", "auth.docker.io"),
        ] {
            let place = registry.0.place(host).unwrap();
            assert_eq!((place.host.as_str(), place.origin.host.as_str()), (identity, address));
        }
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
