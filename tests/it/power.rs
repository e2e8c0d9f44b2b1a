//! Case 122: the power goes, at any moment. What each program does to the disk is recorded; then it is made anew as it
//! may be found afterwards: what was not synced is there, or not, or half. Whatever is found, the store is sound, and
//! what was reported as done is done.
//!
//! The story behind these: a tool that syncs a file and not its directory, or the other way round, works for years, and
//! loses on one day what it said it had.

mod disk;
mod log;

use std::collections::BTreeSet;
use std::collections::HashMap;
use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use disk::Disk;
use disk::Fate;
use disk::Found;
use disk::Item;
use layercake::Descriptor;
use layercake::ImageReference;
use layercake::Store;
use layercake::store::Problem;
use layercake::testing::Fixture;

use crate::gc::make_older;
use crate::support::Scratch;
use crate::support::Served;
use crate::support::name;
use crate::support::platform;
use crate::support::tools::Ran;
use crate::support::tools::example;
use crate::support::tools::installed;
use crate::support::tools::is_root;
use crate::support::tools::mounts_overlays;
use crate::support::tools::run;

/// How many states are tried for each program, unless `LAYERCAKE_POWER_STATES` says another number.
const STATES: usize = 45;
/// Of so many states, the program is run again in one.
const AGAIN: usize = 4;

/// One state that the disk may be found in.
struct State {
    /// How many changes there had been.
    end: usize,
    lucky: HashSet<usize>,
    fates: HashMap<usize, Fate>,
}

/// A disk with a store on it, and a program.
struct Scene {
    scratch: Scratch,
    disk: PathBuf,
    program: Command,
    /// What ran before it, and whether that synced nothing, or at which sync it was killed.
    first: Option<First>,
}

#[derive(Clone, Copy)]
enum First {
    Unsynced,
    KilledAt(usize),
}

/// What is looked at.
struct Seen<'a> {
    found: &'a Found,
    /// What was there before, and what is there when nothing went wrong.
    references: [&'a Found; 2],
    store: Option<Store>,
    /// Whether the program had said that it was done.
    done: bool,
    what: String,
}

impl Scene {
    /// The arguments follow the store's.
    fn new(program: &str, prepare: impl FnOnce(&Path)) -> Scene {
        let scratch = Scratch::new();
        let disk = scratch.dir("disk");
        prepare(&disk);
        let mut program = example(program);
        program.env("LAYERCAKE_STORE", disk.join("store")).current_dir(&disk);
        Scene { scratch, disk, program, first: None }
    }

    fn arguments(mut self, arguments: &[&str]) -> Scene {
        self.program.args(arguments);
        self
    }

    fn after(self, first: First) -> Scene {
        Scene { first: Some(first), ..self }
    }

    /// What the program does to the disk, and what is there then. None if a program that was killed before it has left
    /// something that it refuses.
    fn record(&mut self) -> Option<(Disk, Found)> {
        let mut disk = Disk::of(&self.disk);
        match self.first {
            Some(First::Unsynced) => drop(self.trace(&[], &["--no-sync"], &mut disk).ok()),
            Some(First::KilledAt(n)) => {
                let inject = format!("inject=fsync,syncfs:signal=SIGKILL:when={n}");
                self.trace(&["-e", &inject], &[], &mut disk);
            }
            None => {}
        }
        let ran = self.trace(&[], &[], &mut disk);
        if self.first.is_some() && ran.err.contains("already") {
            return None;
        }
        ran.ok();
        disk.settle();
        let reference = disk.found(disk.len(), &|_| true, &|_| Fate::Whole);
        assert_same(&reference, &Disk::of(&self.disk).found(0, &|_| true, &|_| Fate::Whole));
        Some((disk, reference))
    }

    /// Runs the program, and does to the model what it does.
    fn trace(&self, options: &[&str], arguments: &[&str], disk: &mut Disk) -> Ran {
        let log = self.scratch.path("log");
        let mut strace = Command::new("strace");
        strace.args(["-f", "-qq", "-y", "-s", "1000000", "-o"]).arg(&log).args(["-e", "signal=none"]);
        strace.args(["-e", &format!("trace={}", log::TRACED)]).args(options).arg(self.program.get_program());
        strace.args(self.program.get_args()).args(arguments);
        strace.env("LAYERCAKE_STORE", self.disk.join("store")).current_dir(&self.disk);
        let ran = run(&mut strace);
        self.unmount();
        disk.close_all();
        for call in log::calls(&fs::read_to_string(log).unwrap()) {
            disk.follow(&call);
        }
        ran
    }

    fn unmount(&self) {
        let _ = Command::new("umount").args(["--quiet", "--lazy"]).arg(self.disk.join("work/root")).output();
    }

    fn run(&mut self) -> Ran {
        let ran = run(&mut self.program);
        self.unmount();
        ran
    }

    /// Tries the states. Returns how many.
    fn replay(mut self, look: &dyn Fn(&Seen<'_>)) -> usize {
        let most = match std::env::var("LAYERCAKE_POWER_STATES") {
            Ok(number) => number.parse().unwrap(),
            Err(_) => STATES,
        };
        let Some((disk, reference)) = self.record() else { return 0 };
        let before = disk.found(0, &|_| true, &|_| Fate::Whole);
        let program = self.program.get_program().to_string_lossy().rsplit('/').next().unwrap().to_owned();
        let mut tried = HashSet::new();
        for state in states(&disk) {
            if tried.len() == most {
                break;
            }
            let done = state.end == disk.len();
            if !done && self.first.is_some() {
                break;
            }
            let fate = |node: usize| state.fates.get(&node).copied().unwrap_or(Fate::Whole);
            let found = disk.found(state.end, &|change| state.lucky.contains(&change), &fate);
            if !tried.insert((disk::fingerprint(&found), done)) {
                continue;
            }
            disk::put(&found, &self.disk);
            let what = format!("{program}: {}", describe(&state, &disk));
            self.look(&found, [&before, &reference], done, &what, look);
            if (tried.len() - 1).is_multiple_of(AGAIN) || most > STATES {
                let again = self.run();
                // A tree is there already, or a name is already gone: that was looked at above.
                let is_there = again.err.contains("already") || again.err.contains("not found");
                assert!(again.status == 0 || is_there, "{what}: the next run: {again:?}");
                let found = Disk::of(&self.disk).found(0, &|_| true, &|_| Fate::Whole);
                let references = [&found, &found];
                self.look(&found, references, again.status == 0, &format!("{what}, and run again"), look);
            }
        }
        if self.first.is_none() {
            println!("{program}: {} states of a disk after {} changes", tried.len(), disk.len());
        }
        tried.len()
    }

    fn look(&self, found: &Found, references: [&Found; 2], done: bool, what: &str, look: &dyn Fn(&Seen<'_>)) {
        let path = self.disk.join("store");
        // What was being made may be half there, and opens when it is made again.
        let store = path.exists().then(|| Store::open_or_create(&path).unwrap_or_else(|e| panic!("{what}: {e:?}")));
        let seen = Seen { found, references, store, done, what: what.to_owned() };
        seen.assert_sound();
        look(&seen);
    }
}

impl Seen<'_> {
    /// Nothing is wrong with the store, and what says that it is unpacked is.
    fn assert_sound(&self) {
        let Some(store) = &self.store else { return };
        let problems = store.check().unwrap_or_else(|error| panic!("{}: {error:?}", self.what)).problems;
        let is_harmless = |problem: &Problem| matches!(problem, Problem::TreeUnrecorded { .. });
        assert!(problems.iter().all(is_harmless), "{}: {problems:?}", self.what);
        for path in self.found.keys().filter(|path| path.starts_with("store/layercake/unpacked")) {
            if path.extension().is_some_and(|extension| extension == "json") {
                self.assert_whole(&path.with_extension(""));
            }
        }
    }

    /// What is below a path is what was made there, to the last byte.
    fn assert_whole(&self, path: &Path) {
        let below = |found: &Found| -> Vec<String> {
            let items = found.iter().filter(|(below, _)| below.starts_with(path) && !is_of_the_kernel(below));
            items.map(|(path, item)| shown(path, item)).collect()
        };
        let either = self.references.map(below);
        let is_whole = either.contains(&below(self.found));
        assert!(is_whole, "{}: {:?} is neither of {either:?}", self.what, below(self.found));
    }

    /// A name means one of these, and the image is whole; or nothing, if it may.
    fn assert_means(&self, image: &ImageReference, either: &[&Descriptor], may_be_missing: bool) {
        let found = match &self.store {
            Some(store) => store.resolve(image),
            None => return assert!(may_be_missing, "{}: the store is gone", self.what),
        };
        match found {
            Ok(root) => {
                assert!(either.iter().any(|either| either.digest == root.digest), "{}: {root:?}", self.what);
                let opened = self.store.as_ref().unwrap().image_for(image, &platform("linux/amd64"));
                let opened = opened.unwrap_or_else(|error| panic!("{}: {error:?}", self.what));
                assert!(opened.is_complete().unwrap(), "{}: the image is not whole", self.what);
            }
            Err(error) => assert!(error.is_not_found() && may_be_missing, "{}: {error:?}", self.what),
        }
    }

    fn has(&self, path: &str) -> bool {
        self.found.contains_key(Path::new(path))
    }
}

/// What the kernel makes when it mounts an overlay.
fn is_of_the_kernel(path: &Path) -> bool {
    path.starts_with("work/work") && path != Path::new("work/work")
}

fn shown(path: &Path, item: &Item) -> String {
    let path = path.display();
    match item {
        Item::Directory(mode) => format!("{path}/ {mode:o}"),
        Item::Link(target) => format!("{path} -> {}", target.display()),
        Item::File { mode, content, .. } => format!("{path} {mode:o} {}", String::from_utf8_lossy(content)),
    }
}

/// The model followed the program to the end.
fn assert_same(model: &Found, real: &Found) {
    let shown = |found: &Found| -> Vec<String> {
        let items = found.iter().filter(|(path, _)| !is_of_the_kernel(path));
        items.map(|(path, item)| shown(path, item)).collect()
    };
    assert_eq!(shown(model), shown(real), "the model is not the disk");
}

/// Which states to try, those after the end first; the others in an order that is the same each time.
fn states(disk: &Disk) -> Vec<State> {
    let mut random = fastrand::Rng::with_seed(122);
    let mut states = Vec::new();
    for end in 0..=disk.len() {
        let (names, files) = (disk.open_names(end), disk.open_files(end));
        let mut add = |lucky: &[usize], fate: &mut dyn FnMut() -> Fate| {
            let fates = files.iter().map(|file| (*file, fate())).collect();
            states.push(State { end, lucky: lucky.iter().copied().collect(), fates });
        };
        add(&[], &mut || Fate::Whole);
        for fate in Fate::ALL {
            add(&names, &mut || fate);
        }
        add(&[], &mut || Fate::Lost);
        // In the order in which they were made, up to some point; and in any.
        let point = random.usize(..=names.len());
        for fate in Fate::ALL {
            add(&names[..point], &mut || fate);
        }
        for _ in 0..3 {
            let some: Vec<usize> = names.iter().copied().filter(|_| random.bool()).collect();
            add(&some, &mut || Fate::ALL[random.usize(..4)]);
        }
    }
    random.shuffle(&mut states);
    states.sort_by_key(|state| state.end != disk.len());
    states
}

fn describe(state: &State, disk: &Disk) -> String {
    let lucky: BTreeSet<usize> = state.lucky.iter().copied().collect();
    let fates: BTreeSet<(usize, String)> =
        state.fates.iter().map(|(node, fate)| (*node, format!("{fate:?}"))).collect();
    format!("{} of {} changes, {lucky:?} of {:?}, {fates:?}", state.end, disk.len(), disk.open_names(state.end))
}

fn old() -> Fixture {
    Fixture::new(platform("linux/amd64")).layer(&[("base", &[7; 2000])]).layer(&[("old", b"old")])
}

fn new() -> Fixture {
    let arm = Fixture::new(platform("linux/arm64")).layer(&[("arm", b"arm")]);
    Fixture::new(platform("linux/amd64")).layer(&[("base", &[7; 2000])]).layer(&[("new", b"new")]).and(arm)
}

/// The store on a disk, made without waiting for this one.
fn store(disk: &Path) -> Store {
    Store::open_or_create(disk.join("store")).unwrap().with_durability(layercake::Durability::None)
}

/// P5: what a pull said it had is there.
#[test]
fn pulls_survive_a_power_cut() {
    if !installed(&["strace"]) {
        return;
    }
    let (served, image) = Served::with(&new());
    let root = served.store.resolve(name("example.com/app:1")).unwrap();
    let arguments = ["--quiet", "--jobs", "1", "--platform", "linux/amd64", &image.to_string()];
    Scene::new("pull", |_| {}).arguments(&arguments).replay(&|seen| seen.assert_means(&image, &[&root], !seen.done));
    let before = old().write(&served.scratch.store("other")).unwrap();
    Scene::new("pull", |disk| drop(old().tag(&store(disk), &image).unwrap())).arguments(&arguments).replay(&|seen| {
        let either: &[&Descriptor] = if seen.done { &[&root] } else { &[&root, &before] };
        seen.assert_means(&image, either, false);
    });
}

/// These tests can fail: without syncing, a pull does not keep what it says.
#[test]
fn a_power_cut_is_noticed_where_nothing_is_synced() {
    if !installed(&["strace"]) {
        return;
    }
    let (served, image) = Served::with(&new());
    let root = served.store.resolve(name("example.com/app:1")).unwrap();
    let arguments = ["--quiet", "--jobs", "1", "--platform", "linux/amd64", "--no-sync", &image.to_string()];
    let scene = Scene::new("pull", |disk| drop(store(disk))).arguments(&arguments);
    let replay = || scene.replay(&|seen| seen.assert_means(&image, &[&root], !seen.done));
    let noticed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(replay));
    assert!(noticed.is_err(), "nothing was lost");
}

/// A store with an image that has a name, and one that has none.
fn with_garbage(disk: &Path) {
    let store = store(disk);
    old().tag(&store, &name("kept")).unwrap();
    new().tag(&store, &name("other")).unwrap();
    let lost = Fixture::new(platform("linux/amd64")).layer(&[("lost", b"lost")]).tag(&store, &name("lost")).unwrap();
    let image = store.image_at(&lost).unwrap();
    let chain = image.config().unwrap().chain_ids().unwrap()[0];
    store.untag(name("lost")).unwrap();
    for blob in fs::read_dir(disk.join("store/blobs/sha256")).unwrap() {
        make_older(&blob.unwrap().path(), Duration::from_secs(7200));
    }
    crate::gc::unpack(&store, "preserve", chain, 5);
}

/// Names and garbage.
#[test]
fn keeping_a_store_survives_a_power_cut() {
    if !installed(&["strace"]) {
        return;
    }
    let scratch = Scratch::new();
    let reference = scratch.store("reference");
    let (kept, other) = (old().write(&reference).unwrap(), new().write(&reference).unwrap());
    let (is_kept, is_other) = (name("kept"), name("other"));
    Scene::new("tag", with_garbage).arguments(&["kept", "new"]).replay(&|seen| {
        seen.assert_means(&is_kept, &[&kept], false);
        seen.assert_means(&name("new"), &[&kept], !seen.done);
    });
    Scene::new("tag", with_garbage).arguments(&["kept", "other"]).replay(&|seen| {
        let either: &[&Descriptor] = if seen.done { &[&kept] } else { &[&kept, &other] };
        seen.assert_means(&is_other, either, false);
    });
    Scene::new("store", with_garbage).arguments(&["gc", "--now"]).replay(&|seen| {
        seen.assert_means(&is_kept, &[&kept], false);
        seen.assert_means(&is_other, &[&other], false);
    });
    Scene::new("remove", with_garbage).arguments(&["other"]).replay(&|seen| {
        seen.assert_means(&is_kept, &[&kept], false);
        seen.assert_means(&is_other, &[&other], true);
        let store = seen.store.as_ref().unwrap();
        assert!(!seen.done || store.resolve(&is_other).is_err(), "{}: it is back", seen.what);
    });
}

/// What makes images.
#[test]
fn new_images_survive_a_power_cut() {
    if !installed(&["strace"]) {
        return;
    }
    let kept = name("kept");
    let made = name("example.com/made:1");
    let scratch = Scratch::new();
    let root = old().write(&scratch.store("reference")).unwrap();
    let archive = scratch.path("archive.tar");
    let source = scratch.store("source");
    new().tag(&source, &made).unwrap();
    let archive = archive.to_str().unwrap();
    let arguments = ["--platform", "linux/amd64", "-o", archive, "example.com/made:1"];
    run(example("save").arg("--store").arg(source.path()).args(arguments)).ok();

    let prepare = |disk: &Path| drop(old().tag(&store(disk), &kept).unwrap());
    let look = |seen: &Seen<'_>| {
        seen.assert_means(&kept, &[&root], false);
        let store = seen.store.as_ref().unwrap();
        match store.resolve(&made) {
            Ok(root) => seen.assert_means(&made, &[&root], false),
            Err(error) => assert!(error.is_not_found() && !seen.done, "{}: {error:?}", seen.what),
        }
    };
    Scene::new("load", prepare).arguments(&[archive]).replay(&look);
    let with_tree = |disk: &Path| {
        prepare(disk);
        fs::create_dir(disk.join("tree")).unwrap();
        fs::write(disk.join("tree/file"), "1").unwrap();
    };
    let arguments = ["--from", "kept", "--to", "/srv", "--created", "0", "tree", "example.com/made:1"];
    Scene::new("build", with_tree).arguments(&arguments).replay(&look);
    let with_copy = |disk: &Path| {
        prepare(disk);
        let image = store(disk).image(&kept).unwrap();
        let options = layercake::checkout::CheckoutOptions::new().mode(layercake::checkout::CheckoutMode::Copy);
        let work = image.checkout_with(disk.join("work"), &options).unwrap();
        fs::write(work.root().join("changed"), "1").unwrap();
    };
    if is_root() {
        Scene::new("commit", with_copy).arguments(&["--created", "0", "work", "example.com/made:1"]).replay(&look);
    }
}

/// What is unpacked: not there, or whole.
#[test]
fn trees_survive_a_power_cut() {
    if !installed(&["strace"]) || !is_root() {
        return;
    }
    let kept = name("kept");
    let prepare = |disk: &Path| drop(old().tag(&store(disk), &kept).unwrap());
    Scene::new("unpack", prepare).arguments(&["--quiet", "kept", "tree"]).replay(&|seen| {
        assert!(seen.has("tree") || !seen.done, "{}: the tree is gone", seen.what);
        if seen.has("tree") {
            seen.assert_whole(Path::new("tree"));
        }
    });
    let modes = ["copy", "overlay"];
    for mode in modes.into_iter().filter(|mode| *mode == "copy" || mounts_overlays()) {
        Scene::new("checkout", prepare).arguments(&["--mode", mode, "kept", "work"]).replay(&|seen| {
            assert!(seen.has("work") || !seen.done, "{}: the working copy is gone", seen.what);
            if seen.has("work") {
                seen.assert_whole(Path::new("work"));
            }
            let is_record = |path: &&PathBuf| {
                path.starts_with("store/layercake/checkouts") && path.extension().is_some_and(|end| end == "json")
            };
            let records = seen.found.keys().filter(is_record).count();
            assert!(records == 1 || !seen.done, "{}: the store does not know of it", seen.what);
        });
    }
}

/// P5: in one pass the name comes after the blobs, and the tree after both.
#[test]
fn one_pass_survives_a_power_cut() {
    if !installed(&["strace"]) || !is_root() {
        return;
    }
    let (served, image) = Served::with(&new());
    let root = served.store.resolve(name("example.com/app:1")).unwrap();
    let before = old().write(&served.scratch.store("other")).unwrap();
    let there = image.to_string();
    let arguments = ["--pull", "--quiet", "--platform", "linux/amd64", &there, "tree"];
    let look = |seen: &Seen<'_>| {
        let is_there = seen.has("tree");
        assert!(is_there || !seen.done, "{}: the tree is gone", seen.what);
        seen.assert_means(&image, &[&root], !is_there);
        if is_there {
            seen.assert_whole(Path::new("tree"));
        }
    };
    Scene::new("unpack", |_| {}).arguments(&arguments).replay(&look);
    let kept = name("kept");
    Scene::new("unpack", |disk| drop(old().tag(&store(disk), &kept).unwrap())).arguments(&arguments).replay(&|seen| {
        seen.assert_means(&kept, &[&before], false);
        look(seen);
    });
}

/// P5: what was there already, and is relied on, is brought to the disk too: whoever made it may not have done so, or
/// was killed before.
#[test]
fn what_others_left_unsynced_survives_a_power_cut() {
    if !installed(&["strace"]) || !is_root() {
        return;
    }
    let (served, image) = Served::with(&new());
    let (kept, made) = (name("kept"), name("example.com/made:1"));
    let root = served.store.resolve(name("example.com/app:1")).unwrap();
    // Some of the points, or all.
    let every = std::env::var("LAYERCAKE_POWER_STATES").is_ok();
    let prepare = |disk: &Path| {
        old().tag(&store(disk), &kept).unwrap();
        fs::create_dir(disk.join("tree")).unwrap();
        fs::write(disk.join("tree/file"), "1").unwrap();
    };
    let there = image.to_string();
    let pull = ["--quiet", "--jobs", "1", "--platform", "linux/amd64", &there];
    let build = ["--from", "kept", "--created", "0", "tree", "example.com/made:1"];
    let mut states = 0;
    let look = |seen: &Seen<'_>| seen.assert_means(&image, &[&root], false);
    for scene in [Scene::new("pull", |_| {}), Scene::new("pull", prepare)] {
        states += scene.arguments(&pull).after(First::Unsynced).replay(&look);
    }
    // Nothing comes, and what is there is relied on.
    let missing = [&["--policy", "missing"], &pull[..]].concat();
    states += Scene::new("pull", |_| {}).arguments(&missing).after(First::Unsynced).replay(&look);
    for n in (1..20).filter(|n| every || n % 4 == 1) {
        let first = First::KilledAt(n);
        let mut try_one = |scene: Scene, look: &dyn Fn(&Seen<'_>)| states += scene.after(first).replay(look);
        let has = |called: &ImageReference, seen: &Seen<'_>| {
            let root = seen.store.as_ref().unwrap_or_else(|| panic!("{}: no store", seen.what)).resolve(called);
            let root = root.unwrap_or_else(|error| panic!("{}: {error:?}", seen.what));
            seen.assert_means(called, &[&root], false);
        };
        try_one(Scene::new("pull", |_| {}).arguments(&pull), &look);
        try_one(Scene::new("pull", prepare).arguments(&pull), &look);
        try_one(Scene::new("build", prepare).arguments(&build), &|seen| has(&made, seen));
        let checkout = Scene::new("checkout", prepare).arguments(&["--mode", "copy", "kept", "work"]);
        try_one(checkout, &|seen| {
            seen.assert_whole(Path::new("work"));
            let is_record = |path: &&PathBuf| {
                path.starts_with("store/layercake/checkouts") && path.extension().is_some_and(|end| end == "json")
            };
            let record = seen.found.keys().filter(is_record).count();
            assert!(seen.has("work") && record == 1, "{}: the working copy is gone", seen.what);
        });
        if n < 4 {
            try_one(Scene::new("tag", prepare).arguments(&["kept", "example.com/made:1"]), &|seen| has(&made, seen));
        }
    }
    println!("{states} states");
    assert!(states > 80, "only {states}");
}
