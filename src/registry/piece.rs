//! The bytes of a blob, as they are sent.

use std::io;
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use super::http::Content;

use crate::descriptor::Descriptor;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::event::Event;
use crate::event::Watch;

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

/// A part of a blob, to be sent.
pub(super) struct Piece<'a> {
    pub(super) source: &'a dyn BlobSource,
    pub(super) blob: &'a Descriptor,
    pub(super) start: u64,
    pub(super) length: u64,
    pub(super) watch: &'a Watch<'a>,
    /// Counts what is sent, over all parts.
    pub(super) sent: Arc<AtomicU64>,
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
        if self.at == blob.size && !is_at_end(&mut self.inner)? {
            return Err(Error::from(ErrorKind::SizeMismatch { expected: blob.size, found: blob.size + 1 }).into());
        }
        self.piece.sent.fetch_add(count as u64, Ordering::Relaxed);
        watch.tell(&Event::Progress { blob, bytes: self.at });
        Ok(count)
    }
}

fn is_at_end(reader: &mut dyn Read) -> io::Result<bool> {
    loop {
        match reader.read(&mut [0]) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return Ok(result? == 0),
        }
    }
}
