//! What comes in: decompressed if it is compressed, and measured on both sides.

use std::cell::Cell;
use std::io;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Cursor;
use std::io::Read;
use std::rc::Rc;

use crate::changeset::Limits;
use crate::compression::Bound;
use crate::compression::Compression;
use crate::compression::Decoder;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Limit;
use crate::error::Result;
use crate::event::Cancel;

const BUFFER: usize = 64 << 10;
/// So many bytes tell all compressions apart, those too that are only known by name.
const START: usize = 6;

/// How much may come out of an archive and of all compressed layers in it together, for what went in (P9: on both sides
/// of the decompression). Clones share the counters.
#[derive(Clone, Debug)]
pub(super) struct Budget {
    taken: Rc<Cell<u64>>,
    out: Rc<Cell<u64>>,
    limits: Limits,
}

impl Budget {
    pub(super) fn new(limits: Limits) -> Budget {
        Budget { taken: Rc::default(), out: Rc::default(), limits }
    }

    /// Counts bytes that came out. Fails if there are too many.
    fn add(&self, count: usize) -> Result<()> {
        self.out.set(self.out.get().saturating_add(count as u64));
        self.check(self.out.get())
    }

    /// Fails if so many bytes are too many for what was taken in.
    pub(super) fn check(&self, out: u64) -> Result<()> {
        let Limits { unpacked_bytes, expansion_ratio, .. } = self.limits;
        if out > unpacked_bytes {
            return Err(Error::limit(Limit::UnpackedSize, unpacked_bytes));
        }
        if out > Bound::ALWAYS && out > self.taken.get().saturating_mul(expansion_ratio) {
            return Err(Error::limit(Limit::ExpansionRatio, expansion_ratio));
        }
        Ok(())
    }
}

/// A tar on its way in.
pub(super) struct Intake<R: Read> {
    decoder: Decoder<BufReader<Counted<R>>>,
    compression: Compression,
    budget: Budget,
    cancel: Cancel,
}

impl<R: Read> Intake<R> {
    pub(super) fn new(mut reader: R, budget: &Budget, cancel: &Cancel) -> Result<Intake<R>> {
        let mut start = Vec::with_capacity(START);
        reader.by_ref().take(START as u64).read_to_end(&mut start)?;
        refuse_others(&start)?;
        let compression = Compression::detect(&start);
        let counted = Counted { inner: Cursor::new(start).chain(reader), taken: Rc::clone(&budget.taken) };
        let Limits { unpacked_bytes, trailer_bytes, .. } = budget.limits;
        let bound = Bound::at_most(unpacked_bytes, unpacked_bytes).trailer(trailer_bytes);
        let decoder = Decoder::new(BufReader::with_capacity(BUFFER, counted), bound)?;
        Ok(Intake { decoder, compression, budget: budget.clone(), cancel: cancel.clone() })
    }

    pub(super) fn compression(&self) -> Compression {
        self.compression
    }

    pub(super) fn buffered(self) -> impl BufRead {
        BufReader::with_capacity(BUFFER, self)
    }
}

impl<R: Read> Read for Intake<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.cancel.check()?;
        let count = self.decoder.read(buffer)?;
        self.budget.add(count)?;
        Ok(count)
    }
}

/// Counts what is read.
struct Counted<R> {
    inner: io::Chain<Cursor<Vec<u8>>, R>,
    taken: Rc<Cell<u64>>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.taken.set(self.taken.get() + count as u64);
        Ok(count)
    }
}

/// What else tars come in says so itself; without this it would be a tar with a broken header.
fn refuse_others(start: &[u8]) -> Result<()> {
    let name = match start {
        [] => return Err(Error::invalid_archive("it is empty")),
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => "xz",
        [b'B', b'Z', b'h', ..] => "bzip2",
        _ => return Ok(()),
    };
    let reason = format!("{name} is not supported, only gzip and zstd: decompress it first");
    Err(ErrorKind::Compression { reason }.into())
}
