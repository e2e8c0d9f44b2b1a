//! Both trees, walked together.

use std::iter::Peekable;
use std::path::Path;
use std::vec::IntoIter;

use rustix::fs::FileType;
use rustix::fs::Stat;

use super::DiffOptions;
use super::compare::Pair;
use super::links::Links;
use crate::changeset::changes::Change;
use crate::changeset::changes::ChangeKind;
use crate::changeset::changes::Changes;
use crate::changeset::report::Skipped;
use crate::changeset::report::SkippedPart;
use crate::changeset::report::to_path;
use crate::changeset::whiteout::check_stored;
use crate::error::Result;
use crate::fs::descent::Descent;

/// A name, and what has it in each of the trees.
struct Row {
    name: Vec<u8>,
    old: Option<Stat>,
    new: Option<Stat>,
}

/// A directory of the new tree.
struct Level {
    rows: IntoIter<Row>,
    /// Whether the old tree has one at this path.
    is_in_both: bool,
}

pub(super) struct Walk<'a> {
    options: &'a DiffOptions,
    old: Descent,
    new: Descent,
    links: Links,
    found: Vec<Change>,
    skipped: Vec<Skipped>,
}

impl Walk<'_> {
    pub(super) fn new<'a>(old: &Path, new: &Path, options: &'a DiffOptions) -> Result<Walk<'a>> {
        let (old, new) = (Descent::at(old)?, Descent::at(new)?);
        Ok(Walk { options, old, new, links: Links::default(), found: Vec::new(), skipped: Vec::new() })
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
            levels.pop();
        }
        self.found.extend(self.links.torn());
        Ok(Changes::new(self.found, self.skipped))
    }

    /// What is in the directory at hand.
    fn level(&mut self, is_in_both: bool) -> Result<Level> {
        let old = if is_in_both { listed(&self.old)?.0 } else { Vec::new() };
        let (new, sockets) = listed(&self.new)?;
        for name in sockets {
            let path = to_path(&self.new.join(&name));
            self.skipped.push(Skipped { path, what: SkippedPart::Entry, reason: "sockets are not stored".to_owned() });
        }
        Ok(Level { rows: merged(old, new).into_iter(), is_in_both })
    }

    /// Looks at what has a name. If it is a directory, it is entered.
    fn row(&mut self, row: &Row) -> Result<Option<Level>> {
        let is_directory = |stat: &Stat| FileType::from_raw_mode(stat.st_mode).is_dir();
        match (&row.old, &row.new) {
            (Some(old), None) => self.note(&row.name, ChangeKind::Deleted, old),
            (None, Some(new)) => self.added(&row.name, new),
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
        self.level(is_in_both).map(Some)
    }

    fn added(&mut self, name: &[u8], new: &Stat) {
        self.note(name, ChangeKind::Added, new);
        self.links.changed(new);
    }

    fn compare(&mut self, name: &[u8], old: &Stat, new: &Stat) -> Result<()> {
        let pair = Pair { name, old: (&self.old, old), new: (&self.new, new) };
        if pair.differs(self.options.content)? {
            self.note(name, ChangeKind::Modified, new);
            self.links.changed(new);
        } else {
            self.links.unchanged(old, new, || change(self.new.join(name), ChangeKind::Modified, new));
        }
        Ok(())
    }

    fn note(&mut self, name: &[u8], kind: ChangeKind, stat: &Stat) {
        self.found.push(change(self.new.join(name), kind, stat));
    }
}

fn change(path: Vec<u8>, kind: ChangeKind, stat: &Stat) -> Change {
    let file_type = FileType::from_raw_mode(stat.st_mode);
    let size = if file_type.is_file() { u64::try_from(stat.st_size).unwrap_or(0) } else { 0 };
    Change { is_directory: file_type.is_dir(), size, ..Change::new(to_path(&path), kind) }
}

type Listed = Vec<(Vec<u8>, Stat)>;

/// What is in a directory and can be in a layer, and the names of sockets, which cannot.
fn listed(descent: &Descent) -> Result<(Listed, Vec<Vec<u8>>)> {
    let mut sockets = Vec::new();
    let mut found = descent.list()?;
    for (name, _) in &found {
        check_stored(&descent.join(name))?;
    }
    found.retain(|(name, stat)| {
        let is_socket = FileType::from_raw_mode(stat.st_mode).is_socket();
        if is_socket {
            sockets.push(name.clone());
        }
        !is_socket
    });
    Ok((found, sockets))
}

/// Two sorted lists as one.
fn merged(old: Listed, new: Listed) -> Vec<Row> {
    let (mut old, mut new) = (old.into_iter().peekable(), new.into_iter().peekable());
    let mut rows = Vec::with_capacity(old.len().max(new.len()));
    while let Some(name) = lowest(&mut old, &mut new) {
        let old = old.next_if(|(found, _)| *found == name).map(|(_, stat)| stat);
        let new = new.next_if(|(found, _)| *found == name).map(|(_, stat)| stat);
        rows.push(Row { name, old, new });
    }
    rows
}

fn lowest(
    old: &mut Peekable<IntoIter<(Vec<u8>, Stat)>>,
    new: &mut Peekable<IntoIter<(Vec<u8>, Stat)>>,
) -> Option<Vec<u8>> {
    old.peek().into_iter().chain(new.peek()).map(|(name, _)| name).min().cloned()
}
