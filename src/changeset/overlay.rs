//! A layer as overlayfs wants it in `lowerdir`: what it removes is marked, not removed.
//!
//! What lies below is looked at, if it is known: directories that the layer only passes through get the attributes
//! that they have there, links lead where they lead there, and nothing is marked as removed that is not there.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;

use rustix::fs::AtFlags;
use rustix::fs::FileType;
use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::fs::Stat;
use rustix::fs::XattrFlags;
use rustix::io::Errno;

use crate::changeset::attributes;
use crate::changeset::attributes::Made;
use crate::changeset::ground::Ground;
use crate::changeset::ground::Parent;
use crate::changeset::tape::Timestamp;
use crate::changeset::whiteout::join;
use crate::changeset::whiteout::split;
use crate::error::Error;
use crate::error::Result;
use crate::fs::remove::handle;
use crate::fs::rooted::Folder;
use crate::fs::rooted::MAX_LINKS;
use crate::fs::rooted::Rooted;
use crate::fs::rooted::Turn;
use crate::fs::rooted::push;

/// Where overlayfs looks for its own extended attributes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Namespace {
    Trusted,
    /// For mounts with the option `userxattr`.
    User,
}

/// What there is to know of the layers below, topmost first.
#[derive(Debug)]
pub(super) struct Overlay {
    namespace: Namespace,
    lower: Option<Vec<Rooted>>,
}

/// Something in a layer.
pub(super) struct Found {
    folder: Folder,
    name: Vec<u8>,
    stat: Stat,
}

/// What one layer says of a path.
enum Seen {
    Here(Found),
    /// Whatever lies below is not visible.
    Hidden,
    Nothing,
}

impl Overlay {
    pub(super) fn new(namespace: Namespace, lower: Option<Vec<Rooted>>) -> Overlay {
        Overlay { namespace, lower }
    }

    /// Whether there is anything to know of the layers below.
    pub(super) fn knows_below(&self) -> bool {
        self.lower.is_some()
    }

    fn attribute(&self, name: &str) -> String {
        match self.namespace {
            Namespace::Trusted => format!("trusted.overlay.{name}"),
            Namespace::User => format!("user.overlay.{name}"),
        }
    }

    fn is_opaque(&self, folder: &Folder) -> bool {
        attributes::xattr(folder.as_fd(), self.attribute("opaque").as_bytes()).is_some_and(|value| value == b"y")
    }

    fn make_opaque(&self, folder: &Folder) -> Result<(), Errno> {
        rustix::fs::setxattr(handle(folder.as_fd()), self.attribute("opaque"), b"y", XattrFlags::empty())
    }

    /// Whether what has this name in a layer says that what lies below is removed.
    pub(super) fn is_whiteout(&self, folder: &Folder, name: &[u8], stat: &Stat) -> bool {
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::CharacterDevice => stat.st_rdev == 0,
            FileType::RegularFile if stat.st_size == 0 => {
                let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let opened = rustix::fs::openat(folder, name, flags, Mode::empty());
                let attribute = self.attribute("whiteout");
                opened.is_ok_and(|fd| attributes::xattr(fd.as_fd(), attribute.as_bytes()).is_some())
            }
            _ => false,
        }
    }

    /// What the layers below have at a path in which nothing is a link.
    fn below(&self, path: &[u8]) -> Result<Option<Found>> {
        for layer in self.lower.iter().flatten() {
            match self.in_layer(layer, path)? {
                Seen::Here(found) => return Ok(Some(found)),
                Seen::Hidden => return Ok(None),
                Seen::Nothing => {}
            }
        }
        Ok(None)
    }

    fn in_layer(&self, layer: &Rooted, path: &[u8]) -> Result<Seen> {
        let fail = |error| layer.error("look at", path, error);
        let mut here = layer.root()?;
        let mut opaque = false;
        let mut components = path.split(|byte| *byte == b'/').peekable();
        while let Some(name) = components.next() {
            let stat = match rustix::fs::statat(&here, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(Errno::NOENT) if opaque => return Ok(Seen::Hidden),
                Err(Errno::NOENT) => return Ok(Seen::Nothing),
                Err(error) => return Err(fail(error)),
            };
            if self.is_whiteout(&here, name, &stat) {
                return Ok(Seen::Hidden);
            }
            if components.peek().is_none() {
                return Ok(Seen::Here(Found { folder: here, name: name.to_vec(), stat }));
            }
            if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
                return Ok(Seen::Hidden);
            }
            here = here.child(name).map_err(fail)?;
            opaque |= self.is_opaque(&here);
        }
        Ok(Seen::Nothing)
    }

    /// The names in the roots of the layers below.
    fn names_below(&self) -> Result<Vec<Vec<u8>>> {
        let mut names = Vec::new();
        for layer in self.lower.iter().flatten() {
            let fail = |error| layer.error("list", b"", error);
            names.extend(list(&layer.root()?).map_err(fail)?);
        }
        names.sort_unstable();
        names.dedup();
        Ok(names)
    }
}

/// What a layer does, on the ground that it is written to.
impl Overlay {
    /// What the way to `name` in `folder` goes on with where this layer has nothing: what lies below.
    pub(super) fn from_below(ground: &mut Ground, folder: &Folder, name: &[u8]) -> Result<Option<Turn>> {
        let Some(overlay) = &ground.overlay else { return Ok(None) };
        if Overlay::is_covered(ground, folder.path())? {
            return Ok(None);
        }
        let Some(found) = overlay.below(&folder.join(name))? else { return Ok(None) };
        match FileType::from_raw_mode(found.stat.st_mode) {
            FileType::Directory => {
                copy_directory(ground, folder, name, &found)?;
                Ok(Some(Turn::Again))
            }
            FileType::Symlink => found.target().map(|target| Some(Turn::Link(target))),
            _ => Ok(None),
        }
    }

    /// Makes a directory hide what lies below it: something else of its name did, in this layer.
    pub(super) fn cover(ground: &mut Ground, parent: &Parent, name: &[u8]) -> Result<()> {
        let Some(overlay) = &ground.overlay else { return Ok(()) };
        let child = parent.folder.child(name).and_then(|folder| overlay.make_opaque(&folder));
        child.map_err(|error| ground.error("set an attribute of", parent, name, error))
    }

    /// Marks what lies below at a path as removed.
    pub(super) fn whiteout(ground: &mut Ground, path: &[u8]) -> Result<()> {
        let (parent, name) = split(path);
        let Some(parent) = Overlay::resolve(ground, parent)? else { return Ok(()) };
        let path = join(&parent, name);
        let Some(overlay) = &ground.overlay else { return Ok(()) };
        let is_gone = overlay.lower.is_some() && overlay.below(&path)?.is_none();
        if is_gone || Overlay::is_blocked(ground, &parent)? {
            return Ok(());
        }
        let parent = ground.parent(&parent)?;
        if Overlay::is_covered(ground, parent.folder.path())? {
            return Ok(());
        }
        // What was copied from below goes too; what this layer made stays.
        ground.hide(&parent, Some(name))?;
        match ground.look(&parent.folder, name)? {
            Some(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
                Overlay::cover(ground, &parent, name)
            }
            Some(_) => Ok(()),
            None => mark_removed(ground, &parent, name),
        }
    }

    /// Makes a directory hide what lies below it.
    pub(super) fn opaque(ground: &mut Ground, path: &[u8]) -> Result<()> {
        let Some(path) = Overlay::resolve(ground, path)? else { return Ok(()) };
        let Some(overlay) = &ground.overlay else { return Ok(()) };
        if path.is_empty() && overlay.lower.is_some() {
            // overlayfs looks for the attribute everywhere but at the root.
            let names = overlay.names_below()?;
            return names.iter().try_for_each(|name| Overlay::whiteout(ground, name));
        }
        let is_directory = |found: Found| FileType::from_raw_mode(found.stat.st_mode) == FileType::Directory;
        let is_gone = overlay.lower.is_some() && !overlay.below(&path)?.is_some_and(is_directory);
        if is_gone || Overlay::is_blocked(ground, &path)? {
            return Ok(());
        }
        let directory = ground.parent(&path)?;
        let Some(overlay) = &ground.overlay else { return Ok(()) };
        overlay
            .make_opaque(&directory.folder)
            .map_err(|error| ground.rooted.error("set an attribute of", &path, error))?;
        ground.hide(&directory, None)
    }

    /// The path, without links, of what a hard link names, in this layer. A file that lies below is copied first.
    pub(super) fn bring_up(ground: &mut Ground, path: &[u8]) -> Result<Vec<u8>> {
        let (parent, name) = split(path);
        let Some(parent) = Overlay::resolve(ground, parent)? else { return Ok(path.to_vec()) };
        let path = join(&parent, name);
        let Some(overlay) = &ground.overlay else { return Ok(path) };
        if matches!(overlay.in_layer(&ground.rooted, &path)?, Seen::Nothing)
            && !Overlay::is_covered(ground, &parent)?
            && let Some(found) = overlay.below(&path)?
            && FileType::from_raw_mode(found.stat.st_mode) != FileType::Directory
        {
            copy_node(ground, &parent, name, &found)?;
        }
        Ok(path)
    }

    /// The path to a directory with links resolved as they are seen through all layers; what is missing is taken for
    /// a directory. None if it leads in circles.
    fn resolve(ground: &Ground, path: &[u8]) -> Result<Option<Vec<u8>>> {
        let Some(overlay) = &ground.overlay else { return Ok(None) };
        let mut here: Vec<u8> = Vec::new();
        let mut links = 0;
        let mut ahead: Vec<Vec<u8>> = Vec::new();
        push(&mut ahead, path);
        while let Some(name) = ahead.pop() {
            if name == b".." {
                here.truncate(split(&here).0.len());
                continue;
            }
            let next = join(&here, &name);
            let found = match overlay.in_layer(&ground.rooted, &next)? {
                Seen::Here(found) => Some(found),
                Seen::Hidden => None,
                Seen::Nothing => overlay.below(&next)?,
            };
            match found {
                Some(found) if FileType::from_raw_mode(found.stat.st_mode) == FileType::Symlink => {
                    if links == MAX_LINKS {
                        return Ok(None);
                    }
                    links += 1;
                    let target = found.target()?;
                    if target.starts_with(b"/") {
                        here.clear();
                    }
                    push(&mut ahead, &target);
                }
                _ => here = next,
            }
        }
        Ok(Some(here))
    }

    /// Whether this layer has something at a path, or on the way to it, that is no directory.
    fn is_blocked(ground: &Ground, path: &[u8]) -> Result<bool> {
        let Some(overlay) = &ground.overlay else { return Ok(false) };
        if path.is_empty() {
            return Ok(false);
        }
        Ok(match overlay.in_layer(&ground.rooted, path)? {
            Seen::Here(found) => FileType::from_raw_mode(found.stat.st_mode) != FileType::Directory,
            Seen::Hidden => true,
            Seen::Nothing => false,
        })
    }

    /// Whether this layer hides all that lies below a directory.
    fn is_covered(ground: &Ground, path: &[u8]) -> Result<bool> {
        let Some(overlay) = &ground.overlay else { return Ok(false) };
        let mut here = ground.rooted.root()?;
        if overlay.is_opaque(&here) {
            return Ok(true);
        }
        for name in path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
            match here.child(name) {
                Ok(child) => here = child,
                Err(Errno::NOENT) => return Ok(false),
                Err(error) => return Err(ground.rooted.error("open", path, error)),
            }
            if overlay.is_opaque(&here) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl Found {
    fn fail(&self, error: Errno) -> Error {
        Error::io("read", &crate::fs::to_path(&self.folder.join(&self.name)), error.into())
    }

    fn target(&self) -> Result<Vec<u8>> {
        let target = rustix::fs::readlinkat(&self.folder, &self.name[..], Vec::new());
        target.map(std::ffi::CString::into_bytes).map_err(|error| self.fail(error))
    }

    fn mtime(&self) -> Timestamp {
        let nanoseconds = u32::try_from(self.stat.st_mtime_nsec).unwrap_or(0);
        Timestamp { seconds: self.stat.st_mtime, nanoseconds }
    }

    /// Sets owner and extended attributes of a copy, except for overlayfs' own.
    fn copy_owner_and_xattrs(&self, made: &Made<'_>) -> Result<(), Errno> {
        made.set_owner(Some((self.stat.st_uid, self.stat.st_gid)))?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let original = rustix::fs::openat(&self.folder, &self.name[..], flags, Mode::empty())?;
        for name in attributes::xattr_names(original.as_fd()).unwrap_or_default() {
            let is_own = attributes::is_overlays(&name) && !name.windows(16).any(|w| w == b"overlay.overlay.");
            if is_own || attributes::is_hosts(&name) {
                continue;
            }
            if let Some(value) = attributes::xattr(original.as_fd(), &name) {
                rustix::fs::setxattr(handle(made.fd), &name[..], &value, XattrFlags::empty())?;
            }
        }
        Ok(())
    }
}

fn copy_directory(ground: &mut Ground, folder: &Folder, name: &[u8], found: &Found) -> Result<()> {
    let parent = ground.enter_again(folder)?;
    ground.make_directory(&parent, name)?;
    let (directory, inode) = ground.open_directory(&parent, name)?;
    found.copy_owner_and_xattrs(&Made::new(&directory)).map_err(|error| found.fail(error))?;
    ground.inherits |= attributes::hands_on(directory.as_fd());
    ground.note(inode, folder.join(name), found.stat.st_mode & 0o7777, found.mtime())
}

/// Copies what is no directory, to have one more name for it here.
fn copy_node(ground: &mut Ground, parent: &[u8], name: &[u8], found: &Found) -> Result<()> {
    let parent = ground.parent(parent)?;
    let kind = FileType::from_raw_mode(found.stat.st_mode);
    let target = if kind == FileType::Symlink { found.target()? } else { Vec::new() };
    let node = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let ((copy, path_only), _) = ground.make(&parent, name, |folder| match kind {
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
    let copy = if path_only { copy } else { copy_content(found, copy)? };
    let made = if path_only { Made::path_only(&copy) } else { Made::new(&copy) };
    if ground.inherits {
        made.drop_inherited();
    }
    found.copy_owner_and_xattrs(&made).map_err(fail)?;
    if kind != FileType::Symlink {
        made.set_mode(found.stat.st_mode & 0o7777).map_err(fail)?;
    }
    made.set_times(found.mtime()).map_err(fail)
}

fn copy_content(found: &Found, copy: std::os::fd::OwnedFd) -> Result<std::os::fd::OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let original = rustix::fs::openat(&found.folder, &found.name[..], flags, Mode::empty());
    let mut copy = File::from(copy);
    io::copy(&mut File::from(original.map_err(|error| found.fail(error))?), &mut copy)?;
    Ok(copy.into())
}

/// A device 0/0, which everyone may make since Linux 5.8; where it is refused, an empty file with an attribute.
fn mark_removed(ground: &mut Ground, parent: &Parent, name: &[u8]) -> Result<()> {
    let device = FileType::CharacterDevice;
    let (made, _) =
        ground.make(parent, name, |folder| match rustix::fs::mknodat(folder, name, device, Mode::empty(), 0) {
            Err(Errno::PERM) => Ok(false),
            result => result.map(|()| true),
        })?;
    if made {
        return Ok(());
    }
    let Some(overlay) = &ground.overlay else { return Ok(()) };
    let (mark, directory) = (overlay.attribute("whiteout"), overlay.attribute("opaque"));
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let (file, _) =
        ground.make(parent, name, |folder| rustix::fs::openat(folder, name, flags, Mode::RUSR | Mode::WUSR))?;
    let fail = |error| ground.error("mark as removed", parent, name, error);
    rustix::fs::fsetxattr(&file, mark, b"y", XattrFlags::empty()).map_err(fail)?;
    // "There are marks in here" (Linux 6.7).
    rustix::fs::setxattr(handle(parent.as_fd()), directory, b"x", XattrFlags::empty()).map_err(fail)
}

fn list(folder: &Folder) -> Result<Vec<Vec<u8>>, Errno> {
    let listed = crate::fs::remove::open_listed(folder.as_fd(), b".")?;
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::new(listed)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if !matches!(&name[..], b"." | b"..") {
            names.push(name);
        }
    }
    Ok(names)
}
