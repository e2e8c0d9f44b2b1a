//! What the files of a working copy looked like when it was made: what still looks so was not changed.
//!
//! The kernel sets a file's time of change (`st_ctime`) with every change of its content and attributes, and nobody
//! else can. Times are compared for equality, so it does not matter what the clock does meanwhile.

use std::fs::File;
use std::io::BufWriter;
use std::io::Read;
use std::io::Write;

use rustix::fs::FileType;
use rustix::fs::Stat;

use crate::error::Error;
use crate::error::Result;
use crate::fs::descent::Descent;
use crate::fs::dir::Dir;

const INDEX: &str = "index";
const MAGIC: &[u8; 16] = b"layercake-index1";
const ROW: usize = 32;
/// More than there are files in any tree that can be made here.
const MAX_INDEX: u64 = 1 << 30;

/// By path: which inode it was, and when that was changed last.
#[derive(Debug, Default)]
pub(super) struct Index {
    rows: Vec<Row>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Row {
    path: u64,
    inode: u64,
    seconds: i64,
    nanoseconds: u64,
}

impl Row {
    fn of(path: &[u8], stat: &Stat) -> Row {
        Row { path: hash(path), inode: stat.st_ino, seconds: stat.st_ctime, nanoseconds: stat.st_ctime_nsec }
    }

    fn to_bytes(self) -> [u8; ROW] {
        let mut bytes = [0; ROW];
        let fields = [self.path, self.inode, self.seconds.cast_unsigned(), self.nanoseconds];
        for (room, field) in bytes.chunks_exact_mut(8).zip(fields) {
            room.copy_from_slice(&field.to_le_bytes());
        }
        bytes
    }

    fn from_bytes(bytes: &[u8; ROW]) -> Row {
        let field = |n: usize| u64::from_le_bytes(std::array::from_fn(|byte| bytes[8 * n + byte]));
        Row { path: field(0), inode: field(1), seconds: field(2).cast_signed(), nanoseconds: field(3) }
    }
}

impl Index {
    /// Looks at all of a tree that nobody changes meanwhile.
    pub(super) fn of(mut tree: Descent) -> Result<Index> {
        let mut rows = Vec::new();
        let mut levels = vec![tree.list()?.into_iter()];
        while let Some(level) = levels.last_mut() {
            let Some((name, stat)) = level.next() else {
                tree.leave()?;
                levels.pop();
                continue;
            };
            rows.push(Row::of(&tree.join(&name), &stat));
            if FileType::from_raw_mode(stat.st_mode).is_dir() {
                tree.enter(&name)?;
                levels.push(tree.list()?.into_iter());
            }
        }
        rows.sort_unstable();
        Ok(Index { rows })
    }

    /// The one of a working copy; where it is missing or damaged, one that knows nothing.
    pub(super) fn read(dir: &Dir) -> Index {
        let read = || -> Option<Index> {
            let (file, size) = dir.file_and_size(INDEX).ok()?;
            let mut bytes = Vec::with_capacity(usize::try_from(size.min(MAX_INDEX)).ok()?);
            file.take(MAX_INDEX).read_to_end(&mut bytes).ok()?;
            let (rows, rest) = bytes.strip_prefix(MAGIC)?.as_chunks();
            rest.is_empty().then(|| Index { rows: rows.iter().map(Row::from_bytes).collect() })
        };
        read().unwrap_or_default()
    }

    pub(super) fn write(&self, dir: &Dir) -> Result<()> {
        let mut file = BufWriter::new(dir.new_file(INDEX)?);
        let mut write = || {
            file.write_all(MAGIC)?;
            self.rows.iter().try_for_each(|row| file.write_all(&row.to_bytes()))?;
            file.flush()
        };
        write().map_err(|error| Error::io("write", &dir.path().join(INDEX), error))
    }

    /// Waits until the next change of anything gets a time that nothing in here has: the kernel's clock for files goes
    /// on by some milliseconds at once.
    pub(super) fn settle(&self, dir: &Dir) -> Result<()> {
        const TICK: &str = "tick";
        let Some(last) = self.rows.iter().map(|row| (row.seconds, row.nanoseconds)).max() else { return Ok(()) };
        loop {
            let file: File = dir.new_file(TICK)?;
            let stat = rustix::fs::fstat(&file);
            dir.remove(TICK)?;
            let stat = stat.map_err(|error| Error::io("look at", &dir.path().join(TICK), error.into()))?;
            if (stat.st_ctime, stat.st_ctime_nsec) != last {
                return Ok(());
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    }

    /// Whether what has a path is what had it then, and was not changed since.
    pub(super) fn is_unchanged(&self, path: &[u8], stat: &Stat) -> bool {
        self.rows.binary_search(&Row::of(path, stat)).is_ok()
    }
}

/// FNV-1a: the same in every program that reads the file. Two paths of one hash do not matter, because no two files
/// have one inode.
fn hash(path: &[u8]) -> u64 {
    path.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}
