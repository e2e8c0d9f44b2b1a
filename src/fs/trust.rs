//! Decides whether a file or directory is believed: only if no other user of the machine may change it.
//!
//! Another user can put a directory anywhere that this user may look, in the form of a working copy or of a store
//! (CVE-2022-24765, git's `safe.directory`). Callers check each directory and state file through the descriptor that they
//! then use, so that nothing can be exchanged between the check and the use.

use std::os::fd::AsFd;
use std::path::Path;
use std::path::PathBuf;

use rustix::fs::CWD;
use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::fs::Stat;
use rustix::io::Errno;

use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::fs::remove::handle;
use crate::fs::rooted::Inode;

/// The bits that let the group or others write. The group bits also show an access control list that does so.
const OTHERS_WRITE: u32 = 0o022;
/// The bits that let the group or others enter a directory.
const OTHERS_ENTER: u32 = 0o011;

/// Why something is not believed: another user owns it, or may write to it. None if it is believed.
///
/// Root counts as trusted for every user, as root can change everything anyway.
pub(crate) fn distrust(stat: &Stat) -> Option<String> {
    let user = rustix::process::geteuid().as_raw();
    if stat.st_uid != user && stat.st_uid != 0 {
        return Some(format!("it belongs to user {}, and this process runs as user {user}", stat.st_uid));
    }
    let mode = stat.st_mode & 0o7777;
    (mode & OTHERS_WRITE != 0).then(|| format!("users other than its owner may write to it (mode {mode:04o})"))
}

/// Refuses an open file or directory that another user owns or may write to.
///
/// # Errors
///
/// [`ErrorKind::Untrusted`], with this path.
pub(crate) fn require_trusted(file: impl AsFd, path: &Path) -> Result<()> {
    let stat = rustix::fs::fstat(file).map_err(|error| Error::io("look at", path, error.into()))?;
    match distrust(&stat) {
        None => Ok(()),
        Some(reason) => Err(ErrorKind::Untrusted { path: path.to_owned(), reason }.into()),
    }
}

/// Whether users other than the effective one and root may enter an open directory. Access control lists are seen in the
/// group bits. A directory that cannot be looked at counts as open.
pub(crate) fn lets_others_in(directory: impl AsFd) -> bool {
    let Ok(stat) = rustix::fs::fstat(directory) else { return true };
    let is_own = stat.st_uid == 0 || stat.st_uid == rustix::process::geteuid().as_raw();
    !is_own || stat.st_mode & OTHERS_ENTER != 0
}

/// Whether other users may reach an open directory: it and all directories above it let them in. Directories that cannot
/// be looked at count as open.
pub(crate) fn is_open_to_others(directory: impl AsFd) -> bool {
    is_below_open_ones(directory).unwrap_or(true)
}

fn is_below_open_ones(directory: impl AsFd) -> Result<bool, Errno> {
    const ABOVE: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
    let mut here = rustix::fs::openat(directory, ".", ABOVE, Mode::empty())?;
    while lets_others_in(&here) {
        let above = rustix::fs::openat(&here, "..", ABOVE, Mode::empty())?;
        if Inode::of(&rustix::fs::fstat(&above)?) == Inode::of(&rustix::fs::fstat(&here)?) {
            return Ok(true);
        }
        here = above;
    }
    Ok(false)
}

/// Directories that the caller trusts, and all that lies below them, although another user could change it.
#[derive(Clone, Debug, Default)]
pub(crate) struct TrustedPaths(Vec<PathBuf>);

impl TrustedPaths {
    /// Adds a directory. Symbolic links on the way to it are not followed: another user could have made them.
    pub(crate) fn add(&mut self, path: &Path) {
        self.0.extend(std::path::absolute(path));
    }

    /// Refuses an open file or directory as [`require_trusted`] does, unless it lies in a directory that is trusted.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Untrusted`], with the path that [`add`](TrustedPaths::add) takes.
    pub(crate) fn require(&self, file: impl AsFd, path: &Path) -> Result<()> {
        let refused = match require_trusted(&file, path) {
            Err(error) if matches!(error.kind(), ErrorKind::Untrusted { .. }) => error,
            result => return result,
        };
        let real = rustix::fs::readlinkat(CWD, handle(file.as_fd()), Vec::new());
        let Ok(real) = real.map(|real| crate::fs::to_path(real.as_bytes())) else { return Err(refused) };
        if self.0.iter().any(|trusted| real.starts_with(trusted)) { Ok(()) } else { require_trusted(file, &real) }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn directory_that_others_may_write_is_not_trusted() {
        let scratch = tempfile::tempdir().unwrap();
        for (mode, trusted) in [(0o700, true), (0o755, true), (0o775, false), (0o757, false), (0o1777, false)] {
            std::fs::set_permissions(scratch.path(), Permissions::from_mode(mode)).unwrap();
            let checked = require_trusted(File::open(scratch.path()).unwrap(), scratch.path());
            assert_eq!(checked.is_ok(), trusted, "{mode:o}: {checked:?}");
        }
    }

    #[test]
    fn directory_below_a_closed_one_is_not_open_to_others() {
        let scratch = tempfile::tempdir().unwrap();
        let is_temporary_open = is_open_to_others(File::open(std::env::temp_dir()).unwrap());
        let below = scratch.path().join("a/b");
        std::fs::create_dir_all(&below).unwrap();
        std::fs::set_permissions(&below, Permissions::from_mode(0o755)).unwrap();
        for (mode, is_open) in [(0o700, false), (0o755, true), (0o710, true), (0o744, false), (0o701, true)] {
            std::fs::set_permissions(scratch.path().join("a"), Permissions::from_mode(mode)).unwrap();
            std::fs::set_permissions(scratch.path(), Permissions::from_mode(0o755)).unwrap();
            assert_eq!(is_open_to_others(File::open(&below).unwrap()), is_open && is_temporary_open, "{mode:o}");
        }
        std::fs::set_permissions(scratch.path(), Permissions::from_mode(0o700)).unwrap();
        assert!(!is_open_to_others(File::open(&below).unwrap()));
    }

    #[test]
    fn directory_is_trusted_where_the_caller_says_so() {
        let scratch = tempfile::tempdir().unwrap();
        let below = scratch.path().join("below");
        std::fs::create_dir(&below).unwrap();
        std::fs::set_permissions(&below, Permissions::from_mode(0o777)).unwrap();
        std::os::unix::fs::symlink(&below, scratch.path().join("link")).unwrap();
        for (path, trusted) in
            [("", true), ("below", true), (".", true), ("bel", false), ("below/deeper", false), ("link", false)]
        {
            let mut paths = TrustedPaths::default();
            paths.add(&scratch.path().join(path));
            let checked = paths.require(File::open(&below).unwrap(), &below);
            assert_eq!(checked.is_ok(), trusted, "{path}: {checked:?}");
        }
    }

    #[test]
    fn directory_of_another_user_is_not_trusted() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let scratch = tempfile::tempdir().unwrap();
        std::os::unix::fs::chown(scratch.path(), Some(65534), Some(65534)).unwrap();
        let error = require_trusted(File::open(scratch.path()).unwrap(), scratch.path()).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Untrusted { .. }), "{error}");
        assert!(error.to_string().contains("it belongs to user 65534"), "{error}");
    }
}
