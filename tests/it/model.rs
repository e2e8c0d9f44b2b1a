//! Random stacks of layers, against a model of the specification.

use std::path::Path;
use std::path::PathBuf;

use layercake::changeset::Layout;
use layercake::changeset::Options;
use layercake::changeset::apply;

use crate::support::Scratch;
use crate::support::model;
use crate::support::model::Change;
use crate::support::model::Random;
use crate::support::model::Tree;
use crate::support::tape::tar_of;
use crate::support::tools::is_root;
use crate::support::tools::mounts_overlays;
use crate::support::tools::overlay;
use crate::support::tree;
use crate::support::unsynced;

const STACKS: u64 = 10_000;
const OVERLAYS: u64 = 1000;

/// Applies the layers to a new directory.
fn flat(layers: &[Vec<Change>], root: &Path, options: &Options<'_>) -> layercake::Result<Tree> {
    std::fs::create_dir(root).expect("a directory can be made");
    set_root_attributes(root);
    for layer in layers {
        let _ = apply(&tar_of(layer)[..], root, options)?;
    }
    Ok(tree::read(root))
}

/// As the model's root begins.
fn set_root_attributes(root: &Path) {
    use rustix::fs::Mode;
    rustix::fs::chmod(root, Mode::from_raw_mode(0o755)).expect("its mode can be changed");
    let times = rustix::fs::Timestamps {
        last_access: rustix::fs::Timespec::default(),
        last_modification: rustix::fs::Timespec::default(),
    };
    rustix::fs::utimensat(rustix::fs::CWD, root, &times, rustix::fs::AtFlags::empty()).expect("its times can be set");
}

/// What is wrong with a stack: what the model refuses must be refused, nothing else, and the trees must be equal.
fn disagreement(found: layercake::Result<Tree>, expected: Result<Tree, String>) -> Option<String> {
    match (found, expected) {
        (Ok(found), Ok(expected)) => {
            let path = found.keys().chain(expected.keys()).find(|path| found.get(*path) != expected.get(*path))?;
            Some(format!("at {path:?}: found {:?}, expected {:?}", found.get(path), expected.get(path)))
        }
        (Err(_), Err(_)) => None,
        (Ok(_), Err(reason)) => Some(format!("must be refused: {reason}")),
        (Err(error), Ok(_)) => Some(error.to_string()),
    }
}

/// Fails with the smallest part of a stack that is still wrong.
fn check(seed: u64, mut layers: Vec<Vec<Change>>, wrong: impl Fn(&[Vec<Change>]) -> Option<String>) {
    let Some(mut reason) = wrong(&layers) else { return };
    let places = || (0..layers.len()).flat_map(|n| (0..layers[n].len()).rev().map(move |at| (n, at)));
    let places: Vec<(usize, usize)> = places().collect();
    for (layer, at) in places {
        let mut fewer = layers.clone();
        fewer[layer].remove(at);
        if let Some(still) = wrong(&fewer) {
            (layers, reason) = (fewer, still);
        }
    }
    panic!("seed {seed}: {reason}\nof {layers:#?}");
}

/// SPEC 1.3 as a whole: what is on the disk is what the model says, for ten thousand stacks, and half of them without
/// `openat2`.
#[test]
fn random_stacks_become_what_the_model_says() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let mut whole = 0;
    for seed in 0..STACKS {
        let options = if seed % 2 == 0 { unsynced() } else { unsynced().without_openat2() };
        let layers = model::random_stack(&mut Random(seed));
        whole += u64::from(model::apply(&layers).is_ok());
        check(seed, layers, |layers| {
            let root = scratch.path("root");
            let found = flat(layers, &root, &options);
            std::fs::remove_dir_all(&root).expect("root removes everything");
            disagreement(found, model::apply(layers))
        });
    }
    println!("{whole} of {STACKS} stacks were trees, the others were refused");
    assert!(whole > STACKS / 2);
}

/// L20: a mount of the layers, each in a directory of its own, shows the same tree.
#[test]
fn random_stacks_as_overlays_show_the_same() {
    if !is_root() || !mounts_overlays() {
        return;
    }
    let scratch = Scratch::new();
    for seed in 0..OVERLAYS {
        let layers = model::random_stack(&mut Random(seed));
        check(seed, layers, |layers| {
            let expected = model::apply(layers).ok()?;
            let root = scratch.dir("layers");
            let found = stacked(layers, &root).map(|lower| overlay(&lower, &scratch.path("mnt"), tree::read));
            std::fs::remove_dir_all(&root).expect("root removes everything");
            disagreement(found.map(without_links), Ok(without_links(expected)))
        });
    }
}

/// Each layer in a directory of its own, the topmost first.
fn stacked(layers: &[Vec<Change>], root: &Path) -> layercake::Result<Vec<PathBuf>> {
    let mut lower = Vec::new();
    for (n, layer) in layers.iter().enumerate() {
        let directory = root.join(n.to_string());
        std::fs::create_dir(&directory).expect("a directory can be made");
        set_root_attributes(&directory);
        let options = unsynced().layout(Layout::Overlay).lower(&lower);
        let _ = apply(&tar_of(layer)[..], &directory, &options)?;
        lower.insert(0, directory);
    }
    Ok(lower)
}

/// A hard link to what lies in a layer below is one to its copy, as overlayfs itself does it. And the root's own
/// attributes are the topmost layer's.
fn without_links(tree: Tree) -> Tree {
    let drop = |(path, node)| (path, model::Node { links: Vec::new(), ..node });
    tree.into_iter().filter(|(path, _)| !path.is_empty()).map(drop).collect()
}
