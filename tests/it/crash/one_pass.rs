//! The same from a registry to a root file system in one pass: the target is not there, or whole; blobs that were
//! verified stay; and the next run asks for the others only.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use layercake::Digest;

use super::*;
use crate::check::assert_clean;
use crate::gc::at_once;
use crate::support::tape::Item;
use crate::support::tape::tar;
use crate::support::tree;
use crate::support::tree::Lines;

/// What changes a store or a tree, and what reads what is arriving.
const CALLS: [&str; 16] = [
    "mkdirat",
    "openat",
    "openat2",
    "write",
    "pread64",
    "ftruncate",
    "fchmod",
    "fsync",
    "syncfs",
    "unlinkat",
    "renameat",
    "linkat",
    "symlinkat",
    "mknodat",
    "utimensat",
    "flock",
];
/// Of each call so many are tampered with in each manner, spread over all, unless `LAYERCAKE_CRASH_POINTS` says another
/// number.
const POINTS: usize = 3;

/// A registry with an image, and what it unpacks to.
struct Scene {
    served: Served,
    image: ImageReference,
    whole: Lines,
}

/// Where a store and a tree are made.
struct Place {
    scratch: Scratch,
    targets: PathBuf,
}

impl Scene {
    fn new() -> Scene {
        let mut noise = vec![0; 200_000];
        fastrand::Rng::with_seed(1).fill(&mut noise);
        let change = [Item::file(".wh.c", ""), Item::symlink("l", "a"), Item::hard_link("h", "a/b"), Item::fifo("p")];
        let fixture = Fixture::new(platform("linux/amd64")).layer(&[("a/b", b"1"), ("c", b"2")]);
        let (served, image) = Served::with(&fixture.layer(&[("noise", &noise)]).raw_layer(tar(&change)));
        let mut scene = Scene { served, image, whole: Lines::new() };
        let place = scene.place();
        run(&mut scene.unpack(&place)).ok();
        scene.whole = tree::lines(&place.target());
        scene
    }

    fn place(&self) -> Place {
        let scratch = Scratch::new();
        let targets = scratch.dir("targets");
        Place { scratch, targets }
    }

    fn unpack(&self, place: &Place) -> Command {
        let mut unpack = example("unpack");
        unpack.args(["--pull", "--rootless", "--quiet", "--store"]).arg(place.store());
        unpack.arg(self.image.to_string()).arg(place.target());
        unpack
    }

    fn traced(&self, place: &Place, call: &str, inject: Option<&str>) -> (Ran, String) {
        let (log, plain) = (place.scratch.path("log"), self.unpack(place));
        let mut strace = Command::new("strace");
        strace.args(["-f", "-qq", "-o"]).arg(&log).args(["-e", &format!("trace={call}")]);
        strace.args(inject.map(|inject| ["-e".to_owned(), format!("inject={call}:{inject}")]).into_iter().flatten());
        let ran = run(strace.arg(plain.get_program()).args(plain.get_args()));
        (ran, fs::read_to_string(log).unwrap())
    }

    /// The blobs that were asked for since this was asked last.
    fn asked(&self) -> BTreeSet<Digest> {
        let requests = self.served.registry.take_requests();
        requests.iter().filter_map(|request| request.path.split_once("/blobs/")?.1.parse().ok()).collect()
    }

    /// How often the thread that makes this call most often makes it.
    fn count(&self, call: &str) -> usize {
        let (ran, log) = self.traced(&self.place(), call, None);
        ran.ok();
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for (thread, _) in log.lines().filter_map(|line| line.split_once(' ')).filter(|(_, rest)| rest.contains('(')) {
            *counts.entry(thread).or_default() += 1;
        }
        counts.into_values().max().unwrap_or(0)
    }

    /// One run in which this goes wrong, and the next. Returns whether it went wrong at all.
    fn try_one(&self, call: &str, injection: &str) -> bool {
        let what = format!("{call}:{injection}");
        let place = self.place();
        let (ran, log) = self.traced(&place, call, Some(injection));
        assert_ne!(ran.status, 101, "{what}: it panicked: {ran:?}");
        let exists = place.target().exists();
        assert!(exists || ran.status != 0, "{what}: it said that it was done");
        let kept = place.look(self, exists, &what);
        if exists {
            assert_eq!(tree::lines(&place.target()), self.whole, "{what}");
            fs::remove_dir_all(place.target()).unwrap();
        }
        self.asked();
        let again = run(&mut self.unpack(&place));
        assert_eq!(again.status, 0, "{what}: the next run: {again:?}, after {ran:?}");
        assert_eq!(tree::lines(&place.target()), self.whole, "{what}");
        let all = place.look(self, true, &what);
        // Of some that are missing all had come.
        let (asked, missing) = (self.asked(), all.difference(&kept).copied().collect());
        assert!(asked.is_subset(&missing), "{what}: {asked:?} of {missing:?}");
        assert_eq!(fs::read_dir(&place.targets).unwrap().count(), 1, "{what}: what was left behind is gone");
        let store = Store::open(place.store()).unwrap();
        // The killed one's threads may take a moment to go, and have locks until then.
        let left = |folder| fs::read_dir(place.store().join("layercake").join(folder)).map_or(0, Iterator::count);
        for _ in 0..100 {
            store.gc_with(&at_once()).unwrap();
            if left("leases") + left("partial") == 0 {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        assert_eq!((left("leases"), left("partial")), (0, 0), "{what}");
        log.contains("(INJECTED)") || log.contains("killed by SIGKILL")
    }

    fn try_each(&self, injections: &[&str]) -> usize {
        let most = std::env::var("LAYERCAKE_CRASH_POINTS").map_or(POINTS, |number| number.parse().unwrap());
        let mut points = 0;
        for call in CALLS {
            let count = self.count(call);
            for n in (1..=count).step_by(count.div_ceil(most).max(1)) {
                for injection in injections {
                    points += usize::from(self.try_one(call, &format!("{injection}:when={n}")));
                }
            }
        }
        println!("{points} points of {injections:?}");
        points
    }
}

impl Place {
    fn store(&self) -> PathBuf {
        self.scratch.path("store")
    }

    fn target(&self) -> PathBuf {
        self.targets.join("root")
    }

    /// The store is sound, and the name is there if the tree is. Returns what it has.
    fn look(&self, scene: &Scene, is_there: bool, what: &str) -> BTreeSet<Digest> {
        if !self.store().join("oci-layout").exists() {
            assert!(!is_there, "{what}: the store is gone");
            return BTreeSet::new();
        }
        let store = Store::open_or_create(self.store()).unwrap_or_else(|error| panic!("{what}: {error:?}"));
        assert_clean(&store);
        match store.resolve(&scene.image) {
            Ok(_) => assert!(store.image(&scene.image).unwrap().is_complete().unwrap(), "{what}"),
            Err(error) => assert!(error.is_not_found() && !is_there, "{what}: {error}"),
        }
        store.blobs().unwrap().map(|blob| blob.unwrap().0).collect()
    }
}

/// Cases 115 and 116: killed at any call that changes something.
#[test]
fn one_pass_survives_being_killed_at_any_system_call() {
    survives(&["signal=SIGKILL"]);
}

/// Case 118: any call fails, of a damaged disk or of a full one.
#[test]
fn one_pass_survives_any_system_call_that_fails() {
    survives(&["error=EIO", "error=ENOSPC"]);
}

fn survives(injections: &[&str]) {
    if !installed(&["strace"]) {
        return;
    }
    let points = Scene::new().try_each(injections);
    assert!(points > 25 * injections.len(), "only {points} points");
}
