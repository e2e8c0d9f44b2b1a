//! Steps that are run in a working copy.

use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use super::*;

/// What changes becomes a layer, once; and the working copy goes.
#[test]
fn a_command_is_run_once() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let work = scratch.dir("work");
    let runs = AtomicUsize::new(0);
    let image = usual_base(&store);
    let change = |root: &Path| {
        runs.fetch_add(1, Ordering::Relaxed);
        fs::remove_file(root.join("usr/lib/old"))?;
        drop(std::os::unix::net::UnixListener::bind(root.join("tmp/socket"))?);
        fs::write(root.join("tmp/new"), "new")
    };
    let builder = ImageBuilder::from_image(&image).epoch(1_000_000_000).work_dir(&work).env("A", "1");
    let first = builder.clone().run("make", change).copy(Files::bytes(""), "/z").build().unwrap();
    assert_eq!(text(&first.image, "tmp/new"), "new");
    assert!(first.image.read_file("lib/old").is_err());
    let step = &first.steps[1];
    assert_eq!((step.text.as_str(), step.is_cached, step.layer.is_some()), ("make", false, true));
    let skipped: Vec<String> = step.skipped.iter().map(ToString::to_string).collect();
    assert_eq!(skipped, ["tmp/socket: sockets are not stored"]);
    assert_eq!(fs::read_dir(&work).unwrap().count(), 0);

    let second = builder.clone().run("make", change).copy(Files::bytes(""), "/z").build().unwrap();
    assert_eq!((second.image.digest(), runs.load(Ordering::Relaxed)), (first.image.digest(), 1));
    let others = [
        builder.clone().run("make all", change),
        builder.clone().env("B", "1").run("make", change),
        builder.clone().run_always("make", change),
        builder.clone().without_cache().run("make", change),
    ];
    for (n, other) in others.into_iter().enumerate() {
        let _ = other.build().unwrap();
        assert_eq!(runs.load(Ordering::Relaxed), n + 2);
    }
}

/// The error is the change's, with the step; nothing is left, and nothing is remembered.
#[test]
fn a_command_that_fails_fails_the_build() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let work = scratch.dir("work");
    let image = usual_base(&store);
    let failing = |root: &Path| {
        fs::write(root.join("half"), "done")?;
        Err(std::io::Error::other("exit status 1"))
    };
    let builder = ImageBuilder::from_image(&image).work_dir(&work);
    let error = failure(builder.clone().run("make", failing).build());
    assert_eq!(error.to_string(), "build an image: step 1 of 1: run make: read or write: exit status 1");
    assert_eq!(fs::read_dir(&work).unwrap().count(), 0);
    let built = builder.run("make", |_| Ok(())).build().unwrap();
    assert_eq!((built.steps[0].is_cached, &built.steps[0].layer), (false, &None));
    refused(ImageBuilder::from_image(&image).run("make again", |_| Ok(())));
}
