//! Extended headers (POSIX pax): what the old header has no room for.
//!
//! The payload is taken apart by the lengths that its records state. Values are bytes: a file capability has newlines
//! and zero bytes in it.

use std::collections::HashMap;

use base64::Engine;
use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::GeneralPurpose;
use base64::engine::GeneralPurposeConfig;
use percent_encoding::percent_decode;

use super::number::Timestamp;
use super::number::decimal;
use super::number::invalid;
use super::number::time;
use super::sparse::SparseRecords;
use crate::error::Result;
use crate::error::printable;

const SCHILY_XATTR: &[u8] = b"SCHILY.xattr.";
const LIBARCHIVE_XATTR: &[u8] = b"LIBARCHIVE.xattr.";
const SPARSE: &[u8] = b"GNU.sparse.";
/// What is said here of an entry is not applied; the image-spec knows none of it.
const NOT_APPLIED: [&[u8]; 4] = [b"SCHILY.acl.", b"SCHILY.fflags", b"RHT.security.selinux", b"MSWINDOWS."];

/// Records that change an entry.
const APPLIED: [&[u8]; 6] = [b"path", b"linkpath", b"size", b"uid", b"gid", b"mtime"];
const APPLIED_PREFIXES: [&[u8]; 4] = [SCHILY_XATTR, LIBARCHIVE_XATTR, SPARSE, b"SCHILY.acl."];

/// libarchive leaves the padding out.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Fields of the next entry that an extended header sets.
///
/// A record that comes twice must say the same, and an empty one is refused: to POSIX it takes back what was said before,
/// to Go it says nothing, and to Python the name is empty.
#[derive(Debug, Default)]
pub(super) struct Extension {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u64>,
    pub(super) gid: Option<u64>,
    pub(super) mtime: Option<Timestamp>,
    pub(super) xattrs: Xattrs,
    pub(super) sparse: SparseRecords,
    pub(super) not_applied: Vec<String>,
}

impl Extension {
    pub(super) fn parse(payload: &[u8]) -> Result<Extension> {
        let mut extension = Extension::default();
        let mut libarchive = Xattrs::default();
        for record in Records(payload) {
            let (key, value) = record?;
            extension.take(key, value, &mut libarchive)?;
        }
        extension.sparse.refuse_look_alikes(payload)?;
        extension.compare(libarchive)?;
        Ok(extension)
    }

    /// Checks a header for all entries that follow. Python and GNU tar apply its records, Go does not: those that would
    /// change an entry are refused.
    pub(super) fn check_global(payload: &[u8]) -> Result<()> {
        Extension::parse(payload)?;
        for record in Records(payload) {
            let (key, _) = record?;
            let is_of_entries = APPLIED.contains(&key) || APPLIED_PREFIXES.iter().any(|prefix| key.starts_with(prefix));
            if is_of_entries {
                let key = printable(&String::from_utf8_lossy(key), 100);
                return invalid(format!("ambiguous: the global header has the record {key}, which some readers apply"));
            }
        }
        Ok(())
    }

    fn take(&mut self, key: &[u8], value: &[u8], libarchive: &mut Xattrs) -> Result<()> {
        match key {
            b"path" => once(&mut self.path, "path", text("path", value)?),
            b"linkpath" => once(&mut self.link, "linkpath", text("linkpath", value)?),
            b"size" => once(&mut self.size, "size", number("size", value)?),
            b"uid" => once(&mut self.uid, "uid", number("uid", value)?),
            b"gid" => once(&mut self.gid, "gid", number("gid", value)?),
            b"mtime" => once(&mut self.mtime, "mtime", time(value)?),
            _ => self.take_vendor(key, value, libarchive),
        }
    }

    fn take_vendor(&mut self, key: &[u8], value: &[u8], libarchive: &mut Xattrs) -> Result<()> {
        if let Some(name) = key.strip_prefix(SCHILY_XATTR) {
            if has_gnu_code(name) {
                return invalid("ambiguous: the name of an extended attribute has %3D or %25");
            }
            self.xattrs.set(name, value.to_vec())
        } else if let Some(name) = key.strip_prefix(LIBARCHIVE_XATTR) {
            let name: Vec<u8> = percent_decode(name).collect();
            match BASE64.decode(value) {
                Ok(value) => libarchive.set(&name, value),
                Err(_) => invalid("a LIBARCHIVE.xattr record is no base64"),
            }
        } else if let Some(key) = key.strip_prefix(SPARSE) {
            self.sparse.take(key, value)
        } else {
            if NOT_APPLIED.iter().any(|prefix| key.starts_with(prefix)) {
                self.not_applied.push(printable(&String::from_utf8_lossy(key), 100));
            }
            Ok(())
        }
    }

    /// Compares the attributes in libarchive's form with the others: bsdtar writes both. Those in libarchive's form alone
    /// are not applied, as Go and GNU tar do not.
    fn compare(&mut self, libarchive: Xattrs) -> Result<()> {
        for (name, value) in libarchive.list {
            match self.xattrs.get(&name) {
                Some(found) if *found == value => {}
                Some(_) => return invalid("an extended attribute has two values"),
                None => {
                    let name = printable(&String::from_utf8_lossy(&name), 100);
                    self.not_applied.push(format!("LIBARCHIVE.xattr.{name}"));
                }
            }
        }
        Ok(())
    }
}

/// Whether the name of an attribute has a code that GNU tar decodes and Go does not.
pub(crate) fn has_gnu_code(name: &[u8]) -> bool {
    [b"%3D", b"%25"].iter().any(|code| name.windows(3).any(|part| part == *code))
}

/// Sets a value that may come twice, but not with two meanings.
fn once<T: PartialEq>(place: &mut Option<T>, key: &str, value: T) -> Result<()> {
    match place {
        Some(found) if *found != value => invalid(format!("ambiguous: the record {key} comes twice, and differs")),
        _ => {
            *place = Some(value);
            Ok(())
        }
    }
}

/// Extended attributes, in the order of their records. There may be 48,000 in one header, so each is found at once.
#[derive(Debug, Default)]
pub(super) struct Xattrs {
    list: Vec<(Vec<u8>, Vec<u8>)>,
    /// Where each name has its record.
    places: HashMap<Vec<u8>, usize>,
}

impl Xattrs {
    fn get(&self, name: &[u8]) -> Option<&Vec<u8>> {
        self.places.get(name).map(|place| &self.list[*place].1)
    }

    fn set(&mut self, name: &[u8], value: Vec<u8>) -> Result<()> {
        if name.is_empty() || name.contains(&0) {
            return invalid("an extended attribute has no proper name");
        }
        match self.get(name) {
            Some(found) if *found == value => Ok(()),
            Some(_) => invalid("an extended attribute has two values"),
            None => {
                self.places.insert(name.to_vec(), self.list.len());
                self.list.push((name.to_vec(), value));
                Ok(())
            }
        }
    }

    pub(super) fn into_list(self) -> Vec<(Vec<u8>, Vec<u8>)> {
        self.list
    }
}

fn text(key: &str, value: &[u8]) -> Result<Vec<u8>> {
    match value {
        [] => invalid(format!("ambiguous: the extended header's {key} is empty")),
        value if value.contains(&0) => invalid(format!("the extended header's {key} has a zero byte")),
        value => Ok(value.to_vec()),
    }
}

fn number(key: &str, value: &[u8]) -> Result<u64> {
    decimal(&format!("the extended header's {key}"), value)
}

/// The records of a payload: `length SP key=value LF`, the length counting all of it.
pub(super) struct Records<'a>(pub(super) &'a [u8]);

impl<'a> Iterator for Records<'a> {
    type Item = Result<(&'a [u8], &'a [u8])>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let Some((record, rest)) = split(self.0) else {
            self.0 = &[];
            return Some(invalid("an extended header is malformed"));
        };
        self.0 = rest;
        Some(Ok(record))
    }
}

type Record<'a> = (&'a [u8], &'a [u8]);

fn split(payload: &[u8]) -> Option<(Record<'_>, &[u8])> {
    let space = payload.iter().take(20).position(|byte| *byte == b' ')?;
    let length = decimal("a length", &payload[..space]).ok().and_then(|length| usize::try_from(length).ok())?;
    let (record, rest) = payload.split_at_checked(length)?;
    let record = record.get(space + 1..)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|byte| *byte == b'=')?;
    let (key, value) = (&record[..equals], &record[equals + 1..]);
    (!key.is_empty() && !key.contains(&0)).then_some(((key, value), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(key: &str, value: &[u8]) -> Vec<u8> {
        let rest = key.len() + value.len() + 3;
        let length = (1..).find(|digits| (rest + digits).to_string().len() == *digits).unwrap() + rest;
        [length.to_string().as_bytes(), b" ", key.as_bytes(), b"=", value, b"\n"].concat()
    }

    #[test]
    fn values_are_bytes() {
        let payload = [
            record("SCHILY.xattr.security.capability", b"\x01\0\n\n=\xff"),
            record("path", b"two"),
            record("LIBARCHIVE.xattr.user.a%3Db", b"AAo"),
            record("path", b"two"),
        ];
        let extension = Extension::parse(&payload.concat()).unwrap();
        assert_eq!(extension.path.as_deref(), Some(&b"two"[..]));
        assert_eq!(extension.not_applied, ["LIBARCHIVE.xattr.user.a=b"]);
        let capability = (b"security.capability".to_vec(), b"\x01\0\n\n=\xff".to_vec());
        assert_eq!(extension.xattrs.into_list(), [capability]);
    }

    #[test]
    fn records_that_come_twice_and_differ_are_refused() {
        for (key, first, second) in [
            ("path", &b"one"[..], &b"two"[..]),
            ("path", b"one", b""),
            ("size", b"0", b"7"),
            ("mtime", b"1", b"1.5"),
            ("SCHILY.xattr.user.x", b"1", b"2"),
            ("LIBARCHIVE.xattr.user.x", b"MQ", b"Mg"),
        ] {
            let twice = [record(key, first), record(key, second)].concat();
            assert!(Extension::parse(&twice).is_err(), "{key}");
        }
        let both = [record("LIBARCHIVE.xattr.user.x", b"MQ"), record("SCHILY.xattr.user.x", b"2")].concat();
        assert!(Extension::parse(&both).is_err());
    }

    #[test]
    fn empty_records_are_refused() {
        for key in ["path", "linkpath", "size", "uid", "gid", "mtime"] {
            assert!(Extension::parse(&record(key, b"")).is_err(), "{key}");
        }
    }

    #[test]
    fn malformed_records_are_refused() {
        let wrong: [&[u8]; 10] = [
            b"nonsense",
            b"9 path=a\n9 path",
            b"8 path=a\n",
            b"0 path=a\n",
            b"+9 path=a\n",
            b"99999999999999999999 path=a\n",
            b"9 patha=\n ",
            b"7 =abc\n",
            b"6 size\n",
            b"10 size=-1\n",
        ];
        for payload in wrong {
            let parsed = Extension::parse(payload);
            assert!(parsed.is_err(), "{:?} became {parsed:?}", String::from_utf8_lossy(payload));
        }
        for (key, value) in [("size", "0x10"), ("uid", "4.5"), ("mtime", "never"), ("path", "a\0b")] {
            assert!(Extension::parse(&record(key, value.as_bytes())).is_err(), "{key}={value:?}");
        }
    }
}
