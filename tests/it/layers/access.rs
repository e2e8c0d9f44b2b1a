//! Default access lists: what the host's directories hand on is not the image's.

use std::path::Path;

use layercake::changeset::Layout;
use layercake::changeset::Options;
use layercake::changeset::apply;
use rustix::fs::XattrFlags;

use super::applied;
use super::image;
use crate::breakouts::options;
use crate::support::Scratch;
use crate::support::tape::Item;
use crate::support::tape::tar;
use crate::support::tools::is_root;
use crate::support::tree;

const DEFAULT: &str = "system.posix_acl_default";
const ACCESS: &str = "system.posix_acl_access";

/// Linux' form of an access list: with permissions for the owner, and others for a certain user, the group and all else.
pub fn list(owner: u16, others: u16) -> Vec<u8> {
    let entry = |(tag, permissions, id): (u16, u16, u32)| {
        [&tag.to_le_bytes()[..], &permissions.to_le_bytes(), &id.to_le_bytes()].concat()
    };
    // The owner, user 12345, the group, the mask, all others.
    let entries = [(1, owner, u32::MAX), (2, others, 12345), (4, others, u32::MAX), (16, others, u32::MAX)];
    let entries = entries.into_iter().chain([(32, others, u32::MAX)]).flat_map(entry);
    2_u32.to_le_bytes().into_iter().chain(entries).collect()
}

/// One that gives all to everybody, one that takes it from all but the owner; and, for root, who goes everywhere, one
/// that takes it from the owner too.
fn lists() -> Vec<Vec<u8>> {
    let all = [list(7, 7), list(7, 0), list(0, 0)];
    all.into_iter().take(if is_root() { 3 } else { 2 }).collect()
}

/// Gives a directory a default list. False, and says so, where the file system has none.
#[track_caller]
fn set_default(directory: &Path, list: &[u8]) -> bool {
    match rustix::fs::setxattr(directory, DEFAULT, list, XattrFlags::empty()) {
        Err(rustix::io::Errno::NOTSUP) => {
            println!("ignored: needs a file system with access lists");
            false
        }
        result => {
            result.unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
            true
        }
    }
}

/// Whether something has an extended attribute.
fn has(path: &Path, name: &str) -> bool {
    rustix::fs::lgetxattr(path, name, &mut [0_u8; 256][..]).is_ok()
}

/// Of everything something; one directory hands on a list of its own.
fn everything() -> Vec<Item> {
    let mut layer = vec![
        Item::file("file", "x").mode(0o640),
        Item::file("open", "x").mode(0o666),
        Item::file("closed", "x").mode(0o400),
        Item::dir("dir").mode(0o750).mtime(3),
        Item::file("dir/file", "x").mode(0o604),
        Item::file("implied/deep/file", "x").mode(0o777),
        Item::symlink("link", "file"),
        Item::hard_link("again", "file"),
        Item::fifo("pipe").mode(0o620),
        Item::dir("own").xattr(DEFAULT, list(7, 5)),
        Item::file("own/file", "x").mode(0o640),
        Item::dir("own/dir").mode(0o700).mtime(4),
        Item::file("own/implied/file", "x"),
    ];
    if is_root() {
        layer.push(Item::device(b'3', "null", 1, 3).mode(0o646));
    }
    layer
}

/// The tree without its root.
#[track_caller]
fn below(root: &Path) -> tree::Lines {
    let mut lines = tree::lines(root);
    lines.retain(|path, _| !path.is_empty());
    lines
}

/// Unpacks in a directory that hands on each of the lists, and compares with what is made where none is.
#[track_caller]
fn unpacks_alike(layers: &[&[Item]], options: &Options<'_>, compare: impl Fn(&Path) -> tree::Lines) {
    let scratch = Scratch::new();
    let image = image(&scratch, layers);
    let _ = image.unpack_with(scratch.path("plain"), options).unwrap();
    for (n, list) in lists().iter().enumerate() {
        let above = scratch.dir(&n.to_string());
        let target = above.join("root");
        if !set_default(&above, list) {
            return;
        }
        let done = image.unpack_with(&target, options).unwrap();
        assert_eq!(done.skipped, []);
        assert_eq!(compare(&target), compare(&scratch.path("plain")), "list {n}");
        assert!(!has(&target, ACCESS) && !has(&target, DEFAULT), "list {n}: the target has one");
    }
}

/// L1, P2: what is made has the entry's mode and attributes, and no others, whatever the directory above hands on.
#[test]
fn the_directory_of_the_target_hands_nothing_on() {
    unpacks_alike(&[&everything(), &[Item::file("dir/later", "x"), Item::dir("own/later")]], &options(), tree::lines);
}

/// The same for a target that holds directories of layers.
#[test]
fn the_directory_of_the_layers_hands_nothing_on() {
    let change = [Item::file("dir/later", "x"), Item::hard_link("more", "open")];
    unpacks_alike(&[&everything(), &change], &options().layout(Layout::Overlay), below);
}

/// A directory that exists, and what is made in it by one layer and by the next: it hands nothing on, and keeps what
/// the layers do not describe.
#[test]
fn a_directory_that_was_there_hands_nothing_on() {
    let scratch = Scratch::new();
    let change = [Item::file("dir/later", "x"), Item::file("there/file", "x").mode(0o600)];
    for (n, list) in lists().iter().enumerate() {
        for (name, layout) in [("flat", Layout::Flat), ("marked", Layout::Overlay)] {
            let options = options().layout(layout);
            let (plain, root) = (scratch.dir(&format!("{name}-{n}-plain")), scratch.dir(&format!("{name}-{n}")));
            if !set_default(&root, list) {
                return;
            }
            for directory in [&plain, &root] {
                let done = apply(&tar(&everything())[..], directory, &options).unwrap();
                assert_eq!(done.skipped, []);
            }
            assert_eq!(below(&root), below(&plain), "{name}, list {n}");
            assert_eq!(tree::xattr(&root, DEFAULT), *list);
            // One that somebody made meanwhile, further down.
            std::fs::create_dir(root.join("there")).unwrap();
            assert!(set_default(&root.join("there"), list));
            let _ = apply(&tar(&change)[..], &root, &options).unwrap();
            assert!(!has(&root.join("there/file"), ACCESS) && !has(&root.join("dir/later"), ACCESS));
            assert_eq!(tree::xattr(&root.join("there"), DEFAULT), *list);
        }
    }
}

/// L2: the root's entry describes it, and takes the list away.
#[test]
fn a_described_root_has_no_list() {
    let scratch = Scratch::new();
    let root = scratch.dir("root");
    if !set_default(&root, &list(7, 7)) {
        return;
    }
    let layer = [&[Item::dir("./").mode(0o755).mtime(2)], &everything()[..]].concat();
    let _ = apply(&tar(&layer)[..], &root, &options()).unwrap();
    let plain = applied(&scratch, "plain", &[&layer], &options());
    assert_eq!(tree::lines(&root), tree::lines(&plain));
}

/// L20: a directory that a layer only passes through is a copy of the one below, and hands on what that one does: to
/// nothing that the layers describe.
#[test]
fn a_copied_directory_hands_nothing_on() {
    let scratch = Scratch::new();
    let base = [Item::dir("own").xattr(DEFAULT, list(7, 5)), Item::file("own/old", "x").mode(0o640)];
    let change = [
        Item::file("own/file", "x").mode(0o640),
        Item::dir("own/dir").mode(0o700),
        Item::file("own/implied/file", "x"),
        Item::fifo("own/pipe"),
    ];
    let options = options().layout(Layout::Overlay);
    let _ = image(&scratch, &[&base, &change]).unpack_with(scratch.path("layers"), &options).unwrap();
    let own = scratch.path("layers/2/own");
    assert_eq!(tree::xattr(&own, DEFAULT), list(7, 5));
    let inherited = |path: &&str| has(&own.join(path), ACCESS) || has(&own.join(path), DEFAULT);
    let found: Vec<&str> = ["file", "dir", "implied", "implied/file", "pipe"].into_iter().filter(inherited).collect();
    assert_eq!(found, [""; 0]);
}

/// L20: a file that is copied for the sake of one more name is what it is below.
#[test]
fn a_copied_file_inherits_nothing() {
    let scratch = Scratch::new();
    let lower = applied(&scratch, "lower", &[&[Item::file("f", "x").mode(0o640).mtime(3)]], &options());
    let root = scratch.dir("upper");
    if !set_default(&root, &list(7, 7)) {
        return;
    }
    let options = options().layout(Layout::Overlay).lower([&lower]);
    let _ = apply(&tar(&[Item::hard_link("g", "f")])[..], &root, &options).unwrap();
    let plain = applied(&scratch, "plain", &[&[Item::hard_link("g", "f")]], &options);
    assert_eq!(below(&root), below(&plain));
}

/// L12, L20: overlayfs shows the root of the topmost layer, so one that says nothing of it has that of those below.
#[test]
fn a_root_is_what_the_last_layer_said_of_it() {
    let scratch = Scratch::new();
    let base = [Item::dir("./").mode(0o1700).owner(7, 8).mtime(42).xattr("user.of", "root"), Item::file("a", "x")];
    let image = image(&scratch, &[&base, &[Item::file("b", "x")], &[], &[Item::dir("./").mode(0o711).mtime(2)]]);
    let _ = image.unpack_with(scratch.path("layers"), &options().layout(Layout::Overlay)).unwrap();
    let roots: Vec<_> = ["1", "2", "3", "4"].map(|layer| tree::lines(&scratch.path("layers").join(layer))).into();
    let root = |layer: usize| roots[layer - 1].iter().next().unwrap();
    assert_eq!((root(2), root(3)), (root(1), root(1)));
    assert_ne!(root(4), root(1));
    assert!(!has(&scratch.path("layers/4"), "user.of"));
    let flat = scratch.path("flat");
    let _ = image.unpack_with(&flat, &options()).unwrap();
    assert_eq!(tree::lines(&flat).iter().next().unwrap(), root(4));
}
