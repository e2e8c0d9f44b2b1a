//! Requests and answers. The only file that knows which HTTP client this crate uses.
//!
//! The client is told to follow no redirects, take no proxy from the environment, decode nothing and give up on
//! nothing by itself: all of that is decided here and by the callers.

use std::collections::HashMap;
use std::collections::HashSet;
use std::io;
use std::io::Read;
use std::sync::Mutex;
use std::time::Duration;
use std::time::Instant;

use super::host::Host;
use super::pace::Permit;
use super::proxy::Proxy;
use super::secret::Secret;
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
/// How many bytes of an answer that nobody wants are read, so that its connection can be used again.
const SMALL_REST: u64 = 4 << 10;
/// For how long more of it is waited for. One wait may last as long as any between two pieces.
const BRIEFLY: Duration = Duration::from_millis(200);

/// No limit is longer: an `Instant` has a largest value, and sizes come from outside.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);

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

/// What a request brings along. It is opened anew for each attempt.
#[derive(Clone, Copy)]
pub(super) enum Payload<'a> {
    None,
    Bytes(&'a [u8]),
    /// So many bytes.
    Stream(&'a dyn Content, u64),
}

/// Bytes that can be read more than once.
pub(super) trait Content {
    /// A reader of the bytes, from the first.
    fn open(&self) -> Result<Box<dyn Read + '_>>;
}

#[derive(Clone)]
pub(super) struct Request<'a> {
    pub(super) method: &'static str,
    pub(super) url: Url,
    pub(super) headers: Vec<(&'static str, String)>,
    /// Sent to the request's origin and to no other.
    pub(super) authorization: Option<Secret>,
    pub(super) redirects: Redirects,
    /// How many bytes the answer is expected to have.
    pub(super) expected: u64,
    pub(super) payload: Payload<'a>,
    /// Whether the host must not know who we are.
    pub(super) as_nobody: bool,
}

impl<'a> Request<'a> {
    pub(super) fn get(url: Url) -> Request<'a> {
        Request {
            method: "GET",
            url,
            headers: Vec::new(),
            authorization: None,
            redirects: Redirects::Anywhere,
            expected: 0,
            payload: Payload::None,
            as_nobody: false,
        }
    }

    pub(super) fn head(url: Url) -> Request<'a> {
        Request { method: "HEAD", ..Request::get(url) }
    }

    pub(super) fn delete(url: Url) -> Request<'a> {
        Request { method: "DELETE", redirects: Redirects::SameOrigin, ..Request::get(url) }
    }

    /// A request that changes something. What it brings along goes to no other origin.
    pub(super) fn send(method: &'static str, url: Url, payload: Payload<'a>) -> Request<'a> {
        Request { method, payload, redirects: Redirects::SameOrigin, ..Request::get(url) }
    }

    pub(super) fn header(mut self, name: &'static str, value: impl Into<String>) -> Request<'a> {
        self.headers.push((name, value.into()));
        self
    }
}

/// An answer: of any status but a redirect.
pub(super) struct Response {
    method: &'static str,
    url: Url,
    head: ureq::http::response::Parts,
    body: Body,
}

impl Response {
    fn new(method: &'static str, url: &Url, inner: ureq::http::Response<ureq::Body>) -> Response {
        let (head, body) = inner.into_parts();
        let body = Body { reader: body.into_reader(), origin: url.origin.clone(), left: None, permit: None };
        let mut response = Response { method, url: url.clone(), head, body };
        response.body.left = response.content_length();
        response
    }

    /// Holds this right until the answer was read.
    pub(super) fn holding(mut self, permit: Option<Permit>) -> Response {
        self.body.permit = permit;
        self
    }

    pub(super) fn method(&self) -> &'static str {
        self.method
    }

    /// Where the answer came from, after redirects.
    pub(super) fn url(&self) -> &Url {
        &self.url
    }

    pub(super) fn status(&self) -> u16 {
        self.head.status.as_u16()
    }

    /// The header's value; none if it is missing or no plain text.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.head.headers.get(name).and_then(|value| value.to_str().ok())
    }

    pub(super) fn headers<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> + use<'a> {
        self.head.headers.get_all(name).iter().filter_map(|value| value.to_str().ok())
    }

    /// How many bytes the answer says to have. One that comes in chunks has as many as come, whatever else it says (RFC
    /// 9112, section 6.3).
    pub(super) fn content_length(&self) -> Option<u64> {
        if self.head.headers.contains_key("transfer-encoding") {
            return None;
        }
        self.header("content-length").and_then(|text| text.parse().ok())
    }

    /// The first `limit` bytes of the body, or all of it if it has fewer.
    pub(super) fn read_to_limit(self, limit: u64) -> Result<Vec<u8>> {
        let mut body = Vec::new();
        self.into_body().take(limit).read_to_end(&mut body)?;
        Ok(body)
    }

    pub(super) fn into_body(self) -> Body {
        self.body
    }
}

/// The bytes of an answer. Errors of reading are this crate's.
///
/// When it is dropped, its connection can be used again if there was little left to read, and that comes soon.
pub(super) struct Body {
    reader: ureq::BodyReader<'static>,
    origin: Origin,
    /// How many bytes will come; none if that was not said, or no more will.
    left: Option<u64>,
    /// Held for as long as the connection is in use.
    permit: Option<Permit>,
}

impl Read for Body {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(permit) = &self.permit {
            permit.adopt();
        }
        match self.reader.read(buffer) {
            Ok(count) => {
                self.left = self.left.map(|left| left.saturating_sub(count as u64));
                Ok(count)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(error),
            Err(error) => {
                self.left = None;
                Err(io_fault(error, &self.origin, Phase::Answer).into())
            }
        }
    }
}

impl Body {
    /// Gives up the connection: whoever was told to stop reads nothing more.
    pub(super) fn discard(mut self) {
        self.left = None;
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        // The client gives a connection back when it is asked for more than there is.
        if self.left.is_some_and(|left| left <= SMALL_REST) {
            let begun = Instant::now();
            let mut rest = self.reader.by_ref().take(SMALL_REST + 1);
            let mut piece = [0; 1 << 10];
            while begun.elapsed() < BRIEFLY && matches!(rest.read(&mut piece), Ok(1..)) {}
        }
    }
}

/// Sends requests. Connections are kept and used again.
pub(super) struct Http {
    agent: ureq::Agent,
    /// The proxy for encrypted connections, and where it is not for; plain ones are made directly.
    proxy: Option<(ureq::Proxy, Proxy)>,
    timeouts: Timeouts,
    /// What holds for some hosts only.
    hosts: HashMap<Origin, Special>,
    /// The hosts that have answered, with their ports.
    reached: Mutex<HashSet<String>>,
}

/// What holds for one host only.
struct Special {
    /// Connections of its own, where they are secured otherwise than others.
    agent: Option<ureq::Agent>,
    /// The same for requests that somebody else sends there: without saying who we are.
    visiting: Option<ureq::Agent>,
    headers: Vec<(String, String)>,
}

impl Http {
    /// A client, with special settings for these hosts.
    pub(super) fn new(
        timeouts: Timeouts,
        user_agent: &str,
        proxy: Option<Proxy>,
        hosts: &[(Origin, Host)],
    ) -> Result<Http> {
        let special = |(origin, host): &(Origin, Host)| {
            let secured = |host: &Host| -> Result<Option<ureq::Agent>> {
                host.is_secured_otherwise().then(|| agent(timeouts, user_agent, host)).transpose()
            };
            let visiting = secured(&host.without_identity())?;
            Ok((origin.clone(), Special { agent: secured(host)?, visiting, headers: host.headers.clone() }))
        };
        Ok(Http {
            agent: agent(timeouts, user_agent, &Host::new())?,
            proxy: proxy.map(|proxy| Ok::<_, Error>((usable(&proxy)?, proxy))).transpose()?,
            timeouts,
            hosts: hosts.iter().map(special).collect::<Result<_>>()?,
            reached: Mutex::default(),
        })
    }

    /// Whether this host, with its port, has ever answered.
    pub(super) fn has_reached(&self, host: &str) -> bool {
        lock(&self.reached).contains(host)
    }

    /// Sends a request and follows redirects as far as it allows. Credentials, headers of the host and certificates
    /// stay with the request's origin, and do not come back once it was left.
    pub(super) fn send(&self, request: &Request<'_>) -> Result<Response> {
        let mut url = request.url.clone();
        let mut known = !request.as_nobody;
        for _ in 0..=MAX_REDIRECTS {
            known &= url.origin == request.url.origin;
            let answer = self.send_once(request, &url, known)?;
            let Some(location) = redirect(&answer) else { return Ok(answer) };
            if !matches!(request.method, "GET" | "HEAD") && !matches!(answer.status(), 307 | 308) {
                // The others would make another request of it (RFC 9110, section 15.4).
                return Ok(answer);
            }
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

    /// `known`: whether the host may know who we are.
    fn send_once(&self, request: &Request<'_>, url: &Url, known: bool) -> Result<Response> {
        let special = self.hosts.get(&url.origin);
        let builder = || {
            let mut builder = ureq::http::Request::builder().method(request.method).uri(url.full());
            for (name, value) in &request.headers {
                builder = builder.header(*name, value);
            }
            for (name, value) in special.iter().filter(|_| known).flat_map(|special| &special.headers) {
                builder = builder.header(name, value);
            }
            if let Some(secret) = request.authorization.as_ref().filter(|_| known) {
                builder = builder.header("authorization", secret.reveal());
            }
            builder
        };
        let own = special.and_then(|special| if known { special.agent.as_ref() } else { special.visiting.as_ref() });
        let agent = own.unwrap_or(&self.agent);
        let inner = match request.payload {
            Payload::None => self.run_surely(agent, builder, url, request.expected, ()),
            Payload::Bytes(bytes) => {
                let most = request.expected.max(bytes.len() as u64);
                // What opens or closes an upload does not do so twice.
                match request.method {
                    "PUT" if !bytes.is_empty() => self.run_surely(agent, builder, url, most, bytes),
                    _ => self.run(agent, builder(), url, most, bytes, Connection::Kept),
                }
            }
            Payload::Stream(content, length) => {
                let mut sending = Sending { reader: content.open()?, failure: None };
                let body = ureq::SendBody::from_reader(&mut sending);
                let builder = builder().header("content-length", length);
                let sent = self.run(agent, builder, url, length, body, Connection::Kept);
                // What our own side could not read is not the host's fault.
                match sending.failure {
                    Some(failure) => return Err(failure),
                    None => sent,
                }
            }
        };
        let inner = inner.map_err(|error| fault(error, &url.origin, Phase::Request))?;
        lock(&self.reached).insert(url.origin.authority());
        Ok(Response::new(request.method, url, inner))
    }

    /// The same as [`run`](Http::run), and once more if the host had closed a connection that was kept: it may do so
    /// whenever it wants, also while a request is on its way, and that is nobody's failure (RFC 9112, section 9.3.1).
    fn run_surely(
        &self,
        agent: &ureq::Agent,
        builder: impl Fn() -> ureq::http::request::Builder,
        url: &Url,
        bytes: u64,
        body: impl ureq::AsSendBody + Copy,
    ) -> Result<ureq::http::Response<ureq::Body>, ureq::Error> {
        match self.run(agent, builder(), url, bytes, body, Connection::Kept) {
            Err(error) if is_hang_up(&error) && self.has_reached(&url.origin.authority()) => {
                self.run(agent, builder(), url, bytes, body, Connection::New)
            }
            answer => answer,
        }
    }

    fn run(
        &self,
        agent: &ureq::Agent,
        builder: ureq::http::request::Builder,
        url: &Url,
        bytes: u64,
        body: impl ureq::AsSendBody,
        connection: Connection,
    ) -> Result<ureq::http::Response<ureq::Body>, ureq::Error> {
        let request = agent.configure_request(builder.body(body)?);
        let mut configured = request.timeout_global(Some(self.timeouts.deadline(bytes)));
        if url.origin.https {
            let proxy = self.proxy.as_ref().filter(|(_, proxy)| !proxy.excepts(&url.origin));
            configured = configured.proxy(proxy.map(|(proxy, _)| proxy.clone()));
        }
        if connection == Connection::New {
            configured = configured.max_idle_age(Duration::ZERO);
        }
        agent.run(configured.build())
    }
}

/// Which connection a request takes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Connection {
    /// One that was used before, if there is one.
    Kept,
    New,
}

/// Reads what is sent, and keeps the error that ends it.
struct Sending<'a> {
    reader: Box<dyn Read + 'a>,
    failure: Option<Error>,
}

impl Read for Sending<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reader.read(buffer).map_err(|error| {
            if error.kind() == io::ErrorKind::Interrupted {
                return error;
            }
            self.failure = Some(error.into());
            io::ErrorKind::Other.into()
        })
    }
}

fn agent(timeouts: Timeouts, user_agent: &str, host: &Host) -> Result<ureq::Agent> {
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
        .output_buffer_size(BUFFER)
        .max_idle_connections_per_host(8);
    #[cfg(feature = "rustls")]
    let config = if host.is_secured_otherwise() { config.tls_config(tls(host)?) } else { config };
    #[cfg(not(feature = "rustls"))]
    let _ = host;
    Ok(config.build().into())
}

/// A proxy that was asked for and cannot be used is an error: connections must not go around it.
fn usable(proxy: &Proxy) -> Result<ureq::Proxy> {
    let found = ureq::Proxy::new(proxy.address.reveal()).ok();
    let speaks_http =
        |proxy: &ureq::Proxy| matches!(proxy.protocol(), ureq::ProxyProtocol::Http | ureq::ProxyProtocol::Https);
    let unusable = || Error::invalid_input(format!("{} is no address of an http or https proxy", proxy.whose));
    found.filter(speaks_http).ok_or_else(unusable)
}

/// How connections to a host are secured.
#[cfg(feature = "rustls")]
fn tls(host: &Host) -> Result<ureq::tls::TlsConfig> {
    let mut tls = ureq::tls::TlsConfig::builder().disable_verification(host.unverified);
    if !host.authorities.is_empty() {
        let mut roots = Vec::new();
        for pem in &host.authorities {
            roots.extend(certificates(pem)?);
        }
        tls = tls.root_certs(roots.into());
    }
    if let Some((chain, key)) = &host.identity {
        let key = ureq::tls::PrivateKey::from_pem(key.reveal().as_bytes());
        let key = key.map_err(|_| Error::invalid_input("the client's key is no PEM private key"))?;
        tls = tls.client_cert(Some(ureq::tls::ClientCert::new_with_certs(&certificates(chain)?, key)));
    }
    Ok(tls.build())
}

/// The certificates of a PEM file: at least one.
#[cfg(feature = "rustls")]
fn certificates(pem: &str) -> Result<Vec<ureq::tls::Certificate<'static>>> {
    let rubbish = || Error::invalid_input("a file of certificates holds none in PEM form");
    let mut found = Vec::new();
    for item in ureq::tls::parse_pem(pem.as_bytes()) {
        if let ureq::tls::PemItem::Certificate(certificate) = item.map_err(|_| rubbish())? {
            found.push(certificate);
        }
    }
    if found.is_empty() { Err(rubbish()) } else { Ok(found) }
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

/// Whether a connection ended in the place of an answer.
fn is_hang_up(error: &ureq::Error) -> bool {
    let ureq::Error::Io(error) = error else { return false };
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::NotConnected
            | io::ErrorKind::UnexpectedEof
    )
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
