//! What is kept: all that names, checkouts and leases lead to.

use std::collections::HashMap;
use std::collections::HashSet;
use std::rc::Rc;
use std::time::Duration;
use std::time::SystemTime;

use rustix::fs::Stat;

use super::Store;
use super::checkouts::Checkouts;
use super::graph::Child;
use super::graph::Graph;
use super::graph::Node;
use super::graph::is_document;
use super::index::INDEX;
use super::index::Index;
use super::lease::Leases;
use super::lookups::is_settled;

use crate::descriptor::Descriptor;
use crate::digest::Digest;
use crate::error::Context;
use crate::error::Error;
use crate::error::Result;

/// How often names are read again that change while they are followed.
const MAX_READINGS: usize = 100;

/// What is kept. It only grows: what was marked once stays marked.
#[derive(Debug)]
pub(super) struct Marks {
    graph: Graph,
    kept: HashSet<Digest>,
    followed: HashSet<Digest>,
    /// Content of unknown types that was searched for digests, and whether an index or a name lists it.
    searched: HashSet<(Digest, bool)>,
    /// Documents that speak of others, by what they speak of.
    referrers: HashMap<Digest, Vec<Descriptor>>,
    /// The configurations of images that are kept.
    pub(super) configs: Vec<Descriptor>,
    /// The version of the names that were followed; none if they may have changed since without showing it.
    names: Option<Stat>,
    pub(super) leases: Leases,
    pub(super) checkouts: Checkouts,
}

/// Which version of a file it is.
fn version(stat: &Stat) -> (u64, i64, i64, u64) {
    (stat.st_ino, stat.st_size, stat.st_ctime, stat.st_ctime_nsec)
}

impl Marks {
    pub(super) fn new(store: &Store) -> Marks {
        Marks {
            graph: Graph::new(store),
            kept: HashSet::new(),
            followed: HashSet::new(),
            searched: HashSet::new(),
            referrers: HashMap::new(),
            configs: Vec::new(),
            names: None,
            leases: Leases::default(),
            checkouts: Checkouts::default(),
        }
    }

    pub(super) fn keeps(&self, digest: Digest) -> bool {
        self.kept.contains(&digest)
    }

    /// Marks what one root leads to, as far as it can be read.
    pub(super) fn reach(&mut self, root: &Descriptor) -> Result<()> {
        self.follow_all(if is_document(root) { Child::Typed(root.clone()) } else { Child::Unknown(root.clone()) })
    }

    pub(super) fn into_kept(self) -> HashSet<Digest> {
        self.kept
    }

    /// Marks what all records lead to. Called again, it adds what has come since.
    ///
    /// A record that cannot be read, or a document that is there and damaged, is an error: nobody knows what it leads to.
    pub(super) fn records(&mut self, store: &Store, grace: Duration, expiry: Duration, now: SystemTime) -> Result<()> {
        self.leases = Leases::read(store, expiry, now)?;
        let pinned: Vec<(Digest, u64)> = self.leases.blobs.iter().map(|(digest, size)| (*digest, *size)).collect();
        for (digest, size) in pinned {
            self.pinned(digest, size)?;
        }
        self.checkouts = Checkouts::read(store, grace, now)?;
        for (what, root, manifest) in self.checkouts.pins() {
            self.follow(root)?;
            self.root(manifest).context(|| what)?;
        }
        self.names(store)
    }

    /// Marks what names lead to, if they have changed.
    fn names(&mut self, store: &Store) -> Result<()> {
        for _ in 0..MAX_READINGS {
            let found = store.dir().stat(INDEX)?;
            if found.is_some() && found.as_ref().map(version) == self.names.as_ref().map(version) {
                return Ok(());
            }
            // A file that was changed within this tick of its clock may change again, and look the same.
            let believed = found.filter(is_settled);
            let is_same = || -> Result<bool> {
                Ok(store.dir().stat(INDEX)?.as_ref().map(version) == found.as_ref().map(version))
            };
            match self.named(store) {
                // A name was taken away, and what it led to collected, since it was read: then it is read again.
                Err(error) if error.is_not_found() && !is_same()? => {}
                done => {
                    done?;
                    self.names = believed;
                    return Ok(());
                }
            }
        }
        self.named(store)
    }

    fn named(&mut self, store: &Store) -> Result<()> {
        let text = store.read_index()?;
        for entry in Index::parse(&text)?.all() {
            let descriptor = entry.descriptor()?;
            let name = || format!("image {}", entry.name().unwrap_or("<none>"));
            self.root(descriptor).context(name)?;
        }
        Ok(())
    }

    /// Marks a document that must be there, and all that it leads to: a name whose document is gone may lead to
    /// anything. A document of an unknown type leads to every digest in it.
    fn root(&mut self, descriptor: Descriptor) -> Result<()> {
        if !is_document(&descriptor) {
            return self.follow_all(Child::Unknown(descriptor));
        }
        if self.graph.node(&descriptor)?.is_none() {
            return Err(Error::not_found(format!("document {}", descriptor.digest)));
        }
        self.follow(descriptor)
    }

    /// Marks what a lease pins: with what it leads to, if it is a document.
    fn pinned(&mut self, digest: Digest, size: u64) -> Result<()> {
        if self.followed.contains(&digest) {
            return Ok(());
        }
        match self.graph.sniff(digest, size)? {
            Some(node) => self.follow(node.descriptor.clone()),
            None => {
                // It may come to be there later.
                self.keep(digest);
                Ok(())
            }
        }
    }

    /// Looks at a blob to which nothing led so far: whether it is a document, and speaks of something that is kept.
    pub(super) fn look_at(&mut self, digest: Digest, size: u64) -> Result<Option<Rc<Node>>> {
        let node = self.graph.sniff(digest, size)?;
        if let Some(Node { subject: Some(subject), descriptor, .. }) = node.as_deref() {
            self.referrers.entry(*subject).or_default().push(descriptor.clone());
            if self.keeps(*subject) {
                self.follow(descriptor.clone())?;
            }
        }
        Ok(node)
    }

    /// Marks a blob that is young, with all that it leads to.
    pub(super) fn young(&mut self, digest: Digest, node: Option<&Node>) -> Result<()> {
        match node {
            Some(node) => self.follow(node.descriptor.clone()),
            None => {
                self.keep(digest);
                Ok(())
            }
        }
    }

    fn keep(&mut self, digest: Digest) {
        self.kept.insert(digest);
    }

    fn follow(&mut self, start: Descriptor) -> Result<()> {
        self.follow_all(Child::Typed(start))
    }

    /// Marks a blob, and if it is a document, all that it leads to and all that speak of it. Content that is not there
    /// leads to nothing: an index lists images that were never pulled.
    fn follow_all(&mut self, start: Child) -> Result<()> {
        let mut ahead = vec![start];
        while let Some(child) = ahead.pop() {
            let digest = child.digest();
            if self.kept.insert(digest) {
                ahead.extend(self.referrers.get(&digest).into_iter().flatten().cloned().map(Child::Typed));
            }
            match child {
                Child::Typed(descriptor) => self.typed(&descriptor, &mut ahead)?,
                Child::Unknown(_) => self.search(digest, true, &mut ahead)?,
                Child::Mentioned(_) => self.mentioned(digest, &mut ahead)?,
            }
        }
        Ok(())
    }

    fn typed(&mut self, descriptor: &Descriptor, ahead: &mut Vec<Child>) -> Result<()> {
        if !is_document(descriptor) || !self.followed.insert(descriptor.digest) {
            return Ok(());
        }
        match self.graph.node(descriptor)? {
            Some(node) => {
                self.configs.extend(node.config.clone());
                ahead.extend(node.next());
            }
            None => {
                self.followed.remove(&descriptor.digest);
            }
        }
        Ok(())
    }

    /// Searches content of an unknown type for digests.
    fn search(&mut self, digest: Digest, is_listed: bool, ahead: &mut Vec<Child>) -> Result<()> {
        if self.searched.contains(&(digest, is_listed)) {
            return Ok(());
        }
        if let Some(found) = self.graph.mentions(digest, is_listed)? {
            self.searched.insert((digest, is_listed));
            ahead.extend(found.into_iter().map(Child::Mentioned));
        }
        Ok(())
    }

    /// Finds out what content is of which only the digest is known.
    fn mentioned(&mut self, digest: Digest, ahead: &mut Vec<Child>) -> Result<()> {
        if self.followed.contains(&digest) || self.searched.contains(&(digest, false)) {
            return Ok(());
        }
        let Some(size) = self.graph.size_of(digest)? else { return Ok(()) };
        match self.graph.sniff(digest, size)? {
            Some(node) => ahead.push(Child::Typed(node.descriptor.clone())),
            None => self.search(digest, false, ahead)?,
        }
        Ok(())
    }
}
