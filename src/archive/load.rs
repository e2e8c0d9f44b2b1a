//! Reading archives into a store.

use std::fmt;
use std::io::Read;

use super::docker;
use super::members;
use super::members::Members;
use super::oci;
use super::plan::Loaded;
use super::plan::Plan;
use super::plan::Source;

use crate::changeset::Limits;
use crate::error::Context;
use crate::error::Error;
use crate::error::Result;
use crate::event::Cancel;
use crate::event::Event;
use crate::event::Observer;
use crate::event::Silent;
use crate::store::Store;

/// How many members an archive has at most, unless the caller says otherwise: some 15,000 layers.
const MAX_MEMBERS: u64 = 50_000;
/// How long a member's path is at most. The longest that a document can need is `blobs/sha512/…`, of 141 bytes.
const MAX_PATH: u64 = 256;

/// An archive that is about to be read. Made by [`load`](super::load); [`to`](Load::to) reads it.
#[must_use = "nothing is read before `to`"]
pub struct Load<'a, R> {
    reader: R,
    limits: Limits,
    observer: &'a dyn Observer,
    cancel: Cancel,
}

impl<'a, R: Read> Load<'a, R> {
    pub(super) fn new(reader: R) -> Load<'a, R> {
        let limits = Limits { entries: MAX_MEMBERS, path_bytes: MAX_PATH, ..Limits::default() };
        Load { reader, limits, observer: &Silent, cancel: Cancel::new() }
    }

    /// What is refused because it is too much: of the archive's entries, its unpacked bytes, the bytes of a member and
    /// of its path, the layers of an image. Unpacked bytes are those of the archive and of all compressed layers that
    /// are read in it together. By default 50,000 entries with paths of 256 bytes, and else what layers may have.
    pub fn limits(self, limits: Limits) -> Load<'a, R> {
        Load { limits, ..self }
    }

    /// Whom to tell of [`Event::Finished`]: a blob is in the store.
    pub fn observer(self, observer: &'a dyn Observer) -> Load<'a, R> {
        Load { observer, ..self }
    }

    /// A switch that ends the work.
    pub fn cancel(self, cancel: &Cancel) -> Load<'a, R> {
        Load { cancel: cancel.clone(), ..self }
    }

    /// Reads the archive to its end, and then puts what images lead to into the store. Nothing is named: to do that, or
    /// not, is for the caller, by [`Store::tag`].
    ///
    /// Until all was read and found right nobody sees anything of it; what an attempt leaves that is killed is
    /// reclaimed like an unfinished download.
    ///
    /// # Errors
    ///
    /// * [`ErrorKind::InvalidArchive`](crate::ErrorKind::InvalidArchive): it is no tar; it has no images; a path or a
    ///   link leads out of it; a member comes twice and differs; links lead in circles.
    /// * [`ErrorKind::NotFound`](crate::ErrorKind::NotFound): a document leads to a member that is not there.
    /// * [`ErrorKind::DigestMismatch`](crate::ErrorKind::DigestMismatch),
    ///   [`ErrorKind::SizeMismatch`](crate::ErrorKind::SizeMismatch): a member is not what its name, or the document
    ///   that leads to it, says.
    /// * [`ErrorKind::InvalidDocument`](crate::ErrorKind::InvalidDocument) and the others of
    ///   [`Root::parse`](crate::manifest::Root::parse): a document is not what it must be.
    /// * [`ErrorKind::LimitExceeded`](crate::ErrorKind::LimitExceeded): there is too much of something.
    /// * [`ErrorKind::Compression`](crate::ErrorKind::Compression): it cannot be decompressed.
    /// * [`ErrorKind::Cancelled`](crate::ErrorKind::Cancelled): the switch was thrown.
    /// * [`ErrorKind::ReadOnly`](crate::ErrorKind::ReadOnly),
    ///   [`ErrorKind::StorageFull`](crate::ErrorKind::StorageFull), [`ErrorKind::Io`](crate::ErrorKind::Io): the
    ///   operating system refuses, or the reader fails.
    pub fn to(self, store: &Store) -> Result<Loaded> {
        let Load { reader, limits, observer, cancel } = self;
        let load = || {
            let store = &store.leased()?;
            let mut members = Members::read(reader, store, limits, &cancel)?;
            let plan = plan(&mut members, limits, &cancel)?;
            for (promise, source) in plan.blobs {
                cancel.check()?;
                match source {
                    Source::Member(number) => members.commit(number, &promise)?,
                    Source::Made(item) => store.write_as(&promise, &docker::manifest(&members, &item)?)?,
                }
                observer.event(&Event::Finished { blob: &promise });
            }
            Ok(plan.loaded)
        };
        load().context(|| "load an archive")
    }
}

impl<R> fmt::Debug for Load<'_, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Load").field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// An archive that is a layout is read as one, because manifests keep their digests so; Docker's own file beside it adds
/// names.
fn plan(members: &mut Members, limits: Limits, cancel: &Cancel) -> Result<Plan> {
    let is_layout = members.document(members::LAYOUT).is_some() && members.document(members::INDEX).is_some();
    let is_docker = members.document(members::MANIFEST).is_some();
    let mut plan = Plan::default();
    match (is_layout, is_docker) {
        (true, _) => oci::plan(members, limits, &mut plan)?,
        (false, true) => docker::plan(members, limits, cancel, &mut plan)?,
        (false, false) => {
            let reason = "it has neither manifest.json, as `docker save` writes it, nor oci-layout and index.json";
            return Err(Error::invalid_archive(reason));
        }
    }
    if is_layout && is_docker {
        docker::add_names(members, &mut plan)?;
    }
    Ok(plan)
}
