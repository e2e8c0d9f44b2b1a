//! Publishing files: readers see nothing, the old one, or the new one whole.

use std::fs::File;
use std::fs::Permissions;
use std::io::Write;
use std::num::NonZeroU64;
use std::os::unix::fs::PermissionsExt;

use rustix::fs::Advice;

use crate::error::Error;
use crate::error::Result;
use crate::fs::dir::Dir;
use crate::fs::lock::Locked;

/// What a store promises of a power cut, or of a crash of the kernel.
///
/// After a crash of only the process both settings promise the same: everything that was reported as done is there,
/// and nothing that is half-done is visible.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Durability {
    /// What a call reported as done is still there after a power cut. Each blob and each change of names is brought
    /// to the disk before the call returns.
    #[default]
    Full,
    /// Nothing is brought to the disk before the operating system does so by itself, usually within half a minute. A
    /// power cut meanwhile may lose blobs and names that were reported as done, and may leave blobs that are empty,
    /// torn or wrong. Empty and short ones are noticed by their size when they are next asked for, and fetched
    /// again; others only when they are read. For caches that can be thrown away.
    None,
}

impl Durability {
    /// Brings a file's content to the disk, if this setting does.
    pub(crate) fn sync_file(self, file: &File, dir: &Dir) -> Result<()> {
        match self {
            Durability::Full => file.sync_all().map_err(|error| Error::io("sync a file in", dir.path(), error)),
            Durability::None => Ok(()),
        }
    }

    /// Has the system begin with bringing this part of a file to the disk, if this setting does: [`sync_file`] then has
    /// less to wait for. Nobody waits here, and nothing is promised.
    ///
    /// [`sync_file`]: Durability::sync_file
    pub(crate) fn begin_sync(self, file: &File, start: u64, end: u64) {
        if self == Durability::Full {
            // Of what is not on the disk yet, Linux begins to write this part, and keeps it.
            let _ = rustix::fs::fadvise(file, start, NonZeroU64::new(end - start), Advice::DontNeed);
        }
    }

    /// Brings a directory's names to the disk, if this setting does.
    pub(crate) fn sync_dir(self, dir: &Dir) -> Result<()> {
        match self {
            Durability::Full => dir.sync(),
            Durability::None => Ok(()),
        }
    }
}

/// Writes `content` aside, as `aside` in `workshop`, and gives it its name in `dir` when it is whole.
///
/// Two writers of one `aside` must keep each other out; what a crashed one left there is thrown away.
pub(crate) fn replace(
    workshop: &Dir,
    aside: &str,
    dir: &Dir,
    name: &str,
    content: &[u8],
    durability: Durability,
) -> Result<()> {
    replace_with_mode(workshop, aside, dir, name, content, None, durability)
}

/// The same with this mode. Default: closed to other users.
pub(crate) fn replace_with_mode(
    workshop: &Dir,
    aside: &str,
    dir: &Dir,
    name: &str,
    content: &[u8],
    mode: Option<u32>,
    durability: Durability,
) -> Result<()> {
    workshop.remove(aside)?;
    let file = workshop.new_file(aside)?;
    if let Some(mode) = mode {
        let permissions = Permissions::from_mode(mode);
        file.set_permissions(permissions)
            .map_err(|error| Error::io("set the mode of", &workshop.path().join(aside), error))?;
    }
    // Whoever clears away what crashes left lets those be that are locked.
    let _writing = Locked::alone(&file);
    let written = (&file).write_all(content).map_err(|error| Error::io("write", &workshop.path().join(aside), error));
    let published =
        written.and_then(|()| durability.sync_file(&file, workshop)).and_then(|()| workshop.rename(aside, dir, name));
    if let Err(error) = published {
        // The first error is the one to tell of; what stays behind is removed by the next writer.
        let _ = workshop.remove(aside);
        return Err(error);
    }
    durability.sync_dir(dir)
}
