//! The tree that the layers of an image show together, in memory: names, attributes, and where contents are stored.
//!
//! Its size is bounded by a [`MemoryBudget`]. A replaced or hidden entry returns its bytes; the directories of a copy are
//! shared with the original until either changes them.

use std::cell::RefCell;
use std::num::NonZeroU32;
use std::os::unix::ffi::OsStrExt;
use std::rc::Rc;

use crate::changeset::Entry;
use crate::changeset::EntryKind;
use crate::changeset::LINKS;
use crate::changeset::Limits;
use crate::changeset::Timestamp;
use crate::changeset::clean;
use crate::changeset::invalid;
use crate::changeset::split;
use crate::error::Error;
use crate::error::Limit;
use crate::error::Result;
use crate::fs::rooted::MAX_LINKS;
use crate::fs::rooted::push;
use crate::image::attributes::Attributes;
use crate::image::attributes::XattrList;
use crate::image::attributes::XattrLists;
use crate::image::children::Children;
use crate::memory::MemoryBudget;
use crate::memory::MemoryReservation;
use crate::memory::allocated;

/// The node of the root.
pub(super) const ROOT: usize = 0;

/// The bytes of a node and of its place in the list of free nodes.
const NODE_BYTES: usize = size_of::<Node>() + size_of::<u32>();

/// The entry of a layer that describes a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    layer: u32,
    number: NonZeroU32,
}

impl Origin {
    fn new(layer: usize, number: u64) -> Result<Origin> {
        let too_many = |limit| move || Error::limit(limit, u32::MAX.into());
        Ok(Origin {
            layer: u32::try_from(layer).ok().ok_or_else(too_many(Limit::Layers))?,
            number: u32::try_from(number).ok().and_then(NonZeroU32::new).ok_or_else(too_many(Limit::Entries))?,
        })
    }

    /// The number of the layer, from 0.
    pub(super) fn layer(self) -> usize {
        self.layer as usize
    }

    /// The number of the entry in its layer, from 1.
    pub(super) fn number(self) -> u64 {
        self.number.get().into()
    }
}

/// The place and the size of a file's content.
#[derive(Clone, Copy, Debug)]
pub(super) struct File {
    pub(super) origin: Origin,
    pub(super) size: u64,
}

/// A file, directory, link or device. It may have several names.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) kind: Kind,
    pub(super) attributes: Attributes,
    /// The entry that describes it; none if no layer does. Nodes that are not directories always have one, and no two of
    /// them have the same, so it identifies them in copies of the tree too.
    pub(super) origin: Option<Origin>,
    /// The number of its names.
    pub(super) links: u32,
}

impl Node {
    /// The file, if it is one.
    pub(super) fn file(&self) -> Option<File> {
        match self.kind {
            Kind::File { size } => self.origin.map(|origin| File { origin, size }),
            _ => None,
        }
    }

    /// The directory, if it is one.
    pub(super) fn directory(&self) -> Option<&Directory> {
        match &self.kind {
            Kind::Directory(directory) => Some(directory),
            _ => None,
        }
    }

    /// The bytes that it has on the heap, without the names in a directory.
    fn heap_bytes(&self) -> usize {
        let kind = match &self.kind {
            Kind::Directory(_) => allocated(size_of::<Directory>()) + Children::EMPTY_BYTES,
            Kind::Symlink(target) => allocated(target.len()),
            _ => 0,
        };
        kind + self.attributes.heap_bytes()
    }
}

#[derive(Clone, Debug)]
pub(super) enum Kind {
    Directory(Box<Directory>),
    File {
        size: u64,
    },
    Symlink(Box<[u8]>),
    CharDevice(u32, u32),
    BlockDevice(u32, u32),
    Fifo,
    /// A node without names, to be used again.
    Free,
}

#[derive(Clone, Debug)]
pub(super) struct Directory {
    pub(super) children: Rc<Children>,
    /// Its time of change, as its entry says.
    pub(super) modified: Timestamp,
    /// Its extended attributes as its entry has them, if the tree keeps headers.
    pub(super) xattrs: Option<Rc<XattrList>>,
    /// The length of the path to it, in which no component is a link.
    length: u32,
    /// The last layer that hid the content of lower layers here. It need not look again: all that is left is its own.
    hidden: Option<u32>,
}

/// A name in a directory.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Name {
    node: u32,
    /// The number of the layer that has an entry of this name, from 1; 0 if it was made on the way to something.
    layer: u32,
}

impl Name {
    fn new(node: usize, layer: Option<usize>) -> Name {
        let layer = layer.map_or(0, |layer| u32::try_from(layer + 1).unwrap_or(u32::MAX));
        Name { node: u32::try_from(node).expect("the tree has less nodes"), layer }
    }

    pub(super) fn node(self) -> usize {
        self.node as usize
    }

    /// The layer that has an entry of this name, from 0; none if it was made on the way to something.
    pub(super) fn layer(self) -> Option<usize> {
        (self.layer as usize).checked_sub(1)
    }
}

/// The tree.
#[derive(Debug)]
pub(super) struct Merged {
    nodes: Vec<Node>,
    free: Vec<u32>,
    limits: Limits,
    /// The extended attributes of directories, if headers are kept; copies of the tree share them.
    xattrs: Option<Rc<RefCell<XattrLists>>>,
    memory: MemoryReservation,
}

impl Merged {
    /// A tree with an empty root that no layer describes. With `has_headers`, the extended attributes of directories are
    /// kept, so that a layer can repeat them.
    pub(super) fn new(limits: Limits, budget: &MemoryBudget, has_headers: bool) -> Result<Merged> {
        let xattrs = has_headers.then(|| Rc::new(RefCell::new(XattrLists::new(budget))));
        let memory = budget.reservation();
        let mut tree = Merged { nodes: Vec::new(), free: Vec::new(), limits, xattrs, memory };
        let root = tree.directory_of_length(0);
        let root = tree.add(root, Attributes::implied(), None)?;
        tree.nodes[root].links = 1;
        Ok(tree)
    }

    /// A copy, to apply other layers to.
    pub(super) fn duplicate(&self) -> Result<Merged> {
        let memory = self.memory.duplicate()?;
        let (nodes, free, xattrs) = (self.nodes.clone(), self.free.clone(), self.xattrs.clone());
        Ok(Merged { nodes, free, limits: self.limits, xattrs, memory })
    }

    /// The budget that it takes its memory from.
    pub(super) fn budget(&self) -> &MemoryBudget {
        self.memory.budget()
    }

    /// Applies the entry that stands at `number` of a layer.
    pub(super) fn apply(&mut self, layer: usize, number: u64, entry: &Entry<'_>) -> Result<()> {
        let path = entry.path().as_os_str().as_bytes();
        let (parent, name) = split(path);
        let origin = Origin::new(layer, number)?;
        match entry.kind() {
            EntryKind::Whiteout => match self.existing(parent) {
                Some(parent) => self.hide(parent, name, layer),
                None => Ok(()),
            },
            EntryKind::Opaque => match self.existing(path) {
                Some(directory) => self.hide_all(directory, layer),
                None => Ok(()),
            },
            EntryKind::Directory if path.is_empty() => self.describe(ROOT, origin, entry),
            _ if path.is_empty() => invalid("the root is no directory"),
            kind => {
                let parent = self.made(parent)?;
                let node = match kind {
                    EntryKind::Directory => {
                        let node = self.directory(parent, name)?;
                        self.describe(node, origin, entry)?;
                        node
                    }
                    EntryKind::HardLink { target } => self.target(target.as_os_str().as_bytes())?,
                    _ => self.add(kind_of(entry)?, Attributes::of(entry), Some(origin))?,
                };
                self.insert(parent, name, Name::new(node, Some(layer)))
            }
        }
    }

    /// Ends a layer: what AUFS kept for it goes (L6).
    pub(super) fn end_layer(&mut self) -> Result<()> {
        self.remove(ROOT, LINKS)
    }

    pub(super) fn node(&self, node: usize) -> &Node {
        &self.nodes[node]
    }

    /// The file at a path, links followed.
    pub(super) fn file(&self, path: &[u8]) -> Result<File> {
        let node = self.find(path).ok_or_else(|| Error::not_found("the file"))?;
        let node = &self.nodes[node];
        match &node.kind {
            Kind::File { .. } => node.file().ok_or_else(|| Error::not_found("the file")),
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

    /// Adds a node without a name.
    fn add(&mut self, kind: Kind, attributes: Attributes, origin: Option<Origin>) -> Result<usize> {
        let node = Node { kind, attributes, origin, links: 0 };
        self.memory.grow(node.heap_bytes())?;
        if let Some(place) = self.free.pop() {
            self.nodes[place as usize] = node;
            return Ok(place as usize);
        }
        self.memory.grow(NODE_BYTES)?;
        if u32::try_from(self.nodes.len()).is_err() {
            return Err(Error::limit(Limit::Entries, u32::MAX.into()));
        }
        self.nodes.push(node);
        Ok(self.nodes.len() - 1)
    }

    /// Takes one of its names from a node. Without names it is gone, with all that is in it.
    fn release(&mut self, node: usize) {
        let mut ahead = vec![node];
        while let Some(place) = ahead.pop() {
            let node = &mut self.nodes[place];
            node.links = node.links.saturating_sub(1);
            if node.links > 0 {
                continue;
            }
            self.memory.shrink(node.heap_bytes());
            let free = Node { kind: Kind::Free, attributes: Attributes::implied(), origin: None, links: 0 };
            if let Kind::Directory(directory) = std::mem::replace(node, free).kind {
                ahead.extend(directory.children.values().map(|name| name.node()));
            }
            self.free.extend(u32::try_from(place));
        }
    }

    /// The directory that has or gets a name: one that is there keeps its children (L2).
    fn directory(&mut self, parent: usize, name: &[u8]) -> Result<usize> {
        match self.child(parent, name).filter(|name| self.is_directory(name.node())) {
            Some(name) => Ok(name.node()),
            None => self.add_directory(parent, name),
        }
    }

    fn add_directory(&mut self, parent: usize, name: &[u8]) -> Result<usize> {
        let above = self.length(parent);
        let length = if above == 0 { name.len() } else { above + 1 + name.len() };
        let directory = self.directory_of_length(length);
        self.add(directory, Attributes::implied(), None)
    }

    fn directory_of_length(&self, length: usize) -> Kind {
        Kind::Directory(Box::new(Directory {
            children: Rc::new(Children::new(self.budget())),
            modified: Timestamp::default(),
            xattrs: None,
            length: u32::try_from(length).unwrap_or(u32::MAX),
            hidden: None,
        }))
    }

    /// Gives a directory the attributes of its entry.
    fn describe(&mut self, node: usize, origin: Origin, entry: &Entry<'_>) -> Result<()> {
        let xattrs = self.xattrs.as_ref().map_or(Ok(None), |lists| lists.borrow_mut().list_of(entry))?;
        self.set_attributes(node, Attributes::of(entry), Some(origin))?;
        if let Kind::Directory(directory) = &mut self.nodes[node].kind {
            directory.modified = entry.modified();
            directory.xattrs = xattrs;
        }
        Ok(())
    }

    /// Makes a directory one that no layer describes.
    fn imply(&mut self, node: usize) -> Result<()> {
        self.set_attributes(node, Attributes::implied(), None)?;
        if let Kind::Directory(directory) = &mut self.nodes[node].kind {
            directory.modified = Timestamp::default();
            directory.xattrs = None;
        }
        Ok(())
    }

    fn set_attributes(&mut self, node: usize, attributes: Attributes, origin: Option<Origin>) -> Result<()> {
        let node = &mut self.nodes[node];
        self.memory.grow(attributes.heap_bytes())?;
        self.memory.shrink(node.attributes.heap_bytes());
        (node.attributes, node.origin) = (attributes, origin);
        Ok(())
    }

    /// The names in a directory, to be changed; a copy of them where another tree has the same.
    fn children_mut(&mut self, node: usize) -> Result<Option<&mut Children>> {
        let Kind::Directory(directory) = &mut self.nodes[node].kind else { return Ok(None) };
        if Rc::strong_count(&directory.children) > 1 {
            directory.children = Rc::new(directory.children.duplicate()?);
        }
        Ok(Rc::get_mut(&mut directory.children))
    }

    fn remove(&mut self, parent: usize, name: &[u8]) -> Result<()> {
        if self.child(parent, name).is_none() {
            return Ok(());
        }
        let removed = self.children_mut(parent)?.and_then(|children| children.remove(name));
        if let Some(removed) = removed {
            self.release(removed.node());
        }
        Ok(())
    }

    /// Links lead deeper than any path is long; what lies so deep could not be unpacked.
    fn insert(&mut self, parent: usize, name: &[u8], to: Name) -> Result<()> {
        self.limits.check(Limit::PathLength, (self.length(parent) + 1 + name.len()) as u64)?;
        // Before the old one is released: it may be the directory that the node is in.
        self.nodes[to.node()].links += 1;
        let before = match self.children_mut(parent)? {
            Some(children) => children.insert(name, to)?,
            None => None,
        };
        if let Some(before) = before {
            self.release(before.node());
        }
        Ok(())
    }

    /// How long the path to a directory is.
    fn length(&self, directory: usize) -> usize {
        match &self.nodes[directory].kind {
            Kind::Directory(directory) => directory.length as usize,
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
            Some(name) if !self.is_directory(name.node()) => Ok(name.node()),
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
            let node = self.child(walk.here(), &name)?.node();
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
            let node = self.child(walk.here(), &name).map(Name::node);
            match node.map(|node| (node, &self.nodes[node].kind)) {
                Some((node, Kind::Directory(_))) => walk.way.push(node),
                Some((_, Kind::Symlink(target))) => {
                    if !walk.follow(target) {
                        return invalid("links lead in circles");
                    }
                }
                _ => {
                    let node = self.add_directory(walk.here(), &name)?;
                    self.insert(walk.here(), &name, Name::new(node, None))?;
                    self.look_again(&walk.way);
                    walk.way.push(node);
                }
            }
        }
        Ok(walk.here())
    }

    /// Hides what layers below `layer` have at a name (L3). A directory that stays only because something in it does is
    /// as if no layer described it.
    fn hide(&mut self, parent: usize, name: &[u8], layer: usize) -> Result<()> {
        let Some(found) = self.child(parent, name) else { return Ok(()) };
        self.hide_all(found.node(), layer)?;
        if found.layer() == Some(layer) {
            return Ok(());
        }
        if self.is_occupied(found.node()) { self.imply(found.node()) } else { self.remove(parent, name) }
    }

    /// There is something in these directories that no layer gave: what hides what lower layers have hides it too.
    fn look_again(&mut self, way: &[usize]) {
        for node in way {
            if let Kind::Directory(directory) = &mut self.nodes[*node].kind {
                directory.hidden = None;
            }
        }
    }

    /// Hides what layers below `layer` have in a directory (L4), the deepest first.
    fn hide_all(&mut self, directory: usize, layer: usize) -> Result<()> {
        let (mut ahead, mut found) = (vec![directory], Vec::new());
        let hidden = u32::try_from(layer).ok();
        while let Some(node) = ahead.pop() {
            if let Kind::Directory(directory) = &mut self.nodes[node].kind
                && directory.hidden != hidden
            {
                directory.hidden = hidden;
                ahead.extend(directory.children.values().map(|name| name.node()));
                found.push(node);
            }
        }
        found.into_iter().rev().try_for_each(|node| self.hide_children(node, layer))
    }

    /// The same in this directory alone: only its own and directories that are not empty are left.
    fn hide_children(&mut self, node: usize, layer: usize) -> Result<()> {
        let Some(directory) = self.nodes[node].directory() else { return Ok(()) };
        let is_lower = |name: &Name| name.layer() != Some(layer);
        let lower = directory.children.values().copied().filter(is_lower);
        let (mut left, gone): (Vec<Name>, Vec<Name>) = lower.partition(|name| self.is_occupied(name.node()));
        left.sort_unstable_by_key(|name| name.node());
        left.iter().try_for_each(|name| self.imply(name.node()))?;
        if gone.is_empty() {
            return Ok(());
        }
        let is_left = |name: &Name| left.binary_search_by_key(&name.node(), |left| left.node()).is_ok();
        if let Some(children) = self.children_mut(node)? {
            children.retain(|name| !is_lower(name) || is_left(name));
        }
        gone.iter().for_each(|name| self.release(name.node()));
        Ok(())
    }
}

/// What an entry adds that is neither a directory nor one more name.
fn kind_of(entry: &Entry<'_>) -> Result<Kind> {
    Ok(match entry.kind() {
        EntryKind::Symlink { target } if target.as_os_str().is_empty() => {
            return invalid("a symbolic link leads to nothing");
        }
        EntryKind::Symlink { target } => Kind::Symlink(target.as_os_str().as_bytes().into()),
        EntryKind::CharDevice { major, minor } => Kind::CharDevice(major, minor),
        EntryKind::BlockDevice { major, minor } => Kind::BlockDevice(major, minor),
        EntryKind::Fifo => Kind::Fifo,
        _ => Kind::File { size: entry.size() },
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
