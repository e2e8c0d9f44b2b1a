//! Media types: what the bytes behind a descriptor are.
//!
//! [`MediaType`] keeps whatever text it was given, and answers questions about it: is it an index, a manifest, a
//! configuration, a layer? It knows the OCI spelling and Docker's. A type that nobody has heard of is no error
//! (image-spec, media-types.md).
//!
//! ```
//! use layercake::MediaType;
//!
//! assert!(MediaType::DOCKER_MANIFEST_LIST.is_index());
//! assert!(MediaType::from("application/vnd.oci.image.layer.v1.tar+zstd").is_layer());
//! assert_eq!(MediaType::from("application/vnd.example+json").as_str(), "application/vnd.example+json");
//! ```

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::Serialize;

/// A media type, as it was written.
///
/// It is equal to another if the text is; [`essence`](MediaType::essence) is the text without parameters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MediaType(Cow<'static, str>);

impl MediaType {
    /// An OCI image index.
    pub const OCI_INDEX: MediaType = MediaType::known("application/vnd.oci.image.index.v1+json");
    /// An OCI image manifest.
    pub const OCI_MANIFEST: MediaType = MediaType::known("application/vnd.oci.image.manifest.v1+json");
    /// An OCI image configuration.
    pub const OCI_CONFIG: MediaType = MediaType::known("application/vnd.oci.image.config.v1+json");
    /// An OCI layer: a plain tar.
    pub const OCI_LAYER: MediaType = MediaType::known("application/vnd.oci.image.layer.v1.tar");
    /// An OCI layer: a tar in gzip.
    pub const OCI_LAYER_GZIP: MediaType = MediaType::known("application/vnd.oci.image.layer.v1.tar+gzip");
    /// An OCI layer: a tar in zstd.
    pub const OCI_LAYER_ZSTD: MediaType = MediaType::known("application/vnd.oci.image.layer.v1.tar+zstd");
    /// The OCI descriptor of nothing: two bytes, `{}`.
    pub const OCI_EMPTY: MediaType = MediaType::known("application/vnd.oci.empty.v1+json");
    /// A Docker manifest list, which is an index.
    pub const DOCKER_MANIFEST_LIST: MediaType =
        MediaType::known("application/vnd.docker.distribution.manifest.list.v2+json");
    /// A Docker image manifest, schema 2.
    pub const DOCKER_MANIFEST: MediaType = MediaType::known("application/vnd.docker.distribution.manifest.v2+json");
    /// A Docker image configuration.
    pub const DOCKER_CONFIG: MediaType = MediaType::known("application/vnd.docker.container.image.v1+json");
    /// A Docker layer: a tar in gzip.
    pub const DOCKER_LAYER_GZIP: MediaType = MediaType::known("application/vnd.docker.image.rootfs.diff.tar.gzip");
    /// Any bytes.
    pub const OCTET_STREAM: MediaType = MediaType::known("application/octet-stream");

    /// The four that a registry may answer a request for an image with: what the `Accept` header lists.
    pub const MANIFESTS: [MediaType; 4] =
        [MediaType::OCI_INDEX, MediaType::OCI_MANIFEST, MediaType::DOCKER_MANIFEST_LIST, MediaType::DOCKER_MANIFEST];

    const fn known(text: &'static str) -> MediaType {
        MediaType(Cow::Borrowed(text))
    }

    /// The text, as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The text without parameters: `text/plain` of `text/plain; charset=utf-8`.
    pub fn essence(&self) -> &str {
        self.0.split(';').next().unwrap_or_default().trim()
    }

    /// Whether this is an index or a Docker manifest list: a document that lists manifests.
    pub fn is_index(&self) -> bool {
        matches!(
            self.essence(),
            "application/vnd.oci.image.index.v1+json" | "application/vnd.docker.distribution.manifest.list.v2+json"
        )
    }

    /// Whether this is an image manifest: a document that names a configuration and layers.
    pub fn is_manifest(&self) -> bool {
        matches!(
            self.essence(),
            "application/vnd.oci.image.manifest.v1+json" | "application/vnd.docker.distribution.manifest.v2+json"
        )
    }

    /// Whether this is a Docker manifest of schema 1, which this crate refuses by name.
    pub fn is_schema1(&self) -> bool {
        self.essence().starts_with("application/vnd.docker.distribution.manifest.v1+")
    }

    /// Whether this is the configuration of an image, which may be parsed as one.
    pub fn is_config(&self) -> bool {
        matches!(
            self.essence(),
            "application/vnd.oci.image.config.v1+json" | "application/vnd.docker.container.image.v1+json"
        )
    }

    /// Whether this is a layer of a root file system, in any compression.
    pub fn is_layer(&self) -> bool {
        let essence = self.essence();
        essence.starts_with("application/vnd.oci.image.layer.")
            || essence.starts_with("application/vnd.docker.image.rootfs.")
    }

    /// Whether the content is a tar, plain or compressed, by any vendor's name: one part of the type is `tar`. An encrypted
    /// tar is not one.
    pub fn is_tar(&self) -> bool {
        !self.is_encrypted() && self.parts().any(|part| part == "tar" || part == "x-tar")
    }

    /// Whether the content is encrypted (ocicrypt: the suffix `+encrypted`).
    pub fn is_encrypted(&self) -> bool {
        self.parts().any(|part| part == "encrypted")
    }

    fn parts(&self) -> impl Iterator<Item = &str> {
        self.essence().split(['/', '.', '+'])
    }

    /// Whether this is a layer that should not be pushed to registries (image-spec, layer.md, "Non-Distributable
    /// Layers"; Docker's "foreign").
    pub fn is_nondistributable(&self) -> bool {
        let essence = self.essence();
        essence.starts_with("application/vnd.oci.image.layer.nondistributable.")
            || essence.starts_with("application/vnd.docker.image.rootfs.foreign.")
    }

    /// Whether the spelling is Docker's rather than OCI's.
    pub fn is_docker(&self) -> bool {
        self.essence().starts_with("application/vnd.docker.")
    }
}

impl fmt::Display for MediaType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl From<&str> for MediaType {
    fn from(text: &str) -> MediaType {
        MediaType(Cow::Owned(text.to_owned()))
    }
}

impl From<String> for MediaType {
    fn from(text: String) -> MediaType {
        MediaType(Cow::Owned(text))
    }
}

impl AsRef<str> for MediaType {
    fn as_ref(&self) -> &str {
        &self.0
    }
}
