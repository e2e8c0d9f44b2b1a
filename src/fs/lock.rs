//! Advisory locks between processes and threads.

use std::fs::File;
use std::fs::TryLockError;
use std::time::Duration;
use std::time::Instant;

use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::fs::dir::Dir;

const FIRST_PAUSE: Duration = Duration::from_micros(200);
const LONGEST_PAUSE: Duration = Duration::from_millis(20);

/// A lock that is held until this is dropped, or its process dies.
///
/// It is `flock`'s, on an open file: two handles in one process exclude each other as two processes do. The file
/// stays when the lock is given back, so there is no moment at which two holders lock two files of one name.
#[derive(Debug)]
#[must_use = "the lock is given back when this is dropped"]
pub(crate) struct Lock(#[expect(dead_code, reason = "held for its drop")] File);

impl Lock {
    /// Takes the lock on the file `name` in `dir`, waiting at most `limit` for others.
    pub(crate) fn acquire(dir: &Dir, name: &str, limit: Duration) -> Result<Lock> {
        let file = dir.file_to_write(name)?;
        let start = Instant::now();
        let mut pause = FIRST_PAUSE;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Lock(file)),
                Err(TryLockError::Error(error)) => return Err(Error::io("lock", &dir.path().join(name), error)),
                Err(TryLockError::WouldBlock) => {}
            }
            let waited = start.elapsed();
            if waited >= limit {
                return Err(ErrorKind::Locked { path: dir.path().join(name), waited }.into());
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}
