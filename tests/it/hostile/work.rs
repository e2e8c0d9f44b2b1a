//! Small layers that are much work: what they cost grows as they do, and no faster (P9).
//!
//! The bounds are generous, as machines may be busy: the work took many minutes when each entry looked at all names.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;
use std::time::Instant;

use layercake::changeset::Layout;
use layercake::changeset::Options;
use layercake::changeset::apply;

use crate::breakouts::listing;
use crate::breakouts::options;
use crate::support::Scratch;
use crate::support::tape::Item;
use crate::support::tape::tar;

/// Does something that must not take long.
#[track_caller]
fn quickly<T>(limit: u64, what: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let done = what();
    assert!(start.elapsed() < Duration::from_secs(limit), "{:?}", start.elapsed());
    done
}

fn whiteout(path: &str) -> Item {
    Item::file(path, "")
}

#[track_caller]
fn apply_all(layers: &[Vec<Item>], root: &Path, options: &Options<'_>) {
    for layer in layers {
        let _ = apply(&tar(layer)[..], root, options).unwrap();
    }
}

/// L4: a directory is opaque, says the layer, as often as there are files of its own in it; and the same of a name.
#[test]
fn whiteouts_again_and_again_look_once() {
    for again in ["d/.wh..wh..opq", ".wh.d", "deep/../d/e/../.wh..wh..opq"] {
        let mut layer: Vec<Item> = (0..6_000).map(|n| Item::file(format!("d/{n}"), "")).collect();
        layer.push(Item::dir("d/e"));
        layer.extend(vec![whiteout(again); 6_000]);
        let scratch = Scratch::new();
        let root = scratch.dir("root");
        quickly(90, || apply_all(&[vec![Item::file("d/old", "")], layer], &root, &options()));
        assert_eq!(std::fs::read_dir(root.join("d")).unwrap().count(), 6_001, "{again}");
    }
}

/// The same in each directory of a deep tree, from the deepest up.
#[test]
fn opaque_whiteouts_of_nested_directories_look_once() {
    let path = |depth: usize| vec!["d"; depth].join("/");
    let mut layer: Vec<Item> = (0..1_000).map(|n| Item::file(format!("{}/{n}", path(800)), "")).collect();
    layer.extend((1..800).rev().map(|depth| whiteout(&format!("{}/.wh..wh..opq", path(depth)))));
    let scratch = Scratch::new();
    let root = scratch.dir("root");
    quickly(90, || apply_all(&[layer], &root, &options()));
    assert_eq!(std::fs::read_dir(root.join(path(800))).unwrap().count(), 1_000);
}

/// The root of a layer for overlayfs, below which many names are.
#[test]
fn an_opaque_root_again_and_again_looks_once() {
    let scratch = Scratch::new();
    let (base, root) = (scratch.dir("base"), scratch.dir("root"));
    let names: Vec<Item> = (0..600).map(|n| Item::file(n.to_string(), "")).collect();
    apply_all(&[names], &base, &options().layout(Layout::Overlay));
    let above = options().layout(Layout::Overlay).lower([&base]);
    quickly(90, || apply_all(&[vec![whiteout(".wh..wh..opq"); 600]], &root, &above));
    assert_eq!(std::fs::read_dir(&root).unwrap().count(), 600);
}

/// L3, L4: what comes in after a whiteout is this layer's; what a later layer removes again is gone.
#[test]
fn whiteouts_again_and_again_remove_what_the_first_would() {
    let base = vec![Item::file("d/old", "1"), Item::file("d/e/old", "2"), Item::file("o/old", "3")];
    let change = vec![
        whiteout("d/.wh..wh..opq"),
        Item::file("d/new", "4"),
        whiteout("d/.wh..wh..opq"),
        Item::file("d", "5"),
        Item::file("d/f/new", "6"),
        whiteout("d/.wh..wh..opq"),
        Item::file("o/new", "7"),
        whiteout(".wh.o"),
        Item::file("o/newer", "8"),
        whiteout("o/.wh..wh..opq"),
        whiteout(".wh.o"),
    ];
    let later = vec![whiteout("o/.wh..wh..opq"), whiteout(".wh.d"), Item::file("d/f/last", "9")];
    let scratch = Scratch::new();
    let root = scratch.dir("root");
    apply_all(&[base.clone(), change.clone()], &root, &options());
    assert_eq!(listing(&root), ["d/", "d/f/", "d/f/new: 6", "o/", "o/new: 7", "o/newer: 8"]);
    apply_all(std::slice::from_ref(&later), &root, &options());
    assert_eq!(listing(&root), ["d/", "d/f/", "d/f/last: 9", "o/"]);
}

/// L3, L4: a directory in which nothing is left goes, too, if what removes it comes later.
#[test]
fn what_was_emptied_is_removed() {
    for last in [".wh.d", ".wh..wh..opq"] {
        let scratch = Scratch::new();
        let root = scratch.dir("root");
        let base = vec![Item::file("d/e/old", "1"), Item::file("f", "2")];
        let change = ["d/e/.wh..wh..opq", "d/.wh..wh..opq", last, ".wh.f", last].map(whiteout).to_vec();
        apply_all(&[base, change], &root, &options());
        assert_eq!(listing(&root), [""; 0], "{last}");
    }
}

/// L20: the same in the deepest tree that a path can name, above layers that are known and above none.
#[test]
fn opaque_whiteouts_of_the_deepest_directories_are_found_at_once() {
    let deepest = vec!["d"; 2_040].join("/");
    let scratch = Scratch::new();
    let (base, root) = (scratch.dir("base"), scratch.dir("root"));
    let layer = vec![whiteout(&format!("{deepest}/.wh..wh..opq")); 40];
    quickly(90, || {
        apply_all(&[vec![Item::dir(&deepest)]], &base, &options().layout(Layout::Overlay));
        apply_all(&[layer], &root, &options().layout(Layout::Overlay).lower([&base]));
    });
}

/// A link may go up and down again some hundred times, and lead to another that does, in a tree as deep as paths are long:
/// each step costs the same. The story: each way up began at the root, and took a minute for each whiteout.
#[test]
fn links_that_go_up_and_down_take_single_steps() {
    let deepest = vec!["d"; 2_000].join("/");
    let up_and_down = "../d/".repeat(810);
    let mut layer = vec![Item::dir(&deepest), Item::symlink("s", &deepest), Item::file("s/f", "")];
    layer.extend((1..39).map(|n| Item::symlink(format!("s/e{n}"), format!("{up_and_down}e{}", n + 1))));
    layer.push(Item::symlink("s/e39", "."));
    layer.extend((0..20).map(|n| whiteout(&format!("s/e1/.wh.x{n}"))));
    layer.push(Item::file("s/e1/last", ""));
    for layout in [Layout::Flat, Layout::Overlay] {
        let scratch = Scratch::new();
        let root = scratch.dir("root");
        quickly(90, || apply_all(std::slice::from_ref(&layer), &root, &options().layout(layout)));
        assert!(root.join(&deepest).join("last").exists(), "{layout:?}");
    }
}

/// L3, L4: a directory that was only passed through is no reason to keep anything, also where all was looked at before.
#[test]
fn what_is_implied_after_a_whiteout_is_removed_by_the_next() {
    let scratch = Scratch::new();
    let root = scratch.dir("root");
    let change = vec![
        Item::dir("c"),
        whiteout("c/.wh..wh..opq"),
        Item::symlink("b", "c/x/../a"),
        Item::dir("b/y"),
        whiteout("c/.wh..wh..opq"),
    ];
    apply_all(&[change], &root, &options());
    assert_eq!(listing(&root), ["b -> c/x/../a", "c/", "c/a/", "c/a/y/"]);
}

/// L20: a directory may get the inode of one that was emptied and removed before: what was copied up into it goes.
#[test]
fn a_new_directory_is_not_taken_for_an_emptied_one() {
    let scratch = Scratch::new();
    let (base, root) = (scratch.dir("base"), scratch.dir("root"));
    let overlay = options().layout(Layout::Overlay);
    let pairs = 0..8;
    let below = |n| [Item::dir(format!("p{n}/a/s")), Item::file(format!("p{n}/b/other"), "x")];
    apply_all(&[pairs.clone().flat_map(below).collect()], &base, &overlay.clone());
    let change = |n| {
        [
            whiteout(&format!("p{n}/a/s/.wh..wh..opq")),
            whiteout(&format!("p{n}/.wh.a")),
            Item::dir(format!("p{n}/b")),
            Item::hard_link(format!("p{n}/l"), format!("p{n}/b/other")),
            whiteout(&format!("p{n}/b/.wh..wh..opq")),
        ]
    };
    apply_all(&[pairs.clone().flat_map(change).collect()], &root, &overlay.lower([&base]));
    for n in pairs {
        assert_eq!(std::fs::read_dir(root.join(format!("p{n}/b"))).unwrap().count(), 0, "{n}");
        assert_eq!(std::fs::read(root.join(format!("p{n}/l"))).unwrap(), b"x", "{n}");
    }
}

/// P2: what is removed in a directory of this layer's leaves its time and mode as they are said to be, also where so many
/// directories came in between that this one was finished.
#[test]
fn removing_leaves_a_finished_directory_as_it_was() {
    let scratch = Scratch::new();
    let root = scratch.dir("root");
    let mut change = vec![Item::dir("p"), Item::dir("p/d").mode(0o555).mtime(42)];
    change.extend((0..17_000).map(|n| Item::dir(format!("other/{n}"))));
    change.push(whiteout("p/.wh..wh..opq"));
    apply_all(&[vec![Item::file("p/d/old", "")], change], &root, &options());
    let stat = std::fs::symlink_metadata(root.join("p/d")).unwrap();
    assert_eq!((stat.mtime(), stat.mode() & 0o7777), (42, 0o555));
    assert_eq!(std::fs::read_dir(root.join("p/d")).unwrap().count(), 0);
}
