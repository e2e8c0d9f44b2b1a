//! Compression of layers, found by their content and not by their label.
//!
//! [`Compression`] is what a stream turns out to be by its first bytes; a media type that says otherwise is common
//! and harmless where the bytes verify. The decoder reads what others produce: gzip of several members (pigz,
//! eStargz), zero bytes behind the last one, zstd of several frames and with skippable ones (zstd:chunked).

use std::fmt;
use std::io;
use std::io::BufRead;
use std::io::Cursor;
use std::io::Read;

use flate2::bufread::GzDecoder;

use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Limit;

/// How the bytes of a layer are compressed.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Compression {
    /// Not at all: a plain tar.
    None,
    /// gzip (RFC 1952).
    Gzip,
    /// Zstandard (RFC 8878).
    Zstd,
}

impl Compression {
    /// What a stream is by its first four bytes; fewer are enough where the stream is shorter.
    pub fn detect(start: &[u8]) -> Compression {
        match start {
            [0x1f, 0x8b, ..] => Compression::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Compression::Zstd,
            // A skippable frame: RFC 8878, section 3.1.2.
            [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Compression::Zstd,
            _ => Compression::None,
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Compression::None => "none",
            Compression::Gzip => "gzip",
            Compression::Zstd => "zstd",
        })
    }
}

/// How much may come out of a stream.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bound {
    limit: Limit,
    maximum: u64,
    bytes: u64,
}

impl Bound {
    /// No layer unpacks to more: 1 TiB.
    const UNPACKED: u64 = 1 << 40;
    /// gzip cannot expand further than about 1032 times; zstd can, and no honest layer does.
    const RATIO: u64 = 1100;
    /// What any layer may unpack to, however small it is: a gigabyte of zeros is an honest test image.
    const ALWAYS: u64 = 1 << 30;

    /// The bound for a layer of `compressed` bytes.
    pub(crate) fn for_layer(compressed: u64) -> Bound {
        let by_ratio = compressed.saturating_mul(Bound::RATIO).max(Bound::ALWAYS);
        if by_ratio < Bound::UNPACKED {
            Bound { limit: Limit::ExpansionRatio, maximum: Bound::RATIO, bytes: by_ratio }
        } else {
            Bound { limit: Limit::UnpackedSize, maximum: Bound::UNPACKED, bytes: Bound::UNPACKED }
        }
    }
}

/// Reads what a stream holds, whatever its compression, and no more than its bound allows.
pub(crate) struct Decoder<R: BufRead> {
    inner: Inner<Start<R>>,
    bound: Bound,
    count: u64,
}

/// A stream from its beginning, after its first bytes were looked at.
type Start<R> = io::Chain<Cursor<Vec<u8>>, R>;

enum Inner<R: BufRead> {
    Plain(R),
    Gzip(Box<Members<R>>),
    #[cfg(feature = "zstd")]
    Zstd(zstd::stream::read::Decoder<'static, R>),
}

impl<R: BufRead> Decoder<R> {
    pub(crate) fn new(mut stream: R, bound: Bound) -> io::Result<Decoder<R>> {
        let mut start = Vec::with_capacity(4);
        stream.by_ref().take(4).read_to_end(&mut start)?;
        let compression = Compression::detect(&start);
        let stream = Cursor::new(start).chain(stream);
        let inner = match compression {
            Compression::None => Inner::Plain(stream),
            Compression::Gzip => Inner::Gzip(Box::new(Members::new(stream))),
            #[cfg(feature = "zstd")]
            Compression::Zstd => Inner::Zstd(zstd::stream::read::Decoder::with_buffer(stream)?),
            #[cfg(not(feature = "zstd"))]
            Compression::Zstd => return Err(invalid("zstd is not built in (feature `zstd`)")),
        };
        Ok(Decoder { inner, bound, count: 0 })
    }
}

impl<R: BufRead> Read for Decoder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = match &mut self.inner {
            Inner::Plain(reader) => reader.read(buffer),
            Inner::Gzip(reader) => reader.read(buffer).map_err(decode_error),
            #[cfg(feature = "zstd")]
            Inner::Zstd(reader) => reader.read(buffer).map_err(decode_error),
        }?;
        self.count += count as u64;
        if self.count > self.bound.bytes {
            return Err(Error::limit(self.bound.limit, self.bound.maximum).into());
        }
        Ok(count)
    }
}

/// gzip members one after another, with zero bytes allowed behind each (GNU tar pads to its record size).
struct Members<R: BufRead> {
    /// None while the next member is looked for.
    member: Option<GzDecoder<R>>,
}

impl<R: BufRead> Members<R> {
    fn new(stream: R) -> Members<R> {
        Members { member: Some(GzDecoder::new(stream)) }
    }
}

impl<R: BufRead> Read for Members<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(member) = &mut self.member {
            let count = member.read(buffer)?;
            if count > 0 || buffer.is_empty() {
                return Ok(count);
            }
            self.member = match self.member.take() {
                Some(ended) => next_member(ended.into_inner())?,
                None => None,
            };
        }
        Ok(0)
    }
}

fn next_member<R: BufRead>(mut stream: R) -> io::Result<Option<GzDecoder<R>>> {
    loop {
        let available = stream.fill_buf()?;
        if available.is_empty() {
            return Ok(None);
        }
        let zeros = available.iter().take_while(|byte| **byte == 0).count();
        let more = zeros < available.len();
        stream.consume(zeros);
        if more {
            return Ok(Some(GzDecoder::new(stream)));
        }
    }
}

/// What a decoder says becomes our error; what the reader below it said stays as it is.
fn decode_error(error: io::Error) -> io::Error {
    let from_below = error.get_ref().is_some_and(|inner| inner.is::<Error>()) || error.raw_os_error().is_some();
    if from_below || error.kind() == io::ErrorKind::Interrupted { error } else { invalid(&error.to_string()) }
}

fn invalid(reason: &str) -> io::Error {
    Error::from(ErrorKind::Compression { reason: reason.to_owned() }).into()
}
