//! The same for what makes images, and for what only reads them.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use layercake::Digest;
use layercake::store::Name;

use super::*;
use crate::check::assert_clean;
use crate::gc::at_once;
use crate::support::comparable_contents;
use crate::support::tape::Item;
use crate::support::tape::tar;

/// What makes files, and what makes them last.
const MAKING: [&str; 10] =
    ["mkdirat", "openat", "write", "ftruncate", "fchmod", "fsync", "unlinkat", "renameat", "linkat", "flock"];
/// Of each call so many are the last, spread over all, unless `LAYERCAKE_CRASH_POINTS` says another number.
const POINTS: usize = 4;

/// A store with an image, and what others are made of.
struct Workshop {
    scratch: Scratch,
    store: Store,
}

impl Workshop {
    fn new() -> Workshop {
        let scratch = Scratch::new();
        // On the disk, so that nobody brings it there first.
        let store = Store::create(scratch.path("store")).unwrap();
        Fixture::new(platform("linux/amd64")).layer(&[("base", &[7; 2000])]).tag(&store, &name("kept")).unwrap();
        let source = scratch.store("source");
        two().tag(&source, &name("example.com/made:1")).unwrap();
        let workshop = Workshop { scratch, store };
        fs::create_dir(workshop.path("tree")).unwrap();
        fs::write(workshop.path("tree/file"), "1").unwrap();
        let mut save = example("save");
        save.arg("--store").arg(source.path()).arg("-o").arg(workshop.path("archive.tar"));
        run(save.arg("example.com/made:1")).ok();
        fs::write(workshop.path("tree.tar"), tar(&[Item::file("file", "1")])).unwrap();
        workshop
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scratch.path(name)
    }

    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = example(program);
        command.arg("--store").arg(self.store.path()).args(arguments);
        command
    }

    /// The same under `strace`, with these options.
    fn traced(&self, program: &str, arguments: &[&str], call: &str, inject: Option<&str>) -> (Ran, String) {
        let (log, plain) = (self.path("log"), self.command(program, arguments));
        let mut strace = Command::new("strace");
        strace.args(["-f", "-qq", "-o"]).arg(&log).args(["-e", &format!("trace={call}")]);
        if let Some(inject) = inject {
            strace.args(["-e", inject]);
        }
        let ran = run(strace.arg(plain.get_program()).args(plain.get_args()).current_dir(self.scratch.path("")));
        (ran, fs::read_to_string(log).unwrap())
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Ran {
        run(self.command(program, arguments).current_dir(self.scratch.path("")))
    }

    fn digests(&self) -> Vec<Digest> {
        let mut digests: Vec<Digest> = self.store.blobs().unwrap().map(|blob| blob.unwrap().0).collect();
        digests.sort();
        digests
    }

    fn contents(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        comparable_contents(&self.store)
    }

    #[track_caller]
    fn assert_whole(&self, called: &str, what: &str) {
        let image = self.store.image(name(called)).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert!(image.is_complete().unwrap(), "{what}");
    }
}

fn names_of(store: &Store) -> Vec<Name> {
    store.entries().unwrap().map(|entry| entry.unwrap().0).collect()
}

fn two() -> Fixture {
    Fixture::new(platform("linux/amd64")).layer(&[("base", &[7; 2000])]).layer(&[("own", b"own")])
}

/// For each call, and points spread over all that the program makes of it: kills it there, looks, and runs it again.
/// `begin` comes before each of them.
fn try_each(program: &str, arguments: &[&str], begin: &dyn Fn(), look: &dyn Fn(&Workshop, &str)) -> usize {
    let most = std::env::var("LAYERCAKE_CRASH_POINTS").map_or(POINTS, |number| number.parse().unwrap());
    let reference = Workshop::new();
    reference.run(program, arguments).ok();
    reference.store.gc_with(&at_once()).unwrap();
    let mut points = 0;
    for call in MAKING {
        let counting = Workshop::new();
        begin();
        let (ran, log) = counting.traced(program, arguments, call, None);
        ran.ok();
        let count = log.lines().filter(|line| line.contains('(')).count();
        for n in (1..=count).step_by(count.div_ceil(most).max(1)) {
            let what = format!("{program}: killed at {call} {n} of {count}");
            let workshop = Workshop::new();
            begin();
            let inject = format!("inject={call}:signal=SIGKILL:when={n}");
            workshop.traced(program, arguments, call, Some(&inject));
            assert_clean(&workshop.store);
            workshop.assert_whole("kept", &what);
            look(&workshop, &what);
            let again = workshop.run(program, arguments);
            assert_eq!(again.status, 0, "{what}: the next run: {again:?}");
            look(&workshop, &what);
            assert_clean(&workshop.store);
            // What the killed one left behind can all be collected, when the last of its threads is gone.
            let left = |folder| fs::read_dir(workshop.path("store/layercake").join(folder)).map_or(0, Iterator::count);
            for _ in 0..100 {
                workshop.store.gc_with(&at_once()).unwrap();
                if left("leases") + left("partial") == 0 {
                    break;
                }
                std::thread::sleep(std::time::Duration::from_millis(50));
            }
            assert_eq!(workshop.digests(), reference.digests(), "{what}");
            assert_eq!((left("leases"), left("partial")), (0, 0), "{what}");
            points += 1;
        }
    }
    println!("{program}: {points} crash points");
    points
}

/// Case 117: import, load and build, killed at any call that changes something.
#[test]
fn making_an_image_survives_being_killed_at_any_system_call() {
    if !installed(&["strace"]) {
        return;
    }
    let made_or_not = |workshop: &Workshop, what: &str| match workshop.store.resolve(name("example.com/made:1")) {
        Ok(_) => workshop.assert_whole("example.com/made:1", what),
        Err(error) => assert!(error.is_not_found(), "{what}: {error}"),
    };
    let build = ["--from", "kept", "--to", "/srv", "--created", "0", "tree", "example.com/made:1"];
    let points = try_each("load", &["archive.tar"], &|| (), &made_or_not)
        + try_each("import", &["--created", "0", "tree.tar", "example.com/made:1"], &|| (), &made_or_not)
        + try_each("build", &build, &|| (), &made_or_not);
    println!("{points} crash points");
    assert!(points > 60, "only {points} points");
}

/// Case 117: a push and a save that are killed have changed nothing here, and the next ones succeed.
#[test]
fn reading_an_image_survives_being_killed_at_any_system_call() {
    if !installed(&["strace"]) {
        return;
    }
    let served = Served::start();
    let there = served.registry.reference("app:1").unwrap();
    let before = Workshop::new().contents();
    let unchanged = |workshop: &Workshop, what: &str| assert_eq!(workshop.contents(), before, "{what}");
    let pushed = |workshop: &Workshop, what: &str| {
        unchanged(workshop, what);
        for called in names_of(&served.store) {
            assert!(served.store.image(called).unwrap().is_complete().unwrap(), "{what}");
        }
    };
    let empty = || {
        names_of(&served.store).into_iter().for_each(|called| drop(served.store.untag(called).unwrap()));
        served.store.gc_with(&at_once()).unwrap();
        assert_eq!(served.store.blobs().unwrap().count(), 0);
    };
    let points = try_each("push", &["--quiet", "--jobs", "1", "kept", &there.to_string()], &empty, &pushed)
        + try_each("save", &["-o", "saved.tar", "kept"], &|| (), &|workshop, what| {
            unchanged(workshop, what);
            // Under its name there is all of it, or nothing.
            if let Ok(saved) = fs::metadata(workshop.path("saved.tar")) {
                assert_eq!(saved.len() % 512, 0, "{what}");
                run(example("load").arg("--store").arg(workshop.path("loaded")).arg(workshop.path("saved.tar"))).ok();
            }
        });
    println!("{points} crash points");
    assert!(points > 20, "only {points} points");
}
