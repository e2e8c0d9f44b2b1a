//! What a pull would do.

use std::cell::RefCell;
use std::collections::HashSet;

use serde::Deserialize;
use serde::Serialize;

use crate::descriptor::Descriptor;
use crate::error::Error;
use crate::error::Result;
use crate::event::Watch;
use crate::manifest::Config;
use crate::manifest::Manifest;
use crate::manifest::Root;
use crate::manifest::choose;
use crate::platform::Platform;
use crate::reference::Identifier;
use crate::reference::ImageReference;
use crate::registry::Repository;
use crate::store::Store;

/// What a pull would do. Made by [`Pull::plan`](super::Pull::plan).
///
/// It holds what the name meant when it was made: its pull brings that, by digest, also after the name has moved.
/// What the store has, and how much room there is, is asked again then.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PullPlan {
    /// The name.
    pub reference: ImageReference,
    /// The platform that was asked for; none for the host's.
    pub platform: Option<Platform>,
    /// What the name means.
    pub root: Descriptor,
    /// The manifest of the image for the platform.
    pub manifest: Descriptor,
    /// What is to be fetched, documents first, each once.
    pub fetch: Vec<Descriptor>,
    /// What the store has already.
    pub reuse: Vec<Descriptor>,
    /// The bytes that are to be fetched, less what an earlier attempt left.
    pub bytes: u64,
    /// The bytes for which there is room: on the disk, and below the store's limit.
    pub available: u64,
}

/// The same as text, in a form that may change.
#[derive(Deserialize, Serialize)]
struct Document<P> {
    form: u32,
    plan: P,
}

const FORM: u32 = 1;

impl PullPlan {
    /// Whether there is room for what is to be fetched.
    pub fn has_room(&self) -> bool {
        self.bytes <= self.available
    }

    /// The plan as text, to be kept.
    pub fn to_json(&self) -> String {
        let document = Document { form: FORM, plan: self };
        serde_json::to_string(&document).expect("descriptors, texts and numbers are JSON")
    }

    /// The plan that [`to_json`](PullPlan::to_json) wrote.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidDocument`](crate::ErrorKind::InvalidDocument), also for one of a newer form.
    pub fn from_json(text: &str) -> Result<PullPlan> {
        let invalid = |reason: String| Error::invalid_document("plan", reason);
        let document: Document<serde_json::Value> =
            serde_json::from_str(text).map_err(|error| invalid(error.to_string()))?;
        if document.form != FORM {
            return Err(invalid(format!("it is of form {}", document.form)));
        }
        serde_json::from_value(document.plan).map_err(|error| invalid(error.to_string()))
    }
}

/// A plan that is being made.
pub(super) struct Planning<'a> {
    pub(super) repository: Repository,
    pub(super) store: &'a Store,
    pub(super) watch: Watch<'a>,
}

impl Planning<'_> {
    pub(super) fn run(
        &self,
        reference: &ImageReference,
        identifier: &Identifier,
        platform: Option<Platform>,
    ) -> Result<PullPlan> {
        let document = self.repository.fetch_watched(identifier, &self.watch)?;
        let root = document.descriptor();
        let wanted = platform.clone().unwrap_or_else(Platform::host);
        // Each document on the way to the image's manifest.
        let read = RefCell::new(vec![root.clone()]);
        let manifest = choose(
            document,
            &wanted,
            &mut |entry| {
                read.borrow_mut().push(entry.clone());
                self.document(entry)
            },
            &mut |manifest| Ok(self.config(manifest)?.and_then(|config| config.platform())),
        )?;
        let mut plan = PullPlan {
            reference: reference.clone(),
            platform,
            root,
            manifest: manifest.descriptor(),
            fetch: Vec::new(),
            reuse: Vec::new(),
            bytes: 0,
            available: self.store.room()?.available,
        };
        let mut seen = HashSet::new();
        let blobs = read.into_inner().into_iter().chain([manifest.descriptor(), manifest.config().clone()]);
        for blob in blobs.chain(manifest.layers().iter().cloned()).filter(|blob| seen.insert(blob.digest)) {
            if self.store.contains(&blob)? {
                plan.reuse.push(blob);
            } else {
                plan.bytes = plan.bytes.saturating_add(blob.size - self.store.begun(&blob)?);
                plan.fetch.push(blob);
            }
        }
        Ok(plan)
    }

    fn document(&self, descriptor: &Descriptor) -> Result<Root> {
        match self.store.document(descriptor) {
            Err(error) if error.is_as_good_as_missing() => {
                self.repository.fetch_promised_watched(descriptor, &self.watch)
            }
            done => done,
        }
    }

    fn config(&self, manifest: &Manifest) -> Result<Option<Config>> {
        let descriptor = manifest.config();
        if !descriptor.media_type.is_config() {
            return Ok(None);
        }
        let content = match self.store.read(descriptor) {
            Err(error) if error.is_as_good_as_missing() => self.repository.read_watched(descriptor, &self.watch)?,
            done => done?,
        };
        Config::with_digest(content, descriptor.digest).map(Some)
    }
}
