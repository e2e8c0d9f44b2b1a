//! What overlayfs takes from a directory of `lowerdir`: its marks, and what is there through all layers below.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use rustix::fs::AtFlags;
use rustix::fs::FileType;
use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::fs::Stat;
use rustix::fs::XattrFlags;
use rustix::io::Errno;

use crate::changeset::Ownership;
use crate::changeset::attributes;
use crate::changeset::attributes::Made;
use crate::changeset::tape::Timestamp;
use crate::error::Error;
use crate::error::Result;
use crate::fs::remove::handle;
use crate::fs::rooted::Folder;
use crate::fs::rooted::Rooted;

/// Where overlayfs looks for its own extended attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Namespace {
    Trusted,
    /// For mounts with the option `userxattr`.
    User,
}

impl Namespace {
    /// Where the marks are of layers that this process unpacks with these owners.
    pub(crate) fn of(ownership: &Ownership) -> Namespace {
        match ownership {
            Ownership::CurrentUser => Namespace::User,
            // `trusted.` attributes are the host's root's (xattr(7)); nobody else's, not even the root of a namespace.
            Ownership::Preserve | Ownership::Mapped { .. } if id_maps().is_some() => Namespace::User,
            Ownership::Preserve | Ownership::Mapped { .. } => Namespace::Trusted,
        }
    }

    pub(super) fn attribute(self, name: &str) -> String {
        match self {
            Namespace::Trusted => format!("trusted.overlay.{name}"),
            Namespace::User => format!("user.overlay.{name}"),
        }
    }

    pub(super) fn is_opaque(self, directory: impl AsFd) -> bool {
        attributes::xattr(directory.as_fd(), self.attribute("opaque").as_bytes()).is_some_and(|value| value == b"y")
    }

    /// Whether what has this name in a layer says that what lies below is removed.
    pub(super) fn is_whiteout(self, directory: impl AsFd, name: &[u8], stat: &Stat) -> bool {
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::CharacterDevice => stat.st_rdev == 0,
            FileType::RegularFile if stat.st_size == 0 => self.has(directory, name, "whiteout"),
            _ => false,
        }
    }

    /// Whether what has this name in a directory has one of overlayfs' attributes.
    pub(super) fn has(self, directory: impl AsFd, name: &[u8], attribute: &str) -> bool {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = rustix::fs::openat(directory, name, flags, Mode::empty());
        opened.is_ok_and(|fd| attributes::xattr(fd.as_fd(), self.attribute(attribute).as_bytes()).is_some())
    }
}

/// How ids of this process's user namespace are mapped to the host's, as the kernel says it; none where they are the
/// host's.
pub(crate) fn id_maps() -> Option<String> {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let maps = ["/proc/self/uid_map", "/proc/self/gid_map"].map(read);
    let is_identity = |map: &str| {
        let mut numbers = map.split_whitespace();
        [Some("0"), Some("0"), Some("4294967295"), None].iter().all(|number| numbers.next() == *number)
    };
    let is_host = maps.iter().all(|map| map.is_empty() || is_identity(map));
    (!is_host).then(|| maps.concat())
}

/// What there is to know of the layers below, topmost first.
#[derive(Debug)]
pub(super) struct Overlay {
    namespace: Namespace,
    lower: Option<Vec<Rc<Rooted>>>,
}

/// Something in a layer.
pub(super) struct Found {
    folder: Folder,
    name: Vec<u8>,
    pub(super) stat: Stat,
}

/// What one layer says of a path.
pub(super) enum Seen {
    Here(Found),
    /// Whatever lies below is not visible.
    Hidden,
    Nothing,
}

impl Overlay {
    pub(super) fn new(namespace: Namespace, lower: Option<Vec<Rooted>>) -> Overlay {
        Overlay { namespace, lower: lower.map(|lower| lower.into_iter().map(Rc::new).collect()) }
    }

    /// Whether there is anything to know of the layers below.
    pub(super) fn knows_below(&self) -> bool {
        self.lower.is_some()
    }

    /// The layers below that are known, the topmost first.
    pub(super) fn lower(&self) -> &[Rc<Rooted>] {
        self.lower.as_deref().unwrap_or_default()
    }

    pub(super) fn attribute(&self, name: &str) -> String {
        self.namespace.attribute(name)
    }

    pub(super) fn is_opaque(&self, folder: &Folder) -> bool {
        self.namespace.is_opaque(folder)
    }

    pub(super) fn make_opaque(&self, folder: &Folder) -> Result<(), Errno> {
        rustix::fs::setxattr(handle(folder.as_fd()), self.attribute("opaque"), b"y", XattrFlags::empty())
    }

    /// Whether what has this name in a layer says that what lies below is removed.
    pub(super) fn is_whiteout(&self, folder: &Folder, name: &[u8], stat: &Stat) -> bool {
        self.namespace.is_whiteout(folder, name, stat)
    }

    /// What the layers below have at a path in which nothing is a link.
    pub(super) fn below(&self, path: &[u8]) -> Result<Option<Found>> {
        for layer in self.lower() {
            match self.in_layer(layer, path)? {
                Seen::Here(found) => return Ok(Some(found)),
                Seen::Hidden => return Ok(None),
                Seen::Nothing => {}
            }
        }
        Ok(None)
    }

    pub(super) fn in_layer(&self, layer: &Rooted, path: &[u8]) -> Result<Seen> {
        let fail = |error| layer.error("look at", path, error);
        let mut here = layer.root()?;
        let mut opaque = false;
        let mut components = path.split(|byte| *byte == b'/').peekable();
        while let Some(name) = components.next() {
            let stat = match rustix::fs::statat(&here, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(Errno::NOENT | Errno::NAMETOOLONG) if opaque => return Ok(Seen::Hidden),
                Err(Errno::NOENT | Errno::NAMETOOLONG) => return Ok(Seen::Nothing),
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

    /// Gives a root the owner and the attributes that it has in the layers below, as far as these are known. Returns its
    /// mode and time there.
    pub(super) fn copy_root(&self, made: &Made<'_>) -> Result<Option<(u32, Timestamp)>> {
        let Some(top) = self.lower().first() else { return Ok(None) };
        let root = top.root()?;
        let copied = rustix::fs::fstat(&root).and_then(|stat| {
            attributes::copy_owner_and_xattrs(root.as_fd(), &stat, made, is_own)?;
            Ok((stat.st_mode & 0o7777, mtime(&stat)))
        });
        copied.map(Some).map_err(|error| top.error("copy the attributes of", b"", error))
    }

    /// The names in the roots of the layers below.
    pub(super) fn names_below(&self) -> Result<Vec<Vec<u8>>> {
        let mut names = Vec::new();
        for layer in self.lower() {
            let fail = |error| layer.error("list", b"", error);
            names.extend(list(&layer.root()?).map_err(fail)?);
        }
        names.sort_unstable();
        names.dedup();
        Ok(names)
    }
}

impl Found {
    pub(super) fn new(folder: Folder, name: &[u8], stat: Stat) -> Found {
        Found { folder, name: name.to_vec(), stat }
    }

    pub(super) fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.stat.st_mode)
    }

    pub(super) fn fail(&self, error: Errno) -> Error {
        Error::io("read", &crate::fs::to_path(&self.folder.join(&self.name)), error.into())
    }

    pub(super) fn target(&self) -> Result<Vec<u8>> {
        let target = rustix::fs::readlinkat(&self.folder, &self.name[..], Vec::new());
        target.map(std::ffi::CString::into_bytes).map_err(|error| self.fail(error))
    }

    pub(super) fn mtime(&self) -> Timestamp {
        mtime(&self.stat)
    }

    /// Sets owner and extended attributes of a copy, except for overlayfs' own.
    pub(super) fn copy_owner_and_xattrs(&self, made: &Made<'_>) -> Result<(), Errno> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let original = rustix::fs::openat(&self.folder, &self.name[..], flags, Mode::empty())?;
        attributes::copy_owner_and_xattrs(original.as_fd(), &self.stat, made, is_own)
    }

    pub(super) fn copy_content(&self, copy: OwnedFd) -> Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let original = rustix::fs::openat(&self.folder, &self.name[..], flags, Mode::empty());
        let mut copy = File::from(copy);
        io::copy(&mut File::from(original.map_err(|error| self.fail(error))?), &mut copy)?;
        Ok(copy.into())
    }
}

fn mtime(stat: &Stat) -> Timestamp {
    Timestamp { seconds: stat.st_mtime, nanoseconds: u32::try_from(stat.st_mtime_nsec).unwrap_or(0) }
}

/// Whether an attribute is overlayfs' own here. What images have of this kind has a name with another `overlay.`.
fn is_own(name: &[u8]) -> bool {
    attributes::is_overlays(name) && !name.windows(16).any(|window| window == b"overlay.overlay.")
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
