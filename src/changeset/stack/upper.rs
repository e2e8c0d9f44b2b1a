//! What overlayfs wrote into the directory of `upperdir`: what changed from the layers below.

use rustix::fs::FileType;
use rustix::fs::Stat;

use crate::changeset::diff::Listing;
use crate::changeset::diff::Tree;
use crate::changeset::overlay::Namespace;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::fs::descent::Descent;

/// Attributes of files and directories that are not what they look like: parts of them lie elsewhere.
const REFUSED: [&str; 2] = ["metacopy", "redirect"];

/// A directory of `upperdir`.
#[derive(Debug)]
pub(crate) struct Upper {
    namespace: Namespace,
    tree: Descent,
    /// For each directory on the way, whether what lies below it is hidden.
    levels: Vec<bool>,
}

impl Upper {
    /// Stands at the root.
    pub(crate) fn new(tree: Descent, namespace: Namespace) -> Upper {
        Upper { namespace, tree, levels: vec![false] }
    }

    /// Fails if the content of something lies elsewhere.
    fn check(&self, name: &[u8], stat: &Stat) -> Result<()> {
        let kind = FileType::from_raw_mode(stat.st_mode);
        if !kind.is_dir() && !kind.is_file() {
            return Ok(());
        }
        match REFUSED.iter().find(|attribute| self.namespace.has(self.tree.fd(), name, attribute)) {
            None => Ok(()),
            Some(attribute) => {
                let path = self.tree.outside(name);
                let reason = format!(
                    "it was mounted with what makes {attribute:?}: mount it with metacopy=off,redirect_dir=nofollow"
                );
                Err(Error::from(ErrorKind::InvalidCheckout { path, reason }))
            }
        }
    }
}

impl Tree for Upper {
    fn listing(&self) -> Result<Listing> {
        let mut listing = Listing { is_whole: self.levels.last().copied().unwrap_or(false), ..Listing::default() };
        for (name, stat) in self.tree.list()? {
            if self.namespace.is_whiteout(self.tree.fd(), &name, &stat) {
                listing.gone.push(name);
            } else {
                self.check(&name, &stat)?;
                listing.entries.push((name, stat));
            }
        }
        Ok(listing)
    }

    fn look(&self, name: &[u8]) -> Result<Option<Stat>> {
        let found = self.tree.look(name)?;
        Ok(found.filter(|stat| !self.namespace.is_whiteout(self.tree.fd(), name, stat)))
    }

    fn place(&self, _: &[u8]) -> Result<&Descent> {
        Ok(&self.tree)
    }

    fn enter(&mut self, name: &[u8]) -> Result<()> {
        self.tree.enter(name)?;
        let is_hidden = self.levels.last().copied().unwrap_or(false);
        self.levels.push(is_hidden || self.namespace.is_opaque(self.tree.fd()));
        Ok(())
    }

    fn leave(&mut self) -> Result<()> {
        if self.levels.len() > 1 {
            self.levels.pop();
        }
        self.tree.leave()
    }
}
