//! Answers, and what they are made of.

use std::fs::File;
use std::io;
use std::io::Read;

/// An answer before it is sent.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) content: Content,
}

#[derive(Debug)]
pub(super) enum Content {
    Bytes(Vec<u8>),
    /// The next so many bytes of a file; one bit of the byte at `flip` is to be wrong.
    File {
        file: File,
        length: u64,
        flip: Option<usize>,
    },
}

impl Content {
    pub(super) fn len(&self) -> u64 {
        match self {
            Content::Bytes(bytes) => bytes.len() as u64,
            Content::File { length, .. } => *length,
        }
    }

    pub(super) fn flip(&mut self, at: usize) {
        match self {
            Content::Bytes(bytes) => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1),
            Content::File { flip, .. } => *flip = Some(at),
        }
    }

    pub(super) fn into_reader(self) -> Box<dyn Read> {
        match self {
            Content::Bytes(bytes) => Box::new(io::Cursor::new(bytes)),
            Content::File { file, length, flip } => Box::new(Flipped { inner: file.take(length), at: 0, flip }),
        }
    }
}

struct Flipped<R> {
    inner: R,
    at: usize,
    flip: Option<usize>,
}

impl<R: Read> Read for Flipped<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        if let Some(inside) = self.flip.and_then(|flip| flip.checked_sub(self.at)).filter(|inside| *inside < count) {
            buffer[inside] ^= 1;
        }
        self.at += count;
        Ok(count)
    }
}

impl Answer {
    pub(super) fn new(status: u16, content_type: &str, body: Vec<u8>) -> Answer {
        let headers = vec![("content-type".to_owned(), content_type.to_owned())];
        Answer { status, headers, content: Content::Bytes(body) }
    }

    /// distribution-spec, "Error Codes".
    pub(super) fn error(status: u16, code: &str, message: &str) -> Answer {
        let body = serde_json::json!({ "errors": [{ "code": code, "message": message }] });
        Answer::new(status, "application/json", body.to_string().into_bytes())
    }

    pub(super) fn json(value: &serde_json::Value) -> Answer {
        Answer::new(200, "application/json", value.to_string().into_bytes())
    }

    /// One that demands what the challenge says.
    pub(super) fn unauthorized(challenge: &str) -> Answer {
        Answer::error(401, "UNAUTHORIZED", "authentication required").with("www-authenticate", challenge)
    }

    /// One without a body.
    pub(super) fn empty(status: u16) -> Answer {
        Answer { status, headers: Vec::new(), content: Content::Bytes(Vec::new()) }
    }

    pub(super) fn with(mut self, name: &str, value: impl Into<String>) -> Answer {
        self.headers.push((name.to_owned(), value.into()));
        self
    }
}
