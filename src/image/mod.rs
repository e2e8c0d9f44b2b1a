//! Images in a store.
//!
//! * [`Image`] is a manifest, its configuration and its layers.
//! * [`Layer`] is a set of changes to a root file system: two digests, and two ways to read it.
//! * [`Step`] is one step of an image's making, as [`Image::history`] tells them; [`Blame`] is the step that touched a
//!   path last.
//! * [`ImageEntries`] and [`FileReader`] read what the layers hold.
//!
//! [`Image::unpack`] makes a root file system of the layers. Nothing is unpacked to read a file
//! ([`Image::read_file`]), to say what changed from one image to another ([`Image::diff`]), or which layers touched a
//! path ([`Image::blame`], [`Image::history_of`]): the layers are stacked in memory, without contents.
//!
//! Images never change; new ones are made of them. [`Image::edit`] says other things of the same layers, by an [`Edit`];
//! [`Image::squash`] makes one layer of several, by a [`Squash`]; [`Image::rebase`] puts the upper ones on another base.
//!
//! An image is opened by what a store calls it. Where that is an index, one platform is chosen: the one asked for,
//! or the host's.
//!
//! ```
//! # use layercake::{testing::Fixture, ImageReference, Store};
//! # let dir = tempfile::tempdir()?;
//! # let store = Store::create(dir.path().join("store"))?;
//! # let name: ImageReference = "example.com/greeter:1".parse()?;
//! # Fixture::demo().tag(&store, &name)?;
//! let image = store.image(&name)?;
//! println!("{} for {:?}: {} bytes", image.id().short(), image.platform(), image.size());
//! for layer in image.layers()? {
//!     let mut tar = layer.uncompressed()?;
//!     let size = std::io::copy(&mut tar, &mut std::io::sink())?;
//!     assert_eq!(size, layer.unpacked_size()?);
//! }
//! # Ok::<(), layercake::Error>(())
//! ```

mod attributes;
mod blame;
mod children;
mod compose;
mod diff;
mod edit;
mod entries;
mod history;
mod layer;
mod merged;
mod onto;
mod rebase;
mod record;
mod squash;
mod standing;
mod unpack;
mod unpacked;

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::Arc;

use crate::descriptor::Descriptor;
use crate::digest::Digest;
use crate::error::Context;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::manifest::Config;
use crate::manifest::Manifest;
use crate::platform::Platform;
use crate::store::Name;
use crate::store::Store;

pub use blame::Blame;
pub(crate) use compose::Draft;
pub(crate) use compose::NewLayer;
pub use edit::Edit;
pub use entries::FileReader;
pub use entries::ImageEntries;
pub use entries::LayerEntries;
pub use history::Step;
pub use layer::Layer;
pub(crate) use onto::Onto;
pub use squash::Squash;
pub(crate) use standing::Standing;
#[cfg(feature = "registry")]
pub(crate) use unpack::Unpacking;
#[cfg(feature = "registry")]
pub(crate) use unpack::explain;
pub(crate) use unpacked::UnpackedLayers;
pub(crate) use unpacked::folder_of;

/// How many threads open images where many are listed, at most, and how many images are worth a thread.
const MAX_THREADS: usize = 8;
const MIN_SHARE: usize = 64;

/// A manifest, its configuration and its layers, in a store. Read-only, and cheap to clone.
///
/// Invariants: manifest and configuration are in the store, verified and parsed; the configuration lists one diff id
/// for each of the manifest's layers. Layers may be missing in a layout that another tool made, or after a pull that
/// did not end; [`layers`](Image::layers) says so.
///
/// A manifest whose configuration is not an image's (a Helm chart, a signature) is an image too, but one whose
/// [`config`](Image::config) and [`layers`](Image::layers) are errors.
#[derive(Clone, Debug)]
pub struct Image {
    store: Store,
    parts: Arc<Parts>,
}

#[derive(Debug)]
struct Parts {
    root: Descriptor,
    manifest: Manifest,
    config: Option<Config>,
}

impl Store {
    /// The image that a name leads to. Of an index, the image for the host's platform; where the store does not have
    /// that one whole, the first in the index itself that it has whole.
    ///
    /// # Errors
    ///
    /// * [`ErrorKind::NotFound`]: there is no such name, or none of its images is in the store.
    /// * [`ErrorKind::NoMatchingPlatform`]: none of them is, and the index lists none for the host.
    /// * [`ErrorKind::DigestMismatch`], [`ErrorKind::SizeMismatch`]: a document was damaged.
    /// * [`ErrorKind::InvalidDocument`] and the others of [`Root::parse`](crate::manifest::Root::parse): a document is not what it must be.
    pub fn image(&self, name: impl Into<Name>) -> Result<Image> {
        let name = name.into();
        let open = || self.image_at(&self.resolve(&name)?);
        open().context(|| format!("image {name}"))
    }

    /// The image that a name leads to, for exactly this platform or another that it runs.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NoMatchingPlatform`] if there is none for it; those of [`image`](Store::image).
    pub fn image_for(&self, name: impl Into<Name>, platform: &Platform) -> Result<Image> {
        let name = name.into();
        let open = || self.image_at_for(&self.resolve(&name)?, platform);
        open().context(|| format!("image {name}"))
    }

    /// The image that a descriptor of a manifest or of an index leads to, chosen as [`image`](Store::image) does.
    ///
    /// # Errors
    ///
    /// Those of [`image`](Store::image).
    pub fn image_at(&self, root: &Descriptor) -> Result<Image> {
        self.assemble(root, self.manifest_at(root)?)
    }

    /// The same for exactly this platform or another that it runs.
    ///
    /// # Errors
    ///
    /// Those of [`image_for`](Store::image_for).
    pub fn image_at_for(&self, root: &Descriptor, platform: &Platform) -> Result<Image> {
        let image = self.assemble(root, self.manifest_for(root, platform)?)?;
        image.check_platform(platform)?;
        Ok(image)
    }

    /// What `docker images` lists: every entry of the layout, and the image it leads to, in the layout's order. An
    /// entry whose image cannot be opened is an error of its own; the others follow.
    ///
    /// # Errors
    ///
    /// Those of [`Store::entries`].
    pub fn images(&self) -> Result<impl Iterator<Item = Result<(Name, Image)>> + use<>> {
        let entries: Vec<_> = self.entries()?.collect();
        let mut roots: Vec<&Descriptor> = entries.iter().flatten().map(|(_, root)| root).collect();
        roots.sort_by_key(|root| root.digest);
        roots.dedup_by_key(|root| root.digest);
        let opened = self.open_all(&roots);
        let store = self.clone();
        Ok(entries.into_iter().map(move |entry| {
            let (name, root) = entry?;
            let image = match opened.get(&root.digest) {
                Some(image) => image.clone(),
                // What could not be opened says why to whoever asks.
                None => store.image_at(&root).context(|| format!("image {name}"))?,
            };
            Ok((name, image))
        }))
    }

    /// Opens images on a few threads; those that cannot be opened are left out.
    fn open_all(&self, roots: &[&Descriptor]) -> HashMap<Digest, Image> {
        let threads = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let share = roots.len().div_ceil(threads.min(MAX_THREADS)).max(MIN_SHARE);
        let open = |share: &[&Descriptor]| -> Vec<(Digest, Image)> {
            share.iter().filter_map(|root| Some((root.digest, self.image_at(root).ok()?))).collect()
        };
        std::thread::scope(|scope| {
            let mut opened = HashMap::new();
            let mut others = Vec::new();
            for share in roots.chunks(share).skip(1) {
                match std::thread::Builder::new().spawn_scoped(scope, move || open(share)) {
                    Ok(thread) => others.push(thread),
                    // The system gives no more threads.
                    Err(_) => opened.extend(open(share)),
                }
            }
            opened.extend(roots.chunks(share).next().map(open).unwrap_or_default());
            opened.extend(others.into_iter().filter_map(|thread| thread.join().ok()).flatten());
            opened
        })
    }

    /// The image of a manifest, with its configuration.
    pub(crate) fn assemble(&self, root: &Descriptor, manifest: Manifest) -> Result<Image> {
        let config = self.configuration(&manifest)?;
        if let Some(config) = &config {
            config.check_layers(manifest.layers().len())?;
        }
        let parts = Parts { root: root.clone(), manifest, config };
        Ok(Image { store: self.clone(), parts: Arc::new(parts) })
    }
}

impl Image {
    /// The store that it is in.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The image's id: the digest of its configuration, which is the same in every compression.
    pub fn id(&self) -> Digest {
        self.parts.manifest.config().digest
    }

    /// The digest of its manifest.
    pub fn digest(&self) -> Digest {
        self.parts.manifest.digest()
    }

    /// Its manifest's media type, digest and size.
    pub fn descriptor(&self) -> Descriptor {
        self.parts.manifest.descriptor()
    }

    /// What it was opened by: its manifest, or the index that lists it.
    pub fn root(&self) -> &Descriptor {
        &self.parts.root
    }

    /// Its manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.parts.manifest
    }

    /// Its configuration.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::UnsupportedMediaType`] if the manifest is an artifact's, whose configuration is none that is
    /// known here (image-spec, manifest.md: it must not be parsed).
    pub fn config(&self) -> Result<&Config> {
        let found = || self.parts.manifest.config().media_type.clone();
        let expected = "an image configuration, OCI's or Docker's";
        self.parts.config.as_ref().ok_or_else(|| ErrorKind::UnsupportedMediaType { found: found(), expected }.into())
    }

    /// What it runs on, by its configuration's word; none where that says nothing.
    pub fn platform(&self) -> Option<Platform> {
        self.parts.config.as_ref().and_then(Config::platform)
    }

    /// Its layers, base first.
    ///
    /// # Errors
    ///
    /// * [`ErrorKind::NotFound`]: the store lacks one.
    /// * [`ErrorKind::UnsupportedMediaType`]: it is an artifact.
    /// * [`ErrorKind::InvalidDocument`]: the configuration's `rootfs` is of an unknown type.
    pub fn layers(&self) -> Result<Vec<Layer>> {
        let diff_ids = self.config()?.diff_ids()?;
        let descriptors = self.parts.manifest.layers();
        let count = descriptors.len();
        let layer = |(n, (descriptor, diff_id)): (usize, (&Descriptor, &Digest))| {
            Layer::open(&self.store, descriptor, *diff_id).context(|| format!("layer {} of {count}", n + 1))
        };
        descriptors.iter().zip(diff_ids).enumerate().map(layer).collect()
    }

    /// The size of its content, in bytes: configuration and layers as they are stored and transferred. Layers that
    /// it shares with others are counted.
    pub fn size(&self) -> u64 {
        self.parts.manifest.content_size()
    }

    /// The size of its layers when they are unpacked, in bytes: what `docker images` shows as SIZE.
    ///
    /// Each layer is read whole and counted when this is first asked; the store keeps the number.
    ///
    /// # Errors
    ///
    /// Those of [`layers`](Image::layers) and of [`Layer::unpacked_size`].
    pub fn unpacked_size(&self) -> Result<u64> {
        let mut sum: u64 = 0;
        for (descriptor, diff_id) in self.parts.manifest.layers().iter().zip(self.config()?.diff_ids()?) {
            let size = match self.store.known_size(*diff_id) {
                Some(size) => size,
                None => Layer::open(&self.store, descriptor, *diff_id)?.unpacked_size()?,
            };
            sum = sum.saturating_add(size);
        }
        Ok(sum)
    }

    /// Whether the store has its configuration and all its layers, each in its promised size.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`] if the operating system refuses to say.
    pub fn is_complete(&self) -> Result<bool> {
        self.store.is_whole(&self.parts.manifest)
    }

    /// The same image, as another handle of its store has it.
    pub(crate) fn in_store(&self, store: &Store) -> Image {
        Image { store: store.clone(), parts: Arc::clone(&self.parts) }
    }

    /// The same image, whose blobs are not collected before this is dropped, from the moment at which each is asked for.
    pub(crate) fn held(&self) -> Result<Image> {
        let store = self.store.held()?;
        store.note_use(self.root());
        Ok(Image { store, parts: Arc::clone(&self.parts) })
    }

    /// Fails if the configuration says that the image does not run on `platform`.
    pub(crate) fn check_platform(&self, wanted: &Platform) -> Result<()> {
        self.parts.config.as_ref().map_or(Ok(()), |config| config.check_platform(wanted))
    }
}
