//! The way down a tree and up again, for reading what may change meanwhile.
//!
//! A [`Descent`] stands in one directory. It goes to a child that is a directory and no link, and back to where it
//! came from, which is known by its inode. Nothing is opened but directories and regular files. It does not cross mount
//! points: on the way through an image's tree there would be the host's files.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use rustix::fs::AtFlags;
use rustix::fs::CWD;
use rustix::fs::FileType;
use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::fs::ResolveFlags;
use rustix::fs::Stat;
use rustix::io::Errno;

use crate::error::Error;
use crate::error::Result;
use crate::fs::aside::is_mount;
use crate::fs::remove::handle;
use crate::fs::rooted::Inode;
use crate::memory::MemoryBudget;
use crate::memory::allocated;

const LISTED: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const PLACE: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const READ: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);
/// So many directories stay open on the way: trees may be deeper than a process may have files open.
const KEPT: usize = 64;

/// Where somebody stands in a tree.
#[derive(Debug)]
pub(crate) struct Descent {
    root: PathBuf,
    path: Vec<u8>,
    /// The directories from the root to this one.
    way: Vec<Inode>,
    /// The last of them, open; never empty.
    open: VecDeque<OwnedFd>,
    /// How many stay open at most.
    kept: usize,
    /// The memory that a list of names may take; no limit if there is none.
    memory: Option<MemoryBudget>,
    /// Whether mount points are crossed.
    crosses_mounts: bool,
    /// Whether the kernel, or a sandbox, lacks `openat2`.
    lacks_openat2: AtomicBool,
}

/// The memory that the names in a directory take.
pub(crate) fn listing_bytes(list: &[(Vec<u8>, Stat)]) -> usize {
    list.iter().map(|(name, _)| name_bytes(name)).sum()
}

fn name_bytes(name: &[u8]) -> usize {
    size_of::<(Vec<u8>, Stat)>() + allocated(name.len())
}

impl Descent {
    /// Stands at a root, which may be a symbolic link to it.
    pub(crate) fn at(root: &Path) -> Result<Descent> {
        let fail = |error: Errno| Error::io("open", root, error.into());
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Descent::of(rustix::fs::openat(CWD, root, flags, Mode::empty()).map_err(fail)?, root)
    }

    /// Stands at a root that is open already.
    pub(crate) fn of(fd: OwnedFd, root: &Path) -> Result<Descent> {
        let inode = rustix::fs::fstat(&fd).map(|stat| Inode::of(&stat));
        let inode = inode.map_err(|error| Error::io("look at", root, error.into()))?;
        Ok(Descent {
            root: root.to_owned(),
            path: Vec::new(),
            way: vec![inode],
            open: VecDeque::from([fd]),
            kept: KEPT,
            memory: None,
            crosses_mounts: false,
            lacks_openat2: AtomicBool::new(false),
        })
    }

    /// The same, where the list of one directory takes no more memory than the budget has.
    pub(crate) fn within(self, memory: &MemoryBudget) -> Descent {
        Descent { memory: Some(memory.clone()), ..self }
    }

    /// The same with so many directories open at most, where there are many trees.
    pub(crate) fn keeping(self, kept: usize) -> Descent {
        Descent { kept: kept.clamp(1, KEPT), ..self }
    }

    /// Crosses mount points: for what the caller named itself.
    pub(crate) fn crossing_mounts(self) -> Descent {
        Descent { crosses_mounts: true, ..self }
    }

    /// Opens what has a name in here, unless something is mounted on it.
    fn open_here(&self, name: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        if !self.crosses_mounts && !self.lacks_openat2.load(Ordering::Relaxed) {
            match rustix::fs::openat2(self.fd(), name, flags, Mode::empty(), ResolveFlags::NO_XDEV) {
                Err(Errno::NOSYS | Errno::PERM) => self.lacks_openat2.store(true, Ordering::Relaxed),
                opened => return opened,
            }
        }
        let fd = rustix::fs::openat(self.fd(), name, flags, Mode::empty())?;
        if self.crosses_mounts || !is_mount(&fd) { Ok(fd) } else { Err(Errno::XDEV) }
    }

    /// The clean path of this directory from the root.
    pub(crate) fn path(&self) -> &[u8] {
        &self.path
    }

    /// What a path of a thing in here would be.
    pub(crate) fn join(&self, name: &[u8]) -> Vec<u8> {
        if self.path.is_empty() { name.to_vec() } else { [&self.path, &b"/"[..], name].concat() }
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.open.back().expect("the directory at hand is open").as_fd()
    }

    /// Goes to the directory `name` in here.
    pub(crate) fn enter(&mut self, name: &[u8]) -> Result<()> {
        let open = || {
            let fd = self.open_here(name, LISTED)?;
            let inode = Inode::of(&rustix::fs::fstat(&fd)?);
            Ok((fd, inode))
        };
        let (fd, inode) = open().map_err(|error| self.error("open", name, error))?;
        self.path = self.join(name);
        self.way.push(inode);
        self.open.push_back(fd);
        if self.open.len() > self.kept {
            self.open.pop_front();
        }
        Ok(())
    }

    /// Goes back to the directory that this one was entered from. At the root there is nowhere to go.
    pub(crate) fn leave(&mut self) -> Result<()> {
        let [.., above, _] = self.way[..] else { return Ok(()) };
        if self.open.len() == 1 {
            let fd = self.above(above).map_err(|error| self.error("open", b"..", error))?;
            self.open.push_front(fd);
        }
        self.open.pop_back();
        self.way.pop();
        let length = self.path.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
        self.path.truncate(length);
        Ok(())
    }

    /// The directory above, if this one was not moved elsewhere meanwhile.
    fn above(&self, expected: Inode) -> Result<OwnedFd, Errno> {
        let fd = rustix::fs::openat(self.fd(), "..", LISTED, Mode::empty())?;
        if Inode::of(&rustix::fs::fstat(&fd)?) == expected { Ok(fd) } else { Err(Errno::STALE) }
    }

    /// What is in here, sorted by name.
    pub(crate) fn list(&self) -> Result<Vec<(Vec<u8>, Stat)>> {
        let fail = |error| self.error("list", b"", error);
        let mut found = Vec::new();
        let mut memory = self.memory.as_ref().map(MemoryBudget::reservation);
        for entry in rustix::fs::Dir::read_from(self.fd()).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            let name = entry.file_name().to_bytes();
            if matches!(name, b"." | b"..") {
                continue;
            }
            if let Some(memory) = &mut memory {
                memory.grow(name_bytes(name))?;
            }
            // What went away meanwhile is not there.
            if let Some(stat) = self.look(name)? {
                found.push((name.to_vec(), stat));
            }
        }
        found.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        Ok(found)
    }

    /// What has a name in here, if something has.
    pub(crate) fn look(&self, name: &[u8]) -> Result<Option<Stat>> {
        match rustix::fs::statat(self.fd(), name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(self.error("look at", name, error)),
        }
    }

    /// A regular file, which still has to be the one that was looked at: nothing else is opened, not even to see what
    /// it is, because that may hang, or set a device going.
    pub(crate) fn file(&self, name: &[u8], seen: &Stat) -> Result<(File, Stat)> {
        let open = || {
            let place = self.open_here(name, PLACE)?;
            let stat = rustix::fs::fstat(&place)?;
            if !FileType::from_raw_mode(stat.st_mode).is_file() || Inode::of(&stat) != Inode::of(seen) {
                return Ok(None);
            }
            let fd = rustix::fs::openat(CWD, handle(place.as_fd()), READ, Mode::empty())?;
            let stat = rustix::fs::fstat(&fd)?;
            Ok(Some((File::from(fd), stat)))
        };
        let opened = open().map_err(|error| self.error("open", name, error))?;
        opened.ok_or_else(|| self.changed(name, "was replaced"))
    }

    /// What a symbolic link says.
    pub(crate) fn link(&self, name: &[u8]) -> Result<Vec<u8>> {
        let target = rustix::fs::readlinkat(self.fd(), name, Vec::new());
        target.map(|target| target.into_bytes()).map_err(|error| self.error("read the link", name, error))
    }

    pub(crate) fn error(&self, what: &str, name: &[u8], error: Errno) -> Error {
        let error = match error {
            Errno::XDEV => io::Error::new(io::ErrorKind::CrossesDevices, "something is mounted on it"),
            error => error.into(),
        };
        Error::io(what, &self.outside(name), error)
    }

    /// The tree did not hold still.
    pub(crate) fn changed(&self, name: &[u8], how: &str) -> Error {
        let error = io::Error::new(io::ErrorKind::InvalidData, format!("it {how} while it was read"));
        Error::io("read", &self.outside(name), error)
    }

    /// A path for messages.
    pub(crate) fn outside(&self, name: &[u8]) -> PathBuf {
        let inside = if name.is_empty() { self.path.clone() } else { self.join(name) };
        self.root.join(OsStr::from_bytes(&inside))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Deeper than the directories that stay open, and back.
    #[test]
    fn the_way_back_is_found() {
        let root = tempfile::tempdir().unwrap();
        let deep: PathBuf = std::iter::repeat_n("d", 3 * KEPT).collect();
        std::fs::create_dir_all(root.path().join(&deep)).unwrap();
        let mut descent = Descent::at(root.path()).unwrap();
        for _ in 0..3 * KEPT {
            descent.enter(b"d").unwrap();
        }
        assert_eq!(descent.path(), deep.as_os_str().as_bytes());
        assert_eq!(descent.open.len(), KEPT);
        for _ in 0..3 * KEPT {
            descent.leave().unwrap();
        }
        assert_eq!(descent.path(), b"");
        assert_eq!(descent.list().unwrap().len(), 1);
        std::fs::write(descent.outside(b"new"), "").unwrap();
        assert_eq!(descent.list().unwrap().len(), 2);
    }

    /// A directory that is moved away does not lead to another tree.
    #[test]
    fn a_moved_directory_leads_nowhere() {
        let root = tempfile::tempdir().unwrap();
        let deep: PathBuf = std::iter::repeat_n("d", KEPT + 1).collect();
        std::fs::create_dir_all(root.path().join("in").join(&deep)).unwrap();
        let mut descent = Descent::at(root.path()).unwrap();
        descent.enter(b"in").unwrap();
        for _ in 0..=KEPT {
            descent.enter(b"d").unwrap();
        }
        std::fs::rename(root.path().join("in/d"), root.path().join("elsewhere")).unwrap();
        let left: Result<()> = (0..=KEPT).try_for_each(|_| descent.leave());
        assert!(left.unwrap_err().to_string().contains("Stale"));
    }
}
