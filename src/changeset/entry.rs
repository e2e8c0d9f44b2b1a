//! The entries of a layer, to be read without being applied.

use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::io::BufRead;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::changeset::Limits;
use crate::changeset::tape::RawEntry;
use crate::changeset::tape::Segment;
use crate::changeset::tape::Sparse;
use crate::changeset::tape::Tape;
use crate::changeset::tape::Timestamp;
use crate::changeset::tape::Type;
use crate::changeset::whiteout::Purpose;
use crate::changeset::whiteout::purpose;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Limit;
use crate::error::Result;
use crate::error::printable;

/// What an entry of a layer is.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EntryKind<'a> {
    /// A regular file; the entry is a reader of its content.
    File,
    /// A directory. One that exists keeps its children and gets these attributes.
    Directory,
    /// A symbolic link.
    Symlink {
        /// What it says, verbatim: it may lead anywhere, and is resolved inside the root.
        target: &'a Path,
    },
    /// One more name for something, of this layer or of a lower one.
    HardLink {
        /// A name that it has already, from the root.
        target: &'a Path,
    },
    /// A character device.
    CharDevice {
        /// Its major number.
        major: u32,
        /// Its minor number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Its major number.
        major: u32,
        /// Its minor number.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
    /// Hides what lower layers have at this path (image-spec, layer.md, "Whiteouts"). It has no attributes.
    Whiteout,
    /// Hides what lower layers have in this directory (image-spec, layer.md, "Opaque Whiteout").
    Opaque,
}

/// One entry of a layer. It is a reader of the content, which for all but regular files is empty; holes are read as
/// zeros.
#[derive(Debug)]
pub struct Entry<'a> {
    header: &'a Named,
    content: &'a mut Content,
    stored: &'a mut (dyn Stored + 'a),
}

/// An entry with its name taken apart.
#[derive(Debug)]
pub(crate) struct Named {
    pub(crate) raw: RawEntry,
    pub(crate) purpose: Purpose,
    pub(crate) path: Vec<u8>,
}

impl Entry<'_> {
    /// Its path from the root, without `.` and `..`, which are clamped there; the root's own is empty. Of a
    /// whiteout, what it hides: `etc/motd` of `etc/.wh.motd`. Symbolic links in it are not resolved.
    pub fn path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.header.path))
    }

    /// Whether it has holes, which take no room where it comes from.
    pub(crate) fn has_holes(&self) -> bool {
        self.header.raw.sparse.is_some()
    }

    /// Its path as it is written.
    pub(crate) fn written_path(&self) -> &[u8] {
        &self.header.raw.path
    }

    /// What it is.
    pub fn kind(&self) -> EntryKind<'_> {
        let target = Path::new(OsStr::from_bytes(&self.header.raw.link));
        match (self.header.purpose, self.header.raw.kind) {
            (Purpose::Whiteout, _) => EntryKind::Whiteout,
            (Purpose::Opaque, _) => EntryKind::Opaque,
            (_, Type::File) => EntryKind::File,
            (_, Type::Directory) => EntryKind::Directory,
            (_, Type::Symlink) => EntryKind::Symlink { target },
            (_, Type::HardLink) => EntryKind::HardLink { target },
            (_, Type::CharDevice(major, minor)) => EntryKind::CharDevice { major, minor },
            (_, Type::BlockDevice(major, minor)) => EntryKind::BlockDevice { major, minor },
            (_, Type::Fifo) => EntryKind::Fifo,
        }
    }

    /// The size of its content in bytes, holes counted.
    pub fn size(&self) -> u64 {
        self.header.raw.size
    }

    /// Permissions, with the bits for setuid, setgid and sticky: at most `0o7777`.
    pub fn mode(&self) -> u32 {
        self.header.raw.mode
    }

    /// The owner's number.
    pub fn uid(&self) -> u32 {
        self.header.raw.uid
    }

    /// The group's number.
    pub fn gid(&self) -> u32 {
        self.header.raw.gid
    }

    /// When it was changed last.
    pub fn modified(&self) -> Timestamp {
        self.header.raw.mtime
    }

    /// Its extended attributes, as name and value.
    pub fn xattrs(&self) -> impl Iterator<Item = (&OsStr, &[u8])> {
        self.header.raw.xattrs.iter().map(|(name, value)| (OsStr::from_bytes(name), &value[..]))
    }
}

impl Read for Entry<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.content.read(self.stored, buffer)
    }
}

/// The entries of a layer, in its order.
///
/// It is no `Iterator`, because an entry's content can be read only while the next one was not asked for. At the end
/// the whole stream was read, so a reader that verifies has verified.
///
/// ```
/// # use layercake::{testing::Fixture, Store};
/// # let dir = tempfile::tempdir()?;
/// # let store = Store::create(dir.path().join("store"))?;
/// # let image = store.image_at(&Fixture::demo().write(&store)?)?;
/// let mut entries = image.layers()?[0].entries()?;
/// while let Some(mut entry) = entries.next_entry()? {
///     if entry.path().ends_with("os-release") {
///         let text = std::io::read_to_string(&mut entry)?;
///         assert!(text.contains("ID=layercake"));
///     }
/// }
/// # Ok::<(), layercake::Error>(())
/// ```
pub struct Entries<R> {
    tape: Tape<R>,
    limits: Limits,
    count: u64,
    current: Option<(Named, Content)>,
}

impl<R> fmt::Debug for Entries<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entries").field("count", &self.count).field("current", &self.current).finish_non_exhaustive()
    }
}

impl<R: BufRead> Entries<R> {
    /// Reads a plain tar. What is compressed is read through [`Layer::entries`](crate::Layer::entries).
    pub fn new(tar: R, limits: Limits) -> Entries<R> {
        Entries { tape: Tape::new(tar).with_trailer(limits.trailer_bytes), limits, count: 0, current: None }
    }

    /// The same, where so many entries of other layers count as well.
    pub(crate) fn starting_at(self, count: u64) -> Entries<R> {
        Entries { count, ..self }
    }

    /// The next entry, or none after the last.
    ///
    /// # Errors
    ///
    /// * [`ErrorKind::InvalidLayer`](crate::ErrorKind::InvalidLayer): the bytes are no tar, or the entry is one that
    ///   must be refused.
    /// * [`ErrorKind::LimitExceeded`](crate::ErrorKind::LimitExceeded): there is too much of something.
    /// * Those of the reader.
    pub fn next_entry(&mut self) -> Result<Option<Entry<'_>>> {
        self.advance()?;
        Ok(self.current())
    }

    /// Goes to the next entry; false after the last.
    pub(crate) fn advance(&mut self) -> Result<bool> {
        self.current = match self.next_named()? {
            None => None,
            Some(named) => {
                let content = Content::new(&named.raw);
                Some((named, content))
            }
        };
        Ok(self.current.is_some())
    }

    /// The entry at hand.
    pub(crate) fn current(&mut self) -> Option<Entry<'_>> {
        let (header, content) = self.current.as_mut()?;
        Some(Entry { header, content, stored: &mut self.tape })
    }

    /// The next entry that means anything, whose content is left to the tape.
    pub(crate) fn next_named(&mut self) -> Result<Option<Named>> {
        loop {
            let number = self.count + 1;
            let Some(raw) = self.tape.next_entry().map_err(|error| at_entry(error, number))? else { return Ok(None) };
            self.count = number;
            let (purpose, path) = self.check(&raw).map_err(|error| at_path(error, &raw.path))?;
            if purpose != Purpose::Metadata {
                return Ok(Some(Named { raw, purpose, path }));
            }
        }
    }

    /// How many entries there were so far.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    pub(crate) fn tape(&mut self) -> &mut Tape<R> {
        &mut self.tape
    }

    fn check(&self, raw: &RawEntry) -> Result<(Purpose, Vec<u8>)> {
        self.limits.check(Limit::Entries, self.count)?;
        self.limits.check(Limit::FileSize, raw.size)?;
        self.limits.check(Limit::PathLength, raw.link.len() as u64)?;
        purpose(&raw.path, self.limits.path_bytes)
    }
}

fn at_entry(error: Error, number: u64) -> Error {
    match error.kind() {
        ErrorKind::InvalidLayer { .. } => error.context(format!("entry {number}")),
        _ => error,
    }
}

/// Names the entry at which something failed.
pub(crate) fn at_path(error: Error, path: &[u8]) -> Error {
    error.context(format!("entry {:?}", printable(&String::from_utf8_lossy(path), 200)))
}

/// A source of stored bytes.
trait Stored {
    fn stored(&mut self) -> Result<&[u8]>;
    fn consume(&mut self, count: usize);
}

impl fmt::Debug for dyn Stored + '_ {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Stored")
    }
}

impl<R: BufRead> Stored for Tape<R> {
    fn stored(&mut self) -> Result<&[u8]> {
        Tape::stored(self)
    }

    fn consume(&mut self, count: usize) {
        Tape::consume(self, count);
    }
}

/// How far the content of an entry was read: what is stored, and zeros between.
#[derive(Debug)]
struct Content {
    at: u64,
    size: u64,
    /// The pieces to come, last first.
    segments: Vec<Segment>,
}

impl Content {
    fn new(raw: &RawEntry) -> Content {
        let mut segments = segments(raw.sparse.as_ref(), raw.size);
        segments.reverse();
        Content { at: 0, size: raw.size, segments }
    }

    fn read(&mut self, stored: &mut dyn Stored, buffer: &mut [u8]) -> io::Result<usize> {
        let room = |left: u64| usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
        let hole_end = self.segments.last().map_or(self.size, |segment| segment.offset);
        if buffer.is_empty() || self.at == self.size {
            return Ok(0);
        }
        if self.at < hole_end {
            let count = room(hole_end - self.at);
            buffer[..count].fill(0);
            self.at += count as u64;
            return Ok(count);
        }
        let Some(segment) = self.segments.last_mut() else { return Ok(0) };
        let most = room(segment.length);
        let bytes = stored.stored()?;
        let count = bytes.len().min(most);
        buffer[..count].copy_from_slice(&bytes[..count]);
        stored.consume(count);
        self.at += count as u64;
        segment.offset += count as u64;
        segment.length -= count as u64;
        if segment.length == 0 {
            self.segments.pop();
        }
        Ok(count)
    }
}

/// The stored pieces of a file.
pub(crate) fn segments(sparse: Option<&Sparse>, size: u64) -> Vec<Segment> {
    match sparse {
        Some(sparse) => sparse.segments.clone(),
        None if size == 0 => Vec::new(),
        None => vec![Segment { offset: 0, length: size }],
    }
}
