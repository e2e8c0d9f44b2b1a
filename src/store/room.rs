//! How much a store may have, and what goes first when it has too much.

use std::collections::HashMap;
use std::collections::HashSet;
use std::time::SystemTime;

use super::Store;
use super::garbage::GcOptions;
use super::layout::LIMIT;
use super::layout::PINS;
use super::lease::Leases;
use super::names::Name;
use super::unpacked;
use super::usage::Usage;

use crate::descriptor::Descriptor;
use crate::digest::Digest;
use crate::error::Context;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Limit;
use crate::error::Result;
use crate::fs::atomic;
use crate::fs::dir::Dir;
use crate::fs::dir::modified;

const MAX_SMALL: u64 = 4096;

/// How much more a store can take.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// The bytes that are free on the file system, for this user.
    pub free: u64,
    /// The store's limit, if it has one.
    pub limit: Option<u64>,
    /// With a limit: the bytes of blobs, unfinished blobs and unpacked layers, and of those that running operations
    /// are about to bring.
    pub used: u64,
    /// What can be brought in: the less of what is free and of what the limit leaves.
    pub available: u64,
}

impl Store {
    /// Sets how many bytes the store may have, for all who use it, or takes that limit away. Pulls and copies that would
    /// bring more fail with [`ErrorKind::StorageFull`] before they fetch a layer. What is there already stays;
    /// [`GcOptions::room`] makes room. Single [writes](Store::write), archives and commits are not refused.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::ReadOnly`], [`ErrorKind::StorageFull`], [`ErrorKind::Locked`], [`ErrorKind::Io`].
    pub fn set_limit(&self, limit: Option<u64>) -> Result<()> {
        let set = || {
            let ours = self.ours()?;
            let _names = self.lock()?;
            match limit {
                Some(limit) => {
                    let content = format!("{limit}\n");
                    atomic::replace(&ours, "limit.new", &ours, LIMIT, content.as_bytes(), self.durability)
                }
                None => ours.remove(LIMIT).and_then(|()| self.durability.sync_dir(&ours)),
            }
        };
        set().context(|| "set the store's limit")
    }

    /// How many bytes the store may have, if there is a limit.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidDocument`], [`ErrorKind::Io`].
    pub fn limit(&self) -> Result<Option<u64>> {
        let Some(private) = self.private()? else { return Ok(None) };
        let content = match private.read(LIMIT, Limit::LayoutSize, MAX_SMALL) {
            Ok(content) => content,
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(error),
        };
        let text = String::from_utf8_lossy(&content);
        text.trim().parse().map(Some).map_err(|_| Error::invalid_document("limit of a store", "it is no number"))
    }

    /// How much more the store can take.
    ///
    /// # Errors
    ///
    /// Those of [`limit`](Store::limit); of reading leases.
    pub fn room(&self) -> Result<Room> {
        let free = self.free()?;
        let Some(limit) = self.limit()? else { return Ok(Room { free, limit: None, used: 0, available: free }) };
        let used = self.unleased().spoken_for(&HashSet::new())?;
        Ok(Room { free, limit: Some(limit), used, available: free.min(limit.saturating_sub(used)) })
    }

    /// Makes sure that there is room for those of these blobs that are not there, and holds it for this handle's lease.
    ///
    /// Whoever else reserves meanwhile sees what this one is about to bring, so that together they do not bring too much.
    /// Returns how many bytes that is.
    #[cfg_attr(not(feature = "registry"), expect(dead_code, reason = "only pulls and copies reserve room"))]
    pub(crate) fn reserve(&self, blobs: &[&Descriptor]) -> Result<u64> {
        let (mut needed, mut absent): (u64, HashMap<Digest, u64>) = (0, HashMap::new());
        let plain = self.unleased();
        for blob in blobs {
            if !plain.contains(blob)? && absent.insert(blob.digest, blob.size).is_none() {
                needed = needed.saturating_add(blob.size.saturating_sub(self.begun(blob)?));
            }
        }
        let full = |available: u64| {
            let path = self.path().to_owned();
            Err(ErrorKind::StorageFull { path, needed: Some(needed), available: Some(available) }.into())
        };
        let free = self.free()?;
        if needed > free {
            return full(free);
        }
        let Some(limit) = self.limit()? else { return Ok(needed) };
        let alone = self.hold_off_pins()?;
        let used = plain.spoken_for(&absent.keys().copied().collect())?;
        let available = limit.saturating_sub(used);
        if absent.values().fold(0, |sum: u64, size| sum.saturating_add(*size)) > available {
            return full(available);
        }
        self.hold_all(blobs, &alone)?;
        Ok(needed)
    }

    /// An error that says what was needed and what is there, if it is that there is no room.
    #[cfg_attr(not(feature = "registry"), expect(dead_code, reason = "only pulls and copies reserve room"))]
    pub(crate) fn explain_full(&self, error: Error, needed: u64) -> Error {
        error.with_room(needed, self.room().ok().map(|room| room.available))
    }

    /// What an earlier attempt left of a blob.
    pub(crate) fn begun(&self, blob: &Descriptor) -> Result<u64> {
        let Some(dir) = self.existing_partial_dir()? else { return Ok(0) };
        let stat = dir.stat(&format!("{}-{}", blob.digest.algorithm(), blob.digest.hex()))?;
        Ok(stat.map_or(0, |stat| u64::try_from(stat.st_size).unwrap_or(0).min(blob.size)))
    }

    fn free(&self) -> Result<u64> {
        let found = rustix::fs::fstatvfs(self.dir());
        let found = found.map_err(|error| Error::io("look at the disk of", self.path(), error.into()))?;
        Ok(found.f_bavail.saturating_mul(found.f_frsize))
    }

    /// The bytes that are there or promised, but for these blobs.
    fn spoken_for(&self, without: &HashSet<Digest>) -> Result<u64> {
        let blobs = self.blobs()?.collect::<Result<HashMap<_, _>>>()?;
        let leases = Leases::read(self, GcOptions::new().expiry, SystemTime::now())?;
        let is_coming = |digest: &Digest| {
            leases.promised.contains_key(digest) && !blobs.contains_key(digest) || without.contains(digest)
        };
        let coming = leases.promised.iter().filter(|(digest, _)| is_coming(digest) && !without.contains(digest));
        let promised: u64 = coming.fold(0, |sum, (_, size)| sum.saturating_add(*size));
        // What is begun of those is counted with them.
        let begun = self.partial_bytes(|digest| digest.is_none_or(|digest| !is_coming(&digest)))?;
        let mut unpacked: u64 = 0;
        for (_, dir) in unpacked::folders(self)? {
            for chain in unpacked::Listed::of(&dir)?.records {
                unpacked = unpacked.saturating_add(unpacked::disk_bytes(&dir, chain));
            }
        }
        let stored: u64 = blobs.values().fold(0, |sum, size| sum.saturating_add(*size));
        Ok(stored.saturating_add(promised).saturating_add(begun).saturating_add(unpacked))
    }
}

impl Store {
    /// Keeps a name from being taken away to make room, whatever it means. Nothing else is kept from anything.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`] if there is no such name; [`ErrorKind::ReadOnly`], [`ErrorKind::StorageFull`],
    /// [`ErrorKind::Io`].
    pub fn pin(&self, name: impl Into<Name>) -> Result<()> {
        let name = name.into();
        let pin = || {
            let (found, _) = self.lookup(&name)?.ok_or_else(|| Error::not_found(format!("image {name}")))?;
            let ours = self.ours()?;
            let (pins, _) = ours.make_dir(PINS)?;
            self.durability.sync_dir(&ours)?;
            let (file, text) = (file_of(&found), format!("{found}\n"));
            // Called as blobs are that are being written: any number may pin one name at once, and whoever clears those
            // away clears away what a crash left.
            let aside = format!("new-{:016x}", fastrand::u64(..));
            atomic::replace(&self.partial_dir()?, &aside, &pins, &file, text.as_bytes(), self.durability)
        };
        pin().context(|| format!("pin {name}"))
    }

    /// Takes that back. A name that is not pinned stays so.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::ReadOnly`], [`ErrorKind::Io`].
    pub fn unpin(&self, name: impl Into<Name>) -> Result<()> {
        let name = name.into();
        let unpin = || {
            let Some(pins) = self.existing_kept(PINS)? else { return Ok(()) };
            let found = self.lookup(&name)?.map_or_else(|| name.clone(), |(found, _)| found);
            pins.remove(&file_of(&found))?;
            self.durability.sync_dir(&pins)
        };
        unpin().context(|| format!("unpin {name}"))
    }

    /// Whether a name is pinned.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`].
    pub fn is_pinned(&self, name: impl Into<Name>) -> Result<bool> {
        let name = name.into();
        let found = self.lookup(&name)?.map_or(name, |(found, _)| found);
        Ok(self.existing_kept(PINS)?.is_some_and(|pins| has(&pins, &found)))
    }

    /// The images that would go first, as many as free so many bytes; by their places.
    pub(super) fn least_recently_used(&self, usage: &Usage, bytes: u64) -> Result<Vec<usize>> {
        let pins = self.existing_kept(PINS)?;
        let mut places = Vec::new();
        for (place, image) in usage.images.iter().enumerate() {
            let is_pinned = pins.as_ref().is_some_and(|pins| image.names.iter().any(|name| has(pins, name)));
            // What other tools listed without a name is not ours to take away.
            if is_pinned || usage.is_in_use(image) || image.names.contains(&Name::Unnamed) {
                continue;
            }
            places.push((self.last_use(&image.root)?, place));
        }
        places.sort();
        let places: Vec<usize> = places.into_iter().map(|(_, place)| place).collect();
        let enough = |count: &usize| usage.freed_by(&places[..*count]) >= bytes;
        let counts: Vec<usize> = (0..=places.len()).collect();
        let count = counts.partition_point(|count| !enough(count)).min(places.len());
        Ok(places[..count].to_vec())
    }

    fn last_use(&self, root: &Descriptor) -> Result<SystemTime> {
        let stat = match self.existing_blobs_dir(root.digest.algorithm())? {
            Some(dir) => dir.stat(&root.digest.hex().to_string())?,
            None => None,
        };
        Ok(stat.map_or(SystemTime::UNIX_EPOCH, |stat| modified(&stat)))
    }
}

/// The file of a pinned name. Names may be longer than names of files, and have any characters.
fn file_of(name: &Name) -> String {
    Digest::sha256(name.to_string().as_bytes()).hex().to_string()
}

fn has(pins: &Dir, name: &Name) -> bool {
    // Where it cannot be told, it is pinned.
    pins.stat(&file_of(name)).map_or(true, |found| found.is_some())
}
