//! Working copies in places that are not like others: file systems that share content, users who may not mount, images of
//! very many layers.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use layercake::Checkout;
use layercake::Durability;
use layercake::ErrorKind;
use layercake::checkout::CheckoutMode;
use layercake::checkout::CheckoutOptions;
use layercake::checkout::OpenOptions;
use layercake::testing::Fixture;

use super::checkout;
use super::listed;
use crate::support::Scratch;
use crate::support::failure;
use crate::support::neighbours::as_other_user;
use crate::support::neighbours::give_to_other_user;
use crate::support::neighbours::public_example;
use crate::support::neighbours::shared_scratch;
use crate::support::platform;
use crate::support::tape::Item;
use crate::support::tape::tar;
use crate::support::tools::example;
use crate::support::tools::install;
use crate::support::tools::installed;
use crate::support::tools::is_root;
use crate::support::tools::mounts_overlays;
use crate::support::tools::run;
use crate::support::tools::unmount;
use crate::support::tree::lines;

/// A file system in a file, mounted; it is gone when this is dropped.
struct Disk(PathBuf);

impl Disk {
    /// One that can share content among files.
    fn xfs(scratch: &Scratch) -> Disk {
        let (image, place) = (scratch.path("disk.img"), scratch.dir("disk"));
        let file = fs::File::create(&image).unwrap();
        file.set_len(400 << 20).unwrap();
        run(Command::new("mkfs.xfs").args(["-q", "-m", "reflink=1"]).arg(&image)).ok();
        run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&place)).ok();
        Disk(place)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

fn used(path: &Path) -> u64 {
    let stat = rustix::fs::statvfs(path).unwrap();
    (stat.f_blocks - stat.f_bfree) * stat.f_frsize
}

/// A reflink takes no room, is what a copy is, and what is written to it reaches nothing else; committed, it makes the
/// layer that the other modes make.
#[test]
fn reflinks_share_and_are_apart() {
    if !is_root() || !installed(&["mkfs.xfs"]) {
        return;
    }
    let scratch = Scratch::new();
    let disk = Disk::xfs(&scratch);
    let store = layercake::Store::create(disk.0.join("store")).unwrap();
    let big: Vec<u8> = (0..20_u32 << 20).map(|n| (n / 7) as u8).collect();
    let fixture = Fixture::new(platform("linux/amd64")).layer(&[("srv/big", &big), ("etc/motd", b"hello\n")]);
    let image = store.image_at(&fixture.write(&store).unwrap()).unwrap();
    let copy = checkout(&image, &disk.0.join("copy"), CheckoutMode::Copy);
    let before = used(&disk.0);
    let work = checkout(&image, &disk.0.join("work"), CheckoutMode::Reflink);
    rustix::fs::syncfs(fs::File::open(&disk.0).unwrap()).unwrap();
    let grown = used(&disk.0).saturating_sub(before);
    assert!(grown < 4 << 20, "{grown} bytes for a copy of 20 MiB");
    assert_eq!(lines(work.root()), lines(copy.root()));
    assert!(work.changes().unwrap().is_empty());

    let created = layercake::checkout::CommitOptions::new().created(std::time::SystemTime::UNIX_EPOCH);
    for work in [&work, &copy] {
        fs::write(work.root().join("etc/motd"), "changed\n").unwrap();
        assert_eq!(listed(&work.changes().unwrap()), ["M etc/motd"]);
    }
    let [one, two] = [&work, &copy].map(|work| work.commit_with(&created).unwrap());
    assert_eq!(one.digest(), two.digest());
    let other = checkout(&image, &disk.0.join("other"), CheckoutMode::Reflink);
    assert_eq!(fs::read_to_string(other.root().join("etc/motd")).unwrap(), "hello\n");
    for work in [work, copy, other] {
        work.discard().unwrap();
    }
    // On another file system there is nothing to share.
    let options = CheckoutOptions::new().mode(CheckoutMode::Reflink);
    crate::assert_kind!(failure(image.checkout_with(scratch.path("far"), &options)), ErrorKind::Io { .. });
    assert!(!scratch.path("far").exists());
}

/// More layers than overlayfs takes in one mount, by one and by many, and whiteouts among them.
#[test]
fn more_layers_than_one_mount_takes() {
    if !is_root() || !mounts_overlays() {
        return;
    }
    for count in [481, 620] {
        show_layers(count);
    }
}

fn show_layers(count: u32) {
    let scratch = Scratch::new();
    let store = scratch.store("store").with_durability(Durability::None);
    let mut fixture = Fixture::new(platform("linux/amd64"));
    for n in 0..count {
        let mut items = vec![Item::dir("d/"), Item::file(format!("d/{n}"), format!("{n}\n"))];
        if n % 7 == 1 {
            items.push(Item::file(format!("d/.wh.{}", n - 1), ""));
        }
        fixture = fixture.raw_layer(tar(&items));
    }
    let image = store.image_at(&fixture.write(&store).unwrap()).unwrap();
    let work = checkout(&image, &scratch.path("work"), CheckoutMode::Overlay);
    let _ = image.unpack(scratch.path("rootfs")).unwrap();
    assert_eq!(lines(work.root()), lines(&scratch.path("rootfs")));
    fs::remove_file(work.root().join("d/3")).unwrap();
    fs::write(work.root().join("d/480"), "changed\n").unwrap();
    assert_eq!(listed(&work.changes().unwrap()), ["D d/3", "M d/480"]);
    let path = work.path().to_owned();
    work.discard().unwrap();
    assert!(!path.exists());
}

/// Who may not mount is told what to mount, and what changes is read all the same.
#[test]
fn without_the_right_to_mount() {
    if !is_root() || !installed(&["setpriv"]) {
        return;
    }
    let scratch = Scratch::new();
    let home = scratch.dir("home");
    // The whole way to it has to be open to others.
    for path in [home.as_path(), home.parent().unwrap()] {
        fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    let image = crate::support::name("example.com/app:1");
    let store = layercake::Store::create(home.join("store")).unwrap();
    Fixture::demo().tag(&store, &image).unwrap();
    run(Command::new("chown").arg("-R").arg("1000:1000").arg(&home)).ok();
    let as_user = |program: &str, arguments: &[&str]| {
        let example = example(program);
        let copy = home.join(program);
        install(example.get_program(), &copy);
        let mut command = Command::new("setpriv");
        command.args(["--reuid=1000", "--regid=1000", "--clear-groups"]).arg(copy).args(arguments);
        run(command.current_dir(&home).env("LAYERCAKE_STORE", home.join("store")))
    };
    for mode in ["copy", "overlay"] {
        let ran = as_user("checkout", &["--mode", mode, "example.com/app:1", "work"]);
        assert_eq!(ran.status, 0, "{ran:?}");
        let root = PathBuf::from(ran.out.trim_end());
        assert_eq!(fs::metadata(&root).unwrap().uid(), 1000);
        if mode == "overlay" {
            assert!(ran.err.contains("not mounted: mount -t overlay -o 'lowerdir="), "{ran:?}");
            assert!(ran.err.contains(",userxattr,nosuid,nodev'"), "{ran:?}");
            // What somebody mounts with these options, here root.
            let work = Checkout::open_with(home.join("work"), &OpenOptions::new().trust(&home)).unwrap();
            work.mount().unwrap();
            assert!(work.is_mounted(), "root may mount");
            fs::write(work.root().join("etc/motd"), "changed\n").unwrap();
            fs::remove_file(work.root().join("usr/bin/greet")).unwrap();
        } else {
            run(Command::new("setpriv")
                .args(["--reuid=1000", "--regid=1000", "--clear-groups", "sh", "-c"])
                .arg(format!("cd {0} && echo changed > etc/motd && rm usr/bin/greet", root.display())))
            .ok();
        }
        assert_eq!(as_user("status", &["work"]).ok(), "C /etc/motd\nD /usr/bin/greet\n");
        as_user("commit", &["-m", "as a user", "work", &format!("example.com/{mode}:1")]).ok();
        if mode == "overlay" {
            let open = OpenOptions::new().trust(home.join("work")).trust(home.join("store"));
            Checkout::open_with(home.join("work"), &open).unwrap().discard().unwrap();
        } else {
            as_user("discard", &["work"]).ok();
        }
        assert!(!home.join("work").exists());
    }
}

/// Something that is mounted in a working copy is not removed with it.
#[test]
fn what_is_mounted_in_it_stays() {
    if !is_root() || !mounts_overlays() {
        return;
    }
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let image = store.image_at(&Fixture::demo().write(&store).unwrap()).unwrap();
    let precious = scratch.dir("precious");
    fs::write(precious.join("file"), "mine\n").unwrap();
    for mode in [CheckoutMode::Overlay, CheckoutMode::Copy] {
        let path = scratch.path("work");
        let work = checkout(&image, &path, mode);
        let point = work.root().join("mnt");
        fs::create_dir(&point).unwrap();
        run(Command::new("mount").arg("--bind").arg(&precious).arg(&point)).ok();
        assert!(work.discard().is_err(), "{mode}");
        assert_eq!(fs::read_to_string(precious.join("file")).unwrap(), "mine\n");
        unmount(&point);
        Checkout::open(&path).unwrap().discard().unwrap();
        assert!(!path.exists());
    }
}

/// The root of a user namespace may mount, and not more: overlayfs' attributes are the user's there.
#[test]
fn in_a_user_namespace() {
    if !is_root() || !installed(&["setpriv", "unshare"]) || !mounts_overlays() {
        return;
    }
    let scratch = Scratch::new();
    let home = scratch.dir("home");
    for path in [home.as_path(), home.parent().unwrap()] {
        fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    let below = [Item::dir("d/"), Item::file("d/gone", "x"), Item::dir("e/"), Item::file("e/old", "x")];
    let above = [Item::dir("d/"), Item::file("d/.wh.gone", ""), Item::dir("e/"), Item::file("e/.wh..wh..opq", "")];
    let fixture = Fixture::new(platform("linux/amd64")).raw_layer(tar(&below)).raw_layer(tar(&above));
    let store = layercake::Store::create(home.join("store")).unwrap();
    fixture.tag(&store, &crate::support::name("example.com/app:1")).unwrap();
    for program in ["checkout", "status", "commit", "discard"] {
        install(example(program).get_program(), &home.join(program));
    }
    run(Command::new("chown").arg("-R").arg("1000:1000").arg(&home)).ok();
    let script = "set -e; root=$(./checkout --mode overlay example.com/app:1 work); \
                  grep -q \" $root overlay \" /proc/mounts; find $root/d $root/e -mindepth 1; \
                  echo new > $root/d/new; rm -r $root/e; ./status work; ./commit work example.com/app:2 > /dev/null; ./discard work";
    let mut command = Command::new("setpriv");
    command.args(["--reuid=1000", "--regid=1000", "--clear-groups", "unshare", "--user", "--map-root-user", "--mount"]);
    command.args(["sh", "-c", script]).current_dir(&home).env("LAYERCAKE_STORE", home.join("store"));
    assert_eq!(run(&mut command).ok(), "A /d/new\nD /e\n");
    assert!(!home.join("work").exists());
    let committed = store.image(crate::support::name("example.com/app:2")).unwrap();
    let _ = committed.unpack(scratch.path("rootfs")).unwrap();
    assert_eq!(fs::read_to_string(scratch.path("rootfs/d/new")).unwrap(), "new\n");
    assert!(!scratch.path("rootfs/e").exists());
}

/// The root of a user namespace with a single id (`unshare -r`, the usual sandbox) can give files to no other owner. By
/// default all files are then its own, in a checkout and in an unpack; asking for the owners of the image is an error
/// with the remedy.
#[test]
fn defaults_work_in_a_user_namespace_with_a_single_id() {
    if !is_root() || !installed(&["setpriv", "unshare"]) {
        return;
    }
    let scratch = shared_scratch();
    let home = scratch.dir("home");
    let items = [Item::file("mine", "root's\n"), Item::file("theirs", "www's\n").owner(33, 33)];
    let store = layercake::Store::create(home.join("store")).unwrap();
    let fixture = Fixture::new(platform("linux/amd64")).raw_layer(tar(&items));
    fixture.tag(&store, &crate::support::name("example.com/app:1")).unwrap();
    for program in ["checkout", "status", "commit", "discard", "unpack"] {
        public_example(program, &scratch);
    }
    give_to_other_user(&home);
    let script = "../checkout --mode copy example.com/app:1 work >/dev/null; ../status work; \
                  echo new > work/root/mine; ../status work; ../commit work example.com/app:2 >/dev/null; ../discard work; \
                  ../unpack --quiet example.com/app:2 rootfs >&2; cat rootfs/mine rootfs/theirs";
    let mut command = as_other_user("unshare");
    command.args(["--user", "--map-root-user", "sh", "-euc", script]);
    command.current_dir(&home).env("LAYERCAKE_STORE", home.join("store"));
    assert_eq!(run(&mut command).ok(), "C /mine\nnew\nwww's\n");
    // The same working copy, made outside and looked at inside.
    let mut outside = as_other_user(scratch.path("checkout"));
    outside.args(["--mode", "copy", "example.com/app:1", "outside"]).current_dir(&home);
    run(outside.env("LAYERCAKE_STORE", home.join("store"))).ok();
    let mut inside = as_other_user("unshare");
    inside.args(["--user", "--map-root-user"]).arg(scratch.path("status")).arg("outside").current_dir(&home);
    assert_eq!(run(&mut inside).ok(), "");
    // Other users do not get other owners without asking for it.
    let mut plain = as_other_user(scratch.path("unpack"));
    plain.args(["--quiet", "example.com/app:1", "plain"]).current_dir(&home).env("LAYERCAKE_STORE", home.join("store"));
    let ran = run(&mut plain);
    assert_eq!(ran.status, 1, "{ran:?}");
    assert!(ran.err.contains("run as root, or use Ownership::CurrentUser"), "{ran:?}");
}
