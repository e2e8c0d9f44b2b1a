//! What the tests share.

#![cfg_attr(not(feature = "registry"), allow(dead_code, reason = "without a client there is less to test"))]

pub mod http;
pub mod model;
pub mod neighbours;
#[cfg(feature = "registry")]
pub mod scripted;
pub mod tape;
pub mod tools;
pub mod tree;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::path::PathBuf;

use layercake::Durability;
use layercake::Error;
use layercake::ImageReference;
use layercake::Platform;
use layercake::Store;
use layercake::changeset::Options;
use layercake::testing;
use tempfile::TempDir;

/// A directory that goes away, with room for stores.
pub struct Scratch(TempDir);

impl Scratch {
    pub fn new() -> Scratch {
        // In lower case, because buildah takes paths for names of images.
        let name = format!("layercake-{:016x}", fastrand::u64(..));
        let directory = tempfile::Builder::new().prefix(&name).rand_bytes(0).tempdir();
        Scratch(directory.expect("a temporary directory can be made"))
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A new directory.
    #[track_caller]
    pub fn dir(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir(&path).expect("a directory can be made");
        path
    }

    /// A new store. Tests of durability say so themselves; the others need not wait for the disk.
    #[track_caller]
    pub fn store(&self, name: &str) -> Store {
        Store::create(self.path(name)).expect("a store can be made").with_durability(Durability::None)
    }
}

/// Options for layers that are applied where no store says that a test need not wait for the disk.
pub fn unsynced<'a>() -> Options<'a> {
    Options::new().durability(Durability::None)
}

/// A registry that serves a store of its own.
pub struct Served {
    pub scratch: Scratch,
    pub store: Store,
    pub registry: testing::Registry,
}

impl Served {
    #[track_caller]
    pub fn start() -> Served {
        let scratch = Scratch::new();
        let store = scratch.store("served");
        let registry = testing::Registry::start(&store).expect("a port is free");
        Served { scratch, store, registry }
    }

    /// Serves this as `app:1`. Returns its name.
    #[track_caller]
    pub fn with(fixture: &testing::Fixture) -> (Served, ImageReference) {
        let served = Served::start();
        fixture.tag(&served.store, &name("example.com/app:1")).expect("a fixture can be made");
        let image = served.registry.reference("app:1").expect("it is a name");
        (served, image)
    }

    /// How many requests had a path that contains this text.
    pub fn count(&self, method: &str, path: &str) -> usize {
        let requests = self.registry.requests();
        requests.iter().filter(|request| request.method == method && request.path.contains(path)).count()
    }
}

#[track_caller]
pub fn name(text: &str) -> ImageReference {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[track_caller]
pub fn platform(text: &str) -> Platform {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// An image of one layer of about 100 KB that does not compress, and a small one.
pub fn two_layers() -> testing::Fixture {
    let mut generator = fastrand::Rng::with_seed(7);
    let noise: Vec<u8> = (0..100_000).map(|_| generator.u8(..)).collect();
    testing::Fixture::new(Platform::new("linux", "amd64"))
        .layer(&[("usr/share/noise", &noise)])
        .layer(&[("etc/motd", b"hello\n")])
}

/// Every file below a directory with its content, to see that nothing changed. What a download left for the next
/// attempt, and the lock, are left out.
pub fn contents(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    fn walk(directory: &Path, root: &Path, found: &mut BTreeMap<PathBuf, Vec<u8>>) {
        for entry in fs::read_dir(directory).expect("the directory can be read") {
            let path = entry.expect("the directory can be read").path();
            let name = path.strip_prefix(root).expect("it is below").to_owned();
            if name.starts_with("layercake/partial") || name == Path::new("layercake/lock") {
                continue;
            }
            if path.is_dir() {
                walk(&path, root, found);
            } else {
                found.insert(name, fs::read(&path).expect("the file can be read"));
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(directory, directory, &mut found);
    found
}

/// The [`contents`] of a store that another store with the same images has too: without leases, counted sizes, and the
/// file that says which directory the private state is in.
pub fn comparable_contents(store: &Store) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut contents = contents(store.path());
    let is_own = |path: &Path| ["facts", "instance"].iter().any(|name| path == Path::new("layercake").join(name));
    contents.retain(|path, _| !path.starts_with("layercake/leases") && !is_own(path));
    contents
}

/// Case 153: every blob of the store is the registry's.
#[track_caller]
pub fn assert_same_blobs(served: &Store, store: &Store, image: &layercake::Image) {
    let manifest = image.manifest();
    for blob in manifest.layers().iter().chain([manifest.config(), &image.descriptor(), image.root()]) {
        let path = format!("blobs/{}/{}", blob.digest.algorithm(), blob.digest.hex());
        assert_eq!(fs::read(served.path().join(&path)).unwrap(), fs::read(store.path().join(&path)).unwrap());
    }
}

/// The file of a blob.
pub fn blob_path(store: &Store, blob: &layercake::Descriptor) -> PathBuf {
    store.path().join("blobs").join(blob.digest.algorithm().name()).join(blob.digest.hex().to_string())
}

/// The error, or the test fails.
#[track_caller]
pub fn failure<T>(result: layercake::Result<T>) -> Error {
    match result {
        Ok(_) => panic!("it succeeded"),
        Err(error) => error,
    }
}

/// Asserts on an error's kind, and shows the error if it is another.
#[macro_export]
macro_rules! assert_kind {
    ($error:expr, $kind:pat $(if $guard:expr)?) => {{
        let error = &$error;
        assert!(matches!(error.kind(), $kind $(if $guard)?), "unexpected kind: {error:?}");
    }};
}

#[cfg(feature = "registry")]
pub use client::*;

#[cfg(feature = "registry")]
mod client {
    use std::time::Duration;

    use layercake::Registry;
    use layercake::registry::Builder;
    use layercake::registry::Failure;

    /// A client that tries three times and does not wait between.
    pub fn quick() -> Builder {
        let policy = |failure: &Failure<'_>| (failure.attempt < 3).then_some(Duration::ZERO);
        Registry::builder().retry(policy).idle_timeout(Duration::from_secs(5))
    }

    pub fn client() -> Registry {
        quick().build().expect("the settings are valid")
    }
}
