//! Counts the bytes of a compressed stream that add no content.
//!
//! A stream can go on without end and give nothing: empty gzip members, skippable zstd frames, zero bytes behind the last
//! member. The size of a blob bounds them, the length of a pipe does not.

use std::io;
use std::io::BufRead;
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use crate::error::Error;
use crate::error::Limit;

/// The bytes that the end of a gzip member counts for. A member of 20 bytes costs its decoder as much time as so many.
pub(super) const MEMBER_COST: usize = 1 << 10;

/// A stream that fails when too many bytes were read since its counter was set to 0.
pub(super) struct Metered<R> {
    inner: R,
    maximum: u64,
    idle: Arc<AtomicU64>,
}

impl<R> Metered<R> {
    pub(super) fn new(inner: R, maximum: u64, idle: &Arc<AtomicU64>) -> Metered<R> {
        Metered { inner, maximum, idle: Arc::clone(idle) }
    }

    pub(super) fn add(&mut self, bytes: usize) {
        self.idle.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

impl<R: BufRead> BufRead for Metered<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.idle.load(Ordering::Relaxed) > self.maximum {
            return Err(Error::limit(Limit::TrailerSize, self.maximum).into());
        }
        self.inner.fill_buf()
    }

    fn consume(&mut self, count: usize) {
        self.add(count);
        self.inner.consume(count);
    }
}

/// For streams that are not compressed: all that is read is content.
impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.inner.read(buffer)
    }
}
