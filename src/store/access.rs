//! Which other users may read the images of a store.
//!
//! The mode of the directory `blobs` says so: a user who may list it may read what is in it. New stores are closed to
//! others; stores of other tools and of umask 022 are open as they are. Private state (`layercake`) is always closed.

use super::Durability;
use super::Store;
use super::index::INDEX;
use super::layout::BLOBS;
use super::layout::LAYOUT;

use crate::digest::Algorithm;
use crate::digest::Digest;
use crate::error::Context;
use crate::error::Error;
use crate::error::Result;
use crate::fs::atomic;
use crate::fs::dir::Dir;

/// Bits that let group and others list and enter a directory.
const READERS: u32 = 0o055;
/// Bits that let group and others read a file.
const READ: u32 = 0o044;

impl Store {
    /// Sets whether other users of the machine may read the images of this store. Default: they may not.
    ///
    /// The setting is kept as the modes of `blobs`, of `index.json` and of the store's directory, and holds for all
    /// processes and for all that is written later, whatever their umask is. Other users can then list, read, unpack and
    /// save images, with this crate or another tool; they can lock nothing and never see the private state. It is for the
    /// caller to let them enter the directories above.
    ///
    /// ```
    /// # use layercake::Store;
    /// # let dir = tempfile::tempdir()?;
    /// let store = Store::create(dir.path().join("store"))?;
    /// assert!(!store.is_readable_by_others()?);
    /// store.set_readable_by_others(true)?;
    /// assert!(store.is_readable_by_others()?);
    /// # Ok::<(), layercake::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorKind::ReadOnly`](crate::ErrorKind::ReadOnly) if something belongs to another user;
    /// [`ErrorKind::Untrusted`](crate::ErrorKind::Untrusted), [`ErrorKind::Locked`](crate::ErrorKind::Locked),
    /// [`ErrorKind::Io`](crate::ErrorKind::Io).
    pub fn set_readable_by_others(&self, readable: bool) -> Result<()> {
        let set = || {
            let _names = self.lock()?;
            let readers = if readable { READERS } else { 0 };
            // First: what is written meanwhile gets its mode from there.
            let blobs = self.dir().dir(BLOBS)?;
            set_readers(&blobs, readers)?;
            for algorithm in Algorithm::ALL {
                let Some(dir) = self.existing_blobs_dir(algorithm)? else { continue };
                set_readers(dir, readers)?;
                for name in dir.names()? {
                    if format!("{algorithm}:{name}").parse::<Digest>().is_ok() {
                        dir.set_mode(&name, 0o400 | readers & READ)?;
                    }
                }
            }
            for name in [INDEX, LAYOUT] {
                self.dir().set_mode(name, 0o600 | readers & READ)?;
            }
            set_readers(self.dir(), readers)?;
            match self.durability {
                Durability::Full => {
                    rustix::fs::syncfs(self.dir()).map_err(|error| Error::io("sync", self.dir().path(), error.into()))
                }
                Durability::None => Ok(()),
            }
        };
        set().context(|| "set which users may read the store")
    }

    /// Whether other users may read the images of this store.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`](crate::ErrorKind::Io).
    pub fn is_readable_by_others(&self) -> Result<bool> {
        Ok(self.readers()? & 0o005 == 0o005)
    }

    /// Mode of a blob's file. Nobody changes a blob: its name says what is in it.
    pub(super) fn blob_mode(&self) -> Result<u32> {
        Ok(0o400 | self.readers()? & READ)
    }

    /// Opens a folder of blobs, and makes it if it is missing.
    pub(super) fn make_blobs_dir(&self, blobs: &Dir, algorithm: Algorithm) -> Result<Dir> {
        let (dir, is_new) = blobs.make_dir(algorithm.name())?;
        if is_new {
            dir.set_own_mode(0o700 | self.readers()?)?;
            self.durability.sync_dir(&dir)?;
        }
        Ok(dir)
    }

    /// Replaces a file of the layout, which other users may read as they may read blobs.
    pub(super) fn put_public(&self, ours: &Dir, name: &str, content: &[u8], durability: Durability) -> Result<()> {
        let (aside, mode) = (format!("{name}.new"), 0o600 | self.readers()? & READ);
        atomic::replace_with_mode(ours, &aside, self.dir(), name, content, Some(mode), durability)
    }

    /// The bits of group and others in the mode of the directory of blobs.
    fn readers(&self) -> Result<u32> {
        Ok(self.dir().stat(BLOBS)?.map_or(0, |stat| stat.st_mode & READERS))
    }
}

fn set_readers(dir: &Dir, readers: u32) -> Result<()> {
    let mode = dir.own_stat()?.st_mode & 0o7777;
    dir.set_own_mode(mode & !READERS | readers)
}
