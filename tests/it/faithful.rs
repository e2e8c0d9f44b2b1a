//! The tree that we make is the one that umoci makes, entry for entry; and what plain users get.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use layercake::testing::Fixture;

use crate::support::Scratch;
use crate::support::name;
use crate::support::platform;
use crate::support::tape::Item;
use crate::support::tape::tar;
use crate::support::tools::example;
use crate::support::tools::install;
use crate::support::tools::installed;
use crate::support::tools::is_root;
use crate::support::tools::run;
use crate::support::tree;

/// Of everything something.
pub fn everything() -> Fixture {
    let capability = b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    let base = [
        Item::dir("bin").mtime(7),
        Item::file("bin/su", "su").mode(0o4755).owner(1, 2).mtime(11),
        Item::file("bin/ping", "ping").xattr("security.capability", capability).mtime(12),
        Item::hard_link("bin/ping6", "bin/ping").mtime(12),
        Item::symlink("sbin", "bin").owner(5, 6).mtime(13),
        Item::symlink("up", "/../../etc"),
        Item::dir("tmp").mode(0o1777).mtime(14),
        Item::file("big-owner", "x").owner(3_000_000_000, 2_500_000).mtime(15),
        Item::file("before", "x").pax("mtime", "-1.500000000"),
        Item::file("fine", "x").pax("mtime", "1.123456789").xattr("user.note", b"a\nb\0c"),
        Item::file("gone", "x"),
        Item::file("d/one", "1"),
        Item::file("d/two", "2"),
        Item::device(b'3', "dev/null", 1, 3).mode(0o666).mtime(16),
        Item::device(b'4', "dev/loop", 7, 0).mode(0o660).owner(0, 6).mtime(17),
        Item::fifo("pipe").mode(0o600).mtime(18),
        Item::file("l".repeat(90) + "/" + &"m".repeat(90), "long").mtime(19),
    ];
    let change = [
        Item::file(".wh.gone", ""),
        Item::file("d/.wh..wh..opq", ""),
        Item::file("d/three", "3").mtime(20),
        Item::dir("tmp").mode(0o1770).owner(9, 9).mtime(21),
        Item::file("sbin/through", "link").mtime(22),
    ];
    Fixture::new(platform("linux/amd64")).raw_layer(tar(&base)).raw_layer(tar(&change))
}

/// Compares what we unpack of a layout with what umoci does.
#[track_caller]
pub fn assert_like_umoci(scratch: &Scratch, layout: &str, image: &str) {
    let (ours, theirs) = (scratch.path("ours"), scratch.path("theirs"));
    run(example("unpack").args(["--store", layout, "--strict", image]).arg(&ours)).ok();
    run(Command::new("umoci").args(["unpack", "--image", &format!("{layout}:{image}")]).arg(&theirs)).ok();
    let (ours, theirs) = (tree::lines(&ours), tree::lines(&theirs.join("rootfs")));
    let all: std::collections::BTreeSet<_> = ours.keys().chain(theirs.keys()).collect();
    // What no layer describes is of 1970 with us, and of the time of unpacking with umoci.
    let implied = |line: Option<&String>| line.is_some_and(|line| line.starts_with("40755 0:0 0 bytes, 0.000000000,"));
    let differs = |path: &&&Vec<u8>| ours.get(**path) != theirs.get(**path) && !implied(ours.get(**path));
    let differences: Vec<_> = all.iter().filter(differs).map(|path| (ours.get(*path), theirs.get(*path))).collect();
    println!("{image}: {} entries compared, {} differences", all.len(), differences.len());
    assert!(differences.is_empty(), "{differences:#?}");
    for directory in ["ours", "theirs"] {
        fs::remove_dir_all(scratch.path(directory)).unwrap();
    }
}

/// P2: an image with everything; and those that `LAYERCAKE_TEST_IMAGES` lists, as `LAYOUT:NAME` with blanks between.
#[test]
fn the_tree_is_umocis() {
    if !installed(&["umoci"]) || !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let store = scratch.store("store");
    everything().tag(&store, &name("everything:1")).unwrap();
    let index = fs::read_to_string(store.path().join("index.json")).unwrap();
    let index: serde_json::Value = serde_json::from_str(&index).unwrap();
    let stored = index["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"].as_str().unwrap().to_owned();
    // umoci takes no colon in a name.
    fs::write(store.path().join("index.json"), index.to_string().replace(&stored, "everything")).unwrap();
    assert_like_umoci(&scratch, &store.path().display().to_string(), "everything");
    for image in std::env::var("LAYERCAKE_TEST_IMAGES").unwrap_or_default().split_whitespace() {
        let (layout, name) = image.rsplit_once(':').expect("LAYOUT:NAME");
        assert_like_umoci(&scratch, layout, name);
    }
}

/// Without root: modes that lock the owner out are kept, the next layer still writes there, and all of it can be
/// removed again; devices are left out, and said to be.
#[test]
fn plain_users_unpack_too() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let base = [
        Item::dir("locked").mode(0),
        Item::file("locked/in", "1").mode(0),
        Item::dir("read-only").mode(0o555),
        Item::file("read-only/in", "1").owner(7, 7),
        Item::dir("gone").mode(0o100),
        Item::file("gone/in", "1"),
        Item::device(b'3', "null", 1, 3),
        Item::hard_link("null2", "null"),
    ];
    let change = [
        Item::file("locked/new", "2"),
        Item::file("read-only/new", "2"),
        Item::file("read-only/.wh.in", ""),
        Item::file(".wh.gone", ""),
    ];
    let image = Fixture::new(platform("linux/amd64")).raw_layer(tar(&base)).raw_layer(tar(&change));
    image.tag(&store, &name("app:1")).unwrap();
    store.set_readable_by_others(true).unwrap();
    let everyone = |path: &Path| fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
    everyone(&scratch.path("."));
    let target = scratch.dir("targets");
    everyone(&target);
    let unpack = example("unpack");
    let mut command = if rustix::process::geteuid().is_root() {
        if !installed(&["setpriv"]) {
            return;
        }
        let mut command = Command::new("setpriv");
        // The program may lie where only root goes.
        install(unpack.get_program(), &scratch.path("unpack"));
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(scratch.path("unpack"));
        command
    } else {
        unpack
    };
    let ran = run(command.arg("--rootless").arg("--store").arg(store.path()).arg("app:1").arg(target.join("root")));
    let printed = ran.ok();
    assert!(printed.contains("skipped: null: the device cannot be made"), "{printed}");
    assert!(printed.contains("skipped: null2: what it is one more name of was left out"), "{printed}");
    let mode = |path: &str| fs::symlink_metadata(target.join(path)).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode("root/locked"), mode("root/read-only")), (0, 0o555));
    if is_root() {
        assert_eq!(mode("root/locked/in"), 0);
        assert_eq!(fs::read_to_string(target.join("root/locked/new")).unwrap(), "2");
    }
    assert!(!target.join("root/read-only/in").exists() && !target.join("root/gone").exists());
}
