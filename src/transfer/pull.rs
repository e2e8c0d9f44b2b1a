//! From a registry into a store.

use std::fmt;
use std::num::NonZeroUsize;

use super::JOBS;
use super::plan::Planning;
use super::plan::PullPlan;
use super::pulled::PullStatus;
use super::pulled::Pulled;
use super::pulled::Transferred;
use super::run::Run;

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
use crate::platform::Platform;
use crate::reference::Identifier;
use crate::reference::ImageReference;
use crate::registry::Registry;
use crate::store::Name;
use crate::store::Store;

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
            planned: None,
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

/// A pull that is being set up. Made by [`Registry::pull`]; [`to`](Pull::to) runs it.
#[must_use = "nothing is pulled before `to`"]
#[derive(Clone)]
pub struct Pull<'a> {
    registry: Registry,
    pub(super) reference: ImageReference,
    platform: Option<Platform>,
    policy: PullPolicy,
    pub(super) jobs: NonZeroUsize,
    pub(super) observer: &'a dyn Observer,
    pub(super) cancel: Cancel,
    /// What the name is taken to mean, whatever it means at the registry now.
    planned: Option<Digest>,
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
    /// * [`ErrorKind::DigestMismatch`], [`ErrorKind::SizeMismatch`], [`ErrorKind::InvalidDigest`],
    ///   [`ErrorKind::InvalidDocument`], [`ErrorKind::Schema1`], [`ErrorKind::UnsupportedMediaType`], [`ErrorKind::LimitExceeded`]: what came is not
    ///   what it should be.
    /// * [`ErrorKind::Connect`], [`ErrorKind::Tls`], [`ErrorKind::Network`], [`ErrorKind::TimedOut`],
    ///   [`ErrorKind::Protocol`], [`ErrorKind::Authentication`]: the registry, or its token server, cannot be talked
    ///   to.
    /// * [`ErrorKind::StorageFull`], [`ErrorKind::ReadOnly`], [`ErrorKind::Locked`], [`ErrorKind::Io`]: the store
    ///   cannot be written.
    /// * [`ErrorKind::InvalidInput`]: the name is `scratch`.
    /// * [`ErrorKind::Cancelled`].
    pub fn to(&self, store: &Store) -> Result<Pulled> {
        let pull = || match self.without_asking(store)? {
            Some(pulled) => Ok(pulled),
            None => self.ask(store, |run, image| run.blobs(image.manifest(), self.jobs, None)),
        };
        pull().context(|| format!("pull {}", self.reference))
    }

    /// Says what a pull would fetch, and what it would find in the store. Documents are read for that, as far as the
    /// store does not have them, and nothing is written.
    ///
    /// ```
    /// # use layercake::{testing, Registry, Store};
    /// use layercake::transfer::PullPlan;
    ///
    /// # let dir = tempfile::tempdir()?;
    /// # let served = Store::create(dir.path().join("served"))?;
    /// # testing::Fixture::demo().tag(&served, &"example.com/greeter:1".parse()?)?;
    /// # let server = testing::Registry::start(&served)?;
    /// # let name = server.reference("greeter:1")?;
    /// # let store = Store::create(dir.path().join("store"))?;
    /// let registry = Registry::new();
    /// let plan = registry.pull(&name).plan(&store)?;
    /// println!("{} blobs, {} bytes; {} are there", plan.fetch.len(), plan.bytes, plan.reuse.len());
    /// let later = PullPlan::from_json(&plan.to_json())?;
    /// let pulled = later.pull(&registry).to(&store)?;
    /// assert_eq!(pulled.root.digest, plan.root.digest);
    /// # Ok::<(), layercake::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`to`](Pull::to) that a registry and documents make.
    pub fn plan(&self, store: &Store) -> Result<PullPlan> {
        let plan = || {
            if self.reference.is_scratch() {
                return Err(Error::invalid_input("'scratch' is a reserved name"));
            }
            let watch = Watch::new(self.observer, self.cancel.clone());
            let planning = Planning { repository: self.registry.repository(&self.reference)?, store, watch };
            planning.run(&self.reference, &self.identifier(), self.platform.clone())
        };
        plan().context(|| format!("plan to pull {}", self.reference))
    }

    /// The image, if the policy is not to ask for it.
    pub(super) fn without_asking(&self, store: &Store) -> Result<Option<Pulled>> {
        if self.reference.is_scratch() {
            return Err(Error::invalid_input("'scratch' is a reserved name"));
        }
        match self.policy {
            PullPolicy::Always => Ok(None),
            PullPolicy::IfMissing => self.present(store),
            PullPolicy::Never => {
                let missing = || Error::not_found(format!("image {}", self.reference));
                self.present(store)?.ok_or_else(missing).map(Some)
            }
        }
    }

    /// The image, if the store has it whole.
    fn present(&self, store: &Store) -> Result<Option<Pulled>> {
        let Some((name, root)) = store.lookup(&Name::from(&self.reference))? else { return Ok(None) };
        let held = store.held()?;
        let Some(image) = self.open(&held, &root)? else { return Ok(None) };
        if !image.is_complete()? {
            return Ok(None);
        }
        match self.rely_on(&held, &name, &root, &image) {
            // What this user cannot write is there all the same, and is as durable as it ever will be.
            Err(error) if !matches!(error.kind(), ErrorKind::ReadOnly { .. } | ErrorKind::Untrusted { .. }) => {
                return Err(error);
            }
            _ => {}
        }
        self.observer.event(&Event::Resolved { reference: &self.reference, root: &root });
        let image = store.assemble(&root, image.manifest().clone())?;
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

    /// Promises anew what is there, under the name that was asked for.
    fn rely_on(&self, store: &Store, name: &Name, root: &Descriptor, image: &Image) -> Result<()> {
        let manifest = image.manifest();
        let document = image.descriptor();
        let mut blobs = [root, &document, manifest.config()].into_iter().chain(manifest.layers());
        blobs.try_for_each(|blob| store.settle(blob))?;
        if name.reference() == Some(&self.reference.exact()) {
            return store.settle_names();
        }
        store.tag(&self.reference, root).map(drop)
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
            Err(error) if error.is_as_good_as_missing() => Ok(None),
            Err(error) if matches!(error.kind(), ErrorKind::NoMatchingPlatform { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What is asked for: what was planned, or what the name means now.
    fn identifier(&self) -> Identifier {
        self.planned.map_or_else(|| self.reference.identifier(), Identifier::Digest)
    }

    fn wanted(&self) -> Platform {
        self.platform.clone().unwrap_or_else(Platform::host)
    }

    /// Asks the registry. `bring` gets the layers of the image that it has.
    pub(super) fn ask(&self, store: &Store, bring: impl FnOnce(&mut Run<'_>, &Image) -> Result<()>) -> Result<Pulled> {
        let repository = self.registry.repository(&self.reference)?;
        let watch = Watch::new(self.observer, self.cancel.clone());
        let leased = store.leased()?;
        let mut run = Run::new(repository, &leased, watch);

        let before = store.lookup(&Name::from(&self.reference))?;
        let id_before = self.id_before(store, before.as_ref().map(|(_, root)| root))?;
        let document = run.root(&self.identifier(), before.as_ref().map(|(_, root)| root))?;
        let root = document.descriptor();
        self.observer.event(&Event::Resolved { reference: &self.reference, root: &root });
        let manifest = run.choose(document, &self.wanted())?;
        self.observer.event(&Event::Selected { manifest: &manifest.descriptor(), layers: manifest.layers() });
        run.config(&manifest, self.platform.as_ref())?;
        let image = leased.assemble(&root, manifest)?;
        bring(&mut run, &image)?;
        let image = store.assemble(&root, image.manifest().clone())?;
        let status = if id_before == Some(image.id()) { PullStatus::UpToDate } else { PullStatus::DownloadedNewer };
        run.tag(&self.reference, &root, before.as_ref(), status)?;
        let (fetched, reused) = run.account();
        let previous = before.map(|(_, root)| root);
        Ok(Pulled { reference: self.reference.clone(), image, root, previous, status, fetched, reused })
    }

    /// The id of the image that the name means now, for this pull's platform.
    fn id_before(&self, store: &Store, root: Option<&Descriptor>) -> Result<Option<Digest>> {
        let Some(root) = root else { return Ok(None) };
        match self.open(store, root) {
            Ok(Some(image)) if image.is_complete()? => Ok(Some(image.id())),
            Ok(_) => Ok(None),
            // What cannot be understood is no image that could be up to date.
            Err(error) if matches!(error.kind(), ErrorKind::Io { .. }) => Err(error),
            Err(_) => Ok(None),
        }
    }
}

impl PullPlan {
    /// The pull of what was planned, from this client's registries.
    pub fn pull(&self, registry: &Registry) -> Pull<'static> {
        Pull { platform: self.platform.clone(), planned: Some(self.root.digest), ..registry.pull(&self.reference) }
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
