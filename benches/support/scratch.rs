//! Room to work in.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;

use rustix::mount::UnmountFlags;
use rustix::mount::unmount;

/// A directory of its own, which goes away when this is dropped, with all that is mounted in it.
pub struct Scratch(PathBuf);

impl Scratch {
    /// In `LAYERCAKE_BENCH_DIR`, or else in the temporary directory.
    pub fn new() -> Scratch {
        Scratch::within(&std::env::var_os("LAYERCAKE_BENCH_DIR").map_or_else(std::env::temp_dir, PathBuf::from))
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
        Scratch(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// A path in it where nothing is; the same as before, if that is free again: a file system may put what has another
    /// name elsewhere, which takes longer the first time.
    pub fn free(&self, what: &str) -> PathBuf {
        let mut paths = (0..).map(|n| self.0.join(format!("{what}-{n}")));
        paths.find(|path| !path.exists()).expect("numbers do not end")
    }

    /// An empty directory in it.
    pub fn room(&self, what: &str) -> Room {
        let path = self.free(what);
        fs::create_dir(&path).expect("a directory can be made");
        Room(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        clear(&self.0);
    }
}

/// A path at which everything goes away when this is dropped.
pub struct Room(pub PathBuf);

impl Drop for Room {
    fn drop(&mut self) {
        clear(&self.0);
    }
}

/// Unmounts and removes all of it.
pub fn clear(directory: &Path) {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(1));
    let mut below: Vec<&str> = points.filter(|point| Path::new(point).starts_with(directory)).collect();
    below.reverse();
    for point in below {
        // What is left mounted shows below: then the directory cannot be removed.
        let _ = unmount(point, UnmountFlags::DETACH);
    }
    if let Err(error) = fs::remove_dir_all(directory)
        && directory.exists()
    {
        eprintln!("{} stays: {error}", directory.display());
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
