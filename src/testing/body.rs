//! The body of a request, as it comes over the wire.

use std::io;
use std::io::Read;
use std::io::Write;
use std::net::TcpStream;

use super::request::Request;

/// The most bytes of a body that nobody wants, and which are read all the same to get at the next request.
const MAX_DRAINED: u64 = 32 << 20;
/// The most bytes that are kept for those who look at requests.
const MAX_KEPT: usize = 64 << 10;
/// The most bytes of a line between chunks.
const MAX_LINE: usize = 1024;

/// The body of a request, which may be there or not, and need not be read.
pub(super) struct Body<'a> {
    connection: &'a TcpStream,
    /// What was read of the connection and not yet used.
    buffer: &'a mut Vec<u8>,
    framing: Framing,
    /// The client waits for `100 Continue`.
    awaits: bool,
    length: Option<u64>,
    read: u64,
    beginning: Vec<u8>,
    /// The connection is to break after this many bytes.
    breaks: Option<u64>,
    broken: bool,
}

enum Framing {
    /// So many bytes are left.
    Length(u64),
    /// So many bytes of this chunk are left; before the first chunk none.
    Chunked {
        left: u64,
        first: bool,
    },
    Ended,
}

impl<'a> Body<'a> {
    pub(super) fn of(request: &Request, connection: &'a TcpStream, buffer: &'a mut Vec<u8>) -> io::Result<Body<'a>> {
        let chunked = request.header("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked"));
        let length = match request.header("content-length") {
            Some(length) if !chunked => Some(length.trim().parse().map_err(|_| malformed("no Content-Length"))?),
            _ => None,
        };
        let framing = match length {
            _ if chunked => Framing::Chunked { left: 0, first: true },
            Some(length) if length > 0 => Framing::Length(length),
            _ => Framing::Ended,
        };
        let awaits = request.header("expect").is_some_and(|expect| expect.eq_ignore_ascii_case("100-continue"));
        Ok(Body {
            connection,
            buffer,
            framing,
            awaits,
            length,
            read: 0,
            beginning: Vec::new(),
            breaks: None,
            broken: false,
        })
    }

    pub(super) fn break_after(&mut self, bytes: Option<u64>) {
        self.breaks = bytes;
    }

    /// The length that the request states.
    pub(super) fn length(&self) -> Option<u64> {
        self.length
    }

    /// How many bytes were read so far.
    pub(super) fn count(&self) -> u64 {
        self.read
    }

    /// The first bytes that were read.
    pub(super) fn take_beginning(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.beginning)
    }

    /// Whether the connection is of no use any more.
    pub(super) fn is_broken(&self) -> bool {
        self.broken
    }

    pub(super) fn has_ended(&self) -> bool {
        matches!(self.framing, Framing::Ended)
    }

    /// All of it; none if that is more than `most` bytes.
    pub(super) fn read_all(&mut self, most: u64) -> io::Result<Option<Vec<u8>>> {
        let mut content = Vec::new();
        if self.length.is_some_and(|length| length > most) {
            return Ok(None);
        }
        self.take(most + 1).read_to_end(&mut content)?;
        Ok((content.len() as u64 <= most).then_some(content))
    }

    /// Reads what is left and was not wanted, within reason.
    pub(super) fn drain(&mut self) {
        if !self.awaits && self.length.is_none_or(|length| length - self.read <= MAX_DRAINED) {
            let _ = io::copy(&mut self.take(MAX_DRAINED), &mut io::sink());
        }
    }

    fn fill(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.awaits) {
            self.connection.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        let mut chunk = [0; 16 << 10];
        match self.connection.read(&mut chunk)? {
            0 => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the body broke off")),
            count => {
                self.buffer.extend_from_slice(&chunk[..count]);
                Ok(())
            }
        }
    }

    /// The next line between chunks, without its end.
    fn line(&mut self) -> io::Result<Vec<u8>> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\r\n") {
                let line = self.buffer.drain(..end + 2).take(end).collect();
                return Ok(line);
            }
            if self.buffer.len() > MAX_LINE {
                return Err(malformed("no chunk"));
            }
            self.fill()?;
        }
    }

    /// Goes to the next chunk if one has ended, and to the end of the body behind the last.
    fn next_chunk(&mut self) -> io::Result<()> {
        let Framing::Chunked { left: 0, first } = self.framing else { return Ok(()) };
        if !first && !self.line()?.is_empty() {
            return Err(malformed("a chunk that is longer than it says"));
        }
        let line = [&self.line()?[..], b"\r\n"].concat();
        match httparse::parse_chunk_size(&line) {
            Ok(httparse::Status::Complete((_, 0))) => {
                while !self.line()?.is_empty() {}
                self.framing = Framing::Ended;
            }
            Ok(httparse::Status::Complete((_, left))) => self.framing = Framing::Chunked { left, first: false },
            _ => return Err(malformed("no size of a chunk")),
        }
        Ok(())
    }

    fn read_some(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.next_chunk()?;
        let left = match self.framing {
            Framing::Length(left) | Framing::Chunked { left, .. } => left,
            Framing::Ended => return Ok(0),
        };
        if self.breaks.is_some_and(|bytes| self.read >= bytes) {
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "a fault that a test asked for"));
        }
        if self.buffer.is_empty() {
            self.fill()?;
        }
        let until_break = self.breaks.map_or(u64::MAX, |bytes| bytes - self.read);
        let most = left.min(until_break).min(buffer.len() as u64).min(self.buffer.len() as u64);
        let count = usize::try_from(most).unwrap_or(usize::MAX);
        buffer[..count].copy_from_slice(&self.buffer[..count]);
        self.buffer.drain(..count);
        let kept = count.min(MAX_KEPT - self.beginning.len());
        self.beginning.extend_from_slice(&buffer[..kept]);
        self.read += most;
        self.framing = match self.framing {
            Framing::Length(left) if left == most => Framing::Ended,
            Framing::Length(left) => Framing::Length(left - most),
            Framing::Chunked { left, first } => Framing::Chunked { left: left - most, first },
            Framing::Ended => Framing::Ended,
        };
        Ok(count)
    }
}

impl Read for Body<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let read = self.read_some(buffer);
        self.broken |= read.is_err();
        read
    }
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
