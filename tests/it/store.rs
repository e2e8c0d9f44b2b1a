//! The directory: a layout that other tools read, blobs that are whole, names that are not lost.

use std::fs;
use std::io::Read;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use layercake::Algorithm;
use layercake::Descriptor;
use layercake::Digest;
use layercake::Durability;
use layercake::ErrorKind;
use layercake::MediaType;
use layercake::Store;
use serde_json::Value;
use serde_json::json;

use crate::assert_kind;
use crate::support::Scratch;
use crate::support::blob_path;
use crate::support::contents;
use crate::support::failure;
use crate::support::name;
use crate::support::tools;
use crate::support::two_layers;

const TEXT: &[u8] = b"hello\n";

fn text() -> Descriptor {
    Descriptor::of(MediaType::OCTET_STREAM, TEXT)
}

/// I27: what a new store is made of.
#[test]
fn a_new_store_is_a_valid_layout() {
    let scratch = Scratch::new();
    let store = scratch.store("a/b/store");
    let read = |name: &str| fs::read_to_string(store.path().join(name)).unwrap();
    assert_eq!(read("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#);
    let index: Value = serde_json::from_str(&read("index.json")).unwrap();
    assert_eq!((&index["schemaVersion"], &index["manifests"]), (&json!(2), &json!([])), "I29");
    assert!(store.path().join("blobs").is_dir());
    assert_eq!(store.entries().unwrap().count(), 0);
}

#[test]
fn opening_and_creating_are_told_apart() {
    let scratch = Scratch::new();
    assert!(failure(Store::open(scratch.path("none"))).is_not_found());
    let path = scratch.path("store");
    Store::create(&path).unwrap();
    assert_kind!(failure(Store::create(&path)), ErrorKind::NotALayout { .. });
    Store::open(&path).unwrap();
    Store::open_or_create(&path).unwrap();
    fs::create_dir(scratch.path("empty")).unwrap();
    Store::open_or_create(scratch.path("empty")).unwrap();
}

#[test]
fn what_is_no_layout_is_refused_and_left_alone() {
    let scratch = Scratch::new();
    let path = scratch.path("home");
    fs::create_dir(&path).unwrap();
    fs::write(path.join("letter.txt"), "dear").unwrap();
    let before = contents(&path);
    for error in [failure(Store::open(&path)), failure(Store::create(&path)), failure(Store::open_or_create(&path))] {
        assert_kind!(error, ErrorKind::NotALayout { .. });
    }
    assert_eq!(contents(&path), before);
    let error = failure(Store::open(&path)).to_string();
    assert_eq!(error, format!("open store {0}: {0} is no OCI image layout: it has no oci-layout", path.display()));

    for missing in ["index.json", "blobs"] {
        let path = scratch.path(missing);
        Store::create(&path).unwrap();
        let gone = path.join(missing);
        if gone.is_dir() {
            fs::remove_dir_all(gone).unwrap()
        } else {
            fs::remove_file(gone).unwrap()
        }
        assert_kind!(failure(Store::open(&path)), ErrorKind::NotALayout { .. });
    }
    fs::write(scratch.path("file"), "").unwrap();
    assert!(Store::open(scratch.path("file")).is_err() && Store::open_or_create(scratch.path("file")).is_err());
}

/// Case 102: what a newer program wrote is not touched.
#[test]
fn unknown_versions_are_refused_and_left_alone() {
    let scratch = Scratch::new();
    for (file, content) in [("oci-layout", r#"{"imageLayoutVersion":"2.0.0"}"#), ("layercake/version", "2\n")] {
        let path = scratch.path(&file.replace('/', "-"));
        Store::create(&path).unwrap();
        fs::write(path.join(file), content).unwrap();
        let before = contents(&path);
        assert_kind!(failure(Store::open(&path)), ErrorKind::UnsupportedVersion { .. });
        assert_kind!(failure(Store::open_or_create(&path)), ErrorKind::UnsupportedVersion { .. });
        assert_eq!(contents(&path), before);
    }
    let path = scratch.path("rubbish");
    Store::create(&path).unwrap();
    for rubbish in ["", "{}", "[1]", "\0\0\0"] {
        fs::write(path.join("oci-layout"), rubbish).unwrap();
        assert_kind!(failure(Store::open(&path)), ErrorKind::InvalidDocument { .. });
    }
}

/// An interrupted creation is finished by the next one.
#[test]
fn creation_survives_interruption() {
    let scratch = Scratch::new();
    let path = scratch.path("store");
    Store::create(&path).unwrap();
    fs::remove_file(path.join("oci-layout")).unwrap();
    fs::remove_file(path.join("index.json")).unwrap();
    let store = Store::open_or_create(&path).unwrap();
    assert_eq!(store.entries().unwrap().count(), 0);
}

/// What a power cut may leave of a store that was made without waiting for the disk: a directory to make a store of.
#[test]
fn creation_survives_empty_files() {
    for empty in [&["oci-layout"][..], &["oci-layout", "index.json"], &["oci-layout", "layercake/version"]] {
        let scratch = Scratch::new();
        let path = scratch.path("store");
        let store = Store::create_with(&path, Durability::None).unwrap();
        assert_eq!(store.durability(), Durability::None);
        empty.iter().for_each(|file| fs::write(path.join(file), "").unwrap());
        assert!(Store::open(&path).is_err(), "{empty:?}");
        let store = Store::open_or_create_with(&path, Durability::None).unwrap();
        assert_eq!(store.entries().unwrap().count(), 0);
        assert_eq!(Store::open(&path).unwrap().durability(), Durability::Full);
    }
}

/// What a power cut leaves of the names, too: they are what they were before their last change, or none.
#[test]
fn names_that_a_power_cut_emptied_are_made_again() {
    let (first, last) = (name("example.com/a:1"), name("example.com/a:2"));
    let damages: [fn(&Path); 2] = [|file| fs::write(file, "").unwrap(), |file| fs::remove_file(file).unwrap()];
    for (damage, previous) in damages.iter().flat_map(|damage| [None, Some(""), Some("{")].map(|old| (damage, old))) {
        let scratch = Scratch::new();
        let path = scratch.path("store");
        let store = Store::create_with(&path, Durability::None).unwrap();
        let blob = store.write(MediaType::OCTET_STREAM, TEXT).unwrap();
        store.tag(&first, &blob).unwrap();
        store.tag(&last, &blob).unwrap();
        fs::write(path.join("note"), "somebody else's").unwrap();
        if let Some(previous) = previous {
            fs::write(path.join("layercake/index.json.old"), previous).unwrap();
        }
        damage(&path.join("index.json"));
        let store = Store::open_or_create_with(&path, Durability::None).unwrap();
        assert_eq!(store.resolve(&first).is_ok(), previous.is_none(), "{previous:?}");
        assert!(failure(store.resolve(&last)).is_not_found());
        store.tag(&last, &blob).unwrap();
        store.gc().unwrap();
        // Whoever relies on it is not served worse.
        damage(&path.join("index.json"));
        let durable = Store::open_or_create(&path).unwrap();
        durable.tag(&first, &blob).unwrap();
        assert!(durable.check().unwrap().problems.is_empty() && !path.join("layercake/unsynced").exists());
    }
}

/// Where one does not wait for the disk, and another did before, a power cut may take the names of both.
#[test]
fn names_that_replaced_durable_ones_are_made_again() {
    let (first, last) = (name("example.com/a:1"), name("example.com/a:2"));
    let scratch = Scratch::new();
    let path = scratch.path("store");
    let store = Store::create(&path).unwrap();
    let blob = store.write(MediaType::OCTET_STREAM, TEXT).unwrap();
    store.tag(&first, &blob).unwrap();
    Store::open_or_create_with(&path, Durability::None).unwrap().tag(&last, &blob).unwrap();
    fs::write(path.join("index.json"), "").unwrap();
    let store = Store::open_or_create(&path).unwrap();
    assert!(store.resolve(&first).is_ok() && failure(store.resolve(&last)).is_not_found());
    assert!(!path.join("layercake/unsynced").exists());
}

/// What was brought to the disk is not emptied by a power cut: whatever did that, nobody guesses what the names were.
#[test]
fn names_that_something_else_emptied_are_left_alone() {
    let scratch = Scratch::new();
    let path = scratch.path("store");
    let store = Store::create(&path).unwrap();
    let blob = store.write(MediaType::OCTET_STREAM, TEXT).unwrap();
    store.tag(&name("example.com/a:1"), &blob).unwrap();
    fs::write(path.join("index.json"), "").unwrap();
    let store = Store::open_or_create(&path).unwrap();
    assert_kind!(failure(store.tag(&name("example.com/a:2"), &blob)), ErrorKind::InvalidDocument { .. });
    assert_eq!(fs::read(path.join("index.json")).unwrap(), b"");
    fs::remove_file(path.join("index.json")).unwrap();
    assert_kind!(failure(Store::open_or_create(&path)), ErrorKind::NotALayout { .. });
    assert!(!path.join("index.json").exists());
}

/// Who relies on a store that was made without waiting for the disk waits for it first, and only once.
#[test]
fn what_made_the_store_is_synced_before_it_is_relied_on() {
    let scratch = Scratch::new();
    let path = scratch.path("store");
    let cache = Store::create_with(&path, Durability::None).unwrap();
    let mark = path.join("layercake/unsynced");
    let blob = cache.write(MediaType::OCTET_STREAM, TEXT).unwrap();
    assert!(mark.exists());
    Store::open(&path).unwrap().tag(&name("example.com/a:1"), &blob).unwrap();
    assert!(!mark.exists());
    assert!(Store::open_or_create_with(&path, Durability::None).unwrap().check().unwrap().problems.is_empty());
    assert!(!mark.exists());
    // Whoever made it was killed before it was a store.
    let _ = Store::create_with(scratch.path("killed"), Durability::None).unwrap();
    fs::remove_file(scratch.path("killed/oci-layout")).unwrap();
    let finished = Store::open_or_create(scratch.path("killed")).unwrap();
    finished.write(MediaType::OCTET_STREAM, TEXT).unwrap();
    assert!(!scratch.path("killed/layercake/unsynced").exists());
    let durable = scratch.store("durable");
    assert!(!durable.path().join("layercake/unsynced").exists());
}

#[test]
fn many_creators_make_one_store() {
    let scratch = Scratch::new();
    let path = scratch.path("store");
    thread::scope(|scope| {
        for n in 0..8 {
            let path = &path;
            scope.spawn(move || {
                let durability = if n % 2 == 0 { Durability::None } else { Durability::Full };
                let store = Store::open_or_create_with(path, durability).unwrap();
                let blob = store.write(MediaType::OCTET_STREAM, format!("{n}").as_bytes()).unwrap();
                store.tag(&name(&format!("example.com/a:{n}")), &blob).unwrap();
            });
        }
    });
    assert_eq!(Store::open(&path).unwrap().entries().unwrap().count(), 8);
}

/// Case 98, P14: other users may neither read nor write.
#[test]
fn files_are_closed_to_others() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let blob = store.write(MediaType::OCTET_STREAM, TEXT).unwrap();
    assert_eq!(blob_path(&store, &blob).metadata().unwrap().permissions().mode() & 0o777, 0o400);
    for directory in ["", "blobs", "blobs/sha256", "layercake"] {
        let mode = store.path().join(directory).metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o700, "{directory}: {mode:o}");
    }
}

#[test]
fn blobs_come_and_go_as_promised() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    assert!(!store.contains(&text()).unwrap());
    assert!(failure(store.read(&text())).is_not_found());
    let blob = store.write(MediaType::OCTET_STREAM, TEXT).unwrap();
    assert_eq!(blob, text());
    assert!(store.contains(&blob).unwrap());
    assert_eq!(store.read(&blob).unwrap(), TEXT);
    assert_eq!(store.size_of(blob.digest).unwrap(), Some(6));
    assert_eq!(store.blobs().unwrap().map(Result::unwrap).collect::<Vec<_>>(), [(blob.digest, 6)]);
    let empty = store.write(MediaType::OCTET_STREAM, b"").unwrap();
    assert_eq!(store.read(&empty).unwrap(), b"");
}

#[test]
fn sha512_blobs_lie_in_a_folder_of_their_own() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let promise = Descriptor::new(MediaType::OCTET_STREAM, Digest::of(Algorithm::Sha512, TEXT), 6);
    let mut writer = store.resume(&promise).unwrap();
    writer.append(TEXT).unwrap();
    writer.commit_as(&promise).unwrap();
    assert!(store.path().join("blobs/sha512").join(promise.digest.hex().to_string()).is_file());
    assert_eq!(store.read(&promise).unwrap(), TEXT);
}

/// Cases 92 and 93.
#[test]
fn what_is_not_what_was_promised_gets_no_name() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let before = contents(store.path());
    for (content, corrupt) in [(&b"jello\n"[..], true), (b"hello", false), (b"hello\n\n", false), (b"", false)] {
        let mut writer = store.writer(Algorithm::Sha256).unwrap();
        writer.write_all(content).unwrap();
        let error = failure(writer.commit_as(&text()));
        assert_eq!(matches!(error.kind(), ErrorKind::DigestMismatch { .. }), corrupt, "{error}");
        assert_eq!(matches!(error.kind(), ErrorKind::SizeMismatch { .. }), !corrupt, "{error}");
    }
    let mut writer = store.writer(Algorithm::Sha256).unwrap();
    writer.append(TEXT).unwrap();
    drop(writer);
    assert_eq!(fs::read_dir(store.path().join("layercake/partial")).unwrap().count(), 0);
    assert_eq!(contents(store.path()), before);
}

/// Case 94.
#[test]
fn a_blob_that_is_there_is_not_written_again() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let blob = store.write(MediaType::OCTET_STREAM, TEXT).unwrap();
    let before = blob_path(&store, &blob).metadata().unwrap();
    store.write(MediaType::OCTET_STREAM, TEXT).unwrap();
    let mut writer = store.writer(Algorithm::Sha256).unwrap();
    writer.append(TEXT).unwrap();
    writer.commit_as(&blob).unwrap();
    let after = blob_path(&store, &blob).metadata().unwrap();
    assert_eq!((before.ino(), before.mtime_nsec()), (after.ino(), after.mtime_nsec()));
    assert_eq!(fs::read_dir(store.path().join("layercake/partial")).unwrap().count(), 0);
}

/// Cases 95 and 123: noticed by size at once, by content when read, mended by writing again.
#[test]
fn damaged_blobs_are_noticed_and_mended() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let blob = store.write(MediaType::OCTET_STREAM, TEXT).unwrap();
    let path = blob_path(&store, &blob);
    let damage = |content: &[u8]| {
        fs::remove_file(&path).unwrap();
        fs::write(&path, content).unwrap();
    };
    for short in [&b""[..], b"hell", b"hello\n\n"] {
        damage(short);
        assert!(!store.contains(&blob).unwrap());
        assert_kind!(failure(store.read(&blob)), ErrorKind::SizeMismatch { .. });
        store.write(MediaType::OCTET_STREAM, TEXT).unwrap();
        assert_eq!(store.read(&blob).unwrap(), TEXT);
    }
    damage(b"jello\n");
    assert!(store.contains(&blob).unwrap(), "only reading tells");
    assert_kind!(failure(store.read(&blob)), ErrorKind::DigestMismatch { .. });
    let mut reader = store.blob(&blob).unwrap();
    let error = layercake::Error::from(reader.read_to_end(&mut Vec::new()).unwrap_err());
    assert_kind!(error, ErrorKind::DigestMismatch { .. });
    store.write(MediaType::OCTET_STREAM, TEXT).unwrap();
    assert_eq!(store.read(&blob).unwrap(), TEXT);
}

/// Case 96: other things in a blob's place are neither followed nor waited for.
#[test]
fn a_blob_is_a_regular_file_or_an_error() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let blob = store.write(MediaType::OCTET_STREAM, TEXT).unwrap();
    let path = blob_path(&store, &blob);
    let outside = scratch.path("outside");
    fs::write(&outside, TEXT).unwrap();
    let start = Instant::now();
    let plant: [&dyn Fn(); 3] = [&|| symlink(&outside, &path).unwrap(), &|| fs::create_dir(&path).unwrap(), &|| {
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o644.into(), 0).unwrap()
    }];
    for plant in plant {
        if path.is_dir() {
            fs::remove_dir(&path).unwrap()
        } else {
            fs::remove_file(&path).unwrap()
        }
        plant();
        assert!(!store.contains(&blob).unwrap());
        assert_kind!(failure(store.read(&blob)), ErrorKind::Io { .. });
    }
    assert!(start.elapsed() < Duration::from_secs(5));
    fs::remove_file(&path).unwrap();
    symlink(&outside, &path).unwrap();
    store.write(MediaType::OCTET_STREAM, TEXT).unwrap();
    assert!(path.symlink_metadata().unwrap().is_file(), "the link was replaced");
    assert_eq!(fs::read(&outside).unwrap(), TEXT);
}

#[test]
fn an_unfinished_blob_is_taken_up_where_it_ended() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let mut writer = store.resume(&text()).unwrap();
    writer.append(b"hel").unwrap();
    drop(writer);
    assert!(!store.contains(&text()).unwrap());

    let mut writer = Store::open(store.path()).unwrap().resume(&text()).unwrap();
    assert_eq!(writer.written(), 3);
    writer.append(b"lo\n").unwrap();
    writer.commit_as(&text()).unwrap();
    assert_eq!(store.read(&text()).unwrap(), TEXT);
    assert_eq!(fs::read_dir(store.path().join("layercake/partial")).unwrap().count(), 0);
}

#[test]
fn an_unfinished_blob_that_is_too_long_is_begun_anew() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    store.resume(&text()).unwrap().append(b"something else altogether").unwrap();
    assert_eq!(store.resume(&text()).unwrap().written(), 0);
}

/// Case 131: two writers of one blob, in one process too.
#[test]
fn two_writers_of_one_blob_do_not_meet() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let mut first = store.resume(&text()).unwrap();
    first.append(b"hel").unwrap();
    let mut second = store.resume(&text()).unwrap();
    assert_eq!(second.written(), 0);
    second.append(TEXT).unwrap();
    second.commit_as(&text()).unwrap();
    first.append(b"lo\n").unwrap();
    first.commit_as(&text()).unwrap();
    assert_eq!(store.read(&text()).unwrap(), TEXT);
    assert_eq!(fs::read_dir(store.path().join("layercake/partial")).unwrap().count(), 0);
}

/// Case 103: what lies among our files is not ours.
#[test]
fn strange_files_are_left_alone() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    for path in ["note", "blobs/note", "blobs/sha256/note", "layercake/note"] {
        fs::write(store.path().join(path), "mine").unwrap_or_else(|_| {
            fs::create_dir_all(store.path().join(path).parent().unwrap()).unwrap();
            fs::write(store.path().join(path), "mine").unwrap();
        });
    }
    let store = Store::open(store.path()).unwrap();
    assert_eq!(store.blobs().unwrap().count(), 0);
    assert_eq!(fs::read(store.path().join("blobs/sha256/note")).unwrap(), b"mine");
}

/// A file that has more in it than was counted is not published.
#[test]
fn what_was_not_counted_is_not_published() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let mut writer = store.resume(&text()).unwrap();
    writer.append(b"hel").unwrap();
    let partial = store.path().join(format!("layercake/partial/sha256-{}", text().digest.hex()));
    fs::OpenOptions::new().append(true).open(partial).unwrap().write_all(b"stray bytes").unwrap();
    writer.append(b"lo\n").unwrap();
    assert_kind!(failure(writer.commit_as(&text())), ErrorKind::SizeMismatch { .. });
    assert!(!store.contains(&text()).unwrap());
}

/// Case 112: nothing inside says where the store is.
#[test]
fn a_store_can_be_moved() {
    let scratch = Scratch::new();
    let store = scratch.store("here");
    two_layers().tag(&store, &name("app")).unwrap();
    store.image(name("app")).unwrap().unpacked_size().unwrap();
    fs::rename(scratch.path("here"), scratch.path("there")).unwrap();
    store.image(name("app")).unwrap();
    symlink(scratch.path("there"), scratch.path("link")).unwrap();
    assert!(Store::open(scratch.path("link")).unwrap().image(name("app")).unwrap().is_complete().unwrap());
}

/// Case 101: reading works, writing says why not.
#[test]
fn a_read_only_store_can_be_read() {
    if !tools::is_root() {
        return;
    }
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let app = name("app");
    two_layers().tag(&store, &app).unwrap();
    let mount = Mount::bind_read_only(store.path(), &scratch.path("read-only"));
    let store = Store::open_or_create(&mount.0).unwrap();
    let image = store.image(&app).unwrap();
    assert!(image.unpacked_size().unwrap() > 0, "what cannot be kept is still counted");
    let blob = image.descriptor();
    for error in [
        failure(store.write(MediaType::OCTET_STREAM, b"new")),
        failure(store.tag(&name("other"), &blob)),
        failure(store.untag(&app)),
        failure(store.resume(&text())),
    ] {
        assert_kind!(error, ErrorKind::ReadOnly { .. });
    }
    let error = failure(Store::create(mount.0.join("store")));
    assert_kind!(error, ErrorKind::ReadOnly { .. });
}

/// Case 100: a full disk is an error of its own kind, and leaves the store as it was.
#[test]
fn a_full_disk_is_said_to_be_full() {
    if !tools::is_root() {
        return;
    }
    let scratch = Scratch::new();
    let mount = Mount::small(&scratch.path("small"), "size=256k");
    let store = Store::create(mount.0.join("store")).unwrap();
    store.write(MediaType::OCTET_STREAM, TEXT).unwrap();
    let before = contents(store.path());
    let large = vec![7; 1 << 20];
    assert_kind!(failure(store.write(MediaType::OCTET_STREAM, &large)), ErrorKind::StorageFull { .. });
    assert_eq!(contents(store.path()), before);
    assert_eq!(fs::read_dir(store.path().join("layercake/partial")).unwrap().count(), 0);
    store.tag(&name("still:works"), &text()).unwrap();
}

/// Case 100: where not a byte is free, garbage can be collected all the same.
#[test]
fn garbage_is_collected_on_a_full_disk() {
    if !tools::is_root() {
        return;
    }
    let scratch = Scratch::new();
    let mount = Mount::small(&scratch.path("small"), "size=256k");
    let store = Store::create(mount.0.join("store")).unwrap();
    store.tag(&name("kept"), &store.write(MediaType::OCTET_STREAM, TEXT).unwrap()).unwrap();
    store.write(MediaType::OCTET_STREAM, &[7; 50_000]).unwrap();
    let mut filler = fs::File::create(mount.0.join("filler")).unwrap();
    while filler.write_all(&[0; 512]).is_ok() {}
    assert_eq!(store.room().unwrap().available, 0);
    assert_kind!(failure(store.write(MediaType::OCTET_STREAM, b"one more")), ErrorKind::StorageFull { .. });
    assert_kind!(failure(store.leased().and_then(|leased| leased.contains(&text()))), ErrorKind::StorageFull { .. });
    let collected = store.gc_with(&crate::gc::at_once()).unwrap();
    assert_eq!((collected.blobs.len(), collected.bytes), (1, 50_000));
    assert!(store.room().unwrap().available >= 50_000);
    store.write(MediaType::OCTET_STREAM, b"one more").unwrap();
}

/// A mount that goes away.
struct Mount(std::path::PathBuf);

impl Mount {
    fn small(path: &std::path::Path, options: &str) -> Mount {
        fs::create_dir(path).unwrap();
        tools::run(std::process::Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(path)).ok();
        Mount(path.to_owned())
    }

    fn bind_read_only(from: &std::path::Path, path: &std::path::Path) -> Mount {
        fs::create_dir(path).unwrap();
        tools::run(std::process::Command::new("mount").arg("--bind").arg(from).arg(path)).ok();
        tools::run(std::process::Command::new("mount").args(["-o", "remount,bind,ro"]).arg(path)).ok();
        Mount(path.to_owned())
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg(&self.0).status();
    }
}
