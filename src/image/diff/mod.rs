//! What changed from one image to another, told by their layers.

mod compare;
mod contents;

use crate::changeset::Changes;
use crate::changeset::DiffOptions;
use crate::error::Context;
use crate::error::Result;
use crate::image::Image;
use crate::image::standing::Standing;
use compare::Comparison;
use compare::Side;
use contents::Contents;

impl Image {
    /// What changed from this image to another, in this store or in any: `docker diff` for images. Nothing is
    /// unpacked.
    ///
    /// ```
    /// # use layercake::{testing::Fixture, Platform, Store};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("store"))?;
    /// # let base = Fixture::new(Platform::new("linux", "amd64")).layer(&[("etc/issue", b"one\n")]);
    /// # let old = store.image_at(&base.write(&store)?)?;
    /// # let new = store.image_at(&base.layer(&[("etc/motd", b"hello\n")]).write(&store)?)?;
    /// let changes = old.diff(&new)?;
    /// for change in &changes {
    ///     println!("{:?} {}: {} bytes", change.kind, change.path.display(), change.size);
    /// }
    /// # assert_eq!(changes.iter().map(|change| change.path.to_str().unwrap()).collect::<Vec<_>>(), ["etc/motd"]);
    /// # Ok::<(), layercake::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`diff_with`](Image::diff_with).
    pub fn diff(&self, other: &Image) -> Result<Changes> {
        self.diff_with(other, &DiffOptions::new())
    }

    /// The same, with options.
    ///
    /// The changes are those that [`changeset::diff`](crate::changeset::diff()) finds between the two images, unpacked
    /// by root where everything can be made: by the same rules, in the same order.
    ///
    /// All layers are read and verified, those at the bottom that both images have once; of equal stacks none is.
    /// Contents are compared only of files that are equal in all else, and do not stand in the same place of the same
    /// layer; the layers that hold those are read once more. Names and attributes of both images are in memory
    /// meanwhile; of contents, a buffer.
    ///
    /// # Errors
    ///
    /// * [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput): a name starts with `.wh.`, which in layers is a
    ///   whiteout's.
    /// * [`ErrorKind::LimitExceeded`](crate::ErrorKind::LimitExceeded): there is too much of something; the
    ///   contents to be compared are more than [`Limits`](crate::changeset::Limits) allow an image to have; or the names
    ///   and attributes of both images take more memory than they allow.
    /// * [`ErrorKind::Cancelled`](crate::ErrorKind::Cancelled): the options' switch was thrown.
    /// * Those of [`layers`](Image::layers), [`Layer::entries`](crate::Layer::entries) and
    ///   [`Entries::next_entry`](crate::changeset::Entries::next_entry).
    pub fn diff_with(&self, other: &Image, options: &DiffOptions) -> Result<Changes> {
        let diff = || {
            if self.config()?.diff_ids()? == other.config()?.diff_ids()? {
                return Ok(Changes::default());
            }
            self.compare(other, options)
        };
        diff().context(|| format!("compare image {} with image {}", other.id().short(), self.id().short()))
    }

    fn compare(&self, other: &Image, options: &DiffOptions) -> Result<Changes> {
        let (old_layers, new_layers) = (self.layers()?, other.layers()?);
        let pairs = old_layers.iter().zip(&new_layers);
        let common = pairs.take_while(|(old, new)| old.diff_id() == new.diff_id()).count();
        let mut old = Standing::new(options.limits, &options.limits.memory())?;
        old_layers[..common].iter().try_for_each(|layer| old.add(layer, &options.cancel))?;
        let mut new = old.duplicate()?;
        old_layers[common..].iter().try_for_each(|layer| old.add(layer, &options.cancel))?;
        new_layers[common..].iter().try_for_each(|layer| new.add(layer, &options.cancel))?;

        let sides = (Side::new(old.tree(), &old_layers), Side::new(new.tree(), &new_layers));
        let mut comparison = Comparison::new(sides.0, sides.1, options);
        comparison.run()?;
        let contents = Contents::read(comparison.wanted(), options)?;
        comparison.settle(&contents)
    }
}
