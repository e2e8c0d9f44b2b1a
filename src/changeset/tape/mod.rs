//! Reading a tar, entry by entry.
//!
//! The header's fields are the `tar` crate's; what they and their extensions mean is decided here. A stream that is
//! accepted means the same to Go's `archive/tar`, GNU tar and Python's tarfile: where they read a field, a record or
//! the end of the archive differently, it is refused (CVE-2025-62518 shows what happens else). POSIX pax, GNU's long
//! names and sparse files, and what old versions of Go wrote are understood.

mod header;
mod number;
mod pax;
mod sparse;

use std::io;
use std::io::BufRead;
use std::io::Read;

use crate::compression::TRAILER_BYTES;
use crate::error::Error;
use crate::error::Limit;
use crate::error::Result;
use header::BLOCK;
use header::Block;
use header::Flag;
use pax::Extension;

pub use number::Timestamp;
pub(crate) use number::invalid;
pub(crate) use pax::has_gnu_code;
pub(crate) use sparse::Segment;
pub(crate) use sparse::Sparse;

/// What an extended header or a long name may take: 1 MiB.
const MAX_EXTENSION: u64 = 1 << 20;

/// What the header says an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Type {
    File,
    Directory,
    Symlink,
    HardLink,
    CharDevice(u32, u32),
    BlockDevice(u32, u32),
    Fifo,
}

/// An entry as it stands in the tar.
#[derive(Debug)]
pub(crate) struct RawEntry {
    pub(crate) path: Vec<u8>,
    /// Where a link leads; else empty.
    pub(crate) link: Vec<u8>,
    pub(crate) kind: Type,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: Timestamp,
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Of the content, in bytes, holes counted.
    pub(crate) size: u64,
    pub(crate) sparse: Option<Sparse>,
    /// Records of the extended header that say something which is not applied.
    pub(crate) not_applied: Vec<String>,
}

/// A tar, from its first block to its end, read once.
#[derive(Debug)]
pub(crate) struct Tape<R> {
    reader: R,
    /// Of the content of the entry at hand: the stored bytes that were not read yet.
    left: u64,
    /// What fills its last block up.
    padding: u64,
    ended: bool,
    /// How many bytes may follow the end of the tar.
    trailer: u64,
}

/// What was said so far of the entry to come.
#[derive(Default)]
struct Pending {
    extension: Option<Extension>,
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
}

impl Pending {
    fn is_empty(&self) -> bool {
        self.extension.is_none() && self.name.is_none() && self.link.is_none()
    }
}

impl<R: BufRead> Tape<R> {
    pub(crate) fn new(reader: R) -> Tape<R> {
        Tape { reader, left: 0, padding: 0, ended: false, trailer: TRAILER_BYTES }
    }

    /// Sets another limit of the bytes that follow the end of the tar.
    pub(crate) fn with_trailer(self, bytes: u64) -> Tape<R> {
        Tape { trailer: bytes, ..self }
    }

    /// Reads what follows the end of the tar: the stream may be verified at its end.
    fn skip_trailer(&mut self) -> Result<()> {
        let count = io::copy(&mut self.reader.by_ref().take(self.trailer.saturating_add(1)), &mut io::sink())?;
        if count > self.trailer { Err(Error::limit(Limit::TrailerSize, self.trailer)) } else { Ok(()) }
    }

    /// Goes to the next entry; none at the end, which is reached only after all that follows the archive's end was
    /// read too: it counts for the diff id.
    pub(crate) fn next_entry(&mut self) -> Result<Option<RawEntry>> {
        let mut pending = Pending::default();
        if self.ended {
            return Ok(None);
        }
        self.skip_content()?;
        while let Some(block) = self.header()? {
            let flag = block.flag()?;
            match flag {
                Flag::Global if !pending.is_empty() => return invalid("a global header stands behind an extension"),
                Flag::Global => Extension::check_global(&self.payload(&block)?)?,
                Flag::Extended => once(&mut pending.extension, Extension::parse(&self.payload(&block)?)?)?,
                Flag::LongName => once(&mut pending.name, long_text(self.payload(&block)?)?)?,
                Flag::LongLink => once(&mut pending.link, long_text(self.payload(&block)?)?)?,
                _ => return self.entry(&block, flag, pending).map(Some),
            }
        }
        if !pending.is_empty() {
            return invalid("an extension stands before no entry");
        }
        self.ended = true;
        self.skip_trailer()?;
        Ok(None)
    }

    /// The entry's stored bytes that are at hand, at least one unless all were read.
    pub(crate) fn stored(&mut self) -> Result<&[u8]> {
        if self.left == 0 {
            return Ok(&[]);
        }
        let available = loop {
            match self.reader.fill_buf() {
                Ok(bytes) => break bytes.len(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        };
        if available == 0 {
            return invalid("the layer ends within an entry");
        }
        // A second look, because the first one's borrow cannot leave the loop.
        let bytes = self.reader.fill_buf()?;
        Ok(&bytes[..at_most(available, self.left)])
    }

    pub(crate) fn consume(&mut self, count: usize) {
        self.reader.consume(count);
        self.left -= count as u64;
    }

    fn entry(&mut self, block: &Block, flag: Flag, pending: Pending) -> Result<RawEntry> {
        let mut extension = pending.extension.unwrap_or_default();
        let attributes = block.attributes(&extension)?;
        let sparse_name = extension.sparse.name.take();
        let path = either("name", extension.path.take(), pending.name)?;
        let link = either("link", extension.link.take(), pending.link)?.unwrap_or_else(|| block.link());
        let is_sparse = flag == Flag::OldSparse || !extension.sparse.is_empty();
        check_sparse_name(sparse_name.as_deref(), path.as_deref())?;
        check_sparse_size(is_sparse, extension.size)?;
        let path = match sparse_name.or(path) {
            Some(path) => path,
            None => block.name()?,
        };
        let stated = extension.size.map_or_else(|| block.size(), Ok)?;
        let flag = resolve(block, flag, &path, stated)?;
        block.check_mode(flag)?;
        // POSIX: of these types no content is stored, whatever the size says.
        let stored = if matches!(flag, Flag::File | Flag::OldSparse) { stated } else { 0 };
        self.left = stored;
        self.padding = padding(stored)?;
        let sparse = self.sparse_map(block, flag, std::mem::take(&mut extension.sparse))?;
        Ok(RawEntry {
            path,
            link: if matches!(flag, Flag::HardLink | Flag::Symlink) { link } else { Vec::new() },
            kind: kind(block, flag)?,
            mode: attributes.mode,
            uid: attributes.uid,
            gid: attributes.gid,
            mtime: attributes.mtime,
            xattrs: extension.xattrs.into_list(),
            size: sparse.as_ref().map_or(stored, |sparse| sparse.size),
            sparse,
            not_applied: extension.not_applied,
        })
    }

    fn sparse_map(&mut self, block: &Block, flag: Flag, records: sparse::SparseRecords) -> Result<Option<Sparse>> {
        match flag {
            Flag::OldSparse if records.is_empty() => {
                let Some(header) = block.header().as_gnu() else { return invalid("a sparse file is not GNU's") };
                sparse::old_map(header, self.left, &mut Whole(&mut self.reader)).map(Some)
            }
            Flag::File => records.map(&mut Whole(&mut self.reader), &mut self.left),
            _ if records.is_empty() => Ok(None),
            _ => invalid("records of a sparse file stand before something else"),
        }
    }

    /// The next header, unless the archive ends: with two blocks of zeros, or where the stream does.
    fn header(&mut self) -> Result<Option<Block>> {
        let Some(block) = self.block()? else { return Ok(None) };
        if block != [0; BLOCK] {
            return Block::new(&block).map(Some);
        }
        match self.block()? {
            Some(second) if second != [0; BLOCK] => invalid("a lone block of zeros stands between entries"),
            _ => Ok(None),
        }
    }

    /// A whole block, unless the stream ends before it.
    fn block(&mut self) -> Result<Option<[u8; BLOCK]>> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            match self.reader.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return invalid("the layer ends within a header"),
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Some(block))
    }

    /// What stands behind an extension's header.
    fn payload(&mut self, block: &Block) -> Result<Vec<u8>> {
        let size = block.size()?;
        if size > MAX_EXTENSION {
            return Err(Error::limit(Limit::ExtensionSize, MAX_EXTENSION));
        }
        self.left = size;
        self.padding = padding(size)?;
        let mut payload = Vec::new();
        while self.left > 0 {
            let bytes = self.stored()?;
            payload.extend_from_slice(bytes);
            let count = bytes.len();
            self.consume(count);
        }
        self.skip_content()?;
        Ok(payload)
    }

    fn skip_content(&mut self) -> Result<()> {
        while self.left > 0 {
            let count = self.stored()?.len();
            self.consume(count);
        }
        self.left = std::mem::take(&mut self.padding);
        while self.left > 0 {
            let count = self.stored()?.len();
            self.consume(count);
        }
        Ok(())
    }
}

/// A reader whose end is an error of the layer.
struct Whole<R>(R);

impl<R: Read> Read for Whole<&mut R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.read(buffer)? {
            0 if !buffer.is_empty() => invalid("the layer ends within an entry").map_err(io::Error::from),
            count => Ok(count),
        }
    }
}

/// What fills up the last block of so many bytes.
fn padding(size: u64) -> Result<u64> {
    let whole = size.checked_next_multiple_of(BLOCK as u64);
    whole.map_or_else(|| invalid("an entry is too large"), |whole| Ok(whole - size))
}

/// Decides between file and directory, as every reader does.
///
/// Without a type flag, a slash at the end of the name makes a directory: for Python of the header's name, for Go and GNU
/// tar of the long one. With the flag of a file, it does for GNU tar alone.
fn resolve(block: &Block, flag: Flag, path: &[u8], size: u64) -> Result<Flag> {
    let ends = path.ends_with(b"/");
    match flag {
        Flag::Old if ends != block.short_name().ends_with(b"/") => {
            invalid("ambiguous: without a type flag, one name ends with a slash and the other does not")
        }
        Flag::Old if ends && (size != 0 || block.size()? != 0) => {
            invalid("ambiguous: a directory without a type flag has content")
        }
        Flag::Old if ends => Ok(Flag::Directory),
        Flag::Old => Ok(Flag::File),
        Flag::File | Flag::OldSparse if ends => invalid("ambiguous: the name of a file ends with a slash"),
        flag => Ok(flag),
    }
}

/// Part of an entry's name where GNU tar and bsdtar store a sparse file under another name.
const SPARSE_FOLDER: &[u8] = b"GNUSparseFile.";

/// Checks the two names that a sparse file may have. Go and GNU tar take the sparse one, Python the last record; GNU tar
/// writes both, the other one below a directory of its own.
fn check_sparse_name(sparse: Option<&[u8]>, path: Option<&[u8]>) -> Result<()> {
    let (Some(sparse), Some(path)) = (sparse, path) else { return Ok(()) };
    let is_placeholder = path.split(|byte| *byte == b'/').any(|part| part.starts_with(SPARSE_FOLDER));
    if is_placeholder || sparse == path {
        return Ok(());
    }
    invalid("ambiguous: a sparse file has two names")
}

/// Checks the size of a sparse file, for which Python needs the header's field. Larger ones than fit there have a record.
fn check_sparse_size(is_sparse: bool, size: Option<u64>) -> Result<()> {
    const MAX_OCTAL: u64 = (1 << 33) - 1;
    if is_sparse && size.is_some_and(|size| size <= MAX_OCTAL) {
        return invalid("ambiguous: a sparse file has two sizes");
    }
    Ok(())
}

fn kind(block: &Block, flag: Flag) -> Result<Type> {
    Ok(match flag {
        Flag::HardLink => Type::HardLink,
        Flag::Symlink => Type::Symlink,
        Flag::Directory => Type::Directory,
        Flag::Fifo => Type::Fifo,
        Flag::CharDevice => block.device().map(|(major, minor)| Type::CharDevice(major, minor))?,
        Flag::BlockDevice => block.device().map(|(major, minor)| Type::BlockDevice(major, minor))?,
        _ => Type::File,
    })
}

fn once<T>(place: &mut Option<T>, value: T) -> Result<()> {
    if place.replace(value).is_some() {
        return invalid("an entry has two extensions of one kind");
    }
    Ok(())
}

/// Two that say different things would be read differently by different programs.
fn either(what: &str, pax: Option<Vec<u8>>, gnu: Option<Vec<u8>>) -> Result<Option<Vec<u8>>> {
    match (pax, gnu) {
        (Some(pax), Some(gnu)) if pax != gnu => invalid(format!("an entry has two long {what}s")),
        (pax, gnu) => Ok(pax.or(gnu)),
    }
}

/// GNU ends long names with a zero byte.
fn long_text(mut payload: Vec<u8>) -> Result<Vec<u8>> {
    while payload.last() == Some(&0) {
        payload.pop();
    }
    if payload.is_empty() || payload.contains(&0) {
        return invalid("a long name is empty or has a zero byte");
    }
    Ok(payload)
}

fn at_most(available: usize, left: u64) -> usize {
    usize::try_from(left).map_or(available, |left| available.min(left))
}
