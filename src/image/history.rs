//! How an image was made: the steps that its configuration tells of, and the layers that they made.

use crate::error::Result;
use crate::image::Image;
use crate::image::Layer;
use crate::manifest::History;

/// One step of the making of an image.
#[non_exhaustive]
#[derive(Clone, Debug)]
pub struct Step {
    /// What the configuration says of it; nothing, of a layer that it does not mention.
    pub history: History,
    /// The layer that it made; none if it only changed the configuration.
    pub layer: Option<Layer>,
}

impl Step {
    /// How much the step added, in bytes: the size of its layer when it is unpacked, which is read whole and counted
    /// when this is first asked; 0 if it made none.
    ///
    /// # Errors
    ///
    /// Those of [`Layer::unpacked_size`].
    pub fn size(&self) -> Result<u64> {
        self.layer.as_ref().map_or(Ok(0), Layer::unpacked_size)
    }
}

impl Image {
    /// The steps of the image's making, first step first (image-spec, config.md, `history`).
    ///
    /// Steps and layers are paired in their order. Where the configuration tells of fewer layers than there are, the
    /// others follow without a word; where it tells of more, those steps have none.
    ///
    /// ```
    /// # use layercake::{testing::Fixture, Store};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("store"))?;
    /// # let image = store.image_at(&Fixture::demo().write(&store)?)?;
    /// for step in image.history()? {
    ///     println!("{} bytes: {}", step.size()?, step.history.created_by.unwrap_or_default());
    /// }
    /// # assert_eq!(image.history()?.iter().filter(|step| step.layer.is_some()).count(), image.manifest().layers().len());
    /// # Ok::<(), layercake::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`layers`](Image::layers).
    pub fn history(&self) -> Result<Vec<Step>> {
        let mut layers = self.layers()?.into_iter();
        let told = self.config()?.history().iter().map(|history| {
            let layer = if history.empty_layer { None } else { layers.next() };
            Step { history: history.clone(), layer }
        });
        let mut steps: Vec<Step> = told.collect();
        steps.extend(layers.map(|layer| Step { history: History::default(), layer: Some(layer) }));
        Ok(steps)
    }
}
