//! Looking at everything, and saying what is wrong.

use std::collections::HashMap;
use std::collections::HashSet;
use std::time::SystemTime;

use rustix::fs::FileType;

use super::Store;
use super::checkouts::Checkouts;
use super::garbage::GcOptions;
use super::graph::Graph;
use super::graph::Node;
use super::graph::is_document;
use super::hashing;
use super::index::INDEX;
use super::index::Index;
use super::layout::BLOBS;
use super::layout::OURS;
use super::lease::Leases;
use super::names::Name;
use super::problem::CheckOptions;
use super::problem::Checked;
use super::problem::Problem;
use super::unpacked;

use crate::descriptor::Descriptor;
use crate::digest::Algorithm;
use crate::digest::Digest;
use crate::error::Context;
use crate::error::ErrorKind;
use crate::error::Result;

/// Permissions that nobody but a file's owner should have, and of what is not a blob nobody outside of its group.
const OTHERS: u32 = 0o022;
const STRANGERS: u32 = 0o002;

impl Store {
    /// Reads every blob and compares it with its name, and every name with what it leads to; with the defaults of
    /// [`CheckOptions`].
    ///
    /// ```
    /// use layercake::{testing::Fixture, Store};
    ///
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("store"))?;
    /// # Fixture::demo().tag(&store, &"example.com/greeter:1".parse()?)?;
    /// let checked = store.check()?;
    /// assert!(checked.is_clean(), "{:?}", checked.problems);
    /// # Ok::<(), layercake::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`check_with`](Store::check_with).
    pub fn check(&self) -> Result<Checked> {
        self.check_with(&CheckOptions::new())
    }

    /// The same with these options. Nothing is changed. Others may use the store meanwhile: what they change during the
    /// check may be seen half.
    ///
    /// Of an image, everything must be there. Of an index, one image, or the one that other tools see under the name:
    /// those of other platforms may never have been pulled. Unpacked layers are not compared with their diff ids: only
    /// their records are read, and [`Checked::unverified`] counts them.
    ///
    /// # Errors
    ///
    /// What is wrong with the store is reported, and no error. [`ErrorKind::Io`] where the operating system refuses to
    /// let it be looked at; [`ErrorKind::Cancelled`].
    pub fn check_with(&self, options: &CheckOptions<'_>) -> Result<Checked> {
        let store = self.unleased();
        let check = || Checking::new(&store, options).run();
        check().context(|| "check the store")
    }
}

struct Checking<'a> {
    store: &'a Store,
    options: &'a CheckOptions<'a>,
    graph: Graph,
    checked: Checked,
    /// What the content of each blob is.
    contents: HashMap<Digest, (u64, Digest)>,
    /// The sizes that were promised of blobs, where they are others.
    promised: HashMap<Digest, u64>,
    wanted: HashSet<Digest>,
    missing: HashSet<Digest>,
}

impl<'a> Checking<'a> {
    fn new(store: &'a Store, options: &'a CheckOptions<'a>) -> Checking<'a> {
        Checking {
            store,
            options,
            graph: Graph::new(store),
            checked: Checked::default(),
            contents: HashMap::new(),
            promised: HashMap::new(),
            wanted: HashSet::new(),
            missing: HashSet::new(),
        }
    }

    fn run(mut self) -> Result<Checked> {
        let blobs = self.list()?;
        for (digest, size, found) in hashing::hash(self.store, &blobs, self.options)? {
            self.checked.blobs += 1;
            self.checked.bytes += size;
            self.contents.insert(digest, (size, found));
        }
        self.names()?;
        self.damaged();
        self.records()?;
        self.trees()?;
        self.checked.ignored = self.store.reason_to_ignore()?;
        Ok(self.checked)
    }

    fn report(&mut self, problem: Problem) {
        self.checked.problems.push(problem);
    }

    /// What lies where blobs lie.
    fn list(&mut self) -> Result<Vec<(Digest, u64)>> {
        for path in ["", INDEX, "oci-layout", BLOBS, OURS] {
            let stat = self.store.dir().stat(if path.is_empty() { "." } else { path })?;
            self.permissions(path, stat.map(|stat| stat.st_mode), STRANGERS);
        }
        let blobs_dir = self.store.dir().dir(BLOBS)?;
        for name in blobs_dir.names()? {
            let is_dir = blobs_dir.stat(&name)?.is_some_and(|s| FileType::from_raw_mode(s.st_mode).is_dir());
            if !is_dir {
                self.report(Problem::Stray { path: format!("{BLOBS}/{name}") });
            }
        }
        let mut blobs = Vec::new();
        for algorithm in Algorithm::ALL {
            let Some(dir) = self.store.existing_blobs_dir(algorithm)? else { continue };
            for name in dir.names()? {
                let path = format!("{BLOBS}/{algorithm}/{name}");
                let Some(stat) = dir.stat(&name)? else { continue };
                match format!("{algorithm}:{name}").parse::<Digest>() {
                    Ok(digest) if FileType::from_raw_mode(stat.st_mode).is_file() => {
                        self.permissions(&path, Some(stat.st_mode), OTHERS);
                        blobs.push((digest, u64::try_from(stat.st_size).unwrap_or(0)));
                    }
                    _ => self.report(Problem::Stray { path }),
                }
            }
        }
        blobs.sort();
        Ok(blobs)
    }

    fn permissions(&mut self, path: &str, mode: Option<u32>, too_many: u32) {
        let Some(mode) = mode.map(|mode| mode & 0o7777) else { return };
        if mode & too_many != 0 {
            let path = if path.is_empty() { "." } else { path }.to_owned();
            self.report(Problem::Writable { path, mode });
        }
    }

    fn names(&mut self) -> Result<()> {
        let text = match self.store.read_index() {
            Ok(text) => text,
            Err(error) if matches!(error.kind(), ErrorKind::Io { .. }) && !error.is_as_good_as_missing() => {
                return Err(error);
            }
            Err(error) => {
                self.report(Problem::Names { reason: error.to_string() });
                return Ok(());
            }
        };
        let index = match Index::parse(&text) {
            Ok(index) => index,
            Err(error) => {
                self.report(Problem::Names { reason: error.to_string() });
                return Ok(());
            }
        };
        let viewed: HashSet<&str> =
            index.all().filter(|entry| entry.is_view()).filter_map(|entry| entry.name()).collect();
        for entry in index.all() {
            let name = entry.name().map_or(Name::Unnamed, Name::from_text);
            match entry.descriptor() {
                Ok(root) => {
                    let is_seen = !entry.is_view() && entry.name().is_some_and(|name| viewed.contains(name));
                    self.root(&name, &root, is_seen)?;
                }
                Err(error) => self.report(Problem::Entry { reason: error.to_string() }),
            }
        }
        Ok(())
    }

    /// What a name leads to. With a view of it, that is what must be whole.
    fn root(&mut self, name: &Name, root: &Descriptor, has_view: bool) -> Result<()> {
        self.promise(root);
        if !self.contents.contains_key(&root.digest) {
            self.report(Problem::Dangling { name: name.clone(), digest: root.digest });
            return Ok(());
        }
        if !is_document(root) {
            return Ok(());
        }
        let Some(node) = self.document(root)? else { return Ok(()) };
        if !root.media_type.is_index() {
            self.whole(name, &node);
        } else if let Some(needed) = self.index(node)?
            && !has_view
        {
            self.whole(name, &needed);
        }
        Ok(())
    }

    /// A document that is there and intact.
    fn document(&mut self, descriptor: &Descriptor) -> Result<Option<std::rc::Rc<Node>>> {
        let is_intact = self.contents.get(&descriptor.digest).is_some_and(|(_, found)| *found == descriptor.digest);
        if !is_intact || self.promised.contains_key(&descriptor.digest) {
            return Ok(None);
        }
        match self.graph.node(descriptor) {
            Ok(node) => Ok(node),
            Err(error) if matches!(error.kind(), ErrorKind::Io { .. }) => Err(error),
            Err(error) => {
                let invalid = Problem::Invalid { digest: descriptor.digest, reason: error.into_kind().to_string() };
                if !self.checked.problems.contains(&invalid) {
                    self.report(invalid);
                }
                Ok(None)
            }
        }
    }

    /// All of an image must be there, but what may not be given to everyone.
    fn whole(&mut self, name: &Name, manifest: &Node) {
        for blob in manifest.children.iter().filter(|blob| !blob.media_type.is_nondistributable()) {
            self.promise(blob);
            if !self.contents.contains_key(&blob.digest) && self.missing.insert(blob.digest) {
                self.report(Problem::Missing { digest: blob.digest, name: name.clone() });
            }
        }
    }

    /// Looks through an index. If none of its images is whole, the first that is there at all.
    fn index(&mut self, index: std::rc::Rc<Node>) -> Result<Option<std::rc::Rc<Node>>> {
        let mut ahead = vec![index];
        let mut seen = HashSet::new();
        let mut first = None;
        let mut has_whole = false;
        while let Some(index) = ahead.pop() {
            for child in &index.children {
                self.promise(child);
                if !is_document(child) || !seen.insert(child.digest) {
                    continue;
                }
                let Some(node) = self.document(child)? else { continue };
                if child.media_type.is_index() {
                    ahead.push(node);
                    continue;
                }
                node.children.iter().for_each(|blob| self.promise(blob));
                let is_whole = node.children.iter().all(|blob| self.contents.contains_key(&blob.digest));
                has_whole |= is_whole;
                if first.is_none() && !child.is_attestation() {
                    first = Some(node);
                }
            }
        }
        Ok(first.filter(|_| !has_whole))
    }

    fn promise(&mut self, blob: &Descriptor) {
        self.wanted.insert(blob.digest);
        if self.contents.get(&blob.digest).is_some_and(|(size, _)| *size != blob.size) {
            self.promised.insert(blob.digest, blob.size);
        }
    }

    fn damaged(&mut self) {
        let mut digests: Vec<Digest> = self.contents.keys().copied().collect();
        digests.sort();
        for digest in digests {
            let (size, found) = self.contents[&digest];
            if let Some(expected) = self.promised.get(&digest) {
                self.report(Problem::WrongSize { digest, expected: *expected, found: size });
            } else if found != digest && (self.contents.contains_key(&found) || self.wanted.contains(&found)) {
                self.report(Problem::Misnamed { digest, found });
            } else if found != digest {
                self.report(Problem::Corrupt { digest, found });
            }
        }
    }

    fn records(&mut self) -> Result<()> {
        let (defaults, now) = (GcOptions::new(), SystemTime::now());
        let leases = Leases::read(self.store, defaults.expiry, now).map(drop);
        let checkouts = Checkouts::read(self.store, defaults.grace, now).map(drop);
        for error in [leases, checkouts].into_iter().filter_map(Result::err) {
            self.report(Problem::Record { reason: error.to_string() });
        }
        Ok(())
    }

    fn trees(&mut self) -> Result<()> {
        for (owners, dir) in unpacked::folders(self.store)? {
            let listed = unpacked::Listed::of(&dir)?;
            let path = |chain: &Digest| format!("{OURS}/{}/{owners}/{}", unpacked::UNPACKED, chain.hex());
            let mut recorded: Vec<&Digest> = listed.records.iter().collect();
            recorded.sort();
            for chain in recorded {
                let is_its_own = unpacked::record(&dir, *chain).is_ok_and(|record| record.chain_id == *chain);
                let has_tree = listed.trees.contains(chain) && unpacked::has_tree(&dir, *chain)?;
                if is_its_own && has_tree {
                    self.checked.unverified += 1;
                } else {
                    self.report(Problem::TreeMissing { path: path(chain) });
                }
            }
            for chain in listed.trees.difference(&listed.records) {
                if !unpacked::is_being_made(&dir) {
                    self.report(Problem::TreeUnrecorded { path: path(chain) });
                }
            }
        }
        Ok(())
    }
}
