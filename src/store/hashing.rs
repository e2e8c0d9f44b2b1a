//! Reading many blobs at once, each to its end.

use std::io::Read;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use super::Store;
use super::problem::CheckOptions;

use crate::digest::Digest;
use crate::digest::Hasher;
use crate::error::Error;
use crate::error::Result;
use crate::event::Event;
use crate::sync::lock;

/// How much is read and hashed at a time.
const CHUNK: usize = 256 << 10;
/// How much is read before the observer hears of it.
const NEWS: u64 = 4 << 20;

/// Hashes blobs on several threads, the largest first. Says of each what its content is; of one that went away meanwhile,
/// nothing.
pub(super) fn hash(
    store: &Store,
    blobs: &[(Digest, u64)],
    options: &CheckOptions<'_>,
) -> Result<Vec<(Digest, u64, Digest)>> {
    let mut order: Vec<&(Digest, u64)> = blobs.iter().collect();
    order.sort_by_key(|(digest, size)| (std::cmp::Reverse(*size), *digest));
    let progress = Progress { done: AtomicU64::new(0), total: blobs.iter().map(|(_, size)| size).sum(), options };
    let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let hashed = Mutex::new(Vec::with_capacity(blobs.len()));
    let failure: Mutex<Option<Error>> = Mutex::new(None);
    let work = || {
        let mut buffer = vec![0; CHUNK];
        while !stop.load(Ordering::Relaxed) {
            let Some((digest, size)) = order.get(next.fetch_add(1, Ordering::Relaxed)) else { return };
            match one(store, *digest, &mut buffer, &progress) {
                Ok(found) => lock(&hashed).extend(found.map(|found| (*digest, *size, found))),
                Err(error) => {
                    lock(&failure).get_or_insert(error);
                    stop.store(true, Ordering::Relaxed);
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..options.thread_count().get().min(order.len()) {
            // Where the system gives no more threads, those that there are do the work.
            if std::thread::Builder::new().spawn_scoped(scope, work).is_err() {
                break;
            }
        }
        work();
    });
    match failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(error) => Err(error),
        None => Ok(hashed.into_inner().unwrap_or_else(PoisonError::into_inner)),
    }
}

struct Progress<'a> {
    done: AtomicU64,
    total: u64,
    options: &'a CheckOptions<'a>,
}

impl Progress<'_> {
    fn add(&self, bytes: u64) -> Result<()> {
        let done = self.done.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.options.observer.event(&Event::Checking { bytes: done, total: self.total });
        self.options.cancel.check()
    }
}

/// The digest of what a blob's file has.
fn one(store: &Store, digest: Digest, buffer: &mut [u8], progress: &Progress<'_>) -> Result<Option<Digest>> {
    let Some(dir) = store.existing_blobs_dir(digest.algorithm())? else { return Ok(None) };
    let name = digest.hex().to_string();
    let mut file = match dir.file(&name) {
        Ok(file) => file,
        Err(error) if error.is_not_found() => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut hasher = Hasher::new(digest.algorithm());
    let mut news = 0;
    loop {
        match file.read(buffer) {
            Ok(0) => break,
            Ok(count) => {
                hasher.update(&buffer[..count]);
                news += count as u64;
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Error::io("read", &dir.path().join(&name), error)),
        }
        if news >= NEWS {
            progress.add(std::mem::take(&mut news))?;
        }
    }
    progress.add(news)?;
    Ok(Some(hasher.finish()))
}
