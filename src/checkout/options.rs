//! How working copies are made.

use std::fmt;
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
/// owners if the process is root's.
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
        }
    }

    /// How it comes by its files.
    #[must_use = "the options are returned"]
    pub fn mode(self, mode: CheckoutMode) -> Self {
        CheckoutOptions { mode: Some(mode), ..self }
    }

    /// Whose the files will be. [`Ownership::Preserve`] if the process is root's, else
    /// [`Ownership::CurrentUser`], unless this is called.
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

    pub(super) fn ownership_here(&self) -> Ownership {
        let default = || {
            let is_root = rustix::process::geteuid().is_root();
            if is_root { Ownership::Preserve } else { Ownership::CurrentUser }
        };
        self.ownership.clone().unwrap_or_else(default)
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
            .finish_non_exhaustive()
    }
}
