//! Every system call of a checkout, a commit and a discard fails once, and is the last once: the store stays sound, and
//! the next attempt succeeds.
//!
//! The story behind these: a directory that looks finished and is not, layers that nobody unpacks again because their
//! directory is there, and working copies that cannot be removed any more.

use std::path::Path;
use std::process::Command;

use layercake::Descriptor;
use layercake::Digest;
use layercake::ErrorKind;
use layercake::MediaType;
use layercake::Store;
use layercake::testing::Fixture;

use crate::support::Scratch;
use crate::support::failure;
use crate::support::name;
use crate::support::tools::Ran;
use crate::support::tools::example;
use crate::support::tools::installed;
use crate::support::tools::is_root;
use crate::support::tools::mounts_overlays;
use crate::support::tools::run;

/// What makes, changes and removes.
const CHANGING: [&str; 10] =
    ["mkdirat", "openat", "write", "linkat", "symlinkat", "fchmod", "unlinkat", "renameat", "mount", "umount2"];
/// Each call is tampered with at so many points, spread over all of them.
const POINTS: usize = 4;

/// A store with an image, and programs to work with it.
struct Scene {
    scratch: Scratch,
    mode: &'static str,
}

impl Scene {
    fn new(mode: &'static str) -> Scene {
        let scratch = Scratch::new();
        Fixture::demo().tag(&scratch.store("store"), &name("example.com/app:1")).unwrap();
        Scene { scratch, mode }
    }

    fn command(&self, program: &str) -> Command {
        let mut command = example(program);
        command.env("LAYERCAKE_STORE", self.scratch.path("store"));
        let work = self.scratch.path("work");
        match program {
            "checkout" => command.args(["--mode", self.mode, "example.com/app:1"]).arg(work),
            "commit" => command.args(["--created", "0"]).arg(work).arg("example.com/child:1"),
            _ => command.arg(work),
        };
        command
    }

    fn run(&self, program: &str) -> Ran {
        run(&mut self.command(program))
    }

    /// Runs a program with one of its calls tampered with; says whether it came to that.
    fn tampered(&self, program: &str, call: &str, injection: &str, n: usize) -> (Ran, bool) {
        let log = self.scratch.path("log");
        let inner = self.command(program);
        let mut command = Command::new("strace");
        command.args(["-f", "-qq", "-o"]).arg(&log);
        command.args(["-e", &format!("trace={call}"), "-e", &format!("inject={call}:{injection}:when={n}")]);
        command.arg(inner.get_program()).args(inner.get_args()).env("LAYERCAKE_STORE", self.scratch.path("store"));
        let ran = run(&mut command);
        let log = std::fs::read_to_string(&log).unwrap();
        (ran, log.contains("(INJECTED)") || log.contains("killed by SIGKILL"))
    }

    /// How often a program makes a call.
    fn count(&self, program: &str, call: &str) -> usize {
        let log = self.scratch.path("log");
        let inner = self.command(program);
        let mut command = Command::new("strace");
        command.args(["-f", "-qq", "-o"]).arg(&log).args(["-e", &format!("trace={call}")]);
        command.arg(inner.get_program()).args(inner.get_args()).env("LAYERCAKE_STORE", self.scratch.path("store"));
        run(&mut command).ok();
        std::fs::read_to_string(&log).unwrap().lines().filter(|line| line.contains('(')).count()
    }

    fn change(&self) {
        let root = self.scratch.path("work/root");
        std::fs::write(root.join("etc/motd"), "changed\n").unwrap();
    }

    /// What was tampered with happened at some point of a life; from there on everything goes well.
    #[track_caller]
    fn finish(&self, what: &str) -> Digest {
        let work = self.scratch.path("work");
        if !work.join("checkout.json").exists() {
            if work.exists() {
                // Only a discard leaves that, and only under another name.
                let is_empty = std::fs::read_dir(&work).unwrap().next().is_none();
                assert!(is_empty, "{what}: half a working copy");
            }
            let ran = self.run("checkout");
            assert_eq!(ran.status, 0, "{what}: the next checkout: {ran:?}");
        }
        // A process that was killed before it mounted the tree leaves it unmounted.
        run(example("checkout").arg("--mount").arg(&work)).ok();
        self.change();
        assert_eq!(self.run("status").ok(), "C /etc/motd\n", "{what}");
        let ran = self.run("commit");
        assert_eq!(ran.status, 0, "{what}: the next commit: {ran:?}");
        let child = Store::open(self.scratch.path("store")).unwrap().resolve(name("example.com/child:1")).unwrap();
        let ran = self.run("discard");
        assert_eq!(ran.status, 0, "{what}: the next discard: {ran:?}");
        assert!(!work.exists(), "{what}");
        self.assert_sound(what);
        child.digest
    }

    #[track_caller]
    fn assert_sound(&self, what: &str) {
        let store = Store::open(self.scratch.path("store")).unwrap();
        for blob in store.blobs().unwrap() {
            let (digest, size) = blob.unwrap();
            let blob = Descriptor::new(MediaType::OCTET_STREAM, digest, size);
            store.read(&blob).unwrap_or_else(|error| panic!("{what}: {error}"));
        }
        let hidden = |path: &Path| {
            let names = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name());
            names.filter(|name| name.to_string_lossy().starts_with(".layercake")).count()
        };
        assert_eq!(hidden(&self.scratch.path("")), 0, "{what}: something is left beside");
    }
}

fn try_all(mode: &'static str, injection: &str) -> usize {
    let expected = {
        let scene = Scene::new(mode);
        scene.finish("nothing")
    };
    let mut points = 0;
    for program in ["checkout", "commit", "discard"] {
        for call in CHANGING {
            let counting = Scene::new(mode);
            if program != "checkout" {
                counting.run("checkout").ok();
                counting.change();
            }
            let count = counting.count(program, call);
            if program != "discard" {
                counting.run("discard").ok();
            }
            for n in (1..=count).step_by(count.div_ceil(POINTS).max(1)) {
                let what = format!("{mode}, {program}, {call}:{injection}:when={n}");
                let scene = Scene::new(mode);
                if program != "checkout" {
                    scene.run("checkout").ok();
                    scene.change();
                }
                let (ran, is_tampered) = scene.tampered(program, call, injection, n);
                assert_ne!(ran.status, 101, "{what}: it panicked: {ran:?}");
                assert!(is_tampered || ran.status == 0, "{what}: nothing was injected, and it failed: {ran:?}");
                points += usize::from(is_tampered);
                assert_eq!(scene.finish(&what), expected, "{what}");
            }
        }
    }
    points
}

/// Cases 116 to 118, for working copies.
#[test]
fn a_copy_survives_any_system_call() {
    if !installed(&["strace"]) || !is_root() {
        return;
    }
    let points: usize = ["signal=SIGKILL", "error=EIO", "error=ENOSPC"].iter().map(|how| try_all("copy", how)).sum();
    println!("{points} points");
    assert!(points > 100, "only {points} points");
}

/// The same with a mount.
#[test]
fn an_overlay_survives_any_system_call() {
    if !installed(&["strace"]) || !is_root() || !mounts_overlays() {
        return;
    }
    let points: usize = ["signal=SIGKILL", "error=EIO"].iter().map(|how| try_all("overlay", how)).sum();
    println!("{points} points");
    assert!(points > 60, "only {points} points");
}

/// A state that was tampered with leads nowhere.
#[test]
fn a_damaged_state_is_refused() {
    let scene = Scene::new("copy");
    scene.run("checkout").ok();
    let path = scene.scratch.path("work/checkout.json");
    let good = std::fs::read_to_string(&path).unwrap();
    let id = good.split("\"id\":\"").nth(1).unwrap()[..32].to_owned();
    let bad = [
        String::new(),
        "{".to_owned(),
        good[..good.len() / 2].to_owned(),
        good.replace(&id, "../../../../../../../../../etc/pass"),
        good.replace("\"copy\"", "\"cp\""),
        good.replace(&id, &id[1..]),
    ];
    for text in bad {
        std::fs::write(&path, &text).unwrap();
        let error = failure(layercake::Checkout::open(scene.scratch.path("work")));
        crate::assert_kind!(error, ErrorKind::InvalidCheckout { .. });
    }
    std::fs::write(&path, good.replace("\"version\":1", "\"version\":2")).unwrap();
    let error = failure(layercake::Checkout::open(scene.scratch.path("work")));
    crate::assert_kind!(error, ErrorKind::UnsupportedVersion { .. });
    std::fs::write(&path, good).unwrap();
    scene.run("discard").ok();
}
