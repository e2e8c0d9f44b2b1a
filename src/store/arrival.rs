//! Reading a blob while it arrives.
//!
//! What a writer has, others may read at once, from the same file: what was just written is still in memory. Such a
//! reader ends only when the writer found the blob to be what was promised, and committed it.

use std::fs::File;
use std::io;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::PoisonError;

use crate::sync::lock;

/// A blob on its way, as those see it who read it meanwhile.
#[derive(Debug, Default)]
struct State {
    /// How many bytes are in the file.
    written: u64,
    /// How often what was there was thrown away.
    restarts: u32,
    /// Whether the blob was committed, once that is known.
    is_whole: Option<bool>,
    /// Whether anybody read of what is there.
    is_read: bool,
    /// Whether somebody read what was not the blob, or could not read it to its end.
    is_torn: bool,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut lock(&self.state));
        self.changed.notify_all();
    }
}

/// The writer's side. Dropped before the blob was committed, it says that the blob will not come.
#[derive(Debug)]
pub(super) struct Arrival(Arc<Shared>);

impl Arrival {
    /// Of a file that has so many bytes.
    pub(super) fn new(written: u64) -> Arrival {
        let state = State { written, ..State::default() };
        Arrival(Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() }))
    }

    pub(super) fn reader(&self, file: File) -> ArrivingBlob {
        ArrivingBlob { file, at: 0, restarts: 0, shared: Arc::clone(&self.0) }
    }

    pub(super) fn wrote(&self, written: u64) {
        self.0.change(|state| state.written = written);
    }

    pub(super) fn restarted(&self) {
        self.0.change(|state| {
            state.written = 0;
            state.restarts += 1;
            state.is_torn |= std::mem::take(&mut state.is_read);
        });
    }

    pub(super) fn committed(&self) {
        self.0.change(|state| state.is_whole = Some(true));
    }
}

impl Drop for Arrival {
    fn drop(&mut self) {
        self.0.change(|state| {
            let is_whole = *state.is_whole.get_or_insert(false);
            state.is_torn |= state.is_read && !is_whole;
        });
    }
}

/// A reader of a blob that is being written. It waits for what is not there yet, and ends when the blob was committed.
#[derive(Debug)]
pub(crate) struct ArrivingBlob {
    file: File,
    at: u64,
    restarts: u32,
    shared: Arc<Shared>,
}

/// What became of a blob that was read while it arrived.
#[cfg(feature = "registry")]
#[derive(Debug)]
pub(crate) struct Trace(Arc<Shared>);

#[cfg(feature = "registry")]
impl Trace {
    /// Whether something was read that was not the blob, or that ended too early: also where its reader never came to
    /// know, because it made no sense of it.
    pub(crate) fn is_torn(&self) -> bool {
        lock(&self.0.state).is_torn
    }
}

/// Why a blob cannot be read to its end while it arrives. The writer's error says more, or the blob is in the store.
#[derive(Debug, thiserror::Error)]
#[error("the blob did not arrive in one piece")]
pub(crate) struct NotArrived;

impl ArrivingBlob {
    /// What tells later what became of it.
    #[cfg(feature = "registry")]
    pub(crate) fn trace(&self) -> Trace {
        Trace(Arc::clone(&self.shared))
    }

    /// How many bytes there are to be read, as soon as there are any; none at the end.
    fn available(&mut self) -> io::Result<u64> {
        let mut state = lock(&self.shared.state);
        loop {
            if state.restarts != self.restarts && self.at > 0 {
                return Err(io::Error::other(NotArrived));
            }
            self.restarts = state.restarts;
            match state.is_whole {
                _ if state.written > self.at => {
                    state.is_read = true;
                    return Ok(state.written - self.at);
                }
                Some(true) => return Ok(0),
                Some(false) => return Err(io::Error::other(NotArrived)),
                None => state = self.shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    fn try_read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.available()?;
        let most = usize::try_from(available).map_or(buffer.len(), |available| available.min(buffer.len()));
        let count = self.file.read_at(&mut buffer[..most], self.at)?;
        if count == 0 && most > 0 {
            // It was thrown away at this moment.
            return Err(io::Error::other(NotArrived));
        }
        self.at += count as u64;
        Ok(count)
    }
}

impl Read for ArrivingBlob {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let result = self.try_read(buffer);
        if result.as_ref().is_err_and(|error| error.kind() != io::ErrorKind::Interrupted) {
            lock(&self.shared.state).is_torn = true;
        }
        result
    }
}
