//! Checking content against its promise while it passes by.
//!
//! [`Check`] counts and hashes; [`VerifiedReader`] is a reader with a check inside, which reports the end of its
//! content only after the check held.

use std::io;
use std::io::Read;

use crate::descriptor::Descriptor;
use crate::digest::Digest;
use crate::digest::Hasher;
use crate::error::ErrorKind;
use crate::error::Result;

/// Counts and hashes content, and compares with what was promised.
#[derive(Debug)]
pub(crate) struct Check {
    digest: Digest,
    size: Option<u64>,
    seen: u64,
    hasher: Hasher,
}

impl Check {
    pub(crate) fn new(promise: &Descriptor) -> Check {
        Check { size: Some(promise.size), ..Check::of_digest(promise.digest) }
    }

    /// A check of content whose size nobody promised.
    pub(crate) fn of_digest(digest: Digest) -> Check {
        Check { digest, size: None, seen: 0, hasher: Hasher::new(digest.algorithm()) }
    }

    /// Takes the next bytes; fails as soon as there are more than promised.
    pub(crate) fn update(&mut self, bytes: &[u8]) -> Result<()> {
        self.seen += bytes.len() as u64;
        match self.size {
            Some(expected) if self.seen > expected => self.size_mismatch(expected),
            _ => {
                self.hasher.update(bytes);
                Ok(())
            }
        }
    }

    /// How many bytes may be asked for next without reading more than one too many.
    fn room(&self, wanted: usize) -> usize {
        let left = self.size.map_or(u64::MAX, |size| (size - self.seen.min(size)).saturating_add(1));
        wanted.min(usize::try_from(left).unwrap_or(usize::MAX))
    }

    /// The end of the content: the size first, then the digest (image-spec, descriptor.md, `size`).
    pub(crate) fn finish(&self) -> Result<()> {
        match self.size {
            Some(expected) if self.seen != expected => return self.size_mismatch(expected),
            _ => {}
        }
        let found = self.hasher.clone().finish();
        if found != self.digest {
            return Err(ErrorKind::DigestMismatch { expected: self.digest, found }.into());
        }
        Ok(())
    }

    fn size_mismatch(&self, expected: u64) -> Result<()> {
        Err(ErrorKind::SizeMismatch { expected, found: self.seen }.into())
    }
}

/// Checks content that is all there.
pub(crate) fn check(promise: &Descriptor, content: &[u8]) -> Result<()> {
    let mut check = Check::new(promise);
    check.update(content)?;
    check.finish()
}

/// A reader that reports the end of its content only after size and digest held.
///
/// Bytes are handed out as they come, before the end has proven them; whoever acts on them must first see the end.
/// At most one byte more than promised is read from below.
#[derive(Debug)]
pub struct VerifiedReader<R> {
    inner: R,
    check: Check,
    done: bool,
}

impl<R: Read> VerifiedReader<R> {
    pub(crate) fn new(inner: R, promise: &Descriptor) -> VerifiedReader<R> {
        VerifiedReader { inner, check: Check::new(promise), done: false }
    }

    pub(crate) fn of_digest(inner: R, digest: Digest) -> VerifiedReader<R> {
        VerifiedReader { inner, check: Check::of_digest(digest), done: false }
    }
}

impl<R: Read> Read for VerifiedReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.done || buffer.is_empty() {
            return Ok(0);
        }
        let room = self.check.room(buffer.len());
        let count = self.inner.read(&mut buffer[..room])?;
        if count == 0 {
            self.check.finish()?;
            self.done = true;
            return Ok(0);
        }
        self.check.update(&buffer[..count]).map_err(io::Error::from)?;
        Ok(count)
    }
}
