//! Locks between threads.

use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

/// Takes a lock whatever happened to its last holder. What lies behind this crate's locks is whole at every moment, so a
/// panic elsewhere (in an observer, say) is no reason for another.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
