//! From layers to a root file system.

use std::path::Path;

use rustix::fs::Mode;
use rustix::fs::OFlags;

use crate::changeset::Applier;
use crate::changeset::Below;
use crate::changeset::Layout;
use crate::changeset::Options;
use crate::changeset::Source;
use crate::changeset::Tars;
use crate::changeset::Unpacked;
use crate::changeset::apply_next;
use crate::changeset::hand_nothing_on;
use crate::changeset::run;
use crate::descriptor::Descriptor;
use crate::error::Context;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Limit;
use crate::error::Result;
use crate::event::Event;
use crate::fs::aside::Aside;
use crate::fs::aside::SyncScope;
use crate::fs::atomic::Durability;
use crate::fs::rooted::Rooted;
use crate::image::Image;
use crate::image::Layer;
use crate::image::layer::check_is_tar;
use crate::store::Store;

impl Image {
    /// Unpacks the image's layers to a new directory, a root file system in which each file has the owner that the
    /// layers say. Needs root; [`unpack_with`](Image::unpack_with) has options, also for unpacking without root.
    ///
    /// The tree is exact: it has the image's setuid programs and devices. Missing parents of the directory are made so
    /// that only this user may enter them, and then no other user can reach the tree. See
    /// [`unpack_with`](Image::unpack_with) for directories whose parents exist.
    ///
    /// The root of a user namespace with a single id owns all files of the tree, see
    /// [`Ownership::available`](crate::changeset::Ownership::available).
    ///
    /// ```no_run
    /// # fn example(image: layercake::Image) -> layercake::Result<()> {
    /// let done = image.unpack("/srv/jail/rootfs")?;
    /// println!("{} entries, {} bytes", done.entries, done.bytes);
    /// for skipped in &done.skipped {
    ///     println!("left out: {skipped}");
    /// }
    /// for exposed in &done.exposed {
    ///     println!("other users can reach {exposed}");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`unpack_with`](Image::unpack_with).
    pub fn unpack(&self, target: impl AsRef<Path>) -> Result<Unpacked> {
        self.unpack_with(target, &Options::new())
    }

    /// Makes a root file system of the image's layers; or, with [`Layout::Overlay`], a directory with a directory for
    /// each layer, named `1` (the base), `2` and so on, to be mounted as `lowerdir=3:2:1`.
    ///
    /// The target may be missing, or an empty directory that is no mount point. The tree is built in a staging directory
    /// beside it and renamed to it when all layers were applied and all digests, sizes and diff ids held (image-spec,
    /// config.md: over all bytes of the tar). So a target that exists is complete. If a process is killed, the next one
    /// that makes the same target removes its staging directory.
    ///
    /// Memory is bounded, whatever the image's size.
    ///
    /// # Other users of the machine
    ///
    /// An image may have programs that run as root for any caller, and devices that give access to this machine's disks.
    /// No other user can reach them while the tree is built: the staging directory has mode 0700. Afterwards the tree has
    /// the modes that the image says, its root included, so the directories above decide:
    ///
    /// * Missing parents of the target are made with mode 0700. Unpacked to `/srv/jail/rootfs` where `/srv/jail` does not
    ///   exist, a tree is out of reach of other users.
    /// * If other users may enter the parent and all directories above it, [`Unpacked::exposed`] lists the setuid
    ///   programs, programs with capabilities and devices that they can reach. This holds for
    ///   [`Ownership::CurrentUser`](crate::changeset::Ownership::CurrentUser) too, where a setuid program lets other users
    ///   run the image's code as this user.
    /// * [`Options::setuid`] and [`Options::devices`] leave them out, and report each.
    ///
    /// With [`Layout::Overlay`] the target holds the layers, and has mode 0700 itself.
    ///
    /// # Power cuts
    ///
    /// When this returns, the tree, its name and the parents that were made survive a power cut if the store's
    /// [durability](Store::durability) says so, as it does by default. The file system is synced once, before the tree
    /// gets its name. [`Options::durability`] says otherwise for one unpack.
    ///
    /// ```
    /// use layercake::changeset::{Options, Ownership};
    /// # use layercake::{testing::Fixture, Store};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("store"))?;
    /// # let image = store.image_at(&Fixture::demo().write(&store)?)?;
    /// # let target = dir.path().join("rootfs");
    /// let done = image.unpack_with(&target, &Options::new().ownership(Ownership::CurrentUser))?;
    /// assert!(done.skipped.is_empty());
    /// assert_eq!(std::fs::read_to_string(target.join("etc/motd"))?, "A piece of cake.\n");
    /// # Ok::<(), layercake::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// * [`ErrorKind::AlreadyExists`]: the target is a file, a link, a mount point, or a directory that is not empty.
    /// * [`ErrorKind::InvalidInput`]: the target has no name or lies in the store; an owner lies outside of the map
    ///   of ids.
    /// * [`ErrorKind::DigestMismatch`], [`ErrorKind::SizeMismatch`]: a blob, or the tar inside, is not what was
    ///   promised.
    /// * [`ErrorKind::MountPoint`]: something was mounted in the staging directory meanwhile.
    /// * [`ErrorKind::NotFound`] and the others of [`layers`](Image::layers); those of
    ///   [`apply`](crate::changeset::apply()).
    ///
    /// After an error there is nothing new.
    pub fn unpack_with(&self, target: impl AsRef<Path>, options: &Options<'_>) -> Result<Unpacked> {
        let target = target.as_ref();
        let unpack = || {
            let held = self.held()?;
            let layers = held.layers()?;
            let unpacking = Unpacking::new(&self.store, target, options)?;
            let done = unpacking.run(self.manifest().layers(), layers.iter().map(Layer::source));
            let done = done.map_err(|error| explain(error, &layers))?;
            unpacking.publish()?;
            Ok(done)
        };
        unpack().context(|| format!("unpack image {} to {}", self.id().short(), target.display()))
    }
}

/// A root file system on its way: made aside, from layers wherever they come from.
pub(crate) struct Unpacking<'a> {
    aside: Aside,
    target: &'a Path,
    options: &'a Options<'a>,
    durability: Durability,
}

impl<'a> Unpacking<'a> {
    /// Of an image of this store.
    pub(crate) fn new(store: &Store, target: &'a Path, options: &'a Options<'a>) -> Result<Unpacking<'a>> {
        let aside = Aside::new(target)?;
        if aside.is_within(store.dir())? {
            return Err(Error::invalid_input("the target lies in the store"));
        }
        let durability = options.durability.unwrap_or(store.durability());
        Ok(Unpacking { aside, target, options, durability })
    }

    /// Applies the layers.
    pub(crate) fn run(
        &self,
        layers: &[Descriptor],
        sources: impl ExactSizeIterator<Item = Result<Source<'static>>> + Send,
    ) -> Result<Unpacked> {
        let options = self.options;
        options.limits.check(Limit::Layers, layers.len() as u64)?;
        for (n, layer) in layers.iter().enumerate() {
            check_is_tar(layer).context(|| format!("layer {} of {}", n + 1, layers.len()))?;
        }
        let done = run(sources, options.limits, |tars| match options.layout {
            Layout::Flat => flat(&self.aside, self.target, layers, tars, options),
            Layout::Overlay => overlay(&self.aside, self.target, layers, tars, options),
        })?;
        done.check(options)?;
        Ok(done)
    }

    /// Begins anew, with an empty directory.
    #[cfg(feature = "registry")]
    pub(crate) fn again(&mut self) -> Result<()> {
        self.aside.renew()
    }

    /// Gives it its name.
    pub(crate) fn publish(self) -> Result<()> {
        self.aside.publish(match self.durability {
            Durability::Full => SyncScope::Tree,
            Durability::None => SyncScope::Nothing,
        })
    }
}

fn flat(
    aside: &Aside,
    target: &Path,
    layers: &[Descriptor],
    tars: &mut Tars,
    options: &Options<'_>,
) -> Result<Unpacked> {
    let mut applier = Applier::new(Rooted::new(aside.open()?, target), options)?;
    applier.describe_root()?;
    for (n, layer) in layers.iter().enumerate() {
        apply(&mut applier, n, layers.len(), layer, tars, options)?;
    }
    if layers.is_empty() {
        applier.end()?;
    }
    applier.report_exposed(aside.above()?)?;
    Ok(applier.into_report())
}

/// Each layer into a directory of its own, looking at those below.
fn overlay(
    aside: &Aside,
    target: &Path,
    layers: &[Descriptor],
    tars: &mut Tars,
    options: &Options<'_>,
) -> Result<Unpacked> {
    let all = aside.open()?;
    hand_nothing_on(&all);
    let mut below: Option<Applier<'_>> = None;
    for (n, layer) in layers.iter().enumerate() {
        let open = |number: usize| {
            let path = target.join(number.to_string());
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let opened = rustix::fs::openat(&all, number.to_string(), flags, Mode::empty());
            opened.map(|fd| Rooted::new(fd, &path)).map_err(|error| Error::io("open", &path, error.into()))
        };
        rustix::fs::mkdirat(&all, (n + 1).to_string(), Mode::RWXU)
            .map_err(|error| Error::io("make a directory in", target, error.into()))?;
        let root = open(n + 1)?;
        let mut applier = match below.take() {
            Some(below) => below.next_layer(root)?,
            None => Applier::above(Below::new(Vec::new(), options), root, options)?,
        };
        applier.describe_root()?;
        apply(&mut applier, n, layers.len(), layer, tars, options)?;
        below = Some(applier);
    }
    // Setuid programs of the layers are for those who may mount them (CVE-2021-41091).
    rustix::fs::fchmod(&all, Mode::RWXU).map_err(|error| Error::io("set the mode of", target, error.into()))?;
    Ok(below.map(Applier::into_report).unwrap_or_default())
}

fn apply(
    applier: &mut Applier<'_>,
    n: usize,
    count: usize,
    layer: &Descriptor,
    tars: &mut Tars,
    options: &Options<'_>,
) -> Result<()> {
    apply_next(applier, tars, options, Some(layer)).context(|| format!("layer {} of {count}", n + 1))?;
    options.observer.event(&Event::Unpacked { layer });
    Ok(())
}

/// Bytes that make no sense may be the wrong bytes: then that is the error, and fetching the blob again mends it.
pub(crate) fn explain(error: Error, layers: &[Layer]) -> Error {
    if !matches!(error.kind(), ErrorKind::InvalidLayer { .. } | ErrorKind::Compression { .. }) {
        return error;
    }
    for (n, layer) in layers.iter().enumerate() {
        let verified = || Ok(std::io::copy(&mut layer.compressed()?, &mut std::io::sink())?);
        match verified().context(|| format!("layer {} of {}", n + 1, layers.len())) {
            Err(damage) if damage.is_corrupt() => return damage,
            _ => {}
        }
    }
    error
}
