//! Fetching again what a store has lost.

use std::collections::HashSet;

use super::run::Run;

use crate::descriptor::Descriptor;
use crate::digest::Digest;
use crate::error::Context;
use crate::error::Result;
use crate::event::Cancel;
use crate::event::Observer;
use crate::event::Silent;
use crate::event::Watch;
use crate::manifest::Root;
use crate::reference::ImageReference;
use crate::registry::Registry;
use crate::store::CheckOptions;
use crate::store::Name;
use crate::store::Problem;
use crate::store::Repaired;
use crate::store::Store;

impl Registry {
    /// A repair of a store that fetches what is missing; [`Repair::of`] runs it.
    ///
    /// ```
    /// # use layercake::{testing, Registry, Store};
    /// # let dir = tempfile::tempdir()?;
    /// # let served = Store::create(dir.path().join("served"))?;
    /// # testing::Fixture::demo().tag(&served, &"example.com/greeter:1".parse()?)?;
    /// # let server = testing::Registry::start(&served)?;
    /// # let name = server.reference("greeter:1")?;
    /// # let store = Store::create(dir.path().join("store"))?;
    /// let registry = Registry::new();
    /// let pulled = registry.pull(&name).to(&store)?;
    /// let layer = &pulled.image.manifest().layers()[0];
    /// let file = store.path().join("blobs/sha256").join(layer.digest.hex().to_string());
    /// # std::fs::remove_file(&file)?;
    /// std::fs::write(&file, "a disk that forgets")?;
    ///
    /// let repaired = registry.repair().of(&store)?;
    /// assert_eq!((repaired.found.len(), repaired.remaining.len()), (1, 0));
    /// # Ok::<(), layercake::Error>(())
    /// ```
    pub fn repair(&self) -> Repair<'static> {
        Repair { registry: self.clone(), observer: &Silent, cancel: Cancel::new() }
    }
}

/// A repair that is being set up. Made by [`Registry::repair`]; [`of`](Repair::of) runs it.
#[must_use = "nothing is repaired before `of`"]
pub struct Repair<'a> {
    registry: Registry,
    observer: &'a dyn Observer,
    cancel: Cancel,
}

impl<'a> Repair<'a> {
    /// Whom to tell what happens.
    pub fn observer(self, observer: &'a dyn Observer) -> Repair<'a> {
        Repair { observer, ..self }
    }

    /// A switch that ends the repair.
    pub fn cancel(self, cancel: &Cancel) -> Repair<'a> {
        Repair { cancel: cancel.clone(), ..self }
    }

    /// Repairs a store as [`Store::repair`] does, and fetches what its names need and it does not have: each blob from
    /// the repository of a name that leads to it, by its digest. A registry that does not have it, or cannot be
    /// reached, leaves it missing, and [`Repaired::remaining`] says so.
    ///
    /// # Errors
    ///
    /// Those of [`Store::repair`]; [`ErrorKind::Cancelled`](crate::ErrorKind::Cancelled); those of writing to the store.
    pub fn of(&self, store: &Store) -> Result<Repaired> {
        let repair = || {
            let options = CheckOptions::new().observer(self.observer).cancel(&self.cancel);
            let mut repaired = store.repair_with(&options)?;
            let leased = store.leased()?;
            // What was fetched may lead to more that is missing.
            while let Some(lost) = lost(&repaired.remaining)
                && self.fetch(&leased, &lost)?
            {
                repaired.remaining = store.check_with(&options)?.problems;
            }
            Ok(repaired)
        };
        repair().context(|| format!("repair store {}", store.path().display()))
    }

    /// Fetches what it can. Whether it did anything.
    fn fetch(&self, store: &Store, lost: &HashSet<Digest>) -> Result<bool> {
        let mut fetched = false;
        for entry in store.entries()? {
            let Ok((Name::Reference(name), root)) = entry else { continue };
            for blob in find(store, &root, lost) {
                self.cancel.check()?;
                match self.one(store, &name, &blob) {
                    Ok(is_new) => fetched |= is_new,
                    Err(error) if error.is_of_the_store() => return Err(error),
                    // The registry does not have it any more. It stays missing.
                    Err(_) => {}
                }
            }
        }
        Ok(fetched)
    }

    fn one(&self, store: &Store, name: &ImageReference, blob: &Descriptor) -> Result<bool> {
        if store.contains(blob)? {
            return Ok(false);
        }
        let watch = Watch::new(self.observer, self.cancel.clone());
        let mut run = Run::new(self.registry.repository(name)?, store, watch);
        if blob.media_type.is_manifest() || blob.media_type.is_index() {
            run.document(blob)?;
        } else {
            run.blob(blob, None)?;
        }
        Ok(true)
    }
}

impl std::fmt::Debug for Repair<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Repair").field("registry", &self.registry).finish_non_exhaustive()
    }
}

/// What is not there, and needed.
fn lost(problems: &[Problem]) -> Option<HashSet<Digest>> {
    let lost = problems.iter().filter_map(|problem| match problem {
        Problem::Missing { digest, .. } | Problem::Dangling { digest, .. } => Some(*digest),
        _ => None,
    });
    let lost: HashSet<Digest> = lost.collect();
    (!lost.is_empty()).then_some(lost)
}

/// The descriptors of what is lost, as documents that are there have them.
fn find(store: &Store, root: &Descriptor, lost: &HashSet<Digest>) -> Vec<Descriptor> {
    let (mut wanted, mut seen) = (Vec::new(), HashSet::new());
    let mut ahead = vec![root.clone()];
    while let Some(descriptor) = ahead.pop() {
        if !seen.insert(descriptor.digest) {
            continue;
        }
        if lost.contains(&descriptor.digest) {
            wanted.push(descriptor);
            continue;
        }
        if !descriptor.media_type.is_manifest() && !descriptor.media_type.is_index() {
            continue;
        }
        match store.document(&descriptor) {
            Ok(Root::Manifest(manifest)) => {
                ahead.extend(manifest.layers().iter().chain([manifest.config()]).cloned());
            }
            Ok(Root::Index(index)) => ahead.extend(index.manifests().iter().cloned()),
            Err(_) => {}
        }
    }
    wanted
}
