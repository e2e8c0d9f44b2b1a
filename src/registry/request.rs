//! Requests, before they are sent.

use std::io;
use std::io::Read;
use std::time::Duration;

use super::reach::Lead;
use super::secret::Secret;
use super::url::Url;

use crate::error::Error;
use crate::error::Result;

/// No limit is longer: an `Instant` has a largest value, and sizes come from outside.
pub(super) const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);

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
    pub(super) fn deadline(&self, bytes: u64) -> Duration {
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
    /// The answer that names the address; none if the caller named the host.
    pub(super) lead: Option<Lead>,
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
            lead: None,
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

/// Reads what is sent, and keeps the error that ends it.
pub(super) struct Sending<'a> {
    reader: Box<dyn Read + 'a>,
    pub(super) failure: Option<Error>,
}

impl<'a> Sending<'a> {
    pub(super) fn new(content: &'a dyn Content) -> Result<Sending<'a>> {
        Ok(Sending { reader: content.open()?, failure: None })
    }
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
