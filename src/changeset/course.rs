//! A cursor over the layer at hand and the layers below it, as overlayfs merges them. Used for layers in overlay form.
//!
//! The cursor keeps its position between entries, and remembers which lower layers have a part in each directory. So an entry
//! costs what its path differs from the path of the entry before it, not a walk from the root through all layers.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::hash::RandomState;
use std::rc::Rc;

use rustix::fs::AtFlags;
use rustix::io::Errno;

use crate::changeset::overlay::Found;
use crate::changeset::overlay::Overlay;
use crate::changeset::trail::Trail;
use crate::error::Error;
use crate::error::Result;
use crate::fs::rooted::Folder;
use crate::fs::rooted::Inode;
use crate::fs::rooted::MAX_LINKS;
use crate::fs::rooted::Rooted;
use crate::fs::rooted::push;

/// Most memory that [`Lower`] takes for directories that it remembers.
const MAX_REMEMBERED: usize = 4 << 20;

/// The layers below, and what is remembered of their directories. Nobody changes these layers.
#[derive(Debug)]
pub(crate) struct Lower {
    /// The base first.
    layers: Vec<Rc<Rooted>>,
    /// The lowest layer whose root shows anything.
    lowest: u32,
    /// By the hash of their path.
    dirs: HashMap<u64, Rc<Merged>>,
    bytes: usize,
    hasher: RandomState,
}

/// A directory of the layers below.
#[derive(Debug)]
struct Merged {
    /// How many layers it was looked up in.
    layers: usize,
    /// The layers that have a part in it, topmost first.
    parts: Rc<[u32]>,
    /// The layer that has something other than a directory there, which hides what lies below.
    end: Option<u32>,
}

/// The state of a path in the layer at hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Own {
    /// A directory.
    Directory,
    /// There is nothing, and no other thing in the place of a parent.
    Absent,
    /// Something other than a directory, there or in the place of a parent.
    Blocked,
}

#[derive(Debug)]
struct Level {
    name: Vec<u8>,
    hash: u64,
    own: Own,
    inode: Option<Inode>,
    /// Whether the layer at hand hides what lies below.
    covered: bool,
    /// Whether this is known not to be a symbolic link.
    passed: bool,
    lower: Option<Rc<Merged>>,
}

/// The cursor. It stands at a path in which nothing is a link; what is missing there, or is a file, is taken for a directory.
#[derive(Debug)]
pub(super) struct Course {
    overlay: Rc<Overlay>,
    layer: Rc<Rooted>,
    lower: Lower,
    /// From the root to the position.
    levels: Vec<Level>,
    /// How many levels are known in the layer at hand.
    known: usize,
    /// A directory of the layer at hand, by its depth.
    own: Option<(usize, Folder)>,
    /// A directory of the layers below, by its depth: those of its parts that are open.
    below: (usize, Vec<Option<Folder>>),
}

impl Lower {
    /// Layers with the topmost first.
    pub(crate) fn new(mut layers: Vec<Rooted>) -> Lower {
        layers.reverse();
        let layers = layers.into_iter().map(Rc::new).collect();
        Lower { layers, lowest: 0, dirs: HashMap::new(), bytes: 0, hasher: RandomState::new() }
    }

    fn root(&self) -> Merged {
        let parts = (self.lowest..u32::try_from(self.layers.len()).unwrap_or(u32::MAX)).rev().collect();
        Merged { layers: self.layers.len(), parts, end: None }
    }

    fn remember(&mut self, hash: u64, merged: &Rc<Merged>, is_shared: bool) {
        let parts = if is_shared { 0 } else { size_of_val(&*merged.parts) };
        self.bytes += 2 * size_of::<Merged>() + parts;
        if self.bytes > MAX_REMEMBERED {
            self.dirs.clear();
            self.bytes = 0;
        }
        self.dirs.insert(hash, Rc::clone(merged));
    }
}

impl Course {
    /// At the root.
    pub(super) fn new(overlay: &Rc<Overlay>, layer: &Rc<Rooted>, lower: Lower) -> Course {
        let mut course = Course {
            overlay: Rc::clone(overlay),
            layer: Rc::clone(layer),
            levels: Vec::new(),
            known: 0,
            own: None,
            below: (0, Vec::new()),
            lower,
        };
        course.push(b"", 0);
        course.levels[0].lower = Some(Rc::new(course.lower.root()));
        course.levels[0].passed = true;
        course
    }

    /// The layers for a layer above this one. `is_bare` says that this layer removed all that lies below it.
    pub(super) fn into_lower(self, is_bare: bool) -> Lower {
        let mut lower = self.lower;
        if is_bare {
            lower.lowest = u32::try_from(lower.layers.len()).unwrap_or(u32::MAX);
            lower.dirs.clear();
        }
        lower.layers.push(self.layer);
        lower
    }

    fn push(&mut self, name: &[u8], hash: u64) {
        let (own, inode) = (Own::Absent, None);
        self.levels.push(Level { name: name.to_vec(), hash, own, inode, covered: false, passed: false, lower: None });
    }

    fn depth(&self) -> usize {
        self.levels.len() - 1
    }

    /// The path to the level at a depth.
    fn path_to(&self, depth: usize) -> Vec<u8> {
        let names: Vec<&[u8]> = self.levels[1..=depth].iter().map(|level| &level.name[..]).collect();
        names.join(&b'/')
    }

    fn enter(&mut self, name: &[u8]) {
        let above = self.levels[self.depth()].hash;
        self.push(name, self.lower.hasher.hash_one((above, name)));
    }

    /// Goes up to a depth, and forgets the directories that are open below it.
    fn leave_to(&mut self, depth: usize) {
        self.levels.truncate(depth + 1);
        self.known = self.known.min(self.levels.len());
        if self.below.0 > depth {
            self.below = (0, Vec::new());
        }
        if let Some((at, child)) = self.own.take_if(|(at, _)| *at > depth) {
            let level = self.levels[..self.known].get(depth).filter(|_| at == depth + 1);
            let above = level.and_then(|level| child.above(level.inode?).ok());
            self.own = above.map(|above| (depth, above));
        }
    }

    /// How many of these names lead along the path to the position.
    fn shared<'p>(&self, names: impl Iterator<Item = &'p [u8]>) -> usize {
        self.levels[1..].iter().zip(names).take_while(|(level, name)| level.name == *name).count()
    }

    /// Goes to a path in which nothing is a link.
    pub(super) fn go_to(&mut self, path: &[u8]) {
        let shared = self.shared(components(path));
        self.leave_to(shared);
        components(path).skip(shared).for_each(|name| self.enter(name));
    }

    /// Goes to a path with its links resolved as they are seen through all layers. Returns the path without links, or `None`
    /// if it leads in circles. The trail gets each step.
    pub(super) fn resolve(
        &mut self,
        path: &[u8],
        trail: &mut Trail,
        followed: &mut dyn FnMut(usize) -> Result<()>,
    ) -> Result<Option<Vec<u8>>> {
        let mut shared = 0;
        for _ in 0..self.shared(components(path)).min(self.known.saturating_sub(1)) {
            if !self.levels[shared + 1].passed {
                break;
            }
            shared += 1;
            trail.add(self.levels[shared - 1].hash, self.levels[shared].hash);
        }
        self.leave_to(shared);
        let mut ahead: Vec<Vec<u8>> = Vec::new();
        push(&mut ahead, path);
        ahead.truncate(ahead.len() - shared);
        let mut links = 0;
        while let Some(name) = ahead.pop() {
            if name == b".." {
                self.leave_to(self.depth().saturating_sub(1));
                continue;
            }
            let above = self.levels[self.depth()].hash;
            self.enter(&name);
            trail.add(above, self.levels[self.depth()].hash);
            let Some(target) = self.link()? else { continue };
            if links == MAX_LINKS {
                return Ok(None);
            }
            links += 1;
            let is_absolute = target.starts_with(b"/");
            self.leave_to(if is_absolute { 0 } else { self.depth() - 1 });
            let before = ahead.len();
            push(&mut ahead, &target);
            trail.has_links = true;
            followed(ahead.len() - before)?;
        }
        Ok(Some(self.path_to(self.depth())))
    }

    /// The target of the symbolic link at the position, if there is one.
    fn link(&mut self) -> Result<Option<Vec<u8>>> {
        let depth = self.depth();
        let (own, covered) = self.own(depth)?;
        let target = match own {
            Own::Blocked if self.levels[depth - 1].own == Own::Directory => {
                let name = self.levels[depth].name.clone();
                let folder = self.own_folder(depth - 1)?;
                read_link(folder, &name).map_err(|error| self.layer.error("read", &self.path_to(depth), error))?
            }
            Own::Absent if !covered => self.link_below(depth)?,
            _ => None,
        };
        self.levels[depth].passed = target.is_none();
        Ok(target)
    }

    fn link_below(&mut self, depth: usize) -> Result<Option<Vec<u8>>> {
        let merged = self.merged(depth)?;
        let Some(end) = merged.end.filter(|_| merged.parts.is_empty()) else { return Ok(None) };
        let name = self.levels[depth].name.clone();
        let above = self.merged(depth - 1)?;
        let Some(part) = above.parts.iter().position(|part| *part == end) else { return Ok(None) };
        let folder = self.lower_folder(depth - 1, part)?;
        read_link(folder, &name).map_err(|error| self.fail(end, depth, error))
    }

    /// The state of the position in the layer at hand, and whether that layer hides what lies below.
    pub(super) fn here(&mut self) -> Result<(Own, bool)> {
        self.own(self.depth())
    }

    /// Whether the layer at hand has something of this name at the position.
    pub(super) fn has_own(&mut self, name: &[u8]) -> Result<bool> {
        if self.here()?.0 != Own::Directory {
            return Ok(false);
        }
        let folder = self.own_folder(self.depth())?;
        match rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => Ok(true),
            Err(Errno::NOENT | Errno::NAMETOOLONG) => Ok(false),
            Err(error) => Err(self.layer.error("look at", name, error)),
        }
    }

    fn own(&mut self, depth: usize) -> Result<(Own, bool)> {
        if self.known == 0 {
            let root = self.layer.root()?;
            let inode = root.inode().map_err(|error| self.layer.error("look at", b"", error))?;
            let covered = self.overlay.is_opaque(&root);
            let level = &mut self.levels[0];
            (level.own, level.covered, level.inode) = (Own::Directory, covered, Some(inode));
            self.own = Some((0, root));
            self.known = 1;
        }
        while self.known <= depth {
            self.know_next()?;
        }
        Ok((self.levels[depth].own, self.levels[depth].covered))
    }

    /// Looks one level further in the layer at hand.
    fn know_next(&mut self) -> Result<()> {
        let depth = self.known;
        let Level { own, covered, .. } = self.levels[depth - 1];
        let mut next = (own, covered, None);
        if own == Own::Directory {
            let name = std::mem::take(&mut self.levels[depth].name);
            let child = self.own_folder(depth - 1).map(|folder| folder.child(&name));
            self.levels[depth].name = name;
            let fail = |error| self.layer.error("look at", &self.path_to(depth), error);
            next = match child? {
                Ok(child) => {
                    let inode = child.inode().map_err(fail)?;
                    let covered = covered || self.overlay.is_opaque(&child);
                    self.own = Some((depth, child));
                    (Own::Directory, covered, Some(inode))
                }
                Err(Errno::NOENT | Errno::NAMETOOLONG) => (Own::Absent, covered, None),
                Err(Errno::NOTDIR | Errno::LOOP) => (Own::Blocked, true, None),
                Err(error) => return Err(fail(error)),
            };
        }
        let level = &mut self.levels[depth];
        (level.own, level.covered, level.inode) = next;
        level.passed = false;
        self.known += 1;
        Ok(())
    }

    /// The directory of the layer at hand at a depth where it is known to have one.
    fn own_folder(&mut self, depth: usize) -> Result<&Folder> {
        let is_there = self.own.as_ref().is_some_and(|(at, _)| *at == depth);
        if !is_there {
            let folder = self.layer.same_folder(&self.path_to(depth))?;
            let gone = || self.layer.error("open", &self.path_to(depth), Errno::STALE);
            self.own = Some((depth, folder.ok_or_else(gone)?));
        }
        Ok(&self.own.as_ref().expect("it was just opened").1)
    }

    /// Notes that the layer at hand changed at a name, or at all names, in a directory.
    pub(super) fn changed(&mut self, directory: &[u8], name: Option<&[u8]>) {
        let mut length = 0;
        let is_above = components(directory).all(|component| {
            length += 1;
            self.levels.get(length).is_some_and(|level| level.name == component)
        });
        let is_on_way = |name| self.levels.get(length + 1).is_some_and(|level| level.name == name);
        if is_above && name.is_none_or(is_on_way) {
            self.forget_own(length + 1);
        }
    }

    /// Notes that a directory of the layer at hand hides what lies below it from now on.
    pub(super) fn covered(&mut self, directory: &[u8]) {
        match crate::changeset::whiteout::split(directory) {
            (b"", b"") => self.forget_own(0),
            (above, name) => self.changed(above, Some(name)),
        }
    }

    fn forget_own(&mut self, known: usize) {
        self.known = self.known.min(known);
        self.own.take_if(|(at, _)| *at >= known);
    }

    /// Returns the hasher of the paths of trails.
    pub(super) fn hasher(&self) -> &RandomState {
        &self.lower.hasher
    }

    /// Whether the layers below show a directory at the position.
    pub(super) fn is_directory_below(&mut self) -> Result<bool> {
        Ok(!self.merged(self.depth())?.parts.is_empty())
    }

    /// Looks a name up in the layers below, at the position.
    pub(super) fn look_below(&mut self, name: &[u8]) -> Result<Option<Found>> {
        let depth = self.depth();
        let merged = self.merged(depth)?;
        for (n, part) in merged.parts.iter().enumerate() {
            let folder = self.lower_folder(depth, n)?;
            match rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => {
                    let again = folder.again().map_err(|error| self.fail(*part, depth, error))?;
                    let is_gone = self.overlay.is_whiteout(&again, name, &stat);
                    return Ok((!is_gone).then(|| Found::new(again, name, stat)));
                }
                Err(Errno::NOENT | Errno::NAMETOOLONG) => {}
                Err(error) => return Err(self.fail(*part, depth, error)),
            }
        }
        Ok(None)
    }

    /// The topmost of the layers below, and its root.
    pub(super) fn top(&self) -> Result<Option<(&Rc<Rooted>, Folder)>> {
        let Some(top) = self.lower.layers.last() else { return Ok(None) };
        Ok(Some((top, top.root()?)))
    }

    /// The roots of the layers below that show anything.
    pub(super) fn roots_below(&self) -> &[Rc<Rooted>] {
        &self.lower.layers[(self.lower.lowest as usize).min(self.lower.layers.len())..]
    }

    /// Returns the directories of the layers below at a level.
    fn merged(&mut self, depth: usize) -> Result<Rc<Merged>> {
        let known = (0..=depth).rev().find(|level| self.levels[*level].lower.is_some()).unwrap_or(0);
        for level in known + 1..=depth {
            let merged = self.merge_next(level)?;
            self.levels[level].lower = Some(merged);
        }
        Ok(Rc::clone(self.levels[depth].lower.as_ref().expect("it was just merged")))
    }

    /// Looks a level up in the layers that have a part in the level above it. Those that it was looked up in before are
    /// remembered.
    fn merge_next(&mut self, depth: usize) -> Result<Rc<Merged>> {
        let above = Rc::clone(self.levels[depth - 1].lower.as_ref().expect("levels are merged from the root"));
        let hash = self.levels[depth].hash;
        let before = self.lower.dirs.get(&hash).cloned();
        let layers = self.lower.layers.len();
        if let Some(before) = before.as_ref().filter(|before| before.layers == layers) {
            return Ok(Rc::clone(before));
        }
        let (mut parts, mut open, mut end, mut is_cut) = (Vec::new(), Vec::new(), None, false);
        let seen = before.as_ref().map_or(0, |before| before.layers);
        for (n, part) in above.parts.iter().enumerate().take_while(|(_, part)| **part as usize >= seen) {
            let name = std::mem::take(&mut self.levels[depth].name);
            let child = self.lower_folder(depth - 1, n).map(|folder| folder.child(&name));
            self.levels[depth].name = name;
            match child? {
                Ok(child) => {
                    is_cut = self.overlay.is_opaque(&child);
                    parts.push(*part);
                    open.push(Some(child));
                }
                Err(Errno::NOENT | Errno::NAMETOOLONG) => {}
                Err(Errno::NOTDIR | Errno::LOOP) => (end, is_cut) = (Some(*part), true),
                Err(error) => return Err(self.fail(*part, depth, error)),
            }
            if is_cut {
                break;
            }
        }
        if let Some(before) = before.filter(|_| !is_cut) {
            let is_seen = |part: &u32| above.parts.last().is_some_and(|lowest| part >= lowest);
            parts.extend(before.parts.iter().copied().filter(is_seen));
            end = before.end.filter(is_seen);
        }
        open.resize_with(parts.len(), || None);
        self.below = (depth, open);
        let is_shared = parts[..] == above.parts[..];
        let parts = if is_shared { Rc::clone(&above.parts) } else { parts.into() };
        let merged = Rc::new(Merged { layers, parts, end });
        self.lower.remember(hash, &merged, is_shared);
        Ok(merged)
    }

    /// A directory of a lower layer: the one of its n-th part, at a depth that was merged.
    fn lower_folder(&mut self, depth: usize, n: usize) -> Result<&Folder> {
        let parts = &self.levels[depth].lower.as_ref().expect("it was merged").parts;
        let part = parts[n];
        if self.below.0 != depth || self.below.1.len() != parts.len() {
            self.below = (depth, std::iter::repeat_with(|| None).take(parts.len()).collect());
        }
        if self.below.1[n].is_none() {
            let path = self.path_to(depth);
            let layer = &self.lower.layers[part as usize];
            let folder = layer.same_folder(&path)?.ok_or_else(|| layer.error("open", &path, Errno::STALE))?;
            self.below.1[n] = Some(folder);
        }
        Ok(self.below.1[n].as_ref().expect("it was just opened"))
    }

    fn fail(&self, part: u32, depth: usize, error: Errno) -> Error {
        self.lower.layers[part as usize].error("look at", &self.path_to(depth), error)
    }
}

fn components(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/').filter(|name| !name.is_empty())
}

fn read_link(folder: &Folder, name: &[u8]) -> Result<Option<Vec<u8>>, Errno> {
    match rustix::fs::readlinkat(folder, name, Vec::new()) {
        Ok(target) => Ok(Some(target.into_bytes())),
        Err(Errno::INVAL | Errno::NOENT) => Ok(None),
        Err(error) => Err(error),
    }
}
