//! What an image shows when its layers are stacked, in memory: names, attributes, and where contents stand.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;

use crate::changeset::Entry;
use crate::changeset::EntryKind;
use crate::changeset::LINKS;
use crate::changeset::Limits;
use crate::changeset::clean;
use crate::changeset::invalid;
use crate::changeset::split;
use crate::error::Error;
use crate::error::Limit;
use crate::error::Result;
use crate::fs::rooted::MAX_LINKS;
use crate::fs::rooted::push;
use crate::image::attributes::Attributes;

/// The node of the root.
pub(super) const ROOT: usize = 0;

/// Where the content of a file stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct File {
    /// In which layer, from 0.
    pub(super) layer: usize,
    /// At which entry of it, from 1.
    pub(super) number: u64,
    pub(super) size: u64,
}

/// A thing, under whatever names.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) kind: Kind,
    pub(super) attributes: Attributes,
    /// The entry that says what it is: of which layer, from 0, and which of its entries, from 1. None if no layer does.
    pub(super) origin: Option<(usize, u64)>,
}

#[derive(Clone, Debug)]
pub(super) enum Kind {
    Directory(Directory),
    File(File),
    Symlink(Vec<u8>),
    CharDevice(u32, u32),
    BlockDevice(u32, u32),
    Fifo,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Directory {
    pub(super) children: BTreeMap<Vec<u8>, Name>,
    /// How long the path to it is, in which nothing is a link.
    length: usize,
    /// The last layer that hid what those below it had in here. It need not look again: all that is left is its own.
    hidden: Option<usize>,
}

/// A name in a directory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Name {
    pub(super) node: usize,
    /// Which layer gave it; none where it was made on the way to something.
    pub(super) layer: Option<usize>,
}

/// The tree. Nodes are never taken away: several names may lead to one.
#[derive(Clone, Debug)]
pub(super) struct Merged {
    nodes: Vec<Node>,
    limits: Limits,
}

impl Merged {
    /// A root with nothing in it, that no layer describes.
    pub(super) fn new(limits: Limits) -> Merged {
        let root =
            Node { kind: Kind::Directory(Directory::default()), attributes: Attributes::implied(), origin: None };
        Merged { nodes: vec![root], limits }
    }

    /// Applies the entry that stands at `number` of a layer.
    pub(super) fn apply(&mut self, layer: usize, number: u64, entry: &Entry<'_>) -> Result<()> {
        let path = entry.path().as_os_str().as_bytes();
        let (parent, name) = split(path);
        match entry.kind() {
            EntryKind::Whiteout => {
                if let Some(parent) = self.existing(parent) {
                    self.hide(parent, name, layer);
                }
                Ok(())
            }
            EntryKind::Opaque => {
                if let Some(directory) = self.existing(path) {
                    self.hide_all(directory, layer);
                }
                Ok(())
            }
            EntryKind::Directory if path.is_empty() => {
                self.nodes[ROOT].attributes = Attributes::of(entry);
                self.nodes[ROOT].origin = Some((layer, number));
                Ok(())
            }
            _ if path.is_empty() => invalid("the root is no directory"),
            kind => {
                let parent = self.made(parent)?;
                let node = match kind {
                    EntryKind::Directory => self.directory(parent, name, Attributes::of(entry)),
                    EntryKind::HardLink { target } => self.target(target.as_os_str().as_bytes())?,
                    _ => self.add(kind_of(layer, number, entry)?, Attributes::of(entry)),
                };
                if !matches!(kind, EntryKind::HardLink { .. }) {
                    self.nodes[node].origin = Some((layer, number));
                }
                self.insert(parent, name, Name { node, layer: Some(layer) })
            }
        }
    }

    /// Ends a layer: what AUFS kept for it goes (L6).
    pub(super) fn end_layer(&mut self) {
        if let Kind::Directory(root) = &mut self.nodes[ROOT].kind {
            root.children.remove(LINKS);
        }
    }

    pub(super) fn node(&self, node: usize) -> &Node {
        &self.nodes[node]
    }

    /// The file at a path, links followed.
    pub(super) fn file(&self, path: &[u8]) -> Result<File> {
        let node = self.find(path).ok_or_else(|| Error::not_found("the file"))?;
        match &self.nodes[node].kind {
            Kind::File(file) => Ok(*file),
            Kind::Directory(_) => Err(Error::invalid_input("it is a directory")),
            Kind::Symlink(_) => Err(Error::invalid_input("its links lead in circles")),
            _ => Err(Error::invalid_input("it is a device or a pipe")),
        }
    }

    /// What has a clean path, which is not the root's. Links on the way are followed; the last component is not.
    pub(super) fn name(&self, path: &[u8]) -> Option<Name> {
        let (parent, name) = split(path);
        self.child(self.existing(parent)?, name)
    }

    /// How many names each node has.
    pub(super) fn names(&self) -> Vec<u32> {
        let mut counts = vec![0; self.nodes.len()];
        let mut ahead = vec![ROOT];
        while let Some(node) = ahead.pop() {
            let Kind::Directory(directory) = &self.nodes[node].kind else { continue };
            for name in directory.children.values() {
                counts[name.node] += 1;
                ahead.push(name.node);
            }
        }
        counts
    }

    fn add(&mut self, kind: Kind, attributes: Attributes) -> usize {
        self.nodes.push(Node { kind, attributes, origin: None });
        self.nodes.len() - 1
    }

    /// The directory that has or gets a name: one that is there keeps its children (L2).
    fn directory(&mut self, parent: usize, name: &[u8], attributes: Attributes) -> usize {
        let there = self.child(parent, name).filter(|name| self.is_directory(name.node));
        match there {
            Some(Name { node, .. }) => {
                self.nodes[node].attributes = attributes;
                node
            }
            None => self.add_directory(parent, name, attributes),
        }
    }

    fn add_directory(&mut self, parent: usize, name: &[u8], attributes: Attributes) -> usize {
        let above = self.length(parent);
        let length = if above == 0 { name.len() } else { above + 1 + name.len() };
        self.add(Kind::Directory(Directory { length, ..Directory::default() }), attributes)
    }

    /// Links lead deeper than any path is long; what lies so deep could not be unpacked.
    fn insert(&mut self, parent: usize, name: &[u8], to: Name) -> Result<()> {
        self.limits.check(Limit::PathLength, (self.length(parent) + 1 + name.len()) as u64)?;
        if let Kind::Directory(directory) = &mut self.nodes[parent].kind {
            directory.children.insert(name.to_vec(), to);
        }
        Ok(())
    }

    /// How long the path to a directory is.
    fn length(&self, directory: usize) -> usize {
        match &self.nodes[directory].kind {
            Kind::Directory(directory) => directory.length,
            _ => 0,
        }
    }

    fn is_directory(&self, node: usize) -> bool {
        matches!(self.nodes[node].kind, Kind::Directory(_))
    }

    fn is_occupied(&self, node: usize) -> bool {
        matches!(&self.nodes[node].kind, Kind::Directory(directory) if !directory.children.is_empty())
    }

    fn child(&self, parent: usize, name: &[u8]) -> Option<Name> {
        match &self.nodes[parent].kind {
            Kind::Directory(directory) => directory.children.get(name).copied(),
            _ => None,
        }
    }

    /// What a hard link names (L10).
    fn target(&self, path: &[u8]) -> Result<usize> {
        match self.name(&clean(path)) {
            Some(name) if !self.is_directory(name.node) => Ok(name.node),
            _ => invalid("a hard link to something that is not there, or is a directory"),
        }
    }

    fn existing(&self, path: &[u8]) -> Option<usize> {
        self.find(path).filter(|node| self.is_directory(*node))
    }

    /// What lies at a path; a link, where links lead in circles.
    fn find(&self, path: &[u8]) -> Option<usize> {
        let mut walk = Walk::new(path);
        while let Some(name) = walk.ahead.pop() {
            if walk.is_upwards(&name) {
                continue;
            }
            let node = self.child(walk.here(), &name)?.node;
            match &self.nodes[node].kind {
                Kind::Symlink(target) => {
                    if !walk.follow(target) {
                        return Some(node);
                    }
                }
                // Not even upwards does anything else lead on.
                kind if !matches!(kind, Kind::Directory(_)) && !walk.ahead.is_empty() => return None,
                _ => walk.way.push(node),
            }
        }
        Some(walk.here())
    }

    /// The directory at a path; what is missing on the way is made, and what is none is replaced.
    fn made(&mut self, path: &[u8]) -> Result<usize> {
        let mut walk = Walk::new(path);
        while let Some(name) = walk.ahead.pop() {
            if walk.is_upwards(&name) {
                continue;
            }
            let node = self.child(walk.here(), &name).map(|name| name.node);
            match node.map(|node| (node, &self.nodes[node].kind)) {
                Some((node, Kind::Directory(_))) => walk.way.push(node),
                Some((_, Kind::Symlink(target))) => {
                    if !walk.follow(target) {
                        return invalid("links lead in circles");
                    }
                }
                _ => {
                    let node = self.add_directory(walk.here(), &name, Attributes::implied());
                    self.insert(walk.here(), &name, Name { node, layer: None })?;
                    self.look_again(&walk.way);
                    walk.way.push(node);
                }
            }
        }
        Ok(walk.here())
    }

    /// Hides what layers below `layer` have at a name (L3). A directory that stays only because something in it does is
    /// as if no layer described it.
    fn hide(&mut self, parent: usize, name: &[u8], layer: usize) {
        let Some(found) = self.child(parent, name) else { return };
        self.hide_all(found.node, layer);
        if found.layer == Some(layer) {
            return;
        }
        if self.is_occupied(found.node) {
            self.imply(found.node);
        } else if let Kind::Directory(directory) = &mut self.nodes[parent].kind {
            directory.children.remove(name);
        }
    }

    /// There is something in these directories that no layer gave: what hides what lower layers have hides it too.
    fn look_again(&mut self, way: &[usize]) {
        for node in way {
            if let Kind::Directory(directory) = &mut self.nodes[*node].kind {
                directory.hidden = None;
            }
        }
    }

    /// Makes a directory one that no layer describes.
    fn imply(&mut self, node: usize) {
        self.nodes[node].attributes = Attributes::implied();
        self.nodes[node].origin = None;
    }

    /// Hides what layers below `layer` have in a directory (L4), the deepest first.
    fn hide_all(&mut self, directory: usize, layer: usize) {
        let (mut ahead, mut found) = (vec![directory], Vec::new());
        while let Some(node) = ahead.pop() {
            if let Kind::Directory(directory) = &mut self.nodes[node].kind
                && directory.hidden.replace(layer) != Some(layer)
            {
                ahead.extend(directory.children.values().map(|name| name.node));
                found.push(node);
            }
        }
        for node in found.into_iter().rev() {
            let Kind::Directory(directory) = &mut self.nodes[node].kind else { continue };
            let mut children = std::mem::take(&mut directory.children);
            children.retain(|_, name| name.layer == Some(layer) || self.is_occupied(name.node));
            for name in children.values().filter(|name| name.layer != Some(layer)) {
                self.imply(name.node);
            }
            if let Kind::Directory(directory) = &mut self.nodes[node].kind {
                directory.children = children;
            }
        }
    }
}

/// What an entry adds that is neither a directory nor one more name.
fn kind_of(layer: usize, number: u64, entry: &Entry<'_>) -> Result<Kind> {
    Ok(match entry.kind() {
        EntryKind::Symlink { target } if target.as_os_str().is_empty() => {
            return invalid("a symbolic link leads to nothing");
        }
        EntryKind::Symlink { target } => Kind::Symlink(target.as_os_str().as_bytes().to_vec()),
        EntryKind::CharDevice { major, minor } => Kind::CharDevice(major, minor),
        EntryKind::BlockDevice { major, minor } => Kind::BlockDevice(major, minor),
        EntryKind::Fifo => Kind::Fifo,
        _ => Kind::File(File { layer, number, size: entry.size() }),
    })
}

/// A way through the tree.
struct Walk {
    /// The directories on the way, from the root.
    way: Vec<usize>,
    /// The names to come, last first.
    ahead: Vec<Vec<u8>>,
    links: usize,
}

impl Walk {
    fn new(path: &[u8]) -> Walk {
        let mut walk = Walk { way: vec![ROOT], ahead: Vec::new(), links: 0 };
        walk.push(path);
        walk
    }

    fn here(&self) -> usize {
        self.way.last().copied().unwrap_or(ROOT)
    }

    fn push(&mut self, path: &[u8]) {
        push(&mut self.ahead, path);
    }

    /// Goes up, if that is what the name says; never above the root.
    fn is_upwards(&mut self, name: &[u8]) -> bool {
        if name == b".." && self.way.len() > 1 {
            self.way.pop();
        }
        name == b".."
    }

    /// Goes on where a link leads; false if there were too many.
    fn follow(&mut self, target: &[u8]) -> bool {
        self.links += 1;
        if target.starts_with(b"/") {
            self.way.truncate(1);
        }
        self.push(target);
        self.links <= MAX_LINKS
    }
}
