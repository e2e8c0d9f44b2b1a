//! Writing archives of what a store has.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::io::Write;

use serde::Serialize;
use serde_json::json;

use super::members::INDEX;
use super::members::LAYOUT;
use super::members::MANIFEST;
use super::members::blob_path;
use super::tarball::Tarball;

use crate::descriptor::Descriptor;
use crate::digest::Digest;
use crate::error::Context;
use crate::error::Error;
use crate::error::Limit;
use crate::error::Result;
use crate::event::Cancel;
use crate::image::Image;
use crate::image::Layer;
use crate::manifest::Index;
use crate::manifest::MAX_DEPTH;
use crate::manifest::Manifest;
use crate::manifest::Root;
use crate::media_type::MediaType;
use crate::platform::Platform;
use crate::store::Name;
use crate::store::Store;
use crate::store::entries_of;
use crate::store::oci_twin;

/// What kind of archive is written.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Format {
    /// What `docker load` of every version since 1.10 reads, `podman load` and skopeo's `docker-archive:` too: one image
    /// for each name, its layers as plain tars, and an OCI layout beside `manifest.json`, as Docker writes it since
    /// version 25. The images keep their ids, and get other manifests.
    #[default]
    Docker,
    /// An OCI layout in a tar, skopeo's `oci-archive:`: all that a name means, an index with every image of it that is
    /// in the store, byte for byte.
    Oci,
}

/// Images that are about to be written. Made by [`save`](super::save()); [`to`](Save::to) writes them.
#[derive(Clone, Debug)]
#[must_use = "nothing is written before `to`"]
pub struct Save<'a> {
    store: Store,
    names: Vec<Name>,
    roots: Vec<&'a Descriptor>,
    format: Format,
    platform: Option<Platform>,
    cancel: Cancel,
}

impl<'a> Save<'a> {
    pub(super) fn new(store: &Store, names: Vec<Name>) -> Save<'a> {
        let (format, cancel) = (Format::default(), Cancel::new());
        Save { store: store.clone(), names, roots: Vec::new(), format, platform: None, cancel }
    }

    /// Adds an image, or an index of images, without a name.
    pub fn root(mut self, root: &'a Descriptor) -> Save<'a> {
        self.roots.push(root);
        self
    }

    /// What kind of archive: Docker's unless this is called.
    pub fn format(self, format: Format) -> Save<'a> {
        Save { format, ..self }
    }

    /// Of indexes only the image for this platform. Without this, Docker's archives have the one that
    /// [`Store::image`] opens, and OCI's have all.
    pub fn platform(self, platform: Platform) -> Save<'a> {
        Save { platform: Some(platform), ..self }
    }

    /// A switch that ends the work.
    pub fn cancel(self, cancel: &Cancel) -> Save<'a> {
        Save { cancel: cancel.clone(), ..self }
    }

    /// Writes the archive. What several images have in common is in it once.
    ///
    /// The bytes depend on the images and their names alone. After an error what was written is no whole archive.
    ///
    /// # Errors
    ///
    /// * [`ErrorKind::NotFound`](crate::ErrorKind::NotFound): the store does not have a name, or not all of an image.
    /// * [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput): nothing is to be saved.
    /// * [`ErrorKind::NoMatchingPlatform`](crate::ErrorKind::NoMatchingPlatform): an image is none for the platform.
    /// * [`ErrorKind::UnsupportedMediaType`](crate::ErrorKind::UnsupportedMediaType): it is no image but an artifact,
    ///   which Docker's archives cannot have.
    /// * [`ErrorKind::DigestMismatch`](crate::ErrorKind::DigestMismatch),
    ///   [`ErrorKind::SizeMismatch`](crate::ErrorKind::SizeMismatch): a blob was damaged.
    /// * [`ErrorKind::Cancelled`](crate::ErrorKind::Cancelled): the switch was thrown.
    /// * [`ErrorKind::Io`](crate::ErrorKind::Io): the writer fails, or the store cannot be read.
    pub fn to(&self, writer: impl Write) -> Result<()> {
        let save = || {
            let held = Save { store: self.store.held()?, ..self.clone() };
            let mut files = Files::default();
            for (name, root) in held.wanted()? {
                held.store.note_use(&root);
                let mut add = || match held.format {
                    Format::Docker => held.add_docker(&mut files, &name, &root),
                    Format::Oci => held.add_oci(&mut files, &name, &root),
                };
                add().context(|| format!("image {name}"))?;
            }
            files.close(held.format)?;
            held.write(&files, writer)
        };
        save().context(|| "save images")
    }

    /// Sorted, and each once, so that the bytes do not depend on the order of the names.
    fn wanted(&self) -> Result<Vec<(Name, Descriptor)>> {
        let mut wanted = Vec::new();
        for name in &self.names {
            let missing = || Error::not_found(format!("image {name}"));
            let (_, root) = self.store.lookup(name)?.ok_or_else(missing)?;
            let name = match name {
                Name::Reference(reference) => Name::Reference(reference.exact()),
                other => other.clone(),
            };
            wanted.push((name, root));
        }
        wanted.extend(self.roots.iter().map(|root| (Name::Unnamed, (*root).clone())));
        wanted.sort_by(|(a, first), (b, second)| a.cmp(b).then(first.digest.cmp(&second.digest)));
        wanted.dedup_by(|(a, first), (b, second)| a == b && first.digest == second.digest);
        if wanted.is_empty() {
            return Err(Error::invalid_input("there is nothing to save"));
        }
        Ok(wanted)
    }

    fn image(&self, root: &Descriptor) -> Result<Image> {
        match &self.platform {
            Some(platform) => self.store.image_at_for(root, platform),
            None => self.store.image_at(root),
        }
    }

    /// The image with its layers as plain tars, and a manifest that says so.
    fn add_docker(&self, files: &mut Files, name: &Name, root: &Descriptor) -> Result<()> {
        let image = self.image(root)?;
        let layers = image.layers()?;
        let mut tars = Vec::new();
        for layer in &layers {
            self.cancel.check()?;
            let tar = Descriptor::new(MediaType::OCI_LAYER, layer.diff_id(), layer.unpacked_size()?);
            files.add(&tar, Content::Tar(layer.clone()));
            tars.push(tar);
        }
        let config = image.manifest().config();
        let config = Descriptor::new(MediaType::OCI_CONFIG, config.digest, config.size);
        files.add(&config, Content::Blob(config.clone()));
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MediaType::OCI_MANIFEST, "config": config, "layers": tars,
        });
        let manifest = manifest.to_string().into_bytes();
        let made = Descriptor::of(MediaType::OCI_MANIFEST, &manifest);
        files.add(&made, Content::Made(manifest));
        let paths = tars.iter().map(|tar| blob_path(tar.digest)).collect();
        let item = Item { config: blob_path(config.digest), repo_tags: Vec::new(), layers: paths };
        let item = files.items.entry(config.digest).or_insert(item);
        // A digest in a name is the old manifest's.
        if let Name::Reference(reference) = name
            && reference.digest().is_none()
        {
            item.repo_tags.push(reference.familiar().to_string());
            return files.name(name, &made, None);
        }
        files.name(&Name::Unnamed, &made, None)
    }

    fn add_oci(&self, files: &mut Files, name: &Name, root: &Descriptor) -> Result<()> {
        let (name, root) = match &self.platform {
            None => (name.clone(), self.store.document(root)?),
            Some(platform) => {
                let manifest = self.store.image_at_for(root, platform)?.manifest().clone();
                let is_other = name.reference().and_then(|name| name.digest()).is_some_and(|d| d != manifest.digest());
                (if is_other { Name::Unnamed } else { name.clone() }, Root::Manifest(manifest))
            }
        };
        let descriptor = root.descriptor();
        let view = match &root {
            Root::Manifest(manifest) => oci_twin(manifest).map(String::into_bytes),
            Root::Index(_) => None,
        };
        self.add_document(files, root, 0)?;
        files.name(&name, &descriptor, view)
    }

    fn add_document(&self, files: &mut Files, document: Root, depth: u64) -> Result<()> {
        self.cancel.check()?;
        let descriptor = document.descriptor();
        match &document {
            Root::Manifest(manifest) => self.add_manifest(files, manifest)?,
            Root::Index(index) => self.add_index(files, index, depth)?,
        }
        files.add(&descriptor, Content::Blob(descriptor.clone()));
        Ok(())
    }

    /// Layers that are not for distribution may be missing.
    fn add_manifest(&self, files: &mut Files, manifest: &Manifest) -> Result<()> {
        for blob in manifest.layers().iter().chain([manifest.config()]) {
            if self.store.contains(blob)? {
                files.add(blob, Content::Blob(blob.clone()));
            } else if !blob.media_type.is_nondistributable() {
                return Err(Error::not_found(format!("blob {}", blob.digest)));
            }
        }
        Ok(())
    }

    /// What of an index is in the store whole; as after a pull of one platform, that may be only one image.
    fn add_index(&self, files: &mut Files, index: &Index, depth: u64) -> Result<()> {
        if depth >= MAX_DEPTH {
            return Err(Error::limit(Limit::IndexDepth, MAX_DEPTH));
        }
        let mut missing = None;
        let mut present = index.manifests().is_empty();
        for child in index.manifests() {
            match self.add_child(child, depth) {
                Ok(whole) => {
                    files.contents.extend(whole.contents);
                    present = true;
                }
                Err(error) if error.is_not_found() => missing = missing.or(Some(error)),
                Err(error) => return Err(error),
            }
        }
        match missing {
            Some(error) if !present => Err(error),
            _ => Ok(()),
        }
    }

    fn add_child(&self, child: &Descriptor, depth: u64) -> Result<Files> {
        let mut files = Files::default();
        if child.media_type.is_manifest() || child.media_type.is_index() {
            self.add_document(&mut files, self.store.document(child)?, depth + 1)?;
        } else if self.store.contains(child)? {
            files.add(child, Content::Blob(child.clone()));
        } else {
            return Err(Error::not_found(format!("blob {}", child.digest)));
        }
        Ok(files)
    }

    fn write(&self, files: &Files, writer: impl Write) -> Result<()> {
        let mut tarball = Tarball::new(writer);
        for directory in files.directories() {
            tarball.directory(&directory)?;
        }
        for (path, content) in &files.contents {
            self.cancel.check()?;
            let mut write = || match content {
                Content::Blob(blob) => tarball.file(path, blob.size, self.store.blob(blob)?),
                Content::Tar(layer) => tarball.file(path, layer.unpacked_size()?, layer.uncompressed()?),
                Content::Made(bytes) => tarball.file(path, bytes.len() as u64, &bytes[..]),
            };
            write().context(|| path.clone())?;
        }
        tarball.finish()
    }
}

/// What the archive will have.
#[derive(Default)]
struct Files {
    contents: BTreeMap<String, Content>,
    /// The entries of the layout.
    roots: Vec<Descriptor>,
    /// Docker's, by image id.
    items: BTreeMap<Digest, Item>,
}

enum Content {
    Blob(Descriptor),
    /// A layer without its compression.
    Tar(Layer),
    Made(Vec<u8>),
}

/// An image in `manifest.json`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Item {
    config: String,
    repo_tags: Vec<String>,
    layers: Vec<String>,
}

impl Files {
    fn add(&mut self, blob: &Descriptor, content: Content) {
        self.contents.entry(blob_path(blob.digest)).or_insert(content);
    }

    /// Adds an entry to the layout. Docker's manifests get an OCI one beside them, as in a store, because tools find
    /// only those.
    fn name(&mut self, name: &Name, root: &Descriptor, view: Option<Vec<u8>>) -> Result<()> {
        let view = view.map(|content| {
            let view = Descriptor::of(MediaType::OCI_MANIFEST, &content);
            self.add(&view, Content::Made(content));
            view
        });
        match name {
            Name::Reference(reference) => {
                self.roots.extend(entries_of(&reference.to_string(), root, view.as_ref())?);
            }
            Name::Verbatim(text) => self.roots.extend(entries_of(text, root, view.as_ref())?),
            Name::Unnamed => self.roots.push(root.clone()),
        }
        Ok(())
    }

    /// Adds the documents at the top.
    fn close(&mut self, format: Format) -> Result<()> {
        let index = json!({ "schemaVersion": 2, "mediaType": MediaType::OCI_INDEX, "manifests": self.roots });
        self.make(INDEX, index.to_string());
        self.make(LAYOUT, json!({ "imageLayoutVersion": "1.0.0" }).to_string());
        if format == Format::Docker {
            let items: Vec<&Item> = self.items.values().collect();
            let items = serde_json::to_string(&items).map_err(|error| Error::invalid_document(MANIFEST, error))?;
            self.make(MANIFEST, items);
        }
        Ok(())
    }

    fn make(&mut self, path: &str, content: String) {
        self.contents.insert(path.to_owned(), Content::Made(content.into_bytes()));
    }

    /// `blobs/` and what is below it.
    fn directories(&self) -> BTreeSet<String> {
        let above = |path: &String| path.rsplit_once('/').map(|(above, _)| format!("{above}/"));
        let mut directories: BTreeSet<String> = self.contents.keys().filter_map(above).collect();
        directories.insert("blobs/".to_owned());
        directories
    }
}
