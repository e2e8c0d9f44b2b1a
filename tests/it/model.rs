//! Random stacks of layers, against a model of the specification.

use std::path::Path;

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
use crate::support::tree;

const STACKS: u64 = 10_000;

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

/// Compares one stack. What the model refuses must be refused, and nothing else.
fn compare(seed: u64, found: layercake::Result<Tree>, expected: Result<Tree, String>, layers: &[Vec<Change>]) -> bool {
    match (found, expected) {
        (Ok(found), Ok(expected)) => {
            for path in found.keys().chain(expected.keys()) {
                let (found, expected) = (found.get(path), expected.get(path));
                assert_eq!(found, expected, "seed {seed}, at {path:?}, of {layers:#?}");
            }
            true
        }
        (Err(_), Err(_)) => false,
        (Ok(_), Err(reason)) => panic!("seed {seed}: must be refused, because {reason}: {layers:#?}"),
        (Err(error), Ok(_)) => panic!("seed {seed}: {error}: {layers:#?}"),
    }
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
        let layers = model::random_stack(&mut Random(seed));
        let root = scratch.path("root");
        let options = if seed % 2 == 0 { Options::new() } else { Options::new().without_openat2() };
        let found = flat(&layers, &root, &options);
        whole += u64::from(compare(seed, found, model::apply(&layers), &layers));
        std::fs::remove_dir_all(&root).expect("root removes everything");
    }
    println!("{whole} of {STACKS} stacks were trees, the others were refused");
    assert!(whole > STACKS / 2);
}

/// L20: a mount of the layers, each in a directory of its own, shows the same tree.
#[test]
fn random_stacks_as_overlays_show_the_same() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let mut compared = 0;
    for seed in 0..400 {
        let layers = model::random_stack(&mut Random(seed));
        let Ok(expected) = model::apply(&layers) else { continue };
        let root = scratch.dir("layers");
        let mut lower: Vec<std::path::PathBuf> = Vec::new();
        for (n, layer) in layers.iter().enumerate() {
            let directory = root.join(n.to_string());
            std::fs::create_dir(&directory).expect("a directory can be made");
            set_root_attributes(&directory);
            let options = Options::new().layout(Layout::Overlay).lower(&lower);
            let done = apply(&tar_of(layer)[..], &directory, &options);
            let _ = done.unwrap_or_else(|error| panic!("seed {seed}: {error}: {layers:#?}"));
            lower.insert(0, directory);
        }
        let found = crate::support::tools::overlay(&lower, &scratch.path("mnt"), tree::read);
        std::fs::remove_dir_all(&root).expect("root removes everything");
        let Some(found) = found else { return };
        // A hard link to what lies in a layer below is a link to its copy; overlayfs does the same.
        let without_links = |tree: Tree| -> Tree {
            let drop = |(path, node)| (path, model::Node { links: Vec::new(), ..node });
            tree.into_iter().map(drop).collect()
        };
        compare(seed, Ok(without_links(found)), Ok(without_links(expected)), &layers);
        compared += 1;
    }
    assert!(compared > 200, "{compared}");
}
