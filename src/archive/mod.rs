//! Images as files: `docker load`, `docker save` and `docker import`.
//!
//! * [`load`] reads an archive into a store: what `docker save` writes, old and new, or an OCI layout in a tar.
//!   [`Loaded`] says what it had; nothing is named.
//! * [`save`] writes images of a store as an archive, in either [`Format`], the same bytes each time.
//! * [`import`] makes an image of one layer of a tarball of a root file system.
//!
//! All three go from or to pipes: nothing is sought, and nothing is in memory but documents. What comes in may be
//! compressed, with gzip or zstd; that is found by its content, and so is what kind of archive it is.
//!
//! ```
//! use layercake::archive::{self, Format};
//! use layercake::{ImageReference, Store};
//!
//! # let dir = tempfile::tempdir()?;
//! # let here = Store::create(dir.path().join("here"))?;
//! # let there = Store::create(dir.path().join("there"))?;
//! # let name: ImageReference = "example.com/greeter:1".parse()?;
//! # layercake::testing::Fixture::demo().tag(&here, &name)?;
//! let mut tar = Vec::new();
//! archive::save(&here, [&name]).format(Format::Docker).to(&mut tar)?;
//!
//! let loaded = archive::load(&tar[..]).to(&there)?;
//! for image in &loaded.images {
//!     for name in &image.names {
//!         there.tag(name, &image.root)?;
//!     }
//! }
//! assert_eq!(there.image(&name)?.id(), here.image(&name)?.id());
//! # Ok::<(), layercake::Error>(())
//! ```
//!
//! It does not: read archives of Docker before 1.10 (2016), which have no `manifest.json`; or decompress xz and bzip2.

mod at_most;
mod docker;
mod import;
mod intake;
mod load;
mod members;
mod oci;
mod plan;
mod save;
mod tarball;

use std::io::Read;

use crate::store::Name;
use crate::store::Store;

pub use import::Import;
pub(crate) use import::take_layer;
pub use load::Load;
pub use plan::Loaded;
pub use plan::LoadedImage;
pub use save::Format;
pub use save::Save;

/// Reads an archive of images: `docker load`. [`Load::to`] says where to.
///
/// An archive has an OCI layout, as `skopeo copy … oci-archive:` and `docker save` since version 25 write it, or only
/// Docker's `manifest.json`, of which manifests are made: with OCI's media types, the configurations and layers as they
/// are, so that the ids of images stay. Their layers are verified by their diff ids; those of a layout by their digests,
/// and by their diff ids when they are unpacked.
///
/// ```no_run
/// # fn example() -> layercake::Result<()> {
/// use layercake::{Store, archive};
///
/// let store = Store::open_or_create("/var/lib/layercake")?;
/// let loaded = archive::load(std::io::stdin()).to(&store)?;
/// for image in loaded.images {
///     println!("{}: {:?}", image.root.digest, image.names);
/// }
/// # Ok(())
/// # }
/// ```
pub fn load<'a, R: Read>(reader: R) -> Load<'a, R> {
    Load::new(reader)
}

/// Writes images of a store as an archive: `docker save`. [`Save::to`] says where to.
///
/// ```
/// # use layercake::{ImageReference, Store, archive};
/// # let dir = tempfile::tempdir()?;
/// # let store = Store::create(dir.path().join("store"))?;
/// # let (first, second): (ImageReference, ImageReference) = ("a:1".parse()?, "b:1".parse()?);
/// # layercake::testing::Fixture::demo().tag(&store, &first)?;
/// # layercake::testing::Fixture::demo().tag(&store, &second)?;
/// let file = std::fs::File::create(dir.path().join("images.tar"))?;
/// archive::save(&store, [&first, &second]).platform("linux/arm64".parse()?).to(file)?;
/// # Ok::<(), layercake::Error>(())
/// ```
pub fn save<'a>(store: &Store, names: impl IntoIterator<Item = impl Into<Name>>) -> Save<'a> {
    Save::new(store, names.into_iter().map(Into::into).collect())
}

/// Makes an image of a tarball: `docker import`. [`Import::to`] says where to.
///
/// The tarball, compressed or not, becomes the only layer as it is. The same tarball and settings make the same image.
///
/// ```
/// use layercake::{Store, archive, manifest::ConfigEdit};
///
/// # let dir = tempfile::tempdir()?;
/// # let store = Store::create(dir.path().join("store"))?;
/// # let tarball = [0; 1024];
/// let image = archive::import(&tarball[..]).config(ConfigEdit::new().cmd(["/bin/sh"])).to(&store)?;
/// store.tag(&"example.com/base:1".parse()?, &image)?;
/// assert_eq!(store.image_at(&image)?.config()?.cmd(), ["/bin/sh"]);
/// # Ok::<(), layercake::Error>(())
/// ```
pub fn import<R: Read>(tarball: R) -> Import<R> {
    Import::new(tarball)
}
