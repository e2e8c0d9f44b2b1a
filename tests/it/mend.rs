//! Repairing a store with the help of a registry.

use std::fs;

use layercake::Descriptor;
use layercake::store::Problem;
use layercake::testing::Fixture;

use crate::check::assert_clean;
use crate::support::Served;
use crate::support::blob_path;
use crate::support::client;
use crate::support::name;

/// P12: whatever is lost or damaged, and whatever it led to: a registry that has it makes the store whole.
#[test]
fn what_a_registry_has_is_fetched_again() {
    let (served, image) = Served::with(&Fixture::demo());
    let store = served.scratch.store("store");
    let registry = client();
    let pulled = registry.pull(&image).to(&store).unwrap();
    let manifest = pulled.image.manifest();
    let all: Vec<Descriptor> = [&pulled.root, &manifest.descriptor(), manifest.config()]
        .into_iter()
        .chain(manifest.layers())
        .cloned()
        .collect();
    let damages: [fn(&std::path::Path); 3] = [
        |path| fs::remove_file(path).unwrap(),
        |path| {
            let mut content = fs::read(path).unwrap();
            content[0] ^= 1;
            fs::remove_file(path).unwrap();
            fs::write(path, content).unwrap();
        },
        |path| {
            fs::remove_file(path).unwrap();
            fs::write(path, "").unwrap();
        },
    ];
    for damage in damages {
        for count in 1..=all.len() {
            all[..count].iter().for_each(|blob| damage(&blob_path(&store, blob)));
            let repaired = registry.repair().of(&store).unwrap();
            assert!(!repaired.found.is_empty());
            assert_eq!(repaired.remaining, [], "{count}");
            assert_clean(&store);
            assert!(store.image_at(&pulled.root).unwrap().is_complete().unwrap());
        }
    }
    assert_eq!(store.resolve(&image).unwrap().digest, pulled.root.digest);
}

/// What the registry lost too is still missing, and the rest is mended.
#[test]
fn what_nobody_has_stays_missing() {
    let (served, image) = Served::with(&Fixture::demo());
    let store = served.scratch.store("store");
    let pulled = client().pull(&image).to(&store).unwrap();
    let [gone, kept] = [0, 1].map(|at| pulled.image.manifest().layers()[at].clone());
    fs::remove_file(blob_path(&served.store, &gone)).unwrap();
    for blob in [&gone, &kept] {
        fs::remove_file(blob_path(&store, blob)).unwrap();
    }
    let repaired = client().repair().of(&store).unwrap();
    assert_eq!(repaired.found.len(), 2);
    assert_eq!(repaired.remaining, [Problem::Missing { digest: gone.digest, name: (&image).into() }]);
    assert!(store.contains(&kept).unwrap());
    let other = served.scratch.store("other");
    Fixture::demo().tag(&other, &name("app")).unwrap();
    assert_eq!(client().repair().of(&other).unwrap().found, []);
}
