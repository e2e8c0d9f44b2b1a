//! The server: connections, requests, answers.

use std::collections::HashMap;
use std::io;
use std::io::BufWriter;
use std::io::Read;
use std::io::Write;
use std::net::Ipv4Addr;
use std::net::Shutdown;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use super::answer::Answer;
use super::answer::answer;
use super::auth::Guard;
use super::fault::Delivery;
use super::fault::Fault;
use super::request::Request;

use crate::error::Error;
use crate::error::Result;
use crate::reference::ImageReference;
use crate::store::Store;
use crate::sync::lock;

/// The most bytes of a request's head.
const MAX_HEAD: usize = 32 << 10;
const MAX_HEADERS: usize = 64;
/// How long a connection may be silent between requests.
const PATIENCE: Duration = Duration::from_secs(60);
const TOKEN_PATH: &str = "/token";

/// A registry in this process, which serves a store on a loopback address over plain http until it is dropped.
///
/// # Threads
///
/// Each connection has a thread of its own. All methods may be called while requests are being answered.
#[derive(Debug)]
pub struct Registry {
    shared: Arc<Shared>,
    address: SocketAddr,
    accepting: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    store: Store,
    stopped: AtomicBool,
    faults: Mutex<Vec<Fault>>,
    guard: Mutex<Guard>,
    requests: Mutex<Vec<Request>>,
    connections: Mutex<HashMap<usize, TcpStream>>,
}

impl Registry {
    /// Serves a store on a free port of 127.0.0.1.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) if no port can be had.
    pub fn start(store: &Store) -> Result<Registry> {
        Registry::start_at(store, (Ipv4Addr::LOCALHOST, 0).into())
    }

    /// Serves a store on this address, which must be a loopback one.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) if it is none;
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) if it cannot be had.
    pub fn start_at(store: &Store, address: SocketAddr) -> Result<Registry> {
        if !address.ip().is_loopback() {
            return Err(Error::invalid_input(format!("{address} is no loopback address")));
        }
        let listener = TcpListener::bind(address).map_err(|error| listen_error(address, error))?;
        let address = listener.local_addr().map_err(|error| listen_error(address, error))?;
        let shared = Arc::new(Shared {
            store: store.clone(),
            stopped: AtomicBool::new(false),
            faults: Mutex::default(),
            guard: Mutex::default(),
            requests: Mutex::default(),
            connections: Mutex::default(),
        });
        let accepting = std::thread::spawn({
            let shared = Arc::clone(&shared);
            move || accept(&shared, &listener)
        });
        Ok(Registry { shared, address, accepting: Some(accepting) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The host of the names that it serves, such as `127.0.0.1:40123`.
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// The whole name of an image that it serves: `app:1` becomes `127.0.0.1:40123/app:1`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidReference`](crate::ErrorKind::InvalidReference) if that is no name.
    pub fn reference(&self, name: &str) -> Result<ImageReference> {
        Ok(format!("{}/{name}", self.host()).parse()?)
    }

    /// Lets something go wrong from now on.
    pub fn fault(&self, fault: Fault) {
        lock(&self.shared.faults).push(fault);
    }

    /// Lets nothing go wrong any more.
    pub fn clear_faults(&self) {
        lock(&self.shared.faults).clear();
    }

    /// Demands a user name and a password: of each request, or of those for tokens if tokens are demanded.
    pub fn require_login(&self, username: &str, password: &str) {
        lock(&self.shared.guard).require_login(username, password);
    }

    /// Demands a token, which its own token server at `/token` issues and which lives this long.
    pub fn require_tokens(&self, life: Duration) {
        self.require_tokens_of(&format!("http://{}{TOKEN_PATH}", self.host()), life);
    }

    /// The same, but clients are sent to another token server.
    pub fn require_tokens_of(&self, realm: &str, life: Duration) {
        lock(&self.shared.guard).require_tokens(realm.to_owned(), life);
    }

    /// Forgets the tokens that were issued: requests that carry them are refused.
    pub fn expire_tokens(&self) {
        lock(&self.shared.guard).expire_tokens();
    }

    /// What was asked so far, in the order of arrival.
    pub fn requests(&self) -> Vec<Request> {
        lock(&self.shared.requests).clone()
    }

    /// Forgets what was asked so far.
    pub fn clear_requests(&self) {
        lock(&self.shared.requests).clear();
    }

    /// Stops at once, in the middle of answers too, as if the process had been killed. The port is free afterwards.
    pub fn stop(mut self) {
        self.shut_down();
    }

    fn shut_down(&mut self) {
        let Some(accepting) = self.accepting.take() else { return };
        self.shared.stopped.store(true, Ordering::SeqCst);
        for (_, connection) in lock(&self.shared.connections).drain() {
            let _ = connection.shutdown(Shutdown::Both);
        }
        // Wakes the thread that accepts; if that fails, nothing listens any more.
        let _ = TcpStream::connect(self.address);
        let _ = accepting.join();
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.shut_down();
    }
}

fn accept(shared: &Arc<Shared>, listener: &TcpListener) {
    for (id, connection) in listener.incoming().enumerate() {
        if shared.stopped.load(Ordering::SeqCst) {
            return;
        }
        let Ok(connection) = connection else {
            // Out of descriptors, most likely: others have to be closed first.
            std::thread::sleep(Duration::from_millis(10));
            continue;
        };
        if let Ok(clone) = connection.try_clone() {
            lock(&shared.connections).insert(id, clone);
        }
        let shared = Arc::clone(shared);
        std::thread::spawn(move || {
            // A connection that breaks is the client's to notice; one that is over is closed for all its handles.
            let _ = converse(&shared, &connection);
            let _ = connection.shutdown(Shutdown::Both);
            lock(&shared.connections).remove(&id);
        });
    }
}

/// Answers the requests of one connection.
fn converse(shared: &Shared, mut connection: &TcpStream) -> io::Result<()> {
    connection.set_read_timeout(Some(PATIENCE))?;
    connection.set_nodelay(true)?;
    let mut buffer = Vec::new();
    while let Some(request) = read_request(&mut connection, &mut buffer)? {
        lock(&shared.requests).push(request.clone());
        let fault = lock(&shared.faults).iter_mut().find_map(|fault| fault.strikes(&request).then(|| fault.clone()));
        let delivery = fault.as_ref().map(|fault| fault.delivery.clone()).unwrap_or_default();
        if delivery.hang_up {
            return Ok(());
        }
        let answer = respond(shared, &request, fault.as_ref());
        if !send(connection, &request, answer, &delivery)? {
            return Ok(());
        }
    }
    Ok(())
}

fn respond(shared: &Shared, request: &Request, fault: Option<&Fault>) -> Answer {
    let mut seen = request.clone();
    if fault.is_some_and(|fault| fault.ignore_range) {
        seen.headers.retain(|(name, _)| !name.eq_ignore_ascii_case("range"));
    }
    let answer = if request.path.split('?').next() == Some(TOKEN_PATH) {
        lock(&shared.guard).issue(request)
    } else {
        let refused = lock(&shared.guard).refuse(request);
        refused.unwrap_or_else(|| answer(&shared.store, &seen))
    };
    match fault {
        Some(fault) => fault.apply(answer),
        None => answer,
    }
}

/// The next request; none when the client has closed the connection. A body is not read: nothing here takes one.
fn read_request(connection: &mut &TcpStream, buffer: &mut Vec<u8>) -> io::Result<Option<Request>> {
    loop {
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut parsed = httparse::Request::new(&mut headers);
        match parsed.parse(buffer) {
            Ok(httparse::Status::Complete(length)) => {
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                let request = Request {
                    method: parsed.method.unwrap_or_default().to_owned(),
                    path: parsed.path.unwrap_or_default().to_owned(),
                    headers: parsed.headers.iter().map(|h| (h.name.to_owned(), text(h.value))).collect(),
                };
                buffer.drain(..length);
                return Ok(Some(request));
            }
            Ok(httparse::Status::Partial) if buffer.len() < MAX_HEAD => {}
            _ => return Err(io::Error::new(io::ErrorKind::InvalidData, "no request")),
        }
        let mut chunk = [0; 4096];
        match connection.read(&mut chunk)? {
            0 => return Ok(None),
            count => buffer.extend_from_slice(&chunk[..count]),
        }
    }
}

/// Sends an answer. Returns whether the connection can be used again.
fn send(connection: &TcpStream, request: &Request, answer: Answer, delivery: &Delivery) -> io::Result<bool> {
    let mut out = BufWriter::with_capacity(64 << 10, connection);
    write!(out, "HTTP/1.1 {} Whatever\r\n", answer.status)?;
    for (name, value) in &answer.headers {
        write!(out, "{name}: {value}\r\n")?;
    }
    let own_length = answer.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    match (delivery.chunked, own_length) {
        (true, _) => write!(out, "transfer-encoding: chunked\r\n\r\n")?,
        (false, true) => write!(out, "\r\n")?,
        (false, false) => write!(out, "content-length: {}\r\n\r\n", answer.content.len())?,
    }
    if request.method == "HEAD" {
        out.flush()?;
        return Ok(true);
    }
    let mut body = answer.content.into_reader();
    if let Some((bytes, pause)) = delivery.stall {
        copy(&mut body.by_ref().take(bytes as u64), &mut out, delivery.chunked)?;
        out.flush()?;
        std::thread::sleep(pause);
    }
    let most = delivery.truncate.map_or(u64::MAX, |bytes| bytes as u64);
    copy(&mut body.take(most), &mut out, delivery.chunked)?;
    if delivery.truncate.is_none() && delivery.chunked {
        out.write_all(b"0\r\n\r\n")?;
    }
    out.flush()?;
    // An answer with a length of its own may be followed by bytes that are no next answer.
    Ok(delivery.truncate.is_none() && !own_length)
}

fn copy(body: &mut dyn Read, out: &mut dyn Write, chunked: bool) -> io::Result<()> {
    let mut chunk = vec![0; 64 << 10];
    loop {
        let count = body.read(&mut chunk)?;
        if count == 0 {
            return Ok(());
        }
        if chunked {
            write!(out, "{count:x}\r\n")?;
        }
        out.write_all(&chunk[..count])?;
        if chunked {
            out.write_all(b"\r\n")?;
        }
    }
}

fn listen_error(address: SocketAddr, error: io::Error) -> Error {
    Error::io("listen on", Path::new(&address.to_string()), error)
}
