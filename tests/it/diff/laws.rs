//! Laws, for random pairs of trees.

use std::path::Path;

use layercake::changeset::Changes;
use layercake::changeset::DiffOptions;
use layercake::changeset::Options;
use layercake::changeset::Ownership;
use layercake::changeset::PackOptions;
use layercake::changeset::apply;
use layercake::changeset::diff;
use layercake::changeset::pack;
use layercake::changeset::pack_tree;

use super::trees::Tree;
use crate::support::Scratch;
use crate::support::tree::Lines;
use crate::support::tree::lines;
use crate::support::tree::said;
use crate::support::unsynced;

/// Ten thousand by hand: `LAYERCAKE_DIFF_PAIRS=10000`.
const PAIRS: u64 = 1500;

fn pairs() -> u64 {
    std::env::var("LAYERCAKE_DIFF_PAIRS").map_or(PAIRS, |pairs| pairs.parse().expect("it is a number"))
}

fn options(root: bool) -> Options<'static> {
    let ownership = if root { Ownership::Preserve } else { Ownership::CurrentUser };
    unsynced().ownership(ownership).strict(true)
}

#[track_caller]
fn changes(old: &Path, new: &Path) -> Changes {
    diff(old, new, &DiffOptions::new()).expect("trees can be compared")
}

/// Fails with the first path that differs.
#[track_caller]
fn assert_equal(seed: u64, found: &Lines, expected: &Lines) {
    for path in found.keys().chain(expected.keys()) {
        let name = String::from_utf8_lossy(path);
        assert_eq!(found.get(path), expected.get(path), "seed {seed}, {name}");
    }
}

/// apply(diff(a, b), a) = b, and then nothing differs but fractions of seconds; a second time gives the same bytes.
#[test]
fn a_difference_applied_makes_the_other_tree() {
    let root = rustix::process::geteuid().is_root();
    let scratch = Scratch::new();
    let (old, new) = (scratch.path("old"), scratch.path("new"));
    let mut changed = 0;
    for seed in 0..pairs() {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut tree = Tree::random(&mut random, root);
        tree.mutate(&mut random, root);
        tree.write(&old);
        let before = tree.clone();
        tree.mutate(&mut random, root);
        tree.date_edits(&before);
        tree.write(&new);

        let changes = changes(&old, &new);
        changed += u64::from(!changes.is_empty());
        let mut layer = Vec::new();
        let packed = pack(&new, &changes, &mut layer, &PackOptions::new()).expect("changes can be packed");
        assert_eq!(packed.size, layer.len() as u64);
        let done = apply(&layer[..], &old, &options(root)).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        assert_eq!(done.entries, packed.entries);
        assert_equal(seed, &said(lines(&old)), &said(lines(&new)));
        for path in [&old, &new] {
            std::fs::remove_dir_all(path).expect("a tree can be removed");
        }
    }
    println!("{changed} of {} pairs differed", pairs());
    assert!(changed * 2 > pairs());
}

/// pack_tree(b) = pack(diff(∅, b)), it makes b of nothing, and two copies of a tree make one layer.
#[test]
fn a_whole_tree_is_a_difference_to_nothing() {
    let root = rustix::process::geteuid().is_root();
    let scratch = Scratch::new();
    let empty = scratch.dir("empty");
    for seed in 0..pairs() / 5 {
        let tree = Tree::random(&mut fastrand::Rng::with_seed(seed), root);
        let (one, two, three) = (scratch.path("one"), scratch.path("two"), scratch.dir("three"));
        tree.write(&one);
        tree.write(&two);
        let (mut whole, mut part) = (Vec::new(), Vec::new());
        let options_ = PackOptions::new();
        let packed = pack_tree(&one, &mut whole, &options_).expect("a tree can be packed");
        let same = pack(&two, &changes(&empty, &two), &mut part, &options_).expect("changes can be packed");
        assert_eq!((packed, whole == part), (same, true), "seed {seed}");
        let _ = apply(&whole[..], &three, &options(root)).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        assert_equal(seed, &said(lines(&three)), &said(lines(&one)));
        for path in [&one, &two, &three] {
            std::fs::remove_dir_all(path).expect("a tree can be removed");
        }
    }
}
