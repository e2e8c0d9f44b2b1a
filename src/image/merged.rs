//! What an image shows when its layers are stacked, in memory: names and where their contents stand.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;

use crate::changeset::Entry;
use crate::changeset::EntryKind;
use crate::changeset::clean;
use crate::changeset::invalid;
use crate::changeset::split;
use crate::error::Error;
use crate::error::Result;
use crate::fs::rooted::MAX_LINKS;
use crate::fs::rooted::push;

const ROOT: usize = 0;

/// Where the content of a file stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct File {
    /// In which layer, from 0.
    pub(super) layer: usize,
    /// At which entry of it, from 1.
    pub(super) number: u64,
    pub(super) size: u64,
}

#[derive(Debug)]
enum Node {
    Directory(BTreeMap<Vec<u8>, Name>),
    File(File),
    Symlink(Vec<u8>),
    Other,
}

/// A name in a directory.
#[derive(Clone, Copy, Debug)]
struct Name {
    node: usize,
    /// Which layer gave it; none where it was made on the way to something.
    layer: Option<usize>,
}

/// The tree. Nodes are never taken away: several names may lead to one.
#[derive(Debug)]
pub(super) struct Merged {
    nodes: Vec<Node>,
}

impl Merged {
    pub(super) fn new() -> Merged {
        Merged { nodes: vec![Node::Directory(BTreeMap::new())] }
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
            EntryKind::Directory if path.is_empty() => Ok(()),
            _ if path.is_empty() => invalid("the root is no directory"),
            kind => {
                let parent = self.made(parent)?;
                let node = match kind {
                    EntryKind::Directory => return self.add_directory(parent, name, layer),
                    EntryKind::HardLink { target } => self.target(target.as_os_str().as_bytes())?,
                    EntryKind::File => self.add(Node::File(File { layer, number, size: entry.size() })),
                    EntryKind::Symlink { target } => self.add(Node::Symlink(target.as_os_str().as_bytes().to_vec())),
                    _ => self.add(Node::Other),
                };
                self.insert(parent, name, Name { node, layer: Some(layer) });
                Ok(())
            }
        }
    }

    /// The file at a path, links followed.
    pub(super) fn file(&self, path: &[u8]) -> Result<File> {
        let node = self.find(path, true).ok_or_else(|| Error::not_found("the file"))?;
        match &self.nodes[node] {
            Node::File(file) => Ok(*file),
            Node::Directory(_) => Err(Error::invalid_input("it is a directory")),
            Node::Symlink(_) => Err(Error::invalid_input("its links lead in circles")),
            Node::Other => Err(Error::invalid_input("it is a device or a pipe")),
        }
    }

    fn add(&mut self, node: Node) -> usize {
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    fn add_directory(&mut self, parent: usize, name: &[u8], layer: usize) -> Result<()> {
        let there = self.child(parent, name).filter(|name| matches!(self.nodes[name.node], Node::Directory(_)));
        let node = there.map_or_else(|| self.add(Node::Directory(BTreeMap::new())), |name| name.node);
        self.insert(parent, name, Name { node, layer: Some(layer) });
        Ok(())
    }

    fn insert(&mut self, parent: usize, name: &[u8], to: Name) {
        if let Node::Directory(children) = &mut self.nodes[parent] {
            children.insert(name.to_vec(), to);
        }
    }

    fn child(&self, parent: usize, name: &[u8]) -> Option<Name> {
        match &self.nodes[parent] {
            Node::Directory(children) => children.get(name).copied(),
            _ => None,
        }
    }

    /// What a hard link names; the last component is not followed.
    fn target(&self, path: &[u8]) -> Result<usize> {
        match self.find(&clean(path), false) {
            Some(node) if !matches!(self.nodes[node], Node::Directory(_)) => Ok(node),
            _ => invalid("a hard link to something that is not there, or is a directory"),
        }
    }

    fn existing(&self, path: &[u8]) -> Option<usize> {
        self.find(path, true).filter(|node| matches!(self.nodes[*node], Node::Directory(_)))
    }

    /// What lies at a path.
    fn find(&self, path: &[u8], follow_last: bool) -> Option<usize> {
        let mut walk = Walk::new(path);
        while let Some(name) = walk.ahead.pop() {
            if walk.is_upwards(&name) {
                continue;
            }
            let node = self.child(walk.here(), &name)?.node;
            match &self.nodes[node] {
                Node::Symlink(target) if follow_last || !walk.ahead.is_empty() => {
                    if !walk.follow(target) {
                        return Some(node);
                    }
                }
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
            match node.map(|node| (node, &self.nodes[node])) {
                Some((node, Node::Directory(_))) => walk.way.push(node),
                Some((_, Node::Symlink(target))) => {
                    if !walk.follow(target) {
                        return invalid("links lead in circles");
                    }
                }
                _ => {
                    let node = self.add(Node::Directory(BTreeMap::new()));
                    self.insert(walk.here(), &name, Name { node, layer: None });
                    walk.way.push(node);
                }
            }
        }
        Ok(walk.here())
    }

    /// Hides what layers below `layer` have at a name.
    fn hide(&mut self, parent: usize, name: &[u8], layer: usize) {
        let Some(found) = self.child(parent, name) else { return };
        let is_kept = found.layer == Some(layer);
        self.hide_all(found.node, layer);
        let is_occupied = matches!(&self.nodes[found.node], Node::Directory(children) if !children.is_empty());
        if !is_kept
            && !is_occupied
            && let Node::Directory(children) = &mut self.nodes[parent]
        {
            children.remove(name);
        }
    }

    /// Hides what layers below `layer` have in a directory. What is left has been looked into, the deepest first.
    fn hide_all(&mut self, directory: usize, layer: usize) {
        let mut below = vec![directory];
        let mut at = 0;
        while let Some(&node) = below.get(at) {
            if let Node::Directory(children) = &self.nodes[node] {
                below.extend(children.values().map(|name| name.node));
            }
            at += 1;
        }
        for node in below.into_iter().rev() {
            let Node::Directory(children) = &mut self.nodes[node] else { continue };
            let mut children = std::mem::take(children);
            children.retain(|_, name| {
                let is_occupied = matches!(&self.nodes[name.node], Node::Directory(below) if !below.is_empty());
                name.layer == Some(layer) || is_occupied
            });
            self.nodes[node] = Node::Directory(children);
        }
    }
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
