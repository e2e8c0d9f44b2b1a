//! Images of tarballs.

use std::fmt;
use std::io;
use std::io::Read;
use std::time::SystemTime;

use super::intake::Budget;
use super::intake::Intake;

use crate::changeset::Entries;
use crate::changeset::Limits;
use crate::compression::Compression;
use crate::descriptor::Descriptor;
use crate::digest::Algorithm;
use crate::digest::Hasher;
use crate::error::Context;
use crate::error::Result;
use crate::event::Cancel;
use crate::image::Draft;
use crate::image::NewLayer;
use crate::manifest::ConfigEdit;
use crate::manifest::History;
use crate::platform::Platform;
use crate::store::BlobWriter;
use crate::store::Store;

/// What Docker says of an image that was read from a pipe.
const COMMENT: &str = "Imported from -";

/// A tarball that is about to become an image. Made by [`import`](super::import()); [`to`](Import::to) makes it.
#[must_use = "nothing is read before `to`"]
pub struct Import<R> {
    tarball: R,
    comment: String,
    created: Option<SystemTime>,
    platform: Platform,
    config: ConfigEdit,
    limits: Limits,
    cancel: Cancel,
}

impl<R: Read> Import<R> {
    pub(super) fn new(tarball: R) -> Import<R> {
        Import {
            tarball,
            comment: COMMENT.to_owned(),
            created: None,
            platform: Platform::host(),
            config: ConfigEdit::new(),
            limits: Limits::default(),
            cancel: Cancel::new(),
        }
    }

    /// What the history says of the layer: `Imported from -` unless this is called, as Docker has it.
    pub fn comment(self, comment: &str) -> Import<R> {
        Import { comment: comment.to_owned(), ..self }
    }

    /// When the image was made. Unless this is called it does not say: the clock is not asked.
    pub fn created(self, time: SystemTime) -> Import<R> {
        Import { created: Some(time), ..self }
    }

    /// What it runs on: this machine's platform unless this is called.
    pub fn platform(self, platform: Platform) -> Import<R> {
        Import { platform, ..self }
    }

    /// What the configuration says.
    ///
    /// ```
    /// # use layercake::{Store, archive, manifest::ConfigEdit};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("store"))?;
    /// # let tarball = [0; 1024];
    /// let config = ConfigEdit::new().cmd(["/bin/sh"]).env("LANG", "C");
    /// let image = archive::import(&tarball[..]).config(config).to(&store)?;
    /// # assert_eq!(store.image_at(&image)?.config()?.env(), ["LANG=C"]);
    /// # Ok::<(), layercake::Error>(())
    /// ```
    pub fn config(self, config: ConfigEdit) -> Import<R> {
        Import { config, ..self }
    }

    /// What is refused because it is too much: the tarball's entries and bytes, as with
    /// [`apply`](crate::changeset::apply).
    pub fn limits(self, limits: Limits) -> Import<R> {
        Import { limits, ..self }
    }

    /// A switch that ends the work.
    pub fn cancel(self, cancel: &Cancel) -> Import<R> {
        Import { cancel: cancel.clone(), ..self }
    }

    /// Reads the tarball, all its entries, and makes the image: an OCI manifest, which is returned. Nothing is named; to
    /// do that is for the caller, by [`Store::tag`].
    ///
    /// # Errors
    ///
    /// * [`ErrorKind::InvalidLayer`](crate::ErrorKind::InvalidLayer): it is no tar, or has an entry that could not be
    ///   applied; [`ErrorKind::InvalidArchive`](crate::ErrorKind::InvalidArchive): it is empty.
    /// * [`ErrorKind::Compression`](crate::ErrorKind::Compression): it cannot be decompressed.
    /// * [`ErrorKind::LimitExceeded`](crate::ErrorKind::LimitExceeded): there is too much of something.
    /// * [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput): a variable's name is empty or has a `=`; a time
    ///   is not one of the years -9999 to 9999.
    /// * [`ErrorKind::Cancelled`](crate::ErrorKind::Cancelled): the switch was thrown.
    /// * [`ErrorKind::ReadOnly`](crate::ErrorKind::ReadOnly),
    ///   [`ErrorKind::StorageFull`](crate::ErrorKind::StorageFull), [`ErrorKind::Io`](crate::ErrorKind::Io): the
    ///   operating system refuses, or the reader fails.
    pub fn to(mut self, store: &Store) -> Result<Descriptor> {
        let mut import = || {
            let store = &store.leased()?;
            let mut draft = Draft::scratch(store, &self.platform)?;
            draft.edit(&self.config)?;
            let step = History { comment: Some(self.comment.clone()), ..History::at(self.created)? };
            if let Some(time) = self.created {
                draft.set_created(time)?;
            }
            let (layer, _) = take_layer(&mut self.tarball, store, self.limits, &self.cancel)?;
            draft.push(&step, Some(&layer))?;
            Ok(draft.finish()?.descriptor())
        };
        import().context(|| "import a tarball")
    }
}

/// Takes a tarball in as a layer, as it is. All its entries are read.
pub(crate) fn take_layer(
    mut tarball: impl Read,
    store: &Store,
    limits: Limits,
    cancel: &Cancel,
) -> Result<(NewLayer, Compression)> {
    let mut writer = store.writer(Algorithm::Sha256)?;
    let tee = Tee { reader: &mut tarball, writer: &mut writer };
    let intake = Intake::new(tee, &Budget::new(limits), cancel)?;
    let compression = intake.compression();
    let mut hashed = Hashed { inner: intake, hasher: Hasher::new(Algorithm::Sha256), size: 0 };
    let mut entries = Entries::new(io::BufReader::with_capacity(64 << 10, &mut hashed), limits);
    while entries.advance()? {}
    drop(entries);
    let (diff_id, size) = (hashed.hasher.finish(), hashed.size);
    drop(hashed.inner);
    store.keep_size(diff_id, size);
    Ok((NewLayer { blob: writer.commit(compression.oci_layer())?, diff_id }, compression))
}

impl<R> fmt::Debug for Import<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Import")
            .field("comment", &self.comment)
            .field("platform", &self.platform)
            .finish_non_exhaustive()
    }
}

/// Keeps what is read.
struct Tee<'a, R> {
    reader: R,
    writer: &'a mut BlobWriter,
}

impl<R: Read> Read for Tee<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        self.writer.append(&buffer[..count])?;
        Ok(count)
    }
}

/// Hashes and counts what is read.
struct Hashed<R> {
    inner: R,
    hasher: Hasher,
    size: u64,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        self.size += count as u64;
        Ok(count)
    }
}
