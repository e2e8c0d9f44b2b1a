//! What stands in layers, by its digest.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::io::Read;

use crate::changeset::Limits;
use crate::digest::Algorithm;
use crate::digest::Digest;
use crate::digest::Hasher;
use crate::error::Context;
use crate::error::Limit;
use crate::error::Result;
use crate::event::Cancel;
use crate::image::Layer;

const PIECE: usize = 64 << 10;

/// Where a content stands: at which entry of which tar. There the same bytes are, in whichever image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) diff_id: Digest,
    pub(super) number: u64,
}

/// Digests of those that were asked for.
#[derive(Debug)]
pub(super) struct Contents(HashMap<Digest, BTreeMap<u64, Option<Digest>>>);

impl Contents {
    /// Reads each layer that has some of them once, to its end.
    pub(super) fn read<'a>(wanted: impl Iterator<Item = (&'a Layer, u64)>, cancel: &Cancel) -> Result<Contents> {
        let mut layers: HashMap<Digest, (&Layer, BTreeMap<u64, Option<Digest>>)> = HashMap::new();
        for (layer, number) in wanted {
            layers.entry(layer.diff_id()).or_insert((layer, BTreeMap::new())).1.insert(number, None);
        }
        let mut reading = Reading { cancel, limits: Limits::default(), claimed: 0 };
        for (layer, contents) in layers.values_mut() {
            reading.layer(layer, contents).context(|| format!("layer {}", layer.digest()))?;
        }
        Ok(Contents(layers.into_iter().map(|(diff_id, (_, contents))| (diff_id, contents)).collect()))
    }

    pub(super) fn get(&self, place: Place) -> Option<Digest> {
        *self.0.get(&place.diff_id)?.get(&place.number)?
    }
}

struct Reading<'a> {
    cancel: &'a Cancel,
    limits: Limits,
    /// The size of all contents so far, holes counted.
    claimed: u64,
}

impl Reading<'_> {
    fn layer(&mut self, layer: &Layer, contents: &mut BTreeMap<u64, Option<Digest>>) -> Result<()> {
        let mut entries = layer.entries()?;
        let mut number = 0;
        while let Some(entry) = entries.next_entry()? {
            self.cancel.check()?;
            number += 1;
            if let Some(digest) = contents.get_mut(&number) {
                self.claimed = self.claimed.saturating_add(entry.size());
                self.limits.check(Limit::UnpackedSize, self.claimed)?;
                *digest = Some(self.digest(entry)?);
            }
        }
        Ok(())
    }

    fn digest(&self, mut content: impl Read) -> Result<Digest> {
        let mut hasher = Hasher::new(Algorithm::Sha256);
        let mut buffer = vec![0; PIECE];
        loop {
            self.cancel.check()?;
            match content.read(&mut buffer)? {
                0 => return Ok(hasher.finish()),
                count => hasher.update(&buffer[..count]),
            }
        }
    }
}
