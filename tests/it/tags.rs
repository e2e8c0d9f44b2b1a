//! Names in a store: given, moved, taken, and shared with other tools.

use std::fs;
use std::thread;

use layercake::Descriptor;
use layercake::Digest;
use layercake::Durability;
use layercake::ErrorKind;
use layercake::MediaType;
use layercake::Store;
use layercake::store::Name;
use layercake::store::PreviousValue;
use layercake::testing::Fixture;
use serde_json::Value;
use serde_json::json;

use crate::assert_kind;
use crate::support::Scratch;
use crate::support::contents;
use crate::support::failure;
use crate::support::name;
use crate::support::two_layers;

const TEXT: &[u8] = b"hello\n";

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

/// P7: a change that depends on what a name means takes place, or says what it means; of many that expect the same, one.
#[test]
fn names_are_changed_on_condition() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let [one, two] = [&b"1"[..], b"2"].map(|content| store.write(MediaType::OCTET_STREAM, content).unwrap());
    let app = name("example.com/app:1");
    let text = "example.com/app:1 was expected to mean";
    let refused = |error: layercake::Error, meaning: [Option<Digest>; 2]| {
        assert_kind!(error, ErrorKind::NameMoved { expected, found, .. } if [*expected, *found] == meaning);
        assert!(error.to_string().contains(text), "{error}");
    };
    refused(failure(store.tag_if(&app, &one, PreviousValue::Is(two.digest))), [Some(two.digest), None]);
    assert_eq!(store.tag_if(&app, &one, PreviousValue::Absent).unwrap(), None);
    refused(failure(store.tag_if(&app, &two, PreviousValue::Absent)), [None, Some(one.digest)]);
    refused(failure(store.untag_if(&app, PreviousValue::Is(two.digest))), [Some(two.digest), Some(one.digest)]);
    assert_eq!(store.resolve(&app).unwrap().digest, one.digest);
    assert_eq!(store.untag_if(&app, PreviousValue::Is(one.digest)).unwrap().digest, one.digest);

    let won = std::sync::atomic::AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let store = Store::open(store.path()).unwrap().with_durability(Durability::None);
                match store.tag_if(&app, &two, PreviousValue::Absent) {
                    Ok(_) => drop(won.fetch_add(1, std::sync::atomic::Ordering::Relaxed)),
                    Err(error) => assert_kind!(error, ErrorKind::NameMoved { .. }),
                }
            });
        }
    });
    assert_eq!(won.into_inner(), 1);
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
    assert_eq!(listed(&store).iter().filter(|name| **name != Name::Unnamed).count(), 1);
}

/// What another tool took from an entry does not come back to it.
#[test]
fn a_lost_name_stays_lost() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let app = name("app:1");
    let [old, new] = ["old", "new"].map(|label| two_layers().label("n", label).write(&store).unwrap());
    let moved = || {
        let first = json!({ "io.containerd.image.name": app.to_string() });
        let second = json!({ "org.opencontainers.image.ref.name": app.to_string() });
        rewrite_index(&store, json!([entry(&old, first), entry(&new, second)]));
        assert_eq!(store.resolve(&app).unwrap().digest, new.digest);
    };
    moved();
    assert_eq!(store.untag(&app).unwrap().digest, new.digest);
    assert!(failure(store.resolve(&app)).is_not_found(), "the old one does not have it again");
    moved();
    let root = Fixture::demo().tag(&store, &app).unwrap();
    assert_eq!(store.resolve(&app).unwrap().digest, root.digest);
    assert_eq!(store.entries().unwrap().count(), 2);
}

/// umoci copies all annotations to the bare tag that it makes.
#[test]
fn a_bare_tag_of_another_tool_is_its_own_name() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let app = name("app:1");
    let blob = store.write(MediaType::OCTET_STREAM, TEXT).unwrap();
    store.tag(&app, &blob).unwrap();
    let path = store.path().join("index.json");
    let mut index: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    let mut copy = index["manifests"][0].clone();
    copy["annotations"]["org.opencontainers.image.ref.name"] = json!("backup");
    index["manifests"].as_array_mut().unwrap().insert(0, copy);
    fs::write(&path, index.to_string()).unwrap();
    store.untag(&app).unwrap();
    assert!(failure(store.resolve(&app)).is_not_found());
    assert_eq!(store.resolve(Name::Verbatim("backup".to_owned())).unwrap().digest, blob.digest);
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

/// A list that is all brackets and no image.
#[test]
fn an_endless_list_of_entries_is_refused() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let list = format!("{{\"manifests\":[{}0]}}", "0,".repeat(600_000));
    fs::write(store.path().join("index.json"), list).unwrap();
    assert_kind!(failure(store.resolve(name("app"))), ErrorKind::InvalidDocument { .. });
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

/// P7: what is known of the names is forgotten when anybody changes them, in whatever way.
#[test]
fn names_that_are_known_are_seen_to_change() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let [one, two] = [b"1", b"2"].map(|content| store.write(layercake::MediaType::OCTET_STREAM, content).unwrap());
    let image = name("example.com/app:1");
    store.tag(&image, &one).unwrap();
    let index = scratch.path("store/index.json");
    let known = || {
        // Only what was left alone for a while is believed the next time.
        std::thread::sleep(std::time::Duration::from_millis(4100));
        for _ in 0..2 {
            store.resolve(&image).unwrap();
        }
        assert!(store.resolve(name("example.com/other:1")).unwrap_err().is_not_found());
    };
    known();
    assert_eq!(store.resolve(&image).unwrap().digest, one.digest);
    layercake::Store::open(scratch.path("store")).unwrap().tag(&image, &two).unwrap();
    assert_eq!(store.resolve(&image).unwrap().digest, two.digest);
    known();
    // In place, of the same size, and with its old time.
    let before = std::fs::metadata(&index).unwrap().modified().unwrap();
    let text = std::fs::read_to_string(&index).unwrap();
    let file = std::fs::File::options().write(true).open(&index).unwrap();
    let changed = text.replace(&two.digest.to_string(), &one.digest.to_string());
    std::io::Write::write_all(&mut &file, changed.as_bytes()).unwrap();
    file.set_modified(before).unwrap();
    assert_eq!(store.resolve(&image).unwrap().digest, one.digest);
    let by_digest = image.without_tag().with_digest(one.digest);
    known();
    assert_eq!(store.resolve(&by_digest).unwrap().digest, one.digest);
}

/// P13: an entry that Go would read otherwise is an error of its own, and hides no other; an index with two readings is
/// refused.
#[test]
fn ambiguous_entries_and_indexes_are_refused() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    two_layers().tag(&store, &name("good")).unwrap();
    let path = store.path().join("index.json");
    let text = fs::read_to_string(&path).unwrap();
    let index: Value = serde_json::from_str(&text).unwrap();
    let good = index["manifests"][0].clone();
    let mut bad =
        entry(&Descriptor::of(MediaType::OCI_MANIFEST, b"x"), json!({ "org.opencontainers.image.ref.name": "bad" }));
    bad["Digest"] = json!("sha256:0");
    rewrite_index(&store, json!([bad, good]));
    let outcome: Vec<bool> = store.entries().unwrap().map(|entry| entry.is_ok()).collect();
    assert_eq!(outcome, [false, true]);
    assert!(store.image(name("good")).is_ok());
    assert!(!store.check().unwrap().is_clean());
    for broken in [
        text.replacen("\"manifests\"", "\"manifests\":[],\"Manifests\"", 1),
        text.replacen("\"manifests\"", "\"manifests\":[],\"manifests\"", 1),
        text.replacen("\"manifests\"", "\"annotations\":{\"a\":\"\",\"a\":\"\"},\"manifests\"", 1),
    ] {
        fs::write(&path, &broken).unwrap();
        assert_kind!(failure(store.resolve(name("good"))), ErrorKind::InvalidDocument { .. });
        fs::write(&path, &text).unwrap();
    }
}
