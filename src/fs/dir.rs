//! An open directory.

use std::fs::File;
use std::io;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use rustix::fs::AtFlags;
use rustix::fs::CWD;
use rustix::fs::FileType;
use rustix::fs::Gid;
use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::fs::Stat;
use rustix::fs::Timespec;
use rustix::fs::Timestamps;
use rustix::fs::UTIME_NOW;
use rustix::fs::UTIME_OMIT;
use rustix::fs::Uid;
use rustix::io::Errno;

use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Limit;
use crate::error::Result;
use crate::fs::remove::handle;

const DIRECTORY: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// `NONBLOCK`, so that a FIFO in the place of a file cannot hang its reader.
const FILE: OFlags = OFlags::NOFOLLOW.union(OFlags::CLOEXEC).union(OFlags::NONBLOCK);

/// Mode of new directories: closed to other users, whatever the umask.
const DIR_MODE: Mode = Mode::RWXU;
/// Mode of new files: closed to other users, whatever the umask.
const FILE_MODE: Mode = Mode::from_raw_mode(0o600);

/// An open directory, and the path it was opened by, which only error messages use.
///
/// Names given to its methods are single components, made by this crate.
#[derive(Debug)]
pub(crate) struct Dir {
    fd: OwnedFd,
    path: PathBuf,
    /// User and group that what is made in here is given to, if not this process's.
    owner: Option<(Uid, Gid)>,
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl From<Dir> for OwnedFd {
    fn from(dir: Dir) -> OwnedFd {
        dir.fd
    }
}

impl Dir {
    /// Opens a directory of the caller's; a symbolic link is followed here and nowhere below.
    pub(crate) fn open(path: &Path) -> Result<Dir> {
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(CWD, path, flags, Mode::empty()).map_err(|e| read_error(path, e))?;
        Ok(Dir { fd, path: path.to_owned(), owner: None })
    }

    /// One that is open already.
    pub(crate) fn of(fd: OwnedFd, path: &Path) -> Dir {
        Dir { fd, path: path.to_owned(), owner: None }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The directory that it lies in at this moment.
    pub(crate) fn above(&self) -> Result<Dir> {
        let path = self.path.join("..");
        let fd = rustix::fs::openat(&self.fd, "..", DIRECTORY, Mode::empty()).map_err(|e| read_error(&path, e))?;
        Ok(Dir { fd, path, owner: None })
    }

    /// Where it lies at this moment, whatever it was opened by.
    pub(crate) fn real_path(&self) -> Result<PathBuf> {
        let path = rustix::fs::readlinkat(CWD, handle(self.fd.as_fd()), Vec::new());
        let path = path.map_err(|error| Error::io("find the path of", &self.path, error.into()))?;
        Ok(crate::fs::to_path(path.as_bytes()))
    }

    /// The same directory, opened once more: for a lock of its own.
    pub(crate) fn again(&self) -> Result<Dir> {
        let flags = OFlags::RDONLY | DIRECTORY;
        let fd = rustix::fs::openat(&self.fd, ".", flags, Mode::empty()).map_err(|e| read_error(&self.path, e))?;
        Ok(Dir { fd, path: self.path.clone(), owner: self.owner })
    }

    /// The directory `name` in this one.
    pub(crate) fn dir(&self, name: &str) -> Result<Dir> {
        let path = self.path.join(name);
        let fd = rustix::fs::openat(&self.fd, name, DIRECTORY, Mode::empty()).map_err(|e| read_error(&path, e))?;
        Ok(Dir { fd, path, owner: self.owner })
    }

    /// The same, made if it is missing. Says whether it was.
    pub(crate) fn make_dir(&self, name: &str) -> Result<(Dir, bool)> {
        let made = match rustix::fs::mkdirat(&self.fd, name, DIR_MODE) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(error) => return Err(write_error(&self.path.join(name), error)),
        };
        let dir = self.dir(name)?;
        if made {
            self.give(&dir, name)?;
        }
        Ok((dir, made))
    }

    /// The same directory: what is made in it, and below it, is given to its owner. For root in the store of another user.
    pub(crate) fn made_for_its_owner(mut self) -> Result<Dir> {
        let stat = self.own_stat()?;
        if stat.st_uid != rustix::process::geteuid().as_raw() {
            self.owner = Some((Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid)));
        }
        Ok(self)
    }

    fn give(&self, made: impl AsFd, name: &str) -> Result<()> {
        let Some((user, group)) = self.owner else { return Ok(()) };
        rustix::fs::fchown(made, Some(user), Some(group)).map_err(|e| write_error(&self.path.join(name), e))
    }

    /// Returns owner, mode and the rest of what `fstat` says of this directory.
    pub(crate) fn own_stat(&self) -> Result<Stat> {
        rustix::fs::fstat(&self.fd).map_err(|e| read_error(&self.path, e))
    }

    /// Sets mode 0700. A directory that has it already may lie on a read-only file system.
    pub(crate) fn close_to_others(&self) -> Result<()> {
        self.set_own_mode(0o700)
    }

    /// Sets the mode of this directory, unless it has that mode already.
    pub(crate) fn set_own_mode(&self, mode: u32) -> Result<()> {
        if self.own_stat()?.st_mode & 0o7777 == mode {
            return Ok(());
        }
        rustix::fs::fchmod(&self.fd, Mode::from_raw_mode(mode)).map_err(|e| write_error(&self.path, e))
    }

    /// The regular file `name`, to be read.
    pub(crate) fn file(&self, name: &str) -> Result<File> {
        Ok(self.file_and_size(name)?.0)
    }

    /// The same, and its size in bytes.
    pub(crate) fn file_and_size(&self, name: &str) -> Result<(File, u64)> {
        let fd = rustix::fs::openat(&self.fd, name, FILE | OFlags::RDONLY, Mode::empty())
            .map_err(|e| read_error(&self.path.join(name), e))?;
        self.regular(fd, name)
    }

    /// The regular file `name`, to be read and written, made if it is missing.
    pub(crate) fn file_to_write(&self, name: &str) -> Result<File> {
        let fd = rustix::fs::openat(&self.fd, name, FILE | OFlags::RDWR | OFlags::CREATE, FILE_MODE)
            .map_err(|e| write_error(&self.path.join(name), e))?;
        let file = self.regular(fd, name)?.0;
        self.give(&file, name)?;
        Ok(file)
    }

    fn regular(&self, fd: OwnedFd, name: &str) -> Result<(File, u64)> {
        let stat = rustix::fs::fstat(&fd).map_err(|e| read_error(&self.path.join(name), e))?;
        if !FileType::from_raw_mode(stat.st_mode).is_file() {
            let error = io::Error::new(io::ErrorKind::InvalidData, "not a regular file");
            return Err(Error::io("open", &self.path.join(name), error));
        }
        Ok((File::from(fd), u64::try_from(stat.st_size).unwrap_or(0)))
    }

    /// A new file `name`; fails if something is there.
    pub(crate) fn new_file(&self, name: &str) -> Result<File> {
        let flags = FILE | OFlags::RDWR | OFlags::CREATE | OFlags::EXCL;
        let fd =
            rustix::fs::openat(&self.fd, name, flags, FILE_MODE).map_err(|e| write_error(&self.path.join(name), e))?;
        self.give(&fd, name)?;
        Ok(File::from(fd))
    }

    /// The content of the regular file `name`, if it has at most `maximum` bytes.
    pub(crate) fn read(&self, name: &str, limit: Limit, maximum: u64) -> Result<Vec<u8>> {
        let (file, size) = self.file_and_size(name)?;
        let fail = |error| Error::io("read", &self.path.join(name), error);
        if size > maximum {
            return Err(Error::limit(limit, maximum));
        }
        let mut content = Vec::with_capacity(usize::try_from(size).unwrap_or(0) + 1);
        file.take(maximum + 1).read_to_end(&mut content).map_err(fail)?;
        if content.len() as u64 > maximum {
            return Err(Error::limit(limit, maximum));
        }
        Ok(content)
    }

    /// What `name` is, if it is there; a symbolic link is not followed.
    pub(crate) fn stat(&self, name: &str) -> Result<Option<Stat>> {
        match rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(read_error(&self.path.join(name), error)),
        }
    }

    /// The names in this directory, in no order; `.` and `..` are not among them.
    pub(crate) fn names(&self) -> Result<Vec<String>> {
        let fail = |error| read_error(&self.path, error);
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.fd).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            match entry.file_name().to_str() {
                Ok("." | "..") => {}
                Ok(name) => names.push(name.to_owned()),
                // Not a name that this crate gives; nothing here asks for it.
                Err(_) => {}
            }
        }
        Ok(names)
    }

    /// Gives the file `name` the name `new` in the directory `to`, in the place of whatever has it there.
    pub(crate) fn rename(&self, name: &str, to: &Dir, new: &str) -> Result<()> {
        rustix::fs::renameat(&self.fd, name, &to.fd, new).map_err(|e| write_error(&to.path.join(new), e))
    }

    /// Removes the file `name`, if it is there.
    pub(crate) fn remove(&self, name: &str) -> Result<()> {
        match rustix::fs::unlinkat(&self.fd, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(write_error(&self.path.join(name), error)),
        }
    }

    /// Gives the file `name` one more name, `new`, in the directory `to`.
    pub(crate) fn link(&self, name: &str, to: &Dir, new: &str) -> Result<()> {
        rustix::fs::linkat(&self.fd, name, &to.fd, new, AtFlags::empty())
            .map_err(|e| write_error(&to.path.join(new), e))
    }

    /// Sets the permissions of the file or directory `name`, which is no link.
    pub(crate) fn set_mode(&self, name: &str, mode: u32) -> Result<()> {
        let fd = rustix::fs::openat(&self.fd, name, FILE | OFlags::RDONLY, Mode::empty())
            .map_err(|e| read_error(&self.path.join(name), e))?;
        rustix::fs::fchmod(fd, Mode::from_raw_mode(mode)).map_err(|e| write_error(&self.path.join(name), e))
    }

    /// Sets the time of `name` to now. What belongs to somebody else keeps its time.
    pub(crate) fn touch(&self, name: &str) -> Result<()> {
        let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
        let times = Timestamps { last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT }, last_modification: now };
        match rustix::fs::utimensat(&self.fd, name, &times, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(()) | Err(Errno::PERM | Errno::ACCESS) => Ok(()),
            Err(error) => Err(write_error(&self.path.join(name), error)),
        }
    }

    /// Makes the names in this directory survive a power cut.
    pub(crate) fn sync(&self) -> Result<()> {
        rustix::fs::fsync(&self.fd).map_err(|e| write_error(&self.path, e))
    }
}

/// Whether a stat is of a regular file of this size.
pub(crate) fn is_file_of(stat: &Stat, size: u64) -> bool {
    FileType::from_raw_mode(stat.st_mode).is_file() && u64::try_from(stat.st_size) == Ok(size)
}

/// When a file was last written, or made young. A time that cannot be told is the beginning of time.
pub(crate) fn modified(stat: &Stat) -> SystemTime {
    let (seconds, nanoseconds) = (stat.st_mtime, stat.st_mtime_nsec as u32);
    let time = match u64::try_from(seconds) {
        Ok(seconds) => UNIX_EPOCH.checked_add(Duration::new(seconds, nanoseconds)),
        Err(_) => None,
    };
    time.unwrap_or(UNIX_EPOCH)
}

fn read_error(path: &Path, error: Errno) -> Error {
    match error {
        Errno::LOOP => Error::io("open", path, io::Error::new(io::ErrorKind::InvalidData, "is a symbolic link")),
        error => Error::io("open", path, error.into()),
    }
}

fn write_error(path: &Path, error: Errno) -> Error {
    match error {
        Errno::ACCESS | Errno::PERM | Errno::ROFS => ErrorKind::ReadOnly { path: path.to_owned() }.into(),
        Errno::LOOP => read_error(path, error),
        error => Error::io("write", path, error.into()),
    }
}
