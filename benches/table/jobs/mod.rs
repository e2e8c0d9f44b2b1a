//! The jobs, each with who does it.

mod layers;
mod moving;
mod unpacking;
mod working;

use super::peers;
use super::race;
use super::race::Contender;
use super::subject::Kind;
use super::subject::Subject;
use super::support;

pub struct Job {
    /// As it is named on the command line.
    pub name: &'static str,
    /// As the table names it.
    pub title: &'static str,
    /// What it is done with.
    pub images: &'static [Kind],
    /// The programs without which it cannot be done at all.
    pub needs: &'static [&'static str],
    pub contenders: for<'a> fn(&'a Subject<'a>) -> Vec<Contender<'a>>,
}

const REGISTRY: &[&str] = &["docker-registry"];
const ALL: &[Kind] = &Kind::ALL;
const SOME: &[Kind] = &[Kind::Reference, Kind::BigFile];
const ONE: &[Kind] = &[Kind::Reference];

/// A check comes before what makes the store larger.
pub const JOBS: [Job; 15] = [
    job("pull", "pull", ALL, REGISTRY, moving::pull),
    job("pull-durable", "pull, durable", SOME, REGISTRY, moving::pull_durable),
    job("unpack", "unpack", ALL, &[], unpacking::unpack),
    job("unpack-durable", "unpack to the disk, durable", SOME, &[], unpacking::unpack_durable),
    job("one-pass", "registry to root file system", ALL, REGISTRY, unpacking::one_pass),
    job("one-pass-durable", "registry to root file system, durable", SOME, REGISTRY, unpacking::one_pass_durable),
    job("push", "push", SOME, REGISTRY, moving::push),
    job("push-again", "push again", SOME, REGISTRY, moving::push_again),
    job("copy", "registry to registry", SOME, REGISTRY, moving::copy),
    job("check", "check", ONE, &[], layers::check),
    job("working-copy", "working copy, overlay", ONE, &[], working::checkout),
    job("commit-overlay", "commit of one file, overlay", ONE, &[], working::commit_overlay),
    job("commit-copy", "commit of one file, copied tree", ONE, &[], working::commit_copy),
    job("new-layer-gzip", "new layer, gzip", ONE, &[], layers::gzip),
    job("new-layer-zstd", "new layer, zstd", if cfg!(feature = "zstd") { ONE } else { &[] }, &[], layers::zstd),
];

const fn job(
    name: &'static str,
    title: &'static str,
    images: &'static [Kind],
    needs: &'static [&'static str],
    contenders: for<'a> fn(&'a Subject<'a>) -> Vec<Contender<'a>>,
) -> Job {
    Job { name, title, images, needs, contenders }
}
