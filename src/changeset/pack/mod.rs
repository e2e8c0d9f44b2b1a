//! Writing layers.

mod header;
mod options;
mod packer;
mod writer;

use std::io::Write;
use std::path::Path;

use crate::changeset::changes::Changes;
use crate::changeset::report::Skipped;
use crate::digest::Digest;
use crate::error::Context;
use crate::error::Result;
use crate::fs::descent::Descent;
pub(crate) use header::Fields;
pub use options::Owners;
pub use options::PackOptions;
use packer::Packer;
pub(crate) use writer::Output;
pub(crate) use writer::TarWriter;

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
    /// Entries and attributes that could not be packed, each with the reason: sockets, mount points, and extended
    /// attributes with a name that has a `=` in it.
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
    let pack = || pack_from(Descent::at(new)?, changes, writer, options);
    pack().context(|| format!("pack {}", new.display()))
}

/// The same from the root of a tree that is open already.
pub(crate) fn pack_from(new: Descent, changes: &Changes, writer: impl Write, options: &PackOptions) -> Result<Packed> {
    let mut packer = Packer::new(new, TarWriter::new(writer), options);
    packer.skipped.extend_from_slice(changes.skipped());
    for change in changes.packed() {
        packer.change(change)?;
    }
    let (tar, skipped) = packer.into_parts();
    tar.finish(skipped)
}

/// Writes a whole tree as a layer, to be the lowest one of an image. It is what [`pack`] writes if the old tree is
/// empty, and takes no memory for what it passed, but for files with several names.
///
/// Mount points below the root are left out, and listed in [`Packed::skipped`]. The root may be one.
///
/// # Errors
///
/// Those of [`pack`].
pub fn pack_tree(root: impl AsRef<Path>, writer: impl Write, options: &PackOptions) -> Result<Packed> {
    let mut tar = TarWriter::new(writer);
    let skipped = pack_tree_to(root.as_ref(), &mut tar, options)?;
    tar.finish(skipped)
}

/// Gives all that is in a tree, and not the root, to an output. Returns what no layer can have.
pub(crate) fn pack_tree_to(root: &Path, output: &mut dyn Output, options: &PackOptions) -> Result<Vec<Skipped>> {
    let pack = || {
        let mut packer = Packer::new(Descent::at(root)?, output, options);
        packer.all()?;
        Ok(packer.into_parts().1)
    };
    pack().context(|| format!("pack {}", root.display()))
}

/// Gives what has a name in a directory, and nothing that is in it, to an output. Returns what no layer can have.
pub(crate) fn pack_entry_to(
    directory: &Path,
    name: &[u8],
    output: &mut dyn Output,
    options: &PackOptions,
) -> Result<Vec<Skipped>> {
    let mut packer = Packer::new(Descent::at(directory)?.crossing_mounts(), output, options);
    packer.named(name)?;
    Ok(packer.into_parts().1)
}
