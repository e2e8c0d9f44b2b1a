//! Tells mount points from other directories, also bind mounts within one file system.
//!
//! No operation of this crate removes, changes or reads anything across a mount point that it did not make: an
//! administrator's data may be mounted below a tree that is changed or removed.

use std::collections::BTreeSet;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::path::PathBuf;

use rustix::fs::AtFlags;
use rustix::fs::CWD;
use rustix::fs::StatxAttributes;
use rustix::fs::StatxFlags;
use rustix::fs::Timespec;
use rustix::io::Errno;

use crate::error::Error;
use crate::error::Result;
use crate::fs::remove::handle;
use crate::fs::rooted::Inode;

/// List of the mount points of this process (proc(5)).
const TABLE: &str = "/proc/self/mountinfo";

/// Status of an open directory, with whether something is mounted on it: one system call.
#[derive(Debug)]
pub(crate) struct DirStatus {
    pub(crate) inode: Inode,
    /// Permission bits.
    pub(crate) mode: u32,
    pub(crate) modified: Timespec,
    /// None where the kernel does not say it: before Linux 5.8.
    is_mount_root: Option<bool>,
}

impl DirStatus {
    /// Reads the status of an open directory.
    pub(crate) fn of(directory: impl AsFd) -> Result<DirStatus, Errno> {
        let Ok(stat) = rustix::fs::statx(&directory, "", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS) else {
            // An old kernel, or a sandbox that does not know the call.
            let stat = rustix::fs::fstat(directory)?;
            let modified = Timespec { tv_sec: stat.st_mtime, tv_nsec: stat.st_mtime_nsec as _ };
            let (inode, mode) = (Inode::of(&stat), stat.st_mode & 0o7777);
            return Ok(DirStatus { inode, mode, modified, is_mount_root: None });
        };
        let device = rustix::fs::makedev(stat.stx_dev_major, stat.stx_dev_minor);
        let is_known = stat.stx_attributes_mask.contains(StatxAttributes::MOUNT_ROOT);
        Ok(DirStatus {
            inode: Inode::new(device, stat.stx_ino),
            mode: u32::from(stat.stx_mode) & 0o7777,
            modified: Timespec { tv_sec: stat.stx_mtime.tv_sec, tv_nsec: stat.stx_mtime.tv_nsec.into() },
            is_mount_root: is_known.then(|| stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)),
        })
    }

    /// Whether something is mounted on the directory, which was entered from this other one.
    pub(crate) fn is_mount_in(&self, parent: Inode) -> bool {
        self.is_mount_root.unwrap_or(self.inode.device() != parent.device())
    }
}

/// Whether something is mounted on an open file or directory.
pub(crate) fn is_mount(file: impl AsFd) -> bool {
    match DirStatus::of(&file) {
        Ok(DirStatus { is_mount_root: Some(is_mount), .. }) => is_mount,
        _ => is_on_another_device(file),
    }
}

/// Whether something is mounted on the file or directory `name`. A symbolic link is not followed.
pub(crate) fn is_mount_at(directory: impl AsFd, name: &[u8]) -> bool {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    let stat = rustix::fs::statx(directory, name, flags, StatxFlags::TYPE);
    stat.is_ok_and(|stat| stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

/// Compares devices, which shows all mounts but those of a part of a file system within itself.
fn is_on_another_device(directory: impl AsFd) -> bool {
    let device = |name| rustix::fs::statat(&directory, name, AtFlags::EMPTY_PATH).map(|stat| stat.st_dev);
    device("") != device("..")
}

/// Returns the mount points on a directory and below it, as this process sees them (proc(5), `mountinfo`).
pub(crate) fn mounts_at_or_below(directory: &Path) -> Result<Vec<PathBuf>> {
    let table = std::fs::read(TABLE).map_err(|error| Error::io("read", Path::new(TABLE), error))?;
    let points = table.split(|byte| *byte == b'\n').filter_map(|line| line.split(|byte| *byte == b' ').nth(4));
    let points = points.map(|point| crate::fs::to_path(&unescaped(point)));
    Ok(points.filter(|point| point.starts_with(directory)).collect())
}

/// Returns the uppermost mount points below an open directory, as clean paths from there.
///
/// The list decides only what is reported: [`Descent`](super::descent::Descent) enters no mount point, listed or not.
pub(crate) fn mounts_below(directory: impl AsFd) -> BTreeSet<Vec<u8>> {
    let Ok(path) = rustix::fs::readlinkat(CWD, handle(directory.as_fd()), Vec::new()) else { return BTreeSet::new() };
    let root = crate::fs::to_path(path.as_bytes());
    let points = mounts_at_or_below(&root).unwrap_or_default();
    let below = |point: &PathBuf| Some(point.strip_prefix(&root).ok()?.as_os_str().as_bytes().to_vec());
    let all: BTreeSet<Vec<u8>> = points.iter().filter_map(below).filter(|path| !path.is_empty()).collect();
    all.iter().filter(|path| !lies_below_any(path, &all)).cloned().collect()
}

/// Whether one of the directories above a path is in the set.
fn lies_below_any(path: &[u8], set: &BTreeSet<Vec<u8>>) -> bool {
    let slashes = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
    slashes.into_iter().any(|end| set.contains(&path[..end]))
}

/// Undoes the kernel's escapes: blanks and some other characters are written as `\` and three octal digits.
fn unescaped(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        let digits = after.get(..3).filter(|digits| *first == b'\\' && digits.iter().all(|d| (b'0'..b'8').contains(d)));
        match digits {
            Some(digits) => {
                bytes.push(digits.iter().fold(0_u8, |byte, digit| byte.wrapping_mul(8).wrapping_add(digit - b'0')));
                rest = &after[3..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use rustix::fs::Mode;
    use rustix::fs::OFlags;

    use super::*;

    #[test]
    fn mounts_are_known_by_their_device_too() {
        let scratch = tempfile::tempdir().unwrap();
        for (path, is_one) in
            [(Path::new("/proc"), true), (Path::new("/proc/sys/kernel"), false), (scratch.path(), false)]
        {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::PATH;
            let directory = rustix::fs::openat(CWD, path, flags, Mode::empty()).unwrap();
            let found = (is_mount(&directory), is_on_another_device(&directory));
            assert_eq!(found, (is_one, is_one), "{}", path.display());
        }
    }

    /// Inodes of both system calls are compared with each other.
    #[test]
    fn status_has_the_inode_and_time_that_fstat_reports() {
        let scratch = tempfile::tempdir().unwrap();
        for path in [Path::new("/proc"), Path::new("/dev"), scratch.path()] {
            let directory = std::fs::File::open(path).unwrap();
            let (status, stat) = (DirStatus::of(&directory).unwrap(), rustix::fs::fstat(&directory).unwrap());
            assert_eq!(status.inode, Inode::of(&stat), "{}", path.display());
            assert_eq!(status.mode, stat.st_mode & 0o7777, "{}", path.display());
            let modified = (status.modified.tv_sec, status.modified.tv_nsec);
            assert_eq!(modified, (stat.st_mtime, stat.st_mtime_nsec as i64), "{}", path.display());
        }
    }

    #[test]
    fn mount_points_are_read_as_the_kernel_writes_them() {
        assert_eq!(unescaped(b"/a\\040b\\134c\\"), b"/a b\\c\\");
        let found = mounts_at_or_below(Path::new("/proc")).unwrap();
        assert_eq!(found.first().map(PathBuf::as_path), Some(Path::new("/proc")));
    }

    #[test]
    fn only_uppermost_mount_points_are_listed() {
        let set: BTreeSet<Vec<u8>> = [&b"a"[..], b"a/b", b"a/b/c", b"ab"].map(<[u8]>::to_vec).into();
        let uppermost: Vec<&[u8]> = set.iter().map(Vec::as_slice).filter(|path| !lies_below_any(path, &set)).collect();
        assert_eq!(uppermost, [&b"a"[..], b"ab"]);
    }
}
