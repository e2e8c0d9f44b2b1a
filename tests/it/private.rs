//! Private state of a store: closed to other users (P14), and not believed where it came from elsewhere (P1).

use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use std::time::Instant;

use layercake::ErrorKind;
use layercake::MediaType;
use layercake::Store;
use layercake::builder::Files;
use layercake::builder::ImageBuilder;
use layercake::checkout::CheckoutMode;
use layercake::checkout::CheckoutOptions;
use layercake::testing::Fixture;

use crate::assert_kind;
use crate::check::assert_clean;
use crate::gc::at_once;
use crate::support::Scratch;
use crate::support::contents;
use crate::support::failure;
use crate::support::name;
use crate::support::neighbours::as_other_user;
use crate::support::neighbours::give_to_other_user;
use crate::support::neighbours::has_other_user;
use crate::support::neighbours::shared_scratch;
use crate::support::platform;
use crate::support::tools::installed;
use crate::support::tools::is_root;
use crate::support::tools::run;
use crate::support::two_layers;

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn copy_mode<'a>() -> CheckoutOptions<'a> {
    CheckoutOptions::new().mode(CheckoutMode::Copy)
}

/// Processes of another user that hold a lock on each of these, until this is dropped.
struct Lockers(Vec<std::process::Child>);

impl Lockers {
    fn start(paths: &[&Path]) -> Lockers {
        let lock =
            |path: &&Path| as_other_user("flock").arg("--no-fork").arg(path).args(["sleep", "600"]).spawn().unwrap();
        let lockers = Lockers(paths.iter().map(lock).collect());
        let start = Instant::now();
        let is_held = |path: &&Path| fs::File::open(path).unwrap().try_lock().is_err();
        while !paths.iter().all(is_held) {
            assert!(start.elapsed() < Duration::from_secs(60), "the other user cannot take the locks");
            std::thread::sleep(Duration::from_millis(5));
        }
        lockers
    }
}

impl Drop for Lockers {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// P14: the story: another user took the lock on names, and every load, tag and gc waited for it.
#[test]
fn other_users_cannot_lock_a_store() {
    if !has_other_user() || !installed(&["flock", "sleep"]) {
        return;
    }
    let scratch = shared_scratch();
    let store = scratch.store("store");
    store.set_readable_by_others(true).unwrap();
    let root = two_layers().tag(&store, &name("app")).unwrap();
    drop(store.leased().unwrap());
    let private = store.path().join("layercake");
    for path in [private.clone(), private.join("lock"), private.join("leases")] {
        let ran = run(as_other_user("flock").arg("--nonblock").arg(&path).arg("true"));
        assert_ne!(ran.status, 0, "{}: {ran:?}", path.display());
    }

    // As earlier versions made it, and others have it open.
    fs::remove_file(private.join("instance")).unwrap();
    chmod(&private, 0o755);
    chmod(&private.join("leases"), 0o755);
    chmod(&private.join("lock"), 0o644);
    let _lockers = Lockers::start(&[&private, &private.join("lock"), &private.join("leases")]);
    let store = Store::open(store.path()).unwrap();
    let start = Instant::now();
    store.tag(&name("new"), &root).unwrap();
    store.leased().unwrap().write(MediaType::OCTET_STREAM, b"leased").unwrap();
    store.gc_with(&at_once()).unwrap();
    assert!(start.elapsed() < Duration::from_secs(60), "another user's lock was waited for");
    assert_eq!(private.metadata().unwrap().permissions().mode() & 0o7777, 0o700);
}

/// P14: private state that another user owns or may write to is not read, and nothing is written beside it.
#[test]
fn private_state_of_another_user_is_not_believed() {
    if !has_other_user() {
        return;
    }
    let scratch = shared_scratch();
    let store = scratch.store("store");
    let root = two_layers().tag(&store, &name("app")).unwrap();
    store.set_limit(Some(1)).unwrap();
    let private = store.path().join("layercake");
    for is_other_owner in [true, false] {
        if is_other_owner {
            give_to_other_user(&private);
        } else {
            run(Command::new("chown").args(["-R", "0:0"]).arg(&private)).ok();
            chmod(&private, 0o777);
        }
        let store = Store::open(store.path()).unwrap();
        let before = contents(store.path());
        assert_eq!(store.limit().unwrap(), None);
        let checked = store.check().unwrap();
        assert!(checked.ignored.is_some(), "{checked:?}");
        let image = store.image(name("app")).unwrap();
        image.unpacked_size().unwrap();
        let _ = image.unpack(scratch.path(&format!("root-{is_other_owner}"))).unwrap();
        store.usage().unwrap();
        for error in [
            failure(store.tag(&name("new"), &root)),
            failure(store.write(MediaType::OCTET_STREAM, b"new")),
            failure(store.leased()),
            failure(store.gc_with(&at_once())),
            failure(image.checkout_with(scratch.path("work"), &copy_mode())),
        ] {
            assert!(error.to_string().contains("layercake is not trusted: "), "{error}");
            assert_kind!(error, ErrorKind::Untrusted { .. });
        }
        assert_eq!(contents(store.path()), before);
    }
}

/// P14: a lock that another user made before is refused.
#[test]
fn lock_of_another_user_is_refused() {
    if !has_other_user() {
        return;
    }
    let scratch = shared_scratch();
    let store = scratch.store("store");
    let root = two_layers().tag(&store, &name("app")).unwrap();
    give_to_other_user(&store.path().join("layercake/lock"));
    let error = failure(store.tag(&name("new"), &root));
    assert!(error.to_string().contains("layercake/lock is not trusted: "), "{error}");
    assert_kind!(error, ErrorKind::Untrusted { .. });
}

/// P14: readers need nothing of a store that they cannot write: here, of a read-only mount.
#[test]
fn read_only_store_is_read_without_a_lease() {
    if !is_root() || !installed(&["mount", "umount"]) {
        return;
    }
    let scratch = Scratch::new();
    let store = scratch.store("store");
    two_layers().tag(&store, &name("app")).unwrap();
    // As an earlier version left it.
    chmod(&store.path().join("layercake"), 0o755);
    let mounted = scratch.dir("mounted");
    run(Command::new("mount").arg("--bind").arg(store.path()).arg(&mounted)).ok();
    let looked = std::panic::catch_unwind(|| {
        run(Command::new("mount").args(["-o", "remount,bind,ro"]).arg(&mounted)).ok();
        let before = contents(&mounted);
        let store = Store::open(&mounted).unwrap();
        let image = store.image(name("app")).unwrap();
        let _ = image.unpack(scratch.path("root")).unwrap();
        image.unpacked_size().unwrap();
        image.history().unwrap();
        store.usage().unwrap();
        assert_clean(&store);
        assert_kind!(failure(store.untag(name("app"))), ErrorKind::ReadOnly { .. });
        assert_eq!(contents(&mounted), before);
    });
    run(Command::new("umount").arg("--lazy").arg(&mounted)).ok();
    looked.unwrap();
}

/// A store with a working copy's layers, a build step and a limit, all of which say something else than its blobs.
fn poisoned(scratch: &Scratch) -> Store {
    let store = scratch.store("made");
    let fixture = Fixture::new(platform("linux/amd64")).layer(&[("etc/motd", b"right\n")]);
    fixture.tag(&store, &name("app")).unwrap();
    let _ = store.image(name("app")).unwrap().checkout_with(scratch.path("first"), &copy_mode()).unwrap();
    let _ = build(&store, "right");
    let evil = build(&store, "wrong");
    let steps: Vec<_> =
        fs::read_dir(store.path().join("layercake/steps")).unwrap().map(|e| e.unwrap().path()).collect();
    assert_eq!(steps.len(), 2);
    let wrong = steps.iter().map(|step| fs::read(step).unwrap()).find(|text| {
        let digest = evil.image.manifest().layers()[0].digest.to_string();
        String::from_utf8_lossy(text).contains(&digest)
    });
    steps.iter().for_each(|step| fs::write(step, wrong.as_ref().unwrap()).unwrap());
    let mut ahead = vec![store.path().join("layercake/unpacked")];
    let mut count = 0;
    while let Some(dir) = ahead.pop() {
        for path in fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                ahead.push(path);
            } else if path.ends_with("motd") {
                fs::write(path, "wrong\n").unwrap();
                count += 1;
            }
        }
    }
    assert_eq!(count, 1);
    fs::write(
        store.path().join("layercake/facts"),
        format!("{} 7\n", evil.image.config().unwrap().diff_ids().unwrap()[0]),
    )
    .unwrap();
    store.set_limit(Some(1)).unwrap();
    store
}

fn build(store: &Store, text: &'static str) -> layercake::builder::Built {
    let builder = ImageBuilder::from_scratch(store, &platform("linux/amd64"));
    builder.copy(Files::bytes(text), "/text").build().unwrap()
}

/// P1, P14: the story: a layout from a CI artifact had unpacked layers in it, and a working copy showed files that no
/// digest speaks of; a build took another layer from the cache.
#[test]
fn caches_that_came_with_a_store_are_not_believed() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let made = poisoned(&scratch);
    let archive = scratch.path("store.tar");
    run(Command::new("tar").arg("-C").arg(made.path()).arg("-cf").arg(&archive).arg(".")).ok();
    let unpacked = scratch.dir("unpacked");
    run(Command::new("tar").arg("-C").arg(&unpacked).arg("-xpf").arg(&archive)).ok();
    let copied = scratch.path("copied");
    run(Command::new("cp").arg("-a").arg(made.path()).arg(&copied)).ok();
    for (n, path) in [unpacked, copied].into_iter().enumerate() {
        let before = contents(&path);
        let store = Store::open(&path).unwrap();
        let checked = store.check().unwrap();
        assert!(checked.is_clean() && checked.ignored.is_some() && checked.unverified == 0, "{checked:?}");
        assert_eq!((store.limit().unwrap(), store.usage().unwrap().unpacked), (None, 0));
        let _ = store.image(name("app")).unwrap().unpack(scratch.path(&format!("root-{n}"))).unwrap();
        assert_eq!(contents(&path), before, "reading changes nothing");

        let built = build(&store, "right");
        assert!(!built.steps[0].is_cached);
        let mut text = String::new();
        built.image.read_file("/text").unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "right");
        assert_ne!(built.image.unpacked_size().unwrap(), 7);
        let work = scratch.path(&format!("work-{n}"));
        let copy = store.image(name("app")).unwrap().checkout_with(&work, &copy_mode()).unwrap();
        assert_eq!(fs::read(copy.root().join("etc/motd")).unwrap(), b"right\n");
        assert!(build(&store, "right").steps[0].is_cached);
        assert_eq!(store.check().unwrap().ignored, None);
    }
}

/// A store that is renamed keeps what it has.
#[test]
fn renamed_store_keeps_its_private_state() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let _ = build(&store, "text");
    store.set_limit(Some(1 << 30)).unwrap();
    fs::rename(store.path(), scratch.path("moved")).unwrap();
    let moved = Store::open(scratch.path("moved")).unwrap();
    assert!(build(&moved, "text").steps[0].is_cached);
    assert_eq!(moved.limit().unwrap(), Some(1 << 30));
}

/// Private state that is removed while the store is open is made again, and is known to others.
#[test]
fn private_state_that_was_removed_is_made_again() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    fs::remove_dir_all(store.path().join("layercake")).unwrap();
    let leased = store.leased().unwrap();
    let blob = leased.write(MediaType::OCTET_STREAM, b"leased").unwrap();
    assert_eq!(Store::open(store.path()).unwrap().gc_with(&at_once()).unwrap().blobs, []);
    assert!(store.contains(&blob).unwrap());
}
