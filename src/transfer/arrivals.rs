//! Layers on their way, for whoever wants to read them before they are there.

use std::collections::HashMap;
use std::io;
use std::io::Read;
use std::sync::Arc;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use crate::descriptor::Descriptor;
use crate::digest::Digest;
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
    /// Whether something that was read did not arrive, or not in one piece.
    is_broken: Arc<AtomicBool>,
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
                None if state.is_over => {
                    self.is_broken.store(true, Ordering::Relaxed);
                    return Err(io::Error::other(NotArrived).into());
                }
                None => state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    /// Whether something that was read did not arrive, or not in one piece: then that is why it could not be applied.
    pub(super) fn is_broken(&self) -> bool {
        self.is_broken.load(Ordering::Relaxed)
    }

    /// The blob as a stream, and whether what it gives was verified by nobody yet.
    pub(super) fn open(&self, store: &Store, blob: &Descriptor) -> Result<(Box<dyn Read + Send>, bool)> {
        match self.take(blob.digest)? {
            Arrived::Arriving(arriving) => {
                let is_broken = Arc::clone(&self.is_broken);
                Ok((Box::new(Watched { arriving, is_broken }), false))
            }
            Arrived::Stored => Ok((Box::new(store.open_blob(blob)?), true)),
        }
    }
}

/// Notes it if the blob does not arrive.
struct Watched {
    arriving: ArrivingBlob,
    is_broken: Arc<AtomicBool>,
}

impl Read for Watched {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let result = self.arriving.read(buffer);
        if result.is_err() {
            self.is_broken.store(true, Ordering::Relaxed);
        }
        result
    }
}
