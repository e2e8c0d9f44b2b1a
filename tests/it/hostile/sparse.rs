//! Files with holes.

use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;
use std::time::Instant;

use layercake::changeset::Entries;
use layercake::changeset::Limits;
use layercake::error::Limit;

use super::applied;
use super::becomes;
use super::exceeds;
use super::gnu;
use super::read_all;
use super::refused;
use crate::breakouts::options;
use crate::support::tape::Item;
use crate::support::tape::tar;

/// GNU's four ways to write a file with holes.
#[derive(Clone, Copy, Debug)]
pub enum Dialect {
    Old,
    Pax00,
    Pax01,
    Pax10,
}

const DIALECTS: [Dialect; 4] = [Dialect::Old, Dialect::Pax00, Dialect::Pax01, Dialect::Pax10];

/// The file `sparse` of so many bytes, with these pieces, and what is stored of it. Where a hole ends the file, so does an
/// empty piece, as tools write it.
pub fn sparse(dialect: Dialect, pieces: &[(u64, u64)], size: u64, stored: &[u8]) -> Item {
    let end = pieces.last().map_or(0, |(offset, length)| offset.saturating_add(*length));
    let last = (end < size).then_some((size, 0));
    exactly(dialect, &pieces.iter().copied().chain(last).collect::<Vec<_>>(), size, stored)
}

/// The same with these pieces alone.
fn exactly(dialect: Dialect, pieces: &[(u64, u64)], size: u64, stored: &[u8]) -> Item {
    let (size, count) = (size.to_string(), pieces.len());
    match dialect {
        Dialect::Old => old_sparse(pieces, size.parse().unwrap(), stored),
        Dialect::Pax00 => {
            let item = Item::file("sparse", stored).pax("GNU.sparse.size", size);
            let item = item.pax("GNU.sparse.numblocks", count.to_string());
            pieces.iter().fold(item, |item, (offset, length)| {
                item.pax("GNU.sparse.offset", offset.to_string()).pax("GNU.sparse.numbytes", length.to_string())
            })
        }
        Dialect::Pax01 => {
            let map: Vec<String> = pieces.iter().map(|(offset, length)| format!("{offset},{length}")).collect();
            Item::file("GNUSparseFile.0/sparse", stored)
                .pax("GNU.sparse.name", "sparse")
                .pax("GNU.sparse.size", size)
                .pax("GNU.sparse.numblocks", count.to_string())
                .pax("GNU.sparse.map", map.join(","))
        }
        Dialect::Pax10 => {
            let lines: String = pieces.iter().map(|(offset, length)| format!("{offset}\n{length}\n")).collect();
            new_sparse(&format!("{count}\n{lines}"), &size, stored)
        }
    }
}

/// Version 1.0, with any map.
fn new_sparse(map: &str, size: &str, stored: &[u8]) -> Item {
    let mut content = map.as_bytes().to_vec();
    content.resize(content.len().next_multiple_of(512), 0);
    Item::file("GNUSparseFile.0/sparse", [&content, stored].concat())
        .pax("GNU.sparse.major", "1")
        .pax("GNU.sparse.minor", "0")
        .pax("GNU.sparse.name", "sparse")
        .pax("GNU.sparse.realsize", size)
}

fn old_sparse(pieces: &[(u64, u64)], size: u64, stored: &[u8]) -> Item {
    let slot = |(offset, length): &(u64, u64)| format!("{offset:011o}\0{length:011o}\0").into_bytes();
    let (first, more) = pieces.split_at(pieces.len().min(4));
    let mut blocks = Vec::new();
    for (n, chunk) in more.chunks(21).enumerate() {
        blocks.extend(chunk.iter().flat_map(slot));
        blocks.resize(n * 512 + 504, 0);
        blocks.push(u8::from(n + 1 < more.len().div_ceil(21)));
        blocks.resize((n + 1) * 512, 0);
    }
    gnu(Item::new(b'S', "sparse"))
        .content([&blocks, stored].concat())
        .size(stored.len() as u64)
        .field(386, &first.iter().flat_map(slot).collect::<Vec<_>>())
        .field(482, &[u8::from(!more.is_empty())])
        .field(483, format!("{size:011o}\0").as_bytes())
}

/// L14: content, size and holes, on the disk and without it.
#[test]
fn files_with_holes_are_read() {
    let many: Vec<(u64, u64)> = (0..50).map(|n| (n * 8192, 3)).collect();
    let cases: [(&[(u64, u64)], u64); 6] = [
        (&[(4096, 5), (65_536, 3)], 1_000_000),
        (&[(0, 4), (999_996, 4)], 1_000_000),
        (&[(0, 8)], 8),
        (&[(1_000_000, 0)], 1_000_000),
        (&[], 1_000_000),
        (&many, 1_000_000),
    ];
    for (dialect, (pieces, size)) in DIALECTS.iter().flat_map(|dialect| cases.map(|case| (*dialect, case))) {
        let stored: Vec<u8> = (0..pieces.iter().map(|piece| piece.1).sum()).map(|n: u64| n as u8 | 1).collect();
        let mut expected = vec![0; size as usize];
        let mut rest = &stored[..];
        for (offset, length) in pieces {
            let piece = rest.split_off(..*length as usize).unwrap();
            expected[*offset as usize..][..piece.len()].copy_from_slice(piece);
        }
        let layer = tar(&[sparse(dialect, pieces, size, &stored), Item::file("z", "z")]);
        let done = applied(&layer);
        let stat = fs::metadata(done.root.join("sparse")).unwrap();
        assert!(fs::read(done.root.join("sparse")).unwrap() == expected, "{dialect:?} {pieces:?}");
        assert_eq!((fs::read(done.root.join("z")).unwrap(), done.report.entries), (b"z".to_vec(), 2));
        assert!(size < 1000 || stat.blocks() * 512 < size, "{dialect:?} {pieces:?}: no holes: {stat:?}");
        let mut entries = Entries::new(&layer[..], Limits::default());
        let mut entry = entries.next_entry().unwrap().unwrap();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        assert!((entry.path(), entry.size()) == (Path::new("sparse"), size) && content == expected, "{dialect:?}");
    }
}

/// CVE-2026-32288 (Go): maps that overlap, lie outside, or are of another length than what is stored.
#[test]
fn maps_of_no_file_are_refused() {
    let maps: [(&[(u64, u64)], u64); 7] = [
        (&[(0, 4), (2, 4)], 100),
        (&[(50, 4), (0, 4)], 100),
        (&[(96, 8)], 100),
        (&[(200, 8)], 100),
        (&[(0, 7)], 100),
        (&[(0, 9)], 100),
        (&[(0, 8), (8_589_934_591, 8_589_934_591)], 100),
    ];
    for (dialect, (pieces, size)) in DIALECTS.iter().flat_map(|dialect| maps.map(|map| (*dialect, map))) {
        refused(&tar(&[sparse(dialect, pieces, size, b"8 bytes.")]));
    }
    let overflow = [(0, 8), (u64::MAX, u64::MAX)];
    for dialect in [Dialect::Pax00, Dialect::Pax01, Dialect::Pax10] {
        refused(&tar(&[sparse(dialect, &overflow, u64::MAX, b"8 bytes.")]));
    }
}

/// DIFF-002 and on (astral): records out of order, unknown, too few or half; slots that are half full.
#[test]
fn half_maps_are_refused() {
    let with = |records: &[(&str, &str)]| {
        records
            .iter()
            .fold(Item::file("f", "8 bytes."), |item, (key, value)| item.pax(&format!("GNU.sparse.{key}"), *value))
    };
    for records in [
        &[("size", "8"), ("offset", "0"), ("offset", "0")][..],
        &[("size", "8"), ("numbytes", "8"), ("offset", "0")],
        &[("size", "8"), ("offset", "0")],
        &[("size", "8"), ("map", "0")],
        &[("size", "8"), ("map", "0,8,")],
        &[("size", "8"), ("map", "0,-8")],
        &[("size", "8"), ("map", "0 8")],
        &[("map", "0,8")],
        &[("name", "x")],
        &[("size", "8"), ("name", "")],
        &[("size", "8"), ("name", "a\0b"), ("map", "0,8")],
        &[("size", "8"), ("surprise", "1"), ("map", "0,8")],
        &[("size", "8"), ("map", "0,8")],
        &[("size", "8"), ("map", "0,8"), ("numblocks", "1")],
        &[("size", "8"), ("numblocks", "2"), ("map", "0,8")],
        &[("size", "8"), ("numblocks", "1"), ("numblocks", "1"), ("map", "0,8")],
        &[("size", "8"), ("numblocks", "1"), ("map", "0,8"), ("map", "0,8")],
        &[("size", "8"), ("numblocks", "1"), ("offset", "0"), ("numbytes", "8"), ("map", "0,8")],
        &[("size", "8"), ("realsize", "8"), ("numblocks", "1"), ("map", "0,8")],
        &[("realsize", "8"), ("numblocks", "1"), ("map", "0,8")],
        &[("major", "0"), ("size", "8"), ("numblocks", "1"), ("map", "0,8")],
        &[("major", "00"), ("minor", "1"), ("size", "8"), ("numblocks", "1"), ("map", "0,8")],
        &[("name", "x"), ("size", "0")],
        &[("name", "x"), ("size", "0"), ("numblocks", "0")],
        &[("name", "x"), ("size", "0"), ("numblocks", "0"), ("map", "")],
        &[("major", "1"), ("minor", "0"), ("size", "8")],
        &[("major", "1"), ("minor", "1"), ("realsize", "8")],
        &[("major", "2"), ("minor", "0"), ("realsize", "8")],
        &[("major", "1"), ("minor", "0"), ("realsize", "8"), ("map", "0,8")],
        &[("size", "ten"), ("map", "0,8")],
    ] {
        refused(&tar(&[with(records)]));
    }
    for map in ["1\n0\n", "1\n0 8\n", "x\n", "-1\n", "99999999999999999999\n", "1", &"1".repeat(600), "\n"] {
        refused(&tar(&[new_sparse(map, "8", b"")]));
    }
    let old = || old_sparse(&[(0, 8)], 8, b"8 bytes.");
    refused(&tar(&[old().field(386, &[0; 12])]));
    refused(&tar(&[old().field(398, &[0; 12])]));
    refused(&tar(&[old().field(398, b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff")]));
    refused(&tar(&[old().field(257, b"ustar\x0000")]));
    refused(&old().field(482, &[1]).bytes()[..512]);
}

/// P13: where one reader finds a sparse file and another a whole one, or each another size or name.
#[test]
fn sparse_files_that_readers_read_differently_are_refused() {
    for dialect in DIALECTS {
        let whole = || exactly(dialect, &[(0, 8)], 8, b"8 bytes.");
        refused(&tar(&[exactly(dialect, &[(0, 8)], 100, b"8 bytes.")]));
        refused(&tar(&[whole().pax("size", "8")]));
        refused(&tar(&[whole().pax("path", "other").pax("GNU.sparse.name", "name")]));
        becomes(&tar(&[whole()]), &["sparse: 8 bytes."]);
    }
    // GNU tar writes both names where one is not ASCII.
    let both = sparse(Dialect::Pax10, &[(0, 8)], 8, b"8 bytes.").pax("path", "./GNUSparseFile.1/caf\u{e9}");
    becomes(&tar(&[both]), &["sparse: 8 bytes."]);
    let look_alike = sparse(Dialect::Pax00, &[(0, 8)], 8, b"8 bytes.").pax("comment", "\n24 GNU.sparse.offset=99\n");
    refused(&tar(&[look_alike]));
    for dialect in [Dialect::Old, Dialect::Pax00, Dialect::Pax01] {
        refused(&tar(&[exactly(dialect, &[], 0, b"")]));
    }
    let slot = |offset: u64, length: u64| format!("{offset:011o}\0{length:011o}\0").into_bytes();
    let old = || old_sparse(&[(0, 8)], 8, b"8 bytes.");
    refused(&tar(&[old().field(386 + 48, &slot(8, 0))]));
    refused(&tar(&[old().field(482, &[1]).content([&[0; 512][..], b"8 bytes."].concat()).size(8)]));
}

/// What is no file has no holes: where one reader takes the records and another does not, they see two names.
#[test]
fn sparse_records_of_what_is_no_file_are_refused() {
    for item in [Item::dir("name"), Item::symlink("name", "x"), Item::fifo("name"), old_sparse(&[(0, 1)], 1, b"1")] {
        refused(&tar(&[item.pax("GNU.sparse.name", "other")]));
    }
}

/// CVE-2025-58183 (Go), and 48 KiB that cost the tar crate 115 s: no map is longer than 64 Ki pieces, nor slow.
#[test]
fn long_maps_are_refused_at_once() {
    let start = Instant::now();
    let most: Vec<(u64, u64)> = (0..65_537).map(|_| (0, 0)).collect();
    for dialect in [Dialect::Old, Dialect::Pax01, Dialect::Pax10] {
        // Old maps come in blocks of 21.
        let layer = tar(&[sparse(dialect, &[&most[..], &most[..21]].concat(), 100, b"")]);
        assert_eq!(exceeds(&layer, &options()), (Limit::SparseSegments, 65_536));
        let layer = tar(&[sparse(dialect, &most[..65_520], 100, b"")]);
        assert_eq!(fs::metadata(applied(&layer).root.join("sparse")).unwrap().len(), 100);
    }
    assert_eq!(exceeds(&tar(&[new_sparse("65537\n", "8", b"")]), &options()), (Limit::SparseSegments, 65_536));
    let pieces: Vec<(u64, u64)> = (0..2000).map(|n| (n * 2, 1)).collect();
    let layer = tar(&[sparse(Dialect::Old, &pieces, 4000, &[1; 2000])]);
    assert_eq!(read_all(&layer[..]).unwrap(), 1);
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}
