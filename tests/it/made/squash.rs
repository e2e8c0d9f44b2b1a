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

/// The names and kinds of the only layer, or of the topmost one.
fn topmost(image: &Image) -> Vec<String> {
    let layers = image.layers().unwrap();
    let mut entries = layers.last().unwrap().entries().unwrap();
    let mut found = Vec::new();
    while let Some(entry) = entries.next_entry().unwrap() {
        found.push(format!("{} {:?}", entry.path().display(), entry.kind()));
    }
    found
}

/// C2, C4, L8: whiteouts against what stays are kept and stand first; parents are said; a thing is said with all its
/// names, or not at all.
#[test]
fn what_stays_is_said_nothing_of() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let base = tar(&[
        Item::dir("etc"),
        Item::file("etc/motd", "base"),
        Item::file("etc/issue", "gone"),
        Item::file("tool", "tool"),
        Item::hard_link("alias", "tool"),
        Item::file("kept", "kept"),
    ]);
    let first = tar(&[Item::dir("etc"), Item::file("etc/.wh.issue", ""), Item::file("etc/tmp", "passing")]);
    let second = tar(&[Item::file("etc/.wh.tmp", ""), Item::hard_link("etc/third", "tool")]);
    let image = image_of(&store, [base, first, second]);
    let squashed = image.squash().keep(1).write().unwrap();
    let expected = [
        "etc Directory",
        "etc/issue Whiteout",
        "alias File",
        "etc/third HardLink { target: \"alias\" }",
        "tool HardLink { target: \"alias\" }",
    ];
    let mut found = topmost(&squashed);
    found[3..].sort();
    assert_eq!(found, expected);
    let all = image.squash().write().unwrap();
    assert!(topmost(&all).iter().all(|line| !line.contains("Whiteout") && !line.contains("tmp")));
    assert_eq!(image.squash().keep(3).write().unwrap().digest(), image.digest());
    assert_kind!(failure(image.squash().keep(4).write()), ErrorKind::InvalidInput(_));
}

/// Layers that come to nothing make no layer (C8), and their steps stay in the history.
#[test]
fn what_comes_to_nothing_makes_no_layer() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let base = tar(&[Item::file("a", "a")]);
    let layers = [base, tar(&[Item::file("b", "b")]), tar(&[Item::file(".wh.b", "")])];
    let squashed = image_of(&store, layers).squash().keep(1).comment("nothing").write().unwrap();
    assert_eq!(squashed.layers().unwrap().len(), 1);
    let history = squashed.config().unwrap().history();
    let told: Vec<(bool, Option<&str>)> =
        history.iter().map(|step| (step.empty_layer, step.comment.as_deref())).collect();
    assert_eq!(told, [(false, None), (true, None), (true, None), (true, Some("nothing"))]);
}

/// L4: a directory that was only made on the way of something is hidden with all that lower layers have; 'hidden once'
/// does not hide what comes later.
#[test]
fn what_is_implied_after_a_hiding_is_hidden_by_the_next() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let layer = tar(&[
        Item::dir("c"),
        Item::file("c/.wh..wh..opq", ""),
        Item::symlink("b", "c/x/../a"),
        Item::dir("b/y"),
        Item::file("c/.wh..wh..opq", ""),
    ]);
    let squashed = image_of(&store, [layer]).squash().write().unwrap();
    let mut found = topmost(&squashed);
    found.sort();
    assert_eq!(found, ["b Symlink { target: \"c/x/../a\" }", "c Directory", "c/a Directory", "c/a/y Directory"]);
}

/// C9: Docker's images stay Docker's, and the same image makes the same layer, with however many threads.
#[test]
fn it_is_the_same_each_time() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let image = store.image_at(&Fixture::demo().docker().write(&store).unwrap()).unwrap();
    let squash = |threads| {
        let how = EncoderOptions::new(Compression::Gzip).threads(threads);
        image.squash().compression(how).write().unwrap()
    };
    let squashed = squash(1);
    assert_eq!(squash(3).digest(), squashed.digest());
    assert_eq!(squashed.manifest().layers()[0].media_type, MediaType::DOCKER_LAYER_GZIP);
    assert_eq!(squashed.manifest().media_type(), &MediaType::DOCKER_MANIFEST);
    let history = squashed.config().unwrap().history();
    assert_eq!(history.last().unwrap().comment.as_deref(), Some("3 layers as one"));
    assert_eq!(squashed.config().unwrap().cmd(), image.config().unwrap().cmd());
}

/// Whoever does it: owners that only root could give to files are in the layer, and holes are read as zeros.
#[test]
fn no_privilege_is_needed() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let layer = tar(&[
        Item::file("file", "x").owner(12, 34).mode(0o4750).xattr("user.x", "a\nb").xattr("trusted.y", ""),
        Item::device(b'3', "null", 1, 3),
    ]);
    let squashed = image_of(&store, [layer]).squash().write().unwrap();
    let layers = squashed.layers().unwrap();
    let mut entries = layers[0].entries().unwrap();
    let entry = entries.next_entry().unwrap().unwrap();
    assert_eq!((entry.uid(), entry.gid(), entry.mode(), entry.xattrs().count()), (12, 34, 0o4750, 2));
    let entry = entries.next_entry().unwrap().unwrap();
    assert_eq!(format!("{:?}", entry.kind()), "CharDevice { major: 1, minor: 3 }");
    let done = squashed.unpack_with(scratch.path("root"), &Options::new().ownership(Ownership::CurrentUser)).unwrap();
    assert_eq!(done.entries, 2);
}

/// L8: a directory may be called so, but no entry of it can.
#[test]
fn directories_called_like_whiteouts_are_refused() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let image = image_of(&store, [tar(&[Item::file(".wh.etc/passwd", "")])]);
    assert_kind!(failure(image.squash().write()), ErrorKind::InvalidInput(_));
}
