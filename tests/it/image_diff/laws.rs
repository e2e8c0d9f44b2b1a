//! Random pairs of images, against the trees that they are unpacked to.

use layercake::Image;
use layercake::changeset::DiffOptions;
use layercake::changeset::PackOptions;
use layercake::changeset::diff;
use layercake::changeset::pack;
use layercake::changeset::pack_tree;

use super::always;
use super::on_the_disk;
use super::stacked;
use crate::diff::trees::Tree;
use crate::support::Scratch;
use crate::support::model;
use crate::support::model::Change;
use crate::support::model::Meta;
use crate::support::model::Random;
use crate::support::tape::tar_of;
use crate::support::tools::is_root;

/// Ten thousand by hand: `LAYERCAKE_IMAGE_PAIRS=10000`.
const PAIRS: u64 = 600;

fn pairs() -> u64 {
    std::env::var("LAYERCAKE_IMAGE_PAIRS").map_or(PAIRS, |pairs| pairs.parse().expect("it is a number"))
}

type Stack = Vec<Vec<Change>>;

/// Two stacks, both of which are trees: with layers in common at the bottom, in the middle, or none, and with things that
/// are almost the same.
fn two(seed: u64) -> Option<(Stack, Stack)> {
    let mut random = Random(seed);
    let old = model::random_stack(&mut random);
    let other = model::random_stack(&mut random);
    let new = match random.below(5) {
        0 => other,
        1 => [&old[..random.below(old.len() + 1)], &other[..]].concat(),
        2 => [&other[..1], &old[..]].concat(),
        // In one layer, for all that whiteouts mean less there.
        3 => vec![old.concat()],
        _ => retouched(&old, &mut random),
    };
    (model::apply(&old).is_ok() && model::apply(&new).is_ok()).then_some((old, new))
}

/// The same with a few edits: of contents that leave size and time as they were, and of everything else.
fn retouched(stack: &Stack, random: &mut Random) -> Stack {
    let mut stack = stack.clone();
    for change in stack.iter_mut().flatten() {
        match (random.below(6), change) {
            (0 | 1, Change::File { content, .. }) => content.iter_mut().for_each(|byte| *byte ^= 1),
            (2, Change::File { meta, .. } | Change::Directory { meta, .. } | Change::Fifo { meta, .. }) => {
                retouch(meta, random)
            }
            (2, Change::Symlink { meta, .. }) => meta.uid ^= 1,
            (3, change @ (Change::Fifo { .. } | Change::Symlink { .. })) => {
                if let Change::Fifo { path, .. } | Change::Symlink { path, .. } = &*change {
                    *change = Change::Whiteout { path: path.clone() };
                }
            }
            _ => {}
        }
    }
    stack
}

fn retouch(meta: &mut Meta, random: &mut Random) {
    match random.below(4) {
        0 => meta.mode ^= 0o20,
        1 => meta.gid ^= 1,
        2 => meta.mtime.0 ^= 1,
        _ => drop(meta.xattrs.insert("user.x".to_owned(), b"other".to_vec())),
    }
}

/// Both ways, by both rules for contents. How many paths changed.
#[track_caller]
fn check(seed: u64, scratch: &Scratch, old: &Image, new: &Image) -> usize {
    let mut changed = 0;
    for (from, to, options) in [(old, new, DiffOptions::new()), (new, old, always())] {
        let found = from.diff_with(to, &options).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        let expected = on_the_disk(scratch, from, to, &options);
        assert_eq!(found, expected, "seed {seed}");
        changed += found.len();
    }
    changed
}

/// C1 to C4, L2 to L13: images differ in what their trees differ in, and in nothing else.
#[test]
fn random_stacks_differ_as_their_trees_do() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let (mut compared, mut changed) = (0, 0);
    for seed in 0..pairs() {
        let Some((old, new)) = two(seed) else { continue };
        let tars = |stack: &Stack| stack.iter().map(|layer| tar_of(layer)).collect::<Vec<_>>();
        let (here, there) = (scratch.store("here"), scratch.store("there"));
        changed += check(seed, &scratch, &stacked(&here, &tars(&old)), &stacked(&there, &tars(&new)));
        compared += 1;
        for store in [here, there] {
            std::fs::remove_dir_all(store.path()).expect("a store can be removed");
        }
    }
    println!("{compared} pairs, {changed} changes");
    assert!(compared > pairs() / 2 && changed as u64 > pairs());
}

/// The same for trees with devices, odd names and attributes of all kinds: of two that are packed whole, and of one and
/// another on top of it.
#[test]
fn random_trees_differ_as_they_do_in_layers() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let mut changed = 0;
    for seed in 0..pairs() / 4 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut tree = Tree::random(&mut random, true);
        let (one, two) = (scratch.path("one"), scratch.path("two"));
        tree.write(&one);
        tree.mutate(&mut random, true);
        tree.write(&two);
        let (mut base, mut whole, mut change) = (Vec::new(), Vec::new(), Vec::new());
        let changes = diff(&one, &two, &DiffOptions::new()).expect("trees can be compared");
        let _ = pack_tree(&one, &mut base, &PackOptions::new()).expect("a tree can be packed");
        let _ = pack_tree(&two, &mut whole, &PackOptions::new()).expect("a tree can be packed");
        let _ = pack(&two, &changes, &mut change, &PackOptions::new()).expect("changes can be packed");
        let store = scratch.store("store");
        let old = stacked(&store, std::slice::from_ref(&base));
        let whole = stacked(&store, &[whole]);
        let above = stacked(&store, &[base, change]);
        changed += check(seed, &scratch, &old, &whole) + check(seed, &scratch, &old, &above);
        let _ = check(seed, &scratch, &whole, &above);
        for path in [&one, &two, store.path()] {
            std::fs::remove_dir_all(path).expect("a tree can be removed");
        }
    }
    println!("{changed} changes");
    assert!(changed as u64 > pairs());
}
