//! Layers on their way, for whoever wants to read them before they are there.

use std::collections::HashMap;
use std::io::Read;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::PoisonError;

use crate::descriptor::Descriptor;
use crate::digest::Digest;
use crate::error::Error;
use crate::error::Result;
use crate::store::ArrivingBlob;
use crate::store::NotArrived;
use crate::store::Store;
use crate::sync::lock;

/// What became of the blobs of a pull so far.
#[derive(Debug, Default)]
pub(super) struct Arrivals {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Blobs that are being written, or are in the store.
    known: HashMap<Digest, Option<ArrivingBlob>>,
    /// No more will come.
    is_over: bool,
}

/// A blob to be read.
pub(super) enum Arrived {
    /// While it is being written: it ends only if it was verified.
    Arriving(ArrivingBlob),
    /// In the store.
    Stored,
}

impl Arrivals {
    /// A blob is in the store, or will be when this reader ends.
    pub(super) fn put(&self, blob: Digest, arriving: Option<ArrivingBlob>) {
        lock(&self.state).known.insert(blob, arriving);
        self.changed.notify_all();
    }

    /// Who waits for more waits in vain.
    pub(super) fn end(&self) {
        lock(&self.state).is_over = true;
        self.changed.notify_all();
    }

    /// The blob, as soon as there is anything of it. Who asks a second time must have read it to its end.
    pub(super) fn take(&self, blob: Digest) -> Result<Arrived> {
        let mut state = lock(&self.state);
        loop {
            match state.known.get_mut(&blob).map(Option::take) {
                Some(Some(arriving)) => return Ok(Arrived::Arriving(arriving)),
                Some(None) => return Ok(Arrived::Stored),
                None if state.is_over => return Err(std::io::Error::other(NotArrived).into()),
                None => state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    /// The blob as a stream, and whether what it gives was verified by nobody yet.
    pub(super) fn open(&self, store: &Store, blob: &Descriptor) -> Result<(Box<dyn Read + Send>, bool)> {
        match self.take(blob.digest)? {
            Arrived::Arriving(arriving) => Ok((Box::new(arriving), false)),
            Arrived::Stored => Ok((Box::new(store.open_blob(blob)?), true)),
        }
    }
}

/// Whether a layer could not be read because it did not arrive, or not in one piece.
pub(super) fn is_not_arrived(error: &Error) -> bool {
    let crate::error::ErrorKind::Io { source, .. } = error.kind() else { return false };
    source.get_ref().is_some_and(|inner| inner.is::<NotArrived>())
}
