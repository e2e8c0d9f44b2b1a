//! Files with several names (C4).
//!
//! An entry that replaces a name leaves the other names with the old file. So either all names of a file of the new
//! tree are listed, or none, and then they were the names of one file in the old tree, which no other file shares.

use std::collections::HashMap;

use rustix::fs::FileType;
use rustix::fs::Stat;

use crate::changeset::changes::Change;
use crate::fs::rooted::Inode;

/// A file of the new tree.
#[derive(Debug, Default)]
struct Group {
    /// Its names that did not change, by what listing them would say.
    unchanged: Vec<Change>,
    /// What they were names of.
    old: Option<Inode>,
    /// Whether they must be listed.
    is_torn: bool,
}

#[derive(Debug, Default)]
pub(super) struct Links {
    groups: HashMap<Inode, Group>,
    /// Of a file of the old tree, which of the new tree has names of it.
    heirs: HashMap<Inode, Inode>,
    /// Files of the old tree whose names are now several files'.
    split: Vec<Inode>,
}

impl Links {
    /// A name that is listed in any case.
    pub(super) fn changed(&mut self, new: &Stat) {
        if has_names(new) {
            self.groups.entry(Inode::of(new)).or_default().is_torn = true;
        }
    }

    /// A name that is listed only if its file's others are.
    pub(super) fn unchanged(&mut self, old: &Stat, new: &Stat, change: impl FnOnce() -> Change) {
        if !has_names(old) && !has_names(new) {
            return;
        }
        let (old, new) = (Inode::of(old), Inode::of(new));
        let group = self.groups.entry(new).or_default();
        group.unchanged.push(change());
        group.is_torn |= *group.old.get_or_insert(old) != old;
        if *self.heirs.entry(old).or_insert(new) != new {
            self.split.push(old);
        }
    }

    /// The unchanged names that must be listed all the same.
    pub(super) fn torn(self) -> impl Iterator<Item = Change> {
        let split: std::collections::HashSet<Inode> = self.split.into_iter().collect();
        let groups = self.groups.into_values();
        groups
            .filter(move |group| group.is_torn || group.old.is_some_and(|old| split.contains(&old)))
            .flat_map(|group| group.unchanged)
    }
}

/// Directories have links of their own: `.` and those of their children.
fn has_names(stat: &Stat) -> bool {
    stat.st_nlink > 1 && !FileType::from_raw_mode(stat.st_mode).is_dir()
}
