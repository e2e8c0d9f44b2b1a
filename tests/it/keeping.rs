//! The examples `store` and `remove`.

use std::fs;

use layercake::testing::Fixture;

use crate::examples::assert_fails;
use crate::support::Scratch;
use crate::support::blob_path;
use crate::support::name;
use crate::support::platform;
use crate::support::tools::Ran;
use crate::support::tools::example;
use crate::support::tools::run;

fn program(program: &str, scratch: &Scratch, arguments: &[&str]) -> Ran {
    run(example(program).arg("--store").arg(scratch.path("store")).args(arguments))
}

/// Docker's lines; and what another name needs is not deleted.
#[test]
fn remove_prints_what_docker_prints() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let image = Fixture::new(platform("linux/amd64")).layer(&[("a", b"a")]);
    let root = image.tag(&store, &name("app:1")).unwrap();
    store.tag(&name("example.com/app:2"), &root).unwrap();
    assert_eq!(program("remove", &scratch, &["app:1"]).ok(), "Untagged: app:1\n");
    let opened = store.image_at(&root).unwrap();
    let layer = opened.manifest().layers()[0].digest;
    let mut rest = [opened.id(), layer];
    let out = program("remove", &scratch, &["example.com/app:2"]).ok();
    let first = format!("Untagged: example.com/app:2\nUntagged: example.com/app@{0}\nDeleted: {0}\n", root.digest);
    let deleted = out.strip_prefix(&first).unwrap_or_else(|| panic!("{out}"));
    let mut deleted: Vec<&str> = deleted.lines().collect();
    deleted.sort_unstable();
    rest.sort();
    assert_eq!(deleted, rest.map(|digest| format!("Deleted: {digest}")));
    assert_eq!(store.blobs().unwrap().count(), 0);
    assert_fails(program("remove", &scratch, &["app:1"]), "remove docker.io/library/app:1: untag");
    assert_fails(program("remove", &scratch, &[]), "usage: remove");
}

#[test]
fn store_says_what_it_did() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let root = Fixture::new(platform("linux/amd64")).layer(&[("a", b"a")]).tag(&store, &name("app:1")).unwrap();
    let garbage = store.write(layercake::MediaType::OCTET_STREAM, b"garbage").unwrap();
    let nothing = "0 blobs, 0 unfinished, 0 unpacked layers\nTotal reclaimed space: 0B\n";
    assert_eq!(program("store", &scratch, &["gc"]).ok(), nothing);
    let one =
        format!("Deleted: {}\n1 blobs, 0 unfinished, 0 unpacked layers\nTotal reclaimed space: 7B\n", garbage.digest);
    assert_eq!(program("store", &scratch, &["gc", "--now", "--dry-run"]).ok(), one);
    let table = program("store", &scratch, &["usage"]).ok();
    let size: u64 = store.blobs().unwrap().map(|blob| blob.unwrap().1).sum();
    let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["NAME", "DIGEST", "CONTENT", "SHARED", "UNIQUE", "UNPACKED", "RECLAIMABLE"]);
    let content = format!("{}B", size - 7);
    let digest = root.digest.short().to_string();
    assert_eq!(lines[1], ["app:1", &digest, &content, "0B", &content, "0B", &content]);
    assert_eq!(lines[2][..6], ["4", "blobs,", &format!("{size}B,"), "7B", "without", "a"]);
    assert_eq!(program("store", &scratch, &["gc", "--now"]).ok(), one);

    assert_eq!(program("store", &scratch, &["check"]).ok(), "nothing is wrong\n");
    assert_eq!(program("store", &scratch, &["repair"]).ok(), "nothing is wrong\n");
    fs::write(store.path().join("blobs/note"), "").unwrap();
    let checked = program("store", &scratch, &["check"]);
    assert_eq!((checked.out.as_str(), checked.err.as_str()), ("stray: blobs/note\n", "error: 1 problem\n"));
    assert_eq!(checked.status, 1);
    let repaired = program("store", &scratch, &["repair"]).ok();
    assert!(repaired.starts_with("Found: stray: blobs/note\nMoved: blobs/note to layercake/quarantine/stray."));
    assert!(repaired.ends_with("\nnothing is wrong\n"));
    let manifest = blob_path(&store, &root);
    fs::remove_file(&manifest).unwrap();
    assert_fails(program("store", &scratch, &["gc"]), "collect garbage: image docker.io/library/app:1: document");
    assert_fails(program("store", &scratch, &["sweep"]), "usage: store");
}
