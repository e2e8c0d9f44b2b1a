//! Random trees on the disk, and trees that differ from them a little.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::AtFlags;
use rustix::fs::CWD;
use rustix::fs::FileType;
use rustix::fs::Mode;
use rustix::fs::Timespec;
use rustix::fs::Timestamps;

#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    Directory,
    File(Vec<u8>),
    Symlink(Vec<u8>),
    Fifo,
    Device(u32),
}

/// Something that may have several names.
#[derive(Clone, Debug)]
pub struct Node {
    kind: Kind,
    mode: u32,
    owner: (u32, u32),
    time: (i64, i64),
    xattrs: BTreeMap<&'static str, Vec<u8>>,
}

/// Names, each with the number of what it names.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    nodes: Vec<Node>,
    names: BTreeMap<Vec<u8>, usize>,
}

const NAMES: [&[u8]; 10] =
    [b"a", b"b", b"a-b", b"a.b", b"c d", b"\xff\xfe", "ü".as_bytes(), b"line\nbreak", b"-rf", &[b'n'; 120]];
const TIMES: [(i64, i64); 5] = [(0, 0), (1_000_000_000, 0), (1_000_000_000, 5), (1_600_000_000, 0), (-5, 0)];

impl Tree {
    pub fn random(random: &mut fastrand::Rng, root: bool) -> Tree {
        let mut tree = Tree::default();
        for _ in 0..random.usize(0..16) {
            tree.add(random, root);
        }
        tree
    }

    /// Changes a few things.
    pub fn mutate(&mut self, random: &mut fastrand::Rng, root: bool) {
        for _ in 0..random.usize(0..6) {
            match random.u8(0..14) {
                0..3 => self.add(random, root),
                3 => self.remove(random),
                4 => self.link(random),
                5 => self.unlink(random),
                6 => self.rename(random),
                7 => self.retype(random, root),
                _ => self.touch(random, root),
            }
        }
    }

    /// Edits that left a time of nanoseconds as it was cannot be seen without looking at every content: they get others.
    pub fn date_edits(&mut self, before: &Tree) {
        for (path, node) in &self.names {
            let Some(old) = before.names.get(path).map(|old| &before.nodes[*old]) else { continue };
            let new = &mut self.nodes[*node];
            if new.kind != old.kind && new.time == old.time && new.time.1 != 0 {
                new.time.1 += 1;
            }
        }
    }

    fn any(&self, random: &mut fastrand::Rng) -> Option<Vec<u8>> {
        let nth = random.usize(0..self.names.len().max(1));
        self.names.keys().nth(nth).cloned()
    }

    fn is_directory(&self, path: &[u8]) -> bool {
        path.is_empty() || self.names.get(path).is_some_and(|node| self.nodes[*node].kind == Kind::Directory)
    }

    /// A name that nothing has yet.
    fn vacancy(&self, random: &mut fastrand::Rng) -> Option<Vec<u8>> {
        let directories: Vec<&[u8]> =
            self.names.keys().map(|path| &path[..]).filter(|path| self.is_directory(path)).chain([&b""[..]]).collect();
        let parent = directories[random.usize(..directories.len())];
        let name = NAMES[random.usize(..NAMES.len())];
        let path = if parent.is_empty() { name.to_vec() } else { [parent, b"/", name].concat() };
        (!self.names.contains_key(&path) && path.len() < 800).then_some(path)
    }

    fn add(&mut self, random: &mut fastrand::Rng, root: bool) {
        let Some(path) = self.vacancy(random) else { return };
        let kind = kind(random, root);
        self.put(path, kind, random, root);
    }

    fn put(&mut self, path: Vec<u8>, kind: Kind, random: &mut fastrand::Rng, root: bool) {
        let owner = if root { OWNERS[random.usize(..OWNERS.len())] } else { me() };
        let time = TIMES[random.usize(..TIMES.len())];
        let mode = mode(random, &kind);
        self.names.insert(path, self.nodes.len());
        self.nodes.push(Node { kind, mode, owner, time, xattrs: BTreeMap::new() });
    }

    fn remove(&mut self, random: &mut fastrand::Rng) {
        let Some(path) = self.any(random) else { return };
        self.forget(&path);
    }

    fn forget(&mut self, path: &[u8]) {
        let below = [path, b"/"].concat();
        self.names.retain(|name, _| name != path && !name.starts_with(&below));
    }

    fn link(&mut self, random: &mut fastrand::Rng) {
        let (Some(path), Some(target)) = (self.vacancy(random), self.any(random)) else { return };
        if !self.is_directory(&target) {
            self.names.insert(path, self.names[&target]);
        }
    }

    /// One of its names becomes another thing that looks the same.
    fn unlink(&mut self, random: &mut fastrand::Rng) {
        let Some(path) = self.any(random) else { return };
        if !self.is_directory(&path) {
            self.nodes.push(self.nodes[self.names[&path]].clone());
            self.names.insert(path, self.nodes.len() - 1);
        }
    }

    fn rename(&mut self, random: &mut fastrand::Rng) {
        let (Some(to), Some(from)) = (self.vacancy(random), self.any(random)) else { return };
        let below = [&from[..], b"/"].concat();
        if to.starts_with(&below) {
            return;
        }
        let moved: Vec<(Vec<u8>, usize)> = self.names.range(from.clone()..).map(|(k, v)| (k.clone(), *v)).collect();
        let moved = moved.into_iter().filter(|(path, _)| *path == from || path.starts_with(&below));
        let moved: Vec<(Vec<u8>, usize)> = moved.collect();
        self.forget(&from);
        self.names.extend(moved.into_iter().map(|(path, node)| ([&to[..], &path[from.len()..]].concat(), node)));
    }

    fn retype(&mut self, random: &mut fastrand::Rng, root: bool) {
        let Some(path) = self.any(random) else { return };
        self.forget(&path);
        let kind = kind(random, root);
        self.put(path, kind, random, root);
    }

    /// Changes one attribute, and nothing else.
    fn touch(&mut self, random: &mut fastrand::Rng, root: bool) {
        let Some(path) = self.any(random) else { return };
        let node = &mut self.nodes[self.names[&path]];
        match random.u8(0..6) {
            0 => node.mode = mode(random, &node.kind),
            1 if root => node.owner = OWNERS[random.usize(..OWNERS.len())],
            2 => node.time = TIMES[random.usize(..TIMES.len())],
            3 => drop(node.xattrs.insert(xattr(random, &node.kind, root), vec![random.u8(..); random.usize(..9)])),
            4 => drop(node.xattrs.pop_first()),
            _ => match &mut node.kind {
                Kind::File(content) if node.time.1 == 0 => random.fill(content),
                Kind::Symlink(target) => target.push(b'x'),
                Kind::Device(minor) => *minor = random.u32(3..9),
                _ => {}
            },
        }
    }

    #[track_caller]
    pub fn write(&self, root: &Path) {
        fs::create_dir(root).expect("a directory can be made");
        let mut first: BTreeMap<usize, &[u8]> = BTreeMap::new();
        for (path, node) in &self.names {
            let place = root.join(OsStr::from_bytes(path));
            match first.get(node) {
                Some(first) => {
                    rustix::fs::linkat(CWD, root.join(OsStr::from_bytes(first)), CWD, &place, AtFlags::empty())
                        .expect("a link can be made")
                }
                None => make(&place, &self.nodes[*node]),
            }
            first.entry(*node).or_insert(path);
        }
        for (path, node) in self.names.iter().rev() {
            let (seconds, nanoseconds) = self.nodes[*node].time;
            set_time(&root.join(OsStr::from_bytes(path)), seconds, nanoseconds);
        }
    }
}

const OWNERS: [(u32, u32); 4] = [(0, 0), (1, 2), (65534, 65534), (1 << 21, 1 << 30)];

fn me() -> (u32, u32) {
    (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw())
}

fn kind(random: &mut fastrand::Rng, root: bool) -> Kind {
    match random.u8(0..10) {
        0..4 => Kind::Directory,
        4..7 => Kind::File(vec![random.u8(..); [0, 1, 5, 512, 1000][random.usize(..5)]]),
        7 => Kind::Symlink([&b"../a"[..], b"/etc", &[b'l'; 150]][random.usize(..3)].to_vec()),
        8 if root => Kind::Device(random.u32(3..9)),
        _ => Kind::Fifo,
    }
}

fn mode(random: &mut fastrand::Rng, kind: &Kind) -> u32 {
    match kind {
        Kind::Symlink(_) => 0o777,
        Kind::Directory => [0o755, 0o700, 0o1777][random.usize(..3)],
        _ => [0o644, 0o600, 0o4755][random.usize(..3)],
    }
}

/// Only files and directories have attributes of users.
fn xattr(random: &mut fastrand::Rng, kind: &Kind, root: bool) -> &'static str {
    match kind {
        Kind::File(_) | Kind::Directory => ["user.one", "user.two"][random.usize(..2)],
        _ if root => "trusted.three",
        _ => "",
    }
}

#[track_caller]
fn make(place: &Path, node: &Node) {
    let device = |kind, device| rustix::fs::mknodat(CWD, place, kind, Mode::from_raw_mode(0o600), device);
    match &node.kind {
        Kind::Directory => fs::create_dir(place).expect("a directory can be made"),
        Kind::File(content) => fs::write(place, content).expect("a file can be written"),
        Kind::Symlink(target) => {
            std::os::unix::fs::symlink(OsStr::from_bytes(target), place).expect("a link can be made");
        }
        Kind::Fifo => device(FileType::Fifo, 0).expect("a FIFO can be made"),
        Kind::Device(minor) => {
            device(FileType::CharacterDevice, rustix::fs::makedev(1, *minor)).expect("root makes devices");
        }
    }
    std::os::unix::fs::lchown(place, Some(node.owner.0), Some(node.owner.1)).expect("an owner can be set");
    for (name, value) in node.xattrs.iter().filter(|(name, _)| !name.is_empty()) {
        rustix::fs::lsetxattr(place, *name, value, rustix::fs::XattrFlags::empty()).expect("an attribute can be set");
    }
    if !matches!(node.kind, Kind::Symlink(_)) {
        rustix::fs::chmod(place, Mode::from_raw_mode(node.mode)).expect("a mode can be set");
    }
}

/// Of the link itself, if it is one.
#[track_caller]
pub fn set_time(path: &Path, seconds: i64, nanoseconds: i64) {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).expect("times can be set");
}
