//! Streams that Go, GNU tar and Python read differently (P13).

use super::becomes;
use super::extension;
use super::gnu;
use super::refused;
use crate::support::tape::Item;
use crate::support::tape::tar;
use crate::support::tape::with_checksum;

/// P13: a prefix that is one for Python alone, for all but GNU tar, or that some end later than others.
#[test]
fn prefixes_that_some_readers_ignore_are_refused() {
    let prefix = |item: Item, prefix: &[u8]| item.field(345, prefix);
    let file = || Item::file("f", "");
    let old = prefix(file().field(257, &[0; 8]), b"some/prefix");
    let times = prefix(gnu(file()), b"14524770531\0").field(357, b"14524770531\0");
    let binary = prefix(gnu(file()), &[0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    let latin = prefix(gnu(file()), b"caf\xe9");
    let star = prefix(file(), &[b'p'; 131]).field(476, b"14524770531 14524770531 ").field(508, b"tar\0");
    for item in [old, times, binary, latin, star] {
        let reason = refused(&tar(&[item]));
        assert!(reason.starts_with("ambiguous"), "{reason}");
    }
    becomes(&tar(&[prefix(gnu(file()), b"\0garbage")]), &["f: "]);
}

/// P13: digits that some readers do not see, and fields that end the archive for Python.
#[test]
fn numbers_that_readers_read_differently_are_refused() {
    for (at, length) in [(100, 8), (108, 8), (116, 8), (124, 12), (136, 12), (329, 8), (337, 8)] {
        let digits = |before: &[u8]| [before, &b"0000644\0"[before.len()..], &vec![0; length - 8]].concat();
        for bytes in [
            digits(b"\0"),
            digits(b"\0\0\0\0"),
            digits(b" \0"),
            [b"\x81", &vec![0; length - 1][..]].concat(),
            [b"1 1", &vec![0; length - 3][..]].concat(),
            [b"1\t", &vec![0; length - 2][..]].concat(),
            [b"-1", &vec![0; length - 2][..]].concat(),
            [b"AAAAAAB", &vec![0; length - 7][..]].concat(),
        ] {
            refused(&tar(&[Item::file("f", "").field(at, &bytes), Item::file("hidden", "")]));
        }
    }
    let mut block = Item::file("f", "").bytes();
    block[148..156].copy_from_slice(&[0x80, 0, 0, 0, 0, 0, 0x14, 0]);
    refused(&block);
    // No more than a checksum: the end of the archive for GNU tar.
    refused(&[with_checksum([0; 512]).to_vec(), Item::file("hidden", "").bytes()].concat());
}

/// P13: for umoci a link, by its mode, which then gets no permissions.
#[test]
fn modes_of_links_on_files_are_refused() {
    refused(&tar(&[Item::file("f", "").mode(0o120_777)]));
    refused(&tar(&[Item::file("f", "").field(100, &[0xff; 8])]));
    becomes(&tar(&[Item::file("f", "").mode(0o100_644), Item::dir("d").mode(0o040_755)]), &["d/", "f: "]);
    becomes(&tar(&[Item::symlink("l", "x").mode(0o120_777)]), &["l -> x"]);
}

/// P13, CVE-2025-62518: where one reader takes an entry for a directory, its content is a place for entries that the
/// other does not see.
#[test]
fn files_that_are_directories_for_some_are_refused() {
    let smuggled = Item::file("smuggled", "").bytes();
    let old = |name: &str| Item::file(name, &smuggled).field(156, &[0]).mode(0o755);
    for item in [
        old("x/").pax("path", "file"),
        old("x").pax("path", "directory/"),
        old("x/").pax("path", "directory/"),
        old("x/").size(0).pax("size", "512"),
        old("").field(345, b"prefix"),
        Item::file("x/", &smuggled),
        Item::file("x", &smuggled).pax("path", "x/"),
        Item::file("x/", "").field(156, b"7"),
    ] {
        let reason = refused(&tar(&[item]));
        assert!(reason.starts_with("ambiguous"), "{reason}");
    }
    for (name, long) in [("x/", "file"), ("x", "directory/")] {
        let reason = refused(&tar(&[extension(b'L', long), old(name)]));
        assert!(reason.starts_with("ambiguous"), "{reason}");
    }
    becomes(&tar(&[old("x").content("f").pax("path", "file")]), &["file: f"]);
    becomes(&tar(&[old("x/").content("").pax("path", "directory/")]), &["directory/"]);
    becomes(&tar(&[extension(b'L', "directory/"), old("x/").content("")]), &["directory/"]);
}
