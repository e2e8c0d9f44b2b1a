//! The manifest of one image.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::Bytes;
use super::Root;
use super::parse;

use crate::descriptor::Descriptor;
use crate::digest::Digest;
use crate::error::Error;
use crate::error::Limit;
use crate::error::Result;
use crate::media_type::MediaType;

/// The most layers of an image. Docker stops at 127; nothing honest has a tenth of this.
const MAX_LAYERS: usize = 4096;

/// One image: a configuration and layers (image-spec, manifest.md; Docker's schema 2).
///
/// Invariants: the bytes are a JSON document of at most 8 MiB that no reader can take for an index; the digest is
/// theirs; every descriptor has a digest that can be verified and a size; there are at most 4096 layers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    bytes: Bytes,
    digest: Digest,
    media_type: MediaType,
    config: Descriptor,
    layers: Vec<Descriptor>,
    subject: Option<Descriptor>,
    artifact_type: Option<MediaType>,
    annotations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Fields {
    config: Descriptor,
    layers: Option<Vec<Descriptor>>,
    subject: Option<Descriptor>,
    artifact_type: Option<MediaType>,
    annotations: Option<BTreeMap<String, String>>,
}

impl Manifest {
    /// Reads the bytes of a manifest.
    ///
    /// # Errors
    ///
    /// Those of [`Root::parse`]; an index is [`ErrorKind::InvalidDocument`](crate::ErrorKind::InvalidDocument).
    pub fn parse(bytes: Vec<u8>) -> Result<Manifest> {
        match Root::parse(bytes, None)? {
            Root::Manifest(manifest) => Ok(manifest),
            Root::Index(_) => Err(Error::invalid_document("manifest", "it is an index")),
        }
    }

    pub(super) fn from_parts(bytes: Vec<u8>, digest: Digest, media_type: MediaType) -> Result<Manifest> {
        let Fields { config, layers, subject, artifact_type, annotations } = parse("manifest", &bytes)?;
        let layers = layers.unwrap_or_default();
        if layers.len() > MAX_LAYERS {
            return Err(Error::limit(Limit::Layers, MAX_LAYERS as u64));
        }
        refuse_two_sizes(layers.iter().chain([&config]))?;
        let annotations = annotations.unwrap_or_default();
        Ok(Manifest { bytes: Bytes(bytes), digest, media_type, config, layers, subject, artifact_type, annotations })
    }

    /// The bytes, as they came.
    pub fn raw(&self) -> &[u8] {
        &self.bytes.0
    }

    /// The digest of the bytes.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The type that the document has, by its own word or by the word of whoever pointed to it.
    pub fn media_type(&self) -> &MediaType {
        &self.media_type
    }

    /// Media type, digest and size of the bytes.
    pub fn descriptor(&self) -> Descriptor {
        Descriptor::new(self.media_type.clone(), self.digest, self.bytes.0.len() as u64)
    }

    /// The configuration; of an artifact, whatever it has in its place.
    pub fn config(&self) -> &Descriptor {
        &self.config
    }

    /// The layers, base first; they may be of types that are no layers where this is an artifact.
    pub fn layers(&self) -> &[Descriptor] {
        &self.layers
    }

    /// The manifest that this one says something about (distribution-spec, "Listing Referrers").
    pub fn subject(&self) -> Option<&Descriptor> {
        self.subject.as_ref()
    }

    /// The type of the artifact; of older artifacts, that of their configuration (image-spec, manifest.md). Images
    /// have none.
    pub fn artifact_type(&self) -> Option<&MediaType> {
        let config_type = Some(&self.config.media_type).filter(|media_type| !media_type.is_config());
        self.artifact_type.as_ref().or(config_type)
    }

    /// Notes: arbitrary names and values.
    pub fn annotations(&self) -> &BTreeMap<String, String> {
        &self.annotations
    }

    /// The bytes that a pull of this image moves at most: configuration and layers, as they are stored.
    pub fn content_size(&self) -> u64 {
        self.layers.iter().fold(self.config.size, |sum, layer| sum.saturating_add(layer.size))
    }
}

/// One of two sizes for one digest is a lie.
fn refuse_two_sizes<'a>(blobs: impl Iterator<Item = &'a Descriptor>) -> Result<()> {
    let mut sizes = BTreeMap::new();
    for blob in blobs {
        if *sizes.entry(blob.digest).or_insert(blob.size) != blob.size {
            return Err(Error::invalid_document("manifest", format!("two sizes for {}", blob.digest)));
        }
    }
    Ok(())
}
