//! What was built before: for a step and all that it depends on, the layer that it made.
//!
//! A record is a hint. It counts only while the store has the layer's blob, in its size; one that is missing, torn or
//! rubbish is as none, and its step is done again. Nothing refers to a blob by a record alone, so what names no longer
//! lead to is not kept by it.

use serde::Deserialize;
use serde::Serialize;

use super::Store;

use crate::descriptor::Descriptor;
use crate::digest::Digest;
use crate::error::Limit;
use crate::error::Result;
use crate::fs::atomic;
use crate::fs::dir::Dir;

pub(super) const STEPS: &str = "steps";
/// A record has some hundred bytes.
const MAX_RECORD: u64 = 64 << 10;

/// What came of a step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct StepRecord {
    /// The blob of the layer, and the digest of the tar in it; none where nothing changed.
    pub(crate) layer: Option<(Descriptor, Digest)>,
}

impl Store {
    /// What came of a step when it was done last, if that is still here.
    pub(crate) fn known_step(&self, key: Digest) -> Option<StepRecord> {
        let content = self.existing(STEPS).ok()??.read(&name_of(key), Limit::DocumentSize, MAX_RECORD).ok()?;
        let record: StepRecord = serde_json::from_slice(&content).ok()?;
        match &record.layer {
            // What is relied on is promised anew.
            Some((blob, _)) if !self.contains(blob).ok()? || self.settle(blob).is_err() => None,
            _ => Some(record),
        }
    }

    /// Keeps what came of a step. A store that cannot be written forgets it.
    pub(crate) fn keep_step(&self, key: Digest, record: &StepRecord) {
        let _ = self.write_step(key, record);
    }

    fn write_step(&self, key: Digest, record: &StepRecord) -> Result<()> {
        // Called as blobs are that are being written, so that whoever clears those away clears away what a crash left.
        let aside = format!("new-{:016x}", fastrand::u64(..));
        let content = serde_json::to_vec(record).map_err(std::io::Error::from)?;
        atomic::replace(&self.partial_dir()?, &aside, &self.steps_dir()?, &name_of(key), &content, self.durability)
    }

    fn steps_dir(&self) -> Result<Dir> {
        let ours = self.ours()?;
        let (steps, is_new) = ours.make_dir(STEPS)?;
        if is_new {
            self.durability.sync_dir(&ours)?;
        }
        Ok(steps)
    }
}

fn name_of(key: Digest) -> String {
    format!("{}.json", key.hex())
}
