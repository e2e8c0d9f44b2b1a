//! Copies the content of a file on the disk: holes stay holes, and the caller hears of each chunk, so that it can count the
//! bytes and end the copy. Used by `changeset` for files of lower layers.

use std::fs::File;
use std::io;
use std::io::Read;
use std::io::Seek;
use std::io::SeekFrom;
use std::os::unix::fs::FileExt;

use rustix::fs::Stat;
use rustix::io::Errno;

use crate::error::Result;

/// Most bytes that are copied between two calls of the observer.
const CHUNK: u64 = 8 << 20;
/// Unit in which zeros are recognized as a hole: the block size of most file systems.
const BLOCK: usize = 4096;

/// Receives the number of bytes that were copied since its last call. Its error ends the copy.
pub(crate) type Copied<'a> = &'a mut dyn FnMut(u64) -> Result<()>;

/// Copies the content of a regular file with this `stat` to an empty file, without its holes.
///
/// # Errors
///
/// Those of the two files and of `copied`; `UnexpectedEof` if the file became shorter than its `stat` says.
pub(crate) fn copy_content(from: &File, to: &mut File, stat: &Stat, copied: Copied<'_>) -> io::Result<()> {
    let size = u64::try_from(stat.st_size).unwrap_or(0);
    if allocated(stat) >= size {
        return copy_range(from, to, size, copied);
    }
    let mut at = 0;
    while at < size {
        let start = match rustix::fs::seek(from, rustix::fs::SeekFrom::Data(at)) {
            Ok(start) => start,
            Err(Errno::NXIO) => break,
            Err(error) => return Err(error.into()),
        };
        at = rustix::fs::seek(from, rustix::fs::SeekFrom::Hole(start))?.min(size);
        (&*from).seek(SeekFrom::Start(start))?;
        to.seek(SeekFrom::Start(start))?;
        copy_range(from, to, at.saturating_sub(start), copied)?;
    }
    to.set_len(size)
}

/// Lets an empty file share the blocks of another (`FICLONE`), where the file system can do that. Returns whether it could.
pub(crate) fn share_content(from: &File, to: &File, stat: &Stat, copied: Copied<'_>) -> Result<bool> {
    if stat.st_size == 0 || rustix::fs::ioctl_ficlone(to, from).is_err() {
        return Ok(false);
    }
    copied(allocated(stat).min(u64::try_from(stat.st_size).unwrap_or(0)))?;
    Ok(true)
}

/// Copies what a reader yields to an empty file. Blocks of zeros become holes.
pub(crate) fn copy_reader(from: &mut dyn Read, to: &mut File, copied: Copied<'_>) -> io::Result<()> {
    let mut buffer = vec![0; 64 * BLOCK];
    let mut at = 0;
    loop {
        let length = fill(from, &mut buffer)?;
        for (n, block) in buffer[..length].chunks(BLOCK).enumerate() {
            if block.iter().any(|byte| *byte != 0) {
                to.write_all_at(block, at + (n * BLOCK) as u64)?;
            }
        }
        at += length as u64;
        copied(length as u64)?;
        if length < buffer.len() {
            return to.set_len(at);
        }
    }
}

/// Fills the buffer, or less of it at the end of the stream.
fn fill(from: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match from.read(&mut buffer[length..]) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}

/// Copies the next `length` bytes.
fn copy_range(mut from: &File, to: &mut File, length: u64, copied: Copied<'_>) -> io::Result<()> {
    let mut left = length;
    while left > 0 {
        let count = io::copy(&mut (&mut from).take(left.min(CHUNK)), to)?;
        if count == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it became shorter while it was read"));
        }
        left -= count;
        copied(count)?;
    }
    Ok(())
}

/// Bytes that a file takes on the disk.
fn allocated(stat: &Stat) -> u64 {
    u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;
    use crate::error::ErrorKind;
    use crate::event::Cancel;

    fn stat(file: &File) -> Stat {
        rustix::fs::fstat(file).unwrap()
    }

    /// A file of 64 MiB with two pieces of data.
    fn sparse() -> File {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(b"begin", 0).unwrap();
        file.write_all_at(&[7; 10_000], 40 << 20).unwrap();
        file.set_len(64 << 20).unwrap();
        file
    }

    fn content(file: &File) -> Vec<u8> {
        let mut bytes = Vec::new();
        (&*file).rewind().unwrap();
        (&*file).read_to_end(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn copies_keep_holes() {
        let from = sparse();
        let mut count = 0;
        let mut add = |bytes| {
            count += bytes;
            Ok(())
        };
        let mut files = [tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap()];
        copy_content(&from, &mut files[0], &stat(&from), &mut add).unwrap();
        assert!((10_005..200_000).contains(&count), "{count}");
        copy_reader(&mut &content(&from)[..], &mut files[1], &mut |_| Ok(())).unwrap();
        for file in files {
            assert!(file.metadata().unwrap().blocks() * 512 < 1 << 20);
            assert!(content(&file) == content(&from));
        }
    }

    #[test]
    fn a_cancelled_copy_ends_at_the_next_chunk() {
        let from = tempfile::tempfile().unwrap();
        from.write_all_at(&vec![1; 3 * (CHUNK as usize)], 0).unwrap();
        let mut to = tempfile::tempfile().unwrap();
        let cancel = Cancel::new();
        let mut stop = |_| {
            cancel.cancel();
            cancel.check()
        };
        let error = copy_content(&from, &mut to, &stat(&from), &mut stop).unwrap_err();
        assert!(matches!(crate::Error::from(error).kind(), ErrorKind::Cancelled));
        assert_eq!(to.metadata().unwrap().len(), CHUNK);
    }
}
