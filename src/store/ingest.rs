//! Taking blobs in: aside first, under their name when they are whole.

use std::fs::File;
use std::fs::Permissions;
use std::io;
use std::io::Read;
use std::io::Seek;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::os::unix::fs::PermissionsExt;

use super::Store;
use super::arrival::Arrival;
use super::arrival::ArrivingBlob;
use super::blobs::holds;

use crate::descriptor::Descriptor;
use crate::digest::Algorithm;
use crate::digest::Digest;
use crate::digest::Hasher;
use crate::error::Context;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::fs::dir::Dir;
use crate::fs::lock::Locked;
use crate::media_type::MediaType;

/// What is written to a blob's file at once where it is read back.
const CHUNK: usize = 64 << 10;
/// How many bytes wait at most until the system begins to bring them to the disk.
const AHEAD: u64 = 8 << 20;

/// Takes a blob into a store. Made by [`Store::writer`] and [`Store::resume`].
///
/// Nobody sees the blob before it is committed; one that is dropped before that leaves nothing, or, if it came from
/// [`Store::resume`], what it has for the next attempt.
#[derive(Debug)]
#[must_use = "what is not committed is not in the store"]
pub struct BlobWriter {
    store: Store,
    dir: Dir,
    name: String,
    /// Locked for as long as it is open, so that no other process writes to it or clears it away.
    file: Locked<File>,
    hasher: Hasher,
    algorithm: Algorithm,
    written: u64,
    /// Up to where the system was told to bring it to the disk.
    begun: u64,
    /// Whether the file stays for the next attempt if this one ends early.
    keep: bool,
    published: bool,
    /// Who reads it meanwhile.
    arrival: Option<Arrival>,
}

impl Store {
    /// A writer of a new blob, whose digest will be of this algorithm.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::ReadOnly`], [`ErrorKind::StorageFull`], [`ErrorKind::Io`].
    pub fn writer(&self, algorithm: Algorithm) -> Result<BlobWriter> {
        let dir = self.partial_dir()?;
        loop {
            let name = format!("new-{:016x}", fastrand::u64(..));
            let file = match dir.new_file(&name) {
                Ok(file) => file,
                Err(error) if is_taken(&error) => continue,
                Err(error) => return Err(error),
            };
            match Locked::alone(file) {
                Ok(Some(file)) if is_in(&dir, &name, &file)? => return self.start(dir, name, file, algorithm, false),
                // Somebody who clears up was faster.
                Ok(_) => {}
                Err(error) => {
                    dir.remove(&name)?;
                    return Err(Error::io("lock", &dir.path().join(&name), error.into()));
                }
            }
        }
    }

    /// A writer of a blob that was promised, which goes on where an earlier one ended: in this process or another,
    /// now or before a crash. What that one left is read and hashed again, and [`BlobWriter::written`] says how much
    /// it is.
    ///
    /// If another writer has the blob in hand at this moment, this one begins anew beside it; the first to commit
    /// wins, and the other's commit succeeds too.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::ReadOnly`], [`ErrorKind::StorageFull`], [`ErrorKind::Io`].
    pub fn resume(&self, promise: &Descriptor) -> Result<BlobWriter> {
        let algorithm = promise.digest.algorithm();
        let dir = self.partial_dir()?;
        let name = format!("{algorithm}-{}", promise.digest.hex());
        loop {
            let file = match Locked::alone(dir.file_to_write(&name)?) {
                Ok(Some(file)) => file,
                Ok(None) => return self.writer(algorithm),
                Err(error) => return Err(Error::io("lock", &dir.path().join(&name), error.into())),
            };
            // Between opening and locking, the holder before us may have committed or cleared the file away.
            if is_in(&dir, &name, &file)? {
                let mut writer = self.start(dir, name, file, algorithm, true)?;
                writer.take_up(promise.size)?;
                return Ok(writer);
            }
        }
    }

    /// The bytes of unfinished blobs, of those that count: of which blobs they are is known if that was promised.
    pub(super) fn partial_bytes(&self, counts: impl Fn(Option<Digest>) -> bool) -> Result<u64> {
        let Some(dir) = self.existing_partial_dir()? else { return Ok(0) };
        let mut bytes: u64 = 0;
        for name in dir.names()? {
            if partial_of(&name).is_some_and(&counts)
                && let Some(stat) = dir.stat(&name)?
            {
                bytes = bytes.saturating_add(u64::try_from(stat.st_size).unwrap_or(0));
            }
        }
        Ok(bytes)
    }

    fn start(
        &self,
        dir: Dir,
        name: String,
        file: Locked<File>,
        algorithm: Algorithm,
        keep: bool,
    ) -> Result<BlobWriter> {
        let hasher = Hasher::new(algorithm);
        let (store, written, begun, published, arrival) = (self.clone(), 0, 0, false, None);
        Ok(BlobWriter { store, dir, name, file, hasher, algorithm, written, begun, keep, published, arrival })
    }
}

impl BlobWriter {
    /// How many bytes of the blob are here, earlier attempts included.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::StorageFull`], [`ErrorKind::Io`].
    pub fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(|error| Error::io("write", &self.dir.path().join(&self.name), error))?;
        self.hasher.update(bytes);
        self.written += bytes.len() as u64;
        if self.written - self.begun >= AHEAD {
            // Not the page that is written next.
            let end = self.written - self.written % AHEAD;
            self.store.durability.begin_sync(&self.file, self.begun, end);
            self.begun = end;
        }
        if let Some(arrival) = &self.arrival {
            arrival.wrote(self.written);
        }
        Ok(())
    }

    /// A reader of what is written, from the start, which ends when the blob is committed.
    #[cfg_attr(not(feature = "registry"), expect(dead_code, reason = "only pulls read what arrives"))]
    pub(crate) fn arriving(&mut self) -> Result<ArrivingBlob> {
        let fail = |error| Error::io("open", &self.dir.path().join(&self.name), error);
        let file = self.file.try_clone().map_err(fail)?;
        Ok(self.arrival.get_or_insert_with(|| Arrival::new(self.written)).reader(file))
    }

    /// Throws away what is here and begins anew.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`].
    pub fn restart(&mut self) -> Result<()> {
        self.hasher = Hasher::new(self.algorithm);
        (self.written, self.begun) = (0, 0);
        if let Some(arrival) = &self.arrival {
            arrival.restarted();
        }
        let emptied = self.file.set_len(0).and_then(|()| self.file.rewind());
        emptied.map_err(|error| Error::io("empty", &self.dir.path().join(&self.name), error))
    }

    /// The digest of what is here so far.
    pub fn digest(&self) -> Digest {
        self.hasher.clone().finish()
    }

    /// Gives what is here the name that was promised, if it is what was promised. The only way for bytes to get such
    /// a name.
    ///
    /// If the store has the blob already, and its file still holds it, that one stays.
    ///
    /// # Errors
    ///
    /// * [`ErrorKind::SizeMismatch`], [`ErrorKind::DigestMismatch`]: it is something else, and was thrown away.
    /// * [`ErrorKind::ReadOnly`], [`ErrorKind::StorageFull`], [`ErrorKind::Io`]: the operating system refuses. If it
    ///   refuses to bring the content to the disk, nothing is published; if only the directory, the blob is there, and
    ///   may not be after a power cut.
    pub fn commit_as(mut self, promise: &Descriptor) -> Result<()> {
        let mut commit = || {
            if let Err(error) = self.check(promise) {
                self.keep = false;
                return Err(error);
            }
            self.publish(promise)?;
            if let Some(arrival) = &self.arrival {
                arrival.committed();
            }
            Ok(())
        };
        commit().context(|| format!("blob {}", promise.digest))
    }

    /// The same, also where the store has the blob: that file is replaced.
    pub(super) fn replace_as(mut self, promise: &Descriptor) -> Result<()> {
        self.check(promise)?;
        self.put_in_place(promise)
    }

    /// Gives what is here the name that its content makes.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::ReadOnly`], [`ErrorKind::StorageFull`], [`ErrorKind::Io`].
    pub fn commit(mut self, media_type: MediaType) -> Result<Descriptor> {
        let descriptor = Descriptor::new(media_type, self.digest(), self.written);
        self.publish(&descriptor)?;
        Ok(descriptor)
    }

    fn check(&self, promise: &Descriptor) -> Result<()> {
        if self.written != promise.size {
            return Err(ErrorKind::SizeMismatch { expected: promise.size, found: self.written }.into());
        }
        let found = self.digest();
        if found != promise.digest {
            return Err(ErrorKind::DigestMismatch { expected: promise.digest, found }.into());
        }
        Ok(())
    }

    /// Sync, rename, sync the directory: in this order a power cut leaves the blob whole or not at all.
    fn publish(&mut self, promise: &Descriptor) -> Result<()> {
        let blobs = self.store.blobs_dir(self.algorithm)?;
        let name = promise.digest.hex().to_string();
        if self.store.contains(promise)? && holds(&blobs, &name, promise) {
            match self.store.settle(promise) {
                Err(error) if error.is_not_found() => {}
                done => {
                    self.keep = false;
                    return done;
                }
            }
        }
        self.put_in_place(promise)
    }

    fn put_in_place(&mut self, promise: &Descriptor) -> Result<()> {
        let blobs = self.store.blobs_dir(self.algorithm)?;
        let name = promise.digest.hex().to_string();
        self.store.hold(promise)?;
        self.check_file()?;
        // An earlier attempt may have written the last byte long ago; the blob is young all the same.
        self.dir.touch(&self.name)?;
        let mode = self.store.blob_mode()?;
        if mode != 0o400 {
            // Other users can read it after a power cut too.
            self.protect(mode | 0o200)?;
        }
        if let Err(error) = self.store.durability.sync_file(&self.file, &self.dir) {
            // After a failed sync nobody knows what of the file is on the disk, and the next sync would not say
            // either: the file is given up.
            self.keep = false;
            return Err(error);
        }
        self.dir.rename(&self.name, &blobs, &name)?;
        self.published = true;
        // Not before: what a crash leaves under its first name must still be writable for the next attempt.
        self.protect(mode)?;
        self.store.durability.sync_dir(&blobs)
    }

    fn protect(&self, mode: u32) -> Result<()> {
        let protected = self.file.set_permissions(Permissions::from_mode(mode));
        protected.map_err(|error| Error::io("protect", &self.dir.path().join(&self.name), error))
    }

    /// A write that failed in the middle, and was repeated, leaves more in the file than was counted and hashed.
    fn check_file(&mut self) -> Result<()> {
        let fail = |error| Error::io("read", &self.dir.path().join(&self.name), error);
        let found = self.file.metadata().map_err(fail)?.len();
        if found != self.written {
            self.keep = false;
            return Err(ErrorKind::SizeMismatch { expected: self.written, found }.into());
        }
        Ok(())
    }

    /// Reads what an earlier writer left, as far as it can be a part of the blob.
    fn take_up(&mut self, size: u64) -> Result<()> {
        let fail = |error| Error::io("read", &self.dir.path().join(&self.name), error);
        if self.file.metadata().map_err(fail)?.len() > size {
            return self.restart();
        }
        let mut buffer = vec![0; CHUNK];
        loop {
            let count = match self.file.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(fail(error)),
            };
            self.hasher.update(&buffer[..count]);
            self.written += count as u64;
        }
    }
}

impl BlobWriter {
    /// What is here so far, from its beginning.
    pub(crate) fn reader(&self) -> Written<'_> {
        Written { writer: self, at: 0 }
    }

    /// Closes the file, which stays aside: for whoever has more blobs in hand than files can be open.
    pub(crate) fn park(mut self) -> Result<Parked> {
        self.store.hold_partial(&self.name)?;
        self.published = true;
        let name = std::mem::take(&mut self.name);
        Ok(Parked { store: self.store.clone(), name, digest: self.digest(), size: self.written })
    }
}

/// What a writer has. Made by [`BlobWriter::reader`].
#[derive(Debug)]
pub(crate) struct Written<'a> {
    writer: &'a BlobWriter,
    at: u64,
}

impl Read for Written<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.writer.file.read_at(buffer, self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

/// A blob that is whole, aside and closed; it is removed when this is dropped. Nobody holds its lock, and only a lease
/// tells that it was not left behind: without one, it may be gone when it is taken up again.
#[derive(Debug)]
#[must_use = "what is not committed is not in the store"]
pub(crate) struct Parked {
    store: Store,
    name: String,
    digest: Digest,
    size: u64,
}

impl Parked {
    /// Opens the file again; its content is read and hashed again.
    pub(crate) fn reopen(mut self) -> Result<BlobWriter> {
        let dir = self.store.partial_dir()?;
        let name = std::mem::take(&mut self.name);
        let file = match Locked::alone(dir.file_to_write(&name)?) {
            Ok(Some(file)) if is_in(&dir, &name, &file)? => file,
            _ => return Err(Error::not_found(format!("blob {}, which was set aside,", self.digest))),
        };
        let mut writer = self.store.start(dir, name, file, self.digest.algorithm(), false)?;
        writer.take_up(self.size)?;
        Ok(writer)
    }
}

impl Drop for Parked {
    fn drop(&mut self) {
        if !self.name.is_empty()
            && let Ok(dir) = self.store.partial_dir()
        {
            // As where a writer is dropped: what stays is reclaimed some day.
            let _ = dir.remove(&self.name);
        }
    }
}

impl Write for BlobWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.append(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for BlobWriter {
    fn drop(&mut self) {
        if !self.published && (!self.keep || self.written == 0) {
            // Nobody can be told of a failure here; what stays is found by the next attempt.
            let _ = self.dir.remove(&self.name);
        }
    }
}

/// Whether a name is one of unfinished blobs, and of which blob, if that was promised.
pub(super) fn partial_of(name: &str) -> Option<Option<Digest>> {
    if let Some(random) = name.strip_prefix("new-") {
        return (random.len() == 16 && random.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(None);
    }
    name.replacen('-', ":", 1).parse().ok().map(Some)
}

/// Whether the open file is still the one that has this name.
pub(super) fn is_in(dir: &Dir, name: &str, file: &File) -> Result<bool> {
    let open = rustix::fs::fstat(file).map_err(|error| Error::io("read", &dir.path().join(name), error.into()))?;
    let there = dir.stat(name)?;
    Ok(there.is_some_and(|stat| stat.st_ino == open.st_ino && stat.st_dev == open.st_dev))
}

fn is_taken(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Io { source, .. } if source.kind() == io::ErrorKind::AlreadyExists)
}
