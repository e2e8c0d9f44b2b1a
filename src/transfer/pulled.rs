//! What a pull did.

use crate::descriptor::Descriptor;
use crate::image::Image;
use crate::reference::ImageReference;

/// What a pull did, as `docker pull` says it in its last lines.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PullStatus {
    /// The name is new in the store, or means another image than before: "Downloaded newer image".
    DownloadedNewer,
    /// The name meant this image before: "Image is up to date". [`Pulled::previous`] may still be another root: an
    /// index can change without the platform's image changing.
    UpToDate,
}

/// Blobs and their bytes.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Transferred {
    /// How many blobs; manifests and configurations count too.
    pub blobs: u64,
    /// Their sizes, in bytes.
    pub bytes: u64,
}

impl Transferred {
    pub(super) fn add(&mut self, bytes: u64) {
        self.blobs += 1;
        self.bytes = self.bytes.saturating_add(bytes);
    }
}

/// What a pull did.
#[non_exhaustive]
#[derive(Clone, Debug)]
pub struct Pulled {
    /// The name, as the store has it now.
    pub reference: ImageReference,
    /// The image for the platform, in the store.
    pub image: Image,
    /// What the name means: the image's manifest, or the index that lists it. Its digest is the one that
    /// `docker pull` reports.
    pub root: Descriptor,
    /// What the name meant before, if the store had it.
    pub previous: Option<Descriptor>,
    /// Whether the name means another image than before.
    pub status: PullStatus,
    /// What came from the registry. Of a blob that was resumed, only the bytes that were missing.
    pub fetched: Transferred,
    /// What the store had already. Of a blob that was resumed, the bytes that were there.
    pub reused: Transferred,
}
