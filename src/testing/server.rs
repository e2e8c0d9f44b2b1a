//! The server, as its users hold it.

use std::io;
use std::net::Ipv4Addr;
use std::net::Shutdown;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use super::clock::Clock;
use super::connection::Shared;
use super::connection::TOKEN_PATH;
use super::connection::accept;
use super::fault::Fault;
use super::protection::Protection;
use super::request::Request;
use super::tokens::Tokens;

use crate::error::Error;
use crate::error::Result;
use crate::reference::ImageReference;
use crate::store::Store;
use crate::sync::lock;

/// A registry in this process, which serves a store on a loopback address over plain http until it is dropped.
///
/// # Threads
///
/// Each connection has a thread of its own. All methods may be called while requests are being answered.
#[derive(Debug)]
pub struct Registry {
    pub(super) shared: Arc<Shared>,
    address: SocketAddr,
    accepting: Option<JoinHandle<()>>,
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
        Registry::start_protected(store, address, Protection::default())
    }

    /// Serves a store on this address, which must be a loopback one, and protects it from the first request on.
    ///
    /// # Errors
    ///
    /// Those of [`start_at`](Registry::start_at).
    pub fn start_protected(store: &Store, address: SocketAddr, protection: Protection) -> Result<Registry> {
        if !address.ip().is_loopback() {
            return Err(Error::invalid_input(format!("{address} is no loopback address")));
        }
        let listener = TcpListener::bind(address).map_err(|error| listen_error(address, error))?;
        let address = listener.local_addr().map_err(|error| listen_error(address, error))?;
        let shared = Arc::new(Shared::new(store, address, protection));
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
        lock(&self.shared.guard).tokens = Some(Tokens::new(realm.to_owned(), life));
    }

    /// Forgets the tokens that were issued: requests that carry them are refused.
    pub fn expire_tokens(&self) {
        if let Some(tokens) = &mut lock(&self.shared.guard).tokens {
            tokens.expire();
        }
    }

    /// Demands an identity token of those who want tokens, by OAuth2, and takes nothing else (A3). See also
    /// [`without_oauth`](Registry::without_oauth).
    pub fn require_identity_token(&self, token: &str) {
        lock(&self.shared.guard).identity = Some(token.to_owned());
    }

    /// Answers OAuth2's `POST` with this status: with 404 or 405, clients have to ask by `GET`. An identity token is
    /// then taken as a password, whatever the user name.
    pub fn without_oauth(&self, status: u16) {
        lock(&self.shared.guard).without_oauth = Some(status);
    }

    /// Lets new tokens allow nothing but these actions (`pull`, `push`, `delete`), whatever is asked for.
    pub fn grant_only(&self, actions: &[&str]) {
        lock(&self.shared.guard).grants = Some(actions.iter().map(|&action| action.to_owned()).collect());
    }

    /// Lets tokens live by this clock. Those that were issued before are forgotten.
    pub fn use_clock(&self, clock: &Clock) {
        lock(&self.shared.guard).clock = Some(clock.clone());
        self.expire_tokens();
    }

    /// What was asked so far, in the order of arrival.
    pub fn requests(&self) -> Vec<Request> {
        lock(&self.shared.requests).iter().map(|(_, request)| request.clone()).collect()
    }

    /// What was asked so far, which is forgotten.
    pub fn take_requests(&self) -> Vec<Request> {
        lock(&self.shared.requests).drain(..).map(|(_, request)| request).collect()
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

fn listen_error(address: SocketAddr, error: io::Error) -> Error {
    Error::io("listen on", Path::new(&address.to_string()), error)
}
