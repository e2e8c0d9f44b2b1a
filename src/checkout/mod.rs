//! Working copies of images: change one, ask what changed, commit it.
//!
//! An image is read-only. [`Image::checkout`] makes a directory that looks like it and can be changed, without
//! changing the image or any other working copy; what changed is asked for by [`Checkout::changes`], and becomes a new
//! layer, on top of those of the image, by [`Checkout::commit`]. If images are revisions, layers are commits, and this
//! is the working copy.
//!
//! * [`Checkout`] is a working copy.
//! * [`CheckoutMode`] is how it comes by its files, and [`CheckoutOptions`] say that and more.
//! * [`OpenOptions`] say how a working copy is opened again.
//! * [`MountOptions`] are what overlayfs has to be told where this process may not mount.
//! * [`CommitOptions`] say what the new image is to say of itself.
//!
//! ```
//! use layercake::changeset::ChangeKind;
//! # use layercake::checkout::{CheckoutMode, CheckoutOptions};
//! # use layercake::{testing::Fixture, Store};
//! # let dir = tempfile::tempdir()?;
//! # let store = Store::create(dir.path().join("store"))?;
//! # let image = store.image_at(&Fixture::demo().write(&store)?)?;
//! # let path = dir.path().join("work");
//! # let options = CheckoutOptions::new().mode(CheckoutMode::Copy);
//!
//! let work = image.checkout_with(&path, &options)?;
//! std::fs::write(work.root().join("etc/motd"), "hello\n")?;
//!
//! let changes = work.changes()?;
//! let changed: Vec<_> = changes.iter().map(|change| (change.kind, change.path.to_str())).collect();
//! assert_eq!(changed, [(ChangeKind::Modified, Some("etc/motd"))]);
//!
//! let child = work.commit("add a greeting")?;
//! assert_eq!(child.manifest().layers().len(), image.manifest().layers().len() + 1);
//! work.discard()?;
//! # Ok::<(), layercake::Error>(())
//! ```
//!
//! # How it lies
//!
//! The directory that was asked for has the tree in `root`, and beside it what is known of it: `checkout.json`, and,
//! depending on the mode, `index`, or overlayfs' `upper` and `work`. Only its owner may look into it, as there may be
//! programs in the tree that run as someone else. It stays when the process ends, and is opened again with
//! [`Checkout::open`]. The store has a record of it, and keeps what it needs.
//!
//! It does not: run anything in a working copy, or keep other processes from changing it.

mod changes;
mod commit;
mod index;
mod lower;
mod make;
mod mount;
mod options;
mod state;

use std::collections::BTreeSet;
use std::fmt;
use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use rustix::io::Errno;

use crate::changeset::Namespace;
use crate::changeset::Skipped;
use crate::changeset::Stack;
use crate::error::Context;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::fs::aside;
use crate::fs::aside::is_mount;
use crate::fs::descent::Descent;
use crate::fs::dir::Dir;
use crate::fs::lock::Locked;
use crate::fs::lock::Sharing;
use crate::fs::mount::mounts_at_or_below;
use crate::fs::mount::mounts_below;
use crate::fs::rooted::Inode;
use crate::fs::trust::TrustedPaths;
use crate::fs::trust::require_trusted;
use crate::image::Image;
use crate::image::UnpackedLayers;
use crate::store::Store;
use lower::LowerDirs;
use lower::trusted_layers;
use mount::Overlay;
use mount::OverlayFlags;
use state::STATE;
use state::State;

pub use commit::CommitOptions;
pub use mount::MountOptions;
pub use options::CheckoutMode;
pub use options::CheckoutOptions;
pub use options::OpenOptions;

const ROOT: &str = "root";
const UPPER: &str = "upper";
const WORK: &str = "work";
/// What lies below everything where the image has no layers, or more than one mount takes.
const BASE: &str = "base";
/// How long a lock on a working copy is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// A working copy of an image.
///
/// Invariants: what is in [`root`](Checkout::root) is the image's tree and what was changed since; the layers that it
/// needs, and the image's blobs, are kept in the store until it is [discarded](Checkout::discard).
///
/// # Threads and processes
///
/// Any number may have one working copy open. Nothing keeps them from changing files while one of them commits; a file
/// that is written to meanwhile is noticed, and fails the commit.
pub struct Checkout {
    dir: Dir,
    path: PathBuf,
    root: PathBuf,
    state: State,
    image: Image,
    layers: UnpackedLayers,
    lower: LowerDirs,
}

impl Checkout {
    /// Opens a working copy that was made before, by this process or another. Nothing is mounted: if the tree was
    /// unmounted, as after a restart of the machine, [`changes`](Checkout::changes), [`commit`](Checkout::commit) and
    /// [`discard`](Checkout::discard) work all the same, and [`mount`](Checkout::mount) mounts it again.
    ///
    /// ```no_run
    /// # fn example() -> layercake::Result<()> {
    /// let work = layercake::Checkout::open("/tmp/work")?;
    /// println!("{} changes to {}", work.changes()?.len(), work.image().id());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`open_with`](Checkout::open_with).
    pub fn open(path: impl AsRef<Path>) -> Result<Checkout> {
        Checkout::open_with(path, &OpenOptions::new())
    }

    /// Opens a working copy of an image in this store, wherever the store was when the working copy was made.
    ///
    /// # Errors
    ///
    /// Those of [`open_with`](Checkout::open_with).
    pub fn open_in(store: &Store, path: impl AsRef<Path>) -> Result<Checkout> {
        Checkout::open_with(path, &OpenOptions::new().store(store))
    }

    /// Opens a working copy with options.
    ///
    /// Another user can write a directory that looks like a working copy, and have root read, mount and delete what it
    /// names (CVE-2022-24765, git's `safe.directory`). Therefore these must belong to the user of this process or to root,
    /// and no other user may be able to write to them: the directory of the working copy, its state file, the directories
    /// `work` and `base`, the store that it names, the store's folder of unpacked layers, and the directories between these
    /// two. Each is checked through the descriptor that is used from then on. The directories above may be anything. The
    /// directories `root` and `upper`, and those of the layers, have the owner and the mode of the image's root; they are
    /// reached through the directories that were checked, without following links.
    ///
    /// # Errors
    ///
    /// * [`ErrorKind::Untrusted`]: another user owns one of these, or may write to it; [`OpenOptions::trust`] trusts it
    ///   all the same.
    /// * [`ErrorKind::InvalidCheckout`]: the directory is not a working copy, or what it says of itself is damaged.
    /// * [`ErrorKind::UnsupportedVersion`]: a newer version of this crate made it.
    /// * Those of [`Store::open`] and [`Store::image_at`]: its store is not where it was, or lacks its image;
    ///   [`OpenOptions::store`] says where the store is now.
    /// * [`ErrorKind::Io`]: there is no such directory, or it cannot be read.
    pub fn open_with(path: impl AsRef<Path>, options: &OpenOptions) -> Result<Checkout> {
        let path = path.as_ref();
        let open = || {
            let dir = Dir::open(path)?;
            let state = State::read(&dir, &options.trusted)?;
            for name in [WORK, BASE] {
                require_trusted_dir(&dir, name, &options.trusted)?;
            }
            let store = match &options.store {
                Some(store) => store.clone(),
                None => Store::open(state.store_path())?,
            };
            Checkout::open_state(dir, state, &store, options)
        };
        open().context(|| format!("open working copy {}", path.display()))
    }

    fn open_state(dir: Dir, mut state: State, store: &Store, options: &OpenOptions) -> Result<Checkout> {
        let store = &trusted_store(store, &options.trusted)?;
        if state.is_copy(store, &dir, &options.trusted)? {
            state.renew_id();
            state.write(&dir, store.durability())?;
        }
        let image = store.image_at(&state.manifest)?;
        let unpack = CheckoutOptions::new().to_unpack(&state.ownership());
        let layers = trusted_layers(&image, &state.folder, &unpack, &options.trusted)?;
        let path = dir.real_path()?;
        let dir = Dir::of(dir.into(), &path);
        let lower = LowerDirs::of(&layers, &dir)?;
        let checkout = Checkout { root: path.join(ROOT), dir, path, state, image, layers, lower };
        checkout.register()?;
        Ok(checkout)
    }

    /// The directory that was asked for. What is in it is not the tree, but lies beside it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The tree: what to change.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The image that it is a working copy of. It stays that when something is committed.
    pub fn image(&self) -> &Image {
        &self.image
    }

    /// How it comes by its files.
    pub fn mode(&self) -> CheckoutMode {
        self.state.mode
    }

    /// What of the image could not be unpacked, and why.
    pub fn skipped(&self) -> &[Skipped] {
        &self.layers.skipped
    }

    /// Whether the tree is in [`root`](Checkout::root): always, except for [`CheckoutMode::Overlay`] while it is not
    /// mounted.
    pub fn is_mounted(&self) -> bool {
        self.mode() != CheckoutMode::Overlay || mount::is_mounted(&self.dir, ROOT)
    }

    /// Mounts the tree of a working copy in [`CheckoutMode::Overlay`], if it is not mounted, with the options that it was
    /// made with: `nosuid` and `nodev`, unless [`allow_setuid`](CheckoutOptions::allow_setuid) or
    /// [`allow_devices`](CheckoutOptions::allow_devices) was called then. Does nothing in other modes.
    ///
    /// # Errors
    ///
    /// * [`ErrorKind::Io`]: the operating system refuses. A process without the right to mount can have
    ///   [`mount_options`](Checkout::mount_options) mounted by another program.
    /// * [`ErrorKind::InvalidCheckout`]: another process discarded the working copy.
    /// * [`ErrorKind::Locked`]: another process is discarding it.
    pub fn mount(&self) -> Result<()> {
        let mount = || self.mount_now()?.map_err(|error| Error::io("mount an overlay on", &self.root, error.into()));
        mount().context(|| format!("mount working copy {}", self.path.display()))
    }

    /// Returns the options that make overlayfs show the tree in [`root`](Checkout::root), for a program that may mount;
    /// none in other modes.
    pub fn mount_options(&self) -> Option<MountOptions> {
        let OverlayFlags { userxattr, nosuid, nodev } = self.flags();
        let (upper, work) = (self.path.join(UPPER), self.path.join(WORK));
        let options = MountOptions { lower: self.lower.paths(), upper, work, userxattr, nosuid, nodev };
        (self.mode() == CheckoutMode::Overlay).then_some(options)
    }

    /// Removes the working copy: what is mounted, all that was changed, and the store's record of it. Layers that are
    /// unpacked in the store stay until they are collected.
    ///
    /// # Errors
    ///
    /// * [`ErrorKind::InvalidCheckout`]: something else is mounted in it, or somebody else discarded it.
    /// * [`ErrorKind::Locked`]: somebody is committing it.
    /// * [`ErrorKind::Io`]: somebody uses the mount; or the operating system refuses to remove something, which then
    ///   lies beside, under a hidden name that the error says.
    pub fn discard(self) -> Result<()> {
        let discard = || {
            let _lock = self.lock(Sharing::Alone)?;
            for name in [ROOT, BASE] {
                if self.mode() == CheckoutMode::Overlay && mount::is_mounted(&self.dir, name) {
                    mount::unmount(&self.dir, name)?;
                }
            }
            if let Some(point) = mounts_at_or_below(&self.dir.real_path()?)?.first() {
                let reason = format!("something is mounted on {}", point.display());
                return Err(ErrorKind::InvalidCheckout { path: self.path.clone(), reason }.into());
            }
            let taken = aside::take_away(&self.dir)?;
            self.image.store().durability().sync_dir(taken.above())?;
            let forgotten = self.state.forget(self.image.store(), &self.path);
            taken.remove()?;
            forgotten
        };
        discard().context(|| format!("discard working copy {}", self.path.display()))
    }

    fn flags(&self) -> OverlayFlags {
        let State { userxattr, setuid, devices, .. } = self.state;
        OverlayFlags { userxattr, nosuid: !setuid, nodev: !devices }
    }

    fn namespace(&self) -> Namespace {
        if self.state.userxattr { Namespace::User } else { Namespace::Trusted }
    }

    /// The image's tree, as the unpacked layers show it.
    fn base(&self) -> Result<Stack> {
        self.lower.stack(self.namespace())
    }

    /// The tree that has at least what changed. A tree that was mounted in its place is not the working copy's.
    fn changed_tree(&self) -> Result<Descent> {
        let name = if self.mode() == CheckoutMode::Overlay { UPPER } else { ROOT };
        if mount::is_mounted(&self.dir, name) {
            let reason = format!("something is mounted on its directory {name}: unmount it");
            return Err(ErrorKind::InvalidCheckout { path: self.path.clone(), reason }.into());
        }
        Descent::of(self.dir.dir(name)?.into(), &self.path.join(name))
    }

    /// The mount points in the tree, as paths from its root.
    fn mounts(&self) -> BTreeSet<Vec<u8>> {
        self.dir.dir(ROOT).map(mounts_below).unwrap_or_default()
    }

    /// Tells the store of the working copy, unless it is being discarded.
    fn register(&self) -> Result<()> {
        let _lock = self.lock(Sharing::Shared)?;
        self.state.register(self.image.store(), &self.dir, &self.path, &self.layers.chains)
    }

    /// Mounts the tree of a new working copy. A process without the right to mount leaves it unmounted.
    fn mount_if_allowed(&self) -> Result<()> {
        match self.mount_now()? {
            Ok(()) | Err(Errno::PERM | Errno::ACCESS) => Ok(()),
            Err(error) => Err(Error::io("mount an overlay on", &self.root, error.into())),
        }
    }

    fn mount_now(&self) -> Result<Result<(), Errno>> {
        let _lock = self.lock(Sharing::Shared)?;
        if self.mode() != CheckoutMode::Overlay {
            return Ok(Ok(()));
        }
        // Two mounts of one `upper` are undefined. No process mounts on this directory, so all lock the same.
        let work = self.dir.dir(WORK)?;
        let _mounting = self.wait_for(work, Sharing::Alone)?;
        if self.is_mounted() {
            return Ok(Ok(()));
        }
        Ok(Overlay { dir: &self.dir, lower: &self.lower, flags: self.flags() }.mount())
    }

    /// Keeps others from discarding the working copy, or from using it.
    fn lock(&self, sharing: Sharing) -> Result<Locked<File>> {
        let file = self.wait_for(self.dir.file(STATE)?, sharing)?;
        // Who had it may have discarded the working copy.
        let held = rustix::fs::fstat(&*file).map_err(|error| self.dir_error("look at", error))?;
        if self.dir.stat(STATE)?.is_none_or(|stat| Inode::of(&stat) != Inode::of(&held)) {
            let reason = format!("its {STATE} was removed");
            return Err(ErrorKind::InvalidCheckout { path: self.path.clone(), reason }.into());
        }
        Ok(file)
    }

    fn wait_for<F: AsFd>(&self, file: F, sharing: Sharing) -> Result<Locked<F>> {
        match Locked::within(file, sharing, PATIENCE) {
            Ok(Ok(locked)) => Ok(locked),
            Ok(Err((_, waited))) => Err(ErrorKind::Locked { path: self.path.clone(), waited, holder: None }.into()),
            Err(error) => Err(self.dir_error("lock", error)),
        }
    }

    fn dir_error(&self, what: &str, error: Errno) -> Error {
        Error::io(what, &self.path, error.into())
    }
}

/// Refuses a directory of a working copy that another user could change. It need not be there. What is mounted on it has
/// the attributes of the image.
fn require_trusted_dir(dir: &Dir, name: &str, trusted: &TrustedPaths) -> Result<()> {
    match dir.dir(name) {
        Ok(found) if is_mount(&found) => Ok(()),
        Ok(found) => trusted.require(&found, found.path()),
        Err(error) if error.is_not_found() => Ok(()),
        Err(error) => Err(error),
    }
}

/// Returns the store if it is trusted. Where only the caller's options say so, its owner's private state is believed too.
fn trusted_store(store: &Store, trusted: &TrustedPaths) -> Result<Store> {
    trusted.require(store.dir(), store.path())?;
    match require_trusted(store.dir(), store.path()) {
        Ok(()) => Ok(store.clone()),
        Err(_) => store.trusting_its_owner(),
    }
}

impl fmt::Debug for Checkout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checkout")
            .field("path", &self.path)
            .field("mode", &self.mode())
            .field("image", &self.image.id())
            .finish_non_exhaustive()
    }
}
