//! A store of 10,000 names: opening it, looking one up (from a new handle, and again), giving one, listing all, counting its bytes, marking what garbage
//! collection keeps.
//!
//! `cargo bench --bench names`. `LAYERCAKE_BENCH_NAMES` is how many names, `LAYERCAKE_BENCH_RUNS` how many runs. The
//! names lead to as many different images, which is the slowest case there is.

mod support;

use std::path::Path;
use std::process::Command;
use std::time::Duration;
use std::time::Instant;

use layercake::Durability;
use layercake::ImageReference;
use layercake::Store;
use layercake::store::GcOptions;
use layercake::testing::Fixture;
use support::measure;
use support::median;
use support::setting;

fn main() {
    let built = Command::new(env!("CARGO")).args(["build", "-q", "--release", "--example", "images"]).status();
    assert!(built.expect("cargo runs").success());
    let (most, runs) = (setting("LAYERCAKE_BENCH_NAMES", 10_000), setting("LAYERCAKE_BENCH_RUNS", 7));
    let heads = ["open", "resolve", "(again)", "tag", "images", "(one image)", "usage", "mark"];
    println!("{:>8} {}", "names", heads.map(|head| format!("{head:>12}")).join(" "));
    for names in [most / 100, most / 10, most] {
        let (different, same) = (Filled::new(names, true), Filled::new(names, false));
        let open = time(runs, || drop(Store::open(different.store.path())));
        let resolve =
            time(runs, || drop(Store::open(different.store.path()).map(|store| store.resolve(name(names / 2)))));
        // What was left alone for some seconds is known the next time.
        std::thread::sleep(Duration::from_secs(5));
        let again = time(runs, || drop(different.store.resolve(name(names / 2))));
        let mut roots = [name(0), name(1)].map(|name| different.store.resolve(name).expect("it is there"));
        let tag = time(runs, || {
            // Another root each time: what a name means already is not written again.
            roots.swap(0, 1);
            different.store.tag(&name(names / 2), &roots[0]).expect("it can be tagged");
        });
        let [all, one] = [&different, &same].map(|filled| list(filled.store.path(), runs));
        let usage = time(runs, || drop(different.store.usage().expect("it can be counted")));
        let mark = time(runs, || {
            let collected = different.store.gc_with(&GcOptions::new().dry_run()).expect("it can be marked");
            assert_eq!(collected.blobs.len(), 0);
        });
        let times = [open, resolve, again, tag, all, one, usage, mark];
        println!("{names:>8} {}", times.map(|time| format!("{:>9.2} ms", ms(time))).join(" "));
    }
}

struct Filled {
    store: Store,
    _directory: tempfile::TempDir,
}

impl Filled {
    fn new(names: usize, different: bool) -> Filled {
        let directory = tempfile::tempdir().expect("a directory can be made");
        let store = Store::create(directory.path().join("store")).expect("a store can be made");
        let fast = store.with_durability(Durability::None);
        let layer = Fixture::new("linux/amd64".parse().expect("it is a platform")).layer(&[("etc/motd", b"hello\n")]);
        let mut entries = Vec::new();
        for n in 0..names {
            let label = if different { n.to_string() } else { String::new() };
            let root = layer.clone().label("n", &label).write(&fast).expect("an image can be made");
            let name = name(n).to_string();
            entries.push(serde_json::json!({
                "mediaType": root.media_type, "digest": root.digest, "size": root.size,
                "annotations": { "org.opencontainers.image.ref.name": name, "io.containerd.image.name": name },
            }));
        }
        // All at once: one by one would take as many rewritings of the whole.
        let index = serde_json::json!({ "schemaVersion": 2, "manifests": entries });
        std::fs::write(store.path().join("index.json"), index.to_string()).expect("a file can be written");
        store.image(name(0)).and_then(|image| image.unpacked_size()).expect("it is there");
        rustix::fs::sync();
        Filled { store, _directory: directory }
    }
}

fn name(n: usize) -> ImageReference {
    format!("registry.example.com/team-{}/service-{n}:v1.{n}", n % 17).parse().expect("it is a name")
}

fn list(store: &Path, runs: usize) -> Duration {
    let bench = std::env::current_exe().expect("a bench is a file");
    let release = bench.parent().and_then(Path::parent).expect("benches lie in target/release/deps");
    let mut images = Command::new(release.join("examples/images"));
    images.arg("--store").arg(store);
    median((0..runs).map(|_| measure(&mut images).wall))
}

fn time(runs: usize, mut job: impl FnMut()) -> Duration {
    let mut once = || {
        let start = Instant::now();
        job();
        start.elapsed()
    };
    once();
    median((0..runs).map(|_| once()))
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
