//! Headers as they are written (C5): one form for each thing, so that equal trees make equal bytes.

use tar::EntryType;
use tar::Header;
use tar::UstarHeader;

use crate::error::Error;
use crate::error::Limit;
use crate::error::Result;

pub(super) const BLOCK: usize = 512;
/// What readers, our own among them, take at most.
const MAX_EXTENSION: u64 = 1 << 20;
/// What the octal digits of a header's fields can hold.
const MAX_ID: u32 = (1 << 21) - 1;
const MAX_NUMBER: u64 = (1 << 33) - 1;
/// The name that Python's tarfile gives to extended headers.
const EXTENSION_NAME: &[u8] = b"././@PaxHeader";

/// What an entry is to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fields {
    pub(crate) kind: EntryType,
    /// Clean; a directory's ends with `/`.
    pub(crate) path: Vec<u8>,
    pub(crate) link: Vec<u8>,
    pub(crate) mode: u32,
    pub(crate) owner: (u32, u32),
    pub(crate) seconds: i64,
    /// Behind that second. Trees are packed without.
    pub(crate) nanoseconds: u32,
    pub(crate) size: u64,
    pub(crate) device: (u32, u32),
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Fields {
    pub(crate) fn new(kind: EntryType, path: Vec<u8>) -> Fields {
        let (link, xattrs) = (Vec::new(), Vec::new());
        let (seconds, nanoseconds) = (0, 0);
        Fields { kind, path, link, mode: 0, owner: (0, 0), seconds, nanoseconds, size: 0, device: (0, 0), xattrs }
    }

    /// Its header, behind an extended one if it has no room for all.
    pub(super) fn blocks(self) -> Result<Vec<u8>> {
        let mut header = Header::new_ustar();
        let mut records = Records::default();
        header.set_entry_type(self.kind);
        header.set_mode(self.mode);
        let ustar = header.as_ustar_mut().expect("it was made as one");
        if !set_name(ustar, &self.path) {
            records.add(b"path", self.path);
        }
        if !set_text(&mut ustar.linkname, &self.link) {
            records.add(b"linkpath", self.link);
        }
        header.set_uid(records.small(b"uid", self.owner.0).into());
        header.set_gid(records.small(b"gid", self.owner.1).into());
        header.set_size(records.number(b"size", self.size.into()));
        header.set_mtime(records.time(self.seconds, self.nanoseconds));
        set_device(&mut header, self.device)?;
        for (name, value) in self.xattrs {
            records.add(&[b"SCHILY.xattr.", &name[..]].concat(), value);
        }
        header.set_cksum();
        let mut blocks = records.blocks()?;
        blocks.extend_from_slice(header.as_bytes());
        Ok(blocks)
    }
}

/// Records of an extended header, of what has no room elsewhere.
#[derive(Default)]
struct Records(Vec<(Vec<u8>, Vec<u8>)>);

impl Records {
    fn add(&mut self, key: &[u8], value: Vec<u8>) {
        self.0.push((key.to_vec(), value));
    }

    /// What the header's field says: the number, or zero if only a record can hold it.
    fn small(&mut self, key: &[u8], id: u32) -> u32 {
        if id <= MAX_ID {
            return id;
        }
        self.add(key, id.to_string().into_bytes());
        0
    }

    fn number(&mut self, key: &[u8], number: i128) -> u64 {
        match u64::try_from(number) {
            Ok(number) if number <= MAX_NUMBER => number,
            _ => {
                self.add(key, number.to_string().into_bytes());
                0
            }
        }
    }

    fn time(&mut self, seconds: i64, nanoseconds: u32) -> u64 {
        if nanoseconds == 0 {
            return self.number(b"mtime", seconds.into());
        }
        // Before 1970 what follows the point leads away from it too.
        let (sign, whole, fraction) = match seconds {
            0.. => ("", seconds.unsigned_abs(), nanoseconds),
            _ => ("-", (seconds + 1).unsigned_abs(), 1_000_000_000 - nanoseconds),
        };
        let text = format!("{sign}{whole}.{fraction:09}");
        self.add(b"mtime", text.trim_end_matches('0').as_bytes().to_vec());
        u64::try_from(seconds).unwrap_or(0).min(MAX_NUMBER)
    }

    /// As an entry of their own, sorted; nothing if there are none.
    fn blocks(mut self) -> Result<Vec<u8>> {
        if self.0.is_empty() {
            return Ok(Vec::new());
        }
        self.0.sort_unstable();
        let payload: Vec<u8> = self.0.iter().flat_map(|(key, value)| record(key, value)).collect();
        if payload.len() as u64 > MAX_EXTENSION {
            return Err(Error::limit(Limit::ExtensionSize, MAX_EXTENSION));
        }
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::XHeader);
        set_text(&mut header.as_ustar_mut().expect("it was made as one").name, EXTENSION_NAME);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(payload.len() as u64);
        set_device(&mut header, (0, 0))?;
        header.set_cksum();
        let mut blocks = header.as_bytes().to_vec();
        blocks.extend_from_slice(&payload);
        blocks.resize(blocks.len().next_multiple_of(BLOCK), 0);
        Ok(blocks)
    }
}

/// A record as POSIX wants it: its length counts itself.
fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest;
    while rest + length.to_string().len() != length {
        length = rest + length.to_string().len();
    }
    [length.to_string().as_bytes(), b" ", key, b"=", value, b"\n"].concat()
}

/// Whether the name has room, whole or parted in two at a `/`.
fn set_name(header: &mut UstarHeader, path: &[u8]) -> bool {
    if set_text(&mut header.name, path) {
        return true;
    }
    // The part in front must not be empty, nor the one behind.
    let behind = path.len().saturating_sub(header.name.len() + 1);
    let front = (header.prefix.len() + 1).min(path.len() - 1);
    let slash = (behind.max(1)..front).find(|at| path[*at] == b'/');
    slash.is_some_and(|at| set_text(&mut header.prefix, &path[..at]) && set_text(&mut header.name, &path[at + 1..]))
}

fn set_text(field: &mut [u8], text: &[u8]) -> bool {
    let fits = text.len() <= field.len();
    if fits {
        field[..text.len()].copy_from_slice(text);
    }
    fits
}

fn set_device(header: &mut Header, (major, minor): (u32, u32)) -> Result<()> {
    if major > MAX_ID || minor > MAX_ID {
        return Err(Error::invalid_input(format!("no tar can hold the device {major}:{minor}")));
    }
    header.set_device_major(major)?;
    header.set_device_minor(minor)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;
    use crate::changeset::tape::RawEntry;
    use crate::changeset::tape::Tape;

    fn read(fields: Fields) -> (RawEntry, usize) {
        let blocks = fields.blocks().unwrap();
        (Tape::new(Cursor::new(&blocks)).next_entry().unwrap().unwrap(), blocks.len())
    }

    /// Each at the edge of what a plain header holds, and one behind it.
    #[test]
    fn numbers_of_any_size_come_back() {
        for (id, plain) in [(MAX_ID, true), (MAX_ID + 1, false), (u32::MAX - 1, false)] {
            let fields = Fields { owner: (id, 1), ..Fields::new(EntryType::Regular, b"f".to_vec()) };
            let (entry, length) = read(fields);
            assert_eq!((entry.uid, entry.gid, length == BLOCK), (id, 1, plain));
        }
        for (size, plain) in [(MAX_NUMBER, true), (MAX_NUMBER + 1, false), (1 << 40, false)] {
            let (entry, length) = read(Fields { size, ..Fields::new(EntryType::Regular, b"f".to_vec()) });
            assert_eq!((entry.size, length == BLOCK), (size, plain));
        }
        for (seconds, plain) in
            [(0, true), (-1, false), (i64::from(i32::MIN), false), ((1 << 33) - 1, true), (1 << 33, false)]
        {
            let (entry, length) = read(Fields { seconds, ..Fields::new(EntryType::Fifo, b"f".to_vec()) });
            assert_eq!((entry.mtime.seconds, length == BLOCK), (seconds, plain));
        }
    }

    /// L18: to the nanosecond, on both sides of 1970.
    #[test]
    fn fractions_of_seconds_come_back() {
        for (seconds, nanoseconds) in [(0, 1), (5, 500_000_000), (-1, 999_999_999), (-5, 1), (1 << 40, 120)] {
            let fields = Fields::new(EntryType::Regular, b"f".to_vec());
            let (entry, _) = read(Fields { seconds, nanoseconds, ..fields });
            assert_eq!((entry.mtime.seconds, entry.mtime.nanoseconds), (seconds, nanoseconds));
        }
    }

    #[test]
    fn names_of_any_length_come_back() {
        let paths =
            [(100, 0), (0, 100), (101, 0), (50, 100), (155, 100), (156, 99), (155, 101), (10, 255), (3000, 200)];
        for (directory, name) in paths {
            for end in ["", "/"] {
                let parts = [vec![b'd'; directory], vec![b'n'; name]];
                let parts: Vec<Vec<u8>> = parts.into_iter().filter(|part| !part.is_empty()).collect();
                let path = [&parts.join(&b"/"[..]), end.as_bytes()].concat();
                let (entry, length) = read(Fields::new(EntryType::Directory, path.clone()));
                assert_eq!(entry.path, path);
                let fits = path.len() <= 100 || parts.len() == 2 && directory <= 155 && name + end.len() <= 100;
                assert_eq!(length == BLOCK, fits, "{directory}/{name}{end}");
            }
        }
    }

    #[test]
    fn records_count_themselves() {
        for length in 0..2000 {
            let record = record(b"k", &vec![b'v'; length]);
            let stated = record.split(|byte| *byte == b' ').next().unwrap();
            assert_eq!(stated, record.len().to_string().as_bytes());
        }
    }
}
