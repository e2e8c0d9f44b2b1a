//! Requests and answers. The only file that knows which HTTP client this crate uses.
//!
//! The client is told to follow no redirects, take no proxy from the environment, decode nothing and give up on
//! nothing by itself: all of that is decided here and by the callers.

use std::collections::HashSet;
use std::fmt;
use std::io;
use std::io::Read;
use std::sync::Mutex;
use std::time::Duration;

use super::url::Origin;
use super::url::Url;
use super::url::may_redirect;

use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Limit;
use crate::error::Result;
use crate::sync::lock;

/// How often one request is redirected.
const MAX_REDIRECTS: u64 = 6;
const MAX_HEADERS: usize = 64 << 10;
const BUFFER: usize = 128 << 10;

/// No limit is longer: an `Instant` has a largest value, and sizes come from outside.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// A text that nothing prints.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Secret(String);

impl Secret {
    pub(super) fn new(text: impl Into<String>) -> Secret {
        Secret(text.into())
    }

    pub(super) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

/// Time limits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timeouts {
    pub(super) connect: Duration,
    /// Between two pieces of an answer.
    pub(super) idle: Duration,
    /// For one request and its answer, besides what its size allows.
    pub(super) total: Duration,
    /// Bytes per second below which an answer takes too long.
    pub(super) slowest: u64,
}

impl Timeouts {
    fn deadline(&self, bytes: u64) -> Duration {
        self.total.saturating_add(Duration::from_secs(bytes / self.slowest.max(1))).min(LONGEST)
    }
}

/// Where redirects may lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Redirects {
    /// To other hosts too, but without credentials.
    Anywhere,
    /// Only within the same origin.
    SameOrigin,
}

#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) method: &'static str,
    pub(super) url: Url,
    pub(super) headers: Vec<(&'static str, String)>,
    /// Sent to the request's origin and to no other.
    pub(super) authorization: Option<Secret>,
    pub(super) redirects: Redirects,
    /// How many bytes the answer is expected to have.
    pub(super) expected: u64,
}

impl Request {
    pub(super) fn get(url: Url) -> Request {
        Request {
            method: "GET",
            url,
            headers: Vec::new(),
            authorization: None,
            redirects: Redirects::Anywhere,
            expected: 0,
        }
    }

    pub(super) fn head(url: Url) -> Request {
        Request { method: "HEAD", ..Request::get(url) }
    }

    pub(super) fn header(mut self, name: &'static str, value: impl Into<String>) -> Request {
        self.headers.push((name, value.into()));
        self
    }
}

/// An answer: of any status but a redirect.
pub(super) struct Response {
    method: &'static str,
    url: Url,
    inner: ureq::http::Response<ureq::Body>,
}

impl Response {
    pub(super) fn method(&self) -> &'static str {
        self.method
    }

    /// Where the answer came from, after redirects.
    pub(super) fn url(&self) -> &Url {
        &self.url
    }

    pub(super) fn status(&self) -> u16 {
        self.inner.status().as_u16()
    }

    /// The header's value; none if it is missing or no plain text.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.inner.headers().get(name).and_then(|value| value.to_str().ok())
    }

    pub(super) fn headers<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> + use<'a> {
        self.inner.headers().get_all(name).iter().filter_map(|value| value.to_str().ok())
    }

    pub(super) fn content_length(&self) -> Option<u64> {
        self.header("content-length").and_then(|text| text.parse().ok())
    }

    /// The first `limit` bytes of the body, or all of it if it has fewer.
    pub(super) fn read_to_limit(self, limit: u64) -> Result<Vec<u8>> {
        let mut body = Vec::new();
        self.into_body().take(limit).read_to_end(&mut body)?;
        Ok(body)
    }

    pub(super) fn into_body(self) -> Body {
        Body { origin: self.url.origin.clone(), reader: self.inner.into_body().into_reader() }
    }
}

/// The bytes of an answer. Errors of reading are this crate's.
pub(super) struct Body {
    origin: Origin,
    reader: ureq::BodyReader<'static>,
}

impl Read for Body {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reader.read(buffer).map_err(|error| {
            if error.kind() == io::ErrorKind::Interrupted {
                return error;
            }
            io_fault(error, &self.origin, Phase::Answer).into()
        })
    }
}

/// Sends requests. Connections are kept and used again.
pub(super) struct Http {
    agent: ureq::Agent,
    /// The proxy for encrypted connections; plain ones are made directly.
    proxy: Option<ureq::Proxy>,
    timeouts: Timeouts,
    /// The hosts that have answered, with their ports.
    reached: Mutex<HashSet<String>>,
}

/// Which proxy encrypted connections go through.
#[derive(Clone, Debug)]
pub(super) enum ProxyChoice {
    Direct,
    Environment,
    Url(Secret),
}

impl ProxyChoice {
    /// A proxy that was asked for and cannot be used is an error: connections must not go around it.
    fn find(&self) -> Result<Option<ureq::Proxy>> {
        let unusable = |whose: &str| Error::invalid_input(format!("{whose} is no address of an http or https proxy"));
        let (proxy, whose) = match self {
            ProxyChoice::Direct => return Ok(None),
            ProxyChoice::Url(url) => (ureq::Proxy::new(url.reveal()).ok(), "the proxy's address"),
            ProxyChoice::Environment if !is_proxy_in_environment() => return Ok(None),
            ProxyChoice::Environment => (ureq::Proxy::try_from_env(), "the environment's proxy"),
        };
        let speaks_http =
            |proxy: &ureq::Proxy| matches!(proxy.protocol(), ureq::ProxyProtocol::Http | ureq::ProxyProtocol::Https);
        proxy.filter(speaks_http).map(Some).ok_or_else(|| unusable(whose))
    }
}

fn is_proxy_in_environment() -> bool {
    let names = ["ALL_PROXY", "all_proxy", "HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"];
    names.iter().any(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()))
}

impl Http {
    pub(super) fn new(timeouts: Timeouts, user_agent: &str, proxy: &ProxyChoice) -> Result<Http> {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .user_agent(user_agent)
            .accept("")
            .accept_encoding("identity")
            .timeout_resolve(Some(timeouts.connect.min(LONGEST)))
            .timeout_connect(Some(timeouts.connect.min(LONGEST)))
            .timeout_per_read(Some(timeouts.idle.min(LONGEST)))
            .timeout_per_write(Some(timeouts.idle.min(LONGEST)))
            .max_response_header_size(MAX_HEADERS)
            .input_buffer_size(BUFFER)
            .output_buffer_size(16 << 10)
            .max_idle_connections_per_host(8)
            .build();
        Ok(Http { agent: config.into(), proxy: proxy.find()?, timeouts, reached: Mutex::default() })
    }

    /// Whether this host, with its port, has ever answered.
    pub(super) fn has_reached(&self, host: &str) -> bool {
        lock(&self.reached).contains(host)
    }

    /// Sends a request and follows redirects as far as it allows. Credentials stay with the request's origin.
    pub(super) fn send(&self, request: &Request) -> Result<Response> {
        let mut url = request.url.clone();
        for _ in 0..=MAX_REDIRECTS {
            let answer = self.send_once(request, &url)?;
            let Some(location) = redirect(&answer) else { return Ok(answer) };
            let next = url.join(location)?;
            if request.redirects == Redirects::SameOrigin && next.origin != request.url.origin {
                let reason = format!("{} redirects to {}, another host", url.origin, next.origin);
                return Err(ErrorKind::Authentication { reason }.into());
            }
            may_redirect(&url.origin, &next.origin)?;
            url = next;
        }
        Err(Error::limit(Limit::Redirects, MAX_REDIRECTS).context(format!("{} {}", request.method, request.url)))
    }

    fn send_once(&self, request: &Request, url: &Url) -> Result<Response> {
        let mut builder = ureq::http::Request::builder().method(request.method).uri(url.full());
        for (name, value) in &request.headers {
            builder = builder.header(*name, value);
        }
        if let Some(secret) = request.authorization.as_ref().filter(|_| url.origin == request.url.origin) {
            builder = builder.header("authorization", secret.reveal());
        }
        let invalid = |_| ErrorKind::Protocol { reason: format!("no request can be made of {url}") };
        let built = builder.body(()).map_err(invalid)?;
        let mut configured =
            self.agent.configure_request(built).timeout_global(Some(self.timeouts.deadline(request.expected)));
        if url.origin.https {
            configured = configured.proxy(self.proxy.clone());
        }
        let inner = self.agent.run(configured.build()).map_err(|error| fault(error, &url.origin, Phase::Request))?;
        lock(&self.reached).insert(url.origin.authority());
        Ok(Response { method: request.method, url: url.clone(), inner })
    }
}

fn redirect(answer: &Response) -> Option<&str> {
    match answer.status() {
        301 | 302 | 303 | 307 | 308 => answer.header("location"),
        _ => None,
    }
}

/// When a connection failed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Request,
    Answer,
}

fn fault(error: ureq::Error, origin: &Origin, phase: Phase) -> Error {
    let host = origin.authority();
    let connect = |reason: &str| ErrorKind::Connect { host: origin.authority(), reason: reason.to_owned() };
    let tls = |reason: String| ErrorKind::Tls { host: origin.authority(), reason };
    match error {
        ureq::Error::Io(error) => return io_fault(error, origin, phase),
        ureq::Error::Timeout(which) => ErrorKind::TimedOut { host, which: limit_name(which) },
        ureq::Error::HostNotFound => connect("unknown host"),
        ureq::Error::ConnectionFailed => connect("no connection"),
        ureq::Error::ConnectProxyFailed(_) => connect("the proxy refuses"),
        ureq::Error::Tls(reason) => tls(reason.to_owned()),
        ureq::Error::TlsRequired => tls("https is not built in (feature `rustls`)".to_owned()),
        #[cfg(feature = "rustls")]
        ureq::Error::Rustls(error) => tls(error.to_string()),
        ureq::Error::LargeResponseHeader(..) => {
            ErrorKind::Protocol { reason: format!("the headers of {host}'s answer are too large") }
        }
        // What these say may quote the address, whose query may be secret.
        ureq::Error::BadUri(_) | ureq::Error::Http(_) => {
            ErrorKind::Protocol { reason: format!("{host} was asked in a way that HTTP does not allow") }
        }
        error => ErrorKind::Network { host, reason: error.to_string() },
    }
    .into()
}

fn io_fault(error: io::Error, origin: &Origin, phase: Phase) -> Error {
    let host = origin.authority();
    let error = match error.downcast::<ureq::Error>() {
        Ok(inner) => return fault(inner, origin, phase),
        Err(error) => error,
    };
    let reason = error.to_string();
    match error.kind() {
        io::ErrorKind::ConnectionRefused
        | io::ErrorKind::HostUnreachable
        | io::ErrorKind::NetworkUnreachable
        | io::ErrorKind::AddrNotAvailable
        | io::ErrorKind::NotFound => ErrorKind::Connect { host, reason },
        _ if phase == Phase::Request && is_unknown_host(&reason) => ErrorKind::Connect { host, reason },
        io::ErrorKind::TimedOut => ErrorKind::TimedOut { host, which: "idle" },
        io::ErrorKind::InvalidData if origin.https => ErrorKind::Tls { host, reason },
        _ => ErrorKind::Network { host, reason },
    }
    .into()
}

/// The standard library gives an unknown host no kind of its own.
fn is_unknown_host(reason: &str) -> bool {
    reason.starts_with("failed to lookup address")
}

fn limit_name(timeout: ureq::Timeout) -> &'static str {
    match timeout {
        ureq::Timeout::Resolve | ureq::Timeout::Connect => "connect",
        ureq::Timeout::Global | ureq::Timeout::PerCall => "total",
        _ => "idle",
    }
}
