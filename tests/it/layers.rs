//! What layers do to a directory: its attributes, whose things are, and what AUFS left in old layers.

mod access;
mod left_out;
mod marks;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;

use layercake::ErrorKind;
use layercake::Image;
use layercake::changeset::IdMap;
use layercake::changeset::Layout;
use layercake::changeset::Options;
use layercake::changeset::Ownership;
use layercake::changeset::apply;
use layercake::testing::Fixture;

use crate::assert_kind;
use crate::breakouts::listing;
use crate::breakouts::options;
use crate::support::Scratch;
use crate::support::failure;
use crate::support::platform;
use crate::support::tape::Item;
use crate::support::tape::tar;
use crate::support::tools::is_root;
use crate::support::tree;
use crate::support::unsynced;

/// Linux' form of "may bind low ports".
const CAPABILITY: &[u8] = b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

/// An image of these layers, in a store of its own.
#[track_caller]
fn image(scratch: &Scratch, layers: &[&[Item]]) -> Image {
    let store = scratch.store("store");
    let fixture = Fixture::new(platform("linux/amd64"));
    let fixture = layers.iter().fold(fixture, |fixture, layer| fixture.raw_layer(tar(layer)));
    store.image_at(&fixture.write(&store).unwrap()).unwrap()
}

/// A new directory with these layers, all of which can be applied.
#[track_caller]
fn applied(scratch: &Scratch, name: &str, layers: &[&[Item]], options: &Options<'_>) -> PathBuf {
    let root = scratch.dir(name);
    for layer in layers {
        let done = apply(&tar(layer)[..], &root, options).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(done.skipped, [], "{name}");
    }
    root
}

/// How many things lie in a directory, hidden ones too.
fn count(directory: &Path) -> usize {
    fs::read_dir(directory).unwrap().count()
}

/// L2: a directory over a directory takes its place in all but its children. So does the root (L12).
#[test]
fn a_directory_over_a_directory_keeps_nothing_but_children() {
    let access = access::list(0o7, 0o7);
    let old = [
        Item::dir("./").xattr("user.old", "1").mode(0o700),
        Item::dir("d").xattr("user.old", "1").xattr("user.both", "1").mode(0o700),
        Item::file("d/f", "f").xattr("user.of-a-child", "1"),
        Item::dir("d/sub").xattr("user.of-a-child", "1"),
        Item::dir("shared").xattr("system.posix_acl_access", &access).xattr("system.posix_acl_default", &access),
    ];
    let new = [
        Item::dir("./").xattr("user.new", "2").mtime(7),
        Item::dir("d").xattr("user.both", "2").xattr("user.new", "2").mode(0o2711).mtime(8),
        Item::dir("shared").mode(0o750).mtime(9),
    ];
    let scratch = Scratch::new();
    let expected = applied(&scratch, "expected", &[&[&new[..], &old[2..4]].concat()], &options());
    for (name, options) in [("found", options()), ("walked", options().without_openat2())] {
        let found = applied(&scratch, name, &[&old, &new], &options);
        assert_eq!(tree::lines(&found), tree::lines(&expected), "{name}");
    }
    let target = scratch.path("unpacked");
    let _ = image(&scratch, &[&old, &new]).unpack_with(&target, &options()).unwrap();
    assert_eq!(tree::lines(&target), tree::lines(&expected));
}

/// L15: a change of owner takes setuid, setgid and capabilities away, so it comes before them. A hard link's own mode and
/// owner are nobody's (L10).
#[test]
fn special_bits_survive_a_change_of_owner() {
    let owner = |item: Item| if rustix::process::geteuid().is_root() { item.owner(1, 2) } else { item };
    let mut layer = vec![
        owner(Item::file("both", "x").mode(0o6755)),
        owner(Item::file("all", "x").mode(0o7777)),
        Item::hard_link("again", "both").mode(0o600).owner(7, 7),
        owner(Item::dir("dir").mode(0o3777)),
        owner(Item::fifo("pipe").mode(0o6600)),
    ];
    if is_root() {
        layer.push(owner(Item::file("capable", "x").mode(0o4711).xattr("security.capability", CAPABILITY)));
    }
    let scratch = Scratch::new();
    // The second time everything is there already.
    let root = applied(&scratch, "root", &[&layer, &layer], &options());
    let mode = |name: &str| fs::symlink_metadata(root.join(name)).unwrap().mode() & 0o7777;
    let modes = ["both", "again", "all", "dir", "pipe"].map(mode);
    assert_eq!(modes, [0o6755, 0o6755, 0o7777, 0o3777, 0o6600]);
    if is_root() {
        assert_eq!(mode("capable"), 0o4711);
        assert_eq!(tree::xattr(&root.join("capable"), "security.capability"), CAPABILITY);
        assert_eq!(owner_of(&root.join("again")), (1, 2));
    }
}

fn owner_of(path: &Path) -> (u32, u32) {
    let stat = fs::symlink_metadata(path).unwrap();
    (stat.uid(), stat.gid())
}

fn mapped(uids: &[(u32, u32, u32)], gids: &[(u32, u32, u32)]) -> Options<'static> {
    let map = |ranges: &[(u32, u32, u32)]| IdMap::new(ranges.iter().copied());
    unsynced().ownership(Ownership::Mapped { uids: map(uids), gids: map(gids) })
}

/// Two ranges that touch; those of groups stand in another order, and lie elsewhere.
fn two_ranges() -> Options<'static> {
    mapped(&[(0, 100_000, 10), (10, 200_000, 5)], &[(10, 400_000, 5), (0, 300_000, 10)])
}

/// The ends of ranges are in them, and of two that overlap the first one counts. No number becomes "leave it as it is".
#[test]
fn ranges_of_ids_end_where_they_end() {
    let map = IdMap::new([(0, 100_000, 10), (10, 200_000, 5), (12, 300_000, 5), (30, 0, 0), (40, u32::MAX - 1, 5)]);
    let outside = [0, 9, 10, 14, 15, 16, 17, 30, 40, 41, 42, u32::MAX].map(|id| map.outside(id));
    let some = [100_000, 100_009, 200_000, 200_004, 300_003, 300_004].map(Some);
    let rest = [None, None, Some(u32::MAX - 1), None, None, None];
    assert_eq!(outside[..], [some, rest].concat());
    assert_eq!(IdMap::new([(0, 0, u32::MAX)]).outside(u32::MAX), None);
    assert_eq!(IdMap::default().outside(0), None);
}

/// L1: everything is owned by whom the map says, what no layer describes by root inside. A hard link's own owner is
/// nobody's (L10), so no map needs to have it.
#[test]
fn owners_are_mapped() {
    if !is_root() {
        return;
    }
    let layer = [
        Item::file("first", "x").owner(0, 9),
        Item::file("last", "x").owner(9, 0),
        Item::symlink("next", "first").owner(10, 14),
        Item::dir("dir").owner(14, 10),
        Item::fifo("pipe").owner(9, 10),
        Item::device(b'3', "null", 1, 3).owner(10, 9),
        Item::hard_link("link", "first").owner(77, 77),
        Item::file("implied/.wh.x", "").owner(77, 77),
        Item::file("implied/f", "x").owner(1, 1),
    ];
    let expected = [
        ("", 100_000, 300_000),
        ("first", 100_000, 300_009),
        ("last", 100_009, 300_000),
        ("next", 200_000, 400_004),
        ("dir", 200_004, 400_000),
        ("pipe", 100_009, 400_000),
        ("null", 200_000, 300_009),
        ("link", 100_000, 300_009),
        ("implied", 100_000, 300_000),
        ("implied/f", 100_001, 300_001),
    ];
    let scratch = Scratch::new();
    let image = image(&scratch, &[&layer]);
    for (target, layout, below) in [("flat", Layout::Flat, ""), ("layers", Layout::Overlay, "1")] {
        let target = scratch.path(target);
        let done = image.unpack_with(&target, &two_ranges().layout(layout)).unwrap();
        assert_eq!(done.skipped, []);
        for (path, uid, gid) in expected {
            assert_eq!(owner_of(&target.join(below).join(path)), (uid, gid), "{layout:?}: {path}");
        }
    }
}

/// Where root has no number, what no layer describes is the caller's.
#[test]
fn a_map_without_root_implies_the_caller() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let target = scratch.path("root");
    let options = mapped(&[(1000, 100_000, 1)], &[(1000, 200_000, 1)]);
    let layer = [Item::file("implied/f", "x").owner(1000, 1000)];
    let _ = image(&scratch, &[&layer]).unpack_with(&target, &options).unwrap();
    let owners = ["", "implied", "implied/f"].map(|path| owner_of(&target.join(path)));
    assert_eq!(owners, [(0, 0), (0, 0), (100_000, 200_000)]);
}

/// An owner, or a group, without a number outside is an error that names it, whatever it owns, and leaves nothing.
#[test]
fn an_owner_outside_of_the_map_leaves_nothing() {
    if !is_root() {
        return;
    }
    let items = [
        Item::file("a", "x"),
        Item::dir("a"),
        Item::dir("./"),
        Item::symlink("a", "b"),
        Item::fifo("a"),
        Item::device(b'3', "a", 1, 3),
    ];
    for item in items {
        for (uid, gid, reason) in [(15, 0, "owner 15"), (0, 15, "group 15"), (u32::MAX - 1, 0, "owner 4294967294")] {
            let scratch = Scratch::new();
            let targets = scratch.dir("targets");
            let image = image(&scratch, &[&[Item::file("good", "x")], &[item.clone().owner(uid, gid)]]);
            for layout in [Layout::Flat, Layout::Overlay] {
                let error = failure(image.unpack_with(targets.join("root"), &two_ranges().layout(layout)));
                assert_kind!(error, ErrorKind::InvalidInput(_));
                let expected = format!("{reason} lies outside of the map of ids");
                assert!(error.to_string().contains(&expected), "{error}");
                assert_eq!(count(&targets), 0, "{layout:?}: {reason}");
            }
        }
    }
}

/// Two layers as AUFS kept them: what has several names lies in a directory of AUFS' own, or is linked into it.
fn of_aufs() -> [Vec<Item>; 2] {
    let base = vec![
        Item::dir("./").mtime(5),
        Item::file(".wh..wh.aufs", "").mode(0o444),
        Item::dir(".wh..wh.orph").mode(0o700),
        Item::dir(".wh..wh.plnk").mode(0o700),
        Item::file(".wh..wh.plnk/74.1", "one").mode(0o640).mtime(6),
        Item::hard_link("a", ".wh..wh.plnk/74.1"),
        Item::hard_link("d/b", "/.wh..wh.plnk/74.1"),
        Item::file("c", "two"),
        Item::hard_link(".wh..wh.plnk/75.1", "c"),
    ];
    // The numbers of another layer are others.
    let change = vec![
        Item::file(".wh..wh.plnk/74.1", "three"),
        Item::hard_link("e", ".wh..wh.plnk/74.1"),
        Item::hard_link("f", "./.wh..wh.plnk/74.1"),
    ];
    [base, change]
}

/// L6: what AUFS kept at the root is not the image's, but what is one more name of something there is.
#[test]
fn aufs_own_directories_do_not_remain() {
    let [base, change] = of_aufs();
    let scratch = Scratch::new();
    for (name, layout) in [("flat", Layout::Flat), ("marked", Layout::Overlay)] {
        let root = applied(&scratch, name, &[&base, &change], &options().layout(layout));
        let expected = ["a: one", "c: two", "d/", "d/b = a", "e: three", "f = e"];
        assert_eq!(listing(&root), expected, "{name}");
        let stat = |path: &str| fs::symlink_metadata(root.join(path)).unwrap();
        assert_eq!((stat("a").mode() & 0o7777, stat("a").mtime(), stat("a").nlink()), (0o640, 6, 2), "{name}");
        assert_eq!((stat("c").nlink(), stat("").mtime()), (1, 5), "{name}");
    }
    let image = image(&scratch, &[&base, &change]);
    let _ = image.unpack_with(scratch.path("layers"), &options().layout(Layout::Overlay)).unwrap();
    assert_eq!(listing(&scratch.path("layers/1")), ["a: one", "c: two", "d/", "d/b = a"]);
    assert_eq!(listing(&scratch.path("layers/2")), ["e: three", "f = e"]);
}

/// L6: nor does what AUFS had in its directory of files that are open and have no name.
#[test]
fn aufs_orphans_do_not_appear() {
    let scratch = Scratch::new();
    let layer = [Item::dir(".wh..wh.orph"), Item::file(".wh..wh.orph/1234", "x"), Item::file("a", "a")];
    assert_eq!(listing(&applied(&scratch, "root", &[&layer], &options())), ["a: a"]);
}

/// L15: each has the owner that its entry says, whatever the directory gives to what is made in it: one that hands its group
/// on, since a layer below or since an entry for the root in the middle of a layer, and others' directories.
#[test]
fn owners_are_as_they_are_said_to_be_wherever_it_lies() {
    if !is_root() {
        println!("ignored: needs root");
        return;
    }
    let file = |path: &str, uid, gid| Item::file(path, path).owner(uid, gid);
    let lower = [
        Item::dir("shared").mode(0o2775).owner(0, 50),
        Item::dir("home").mode(0o2755).owner(1000, 1000),
        file("shared/0", 0, 0),
        file("first", 0, 0),
        file("second", 0, 50),
        Item::dir(".").mode(0o2755).owner(0, 50),
        file("third", 0, 0),
        file("fourth", 0, 50),
    ];
    let upper = [
        file("shared/1", 0, 0),
        file("shared/2", 0, 50),
        file("shared/3", 7, 50),
        Item::symlink("shared/4", "1").owner(0, 0),
        Item::fifo("shared/5").owner(0, 50),
        file("shared/6", 0, 0),
        file("home/1", 1000, 1000),
        file("home/2", 0, 1000),
        file("home/3", 0, 0),
        file("fifth", 0, 50),
        file("sixth", 0, 0),
        file("seventh", 65534, 65534),
    ];
    let scratch = Scratch::new();
    let found = applied(&scratch, "found", &[&lower, &upper], &unsynced());
    let made = scratch.path("made");
    let done = image(&scratch, &[&lower, &upper]).unpack(&made).unwrap();
    assert_eq!(done.skipped, []);
    for root in [found, made] {
        for item in lower.iter().chain(&upper) {
            let bytes = item.bytes();
            let number = |at: usize| {
                let digits = std::str::from_utf8(&bytes[at..at + 7]).unwrap();
                u32::from_str_radix(digits.trim_matches(['\0', ' ']), 8).unwrap()
            };
            let name = bytes[..100].split(|byte| *byte == 0).next().unwrap();
            let path = root.join(std::str::from_utf8(name).unwrap());
            let stat = fs::symlink_metadata(&path).unwrap();
            assert_eq!((stat.uid(), stat.gid()), (number(108), number(116)), "{}", path.display());
        }
    }
}
