//! From a registry to a root file system in one pass.

mod ends;
mod faults;
mod law;
mod together;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use layercake::Cancel;
use layercake::Digest;
use layercake::ErrorKind;
use layercake::Event;
use layercake::Registry;
use layercake::Store;
use layercake::changeset::Layout;
use layercake::changeset::Options;
use layercake::changeset::Ownership;
use layercake::registry::Never;
use layercake::testing::Fault;
use layercake::testing::Fixture;
use layercake::transfer::PullPolicy;
use layercake::transfer::PullStatus;

use crate::assert_kind;
use crate::support::Served;
use crate::support::assert_same_blobs;
use crate::support::client;
use crate::support::failure;
use crate::support::platform;
use crate::support::tape::Item;
use crate::support::tape::tar;
use crate::support::tree::Lines;
use crate::support::tree::lines;
use crate::support::two_layers;

fn options() -> Options<'static> {
    let root = rustix::process::geteuid().is_root();
    Options::new().ownership(if root { Ownership::Preserve } else { Ownership::CurrentUser })
}

fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    std::iter::repeat_with(|| random.u8(..)).take(length).collect()
}

/// Five layers with something to wait for, whiteouts, links, and one layer twice.
fn layered() -> Fixture {
    let again = tar(&[Item::dir("d/"), Item::file("d/again", noise(1, 100_000))]);
    let links = [Item::file("a", noise(2, 300_000)), Item::hard_link("b", "a"), Item::symlink("c", "/d/again")];
    let gone = [Item::file(".wh.b", ""), Item::file("d/.wh.again", ""), Item::dir("e/").mode(0o1777)];
    Fixture::new(platform("linux/amd64"))
        .raw_layer(again.clone())
        .raw_layer(tar(&links))
        .raw_layer(tar(&gone))
        .raw_layer(again)
        .raw_layer(tar(&[Item::file("e/last", noise(3, 500_000))]))
}

fn nothing_beside(target: &Path) {
    let names: Vec<_> =
        fs::read_dir(target.parent().unwrap()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    let hidden: Vec<_> = names.iter().filter(|name| name.to_string_lossy().starts_with(".layercake")).collect();
    assert!(hidden.is_empty() && !target.exists(), "{names:?}");
}

/// The blobs of a store.
fn blobs(store: &Store) -> BTreeSet<Digest> {
    store.blobs().unwrap().map(|blob| blob.unwrap().0).collect()
}

/// The blobs that were asked for since this was asked last, in that order.
fn asked(served: &Served) -> Vec<Digest> {
    let requests = served.registry.take_requests();
    requests.iter().filter_map(|request| request.path.split_once("/blobs/")?.1.parse().ok()).collect()
}

fn last_layer(served: &Served) -> Digest {
    let image = served.store.image(crate::support::name("example.com/app:1")).unwrap();
    image.manifest().layers().last().unwrap().digest
}

/// Where no layer says when: marks of what was removed, and what holds the layers, are of the moment.
fn without_times(lines: Lines) -> Vec<(Vec<u8>, String)> {
    let cut = |(path, line): (Vec<u8>, String)| {
        let (before, rest) = line.split_once(" bytes, ").unwrap();
        let of_the_moment =
            path.is_empty() || line.starts_with("20000 ") || path.windows(4).any(|part| part == b".wh.");
        let line = if of_the_moment { format!("{before}, {}", rest.split_once(',').unwrap().1) } else { line };
        (path, line)
    };
    lines.into_iter().map(cut).collect()
}

/// What comes out is what a pull and an unpack make; nothing is asked for twice.
#[test]
fn one_pass_makes_what_two_make() {
    for jobs in [1, 4] {
        let (served, image) = Served::with(&layered());
        let (store, target) = (served.scratch.store("store"), served.scratch.path("rootfs"));
        let done = client().pull(&image).jobs(jobs).unpack_with(&store, &target, &options()).unwrap();
        assert_eq!(done.pulled.status, PullStatus::DownloadedNewer);
        assert_same_blobs(&served.store, &store, &done.pulled.image);
        assert_eq!(store.resolve(&image).unwrap().digest, done.pulled.root.digest);
        let gets = served.registry.requests().iter().filter(|request| request.path.contains("/blobs/")).count();
        assert_eq!(gets, 5, "the configuration, and four layers that differ");
        let again = served.scratch.path("again");
        let unpacked = done.pulled.image.unpack_with(&again, &options()).unwrap();
        assert_eq!(done.unpacked, unpacked);
        assert_eq!(lines(&target), lines(&again));
    }
}

/// What the store has is not fetched; an image that it has whole is not asked for where that is the policy.
#[test]
fn what_is_there_is_taken_from_there() {
    let (served, image) = Served::with(&layered());
    let store = served.scratch.store("store");
    let pulled = client().pull(&image).to(&store).unwrap();
    let last = pulled.image.manifest().layers().last().unwrap().clone();
    fs::remove_file(crate::support::blob_path(&store, &last)).unwrap();
    served.registry.take_requests();
    let done = client().pull(&image).unpack_with(&store, served.scratch.path("one"), &options()).unwrap();
    let gets: Vec<String> = served
        .registry
        .take_requests()
        .iter()
        .map(|r| r.path.clone())
        .filter(|path| path.contains("/blobs/"))
        .collect();
    assert_eq!(gets.len(), 1, "{gets:?}");
    assert!(gets[0].contains(&last.digest.to_string()));
    assert_eq!((done.pulled.fetched.bytes, done.pulled.status), (last.size, PullStatus::DownloadedNewer));

    let missing = client().pull(&image).policy(PullPolicy::IfMissing);
    let _ = missing.unpack_with(&store, served.scratch.path("two"), &options()).unwrap();
    assert!(served.registry.take_requests().is_empty());
    assert_eq!(lines(&served.scratch.path("one")), lines(&served.scratch.path("two")));
    let never = client().pull(&image).policy(PullPolicy::Never);
    let empty = served.scratch.store("empty");
    assert_kind!(
        failure(never.unpack_with(&empty, served.scratch.path("three"), &options())),
        ErrorKind::NotFound { .. }
    );
    assert!(!served.scratch.path("three").exists());
}

/// Bodies that break in the middle go on, while what came of them is applied already.
#[test]
fn broken_bodies_are_resumed() {
    let (served, image) = Served::with(&layered());
    served.registry.fault(Fault::on("/blobs/").after(1).times(5).truncate(70_000));
    let (store, target) = (served.scratch.store("store"), served.scratch.path("rootfs"));
    let retries = AtomicUsize::new(0);
    let observer = |event: &Event<'_>| {
        if matches!(event, Event::Retrying { .. }) {
            retries.fetch_add(1, Ordering::Relaxed);
        }
    };
    let done = client().pull(&image).observer(&observer).unpack_with(&store, &target, &options()).unwrap();
    assert!(retries.load(Ordering::Relaxed) >= 2);
    let _ = done.pulled.image.unpack_with(served.scratch.path("again"), &options()).unwrap();
    assert_eq!(lines(&target), lines(&served.scratch.path("again")));
}

/// A blob that has to be begun anew, after some of it was applied, makes a second pass over what is in the store then.
#[test]
fn a_blob_that_is_begun_anew_makes_no_false_tree() {
    let (served, image) = Served::with(&two_layers());
    let store = served.scratch.store("store");
    // The first part of the first layer is damaged and breaks off; the rest is right, and then the whole is.
    served.registry.fault(Fault::on("/blobs/").after(1).times(1).flip(20_000).truncate(40_000));
    let target = served.scratch.path("rootfs");
    let done = client().pull(&image).jobs(1).unpack_with(&store, &target, &options()).unwrap();
    assert_same_blobs(&served.store, &store, &done.pulled.image);
    let _ = done.pulled.image.unpack_with(served.scratch.path("again"), &options()).unwrap();
    assert_eq!(lines(&target), lines(&served.scratch.path("again")));
}

/// P3: what is not what was promised makes no root file system and no name, and what is right stays for the next time.
#[test]
fn a_damaged_layer_makes_nothing() {
    for at in [0, 1, 2, 3] {
        let (served, image) = Served::with(&layered());
        served.registry.fault(Fault::on("/blobs/").after(1 + at).times(1).flip(50));
        let (store, target) = (served.scratch.store("store"), served.scratch.path("rootfs"));
        let error = failure(client().pull(&image).jobs(1).unpack_with(&store, &target, &options()));
        assert!(error.is_corrupt(), "{error}");
        nothing_beside(&target);
        assert!(store.resolve(&image).unwrap_err().is_not_found());
        let kept = store.blobs().unwrap().count();
        assert!(kept >= 2 + at, "{kept} blobs, of which {at} were layers before the damaged one");
        let _ = client().pull(&image).unpack_with(&store, &target, &options()).unwrap();
        assert!(target.join("e/last").exists());
    }
}

/// A layer that is what was promised and cannot be applied; and one whose diff id is a lie.
#[test]
fn a_layer_that_cannot_be_applied_makes_nothing() {
    let bad = tar(&[Item::file("ok", "ok"), Item::file(".wh..", "")]);
    let fixture =
        Fixture::new(platform("linux/amd64")).raw_layer(bad).raw_layer(tar(&[Item::file("b", noise(1, 1000))]));
    let (served, image) = Served::with(&fixture);
    let (store, target) = (served.scratch.store("store"), served.scratch.path("rootfs"));
    let error = failure(client().pull(&image).unpack_with(&store, &target, &options()));
    assert_kind!(error, ErrorKind::InvalidLayer { .. });
    nothing_beside(&target);
    assert!(store.resolve(&image).unwrap_err().is_not_found());
}

/// An end that is wanted: the switch, and a registry that gives up.
#[test]
fn it_ends_when_it_is_to_end() {
    let (served, image) = Served::with(&layered());
    let (store, target) = (served.scratch.store("store"), served.scratch.path("rootfs"));
    let cancel = Cancel::new();
    let observer = |event: &Event<'_>| {
        if matches!(event, Event::Progress { .. }) {
            cancel.cancel();
        }
    };
    let pull = client().pull(&image).observer(&observer).cancel(&cancel);
    assert_kind!(failure(pull.unpack(&store, &target)), ErrorKind::Cancelled);
    nothing_beside(&target);

    served.registry.fault(Fault::on("/blobs/").after(1).truncate(1000));
    let impatient = Registry::builder().retry(Never).build().unwrap();
    let error = failure(impatient.pull(&image).unpack_with(&store, &target, &options()));
    assert_kind!(error, ErrorKind::Network { .. });
    nothing_beside(&target);
}

/// A target that is taken is said before anything is fetched, and layers can be had for overlayfs.
#[test]
fn targets_and_layouts() {
    let (served, image) = Served::with(&layered());
    let store = served.scratch.store("store");
    let taken = served.scratch.dir("taken");
    fs::write(taken.join("file"), "mine").unwrap();
    let pull = client().pull(&image);
    assert_kind!(failure(pull.unpack_with(&store, &taken, &options())), ErrorKind::AlreadyExists { .. });
    assert!(served.registry.requests().is_empty());
    let overlay = options().layout(Layout::Overlay);
    let (one, two) = (served.scratch.path("one"), served.scratch.path("two"));
    let done = pull.unpack_with(&store, &one, &overlay).unwrap();
    let _ = done.pulled.image.unpack_with(&two, &overlay).unwrap();
    // Marks of what was removed are of the moment.
    assert_eq!(lines(&one).keys().collect::<Vec<_>>(), lines(&two).keys().collect::<Vec<_>>());
}

/// `unpack --pull` fetches what is missing, and asks for nothing else.
#[test]
fn the_example_pulls_what_is_missing() {
    let (served, image) = Served::with(&layered());
    let store = served.scratch.path("store");
    for (target, requests) in [("one", true), ("two", false)] {
        let target = served.scratch.path(target);
        let mut unpack = crate::support::tools::example("unpack");
        let unpack = unpack.arg("--store").arg(&store).args(["--pull", "--rootless", &image.to_string()]).arg(&target);
        let out = crate::support::tools::run(unpack).ok();
        assert!(out.ends_with(" 0 skipped\n"), "{out}");
        assert!(target.join("e/last").exists());
        assert_eq!(!served.registry.take_requests().is_empty(), requests);
    }
}
