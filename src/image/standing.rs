//! Layers applied one after another to a tree in memory.

use std::os::unix::ffi::OsStrExt;

use tar::EntryType;

use crate::changeset::Entry;
use crate::changeset::EntryKind;
use crate::changeset::Fields;
use crate::changeset::Limits;
use crate::error::Context;
use crate::error::Limit;
use crate::error::Result;
use crate::event::Cancel;
use crate::image::Layer;
use crate::image::attributes::check_name;
use crate::image::merged::Merged;
use crate::memory::MemoryBudget;

/// The tree that some layers show together, to apply more layers to.
#[derive(Debug)]
pub(crate) struct Standing {
    tree: Merged,
    limits: Limits,
    layers: usize,
    entries: u64,
}

impl Standing {
    /// No layers. The tree takes its memory from the budget.
    pub(crate) fn new(limits: Limits, budget: &MemoryBudget) -> Result<Standing> {
        Ok(Standing { tree: Merged::new(limits, budget, false)?, limits, layers: 0, entries: 0 })
    }

    /// No layers, of which [`directory`](Standing::directory) can repeat the headers of directories.
    pub(crate) fn with_headers(limits: Limits, budget: &MemoryBudget) -> Result<Standing> {
        Ok(Standing { tree: Merged::new(limits, budget, true)?, limits, layers: 0, entries: 0 })
    }

    /// All of these layers, base first.
    pub(super) fn of(layers: &[Layer], limits: Limits) -> Result<Standing> {
        let mut standing = Standing::new(limits, &limits.memory())?;
        layers.iter().try_for_each(|layer| standing.add(layer, &Cancel::new()))?;
        Ok(standing)
    }

    /// A copy, to apply other layers to.
    pub(super) fn duplicate(&self) -> Result<Standing> {
        Ok(Standing { tree: self.tree.duplicate()?, ..*self })
    }

    /// How many layers there are.
    pub(crate) fn layers(&self) -> usize {
        self.layers
    }

    /// The budget that the tree takes its memory from.
    pub(crate) fn budget(&self) -> &MemoryBudget {
        self.tree.budget()
    }

    /// Applies a layer. It is read to its end, and verified.
    pub(crate) fn add(&mut self, layer: &Layer, cancel: &Cancel) -> Result<()> {
        let number = self.layers + 1;
        self.limits.check(Limit::Layers, number as u64)?;
        self.apply(layer, cancel).context(|| format!("layer {number}"))?;
        self.layers = number;
        Ok(())
    }

    fn apply(&mut self, layer: &Layer, cancel: &Cancel) -> Result<()> {
        let mut entries = layer.entries_with(self.limits)?.starting_at(self.entries);
        let mut number = 0;
        while let Some(entry) = entries.next_entry()? {
            cancel.check()?;
            number += 1;
            self.tree.apply(self.layers, number, &entry)?;
        }
        self.tree.end_layer()?;
        self.entries = entries.count();
        Ok(())
    }

    pub(super) fn tree(&self) -> &Merged {
        &self.tree
    }

    /// The header of a directory, for this path.
    pub(super) fn directory(&self, node: usize, path: &[u8]) -> Fields {
        let node = self.tree.node(node);
        let fields = Fields::new(EntryType::Directory, [path, b"/"].concat());
        let (mode, owner) = (node.attributes.mode(), node.attributes.owner());
        let Some(directory) = node.directory() else { return Fields { mode, owner, ..fields } };
        let (seconds, nanoseconds) = (directory.modified.seconds, directory.modified.nanoseconds);
        let xattrs = directory.xattrs.as_ref().map_or_else(Vec::new, |xattrs| xattrs.list.clone());
        Fields { mode, owner, seconds, nanoseconds, xattrs, ..fields }
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
        check_name(name)?;
        fields.xattrs.push((name.as_bytes().to_vec(), value.to_vec()));
    }
    Ok(fields)
}
