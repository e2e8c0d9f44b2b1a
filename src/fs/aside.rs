//! Staging directories: a new directory is built in one, and renamed into place when it is complete.
//!
//! A staging directory lies beside the target, under a hidden name that no other user can guess. Only its owner may
//! enter it: setuid files and devices of layers that are not verified yet are out of reach for other users. It holds a
//! mark and the new directory, `tree`. Its maker holds a lock on it, so an abandoned one can be told from one in use. The
//! next process that makes the same target removes abandoned ones.
//!
//! A name alone proves nothing: a directory is removed as abandoned only if it has the form of a staging directory's
//! name, belongs to the effective user, is closed to all others, has the mark and is not locked.
//!
//! [`Aside`] makes a directory; [`Taken`] is one on its way out.

use std::ffi::OsStr;
use std::ffi::OsString;
use std::hash::Hasher;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::path::PathBuf;

use rustix::fs::AtFlags;
use rustix::fs::FileType;
use rustix::fs::FlockOperation;
use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::fs::RenameFlags;
use rustix::fs::Stat;
use rustix::io::Errno;

use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::fs::dir::Dir;
use crate::fs::parents::MadeParents;
use crate::fs::random_name;
use crate::fs::remove;
use crate::fs::remove::NotRemoved;
use crate::fs::remove::Nothing;
use crate::fs::rooted::Inode;

pub(crate) use crate::fs::mount::is_mount;

/// How the name of a staging directory begins.
pub(crate) const HIDDEN: &str = ".layercake-";
/// Name of the file that marks a staging directory.
const MARK: &str = "layercake-staging";
/// Name of the new directory in its staging directory.
const TREE: &str = "tree";
/// Mode of a staging directory that has no mark yet. The sticky bit tells it from other directories, so that it can be
/// removed if its maker is killed before it sets the mark.
const UNMARKED: Mode = Mode::RWXU.union(Mode::SVTX);
/// Another process may remove parents that it made itself, and did not use, while this one is about to use them.
const ATTEMPTS: usize = 16;

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// Files and names that are synced before a directory counts as published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SyncScope {
    Nothing,
    /// The directory's name, and the names of parents that were made for it.
    Names,
    /// The whole file system that it lies on, and then the names.
    Tree,
}

/// A directory under construction. It is removed, with parents that were made for it, unless it is published.
#[derive(Debug)]
#[must_use = "the directory is removed when this is dropped"]
pub(crate) struct Aside {
    /// Where it will be.
    path: PathBuf,
    name: OsString,
    hidden: Hidden,
    tree: OwnedFd,
    is_published: bool,
    parents: MadeParents,
}

impl Aside {
    /// Makes a directory that is to become `path`, where nothing is, or an empty directory. Missing parents are made,
    /// closed to other users.
    pub(crate) fn new(path: &Path) -> Result<Aside> {
        let Some(name) = path.file_name() else {
            return Err(Error::invalid_input(format!("{} is no name for a new directory", path.display())));
        };
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let prefix = prefix(name);
        let fail = |error: Errno| Error::io("make a directory beside", path, error.into());
        for _ in 0..ATTEMPTS {
            let (above, parents) = MadeParents::open(parent)?;
            check_free(&above, name, path)?;
            reclaim(&above, &prefix);
            let hidden = match Hidden::make(&above, &prefix) {
                Err(Errno::NOENT) => continue,
                hidden => hidden.map_err(fail)?,
            };
            let tree = make_tree(&hidden).map_err(fail);
            let tree = tree.inspect_err(|_| drop(hidden.remove()))?;
            return Ok(Aside {
                path: path.to_owned(),
                name: name.to_owned(),
                hidden,
                tree,
                is_published: false,
                parents,
            });
        }
        Err(fail(Errno::NOENT))
    }

    /// Begins anew, with an empty directory.
    #[cfg(feature = "registry")]
    pub(crate) fn renew(&mut self) -> Result<()> {
        let mut new = Aside::new(&self.path)?;
        // Parents that the first one made go with the second.
        std::mem::swap(&mut new.parents, &mut self.parents);
        *self = new;
        Ok(())
    }

    /// The directory, with the path that it has until it is published.
    pub(crate) fn dir(&self) -> Result<Dir> {
        Ok(Dir::of(self.open()?, &self.path.with_file_name(&self.hidden.name).join(TREE)))
    }

    /// The directory, open.
    pub(crate) fn open(&self) -> Result<OwnedFd> {
        self.tree.try_clone().map_err(|error| Error::io("open", &self.path, error))
    }

    /// Whether it lies in `directory`, or below it.
    pub(crate) fn is_within(&self, directory: impl AsFd) -> Result<bool> {
        let fail = |error: Errno| Error::io("look above", &self.path, error.into());
        let wanted = Inode::of(&rustix::fs::fstat(directory).map_err(fail)?);
        let mut here = self.above()?;
        loop {
            let inode = Inode::of(&rustix::fs::fstat(&here).map_err(fail)?);
            if inode == wanted {
                return Ok(true);
            }
            here = open_above(&here).map_err(fail)?;
            if Inode::of(&rustix::fs::fstat(&here).map_err(fail)?) == inode {
                return Ok(false);
            }
        }
    }

    /// The directory that it will lie in.
    pub(crate) fn above(&self) -> Result<OwnedFd> {
        self.hidden.above().map_err(|error| Error::io("look above", &self.path, error.into()))
    }

    /// Gives the directory its name. After an error it has none.
    pub(crate) fn publish(mut self, sync: SyncScope) -> Result<()> {
        let path = self.path.clone();
        let fail = |what, error: Errno| Error::io(what, &path, error.into());
        if sync == SyncScope::Tree {
            // Reports all errors since the staging directory was opened, before anything was written.
            rustix::fs::syncfs(&self.hidden.fd).map_err(|error| fail("sync", error))?;
        }
        if sync != SyncScope::Nothing {
            self.parents.sync().map_err(|error| fail("sync the directories above", error))?;
        }
        let above = self.above()?;
        self.rename(&above, sync).map_err(|error| match error {
            Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR | Errno::BUSY => {
                ErrorKind::AlreadyExists { path: path.clone() }.into()
            }
            error => fail("rename to", error),
        })?;
        if sync != SyncScope::Nothing
            && let Err(error) = rustix::fs::fsync(&above).and_then(|()| rustix::fs::fsync(&self.hidden.fd))
        {
            let _ = rustix::fs::renameat(&above, &self.name, &self.hidden.fd, TREE);
            return Err(fail("sync", error));
        }
        self.is_published = true;
        self.parents.keep();
        // The next process that makes the same directory removes what stays.
        let _ = self.hidden.remove();
        Ok(())
    }

    fn rename(&self, above: &OwnedFd, sync: SyncScope) -> Result<(), Errno> {
        match rustix::fs::renameat(&self.hidden.fd, TREE, above, &self.name) {
            Err(Errno::ACCESS) => self.rename_unwritable(above, sync),
            renamed => renamed,
        }
    }

    /// A directory that its owner may not write to cannot be moved to another directory (rename(2)), but renamed in one.
    /// So it is moved to a hidden name beside the target, gets its mode again, and then its name.
    fn rename_unwritable(&self, above: &OwnedFd, sync: SyncScope) -> Result<(), Errno> {
        let mode = Mode::from_raw_mode(rustix::fs::fstat(&self.tree)?.st_mode & 0o7777);
        if mode.contains(Mode::WUSR) {
            return Err(Errno::ACCESS);
        }
        rustix::fs::fchmod(&self.tree, Mode::RWXU)?;
        let beside = self.hidden.beside();
        rustix::fs::renameat(&self.hidden.fd, TREE, above, &beside)?;
        rustix::fs::fchmod(&self.tree, mode)?;
        if sync != SyncScope::Nothing {
            rustix::fs::fsync(&self.tree)?;
        }
        rustix::fs::renameat(above, &beside, above, &self.name)
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        if !self.is_published {
            // The next process that makes the same directory removes what stays.
            let _ = self.hidden.remove();
        }
    }
}

/// Makes the new directory in its staging directory.
fn make_tree(hidden: &Hidden) -> Result<OwnedFd, Errno> {
    rustix::fs::mkdirat(&hidden.fd, TREE, Mode::RWXU)?;
    open_new(&hidden.fd, TREE.as_ref())
}

/// Fails unless nothing is there, or an empty directory that something can take the place of.
fn check_free(above: &OwnedFd, name: &OsStr, path: &Path) -> Result<()> {
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

/// A directory that has lost its name. [`remove`](Taken::remove) removes its content, or else the next process that
/// makes a directory of that name.
#[derive(Debug)]
#[must_use = "what is in it is still there"]
pub(crate) struct Taken {
    above: Dir,
    name: OsString,
    /// None on a full disk: the directory still has its name.
    hidden: Option<Hidden>,
}

/// Takes a directory away from its name, so that no process finds half of it while it is removed.
pub(crate) fn take_away(dir: &Dir) -> Result<Taken> {
    let path = dir.real_path()?;
    let Some(name) = path.file_name() else {
        return Err(Error::invalid_input(format!("{} is no name of a directory", path.display())));
    };
    let fail = |error: Errno| Error::io("remove", &path, error.into());
    let own = Inode::of(&rustix::fs::fstat(dir).map_err(fail)?);
    if is_mount(dir) {
        return Err(ErrorKind::MountPoint { path: path.clone() }.into());
    }
    let above = dir.above()?;
    let is_it = |parent: BorrowedFd<'_>, name: &OsStr| match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)
    {
        Ok(stat) if Inode::of(&stat) == own => Ok(()),
        Ok(_) => Err(fail(Errno::STALE)),
        Err(error) => Err(fail(error)),
    };
    is_it(above.as_fd(), name)?;
    let prefix = prefix(name);
    reclaim(&above, &prefix);
    let hidden = match Hidden::make(&above, &prefix) {
        // Removing it makes room again.
        Err(Errno::NOSPC | Errno::DQUOT) => return Ok(Taken { above, name: name.to_owned(), hidden: None }),
        hidden => hidden.map_err(fail)?,
    };
    let moved = move_into(&hidden, &above, name, dir).map_err(fail).and_then(|()| {
        is_it(hidden.fd.as_fd(), TREE.as_ref()).inspect_err(|_| {
            // Another directory was put in its place between these calls: that goes back.
            let _ = rustix::fs::renameat_with(&hidden.fd, TREE, &above, name, RenameFlags::NOREPLACE);
        })
    });
    if let Err(error) = moved {
        hidden.remove_empty();
        return Err(error);
    }
    Ok(Taken { above, name: name.to_owned(), hidden: Some(hidden) })
}

fn move_into(hidden: &Hidden, above: &Dir, name: &OsStr, dir: &Dir) -> Result<(), Errno> {
    let rename = || rustix::fs::renameat(above, name, &hidden.fd, TREE);
    match rename() {
        // A directory that its owner may not write to cannot be moved to another directory (rename(2)).
        Err(Errno::ACCESS) => remove::unlock(dir.as_fd()).and_then(|()| rename()),
        renamed => renamed,
    }
}

impl Taken {
    /// The directory that it lies in.
    pub(crate) fn above(&self) -> &Dir {
        &self.above
    }

    /// Removes all that is in it, and itself.
    pub(crate) fn remove(self) -> Result<()> {
        let path = || self.above.real_path().unwrap_or_default();
        match &self.hidden {
            Some(hidden) => hidden.remove().map_err(|error| error.into_error(&path().join(&hidden.name), b"")),
            None => remove::remove(self.above.as_fd(), self.name.as_bytes(), &mut Nothing)
                .map_err(|error| error.into_error(&path(), self.name.as_bytes())),
        }
    }
}

/// How the names of staging directories begin for one target. The target's name is hashed, as it may be as long as names
/// can be.
fn prefix(name: &OsStr) -> String {
    let mut hasher = std::hash::DefaultHasher::new();
    hasher.write(name.as_encoded_bytes());
    format!("{HIDDEN}{:016x}-", hasher.finish())
}

/// Whether a name has the form `.layercake-<16 digits>-<32 digits>`.
fn is_staging_name(name: &[u8]) -> bool {
    let is_hex = |text: &[u8]| text.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let Some(rest) = name.strip_prefix(HIDDEN.as_bytes()) else { return false };
    rest.len() == 49 && is_hex(&rest[..16]) && rest[16] == b'-' && is_hex(&rest[17..])
}

/// Removes what killed processes left behind for the same target.
fn reclaim(above: impl AsFd, prefix: &str) {
    let Ok(names) = rustix::fs::Dir::read_from(&above) else { return };
    for entry in names.flatten() {
        let name = entry.file_name().to_bytes();
        if name.starts_with(prefix.as_bytes()) {
            reclaim_one(above.as_fd(), name);
        }
    }
}

/// Removes a staging directory if it is one, and abandoned. If something of it cannot be removed, the next attempt does.
pub(crate) fn reclaim_one(above: BorrowedFd<'_>, name: &[u8]) {
    if is_staging_name(name)
        && let Ok(name) = std::str::from_utf8(name)
        && let Some(hidden) = Hidden::abandoned(above, name)
    {
        let _ = hidden.remove();
    }
}

/// A staging directory, locked.
#[derive(Debug)]
struct Hidden {
    name: String,
    fd: OwnedFd,
    /// The directory that it was made in.
    above: Inode,
}

impl Hidden {
    fn make(above: impl AsFd, prefix: &str) -> Result<Hidden, Errno> {
        let inode = Inode::of(&rustix::fs::fstat(&above)?);
        loop {
            let name = format!("{prefix}{}", random_name());
            match rustix::fs::mkdirat(&above, &name, UNMARKED) {
                Ok(()) => {}
                Err(Errno::EXIST) => continue,
                Err(error) => return Err(error),
            }
            let fd = match open_new(&above, name.as_ref()) {
                Ok(fd) => fd,
                // Another process took it for abandoned between these two calls.
                Err(Errno::NOENT) => continue,
                Err(error) => {
                    let _ = rustix::fs::unlinkat(&above, &name, AtFlags::REMOVEDIR);
                    return Err(error);
                }
            };
            // Some network file systems lock no directories, with another error: nothing is reclaimed there.
            if rustix::fs::flock(&fd, FlockOperation::NonBlockingLockExclusive) == Err(Errno::WOULDBLOCK) {
                continue;
            }
            let hidden = Hidden { name, fd, above: inode };
            if !hidden.is_named(above.as_fd()) {
                continue;
            }
            match hidden.mark() {
                Ok(()) => return Ok(hidden),
                Err(error) => {
                    let _ = hidden.remove();
                    return Err(error);
                }
            }
        }
    }

    /// Sets the mark, and the final mode, whatever the process's mask.
    fn mark(&self) -> Result<(), Errno> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mark = rustix::fs::openat(&self.fd, MARK, flags, Mode::RUSR | Mode::WUSR)?;
        // Where other users may rename in the parent, one could have put a directory of theirs in the place of this one.
        if rustix::fs::fstat(mark)?.st_uid != rustix::fs::fstat(&self.fd)?.st_uid {
            return Err(Errno::STALE);
        }
        rustix::fs::fchmod(&self.fd, Mode::RWXU)
    }

    /// Opens and locks a staging directory whose maker is gone.
    fn abandoned(above: BorrowedFd<'_>, name: &str) -> Option<Hidden> {
        let parent = rustix::fs::fstat(above).ok()?;
        let fd = rustix::fs::openat(above, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty()).ok()?;
        let stat = rustix::fs::fstat(&fd).ok()?;
        let is_closed = stat.st_mode & 0o077 == 0;
        if stat.st_uid != rustix::process::geteuid().as_raw() || !is_closed || is_mount(&fd) {
            return None;
        }
        rustix::fs::flock(&fd, FlockOperation::NonBlockingLockExclusive).ok()?;
        let hidden = Hidden { name: name.to_owned(), fd, above: Inode::of(&parent) };
        if hidden.has_mark(&stat) {
            return Some(hidden);
        }
        if stat.st_mode & Mode::SVTX.as_raw_mode() != 0 {
            // Its maker was killed before it set the mark. This removes nothing but an empty directory.
            let _ = rustix::fs::unlinkat(above, name, AtFlags::REMOVEDIR);
        }
        None
    }

    fn has_mark(&self, own: &Stat) -> bool {
        let mark = rustix::fs::statat(&self.fd, MARK, AtFlags::SYMLINK_NOFOLLOW);
        mark.is_ok_and(|mark| FileType::from_raw_mode(mark.st_mode).is_file() && mark.st_uid == own.st_uid)
    }

    /// The directory that it lies in.
    fn above(&self) -> Result<OwnedFd, Errno> {
        let above = rustix::fs::openat(&self.fd, "..", DIRECTORY, Mode::empty())?;
        if Inode::of(&rustix::fs::fstat(&above)?) == self.above { Ok(above) } else { Err(Errno::STALE) }
    }

    /// Whether the name still leads to it.
    fn is_named(&self, above: BorrowedFd<'_>) -> bool {
        let named = rustix::fs::statat(above, &self.name, AtFlags::SYMLINK_NOFOLLOW);
        named.is_ok_and(|stat| rustix::fs::fstat(&self.fd).is_ok_and(|own| Inode::of(&own) == Inode::of(&stat)))
    }

    /// Hidden name for its tree beside it.
    fn beside(&self) -> String {
        format!("{}-{TREE}", self.name)
    }

    /// Removes it if there is no directory in it that was moved there.
    fn remove_empty(&self) {
        let removed = rustix::fs::unlinkat(&self.fd, TREE, AtFlags::REMOVEDIR);
        if matches!(removed, Ok(()) | Err(Errno::NOENT)) {
            let _ = self.remove();
        }
    }

    /// Removes it with its content. The mark goes last, and the mode says so before, so that what stays after an error
    /// can be removed later.
    fn remove(&self) -> Result<(), NotRemoved> {
        let above = self.above()?;
        let beside = rustix::fs::statat(&above, self.beside(), AtFlags::SYMLINK_NOFOLLOW);
        if beside.is_ok_and(|stat| stat.st_uid == rustix::process::geteuid().as_raw()) {
            remove::remove(above.as_fd(), self.beside().as_bytes(), &mut Nothing)?;
        }
        remove::remove(self.fd.as_fd(), TREE.as_bytes(), &mut Nothing)?;
        rustix::fs::fchmod(&self.fd, UNMARKED)?;
        match rustix::fs::unlinkat(&self.fd, MARK, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
        if self.is_named(above.as_fd()) {
            rustix::fs::unlinkat(&above, &self.name, AtFlags::REMOVEDIR)?;
        }
        Ok(())
    }
}

/// Opens a new directory, also where a mask, or the access list of the directory above, closes it to its owner.
pub(crate) fn open_new(above: impl AsFd, name: &OsStr) -> Result<OwnedFd, Errno> {
    let open = |flags: OFlags| rustix::fs::openat(&above, name, flags | OFlags::NOFOLLOW, Mode::empty());
    match open(DIRECTORY) {
        Err(Errno::ACCESS) => {
            remove::unlock(open(DIRECTORY | OFlags::PATH)?.as_fd())?;
            open(DIRECTORY)
        }
        result => result,
    }
}

/// The directory above, wherever it may be read.
fn open_above(directory: &OwnedFd) -> Result<OwnedFd, Errno> {
    rustix::fs::openat(directory, "..", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}
