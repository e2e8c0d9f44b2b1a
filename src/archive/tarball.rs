//! Writing a tar: only files and directories, and of what a header can say only what is needed. Nothing of the machine
//! or the moment is in it (C5).

use std::io;
use std::io::Read;
use std::io::Write;

use tar::EntryType;
use tar::Header;

use crate::error::ErrorKind;
use crate::error::Result;

const BLOCK: usize = 512;
const BUFFER: usize = 64 << 10;
/// What a name may have in a header of the old kind; longer ones go into an extended header.
const MAX_NAME: usize = 100;
const DIRECTORY: u32 = 0o755;
const FILE: u32 = 0o644;

pub(super) struct Tarball<W> {
    writer: W,
}

impl<W: Write> Tarball<W> {
    pub(super) fn new(writer: W) -> Tarball<W> {
        Tarball { writer }
    }

    pub(super) fn directory(&mut self, path: &str) -> Result<()> {
        self.header(path, EntryType::Directory, DIRECTORY, 0)
    }

    /// Writes a file of exactly `size` bytes.
    pub(super) fn file(&mut self, path: &str, size: u64, content: impl Read) -> Result<()> {
        self.header(path, EntryType::Regular, FILE, size)?;
        self.content(size, content)
    }

    /// Two blocks of zeros end a tar.
    pub(super) fn finish(mut self) -> Result<()> {
        self.writer.write_all(&[0; 2 * BLOCK])?;
        Ok(self.writer.flush()?)
    }

    fn header(&mut self, path: &str, kind: EntryType, mode: u32, size: u64) -> Result<()> {
        if path.len() > MAX_NAME {
            let record = record("path", path);
            self.block("PaxHeaders/0", EntryType::XHeader, FILE, record.len() as u64)?;
            self.content(record.len() as u64, record.as_bytes())?;
        }
        let short = path.get(..path.len().min(MAX_NAME)).unwrap_or_default();
        self.block(short, kind, mode, size)
    }

    fn block(&mut self, name: &str, kind: EntryType, mode: u32, size: u64) -> Result<()> {
        let mut header = Header::new_ustar();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(size);
        header.set_cksum();
        Ok(self.writer.write_all(header.as_bytes())?)
    }

    /// The content, read to its end so that a reader which verifies has verified, and what fills up its last block.
    fn content(&mut self, size: u64, mut content: impl Read) -> Result<()> {
        let mut buffer = vec![0; BUFFER];
        let mut written = 0;
        loop {
            let count = match content.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            written += count as u64;
            if written > size {
                break;
            }
            self.writer.write_all(&buffer[..count])?;
        }
        if written != size {
            return Err(ErrorKind::SizeMismatch { expected: size, found: written }.into());
        }
        let padding = usize::try_from(size.next_multiple_of(BLOCK as u64) - size).unwrap_or(0);
        Ok(self.writer.write_all(&[0; BLOCK][..padding])?)
    }
}

/// A record as POSIX wants it: its length counts itself.
fn record(key: &str, value: &str) -> String {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while rest + length.to_string().len() != length {
        length = rest + length.to_string().len();
    }
    format!("{length} {key}={value}\n")
}
