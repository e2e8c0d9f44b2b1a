//! What was once counted: how large layers are when unpacked.
//!
//! The size is a fact about the content that a diff id names, so it never changes and never needs to be cleared. It
//! is known only after the layer was read whole and found to be what the diff id says; no header is believed. Facts
//! are appended to one file, a line each; a line that a crash tore is passed over, and its fact counted again.

use std::collections::HashMap;
use std::io::Read;
use std::io::Seek;
use std::io::SeekFrom;
use std::io::Write;
use std::sync::Mutex;

use super::Store;
use super::layout::FACTS;

use crate::digest::Digest;
use crate::error::Error;
use crate::error::Result;
use crate::fs::lock::Locked;
use crate::sync::lock;

/// The most bytes of facts that are read at once; some 700,000 layers.
const MAX_FACTS: u64 = 64 << 20;

/// The facts that this process has read so far, and how far into the file that is.
#[derive(Debug, Default)]
pub(super) struct Facts(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    sizes: HashMap<Digest, u64>,
    offset: u64,
}

impl Store {
    /// The unpacked size in bytes of the layer with this diff id, if it was ever counted.
    pub(crate) fn known_size(&self, diff_id: Digest) -> Option<u64> {
        let mut facts = lock(&self.shared.facts.0);
        if !facts.sizes.contains_key(&diff_id) {
            // A file that is missing or cannot be read knows nothing.
            let _ = self.read_facts(&mut facts);
        }
        facts.sizes.get(&diff_id).copied()
    }

    /// Keeps the unpacked size of a layer that was read whole. A store that cannot be written forgets it.
    pub(crate) fn keep_size(&self, diff_id: Digest, size: u64) {
        let line = format!("{diff_id} {size}\n");
        let _ = self.append_fact(&line);
        lock(&self.shared.facts.0).sizes.insert(diff_id, size);
    }

    fn append_fact(&self, line: &str) -> Result<()> {
        if self.dir().own_stat()?.st_uid != rustix::process::geteuid().as_raw() {
            // This operation only reads: it makes nothing in the store of another user.
            return Ok(());
        }
        let ours = self.ours()?;
        let fail = |error| Error::io("write", &ours.path().join(FACTS), error);
        // If somebody else keeps a fact at this moment: ours can be counted again; waiting is not worth it.
        let Ok(Some(mut file)) = Locked::alone(ours.file_to_write(FACTS)?) else { return Ok(()) };
        file.seek(SeekFrom::End(0)).map_err(fail)?;
        file.write_all(line.as_bytes()).map_err(fail)
    }

    fn read_facts(&self, facts: &mut Known) -> Result<()> {
        let Some(private) = self.private()? else { return Ok(()) };
        let mut file = private.file(FACTS)?;
        let mut text = Vec::new();
        file.seek(SeekFrom::Start(facts.offset))?;
        file.take(MAX_FACTS).read_to_end(&mut text)?;
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        for line in text[..whole].split(|byte| *byte == b'\n') {
            facts.sizes.extend(parse(line));
        }
        facts.offset += whole as u64;
        Ok(())
    }
}

fn parse(line: &[u8]) -> Option<(Digest, u64)> {
    let (diff_id, size) = std::str::from_utf8(line).ok()?.split_once(' ')?;
    Some((diff_id.parse().ok()?, size.parse().ok()?))
}
