//! Owner, extended attributes, mode and times, in this order: a change of owner takes setuid and capabilities away,
//! and every other change moves the times.

use std::collections::HashSet;
use std::io;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;

use rustix::fs::AtFlags;
use rustix::fs::Gid;
use rustix::fs::Mode;
use rustix::fs::Stat;
use rustix::fs::Timespec;
use rustix::fs::Timestamps;
use rustix::fs::Uid;
use rustix::fs::XattrFlags;
use rustix::io::Errno;

use crate::changeset::Layout;
use crate::changeset::Options;
use crate::changeset::Ownership;
use crate::changeset::exposed::CAPABILITY;
use crate::changeset::report::Report;
use crate::changeset::report::SkippedPart;
use crate::changeset::tape::RawEntry;
use crate::changeset::tape::Timestamp;
use crate::error::Error;
use crate::error::Result;
use crate::fs::remove::change_mode;
use crate::fs::remove::handle;

/// They belong to the host, not to the image (as in umoci and containerd).
const HOST_XATTRS: [&[u8]; 2] = [b"security.selinux", b"system.nfs4_acl"];
/// overlayfs would take them for its own.
const OVERLAY_XATTRS: [&[u8]; 2] = [b"trusted.overlay.", b"user.overlay."];
/// Made for what lies in a directory that has a default one, without anybody asking.
const INHERITED: [&str; 2] = ["system.posix_acl_access", "system.posix_acl_default"];
const DEFAULT_ACL: &[u8] = b"system.posix_acl_default";
/// What every file system in use can hold; what lies outside is looked at again.
const TIMES: std::ops::Range<i64> = -(1 << 31)..1 << 31;

/// Who owns something on the host; none leaves it with whoever made it.
pub(super) type Owner = Option<(u32, u32)>;

impl Ownership {
    /// The owner outside of what is `uid`'s and `gid`'s inside.
    pub(super) fn owner(&self, uid: u32, gid: u32) -> Result<Owner> {
        let unmapped = |what, id| Error::invalid_input(format!("{what} {id} lies outside of the map of ids"));
        match self {
            Ownership::Preserve => Ok(Some((uid, gid))),
            Ownership::CurrentUser => Ok(None),
            Ownership::Mapped { uids, gids } => Ok(Some((
                uids.outside(uid).ok_or_else(|| unmapped("owner", uid))?,
                gids.outside(gid).ok_or_else(|| unmapped("group", gid))?,
            ))),
        }
    }
}

/// Something that was made, open. With `O_PATH` only, or to be read or written too.
pub(super) struct Made<'a> {
    pub(super) fd: BorrowedFd<'a>,
    pub(super) path_only: bool,
}

impl Made<'_> {
    pub(super) fn set_owner(&self, owner: Owner) -> Result<(), Errno> {
        match owner {
            None => Ok(()),
            Some((uid, gid)) => {
                let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
                rustix::fs::chownat(self.fd, "", Some(uid), Some(gid), AtFlags::EMPTY_PATH)
            }
        }
    }

    pub(super) fn set_mode(&self, mode: u32) -> Result<(), Errno> {
        let mode = Mode::from_raw_mode(mode);
        if !self.path_only {
            return rustix::fs::fchmod(self.fd, mode);
        }
        // Without /proc this cannot be done, and mostly need not be.
        let found = rustix::fs::fstat(self.fd)?.st_mode & 0o7777;
        if found == mode.as_raw_mode() { Ok(()) } else { change_mode(self.fd, mode) }
    }

    pub(super) fn set_times(&self, mtime: Timestamp) -> Result<(), Errno> {
        let times = timestamps(mtime);
        if self.path_only {
            rustix::fs::utimensat(self.fd, "", &times, AtFlags::EMPTY_PATH)
        } else {
            rustix::fs::futimens(self.fd, &times)
        }
    }

    fn set_xattr(&self, name: &[u8], value: &[u8]) -> Result<(), Errno> {
        if self.path_only {
            rustix::fs::setxattr(handle(self.fd), name, value, XattrFlags::empty())
        } else {
            rustix::fs::fsetxattr(self.fd, name, value, XattrFlags::empty())
        }
    }

    /// Removes the extended attributes that the layer did not name; the host's and overlayfs' own stay.
    pub(super) fn keep_xattrs(&self, kept: &[(Vec<u8>, Vec<u8>)]) {
        let names = xattr_names(self.fd).unwrap_or_default();
        if names.is_empty() {
            return;
        }
        let kept: HashSet<&[u8]> = kept.iter().map(|(name, _)| &name[..]).collect();
        for name in names {
            let stays = kept.contains(&name[..]) || is_hosts(&name) || is_overlays(&name);
            if !stays {
                // One that may not be removed is one that was not set either.
                let _ = rustix::fs::removexattr(handle(self.fd), &name[..]);
            }
        }
    }

    /// Removes the access lists that came from the directory above.
    pub(super) fn drop_inherited(&self) {
        for name in INHERITED {
            let _ = rustix::fs::removexattr(handle(self.fd), name);
        }
    }

    /// Whether the time that was set is the time that it has now.
    pub(super) fn has_time(&self, mtime: Timestamp) -> bool {
        TIMES.contains(&mtime.seconds) || rustix::fs::fstat(self.fd).is_ok_and(|stat| stat.st_mtime == mtime.seconds)
    }
}

/// Takes from a new directory what it has from the directory above, and would give to what is made in it.
pub(crate) fn hand_nothing_on(directory: &impl AsFd) {
    Made::new(directory).drop_inherited();
}

/// The names of the extended attributes of what is open, in whichever way.
pub(super) fn xattr_names(fd: BorrowedFd<'_>) -> Result<Vec<Vec<u8>>, Errno> {
    let path = handle(fd);
    let size = rustix::fs::listxattr_query(&path)?;
    let mut list = vec![0; size];
    let length = rustix::fs::listxattr(&path, &mut list[..])?;
    let names = list[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty());
    Ok(names.map(<[u8]>::to_vec).collect())
}

/// The value of an extended attribute, if it is there.
pub(super) fn xattr(fd: BorrowedFd<'_>, name: &[u8]) -> Option<Vec<u8>> {
    let path = handle(fd);
    let size = rustix::fs::getxattr_query(&path, name).ok()?;
    let mut value = vec![0; size];
    let length = rustix::fs::getxattr(&path, name, &mut value[..]).ok()?;
    value.truncate(length);
    Some(value)
}

/// Gives a copy the owner and the extended attributes of its original, except the host's and those that are
/// `left_out`. Returns the size of the attributes in bytes.
pub(super) fn copy_owner_and_xattrs(
    original: BorrowedFd<'_>,
    stat: &Stat,
    copy: &Made<'_>,
    left_out: impl Fn(&[u8]) -> bool,
) -> Result<u64, Errno> {
    let found = rustix::fs::fstat(copy.fd)?;
    if (found.st_uid, found.st_gid) != (stat.st_uid, stat.st_gid) {
        copy.set_owner(Some((stat.st_uid, stat.st_gid)))?;
    }
    let mut copied = 0;
    for name in xattr_names(original).unwrap_or_default() {
        if is_hosts(&name) || left_out(&name) {
            continue;
        }
        if let Some(value) = xattr(original, &name) {
            copy.set_xattr(&name, &value)?;
            copied += (name.len() + value.len()) as u64;
        }
    }
    Ok(copied)
}

pub(super) fn is_hosts(name: &[u8]) -> bool {
    HOST_XATTRS.contains(&name)
}

pub(super) fn is_overlays(name: &[u8]) -> bool {
    OVERLAY_XATTRS.iter().any(|prefix| name.starts_with(prefix))
}

/// Whether what lies in a directory with these attributes gets some that it did not ask for.
pub(super) fn is_inherited(xattrs: &[(Vec<u8>, Vec<u8>)]) -> bool {
    xattrs.iter().any(|(name, _)| name == DEFAULT_ACL)
}

/// Whether what is made in a directory gets attributes that it did not ask for.
pub(super) fn hands_on(directory: BorrowedFd<'_>) -> bool {
    rustix::fs::getxattr_query(handle(directory), DEFAULT_ACL).is_ok()
}

pub(super) fn timestamps(mtime: Timestamp) -> Timestamps {
    let time = Timespec { tv_sec: mtime.seconds, tv_nsec: i64::from(mtime.nanoseconds) };
    Timestamps { last_access: time, last_modification: time }
}

/// Sets what comes before the mode: owner and extended attributes.
pub(super) fn set_owner_and_xattrs(
    made: &Made<'_>,
    entry: &RawEntry,
    path: &[u8],
    owner: Owner,
    options: &Options<'_>,
    report: &mut Report,
) -> Result<(), Failure> {
    made.set_owner(owner).map_err(Failure::Owner)?;
    for (name, value) in &entry.xattrs {
        let result = match name {
            name if is_hosts(name) => Err("is the host's".to_owned()),
            name if name == CAPABILITY && !options.setuid => {
                report.skip(path, SkippedPart::Capabilities, "left out, as the options say")?;
                continue;
            }
            name if is_overlays(name) && options.layout == Layout::Flat => Err("is overlayfs'".to_owned()),
            name if is_overlays(name) => made.set_xattr(&escaped(name), value).map_err(|e| e.to_string()),
            name => made.set_xattr(name, value).map_err(|error| error.to_string()),
        };
        if let Err(reason) = result {
            report.skip(path, SkippedPart::xattr(name), reason)?;
        }
    }
    for key in &entry.not_applied {
        report.skip(path, SkippedPart::Record(key.clone()), "is not known here")?;
    }
    Ok(())
}

/// Sets what comes last.
pub(super) fn set_times(made: &Made<'_>, mtime: Timestamp, path: &[u8], report: &mut Report) -> Result<(), Failure> {
    made.set_times(mtime).map_err(|error| Failure::Os("set the times of", error))?;
    if !made.has_time(mtime) {
        skip_time(path, report)?;
    }
    Ok(())
}

/// Reports a time that the file system did not keep.
pub(super) fn skip_time(path: &[u8], report: &mut Report) -> Result<()> {
    report.skip(path, SkippedPart::Modified, "the file system cannot hold it")
}

/// What overlayfs hands on as the attribute without the second `overlay.` (since Linux 6.7).
fn escaped(name: &[u8]) -> Vec<u8> {
    let prefix = OVERLAY_XATTRS.iter().find(|prefix| name.starts_with(prefix)).map_or(0, |prefix| prefix.len());
    [&name[..prefix], b"overlay.", &name[prefix..]].concat()
}

/// Something that the operating system refused, or an error with words of its own.
pub(super) enum Failure {
    Os(&'static str, Errno),
    /// The owner could not be changed.
    Owner(Errno),
    Ours(Error),
}

/// Says what to do where this process may not give files to an owner, or where its user namespace lacks the owner.
pub(super) fn owner_refused(error: Errno) -> io::Error {
    let source = io::Error::from(error);
    if !matches!(error, Errno::PERM | Errno::INVAL) {
        return source;
    }
    io::Error::new(source.kind(), format!("{source}; run as root, or use Ownership::CurrentUser"))
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Ours(error)
    }
}

impl<'a> Made<'a> {
    pub(super) fn new(fd: &'a impl AsFd) -> Made<'a> {
        Made { fd: fd.as_fd(), path_only: false }
    }

    pub(super) fn path_only(fd: &'a impl AsFd) -> Made<'a> {
        Made { fd: fd.as_fd(), path_only: true }
    }
}
