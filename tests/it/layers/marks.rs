//! L20: a layer by itself, as overlayfs wants it, where nothing is known of the layers below.

use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use layercake::changeset::Layout;
use layercake::changeset::Options;
use layercake::changeset::Ownership;
use layercake::changeset::apply;
use layercake::testing::Fixture;

use super::applied;
use crate::breakouts::options;
use crate::support::Scratch;
use crate::support::name;
use crate::support::platform;
use crate::support::tape::Item;
use crate::support::tape::tar;
use crate::support::tools::example;
use crate::support::tools::installed;
use crate::support::tools::is_root;
use crate::support::tools::run;
use crate::support::tree;
use crate::support::unsynced;

/// An extended attribute in one of overlayfs' two name spaces, if it is there.
fn attribute(path: &Path, space: &str, name: &str) -> Option<String> {
    let mut value = vec![0; 256];
    let length = rustix::fs::lgetxattr(path, format!("{space}.overlay.{name}"), &mut value[..]).ok()?;
    Some(String::from_utf8_lossy(&value[..length]).into_owned())
}

/// All that lies below a directory: `d/`, `d/ opaque=y`, `file`, and for what is removed `x removed`.
#[track_caller]
fn marks(root: &Path, space: &str) -> Vec<String> {
    let line = |path: &Vec<u8>| {
        let name = String::from_utf8(path.clone()).unwrap();
        let path = root.join(&name);
        let stat = fs::symlink_metadata(&path).unwrap();
        let opaque = attribute(&path, space, "opaque").map_or(String::new(), |value| format!(" opaque={value}"));
        match stat.file_type() {
            device if device.is_char_device() && stat.rdev() == 0 => format!("{name} removed"),
            file if file.is_file() && attribute(&path, space, "whiteout").is_some() => format!("{name} removed"),
            directory if directory.is_dir() => format!("{name}/{opaque}"),
            _ => format!("{name}{opaque}"),
        }
    };
    tree::lines(root).keys().filter(|path| !path.is_empty()).map(line).collect()
}

/// The options, each with the name space that it has.
fn spaces() -> Vec<(&'static str, Options<'static>)> {
    let options = |owner| unsynced().layout(Layout::Overlay).ownership(owner);
    let mut all = vec![("user", options(Ownership::CurrentUser))];
    if is_root() {
        all.push(("trusted", options(Ownership::Preserve)));
    }
    all
}

/// Applies a layer in both name spaces, and compares what is there.
#[track_caller]
fn becomes(layer: &[Item], expected: &[&str]) {
    let scratch = Scratch::new();
    for (space, options) in spaces() {
        assert_eq!(marks(&applied(&scratch, space, &[layer], &options), space), expected, "{space}");
    }
}

/// The same, whichever of the entries comes first.
#[track_caller]
fn becomes_either_way(one: &Item, other: &Item, expected: &[&str]) {
    becomes(&[one.clone(), other.clone()], expected);
    becomes(&[other.clone(), one.clone()], expected);
}

fn whiteout(path: &str) -> Item {
    Item::file(path, "")
}

/// Nothing is known of what lies below, so everything is marked; what leads to it is made.
#[test]
fn what_is_removed_is_marked() {
    let layer = [whiteout(".wh.a"), whiteout("d/e/.wh.b"), whiteout("o/.wh..wh..opq"), Item::file("o/new", "x")];
    becomes(&layer, &["a removed", "d/", "d/e/", "d/e/b removed", "o/ opaque=y", "o/new"]);
    let scratch = Scratch::new();
    if is_root() {
        let root = applied(&scratch, "root", &[&layer], &options().layout(Layout::Overlay));
        assert!(fs::symlink_metadata(root.join("a")).unwrap().file_type().is_char_device());
        let stat = |path: &str| fs::symlink_metadata(root.join(path)).unwrap();
        assert_eq!((stat("d").mode() & 0o7777, stat("d").mtime(), stat("o").mtime()), (0o755, 0, 0));
    }
}

/// L3, L4: this layer's own things stay, wherever the whiteout stands; a directory of its own hides all below.
#[test]
fn what_is_made_stays() {
    becomes_either_way(&Item::file("a", "x"), &whiteout(".wh.a"), &["a"]);
    becomes_either_way(&Item::dir("a"), &whiteout(".wh.a"), &["a/ opaque=y"]);
    becomes_either_way(&Item::file("a/b", "x"), &whiteout(".wh.a"), &["a/ opaque=y", "a/b"]);
    becomes_either_way(&Item::file("a/b", "x"), &whiteout("a/.wh..wh..opq"), &["a/ opaque=y", "a/b"]);
    becomes_either_way(&Item::dir("a"), &whiteout("a/.wh..wh..opq"), &["a/ opaque=y"]);
}

/// L7: nothing has a name that is longer than names can be, so nothing is removed.
#[test]
fn a_whiteout_of_what_no_name_can_be_does_nothing() {
    for long in [255, 4000].map(|length| "n".repeat(length)) {
        for path in [format!(".wh.{long}n"), format!("a/.wh.{long}n"), format!("{long}nnn/.wh.b")] {
            becomes(&[Item::file("a/b", "x"), Item::new(b'0', "").path(path)], &["a/", "a/b"]);
        }
        becomes(&[Item::file("b", "x"), Item::new(b'0', "").path(format!("{long}nnn/.wh..wh..opq"))], &["b"]);
    }
}

/// No marks in a directory that hides all below.
#[test]
fn nothing_is_marked_in_an_opaque_directory() {
    becomes_either_way(&whiteout("a/.wh.b"), &whiteout("a/.wh..wh..opq"), &["a/ opaque=y"]);
    becomes_either_way(&whiteout("a/b/.wh.c"), &whiteout("a/b/.wh..wh..opq"), &["a/", "a/b/ opaque=y"]);
    becomes(&[whiteout("a/.wh..wh..opq"), Item::dir("a/b"), whiteout("a/b/.wh.c")], &["a/ opaque=y", "a/b/"]);
}

/// A directory in the place of something else of this layer hides what lies below, as the first one did.
#[test]
fn a_directory_over_a_file_is_opaque() {
    becomes(&[Item::file("a", "x"), Item::dir("a")], &["a/ opaque=y"]);
    becomes(&[Item::file("a", "x"), Item::file("a/b", "x")], &["a/ opaque=y", "a/b"]);
    becomes(&[whiteout(".wh.a"), Item::dir("a"), Item::file("a/b", "x")], &["a/ opaque=y", "a/b"]);
}

/// L7: a whiteout below a file of this layer names nothing, and takes nothing away.
#[test]
fn a_whiteout_below_a_file_does_nothing() {
    becomes(&[Item::file("a", "x"), whiteout("a/.wh.b")], &["a"]);
}

/// L7: the same for an opaque one.
#[test]
fn an_opaque_whiteout_of_a_file_does_nothing() {
    becomes(&[Item::file("a", "x"), whiteout("a/.wh..wh..opq")], &["a"]);
}

/// L7: what was removed stays removed, whatever is said to be removed in it.
#[test]
fn a_whiteout_below_a_whiteout_does_nothing() {
    becomes(&[whiteout(".wh.a"), whiteout("a/.wh.b")], &["a removed"]);
}

/// L7: the same for an opaque one.
#[test]
fn an_opaque_whiteout_of_a_whiteout_does_nothing() {
    becomes(&[whiteout(".wh.a"), whiteout("a/.wh..wh..opq")], &["a removed"]);
}

/// An image's own attributes of overlayfs are escaped, so that they mark nothing; in a flat tree they are left out.
#[test]
fn an_images_own_marks_are_escaped() {
    let scratch = Scratch::new();
    let layer =
        [Item::dir("a").xattr("user.overlay.opaque", "y"), Item::file("b", "").xattr("user.overlay.whiteout", "y")];
    let root = applied(&scratch, "marked", &[&layer], &options().layout(Layout::Overlay));
    assert_eq!(marks(&root, "user"), ["a/", "b"]);
    assert_eq!(tree::xattr(&root.join("a"), "user.overlay.overlay.opaque"), b"y");
    assert_eq!(tree::xattr(&root.join("b"), "user.overlay.overlay.whiteout"), b"y");
    let flat = scratch.dir("flat");
    let done = apply(&tar(&layer)[..], &flat, &options()).unwrap();
    let skipped: Vec<String> = done.skipped.iter().map(ToString::to_string).collect();
    let left_out = |name: &str, path: &str| format!("{path}: attribute user.overlay.{name}: is overlayfs'");
    assert_eq!(skipped, [left_out("opaque", "a"), left_out("whiteout", "b")]);
    assert_eq!(marks(&flat, "user"), ["a/", "b"]);
}

/// Where no device may be made at all, not even 0/0, what is removed is an empty file with an attribute, and its
/// directory says that there are such.
#[test]
fn without_devices_attributes_are_marks() {
    if !installed(&["strace"]) {
        return;
    }
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let layers = [
        vec![Item::file("d/a", "x"), Item::file("d/b", "x"), Item::file("o/old", "x")],
        vec![whiteout("d/.wh.a"), whiteout("o/.wh.old"), whiteout("o/.wh..wh..opq"), Item::file("o/new", "x")],
    ];
    let fixture = Fixture::new(platform("linux/amd64"));
    let fixture = layers.iter().fold(fixture, |fixture, layer| fixture.raw_layer(tar(layer)));
    fixture.tag(&store, &name("app:1")).unwrap();
    let unpack = |target: &PathBuf| {
        let unpack = example("unpack");
        let mut command = Command::new("strace");
        command.args(["-f", "-qq", "-o", "/dev/null", "-e", "inject=mknodat:error=EPERM"]).arg(unpack.get_program());
        command.args(["--rootless", "--layout", "overlay", "--store"]).arg(store.path()).arg("app:1").arg(target);
        run(&mut command).ok()
    };
    let target = scratch.path("layers");
    unpack(&target);
    assert_eq!(marks(&target.join("2"), "user"), ["d/ opaque=x", "d/a removed", "o/ opaque=y", "o/new"]);
    assert!(fs::symlink_metadata(target.join("2/d/a")).unwrap().is_file());
}
