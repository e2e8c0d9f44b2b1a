//! Parents of a new directory: opened where they exist, made where they are missing.

use std::ffi::OsStr;
use std::ffi::OsString;
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::AtFlags;
use rustix::fs::CWD;
use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::error::Error;
use crate::error::Result;
use crate::fs::aside::open_new;

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// Parent directories that were made for a new directory. They are removed when this is dropped, unless something is in
/// them, or [`keep`](MadeParents::keep) was called.
#[derive(Debug, Default)]
pub(crate) struct MadeParents {
    /// Each with the directory that it was made in; the topmost first.
    made: Vec<(OwnedFd, OsString)>,
}

impl MadeParents {
    /// Opens a directory. If it is missing, it is made, with all that is missing above it. Only the owner may enter what
    /// is made, whatever the process's mask.
    pub(crate) fn open(path: &Path) -> Result<(OwnedFd, MadeParents)> {
        let mut missing: Vec<&OsStr> = Vec::new();
        let mut existing = path;
        let mut here = loop {
            match rustix::fs::openat(CWD, existing, DIRECTORY, Mode::empty()) {
                Ok(here) => break here,
                Err(error) => match (error, existing.file_name(), existing.parent()) {
                    (Errno::NOENT, Some(name), Some(above)) => {
                        missing.push(name);
                        existing = if above.as_os_str().is_empty() { Path::new(".") } else { above };
                    }
                    _ => return Err(Error::io("open", existing, error.into())),
                },
            }
        };
        let mut parents = MadeParents::default();
        for name in missing.into_iter().rev() {
            here = parents.enter(here, name).map_err(|error| Error::io("make", path, error.into()))?;
        }
        Ok((here, parents))
    }

    /// The directory `name` in another one, made if it is missing.
    fn enter(&mut self, above: OwnedFd, name: &OsStr) -> Result<OwnedFd, Errno> {
        match rustix::fs::mkdirat(&above, name, Mode::RWXU) {
            Ok(()) => {}
            // Another process made it meanwhile.
            Err(Errno::EXIST) => return rustix::fs::openat(&above, name, DIRECTORY, Mode::empty()),
            Err(error) => return Err(error),
        }
        let opened = open_new(&above, name);
        self.made.push((above, name.to_owned()));
        let opened = opened?;
        let mode = rustix::fs::fstat(&opened)?.st_mode;
        if mode & 0o777 != 0o700 {
            // The set-group-ID bit is inherited, and stays.
            rustix::fs::fchmod(&opened, Mode::from_raw_mode(mode & 0o2000) | Mode::RWXU)?;
        }
        Ok(opened)
    }

    /// Brings the names of the parents to the disk.
    pub(crate) fn sync(&self) -> Result<(), Errno> {
        self.made.iter().try_for_each(|(above, _)| rustix::fs::fsync(above.as_fd()))
    }

    /// Keeps the parents, as something is in them now.
    pub(crate) fn keep(&mut self) {
        self.made.clear();
    }
}

impl Drop for MadeParents {
    fn drop(&mut self) {
        for (above, name) in self.made.iter().rev() {
            // One that is not empty is used by another process.
            let _ = rustix::fs::unlinkat(above, name, AtFlags::REMOVEDIR);
        }
    }
}
