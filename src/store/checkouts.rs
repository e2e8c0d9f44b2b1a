//! Records of working copies, which lie outside of the store.
//!
//! A record is removed when its working copy is discarded or forgotten, or with proof that it was deleted. A directory
//! that is missing from its path is no proof: it may have been moved, or lie in another mount namespace. The proof is a hard
//! link: where working copy and store are on one file system, the working copy's state file has a second name in the
//! store. While the working copy exists anywhere, the file has two names.

use std::collections::HashSet;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;
use std::time::SystemTime;

use rustix::fs::AtFlags;
use rustix::fs::StatxFlags;
use serde::Deserialize;
use serde::Deserializer;
use serde::Serialize;
use serde_json::json;

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
use crate::fs::path_to_text;

pub(super) const CHECKOUTS: &str = "checkouts";
const MAX_RECORD: u64 = 1 << 20;

/// A working copy, as the store of its image knows it. Listed by [`Store::checkouts`].
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckoutRecord {
    /// The id of the working copy: 32 hexadecimal digits.
    pub id: String,
    /// The directory of the working copy when it was opened last. It may have been moved since.
    pub path: PathBuf,
    /// The image or index that was checked out.
    pub root: Descriptor,
    /// Whether there is proof that the working copy was deleted. [`Store::gc`] removes such records.
    pub is_gone: bool,
}

/// A working copy that is told to the store of its image.
pub(crate) struct NewCheckout<'a> {
    pub(crate) id: &'a str,
    pub(crate) path: &'a Path,
    pub(crate) root: &'a Descriptor,
    pub(crate) manifest: &'a Descriptor,
    /// The folder of the unpacked layers.
    pub(crate) owners: &'a str,
    pub(crate) chains: &'a [Digest],
}

/// Tells a file from all others, also after a restart, after which devices may have other numbers. A copy is another file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct StateFile {
    inode: u64,
    /// When it was made, in seconds and nanoseconds.
    born: (i64, u32),
}

impl StateFile {
    /// The file of this name, and how many names it has; none if the file system does not say when files were made.
    fn of(dir: &Dir, name: &str) -> Option<(StateFile, u32)> {
        let flags = StatxFlags::INO | StatxFlags::NLINK | StatxFlags::BTIME;
        let stat = rustix::fs::statx(dir, name, AtFlags::SYMLINK_NOFOLLOW, flags).ok()?;
        let known = StatxFlags::from_bits_retain(stat.stx_mask).contains(flags);
        let born = (stat.stx_btime.tv_sec, stat.stx_btime.tv_nsec);
        known.then_some((StateFile { inode: stat.stx_ino, born }, stat.stx_nlink))
    }
}

/// The working copies of a store.
#[derive(Debug, Default)]
pub(super) struct Checkouts {
    live: Vec<Record>,
    /// The ids of those that are gone.
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
    /// The state file, if it has a second name in the store.
    state: Option<StateFile>,
}

fn path<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
    let text = String::deserialize(deserializer)?;
    Ok(crate::fs::to_path(&crate::fs::path_of_text(&text)))
}

impl Checkouts {
    /// Reads all records. A record is stale only with proof, and if it is at least this old.
    pub(super) fn read(store: &Store, grace: Duration, now: SystemTime) -> Result<Checkouts> {
        let mut checkouts = Checkouts::default();
        let Some(dir) = store.existing_kept(CHECKOUTS)? else { return Ok(checkouts) };
        for record in records(&dir)? {
            let stat = dir.stat(&name_of(&record.id))?;
            let is_old = stat.is_some_and(|stat| age(modified(&stat), now) >= Some(grace));
            if is_old && is_gone(&dir, &record) {
                checkouts.stale.push(record.id);
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

impl Store {
    /// Returns the working copies that need images of this store, by their paths.
    ///
    /// Each keeps the blobs and the unpacked layers of its image until it is
    /// [discarded](crate::Checkout::discard), deleted or [forgotten](Store::forget_checkout). Deletion is noticed only where
    /// working copy and store are on one file system; elsewhere a working copy that is not at its path may have been
    /// moved, or be visible to other processes only.
    ///
    /// ```
    /// # use layercake::checkout::{CheckoutMode, CheckoutOptions};
    /// # use layercake::{testing::Fixture, Store};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("store"))?;
    /// # let image = store.image_at(&Fixture::demo().write(&store)?)?;
    /// let options = CheckoutOptions::new().mode(CheckoutMode::Copy);
    /// let work = image.checkout_with(dir.path().join("work"), &options)?;
    /// let [record] = &store.checkouts()?[..] else { panic!("there is one") };
    /// assert_eq!((record.path.as_path(), record.is_gone), (work.path(), false));
    /// # Ok::<(), layercake::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidDocument`](crate::ErrorKind::InvalidDocument): a record is damaged.
    pub fn checkouts(&self) -> Result<Vec<CheckoutRecord>> {
        let Some(dir) = self.existing(CHECKOUTS)? else { return Ok(Vec::new()) };
        let shown = |record: Record| {
            let is_gone = is_gone(&dir, &record);
            CheckoutRecord { id: record.id, path: record.dir, root: record.root, is_gone }
        };
        let mut found: Vec<CheckoutRecord> = records(&dir)?.into_iter().map(shown).collect();
        found.sort_by(|a, b| (&a.path, &a.id).cmp(&(&b.path, &b.id)));
        Ok(found)
    }

    /// Removes the record of a working copy that was deleted, by its id. The next garbage collection can then delete the
    /// layers that only this working copy kept. If the working copy still exists, opening it records it again.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound): there is no record with this id.
    pub fn forget_checkout(&self, id: &str) -> Result<()> {
        let dir = self.existing(CHECKOUTS)?.filter(|_| is_id(id));
        let is_known = dir.as_ref().map(|dir| dir.stat(&name_of(id))).transpose()?.flatten().is_some();
        match dir {
            Some(dir) if is_known => remove(&dir, id),
            _ => Err(Error::not_found(format!("working copy {id}"))),
        }
    }

    /// Records a working copy, so that its image and layers are kept. Any number of processes may do this at once.
    ///
    /// The state file is the file of this name in the directory `work`.
    pub(crate) fn register_checkout(&self, new: &NewCheckout<'_>, work: &Dir, state_file: &str) -> Result<()> {
        let dir = self.checkouts_dir()?;
        let state = link_state(&dir, new.id, work, state_file);
        let path = path_to_text(new.path.as_os_str().as_encoded_bytes());
        let record = json!({
            "id": new.id, "dir": path, "root": new.root, "manifest": new.manifest, "owners": new.owners,
            "chains": new.chains, "state": state,
        });
        let text = record.to_string();
        match dir.read(&name_of(new.id), Limit::DocumentSize, MAX_RECORD) {
            Ok(found) if found == text.as_bytes() => Ok(()),
            Err(error) if !error.is_not_found() => Err(error),
            _ => self.keep_checkout(&name_of(new.id), text.as_bytes()),
        }
    }

    /// Returns the path of a working copy when it was opened last; none if there is no record, or a damaged one.
    pub(crate) fn registered_checkout(&self, id: &str) -> Result<Option<PathBuf>> {
        let Some(dir) = self.existing(CHECKOUTS)? else { return Ok(None) };
        match dir.read(&name_of(id), Limit::DocumentSize, MAX_RECORD) {
            Ok(text) => Ok(serde_json::from_slice(&text).ok().map(|record: Record| record.dir)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether the recorded working copy of this id exists, and has another state file than this one.
    pub(crate) fn has_other_checkout(&self, id: &str, work: &Dir, state_file: &str) -> Result<bool> {
        let Some(dir) = self.existing(CHECKOUTS)? else { return Ok(false) };
        let own = StateFile::of(work, state_file).map(|(file, _)| file);
        let is_other = |(file, names): (StateFile, u32)| names > 1 && Some(file) != own;
        Ok(StateFile::of(&dir, &link_of(id)).is_some_and(is_other))
    }

    /// Removes the record of a working copy, if it is there.
    pub(crate) fn unregister_checkout(&self, id: &str) -> Result<()> {
        self.existing(CHECKOUTS)?.map_or(Ok(()), |dir| remove(&dir, id))
    }
}

fn is_id(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn name_of(id: &str) -> String {
    format!("{id}.json")
}

fn link_of(id: &str) -> String {
    format!("{id}.link")
}

/// All records. What has another name is left alone.
fn records(dir: &Dir) -> Result<Vec<Record>> {
    let mut records = Vec::new();
    for name in dir.names()? {
        let Some(id) = name.strip_suffix(".json").filter(|id| is_id(id)) else { continue };
        let record = read(dir, &name, id).context(|| dir.path().join(&name).display().to_string())?;
        records.extend(record);
    }
    Ok(records)
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

/// Removes a record. Without it the link means nothing, so it goes second.
pub(super) fn remove(dir: &Dir, id: &str) -> Result<()> {
    dir.remove(&name_of(id))?;
    dir.remove(&link_of(id))
}

/// Gives a state file its second name in the store; none where that cannot be.
fn link_state(dir: &Dir, id: &str, work: &Dir, state_file: &str) -> Option<StateFile> {
    let name = link_of(id);
    let (own, _) = StateFile::of(work, state_file)?;
    let is_linked = || StateFile::of(dir, &name).is_some_and(|(file, _)| file == own);
    if !is_linked() {
        dir.remove(&name).ok()?;
        work.link(state_file, dir, &name).ok()?;
    }
    is_linked().then_some(own)
}

/// Whether a working copy was deleted: the state file that its record speaks of has no name but the one in the store.
///
/// A store that was copied or restored has other files, and so no proof.
fn is_gone(dir: &Dir, record: &Record) -> bool {
    let found = StateFile::of(dir, &link_of(&record.id));
    record.state.zip(found).is_some_and(|(state, (file, names))| file == state && names == 1)
}

/// Removes links without a record, which processes left that were killed.
pub(super) fn remove_lone_links(dir: &Dir, grace: Duration, now: SystemTime) -> Result<()> {
    for name in dir.names()? {
        let Some(id) = name.strip_suffix(".link").filter(|id| is_id(id)) else { continue };
        let Some(stat) = dir.stat(&name)? else { continue };
        let since = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(u64::try_from(stat.st_ctime).unwrap_or(0)));
        let is_old = since.is_some_and(|since| age(since, now) >= Some(grace));
        if is_old && dir.stat(&name_of(id))?.is_none() {
            dir.remove(&name)?;
        }
    }
    Ok(())
}
