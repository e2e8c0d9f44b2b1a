//! The cost of unpack, of layers in overlay form and of checkouts: bytes on the disk, and system calls as a measure of work.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::FileExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use layercake::Cancel;
use layercake::ErrorKind;
use layercake::Image;
use layercake::Store;
use layercake::changeset::Layout;
use layercake::changeset::Limits;
use layercake::changeset::apply;
use layercake::checkout::CheckoutMode;
use layercake::checkout::CheckoutOptions;
use layercake::error::Limit;
use layercake::testing::Fixture;

use crate::assert_kind;
use crate::breakouts::options;
use crate::support::Scratch;
use crate::support::failure;
use crate::support::name;
use crate::support::platform;
use crate::support::tape::Item;
use crate::support::tape::tar;
use crate::support::tools::example;
use crate::support::tools::installed;
use crate::support::tools::run;

const MIB: u64 = 1 << 20;

/// A file of this size that is one hole, but for its last block.
fn hole(path: &str, size: u64) -> Item {
    Item::file(format!("GNUSparseFile.0/{path}"), [7; 512])
        .pax("GNU.sparse.name", path)
        .pax("GNU.sparse.size", size.to_string())
        .pax("GNU.sparse.numblocks", "1")
        .pax("GNU.sparse.map", format!("{},512", size - 512))
}

fn image(store: &Store, layers: &[Vec<Item>]) -> Image {
    let fixture = Fixture::new(platform("linux/amd64"));
    let fixture = layers.iter().fold(fixture, |fixture, layer| fixture.raw_layer(tar(layer)));
    store.image_at(&fixture.write(store).unwrap()).unwrap()
}

/// Bytes that the files of a tree take on the disk.
fn used(tree: &Path) -> u64 {
    fn walk(directory: &Path, seen: &mut HashSet<u64>) -> u64 {
        let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
        entries
            .map(|path| match fs::symlink_metadata(&path).unwrap() {
                stat if stat.is_dir() => walk(&path, seen),
                stat if seen.insert(stat.ino()) => stat.blocks() * 512,
                _ => 0,
            })
            .sum()
    }
    walk(tree, &mut HashSet::new())
}

/// Two directories of layers: `base` with these items, and an empty one for the layer above it.
fn above(scratch: &Scratch, base: &[Item]) -> (PathBuf, PathBuf) {
    let (lower, upper) = (scratch.dir("lower"), scratch.dir("upper"));
    let _ = apply(&tar(base)[..], &lower, &options().layout(Layout::Overlay)).unwrap();
    (lower, upper)
}

fn links(count: usize) -> Vec<Item> {
    (0..count).map(|n| Item::hard_link(format!("new/{n}"), format!("old/{n}"))).collect()
}

/// `old/0` with this content, and this number of names of it.
fn named(content: &[u8], count: usize) -> Vec<Item> {
    let mut items = vec![Item::file("old/0", content)];
    items.extend((1..count).map(|n| Item::hard_link(format!("old/{n}"), "old/0")));
    items
}

#[test]
fn copy_up_keeps_holes_and_counts_what_it_copies() {
    let scratch = Scratch::new();
    let (lower, upper) = above(&scratch, &[hole("big", 1024 * MIB)]);
    let layer = [Item::hard_link("big2", "big")];
    let done = apply(&tar(&layer)[..], &upper, &options().layout(Layout::Overlay).lower([&lower])).unwrap();
    assert!(used(&upper) < MIB, "{}", used(&upper));
    assert!((512..MIB).contains(&done.bytes), "{}", done.bytes);
    let file = fs::File::open(upper.join("big2")).unwrap();
    let mut end = [0; 512];
    file.read_exact_at(&mut end, 1024 * MIB - 512).unwrap();
    assert_eq!((file.metadata().unwrap().len(), end), (1024 * MIB, [7; 512]));
}

#[test]
fn names_of_one_lower_file_become_links_to_one_copy() {
    let scratch = Scratch::new();
    let (lower, upper) = above(&scratch, &named(&[1; 100_000], 40));
    // A name goes when its file got another one, as when files are moved.
    let moved =
        |n: usize| [Item::hard_link(format!("new/{n}"), format!("old/{n}")), Item::file(format!("old/.wh.{n}"), "")];
    let layer: Vec<Item> = (0..40).flat_map(moved).collect();
    let done = apply(&tar(&layer)[..], &upper, &options().layout(Layout::Overlay).lower([&lower])).unwrap();
    assert_eq!(done.bytes, 100_000);
    let stat = fs::metadata(upper.join("new/39")).unwrap();
    assert_eq!((stat.nlink(), stat.len()), (40, 100_000));
}

#[test]
fn copy_up_does_not_link_to_a_file_that_took_the_place_of_a_copy() {
    let scratch = Scratch::new();
    let (lower, upper) = above(&scratch, &named(b"lower", 3));
    let layer = [
        Item::hard_link("new/1", "old/1"),
        Item::file("old/.wh.1", ""),
        Item::file("old/.wh.0", ""),
        Item::file("new/1", "upper"),
        Item::hard_link("new/2", "old/2"),
    ];
    let _ = apply(&tar(&layer)[..], &upper, &options().layout(Layout::Overlay).lower([&lower])).unwrap();
    let read = |path: &str| fs::read_to_string(upper.join(path)).unwrap();
    assert_eq!((read("new/1"), read("new/2")), ("upper".to_owned(), "lower".to_owned()));
}

#[test]
fn copy_up_is_limited_and_cancelled() {
    let scratch = Scratch::new();
    let base: Vec<Item> = (0..40).map(|n| Item::file(format!("old/{n}"), [1; 100_000])).collect();
    let (lower, upper) = above(&scratch, &base);
    let mut limits = Limits::default();
    limits.unpacked_bytes = 2_000_000;
    let overlay = options().layout(Layout::Overlay).lower([&lower]);
    let error = failure(apply(&tar(&links(40))[..], &upper, &overlay.clone().limits(limits)));
    assert_kind!(error, ErrorKind::LimitExceeded { limit: Limit::UnpackedSize, .. });
    assert!(used(&upper) <= 2_100_000, "{}", used(&upper));

    let hole_above = Scratch::new();
    let (lower, upper) = above(&hole_above, &[hole("big", 1024 * MIB)]);
    let overlay = options().layout(Layout::Overlay).lower([&lower]).limits(limits);
    let error = failure(apply(&tar(&[Item::hard_link("big2", "big")])[..], &upper, &overlay));
    assert_kind!(error, ErrorKind::LimitExceeded { limit: Limit::UnpackedSize, .. });

    let cancel = Cancel::new();
    cancel.cancel();
    let error = failure(apply(&tar(&links(1))[..], &upper, &overlay.cancel(&cancel)));
    assert_kind!(error, ErrorKind::Cancelled);
}

/// A path of an entry may make a thousand directories, each of which takes a block.
#[test]
fn implied_directories_count_against_the_limit() {
    let path = |n: usize| format!("{n}/{}", vec!["d"; 1_000].join("/"));
    let layer: Vec<Item> = (0..4).map(|n| Item::file(path(n), "")).collect();
    let mut limits = Limits::default();
    limits.unpacked_bytes = 8 * MIB;
    for layout in [Layout::Flat, Layout::Overlay] {
        let scratch = Scratch::new();
        let root = scratch.dir("root");
        let error = failure(apply(&tar(&layer)[..], &root, &options().layout(layout).limits(limits)));
        assert_kind!(error, ErrorKind::LimitExceeded { limit: Limit::UnpackedSize, .. });
    }
}

#[test]
fn usage_counts_what_copy_up_copied() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let layers = [named(&[1; 200_000], 2), vec![Item::hard_link("new", "old/1")]];
    let image = image(&store, &layers);
    store.tag(&name("example.com/linked:1"), &image.descriptor()).unwrap();
    let work = image.checkout_with(scratch.path("work"), &CheckoutOptions::new().mode(CheckoutMode::Copy)).unwrap();
    let usage = store.usage().unwrap();
    assert!(usage.images[0].unpacked >= 400_000, "{}", usage.images[0].unpacked);
    work.discard().unwrap();
}

#[test]
fn checkouts_keep_holes_and_links() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let base = [&[hole("big", 1024 * MIB)][..], &named(&[1; 100_000], 40)].concat();
    let image = image(&store, &[base, vec![Item::file("x", "")]]);
    let path = scratch.path("work");
    let work = image.checkout_with(&path, &CheckoutOptions::new().mode(CheckoutMode::Copy)).unwrap();
    assert!(used(work.root()) < MIB, "{}", used(work.root()));
    assert_eq!(fs::metadata(work.root().join("old/7")).unwrap().nlink(), 40);
    work.discard().unwrap();
}

/// How an image is unpacked.
#[derive(Clone, Copy, Debug)]
enum Form {
    Flat,
    Overlay,
    Checkout,
}

/// System calls that an example makes, without those of a start.
fn calls(scratch: &Scratch, layers: &[Vec<Item>], form: Form) -> u64 {
    static NUMBER: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let store = scratch.store(&format!("store-{number}"));
    store.tag(&name("example.com/cost:1"), &image(&store, layers).descriptor()).unwrap();
    let (trace, target) = (scratch.path("trace"), scratch.path(&format!("target-{number}")));
    let program = example(if matches!(form, Form::Checkout) { "checkout" } else { "unpack" });
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-c", "-U", "calls,name", "-o"]).arg(&trace).arg(program.get_program());
    command.arg("--store").arg(store.path());
    match form {
        Form::Flat => command.args(["--quiet", "--layout", "flat"]),
        Form::Overlay => command.args(["--quiet", "--layout", "overlay"]),
        Form::Checkout => command.args(["--mode", "copy"]),
    };
    run(command.arg("example.com/cost:1").arg(&target)).ok();
    let text = fs::read_to_string(trace).unwrap();
    let total = text.lines().find(|line| line.ends_with("total")).unwrap_or_else(|| panic!("{text}"));
    total.split_whitespace().next().unwrap().parse().unwrap()
}

/// Asserts that work grows no faster than the size of its input: twice the increment costs at most twice as much, and a
/// quarter for what is not exact.
#[track_caller]
fn assert_linear(what: &str, sizes: [usize; 3], cost: impl Fn(usize) -> u64) {
    let [small, middle, large] = sizes.map(&cost);
    let (first, second) = (middle.saturating_sub(small), large.saturating_sub(middle));
    assert!(second <= first * 5 / 2 + 200, "{what}: {small}, {middle}, {large} system calls");
}

/// Layers that all have whiteouts deep in a tree.
fn hiding(layers: usize, depth: usize, whiteouts: usize) -> Vec<Vec<Item>> {
    let deep = vec!["d"; depth].join("/");
    let mut items = vec![(0..whiteouts).map(|n| Item::file(format!("{deep}/{n}"), "")).collect::<Vec<_>>()];
    for layer in 1..layers {
        let mut above = vec![Item::file(format!("{deep}/of-{layer}"), "")];
        above.extend((0..whiteouts).map(|n| Item::file(format!("{deep}/.wh.{}", n * layers + layer), "")));
        items.push(above);
    }
    items
}

/// P9: an image of 8 kB took a minute, as each whiteout walked from the root through all layers below it.
#[test]
fn work_is_linear_in_layers_and_depth_and_whiteouts() {
    if !installed(&["strace"]) {
        return;
    }
    for form in [Form::Flat, Form::Overlay, Form::Checkout] {
        let scratch = Scratch::new();
        let cost = |layers, depth, whiteouts| calls(&scratch, &hiding(layers, depth, whiteouts), form);
        assert_linear(&format!("{form:?}, depth"), [20, 40, 80], |depth| cost(6, depth, 10));
        assert_linear(&format!("{form:?}, whiteouts"), [20, 40, 80], |whiteouts| cost(6, 20, whiteouts));
        // Layers have a part each in one directory, in which names are looked for: that costs something, but not their depth.
        assert_linear(&format!("{form:?}, layers"), [6, 12, 24], |layers| cost(layers, 60, 2));
    }
}

/// Files by way of symbolic links, whiteouts among them: the links are followed once.
#[test]
fn work_is_linear_in_links_and_entries() {
    if !installed(&["strace"]) {
        return;
    }
    let through = |links: usize, entries: usize| {
        let mut base = vec![Item::dir("d/d/d/d/d/d/d/d"), Item::symlink(format!("s{links}"), "d/d/d/d/d/d/d/d")];
        base.extend((0..links).map(|n| Item::symlink(format!("s{n}"), format!("d/../d/../s{}", n + 1))));
        let entry = |n: usize| [Item::file(format!("s0/{n}"), ""), Item::file(format!("s0/.wh.old-{n}"), "")];
        vec![base, (0..entries).flat_map(entry).collect()]
    };
    for form in [Form::Flat, Form::Overlay] {
        let scratch = Scratch::new();
        let cost = |links, entries| calls(&scratch, &through(links, entries), form);
        assert_linear(&format!("{form:?}, entries"), [20, 40, 80], |entries| cost(10, entries));
        assert_linear(&format!("{form:?}, links"), [8, 16, 32], |links| cost(links, 20));
        let (few, many) = (cost(2, 40), cost(32, 40));
        assert!(many < few + 40 * 40, "{form:?}: {few} system calls with 2 links, {many} with 32");
    }
}

/// P9: links that lead in long ways are refused when there is too much of it, however small the layer is.
#[test]
fn steps_through_links_are_limited() {
    let up_and_down = "../d/".repeat(800);
    let mut layer = vec![Item::dir("d/d/d")];
    for route in 0..20 {
        layer.extend(
            (0..38).map(|n| Item::symlink(format!("d/{route}-{n}"), format!("{up_and_down}{route}-{}", n + 1))),
        );
        layer.push(Item::symlink(format!("d/{route}-38"), "d"));
    }
    let entry = |n: usize| Item::file(format!("d/{}-0/.wh.{n}", n % 20), "");
    layer.extend((0..100).map(entry));
    for layout in [Layout::Flat, Layout::Overlay] {
        let scratch = Scratch::new();
        let root = scratch.dir("root");
        let error = failure(apply(&tar(&layer)[..], &root, &options().layout(layout)));
        assert_kind!(error, ErrorKind::LimitExceeded { limit: Limit::LinkSteps, .. });
    }
}
