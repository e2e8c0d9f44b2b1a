//! Both trees, walked together.

use std::collections::BTreeSet;
use std::iter::Peekable;
use std::vec::IntoIter;

use rustix::fs::FileType;
use rustix::fs::Stat;

use super::DiffOptions;
use super::compare::Pair;
use super::links::Links;
use super::tree::Listing;
use super::tree::Tree;
use crate::changeset::changes::Change;
use crate::changeset::changes::ChangeKind;
use crate::changeset::changes::ChangeList;
use crate::changeset::changes::Changes;
use crate::changeset::report::Skipped;
use crate::changeset::report::SkippedPart;
use crate::changeset::report::to_path;
use crate::changeset::whiteout::check_stored;
use crate::changeset::whiteout::join;
use crate::changeset::whiteout::split;
use crate::error::Result;
use crate::fs::descent::listing_bytes;
use crate::memory::MemoryBudget;
use crate::memory::MemoryReservation;

/// A name, and what has it in each of the trees.
struct Row {
    name: Vec<u8>,
    old: Option<Stat>,
    new: Option<Stat>,
}

/// A directory of the new tree.
struct Level {
    rows: Box<dyn Iterator<Item = Row>>,
    /// The memory of the rows.
    _memory: MemoryReservation,
    /// Whether the old tree has one at this path.
    is_in_both: bool,
}

pub(super) struct Walk<'a, O, N> {
    options: &'a DiffOptions,
    /// Whether what has this path in the new tree is known to be what it was.
    known: &'a dyn Fn(&[u8], &Stat) -> bool,
    old: O,
    new: N,
    /// The path of the directory at hand.
    path: Vec<u8>,
    links: Links,
    found: ChangeList,
    memory: MemoryBudget,
    /// The mount points in the new tree. What lies below is not compared, and the mount point counts as unchanged.
    mounts: BTreeSet<Vec<u8>>,
}

impl<'a, O: Tree, N: Tree> Walk<'a, O, N> {
    pub(super) fn new(
        old: O,
        new: N,
        options: &'a DiffOptions,
        known: &'a dyn Fn(&[u8], &Stat) -> bool,
    ) -> Walk<'a, O, N> {
        let memory = options.limits.memory();
        let (links, found) = (Links::new(&memory), ChangeList::new(&memory));
        Walk { options, known, old, new, path: Vec::new(), links, found, memory, mounts: BTreeSet::new() }
    }

    /// Stops at these mount points, and reports them.
    pub(super) fn stopping_at(mut self, mounts: BTreeSet<Vec<u8>>) -> Result<Self> {
        mounts.iter().try_for_each(|path| self.found.skip(Skipped::mount_point(path)))?;
        Ok(Walk { mounts, ..self })
    }

    pub(super) fn run(mut self) -> Result<Changes> {
        let mut levels = vec![self.level(true)?];
        while let Some(level) = levels.last_mut() {
            if let Some(row) = level.rows.next() {
                self.options.cancel.check()?;
                levels.extend(self.row(&row)?);
                continue;
            }
            if level.is_in_both {
                self.old.leave()?;
            }
            self.new.leave()?;
            let above = split(&self.path).0.len();
            self.path.truncate(above);
            levels.pop();
        }
        self.links.torn().try_for_each(|change| self.found.push(change))?;
        Ok(self.found.into_changes())
    }

    /// What is in the directory at hand.
    fn level(&mut self, is_in_both: bool) -> Result<Level> {
        let mut new = self.new.listing()?;
        let mut memory = self.memory.reservation();
        memory.grow(listing_bytes(&new.entries))?;
        self.take_sockets(&mut new.entries)?;
        let rows: Box<dyn Iterator<Item = Row>> = match (is_in_both, new.is_whole) {
            (false, _) => Box::new(merged(Vec::new(), new.entries)),
            (true, true) => {
                let mut old = self.old.listing()?.entries;
                memory.grow(listing_bytes(&old))?;
                old.iter().try_for_each(|(name, _)| check_stored(&join(&self.path, name)))?;
                old.retain(|(_, stat)| !is_socket(stat));
                Box::new(merged(old, new.entries))
            }
            (true, false) => {
                let rows = self.beside(new)?;
                memory.grow(rows.len() * size_of::<Row>())?;
                Box::new(rows.into_iter())
            }
        };
        Ok(Level { rows, is_in_both, _memory: memory })
    }

    /// What is listed of a directory of which not all is listed.
    fn beside(&self, new: Listing) -> Result<Vec<Row>> {
        let listed = new.entries.into_iter().map(|(name, stat)| (name, Some(stat)));
        let mut rows = Vec::new();
        for (name, new) in listed.chain(new.gone.into_iter().map(|name| (name, None))) {
            let old = self.old.look(&name)?.filter(|stat| !is_socket(stat));
            rows.push(Row { name, old, new });
        }
        Ok(rows)
    }

    /// Sockets cannot be in a layer, and names that are those of whiteouts must not.
    fn take_sockets(&mut self, listed: &mut Listed) -> Result<()> {
        for (name, stat) in listed.iter() {
            let path = join(&self.path, name);
            check_stored(&path)?;
            if is_socket(stat) {
                let reason = "sockets are not stored".to_owned();
                self.found.skip(Skipped { path: to_path(&path), what: SkippedPart::Entry, reason })?;
            }
        }
        listed.retain(|(_, stat)| !is_socket(stat));
        Ok(())
    }

    /// Looks at what has a name. If it is a directory, it is entered.
    fn row(&mut self, row: &Row) -> Result<Option<Level>> {
        let is_directory = |stat: &Stat| FileType::from_raw_mode(stat.st_mode).is_dir();
        if !self.mounts.is_empty() && self.mounts.contains(&join(&self.path, &row.name)) {
            return Ok(None);
        }
        match (&row.old, &row.new) {
            (Some(old), None) => self.note(&row.name, ChangeKind::Deleted, old)?,
            (None, Some(new)) => self.added(&row.name, new)?,
            (Some(old), Some(new)) => self.compare(&row.name, old, new)?,
            (None, None) => {}
        }
        if !row.new.as_ref().is_some_and(is_directory) {
            return Ok(None);
        }
        let is_in_both = row.old.as_ref().is_some_and(is_directory);
        if is_in_both {
            self.old.enter(&row.name)?;
        }
        self.new.enter(&row.name)?;
        self.path = join(&self.path, &row.name);
        self.level(is_in_both).map(Some)
    }

    fn added(&mut self, name: &[u8], new: &Stat) -> Result<()> {
        self.note(name, ChangeKind::Added, new)?;
        self.links.changed(new)
    }

    fn compare(&mut self, name: &[u8], old: &Stat, new: &Stat) -> Result<()> {
        let path = join(&self.path, name);
        if !(self.known)(&path, new) && self.differs(name, old, new)? {
            self.note(name, ChangeKind::Modified, new)?;
            self.links.changed(new)
        } else {
            self.links.unchanged(old, new, || change(path, ChangeKind::Modified, new))
        }
    }

    fn differs(&self, name: &[u8], old: &Stat, new: &Stat) -> Result<bool> {
        let pair = Pair { name, old: (self.old.place(name)?, old), new: (self.new.place(name)?, new) };
        pair.differs(self.options.content)
    }

    fn note(&mut self, name: &[u8], kind: ChangeKind, stat: &Stat) -> Result<()> {
        self.found.push(change(join(&self.path, name), kind, stat))
    }
}

fn change(path: Vec<u8>, kind: ChangeKind, stat: &Stat) -> Change {
    let file_type = FileType::from_raw_mode(stat.st_mode);
    let size = if file_type.is_file() { u64::try_from(stat.st_size).unwrap_or(0) } else { 0 };
    Change { is_directory: file_type.is_dir(), size, ..Change::new(to_path(&path), kind) }
}

type Listed = Vec<(Vec<u8>, Stat)>;

fn is_socket(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode).is_socket()
}

/// Two sorted lists as one.
fn merged(old: Listed, new: Listed) -> impl Iterator<Item = Row> {
    let (mut old, mut new) = (old.into_iter().peekable(), new.into_iter().peekable());
    std::iter::from_fn(move || {
        let name = lowest(&mut old, &mut new)?;
        let old = old.next_if(|(found, _)| *found == name).map(|(_, stat)| stat);
        let new = new.next_if(|(found, _)| *found == name).map(|(_, stat)| stat);
        Some(Row { name, old, new })
    })
}

fn lowest(
    old: &mut Peekable<IntoIter<(Vec<u8>, Stat)>>,
    new: &mut Peekable<IntoIter<(Vec<u8>, Stat)>>,
) -> Option<Vec<u8>> {
    old.peek().into_iter().chain(new.peek()).map(|(name, _)| name).min().cloned()
}
