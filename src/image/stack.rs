//! Layers put on one another, in memory.

use crate::changeset::Limits;
use crate::error::Context;
use crate::error::Limit;
use crate::error::Result;
use crate::event::Cancel;
use crate::image::Layer;
use crate::image::merged::Merged;

/// What some layers show, to put more upon.
#[derive(Clone, Debug)]
pub(super) struct Stack {
    tree: Merged,
    limits: Limits,
    layers: usize,
    entries: u64,
}

impl Stack {
    /// No layers.
    pub(super) fn new() -> Stack {
        let limits = Limits::default();
        Stack { tree: Merged::new(limits), limits, layers: 0, entries: 0 }
    }

    /// All of these, base first.
    pub(super) fn of(layers: &[Layer]) -> Result<Stack> {
        let mut stack = Stack::new();
        layers.iter().try_for_each(|layer| stack.add(layer, &Cancel::new()))?;
        Ok(stack)
    }

    /// Puts a layer on top. It is read to its end, and verified.
    pub(super) fn add(&mut self, layer: &Layer, cancel: &Cancel) -> Result<()> {
        let number = self.layers + 1;
        self.limits.check(Limit::Layers, number as u64)?;
        self.apply(layer, cancel).context(|| format!("layer {number}"))?;
        self.layers = number;
        Ok(())
    }

    pub(super) fn tree(&self) -> &Merged {
        &self.tree
    }

    fn apply(&mut self, layer: &Layer, cancel: &Cancel) -> Result<()> {
        let mut entries = layer.entries()?.starting_at(self.entries);
        let mut number = 0;
        while let Some(entry) = entries.next_entry()? {
            cancel.check()?;
            number += 1;
            self.tree.apply(self.layers, number, &entry)?;
        }
        self.tree.end_layer();
        self.entries = entries.count();
        Ok(())
    }
}
