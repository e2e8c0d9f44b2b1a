//! Layers that are unpacked as overlayfs has them, seen as the one tree that they show: without a mount, for whoever
//! may read them.

mod copy;
mod upper;

use std::collections::BTreeMap;
use std::collections::HashSet;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use rustix::fs::FileType;
use rustix::fs::Stat;
use rustix::io::Errno;

use crate::changeset::diff::Listing;
use crate::changeset::diff::Tree;
use crate::changeset::overlay::Namespace;
use crate::error::Result;
use crate::fs::descent::Descent;

pub(crate) use copy::CopyMethod;
pub(crate) use upper::Upper;

/// So many directories stay open, in all layers together.
const OPEN: usize = 256;

/// The tree that layers show, topmost first.
#[derive(Debug)]
pub(crate) struct Stack {
    namespace: Namespace,
    layers: Vec<Descent>,
    /// For each directory on the way, which layers have a part in it.
    levels: Vec<Vec<usize>>,
}

impl Stack {
    /// Stands at the root of these directories, topmost first, which are open; errors call them by these paths.
    pub(crate) fn of(layers: Vec<(OwnedFd, PathBuf)>, namespace: Namespace) -> Result<Stack> {
        let kept = OPEN / layers.len().max(1);
        let descent = |(fd, path): (OwnedFd, PathBuf)| Ok(Descent::of(fd, &path)?.keeping(kept));
        let layers: Vec<Descent> = layers.into_iter().map(descent).collect::<Result<_>>()?;
        let levels = vec![(0..layers.len()).collect()];
        Ok(Stack { namespace, layers, levels })
    }

    /// The layers that have a part in the directory at hand, topmost first.
    fn here(&self) -> impl Iterator<Item = (usize, &Descent)> {
        self.levels.last().into_iter().flatten().map(|n| (*n, &self.layers[*n]))
    }

    /// What has a name in here, and in which layer.
    fn find(&self, name: &[u8]) -> Result<Option<(usize, Stat)>> {
        for (n, layer) in self.here() {
            if let Some(stat) = layer.look(name)? {
                let is_gone = self.namespace.is_whiteout(layer.fd(), name, &stat);
                return Ok((!is_gone).then_some((n, stat)));
            }
        }
        Ok(None)
    }

    /// What is in here, sorted by name, with the layer that it is in.
    fn list(&self) -> Result<Vec<(Vec<u8>, usize, Stat)>> {
        let mut seen: BTreeMap<Vec<u8>, (usize, Stat)> = BTreeMap::new();
        let mut gone: HashSet<Vec<u8>> = HashSet::new();
        for (n, layer) in self.here() {
            for (name, stat) in layer.list()? {
                if seen.contains_key(&name) || gone.contains(&name) {
                    continue;
                }
                if self.namespace.is_whiteout(layer.fd(), &name, &stat) {
                    gone.insert(name);
                } else {
                    seen.insert(name, (n, stat));
                }
            }
        }
        Ok(seen.into_iter().map(|(name, (n, stat))| (name, n, stat)).collect())
    }
}

impl Tree for Stack {
    fn listing(&self) -> Result<Listing> {
        let entries = self.list()?.into_iter().map(|(name, _, stat)| (name, stat)).collect();
        Ok(Listing { entries, is_whole: true, gone: Vec::new() })
    }

    fn look(&self, name: &[u8]) -> Result<Option<Stat>> {
        Ok(self.find(name)?.map(|(_, stat)| stat))
    }

    fn place(&self, name: &[u8]) -> Result<&Descent> {
        match self.find(name)? {
            Some((n, _)) => Ok(&self.layers[n]),
            None => Err(self.layers[0].error("look at", name, Errno::NOENT)),
        }
    }

    fn enter(&mut self, name: &[u8]) -> Result<()> {
        let mut level = Vec::new();
        for n in self.levels.last().cloned().unwrap_or_default() {
            let layer = &mut self.layers[n];
            let Some(stat) = layer.look(name)? else { continue };
            if !FileType::from_raw_mode(stat.st_mode).is_dir() {
                break;
            }
            layer.enter(name)?;
            level.push(n);
            if self.namespace.is_opaque(layer.fd()) {
                break;
            }
        }
        if level.is_empty() {
            return Err(self.layers[0].error("open", name, Errno::NOTDIR));
        }
        self.levels.push(level);
        Ok(())
    }

    fn leave(&mut self) -> Result<()> {
        if self.levels.len() > 1 {
            for n in self.levels.pop().unwrap_or_default() {
                self.layers[n].leave()?;
            }
        }
        Ok(())
    }
}
