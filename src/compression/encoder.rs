//! Compressing.

use std::fmt;
use std::io;
use std::io::Write;
use std::num::NonZero;

use super::Compression;
use super::gzip::Gzip;
#[cfg(not(feature = "zstd"))]
use super::invalid;
use crate::error::Error;
use crate::error::Result;

/// Of zlib-rs, what comes within three hundredths of `gzip -6` in size; the next one takes a seventh longer for a hundredth
/// at most.
const GZIP_LEVEL: u32 = 5;
/// The default of the `zstd` program.
#[cfg(feature = "zstd")]
const ZSTD_LEVEL: i32 = 3;
/// More are of no use, and each has some megabytes of its own.
const MAX_THREADS: usize = 16;

/// How something is compressed. The default is what the usual tools do, with as many threads as the machine has.
///
/// ```
/// use layercake::Compression;
/// use layercake::compression::EncoderOptions;
///
/// let options = EncoderOptions::new(Compression::Gzip).level(9).threads(1);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncoderOptions {
    compression: Compression,
    level: Option<i32>,
    threads: Option<usize>,
}

impl EncoderOptions {
    /// The default.
    pub fn new(compression: Compression) -> EncoderOptions {
        EncoderOptions { compression, level: None, threads: None }
    }

    pub(crate) fn compression(&self) -> Compression {
        self.compression
    }

    /// What decides on the bytes that come out, as text.
    pub(crate) fn key(&self) -> String {
        let level = self.level.map_or_else(|| "default".to_owned(), |level| level.to_string());
        format!("{} {level}", self.compression)
    }

    /// How much effort is made: for gzip 0 to 9, by default 5; for zstd 1 to 22, by default 3.
    #[must_use = "the options are returned"]
    pub fn level(self, level: i32) -> Self {
        EncoderOptions { level: Some(level), ..self }
    }

    /// How many threads there are at most. It does not show in what comes out.
    #[must_use = "the options are returned"]
    pub fn threads(self, threads: usize) -> Self {
        EncoderOptions { threads: Some(threads), ..self }
    }

    /// Compresses what is written, to a writer.
    ///
    /// # Errors
    ///
    /// * [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput): there is no such level.
    /// * [`ErrorKind::Compression`](crate::ErrorKind::Compression): zstd is not built in.
    /// * [`ErrorKind::Io`](crate::ErrorKind::Io): the writer failed, or no thread can be started.
    pub fn encode<W: Write>(&self, writer: W) -> Result<Encoder<W>> {
        let inner = match self.compression {
            Compression::None => Inner::Plain(writer),
            Compression::Gzip => {
                let level = u32::try_from(self.level_in(0, 9)?).unwrap_or(GZIP_LEVEL);
                Inner::Gzip(Box::new(Gzip::new(writer, level, self.thread_count())?))
            }
            #[cfg(feature = "zstd")]
            Compression::Zstd => {
                let mut encoder = zstd::stream::write::Encoder::new(writer, self.level_in(1, 22)?)?;
                encoder.include_checksum(true)?;
                // With threads of its own, be it one: what they make does not depend on how many there are, and differs
                // from what is made without.
                encoder.multithread(u32::try_from(self.thread_count()).unwrap_or(1))?;
                Inner::Zstd(encoder)
            }
            #[cfg(not(feature = "zstd"))]
            Compression::Zstd => return Err(Error::from(invalid("zstd is not built in (feature `zstd`)"))),
        };
        Ok(Encoder { inner })
    }

    fn level_in(&self, least: i32, most: i32) -> Result<i32> {
        let level = self.level.unwrap_or(match self.compression {
            #[cfg(feature = "zstd")]
            Compression::Zstd => ZSTD_LEVEL,
            _ => GZIP_LEVEL.cast_signed(),
        });
        if (least..=most).contains(&level) {
            return Ok(level);
        }
        let compression = self.compression;
        Err(Error::invalid_input(format!("{compression} has no level {level}: there are {least} to {most}")))
    }

    fn thread_count(&self) -> usize {
        let available = || std::thread::available_parallelism().map_or(1, NonZero::get);
        self.threads.unwrap_or_else(available).clamp(1, MAX_THREADS)
    }
}

/// Compresses what is written to it, to another writer. Dropped without [`finish`](Encoder::finish), it leaves a stream
/// that ends too early.
///
/// ```
/// use std::io::Write;
/// use layercake::Compression;
/// use layercake::compression::Encoder;
///
/// let mut encoder = Encoder::new(Vec::new(), Compression::Gzip)?;
/// encoder.write_all(b"hello")?;
/// assert_eq!(Compression::detect(&encoder.finish()?), Compression::Gzip);
/// # Ok::<(), layercake::Error>(())
/// ```
#[must_use = "it must be finished"]
pub struct Encoder<W: Write> {
    inner: Inner<W>,
}

enum Inner<W: Write> {
    Plain(W),
    Gzip(Box<Gzip<W>>),
    #[cfg(feature = "zstd")]
    Zstd(zstd::stream::write::Encoder<'static, W>),
}

impl<W: Write> Encoder<W> {
    /// The default for this compression.
    ///
    /// # Errors
    ///
    /// Those of [`EncoderOptions::encode`].
    pub fn new(writer: W, compression: Compression) -> Result<Encoder<W>> {
        EncoderOptions::new(compression).encode(writer)
    }

    /// Writes what is left, and gives the writer back.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`](crate::ErrorKind::Io): the writer failed.
    pub fn finish(self) -> Result<W> {
        Ok(match self.inner {
            Inner::Plain(mut writer) => {
                writer.flush()?;
                writer
            }
            Inner::Gzip(gzip) => gzip.finish()?,
            #[cfg(feature = "zstd")]
            Inner::Zstd(zstd) => {
                let mut writer = zstd.finish()?;
                writer.flush()?;
                writer
            }
        })
    }
}

impl<W: Write> Write for Encoder<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.inner {
            Inner::Plain(writer) => writer.write(bytes),
            Inner::Gzip(gzip) => gzip.write(bytes),
            #[cfg(feature = "zstd")]
            Inner::Zstd(zstd) => zstd.write(bytes),
        }
    }

    /// Does nothing: what comes out must not depend on who flushes when. [`finish`](Encoder::finish) flushes.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<W: Write> fmt::Debug for Encoder<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encoder").finish_non_exhaustive()
    }
}
