//! The budget of an unpack: counts what it writes beyond the content of its entries, over all layers. Used by `apply`.

use crate::changeset::Limits;
use crate::error::Error;
use crate::error::Limit;
use crate::error::Result;
use crate::event::Cancel;

/// Disk space of a directory without an entry of its own, in bytes: one block of most file systems.
const DIRECTORY: u64 = 4096;

/// Steps that the targets of symbolic links may add to the paths of all entries together, and for each entry. A path of 4 kB
/// may lead over 40 links of 4 kB, which is 80,000 steps; those of real images have a few.
const LINK_STEPS: u64 = 1 << 18;
const LINK_STEPS_PER_ENTRY: u64 = 16;

/// Counts what an unpack writes and fails when that exceeds its limits.
#[derive(Debug)]
pub(super) struct Budget {
    limits: Limits,
    cancel: Cancel,
    /// Size of all files, of attributes from lower layers, and of directories without an entry; in bytes, holes counted.
    claimed: u64,
    /// Bytes that were copied from lower layers since [`take_copied`](Budget::take_copied).
    copied: u64,
    /// How many steps the targets of symbolic links may still add to the paths of entries.
    link_steps: u64,
}

impl Budget {
    pub(super) fn new(limits: Limits, cancel: &Cancel) -> Budget {
        Budget { limits, cancel: cancel.clone(), claimed: 0, copied: 0, link_steps: LINK_STEPS }
    }

    /// Returns the size of all files so far in bytes, holes counted.
    pub(super) fn claimed(&self) -> u64 {
        self.claimed
    }

    /// Continues from the total of the layers below.
    pub(super) fn set_claimed(&mut self, claimed: u64) {
        self.claimed = claimed;
    }

    /// Counts the size of a file, or of attributes, before it is written.
    pub(super) fn claim(&mut self, size: u64) -> Result<()> {
        self.claimed = self.claimed.saturating_add(size);
        self.limits.check(Limit::UnpackedSize, self.claimed)
    }

    /// Counts the steps of a path that the target of a symbolic link added.
    pub(super) fn follow_link(&mut self, steps: usize) -> Result<()> {
        match self.link_steps.checked_sub(steps as u64) {
            Some(left) => self.link_steps = left,
            None => return Err(Error::limit(Limit::LinkSteps, LINK_STEPS)),
        }
        self.cancel.check()
    }

    /// Adds the allowance of one more entry.
    pub(super) fn next_entry(&mut self) {
        self.link_steps = self.link_steps.saturating_add(LINK_STEPS_PER_ENTRY);
    }

    /// Counts a directory that no entry describes: a path of an entry may make a thousand of them.
    pub(super) fn claim_directory(&mut self) -> Result<()> {
        self.claim(DIRECTORY)
    }

    /// Counts bytes that were copied from a lower layer just now. Fails if the unpack was cancelled.
    pub(super) fn copied(&mut self, bytes: u64) -> Result<()> {
        self.copied = self.copied.saturating_add(bytes);
        self.cancel.check()
    }

    /// Returns the bytes that were copied since the last call.
    pub(super) fn take_copied(&mut self) -> u64 {
        std::mem::take(&mut self.copied)
    }
}
