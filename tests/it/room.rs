//! Limits, room, and what goes first.

use std::fs;
use std::time::Duration;

use layercake::ErrorKind;
use layercake::MediaType;
use layercake::Store;
use layercake::store::GcOptions;
use layercake::store::Name;
use layercake::testing::Fixture;

use crate::assert_kind;
use crate::gc::make_older;
use crate::support::Scratch;
use crate::support::blob_path;
use crate::support::failure;
use crate::support::name;
use crate::support::platform;

fn bytes(store: &Store) -> u64 {
    store.blobs().unwrap().map(|blob| blob.unwrap().1).sum()
}

/// An image of about so many bytes.
fn image(seed: u64, size: usize) -> Fixture {
    let mut noise = vec![0; size];
    fastrand::Rng::with_seed(seed).fill(&mut noise);
    Fixture::new(platform("linux/amd64")).layer(&[("noise", &noise)])
}

#[test]
fn a_limit_is_the_stores() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    assert_eq!((store.limit().unwrap(), store.room().unwrap().limit), (None, None));
    store.set_limit(Some(1000)).unwrap();
    store.write(MediaType::OCTET_STREAM, &[7; 300]).unwrap();
    let room = Store::open(store.path()).unwrap().room().unwrap();
    assert_eq!((room.limit, room.used, room.available), (Some(1000), 300, 700));
    store.resume(&layercake::Descriptor::of(MediaType::OCTET_STREAM, b"12345")).unwrap().append(b"123").unwrap();
    assert_eq!(store.room().unwrap().used, 303);
    fs::write(store.path().join("layercake/limit"), "many").unwrap();
    assert_kind!(failure(store.room()), ErrorKind::InvalidDocument { .. });
    store.set_limit(None).unwrap();
    assert_eq!(store.limit().unwrap(), None);
}

/// Least recently used goes first, and what is pinned, leased or young and in use does not.
#[test]
fn what_was_not_used_for_longest_goes_first() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let names = ["a:1", "b:1", "c:1", "d:1", "e:1"].map(name);
    let mut roots = Vec::new();
    for (n, app) in (0..).zip(&names) {
        roots.push(image(n, 10_000).tag(&store, app).unwrap());
        let age = Duration::from_secs(10_000 - n * 1000);
        make_older(&blob_path(&store, roots.last().unwrap()), age);
    }
    let one = bytes(&store) / 5;
    store.set_limit(Some(bytes(&store))).unwrap();
    assert_eq!(store.room().unwrap().available, 0);
    // The oldest is pinned, the second is leased, and the third was just unpacked.
    store.pin(name("a:1")).unwrap();
    let leased = store.leased().unwrap();
    assert!(leased.contains(&roots[1]).unwrap());
    let options = layercake::changeset::Options::new().ownership(layercake::changeset::Ownership::CurrentUser);
    let _ = store.image(name("c:1")).unwrap().unpack_with(scratch.path("root"), &options).unwrap();

    let wanted = GcOptions::new().room(one - 200);
    let planned = store.gc_with(&wanted.clone().dry_run()).unwrap();
    let collected = store.gc_with(&wanted).unwrap();
    assert_eq!((&planned.untagged, planned.bytes), (&collected.untagged, collected.bytes));
    assert_eq!(collected.untagged, [Name::from(&names[3])]);
    assert_eq!(store.room().unwrap().available, collected.bytes);
    assert_eq!(store.gc_with(&wanted).unwrap().untagged, [], "there is room");
    let all = store.gc_with(&GcOptions::new().room(u64::MAX)).unwrap();
    assert_eq!(all.untagged, [Name::from(&names[4]), Name::from(&names[2])]);
    assert!([&names[0], &names[1]].iter().all(|name| store.image(*name).unwrap().is_complete().unwrap()));
    assert!(store.is_pinned(&names[0]).unwrap() && !store.is_pinned(&names[1]).unwrap());

    drop(leased);
    store.unpin(&names[0]).unwrap();
    store.gc_with(&GcOptions::new().room(u64::MAX)).unwrap();
    assert_eq!((store.entries().unwrap().count(), bytes(&store)), (0, 0));
    assert_kind!(failure(store.pin(name("a:1"))), ErrorKind::NotFound { .. });
}

#[cfg(feature = "registry")]
mod pulls {
    use super::*;

    use std::thread;

    use layercake::transfer::PullPlan;

    use crate::check::assert_clean;
    use crate::support::Served;
    use crate::support::client;

    /// A pull that the limit does not allow says what is needed and what there is, and leaves what was there.
    #[test]
    fn a_pull_over_the_limit_says_what_is_missing() {
        let (served, app) = Served::with(&image(1, 50_000));
        let store = served.scratch.store("store");
        image(2, 10_000).tag(&store, &name("before")).unwrap();
        let (before, free) = (bytes(&store), 20_000);
        store.set_limit(Some(before + free)).unwrap();
        let error = failure(client().pull(&app).to(&store));
        let layer = served.store.image(name("example.com/app:1")).unwrap().manifest().layers()[0].size;
        assert_kind!(error, ErrorKind::StorageFull { needed: Some(needed), available: Some(available), .. }
            if *needed == layer && *available < free && *available > free - 2000);
        assert!(failure(store.resolve(&app)).is_not_found());
        let needed = 60_000;
        store.gc_with(&GcOptions::new().grace(Duration::ZERO).room(needed)).unwrap();
        assert_eq!(store.entries().unwrap().count(), 0);
        store.set_limit(Some(needed)).unwrap();
        client().pull(&app).to(&store).unwrap();
        assert_clean(&store);
    }

    /// Pulls at the same time do not bring more together than the limit allows.
    #[test]
    fn pulls_at_once_stay_below_the_limit() {
        let served = Served::start();
        let names: Vec<_> = (0..6)
            .map(|n| {
                image(n, 40_000).tag(&served.store, &name(&format!("example.com/app:{n}"))).unwrap();
                served.registry.reference(&format!("app:{n}")).unwrap()
            })
            .collect();
        let store = served.scratch.store("store");
        let limit = 140_000;
        store.set_limit(Some(limit)).unwrap();
        let done: usize = thread::scope(|scope| {
            let pulls: Vec<_> = names
                .iter()
                .map(|app| {
                    let store = Store::open(store.path()).unwrap();
                    scope.spawn(move || match client().pull(app).to(&store) {
                        Ok(_) => 1,
                        Err(error) => {
                            assert_kind!(error, ErrorKind::StorageFull { needed: Some(_), available: Some(_), .. });
                            0
                        }
                    })
                })
                .collect();
            pulls.into_iter().map(|pull| pull.join().unwrap()).sum()
        });
        assert!((2..=3).contains(&done), "{done}");
        // Documents are not counted before they come.
        assert!(bytes(&store) < limit + 6 * 2000, "{}", bytes(&store));
        assert_clean(&store);
    }

    /// What a plan says is what the pull does, here or after a restart, and though the name has moved.
    #[test]
    fn plans_can_be_kept() {
        let base = || Fixture::new(platform("linux/amd64")).layer(&[("base", &[7; 5000])]);
        let (served, app) = Served::with(&base().layer(&[("app", b"app")]));
        let store = served.scratch.store("store");
        base().tag(&store, &name("base")).unwrap();
        let before = store.blobs().unwrap().count();
        let pull = client().pull(&app).platform(platform("linux/amd64"));
        let plan = pull.plan(&store).unwrap();
        assert_eq!(store.blobs().unwrap().count(), before, "nothing is written");
        let image = served.store.image(name("example.com/app:1")).unwrap();
        let [shared, own] = image.manifest().layers() else { panic!("two layers") };
        assert_eq!(plan.reuse, std::slice::from_ref(shared));
        assert_eq!(plan.fetch, [&image.descriptor(), image.manifest().config(), own].map(Clone::clone));
        assert_eq!(plan.bytes, plan.fetch.iter().map(|blob| blob.size).sum::<u64>());
        assert!(plan.has_room());

        let kept = PullPlan::from_json(&plan.to_json()).unwrap();
        assert_eq!(kept, plan);
        served.store.tag(&name("example.com/app:old"), &plan.root).unwrap();
        let other = Fixture::new(platform("linux/amd64")).layer(&[("other", b"other")]);
        other.tag(&served.store, &name("example.com/app:1")).unwrap();
        let pulled = kept.pull(&client()).to(&store).unwrap();
        assert_eq!((pulled.root.digest, pulled.fetched.bytes), (plan.root.digest, plan.bytes));
        assert_eq!(store.resolve(&app).unwrap().digest, plan.root.digest);
        for text in ["", "{}", "{\"form\":2,\"plan\":{}}", "{\"form\":1,\"plan\":{}}"] {
            assert_kind!(failure(PullPlan::from_json(text)), ErrorKind::InvalidDocument { .. });
        }
        store.set_limit(Some(1)).unwrap();
        assert!(!client().pull(&app).plan(&store).unwrap().has_room());
    }
}

/// P7: any number may pin one name at once.
#[test]
fn many_pin_one_name_at_once() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let app = name("a:1");
    image(1, 100).tag(&store, &app).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..200).for_each(|_| store.pin(&app).unwrap()));
        }
    });
    assert!(store.is_pinned(&app).unwrap());
    assert_eq!(fs::read_dir(store.path().join("layercake/pins")).unwrap().count(), 1);
    assert_eq!(fs::read_dir(store.path().join("layercake/partial")).unwrap().count(), 0);
}
