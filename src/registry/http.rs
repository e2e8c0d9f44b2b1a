//! Requests and answers. The only file that knows which HTTP client this crate uses.
//!
//! The client is told to follow no redirects, take no proxy from the environment, decode nothing and give up on
//! nothing by itself: all of that is decided here and by the callers.

use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::io;
use std::io::Read;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, DefaultConnector, NextTimeout, Transport};

use super::fault::{Phase, of_io};
use super::host::Host;
use super::pace::Permit;
use super::proxy::Proxy;
use super::reach::{Lead, Names, OutOfReach, Reach, Way};
pub(super) use super::request::{Content, Payload, Redirects, Request, Timeouts};
use super::request::{LONGEST, Sending};
use super::url::{Origin, Url};

use crate::error::{Error, ErrorKind, Limit, Result};
use crate::sync::lock;

/// How often one request is redirected.
const MAX_REDIRECTS: u64 = 6;
/// Bytes of an answer's headers, with interim answers, and of a body's trailers. An answer that arrives at once may have
/// more.
const MAX_HEADERS: usize = 64 << 10;
/// Also the client's limit on headers. It counts what follows an interim answer in its buffer, body included.
const BUFFER: usize = 128 << 10;
/// How many bytes of an answer that nobody wants are read, so that its connection can be used again.
const SMALL_REST: u64 = 4 << 10;
/// For how long more of it is waited for. One wait may last as long as any between two pieces.
const BRIEFLY: Duration = Duration::from_millis(200);

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
        RECEIVED.set(0);
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
    agents: Agents,
    /// The proxy for encrypted connections, and where it is not for; plain ones are made directly.
    proxy: Option<(ureq::Proxy, Proxy)>,
    timeouts: Timeouts,
    /// What holds for some hosts only.
    hosts: HashMap<Origin, Special>,
    /// The hosts that have answered, with their ports.
    reached: Mutex<HashSet<String>>,
    names: Arc<Names>,
}

/// What holds for one host only.
struct Special {
    /// Connections of its own, where they are secured otherwise than others.
    agents: Option<Agents>,
    /// The same for requests that somebody else sends there: without saying who we are.
    visiting: Option<Agents>,
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
        let names = Arc::<Names>::default();
        let agents = |host: &Host| Ok::<_, Error>(Agents::new(config(timeouts, user_agent, host)?, &names));
        let special = |(origin, host): &(Origin, Host)| {
            let secured = |host: &Host| host.is_secured_otherwise().then(|| agents(host)).transpose();
            let visiting = secured(&host.without_identity())?;
            Ok((origin.clone(), Special { agents: secured(host)?, visiting, headers: host.headers.clone() }))
        };
        Ok(Http {
            agents: agents(&Host::new())?,
            proxy: proxy.map(|proxy| Ok::<_, Error>((usable(&proxy)?, proxy))).transpose()?,
            timeouts,
            hosts: hosts.iter().map(special).collect::<Result<_>>()?,
            reached: Mutex::default(),
            names: Arc::clone(&names),
        })
    }

    /// Whether this host, with its port, has ever answered.
    pub(super) fn has_reached(&self, host: &str) -> bool {
        lock(&self.reached).contains(host)
    }

    /// Checks the text of an address that an answer names, and returns how narrow an address its name may resolve to.
    pub(super) fn limit(&self, lead: &Lead, to: &Origin) -> Result<Reach> {
        lead.limit(to, self.names.reach(&lead.from))
    }

    /// Sends a request and follows redirects as far as it allows. Credentials, headers of the host and certificates
    /// stay with the request's origin, and do not come back once it was left.
    pub(super) fn send(&self, request: &Request<'_>) -> Result<Response> {
        let mut hop = Hop { url: request.url.clone(), known: !request.as_nobody, limit: Reach::Link };
        let mut lead = request.lead.clone();
        for _ in 0..=MAX_REDIRECTS {
            hop.known &= hop.url.origin == request.url.origin;
            if let Some(lead) = &lead {
                hop.limit = hop.limit.min(self.limit(lead, &hop.url.origin)?);
            }
            let answer = self.send_once(request, &hop, lead.as_ref())?;
            let Some(location) = redirect(&answer) else { return Ok(answer) };
            if !matches!(request.method, "GET" | "HEAD") && !matches!(answer.status(), 307 | 308) {
                // The others would make another request of it (RFC 9110, section 15.4).
                return Ok(answer);
            }
            let next = hop.url.join(location)?;
            if request.redirects == Redirects::SameOrigin && next.origin != request.url.origin {
                let reason = format!("{} redirects to {}, another host", hop.url.origin, next.origin);
                return Err(ErrorKind::Authentication { reason }.into());
            }
            lead = Some(Lead { from: hop.url.origin, way: Way::Redirect });
            hop.url = next;
        }
        Err(Error::limit(Limit::Redirects, MAX_REDIRECTS).context(format!("{} {}", request.method, request.url)))
    }

    fn send_once(&self, request: &Request<'_>, hop: &Hop, lead: Option<&Lead>) -> Result<Response> {
        let Hop { url, known, limit } = hop;
        let (known, limit) = (*known, *limit);
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
        let own = special.and_then(|special| if known { special.agents.as_ref() } else { special.visiting.as_ref() });
        let agent = own.unwrap_or(&self.agents).within(limit);
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
                let mut sending = Sending::new(content)?;
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
        let inner = inner.map_err(|error| match (lead, out_of_reach(&error)) {
            (Some(lead), Some(why)) => lead.refuse(&url.origin, &why.to_string()),
            _ => fault(error, &url.origin, Phase::Request),
        })?;
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

/// One address on the way of a request.
struct Hop {
    url: Url,
    /// Whether the host may know who we are.
    known: bool,
    /// The narrowest address that the host's name may resolve to.
    limit: Reach,
}

/// Which connection a request takes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Connection {
    /// One that was used before, if there is one.
    Kept,
    New,
}

/// Agents with the same settings, one for each limit on the addresses that they connect to. Their connections are
/// kept apart, so that a request gets none to an address that it would not be allowed to connect to.
struct Agents {
    config: ureq::config::Config,
    names: Arc<Names>,
    made: [OnceLock<ureq::Agent>; 4],
}

impl Agents {
    fn new(config: ureq::config::Config, names: &Arc<Names>) -> Agents {
        Agents { config, names: Arc::clone(names), made: Default::default() }
    }

    fn within(&self, limit: Reach) -> &ureq::Agent {
        self.made[limit as usize].get_or_init(|| {
            let resolver =
                LimitedResolver { system: DefaultResolver::default(), limit, names: Arc::clone(&self.names) };
            ureq::Agent::with_parts(self.config.clone(), DefaultConnector::new().chain(Metered), resolver)
        })
    }
}

/// Resolves names, and leaves out the addresses that a request may not connect to.
#[derive(Debug)]
struct LimitedResolver {
    system: DefaultResolver,
    limit: Reach,
    names: Arc<Names>,
}

impl Resolver for LimitedResolver {
    fn resolve(
        &self,
        uri: &ureq::http::Uri,
        config: &ureq::config::Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let found = self.system.resolve(uri, config, timeout)?;
        if config.proxy().is_some_and(|proxy| proxy.uri() == uri) {
            // The caller's choice, and no answer's.
            return Ok(found);
        }
        if let (Some(host), Some(widest)) = (uri.host(), found.iter().map(|address| Reach::of(address.ip())).min()) {
            self.names.note(host, widest);
        }
        let mut allowed = self.empty();
        for address in found.iter().filter(|address| Reach::of(address.ip()) <= self.limit) {
            allowed.push(*address);
        }
        match found.first() {
            Some(address) if allowed.is_empty() => Err(ureq::Error::Other(Box::new(OutOfReach(address.ip())))),
            _ => Ok(allowed),
        }
    }
}

fn out_of_reach(error: &ureq::Error) -> Option<&OutOfReach> {
    match error {
        ureq::Error::Other(inner) => inner.downcast_ref(),
        _ => None,
    }
}

thread_local! {
    /// Bytes that this thread received since it last sent something or began to read from a body. The client has no
    /// other way to tell a connection that a call begins.
    static RECEIVED: Cell<usize> = const { Cell::new(0) };
}

/// Wraps connections in [`MeteredTransport`].
#[derive(Debug)]
struct Metered;

impl Connector<Box<dyn Transport>> for Metered {
    type Out = MeteredTransport;

    fn connect(
        &self,
        _: &ConnectionDetails<'_>,
        chained: Option<Box<dyn Transport>>,
    ) -> Result<Option<MeteredTransport>, ureq::Error> {
        Ok(chained.map(MeteredTransport))
    }
}

/// A connection that ends a call which receives more than [`MAX_HEADERS`] without coming to a result. The head of an
/// answer and a piece of a body are results; interim answers (1xx) and trailers are not, and a server can send them
/// without end.
#[derive(Debug)]
struct MeteredTransport(Box<dyn Transport>);

impl Transport for MeteredTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.0.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        // Sending may have read from the body of another answer.
        RECEIVED.set(0);
        self.0.transmit_output(amount, timeout)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        let received = RECEIVED.get();
        if received > MAX_HEADERS {
            return Err(ureq::Error::LargeResponseHeader(received, MAX_HEADERS));
        }
        let before = self.0.buffers().input().len();
        let made_progress = self.0.await_input(timeout)?;
        RECEIVED.set(received.saturating_add(self.0.buffers().input().len().saturating_sub(before)));
        Ok(made_progress)
    }

    fn is_open(&mut self) -> bool {
        self.0.is_open()
    }

    fn is_tls(&self) -> bool {
        self.0.is_tls()
    }
}

fn config(timeouts: Timeouts, user_agent: &str, host: &Host) -> Result<ureq::config::Config> {
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
        .max_response_header_size(BUFFER)
        .input_buffer_size(BUFFER)
        .output_buffer_size(BUFFER)
        .max_idle_connections_per_host(8);
    #[cfg(feature = "rustls")]
    let config = if host.is_secured_otherwise() { config.tls_config(tls(host)?) } else { config };
    #[cfg(not(feature = "rustls"))]
    let _ = host;
    Ok(config.build())
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
            ErrorKind::Protocol { reason: format!("the headers or trailers of {host}'s answer are too large") }
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
    of_io(&error, host, origin.https, phase).into()
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

fn limit_name(timeout: ureq::Timeout) -> &'static str {
    match timeout {
        ureq::Timeout::Resolve | ureq::Timeout::Connect => "connect",
        ureq::Timeout::Global | ureq::Timeout::PerCall => "total",
        _ => "idle",
    }
}
