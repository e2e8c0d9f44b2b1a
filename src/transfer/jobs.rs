//! Several things at once, results in order.

use std::num::NonZeroUsize;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use crate::error::Error;
use crate::error::Result;
use crate::event::Watch;
use crate::sync::lock;

/// Does `job` for every item on at most `threads` threads. The results come in the items' order. The first failure
/// stops the others, and is the one reported.
pub(super) fn run<I: Sync, T: Send>(
    items: &[I],
    threads: NonZeroUsize,
    watch: &Watch<'_>,
    job: impl Fn(&I) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let next = AtomicUsize::new(0);
    let failure: Mutex<Option<Error>> = Mutex::new(None);
    let results: Vec<Mutex<Option<T>>> = items.iter().map(|_| Mutex::new(None)).collect();
    let work = || {
        let _guard = StopOnPanic(&watch.stop);
        while !watch.stop.load(Ordering::Relaxed) {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(at) else { return };
            match job(item) {
                Ok(result) => *lock(&results[at]) = Some(result),
                Err(error) => {
                    lock(&failure).get_or_insert(error);
                    watch.stop.store(true, Ordering::Relaxed);
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads.get().min(items.len()) {
            // Where the system gives no more threads, those that there are do the work.
            if std::thread::Builder::new().spawn_scoped(scope, work).is_err() {
                break;
            }
        }
        work();
    });
    match failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(error) => Err(error),
        None => {
            Ok(results.into_iter().filter_map(|r| r.into_inner().unwrap_or_else(PoisonError::into_inner)).collect())
        }
    }
}

/// A job that panics, in an observer say, stops the others too; the scope then passes the panic on.
struct StopOnPanic<'a>(&'a AtomicBool);

impl Drop for StopOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.store(true, Ordering::Relaxed);
        }
    }
}
