//! Making a working copy.

use std::fs::File;
use std::path::Path;
use std::path::PathBuf;

use rustix::fs::Mode;
use rustix::io::Errno;

use super::BASE;
use super::Checkout;
use super::CheckoutMode;
use super::CheckoutOptions;
use super::ROOT;
use super::UPPER;
use super::WORK;
use super::index::Index;
use super::lower::LowerDirs;
use super::lower::trusted_layers;
use super::mount::Overlay;
use super::mount::OverlayFlags;
use super::state::State;
use crate::changeset::CopyMethod;
use crate::changeset::Namespace;
use crate::changeset::Stack;
use crate::error::Context;
use crate::error::Error;
use crate::error::Result;
use crate::fs::aside::Aside;
use crate::fs::aside::SyncScope;
use crate::fs::descent::Descent;
use crate::fs::dir::Dir;
use crate::image::Image;
use crate::image::UnpackedLayers;
use crate::image::folder_of;
use crate::store::Durability;

impl Image {
    /// Makes a working copy in a new directory: its tree is in [`Checkout::root`], and can be changed without
    /// changing the image. The image's layers are unpacked in the store, once for all working copies.
    ///
    /// ```no_run
    /// # fn example(image: layercake::Image) -> layercake::Result<()> {
    /// let work = image.checkout("/tmp/work")?;
    /// std::fs::write(work.root().join("etc/motd"), "hello\n")?;
    /// let child = work.commit("add a greeting")?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`checkout_with`](Image::checkout_with).
    pub fn checkout(&self, path: impl AsRef<Path>) -> Result<Checkout> {
        self.checkout_with(path, &CheckoutOptions::new())
    }

    /// The same, with options.
    ///
    /// An overlay is mounted if this process may mount, with the options `nosuid` and `nodev` unless others were asked for.
    ///
    /// The directory may be missing, or empty. Missing parents are made with mode 0700. The working copy is built in a
    /// staging directory beside it and renamed to it when it is complete. If a process is killed, the next one that makes
    /// the same working copy removes its staging directory. The working copy survives a power cut if the store's
    /// [durability](crate::Store::durability) says so.
    ///
    /// # Errors
    ///
    /// * [`ErrorKind::AlreadyExists`](crate::ErrorKind::AlreadyExists): the directory is not empty, or none.
    /// * [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput): it lies in the store; an owner outside of the
    ///   map of ids; or the store's folder of unpacked layers belongs to another user.
    /// * [`ErrorKind::Untrusted`](crate::ErrorKind::Untrusted): another user owns the store, its folder of unpacked layers
    ///   or a directory between them, or may write to it; [`CheckoutOptions::trust`] trusts it all the same.
    /// * [`ErrorKind::Io`](crate::ErrorKind::Io): the file system cannot do what the mode needs; or the operating
    ///   system refuses something else.
    /// * [`ErrorKind::NotApplied`](crate::ErrorKind::NotApplied): the options are strict, and something of the image
    ///   was left out.
    /// * [`ErrorKind::Locked`](crate::ErrorKind::Locked): another process unpacks the same layers for longer than 15
    ///   minutes; or their records are damaged, and somebody uses them.
    /// * Those of [`unpack_with`](Image::unpack_with), where layers are to be unpacked.
    pub fn checkout_with(&self, path: impl AsRef<Path>, options: &CheckoutOptions<'_>) -> Result<Checkout> {
        let path = path.as_ref();
        let make = || {
            let ownership = options.ownership_here();
            let aside = Aside::new(path)?;
            if aside.is_within(self.store().dir())? {
                return Err(Error::invalid_input("a working copy cannot lie in the store"));
            }
            let held = self.held()?;
            let unpack = options.to_unpack(&ownership);
            let layers = trusted_layers(&held, &folder_of(&ownership), &unpack, &options.trusted)?;
            let making = Making::new(&held, aside, layers, Namespace::of(&ownership), options)?;
            let mode = making.take_mode()?;
            let store = self.store().dir().real_path()?;
            let state = State::new(mode, &store, self.root(), &self.descriptor(), options);
            making.publish(self, state)
        };
        make().context(|| format!("check image {} out to {}", self.id().short(), path.display()))
    }
}

/// A working copy that has no name yet.
struct Making<'a> {
    image: &'a Image,
    options: &'a CheckoutOptions<'a>,
    layers: UnpackedLayers,
    lower: LowerDirs,
    namespace: Namespace,
    aside: Aside,
    /// Where it is for now.
    here: PathBuf,
    dir: Dir,
}

impl<'a> Making<'a> {
    fn new(
        image: &'a Image,
        aside: Aside,
        layers: UnpackedLayers,
        namespace: Namespace,
        options: &'a CheckoutOptions<'a>,
    ) -> Result<Making<'a>> {
        let dir = aside.dir()?;
        dir.make_dir(ROOT)?;
        // Of an image without layers it is the root, and that is so whatever this process's mask is.
        let (base, _) = dir.make_dir(BASE)?;
        rustix::fs::fchmod(&base, Mode::from_raw_mode(0o755))
            .map_err(|error| Error::io("set the mode of", base.path(), error.into()))?;
        image.store().durability().sync_dir(&base)?;
        let here = dir.real_path()?;
        let lower = LowerDirs::of(&layers, &dir)?;
        Ok(Making { image, options, layers, lower, namespace, aside, here, dir })
    }

    /// Fills it, in the mode that was asked for or else in the first that can be had.
    fn take_mode(&self) -> Result<CheckoutMode> {
        let mode = match self.options.mode {
            Some(mode) => mode,
            None if self.overlay()?.is_ok() => return Ok(CheckoutMode::Overlay),
            None if self.can_reflink() => CheckoutMode::Reflink,
            None => CheckoutMode::Copy,
        };
        match mode {
            CheckoutMode::Reflink => self.copy(CopyMethod::Reflink)?,
            CheckoutMode::Copy => self.copy(CopyMethod::Bytes)?,
            CheckoutMode::Overlay => match self.overlay()? {
                // That is for the caller to do then.
                Ok(()) | Err(Errno::PERM | Errno::ACCESS) => {}
                Err(error) => return Err(Error::io("mount an overlay on", &self.here, error.into())),
            },
        }
        Ok(mode)
    }

    /// Prepares for overlayfs, and tries whether it can be mounted.
    fn overlay(&self) -> Result<Result<(), Errno>> {
        let (upper, _) = self.dir.make_dir(UPPER)?;
        self.dir.make_dir(WORK)?;
        self.stack()?.describe_root(&upper)?;
        self.image.store().durability().sync_dir(&upper)?;
        let userxattr = self.namespace == Namespace::User;
        let flags = OverlayFlags { userxattr, nosuid: !self.options.setuid, nodev: !self.options.devices };
        Ok(Overlay { dir: &self.dir, lower: &self.lower, flags }.try_out())
    }

    fn copy(&self, method: CopyMethod) -> Result<()> {
        let root = self.dir.dir(ROOT)?;
        let unreadable = |path: &[u8]| {
            let file = self.image.read_file(crate::fs::to_path(path))?;
            Ok(Box::new(file) as Box<dyn std::io::Read>)
        };
        self.stack()?.copy_to(&root, method, &unreadable, &self.options.cancel)?;
        let path = root.path().to_owned();
        let index = Index::of(Descent::of(root.into(), &path)?)?;
        index.write(&self.dir)?;
        index.settle(&self.dir)
    }

    /// Whether the store's files can share their content with files here.
    fn can_reflink(&self) -> bool {
        const PROBE: &str = "probe";
        let probe = || -> Result<()> {
            let original: File = self.image.store().open_blob(self.image.manifest().config())?;
            let copy = self.dir.new_file(PROBE)?;
            let cloned = rustix::fs::ioctl_ficlone(&copy, &original);
            self.dir.remove(PROBE)?;
            Ok(cloned.map_err(std::io::Error::from)?)
        };
        probe().is_ok()
    }

    fn stack(&self) -> Result<Stack> {
        self.lower.stack(self.namespace)
    }

    fn publish(self, image: &Image, state: State) -> Result<Checkout> {
        let durability = self.image.store().durability();
        state.write(&self.dir, durability)?;
        self.aside.publish(match (durability, state.mode) {
            (Durability::None, _) => SyncScope::Nothing,
            (Durability::Full, CheckoutMode::Overlay) => SyncScope::Names,
            (Durability::Full, _) => SyncScope::Tree,
        })?;
        let path = self.dir.real_path()?;
        let dir = Dir::of(self.dir.into(), &path);
        let root = path.join(ROOT);
        let (layers, lower) = (self.layers, self.lower);
        let checkout = Checkout { dir, path, root, state, image: image.clone(), layers, lower };
        match checkout.register().and_then(|()| checkout.mount_if_allowed()) {
            Ok(()) => Ok(checkout),
            Err(error) => {
                // After an error there is nothing new; the first one is the one to tell of.
                let _ = checkout.discard();
                Err(error)
            }
        }
    }
}
