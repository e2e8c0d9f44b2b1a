//! What is garbage, by whose word, and what became of it.

use std::collections::HashSet;
use std::time::Duration;

use super::names::Name;

use crate::descriptor::Descriptor;
use crate::digest::Digest;
use crate::event::Cancel;

/// What [`Store::gc_with`](super::Store::gc_with) spares.
#[derive(Clone, Debug)]
#[must_use = "nothing is collected before `Store::gc_with`"]
pub struct GcOptions {
    pub(super) grace: Duration,
    pub(super) expiry: Duration,
    pub(super) unpacked: UnpackedPolicy,
    pub(super) dry_run: bool,
    pub(super) room: Option<u64>,
    pub(super) cancel: Cancel,
    /// Nothing else is looked at, if this is said.
    pub(super) only: Option<HashSet<Digest>>,
}

/// Which unpacked layers are collected. They can be made again of what is packed; those that a checkout uses, or that
/// somebody is about to use, never are.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum UnpackedPolicy {
    /// Those of which no image is kept.
    #[default]
    Unnamed,
    /// All that no checkout uses.
    Unused,
    /// None.
    Keep,
}

impl GcOptions {
    /// The defaults: an hour of grace, a day until leases expire, and [`UnpackedPolicy::Unnamed`].
    pub fn new() -> GcOptions {
        GcOptions {
            grace: Duration::from_secs(60 * 60),
            expiry: Duration::from_secs(24 * 60 * 60),
            unpacked: UnpackedPolicy::default(),
            dry_run: false,
            room: None,
            cancel: Cancel::new(),
            only: None,
        }
    }

    /// How young blobs are that are spared although nothing leads to them: an hour by default. Somebody may be about to
    /// name them. So is what has a time in the future, as after a jump of the clock.
    pub fn grace(self, grace: Duration) -> GcOptions {
        GcOptions { grace, ..self }
    }

    /// How long ago a process must have done its last that was killed, for its lease and its unfinished downloads to be
    /// given up: a day by default. While it lives, they are its own, whatever the clock says.
    pub fn expiry(self, expiry: Duration) -> GcOptions {
        GcOptions { expiry, ..self }
    }

    /// Which unpacked layers are collected.
    pub fn unpacked(self, policy: UnpackedPolicy) -> GcOptions {
        GcOptions { unpacked: policy, ..self }
    }

    /// Makes room for so many bytes: if there are not as many after garbage was collected, names are taken away, and what
    /// only they led to is deleted however young it is. Those go first that were not used for longest: pulled, pushed,
    /// saved, unpacked or checked out, to about ten minutes. Names that are [pinned](super::Store::pin) stay, and so
    /// does what a lease or a working copy needs; so there may be less room than was asked for, and
    /// [`room`](super::Store::room) says how much there is.
    pub fn room(self, bytes: u64) -> GcOptions {
        GcOptions { room: Some(bytes), ..self }
    }

    /// Changes nothing, and reports what would be collected.
    pub fn dry_run(self) -> GcOptions {
        GcOptions { dry_run: true, ..self }
    }

    /// A switch that ends the work between two turns. What was deleted by then is gone.
    pub fn cancel(self, cancel: &Cancel) -> GcOptions {
        GcOptions { cancel: cancel.clone(), ..self }
    }
}

impl Default for GcOptions {
    fn default() -> GcOptions {
        GcOptions::new()
    }
}

/// What was collected.
#[non_exhaustive]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// The blobs, in the order in which they went.
    pub blobs: Vec<Digest>,
    /// The names that were taken away to make room.
    pub untagged: Vec<Name>,
    /// How many unfinished blobs went.
    pub partials: u64,
    /// How many unpacked layers went.
    pub unpacked: u64,
    /// How many leases went whose holders are dead.
    pub leases: u64,
    /// How many records went of working copies that are gone.
    pub checkouts: u64,
    /// The bytes of all these: of blobs and unfinished blobs their sizes, of unpacked layers what was written down when
    /// they were made.
    pub bytes: u64,
    /// How many blobs stayed only because they are young, or because something young leads to them.
    pub young: u64,
}

/// What [`Store::remove`](super::Store::remove) did.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removed {
    /// The name that is gone.
    pub name: Name,
    /// What it meant.
    pub root: Descriptor,
    /// What went with it. Empty where another name, a lease or a working copy needs the image.
    pub collected: Collected,
}
