//! From an image to a root file system: whole or not at all.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Mutex;

use layercake::Cancel;
use layercake::Compression;
use layercake::ErrorKind;
use layercake::Event;
use layercake::Image;
use layercake::Store;
use layercake::changeset::Layout;
use layercake::changeset::Limits;
use layercake::changeset::Options;
use layercake::changeset::Ownership;
use layercake::error::Limit;
use layercake::testing::Fixture;
use serde_json::json;

use crate::assert_kind;
use crate::support::Scratch;
use crate::support::blob_path;
use crate::support::failure;
use crate::support::platform;
use crate::support::tape::Item;
use crate::support::tape::tar;
use crate::support::tools::example;
use crate::support::tools::installed;
use crate::support::tools::is_root;
use crate::support::tools::mounts_overlays;
use crate::support::tools::overlay;
use crate::support::tools::run;
use crate::support::tools::unmount;
use crate::support::tree;
use crate::support::unsynced;

fn fixture() -> Fixture {
    Fixture::new(platform("linux/amd64"))
}

fn image(store: &Store, fixture: &Fixture) -> Image {
    store.image_at(&fixture.write(store).unwrap()).unwrap()
}

/// As whoever runs the tests can.
fn options<'a>() -> Options<'a> {
    let owner = if rustix::process::geteuid().is_root() { Ownership::Preserve } else { Ownership::CurrentUser };
    unsynced().ownership(owner)
}

/// What lies in a directory, hidden things too.
fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// An image whose manifest lists these blobs and whose configuration these diff ids.
pub fn forged(
    store: &Store,
    layers: &[layercake::Descriptor],
    diff_ids: &[layercake::Digest],
) -> layercake::Result<Image> {
    let config =
        json!({ "architecture": "amd64", "os": "linux", "rootfs": { "type": "layers", "diff_ids": diff_ids } });
    let config = store.write(layercake::MediaType::OCI_CONFIG, config.to_string().as_bytes())?;
    let manifest_type = layercake::MediaType::OCI_MANIFEST;
    let manifest =
        json!({ "schemaVersion": 2, "mediaType": manifest_type, "config": config, "layers": layers }).to_string();
    store.image_at(&store.write(manifest_type, manifest.as_bytes())?)
}

/// I10, I22, P3: every compression, by content and not by label.
#[test]
fn an_image_of_any_compression_is_unpacked() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let mut compressions = vec![Compression::None, Compression::Gzip];
    if cfg!(feature = "zstd") {
        compressions.push(Compression::Zstd);
    }
    for compression in compressions {
        let image = image(&store, &fixture().layer(&[("a/b", b"1")]).layer(&[("a/c", b"22")]).compression(compression));
        let target = scratch.path(&compression.to_string());
        let done = image.unpack_with(&target, &options()).unwrap();
        assert_eq!((done.entries, done.bytes, done.skipped.len()), (4, 3, 0));
        assert_eq!(fs::read_to_string(target.join("a/b")).unwrap(), "1");
        assert_eq!(fs::read_to_string(target.join("a/c")).unwrap(), "22");
        let root = fs::metadata(&target).unwrap();
        assert_eq!((root.mode() & 0o7777, root.mtime()), (0o755, 0));
    }
}

/// Case 35, P3: a layer that is not what was promised leaves nothing, whichever promise it breaks.
#[test]
fn a_broken_layer_leaves_nothing() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let good = image(&store, &fixture().layer(&[("a", b"1")]).layer(&[("b", &[7; 5000])]).layer(&[("c", b"3")]));
    let layers: Vec<_> = good.manifest().layers().to_vec();
    let mut diff_ids: Vec<_> = good.config().unwrap().diff_ids().unwrap().to_vec();
    let target = scratch.dir("targets").join("root");

    diff_ids[1] = layercake::Digest::sha256(b"another tar");
    let error = failure(forged(&store, &layers, &diff_ids).unwrap().unpack_with(&target, &options()));
    assert_kind!(error, ErrorKind::DigestMismatch { .. });
    assert!(error.to_string().contains("layer 2 of 3: diff id: expected"), "{error}");

    // Bytes behind the end of the tar count too.
    let padded = [tar(&[Item::file("a", "1")]), vec![0; 9000]].concat();
    let blob = store.write(layercake::MediaType::OCI_LAYER, &padded).unwrap();
    let short = layercake::Digest::sha256(&padded[..padded.len() - 1]);
    let error = failure(forged(&store, &[blob], &[short]).unwrap().unpack_with(&target, &options()));
    assert_kind!(error, ErrorKind::DigestMismatch { .. });

    let path = blob_path(&store, &layers[1]);
    let mut bytes = fs::read(&path).unwrap();
    for at in [0, 12, bytes.len() / 2, bytes.len() - 1] {
        bytes[at] ^= 0x10;
        let mut permissions = fs::metadata(&path).unwrap().permissions();
        #[expect(clippy::permissions_set_readonly_false, reason = "it is the test's own file")]
        permissions.set_readonly(false);
        fs::set_permissions(&path, permissions).unwrap();
        fs::write(&path, &bytes).unwrap();
        let error = failure(good.unpack_with(&target, &options()));
        assert_kind!(error, ErrorKind::DigestMismatch { .. });
        assert!(error.to_string().contains("layer 2 of 3"), "byte {at}: {error}");
        bytes[at] ^= 0x10;
    }
    assert_eq!(names(&scratch.path("targets")), [""; 0]);
}

/// Case 36: what is there stays as it is.
#[test]
fn a_target_that_is_taken_is_refused() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let image = image(&store, &fixture().layer(&[("a", b"1")]));
    let full = scratch.dir("full");
    fs::write(full.join("mine"), "mine").unwrap();
    fs::write(scratch.path("file"), "mine").unwrap();
    std::os::unix::fs::symlink(scratch.dir("elsewhere"), scratch.path("link")).unwrap();
    for taken in ["full", "file", "link"] {
        let error = failure(image.unpack_with(scratch.path(taken), &options()));
        assert_kind!(error, ErrorKind::AlreadyExists { .. });
    }
    assert_eq!((names(&full), names(&scratch.path("elsewhere"))), (vec!["mine".to_owned()], vec![]));
    // An empty one is taken over.
    image.unpack_with(scratch.dir("empty"), &options()).unwrap().entries.checked_sub(1).unwrap();
    let hidden = names(&scratch.path(".")).into_iter().filter(|name| name.starts_with('.')).count();
    assert_eq!(hidden, 0);
}

/// Case 36: over a mount point nothing can be renamed, and that is said before any work is done.
#[test]
fn a_mount_point_is_refused() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let image = image(&store, &fixture().layer(&[("a", b"1")]));
    let target = scratch.dir("mnt");
    run(std::process::Command::new("mount").args(["-t", "tmpfs", "none"]).arg(&target)).ok();
    let error = failure(image.unpack_with(&target, &options()));
    unmount(&target);
    assert_kind!(error, ErrorKind::AlreadyExists { .. });
}

/// Case 113.
#[test]
fn a_target_in_the_store_is_refused() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let image = image(&store, &fixture().layer(&[("a", b"1")]));
    for inside in ["root", "blobs/root", "blobs/sha256/root"] {
        assert_kind!(failure(image.unpack_with(store.path().join(inside), &options())), ErrorKind::InvalidInput(_));
    }
    assert_kind!(failure(image.unpack_with("/", &options())), ErrorKind::InvalidInput(_));
}

/// Cases 34 and 116: a killed process leaves a hidden directory, which the next one removes; but not what is being
/// worked on.
#[test]
fn what_was_left_behind_is_removed_by_the_next() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let image = image(&store, &fixture().layer(&[("a", b"1")]));
    let targets = scratch.dir("targets");
    let target = targets.join("root");
    let left = Mutex::new(None);
    // A directory is made, and its process gone: a copy of one that is being worked on, whose lock nobody holds.
    let observer = |_: &Event<'_>| {
        let working: Vec<String> = names(&targets);
        let mut left = left.lock().unwrap();
        if left.is_none() {
            let (start, last) = working[0].split_at(working[0].len() - 1);
            let orphan = format!("{start}{}", if last == "0" { "1" } else { "0" });
            fs::create_dir_all(targets.join(&orphan).join("tree/a/b")).unwrap();
            fs::write(targets.join(&orphan).join("layercake-staging"), "").unwrap();
            fs::set_permissions(targets.join(&orphan), fs::Permissions::from_mode(0o700)).unwrap();
            *left = Some((working[0].clone(), orphan));
        }
        // Another one that makes the same target meanwhile leaves this one alone.
        drop(left);
    };
    let _ = image.unpack_with(&target, &options().observer(&observer)).unwrap();
    let orphan = left.lock().unwrap().take().unwrap().1;
    assert_eq!(names(&targets), [orphan, "root".to_owned()]);
    fs::remove_dir_all(&target).unwrap();
    let _ = image.unpack_with(&target, &options()).unwrap();
    assert_eq!(names(&targets), ["root"]);
}

/// Case 125: several at once make one tree, and the others are told.
#[test]
fn many_unpack_to_one_target() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let image = image(&store, &fixture().layer(&[("a/b", &[1; 100_000])]).layer(&[("c", b"2")]));
    let targets = scratch.dir("targets");
    let results: Vec<_> = std::thread::scope(|scope| {
        let unpack = || image.unpack_with(targets.join("root"), &options());
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(unpack)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let (won, lost): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
    assert_eq!(won.len(), 1);
    lost.into_iter().for_each(|result| assert_kind!(failure(result), ErrorKind::AlreadyExists { .. }));
    assert_eq!(names(&targets), ["root"]);
    assert_eq!(fs::read(targets.join("root/a/b")).unwrap(), [1; 100_000]);
}

/// P9: every limit has its own name in the error, and leaves nothing.
#[test]
fn limits_hold() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let image = image(&store, &fixture().layer(&[("a", &[0; 5000]), ("b", b"")]).layer(&[("c", &[0; 3000])]));
    let targets = scratch.dir("targets");
    let refused = |change: fn(&mut Limits)| {
        let mut limits = Limits::default();
        change(&mut limits);
        match failure(image.unpack_with(targets.join("root"), &options().limits(limits))).into_kind() {
            ErrorKind::LimitExceeded { limit, maximum } => (limit, maximum),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(refused(|limits| limits.layers = 1), (Limit::Layers, 1));
    assert_eq!(refused(|limits| limits.entries = 2), (Limit::Entries, 2));
    assert_eq!(refused(|limits| limits.file_bytes = 4999), (Limit::FileSize, 4999));
    assert_eq!(refused(|limits| limits.unpacked_bytes = 11_000), (Limit::UnpackedSize, 11_000));
    assert_eq!(refused(|limits| limits.path_bytes = 0), (Limit::PathLength, 0));
    assert_eq!(names(&targets), [""; 0]);
}

/// Case 132: a caller that cancels, or panics, leaves nothing behind either.
#[test]
fn the_observer_may_stop_it() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let image = image(&store, &fixture().layer(&[("a", &[1; 3_000_000]), ("b", b"")]).layer(&[("c", b"")]));
    let targets = scratch.dir("targets");
    let cancel = Cancel::new();
    let stop = |_: &Event<'_>| cancel.cancel();
    let error = failure(image.unpack_with(targets.join("root"), &options().observer(&stop).cancel(&cancel)));
    assert_kind!(error, ErrorKind::Cancelled);
    let panic = |_: &Event<'_>| panic!("as the test wants it");
    let unpack = || image.unpack_with(targets.join("root"), &options().observer(&panic)).map(drop);
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(unpack)).is_err());
    assert_eq!(names(&targets), [""; 0]);
    let _ = image.unpack_with(targets.join("root"), &options()).unwrap();
}

/// Enough for a progress bar: entries and bytes grow, and each layer ends with its size.
#[test]
fn events_tell_how_far_it_is() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let image = image(&store, &fixture().layer(&[("a", &[1; 3_000_000]), ("b", b"")]).layer(&[("c", b"")]));
    let told = Mutex::new(Vec::new());
    let observer = |event: &Event<'_>| {
        let line = match event {
            Event::Unpacking { layer, entries, bytes } => (layer.unwrap().digest, *entries, *bytes),
            Event::Unpacked { layer } => (layer.digest, u64::MAX, layer.size),
            _ => return,
        };
        told.lock().unwrap().push(line);
    };
    let _ = image.unpack_with(scratch.path("root"), &options().observer(&observer)).unwrap();
    let told = told.into_inner().unwrap();
    for (layer, entries) in image.layers().unwrap().iter().zip([2, 1]) {
        let of_layer: Vec<_> = told.iter().filter(|(digest, ..)| *digest == layer.digest()).collect();
        assert!(of_layer.windows(2).all(|two| two[0].1 <= two[1].1 && two[0].2 <= two[1].2), "{of_layer:?}");
        assert!(of_layer.contains(&&(layer.digest(), entries, layer.size())), "{of_layer:?}");
        assert_eq!(of_layer.last(), Some(&&(layer.digest(), u64::MAX, layer.size())));
    }
}

/// L20: layers in directories of their own, and the kernel's own view of them is the flat tree.
#[test]
fn overlays_show_what_a_flat_tree_is() {
    if !is_root() || !mounts_overlays() {
        return;
    }
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let base = [
        Item::dir("tmp").mode(0o1777).mtime(5),
        Item::dir("a").owner(7, 8).mtime(6).xattr("user.note", "kept"),
        Item::file("a/gone", "x"),
        Item::file("a/kept", "y").mode(0o4755),
        Item::dir("lib").mtime(9),
        Item::symlink("l", "lib"),
        Item::file("d/old", "old"),
        Item::file("linked", "z").owner(3, 4),
    ];
    let change = [
        Item::file("tmp/new", "1"),
        Item::file("a/.wh.gone", ""),
        Item::file("l/through", "2"),
        Item::file(".wh.d", ""),
        Item::file("d/new", "3"),
        Item::hard_link("other", "linked"),
    ];
    let image = image(&store, &fixture().raw_layer(tar(&base)).raw_layer(tar(&change)));
    let _ = image.unpack_with(scratch.path("flat"), &options()).unwrap();
    let _ = image.unpack_with(scratch.path("layers"), &options().layout(Layout::Overlay)).unwrap();
    assert_eq!(names(&scratch.path("layers")), ["1", "2"]);
    let lower: Vec<PathBuf> = ["layers/2", "layers/1"].map(|name| scratch.path(name)).to_vec();
    let without_links = |tree: tree::Lines| -> Vec<(Vec<u8>, String)> {
        let cut = |(path, line): (Vec<u8>, String)| (path, line.split("Some([").next().unwrap().to_owned());
        tree.into_iter().map(cut).collect()
    };
    let flat = tree::lines(&scratch.path("flat"));
    let seen = overlay(&lower, &scratch.path("mnt"), tree::lines);
    assert_eq!(without_links(seen), without_links(flat));
    let mark = fs::symlink_metadata(scratch.path("layers/2/a/gone")).unwrap();
    assert_eq!((mark.mode() & 0o170_000, mark.rdev()), (0o020_000, 0));
    assert_eq!(tree::xattr(&scratch.path("layers/2/d"), "trusted.overlay.opaque"), b"y");
    assert_eq!(fs::metadata(scratch.path("layers/2/tmp")).unwrap().mode() & 0o7777, 0o1777);
}

/// One file of the merged view, without a disk: whiteouts hide, links lead, hard links have their target's content.
#[test]
fn a_file_is_read_without_unpacking() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let base = [
        Item::file("usr/lib/os-release", "ID=one"),
        Item::symlink("etc/os-release", "../usr/lib/os-release"),
        Item::symlink("up", "/../../etc"),
        Item::file("gone", "x"),
        Item::file("d/x", "x"),
        Item::file("first", "first"),
        Item::symlink("loop", "loop"),
        Item::fifo("pipe"),
    ];
    let change = [
        Item::file(".wh.gone", ""),
        Item::file("usr/lib/os-release", "ID=two"),
        Item::file("d/.wh..wh..opq", ""),
        Item::file("d/y", "y"),
        Item::hard_link("second", "first"),
    ];
    let image = image(&store, &fixture().raw_layer(tar(&base)).raw_layer(tar(&change)));
    let read = |path: &str| image.read_file(path).and_then(|file| Ok(std::io::read_to_string(file)?));
    for path in ["/etc/os-release", "usr/lib/os-release", "up/os-release", "../etc/./os-release"] {
        assert_eq!(read(path).unwrap(), "ID=two", "{path}");
    }
    assert_eq!(read("second").unwrap(), "first");
    assert_eq!((read("d/y").unwrap(), image.read_file("d/y").unwrap().size()), ("y".to_owned(), 1));
    for missing in ["gone", "d/x", "none", "first/x", ""] {
        let error = failure(read(missing));
        assert!(error.is_not_found() || matches!(error.kind(), ErrorKind::InvalidInput(_)), "{missing}: {error}");
    }
    assert!(failure(read("gone")).is_not_found() && failure(read("d/x")).is_not_found());
    for no_file in ["usr", "loop", "pipe"] {
        assert_kind!(failure(read(no_file)), ErrorKind::InvalidInput(_));
    }
}

/// The entries of an image come in the order of its layers, whiteouts among them, and the last proves them all.
#[test]
fn entries_are_read_in_order() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let sparse = Item::file("s", "AB").pax("GNU.sparse.size", "8").pax("GNU.sparse.numblocks", "3");
    let sparse = sparse.pax("GNU.sparse.map", "2,1,6,1,8,0");
    let image = image(&store, &fixture().raw_layer(tar(&[sparse])).raw_layer(tar(&[Item::file("a/.wh.b", "")])));
    let mut entries = image.entries().unwrap();
    let mut found = Vec::new();
    while let Some((layer, mut entry)) = entries.next_entry().unwrap() {
        let mut content = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut content).unwrap();
        found.push((layer, format!("{:?} {}", entry.kind(), entry.path().display()), content));
    }
    let hole = b"\0\0A\0\0\0B\0".to_vec();
    assert_eq!(found, [(0, "File s".to_owned(), hole), (1, "Whiteout a/b".to_owned(), vec![])]);
}

/// The merged view in memory is the tree on the disk, for every file of random stacks.
#[test]
fn files_that_are_read_are_those_on_the_disk() {
    use crate::support::model;
    use crate::support::tape::tar_of;
    let scratch = Scratch::new();
    let mut compared = 0;
    for seed in 0..150 {
        let layers = model::random_stack(&mut model::Random(seed));
        let Ok(expected) = model::apply(&layers) else { continue };
        let store = scratch.store(&format!("store{seed}"));
        let stack = layers.iter().fold(fixture().compression(Compression::None), |f, layer| f.raw_layer(tar_of(layer)));
        let image = image(&store, &stack);
        for (path, node) in &expected {
            let model::Kind::File(content) = &node.kind else { continue };
            let mut found = Vec::new();
            let mut file = image.read_file(path).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
            std::io::Read::read_to_end(&mut file, &mut found).unwrap();
            assert_eq!(&found, content, "seed {seed}, {path}");
            compared += 1;
        }
    }
    assert!(compared > 100, "{compared}");
}

/// P5, case 121: the tree is synced before its name appears, and the names afterwards, unless that is traded away.
#[test]
fn unpack_syncs_unless_told_otherwise() {
    if !installed(&["strace"]) {
        return;
    }
    let scratch = Scratch::new();
    let store = scratch.store("store");
    Fixture::demo().tag(&store, &crate::support::name("demo:1")).unwrap();
    let traced = |options: &[&str], target: &str| {
        let unpack = example("unpack");
        let mut command = std::process::Command::new("strace");
        let trace = "trace=fsync,fdatasync,syncfs,rename,renameat,renameat2";
        command.args(["-f", "-qq", "-e", trace]).arg(unpack.get_program()).arg("--rootless").args(options);
        let ran = run(command.arg("--store").arg(store.path()).arg("demo:1").arg(scratch.path(target)));
        assert_eq!(ran.status, 0, "{ran:?}");
        let call = |line: &str| {
            let name = line.split('(').next().unwrap_or_default();
            name.rsplit(' ').next().unwrap_or_default().trim_end_matches('2').to_owned()
        };
        ran.err.lines().filter(|line| line.contains('(')).map(call).collect::<Vec<_>>()
    };
    assert_eq!(traced(&["--no-sync"], "a"), ["renameat"]);
    // The directory that the tree came from, and the one that it is in.
    assert_eq!(traced(&[], "b"), ["syncfs", "renameat", "fsync", "fsync"]);
    assert_eq!(traced(&[], "new/c"), ["syncfs", "fsync", "renameat", "fsync", "fsync"]);
}

/// Cases 116 and 118: whatever call fails, or is the last: no tree, or a whole one; and the next attempt succeeds.
#[test]
fn an_unpack_survives_any_system_call() {
    if !installed(&["strace"]) {
        return;
    }
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let layers = fixture().layer(&[("a/b", b"1"), ("c", b"2")]);
    let change = [Item::file(".wh.c", ""), Item::symlink("l", "a"), Item::hard_link("h", "a/b"), Item::fifo("p")];
    layers.raw_layer(tar(&change)).tag(&store, &crate::support::name("app:1")).unwrap();
    let unpack = |target: &Path| {
        let mut command = example("unpack");
        command.arg("--rootless").arg("--store").arg(store.path()).arg("app:1").arg(target);
        command
    };
    let whole = scratch.path("whole");
    run(&mut unpack(&whole)).ok();
    let whole = tree::lines(&whole);
    let calls = "openat openat2 mkdirat write symlinkat linkat mknodat fchmod utimensat unlinkat renameat flock";
    let mut points = 0;
    for (call, how) in
        calls.split(' ').flat_map(|call| ["error=EIO", "error=ENOSPC", "signal=SIGKILL"].map(|how| (call, how)))
    {
        for n in 1..300 {
            let what = format!("{call}:{how}:when={n}");
            let targets = scratch.dir("targets");
            let plain = unpack(&targets.join("root"));
            let mut command = std::process::Command::new("strace");
            command.args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("inject={what}")]);
            let ran = run(command.arg(plain.get_program()).args(plain.get_args()));
            assert_ne!(ran.status, 101, "{what}: it panicked: {ran:?}");
            let exists = targets.join("root").exists();
            if exists {
                assert_eq!(tree::lines(&targets.join("root")), whole, "{what}");
                fs::remove_dir_all(targets.join("root")).unwrap();
            }
            let again = run(&mut unpack(&targets.join("root")));
            assert_eq!(again.status, 0, "{what}: {again:?}");
            assert_eq!(tree::lines(&targets.join("root")), whole, "{what}");
            assert_eq!(names(&targets), ["root"], "{what}");
            fs::remove_dir_all(&targets).unwrap();
            points += 1;
            if ran.status == 0 && n > 1 {
                break;
            }
        }
    }
    println!("{points} points");
    assert!(points > 100, "{points}");
}

/// A kernel, or a sandbox, without `openat2`.
#[test]
fn a_kernel_without_openat2_makes_the_same_tree() {
    if !installed(&["strace"]) {
        return;
    }
    let scratch = Scratch::new();
    let store = scratch.store("store");
    Fixture::demo().tag(&store, &crate::support::name("demo:1")).unwrap();
    let expected = scratch.path("expected");
    run(example("unpack").arg("--rootless").arg("--store").arg(store.path()).arg("demo:1").arg(&expected)).ok();
    for error in ["ENOSYS", "EPERM"] {
        let unpack = example("unpack");
        let mut command = std::process::Command::new("strace");
        command.args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("inject=openat2:error={error}")]);
        command.arg(unpack.get_program()).arg("--rootless").arg("--store").arg(store.path());
        run(command.arg("demo:1").arg(scratch.path(error))).ok();
        assert_eq!(tree::lines(&scratch.path(error)), tree::lines(&expected));
    }
}

/// What the example prints is what there is, and every option does what it says.
#[test]
fn the_example_says_what_it_did() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let twice = tar(&[Item::file("a", "1"), Item::file("a", "22"), Item::file("b", "").xattr("security.selinux", "x")]);
    fixture().raw_layer(twice).tag(&store, &crate::support::name("app:1")).unwrap();
    let unpack = |options: &[&str], target: &str| {
        let mut command = example("unpack");
        run(command
            .arg("--rootless")
            .args(options)
            .arg("--store")
            .arg(store.path())
            .arg("app:1")
            .arg(scratch.path(target)))
    };
    assert_eq!(
        unpack(&[], "a").ok(),
        "skipped: b: attribute security.selinux: is the host's\ncomes twice in one layer: a\n\
         3 entries, 3 bytes, 1 skipped\n"
    );
    let strict = unpack(&["--strict"], "b");
    assert_eq!((strict.status, strict.out.as_str()), (1, ""));
    assert!(strict.err.starts_with("error: unpack image ") && strict.err.lines().count() == 1, "{strict:?}");
    for (limit, value) in
        [("--max-entries", "2"), ("--max-unpacked-bytes", "100"), ("--max-file-bytes", "1"), ("--max-layers", "0")]
    {
        let refused = unpack(&[limit, value], "c");
        assert_eq!(refused.status, 1, "{refused:?}");
        assert!(refused.err.contains("limit exceeded"), "{refused:?}");
    }
    assert_eq!(unpack(&["--layout", "overlay"], "d").status, 0);
    assert!(scratch.path("d/1/a").exists() && !scratch.path("b").exists() && !scratch.path("c").exists());
    assert_eq!(unpack(&[], "a").status, 1);
}
