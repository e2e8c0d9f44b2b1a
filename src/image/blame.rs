//! `git log` for images: which layers touched a path.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::changeset::ChangeKind;
use crate::changeset::Limits;
use crate::changeset::clean;
use crate::error::Context;
use crate::error::Error;
use crate::error::Result;
use crate::event::Cancel;
use crate::image::Image;
use crate::image::Step;
use crate::image::attributes::Attributes;
use crate::image::merged::Merged;
use crate::image::merged::Origin;
use crate::image::merged::ROOT;
use crate::image::standing::Standing;

/// A layer that touched a path.
#[non_exhaustive]
#[derive(Clone, Debug)]
pub struct Blame {
    /// Which of [`Image::layers`] it is, from 0.
    pub index: usize,
    /// What became of the path.
    pub kind: ChangeKind,
    /// The layer, and what the configuration tells of its making.
    pub step: Step,
}

impl Image {
    /// The layer that touched a path last: that added it, changed it, or deleted it.
    ///
    /// ```
    /// # use layercake::{testing::Fixture, Store};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("store"))?;
    /// # let image = store.image_at(&Fixture::demo().write(&store)?)?;
    /// let blame = image.blame("/etc/motd")?;
    /// println!("{:?} by {}", blame.kind, blame.step.history.created_by.unwrap_or_default());
    /// # assert_eq!(blame.index, 2);
    /// # Ok::<(), layercake::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) if the path never was there; those of
    /// [`history_of`](Image::history_of).
    pub fn blame(&self, path: impl AsRef<Path>) -> Result<Blame> {
        let path = path.as_ref();
        let missing = || Error::not_found(format!("{} in image {}", path.display(), self.id().short()));
        self.history_of(path)?.into_iter().next().ok_or_else(missing)
    }

    /// All layers that touched a path, newest first; none if it never was there.
    ///
    /// What counts is what the path shows when a layer is put on those below. Of a file, a link or a device, each layer
    /// that has an entry for it touched it, be it the same again: that is where it comes from. A directory is touched by
    /// a layer that changes its mode, owner or attributes; layers repeat directories for the sake of what is in them,
    /// and that says nothing. Whatever replaces or removes a directory above touches all that was in it.
    ///
    /// The path is cleaned as those of layers are: `.` and `..` are taken out, and nothing leads above the root. Symbolic
    /// links on the way are followed inside the root, in each layer as they are there; the last component is not, so
    /// that a link's own history can be asked for.
    ///
    /// All layers are read and verified. The names and attributes of all entries are in memory meanwhile.
    ///
    /// # Errors
    ///
    /// Those of [`layers`](Image::layers), [`Layer::entries`](crate::Layer::entries) and
    /// [`Entries::next_entry`](crate::changeset::Entries::next_entry).
    #[doc(alias = "log")]
    pub fn history_of(&self, path: impl AsRef<Path>) -> Result<Vec<Blame>> {
        let path = path.as_ref();
        let told = || self.touched(&clean(path.as_os_str().as_bytes()));
        told().context(|| format!("look for {} in image {}", path.display(), self.id().short()))
    }

    fn touched(&self, path: &[u8]) -> Result<Vec<Blame>> {
        let steps = self.history()?.into_iter().filter(|step| step.layer.is_some());
        let limits = Limits::default();
        let mut stack = Standing::new(limits, &limits.memory())?;
        let mut before = None;
        let mut found = Vec::new();
        for (index, step) in steps.enumerate() {
            if let Some(layer) = &step.layer {
                stack.add(layer, &Cancel::new())?;
            }
            let after = seen(stack.tree(), path);
            if let Some(kind) = change(before.as_ref(), after.as_ref(), index) {
                found.push(Blame { index, kind, step });
            }
            before = after;
        }
        found.reverse();
        Ok(found)
    }
}

/// What a path shows.
struct Seen {
    /// The entry that describes it.
    origin: Option<Origin>,
    /// The layer that gave it its name.
    layer: Option<usize>,
    /// If it is a directory.
    attributes: Option<Attributes>,
}

fn seen(tree: &Merged, path: &[u8]) -> Option<Seen> {
    let (node, layer) = match path {
        [] => (ROOT, None),
        path => tree.name(path).map(|name| (name.node(), name.layer()))?,
    };
    let node = tree.node(node);
    let attributes = node.directory().map(|_| node.attributes.clone());
    Some(Seen { origin: node.origin, layer, attributes })
}

fn change(before: Option<&Seen>, after: Option<&Seen>, layer: usize) -> Option<ChangeKind> {
    let is_touched = |before: &Seen, after: &Seen| match (&before.attributes, &after.attributes) {
        (Some(before), Some(after)) => before != after,
        _ => before.origin != after.origin || after.layer == Some(layer),
    };
    match (before, after) {
        (None, None) => None,
        (None, Some(_)) => Some(ChangeKind::Added),
        (Some(_), None) => Some(ChangeKind::Deleted),
        (Some(before), Some(after)) => is_touched(before, after).then_some(ChangeKind::Modified),
    }
}
