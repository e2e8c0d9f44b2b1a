//! Devices that are left out, what takes their place, and other names of both.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use layercake::changeset::Layout;
use layercake::changeset::Options;
use layercake::changeset::apply;
use layercake::testing::Fixture;

use super::image;
use crate::breakouts::listing;
use crate::breakouts::options;
use crate::support::Scratch;
use crate::support::name;
use crate::support::platform;
use crate::support::tape::Item;
use crate::support::tape::tar;
use crate::support::tools::example;
use crate::support::tools::install;
use crate::support::tools::installed;
use crate::support::tools::run;

/// The device that overlayfs would take for a mark; no privilege is needed to have it left out.
fn mark(path: &str) -> Item {
    Item::device(b'3', path, 0, 0)
}

fn overlay() -> Options<'static> {
    options().layout(Layout::Overlay)
}

/// Applies a layer, and compares what is there, and the paths that were left out.
#[track_caller]
fn becomes(layer: &[Item], expected: &[&str], left_out: &[&str]) {
    let scratch = Scratch::new();
    let root = scratch.dir("root");
    let done = apply(&tar(layer)[..], &root, &overlay()).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(listing(&root), expected);
    let skipped: Vec<PathBuf> = done.skipped.into_iter().map(|skipped| skipped.path).collect();
    assert_eq!(skipped, left_out.iter().map(PathBuf::from).collect::<Vec<_>>());
}

/// Unpacks these layers by a process that may make no devices, in either layout. Returns what was left out, and the
/// target.
#[track_caller]
fn unpacked(scratch: &Scratch, layers: &[&[Item]], layout: &str) -> (Vec<String>, PathBuf) {
    let store = scratch.store(&format!("store-{layout}"));
    let fixture = Fixture::new(platform("linux/amd64"));
    let fixture = layers.iter().fold(fixture, |fixture, layer| fixture.raw_layer(tar(layer)));
    fixture.tag(&store, &name("app:1")).unwrap();
    store.set_readable_by_others(true).unwrap();
    let everyone = |path: &PathBuf| fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
    let targets = scratch.dir(&format!("targets-{layout}"));
    [scratch.path("."), targets.clone()].iter().for_each(everyone);
    // The program may lie where only root goes.
    let program = scratch.path("unpack");
    install(example("unpack").get_program(), &program);
    let mut command = Command::new(&program);
    if rustix::process::geteuid().is_root() {
        command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&program);
    }
    let command = command.args(["--rootless", "--layout", layout, "--store"]).arg(store.path());
    let printed = run(command.arg("app:1").arg(targets.join("root"))).ok();
    let left_out = printed.lines().filter_map(|line| line.strip_prefix("skipped: "));
    let paths = left_out.map(|line| line.split(':').next().unwrap().to_owned()).collect();
    (paths, targets.join("root"))
}

/// P2: what is one more name of something that was left out is left out too, and said to be.
#[test]
fn a_link_to_what_was_left_out_is_left_out() {
    becomes(&[mark("a"), Item::hard_link("b", "a"), Item::hard_link("c", "./b")], &[], &["a", "b", "c"]);
}

/// L13: whichever way its name leads to it.
#[test]
fn a_link_through_a_symlink_is_left_out_too() {
    let layer = [Item::dir("d"), Item::symlink("s", "d"), mark("d/a"), Item::hard_link("b", "s/a")];
    becomes(&layer, &["d/", "s -> d"], &["d/a", "b"]);
}

/// L10: in whichever layer it comes.
#[test]
fn a_link_in_a_later_layer_is_left_out_too() {
    let scratch = Scratch::new();
    let image = image(&scratch, &[&[mark("a")], &[Item::hard_link("b", "a")]]);
    let done = image.unpack_with(scratch.path("layers"), &overlay()).unwrap_or_else(|error| panic!("{error}"));
    let skipped: Vec<PathBuf> = done.skipped.into_iter().map(|skipped| skipped.path).collect();
    assert_eq!(skipped, ["a", "b"].map(PathBuf::from));
}

/// L9, L10: a file that took the place of what was left out has as many names as the layer gives it.
#[test]
fn a_file_in_the_place_of_a_device_is_linked_to() {
    becomes(&[mark("a"), Item::file("a", "x"), Item::hard_link("b", "a")], &["a: x", "b = a"], &["a"]);
}

/// The same for everything else that takes its place.
#[test]
fn a_link_in_the_place_of_a_device_is_linked_to() {
    let file = Item::file("f", "x");
    let layer = [mark("z"), file, Item::hard_link("z", "f"), Item::hard_link("b", "z")];
    becomes(&layer, &["b: x", "f = b", "z = b"], &["z"]);
    becomes(&[mark("a"), Item::fifo("a"), Item::hard_link("b", "a")], &["a|", "b = a"], &["a"]);
    becomes(&[mark("a"), Item::symlink("a", "x"), Item::hard_link("b", "a")], &["a -> x", "b = a"], &["a"]);
}

/// The same where privilege is wanting, in one layer and over two.
#[test]
fn a_file_in_the_place_of_a_forbidden_device_is_linked_to() {
    if rustix::process::geteuid().is_root() && !installed(&["setpriv"]) {
        return;
    }
    let scratch = Scratch::new();
    let base = [
        Item::device(b'3', "null", 1, 3),
        Item::device(b'4', "same", 7, 0),
        Item::file("same", "x"),
        Item::hard_link("same2", "same"),
    ];
    let change = [Item::file("null", "x"), Item::hard_link("null2", "null")];
    let (left_out, root) = unpacked(&scratch, &[&base, &change], "flat");
    assert_eq!(left_out, ["null", "same"]);
    assert_eq!(listing(&root), ["null: x", "null2 = null", "same: x", "same2 = same"]);
    let (left_out, root) = unpacked(&scratch, &[&base, &change], "overlay");
    assert_eq!(left_out, ["null", "same"]);
    assert_eq!(listing(&root.join("1")), ["same: x", "same2 = same"]);
    assert_eq!(listing(&root.join("2")), ["null: x", "null2 = null"]);
}

/// L10: a link, in a later layer, to a device that was left out for want of privilege is left out too, in both layouts.
#[test]
fn a_later_link_to_a_forbidden_device_is_left_out() {
    if rustix::process::geteuid().is_root() && !installed(&["setpriv"]) {
        return;
    }
    let scratch = Scratch::new();
    let layers: [&[Item]; 2] = [&[Item::device(b'3', "null", 1, 3)], &[Item::hard_link("null2", "null")]];
    for layout in ["flat", "overlay"] {
        assert_eq!(unpacked(&scratch, &layers, layout).0, ["null", "null2"], "{layout}");
    }
}
