//! What changed in a working copy.

use super::Checkout;
use super::CheckoutMode;
use super::index::Index;
use crate::changeset::Changes;
use crate::changeset::CompareContent;
use crate::changeset::DiffOptions;
use crate::changeset::Upper;
use crate::changeset::compare;
use crate::error::Context;
use crate::error::Result;
use crate::event::Cancel;

impl Checkout {
    /// What changed since the working copy was made: paths with what became of them, and their sizes. What was changed
    /// and changed back is not listed.
    ///
    /// With [`CheckoutMode::Overlay`] that costs as much as there are changes, whether the tree is mounted or not; else
    /// each file is looked at, and read if it was touched.
    ///
    /// What is mounted in the tree is not part of it. Each mount point is listed in [`Changes::skipped`], and counts as what
    /// it is in the image.
    ///
    /// # Errors
    ///
    /// * [`ErrorKind::InvalidCheckout`](crate::ErrorKind::InvalidCheckout): the tree was mounted with other options, and
    ///   overlayfs wrote what can only be read through the mount; or another tree was mounted in its place.
    /// * Those of [`diff`](crate::changeset::diff).
    pub fn changes(&self) -> Result<Changes> {
        self.changes_until(&Cancel::new())
    }

    pub(super) fn changes_until(&self, cancel: &Cancel) -> Result<Changes> {
        let options = DiffOptions::new().content(CompareContent::Always).cancel(cancel);
        let compare = || match self.mode() {
            CheckoutMode::Overlay => {
                let upper = Upper::new(self.changed_tree()?, self.namespace());
                compare(self.base()?, upper, &options, &|_, _| false, self.mounts())
            }
            CheckoutMode::Reflink | CheckoutMode::Copy => {
                let index = Index::read(&self.dir);
                let known = |path: &[u8], stat: &_| index.is_unchanged(path, stat);
                compare(self.base()?, self.changed_tree()?, &options, &known, self.mounts())
            }
        };
        compare().context(|| format!("changes of {}", self.path().display()))
    }
}
