//! Images on the host: a directory that is an OCI image layout, shared by any number of processes.
//!
//! * [`Store`] is such a directory. Other tools read it as it stands.
//! * [`Name`] is what the directory calls an image: a reference, or whatever another tool wrote.
//! * [`PreviousValue`] is what a name must mean for a change of it to take place.
//! * [`BlobReader`] reads a blob, and reports its end only after size and digest held.
//! * [`BlobWriter`] takes a blob in; nobody sees it before [`commit_as`](BlobWriter::commit_as) found it whole.
//! * [`GcOptions`] says what is spared when garbage is collected, [`Collected`] what was not.
//! * [`CheckoutRecord`] is a working copy that needs an image of the store.
//! * [`Usage`] says where the bytes are, [`ImageUsage`] what one image has and shares.
//! * [`Problem`] is one thing that is wrong with a store: [`Checked`] lists them, [`Repaired`] what became of them.
//! * [`Room`] says how much more a store can take.
//! * [`Durability`] is what is promised of power cuts.
//!
//! ```
//! use layercake::{Descriptor, ImageReference, MediaType, Store};
//!
//! # let dir = tempfile::tempdir()?;
//! # let path = dir.path().join("store");
//! let store = Store::open_or_create(&path)?;
//! let blob = store.write(MediaType::OCTET_STREAM, b"hello\n")?;
//! assert!(store.contains(&blob)?);
//! assert_eq!(store.read(&blob)?, b"hello\n");
//!
//! let name: ImageReference = "example.com/greeting:1".parse()?;
//! store.tag(&name, &blob)?;
//! assert_eq!(store.resolve(&name)?.digest, blob.digest);
//! # Ok::<(), layercake::Error>(())
//! ```
//!
//! How the files lie, what is assumed of the file system, and what holds after a crash is written in
//! [the guide](crate::guide::layout). What the layout has no word for (the lock, partial downloads, what was
//! counted) lies in a folder `layercake` beside it, which other tools leave alone.
//!
//! Nothing is deleted before somebody asks: [`Store::gc`] deletes what nothing leads to any more, and
//! [`Store::remove`] an image. Meanwhile a lease ([`Store::leased`]) keeps what an operation has in hand.

mod access;
mod arrival;
mod blobs;
mod check;
mod checkouts;
mod facts;
mod garbage;
mod gc;
mod graph;
mod hashing;
mod index;
mod ingest;
mod instance;
mod layout;
mod lease;
mod lookups;
mod mark;
mod names;
mod problem;
mod repair;
mod room;
mod roots;
mod steps;
mod tags;
mod trees;
mod unpacked;
mod usage;

use std::path::Path;
use std::sync::Arc;
use std::sync::OnceLock;
use std::time::Duration;
use std::time::SystemTime;

use facts::Facts;
use layout::Prepared;
use lease::Lease;
use lookups::Lookups;

use crate::digest::Algorithm;
use crate::error::Result;
use crate::fs::dir::Dir;

pub use crate::fs::atomic::Durability;
#[cfg(feature = "registry")]
pub(crate) use arrival::ArrivingBlob;
#[cfg(feature = "registry")]
pub(crate) use arrival::NotArrived;
#[cfg(feature = "registry")]
pub(crate) use arrival::Trace;
pub use blobs::BlobReader;
pub use checkouts::CheckoutRecord;
pub(crate) use checkouts::NewCheckout;
pub use garbage::Collected;
pub use garbage::GcOptions;
pub use garbage::Removed;
pub use garbage::UnpackedPolicy;
pub use ingest::BlobWriter;
pub(crate) use ingest::Parked;
pub use names::Name;
pub use problem::CheckOptions;
pub use problem::Checked;
pub use problem::Problem;
pub use repair::Repaired;
pub use room::Room;
pub(crate) use roots::oci_twin;
pub(crate) use steps::StepRecord;
pub use tags::PreviousValue;
pub(crate) use tags::entries_of;
pub(crate) use tags::layout_entries;
pub use usage::ImageUsage;
pub use usage::Usage;

/// How long a change of names waits for other processes that change names.
const LOCK_LIMIT: Duration = Duration::from_secs(60);

/// A directory of images: an OCI image layout with names.
///
/// Invariants, at every moment and for every process:
///
/// * it is a valid layout (image-spec, image-layout.md);
/// * a file below `blobs/` that this crate wrote has the content that its name says;
/// * `index.json` is the old or the new one, whole; whoever changes it holds a lock for as long as the change takes,
///   so no change is lost among the processes that use this crate.
///
/// # Threads and cloning
///
/// A store is cheap to clone, and all clones are the same directory. What another process did is seen at the next call:
/// of what can change, it keeps only the names in memory, and looks each time whether the file is still the same.
#[derive(Clone, Debug)]
pub struct Store {
    shared: Arc<Shared>,
    durability: Durability,
    /// Which folders this handle made sure of.
    prepared: Arc<Prepared>,
    /// What keeps `gc` away from what this handle relies on.
    lease: Option<Arc<Lease>>,
    /// Whether private state is believed that another user owns.
    trusts_owner: bool,
}

#[derive(Debug)]
struct Shared {
    dir: Dir,
    /// The folders of the blobs of each algorithm, once they were opened.
    blobs: [OnceLock<Dir>; Algorithm::ALL.len()],
    facts: Facts,
    lookups: Lookups,
}

impl Store {
    /// The directory, as it was named when the store was opened.
    pub fn path(&self) -> &Path {
        self.dir().path()
    }

    fn at(dir: Dir) -> Store {
        let shared = Shared { dir, blobs: Default::default(), facts: Facts::default(), lookups: Lookups::default() };
        let (durability, trusts_owner) = (Durability::Full, false);
        Store { shared: Arc::new(shared), durability, prepared: Arc::default(), lease: None, trusts_owner }
    }

    /// The same store for a caller who trusts its owner, whoever that is: the private state is believed, and what is
    /// written belongs to that owner.
    pub(crate) fn trusting_its_owner(&self) -> Result<Store> {
        let dir = self.dir().again()?.made_for_its_owner()?;
        Ok(Store { durability: self.durability, trusts_owner: true, ..Store::at(dir) })
    }

    pub(crate) fn dir(&self) -> &Dir {
        &self.shared.dir
    }

    /// The same store with another promise about power cuts; [`Durability::Full`] unless this is called.
    #[must_use = "the store itself is not changed"]
    pub fn with_durability(&self, durability: Durability) -> Store {
        Store { durability, prepared: Arc::default(), ..self.clone() }
    }

    /// What is promised of power cuts.
    pub fn durability(&self) -> Durability {
        self.durability
    }
}

/// How old something is; none if it is from the future, as after a jump of the clock.
fn age(time: SystemTime, now: SystemTime) -> Option<Duration> {
    now.duration_since(time).ok()
}
