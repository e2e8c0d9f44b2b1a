//! Small layers that are much work: what they cost grows as they do, and no faster (P9).
//!
//! The bounds are generous. What is held against them took minutes when each entry looked at all that was there.

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
        quickly(15, || apply_all(&[vec![Item::file("d/old", "")], layer], &root, &options()));
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
    quickly(15, || apply_all(&[layer], &root, &options()));
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
    quickly(15, || apply_all(&[vec![whiteout(".wh..wh..opq"); 600]], &root, &above));
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
