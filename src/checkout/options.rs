//! How working copies are made.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use serde::Deserialize;
use serde::Serialize;

use crate::changeset::Limits;
use crate::changeset::Options;
use crate::changeset::Ownership;
use crate::error::Error;
use crate::event::Cancel;
use crate::event::Observer;
use crate::event::Silent;
use crate::fs::trust::TrustedPaths;
use crate::store::Store;

/// How a working copy comes by its files. In none of the ways does a change reach the image, or another working copy.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckoutMode {
    /// The kernel's overlayfs shows the image's layers, which lie unpacked in the store, and keeps aside what changes.
    /// It takes no room and no time, whatever the image's size. Needs the right to mount: root's, or that of a user
    /// namespace; without it the caller has to mount what [`mount_options`](super::Checkout::mount_options) says.
    ///
    /// As overlayfs does it, a file with several names that is written to by one of them is a file of its own from then
    /// on.
    Overlay,
    /// All files are copied, and share their content with the store until one of them changes: btrfs, xfs and others
    /// can do that, if store and working copy lie on one file system.
    Reflink,
    /// All files are copied.
    Copy,
}

impl fmt::Display for CheckoutMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            CheckoutMode::Overlay => "overlay",
            CheckoutMode::Reflink => "reflink",
            CheckoutMode::Copy => "copy",
        })
    }
}

impl FromStr for CheckoutMode {
    type Err = Error;

    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) unless it is `overlay`, `reflink` or `copy`.
    fn from_str(text: &str) -> Result<CheckoutMode, Error> {
        let modes = [CheckoutMode::Overlay, CheckoutMode::Reflink, CheckoutMode::Copy];
        let unknown = || Error::invalid_input(format!("no mode {text:?}: there are overlay, reflink and copy"));
        modes.into_iter().find(|mode| mode.to_string() == text).ok_or_else(unknown)
    }
}

/// How a working copy is made. The default takes the first mode that this machine can do, in their order, and keeps
/// owners if this process can ([`Ownership::available`]).
///
/// ```
/// use layercake::checkout::{CheckoutMode, CheckoutOptions};
///
/// let options = CheckoutOptions::new().mode(CheckoutMode::Copy).strict(true);
/// ```
#[derive(Clone)]
pub struct CheckoutOptions<'a> {
    pub(super) mode: Option<CheckoutMode>,
    pub(super) ownership: Option<Ownership>,
    pub(super) strict: bool,
    pub(super) limits: Limits,
    pub(super) cancel: Cancel,
    pub(super) observer: &'a dyn Observer,
    pub(super) setuid: bool,
    pub(super) devices: bool,
    pub(super) trusted: TrustedPaths,
}

impl<'a> CheckoutOptions<'a> {
    /// The default.
    pub fn new() -> CheckoutOptions<'a> {
        CheckoutOptions {
            mode: None,
            ownership: None,
            strict: false,
            limits: Limits::default(),
            cancel: Cancel::new(),
            observer: &Silent,
            setuid: false,
            devices: false,
            trusted: TrustedPaths::default(),
        }
    }

    /// How it comes by its files.
    #[must_use = "the options are returned"]
    pub fn mode(self, mode: CheckoutMode) -> Self {
        CheckoutOptions { mode: Some(mode), ..self }
    }

    /// The owners of the files. Default: [`Ownership::available`].
    #[must_use = "the options are returned"]
    pub fn ownership(self, ownership: Ownership) -> Self {
        CheckoutOptions { ownership: Some(ownership), ..self }
    }

    /// Whether to fail with [`ErrorKind::NotApplied`](crate::ErrorKind::NotApplied) where otherwise something would be
    /// left out, and listed in [`Checkout::skipped`](super::Checkout::skipped).
    #[must_use = "the options are returned"]
    pub fn strict(self, strict: bool) -> Self {
        CheckoutOptions { strict, ..self }
    }

    /// What is refused because it is too much.
    #[must_use = "the options are returned"]
    pub fn limits(self, limits: Limits) -> Self {
        CheckoutOptions { limits, ..self }
    }

    /// A switch that ends the work.
    #[must_use = "the options are returned"]
    pub fn cancel(self, cancel: &Cancel) -> Self {
        CheckoutOptions { cancel: cancel.clone(), ..self }
    }

    /// Who is told of [`Event::Unpacking`](crate::Event::Unpacking) and [`Event::Unpacked`](crate::Event::Unpacked),
    /// of layers that are not unpacked yet.
    #[must_use = "the options are returned"]
    pub fn observer(self, observer: &'a dyn Observer) -> Self {
        CheckoutOptions { observer, ..self }
    }

    /// Whether setuid bits and file capabilities have an effect where the tree is mounted. Default: false, the mount has
    /// the option `nosuid`.
    ///
    /// Only [`CheckoutMode::Overlay`] mounts. In the other modes the directory of the working copy alone, which no other
    /// user may enter, keeps other users from running programs of the image as root.
    #[must_use = "the options are returned"]
    pub fn allow_setuid(self, allow: bool) -> Self {
        CheckoutOptions { setuid: allow, ..self }
    }

    /// Whether device files can be opened where the tree is mounted. Default: false, the mount has the option `nodev`.
    #[must_use = "the options are returned"]
    pub fn allow_devices(self, allow: bool) -> Self {
        CheckoutOptions { devices: allow, ..self }
    }

    /// Trusts a directory of the image's store, and all that lies below it, although another user owns it or may write
    /// to it. The path may not lead through symbolic links. See [`OpenOptions::trust`].
    #[must_use = "the options are returned"]
    pub fn trust(mut self, path: impl AsRef<Path>) -> Self {
        self.trusted.add(path.as_ref());
        self
    }

    pub(super) fn ownership_here(&self) -> Ownership {
        self.ownership.clone().unwrap_or_else(Ownership::available)
    }

    pub(super) fn to_unpack(&self, ownership: &Ownership) -> Options<'a> {
        Options::new()
            .ownership(ownership.clone())
            .strict(self.strict)
            .limits(self.limits)
            .cancel(&self.cancel)
            .observer(self.observer)
    }
}

impl Default for CheckoutOptions<'_> {
    fn default() -> Self {
        CheckoutOptions::new()
    }
}

impl fmt::Debug for CheckoutOptions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CheckoutOptions")
            .field("mode", &self.mode)
            .field("ownership", &self.ownership)
            .field("strict", &self.strict)
            .field("limits", &self.limits)
            .field("setuid", &self.setuid)
            .field("devices", &self.devices)
            .finish_non_exhaustive()
    }
}

/// How a working copy is opened that was made before. The default takes the store that the working copy names, and
/// trusts nothing that another user could change.
///
/// ```
/// use layercake::checkout::OpenOptions;
///
/// let options = OpenOptions::new().trust("/home/alice/work").trust("/home/alice/store");
/// ```
#[derive(Clone, Debug, Default)]
pub struct OpenOptions {
    pub(super) store: Option<Store>,
    pub(super) trusted: TrustedPaths,
}

impl OpenOptions {
    /// The default.
    pub fn new() -> OpenOptions {
        OpenOptions::default()
    }

    /// The store of the image, wherever it was when the working copy was made.
    #[must_use = "the options are returned"]
    pub fn store(self, store: &Store) -> Self {
        OpenOptions { store: Some(store.clone()), ..self }
    }

    /// Trusts a directory, and all that lies below it, although another user owns it or may write to it: the directory
    /// of a working copy, or a store. It is git's `safe.directory`. The path may not lead through symbolic links; the
    /// error [`ErrorKind::Untrusted`](crate::ErrorKind::Untrusted) has the path to trust.
    ///
    /// Its owner decides what the tree shows, and which store of this user or of root is read. Do not
    /// [mount](super::Checkout::mount) a tree that its owner could reach: setuid files and private files of other images
    /// would be open to that user.
    #[must_use = "the options are returned"]
    pub fn trust(mut self, path: impl AsRef<Path>) -> Self {
        self.trusted.add(path.as_ref());
        self
    }
}
