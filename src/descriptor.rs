//! Descriptors: promises of content.
//!
//! A [`Descriptor`] says of some content what it is, how long it is and what its digest is. It is plain data that
//! anyone may write; what makes it true is reading the content through something that checks it, as
//! [`Store`](crate::Store) and [`Registry`](crate::Registry) do.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::Deserializer;
use serde::Serialize;

use crate::digest::Digest;
use crate::media_type::MediaType;
use crate::platform::Platform;

/// What content is, how long, and its digest (image-spec, descriptor.md). A promise, not a proof.
///
/// Fields that the specification does not list are not kept here; documents keep their own bytes.
///
/// ```
/// use layercake::{Descriptor, Digest, MediaType};
///
/// let empty = Descriptor::new(MediaType::OCI_EMPTY, Digest::sha256(b"{}"), 2);
/// let json = serde_json::to_string(&empty)?;
/// assert_eq!(serde_json::from_str::<Descriptor>(&json)?, empty);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What the content is.
    pub media_type: MediaType,
    /// The digest of the content.
    pub digest: Digest,
    /// The length of the content in bytes; at most `i64::MAX`.
    #[serde(deserialize_with = "size")]
    pub size: u64,
    /// What the image behind the descriptor runs on; only entries of an index have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// Notes: arbitrary names and values.
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// The type of the artifact that the content is a manifest of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<MediaType>,
    /// Other places that claim to have the content. This crate never fetches from them (CVE-2020-15157).
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<String>,
    /// A copy of the content in base64, as it was written; unverified.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
}

impl Descriptor {
    /// A descriptor with the three parts that every one has.
    pub fn new(media_type: MediaType, digest: Digest, size: u64) -> Descriptor {
        Descriptor {
            media_type,
            digest,
            size,
            platform: None,
            annotations: BTreeMap::new(),
            artifact_type: None,
            urls: Vec::new(),
            data: None,
        }
    }

    /// The descriptor of `content`, by SHA-256.
    pub fn of(media_type: MediaType, content: &[u8]) -> Descriptor {
        Descriptor::new(media_type, Digest::sha256(content), content.len() as u64)
    }

    /// The same for content that runs on `platform`.
    #[must_use = "the descriptor itself is not changed"]
    pub fn with_platform(self, platform: Platform) -> Descriptor {
        Descriptor { platform: Some(platform), ..self }
    }

    /// Whether both promise the same content: equal digest and size, whatever the notes say.
    pub fn same_content(&self, other: &Descriptor) -> bool {
        self.digest == other.digest && self.size == other.size
    }

    /// Whether this is an entry that a build tool wrote for an attestation, which nothing can run.
    pub fn is_attestation(&self) -> bool {
        self.annotations.contains_key("vnd.docker.reference.type")
            || self.platform.as_ref().is_some_and(Platform::is_unknown)
    }
}

/// A size is an int64 that is not negative (image-spec, descriptor.md, `size`).
fn size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let size = i64::deserialize(deserializer)?;
    u64::try_from(size).map_err(|_| serde::de::Error::custom(format_args!("negative size {size}")))
}

/// `null` where the wild has it: absent.
fn null_is_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
