//! Mending what a check found, without throwing anything away.

use std::collections::HashSet;

use super::Store;
use super::blobs::holds;
use super::blobs::is_whole;
use super::graph::Graph;
use super::index::INDEX;
use super::index::Index;
use super::index::MAX_INDEX;
use super::index::PREVIOUS_INDEX;
use super::ingest::is_in;
use super::layout::BLOBS;
use super::layout::OURS;
use super::layout::QUARANTINE;
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
use crate::error::Limit;
use crate::error::Result;
use crate::media_type::MediaType;

/// What a repair did.
#[non_exhaustive]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Repaired {
    /// What was wrong before.
    pub found: Vec<Problem>,
    /// What was set aside: where it was, and where it is now, both below the store.
    pub quarantined: Vec<(String, String)>,
    /// Blobs that have their right name again.
    pub renamed: Vec<Digest>,
    /// Names that were taken from what was kept of them: as they were before the last change of names.
    pub names: Vec<Name>,
    /// What is still wrong.
    pub remaining: Vec<Problem>,
}

impl Store {
    /// Mends what can be mended on this machine. Nothing is deleted: what is damaged goes to `layercake/quarantine`, and
    /// is for its owner to look at and remove.
    ///
    /// * Blobs whose content is not what their names say are set aside; those with the content of another blob of this
    ///   store get that name.
    /// * What lies among the blobs and is none is set aside. Permissions are taken from others.
    /// * An `index.json` that cannot be read is made anew: with the names as they were before the last change, where
    ///   that is known and what they mean is there; and without names, with all images and indexes in the store that
    ///   nothing else leads to.
    /// * Unpacked layers without record, and records without unpacked layer, are removed: they can be made again.
    ///
    /// What is missing comes from a registry: `Registry::repair` does all this, and fetches.
    ///
    /// # Errors
    ///
    /// Those of [`check_with`](Store::check_with); [`ErrorKind::Locked`],
    /// [`ErrorKind::ReadOnly`], [`ErrorKind::StorageFull`].
    pub fn repair(&self) -> Result<Repaired> {
        self.repair_with(&CheckOptions::new())
    }

    /// The same with these options for the checks before and after.
    ///
    /// # Errors
    ///
    /// Those of [`repair`](Store::repair).
    pub fn repair_with(&self, options: &CheckOptions<'_>) -> Result<Repaired> {
        let store = self.unleased();
        let Checked { problems: found, .. } = store.check_with(options)?;
        let mut repaired = Repaired { found, ..Repaired::default() };
        if !repaired.found.is_empty() {
            let mut mend = || Mending { store: &store, repaired: &mut repaired }.run();
            mend().context(|| "repair the store")?;
            repaired.remaining = store.check_with(options)?.problems;
        }
        Ok(repaired)
    }
}

struct Mending<'a> {
    store: &'a Store,
    repaired: &'a mut Repaired,
}

impl Mending<'_> {
    fn run(mut self) -> Result<()> {
        let mut misnamed = Vec::new();
        let mut is_index_damaged = false;
        for problem in self.repaired.found.clone() {
            match problem {
                Problem::Corrupt { digest, .. } | Problem::WrongSize { digest, .. } => drop(self.set_aside(digest)?),
                Problem::Misnamed { digest, found } => {
                    misnamed.extend(self.set_aside(digest)?.map(|file| (file, found)))
                }
                Problem::Stray { path } => self.stray(&path)?,
                Problem::Writable { path, mode } => self.protect(&path, mode)?,
                Problem::Names { .. } | Problem::Entry { .. } => is_index_damaged = true,
                _ => {}
            }
        }
        for (file, found) in misnamed {
            self.rename(&file, found)?;
        }
        if is_index_damaged {
            self.names()?;
        }
        unpacked::mend(self.store)
    }

    /// Moves a blob aside, if it is still damaged. Returns what it is called there.
    fn set_aside(&mut self, digest: Digest) -> Result<Option<String>> {
        let Some(dir) = self.store.existing_blobs_dir(digest.algorithm())? else { return Ok(None) };
        let (name, quarantine) = (digest.hex().to_string(), self.store.quarantine_dir()?);
        let (file, size) = match dir.file_and_size(&name) {
            Err(error) if error.is_as_good_as_missing() => return Ok(None),
            found => found?,
        };
        // Before the lock is taken: whoever wants to pin waits for it for a minute, and a large blob takes longer to
        // read.
        if is_whole(&file, &Descriptor::new(MediaType::OCTET_STREAM, digest, size)) {
            return Ok(None);
        }
        // Who fetches it at this moment puts the new file there by a rename; nobody relies on the old one meanwhile.
        let _pins = self.store.hold_off_pins()?;
        // As long as it is open, no other file can be taken for it.
        if !is_in(dir, &name, &file)? {
            return Ok(None);
        }
        let aside = format!("{}-{name}.{:08x}", digest.algorithm(), fastrand::u32(..));
        dir.rename(&name, &quarantine, &aside)?;
        if !is_in(&quarantine, &aside, &file)? {
            // Another was put in its place just now.
            quarantine.rename(&aside, dir, &name)?;
            return Ok(None);
        }
        self.store.durability.sync_dir(&quarantine)?;
        self.store.durability.sync_dir(dir)?;
        self.note(&format!("{BLOBS}/{}/{name}", digest.algorithm()), &aside);
        Ok(Some(aside))
    }

    fn note(&mut self, from: &str, aside: &str) {
        self.repaired.quarantined.push((from.to_owned(), format!("{OURS}/{QUARANTINE}/{aside}")));
    }

    /// Gives what was set aside the name that its content makes, unless that is taken.
    fn rename(&mut self, aside: &str, digest: Digest) -> Result<()> {
        let (quarantine, blobs) = (self.store.quarantine_dir()?, self.store.blobs_dir(digest.algorithm())?);
        let name = digest.hex().to_string();
        let size = quarantine.file_and_size(aside)?.1;
        let blob = Descriptor::new(MediaType::OCTET_STREAM, digest, size);
        if blobs.stat(&name)?.is_some() || !holds(&quarantine, aside, &blob) {
            return Ok(());
        }
        quarantine.set_mode(aside, self.store.blob_mode()?)?;
        self.store.durability.sync_file(&quarantine.file(aside)?, &quarantine)?;
        quarantine.rename(aside, &blobs, &name)?;
        self.store.durability.sync_dir(&blobs)?;
        self.repaired.quarantined.retain(|(_, to)| !to.ends_with(aside));
        self.repaired.renamed.push(digest);
        Ok(())
    }

    /// Moves what is no blob aside, whatever it is.
    fn stray(&mut self, path: &str) -> Result<()> {
        let below = path.strip_prefix(&format!("{BLOBS}/")).unwrap_or(path);
        let blobs = self.store.dir().dir(BLOBS)?;
        let (dir, name) = match below.split_once('/') {
            Some((algorithm, name)) => (blobs.dir(algorithm)?, name),
            None => (blobs, below),
        };
        let aside = format!("stray.{:016x}", fastrand::u64(..));
        match dir.rename(name, &self.store.quarantine_dir()?, &aside) {
            Ok(()) => self.note(path, &aside),
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn protect(&self, path: &str, mode: u32) -> Result<()> {
        let is_blob = path.starts_with(&format!("{BLOBS}/"));
        let mode = if is_blob { self.store.blob_mode()? } else { mode & !0o002 };
        let mut dir = self.store.dir().dir(".")?;
        let mut names: Vec<&str> = path.split('/').collect();
        let name = names.pop().unwrap_or(".");
        for above in names {
            dir = dir.dir(above)?;
        }
        dir.set_mode(name, mode)
    }

    /// Makes `index.json` anew of what can be proven.
    fn names(&mut self) -> Result<()> {
        let _names = self.store.lock()?;
        let (current, previous) = (self.current()?, self.previous()?);
        let aside = format!("{INDEX}.{:08x}", fastrand::u32(..));
        let quarantine = self.store.quarantine_dir()?;
        if self.store.dir().link(INDEX, &quarantine, &aside).is_ok() {
            self.store.durability.sync_dir(&quarantine)?;
            self.note(INDEX, &aside);
        }
        // Of an index of which only some entries make no sense, the others do.
        let (mut index, is_previous) = match Index::parse(&current) {
            Ok(index) => (index, false),
            Err(_) => (Index::parse(&previous).unwrap_or_else(|_| Index::empty()), true),
        };
        let is_there = |root: &Descriptor| self.store.size_of(root.digest).is_ok_and(|size| size == Some(root.size));
        index.retain(|entry| entry.descriptor().is_ok_and(|root| !is_previous || is_there(&root)));
        if is_previous {
            self.repaired.names = index.named().map(|(name, _)| name).filter(|name| *name != Name::Unnamed).collect();
        }
        for root in self.unnamed(&index)? {
            index.push_unnamed(&root)?;
        }
        self.store.put_index(&index.to_json())
    }

    /// What `index.json` says; nothing, if it is damaged. That it cannot be read just now is no damage.
    fn current(&self) -> Result<String> {
        match self.store.read_index() {
            Err(error) if matches!(error.kind(), ErrorKind::InvalidDocument { .. }) => Ok(String::new()),
            Err(error) if matches!(error.kind(), ErrorKind::LimitExceeded { .. }) => Ok(String::new()),
            Err(error) if error.is_as_good_as_missing() => Ok(String::new()),
            done => done,
        }
    }

    fn previous(&self) -> Result<String> {
        let content = self.store.ours()?.read(PREVIOUS_INDEX, Limit::LayoutSize, MAX_INDEX).unwrap_or_default();
        Ok(String::from_utf8(content).unwrap_or_default())
    }

    /// The images and indexes in the store that no entry leads to, and no other of them.
    fn unnamed(&self, index: &Index<'_>) -> Result<Vec<Descriptor>> {
        let mut graph = Graph::new(self.store);
        let mut roots = Vec::new();
        for algorithm in Algorithm::ALL {
            let Some(dir) = self.store.existing_blobs_dir(algorithm)? else { continue };
            for name in dir.names()? {
                let Ok(digest) = format!("{algorithm}:{name}").parse::<Digest>() else { continue };
                let Some(size) = self.store.size_of(digest)? else { continue };
                roots.extend(graph.sniff(digest, size)?.map(|node| node.descriptor.clone()));
            }
        }
        let mut led_to: HashSet<Digest> = HashSet::new();
        led_to.extend(index.all().filter_map(|entry| Some(entry.descriptor().ok()?.digest)));
        for root in &roots {
            led_to
                .extend(graph.known(root.digest).into_iter().flat_map(|node| &node.children).map(|child| child.digest));
        }
        roots.retain(|root| !led_to.contains(&root.digest));
        roots.sort_by_key(|root| root.digest);
        Ok(roots)
    }
}
