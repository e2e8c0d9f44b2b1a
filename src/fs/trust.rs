//! Decides whether a file or directory is believed: only if no other user of the machine may change it.
//!
//! Another user can put a directory anywhere that this user may look, in the form of a working copy or of a store
//! (CVE-2022-24765, git's `safe.directory`). Callers check each directory and state file through the descriptor that they
//! then use, so that nothing can be exchanged between the check and the use.

use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::Stat;

use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;

/// The bits that let the group or others write. The group bits also show an access control list that does so.
const OTHERS_WRITE: u32 = 0o022;

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
