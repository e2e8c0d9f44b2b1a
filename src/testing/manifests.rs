//! Manifests: reading, taking in and deleting.

use std::collections::BTreeSet;

use super::answer::Answer;
use super::body::Body;
use super::contents::Members;
use super::contents::describe;
use super::refusal::Code;
use super::refusal::Reply;
use super::request::Request;
use super::service::Service;

use crate::descriptor::Descriptor;
use crate::digest::Digest;
use crate::manifest::MAX_DOCUMENT;
use crate::manifest::Root;
use crate::media_type::MediaType;
use crate::reference::Identifier;
use crate::reference::ImageReference;

/// Answers a request for a manifest of a repository.
pub(super) fn answer(
    service: &Service,
    name: &ImageReference,
    wanted: &Identifier,
    request: &Request,
    body: &mut Body<'_>,
) -> Reply {
    match request.method.as_str() {
        "GET" | "HEAD" => read(service, name, wanted),
        "PUT" => put(service, name, wanted, request, body),
        "DELETE" if service.manners().without_deletes => Err(Code::Unsupported.into()),
        "DELETE" => delete(service, name, wanted),
        _ => Err(Code::Unsupported.into()),
    }
}

fn read(service: &Service, name: &ImageReference, wanted: &Identifier) -> Reply {
    let digest = match wanted {
        Identifier::Digest(digest) => *digest,
        Identifier::Tag(tag) => {
            let tags = service.contents.tags(name)?;
            if tags.is_empty() {
                service.contents.members(name)?;
            }
            tags.get(tag).ok_or(Code::ManifestUnknown)?.1.digest
        }
    };
    let (found, bytes) = service.contents.manifest(name, digest)?;
    let answer = Answer::new(200, found.media_type.as_str(), bytes);
    Ok(answer.with("docker-content-digest", digest.to_string()))
}

fn delete(service: &Service, name: &ImageReference, wanted: &Identifier) -> Reply {
    service.contents.members(name)?;
    match wanted {
        Identifier::Tag(tag) if !service.contents.untag(name, tag)? => return Err(Code::ManifestUnknown.into()),
        Identifier::Tag(_) => {}
        Identifier::Digest(digest) => {
            let (found, _) = service.contents.manifest(name, *digest)?;
            service.contents.remove_manifest(name, found.digest)?;
        }
    }
    Ok(Answer::empty(202))
}

fn put(service: &Service, name: &ImageReference, wanted: &Identifier, request: &Request, body: &mut Body<'_>) -> Reply {
    let bytes = body.read_all(MAX_DOCUMENT)?.ok_or(Code::ManifestTooLarge)?;
    let digest = match wanted {
        Identifier::Digest(digest) => Some(*digest),
        Identifier::Tag(_) => None,
    };
    let root = parse(&bytes, request.header("content-type"))?;
    let found = describe(root.descriptor().media_type, &bytes, digest);
    if digest.is_some_and(|digest| digest != found.digest) {
        return Err(Code::DigestInvalid.because(&found.digest));
    }
    if !service.manners().sparse {
        let members = service.contents.find_members(name)?.unwrap_or_default();
        refuse_missing(&members, &root)?;
    }
    let tags = tags_to_set(name, wanted, request)?;
    service.contents.store().write_as(&found, &bytes)?;
    service.contents.add_manifest(name, &found)?;
    for tag in &tags {
        service.contents.tag(name, tag, &found)?;
    }
    Ok(created(service, name, wanted, &root, found.digest, &tags))
}

/// The document, if it is one and is what `Content-Type` says (D18, CVE-2021-41190).
fn parse(bytes: &[u8], content_type: Option<&str>) -> Reply<Root> {
    let content_type = content_type.map(MediaType::from);
    Root::parse(bytes.to_vec(), content_type.as_ref()).map_err(|error| Code::ManifestInvalid.because(&error))
}

/// The tag of the path, or those of the query (D20).
fn tags_to_set(name: &ImageReference, wanted: &Identifier, request: &Request) -> Reply<BTreeSet<String>> {
    if let Identifier::Tag(tag) = wanted {
        return Ok([tag.clone()].into());
    }
    let tags: BTreeSet<String> = request.query().all("tag").map(str::to_owned).collect();
    for tag in &tags {
        name.with_tag(tag).map_err(|error| Code::TagInvalid.because(&error))?;
    }
    Ok(tags)
}

/// D19: what a manifest leads to has to be there first. Its subject need not be, nor what may not be distributed.
fn refuse_missing(members: &Members, root: &Root) -> Reply<()> {
    let missing: Vec<Digest> = match root {
        Root::Manifest(manifest) => {
            let needed = |blob: &&Descriptor| !blob.media_type.is_nondistributable() && blob.urls.is_empty();
            let blobs = [manifest.config()].into_iter().chain(manifest.layers()).filter(needed);
            blobs.map(|blob| blob.digest).filter(|digest| !members.blobs.contains(digest)).collect()
        }
        Root::Index(index) => {
            let known = |digest| members.manifests.contains_key(&digest) || members.blobs.contains(&digest);
            index.manifests().iter().map(|entry| entry.digest).filter(|&digest| !known(digest)).collect()
        }
    };
    match missing.first() {
        Some(missing) => Err(Code::ManifestBlobUnknown.because(missing)),
        None => Ok(()),
    }
}

fn created(
    service: &Service,
    name: &ImageReference,
    wanted: &Identifier,
    root: &Root,
    digest: Digest,
    tags: &BTreeSet<String>,
) -> Answer {
    let manners = service.manners();
    let location = manners.locate(&format!("/v2/{}/manifests/{digest}", name.repository()));
    let mut answer = Answer::empty(201).with("location", location).with("docker-content-digest", digest.to_string());
    if matches!(wanted, Identifier::Digest(_)) {
        for tag in tags {
            answer = answer.with("oci-tag", tag);
        }
    }
    let subject = match root {
        Root::Manifest(manifest) => manifest.subject(),
        Root::Index(index) => index.subject(),
    };
    match subject {
        Some(subject) if !manners.without_referrers => answer.with("oci-subject", subject.digest.to_string()),
        _ => answer,
    }
}
