//! Leases: what a running operation relies on, and `gc` therefore leaves alone.
//!
//! A lease is a file below `leases`, locked for as long as its holder lives. It lists the digests that are pinned, a line
//! each, written before they are relied on. Who pins shares a lock that `gc` takes alone while it deletes: so a blob that
//! was pinned and then found to be there stays there.

use std::collections::HashMap;
use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;
use std::time::SystemTime;

use super::Durability;
use super::LOCK_LIMIT;
use super::Store;
use super::age;
use super::ingest::is_in;

use crate::descriptor::Descriptor;
use crate::digest::Digest;
use crate::error::Context;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Limit;
use crate::error::Result;
use crate::fs::dir::Dir;
use crate::fs::lock::DirLock;
use crate::fs::lock::Locked;
use crate::sync::lock;

/// The most bytes of one lease: some 700,000 blobs.
const MAX_LEASE: u64 = 64 << 20;
const PARTIAL: &str = "partial ";

/// What is pinned, until this is dropped.
#[derive(Debug)]
pub(super) struct Lease {
    dir: Dir,
    name: String,
    /// Whether what cannot be pinned must not be relied on.
    strict: bool,
    pinned: Mutex<Pinned>,
}

#[derive(Debug)]
struct Pinned {
    /// Locked for as long as it is open.
    file: Locked<File>,
    lines: HashSet<String>,
    length: u64,
}

impl Store {
    /// The same store, for one operation that brings content in or relies on what is there: nothing that is asked for,
    /// read or written through this handle and its clones is collected by [`gc`](Store::gc) before the last of them
    /// is dropped. If the process dies before, `gc` honours the lease until it expires.
    ///
    /// Pulls, copies, loads and checkouts take a lease of their own. Whoever writes blobs and then names them should take
    /// one too; else only their age protects them until they have the name.
    ///
    /// ```
    /// use layercake::store::GcOptions;
    /// use layercake::{MediaType, Store};
    /// use std::time::Duration;
    ///
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("store"))?;
    /// let leased = store.leased()?;
    /// let blob = leased.write(MediaType::OCTET_STREAM, b"half of something")?;
    /// let at_once = GcOptions::new().grace(Duration::ZERO).expiry(Duration::ZERO);
    /// store.gc_with(&at_once)?;
    /// assert!(store.contains(&blob)?);
    ///
    /// drop(leased);
    /// store.gc_with(&at_once)?;
    /// assert!(!store.contains(&blob)?);
    /// # Ok::<(), layercake::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorKind::ReadOnly`], [`ErrorKind::StorageFull`], [`ErrorKind::Io`].
    pub fn leased(&self) -> Result<Store> {
        self.with_lease(true)
    }

    /// The same for whoever only reads: a store that cannot be written, or is full, can be read all the same.
    pub(crate) fn held(&self) -> Result<Store> {
        if !self.private().is_ok_and(|private| private.is_some()) {
            // A layout of another tool, of another user or from elsewhere: reading it changes nothing.
            return Ok(self.clone());
        }
        match self.with_lease(false) {
            Err(error) if is_unwritable(&error) => Ok(self.clone()),
            done => done,
        }
    }

    fn with_lease(&self, strict: bool) -> Result<Store> {
        if self.lease.as_ref().is_some_and(|lease| lease.strict || !strict) {
            return Ok(self.clone());
        }
        // No lease outlives a power cut; who reads need not wait for the disk.
        let dir = || if strict { self.leases_dir() } else { self.with_durability(Durability::None).leases_dir() };
        let lease = dir().and_then(|dir| Lease::take(dir, strict)).context(|| "take a lease")?;
        Ok(Store { lease: Some(Arc::new(lease)), ..self.clone() })
    }

    /// Pins a blob, if this handle has a lease. What is found to be there afterwards stays.
    pub(super) fn hold(&self, blob: &Descriptor) -> Result<()> {
        self.hold_line(|| format!("{} {}\n", blob.digest, blob.size))
    }

    /// The same for a file that lies aside and is not locked.
    pub(super) fn hold_partial(&self, name: &str) -> Result<()> {
        self.hold_line(|| format!("{PARTIAL}{name}\n"))
    }

    fn hold_line(&self, line: impl FnOnce() -> String) -> Result<()> {
        let Some(lease) = &self.lease else { return Ok(()) };
        let line = line();
        let mut pinned = lock(&lease.pinned);
        if pinned.lines.contains(&line) {
            return Ok(());
        }
        let written = self.hold_off_sweeps().and_then(|_held| lease.append(&mut pinned, &line));
        match written {
            Err(error) if !lease.strict && is_unwritable(&error) => Ok(()),
            done => done,
        }
    }

    /// The same for several blobs, while this process alone may pin.
    pub(super) fn hold_all(&self, blobs: &[&Descriptor], _alone: &DirLock) -> Result<()> {
        let Some(lease) = &self.lease else { return Ok(()) };
        let mut pinned = lock(&lease.pinned);
        let lines = blobs.iter().map(|blob| format!("{} {}\n", blob.digest, blob.size));
        lines.into_iter().try_for_each(|line| lease.append(&mut pinned, &line))
    }

    /// Until this is dropped, `gc` deletes nothing.
    pub(super) fn hold_off_sweeps(&self) -> Result<DirLock> {
        DirLock::shared(self.leases_or_new()?, LOCK_LIMIT)
    }

    /// Until this is dropped, nobody pins anything, and nobody makes what is old young.
    pub(super) fn hold_off_pins(&self) -> Result<DirLock> {
        DirLock::exclusive(self.leases_or_new()?, LOCK_LIMIT)
    }
}

impl Lease {
    /// Makes a lease. Between making the file and locking it, somebody may take it for a dead one's: then it is made
    /// again.
    fn take(dir: Dir, strict: bool) -> Result<Lease> {
        loop {
            let name = format!("{:016x}", fastrand::u64(..));
            let file = match dir.new_file(&name) {
                Ok(file) => file,
                Err(error) if is_taken(&error) => continue,
                Err(error) => return Err(error),
            };
            match Locked::alone(file) {
                Ok(Some(file)) if is_in(&dir, &name, &file)? => {
                    let pinned = Mutex::new(Pinned { file, lines: HashSet::new(), length: 0 });
                    return Ok(Lease { dir, name, strict, pinned });
                }
                Ok(_) => dir.remove(&name)?,
                Err(error) => {
                    dir.remove(&name)?;
                    return Err(Error::io("lock", &dir.path().join(&name), error.into()));
                }
            }
        }
    }

    /// What a write that fails leaves is written over by the next.
    fn append(&self, pinned: &mut Pinned, line: &str) -> Result<()> {
        if pinned.lines.contains(line) {
            return Ok(());
        }
        let written = pinned.file.write_all_at(line.as_bytes(), pinned.length);
        written.map_err(|error| Error::io("write", &self.dir.path().join(&self.name), error))?;
        pinned.length += line.len() as u64;
        pinned.lines.insert(line.to_owned());
        Ok(())
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // One that stays is as a dead process's: it expires.
        let _ = self.dir.remove(&self.name);
    }
}

/// What all leases together pin.
#[derive(Debug, Default)]
pub(super) struct Leases {
    /// The size that each pinned blob has, or will have.
    pub(super) blobs: HashMap<Digest, u64>,
    /// Of these, what processes pin that live: they rely on it, or are about to bring it.
    pub(super) promised: HashMap<Digest, u64>,
    pub(super) partials: HashSet<String>,
    /// Those whose holders are dead, and whose time is over: they pin nothing.
    pub(super) expired: Vec<String>,
}

impl Leases {
    /// Reads all leases. One whose holder lives counts whatever the clock says.
    pub(super) fn read(store: &Store, expiry: Duration, now: SystemTime) -> Result<Leases> {
        let mut leases = Leases::default();
        let Some(dir) = store.existing_leases_dir()? else { return Ok(leases) };
        for name in dir.names()? {
            let is_ours = name.len() == 16 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
            if is_ours {
                leases.add(&dir, name, expiry, now)?;
            }
        }
        Ok(leases)
    }

    fn add(&mut self, dir: &Dir, name: String, expiry: Duration, now: SystemTime) -> Result<()> {
        let (file, size) = match dir.file_and_size(&name) {
            Ok(opened) => opened,
            // It was given back meanwhile.
            Err(error) if error.is_not_found() => return Ok(()),
            Err(error) => return Err(error),
        };
        let path = dir.path().join(&name);
        let fail = |error| Error::io("read", &path, error);
        let is_live = !matches!(Locked::shared(&file), Ok(Some(_)));
        let is_old = age(file.metadata().and_then(|stat| stat.modified()).map_err(fail)?, now) >= Some(expiry);
        if !is_live && is_old {
            self.expired.push(name);
            return Ok(());
        }
        if size > MAX_LEASE {
            return Err(Error::limit(Limit::LayoutSize, MAX_LEASE).context(path.display().to_string()));
        }
        let mut text = Vec::new();
        file.take(MAX_LEASE).read_to_end(&mut text).map_err(fail)?;
        self.parse(&text, is_live).map_err(|reason| {
            let error = io::Error::new(io::ErrorKind::InvalidData, reason);
            Error::io("understand the lease", &path, error)
        })
    }

    /// A last line without end is nobody's: whoever wrote it was killed before he could rely on it.
    fn parse(&mut self, text: &[u8], is_live: bool) -> Result<(), &'static str> {
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let text = std::str::from_utf8(&text[..whole]).map_err(|_| "it is no text")?;
        for line in text.lines() {
            if let Some(name) = line.strip_prefix(PARTIAL) {
                self.partials.insert(name.to_owned());
                continue;
            }
            let (digest, size) = line.split_once(' ').ok_or("a line is not a digest and a size")?;
            let digest = digest.parse().map_err(|_| "a line has no digest")?;
            let size = size.parse().map_err(|_| "a line has no size")?;
            self.blobs.insert(digest, size);
            self.promised.extend(is_live.then_some((digest, size)));
        }
        Ok(())
    }

    /// Removes a dead one's lease, if it is still that.
    pub(super) fn remove(store: &Store, name: &str) -> Result<bool> {
        let Some(dir) = store.existing_leases_dir()? else { return Ok(false) };
        let file = match dir.file(name) {
            Ok(file) => file,
            Err(error) if error.is_not_found() => return Ok(false),
            Err(error) => return Err(error),
        };
        let Ok(Some(file)) = Locked::alone(file) else { return Ok(false) };
        if !is_in(&dir, name, &file)? {
            return Ok(false);
        }
        dir.remove(name)?;
        Ok(true)
    }
}

/// Whether an error says that this process cannot write to the store, for whatever reason.
pub(super) fn is_unwritable(error: &Error) -> bool {
    match error.kind() {
        ErrorKind::ReadOnly { .. } | ErrorKind::StorageFull { .. } | ErrorKind::Untrusted { .. } => true,
        ErrorKind::Io { source, .. } => source.kind() == io::ErrorKind::PermissionDenied,
        _ => false,
    }
}

fn is_taken(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Io { source, .. } if source.kind() == io::ErrorKind::AlreadyExists)
}
