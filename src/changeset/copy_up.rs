//! What a layer for overlayfs has to have of the layers below: directories that it only passes through, with the
//! attributes that they have there, and files that it gives one more name.

use std::collections::HashMap;
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;

use rustix::fs::AtFlags;
use rustix::fs::FileType;
use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::fs::Stat;
use rustix::io::Errno;

use crate::changeset::attributes;
use crate::changeset::attributes::Made;
use crate::changeset::course::Own;
use crate::changeset::ground::Ground;
use crate::changeset::ground::Parent;
use crate::changeset::overlay::Found;
use crate::changeset::whiteout::join;
use crate::changeset::whiteout::split;
use crate::error::Error;
use crate::error::Limit;
use crate::error::Result;
use crate::fs::rooted::Folder;
use crate::fs::rooted::Inode;
use crate::fs::rooted::Turn;

/// Most memory that [`Copies`] takes: enough for about 100,000 files.
const MAX_COPIES_BYTES: u64 = 16 << 20;

/// The copies of lower files that have several names: a later name of such a file becomes a hard link to its copy.
#[derive(Debug, Default)]
pub(super) struct Copies {
    /// By the lower file: its copy, and the path of a name of the copy in this layer.
    by_original: HashMap<Inode, (Inode, Vec<u8>)>,
    by_copy: HashMap<Inode, Inode>,
    bytes: u64,
}

impl Copies {
    pub(super) fn is_empty(&self) -> bool {
        self.by_copy.is_empty()
    }

    fn add(&mut self, original: Inode, copy: Inode, path: Vec<u8>) -> Result<()> {
        self.bytes += size_of_entry(&path);
        self.by_copy.insert(copy, original);
        if let Some((_, replaced)) = self.by_original.insert(original, (copy, path)) {
            self.bytes -= size_of_entry(&replaced);
        }
        if self.bytes > MAX_COPIES_BYTES {
            return Err(Error::limit(Limit::ReportedBytes, MAX_COPIES_BYTES));
        }
        Ok(())
    }

    /// Notes a new name of a file, which may be a copy. It stays when a whiteout removes the name that was copied.
    pub(super) fn add_name(&mut self, file: Inode, path: Vec<u8>) -> Result<()> {
        match self.by_copy.get(&file) {
            Some(original) => self.add(*original, file, path),
            None => Ok(()),
        }
    }

    /// Forgets a node that is about to be removed, before its inode number can be used again.
    pub(super) fn forget(&mut self, removed: &Stat) {
        match FileType::from_raw_mode(removed.st_mode) {
            FileType::Directory => self.clear(),
            _ if removed.st_nlink == 1 => {
                if let Some(original) = self.by_copy.remove(&Inode::of(removed)) {
                    let removed = self.by_original.remove(&original);
                    self.bytes -= removed.map_or(0, |(_, path)| size_of_entry(&path));
                }
            }
            _ => {}
        }
    }

    /// Forgets all copies.
    pub(super) fn clear(&mut self) {
        *self = Copies::default();
    }
}

/// Bytes of memory that a copy takes in [`Copies`].
fn size_of_entry(path: &[u8]) -> u64 {
    (2 * size_of::<(Inode, Inode, Vec<u8>)>() + path.len()) as u64
}

impl Ground {
    /// Continues the way to `name` in `folder` in the lower layers, where this layer has nothing of that name.
    pub(super) fn turn_below(&mut self, folder: &Folder, name: &[u8]) -> Result<Option<Turn>> {
        let Some(course) = &mut self.course else { return Ok(None) };
        course.go_to(folder.path());
        let (_, is_covered) = course.here()?;
        let found = if is_covered { None } else { course.look_below(name)? };
        match found {
            Some(found) if found.kind() == FileType::Symlink => found.target().map(|target| Some(Turn::Link(target))),
            Some(found) if found.kind() == FileType::Directory => {
                self.copy_directory(folder, name, &found)?;
                Ok(Some(Turn::Again))
            }
            _ => Ok(None),
        }
    }

    /// The path, without links, of what a hard link names, in this layer. A file that lies below is copied first.
    pub(super) fn bring_up(&mut self, path: &[u8]) -> Result<Vec<u8>> {
        let (parent, name) = split(path);
        let Some(parent) = self.resolve(parent)? else { return Ok(path.to_vec()) };
        let path = join(&parent, name);
        let Some(course) = &mut self.course else { return Ok(path) };
        let (own, is_covered) = course.here()?;
        if own != Own::Blocked
            && !is_covered
            && !course.has_own(name)?
            && let Some(found) = course.look_below(name)?
            && found.kind() != FileType::Directory
        {
            self.copy_node(&parent, name, &found)?;
        }
        Ok(path)
    }

    fn copy_directory(&mut self, folder: &Folder, name: &[u8], found: &Found) -> Result<()> {
        let parent = self.enter_again(folder)?;
        self.budget.claim_directory()?;
        self.make_directory(&parent, name)?;
        let (directory, inode) = self.open_directory(&parent, name)?;
        let attributes = found.copy_owner_and_xattrs(&Made::new(&directory)).map_err(|error| found.fail(error))?;
        self.budget.claim(attributes)?;
        self.inherits |= attributes::hands_on(directory.as_fd());
        self.is_new(inode);
        self.note(inode, folder.join(name), found.stat.st_mode & 0o7777, found.mtime())
    }

    /// Copies a lower node that is not a directory to this layer, so that it can get one more name here. Another name of a
    /// node that was copied before becomes a hard link to that copy.
    fn copy_node(&mut self, parent: &[u8], name: &[u8], found: &Found) -> Result<()> {
        let parent = self.parent(parent)?;
        let has_names = found.stat.st_nlink > 1;
        if has_names && self.link_to_copy(&parent, name, found)? {
            return Ok(());
        }
        if found.kind() == FileType::RegularFile {
            self.budget.claim(u64::try_from(found.stat.st_size).unwrap_or(0))?;
        }
        let (copy, path_only) = self.make_node(&parent, name, found)?;
        let fail = |error| found.fail(error);
        let copy = if path_only { copy } else { found.copy_content(copy, &mut |bytes| self.budget.copied(bytes))? };
        let made = if path_only { Made::path_only(&copy) } else { Made::new(&copy) };
        if self.inherits {
            made.drop_inherited();
        }
        let attributes = found.copy_owner_and_xattrs(&made).map_err(fail)?;
        self.budget.claim(attributes)?;
        if found.kind() != FileType::Symlink {
            made.set_mode(found.stat.st_mode & 0o7777).map_err(fail)?;
        }
        made.set_times(found.mtime()).map_err(fail)?;
        if has_names {
            let copy = Inode::of(&rustix::fs::fstat(&copy).map_err(fail)?);
            self.copies.add(Inode::of(&found.stat), copy, parent.folder.join(name))?;
        }
        Ok(())
    }

    /// Makes a hard link to the copy of a lower node, if there is one and it has its name still.
    fn link_to_copy(&mut self, parent: &Parent, name: &[u8], found: &Found) -> Result<bool> {
        let Some((copy, place)) = self.copies.by_original.get(&Inode::of(&found.stat)).cloned() else {
            return Ok(false);
        };
        let (above, last) = split(&place);
        let Some(from) = self.rooted.same_folder(above)? else { return Ok(false) };
        if self.look(&from, last)?.is_none_or(|stat| Inode::of(&stat) != copy) {
            return Ok(false);
        }
        let (linked, _) =
            self.make(parent, name, |folder| match rustix::fs::linkat(&from, last, folder, name, AtFlags::empty()) {
                Err(Errno::MLINK) => Ok(false),
                result => result.map(|()| true),
            })?;
        Ok(linked)
    }

    /// Makes an empty node of the same type. Returns it, and whether it is open with `O_PATH` only.
    fn make_node(&mut self, parent: &Parent, name: &[u8], found: &Found) -> Result<(OwnedFd, bool)> {
        let kind = found.kind();
        let target = if kind == FileType::Symlink { found.target()? } else { Vec::new() };
        let node = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let (made, _) = self.make(parent, name, |folder| match kind {
            FileType::RegularFile => {
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                Ok((rustix::fs::openat(folder, name, flags, Mode::RUSR | Mode::WUSR)?, false))
            }
            FileType::Symlink => {
                rustix::fs::symlinkat(&target[..], folder, name)?;
                Ok((rustix::fs::openat(folder, name, node, Mode::empty())?, true))
            }
            kind => {
                rustix::fs::mknodat(folder, name, kind, Mode::RUSR | Mode::WUSR, found.stat.st_rdev)?;
                Ok((rustix::fs::openat(folder, name, node, Mode::empty())?, true))
            }
        })?;
        Ok(made)
    }
}
