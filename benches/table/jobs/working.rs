//! Working copies.

use std::fs;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;
use std::rc::Rc;

use super::Contender;
use super::Subject;
use super::peers::Buildah;
use super::peers::Umoci;
use super::peers::is_there;
use super::race::Outcome;
use super::support::ours::Work;
use super::support::process::Run;
use super::support::process::measure;
use super::support::scratch::bytes_in;

/// Of an image that is unpacked already: the first round does that.
pub fn checkout<'a>(subject: &'a Subject<'a>) -> Vec<Contender<'a>> {
    let layout = &subject.image.layout;
    let ours = move |_| {
        let room = subject.room("work");
        let before = bytes_in(layout);
        let (work, run) = Work::make(layout, "overlay", room.path.join("work"))?;
        Ok(grown(run, before, bytes_in(layout) + bytes_in(work.path())))
    };
    let mut all = vec![Contender::new("layercake", ours)];
    if let Some(buildah) = buildah(subject) {
        let mounting = Rc::clone(&buildah);
        all.push(Contender::new("buildah from", move |_| {
            let before = buildah.bytes();
            let container = buildah.from()?;
            Ok(grown(container.run, before, buildah.bytes()))
        }));
        all.push(Contender::new("buildah from, mount", move |_| {
            let before = mounting.bytes();
            let container = mounting.from()?;
            let (_, run) = container.mount()?;
            Ok(grown(container.run.and(run), before, mounting.bytes()))
        }));
    }
    all
}

/// One file was changed in the mounted tree.
pub fn commit_overlay<'a>(subject: &'a Subject<'a>) -> Vec<Contender<'a>> {
    let layout = &subject.image.layout;
    let ours = move |round| {
        let room = subject.room("work");
        let (work, _) = Work::make(layout, "overlay", room.path.join("work"))?;
        change(&work.root(), round);
        let before = bytes_in(layout);
        let run = measure(&mut work.commit())?;
        Ok(grown(run, before, bytes_in(layout)))
    };
    let mut all = vec![Contender::new("layercake", ours)];
    if let Some(buildah) = buildah(subject) {
        all.push(Contender::new("buildah commit", move |round| {
            let container = buildah.from()?;
            change(&container.mount()?.0, round);
            let before = buildah.bytes();
            let run = container.commit()?;
            Ok(grown(run, before, buildah.bytes()))
        }));
    }
    all
}

/// One file was changed in a tree that was copied.
pub fn commit_copy<'a>(subject: &'a Subject<'a>) -> Vec<Contender<'a>> {
    let layout = &subject.image.layout;
    // In this order they are dropped.
    let mut copy: Option<(Work, _)> = None;
    let ours = move |round| {
        if copy.is_none() {
            let room = subject.room("work");
            copy = Some((Work::make(layout, "copy", room.path.join("work"))?.0, room));
        }
        let (work, _) = copy.as_ref().expect("it was made");
        change(&work.root(), round);
        let before = bytes_in(layout);
        let run = measure(&mut work.commit())?;
        Ok(grown(run, before, bytes_in(layout)))
    };
    let mut all = vec![Contender::new("layercake", ours)];
    if is_there("umoci") {
        let mut umoci = None;
        all.push(Contender::new("umoci repack", move |round| {
            if umoci.is_none() {
                umoci = Some(Umoci::of_image(subject.room("umoci"), layout)?);
            }
            let umoci = umoci.as_ref().expect("it was made");
            change(&umoci.root(), round);
            let before = umoci.bytes();
            let run = umoci.repack()?;
            Ok(grown(run, before, umoci.bytes()))
        }));
    }
    all
}

fn buildah(subject: &Subject) -> Option<Rc<Buildah>> {
    let made = is_there("buildah").then(|| Buildah::with(subject.room("buildah"), &subject.image.layout))?;
    made.map_err(|error| eprintln!("buildah is left out: {error}")).ok().map(Rc::new)
}

fn grown(run: Run, before: u64, after: u64) -> Outcome {
    Outcome { run, bytes: Some(after.saturating_sub(before)) }
}

/// Adds a line to one file, the same in each tree.
fn change(root: &Path, round: usize) {
    let path = some_file(root).expect("the image has a small file");
    let mut file = File::options().append(true).open(path).expect("the file can be written to");
    writeln!(file, "round {round}").expect("the file can be written to");
}

fn some_file(directory: &Path) -> Option<PathBuf> {
    let entries = fs::read_dir(directory).expect("a directory can be read");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("a directory can be read").path()).collect();
    paths.sort();
    paths.into_iter().find_map(|path| {
        let stat = fs::symlink_metadata(&path).expect("it is there");
        match stat.is_dir() {
            true => some_file(&path),
            false => (stat.is_file() && (1..65536).contains(&stat.len())).then_some(path),
        }
    })
}
