//! Compression of layers: found by their content and not by their label, and made the same every time.
//!
//! [`Compression`] is what a stream turns out to be by its first bytes; a media type that says otherwise is common
//! and harmless where the bytes verify. The decoder reads what others produce: gzip of several members (pigz,
//! eStargz), zero bytes behind the last one, zstd of several frames and with skippable ones (zstd:chunked).
//!
//! [`Encoder`] compresses. Equal bytes become equal bytes with one version of this crate and its dependencies, whatever
//! the number of threads and the machine; between versions they may not. What names content for good is a layer's
//! diff id, and that is of what is not compressed.

//!
//! # Limits
//!
//! A zstd frame says how large its window is, and its decoder needs so much memory. Frames with a window of more than
//! 128 MiB are refused with [`Limit::Window`]: that is the most that `zstd -d` accepts, and what `zstd --ultra -22` and
//! `zstd --long` write. Bytes that add no content, as empty gzip members, skippable frames and padding, count to
//! [`Limits::trailer_bytes`](crate::changeset::Limits::trailer_bytes).

mod encoder;
mod gzip;
mod trailer;
#[cfg(feature = "zstd")]
mod window;

use std::fmt;
use std::io;
use std::io::BufRead;
use std::io::Cursor;
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use flate2::bufread::GzDecoder;
use trailer::MEMBER_COST;
use trailer::Metered;

use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Limit;
use crate::media_type::MediaType;

pub use encoder::Encoder;
pub use encoder::EncoderOptions;

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

    /// What OCI calls a layer that is compressed so.
    pub(crate) fn oci_layer(self) -> MediaType {
        match self {
            Compression::None => MediaType::OCI_LAYER,
            Compression::Gzip => MediaType::OCI_LAYER_GZIP,
            Compression::Zstd => MediaType::OCI_LAYER_ZSTD,
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

/// Default of [`Limits::trailer_bytes`](crate::changeset::Limits::trailer_bytes): 256 MiB.
pub(crate) const TRAILER_BYTES: u64 = 256 << 20;

/// How much may come out of a stream.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bound {
    limit: Limit,
    maximum: u64,
    bytes: u64,
    /// How many bytes may be read without adding content.
    trailer: u64,
}

impl Bound {
    /// No layer unpacks to more: 1 TiB.
    const UNPACKED: u64 = 1 << 40;
    /// gzip cannot expand further than about 1032 times; zstd can, and no honest layer does.
    const RATIO: u64 = 1100;
    /// What any layer may unpack to, however small it is: a gigabyte of zeros is an honest test image.
    pub(crate) const ALWAYS: u64 = 1 << 30;

    /// So many bytes may come, which are what is left of a maximum.
    pub(crate) fn at_most(maximum: u64, left: u64) -> Bound {
        Bound { limit: Limit::UnpackedSize, maximum, bytes: left, trailer: TRAILER_BYTES }
    }

    /// The bound for a layer of `compressed` bytes.
    pub(crate) fn for_layer(compressed: u64) -> Bound {
        let by_ratio = compressed.saturating_mul(Bound::RATIO).max(Bound::ALWAYS);
        if by_ratio < Bound::UNPACKED {
            Bound { limit: Limit::ExpansionRatio, maximum: Bound::RATIO, bytes: by_ratio, trailer: TRAILER_BYTES }
        } else {
            Bound::at_most(Bound::UNPACKED, Bound::UNPACKED)
        }
    }

    /// Sets another limit of the bytes that add no content.
    pub(crate) fn trailer(self, bytes: u64) -> Bound {
        Bound { trailer: bytes, ..self }
    }
}

/// Reads what a stream holds, whatever its compression, and no more than its bound allows.
pub(crate) struct Decoder<R: BufRead> {
    inner: Inner<Start<R>>,
    bound: Bound,
    count: u64,
    /// The bytes that were read since content came out last.
    idle: Arc<AtomicU64>,
}

/// A stream from its beginning, after its first bytes were looked at.
type Start<R> = io::Chain<Cursor<Vec<u8>>, R>;

enum Inner<R: BufRead> {
    Plain(Metered<R>),
    Gzip(Members<R>),
    #[cfg(feature = "zstd")]
    Zstd(zstd::stream::zio::Reader<Metered<R>, window::Checked>),
}

impl<R: BufRead> Decoder<R> {
    pub(crate) fn new(mut stream: R, bound: Bound) -> io::Result<Decoder<R>> {
        let mut start = Vec::with_capacity(4);
        stream.by_ref().take(4).read_to_end(&mut start)?;
        let compression = Compression::detect(&start);
        let idle = Arc::default();
        let stream = Metered::new(Cursor::new(start).chain(stream), bound.trailer, &idle);
        let inner = match compression {
            Compression::None => Inner::Plain(stream),
            Compression::Gzip => Inner::Gzip(Members::new(stream)),
            #[cfg(feature = "zstd")]
            Compression::Zstd => Inner::Zstd(zstd::stream::zio::Reader::new(stream, window::Checked::new()?)),
            #[cfg(not(feature = "zstd"))]
            Compression::Zstd => return Err(invalid("zstd is not built in (feature `zstd`)")),
        };
        Ok(Decoder { inner, bound, count: 0, idle })
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
        if count > 0 {
            self.idle.store(0, Ordering::Relaxed);
        }
        if self.count > self.bound.bytes {
            return Err(Error::limit(self.bound.limit, self.bound.maximum).into());
        }
        Ok(count)
    }
}

/// gzip members one after another, with zero bytes allowed behind each (GNU tar pads to its record size).
enum Members<R: BufRead> {
    In(Box<GzDecoder<Metered<R>>>),
    /// Behind a member: what follows is another, or zero bytes, or the end.
    Between(Metered<R>),
    /// Only while the state changes.
    Lost,
}

impl<R: BufRead> Members<R> {
    fn new(stream: Metered<R>) -> Members<R> {
        Members::In(Box::new(GzDecoder::new(stream)))
    }

    /// Looks for the next member; false at the end.
    fn go_on(&mut self) -> io::Result<bool> {
        let Members::Between(stream) = self else { return Ok(true) };
        loop {
            // An error leaves the state as it is: whoever reads again looks again.
            let available = stream.fill_buf()?;
            if available.is_empty() {
                return Ok(false);
            }
            let zeros = available.iter().take_while(|byte| **byte == 0).count();
            let more = zeros < available.len();
            stream.consume(zeros);
            if more {
                break;
            }
        }
        if let Members::Between(stream) = std::mem::replace(self, Members::Lost) {
            *self = Members::new(stream);
        }
        Ok(true)
    }
}

impl<R: BufRead> Read for Members<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.go_on()? {
            let Members::In(member) = self else { break };
            let count = member.read(buffer)?;
            if count > 0 || buffer.is_empty() {
                return Ok(count);
            }
            if let Members::In(ended) = std::mem::replace(self, Members::Lost) {
                let mut stream = (*ended).into_inner();
                stream.add(MEMBER_COST);
                *self = Members::Between(stream);
            }
        }
        Ok(0)
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

#[cfg(test)]
mod tests {
    use std::io::BufReader;
    use std::io::Write;

    use super::*;

    fn gzip(content: &[u8]) -> Vec<u8> {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(content).unwrap();
        gzip.finish().unwrap()
    }

    /// Gives one byte at a time, and is interrupted before each.
    struct Interrupted<'a>(&'a [u8], bool);

    impl Read for Interrupted<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.1 = !self.1;
            if self.1 {
                return Err(io::ErrorKind::Interrupted.into());
            }
            let most = buffer.len().min(1);
            self.0.read(&mut buffer[..most])
        }
    }

    /// Splitting and interrupting reads changes nothing, between members and at the end neither.
    #[test]
    fn interrupted_reads_lose_nothing() {
        let stream = [gzip(b"one "), vec![0; 7], gzip(b"two "), gzip(b""), gzip(b"three"), vec![0; 5]].concat();
        for capacity in [1, 2, 64] {
            let reader = BufReader::with_capacity(capacity, Interrupted(&stream, false));
            let mut content = Vec::new();
            Decoder::new(reader, Bound::for_layer(100)).unwrap().read_to_end(&mut content).unwrap();
            assert_eq!(content, b"one two three");
        }
    }

    #[test]
    fn kinds_are_told_by_their_first_bytes() {
        assert_eq!(Compression::detect(b""), Compression::None);
        assert_eq!(Compression::detect(&gzip(b"")), Compression::Gzip);
        assert_eq!(Compression::detect(&[0x28, 0xb5, 0x2f, 0xfd]), Compression::Zstd);
        assert_eq!(Compression::detect(&[0x5f, 0x2a, 0x4d, 0x18]), Compression::Zstd);
        assert_eq!(Compression::detect(b"etc/passwd"), Compression::None);
    }
}
