//! A blob on its way to a registry (distribution-spec, "Pushing blobs").
//!
//! It goes in one request, if nothing is in the way. When a connection breaks, the registry is asked how much it has,
//! and the rest follows in chunks; when it takes no more than so much at once, chunks are what it gets. A session that
//! is lost is begun anew.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Access;
use super::endpoint::Endpoint;
use super::fault::is_refused;
use super::fault::refusal;
use super::http::Payload;
use super::http::Request;
use super::http::Response;
use super::piece::BlobSource;
use super::piece::Piece;
use super::retry::MAX_FAILURES;
use super::retry::PROGRESS;
use super::session::Session;
use super::session::check_digest;
use super::session::give_up;
use super::session::has;
use super::session::is_nonsense;
use super::session::location;
use super::session::nonsense;
use super::session::open;
use super::session::parse_range;
use super::session::send;

use crate::descriptor::Descriptor;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::error::printable;
use crate::event::Watch;

/// How often an upload goes on after answers that make no sense.
const MAX_NONSENSE: u32 = 3;
/// The size of a chunk for a registry that refuses more; it is halved as long as that is still too much.
const CHUNK: u64 = 16 << 20;
const SMALLEST_CHUNK: u64 = 16 << 10;
/// How many bytes are sent for a blob, over and above four times its size.
const ALLOWANCE: u64 = 64 << 20;
/// How long to wait before asking again whether a blob is there that was sent just now.
const PATIENCE: [Duration; 3] = [Duration::ZERO, Duration::from_millis(100), Duration::from_millis(500)];

/// What was tried last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tried {
    Question,
    Whole,
    Chunk,
}

pub(super) struct Upload<'a> {
    endpoint: &'a Endpoint,
    blob: &'a Descriptor,
    source: &'a dyn BlobSource,
    watch: &'a Watch<'a>,
    session: Option<Session>,
    /// The most that one request brings.
    chunk: u64,
    /// Whether this registry has no use for chunks.
    whole_only: bool,
    tried: Tried,
    /// How many bytes the registry had when it last said so.
    known: u64,
    /// How many bytes were sent in all.
    sent: Arc<AtomicU64>,
    failures: u32,
    failed_at: u64,
    all_failures: u32,
    nonsense: u32,
    nonsense_at: u64,
}

impl<'a> Upload<'a> {
    pub(super) fn new(
        endpoint: &'a Endpoint,
        blob: &'a Descriptor,
        source: &'a dyn BlobSource,
        watch: &'a Watch<'a>,
    ) -> Upload<'a> {
        Upload {
            endpoint,
            blob,
            source,
            watch,
            session: None,
            chunk: u64::MAX,
            whole_only: false,
            tried: Tried::Question,
            known: 0,
            sent: Arc::default(),
            failures: 0,
            failed_at: 0,
            all_failures: 0,
            nonsense: 0,
            nonsense_at: 0,
        }
    }

    /// Goes on with a session that the registry opened for something else.
    pub(super) fn within(self, session: Option<Session>) -> Upload<'a> {
        Upload { session, ..self }
    }

    /// Sends the blob, until the registry has it.
    pub(super) fn run(mut self) -> Result<()> {
        loop {
            self.watch.check()?;
            match self.step() {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(error) => {
                    if let Err(error) = self.recover(error) {
                        self.abandon(&error);
                        return Err(error);
                    }
                }
            }
        }
    }

    /// One request more. Whether the registry has the blob now.
    fn step(&mut self) -> Result<bool> {
        self.tried = Tried::Question;
        let Some(session) = &self.session else {
            // An answer that was lost may have been that all is well.
            if self.all_failures + self.nonsense > 0 && self.is_there()? {
                return Ok(true);
            }
            self.session = Some(open(self.endpoint, self.blob, self.watch)?);
            return Ok(false);
        };
        let Some(offset) = session.offset else {
            return self.ask().map(|()| false);
        };
        let left = self.blob.size - offset;
        if offset == 0 && left <= self.chunk {
            self.close(true)
        } else if left > 0 {
            self.send_chunk(offset, left.min(self.chunk.max(session.smallest))).map(|()| false)
        } else {
            self.close(false)
        }
    }

    /// Whether the registry has the blob; one that lets nobody look may have it or not.
    fn is_there(&self) -> Result<bool> {
        match has(self.endpoint, self.blob, &Access::Push(self.endpoint.name()), self.watch) {
            Err(error) if is_refused(&error) => Ok(false),
            answer => answer,
        }
    }

    /// Closes the session: with all of the blob, or with what the registry has already.
    fn close(&mut self, whole: bool) -> Result<bool> {
        let piece = self.piece(0, self.blob.size);
        let Some(session) = &mut self.session else { return Ok(false) };
        let url = session.location.clone().with_query("digest", &self.blob.digest.to_string());
        // Whatever becomes of it, the registry has to be asked before this goes on.
        session.offset = None;
        let payload = if whole { Payload::Stream(&piece, self.blob.size) } else { Payload::Bytes(&[]) };
        let request = Request::send("PUT", url, payload).header("content-type", "application/octet-stream");
        if whole {
            self.tried = Tried::Whole;
            session.used = true;
        }
        let response = send(self.endpoint, request, self.watch)?;
        match response.status() {
            200 | 201 | 204 => {
                check_digest(self.blob, &response)?;
                self.session = None;
                self.confirm().map(|()| true)
            }
            202 => Err(nonsense("the registry does not close the upload")),
            _ => Err(refusal(response)),
        }
    }

    /// A registry may take a blob and forget it: then it must not be told of an image that has it. Some need a moment
    /// before they find what they have.
    fn confirm(&self) -> Result<()> {
        for pause in PATIENCE {
            self.endpoint.registry().wait(pause, self.watch)?;
            match has(self.endpoint, self.blob, &Access::Push(self.endpoint.name()), self.watch) {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                // One that lets nobody look may have it all the same.
                Err(error) if is_refused(&error) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Err(nonsense("the registry took the blob and does not have it"))
    }

    fn send_chunk(&mut self, start: u64, length: u64) -> Result<()> {
        let end = start + length;
        let piece = self.piece(start, length);
        let Some(session) = &mut self.session else { return Ok(()) };
        session.offset = None;
        session.used = true;
        self.tried = Tried::Chunk;
        let request = Request::send("PATCH", session.location.clone(), Payload::Stream(&piece, length))
            .header("content-type", "application/octet-stream")
            .header("content-range", format!("{start}-{}", end - 1));
        let response = send(self.endpoint, request, self.watch)?;
        if !matches!(response.status(), 200 | 201 | 202 | 204) {
            return Err(refusal(response));
        }
        self.move_on(&response, Some(end), end)?;
        // One that keeps a byte of each chunk would be sent the rest again and again.
        if self.known >= start.saturating_add(length.min(PROGRESS)) {
            Ok(())
        } else {
            Err(nonsense("the registry takes a chunk and does not keep it"))
        }
    }

    /// A part of the blob to be sent, as far as not too much was sent already.
    fn piece(&self, start: u64, length: u64) -> Piece<'a> {
        let Upload { source, blob, watch, .. } = *self;
        Piece { source, blob, start, length, watch, sent: Arc::clone(&self.sent) }
    }

    /// Asks how much the registry has.
    fn ask(&mut self) -> Result<()> {
        let Some(session) = &self.session else { return Ok(()) };
        let response = send(self.endpoint, Request::get(session.location.clone()), self.watch)?;
        match response.status() {
            200 | 202 | 204 => self.move_on(&response, None, self.blob.size),
            404 | 405 | 410 => {
                self.session = None;
                Ok(())
            }
            _ => Err(refusal(response)),
        }
    }

    /// Takes over what an answer says of the session: where it is now, and how much is there, which is `most` at most.
    /// If it does not say, that is `silent`; or, where nothing can be known, the session is given up.
    fn move_on(&mut self, response: &Response, silent: Option<u64>, most: u64) -> Result<()> {
        let Some(session) = &mut self.session else { return Ok(()) };
        if response.header("location").is_some() {
            session.location = location(self.endpoint, response)?;
        }
        let has = match response.header("range").map(parse_range) {
            None if silent.is_none() && session.used => {
                self.session = None;
                return Ok(());
            }
            None => silent.unwrap_or(0),
            // Of nothing and of one byte registries say the same.
            Some(Some(1)) if silent != Some(1) => 0,
            Some(Some(has)) if has <= most => has,
            Some(_) => {
                let range = printable(response.header("range").unwrap_or_default(), 40);
                return Err(nonsense(&format!("the registry says to have the bytes {range:?}")));
            }
        };
        session.offset = Some(has);
        if has >= self.nonsense_at.saturating_add(PROGRESS) {
            self.nonsense = 0;
        }
        self.known = has;
        Ok(())
    }

    /// Waits before going on, if going on may help.
    fn recover(&mut self, error: Error) -> Result<()> {
        if self.sent.load(Ordering::Relaxed) > self.blob.size.saturating_mul(4).saturating_add(ALLOWANCE) {
            return Err(error.context("too much was sent already"));
        }
        if let ErrorKind::Registry(refused) = error.kind()
            && let Some(next) = self.reconsider(refused.status)
        {
            return self.bear(next, error);
        }
        if is_nonsense(&error) {
            return self.bear(Next::Anew, error);
        }
        if self.known >= self.failed_at.saturating_add(PROGRESS) {
            self.failures = 0;
        }
        // Something on the way may take no more than so much, and say so by breaking the connection.
        let is_smaller = self.failures > 0 && self.tried != Tried::Question && self.shrink();
        self.failed_at = self.known;
        self.failures += u32::from(!is_smaller);
        self.all_failures += 1;
        if self.all_failures > MAX_FAILURES {
            return Err(error);
        }
        if self.whole_only {
            self.session = None;
        }
        self.endpoint.registry().pause(self.watch, Some(self.blob), self.failures, error)
    }

    /// What a refusal means for how this goes on, if it does.
    fn reconsider(&mut self, status: u16) -> Option<Next> {
        let used = self.session.as_ref()?.used;
        match (status, self.tried) {
            // Too much at once.
            (413, Tried::Whole | Tried::Chunk) if self.shrink() => Some(Next::Smaller),
            // A registry that knows no chunks gets the whole again, and has to take it.
            (400 | 404 | 405 | 501, Tried::Chunk) if !self.whole_only => {
                self.whole_only = true;
                self.chunk = u64::MAX;
                Some(Next::Anew)
            }
            // It is elsewhere in the session than we are.
            (416, _) => Some(Next::Ask),
            // The session is gone; or it holds what was sent before it broke.
            (404 | 410, _) => Some(Next::Anew),
            (400, Tried::Whole) if used && self.all_failures > 0 => Some(Next::Anew),
            _ => None,
        }
    }

    /// Goes on after an answer that may not come for ever.
    fn bear(&mut self, next: Next, error: Error) -> Result<()> {
        match next {
            Next::Smaller => return Ok(()),
            Next::Ask => self.session.as_mut().into_iter().for_each(|session| session.offset = None),
            Next::Anew => {
                self.session = None;
                (self.known, self.failed_at) = (0, 0);
            }
        }
        self.nonsense_at = self.known;
        self.nonsense += 1;
        if self.nonsense >= MAX_NONSENSE { Err(error) } else { Ok(()) }
    }

    /// Makes chunks smaller, if they can be.
    fn shrink(&mut self) -> bool {
        let smaller = if self.chunk > CHUNK { CHUNK.min(self.blob.size / 2) } else { self.chunk / 2 };
        let least = self.session.as_ref().map_or(0, |session| session.smallest).max(SMALLEST_CHUNK);
        if self.chunk <= least || self.whole_only {
            return false;
        }
        self.chunk = smaller.max(least);
        true
    }

    /// Lets the registry throw away what it has of an upload that failed for good; what it answers does not matter.
    /// Another host is asked for nothing.
    fn abandon(&self, error: &Error) {
        let is_reachable =
            matches!(error.kind(), ErrorKind::Registry(_) | ErrorKind::Protocol { .. }) || error.is_corrupt();
        if let Some(session) = self.session.as_ref().filter(|_| is_reachable) {
            give_up(self.endpoint, session, self.watch);
        }
    }
}

/// How an upload goes on after a refusal.
enum Next {
    Smaller,
    Ask,
    Anew,
}
