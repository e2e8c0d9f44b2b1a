//! One header block, and what extensions before it change.

use tar::Header;

use super::number::Timestamp;
use super::number::field;
use super::number::invalid;
use super::number::is_go_number;
use super::number::octal_field;
use super::number::unsigned;
use super::pax::Extension;
use crate::error::Result;

pub(super) const BLOCK: usize = 512;

/// What a header is of, by its type flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flag {
    File,
    /// A regular file of the time before POSIX, or a directory where the name ends with a slash.
    Old,
    HardLink,
    Symlink,
    CharDevice,
    BlockDevice,
    Directory,
    Fifo,
    /// The old way to write a file with holes.
    OldSparse,
    /// Says something of the next header.
    Extended,
    /// An extended header for all entries that follow. Go ignores its records.
    Global,
    LongName,
    LongLink,
}

/// A header block whose checksum and numbers every reader accepts.
pub(super) struct Block {
    header: Header,
}

impl Block {
    /// Checks the checksum, of which some old tools summed signed bytes, and the numbers: where one cannot be read,
    /// Python's tarfile takes the archive to end.
    pub(super) fn new(bytes: &[u8; BLOCK]) -> Result<Block> {
        let header = Header::from_byte_slice(bytes).clone();
        let stated = octal_field("checksum", &header.as_old().cksum)?;
        let mut counted = *bytes;
        counted[148..156].fill(b' ');
        let sum: i64 = counted.iter().map(|byte| i64::from(*byte)).sum();
        let signed: i64 = counted.iter().map(|byte| i64::from(byte.cast_signed())).sum();
        if stated != sum && stated != signed {
            return invalid("a header has a wrong checksum");
        }
        if sum == 8 * i64::from(b' ') {
            return invalid("a header is empty but for its checksum: GNU tar takes the archive to end here");
        }
        let block = Block { header };
        block.check_numbers()?;
        Ok(block)
    }

    fn check_numbers(&self) -> Result<()> {
        let old = self.header.as_old();
        let bytes = self.header.as_bytes();
        for (what, bytes) in [
            ("mode", &old.mode[..]),
            ("owner", &old.uid),
            ("group", &old.gid),
            ("size", &old.size),
            ("time of change", &old.mtime),
            ("device's major number", &bytes[329..337]),
            ("device's minor number", &bytes[337..345]),
        ] {
            field(what, bytes)?;
        }
        Ok(())
    }

    pub(super) fn flag(&self) -> Result<Flag> {
        Ok(match self.header.as_old().linkflag[0] {
            0 => Flag::Old,
            b'0' | b'7' => Flag::File,
            b'1' => Flag::HardLink,
            b'2' => Flag::Symlink,
            b'3' => Flag::CharDevice,
            b'4' => Flag::BlockDevice,
            b'5' => Flag::Directory,
            b'6' => Flag::Fifo,
            b'S' if self.header.as_gnu().is_some() => Flag::OldSparse,
            b'x' => Flag::Extended,
            b'g' => Flag::Global,
            b'L' => Flag::LongName,
            b'K' => Flag::LongLink,
            other => return invalid(format!("entries of type {:?} are unknown", char::from(other))),
        })
    }

    pub(super) fn header(&self) -> &Header {
        &self.header
    }

    pub(super) fn size(&self) -> Result<u64> {
        unsigned("size", &self.header.as_old().size)
    }

    /// The name, with the prefix that formats have in which it may be longer.
    pub(super) fn name(&self) -> Result<Vec<u8>> {
        let name = self.short_name();
        Ok(match self.prefix()? {
            [] => name.to_vec(),
            prefix => [prefix, b"/", name].concat(),
        })
    }

    /// The field of the name alone.
    pub(super) fn short_name(&self) -> &[u8] {
        until_zero(&self.header.as_old().name)
    }

    pub(super) fn link(&self) -> Vec<u8> {
        until_zero(&self.header.as_old().linkname).to_vec()
    }

    /// By its magic alone, as GNU tar, libarchive and Go have it: what writes another version than `00` means the same.
    fn is_ustar(&self) -> bool {
        self.header.as_bytes()[257..263] == *b"ustar\0"
    }

    /// The prefix of the name; empty if there is none. Python takes these bytes for a prefix in every format, so where
    /// Go does not, they must begin with a zero byte.
    fn prefix(&self) -> Result<&[u8]> {
        let bytes = self.header.as_bytes();
        let prefix = until_zero(&bytes[345..500]);
        if self.is_ustar() {
            // star has times in the last bytes, which Go alone leaves out.
            let is_star = bytes[508..] == *b"tar\0";
            return match prefix.len() {
                131.. if is_star => invalid("ambiguous: the prefix of a name goes on where star has times"),
                _ => Ok(prefix),
            };
        }
        if prefix.is_empty() {
            return Ok(prefix);
        }
        // Go before 1.8 wrote a prefix where GNU has times: they are not numbers then, but text.
        let Some(gnu) = self.header.as_gnu() else {
            return invalid("ambiguous: a name of the old format has a prefix");
        };
        let has_times = [gnu.atime, gnu.ctime].iter().all(|time| time[0] == 0 || is_go_number(time));
        if has_times || !prefix.is_ascii() {
            return invalid("ambiguous: a header of GNU's has times, or a prefix of the name");
        }
        Ok(prefix)
    }

    /// Checks that the mode does not say symbolic link, as `st_mode` does, where the type flag does not: umoci would leave
    /// the permissions out.
    pub(super) fn check_mode(&self, flag: Flag) -> Result<()> {
        let mode = field("mode", &self.header.as_old().mode)?;
        match flag {
            _ if mode < 0 => invalid("the mode in the header is negative"),
            Flag::Symlink | Flag::HardLink => Ok(()),
            _ if mode & !0o7777 == 0o120_000 => {
                invalid("ambiguous: the mode says symbolic link, and the type does not")
            }
            _ => Ok(()),
        }
    }

    pub(super) fn attributes(&self, extension: &Extension) -> Result<Attributes> {
        let old = self.header.as_old();
        let mode = field("mode", &old.mode)? & 0o7777;
        let mtime = match extension.mtime {
            Some(mtime) => mtime,
            None => Timestamp { seconds: field("time of change", &old.mtime)?, nanoseconds: 0 },
        };
        Ok(Attributes {
            mode: u32::try_from(mode).expect("twelve bits fit"),
            uid: id("owner", extension.uid, &old.uid)?,
            gid: id("group", extension.gid, &old.gid)?,
            mtime,
        })
    }

    pub(super) fn device(&self) -> Result<(u32, u32)> {
        let number = |what, bytes: &[u8]| {
            let number = unsigned(what, bytes)?;
            u32::try_from(number).or_else(|_| invalid(format!("the {what} is too large")))
        };
        if !self.is_ustar() && self.header.as_gnu().is_none() {
            return invalid("a device has no numbers");
        }
        let bytes = self.header.as_bytes();
        Ok((number("device's major number", &bytes[329..337])?, number("device's minor number", &bytes[337..345])?))
    }
}

/// What every entry has.
pub(super) struct Attributes {
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: Timestamp,
}

/// An id of more than 32 bits would become another one, root perhaps, and the last one means "leave it as it is".
fn id(what: &str, extended: Option<u64>, bytes: &[u8]) -> Result<u32> {
    let id = match extended {
        Some(id) => id,
        None => unsigned(what, bytes)?,
    };
    match u32::try_from(id) {
        Ok(id) if id != u32::MAX => Ok(id),
        _ => invalid(format!("the {what} {id} is no id")),
    }
}

fn until_zero(bytes: &[u8]) -> &[u8] {
    &bytes[..bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len())]
}
