//! Cases by hand; each is compared with the disk too.

use layercake::Cancel;
use layercake::ErrorKind;
use layercake::MediaType;
use layercake::changeset::DiffOptions;
use layercake::changeset::Options;
use serde_json::json;

use super::always;
use super::changes;
use super::changes_with;
use super::stacked;
use super::tars;
use crate::assert_kind;
use crate::support::Scratch;
use crate::support::blob_path;
use crate::support::failure;
use crate::support::tape::Item;

fn base() -> Vec<Item> {
    vec![
        Item::dir("etc").mtime(5),
        Item::file("etc/motd", "hello").mtime(5),
        Item::file("etc/conf/a", "a"),
        Item::dir("usr"),
        Item::file("usr/tool", "tool"),
        Item::hard_link("usr/alias", "usr/tool"),
        Item::symlink("lib", "usr"),
    ]
}

/// C1, C3: each attribute counts, alone; what is gone is listed once, with all that was in it.
#[test]
fn everything_that_a_layer_can_say_counts() {
    let motd = || Item::file("etc/motd", "hello").mtime(5);
    for (item, expected) in [
        (motd(), &[][..]),
        (motd().content("HELLO"), &["M etc/motd 5"]),
        (motd().content("longer"), &["M etc/motd 6"]),
        (motd().mtime(6), &["M etc/motd 5"]),
        (motd().mode(0o600), &["M etc/motd 5"]),
        (motd().owner(0, 7), &["M etc/motd 5"]),
        (motd().xattr("user.note", "x"), &["M etc/motd 5"]),
        (Item::dir("etc/motd"), &["M etc/motd/ 0"]),
        (Item::file("etc/motd/x/y", "xyz"), &["M etc/motd/ 0", "A etc/motd/x/ 0", "A etc/motd/x/y 3"]),
        (Item::file(".wh.etc", ""), &["D etc/ 0"]),
        (Item::file("etc/.wh.motd", ""), &["D etc/motd 5"]),
        (Item::file("etc", "file"), &["M etc 4"]),
        (Item::symlink("lib", "etc"), &["M lib 0"]),
        (Item::symlink("lib", "usr").mode(0o600), &[]),
        (Item::dir("etc").mtime(99), &[]),
        (Item::dir("etc").mode(0o700), &["M etc/ 0"]),
        (Item::dir("./").mode(0o700).owner(9, 9), &[]),
        (Item::file("lib/new", "1"), &["A usr/new 1"]),
        (Item::file("../../usr/./x/../new", "1"), &["A usr/new 1"]),
        (Item::fifo("pipe"), &["A pipe 0"]),
    ] {
        assert_eq!(changes(&[&base()], &[&base(), &[item]]), expected);
    }
}

/// C1: names sort as if `/` were lowest; devices are told apart.
#[test]
fn changes_are_in_order() {
    let old = [Item::device(b'3', "null", 1, 3), Item::device(b'3', "same", 1, 3), Item::file("a-b", "1")];
    let new = [Item::device(b'3', "null", 1, 5), Item::device(b'3', "same", 1, 3), Item::file("a/b", "")];
    let top = [Item::file("a.b", "22"), Item::device(b'4', "same", 1, 3)];
    assert_eq!(changes(&[&old], &[&new]), ["A a/ 0", "A a/b 0", "D a-b 1", "M null 0"]);
    assert_eq!(changes(&[&old], &[&old, &top]), ["A a.b 2", "M same 0"]);
}

/// C3: contents of one size and one second are compared, wherever they stand; those of equal fractions if that is asked
/// for.
#[test]
fn contents_are_compared_where_they_may_differ() {
    let fine = |content: &str| Item::file("f", content).pax("mtime", "7.5");
    assert_eq!(changes(&[&[fine("one")]], &[&[fine("two")]]), [""; 0]);
    assert_eq!(changes_with(&[&[fine("one")]], &[&[fine("two")]], &always()), ["M f 3"]);
    assert_eq!(changes_with(&[&[fine("one")]], &[&[fine("one")], &[fine("one")]], &always()), [""; 0]);
    // Something that stands in a layer which both have, under something that stands elsewhere.
    let (shared, same) = ([Item::file("f", "one"), Item::file("g", "1")], [Item::file("f", "one")]);
    let other = [Item::file("f", "two"), Item::file("h", "")];
    assert_eq!(changes(&[&shared, &same], &[&shared]), [""; 0]);
    assert_eq!(changes(&[&shared, &same], &[&shared, &other]), ["M f 3", "A h 0"]);
    assert_eq!(changes(&[&other, &shared], &[&shared, &other]), ["M f 3"]);
}

/// Holes are zeros.
#[test]
fn holes_are_content() {
    let sparse = Item::file("s", "AB").pax("GNU.sparse.size", "8").pax("GNU.sparse.numblocks", "3");
    let sparse = [sparse.pax("GNU.sparse.map", "2,1,6,1,8,0")];
    let whole = |content: &[u8]| Item::file("s", content);
    assert_eq!(changes(&[&sparse], &[&[whole(b"\0\0A\0\0\0B\0")]]), [""; 0]);
    assert_eq!(changes(&[&sparse], &[&[whole(b"\0\0A\0\0\0\0B")]]), ["M s 8"]);
}

/// C4: all names of a file that changed, or got or lost one that is there.
#[test]
fn names_of_one_file_are_listed_together() {
    let more = changes(&[&base()], &[&base(), &[Item::hard_link("etc/tool", "lib/tool")]]);
    assert_eq!(more, ["A etc/tool 4", "M usr/alias 4", "M usr/tool 4"]);
    let torn = changes(&[&base()], &[&base(), &[Item::file("usr/alias", "tool")]]);
    assert_eq!(torn, ["M usr/alias 4", "M usr/tool 4"]);
    let less = changes(&[&base()], &[&base(), &[Item::file("usr/.wh.alias", "")]]);
    assert_eq!(less, ["D usr/alias 4"]);
    let joined = [Item::file("a", "1"), Item::file("b", "1")];
    let one = [Item::file("a", "1"), Item::hard_link("b", "a")];
    assert_eq!(changes(&[&joined], &[&one]), ["M a 1", "M b 1"]);
    assert_eq!(changes(&[&one], &[&joined]), ["M a 1", "M b 1"]);
    assert_eq!(changes(&[&one], &[&[Item::file("b", "1"), Item::hard_link("a", "b")]]), [""; 0]);
}

/// L3, L4, L6: whiteouts hide what is below them, wherever they stand in their layer; what AUFS kept is not there.
#[test]
fn whiteouts_hide_what_is_below() {
    let new = Item::file("etc/new", "1");
    let opaque = Item::file("etc/.wh..wh..opq", "");
    let expected = ["D etc/conf/ 0", "D etc/motd 5", "A etc/new 1"];
    assert_eq!(changes(&[&base()], &[&base(), &[new.clone(), opaque.clone()]]), expected);
    assert_eq!(changes(&[&base()], &[&base(), &[opaque, new.clone()]]), expected);
    // A directory that stays only for what is in it is as if nobody had described it.
    let locked = [Item::dir("etc").mode(0o700), Item::file("etc/old", "")];
    let hidden = [new, Item::file(".wh.etc", "")];
    assert_eq!(changes(&[&locked], &[&locked, &hidden]), ["M etc/ 0", "A etc/new 1", "D etc/old 0"]);
    let aufs = [Item::file(".wh..wh.plnk/1", "x"), Item::hard_link("x", ".wh..wh.plnk/1")];
    assert_eq!(changes(&[&base()], &[&base(), &aufs]), ["A x 1"]);
}

/// C6, L16, L17: attributes count, but for the host's, overlayfs', those that nothing can hold, and the namespace of
/// capabilities.
#[test]
fn attributes_count_but_for_the_hosts() {
    let file = || Item::file("f", "x");
    let with = |first: u32, more: &[u8]| [&first.to_le_bytes(), more].concat();
    let two = with(0x0200_0001, &[7; 16]);
    let three = with(0x0300_0001, &[[7; 16].as_slice(), &1000_u32.to_le_bytes()].concat());
    for (old, new, expected) in [
        (file(), file().xattr("security.selinux", "x"), &[][..]),
        (file(), file().xattr("trusted.overlay.opaque", "y"), &[]),
        (file(), file().pax("LIBARCHIVE.xattr.user.a%3Db", "eA"), &[]),
        (file(), file().xattr("trusted.x", "y"), &["M f 1"]),
        (file().xattr("user.a", "1"), file().xattr("user.a", "2"), &["M f 1"]),
        (file().xattr("user.a", "1").xattr("user.b", ""), file().xattr("user.b", "").xattr("user.a", "1"), &[]),
        (file().xattr("security.capability", &two), file().xattr("security.capability", &three), &[]),
        (file(), file().xattr("security.capability", &two), &["M f 1"]),
        (Item::symlink("l", "f"), Item::symlink("l", "f").xattr("user.a", "1"), &[]),
    ] {
        assert_eq!(changes(&[&[old]], &[&[new]]), expected);
    }
}

/// L13: links lead where they do under `chroot`; through a file, nowhere.
#[test]
fn links_are_followed_inside_the_root() {
    let base = [
        Item::file("d/x", "1"),
        Item::file("f", ""),
        Item::symlink("up", "/../../d"),
        Item::symlink("through", "f/../d"),
        Item::symlink("dead", "none/../d"),
        Item::symlink("circle", "circle"),
    ];
    let hide = |path: &str| changes(&[&base], &[&base, &[Item::file(path, "")]]);
    assert_eq!(hide("up/.wh.x"), ["D d/x 1"]);
    assert_eq!(hide("up/.wh..wh..opq"), ["D d/x 1"]);
    for nowhere in ["through/.wh.x", "dead/.wh.x", "circle/.wh.x", "none/.wh.x", "f/.wh.x", "through/.wh..wh..opq"] {
        assert_eq!(hide(nowhere), [""; 0], "{nowhere}");
    }
    assert_eq!(hide(".wh.up"), ["D up 0"]);
    let added = changes(&[&base], &[&base, &[Item::file("through/y", "")]]);
    assert_eq!(added, ["A d/y 0", "M f/ 0"]);
}

/// P9: a path may have 4,095 bytes, and is told whole.
#[test]
fn long_paths_are_compared() {
    let names: Vec<String> = (b'a'..=b'p').map(|letter| char::from(letter).to_string().repeat(255)).collect();
    let path = names.join("/");
    assert_eq!(path.len(), 4095);
    let found = changes(&[&[]], &[&[Item::file(&path, "x")]]);
    assert_eq!((found.len(), found.last()), (16, Some(&format!("A {path} 1"))));
}

/// What `changeset::diff` refuses of the trees.
#[test]
fn names_of_whiteouts_are_refused() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let old = stacked(&store, &tars(&[&base()]));
    let new = stacked(&store, &tars(&[&base(), &[Item::file("etc/.wh.d/x", "")]]));
    for (old, new) in [(&old, &new), (&new, &old)] {
        let error = failure(old.diff(new));
        assert_kind!(error, ErrorKind::InvalidInput(_));
        let expected = format!(
            "compare image {} with image {}: etc/.wh.d: in a layer, names that start with .wh. are those of whiteouts",
            new.id().short(),
            old.id().short()
        );
        assert_eq!(error.to_string(), expected);
    }
}

/// What cannot be unpacked cannot be compared: trees that are too deep, links to what is not there or only seems to be.
#[test]
fn what_cannot_be_unpacked_is_refused() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let good = stacked(&store, &tars(&[&base()]));
    // Each link leads a long way down from the last one.
    let deep = vec!["d".repeat(200); 15].join("/");
    let links = (0..40).flat_map(|n| {
        let above = if n == 0 { String::new() } else { format!("s{}/", n - 1) };
        [Item::dir(format!("{above}{deep}")), Item::symlink(format!("s{n}"), format!("{above}{deep}"))]
    });
    let deep: Vec<Item> = links.collect();
    let circle = [Item::symlink("circle", "circle"), Item::hard_link("x", "circle/y")];
    let nowhere = [Item::symlink("l", "")];
    let root = [Item::file("./", "")];
    for layer in [&deep[..], &circle, &nowhere, &root, &[Item::hard_link("x", "etc")]] {
        let bad = stacked(&store, &tars(&[&base(), layer]));
        let unpacked = failure(bad.unpack_with(scratch.path("root"), &Options::new()));
        let compared = failure(good.diff(&bad));
        let same = std::mem::discriminant(unpacked.kind()) == std::mem::discriminant(compared.kind());
        assert!(same, "unpacked: {unpacked}\ncompared: {compared}");
        assert!(compared.to_string().contains(": layer 2: "), "{compared}");
        assert!(failure(bad.read_file("etc/motd")).to_string().contains(": layer 2: "));
    }
}

/// P3, P12: layers are verified, and all must be there.
#[test]
fn layers_are_verified() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let old = stacked(&store, &tars(&[&base()]));
    let new = stacked(&store, &tars(&[&base(), &[Item::file("x", "content")]]));
    let blob = blob_path(&store, &new.manifest().layers()[1]);
    let mut bytes = std::fs::read(&blob).unwrap();
    bytes[512] ^= 1;
    std::fs::write(&blob, &bytes).unwrap();
    assert_kind!(failure(old.diff(&new)), ErrorKind::DigestMismatch { .. });
    std::fs::remove_file(&blob).unwrap();
    assert!(failure(old.diff(&new)).is_not_found());
    assert!(failure(new.diff(&old)).is_not_found());
}

/// An artifact has no tree; and a switch ends the work.
#[test]
fn some_comparisons_end_early() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let old = stacked(&store, &tars(&[&base()]));
    let new = stacked(&store, &tars(&[&[Item::file("x", "")]]));
    let config = store.write(MediaType::OCTET_STREAM, b"{}").unwrap();
    let artifact = json!({ "schemaVersion": 2, "mediaType": MediaType::OCI_MANIFEST, "config": config, "layers": [] });
    let artifact = store.write(MediaType::OCI_MANIFEST, artifact.to_string().as_bytes()).unwrap();
    let artifact = store.image_at(&artifact).unwrap();
    for (old, new) in [(&old, &artifact), (&artifact, &old), (&artifact, &artifact)] {
        assert_kind!(failure(old.diff(new)), ErrorKind::UnsupportedMediaType { .. });
    }
    let cancel = Cancel::new();
    cancel.cancel();
    assert_kind!(failure(old.diff_with(&new, &DiffOptions::new().cancel(&cancel))), ErrorKind::Cancelled);
}
