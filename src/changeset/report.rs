//! What became of it.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use crate::changeset::Options;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Limit;
use crate::error::Result;
use crate::error::printable;

/// A list of more would be no list any more, and takes memory.
const MAX_REPORTED: u64 = 100_000;
/// So much memory the list may take, names and all: 335 bytes for each of so many things.
const MAX_REPORTED_BYTES: u64 = 32 << 20;
/// The most characters of an attribute's name. No file system has longer names (`XATTR_NAME_MAX`), but layers do: a MiB.
const MAX_NAME: usize = 255;

/// What was done.
#[non_exhaustive]
#[must_use = "it lists what could not be applied"]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unpacked {
    /// How many entries the layers had, whiteouts among them.
    pub entries: u64,
    /// How many bytes of content were written.
    pub bytes: u64,
    /// What could not be applied, and why. All else is exactly as the layers say.
    pub skipped: Vec<Skipped>,
    /// What came twice in one layer: paths from the root, once for each time too many. The last one counts.
    pub duplicates: Vec<PathBuf>,
    /// Programs that run with other rights than their caller's, and devices, which other users of the machine can reach
    /// in the tree: the first 1,000 of them. Empty if the directory that holds the tree, or one above it, is closed to
    /// other users, or the tree's root is; and with [`Layout::Overlay`](crate::changeset::Layout::Overlay), whose
    /// directory is closed. How the file system is mounted (`nosuid`, `nodev`) is not considered.
    ///
    /// To keep other users away, unpack below a directory of mode 0700, or leave these parts out with
    /// [`Options::setuid`] and [`Options::devices`].
    pub exposed: Vec<Exposed>,
    /// Whether there are more of them than are listed.
    pub has_more_exposed: bool,
}

/// A file in an unpacked tree that gives other users of the machine rights that they do not have.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Exposed {
    /// The path from the root, without links.
    pub path: PathBuf,
    /// The right that it gives.
    pub kind: ExposedKind,
}

/// The right that a file gives to other users who can reach it.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ExposedKind {
    /// A program that runs as its owner or its group: a setuid or setgid bit.
    SetId,
    /// A program with capabilities: the attribute `security.capability`.
    Capabilities,
    /// A character or block device.
    Device,
}

impl fmt::Display for Exposed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = printable(&self.path.to_string_lossy(), 4096);
        match self.kind {
            ExposedKind::SetId => write!(f, "{path}: setuid or setgid program that other users can reach"),
            ExposedKind::Capabilities => write!(f, "{path}: program with capabilities that other users can reach"),
            ExposedKind::Device => write!(f, "{path}: device that other users can reach"),
        }
    }
}

/// Something that could not be applied.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Skipped {
    /// The entry's path from the root.
    pub path: PathBuf,
    /// What of it.
    pub what: SkippedPart,
    /// Why.
    pub reason: String,
}

/// What of an entry was left out.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SkippedPart {
    /// All of it: a device that may not be made, or a link to one; of a tree that is read, a socket or a mount point.
    Entry,
    /// An extended attribute: its name; the beginning of it if it is longer than any can be, 255 bytes.
    Xattr(String),
    /// The time of change, which the file system cannot hold.
    Modified,
    /// A record of the tar's extended header: its key.
    Record(String),
    /// The setuid and setgid bits of a file, which [`Options::setuid`] leaves out.
    SetId,
    /// The capabilities of a file, which [`Options::setuid`] leaves out.
    Capabilities,
    /// A device, or a link to one, which [`Options::devices`] leaves out.
    Device,
}

impl SkippedPart {
    /// Whether it was left out because the options say so.
    fn is_requested(&self) -> bool {
        matches!(self, SkippedPart::SetId | SkippedPart::Capabilities | SkippedPart::Device)
    }
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = printable(&self.path.to_string_lossy(), 4096);
        match &self.what {
            SkippedPart::Entry | SkippedPart::Device => write!(f, "{path}: {}", self.reason),
            SkippedPart::SetId => write!(f, "{path}: setuid and setgid bits: {}", self.reason),
            SkippedPart::Capabilities => write!(f, "{path}: capabilities: {}", self.reason),
            SkippedPart::Xattr(name) => {
                write!(f, "{path}: attribute {}: {}", printable(name, MAX_NAME + 1), self.reason)
            }
            SkippedPart::Modified => write!(f, "{path}: time of change: {}", self.reason),
            SkippedPart::Record(key) => write!(f, "{path}: record {key}: {}", self.reason),
        }
    }
}

/// What was done so far, and how much there is to say of it.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) done: Unpacked,
    /// The memory that the lists take.
    bytes: u64,
}

impl Report {
    pub(crate) fn skip(&mut self, path: &[u8], what: SkippedPart, reason: impl fmt::Display) -> Result<()> {
        let skipped = Skipped { path: to_path(path), what, reason: reason.to_string() };
        let bytes = skipped.bytes();
        self.done.skipped.push(skipped);
        self.keep(bytes)
    }

    pub(crate) fn duplicate(&mut self, path: &[u8]) -> Result<()> {
        self.done.duplicates.push(to_path(path));
        self.keep((size_of::<PathBuf>() + path.len()) as u64)
    }

    /// Counts so many bytes that are kept for as long as this is. Fails if there is too much by now.
    pub(crate) fn keep(&mut self, bytes: u64) -> Result<()> {
        self.bytes = self.bytes.saturating_add(bytes);
        if (self.done.skipped.len() + self.done.duplicates.len()) as u64 > MAX_REPORTED {
            return Err(Error::limit(Limit::Reported, MAX_REPORTED));
        }
        check_bytes(self.bytes)
    }
}

/// Fails if lists take more memory than they may.
pub(crate) fn check_bytes(bytes: u64) -> Result<()> {
    if bytes > MAX_REPORTED_BYTES { Err(Error::limit(Limit::ReportedBytes, MAX_REPORTED_BYTES)) } else { Ok(()) }
}

impl Skipped {
    /// Reports a mount point, which is not part of the tree.
    pub(crate) fn mount_point(path: &[u8]) -> Skipped {
        let reason = "something is mounted on it, which is not part of the tree".to_owned();
        Skipped { path: to_path(path), what: SkippedPart::Entry, reason }
    }

    /// The memory that it takes.
    pub(crate) fn bytes(&self) -> u64 {
        let name = match &self.what {
            SkippedPart::Xattr(name) | SkippedPart::Record(name) => name.len(),
            _ => 0,
        };
        (size_of::<Skipped>() + self.path.as_os_str().len() + name + self.reason.len()) as u64
    }
}

impl SkippedPart {
    /// An attribute, whatever a layer calls it.
    pub(super) fn xattr(name: &[u8]) -> SkippedPart {
        let shown = String::from_utf8_lossy(&name[..name.len().min(MAX_NAME)]);
        SkippedPart::Xattr(if name.len() > MAX_NAME { format!("{shown}…") } else { shown.into_owned() })
    }
}

impl Unpacked {
    /// Fails if the options are strict and anything is reported.
    pub(crate) fn check(&self, options: &Options<'_>) -> Result<()> {
        if !options.strict {
            return Ok(());
        }
        let skipped = self.skipped.iter().filter(|skipped| !skipped.what.is_requested()).map(Skipped::to_string);
        let twice = |path: &PathBuf| format!("{}: comes twice in one layer", printable(&path.to_string_lossy(), 4096));
        let what: Vec<String> = skipped.chain(self.duplicates.iter().map(twice)).collect();
        if what.is_empty() { Ok(()) } else { Err(ErrorKind::NotApplied { what }.into()) }
    }
}

pub(crate) fn to_path(path: &[u8]) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(path))
}
