//! Changing what a repository has: blobs, manifests, tags.

use std::io::Cursor;
use std::io::Read;

use serde_json::Value;
use serde_json::json;

use super::Access;
use super::Repository;
use super::fault::is_refusal;
use super::fault::refusal;
use super::http::Payload;
use super::http::Request;
use super::http::Response;
use super::piece::BlobSource;
use super::referrers::tag_of;
use super::repository::content_digest;
use super::repository::silent;
use super::repository::with_request;
use super::session;
use super::session::Mount;
use super::upload::Upload;
use super::url::Url;

use crate::descriptor::Descriptor;
use crate::digest::Digest;
use crate::error::Context;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Limit;
use crate::error::Result;
use crate::event::Event;
use crate::event::Watch;
use crate::manifest::Root;
use crate::media_type::MediaType;
use crate::reference::Identifier;
use crate::reference::ImageReference;

/// Any name at all.
const NAMELESS: &str = "host.example/name";
/// How often a list of referrers is written before somebody else's changes are too many.
const MAX_MERGES: usize = 5;

impl Repository {
    /// Whether the repository has a blob of this digest and size (distribution-spec, "Checking if content exists in the
    /// registry"). Mirrors are not asked.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Registry`]: a status other than 200 and 404; the kinds of connections that fail.
    pub fn has_blob(&self, blob: &Descriptor) -> Result<bool> {
        let watch = silent();
        self.0.registry().retrying(&watch, || session::has(&self.0, blob, &Access::Pull(self.name()), &watch))
    }

    /// Takes over a blob from another repository of the same registry, without sending it. Whether that worked: where
    /// it did not, for whatever reason, the blob has to be sent.
    ///
    /// # Errors
    ///
    /// The kinds of connections that fail.
    pub fn mount(&self, blob: &Descriptor, from: &str) -> Result<bool> {
        let watch = silent();
        Ok(match self.try_mount(blob, from, &watch)? {
            Mount::Mounted => true,
            Mount::Refused => false,
            Mount::Opened(session) => {
                session::give_up(&self.0, &session, &watch);
                false
            }
        })
    }

    /// Sends a blob (distribution-spec, "Pushing blobs"): in one request, and in pieces if the registry wants that or a
    /// connection broke. What is there already is sent again; ask [`has_blob`](Repository::has_blob).
    ///
    /// # Errors
    ///
    /// * [`ErrorKind::Registry`]: the registry refuses; its codes and messages are kept.
    /// * [`ErrorKind::Protocol`]: it takes the blob and forgets it, never closes the upload, counts in a way that makes
    ///   no sense, or sends the upload to a place that must not have it.
    /// * [`ErrorKind::DigestMismatch`]: it says to have something else.
    /// * Those of the source; the kinds of connections that fail.
    pub fn push_blob(&self, blob: &Descriptor, source: &dyn BlobSource) -> Result<()> {
        Upload::new(&self.0, blob, source, &silent()).run().context(|| format!("blob {}", blob.digest))
    }

    /// Sends a blob that is in memory, such as a configuration.
    ///
    /// # Errors
    ///
    /// Those of [`push_blob`](Repository::push_blob).
    pub fn push_bytes(&self, media_type: MediaType, content: &[u8]) -> Result<Descriptor> {
        let blob = Descriptor::of(media_type, content);
        self.push_blob(&blob, &InMemory(content))?;
        Ok(blob)
    }

    /// Puts a manifest or an index, byte for byte, under a tag or its digest (distribution-spec, "Pushing manifests").
    /// What it lists has to be there.
    ///
    /// If it has a subject and the registry does not keep lists of referrers itself, it is added to the list that
    /// clients keep under a tag ("Pushing Manifests with Subject").
    ///
    /// # Errors
    ///
    /// * [`ErrorKind::InvalidInput`]: asked to put it under another digest than its own.
    /// * [`ErrorKind::Registry`]: the registry refuses.
    /// * [`ErrorKind::DigestMismatch`]: it says to have something else.
    /// * [`ErrorKind::InvalidDocument`]: what stands under the tag for referrers is no list of them.
    /// * The kinds of connections that fail.
    pub fn push_manifest(&self, root: &Root, identifier: &Identifier) -> Result<()> {
        self.put_watched(root, identifier, &silent())
    }

    /// Puts a manifest or an index under its digest and several tags at once, as far as the registry can
    /// (`?tag=`); the tags that it passes over are put one by one.
    ///
    /// # Errors
    ///
    /// Those of [`push_manifest`](Repository::push_manifest); [`ErrorKind::InvalidReference`] if one of the tags is none.
    pub fn push_tags(&self, root: &Root, tags: &[&str]) -> Result<()> {
        let descriptor = root.descriptor();
        let named = |tag: &&str| Ok(NAMELESS.parse::<ImageReference>()?.with_tag(tag)?.identifier());
        let identifiers = tags.iter().map(named).collect::<Result<Vec<Identifier>>>()?;
        let identifier = Identifier::Digest(descriptor.digest);
        let mut url = self.0.url(self.0.manifest_path(&identifier));
        for tag in tags {
            url = url.with_query("tag", tag);
        }
        let watch = silent();
        let answered = self.send_document(root.raw(), &descriptor.media_type, url, &watch);
        let made = match answered {
            Ok(response) => {
                self.check_put(root, &response, &watch)?;
                let lists = response.headers("oci-tag").flat_map(|list| list.split(','));
                lists.map(|tag| tag.trim().to_owned()).collect()
            }
            // A long list may be too long for an address, or unknown to the registry.
            Err(error) if matches!(error.kind(), ErrorKind::Registry(refused) if matches!(refused.status, 400 | 414 | 431)) =>
            {
                self.put_watched(root, &identifier, &watch)?;
                Vec::new()
            }
            Err(error) => return Err(error),
        };
        let mut missing = tags.iter().zip(&identifiers).filter(|(tag, _)| !made.iter().any(|made| made == *tag));
        missing.try_for_each(|(_, identifier)| self.put_watched(root, identifier, &watch))
    }

    /// Takes away a tag; or, by digest, a manifest or an index with all its tags (distribution-spec, "Content
    /// Management"). Where it had a subject and clients keep the list of referrers, it leaves that list.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Registry`]: status 404 if it is not there, 400 or 405 if the registry deletes nothing; the kinds of
    /// connections that fail.
    pub fn delete(&self, identifier: &Identifier) -> Result<()> {
        let watch = silent();
        let subject = match identifier {
            Identifier::Digest(_) => match Repository(self.0.without_mirrors()).fetch_watched(identifier, &watch) {
                Ok(root) => subject(&root).cloned(),
                // What cannot be understood has no subject that anybody knows of.
                Err(error) if is_unreadable(&error) => None,
                Err(error) => return Err(error),
            },
            Identifier::Tag(_) => None,
        };
        self.delete_at(self.0.manifest_path(identifier), &watch)?;
        if let (Some(subject), Identifier::Digest(digest)) = (subject, identifier)
            && !self.lists_referrers(subject.digest, &watch)?
        {
            self.change_referrers(subject.digest, &watch, &mut |list| {
                let before = list.len();
                list.retain(|entry| entry.get("digest").and_then(Value::as_str) != Some(&digest.to_string()));
                list.len() != before
            })?;
        }
        Ok(())
    }

    /// Takes a blob away.
    ///
    /// # Errors
    ///
    /// Those of [`delete`](Repository::delete).
    pub fn delete_blob(&self, digest: Digest) -> Result<()> {
        self.delete_at(self.0.blob_path(digest), &silent())
    }

    pub(crate) fn has_blob_watched(&self, blob: &Descriptor, watch: &Watch<'_>) -> Result<bool> {
        self.0.registry().retrying(watch, || session::has(&self.0, blob, &Access::Push(self.name()), watch))
    }

    /// Whether the other is a repository of the same registry, and not the same one.
    pub(crate) fn is_beside(&self, other: &Repository) -> bool {
        self.0.origin() == other.0.origin() && self.name() != other.name()
    }

    /// Whether a tag or a digest means this at the repository itself; mirrors are not asked. One that lets nobody look is
    /// taken to mean something else.
    pub(crate) fn means_watched(&self, identifier: &Identifier, root: &Descriptor, watch: &Watch<'_>) -> Result<bool> {
        let path = self.0.manifest_path(identifier);
        self.0.registry().retrying(watch, || {
            let request = Request::head(self.0.url(&*path)).header("accept", root.media_type.as_str());
            let response = self.0.send(request, &[Access::Push(self.name())], watch)?;
            match (response.status(), identifier) {
                // What was asked for by digest is that, whichever other names the registry has for it.
                (200, Identifier::Digest(digest)) => Ok(*digest == root.digest),
                (200, Identifier::Tag(_)) => Ok(content_digest(&response)? == Some(root.digest)),
                (status, _) if is_refusal(status) => Ok(false),
                _ => Err(refusal(response)),
            }
        })
    }

    /// Brings a blob to the repository: from one of these repositories beside it, if one has it and the registry lets
    /// it be mounted. Returns which.
    pub(crate) fn push_blob_watched<'f>(
        &self,
        blob: &Descriptor,
        source: &dyn BlobSource,
        from: impl IntoIterator<Item = &'f str>,
        watch: &Watch<'_>,
    ) -> Result<Option<&'f str>> {
        let mut session = None;
        for repository in from {
            match self.try_mount(blob, repository, watch)? {
                Mount::Mounted => return Ok(Some(repository)),
                Mount::Opened(opened) => session = Some(opened),
                Mount::Refused => {}
            }
            if session.is_some() {
                break;
            }
        }
        watch.tell(&Event::Started { blob, resumed: 0 });
        Upload::new(&self.0, blob, source, watch).within(session).run().map(|()| None)
    }

    fn try_mount(&self, blob: &Descriptor, from: &str, watch: &Watch<'_>) -> Result<Mount> {
        self.0.registry().retrying(watch, || session::mount(&self.0, blob, from, watch))
    }

    pub(crate) fn put_watched(&self, root: &Root, identifier: &Identifier, watch: &Watch<'_>) -> Result<()> {
        let descriptor = root.descriptor();
        if let Identifier::Digest(digest) = identifier
            && digest.algorithm() == descriptor.digest.algorithm()
            && *digest != descriptor.digest
        {
            return Err(Error::invalid_input(format!("the digest of the document is {}", descriptor.digest)));
        }
        let url = self.0.url(self.0.manifest_path(identifier));
        let response = self.send_document(root.raw(), &descriptor.media_type, url, watch)?;
        self.check_put(root, &response, watch)
    }

    fn send_document(&self, raw: &[u8], media_type: &MediaType, url: Url, watch: &Watch<'_>) -> Result<Response> {
        let sent = self.0.registry().retrying(watch, || {
            let request = Request::send("PUT", url.clone(), Payload::Bytes(raw));
            // Without parameters: the type is what the document says of itself.
            let request = request.header("content-type", media_type.essence());
            let response = self.0.send(request, &[Access::Push(self.name())], watch)?;
            if matches!(response.status(), 200 | 201) { Ok(response) } else { Err(refusal(response)) }
        });
        sent.map_err(|error| with_request(error, "PUT", &url))
    }

    fn check_put(&self, root: &Root, response: &Response, watch: &Watch<'_>) -> Result<()> {
        let expected = root.descriptor().digest;
        if let Some(found) = content_digest(response)?
            && found.algorithm() == expected.algorithm()
            && found != expected
        {
            return Err(ErrorKind::DigestMismatch { expected, found }.into());
        }
        match subject(root) {
            Some(subject) if response.header("oci-subject").is_none() => self.refer(root, subject.digest, watch),
            _ => Ok(()),
        }
    }

    /// Adds a document to the list of those that refer to its subject.
    fn refer(&self, root: &Root, subject: Digest, watch: &Watch<'_>) -> Result<()> {
        let entry = referrer(root);
        self.change_referrers(subject, watch, &mut |list| {
            let is_listed = list.iter().any(|found| found.get("digest") == entry.get("digest"));
            if !is_listed {
                list.push(entry.clone());
            }
            !is_listed
        })
    }

    /// Changes the list that stands under the tag for referrers, where `change` changes anything. It is read again
    /// afterwards, because somebody else may have put another at the same time; that does not help whoever comes later.
    fn change_referrers(
        &self,
        subject: Digest,
        watch: &Watch<'_>,
        change: &mut dyn FnMut(&mut Vec<Value>) -> bool,
    ) -> Result<()> {
        let tag = Identifier::Tag(tag_of(subject));
        let itself = Repository(self.0.without_mirrors());
        for _ in 0..MAX_MERGES {
            let mut index = match itself.fetch_watched(&tag, watch) {
                Ok(Root::Index(index)) => serde_json::from_slice(index.raw())
                    .map_err(|error| Error::invalid_document("index of referrers", error))?,
                Ok(Root::Manifest(_)) => {
                    return Err(Error::invalid_document("index of referrers", "it is a manifest"));
                }
                Err(error) if error.is_not_found() => {
                    json!({ "schemaVersion": 2, "mediaType": MediaType::OCI_INDEX, "manifests": [] })
                }
                Err(error) => return Err(error),
            };
            let Some(list) = index.get_mut("manifests").and_then(Value::as_array_mut) else {
                return Err(Error::invalid_document("index of referrers", "it lists nothing"));
            };
            if !change(list) {
                return Ok(());
            }
            let url = self.0.url(self.0.manifest_path(&tag));
            self.send_document(index.to_string().as_bytes(), &MediaType::OCI_INDEX, url, watch)?;
        }
        Err(ErrorKind::Protocol { reason: format!("the list of referrers of {subject} does not stay as it is put") }
            .into())
    }

    fn delete_at(&self, path: String, watch: &Watch<'_>) -> Result<()> {
        let url = self.0.url(path);
        let deleted = self.0.registry().retrying(watch, || {
            let response = self.0.send(Request::delete(url.clone()), &[Access::Delete(self.name())], watch)?;
            if matches!(response.status(), 200 | 202 | 204) { Ok(()) } else { Err(refusal(response)) }
        });
        deleted.map_err(|error| with_request(error, "DELETE", &url))
    }
}

/// Whether a registry gave a document that is of no use, for whatever reason: obsolete, unknown, too large, damaged.
fn is_unreadable(error: &Error) -> bool {
    match error.kind() {
        ErrorKind::InvalidDocument { .. } | ErrorKind::UnsupportedMediaType { .. } | ErrorKind::Schema1 => true,
        ErrorKind::DigestMismatch { .. } | ErrorKind::SizeMismatch { .. } | ErrorKind::InvalidDigest(_) => true,
        ErrorKind::LimitExceeded { limit, .. } => *limit != Limit::Redirects,
        _ => false,
    }
}

/// What a document refers to.
fn subject(root: &Root) -> Option<&Descriptor> {
    match root {
        Root::Manifest(manifest) => manifest.subject(),
        Root::Index(index) => index.subject(),
    }
}

/// The entry of a document in a list of referrers: with its type, and all its annotations.
fn referrer(root: &Root) -> Value {
    let (artifact_type, annotations) = match root {
        Root::Manifest(manifest) => {
            let config = &manifest.config().media_type;
            (Some(manifest.artifact_type().unwrap_or(config)), manifest.annotations())
        }
        Root::Index(index) => (index.artifact_type(), index.annotations()),
    };
    let descriptor = root.descriptor();
    let mut entry = json!({
        "mediaType": descriptor.media_type, "digest": descriptor.digest, "size": descriptor.size,
    });
    if let Some(artifact_type) = artifact_type {
        entry["artifactType"] = json!(artifact_type);
    }
    if !annotations.is_empty() {
        entry["annotations"] = json!(annotations);
    }
    entry
}

/// A blob in memory.
struct InMemory<'a>(&'a [u8]);

impl BlobSource for InMemory<'_> {
    fn open(&self, offset: u64) -> Result<Box<dyn Read + '_>> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(self.0.len());
        Ok(Box::new(Cursor::new(&self.0[start..])))
    }
}
