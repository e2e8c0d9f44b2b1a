//! What a layer for overlayfs has to have of the layers below: directories that it only passes through, with the
//! attributes that they have there, and files that it gives one more name.

use std::os::fd::AsFd;

use rustix::fs::FileType;
use rustix::fs::Mode;
use rustix::fs::OFlags;

use crate::changeset::attributes;
use crate::changeset::attributes::Made;
use crate::changeset::course::Passage;
use crate::changeset::ground::Ground;
use crate::changeset::overlay::Found;
use crate::changeset::overlay::Seen;
use crate::changeset::whiteout::join;
use crate::changeset::whiteout::split;
use crate::error::Result;
use crate::fs::rooted::Folder;
use crate::fs::rooted::Turn;

impl Ground {
    /// What the way to `name` in `folder` goes on with where this layer has nothing: what lies below.
    pub(super) fn turn_below(&mut self, folder: &Folder, name: &[u8], passage: &mut Passage) -> Result<Option<Turn>> {
        let Some(overlay) = &self.overlay else { return Ok(None) };
        if passage.depth_of(folder.path()).is_none() {
            *passage = Passage::at(overlay, folder.path(), self.covered_from(folder.path())?)?;
        }
        let found = passage.look(folder.path(), name)?;
        if let Some(link) = found.as_ref().filter(|found| found.kind() == FileType::Symlink) {
            return link.target().map(|target| Some(Turn::Link(target)));
        }
        // Whatever it is, a directory will be there.
        passage.enter(name);
        match found {
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
        let Some(overlay) = &self.overlay else { return Ok(path) };
        if matches!(overlay.in_layer(&self.rooted, &path)?, Seen::Nothing)
            && !self.is_covered(&parent)?
            && let Some(found) = overlay.below(&path)?
            && found.kind() != FileType::Directory
        {
            self.copy_node(&parent, name, &found)?;
        }
        Ok(path)
    }

    fn copy_directory(&mut self, folder: &Folder, name: &[u8], found: &Found) -> Result<()> {
        let parent = self.enter_again(folder)?;
        self.make_directory(&parent, name)?;
        let (directory, inode) = self.open_directory(&parent, name)?;
        found.copy_owner_and_xattrs(&Made::new(&directory)).map_err(|error| found.fail(error))?;
        self.inherits |= attributes::hands_on(directory.as_fd());
        self.is_new(inode);
        self.note(inode, folder.join(name), found.stat.st_mode & 0o7777, found.mtime())
    }

    /// Copies what is no directory, to have one more name for it here.
    fn copy_node(&mut self, parent: &[u8], name: &[u8], found: &Found) -> Result<()> {
        let parent = self.parent(parent)?;
        let kind = found.kind();
        let target = if kind == FileType::Symlink { found.target()? } else { Vec::new() };
        let node = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let ((copy, path_only), _) = self.make(&parent, name, |folder| match kind {
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
        let fail = |error| found.fail(error);
        let copy = if path_only { copy } else { found.copy_content(copy)? };
        let made = if path_only { Made::path_only(&copy) } else { Made::new(&copy) };
        if self.inherits {
            made.drop_inherited();
        }
        found.copy_owner_and_xattrs(&made).map_err(fail)?;
        if kind != FileType::Symlink {
            made.set_mode(found.stat.st_mode & 0o7777).map_err(fail)?;
        }
        made.set_times(found.mtime()).map_err(fail)
    }
}
