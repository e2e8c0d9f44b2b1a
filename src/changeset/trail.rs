//! Walks to the directories of entries, and remembers where a path with symbolic links led, until one of its steps changes.
//! Used by `ground`.

use std::collections::HashSet;
use std::hash::BuildHasher;
use std::hash::RandomState;
use std::os::fd::AsFd;

use crate::changeset::budget::Budget;
use crate::changeset::ground::Ground;
use crate::error::Result;
use crate::fs::remove;
use crate::fs::rooted::Folder;
use crate::fs::rooted::Turn;
use crate::fs::rooted::Walker;

/// The steps of a walk: the names that were looked up, as hashes of their paths, and the directories that they are in.
#[derive(Debug, Default)]
pub(super) struct Trail {
    names: HashSet<u64>,
    directories: HashSet<u64>,
    /// Whether a symbolic link was followed.
    pub(super) has_links: bool,
}

/// A path with symbolic links, and the path without links that it led to.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) path: Vec<u8>,
    pub(super) real: Vec<u8>,
    /// Whether all of its steps are there in the layer at hand; else some are in the layers below, or missing.
    pub(super) is_whole: bool,
    trail: Trail,
}

impl Trail {
    pub(super) fn add(&mut self, directory: u64, name: u64) {
        self.directories.insert(directory);
        self.names.insert(name);
    }
}

impl Route {
    pub(super) fn new(path: &[u8], real: &[u8], is_whole: bool, trail: Trail) -> Route {
        Route { path: path.to_vec(), real: real.to_vec(), is_whole, trail }
    }

    /// Whether the route depends on a name in a directory, or on the directory if there is no name.
    pub(super) fn depends_on(&self, directory: u64, name: Option<u64>) -> bool {
        match name {
            Some(name) => self.trail.names.contains(&name),
            None => self.trail.directories.contains(&directory),
        }
    }
}

impl Ground {
    /// The directory that a path with symbolic links led to before, if that is still so.
    pub(super) fn known_route(&mut self, path: &[u8]) -> Result<Option<Folder>> {
        match self.route.as_ref().filter(|route| route.is_whole && route.path == path) {
            Some(route) => self.rooted.same_folder(&route.real),
            None => Ok(None),
        }
    }

    pub(super) fn note_route(&mut self, path: &[u8], folder: &Folder, trail: Trail) {
        if trail.has_links {
            self.route = Some(Route::new(path, folder.path(), true, trail));
        }
    }

    /// Notes that this layer changes at a name, or at all names, in a directory.
    pub(super) fn changed(&mut self, directory: &[u8], name: Option<&[u8]>) {
        if let Some(course) = &mut self.course {
            course.changed(directory, name);
        }
        if let Some(route) = &self.route {
            let names = directory.split(|byte| *byte == b'/').filter(|name| !name.is_empty());
            let above = names.fold(0, |above, name| self.hasher.hash_one((above, name)));
            if route.depends_on(above, name.map(|name| self.hasher.hash_one((above, name)))) {
                self.route = None;
            }
        }
    }

    /// Notes that a directory hides what lies below it from now on.
    pub(super) fn covered(&mut self, directory: &[u8]) {
        if let Some(course) = &mut self.course {
            course.covered(directory);
        }
        self.route = None;
    }
}

/// The steps of a walk, for its route.
#[derive(Default)]
struct Way {
    trail: Trail,
    /// The hashes of the directories from the root to the one at hand.
    hashes: Vec<u64>,
}

impl Way {
    fn step(&mut self, hasher: &RandomState, name: &[u8]) -> u64 {
        let above = self.hashes.last().copied().unwrap_or(0);
        let hash = hasher.hash_one((above, name));
        self.trail.add(above, hash);
        hash
    }

    fn enter(&mut self, hasher: &RandomState, name: &[u8]) {
        let hash = self.step(hasher, name);
        self.hashes.push(hash);
    }

    fn follow(&mut self, hasher: &RandomState, name: &[u8], target: &[u8], budget: &mut Budget) -> Result<()> {
        self.step(hasher, name);
        self.trail.has_links = true;
        if target.starts_with(b"/") {
            self.hashes.clear();
        }
        budget.follow_link(target.split(|byte| *byte == b'/').filter(|name| !matches!(*name, b"" | b".")).count())
    }

    fn leave(&mut self) {
        self.hashes.pop();
    }
}

/// Makes what is missing on the way to something that is added.
pub(super) struct Maker<'a> {
    ground: &'a mut Ground,
    way: Way,
}

impl<'a> Maker<'a> {
    pub(super) fn new(ground: &'a mut Ground) -> Maker<'a> {
        Maker { ground, way: Way::default() }
    }

    pub(super) fn into_trail(self) -> Trail {
        self.way.trail
    }
}

impl Walker for Maker<'_> {
    fn missing(&mut self, folder: &Folder, name: &[u8]) -> Result<Turn> {
        if let Some(turn) = self.ground.turn_below(folder, name)? {
            return Ok(turn);
        }
        self.ground.make_implied(folder, name)?;
        Ok(Turn::Again)
    }

    fn blocked(&mut self, folder: &Folder, name: &[u8]) -> Result<Turn> {
        self.ground.make_implied(folder, name)?;
        let parent = self.ground.enter_again(folder)?;
        self.ground.cover(&parent, name)?;
        Ok(Turn::Again)
    }

    fn locked(&mut self, folder: &Folder) -> Result<bool> {
        unlock(self.ground, folder)
    }

    fn entered(&mut self, folder: &Folder, name: &[u8]) -> Result<()> {
        self.way.enter(&self.ground.hasher, name);
        self.ground.check_entered(folder, name)
    }

    fn followed(&mut self, _: &Folder, name: &[u8], target: &[u8]) -> Result<()> {
        self.way.follow(&self.ground.hasher, name, target, &mut self.ground.budget)
    }

    fn turned_back(&mut self) {
        self.way.leave();
        self.ground.left_behind();
    }
}

/// Goes only where there is a way, but opens what locks its owner out.
pub(super) struct Seeker<'a> {
    ground: &'a mut Ground,
    way: Way,
}

impl<'a> Seeker<'a> {
    pub(super) fn new(ground: &'a mut Ground) -> Seeker<'a> {
        Seeker { ground, way: Way::default() }
    }

    pub(super) fn into_trail(self) -> Trail {
        self.way.trail
    }
}

impl Walker for Seeker<'_> {
    fn missing(&mut self, _: &Folder, _: &[u8]) -> Result<Turn> {
        Ok(Turn::End)
    }

    fn blocked(&mut self, _: &Folder, _: &[u8]) -> Result<Turn> {
        Ok(Turn::End)
    }

    fn locked(&mut self, folder: &Folder) -> Result<bool> {
        unlock(self.ground, folder)
    }

    fn entered(&mut self, folder: &Folder, name: &[u8]) -> Result<()> {
        self.way.enter(&self.ground.hasher, name);
        self.ground.check_entered(folder, name)
    }

    fn followed(&mut self, _: &Folder, name: &[u8], target: &[u8]) -> Result<()> {
        self.way.follow(&self.ground.hasher, name, target, &mut self.ground.budget)
    }

    fn turned_back(&mut self) {
        self.way.leave();
    }
}

/// Opens a directory to its owner until the layer ends.
fn unlock(ground: &mut Ground, folder: &Folder) -> Result<bool> {
    let parent = ground.enter_again(folder)?;
    ground.touch(&parent)?;
    Ok(remove::unlock(folder.as_fd()).is_ok())
}
