//! Where the bytes are, to the last one.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use layercake::MediaType;
use layercake::Store;
use layercake::checkout::CheckoutMode;
use layercake::checkout::CheckoutOptions;
use layercake::store::ImageUsage;
use layercake::store::Usage;
use layercake::testing::Fixture;

use crate::gc::at_once;
use crate::support::Scratch;
use crate::support::name;
use crate::support::platform;
use crate::support::tape::Item;
use crate::support::tape::tar;
use crate::support::tools::installed;
use crate::support::tools::is_root;
use crate::support::tools::run;
use crate::support::two_layers;

fn image<'a>(usage: &'a Usage, called: &str) -> (usize, &'a ImageUsage) {
    let called = name(called).into();
    let found = usage.images.iter().enumerate().find(|(_, image)| image.names.contains(&called));
    found.unwrap_or_else(|| panic!("no {called}"))
}

fn bytes(store: &Store) -> u64 {
    store.blobs().unwrap().map(|blob| blob.unwrap().1).sum()
}

/// What is said to be freed by removing an image is what removing it frees; and all adds up.
#[test]
fn every_byte_is_somebodys() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let base = || Fixture::new(platform("linux/amd64")).layer(&[("base", &[7; 5000])]);
    base().tag(&store, &name("base:1")).unwrap();
    base().tag(&store, &name("base:latest")).unwrap();
    base().layer(&[("one", b"1")]).tag(&store, &name("one:1")).unwrap();
    base().layer(&[("two", b"2")]).label("x", "y").tag(&store, &name("two:1")).unwrap();
    Fixture::demo().tag(&store, &name("demo:1")).unwrap();
    two_layers().docker().tag(&store, &name("docker:1")).unwrap();
    store.write(MediaType::OCTET_STREAM, b"nobody's").unwrap();
    store.resume(&layercake::Descriptor::of(MediaType::OCTET_STREAM, b"12345")).unwrap().append(b"123").unwrap();

    let usage = store.usage().unwrap();
    assert_eq!(usage.images.len(), 5);
    assert_eq!((usage.blobs, usage.bytes), (store.blobs().unwrap().count() as u64, bytes(&store)));
    assert_eq!((usage.unreferenced, usage.partial, usage.unpacked), (8, 3, 0));
    let (at, first) = image(&usage, "base:1");
    assert_eq!(first.names.len(), 2);
    let shared: Vec<_> = usage.shared_blobs().collect();
    let [(layer, size, images)] = &shared[..] else { panic!("{shared:?}") };
    assert_eq!((first.shared, first.content), (*size, first.shared + first.unique));
    let expected = ["base:1", "one:1", "two:1"].map(|called| image(&usage, called).0);
    assert_eq!(*images, expected);
    assert!(images.contains(&at) && store.size_of(*layer).unwrap() == Some(*size));
    let (one, two) = (image(&usage, "one:1").0, image(&usage, "two:1").0);
    let apart = usage.images[one].reclaimable + usage.images[two].reclaimable;
    assert_eq!(usage.freed_by(&[one, two]), apart);
    assert_eq!(usage.freed_by(&[at, one, two]), apart + first.reclaimable + size);
    let sum: u64 = usage.images.iter().map(|image| image.unique).sum();
    assert_eq!(sum + size + usage.unreferenced, usage.bytes);

    store.gc_with(&at_once()).unwrap();
    for called in ["demo:1", "docker:1", "one:1", "base:1", "base:latest", "two:1"] {
        let expected = match called {
            "base:1" => 0,
            called => image(&store.usage().unwrap(), called).1.reclaimable,
        };
        let before = bytes(&store);
        let removed = store.remove(name(called)).unwrap();
        assert_eq!((removed.collected.bytes, before - bytes(&store)), (expected, expected), "{called}");
    }
    assert_eq!(bytes(&store), 0);
}

/// What is leased is not said to be free; what unpacked layers take is.
#[test]
fn leases_and_unpacked_layers_count() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let root = two_layers().tag(&store, &name("app:1")).unwrap();
    let opened = store.image_at(&root).unwrap();
    let chains = opened.config().unwrap().chain_ids().unwrap();
    let trees: BTreeMap<_, _> =
        [("preserve", chains[0], 100), ("preserve", chains[1], 10), ("user-1000", chains[1], 7)]
            .map(|(owners, chain, bytes)| (crate::gc::unpack(&store, owners, chain, bytes), bytes))
            .into();
    let usage = store.usage().unwrap();
    let (_, app) = image(&usage, "app:1");
    assert_eq!((usage.unpacked, app.unpacked), (117, 117));
    assert_eq!(app.reclaimable, app.unique + 117);
    let leased = store.leased().unwrap();
    assert!(leased.contains(&opened.manifest().layers()[0]).unwrap());
    let held = opened.manifest().layers()[0].size;
    assert_eq!(image(&store.usage().unwrap(), "app:1").1.reclaimable, app.reclaimable - held);
    drop(leased);
    store.untag(name("app:1")).unwrap();
    assert_eq!(store.gc_with(&at_once()).unwrap().bytes, app.reclaimable);
    assert!(trees.keys().all(|tree| !tree.exists()));
}

/// Disk space of a directory in bytes, as `du` counts it.
fn du(path: &Path) -> u64 {
    let printed = run(Command::new("du").args(["-s", "--block-size=1"]).arg(path)).ok();
    printed.split_whitespace().next().unwrap().parse().unwrap()
}

#[track_caller]
fn assert_close(found: u64, expected: u64) {
    assert!(found.abs_diff(expected) * 50 <= expected, "{found} is not {expected} within 2 %");
}

/// A layer with small files, large ones, holes, hard links, symbolic links and whiteouts; a few MiB.
fn mixed_layer(n: usize) -> Vec<u8> {
    let mut items = vec![Item::dir(format!("{n}/"))];
    for file in 0..150 {
        items.push(Item::file(format!("{n}/small-{file}"), vec![b's'; 40 * file]));
    }
    items.push(Item::file(format!("{n}/large"), vec![b'l'; 2 << 20]));
    for link in 0..20 {
        items.push(Item::hard_link(format!("{n}/link-{link}"), format!("{n}/large")));
        items.push(Item::symlink(format!("{n}/symbolic-{link}"), "large"));
    }
    let hole =
        Item::file(format!("{n}/hole"), "AB").pax("GNU.sparse.size", "1073741824").pax("GNU.sparse.numblocks", "2");
    items.push(hole.pax("GNU.sparse.map", "2,1,1073741823,1"));
    if n > 0 {
        items.push(Item::file(format!("{}/.wh.small-0", n - 1), ""));
    }
    tar(&items)
}

/// P9: the story: each record had the sum of all layers below, so five layers of 0.65 GB counted as 2.35 GB, and a pull of
/// 300 kB was refused.
#[test]
fn unpacked_layers_take_what_du_says() {
    if !is_root() || !installed(&["du"]) {
        return;
    }
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let fixture = (0..5).fold(Fixture::new(platform("linux/amd64")), |fixture, n| fixture.raw_layer(mixed_layer(n)));
    fixture.tag(&store, &name("app:1")).unwrap();
    let copy = CheckoutOptions::new().mode(CheckoutMode::Copy);
    let work = store.image(name("app:1")).unwrap().checkout_with(scratch.path("work"), &copy).unwrap();
    let unpacked = store.path().join("layercake/unpacked");
    let before = du(&unpacked);
    let usage = store.usage().unwrap();
    assert_close(usage.unpacked, before);
    assert_eq!(image(&usage, "app:1").1.unpacked, usage.unpacked);

    store.set_limit(Some(1 << 40)).unwrap();
    let used = store.room().unwrap().used;
    assert_eq!(used, usage.bytes + usage.unpacked);
    #[cfg(feature = "registry")]
    {
        let mut noise = vec![0; 300_000];
        fastrand::Rng::with_seed(14).fill(&mut noise);
        let small = Fixture::new(platform("linux/amd64")).layer(&[("noise", &noise)]);
        let (_served, small) = crate::support::Served::with(&small);
        let pull = || crate::support::client().pull(&small).to(&store);
        store.set_limit(Some(used + 200_000)).unwrap();
        assert!(matches!(pull().unwrap_err().kind(), layercake::ErrorKind::StorageFull { .. }));
        store.set_limit(Some(used + 400_000)).unwrap();
        pull().unwrap();
        store.remove(small).unwrap();
    }

    work.discard().unwrap();
    store.untag(name("app:1")).unwrap();
    let blobs = store.usage().unwrap().bytes;
    let collected = store.gc_with(&at_once()).unwrap();
    assert_eq!((collected.unpacked, bytes(&store)), (5, 0));
    assert_close(collected.bytes - blobs, before - du(&unpacked));
}
