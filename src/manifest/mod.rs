//! Documents: the bytes as they came, and a typed view beside them.
//!
//! * [`Root`] is what a name leads to: a [`Manifest`] or an [`Index`].
//! * [`Manifest`] is one image: a configuration and layers.
//! * [`Index`] lists manifests, usually one for each platform.
//! * [`Config`] is what an image runs and how it was made; a [`ConfigEdit`] is what is to be otherwise in another one.
//!
//! A document is never written anew: [`raw`](Manifest::raw) gives the bytes that came, and its digest is theirs.
//! Fields that nobody has heard of are in there too; the typed view leaves them out.
//!
//! ```
//! use layercake::manifest::Root;
//!
//! let bytes = br#"{"schemaVersion":2,
//!   "config":{"mediaType":"application/vnd.oci.image.config.v1+json","size":2,
//!     "digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"},
//!   "layers":null,"com.example.note":1}"#;
//! let Root::Manifest(manifest) = Root::parse(bytes.to_vec(), None)? else { panic!("an index") };
//! assert!(manifest.layers().is_empty());
//! assert_eq!(manifest.raw(), bytes);
//! # Ok::<(), layercake::Error>(())
//! ```
//!
//! Refused are documents that could be read as two kinds (CVE-2021-41190) or in two ways, Docker's schema 1, and
//! documents of more than [`MAX_DOCUMENT`] bytes. A document has two readings where a field comes twice, or where the
//! name of a known field is written in another case: Go's tools take `Layers` for `layers`. Names in free maps, such as
//! annotations and labels, may differ in case.

mod choose;
mod config;
mod edit;
mod image;
mod index;
mod object;
#[cfg(feature = "oci-spec")]
mod oci;

use std::fmt;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde::de::IgnoredAny;

use crate::descriptor::Descriptor;
use crate::digest::Algorithm;
use crate::digest::Digest;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Limit;
use crate::error::Result;
use crate::json;
use crate::json::Shape;
use crate::media_type::MediaType;

pub(crate) use choose::MAX_DEPTH;
pub(crate) use choose::choose;
pub use config::Config;
pub use config::History;
pub(crate) use config::seconds_of;
pub use edit::ConfigEdit;
pub use image::Manifest;
pub use index::Index;
pub(crate) use object::Object;

/// The most bytes of a manifest, an index or a configuration: 8 MiB (distribution-spec, "Pushing Manifests", asks
/// for at least 4 MB).
pub const MAX_DOCUMENT: u64 = 8 << 20;

/// What a name leads to.
#[expect(clippy::large_enum_variant, reason = "a root is read once and taken apart at once")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Root {
    /// One image.
    Manifest(Manifest),
    /// A list of images.
    Index(Index),
}

impl Root {
    /// Reads a manifest or an index. `expected` is what the descriptor or the `Content-Type` says it is, if
    /// something said so.
    ///
    /// # Errors
    ///
    /// * [`ErrorKind::LimitExceeded`]: more than [`MAX_DOCUMENT`] bytes.
    /// * [`ErrorKind::Schema1`]: a manifest of Docker's schema 1.
    /// * [`ErrorKind::UnsupportedMediaType`]: `expected`, or the document's own `mediaType`, is neither a manifest's
    ///   nor an index's.
    /// * [`ErrorKind::InvalidDocument`]: no JSON, `expected` and the document's own `mediaType` differ
    ///   (distribution-spec, "Pulling manifests"), fields of both kinds, required fields missing.
    pub fn parse(bytes: Vec<u8>, expected: Option<&MediaType>) -> Result<Root> {
        Root::with_algorithm(bytes, expected, Algorithm::Sha256)
    }

    /// The same, with the digest made by another algorithm.
    pub(crate) fn with_algorithm(bytes: Vec<u8>, expected: Option<&MediaType>, algorithm: Algorithm) -> Result<Root> {
        check_size(&bytes)?;
        if expected.is_some_and(MediaType::is_schema1) {
            return Err(ErrorKind::Schema1.into());
        }
        let probe: Probe = parse("manifest", &bytes)?;
        refuse_ambiguity("manifest", &bytes, &json::DOCUMENT)?;
        let media_type = probe.media_type(expected)?;
        let digest = Digest::of(algorithm, &bytes);
        if media_type.is_index() {
            probe.refuse_manifest()?;
            Ok(Root::Index(Index::from_parts(bytes, digest, media_type)?))
        } else {
            probe.refuse_index()?;
            Ok(Root::Manifest(Manifest::from_parts(bytes, digest, media_type)?))
        }
    }

    /// Reads the content that `descriptor` promised, after checking that it is that.
    ///
    /// # Errors
    ///
    /// Those of [`parse`](Root::parse), [`ErrorKind::SizeMismatch`] and [`ErrorKind::DigestMismatch`].
    pub fn of(descriptor: &Descriptor, bytes: Vec<u8>) -> Result<Root> {
        crate::verify::check(descriptor, &bytes)?;
        Root::with_algorithm(bytes, Some(&descriptor.media_type), descriptor.digest.algorithm())
    }

    /// The bytes, as they came.
    pub fn raw(&self) -> &[u8] {
        match self {
            Root::Manifest(manifest) => manifest.raw(),
            Root::Index(index) => index.raw(),
        }
    }

    /// Media type, digest and size of the bytes.
    pub fn descriptor(&self) -> Descriptor {
        match self {
            Root::Manifest(manifest) => manifest.descriptor(),
            Root::Index(index) => index.descriptor(),
        }
    }
}

/// The bytes of a document. [`Debug`](fmt::Debug) shows only how many.
#[derive(Clone, PartialEq, Eq)]
struct Bytes(Vec<u8>);

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// The fields that tell documents apart.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Probe {
    schema_version: Option<i64>,
    media_type: Option<MediaType>,
    config: Option<IgnoredAny>,
    layers: Option<IgnoredAny>,
    manifests: Option<IgnoredAny>,
    fs_layers: Option<IgnoredAny>,
    history: Option<IgnoredAny>,
}

impl Probe {
    /// What the document is: what was expected, what it says itself, or what its fields show, and no contradiction.
    fn media_type(&self, expected: Option<&MediaType>) -> Result<MediaType> {
        if self.fs_layers.is_some() || self.schema_version == Some(1) {
            return Err(ErrorKind::Schema1.into());
        }
        if self.schema_version != Some(2) {
            return Err(Error::invalid_document("manifest", "schemaVersion is not 2"));
        }
        let own = self.media_type.as_ref().filter(|own| !own.as_str().is_empty());
        let found = match (expected, own) {
            (Some(expected), Some(own)) if expected.essence() != own.essence() => {
                let reason = format!("its mediaType is {:?}, expected {:?}", own.as_str(), expected.as_str());
                return Err(Error::invalid_document("manifest", reason));
            }
            (_, Some(own)) => own.clone(),
            (Some(expected), None) => expected.clone(),
            (None, None) if self.manifests.is_some() => MediaType::OCI_INDEX,
            (None, None) if self.config.is_some() || self.layers.is_some() => MediaType::OCI_MANIFEST,
            (None, None) => MediaType::OCI_INDEX,
        };
        if !found.is_index() && !found.is_manifest() {
            let expected = "an image manifest or index, OCI's or Docker's schema 2";
            return Err(ErrorKind::UnsupportedMediaType { found, expected }.into());
        }
        Ok(MediaType::from(found.essence()))
    }

    fn refuse_manifest(&self) -> Result<()> {
        let both = self.config.is_some() || self.layers.is_some() || self.history.is_some();
        refuse(both, "an index with the fields of a manifest")
    }

    fn refuse_index(&self) -> Result<()> {
        refuse(self.manifests.is_some(), "a manifest with the field `manifests` of an index")
    }
}

/// CVE-2021-41190: a document that one reader takes for a manifest and another for an index.
fn refuse(both: bool, what: &str) -> Result<()> {
    if both { Err(Error::invalid_document("manifest", format!("ambiguous: {what}"))) } else { Ok(()) }
}

/// Fails where Go would read the fields otherwise.
fn refuse_ambiguity(document: &'static str, bytes: &[u8], shape: &'static Shape) -> Result<()> {
    json::check(bytes, shape).map_err(|ambiguity| Error::invalid_document(document, ambiguity))
}

fn check_size(bytes: &[u8]) -> Result<()> {
    if bytes.len() as u64 > MAX_DOCUMENT {
        return Err(Error::limit(Limit::DocumentSize, MAX_DOCUMENT));
    }
    Ok(())
}

fn parse<T: DeserializeOwned>(document: &'static str, bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|error| Error::invalid_document(document, error))
}
