//! Files with several names (C4).
//!
//! An entry that replaces a name leaves the other names with the old file. So either all names of a file of the new
//! tree are listed, or none, and then they were the names of one file in the old tree, which no other file shares.

use std::collections::HashMap;
use std::collections::HashSet;
use std::collections::hash_map::Entry;
use std::hash::Hash;

use rustix::fs::FileType;
use rustix::fs::Stat;

use crate::changeset::changes::Change;
use crate::error::Result;
use crate::fs::rooted::Inode;
use crate::memory::MemoryBudget;
use crate::memory::MemoryReservation;

/// A thing in a tree, which may have several names there.
pub(crate) trait Linked {
    /// What tells it from all others of its tree.
    type Id: Copy + Eq + Hash;

    fn id(&self) -> Self::Id;

    /// Whether it is one of those that may have several names, and has.
    fn has_names(&self) -> bool;
}

impl Linked for Stat {
    type Id = Inode;

    fn id(&self) -> Inode {
        Inode::of(self)
    }

    /// Directories have links of their own: `.` and those of their children.
    fn has_names(&self) -> bool {
        self.st_nlink > 1 && !FileType::from_raw_mode(self.st_mode).is_dir()
    }
}

/// A file of the new tree.
#[derive(Debug)]
struct Group<I> {
    /// Its names that did not change, by what listing them would say.
    unchanged: Vec<Change>,
    /// What they were names of.
    old: Option<I>,
    /// Whether they must be listed.
    is_torn: bool,
}

impl<I> Default for Group<I> {
    fn default() -> Group<I> {
        Group { unchanged: Vec::new(), old: None, is_torn: false }
    }
}

#[derive(Debug)]
pub(crate) struct Links<I = Inode> {
    groups: HashMap<I, Group<I>>,
    /// Of a file of the old tree, which of the new tree has names of it.
    heirs: HashMap<I, I>,
    /// Files of the old tree whose names are now several files'.
    split: HashSet<I>,
    memory: MemoryReservation,
}

impl<I: Copy + Eq + Hash> Links<I> {
    /// The bytes of a group in its map and of the file that it comes from in the others; half of a map may be free.
    const GROUP_BYTES: usize = 2 * size_of::<(I, Group<I>)>() + 6 * size_of::<I>();

    pub(crate) fn new(budget: &MemoryBudget) -> Links<I> {
        let memory = budget.reservation();
        Links { groups: HashMap::new(), heirs: HashMap::new(), split: HashSet::new(), memory }
    }

    /// A name that is listed in any case.
    pub(crate) fn changed(&mut self, new: &impl Linked<Id = I>) -> Result<()> {
        if new.has_names() {
            self.group(new.id())?.is_torn = true;
        }
        Ok(())
    }

    fn group(&mut self, id: I) -> Result<&mut Group<I>> {
        match self.groups.entry(id) {
            Entry::Occupied(group) => Ok(group.into_mut()),
            Entry::Vacant(place) => {
                self.memory.grow(Self::GROUP_BYTES)?;
                Ok(place.insert(Group::default()))
            }
        }
    }

    /// A name that is listed only if its file's others are.
    pub(crate) fn unchanged<T: Linked<Id = I>>(
        &mut self,
        old: &T,
        new: &T,
        change: impl FnOnce() -> Change,
    ) -> Result<()> {
        if !old.has_names() && !new.has_names() {
            return Ok(());
        }
        let (old, new, change) = (old.id(), new.id(), change());
        self.memory.grow(change.bytes())?;
        let group = self.group(new)?;
        group.unchanged.push(change);
        group.is_torn |= *group.old.get_or_insert(old) != old;
        if *self.heirs.entry(old).or_insert(new) != new {
            self.split.insert(old);
        }
        Ok(())
    }

    /// The unchanged names that must be listed all the same.
    pub(crate) fn torn(self) -> impl Iterator<Item = Change> {
        let Links { groups, split, .. } = self;
        groups
            .into_values()
            .filter(move |group| group.is_torn || group.old.is_some_and(|old| split.contains(&old)))
            .flat_map(|group| group.unchanged)
    }
}
