//! A layer as overlayfs wants it in `lowerdir`: what it removes is marked, not removed.
//!
//! What lies below is looked at, if it is known: links lead where they lead there, and nothing is marked as removed
//! that is not there. On ground that is not for overlayfs nothing of this is done.

use std::os::fd::AsFd;

use rustix::fs::FileType;
use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::fs::XattrFlags;
use rustix::io::Errno;

use crate::changeset::course::Course;
use crate::changeset::ground::Ground;
use crate::changeset::ground::Parent;
use crate::changeset::overlay::Found;
use crate::changeset::overlay::Overlay;
use crate::changeset::overlay::Seen;
use crate::changeset::whiteout::join;
use crate::changeset::whiteout::split;
use crate::error::Result;
use crate::fs::remove::handle;
use crate::fs::rooted::Inode;
use crate::fs::rooted::MAX_LINKS;
use crate::fs::rooted::push;

impl Ground {
    /// Marks what lies below at a path as removed.
    pub(super) fn whiteout(&mut self, path: &[u8]) -> Result<()> {
        let (parent, name) = split(path);
        let Some(parent) = self.resolve(parent)? else { return Ok(()) };
        let path = join(&parent, name);
        let Some(overlay) = self.overlay.as_deref().filter(|_| can_be(&path)) else { return Ok(()) };
        let is_gone = overlay.knows_below() && overlay.below(&path)?.is_none();
        if self.is_blocked(&parent)? {
            return Ok(());
        }
        if is_gone {
            // What this layer only passes through may be there.
            let Some(parent) = self.existing(&parent)? else { return Ok(()) };
            return self.hide(&parent, Some(name));
        }
        let parent = self.parent(&parent)?;
        if self.is_covered(parent.folder.path())? {
            return Ok(());
        }
        // What was copied from below goes too; what this layer made stays.
        self.hide(&parent, Some(name))?;
        match self.look(&parent.folder, name)? {
            Some(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => self.cover(&parent, name),
            Some(_) => Ok(()),
            None => self.mark_removed(&parent, name),
        }
    }

    /// Makes a directory hide what lies below it.
    pub(super) fn opaque(&mut self, path: &[u8]) -> Result<()> {
        let Some(path) = self.resolve(path)? else { return Ok(()) };
        let Some(overlay) = self.overlay.as_deref().filter(|_| can_be(&path)) else { return Ok(()) };
        if path.is_empty() && overlay.knows_below() {
            // overlayfs looks for the attribute everywhere but at the root.
            let root = self.parent(b"")?.inode;
            return if self.is_emptied(root) { Ok(()) } else { self.empty_root(root) };
        }
        let is_directory = |found: Found| found.kind() == FileType::Directory;
        let is_gone = overlay.knows_below() && !overlay.below(&path)?.is_some_and(is_directory);
        if self.is_blocked(&path)? {
            return Ok(());
        }
        if is_gone {
            let Some(directory) = self.existing(&path)? else { return Ok(()) };
            return self.hide(&directory, None);
        }
        let directory = self.parent(&path)?;
        let Some(overlay) = &self.overlay else { return Ok(()) };
        overlay
            .make_opaque(&directory.folder)
            .map_err(|error| self.rooted.error("set an attribute of", &path, error))?;
        self.hide(&directory, None)
    }

    /// Marks each name that the layers below have in their roots as removed.
    fn empty_root(&mut self, root: Inode) -> Result<()> {
        let names = self.overlay.as_deref().map(Overlay::names_below).transpose()?.unwrap_or_default();
        names.iter().try_for_each(|name| self.whiteout(name))?;
        self.set_emptied(root);
        Ok(())
    }

    /// Makes a directory hide what lies below it: something else of its name did, in this layer.
    pub(super) fn cover(&mut self, parent: &Parent, name: &[u8]) -> Result<()> {
        let Some(overlay) = &self.overlay else { return Ok(()) };
        let child = parent.folder.child(name).and_then(|folder| overlay.make_opaque(&folder));
        child.map_err(|error| self.error("set an attribute of", parent, name, error))
    }

    /// A device 0/0, which everyone may make since Linux 5.8; where it is refused, an empty file with an attribute.
    fn mark_removed(&mut self, parent: &Parent, name: &[u8]) -> Result<()> {
        let device = FileType::CharacterDevice;
        let (made, _) =
            self.make(parent, name, |folder| match rustix::fs::mknodat(folder, name, device, Mode::empty(), 0) {
                Err(Errno::PERM) => Ok(false),
                result => result.map(|()| true),
            })?;
        if made {
            return Ok(());
        }
        let Some(overlay) = &self.overlay else { return Ok(()) };
        let (mark, directory) = (overlay.attribute("whiteout"), overlay.attribute("opaque"));
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let (file, _) =
            self.make(parent, name, |folder| rustix::fs::openat(folder, name, flags, Mode::RUSR | Mode::WUSR))?;
        let fail = |error| self.error("mark as removed", parent, name, error);
        rustix::fs::fsetxattr(&file, mark, b"y", XattrFlags::empty()).map_err(fail)?;
        // "There are marks in here" (Linux 6.7).
        rustix::fs::setxattr(handle(parent.as_fd()), directory, b"x", XattrFlags::empty()).map_err(fail)
    }

    /// The path to a directory with links resolved as they are seen through all layers; what is missing is taken for
    /// a directory. None if it leads in circles.
    pub(super) fn resolve(&self, path: &[u8]) -> Result<Option<Vec<u8>>> {
        let Some(overlay) = &self.overlay else { return Ok(None) };
        let mut course = Course::new(overlay, Some(&self.rooted))?;
        let mut links = 0;
        let mut ahead: Vec<Vec<u8>> = Vec::new();
        push(&mut ahead, path);
        while let Some(name) = ahead.pop() {
            if name == b".." {
                course.leave_to(course.depth().saturating_sub(1))?;
                continue;
            }
            match course.look(&name)? {
                Some(found) if found.kind() == FileType::Symlink => {
                    if links == MAX_LINKS {
                        return Ok(None);
                    }
                    links += 1;
                    let target = found.target()?;
                    if target.starts_with(b"/") {
                        course.leave_to(0)?;
                    }
                    push(&mut ahead, &target);
                }
                _ => course.enter(&name),
            }
        }
        Ok(Some(course.path()))
    }

    /// Whether this layer has something at a path, or on the way to it, that is no directory.
    fn is_blocked(&self, path: &[u8]) -> Result<bool> {
        let Some(overlay) = &self.overlay else { return Ok(false) };
        if path.is_empty() {
            return Ok(false);
        }
        Ok(match overlay.in_layer(&self.rooted, path)? {
            Seen::Here(found) => found.kind() != FileType::Directory,
            Seen::Hidden => true,
            Seen::Nothing => false,
        })
    }

    /// Whether this layer hides all that lies below a directory.
    pub(super) fn is_covered(&self, path: &[u8]) -> Result<bool> {
        Ok(self.covered_from(path)?.is_some())
    }

    /// How many names the path of the first directory has, on the way to this one, below which this layer hides all.
    pub(super) fn covered_from(&self, path: &[u8]) -> Result<Option<usize>> {
        let Some(overlay) = &self.overlay else { return Ok(None) };
        let mut here = self.rooted.root()?;
        if overlay.is_opaque(&here) {
            return Ok(Some(0));
        }
        for (n, name) in path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()).enumerate() {
            match here.child(name) {
                Ok(child) => here = child,
                Err(Errno::NOENT | Errno::NAMETOOLONG) => return Ok(None),
                Err(error) => return Err(self.rooted.error("open", path, error)),
            }
            if overlay.is_opaque(&here) {
                return Ok(Some(n + 1));
            }
        }
        Ok(None)
    }
}

/// Whether anything can have this path: no name is longer (`NAME_MAX`).
fn can_be(path: &[u8]) -> bool {
    path.split(|byte| *byte == b'/').all(|name| name.len() <= 255)
}
