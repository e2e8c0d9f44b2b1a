//! Finds the files of an unpacked tree that give other users of the machine rights that they do not have: setuid
//! programs, programs with capabilities, and devices.

use std::collections::BTreeMap;
use std::collections::HashSet;
use std::os::fd::AsFd;

use rustix::fs::AtFlags;
use rustix::fs::FileType;
use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::fs::Stat;

use crate::changeset::attributes;
use crate::changeset::report::Exposed;
use crate::changeset::report::ExposedKind;
use crate::changeset::report::to_path;
use crate::changeset::whiteout::split;
use crate::error::Result;
use crate::fs::rooted::Folder;
use crate::fs::rooted::Inode;
use crate::fs::rooted::Rooted;

/// Maximum number of files that are remembered and listed.
const MAX_EXPOSED: usize = 1_000;
/// The bits with which a program runs as its owner or group.
pub(super) const SET_ID: u32 = 0o6000;
/// The attribute with a file's capabilities.
pub(super) const CAPABILITY: &[u8] = b"security.capability";

/// Files that layers made, and that would give rights away. A later layer may have removed or changed some of them.
#[derive(Debug, Default)]
pub(super) struct Candidates {
    /// By their path from the root, without links.
    places: BTreeMap<Vec<u8>, ExposedKind>,
    /// Files with capabilities, which a look at a hard link to one does not show.
    capable: HashSet<Inode>,
    has_more: bool,
}

impl Candidates {
    /// Remembers a file that a layer made.
    pub(super) fn note(&mut self, place: Vec<u8>, kind: ExposedKind) {
        if self.places.len() < MAX_EXPOSED || self.places.contains_key(&place) {
            self.places.insert(place, kind);
        } else {
            self.has_more = true;
        }
    }

    /// Remembers a file with capabilities that a layer made.
    pub(super) fn note_capable(&mut self, place: Vec<u8>, inode: Inode) {
        if self.capable.len() < MAX_EXPOSED {
            self.capable.insert(inode);
        } else {
            self.has_more = true;
        }
        self.note(place, ExposedKind::Capabilities);
    }

    /// Remembers one more name of a file, if the file is to be remembered.
    pub(super) fn note_link(&mut self, place: impl FnOnce() -> Vec<u8>, target: &Stat) {
        let is_capable = !self.capable.is_empty() && self.capable.contains(&Inode::of(target));
        if let Some(kind) = kind_of(target).or(is_capable.then_some(ExposedKind::Capabilities)) {
            self.note(place(), kind);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// The files that are still there, and whether there may be more.
    pub(super) fn list(&self, rooted: &Rooted) -> Result<(Vec<Exposed>, bool)> {
        let mut exposed = Vec::new();
        for place in self.places.keys() {
            let (parent, name) = split(place);
            if let Some(folder) = rooted.same_folder(parent)?
                && let Some(kind) = look(&folder, name)
            {
                exposed.push(Exposed { path: to_path(place), kind });
            }
        }
        Ok((exposed, self.has_more))
    }
}

/// The right that the file `name` gives away, if it gives one.
fn look(folder: &Folder, name: &[u8]) -> Option<ExposedKind> {
    let stat = rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
    let is_capable = || {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(folder, name, flags, Mode::empty());
        let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        is_file && file.is_ok_and(|file| attributes::xattr(file.as_fd(), CAPABILITY).is_some())
    };
    kind_of(&stat).or_else(|| is_capable().then_some(ExposedKind::Capabilities))
}

/// The right that a file gives away, as far as its type and mode say it.
fn kind_of(stat: &Stat) -> Option<ExposedKind> {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile if stat.st_mode & SET_ID != 0 => Some(ExposedKind::SetId),
        FileType::CharacterDevice | FileType::BlockDevice if stat.st_rdev != 0 => Some(ExposedKind::Device),
        _ => None,
    }
}
