//! HTTP/1.1, as far as a registry needs it.

use std::io;
use std::io::BufWriter;
use std::io::Read;
use std::io::Write;
use std::net::Shutdown;
use std::net::TcpStream;
use std::time::Duration;

use super::answer::Answer;
use super::fault::Delivery;
use super::request::Request;

/// The most bytes of a request's head.
const MAX_HEAD: usize = 32 << 10;
const MAX_HEADERS: usize = 64;
/// How long a client that was refused may go on sending before the connection is closed.
const LINGER: Duration = Duration::from_secs(2);

/// The next request of the connection that has this number; none when the client has closed it. Its body is left to be
/// read.
pub(super) fn read_request(
    mut connection: &TcpStream,
    number: usize,
    buffer: &mut Vec<u8>,
) -> io::Result<Option<Request>> {
    loop {
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut parsed = httparse::Request::new(&mut headers);
        match parsed.parse(buffer) {
            Ok(httparse::Status::Complete(length)) => {
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                let mut request = Request {
                    connection: number,
                    method: parsed.method.unwrap_or_default().to_owned(),
                    path: parsed.path.unwrap_or_default().to_owned(),
                    headers: parsed.headers.iter().map(|h| (h.name.to_owned(), text(h.value))).collect(),
                    body_length: 0,
                    body: Vec::new(),
                    is_last: parsed.version == Some(0),
                };
                request.is_last |= request.header("connection").is_some_and(|c| c.eq_ignore_ascii_case("close"));
                buffer.drain(..length);
                return Ok(Some(request));
            }
            Ok(httparse::Status::Partial) if buffer.len() < MAX_HEAD => {}
            _ => return Err(io::Error::new(io::ErrorKind::InvalidData, "no request")),
        }
        let mut chunk = [0; 4096];
        match connection.read(&mut chunk)? {
            0 => return Ok(None),
            count => buffer.extend_from_slice(&chunk[..count]),
        }
    }
}

/// Sends an answer. Returns whether the connection can be used again.
/// `at_end` is whether the request was read to its end.
pub(super) fn send(
    connection: &TcpStream,
    request: &Request,
    answer: Answer,
    delivery: &Delivery,
    at_end: bool,
) -> io::Result<bool> {
    let mut out = BufWriter::with_capacity(64 << 10, connection);
    write!(out, "HTTP/1.1 {} Whatever\r\n", answer.status)?;
    for (name, value) in &answer.headers {
        write!(out, "{name}: {value}\r\n")?;
    }
    if !at_end || request.is_last {
        write!(out, "connection: close\r\n")?;
    }
    let own_length = answer.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    match (delivery.chunked, own_length) {
        (true, _) => write!(out, "transfer-encoding: chunked\r\n\r\n")?,
        (false, true) => write!(out, "\r\n")?,
        // RFC 9110, section 8.6.
        (false, false) if answer.status == 204 => write!(out, "\r\n")?,
        (false, false) => write!(out, "content-length: {}\r\n\r\n", answer.content.len())?,
    }
    if request.is_head() {
        out.flush()?;
        return Ok(at_end && !request.is_last);
    }
    let mut body = answer.content.into_reader();
    if let Some((bytes, pause)) = delivery.stall {
        copy(&mut body.by_ref().take(bytes as u64), &mut out, delivery.chunked)?;
        out.flush()?;
        std::thread::sleep(pause);
    }
    let most = delivery.truncate.map_or(u64::MAX, |bytes| bytes as u64);
    copy(&mut body.take(most), &mut out, delivery.chunked)?;
    if delivery.truncate.is_none() && delivery.chunked {
        out.write_all(b"0\r\n\r\n")?;
    }
    out.flush()?;
    // An answer with a length of its own may be followed by bytes that are no next answer.
    Ok(delivery.truncate.is_none() && !own_length && at_end && !request.is_last)
}

/// Lets the client read its answer: a connection that is closed while bytes are on their way is reset.
pub(super) fn close_politely(mut connection: &TcpStream) -> io::Result<()> {
    connection.shutdown(Shutdown::Write)?;
    connection.set_read_timeout(Some(LINGER))?;
    let mut chunk = [0; 16 << 10];
    while connection.read(&mut chunk)? > 0 {}
    Ok(())
}

fn copy(body: &mut dyn Read, out: &mut dyn Write, chunked: bool) -> io::Result<()> {
    let mut chunk = vec![0; 64 << 10];
    loop {
        let count = body.read(&mut chunk)?;
        if count == 0 {
            return Ok(());
        }
        if chunked {
            write!(out, "{count:x}\r\n")?;
        }
        out.write_all(&chunk[..count])?;
        if chunked {
            out.write_all(b"\r\n")?;
        }
    }
}
