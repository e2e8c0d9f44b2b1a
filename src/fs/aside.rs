//! A new directory: made aside, and given its name when it is whole.
//!
//! Aside means beside: in the same directory, under a hidden name. Whoever makes it holds a lock on it, so what a
//! killed process left behind can be told from what is being worked on, and is removed by whoever comes next.

use std::ffi::OsStr;
use std::hash::Hasher;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::path::PathBuf;

use rustix::fs::AtFlags;
use rustix::fs::CWD;
use rustix::fs::FlockOperation;
use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::fs::RenameFlags;
use rustix::fs::StatxAttributes;
use rustix::fs::StatxFlags;
use rustix::io::Errno;

use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::fs::dir::Dir;
use crate::fs::remove;
use crate::fs::remove::Nothing;
use crate::fs::rooted::Inode;

/// All hidden names begin so.
pub(crate) const HIDDEN: &str = ".layercake-";

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// A directory that has no name of its own yet. It is removed when this is dropped.
#[derive(Debug)]
#[must_use = "the directory is removed when this is dropped"]
pub(crate) struct Aside {
    /// Where it will be.
    path: PathBuf,
    name: std::ffi::OsString,
    above: OwnedFd,
    aside: String,
    fd: OwnedFd,
    published: bool,
}

impl Aside {
    /// Makes a directory that is to become `path`, where nothing is, or an empty directory.
    pub(crate) fn new(path: &Path) -> Result<Aside> {
        let Some(name) = path.file_name() else {
            return Err(Error::invalid_input(format!("{} is no name for a new directory", path.display())));
        };
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let above = rustix::fs::openat(CWD, parent, DIRECTORY, Mode::empty())
            .map_err(|error| Error::io("open", parent, error.into()))?;
        check_free(&above, name.as_ref(), path)?;
        let prefix = prefix(name);
        reclaim(&above, &prefix);
        let (aside, fd) =
            make(&above, &prefix).map_err(|error| Error::io("make a directory beside", path, error.into()))?;
        Ok(Aside { path: path.to_owned(), name: name.to_owned(), above, aside, fd, published: false })
    }

    /// The directory, with the path that it has until then.
    pub(crate) fn dir(&self) -> Result<Dir> {
        Ok(Dir::of(self.open()?, &self.path.with_file_name(&self.aside)))
    }

    /// The directory, open.
    pub(crate) fn open(&self) -> Result<OwnedFd> {
        self.fd.try_clone().map_err(|error| Error::io("open", &self.path, error))
    }

    /// Whether it lies in `directory`, or below it.
    pub(crate) fn is_within(&self, directory: impl AsFd) -> Result<bool> {
        let fail = |error: Errno| Error::io("look above", &self.path, error.into());
        let wanted = Inode::of(&rustix::fs::fstat(directory).map_err(fail)?);
        let mut here = self.above.try_clone().map_err(|error| Error::io("open", &self.path, error))?;
        loop {
            let inode = Inode::of(&rustix::fs::fstat(&here).map_err(fail)?);
            if inode == wanted {
                return Ok(true);
            }
            here = rustix::fs::openat(&here, "..", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
                .map_err(fail)?;
            if Inode::of(&rustix::fs::fstat(&here).map_err(fail)?) == inode {
                return Ok(false);
            }
        }
    }

    /// Gives the directory its name; with `sync`, so that what is in it and then the name survive a power cut.
    pub(crate) fn publish(mut self, sync: bool) -> Result<()> {
        let path = || self.path.clone();
        if sync {
            rustix::fs::syncfs(&self.fd).map_err(|error| Error::io("sync", &path(), error.into()))?;
        }
        match rustix::fs::renameat(&self.above, &self.aside, &self.above, &self.name) {
            Ok(()) => self.published = true,
            Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR | Errno::BUSY) => {
                return Err(ErrorKind::AlreadyExists { path: path() }.into());
            }
            Err(error) => return Err(Error::io("rename to", &path(), error.into())),
        }
        if sync {
            rustix::fs::fsync(&self.above).map_err(|error| Error::io("sync", &path(), error.into()))?;
        }
        Ok(())
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        if !self.published {
            // What is not removed now is removed by whoever makes the same directory next.
            let _ = remove::remove(self.above.as_fd(), self.aside.as_bytes(), &mut Nothing);
        }
    }
}

/// Fails unless nothing is there, or an empty directory that something can take the place of.
fn check_free(above: &OwnedFd, name: &Path, path: &Path) -> Result<()> {
    let taken = || Err(ErrorKind::AlreadyExists { path: path.to_owned() }.into());
    let fail = |error: Errno| Error::io("look at", path, error.into());
    let found = match rustix::fs::openat(above, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty()) {
        Ok(found) => found,
        Err(Errno::NOENT) => return Ok(()),
        Err(Errno::NOTDIR | Errno::LOOP) => return taken(),
        Err(error) => return Err(fail(error)),
    };
    if is_mount(&found) {
        return taken();
    }
    for entry in rustix::fs::Dir::new(found).map_err(fail)? {
        if !matches!(entry.map_err(fail)?.file_name().to_bytes(), b"." | b"..") {
            return taken();
        }
    }
    Ok(())
}

/// A directory that has lost its name. What is in it is removed by [`remove`](Taken::remove), or by whoever makes a
/// directory of that name next.
#[derive(Debug)]
#[must_use = "what is in it is still there"]
pub(crate) struct Taken {
    above: Dir,
    aside: String,
}

/// Takes a directory away from its name, so that nobody finds half of it while it is removed.
pub(crate) fn take_away(dir: &Dir) -> Result<Taken> {
    let path = dir.real_path()?;
    let Some(name) = path.file_name() else {
        return Err(Error::invalid_input(format!("{} is no name of a directory", path.display())));
    };
    let fail = |error: Errno| Error::io("remove", &path, error.into());
    let own = Inode::of(&rustix::fs::fstat(dir).map_err(fail)?);
    let above = dir.above()?;
    let is_it = |name: &OsStr| match rustix::fs::statat(&above, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) if Inode::of(&stat) == own => Ok(()),
        Ok(_) => Err(fail(Errno::STALE)),
        Err(error) => Err(fail(error)),
    };
    is_it(name)?;
    // Who makes a directory of that name next is to leave this to us; where directories cannot be locked, both remove it.
    let _ = rustix::fs::flock(dir, FlockOperation::NonBlockingLockExclusive);
    let aside = format!("{}{:016x}", prefix(name), fastrand::u64(..));
    rustix::fs::renameat(&above, name, &above, &aside).map_err(fail)?;
    if let Err(error) = is_it(aside.as_ref()) {
        // It was put in the other's place between these calls: that goes back.
        let _ = rustix::fs::renameat_with(&above, &aside, &above, name, RenameFlags::NOREPLACE);
        return Err(error);
    }
    Ok(Taken { above, aside })
}

impl Taken {
    /// The directory that it lies in.
    pub(crate) fn above(&self) -> &Dir {
        &self.above
    }

    /// Removes all that is in it, and itself.
    pub(crate) fn remove(self) -> Result<()> {
        let removed = remove::remove(self.above.as_fd(), self.aside.as_bytes(), &mut Nothing);
        let path = || self.above.real_path().unwrap_or_default().join(&self.aside);
        removed.map_err(|error| Error::io("remove", &path(), error.into()))
    }
}

/// Whether a directory is one that something is mounted on.
pub(crate) fn is_mount(directory: impl AsFd) -> bool {
    let stat = rustix::fs::statx(&directory, "", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS);
    match stat {
        Ok(stat) if stat.stx_attributes_mask.contains(StatxAttributes::MOUNT_ROOT) => {
            stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)
        }
        _ => is_on_another_device(directory),
    }
}

/// What can be known of mounts before Linux 5.8: all but those of a part of a file system within itself.
fn is_on_another_device(directory: impl AsFd) -> bool {
    let device = |name| rustix::fs::statat(&directory, name, AtFlags::EMPTY_PATH).map(|stat| stat.st_dev);
    device("") != device("..")
}

/// What the hidden names begin with for one target. Of its name there is a hash only: the name may be as long as names
/// can be.
fn prefix(name: &OsStr) -> String {
    let mut hasher = std::hash::DefaultHasher::new();
    hasher.write(name.as_encoded_bytes());
    format!("{HIDDEN}{:016x}-", hasher.finish())
}

/// Removes what processes left behind that are gone: nobody holds its lock.
fn reclaim(above: &OwnedFd, prefix: &str) {
    let Ok(names) = rustix::fs::Dir::read_from(above) else { return };
    for entry in names.flatten() {
        let name = entry.file_name().to_bytes();
        if !name.starts_with(prefix.as_bytes()) {
            continue;
        }
        reclaim_one(above.as_fd(), name);
    }
}

/// Removes one of these, if nobody holds its lock. What cannot be removed stays for the next attempt.
pub(crate) fn reclaim_one(above: BorrowedFd<'_>, name: &[u8]) {
    let Ok(fd) = remove::open_listed(above, name) else { return };
    if rustix::fs::flock(&fd, FlockOperation::NonBlockingLockExclusive).is_ok() {
        let _ = remove::remove(above, name, &mut Nothing);
    }
}

/// Opens a new directory; also where a mask, or the list of the directory above, closes it to its owner.
fn open_new(above: &OwnedFd, name: &str) -> Result<OwnedFd, Errno> {
    let open = |flags: OFlags| rustix::fs::openat(above, name, flags | OFlags::NOFOLLOW, Mode::empty());
    match open(DIRECTORY) {
        Err(Errno::ACCESS) => {
            remove::unlock(open(DIRECTORY | OFlags::PATH)?.as_fd())?;
            open(DIRECTORY)
        }
        result => result,
    }
}

fn make(above: &OwnedFd, prefix: &str) -> Result<(String, OwnedFd), Errno> {
    loop {
        let aside = format!("{prefix}{:016x}", fastrand::u64(..));
        match rustix::fs::mkdirat(above, &aside, Mode::RWXU) {
            Ok(()) => {}
            Err(Errno::EXIST) => continue,
            Err(error) => return Err(error),
        }
        let fd = match open_new(above, &aside) {
            Ok(fd) => fd,
            // Between these two calls another process may have taken it for left behind; then another one is made.
            Err(Errno::NOENT) => continue,
            Err(error) => {
                let _ = rustix::fs::unlinkat(above, &aside, AtFlags::REMOVEDIR);
                return Err(error);
            }
        };
        // Some network file systems lock no directories, with another error: nothing is reclaimed there.
        if rustix::fs::flock(&fd, FlockOperation::NonBlockingLockExclusive) == Err(Errno::WOULDBLOCK) {
            continue;
        }
        let named = rustix::fs::statat(above, &aside, AtFlags::SYMLINK_NOFOLLOW);
        if named.is_ok_and(|stat| rustix::fs::fstat(&fd).is_ok_and(|own| Inode::of(&own) == Inode::of(&stat))) {
            return Ok((aside, fd));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_known_by_their_device_too() {
        let scratch = tempfile::tempdir().unwrap();
        for (path, is_one) in
            [(Path::new("/proc"), true), (Path::new("/proc/sys/kernel"), false), (scratch.path(), false)]
        {
            let directory = rustix::fs::openat(CWD, path, DIRECTORY | OFlags::PATH, Mode::empty()).unwrap();
            assert_eq!(
                (is_mount(&directory), is_on_another_device(&directory)),
                (is_one, is_one),
                "{}",
                path.display()
            );
        }
    }
}
