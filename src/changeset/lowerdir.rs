//! A layer as overlayfs wants it in `lowerdir`: what it removes is marked, not removed.
//!
//! What lies below is looked at, if it is known: links lead where they lead there, and nothing is marked as removed
//! that is not there. On ground that is not for overlayfs nothing of this is done.

use std::os::fd::AsFd;

use rustix::fs::AtFlags;
use rustix::fs::FileType;
use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::fs::XattrFlags;
use rustix::io::Errno;

use crate::changeset::attributes;
use crate::changeset::attributes::Made;
use crate::changeset::course::Course;
use crate::changeset::course::Own;
use crate::changeset::ground::Ground;
use crate::changeset::ground::Parent;
use crate::changeset::overlay::Overlay;
use crate::changeset::overlay::is_own;
use crate::changeset::overlay::mtime;
use crate::changeset::tape::Timestamp;
use crate::changeset::trail::Route;
use crate::changeset::trail::Trail;
use crate::changeset::whiteout::split;
use crate::error::Result;
use crate::fs::remove;
use crate::fs::remove::handle;
use crate::fs::rooted::Inode;

impl Ground {
    /// Marks what lies below at a path as removed.
    pub(super) fn whiteout(&mut self, path: &[u8]) -> Result<()> {
        let (parent, name) = split(path);
        let Some(parent) = self.resolve(parent)? else { return Ok(()) };
        if !can_be(&parent) || !can_be(name) {
            return Ok(());
        }
        let Some(course) = &mut self.course else { return Ok(()) };
        let is_gone = self.overlay.as_deref().is_some_and(Overlay::knows_below) && course.look_below(name)?.is_none();
        if is_blocked(course.here()?) {
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
        let Some(overlay) = self.overlay.clone().filter(|_| can_be(&path)) else { return Ok(()) };
        if path.is_empty() && overlay.knows_below() {
            // overlayfs looks for the attribute everywhere but at the root.
            let root = self.parent(b"")?.inode;
            return if self.is_emptied(root) { Ok(()) } else { self.empty_root(root) };
        }
        let Some(course) = &mut self.course else { return Ok(()) };
        let is_gone = overlay.knows_below() && !course.is_directory_below()?;
        if is_blocked(course.here()?) {
            return Ok(());
        }
        if is_gone {
            let Some(directory) = self.existing(&path)? else { return Ok(()) };
            return self.hide(&directory, None);
        }
        let directory = self.parent(&path)?;
        overlay
            .make_opaque(&directory.folder)
            .map_err(|error| self.rooted.error("set an attribute of", &path, error))?;
        self.covered(directory.folder.path());
        self.hide(&directory, None)
    }

    /// Marks each name that the layers below have in their roots as removed.
    fn empty_root(&mut self, root: Inode) -> Result<()> {
        let names = self.names_below()?;
        names.iter().try_for_each(|name| self.whiteout(name))?;
        self.set_emptied(root);
        self.is_bare = true;
        Ok(())
    }

    /// The names in the roots of the layers below, except whiteouts.
    fn names_below(&self) -> Result<Vec<Vec<u8>>> {
        let mut names = Vec::new();
        for layer in self.course.as_ref().map(Course::roots_below).unwrap_or_default() {
            let fail = |error| layer.error("list", b"", error);
            let root = layer.root()?;
            let listed = remove::open_listed(root.as_fd(), b".").map_err(fail)?;
            for entry in rustix::fs::Dir::new(listed).map_err(fail)? {
                let entry = entry.map_err(fail)?;
                let name = entry.file_name().to_bytes();
                let is_whiteout = entry.file_type() == FileType::CharacterDevice
                    && rustix::fs::statat(&root, name, AtFlags::SYMLINK_NOFOLLOW).map_err(fail)?.st_rdev == 0;
                if !matches!(name, b"." | b"..") && !is_whiteout {
                    names.push(name.to_vec());
                }
            }
        }
        names.sort_unstable();
        names.dedup();
        Ok(names)
    }

    /// Gives a new root the owner and the attributes that it has in the layers below, as far as these are known. Returns
    /// its mode and time there.
    pub(super) fn copy_root(&mut self, made: &Made<'_>) -> Result<Option<(u32, Timestamp)>> {
        let Some(course) = &self.course else { return Ok(None) };
        let Some((top, root)) = course.top()? else { return Ok(None) };
        let copied = rustix::fs::fstat(&root).and_then(|stat| {
            let attributes = attributes::copy_owner_and_xattrs(root.as_fd(), &stat, made, is_own)?;
            Ok((attributes, stat.st_mode & 0o7777, mtime(&stat)))
        });
        let (attributes, mode, mtime) = copied.map_err(|error| top.error("copy the attributes of", b"", error))?;
        self.budget.claim(attributes)?;
        Ok(Some((mode, mtime)))
    }

    /// Makes a directory hide what lies below it: something else of its name did, in this layer.
    pub(super) fn cover(&mut self, parent: &Parent, name: &[u8]) -> Result<()> {
        let Some(overlay) = &self.overlay else { return Ok(()) };
        let child = parent.folder.child(name).and_then(|folder| overlay.make_opaque(&folder));
        child.map_err(|error| self.error("set an attribute of", parent, name, error))?;
        self.covered(&parent.folder.join(name));
        Ok(())
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

    /// Returns the path to a directory with its links resolved as they are seen through all layers; what is missing is taken
    /// for a directory. None if it leads in circles. Else the cursor stands there.
    pub(super) fn resolve(&mut self, path: &[u8]) -> Result<Option<Vec<u8>>> {
        let Some(course) = &mut self.course else { return Ok(None) };
        if let Some(route) = self.route.as_ref().filter(|route| route.path == path) {
            course.go_to(&route.real);
            return Ok(Some(route.real.clone()));
        }
        let mut trail = Trail::default();
        let real = course.resolve(path, &mut trail, &mut |steps| self.budget.follow_link(steps))?;
        if let Some(real) = real.as_ref().filter(|_| trail.has_links) {
            self.route = Some(Route::new(path, real, false, trail));
        }
        Ok(real)
    }

    /// Whether this layer hides all that lies below a directory.
    pub(super) fn is_covered(&mut self, path: &[u8]) -> Result<bool> {
        let Some(course) = &mut self.course else { return Ok(false) };
        course.go_to(path);
        Ok(course.here()?.1)
    }
}

/// Whether the layer at hand has something that is not a directory at a path or on the way to it, or nothing below a
/// directory that hides what lies below.
fn is_blocked((own, covered): (Own, bool)) -> bool {
    own == Own::Blocked || own == Own::Absent && covered
}

/// Whether anything can have this path: no name is longer (`NAME_MAX`).
fn can_be(path: &[u8]) -> bool {
    path.split(|byte| *byte == b'/').all(|name| name.len() <= 255)
}
