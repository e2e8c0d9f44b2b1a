//! From stored bytes to a tar, side by side: one thread reads and decompresses, one hashes what was read and what came
//! out, and the caller's takes the tar apart.
//!
//! Between them lie buffers, of which there is a fixed number: one of them may fall behind by all of these, as the caller
//! does at many small files. The reading thread goes on with the next layer while the caller is busy with the end of
//! this one.

use std::cell::Cell;
use std::io;
use std::io::BufRead;
use std::io::Read;
use std::panic::resume_unwind;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::mpsc::Receiver;
use std::sync::mpsc::Sender;
use std::sync::mpsc::channel;
use std::thread::Scope;
use std::thread::ScopedJoinHandle;

use crate::changeset::Limits;
use crate::compression::Bound;
use crate::compression::Decoder;
use crate::descriptor::Descriptor;
use crate::digest::Digest;
use crate::error::Context;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Limit;
use crate::error::Result;
use crate::sync::lock;
use crate::verify::Check;

const CHUNK: usize = 256 << 10;
/// So many chunks there are at most, wherever they are. With fewer, decompressing stands still at bursts of small files.
const CHUNKS: usize = 48;

/// A layer to be read.
pub(crate) struct Source<'a> {
    pub(crate) stream: Box<dyn Read + Send + 'a>,
    /// What the stream has to be, if anybody said so.
    pub(crate) promise: Option<Promise>,
}

/// What a layer has to be: the blob as it is stored, and the tar inside.
#[derive(Clone, Debug)]
pub(crate) struct Promise {
    /// The blob; none where whoever gives the stream verifies that before it ends.
    pub(crate) blob: Option<Descriptor>,
    pub(crate) diff_id: Digest,
}

/// Reads the layers, one after another, and gives them to `take` as tars. What `take` returned is returned once all
/// of them were what they were promised to be.
pub(crate) fn run<'a, T>(
    sources: impl ExactSizeIterator<Item = Result<Source<'a>>> + Send,
    limits: Limits,
    take: impl FnOnce(&mut Tars) -> Result<T>,
) -> Result<T> {
    let count = sources.len();
    let (to_taker, tars) = channel();
    let (to_hasher, hashed) = channel();
    let (taken, read, hash) = std::thread::scope(|scope| {
        // It goes when `take` ends, however it does: the others must not wait for it.
        let mut tars = Tars { receiver: tars, position: Rc::default() };
        let pool = Arc::default();
        let reader = start(scope, move || Reading { to_taker, to_hasher, pool, limits, out: 0 }.all(sources))?;
        let hasher = start(scope, move || check_all(&hashed, count))?;
        let taken = take(&mut tars);
        drop(tars);
        Ok::<_, Error>((taken, join(reader), join(hasher)))
    })?;
    // What was wrong with the bytes explains whatever else went wrong.
    hash?;
    match taken {
        Err(error) if !is_hung_up(&error) => Err(error),
        taken => read.and(taken),
    }
}

/// A thread, if the system gives one.
pub(crate) fn start<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    work: impl FnOnce() -> T + Send + 'scope,
) -> Result<ScopedJoinHandle<'scope, T>> {
    let started = std::thread::Builder::new().spawn_scoped(scope, work);
    started.map_err(|source| ErrorKind::Io { what: "start a thread".to_owned(), source }.into())
}

fn join<T>(handle: ScopedJoinHandle<'_, T>) -> T {
    handle.join().unwrap_or_else(|panic| resume_unwind(panic))
}

/// Some bytes. Their room is used again when nobody has them any more.
struct Chunk {
    bytes: Vec<u8>,
    length: usize,
    /// How much of the stored layer had been read when it was made.
    position: u64,
    pool: Arc<Pool>,
}

/// The room for chunks. Who needs some waits until somebody is done with a chunk, so nothing else need be bounded.
#[derive(Default)]
struct Pool {
    rooms: Mutex<Rooms>,
    returned: Condvar,
}

#[derive(Default)]
struct Rooms {
    free: Vec<Vec<u8>>,
    made: usize,
}

impl Pool {
    fn take(&self) -> Vec<u8> {
        let mut rooms = lock(&self.rooms);
        loop {
            if let Some(room) = rooms.free.pop() {
                return room;
            }
            if rooms.made < CHUNKS {
                rooms.made += 1;
                return vec![0; CHUNK];
            }
            rooms = self.returned.wait(rooms).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn give_back(&self, room: Vec<u8>) {
        lock(&self.rooms).free.push(room);
        self.returned.notify_one();
    }
}

impl Chunk {
    fn new(pool: &Arc<Pool>) -> Chunk {
        Chunk { bytes: pool.take(), length: 0, position: 0, pool: Arc::clone(pool) }
    }

    /// Reads until it is full, or the reader has no more.
    fn fill(&mut self, reader: &mut impl Read) -> io::Result<()> {
        while self.length < self.bytes.len() {
            match reader.read(&mut self.bytes[self.length..]) {
                Ok(0) => break,
                Ok(count) => self.length += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        self.pool.give_back(std::mem::take(&mut self.bytes));
    }
}

/// What the hashing thread is told.
enum ToHash {
    /// A layer begins, and this is what it has to be.
    Layer(Box<Promise>),
    Stored(Arc<Chunk>),
    Tar(Arc<Chunk>),
    LayerEnds,
}

/// What the caller's thread is told.
enum ToTake {
    Tar(Arc<Chunk>),
    LayerEnds,
}

/// The thread that reads.
struct Reading {
    to_taker: Sender<ToTake>,
    to_hasher: Sender<ToHash>,
    pool: Arc<Pool>,
    limits: Limits,
    /// What came out so far, of all layers.
    out: u64,
}

impl Reading {
    fn all<'a>(mut self, sources: impl ExactSizeIterator<Item = Result<Source<'a>>>) -> Result<()> {
        let count = sources.len();
        for (n, source) in sources.enumerate() {
            source.and_then(|source| self.layer(source)).context(|| format!("layer {} of {count}", n + 1))?;
        }
        Ok(())
    }

    fn layer(&mut self, source: Source<'_>) -> Result<()> {
        let is_promised = source.promise.is_some();
        let blob_is_promised = source.promise.as_ref().is_some_and(|promise| promise.blob.is_some());
        if let Some(promise) = source.promise {
            self.hash(ToHash::Layer(Box::new(promise)))?;
        }
        let feed = Feed {
            stream: source.stream,
            to_hasher: blob_is_promised.then(|| self.to_hasher.clone()),
            pool: Arc::clone(&self.pool),
            chunk: None,
            at: 0,
            count: Rc::default(),
        };
        let consumed = Rc::clone(&feed.count);
        let left = self.limits.unpacked_bytes.saturating_sub(self.out);
        let bound = Bound::at_most(self.limits.unpacked_bytes, left).trailer(self.limits.trailer_bytes);
        let mut decoder = Decoder::new(feed, bound)?;
        let mut out: u64 = 0;
        loop {
            let mut chunk = Chunk::new(&self.pool);
            chunk.fill(&mut decoder)?;
            chunk.position = consumed.get();
            if chunk.length == 0 {
                break;
            }
            out += chunk.length as u64;
            let ratio = self.limits.expansion_ratio;
            if out > Bound::ALWAYS && out > consumed.get().saturating_mul(ratio) {
                return Err(Error::limit(Limit::ExpansionRatio, ratio));
            }
            let chunk = Arc::new(chunk);
            if is_promised {
                self.hash(ToHash::Tar(Arc::clone(&chunk)))?;
            }
            self.to_taker.send(ToTake::Tar(chunk)).or_else(|_| hung_up())?;
        }
        self.out += out;
        if is_promised {
            self.hash(ToHash::LayerEnds)?;
        }
        self.to_taker.send(ToTake::LayerEnds).or_else(|_| hung_up())
    }

    fn hash(&self, message: ToHash) -> Result<()> {
        self.to_hasher.send(message).or_else(|_| hung_up())
    }
}

/// The other end of a channel is gone: its thread has a reason, and that is the one to tell.
fn hung_up<T>() -> Result<T> {
    Err(io::Error::new(io::ErrorKind::BrokenPipe, HungUp).into())
}

#[derive(Debug)]
struct HungUp;

impl std::fmt::Display for HungUp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("another thread gave up")
    }
}

impl std::error::Error for HungUp {}

fn is_hung_up(error: &Error) -> bool {
    let ErrorKind::Io { source, .. } = error.kind() else { return false };
    source.get_ref().is_some_and(|inner| inner.is::<HungUp>())
}

/// A layer as it is stored, on its way to the decoder; the hashing thread sees it too.
struct Feed<'a> {
    stream: Box<dyn Read + Send + 'a>,
    to_hasher: Option<Sender<ToHash>>,
    pool: Arc<Pool>,
    chunk: Option<Arc<Chunk>>,
    at: usize,
    /// How many bytes were read.
    count: Rc<Cell<u64>>,
}

impl BufRead for Feed<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let is_used_up = self.chunk.as_ref().is_none_or(|chunk| self.at == chunk.length);
        if is_used_up {
            self.chunk = None;
            let mut chunk = Chunk::new(&self.pool);
            chunk.fill(&mut self.stream)?;
            self.count.set(self.count.get() + chunk.length as u64);
            self.at = 0;
            let chunk = Arc::new(chunk);
            if let Some(hasher) = &self.to_hasher
                && chunk.length > 0
            {
                hasher.send(ToHash::Stored(Arc::clone(&chunk))).or_else(|_| hung_up())?;
            }
            self.chunk = Some(chunk);
        }
        Ok(self.chunk.as_ref().map_or(&[], |chunk| &chunk.bytes()[self.at..]))
    }

    fn consume(&mut self, count: usize) {
        self.at += count;
    }
}

impl Read for Feed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        read_buffered(self, buffer)
    }
}

fn read_buffered(reader: &mut impl BufRead, buffer: &mut [u8]) -> io::Result<usize> {
    let available = reader.fill_buf()?;
    let count = available.len().min(buffer.len());
    buffer[..count].copy_from_slice(&available[..count]);
    reader.consume(count);
    Ok(count)
}

/// The thread that hashes.
fn check_all(messages: &Receiver<ToHash>, count: usize) -> Result<()> {
    let mut checks: Option<(Option<Check>, Check)> = None;
    let mut layer = 0;
    for message in messages {
        let checked = match (message, &mut checks) {
            (ToHash::Layer(promise), checks) => {
                layer += 1;
                *checks = Some((promise.blob.as_ref().map(Check::new), Check::of_digest(promise.diff_id)));
                Ok(())
            }
            (ToHash::Stored(chunk), Some((Some(stored), _))) => stored.update(chunk.bytes()),
            (ToHash::Tar(chunk), Some((_, tar))) => tar.update(chunk.bytes()),
            (ToHash::LayerEnds, Some((stored, tar))) => {
                let stored = stored.as_ref().map_or(Ok(()), |stored| stored.finish());
                stored.and_then(|()| tar.finish().context(|| "diff id".to_owned()))
            }
            (ToHash::Stored(_), Some((None, _))) | (_, None) => Ok(()),
        };
        checked.context(|| format!("layer {layer} of {count}"))?;
    }
    Ok(())
}

/// The tars, on the thread that takes them apart.
pub(crate) struct Tars {
    receiver: Receiver<ToTake>,
    position: Rc<Cell<u64>>,
}

impl Tars {
    /// The next layer's tar. The one before it must have been read to its end.
    pub(crate) fn next_tar(&mut self) -> Tar<'_> {
        self.position.set(0);
        Tar { tars: self, chunk: None, at: 0, ended: false }
    }

    /// How much of the layer at hand, as it is stored, became the tar so far.
    pub(crate) fn position(&self) -> Rc<Cell<u64>> {
        Rc::clone(&self.position)
    }
}

/// A layer's tar.
pub(crate) struct Tar<'a> {
    tars: &'a mut Tars,
    chunk: Option<Arc<Chunk>>,
    at: usize,
    ended: bool,
}

impl BufRead for Tar<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let is_used_up = self.chunk.as_ref().is_none_or(|chunk| self.at == chunk.length);
        if is_used_up && !self.ended {
            self.chunk = None;
            match self.tars.receiver.recv() {
                Ok(ToTake::Tar(chunk)) => {
                    self.tars.position.set(chunk.position);
                    self.at = 0;
                    self.chunk = Some(chunk);
                }
                Ok(ToTake::LayerEnds) => self.ended = true,
                Err(_) => hung_up()?,
            }
        }
        Ok(self.chunk.as_ref().map_or(&[], |chunk| &chunk.bytes()[self.at..]))
    }

    fn consume(&mut self, count: usize) {
        self.at += count;
    }
}

impl Read for Tar<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        read_buffered(self, buffer)
    }
}
