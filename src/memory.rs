//! A budget for the memory that an operation keeps: names, link targets, attributes, lists of changes.
//!
//! A small layer can describe a large tree: long link targets and attributes compress to almost nothing. So every
//! collection that grows with its input reserves its bytes in the [`MemoryBudget`] of the operation before it grows, and
//! a tree that does not fit is an error instead of a process without memory.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use crate::error::Error;
use crate::error::Limit;
use crate::error::Result;

/// The smallest piece that an allocator of a 64-bit system hands out, and the header of every piece.
const MIN_ALLOCATION: usize = 32;
const ALLOCATION_HEADER: usize = 8;
const ALIGNMENT: usize = 16;

/// The bytes of memory that one operation may keep. Clones share the budget.
#[derive(Clone, Debug)]
pub(crate) struct MemoryBudget(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    maximum: u64,
    used: AtomicU64,
}

impl MemoryBudget {
    /// The budget of operations that have no setting for it: 256 MiB.
    pub(crate) const DEFAULT: u64 = 256 << 20;

    /// A budget of so many bytes.
    pub(crate) fn new(maximum: u64) -> MemoryBudget {
        MemoryBudget(Arc::new(Inner { maximum, used: AtomicU64::new(0) }))
    }

    /// An empty reservation, to be grown.
    pub(crate) fn reservation(&self) -> MemoryReservation {
        MemoryReservation { budget: self.clone(), bytes: 0 }
    }
}

/// The bytes of one collection. They return to the budget when the reservation is dropped.
#[derive(Debug)]
pub(crate) struct MemoryReservation {
    budget: MemoryBudget,
    bytes: u64,
}

impl MemoryReservation {
    /// Reserves more bytes.
    ///
    /// # Errors
    ///
    /// [`Limit::Memory`] if the budget does not have them.
    pub(crate) fn grow(&mut self, bytes: usize) -> Result<()> {
        let Inner { maximum, used } = &*self.budget.0;
        let before = used.fetch_add(bytes as u64, Ordering::Relaxed);
        self.bytes += bytes as u64;
        if before.saturating_add(bytes as u64) > *maximum { Err(Error::limit(Limit::Memory, *maximum)) } else { Ok(()) }
    }

    /// Returns bytes to the budget.
    pub(crate) fn shrink(&mut self, bytes: usize) {
        let bytes = self.bytes.min(bytes as u64);
        self.bytes -= bytes;
        self.budget.0.used.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// A reservation of as many bytes, for a copy of the collection.
    pub(crate) fn duplicate(&self) -> Result<MemoryReservation> {
        let mut copy = self.budget.reservation();
        copy.grow(usize::try_from(self.bytes).unwrap_or(usize::MAX))?;
        Ok(copy)
    }

    /// The budget that the bytes are taken from.
    pub(crate) fn budget(&self) -> &MemoryBudget {
        &self.budget
    }
}

impl Drop for MemoryReservation {
    fn drop(&mut self) {
        self.budget.0.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// The memory that an allocation of so many bytes takes.
pub(crate) const fn allocated(bytes: usize) -> usize {
    match bytes {
        0 => 0,
        bytes if bytes + ALLOCATION_HEADER <= MIN_ALLOCATION => MIN_ALLOCATION,
        bytes => (bytes + ALLOCATION_HEADER).next_multiple_of(ALIGNMENT),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn dropped_and_shrunk_reservations_return_their_bytes() {
        let budget = MemoryBudget::new(100);
        let mut first = budget.reservation();
        first.grow(60).unwrap();
        let second = first.duplicate().unwrap_err();
        assert!(matches!(second.kind(), ErrorKind::LimitExceeded { limit: Limit::Memory, maximum: 100 }));
        first.shrink(20);
        let second = first.duplicate().unwrap();
        drop(first);
        let mut third = budget.reservation();
        third.grow(60).unwrap();
        assert!(third.grow(1).is_err());
        drop((second, third));
        budget.reservation().grow(100).unwrap();
    }

    #[test]
    fn allocations_are_never_smaller_than_their_content() {
        assert_eq!([0, 1, 24, 25, 40, 41].map(allocated), [0, 32, 32, 48, 48, 64]);
    }
}
