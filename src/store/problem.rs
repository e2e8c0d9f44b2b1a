//! What can be wrong with a store, and how it is looked for.

use std::fmt;
use std::num::NonZeroUsize;

use super::names::Name;

use crate::digest::Digest;
use crate::error::printable;
use crate::event::Cancel;
use crate::event::Observer;
use crate::event::Silent;

/// How [`Store::check_with`](super::Store::check_with) goes about it.
#[derive(Clone)]
#[must_use = "nothing is checked before `Store::check_with`"]
pub struct CheckOptions<'a> {
    pub(super) observer: &'a dyn Observer,
    pub(super) cancel: Cancel,
    threads: Option<NonZeroUsize>,
}

impl<'a> CheckOptions<'a> {
    /// The defaults: all processors, and nobody is told.
    pub fn new() -> CheckOptions<'a> {
        CheckOptions { observer: &Silent, cancel: Cancel::new(), threads: None }
    }

    /// Whom to tell of [`Event::Checking`](crate::Event::Checking).
    pub fn observer(self, observer: &'a dyn Observer) -> CheckOptions<'a> {
        CheckOptions { observer, ..self }
    }

    /// A switch that ends the work.
    pub fn cancel(self, cancel: &Cancel) -> CheckOptions<'a> {
        CheckOptions { cancel: cancel.clone(), ..self }
    }

    /// How many blobs are read at once: as many as there are processors by default, at least 1.
    pub fn threads(self, threads: usize) -> CheckOptions<'a> {
        CheckOptions { threads: NonZeroUsize::new(threads).or(Some(NonZeroUsize::MIN)), ..self }
    }

    pub(super) fn thread_count(&self) -> NonZeroUsize {
        self.threads.unwrap_or_else(|| std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN))
    }
}

impl Default for CheckOptions<'_> {
    fn default() -> Self {
        CheckOptions::new()
    }
}

impl fmt::Debug for CheckOptions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CheckOptions").field("threads", &self.threads).finish_non_exhaustive()
    }
}

/// What a check found.
#[non_exhaustive]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// What is wrong, each thing once.
    pub problems: Vec<Problem>,
    /// How many blobs were read.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Number of unpacked layers whose content was not compared with their diff ids. They were verified when they were
    /// unpacked; [`UnpackedPolicy::Unused`](super::UnpackedPolicy::Unused) removes them, to be unpacked again.
    pub unverified: u64,
    /// Why the private state (`layercake`) is not used, if it is there and is not: it came from elsewhere, or another user
    /// owns it or may write to it.
    pub ignored: Option<String>,
}

impl Checked {
    /// Whether nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.problems.is_empty()
    }
}

/// One thing that is wrong with a store. Its text says so in a line.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// A blob's content is not what its name says.
    Corrupt {
        /// The name.
        digest: Digest,
        /// The digest of what is there.
        found: Digest,
    },
    /// The same, and it is longer or shorter than what leads to it says.
    WrongSize {
        /// The name.
        digest: Digest,
        /// The size that was promised.
        expected: u64,
        /// The size of what is there.
        found: u64,
    },
    /// A blob has the content of another one that belongs in this store.
    Misnamed {
        /// The name.
        digest: Digest,
        /// The name that it should have.
        found: Digest,
    },
    /// A blob is not there that an image needs which has a name.
    Missing {
        /// The blob.
        digest: Digest,
        /// The name.
        name: Name,
    },
    /// A name leads to nothing.
    Dangling {
        /// The name.
        name: Name,
        /// What is not there.
        digest: Digest,
    },
    /// A blob is what its name says, and not what leads to it says.
    Invalid {
        /// The blob.
        digest: Digest,
        /// What is wrong.
        reason: String,
    },
    /// Something lies among the blobs that is none.
    Stray {
        /// Where, below the store.
        path: String,
    },
    /// Others may write to what nobody else should.
    Writable {
        /// What, below the store.
        path: String,
        /// Its permissions.
        mode: u32,
    },
    /// `index.json` cannot be read, so no name means anything.
    Names {
        /// Why.
        reason: String,
    },
    /// One entry of `index.json` cannot be read.
    Entry {
        /// Why.
        reason: String,
    },
    /// A record of ours cannot be read; until it is mended or removed, [`gc`](super::Store::gc) deletes nothing.
    Record {
        /// Where, and why.
        reason: String,
    },
    /// An unpacked layer has a record and is not there, or has the record of another.
    TreeMissing {
        /// Where, below the store.
        path: String,
    },
    /// An unpacked layer has no record: it is not whole, and nobody uses it.
    TreeUnrecorded {
        /// Where, below the store.
        path: String,
    },
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Problem::Corrupt { digest, found } => write!(f, "corrupt: {digest} has the content of {found}"),
            Problem::WrongSize { digest, expected, found } => {
                let how = if found < expected { "short" } else { "long" };
                write!(f, "{how}: {digest} has {found} bytes, expected {expected}")
            }
            Problem::Misnamed { digest, found } => write!(f, "misnamed: {digest} is {found}"),
            Problem::Missing { digest, name } => write!(f, "missing: {digest}, which {name} needs"),
            Problem::Dangling { name, digest } => write!(f, "dangling: {name} means {digest}, which is not there"),
            Problem::Invalid { digest, reason } => write!(f, "invalid: {digest}: {reason}"),
            Problem::Stray { path } => write!(f, "stray: {}", printable(path, 300)),
            Problem::Writable { path, mode } => write!(f, "writable for others: {} ({mode:04o})", printable(path, 300)),
            Problem::Names { reason } => write!(f, "names: {reason}"),
            Problem::Entry { reason } => write!(f, "entry: {reason}"),
            Problem::Record { reason } => write!(f, "record: {reason}"),
            Problem::TreeMissing { path } => write!(f, "unpacked layer without tree: {}", printable(path, 300)),
            Problem::TreeUnrecorded { path } => write!(f, "unpacked layer without record: {}", printable(path, 300)),
        }
    }
}
