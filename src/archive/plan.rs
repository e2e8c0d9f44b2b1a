//! What an archive has, and what of it is to be put into a store.

use std::collections::HashMap;
use std::collections::HashSet;

use serde_json::value::RawValue;

use crate::descriptor::Descriptor;
use crate::digest::Digest;
use crate::error::Error;
use crate::error::Limit;
use crate::error::Result;
use crate::reference::ImageReference;
use crate::store::Name;

/// What an archive had. Nothing in the store is called by these names yet.
#[non_exhaustive]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// The images, and indexes of images, each once, in the archive's order.
    pub images: Vec<LoadedImage>,
}

/// An image, or an index of images, of an archive.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadedImage {
    /// What it is in the store. No name leads to it.
    pub root: Descriptor,
    /// What the archive calls it, in its order. Whoever wrote the archive chose them: they may be names that the store
    /// has already for something else (CVE-2026-50195).
    pub names: Vec<ImageReference>,
    /// What else the archive calls it: texts that are no names of images, such as bare tags. They may be anything.
    pub other_names: Vec<String>,
}

/// How many names a `manifest.json` gives to images at most. Each takes some hundred bytes of memory.
pub(super) const MAX_NAMES: usize = 50_000;

/// What is to be put into the store: blobs before the documents that lead to them.
#[derive(Default)]
pub(super) struct Plan {
    pub(super) loaded: Loaded,
    pub(super) blobs: Vec<(Descriptor, Source)>,
    pub(super) seen: HashSet<Digest>,
    /// Where an image of this root stands in the list, and which names it has.
    places: HashMap<Digest, usize>,
    names: HashSet<(Digest, String)>,
}

pub(super) enum Source {
    /// A member, by its number.
    Member(usize),
    /// A manifest, to be made of what the archive's `manifest.json` says of an image. That is kept, and not what it
    /// makes: a few bytes of it may name a layer, and each layer takes some hundred of a manifest.
    Made(Box<RawValue>),
}

impl Plan {
    /// Puts a blob behind those that are there.
    pub(super) fn add(&mut self, promise: Descriptor, source: Source) {
        if self.seen.insert(promise.digest) {
            self.blobs.push((promise, source));
        }
    }

    /// Takes back what was put behind the first so many.
    pub(super) fn forget(&mut self, first: usize) {
        for (promise, _) in self.blobs.drain(first..) {
            self.seen.remove(&promise.digest);
        }
    }

    /// Adds an image, if it was not met before, and what a layout calls it.
    pub(super) fn add_image(&mut self, root: &Descriptor, name: Name) {
        self.image(root);
        match name {
            Name::Reference(reference) => self.add_reference(root, reference),
            Name::Verbatim(text) => self.add_text(root, &text),
            Name::Unnamed => {}
        }
    }

    /// Adds an image, if it was not met before, and texts that it is called by. Fails if there are too many by now.
    pub(super) fn add_called(&mut self, root: &Descriptor, texts: &[String]) -> Result<()> {
        self.image(root);
        texts.iter().for_each(|text| self.add_text(root, text));
        if self.names.len() > MAX_NAMES { Err(Error::limit(Limit::Names, MAX_NAMES as u64)) } else { Ok(()) }
    }

    fn image(&mut self, root: &Descriptor) -> &mut LoadedImage {
        let images = &mut self.loaded.images;
        let place = *self.places.entry(root.digest).or_insert_with(|| {
            images.push(LoadedImage { root: root.clone(), names: Vec::new(), other_names: Vec::new() });
            images.len() - 1
        });
        &mut images[place]
    }

    /// A text is a name if it says more than a tag alone.
    fn add_text(&mut self, root: &Descriptor, text: &str) {
        match text.parse::<ImageReference>() {
            Ok(reference) if text.contains(['/', ':']) => self.add_reference(root, reference),
            _ => self.add_other(root, text),
        }
    }

    /// A name with another digest is none that the image can have.
    fn add_reference(&mut self, root: &Descriptor, reference: ImageReference) {
        let reference = reference.exact();
        if reference.digest().is_some_and(|digest| digest != root.digest) {
            self.add_other(root, &reference.to_string());
        } else if self.names.insert((root.digest, reference.to_string())) {
            self.image(root).names.push(reference);
        }
    }

    fn add_other(&mut self, root: &Descriptor, text: &str) {
        if self.names.insert((root.digest, text.to_owned())) {
            self.image(root).other_names.push(text.to_owned());
        }
    }
}
