//! Odd tar streams, compared with Python's tarfile, GNU tar, and umoci, which uses Go's `archive/tar`.

use std::fmt::Write as _;
use std::fs;
use std::io::Read;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Command;
use std::process::Stdio;

use layercake::Digest;
use layercake::changeset::Entries;
use layercake::changeset::EntryKind;
use layercake::changeset::Limits;
use layercake::changeset::apply;
use serde_json::json;

use super::Reader;
use super::Run;
use super::one_in;
use crate::breakouts;
use crate::support::Scratch;
use crate::support::model::Random;
use crate::support::tape::Item;
use crate::support::tape::record;
use crate::support::tools::installed;
use crate::support::tools::is_root;

const NAMES: [&str; 12] = ["a", "b/", "c/d", "./e", "f//g", "/h", "c/../i", "a/.", "\u{e4}", "b", "j/k/", "l"];
const MAGICS: [&[u8; 8]; 6] =
    [b"ustar\x0000", b"ustar\x0000", b"ustar  \0", b"\0\0\0\0\0\0\0\0", b"ustar\0  ", b"ustar \0\0"];
const FLAGS: &[u8] = b"0005\0\0\0\x0012567S3";
const RECORDS: [(&str, &[&str]); 17] = [
    ("path", &["p", "q/", "r/s", "", "./t", "u/..", "GNUSparseFile.1/sp"]),
    ("linkpath", &["a", "", "p"]),
    ("size", &["0", "512", "1024", "", "8589934592"]),
    ("uid", &["7", "", "07"]),
    ("gid", &["7"]),
    ("mtime", &["1.5", "-1", "-1.25", "", "1.", "99999999999999999999"]),
    ("hdrcharset", &["BINARY"]),
    ("comment", &["\n24 GNU.sparse.offset=99\n", "c"]),
    ("SCHILY.realsize", &["5"]),
    ("SCHILY.xattr.user.x", &["", "v"]),
    ("LIBARCHIVE.xattr.user.x", &["dg", ""]),
    ("GNU.volume.size", &["9"]),
    ("GNU.sparse.name", &["sp", "sp/"]),
    ("GNU.sparse.major", &["0", "1", "00"]),
    ("GNU.sparse.minor", &["0", "1"]),
    ("GNU.sparse.numblocks", &["0", "1", "2"]),
    ("GNU.sparse.realsize", &["512", "4096"]),
];
const SPARSE_RECORDS: [(&str, &[&str]); 4] = [
    ("GNU.sparse.size", &["512", "4096", "0"]),
    ("GNU.sparse.map", &["0,512", "0,512,4096,0", "512,512,4096,0", ""]),
    ("GNU.sparse.offset", &["0", "512"]),
    ("GNU.sparse.numbytes", &["512", "0"]),
];
const NUMBERS: [&[u8; 8]; 14] = [
    b"0000644\0",
    b"\x000000644",
    b"\0\0\x0000644",
    b" \x00 00644",
    b"        ",
    b"    644 ",
    b"644     ",
    b"0000644 ",
    b"\x80\0\0\0\0\0\x01\0",
    b"\x81\0\0\0\0\0\x01\0",
    b"\xff\xff\xff\xff\xff\xff\xff\xff",
    b"1 1\0\0\0\0\0",
    b"\0\0\0\0\0\0\0\0",
    b"0120777\0",
];
/// The fields of numbers: where they start.
const FIELDS: [usize; 7] = [100, 108, 116, 124, 136, 329, 337];

/// A stream of one to three entries.
fn stream(random: &mut Random) -> Vec<u8> {
    let mut bytes = Vec::new();
    for n in 0..1 + random.below(3) {
        if one_in(random, 12) {
            let (key, values) = *random.pick(&RECORDS);
            bytes.extend(Item::new(b'g', "g").content(record(key.as_bytes(), random.pick(values).as_bytes())).bytes());
        }
        if one_in(random, 7) {
            let name = *random.pick(&["long\0", "long/\0", "long", "l/m\0\0", "long\0x"]);
            bytes.extend(Item::new(*random.pick(b"LLLK"), "././@LongLink").content(name).bytes());
        }
        if one_in(random, 8) {
            bytes.extend(sparse(random));
        } else {
            bytes.extend(entry(random, n));
        }
        if one_in(random, 25) {
            bytes.extend([0; 512]);
        }
    }
    bytes.extend(vec![0; *random.pick(&[1024, 1024, 512, 0, 1536])]);
    bytes
}

fn entry(random: &mut Random, n: usize) -> Vec<u8> {
    let flag = *random.pick(FLAGS);
    let name = match one_in(random, 10) {
        true => "n".repeat(100),
        false => (*random.pick(&NAMES)).to_owned(),
    };
    // Links have names of their own: files below them are another matter than how a tar is read.
    let name = if matches!(flag, b'1' | b'2') { format!("link{n}") } else { name };
    let size = *random.pick(&[0, 0, 512, 1024]);
    let smuggled = Item::file(format!("smuggled{n}"), "").bytes().repeat(2);
    let mut item = Item::new(flag, &name).content(&smuggled[..size]).field(257, *random.pick(&MAGICS));
    if matches!(flag, b'1' | b'2' | b'0') {
        item = item.link(*random.pick(&["a", "c/d", "link9"]));
    }
    for (key, values) in RECORDS.iter().chain(&SPARSE_RECORDS) {
        let often = if matches!(*key, "path" | "size") { 3 } else { 25 };
        for _ in 0..2 {
            if one_in(random, often) {
                item = item.pax(key, *random.pick(values));
            }
            if !one_in(random, 10) {
                break;
            }
        }
    }
    if one_in(random, 5) {
        item = item.field(*random.pick(&FIELDS), *random.pick(&NUMBERS));
    }
    if one_in(random, 6) {
        let prefixes: [&[u8]; 6] = [b"pre", b"pre/", b"00000000001\0", b"oldgo\xff", b"\0x", &[b'p'; 155]];
        let prefix = *random.pick(&prefixes);
        item = item.field(345, prefix);
    }
    if one_in(random, 10) {
        item = item.field(508, b"tar\0");
    }
    item.bytes()
}

/// A sparse file that is nearly right, of one of the four forms.
fn sparse(random: &mut Random) -> Vec<u8> {
    let form = random.below(4);
    let choices: [&[(u64, u64)]; 5] =
        [&[(0, 512)], &[(0, 512), (4096, 0)], &[(512, 512), (4096, 0)], &[(4096, 0)], &[]];
    let pieces = *random.pick(&choices);
    let size = if one_in(random, 6) { 512 } else { pieces.last().map_or(4096, |(offset, length)| offset + length) };
    let stored: usize = pieces.iter().map(|(_, length)| *length as usize).sum();
    let content = vec![b'x'; stored];
    let numbers: Vec<String> =
        pieces.iter().flat_map(|(offset, length)| [offset.to_string(), length.to_string()]).collect();
    let count = (pieces.len() + usize::from(one_in(random, 8))).to_string();
    let name = |item: Item| item.pax("GNU.sparse.name", "sparse");
    let item = match form {
        0 => {
            let item = Item::file("sparse", &content).pax("GNU.sparse.size", size.to_string());
            let item = item.pax("GNU.sparse.numblocks", count);
            numbers
                .chunks(2)
                .fold(item, |item, pair| item.pax("GNU.sparse.offset", &pair[0]).pax("GNU.sparse.numbytes", &pair[1]))
        }
        1 => name(Item::file("GNUSparseFile.1/sparse", &content).pax("GNU.sparse.size", size.to_string()))
            .pax("GNU.sparse.numblocks", count)
            .pax("GNU.sparse.map", numbers.join(",")),
        2 => {
            let mut map = format!("{count}\n{}\n", numbers.join("\n")).into_bytes();
            map.resize(map.len().next_multiple_of(512), 0);
            let item = Item::file("GNUSparseFile.1/sparse", [map, content].concat());
            name(item.pax("GNU.sparse.major", "1").pax("GNU.sparse.minor", "0"))
                .pax("GNU.sparse.realsize", size.to_string())
        }
        _ => {
            let slots: String =
                pieces.iter().map(|(offset, length)| format!("{offset:011o}\0{length:011o}\0")).collect();
            let item = Item::new(b'S', "sparse").content(&content).field(257, b"ustar  \0");
            item.field(386, slots.as_bytes()).field(483, format!("{size:011o}\0").as_bytes())
        }
    };
    let item = if one_in(random, 8) { item.pax("size", *random.pick(&["512", "1024"])) } else { item };
    let item =
        if one_in(random, 8) { item.pax("path", *random.pick(&["sparse", "GNUSparseFile.2/x", "y"])) } else { item };
    if one_in(random, 10) { item.field(482, &[1]).bytes() } else { item.bytes() }
}

/// The entries as this crate reads them, or none if it refuses the stream.
fn listing(stream: &[u8]) -> Option<String> {
    let mut entries = Entries::new(stream, Limits::default());
    let mut lines = String::new();
    while let Some(mut entry) = entries.next_entry().ok()? {
        let mut content = Vec::new();
        entry.read_to_end(&mut content).ok()?;
        let (kind, link) = match entry.kind() {
            EntryKind::File => ("file", None),
            EntryKind::Directory => ("directory", None),
            EntryKind::Symlink { target } => ("symlink", Some(target)),
            EntryKind::HardLink { target } => ("link", Some(target)),
            EntryKind::CharDevice { .. } | EntryKind::BlockDevice { .. } => ("device", None),
            EntryKind::Fifo => ("fifo", None),
            _ => ("whiteout", None),
        };
        let hex = |bytes: &[u8]| bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
        let path = hex(entry.path().as_os_str().as_bytes());
        let link = hex(link.map_or(&[], |link| link.as_os_str().as_bytes()));
        let (mode, seconds) = (entry.mode(), entry.modified().seconds);
        let ids = (entry.uid(), entry.gid());
        writeln!(lines, "{path} {kind} {link} {mode:o} {ids:?} {seconds} {}", hex(&content)).expect("it is a string");
    }
    Some(lines)
}

const PYTHON: &str = r#"
def clean(name):
    parts = []
    for part in name.encode("utf-8", "surrogateescape").split(b"/"):
        if part == b"..": del parts[-1:]
        elif part not in (b"", b"."): parts.append(part)
    return b"/".join(parts)
def answer(stream):
    out = []
    archive = tarfile.open(fileobj=io.BytesIO(stream), mode="r:", encoding="utf-8", errors="surrogateescape")
    for m in archive:
        kind = "file" if m.isreg() else "directory" if m.isdir() else "symlink" if m.issym() else "link" if m.islnk() else "fifo" if m.isfifo() else "device"
        content = archive.extractfile(m).read() if m.isreg() else b""
        link = m.linkname.encode("utf-8", "surrogateescape") if kind in ("symlink", "link") else b""
        out.append("%s %s %s %o (%d, %d) %d %s\n" % (clean(m.name).hex(), kind, link.hex(), m.mode & 0o7777, m.uid, m.gid, math.floor(m.mtime), content.hex()))
    return "".join(out)
"#;

/// Names that GNU tar gives to sparse files beside the right ones; Python takes the wrong ones where both are there.
fn has_two_sparse_names(stream: &[u8]) -> bool {
    let has = |text: &[u8]| stream.windows(text.len()).any(|part| part == text);
    has(b"GNU.sparse.name=") && has(b" path=")
}

/// Compares the listings of accepted streams with those of another reader, but for streams that are `known` to differ.
fn compare(reader: &mut Reader, known: impl Fn(&[u8]) -> bool) {
    let mut run = Run::new();
    let (mut made, mut both) = (0, 0);
    while let Some(mut random) = run.next(made) {
        made += 1;
        let stream = stream(&mut random);
        let Some(ours) = listing(&stream) else { continue };
        if known(&stream) {
            continue;
        }
        let theirs = reader.ask(&stream);
        if theirs.starts_with("error") {
            continue;
        }
        both += 1;
        assert_eq!(ours, theirs, "seed {}: {}", run.seed, kept(&stream, run.seed));
    }
    println!("{made} streams, {both} accepted by both, no difference");
    assert!(both > 20, "{both} of {made} streams were accepted by both");
}

/// P13.
#[test]
fn accepted_streams_mean_the_same_to_python() {
    if installed(&["python3"]) {
        compare(&mut Reader::python(PYTHON), has_two_sparse_names);
    }
}

/// P13, where Go is installed; umoci, which is written in Go, stands for it elsewhere.
#[test]
fn accepted_streams_mean_the_same_to_go() {
    let scratch = Scratch::new();
    let (source, program) = (scratch.path("list.go"), scratch.path("list"));
    fs::write(&source, include_str!("list.go")).expect("it can be written");
    let mut build = Command::new("go");
    build.args(["build", "-o"]).args([&program, &source]).env("GOCACHE", scratch.path("cache"));
    if !build.output().is_ok_and(|built| built.status.success()) {
        println!("ignored: needs go");
        return;
    }
    compare(&mut Reader::start(&mut Command::new(&program)), |_| false);
}

/// Where a stream that is read in two ways is kept, if `LAYERCAKE_DIFFERENTIAL_KEEP` names a directory.
fn kept(stream: &[u8], seed: u64) -> String {
    let Some(directory) = std::env::var_os("LAYERCAKE_DIFFERENTIAL_KEEP") else {
        return stream.escape_ascii().to_string();
    };
    let path = Path::new(&directory).join(format!("{seed}.tar"));
    fs::write(&path, stream).expect("the directory can be written to");
    path.display().to_string()
}

/// What lies below a root: names, kinds, contents and targets of links.
fn tree(root: &Path) -> Vec<String> {
    fn walk(directory: &Path, root: &Path, found: &mut Vec<String>) {
        for entry in fs::read_dir(directory).expect("it can be read") {
            let path = entry.expect("it can be read").path();
            let name = path.strip_prefix(root).expect("it is below").as_os_str().as_bytes().escape_ascii().to_string();
            let stat = fs::symlink_metadata(&path).expect("it is there");
            if stat.is_dir() {
                found.push(format!("{name}/"));
                walk(&path, root, found);
            } else if stat.is_symlink() {
                found.push(format!("{name} -> {}", fs::read_link(&path).expect("it is a link").display()));
            } else if stat.is_file() {
                found.push(format!("{name}: {}", Digest::sha256(&fs::read(&path).expect("it can be read"))));
            } else {
                found.push(format!("{name}|"));
            }
        }
    }
    let mut found = Vec::new();
    walk(root, root, &mut found);
    found.sort();
    found
}

/// The tree that this crate makes of a stream, or none if it refuses it.
fn applied(stream: &[u8], scratch: &Scratch) -> Option<Vec<String>> {
    let root = scratch.path("ours");
    let _ = fs::remove_dir_all(&root);
    fs::create_dir(&root).expect("a directory can be made");
    let _ = apply(stream, &root, &breakouts::options()).ok()?;
    Some(tree(&root))
}

/// Whether GNU tar is known to read a stream of real tools otherwise: a prefix that Go before 1.8 wrote, and a sparse file
/// without pieces, of which it makes an empty one. Members with `..` it leaves out.
fn is_known_of_gnu(stream: &[u8]) -> bool {
    let blocks = || stream.chunks_exact(512);
    let has_prefix = blocks().any(|block| block[257..265] == *b"ustar  \0" && block[345] != 0);
    let has_empty_map = blocks().any(|block| block.starts_with(b"0\n"));
    has_prefix || has_empty_map
}

/// P13. A process for each stream, so that there are fewer.
#[test]
fn accepted_streams_mean_the_same_to_gnu_tar() {
    if !installed(&["tar"]) {
        return;
    }
    let (mut run, scratch) = (Run::new(), Scratch::new());
    let (mut made, mut both) = (0, 0);
    while let Some(mut random) = run.next(made) {
        made += 1;
        let stream = stream(&mut random);
        if is_known_of_gnu(&stream) {
            continue;
        }
        let Some(ours) = applied(&stream, &scratch) else { continue };
        let root = scratch.path("theirs");
        let _ = fs::remove_dir_all(&root);
        fs::create_dir(&root).expect("a directory can be made");
        let mut tar = Command::new("tar");
        tar.args(["--extract", "--file", "-", "--numeric-owner", "--directory"]).arg(&root);
        let mut child = tar.stdin(Stdio::piped()).stderr(Stdio::null()).spawn().expect("tar starts");
        // It may end before it has read all.
        let _ = child.stdin.take().expect("it is piped").write_all(&stream);
        if !child.wait().expect("tar ends").success() {
            continue;
        }
        both += 1;
        assert_eq!(ours, tree(&root), "seed {}: {}", run.seed, kept(&stream, run.seed));
    }
    println!("{made} streams, {both} accepted by both, no difference");
    assert!(both > 20, "{both} of {made} streams were accepted by both");
}

/// A layout with one image of one layer.
fn layout(stream: &[u8], directory: &Path) {
    let _ = fs::remove_dir_all(directory);
    fs::create_dir_all(directory.join("blobs/sha256")).expect("a directory can be made");
    let blob = |content: &[u8], media_type: &str| {
        let digest = Digest::sha256(content);
        fs::write(directory.join("blobs/sha256").join(digest.hex().to_string()), content).expect("it can be written");
        json!({ "mediaType": media_type, "digest": digest, "size": content.len() })
    };
    let of = |kind: &str| format!("application/vnd.oci.image.{kind}");
    let layer = blob(stream, &of("layer.v1.tar"));
    let config = json!({
        "architecture": "amd64", "os": "linux", "config": {},
        "rootfs": { "type": "layers", "diff_ids": [layer["digest"]] },
    });
    let config = blob(config.to_string().as_bytes(), &of("config.v1+json"));
    let manifest = json!({
        "schemaVersion": 2, "mediaType": of("manifest.v1+json"), "config": config, "layers": [layer],
    });
    let mut root = blob(manifest.to_string().as_bytes(), &of("manifest.v1+json"));
    root["annotations"] = json!({ "org.opencontainers.image.ref.name": "x" });
    let index = json!({ "schemaVersion": 2, "manifests": [root] });
    fs::write(directory.join("index.json"), index.to_string()).expect("it can be written");
    fs::write(directory.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("it can be written");
}

/// P13: umoci reads tars with Go's `archive/tar`, as docker, containerd and podman do.
#[test]
fn accepted_streams_mean_the_same_to_umoci() {
    if std::env::var_os("LAYERCAKE_INTEROP").is_none() || !installed(&["umoci"]) || !is_root() {
        return;
    }
    let (mut run, scratch) = (Run::new(), Scratch::new());
    let (mut made, mut both) = (0, 0);
    while let Some(mut random) = run.next(made) {
        made += 1;
        let stream = stream(&mut random);
        let Some(ours) = applied(&stream, &scratch) else { continue };
        let (images, root) = (scratch.path("layout"), scratch.path("theirs"));
        layout(&stream, &images);
        let _ = fs::remove_dir_all(&root);
        let image = format!("{}:x", images.display());
        let unpacked = Command::new("umoci").args(["raw", "unpack", "--image", &image]).arg(&root).output();
        if !unpacked.expect("umoci starts").status.success() {
            continue;
        }
        both += 1;
        assert_eq!(ours, tree(&root), "seed {}: {}", run.seed, kept(&stream, run.seed));
    }
    println!("{made} streams, {both} accepted by both, no difference");
    assert!(both > 5, "{both} of {made} streams were accepted by both");
}
