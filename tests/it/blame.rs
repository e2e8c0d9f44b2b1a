//! Which layers touched a path.

use layercake::Image;
use layercake::Layer;
use layercake::changeset::ChangeKind;

use crate::image_diff::stacked;
use crate::image_diff::tars;
use crate::support::Scratch;
use crate::support::failure;
use crate::support::name;
use crate::support::tape::Item;
use crate::support::tools::example;
use crate::support::tools::run;

/// Four layers, in which everything happens.
#[track_caller]
fn image(scratch: &Scratch) -> Image {
    let base = [
        Item::dir("./").mode(0o755),
        Item::dir("etc").mtime(1),
        Item::file("etc/motd", "hello"),
        Item::file("etc/old", "x"),
        Item::dir("lib"),
        Item::file("lib/tool", "1"),
        Item::file("usr/lib/tool", "2"),
        Item::file("opt/a/b", "x"),
        Item::symlink("run", "/../tmp/run"),
        Item::file("tmp/run/pid", "7"),
    ];
    let change = [
        Item::dir("etc").mtime(2),
        Item::file("etc/motd", "hello"),
        Item::file("etc/.wh.old", ""),
        // The directory becomes a link, as in the great merge.
        Item::symlink("lib", "usr/lib"),
        Item::hard_link("etc/alias", "etc/motd"),
        Item::dir("./").mode(0o755).mtime(9),
    ];
    let third = [
        Item::dir("etc").mode(0o700),
        Item::file("opt/.wh..wh..opq", ""),
        Item::file("opt/a/c", "y"),
        Item::file("run/pid", "8"),
    ];
    let fourth = [Item::file("lib/tool", "3"), Item::file("etc/old", "back"), Item::file(".wh.opt", "")];
    stacked(&scratch.store("store"), &tars(&[&base, &change, &third, &fourth]))
}

/// The layers' numbers, with what became of the path: `M3 A0`.
#[track_caller]
fn log(image: &Image, path: &str) -> String {
    let told = image.history_of(path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let line = |blame: &layercake::image::Blame| {
        let letter = match blame.kind {
            ChangeKind::Added => 'A',
            ChangeKind::Modified => 'M',
            ChangeKind::Deleted => 'D',
        };
        format!("{letter}{}", blame.index)
    };
    told.iter().map(line).collect::<Vec<_>>().join(" ")
}

/// Newest first: additions, changes, removals by whiteouts of the path itself and of what is above, and implied
/// directories. Directories are touched by what changes them, not by being repeated.
#[test]
fn layers_that_touched_a_path_are_listed() {
    let scratch = Scratch::new();
    let image = image(&scratch);
    for (path, expected) in [
        ("etc/motd", "M1 A0"),
        ("etc/alias", "A1"),
        ("etc/old", "A3 D1 A0"),
        ("etc", "M2 A0"),
        ("opt", "D3 A0"),
        ("opt/a", "D3 A0"),
        ("opt/a/b", "D2 A0"),
        ("opt/a/c", "D3 A2"),
        ("usr/lib", "A0"),
        ("lib", "M1 A0"),
        ("", "A0"),
        ("none", ""),
        ("etc/motd/x", ""),
    ] {
        assert_eq!(log(&image, path), expected, "{path}");
    }
}

/// L13: paths are cleaned and clamped, links on the way are followed as they are in each layer, and the last component is
/// not.
#[test]
fn links_on_the_way_are_followed() {
    let scratch = Scratch::new();
    let image = image(&scratch);
    for (path, expected) in [
        ("/etc//./motd/", "M1 A0"),
        ("../../etc/x/../motd", "M1 A0"),
        ("lib/tool", "M3 M1 A0"),
        ("usr/lib/tool", "M3 A0"),
        ("run/pid", "M2 A0"),
        ("tmp/run/pid", "M2 A0"),
        ("run", "A0"),
        ("/", "A0"),
    ] {
        assert_eq!(log(&image, path), expected, "{path}");
    }
}

/// The last one is blamed, with its step; one that was deleted is answered by who deleted it; none is not found.
#[test]
fn the_last_layer_is_blamed() {
    let scratch = Scratch::new();
    let image = image(&scratch);
    let layers = image.layers().unwrap();
    for (path, index, kind) in
        [("etc/motd", 1, ChangeKind::Modified), ("opt/a/b", 2, ChangeKind::Deleted), ("usr/lib", 0, ChangeKind::Added)]
    {
        let blame = image.blame(path).unwrap();
        let expected = (index, kind, Some(format!("fixture layer {}", index + 1)), Some(&layers[index]));
        let step = &blame.step;
        assert_eq!((blame.index, blame.kind, step.history.created_by.clone(), step.layer.as_ref()), expected, "{path}");
    }
    let error = failure(image.blame("none"));
    assert!(error.is_not_found(), "{error}");
    assert_eq!(error.to_string(), format!("none in image {} not found", image.id().short()));
}

/// L3: the same whatever stands first in a layer; and what only seems to change.
#[test]
fn the_order_in_a_layer_does_not_matter() {
    let scratch = Scratch::new();
    let base = [Item::file("d/f", "1"), Item::file("d/g", "1"), Item::dir("e").mode(0o700), Item::file("e/x", "")];
    let change = [
        Item::file(".wh.d", ""),
        Item::file("d/f", "1"),
        Item::file(".wh.e", ""),
        Item::dir("e").mode(0o700),
        Item::file("e/y", ""),
    ];
    let mut reversed = change.clone();
    reversed.reverse();
    for (n, change) in [change, reversed].iter().enumerate() {
        let image = stacked(&scratch.store(&n.to_string()), &tars(&[&base, change]));
        let found = ["d", "d/f", "d/g", "e", "e/x", "e/y"].map(|path| log(&image, path));
        assert_eq!(found, ["A0", "M1 A0", "D1 A0", "A0", "D1 A0", "A1"]);
    }
}

/// L10: one more name is the layer's that gives it, be it given again; the others are left alone.
#[test]
fn names_are_given_by_layers() {
    let scratch = Scratch::new();
    let base = [Item::file("a", "1"), Item::hard_link("b", "a")];
    let change = [Item::hard_link("b", "a"), Item::hard_link("c", "b")];
    let image = stacked(&scratch.store("store"), &tars(&[&base, &change]));
    assert_eq!(["a", "b", "c"].map(|path| log(&image, path)), ["A0", "M1 A0", "A1"]);
}

/// Steps without a layer are left out of the count; an image without layers has nothing.
#[test]
fn an_image_without_layers_has_nothing() {
    let scratch = Scratch::new();
    let image = stacked(&scratch.store("store"), &[]);
    assert_eq!(image.layers().unwrap(), Vec::<Layer>::new());
    assert_eq!(log(&image, "/"), "");
    assert!(failure(image.blame("/")).is_not_found());
}

/// The example: the last layer, or all of them, newest first and numbered from 1.
#[test]
fn the_example_prints_a_table() {
    let scratch = Scratch::new();
    let image = image(&scratch);
    image.store().tag(&name("app:1"), &image.descriptor()).unwrap();
    let blame = |arguments: &[&str]| run(example("blame").arg("--store").arg(image.store().path()).args(arguments));
    let ids: Vec<String> = image.layers().unwrap().iter().map(|layer| layer.digest().short().to_string()).collect();
    let header = "CHANGE    LAYER     DIGEST         CREATED BY\n";
    let row = |letter: &str, n: usize| format!("{letter}         {n}         {}   fixture layer {n}\n", ids[n - 1]);
    assert_eq!(blame(&["app:1", "/etc/old"]).ok(), format!("{header}{}", row("A", 4)));
    let all = format!("{header}{}{}{}", row("A", 4), row("D", 2), row("A", 1));
    assert_eq!(blame(&["--all", "app:1", "etc/old"]).ok(), all);
    assert_eq!(blame(&["app:1", "lib"]).ok(), format!("{header}{}", row("C", 2)));
    let missing = blame(&["app:1", "/none"]);
    let expected = format!("error: /none in image {} not found\n", image.id().short());
    assert_eq!((missing.status, missing.err), (1, expected));
    assert_eq!(blame(&["app:1"]).status, 1);
}
