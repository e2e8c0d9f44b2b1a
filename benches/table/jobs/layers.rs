//! What is done with layers, whole.

use std::fs;
use std::process::Command;

use layercake::Compression;

use super::Contender;
use super::Subject;
use super::peers::Umoci;
use super::peers::is_there;
use super::peers::sha256sum;
use super::race::Outcome;
use super::support::ours;
use super::support::pack;
use super::support::process::measure;

/// All of a tree becomes a layer: that of the image's lowest one.
pub fn gzip<'a>(subject: &'a Subject<'a>) -> Vec<Contender<'a>> {
    let mut all = vec![packs(subject, Compression::Gzip)];
    if is_there("umoci") {
        let mut umoci = None;
        all.push(Contender::new("umoci repack", move |_| {
            if umoci.is_none() {
                umoci = Some(Umoci::of_tree(subject.room("umoci"), subject.tree())?);
            }
            let umoci = umoci.as_ref().expect("it was made");
            let run = umoci.repack()?;
            Ok(Outcome { run, bytes: Some(umoci.last_layer()) })
        }));
    }
    all.extend(pipe(subject, "gzip", "gzip -6"));
    all.extend(pipe(subject, "pigz", "pigz -6"));
    all
}

pub fn zstd<'a>(subject: &'a Subject<'a>) -> Vec<Contender<'a>> {
    let mut all = vec![packs(subject, Compression::Zstd)];
    all.extend(pipe(subject, "zstd", "zstd -q -T2"));
    all
}

/// This program itself does it.
fn packs<'a>(subject: &'a Subject<'a>, compression: Compression) -> Contender<'a> {
    Contender::new("layercake", move |_| {
        let room = subject.room("packed");
        let store = room.path.join("store");
        let run = measure(&mut pack::command(compression, subject.tree(), &store))?;
        Ok(Outcome { run, bytes: Some(pack::size(&store)) })
    })
}

fn pipe<'a>(subject: &'a Subject<'a>, program: &str, command_line: &'static str) -> Option<Contender<'a>> {
    let job = move |_| {
        let room = subject.room("piped");
        let target = room.path.join("layer");
        let mut command = Command::new("sh");
        command.args(["-c", &format!("tar -C \"$0\" -cf - . | {command_line} > \"$1\"")]);
        let run = measure(command.arg(subject.tree()).arg(&target))?;
        Ok(Outcome { run, bytes: fs::metadata(&target).ok().map(|stat| stat.len()) })
    };
    (is_there("tar") && is_there(program)).then(|| Contender::new(format!("tar \\| {command_line}"), job))
}

/// Of all blobs, which are in the page cache.
pub fn check<'a>(subject: &'a Subject<'a>) -> Vec<Contender<'a>> {
    let layout = &subject.image.layout;
    let read = |run| Outcome { run, bytes: None };
    let mut all = vec![Contender::new("layercake", move |_| measure(&mut ours::check(layout)).map(read))];
    if is_there("sha256sum") {
        all.push(Contender::new("sha256sum, two processes", move |_| measure(&mut sha256sum(layout)).map(read)));
    }
    all
}
