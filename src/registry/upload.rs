//! A blob on its way to a registry (distribution-spec, "Pushing blobs").
//!
//! It goes in one request, if nothing is in the way. When a connection breaks, the registry is asked how much it has,
//! and the rest follows in chunks; when it takes no more than so much at once, chunks are what it gets. A session that
//! is lost is begun anew.

use std::io;
use std::io::Read;

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
    /// How many bytes the registry had when it last said so.
    known: u64,
    failures: u32,
    failed_at: u64,
    all_failures: u32,
    nonsense: u32,
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
            known: 0,
            failures: 0,
            failed_at: 0,
            all_failures: 0,
            nonsense: 0,
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
        let Some(session) = &self.session else {
            // An answer that was lost may have been that all is well.
            if self.all_failures > 0 && has(self.endpoint, self.blob, self.watch)? {
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
            self.close(Some(self.blob.size))
        } else if left > 0 {
            self.send_chunk(offset, left.min(self.chunk.max(session.smallest))).map(|()| false)
        } else {
            self.close(None)
        }
    }

    /// Closes the session, with all of the blob or with what the registry has already.
    fn close(&mut self, whole: Option<u64>) -> Result<bool> {
        let Some(session) = &mut self.session else { return Ok(false) };
        let url = session.location.clone().with_query("digest", &self.blob.digest.to_string());
        // Whatever becomes of it, the registry has to be asked before this goes on.
        session.offset = None;
        let piece = Piece { source: self.source, blob: self.blob, start: 0, length: self.blob.size, watch: self.watch };
        let payload = if whole.is_some() { Payload::Stream(&piece, self.blob.size) } else { Payload::Bytes(&[]) };
        let request = Request::send("PUT", url, payload).header("content-type", "application/octet-stream");
        let response = send(self.endpoint, request, self.watch)?;
        match response.status() {
            201 | 204 => {
                check_digest(self.blob, &response)?;
                self.session = None;
                self.confirm().map(|()| true)
            }
            202 => Err(nonsense("the registry does not close the upload")),
            _ => Err(refusal(response)),
        }
    }

    /// A registry may take a blob and forget it: then it must not be told of an image that has it.
    fn confirm(&self) -> Result<()> {
        match has(self.endpoint, self.blob, self.watch) {
            Ok(true) => Ok(()),
            Ok(false) => Err(nonsense("the registry took the blob and does not have it")),
            // One that lets nobody look may have it all the same.
            Err(error) if is_refused(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn send_chunk(&mut self, start: u64, length: u64) -> Result<()> {
        let Some(session) = &mut self.session else { return Ok(()) };
        session.offset = None;
        let end = start + length;
        let piece = Piece { source: self.source, blob: self.blob, start, length, watch: self.watch };
        let request = Request::send("PATCH", session.location.clone(), Payload::Stream(&piece, length))
            .header("content-type", "application/octet-stream")
            .header("content-range", format!("{start}-{}", end - 1));
        let response = send(self.endpoint, request, self.watch)?;
        match response.status() {
            201 | 202 | 204 => {
                self.move_on(&response, end, end)?;
                if self.known > start {
                    Ok(())
                } else {
                    Err(nonsense("the registry takes a chunk and does not keep it"))
                }
            }
            _ => Err(refusal(response)),
        }
    }

    /// Asks how much the registry has.
    fn ask(&mut self) -> Result<()> {
        let Some(session) = &self.session else { return Ok(()) };
        let response = send(self.endpoint, Request::get(session.location.clone()), self.watch)?;
        match response.status() {
            200 | 202 | 204 => self.move_on(&response, 0, self.blob.size),
            404 | 405 | 410 => {
                self.session = None;
                Ok(())
            }
            _ => Err(refusal(response)),
        }
    }

    /// Takes over what an answer says of the session: where it is now, and how much is there; `silent` if it does not
    /// say, and `most` at most.
    fn move_on(&mut self, response: &Response, silent: u64, most: u64) -> Result<()> {
        let Some(session) = &mut self.session else { return Ok(()) };
        if response.header("location").is_some() {
            session.location = location(self.endpoint, response)?;
        }
        let has = match response.header("range") {
            None => silent,
            Some(text) => match parse_range(text) {
                // Of nothing and of one byte registries say the same.
                Some(1) if silent != 1 => 0,
                Some(has) if has <= most => has,
                _ => {
                    return Err(nonsense(&format!(
                        "the registry says to have the bytes {:?}",
                        &text[..text.len().min(40)]
                    )));
                }
            },
        };
        session.offset = Some(has);
        self.known = has;
        Ok(())
    }

    /// Waits before going on, if going on may help.
    fn recover(&mut self, error: Error) -> Result<()> {
        if let ErrorKind::Registry(refused) = error.kind() {
            match refused.status {
                // Too much at once.
                413 if self.shrink() => return Ok(()),
                // The session is gone, or the registry is elsewhere in it than we are.
                404 | 410 if self.session.is_some() => return self.begin_anew(error),
                416 if self.session.is_some() => {
                    self.session.as_mut().into_iter().for_each(|session| session.offset = None);
                    return self.bear(error);
                }
                400 | 405 | 501 if self.known > 0 && !self.whole_only => {
                    self.whole_only = true;
                    self.chunk = u64::MAX;
                    return self.begin_anew(error);
                }
                _ => {}
            }
        }
        if is_nonsense(&error) {
            return self.begin_anew(error);
        }
        if self.known >= self.failed_at + PROGRESS {
            self.failures = 0;
        } else if self.failures > 0 {
            // Something on the way may take no more than so much, and say so by breaking the connection.
            self.shrink();
        }
        self.failed_at = self.known;
        self.failures += 1;
        self.all_failures += 1;
        if self.all_failures > MAX_FAILURES {
            return Err(error);
        }
        if self.whole_only {
            self.session = None;
        }
        self.endpoint.registry().pause(self.watch, Some(self.blob), self.failures, error)
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

    fn begin_anew(&mut self, error: Error) -> Result<()> {
        self.session = None;
        (self.known, self.failed_at) = (0, 0);
        self.bear(error)
    }

    fn bear(&mut self, error: Error) -> Result<()> {
        self.nonsense += 1;
        if self.nonsense >= MAX_NONSENSE { Err(error) } else { Ok(()) }
    }

    /// Lets the registry throw away what it has of an upload that failed for good; what it answers does not matter.
    fn abandon(&self, error: &Error) {
        let is_reachable =
            matches!(error.kind(), ErrorKind::Registry(_) | ErrorKind::Protocol { .. }) || error.is_corrupt();
        if let Some(session) = self.session.as_ref().filter(|_| is_reachable) {
            let _ = send(self.endpoint, Request::delete(session.location.clone()), self.watch);
        }
    }
}

/// Whether the registry itself has the blob; mirrors are not asked.
pub(super) fn has(endpoint: &Endpoint, blob: &Descriptor, watch: &Watch<'_>) -> Result<bool> {
    let request = Request::head(endpoint.url(endpoint.blob_path(blob.digest)));
    let response = endpoint.send(request, &[Access::Push(endpoint.name())], watch)?;
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
        201 => Ok(if check_digest(blob, &response).is_ok() { Mount::Mounted } else { Mount::Refused }),
        202 => Ok(session(endpoint, &response).map_or(Mount::Refused, Mount::Opened)),
        _ => Ok(Mount::Refused),
    }
}

fn uploads(endpoint: &Endpoint) -> String {
    format!("/v2/{}/blobs/uploads/", endpoint.name())
}

fn session(endpoint: &Endpoint, response: &Response) -> Result<Session> {
    let smallest = response.header("oci-chunk-min-length").and_then(|text| text.trim().parse().ok()).unwrap_or(0);
    Ok(Session { location: location(endpoint, response)?, offset: Some(0), smallest })
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
        if !url.has_query() {
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
        if self.at == blob.size && self.inner.read(&mut [0])? != 0 {
            return Err(Error::from(ErrorKind::SizeMismatch { expected: blob.size, found: blob.size + 1 }).into());
        }
        watch.tell(&Event::Progress { blob, bytes: self.at });
        Ok(count)
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
        for rubbish in
            ["", "0", "-", "0-", "-5", "0--5", "5-9", "0-+5", "0-18446744073709551615", "0-99999999999999999999"]
        {
            assert_eq!(parse_range(rubbish), None, "{rubbish:?}");
        }
    }
}
