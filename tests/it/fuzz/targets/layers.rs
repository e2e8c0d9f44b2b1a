//! Fuzz targets of layers: the tar reader, the decompressors, and applying a layer beside a canary.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::symlink;
use std::path::Component;
use std::path::Path;
use std::path::PathBuf;

use layercake::Compression;
use layercake::Digest;
use layercake::changeset;
use layercake::changeset::Entries;
use layercake::changeset::Layout;
use layercake::changeset::Limits;
use layercake::changeset::Options;
use layercake::changeset::Ownership;
use layercake::fuzzing;
use rustix::fs::AtFlags;
use rustix::fs::Timespec;
use rustix::fs::Timestamps;
use tempfile::TempDir;

use super::check_message;

/// The most bytes that an input may become. A small input becomes more only by mistake.
const MAX_BYTES: u64 = 16 << 20;

/// Reads the entries of a tar. Small reads give the same entries as one large read.
pub fn tar(data: &[u8]) {
    let data = &with_checksums(data)[..];
    let whole = entries(data);
    assert_eq!(entries(BufReader::with_capacity(7, data)), whole, "read in small pieces");
}

/// Decompresses gzip. Where flate2 alone accepts the stream, the content is the same.
pub fn gzip(data: &[u8]) {
    if Compression::detect(data) == Compression::Gzip {
        let mut content = Vec::new();
        let read = flate2::bufread::MultiGzDecoder::new(data).take(MAX_BYTES).read_to_end(&mut content);
        decompress(data, read.is_ok_and(|count| (count as u64) < MAX_BYTES).then_some(content));
    }
}

/// Decompresses zstd. Where libzstd alone accepts the stream in a window of 8 MiB, which all decoders have to support
/// (RFC 8878, section 3.1.1.1.2), the content is the same.
#[cfg(feature = "zstd")]
pub fn zstd(data: &[u8]) {
    if Compression::detect(data) == Compression::Zstd {
        let read = || -> io::Result<Vec<u8>> {
            let mut content = Vec::new();
            let mut decoder = zstd::stream::read::Decoder::with_buffer(data)?;
            decoder.window_log_max(23)?;
            decoder.take(MAX_BYTES).read_to_end(&mut content)?;
            Ok(content)
        };
        decompress(data, read().ok().filter(|content| (content.len() as u64) < MAX_BYTES));
    }
}

/// Applies a layer to a directory beside a canary. Nothing outside of the directory changes, and path resolution with
/// and without `openat2` gives the same tree.
pub fn apply(data: &[u8]) {
    is_applied(data);
}

/// [`apply`], and returns whether the layer could be applied.
pub fn is_applied(data: &[u8]) -> bool {
    thread_local!(static CAGE: Cage = Cage::new());
    let data = &with_checksums(data)[..];
    CAGE.with(|cage| {
        let mut limits = Limits::default();
        limits.unpacked_bytes = MAX_BYTES;
        let options = Options::new().ownership(ownership()).limits(limits);
        let flat = cage.apply(data, &options);
        assert_eq!(cage.apply(data, &options.clone().without_openat2()), flat, "without openat2");
        cage.apply(data, &options.layout(Layout::Overlay)).ok();
        flat.is_ok()
    })
}

/// Makes the checksums of tar headers valid, because a reader refuses a mutated header before it looks at the fields.
fn with_checksums(data: &[u8]) -> Vec<u8> {
    let mut data = data.to_vec();
    for block in data.chunks_exact_mut(512).filter(|block| block[257..262] == *b"ustar") {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    data
}

/// Describes a tar as its reader sees it: one line for each entry, and the error at the end.
fn entries(tar: impl BufRead) -> Vec<String> {
    let mut limits = Limits::default();
    (limits.entries, limits.file_bytes, limits.unpacked_bytes) = (10_000, MAX_BYTES, MAX_BYTES);
    let mut entries = Entries::new(tar, limits);
    let mut lines = Vec::new();
    loop {
        let mut entry = match entries.next_entry() {
            Ok(Some(entry)) => entry,
            Ok(None) => return lines,
            Err(error) => {
                check_message(&error);
                lines.push(error.to_string());
                return lines;
            }
        };
        let is_plain = |part| matches!(part, Component::Normal(name) if !name.as_bytes().contains(&0));
        assert!(entry.path().components().all(is_plain), "{:?}", entry.path());
        let xattrs: Vec<_> = entry.xattrs().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let owner = (entry.uid(), entry.gid(), entry.mode());
        let (size, mut line) = (entry.size(), format!("{:?} {:?} {owner:?}", entry.path(), entry.kind()));
        line += &format!(" {:?} {xattrs:?} {size}", entry.modified());
        let mut content = Vec::new();
        match entry.read_to_end(&mut content) {
            Ok(count) => assert_eq!(count as u64, size, "{line}"),
            Err(error) => line += &error.to_string(),
        }
        lines.push(format!("{line} {}", Digest::sha256(&content)));
    }
}

/// Decompresses in one read and in small reads, and compares both with the content that is expected.
fn decompress(data: &[u8], expected: Option<Vec<u8>>) {
    let whole = fuzzing::decompress(data, MAX_BYTES).map_err(|error| error.to_string());
    let pieces = fuzzing::decompress(BufReader::with_capacity(3, data), MAX_BYTES).map_err(|error| error.to_string());
    assert!(whole == pieces, "read in small pieces: {:?}, {:?}", whole.err(), pieces.err());
    if let Some(expected) = expected {
        assert!(whole.as_ref() == Ok(&expected), "a valid stream of {} bytes: {:?}", expected.len(), whole.err());
    }
}

/// A directory to apply layers to, and a canary beside it.
struct Cage {
    dir: TempDir,
    canary: BTreeMap<PathBuf, String>,
}

impl Cage {
    /// In memory where there is a tmpfs.
    fn new() -> Cage {
        let memory = Path::new("/dev/shm");
        let dir = if memory.is_dir() { TempDir::new_in(memory) } else { TempDir::new() };
        let dir = dir.expect("a temporary directory can be made");
        let canary = dir.path().join("canary");
        fs::create_dir(&canary).unwrap();
        fs::create_dir(canary.join("dir")).unwrap();
        fs::write(canary.join("file"), "alive").unwrap();
        fs::write(canary.join("dir/inner"), "alive").unwrap();
        symlink("file", canary.join("link")).unwrap();
        let canary = tree(&canary, true);
        Cage { dir, canary }
    }

    /// Applies a layer to a directory that has one link, to the canary. Returns the report and the tree, or the error.
    fn apply(&self, data: &[u8], options: &Options<'_>) -> Result<(String, BTreeMap<PathBuf, String>), String> {
        let (root, canary) = (self.dir.path().join("root"), self.dir.path().join("canary"));
        fs::create_dir(&root).unwrap();
        symlink(&canary, root.join("a")).unwrap();
        let time = Timespec { tv_sec: 1, tv_nsec: 0 };
        let times = Timestamps { last_access: time, last_modification: time };
        rustix::fs::utimensat(rustix::fs::CWD, root.join("a"), &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
        let done = changeset::apply(data, &root, options);
        let found = tree(&root, false);
        let names: Vec<_> = fs::read_dir(self.dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        self.clear();
        assert_eq!(names.len(), 2, "{names:?} are beside the canary");
        assert_eq!(tree(&canary, true), self.canary);
        match done {
            Ok(report) => Ok((format!("{report:?}"), found)),
            Err(error) => {
                check_message(&error);
                Err(format!("{error}"))
            }
        }
    }

    /// Removes the directory, with a whiteout where directories of the layer lock their owner out.
    fn clear(&self) {
        if fs::remove_dir_all(self.dir.path().join("root")).is_ok() {
            return;
        }
        let mut header = tar::Header::new_ustar();
        header.set_size(0);
        let mut whiteout = tar::Builder::new(Vec::new());
        whiteout.append_data(&mut header, ".wh.root", io::empty()).unwrap();
        let whiteout = whiteout.into_inner().unwrap();
        let options = Options::new().ownership(ownership());
        let _ = changeset::apply(&whiteout[..], self.dir.path(), &options).expect("the root can be removed");
    }
}

fn ownership() -> Ownership {
    if rustix::process::geteuid().is_root() { Ownership::Preserve } else { Ownership::CurrentUser }
}

/// The inodes below a directory by path: types, attributes, content. `exact` adds what a new name, another owner and a
/// removal change in an inode: its number, its links, its times. Directories that cannot be read count as empty.
fn tree(root: &Path, exact: bool) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut left = vec![root.to_owned()];
    while let Some(path) = left.pop() {
        let Ok(meta) = path.symlink_metadata() else { continue };
        let mut line = format!("{:o} {}:{} {} {}", meta.mode(), meta.uid(), meta.gid(), meta.rdev(), meta.nlink());
        if meta.is_dir() {
            left.extend(fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| entry.path()));
        } else if meta.is_symlink() {
            line += &format!(" -> {:?}", fs::read_link(&path));
        } else if meta.is_file() {
            line += &format!(" {} {}", meta.size(), Digest::sha256(&start_of(&path)));
        }
        assert!(exact || !meta.file_type().is_socket(), "{path:?} is a socket");
        if exact {
            line += &format!(" {} {} {} {}", meta.ino(), meta.mtime(), meta.ctime(), meta.ctime_nsec());
        } else if path != root {
            line += &format!(" {} {}", meta.mtime(), meta.mtime_nsec());
        }
        found.insert(path.strip_prefix(root).expect("it is below").to_owned(), line);
    }
    found
}

fn start_of(path: &Path) -> Vec<u8> {
    let mut content = Vec::new();
    if let Ok(file) = fs::File::open(path) {
        let _ = file.take(64 << 10).read_to_end(&mut content);
    }
    content
}
