//! From what changed to a new image.

use std::time::SystemTime;

use super::Checkout;
use crate::changeset::Changes;
use crate::changeset::Owners;
use crate::changeset::Ownership;
use crate::changeset::PackOptions;
use crate::changeset::Skipped;
use crate::changeset::pack_from;
use crate::compression::Compression;
use crate::compression::EncoderOptions;
use crate::error::Context;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::event::Cancel;
use crate::fs::lock::Sharing;
use crate::image::Draft;
use crate::image::Image;
use crate::manifest::ConfigEdit;
use crate::manifest::History;
use crate::manifest::seconds_of;
use crate::reference::ImageReference;

/// What a new image is to say of itself, and how its layer is made.
///
/// ```
/// use layercake::Compression;
/// use layercake::checkout::CommitOptions;
/// use layercake::compression::EncoderOptions;
/// use layercake::manifest::ConfigEdit;
///
/// let options = CommitOptions::new()
///     .message("add a greeting")
///     .config(ConfigEdit::new().cmd(["/usr/bin/greet"]).author("alice"))
///     .encoder(EncoderOptions::new(Compression::Zstd).level(9))
///     .tag("example.com/greeter:1".parse()?);
/// # Ok::<(), layercake::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct CommitOptions {
    message: Option<String>,
    command: Option<String>,
    author: Option<String>,
    created: Option<SystemTime>,
    config: ConfigEdit,
    annotations: Vec<(String, String)>,
    encoder: EncoderOptions,
    tag: Option<ImageReference>,
    strict: bool,
    cancel: Cancel,
}

impl CommitOptions {
    /// The default: a layer in gzip, of this moment, and nothing said about it.
    pub fn new() -> CommitOptions {
        CommitOptions {
            message: None,
            command: None,
            author: None,
            created: None,
            config: ConfigEdit::new(),
            annotations: Vec::new(),
            encoder: EncoderOptions::new(Compression::Gzip),
            tag: None,
            strict: false,
            cancel: Cancel::new(),
        }
    }

    /// What the history says about the change: its `comment`.
    #[must_use = "the options are returned"]
    pub fn message(self, message: &str) -> Self {
        CommitOptions { message: Some(message.to_owned()), ..self }
    }

    /// What the history says has made the change: its `created_by`.
    #[must_use = "the options are returned"]
    pub fn command(self, command: &str) -> Self {
        CommitOptions { command: Some(command.to_owned()), ..self }
    }

    /// Who made it.
    #[must_use = "the options are returned"]
    pub fn author(self, author: &str) -> Self {
        CommitOptions { author: Some(author.to_owned()), ..self }
    }

    /// When it was made: now, unless this is called. Files that say they were changed later are said to have been
    /// changed then: so the same changes make the same image, whenever they are made.
    #[must_use = "the options are returned"]
    pub fn created(self, time: SystemTime) -> Self {
        CommitOptions { created: Some(time), ..self }
    }

    /// What is to be otherwise in the configuration.
    #[must_use = "the options are returned"]
    pub fn config(self, config: ConfigEdit) -> Self {
        CommitOptions { config, ..self }
    }

    /// A note on the manifest.
    #[must_use = "the options are returned"]
    pub fn annotation(mut self, name: &str, value: &str) -> Self {
        self.annotations.push((name.to_owned(), value.to_owned()));
        self
    }

    /// How the layer is compressed: with gzip, unless this is called.
    #[must_use = "the options are returned"]
    pub fn encoder(self, encoder: EncoderOptions) -> Self {
        CommitOptions { encoder, ..self }
    }

    /// What the new image is to be called.
    #[must_use = "the options are returned"]
    pub fn tag(self, reference: ImageReference) -> Self {
        CommitOptions { tag: Some(reference), ..self }
    }

    /// Whether to fail with [`ErrorKind::NotApplied`] where otherwise something would be
    /// left out: sockets, which [`Changes::skipped`] lists, and extended attributes with a name that has a `=` in it.
    #[must_use = "the options are returned"]
    pub fn strict(self, strict: bool) -> Self {
        CommitOptions { strict, ..self }
    }

    /// A switch that ends the work.
    #[must_use = "the options are returned"]
    pub fn cancel(self, cancel: &Cancel) -> Self {
        CommitOptions { cancel: cancel.clone(), ..self }
    }

    fn check(&self, skipped: &[Skipped]) -> Result<()> {
        if self.strict && !skipped.is_empty() {
            return Err(ErrorKind::NotApplied { what: skipped.iter().map(Skipped::to_string).collect() }.into());
        }
        Ok(())
    }
}

impl Default for CommitOptions {
    fn default() -> Self {
        CommitOptions::new()
    }
}

impl Checkout {
    /// Makes an image of what is in the working copy now: a layer of what changed, on top of the image's own. It has no
    /// name yet; [`Store::tag`](crate::Store::tag) gives it one.
    ///
    /// # Errors
    ///
    /// Those of [`commit_with`](Checkout::commit_with).
    pub fn commit(&self, message: &str) -> Result<Image> {
        self.commit_with(&CommitOptions::new().message(message))
    }

    /// The same, with options.
    ///
    /// Media types are those of the image that it is a working copy of, OCI's or Docker's. What of its configuration
    /// is not to change stays, fields that nobody has heard of among them. If nothing changed there is no new layer,
    /// only a step in the history that says so. The working copy stays what it is: of the same image, with the same
    /// changes.
    ///
    /// # Errors
    ///
    /// * Those of [`changes`](Checkout::changes), of
    ///   [`pack`](crate::changeset::pack) and of
    ///   [`BlobWriter::commit`](crate::store::BlobWriter::commit).
    /// * [`ErrorKind::InvalidInput`]: a time that RFC 3339 has no word for, a variable
    ///   without a name, a level that the compression does not have.
    /// * [`ErrorKind::NotApplied`]: the options are strict, and something cannot be in a
    ///   layer.
    /// * [`ErrorKind::Locked`]: the working copy is being discarded.
    /// * Those of [`Store::tag`](crate::Store::tag), if it is to be tagged: the image is there then, without a name.
    pub fn commit_with(&self, options: &CommitOptions) -> Result<Image> {
        Ok(self.commit_reported(options)?.0)
    }

    /// The same; says too what could not be in the layer.
    pub(crate) fn commit_reported(&self, options: &CommitOptions) -> Result<(Image, Vec<Skipped>)> {
        let commit = || {
            let _lock = self.lock(Sharing::Shared)?;
            let changes = self.changes_until(&options.cancel)?;
            // Until the new image has its name, nobody but a lease knows that it is wanted.
            let leased = self.image().in_store(&self.image().store().leased()?);
            let (image, skipped) = self.compose(&leased, &changes, options)?;
            if let Some(reference) = &options.tag {
                image.store().tag(reference, &image.descriptor())?;
            }
            Ok((image.in_store(self.image().store()), skipped))
        };
        commit().context(|| format!("commit {}", self.path().display()))
    }

    fn compose(&self, base: &Image, changes: &Changes, options: &CommitOptions) -> Result<(Image, Vec<Skipped>)> {
        let created = options.created.unwrap_or_else(SystemTime::now);
        let mut draft = Draft::of(base)?;
        draft.edit(&options.config)?;
        draft.set_created(created)?;
        for (name, value) in &options.annotations {
            draft.annotate(name, value)?;
        }
        let mut step = History::at(Some(created))?;
        step.comment.clone_from(&options.message);
        step.created_by.clone_from(&options.command);
        step.author.clone_from(&options.author);
        options.check(changes.skipped())?;
        if changes.is_empty() {
            draft.push(&step, None)?;
            return Ok((draft.finish()?, changes.skipped().to_vec()));
        }
        let how = PackOptions::new().owners(self.owners()).epoch(seconds_of(created)).cancel(&options.cancel);
        let (layer, packed) = draft.pack(&options.encoder, |writer| {
            let tree = self.changed_tree()?;
            pack_from(tree, changes, writer, &how).context(|| format!("pack {}", self.root().display()))
        })?;
        options.check(&packed.skipped)?;
        draft.push(&step, Some(&layer))?;
        Ok((draft.finish()?, packed.skipped))
    }

    /// Whose files in the tree are in the image.
    fn owners(&self) -> Owners {
        match self.state.ownership() {
            Ownership::Preserve => Owners::AsTheyAre,
            Ownership::CurrentUser => Owners::Root,
            Ownership::Mapped { uids, gids } => Owners::Mapped { uids, gids },
        }
    }
}
