//! One name on one host.

use std::io;
use std::io::Read;

use super::download::Download;
use super::endpoint::Endpoint;
use super::fault::at_most;
use super::fault::refusal;
use super::http::Request;
use super::http::Response;
use super::url::Url;

use crate::descriptor::Descriptor;
use crate::digest::Algorithm;
use crate::digest::Digest;
use crate::digest::ParseDigestError;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Limit;
use crate::error::Result;
use crate::event::Cancel;
use crate::event::Silent;
use crate::event::Watch;
use crate::manifest::MAX_DOCUMENT;
use crate::manifest::Root;
use crate::media_type::MediaType;
use crate::reference::Identifier;
use crate::verify::VerifiedReader;

/// A reader of a blob from a registry. It ends only if size and digest held, and goes on after connections that
/// broke. Made by [`Repository::blob`].
pub type Blob = VerifiedReader<BlobBody>;

/// The bytes below a [`Blob`].
#[derive(Debug)]
pub struct BlobBody(Download);

/// One name on one host, and what can be asked of it. Made by [`Registry::repository`](super::Registry::repository); cheap to clone.
///
/// Each method makes the requests that its one question needs, and repeats them as the client's
/// [`Retry`](super::Retry) has it.
#[derive(Clone, Debug)]
pub struct Repository(pub(super) Endpoint);

impl Repository {
    /// Its name on its host, such as `library/ubuntu`.
    pub fn name(&self) -> &str {
        self.0.name()
    }

    /// The bytes of a blob from `offset` on, unverified.
    pub(crate) fn download(&self, blob: &Descriptor, offset: u64) -> Download {
        Download::new(self.0.clone(), blob.clone(), offset)
    }

    /// Asks what a tag or a digest means, without fetching it (distribution-spec, "Checking if content exists in the
    /// registry"). On Docker Hub this does not count against the rate limit.
    ///
    /// None if the registry does not say enough to tell: no digest, no size or no type. [`fetch`](Repository::fetch)
    /// then finds out.
    ///
    /// # Errors
    ///
    /// * [`ErrorKind::Registry`]: a status other than 200, such as 404. Registries give no reasons here; those that
    ///   `fetch` gives are better.
    /// * [`ErrorKind::Schema1`]: it is a manifest of Docker's schema 1.
    /// * [`ErrorKind::InvalidDigest`]: the header with the digest has something else.
    /// * [`ErrorKind::DigestMismatch`]: asked by digest, the registry has another.
    /// * The kinds of connections that fail.
    pub fn resolve(&self, identifier: &Identifier) -> Result<Option<Descriptor>> {
        self.resolve_watched(identifier, &silent())
    }

    /// Fetches a manifest or an index by tag or digest, and verifies it (distribution-spec, "Pulling manifests").
    ///
    /// # Errors
    ///
    /// * [`ErrorKind::Registry`]: a status other than 200; its codes and messages are kept.
    /// * [`ErrorKind::DigestMismatch`]: it is not what was asked for, or not what the registry says it is.
    /// * [`ErrorKind::InvalidDigest`]: the header with the digest has something else.
    /// * [`ErrorKind::LimitExceeded`]: more than 8 MiB.
    /// * Those of [`Root::parse`]; the kinds of connections that fail.
    pub fn fetch(&self, identifier: &Identifier) -> Result<Root> {
        self.fetch_watched(identifier, &silent())
    }

    /// Fetches the manifest or index that a descriptor promises, and verifies it.
    ///
    /// # Errors
    ///
    /// Those of [`fetch`](Repository::fetch), and [`ErrorKind::SizeMismatch`].
    pub fn fetch_promised(&self, descriptor: &Descriptor) -> Result<Root> {
        self.fetch_promised_watched(descriptor, &silent())
    }

    /// A reader of a blob (distribution-spec, "Pulling blobs"). It ends only if size and digest held; when a
    /// connection breaks it goes on where it was.
    ///
    /// # Errors
    ///
    /// The reader's errors are those of [`ErrorKind`] for connections, [`ErrorKind::Registry`],
    /// [`ErrorKind::SizeMismatch`] and [`ErrorKind::DigestMismatch`].
    pub fn blob(&self, descriptor: &Descriptor) -> Blob {
        VerifiedReader::new(BlobBody(self.download(descriptor, 0)), descriptor)
    }

    pub(crate) fn resolve_watched(&self, identifier: &Identifier, watch: &Watch<'_>) -> Result<Option<Descriptor>> {
        let make = |url| Request::head(url).header("accept", accept());
        self.read("HEAD", &self.0.manifest_path(identifier), watch, make, |response| promised(identifier, response))
    }

    pub(crate) fn fetch_watched(&self, identifier: &Identifier, watch: &Watch<'_>) -> Result<Root> {
        let (bytes, media_type, header) = self.read_document(identifier, 0, watch)?;
        let digest = match identifier {
            Identifier::Digest(digest) => Some(*digest),
            Identifier::Tag(_) => None,
        };
        for expected in [digest, header].into_iter().flatten() {
            check_digest(expected, &bytes)?;
        }
        let algorithm = digest.or(header).map_or(Algorithm::Sha256, |digest| digest.algorithm());
        Root::with_algorithm(bytes, media_type.as_ref(), algorithm)
    }

    /// Where a descriptor says what to expect, the registry's `Content-Type` says nothing (image-spec,
    /// media-types.md, "Media Type Conflicts").
    pub(crate) fn fetch_promised_watched(&self, descriptor: &Descriptor, watch: &Watch<'_>) -> Result<Root> {
        if descriptor.size > MAX_DOCUMENT {
            return Err(Error::limit(Limit::DocumentSize, MAX_DOCUMENT));
        }
        let (bytes, _, header) = self.read_document(&Identifier::Digest(descriptor.digest), descriptor.size, watch)?;
        crate::verify::check(descriptor, &bytes)?;
        if let Some(header) = header {
            check_digest(header, &bytes)?;
        }
        Root::of(descriptor, bytes)
    }

    /// The whole content of a small blob, such as a configuration.
    pub(crate) fn read_watched(&self, descriptor: &Descriptor, watch: &Watch<'_>) -> Result<Vec<u8>> {
        if descriptor.size > MAX_DOCUMENT {
            return Err(Error::limit(Limit::DocumentSize, MAX_DOCUMENT));
        }
        let mut content = vec![0; usize::try_from(descriptor.size).unwrap_or(0)];
        let mut download = self.download(descriptor, 0);
        let mut filled = 0;
        loop {
            match download.read(&mut content[filled..], watch)? {
                0 => break,
                count => filled += count,
            }
        }
        crate::verify::check(descriptor, &content)?;
        Ok(content)
    }

    fn read_document(&self, identifier: &Identifier, expected: u64, watch: &Watch<'_>) -> Result<Document> {
        let make = |url| Request { expected, ..Request::get(url).header("accept", accept()) };
        self.read("GET", &self.0.manifest_path(identifier), watch, make, document)
    }

    /// Asks for content until the answer can be read: the mirrors first, and the registry itself if what they say
    /// cannot be.
    fn read<'a, T>(
        &self,
        method: &str,
        path: &str,
        watch: &Watch<'_>,
        make: impl Fn(Url) -> Request<'a>,
        read: impl Fn(Response) -> Result<T>,
    ) -> Result<T> {
        let answered = self.0.registry().retrying(watch, || match self.0.read_mirrors(path, watch, &make, &read)? {
            Some(found) => Ok(found),
            None => read(self.0.read_itself(path, watch, &make)?),
        });
        answered.map_err(|error| with_request(error, method, &self.0.url(path)))
    }
}

impl Read for BlobBody {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(self.0.read(buffer, &silent())?)
    }
}

pub(super) fn silent() -> Watch<'static> {
    Watch::new(&Silent, Cancel::new())
}

/// All four types: without them some registries answer in schema 1 (distribution, "Content Negotiation").
fn accept() -> String {
    MediaType::MANIFESTS.each_ref().map(MediaType::as_str).join(", ")
}

/// Says in an error which request it is about, if it does not say so itself.
pub(super) fn with_request(error: Error, method: &str, url: &Url) -> Error {
    match error.kind() {
        ErrorKind::Registry(_) => error,
        _ => error.context(format!("{method} {url}")),
    }
}

/// What the answer to a HEAD request promises; none if it says too little.
fn promised(identifier: &Identifier, response: Response) -> Result<Option<Descriptor>> {
    if response.status() != 200 {
        return Err(refusal(response));
    }
    let media_type = response.header("content-type").map(MediaType::from);
    if media_type.as_ref().is_some_and(MediaType::is_schema1) {
        return Err(ErrorKind::Schema1.into());
    }
    let found = content_digest(&response)?;
    // What was asked for by digest is that, whichever other names the registry has for it.
    let digest = match (identifier, found) {
        (Identifier::Digest(expected), Some(found))
            if expected.algorithm() == found.algorithm() && *expected != found =>
        {
            return Err(ErrorKind::DigestMismatch { expected: *expected, found }.into());
        }
        (Identifier::Digest(expected), _) => Some(*expected),
        (Identifier::Tag(_), found) => found,
    };
    let known = media_type.filter(|media_type| media_type.is_manifest() || media_type.is_index());
    // No manifest is empty: some proxies say 0 of whatever has no body.
    let size = response.content_length().filter(|size| *size > 0);
    Ok(known
        .zip(digest)
        .zip(size)
        .map(|((media_type, digest), size)| Descriptor::new(MediaType::from(media_type.essence()), digest, size)))
}

/// A manifest's bytes, and what the answer's headers say of them.
type Document = (Vec<u8>, Option<MediaType>, Option<Digest>);

fn document(response: Response) -> Result<Document> {
    if response.status() != 200 {
        return Err(refusal(response));
    }
    let media_type = response.header("content-type").filter(|text| !text.trim().is_empty()).map(MediaType::from);
    let digest = content_digest(&response)?;
    let length = response.content_length();
    let bytes = at_most(response, MAX_DOCUMENT, || Error::limit(Limit::DocumentSize, MAX_DOCUMENT))?;
    match length {
        Some(expected) if expected != bytes.len() as u64 => {
            Err(ErrorKind::SizeMismatch { expected, found: bytes.len() as u64 }.into())
        }
        _ => Ok((bytes, media_type, digest)),
    }
}

/// `Docker-Content-Digest`; one of an algorithm that cannot be verified is as good as none.
pub(super) fn content_digest(response: &Response) -> Result<Option<Digest>> {
    match response.header("docker-content-digest").map(|text| text.trim().parse()) {
        None | Some(Err(ParseDigestError::UnsupportedAlgorithm(_))) => Ok(None),
        Some(Ok(digest)) => Ok(Some(digest)),
        Some(Err(error)) => Err(Error::from(error).context("header docker-content-digest")),
    }
}

fn check_digest(expected: Digest, bytes: &[u8]) -> Result<()> {
    let found = Digest::of(expected.algorithm(), bytes);
    if found == expected { Ok(()) } else { Err(ErrorKind::DigestMismatch { expected, found }.into()) }
}
