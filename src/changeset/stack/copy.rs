//! A tree of its own, of what layers show.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;

use rustix::fs::AtFlags;
use rustix::fs::FileType;
use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::fs::Stat;
use rustix::io::Errno;

use super::Stack;
use crate::changeset::attributes;
use crate::changeset::attributes::Made;
use crate::changeset::diff::Tree;
use crate::changeset::tape::Timestamp;
use crate::changeset::whiteout::split;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::event::Cancel;
use crate::fs::copy::copy_content;
use crate::fs::copy::copy_reader;
use crate::fs::descent::Descent;
use crate::fs::dir::Dir;
use crate::fs::rooted::Inode;
use crate::fs::rooted::Rooted;

const NODE: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const NEW: OFlags =
    OFlags::WRONLY.union(OFlags::CREATE).union(OFlags::EXCL).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const PRIVATE: Mode = Mode::RUSR.union(Mode::WUSR);

/// How the content of files is copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CopyMethod {
    /// The file system shares what neither of the files changes.
    Reflink,
    /// Byte by byte.
    Bytes,
}

/// Where the content of a file is to be had from that its owner may not read.
pub(crate) type Unreadable<'a> = &'a dyn Fn(&[u8]) -> Result<Box<dyn Read>>;

/// A tree that grows beside a stack.
struct Copy<'a> {
    stack: Stack,
    target: Descent,
    rooted: Rooted,
    method: CopyMethod,
    unreadable: Unreadable<'a>,
    /// The first name of each file that has several, by the layer that it is in.
    names: HashMap<Inode, Vec<u8>>,
    /// Of each directory on the way, what it is to look like.
    levels: Vec<Level>,
    cancel: &'a Cancel,
}

struct Level {
    name: Vec<u8>,
    stat: Stat,
    ahead: std::vec::IntoIter<(Vec<u8>, usize, Stat)>,
}

impl Stack {
    /// Copies all that the layers show into an empty directory, which gets the attributes of the root.
    pub(crate) fn copy_to(
        self,
        target: &Dir,
        method: CopyMethod,
        unreadable: Unreadable<'_>,
        cancel: &Cancel,
    ) -> Result<()> {
        let stat = |fd: &Descent| rustix::fs::fstat(fd.fd()).map_err(|error| fd.error("look at", b"", error));
        let root = stat(&self.layers[0])?;
        let rooted = Rooted::new(opened(target)?, target.path());
        let target = Descent::of(opened(target)?, target.path())?;
        attributes::hand_nothing_on(&target.fd());
        let level = Level { name: Vec::new(), stat: root, ahead: self.list()?.into_iter() };
        let names = HashMap::new();
        let mut copy = Copy { stack: self, target, rooted, method, unreadable, names, levels: vec![level], cancel };
        while copy.step()? {
            cancel.check()?;
        }
        Ok(())
    }
}

impl Stack {
    /// Gives a directory the attributes of the root.
    pub(crate) fn describe_root(&self, target: &Dir) -> Result<()> {
        let root = &self.layers[0];
        attributes::hand_nothing_on(target);
        let stat = rustix::fs::fstat(root.fd()).map_err(|error| root.error("look at", b"", error))?;
        let dressed = dress(root.fd(), &stat, target.as_fd());
        dressed.map_err(|error| Error::io("set the attributes of", target.path(), error.into()))
    }
}

/// The directory once more, to be walked from.
fn opened(dir: &Dir) -> Result<OwnedFd> {
    dir.as_fd().try_clone_to_owned().map_err(|error| Error::io("open", dir.path(), error))
}

impl Copy<'_> {
    /// Copies the next thing; false if there is none.
    fn step(&mut self) -> Result<bool> {
        let Some(level) = self.levels.last_mut() else { return Ok(false) };
        if let Some((name, layer, stat)) = level.ahead.next() {
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => self.enter(name, stat)?,
                _ => self.node(&name, layer, &stat)?,
            }
            return Ok(true);
        }
        let level = self.levels.pop().expect("it was just looked at");
        let dressed = dress(self.top().fd(), &level.stat, self.target.fd());
        dressed.map_err(|error| self.target.error("set the attributes of", b"", error))?;
        self.stack.leave()?;
        self.target.leave()?;
        debug_assert!(self.levels.is_empty() || !level.name.is_empty());
        Ok(!self.levels.is_empty())
    }

    /// The topmost layer that has the directory at hand: the one whose attributes it has.
    fn top(&self) -> &Descent {
        let n = self.stack.levels.last().and_then(|level| level.first()).copied().unwrap_or(0);
        &self.stack.layers[n]
    }

    fn enter(&mut self, name: Vec<u8>, stat: Stat) -> Result<()> {
        rustix::fs::mkdirat(self.target.fd(), &name[..], Mode::RWXU)
            .map_err(|error| self.target.error("make", &name, error))?;
        self.target.enter(&name)?;
        self.stack.enter(&name)?;
        self.levels.push(Level { name, stat, ahead: self.stack.list()?.into_iter() });
        Ok(())
    }

    fn node(&mut self, name: &[u8], layer: usize, stat: &Stat) -> Result<()> {
        let path = self.target.join(name);
        if stat.st_nlink > 1 {
            match self.names.get(&Inode::of(stat)) {
                Some(first) => return self.link(&first.clone(), name),
                None => self.names.insert(Inode::of(stat), path.clone()),
            };
        }
        let original = &self.stack.layers[layer];
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => self.file(name, original, stat),
            FileType::Symlink => {
                let target = original.link(name)?;
                let made = rustix::fs::symlinkat(&target[..], self.target.fd(), name);
                made.map_err(|error| self.target.error("make", name, error))?;
                self.describe(name, original, stat)
            }
            kind => {
                let made = rustix::fs::mknodat(self.target.fd(), name, kind, PRIVATE, stat.st_rdev);
                made.map_err(|error| self.target.error("make", name, error))?;
                self.describe(name, original, stat)
            }
        }
    }

    fn link(&self, first: &[u8], name: &[u8]) -> Result<()> {
        let (parent, file) = split(first);
        let folder = self.rooted.same_folder(parent)?.ok_or_else(|| self.target.changed(name, "was moved"))?;
        let linked = rustix::fs::linkat(&folder, file, self.target.fd(), name, AtFlags::empty());
        linked.map_err(|error| self.target.error("link", name, error))
    }

    fn file(&self, name: &[u8], original: &Descent, stat: &Stat) -> Result<()> {
        let fail = |error: Errno| self.target.error("write", name, error);
        let copy = rustix::fs::openat(self.target.fd(), name, NEW, PRIVATE).map_err(fail)?;
        let mut copy = File::from(copy);
        match original.file(name, stat) {
            Ok((file, _)) => self.content(file, &mut copy, stat),
            Err(error) if is_denied(&error) => {
                let mut read = (self.unreadable)(&self.target.join(name))?;
                copy_reader(&mut read, &mut copy, &mut |_| self.cancel.check())
            }
            Err(error) => return Err(error),
        }
        .map_err(|error| Error::io("copy", &self.target.outside(name), error))?;
        let made = Made::new(&copy);
        let place = rustix::fs::openat(original.fd(), name, NODE, Mode::empty()).map_err(fail)?;
        let describe = || {
            attributes::copy_owner_and_xattrs(place.as_fd(), stat, &made, attributes::is_overlays)?;
            made.set_mode(stat.st_mode & 0o7777)?;
            made.set_times(mtime(stat))
        };
        describe().map_err(|error| self.target.error("set the attributes of", name, error))
    }

    fn content(&self, file: File, copy: &mut File, stat: &Stat) -> io::Result<()> {
        if self.method == CopyMethod::Reflink && stat.st_size > 0 {
            return Ok(rustix::fs::ioctl_ficlone(&*copy, &file)?);
        }
        copy_content(&file, copy, stat, &mut |_| self.cancel.check())
    }

    /// What is no file and no directory has a name to be described by only.
    fn describe(&self, name: &[u8], original: &Descent, stat: &Stat) -> Result<()> {
        let describe = || {
            let place = rustix::fs::openat(original.fd(), name, NODE, Mode::empty())?;
            let copy = rustix::fs::openat(self.target.fd(), name, NODE, Mode::empty())?;
            let made = Made::path_only(&copy);
            attributes::copy_owner_and_xattrs(place.as_fd(), stat, &made, attributes::is_overlays)?;
            if !FileType::from_raw_mode(stat.st_mode).is_symlink() {
                made.set_mode(stat.st_mode & 0o7777)?;
            }
            made.set_times(mtime(stat))
        };
        describe().map_err(|error| self.target.error("set the attributes of", name, error))
    }
}

/// Gives a directory the attributes of another.
fn dress(original: BorrowedFd<'_>, stat: &Stat, directory: BorrowedFd<'_>) -> Result<(), Errno> {
    let made = Made { fd: directory, path_only: false };
    attributes::copy_owner_and_xattrs(original, stat, &made, attributes::is_overlays)?;
    made.set_mode(stat.st_mode & 0o7777)?;
    made.set_times(mtime(stat))
}

fn is_denied(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied)
}

fn mtime(stat: &Stat) -> Timestamp {
    Timestamp { seconds: stat.st_mtime, nanoseconds: u32::try_from(stat.st_mtime_nsec).unwrap_or(0) }
}
