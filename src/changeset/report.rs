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
    /// All of it: a device that may not be made, or a link to one.
    Entry,
    /// An extended attribute: its name; the beginning of it if it is longer than any can be, 255 bytes.
    Xattr(String),
    /// The time of change, which the file system cannot hold.
    Modified,
    /// A record of the tar's extended header: its key.
    Record(String),
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = printable(&self.path.to_string_lossy(), 4096);
        match &self.what {
            SkippedPart::Entry => write!(f, "{path}: {}", self.reason),
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
    /// The memory that it takes.
    pub(crate) fn bytes(&self) -> u64 {
        let name = match &self.what {
            SkippedPart::Entry | SkippedPart::Modified => 0,
            SkippedPart::Xattr(name) | SkippedPart::Record(name) => name.len(),
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
        if !options.strict || self.skipped.is_empty() && self.duplicates.is_empty() {
            return Ok(());
        }
        let skipped = self.skipped.iter().map(Skipped::to_string);
        let twice = |path: &PathBuf| format!("{}: comes twice in one layer", printable(&path.to_string_lossy(), 4096));
        Err(ErrorKind::NotApplied { what: skipped.chain(self.duplicates.iter().map(twice)).collect() }.into())
    }
}

pub(crate) fn to_path(path: &[u8]) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(path))
}
