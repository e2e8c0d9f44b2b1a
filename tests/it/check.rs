//! What a check finds, and what a repair leaves.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::sync::Mutex;

use layercake::Cancel;
use layercake::Descriptor;
use layercake::Digest;
use layercake::ErrorKind;
use layercake::Event;
use layercake::MediaType;
use layercake::Store;
use layercake::store::CheckOptions;
use layercake::store::Name;
use layercake::store::Problem;
use layercake::testing::Fixture;
use serde_json::json;

use crate::assert_kind;
use crate::gc::at_once;
use crate::gc::unpack;
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

#[track_caller]
pub fn assert_clean(store: &Store) {
    let checked = store.check().unwrap();
    assert_eq!(checked.problems, []);
}

fn overwrite(store: &Store, blob: &Descriptor, content: &[u8]) {
    let path = blob_path(store, blob);
    fs::remove_file(&path).unwrap();
    fs::write(&path, content).unwrap();
}

fn image(text: &str) -> Fixture {
    Fixture::new(platform("linux/amd64")).layer(&[("file", text.as_bytes())]).label("text", text)
}

/// Case 111: each damage once, by kind and digest.
#[test]
fn each_damage_is_reported_once() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let roots: Vec<Descriptor> =
        ["flip", "cut", "grown", "gone", "swap"].map(|text| image(text).tag(&store, &name(text)).unwrap()).into();
    Fixture::demo().tag(&store, &name("demo")).unwrap();
    two_layers().docker().tag(&store, &name("docker")).unwrap();
    assert_clean(&store);
    let layer = |at: usize| store.image_at(&roots[at]).unwrap().manifest().layers()[0].clone();
    let [flip, cut, grown, gone, swap] = [0, 1, 2, 3, 4].map(layer);
    let config = store.image_at(&roots[4]).unwrap().manifest().config().clone();
    let read = |blob: &Descriptor| store.read(blob).unwrap();
    let (swapped, config_bytes) = (read(&swap), read(&config));
    let mut flipped = read(&flip);
    flipped[3] ^= 1;
    overwrite(&store, &flip, &flipped);
    overwrite(&store, &cut, b"cut");
    overwrite(&store, &grown, &[read(&grown), vec![0]].concat());
    fs::remove_file(blob_path(&store, &gone)).unwrap();
    overwrite(&store, &swap, &config_bytes);
    overwrite(&store, &config, &swapped);
    fs::write(store.path().join("blobs/sha256/note"), "mine").unwrap();
    fs::create_dir(store.path().join(format!("blobs/sha256/{}", "0".repeat(64)))).unwrap();
    let loose = image("loose").tag(&store, &name("loose")).unwrap();
    fs::set_permissions(blob_path(&store, &loose), fs::Permissions::from_mode(0o646)).unwrap();
    let nothing = store.write(MediaType::OCI_MANIFEST, b"{\"schemaVersion\":2}").unwrap();
    store.tag(&name("nothing"), &nothing).unwrap();
    fs::remove_file(blob_path(&store, &nothing)).unwrap();

    let wrong = |blob: &Descriptor, found: u64| {
        Problem::WrongSize { digest: blob.digest, expected: blob.size, found }.to_string()
    };
    let mut expected = vec![
        Problem::Corrupt { digest: flip.digest, found: Digest::sha256(&flipped) }.to_string(),
        wrong(&cut, 3),
        wrong(&grown, grown.size + 1),
        wrong(&swap, config.size),
        wrong(&config, swap.size),
        Problem::Missing { digest: gone.digest, name: Name::from(name("gone:latest")) }.to_string(),
        Problem::Dangling { name: Name::from(name("nothing:latest")), digest: nothing.digest }.to_string(),
        "stray: blobs/sha256/note".to_owned(),
        format!("stray: blobs/sha256/{}", "0".repeat(64)),
        format!("writable for others: blobs/sha256/{} (0646)", loose.digest.hex()),
    ];
    expected.sort();
    let before = contents(store.path());
    let mut found: Vec<String> = store.check().unwrap().problems.iter().map(Problem::to_string).collect();
    found.sort();
    assert_eq!(found, expected);
    assert_eq!(contents(store.path()), before, "a check changes nothing");

    let repaired = store.repair().unwrap();
    assert_eq!(repaired.found.len(), expected.len());
    let mut remaining: Vec<Digest> = repaired
        .remaining
        .iter()
        .map(|problem| match problem {
            Problem::Missing { digest, .. } | Problem::Dangling { digest, .. } => *digest,
            other => panic!("{other}"),
        })
        .collect();
    remaining.sort();
    let mut lost = [&flip, &cut, &grown, &gone, &nothing, &swap, &config].map(|blob| blob.digest);
    lost.sort();
    assert_eq!(remaining, lost);
    assert_eq!(repaired.quarantined.len(), 7);
    for (_, to) in &repaired.quarantined {
        assert!(store.path().join(to).symlink_metadata().is_ok(), "{to}");
    }
    assert_eq!(blob_path(&store, &loose).metadata().unwrap().permissions().mode() & 0o777, 0o400);
}

/// Two blobs of one size that changed places: each has the other's name, and gets its own.
#[test]
fn misnamed_blobs_get_their_names() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let [one, two] = ["1", "2"].map(|text| store.write(MediaType::OCTET_STREAM, text.as_bytes()).unwrap());
    store.tag(&name("one"), &one).unwrap();
    store.tag(&name("two"), &two).unwrap();
    overwrite(&store, &one, b"2");
    overwrite(&store, &two, b"1");
    let mut expected = vec![
        Problem::Misnamed { digest: one.digest, found: two.digest },
        Problem::Misnamed { digest: two.digest, found: one.digest },
    ];
    expected.sort_by_key(|problem| problem.to_string());
    let repaired = store.repair().unwrap();
    assert_eq!(repaired.found, expected);
    assert_eq!((repaired.remaining, repaired.quarantined, repaired.renamed.len()), (vec![], vec![], 2));
    assert_eq!((store.read(&one).unwrap(), store.read(&two).unwrap()), (b"1".to_vec(), b"2".to_vec()));
}

/// P7: whoever pulls waits for the lock on pins for a minute, and a large blob takes longer to read: a repair reads
/// none while it holds that.
#[test]
fn others_need_not_wait_while_a_repair_reads() {
    if !installed(&["strace"]) {
        return;
    }
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let blob = store.write(MediaType::OCTET_STREAM, &[7; 100_000]).unwrap();
    overwrite(&store, &blob, &[8; 100_000]);
    let (log, repair) = (scratch.path("log"), example("store"));
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-y", "-e", "trace=read,flock,close,renameat", "-o"]).arg(&log);
    let ran = run(strace.arg(repair.get_program()).args(["repair", "--store"]).arg(store.path()));
    let log = fs::read_to_string(log).unwrap();
    let (mut turns, mut is_held) = (0, false);
    for line in log.lines() {
        if line.contains("/layercake/leases>, LOCK_EX") && line.ends_with("= 0") {
            (turns, is_held) = (turns + 1, true);
        } else if line.contains("close(") && line.contains("/layercake/leases>") {
            is_held = false;
        }
        let is_blob = line.contains("/blobs/") || line.contains("/quarantine/");
        assert!(!(is_held && line.contains("read(") && is_blob), "{line}\n{log}");
    }
    assert!(turns > 0, "{ran:?}\n{log}");
    assert_clean(&store);
}

/// A damaged `index.json` is made anew: names as they were a change ago, and nothing of what is there is lost.
#[test]
fn a_damaged_index_is_made_anew() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let app = image("app").tag(&store, &name("app")).unwrap();
    let demo = Fixture::demo().tag(&store, &name("demo")).unwrap();
    let last = image("last").tag(&store, &name("last")).unwrap();
    for damage in ["", "{\"manifests\": [{]", "\u{0}\u{0}\u{0}"] {
        fs::write(store.path().join("index.json"), damage).unwrap();
        assert!(matches!(&store.check().unwrap().problems[..], [Problem::Names { .. }]), "{damage:?}");
        let repaired = store.repair().unwrap();
        assert_eq!(repaired.remaining, []);
        let (from, to) = &repaired.quarantined[0];
        assert_eq!(
            (from.as_str(), fs::read_to_string(store.path().join(to)).unwrap().as_str()),
            ("index.json", damage)
        );
        let called = |text: &str| Name::from(name(text));
        assert_eq!(repaired.names, [called("app:latest"), called("demo:latest")]);
        let entries: Vec<_> = store.entries().unwrap().map(Result::unwrap).collect();
        let entries: Vec<_> = entries.iter().map(|(name, root)| (name.clone(), root.digest)).collect();
        let expected =
            [(called("app:latest"), app.digest), (called("demo:latest"), demo.digest), (Name::Unnamed, last.digest)];
        assert_eq!(entries, expected);
        assert_eq!(store.gc_with(&at_once()).unwrap().blobs, []);
    }
    // Without what was kept, nobody knows a name.
    fs::remove_file(store.path().join("layercake/index.json.old")).unwrap();
    fs::write(store.path().join("index.json"), "").unwrap();
    assert_eq!(store.repair().unwrap().names, []);
    assert_eq!(store.entries().unwrap().count(), 3, "the view is one of its index's images");
    assert_clean(&store);
}

/// Of an index that can be read, an entry that cannot does not cost the others.
#[test]
fn a_damaged_entry_costs_no_other() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let app = image("app").tag(&store, &name("app")).unwrap();
    let path = store.path().join("index.json");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("\"manifests\":[", "\"manifests\":[{\"digest\":7},")).unwrap();
    assert!(matches!(&store.check().unwrap().problems[..], [Problem::Entry { .. }]));
    assert_eq!(store.repair().unwrap().remaining, []);
    assert_eq!(store.resolve(name("app")).unwrap().digest, app.digest);
    assert_eq!(store.entries().unwrap().count(), 1);
}

/// Unpacked layers and their records belong together.
#[test]
fn unpacked_layers_without_record_are_found() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let [whole, bare, hollow, other] = ["1", "2", "3", "4"].map(|text| Digest::sha256(text.as_bytes()));
    let tree = unpack(&store, "preserve", whole, 1);
    let record = |chain| unpack(&store, "user-1000", chain, 1).with_extension("json");
    fs::remove_file(record(bare)).unwrap();
    fs::remove_dir_all(record(hollow).with_extension("")).unwrap();
    fs::write(record(other), json!({ "chainId": whole, "diffId": whole, "bytes": 1 }).to_string()).unwrap();
    let path = |chain: Digest| format!("layercake/unpacked/user-1000/{}", chain.hex());
    let mut expected = vec![
        Problem::TreeMissing { path: path(hollow) },
        Problem::TreeMissing { path: path(other) },
        Problem::TreeUnrecorded { path: path(bare) },
    ];
    let mut found = store.check().unwrap().problems;
    for problems in [&mut expected, &mut found] {
        problems.sort_by_key(Problem::to_string);
    }
    assert_eq!(found, expected);
    assert_eq!(store.repair().unwrap().remaining, []);
    assert!(tree.join("etc/motd").exists() && !store.path().join(path(bare)).exists());
}

#[test]
fn progress_is_told_and_a_check_can_be_cancelled() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let blob = store.write(MediaType::OCTET_STREAM, &vec![7; 9 << 20]).unwrap();
    store.write(MediaType::OCTET_STREAM, b"small").unwrap();
    let seen = Mutex::new(Vec::new());
    let observer = |event: &Event<'_>| {
        if let Event::Checking { bytes, total } = event {
            seen.lock().unwrap().push((*bytes, *total));
        }
    };
    let checked = store.check_with(&CheckOptions::new().observer(&observer).threads(1)).unwrap();
    let total = blob.size + 5;
    assert_eq!((checked.blobs, checked.bytes), (2, total));
    let expected = [(4 << 20, total), (8 << 20, total), (9 << 20, total), (total, total)];
    assert_eq!(seen.into_inner().unwrap(), expected);
    let cancel = Cancel::new();
    cancel.cancel();
    assert_kind!(failure(store.check_with(&CheckOptions::new().cancel(&cancel))), ErrorKind::Cancelled);
}
