//! What goes wrong.

use std::time::Duration;

use super::answer::Answer;
use super::answer::Content;
use super::request::Request;

/// Something that goes wrong with certain requests.
///
/// A fault says which requests it is about (all that [`on`](Fault::on) and [`method`](Fault::method) match, after the
/// first [`after`](Fault::after), for as many [`times`](Fault::times)), and what happens to them. Several things may
/// happen to one answer. Of several faults that match, the first that was given acts.
///
/// A request that is answered with another status, or not at all, has no effect, unless
/// [`carry_out`](Fault::carry_out) says otherwise.
///
/// ```
/// use std::time::Duration;
/// use layercake::testing::Fault;
///
/// let slow_and_broken = Fault::on("/blobs/").times(2).delay(Duration::from_millis(10)).truncate(100);
/// let rate_limit = Fault::on("/manifests/").method("GET").status(429).header("retry-after", "1");
/// ```
#[must_use = "a fault does nothing before it is given to a registry"]
#[derive(Clone, Debug, Default)]
pub struct Fault {
    path: String,
    method: Option<String>,
    skip: usize,
    times: Option<usize>,
    status: Option<u16>,
    headers: Vec<(String, Option<String>)>,
    body: Option<Vec<u8>>,
    flip: Option<usize>,
    delay: Duration,
    pub(super) ignore_range: bool,
    /// The connection breaks after this many bytes of the request's body.
    pub(super) break_upload: Option<u64>,
    pub(super) carry_out: bool,
    pub(super) delivery: Delivery,
}

/// How an answer is sent.
#[derive(Clone, Debug, Default)]
pub(super) struct Delivery {
    /// The connection is closed after this many bytes of the body.
    pub(super) truncate: Option<usize>,
    /// A pause in the middle of the body: after this many bytes, for so long.
    pub(super) stall: Option<(usize, Duration)>,
    /// Without `Content-Length`, in chunks.
    pub(super) chunked: bool,
    /// The connection is closed before the answer.
    pub(super) hang_up: bool,
}

impl Fault {
    /// A fault of all requests whose path and query contain this text.
    pub fn on(path: impl Into<String>) -> Fault {
        Fault { path: path.into(), ..Fault::default() }
    }

    /// Only of requests with this method. Without it, of all methods alike.
    pub fn method(self, method: &str) -> Fault {
        Fault { method: Some(method.to_owned()), ..self }
    }

    /// Not of the first `count` requests that match.
    pub fn after(self, count: usize) -> Fault {
        Fault { skip: count, ..self }
    }

    /// Only this many times; without it, for ever.
    pub fn times(self, count: usize) -> Fault {
        Fault { times: Some(count), ..self }
    }

    /// The answer has this status; its body is an error's, unless [`body`](Fault::body) says otherwise.
    pub fn status(self, status: u16) -> Fault {
        Fault { status: Some(status), ..self }
    }

    /// The answer has this header, in the place of any other of its name.
    pub fn header(mut self, name: &str, value: &str) -> Fault {
        self.headers.push((name.to_owned(), Some(value.to_owned())));
        self
    }

    /// The answer lacks this header.
    pub fn without_header(mut self, name: &str) -> Fault {
        self.headers.push((name.to_owned(), None));
        self
    }

    /// The answer has this body, and its length. Its other headers stay: those of the real answer, if there is one.
    pub fn body(self, body: impl Into<Vec<u8>>) -> Fault {
        Fault { body: Some(body.into()), ..self }
    }

    /// One bit of the body is wrong, in the byte at this position.
    pub fn flip(self, at: usize) -> Fault {
        Fault { flip: Some(at), ..self }
    }

    /// The answer comes late.
    pub fn delay(self, delay: Duration) -> Fault {
        Fault { delay, ..self }
    }

    /// The answer leads elsewhere, with status 307.
    pub fn redirect(self, location: &str) -> Fault {
        self.status(307).header("location", location).body(Vec::new())
    }

    /// The request is answered as if it had no `Range`.
    pub fn ignore_range(self) -> Fault {
        Fault { ignore_range: true, ..self }
    }

    /// The connection breaks after this many bytes of the body.
    pub fn truncate(mut self, bytes: usize) -> Fault {
        self.delivery.truncate = Some(bytes);
        self
    }

    /// The body stops after this many bytes, for so long, and then goes on.
    pub fn stall(mut self, bytes: usize, pause: Duration) -> Fault {
        self.delivery.stall = Some((bytes, pause));
        self
    }

    /// The answer does not say its length.
    pub fn chunked(mut self) -> Fault {
        self.delivery.chunked = true;
        self
    }

    /// The connection is closed without an answer.
    pub fn hang_up(mut self) -> Fault {
        self.delivery.hang_up = true;
        self
    }

    /// The connection breaks after this many bytes of the request's body. An upload keeps them, and can go on from
    /// there.
    pub fn break_upload(self, bytes: u64) -> Fault {
        Fault { break_upload: Some(bytes), ..self }
    }

    /// What the request asks for is done all the same: only the answer is another, or is lost.
    pub fn carry_out(self) -> Fault {
        Fault { carry_out: true, ..self }
    }

    pub(super) fn is_carried_out(&self) -> bool {
        self.status.is_none() || self.carry_out
    }

    /// Whether this fault acts on the request; it counts those that it was asked about.
    pub(super) fn strikes(&mut self, request: &Request) -> bool {
        let method = self.method.as_ref().is_none_or(|method| *method == request.method);
        if !method || !request.path.contains(&self.path) || self.times == Some(0) {
            return false;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return false;
        }
        self.times = self.times.map(|times| times - 1);
        true
    }

    pub(super) fn apply(&self, mut answer: Answer) -> Answer {
        std::thread::sleep(self.delay);
        if let Some(status) = self.status {
            answer = Answer::error(status, "FAULT", "a fault that a test asked for");
        }
        if let Some(body) = &self.body {
            answer.content = Content::Bytes(body.clone());
        }
        if let Some(at) = self.flip {
            answer.content.flip(at);
        }
        for (name, value) in &self.headers {
            answer.headers.retain(|(found, _)| !found.eq_ignore_ascii_case(name));
            answer.headers.extend(value.iter().map(|value| (name.clone(), value.clone())));
        }
        answer
    }
}
