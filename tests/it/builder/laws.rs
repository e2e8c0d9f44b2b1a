//! Random trees, copied onto random images.

use std::collections::BTreeSet;

use layercake::Compression;
use layercake::changeset::apply;
use layercake::compression::EncoderOptions;

use super::*;
use crate::support::model;
use crate::support::model::Kind;
use crate::support::model::Random;
use crate::support::tape::tar_of;
use crate::support::tools::is_root;
use crate::support::tree;
use crate::support::unsynced;

const PAIRS: u64 = 400;

/// What is copied is there, once each, with its content; directories that were there, and all else, are what they were;
/// and nothing else is new but directories of root's on the way.
#[test]
fn what_is_copied_is_there_and_nothing_else_changes() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let mut copied = 0;
    for seed in 0..PAIRS {
        let random = &mut Random(seed);
        let (below, source) = (model::random_stack(random), model::random_stack(random));
        let (Ok(expected), Ok(_)) = (model::apply(&below), model::apply(&source)) else { continue };
        let store = scratch.store("store");
        let fixture = Fixture::new(Platform::new("linux", "amd64")).compression(Compression::None);
        let fixture = below.iter().fold(fixture, |fixture, layer| fixture.raw_layer(tar_of(layer)));
        let image = store.image_at(&fixture.write(&store).unwrap()).unwrap();
        let tree = scratch.dir("tree");
        for layer in &source {
            let _ = apply(&tar_of(layer)[..], &tree, &unsynced()).unwrap();
        }
        let builder = ImageBuilder::from_image(&image).compression(EncoderOptions::new(Compression::None));
        // Types that do not fit are refused, and there are many of these.
        if let Ok(built) = builder.copy(Files::at(&tree).keep_owners(), "to").build() {
            let root = scratch.path("root");
            assert_eq!(built.image.unpack(&root).unwrap().skipped, []);
            let (found, source) = (tree::read(&root), tree::read(&tree));
            fs::remove_dir_all(&root).unwrap();
            let put: BTreeSet<String> =
                if built.steps[0].layer.is_some() { put(&built.image) } else { BTreeSet::new() };
            for (path, node) in &expected {
                let there = &found[path];
                let is_replaced = put.contains(path) && !matches!(node.kind, Kind::Directory);
                assert!(is_replaced || (&there.kind, &there.meta) == (&node.kind, &node.meta), "seed {seed}: {path}");
            }
            let things =
                |tree: &model::Tree| tree.values().filter(|node| !matches!(node.kind, Kind::Directory)).count();
            assert_eq!(put.len(), things(&source), "seed {seed}");
            for path in found.keys().filter(|path| !expected.contains_key(*path) && !put.contains(*path)) {
                assert!(matches!(found[path].kind, Kind::Directory), "seed {seed}: {path}");
            }
            copied += 1;
        }
        fs::remove_dir_all(&tree).unwrap();
        fs::remove_dir_all(scratch.path("store")).unwrap();
    }
    assert!(copied > PAIRS / 5, "{copied}");
}

/// What the topmost layer has that is no directory.
fn put(image: &Image) -> BTreeSet<String> {
    let layers = image.layers().unwrap();
    let mut entries = layers.last().unwrap().entries().unwrap();
    let mut found = BTreeSet::new();
    while let Some(entry) = entries.next_entry().unwrap() {
        if entry.kind() != EntryKind::Directory {
            assert!(found.insert(entry.path().display().to_string()), "{} comes twice", entry.path().display());
        }
    }
    found
}
