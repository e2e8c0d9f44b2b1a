//! File systems that take two names for one: `README` and `readme`, or two spellings of `é`.
//!
//! A layer may have both. Where the file system has room for one only, that is an error, and not one file with the
//! other's content. The root is tried out once; only where it folds names is each of them looked at.

use rustix::fs::AtFlags;
use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::error::ErrorKind;
use crate::error::Result;
use crate::fs::random_name;
use crate::fs::rooted::Folder;
use crate::fs::rooted::Rooted;
use crate::fs::to_path;

/// How the name of a probe ends, and what that may be taken for.
const PROBE: &str = "Probe-\u{e9}";
const SPELLINGS: [&str; 2] = ["pROBE-\u{e9}", "Probe-e\u{301}"];

/// Whether the file system folds names.
pub(super) fn folds(root: &Folder) -> Result<bool, Errno> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    // A layer may have directories of any name.
    let random = random_name();
    let name = |end: &str| format!(".wh..layercake-{random}-{end}");
    match rustix::fs::openat(root, name(PROBE), flags, Mode::RUSR) {
        Ok(_) => {}
        // It does not even know the letters; or may not be written at all, which will be said of something better.
        Err(_) => return Ok(false),
    }
    let found = |end: &str| rustix::fs::statat(root, name(end), AtFlags::SYMLINK_NOFOLLOW).is_ok();
    let folds = SPELLINGS.iter().any(|end| found(end));
    rustix::fs::unlinkat(root, name(PROBE), AtFlags::empty())?;
    Ok(folds)
}

/// Whether the directory has this very name.
pub(super) fn has_exactly(folder: &Folder, name: &[u8]) -> Result<bool, Errno> {
    Ok(other_spelling(folder, name)?.is_none())
}

/// Fails if the name is there, but spelled differently.
pub(super) fn check(rooted: &Rooted, folder: &Folder, name: &[u8]) -> Result<()> {
    let path = folder.join(name);
    match other_spelling(folder, name) {
        Ok(None) => Ok(()),
        Ok(Some(other)) => {
            let existing = to_path(&folder.join(&other));
            Err(ErrorKind::Collision { path: to_path(&path), existing }.into())
        }
        Err(error) => Err(rooted.error("list", &path, error)),
    }
}

/// The name that the file system takes this one for, if it is another.
fn other_spelling(folder: &Folder, name: &[u8]) -> Result<Option<Vec<u8>>, Errno> {
    let Ok(stat) = rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) else { return Ok(None) };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let listed = rustix::fs::openat(folder, ".", flags, Mode::empty())?;
    let mut same = None;
    for entry in rustix::fs::Dir::new(listed)? {
        let entry = entry?;
        let found = entry.file_name().to_bytes();
        if found == name {
            return Ok(None);
        }
        if entry.ino() == stat.st_ino {
            same = Some(found.to_vec());
        }
    }
    Ok(Some(same.unwrap_or_default()))
}
