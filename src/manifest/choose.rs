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
pub(crate) const MAX_DEPTH: u64 = 4;
/// How many nested indexes are read in search of a platform.
const MAX_NESTED: u64 = 16;
/// How many entries that name no platform are looked into.
const MAX_UNNAMED: u64 = 64;

/// Gets the document that an index points to.
type Read<'a> = &'a mut dyn FnMut(&Descriptor) -> Result<Root>;
/// Says what an image runs on by its configuration's word, if that says anything.
type PlatformOf<'a> = &'a mut dyn FnMut(&Manifest) -> Result<Option<Platform>>;

/// The manifest for `platform` that `root` leads to.
///
/// Entries that name the platform come first, then those that name none, in their order: of these the configuration
/// decides. Indexes are followed. A root that is a manifest is the answer, whatever its platform.
pub(crate) fn choose(root: Root, platform: &Platform, read: Read<'_>, platform_of: PlatformOf<'_>) -> Result<Manifest> {
    let root = match root {
        Root::Manifest(manifest) => return Ok(manifest),
        index => index,
    };
    let mut search = Search { platform, read, platform_of, nested: 0, unnamed: 0, seen: Vec::new() };
    let found = search.find(root, true, 0)?;
    found.ok_or_else(|| {
        let available = search.seen;
        ErrorKind::NoMatchingPlatform { wanted: platform.clone(), available }.into()
    })
}

struct Search<'a> {
    platform: &'a Platform,
    read: Read<'a>,
    platform_of: PlatformOf<'a>,
    nested: u64,
    unnamed: u64,
    /// The platforms that were met, for the error.
    seen: Vec<Platform>,
}

impl Search<'_> {
    /// `known`: whether whoever pointed to the document said that it is for the platform.
    fn find(&mut self, root: Root, known: bool, depth: u64) -> Result<Option<Manifest>> {
        let index = match root {
            Root::Manifest(manifest) => return self.check(manifest, known),
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

    fn check(&mut self, manifest: Manifest, known: bool) -> Result<Option<Manifest>> {
        if known {
            return Ok(Some(manifest));
        }
        // Beside images for platforms, what is no image is something about them: a signature, a list of contents.
        if !manifest.config().media_type.is_config() && !self.seen.is_empty() {
            return Ok(None);
        }
        match (self.platform_of)(&manifest)? {
            Some(found) if !self.platform.runs(&found) => {
                self.seen.push(found);
                Ok(None)
            }
            _ => Ok(Some(manifest)),
        }
    }

    fn follow(&mut self, entry: &Descriptor, depth: u64) -> Result<Option<Manifest>> {
        if entry.media_type.is_index() {
            self.nested += 1;
            if self.nested > MAX_NESTED {
                return Err(Error::limit(Limit::NestedIndexes, MAX_NESTED));
            }
        }
        if entry.platform.is_none() {
            self.unnamed += 1;
            if self.unnamed > MAX_UNNAMED {
                return Err(Error::limit(Limit::UnnamedEntries, MAX_UNNAMED));
            }
        }
        let root = (self.read)(entry)?;
        self.find(root, entry.platform.is_some(), depth + 1)
    }
}
