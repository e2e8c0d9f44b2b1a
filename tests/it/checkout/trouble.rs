//! Working copies that others get their hands on: links in the place of their directories, several processes at once,
//! copies of them, and what cannot be removed.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use layercake::Checkout;
use layercake::ErrorKind;
use layercake::Image;
use layercake::checkout::CheckoutMode;
use layercake::checkout::CommitOptions;
use layercake::testing::Fixture;

use super::checkout;
use super::listed;
use super::modes;
use super::records;
use crate::assert_kind;
use crate::support::Scratch;
use crate::support::failure;
use crate::support::tools::is_root;
use crate::support::tools::mounts_overlays;
use crate::support::tools::run;
use crate::support::tools::unmount;

fn demo(scratch: &Scratch) -> Image {
    let store = scratch.store("store");
    store.image_at(&Fixture::demo().write(&store).unwrap()).unwrap()
}

/// How many mounts there are on a directory.
fn mounts_on(path: &Path) -> usize {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let path = path.display().to_string();
    table.lines().filter(|line| line.split(' ').nth(4) == Some(&path)).count()
}

/// P1: a link in the place of a working copy's directory leads nowhere. The story: who may write to the directory of a
/// working copy waits for root to ask what changed, and has root mount a tree of his choice on /etc.
#[test]
fn links_in_the_place_of_directories_lead_nowhere() {
    let scratch = Scratch::new();
    let image = demo(&scratch);
    let elsewhere = scratch.dir("elsewhere");
    fs::write(elsewhere.join("file"), "mine\n").unwrap();
    for mode in modes() {
        let path = scratch.path(&format!("work-{mode}"));
        drop(checkout(&image, &path, mode));
        let names: &[&str] = if mode == CheckoutMode::Overlay { &["root", "upper", "work"] } else { &["root"] };
        for name in names {
            if mode == CheckoutMode::Overlay && mounts_on(&path.join("root")) == 1 {
                unmount(&path.join("root"));
            }
            fs::rename(path.join(name), path.join("kept")).unwrap();
            symlink(&elsewhere, path.join(name)).unwrap();
            let mounted = Checkout::open(&path).and_then(|work| {
                work.mount()?;
                work.changes()
            });
            assert_kind!(failure(mounted), ErrorKind::Io { .. });
            assert_eq!(mounts_on(&elsewhere), 0, "{mode}, {name}");
            fs::remove_file(path.join(name)).unwrap();
            fs::rename(path.join("kept"), path.join(name)).unwrap();
        }
        let work = Checkout::open(&path).unwrap();
        assert!(work.changes().unwrap().is_empty());
        work.discard().unwrap();
        assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 1);
    }
}

/// What stands at the path of a working copy that was moved is not the working copy.
#[test]
fn only_the_working_copy_is_discarded() {
    let scratch = Scratch::new();
    let image = demo(&scratch);
    let (path, moved) = (scratch.path("work"), scratch.path("moved"));
    let work = checkout(&image, &path, CheckoutMode::Copy);
    fs::rename(&path, &moved).unwrap();
    let other = checkout(&image, &path, CheckoutMode::Copy);
    fs::write(moved.join("root/etc/motd"), "moved\n").unwrap();
    assert_eq!(listed(&work.changes().unwrap()), ["M etc/motd"]);
    work.discard().unwrap();
    assert!(!moved.exists());
    assert!(other.changes().unwrap().is_empty());

    let same = Checkout::open(&path).unwrap();
    other.discard().unwrap();
    let new = checkout(&image, &path, CheckoutMode::Copy);
    assert!(same.changes().is_err());
    assert!(same.discard().is_err());
    assert!(new.changes().unwrap().is_empty());
    new.discard().unwrap();
    assert_eq!(records(image.store()), 0);
}

/// P8: a copy of a working copy is one of its own, and takes nothing from the other when it goes.
#[test]
fn a_copy_of_a_working_copy_is_another() {
    let scratch = Scratch::new();
    let image = demo(&scratch);
    let (path, twin) = (scratch.path("work"), scratch.path("twin"));
    let work = checkout(&image, &path, CheckoutMode::Copy);
    run(Command::new("cp").arg("-a").args([&path, &twin])).ok();
    let copy = Checkout::open(&twin).unwrap();
    assert!(copy.changes().unwrap().is_empty());
    assert_eq!(records(image.store()), 2);
    copy.discard().unwrap();
    assert_eq!(records(image.store()), 1);
    assert!(Checkout::open(&path).unwrap().changes().unwrap().is_empty());
    work.discard().unwrap();
    assert_eq!(records(image.store()), 0);
}

/// P7: processes that mount a working copy at the same time mount it once. The story: two overlays with one `upperdir`.
#[test]
fn many_open_it_and_one_mounts_it() {
    if !is_root() || !mounts_overlays() {
        return;
    }
    let scratch = Scratch::new();
    let path = scratch.path("work");
    let work = checkout(&demo(&scratch), &path, CheckoutMode::Overlay);
    for _ in 0..10 {
        unmount(work.root());
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| Checkout::open(&path).unwrap().mount().unwrap());
            }
        });
        assert_eq!(mounts_on(work.root()), 1);
    }
    work.discard().unwrap();
}

/// P7: whoever opens what another discards gets it or gets an error, and nothing of it stays.
#[test]
fn what_is_discarded_is_not_opened_half() {
    let scratch = Scratch::new();
    let image = demo(&scratch);
    let path = scratch.path("work");
    for mode in modes() {
        for _ in 0..20 {
            drop(checkout(&image, &path, mode));
            let gone = std::thread::scope(|scope| {
                let discard = || Checkout::open(&path).and_then(Checkout::discard).is_ok();
                let open = || Checkout::open(&path).is_ok();
                let threads = [scope.spawn(discard), scope.spawn(discard)];
                scope.spawn(open);
                scope.spawn(open);
                threads.into_iter().map(|thread| thread.join().unwrap()).filter(|gone| *gone).count()
            });
            assert_eq!((gone, path.exists()), (1, false), "{mode}");
            assert_eq!(mounts_on(&path.join("root")), 0);
            assert_eq!(fs::read_dir(scratch.path("")).unwrap().count(), 1, "only the store is left");
            assert_eq!(records(image.store()), 0, "{mode}");
        }
    }
}

/// What cannot be removed is named, where it is.
#[test]
fn what_cannot_be_removed_is_named() {
    let scratch = Scratch::new();
    let image = demo(&scratch);
    let work = checkout(&image, &scratch.path("work"), CheckoutMode::Copy);
    let file = work.root().join("etc/motd");
    if !is_root() || run(Command::new("chattr").arg("+i").arg(&file)).status != 0 {
        work.discard().unwrap();
        return;
    }
    let error = failure(work.discard()).to_string();
    let hidden = fs::read_dir(scratch.path("")).unwrap().map(|entry| entry.unwrap().path());
    let hidden = hidden.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with(".layercake-"));
    let [hidden] = &hidden.collect::<Vec<_>>()[..] else { panic!("{error}") };
    run(Command::new("chattr").arg("-i").arg(hidden.join("tree/root/etc/motd"))).ok();
    assert!(error.contains(&hidden.display().to_string()), "{error}");
    assert_eq!(records(image.store()), 0);
    // Whoever makes it again clears it away.
    checkout(&image, &scratch.path("work"), CheckoutMode::Copy).discard().unwrap();
    assert!(!hidden.exists());
}

/// Case 101: what changed can be asked for where the store is only read.
#[test]
fn a_store_that_is_only_read_is_enough() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let image = demo(&scratch);
    let store = image.store().path().to_owned();
    let work = checkout(&image, &scratch.path("work"), CheckoutMode::Copy);
    fs::write(work.root().join("etc/motd"), "changed\n").unwrap();
    run(Command::new("mount").arg("--bind").args([&store, &store])).ok();
    run(Command::new("mount").args(["-o", "remount,ro,bind"]).arg(&store)).ok();
    let changes = Checkout::open(scratch.path("work")).and_then(|work| work.changes());
    run(Command::new("umount").arg("--lazy").arg(&store)).ok();
    assert_eq!(listed(&changes.unwrap()), ["M etc/motd"]);
    work.discard().unwrap();
}

/// P8: layers that somebody uses are not taken away because their record is damaged.
#[test]
fn damaged_layers_that_are_in_use_stay() {
    let scratch = Scratch::new();
    let image = demo(&scratch);
    let mode = modes()[0];
    let work = checkout(&image, &scratch.path("work"), mode);
    let unpacked = scratch.path("store/layercake/unpacked");
    let [folder] = &paths(&unpacked)[..] else { panic!("one folder") };
    let records: Vec<_> =
        paths(folder).into_iter().filter(|path| path.extension().is_some_and(|e| e == "json")).collect();
    for record in &records {
        fs::write(record, "{").unwrap();
    }
    let before = paths(folder);
    assert_kind!(failure(image.checkout(scratch.path("other"))), ErrorKind::Locked { .. });
    assert_eq!(paths(folder), before);
    assert_eq!(fs::read_to_string(work.root().join("etc/motd")).unwrap(), "A piece of cake.\n");

    work.discard().unwrap();
    checkout(&image, &scratch.path("other"), mode).discard().unwrap();
    assert!(records.iter().all(|record| fs::metadata(record).unwrap().len() > 1));
}

/// Case 99: layers are not unpacked where another user could change or run them.
#[test]
fn layers_are_not_unpacked_in_other_hands() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let image = demo(&scratch);
    let folder = scratch.path("store/layercake/unpacked/preserve");
    fs::create_dir_all(&folder).unwrap();
    std::os::unix::fs::chown(&folder, Some(1000), Some(1000)).unwrap();
    let error = failure(image.checkout(scratch.path("work")));
    assert!(error.to_string().contains("unpacked/preserve is not trusted: it belongs to user 1000"), "{error}");
    assert_kind!(error, ErrorKind::Untrusted { .. });
    assert_eq!((paths(&folder).len(), scratch.path("work").exists()), (0, false));
}

fn paths(directory: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

/// P2: what cannot be in a layer is not left out in silence.
#[test]
fn what_cannot_be_committed_is_an_error_if_that_is_wanted() {
    let scratch = Scratch::new();
    let image = demo(&scratch);
    let strict = CommitOptions::new().strict(true);
    for mode in modes() {
        let work = checkout(&image, &scratch.path(&format!("work-{mode}")), mode);
        drop(UnixListener::bind(work.root().join("socket")).unwrap());
        let error = failure(work.commit_with(&strict));
        assert_kind!(&error, ErrorKind::NotApplied { .. });
        assert!(error.to_string().contains("socket: sockets are not stored"), "{error}");
        assert_eq!(work.commit("without it").unwrap().layers().unwrap(), image.layers().unwrap());
        fs::remove_file(work.root().join("socket")).unwrap();

        let file = work.root().join("etc/motd");
        fs::write(&file, "changed\n").unwrap();
        rustix::fs::setxattr(&file, "user.a=b", b"c", rustix::fs::XattrFlags::empty()).unwrap();
        let error = failure(work.commit_with(&strict));
        assert!(error.to_string().contains("user.a=b"), "{error}");
        assert_eq!(work.commit("without it").unwrap().layers().unwrap().len(), image.layers().unwrap().len() + 1);
        rustix::fs::removexattr(&file, "user.a=b").unwrap();
        assert!(work.commit_with(&strict).is_ok());
        work.discard().unwrap();
    }
}
