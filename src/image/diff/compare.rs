//! Two images' trees, walked together, by the rules of [`changeset::diff`](crate::changeset::diff()).

use std::rc::Rc;

use super::contents::CONTENT_BYTES;
use super::contents::Contents;
use super::contents::Place;
use crate::changeset::Change;
use crate::changeset::ChangeKind;
use crate::changeset::ChangeList;
use crate::changeset::Changes;
use crate::changeset::CompareContent;
use crate::changeset::DiffOptions;
use crate::changeset::Linked;
use crate::changeset::Links;
use crate::changeset::check_stored;
use crate::changeset::join;
use crate::error::Result;
use crate::fs::to_path;
use crate::image::Layer;
use crate::image::merged::Directory;
use crate::image::merged::File;
use crate::image::merged::Kind;
use crate::image::merged::Merged;
use crate::image::merged::Node;
use crate::image::merged::ROOT;
use crate::memory::MemoryReservation;
use crate::memory::allocated;

const PAIR_BYTES: usize = size_of::<Pair<'_>>() + CONTENT_BYTES;

/// One of the images.
#[derive(Debug)]
pub(super) struct Side<'a> {
    tree: &'a Merged,
    layers: &'a [Layer],
}

impl<'a> Side<'a> {
    pub(super) fn new(tree: &'a Merged, layers: &'a [Layer]) -> Side<'a> {
        Side { tree, layers }
    }

    fn node(&self, node: usize) -> &'a Node {
        self.tree.node(node)
    }

    fn directory(&self, node: usize) -> Option<&'a Directory> {
        self.node(node).directory()
    }

    fn linked(&self, node: usize) -> Numbered {
        Numbered { node, has_names: self.node(node).links > 1 }
    }

    fn place(&self, file: &File) -> Place {
        Place { diff_id: self.layers[file.origin.layer()].diff_id(), number: file.origin.number() }
    }

    /// Where to read the content of a node that is a file.
    fn content(&self, node: usize) -> Option<(&'a Layer, u64)> {
        let file = self.node(node).file()?;
        Some((&self.layers[file.origin.layer()], file.origin.number()))
    }
}

/// A node, as what may have several names. Directories have one.
struct Numbered {
    node: usize,
    has_names: bool,
}

impl Linked for Numbered {
    type Id = usize;

    fn id(&self) -> usize {
        self.node
    }

    fn has_names(&self) -> bool {
        self.has_names
    }
}

/// What has one path in both.
#[derive(Debug)]
struct Pair<'a> {
    /// The path of the directory that it is in.
    parent: Rc<[u8]>,
    name: &'a [u8],
    old: usize,
    new: usize,
}

/// A directory of the new tree, to be looked into.
struct Level<'a> {
    path: Rc<[u8]>,
    /// The old tree's at this path, if it has one.
    old: Option<&'a Directory>,
    new: &'a Directory,
}

impl Level<'_> {
    /// The memory that it takes; its path is kept too where contents in it are to be compared.
    fn bytes(&self) -> usize {
        size_of::<Level<'_>>() + allocated(self.path.len() + 2 * size_of::<usize>())
    }
}

enum Verdict {
    Same,
    Different,
    /// If their contents are.
    Doubtful,
}

#[derive(Debug)]
pub(super) struct Comparison<'a> {
    old: Side<'a>,
    new: Side<'a>,
    options: &'a DiffOptions,
    links: Links<usize>,
    found: ChangeList,
    doubtful: Vec<Pair<'a>>,
    /// The memory of the doubtful pairs and of the directories ahead.
    memory: MemoryReservation,
}

impl<'a> Comparison<'a> {
    pub(super) fn new(old: Side<'a>, new: Side<'a>, options: &'a DiffOptions) -> Comparison<'a> {
        let budget = new.tree.budget();
        let (links, found, memory) = (Links::new(budget), ChangeList::new(budget), budget.reservation());
        Comparison { old, new, options, links, found, doubtful: Vec::new(), memory }
    }

    /// Compares all but contents.
    pub(super) fn run(&mut self) -> Result<()> {
        let root =
            self.new.directory(ROOT).map(|new| Level { path: Rc::default(), old: self.old.directory(ROOT), new });
        let mut ahead: Vec<Level<'a>> = root.into_iter().collect();
        while let Some(level) = ahead.pop() {
            self.removed(&level)?;
            for (name, new) in level.new.children.iter() {
                self.options.cancel.check()?;
                let old = level.old.and_then(|old| old.children.get(name)).map(|name| name.node());
                if let Some(level) = self.row(&level.path, name, old, new.node())? {
                    self.memory.grow(level.bytes())?;
                    ahead.push(level);
                }
            }
            self.memory.shrink(level.bytes());
        }
        Ok(())
    }

    /// The contents that are to be compared.
    pub(super) fn wanted(&self) -> impl Iterator<Item = (&'a Layer, u64)> {
        let both = |pair: &Pair| [self.old.content(pair.old), self.new.content(pair.new)];
        self.doubtful.iter().flat_map(both).flatten()
    }

    /// What changed, now that the contents are known.
    pub(super) fn settle(mut self, contents: &Contents) -> Result<Changes> {
        for Pair { parent, name, old, new } in std::mem::take(&mut self.doubtful) {
            let digest =
                |side: &Side<'_>, node| side.node(node).file().and_then(|file| contents.get(side.place(&file)));
            let path = join(&parent, name);
            if digest(&self.old, old) == digest(&self.new, new) {
                self.same(&path, old, new)?;
            } else {
                self.different(&path, new)?;
            }
        }
        self.links.torn().try_for_each(|change| self.found.push(change))?;
        Ok(self.found.into_changes())
    }

    fn removed(&mut self, level: &Level<'_>) -> Result<()> {
        let Some(old) = level.old else { return Ok(()) };
        for (name, found) in old.children.iter() {
            self.options.cancel.check()?;
            let path = join(&level.path, name);
            check_stored(&path)?;
            if !level.new.children.contains_key(name) {
                self.found.push(change(&path, ChangeKind::Deleted, self.old.node(found.node())))?;
            }
        }
        Ok(())
    }

    /// Looks at what has a path. If it is a directory, it is to be looked into.
    fn row(&mut self, parent: &Rc<[u8]>, name: &'a [u8], old: Option<usize>, new: usize) -> Result<Option<Level<'a>>> {
        let path = join(parent, name);
        check_stored(&path)?;
        match old.map(|old| (old, self.verdict(self.old.node(old), self.new.node(new)))) {
            None => {
                self.found.push(change(&path, ChangeKind::Added, self.new.node(new)))?;
                self.links.changed(&self.new.linked(new))?;
            }
            Some((_, Verdict::Different)) => self.different(&path, new)?,
            Some((old, Verdict::Same)) => self.same(&path, old, new)?,
            Some((old, Verdict::Doubtful)) => {
                self.memory.grow(PAIR_BYTES)?;
                self.doubtful.push(Pair { parent: Rc::clone(parent), name, old, new });
            }
        }
        let Some(new) = self.new.directory(new) else { return Ok(None) };
        Ok(Some(Level { path: path.into(), old: old.and_then(|old| self.old.directory(old)), new }))
    }

    fn different(&mut self, path: &[u8], new: usize) -> Result<()> {
        self.found.push(change(path, ChangeKind::Modified, self.new.node(new)))?;
        self.links.changed(&self.new.linked(new))
    }

    fn same(&mut self, path: &[u8], old: usize, new: usize) -> Result<()> {
        let (old, linked) = (self.old.linked(old), self.new.linked(new));
        self.links.unchanged(&old, &linked, || change(path, ChangeKind::Modified, self.new.node(new)))
    }

    fn verdict(&self, old: &Node, new: &Node) -> Verdict {
        let is_same = match (&old.kind, &new.kind) {
            (Kind::File { size: a }, Kind::File { size: b }) if a == b && old.attributes == new.attributes => {
                let place = |side: &Side<'_>, node: &Node| node.file().map(|file| side.place(&file));
                let is_asked = new.attributes.is_coarse() || self.options.content == CompareContent::Always;
                if is_asked && *a > 0 && place(&self.old, old) != place(&self.new, new) {
                    return Verdict::Doubtful;
                }
                true
            }
            (Kind::Directory(_), Kind::Directory(_)) | (Kind::Fifo, Kind::Fifo) => true,
            (Kind::Symlink(a), Kind::Symlink(b)) => a == b,
            (Kind::CharDevice(a, b), Kind::CharDevice(c, d)) => (a, b) == (c, d),
            (Kind::BlockDevice(a, b), Kind::BlockDevice(c, d)) => (a, b) == (c, d),
            _ => false,
        };
        if is_same && old.attributes == new.attributes { Verdict::Same } else { Verdict::Different }
    }
}

fn change(path: &[u8], kind: ChangeKind, node: &Node) -> Change {
    let size = match &node.kind {
        Kind::File { size } => *size,
        _ => 0,
    };
    let is_directory = matches!(node.kind, Kind::Directory(_));
    Change { is_directory, size, ..Change::new(to_path(path), kind) }
}
