//! Steps that somebody else takes, in a working copy.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use super::settings::Settings;
use crate::changeset::Skipped;
use crate::checkout::Checkout;
use crate::checkout::CheckoutOptions;
use crate::checkout::CommitOptions;
use crate::error::Error;
use crate::error::Result;
use crate::fs::random_name;
use crate::image::Draft;
use crate::image::NewLayer;

/// What changes a working copy whose root it is given.
pub(super) type Change<'a> = Arc<dyn Fn(&Path) -> io::Result<()> + Send + Sync + 'a>;

/// A change of the tree, and what it is known by.
#[derive(Clone)]
pub(super) struct Run<'a> {
    pub(super) command: String,
    pub(super) is_cached: bool,
    pub(super) change: Change<'a>,
}

impl Run<'_> {
    /// The layer of what changes, none if nothing does; and what could not be in it.
    pub(super) fn layer(&self, draft: &Draft, settings: &Settings) -> Result<(Option<NewLayer>, Vec<Skipped>)> {
        let Some(work_dir) = &settings.work_dir else {
            return Err(Error::invalid_input("nobody said where working copies are made: `ImageBuilder::work_dir`"));
        };
        let image = draft.clone().finish()?;
        let path = work_dir.join(format!("build-{}", random_name()));
        // A step sees the same tree in every mode. It lies in a directory that no other user may enter.
        let options = CheckoutOptions::new().allow_setuid(true).allow_devices(true).cancel(&settings.cancel);
        let work = Work(Some(image.checkout_with(path, &options)?));
        (self.change)(work.checkout().root()).map_err(Error::from)?;
        let mut how = CommitOptions::new().encoder(settings.how.clone()).cancel(&settings.cancel);
        if let Some(epoch) = settings.epoch {
            how = how.created(time_of(epoch)?);
        }
        let (new, skipped) = work.checkout().commit_reported(&how)?;
        work.discard()?;
        let (old, new) = (image.manifest().layers().len(), new.layers()?);
        let layer = new.get(old).map(|layer| (layer.descriptor().clone(), layer.diff_id()));
        Ok((layer.map(|(blob, diff_id)| NewLayer { blob, diff_id }), skipped))
    }
}

impl fmt::Debug for Run<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Run").field("command", &self.command).finish_non_exhaustive()
    }
}

/// A working copy that is gone when this is, whatever happens in it.
struct Work(Option<Checkout>);

impl Work {
    fn checkout(&self) -> &Checkout {
        self.0.as_ref().expect("it is taken only where this ends")
    }

    fn discard(mut self) -> Result<()> {
        self.0.take().map_or(Ok(()), Checkout::discard)
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        // What went wrong before is the error to tell.
        let _ = self.0.take().map(Checkout::discard);
    }
}

fn time_of(epoch: i64) -> Result<SystemTime> {
    let since = Duration::from_secs(epoch.unsigned_abs());
    let time = if epoch < 0 { UNIX_EPOCH.checked_sub(since) } else { UNIX_EPOCH.checked_add(since) };
    time.ok_or_else(|| Error::invalid_input("the epoch is too far away"))
}
