//! What stands in layers, by its digest.

use std::collections::HashMap;
use std::io::Read;

use crate::changeset::DiffOptions;
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

/// The digests of the contents of one layer, by the numbers of their entries.
type Digests = Vec<(u64, Option<[u8; HASH]>)>;

/// The bytes of a SHA-256 hash.
const HASH: usize = 32;
/// The memory of the digests of two contents that are compared.
pub(super) const CONTENT_BYTES: usize = 2 * size_of::<(u64, Option<[u8; HASH]>)>();

/// Digests of those that were asked for.
#[derive(Debug)]
pub(super) struct Contents(HashMap<Digest, Digests>);

impl Contents {
    /// Reads each layer that has some of them once, to its end.
    pub(super) fn read<'a>(wanted: impl Iterator<Item = (&'a Layer, u64)>, options: &DiffOptions) -> Result<Contents> {
        let mut layers: HashMap<Digest, (&Layer, Digests)> = HashMap::new();
        for (layer, number) in wanted {
            layers.entry(layer.diff_id()).or_insert((layer, Vec::new())).1.push((number, None));
        }
        let mut reading = Reading { cancel: &options.cancel, limits: options.limits, claimed: 0 };
        for (layer, contents) in layers.values_mut() {
            contents.sort_unstable();
            contents.dedup();
            reading.layer(layer, contents).context(|| format!("layer {}", layer.digest()))?;
        }
        Ok(Contents(layers.into_iter().map(|(diff_id, (_, contents))| (diff_id, contents)).collect()))
    }

    pub(super) fn get(&self, place: Place) -> Option<[u8; HASH]> {
        let contents = self.0.get(&place.diff_id)?;
        let at = contents.binary_search_by_key(&place.number, |(number, _)| *number).ok()?;
        contents[at].1
    }
}

struct Reading<'a> {
    cancel: &'a Cancel,
    limits: Limits,
    /// The size of all contents so far, holes counted.
    claimed: u64,
}

impl Reading<'_> {
    fn layer(&mut self, layer: &Layer, contents: &mut Digests) -> Result<()> {
        let mut entries = layer.entries_with(self.limits)?;
        let (mut number, mut contents) = (0, contents.iter_mut().peekable());
        while let Some(entry) = entries.next_entry()? {
            self.cancel.check()?;
            number += 1;
            if let Some((_, digest)) = contents.next_if(|(wanted, _)| *wanted == number) {
                self.claimed = self.claimed.saturating_add(entry.size());
                self.limits.check(Limit::UnpackedSize, self.claimed)?;
                *digest = Some(self.digest(entry)?);
            }
        }
        Ok(())
    }

    fn digest(&self, mut content: impl Read) -> Result<[u8; HASH]> {
        let mut hasher = Hasher::new(Algorithm::Sha256);
        let mut buffer = vec![0; PIECE];
        loop {
            self.cancel.check()?;
            match content.read(&mut buffer)? {
                0 => return Ok(hasher.finish().as_bytes().try_into().expect("it is a SHA-256 hash")),
                count => hasher.update(&buffer[..count]),
            }
        }
    }
}
