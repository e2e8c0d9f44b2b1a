//! Reading blobs.

use std::fs::File;
use std::io;
use std::io::Read;
use std::time::Duration;
use std::time::SystemTime;

use rustix::fs::Stat;

use super::Durability;
use super::Store;
use super::age;
use super::layout::BLOBS;
use super::lease::is_unwritable;

use crate::descriptor::Descriptor;
use crate::digest::Algorithm;
use crate::digest::Digest;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Limit;
use crate::error::Result;
use crate::fs::dir::Dir;
use crate::fs::dir::is_file_of;
use crate::fs::dir::modified;
use crate::manifest::MAX_DOCUMENT;
use crate::media_type::MediaType;
use crate::verify::VerifiedReader;

/// A blob that is younger is as good as new. Far less than the age at which `gc` collects.
const FRESH: Duration = Duration::from_secs(10 * 60);

/// A reader of a blob that reports its end only after size and digest held. Made by [`Store::blob`].
pub type BlobReader = VerifiedReader<File>;

impl Store {
    /// Whether the store has the blob, as a file of the promised size. The content is checked when it is read.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`] if the operating system refuses to say.
    pub fn contains(&self, blob: &Descriptor) -> Result<bool> {
        self.hold(blob)?;
        let Some(dir) = self.existing_blobs_dir(blob.digest.algorithm())? else { return Ok(false) };
        let stat = dir.stat(&blob.digest.hex().to_string())?;
        Ok(stat.is_some_and(|stat| is_file_of(&stat, blob.size)))
    }

    /// A reader of the blob.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`] if it is not there;
    /// [`ErrorKind::SizeMismatch`] if its file has another size;
    /// [`ErrorKind::Io`] if its place is taken by something that is no regular file. The
    /// reader fails with [`ErrorKind::DigestMismatch`] at its end if the content is
    /// another.
    pub fn blob(&self, blob: &Descriptor) -> Result<BlobReader> {
        let file = self.open_blob(blob)?;
        Ok(VerifiedReader::new(file, blob))
    }

    /// The content of a small blob: a manifest, an index or a configuration.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::LimitExceeded`] if it is promised to be larger than 8 MiB;
    /// those of [`blob`](Store::blob) and its reader.
    pub fn read(&self, blob: &Descriptor) -> Result<Vec<u8>> {
        if blob.size > MAX_DOCUMENT {
            return Err(Error::limit(Limit::DocumentSize, MAX_DOCUMENT));
        }
        let read = || {
            // The file has the promised size; so many bytes, and their digest, are all there is to check.
            let mut content = vec![0; usize::try_from(blob.size).unwrap_or(0)];
            self.open_blob(blob)?.read_exact(&mut content)?;
            crate::verify::check(blob, &content)?;
            Ok(content)
        };
        read().map_err(|error: Error| error.context(format!("blob {}", blob.digest)))
    }

    /// The digests and sizes in bytes of all blobs, in no order. What lies among them and is named otherwise is left
    /// out.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`] if a directory cannot be read.
    pub fn blobs(&self) -> Result<impl Iterator<Item = Result<(Digest, u64)>> + use<>> {
        let mut found = Vec::new();
        for algorithm in Algorithm::ALL {
            let Some(dir) = self.existing_blobs_dir(algorithm)? else { continue };
            let names = dir.names()?;
            found.extend(names.into_iter().filter_map(|name| blob_size(dir, algorithm, &name).transpose()));
        }
        Ok(found.into_iter())
    }

    /// Takes in content that is in memory, by SHA-256; content that is there already is not written again.
    ///
    /// # Errors
    ///
    /// Those of [`BlobWriter::commit_as`](super::BlobWriter::commit_as).
    pub fn write(&self, media_type: MediaType, content: &[u8]) -> Result<Descriptor> {
        let promise = Descriptor::of(media_type, content);
        self.write_as(&promise, content)?;
        Ok(promise)
    }

    /// The same under a promise that the content must keep.
    pub(crate) fn write_as(&self, promise: &Descriptor, content: &[u8]) -> Result<()> {
        crate::verify::check(promise, content)?;
        if self.contains(promise)? && self.read(promise).is_ok_and(|found| found == content) {
            match self.settle(promise) {
                // Nobody pinned it, and it was just collected.
                Err(error) if error.is_not_found() => {}
                done => return done,
            }
        }
        let mut writer = self.writer(promise.digest.algorithm())?;
        writer.append(content)?;
        writer.commit_as(promise)
    }

    /// The size in bytes of the blob with this digest; none if the store does not have it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`] if the operating system refuses to say.
    pub fn size_of(&self, digest: Digest) -> Result<Option<u64>> {
        let Some(dir) = self.existing_blobs_dir(digest.algorithm())? else { return Ok(None) };
        Ok(blob_size(dir, digest.algorithm(), &digest.hex().to_string())?.map(|(_, size)| size))
    }

    /// Brings a blob that is there to the disk, whoever wrote it and with whatever durability: what is relied on is
    /// promised anew, and as young as if it had just come. Costs little where it is there already.
    pub(crate) fn settle(&self, blob: &Descriptor) -> Result<()> {
        match self.freshen(blob) {
            // A process that cannot write there collects nothing either.
            Err(error) if is_unwritable(&error) => {}
            done => done?,
        }
        if self.durability == Durability::None {
            return Ok(());
        }
        let dir = self.blobs_dir(blob.digest.algorithm())?;
        if self.durability.sync_file(&self.open_blob(blob)?, &dir).is_err() {
            // Nobody knows what of the file is on the disk, and the next sync of it would not say.
            return self.write_again(blob);
        }
        self.durability.sync_dir(&dir)
    }

    /// Notes that an image is used: when that was last is the time of its root's file.
    pub(crate) fn note_use(&self, root: &Descriptor) {
        if self.private().is_ok_and(|private| private.is_some()) {
            // What cannot be noted is forgotten.
            let _ = self.freshen(root);
        }
    }

    /// Makes a blob that is there young, so that `gc` spares it as it spares one that was just written.
    fn freshen(&self, blob: &Descriptor) -> Result<()> {
        self.hold(blob)?;
        let missing = || Error::not_found(format!("blob {}", blob.digest));
        let dir = self.existing_blobs_dir(blob.digest.algorithm())?.ok_or_else(missing)?;
        let name = blob.digest.hex().to_string();
        let is_fresh = |stat: &Stat| age(modified(stat), SystemTime::now()).is_some_and(|age| age < FRESH);
        if dir.stat(&name)?.as_ref().is_some_and(is_fresh) {
            return Ok(());
        }
        let _held = self.hold_off_sweeps()?;
        if dir.stat(&name)?.is_none() {
            return Err(missing());
        }
        dir.touch(&name)
    }

    /// Puts a blob's content, verified, into a new file in the place of its old one.
    fn write_again(&self, blob: &Descriptor) -> Result<()> {
        let mut writer = self.writer(blob.digest.algorithm())?;
        io::copy(&mut self.blob(blob)?, &mut writer)?;
        writer.replace_as(blob)
    }

    /// The file of the blob, in its promised size and not verified.
    pub(crate) fn open_blob(&self, blob: &Descriptor) -> Result<File> {
        self.hold(blob)?;
        let missing = || Error::not_found(format!("blob {}", blob.digest));
        let dir = self.existing_blobs_dir(blob.digest.algorithm())?.ok_or_else(missing)?;
        let opened = dir.file_and_size(&blob.digest.hex().to_string());
        let (file, found) = opened.map_err(|error| if error.is_not_found() { missing() } else { error })?;
        if found != blob.size {
            return Err(ErrorKind::SizeMismatch { expected: blob.size, found }.into());
        }
        Ok(file)
    }

    /// The folder of the blobs of one algorithm, if it is there. It is opened once, like the store itself.
    pub(super) fn existing_blobs_dir(&self, algorithm: Algorithm) -> Result<Option<&Dir>> {
        let folder = &self.shared.blobs[algorithm as usize];
        if let Some(dir) = folder.get() {
            return Ok(Some(dir));
        }
        match self.dir().dir(BLOBS)?.dir(algorithm.name()) {
            Ok(dir) => Ok(Some(folder.get_or_init(|| dir))),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn blob_size(dir: &Dir, algorithm: Algorithm, name: &str) -> Result<Option<(Digest, u64)>> {
    let Ok(digest) = format!("{algorithm}:{name}").parse::<Digest>() else { return Ok(None) };
    let Some(stat) = dir.stat(name)? else { return Ok(None) };
    let size = u64::try_from(stat.st_size).unwrap_or(0);
    Ok(is_file_of(&stat, size).then_some((digest, size)))
}

/// Whether the file `name` in `dir` has the promised content.
pub(super) fn holds(dir: &Dir, name: &str, promise: &Descriptor) -> bool {
    dir.file(name).is_ok_and(|file| is_whole(&file, promise))
}

/// The same of an open file, read from its beginning.
pub(super) fn is_whole(file: &File, promise: &Descriptor) -> bool {
    io::copy(&mut VerifiedReader::new(file, promise), &mut io::sink()).is_ok()
}
