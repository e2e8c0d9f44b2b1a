//! From the making of a working copy to its end.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;
use std::time::SystemTime;

use layercake::Checkout;
use layercake::ErrorKind;
use layercake::checkout::CheckoutMode;
use layercake::checkout::CheckoutOptions;
use layercake::checkout::CommitOptions;
use layercake::testing::Fixture;

use super::checkout;
use super::listed;
use super::modes;
use super::records;
use crate::support::Scratch;
use crate::support::failure;
use crate::support::platform;
use crate::support::tape::Item;
use crate::support::tape::tar;
use crate::support::tree::lines;

fn base() -> Fixture {
    let below = [
        Item::dir("etc/"),
        Item::file("etc/motd", "A piece of cake.\n").mtime(1_000_000_000),
        Item::file("etc/issue", "be off\n"),
        Item::dir("usr/"),
        Item::dir("usr/bin/"),
        Item::file("usr/bin/greet", "#!/bin/sh\n").mode(0o4755),
        Item::hard_link("usr/bin/hello", "usr/bin/greet"),
        Item::symlink("bin", "usr/bin"),
        Item::file("gone", "soon\n"),
    ];
    let above =
        [Item::file(".wh.gone", ""), Item::file("etc/shadow", "x\n").mode(0o600), Item::dir("var/").mode(0o1777)];
    Fixture::new(platform("linux/amd64")).raw_layer(tar(&below)).raw_layer(tar(&above))
}

/// C1, C2, C9: what is changed in a working copy is listed, becomes a layer, and the image stays what it was.
#[test]
fn changes_are_listed_and_committed() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let image = store.image_at(&base().write(&store).unwrap()).unwrap();
    let created = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    let mut layers = Vec::new();
    for mode in modes() {
        let path = scratch.path(&format!("work-{mode}"));
        let work = checkout(&image, &path, mode);
        assert_eq!((work.mode(), work.is_mounted(), work.image().id()), (mode, true, image.id()));
        assert!(work.skipped().is_empty());
        let root = work.root().to_owned();
        assert!(!root.join("gone").exists());
        assert_eq!(fs::read_to_string(root.join("bin/greet")).unwrap(), "#!/bin/sh\n");
        assert!(work.changes().unwrap().is_empty(), "{mode}: nothing was touched");

        fs::write(root.join("etc/motd"), "hello\n").unwrap();
        fs::remove_file(root.join("etc/issue")).unwrap();
        fs::create_dir(root.join("srv")).unwrap();
        fs::write(root.join("srv/new"), "new\n").unwrap();
        fs::set_permissions(root.join("etc/shadow"), fs::Permissions::from_mode(0o640)).unwrap();
        fs::set_permissions(root.join("etc/shadow"), fs::Permissions::from_mode(0o600)).unwrap();
        let changes = work.changes().unwrap();
        assert_eq!(listed(&changes), ["D etc/issue", "M etc/motd", "A srv", "A srv/new"], "{mode}");
        let sizes: Vec<u64> = changes.iter().map(|change| change.size).collect();
        assert_eq!(sizes, [7, 6, 0, 4]);

        let child = work.commit_with(&CommitOptions::new().message("say hello").created(created)).unwrap();
        let step = child.config().unwrap().history().last().unwrap().clone();
        assert_eq!(
            (step.comment.as_deref(), step.created.as_deref()),
            (Some("say hello"), Some("2023-11-14T22:13:20Z"))
        );
        assert_eq!(child.config().unwrap().created().unwrap(), Some(created));
        assert_eq!(child.manifest().layers()[..2], *image.manifest().layers());
        layers.push(child.layers().unwrap()[2].clone());

        let again = checkout(&child, &scratch.path(&format!("again-{mode}")), CheckoutMode::Copy);
        assert!(again.changes().unwrap().is_empty());
        assert_eq!(fs::read_to_string(again.root().join("etc/motd")).unwrap(), "hello\n");
        assert!(!again.root().join("etc/issue").exists());
        again.discard().unwrap();
        let other = checkout(&image, &scratch.path("other"), mode);
        assert_eq!(fs::read_to_string(other.root().join("etc/motd")).unwrap(), "A piece of cake.\n");
        other.discard().unwrap();
        work.discard().unwrap();
        assert!(!path.exists() && !scratch.path("other").exists());
    }
    assert!(layers.iter().all(|layer| *layer == layers[0]), "one layer, however the working copy was made");
    assert_eq!(records(&store), 0);
}

/// A working copy outlives its process; what is done in it meanwhile is seen.
#[test]
fn a_working_copy_is_opened_again() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let image = store.image_at(&base().write(&store).unwrap()).unwrap();
    for mode in modes() {
        let path = scratch.path("work");
        let root = checkout(&image, &path, mode).root().to_owned();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o700);
        fs::write(root.join("etc/new"), "new\n").unwrap();
        if mode == CheckoutMode::Overlay {
            // As after a restart of the machine.
            rustix::mount::unmount(&root, rustix::mount::UnmountFlags::DETACH).unwrap();
            assert!(!root.join("etc").exists());
        }
        let work = Checkout::open(&path).unwrap();
        assert_eq!((work.mode(), work.root(), work.path()), (mode, root.as_path(), path.as_path()));
        assert_eq!(work.is_mounted(), mode != CheckoutMode::Overlay, "opening mounts nothing");
        assert_eq!(listed(&work.changes().unwrap()), ["A etc/new"]);
        work.mount().unwrap();
        assert!(work.is_mounted());
        assert_eq!(fs::read_to_string(root.join("etc/new")).unwrap(), "new\n");
        assert_eq!(records(&store), 1);
        work.discard().unwrap();
    }
    let error = failure(Checkout::open(scratch.dir("empty")));
    crate::assert_kind!(error, ErrorKind::InvalidCheckout { .. });
    crate::assert_kind!(failure(Checkout::open(scratch.path("missing"))), ErrorKind::Io { .. });
}

/// A store that was moved, and a working copy that was.
#[test]
fn what_was_moved_is_found() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let image = store.image_at(&base().write(&store).unwrap()).unwrap();
    let work = checkout(&image, &scratch.path("work"), CheckoutMode::Copy);
    fs::write(work.root().join("new"), "").unwrap();
    drop((work, image, store));
    fs::rename(scratch.path("store"), scratch.path("moved")).unwrap();
    fs::rename(scratch.path("work"), scratch.path("there")).unwrap();
    assert!(Checkout::open(scratch.path("there")).is_err());
    let store = layercake::Store::open(scratch.path("moved")).unwrap();
    let work = Checkout::open_in(&store, scratch.path("there")).unwrap();
    assert_eq!(listed(&work.changes().unwrap()), ["A new"]);
    assert_eq!(records(&store), 1, "the record says where it is now");
    work.discard().unwrap();
}

/// C3: a change within the same second, of the same size, with the old time put back, is a change.
#[test]
fn a_change_that_hides_is_seen() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let image = store.image_at(&base().write(&store).unwrap()).unwrap();
    for mode in modes() {
        let work = checkout(&image, &scratch.path("work"), mode);
        let motd = work.root().join("etc/motd");
        let before = fs::metadata(&motd).unwrap();
        fs::write(&motd, "A piece of CAKE.\n").unwrap();
        fs::File::options().write(true).open(&motd).unwrap().set_modified(before.modified().unwrap()).unwrap();
        assert_eq!(listed(&work.changes().unwrap()), ["M etc/motd"], "{mode}");
        fs::write(&motd, "A piece of cake.\n").unwrap();
        fs::File::options().write(true).open(&motd).unwrap().set_modified(before.modified().unwrap()).unwrap();
        assert!(work.changes().unwrap().is_empty(), "{mode}: it is what it was");
        work.discard().unwrap();
    }
}

/// C8: an empty change makes a step in the history and no layer.
#[test]
fn nothing_changed_is_no_layer() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let image = store.image_at(&base().docker().write(&store).unwrap()).unwrap();
    let work = checkout(&image, &scratch.path("work"), CheckoutMode::Copy);
    let child = work.commit("nothing").unwrap();
    assert_eq!(child.manifest().layers(), image.manifest().layers());
    let step = child.config().unwrap().history().last().unwrap().clone();
    assert!(step.empty_layer && step.comment.as_deref() == Some("nothing"));
    assert_ne!(child.id(), image.id());
}

/// I11: media types follow the base, whatever compression the layer has.
#[test]
fn docker_stays_docker() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    for (fixture, expected) in [
        (base().docker(), "application/vnd.docker.image.rootfs.diff.tar"),
        (base(), "application/vnd.oci.image.layer.v1.tar"),
    ] {
        let image = store.image_at(&fixture.write(&store).unwrap()).unwrap();
        let work = checkout(&image, &scratch.path("work"), CheckoutMode::Copy);
        fs::write(work.root().join("new"), "").unwrap();
        let plain = layercake::compression::EncoderOptions::new(layercake::Compression::None);
        let child = work.commit_with(&CommitOptions::new().encoder(plain)).unwrap();
        assert_eq!(child.manifest().media_type(), image.manifest().media_type());
        assert_eq!(child.manifest().config().media_type, image.manifest().config().media_type);
        assert_eq!(child.layers().unwrap()[2].media_type().as_str(), expected);
        work.discard().unwrap();
    }
}

/// An image without layers has a working copy, and what is put there is its first layer.
#[test]
fn from_nothing() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let image = store.image_at(&Fixture::new(platform("linux/amd64")).write(&store).unwrap()).unwrap();
    let owners = CheckoutOptions::new();
    let unpack = layercake::changeset::Options::new().ownership(layercake::changeset::Ownership::CurrentUser);
    let _ = image.unpack_with(scratch.path("rootfs"), &unpack).unwrap();
    let root = fs::metadata(scratch.path("rootfs")).unwrap();
    assert_eq!((root.mode() & 0o7777, root.mtime()), (0o755, 0), "what a root is that no layer describes");
    for mode in modes() {
        let work = image.checkout_with(scratch.path("work"), &owners.clone().mode(mode)).unwrap();
        assert_eq!(fs::read_dir(work.root()).unwrap().count(), 0);
        assert_eq!(fs::metadata(work.root()).unwrap().mode() & 0o7777, 0o755);
        fs::write(work.root().join("hello"), "hello\n").unwrap();
        let child = work.commit("first").unwrap();
        assert_eq!(child.layers().unwrap().len(), 1);
        work.discard().unwrap();
    }
}

/// What cannot be a working copy is refused, and nothing is left.
#[test]
fn places_that_are_taken_are_refused() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let image = store.image_at(&base().write(&store).unwrap()).unwrap();
    let full = scratch.dir("full");
    fs::write(full.join("file"), "mine\n").unwrap();
    let options = CheckoutOptions::new().mode(CheckoutMode::Copy);
    crate::assert_kind!(failure(image.checkout_with(&full, &options)), ErrorKind::AlreadyExists { .. });
    let inside = store.path().join("work");
    crate::assert_kind!(failure(image.checkout_with(&inside, &options)), ErrorKind::InvalidInput(_));
    assert!(!inside.exists() && records(&store) == 0);
    assert_eq!(fs::read_to_string(full.join("file")).unwrap(), "mine\n");
    let reflink = CheckoutOptions::new().mode(CheckoutMode::Reflink);
    if let Err(error) = image.checkout_with(scratch.path("work"), &reflink) {
        crate::assert_kind!(error, ErrorKind::Io { .. });
        assert!(!scratch.path("work").exists());
    }
}

/// A copy is the tree that an unpack makes, to the last attribute.
#[test]
fn a_copy_is_what_an_unpack_makes() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let image = store.image_at(&base().write(&store).unwrap()).unwrap();
    let ownership = CheckoutOptions::new();
    let root = rustix::process::geteuid().is_root();
    let owners =
        if root { layercake::changeset::Ownership::Preserve } else { layercake::changeset::Ownership::CurrentUser };
    let unpack = layercake::changeset::Options::new().ownership(owners);
    let _ = image.unpack_with(scratch.path("rootfs"), &unpack).unwrap();
    let work = image.checkout_with(scratch.path("work"), &ownership.mode(CheckoutMode::Copy)).unwrap();
    assert_eq!(lines(work.root()), lines(&scratch.path("rootfs")));
}
