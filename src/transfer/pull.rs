//! From a registry into a store.

use std::cell::RefCell;
use std::collections::HashSet;
use std::fmt;
use std::num::NonZeroUsize;

use super::jobs;

use crate::descriptor::Descriptor;
use crate::digest::Digest;
use crate::error::Context;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::event::Cancel;
use crate::event::Event;
use crate::event::Observer;
use crate::event::Silent;
use crate::event::Watch;
use crate::image::Image;
use crate::manifest::Config;
use crate::manifest::Manifest;
use crate::manifest::Root;
use crate::manifest::choose;
use crate::platform::Platform;
use crate::reference::Identifier;
use crate::reference::ImageReference;
use crate::registry::Registry;
use crate::registry::Repository;
use crate::store::Name;
use crate::store::Store;

/// How many blobs come at once, unless [`Pull::jobs`] says otherwise.
const JOBS: NonZeroUsize = NonZeroUsize::new(4).expect("four is not zero");
/// How much of a blob is read, hashed and written at a time.
const CHUNK: usize = 128 << 10;

impl Registry {
    /// A pull of the image that this name means; [`Pull::to`] runs it. A name with neither tag nor digest means the
    /// tag `latest`.
    pub fn pull(&self, reference: &ImageReference) -> Pull<'static> {
        Pull {
            registry: self.clone(),
            reference: reference.or_latest(),
            platform: None,
            policy: PullPolicy::Always,
            jobs: JOBS,
            observer: &Silent,
            cancel: Cancel::new(),
        }
    }
}

/// When a pull asks the registry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum PullPolicy {
    /// Always. What the store has is not fetched again.
    #[default]
    Always,
    /// Only if the store does not have the image, whole, under the name. If it has, no request is made.
    IfMissing,
    /// Never; the pull fails if the store does not have the image.
    Never,
}

/// What a pull did, as `docker pull` says it in its last lines.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PullStatus {
    /// The name is new in the store, or means another image than before: "Downloaded newer image".
    DownloadedNewer,
    /// The name meant this image before: "Image is up to date". [`Pulled::previous`] may still be another root: an
    /// index can change without the platform's image changing.
    UpToDate,
}

/// Blobs and their bytes.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Transferred {
    /// How many blobs; manifests and configurations count too.
    pub blobs: u64,
    /// Their sizes, in bytes.
    pub bytes: u64,
}

impl Transferred {
    fn add(&mut self, bytes: u64) {
        self.blobs += 1;
        self.bytes = self.bytes.saturating_add(bytes);
    }
}

/// What a pull did.
#[non_exhaustive]
#[derive(Clone, Debug)]
pub struct Pulled {
    /// The name, as the store has it now.
    pub reference: ImageReference,
    /// The image for the platform, in the store.
    pub image: Image,
    /// What the name means: the image's manifest, or the index that lists it. Its digest is the one that
    /// `docker pull` reports.
    pub root: Descriptor,
    /// What the name meant before, if the store had it.
    pub previous: Option<Descriptor>,
    /// Whether the name means another image than before.
    pub status: PullStatus,
    /// What came from the registry. Of a blob that was resumed, only the bytes that were missing.
    pub fetched: Transferred,
    /// What the store had already. Of a blob that was resumed, the bytes that were there.
    pub reused: Transferred,
}

/// A pull that is being set up. Made by [`Registry::pull`]; [`to`](Pull::to) runs it.
#[must_use = "nothing is pulled before `to`"]
#[derive(Clone)]
pub struct Pull<'a> {
    registry: Registry,
    reference: ImageReference,
    platform: Option<Platform>,
    policy: PullPolicy,
    jobs: NonZeroUsize,
    observer: &'a dyn Observer,
    cancel: Cancel,
}

impl<'a> Pull<'a> {
    /// The platform to pull for; the host's by default.
    ///
    /// An image that is not listed in an index is pulled for the host whatever its platform; for a platform that
    /// was asked for it must be that one.
    pub fn platform(self, platform: Platform) -> Pull<'a> {
        Pull { platform: Some(platform), ..self }
    }

    /// When to ask the registry; [`PullPolicy::Always`] by default.
    pub fn policy(self, policy: PullPolicy) -> Pull<'a> {
        Pull { policy, ..self }
    }

    /// How many blobs come at once: 4 by default, at least 1.
    pub fn jobs(self, jobs: usize) -> Pull<'a> {
        Pull { jobs: NonZeroUsize::new(jobs).unwrap_or(NonZeroUsize::MIN), ..self }
    }

    /// Whom to tell what happens.
    pub fn observer(self, observer: &'a dyn Observer) -> Pull<'a> {
        Pull { observer, ..self }
    }

    /// A switch that ends the pull. What has arrived by then is there for the next one.
    pub fn cancel(self, cancel: &Cancel) -> Pull<'a> {
        Pull { cancel: cancel.clone(), ..self }
    }

    /// Pulls into a store: documents first, then layers, each verified before it is there, and the name last.
    ///
    /// After a failure the name means what it meant before, and what has arrived is there for the next attempt to
    /// go on with.
    ///
    /// # Errors
    ///
    /// * [`ErrorKind::Registry`]: the registry refuses; its status, codes and messages are kept.
    /// * [`ErrorKind::NotFound`]: the policy is [`PullPolicy::Never`] and the image is not there.
    /// * [`ErrorKind::NoMatchingPlatform`]: there is no image for the platform; the error lists those there are.
    /// * [`ErrorKind::DigestMismatch`], [`ErrorKind::SizeMismatch`], [`ErrorKind::InvalidDocument`],
    ///   [`ErrorKind::Schema1`], [`ErrorKind::UnsupportedMediaType`], [`ErrorKind::LimitExceeded`]: what came is not
    ///   what it should be.
    /// * [`ErrorKind::Connect`], [`ErrorKind::Tls`], [`ErrorKind::Network`], [`ErrorKind::TimedOut`],
    ///   [`ErrorKind::Protocol`], [`ErrorKind::Authentication`]: the registry, or its token server, cannot be talked
    ///   to.
    /// * [`ErrorKind::StorageFull`], [`ErrorKind::ReadOnly`], [`ErrorKind::Locked`], [`ErrorKind::Io`]: the store
    ///   cannot be written.
    /// * [`ErrorKind::InvalidInput`]: the name is `scratch`.
    /// * [`ErrorKind::Cancelled`].
    pub fn to(&self, store: &Store) -> Result<Pulled> {
        let pull = || {
            if self.reference.is_scratch() {
                return Err(Error::invalid_input("'scratch' is a reserved name"));
            }
            match self.policy {
                PullPolicy::Always => self.ask(store),
                PullPolicy::IfMissing => match self.present(store)? {
                    Some(pulled) => Ok(pulled),
                    None => self.ask(store),
                },
                PullPolicy::Never => {
                    self.present(store)?.ok_or_else(|| Error::not_found(format!("image {}", self.reference)))
                }
            }
        };
        pull().context(|| format!("pull {}", self.reference))
    }

    /// The image, if the store has it whole.
    fn present(&self, store: &Store) -> Result<Option<Pulled>> {
        let Some((_, root)) = store.lookup(&Name::from(&self.reference))? else { return Ok(None) };
        let Some(image) = self.open(store, &root)? else { return Ok(None) };
        if !image.is_complete()? {
            return Ok(None);
        }
        self.observer.event(&Event::Resolved { reference: &self.reference, root: &root });
        let reused = Transferred { blobs: 1 + image.manifest().layers().len() as u64, bytes: image.size() };
        Ok(Some(Pulled {
            reference: self.reference.clone(),
            image,
            previous: Some(root.clone()),
            root,
            status: PullStatus::UpToDate,
            fetched: Transferred::default(),
            reused,
        }))
    }

    /// The image that a root in the store leads to, if its documents are there.
    fn open(&self, store: &Store, root: &Descriptor) -> Result<Option<Image>> {
        let open = || {
            let image = store.assemble(root, store.manifest_for(root, &self.wanted())?)?;
            self.platform.as_ref().map_or(Ok(()), |platform| image.check_platform(platform))?;
            Ok::<Image, Error>(image)
        };
        match open() {
            Ok(image) => Ok(Some(image)),
            Err(error) if error.is_not_found() || error.is_corrupt() => Ok(None),
            Err(error) if matches!(error.kind(), ErrorKind::NoMatchingPlatform { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn wanted(&self) -> Platform {
        self.platform.clone().unwrap_or_else(Platform::host)
    }

    fn ask(&self, store: &Store) -> Result<Pulled> {
        let repository = self.registry.repository(&self.reference)?;
        let watch = Watch::new(self.observer, self.cancel.clone());
        let (fetched, reused) = (Transferred::default(), Transferred::default());
        let mut run = Run { repository, store, watch, fetched, reused, relied_on: Vec::new() };

        let before = store.lookup(&Name::from(&self.reference))?;
        let id_before = self.id_before(store, before.as_ref().map(|(_, root)| root))?;
        let document = run.root(&self.reference.identifier(), before.as_ref().map(|(_, root)| root))?;
        let root = document.descriptor();
        run.watch.tell(&Event::Resolved { reference: &self.reference, root: &root });
        let manifest = run.choose(document, &self.wanted())?;
        run.watch.tell(&Event::Selected { manifest: &manifest.descriptor(), layers: manifest.layers() });
        run.config(&manifest, self.platform.as_ref())?;
        run.blobs(&manifest, self.jobs)?;
        let image = store.assemble(&root, manifest)?;
        let status = if id_before == Some(image.id()) { PullStatus::UpToDate } else { PullStatus::DownloadedNewer };
        run.tag(&self.reference, &root, before.as_ref(), status)?;
        let Run { fetched, reused, .. } = run;
        let previous = before.map(|(_, root)| root);
        Ok(Pulled { reference: self.reference.clone(), image, root, previous, status, fetched, reused })
    }

    /// The id of the image that the name means now, for this pull's platform.
    fn id_before(&self, store: &Store, root: Option<&Descriptor>) -> Result<Option<Digest>> {
        let Some(root) = root else { return Ok(None) };
        match self.open(store, root) {
            Ok(image) => Ok(image.map(|image| image.id())),
            // What cannot be understood is no image that could be up to date.
            Err(error) if matches!(error.kind(), ErrorKind::Io { .. }) => Err(error),
            Err(_) => Ok(None),
        }
    }
}

impl fmt::Debug for Pull<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Pull { reference, platform, policy, jobs, .. } = self;
        f.debug_struct("Pull")
            .field("reference", reference)
            .field("platform", platform)
            .field("policy", policy)
            .field("jobs", jobs)
            .finish_non_exhaustive()
    }
}

/// One pull on its way.
struct Run<'a> {
    repository: Repository,
    store: &'a Store,
    watch: Watch<'a>,
    fetched: Transferred,
    reused: Transferred,
    /// The documents that were found in the store, or brought there.
    relied_on: Vec<Descriptor>,
}

impl Run<'_> {
    /// What the name means: asked with HEAD, fetched only if the store does not have it.
    fn root(&mut self, identifier: &Identifier, before: Option<&Descriptor>) -> Result<Root> {
        let promised = match self.repository.resolve_watched(identifier, &self.watch) {
            Ok(promised) => promised,
            // An answer to HEAD has no body that could explain it; the answer to GET does, or is the manifest.
            Err(error) if is_refused(&error) => None,
            Err(error) => return Err(error),
        };
        let Some(promised) = promised else { return self.fetch_root(identifier) };
        let known = before.filter(|root| root.digest == promised.digest).unwrap_or(&promised);
        match self.stored(known)? {
            Some(root) => Ok(root),
            // By digest: the tag may have moved since it was asked for.
            None => self.fetch_root(&Identifier::Digest(promised.digest)),
        }
    }

    fn fetch_root(&mut self, identifier: &Identifier) -> Result<Root> {
        let root = self.repository.fetch_watched(identifier, &self.watch)?;
        self.keep(&root.descriptor(), root.raw())?;
        Ok(root)
    }

    /// The manifest or index that a descriptor promises.
    fn document(&mut self, descriptor: &Descriptor) -> Result<Root> {
        if let Some(root) = self.stored(descriptor)? {
            return Ok(root);
        }
        let root = self.repository.fetch_promised_watched(descriptor, &self.watch)?;
        self.keep(descriptor, root.raw())?;
        Ok(root)
    }

    /// The same from the store; what is damaged there is as good as missing.
    fn stored(&mut self, descriptor: &Descriptor) -> Result<Option<Root>> {
        match self.store.document(descriptor) {
            Ok(root) => {
                self.reuse(descriptor);
                Ok(Some(root))
            }
            Err(error) if error.is_not_found() || error.is_corrupt() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Counts a document that the store has. One that this pull brought is counted already.
    fn reuse(&mut self, descriptor: &Descriptor) {
        if self.relied_on.iter().all(|blob| blob.digest != descriptor.digest) {
            self.reused.add(descriptor.size);
            self.relied_on.push(descriptor.clone());
        }
    }

    fn keep(&mut self, descriptor: &Descriptor, content: &[u8]) -> Result<()> {
        self.store.write_as(descriptor, content)?;
        self.fetched.add(descriptor.size);
        self.relied_on.push(descriptor.clone());
        Ok(())
    }

    /// The manifest for the platform, fetched as far as it is not in the store.
    fn choose(&mut self, document: Root, platform: &Platform) -> Result<Manifest> {
        // Both ways to get more need all of this; only one is used at a time.
        let run = RefCell::new(self);
        choose(document, platform, &mut |entry| run.borrow_mut().document(entry), &mut |manifest| {
            Ok(run.borrow_mut().configuration(manifest)?.and_then(|config| config.platform()))
        })
    }

    /// Gets an image's configuration, and checks that the image can be what it says before layers are fetched.
    fn config(&mut self, manifest: &Manifest, platform: Option<&Platform>) -> Result<()> {
        let Some(config) = self.configuration(manifest)? else { return Ok(()) };
        config.check_layers(manifest.layers().len())?;
        platform.map_or(Ok(()), |platform| config.check_platform(platform))
    }

    /// An image's configuration; artifacts have none.
    fn configuration(&mut self, manifest: &Manifest) -> Result<Option<Config>> {
        let descriptor = manifest.config();
        if !descriptor.media_type.is_config() {
            return Ok(None);
        }
        let bytes = match self.store.read(descriptor) {
            Ok(bytes) => {
                self.reuse(descriptor);
                bytes
            }
            Err(error) if error.is_not_found() || error.is_corrupt() => {
                let bytes = self
                    .repository
                    .read_watched(descriptor, &self.watch)
                    .context(|| format!("configuration {}", descriptor.digest))?;
                self.keep(descriptor, &bytes)?;
                bytes
            }
            Err(error) => return Err(error),
        };
        Config::with_digest(bytes, descriptor.digest).map(Some)
    }

    /// Gets the layers; and of an artifact, what it has in the place of a configuration.
    fn blobs(&mut self, manifest: &Manifest, threads: NonZeroUsize) -> Result<()> {
        let count = manifest.layers().len();
        let other = Some(manifest.config()).filter(|config| !config.media_type.is_config());
        let layers = manifest.layers().iter().enumerate();
        let named = layers.map(|(n, layer)| (format!("layer {} of {count}", n + 1), layer));
        let mut seen = HashSet::new();
        let wanted: Vec<(String, &Descriptor)> = named
            .chain(other.map(|config| ("configuration".to_owned(), config)))
            .filter(|(_, blob)| seen.insert(blob.digest))
            .collect();
        let fetched = jobs::run(&wanted, threads, &self.watch, |(name, blob)| {
            self.blob(blob).context(|| format!("{name}, {}", blob.digest))
        })?;
        for ((_, blob), fetched) in wanted.iter().zip(fetched) {
            if fetched > 0 || blob.size == 0 {
                self.fetched.add(fetched);
            }
            if fetched < blob.size {
                self.reused.add(blob.size - fetched);
            }
        }
        Ok(())
    }

    /// Gets a blob into the store. Returns how many bytes came from the registry.
    fn blob(&self, blob: &Descriptor) -> Result<u64> {
        if self.store.contains(blob)? {
            self.store.settle(blob)?;
            self.watch.tell(&Event::Reused { blob });
            return Ok(0);
        }
        let mut writer = self.store.resume(blob)?;
        let mut fetched = 0;
        let mut chunk = vec![0; CHUNK];
        self.watch.tell(&Event::Started { blob, resumed: writer.written() });
        loop {
            let resumed = writer.written();
            let mut download = self.repository.download(blob, resumed);
            loop {
                let count = download.read(&mut chunk, &self.watch)?;
                if count == 0 {
                    break;
                }
                writer.append(&chunk[..count])?;
                fetched += count as u64;
                self.watch.tell(&Event::Progress { blob, bytes: writer.written() });
            }
            // Pieces that do not fit together (a crash tore the first, a registry sent another blob's part) get one
            // more chance, in one piece.
            let pieced = resumed > 0 || download.is_pieced();
            if !pieced || writer.digest() == blob.digest || fetched > blob.size {
                break;
            }
            writer.restart()?;
        }
        writer.commit_as(blob)?;
        self.watch.tell(&Event::Finished { blob });
        Ok(fetched)
    }

    /// Gives the image its name, if it does not have it.
    fn tag(
        &self,
        reference: &ImageReference,
        root: &Descriptor,
        before: Option<&(Name, Descriptor)>,
        status: PullStatus,
    ) -> Result<()> {
        let exact = reference.exact();
        let named = |(name, found): &(Name, Descriptor)| found.same_content(root) && name.reference() == Some(&exact);
        // Another platform of the same root changes what other tools see under the name.
        self.relied_on.iter().try_for_each(|document| self.store.settle(document))?;
        if status == PullStatus::UpToDate && before.is_some_and(named) {
            return self.store.settle_names();
        }
        self.watch.check()?;
        self.store.tag(reference, root)?;
        self.watch.tell(&Event::Tagged { reference, root });
        Ok(())
    }
}

/// Whether a registry refused for good.
fn is_refused(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Registry(error) if error.status < 500 && error.status != 429)
}
