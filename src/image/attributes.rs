//! What is said of a thing, so far as it tells two things apart.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use crate::changeset::Entry;
use crate::changeset::EntryKind;
use crate::changeset::Timestamp;
use crate::changeset::captured;
use crate::digest::Algorithm;
use crate::digest::Digest;
use crate::digest::Hasher;

/// Attributes as a tree has them that the layers were unpacked to (C3). Of equal ones, all that counts is equal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Attributes {
    mode: u32,
    uid: u32,
    gid: u32,
    /// Of a directory that of 1970: its own is no matter.
    pub(super) mtime: Timestamp,
    /// Stands for those that count: they may be long.
    xattrs: Option<Box<Digest>>,
}

impl Attributes {
    /// Those of a directory that no layer describes (L11).
    pub(super) fn implied() -> Attributes {
        Attributes { mode: 0o755, uid: 0, gid: 0, mtime: Timestamp::default(), xattrs: None }
    }

    pub(super) fn of(entry: &Entry<'_>) -> Attributes {
        let mtime = match entry.kind() {
            EntryKind::Directory => Timestamp::default(),
            _ => entry.modified(),
        };
        let mode = match entry.kind() {
            // Linux knows no other mode of symbolic links.
            EntryKind::Symlink { .. } => 0o777,
            _ => entry.mode(),
        };
        Attributes { mode, uid: entry.uid(), gid: entry.gid(), mtime, xattrs: xattrs(entry).map(Box::new) }
    }
}

fn xattrs(entry: &Entry<'_>) -> Option<Digest> {
    // Nothing else can have users' attributes (xattr(7)).
    let may_have_users = matches!(entry.kind(), EntryKind::File | EntryKind::Directory);
    let can_be = |name: &OsStr| may_have_users || !name.as_bytes().starts_with(b"user.");
    let found = entry.xattrs().filter(|(name, _)| can_be(name));
    let mut counted: Vec<_> = found.filter_map(|(name, value)| captured(name.as_bytes(), value)).collect();
    if counted.is_empty() {
        return None;
    }
    counted.sort_unstable();
    let mut hasher = Hasher::new(Algorithm::Sha256);
    for text in counted.iter().flat_map(|(name, value)| [name, value]) {
        hasher.update(&(text.len() as u64).to_le_bytes());
        hasher.update(text);
    }
    Some(hasher.finish())
}
