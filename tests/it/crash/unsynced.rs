//! A store that was made without waiting for the disk, and who relies on it first.
//!
//! The story behind these: Linux says of a file once that it could not be written, and to the next who asks that all is
//! well. A program that syncs again what it could not sync believes what is not so.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use layercake::Durability;
use layercake::MediaType;
use layercake::Store;
use layercake::testing::Fixture;
use layercake::transfer::PullPolicy;
use layercake::transfer::PullStatus;

use super::calls;
use super::path_of;
use crate::support::Scratch;
use crate::support::Served;
use crate::support::client;
use crate::support::name;
use crate::support::tools::Ran;
use crate::support::tools::example;
use crate::support::tools::installed;
use crate::support::tools::run;

/// A store with a name, of which nothing is on the disk, in directories of which nothing is.
struct Scene {
    scratch: Scratch,
    above: PathBuf,
}

impl Scene {
    fn new() -> Scene {
        let scratch = Scratch::new();
        let above = scratch.path("n1/n2/n3");
        let store = Store::create_with(above.join("store"), Durability::None).unwrap();
        let blob = store.write(MediaType::OCTET_STREAM, b"hello\n").unwrap();
        store.tag(&name("kept"), &blob).unwrap();
        Scene { scratch, above }
    }

    /// Gives the image one more name, and promises it. The store is named as it is found from the directory above it.
    fn tag(&self, options: &[&str]) -> (Ran, String) {
        let (log, tag) = (self.scratch.path("log"), example("tag"));
        let mut strace = Command::new("strace");
        strace.args(["-f", "-qq", "-y", "-e", "trace=fsync", "-o"]).arg(&log).args(options).arg(tag.get_program());
        let ran = run(strace.args(["--store", "store", "kept", "new"]).current_dir(&self.above));
        (ran, fs::read_to_string(log).unwrap())
    }

    fn is_marked(&self) -> bool {
        self.above.join("store/layercake/unsynced").exists()
    }
}

fn synced(log: &str) -> Vec<&Path> {
    let done = calls(log).into_iter().filter(|(call, rest)| *call == "fsync" && rest.ends_with("= 0"));
    done.filter_map(|(_, rest)| path_of(rest)).map(Path::new).collect()
}

/// P5: however the store was named, all that is above it is on the disk before anybody relies on it.
#[test]
fn all_that_is_above_a_store_is_synced() {
    if !installed(&["strace"]) {
        return;
    }
    let scene = Scene::new();
    let (ran, log) = scene.tag(&[]);
    ran.ok();
    for above in scene.above.canonicalize().unwrap().ancestors() {
        assert!(synced(&log).contains(&above), "{} is not synced:\n{log}", above.display());
    }
    assert!(!scene.is_marked());
}

/// P5: so it is when it is made there, and named by its name alone.
#[test]
fn all_that_is_above_a_new_store_is_synced() {
    if !installed(&["strace"]) {
        return;
    }
    let (served, image) = Served::with(&Fixture::demo());
    let here = served.scratch.path("n1/n2");
    fs::create_dir_all(&here).unwrap();
    let (log, pull) = (served.scratch.path("log"), example("pull"));
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-y", "-e", "trace=fsync", "-o"]).arg(&log).arg(pull.get_program());
    run(strace.args(["--store", "store", &image.to_string()]).current_dir(&here)).ok();
    let log = fs::read_to_string(log).unwrap();
    for above in here.canonicalize().unwrap().ancestors() {
        assert!(synced(&log).contains(&above), "{} is not synced:\n{log}", above.display());
    }
}

/// P5, case 119: a sync that fails is an error, and what could not be synced is not synced again but written anew.
#[test]
fn what_makes_a_store_is_never_synced_twice() {
    if !installed(&["strace"]) {
        return;
    }
    // Names that are given again after a failure are synced where they are.
    let small = ["index.json", "oci-layout", "layercake/version"];
    for n in 1.. {
        let scene = Scene::new();
        let (ran, log) = scene.tag(&["-e", &format!("inject=fsync:error=EIO:when={n}")]);
        if !log.contains("INJECTED") {
            ran.ok();
            assert!(n > 10, "only {n} points");
            break;
        }
        // A blob is written anew at once.
        let is_mended = log.lines().any(|line| line.contains("INJECTED") && line.contains("/blobs/sha256/"));
        assert_eq!(ran.status == 0, is_mended, "{n}: it failed, and nobody said so:\n{log}");
        let (ran, again) = scene.tag(&[]);
        ran.ok();
        for (log, small) in [(&log, &small[..]), (&again, &small[1..])] {
            let asked = calls(log).into_iter().filter_map(|(_, rest)| path_of(rest)).map(Path::new);
            let before: Vec<&Path> = asked.filter(|path| small.iter().any(|small| path.ends_with(small))).collect();
            assert!(before.is_empty(), "{n}: {before:?} was there before:\n{log}");
        }
        assert!(!scene.is_marked());
    }
}

/// Case 118: a directory above that says it cannot be synced is nobody's failure, nor is a disk that is only read.
#[test]
fn directories_that_cannot_be_synced_are_passed_over() {
    if !installed(&["strace"]) {
        return;
    }
    for error in ["EINVAL", "EROFS"] {
        let scene = Scene::new();
        let above = scene.above.canonicalize().unwrap();
        let inject = format!("inject=fsync:error={error}");
        scene.tag(&["-P", &above.display().to_string(), "-e", &inject]).0.ok();
        assert!(!scene.is_marked());
    }
}

/// P5: a pull that finds the image there relies on the store, too.
#[test]
fn who_finds_an_image_there_waits_for_the_store() {
    let (served, image) = Served::with(&Fixture::demo());
    let path = served.scratch.path("store");
    let cache = Store::create_with(&path, Durability::None).unwrap();
    client().pull(&image).to(&cache).unwrap();
    let mark = path.join("layercake/unsynced");
    for policy in [PullPolicy::IfMissing, PullPolicy::Always, PullPolicy::Never] {
        fs::write(&mark, "").unwrap();
        assert_eq!(client().pull(&image).policy(policy).to(&cache).unwrap().status, PullStatus::UpToDate);
        assert!(mark.exists(), "{policy:?}");
        let store = Store::open(&path).unwrap();
        assert_eq!(client().pull(&image).policy(policy).to(&store).unwrap().status, PullStatus::UpToDate);
        assert!(!mark.exists(), "{policy:?}");
    }
}

/// P5, case 119: names that are there and could not be synced are written anew, as blobs are.
#[test]
fn names_that_cannot_be_synced_are_written_anew() {
    if !installed(&["strace"]) {
        return;
    }
    let (served, image) = Served::with(&Fixture::demo());
    let path = served.scratch.path("store");
    client().pull(&image).to(&Store::create(&path).unwrap()).unwrap();
    let (image, index) = (image.to_string(), path.join("index.json"));
    let inode = || index.metadata().unwrap().ino();
    for (program, arguments) in [("tag", [&*image, &*image]), ("pull", ["--policy=missing", &*image])] {
        let before = (inode(), fs::read(&index).unwrap());
        let (log, program) = (served.scratch.path("log"), example(program));
        let mut strace = Command::new("strace");
        strace.args(["-f", "-qq", "-e", "inject=fsync:error=EIO", "-P"]).arg(&index).arg("-o").arg(&log);
        run(strace.arg(program.get_program()).arg("--store").arg(&path).args(arguments)).ok();
        assert!(fs::read_to_string(log).unwrap().contains("INJECTED"), "{program:?}");
        assert!(inode() != before.0 && fs::read(&index).unwrap() == before.1, "{program:?}");
    }
}
