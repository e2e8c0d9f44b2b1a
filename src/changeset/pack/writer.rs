//! A tar that grows.

use std::io::Write;

use super::Packed;
use super::header::BLOCK;
use super::header::Fields;
use crate::changeset::report::Skipped;
use crate::digest::Algorithm;
use crate::digest::Hasher;
use crate::error::Result;

/// What takes the entries of a layer: each header, then its content.
pub(crate) trait Output {
    /// Takes a header. A directory's path ends with `/`.
    fn put(&mut self, fields: Fields) -> Result<()>;

    /// Takes a piece of the content.
    fn write(&mut self, bytes: &[u8]) -> Result<()>;

    /// Ends the content.
    fn pad(&mut self) -> Result<()>;
}

/// Writes a tar, and hashes it.
pub(crate) struct TarWriter<W> {
    writer: W,
    hasher: Hasher,
    size: u64,
    entries: u64,
}

impl<W: Write> TarWriter<W> {
    pub(crate) fn new(writer: W) -> TarWriter<W> {
        TarWriter { writer, hasher: Hasher::new(Algorithm::Sha256), size: 0, entries: 0 }
    }

    /// How many bytes there are.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Ends the tar.
    pub(crate) fn finish(mut self, skipped: Vec<Skipped>) -> Result<Packed> {
        self.write(&[0; 2 * BLOCK])?;
        self.writer.flush()?;
        let TarWriter { entries, size, hasher, .. } = self;
        Ok(Packed { diff_id: hasher.finish(), entries, size, skipped })
    }
}

impl<W: Write> Output for TarWriter<W> {
    fn put(&mut self, fields: Fields) -> Result<()> {
        self.entries += 1;
        self.write(&fields.blocks()?)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.hasher.update(bytes);
        self.size += bytes.len() as u64;
        Ok(self.writer.write_all(bytes)?)
    }

    /// Fills the last block up.
    fn pad(&mut self) -> Result<()> {
        let missing = self.size.next_multiple_of(BLOCK as u64) - self.size;
        let missing = usize::try_from(missing).expect("a block is small");
        self.write(&[0; BLOCK][..missing])
    }
}

impl<O: Output + ?Sized> Output for &mut O {
    fn put(&mut self, fields: Fields) -> Result<()> {
        (**self).put(fields)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        (**self).write(bytes)
    }

    fn pad(&mut self) -> Result<()> {
        (**self).pad()
    }
}
