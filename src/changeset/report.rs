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
    /// An extended attribute: its name.
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
            SkippedPart::Xattr(name) => write!(f, "{path}: attribute {name}: {}", self.reason),
            SkippedPart::Modified => write!(f, "{path}: time of change: {}", self.reason),
            SkippedPart::Record(key) => write!(f, "{path}: record {key}: {}", self.reason),
        }
    }
}

impl Unpacked {
    pub(crate) fn skip(&mut self, path: &[u8], what: SkippedPart, reason: impl fmt::Display) -> Result<()> {
        self.skipped.push(Skipped { path: to_path(path), what, reason: reason.to_string() });
        self.check_length()
    }

    pub(crate) fn duplicate(&mut self, path: &[u8]) -> Result<()> {
        self.duplicates.push(to_path(path));
        self.check_length()
    }

    fn check_length(&self) -> Result<()> {
        if (self.skipped.len() + self.duplicates.len()) as u64 > MAX_REPORTED {
            return Err(Error::limit(Limit::Reported, MAX_REPORTED));
        }
        Ok(())
    }

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
