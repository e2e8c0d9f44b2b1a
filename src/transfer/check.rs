//! Whether there is something newer.

use crate::descriptor::Descriptor;
use crate::digest::Digest;
use crate::error::Context;
use crate::error::Result;
use crate::reference::ImageReference;
use crate::registry::Registry;
use crate::store::Name;
use crate::store::Store;

/// What a registry has under a name, beside what a store has.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Freshness {
    /// What the name means in the store, if it is there.
    pub stored: Option<Descriptor>,
    /// What it means at the registry.
    pub offered: Descriptor,
}

impl Freshness {
    /// Whether the store has what the registry has.
    pub fn is_up_to_date(&self) -> bool {
        self.stored.as_ref().is_some_and(|stored| stored.digest == self.offered.digest)
    }
}

impl Registry {
    /// Asks whether a name means something newer than in a store: with one `HEAD` request, which Docker Hub does not
    /// count as a pull. Nothing is fetched, and nothing is changed.
    ///
    /// What is compared is what the name itself leads to: of an image for several platforms, the index.
    ///
    /// ```
    /// # use layercake::{testing, ImageReference, Registry, Store};
    /// # let dir = tempfile::tempdir()?;
    /// # let served = Store::create(dir.path().join("served"))?;
    /// # testing::Fixture::demo().tag(&served, &"example.com/greeter:1".parse()?)?;
    /// # let server = testing::Registry::start(&served)?;
    /// # let name = server.reference("greeter:1")?;
    /// # let store = Store::create(dir.path().join("store"))?;
    /// let registry = Registry::new();
    /// assert_eq!(registry.check(&name, &store)?.stored, None);
    /// registry.pull(&name).to(&store)?;
    /// assert!(registry.check(&name, &store)?.is_up_to_date());
    /// # Ok::<(), layercake::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`Repository::resolve`](crate::registry::Repository::resolve) and [`Store::resolve`]; where the
    /// registry says too little, of [`Repository::fetch`](crate::registry::Repository::fetch).
    pub fn check(&self, reference: &ImageReference, store: &Store) -> Result<Freshness> {
        let check = || {
            let reference = reference.or_latest();
            let repository = self.repository(&reference)?;
            let stored = store.lookup(&Name::from(&reference))?.map(|(_, root)| root);
            let comparable = |offered: &Descriptor| {
                stored.as_ref().is_none_or(|stored| stored.digest.algorithm() == offered.digest.algorithm())
            };
            let offered = match repository.resolve(&reference.identifier())?.filter(comparable) {
                Some(offered) => offered,
                // It says too little, or names the content in another way than the store does.
                None => {
                    let root = repository.fetch(&reference.identifier())?;
                    let algorithm =
                        stored.as_ref().map_or(root.descriptor().digest.algorithm(), |s| s.digest.algorithm());
                    Descriptor { digest: Digest::of(algorithm, root.raw()), ..root.descriptor() }
                }
            };
            Ok(Freshness { stored, offered })
        };
        check().context(|| format!("check {reference}"))
    }
}
