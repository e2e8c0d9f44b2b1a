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

/// libarchive leaves the padding out.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What an extended header says of the entry behind it. The last of several records counts.
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
        for record in Records(payload) {
            let (key, value) = record?;
            extension.take(key, value)?;
        }
        Ok(extension)
    }

    fn take(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        match key {
            b"path" => self.path = text("path", value)?,
            b"linkpath" => self.link = text("linkpath", value)?,
            b"size" => self.size = number("size", value)?,
            b"uid" => self.uid = number("uid", value)?,
            b"gid" => self.gid = number("gid", value)?,
            b"mtime" => self.mtime = if value.is_empty() { None } else { Some(time(value)?) },
            _ => return self.take_vendor(key, value),
        }
        Ok(())
    }

    fn take_vendor(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        if let Some(name) = key.strip_prefix(SCHILY_XATTR) {
            self.set_xattr(name, value.to_vec())
        } else if let Some(name) = key.strip_prefix(LIBARCHIVE_XATTR) {
            let name: Vec<u8> = percent_decode(name).collect();
            match BASE64.decode(value) {
                // bsdtar writes both forms; the plain one cannot be misread.
                Ok(_) if self.xattrs.has(&name) => Ok(()),
                Ok(value) => self.set_xattr(&name, value),
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

    fn set_xattr(&mut self, name: &[u8], value: Vec<u8>) -> Result<()> {
        if name.is_empty() || name.contains(&0) {
            return invalid("an extended attribute has no proper name");
        }
        self.xattrs.set(name, value);
        Ok(())
    }
}

/// Extended attributes, in the order of the records that count. There may be 48,000 in one header, so each is found at
/// once.
#[derive(Debug, Default)]
pub(super) struct Xattrs {
    list: Vec<Option<(Vec<u8>, Vec<u8>)>>,
    /// Where each name has its record.
    places: HashMap<Vec<u8>, usize>,
}

impl Xattrs {
    fn has(&self, name: &[u8]) -> bool {
        self.places.contains_key(name)
    }

    fn set(&mut self, name: &[u8], value: Vec<u8>) {
        if let Some(before) = self.places.insert(name.to_vec(), self.list.len()) {
            self.list[before] = None;
        }
        self.list.push(Some((name.to_vec(), value)));
    }

    pub(super) fn into_list(self) -> Vec<(Vec<u8>, Vec<u8>)> {
        self.list.into_iter().flatten().collect()
    }
}

/// An empty value takes back what was said before (POSIX pax).
fn text(key: &str, value: &[u8]) -> Result<Option<Vec<u8>>> {
    match value {
        [] => Ok(None),
        value if value.contains(&0) => invalid(format!("the extended header's {key} has a zero byte")),
        value => Ok(Some(value.to_vec())),
    }
}

fn number(key: &str, value: &[u8]) -> Result<Option<u64>> {
    if value.is_empty() { Ok(None) } else { decimal(&format!("the extended header's {key}"), value).map(Some) }
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
    fn values_are_bytes_and_the_last_counts() {
        let payload = [
            record("SCHILY.xattr.security.capability", b"\x01\0\n\n=\xff"),
            record("path", b"one"),
            record("path", b"two"),
            record("LIBARCHIVE.xattr.user.a%3Db", b"AAo"),
        ];
        let extension = Extension::parse(&payload.concat()).unwrap();
        assert_eq!(extension.path.as_deref(), Some(&b"two"[..]));
        let capability = (b"security.capability".to_vec(), b"\x01\0\n\n=\xff".to_vec());
        assert_eq!(extension.xattrs.into_list(), [capability, (b"user.a=b".to_vec(), b"\0\n".to_vec())]);
    }

    #[test]
    fn attributes_keep_the_order_of_the_records_that_count() {
        let names = ["c", "a", "b", "c", "b"];
        let record = |(n, name): (usize, &&str)| record(&format!("SCHILY.xattr.user.{name}"), n.to_string().as_bytes());
        let payload: Vec<u8> = names.iter().enumerate().flat_map(record).collect();
        let found = Extension::parse(&payload).unwrap().xattrs.into_list();
        let expected = [("user.a", "1"), ("user.c", "3"), ("user.b", "4")];
        assert_eq!(found, expected.map(|(name, value)| (name.into(), value.into())));
    }

    #[test]
    fn an_empty_value_takes_back() {
        let payload = [record("path", b"one"), record("path", b""), record("size", b"")].concat();
        let extension = Extension::parse(&payload).unwrap();
        assert_eq!((extension.path, extension.size), (None, None));
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
