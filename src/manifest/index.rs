//! A list of images.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::Bytes;
use super::Root;
use super::parse;

use crate::descriptor::Descriptor;
use crate::digest::Digest;
use crate::digest::ParseDigestError;
use crate::error::Error;
use crate::error::Result;
use crate::media_type::MediaType;
use crate::platform::Platform;

/// A list of manifests, usually one for each platform (image-spec, image-index.md; Docker's manifest list).
///
/// Invariants: the bytes are a JSON document of at most 8 MiB that no reader can take for a manifest; the digest is
/// theirs. Entries whose digests this crate cannot verify are not among the [`manifests`](Index::manifests).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Index {
    bytes: Bytes,
    digest: Digest,
    media_type: MediaType,
    manifests: Vec<Descriptor>,
    subject: Option<Descriptor>,
    artifact_type: Option<MediaType>,
    annotations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Fields {
    manifests: Option<Vec<Box<RawValue>>>,
    subject: Option<Descriptor>,
    artifact_type: Option<MediaType>,
    annotations: Option<BTreeMap<String, String>>,
}

impl Index {
    /// Reads the bytes of an index.
    ///
    /// # Errors
    ///
    /// Those of [`Root::parse`]; a manifest is [`ErrorKind::InvalidDocument`](crate::ErrorKind::InvalidDocument).
    pub fn parse(bytes: Vec<u8>) -> Result<Index> {
        match Root::parse(bytes, None)? {
            Root::Index(index) => Ok(index),
            Root::Manifest(_) => Err(Error::invalid_document("index", "it is a manifest")),
        }
    }

    pub(super) fn from_parts(bytes: Vec<u8>, digest: Digest, media_type: MediaType) -> Result<Index> {
        let fields: Fields = parse("index", &bytes)?;
        let mut manifests = Vec::new();
        for entry in fields.manifests.unwrap_or_default() {
            manifests.extend(verifiable(&entry)?);
        }
        let annotations = fields.annotations.unwrap_or_default();
        let Fields { subject, artifact_type, .. } = fields;
        Ok(Index { bytes: Bytes(bytes), digest, media_type, manifests, subject, artifact_type, annotations })
    }

    /// The bytes, as they came.
    pub fn raw(&self) -> &[u8] {
        &self.bytes.0
    }

    /// The digest of the bytes: what `docker pull` reports and what "is there something newer" compares.
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

    /// The entries, in the index's order; of any type.
    pub fn manifests(&self) -> &[Descriptor] {
        &self.manifests
    }

    /// The manifest that this index says something about.
    pub fn subject(&self) -> Option<&Descriptor> {
        self.subject.as_ref()
    }

    /// The type of the artifact, if this is one.
    pub fn artifact_type(&self) -> Option<&MediaType> {
        self.artifact_type.as_ref()
    }

    /// Notes: arbitrary names and values.
    pub fn annotations(&self) -> &BTreeMap<String, String> {
        &self.annotations
    }

    /// The platforms that the entries name, without attestations, in the index's order.
    pub fn platforms(&self) -> Vec<Platform> {
        self.images().filter_map(|entry| entry.platform.clone()).collect()
    }

    /// The entry to run on `platform`: of the best of its [preferences](Platform::preferences) that any entry has,
    /// the first such entry (image-spec, image-index.md). Attestations are skipped.
    pub fn select(&self, platform: &Platform) -> Option<&Descriptor> {
        platform.preferences().find_map(|preferred| {
            self.images().find(|entry| entry.platform.as_ref().is_some_and(|found| preferred.accepts(found)))
        })
    }

    /// The entries that can be images, or lead to some.
    pub(super) fn images(&self) -> impl Iterator<Item = &Descriptor> {
        let image = |entry: &&Descriptor| entry.media_type.is_manifest() || entry.media_type.is_index();
        self.manifests.iter().filter(image).filter(|entry| !entry.is_attestation())
    }
}

/// The entry, unless its digest is of an algorithm that is only unknown here (image-spec, descriptor.md: such
/// digests should pass validation).
fn verifiable(entry: &RawValue) -> Result<Option<Descriptor>> {
    #[derive(Deserialize)]
    struct Named {
        digest: String,
    }
    let invalid = |error| Error::invalid_document("index", error);
    let named: Named = serde_json::from_str(entry.get()).map_err(invalid)?;
    match named.digest.parse::<Digest>() {
        Err(ParseDigestError::UnsupportedAlgorithm(_)) => Ok(None),
        _ => serde_json::from_str(entry.get()).map(Some).map_err(invalid),
    }
}
