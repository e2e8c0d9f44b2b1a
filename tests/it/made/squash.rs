//! Squashed images show what they showed.

use std::fs;
use std::path::Path;

use layercake::Compression;
use layercake::ErrorKind;
use layercake::Image;
use layercake::MediaType;
use layercake::Platform;
use layercake::Store;
use layercake::changeset::Options;
use layercake::changeset::Ownership;
use layercake::compression::EncoderOptions;
use layercake::testing::Fixture;

use crate::assert_kind;
use crate::support::Scratch;
use crate::support::failure;
use crate::support::model;
use crate::support::model::Change;
use crate::support::model::Random;
use crate::support::model::Tree;
use crate::support::tape::Item;
use crate::support::tape::tar;
use crate::support::tape::tar_of;
use crate::support::tools::is_root;
use crate::support::tree;

const STACKS: u64 = 400;

fn image_of(store: &Store, layers: impl IntoIterator<Item = Vec<u8>>) -> Image {
    let base = Fixture::new(Platform::new("linux", "amd64")).compression(Compression::None);
    let fixture = layers.into_iter().fold(base, Fixture::raw_layer);
    store.image_at(&fixture.write(store).unwrap()).unwrap()
}

fn unpacked(image: &Image, root: &Path) -> layercake::Result<Tree> {
    let done = image.unpack(root)?;
    assert_eq!(done.skipped, []);
    let found = tree::read(root);
    fs::remove_dir_all(root).unwrap();
    Ok(found)
}

/// The law: whatever the layers say, one layer instead of them, or of all but the lowest, unpacks to the same tree, to
/// the nanosecond.
#[test]
fn random_stacks_squashed_are_the_same_tree() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let mut squashed = 0;
    for seed in 0..STACKS {
        let random = &mut Random(seed);
        let layers: Vec<Vec<Change>> = model::random_stack(random);
        let Ok(expected) = model::apply(&layers) else { continue };
        let store = scratch.store("store");
        let image = image_of(&store, layers.iter().map(|layer| tar_of(layer)));
        let keep = random.below(layers.len());
        for keep in [0, keep] {
            let how = EncoderOptions::new(Compression::None);
            let found = image.squash().keep(keep).compression(how).write();
            let found = found.unwrap_or_else(|error| panic!("seed {seed}: {error}\nof {layers:#?}"));
            let count = found.layers().unwrap().len();
            assert!(count <= keep + 1);
            if count == 0 {
                assert_eq!(expected.len(), 1, "the root, and nothing in it");
                continue;
            }
            let found = unpacked(&found, &scratch.path("root")).unwrap();
            let different = found.keys().chain(expected.keys()).find(|path| found.get(*path) != expected.get(*path));
            if let Some(path) = different {
                let (found, expected) = (found.get(path), expected.get(path));
                panic!("seed {seed}, keep {keep}, {path:?}: {found:?} and not {expected:?}\nof {layers:#?}");
            }
        }
        squashed += 1;
        fs::remove_dir_all(scratch.path("store")).unwrap();
    }
    assert!(squashed > STACKS / 2, "{squashed}");
}
