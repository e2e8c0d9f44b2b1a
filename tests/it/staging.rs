//! P14 and P5 for unpacked trees: other users of the machine, what killed processes leave, and power cuts.
//!
//! The story behind these: trees of Docker and containerd with setuid programs could be entered by every user of the
//! machine (CVE-2021-41091, CVE-2024-25621), and layers that containerd had unpacked were empty after a power cut
//! (containerd#5854).

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use layercake::Durability;
use layercake::Event;
use layercake::Image;
use layercake::Store;
use layercake::changeset::ExposedKind;
use layercake::changeset::Layout;
use layercake::changeset::Ownership;
use layercake::changeset::SkippedPart;
use layercake::testing::Fixture;

use crate::support::Scratch;
use crate::support::neighbours::as_other_user;
use crate::support::neighbours::give_to_other_user;
use crate::support::neighbours::has_other_user;
use crate::support::neighbours::shared_scratch;
use crate::support::platform;
use crate::support::tape::Item;
use crate::support::tape::tar;
use crate::support::tools::installed;
use crate::support::tools::is_root;
use crate::support::tools::run;
use crate::support::unsynced;

fn image_of(store: &Store, layers: &[Vec<u8>]) -> Image {
    let base = Fixture::new(platform("linux/amd64"));
    let fixture = layers.iter().cloned().fold(base, Fixture::raw_layer);
    store.image_at(&fixture.write(store).unwrap()).unwrap()
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

/// A setuid program with a second name and one that goes again, a setgid directory, and a device.
fn hostile(store: &Store) -> Image {
    let lower = [
        Item::dir("bin"),
        Item::file("bin/su", "x").mode(0o4755),
        Item::hard_link("bin/also", "bin/su"),
        Item::file("bin/gone", "x").mode(0o2755),
        Item::dir("shared").mode(0o2775),
        Item::device(b'3', "null", 1, 3).mode(0o666),
    ];
    image_of(store, &[tar(&lower), tar(&[Item::file("bin/.wh.gone", "")])])
}

#[test]
fn unpack_reports_setuid_programs_that_others_can_reach() {
    if !is_root() {
        return;
    }
    let scratch = shared_scratch();
    let image = hostile(&scratch.store("store"));
    let done = image.unpack_with(scratch.path("open"), &unsynced()).unwrap();
    let exposed: Vec<_> = done.exposed.iter().map(|found| (found.path.to_str().unwrap(), found.kind)).collect();
    let (set_id, device) = (ExposedKind::SetId, ExposedKind::Device);
    assert_eq!(exposed, [("bin/also", set_id), ("bin/su", set_id), ("null", device)]);
    assert!(!done.has_more_exposed);
    // The tree itself is exact.
    assert_eq!(mode(&scratch.path("open/bin/su")), 0o4755);
    assert_eq!(mode(&scratch.path("open")), 0o755);

    let mine = image.unpack_with(scratch.path("mine"), &unsynced().ownership(Ownership::CurrentUser)).unwrap();
    assert_eq!(mine.exposed.len(), 3);
    let closed = image.unpack_with(scratch.path("jail/deep/root"), &unsynced()).unwrap();
    assert!(closed.exposed.is_empty());
    assert_eq!((mode(&scratch.path("jail")), mode(&scratch.path("jail/deep"))), (0o700, 0o700));
    let layers = image.unpack_with(scratch.path("layers"), &unsynced().layout(Layout::Overlay)).unwrap();
    assert!(layers.exposed.is_empty());
    assert_eq!(mode(&scratch.path("layers")), 0o700);
}

#[test]
fn unpack_leaves_out_setuid_bits_and_devices_on_request() {
    if !is_root() {
        return;
    }
    let scratch = shared_scratch();
    let image = hostile(&scratch.store("store"));
    let options = unsynced().setuid(false).devices(false).strict(true);
    let done = image.unpack_with(scratch.path("root"), &options).unwrap();
    let skipped: Vec<_> = done.skipped.iter().map(|skipped| (skipped.path.to_str().unwrap(), &skipped.what)).collect();
    let (set_id, device) = (&SkippedPart::SetId, &SkippedPart::Device);
    assert_eq!(skipped, [("bin/su", set_id), ("bin/gone", set_id), ("null", device)]);
    assert!(done.exposed.is_empty());
    assert_eq!(mode(&scratch.path("root/bin/su")), 0o755);
    assert_eq!(mode(&scratch.path("root/shared")), 0o2775);
    assert!(!scratch.path("root/null").exists());
}

#[test]
fn unpack_keeps_unverified_setuid_programs_from_other_users() {
    if !has_other_user() {
        return;
    }
    let scratch = shared_scratch();
    let image = hostile(&scratch.store("store"));
    let looked = std::sync::atomic::AtomicUsize::new(0);
    let look = |event: &Event<'_>| {
        if matches!(event, Event::Unpacked { .. }) {
            let hidden = fs::read_dir(scratch.path("")).unwrap().map(|entry| entry.unwrap().path());
            let hidden: Vec<_> = hidden.filter(|path| path.to_str().unwrap().contains(".layercake-")).collect();
            assert_eq!(hidden.len(), 1);
            assert!(hidden[0].join("tree/bin/su").exists());
            let test = run(as_other_user("test").arg("-e").arg(hidden[0].join("tree/bin/su")));
            assert_ne!(test.status, 0, "another user reaches the staging directory");
            looked.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
    };
    let _ = image.unpack_with(scratch.path("root"), &unsynced().observer(&look)).unwrap();
    assert_eq!(looked.into_inner(), 2);
}

/// After an error there is nothing new, parents included.
#[test]
fn failed_unpack_removes_the_parents_it_made() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let image = image_of(&store, &[tar(&[Item::hard_link("a", "missing")])]);
    let options = unsynced().ownership(Ownership::CurrentUser);
    assert!(image.unpack_with(scratch.path("new/er/root"), &options).is_err());
    assert!(!scratch.path("new").exists());
}

/// A root that its owner may not write to cannot be moved between directories by an ordinary user.
#[test]
fn unpack_publishes_a_root_that_its_owner_may_not_write() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let image = image_of(&store, &[tar(&[Item::dir(".").mode(0o555), Item::file("a", "1")])]);
    let _ = image.unpack_with(scratch.path("root"), &unsynced().ownership(Ownership::CurrentUser)).unwrap();
    assert_eq!(mode(&scratch.path("root")), 0o555);
    let left = fs::read_dir(scratch.path(""))
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().file_name().to_str().unwrap().starts_with(".layercake-"));
    assert_eq!(left.count(), 0);
    fs::set_permissions(scratch.path("root"), fs::Permissions::from_mode(0o755)).unwrap();
}

/// Item 4: a name alone proves nothing.
#[test]
fn unpack_removes_only_marked_staging_directories() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let image = image_of(&store, &[tar(&[Item::file("a", "1")])]);
    let options = unsynced().ownership(Ownership::CurrentUser);
    let seen = std::sync::Mutex::new(None);
    let look = |event: &Event<'_>| {
        if matches!(event, Event::Unpacked { .. }) {
            let names = fs::read_dir(scratch.path("")).unwrap().map(|entry| entry.unwrap().file_name());
            *seen.lock().unwrap() = names.into_iter().find(|name| name.to_str().unwrap().starts_with(".layercake-"));
        }
    };
    let _ = image.unpack_with(scratch.path("root"), &options.clone().observer(&look)).unwrap();
    let name = seen.into_inner().unwrap().expect("there was a staging directory").into_string().unwrap();
    let like = |digit: &str| scratch.path(&format!("{}{}", &name[..name.len() - 32], digit.repeat(32)));
    let make = |digit, mode, marked: bool| {
        let path = like(digit);
        fs::create_dir(&path).unwrap();
        fs::create_dir(path.join("tree")).unwrap();
        fs::write(path.join("tree/precious"), "1").unwrap();
        if marked {
            fs::write(path.join("layercake-staging"), "").unwrap();
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    };
    let unmarked = make("0", 0o700, false);
    let open = make("1", 0o755, true);
    let abandoned = make("2", 0o700, true);
    let empty = like("3");
    fs::create_dir(&empty).unwrap();
    fs::set_permissions(&empty, fs::Permissions::from_mode(0o700)).unwrap();
    let killed_early = like("4");
    fs::create_dir(&killed_early).unwrap();
    fs::set_permissions(&killed_early, fs::Permissions::from_mode(0o1700)).unwrap();
    let link = like("5");
    std::os::unix::fs::symlink(&unmarked, &link).unwrap();
    let foreign = make("6", 0o700, true);
    let is_root = rustix::process::geteuid().is_root();
    if is_root {
        give_to_other_user(&foreign);
    }
    fs::remove_dir_all(scratch.path("root")).unwrap();
    let _ = image.unpack_with(scratch.path("root"), &options).unwrap();
    assert!(unmarked.join("tree/precious").exists() && open.join("tree/precious").exists());
    assert!(empty.exists() && link.symlink_metadata().is_ok());
    assert!(!abandoned.exists() && !killed_early.exists());
    assert_eq!(foreign.join("tree/precious").exists(), is_root);
}

/// An xfs of its own, which is shut down without flushing.
struct Xfs(std::path::PathBuf, std::path::PathBuf);

impl Xfs {
    fn new(scratch: &Scratch) -> Option<Xfs> {
        if !is_root() || !installed(&["mkfs.xfs", "xfs_io", "mount", "umount"]) {
            return None;
        }
        let (disk, point) = (scratch.path("disk"), scratch.dir("mnt"));
        fs::File::create(&disk).unwrap().set_len(400 << 20).unwrap();
        run(Command::new("mkfs.xfs").arg("-q").arg(&disk)).ok();
        let xfs = Xfs(disk, point);
        let mounted = run(Command::new("mount").args(["-o", "loop"]).args([&xfs.0, &xfs.1]));
        if mounted.status != 0 {
            println!("ignored: xfs cannot be mounted: {}", mounted.err);
            return None;
        }
        Some(xfs)
    }

    /// Cuts the power, and mounts what is on the disk.
    fn cut(&self) {
        run(Command::new("xfs_io").args(["-x", "-c", "shutdown -f"]).arg(&self.1)).ok();
        crate::support::tools::unmount(&self.1);
        run(Command::new("mount").args(["-o", "loop"]).args([&self.0, &self.1])).ok();
    }
}

impl Drop for Xfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.1).output();
    }
}

/// Item 15: default options. Each tree is made on its own, as one sync brings all of the file system to the disk.
#[test]
fn trees_made_with_default_options_survive_a_power_cut() {
    let scratch = Scratch::new();
    let Some(xfs) = Xfs::new(&scratch) else { return };
    let content = vec![b'x'; 5000];
    let files: Vec<(String, &[u8])> = (0..100).map(|n| (format!("etc/f{n}"), &content[..])).collect();
    let files: Vec<(&str, &[u8])> = files.iter().map(|(name, content)| (&name[..], *content)).collect();
    let store = Store::create(xfs.1.join("store")).unwrap();
    let root = Fixture::new(platform("linux/amd64")).layer(&files).write(&store).unwrap();
    let image = store.image_at(&root).unwrap();
    let whole = |tree: &str| {
        let read = |name: &str| fs::read(xfs.1.join(tree).join(name)).is_ok_and(|found| found == content);
        files.iter().filter(|(name, _)| read(name)).count()
    };
    let options = layercake::changeset::Options::new();
    let _ = image.unpack_with(xfs.1.join("new/parent/flat"), &options).unwrap();
    // What is open keeps the file system busy.
    drop((image, store));
    xfs.cut();
    assert_eq!(whole("new/parent/flat"), 100);
    let image = || Store::open(xfs.1.join("store")).unwrap().image_at(&root).unwrap();
    let _ = image().unpack_with(xfs.1.join("layers"), &options.clone().layout(Layout::Overlay)).unwrap();
    xfs.cut();
    assert_eq!(whole("layers/1"), 100);
    let copy = layercake::checkout::CheckoutOptions::new().mode(layercake::checkout::CheckoutMode::Copy);
    drop(image().checkout_with(xfs.1.join("work"), &copy).unwrap());
    xfs.cut();
    assert_eq!(whole("work/root"), 100);
    fs::create_dir(xfs.1.join("applied")).unwrap();
    let layer = tar(&files.iter().map(|(name, content)| Item::file(name, content)).collect::<Vec<_>>());
    let _ = layercake::changeset::apply(&layer[..], xfs.1.join("applied"), &options).unwrap();
    xfs.cut();
    // The directory is the caller's, and was on the disk after the sync.
    assert_eq!(whole("applied"), 100);
    // Without durability, the tree is there sooner, and nothing is promised.
    let _ = image().unpack_with(xfs.1.join("fast"), &options.durability(Durability::None)).unwrap();
    assert_eq!(whole("fast"), 100);
}
