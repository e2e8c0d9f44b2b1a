//! Comparing two trees.

mod compare;
mod links;
mod tree;
mod walk;

use std::collections::BTreeSet;
use std::path::Path;

use rustix::fs::Stat;

use crate::changeset::Limits;
use crate::changeset::changes::Changes;
use crate::error::Context;
use crate::error::Result;
use crate::event::Cancel;
use crate::fs::descent::Descent;
use crate::fs::mount::mounts_below;
pub(crate) use tree::Listing;
pub(crate) use tree::Tree;
use walk::Walk;

pub(crate) use links::Linked;
pub(crate) use links::Links;

/// Which files are compared by their content, of those whose other attributes are equal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum CompareContent {
    /// Those whose times have no fractions of a second in both trees: such files may have been changed within that
    /// second. Layers say times so.
    #[default]
    WhereTimesAreCoarse,
    /// All: who changes a file can give it back its old time.
    Always,
}

/// How two trees are compared.
///
/// ```
/// use layercake::changeset::{CompareContent, DiffOptions};
///
/// let options = DiffOptions::new().content(CompareContent::Always);
/// ```
#[derive(Clone, Debug, Default)]
pub struct DiffOptions {
    pub(crate) content: CompareContent,
    pub(crate) limits: Limits,
    pub(crate) cancel: Cancel,
}

impl DiffOptions {
    /// The default.
    pub fn new() -> DiffOptions {
        DiffOptions::default()
    }

    /// Which files are compared by their content.
    #[must_use = "the options are returned"]
    pub fn content(self, content: CompareContent) -> Self {
        DiffOptions { content, ..self }
    }

    /// Limits of the layers that are read, and of the memory that the comparison takes. Default: [`Limits::default`].
    #[must_use = "the options are returned"]
    pub fn limits(self, limits: Limits) -> Self {
        DiffOptions { limits, ..self }
    }

    /// A switch that ends the work.
    #[must_use = "the options are returned"]
    pub fn cancel(self, cancel: &Cancel) -> Self {
        DiffOptions { cancel: cancel.clone(), ..self }
    }
}

/// What changed from one tree to another: what a layer must say that, [applied](super::apply) to the old one, makes it
/// the new one.
///
/// Type, mode, owner, device, extended attributes, what links say, and of all but directories size and time are
/// compared; content by [`CompareContent`]. Extended attributes of the host and of overlayfs do not count. Files with
/// several names are compared with their names: if such a file changed, or lost or got a name that is in the tree, all
/// its names are listed. The roots' own attributes are not compared. Sockets are taken for absent, and those in the
/// new tree are listed in [`Changes::skipped`].
///
/// Mount points below the roots are not crossed. A mount point of the new tree counts as unchanged, and is listed in
/// [`Changes::skipped`]; one that is met in the old tree is an error.
///
/// # Errors
///
/// * [`ErrorKind::Io`](crate::ErrorKind::Io): something cannot be read, or did not hold still. Nothing is left out
///   silently.
/// * [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput): a name starts with `.wh.`, which in layers is a
///   whiteout's.
/// * [`ErrorKind::LimitExceeded`](crate::ErrorKind::LimitExceeded): a path is longer than 4,095 bytes; the names in a
///   directory and the list of changes take more memory than the options' limits allow.
/// * [`ErrorKind::Cancelled`](crate::ErrorKind::Cancelled): the options' switch was thrown.
pub fn diff(old: impl AsRef<Path>, new: impl AsRef<Path>, options: &DiffOptions) -> Result<Changes> {
    let (old, new) = (old.as_ref(), new.as_ref());
    let diff = || {
        let memory = options.limits.memory();
        let (old, new) = (Descent::at(old)?.within(&memory), Descent::at(new)?.within(&memory));
        let mounts = mounts_below(new.fd());
        compare(old, new, options, &|_, _| false, mounts)
    };
    diff().context(|| format!("compare {} with {}", new.display(), old.display()))
}

/// Compares two trees, on the disk or in layers. Entries of the new tree that are `known` to be unchanged are not compared,
/// nor is anything below these `mounts`.
pub(crate) fn compare(
    old: impl Tree,
    new: impl Tree,
    options: &DiffOptions,
    known: &dyn Fn(&[u8], &Stat) -> bool,
    mounts: BTreeSet<Vec<u8>>,
) -> Result<Changes> {
    Walk::new(old, new, options, known).stopping_at(mounts)?.run()
}
