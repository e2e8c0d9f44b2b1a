//! The law: one pass is a pull and an unpack, for images at random, and whatever goes wrong on the way.

use std::time::Duration;

use layercake::Compression;
use layercake::Error;

use super::*;
use crate::chaos::fault;
use crate::support::Scratch;
use crate::support::comparable_contents;
use crate::support::model;
use crate::support::name;
use crate::support::quick;
use crate::support::tape::tar_of;

/// How many images, unless `LAYERCAKE_ONE_PASS_IMAGES` says another number.
const IMAGES: u64 = 30;
/// How often each is pulled while things go wrong.
const TRIES: u64 = 2;

/// What can be told of it afterwards.
#[derive(Debug, PartialEq)]
struct Outcome {
    /// The report, or the error without what was to be done.
    report: Result<String, String>,
    tree: Option<Vec<(Vec<u8>, String)>>,
    /// What is in the store, but for leases and what was counted.
    store: Vec<String>,
}

fn reason(error: &Error, target: &Path) -> String {
    let text = error.to_string();
    let (_, reason) = text.split_once(": ").unwrap_or_else(|| panic!("{text}"));
    reason.replace(&target.display().to_string(), "the target")
}

fn outcome(done: Result<layercake::changeset::Unpacked, Error>, store: &Store, target: &Path) -> Outcome {
    let contents = comparable_contents(store);
    let digest = |content: &[u8]| layercake::Digest::sha256(content).to_string();
    let report = |report: layercake::changeset::Unpacked| {
        format!("{} entries, {} bytes, {:?}, {:?}", report.entries, report.bytes, report.skipped, report.duplicates)
    };
    let report = done.map(report).map_err(|error| reason(&error, target));
    Outcome {
        report,
        tree: target.exists().then(|| without_times(lines(target))),
        store: contents.iter().map(|(path, content)| format!("{} {}", path.display(), digest(content))).collect(),
    }
}

fn image(random: &mut fastrand::Rng, seed: u64) -> Fixture {
    let mut compressions = vec![Compression::Gzip, Compression::None];
    if cfg!(feature = "zstd") {
        compressions.push(Compression::Zstd);
    }
    let fixture = Fixture::new(platform("linux/amd64")).compression(random.choice(compressions).unwrap());
    let stack = model::random_stack(&mut model::Random(seed));
    let mut layers: Vec<Vec<u8>> = stack.iter().map(|layer| tar_of(layer)).collect();
    for _ in 0..random.usize(..3) {
        let big = Item::file(format!("big-{}", random.u8(..3)), noise(random.u64(..), random.usize(..600_000)));
        layers.insert(random.usize(..=layers.len()), tar(&[big]));
    }
    if random.u8(..4) == 0 {
        let again = layers[random.usize(..layers.len())].clone();
        layers.push(again);
    }
    layers.into_iter().fold(fixture, Fixture::raw_layer)
}

/// Often a blob that ends too early, or is damaged too.
fn any_fault(random: &mut fastrand::Rng, host: &str) -> Fault {
    if random.u8(..3) == 0 {
        return fault(random, host);
    }
    let early = Fault::on("/blobs/").after(random.usize(..6)).times(1).truncate(random.usize(..600_000));
    if random.bool() { early } else { early.flip(random.usize(..1000)) }
}

/// Tree, report, error and store: the same, also where it was begun with other things in the store, and after whatever
/// went wrong before.
#[test]
fn one_pass_is_a_pull_and_an_unpack() {
    let count = std::env::var("LAYERCAKE_ONE_PASS_IMAGES").map_or(IMAGES, |number| number.parse().unwrap());
    let served = crate::support::Served::start();
    let (mut trees, mut broken, mut mended) = (0, 0, 0);
    for seed in 0..count {
        let mut random = fastrand::Rng::with_seed(seed);
        served.registry.clear_faults();
        image(&mut random, seed).tag(&served.store, &name(&format!("example.com/app:{seed}"))).unwrap();
        let called = served.registry.reference(&format!("app:{seed}")).unwrap();
        let layout = if random.u8(..4) == 0 { Layout::Overlay } else { Layout::Flat };
        let options = || options().layout(layout);
        let scratch = Scratch::new();
        let (two, target) = (scratch.store("two"), scratch.path("two-root"));
        let pull = |registry: &Registry, jobs| registry.pull(&called).platform(platform("linux/amd64")).jobs(jobs);
        let pulled = pull(&client(), 4).to(&two).unwrap();
        let expected = outcome(pulled.image.unpack_with(&target, &options()), &two, &target);
        trees += usize::from(expected.tree.is_some());

        let (one, target) = (scratch.store("one"), scratch.path("one-root"));
        for layer in pulled.image.manifest().layers().iter().filter(|_| random.u8(..3) == 0) {
            let content = fs::read(crate::support::blob_path(&two, layer)).unwrap();
            one.write(layer.media_type.clone(), &content).unwrap();
        }
        let registry =
            quick().idle_timeout(Duration::from_millis(500)).total_timeout(Duration::from_secs(4)).build().unwrap();
        for _ in 0..TRIES {
            served.registry.clear_faults();
            for _ in 0..random.usize(1..4) {
                served.registry.fault(any_fault(&mut random, &served.registry.host()));
            }
            let done = pull(&registry, random.usize(1..5)).unpack_with(&one, &target, &options());
            assert_eq!(done.is_ok(), target.exists(), "seed {seed}");
            crate::check::assert_clean(&one);
            match done {
                Ok(done) => {
                    mended += 1;
                    let found = outcome(Ok(done.unpacked), &one, &target);
                    assert_eq!(
                        (found.report, found.tree),
                        (expected.report.clone(), expected.tree.clone()),
                        "seed {seed}"
                    );
                    fs::remove_dir_all(&target).unwrap();
                }
                Err(error) => {
                    broken += 1;
                    // Some stacks lead round in circles, and the kernel says so.
                    let is_the_tree = expected.report == Err(reason(&error, &target));
                    assert!(is_the_tree || !matches!(error.kind(), ErrorKind::Io { .. }), "seed {seed}: {error:?}");
                    assert!(!error.to_string().contains(|c: char| c.is_control()), "seed {seed}: {error}");
                    nothing_beside(&target);
                }
            }
        }
        served.registry.clear_faults();
        let registry = client();
        let done = pull(&registry, random.usize(1..5)).unpack_with(&one, &target, &options());
        let mut found = outcome(done.map(|done| done.unpacked), &one, &target);
        if expected.report.is_err() {
            // An image that cannot be unpacked gets no name.
            assert!(one.resolve(&called).unwrap_err().is_not_found(), "seed {seed}");
            pull(&registry, 1).to(&one).unwrap();
            found.store = outcome(Ok(Default::default()), &one, &target).store;
        }
        assert_eq!(found, expected, "seed {seed}");
    }
    println!(
        "{count} images, {trees} of them trees; {mended} times all went well in the end, {broken} times it did not"
    );
    assert!(trees > 15 && broken > 5 && mended > 15, "{trees}, {broken} and {mended}");
}
