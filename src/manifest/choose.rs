//! From a root to the manifest for a platform.

use super::Manifest;
use super::Root;

use crate::descriptor::Descriptor;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Limit;
use crate::error::Result;
use crate::platform::Platform;

/// How deep indexes may nest; none honest goes beyond two.
const MAX_DEPTH: u64 = 4;
/// How many nested indexes are read in search of a platform.
const MAX_NESTED: u64 = 16;

/// The manifest for `platform` that `root` leads to. `read` gets the documents that an index points to.
///
/// Entries that name the platform come first, then those that name none, in their order; indexes are followed.
/// A root that is a manifest is the answer, whatever its platform: only its configuration knows.
pub(crate) fn choose(
    root: Root,
    platform: &Platform,
    read: &mut dyn FnMut(&Descriptor) -> Result<Root>,
) -> Result<Manifest> {
    let mut search = Search { platform, read, nested: 0, seen: Vec::new() };
    let found = search.find(root, 0)?;
    found.ok_or_else(|| {
        let available = search.seen;
        ErrorKind::NoMatchingPlatform { wanted: platform.clone(), available }.into()
    })
}

struct Search<'a> {
    platform: &'a Platform,
    read: &'a mut dyn FnMut(&Descriptor) -> Result<Root>,
    nested: u64,
    /// The platforms that were met, for the error.
    seen: Vec<Platform>,
}

impl Search<'_> {
    fn find(&mut self, root: Root, depth: u64) -> Result<Option<Manifest>> {
        let index = match root {
            Root::Manifest(manifest) => return Ok(Some(manifest)),
            Root::Index(index) => index,
        };
        if depth >= MAX_DEPTH {
            return Err(Error::limit(Limit::IndexDepth, MAX_DEPTH));
        }
        self.seen.extend(index.platforms());
        let named = index.select(self.platform);
        let unnamed = index.images().filter(|entry| entry.platform.is_none());
        for entry in named.into_iter().chain(unnamed) {
            if let Some(manifest) = self.follow(entry, depth)? {
                return Ok(Some(manifest));
            }
        }
        Ok(None)
    }

    fn follow(&mut self, entry: &Descriptor, depth: u64) -> Result<Option<Manifest>> {
        if entry.media_type.is_index() {
            self.nested += 1;
            if self.nested > MAX_NESTED {
                return Err(Error::limit(Limit::NestedIndexes, MAX_NESTED));
            }
        }
        let root = (self.read)(entry)?;
        self.find(root, depth + 1)
    }
}
