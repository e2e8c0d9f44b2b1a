//! overlayfs: what is mounted for a working copy, and by whom.

use std::ffi::CString;
use std::fmt;
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;
use std::time::Instant;

use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::mount::FsMountFlags;
use rustix::mount::FsOpenFlags;
use rustix::mount::MountAttrFlags;
use rustix::mount::MountFlags;
use rustix::mount::MoveMountFlags;
use rustix::mount::UnmountFlags;

use super::BASE;
use super::ROOT;
use super::UPPER;
use super::WORK;
use super::lower::LowerDir;
use super::lower::LowerDirs;
use crate::error::Error;
use crate::error::Result;
use crate::fs::aside::is_mount;
use crate::fs::dir::Dir;
use crate::fs::remove::handle;

/// So many layers one mount takes; the kernel takes 500.
const MAX_LOWER: usize = 480;
/// How long a mount that somebody uses is waited for.
const PATIENCE: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(5);
const DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
/// What [`MountOptions`] says too: changes are to lie in `upper` as they are.
const PLAIN: [(&str, &str); 3] = [("redirect_dir", "nofollow"), ("metacopy", "off"), ("index", "off")];

/// What overlayfs has to be told to show a working copy. As text it is what `mount -t overlay -o` takes.
///
/// ```
/// # let layers = [std::path::PathBuf::from("/l/2"), "/l/1".into()];
/// # let options = layercake::checkout::MountOptions::new(layers.to_vec(), "/w/upper", "/w/work");
/// let text = options.to_string();
/// assert!(text.starts_with("lowerdir=/l/2:/l/1,upperdir=/w/upper,workdir=/w/work,"));
/// assert!(text.ends_with(",nosuid,nodev"));
/// ```
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountOptions {
    /// The directories of the layers, topmost first.
    pub lower: Vec<PathBuf>,
    /// The directory of what changes.
    pub upper: PathBuf,
    /// A directory that overlayfs works in.
    pub work: PathBuf,
    /// Whether overlayfs' own attributes are `user.overlay.*`, as they are where the files are not root's.
    pub userxattr: bool,
    /// Whether setuid bits and file capabilities have no effect. Default: true.
    pub nosuid: bool,
    /// Whether device files cannot be opened. Default: true.
    pub nodev: bool,
}

impl MountOptions {
    /// Options for layers that root unpacked, with the defaults.
    pub fn new(lower: Vec<PathBuf>, upper: impl Into<PathBuf>, work: impl Into<PathBuf>) -> MountOptions {
        MountOptions { lower, upper: upper.into(), work: work.into(), userxattr: false, nosuid: true, nodev: true }
    }
}

/// A mount of overlayfs, as it is for one working copy.
pub(super) struct Overlay<'a> {
    /// The directory of the working copy.
    pub(super) dir: &'a Dir,
    pub(super) lower: &'a LowerDirs,
    pub(super) flags: OverlayFlags,
}

/// How an overlay is mounted, whatever its directories are.
#[derive(Clone, Copy, Debug)]
pub(super) struct OverlayFlags {
    pub(super) userxattr: bool,
    pub(super) nosuid: bool,
    pub(super) nodev: bool,
}

impl Overlay<'_> {
    /// Mounts the tree. Its directories are opened from the descriptors that were checked, and links in their place are
    /// not followed.
    pub(super) fn mount(&self) -> Result<(), Errno> {
        let (upper, work) = (place(self.dir, UPPER)?, place(self.dir, WORK)?);
        let mut lower = self.lower.places();
        if lower.len() > MAX_LOWER {
            // A mount without `upper` is one of two layers at least.
            let below = lower.split_off(MAX_LOWER.min(lower.len() - 2));
            let under = place(self.dir, BASE)?;
            if !is_mount(&under) {
                attach(&under, &below, None, self.flags)?;
            }
            lower.push(LowerDir { above: self.dir, name: BASE });
        }
        attach(&place(self.dir, ROOT)?, &lower, Some((&upper, &work)), self.flags)
    }

    /// Whether this could be mounted. Nothing is, so nothing stays if this process is killed.
    pub(super) fn try_out(&self) -> Result<(), Errno> {
        let lower = self.lower.places().first().ok_or(Errno::INVAL)?.open()?;
        let (upper, work) = (place(self.dir, UPPER)?, place(self.dir, WORK)?);
        let overlay = match rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC) {
            // Linux before 5.2: it is seen when it is done.
            Err(Errno::NOSYS) => return Ok(()),
            overlay => overlay?,
        };
        for (key, fd) in [("lowerdir", &lower), ("upperdir", &upper), ("workdir", &work)] {
            rustix::mount::fsconfig_set_string(&overlay, key, handle(fd.as_fd()))?;
        }
        set_others(&overlay, self.flags.userxattr)?;
        rustix::mount::fsconfig_create(&overlay)
    }
}

/// A directory of a working copy.
fn place(dir: &Dir, name: &str) -> Result<OwnedFd, Errno> {
    rustix::fs::openat(dir, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty())
}

impl fmt::Display for MountOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lower: Vec<String> = self.lower.iter().map(|path| escaped(path, &[':', ',', '\\'])).collect();
        let [upper, work] = [&self.upper, &self.work].map(|path| escaped(path, &[',', '\\']));
        write!(f, "lowerdir={},upperdir={upper},workdir={work}", lower.join(":"))?;
        PLAIN.iter().try_for_each(|(name, value)| write!(f, ",{name}={value}"))?;
        let flags = [(self.userxattr, ",userxattr"), (self.nosuid, ",nosuid"), (self.nodev, ",nodev")];
        flags.iter().filter(|(is_set, _)| *is_set).try_for_each(|(_, text)| f.write_str(text))
    }
}

fn escaped(path: &Path, special: &[char]) -> String {
    let mut text = String::new();
    for c in path.to_string_lossy().chars() {
        if special.contains(&c) {
            text.push('\\');
        }
        text.push(c);
    }
    text
}

/// Mounts lower directories, topmost first, with directories for what changes or without.
fn attach(
    target: &OwnedFd,
    lower: &[LowerDir<'_>],
    upper: Option<(&OwnedFd, &OwnedFd)>,
    flags: OverlayFlags,
) -> Result<(), Errno> {
    match attach_by_parts(target, lower, upper, flags) {
        // Linux before 6.5 takes all layers as one text; a part may have 255 bytes.
        Err(Errno::INVAL | Errno::NOSYS | Errno::NAMETOOLONG) => attach_at_once(target, lower, upper, flags),
        result => result,
    }
}

fn attach_by_parts(
    target: &OwnedFd,
    lower: &[LowerDir<'_>],
    upper: Option<(&OwnedFd, &OwnedFd)>,
    flags: OverlayFlags,
) -> Result<(), Errno> {
    let overlay = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let set = |name: &str, value: &[u8]| rustix::mount::fsconfig_set_string(&overlay, name, value);
    set("source", b"layercake")?;
    for place in lower {
        add_lower(&overlay, &place.open()?)?;
    }
    if let Some((upper, work)) = upper {
        set("upperdir", handle(upper.as_fd()).as_bytes())?;
        set("workdir", handle(work.as_fd()).as_bytes())?;
    }
    set_others(&overlay, flags.userxattr)?;
    rustix::mount::fsconfig_create(&overlay)?;
    let mut attributes = MountAttrFlags::empty();
    attributes.set(MountAttrFlags::MOUNT_ATTR_NOSUID, flags.nosuid);
    attributes.set(MountAttrFlags::MOUNT_ATTR_NODEV, flags.nodev);
    let mounted = rustix::mount::fsmount(&overlay, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    let move_flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(&mounted, "", target, "", move_flags)
}

/// Adds a lower directory by its descriptor (Linux 6.13), or by a path to that. Only the first shows in the table of
/// mounts where the directory lies.
fn add_lower(overlay: &OwnedFd, directory: &OwnedFd) -> Result<(), Errno> {
    match rustix::mount::fsconfig_set_fd(overlay, "lowerdir+", directory) {
        Err(Errno::INVAL | Errno::BADF) => {
            rustix::mount::fsconfig_set_string(overlay, "lowerdir+", handle(directory.as_fd()))
        }
        result => result,
    }
}

fn set_others(overlay: &OwnedFd, userxattr: bool) -> Result<(), Errno> {
    for (name, value) in PLAIN {
        rustix::mount::fsconfig_set_string(overlay, name, value)?;
    }
    if userxattr { rustix::mount::fsconfig_set_flag(overlay, "userxattr") } else { Ok(()) }
}

/// All options have to fit on a page, so that they name descriptors, not paths.
fn attach_at_once(
    target: &OwnedFd,
    lower: &[LowerDir<'_>],
    upper: Option<(&OwnedFd, &OwnedFd)>,
    flags: OverlayFlags,
) -> Result<(), Errno> {
    let lower: Vec<OwnedFd> = lower.iter().map(|place| place.open()).collect::<Result<_, _>>()?;
    let name = |fd: &OwnedFd| handle(fd.as_fd());
    let mut options = format!("lowerdir={}", lower.iter().map(name).collect::<Vec<_>>().join(":"));
    if let Some((upper, work)) = upper {
        options += &format!(",upperdir={},workdir={}", name(upper), name(work));
    }
    for (key, value) in PLAIN {
        options += &format!(",{key}={value}");
    }
    if flags.userxattr {
        options += ",userxattr";
    }
    let options = CString::new(options).map_err(|_| Errno::INVAL)?;
    let mut mount_flags = MountFlags::empty();
    mount_flags.set(MountFlags::NOSUID, flags.nosuid);
    mount_flags.set(MountFlags::NODEV, flags.nodev);
    rustix::mount::mount("layercake", name(target), "overlay", mount_flags, options.as_c_str())
}

/// Whether something is mounted on a directory of a working copy.
pub(super) fn is_mounted(dir: &Dir, name: &str) -> bool {
    place(dir, name).is_ok_and(|fd| is_mount(&fd))
}

/// Takes away what is mounted on a directory of a working copy, if nobody uses it.
///
/// A program that another thread is starting has all that is open here, until it runs: that is waited for.
pub(super) fn unmount(dir: &Dir, name: &str) -> Result<()> {
    let start = Instant::now();
    loop {
        match rustix::mount::unmount(format!("{}/{name}", handle(dir.as_fd())), UnmountFlags::NOFOLLOW) {
            Ok(()) => return Ok(()),
            Err(Errno::BUSY) if start.elapsed() < PATIENCE => std::thread::sleep(PAUSE),
            Err(error) => return Err(Error::io("unmount", &dir.path().join(name), error.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_escaped() {
        let mut options = MountOptions::new(vec!["/a:b".into(), "/c,d".into()], "/u:p\\", "/w,k");
        options.userxattr = true;
        let expected = "lowerdir=/a\\:b:/c\\,d,upperdir=/u:p\\\\,workdir=/w\\,k,\
                        redirect_dir=nofollow,metacopy=off,index=off,userxattr,nosuid,nodev";
        assert_eq!(options.to_string(), expected);
    }
}
