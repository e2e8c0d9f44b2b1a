//! What changed between two trees.

use std::cmp::Ordering;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::path::PathBuf;

use crate::changeset::report::Skipped;
use crate::error::Result;
use crate::memory::MemoryBudget;
use crate::memory::MemoryReservation;
use crate::memory::allocated;

/// What became of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ChangeKind {
    /// It was not there.
    Added,
    /// It was there and is another thing, or has other content or attributes.
    Modified,
    /// It is no longer there, with all that was in it.
    Deleted,
}

/// One path that changed.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Change {
    /// From the root, without `.` and `..`.
    pub path: PathBuf,
    /// What became of it.
    pub kind: ChangeKind,
    /// Whether it is a directory, or was one if it is deleted.
    pub is_directory: bool,
    /// How many bytes of content it has, or had if it is deleted; of all but regular files, 0.
    pub size: u64,
    /// Whether all that the directory had before is gone, whatever it was. [`diff`](super::diff) lists what is gone
    /// instead, as the specification recommends.
    pub is_opaque: bool,
}

impl Change {
    /// A change of which nothing more is known, to be packed. Packing looks at the tree itself.
    pub fn new(path: impl Into<PathBuf>, kind: ChangeKind) -> Change {
        Change { path: path.into(), kind, is_directory: false, size: 0, is_opaque: false }
    }

    /// The bytes of memory that it takes in a list, which is sorted in the end.
    pub(super) fn bytes(&self) -> usize {
        size_of::<Change>() * 3 / 2 + allocated(self.path.as_os_str().len())
    }

    /// The same of a directory that hides all that lower layers have in it.
    #[must_use = "the change is returned"]
    pub fn opaque(self) -> Change {
        Change { is_directory: true, is_opaque: true, ..self }
    }
}

/// What changed between two trees: each path once, a directory before what is in it, names in the order of their
/// bytes. Of a directory that is gone there is one entry. Directories are listed for their own sake only: their
/// sizes and times are no changes.
///
/// ```
/// use layercake::changeset::{Change, ChangeKind, Changes};
///
/// let changes: Changes = [("etc/motd", ChangeKind::Modified), ("etc", ChangeKind::Added), ("etc-old", ChangeKind::Deleted)]
///     .into_iter()
///     .map(|(path, kind)| Change::new(path, kind))
///     .collect();
/// let paths: Vec<_> = changes.iter().map(|change| change.path.to_str().unwrap()).collect();
/// assert_eq!(paths, ["etc", "etc/motd", "etc-old"]);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    list: Vec<Change>,
    skipped: Vec<Skipped>,
}

impl Changes {
    /// Puts them in order.
    fn new(mut list: Vec<Change>, skipped: Vec<Skipped>) -> Changes {
        list.sort_by(|a, b| order(&a.path, &b.path));
        Changes { list, skipped }
    }

    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// How many paths changed.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// In order.
    pub fn iter(&self) -> std::slice::Iter<'_, Change> {
        self.list.iter()
    }

    /// Entries of the new tree that no layer can have: sockets and mount points.
    pub fn skipped(&self) -> &[Skipped] {
        &self.skipped
    }

    /// In the order of a layer: what is removed from a directory stands before what is added to it (L8).
    pub(super) fn packed(&self) -> Vec<&Change> {
        let mut list: Vec<&Change> = self.iter().collect();
        list.sort_by(|a, b| steps(a).cmp(steps(b)));
        list
    }
}

/// A list of changes that grows, within a budget of memory.
#[derive(Debug)]
pub(crate) struct ChangeList {
    list: Vec<Change>,
    skipped: Vec<Skipped>,
    memory: MemoryReservation,
}

impl ChangeList {
    pub(crate) fn new(budget: &MemoryBudget) -> ChangeList {
        ChangeList { list: Vec::new(), skipped: Vec::new(), memory: budget.reservation() }
    }

    pub(crate) fn push(&mut self, change: Change) -> Result<()> {
        self.memory.grow(change.bytes())?;
        self.list.push(change);
        Ok(())
    }

    /// Adds something of the new tree that no layer can have.
    pub(crate) fn skip(&mut self, skipped: Skipped) -> Result<()> {
        self.memory.grow(usize::try_from(skipped.bytes()).unwrap_or(usize::MAX))?;
        self.skipped.push(skipped);
        Ok(())
    }

    /// The changes in order.
    pub(crate) fn into_changes(self) -> Changes {
        Changes::new(self.list, self.skipped)
    }
}

impl FromIterator<Change> for Changes {
    /// Of several changes of one path the last one counts.
    fn from_iter<I: IntoIterator<Item = Change>>(changes: I) -> Changes {
        let mut list: Vec<Change> = changes.into_iter().collect();
        list.reverse();
        let mut changes = Changes::new(list, Vec::new());
        changes.list.dedup_by(|later, earlier| later.path == earlier.path);
        changes
    }
}

impl<'a> IntoIterator for &'a Changes {
    type Item = &'a Change;
    type IntoIter = std::slice::Iter<'a, Change>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// C1: depth first, as if `/` were the lowest of all bytes.
fn order(a: &Path, b: &Path) -> Ordering {
    components(a.as_os_str()).cmp(components(b.as_os_str()))
}

fn components(path: &OsStr) -> impl Iterator<Item = &[u8]> {
    path.as_bytes().split(|byte| *byte == b'/')
}

/// The path's components, with whether each is no removal.
fn steps(change: &Change) -> impl Iterator<Item = (bool, &[u8])> {
    let mut components = components(change.path.as_os_str()).peekable();
    std::iter::from_fn(move || {
        let component = components.next()?;
        let is_removal = change.kind == ChangeKind::Deleted && components.peek().is_none();
        Some((!is_removal, component))
    })
}
