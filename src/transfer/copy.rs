//! From anywhere to anywhere: documents are read first, blobs go before what leads to them, and the name comes last.

use std::collections::HashMap;
use std::collections::HashSet;
use std::fmt;
use std::num::NonZeroUsize;

use super::JOBS;
use super::ends::Brought;
use super::ends::Destination;
use super::ends::Origin;
use super::jobs;
use super::pulled::Transferred;

use crate::descriptor::Descriptor;
use crate::digest::Digest;
use crate::error::Context;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Limit;
use crate::error::Result;
use crate::event::Cancel;
use crate::event::Event;
use crate::event::Observer;
use crate::event::Silent;
use crate::event::Watch;
use crate::image::Image;
use crate::manifest::MAX_DEPTH;
use crate::manifest::Root;
use crate::reference::ImageReference;
use crate::registry::Registry;
use crate::store::Name;
use crate::store::Store;

/// How many documents an index may lead to, with how many bytes.
const MAX_DOCUMENTS: u64 = 1000;
const MAX_BYTES: u64 = 32 << 20;

mod sealed {
    use super::Destination;
    use super::Origin;
    use super::Result;

    pub trait Source {
        fn open(&self) -> Result<Origin>;
    }

    pub trait Target {
        fn open(&self) -> Result<Destination>;
    }
}

/// Where content can be copied from: all that a name on a registry or in a store means, with every image of an index;
/// or one image of a store.
pub trait Source: sealed::Source + fmt::Debug {}

/// Where content can be copied to: a name on a registry, or in a store.
pub trait Target: sealed::Target + fmt::Debug {}

impl sealed::Source for (&Registry, &ImageReference) {
    fn open(&self) -> Result<Origin> {
        let (registry, reference) = self;
        Ok(Origin::registry(registry.repository(reference)?, reference))
    }
}

impl sealed::Source for (&Store, &ImageReference) {
    fn open(&self) -> Result<Origin> {
        let (store, reference) = self;
        Origin::store(store, &Name::from(*reference))
    }
}

impl sealed::Source for (&Store, &Name) {
    fn open(&self) -> Result<Origin> {
        let (store, name) = self;
        Origin::store(store, name)
    }
}

impl sealed::Source for &Image {
    fn open(&self) -> Result<Origin> {
        Origin::image(self)
    }
}

impl sealed::Target for (&Registry, &ImageReference) {
    fn open(&self) -> Result<Destination> {
        let (registry, reference) = self;
        Ok(Destination::registry(registry.repository(reference)?, reference))
    }
}

impl sealed::Target for (&Store, &ImageReference) {
    fn open(&self) -> Result<Destination> {
        let (store, reference) = self;
        Ok(Destination::Store(store.leased()?, (*reference).clone()))
    }
}

impl Source for (&Registry, &ImageReference) {}
impl Source for (&Store, &ImageReference) {}
impl Source for (&Store, &Name) {}
impl Source for &Image {}
impl Target for (&Registry, &ImageReference) {}
impl Target for (&Store, &ImageReference) {}

/// A copy of content, byte for byte; [`Transfer::to`] runs it.
///
/// ```
/// # use layercake::{testing, ImageReference, Registry, Store};
/// use layercake::transfer::copy;
///
/// # let dir = tempfile::tempdir()?;
/// # let first = Store::create(dir.path().join("first"))?;
/// # let name: ImageReference = "example.com/greeter:1".parse()?;
/// # testing::Fixture::demo().tag(&first, &name)?;
/// # let server = testing::Registry::start(&Store::create(dir.path().join("served"))?)?;
/// # let there = server.reference("greeter:1")?;
/// # let second = Store::create(dir.path().join("second"))?;
/// let registry = Registry::new();
/// let pushed = copy((&first, &name)).to((&registry, &there))?;
/// let pulled = copy((&registry, &there)).to((&second, &name))?;
/// assert_eq!(first.resolve(&name)?.digest, second.resolve(&name)?.digest);
/// # assert_eq!(pushed.root.digest, pulled.root.digest);
/// # Ok::<(), layercake::Error>(())
/// ```
pub fn copy<'a>(source: impl Source + 'a) -> Transfer<'a> {
    Transfer { source: Box::new(source), jobs: JOBS, observer: &Silent, cancel: Cancel::new() }
}

/// A copy that is being set up. Made by [`copy()`]; [`to`](Transfer::to) runs it.
#[must_use = "nothing is copied before `to`"]
pub struct Transfer<'a> {
    source: Box<dyn Source + 'a>,
    jobs: NonZeroUsize,
    observer: &'a dyn Observer,
    cancel: Cancel,
}

/// What a copy did.
#[non_exhaustive]
#[derive(Clone, Debug)]
pub struct Copied {
    /// The name, at the target.
    pub reference: ImageReference,
    /// What it means: the same bytes as at the source.
    pub root: Descriptor,
    /// What the name meant before, if the target is a store and had it.
    pub previous: Option<Descriptor>,
    /// The blobs that were sent. Documents are small, are always sent, and are not counted.
    pub sent: Transferred,
    /// The blobs that the target took over from another of its repositories.
    pub mounted: Transferred,
    /// The blobs that the target had.
    pub reused: Transferred,
}

impl Copied {
    fn forget(&mut self) {
        (self.sent, self.mounted, self.reused) = Default::default();
    }
}

impl<'a> Transfer<'a> {
    /// How many blobs go at once: 4 by default, at least 1.
    pub fn jobs(self, jobs: usize) -> Transfer<'a> {
        Transfer { jobs: NonZeroUsize::new(jobs).unwrap_or(NonZeroUsize::MIN), ..self }
    }

    /// Whom to tell what happens.
    pub fn observer(self, observer: &'a dyn Observer) -> Transfer<'a> {
        Transfer { observer, ..self }
    }

    /// A switch that ends the copy.
    pub fn cancel(self, cancel: &Cancel) -> Transfer<'a> {
        Transfer { cancel: cancel.clone(), ..self }
    }

    /// Copies: blobs first, then manifests, then the indexes that list them, and the name last. What the target has is
    /// not sent; on one registry, blobs are mounted. Nothing is kept on the way: between registries, bytes go through
    /// memory.
    ///
    /// After a failure the name means what it meant before.
    ///
    /// # Errors
    ///
    /// * [`ErrorKind::NotFound`]: the source does not have the name, or not all that it leads to.
    /// * [`ErrorKind::InvalidInput`]: the target's name has another digest than the root.
    /// * [`ErrorKind::LimitExceeded`]: indexes lead too deep, or to too much.
    /// * Those of [`Repository::fetch`](crate::registry::Repository::fetch),
    ///   [`Repository::blob`](crate::registry::Repository::blob),
    ///   [`Repository::push_blob`](crate::registry::Repository::push_blob) and
    ///   [`Repository::push_manifest`](crate::registry::Repository::push_manifest) for registries, of [`Store::blob`] and [`Store::tag`] for
    ///   stores.
    /// * [`ErrorKind::Cancelled`].
    pub fn to(&self, target: impl Target) -> Result<Copied> {
        let (from, to) = (self.source.open()?, target.open()?);
        let watch = Watch::new(self.observer, self.cancel.clone());
        let run = || Copying { from: &from, to: &to, watch: &watch, jobs: self.jobs }.run();
        let verb = if matches!((&from, &to), (Origin::Store(..), Destination::Registry(..))) { "push" } else { "copy" };
        run().context(|| format!("{verb} to {}", to.reference()))
    }
}

impl fmt::Debug for Transfer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transfer").field("source", &self.source).field("jobs", &self.jobs).finish_non_exhaustive()
    }
}

/// One copy on its way.
struct Copying<'a> {
    from: &'a Origin,
    to: &'a Destination,
    watch: &'a Watch<'a>,
    jobs: NonZeroUsize,
}

/// What a root leads to.
#[derive(Default)]
struct Graph {
    /// Each after all that it leads to; the root is the last.
    documents: Vec<Root>,
    /// Each once, in the order in which they are met.
    blobs: Vec<Descriptor>,
    seen_blobs: HashSet<Digest>,
    seen_documents: HashSet<Digest>,
    /// How many bytes the documents have.
    bytes: u64,
}

impl Copying<'_> {
    fn run(self) -> Result<Copied> {
        let reference = self.to.reference();
        let root = self.from.root(self.watch)?;
        let descriptor = root.descriptor();
        if reference.digest().is_some_and(|digest| digest != descriptor.digest) {
            return Err(Error::invalid_input(format!("the name's digest is not {}", descriptor.digest)));
        }
        self.watch.tell(&Event::Resolved { reference, root: &descriptor });
        let mut graph = Graph::default();
        self.explore(root, 0, &mut graph)?;
        if let Some(Root::Manifest(manifest)) = graph.documents.last() {
            self.watch.tell(&Event::Selected { manifest: &descriptor, layers: manifest.layers() });
        }
        let mut copied = Copied {
            reference: reference.clone(),
            root: descriptor,
            previous: None,
            sent: Transferred::default(),
            mounted: Transferred::default(),
            reused: Transferred::default(),
        };
        self.blobs(&graph.blobs, &mut copied, false)?;
        copied.previous = match self.documents(&graph.documents, copied.reused.blobs < graph.blobs.len() as u64) {
            // The registry has lost what it had, or never had what it said: nothing is believed any more.
            Err(error) if is_incomplete(&error) => {
                copied.forget();
                self.blobs(&graph.blobs, &mut copied, true)?;
                self.documents(&graph.documents, true)?
            }
            done => done?,
        };
        self.watch.tell(&Event::Tagged { reference, root: &copied.root });
        Ok(copied)
    }

    /// Reads all documents that a document leads to.
    fn explore(&self, document: Root, depth: u64, graph: &mut Graph) -> Result<()> {
        graph.bytes = graph.bytes.saturating_add(document.raw().len() as u64);
        if graph.documents.len() as u64 >= MAX_DOCUMENTS {
            return Err(Error::limit(Limit::Documents, MAX_DOCUMENTS));
        }
        if graph.bytes > MAX_BYTES {
            return Err(Error::limit(Limit::DocumentSize, MAX_BYTES));
        }
        match &document {
            Root::Manifest(manifest) => {
                let wanted = |blob: &&Descriptor| !(self.to.is_public() && blob.media_type.is_nondistributable());
                for blob in manifest.layers().iter().chain([manifest.config()]).filter(wanted) {
                    graph.add_blob(blob);
                }
            }
            Root::Index(index) => {
                for entry in index.manifests() {
                    let is_document = entry.media_type.is_manifest() || entry.media_type.is_index();
                    if !is_document {
                        graph.add_blob(entry);
                    } else if depth >= MAX_DEPTH {
                        return Err(Error::limit(Limit::IndexDepth, MAX_DEPTH));
                    } else if graph.seen_documents.insert(entry.digest) {
                        self.watch.check()?;
                        let document = self.from.document(entry, self.watch)?;
                        self.explore(document, depth + 1, graph)?;
                    }
                }
            }
        }
        graph.documents.push(document);
        Ok(())
    }

    /// Brings the blobs that are not there; or, with `all`, whichever the target says to have.
    fn blobs(&self, blobs: &[Descriptor], copied: &mut Copied, all: bool) -> Result<()> {
        let neighbours = if all { HashMap::new() } else { self.from.neighbours(self.to, blobs)? };
        let needed = self.to.reserve(blobs)?;
        let count = blobs.len();
        let named: Vec<(usize, &Descriptor)> = blobs.iter().enumerate().collect();
        let done = jobs::run(&named, self.jobs, self.watch, |(n, blob)| {
            let beside = neighbours.get(&blob.digest).map_or(&[][..], Vec::as_slice);
            self.blob(blob, beside, all).context(|| format!("blob {} of {count}, {}", n + 1, blob.digest))
        });
        let done = done.map_err(|error| self.to.explain_full(error, needed))?;
        for (blob, brought) in blobs.iter().zip(done) {
            match brought {
                None => copied.reused.add(blob.size),
                Some(Brought::Sent) => copied.sent.add(blob.size),
                Some(Brought::Mounted) => copied.mounted.add(blob.size),
            }
        }
        Ok(())
    }

    fn blob(&self, blob: &Descriptor, neighbours: &[String], all: bool) -> Result<Option<Brought>> {
        if !all && self.to.has_blob(blob, self.watch)? {
            self.watch.tell(&Event::Reused { blob });
            return Ok(None);
        }
        let brought = self.to.bring(blob, self.from, neighbours, self.watch)?;
        if matches!(brought, Brought::Sent) {
            self.watch.tell(&Event::Finished { blob });
        }
        Ok(Some(brought))
    }

    /// Puts the documents, those that others lead to first, and names the root.
    fn documents(&self, documents: &[Root], is_new: bool) -> Result<Option<Descriptor>> {
        let Some((root, others)) = documents.split_last() else { return Ok(None) };
        for document in others {
            self.watch.check()?;
            let descriptor = document.descriptor();
            if !self.to.has_document(&descriptor, self.watch)? {
                self.to.put(document, self.watch).context(|| format!("document {}", descriptor.digest))?;
            }
        }
        self.watch.check()?;
        self.to.publish(root, is_new, self.watch)
    }
}

impl Graph {
    fn add_blob(&mut self, blob: &Descriptor) {
        if self.seen_blobs.insert(blob.digest) {
            self.blobs.push(blob.clone());
        }
    }
}

/// Whether a registry refuses a document for want of what it leads to.
fn is_incomplete(error: &Error) -> bool {
    let codes = ["MANIFEST_BLOB_UNKNOWN", "BLOB_UNKNOWN", "MANIFEST_UNKNOWN"];
    matches!(error.kind(), ErrorKind::Registry(refused) if codes.iter().any(|code| refused.has_code(code)))
}
