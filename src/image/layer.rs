//! One layer of an image.

use std::io;
use std::io::BufReader;
use std::io::Read;

use crate::changeset::Promise;
use crate::changeset::Source;
use crate::compression::Bound;
use crate::compression::Decoder;
use crate::descriptor::Descriptor;
use crate::digest::Digest;
use crate::error::Context;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::media_type::MediaType;
use crate::store::BlobReader;
use crate::store::Store;
use crate::verify::VerifiedReader;

const BUFFER: usize = 64 << 10;

/// A set of changes to a root file system: a tar, usually compressed.
///
/// It is a proof: it exists only if its blob was in the store, verified when it came in, at the moment it was
/// opened. Both readers verify again.
#[derive(Clone, Debug)]
pub struct Layer {
    store: Store,
    descriptor: Descriptor,
    diff_id: Digest,
}

impl Layer {
    pub(super) fn open(store: &Store, descriptor: &Descriptor, diff_id: Digest) -> Result<Layer> {
        if !store.contains(descriptor)? {
            return Err(Error::not_found(format!("blob {}", descriptor.digest)));
        }
        Ok(Layer { store: store.clone(), descriptor: descriptor.clone(), diff_id })
    }

    /// The digest of the blob, as it is stored and transferred.
    pub fn digest(&self) -> Digest {
        self.descriptor.digest
    }

    /// The digest of the tar inside, over all its bytes (image-spec, config.md, "Layer DiffID").
    pub fn diff_id(&self) -> Digest {
        self.diff_id
    }

    /// What the manifest says it is. Of its compression that is only a hint.
    pub fn media_type(&self) -> &MediaType {
        &self.descriptor.media_type
    }

    /// The size of the blob, in bytes.
    pub fn size(&self) -> u64 {
        self.descriptor.size
    }

    /// The blob's media type, digest, size and notes.
    pub fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    /// A reader of the blob as it is stored; it ends only if size and digest held.
    ///
    /// # Errors
    ///
    /// Those of [`Store::blob`].
    pub fn compressed(&self) -> Result<BlobReader> {
        self.store.blob(&self.descriptor)
    }

    /// A reader of the tar inside; it ends only if the blob's size and digest and the diff id held.
    ///
    /// The compression is found by the content. A reader that unpacks to more than a terabyte, or to more than a
    /// gigabyte and 1100 times the blob, fails with [`ErrorKind::LimitExceeded`](crate::ErrorKind::LimitExceeded).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::UnsupportedMediaType`](crate::ErrorKind::UnsupportedMediaType) if the layer is encrypted, or of a type
    /// that is not a tar. Those of [`Store::blob`]; [`ErrorKind::Compression`](crate::ErrorKind::Compression) if the blob is zstd and
    /// the feature `zstd` is off. The reader fails with that kind on bytes that no decoder takes, and with
    /// [`ErrorKind::DigestMismatch`](crate::ErrorKind::DigestMismatch).
    pub fn uncompressed(&self) -> Result<impl Read + use<>> {
        check_is_tar(&self.descriptor)?;
        let blob = BufReader::with_capacity(BUFFER, self.compressed()?);
        let decoder = Decoder::new(blob, Bound::for_layer(self.descriptor.size))?;
        Ok(VerifiedReader::of_digest(decoder, self.diff_id))
    }

    /// What reads the layer for it to be applied, and verifies it.
    pub(crate) fn source(&self) -> Result<Source<'static>> {
        check_is_tar(&self.descriptor)?;
        let stream = Box::new(self.store.open_blob(&self.descriptor)?);
        Ok(Source { stream, promise: Some(Promise { blob: Some(self.descriptor.clone()), diff_id: self.diff_id }) })
    }

    /// The size of the tar inside, in bytes. It is counted when this is first asked, and kept in the store.
    ///
    /// # Errors
    ///
    /// Those of [`uncompressed`](Layer::uncompressed) and its reader.
    pub fn unpacked_size(&self) -> Result<u64> {
        if let Some(size) = self.store.known_size(self.diff_id) {
            return Ok(size);
        }
        let count = || Ok(io::copy(&mut self.uncompressed()?, &mut io::sink())?);
        let size = count().context(|| format!("layer {}", self.descriptor.digest))?;
        self.store.keep_size(self.diff_id, size);
        Ok(size)
    }
}

/// Fails if the content cannot be read as a tar: its type says that it is encrypted, or something else.
pub(crate) fn check_is_tar(layer: &Descriptor) -> Result<()> {
    let expected = match &layer.media_type {
        found if found.is_tar() => return Ok(()),
        found if found.is_encrypted() => {
            "a layer that is not encrypted: decrypt the image first, as `skopeo copy --decryption-key` does"
        }
        _ => "a layer that is a tar, plain or compressed with gzip or zstd",
    };
    Err(ErrorKind::UnsupportedMediaType { found: layer.media_type.clone(), expected }.into())
}

impl PartialEq for Layer {
    /// Layers are equal if both digests are, in whichever store they lie.
    fn eq(&self, other: &Layer) -> bool {
        self.descriptor.digest == other.descriptor.digest && self.diff_id == other.diff_id
    }
}

impl Eq for Layer {}
