//! Working copies and stores that other users of the machine made, or could change (P14, CVE-2022-24765).

use std::fs;
use std::fs::Permissions;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::fs::chown;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use layercake::Checkout;
use layercake::ErrorKind;
use layercake::Store;
use layercake::checkout::CheckoutMode;
use layercake::checkout::CheckoutOptions;
use layercake::checkout::OpenOptions;
use layercake::testing::Fixture;

use super::checkout;
use super::listed;
use super::modes;
use crate::assert_kind;
use crate::support::Scratch;
use crate::support::failure;
use crate::support::neighbours::OTHER_USER;
use crate::support::neighbours::as_other_user;
use crate::support::neighbours::give_to_other_user;
use crate::support::neighbours::has_other_user;
use crate::support::neighbours::shared_scratch;
use crate::support::platform;
use crate::support::tape::Item;
use crate::support::tape::tar;
use crate::support::tools::example;
use crate::support::tools::is_root;
use crate::support::tools::mounts_overlays;
use crate::support::tools::run;
use crate::support::tools::unmount;

fn fixture() -> Fixture {
    let items = [Item::file("key", "private\n").mode(0o644), Item::file("run", "#!/bin/sh\n").mode(0o4755)];
    Fixture::new(platform("linux/amd64")).raw_layer(tar(&items))
}

/// The mounts in a directory.
fn mounts_in(directory: &Path) -> usize {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let directory = directory.display().to_string();
    table.lines().filter(|line| line.split(' ').nth(4).is_some_and(|point| point.starts_with(&directory))).count()
}

/// A working copy of this user's, and one that another user wrote by hand after its model.
struct Scene {
    scratch: Scratch,
    store: Store,
    own: PathBuf,
    forged: PathBuf,
}

impl Scene {
    fn new(mode: CheckoutMode) -> Scene {
        let scratch = shared_scratch();
        let store = scratch.store("store");
        let image = store.image_at(&fixture().write(&store).unwrap()).unwrap();
        let own = scratch.path("own");
        drop(checkout(&image, &own, mode));
        let forged = scratch.dir("forged");
        for entry in fs::read_dir(&own).unwrap().map(Result::unwrap) {
            let to = forged.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                fs::create_dir(to).unwrap();
            } else {
                fs::copy(entry.path(), to).unwrap();
            }
        }
        let state = fs::read_to_string(forged.join("checkout.json")).unwrap();
        let id = state.split("\"id\":\"").nth(1).unwrap()[..32].to_owned();
        fs::write(forged.join("checkout.json"), state.replace(&id, &"0123456789abcdef".repeat(2))).unwrap();
        Scene { scratch, store, own, forged }
    }
}

#[test]
fn working_copy_of_another_user_is_refused_and_not_mounted() {
    if !has_other_user() {
        return;
    }
    for mode in modes() {
        let scene = Scene::new(mode);
        give_to_other_user(&scene.forged);
        assert_kind!(failure(Checkout::open(&scene.forged)), ErrorKind::Untrusted { .. });
        assert_kind!(failure(Checkout::open_in(&scene.store, &scene.forged)), ErrorKind::Untrusted { .. });
        for (program, more) in [("status", vec![]), ("commit", vec!["example.com/mine:1"]), ("discard", vec![])] {
            let ran = run(example(program).arg(&scene.forged).args(&more));
            assert_eq!((ran.status, ran.out.as_str()), (1, ""), "{program}: {ran:?}");
            assert!(ran.err.contains("is not trusted: it belongs to user 65534"), "{program}: {ran:?}");
            assert!(scene.forged.join("checkout.json").exists(), "{program}");
        }
        let ran = run(example("checkout").arg("--mount").arg(&scene.forged));
        assert_eq!(ran.status, 1, "{ran:?}");
        assert_eq!(mounts_in(&scene.forged), 0);
        let read = run(as_other_user("cat").arg(scene.forged.join("root/key")));
        assert_ne!(read.status, 0, "{read:?}");
        let own = run(as_other_user("cat").arg(scene.own.join("root/key")));
        assert_ne!(own.status, 0, "{own:?}");
        Checkout::open(&scene.own).unwrap().discard().unwrap();
    }
}

/// Trust is for the caller to give, and a tree is mounted only when that is asked for.
#[test]
fn working_copy_of_another_user_is_opened_if_the_caller_trusts_it() {
    if !has_other_user() {
        return;
    }
    for mode in modes() {
        let scene = Scene::new(mode);
        give_to_other_user(&scene.forged);
        let elsewhere = OpenOptions::new().trust(scene.scratch.path("elsewhere")).trust(scene.scratch.path("forg"));
        assert_kind!(failure(Checkout::open_with(&scene.forged, &elsewhere)), ErrorKind::Untrusted { .. });
        let link = scene.scratch.path("link");
        symlink(&scene.forged, &link).unwrap();
        let by_link = OpenOptions::new().trust(&link);
        assert_kind!(failure(Checkout::open_with(&link, &by_link)), ErrorKind::Untrusted { .. });

        let work = Checkout::open_with(&scene.forged, &OpenOptions::new().trust(&scene.forged)).unwrap();
        assert_eq!(mounts_in(&scene.forged), 0);
        let lost = if mode == CheckoutMode::Overlay { vec![] } else { vec!["D key", "D run"] };
        assert_eq!(listed(&work.changes().unwrap()), lost);
        let ran = run(example("discard").arg("--trust").arg(&scene.forged).arg(&scene.forged));
        assert_eq!((ran.status, scene.forged.exists()), (0, false), "{ran:?}");
        Checkout::open(&scene.own).unwrap().discard().unwrap();
    }
}

/// Each part of a working copy and of its store that another user could have changed is noticed.
#[test]
fn each_directory_and_file_that_others_may_write_is_refused() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let image = store.image_at(&fixture().write(&store).unwrap()).unwrap();
    for mode in modes() {
        let work = scratch.path("work");
        drop(checkout(&image, &work, mode));
        let mut parts = vec![work.clone(), work.join("checkout.json"), work.join("base"), store.path().to_owned()];
        let ours = ["layercake", "layercake/unpacked", "layercake/unpacked/preserve"];
        parts.extend(ours.iter().map(|name| store.path().join(name)));
        parts.extend((mode == CheckoutMode::Overlay).then(|| work.join("work")));
        for part in parts.iter().filter(|part| part.exists()) {
            let before = fs::metadata(part).unwrap();
            for others in [0o020, 0o002] {
                fs::set_permissions(part, Permissions::from_mode(before.mode() | others)).unwrap();
                let opened = Checkout::open(&work);
                // The store may close its private directories again.
                let is_closed = fs::metadata(part).unwrap().mode() & others == 0;
                assert!(is_closed || opened.is_err(), "{}: mode {others:o}", part.display());
                if let Err(error) = opened {
                    assert_kind!(error, ErrorKind::Untrusted { .. });
                }
                fs::set_permissions(part, before.permissions()).unwrap();
            }
            chown(part, Some(OTHER_USER), None).unwrap();
            assert_kind!(failure(Checkout::open(&work)), ErrorKind::Untrusted { .. } | ErrorKind::InvalidInput(_));
            chown(part, Some(0), None).unwrap();
        }
        Checkout::open(&work).unwrap().discard().unwrap();
    }
    // A working copy is not made either where it would be refused.
    fs::set_permissions(store.path(), Permissions::from_mode(0o777)).unwrap();
    let options = CheckoutOptions::new().mode(CheckoutMode::Copy);
    assert_kind!(failure(image.checkout_with(scratch.path("work"), &options)), ErrorKind::Untrusted { .. });
    assert!(!scratch.path("work").exists());
    let trusting = options.trust(store.path());
    drop(image.checkout_with(scratch.path("work"), &trusting).unwrap());
    assert_kind!(failure(Checkout::open(scratch.path("work"))), ErrorKind::Untrusted { .. });
    let trusting = OpenOptions::new().trust(store.path());
    Checkout::open_with(scratch.path("work"), &trusting).unwrap().discard().unwrap();
}

/// The image's root may have any owner and mode. It lies in a directory that only its owner may enter.
#[test]
fn image_whose_root_is_writable_for_all_is_checked_out() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let items = [Item::dir("./").mode(0o777).owner(1000, 1000), Item::file("file", "x\n")];
    let image = Fixture::new(platform("linux/amd64")).raw_layer(tar(&items)).write(&store).unwrap();
    let image = store.image_at(&image).unwrap();
    for mode in modes() {
        drop(checkout(&image, &scratch.path("work"), mode));
        let work = Checkout::open(scratch.path("work")).unwrap();
        let root = fs::metadata(work.root()).unwrap();
        assert_eq!((root.uid(), root.mode() & 0o7777), (1000, 0o777), "{mode}");
        fs::write(work.root().join("file"), "y\n").unwrap();
        assert_eq!(listed(&work.changes().unwrap()), ["M file"], "{mode}");
        work.discard().unwrap();
    }
}

/// With a link in the place of an unpacked layer, no directory of the host is shown: the layer is unpacked again.
#[test]
fn links_in_the_place_of_layers_lead_nowhere() {
    if !is_root() {
        return;
    }
    for mode in modes() {
        let scene = Scene::new(mode);
        let folder = scene.store.path().join("layercake/unpacked/preserve");
        let is_layer = |path: &PathBuf| path.is_dir() && !path.is_symlink();
        let layer = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).find(is_layer).unwrap();
        let elsewhere = scene.scratch.dir("elsewhere");
        fs::write(elsewhere.join("secret"), "mine\n").unwrap();
        if mode == CheckoutMode::Overlay {
            unmount(&scene.own.join("root"));
        }
        fs::rename(&layer, scene.scratch.path("kept")).unwrap();
        symlink(&elsewhere, &layer).unwrap();
        let work = Checkout::open(&scene.own).unwrap();
        work.mount().unwrap();
        assert_eq!(work.changes().unwrap().len(), 0, "{mode}");
        assert!(is_layer(&layer) && !layer.join("secret").exists() && !work.root().join("secret").exists(), "{mode}");
        drop(work);
        if mode == CheckoutMode::Overlay {
            unmount(&scene.own.join("root"));
        }

        // The same one level up.
        fs::remove_dir_all(scene.scratch.path("kept")).unwrap();
        fs::rename(&folder, scene.scratch.path("kept")).unwrap();
        symlink(&elsewhere, &folder).unwrap();
        assert!(Checkout::open(&scene.own).is_err());
        assert_eq!(mounts_in(&scene.own), 0);
        fs::remove_file(&folder).unwrap();
        fs::rename(scene.scratch.path("kept"), &folder).unwrap();
        Checkout::open(&scene.own).unwrap().discard().unwrap();
    }
}

#[test]
fn states_that_are_not_plain_files_are_refused() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let image = store.image_at(&fixture().write(&store).unwrap()).unwrap();
    let work = scratch.path("work");
    drop(checkout(&image, &work, CheckoutMode::Copy));
    let state = work.join("checkout.json");
    let good = fs::read(&state).unwrap();
    let kept = scratch.path("kept");
    fs::rename(&state, &kept).unwrap();
    let attempts: [&dyn Fn(); 4] = [
        &|| run(Command::new("mkfifo").arg(&state)).ok().clear(),
        &|| symlink(&kept, &state).unwrap(),
        &|| fs::create_dir(&state).unwrap(),
        &|| fs::File::create(&state).unwrap().set_len(1 << 40).unwrap(),
    ];
    for attempt in attempts {
        attempt();
        let error = failure(Checkout::open(&work));
        assert_kind!(&error, ErrorKind::Io { .. } | ErrorKind::LimitExceeded { .. });
        if state.is_dir() { fs::remove_dir(&state).unwrap() } else { fs::remove_file(&state).unwrap() }
    }
    if is_root() {
        // A second name of a file of another user's.
        let foreign = scratch.path("foreign");
        fs::write(&foreign, &good).unwrap();
        chown(&foreign, Some(OTHER_USER), None).unwrap();
        fs::hard_link(&foreign, &state).unwrap();
        assert_kind!(failure(Checkout::open(&work)), ErrorKind::Untrusted { .. });
        fs::remove_file(&state).unwrap();
    }
    fs::rename(&kept, &state).unwrap();
    // Damaged indexes only cost time.
    for text in ["", "layercake-index1", "layercake-index1x"] {
        fs::write(work.join("index"), text).unwrap();
        assert!(Checkout::open(&work).unwrap().changes().unwrap().is_empty());
    }
    fs::remove_file(work.join("index")).unwrap();
    run(Command::new("mkfifo").arg(work.join("index"))).ok();
    Checkout::open(&work).unwrap().discard().unwrap();
}

#[test]
fn stores_at_odd_paths_are_refused() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let image = store.image_at(&fixture().write(&store).unwrap()).unwrap();
    let work = scratch.path("work");
    drop(checkout(&image, &work, CheckoutMode::Copy));
    let state = work.join("checkout.json");
    let good = fs::read_to_string(&state).unwrap();
    let named = format!("\"store\":\"{}\"", store.path().display());
    assert!(good.contains(&named), "{good}");
    let fifo = scratch.path("fifo");
    run(Command::new("mkfifo").arg(&fifo)).ok();
    let up = format!("{}/../store", store.path().display());
    for (path, invalid) in [("store", true), (".", true), ("", true), (&up, true), (&fifo.display().to_string(), false)]
    {
        fs::write(&state, good.replace(&named, &format!("\"store\":\"{path}\""))).unwrap();
        let error = failure(Checkout::open(&work));
        assert_eq!(matches!(error.kind(), ErrorKind::InvalidCheckout { .. }), invalid, "{path}: {error:?}");
    }
    for folder in ["..", "a/b", "/etc", ".", ""] {
        let folder_of = good.split("\"folder\":\"").nth(1).unwrap().split('"').next().unwrap();
        let text = good.replace(&format!("\"folder\":\"{folder_of}\""), &format!("\"folder\":\"{folder}\""));
        fs::write(&state, text).unwrap();
        assert_kind!(failure(Checkout::open(&work)), ErrorKind::InvalidCheckout { .. });
    }
    // A link to the store is only another way to the directory, which is checked.
    symlink(store.path(), scratch.path("link")).unwrap();
    let link = scratch.path("link").display().to_string();
    fs::write(&state, good.replace(&named, &format!("\"store\":\"{link}\""))).unwrap();
    Checkout::open(&work).unwrap().discard().unwrap();
}

#[test]
fn status_commit_and_discard_mount_nothing() {
    if !is_root() || !mounts_overlays() {
        return;
    }
    let scene = Scene::new(CheckoutMode::Overlay);
    fs::write(scene.own.join("root/new"), "new\n").unwrap();
    unmount(&scene.own.join("root"));
    assert_eq!(run(example("status").arg(&scene.own)).ok(), "A /new\n");
    run(example("commit").arg(&scene.own).arg("example.com/new:1")).ok();
    assert_eq!(mounts_in(&scene.own), 0);
    let root = run(example("checkout").arg("--mount").arg(&scene.own)).ok();
    assert_eq!(root, format!("{}\n", scene.own.join("root").display()));
    assert_eq!((mounts_in(&scene.own), fs::read_to_string(scene.own.join("root/new")).unwrap().as_str()), (1, "new\n"));
    run(example("discard").arg(&scene.own)).ok();
    assert_eq!(mounts_in(&scene.own), 0);
}
