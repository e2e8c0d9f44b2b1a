//! Layers that mean harm: tars that others read in two ways, that never end, or that end too soon.
//!
//! What is refused is refused with a typed error, quickly, and never with a panic (P9, P11).

mod extensions;
mod headers;
mod names;
mod readings;
mod reports;
mod sparse;
mod trailers;
mod work;

use std::ffi::OsStr;
use std::fs;
use std::io::Cursor;
use std::io::Read;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;
use std::time::Instant;

use layercake::Cancel;
use layercake::ErrorKind;
use layercake::Event;
use layercake::Observer;
use layercake::changeset::Entries;
use layercake::changeset::Limits;
use layercake::changeset::Options;
use layercake::changeset::Unpacked;
use layercake::changeset::apply;
use layercake::error::Limit;

use crate::assert_kind;
use crate::breakouts::listing;
use crate::breakouts::options;
use crate::hostile::sparse::Dialect;
use crate::hostile::sparse::sparse;
use crate::support::Scratch;
use crate::support::failure;
use crate::support::model::Random;
use crate::support::tape::Item;
use crate::support::tape::record;
use crate::support::tape::tar;
use crate::support::tape::with_checksum;

const MIB: u64 = 1 << 20;

/// A layer applied to a new root.
struct Done {
    report: Unpacked,
    root: PathBuf,
    _scratch: Scratch,
}

#[track_caller]
fn applied(layer: &[u8]) -> Done {
    let scratch = Scratch::new();
    let root = scratch.dir("root");
    let report = apply(layer, &root, &options()).unwrap_or_else(|error| panic!("{error}"));
    Done { report, root, _scratch: scratch }
}

#[track_caller]
fn becomes(layer: &[u8], expected: &[&str]) {
    assert_eq!(listing(&applied(layer).root), expected);
}

fn fails(layer: &[u8], options: &Options<'_>) -> layercake::Error {
    let start = Instant::now();
    let error = failure(apply(layer, Scratch::new().dir("root"), options));
    assert!(start.elapsed() < Duration::from_secs(20), "{error} after {:?}", start.elapsed());
    error
}

/// The layer is no tar that can be applied. Returns the reason.
#[track_caller]
fn refused(layer: &[u8]) -> String {
    let error = fails(layer, &options());
    match error.kind() {
        ErrorKind::InvalidLayer { reason } => reason.clone(),
        _ => panic!("unexpected kind: {error:?}"),
    }
}

/// There is too much of something. Returns of what, and the limit.
#[track_caller]
fn exceeds(layer: &[u8], options: &Options<'_>) -> (Limit, u64) {
    let error = fails(layer, options);
    match error.kind() {
        ErrorKind::LimitExceeded { limit, maximum } => (*limit, *maximum),
        _ => panic!("unexpected kind: {error:?}"),
    }
}

fn limited(set: impl FnOnce(&mut Limits)) -> Options<'static> {
    let mut limits = Limits::default();
    set(&mut limits);
    options().limits(limits)
}

/// An extension of the next entry, with these bytes.
fn extension(flag: u8, payload: impl AsRef<[u8]>) -> Item {
    Item::new(flag, "././@LongLink").content(payload)
}

fn gnu(item: Item) -> Item {
    item.field(257, b"ustar  \0")
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    gzip.write_all(content).unwrap();
    gzip.finish().unwrap()
}

/// Reads all entries without a disk.
fn read_all(tar: impl Read) -> layercake::Result<u64> {
    let mut entries = Entries::new(std::io::BufReader::new(tar), Limits::default());
    let mut count = 0;
    while let Some(mut entry) = entries.next_entry()? {
        std::io::copy(&mut entry.by_ref().take(4 * MIB), &mut std::io::sink())?;
        count += 1;
    }
    Ok(count)
}

/// One of everything.
fn mixture() -> Vec<Item> {
    vec![
        Item::dir("d"),
        Item::file("d/file", "content".repeat(200)),
        Item::file(format!("d/{}", "long".repeat(40)), "long").pax("comment", "a\nb"),
        gnu(extension(b'L', format!("d/{}\0", "l".repeat(200)))),
        Item::file("short", "gnu"),
        sparse(Dialect::Old, &[(0, 4), (900, 4)], 1000, b"oldspars").path("sparse-old"),
        sparse(Dialect::Pax10, &[(0, 4), (900, 4)], 1000, b"newspars"),
        Item::symlink("s", "d/file"),
        Item::hard_link("h", "d/file"),
        extension(b'g', record(b"comment", b"c")),
        Item::fifo("p"),
        Item::file("d/.wh.gone", ""),
    ]
}

/// Gaps of the tar crate, 5: a layer that breaks off is an error, unless it does between entries.
#[test]
fn layers_that_break_off_are_refused() {
    let items = mixture();
    let whole = tar(&items);
    let mut ends = vec![0];
    for item in &items {
        ends.push(ends.last().unwrap() + item.bytes().len());
    }
    let is_extension = |n: &usize| *n > 0 && *n <= items.len() && items[n - 1].bytes()[156] == b'L';
    let clean: Vec<usize> = (0..ends.len()).filter(|n| !is_extension(n)).map(|n| ends[n]).collect();
    for cut in 0..=whole.len() {
        let is_clean = clean.contains(&cut) || cut + 512 == whole.len() || cut == whole.len();
        match read_all(&whole[..cut]) {
            Ok(_) => assert!(is_clean, "{cut} of {} bytes were enough", whole.len()),
            Err(error) => {
                assert!(!is_clean, "{cut} bytes: {error}");
                assert_kind!(error, ErrorKind::InvalidLayer { .. });
            }
        }
    }
    for cut in (1..whole.len()).step_by(509) {
        if !clean.contains(&cut) {
            refused(&whole[..cut]);
        }
    }
}

/// P11: headers whose bytes were changed, with a checksum that is right, are read or refused.
#[test]
fn any_bytes_are_read_or_refused() {
    let whole = tar(&mixture());
    let (mut random, mut read) = (Random(1), 0);
    for _ in 0..4000 {
        let mut layer = whole.clone();
        for _ in 0..=random.below(3) {
            let at = random.below(layer.len());
            layer[at] = *random.pick(&[0, b'0', b'9', b'\n', 0x80, 0xff, b'x', b'S']);
            if let Some(block) = layer[at - at % 512..].first_chunk_mut::<512>() {
                *block = with_checksum(*block);
            }
        }
        match read_all(&layer[..]) {
            Ok(_) => read += 1,
            Err(error) => assert_kind!(error, ErrorKind::InvalidLayer { .. } | ErrorKind::LimitExceeded { .. }),
        }
    }
    assert!((100..3900).contains(&read), "{read}");
}

/// Names are bytes, without any zero byte.
#[test]
fn names_are_bytes() {
    let (name, target) = (OsStr::from_bytes(b"caf\xe9"), OsStr::from_bytes(b"\xff\n\xfe"));
    let layer = tar(&[
        Item::file(name.as_bytes(), "latin"),
        Item::hard_link("hard", name.as_bytes()),
        Item::symlink([b'\xff'; 150], target.as_bytes()),
        Item::file("nul\0hidden", "nul"),
        Item::symlink("link", "target\0hidden"),
        Item::file("a\nb\x1b[31m", "control"),
    ]);
    let done = applied(&layer);
    let stat = |name: &OsStr| fs::symlink_metadata(done.root.join(name)).unwrap();
    assert_eq!(stat(name).ino(), stat(OsStr::new("hard")).ino());
    assert_eq!(fs::read_link(done.root.join(OsStr::from_bytes(&[b'\xff'; 150]))).unwrap(), target);
    assert_eq!(fs::read(done.root.join("nul")).unwrap(), b"nul");
    assert_eq!(fs::read_link(done.root.join("link")).unwrap(), Path::new("target"));
    assert_eq!(fs::read(done.root.join("a\nb\x1b[31m")).unwrap(), b"control");
    let text = fails(&tar(&[Item::hard_link("a\nb\x1b[31m", "\x1b\n")]), &options()).to_string();
    assert!(!text.contains(['\n', '\x1b']), "{text:?}");
    let error = fails(&tar(&[Item::file(vec![b'n'; 256], "")]), &options());
    assert_kind!(error, ErrorKind::Io { .. });
}

/// Before POSIX a directory was a file with a slash at the end of its name.
#[test]
fn old_directories_end_with_a_slash() {
    let old = |name: &str| Item::file(name, "").field(156, &[0]).field(257, &[0; 8]).mode(0o755);
    becomes(&tar(&[old("old/"), old("file"), old("old/.wh.x/")]), &["file: ", "old/"]);
}

/// L19: two blocks of zeros end a layer, or its last byte; what follows is read and means nothing.
#[test]
fn a_layer_ends_with_two_blocks_of_zeros() {
    let file = Item::file("f", "f").bytes();
    let smuggled = Item::file("smuggled", "").bytes();
    let zeros = |blocks: usize| vec![0; blocks * 512];
    for end in [zeros(0), zeros(1), zeros(2), zeros(20), [zeros(2), smuggled.clone(), b"garbage".to_vec()].concat()] {
        becomes(&[file.clone(), end].concat(), &["f: f"]);
    }
    refused(&[file.clone(), zeros(1), smuggled].concat());
    refused(&[&file[..], b"garbage"].concat());
    for nothing in [&[][..], &zeros(1), &zeros(2), &zeros(9)] {
        assert_eq!(applied(nothing).report, Unpacked::default());
    }
    let layer = [tar(&[Item::file("f", "f")]), b"garbage".repeat(100_000)].concat();
    let mut reader = Cursor::new(&layer);
    let _ = apply(&mut reader, Scratch::new().dir("root"), &options()).unwrap();
    assert_eq!(reader.position(), layer.len() as u64);
}

/// L19: gzip of several members, in the middle of an entry too, with zero bytes behind.
#[test]
fn gzip_of_several_members_is_one_layer() {
    let whole = tar(&mixture());
    let expected = listing(&applied(&whole).root);
    for at in [0, 1, 700, whole.len() - 1, whole.len()] {
        let layer = [gzip(&whole[..at]), gzip(b""), gzip(&whole[at..]), vec![0; 700]].concat();
        assert_eq!(listing(&applied(&layer).root), expected);
    }
    let layer = gzip(&whole);
    let broken = [&layer[..layer.len() - 1], &layer[..layer.len() / 2], &[&layer[..], b"garbage"].concat()];
    for broken in broken {
        assert_kind!(fails(broken, &options()), ErrorKind::Compression { .. });
    }
    let mut flipped = layer.clone();
    *flipped.last_mut().unwrap() ^= 1;
    assert_kind!(fails(&flipped, &options()), ErrorKind::Compression { .. });
}

/// L19: zstd of several frames, some of which are skipped (zstd:chunked).
#[cfg(feature = "zstd")]
#[test]
fn zstd_of_several_frames_is_one_layer() {
    let whole = tar(&mixture());
    let expected = listing(&applied(&whole).root);
    let frame = |content: &[u8]| zstd::encode_all(content, 1).unwrap();
    let skipped = [&b"\x5a\x2a\x4d\x18\x05\0\0\0"[..], b"12345"].concat();
    for at in [0, 700, whole.len()] {
        let layer = [&skipped[..], &frame(&whole[..at]), &skipped, &frame(&whole[at..]), &skipped].concat();
        assert_eq!(listing(&applied(&layer).root), expected);
    }
    let layer = frame(&whole);
    assert_kind!(fails(&layer[..layer.len() - 1], &options()), ErrorKind::Compression { .. });
    assert_kind!(fails(&[&layer[..], b"garbage"].concat(), &options()), ErrorKind::Compression { .. });
}

/// P9: each limit has an error of its own, on what the layer says and on what it is.
#[test]
fn what_is_too_much_is_refused() {
    let files = tar(&[Item::file("a", "12345"), Item::file("b", "12345"), Item::file(".wh.c", "")]);
    assert_eq!(exceeds(&files, &limited(|limits| limits.entries = 2)), (Limit::Entries, 2));
    assert_eq!(exceeds(&files, &limited(|limits| limits.file_bytes = 4)), (Limit::FileSize, 4));
    assert_eq!(exceeds(&files, &limited(|limits| limits.unpacked_bytes = 2000)), (Limit::UnpackedSize, 2000));
    let enough =
        limited(|limits| (limits.entries, limits.file_bytes, limits.unpacked_bytes) = (3, 5, files.len() as u64));
    assert_eq!(apply(&files[..], Scratch::new().dir("root"), &enough).unwrap().entries, 3);
    let holes = |size| tar(&[sparse(Dialect::Pax01, &[], size, b""), sparse(Dialect::Old, &[], size, b"")]);
    assert_eq!(exceeds(&holes(1 << 20), &limited(|limits| limits.file_bytes = 4096)), (Limit::FileSize, 4096));
    let unpacked = limited(|limits| limits.unpacked_bytes = 3 << 19);
    assert_eq!(exceeds(&holes(1 << 20), &unpacked), (Limit::UnpackedSize, 3 << 19));
    let largest = Item::file("f", "").field(124, b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff");
    assert_eq!(exceeds(&tar(std::slice::from_ref(&largest)), &options()), (Limit::FileSize, 1 << 40));
    assert_eq!(exceeds(&tar(&[largest.pax("size", "1099511627777")]), &options()), (Limit::FileSize, 1 << 40));
}

/// P9: paths, and what links say, may be as long as the kernel takes.
#[test]
fn long_paths_are_refused() {
    let long = "d/".repeat(2048);
    let exact = &long[..4095];
    for item in [
        Item::dir(&long),
        Item::file(format!("{long}.wh.x"), ""),
        Item::symlink("s", &long),
        Item::hard_link("h", &long),
    ] {
        assert_eq!(exceeds(&tar(&[item]), &options()), (Limit::PathLength, 4095));
    }
    let short = limited(|limits| limits.path_bytes = 5);
    assert_eq!(exceeds(&tar(&[Item::dir("a/b/c/")]), &short), (Limit::PathLength, 5));
    let done = applied(&tar(&[Item::symlink("s", exact)]));
    assert_eq!(fs::read_link(done.root.join("s")).unwrap(), Path::new(exact));
}

/// CVE-2022-36114 (cargo) and others: bombs are stopped by what they became, behind the tar's end too.
#[test]
fn bombs_are_stopped() {
    let zeros = vec![0; 16 << 20];
    let small = tar(&[Item::file("f", "f")]);
    let bomb = [gzip(&small), gzip(&zeros).repeat(70)].concat();
    assert!(bomb.len() < 2 << 20);
    let ratio = |maximum| limited(|limits| (limits.expansion_ratio, limits.trailer_bytes) = (maximum, u64::MAX));
    assert_eq!(exceeds(&bomb, &ratio(100)), (Limit::ExpansionRatio, 100));
    assert_eq!(exceeds(&bomb, &options()), (Limit::TrailerSize, 256 << 20));
    let unpacked = limited(|limits| limits.unpacked_bytes = 1 << 20);
    assert_eq!(exceeds(&bomb, &unpacked), (Limit::UnpackedSize, 1 << 20));
    #[cfg(feature = "zstd")]
    {
        let frame = |content: &[u8]| zstd::encode_all(content, 1).unwrap();
        let bomb = [frame(&small), frame(&zeros).repeat(70)].concat();
        assert_eq!(exceeds(&bomb, &ratio(1100)), (Limit::ExpansionRatio, 1100));
    }
}

/// L9: the last one counts; each one too many is reported, and is an error where the caller says so.
#[test]
fn what_comes_twice_is_reported() {
    let layer = tar(&[
        Item::file("a", "first"),
        Item::dir("d"),
        Item::file("./a", "second"),
        Item::symlink("d", "a"),
        Item::file("a", "last"),
        Item::dir("d"),
    ]);
    let done = applied(&layer);
    assert_eq!(listing(&done.root), ["a: last", "d/"]);
    assert_eq!(done.report.duplicates, ["a", "d", "a", "d"].map(PathBuf::from));
    assert_eq!((done.report.entries, done.report.bytes), (6, 15));
    let error = fails(&layer, &options().strict(true));
    let twice = |name| format!("{name}: comes twice in one layer");
    assert_kind!(error, ErrorKind::NotApplied { what } if *what == ["a", "d", "a", "d"].map(twice));
}

/// P2: what is not applied is reported, and is an error where the caller says so.
#[test]
fn what_is_not_applied_is_reported() {
    let layer = tar(&[Item::file("f", "").pax("SCHILY.acl.access", "user::rw-").xattr("security.selinux", "label")]);
    let done = applied(&layer);
    let skipped: Vec<String> = done.report.skipped.iter().map(ToString::to_string).collect();
    let expected = ["f: attribute security.selinux: is the host's", "f: record SCHILY.acl.access: is not known here"];
    assert_eq!(skipped, expected);
    assert_kind!(fails(&layer, &options().strict(true)), ErrorKind::NotApplied { what } if *what == expected);
    assert_eq!(apply(&tar(&mixture())[..], Scratch::new().dir("root"), &options().strict(true)).unwrap().entries, 10);
}

/// Throws the switch when something was written.
struct Canceller(Cancel);

impl Observer for Canceller {
    fn event(&self, event: &Event<'_>) {
        if matches!(event, Event::Unpacking { .. }) {
            self.0.cancel();
        }
    }
}

/// A switch ends the work at the next chance, in the middle of a file too.
#[test]
fn cancelled_work_ends() {
    let cancel = Cancel::new();
    let observer = Canceller(cancel.clone());
    let scratch = Scratch::new();
    let root = scratch.dir("root");
    let layer = tar(&[Item::file("large", vec![7; 4 << 20]), Item::file("after", "")]);
    let options = options().cancel(&cancel).observer(&observer);
    assert_kind!(failure(apply(&layer[..], &root, &options)), ErrorKind::Cancelled);
    assert!(fs::metadata(root.join("large")).unwrap().len() < 4 << 20 && !root.join("after").exists());
    assert_kind!(fails(&layer, &options), ErrorKind::Cancelled);
}

/// L10: a missing target, or one that is a directory, is an error that names both.
#[test]
fn hard_links_need_a_file() {
    for (target, what) in [("dne/target", "not there"), ("d", "a directory")] {
        let text = fails(&tar(&[Item::dir("d"), Item::hard_link("the/link", target)]), &options()).to_string();
        let expected = format!("entry \"the/link\": invalid layer: a hard link to {target:?}, which is {what}");
        assert!(text.ends_with(&expected), "{text}");
    }
    refused(&tar(&[Item::hard_link("h", "/")]));
    refused(&tar(&[Item::hard_link("self", "self")]));
    refused(&tar(&[Item::symlink("s", "")]));
    becomes(&tar(&[Item::file("f", "f"), Item::hard_link("f", "f")]), &["f: f"]);
}

/// A tree of so many levels, longer than any path: each symlink leads to the end of the one before.
fn deep(links: usize, levels: usize) -> Vec<Item> {
    let path = vec!["d"; levels].join("/");
    let mut items = vec![Item::dir("deep")];
    let mut from = "deep".to_owned();
    for n in 0..links {
        items.push(Item::dir(format!("{from}/{path}")));
        items.push(Item::symlink(format!("l{n}"), format!("{from}/{path}")));
        from = format!("l{n}");
    }
    items.push(Item::file(format!("{from}/bottom"), "bottom"));
    items
}

/// P9, P11: a tree that is as deep as a path is long is made, and removed by a later layer.
#[test]
fn deep_trees_are_removed_again() {
    for options in [options(), options().without_openat2()] {
        let scratch = Scratch::new();
        let root = scratch.dir("root");
        let _ = apply(&tar(&deep(3, 600))[..], &root, &options).unwrap();
        let _ = apply(&tar(&[Item::file("l1/d/.wh.d", "")])[..], &root, &options).unwrap();
        let _ = apply(&tar(&[Item::file(".wh.deep", "")])[..], &root, &options).unwrap();
        assert!(fs::symlink_metadata(root.join("deep")).is_err());
        assert_eq!(fs::read_dir(&root).unwrap().count(), 3);
    }
}

/// P9: links lead deeper than any path is long, and each step down costs more than the one before. It ends there.
#[test]
fn deeper_than_a_path_is_refused() {
    let start = Instant::now();
    let error = failure(apply(&tar(&deep(40, 1000))[..], Scratch::new().dir("root"), &options()));
    assert_kind!(error, ErrorKind::LimitExceeded { limit: Limit::PathLength, maximum: 4_095 });
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}

/// Gives one byte at a time.
struct Bytewise<'a>(&'a [u8]);

impl Read for Bytewise<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let most = buffer.len().min(1);
        self.0.read(&mut buffer[..most])
    }
}

/// Splitting reads into bytes changes nothing.
#[test]
fn bytes_one_by_one_are_the_same_layer() {
    let whole = tar(&mixture());
    let expected = applied(&whole);
    for layer in [whole.clone(), gzip(&whole)] {
        let scratch = Scratch::new();
        let root = scratch.dir("root");
        assert_eq!(apply(Bytewise(&layer), &root, &options()).unwrap(), expected.report);
        assert_eq!(listing(&root), listing(&expected.root));
    }
    let slow = std::io::BufReader::with_capacity(1, &whole[..]);
    assert_eq!(read_all(slow).unwrap(), read_all(&whole[..]).unwrap());
}
