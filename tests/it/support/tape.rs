//! Layers made by hand, header by header: those that tools write, and those that they never would.

use super::model::Change;
use super::model::Meta;

/// One header, and what stands behind it. Every field can be set to what no tool would write.
#[derive(Clone)]
pub struct Item {
    header: [u8; 512],
    content: Vec<u8>,
    pax: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Item {
    pub fn new(flag: u8, path: impl AsRef<[u8]>) -> Item {
        let mut item = Item { header: [0; 512], content: Vec::new(), pax: Vec::new() };
        item.header[156] = flag;
        item.header[257..265].copy_from_slice(b"ustar\x0000");
        item.path(path).mode(if flag == b'5' { 0o755 } else { 0o644 }).owner(0, 0).mtime(0).size(0)
    }

    pub fn file(path: impl AsRef<[u8]>, content: impl AsRef<[u8]>) -> Item {
        Item::new(b'0', path).content(content)
    }

    pub fn dir(path: impl AsRef<[u8]>) -> Item {
        Item::new(b'5', path)
    }

    pub fn symlink(path: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Item {
        Item::new(b'2', path).mode(0o777).link(target)
    }

    pub fn hard_link(path: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Item {
        Item::new(b'1', path).link(target)
    }

    pub fn fifo(path: impl AsRef<[u8]>) -> Item {
        Item::new(b'6', path)
    }

    pub fn device(flag: u8, path: impl AsRef<[u8]>, major: u32, minor: u32) -> Item {
        Item::new(flag, path)
            .field(329, format!("{major:07o}\0").as_bytes())
            .field(337, format!("{minor:07o}\0").as_bytes())
    }

    /// Sets bytes of the header; the checksum is made later.
    pub fn field(mut self, at: usize, bytes: &[u8]) -> Item {
        self.header[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }

    /// A path that is longer than the header's field goes into an extended header.
    pub fn path(mut self, path: impl AsRef<[u8]>) -> Item {
        let path = path.as_ref();
        if path.len() > 100 {
            self.pax.push((b"path".to_vec(), path.to_vec()));
        }
        let length = path.len().min(100);
        self.header[..100].fill(0);
        self.field(0, &path[..length])
    }

    pub fn link(mut self, target: impl AsRef<[u8]>) -> Item {
        let target = target.as_ref();
        if target.len() > 100 {
            self.pax.push((b"linkpath".to_vec(), target.to_vec()));
        }
        let length = target.len().min(100);
        self.field(157, &target[..length])
    }

    pub fn mode(self, mode: u32) -> Item {
        self.field(100, format!("{mode:07o}\0").as_bytes())
    }

    pub fn owner(self, uid: u32, gid: u32) -> Item {
        let octal = |id: u32| {
            if id < 1 << 21 {
                format!("{id:07o}\0").into_bytes()
            } else {
                [&[0x80, 0, 0, 0][..], &id.to_be_bytes()].concat()
            }
        };
        self.field(108, &octal(uid)).field(116, &octal(gid))
    }

    pub fn mtime(self, seconds: u64) -> Item {
        self.field(136, format!("{seconds:011o}\0").as_bytes())
    }

    pub fn size(self, size: u64) -> Item {
        self.field(124, format!("{size:011o}\0").as_bytes())
    }

    /// What stands behind the header; the header's size becomes its length.
    pub fn content(mut self, content: impl AsRef<[u8]>) -> Item {
        self.content = content.as_ref().to_vec();
        let size = self.content.len() as u64;
        self.size(size)
    }

    /// A record of the extended header before this one.
    pub fn pax(mut self, key: &str, value: impl AsRef<[u8]>) -> Item {
        self.pax.push((key.as_bytes().to_vec(), value.as_ref().to_vec()));
        self
    }

    pub fn xattr(self, name: &str, value: impl AsRef<[u8]>) -> Item {
        self.pax(&format!("SCHILY.xattr.{name}"), value)
    }

    /// Its blocks, with the extended header before it if there is one.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        if !self.pax.is_empty() {
            let payload: Vec<u8> = self.pax.iter().flat_map(|(key, value)| record(key, value)).collect();
            bytes.extend(Item::new(b'x', "PaxHeaders/0").content(payload).bytes());
        }
        bytes.extend(with_checksum(self.header));
        bytes.extend(&self.content);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        bytes
    }
}

/// The header with the sum of its bytes where it belongs.
pub fn with_checksum(mut header: [u8; 512]) -> [u8; 512] {
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}

/// A record as POSIX wants it: its length counts itself.
pub fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let digits = (1..).find(|digits| (rest + digits).to_string().len() == *digits).expect("some length fits");
    [(rest + digits).to_string().as_bytes(), b" ", key, b"=", value, b"\n"].concat()
}

/// A whole tar.
pub fn tar(items: &[Item]) -> Vec<u8> {
    let mut bytes: Vec<u8> = items.iter().flat_map(Item::bytes).collect();
    bytes.extend([0; 1024]);
    bytes
}

/// The layer that a model's changes are.
pub fn tar_of(changes: &[Change]) -> Vec<u8> {
    tar(&changes.iter().map(item).collect::<Vec<_>>())
}

fn item(change: &Change) -> Item {
    match change {
        Change::Directory { path, meta } => dressed(Item::dir(path), meta),
        Change::File { path, meta, content } => dressed(Item::file(path, content), meta),
        Change::Symlink { path, meta, target } => dressed(Item::symlink(path, target), meta),
        Change::HardLink { path, target } => Item::hard_link(path, target),
        Change::Fifo { path, meta } => dressed(Item::fifo(path), meta),
        Change::Whiteout { path } => match path.rsplit_once('/') {
            Some((parent, name)) => Item::file(format!("{parent}/.wh.{name}"), ""),
            None => Item::file(format!(".wh.{path}"), ""),
        },
        Change::Opaque { path } => Item::file(format!("{path}/.wh..wh..opq"), ""),
    }
}

fn dressed(item: Item, meta: &Meta) -> Item {
    let (seconds, nanoseconds) = meta.mtime;
    let mut item = item.mode(meta.mode).owner(meta.uid, meta.gid);
    if seconds >= 0 && nanoseconds == 0 {
        item = item.mtime(seconds.unsigned_abs());
    } else {
        item = item.pax("mtime", decimal(seconds, nanoseconds));
    }
    meta.xattrs.iter().fold(item, |item, (name, value)| item.xattr(name, value))
}

/// The time as POSIX writes it: -1.5 for half a second before the last one before 1970.
fn decimal(seconds: i64, nanoseconds: u32) -> String {
    if seconds < 0 && nanoseconds > 0 {
        format!("-{}.{:09}", (seconds + 1).unsigned_abs(), 1_000_000_000 - nanoseconds)
    } else {
        format!("{seconds}.{nanoseconds:09}")
    }
}
