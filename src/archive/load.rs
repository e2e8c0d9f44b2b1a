//! Reading archives into a store.

use std::collections::HashMap;
use std::collections::HashSet;
use std::fmt;
use std::io::Read;

use super::docker;
use super::members;
use super::members::Members;
use super::oci;

use crate::changeset::Limits;
use crate::descriptor::Descriptor;
use crate::digest::Digest;
use crate::error::Context;
use crate::error::Error;
use crate::error::Result;
use crate::event::Cancel;
use crate::event::Event;
use crate::event::Observer;
use crate::event::Silent;
use crate::reference::ImageReference;
use crate::store::Name;
use crate::store::Store;

/// How many members an archive has at most, unless the caller says otherwise: some 15,000 layers.
const MAX_MEMBERS: u64 = 50_000;
/// How long a member's path is at most. The longest that a document can need is `blobs/sha512/…`, of 141 bytes.
const MAX_PATH: u64 = 256;

/// An archive that is about to be read. Made by [`load`](super::load); [`to`](Load::to) reads it.
#[must_use = "nothing is read before `to`"]
pub struct Load<'a, R> {
    reader: R,
    limits: Limits,
    observer: &'a dyn Observer,
    cancel: Cancel,
}

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
    /// A document that was made of what the archive says.
    Made(Vec<u8>),
}

impl<'a, R: Read> Load<'a, R> {
    pub(super) fn new(reader: R) -> Load<'a, R> {
        let limits = Limits { entries: MAX_MEMBERS, path_bytes: MAX_PATH, ..Limits::default() };
        Load { reader, limits, observer: &Silent, cancel: Cancel::new() }
    }

    /// What is refused because it is too much: of the archive's entries, its unpacked bytes, the bytes of a member and
    /// of its path, the layers of an image. By default 50,000 entries with paths of 256 bytes, and else what layers
    /// may have.
    pub fn limits(self, limits: Limits) -> Load<'a, R> {
        Load { limits, ..self }
    }

    /// Whom to tell of [`Event::Finished`]: a blob is in the store.
    pub fn observer(self, observer: &'a dyn Observer) -> Load<'a, R> {
        Load { observer, ..self }
    }

    /// A switch that ends the work.
    pub fn cancel(self, cancel: &Cancel) -> Load<'a, R> {
        Load { cancel: cancel.clone(), ..self }
    }

    /// Reads the archive to its end, and then puts what images lead to into the store. Nothing is named: to do that, or
    /// not, is for the caller, by [`Store::tag`].
    ///
    /// Until all was read and found right nobody sees anything of it; what an attempt leaves that is killed is
    /// reclaimed like an unfinished download.
    ///
    /// # Errors
    ///
    /// * [`ErrorKind::InvalidArchive`](crate::ErrorKind::InvalidArchive): it is no tar; it has no images; a path or a
    ///   link leads out of it; a member comes twice and differs; links lead in circles.
    /// * [`ErrorKind::NotFound`](crate::ErrorKind::NotFound): a document leads to a member that is not there.
    /// * [`ErrorKind::DigestMismatch`](crate::ErrorKind::DigestMismatch),
    ///   [`ErrorKind::SizeMismatch`](crate::ErrorKind::SizeMismatch): a member is not what its name, or the document
    ///   that leads to it, says.
    /// * [`ErrorKind::InvalidDocument`](crate::ErrorKind::InvalidDocument) and the others of
    ///   [`Root::parse`](crate::manifest::Root::parse): a document is not what it must be.
    /// * [`ErrorKind::LimitExceeded`](crate::ErrorKind::LimitExceeded): there is too much of something.
    /// * [`ErrorKind::Compression`](crate::ErrorKind::Compression): it cannot be decompressed.
    /// * [`ErrorKind::Cancelled`](crate::ErrorKind::Cancelled): the switch was thrown.
    /// * [`ErrorKind::ReadOnly`](crate::ErrorKind::ReadOnly),
    ///   [`ErrorKind::StorageFull`](crate::ErrorKind::StorageFull), [`ErrorKind::Io`](crate::ErrorKind::Io): the
    ///   operating system refuses, or the reader fails.
    pub fn to(self, store: &Store) -> Result<Loaded> {
        let Load { reader, limits, observer, cancel } = self;
        let load = || {
            let mut members = Members::read(reader, store, limits, &cancel)?;
            let plan = plan(&mut members, limits, &cancel)?;
            for (promise, source) in plan.blobs {
                cancel.check()?;
                match source {
                    Source::Member(number) => members.commit(number, &promise)?,
                    Source::Made(content) => store.write_as(&promise, &content)?,
                }
                observer.event(&Event::Finished { blob: &promise });
            }
            Ok(plan.loaded)
        };
        load().context(|| "load an archive")
    }
}

impl<R> fmt::Debug for Load<'_, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Load").field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// An archive that is a layout is read as one, because manifests keep their digests so; Docker's own file beside it adds
/// names.
fn plan(members: &mut Members, limits: Limits, cancel: &Cancel) -> Result<Plan> {
    let is_layout = members.document(members::LAYOUT).is_some() && members.document(members::INDEX).is_some();
    let is_docker = members.document(members::MANIFEST).is_some();
    let mut plan = Plan::default();
    match (is_layout, is_docker) {
        (true, _) => oci::plan(members, limits, &mut plan)?,
        (false, true) => docker::plan(members, limits, cancel, &mut plan)?,
        (false, false) => {
            let reason = "it has neither manifest.json, as `docker save` writes it, nor oci-layout and index.json";
            return Err(Error::invalid_archive(reason));
        }
    }
    if is_layout && is_docker {
        docker::add_names(members, &mut plan)?;
    }
    Ok(plan)
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

    /// Adds an image, if it was not met before, and texts that it is called by.
    pub(super) fn add_called(&mut self, root: &Descriptor, texts: &[String]) {
        self.image(root);
        texts.iter().for_each(|text| self.add_text(root, text));
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
