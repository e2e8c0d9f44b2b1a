//! Unpacked layers that nobody needs any more.
//!
//! A tree lies beside its record, which says that it is whole. Who is about to use it shares a lock on the record; so
//! the record goes first, under a lock that nobody shares, and then the tree. A tree without a record is not believed.

use std::collections::HashSet;
use std::os::fd::AsFd;
use std::time::Duration;
use std::time::SystemTime;

use rustix::fs::FileType;
use serde::Deserialize;

use super::Store;
use super::checkouts::Checkouts;
use super::garbage::GcOptions;
use super::garbage::UnpackedPolicy;
use super::ingest::is_in;

use crate::descriptor::Descriptor;
use crate::digest::Digest;
use crate::error::Error;
use crate::error::Limit;
use crate::error::Result;
use crate::fs::aside;
use crate::fs::dir::Dir;
use crate::fs::lock::DirLock;
use crate::fs::lock::Locked;
use crate::fs::remove;
use crate::fs::remove::Nothing;
use crate::manifest::Config;

pub(super) const UNPACKED: &str = "unpacked";
/// Lists of what was left out may be long.
const MAX_RECORD: u64 = 256 << 20;

/// What a record says, as far as it matters here.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Record {
    pub(super) chain_id: Digest,
    /// Disk space of the layer alone, as `du` counts it.
    #[serde(default)]
    disk: u64,
}

/// What the folder of one way to give owners has.
#[derive(Debug, Default)]
pub(super) struct Listed {
    pub(super) records: HashSet<Digest>,
    pub(super) trees: HashSet<Digest>,
    /// Staging directories, in use or abandoned.
    hidden: Vec<String>,
}

/// The folders of unpacked layers, by what they are called.
pub(super) fn folders(store: &Store) -> Result<Vec<(String, Dir)>> {
    let Some(unpacked) = store.existing(UNPACKED)? else { return Ok(Vec::new()) };
    let mut names = unpacked.names()?;
    names.sort();
    let mut folders = Vec::new();
    for name in names {
        let stat = unpacked.stat(&name)?;
        if stat.is_some_and(|stat| FileType::from_raw_mode(stat.st_mode).is_dir()) {
            let dir = unpacked.dir(&name)?;
            folders.push((name, dir));
        }
    }
    Ok(folders)
}

/// Whether the tree of a chain is a directory.
pub(super) fn has_tree(dir: &Dir, chain: Digest) -> Result<bool> {
    let stat = dir.stat(&chain.hex().to_string())?;
    Ok(stat.is_some_and(|stat| FileType::from_raw_mode(stat.st_mode).is_dir()))
}

/// Whether somebody may be making a tree in a folder.
pub(super) fn is_being_made(dir: &Dir) -> bool {
    dir.again().and_then(|dir| DirLock::exclusive(dir, Duration::ZERO)).is_err()
}

/// Removes unpacked layers. Returns how many, and how many bytes they had.
pub(super) fn collect(
    store: &Store,
    options: &GcOptions,
    configs: &[Descriptor],
    now: SystemTime,
) -> Result<(u64, u64)> {
    let folders = folders(store)?;
    if folders.is_empty() {
        return Ok((0, 0));
    }
    let named = match options.unpacked {
        UnpackedPolicy::Unnamed => chains(store, configs)?,
        _ => HashSet::new(),
    };
    let mut sum = (0, 0);
    for (owners, dir) in folders {
        let mut collector = Collector { store, options, now, dir: &dir, owners: &owners };
        let (trees, bytes) = collector.run(&named)?;
        sum = (sum.0 + trees, sum.1 + bytes);
    }
    Ok(sum)
}

/// The chains of all these configurations that can be read; those of images that are not here have none.
fn chains(store: &Store, configs: &[Descriptor]) -> Result<HashSet<Digest>> {
    let mut chains = HashSet::new();
    let mut seen = HashSet::new();
    for config in configs.iter().filter(|config| seen.insert(config.digest)) {
        chains.extend(chains_of(store, config)?);
    }
    Ok(chains)
}

/// The chains of one configuration.
pub(super) fn chains_of(store: &Store, config: &Descriptor) -> Result<Vec<Digest>> {
    let content = match store.read(config) {
        Ok(content) => content,
        Err(error) if error.is_as_good_as_missing() => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let found = Config::with_digest(content, config.digest).and_then(|config| config.chain_ids());
    Ok(found.unwrap_or_default())
}

impl Listed {
    pub(super) fn of(dir: &Dir) -> Result<Listed> {
        let mut listed = Listed::default();
        let chain = |hex: &str| format!("sha256:{hex}").parse::<Digest>().ok();
        for name in dir.names()? {
            if let Some(chain) = name.strip_suffix(".json").and_then(chain) {
                listed.records.insert(chain);
            } else if let Some(chain) = chain(&name) {
                listed.trees.insert(chain);
            } else if name.starts_with(aside::HIDDEN) {
                listed.hidden.push(name);
            }
        }
        Ok(listed)
    }
}

/// Reads a record.
pub(super) fn record(dir: &Dir, chain: Digest) -> Result<Record> {
    let content = dir.read(&format!("{}.json", chain.hex()), Limit::DocumentSize, MAX_RECORD)?;
    serde_json::from_slice(&content).map_err(|error| Error::invalid_document("record of an unpacked layer", error))
}

/// Returns the disk space of an unpacked layer, as it was counted when it was made. A record that cannot be read says 0.
pub(super) fn disk_bytes(dir: &Dir, chain: Digest) -> u64 {
    record(dir, chain).map_or(0, |record| record.disk)
}

/// Removes records without their trees, and trees without a record.
pub(super) fn mend(store: &Store) -> Result<()> {
    let options = GcOptions::new();
    for (owners, dir) in folders(store)? {
        let collector = Collector { store, options: &options, now: SystemTime::now(), dir: &dir, owners: &owners };
        let listed = Listed::of(&dir)?;
        for chain in &listed.records {
            let is_its_own = record(&dir, *chain).is_ok_and(|record| record.chain_id == *chain);
            if !is_its_own || !has_tree(&dir, *chain)? {
                collector.recorded(*chain)?;
            }
        }
        for chain in listed.trees.difference(&listed.records) {
            collector.unrecorded(*chain)?;
        }
    }
    Ok(())
}

struct Collector<'a> {
    store: &'a Store,
    options: &'a GcOptions,
    now: SystemTime,
    dir: &'a Dir,
    owners: &'a str,
}

impl Collector<'_> {
    fn run(&mut self, named: &HashSet<Digest>) -> Result<(u64, u64)> {
        let listed = Listed::of(self.dir)?;
        let (mut trees, mut bytes) = (0, 0);
        for chain in listed.records.iter().filter(|chain| !named.contains(chain)) {
            self.options.cancel.check()?;
            if let Some(freed) = self.recorded(*chain)? {
                trees += 1;
                bytes += freed;
            }
        }
        for chain in listed.trees.difference(&listed.records) {
            trees += u64::from(self.unrecorded(*chain)?);
        }
        if !self.options.dry_run {
            for name in listed.hidden {
                // Who else is at it, be it another that collects, has it.
                aside::reclaim_one(self.dir.as_fd(), name.as_bytes());
            }
        }
        Ok((trees, bytes))
    }

    fn is_used(&self, chain: Digest) -> Result<bool> {
        let checkouts = Checkouts::read(self.store, self.options.grace, self.now)?;
        Ok(checkouts.trees().contains(&(self.owners.to_owned(), chain)))
    }

    /// Removes a tree and its record, if nobody uses it. Returns its bytes.
    fn recorded(&self, chain: Digest) -> Result<Option<u64>> {
        let name = format!("{}.json", chain.hex());
        let file = match self.dir.file(&name) {
            Ok(file) => file,
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(error),
        };
        // First: whoever is unpacking there looks at the records that it wrote, and must find none of them taken.
        let Ok(_alone) = self.dir.again().and_then(|dir| DirLock::exclusive(dir, Duration::ZERO)) else {
            return Ok(None);
        };
        let Ok(Some(file)) = Locked::alone(file) else { return Ok(None) };
        if !is_in(self.dir, &name, &file)? {
            return Ok(None);
        }
        // Now nobody can begin to use it; who began before has a record of that by now.
        if self.is_used(chain)? {
            return Ok(None);
        }
        let bytes = disk_bytes(self.dir, chain);
        if !self.options.dry_run {
            self.dir.remove(&name)?;
            // A power cut must not bring the record back over what is left of the tree.
            self.store.durability.sync_dir(self.dir)?;
            self.remove_tree(chain)?;
        }
        Ok(Some(bytes))
    }

    /// Removes a tree without a record, if nobody is making one.
    fn unrecorded(&self, chain: Digest) -> Result<bool> {
        if self.options.dry_run {
            return Ok(true);
        }
        // Who makes trees shares this lock.
        let lock = self.dir.again().and_then(|dir| DirLock::exclusive(dir, Duration::ZERO));
        let has_record = || self.dir.stat(&format!("{}.json", chain.hex())).map(|found| found.is_some());
        if lock.is_err() || has_record()? {
            return Ok(false);
        }
        self.remove_tree(chain)?;
        Ok(true)
    }

    /// Removes a tree, whose record is gone. If the process is killed meanwhile, the next collection removes the rest, as
    /// a tree without a record.
    fn remove_tree(&self, chain: Digest) -> Result<()> {
        let name = chain.hex().to_string();
        remove::remove(self.dir.as_fd(), name.as_bytes(), &mut Nothing)
            .map_err(|error| error.into_error(self.dir.path(), name.as_bytes()))
    }
}
