//! Working copies of images: change one, ask what changed, commit it.
//!
//! An image is read-only. [`Image::checkout`] makes a directory that looks like it and can be changed, without
//! changing the image or any other working copy; what changed is asked for by [`Checkout::changes`], and becomes a new
//! layer, on top of those of the image, by [`Checkout::commit`]. If images are revisions, layers are commits, and this
//! is the working copy.
//!
//! * [`Checkout`] is a working copy.
//! * [`CheckoutMode`] is how it comes by its files, and [`CheckoutOptions`] say that and more.
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
mod make;
mod mount;
mod options;
mod state;

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
use crate::fs::descent::Descent;
use crate::fs::dir::Dir;
use crate::fs::lock::Locked;
use crate::fs::lock::Sharing;
use crate::fs::rooted::Inode;
use crate::image::Image;
use crate::image::UnpackedLayers;
use crate::store::Store;
use state::STATE;
use state::State;

pub use commit::CommitOptions;
pub use mount::MountOptions;
pub use options::CheckoutMode;
pub use options::CheckoutOptions;

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
}

impl Checkout {
    /// Opens a working copy that was made before, by this process or another. Where overlayfs is not mounted any more,
    /// as after a restart of the machine, it is mounted again if this process may.
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
    /// * [`ErrorKind::InvalidCheckout`]: the directory is no working copy, or what it says of itself is damaged.
    /// * [`ErrorKind::UnsupportedVersion`]: a newer version of this crate made it.
    /// * Those of [`Store::open`] and [`Store::image_at`]: its store is not where it was, or lacks its image;
    ///   [`open_in`](Checkout::open_in) says where the store is now.
    /// * [`ErrorKind::Io`]: there is no such directory, or it cannot be read.
    pub fn open(path: impl AsRef<Path>) -> Result<Checkout> {
        let path = path.as_ref();
        let open = || {
            let state = State::read(&Dir::open(path)?)?;
            Checkout::open_state(path, &Store::open(state.store_path())?)
        };
        open().context(|| format!("open working copy {}", path.display()))
    }

    /// The same, of an image in this store, wherever it was when the working copy was made.
    ///
    /// # Errors
    ///
    /// Those of [`open`](Checkout::open).
    pub fn open_in(store: &Store, path: impl AsRef<Path>) -> Result<Checkout> {
        let path = path.as_ref();
        Checkout::open_state(path, store).context(|| format!("open working copy {}", path.display()))
    }

    fn open_state(path: &Path, store: &Store) -> Result<Checkout> {
        let dir = Dir::open(path)?;
        let mut state = State::read(&dir)?;
        // Root may open a working copy of another user, who then owns what is written.
        let store = &store.trusting_its_owner()?;
        if state.is_copy(store, &dir)? {
            state.renew_id();
            state.write(&dir, store.durability())?;
        }
        let image = store.image_at(&state.manifest)?;
        let ownership = state.ownership();
        let layers = image.held()?.unpacked_layers(&state.folder, &CheckoutOptions::new().to_unpack(&ownership))?;
        let path = dir.real_path()?;
        let dir = Dir::of(dir.into(), &path);
        let checkout = Checkout { root: path.join(ROOT), dir, path, state, image, layers };
        checkout.settle_in()?;
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

    /// Whether the tree is there: always, but for [`CheckoutMode::Overlay`] where nobody mounted it.
    pub fn is_mounted(&self) -> bool {
        self.mode() != CheckoutMode::Overlay || mount::is_mounted(&self.dir, ROOT)
    }

    /// What overlayfs has to be told to show the tree in [`root`](Checkout::root), for whoever may mount it; none in
    /// other modes.
    pub fn mount_options(&self) -> Option<MountOptions> {
        let userxattr = self.state.userxattr;
        let options =
            MountOptions { userxattr, ..MountOptions::new(self.lower(), self.path.join(UPPER), self.path.join(WORK)) };
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
            if let Some(point) = mount::mounts_below(&self.dir.real_path()?)?.first() {
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

    /// The directories of the layers, topmost first; never none.
    fn lower(&self) -> Vec<PathBuf> {
        let mut lower: Vec<PathBuf> = self.layers.paths.iter().rev().cloned().collect();
        if lower.is_empty() {
            lower.push(self.path.join(BASE));
        }
        lower
    }

    fn namespace(&self) -> Namespace {
        if self.state.userxattr { Namespace::User } else { Namespace::Trusted }
    }

    /// The image's tree, as the unpacked layers show it.
    fn base(&self) -> Result<Stack> {
        Stack::of(&self.lower(), self.namespace())
    }

    /// The tree that has at least what changed.
    fn changed_tree(&self) -> Result<Descent> {
        let name = if self.mode() == CheckoutMode::Overlay { UPPER } else { ROOT };
        Descent::of(self.dir.dir(name)?.into(), &self.path.join(name))
    }

    /// Tells the store of the working copy, and mounts its tree, unless somebody discards it.
    fn settle_in(&self) -> Result<()> {
        let _lock = self.lock(Sharing::Shared)?;
        self.state.register(self.image.store(), &self.path, &self.layers.chains)?;
        let Some(options) = self.mount_options() else { return Ok(()) };
        // Two mounts of one `upper` do what nobody knows. Nothing is ever mounted on this directory, so all lock the same.
        let work = self.dir.dir(WORK)?;
        let _mounting = self.wait_for(work, Sharing::Alone)?;
        if self.is_mounted() {
            return Ok(());
        }
        match options.mount(&self.dir) {
            // That it may not is no error.
            Ok(()) | Err(Errno::PERM | Errno::ACCESS) => Ok(()),
            Err(error) => Err(Error::io("mount an overlay on", &self.root, error.into())),
        }
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

impl fmt::Debug for Checkout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checkout")
            .field("path", &self.path)
            .field("mode", &self.mode())
            .field("image", &self.image.id())
            .finish_non_exhaustive()
    }
}
