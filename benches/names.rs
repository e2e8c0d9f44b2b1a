//! A store of 10,000 names: opening it, looking one up (from a new handle, and again), giving one, listing all, counting
//! its bytes, marking what garbage collection keeps.
//!
//! `cargo bench --bench names`. `LAYERCAKE_BENCH_NAMES` is how many names, `LAYERCAKE_BENCH_RUNS` how many runs. The
//! names lead to as many different images, which is the slowest case there is.

mod support;

use std::path::Path;
use std::time::Duration;
use std::time::Instant;

use layercake::Store;
use layercake::store::GcOptions;
use support::median;
use support::names::filled;
use support::names::name;
use support::ours::example;
use support::process::run;
use support::scratch::Scratch;
use support::setting;

fn main() {
    support::build(&["images"]);
    let scratch = Scratch::new();
    let (most, runs) = (setting("LAYERCAKE_BENCH_NAMES", 10_000), setting("LAYERCAKE_BENCH_RUNS", 7));
    let heads = ["open", "resolve", "(again)", "tag", "images", "(one image)", "usage", "mark"];
    println!("{:>8} {}", "names", heads.map(|head| format!("{head:>12}")).join(" "));
    for names in [most / 100, most / 10, most] {
        let [different, same] = [true, false].map(|different| filled(scratch.free("store"), names, different));
        let open = time(runs, || drop(Store::open(different.path())));
        let resolve = time(runs, || drop(Store::open(different.path()).map(|store| store.resolve(name(names / 2)))));
        // What was left alone for some seconds is known the next time.
        std::thread::sleep(Duration::from_secs(5));
        let again = time(runs, || drop(different.resolve(name(names / 2))));
        let mut roots = [name(0), name(1)].map(|name| different.resolve(name).expect("it is there"));
        let tag = time(runs, || {
            // Another root each time: what a name means already is not written again.
            roots.swap(0, 1);
            different.tag(&name(names / 2), &roots[0]).expect("it can be tagged");
        });
        let [all, one] = [&different, &same].map(|store| list(store.path(), runs));
        let usage = time(runs, || drop(different.usage().expect("it can be counted")));
        let mark = time(runs, || {
            let collected = different.gc_with(&GcOptions::new().dry_run()).expect("it can be marked");
            assert_eq!(collected.blobs.len(), 0);
        });
        let times = [open, resolve, again, tag, all, one, usage, mark];
        println!("{names:>8} {}", times.map(|time| format!("{:>9.2} ms", ms(time))).join(" "));
    }
}

fn list(store: &Path, runs: usize) -> Duration {
    let mut images = example("images");
    images.arg("--store").arg(store);
    median((0..runs).map(|_| run(&mut images).wall))
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
