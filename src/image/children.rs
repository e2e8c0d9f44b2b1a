//! The names in a directory of a tree in memory.

use std::collections::BTreeMap;
use std::ops::Deref;

use super::merged::Name;
use crate::error::Result;
use crate::memory::MemoryBudget;
use crate::memory::MemoryReservation;
use crate::memory::allocated;

/// The names in a directory, with the memory that they take.
#[derive(Debug)]
pub(super) struct Children {
    names: BTreeMap<Box<[u8]>, Name>,
    memory: MemoryReservation,
}

impl Children {
    /// The bytes of an empty list, as it is kept: with its counters.
    pub(super) const EMPTY_BYTES: usize = allocated(size_of::<Children>() + 2 * size_of::<usize>());

    pub(super) fn new(budget: &MemoryBudget) -> Children {
        Children { names: BTreeMap::new(), memory: budget.reservation() }
    }

    /// A copy.
    pub(super) fn duplicate(&self) -> Result<Children> {
        let memory = self.memory.duplicate()?;
        Ok(Children { names: self.names.clone(), memory })
    }

    /// Adds a name and returns the one that had it before.
    pub(super) fn insert(&mut self, name: &[u8], to: Name) -> Result<Option<Name>> {
        if let Some(place) = self.names.get_mut(name) {
            return Ok(Some(std::mem::replace(place, to)));
        }
        let count = self.names.len();
        self.memory.grow(map_bytes(count + 1) - map_bytes(count) + allocated(name.len()))?;
        self.names.insert(name.into(), to);
        Ok(None)
    }

    /// Removes a name and returns what had it.
    pub(super) fn remove(&mut self, name: &[u8]) -> Option<Name> {
        let removed = self.names.remove(name)?;
        let count = self.names.len();
        self.memory.shrink(map_bytes(count + 1) - map_bytes(count) + allocated(name.len()));
        Some(removed)
    }

    /// Removes all names that do not fulfil a condition.
    pub(super) fn retain(&mut self, is_kept: impl Fn(&Name) -> bool) {
        let (before, mut removed) = (map_bytes(self.names.len()), 0);
        self.names.retain(|name, to| {
            let is_kept = is_kept(to);
            removed += if is_kept { 0 } else { allocated(name.len()) };
            is_kept
        });
        self.memory.shrink(before - map_bytes(self.names.len()) + removed);
    }
}

impl Deref for Children {
    type Target = BTreeMap<Box<[u8]>, Name>;

    fn deref(&self) -> &Self::Target {
        &self.names
    }
}

/// The bytes of a map of so many names: its smallest node has room for eleven; in a large one they are half full.
const fn map_bytes(count: usize) -> usize {
    const NODE: usize = allocated(11 * (size_of::<Box<[u8]>>() + size_of::<Name>()) + 2 * size_of::<usize>());
    match count {
        0 => 0,
        1..=11 => NODE,
        count => NODE + NODE * (count - 11) / 5,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_list_returns_all_its_bytes() {
        let budget = MemoryBudget::new(1 << 20);
        let mut children = Children::new(&budget);
        let name = |n: usize| "n".repeat(n % 60 + 1) + &n.to_string();
        for n in 0..500 {
            children.insert(name(n).as_bytes(), Name::default()).unwrap();
            children.insert(name(n).as_bytes(), Name::default()).unwrap();
        }
        (0..100).for_each(|n| assert!(children.remove(name(n).as_bytes()).is_some()));
        children.retain(|_| false);
        budget.reservation().grow(1 << 20).unwrap();
    }
}
