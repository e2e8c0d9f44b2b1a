//! Records of working copies, which lie elsewhere.

use std::collections::HashSet;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;
use std::time::SystemTime;

use serde::Deserialize;
use serde::Deserializer;

use super::Store;
use super::age;

use crate::descriptor::Descriptor;
use crate::digest::Digest;
use crate::error::Context;
use crate::error::Error;
use crate::error::Limit;
use crate::error::Result;
use crate::fs::dir::Dir;
use crate::fs::dir::modified;

pub(super) const CHECKOUTS: &str = "checkouts";
/// What a working copy has of its record.
const OWN: &str = "checkout.json";
const MAX_RECORD: u64 = 1 << 20;

/// What working copies there are.
#[derive(Debug, Default)]
pub(super) struct Checkouts {
    live: Vec<Record>,
    /// The records of those that are gone.
    pub(super) stale: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Record {
    id: String,
    /// Percent-encoded: paths are bytes.
    #[serde(deserialize_with = "path")]
    dir: PathBuf,
    root: Descriptor,
    manifest: Descriptor,
    owners: String,
    chains: Vec<Digest>,
}

fn path<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
    let text = String::deserialize(deserializer)?;
    Ok(crate::fs::to_path(&crate::fs::path_of_text(&text)))
}

#[derive(Deserialize)]
struct Own {
    id: String,
}

impl Checkouts {
    /// Reads all records. A record is stale only if that can be told, and it is not young.
    pub(super) fn read(store: &Store, grace: Duration, now: SystemTime) -> Result<Checkouts> {
        let mut checkouts = Checkouts::default();
        let Some(dir) = store.existing_kept(CHECKOUTS)? else { return Ok(checkouts) };
        for name in dir.names()? {
            let Some(id) = name.strip_suffix(".json") else { continue };
            let is_ours = id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
            if !is_ours {
                continue;
            }
            let Some(record) = read(&dir, &name, id).context(|| dir.path().join(&name).display().to_string())? else {
                continue;
            };
            let is_old = dir.stat(&name)?.is_some_and(|stat| age(modified(&stat), now) >= Some(grace));
            if is_old && is_gone(&record) {
                checkouts.stale.push(name);
            } else {
                checkouts.live.push(record);
            }
        }
        Ok(checkouts)
    }

    /// What they rely on, each with words for errors: the root, which may be gone, and the manifest, which may not.
    pub(super) fn pins(&self) -> Vec<(String, Descriptor, Descriptor)> {
        let words = |record: &Record| format!("working copy {}", record.dir.display());
        self.live.iter().map(|record| (words(record), record.root.clone(), record.manifest.clone())).collect()
    }

    /// The unpacked layers that they use, by folder and chain.
    pub(super) fn trees(&self) -> HashSet<(String, Digest)> {
        let trees =
            |record: &Record| -> Vec<_> { record.chains.iter().map(|chain| (record.owners.clone(), *chain)).collect() };
        self.live.iter().flat_map(trees).collect()
    }
}

fn read(dir: &Dir, name: &str, id: &str) -> Result<Option<Record>> {
    let content = match dir.read(name, Limit::DocumentSize, MAX_RECORD) {
        Ok(content) => content,
        Err(error) if error.is_not_found() => return Ok(None),
        Err(error) => return Err(error),
    };
    let invalid = |reason: String| Error::invalid_document("record of a working copy", reason);
    let record: Record = serde_json::from_slice(&content).map_err(|error| invalid(error.to_string()))?;
    if record.id != id {
        return Err(invalid(format!("it has the id {:?}", record.id)));
    }
    Ok(Some(record))
}

/// Whether a working copy is gone, and not only out of sight: on a disk that is not mounted, or behind a door that is
/// closed to us.
fn is_gone(record: &Record) -> bool {
    let parent = record.dir.parent().unwrap_or(Path::new("/"));
    if !parent.is_dir() {
        return false;
    }
    let content = Dir::open(&record.dir).and_then(|dir| dir.read(OWN, Limit::DocumentSize, MAX_RECORD));
    match content {
        Ok(content) => serde_json::from_slice::<Own>(&content).is_ok_and(|own| own.id != record.id),
        Err(error) => error.is_not_found(),
    }
}
