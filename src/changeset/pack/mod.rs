//! Writing layers.

mod header;
mod options;
mod packer;

use std::io::Write;
use std::path::Path;

use rustix::fs::FileType;

use crate::changeset::changes::Changes;
use crate::changeset::report::Skipped;
use crate::digest::Digest;
use crate::error::Context;
use crate::error::Result;
pub use options::Owners;
pub use options::PackOptions;
use packer::Packer;

/// What was packed.
#[non_exhaustive]
#[must_use = "it lists what could not be packed"]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packed {
    /// The digest of the tar: the layer's diff id.
    pub diff_id: Digest,
    /// How many entries the tar has, parents and whiteouts among them.
    pub entries: u64,
    /// How many bytes the tar has.
    pub size: u64,
    /// What could not be packed, and why: sockets, and extended attributes with a name that has a `=` in it.
    pub skipped: Vec<Skipped>,
}

/// Writes changes as a layer: a tar that, [applied](super::apply) to the old tree, makes it the new one.
///
/// What changed is read from the new tree, which must not change meanwhile. The directories above each change are in
/// the layer too, but not the root. The bytes are a function of the tree, the changes and the options: entries are
/// sorted, times are whole seconds, and there are no names of users. Old tar headers are used, with POSIX pax headers
/// before those that have no room. A layer without changes is 1,024 zero bytes. After an error, what was written is no layer.
///
/// # Errors
///
/// * [`ErrorKind::Io`](crate::ErrorKind::Io): something is not there, cannot be read, or did not hold still; or the
///   writer failed.
/// * [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput): a path leads nowhere or cannot be in a layer, or an
///   owner lies outside of the map of ids.
/// * [`ErrorKind::LimitExceeded`](crate::ErrorKind::LimitExceeded): a path is longer than 4,095 bytes, or the extended
///   attributes of something take more than 1 MiB.
/// * [`ErrorKind::Cancelled`](crate::ErrorKind::Cancelled): the options' switch was thrown.
pub fn pack(new: impl AsRef<Path>, changes: &Changes, writer: impl Write, options: &PackOptions) -> Result<Packed> {
    let new = new.as_ref();
    let pack = || {
        let mut packer = Packer::new(new, writer, options)?;
        packer.skipped.extend_from_slice(changes.skipped());
        for change in changes.packed() {
            packer.change(change)?;
        }
        packer.finish()
    };
    pack().context(|| format!("pack {}", new.display()))
}

/// Writes a whole tree as a layer, to be the lowest one of an image. It is what [`pack`] writes if the old tree is
/// empty, and takes no memory for what it passed, but for files with several names.
///
/// # Errors
///
/// Those of [`pack`].
pub fn pack_tree(root: impl AsRef<Path>, writer: impl Write, options: &PackOptions) -> Result<Packed> {
    let root = root.as_ref();
    let pack = || {
        let mut packer = Packer::new(root, writer, options)?;
        let mut levels = vec![packer.tree.list()?.into_iter()];
        while let Some(level) = levels.last_mut() {
            let Some((name, stat)) = level.next() else {
                packer.tree.leave()?;
                levels.pop();
                continue;
            };
            packer.entry(&name, &stat)?;
            if FileType::from_raw_mode(stat.st_mode).is_dir() {
                packer.tree.enter(&name)?;
                levels.push(packer.tree.list()?.into_iter());
            }
        }
        packer.finish()
    };
    pack().context(|| format!("pack {}", root.display()))
}
