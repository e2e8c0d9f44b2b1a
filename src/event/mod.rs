//! What happens while it happens, and how to stop it.
//!
//! * [`Event`] is one thing that happened: enough of them to draw `docker pull`.
//! * [`Observer`] is told of events. A closure is one.
//! * [`Cancel`] is a switch that several threads share; thrown once, it ends what watches it.
//!
//! Events of different blobs come from different threads, in any order between blobs; those of one blob come in the
//! order in which they are listed at [`Event`]. An observer that takes long holds its transfer up. One that panics
//! ends the operation: locks are released, and nothing half-done becomes visible.

#[cfg(feature = "registry")]
mod watch;

use std::sync::Arc;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::Instant;

use crate::descriptor::Descriptor;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::reference::ImageReference;
use crate::sync::lock;

#[cfg(feature = "registry")]
pub(crate) use watch::Watch;

/// No pause is longer; an `Instant` has a largest value.
const LONGEST_SLEEP: Duration = Duration::from_secs(24 * 60 * 60);

/// One thing that happened.
#[non_exhaustive]
#[derive(Debug)]
pub enum Event<'a> {
    /// The registry, or the store, said what a name means.
    Resolved {
        /// The name.
        reference: &'a ImageReference,
        /// The image, or the index of images, that it means.
        root: &'a Descriptor,
    },
    /// The image was chosen: these blobs make it up, in the manifest's order. Of each the next events tell.
    Selected {
        /// The manifest.
        manifest: &'a Descriptor,
        /// The layers, base first.
        layers: &'a [Descriptor],
    },
    /// A blob is there already, in the store or at the registry that it would go to, and is not transferred.
    Reused {
        /// The blob.
        blob: &'a Descriptor,
    },
    /// The transfer of a blob begins.
    Started {
        /// The blob.
        blob: &'a Descriptor,
        /// How many of its bytes an earlier attempt left behind; they are not transferred again.
        resumed: u64,
    },
    /// More of a blob is here.
    Progress {
        /// The blob.
        blob: &'a Descriptor,
        /// How many of its bytes are here now.
        bytes: u64,
    },
    /// A request failed and will be made again after a pause.
    Retrying {
        /// The blob; none for requests of other things.
        blob: Option<&'a Descriptor>,
        /// Which attempt failed, from 1.
        attempt: u32,
        /// The pause before the next.
        delay: Duration,
        /// Why it failed.
        error: &'a Error,
    },
    /// A registry took a blob over from another of its repositories; it is not transferred.
    Mounted {
        /// The blob.
        blob: &'a Descriptor,
        /// The repository.
        from: &'a str,
    },
    /// A blob is where it was to go, whole and verified.
    Finished {
        /// The blob.
        blob: &'a Descriptor,
    },
    /// A name, in the store or at the registry, now means this.
    Tagged {
        /// The name.
        reference: &'a ImageReference,
        /// What it means.
        root: &'a Descriptor,
    },
    /// More of a layer was applied.
    Unpacking {
        /// The layer's blob; none where a stream is applied that nobody described.
        layer: Option<&'a Descriptor>,
        /// How many of its entries were applied.
        entries: u64,
        /// How many of its bytes, as they are stored, were read for that.
        bytes: u64,
    },
    /// A layer was applied. Whether its bytes are the promised ones is known when the whole operation has ended.
    Unpacked {
        /// The layer's blob.
        layer: &'a Descriptor,
    },
    /// More of a store was read to check it.
    Checking {
        /// How many bytes of its blobs were read.
        bytes: u64,
        /// How many there are.
        total: u64,
    },
    /// The registry has something to say to whoever reads (distribution-spec, "Warnings"). Each text is told once.
    /// Nothing may be decided by it.
    Warning {
        /// The text; control characters are replaced.
        text: &'a str,
    },
}

/// Is told of events, from any thread.
pub trait Observer: Sync {
    /// Something happened.
    fn event(&self, event: &Event<'_>);
}

impl<F: Fn(&Event<'_>) + Sync> Observer for F {
    fn event(&self, event: &Event<'_>) {
        self(event);
    }
}

/// The observer that does nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Observer for Silent {
    fn event(&self, _: &Event<'_>) {}
}

/// A switch that ends what watches it. Clones are the same switch.
///
/// Operations look at it between chunks of data and while they wait before a retry; one that ends so fails with
/// [`ErrorKind::Cancelled`] and leaves what it has for the next attempt to resume.
///
/// ```
/// use layercake::Cancel;
///
/// let cancel = Cancel::new();
/// let elsewhere = cancel.clone();
/// std::thread::spawn(move || elsewhere.cancel()).join().unwrap();
/// assert!(cancel.check().is_err());
/// ```
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<Switch>);

#[derive(Debug, Default)]
struct Switch {
    thrown: Mutex<bool>,
    changed: Condvar,
}

impl Cancel {
    /// A switch that is not thrown.
    pub fn new() -> Cancel {
        Cancel::default()
    }

    /// Throws the switch, for good.
    pub fn cancel(&self) {
        *self.thrown() = true;
        self.0.changed.notify_all();
    }

    /// Whether the switch was thrown.
    pub fn is_cancelled(&self) -> bool {
        *self.thrown()
    }

    /// Fails if the switch was thrown.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Cancelled`].
    pub fn check(&self) -> Result<()> {
        if self.is_cancelled() { Err(ErrorKind::Cancelled.into()) } else { Ok(()) }
    }

    /// Waits for `delay`, or until the switch is thrown.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Cancelled`], at once, if the switch was or is thrown.
    pub fn sleep(&self, delay: Duration) -> Result<()> {
        let end = Instant::now() + delay.min(LONGEST_SLEEP);
        let mut thrown = self.thrown();
        while !*thrown {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            thrown = self.0.changed.wait_timeout(thrown, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        Err(ErrorKind::Cancelled.into())
    }

    /// A poisoned lock still holds a plain flag.
    fn thrown(&self) -> MutexGuard<'_, bool> {
        lock(&self.0.thrown)
    }
}
