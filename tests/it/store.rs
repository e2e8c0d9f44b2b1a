//! The directory: a layout that other tools read, blobs that are whole, names that are not lost.

use std::fs;
use std::io::Read;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::fs::symlink;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use layercake::Algorithm;
use layercake::Compression;
use layercake::Descriptor;
use layercake::Digest;
use layercake::Durability;
use layercake::ErrorKind;
use layercake::MediaType;
use layercake::Store;
use layercake::store::Name;
use layercake::testing::Fixture;
use serde_json::Value;
use serde_json::json;

use crate::assert_kind;
use crate::support::Scratch;
use crate::support::contents;
use crate::support::failure;
use crate::support::name;
use crate::support::platform;
use crate::support::tools;
use crate::support::two_layers;

const TEXT: &[u8] = b"hello\n";

fn text() -> Descriptor {
    Descriptor::of(MediaType::OCTET_STREAM, TEXT)
}

fn blob_path(store: &Store, blob: &Descriptor) -> std::path::PathBuf {
    store.path().join("blobs").join(blob.digest.algorithm().name()).join(blob.digest.hex().to_string())
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

#[test]
fn many_creators_make_one_store() {
    let scratch = Scratch::new();
    let path = scratch.path("store");
    thread::scope(|scope| {
        for n in 0..8 {
            let path = &path;
            scope.spawn(move || {
                let store = Store::open_or_create(path).unwrap().with_durability(Durability::None);
                let blob = store.write(MediaType::OCTET_STREAM, format!("{n}").as_bytes()).unwrap();
                store.tag(&name(&format!("example.com/a:{n}")), &blob).unwrap();
            });
        }
    });
    assert_eq!(Store::open(&path).unwrap().entries().unwrap().count(), 8);
}

/// Case 98: nobody else may write, whatever the umask.
#[test]
fn files_are_not_writable_for_others() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let blob = store.write(MediaType::OCTET_STREAM, TEXT).unwrap();
    assert_eq!(blob_path(&store, &blob).metadata().unwrap().permissions().mode() & 0o777, 0o444);
    for directory in ["", "blobs", "blobs/sha256", "layercake"] {
        let mode = store.path().join(directory).metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o022, 0, "{directory}: {mode:o}");
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

/// I28, case 104: a name means one thing, and moves in one step.
#[test]
fn names_are_given_moved_and_taken() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let [one, two] = [&b"1"[..], b"2"].map(|content| store.write(MediaType::OCTET_STREAM, content).unwrap());
    let app = name("example.com/app");
    assert!(failure(store.resolve(&app)).is_not_found());
    assert_eq!(store.tag(&app, &one).unwrap(), None);
    assert_eq!(store.tag(&app, &two).unwrap().map(|before| before.digest), Some(one.digest));
    assert_eq!(store.resolve(name("example.com/app:latest")).unwrap().digest, two.digest);
    assert_eq!(store.entries().unwrap().count(), 1);
    assert_eq!(store.untag(&app).unwrap().digest, two.digest);
    assert!(failure(store.untag(&app)).is_not_found());
    assert_eq!(store.entries().unwrap().count(), 0);
    assert!(store.contains(&one).unwrap(), "blobs stay");
}

#[test]
fn names_of_digests_are_found_by_tag_and_digest() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let blob = store.write(MediaType::OCTET_STREAM, TEXT).unwrap();
    let pinned = name(&format!("example.com/app:1@{}", blob.digest));
    assert!(failure(store.resolve(&pinned)).is_not_found());
    store.tag(&name("example.com/app:2"), &blob).unwrap();
    assert_eq!(store.resolve(&pinned).unwrap().digest, blob.digest);
    assert!(failure(store.resolve(name(&format!("example.com/other@{}", blob.digest)))).is_not_found());
    let other = Digest::sha256(b"other");
    assert_kind!(failure(store.tag(&name(&format!("a@{other}")), &blob)), ErrorKind::InvalidInput(_));
    let missing = Descriptor::of(MediaType::OCTET_STREAM, b"missing");
    assert_kind!(failure(store.tag(&name("a"), &missing)), ErrorKind::NotFound { .. });
}

fn rewrite_index(store: &Store, manifests: Value) {
    let index = json!({ "schemaVersion": 2, "manifests": manifests, "annotations": { "by": "hand" }, "x": [1.0, 1e3] });
    fs::write(store.path().join("index.json"), index.to_string().replace("1000.0", "1e3")).unwrap();
}

fn entry(blob: &Descriptor, annotations: Value) -> Value {
    json!({ "mediaType": blob.media_type, "digest": blob.digest, "size": blob.size, "annotations": annotations, "future": {} })
}

/// I27, I28: what other tools wrote is found verbatim, and survives our changes to the last field.
#[test]
fn a_layout_of_another_tool_opens_as_it_stands() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let blob = store.write(MediaType::OCTET_STREAM, TEXT).unwrap();
    let layout_name = |name: &str| entry(&blob, json!({ "org.opencontainers.image.ref.name": name }));
    let exported =
        json!({ "io.containerd.image.name": "docker.io/library/redis:7", "org.opencontainers.image.ref.name": "7" });
    rewrite_index(
        &store,
        json!([
            layout_name("app"),
            layout_name("latest"),
            layout_name("alpine:3.20"),
            layout_name("!strange!"),
            entry(&blob, exported),
            entry(&blob, Value::Null),
            layout_name("docker.io/library/canonical:1"),
        ]),
    );
    fs::remove_dir_all(store.path().join("layercake")).unwrap();
    let before = contents(store.path());
    let store = Store::open(store.path()).unwrap().with_durability(Durability::None);
    let names: Vec<Name> = store.entries().unwrap().map(|entry| entry.unwrap().0).collect();
    let verbatim = |text: &str| Name::Verbatim(text.to_owned());
    assert_eq!(
        names,
        [
            verbatim("app"),
            verbatim("latest"),
            verbatim("alpine:3.20"),
            verbatim("!strange!"),
            Name::Reference(name("redis:7")),
            Name::Unnamed,
            Name::Reference(name("canonical:1")),
        ]
    );
    for found in ["app", "latest", "alpine:3.20", "redis:7", "canonical:1"] {
        assert!(store.resolve(name(found)).is_ok(), "{found}");
    }
    assert!(store.resolve(verbatim("!strange!")).is_ok());
    assert!(failure(store.resolve(name("alpine"))).is_not_found());
    assert_eq!(contents(store.path()), before, "reading changes nothing");

    let columns = |name: &Name| {
        let (repository, tag) = name.columns();
        format!("{} {}", repository.unwrap_or_default(), tag.unwrap_or_default())
    };
    let shown: Vec<String> = names.iter().map(columns).collect();
    assert_eq!(shown, [" app", " latest", "alpine 3.20", " !strange!", "redis 7", " ", "canonical 1"]);

    let before = fs::read_to_string(store.path().join("index.json")).unwrap();
    store.tag(&name("new:1"), &blob).unwrap();
    store.untag(name("new:1")).unwrap();
    let after = fs::read_to_string(store.path().join("index.json")).unwrap();
    let parse = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    assert_eq!(parse(&after), parse(&before));
    assert!(after.contains("1e3"), "numbers stay as they were written");
    store.untag(verbatim("app")).unwrap();
    assert!(failure(store.resolve(name("app"))).is_not_found());
}

/// Case 106: one entry that cannot be read spoils no other.
#[test]
fn a_corrupt_entry_is_an_error_of_its_own() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    two_layers().tag(&store, &name("good")).unwrap();
    let text = fs::read_to_string(store.path().join("index.json")).unwrap();
    let mut index: Value = serde_json::from_str(&text).unwrap();
    let good = index["manifests"][0].take();
    let missing = entry(
        &Descriptor::of(MediaType::OCI_MANIFEST, b"missing"),
        json!({ "org.opencontainers.image.ref.name": "missing" }),
    );
    rewrite_index(
        &store,
        json!([7, { "digest": "sha256:../../etc/passwd", "size": 1, "mediaType": "a/b" }, missing, good]),
    );
    let images: Vec<_> = store.images().unwrap().collect();
    let outcome: Vec<bool> = images.iter().map(Result::is_ok).collect();
    assert_eq!(outcome, [false, false, false, true]);
    assert!(store.image(name("good")).is_ok());
    for broken in ["", "{", "[]", "{\"manifests\": 7}", "\u{0}\u{0}"] {
        fs::write(store.path().join("index.json"), broken).unwrap();
        assert_kind!(failure(store.resolve(name("good"))), ErrorKind::InvalidDocument { .. });
        assert_kind!(
            failure(store.tag(&name("new"), &store.write(MediaType::OCTET_STREAM, TEXT).unwrap())),
            ErrorKind::InvalidDocument { .. }
        );
        assert_eq!(fs::read_to_string(store.path().join("index.json")).unwrap(), broken, "nothing is overwritten");
    }
}

/// Another tool that moves a name knows nothing of our entry for the root.
#[test]
fn a_name_that_another_tool_moved_is_where_it_moved_it() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let app = name("app:1");
    let docker = two_layers().docker().tag(&store, &app).unwrap();
    assert_eq!(store.resolve(&app).unwrap().digest, docker.digest);
    assert_eq!(store.entries().unwrap().count(), 1, "the view is not listed");
    let other = two_layers().label("a", "b").write(&store).unwrap();
    let text = fs::read_to_string(store.path().join("index.json")).unwrap();
    let mut index: Value = serde_json::from_str(&text).unwrap();
    let entries = index["manifests"].as_array_mut().unwrap();
    // As skopeo does it: the annotation moves, the entry stays.
    entries[1]["annotations"].as_object_mut().unwrap().remove("org.opencontainers.image.ref.name");
    entries.push(entry(&other, json!({ "org.opencontainers.image.ref.name": app.to_string() })));
    fs::write(store.path().join("index.json"), index.to_string()).unwrap();
    assert_eq!(store.resolve(&app).unwrap().digest, other.digest);
    let named = store.entries().unwrap().filter(|entry| entry.as_ref().unwrap().0 == Name::Reference(app.clone()));
    assert_eq!(named.count(), 1);
}

/// What umoci does to a name with a view: its changes keep the annotations, its removal takes only what it sees.
#[test]
fn a_view_that_another_tool_changed_or_removed_is_what_it_made_of_it() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let app = name("app:1");
    let root = Fixture::demo().tag(&store, &app).unwrap();
    let other = two_layers().write(&store).unwrap();
    let path = store.path().join("index.json");
    let whole = fs::read_to_string(&path).unwrap();
    let mut changed: Value = serde_json::from_str(&whole).unwrap();
    changed["manifests"][1]["digest"] = json!(other.digest);
    changed["manifests"][1]["size"] = json!(other.size);
    fs::write(&path, changed.to_string()).unwrap();
    assert_eq!(store.resolve(&app).unwrap().digest, other.digest);
    let listed = |store: &Store| store.entries().unwrap().map(|entry| entry.unwrap().0).collect::<Vec<_>>();
    assert_eq!(listed(&store), [Name::Unnamed, Name::Reference(app.clone())]);

    let mut removed: Value = serde_json::from_str(&whole).unwrap();
    removed["manifests"].as_array_mut().unwrap().remove(1);
    fs::write(&path, removed.to_string()).unwrap();
    assert!(failure(store.resolve(&app)).is_not_found());
    assert_eq!(listed(&store), [Name::Unnamed]);

    store.tag(&app, &root).unwrap();
    assert_eq!(store.resolve(&app).unwrap().digest, root.digest);
}

/// One entry has one name: an annotation that is copied along, or a bare tag, is no second one.
#[test]
fn an_entry_has_one_name() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let [one, two] = [&b"1"[..], b"2"].map(|content| store.write(MediaType::OCTET_STREAM, content).unwrap());
    let labels = |containerd: &str, layout: &str| json!({ "io.containerd.image.name": containerd, "org.opencontainers.image.ref.name": layout });
    let (first, copy) = ("docker.io/library/a:1", "docker.io/library/copy:1");
    let redis = "docker.io/library/redis:alpine";
    let entries =
        [entry(&one, labels(first, first)), entry(&one, labels(first, copy)), entry(&two, labels(redis, "alpine"))];
    rewrite_index(&store, json!(entries));
    assert!(failure(store.resolve(name("alpine"))).is_not_found(), "it is redis");
    assert!(failure(store.untag(Name::Verbatim("alpine".to_owned()))).is_not_found());
    store.untag(name("a:1")).unwrap();
    assert!(store.resolve(name("copy:1")).is_ok(), "the copy is another name");
    assert_eq!(store.resolve(name("redis:alpine")).unwrap().digest, two.digest);
}

/// A pull that failed half-way takes no image away that was whole.
#[test]
fn half_an_image_does_not_hide_a_whole_one() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    Fixture::demo().tag(&store, &name("demo")).unwrap();
    let host = store.image(name("demo")).unwrap();
    let layer = host.manifest().layers()[1].clone();
    fs::remove_file(blob_path(&store, &layer)).unwrap();
    let opened = store.image(name("demo")).unwrap();
    assert_ne!(opened.platform(), host.platform());
    assert!(opened.is_complete().unwrap());
}

/// A directory that lost its `oci-layout` keeps its names.
#[test]
fn names_that_are_there_are_not_thrown_away() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    two_layers().tag(&store, &name("app")).unwrap();
    fs::remove_file(store.path().join("oci-layout")).unwrap();
    let mended = Store::open_or_create(store.path()).unwrap();
    assert!(mended.image(name("app")).unwrap().is_complete().unwrap());
}

/// Calls that fail change nothing, not even the spelling of another tool's index.
#[test]
fn failing_calls_change_nothing() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let layout = r#"{"schemaVersion": 2,   "manifests": [ {"bad": 1, "annotations": {"org.opencontainers.image.ref.name": "bad"}} ] }"#;
    fs::write(store.path().join("index.json"), layout).unwrap();
    fs::remove_dir_all(store.path().join("layercake")).unwrap();
    let before = contents(store.path());
    assert_kind!(failure(Store::create(store.path())), ErrorKind::NotALayout { .. });
    assert_eq!(contents(store.path()), before);
    assert!(failure(store.untag(name("missing"))).is_not_found());
    assert_kind!(failure(store.untag(Name::Verbatim("bad".to_owned()))), ErrorKind::InvalidDocument { .. });
    assert_eq!(fs::read_to_string(store.path().join("index.json")).unwrap(), layout);
}

/// Whoever holds the file of facts holds up nobody.
#[test]
fn a_held_lock_on_facts_is_not_waited_for() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    two_layers().tag(&store, &name("app")).unwrap();
    let held = fs::File::create(store.path().join("layercake/facts")).unwrap();
    held.lock().unwrap();
    assert!(store.image(name("app")).unwrap().unpacked_size().unwrap() > 0);
}

/// A list that is all brackets and no image.
#[test]
fn an_endless_list_of_entries_is_refused() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let list = format!("{{\"manifests\":[{}0]}}", "0,".repeat(600_000));
    fs::write(store.path().join("index.json"), list).unwrap();
    assert_kind!(failure(store.resolve(name("app"))), ErrorKind::InvalidDocument { .. });
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

/// A second process that tags at the same moment loses nothing.
#[test]
fn names_given_at_the_same_time_are_all_there() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let blob = store.write(MediaType::OCTET_STREAM, TEXT).unwrap();
    let (writers, each) = (8, 25);
    thread::scope(|scope| {
        for writer in 0..writers {
            let (path, blob) = (store.path(), &blob);
            scope.spawn(move || {
                let store = Store::open(path).unwrap().with_durability(Durability::None);
                for n in 0..each {
                    store.tag(&name(&format!("example.com/{writer}:{n}")), blob).unwrap();
                }
            });
        }
        scope.spawn(|| {
            for _ in 0..200 {
                store.entries().unwrap().for_each(|entry| drop(entry.unwrap()));
            }
        });
    });
    assert_eq!(store.entries().unwrap().count(), writers * each);
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

#[test]
fn an_index_opens_as_the_image_for_the_platform() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let root = Fixture::demo().tag(&store, &name("demo")).unwrap();
    for text in ["linux/amd64", "linux/arm64"] {
        let image = store.image_for(name("demo"), &platform(text)).unwrap();
        assert_eq!(image.platform(), Some(platform(text)));
        assert_eq!(image.root().digest, root.digest);
        assert!(image.is_complete().unwrap());
    }
    let error = failure(store.image_for(name("demo"), &platform("linux/s390x")));
    assert_eq!(
        error.to_string(),
        "image docker.io/library/demo: no matching manifest for linux/s390x in the manifest list entries; \
         there are: linux/amd64, linux/arm64"
    );
}

#[test]
fn without_the_hosts_image_the_one_that_is_there_opens() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    Fixture::demo().tag(&store, &name("demo")).unwrap();
    let host = store.image(name("demo")).unwrap();
    fs::remove_file(blob_path(&store, &host.descriptor())).unwrap();
    let other = store.image(name("demo")).unwrap();
    assert_ne!(other.platform(), host.platform());
    fs::remove_file(blob_path(&store, &other.descriptor())).unwrap();
    assert!(failure(store.image(name("demo"))).is_not_found());
}

/// I9, I21: artifacts, and configurations that do not fit.
#[test]
fn layers_need_a_configuration_that_fits() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let chart = store.write(MediaType::from("application/vnd.example.chart+json"), b"\"no object\"").unwrap();
    let manifest = json!({ "schemaVersion": 2, "config": chart, "layers": [chart] });
    let manifest = store.write(MediaType::OCI_MANIFEST, manifest.to_string().as_bytes()).unwrap();
    let artifact = store.image_at(&manifest).unwrap();
    assert_kind!(failure(artifact.config().cloned()), ErrorKind::UnsupportedMediaType { .. });
    assert_kind!(failure(artifact.layers()), ErrorKind::UnsupportedMediaType { .. });
    assert!(artifact.is_complete().unwrap());

    let config = store.write(MediaType::OCI_CONFIG, br#"{"rootfs":{"type":"layers","diff_ids":[]}}"#).unwrap();
    let manifest = json!({ "schemaVersion": 2, "config": config, "layers": [chart] });
    let manifest = store.write(MediaType::OCI_MANIFEST, manifest.to_string().as_bytes()).unwrap();
    let error = failure(store.image_at(&manifest));
    assert_eq!(
        error.to_string(),
        "invalid configuration: layers from manifest don't match image configuration: 1 layers, 0 diff_ids"
    );
}

fn compressions() -> Vec<Compression> {
    let mut all = vec![Compression::None, Compression::Gzip];
    if cfg!(feature = "zstd") {
        all.push(Compression::Zstd);
    }
    all
}

/// I22: the size is counted, and kept; the content is held to the diff id.
#[test]
fn unpacked_sizes_are_counted_once() {
    let scratch = Scratch::new();
    for compression in compressions() {
        let store = scratch.store(&compression.to_string());
        let app = name("app");
        two_layers().compression(compression).tag(&store, &app).unwrap();
        let image = store.image(&app).unwrap();
        let mut sum = 0;
        for layer in image.layers().unwrap() {
            let mut tar = Vec::new();
            layer.uncompressed().unwrap().read_to_end(&mut tar).unwrap();
            assert_eq!(Digest::sha256(&tar), layer.diff_id());
            assert_eq!(layer.unpacked_size().unwrap(), tar.len() as u64);
            let mut blob = Vec::new();
            layer.compressed().unwrap().read_to_end(&mut blob).unwrap();
            assert_eq!(Digest::sha256(&blob), layer.digest());
            sum += tar.len() as u64;
        }
        assert_eq!(image.unpacked_size().unwrap(), sum);
        let layers = image.layers().unwrap();
        for layer in layers {
            fs::remove_file(blob_path(&store, layer.descriptor())).unwrap();
        }
        let elsewhere = Store::open(store.path()).unwrap().image(&app).unwrap();
        assert_eq!(elsewhere.unpacked_size().unwrap(), sum, "it was kept");
        assert!(failure(elsewhere.layers()).is_not_found());
    }
}

/// A layer in `store` of these bytes, with the diff id of that tar.
fn layer_of(store: &Store, media_type: &str, blob: &[u8], tar: &[u8]) -> layercake::Layer {
    let blob = store.write(MediaType::from(media_type), blob).unwrap();
    let config = json!({ "rootfs": { "type": "layers", "diff_ids": [Digest::sha256(tar)] } });
    let config = store.write(MediaType::OCI_CONFIG, config.to_string().as_bytes()).unwrap();
    let manifest = json!({ "schemaVersion": 2, "config": config, "layers": [blob] });
    let manifest = store.write(MediaType::OCI_MANIFEST, manifest.to_string().as_bytes()).unwrap();
    store.image_at(&manifest).unwrap().layers().unwrap().remove(0)
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(content).unwrap();
    gzip.finish().unwrap()
}

/// L19: several members, zero bytes behind, labels that lie.
#[test]
fn compression_is_found_by_content() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let tar = [b"first half ".repeat(1000), b"second half".repeat(1000)].concat();
    let (first, second) = tar.split_at(11_000);
    let members = [gzip(first), gzip(second)].concat();
    let padded = [members.clone(), vec![0; 100_000]].concat();
    let plain = "application/vnd.oci.image.layer.v1.tar";
    for blob in [&members, &padded, &tar, &gzip(&tar)] {
        for media_type in
            [plain, "application/vnd.oci.image.layer.v1.tar+gzip", "application/vnd.docker.image.rootfs.diff.tar"]
        {
            let layer = layer_of(&store, media_type, blob, &tar);
            assert_eq!(layer.unpacked_size().unwrap(), tar.len() as u64);
        }
    }
    #[cfg(feature = "zstd")]
    {
        let frame = |content: &[u8]| zstd::encode_all(content, 1).unwrap();
        let skippable = [&[0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0][..], b"skip"].concat();
        for blob in [
            [frame(first), frame(second)].concat(),
            [skippable.clone(), frame(first), skippable.clone(), frame(second), skippable].concat(),
        ] {
            let layer = layer_of(&store, plain, &blob, &tar);
            let mut read = Vec::new();
            layer.uncompressed().unwrap().read_to_end(&mut read).unwrap();
            assert_eq!(read, tar);
        }
    }
}

#[test]
fn layers_that_are_not_what_they_say_are_errors() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let tar = b"0123456789".repeat(10_000);
    let whole = gzip(&tar);
    let gzip_type = "application/vnd.oci.image.layer.v1.tar+gzip";
    for (blob, tar) in [
        (whole[..whole.len() / 2].to_vec(), &tar),
        ([&whole[..], b"trailing"].concat(), &tar),
        ([&whole[..], &[0x1f, 0x8b]].concat(), &tar),
        (vec![0x1f, 0x8b], &tar),
    ] {
        let error = failure(layer_of(&store, gzip_type, &blob, tar).unpacked_size());
        assert_kind!(error, ErrorKind::Compression { .. });
    }
    let error = failure(layer_of(&store, gzip_type, &whole, b"another tar").unpacked_size());
    assert_kind!(error, ErrorKind::DigestMismatch { .. });
    let bomb = gzip(&vec![0; 10 << 20]);
    assert_eq!(layer_of(&store, gzip_type, &bomb, &vec![0; 10 << 20]).unpacked_size().unwrap(), 10 << 20);
}

/// P9: what unpacks a thousand times is stopped.
#[cfg(feature = "zstd")]
#[test]
fn a_bomb_is_stopped() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    // Two gigabytes of zeros in some hundred kilobytes.
    let mut bomb = zstd::Encoder::new(Vec::new(), 1).unwrap();
    let zeros = vec![0; 1 << 20];
    for _ in 0..2048 {
        bomb.write_all(&zeros).unwrap();
    }
    let bomb = bomb.finish().unwrap();
    let error = failure(layer_of(&store, "application/vnd.oci.image.layer.v1.tar+zstd", &bomb, b"").unpacked_size());
    assert_kind!(error, ErrorKind::LimitExceeded { .. });
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
