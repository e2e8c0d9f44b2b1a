//! The names as they were read last, for as long as the file is the same.
//!
//! Reading ten thousand names takes some milliseconds, and looking whether the file is still the one that was read takes
//! none. What was read is believed only if the file was left alone for a while before: one that was changed within a tick
//! of its clock may be changed again within the same one.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use rustix::fs::Stat;

use super::age;
use super::index::INDEX;

use crate::error::Result;
use crate::fs::dir::Dir;
use crate::sync::lock;

/// Longer than the ticks of any file system's clock.
const SETTLED: Duration = Duration::from_secs(3);

#[derive(Debug, Default)]
pub(super) struct Lookups {
    last: Mutex<Option<Arc<Known>>>,
}

/// What was read of one version of the file.
#[derive(Debug)]
pub(super) struct Known {
    version: Version,
    text: String,
    /// Where in the text the root of each name stands.
    roots: HashMap<String, Range<usize>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Version {
    inode: (u64, u64),
    size: i64,
    modified: (i64, u64),
    changed: (i64, u64),
}

impl Version {
    fn of(stat: &Stat) -> Version {
        Version {
            inode: (stat.st_dev, stat.st_ino),
            size: stat.st_size,
            modified: (stat.st_mtime, stat.st_mtime_nsec),
            changed: (stat.st_ctime, stat.st_ctime_nsec),
        }
    }
}

impl Lookups {
    /// What was read, if the file is still the same.
    pub(super) fn current(&self, dir: &Dir) -> Result<Option<Arc<Known>>> {
        let last = lock(&self.last).clone();
        let Some(known) = last else { return Ok(None) };
        let is_same = dir.stat(INDEX)?.is_some_and(|stat| Version::of(&stat) == known.version);
        Ok(is_same.then_some(known))
    }

    /// Keeps what was read of a file that was this before, if it is this still.
    pub(super) fn keep(
        &self,
        dir: &Dir,
        before: &Stat,
        text: String,
        roots: HashMap<String, Range<usize>>,
    ) -> Result<()> {
        let version = Version::of(before);
        if dir.stat(INDEX)?.is_some_and(|stat| Version::of(&stat) == version) {
            *lock(&self.last) = Some(Arc::new(Known { version, text, roots }));
        }
        Ok(())
    }
}

/// Whether a file was left alone for a while, by the time that nobody can set.
pub(super) fn is_settled(stat: &Stat) -> bool {
    let changed = u64::try_from(stat.st_ctime).ok().and_then(|at| UNIX_EPOCH.checked_add(Duration::from_secs(at)));
    changed.and_then(|changed| age(changed, SystemTime::now())).is_some_and(|age| age > SETTLED)
}

impl Known {
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// The entry of a name, as it stands in the file.
    pub(super) fn find(&self, name: &str) -> Option<&str> {
        self.roots.get(name).and_then(|place| self.text.get(place.clone()))
    }
}
