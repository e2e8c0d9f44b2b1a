//! To a root file system.

use std::path::Path;
use std::process::Command;

use layercake::Compression;

use super::Contender;
use super::Subject;
use super::peers;
use super::peers::Podman;
use super::peers::is_there;
use super::race::Outcome;
use super::support::ours;
use super::support::ours::Sync;
use super::support::process::measure;
use super::support::scratch::bytes_in;

/// From a store.
pub fn unpack<'a>(subject: &'a Subject<'a>) -> Vec<Contender<'a>> {
    let image = &subject.image;
    let mut all = vec![unpacks(subject, "layercake", |target| ours::unpack(&image.layout, target, Sync::No))];
    if is_there("umoci") {
        all.push(unpacks(subject, "umoci unpack", |target| peers::umoci_unpack(&image.layout, target)));
    }
    if let Some(program) = peers::rust("oci-image").filter(|_| image.compression == Compression::Gzip) {
        all.push(unpacks(subject, "oci-image", move |target| {
            let mut command = Command::new(&program);
            command.arg(target).args(&image.blobs);
            command
        }));
    }
    let (name, option) = match image.compression {
        Compression::Zstd => ("tar --zstd per layer", "--zstd"),
        Compression::Gzip => ("tar -xzf per layer", "--gzip"),
        _ => ("tar -xf per layer", "--auto-compress"),
    };
    if is_there("tar") {
        all.push(unpacks(subject, name, move |target| peers::tar(option, &image.blobs, target)));
    }
    all
}

/// From a store to the disk, synced and not. Peers do not sync.
pub fn unpack_durable<'a>(subject: &'a Subject<'a>) -> Vec<Contender<'a>> {
    [("layercake", Sync::Yes), ("layercake --no-sync", Sync::No)]
        .map(|(name, sync)| {
            Contender::new(name, move |_| {
                let room = subject.room("unpack");
                let run = measure(&mut ours::unpack(&subject.image.layout, &room.path.join("tree"), sync))?;
                Ok(Outcome { run, bytes: Some(bytes_in(&room.path)) })
            })
        })
        .into()
}

fn unpacks<'a>(subject: &'a Subject<'a>, name: &str, command: impl Fn(&Path) -> Command + 'a) -> Contender<'a> {
    Contender::new(name, move |_| {
        let room = subject.room_in_memory();
        let run = measure(&mut command(&room.path.join("tree")))?;
        Ok(Outcome { run, bytes: Some(bytes_in(&room.path)) })
    })
}

pub fn one_pass<'a>(subject: &'a Subject<'a>) -> Vec<Contender<'a>> {
    one_pass_as(subject, Sync::No)
}

pub fn one_pass_durable<'a>(subject: &'a Subject<'a>) -> Vec<Contender<'a>> {
    one_pass_as(subject, Sync::Yes)
}

/// Onto the disk, with a store where nothing is yet.
fn one_pass_as<'a>(subject: &'a Subject<'a>, sync: Sync) -> Vec<Contender<'a>> {
    let remote = subject.remote();
    let ours = move |_| {
        let room = subject.room("one-pass");
        let run = measure(&mut ours::one_pass(remote, &room.path.join("store"), &room.path.join("tree"), sync))?;
        Ok(Outcome { run, bytes: Some(bytes_in(&room.path)) })
    };
    let mut all = vec![Contender::new("layercake", ours)];
    if is_there("podman") {
        let theirs = move |_| {
            let podman = Podman::new(subject.room("podman"), subject.room_in_memory());
            let run = measure(&mut podman.pull(remote))?;
            Ok(Outcome { run, bytes: Some(podman.bytes()) })
        };
        all.push(Contender::new("podman pull", theirs));
    }
    all
}
