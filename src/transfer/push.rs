//! From a store, or from another registry, to a registry.

use std::fmt;

use super::copy::Copied;
use super::copy::Transfer;
use super::copy::copy;

use crate::error::Result;
use crate::event::Cancel;
use crate::event::Observer;
use crate::image::Image;
use crate::reference::ImageReference;
use crate::registry::Registry;

impl Registry {
    /// A push of an image of a store; [`Push::to`] runs it.
    ///
    /// It is the image's manifest that is pushed. All that a name in a store means, with the index and every image in
    /// it, is [copied](super::copy()) instead.
    ///
    /// ```
    /// # use layercake::{testing, ImageReference, Registry, Store};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("store"))?;
    /// # let name: ImageReference = "example.com/greeter:1".parse()?;
    /// # testing::Fixture::demo().tag(&store, &name)?;
    /// # let server = testing::Registry::start(&Store::create(dir.path().join("served"))?)?;
    /// # let there = server.reference("greeter:1")?;
    /// let image = store.image(&name)?;
    /// let pushed = Registry::new().push(&image).to(&there)?;
    /// println!("{}: digest: {} size: {}", there.tag().unwrap_or("latest"), pushed.root.digest, pushed.root.size);
    /// # Ok::<(), layercake::Error>(())
    /// ```
    pub fn push<'a>(&self, image: &'a Image) -> Push<'a> {
        Push { registry: self.clone(), transfer: copy(image) }
    }

    /// A copy of all that a name on one registry means to another name, there or elsewhere, through memory;
    /// [`Push::to`] runs it.
    pub fn copy<'a>(&'a self, from: &'a ImageReference) -> Push<'a> {
        Push { registry: self.clone(), transfer: copy((self, from)) }
    }
}

/// A push that is being set up. Made by [`Registry::push`] and [`Registry::copy`]; [`to`](Push::to) runs it.
#[must_use = "nothing is pushed before `to`"]
pub struct Push<'a> {
    registry: Registry,
    transfer: Transfer<'a>,
}

impl<'a> Push<'a> {
    /// How many blobs go at once: 4 by default, at least 1.
    pub fn jobs(self, jobs: usize) -> Push<'a> {
        Push { transfer: self.transfer.jobs(jobs), ..self }
    }

    /// Whom to tell what happens.
    pub fn observer(self, observer: &'a dyn Observer) -> Push<'a> {
        Push { transfer: self.transfer.observer(observer), ..self }
    }

    /// A switch that ends the push.
    pub fn cancel(self, cancel: &Cancel) -> Push<'a> {
        Push { transfer: self.transfer.cancel(cancel), ..self }
    }

    /// Pushes under this name: its tag; or its digest, which must be the content's; or the tag `latest`. Blobs go first
    /// and the name comes last, so that nobody sees half of it.
    ///
    /// # Errors
    ///
    /// Those of [`Transfer::to`].
    pub fn to(&self, reference: &ImageReference) -> Result<Copied> {
        self.transfer.to((&self.registry, reference))
    }
}

impl fmt::Debug for Push<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Push").field("transfer", &self.transfer).finish_non_exhaustive()
    }
}
