//! What overlayfs takes from a directory of `lowerdir`: its marks, and what is there through all layers below.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;

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
use crate::fs::copy::Copied;
use crate::fs::copy::copy_content;
use crate::fs::copy::share_content;
use crate::fs::remove::handle;
use crate::fs::rooted::Folder;

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

/// How layers in overlay form are marked here, and whether the layers below are known.
#[derive(Debug)]
pub(super) struct Overlay {
    namespace: Namespace,
    knows_below: bool,
}

/// A node of a lower layer.
pub(super) struct Found {
    folder: Folder,
    name: Vec<u8>,
    pub(super) stat: Stat,
}

impl Overlay {
    pub(super) fn new(namespace: Namespace, knows_below: bool) -> Overlay {
        Overlay { namespace, knows_below }
    }

    /// Whether the layers below are known. If not, anything may be there.
    pub(super) fn knows_below(&self) -> bool {
        self.knows_below
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
    /// Returns the size of the attributes in bytes.
    pub(super) fn copy_owner_and_xattrs(&self, made: &Made<'_>) -> Result<u64, Errno> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let original = rustix::fs::openat(&self.folder, &self.name[..], flags, Mode::empty())?;
        attributes::copy_owner_and_xattrs(original.as_fd(), &self.stat, made, is_own)
    }

    /// Copies the content to a new file, which shares its blocks where the file system can do that. Holes stay holes.
    pub(super) fn copy_content(&self, copy: OwnedFd, copied: Copied<'_>) -> Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let original = rustix::fs::openat(&self.folder, &self.name[..], flags, Mode::empty());
        let (original, mut copy) = (File::from(original.map_err(|error| self.fail(error))?), File::from(copy));
        if !share_content(&original, &copy, &self.stat, copied)? {
            let done = copy_content(&original, &mut copy, &self.stat, copied);
            done.map_err(|error| Error::io("copy", &crate::fs::to_path(&self.folder.join(&self.name)), error))?;
        }
        Ok(copy.into())
    }
}

pub(super) fn mtime(stat: &Stat) -> Timestamp {
    Timestamp { seconds: stat.st_mtime, nanoseconds: u32::try_from(stat.st_mtime_nsec).unwrap_or(0) }
}

/// Whether an attribute is overlayfs' own here. What images have of this kind has a name with another `overlay.`.
pub(super) fn is_own(name: &[u8]) -> bool {
    attributes::is_overlays(name) && !name.windows(16).any(|window| window == b"overlay.overlay.")
}
