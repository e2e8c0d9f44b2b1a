//! The same for what keeps a store: collecting, naming, removing, repairing.

use std::fs;
use std::time::Duration;

use layercake::Descriptor;
use layercake::Digest;
use layercake::Store;
use layercake::store::Problem;

use super::*;
use crate::check::assert_clean;
use crate::gc::make_older;
use crate::gc::unpack;
use crate::support::blob_path;

/// What deletes or changes names, beside what the others change.
const KEEPING: [&str; 8] = ["openat", "write", "ftruncate", "fsync", "unlinkat", "renameat", "linkat", "flock"];
const OLD: Duration = Duration::from_secs(7200);

/// A store of two images that share a layer, with garbage of all kinds. Returns what nobody needs.
fn fill(store: &Store) -> Vec<Digest> {
    let base = || Fixture::new(platform("linux/amd64")).layer(&[("base", &[7; 2000])]);
    base().tag(store, &name("kept")).unwrap();
    base().layer(&[("own", b"own")]).tag(store, &name("other")).unwrap();
    let lost = Fixture::new(platform("linux/amd64")).layer(&[("lost", b"lost")]).tag(store, &name("lost")).unwrap();
    let image = store.image_at(&lost).unwrap();
    let chain = image.config().unwrap().chain_ids().unwrap()[0];
    let garbage: Vec<Descriptor> =
        [lost, image.manifest().config().clone(), image.manifest().layers()[0].clone()].into();
    store.untag(name("lost")).unwrap();
    for blob in store.blobs().unwrap().map(Result::unwrap) {
        make_older(&blob_path(store, &Descriptor::new(MediaType::OCTET_STREAM, blob.0, blob.1)), OLD);
    }
    unpack(store, "preserve", chain, 5);
    garbage.iter().map(|blob| blob.digest).collect()
}

fn digests(store: &Store) -> Vec<Digest> {
    let mut digests: Vec<Digest> = store.blobs().unwrap().map(|blob| blob.unwrap().0).collect();
    digests.sort();
    digests
}

/// For each number of each call until there are no more: does this with that one tampered with, and looks at the store;
/// then does it again, to the end.
fn try_each(program: &str, arguments: &[&str], injection: &str, look: &dyn Fn(&Store, bool, &str)) -> usize {
    let mut points = 0;
    for call in KEEPING {
        for n in 1..MANY {
            let what = format!("{program} {arguments:?}: {call}:{injection}:when={n}");
            let scratch = Scratch::new();
            let store = scratch.store("store");
            fill(&store);
            let log = scratch.path("log");
            let command = || {
                let mut command = example(program);
                command.arg("--store").arg(store.path()).args(arguments);
                command
            };
            let mut strace = Command::new("strace");
            strace.args(["-f", "-qq", "-o", &log.display().to_string(), "-e", &format!("trace={call}")]);
            strace.args(["-e", &format!("inject={call}:{injection}:when={n}")]);
            let ran = run(strace.arg(command().get_program()).args(command().get_args()));
            assert_ne!(ran.status, 101, "{what}: it panicked: {ran:?}");
            // What cannot be told, whether a tree is in use say, is kept: only the next collection must be all.
            let is_done = ran.status == 0 && program != "store";
            look(&Store::open(store.path()).unwrap(), is_done, &what);
            let again = run(&mut command());
            let log = fs::read_to_string(&log).unwrap();
            let is_last = !log.contains("(INJECTED)") && !log.contains("killed by SIGKILL");
            if is_last {
                assert_eq!(ran.status, 0, "{what}: nothing was injected, and it failed: {ran:?}");
            }
            // What was done the first time cannot be done again: then it says so.
            assert!(again.status == 0 || again.err.contains("not found"), "{what}: {again:?}");
            look(&Store::open(store.path()).unwrap(), true, &what);
            if is_last {
                break;
            }
            points += 1;
        }
    }
    points
}

/// Case 117: killed at any call that changes something.
#[test]
fn keeping_a_store_survives_being_killed_at_any_system_call() {
    survives("signal=SIGKILL");
}

/// Case 118: each of them fails once.
#[test]
fn keeping_a_store_survives_any_system_call_that_fails() {
    survives("error=EIO");
}

/// Case 118: each of them finds the disk full once.
#[test]
fn keeping_a_store_survives_a_disk_that_is_full_at_any_system_call() {
    survives("error=ENOSPC");
}

fn survives(injection: &str) {
    if !installed(&["strace"]) {
        return;
    }
    let whole = |store: &Store, called: &str, what: &str| {
        let image = store.image(name(called)).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert!(image.is_complete().unwrap(), "{what}");
    };
    let sound = |store: &Store, what: &str| {
        let trees_only = |problem: &Problem| matches!(problem, Problem::TreeUnrecorded { .. });
        let problems = store.check().unwrap().problems;
        assert!(problems.iter().all(trees_only), "{what}: {problems:?}");
    };
    let scratch = Scratch::new();
    let reference = scratch.store("store");
    let garbage = fill(&reference);
    let all = digests(&reference);
    let after_gc: Vec<Digest> = all.iter().filter(|digest| !garbage.contains(digest)).copied().collect();
    let gc =
        |store: &Store, done: bool, what: &str| {
            sound(store, what);
            ["kept", "other"].iter().for_each(|called| whole(store, called, what));
            if done {
                assert_eq!(digests(store), after_gc, "{what}");
                assert!(
                    !store.path().join("layercake/unpacked/preserve").read_dir().unwrap().any(|entry| {
                        entry.unwrap().path().extension().is_some_and(|extension| extension == "json")
                    })
                );
            }
        };
    let tag = |store: &Store, done: bool, what: &str| {
        sound(store, what);
        ["kept", "other"].iter().for_each(|called| whole(store, called, what));
        if done {
            whole(store, "new", what);
        }
    };
    let remove = |store: &Store, done: bool, what: &str| {
        sound(store, what);
        whole(store, "kept", what);
        match store.resolve(name("other")) {
            Ok(_) => whole(store, "other", what),
            Err(error) => assert!(error.is_not_found(), "{what}: {error}"),
        }
        assert!(!done || store.resolve(name("other")).is_err(), "{what}");
    };
    let points = try_each("store", &["gc"], injection, &gc)
        + try_each("tag", &["kept", "new"], injection, &tag)
        + try_each("remove", &["other"], injection, &remove);
    println!("{points} points of {injection}");
    assert!(points > 100, "only {points} points");
}

/// A repair that is killed anywhere has lost nothing, and the next one ends it.
#[test]
fn a_repair_survives_being_killed_at_any_system_call() {
    if !installed(&["strace"]) {
        return;
    }
    let mut points = 0;
    for call in ["openat", "unlinkat", "renameat", "linkat", "mkdirat", "fchmod", "write", "fsync"] {
        for n in 1..MANY {
            let what = format!("{call}:{n}");
            let scratch = Scratch::new();
            let store = scratch.store("store");
            fill(&store);
            let [one, two] = ["1", "2"].map(|text| store.write(MediaType::OCTET_STREAM, text.as_bytes()).unwrap());
            store.tag(&name("one"), &one).unwrap();
            store.tag(&name("two"), &two).unwrap();
            for (blob, content) in [(&one, "2"), (&two, "1")] {
                fs::remove_file(blob_path(&store, blob)).unwrap();
                fs::write(blob_path(&store, blob), content).unwrap();
            }
            fs::write(store.path().join("blobs/sha256/stray"), "mine").unwrap();
            fs::write(store.path().join("index.json"), "{").unwrap();
            let log = scratch.path("log");
            let mut strace = Command::new("strace");
            strace.args(["-f", "-qq", "-o", &log.display().to_string(), "-e", &format!("trace={call}")]);
            strace.args(["-e", &format!("inject={call}:signal=SIGKILL:when={n}")]);
            run(strace.arg(example("store").get_program()).arg("repair").arg("--store").arg(store.path()));
            let store = Store::open(store.path()).unwrap();
            let repaired = store.repair().unwrap();
            assert_eq!(repaired.remaining, [], "{what}");
            // Blobs that were set aside, and not yet put in their places, are there to be looked at.
            let quarantine = store.path().join("layercake/quarantine");
            let kept: Vec<Vec<u8>> =
                fs::read_dir(quarantine).unwrap().map(|entry| fs::read(entry.unwrap().path()).unwrap()).collect();
            for (blob, content) in [(&one, b"1"), (&two, b"2")] {
                let is_somewhere = store.contains(blob).unwrap() || kept.iter().any(|found| found == content);
                assert!(is_somewhere, "{what}: {kept:?}");
            }
            assert!(kept.iter().any(|found| found == b"mine"), "{what}");
            assert!(store.image(name("kept")).unwrap().is_complete().unwrap(), "{what}");
            assert_clean(&store);
            if !fs::read_to_string(&log).unwrap().contains("killed by SIGKILL") {
                break;
            }
            points += 1;
        }
    }
    println!("{points} crash points");
    assert!(points > 30, "only {points} points");
}
