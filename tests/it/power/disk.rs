//! A model of a disk: what may be on it after the power went, given what programs did to it.
//!
//! The content of a file is there for certain if the file was synced afterwards; a name in a directory, if the
//! directory was. Whatever else was done may be there or not: the names in any order, each rename as a whole.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::fs::Permissions;
use std::hash::DefaultHasher;
use std::hash::Hash;
use std::hash::Hasher;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Component;
use std::path::Path;
use std::path::PathBuf;

use super::log::Call;

type Node = usize;
const ROOT: Node = 0;

#[derive(Clone, Debug, Hash)]
enum Kind {
    Directory,
    File,
    Link(PathBuf),
}

#[derive(Debug)]
enum Change {
    /// A name means this now.
    Name {
        directory: Node,
        name: OsString,
        node: Option<Node>,
    },
    Rename {
        from: (Node, OsString),
        to: (Node, OsString),
        node: Node,
    },
    Write {
        node: Node,
        at: usize,
        bytes: Vec<u8>,
    },
    Length {
        node: Node,
        length: usize,
    },
    Mode {
        node: Node,
        mode: u32,
    },
    Sync {
        node: Node,
    },
    SyncAll,
}

/// What becomes of what was written to a file and not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Lost,
    Half,
    /// The length is on the disk, and the content is not.
    Zeros,
    Whole,
}

impl Fate {
    pub const ALL: [Fate; 4] = [Fate::Lost, Fate::Half, Fate::Zeros, Fate::Whole];
}

/// What is found on the disk when the power is back.
pub type Found = BTreeMap<PathBuf, Item>;

#[derive(Clone, Debug, Hash)]
pub enum Item {
    Directory(u32),
    File { node: usize, mode: u32, content: Vec<u8> },
    Link(PathBuf),
}

/// A file that is open: which, and where the next byte goes.
#[derive(Clone, Copy)]
struct Open {
    node: Node,
    at: usize,
}

pub struct Disk {
    root: PathBuf,
    kinds: Vec<(Kind, u32)>,
    /// What is there before the first change, and for certain.
    base: BTreeMap<(Node, OsString), Node>,
    contents: HashMap<Node, Vec<u8>>,
    changes: Vec<Change>,
    /// When each change is on the disk: the sync that made it so.
    settled: Vec<Option<usize>>,
    // What programs see meanwhile.
    names: BTreeMap<(Node, OsString), Node>,
    files: HashMap<Node, Vec<u8>>,
    open: HashMap<i64, Open>,
}

impl Disk {
    /// With what is below `root` now.
    pub fn of(root: &Path) -> Disk {
        let root = root.to_owned();
        let mut disk = Disk {
            root: root.clone(),
            kinds: vec![(Kind::Directory, 0o755)],
            base: BTreeMap::new(),
            contents: HashMap::new(),
            changes: Vec::new(),
            settled: Vec::new(),
            names: BTreeMap::new(),
            files: HashMap::new(),
            open: HashMap::new(),
        };
        disk.take(&root, ROOT, &mut HashMap::new());
        disk.names = disk.base.clone();
        disk.files = disk.contents.clone();
        disk
    }

    fn take(&mut self, path: &Path, node: Node, seen: &mut HashMap<u64, Node>) {
        for entry in fs::read_dir(path).unwrap().map(Result::unwrap) {
            let (path, stat) = (entry.path(), entry.path().symlink_metadata().unwrap());
            let kind = match stat.file_type() {
                kind if kind.is_dir() => Kind::Directory,
                kind if kind.is_symlink() => Kind::Link(fs::read_link(&path).unwrap()),
                kind => {
                    assert!(kind.is_file(), "{}", path.display());
                    Kind::File
                }
            };
            let child = match seen.get(&stat.ino()) {
                Some(known) => *known,
                None => self.add(kind.clone(), stat.mode() & 0o7777),
            };
            seen.insert(stat.ino(), child);
            self.base.insert((node, entry.file_name()), child);
            match kind {
                Kind::Directory => self.take(&path, child, seen),
                Kind::File => drop(self.contents.insert(child, fs::read(&path).unwrap())),
                Kind::Link(_) => {}
            }
        }
    }

    fn add(&mut self, kind: Kind, mode: u32) -> Node {
        self.kinds.push((kind, mode));
        self.kinds.len() - 1
    }

    /// How many changes there were.
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    fn find(&self, path: &Path) -> Option<Node> {
        let path = path.strip_prefix(&self.root).ok()?;
        path.components().try_fold(ROOT, |node, component| match component {
            Component::Normal(name) => self.names.get(&(node, name.to_owned())).copied(),
            _ => None,
        })
    }

    /// The directory and the name in it, if it is on this disk.
    fn place(&self, path: Option<PathBuf>) -> Option<(Node, OsString)> {
        let path = path?;
        if !path.starts_with(&self.root) || path == self.root {
            return None;
        }
        let above = self.find(path.parent()?);
        Some((above.unwrap_or_else(|| panic!("{} lies nowhere", path.display())), path.file_name()?.to_owned()))
    }

    /// The file that a number means.
    fn opened(&self, call: &Call, n: usize) -> Option<Node> {
        let (number, path) = call.file(n);
        let path = path.filter(|path| path.starts_with(&self.root))?;
        // By its path if it is nowhere else: directories are opened in many ways.
        self.find(&path).or_else(|| self.open.get(&number).map(|open| open.node))
    }

    fn change(&mut self, change: Change) {
        match &change {
            Change::Name { directory, name, node } => {
                self.names.remove(&(*directory, name.clone()));
                self.names.extend(node.map(|node| ((*directory, name.clone()), node)));
            }
            Change::Rename { from, to, node } => {
                self.names.remove(from);
                self.names.insert(to.clone(), *node);
            }
            Change::Write { node, at, bytes } => write(self.files.entry(*node).or_default(), *at, bytes),
            Change::Length { node, length } => self.files.entry(*node).or_default().resize(*length, 0),
            _ => {}
        }
        self.changes.push(change);
    }

    /// The process is gone, and with it what it had open.
    pub fn close_all(&mut self) {
        self.open.clear();
    }

    /// Does to the model what a program did to the disk.
    pub fn follow(&mut self, call: &Call) {
        match call.name.as_str() {
            "open" | "creat" => self.follow_open(call, Some(call.path(0)), 1),
            "openat" | "openat2" => self.follow_open(call, call.path_at(0), 2),
            "dup" | "dup2" | "dup3" => self.follow_dup(call),
            "fcntl" if call.arguments[1].starts_with("F_DUPFD") => self.follow_dup(call),
            "fcntl" => {}
            "mkdir" => self.follow_new(Some(call.path(0)), Kind::Directory, call.octal(1)),
            "mkdirat" => self.follow_new(call.path_at(0), Kind::Directory, call.octal(2)),
            "symlink" => self.follow_new(Some(call.path(1)), Kind::Link(call.path(0)), 0o777),
            "symlinkat" => self.follow_new(call.path_at(1), Kind::Link(call.path(0)), 0o777),
            "unlink" | "rmdir" => self.follow_remove(Some(call.path(0))),
            "unlinkat" => self.follow_remove(call.path_at(0)),
            "rename" => self.follow_rename(Some(call.path(0)), Some(call.path(1))),
            "renameat" | "renameat2" => {
                assert!(!call.has(4, "RENAME_EXCHANGE"), "{call:?}");
                self.follow_rename(call.path_at(0), call.path_at(2));
            }
            "link" => self.follow_link(Some(call.path(0)), Some(call.path(1))),
            "linkat" => self.follow_link(call.path_at(0), call.path_at(2)),
            "fchmodat" | "chmod" => {
                let (path, mode) = match call.name.as_str() {
                    "chmod" => (Some(call.path(0)), call.octal(1)),
                    _ => (call.path_at(0), call.octal(2)),
                };
                if let Some(node) = path.and_then(|path| self.find(&path)) {
                    self.change(Change::Mode { node, mode });
                }
            }
            _ => self.follow_file(call),
        }
    }

    /// What is done to an open file.
    fn follow_file(&mut self, call: &Call) {
        if call.name == "copy_file_range" || call.name == "sendfile" {
            return self.follow_copy(call);
        }
        let Some(node) = self.opened(call, 0) else { return };
        let (number, _) = call.file(0);
        let count = usize::try_from(call.returned()).unwrap();
        let at = self.open.get(&number).map_or(0, |open| open.at);
        match call.name.as_str() {
            "read" => self.move_to(number, at + count),
            "lseek" => self.move_to(number, count),
            "write" => {
                let bytes = call.bytes(1)[..count].to_vec();
                self.change(Change::Write { node, at, bytes });
                self.move_to(number, at + count);
            }
            "pwrite64" => {
                let bytes = call.bytes(1)[..count].to_vec();
                self.change(Change::Write { node, at: call.number(3), bytes });
            }
            "ftruncate" => self.change(Change::Length { node, length: call.number(1) }),
            "fchmod" => self.change(Change::Mode { node, mode: call.octal(1) }),
            "fsync" | "fdatasync" => self.change(Change::Sync { node }),
            "syncfs" => self.change(Change::SyncAll),
            // Of a terminal, or of a file that cannot share its content.
            "ioctl" if !call.arguments[1].contains("CLONE") => {}
            _ => panic!("the model does not know {call:?}"),
        }
    }

    fn move_to(&mut self, number: i64, at: usize) {
        if let Some(open) = self.open.get_mut(&number) {
            open.at = at;
        }
    }

    fn follow_open(&mut self, call: &Call, path: Option<PathBuf>, flags: usize) {
        let (number, opened) = call.opened();
        let is_made = call.has(flags, "O_CREAT");
        let place = is_made.then(|| self.place(path)).flatten();
        let known = opened.as_ref().and_then(|path| self.find(path));
        let node = match (known, place) {
            (Some(node), _) => node,
            (None, Some((directory, name))) => {
                let node = self.add(Kind::File, call.octal(flags + 1) & !mask());
                self.change(Change::Name { directory, name, node: Some(node) });
                node
            }
            _ => {
                self.open.remove(&number);
                return;
            }
        };
        if call.has(flags, "O_TRUNC") {
            self.change(Change::Length { node, length: 0 });
        }
        let at = if call.has(flags, "O_APPEND") { self.files.get(&node).map_or(0, Vec::len) } else { 0 };
        self.open.insert(number, Open { node, at });
    }

    fn follow_dup(&mut self, call: &Call) {
        let ((number, _), (new, _)) = (call.file(0), call.opened());
        match self.open.get(&number).copied() {
            Some(open) => drop(self.open.insert(new, open)),
            None => drop(self.open.remove(&new)),
        }
    }

    fn follow_new(&mut self, path: Option<PathBuf>, kind: Kind, mode: u32) {
        if let Some((directory, name)) = self.place(path) {
            let is_link = matches!(kind, Kind::Link(_));
            let node = self.add(kind, if is_link { mode } else { mode & !mask() });
            self.change(Change::Name { directory, name, node: Some(node) });
        }
    }

    fn follow_remove(&mut self, path: Option<PathBuf>) {
        if let Some((directory, name)) = self.place(path) {
            self.change(Change::Name { directory, name, node: None });
        }
    }

    fn follow_rename(&mut self, from: Option<PathBuf>, to: Option<PathBuf>) {
        if let (Some(from), Some(to)) = (self.place(from), self.place(to)) {
            let node = self.names[&from];
            self.change(Change::Rename { from, to, node });
        }
    }

    fn follow_link(&mut self, from: Option<PathBuf>, to: Option<PathBuf>) {
        if let (Some(from), Some((directory, name))) = (self.place(from), self.place(to)) {
            let node = self.names[&from];
            self.change(Change::Name { directory, name, node: Some(node) });
        }
    }

    /// From where the one is to where the other is.
    fn follow_copy(&mut self, call: &Call) {
        let (from, to) = if call.name == "sendfile" { (1, 0) } else { (0, 2) };
        let Some(node) = self.opened(call, to) else { return };
        let count = usize::try_from(call.returned()).unwrap();
        let source = self.opened(call, from).unwrap_or_else(|| panic!("{call:?}"));
        let (from, to) = (call.file(from).0, call.file(to).0);
        let (start, at) = (self.open[&from].at, self.open[&to].at);
        let bytes = self.files[&source][start..start + count].to_vec();
        self.change(Change::Write { node, at, bytes });
        self.move_to(from, start + count);
        self.move_to(to, at + count);
    }

    /// Finds out what each sync settled, when all is recorded.
    pub fn settle(&mut self) {
        self.settled = vec![None; self.changes.len()];
        for (at, change) in self.changes.iter().enumerate() {
            let synced = match change {
                Change::Sync { node } => Some(*node),
                Change::SyncAll => None,
                _ => continue,
            };
            for (before, settled) in self.changes[..at].iter().zip(&mut self.settled) {
                let of = match before {
                    Change::Name { directory, .. } => *directory,
                    Change::Rename { to, .. } => to.0,
                    Change::Write { node, .. } | Change::Length { node, .. } | Change::Mode { node, .. } => *node,
                    Change::Sync { .. } | Change::SyncAll => continue,
                };
                if settled.is_none() && synced.is_none_or(|node| node == of) {
                    *settled = Some(at);
                }
            }
        }
    }

    fn is_settled(&self, change: usize, end: usize) -> bool {
        self.settled[change].is_some_and(|sync| sync < end)
    }

    /// The changes of names before `end` that may be lost.
    pub fn open_names(&self, end: usize) -> Vec<usize> {
        let is_name = |change: &Change| matches!(change, Change::Name { .. } | Change::Rename { .. });
        (0..end).filter(|at| is_name(&self.changes[*at]) && !self.is_settled(*at, end)).collect()
    }

    /// The files with content that may be lost.
    pub fn open_files(&self, end: usize) -> BTreeSet<usize> {
        let open = (0..end).filter(|at| !self.is_settled(*at, end));
        open.filter_map(|at| match &self.changes[at] {
            Change::Write { node, .. } | Change::Length { node, .. } | Change::Mode { node, .. } => Some(*node),
            _ => None,
        })
        .collect()
    }

    /// What is on the disk if the power goes before change `end`: all that was settled, of the other names those that
    /// were lucky, and of each file what its fate is.
    pub fn found(&self, end: usize, lucky: &dyn Fn(usize) -> bool, fate: &dyn Fn(usize) -> Fate) -> Found {
        let mut names = self.base.clone();
        let mut files: HashMap<Node, (Vec<u8>, Vec<u8>)> =
            self.contents.iter().map(|(node, content)| (*node, (content.clone(), content.clone()))).collect();
        let mut modes: Vec<u32> = self.kinds.iter().map(|(_, mode)| *mode).collect();
        for (at, change) in self.changes[..end].iter().enumerate() {
            let is_settled = self.is_settled(at, end);
            match change {
                Change::Name { .. } | Change::Rename { .. } if !is_settled && !lucky(at) => {}
                Change::Name { directory, name, node } => {
                    names.remove(&(*directory, name.clone()));
                    names.extend(node.map(|node| ((*directory, name.clone()), node)));
                }
                Change::Rename { from, to, node } => {
                    if names.get(from) == Some(node) {
                        names.remove(from);
                    }
                    names.insert(to.clone(), *node);
                }
                Change::Write { node, at, bytes } => {
                    let (certain, whole) = files.entry(*node).or_default();
                    write(whole, *at, bytes);
                    if is_settled {
                        write(certain, *at, bytes);
                    }
                }
                Change::Length { node, length } => {
                    let (certain, whole) = files.entry(*node).or_default();
                    whole.resize(*length, 0);
                    if is_settled {
                        certain.resize(*length, 0);
                    }
                }
                Change::Mode { node, mode } if is_settled || fate(*node) == Fate::Whole => modes[*node] = *mode,
                Change::Mode { .. } | Change::Sync { .. } | Change::SyncAll => {}
            }
        }
        let mut found = Found::new();
        self.walk(ROOT, Path::new(""), &names, &mut |path, node| {
            let item = match &self.kinds[node].0 {
                Kind::Directory => Item::Directory(modes[node]),
                Kind::Link(target) => Item::Link(target.clone()),
                Kind::File => {
                    let (certain, whole) = files.remove(&node).unwrap_or_default();
                    let content = survivor(&certain, &whole, fate(node));
                    files.insert(node, (certain, whole));
                    Item::File { node, mode: modes[node], content }
                }
            };
            found.insert(path.to_owned(), item);
        });
        found
    }

    fn walk(
        &self,
        node: Node,
        path: &Path,
        names: &BTreeMap<(Node, OsString), Node>,
        visit: &mut dyn FnMut(&Path, Node),
    ) {
        let below = names.range((node, OsString::new())..).take_while(|((above, _), _)| *above == node);
        for ((_, name), child) in below {
            let path = path.join(name);
            visit(&path, *child);
            if matches!(self.kinds[*child].0, Kind::Directory) {
                self.walk(*child, &path, names, visit);
            }
        }
    }
}

/// What this process, and so its children, do not let others do.
fn mask() -> u32 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let mask = status.lines().find_map(|line| line.strip_prefix("Umask:")).unwrap();
    u32::from_str_radix(mask.trim(), 8).unwrap()
}

fn write(content: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    if content.len() < at + bytes.len() {
        content.resize(at + bytes.len(), 0);
    }
    content[at..at + bytes.len()].copy_from_slice(bytes);
}

fn survivor(certain: &[u8], whole: &[u8], fate: Fate) -> Vec<u8> {
    if certain == whole {
        return whole.to_vec();
    }
    let common = certain.len().min(whole.len());
    match fate {
        Fate::Lost => certain.to_vec(),
        Fate::Whole => whole.to_vec(),
        Fate::Half => whole[..common + (whole.len() - common) / 2].to_vec(),
        Fate::Zeros => {
            let mut zeros = certain[..common].to_vec();
            zeros.resize(whole.len(), 0);
            zeros
        }
    }
}

/// The same for the same tree, whichever files are the same.
pub fn fingerprint(found: &Found) -> u64 {
    let mut hasher = DefaultHasher::new();
    found.hash(&mut hasher);
    hasher.finish()
}

/// Puts on the real disk what was found on the modelled one.
pub fn put(found: &Found, root: &Path) {
    let _ = fs::remove_dir_all(root);
    fs::create_dir(root).unwrap();
    let mut linked: HashMap<usize, PathBuf> = HashMap::new();
    for (path, item) in found {
        let path = root.join(path);
        match item {
            Item::Directory(_) => fs::create_dir(&path).unwrap(),
            Item::Link(target) => std::os::unix::fs::symlink(target, &path).unwrap(),
            Item::File { node, .. } if linked.contains_key(node) => fs::hard_link(&linked[node], &path).unwrap(),
            Item::File { node, mode, content } => {
                fs::write(&path, content).unwrap();
                fs::set_permissions(&path, Permissions::from_mode(*mode)).unwrap();
                linked.insert(*node, path);
            }
        }
    }
    for (path, item) in found.iter().rev() {
        if let Item::Directory(mode) = item {
            fs::set_permissions(root.join(path), Permissions::from_mode(*mode)).unwrap();
        }
    }
}
