//! P15: no change and no removal crosses a mount point, bind mounts within one file system included.
//!
//! The story behind these: a whiteout of a directory in which an administrator had mounted their data removed the data.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use layercake::ErrorKind;
use layercake::changeset::Options;
use layercake::changeset::apply;

use crate::assert_kind;
use crate::support::Scratch;
use crate::support::failure;
use crate::support::tape::Item;
use crate::support::tape::tar;
use crate::support::tools::is_root;
use crate::support::tools::run;
use crate::support::unsynced;

/// Data that is mounted in a tree, until this is dropped.
struct Mounted {
    scratch: Scratch,
    root: PathBuf,
}

impl Mounted {
    /// A directory on `root/a/mnt`, and a file on `root/a/file`. None where nothing can be mounted.
    fn new() -> Option<Mounted> {
        if !is_root() {
            return None;
        }
        let scratch = Scratch::new();
        let (data, root) = (scratch.dir("data"), scratch.dir("root"));
        fs::create_dir_all(data.join("sub")).unwrap();
        fs::write(data.join("sub/precious"), "1").unwrap();
        fs::create_dir_all(root.join("a/mnt")).unwrap();
        fs::write(root.join("a/file"), "under").unwrap();
        std::os::unix::fs::symlink("a/mnt", root.join("link")).unwrap();
        let mounted = Mounted { scratch, root };
        for (from, to) in [("data", "a/mnt"), ("data/sub/precious", "a/file")] {
            let mut mount = Command::new("mount");
            let ran = run(mount.arg("--bind").args([mounted.scratch.path(from), mounted.root.join(to)]));
            if ran.status != 0 {
                println!("ignored: nothing can be mounted: {}", ran.err);
                return None;
            }
        }
        Some(mounted)
    }

    /// Fails at this mount point, and leaves what is mounted there alone.
    #[track_caller]
    fn refuses(&self, items: &[Item], options: &Options<'_>, point: &str) {
        let before = fs::metadata(self.scratch.path("data")).unwrap();
        let error = failure(apply(&tar(items)[..], &self.root, options));
        assert_kind!(error, ErrorKind::MountPoint { path } if *path == self.root.join(point));
        assert_eq!(fs::read_to_string(self.scratch.path("data/sub/precious")).unwrap(), "1");
        assert_eq!(fs::read_dir(self.scratch.path("data")).unwrap().count(), 1);
        assert_eq!(fs::read_dir(self.scratch.path("data/sub")).unwrap().count(), 1);
        let after = fs::metadata(self.scratch.path("data")).unwrap();
        assert_eq!((before.mode(), before.mtime_nsec()), (after.mode(), after.mtime_nsec()));
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        for point in ["a/mnt", "a/file"] {
            let _ = Command::new("umount").arg("--lazy").arg(self.root.join(point)).output();
        }
    }
}

#[test]
fn apply_stops_at_mount_points() {
    let Some(mounted) = Mounted::new() else { return };
    for options in [unsynced(), unsynced().without_openat2()] {
        let refuses = |items: &[Item], point: &str| mounted.refuses(items, &options, point);
        refuses(&[Item::file("a/.wh.mnt", "")], "a/mnt");
        refuses(&[Item::file("a/mnt/.wh.sub", "")], "a/mnt");
        refuses(&[Item::file("a/mnt/sub/.wh.precious", "")], "a/mnt");
        refuses(&[Item::file("a/mnt/.wh..wh..opq", "")], "a/mnt");
        refuses(&[Item::file("a/mnt", "a file in its place")], "a/mnt");
        refuses(&[Item::symlink("a/mnt", "elsewhere")], "a/mnt");
        refuses(&[Item::dir("a/mnt").mode(0o700)], "a/mnt");
        refuses(&[Item::file("a/mnt/new", "")], "a/mnt");
        refuses(&[Item::file("a/mnt/sub/precious", "2")], "a/mnt");
        refuses(&[Item::file("a/mnt/new/deep/file", "")], "a/mnt");
        refuses(&[Item::file("link/new", "")], "a/mnt");
        refuses(&[Item::hard_link("stolen", "a/mnt/sub/precious")], "a/mnt");
        refuses(&[Item::hard_link("stolen", "a/file")], "a/file");
        refuses(&[Item::file("a/.wh.file", "")], "a/file");
        refuses(&[Item::file("a/file", "2")], "a/file");
    }
}

#[test]
fn apply_removes_no_tree_with_a_mount_point_in_it() {
    for items in [
        [Item::file(".wh.a", "")],
        [Item::file("a", "")],
        [Item::file("a/.wh..wh..opq", "")],
        [Item::file(".wh..wh..opq", "")],
    ] {
        let Some(mounted) = Mounted::new() else { return };
        let error = failure(apply(&tar(&items)[..], &mounted.root, &unsynced()));
        assert_kind!(error, ErrorKind::MountPoint { .. });
        assert_eq!(fs::read_to_string(mounted.scratch.path("data/sub/precious")).unwrap(), "1");
        assert!(mounted.root.join("a/mnt/sub/precious").exists());
    }
}

/// The root of the operation may be a mount point.
#[test]
fn apply_changes_a_root_that_is_a_mount_point() {
    let Some(mounted) = Mounted::new() else { return };
    let root: &Path = &mounted.root.join("a/mnt");
    let layer = tar(&[Item::dir(".").mode(0o750), Item::file("sub/.wh.precious", ""), Item::file("new", "")]);
    let _ = apply(&layer[..], root, &unsynced()).unwrap();
    assert!(!root.join("sub/precious").exists() && root.join("new").exists());
    let _ = apply(&tar(&[Item::file(".wh..wh..opq", "")])[..], root, &unsynced()).unwrap();
    assert_eq!(fs::read_dir(root).unwrap().count(), 0);
}
