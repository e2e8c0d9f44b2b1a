//! What a comparison reads, and how long hostile layers can keep it.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use std::time::Instant;

use layercake::Image;

use super::stacked;
use super::tars;
use crate::support::Scratch;
use crate::support::blob_path;
use crate::support::name;
use crate::support::tape::Item;
use crate::support::tools::example;
use crate::support::tools::installed;
use crate::support::tools::run;

/// Images of equal layers are equal, whether the layers are there or not.
#[test]
fn equal_stacks_are_not_read() {
    let scratch = Scratch::new();
    let (here, there) = (scratch.store("here"), scratch.store("there"));
    let layers = tars(&[&[Item::file("a", "1")], &[Item::file("b", "2")]]);
    let (old, new) = (stacked(&here, &layers), stacked(&there, &layers));
    fs::remove_file(blob_path(&here, &old.manifest().layers()[0])).unwrap();
    assert!(old.diff(&new).unwrap().is_empty());
}

/// How often each layer of an image is opened while the example compares it with another.
#[track_caller]
fn opened(store: &Path, scratch: &Scratch, old: &str, new: &Image) -> Vec<usize> {
    let trace = scratch.path("trace");
    let diff = example("diff");
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-e", "trace=openat,openat2,open", "-o"]).arg(&trace).arg(diff.get_program());
    run(command.arg("--store").arg(store).args([old, "new:1"])).ok();
    let trace = fs::read_to_string(trace).unwrap();
    let times = |hex: String| trace.lines().filter(|line| line.contains(&hex)).count();
    new.manifest().layers().iter().map(|layer| times(layer.digest.hex().to_string())).collect()
}

/// Layers that both images have are read once, and their contents are not compared; others are read once more only if
/// contents of theirs must be.
#[test]
fn shared_layers_are_read_once() {
    if !installed(&["strace"]) {
        return;
    }
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let base = [Item::file("a", "1"), Item::file("b", "22")];
    let tag = |reference: &str, layers: &[&[Item]]| {
        let image = stacked(&store, &tars(layers));
        store.tag(&name(reference), &image.descriptor()).unwrap();
        image
    };
    tag("base:1", &[&base]);
    tag("edited:1", &[&base, &[Item::file("c", "edited")]]);
    let new = tag("new:1", &[&base, &[Item::file("c", "origin")], &[Item::file("d", "")]]);
    assert_eq!(opened(store.path(), &scratch, "base:1", &new), [1, 1, 1]);
    assert_eq!(opened(store.path(), &scratch, "edited:1", &new), [1, 2, 1]);
    assert_eq!(opened(store.path(), &scratch, "new:1", &new), [0, 0, 0]);
}

/// P9, P11: a layer that hides the same again and again is looked through once.
#[test]
fn whiteouts_do_not_multiply() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let files: Vec<Item> = (0..20_000).map(|n| Item::file(format!("d/{n}"), "")).collect();
    let opaque = Item::file("d/.wh..wh..opq", "");
    let hiding = [&files[..], &vec![opaque; 20_000]].concat();
    let (old, new) = (stacked(&store, &tars(&[&files])), stacked(&store, &tars(&[&files, &hiding])));
    let begun = Instant::now();
    assert!(old.diff(&new).unwrap().is_empty());
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
}
