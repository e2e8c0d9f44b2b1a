//! Peak memory of the operations that keep the tree of an image in memory: diff, blame, read, build and squash.
//!
//! Each operation runs in a process of its own, whose peak memory is compared between two sizes of the same input.

use std::path::PathBuf;
use std::process::Command;

use layercake::Error;
use layercake::ErrorKind;
use layercake::Image;
use layercake::ImageBuilder;
use layercake::Store;
use layercake::builder::Files;
use layercake::changeset::DiffOptions;
use layercake::changeset::Limits;
use layercake::changeset::PackOptions;
use layercake::error::Limit;

use crate::image_diff::stacked;
use crate::support::Scratch;
use crate::support::failure;
use crate::support::name;
use crate::support::tape::Item;
use crate::support::tape::tar;
use crate::support::tools::run;

const OPERATIONS: [&str; 5] = ["diff", "history", "read", "build", "squash"];
const MIB: u64 = 1 << 10;

/// The outcome and the peak memory in KiB of an operation.
struct Cost {
    outcome: String,
    peak: u64,
}

/// A store with an image of one small file, and one of this layer.
fn prepared(layer: Vec<u8>) -> Scratch {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let small = stacked(&store, &[tar(&[Item::file("small", "")])]);
    let large = stacked(&store, &[layer]);
    store.tag(&name("small:1"), &small.descriptor()).unwrap();
    store.tag(&name("large:1"), &large.descriptor()).unwrap();
    scratch
}

fn cost(scratch: &Scratch, operation: &str) -> Cost {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["cost::memory::helper_that_is_measured", "--exact", "--ignored", "--nocapture", "-q"]);
    command.env("LAYERCAKE_TEST_SCRATCH", scratch.path("")).env("LAYERCAKE_TEST_OPERATION", operation);
    let out = run(&mut command).ok();
    let value = |key: &str| out.lines().find_map(|line| line.strip_prefix(key)).map(str::trim);
    let peak = value("VmHWM:").and_then(|peak| peak.strip_suffix(" kB")?.parse().ok());
    Cost {
        outcome: value("outcome:").unwrap_or_else(|| panic!("{out}")).to_owned(),
        peak: peak.unwrap_or_else(|| panic!("{out}")),
    }
}

#[test]
#[ignore = "run by other tests, as a process of its own"]
fn helper_that_is_measured() {
    let Some(scratch) = std::env::var_os("LAYERCAKE_TEST_SCRATCH").map(PathBuf::from) else { return };
    let store = Store::open(scratch.join("store")).unwrap().with_durability(layercake::Durability::None);
    let image = |text: &str| store.image(name(text)).unwrap();
    let (small, large) = (image("small:1"), image("large:1"));
    let done = match std::env::var("LAYERCAKE_TEST_OPERATION").unwrap().as_str() {
        "diff" => small.diff(&large).map(drop),
        "history" => large.history_of("absent").map(drop),
        "read" => large.read_file("absent").map(drop),
        "build" => built(&large, Limits::default()),
        "squash" => large.squash().write().map(drop),
        other => panic!("{other}"),
    };
    let outcome = match done {
        Err(error) if !error.is_not_found() => format!("{:?}", error.kind()),
        _ => "done".to_owned(),
    };
    println!("\noutcome: {outcome}\n{}", std::fs::read_to_string("/proc/self/status").unwrap());
}

fn built(image: &Image, limits: Limits) -> layercake::Result<()> {
    let builder = ImageBuilder::from_image(image).copy(Files::bytes("new"), "/new").without_cache();
    builder.limits(limits).build().map(drop)
}

/// A name, and the entry of each number.
type Shape = (&'static str, fn(usize) -> Item);

/// Layers of which little remains.
const SHAPES: [Shape; 5] = [
    ("a directory described again and again", |n| Item::dir("d").xattr("user.large", attribute(n))),
    ("directories with equal attributes", |n| Item::dir(format!("d{n}")).xattr("user.large", attribute(0))),
    ("a file replaced again and again", |n| Item::file("f", "").mtime(n as u64)),
    ("a link replaced again and again", |n| Item::symlink("l", format!("{n}{}", "/t".repeat(2_000)))),
    ("a tree replaced again and again", |n| match n % 40 {
        39 => Item::file("t", ""),
        n => Item::symlink(format!("t/{n}"), "/t".repeat(2_000)),
    }),
];

fn attribute(n: usize) -> Vec<u8> {
    [n.to_string().into_bytes(), vec![b'x'; 60 << 10]].concat()
}

/// What replaces an entry takes its memory, and equal attributes are kept once.
#[test]
fn replaced_entries_and_equal_attributes_take_no_memory() {
    for (shape, entry) in SHAPES {
        let layer = |count: usize| tar(&(0..count).map(entry).collect::<Vec<_>>());
        let (small, large) = (prepared(layer(100)), prepared(layer(600)));
        for operation in OPERATIONS {
            let (small, large) = (cost(&small, operation), cost(&large, operation));
            println!("{operation}, {shape}: {} KiB, then {} KiB", small.peak, large.peak);
            assert_eq!((&small.outcome[..], &large.outcome[..]), ("done", "done"), "{operation}, {shape}");
            let bound = small.peak * 3 / 2 + 8 * MIB;
            assert!(large.peak < bound, "{operation}, {shape}: {} KiB, then {} KiB", small.peak, large.peak);
        }
    }
}

/// A file takes some hundred bytes, and four times as many files four times as much.
#[test]
fn memory_grows_with_the_number_of_files_and_no_faster() {
    let file = |n: usize| Item::file(format!("usr/share/{}/file-{n}", n % 500), "");
    let layer = |count: usize| tar(&(0..count).map(file).collect::<Vec<_>>());
    let (few, many) = (prepared(layer(10_000)), prepared(layer(40_000)));
    for operation in OPERATIONS {
        let (few, many) = (cost(&few, operation), cost(&many, operation));
        println!("{operation}: {} KiB, then {} KiB", few.peak, many.peak);
        assert_eq!((&few.outcome[..], &many.outcome[..]), ("done", "done"), "{operation}");
        let each = many.peak.saturating_sub(few.peak) * 1024 / 30_000;
        assert!(each < 600, "{operation}: {each} bytes for each file");
    }
}

/// Links of 4,000 bytes, 66,000 of which compress to two megabytes, do not fit into the default budget of 256 MiB.
#[test]
fn long_links_exceed_the_memory_of_each_operation() {
    let target = "/t".repeat(2_000);
    let links: Vec<Item> = (0..66_000).map(|n| Item::symlink(format!("l{n}"), &target)).collect();
    let scratch = prepared(tar(&links));
    for operation in ["diff", "history", "build", "squash"] {
        let Cost { outcome, peak } = cost(&scratch, operation);
        println!("{operation}: {peak} KiB, {outcome}");
        assert_eq!(outcome, format!("LimitExceeded {{ limit: Memory, maximum: {} }}", 256 << 20), "{operation}");
        assert!(peak < 320 * MIB, "{operation}: {peak} KiB");
    }
}

#[track_caller]
fn exceeds_memory(error: &Error) {
    let is_memory = matches!(error.kind(), ErrorKind::LimitExceeded { limit: Limit::Memory, .. });
    assert!(is_memory, "{error:?}");
}

/// The budget is an option, and a million files of ordinary size fit into the default.
#[test]
fn the_memory_budget_is_an_option() {
    let files = 20_000;
    let layer = tar(&(0..files).map(|n| Item::file(format!("d{}/file-{n}", n % 200), "")).collect::<Vec<_>>());
    let scratch = prepared(layer);
    let store = Store::open(scratch.path("store")).unwrap();
    let image = |text: &str| store.image(name(text)).unwrap();
    let (small, large) = (image("small:1"), image("large:1"));
    let limits = |bytes_per_file: u64| {
        let mut limits = Limits::default();
        limits.memory_bytes = files * bytes_per_file;
        limits
    };
    let diff = |limits| small.diff_with(&large, &DiffOptions::new().limits(limits)).map(drop);
    let squash = |limits| large.squash().limits(limits).write().map(drop);
    exceeds_memory(&failure(diff(limits(50))));
    exceeds_memory(&failure(squash(limits(50))));
    exceeds_memory(&failure(built(&large, limits(50))));
    let in_default = (256 << 20) / 1_000_000;
    diff(limits(in_default)).unwrap();
    squash(limits(in_default)).unwrap();
    built(&large, limits(in_default)).unwrap();
}

/// The same of trees on the disk: lists of changes and of names.
#[test]
fn comparing_and_packing_trees_has_a_memory_budget() {
    let scratch = Scratch::new();
    let (old, new) = (scratch.dir("old"), scratch.dir("new"));
    (0..2_000).for_each(|n| std::fs::write(new.join(format!("file-{n}")), "").unwrap());
    let mut limits = Limits::default();
    limits.memory_bytes = 100_000;
    let diff = |options: &DiffOptions| layercake::changeset::diff(&old, &new, options);
    exceeds_memory(&failure(diff(&DiffOptions::new().limits(limits))));
    assert_eq!(diff(&DiffOptions::new()).unwrap().len(), 2_000);
    let pack = |options: &PackOptions| layercake::changeset::pack_tree(&new, std::io::sink(), options);
    exceeds_memory(&failure(pack(&PackOptions::new().limits(limits))));
    assert_eq!(pack(&PackOptions::new()).unwrap().entries, 2_000);
}
