//! The bytes of a blob, from whichever requests it takes.
//!
//! When a connection breaks, the next request asks for the rest (`Range`). A registry that answers with the whole
//! blob instead, as it may, has its first bytes passed over. What comes is counted here; that it is the right thing
//! is checked by whoever takes it, over all pieces together.

use std::fmt;
use std::io;
use std::io::Read;
use std::mem;

use super::endpoint::Endpoint;
use super::fault::refusal;
use super::http::Body;
use super::http::Request;
use super::http::Response;
use super::retry::MAX_FAILURES;
use super::retry::PROGRESS;
use super::url::Url;

use crate::descriptor::Descriptor;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::event::Watch;

/// Parts that are smaller count as connections that broke, so that no registry makes us ask for each byte.
const SMALLEST_PART: u64 = 64 << 10;
const SKIP: usize = 16 << 10;

/// A blob on its way.
pub(crate) struct Download {
    endpoint: Endpoint,
    blob: Descriptor,
    body: Option<Body>,
    /// How many of the blob's bytes are behind us.
    offset: u64,
    /// Whether the answer says where it ends, so that there is nothing to be found behind it.
    bounded: bool,
    /// Where the part ends that is on its way, if that is before the blob's end.
    part_end: Option<u64>,
    /// Whether whoever is asked answered a request for a part with something useless.
    whole_only: bool,
    /// Whether it was a mirror that answered last.
    is_mirrored: bool,
    /// What went wrong and was not recovered from yet.
    failure: Option<Error>,
    /// Failures since the last progress, where that was, and all of them.
    failures: u32,
    failed_at: u64,
    all_failures: u32,
}

impl Download {
    /// The blob's bytes from `offset` on. No request is made before the first read.
    pub(super) fn new(endpoint: Endpoint, blob: Descriptor, offset: u64) -> Download {
        Download {
            endpoint,
            blob,
            body: None,
            offset,
            bounded: false,
            part_end: None,
            whole_only: false,
            is_mirrored: false,
            failure: None,
            failures: 0,
            failed_at: offset,
            all_failures: 0,
        }
    }

    /// Whether the bytes came, or will come, in more than one piece.
    pub(crate) fn is_pieced(&self) -> bool {
        self.all_failures > 0
    }

    /// The next bytes; 0 at the end, which is where the descriptor says.
    pub(crate) fn read(&mut self, buffer: &mut [u8], watch: &Watch<'_>) -> Result<usize> {
        loop {
            if let Some(error) = self.failure.take() {
                // Whoever was told of the last bytes may have had enough.
                watch.check()?;
                self.recover(error, watch)?;
            }
            if let Some(count) = self.read_on(buffer, watch)? {
                return Ok(count);
            }
        }
    }

    /// The same as long as nothing fails; none if something did, which the next [`read`](Download::read) recovers from.
    pub(crate) fn read_on(&mut self, buffer: &mut [u8], watch: &Watch<'_>) -> Result<Option<usize>> {
        if let Err(error) = watch.check() {
            if let Some(body) = self.body.take() {
                body.discard();
            }
            return Err(error);
        }
        if self.offset == self.blob.size && (self.body.is_none() || self.bounded) {
            return Ok(Some(0));
        }
        if self.part_end.take_if(|end| *end == self.offset).is_some() {
            // A part that was promised came whole: the next is asked for, and nothing went wrong.
            self.body = None;
        }
        match self.try_read(buffer, watch) {
            Ok(count) => Ok(Some(count)),
            Err(error) => {
                self.failure = Some(error);
                Ok(None)
            }
        }
    }

    fn try_read(&mut self, buffer: &mut [u8], watch: &Watch<'_>) -> Result<usize> {
        let mut body = match self.body.take() {
            Some(body) => body,
            None => self.open(watch)?,
        };
        let left = self.blob.size - self.offset;
        if left == 0 {
            return self.expect_end(body);
        }
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let count = read_once(&mut body, &mut buffer[..most])?;
        if count == 0 && most > 0 {
            return self.fault(&format!("it ended after {} of {} bytes", self.offset, self.blob.size));
        }
        self.offset += count as u64;
        let is_over = self.bounded && self.offset == self.blob.size;
        // What is over gives its connection back.
        self.body = Some(body).filter(|_| !is_over);
        Ok(count)
    }

    /// An answer that does not say its length may be longer than the blob.
    fn expect_end(&mut self, mut body: Body) -> Result<usize> {
        self.bounded = true;
        // All bytes are here: a connection that breaks now takes nothing away.
        match read_once(&mut body, &mut [0]) {
            Ok(1..) => self.size_mismatch(self.blob.size + 1),
            Ok(0) | Err(_) => Ok(0),
        }
    }

    fn open(&mut self, watch: &Watch<'_>) -> Result<Body> {
        if self.offset > 0 && !self.whole_only {
            if let Some(body) = self.open_rest(watch)? {
                return Ok(body);
            }
            // What this registry answers to a request for a part is no use. It is asked for the whole instead.
            self.whole_only = true;
        }
        let response = self.send(None, watch)?;
        match response.status() {
            200 => self.accept_whole(response, watch),
            _ => Err(refusal(response)),
        }
    }

    /// The rest of the blob, or the whole; none if the answer is neither.
    fn open_rest(&mut self, watch: &Watch<'_>) -> Result<Option<Body>> {
        let response = self.send(Some(self.offset), watch)?;
        match response.status() {
            200 => self.accept_whole(response, watch).map(Some),
            206 => self.accept_rest(response),
            416 => Ok(None),
            _ => Err(refusal(response)),
        }
    }

    fn send(&mut self, start: Option<u64>, watch: &Watch<'_>) -> Result<Response> {
        // All of it, because all of it may come.
        let expected = self.blob.size;
        let make = |url: Url| {
            let request = Request { expected, ..Request::get(url) };
            match start {
                // Only where it is needed: some registries refuse any request with it.
                Some(start) => request.header("range", format!("bytes={start}-")),
                None => request,
            }
        };
        let path = self.endpoint.blob_path(self.blob.digest);
        let mirrored = self.endpoint.read_mirrors(&path, watch, make, Ok)?;
        self.is_mirrored = mirrored.is_some();
        match mirrored {
            Some(response) => Ok(response),
            None => self.endpoint.read_itself(&path, watch, make),
        }
    }

    fn accept_whole(&mut self, response: Response, watch: &Watch<'_>) -> Result<Body> {
        let length = response.content_length();
        self.bounded = length.is_some();
        if let Some(found) = length.filter(|found| *found != self.blob.size) {
            return self.size_mismatch(found);
        }
        let mut body = response.into_body();
        skip(&mut body, self.offset, watch)?;
        Ok(body)
    }

    fn accept_rest(&mut self, response: Response) -> Result<Option<Body>> {
        let Some((start, total)) = response.header("content-range").and_then(parse_range) else { return Ok(None) };
        if start != self.offset {
            return Ok(None);
        }
        if let Some(found) = total.filter(|total| *total != self.blob.size) {
            return self.size_mismatch(found);
        }
        let rest = self.blob.size - self.offset;
        let length = response.content_length();
        self.bounded = length == Some(rest);
        match length {
            Some(found) if found > rest => self.size_mismatch(self.offset.saturating_add(found)),
            // A part of the rest is allowed too (RFC 9110, section 15.3.7), if it is worth a request.
            Some(found) if found < rest => {
                self.part_end = Some(self.offset + found).filter(|_| found >= SMALLEST_PART);
                Ok(Some(response.into_body()))
            }
            _ => Ok(Some(response.into_body())),
        }
    }

    /// Waits before going on, if going on may help.
    fn recover(&mut self, error: Error, watch: &Watch<'_>) -> Result<()> {
        self.body = None;
        self.part_end = None;
        self.all_failures += 1;
        // A mirror had its chance. That the registry itself has its own next takes neither a policy nor a pause.
        self.endpoint = self.endpoint.without_mirrors();
        if mem::take(&mut self.is_mirrored) {
            self.whole_only = false;
            return Ok(());
        }
        if self.offset >= self.failed_at + PROGRESS {
            self.failures = 0;
        }
        self.failed_at = self.offset;
        self.failures += 1;
        if self.all_failures > MAX_FAILURES {
            return Err(error);
        }
        self.endpoint.registry().pause(watch, Some(&self.blob), self.failures, error)
    }

    /// A fault that another request may get around.
    fn fault<T>(&self, reason: &str) -> Result<T> {
        let host = self.endpoint.authority();
        Err(ErrorKind::Network { host, reason: reason.to_owned() }.into())
    }

    fn size_mismatch<T>(&self, found: u64) -> Result<T> {
        Err(ErrorKind::SizeMismatch { expected: self.blob.size, found }.into())
    }
}

impl fmt::Debug for Download {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Download").field("blob", &self.blob.digest).field("offset", &self.offset).finish()
    }
}

fn read_once(body: &mut Body, buffer: &mut [u8]) -> Result<usize> {
    loop {
        match body.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return Ok(result?),
        }
    }
}

fn skip(body: &mut Body, bytes: u64, watch: &Watch<'_>) -> Result<()> {
    let mut left = bytes;
    let mut buffer = [0; SKIP];
    while left > 0 {
        watch.check()?;
        let most = usize::try_from(left).unwrap_or(SKIP).min(SKIP);
        match read_once(body, &mut buffer[..most])? {
            0 => return Ok(()),
            count => left -= count as u64,
        }
    }
    Ok(())
}

/// `bytes 5-9/10`: the start, and the total if it is known (RFC 9110, section 14.4).
fn parse_range(text: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (start, _) = range.split_once('-')?;
    let total = if total.trim() == "*" { None } else { Some(total.trim().parse().ok()?) };
    Some((start.trim().parse().ok()?, total))
}
