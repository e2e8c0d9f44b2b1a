//! Between registries and stores.

use std::path::Path;
use std::process::Command;

use super::Contender;
use super::Subject;
use super::peers;
use super::peers::is_there;
use super::peers::skopeo;
use super::race::Outcome;
use super::support::image::NAME;
use super::support::ours;
use super::support::ours::Sync;
use super::support::process::measure;
use super::support::registry::Registry;
use super::support::scratch::bytes_in;

pub fn pull<'a>(subject: &'a Subject<'a>) -> Vec<Contender<'a>> {
    pull_as(subject, Sync::No)
}

pub fn pull_durable<'a>(subject: &'a Subject<'a>) -> Vec<Contender<'a>> {
    pull_as(subject, Sync::Yes)
}

fn pull_as<'a>(subject: &'a Subject<'a>, sync: Sync) -> Vec<Contender<'a>> {
    let remote = subject.remote();
    let mut all = vec![pulls(subject, "layercake", move |store| ours::pull(remote, store, sync))];
    if is_there("skopeo") {
        let theirs = move |store: &Path| skopeo(&docker(remote), &format!("oci:{}:{NAME}", store.display()));
        all.push(pulls(subject, "skopeo copy", theirs));
    }
    if let Some(program) = peers::rust("oci-client") {
        let theirs = move |store: &Path| {
            let mut command = Command::new(&program);
            command.arg(remote).arg(store);
            command
        };
        all.push(pulls(subject, "oci-client", theirs));
    }
    all
}

fn pulls<'a>(subject: &'a Subject<'a>, name: &str, command: impl Fn(&Path) -> Command + 'a) -> Contender<'a> {
    Contender::new(name, move |_| {
        let room = subject.room("pull");
        let run = measure(&mut command(&room.path.join("store")))?;
        Ok(Outcome { run, bytes: Some(bytes_in(&room.path)) })
    })
}

pub fn push<'a>(subject: &'a Subject<'a>) -> Vec<Contender<'a>> {
    pushers(|name, command| {
        Contender::new(name, move |_| {
            let registry = subject.new_registry();
            pushed(&registry, &mut command(subject, &there(&registry)))
        })
    })
}

/// All of it is there already.
pub fn push_again<'a>(subject: &'a Subject<'a>) -> Vec<Contender<'a>> {
    pushers(|name, command| {
        // Of its own, so that no client knows of what another one did.
        let registry = subject.new_registry();
        let is_filled = measure(&mut command(subject, &there(&registry)));
        Contender::new(name, move |_| {
            is_filled.clone()?;
            pushed(&registry, &mut command(subject, &there(&registry)))
        })
    })
}

pub fn copy<'a>(subject: &'a Subject<'a>) -> Vec<Contender<'a>> {
    let from = subject.remote();
    let copies = |name, command: fn(&str, &str) -> Command| {
        Contender::new(name, move |_| {
            let registry = subject.new_registry();
            pushed(&registry, &mut command(from, &there(&registry)))
        })
    };
    let mut all = vec![copies("layercake", ours::copy)];
    all.extend(is_there("skopeo").then(|| copies("skopeo copy", |from, to| skopeo(&docker(from), &docker(to)))));
    all
}

/// How one pushes the image to a name.
type Push = fn(&Subject, &str) -> Command;

fn pushers<'a>(contender: impl Fn(&'static str, Push) -> Contender<'a>) -> Vec<Contender<'a>> {
    let mut all = vec![contender("layercake", |subject, there| ours::push(&subject.image.layout, there))];
    let theirs: Push =
        |subject, there| skopeo(&format!("oci:{}:{NAME}", subject.image.layout.display()), &docker(there));
    all.extend(is_there("skopeo").then(|| contender("skopeo copy", theirs)));
    all
}

fn pushed(registry: &Registry, command: &mut Command) -> Result<Outcome, String> {
    let run = measure(command)?;
    Ok(Outcome { run, bytes: Some(registry.bytes()) })
}

fn there(registry: &Registry) -> String {
    registry.name("bench/app:1")
}

fn docker(name: &str) -> String {
    format!("docker://{name}")
}
