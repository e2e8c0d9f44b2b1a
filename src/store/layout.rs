//! Opening and making the directory (image-spec, image-layout.md).

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use serde::Deserialize;

use super::LOCK_LIMIT;
use super::Store;
use super::index::INDEX;
use super::index::Index;
use super::index::MAX_INDEX;
use super::index::PREVIOUS_INDEX;
use super::instance;

use crate::digest::Algorithm;
use crate::error::Context;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Limit;
use crate::error::Result;
use crate::fs::atomic;
use crate::fs::atomic::Durability;
use crate::fs::dir::Dir;
use crate::fs::lock::Lock;
use crate::fs::trust::distrust;
use crate::fs::trust::require_trusted;

pub(super) const LAYOUT: &str = "oci-layout";
pub(super) const BLOBS: &str = "blobs";
/// What is ours alone lies here.
pub(super) const OURS: &str = "layercake";
pub(super) const PARTIAL: &str = "partial";
pub(super) const LEASES: &str = "leases";
/// How many bytes the store may have.
pub(super) const LIMIT: &str = "limit";
/// The names that are not taken away to make room.
pub(super) const PINS: &str = "pins";
pub(super) const QUARANTINE: &str = "quarantine";
pub(super) const FACTS: &str = "facts";
pub(super) const LOCK: &str = "lock";
const VERSION: &str = "version";
/// Is there if whoever made the store, or changed its names, did not bring that to the disk.
pub(super) const UNSYNCED: &str = "unsynced";

const LAYOUT_VERSION: &str = "1.0.0";
const OUR_VERSION: &str = "1";
const EMPTY_INDEX: &[u8] =
    br#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#;
const MAX_SMALL_FILE: u64 = 4096;

impl Store {
    /// Opens a directory that is a layout, made by this crate or by another tool. Nothing in it is changed.
    ///
    /// # Errors
    ///
    /// * [`ErrorKind::NotALayout`]: it lacks `oci-layout`, `index.json` or `blobs`.
    /// * [`ErrorKind::UnsupportedVersion`]: a layout of another version than 1.0.0, or one that a newer version of
    ///   this crate wrote.
    /// * [`ErrorKind::InvalidDocument`]: its `oci-layout` is rubbish.
    /// * [`ErrorKind::Io`]: there is no such directory, or it cannot be read.
    pub fn open(path: impl AsRef<Path>) -> Result<Store> {
        let path = path.as_ref();
        let open = || {
            let dir = Dir::open(path)?;
            check_version(&dir)?;
            for name in [INDEX, BLOBS] {
                require(&dir, name)?;
            }
            Ok(Store::at(dir))
        };
        open().context(|| format!("open store {}", path.display()))
    }

    /// Makes a layout without images. The directory may exist if it is empty; its parents are made as needed.
    ///
    /// Other users can neither read nor lock anything in it, whatever the umask is;
    /// [`set_readable_by_others`](Store::set_readable_by_others) lets them read images. A directory that exists keeps its
    /// mode, and what is made in it is closed.
    ///
    /// # Errors
    ///
    /// * [`ErrorKind::NotALayout`]: there is something else in the directory, or a layout already.
    /// * [`ErrorKind::ReadOnly`], [`ErrorKind::StorageFull`], [`ErrorKind::Io`]: the operating system refuses.
    pub fn create(path: impl AsRef<Path>) -> Result<Store> {
        Store::create_with(path, Durability::Full)
    }

    /// The same, with this promise about power cuts from the start. With [`Durability::None`], a power cut soon after may
    /// leave a directory that is no store: [`open_or_create`](Store::open_or_create) makes one of it if what is there is
    /// empty.
    ///
    /// # Errors
    ///
    /// Those of [`create`](Store::create).
    pub fn create_with(path: impl AsRef<Path>, durability: Durability) -> Result<Store> {
        let path = path.as_ref();
        let create = || match make(path, durability)? {
            Made::Now(store) => Ok(store),
            Made::Before => {
                let reason = "there is a layout already".to_owned();
                Err(ErrorKind::NotALayout { path: path.to_owned(), reason }.into())
            }
        };
        create().context(|| format!("create store {}", path.display()))
    }

    /// Opens a layout, or makes one where there is no directory or an empty one. Any number of processes may do this
    /// at once.
    ///
    /// # Errors
    ///
    /// Those of [`open`](Store::open) and of [`create`](Store::create).
    pub fn open_or_create(path: impl AsRef<Path>) -> Result<Store> {
        Store::open_or_create_with(path, Durability::Full)
    }

    /// The same, with this promise about power cuts from the start.
    ///
    /// ```
    /// # use layercake::{Durability, Store};
    /// # let dir = tempfile::tempdir()?;
    /// let cache = Store::open_or_create_with(dir.path().join("cache"), Durability::None)?;
    /// assert_eq!(cache.durability(), Durability::None);
    /// # Ok::<(), layercake::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`open_or_create`](Store::open_or_create).
    pub fn open_or_create_with(path: impl AsRef<Path>, durability: Durability) -> Result<Store> {
        let path = path.as_ref();
        let is_made = Dir::open(path).and_then(|dir| is_finished(&dir));
        let made = if is_made.unwrap_or(false) {
            Made::Before
        } else {
            make(path, durability).context(|| format!("create store {}", path.display()))?
        };
        match made {
            Made::Now(store) => Ok(store),
            Made::Before => Ok(Store::open(path)?.with_durability(durability)),
        }
    }

    /// Opens the private state for writing, and makes it if it is missing. What is there of another machine or directory is
    /// removed; other users can neither look into it nor lock anything there.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Untrusted`]: another user owns it or may write to it.
    pub(super) fn ours(&self) -> Result<Dir> {
        let (ours, is_new) = self.dir().make_dir(OURS).map_err(|error| match is_denied(&error) {
            true => ErrorKind::ReadOnly { path: self.dir().path().join(OURS) }.into(),
            false => error,
        })?;
        if is_new {
            self.prepared.ours.store(false, Ordering::Release);
        }
        Prepared::once(&self.prepared.ours, || {
            if !self.trusts_owner {
                require_trusted(&ours, ours.path())?;
            }
            ours.close_to_others()?;
            instance::bind(&ours, self.durability)?;
            if !is_written(&ours, VERSION)? {
                // Others may be at it too; whoever holds the lock was here before and is not kept waiting by itself.
                let _lock = Lock::acquire(&ours, LOCK, LOCK_LIMIT)?;
                let version = format!("{OUR_VERSION}\n");
                atomic::replace(&ours, &format!("{VERSION}.new"), &ours, VERSION, version.as_bytes(), self.durability)?;
            }
            if ours.stat(UNSYNCED)?.is_some() {
                self.mend_names(&ours)?;
                if self.durability == Durability::Full {
                    self.sync_layout(&ours)?;
                }
            }
            self.durability.sync_dir(self.dir())
        })?;
        Ok(ours)
    }

    /// Gives a store names whose own a power cut left empty: what they were before their last change, or none. Only
    /// where nobody brought them to the disk; else it is no power cut that emptied them.
    fn mend_names(&self, ours: &Dir) -> Result<()> {
        if is_written(self.dir(), INDEX)? {
            return Ok(());
        }
        // Whoever is making the store has the lock, and is about to write them.
        let _lock = Lock::acquire(ours, LOCK, LOCK_LIMIT)?;
        if is_written(self.dir(), INDEX)? {
            return Ok(());
        }
        let previous = match ours.read(PREVIOUS_INDEX, Limit::LayoutSize, MAX_INDEX) {
            Err(error) if error.is_as_good_as_missing() => Vec::new(),
            found => found?,
        };
        let names = std::str::from_utf8(&previous).ok().filter(|names| Index::parse(names).is_ok());
        let content = names.map_or(EMPTY_INDEX, str::as_bytes);
        self.put_public(ours, INDEX, content, self.durability)
    }

    /// Brings to the disk what makes this directory a store. What is seen after a power cut is there already, so the mark
    /// that this is wanted need not outlive one.
    fn sync_layout(&self, ours: &Dir) -> Result<()> {
        // Whoever is making the store has the lock, and is waited for.
        let _lock = Lock::acquire(ours, LOCK, LOCK_LIMIT)?;
        // Anew: of a file that could not be synced Linux says so once, and then that all is well.
        if is_written(ours, VERSION)? {
            let version = ours.read(VERSION, Limit::LayoutSize, MAX_SMALL_FILE)?;
            atomic::replace(ours, &format!("{VERSION}.new"), ours, VERSION, &version, Durability::Full)?;
        }
        for (name, most) in [(INDEX, MAX_INDEX), (LAYOUT, MAX_SMALL_FILE)] {
            if is_written(self.dir(), name)? {
                let content = self.dir().read(name, Limit::LayoutSize, most)?;
                self.put_public(ours, name, &content, Durability::Full)?;
            }
        }
        ours.sync()?;
        self.dir().sync()?;
        sync_above(self.dir())?;
        ours.remove(UNSYNCED)
    }

    /// Opens the private state for reading. None if it is missing, belongs to another user, may be written by one, or came
    /// from elsewhere.
    pub(super) fn private(&self) -> Result<Option<Dir>> {
        let Some(ours) = self.kept()? else { return Ok(None) };
        Ok(instance::is_bound(&ours)?.then_some(ours))
    }

    /// The same, also where it came from elsewhere: for what only keeps something from being deleted.
    fn kept(&self) -> Result<Option<Dir>> {
        let ours = match self.dir().dir(OURS) {
            Ok(ours) => ours,
            Err(error) if is_inaccessible(&error) => return Ok(None),
            Err(error) => return Err(error),
        };
        let stat = ours.own_stat()?;
        let is_own = stat.st_uid == rustix::process::geteuid().as_raw();
        let is_believed = self.trusts_owner || is_own && distrust(&stat).is_none();
        Ok(is_believed.then_some(ours))
    }

    /// Says why the private state is not used, if it is there and is not.
    pub(super) fn reason_to_ignore(&self) -> Result<Option<String>> {
        let ours = match self.dir().dir(OURS) {
            Ok(ours) => ours,
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) if is_denied(&error) => return Ok(Some("this user may not read it".to_owned())),
            Err(error) => return Err(error),
        };
        if self.kept()?.is_none() {
            let stat = ours.own_stat()?;
            let owner = || format!("it belongs to user {}", stat.st_uid);
            return Ok(Some(distrust(&stat).unwrap_or_else(owner)));
        }
        let elsewhere = || "it was written on another machine or in another directory".to_owned();
        Ok((!instance::is_bound(&ours)?).then(elsewhere))
    }

    /// Opens the folder of leases for a lock on it. Nothing is made if it is there, so that this works on a full disk.
    pub(super) fn leases_or_new(&self) -> Result<Dir> {
        match self.existing(LEASES)? {
            Some(dir) => Ok(dir),
            None => self.leases_dir(),
        }
    }

    /// The folder of unfinished blobs, made if it is missing.
    pub(super) fn partial_dir(&self) -> Result<Dir> {
        let ours = self.ours()?;
        let (partial, _) = ours.make_dir(PARTIAL)?;
        Prepared::once(&self.prepared.partial, || self.durability.sync_dir(&ours))?;
        Ok(partial)
    }

    /// The folder of leases, made if it is missing.
    pub(super) fn leases_dir(&self) -> Result<Dir> {
        let ours = self.ours()?;
        let (leases, _) = ours.make_dir(LEASES)?;
        Prepared::once(&self.prepared.leases, || self.durability.sync_dir(&ours))?;
        Ok(leases)
    }

    pub(super) fn existing_leases_dir(&self) -> Result<Option<Dir>> {
        self.existing(LEASES)
    }

    pub(super) fn existing_partial_dir(&self) -> Result<Option<Dir>> {
        self.existing(PARTIAL)
    }

    /// Opens a folder of the private state, if it is there and was written here.
    pub(super) fn existing(&self, name: &str) -> Result<Option<Dir>> {
        self.private()?.map_or(Ok(None), |ours| existing_in(&ours, name))
    }

    /// The same, also where the private state came from elsewhere: for what only keeps something from being deleted.
    pub(super) fn existing_kept(&self, name: &str) -> Result<Option<Dir>> {
        self.kept()?.map_or(Ok(None), |ours| existing_in(&ours, name))
    }

    /// The folder of what was found to be damaged, made if it is missing.
    pub(super) fn quarantine_dir(&self) -> Result<Dir> {
        let ours = self.ours()?;
        let (quarantine, _) = ours.make_dir(QUARANTINE)?;
        self.durability.sync_dir(&ours)?;
        Ok(quarantine)
    }

    /// The folder of the blobs of one algorithm, made if it is missing.
    pub(super) fn blobs_dir(&self, algorithm: Algorithm) -> Result<Dir> {
        let blobs = self.dir().dir(BLOBS)?;
        let dir = self.make_blobs_dir(&blobs, algorithm)?;
        Prepared::once(&self.prepared.blobs[algorithm as usize], || self.durability.sync_dir(&blobs))?;
        Ok(dir)
    }

    /// The right to change names, until it is dropped.
    pub(super) fn lock(&self) -> Result<Lock> {
        Lock::acquire(&self.ours()?, LOCK, LOCK_LIMIT)
    }
}

/// Which folders a handle of a store made sure of: that they are there, and will be after a power cut. Each is looked at
/// once, whoever made it: a process that made it and was killed may not have come to bring it to the disk.
#[derive(Debug, Default)]
pub(super) struct Prepared {
    ours: AtomicBool,
    partial: AtomicBool,
    leases: AtomicBool,
    blobs: [AtomicBool; Algorithm::ALL.len()],
}

impl Prepared {
    fn once(done: &AtomicBool, prepare: impl FnOnce() -> Result<()>) -> Result<()> {
        if !done.load(Ordering::Acquire) {
            prepare()?;
            done.store(true, Ordering::Release);
        }
        Ok(())
    }
}

enum Made {
    Now(Store),
    Before,
}

/// Makes the layout under the lock, its `oci-layout` last: what has none is not finished, and making it again
/// finishes it.
fn make(path: &Path, durability: Durability) -> Result<Made> {
    make_dirs(path, 0o700, durability)?;
    let store = Store::at(Dir::open(path)?).with_durability(durability);
    if is_finished(store.dir())? {
        return Ok(Made::Before);
    }
    if is_written(store.dir(), LAYOUT)? {
        check_version(store.dir())?;
    } else {
        refuse_strangers(store.dir())?;
        check_our_version(store.dir())?;
    }
    let lock = store.lock()?;
    if is_finished(store.dir())? {
        return Ok(Made::Before);
    }
    let ours = store.ours()?;
    if durability == Durability::None {
        ours.file_to_write(UNSYNCED)?;
    }
    store.dir().make_dir(BLOBS)?;
    store.blobs_dir(Algorithm::Sha256)?;
    let layout = format!("{{\"imageLayoutVersion\":\"{LAYOUT_VERSION}\"}}");
    for (name, content) in [(INDEX, EMPTY_INDEX), (LAYOUT, layout.as_bytes())] {
        if is_written(store.dir(), name)? {
            // Names that are there are not ours to throw away.
            continue;
        }
        store.put_public(&ours, name, content, store.durability)?;
    }
    drop(lock);
    // Anew: who was here before may not have finished, nor cared for the disk.
    let store = store.with_durability(durability);
    store.ours()?;
    Ok(Made::Now(store))
}

/// Whether there is nothing left to make. Where the store was not brought to the disk, a power cut may have left its
/// names empty.
fn is_finished(dir: &Dir) -> Result<bool> {
    let is_unsynced = || match dir.dir(OURS).and_then(|ours| ours.stat(UNSYNCED)) {
        Ok(found) => Ok(found.is_some()),
        Err(error) if is_inaccessible(&error) => Ok(false),
        Err(error) => Err(error),
    };
    Ok(is_written(dir, LAYOUT)? && (is_written(dir, INDEX)? || !is_unsynced()?))
}

/// Whether there is a file with something in it. A power cut may leave an empty one of what was not synced.
fn is_written(dir: &Dir, name: &str) -> Result<bool> {
    Ok(dir.stat(name)?.is_some_and(|stat| stat.st_size > 0))
}

/// Like `create_dir_all`, and if wanted, the new names survive a power cut. A new directory is closed to other users, those
/// above it only to their writing.
fn make_dirs(path: &Path, mode: u32, durability: Durability) -> Result<()> {
    let here = Path::new(".");
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(here);
    let sync_parent = || match durability {
        Durability::Full => Dir::open(parent)?.sync(),
        Durability::None => Ok(()),
    };
    if path.is_dir() {
        return match durability {
            Durability::Full => sync_above(&Dir::open(path)?),
            Durability::None => Ok(()),
        };
    }
    if path != here {
        make_dirs(parent, 0o755, durability)?;
    }
    match fs::DirBuilder::new().mode(mode).create(path) {
        Ok(()) => sync_parent(),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => sync_parent(),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            Err(ErrorKind::ReadOnly { path: path.to_owned() }.into())
        }
        Err(error) => Err(Error::io("create", path, error)),
    }
}

/// Brings to the disk that a directory is where it is. Who made it, and those above, may have been killed before coming
/// to this, or may not have cared. How it was named does not say what is above it.
fn sync_above(dir: &Dir) -> Result<()> {
    let inode = |dir: &Dir| Ok::<_, Error>(dir.stat(".")?.map(|stat| (stat.st_dev, stat.st_ino)));
    let (mut last, mut above) = (inode(dir)?, dir.above());
    loop {
        let dir = match above {
            // Somebody else's, and so is what is above it.
            Err(error) if is_denied(&error) => return Ok(()),
            found => found?,
        };
        let found = inode(&dir)?;
        if found == last {
            // The root lies in itself.
            return Ok(());
        }
        match dir.sync() {
            // There is no disk that could lose it.
            Err(error) if cannot_be_synced(&error) => {}
            done => done?,
        }
        (last, above) = (found, dir.above());
    }
}

fn existing_in(ours: &Dir, name: &str) -> Result<Option<Dir>> {
    match ours.dir(name) {
        Ok(dir) => Ok(Some(dir)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether private state is missing or closed to this user.
fn is_inaccessible(error: &Error) -> bool {
    error.is_not_found() || is_denied(error)
}

fn is_denied(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied)
}

/// Whether a file system says that it does not sync directories, or is only read (fsync(2), `EINVAL` and `EROFS`).
fn cannot_be_synced(error: &Error) -> bool {
    match error.kind() {
        ErrorKind::ReadOnly { .. } => true,
        ErrorKind::Io { source, .. } => source.kind() == io::ErrorKind::InvalidInput,
        _ => false,
    }
}

/// A directory that holds anything but what an interrupted [`make`] leaves is somebody else's.
fn refuse_strangers(dir: &Dir) -> Result<()> {
    // `oci-layout` among them: another process may be finishing at this moment.
    let expected = [LAYOUT, INDEX, BLOBS, OURS];
    match dir.names()?.iter().find(|name| !expected.contains(&name.as_str())) {
        Some(stranger) => {
            let reason = format!("it has no {LAYOUT} and is not empty: there is {stranger:?}");
            Err(ErrorKind::NotALayout { path: dir.path().to_owned(), reason }.into())
        }
        None => Ok(()),
    }
}

fn require(dir: &Dir, name: &str) -> Result<()> {
    match dir.stat(name)? {
        Some(_) => Ok(()),
        None => Err(ErrorKind::NotALayout { path: dir.path().to_owned(), reason: format!("it has no {name}") }.into()),
    }
}

fn check_version(dir: &Dir) -> Result<()> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Layout {
        image_layout_version: String,
    }
    require(dir, LAYOUT)?;
    let content = dir.read(LAYOUT, Limit::LayoutSize, MAX_SMALL_FILE)?;
    let layout: Layout = serde_json::from_slice(&content).map_err(|error| Error::invalid_document(LAYOUT, error))?;
    crate::json::check(&content, &crate::json::LAYOUT).map_err(|error| Error::invalid_document(LAYOUT, error))?;
    refuse_version(dir, &layout.image_layout_version, LAYOUT_VERSION)?;
    check_our_version(dir)
}

fn check_our_version(dir: &Dir) -> Result<()> {
    let ours = match dir.dir(OURS).and_then(|ours| Ok(is_written(&ours, VERSION)?.then_some(ours))) {
        Ok(Some(ours)) => ours,
        Ok(None) => return Ok(()),
        Err(error) if is_inaccessible(&error) => return Ok(()),
        Err(error) => return Err(error),
    };
    let content = ours.read(VERSION, Limit::LayoutSize, MAX_SMALL_FILE)?;
    refuse_version(&ours, String::from_utf8_lossy(&content).trim(), OUR_VERSION)
}

fn refuse_version(dir: &Dir, found: &str, known: &str) -> Result<()> {
    if found == known {
        return Ok(());
    }
    let found = crate::error::printable(found, 80);
    Err(ErrorKind::UnsupportedVersion { path: dir.path().to_owned(), found }.into())
}
