//! Pushes an image to a local `docker-registry`, and copies it from one to another, beside skopeo, in one run; prints the
//! ratios.
//!
//! `cargo bench --bench push`. Needs `docker-registry` and `skopeo` on `PATH`. The same settings as for `--bench pull`;
//! the image must be one in a layout (`oci:DIR:NAME`).

#[path = "support/registry.rs"]
mod registry;
mod support;

use std::path::Path;
use std::process::Command;

use registry::Registry;
use registry::source;
use support::Run;
use support::example;
use support::installed;
use support::measure;
use support::median;
use support::setting;

const JOBS: [&str; 3] = ["push", "push again, all there", "copy to another registry"];

/// The runs of one client, by job.
type Runs = [Vec<Run>; 3];

fn main() {
    for program in ["docker-registry", "skopeo"] {
        if !installed(program) {
            println!("nothing is measured: needs {program}");
            return;
        }
    }
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "-q", "--release", "--example", "push", "--example", "copy"]);
    assert!(build.status().expect("cargo runs").success());
    let scratch = tempfile::tempdir().expect("a directory can be made");
    let source = source(scratch.path());
    let (mut ours, mut skopeo): (Runs, Runs) = Default::default();
    for round in 0..=setting("LAYERCAKE_BENCH_RUNS", 7) {
        for (is_ours, runs) in [(true, &mut ours), (false, &mut skopeo)] {
            let done = round_of(scratch.path(), &source, is_ours);
            // The first round warms the caches.
            if round > 0 {
                runs.iter_mut().zip(done).for_each(|(runs, run)| runs.push(run));
            }
        }
    }
    println!("{:<28} {:>10} {:>10} {:>10} {:>10} {:>10}", "", "layercake", "peak", "skopeo", "peak", "ratio");
    for ((job, ours), skopeo) in JOBS.iter().zip(&ours).zip(&skopeo) {
        let wall = |runs: &[Run]| median(runs.iter().map(|run| run.wall)).as_secs_f64();
        let peak = |runs: &[Run]| median(runs.iter().map(|run| run.memory)) as f64 / 1024.0;
        let ratio = median(ours.iter().zip(skopeo).map(|(a, b)| a.wall.as_secs_f64() / b.wall.as_secs_f64()));
        print!("{job:<28} {:>8.3} s {:>6.1} MiB", wall(ours), peak(ours));
        println!(" {:>8.3} s {:>6.1} MiB {ratio:>10.2}", wall(skopeo), peak(skopeo));
    }
}

/// Registries of its own, so that no client knows of what another one did.
fn round_of(scratch: &Path, source: &str, is_ours: bool) -> [Run; 3] {
    let (registry, other) = (Registry::start(scratch), Registry::start(scratch));
    let (there, elsewhere) = (registry.name("bench/app:1"), other.name("bench/app:1"));
    let push = || if is_ours { ours_push(source, &there) } else { skopeo(source, &format!("docker://{there}")) };
    let copy = || match is_ours {
        true => ours_copy(&there, &elsewhere),
        false => skopeo(&format!("docker://{there}"), &format!("docker://{elsewhere}")),
    };
    let runs = [measure(&mut push()), measure(&mut push()), measure(&mut copy())];
    rustix::fs::sync();
    runs
}

fn ours_push(source: &str, there: &str) -> Command {
    let (directory, name) =
        source.strip_prefix("oci:").and_then(|rest| rest.split_once(':')).expect("it is oci:DIR:NAME");
    let mut command = example("push");
    command.args(["--quiet", "--store", directory, name, there]);
    command
}

fn ours_copy(there: &str, elsewhere: &str) -> Command {
    let mut command = example("copy");
    command.args(["--quiet", there, elsewhere]);
    command
}

fn skopeo(source: &str, target: &str) -> Command {
    let mut command = Command::new("skopeo");
    command.args(["copy", "-q", "--src-tls-verify=false", "--dest-tls-verify=false", source, target]);
    command
}
