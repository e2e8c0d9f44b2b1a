//! Header fields that do not fit, that readers read differently, or that are unusual and right.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use layercake::changeset::SkippedPart;
use layercake::changeset::Timestamp;

use super::applied;
use super::becomes;
use super::gnu;
use super::refused;
use crate::support::tape::Item;
use crate::support::tape::tar;
use crate::support::tools::is_root;

/// CVE-2024-40635 (containerd): an id that does not fit is refused, not cut to root's.
#[test]
fn ids_that_do_not_fit_are_refused() {
    for (at, key) in [(108, "uid"), (116, "gid")] {
        for id in ["4294967295", "4294967296", "18446744069414584320", "18446744073709551615"] {
            refused(&tar(&[Item::file("f", "").pax(key, id)]));
        }
        for id in
            [b"\x80\0\0\x01\0\0\0\0", b"\x80\0\0\0\xff\xff\xff\xff", b"\xff\xff\xff\xff\xff\xff\xff\xff", b"0008000\0"]
        {
            refused(&tar(&[Item::file("f", "").field(at, id)]));
        }
    }
    let layer = tar(&[
        Item::file("a", "").pax("uid", "2147483648").pax("gid", "4294967294"),
        Item::file("b", "").owner(1 << 31, 3_000_000),
        Item::file("c", "").owner(1, 1).pax("uid", "0"),
    ]);
    if is_root() {
        let done = applied(&layer);
        let owner = |name| fs::metadata(done.root.join(name)).map(|stat| (stat.uid(), stat.gid())).unwrap();
        assert_eq!(["a", "b", "c"].map(owner), [(1 << 31, u32::MAX - 1), (1 << 31, 3_000_000), (0, 1)]);
    }
}

/// Gaps of the tar crate, 4, and L18: times before 1970 and parts of seconds are kept, and what no file system can hold
/// is reported.
#[test]
fn times_are_kept_or_reported() {
    let time = |seconds, nanoseconds| Timestamp { seconds, nanoseconds };
    let file = |n: usize| Item::file(n.to_string(), "");
    let cases = [
        (file(0).pax("mtime", "-1.25"), time(-2, 750_000_000)),
        (file(1).pax("mtime", "-86400"), time(-86_400, 0)),
        (file(2).pax("mtime", "1700000000.1234567899"), time(1_700_000_000, 123_456_789)),
        (file(3).field(136, &[0xff; 12]), time(-1, 0)),
        (file(4).field(136, b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe\0"), time(-512, 0)),
        (file(5).mtime(0), time(0, 0)),
        (file(6).pax("mtime", "9223372036854775807"), time(i64::MAX, 0)),
        (file(7).pax("mtime", "-9223372036854775807.5"), time(i64::MIN, 500_000_000)),
        (file(8).field(136, b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff"), time(i64::MAX, 0)),
        (Item::dir("9").pax("mtime", "9223372036854775807"), time(i64::MAX, 0)),
        (Item::symlink("10", "x").pax("mtime", "99999999999"), time(99_999_999_999, 0)),
    ];
    let done = applied(&tar(&cases.clone().map(|(item, _)| item)));
    for (n, (_, expected)) in cases.iter().enumerate() {
        let stat = fs::symlink_metadata(done.root.join(n.to_string())).unwrap();
        let path = PathBuf::from(n.to_string());
        let is_reported =
            done.report.skipped.iter().any(|skip| skip.path == path && skip.what == SkippedPart::Modified);
        let found = time(stat.mtime(), stat.mtime_nsec() as u32);
        assert!(found == *expected || is_reported && n > 5, "{n}: {found:?}, not {expected:?}, and not reported");
    }
    refused(&tar(&[file(0).pax("mtime", "99999999999999999999")]));
    refused(&tar(&[file(0).field(136, b"\xbf\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff")]));
}

/// Sums of signed bytes are right too (old Sun tar); anything else is not.
#[test]
fn checksums_are_checked() {
    let at_sum = |bytes: &[u8]| {
        let mut block = Item::file("caf\u{e9}", "").bytes();
        block[148..148 + bytes.len()].copy_from_slice(bytes);
        block
    };
    for wrong in [&b"000000\0 "[..], b"        ", b"zzzzzz\0 ", b"777777\0 ", b"\xff\xff\xff\xff\xff\xff\xff\xff"] {
        refused(&at_sum(wrong));
    }
    let mut flipped = tar(&[Item::file("f", "")]);
    flipped[100] ^= 1;
    refused(&flipped);
    let mut header: [u8; 512] = at_sum(b"        ")[..512].try_into().unwrap();
    let signed: i32 = header.iter().map(|byte| i32::from(byte.cast_signed())).sum();
    header[148..156].copy_from_slice(format!("{signed:06o}\0 ").as_bytes());
    becomes(&header, &["caf\u{e9}: "]);
    refused(&[b'x'; 512]);
}

/// L14: multi-volume parts, dump directories, Solaris' `X` and what nobody defined.
#[test]
fn unknown_types_are_refused() {
    for flag in (1..=255).filter(|flag| !b"01234567xgLKS".contains(flag)) {
        refused(&tar(&[Item::new(flag, "f")]));
    }
    becomes(&tar(&[Item::file("f", "f").field(156, b"7"), Item::file("g", "g").field(156, &[0])]), &["f: f", "g: g"]);
}

/// Gaps of the tar crate, 7: ustar's prefix, star's, which is shorter, and the one that Go before 1.8 wrote into GNU's
/// headers.
#[test]
fn names_have_prefixes() {
    let prefix = |item: Item| item.field(345, b"some/prefix");
    let file = || Item::file("f", "");
    becomes(&tar(&[prefix(file())]), &["some/", "some/prefix/", "some/prefix/f: "]);
    // Whatever version it says to have.
    for version in [b"  ", b"\0\0", b"0\0"] {
        becomes(&tar(&[prefix(file().field(263, version))]), &["some/", "some/prefix/", "some/prefix/f: "]);
    }
    becomes(&tar(&[prefix(gnu(file()))]), &["some/", "some/prefix/", "some/prefix/f: "]);
    becomes(&tar(&[prefix(file()).pax("path", "pax")]), &["pax: "]);
    let star = file().field(345, &[b'p'; 130]).field(476, b"14524770531 14524770531 ").field(508, b"tar\0");
    let directory = "p".repeat(130);
    becomes(&tar(&[star]), &[&format!("{directory}/"), &format!("{directory}/f: ")]);
}
