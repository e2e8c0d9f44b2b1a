//! Two images' trees, walked together, by the rules of [`changeset::diff`](crate::changeset::diff()).

use super::contents::Contents;
use super::contents::Place;
use crate::changeset::Change;
use crate::changeset::ChangeKind;
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

/// One of the images.
#[derive(Debug)]
pub(super) struct Side<'a> {
    tree: &'a Merged,
    layers: &'a [Layer],
    /// How many names each node has.
    names: Vec<u32>,
}

impl<'a> Side<'a> {
    pub(super) fn new(tree: &'a Merged, layers: &'a [Layer]) -> Side<'a> {
        Side { tree, layers, names: tree.names() }
    }

    fn node(&self, node: usize) -> &'a Node {
        self.tree.node(node)
    }

    fn directory(&self, node: usize) -> Option<&'a Directory> {
        match &self.node(node).kind {
            Kind::Directory(directory) => Some(directory),
            _ => None,
        }
    }

    fn linked(&self, node: usize) -> Numbered {
        Numbered { node, has_names: self.names[node] > 1 }
    }

    fn place(&self, file: &File) -> Place {
        Place { diff_id: self.layers[file.layer].diff_id(), number: file.number }
    }

    /// Where to read the content of a node that is a file.
    fn content(&self, node: usize) -> Option<(&'a Layer, u64)> {
        match &self.node(node).kind {
            Kind::File(file) => Some((&self.layers[file.layer], file.number)),
            _ => None,
        }
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
struct Pair {
    path: Vec<u8>,
    old: usize,
    new: usize,
}

/// A directory of the new tree, to be looked into.
struct Level<'a> {
    path: Vec<u8>,
    /// The old tree's at this path, if it has one.
    old: Option<&'a Directory>,
    new: &'a Directory,
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
    found: Vec<Change>,
    doubtful: Vec<Pair>,
}

impl<'a> Comparison<'a> {
    pub(super) fn new(old: Side<'a>, new: Side<'a>, options: &'a DiffOptions) -> Comparison<'a> {
        Comparison { old, new, options, links: Links::default(), found: Vec::new(), doubtful: Vec::new() }
    }

    /// Compares all but contents.
    pub(super) fn run(&mut self) -> Result<()> {
        let root = self.new.directory(ROOT).map(|new| Level { path: Vec::new(), old: self.old.directory(ROOT), new });
        let mut ahead: Vec<Level<'a>> = root.into_iter().collect();
        while let Some(level) = ahead.pop() {
            self.removed(&level)?;
            for (name, new) in &level.new.children {
                self.options.cancel.check()?;
                let path = join(&level.path, name);
                check_stored(&path)?;
                let old = level.old.and_then(|old| old.children.get(name)).map(|name| name.node);
                ahead.extend(self.row(path, old, new.node));
            }
        }
        Ok(())
    }

    /// The contents that are to be compared.
    pub(super) fn wanted(&self) -> impl Iterator<Item = (&'a Layer, u64)> {
        let both = |pair: &Pair| [self.old.content(pair.old), self.new.content(pair.new)];
        self.doubtful.iter().flat_map(both).flatten()
    }

    /// What changed, now that the contents are known.
    pub(super) fn settle(mut self, contents: &Contents) -> Changes {
        for Pair { path, old, new } in std::mem::take(&mut self.doubtful) {
            let digest = |side: &Side<'_>, node| match &side.node(node).kind {
                Kind::File(file) => contents.get(side.place(file)),
                _ => None,
            };
            if digest(&self.old, old) == digest(&self.new, new) {
                self.same(&path, old, new);
            } else {
                self.different(&path, new);
            }
        }
        self.found.extend(self.links.torn());
        Changes::new(self.found, Vec::new())
    }

    fn removed(&mut self, level: &Level<'_>) -> Result<()> {
        let Some(old) = level.old else { return Ok(()) };
        for (name, found) in &old.children {
            self.options.cancel.check()?;
            let path = join(&level.path, name);
            check_stored(&path)?;
            if !level.new.children.contains_key(name) {
                self.found.push(change(&path, ChangeKind::Deleted, self.old.node(found.node)));
            }
        }
        Ok(())
    }

    /// Looks at what has a path. If it is a directory, it is to be looked into.
    fn row(&mut self, path: Vec<u8>, old: Option<usize>, new: usize) -> Option<Level<'a>> {
        match old.map(|old| (old, self.verdict(self.old.node(old), self.new.node(new)))) {
            None => {
                self.found.push(change(&path, ChangeKind::Added, self.new.node(new)));
                self.links.changed(&self.new.linked(new));
            }
            Some((_, Verdict::Different)) => self.different(&path, new),
            Some((old, Verdict::Same)) => self.same(&path, old, new),
            Some((old, Verdict::Doubtful)) => self.doubtful.push(Pair { path: path.clone(), old, new }),
        }
        let new = self.new.directory(new)?;
        Some(Level { path, old: old.and_then(|old| self.old.directory(old)), new })
    }

    fn different(&mut self, path: &[u8], new: usize) {
        self.found.push(change(path, ChangeKind::Modified, self.new.node(new)));
        self.links.changed(&self.new.linked(new));
    }

    fn same(&mut self, path: &[u8], old: usize, new: usize) {
        let (old, linked) = (self.old.linked(old), self.new.linked(new));
        self.links.unchanged(&old, &linked, || change(path, ChangeKind::Modified, self.new.node(new)));
    }

    fn verdict(&self, old: &Node, new: &Node) -> Verdict {
        let is_same = match (&old.kind, &new.kind) {
            (Kind::File(a), Kind::File(b)) if a.size == b.size && old.attributes == new.attributes => {
                let is_coarse = new.attributes.mtime.nanoseconds == 0;
                let is_asked = is_coarse || self.options.content == CompareContent::Always;
                if is_asked && a.size > 0 && self.old.place(a) != self.new.place(b) {
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
        Kind::File(file) => file.size,
        _ => 0,
    };
    let is_directory = matches!(node.kind, Kind::Directory(_));
    Change { is_directory, size, ..Change::new(to_path(path), kind) }
}
