//! Every system call fails once, and every system call is the last: whatever happens in the middle of a pull, the store
//! is sound afterwards, and the next pull succeeds.
//!
//! The story behind these: tools that rename before they sync leave files of length zero under final names after a
//! power cut, and never look at them again.

mod keeping;
mod making;
mod one_pass;
mod unsynced;

use std::path::Path;
use std::process::Command;

use layercake::Descriptor;
use layercake::ImageReference;
use layercake::MediaType;
use layercake::Store;
use layercake::testing::Fixture;

use crate::support::Scratch;
use crate::support::Served;
use crate::support::name;
use crate::support::platform;
use crate::support::tools::Ran;
use crate::support::tools::example;
use crate::support::tools::installed;
use crate::support::tools::run;

/// What changes a store, or makes a change last.
const CHANGING: [&str; 9] =
    ["mkdir", "mkdirat", "openat", "write", "fchmod", "ftruncate", "fsync", "unlinkat", "renameat"];
/// More than any call is made in one pull; a run without an injection comes long before.
const MANY: usize = 400;

/// Pulls under `strace`, with these options for it.
fn pull_under(strace: &[&str], store: &Path, image: &ImageReference, options: &[&str]) -> Ran {
    let pull = example("pull");
    let mut command = Command::new("strace");
    command.args(["-f", "-qq"]).args(strace).arg(pull.get_program()).arg("--store").arg(store);
    run(command.args(["--quiet", "--jobs", "1"]).args(options).arg(image.to_string()))
}

/// The store opens, all its blobs are what their names say, and the name means one of these or nothing.
#[track_caller]
fn assert_sound(path: &Path, image: &ImageReference, roots: &[&Descriptor], what: &str) {
    let Ok(store) = Store::open_or_create(path) else { panic!("{what}: the store does not open") };
    for blob in store.blobs().unwrap() {
        let (digest, size) = blob.unwrap();
        let blob = Descriptor::new(MediaType::OCTET_STREAM, digest, size);
        store.read(&blob).unwrap_or_else(|error| panic!("{what}: {error}"));
    }
    match store.resolve(image) {
        Ok(found) => {
            assert!(roots.iter().any(|root| root.digest == found.digest), "{what}: the name means {}", found.digest);
            let opened = store.image_for(image, &platform("linux/amd64")).unwrap_or_else(|e| panic!("{what}: {e}"));
            assert!(opened.is_complete().unwrap(), "{what}: the image is not whole");
        }
        Err(error) => assert!(error.is_not_found(), "{what}: {error}"),
    }
}

/// A registry with a new image, and a way to make stores that have an old one under its name.
struct Scene {
    served: Served,
    image: ImageReference,
    old: Fixture,
    new: Descriptor,
}

impl Scene {
    fn new() -> Scene {
        let (served, image) = Served::with(&Fixture::demo());
        let new = served.store.resolve(name("example.com/app:1")).unwrap();
        let old = Fixture::new(platform("linux/amd64")).layer(&[("old", b"old")]);
        Scene { served, image, old, new }
    }

    /// For each number of this call until there are no more: pulls with that one tampered with, and looks at the store.
    /// Returns how many there were.
    fn try_each(&self, call: &str, injection: &str) -> usize {
        for n in 1..MANY {
            let what = format!("{call}:{injection}:when={n}");
            let scratch = Scratch::new();
            let store = scratch.path("store");
            // Every other run makes the store too.
            let mut roots = vec![&self.new];
            let old;
            if n % 2 == 0 {
                old = self.old.tag(&scratch.store("store"), &self.image).unwrap();
                roots.push(&old);
            }
            let log = scratch.path("log");
            let (trace, inject) = (format!("trace={call}"), format!("inject={what}"));
            let strace = ["-o", &log.display().to_string(), "-e", &trace, "-e", &inject];
            let ran = pull_under(&strace, &store, &self.image, &[]);
            assert_ne!(ran.status, 101, "{what}: it panicked: {ran:?}");
            if store.exists() {
                assert_sound(&store, &self.image, &roots, &what);
            }
            if ran.status == 0 {
                let found = Store::open(&store).unwrap().resolve(&self.image).unwrap();
                assert_eq!(found.digest, self.new.digest, "{what}: it said that it was done");
            }
            let again = run(example("pull").arg("--store").arg(&store).args(["--quiet", &self.image.to_string()]));
            assert_eq!(again.status, 0, "{what}: the next pull: {again:?}");
            assert_sound(&store, &self.image, &[&self.new], &what);
            let log = std::fs::read_to_string(&log).unwrap();
            if !log.contains("(INJECTED)") && !log.contains("killed by SIGKILL") {
                assert_eq!(ran.status, 0, "{what}: nothing was injected, and it failed: {ran:?}");
                return n - 1;
            }
        }
        panic!("{call}:{injection} has no end");
    }
}

/// Cases 118 and 119: a sync that fails, too, ends in an error or in a new file that was synced.
#[test]
fn a_pull_survives_any_system_call_that_fails() {
    if !installed(&["strace"]) {
        return;
    }
    let scene = Scene::new();
    let mut points = 0;
    for call in CHANGING {
        for error in ["EIO", "ENOSPC"] {
            points += scene.try_each(call, &format!("error={error}"));
        }
    }
    for call in ["write", "openat", "fsync"] {
        points += scene.try_each(call, "error=EINTR");
    }
    println!("{points} failing calls");
    assert!(points > 50, "only {points} calls were tampered with");
    drop(scene.served);
}

/// Case 115: killed at any call that changes something.
#[test]
fn a_pull_survives_being_killed_at_any_system_call() {
    if !installed(&["strace"]) {
        return;
    }
    let scene = Scene::new();
    let points: usize = CHANGING.iter().map(|call| scene.try_each(call, "signal=SIGKILL")).sum();
    println!("{points} crash points");
    assert!(points > 30, "only {points} points");
}

/// One line of `strace -y`: the call, and its text with paths.
fn calls(log: &str) -> Vec<(&str, &str)> {
    log.lines()
        .filter_map(|line| {
            let (_, rest) = line.trim_start().split_once(' ')?;
            let rest = rest.trim_start();
            let (call, arguments) = rest.split_once('(')?;
            Some((call, arguments))
        })
        .collect()
}

/// The path in `5</path>`.
fn path_of(argument: &str) -> Option<&str> {
    let (_, rest) = argument.split_once('<')?;
    rest.split_once('>').map(|(path, _)| path)
}

/// Case 121, rule (a): what is renamed was synced, and so is the directory it is renamed into, before the end; and with
/// durability off nothing is synced.
#[test]
fn renames_are_synced_before_and_after() {
    if !installed(&["strace"]) {
        return;
    }
    let scene = Scene::new();
    let scratch = Scratch::new();
    for (options, durable) in [(&[][..], true), (&["--no-sync"], false)] {
        let store = scratch.path(if durable { "durable" } else { "fast" });
        Store::create(&store).unwrap();
        let log = scratch.path("log");
        let trace = "trace=fsync,fdatasync,rename,renameat,renameat2,mkdir,mkdirat";
        let ran = pull_under(&["-y", "-o", &log.display().to_string(), "-e", trace], &store, &scene.image, options);
        ran.ok();
        let log = std::fs::read_to_string(&log).unwrap();
        let calls = calls(&log);
        let synced = |range: &[(&str, &str)], path: &str| {
            range.iter().any(|(call, arguments)| *call == "fsync" && path_of(arguments) == Some(path))
        };
        if !durable {
            assert!(calls.iter().all(|(call, _)| !call.starts_with('f')), "{log}");
            continue;
        }
        let mut renames = 0;
        for (at, (call, arguments)) in calls.iter().enumerate() {
            let made = call.starts_with("mkdir") && arguments.ends_with("= 0");
            if made {
                let parent = path_of(arguments).unwrap_or_else(|| panic!("{arguments}"));
                assert!(synced(&calls[at..], parent), "{arguments} is not synced:\n{log}");
            }
            if !call.starts_with("rename") {
                continue;
            }
            renames += 1;
            let mut parts = arguments.split(", ");
            let from = path_of(parts.next().unwrap()).unwrap();
            let file = parts.next().unwrap().trim_matches('"');
            let to = path_of(parts.next().unwrap()).unwrap();
            assert!(synced(&calls[..at], &format!("{from}/{file}")), "{arguments}: the file was not synced:\n{log}");
            assert!(synced(&calls[at..], to), "{arguments}: the directory is not synced:\n{log}");
        }
        assert!(renames >= 7, "six blobs and the names: {log}");
    }
}
