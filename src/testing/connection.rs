//! Connections: a thread for each, a request after the other.

use std::collections::HashMap;
use std::io;
use std::net::Shutdown;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::answer::Answer;
use super::auth::Guard;
use super::body::Body;
use super::endpoint::Endpoint;
use super::fault::Fault;
use super::protection::Protection;
use super::refusal::Refusal;
use super::request::Request;
use super::route;
use super::service::Service;
use super::token_server;
use super::wire::close_politely;
use super::wire::read_request;
use super::wire::send;

use crate::store::Store;
use crate::sync::lock;

/// How long a connection may be silent between requests.
const PATIENCE: Duration = Duration::from_secs(60);
pub(super) const TOKEN_PATH: &str = "/token";

/// What all connections share.
#[derive(Debug)]
pub(super) struct Shared {
    address: SocketAddr,
    pub(super) service: Service,
    pub(super) guard: Mutex<Guard>,
    pub(super) faults: Mutex<Vec<Fault>>,
    /// In the order of arrival, each with a number.
    pub(super) requests: Mutex<Vec<(u64, Request)>>,
    pub(super) connections: Mutex<HashMap<usize, TcpStream>>,
    pub(super) stopped: AtomicBool,
    arrivals: AtomicU64,
}

impl Shared {
    pub(super) fn new(store: &Store, address: SocketAddr, protection: Protection) -> Shared {
        Shared {
            service: Service::new(store, address.to_string(), protection),
            address,
            guard: Mutex::default(),
            faults: Mutex::default(),
            requests: Mutex::default(),
            connections: Mutex::default(),
            stopped: AtomicBool::new(false),
            arrivals: AtomicU64::new(0),
        }
    }

    fn record(&self, request: &Request) -> u64 {
        let number = self.arrivals.fetch_add(1, Ordering::Relaxed);
        lock(&self.requests).push((number, request.clone()));
        number
    }

    fn record_body(&self, number: u64, body: &mut Body<'_>) {
        if let Some((_, request)) = lock(&self.requests).iter_mut().find(|(found, _)| *found == number) {
            request.body_length = body.count();
            request.body = body.take_beginning();
        }
    }
}

pub(super) fn accept(shared: &Arc<Shared>, listener: &TcpListener) {
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
            let _ = converse(&shared, id, &connection);
            let _ = connection.shutdown(Shutdown::Both);
            lock(&shared.connections).remove(&id);
        });
    }
}

/// Answers the requests of one connection.
fn converse(shared: &Shared, id: usize, connection: &TcpStream) -> io::Result<()> {
    connection.set_read_timeout(Some(PATIENCE))?;
    connection.set_nodelay(true)?;
    let mut buffer = Vec::new();
    while let Some(request) = read_request(connection, id, &mut buffer)? {
        let number = shared.record(&request);
        let fault = lock(&shared.faults).iter_mut().find_map(|fault| fault.strikes(&request).then(|| fault.clone()));
        let fault = fault.unwrap_or_default();
        if fault.delivery.hang_up && !fault.carry_out {
            return Ok(());
        }
        let mut body = Body::of(&request, connection, &mut buffer)?;
        body.break_after(fault.break_upload);
        let answer = respond(shared, &request, &mut body, &fault);
        body.drain();
        shared.record_body(number, &mut body);
        if body.is_broken() || fault.delivery.hang_up {
            return Ok(());
        }
        let at_end = body.has_ended();
        if !send(connection, &request, answer, &fault.delivery, at_end)? {
            return if at_end { Ok(()) } else { close_politely(connection) };
        }
    }
    Ok(())
}

fn respond(shared: &Shared, request: &Request, body: &mut Body<'_>, fault: &Fault) -> Answer {
    if !fault.is_carried_out() {
        return fault.apply(Answer::empty(200));
    }
    let mut seen = request.clone();
    if fault.ignore_range {
        seen.headers.retain(|(name, _)| !name.eq_ignore_ascii_case("range"));
    }
    fault.apply(real_answer(shared, &seen, body))
}

fn real_answer(shared: &Shared, request: &Request, body: &mut Body<'_>) -> Answer {
    if let Err(Refusal(answer)) = shared.service.protection.check(request, shared.address) {
        return answer;
    }
    if request.path.split('?').next() == Some(TOKEN_PATH) {
        return token_server::answer(&shared.guard, request, body).unwrap_or_else(|error| Refusal::from(error).0);
    }
    let endpoint = Endpoint::parse(&shared.service.host, &request.path);
    if let Some(refused) = lock(&shared.guard).refuse(request, endpoint.as_ref().ok()) {
        return refused;
    }
    let answered = endpoint.and_then(|endpoint| route::answer(&shared.service, &endpoint, request, body));
    answered.unwrap_or_else(|Refusal(answer)| answer)
}
