//! Each job of this crate beside each program that does it too, for images of several kinds: prints one Markdown table.
//!
//! `cargo bench --bench table`, as root; `cargo bench --bench table -- unpack small-files` does a part of it: jobs by
//! the names in [`jobs`] (the start of one will do, up to a hyphen), images by those in [`subject`].
//!
//! Every round lets each contender do the job once, one after the other, and what was written before is on the disk
//! when one begins. The first round warms the caches and does not count. A time is the median of the rounds; a ratio is
//! the median of the rounds' ratios, layercake's time to the other's. Memory is the most that one process of the program
//! had resident, as seen every two milliseconds, and `-` if it was over too soon. Bytes are what the job leaves behind:
//!
//! * of a pull, the store;
//! * of an unpack, the files of the tree;
//! * from a registry to a root file system, both, or all that is in podman's storage;
//! * of a push or a copy, the registry's storage;
//! * of a working copy or a commit, by how much the store and the working copy have grown;
//! * of a new layer, the layer.
//!
//! What is not installed is left out, and so is what fails, and that is said on stderr. The Rust peers are built by
//! `cargo build --release --manifest-path benches/peers/Cargo.toml`. Trees are unpacked in `/dev/shm`, all else is in
//! the directory below.
//!
//! * `LAYERCAKE_BENCH_IMAGE`: the reference image, in a layout: `oci:DIR:NAME`; without it, one is made.
//! * `LAYERCAKE_BENCH_ALPINE`: an archive of `docker save`, of which the layers are compressed with gzip, as
//!   registries have them; without it, there is no such image.
//! * `LAYERCAKE_BENCH_FILES` (100,000), `LAYERCAKE_BENCH_MIB` (1,024), `LAYERCAKE_BENCH_LAYERS` (60): how large those that
//!   are made are.
//! * `LAYERCAKE_BENCH_RUNS`: how many rounds count; 5 by default.
//! * `LAYERCAKE_BENCH_DIR`: where; the temporary directory by default.

mod jobs;
mod machine;
mod peers;
mod print;
mod race;
mod subject;
#[path = "../support/mod.rs"]
mod support;

use jobs::JOBS;
use jobs::Job;
use peers::is_there;
use subject::Kind;
use subject::Subject;
use support::ours;
use support::scratch::Scratch;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if support::pack::is_it(&arguments) {
        return;
    }
    if !rustix::process::geteuid().is_root() {
        eprintln!("nothing is measured: needs root");
        return;
    }
    let Some((jobs, kinds)) = wanted(&arguments) else { return };
    support::build(&ours::EXAMPLES);
    let scratch = Scratch::new();
    machine::print(scratch.path());
    peers::print_versions();
    print::head();
    for kind in kinds {
        let jobs: Vec<&Job> = jobs.iter().copied().filter(|job| job.images.contains(&kind)).collect();
        // Without a job, the image need not be made.
        let Some(subject) = (!jobs.is_empty()).then(|| Subject::make(kind, &scratch)).flatten() else { continue };
        for job in jobs {
            print::rows(kind.title(), job.title, &race::run((job.contenders)(&subject)));
        }
    }
}

/// What the arguments name, each kind of which they name none as a whole; none if they name what there is not.
fn wanted(arguments: &[String]) -> Option<(Vec<&'static Job>, Vec<Kind>)> {
    let named: Vec<&str> = arguments.iter().map(String::as_str).filter(|text| !text.starts_with('-')).collect();
    let is_job = |job: &Job, text: &str| {
        job.name.strip_prefix(text).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    };
    let is_known =
        |text: &&str| JOBS.iter().any(|job| is_job(job, text)) || Kind::ALL.iter().any(|k| k.name() == *text);
    if let Some(unknown) = named.iter().find(|text| !is_known(text)) {
        let jobs: Vec<&str> = JOBS.iter().map(|job| job.name).collect();
        eprintln!(
            "{unknown:?} is neither a job ({}) nor an image ({})",
            jobs.join(", "),
            Kind::ALL.map(Kind::name).join(", ")
        );
        return None;
    }
    let jobs: Vec<&Job> = JOBS.iter().filter(|job| named.iter().any(|text| is_job(job, text))).collect();
    let kinds: Vec<Kind> = Kind::ALL.into_iter().filter(|kind| named.contains(&kind.name())).collect();
    let jobs = if jobs.is_empty() { JOBS.iter().collect() } else { jobs };
    let jobs = jobs.into_iter().filter(|job| job.needs.iter().all(|program| is_there(program))).collect();
    Some((jobs, if kinds.is_empty() { Kind::ALL.into() } else { kinds }))
}
