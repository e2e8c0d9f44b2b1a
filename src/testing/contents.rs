//! Which repository has what.
//!
//! What the store names, its names' repositories have, with all that the documents lead to. What is pushed, mounted
//! and deleted is kept beside that, in memory.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Mutex;

use super::refusal::Code;
use super::refusal::Reply;

use crate::descriptor::Descriptor;
use crate::digest::Algorithm;
use crate::digest::Digest;
use crate::error::Result;
use crate::manifest::Root;
use crate::media_type::MediaType;
use crate::reference::ImageReference;
use crate::store::Store;
use crate::sync::lock;

/// The repositories of a store.
#[derive(Debug)]
pub(super) struct Contents {
    store: Store,
    /// The only host whose names may be changed; none if all may.
    own_host: Option<String>,
    records: Mutex<BTreeMap<String, Record>>,
}

/// What happened to a repository since the server started.
#[derive(Debug, Default)]
struct Record {
    has: Members,
    removed: BTreeSet<Digest>,
}

/// What a repository has.
#[derive(Clone, Debug, Default)]
pub(super) struct Members {
    pub(super) manifests: BTreeMap<Digest, MediaType>,
    pub(super) blobs: BTreeSet<Digest>,
}

impl Contents {
    pub(super) fn new(store: &Store, own_host: Option<String>) -> Contents {
        Contents { store: store.clone(), own_host, records: Mutex::default() }
    }

    /// Whether a name of the store may be changed.
    fn may_change(&self, name: &ImageReference) -> bool {
        self.own_host.as_ref().is_none_or(|host| name.host() == host)
    }

    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    /// The names of all repositories that have something.
    pub(super) fn repositories(&self) -> Result<BTreeSet<String>> {
        let mut found: BTreeSet<String> =
            self.names()?.into_iter().map(|(name, _)| name.repository().to_owned()).collect();
        let records = lock(&self.records);
        found.extend(records.iter().filter(|(_, record)| !record.has.is_empty()).map(|(name, _)| name.clone()));
        Ok(found)
    }

    /// The tags of a repository: what the store calls them, on whatever host, and where they lead.
    pub(super) fn tags(&self, repository: &ImageReference) -> Result<BTreeMap<String, (ImageReference, Descriptor)>> {
        let mut tags = BTreeMap::new();
        for (name, root) in self.names_of(repository)? {
            if let Some(tag) = name.tag().map(str::to_owned) {
                tags.entry(tag).or_insert((name, root));
            }
        }
        Ok(tags)
    }

    /// What a repository has.
    pub(super) fn members(&self, repository: &ImageReference) -> Reply<Members> {
        self.find_members(repository)?.ok_or_else(|| Code::NameUnknown.into())
    }

    pub(super) fn find_members(&self, repository: &ImageReference) -> Result<Option<Members>> {
        let named = self.names_of(repository)?;
        let mut members = Members::default();
        let removed = match lock(&self.records).get(repository.repository()) {
            Some(record) => {
                members = record.has.clone();
                record.removed.clone()
            }
            None if named.is_empty() => return Ok(None),
            None => BTreeSet::new(),
        };
        for (_, root) in named {
            members.add_all_of(&self.store, root)?;
        }
        members.manifests.retain(|digest, _| !removed.contains(digest));
        members.blobs.retain(|digest| !removed.contains(digest));
        Ok(Some(members))
    }

    /// The manifest with this digest, and its type; also where it was pushed under a digest of the other algorithm.
    pub(super) fn manifest(&self, repository: &ImageReference, digest: Digest) -> Reply<(Descriptor, Vec<u8>)> {
        let members = self.members(repository)?;
        let known = |digest| members.manifests.get(&digest).cloned();
        if let Some(media_type) = known(digest)
            && let Some(size) = self.store.size_of(digest)?
        {
            let found = Descriptor::new(media_type, digest, size);
            let bytes = self.store.read(&found)?;
            return Ok((found, bytes));
        }
        for (&other, media_type) in members.manifests.iter().filter(|(o, _)| o.algorithm() != digest.algorithm()) {
            let Some(size) = self.store.size_of(other)? else { continue };
            let found = Descriptor::new(media_type.clone(), other, size);
            let bytes = self.store.read(&found)?;
            if Digest::of(digest.algorithm(), &bytes) == digest {
                return Ok((found, bytes));
            }
        }
        Err(Code::ManifestUnknown.into())
    }

    pub(super) fn has_blob(&self, repository: &ImageReference, digest: Digest) -> Result<bool> {
        Ok(self.find_members(repository)?.is_some_and(|members| members.blobs.contains(&digest)))
    }

    /// Whether any repository has the blob.
    pub(super) fn has_blob_anywhere(&self, host: &str, digest: Digest) -> Result<bool> {
        for name in self.repositories()? {
            if let Ok(repository) = super::endpoint::repository(host, &name)
                && self.has_blob(&repository, digest)?
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    pub(super) fn add_blob(&self, repository: &ImageReference, digest: Digest) {
        let mut records = lock(&self.records);
        let record = records.entry(repository.repository().to_owned()).or_default();
        record.removed.remove(&digest);
        record.has.blobs.insert(digest);
    }

    pub(super) fn add_manifest(&self, repository: &ImageReference, manifest: &Descriptor) -> Result<()> {
        // What is recorded is not looked into any more: all that is there has to be recorded first.
        self.keep(repository)?;
        let mut records = lock(&self.records);
        let record = records.entry(repository.repository().to_owned()).or_default();
        record.removed.remove(&manifest.digest);
        record.has.manifests.insert(manifest.digest, manifest.media_type.clone());
        Ok(())
    }

    /// Lets a tag lead to a manifest. One that the store has under another host keeps that name, if it may be changed.
    pub(super) fn tag(&self, repository: &ImageReference, tag: &str, root: &Descriptor) -> Reply<()> {
        let named = repository.with_tag(tag).map_err(|error| Code::TagInvalid.because(&error))?;
        let before = self.tags(repository)?.remove(tag).map(|(name, _)| name);
        self.keep(repository)?;
        self.store.tag(&before.filter(|name| self.may_change(name)).unwrap_or(named), root)?;
        Ok(())
    }

    /// Takes a tag away. Returns whether it was there.
    pub(super) fn untag(&self, repository: &ImageReference, tag: &str) -> Reply<bool> {
        self.untag_all(repository, |name, _| name.tag() == Some(tag))
    }

    /// Takes away the names that `chosen` chooses. Returns whether there were any. If one of them may not be changed,
    /// nothing is.
    fn untag_all(
        &self,
        repository: &ImageReference,
        chosen: impl Fn(&ImageReference, &Descriptor) -> bool,
    ) -> Reply<bool> {
        let mut named = self.names_of(repository)?;
        named.retain(|(name, root)| chosen(name, root));
        if let Some((name, _)) = named.iter().find(|(name, _)| !self.may_change(name)) {
            return Err(Code::Denied.because(&format_args!("{name} is not a name of this host")));
        }
        self.keep(repository)?;
        for (name, _) in &named {
            self.store.untag(name)?;
        }
        Ok(!named.is_empty())
    }

    /// Takes a manifest and its names away; what it leads to stays.
    pub(super) fn remove_manifest(&self, repository: &ImageReference, digest: Digest) -> Reply<()> {
        self.untag_all(repository, |_, root| root.digest == digest)?;
        self.change(repository, |record| {
            record.has.manifests.remove(&digest);
            record.removed.insert(digest);
        });
        Ok(())
    }

    pub(super) fn remove_blob(&self, repository: &ImageReference, digest: Digest) {
        self.change(repository, |record| {
            record.has.blobs.remove(&digest);
            record.removed.insert(digest);
        });
    }

    /// Makes sure that the repository has what it has, whatever becomes of its names.
    fn keep(&self, repository: &ImageReference) -> Result<()> {
        if let Some(members) = self.find_members(repository)? {
            self.change(repository, |record| {
                record.has.manifests.extend(members.manifests);
                record.has.blobs.extend(members.blobs);
            });
        }
        Ok(())
    }

    fn change(&self, repository: &ImageReference, change: impl FnOnce(&mut Record)) {
        change(lock(&self.records).entry(repository.repository().to_owned()).or_default());
    }

    fn names(&self) -> Result<Vec<(ImageReference, Descriptor)>> {
        let named = self.store.entries()?.filter_map(Result::ok);
        Ok(named.filter_map(|(name, root)| Some((name.reference()?.clone(), root))).collect())
    }

    /// What the store calls the contents of this repository, on any host.
    fn names_of(&self, repository: &ImageReference) -> Result<Vec<(ImageReference, Descriptor)>> {
        let mut names = self.names()?;
        names.retain(|(name, _)| name.repository() == repository.repository());
        // A name of the registry's own host goes before the same name of another.
        names.sort_by_key(|(name, _)| name.host() != repository.host());
        Ok(names)
    }
}

impl Members {
    fn is_empty(&self) -> bool {
        self.manifests.is_empty() && self.blobs.is_empty()
    }

    /// Adds a document, and what it and the documents below it lead to, as far as the store has them.
    fn add_all_of(&mut self, store: &Store, root: Descriptor) -> Result<()> {
        let mut waiting = vec![root];
        while let Some(next) = waiting.pop() {
            if self.manifests.contains_key(&next.digest) {
                continue;
            }
            let Some(document) = read_document(store, &next)? else {
                if next.media_type.is_manifest() || next.media_type.is_index() {
                    self.manifests.insert(next.digest, next.media_type);
                }
                continue;
            };
            self.manifests.insert(next.digest, document.descriptor().media_type);
            match document {
                Root::Manifest(manifest) => {
                    self.blobs.insert(manifest.config().digest);
                    self.blobs.extend(manifest.layers().iter().map(|layer| layer.digest));
                }
                Root::Index(index) => {
                    let strange = |entry: &&Descriptor| !entry.media_type.is_manifest() && !entry.media_type.is_index();
                    self.blobs.extend(index.manifests().iter().filter(strange).map(|entry| entry.digest));
                    waiting.extend(index.manifests().iter().cloned());
                }
            }
        }
        Ok(())
    }
}

/// The document with this digest; none if it is not here, or is none.
fn read_document(store: &Store, descriptor: &Descriptor) -> Result<Option<Root>> {
    let Some(size) = store.size_of(descriptor.digest)? else { return Ok(None) };
    let found = Descriptor::new(MediaType::OCTET_STREAM, descriptor.digest, size);
    let Ok(bytes) = store.read(&found) else { return Ok(None) };
    Ok(Root::parse(bytes, None).ok())
}

/// The descriptor of a manifest, with the digest that was asked for or else by SHA-256.
pub(super) fn describe(media_type: MediaType, bytes: &[u8], wanted: Option<Digest>) -> Descriptor {
    let algorithm = wanted.map_or(Algorithm::Sha256, |digest| digest.algorithm());
    Descriptor::new(media_type, Digest::of(algorithm, bytes), bytes.len() as u64)
}
