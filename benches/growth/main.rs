//! The same jobs with one, four and sixteen times as much: what the time of each is to how much there is, and whether
//! the memory grows. Then what a second core is worth. Prints two Markdown tables.
//!
//! `cargo bench --bench growth`, as root; `cargo bench --bench growth -- bytes names` does a part of it: `files`,
//! `bytes`, `layers`, `names`, `cores`. Every round does the job once at each size; times are medians, per unit. Nothing
//! is subtracted from them: `fixed` is the whole job with next to nothing, which is a part of all of them. Memory is in
//! MiB, and `-` where it was over too soon.
//!
//! What is pulled and unpacked goes to `/dev/shm`, without syncing, all else is in the directory below. The registry that
//! is pulled from has all cores, even when one is all that the job has.
//!
//! * `LAYERCAKE_BENCH_SCALE`: how much at 1x, in per cent of 5,000 files, 32 MiB, 5 layers, 500 names; 100 by default.
//! * `LAYERCAKE_BENCH_RUNS`: how many rounds count; 5 by default. One more before them warms the caches.
//! * `LAYERCAKE_BENCH_DIR`: where; the temporary directory by default.

mod cores;
mod jobs;
mod names;
mod print;
mod subject;
#[path = "../support/mod.rs"]
mod support;

use jobs::JOBS;
use jobs::Job;
use subject::Series;
use subject::Subject;
use support::installed;
use support::process::Run;
use support::scratch::Scratch;
use support::setting;

/// How often there is what is measured; the first is next to nothing.
const TIMES: [usize; 4] = [0, 1, 4, 16];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if support::pack::is_it(&arguments) || names::is_it(&arguments) {
        return;
    }
    if !rustix::process::geteuid().is_root() {
        eprintln!("nothing is measured: needs root");
        return;
    }
    support::build(&support::ours::EXAMPLES);
    let scratch = Scratch::new();
    let wanted: Vec<&String> = arguments.iter().filter(|text| !text.starts_with('-')).collect();
    let is_wanted = |what: &str| wanted.is_empty() || wanted.iter().any(|text| *text == what);
    let series: Vec<Series> = Series::ALL.into_iter().filter(|series| is_wanted(series.name())).collect();
    if !series.is_empty() {
        print::head();
    }
    series.into_iter().for_each(|series| grow(series, &scratch));
    if is_wanted("cores") {
        cores::compare(&scratch);
    }
}

fn grow(series: Series, scratch: &Scratch) {
    let subjects = TIMES.map(|times| Subject::make(series, series.units(times), scratch));
    for job in JOBS.iter().filter(|job| job.series == series && is_possible(job)) {
        let rounds = rounds(subjects.each_ref().map(|subject| move || (job.run)(subject, None)));
        print::row(series, job.name, subjects.each_ref().map(|subject| subject.units), &rounds);
    }
}

/// Whether there is a registry, if it needs one.
fn is_possible(job: &Job) -> bool {
    let is_possible = !job.needs_registry || installed("docker-registry");
    if !is_possible {
        eprintln!("{} is left out: docker-registry is not installed", job.name);
    }
    is_possible
}

/// Does all of them once in each round. Returns the runs of each.
fn rounds<const N: usize>(mut all: [impl FnMut() -> Run; N]) -> [Vec<Run>; N] {
    let mut runs = [const { Vec::new() }; N];
    for round in 0..=setting("LAYERCAKE_BENCH_RUNS", 5).max(1) {
        for (job, runs) in all.iter_mut().zip(&mut runs) {
            rustix::fs::sync();
            let run = job();
            // The first round warms the caches.
            if round > 0 {
                runs.push(run);
            }
        }
    }
    runs
}
