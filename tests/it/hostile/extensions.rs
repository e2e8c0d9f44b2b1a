//! What stands before an entry: extended headers and long names.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;
use std::time::Instant;

use layercake::changeset::Entries;
use layercake::changeset::Limits;
use layercake::error::Limit;

use super::MIB;
use super::applied;
use super::becomes;
use super::exceeds;
use super::extension;
use super::gnu;
use super::refused;
use crate::breakouts::options;
use crate::support::tape::Item;
use crate::support::tape::record;
use crate::support::tape::tar;

/// CVE-2025-62518 (TARmageddon), CVE-2026-33055, RUSTSEC-2026-0112: the size of the extended header counts, whatever the
/// header says, and for the entry alone, not for a long name before it.
#[test]
fn the_extended_size_always_counts() {
    let smuggled = tar(&[Item::file("smuggled", "smuggled")]);
    let size = record(b"size", smuggled.len().to_string().as_bytes());
    let outer = Item::file("outer", &smuggled);
    let inner = smuggled.escape_ascii();
    let expected = ["after: after", &format!("outer: {inner}")];
    let after = Item::file("after", "after");
    for lie in [0, 512, 5, 1 << 30] {
        becomes(&tar(&[extension(b'x', &size), outer.clone().size(lie), after.clone()]), &expected);
    }
    let name = extension(b'L', "outer\0");
    let outer = Item::file("short", &smuggled).size(0);
    becomes(&tar(&[extension(b'x', &size), name.clone(), outer.clone(), after.clone()]), &expected);
    becomes(&tar(&[name, extension(b'x', &size), outer, after.clone()]), &expected);
    let empty = [Item::file("outer", "").size(512).pax("size", "0"), after];
    becomes(&tar(&empty), &["after: after", "outer: "]);
}

/// POSIX: these have no content, whatever their size says.
#[test]
fn sizes_of_what_has_no_content_are_ignored() {
    let items = [
        extension(b'g', record(b"comment", b"of all")),
        Item::dir("d").size(512),
        Item::symlink("l", "d").size(512).pax("size", "1024"),
        Item::file("f", "f"),
        Item::hard_link("h", "f").size(512),
        Item::fifo("p").size(512),
    ];
    becomes(&tar(&items), &["d/", "f: f", "h = f", "l -> d", "p|"]);
}

/// CVE-2026-32766 (astral): what is malformed is not left out but refused, in global headers too.
#[test]
fn malformed_extensions_are_refused() {
    let payloads: [&[u8]; 14] = [
        b"nonsense",
        b"9 path=a\n9 path",
        b"8 path=a\n",
        b"0 path=a\n",
        b"+9 path=a\n",
        b"09999999999999999999 path=a\n",
        b"99999999999999999999 path=a\n",
        b"9 patha=\n ",
        b"7 =abc\n",
        b"10 path=ab",
        b"\0\0\0\0",
        b"9 path=a\n\0\0\0",
        b"11 size=-1\n",
        b"13 size=0x10\n",
    ];
    for payload in payloads {
        for flag in [b'x', b'g'] {
            refused(&tar(&[extension(flag, payload), Item::file("f", "")]));
        }
    }
    for (key, value) in [
        ("size", "18446744073709551616"),
        ("size", " 1"),
        ("uid", "4.5"),
        ("gid", "-1"),
        ("mtime", "never"),
        ("mtime", "1e9"),
        ("path", "a\0b"),
        ("linkpath", "a\0b"),
        ("SCHILY.xattr.", "x"),
        ("LIBARCHIVE.xattr.user.x", "no base64!"),
        ("LIBARCHIVE.xattr.user%00x", "AA"),
    ] {
        refused(&tar(&[Item::file("f", "").pax(key, value)]));
    }
}

/// P13: the last of two records counts for some readers, an empty one means three things, and of two headers neither is
/// read by all.
#[test]
fn repeated_and_empty_records_are_refused() {
    let item = |records: &[(&str, &str)]| {
        records.iter().fold(Item::file("header", "content"), |item, (key, value)| item.pax(key, *value))
    };
    becomes(&tar(&[item(&[("path", "p"), ("size", "7"), ("path", "p"), ("size", "7")])]), &["p: content"]);
    for (key, first, second) in [
        ("path", "first", "last"),
        ("linkpath", "first", "last"),
        ("size", "0", "7"),
        ("uid", "0", "1"),
        ("gid", "0", "1"),
        ("mtime", "1", "1.5"),
        ("SCHILY.xattr.user.x", "a", "b"),
        ("GNU.sparse.name", "same", "same"),
    ] {
        let reason = refused(&tar(&[item(&[(key, first), (key, second)])]));
        assert!(reason.contains("twice") || reason.contains("two values"), "{reason}");
    }
    for key in ["path", "linkpath", "size", "uid", "gid", "mtime"] {
        refused(&tar(&[item(&[(key, "")])]));
        refused(&tar(&[item(&[(key, "7"), (key, "")])]));
    }
    let path = |name: &[u8]| extension(b'x', record(b"path", name));
    refused(&tar(&[path(b"one"), path(b"one"), Item::file("f", "")]));
    for flag in [b'L', b'K'] {
        refused(&tar(&[extension(flag, "one\0"), extension(flag, "one\0"), Item::symlink("f", "t")]));
    }
}

/// P13: Python and GNU tar apply the records of a global header to all entries that follow, Go does not.
#[test]
fn global_headers_that_change_entries_are_refused() {
    for (key, value) in [
        ("path", "evil"),
        ("linkpath", "evil"),
        ("size", "0"),
        ("uid", "0"),
        ("gid", "0"),
        ("mtime", "1"),
        ("SCHILY.xattr.security.capability", "x"),
        ("SCHILY.acl.access", "user::rwx"),
        ("GNU.sparse.name", "evil"),
    ] {
        let reason = refused(&tar(&[extension(b'g', record(key.as_bytes(), value.as_bytes())), Item::file("f", "f")]));
        assert!(reason.contains("global"), "{reason}");
    }
    let harmless = [record(b"comment", &[b'0'; 40]), record(b"charset", b"UTF-8"), record(b"GNU.volume.label", b"v")];
    becomes(&tar(&[extension(b'g', harmless.concat()), Item::file("f", "f")]), &["f: f"]);
}

/// DIFF-002 and on (astral): long names in both dialects must agree.
#[test]
fn two_long_names_must_be_one() {
    let name =
        |pax: &str, gnu: &str| tar(&[extension(b'L', format!("{gnu}\0")), Item::file("short", "").pax("path", pax)]);
    becomes(&name("same", "same"), &["same: "]);
    refused(&name("one", "other"));
    let link = |pax: &str, gnu: &str| {
        tar(&[extension(b'K', format!("{gnu}\0")), Item::symlink("short", "x").pax("linkpath", pax)])
    };
    becomes(&link("same", "same"), &["short -> same"]);
    refused(&link("one", "other"));
}

/// An extension stands right before what it is of.
#[test]
fn dangling_extensions_are_refused() {
    for dangling in [extension(b'x', record(b"path", b"p")), extension(b'L', "p\0"), extension(b'K', "p\0")] {
        refused(&tar(std::slice::from_ref(&dangling)));
        refused(&dangling.bytes());
        refused(&tar(&[dangling, extension(b'g', ""), Item::file("f", "")]));
    }
}

/// GNU tar, L14: names longer than a header's field, with and without the zero byte at their end.
#[test]
fn long_names_of_gnu_are_read() {
    let (long, target) = (format!("{}/name", "directory/".repeat(30)), "../".repeat(60));
    for end in ["", "\0", "\0\0\0"] {
        let items = [
            gnu(extension(b'K', format!("{target}{end}"))),
            gnu(extension(b'L', format!("{long}{end}"))),
            gnu(Item::symlink(&long[..100], &target[..100])),
        ];
        let done = applied(&tar(&items));
        assert_eq!(fs::read_link(done.root.join(&long)).unwrap(), Path::new(&target));
    }
    for wrong in ["", "\0", "a\0b", "a\0b\0"] {
        refused(&tar(&[extension(b'L', wrong), Item::file("f", "")]));
    }
}

/// CVE-2017-14992 (tar-split), CVE-2022-2879 (Go): no extension is larger than a MiB, and none is believed to be.
#[test]
fn large_extensions_are_refused_at_once() {
    let start = Instant::now();
    for flag in [b'x', b'g', b'L', b'K'] {
        for size in [MIB + 1, 1 << 32] {
            let header = Item::new(flag, "large").size(size).bytes();
            assert_eq!(exceeds(&header, &options()), (Limit::ExtensionSize, MIB));
        }
        let short = refused(&Item::new(flag, "large").size(MIB).bytes());
        assert_eq!(short, "the layer ends within an entry");
    }
    let base_256 = Item::new(b'x', "large").field(124, b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff");
    assert_eq!(exceeds(&base_256.bytes(), &options()), (Limit::ExtensionSize, MIB));
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    let comment = "c".repeat(MIB as usize - 20);
    becomes(&tar(&[Item::file("f", "f").pax("comment", comment)]), &["f: f"]);
}

/// P9: as many attributes as one header has room for take the time that reading takes, in both forms. The story: each
/// was looked for among all before it, 7 seconds for an entry of a few hundred bytes when compressed.
#[test]
fn many_attributes_are_read_in_no_time() {
    for (key, is_applied) in [("SCHILY.xattr.", true), ("LIBARCHIVE.xattr.", false)] {
        let names: Vec<String> = (0..30_000).map(|n| format!("{n:05}")).collect();
        let records = names.iter().flat_map(|name| record(format!("{key}{name}").as_bytes(), b""));
        let layer = tar(&[extension(b'x', records.collect::<Vec<u8>>()), Item::file("f", "")]);
        let start = Instant::now();
        let mut entries = Entries::new(&layer[..], Limits::default());
        let entry = entries.next_entry().unwrap().unwrap();
        assert!(start.elapsed() < Duration::from_secs(4), "{key}: {:?}", start.elapsed());
        let expected = names.iter().filter(|_| is_applied).map(OsStr::new);
        assert!(entry.xattrs().map(|(name, _)| name).eq(expected), "{key}");
    }
}

/// Gaps of the tar crate, 1, and L16: values are bytes, with newlines and text that looks like records.
#[test]
fn extended_attributes_are_bytes() {
    let capability = b"\x01\0\0\x02\n20 path=evil\n\0\0\0";
    let layer = tar(&[Item::file("f", "")
        .xattr("security.capability", capability)
        .pax("LIBARCHIVE.xattr.user.both", "Ym90aA")
        .xattr("user.both", "both")
        .xattr("user.twice", "twice")
        .xattr("user.twice", "twice")
        .xattr("user.empty", "")]);
    let mut entries = Entries::new(&layer[..], Limits::default());
    let entry = entries.next_entry().unwrap().unwrap();
    let mut found: Vec<(&[u8], &[u8])> = entry.xattrs().map(|(name, value)| (name.as_bytes(), value)).collect();
    found.sort_unstable();
    let expected: [(&[u8], &[u8]); 4] = [
        (b"security.capability", capability),
        (b"user.both", b"both"),
        (b"user.empty", b""),
        (b"user.twice", b"twice"),
    ];
    assert_eq!((entry.path(), &found[..]), (Path::new("f"), &expected[..]));
}

/// P13: Go and GNU tar do not apply attributes in libarchive's form, so neither do we, and the report says so. bsdtar
/// writes both forms, which must agree. GNU tar decodes %3D in names, Go does not.
#[test]
fn attributes_that_readers_take_differently_are_not_applied() {
    let done = applied(&tar(&[Item::file("f", "").pax("LIBARCHIVE.xattr.user.a%3Db", "AAo")]));
    let skipped: Vec<String> = done.report.skipped.iter().map(ToString::to_string).collect();
    assert_eq!(skipped, ["f: record LIBARCHIVE.xattr.user.a=b: is not known here"]);
    refused(&tar(&[Item::file("f", "").pax("LIBARCHIVE.xattr.user.x", "Ym90aA").xattr("user.x", "other")]));
    for name in ["user.a%3Db", "user.a%25b"] {
        refused(&tar(&[Item::file("f", "").xattr(name, "")]));
    }
}
