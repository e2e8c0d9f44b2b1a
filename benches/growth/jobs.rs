//! The jobs.

use std::process::Command;

use layercake::Compression;

use super::names;
use super::subject::Series;
use super::subject::Subject;
use super::support::ours;
use super::support::ours::Sync;
use super::support::ours::Work;
use super::support::ours::example;
use super::support::pack;
use super::support::process::Run;
use super::support::process::run;

pub struct Job {
    pub series: Series,
    pub name: &'static str,
    pub needs_registry: bool,
    pub run: fn(&Subject, Cores) -> Run,
}

/// Which cores it may have, as taskset names them; all, if none is named.
pub type Cores = Option<&'static str>;

pub const JOBS: [Job; 18] = [
    job(Series::Files, "unpack", unpack),
    pulling(Series::Files, "registry to root file system", one_pass),
    job(Series::Files, "commit of one file, copied tree", commit),
    job(Series::Files, "new layer, gzip", new_layer),
    pulling(Series::Bytes, "pull", pull),
    job(Series::Bytes, "unpack", unpack),
    pulling(Series::Bytes, "registry to root file system", one_pass),
    job(Series::Bytes, "new layer, gzip", new_layer),
    job(Series::Bytes, "check", check),
    pulling(Series::Layers, "pull", pull),
    job(Series::Layers, "unpack", unpack),
    pulling(Series::Layers, "registry to root file system", one_pass),
    job(Series::Layers, "working copy, overlay", checkout),
    job(Series::Names, "look one up, cold", |s, on| go(on, names::resolve(&s.layout()))),
    job(Series::Names, "give one", |s, on| go(on, names::tag(&s.layout()))),
    job(Series::Names, "list all images", images),
    job(Series::Names, "mark what is garbage", |s, on| go(on, store(&["gc", "--dry-run"], s))),
    job(Series::Names, "count the bytes", |s, on| go(on, store(&["usage"], s))),
];

const fn job(series: Series, name: &'static str, run: fn(&Subject, Cores) -> Run) -> Job {
    Job { series, name, needs_registry: false, run }
}

const fn pulling(series: Series, name: &'static str, run: fn(&Subject, Cores) -> Run) -> Job {
    Job { needs_registry: true, ..job(series, name, run) }
}

fn pull(subject: &Subject, on: Cores) -> Run {
    let room = subject.room();
    go(on, ours::pull(subject.remote(), &room.path.join("store"), Sync::No))
}

fn unpack(subject: &Subject, on: Cores) -> Run {
    let room = subject.room();
    go(on, ours::unpack(&subject.layout(), &room.path.join("tree"), Sync::No))
}

fn one_pass(subject: &Subject, on: Cores) -> Run {
    let room = subject.room();
    go(on, ours::one_pass(subject.remote(), &room.path.join("store"), &room.path.join("tree"), Sync::No))
}

fn commit(subject: &Subject, on: Cores) -> Run {
    go(on, subject.changed_copy().commit())
}

fn new_layer(subject: &Subject, on: Cores) -> Run {
    let room = subject.room();
    go(on, pack::command(Compression::Gzip, &subject.tree(), &room.path.join("store")))
}

fn check(subject: &Subject, on: Cores) -> Run {
    go(on, ours::check(&subject.layout()))
}

/// Of an image that is unpacked already: the first round does that.
fn checkout(subject: &Subject, on: Cores) -> Run {
    let room = subject.room_on_disk();
    let work = room.path.join("work");
    let run = go(on, ours::checkout(&subject.layout(), "overlay", &work));
    drop(Work::at(work));
    run
}

fn images(subject: &Subject, on: Cores) -> Run {
    let mut command = example("images");
    command.arg("--store").arg(subject.layout());
    go(on, command)
}

fn store(arguments: &[&str], subject: &Subject) -> Command {
    let mut command = example("store");
    command.args(arguments).arg("--store").arg(subject.layout());
    command
}

fn go(on: Cores, mut command: Command) -> Run {
    match on {
        None => run(&mut command),
        Some(cores) => {
            run(Command::new("taskset").args(["-c", cores]).arg(command.get_program()).args(command.get_args()))
        }
    }
}
