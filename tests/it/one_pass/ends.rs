//! What is refused at once, and how it ends where the user, a full disk or a limit ends it.

use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::process::Command;
use std::time::Duration;

use layercake::changeset::Limits;

use super::*;
use crate::gc::at_once;
use crate::support::contents;
use crate::support::tools::example;
use crate::support::tools::installed;
use crate::support::tools::is_root;
use crate::support::tools::run;
use crate::support::tools::unmount;

/// Nothing is there that was not, and a second attempt makes what a pull and an unpack make.
#[track_caller]
fn goes_on(served: &Served, image: &layercake::ImageReference, store: &Store, target: &Path, what: &str) {
    nothing_beside(target);
    crate::check::assert_clean(store);
    let leases = store.path().join("layercake/leases");
    assert_eq!(fs::read_dir(leases).map_or(0, Iterator::count), 0, "{what}: a lease is left");
    served.registry.clear_faults();
    let done = client().pull(image).unpack_with(store, target, &options());
    let done = done.unwrap_or_else(|error| panic!("{what}: {error}"));
    let again = target.with_file_name("again");
    let _ = done.pulled.image.unpack_with(&again, &options()).unwrap();
    assert_eq!(lines(target), lines(&again), "{what}");
}

/// Cases 36 and 113: what cannot be the target is refused before anything is asked for or written.
#[test]
fn targets_that_cannot_be_are_refused_at_once() {
    let (served, image) = Served::with(&layered());
    let store = served.scratch.store("store");
    let before = contents(store.path());
    let path = |name: &str| served.scratch.path(name);
    fs::write(served.scratch.dir("full").join("mine"), "mine").unwrap();
    fs::write(path("file"), "mine").unwrap();
    std::os::unix::fs::symlink(served.scratch.dir("elsewhere"), path("link")).unwrap();
    let mount = served.scratch.dir("mount");
    let is_mounted = is_root() && run(Command::new("mount").args(["-t", "tmpfs", "none"]).arg(&mount)).status == 0;
    let refused = |target: &Path| failure(client().pull(&image).unpack_with(&store, target, &options()));
    for taken in ["full", "file", "link", "mount"].into_iter().filter(|taken| *taken != "mount" || is_mounted) {
        assert_kind!(refused(&path(taken)), ErrorKind::AlreadyExists { .. });
    }
    if is_mounted {
        unmount(&mount);
    }
    for inside in ["root", "blobs/root", "layercake/root"] {
        assert_kind!(refused(&store.path().join(inside)), ErrorKind::InvalidInput(_));
    }
    assert_kind!(refused(Path::new("/")), ErrorKind::InvalidInput(_));
    assert_kind!(refused(&path("file/root")), ErrorKind::Io { .. });
    assert!(served.registry.requests().is_empty());
    assert_eq!(contents(store.path()), before);
    let hidden = fs::read_dir(path(""))
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with('.'));
    assert_eq!(hidden.count(), 0);
}

/// The moments at which something may happen, by what is told then.
const MOMENTS: [&str; 8] =
    ["Resolved", "Selected", "Started", "Progress", "Finished", "Unpacking", "Unpacked", "last Unpacked"];

fn is_moment(event: &Event<'_>, moment: &str, last: &Digest) -> bool {
    let told = format!("{event:?}");
    match event {
        Event::Unpacked { layer } if moment == "last Unpacked" => layer.digest == *last,
        _ => told.split([' ', '{']).next() == Some(moment),
    }
}

/// P11: either switch, the pull's or the unpacking's, ends both at any moment.
#[test]
fn it_is_cancelled_at_any_moment() {
    let (served, image) = Served::with(&layered());
    let last = last_layer(&served);
    for (moment, which) in MOMENTS.into_iter().flat_map(|moment| [0, 1, 2].map(|which| (moment, which))) {
        let what = format!("{moment}, switch {which}");
        let scratch = crate::support::Scratch::new();
        let (store, target) = (scratch.store("store"), scratch.path("rootfs"));
        let cancel = Cancel::new();
        let observer = |event: &Event<'_>| {
            if is_moment(event, moment, &last) {
                cancel.cancel();
            }
        };
        let mut pull = client().pull(&image).jobs(2).observer(&observer);
        let mut options = options().observer(&observer);
        if which != 1 {
            pull = pull.cancel(&cancel);
        }
        if which != 0 {
            options = options.cancel(&cancel);
        }
        // The last layer was applied when the switch of unpacking is looked at for the last time.
        if which == 1 && moment == "last Unpacked" {
            let _ = pull.unpack_with(&store, &target, &options).unwrap();
            continue;
        }
        assert_kind!(failure(pull.unpack_with(&store, &target, &options)), ErrorKind::Cancelled);
        assert!(store.resolve(&image).unwrap_err().is_not_found(), "{what}");
        goes_on(&served, &image, &store, &target, &what);
    }
}

/// Where all has arrived, nobody looks at the pull's switch but who reads it: only what was read already is applied.
#[test]
fn the_switch_of_a_pull_ends_what_is_applied() {
    let many = (0..3000).map(|n| Item::file(format!("{n}"), noise(n, 10_000))).collect::<Vec<_>>();
    let (served, image) = Served::with(&Fixture::new(platform("linux/amd64")).raw_layer(tar(&many)));
    let (store, target) = (served.scratch.store("store"), served.scratch.path("rootfs"));
    let (cancel, entries) = (Cancel::new(), AtomicUsize::new(0));
    let observer = |event: &Event<'_>| {
        if matches!(event, Event::Unpacking { .. }) && entries.fetch_add(1, Ordering::Relaxed) == 0 {
            std::thread::sleep(Duration::from_millis(500));
            cancel.cancel();
        }
    };
    let options = options().observer(&observer);
    let pull = client().pull(&image).cancel(&cancel);
    assert_kind!(failure(pull.unpack_with(&store, &target, &options)), ErrorKind::Cancelled);
    let entries = entries.into_inner();
    assert!(entries < 3000, "all {entries} entries were applied");
    goes_on(&served, &image, &store, &target, "cancelled");
}

/// Case 132: an observer that panics ends it at any moment, and leaves nothing but blobs.
#[test]
fn an_observer_that_panics_ends_it() {
    let (served, image) = Served::with(&layered());
    let last = last_layer(&served);
    for moment in MOMENTS {
        let scratch = crate::support::Scratch::new();
        let (store, target) = (scratch.store("store"), scratch.path("rootfs"));
        let observer = |event: &Event<'_>| assert!(!is_moment(event, moment, &last), "wanted");
        let pull = client().pull(&image).jobs(2).observer(&observer);
        let unpack = || drop(pull.unpack_with(&store, &target, &options().observer(&observer)));
        assert!(catch_unwind(AssertUnwindSafe(unpack)).is_err(), "{moment}");
        assert!(store.resolve(&image).unwrap_err().is_not_found(), "{moment}");
        goes_on(&served, &image, &store, &target, moment);
    }
}

/// So many small layers.
fn many(layers: usize) -> Fixture {
    (0..layers).fold(Fixture::new(platform("linux/amd64")), |fixture, n: usize| {
        fixture.layer(&[(&format!("layer-{n}"), &noise(n as u64, 100))])
    })
}

/// Where nobody applies what comes, the rest is not fetched: after a panic, and where the target's limits are reached.
#[test]
fn nothing_is_fetched_for_nobody() {
    let (served, image) = Served::with(&many(200));
    served.registry.fault(Fault::on("/blobs/").delay(Duration::from_millis(20)));
    let (store, target) = (served.scratch.store("store"), served.scratch.path("rootfs"));
    let observer = |event: &Event<'_>| assert!(!matches!(event, Event::Unpacked { .. }), "wanted");
    let pull = client().pull(&image).jobs(1);
    let unpack = || drop(pull.unpack_with(&store, &target, &options().observer(&observer)));
    assert!(catch_unwind(AssertUnwindSafe(unpack)).is_err());
    let fetched = asked(&served).len();
    assert!(fetched < 150, "{fetched} blobs");
    let mut limits = Limits::default();
    limits.entries = 3;
    let error = failure(pull.unpack_with(&store, &target, &options().limits(limits)));
    assert_kind!(error, ErrorKind::LimitExceeded { .. });
    let fetched = asked(&served).len();
    assert!(fetched < 150, "{fetched} blobs");
    goes_on(&served, &image, &store, &target, "limits");
}

/// P9: however many layers wait for the first, few files are open.
#[test]
fn layers_that_wait_hold_no_files_open() {
    let fixture = (0..300).fold(Fixture::new(platform("linux/amd64")), |fixture, n: usize| {
        fixture.layer(&[(&format!("layer-{n}"), format!("{n}").as_bytes())])
    });
    let (served, image) = Served::with(&fixture);
    // The configuration comes first, then the first layer, late.
    served.registry.fault(Fault::on("/blobs/").after(1).times(1).delay(Duration::from_secs(3)));
    let target = served.scratch.path("rootfs");
    let unpack = example("unpack");
    let mut limited = Command::new("sh");
    limited.args(["-c", "ulimit -n 50 && exec \"$@\"", "sh"]).arg(unpack.get_program()).env("HOME", "/dev/null");
    limited.args(["--rootless", "--pull", "--store"]).arg(served.scratch.path("store")).arg(image.to_string());
    assert_eq!(run(limited.arg(&target)).ok(), "300 entries, 790 bytes, 0 skipped\n");
    assert_eq!(fs::read_dir(&target).unwrap().count(), 300);
}

/// Case 100: a limit of the store is said before a layer is fetched, and leaves no tree.
#[test]
fn a_store_without_room_says_so_first() {
    let (served, image) = Served::with(&layered());
    let (store, target) = (served.scratch.store("store"), served.scratch.path("rootfs"));
    store.set_limit(Some(100_000)).unwrap();
    let error = failure(client().pull(&image).unpack_with(&store, &target, &options()));
    assert_kind!(error, ErrorKind::StorageFull { .. });
    assert_eq!(asked(&served).len(), 1, "the configuration");
    store.set_limit(None).unwrap();
    goes_on(&served, &image, &store, &target, "without room");
}

/// Case 100: the store's disk is full and the target's is not; and the other way round, where the blobs stay.
#[test]
fn either_disk_may_be_full() {
    if !is_root() {
        return;
    }
    let big = Fixture::new(platform("linux/amd64")).layer(&[("a", b"a")]).layer(&[("noise", &noise(1, 2 << 20))]);
    let (served, image) = Served::with(&big);
    for is_store in [true, false] {
        let small = served.scratch.dir(if is_store { "small-1" } else { "small-2" });
        let mount = |options: &str| {
            run(Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(&small)).ok();
        };
        mount("size=1m");
        let large = served.scratch.dir(if is_store { "large-1" } else { "large-2" });
        let (of_store, of_target) = if is_store { (&small, &large) } else { (&large, &small) };
        let store = Store::create(of_store.join("store")).unwrap();
        let target = of_target.join("rootfs");
        let error = failure(client().pull(&image).jobs(1).unpack_with(&store, &target, &options()));
        nothing_beside(&target);
        let kept = blobs(&store).len();
        let is_nameless = store.resolve(&image).is_err();
        mount("remount,size=32m");
        asked(&served);
        let done = client().pull(&image).unpack_with(&store, &target, &options()).map(|done| done.unpacked.bytes);
        let fetched = asked(&served).len();
        drop(store);
        unmount(&small);
        assert_kind!(error, ErrorKind::StorageFull { .. });
        assert!(is_nameless);
        assert_eq!(done.unwrap(), (2 << 20) + 1);
        assert_eq!(fetched, 4 - kept, "of a full store {is_store}: {kept} blobs were kept");
    }
}

/// Each of eight layers is waited for by who applies them, and one thread brings them all.
#[test]
fn one_thread_brings_what_is_waited_for() {
    let (served, image) = Served::with(&many(40));
    for jobs in [1, 2, 64] {
        let store = served.scratch.store(&format!("store-{jobs}"));
        let target = served.scratch.path(&format!("rootfs-{jobs}"));
        // The last layer comes at once, the first ones late.
        served.registry.fault(Fault::on("/blobs/").after(1).times(3).delay(Duration::from_millis(200)));
        let done = client().pull(&image).jobs(jobs).unpack_with(&store, &target, &options()).unwrap();
        assert_eq!(done.unpacked.entries, 40);
        store.untag(&image).unwrap();
        store.gc_with(&at_once()).unwrap();
        assert_eq!(blobs(&store), BTreeSet::new(), "nothing is left behind");
    }
}

/// P11: where the system gives no more threads, that is an error.
#[test]
fn a_thread_that_cannot_be_started_is_an_error() {
    if !installed(&["strace"]) {
        return;
    }
    let (served, image) = Served::with(&layered());
    let (store, target) = (served.scratch.store("store"), served.scratch.path("rootfs"));
    client().pull(&image).to(&store).unwrap();
    let refused = |store: &Store, options: &[&str], n: usize| {
        let unpack = example("unpack");
        let mut strace = Command::new("strace");
        let inject = format!("inject=clone,clone3:error=EAGAIN:when={n}");
        strace.args(["-f", "-qq", "-o", "/dev/null", "-e", &inject]).arg(unpack.get_program()).env("HOME", "/dev/null");
        strace.arg("--rootless").args(options).arg("--store").arg(store.path()).arg(image.to_string());
        let ran = run(strace.arg(&target));
        // The client takes a thread for each name of a host, and panics without.
        let is_ours = ran.status != 101 || !ran.err.contains("resolve");
        assert!(ran.status <= 1 || !is_ours, "{n}: {ran:?}");
        assert_eq!(target.exists(), ran.status == 0, "{n}: {ran:?}");
        if target.exists() {
            fs::remove_dir_all(&target).unwrap();
        }
        ran.err.contains("start a thread: ")
    };
    assert_eq!((1..=3).map(|n| refused(&store, &[], n)).collect::<Vec<_>>(), [true, true, false]);
    let ours = (1..=6).filter(|n| {
        let empty = served.scratch.store(&format!("store-{n}"));
        let is_ours = refused(&empty, &["--pull"], *n);
        crate::check::assert_clean(&empty);
        is_ours
    });
    assert!(ours.count() >= 1);
    nothing_beside(&target);
}
