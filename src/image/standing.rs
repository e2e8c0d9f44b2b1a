//! What layers show, with all that a layer has to say to say it again.

use std::collections::HashMap;
use std::os::unix::ffi::OsStrExt;

use tar::EntryType;

use crate::changeset::Entry;
use crate::changeset::EntryKind;
use crate::changeset::Fields;
use crate::changeset::Limits;
use crate::error::Context;
use crate::error::Error;
use crate::error::Limit;
use crate::error::Result;
use crate::event::Cancel;
use crate::image::Layer;
use crate::image::merged::Merged;

/// The mode of directories that no layer describes (L11).
const IMPLIED_MODE: u32 = 0o755;

/// Layers put on one another, in memory: names, and the attributes of directories.
#[derive(Clone, Debug)]
pub(crate) struct Standing {
    tree: Merged,
    /// The headers of directories, by where they stand; without their paths.
    directories: HashMap<(usize, u64), Fields>,
    layers: usize,
    entries: u64,
}

impl Standing {
    /// Nothing stands.
    pub(crate) fn new() -> Standing {
        Standing { tree: Merged::new(Limits::default()), directories: HashMap::new(), layers: 0, entries: 0 }
    }

    /// How many layers there are.
    pub(crate) fn layers(&self) -> usize {
        self.layers
    }

    /// Puts a layer on top. It is read to its end, and verified.
    pub(crate) fn add(&mut self, layer: &Layer, cancel: &Cancel) -> Result<()> {
        Limits::default().check(Limit::Layers, self.layers as u64 + 1)?;
        self.apply(layer, cancel).context(|| format!("layer {}", self.layers + 1))?;
        self.layers += 1;
        Ok(())
    }

    fn apply(&mut self, layer: &Layer, cancel: &Cancel) -> Result<()> {
        let mut entries = layer.entries()?.starting_at(self.entries);
        let mut number = 0;
        while let Some(entry) = entries.next_entry()? {
            cancel.check()?;
            number += 1;
            self.tree.apply(self.layers, number, &entry)?;
            if entry.kind() == EntryKind::Directory {
                self.directories.insert((self.layers, number), header(&entry, Vec::new())?);
            }
        }
        self.tree.end_layer();
        self.entries = entries.count();
        Ok(())
    }

    pub(super) fn tree(&self) -> &Merged {
        &self.tree
    }

    /// The header that says of a directory, at this path, what it is.
    pub(super) fn directory(&self, node: usize, path: &[u8]) -> Fields {
        let implied = || Fields { mode: IMPLIED_MODE, ..Fields::new(EntryType::Directory, Vec::new()) };
        let origin = self.tree.node(node).origin;
        let found = origin.and_then(|origin| self.directories.get(&origin)).cloned().unwrap_or_else(implied);
        Fields { path: [path, b"/"].concat(), ..found }
    }
}

/// The header that says of a path what an entry says of its own. Of a hard link it is for the caller to change it.
pub(super) fn header(entry: &Entry<'_>, path: Vec<u8>) -> Result<Fields> {
    let (kind, size) = match entry.kind() {
        EntryKind::Directory => (EntryType::Directory, 0),
        EntryKind::Symlink { .. } => (EntryType::Symlink, 0),
        EntryKind::CharDevice { .. } => (EntryType::Char, 0),
        EntryKind::BlockDevice { .. } => (EntryType::Block, 0),
        EntryKind::Fifo => (EntryType::Fifo, 0),
        _ => (EntryType::Regular, entry.size()),
    };
    let mut fields = Fields::new(kind, path);
    match entry.kind() {
        EntryKind::Symlink { target } => fields.link = target.as_os_str().as_bytes().to_vec(),
        EntryKind::CharDevice { major, minor } | EntryKind::BlockDevice { major, minor } => {
            fields.device = (major, minor);
        }
        _ => {}
    }
    fields.mode = entry.mode();
    fields.owner = (entry.uid(), entry.gid());
    fields.seconds = entry.modified().seconds;
    fields.nanoseconds = entry.modified().nanoseconds;
    fields.size = size;
    for (name, value) in entry.xattrs() {
        // A record's key ends at the first of them.
        if name.as_bytes().contains(&b'=') {
            return Err(Error::invalid_input(format!("no layer that is made here can have the attribute {name:?}")));
        }
        fields.xattrs.push((name.as_bytes().to_vec(), value.to_vec()));
    }
    Ok(fields)
}
