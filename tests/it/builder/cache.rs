//! The same again: what was done before is not done again, and what changed is.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;
use std::time::SystemTime;

use layercake::Compression;
use layercake::builder::Built;
use layercake::compression::EncoderOptions;

use super::*;
use crate::support::blob_path;
use crate::support::contents;

/// A build with a step of each kind.
fn builder<'a>(store: &Store, scratch: &Scratch) -> ImageBuilder<'a> {
    let created = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    scratch_builder(store)
        .created(created)
        .copy(scratch.path("tree"), "/srv")
        .copy(Files::bytes("bytes"), "/etc/bytes")
        .remove("/srv/gone")
        .layer_from_tar(scratch.path("layer.tar"))
        .layer_from_dir(scratch.path("tree"))
        .cmd(["sh"])
}

fn inputs(scratch: &Scratch) {
    let tree = scratch.dir("tree");
    write(tree.join("file"), "one");
    write(tree.join("gone"), "");
    fs::write(scratch.path("layer.tar"), tar(&[Item::file("tar", "tar")])).unwrap();
}

fn cached(built: &Built) -> Vec<bool> {
    built.steps.iter().map(|step| step.is_cached).collect()
}

/// Which files there are, and since when.
fn files(store: &Store) -> BTreeMap<PathBuf, (u64, i64, i64)> {
    let seen = |name: PathBuf| {
        let stat = fs::metadata(store.path().join(&name)).unwrap();
        (name, (stat.ino(), stat.ctime(), stat.ctime_nsec()))
    };
    contents(store.path()).into_keys().map(seen).collect()
}

/// The second build of the same inputs writes nothing at all, and gives the same image.
#[test]
fn the_second_build_does_nothing() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    inputs(&scratch);
    let first = builder(&store, &scratch).build().unwrap();
    assert_eq!(cached(&first), [false; 6]);
    let before = files(&store);
    let second = builder(&store, &scratch).build().unwrap();
    assert_eq!(files(&store), before);
    assert_eq!(cached(&second), [true, true, true, true, true, false]);
    assert_eq!(second.image.digest(), first.image.digest());
    let layers = |built: &Built| built.steps.iter().map(|step| step.layer.clone()).collect::<Vec<_>>();
    assert_eq!(layers(&second), layers(&first));
    let uncached = builder(&store, &scratch).without_cache().build().unwrap();
    assert_eq!((cached(&uncached), uncached.image.digest()), (vec![false; 6], first.image.digest()));
    // Wherever it is built.
    let elsewhere = builder(&scratch.store("elsewhere"), &scratch).build().unwrap();
    assert_eq!((cached(&elsewhere), elsewhere.image.digest()), (vec![false; 6], first.image.digest()));
}

/// A content that differs is seen, be size and times equal; and with it all that stands on it changes.
#[test]
fn what_changed_is_done_again() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    inputs(&scratch);
    let first = builder(&store, &scratch).build().unwrap();
    let file = scratch.path("tree/file");
    let time = fs::metadata(&file).unwrap().modified().unwrap();
    write(&file, "two");
    fs::File::open(&file).unwrap().set_modified(time).unwrap();
    let second = builder(&store, &scratch).build().unwrap();
    assert_eq!(cached(&second), [false, false, false, true, false, false]);
    assert_ne!(second.image.digest(), first.image.digest());
    assert_eq!(text(&second.image, "srv/file"), "two");

    let same = |builder: ImageBuilder<'_>| cached(&builder.build().unwrap())[0];
    let copy = |to: &str| scratch_builder(&store).epoch(1).copy(&file, to);
    assert!(!same(copy("/a")) && same(copy("/a")));
    assert!(!same(copy("/b")));
    assert!(!same(copy("/a").epoch(2)));
    assert!(!same(copy("/a").compression(EncoderOptions::new(Compression::None))));
    assert!(!same(copy("/a").compression(EncoderOptions::new(Compression::Gzip).level(1))));
    assert!(same(copy("/a").compression(EncoderOptions::new(Compression::Gzip).threads(1))));
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    assert!(!same(copy("/a")));
}

/// P6, case 106: a record that is missing, torn or rubbish, or whose blob is gone or cut, is as none.
#[test]
fn broken_records_are_as_none() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let build = || scratch_builder(&store).copy(Files::bytes("bytes"), "/a").build().unwrap();
    let first = build();
    let record = fs::read_dir(store.path().join("layercake/steps")).unwrap().next().unwrap().unwrap().path();
    let whole = fs::read(&record).unwrap();
    let other = String::from_utf8(whole.clone()).unwrap().replacen("\"size\":", "\"size\":1", 1).into_bytes();
    for rubbish in [&b""[..], &whole[..whole.len() - 1], b"{}x", b"\"layer\"", &other, &vec![b' '; 100_000]] {
        fs::write(&record, rubbish).unwrap();
        let again = build();
        assert_eq!((cached(&again), again.image.digest()), (vec![false], first.image.digest()));
        assert_eq!(fs::read(&record).unwrap(), whole);
    }
    fs::remove_file(&record).unwrap();
    std::os::unix::fs::symlink("/dev/zero", &record).unwrap();
    assert_eq!(cached(&build()), [false]);
    let blob = blob_path(&store, first.steps[0].layer.as_ref().unwrap());
    fs::remove_file(&blob).unwrap();
    assert_eq!(cached(&build()), [false]);
    assert_eq!(cached(&build()), [true]);
    fs::set_permissions(&blob, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(&blob, b"short").unwrap();
    assert_eq!(cached(&build()), [false]);
    assert_eq!(text(&build().image, "a"), "bytes");
}

/// A step that changes nothing is remembered too, and sockets are reported each time.
#[test]
fn nothing_is_remembered_as_nothing() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let tree = scratch.dir("tree");
    drop(std::os::unix::net::UnixListener::bind(tree.join("socket")).unwrap());
    let build = || scratch_builder(&store).copy(&tree, "/").build().unwrap();
    let (first, second) = (build(), build());
    assert_eq!((cached(&first), cached(&second)), (vec![false], vec![true]));
    for built in [&first, &second] {
        assert_eq!(built.image.layers().unwrap().len(), 0);
        let skipped: Vec<String> = built.steps[0].skipped.iter().map(ToString::to_string).collect();
        assert_eq!(skipped, ["socket: sockets are not stored"]);
    }
}

/// A store that cannot be written remembers nothing, and what was built before can be built still.
#[test]
fn steps_before_one_that_fails_are_kept() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let builder = scratch_builder(&store).copy(Files::bytes("1"), "/a");
    let error = failure(builder.clone().copy(scratch.path("missing"), "/b").build());
    assert!(error.is_not_found());
    assert!(error.to_string().starts_with("build an image: step 2 of 2: copy "), "{error}");
    assert_eq!(cached(&builder.build().unwrap()), [true]);
}

/// What changes between being hashed and being packed fails its step, and never stands under another content's key.
#[test]
fn a_record_is_never_another_contents() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let tree = scratch.dir("tree");
    let file = tree.join("file");
    let is_over = std::sync::atomic::AtomicBool::new(false);
    let is_set = |over: bool| {
        if over {
            is_over.store(true, std::sync::atomic::Ordering::Relaxed)
        }
        is_over.load(std::sync::atomic::Ordering::Relaxed)
    };
    write(&file, "one");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_set(false) {
                for content in ["one", "two"] {
                    fs::write(&file, content).unwrap();
                }
            }
        });
        for to in 0..300 {
            let _ = scratch_builder(&store).epoch(0).copy(&tree, format!("/{}", to % 10)).build();
            let _ = scratch_builder(&store).epoch(0).layer_from_dir(&tree).build();
        }
        is_set(true);
    });
    for content in ["one", "two"] {
        write(&file, content);
        for to in 0..10 {
            let built = scratch_builder(&store).epoch(0).copy(&tree, format!("/{to}")).build().unwrap();
            assert_eq!(text(&built.image, &format!("{to}/file")), content);
        }
        let built = scratch_builder(&store).epoch(0).layer_from_dir(&tree).build().unwrap();
        assert_eq!(text(&built.image, "file"), content);
    }
}
