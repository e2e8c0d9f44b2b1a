//! Images of several platforms under one name.

use std::collections::BTreeMap;

use serde_json::json;

use crate::descriptor::Descriptor;
use crate::error::Context;
use crate::error::Error;
use crate::error::Result;
use crate::image::Image;
use crate::media_type::MediaType;
use crate::platform::Platform;
use crate::store::Store;

/// An index that is being put together: several images, each for a platform of its own, that one name can mean.
///
/// ```
/// use layercake::builder::{ImageBuilder, IndexBuilder};
/// use layercake::{ImageReference, Platform};
/// # use layercake::Store;
/// # use layercake::builder::Files;
/// # let dir = tempfile::tempdir()?;
/// # let store = Store::create(dir.path().join("store"))?;
///
/// let mut index = IndexBuilder::new();
/// for platform in ["linux/amd64", "linux/arm64"] {
///     let builder = ImageBuilder::from_scratch(&store, &platform.parse()?);
///     index = index.image(&builder.copy(Files::bytes(platform), "/etc/platform").build()?.image);
/// }
/// let root = index.write(&store)?;
/// store.tag(&"example.com/app:1".parse()?, &root)?;
/// # let name: ImageReference = "example.com/app:1".parse()?;
/// let image = store.image_for(&name, &Platform::new("linux", "arm64"))?;
/// assert_eq!(std::io::read_to_string(image.read_file("/etc/platform")?)?, "linux/arm64");
/// # Ok::<(), layercake::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "nothing is written before `write`"]
pub struct IndexBuilder {
    images: Vec<(Image, Option<Platform>)>,
    annotations: BTreeMap<String, String>,
}

impl IndexBuilder {
    /// Of no images.
    pub fn new() -> IndexBuilder {
        IndexBuilder::default()
    }

    /// Adds an image, for the platform that its configuration names.
    pub fn image(mut self, image: &Image) -> IndexBuilder {
        self.images.push((image.clone(), image.platform()));
        self
    }

    /// Adds an image for a platform, whatever its configuration names: for versions and features of a system, and for
    /// artifacts.
    pub fn image_for(mut self, image: &Image, platform: Platform) -> IndexBuilder {
        self.images.push((image.clone(), Some(platform)));
        self
    }

    /// Sets a note of the index.
    pub fn annotation(mut self, name: &str, value: &str) -> IndexBuilder {
        self.annotations.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Writes the index: Docker's manifest list if all images are Docker's, else OCI's. Nothing is named.
    ///
    /// # Errors
    ///
    /// * [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput): an image names no platform, or two name the same,
    ///   of which the second would never be chosen.
    /// * [`ErrorKind::NotFound`](crate::ErrorKind::NotFound): an image is not in this store.
    /// * [`ErrorKind::ReadOnly`](crate::ErrorKind::ReadOnly),
    ///   [`ErrorKind::StorageFull`](crate::ErrorKind::StorageFull), [`ErrorKind::Io`](crate::ErrorKind::Io): the
    ///   operating system refuses.
    pub fn write(&self, store: &Store) -> Result<Descriptor> {
        self.written(store).context(|| "write an index")
    }

    fn written(&self, store: &Store) -> Result<Descriptor> {
        let mut manifests: Vec<Descriptor> = Vec::new();
        for (image, platform) in &self.images {
            let of_image = || format!("image {}", image.id().short());
            let entry = self.entry(store, image, platform.as_ref()).context(of_image)?;
            if manifests.iter().any(|other| other.platform == entry.platform) {
                let platform = entry.platform.map(|platform| platform.to_string()).unwrap_or_default();
                return Err(Error::invalid_input(format!("two images are for {platform}")));
            }
            manifests.push(entry);
        }
        let is_docker = !manifests.is_empty() && manifests.iter().all(|entry| entry.media_type.is_docker());
        let media_type = if is_docker { MediaType::DOCKER_MANIFEST_LIST } else { MediaType::OCI_INDEX };
        let mut index = json!({ "schemaVersion": 2, "mediaType": media_type, "manifests": manifests });
        if !self.annotations.is_empty() {
            index["annotations"] = json!(self.annotations);
        }
        store.write(media_type, index.to_string().as_bytes())
    }

    fn entry(&self, store: &Store, image: &Image, platform: Option<&Platform>) -> Result<Descriptor> {
        let platform = platform.ok_or_else(|| Error::invalid_input("its configuration names no platform"))?;
        let descriptor = image.descriptor();
        if !store.contains(&descriptor)? {
            return Err(Error::not_found(format!("blob {}", descriptor.digest)));
        }
        Ok(descriptor.with_platform(platform.clone()))
    }
}
