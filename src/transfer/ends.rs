//! Where content comes from and where it goes to: stores and registries, seen alike.

use std::collections::HashMap;
use std::io;
use std::io::Read;
use std::io::Seek;
use std::io::SeekFrom;

use crate::descriptor::Descriptor;
use crate::digest::Digest;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::event::Event;
use crate::event::Watch;
use crate::image::Image;
use crate::manifest::Root;
use crate::reference::Identifier;
use crate::reference::ImageReference;
use crate::registry::BlobSource;
use crate::registry::Repository;
use crate::registry::is_refused;
use crate::store::Name;
use crate::store::Store;
use crate::verify::VerifiedReader;

/// How many other names of a store are looked into for repositories to mount from.
const MAX_NEIGHBOURS: usize = 100;
/// How many repositories are offered for one blob.
const MAX_OFFERS: usize = 3;
const CHUNK: usize = 128 << 10;

/// Where content comes from.
pub enum Origin {
    /// All that a name on a registry means.
    Registry(Repository, Identifier),
    /// All that a root in a store leads to.
    Store(Store, Box<Descriptor>),
}

/// Where content goes to.
pub enum Destination {
    /// A repository, and the tag or digest that the root gets there.
    Registry(Repository, ImageReference),
    Store(Store, ImageReference),
}

/// What became of a blob.
#[derive(Debug)]
pub(super) enum Brought {
    Sent,
    Mounted,
}

impl Origin {
    pub(super) fn registry(repository: Repository, reference: &ImageReference) -> Origin {
        Origin::Registry(repository, reference.or_latest().identifier())
    }

    pub(super) fn image(image: &Image) -> Result<Origin> {
        let store = image.store().held()?;
        store.note_use(image.root());
        Ok(Origin::Store(store, Box::new(image.descriptor())))
    }

    pub(super) fn store(store: &Store, name: &Name) -> Result<Origin> {
        Ok(Origin::Store(store.held()?, Box::new(store.resolve(name)?)))
    }

    pub(super) fn root(&self, watch: &Watch<'_>) -> Result<Root> {
        match self {
            Origin::Registry(repository, identifier) => repository.fetch_watched(identifier, watch),
            Origin::Store(store, root) => store.document(root),
        }
    }

    pub(super) fn document(&self, document: &Descriptor, watch: &Watch<'_>) -> Result<Root> {
        match self {
            Origin::Registry(repository, _) => repository.fetch_promised_watched(document, watch),
            Origin::Store(store, _) => store.document(document),
        }
    }

    /// A reader of a blob, verified if it is all of it.
    fn open<'a>(&'a self, blob: &'a Descriptor, offset: u64, watch: &'a Watch<'a>) -> Result<Box<dyn Read + 'a>> {
        let reader: Box<dyn Read + 'a> = match self {
            Origin::Registry(repository, _) => Box::new(Coming { download: repository.download(blob, offset), watch }),
            Origin::Store(store, _) => {
                let mut file = store.open_blob(blob)?;
                file.seek(SeekFrom::Start(offset))?;
                Box::new(file)
            }
        };
        Ok(if offset == 0 { Box::new(VerifiedReader::new(reader, blob)) } else { reader })
    }

    /// The repositories that a target may mount blobs from: this one, if it is beside the target; those that the store
    /// has names of there.
    pub(super) fn neighbours(&self, to: &Destination, blobs: &[Descriptor]) -> Result<HashMap<Digest, Vec<String>>> {
        let mut found: HashMap<Digest, Vec<String>> = HashMap::new();
        let Destination::Registry(target, reference) = to else { return Ok(found) };
        match self {
            Origin::Registry(source, _) if source.is_beside(target) => {
                for blob in blobs {
                    found.entry(blob.digest).or_default().push(source.name().to_owned());
                }
            }
            Origin::Registry(..) => {}
            Origin::Store(store, _) => {
                let is_beside = |name: &&ImageReference| {
                    name.host() == reference.host() && name.repository() != reference.repository()
                };
                let entries: Vec<(Name, Descriptor)> = store.entries()?.filter_map(Result::ok).collect();
                let beside =
                    entries.iter().filter_map(|(name, root)| Some((name.reference().filter(is_beside)?, root)));
                for (name, root) in beside.take(MAX_NEIGHBOURS) {
                    // A neighbour that cannot be read has nothing to offer.
                    let Ok(manifest) = store.manifest_at(root) else { continue };
                    for blob in manifest.layers().iter().chain([manifest.config()]) {
                        let repositories = found.entry(blob.digest).or_default();
                        if repositories.len() < MAX_OFFERS
                            && !repositories.iter().any(|known| known == name.repository())
                        {
                            repositories.push(name.repository().to_owned());
                        }
                    }
                }
            }
        }
        Ok(found)
    }
}

impl Destination {
    pub(super) fn registry(repository: Repository, reference: &ImageReference) -> Destination {
        Destination::Registry(repository, reference.or_latest())
    }

    pub(super) fn reference(&self) -> &ImageReference {
        match self {
            Destination::Registry(_, reference) | Destination::Store(_, reference) => reference,
        }
    }

    /// Makes sure that there is room, where that can be known. Returns how many bytes are needed.
    pub(super) fn reserve(&self, blobs: &[Descriptor]) -> Result<u64> {
        match self {
            Destination::Registry(..) => Ok(0),
            Destination::Store(store, _) => store.reserve(&blobs.iter().collect::<Vec<_>>()),
        }
    }

    pub(super) fn explain_full(&self, error: Error, needed: u64) -> Error {
        match self {
            Destination::Registry(..) => error,
            Destination::Store(store, _) => store.explain_full(error, needed),
        }
    }

    /// Whether blobs go there that must not be given to everyone (image-spec, "Non-Distributable Layers").
    pub(super) fn is_public(&self) -> bool {
        matches!(self, Destination::Registry(..))
    }

    /// Whether a blob is there; then it may be relied on.
    pub(super) fn has_blob(&self, blob: &Descriptor, watch: &Watch<'_>) -> Result<bool> {
        match self {
            Destination::Registry(repository, _) => match repository.has_blob_watched(blob, watch) {
                // An answer to HEAD has no words; the refusal of what follows does.
                Err(error) if is_refused(&error) => Ok(false),
                answer => answer,
            },
            Destination::Store(store, _) if store.contains(blob)? => store.settle(blob).map(|()| true),
            Destination::Store(..) => Ok(false),
        }
    }

    pub(super) fn bring(
        &self,
        blob: &Descriptor,
        from: &Origin,
        neighbours: &[String],
        watch: &Watch<'_>,
    ) -> Result<Brought> {
        match self {
            Destination::Registry(repository, _) => {
                let source = Blob { from, blob, watch };
                let names = neighbours.iter().map(String::as_str);
                match repository.push_blob_watched(blob, &source, names, watch)? {
                    Some(from) => {
                        watch.tell(&Event::Mounted { blob, from });
                        Ok(Brought::Mounted)
                    }
                    None => Ok(Brought::Sent),
                }
            }
            Destination::Store(store, _) => take_in(store, blob, from, watch).map(|()| Brought::Sent),
        }
    }

    /// Whether a document is there.
    pub(super) fn has_document(&self, document: &Descriptor, watch: &Watch<'_>) -> Result<bool> {
        match self {
            Destination::Registry(repository, _) => {
                repository.means_watched(&Identifier::Digest(document.digest), document, watch)
            }
            // What is there is compared and promised anew when it is put.
            Destination::Store(..) => Ok(false),
        }
    }

    /// Puts a document that others lead to.
    pub(super) fn put(&self, document: &Root, watch: &Watch<'_>) -> Result<()> {
        let descriptor = document.descriptor();
        match self {
            Destination::Registry(repository, _) => {
                repository.put_watched(document, &Identifier::Digest(descriptor.digest), watch)
            }
            Destination::Store(store, _) => store.write_as(&descriptor, document.raw()),
        }
    }

    /// Puts the root, and gives it its name; or, where nothing was sent, asks first whether it has it. Returns what the
    /// name meant before, where that is known.
    pub(super) fn publish(&self, root: &Root, is_new: bool, watch: &Watch<'_>) -> Result<Option<Descriptor>> {
        match self {
            Destination::Registry(repository, reference) => {
                let identifier = match reference.tag() {
                    Some(tag) => Identifier::Tag(tag.to_owned()),
                    None => reference.identifier(),
                };
                if is_new || !repository.means_watched(&identifier, &root.descriptor(), watch)? {
                    repository.put_watched(root, &identifier, watch)?;
                }
                Ok(None)
            }
            Destination::Store(store, reference) => {
                self.put(root, watch)?;
                store.tag(reference, &root.descriptor())
            }
        }
    }
}

/// A blob of a source, for a registry to be sent to.
struct Blob<'a> {
    from: &'a Origin,
    blob: &'a Descriptor,
    watch: &'a Watch<'a>,
}

impl BlobSource for Blob<'_> {
    fn open(&self, offset: u64) -> Result<Box<dyn Read + '_>> {
        self.from.open(self.blob, offset, self.watch)
    }
}

/// What a registry sends, for as long as nobody ends it.
struct Coming<'a> {
    download: crate::registry::Download,
    watch: &'a Watch<'a>,
}

impl Read for Coming<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(self.download.read(buffer, self.watch)?)
    }
}

/// Brings a blob into a store, from where an earlier attempt ended.
fn take_in(store: &Store, blob: &Descriptor, from: &Origin, watch: &Watch<'_>) -> Result<()> {
    let mut writer = store.resume(blob)?;
    watch.tell(&Event::Started { blob, resumed: writer.written() });
    let mut chunk = vec![0; CHUNK];
    loop {
        let resumed = writer.written();
        let mut reader = from.open(blob, resumed, watch)?;
        loop {
            watch.check()?;
            match reader.read(&mut chunk) {
                Ok(0) => break,
                Ok(count) => writer.append(&chunk[..count])?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::from(error)),
            }
            if writer.written() > blob.size {
                return Err(ErrorKind::SizeMismatch { expected: blob.size, found: writer.written() }.into());
            }
            watch.tell(&Event::Progress { blob, bytes: writer.written() });
        }
        // What an earlier attempt left may not be what it seemed.
        if resumed == 0 || writer.digest() == blob.digest {
            return writer.commit_as(blob);
        }
        drop(reader);
        writer.restart()?;
    }
}
