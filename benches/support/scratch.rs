//! Room to work in.

use std::collections::HashSet;
use std::fs;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;

use rustix::mount::UnmountFlags;
use rustix::mount::unmount;

/// A directory of its own, which goes away when this is dropped, with all that is mounted in it.
pub struct Scratch {
    path: PathBuf,
    /// On ext4, new files are slow to make where many others were removed in the last minutes, up to a millisecond each:
    /// what is no longer needed is kept there until the end, without what is in it. In memory, everything goes at once.
    attic: Option<PathBuf>,
}

impl Scratch {
    /// In `LAYERCAKE_BENCH_DIR`, or else in the temporary directory.
    pub fn new() -> Scratch {
        let parent = std::env::var_os("LAYERCAKE_BENCH_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
        let mut scratch = Scratch::within(&parent);
        scratch.attic = Some(scratch.free("attic"));
        scratch
    }

    /// In memory, if there is such a place.
    pub fn in_memory() -> Scratch {
        let memory = Path::new("/dev/shm");
        if memory.is_dir() { Scratch::within(memory) } else { Scratch::new() }
    }

    /// Its name is in lower case, because buildah takes paths for names of images; and short, because podman takes no
    /// long ones.
    fn within(parent: &Path) -> Scratch {
        let path = parent.join(format!("layercake-{:08x}", fastrand::u32(..)));
        fs::create_dir(&path).expect("a directory can be made");
        Scratch { path, attic: None }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A path in it where nothing is; the same as before, if that is free again: a file system may put what has another
    /// name elsewhere, which takes longer the first time.
    pub fn free(&self, what: &str) -> PathBuf {
        let mut paths = (0..).map(|n| self.path.join(format!("{what}-{n}")));
        paths.find(|path| !path.exists()).expect("numbers do not end")
    }

    /// An empty directory in it.
    pub fn room(&self, what: &str) -> Room {
        let path = self.free(what);
        fs::create_dir(&path).expect("a directory can be made");
        Room { path, attic: self.attic.clone() }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        clear(&self.path);
    }
}

/// A directory that is out of the way when this is dropped.
pub struct Room {
    pub path: PathBuf,
    attic: Option<PathBuf>,
}

impl Room {
    /// Another one in it.
    pub fn room(&self, what: &str) -> Room {
        let path = self.path.join(what);
        fs::create_dir(&path).expect("a directory can be made");
        Room { path, attic: self.attic.clone() }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        match &self.attic {
            Some(attic) => put_away(&self.path, attic),
            None => clear(&self.path),
        }
    }
}

/// Unmounts and removes all of it.
fn clear(directory: &Path) {
    unmount_all(directory);
    if let Err(error) = fs::remove_dir_all(directory)
        && directory.exists()
    {
        eprintln!("{} stays: {error}", directory.display());
    }
}

/// Unmounts all of it, and keeps no more than the inodes.
fn put_away(directory: &Path, attic: &Path) {
    unmount_all(directory);
    empty(directory);
    let moved = fs::create_dir_all(attic)
        .and_then(|()| fs::rename(directory, attic.join(format!("{:016x}", fastrand::u64(..)))));
    if let Err(error) = moved {
        eprintln!("{} stays: {error}", directory.display());
    }
}

fn unmount_all(directory: &Path) {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(1));
    let mut below: Vec<&str> = points.filter(|point| Path::new(point).starts_with(directory)).collect();
    below.reverse();
    for point in below {
        // What is left mounted shows when the directory is to be removed.
        let _ = unmount(point, UnmountFlags::DETACH);
    }
}

/// Takes the bytes of files that have many.
fn empty(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let Ok(stat) = entry.metadata() else { continue };
        if stat.is_dir() {
            empty(&entry.path());
        } else if stat.is_file() && stat.len() > 16 << 10 {
            let _ = File::options().write(true).open(entry.path()).and_then(|file| file.set_len(0));
        }
    }
}

/// How many bytes the files in a directory have: those with several names once, and those of other file systems not.
pub fn bytes_in(directory: &Path) -> u64 {
    let Ok(stat) = fs::symlink_metadata(directory) else { return 0 };
    sum(directory, stat.dev(), &mut HashSet::new())
}

fn sum(directory: &Path, device: u64, seen: &mut HashSet<u64>) -> u64 {
    let mut bytes = 0;
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let Ok(stat) = entry.metadata() else { continue };
        if stat.dev() != device {
            continue;
        }
        if stat.is_dir() {
            bytes += sum(&entry.path(), device, seen);
        } else if stat.is_file() && (stat.nlink() == 1 || seen.insert(stat.ino())) {
            bytes += stat.len();
        }
    }
    bytes
}
