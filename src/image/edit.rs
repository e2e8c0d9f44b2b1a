//! The same files, told of otherwise.

use std::time::SystemTime;

use crate::error::Context;
use crate::error::Result;
use crate::image::Draft;
use crate::image::Image;
use crate::manifest::ConfigEdit;
use crate::manifest::History;

/// An image that is about to be written with another configuration or other annotations. Made by [`Image::edit`];
/// [`write`](Edit::write) writes it.
#[must_use = "nothing is written before `write`"]
#[derive(Clone, Debug)]
pub struct Edit {
    image: Image,
    config: ConfigEdit,
    annotations: Vec<(String, Option<String>)>,
    comment: Option<String>,
    created: Option<SystemTime>,
}

impl Image {
    /// Changes what is said of the image: its configuration and its annotations. The layers stay, and so does this
    /// image: images are never changed, new ones are written.
    ///
    /// ```
    /// use layercake::manifest::ConfigEdit;
    /// # use layercake::{testing::Fixture, Store};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("store"))?;
    /// # let image = store.image_at(&Fixture::demo().write(&store)?)?;
    /// let louder = image
    ///     .edit(ConfigEdit::new().cmd(["/usr/bin/greet", "--loud"]).env("LANG", "C"))
    ///     .comment("speak up")
    ///     .annotation("org.opencontainers.image.version", "2")
    ///     .write()?;
    /// assert_eq!(louder.layers()?, image.layers()?);
    /// store.tag(&"example.com/greeter:2".parse()?, &louder.descriptor())?;
    /// # assert_eq!(louder.config()?.cmd()[1], "--loud");
    /// # Ok::<(), layercake::Error>(())
    /// ```
    pub fn edit(&self, config: ConfigEdit) -> Edit {
        Edit { image: self.clone(), config, annotations: Vec::new(), comment: None, created: None }
    }
}

impl Edit {
    /// What the history says about it.
    pub fn comment(self, comment: &str) -> Edit {
        Edit { comment: Some(comment.to_owned()), ..self }
    }

    /// When the new image was made. Unless this is called, it says what the old one says: the clock is not asked.
    pub fn created(self, time: SystemTime) -> Edit {
        Edit { created: Some(time), ..self }
    }

    /// Sets a note of the manifest. It does not change the image's id, which is the configuration's digest.
    pub fn annotation(mut self, name: &str, value: &str) -> Edit {
        self.annotations.push((name.to_owned(), Some(value.to_owned())));
        self
    }

    /// Takes a note of the manifest away.
    pub fn without_annotation(mut self, name: &str) -> Edit {
        self.annotations.push((name.to_owned(), None));
        self
    }

    /// Writes configuration and manifest. Media types are the image's, fields that are not named stay to the byte, and
    /// the history gets a step without a layer, unless only annotations change. Nothing is named; to do that is for the
    /// caller, by [`Store::tag`](crate::Store::tag).
    ///
    /// # Errors
    ///
    /// * [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput): a variable's name is empty or has a `=`; a time
    ///   is not one of the years -9999 to 9999.
    /// * [`ErrorKind::UnsupportedMediaType`](crate::ErrorKind::UnsupportedMediaType): the image is an artifact.
    /// * [`ErrorKind::ReadOnly`](crate::ErrorKind::ReadOnly),
    ///   [`ErrorKind::StorageFull`](crate::ErrorKind::StorageFull), [`ErrorKind::Io`](crate::ErrorKind::Io): the
    ///   operating system refuses.
    pub fn write(self) -> Result<Image> {
        self.written().context(|| format!("edit image {}", self.image.id().short()))
    }

    fn written(&self) -> Result<Image> {
        let mut draft = Draft::of(&self.image)?;
        for (name, value) in &self.annotations {
            match value {
                Some(value) => draft.annotate(name, value)?,
                None => draft.remove_annotation(name)?,
            }
        }
        if let Some(time) = self.created {
            draft.set_created(time)?;
        }
        if !self.config.is_empty() || self.comment.is_some() {
            draft.edit(&self.config)?;
            let created_by = Some(self.config.summary()).filter(|summary| !summary.is_empty());
            let step = History { created_by, comment: self.comment.clone(), ..History::at(self.created)? };
            draft.push(&step, None)?;
        }
        draft.finish()
    }
}
