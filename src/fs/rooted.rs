//! Directories below a root, on hostile ground.
//!
//! Whoever wrote what lies below the root may have meant harm, and may still be writing. [`Rooted`] leads to a
//! directory as `chroot` would: symbolic links are followed inside the root, where absolute ones and those upwards are
//! clamped. What it gives is a descriptor; all else is done relative to that, with names of one component.

use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::fs::ResolveFlags;
use rustix::fs::Stat;
use rustix::io::Errno;

use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::fs::mount::DirStatus;
use crate::fs::mount::is_mount;

/// What the kernel allows too (path_resolution(7)).
pub(crate) const MAX_LINKS: usize = 40;
const PLACE: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Which directory it is, whatever its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Inode {
    device: u64,
    number: u64,
}

impl Inode {
    pub(crate) fn new(device: u64, number: u64) -> Inode {
        Inode { device, number }
    }

    /// Number of the device that the file system lies on.
    pub(crate) fn device(self) -> u64 {
        self.device
    }

    pub(crate) fn of(stat: &Stat) -> Inode {
        Inode { device: stat.st_dev, number: stat.st_ino }
    }
}

/// A directory below a root: a descriptor to work relative to, and the path to it, in which nothing is a link.
#[derive(Debug)]
pub(crate) struct Folder {
    fd: OwnedFd,
    path: Vec<u8>,
}

impl Folder {
    pub(crate) fn path(&self) -> &[u8] {
        &self.path
    }

    /// The directory `name` in here, if it is one and no link.
    pub(crate) fn child(&self, name: &[u8]) -> Result<Folder, Errno> {
        let fd = rustix::fs::openat(self, name, PLACE, Mode::empty())?;
        Ok(Folder { fd, path: self.join(name) })
    }

    /// The directory `name` in here, which was opened already.
    fn into_child(mut self, fd: OwnedFd, name: &[u8]) -> Folder {
        if !self.path.is_empty() {
            self.path.push(b'/');
        }
        self.path.extend_from_slice(name);
        Folder { fd, path: self.path }
    }

    /// Which directory it is.
    pub(crate) fn inode(&self) -> Result<Inode, Errno> {
        rustix::fs::fstat(self).map(|stat| Inode::of(&stat))
    }

    /// The directory above, if it is still this one.
    pub(crate) fn above(&self, inode: Inode) -> Result<Folder, Errno> {
        let fd = rustix::fs::openat(self, "..", PLACE, Mode::empty())?;
        let above = Folder { fd, path: self.path_above().to_vec() };
        if above.inode()? == inode { Ok(above) } else { Err(Errno::STALE) }
    }

    fn path_above(&self) -> &[u8] {
        &self.path[..self.path.iter().rposition(|byte| *byte == b'/').unwrap_or(0)]
    }

    /// The same once more.
    pub(crate) fn again(&self) -> Result<Folder, Errno> {
        let fd = rustix::io::fcntl_dupfd_cloexec(&self.fd, 0)?;
        Ok(self.with_fd(fd))
    }

    /// The same directory by another descriptor.
    pub(crate) fn with_fd(&self, fd: OwnedFd) -> Folder {
        Folder { fd, path: self.path.clone() }
    }

    /// What a path of a thing in here would be.
    pub(crate) fn join(&self, name: &[u8]) -> Vec<u8> {
        if self.path.is_empty() { name.to_vec() } else { [&self.path, &b"/"[..], name].concat() }
    }
}

impl AsFd for Folder {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// What is to be done where a path does not lead on.
#[derive(Debug)]
pub(crate) enum Turn {
    /// There is a directory now: try again.
    Again,
    /// Go on where this link leads.
    Link(Vec<u8>),
    /// The path leads nowhere.
    End,
}

/// Whoever walks, and is asked where the way does not go on.
pub(crate) trait Walker {
    /// There is no `name` in `folder`.
    fn missing(&mut self, folder: &Folder, name: &[u8]) -> Result<Turn>;

    /// `name` in `folder` is neither a directory nor a symbolic link.
    fn blocked(&mut self, folder: &Folder, name: &[u8]) -> Result<Turn>;

    /// `folder` may not be searched. Whether that was changed.
    fn locked(&mut self, folder: &Folder) -> Result<bool>;

    /// `name` in `folder` was entered.
    fn entered(&mut self, folder: &Folder, name: &[u8]) -> Result<()>;

    /// `name` in `folder` is a symbolic link that is followed.
    fn followed(&mut self, _folder: &Folder, _name: &[u8], _target: &[u8]) -> Result<()> {
        Ok(())
    }

    /// A directory was left by way of `..`, though something may have been made on the way to it.
    fn turned_back(&mut self) {}
}

/// A root. It is held open, so that it stays the same directory whatever becomes of its name.
#[derive(Debug)]
pub(crate) struct Rooted {
    root: OwnedFd,
    path: PathBuf,
    by_component: AtomicBool,
}

impl Rooted {
    /// The directory behind `root`, which messages call `path`.
    pub(crate) fn new(root: OwnedFd, path: &Path) -> Rooted {
        Rooted { root, path: path.to_owned(), by_component: AtomicBool::new(false) }
    }

    /// Opens a root that exists; a symbolic link is followed here and nowhere below.
    pub(crate) fn open(path: &Path) -> Result<Rooted> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match rustix::fs::openat(rustix::fs::CWD, path, flags, Mode::empty()) {
            Ok(root) => Ok(Rooted::new(root, path)),
            Err(error) => Err(Error::io("open", path, error.into())),
        }
    }

    /// Does without `openat2` from now on.
    pub(crate) fn walk_by_component(&self) {
        self.by_component.store(true, Ordering::Relaxed);
    }

    /// An error about something below the root.
    pub(crate) fn error(&self, what: &str, path: &[u8], error: Errno) -> Error {
        self.io_error(what, path, error.into())
    }

    /// Like [`error`](Rooted::error), with the text of the given error.
    pub(crate) fn io_error(&self, what: &str, path: &[u8], error: std::io::Error) -> Error {
        Error::io(what, &self.outside(path), error)
    }

    /// The path of something below the root, for messages.
    pub(crate) fn outside(&self, path: &[u8]) -> PathBuf {
        self.path.join(crate::fs::to_path(path))
    }

    /// The error where the way below the root comes to a mount point.
    pub(crate) fn mount_point(&self, path: &[u8]) -> Error {
        ErrorKind::MountPoint { path: self.outside(path) }.into()
    }

    /// Brings the file system that the root lies on to the disk. Reports all errors since the root was opened.
    pub(crate) fn sync(&self) -> Result<()> {
        rustix::fs::syncfs(&self.root).map_err(|error| self.error("sync", b"", error))
    }

    /// The root itself.
    pub(crate) fn root(&self) -> Result<Folder> {
        let fd = self.root.try_clone().map_err(|error| Error::io("open", &self.path, error))?;
        Ok(Folder { fd, path: Vec::new() })
    }

    /// The directory at a clean path, if the walker gets there.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::MountPoint`] where the path leads across a mount point below the root, also by way of a link.
    pub(crate) fn folder(&self, path: &[u8], walker: &mut dyn Walker) -> Result<Option<Folder>> {
        if path.is_empty() {
            return self.root().map(Some);
        }
        match self.straight(path) {
            Some(folder) => Ok(Some(folder)),
            None => self.walk(path, walker),
        }
    }

    /// The directory at a path in which nothing was a link, if it is still so.
    pub(crate) fn same_folder(&self, path: &[u8]) -> Result<Option<Folder>> {
        if let Some(folder) = self.straight(path) {
            return Ok(Some(folder));
        }
        let mut here = self.root()?;
        for name in path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
            match rustix::fs::openat(&here, name, PLACE, Mode::empty()) {
                Ok(fd) if is_mount(&fd) => return Ok(None),
                Ok(fd) => here = here.into_child(fd, name),
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
                Err(error) => return Err(self.error("open", path, error)),
            }
        }
        Ok(Some(here))
    }

    /// The directory, if all of the path is there and nothing of it is a link or a mount point.
    fn straight(&self, path: &[u8]) -> Option<Folder> {
        if self.by_component.load(Ordering::Relaxed) {
            return None;
        }
        let resolve =
            ResolveFlags::IN_ROOT | ResolveFlags::NO_XDEV | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_SYMLINKS;
        match rustix::fs::openat2(&self.root, path, PLACE, Mode::empty(), resolve) {
            Ok(fd) => Some(Folder { fd, path: path.to_vec() }),
            Err(Errno::NOSYS | Errno::PERM) => {
                // An old kernel, or a sandbox that does not know the call.
                self.walk_by_component();
                None
            }
            Err(_) => None,
        }
    }

    /// Component by component. Each is opened without following links; these are read and followed here.
    fn walk(&self, path: &[u8], walker: &mut dyn Walker) -> Result<Option<Folder>> {
        let status = |folder: &Folder| DirStatus::of(folder).map_err(|error| self.error("open", folder.path(), error));
        let mut here = self.root()?;
        let root = status(&here)?.inode;
        let mut inode = root;
        // Which directories lie above it.
        let mut above = Vec::new();
        let mut ahead = Vec::new();
        push(&mut ahead, path);
        let mut links = 0;
        while let Some(name) = ahead.pop() {
            if name == b".." {
                walker.turned_back();
                if let Some(parent) = above.pop() {
                    here = self.above(&here, parent)?;
                    inode = parent;
                }
                continue;
            }
            match self.step(&here, &name, walker)? {
                Step::Into(fd) => {
                    here = here.into_child(fd, &name);
                    let child = status(&here)?;
                    if child.is_mount_in(inode) {
                        return Err(self.mount_point(here.path()));
                    }
                    above.push(std::mem::replace(&mut inode, child.inode));
                }
                Step::End => return Ok(None),
                Step::Link(_) if links == MAX_LINKS => return Err(self.error("resolve", path, Errno::LOOP)),
                Step::Link(target) => {
                    links += 1;
                    walker.followed(&here, &name, &target)?;
                    if target.starts_with(b"/") {
                        here = self.root()?;
                        inode = root;
                        above.clear();
                    }
                    push(&mut ahead, &target);
                }
            }
        }
        Ok(Some(here))
    }

    fn step(&self, here: &Folder, name: &[u8], walker: &mut dyn Walker) -> Result<Step> {
        // Each turn changes something; whoever undoes it again and again must not keep us here.
        for _ in 0..MAX_LINKS {
            let turn = match rustix::fs::openat(here, name, PLACE, Mode::empty()) {
                Ok(fd) => {
                    walker.entered(here, name)?;
                    return Ok(Step::Into(fd));
                }
                // What is too long to be a name is nobody's.
                Err(Errno::NOENT | Errno::NAMETOOLONG) => walker.missing(here, name)?,
                Err(Errno::ACCESS) if walker.locked(here)? => Turn::Again,
                Err(Errno::NOTDIR | Errno::LOOP) => match rustix::fs::readlinkat(here, name, Vec::new()) {
                    Ok(target) => Turn::Link(target.into_bytes()),
                    Err(Errno::INVAL) => walker.blocked(here, name)?,
                    Err(Errno::NOENT) => Turn::Again,
                    Err(error) => return Err(self.error("read", &here.join(name), error)),
                },
                Err(error) => return Err(self.error("open", &here.join(name), error)),
            };
            match turn {
                Turn::Again => {}
                Turn::Link(target) => return Ok(Step::Link(target)),
                Turn::End => return Ok(Step::End),
            }
        }
        Err(self.error("open", &here.join(name), Errno::LOOP))
    }

    /// The directory above. Where `..` leads elsewhere, because somebody moved the directory away, or may not be followed,
    /// it is reached from the root again. That takes longer, and a link may go up a thousand times.
    fn above(&self, here: &Folder, inode: Inode) -> Result<Folder> {
        if let Ok(above) = here.above(inode) {
            return Ok(above);
        }
        let path = here.path_above();
        let mut above = self.root()?;
        for name in path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
            let fd = rustix::fs::openat(&above, name, PLACE, Mode::empty())
                .map_err(|error| self.error("open", path, error))?;
            above = above.into_child(fd, name);
        }
        Ok(above)
    }
}

enum Step {
    Into(OwnedFd),
    Link(Vec<u8>),
    End,
}

/// Puts a path's components on top of those still ahead, first one uppermost.
pub(crate) fn push(ahead: &mut Vec<Vec<u8>>, path: &[u8]) {
    let components = path.split(|byte| *byte == b'/').filter(|name| !matches!(*name, b"" | b"."));
    ahead.extend(components.rev().map(<[u8]>::to_vec));
}
