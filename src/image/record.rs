//! What is written beside an unpacked layer.

use std::fs::File;
use std::io;
use std::io::Read;

use serde::Deserialize;
use serde::Serialize;

use crate::changeset::Skipped;
use crate::changeset::SkippedPart;
use crate::changeset::to_path;
use crate::digest::Digest;
use crate::error::Error;
use crate::error::Limit;
use crate::error::Result;
use crate::fs::path_of_text;
use crate::fs::path_to_text;

/// More than the longest list of things that were left out: no byte of a name becomes more than six here.
const MAX_RECORD: u64 = 256 << 20;

/// That a layer is unpacked whole, and what was noted of it and those below.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Record {
    /// The layer; none below the lowest.
    pub(super) diff_id: Option<Digest>,
    /// How many entries there were, in all layers up to this one.
    pub(super) entries: u64,
    /// And bytes.
    pub(super) bytes: u64,
    /// The size of all files, holes counted.
    pub(super) claimed: u64,
    /// Disk space of this layer alone, as `du` counts it.
    pub(super) disk: u64,
    /// What of this layer could not be unpacked.
    pub(super) skipped: Vec<Skipped>,
    /// Where things would be that were left out, in all layers up to this one.
    pub(super) left_out: Vec<Vec<u8>>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Text {
    chain_id: Digest,
    diff_id: Digest,
    entries: u64,
    bytes: u64,
    /// Records had none at first.
    claimed: Option<u64>,
    #[serde(default)]
    disk: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    skipped: Vec<SkippedText>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    left_out: Vec<String>,
}

/// Paths are percent-encoded: they are bytes.
#[derive(Serialize, Deserialize)]
struct SkippedText {
    path: String,
    #[serde(flatten)]
    what: Part,
    reason: String,
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "part", content = "name", rename_all = "camelCase")]
enum Part {
    Entry,
    Xattr(String),
    Modified,
    Record(String),
    SetId,
    Capabilities,
    Device,
}

impl Record {
    /// The record in a file, if it is one of this stack.
    pub(super) fn read(mut file: &File, chain: &Digest) -> io::Result<Option<Record>> {
        let mut bytes = Vec::new();
        file.by_ref().take(MAX_RECORD).read_to_end(&mut bytes)?;
        let text = serde_json::from_slice(&bytes).ok().filter(|text: &Text| text.chain_id == *chain);
        Ok(text.map(|text| Record {
            diff_id: Some(text.diff_id),
            entries: text.entries,
            bytes: text.bytes,
            claimed: text.claimed.unwrap_or(text.bytes),
            disk: text.disk,
            skipped: text.skipped.into_iter().map(SkippedText::decoded).collect(),
            left_out: text.left_out.iter().map(|path| path_of_text(path)).collect(),
        }))
    }

    /// The memory that its lists take.
    pub(super) fn bytes_of_lists(&self) -> u64 {
        let places = self.left_out.iter().map(|place| (size_of::<Vec<u8>>() + place.len()) as u64);
        self.skipped.iter().map(Skipped::bytes).chain(places).sum()
    }

    /// As it is written. Fails if it is longer than what is read again.
    pub(super) fn to_bytes(&self, chain: Digest) -> Result<Vec<u8>> {
        self.to_bytes_within(chain, MAX_RECORD)
    }

    fn to_bytes_within(&self, chain: Digest, most: u64) -> Result<Vec<u8>> {
        let text = Text {
            chain_id: chain,
            diff_id: self.diff_id.unwrap_or(chain),
            entries: self.entries,
            bytes: self.bytes,
            claimed: Some(self.claimed),
            disk: self.disk,
            skipped: self.skipped.iter().map(SkippedText::of).collect(),
            left_out: self.left_out.iter().map(|path| path_to_text(path)).collect(),
        };
        let mut bytes = Bounded { bytes: Vec::new(), most };
        serde_json::to_writer(&mut bytes, &text).map_err(io::Error::from)?;
        Ok(bytes.bytes)
    }
}

/// Takes so many bytes.
struct Bounded {
    bytes: Vec<u8>,
    most: u64,
}

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if (self.bytes.len() + bytes.len()) as u64 > self.most {
            return Err(Error::limit(Limit::ReportedBytes, self.most).into());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl SkippedText {
    fn of(skipped: &Skipped) -> SkippedText {
        let what = match &skipped.what {
            SkippedPart::Entry => Part::Entry,
            SkippedPart::Xattr(name) => Part::Xattr(name.clone()),
            SkippedPart::Modified => Part::Modified,
            SkippedPart::Record(key) => Part::Record(key.clone()),
            SkippedPart::SetId => Part::SetId,
            SkippedPart::Capabilities => Part::Capabilities,
            SkippedPart::Device => Part::Device,
        };
        let path = path_to_text(skipped.path.as_os_str().as_encoded_bytes());
        SkippedText { path, what, reason: skipped.reason.clone() }
    }

    fn decoded(self) -> Skipped {
        let what = match self.what {
            Part::Entry => SkippedPart::Entry,
            Part::Xattr(name) => SkippedPart::Xattr(name),
            Part::Modified => SkippedPart::Modified,
            Part::Record(key) => SkippedPart::Record(key),
            Part::SetId => SkippedPart::SetId,
            Part::Capabilities => SkippedPart::Capabilities,
            Part::Device => SkippedPart::Device,
        };
        let path = path_of_text(&self.path);
        Skipped { path: to_path(&path), what, reason: self.reason }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn what_is_written_is_read() {
        let chain = Digest::sha256(b"chain");
        let skip = |what| Skipped { path: to_path(b"a/\xff b"), what, reason: "why".to_owned() };
        let skipped = vec![skip(SkippedPart::Entry), skip(SkippedPart::Xattr("user.x".to_owned()))];
        let left_out = vec![b"dev/\xfe%".to_vec()];
        let diff_id = Some(Digest::sha256(b"layer"));
        let record = Record { diff_id, entries: 3, bytes: 4, claimed: 5, disk: 6, skipped, left_out };
        let mut file = tempfile::tempfile().unwrap();
        std::io::Write::write_all(&mut file, &record.to_bytes(chain).unwrap()).unwrap();
        std::io::Seek::rewind(&mut file).unwrap();
        assert_eq!(Record::read(&file, &chain).unwrap(), Some(record));
        std::io::Seek::rewind(&mut file).unwrap();
        assert_eq!(Record::read(&file, &Digest::sha256(b"other")).unwrap(), None);
    }

    /// P9: the story: a record that was longer than what is read of one was written, not known, and written again, for
    /// ever.
    #[test]
    fn what_would_not_be_read_is_not_written() {
        let chain = Digest::sha256(b"chain");
        let record = Record { left_out: vec![b"dev/null".to_vec()], ..Record::default() };
        let length = record.to_bytes(chain).unwrap().len() as u64;
        assert_eq!(record.to_bytes_within(chain, length).unwrap().len() as u64, length);
        let error = record.to_bytes_within(chain, length - 1).unwrap_err();
        assert!(
            matches!(error.kind(), ErrorKind::LimitExceeded { limit: Limit::ReportedBytes, maximum } if *maximum == length - 1),
            "{error}"
        );
    }
}
