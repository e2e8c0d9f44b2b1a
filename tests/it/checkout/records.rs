//! Records of working copies in the store: what they keep, and when they go. Absence is believed only with proof.

use std::fs;
use std::path::Path;
use std::process::Command;

use layercake::Checkout;
use layercake::Descriptor;
use layercake::ErrorKind;
use layercake::Store;
use layercake::checkout::CheckoutMode;
use layercake::store::GcOptions;
use layercake::store::UnpackedPolicy;
use layercake::testing::Fixture;

use super::checkout;
use super::listed;
use super::modes;
use super::records;
use crate::assert_kind;
use crate::gc::at_once;
use crate::support::Scratch;
use crate::support::failure;
use crate::support::name;
use crate::support::neighbours::has_mount_namespaces;
use crate::support::neighbours::in_mount_namespace;
use crate::support::tools::is_root;
use crate::support::tools::run;

fn all() -> GcOptions {
    at_once().unpacked(UnpackedPolicy::Unused)
}

fn tagged(store: &Store) -> Descriptor {
    Fixture::demo().tag(store, &name("example.com/app:1")).unwrap()
}

/// Collects everything that can be, after the image lost its name, and returns how many records went.
fn collect(store: &Store) -> u64 {
    let _ = store.untag(name("example.com/app:1"));
    store.gc_with(&all()).unwrap().checkouts
}

#[test]
fn gc_keeps_layers_of_renamed_checkout() {
    for mode in modes() {
        let scratch = Scratch::new();
        let store = scratch.store("store");
        let image = store.image_at(&tagged(&store)).unwrap();
        let (path, moved) = (scratch.path("work"), scratch.path("elsewhere/moved"));
        fs::create_dir(scratch.path("elsewhere")).unwrap();
        drop(checkout(&image, &path, mode));
        fs::rename(&path, &moved).unwrap();
        assert_eq!(collect(&store), 0, "{mode}");
        let [record] = &store.checkouts().unwrap()[..] else { panic!("one record") };
        assert_eq!((record.path.as_path(), record.is_gone), (path.as_path(), false));
        // Another working copy in its place is no proof either.
        fs::create_dir(&path).unwrap();
        fs::write(path.join("checkout.json"), r#"{"id":"another"}"#).unwrap();
        assert_eq!(collect(&store), 0, "{mode}");

        assert_eq!(fs::read_to_string(moved.join("root/etc/motd")).unwrap(), "A piece of cake.\n");
        fs::write(moved.join("root/etc/motd"), "changed\n").unwrap();
        let work = Checkout::open(&moved).unwrap();
        assert_eq!(listed(&work.changes().unwrap()), ["M etc/motd"]);
        assert_eq!(store.checkouts().unwrap()[0].path, moved);
        work.commit("changed").unwrap();
        work.discard().unwrap();
        assert_eq!(records(&store), 0);
    }
}

#[test]
fn gc_drops_deleted_checkout_after_the_grace() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let image = store.image_at(&tagged(&store)).unwrap();
    drop(checkout(&image, &scratch.path("work"), CheckoutMode::Copy));
    drop(image);
    assert_eq!(collect(&store), 0);
    fs::remove_dir_all(scratch.path("work")).unwrap();
    assert!(store.checkouts().unwrap()[0].is_gone);
    assert_eq!(store.gc().unwrap().checkouts, 0, "it may be younger than the clock says");
    let collected = store.gc_with(&all()).unwrap();
    assert_eq!((collected.checkouts, collected.unpacked > 0), (1, true));
    assert_eq!((records(&store), store.blobs().unwrap().count()), (0, 0));
    assert_eq!(fs::read_dir(store.path().join("layercake/checkouts")).unwrap().count(), 0, "no link is left");
}

#[test]
fn gc_keeps_layers_of_checkout_in_another_mount_namespace() {
    if !has_mount_namespaces() {
        return;
    }
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let image = store.image_at(&tagged(&store)).unwrap();
    let place = scratch.dir("place");
    for mode in modes() {
        let script =
            r#"mount -t tmpfs none "$2"; "$1" --store "$3" --mode "$4" example.com/app:1 "$2/work" >/dev/null"#;
        let program = crate::support::tools::example("checkout");
        let mut command = in_mount_namespace(script);
        command.arg(program.get_program()).arg(&place).arg(store.path()).arg(mode.to_string());
        run(&mut command).ok();
    }
    drop(image);
    let before = fs::read_dir(store.path().join("layercake/unpacked/preserve")).map_or(0, Iterator::count);
    assert_eq!(collect(&store), 0);
    let after = fs::read_dir(store.path().join("layercake/unpacked/preserve")).map_or(0, Iterator::count);
    assert_eq!((after, records(&store)), (before, modes().len()));

    // Only the user knows that they are gone.
    let collected = store.gc_with(&all().dry_run()).unwrap();
    assert_eq!((collected.blobs.len(), collected.unpacked), (0, 0));
    for record in store.checkouts().unwrap() {
        assert!(!record.is_gone);
        store.forget_checkout(&record.id).unwrap();
        assert_kind!(failure(store.forget_checkout(&record.id)), ErrorKind::NotFound { .. });
    }
    let collected = store.gc_with(&all()).unwrap();
    assert_eq!((collected.blobs.is_empty(), collected.unpacked > 0), (false, true));
}

/// The removal of an image is not the moment to decide that a working copy is gone.
#[test]
fn remove_keeps_records_of_checkouts() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let image = store.image_at(&tagged(&store)).unwrap();
    drop(checkout(&image, &scratch.path("work"), CheckoutMode::Copy));
    let blobs = store.blobs().unwrap().count();
    fs::remove_dir_all(scratch.path("work")).unwrap();
    let removed = store.remove(name("example.com/app:1")).unwrap();
    assert_eq!((removed.collected.blobs.len(), removed.collected.checkouts), (0, 0));
    assert_eq!((store.blobs().unwrap().count(), records(&store)), (blobs, 1));
}

/// A store that was copied, or restored from a backup, has a link that lost its other name. That is no proof.
#[test]
fn gc_in_a_copied_store_believes_nothing() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let image = store.image_at(&tagged(&store)).unwrap();
    let work = checkout(&image, &scratch.path("work"), CheckoutMode::Copy);
    run(Command::new("cp").arg("-a").args([store.path(), &scratch.path("copied")])).ok();
    let copied = Store::open(scratch.path("copied")).unwrap();
    assert_eq!((collect(&copied), records(&copied)), (0, 1));
    assert!(Checkout::open_in(&copied, work.path()).unwrap().changes().unwrap().is_empty());
}

/// A working copy that was moved, and then copied: the copy takes nothing from the one that is recorded.
#[test]
fn copy_of_a_moved_checkout_gets_its_own_record() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let image = store.image_at(&tagged(&store)).unwrap();
    drop(checkout(&image, &scratch.path("work"), CheckoutMode::Copy));
    fs::rename(scratch.path("work"), scratch.path("moved")).unwrap();
    run(Command::new("cp").arg("-a").args([scratch.path("moved"), scratch.path("twin")])).ok();
    Checkout::open(scratch.path("twin")).unwrap().discard().unwrap();
    assert_eq!((collect(&store), records(&store)), (0, 1));
    Checkout::open(scratch.path("moved")).unwrap().discard().unwrap();
    assert_eq!((records(&store), Path::new(&scratch.path("twin")).exists()), (0, false));
}

/// Nothing in the store follows from what stands at the path of a working copy.
#[test]
fn gc_keeps_images_of_checkouts_that_cannot_be_seen() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let image = store.image_at(&tagged(&store)).unwrap();
    let disk = scratch.dir("disk");
    drop(checkout(&image, &disk.join("work"), CheckoutMode::Copy));
    let own = fs::read(disk.join("work/checkout.json")).unwrap();
    fs::rename(&disk, scratch.path("not mounted")).unwrap();
    assert_eq!(collect(&store), 0, "the disk is not mounted");
    fs::rename(scratch.path("not mounted"), &disk).unwrap();
    fs::write(disk.join("work/checkout.json"), "").unwrap();
    assert_eq!(collect(&store), 0, "the state is damaged");
    fs::write(disk.join("work/checkout.json"), own).unwrap();
    if !is_root() {
        return;
    }
    // A tree that is on another file system has no proof at all.
    run(Command::new("mount").args(["-t", "tmpfs", "none"]).arg(&disk)).ok();
    let seen = collect(&store);
    run(Command::new("umount").arg(&disk)).ok();
    assert_eq!((seen, records(&store)), (0, 1));
}
