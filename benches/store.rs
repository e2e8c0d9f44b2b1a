//! How fast a store is checked, beside `sha256sum` with as many processes as there are cores; and how many names eight
//! processes give at once.
//!
//! `cargo bench --bench store`. `LAYERCAKE_BENCH_RUNS` is how many runs, 5 by default; `LAYERCAKE_BENCH_MIB` the size of
//! what is checked, 512 by default.

mod support;

use std::num::NonZeroUsize;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use std::time::Instant;

use layercake::Durability;
use layercake::ImageReference;
use layercake::MediaType;
use layercake::Store;
use layercake::testing::Fixture;
use support::installed;
use support::median;
use support::process::run;
use support::setting;

const PROCESSES: usize = 8;
const NAMES: usize = 25;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [option, store, process] = &arguments[..]
        && option == "--tag"
    {
        return tag(Path::new(store), process);
    }
    let runs = setting("LAYERCAKE_BENCH_RUNS", 5);
    check(runs);
    let rates = (0..runs).map(|_| tags_in_a_second());
    println!("{PROCESSES} processes tagging at once, durably: {:.0} names a second", median(rates));
}

/// Both read what is in memory.
fn check(runs: usize) {
    let directory = tempfile::tempdir().expect("a directory can be made");
    let store = Store::create(directory.path().join("store")).expect("a store can be made");
    let fast = store.with_durability(Durability::None);
    let mebibytes = setting("LAYERCAKE_BENCH_MIB", 512);
    let mut random = fastrand::Rng::with_seed(1);
    for _ in 0..mebibytes.div_ceil(16) {
        let content: Vec<u8> =
            std::iter::repeat_with(|| random.u64(..).to_le_bytes()).take(2 << 20).flatten().collect();
        fast.write(MediaType::OCTET_STREAM, &content).expect("a blob can be written");
    }
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let find = format!("find {}/blobs -type f -print0 | xargs -0 -n 1 -P {cores} sha256sum", store.path().display());
    let (mut ours, mut ratios): (Vec<Duration>, Vec<f64>) = Default::default();
    for round in 0..=runs {
        let start = Instant::now();
        assert!(store.check().expect("it can be checked").problems.is_empty());
        let wall = start.elapsed();
        // The first round warms the caches.
        if round > 0 && installed("sha256sum") {
            let theirs = run(Command::new("sh").args(["-c", &find])).wall;
            ratios.push(theirs.as_secs_f64() / wall.as_secs_f64());
            ours.push(wall);
        }
    }
    let wall = median(ours).as_secs_f64();
    print!("check: {wall:.3} s for {mebibytes} MiB, {:.2} GiB/s; ", mebibytes as f64 / 1024.0 / wall);
    println!("{:.2} x the speed of sha256sum in {cores} processes", median(ratios));
}

fn tags_in_a_second() -> f64 {
    let directory = tempfile::tempdir().expect("a directory can be made");
    let store = Store::create(directory.path().join("store")).expect("a store can be made");
    Fixture::demo().tag(&store, &name("0", 0)).expect("an image can be made");
    let bench = std::env::current_exe().expect("a bench is a file");
    let start = Instant::now();
    let start_one = |n: usize| {
        let mut command = Command::new(&bench);
        command.arg("--tag").arg(store.path()).arg(n.to_string()).spawn().expect("it starts")
    };
    let children: Vec<_> = (1..=PROCESSES).map(start_one).collect();
    for mut child in children {
        assert!(child.wait().expect("it ends").success());
    }
    let rate = (PROCESSES * NAMES) as f64 / start.elapsed().as_secs_f64();
    assert_eq!(store.entries().expect("they can be read").count(), PROCESSES * NAMES + 1);
    rate
}

/// One of the processes.
fn tag(store: &Path, process: &str) {
    let store = Store::open(store).expect("it opens");
    let root = store.resolve(name("0", 0)).expect("it is there");
    for n in 0..NAMES {
        store.tag(&name(process, n), &root).expect("it can be tagged");
    }
}

fn name(process: &str, n: usize) -> ImageReference {
    format!("example.com/team-{process}/service:v{n}").parse().expect("it is a name")
}
