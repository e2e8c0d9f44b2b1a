//! Removing a tree, on hostile ground.
//!
//! Two descriptors are open at a time, however deep the tree is, and nothing is followed. A directory that is swapped
//! or moved meanwhile ends the removal with an error. So does a mount point: nothing that is mounted in the tree is
//! touched.

use std::ffi::CString;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::AtFlags;
use rustix::fs::FileType;
use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::fs::Timespec;
use rustix::fs::Timestamps;
use rustix::fs::UTIME_OMIT;
use rustix::io::Errno;

use crate::error::Error;
use crate::error::ErrorKind;
use crate::fs::mount;
use crate::fs::mount::DirStatus;
use crate::fs::rooted::Inode;
use crate::fs::to_path;

const LISTED: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const PLACE: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Says what is to stay.
pub(crate) trait Keeper {
    /// Whether `name` in the directory stays. Of a directory that stays, what is in it is asked for still.
    fn keeps(&mut self, directory: Inode, name: &[u8]) -> bool;

    /// A directory stays only because something in it does.
    fn remains(&mut self, directory: BorrowedFd<'_>) -> Result<(), Errno>;

    /// Whether all that is left in a directory stays, as is known already: it is not looked into again.
    fn is_done(&self, _directory: Inode) -> bool {
        false
    }

    /// A directory stays, and all that is left in it.
    fn done(&mut self, _directory: Inode) {}
}

/// Keeps nothing.
#[derive(Debug)]
pub(crate) struct Nothing;

impl Keeper for Nothing {
    fn keeps(&mut self, _: Inode, _: &[u8]) -> bool {
        false
    }

    fn remains(&mut self, _: BorrowedFd<'_>) -> Result<(), Errno> {
        Ok(())
    }
}

/// Why a tree was not removed, or not all of it.
#[derive(Debug)]
pub(crate) enum NotRemoved {
    /// Something is mounted at this path from the directory that was given.
    Mount(Vec<u8>),
    Io(Errno),
}

impl NotRemoved {
    /// The error for the caller, who tried to remove `name` in the directory at this path, or all that is in it.
    pub(crate) fn into_error(self, directory: &Path, name: &[u8]) -> Error {
        match self {
            NotRemoved::Mount(path) => ErrorKind::MountPoint { path: directory.join(to_path(&path)) }.into(),
            NotRemoved::Io(error) => Error::io("remove", &directory.join(to_path(name)), error.into()),
        }
    }
}

impl From<Errno> for NotRemoved {
    fn from(error: Errno) -> NotRemoved {
        NotRemoved::Io(error)
    }
}

/// Removes `name` in `parent`, whatever it is; directories with all that the keeper does not keep. Something that is
/// not there is removed already.
pub(crate) fn remove(parent: BorrowedFd<'_>, name: &[u8], keeper: &mut dyn Keeper) -> Result<(), NotRemoved> {
    let parent = open_above(parent)?;
    let mut walk = Walk { keeper, levels: vec![Level::new(DirStatus::of(&parent)?, Vec::new(), true)] };
    walk.remove_one(parent.as_fd(), name, FileType::Unknown)?;
    walk.run(parent)
}

/// Removes what is in the directory, and not the directory itself, which may be a mount point.
pub(crate) fn clear(directory: BorrowedFd<'_>, keeper: &mut dyn Keeper) -> Result<(), NotRemoved> {
    let directory = open_listed(directory, b".")?;
    let mut walk = Walk { keeper, levels: Vec::new() };
    walk.enter(&directory, Level::new(DirStatus::of(&directory)?, Vec::new(), true))?;
    walk.run(directory)
}

/// Directories from the first to the one at hand.
struct Walk<'a> {
    keeper: &'a mut dyn Keeper,
    levels: Vec<Level>,
}

struct Level {
    inode: Inode,
    /// As it was found.
    status: DirStatus,
    name: Vec<u8>,
    /// Directories in it that were not looked into yet.
    ahead: Vec<CString>,
    /// Whether it stays for its own sake.
    kept: bool,
    /// Whether something in it stays.
    occupied: bool,
    /// Whether all of it is looked at, and not only one name.
    whole: bool,
    /// Whether something in it was removed.
    changed: bool,
}

impl Level {
    fn new(status: DirStatus, name: Vec<u8>, kept: bool) -> Level {
        let inode = status.inode;
        Level { inode, status, name, ahead: Vec::new(), kept, occupied: false, whole: false, changed: false }
    }

    /// Makes the directory look as if nothing had been removed in it.
    fn restore(&self, directory: &OwnedFd) -> Result<(), Errno> {
        let atime = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
        let times = Timestamps { last_access: atime, last_modification: self.status.modified };
        rustix::fs::utimensat(directory, "", &times, AtFlags::EMPTY_PATH)?;
        let mode = Mode::from_raw_mode(self.status.mode);
        if rustix::fs::fstat(directory)?.st_mode & 0o7777 == mode.as_raw_mode() {
            return Ok(());
        }
        change_mode(directory.as_fd(), mode)
    }
}

impl Walk<'_> {
    /// Works through what is ahead, depth first. `here` is the last level's directory.
    fn run(&mut self, mut here: OwnedFd) -> Result<(), NotRemoved> {
        while let Some(level) = self.levels.last_mut() {
            if let Some(name) = level.ahead.pop() {
                let inode = level.inode;
                match open_listed(here.as_fd(), name.to_bytes()) {
                    Ok(directory) => {
                        let status = DirStatus::of(&directory)?;
                        if status.is_mount_in(inode) {
                            return Err(self.mount(name.to_bytes()));
                        }
                        let kept = self.keeper.keeps(inode, name.to_bytes());
                        self.enter(&directory, Level::new(status, name.into_bytes(), kept))?;
                        here = directory;
                    }
                    Err(Errno::NOENT) => {}
                    Err(Errno::XDEV) => return Err(self.mount(name.to_bytes())),
                    Err(error) => return Err(error.into()),
                }
                continue;
            }
            let Some(level) = self.levels.pop() else { break };
            if !level.kept && level.occupied {
                self.keeper.remains(here.as_fd())?;
            }
            if level.kept && level.whole && level.changed {
                level.restore(&here)?;
            }
            if level.whole && (level.kept || level.occupied) {
                self.keeper.done(level.inode);
            }
            let Some(above) = self.levels.last_mut() else { break };
            here = rustix::fs::openat(&here, "..", LISTED, Mode::empty()).or_else(|error| match error {
                Errno::ACCESS => rustix::fs::openat(&here, "..", PLACE, Mode::empty()),
                error => Err(error),
            })?;
            if Inode::of(&rustix::fs::fstat(&here)?) != above.inode {
                return Err(Errno::STALE.into());
            }
            if level.kept || level.occupied {
                above.occupied = true;
            } else {
                match unlink(here.as_fd(), &level.name, AtFlags::REMOVEDIR) {
                    Ok(()) | Err(Errno::NOENT) => above.changed = true,
                    Err(error) => return Err(self.not_removed(here.as_fd(), &level.name, error)),
                }
            }
        }
        Ok(())
    }

    /// Removes what can be removed at once of a directory, and notes what directories there are.
    fn enter(&mut self, directory: &OwnedFd, level: Level) -> Result<(), NotRemoved> {
        let level = Level { whole: true, ..level };
        let is_done = self.keeper.is_done(level.inode);
        self.levels.push(level);
        for entry in rustix::fs::Dir::read_from(directory)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if matches!(name, b"." | b"..") {
                continue;
            }
            if is_done && let Some(level) = self.levels.last_mut() {
                level.occupied = true;
                return Ok(());
            }
            self.remove_one(directory.as_fd(), name, entry.file_type())?;
        }
        Ok(())
    }

    fn remove_one(&mut self, directory: BorrowedFd<'_>, name: &[u8], kind: FileType) -> Result<(), NotRemoved> {
        let Some(level) = self.levels.last_mut() else { return Ok(()) };
        let later = CString::new(name).map_err(|_| Errno::INVAL)?;
        let kind = match kind {
            FileType::Unknown => match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => FileType::from_raw_mode(stat.st_mode),
                Err(Errno::NOENT | Errno::NAMETOOLONG) => return Ok(()),
                Err(error) => return Err(error.into()),
            },
            kind => kind,
        };
        if kind == FileType::Directory {
            level.ahead.push(later);
            return Ok(());
        }
        if self.keeper.keeps(level.inode, name) {
            level.occupied = true;
            return Ok(());
        }
        match unlink(directory, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {
                level.changed = true;
                Ok(())
            }
            // It was swapped for a directory.
            Err(Errno::ISDIR) => {
                level.ahead.push(later);
                Ok(())
            }
            Err(error) => Err(self.not_removed(directory, name, error)),
        }
    }

    /// The kernel says that a name is busy if something is mounted on it, be it on a file.
    fn not_removed(&self, directory: BorrowedFd<'_>, name: &[u8], error: Errno) -> NotRemoved {
        let is_mount = error == Errno::BUSY && mount::is_mount_at(directory, name);
        if is_mount { self.mount(name) } else { error.into() }
    }

    /// The mount point `name` in the directory at hand.
    fn mount(&self, name: &[u8]) -> NotRemoved {
        let names = self.levels.iter().map(|level| &level.name[..]).chain([name]);
        NotRemoved::Mount(names.filter(|name| !name.is_empty()).collect::<Vec<_>>().join(&b'/'))
    }
}

fn unlink(directory: BorrowedFd<'_>, name: &[u8], flags: AtFlags) -> Result<(), Errno> {
    match rustix::fs::unlinkat(directory, name, flags) {
        Err(Errno::ACCESS) if unlock(directory).is_ok() => rustix::fs::unlinkat(directory, name, flags),
        result => result,
    }
}

/// The directory that something is removed from may be one that its owner must not read.
fn open_above(parent: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    rustix::fs::openat(parent, ".", PLACE, Mode::empty())
}

/// Opens a directory to read its names; one that locks its owner out is unlocked, unless it is a mount point.
pub(crate) fn open_listed(parent: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd, Errno> {
    match rustix::fs::openat(parent, name, LISTED, Mode::empty()) {
        Err(Errno::ACCESS) => {
            let place = match rustix::fs::openat(parent, name, PLACE, Mode::empty()) {
                Err(Errno::ACCESS) => {
                    unlock(parent)?;
                    rustix::fs::openat(parent, name, PLACE, Mode::empty())?
                }
                place => place?,
            };
            if name != b"." && mount::is_mount(&place) {
                return Err(Errno::XDEV);
            }
            unlock(place.as_fd())?;
            rustix::fs::openat(&place, ".", LISTED, Mode::empty())
        }
        opened => opened,
    }
}

/// Gives a directory's owner all permissions on it.
pub(crate) fn unlock(directory: BorrowedFd<'_>) -> Result<(), Errno> {
    let mode = Mode::from_raw_mode(rustix::fs::fstat(directory)?.st_mode & 0o7777);
    change_mode(directory, mode | Mode::RWXU)
}

/// Changes the mode of what is open, be it with `O_PATH` only. The path leads through the descriptor, to nothing else.
pub(crate) fn change_mode(fd: BorrowedFd<'_>, mode: Mode) -> Result<(), Errno> {
    rustix::fs::chmod(handle(fd), mode)
}

/// A path to what is open.
pub(crate) fn handle(fd: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}
