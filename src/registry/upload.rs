//! A blob on its way to a registry (distribution-spec, "Pushing blobs").
//!
//! It goes in one request, if nothing is in the way. When a connection breaks, the registry is asked how much it has,
//! and the rest follows in chunks; when it takes no more than so much at once, chunks are what it gets. A session that
//! is lost is begun anew.

use std::io;
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Access;
use super::endpoint::Endpoint;
use super::fault::is_refused;
use super::fault::refusal;
use super::http::Content;
use super::http::Payload;
use super::http::Request;
use super::http::Response;
use super::repository::content_digest;
use super::url::Url;
use super::url::may_redirect;

use crate::descriptor::Descriptor;
use crate::digest::Algorithm;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::error::printable;
use crate::event::Event;
use crate::event::Watch;

/// How much further an upload must be since its last failure for the count of failures to begin anew.
const PROGRESS: u64 = 64 << 10;
/// How often an upload goes on after failures, whatever progress it made between.
const MAX_FAILURES: u32 = 100;
/// How often an upload goes on after answers that make no sense.
const MAX_NONSENSE: u32 = 3;
/// The size of a chunk for a registry that refuses more; it is halved as long as that is still too much.
const CHUNK: u64 = 16 << 20;
const SMALLEST_CHUNK: u64 = 16 << 10;
/// How many bytes are sent for a blob, over and above four times its size.
const ALLOWANCE: u64 = 64 << 20;
/// How long to wait before asking again whether a blob is there that was sent just now.
const PATIENCE: [Duration; 3] = [Duration::ZERO, Duration::from_millis(100), Duration::from_millis(500)];

/// A blob's bytes, which can be read from any offset and more than once: an upload that broke goes on in the middle. A
/// closure is one.
pub trait BlobSource: Sync {
    /// A reader of the bytes from `offset` to the blob's end.
    ///
    /// # Errors
    ///
    /// Whatever keeps the bytes from being read; the upload then fails with it.
    fn open(&self, offset: u64) -> Result<Box<dyn Read + '_>>;
}

impl<F: Fn(u64) -> Result<Box<dyn Read>> + Sync> BlobSource for F {
    fn open(&self, offset: u64) -> Result<Box<dyn Read + '_>> {
        self(offset)
    }
}

/// An upload that a registry has opened.
pub(super) struct Session {
    location: Url,
    /// How many bytes the registry has; none where it has to be asked.
    offset: Option<u64>,
    /// The least that a chunk may have, unless it is the last.
    smallest: u64,
    /// Whether anything was sent to it.
    used: bool,
}

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

/// Tells the registry that a session is not needed (distribution-spec, "Cancel an upload").
pub(super) fn give_up(endpoint: &Endpoint, session: &Session, watch: &Watch<'_>) {
    if session.location.origin == *endpoint.origin() {
        let _ = send(endpoint, Request::delete(session.location.clone()), watch);
    }
}

/// Whether the registry itself has the blob; mirrors are not asked.
pub(super) fn has(endpoint: &Endpoint, blob: &Descriptor, access: &Access<'_>, watch: &Watch<'_>) -> Result<bool> {
    let request = Request::head(endpoint.url(endpoint.blob_path(blob.digest)));
    let response = endpoint.send(request, &[*access], watch)?;
    match response.status() {
        200 => Ok(response.content_length().is_none_or(|length| length == blob.size)),
        404 => Ok(false),
        _ => Err(refusal(response)),
    }
}

/// Opens a session.
fn open(endpoint: &Endpoint, blob: &Descriptor, watch: &Watch<'_>) -> Result<Session> {
    let mut url = endpoint.url(uploads(endpoint));
    if blob.digest.algorithm() != Algorithm::Sha256 {
        url = url.with_query("digest-algorithm", blob.digest.algorithm().name());
    }
    let response =
        endpoint.send(Request::send("POST", url, Payload::Bytes(&[])), &[Access::Push(endpoint.name())], watch)?;
    match response.status() {
        202 => session(endpoint, &response),
        _ => Err(refusal(response)),
    }
}

/// What came of an attempt to have a blob of another repository.
pub(super) enum Mount {
    Mounted,
    /// The registry will not, but has opened a session.
    Opened(Session),
    Refused,
}

/// Asks for a blob of another repository of the same registry (distribution-spec, "Mounting a blob from another
/// repository"). Any refusal only means that it has to be sent.
pub(super) fn mount(endpoint: &Endpoint, blob: &Descriptor, from: &str, watch: &Watch<'_>) -> Result<Mount> {
    let url = endpoint.url(uploads(endpoint)).with_query("mount", &blob.digest.to_string()).with_query("from", from);
    let access = [Access::Push(endpoint.name()), Access::Pull(from)];
    let response = match endpoint.send(Request::send("POST", url, Payload::Bytes(&[])), &access, watch) {
        Ok(response) => response,
        // A token server may refuse a token for both, and some registries fail at mounting as such.
        Err(error) if matches!(error.kind(), ErrorKind::Registry(_)) => return Ok(Mount::Refused),
        Err(error) => return Err(error),
    };
    match response.status() {
        // Not every registry that says so has it.
        201 if check_digest(blob, &response).is_ok() => {
            let is_there = has(endpoint, blob, &Access::Push(endpoint.name()), watch)?;
            Ok(if is_there { Mount::Mounted } else { Mount::Refused })
        }
        202 => Ok(session(endpoint, &response).map_or(Mount::Refused, Mount::Opened)),
        _ => Ok(Mount::Refused),
    }
}

fn uploads(endpoint: &Endpoint) -> String {
    format!("/v2/{}/blobs/uploads/", endpoint.name())
}

fn session(endpoint: &Endpoint, response: &Response) -> Result<Session> {
    let smallest = response.header("oci-chunk-min-length").and_then(|text| text.trim().parse().ok()).unwrap_or(0);
    Ok(Session { location: location(endpoint, response)?, offset: Some(0), smallest, used: false })
}

/// Where an answer says that the upload goes on: anywhere on the registry; elsewhere only at an address that is signed
/// for this, and never at a weaker place. Credentials stay with the registry.
fn location(endpoint: &Endpoint, response: &Response) -> Result<Url> {
    let Some(location) = response.header("location") else {
        return Err(nonsense("the registry opens an upload nowhere"));
    };
    let url = response.url().join(location)?;
    if url.origin != *endpoint.origin() {
        may_redirect(endpoint.origin(), &url.origin)?;
        let is_inside = url.origin.is_private_address() && !endpoint.origin().is_private_address();
        if is_inside || !url.has_query() {
            let reason = format!("{} sends an upload to {}, another host", endpoint.origin(), url.origin);
            return Err(ErrorKind::Protocol { reason }.into());
        }
    }
    Ok(url)
}

/// Sends a request about a session. Only the registry itself gets credentials.
fn send(endpoint: &Endpoint, request: Request<'_>, watch: &Watch<'_>) -> Result<Response> {
    if request.url.origin == *endpoint.origin() {
        endpoint.send(request, &[Access::Push(endpoint.name())], watch)
    } else {
        endpoint.registry().send_as_nobody(request)
    }
}

fn check_digest(blob: &Descriptor, response: &Response) -> Result<()> {
    match content_digest(response)? {
        Some(found) if found.algorithm() == blob.digest.algorithm() && found != blob.digest => {
            Err(ErrorKind::DigestMismatch { expected: blob.digest, found }.into())
        }
        _ => Ok(()),
    }
}

/// `0-499`: how many bytes that are, from the first.
fn parse_range(text: &str) -> Option<u64> {
    let (start, last) = text.trim().strip_prefix("bytes=").unwrap_or(text.trim()).split_once('-')?;
    if (start, last) == ("0", "-1") {
        // zot says so of an empty session.
        return Some(0);
    }
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if start != "0" || !digits(last) {
        return None;
    }
    last.parse::<u64>().ok()?.checked_add(1)
}

const NONSENSE: &str = "upload: ";

fn nonsense(reason: &str) -> Error {
    ErrorKind::Protocol { reason: format!("{NONSENSE}{reason}") }.into()
}

fn is_nonsense(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Protocol { reason } if reason.starts_with(NONSENSE))
}

/// A part of a blob, to be sent.
struct Piece<'a> {
    source: &'a dyn BlobSource,
    blob: &'a Descriptor,
    start: u64,
    length: u64,
    watch: &'a Watch<'a>,
    /// Counts what is sent, over all parts.
    sent: Arc<AtomicU64>,
}

impl Content for Piece<'_> {
    fn open(&self) -> Result<Box<dyn Read + '_>> {
        Ok(Box::new(PieceReader { piece: self, inner: self.source.open(self.start)?, at: self.start }))
    }
}

struct PieceReader<'a> {
    piece: &'a Piece<'a>,
    inner: Box<dyn Read + 'a>,
    at: u64,
}

impl Read for PieceReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Piece { blob, watch, start, length, .. } = self.piece;
        watch.check()?;
        let end = start + length;
        let most = usize::try_from(end - self.at).unwrap_or(usize::MAX).min(buffer.len());
        if most == 0 {
            return Ok(0);
        }
        let count = self.inner.read(&mut buffer[..most])?;
        if count == 0 {
            return Err(Error::from(ErrorKind::SizeMismatch { expected: blob.size, found: self.at }).into());
        }
        self.at += count as u64;
        // A source that verifies does so at its end; the last bytes are not sent before.
        if self.at == blob.size && !is_at_end(&mut self.inner)? {
            return Err(Error::from(ErrorKind::SizeMismatch { expected: blob.size, found: blob.size + 1 }).into());
        }
        self.piece.sent.fetch_add(count as u64, Ordering::Relaxed);
        watch.tell(&Event::Progress { blob, bytes: self.at });
        Ok(count)
    }
}

fn is_at_end(reader: &mut dyn Read) -> io::Result<bool> {
    loop {
        match reader.read(&mut [0]) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return Ok(result? == 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// D14: from the first byte on, both ends included; anything else is no offset.
    #[test]
    fn ranges_say_how_much_is_there() {
        assert_eq!(parse_range("0-499"), Some(500));
        assert_eq!(parse_range("bytes=0-0"), Some(1));
        assert_eq!(parse_range("0--1"), Some(0));
        for rubbish in
            ["", "0", "-", "0-", "-5", "0--5", "5-9", "0-+5", "0-18446744073709551615", "0-99999999999999999999"]
        {
            assert_eq!(parse_range(rubbish), None, "{rubbish:?}");
        }
    }
}
