//! Making images, step by step and repeatably.
//!
//! * [`ImageBuilder`] is a sequence of steps, on another image or on nothing. [`build`](ImageBuilder::build) takes them,
//!   and [`Built`] says what came of each.
//! * [`Files`] are what a step copies: a tree, a file, or bytes, with owner and mode.
//! * [`IndexBuilder`] puts images of several platforms under one roof.
//!
//! ```
//! use layercake::Store;
//! use layercake::builder::{Files, ImageBuilder};
//!
//! # let dir = tempfile::tempdir()?;
//! # let store = Store::create(dir.path().join("store"))?;
//! # let www = dir.path().join("www");
//! # std::fs::create_dir(&www)?;
//! # std::fs::write(www.join("index.html"), "hello\n")?;
//! let builder = ImageBuilder::from_scratch(&store, &"linux/amd64".parse()?)
//!     .copy(&www, "/srv/www")
//!     .copy(Files::bytes("#!/bin/sh\nexec httpd\n").mode(0o755), "/bin/start")
//!     .env("LANG", "C")
//!     .cmd(["/bin/start"]);
//! let built = builder.build()?;
//! store.tag(&"example.com/site:1".parse()?, &built.image.descriptor())?;
//!
//! let again = builder.build()?;
//! assert_eq!(again.image.digest(), built.image.digest());
//! assert!(again.steps.iter().all(|step| step.is_cached || step.layer.is_none()));
//! # Ok::<(), layercake::Error>(())
//! ```
//!
//! # The same again
//!
//! The same steps on the same inputs make the same image, whoever takes them, wherever and whenever. No clock is asked
//! and no variable is read: what [`created`](ImageBuilder::created) does not say is not said, and times of files are
//! theirs unless that, or [`epoch`](ImageBuilder::epoch), ends them. No name of this machine is in the image.
//!
//! Each step that makes a layer has a key, of all that decides on it: the layers below, the step, and its inputs'
//! metadata and content, which are read for that each time. What a step came to is kept in the store under its key, and
//! while its blob is there, the step is not done again: nothing is unpacked, compressed or written.
//!
//! # What it does not do
//!
//! It reads no Dockerfiles, and runs nothing itself: [`run`](ImageBuilder::run) gives you a working copy to run it in.

mod files;
mod index;
mod run;
mod settings;
mod step;

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use crate::changeset::Limits;
use crate::changeset::Skipped;
use crate::compression::Compression;
use crate::compression::EncoderOptions;
use crate::descriptor::Descriptor;
use crate::error::Context;
use crate::error::Result;
use crate::event::Cancel;
use crate::image::Draft;
use crate::image::Image;
use crate::image::Standing;
use crate::manifest::ConfigEdit;
use crate::manifest::History;
use crate::manifest::seconds_of;
use crate::platform::Platform;
use crate::store::Store;
pub use files::Files;
pub use index::IndexBuilder;
use run::Run;
use settings::Settings;
use step::Outcome;
use step::Site;
use step::Step;

/// A sequence of steps that ends in an image. Steps are taken in the order in which they are added, and not before
/// [`build`](ImageBuilder::build).
#[derive(Clone, Debug)]
#[must_use = "nothing is made before `build`"]
pub struct ImageBuilder<'a> {
    base: Base,
    steps: Vec<Step<'a>>,
    /// What is said of the image and is no step.
    said: ConfigEdit,
    annotations: Vec<(String, String)>,
    created: Option<SystemTime>,
    settings: Settings,
}

#[derive(Clone, Debug)]
enum Base {
    Scratch(Store, Platform),
    Image(Image),
}

/// What came of a build.
#[derive(Clone, Debug)]
#[non_exhaustive]
#[must_use = "it has the image"]
pub struct Built {
    /// The image. Nothing names it yet; to do that is for the caller, by [`Store::tag`].
    pub image: Image,
    /// What came of each step.
    pub steps: Vec<BuiltStep>,
}

/// What came of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BuiltStep {
    /// What it did, as the image's history has it.
    pub text: String,
    /// The layer that it made; none where nothing changed but the configuration, or nothing at all.
    pub layer: Option<Descriptor>,
    /// Whether it was done before, and the layer is the one that it made then.
    pub is_cached: bool,
    /// What could not be put into a layer, and why: sockets, and extended attributes whose name has a `=` in it.
    pub skipped: Vec<Skipped>,
}

impl<'a> ImageBuilder<'a> {
    /// On nothing: an image with OCI's media types.
    pub fn from_scratch(store: &Store, platform: &Platform) -> ImageBuilder<'a> {
        ImageBuilder::on(Base::Scratch(store.clone(), platform.clone()))
    }

    /// On another image, in its store. Media types are its own, and what nobody changes stays to the byte.
    pub fn from_image(image: &Image) -> ImageBuilder<'a> {
        ImageBuilder::on(Base::Image(image.clone()))
    }

    fn on(base: Base) -> ImageBuilder<'a> {
        let how = EncoderOptions::new(Compression::Gzip);
        let settings = Settings {
            how,
            epoch: None,
            uses_cache: true,
            work_dir: None,
            limits: Limits::default(),
            cancel: Cancel::new(),
        };
        let (said, annotations) = (ConfigEdit::new(), Vec::new());
        ImageBuilder { base, steps: Vec::new(), said, annotations, created: None, settings }
    }

    /// Copies a file to a path, or what is in a tree into a directory. A file for a path that ends with `/` goes there
    /// under its own name.
    ///
    /// Directories that are missing on the way are made, root's and of mode 0755. Those that are there stay as they are,
    /// with what is in them; links to directories are followed, inside of the image. What takes the place of a file or
    /// a link hides it. Where a directory would take the place of a file, or a file that of a directory, it is an error.
    ///
    /// ```
    /// # use layercake::{Store, builder::{Files, ImageBuilder}};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("store"))?;
    /// # let builder = ImageBuilder::from_scratch(&store, &"linux/amd64".parse()?);
    /// # std::fs::write(dir.path().join("app.conf"), "")?;
    /// # let config = dir.path().join("app.conf");
    /// let builder = builder
    ///     .copy(&config, "/etc/app/")
    ///     .copy(Files::bytes("hello\n").owner(1000, 1000), "/home/app/greeting");
    /// # assert!(builder.build()?.image.read_file("etc/app/app.conf").is_ok());
    /// # Ok::<(), layercake::Error>(())
    /// ```
    pub fn copy(self, files: impl Into<Files>, to: impl AsRef<Path>) -> ImageBuilder<'a> {
        self.step(Step::Copy(files.into(), to.as_ref().to_owned()))
    }

    /// Takes away what has a path, with all that is in it. What lower layers have of it stays in them.
    pub fn remove(self, path: impl AsRef<Path>) -> ImageBuilder<'a> {
        self.step(Step::Remove(path.as_ref().to_owned()))
    }

    /// Adds a layer of what is in a directory, as it is: what it has takes the place of what the image has, by the rules
    /// of layers. All is root's.
    pub fn layer_from_dir(self, directory: impl AsRef<Path>) -> ImageBuilder<'a> {
        self.step(Step::LayerFromDir(directory.as_ref().to_owned()))
    }

    /// Adds a tar as a layer, as it is, whiteouts included. It may be compressed, with gzip or zstd.
    pub fn layer_from_tar(self, tar: impl AsRef<Path>) -> ImageBuilder<'a> {
        self.step(Step::LayerFromTar(tar.as_ref().to_owned()))
    }

    /// Adds a layer of what `change` changes in a working copy, whose root it is given: by running a program there, in a
    /// sandbox of the caller's. [`work_dir`](ImageBuilder::work_dir) says where working copies are made.
    ///
    /// What it does is known by `command` alone: on the same layers and configuration, the same command is taken to do
    /// the same, and is not run again. Files that it writes are of the time when it does, unless
    /// [`epoch`](ImageBuilder::epoch) ends that.
    ///
    /// ```no_run
    /// # fn example(image: layercake::Image) -> layercake::Result<()> {
    /// use layercake::ImageBuilder;
    ///
    /// let built = ImageBuilder::from_image(&image)
    ///     .work_dir("/var/tmp")
    ///     .run("ldconfig", |root| {
    ///         let status = std::process::Command::new("chroot").arg(root).arg("ldconfig").status()?;
    ///         if status.success() { Ok(()) } else { Err(std::io::Error::other(status.to_string())) }
    ///     })
    ///     .build()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn run(
        self,
        command: &str,
        change: impl Fn(&Path) -> std::io::Result<()> + Send + Sync + 'a,
    ) -> ImageBuilder<'a> {
        self.step(Step::Run(Run { command: command.to_owned(), is_cached: true, change: Arc::new(change) }))
    }

    /// The same, each time anew: for commands that do not always do the same.
    pub fn run_always(
        self,
        command: &str,
        change: impl Fn(&Path) -> std::io::Result<()> + Send + Sync + 'a,
    ) -> ImageBuilder<'a> {
        self.step(Step::Run(Run { command: command.to_owned(), is_cached: false, change: Arc::new(change) }))
    }

    /// Changes the configuration, as one step.
    pub fn config(self, config: ConfigEdit) -> ImageBuilder<'a> {
        self.step(Step::Config(config))
    }

    /// Sets an environment variable, in the place of one of the same name.
    pub fn env(self, name: &str, value: &str) -> ImageBuilder<'a> {
        self.config(ConfigEdit::new().env(name, value))
    }

    /// Sets the program to run, and its first arguments.
    pub fn entrypoint(self, entrypoint: impl IntoIterator<Item = impl Into<String>>) -> ImageBuilder<'a> {
        self.config(ConfigEdit::new().entrypoint(entrypoint))
    }

    /// Sets further arguments; the whole command where there is no entrypoint.
    pub fn cmd(self, cmd: impl IntoIterator<Item = impl Into<String>>) -> ImageBuilder<'a> {
        self.config(ConfigEdit::new().cmd(cmd))
    }

    /// Sets a note of the configuration.
    pub fn label(self, name: &str, value: &str) -> ImageBuilder<'a> {
        self.config(ConfigEdit::new().label(name, value))
    }

    /// Sets the user to run as: `user`, `uid`, `user:group` and so on.
    pub fn user(self, user: &str) -> ImageBuilder<'a> {
        self.config(ConfigEdit::new().user(user))
    }

    /// Sets the directory to run in.
    pub fn working_dir(self, path: &str) -> ImageBuilder<'a> {
        self.config(ConfigEdit::new().working_dir(path))
    }

    /// Adds a port that the program listens on: `port/tcp`, `port/udp`, or `port`, which is tcp.
    pub fn exposed_port(self, port: &str) -> ImageBuilder<'a> {
        self.config(ConfigEdit::new().exposed_port(port))
    }

    /// Adds a directory that holds data of the container's own.
    pub fn volume(self, path: &str) -> ImageBuilder<'a> {
        self.config(ConfigEdit::new().volume(path))
    }

    /// Sets who made the image.
    pub fn author(self, author: &str) -> ImageBuilder<'a> {
        let said = self.said.and(ConfigEdit::new().author(author));
        ImageBuilder { said, ..self }
    }

    /// Sets what the image runs on, where that is not what its base runs on.
    pub fn platform(self, platform: &Platform) -> ImageBuilder<'a> {
        let said = self.said.and(ConfigEdit::new().platform(platform));
        ImageBuilder { said, ..self }
    }

    /// Sets a note of the manifest.
    pub fn annotation(mut self, name: &str, value: &str) -> ImageBuilder<'a> {
        self.annotations.push((name.to_owned(), value.to_owned()));
        self
    }

    /// When the image and its steps were made. Unless this is called, it does not say, or says what its base says: the
    /// clock is not asked. Files that are newer become as old as this, unless [`epoch`](ImageBuilder::epoch) says
    /// otherwise.
    pub fn created(self, time: SystemTime) -> ImageBuilder<'a> {
        ImageBuilder { created: Some(time), ..self }
    }

    /// Files that were changed after this second since 1970 become of this second, as with programs that obey
    /// `SOURCE_DATE_EPOCH`; the variable itself is not read. Bytes and directories that are made on the way are of it.
    pub fn epoch(mut self, seconds: i64) -> ImageBuilder<'a> {
        self.settings.epoch = Some(seconds);
        self
    }

    /// How layers are compressed: with gzip unless this is called.
    pub fn compression(mut self, how: EncoderOptions) -> ImageBuilder<'a> {
        self.settings.how = how;
        self
    }

    /// Takes all steps, whether they were done before or not.
    pub fn without_cache(mut self) -> ImageBuilder<'a> {
        self.settings.uses_cache = false;
        self
    }

    /// A directory for working copies, for [`run`](ImageBuilder::run): best on the store's file system, and not in the
    /// store. They are gone when their step ends; what a killed process leaves there is a [`Checkout`](crate::Checkout).
    pub fn work_dir(mut self, directory: impl AsRef<Path>) -> ImageBuilder<'a> {
        self.settings.work_dir = Some(directory.as_ref().to_owned());
        self
    }

    /// Limits of the layers of the base, of tars that become layers, and of the memory for names and attributes.
    /// Default: [`Limits::default`].
    pub fn limits(mut self, limits: Limits) -> ImageBuilder<'a> {
        self.settings.limits = limits;
        self
    }

    /// A switch that ends the work.
    pub fn cancel(mut self, cancel: &Cancel) -> ImageBuilder<'a> {
        self.settings.cancel = cancel.clone();
        self
    }

    fn step(mut self, step: Step<'a>) -> ImageBuilder<'a> {
        self.steps.push(step);
        self
    }

    /// Takes the steps, and writes the image. Nothing is named. A step that fails ends the build; those before it need
    /// not be taken again the next time.
    ///
    /// # Errors
    ///
    /// The error says at which step.
    ///
    /// * [`ErrorKind::Io`](crate::ErrorKind::Io): a file cannot be read, or changed while it was read. Nothing is left
    ///   out silently.
    /// * [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput): a file and a directory have one path, two things
    ///   go to one path, or no layer can have a name, because it starts with `.wh.`; a variable's name is empty or has
    ///   a `=`; a time is not one of the years -9999 to 9999; there is no directory for working copies.
    /// * [`ErrorKind::NotFound`](crate::ErrorKind::NotFound): what is to be removed is not there; or a layer of the base
    ///   is not.
    /// * [`ErrorKind::InvalidLayer`](crate::ErrorKind::InvalidLayer),
    ///   [`ErrorKind::Compression`](crate::ErrorKind::Compression): a tar is none.
    /// * [`ErrorKind::LimitExceeded`](crate::ErrorKind::LimitExceeded): there is too much of something.
    /// * [`ErrorKind::Cancelled`](crate::ErrorKind::Cancelled): the switch was thrown.
    /// * [`ErrorKind::ReadOnly`](crate::ErrorKind::ReadOnly),
    ///   [`ErrorKind::StorageFull`](crate::ErrorKind::StorageFull): the store cannot be written.
    /// * Those of [`Image::checkout_with`], of the change, and of
    ///   [`Checkout::commit_with`](crate::Checkout::commit_with), where something is run.
    pub fn build(&self) -> Result<Built> {
        self.built().context(|| "build an image")
    }

    fn built(&self) -> Result<Built> {
        let mut draft = match &self.base {
            Base::Scratch(store, platform) => Draft::scratch(store, platform)?,
            Base::Image(image) => Draft::of(image)?,
        };
        draft.opened()?;
        draft.edit(&self.said)?;
        if let Some(time) = self.created {
            draft.set_created(time)?;
        }
        let epoch = self.settings.epoch.or(self.created.map(seconds_of));
        let settings = Settings { epoch, ..self.settings.clone() };
        let limits = settings.limits;
        let mut site = Site { draft, settings: &settings, standing: Standing::with_headers(limits, &limits.memory())? };
        let mut steps = Vec::new();
        for (n, step) in self.steps.iter().enumerate() {
            let text = || format!("step {} of {}: {}", n + 1, self.steps.len(), step.describe());
            steps.push(self.take(step, &mut site).context(text)?);
        }
        for (name, value) in &self.annotations {
            site.draft.annotate(name, value)?;
        }
        Ok(Built { image: site.draft.finish()?, steps })
    }

    fn take(&self, step: &Step<'_>, site: &mut Site<'_>) -> Result<BuiltStep> {
        let Outcome { text, layer, is_cached, skipped } = step.run(site)?;
        let history = History { created_by: Some(text.clone()), ..History::at(self.created)? };
        site.draft.push(&history, layer.as_ref())?;
        Ok(BuiltStep { text, layer: layer.map(|layer| layer.blob), is_cached, skipped })
    }
}
