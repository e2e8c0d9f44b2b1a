//! What changed from one image to another: what `changeset::diff` says of the two, unpacked (SPEC 1.4).

mod cases;
mod cost;
mod laws;

use std::fs;

use layercake::Compression;
use layercake::Image;
use layercake::Store;
use layercake::changeset::Change;
use layercake::changeset::ChangeKind;
use layercake::changeset::Changes;
use layercake::changeset::CompareContent;
use layercake::changeset::DiffOptions;
use layercake::changeset::Options;
use layercake::changeset::diff;
use layercake::testing::Fixture;

use crate::support::Scratch;
use crate::support::name;
use crate::support::platform;
use crate::support::tape::Item;
use crate::support::tape::tar;
use crate::support::tools::example;
use crate::support::tools::is_root;
use crate::support::tools::run;

/// An image of these tars.
#[track_caller]
pub fn stacked(store: &Store, layers: &[Vec<u8>]) -> Image {
    let fixture = Fixture::new(platform("linux/amd64")).compression(Compression::None);
    let fixture = layers.iter().fold(fixture, |fixture, layer| fixture.raw_layer(layer.clone()));
    fixture.write(store).and_then(|root| store.image_at(&root)).expect("an image can be made")
}

/// The tars of these layers.
pub fn tars(layers: &[&[Item]]) -> Vec<Vec<u8>> {
    layers.iter().map(|layer| tar(layer)).collect()
}

/// What the trees say that the images are unpacked to.
#[track_caller]
fn on_the_disk(scratch: &Scratch, old: &Image, new: &Image, options: &DiffOptions) -> Changes {
    let paths = [(old, scratch.path("old")), (new, scratch.path("new"))];
    for (image, path) in &paths {
        let _ = image.unpack_with(path, &Options::new()).expect("an image can be unpacked");
    }
    let changes = diff(&paths[0].1, &paths[1].1, options).expect("trees can be compared");
    paths.iter().for_each(|(_, path)| fs::remove_dir_all(path).expect("root removes everything"));
    changes
}

/// What changed, as `A path size`, and that the trees on the disk say the same.
#[track_caller]
fn changes_with(old: &[&[Item]], new: &[&[Item]], options: &DiffOptions) -> Vec<String> {
    let scratch = Scratch::new();
    let old = stacked(&scratch.store("store"), &tars(old));
    let new = stacked(&scratch.store("elsewhere"), &tars(new));
    let changes = old.diff_with(&new, options).expect("images can be compared");
    if is_root() {
        assert_eq!(changes, on_the_disk(&scratch, &old, &new, options));
    }
    changes.iter().map(line).collect()
}

#[track_caller]
fn changes(old: &[&[Item]], new: &[&[Item]]) -> Vec<String> {
    changes_with(old, new, &DiffOptions::new())
}

fn always() -> DiffOptions {
    DiffOptions::new().content(CompareContent::Always)
}

fn line(change: &Change) -> String {
    let letter = match change.kind {
        ChangeKind::Added => 'A',
        ChangeKind::Modified => 'M',
        ChangeKind::Deleted => 'D',
    };
    let slash = if change.is_directory { "/" } else { "" };
    format!("{letter} {}{slash} {}", change.path.display(), change.size)
}

/// The example: Docker's letters and leading slash; names cannot write to a terminal.
#[test]
fn the_example_prints_what_docker_diff_would() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let fine = |content: &str| Item::file("fine", content).pax("mtime", "7.5");
    let base = [Item::dir("etc"), Item::file("etc/motd", "hello"), Item::file("etc/old", "x"), fine("one")];
    let change = [
        Item::file("etc/motd", "hello, world"),
        Item::file("etc/.wh.old", ""),
        Item::file("new\u{1b}[2J", "x".repeat(1500)),
        fine("two"),
    ];
    for (reference, layers) in [("app:1", tars(&[&base])), ("app:2", tars(&[&base, &change]))] {
        store.tag(&name(reference), &stacked(&store, &layers).descriptor()).unwrap();
    }
    let diff = |arguments: &[&str]| run(example("diff").arg("--store").arg(store.path()).args(arguments));
    let listed = "C /etc/motd\nD /etc/old\nA /new\u{fffd}[2J\n";
    assert_eq!(diff(&["app:1", "app:2"]).ok(), listed);
    assert_eq!(
        diff(&["--content", "app:1", "app:2"]).ok(),
        format!("C /etc/motd\nD /etc/old\nC /fine\n{}\n", "A /new\u{fffd}[2J")
    );
    let sizes = "C      12B /etc/motd\nD       1B /etc/old\nA    1.5kB /new\u{fffd}[2J\n";
    assert_eq!(diff(&["--size", "app:1", "app:2"]).ok(), sizes);
    assert_eq!(diff(&["app:2", "app:2"]).ok(), "");
    for wrong in [&["app:1"][..], &["app:1", "nope"], &["app:1", "app:2", "app:1"], &["--what", "app:1", "app:2"]] {
        let refused = diff(wrong);
        assert_eq!((refused.status, refused.err.lines().count()), (1, 1), "{refused:?}");
    }
}
