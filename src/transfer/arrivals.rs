//! Layers on their way, for whoever wants to read them before they are there.

use std::collections::HashMap;
use std::io;
use std::io::Read;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::PoisonError;

use crate::descriptor::Descriptor;
use crate::digest::Digest;
use crate::error::Result;
use crate::store::ArrivingBlob;
use crate::store::NotArrived;
use crate::store::Store;
use crate::store::Trace;
use crate::sync::lock;

/// What became of the blobs of a pull so far.
#[derive(Debug, Default)]
pub(super) struct Arrivals {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    known: HashMap<Digest, Arrived>,
    /// Of those that were being written when they became known.
    traces: Vec<Trace>,
    /// No more will come.
    is_over: bool,
    /// Whether somebody waited for what did not come.
    is_missed: bool,
}

/// Where a blob is.
#[derive(Debug)]
pub(super) enum Arrived {
    /// On its way: the reader ends only if it was verified.
    Arriving(ArrivingBlob),
    /// In the store, where this pull brought it; or will be, when the one reader of it has ended.
    Verified,
    /// In the store, for how long nobody knows.
    Stored,
}

impl Arrivals {
    /// A blob is there, or on its way.
    pub(super) fn put(&self, blob: Digest, arrived: Arrived) {
        let mut state = lock(&self.state);
        if let Arrived::Arriving(arriving) = &arrived {
            state.traces.push(arriving.trace());
        }
        // A reader that nobody took is closed here: however many layers wait, no more files are open than are written.
        state.known.insert(blob, arrived);
        self.changed.notify_all();
    }

    /// Who waits for more waits in vain.
    pub(super) fn end(&self) {
        lock(&self.state).is_over = true;
        self.changed.notify_all();
    }

    /// The blob, as soon as there is anything of it. Who asks a second time must have read it to its end.
    fn take(&self, blob: Digest) -> Result<Arrived> {
        let mut state = lock(&self.state);
        loop {
            if let Some(arrived) = state.known.get_mut(&blob) {
                return Ok(match arrived {
                    Arrived::Stored => Arrived::Stored,
                    other => std::mem::replace(other, Arrived::Verified),
                });
            }
            if state.is_over {
                state.is_missed = true;
                return Err(io::Error::other(NotArrived).into());
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Whether something that was read did not arrive, or not in one piece: then that is why it could not be applied.
    pub(super) fn is_broken(&self) -> bool {
        let state = lock(&self.state);
        state.is_missed || state.traces.iter().any(Trace::is_torn)
    }

    /// The blob as a stream, and whether what it gives was verified by nobody yet.
    pub(super) fn open(&self, store: &Store, blob: &Descriptor) -> Result<(Box<dyn Read + Send>, bool)> {
        match self.take(blob.digest)? {
            Arrived::Arriving(arriving) => Ok((Box::new(arriving), false)),
            Arrived::Verified => Ok((Box::new(store.open_blob(blob)?), false)),
            Arrived::Stored => Ok((Box::new(store.open_blob(blob)?), true)),
        }
    }
}
