//! The images of a layout in an archive (image-spec, image-layout.md).

use serde::Deserialize;

use super::members::INDEX;
use super::members::LAYOUT;
use super::members::Members;
use super::plan::Plan;
use super::plan::Source;

use crate::changeset::Limits;
use crate::compression::Compression;
use crate::descriptor::Descriptor;
use crate::error::Context;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Limit;
use crate::error::Result;
use crate::json;
use crate::manifest::Config;
use crate::manifest::Index;
use crate::manifest::MAX_DEPTH;
use crate::manifest::Manifest;
use crate::manifest::Root;
use crate::store::layout_entries;

/// How many documents there may be.
const MAX_DOCUMENTS: usize = 10_000;

pub(super) fn plan(members: &mut Members, limits: Limits, plan: &mut Plan) -> Result<()> {
    check_version(members.document(LAYOUT).unwrap_or_default())?;
    let text = members.document(INDEX).unwrap_or_default().to_vec();
    let text = String::from_utf8(text).map_err(|error| Error::invalid_document(INDEX, error))?;
    let mut reading = Reading { members, limits, plan, documents: 0 };
    for entry in layout_entries(&text)? {
        let (name, descriptor) = entry?;
        let root = reading.root(&descriptor).context(|| format!("image {}", descriptor.digest))?;
        reading.plan.add_image(&root, name);
    }
    if plan.loaded.images.is_empty() {
        return Err(Error::invalid_archive("its index.json lists no images"));
    }
    Ok(())
}

fn check_version(text: &[u8]) -> Result<()> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Layout {
        image_layout_version: String,
    }
    json::check(text, &json::LAYOUT).map_err(|error| Error::invalid_document(LAYOUT, error))?;
    let layout: Layout = serde_json::from_slice(text).map_err(|error| Error::invalid_document(LAYOUT, error))?;
    match layout.image_layout_version.as_str() {
        "1.0.0" => Ok(()),
        other => Err(Error::invalid_archive(format!("unsupported layout version {other:?}"))),
    }
}

/// Follows documents to all that they lead to.
struct Reading<'a> {
    members: &'a mut Members,
    limits: Limits,
    plan: &'a mut Plan,
    documents: usize,
}

impl Reading<'_> {
    fn root(&mut self, descriptor: &Descriptor) -> Result<Descriptor> {
        let Some(root) = self.document(descriptor)? else { return Err(missing(descriptor)) };
        let own = root.descriptor();
        self.follow(root, 0)?;
        Ok(own)
    }

    /// A document; none if the archive does not have it.
    fn document(&mut self, descriptor: &Descriptor) -> Result<Option<Root>> {
        let Some(number) = self.members.blob(descriptor.digest) else { return Ok(None) };
        self.documents += 1;
        if self.documents > MAX_DOCUMENTS {
            return Err(Error::limit(Limit::Documents, MAX_DOCUMENTS as u64));
        }
        let content = self.members.content(number)?;
        let root = Root::of(descriptor, content).context(|| format!("document {}", descriptor.digest))?;
        Ok(Some(root))
    }

    fn follow(&mut self, document: Root, depth: u64) -> Result<()> {
        let promise = document.descriptor();
        if self.plan.seen.contains(&promise.digest) {
            return Ok(());
        }
        match &document {
            Root::Manifest(manifest) => self.manifest(manifest)?,
            Root::Index(index) => self.index(index, depth)?,
        }
        self.blob(&promise)
    }

    fn manifest(&mut self, manifest: &Manifest) -> Result<()> {
        self.limits.check(Limit::Layers, manifest.layers().len() as u64)?;
        self.check_config(manifest)?;
        for layer in manifest.layers() {
            let is_elsewhere = layer.media_type.is_nondistributable() && self.members.blob(layer.digest).is_none();
            if !is_elsewhere {
                self.blob(layer)?;
            }
        }
        self.blob(manifest.config())
    }

    /// What an image's configuration says of its layers. Of those that are plain tars the digests are known.
    fn check_config(&mut self, manifest: &Manifest) -> Result<()> {
        let descriptor = manifest.config();
        if !descriptor.media_type.is_config() {
            return Ok(());
        }
        let number = self.members.blob(descriptor.digest).ok_or_else(|| missing(descriptor))?;
        let config = Config::with_digest(self.members.content(number)?, descriptor.digest)?;
        config.check_layers(manifest.layers().len())?;
        for (layer, diff_id) in manifest.layers().iter().zip(config.diff_ids()?) {
            let Some(number) = self.members.blob(layer.digest) else { continue };
            let is_plain = self.members.held(number).compression == Compression::None;
            let comparable = layer.digest.algorithm() == diff_id.algorithm() && layer.media_type.is_layer();
            if is_plain && comparable && layer.digest != *diff_id {
                return Err(ErrorKind::DigestMismatch { expected: *diff_id, found: layer.digest }.into());
            }
        }
        Ok(())
    }

    /// An index may list images that the archive does not have, or not whole, as those of other platforms; one it must
    /// have.
    fn index(&mut self, index: &Index, depth: u64) -> Result<()> {
        if depth >= MAX_DEPTH {
            return Err(Error::limit(Limit::IndexDepth, MAX_DEPTH));
        }
        let mut is_empty = true;
        let mut absent = None;
        for entry in index.manifests() {
            let before = self.plan.blobs.len();
            match self.child(entry, depth) {
                Ok(()) => is_empty = false,
                Err(error) if error.is_not_found() => {
                    self.plan.forget(before);
                    absent = absent.or(Some(error));
                }
                Err(error) => return Err(error),
            }
        }
        match absent {
            Some(error) if is_empty => Err(error),
            _ => Ok(()),
        }
    }

    fn child(&mut self, entry: &Descriptor, depth: u64) -> Result<()> {
        if self.plan.seen.contains(&entry.digest) {
            return Ok(());
        }
        if !entry.media_type.is_manifest() && !entry.media_type.is_index() {
            return self.blob(entry);
        }
        let document = self.document(entry)?.ok_or_else(|| missing(entry))?;
        self.follow(document, depth + 1)
    }

    fn blob(&mut self, promise: &Descriptor) -> Result<()> {
        let number = self.members.blob(promise.digest).ok_or_else(|| missing(promise))?;
        let found = self.members.held(number).size;
        if found != promise.size {
            let error: Error = ErrorKind::SizeMismatch { expected: promise.size, found }.into();
            return Err(error.context(format!("blob {}", promise.digest)));
        }
        self.plan.add(promise.clone(), Source::Member(number));
        Ok(())
    }
}

fn missing(blob: &Descriptor) -> Error {
    Error::not_found(format!("blob {}", blob.digest))
}
