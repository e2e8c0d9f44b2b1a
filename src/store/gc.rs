//! Deleting what nobody needs: mark and sweep.
//!
//! First all that records lead to is marked, while others go on. Then what is not marked is deleted in short turns. Each
//! turn keeps names and pins from being changed, and marks first what has come since; it deletes what leads to others
//! before what they lead to, so that nobody who finds an image whole between two turns is left with a half.

use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;
use std::time::Instant;
use std::time::SystemTime;

use super::Store;
use super::age;
use super::garbage::Collected;
use super::garbage::GcOptions;
use super::garbage::Removed;
use super::garbage::UnpackedPolicy;
use super::graph::Node;
use super::ingest::is_in;
use super::ingest::partial_of;
use super::lease::Leases;
use super::mark::Marks;
use super::names::Name;
use super::tags::PreviousValue;
use super::unpacked;

use crate::digest::Algorithm;
use crate::digest::Digest;
use crate::error::Context;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::fs::dir::is_file_of;
use crate::fs::dir::modified;
use crate::fs::lock::Locked;

/// How long a turn of deleting keeps others waiting, about, and how many blobs it deletes at most.
const TURN: Duration = Duration::from_millis(100);
const BATCH: usize = 1000;

impl Store {
    /// Deletes what nothing leads to: no name, no lease, no working copy, and not its youth; with the defaults of
    /// [`GcOptions`].
    ///
    /// ```
    /// use layercake::{testing::Fixture, ImageReference, Store};
    ///
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("store"))?;
    /// let name: ImageReference = "example.com/greeter:1".parse()?;
    /// Fixture::demo().tag(&store, &name)?;
    /// store.untag(&name)?;
    /// let collected = store.gc()?;
    /// assert_eq!((collected.blobs.len(), collected.young), (0, 9), "they came a moment ago");
    /// # Ok::<(), layercake::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`gc_with`](Store::gc_with).
    pub fn gc(&self) -> Result<Collected> {
        self.gc_with(&GcOptions::new())
    }

    /// The same with these options. Others may use the store meanwhile; writers wait for a tenth of a second now and
    /// then, readers never.
    ///
    /// What is kept: all that an entry of `index.json` leads to, and of an index all images that are there; all that
    /// speak of what is kept (signatures, and other referrers), wherever they came from, while an artifact does not
    /// keep what it speaks of; what leases pin; what working copies need. Files that this crate does not know are left
    /// alone.
    ///
    /// # Errors
    ///
    /// * [`ErrorKind::NotFound`], [`ErrorKind::DigestMismatch`],
    ///   [`ErrorKind::SizeMismatch`],
    ///   [`ErrorKind::InvalidDocument`]: a document that a name or a working copy
    ///   leads to, `index.json`, or a record cannot be read. Nobody knows what it leads to, so nothing is deleted.
    ///   [Repair](Store::repair) it, or take the name away.
    /// * [`ErrorKind::Locked`], [`ErrorKind::ReadOnly`],
    ///   [`ErrorKind::Io`], [`ErrorKind::Cancelled`].
    pub fn gc_with(&self, options: &GcOptions) -> Result<Collected> {
        let collect = || {
            if !options.dry_run {
                // Where the private state cannot be used, nothing is known of leases and working copies.
                self.ours()?;
            }
            let mut gc = Gc::new(self, options);
            gc.blobs()?;
            gc.partials()?;
            gc.records()?;
            if options.unpacked != UnpackedPolicy::Keep && options.only.is_none() {
                let (trees, bytes) = unpacked::collect(&gc.store, options, &gc.marks.configs, gc.now)?;
                gc.collected.unpacked += trees;
                gc.collected.bytes += bytes;
            }
            let mut collected = gc.collected;
            if let Some(bytes) = options.room {
                self.make_room(bytes, options, &mut collected)?;
            }
            Ok(collected)
        };
        collect().context(|| "collect garbage")
    }
}

impl Store {
    /// Takes a name away, and deletes what only it led to, however young that is. What was garbage before stays for
    /// [`gc`](Store::gc).
    ///
    /// # Errors
    ///
    /// Those of [`untag`](Store::untag). If what is left cannot be collected, the name is gone all the same, and the
    /// error is of [`gc_with`](Store::gc_with).
    pub fn remove(&self, name: impl Into<Name>) -> Result<Removed> {
        let name = name.into();
        let remove = || {
            let mut starts = self.views(&name)?;
            let root = self.untag(&name)?;
            starts.push(root.clone());
            let mut marks = Marks::new(&self.unleased());
            starts.iter().try_for_each(|start| marks.reach(start))?;
            let only = marks.into_kept();
            let options = GcOptions { only: Some(only), ..GcOptions::new().grace(Duration::ZERO) };
            Ok(Removed { name: name.clone(), root, collected: self.gc_with(&options)? })
        };
        remove().context(|| format!("remove {name}"))
    }

    /// Takes names away until there is room.
    fn make_room(&self, bytes: u64, options: &GcOptions, collected: &mut Collected) -> Result<()> {
        let before = self.room()?.available.saturating_add(if options.dry_run { collected.bytes } else { 0 });
        if before >= bytes {
            return Ok(());
        }
        let usage = self.usage()?;
        let chosen = self.least_recently_used(&usage, bytes - before)?;
        collected.untagged = chosen.iter().flat_map(|place| usage.images[*place].names.clone()).collect();
        if options.dry_run {
            collected.bytes += usage.freed_by(&chosen);
            return Ok(());
        }
        let mut marks = Marks::new(&self.unleased());
        for place in chosen {
            let image = &usage.images[place];
            for name in &image.names {
                self.views(name)?.iter().try_for_each(|view| marks.reach(view))?;
                match self.untag_if(name, PreviousValue::Is(image.root.digest)) {
                    // Somebody gave it to another image just now.
                    Err(error) if is_moved(&error) => continue,
                    done => done?,
                };
            }
            marks.reach(&image.root)?;
        }
        let only = Some(marks.into_kept());
        let after = self.gc_with(&GcOptions { only, room: None, grace: Duration::ZERO, ..options.clone() })?;
        // Unpacked layers of images that just lost their names.
        let rest = self.gc_with(&GcOptions { room: None, ..options.clone() })?;
        collected.blobs.extend(after.blobs.into_iter().chain(rest.blobs));
        collected.unpacked += rest.unpacked;
        collected.bytes += after.bytes + rest.bytes;
        Ok(())
    }

    /// The same store without a lease: who collects pins nothing.
    pub(super) fn unleased(&self) -> Store {
        Store { lease: None, ..self.clone() }
    }
}

struct Gc<'a> {
    store: Store,
    options: &'a GcOptions,
    now: SystemTime,
    marks: Marks,
    collected: Collected,
}

/// A blob that nothing led to when it was looked at.
struct Candidate {
    digest: Digest,
    size: u64,
    is_young: bool,
    node: Option<Rc<Node>>,
}

impl<'a> Gc<'a> {
    fn new(store: &Store, options: &'a GcOptions) -> Gc<'a> {
        let store = store.unleased();
        let marks = Marks::new(&store);
        Gc { store, options, now: SystemTime::now(), marks, collected: Collected::default() }
    }

    fn mark(&mut self) -> Result<()> {
        // A removal deletes what one image led to. Whether a working copy is gone, a collection decides.
        let grace = if self.options.only.is_some() { Duration::MAX } else { self.options.grace };
        self.marks.records(&self.store, grace, self.options.expiry, self.now)
    }

    fn blobs(&mut self) -> Result<()> {
        self.mark()?;
        let mut candidates = self.candidates()?.into_iter().peekable();
        while candidates.peek().is_some() {
            self.options.cancel.check()?;
            if self.options.dry_run {
                candidates.by_ref().try_for_each(|candidate| self.delete(&candidate))?;
                break;
            }
            // Names before pins, as everywhere.
            let _names = self.store.lock()?;
            let _pins = self.store.hold_off_pins()?;
            self.mark()?;
            let start = Instant::now();
            for candidate in candidates.by_ref().take(BATCH) {
                self.delete(&candidate)?;
                if start.elapsed() > TURN {
                    break;
                }
            }
        }
        Ok(())
    }

    /// The blobs that nothing leads to, those first that lead to others.
    fn candidates(&mut self) -> Result<Vec<Candidate>> {
        let mut candidates = Vec::new();
        for algorithm in Algorithm::ALL {
            let Some(dir) = self.store.existing_blobs_dir(algorithm)? else { continue };
            let names = dir.names()?;
            for name in names {
                let Ok(digest) = format!("{algorithm}:{name}").parse::<Digest>() else { continue };
                let left_out = self.options.only.as_ref().is_some_and(|only| !only.contains(&digest));
                if left_out || self.marks.keeps(digest) {
                    continue;
                }
                let Some((size, is_young)) = self.stat(digest)? else { continue };
                let node = self.marks.look_at(digest, size)?;
                candidates.push(Candidate { digest, size, is_young, node });
            }
        }
        candidates.retain(|candidate| !self.marks.keeps(candidate.digest));
        let count = candidates.len();
        for candidate in candidates.iter().filter(|candidate| candidate.is_young) {
            self.marks.young(candidate.digest, candidate.node.as_deref())?;
        }
        candidates.retain(|candidate| !self.marks.keeps(candidate.digest));
        self.collected.young = (count - candidates.len()) as u64;
        Ok(parents_first(candidates))
    }

    /// The size of a blob that is a regular file, and whether it is young.
    fn stat(&self, digest: Digest) -> Result<Option<(u64, bool)>> {
        let Some(dir) = self.store.existing_blobs_dir(digest.algorithm())? else { return Ok(None) };
        let Some(stat) = dir.stat(&digest.hex().to_string())? else { return Ok(None) };
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        if !is_file_of(&stat, size) {
            return Ok(None);
        }
        let is_young = age(modified(&stat), self.now) < Some(self.options.grace);
        Ok(Some((size, is_young)))
    }

    /// Deletes a blob, unless something leads to it by now, or it was made young.
    fn delete(&mut self, candidate: &Candidate) -> Result<()> {
        let digest = candidate.digest;
        if self.marks.keeps(digest) {
            return Ok(());
        }
        match self.stat(digest)? {
            None => return Ok(()),
            Some((_, true)) => {
                self.collected.young += 1;
                return self.marks.young(digest, candidate.node.as_deref());
            }
            Some((_, false)) => {}
        }
        if !self.options.dry_run
            && let Some(dir) = self.store.existing_blobs_dir(digest.algorithm())?
        {
            dir.remove(&digest.hex().to_string())?;
        }
        self.collected.bytes += candidate.size;
        self.collected.blobs.push(digest);
        Ok(())
    }

    /// Unfinished blobs that nobody has in hand, and that were left long ago.
    fn partials(&mut self) -> Result<()> {
        let Some(dir) = self.store.existing_partial_dir()? else { return Ok(()) };
        for name in dir.names()? {
            let Some(digest) = partial_of(&name) else { continue };
            let is_pinned = digest.is_some_and(|digest| self.marks.leases.blobs.contains_key(&digest));
            if is_pinned || self.options.only.is_some() || self.marks.leases.partials.contains(&name) {
                continue;
            }
            let Some(stat) = dir.stat(&name)? else { continue };
            let size = u64::try_from(stat.st_size).unwrap_or(0);
            if !is_file_of(&stat, size) || age(modified(&stat), self.now) < Some(self.options.expiry) {
                continue;
            }
            let Ok(Ok(Some(file))) = dir.file(&name).map(Locked::alone) else { continue };
            if !is_in(&dir, &name, &file)? {
                continue;
            }
            if !self.options.dry_run {
                dir.remove(&name)?;
            }
            self.collected.partials += 1;
            self.collected.bytes += size;
        }
        Ok(())
    }

    /// Records of what is gone.
    fn records(&mut self) -> Result<()> {
        if self.options.only.is_some() {
            return Ok(());
        }
        for name in &self.marks.leases.expired {
            let is_gone = self.options.dry_run || Leases::remove(&self.store, name)?;
            self.collected.leases += u64::from(is_gone);
        }
        let stale = &self.marks.checkouts.stale;
        self.collected.checkouts = stale.len() as u64;
        if !self.options.dry_run
            && let Some(dir) = self.store.existing_kept(super::checkouts::CHECKOUTS)?
        {
            stale.iter().try_for_each(|id| super::checkouts::remove(&dir, id))?;
            super::checkouts::remove_lone_links(&dir, self.options.grace, self.now)?;
        }
        Ok(())
    }
}

fn is_moved(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::NameMoved { .. }) || error.is_not_found()
}

/// Puts what leads to others before what it leads to.
fn parents_first(candidates: Vec<Candidate>) -> Vec<Candidate> {
    let places: HashMap<Digest, usize> = candidates.iter().enumerate().map(|(n, c)| (c.digest, n)).collect();
    let mut seen = vec![false; candidates.len()];
    let mut children_first = Vec::with_capacity(candidates.len());
    for start in 0..candidates.len() {
        // Each place on the way, and how many of its children were looked at.
        let mut way = vec![(start, 0)];
        while let Some((place, child)) = way.last_mut() {
            if *child == 0 && std::mem::replace(&mut seen[*place], true) {
                way.pop();
                continue;
            }
            let node = candidates[*place].node.as_deref();
            match node.and_then(|node| node.children.get(*child)) {
                Some(descriptor) => {
                    *child += 1;
                    way.extend(places.get(&descriptor.digest).map(|place| (*place, 0)));
                }
                None => {
                    children_first.push(*place);
                    way.pop();
                }
            }
        }
    }
    let mut slots: Vec<Option<Candidate>> = candidates.into_iter().map(Some).collect();
    children_first.into_iter().rev().filter_map(|place| slots[place].take()).collect()
}
