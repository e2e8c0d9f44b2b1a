//! What a path is about.

use percent_encoding::percent_decode_str;

use super::refusal::Code;
use super::refusal::Reply;

use crate::digest::Digest;
use crate::reference::Identifier;
use crate::reference::ImageReference;

/// What a path is about. A repository is its name on this host, without tag and digest.
#[derive(Clone, Debug)]
pub(super) enum Endpoint {
    Ping,
    Catalog,
    Tags(ImageReference),
    Manifest(ImageReference, Identifier),
    Blob(ImageReference, Digest),
    Uploads(ImageReference),
    Upload(ImageReference, String),
    Referrers(ImageReference, Digest),
    SearchPing,
    Search,
}

impl Endpoint {
    pub(super) fn parse(host: &str, path: &str) -> Reply<Endpoint> {
        let path = path.split('?').next().unwrap_or_default();
        match path {
            "/v2/" | "/v2" => return Ok(Endpoint::Ping),
            "/v2/_catalog" => return Ok(Endpoint::Catalog),
            "/v1/_ping" => return Ok(Endpoint::SearchPing),
            "/v1/search" => return Ok(Endpoint::Search),
            _ => {}
        }
        let path = path.strip_prefix("/v2/").ok_or(Code::NoEndpoint)?;
        let (head, last) = path.rsplit_once('/').ok_or(Code::NoEndpoint)?;
        let last = percent_decode_str(last).decode_utf8().map_err(|_| Code::NoEndpoint)?;
        if let Some(name) = head.strip_suffix("/blobs/uploads") {
            let name = repository(host, name)?;
            return Ok(if last.is_empty() {
                Endpoint::Uploads(name)
            } else {
                Endpoint::Upload(name, last.into_owned())
            });
        }
        let (name, kind) = head.rsplit_once('/').ok_or(Code::NoEndpoint)?;
        match (kind, &*last) {
            ("blobs", "uploads") => Ok(Endpoint::Uploads(repository(host, name)?)),
            ("tags", "list") => Ok(Endpoint::Tags(repository(host, name)?)),
            ("blobs", digest) => Ok(Endpoint::Blob(repository(host, name)?, parse_digest(digest)?)),
            ("referrers", digest) => Ok(Endpoint::Referrers(repository(host, name)?, parse_digest(digest)?)),
            ("manifests", reference) => {
                let name = repository(host, name)?;
                let identifier = identifier(&name, reference)?;
                Ok(Endpoint::Manifest(name, identifier))
            }
            _ => Err(Code::NoEndpoint.into()),
        }
    }

    /// The repository, if the path is about one.
    pub(super) fn repository(&self) -> Option<&ImageReference> {
        match self {
            Endpoint::Tags(name)
            | Endpoint::Manifest(name, _)
            | Endpoint::Blob(name, _)
            | Endpoint::Uploads(name)
            | Endpoint::Upload(name, _)
            | Endpoint::Referrers(name, _) => Some(name),
            Endpoint::Ping | Endpoint::Catalog | Endpoint::SearchPing | Endpoint::Search => None,
        }
    }
}

/// A repository's name on this host (distribution-spec, "Pulling manifests").
pub(super) fn repository(host: &str, name: &str) -> Reply<ImageReference> {
    let parsed: ImageReference = format!("{host}/{name}").parse().map_err(|error| Code::NameInvalid.because(&error))?;
    if parsed.repository() != name {
        return Err(Code::NameInvalid.into());
    }
    Ok(parsed)
}

pub(super) fn parse_digest(text: &str) -> Reply<Digest> {
    text.parse().map_err(|error: crate::digest::ParseDigestError| Code::DigestInvalid.because(&error))
}

/// A tag has no `:`, and a digest has one.
fn identifier(name: &ImageReference, text: &str) -> Reply<Identifier> {
    if text.contains(':') {
        return Ok(Identifier::Digest(parse_digest(text)?));
    }
    let tagged = name.with_tag(text).map_err(|error| Code::TagInvalid.because(&error))?;
    Ok(tagged.identifier())
}
