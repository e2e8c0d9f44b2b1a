//! overlayfs: what is mounted for a working copy, and by whom.

use std::ffi::CString;
use std::fmt;
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;
use std::time::Instant;

use rustix::fs::CWD;
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
}

impl MountOptions {
    /// Options for layers that root unpacked.
    pub fn new(lower: Vec<PathBuf>, upper: impl Into<PathBuf>, work: impl Into<PathBuf>) -> MountOptions {
        MountOptions { lower, upper: upper.into(), work: work.into(), userxattr: false }
    }

    /// Mounts the tree of the working copy in `dir`. Its directories are found from there, and links in their place are
    /// not followed, whatever the paths say.
    pub(super) fn mount(&self, dir: &Dir) -> Result<(), Errno> {
        let (upper, work) = (place(dir, UPPER)?, place(dir, WORK)?);
        let mut lower = self.lower.clone();
        let mut base = None;
        if lower.len() > MAX_LOWER {
            // A mount without `upper` is one of two layers at least.
            let below = lower.split_off(MAX_LOWER.min(lower.len() - 2));
            let under = place(dir, BASE)?;
            if !is_mount(&under) {
                attach(&under, &below, None, self.userxattr)?;
            }
            lower.push(handle(base.insert(place(dir, BASE)?).as_fd()).into());
        }
        attach(&place(dir, ROOT)?, &lower, Some((&upper, &work)), self.userxattr)
    }

    /// Whether this could be mounted. Nothing is, so nothing stays if this process is killed.
    pub(super) fn try_out(&self, dir: &Dir) -> Result<(), Errno> {
        let lower = self.lower.first().ok_or(Errno::INVAL)?;
        let lower = rustix::fs::openat(CWD, lower, DIRECTORY, Mode::empty())?;
        let (upper, work) = (place(dir, UPPER)?, place(dir, WORK)?);
        let overlay = match rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC) {
            // Linux before 5.2: it is seen when it is done.
            Err(Errno::NOSYS) => return Ok(()),
            overlay => overlay?,
        };
        for (key, fd) in [("lowerdir", &lower), ("upperdir", &upper), ("workdir", &work)] {
            rustix::mount::fsconfig_set_string(&overlay, key, handle(fd.as_fd()))?;
        }
        set_others(&overlay, self.userxattr)?;
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
        if self.userxattr { f.write_str(",userxattr") } else { Ok(()) }
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

/// Mounts layers, topmost first, with directories for what changes or without.
fn attach(
    target: &OwnedFd,
    lower: &[PathBuf],
    upper: Option<(&OwnedFd, &OwnedFd)>,
    userxattr: bool,
) -> Result<(), Errno> {
    match attach_by_parts(target, lower, upper, userxattr) {
        // Linux before 6.5 takes all layers as one text; a part may have 255 bytes.
        Err(Errno::INVAL | Errno::NOSYS | Errno::NAMETOOLONG) => attach_at_once(target, lower, upper, userxattr),
        result => result,
    }
}

fn attach_by_parts(
    target: &OwnedFd,
    lower: &[PathBuf],
    upper: Option<(&OwnedFd, &OwnedFd)>,
    userxattr: bool,
) -> Result<(), Errno> {
    let overlay = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let set = |name: &str, value: &[u8]| rustix::mount::fsconfig_set_string(&overlay, name, value);
    set("source", b"layercake")?;
    for path in lower {
        set("lowerdir+", path.as_os_str().as_bytes())?;
    }
    if let Some((upper, work)) = upper {
        set("upperdir", handle(upper.as_fd()).as_bytes())?;
        set("workdir", handle(work.as_fd()).as_bytes())?;
    }
    set_others(&overlay, userxattr)?;
    rustix::mount::fsconfig_create(&overlay)?;
    let mounted = rustix::mount::fsmount(&overlay, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(&mounted, "", target, "", flags)
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
    lower: &[PathBuf],
    upper: Option<(&OwnedFd, &OwnedFd)>,
    userxattr: bool,
) -> Result<(), Errno> {
    let open = |path: &Path| rustix::fs::openat(CWD, path, DIRECTORY, Mode::empty());
    let lower: Vec<OwnedFd> = lower.iter().map(|path| open(path)).collect::<Result<_, _>>()?;
    let name = |fd: &OwnedFd| handle(fd.as_fd());
    let mut options = format!("lowerdir={}", lower.iter().map(name).collect::<Vec<_>>().join(":"));
    if let Some((upper, work)) = upper {
        options += &format!(",upperdir={},workdir={}", name(upper), name(work));
    }
    for (key, value) in PLAIN {
        options += &format!(",{key}={value}");
    }
    if userxattr {
        options += ",userxattr";
    }
    let options = CString::new(options).map_err(|_| Errno::INVAL)?;
    rustix::mount::mount("layercake", name(target), "overlay", MountFlags::empty(), options.as_c_str())
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

/// What is mounted on directories below one, as this process sees it (proc(5), `mountinfo`).
pub(super) fn mounts_below(directory: &Path) -> Result<Vec<PathBuf>> {
    const TABLE: &str = "/proc/self/mountinfo";
    let table = std::fs::read(TABLE).map_err(|error| Error::io("read", Path::new(TABLE), error))?;
    let points = table.split(|byte| *byte == b'\n').filter_map(|line| line.split(|byte| *byte == b' ').nth(4));
    let points = points.map(|point| crate::fs::to_path(&unescaped(point)));
    Ok(points.filter(|point| point.starts_with(directory)).collect())
}

/// Blanks and some other characters are written as `\` and three octal digits.
fn unescaped(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        let digits = after.get(..3).filter(|digits| *first == b'\\' && digits.iter().all(|d| (b'0'..b'8').contains(d)));
        match digits {
            Some(digits) => {
                bytes.push(digits.iter().fold(0_u8, |byte, digit| byte.wrapping_mul(8).wrapping_add(digit - b'0')));
                rest = &after[3..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_escaped() {
        let mut options = MountOptions::new(vec!["/a:b".into(), "/c,d".into()], "/u:p\\", "/w,k");
        options.userxattr = true;
        let expected = "lowerdir=/a\\:b:/c\\,d,upperdir=/u:p\\\\,workdir=/w\\,k,\
                        redirect_dir=nofollow,metacopy=off,index=off,userxattr";
        assert_eq!(options.to_string(), expected);
    }

    #[test]
    fn mount_points_are_read_as_the_kernel_writes_them() {
        assert_eq!(unescaped(b"/a\\040b\\134c\\"), b"/a b\\c\\");
        assert_eq!(mounts_below(Path::new("/proc")).unwrap().first().map(PathBuf::as_path), Some(Path::new("/proc")));
    }
}
