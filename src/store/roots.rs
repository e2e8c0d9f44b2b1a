//! From a root to a manifest, with what the store has.

use serde_json::json;

use super::Store;

use crate::descriptor::Descriptor;
use crate::error::Context;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::manifest::Config;
use crate::manifest::Manifest;
use crate::manifest::Root;
use crate::manifest::choose;
use crate::media_type::MediaType;
use crate::platform::Platform;

impl Store {
    /// The manifest or index that a descriptor promises, read and verified.
    pub(crate) fn document(&self, descriptor: &Descriptor) -> Result<Root> {
        let parse = || Root::of(descriptor, self.read(descriptor)?);
        parse().context(|| format!("document {}", descriptor.digest))
    }

    /// The manifest for a platform.
    pub(crate) fn manifest_for(&self, root: &Descriptor, platform: &Platform) -> Result<Manifest> {
        self.choose(self.document(root)?, platform)
    }

    /// The manifest for the host's platform; where the store does not have that image whole, the first of the index
    /// that it has whole. So an image that is only half here, after a pull that failed, takes no name away.
    pub(crate) fn manifest_at(&self, root: &Descriptor) -> Result<Manifest> {
        let document = match self.document(root)? {
            Root::Manifest(manifest) => return Ok(manifest),
            index => index,
        };
        let host = self.choose(document.clone(), &Platform::host());
        match &host {
            Ok(manifest) if self.is_whole(manifest)? => return host,
            Err(error) if !is_absent(error) => return host,
            _ => {}
        }
        match self.first_whole(&document)? {
            Some(other) => Ok(other),
            None => host,
        }
    }

    fn choose(&self, document: Root, platform: &Platform) -> Result<Manifest> {
        choose(document, platform, &mut |entry| self.document(entry), &mut |manifest| self.platform_of(manifest))
    }

    /// What an image runs on, by its configuration's word.
    fn platform_of(&self, manifest: &Manifest) -> Result<Option<Platform>> {
        Ok(self.configuration(manifest)?.and_then(|config| config.platform()))
    }

    /// The configuration of an image; artifacts have none.
    pub(crate) fn configuration(&self, manifest: &Manifest) -> Result<Option<Config>> {
        let descriptor = manifest.config();
        if !descriptor.media_type.is_config() {
            return Ok(None);
        }
        Config::with_digest(self.read(descriptor)?, descriptor.digest).map(Some)
    }

    /// Whether configuration and layers are here, each in its promised size.
    pub(crate) fn is_whole(&self, manifest: &Manifest) -> Result<bool> {
        for blob in [manifest.config()].into_iter().chain(manifest.layers()) {
            if !self.contains(blob)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The first image of an index that is whole, whatever its platform; nested indexes are left aside.
    fn first_whole(&self, document: &Root) -> Result<Option<Manifest>> {
        let Root::Index(index) = document else { return Ok(None) };
        let image = |entry: &&Descriptor| entry.media_type.is_manifest() && !entry.is_attestation();
        for entry in index.manifests().iter().filter(image) {
            if !self.contains(entry)? {
                continue;
            }
            if let Ok(Root::Manifest(manifest)) = self.document(entry)
                && self.is_whole(&manifest)?
            {
                return Ok(Some(manifest));
            }
        }
        Ok(None)
    }

    /// An OCI manifest for tools that cannot read the root itself: of an index the image's, of Docker's types the
    /// same with OCI's names. None where the root is such a manifest, or leads to none that is here.
    pub(super) fn view(&self, root: &Descriptor) -> Result<Option<Descriptor>> {
        let media_type = &root.media_type;
        let needed = media_type.is_index() || (media_type.is_manifest() && media_type.is_docker());
        if !needed {
            return Ok(None);
        }
        let manifest = match self.manifest_at(root) {
            Ok(manifest) => manifest,
            Err(error) if matches!(error.kind(), ErrorKind::Io { .. }) => return Err(error),
            // Nothing that can be shown; the root has its name all the same.
            Err(_) => return Ok(None),
        };
        match oci_twin(&manifest) {
            Some(twin) => self.write(MediaType::OCI_MANIFEST, twin.as_bytes()).map(Some),
            None if manifest.media_type().is_docker() => Ok(None),
            None => Ok(Some(manifest.descriptor())),
        }
    }
}

/// The same manifest with OCI's names for Docker's types; none if it has no such types, or others too.
pub(crate) fn oci_twin(manifest: &Manifest) -> Option<String> {
    if !manifest.media_type().is_docker() {
        return None;
    }
    let twin = |blob: &Descriptor| {
        let media_type = MediaType::from(oci_name(blob.media_type.essence())?);
        Some(Descriptor::new(media_type, blob.digest, blob.size))
    };
    let config = twin(manifest.config())?;
    let layers: Vec<Descriptor> = manifest.layers().iter().map(twin).collect::<Option<_>>()?;
    let twin = json!({
        "schemaVersion": 2, "mediaType": MediaType::OCI_MANIFEST, "config": config, "layers": layers,
    });
    Some(twin.to_string())
}

/// image-spec, media-types.md, "Compatibility Matrix".
fn oci_name(docker: &str) -> Option<&'static str> {
    Some(match docker {
        "application/vnd.docker.container.image.v1+json" => "application/vnd.oci.image.config.v1+json",
        "application/vnd.docker.image.rootfs.diff.tar" => "application/vnd.oci.image.layer.v1.tar",
        "application/vnd.docker.image.rootfs.diff.tar.gzip" => "application/vnd.oci.image.layer.v1.tar+gzip",
        "application/vnd.docker.image.rootfs.diff.tar.zstd" => "application/vnd.oci.image.layer.v1.tar+zstd",
        "application/vnd.docker.image.rootfs.foreign.diff.tar" => {
            "application/vnd.oci.image.layer.nondistributable.v1.tar"
        }
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip" => {
            "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
        }
        _ => return None,
    })
}

/// Whether an error says that the image for the platform is not here, rather than that something is wrong.
fn is_absent(error: &Error) -> bool {
    error.is_as_good_as_missing() || matches!(error.kind(), ErrorKind::NoMatchingPlatform { .. })
}
