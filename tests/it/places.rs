//! Stores in places that are not like others: of other users, under other masks, moved, mounted, in one another.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use layercake::Checkout;
use layercake::Durability;
use layercake::ErrorKind;
use layercake::MediaType;
use layercake::Store;
use layercake::checkout::CheckoutMode;
use layercake::checkout::CheckoutOptions;
use layercake::testing::Fixture;

use crate::assert_kind;
use crate::check::assert_clean;
use crate::gc::at_once;
use crate::support::Scratch;
use crate::support::contents;
use crate::support::failure;
use crate::support::name;
use crate::support::platform;
use crate::support::tools::Ran;
use crate::support::tools::example;
use crate::support::tools::install;
use crate::support::tools::installed;
use crate::support::tools::is_root;
use crate::support::tools::run;
use crate::support::two_layers;

const USER: u32 = 1000;

/// A directory that every user can go to, with programs that every user can run.
struct Home(Scratch);

impl Home {
    fn new() -> Home {
        let home = Home(Scratch::new());
        fs::create_dir(home.path("programs")).unwrap();
        for path in [home.path(""), home.path("programs")] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        home
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path(name)
    }

    /// Runs a program as this user, under this mask.
    fn run(&self, user: u32, mask: &str, program: &str, arguments: &[&str]) -> Ran {
        let copy = self.path("programs").join(program);
        if !copy.exists() {
            install(example(program).get_program(), &copy);
        }
        let mut command = Command::new("setpriv");
        command.args([&format!("--reuid={user}"), &format!("--regid={user}"), "--clear-groups", "sh", "-c"]);
        command.arg(format!("umask {mask}; exec \"$0\" \"$@\"")).arg(copy).args(arguments);
        run(command.current_dir(self.path("")).env("LAYERCAKE_STORE", "store").env("HOME", "/dev/null"))
    }
}

/// All below a directory, and each one's mode.
fn modes(directory: &Path) -> BTreeMap<PathBuf, u32> {
    let mut found = BTreeMap::from([(directory.to_owned(), directory.metadata().unwrap().mode() & 0o7777)]);
    for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
        let stat = entry.path().symlink_metadata().unwrap();
        if stat.is_dir() {
            found.extend(modes(&entry.path()));
        } else {
            found.insert(entry.path(), stat.mode() & 0o7777);
        }
    }
    found
}

/// Case 98, P14: whatever the umask, other users see nothing of a store, or its images only if that was asked for.
#[test]
fn umask_does_not_change_who_may_read_a_store() {
    if !is_root() || !installed(&["setpriv"]) {
        return;
    }
    for (mask, is_open) in [("000", false), ("000", true), ("022", false), ("077", true)] {
        let home = Home::new();
        fs::create_dir(home.path("tree")).unwrap();
        fs::write(home.path("tree/file"), "1").unwrap();
        let store = home.path("store");
        Store::create(&store).unwrap().set_readable_by_others(is_open).unwrap();
        for (program, arguments) in [
            ("build", &["tree", "made"][..]),
            ("build", &["--from", "made", "tree", "child"]),
            ("tag", &["made", "again"]),
            ("checkout", &["--mode", "copy", "made", "work"]),
            ("commit", &["work", "committed"]),
            ("store", &["gc", "--now"]),
        ] {
            home.run(0, mask, program, arguments).ok();
        }
        for (path, mode) in modes(&store) {
            let below = path.strip_prefix(&store).unwrap().to_owned();
            let is_tree = below.starts_with("layercake/unpacked") && below.components().count() > 3;
            let is_private = below.starts_with("layercake") && !below.ends_with("index.json.old");
            let expected = match (path.is_dir(), is_private || !is_open) {
                _ if is_tree && !below.ends_with("json") => continue,
                (true, true) => 0o700,
                (true, false) => 0o755,
                (false, true) if below.starts_with("blobs") => 0o400,
                (false, true) => 0o600,
                (false, false) if below.starts_with("blobs") => 0o444,
                (false, false) => 0o644,
            };
            assert!(is_tree || mode == expected, "umask {mask}: {mode:o}, not {expected:o}: {}", path.display());
        }

        fs::create_dir(home.path("users")).unwrap();
        std::os::unix::fs::chown(home.path("users"), Some(USER), Some(USER)).unwrap();
        let before = contents(&store);
        let images = home.run(USER, "022", "images", &[]);
        let unpacked = home.run(USER, "022", "unpack", &["--rootless", "--quiet", "made", "users/root"]);
        assert_eq!(images.status == 0 && unpacked.status == 0, is_open, "umask {mask}: {images:?}, {unpacked:?}");
        if is_open {
            assert_eq!(images.out.lines().count(), 5, "{images:?}");
            assert_eq!(fs::read(home.path("users/root/file")).unwrap(), b"1");
            // Case 101: what may not be written is said to be so.
            for (program, arguments) in
                [("tag", &["made", "mine"][..]), ("remove", &["made"]), ("build", &["tree"]), ("store", &["gc"])]
            {
                let ran = home.run(USER, "022", program, arguments);
                assert_eq!(ran.status, 1, "{program}: {ran:?}");
                assert!(ran.err.contains("cannot be written") && ran.err.lines().count() == 1, "{program}: {ran:?}");
            }
        } else {
            assert!(images.err.starts_with("error: ") && images.err.lines().count() == 1, "{images:?}");
        }
        assert_eq!(contents(&store), before);
    }
}

/// Case 99, P14: root reads another user's store, changes nothing there, and is told so.
#[test]
fn root_reads_another_users_store_and_does_not_write_to_it() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let root = two_layers().tag(&store, &name("app")).unwrap();
    run(Command::new("chown").args(["-R", "1000:1000"]).arg(store.path())).ok();
    let owners = |path: &Path| -> BTreeMap<PathBuf, u32> {
        modes(path).into_keys().map(|path| (path.clone(), path.symlink_metadata().unwrap().uid())).collect()
    };
    let before = (owners(store.path()), contents(store.path()));
    let store = Store::open(store.path()).unwrap();
    store.image(name("app")).unwrap().unpacked_size().unwrap();
    let _ = store.image(name("app")).unwrap().unpack(scratch.path("root")).unwrap();
    assert_eq!(store.usage().unwrap().images.len(), 1);
    assert_clean(&store);
    for error in [
        failure(store.write(MediaType::OCTET_STREAM, b"garbage")),
        failure(store.tag(&name("new"), &root)),
        failure(store.gc_with(&at_once())),
    ] {
        assert!(error.to_string().contains("it belongs to user 1000"), "{error}");
        assert_kind!(error, ErrorKind::Untrusted { .. });
    }
    assert_eq!((owners(store.path()), contents(store.path())), before);
}

/// The same: links in the place of each thing that a store has.
#[test]
fn links_in_a_store_lead_nowhere() {
    let places = [
        "index.json",
        "blobs",
        "blobs/sha256",
        "layercake",
        "layercake/lock",
        "layercake/partial",
        "layercake/leases",
        "layercake/checkouts",
        "layercake/unpacked",
        "layercake/quarantine",
        "layercake/steps",
        "layercake/facts",
        "layercake/limit",
        "layercake/pins",
        "layercake/index.json.new",
        "layercake/index.json.old",
    ];
    for place in places {
        for is_directory in [true, false] {
            let scratch = Scratch::new();
            let store = scratch.store("store");
            let root = two_layers().tag(&store, &name("app")).unwrap();
            let canary = scratch.dir("canary");
            fs::create_dir(canary.join("sha256")).unwrap();
            fs::write(canary.join("file"), "precious").unwrap();
            let before = (contents(&canary), modes(&canary));
            let path = store.path().join(place);
            if path.symlink_metadata().is_ok() {
                fs::rename(&path, scratch.path("gone")).unwrap();
            }
            symlink(if is_directory { canary.clone() } else { canary.join("file") }, &path).unwrap();
            // Each of these may fail, or not need it.
            let Ok(store) = Store::open_or_create(store.path()).map(|store| store.with_durability(Durability::None))
            else {
                assert_eq!((contents(&canary), modes(&canary)), before, "{place}");
                continue;
            };
            let _ = store.write(MediaType::OCTET_STREAM, b"new");
            let _ = store.tag(&name("new"), &root);
            let _ = store.set_limit(Some(1 << 30));
            let _ = store.pin(name("app"));
            let _ = store.leased().and_then(|leased| leased.contains(&root));
            if let Ok(image) = store.image(name("app")) {
                let _ = image.unpacked_size();
                let _ = image.checkout_with(scratch.path("work"), &CheckoutOptions::new().mode(CheckoutMode::Copy));
            }
            let _ = store.check();
            let _ = store.gc_with(&at_once());
            let _ = store.repair();
            let _ = store.remove(name("new"));
            assert_eq!((contents(&canary), modes(&canary)), before, "{place}");
        }
    }
}

/// Case 112: a relative path, and one that the store is moved away from while it is open.
#[test]
fn a_store_is_where_it_is() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let root = two_layers().tag(&store, &name("app")).unwrap();
    let relative = |directory: &str, path: &str, program: &str, arguments: &[&str]| {
        let directory = scratch.path(directory);
        run(example(program).current_dir(directory).arg("--store").arg(path).args(arguments))
    };
    scratch.dir("below");
    relative("", "store", "tag", &["app", "one"]).ok();
    relative("below", "../store", "tag", &["app", "two"]).ok();
    relative("store", ".", "tag", &["app", "three"]).ok();
    relative("below", "../store", "build", &[]).ok();

    fs::rename(scratch.path("store"), scratch.path("moved")).unwrap();
    store.tag(&name("four"), &root).unwrap();
    let garbage = store.write(MediaType::OCTET_STREAM, b"garbage").unwrap();
    assert!(store.gc_with(&at_once()).unwrap().blobs.contains(&garbage.digest));
    let moved = Store::open(scratch.path("moved")).unwrap();
    for called in ["app", "one", "two", "three", "four"] {
        assert!(moved.image(name(called)).unwrap().is_complete().unwrap(), "{called}");
    }
    assert!(!scratch.path("store").exists(), "nothing came where it was");
    assert_clean(&moved);
    let text = |(path, content): (PathBuf, Vec<u8>)| (path, String::from_utf8_lossy(&content).into_owned());
    let here = scratch.path("").display().to_string();
    for (path, content) in contents(moved.path()).into_iter().map(text) {
        assert!(!content.contains(here.trim_end_matches('/')), "{} says where it is", path.display());
    }
}

/// Case 112: by two ways at once, as a bind mount has it.
#[test]
fn a_store_by_two_paths_is_one() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let root = two_layers().tag(&store, &name("app")).unwrap();
    let mounted = scratch.dir("mounted");
    run(Command::new("mount").arg("--bind").arg(store.path()).arg(&mounted)).ok();
    let looked = std::panic::catch_unwind(|| {
        let other = Store::open(&mounted).unwrap().with_durability(Durability::None);
        let held = store.leased().unwrap();
        let blob = held.write(MediaType::OCTET_STREAM, b"held").unwrap();
        assert_eq!(other.gc_with(&at_once()).unwrap().blobs, []);
        other.tag(&name("held"), &blob).unwrap();
        drop(held);
        assert_eq!(store.resolve(name("held")).unwrap().digest, blob.digest);
        assert_eq!(store.resolve(name("app")).unwrap().digest, root.digest);
        let target = failure(store.image(name("app")).unwrap().unpack(mounted.join("root")));
        assert_kind!(target, ErrorKind::InvalidInput(_));
        assert_clean(&other);
    });
    run(Command::new("umount").arg("--lazy").arg(&mounted)).ok();
    looked.unwrap();
}

/// Case 113: no tree in a store, and none around it. A store in a store is nobody's business but its own.
#[test]
fn nothing_is_made_around_a_store_or_in_it() {
    let scratch = Scratch::new();
    let around = scratch.dir("around");
    let store = Store::create(around.join("store")).unwrap().with_durability(Durability::None);
    Fixture::new(platform("linux/amd64")).layer(&[("a", b"1")]).tag(&store, &name("app")).unwrap();
    let image = store.image(name("app")).unwrap();
    let copy = CheckoutOptions::new().mode(CheckoutMode::Copy);
    let before = contents(store.path());
    assert_kind!(failure(image.unpack(&around)), ErrorKind::AlreadyExists { .. });
    assert_kind!(failure(image.checkout_with(&around, &copy)), ErrorKind::AlreadyExists { .. });
    for inside in ["work", "blobs/work", "blobs/sha256/work", "layercake/work"] {
        assert_kind!(failure(image.unpack(store.path().join(inside))), ErrorKind::InvalidInput(_));
        assert_kind!(failure(image.checkout_with(store.path().join(inside), &copy)), ErrorKind::InvalidInput(_));
    }
    assert_eq!(contents(store.path()), before);
    assert_kind!(failure(Checkout::open(store.path())), ErrorKind::InvalidCheckout { .. } | ErrorKind::NotFound { .. });

    let inner = Store::create(store.path().join("inner")).unwrap().with_durability(Durability::None);
    two_layers().tag(&inner, &name("app")).unwrap();
    let before = contents(inner.path());
    store.gc_with(&at_once()).unwrap();
    assert_clean(&store);
    store.repair().unwrap();
    assert_eq!(contents(inner.path()), before);
    inner.gc_with(&at_once()).unwrap();
    assert_clean(&inner);
}

/// Case 130: what a program starts meanwhile has none of our files open, and so holds no lock.
#[test]
fn children_inherit_no_lock() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    two_layers().tag(&store, &name("app")).unwrap();
    let leased = store.leased().unwrap();
    let held = leased.write(MediaType::OCTET_STREAM, b"held").unwrap();
    let unfinished = layercake::Descriptor::of(MediaType::OCTET_STREAM, b"unfinished");
    let mut writer = store.resume(&unfinished).unwrap();
    writer.append(b"unfin").unwrap();
    let options = CheckoutOptions::new().mode(CheckoutMode::Copy);
    let work =
        is_root().then(|| store.image(name("app")).unwrap().checkout_with(scratch.path("work"), &options).unwrap());
    let mut child = Command::new("sleep").arg("600").spawn().unwrap();
    let inherited: Vec<PathBuf> = fs::read_dir(format!("/proc/{}/fd", child.id()))
        .unwrap()
        .filter_map(|entry| fs::read_link(entry.unwrap().path()).ok())
        .filter(|path| path.starts_with(scratch.path("").canonicalize().unwrap()))
        .collect();
    drop((writer, leased));
    let collected = store.gc_with(&at_once());
    let discarded = work.map(Checkout::discard);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(inherited, [] as [PathBuf; 0]);
    let collected = collected.unwrap();
    assert_eq!((collected.blobs, collected.partials), (vec![held.digest], 1));
    discarded.transpose().unwrap();
}
