//! What a stack of OCI layers means, written from the spec alone, so that the real thing has something to be wrong about.
//!
//! [`apply`] turns layers, each a row of [`Change`]s, into a [`Tree`]. It knows no tar, no disk and no privileges: a
//! directory is a map from names to inodes, a hard link is a second name with the same inode, and removing a tree is
//! forgetting its name. Nothing is ever freed and nothing is fast.
//!
//! [`random_stack`] makes stacks to compare it with an implementation on. The letters and numbers in the comments (L2,
//! I10, …) are those of the spec's checklist.

use std::collections::BTreeMap;

/// The attributes of an inode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meta {
    /// The permission bits, those of `0o7777`.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Seconds since the epoch, and nanoseconds.
    pub mtime: (i64, u32),
    pub xattrs: BTreeMap<String, Vec<u8>>,
}

/// One entry of a layer; paths are as they stand in the tar.
#[derive(Clone, Debug)]
pub enum Change {
    Directory {
        path: String,
        meta: Meta,
    },
    File {
        path: String,
        meta: Meta,
        content: Vec<u8>,
    },
    /// The mode in `meta` is ignored: a symlink's is always `0o777`.
    Symlink {
        path: String,
        meta: Meta,
        target: String,
    },
    HardLink {
        path: String,
        target: String,
    },
    Fifo {
        path: String,
        meta: Meta,
    },
    /// The path that is hidden: `a/b` for the entry `a/.wh.b`.
    Whiteout {
        path: String,
    },
    /// The directory: `a` for the entry `a/.wh..wh..opq`.
    Opaque {
        path: String,
    },
}

/// What an inode is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    Directory,
    File(Vec<u8>),
    Symlink(String),
    Fifo,
}

/// One name of the resulting tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    pub kind: Kind,
    pub meta: Meta,
    /// All paths that are this inode, sorted; for most only the node's own.
    pub links: Vec<String>,
}

/// The resulting names: paths without a leading `/`, the root is `""`.
pub type Tree = BTreeMap<String, Node>;

/// The tree that the layers make, or why they make none.
pub fn apply(layers: &[Vec<Change>]) -> Result<Tree, String> {
    let root = Inode { kind: Kind::Directory, meta: implied(), children: BTreeMap::new() };
    let mut world = World { inodes: vec![root], layer: 0 };
    for (number, layer) in layers.iter().enumerate() {
        world.layer = number;
        for change in layer {
            world.change(change)?;
        }
    }
    Ok(world.tree())
}

/// Where the root stands among the inodes.
const ROOT: usize = 0;

/// How many symlinks one path may lead through.
const MOST_SYMLINKS: usize = 40;

/// All inodes there ever were (those without a name stay, unseen), and the number of the layer being applied.
struct World {
    inodes: Vec<Inode>,
    layer: usize,
}

struct Inode {
    kind: Kind,
    meta: Meta,
    /// The names in a directory; anything else has none.
    children: BTreeMap<String, Entry>,
}

/// A name in a directory.
#[derive(Clone, Copy)]
struct Entry {
    inode: usize,
    /// The last layer that had an entry for this name; implied directories come from none.
    layer: Option<usize>,
}

/// What a walk does where there is no directory.
#[derive(Clone, Copy, PartialEq)]
enum Missing {
    Make,
    Fail,
}

impl World {
    fn change(&mut self, change: &Change) -> Result<(), String> {
        match change {
            Change::Directory { path, meta } => self.directory(path, meta),
            Change::File { path, meta, content } => self.add(path, Kind::File(content.clone()), meta),
            Change::Symlink { path, meta, target } => {
                self.add(path, Kind::Symlink(target.clone()), &Meta { mode: 0o777, ..meta.clone() })
            }
            Change::HardLink { path, target } => self.hard_link(path, target),
            Change::Fifo { path, meta } => self.add(path, Kind::Fifo, meta),
            Change::Whiteout { path } => self.whiteout(path),
            Change::Opaque { path } => self.opaque(path),
        }
    }

    /// L2: a directory over a directory keeps the children; L12: so does one over the root.
    fn directory(&mut self, path: &str, meta: &Meta) -> Result<(), String> {
        if clean(path).is_empty() {
            self.inodes[ROOT].meta = meta.clone();
            return Ok(());
        }
        let (parent, name) = self.place(path, Missing::Make)?;
        match self.child(parent, &name) {
            Some(inode) if self.is_directory(inode) => {
                self.inodes[inode].meta = meta.clone();
                self.name(parent, &name, inode, Some(self.layer));
                Ok(())
            }
            _ => self.add(path, Kind::Directory, meta),
        }
    }

    /// L2: a new inode, whatever had the name before.
    fn add(&mut self, path: &str, kind: Kind, meta: &Meta) -> Result<(), String> {
        let (parent, name) = self.place(path, Missing::Make)?;
        let inode = self.create(kind, meta.clone());
        self.name(parent, &name, inode, Some(self.layer));
        Ok(())
    }

    /// L10. The target is looked up while the link's path still has what it had, so `d` may become a link to `d/x`, and a
    /// link to itself gets the inode it has.
    fn hard_link(&mut self, path: &str, target: &str) -> Result<(), String> {
        let (parent, name) = self.place(path, Missing::Make)?;
        let (target_parent, target_name) = self.place(target, Missing::Fail)?;
        let inode = self.child(target_parent, &target_name).ok_or(format!("{path}: no {target} to link to"))?;
        if self.is_directory(inode) {
            return Err(format!("{path}: {target} is a directory"));
        }
        self.name(parent, &name, inode, Some(self.layer));
        Ok(())
    }

    /// L3, L7.
    fn whiteout(&mut self, path: &str) -> Result<(), String> {
        if clean(path).is_empty() {
            return Err("whiteout of the root".to_owned());
        }
        if let Ok((parent, name)) = self.place(path, Missing::Fail)
            && self.child(parent, &name).is_some()
        {
            self.hide(parent, &name);
        }
        Ok(())
    }

    /// L4. The directory is a parent of the entry, hence followed to its last component.
    fn opaque(&mut self, path: &str) -> Result<(), String> {
        if let Ok(directory) = self.walk(clean(path), Missing::Fail) {
            self.hide_children(directory);
        }
        Ok(())
    }

    /// Takes away what lower layers put at and below a name. A directory that is left only because this layer put
    /// something below it is as if this layer had found nothing there: implied.
    fn hide(&mut self, parent: usize, name: &str) {
        let Entry { inode, layer } = self.inodes[parent].children[name];
        self.hide_children(inode);
        if layer == Some(self.layer) {
            return;
        }
        if self.inodes[inode].children.is_empty() {
            self.inodes[parent].children.remove(name);
        } else {
            self.inodes[inode].meta = implied();
        }
    }

    fn hide_children(&mut self, directory: usize) {
        for name in self.inodes[directory].children.clone().keys() {
            self.hide(directory, name);
        }
    }

    /// The directory that a path's last component is in, and that component, which is never followed.
    fn place(&mut self, path: &str, missing: Missing) -> Result<(usize, String), String> {
        let mut parents = clean(path);
        let name = parents.pop().ok_or(format!("{path:?} is the root"))?;
        Ok((self.walk(parents, missing)?, name))
    }

    /// L11, L13: the directory at a path, with symlinks followed as in a chroot.
    fn walk(&mut self, path: Vec<String>, missing: Missing) -> Result<usize, String> {
        let mut trail = vec![ROOT];
        let mut ahead = path;
        let mut symlinks = 0;
        while !ahead.is_empty() {
            let name = ahead.remove(0);
            let here = *trail.last().expect("the root is never popped");
            let found = self.child(here, &name);
            match found.map(|inode| self.inodes[inode].kind.clone()) {
                // Only symlinks bring these, and the trail has no symlinks: this is the real parent.
                _ if name == ".." => trail.truncate((trail.len() - 1).max(1)),
                Some(Kind::Directory) => trail.extend(found),
                Some(Kind::Symlink(_)) if symlinks == MOST_SYMLINKS => return Err(format!("loop at {name}")),
                Some(Kind::Symlink(target)) => {
                    symlinks += 1;
                    trail.truncate(if target.starts_with('/') { 1 } else { trail.len() });
                    ahead = [components(&target), ahead].concat();
                }
                _ if missing == Missing::Make => {
                    let inode = self.create(Kind::Directory, implied());
                    self.name(here, &name, inode, None);
                    trail.push(inode);
                }
                _ => return Err(format!("no directory {name}")),
            }
        }
        Ok(*trail.last().expect("the root is never popped"))
    }

    fn child(&self, directory: usize, name: &str) -> Option<usize> {
        self.inodes[directory].children.get(name).map(|entry| entry.inode)
    }

    fn is_directory(&self, inode: usize) -> bool {
        self.inodes[inode].kind == Kind::Directory
    }

    /// An inode without a name.
    fn create(&mut self, kind: Kind, meta: Meta) -> usize {
        self.inodes.push(Inode { kind, meta, children: BTreeMap::new() });
        self.inodes.len() - 1
    }

    /// Gives an inode a name; whatever had the name is gone, and all below it.
    fn name(&mut self, directory: usize, name: &str, inode: usize, layer: Option<usize>) {
        self.inodes[directory].children.insert(name.to_owned(), Entry { inode, layer });
    }

    fn tree(&self) -> Tree {
        let paths = self.paths(ROOT, "");
        let node = |inode: usize| Node {
            kind: self.inodes[inode].kind.clone(),
            meta: self.inodes[inode].meta.clone(),
            links: paths.iter().filter(|(_, other)| **other == inode).map(|(path, _)| path.clone()).collect(),
        };
        paths.iter().map(|(path, inode)| (path.clone(), node(*inode))).collect()
    }

    /// The inode's own path and all those below it.
    fn paths(&self, inode: usize, path: &str) -> BTreeMap<String, usize> {
        let mut paths = BTreeMap::from([(path.to_owned(), inode)]);
        for (name, entry) in &self.inodes[inode].children {
            let below = if path.is_empty() { name.clone() } else { format!("{path}/{name}") };
            paths.extend(self.paths(entry.inode, &below));
        }
        paths
    }
}

/// I10, L11: the attributes of the root and of directories that no entry describes.
fn implied() -> Meta {
    Meta { mode: 0o755, uid: 0, gid: 0, mtime: (0, 0), xattrs: BTreeMap::new() }
}

fn components(path: &str) -> Vec<String> {
    path.split('/').filter(|name| !name.is_empty() && *name != ".").map(str::to_owned).collect()
}

/// L13: the components of an entry's path, `..` taken lexically and clamped at the root.
fn clean(path: &str) -> Vec<String> {
    let mut cleaned = Vec::new();
    for name in components(path) {
        if name == ".." {
            cleaned.pop();
        } else {
            cleaned.push(name);
        }
    }
    cleaned
}

/// A small deterministic random source: splitmix64.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number less than `n`, which is not 0.
    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    pub fn pick<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len())]
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

/// A stack of 1 to 4 layers of 0 to 12 changes each, over few names so that they collide often.
///
/// A change that leaves no tree is mostly taken back: left to chance, most stacks would end with one of these.
pub fn random_stack(random: &mut Random) -> Vec<Vec<Change>> {
    let mut stack = Vec::new();
    let mut broken = false;
    let mut generator = Generator { random, used: Vec::new() };
    for _ in 0..1 + generator.random.below(4) {
        let mut layer = Vec::new();
        for _ in 0..generator.random.below(13) {
            layer.push(generator.change());
            if !broken && apply(&[stack.clone(), vec![layer.clone()]].concat()).is_err() {
                broken = generator.random.one_in(10);
                layer.truncate(if broken { layer.len() } else { layer.len() - 1 });
            }
        }
        stack.push(layer);
    }
    stack
}

/// Makes changes, and remembers what they were about so that later ones meet them.
struct Generator<'a> {
    random: &'a mut Random,
    /// The paths of the additions so far, without noise.
    used: Vec<String>,
}

impl Generator<'_> {
    fn change(&mut self) -> Change {
        match self.random.below(20) {
            0..5 => Change::Directory { path: self.directory_path(), meta: self.meta_with_xattrs() },
            5..9 => Change::File { path: self.added_path(), meta: self.meta_with_xattrs(), content: self.content() },
            9..12 => Change::Symlink { path: self.added_path(), meta: self.meta(), target: self.symlink_target() },
            12..14 => self.hard_link(),
            14 => Change::Fifo { path: self.added_path(), meta: self.meta() },
            15..18 => Change::Whiteout { path: self.met_path() },
            _ => Change::Opaque { path: self.opaque_path() },
        }
    }

    /// The target comes first: it should be one that was there before the link. Now and then the link is to itself or below
    /// its target.
    fn hard_link(&mut self) -> Change {
        let target = self.met_path();
        let path = match self.random.below(12) {
            0 => target.clone(),
            1 => format!("{target}/{}", self.any_name()),
            _ => self.added_path(),
        };
        Change::HardLink { path, target }
    }

    /// Often with the slash at its end that tar gives a directory.
    fn directory_path(&mut self) -> String {
        if self.random.one_in(12) {
            return self.word(&["./", "/", ".", "..", "a/.."]).to_owned();
        }
        self.added_path() + self.word(&["", "/"])
    }

    fn opaque_path(&mut self) -> String {
        if self.random.one_in(12) {
            return self.word(&["", ".", "..", "b/.."]).to_owned();
        }
        self.met_path()
    }

    /// A path for an addition, three deep at most: any, or one that was used, or a child of one. Now and then it is the
    /// root, which has no slash at its end here: there are readers of tar to whom that alone means a directory.
    fn added_path(&mut self) -> String {
        if self.random.one_in(150) {
            return self.word(&[".", "..", "a/.."]).to_owned();
        }
        let path = match self.random.below(4) {
            0 => self.used_path(),
            1 => self.used_path() + "/" + self.any_name(),
            _ => self.any_path(),
        };
        let names: Vec<&str> = path.split('/').collect();
        let path = names[names.len().saturating_sub(3)..].join("/");
        self.used.push(path.clone());
        self.noisy(path)
    }

    /// A path for what is mostly about something that is there.
    fn met_path(&mut self) -> String {
        let path = if self.random.one_in(4) { self.any_path() } else { self.used_path() };
        self.noisy(path)
    }

    fn used_path(&mut self) -> String {
        if self.used.is_empty() { self.any_path() } else { self.random.pick(&self.used).clone() }
    }

    fn any_path(&mut self) -> String {
        let depth = *self.random.pick(&[1, 1, 2, 2, 3]);
        let names: Vec<&str> = (0..depth).map(|_| self.any_name()).collect();
        names.join("/")
    }

    fn any_name(&mut self) -> &'static str {
        self.word(&["a", "b", "c", "d"])
    }

    fn word(&mut self, words: &[&'static str]) -> &'static str {
        words[self.random.below(words.len())]
    }

    /// The path with things that have to be cleaned away, some of which make it another path. The last component is as it
    /// was, for `.wh.` to be put before it.
    fn noisy(&mut self, path: String) -> String {
        match self.random.below(20) {
            0 => format!("./{path}"),
            1 => format!("/{path}"),
            2 => format!("../{path}"),
            3 => format!("x/../{path}"),
            4 => format!("/{}/../../{path}", self.any_name()),
            5 => path.replacen('/', self.word(&["//", "/./", "/x/../", "/../"]), 1),
            _ => path,
        }
    }

    /// Loops, links to themselves and dangling ones come about by themselves, there being so few names.
    fn symlink_target(&mut self) -> String {
        let path = self.met_path();
        match self.random.below(12) {
            0..3 => self.any_name().to_owned(),
            3..5 => path,
            5..7 => format!("/{path}"),
            7..9 => format!("../{path}"),
            9 => format!("../../../{path}/"),
            10 => format!("{path}/../{}", self.any_name()),
            _ => self.word(&["/", ".", "..", "/../..", "nowhere", "/nowhere/at/all"]).to_owned(),
        }
    }

    fn meta(&mut self) -> Meta {
        Meta {
            mode: *self.random.pick(&[0, 0o555, 0o4755, 0o1777, 0o644, 0o755, 0o2750, 0o7777]),
            uid: *self.random.pick(&[0, 1, 1000, 100_000]),
            gid: *self.random.pick(&[0, 1, 1000, 100_000]),
            mtime: self.mtime(),
            xattrs: BTreeMap::new(),
        }
    }

    fn mtime(&mut self) -> (i64, u32) {
        let seconds = *self.random.pick(&[0, 1, -1, -86_400, 1_000_000_000, 1_700_000_000, i64::from(i32::MAX)]);
        let any_nanoseconds = self.random.below(1_000_000_000) as u32;
        (seconds, *self.random.pick(&[0, 0, 1, 500_000_000, 999_999_999, any_nanoseconds]))
    }

    /// For files and directories: Linux has no `user.` attributes on anything else.
    fn meta_with_xattrs(&mut self) -> Meta {
        let mut meta = self.meta();
        if self.random.one_in(5) {
            let values: [&[u8]; 5] = [b"value", b"\n", b"a\n20 b=c\n", b"\0", b"a\0b\xff"];
            meta.xattrs.insert("user.x".to_owned(), self.random.pick(&values).to_vec());
        }
        meta
    }

    fn content(&mut self) -> Vec<u8> {
        (0..*self.random.pick(&[0, 1, 7])).map(|_| self.random.next() as u8).collect()
    }
}
