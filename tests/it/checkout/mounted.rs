//! What is mounted in a working copy or in a tree is not part of it (P15): it is neither compared nor packed.

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::time::SystemTime;

use layercake::Checkout;
use layercake::ErrorKind;
use layercake::changeset::DiffOptions;
use layercake::changeset::PackOptions;
use layercake::changeset::diff;
use layercake::changeset::pack_tree;
use layercake::checkout::CheckoutMode;
use layercake::checkout::CheckoutOptions;
use layercake::checkout::CommitOptions;
use layercake::testing::Fixture;

use super::checkout;
use super::listed;
use super::modes;
use crate::assert_kind;
use crate::support::Scratch;
use crate::support::failure;
use crate::support::tools::is_root;
use crate::support::tools::mounts_overlays;
use crate::support::tools::run;

/// A mount that ends with this.
struct Mounted(PathBuf);

impl Mounted {
    #[track_caller]
    fn new(what: &[&Path], on: &Path) -> Mounted {
        run(Command::new("mount").args(what).arg(on)).ok();
        Mounted(on.to_owned())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

/// Mounts a directory, a file and another file system in a tree that has `etc/motd` and `usr/`, on the same device and on
/// others, on what the image has and on what is new.
fn mount_in(root: &Path, scratch: &Scratch) -> Vec<Mounted> {
    let host = scratch.path("host");
    fs::create_dir_all(host.join("deeper")).unwrap();
    for file in ["secret", "deeper/secret"] {
        fs::write(host.join(file), "of the host\n").unwrap();
    }
    fs::create_dir(root.join("new")).unwrap();
    fs::create_dir(root.join("new/b l\tank")).unwrap();
    let (bind, tmpfs) = (Path::new("--bind"), [Path::new("-t"), Path::new("tmpfs"), Path::new("none")]);
    let mounts = vec![
        Mounted::new(&[bind, &host], &root.join("usr")),
        Mounted::new(&[bind, &host.join("secret")], &root.join("etc/motd")),
        Mounted::new(&tmpfs, &root.join("new/b l\tank")),
        // A mount upon a mount is reported once.
        Mounted::new(&tmpfs, &root.join("usr/deeper")),
    ];
    fs::write(root.join("new/b l\tank/secret"), "of the host\n").unwrap();
    fs::write(root.join("new/file"), "new\n").unwrap();
    mounts
}

#[test]
fn commit_leaves_out_what_is_mounted_in_every_mode() {
    if !is_root() {
        return;
    }
    let created = SystemTime::UNIX_EPOCH;
    let mut layers = Vec::new();
    for mode in modes() {
        let scratch = Scratch::new();
        let store = scratch.store("store");
        let image = store.image_at(&Fixture::demo().write(&store).unwrap()).unwrap();
        let work = checkout(&image, &scratch.path("work"), mode);
        let mounts = mount_in(work.root(), &scratch);
        let changes = work.changes().unwrap();
        assert_eq!(listed(&changes), ["A new", "A new/file"], "{mode}");
        let skipped: Vec<String> = changes.skipped().iter().map(|skipped| skipped.path.display().to_string()).collect();
        assert_eq!(skipped, ["etc/motd", "new/b l\tank", "usr"], "{mode}");
        let error = failure(work.commit_with(&CommitOptions::new().strict(true)));
        assert_kind!(&error, ErrorKind::NotApplied { .. });
        assert!(error.to_string().contains("something is mounted on it"), "{error}");
        let child = work.commit_with(&CommitOptions::new().created(created)).unwrap();
        layers.push(child.layers().unwrap().last().unwrap().clone());
        let _ = child.unpack(scratch.path("rootfs")).unwrap();
        let found = run(Command::new("grep").args(["-r", "of the host"]).arg(scratch.path("rootfs")));
        assert_eq!(found.out, "", "{mode}");
        assert_eq!(fs::read_to_string(scratch.path("rootfs/etc/motd")).unwrap(), "A piece of cake.\n");
        for mount in mounts.into_iter().rev() {
            drop(mount);
        }
        assert_eq!(fs::read_to_string(scratch.path("host/secret")).unwrap(), "of the host\n");
        work.discard().unwrap();
    }
    assert!(layers.iter().all(|layer| *layer == layers[0]), "one layer in all modes");
}

#[test]
fn trees_with_mounts_are_compared_and_packed_without_them() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let image = store.image_at(&Fixture::demo().write(&store).unwrap()).unwrap();
    let [old, new] = ["old", "new"].map(|name| scratch.path(name));
    for tree in [&old, &new] {
        let _ = image.unpack(tree).unwrap();
    }
    let mounts = mount_in(&new, &scratch);
    let changes = diff(&old, &new, &DiffOptions::new()).unwrap();
    assert_eq!(listed(&changes), ["A new", "A new/file"]);
    assert_eq!(changes.skipped().len(), 3);
    let mut packed = Vec::new();
    let report = pack_tree(&new, &mut packed, &PackOptions::new()).unwrap();
    assert_eq!(report.skipped.len(), 3);
    assert!(!packed.windows(11).any(|window| window == b"of the host"));
    // In the old tree it is an error: what was there before is not known.
    let error = failure(diff(&new, &old, &DiffOptions::new()));
    assert!(error.to_string().contains("something is mounted on it"), "{error}");
    for mount in mounts.into_iter().rev() {
        drop(mount);
    }
    // The root itself may be a mount point.
    let _mounted = Mounted::new(&[Path::new("--bind"), &old], &new);
    assert!(diff(&old, &new, &DiffOptions::new()).unwrap().is_empty());
}

#[test]
fn tree_that_is_mounted_in_place_of_the_working_copy_is_refused() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let image = store.image_at(&Fixture::demo().write(&store).unwrap()).unwrap();
    let host = scratch.dir("host");
    fs::write(host.join("secret"), "of the host\n").unwrap();
    for mode in modes() {
        let work = checkout(&image, &scratch.path("work"), mode);
        let name = if mode == CheckoutMode::Overlay { "upper" } else { "root" };
        let mount = Mounted::new(&[Path::new("--bind"), &host], &work.path().join(name));
        assert_kind!(failure(work.changes()), ErrorKind::InvalidCheckout { .. });
        assert_kind!(failure(work.commit("no")), ErrorKind::InvalidCheckout { .. });
        drop(mount);
        assert!(work.changes().unwrap().is_empty());
        work.discard().unwrap();
    }
}

/// The options of the mount on a directory.
fn options_of(point: &Path) -> Option<String> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let point = point.display().to_string();
    let row = table.lines().find(|line| line.split(' ').nth(4) == Some(&point))?.to_owned();
    row.split(' ').nth(5).map(str::to_owned)
}

#[test]
fn overlay_is_mounted_without_setuid_and_devices_unless_asked_for() {
    if !is_root() || !mounts_overlays() {
        return;
    }
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let image = store.image_at(&Fixture::demo().write(&store).unwrap()).unwrap();
    for (setuid, devices) in [(false, false), (true, false), (false, true), (true, true)] {
        let options = CheckoutOptions::new().mode(CheckoutMode::Overlay).allow_setuid(setuid).allow_devices(devices);
        let work = image.checkout_with(scratch.path("work"), &options).unwrap();
        let flags = |root: &Path| options_of(root).map(|text| (!text.contains("nosuid"), !text.contains("nodev")));
        assert_eq!(flags(work.root()), Some((setuid, devices)));
        let shown = work.mount_options().unwrap();
        assert_eq!((shown.nosuid, shown.nodev), (!setuid, !devices));
        drop(work);
        crate::support::tools::unmount(&scratch.path("work/root"));
        // A mount in another process, later, has the same options.
        let work = Checkout::open(scratch.path("work")).unwrap();
        assert_eq!(flags(work.root()), None);
        work.mount().unwrap();
        assert_eq!(flags(work.root()), Some((setuid, devices)));
        work.discard().unwrap();
    }
}
