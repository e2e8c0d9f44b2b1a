//! What is collected, and what never is.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::process::Stdio;
use std::thread;
use std::time::Duration;
use std::time::SystemTime;

use layercake::Cancel;
use layercake::Descriptor;
use layercake::Digest;
use layercake::Durability;
use layercake::ErrorKind;
use layercake::MediaType;
use layercake::Store;
use layercake::store::Collected;
use layercake::store::GcOptions;
use layercake::store::UnpackedPolicy;
use layercake::testing::Fixture;
use serde_json::json;

use crate::assert_kind;
use crate::support::Scratch;
use crate::support::blob_path;
use crate::support::contents;
use crate::support::failure;
use crate::support::name;
use crate::support::platform;
use crate::support::tools::example;
use crate::support::tools::installed;
use crate::support::tools::run;
use crate::support::two_layers;

/// Nothing is spared for its age.
pub fn at_once() -> GcOptions {
    GcOptions::new().grace(Duration::ZERO).expiry(Duration::ZERO)
}

fn write(store: &Store, content: &str) -> Descriptor {
    store.write(MediaType::OCTET_STREAM, content.as_bytes()).unwrap()
}

/// Makes a file look as if it had been written so long ago.
pub fn make_older(path: &Path, age: Duration) {
    let time = SystemTime::now() - age;
    fs::File::open(path).unwrap().set_modified(time).unwrap();
}

fn sorted(collected: &Collected) -> Vec<Digest> {
    let mut digests = collected.blobs.clone();
    digests.sort();
    digests
}

fn digests(store: &Store) -> Vec<Digest> {
    let mut digests: Vec<Digest> = store.blobs().unwrap().map(|blob| blob.unwrap().0).collect();
    digests.sort();
    digests
}

/// Case 107: of what nothing leads to, what is leased and what is young stays.
#[test]
fn only_what_nobody_needs_is_collected() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let (old, named, young) = (write(&store, "old"), write(&store, "named"), write(&store, "young"));
    store.tag(&name("named"), &named).unwrap();
    let leased = store.leased().unwrap();
    let held = write(&leased, "leased");
    for blob in [&old, &named, &held] {
        make_older(&blob_path(&store, blob), Duration::from_secs(3601));
    }
    let before = contents(store.path());
    let planned = store.gc_with(&GcOptions::new().dry_run()).unwrap();
    assert_eq!(contents(store.path()), before);
    let collected = store.gc().unwrap();
    assert_eq!(collected, planned);
    assert_eq!((collected.blobs, collected.bytes, collected.young), (vec![old.digest], 3, 1));
    assert!(!store.contains(&old).unwrap());
    for blob in [&named, &young, &held] {
        assert!(store.contains(blob).unwrap());
    }
    drop(leased);
    assert_eq!(sorted(&store.gc_with(&at_once()).unwrap()).len(), 2);
    assert_eq!(digests(&store), [named.digest]);
}

/// Cases 108 and 109: an index keeps what is there of it, and shared layers stay as long as one image has them.
#[test]
fn images_keep_what_they_lead_to() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let demo = Fixture::demo().tag(&store, &name("demo")).unwrap();
    two_layers().docker().tag(&store, &name("docker")).unwrap();
    let all = digests(&store);
    assert_eq!(store.gc_with(&at_once()).unwrap().blobs, []);
    assert_eq!(digests(&store), all, "views too");

    let arm = store.image_at_for(&demo, &platform("linux/arm64")).unwrap();
    let amd = store.image_at_for(&demo, &platform("linux/amd64")).unwrap();
    fs::remove_file(blob_path(&store, &arm.descriptor())).unwrap();
    let collected = store.gc_with(&at_once()).unwrap();
    let mut expected = vec![arm.id(), arm.manifest().layers()[1].digest];
    expected.sort();
    assert_eq!(sorted(&collected), expected, "what only the absent image led to");
    assert!(amd.is_complete().unwrap());

    let other = Fixture::new(platform("linux/amd64")).layer(&[("a", b"a")]).tag(&store, &name("a")).unwrap();
    let shared = Fixture::new(platform("linux/amd64")).layer(&[("a", b"a")]).layer(&[("b", b"b")]);
    shared.tag(&store, &name("b")).unwrap();
    let removed = store.remove(name("b")).unwrap();
    assert_eq!(removed.collected.blobs.len(), 3, "manifest, configuration and one layer");
    assert!(store.image_at(&other).unwrap().is_complete().unwrap());
}

/// A manifest that speaks of a kept one is kept with what it leads to; it does not keep what it speaks of.
#[test]
fn referrers_live_as_long_as_what_they_speak_of() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let root = Fixture::new(platform("linux/amd64")).layer(&[("a", b"a")]).tag(&store, &name("app")).unwrap();
    let refer = |subject: &Descriptor, text: &str| {
        let layer = write(&store, text);
        let config = store.write(MediaType::OCI_EMPTY, b"{}").unwrap();
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MediaType::OCI_MANIFEST, "artifactType": "text/x",
            "config": config, "layers": [layer], "subject": subject,
        });
        store.write(MediaType::OCI_MANIFEST, manifest.to_string().as_bytes()).unwrap()
    };
    let signature = refer(&root, "signature");
    let of_signature = refer(&signature, "signature of the signature");
    let lost = refer(&Descriptor::of(MediaType::OCI_MANIFEST, b"gone"), "of something that is not here");
    assert_eq!(store.gc_with(&at_once()).unwrap().blobs[0], lost.digest, "what leads to others goes first");
    assert!(store.contains(&signature).unwrap() && store.contains(&of_signature).unwrap());
    store.tag(&name("signature"), &of_signature).unwrap();
    store.untag(name("app")).unwrap();
    store.gc_with(&at_once()).unwrap();
    assert!(!store.contains(&root).unwrap() && store.contains(&of_signature).unwrap());
    assert!(!store.contains(&signature).unwrap());
}

/// Documents of unknown types may lead to others.
#[test]
fn unknown_documents_keep_every_digest_in_them() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let blob = write(&store, "of an old artifact");
    let artifact = json!({ "mediaType": "application/vnd.oci.artifact.manifest.v1+json", "blobs": [blob] });
    let media_type = MediaType::from("application/vnd.oci.artifact.manifest.v1+json");
    let root = store.write(media_type, artifact.to_string().as_bytes()).unwrap();
    store.tag(&name("artifact"), &root).unwrap();
    assert_eq!(store.gc_with(&at_once()).unwrap().blobs, []);
}

/// A document of an unknown type keeps what it names, however deep it is nested, in an index as well, and on from there.
#[test]
fn unknown_documents_are_followed_everywhere() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let image = two_layers().tag(&store, &name("image")).unwrap();
    store.untag(name("image")).unwrap();
    let unknown = MediaType::from("application/vnd.example.unknown.v1+json");
    let write = |text: String| store.write(unknown.clone(), text.as_bytes()).unwrap();
    let deep = write(format!("{}\"{}\"{}", "[".repeat(10_000), image.digest, "]".repeat(10_000)));
    let escaped = write(format!("{{\"see\":\"{}\"}}", deep.digest.to_string().replace(':', "\\u003a")));
    let outer = write(format!("see: {}", escaped.digest));
    let index = json!({ "schemaVersion": 2, "mediaType": MediaType::OCI_INDEX, "manifests": [outer] });
    let root = store.write(MediaType::OCI_INDEX, index.to_string().as_bytes()).unwrap();
    store.tag(&name("index"), &root).unwrap();
    assert_eq!(store.gc_with(&at_once()).unwrap().blobs, []);
    assert!(store.image_at(&image).unwrap().is_complete().unwrap());

    let path = blob_path(&store, &outer);
    fs::remove_file(&path).unwrap();
    fs::write(&path, "x".repeat(outer.size as usize)).unwrap();
    let error = failure(store.gc_with(&at_once()));
    assert!(error.to_string().contains(&format!("document {}", outer.digest)), "{error}");
    assert!(store.contains(&image).unwrap());
    store.untag(name("index")).unwrap();
    assert_eq!(store.gc_with(&at_once()).unwrap().blobs.len(), 8);
}

/// Cases 106 and 110: who cannot know what is needed deletes nothing, and says why.
#[test]
fn what_cannot_be_read_stops_all() {
    let scratch = Scratch::new();
    let fresh = |n: u32| {
        let store = scratch.store(&format!("store-{n}"));
        let root = two_layers().tag(&store, &name("app")).unwrap();
        write(&store, "garbage");
        fs::create_dir_all(store.path().join("layercake/checkouts")).unwrap();
        (store, root)
    };
    type Damage<'a> = &'a dyn Fn(&Store, &Descriptor);
    let damage: [(&str, Damage<'_>); 7] = [
        ("expected sha256:", &|store, root| {
            let path = blob_path(store, root);
            let text = fs::read_to_string(&path).unwrap().replace("schemaVersion", "SchemaVersion");
            fs::remove_file(&path).unwrap();
            fs::write(path, text).unwrap();
        }),
        ("image docker.io/library/app:latest: document sha256:", &|store, root| {
            fs::remove_file(blob_path(store, root)).unwrap();
        }),
        ("invalid index.json", &|store, _| fs::write(store.path().join("index.json"), "{\"manifests\":[").unwrap()),
        ("invalid index.json", &|store, _| {
            fs::write(store.path().join("index.json"), r#"{"manifests":[{"digest":"md5:x"}]}"#).unwrap();
        }),
        ("understand the lease", &|store, _| {
            fs::create_dir_all(store.path().join("layercake/leases")).unwrap();
            fs::write(store.path().join("layercake/leases/0123456789abcdef"), "\0\0\0\n").unwrap();
        }),
        ("invalid record of a working copy", &|store, _| {
            fs::write(store.path().join(format!("layercake/checkouts/{}.json", "0".repeat(32))), "{").unwrap();
        }),
        ("it has the id", &|store, root| {
            let record = json!({
                "id": "1", "dir": "/x", "root": root, "manifest": root, "owners": "preserve", "chains": [],
            });
            let path = store.path().join(format!("layercake/checkouts/{}.json", "0".repeat(32)));
            fs::write(path, record.to_string()).unwrap();
        }),
    ];
    for (n, (text, damage)) in (0..).zip(damage) {
        let (store, root) = fresh(n);
        damage(&store, &root);
        let before = contents(store.path());
        let error = failure(store.gc_with(&at_once().expiry(Duration::from_secs(60))));
        assert!(error.to_string().contains(text), "{text}: {error}");
        assert_eq!(contents(store.path()), before, "{text}");
    }
}

/// Case 103: files with other names are nobody's garbage.
#[test]
fn strange_files_are_never_collected() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    two_layers().tag(&store, &name("app")).unwrap();
    let strange = [
        "note",
        "blobs/note",
        "blobs/sha256/note",
        "blobs/md5/note",
        "layercake/note",
        "layercake/partial/note",
        "layercake/partial/new-1",
        "layercake/leases/note",
        "layercake/checkouts/note.json",
        "layercake/unpacked/preserve/note",
        "layercake/unpacked/note",
    ];
    for path in strange.map(|path| store.path().join(path)) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "mine").unwrap();
        make_older(&path, Duration::from_secs(1 << 30));
    }
    let before = contents(store.path());
    store.gc_with(&at_once().unpacked(UnpackedPolicy::Unused)).unwrap();
    assert_eq!(contents(store.path()), before);
    for path in strange {
        assert!(store.path().join(path).exists(), "{path}");
    }
}

/// Case 133: whatever the clock says, what is live stays, and what is from the future is young.
#[test]
fn jumps_of_the_clock_cost_no_live_blob() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let named = two_layers().tag(&store, &name("app")).unwrap();
    let leased = store.leased().unwrap();
    let held = write(&leased, "leased");
    let ahead = write(&store, "from tomorrow");
    let file = fs::File::open(blob_path(&store, &ahead)).unwrap();
    file.set_modified(SystemTime::now() + Duration::from_secs(86_400)).unwrap();
    let years = Duration::from_secs(10 * 366 * 86_400);
    let lease = fs::read_dir(store.path().join("layercake/leases")).unwrap().next().unwrap().unwrap().path();
    for path in [blob_path(&store, &held), blob_path(&store, &named), lease] {
        make_older(&path, years);
    }
    assert_eq!(store.gc_with(&at_once()).unwrap().blobs, []);
    assert!(leased.contains(&held).unwrap() && store.contains(&ahead).unwrap());
}

/// Unfinished downloads go when nobody has them in hand and their time is over.
#[test]
fn partial_downloads_age_out() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let (left, in_hand) =
        (Descriptor::of(MediaType::OCTET_STREAM, b"12345"), Descriptor::of(MediaType::OCTET_STREAM, b"6"));
    store.resume(&left).unwrap().append(b"123").unwrap();
    let mut writer = store.resume(&in_hand).unwrap();
    writer.append(b"6").unwrap();
    assert_eq!(store.gc().unwrap(), Collected::default());
    let collected = store.gc_with(&at_once()).unwrap();
    assert_eq!((collected.partials, collected.bytes), (1, 3));
    writer.commit_as(&in_hand).unwrap();
    assert_eq!(store.resume(&left).unwrap().written(), 0);
}

/// A blob is young when it comes, whenever its bytes did; and it is young again when somebody writes it again.
#[test]
fn what_comes_is_young() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let blob = Descriptor::of(MediaType::OCTET_STREAM, b"123");
    store.resume(&blob).unwrap().append(b"123").unwrap();
    let partial = store.path().join(format!("layercake/partial/sha256-{}", blob.digest.hex()));
    make_older(&partial, Duration::from_secs(3601));
    store.resume(&blob).unwrap().commit_as(&blob).unwrap();
    assert_eq!(store.gc().unwrap().young, 1);
    make_older(&blob_path(&store, &blob), Duration::from_secs(3601));
    assert_eq!(store.gc_with(&GcOptions::new().dry_run()).unwrap().blobs, [blob.digest]);
    write(&store, "123");
    assert_eq!(store.gc().unwrap().young, 1);
}

/// Case 128: what a process that was killed had in hand is honoured until its lease expires, and goes then.
#[test]
fn the_lease_of_a_killed_process_expires() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let blob = Descriptor::of(MediaType::OCTET_STREAM, b"from standard input");
    let mut child = Command::new(std::env::current_exe().unwrap());
    child
        .args(["gc::helper_that_waits_to_be_killed", "--exact", "--ignored"])
        .env("LAYERCAKE_TEST_STORE", store.path());
    let mut child = child.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    while !store.contains(&blob).unwrap() || fs::read_dir(store.path().join("layercake/partial")).unwrap().count() == 0
    {
        thread::sleep(Duration::from_millis(5));
    }
    let short = GcOptions::new().grace(Duration::ZERO);
    assert_eq!(store.gc_with(&at_once()).unwrap(), Collected::default(), "it lives");
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(store.gc_with(&short).unwrap(), Collected::default(), "it may come again");
    let collected = store.gc_with(&at_once()).unwrap();
    assert_eq!((collected.blobs, collected.partials, collected.leases), (vec![blob.digest], 1, 1));
    for folder in ["leases", "partial"] {
        assert_eq!(fs::read_dir(store.path().join("layercake").join(folder)).unwrap().count(), 0);
    }
}

#[test]
#[ignore = "run by another test, which kills it"]
fn helper_that_waits_to_be_killed() {
    let Some(path) = std::env::var_os("LAYERCAKE_TEST_STORE") else { return };
    let store = Store::open(path).unwrap().leased().unwrap();
    let mut writer = store.resume(&Descriptor::of(MediaType::OCTET_STREAM, b"more")).unwrap();
    writer.append(b"mo").unwrap();
    store.write(MediaType::OCTET_STREAM, b"from standard input").unwrap();
    thread::sleep(Duration::from_secs(60));
}

/// What a killed process did not write to its end in its lease, it did not rely on.
#[test]
fn a_torn_line_of_a_lease_pins_nothing() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let (whole, torn) = (write(&store, "whole"), write(&store, "torn"));
    let leases = store.path().join("layercake/leases");
    fs::create_dir_all(&leases).unwrap();
    fs::write(leases.join("0123456789abcdef"), format!("{} 5\n{}", whole.digest, torn.digest)).unwrap();
    let collected = store.gc_with(&GcOptions::new().grace(Duration::ZERO)).unwrap();
    assert_eq!(collected.blobs, [torn.digest]);
}

#[test]
fn gc_can_be_cancelled() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    write(&store, "garbage");
    let cancel = Cancel::new();
    cancel.cancel();
    assert_kind!(failure(store.gc_with(&at_once().cancel(&cancel))), ErrorKind::Cancelled);
}

/// Writes the record of a working copy that uses these unpacked layers.
fn record_checkout(store: &Store, dir: &Path, root: &Descriptor, chains: &[Digest]) {
    let id = format!("{:032x}", fastrand::u128(..));
    let image = store.image_at(root).unwrap();
    let record = json!({
        "id": id, "dir": dir, "root": root, "manifest": image.descriptor(), "owners": "preserve", "chains": chains,
    });
    let records = store.path().join("layercake/checkouts");
    fs::create_dir_all(&records).unwrap();
    fs::write(records.join(format!("{id}.json")), record.to_string()).unwrap();
}

/// An unpacked layer that takes so much disk space, as its record says.
pub fn unpack(store: &Store, owners: &str, chain: Digest, bytes: u64) -> std::path::PathBuf {
    let folder = store.path().join("layercake/unpacked").join(owners);
    let tree = folder.join(chain.hex().to_string());
    fs::create_dir_all(tree.join("etc")).unwrap();
    fs::write(tree.join("etc/motd"), "hello\n").unwrap();
    let record = json!({ "diffId": chain, "chainId": chain, "entries": 2, "bytes": 0, "disk": bytes });
    fs::write(folder.join(format!("{}.json", chain.hex())), record.to_string()).unwrap();
    tree
}

/// Unpacked layers go with their images, unless somebody uses them.
#[test]
fn unpacked_layers_go_when_nobody_uses_them() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let root = two_layers().tag(&store, &name("app")).unwrap();
    let chains = store.image_at(&root).unwrap().config().unwrap().chain_ids().unwrap();
    let trees = [unpack(&store, "preserve", chains[0], 6), unpack(&store, "preserve", chains[1], 6)];
    let [foreign, used, locked] = ["foreign", "used", "locked"].map(|text| Digest::sha256(text.as_bytes()));
    let others = [foreign, used, locked].map(|chain| unpack(&store, "preserve", chain, 6));
    record_checkout(&store, &scratch.path("work"), &root, &[used]);
    let record = fs::File::open(others[2].with_extension("json")).unwrap();
    record.lock_shared().unwrap();
    let unfinished = unpack(&store, "preserve", Digest::sha256(b"unfinished"), 6);
    fs::remove_file(unfinished.with_extension("json")).unwrap();
    let making = unpack(&store, "preserve", Digest::sha256(b"being made"), 6);
    fs::remove_file(making.with_extension("json")).unwrap();
    let folder = trees[0].parent().unwrap();
    let maker = fs::File::open(folder).unwrap();
    maker.lock_shared().unwrap();
    // One that a killed process left, and one that only has such a name.
    let abandoned = folder.join(format!(".layercake-{:016x}-{:032x}", 1, 2));
    let lookalike = folder.join(format!(".layercake-{:016x}-{:032x}", 1, 3));
    for hidden in [&abandoned, &lookalike] {
        fs::create_dir_all(hidden.join("tree")).unwrap();
        fs::set_permissions(hidden, fs::Permissions::from_mode(0o700)).unwrap();
    }
    fs::write(abandoned.join("layercake-staging"), "").unwrap();

    // While somebody makes one, none goes.
    assert_eq!(store.gc().unwrap().unpacked, 0);
    assert!([&others[0], &unfinished, &making].iter().all(|tree| tree.join("etc/motd").exists()));
    drop(maker);
    let planned = store.gc_with(&GcOptions::new().dry_run()).unwrap();
    assert_eq!((planned.unpacked, planned.bytes), (3, 6));
    let collected = store.gc().unwrap();
    assert_eq!((collected.unpacked, collected.bytes), (3, 6));
    assert!(!others[0].exists() && !others[0].with_extension("json").exists());
    assert!(!unfinished.exists() && !abandoned.exists() && lookalike.exists());
    assert!([&trees[0], &trees[1], &others[1], &others[2]].iter().all(|tree| tree.join("etc/motd").exists()));
    assert_eq!(store.gc().unwrap().unpacked, 0);

    assert_eq!(store.gc_with(&GcOptions::new().unpacked(UnpackedPolicy::Keep)).unwrap().unpacked, 0);
    drop(record);
    let all = GcOptions::new().unpacked(UnpackedPolicy::Unused);
    assert_eq!(store.gc_with(&all).unwrap().unpacked, 3);
    assert!(others[1].exists() && !trees[0].exists() && !making.exists());
}

/// Whoever finds a blob there under a lease keeps it, and whoever names a root that is going gets it whole or not at all.
#[test]
fn writers_and_gc_do_not_lose_each_others_blobs() {
    let scratch = Scratch::new();
    let path = scratch.store("store").path().to_owned();
    let open = || Store::open(&path).unwrap().with_durability(Durability::None);
    let image = |n: usize| {
        let shared = [("shared", &b"by all"[..])];
        Fixture::new(platform("linux/amd64")).layer(&shared).layer(&[("own", &[n as u8])]).label("n", &n.to_string())
    };
    let done = std::sync::atomic::AtomicBool::new(false);
    let rounds = std::sync::atomic::AtomicUsize::new(0);
    thread::scope(|scope| {
        let collector = scope.spawn(|| {
            let mut collected = 0;
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                collected += open().gc_with(&at_once()).unwrap().blobs.len();
            }
            collected
        });
        let writers: Vec<_> = (0..3)
            .map(|writer: usize| {
                let (open, image, rounds) = (&open, &image, &rounds);
                scope.spawn(move || {
                    for round in 0..60 {
                        let number = (writer + round) % 4;
                        let app = name(&format!("app:{writer}"));
                        let leased = open().leased().unwrap();
                        let root = image(number).tag(&leased, &app).unwrap();
                        drop(leased);
                        let found = open().image_at(&root).unwrap();
                        assert!(found.is_complete().unwrap());
                        // Without a lease, naming what may be going: whole, or not found.
                        open().untag(&app).unwrap();
                        match open().tag(&app, &root) {
                            Ok(_) => assert!(open().image_at(&root).unwrap().is_complete().unwrap(), "half an image"),
                            Err(error) => assert!(error.is_not_found(), "{error}"),
                        }
                        rounds.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    }
                })
            })
            .collect();
        let ended: Vec<_> = writers.into_iter().map(thread::ScopedJoinHandle::join).collect();
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(collector.join().unwrap() > 10, "gc had something to do");
        ended.into_iter().for_each(|ended| ended.unwrap());
    });
    assert_eq!(rounds.into_inner(), 180);
}

/// P8: names that were changed a moment ago may be changed again within the same tick of the file system's clock, and
/// the file looks the same: they are read again before anything is deleted. Those that were left alone are read once.
#[test]
fn names_that_just_changed_are_read_again_before_deleting() {
    if !installed(&["strace"]) {
        return;
    }
    let scratch = Scratch::new();
    let store = Store::create(scratch.path("store")).unwrap();
    let root = Fixture::demo().tag(&store, &name("kept")).unwrap();
    let readings = || {
        store.write(MediaType::OCTET_STREAM, b"garbage").unwrap();
        let (log, gc) = (scratch.path("log"), example("store"));
        let mut strace = Command::new("strace");
        strace.args(["-f", "-qq", "-e", "trace=openat", "-o"]).arg(&log).arg(gc.get_program());
        run(strace.arg("--store").arg(store.path()).args(["gc", "--now"])).ok();
        fs::read_to_string(log).unwrap().lines().filter(|line| line.contains("\"index.json\"")).count()
    };
    // On a busy machine a moment may be over before it is looked at.
    let is_read_again = (0..5).any(|n| {
        store.tag(&name(&format!("kept:{n}")), &root).unwrap();
        readings() == 2
    });
    assert!(is_read_again);
    thread::sleep(Duration::from_secs(5));
    assert_eq!(readings(), 1);
}
