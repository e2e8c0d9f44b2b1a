//! gzip in parallel blocks, as one member.
//!
//! The input is cut into blocks of one size. Each is compressed on its own, with the end of the one before it as
//! dictionary, and ends on a byte: the blocks in a row, an empty last one, and the checksum of all are one stream of
//! deflate. What a block becomes depends on nothing but itself and what is before it, so the number of threads does
//! not show.

use std::collections::VecDeque;
use std::io;
use std::io::Write;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::mpsc::Receiver;
use std::sync::mpsc::Sender;
use std::sync::mpsc::channel;
use std::thread::JoinHandle;

use flate2::Compress;
use flate2::Compression;
use flate2::Crc;
use flate2::FlushCompress;
use flate2::Status;

/// Large enough that its ends cost nothing: less than a thousandth.
const BLOCK: usize = 256 << 10;
/// How far back deflate looks.
const WINDOW: usize = 32 << 10;
/// No name, no time, no hints, and an unknown system.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
/// The empty last block, of fixed codes.
const LAST: [u8; 2] = [3, 0];

/// A piece of the input, with what came before it.
struct Block {
    content: Vec<u8>,
    dictionary: Vec<u8>,
}

/// What became of a block.
struct Squeezed {
    bytes: Vec<u8>,
    crc: Crc,
}

type Reply = Receiver<io::Result<Squeezed>>;

/// Compresses what is written to it.
pub(super) struct Gzip<W: Write> {
    writer: W,
    filling: Vec<u8>,
    dictionary: Vec<u8>,
    crc: Crc,
    crew: Crew,
    /// Blocks that are being worked on, the first one first.
    ahead: VecDeque<Reply>,
}

impl<W: Write> Gzip<W> {
    pub(super) fn new(mut writer: W, level: u32, threads: usize) -> io::Result<Gzip<W>> {
        writer.write_all(&HEADER)?;
        let crew = Crew::new(level, threads)?;
        let filling = Vec::with_capacity(BLOCK);
        Ok(Gzip { writer, filling, dictionary: Vec::new(), crc: Crc::new(), crew, ahead: VecDeque::new() })
    }

    pub(super) fn finish(mut self) -> io::Result<W> {
        if !self.filling.is_empty() {
            self.hand_over()?;
        }
        self.take_to(0)?;
        self.writer.write_all(&LAST)?;
        self.writer.write_all(&self.crc.sum().to_le_bytes())?;
        self.writer.write_all(&self.crc.amount().to_le_bytes())?;
        self.writer.flush()?;
        Ok(self.writer)
    }

    /// Gives the block that was filled to somebody.
    fn hand_over(&mut self) -> io::Result<()> {
        let content = std::mem::replace(&mut self.filling, Vec::with_capacity(BLOCK));
        let end = content[content.len().saturating_sub(WINDOW)..].to_vec();
        let dictionary = std::mem::replace(&mut self.dictionary, end);
        self.ahead.push_back(self.crew.squeeze(Block { content, dictionary })?);
        self.take_to(2 * self.crew.size())
    }

    /// Writes what is ready, and waits until no more than so many blocks are ahead.
    fn take_to(&mut self, most: usize) -> io::Result<()> {
        while self.ahead.len() > most
            && let Some(reply) = self.ahead.pop_front()
        {
            let squeezed = reply.recv().map_err(|_| io::Error::other("a thread that compresses ended"))??;
            self.writer.write_all(&squeezed.bytes)?;
            self.crc.combine(&squeezed.crc);
        }
        Ok(())
    }
}

impl<W: Write> Write for Gzip<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(BLOCK - self.filling.len());
        self.filling.extend_from_slice(&bytes[..count]);
        if self.filling.len() == BLOCK {
            self.hand_over()?;
        }
        Ok(count)
    }

    /// Where blocks end must not depend on who flushes when.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Whoever compresses: threads, or with one only this one.
enum Crew {
    Alone(Squeezer),
    Threads { jobs: Option<Sender<(Block, Sender<io::Result<Squeezed>>)>>, threads: Vec<JoinHandle<()>> },
}

impl Crew {
    fn new(level: u32, threads: usize) -> io::Result<Crew> {
        let squeezer = Squeezer { level };
        if threads <= 1 {
            return Ok(Crew::Alone(squeezer));
        }
        let (jobs, ahead) = channel::<(Block, Sender<io::Result<Squeezed>>)>();
        let ahead = Arc::new(Mutex::new(ahead));
        let mut crew = Vec::with_capacity(threads);
        for _ in 0..threads {
            let ahead = Arc::clone(&ahead);
            let work = move || {
                while let Some((block, reply)) = ahead.lock().ok().and_then(|ahead| ahead.recv().ok()) {
                    // Whoever asked may have gone.
                    let _ = reply.send(squeezer.squeeze(&block));
                }
            };
            crew.push(std::thread::Builder::new().name("layercake-gzip".to_owned()).spawn(work)?);
        }
        Ok(Crew::Threads { jobs: Some(jobs), threads: crew })
    }

    fn size(&self) -> usize {
        match self {
            Crew::Alone(_) => 0,
            Crew::Threads { threads, .. } => threads.len(),
        }
    }

    fn squeeze(&mut self, block: Block) -> io::Result<Reply> {
        let (reply, squeezed) = channel();
        let gone = || io::Error::other("the threads that compress ended");
        match self {
            Crew::Alone(squeezer) => reply.send(squeezer.squeeze(&block)).map_err(|_| gone())?,
            Crew::Threads { jobs, .. } => {
                jobs.as_ref().ok_or_else(gone)?.send((block, reply)).map_err(|_| gone())?;
            }
        }
        Ok(squeezed)
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        if let Crew::Threads { jobs, threads } = self {
            *jobs = None;
            for thread in threads.drain(..) {
                // One that panicked has said so to whoever waited for it.
                let _ = thread.join();
            }
        }
    }
}

/// Compresses blocks, one after another.
#[derive(Clone, Copy)]
struct Squeezer {
    level: u32,
}

impl Squeezer {
    fn squeeze(self, block: &Block) -> io::Result<Squeezed> {
        let level = if is_noise(&block.content)? { 0 } else { self.level };
        let bytes = deflate(&block.content, &block.dictionary, level)?;
        let mut crc = Crc::new();
        crc.update(&block.content);
        Ok(Squeezed { bytes, crc })
    }
}

/// Each block has a compressor of its own: after `reset`, that of zlib-rs 0.6 at level 1 gives other bytes than a new one.
fn deflate(content: &[u8], dictionary: &[u8], level: u32) -> io::Result<Vec<u8>> {
    let mut deflate = Compress::new(Compression::new(level), false);
    if level > 0 && !dictionary.is_empty() {
        deflate.set_dictionary(dictionary).map_err(io::Error::other)?;
    }
    let mut bytes = Vec::with_capacity(content.len() + content.len() / 4 + 1024);
    loop {
        let read = usize::try_from(deflate.total_in()).map_err(io::Error::other)?;
        let status =
            deflate.compress_vec(&content[read..], &mut bytes, FlushCompress::Sync).map_err(io::Error::other)?;
        // Room that is left says that all was flushed; without room there may be more.
        if bytes.len() < bytes.capacity() && deflate.total_in() == content.len() as u64 {
            return Ok(bytes);
        }
        debug_assert_ne!(status, Status::StreamEnd);
        bytes.reserve(bytes.capacity().max(64));
    }
}

/// Whether a block is not worth the effort, as what is compressed already is not: in samples from all over it, each byte
/// is about as frequent as any other, and repetitions are not found in them either.
fn is_noise(content: &[u8]) -> io::Result<bool> {
    let sample = |length: usize| content.chunks(WINDOW).map(move |piece| &piece[..piece.len().min(length)]);
    let mut counts = [0_u64; 256];
    sample(1 << 10).flatten().for_each(|byte| counts[usize::from(*byte)] += 1);
    let (total, squares) = counts.iter().fold((0, 0), |(total, squares), n| (total + n, squares + n * n));
    // Of noise, the squares are the least that they can be, give or take chance.
    if total < 1 << 12 || squares > total * total / 256 * 5 / 4 {
        return Ok(false);
    }
    let tried: Vec<u8> = sample(4 << 10).flatten().copied().collect();
    Ok(deflate(&tried, &[], 1)?.len() >= tried.len())
}
