//! What is compared: a tree, or something that shows one.

use rustix::fs::Stat;

use crate::error::Result;
use crate::fs::descent::Descent;

/// What is in a directory.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    /// Sorted by name.
    pub(crate) entries: Vec<(Vec<u8>, Stat)>,
    /// Whether that is all there is. If not, what is not listed is as it is in the other tree, but for `gone`.
    pub(crate) is_whole: bool,
    /// What is no longer there.
    pub(crate) gone: Vec<Vec<u8>>,
}

/// A tree that somebody stands in, at one of its directories.
pub(crate) trait Tree {
    /// What is in here.
    fn listing(&self) -> Result<Listing>;

    /// What has a name in here, if something has.
    fn look(&self, name: &[u8]) -> Result<Option<Stat>>;

    /// Where what has a name in here really stands.
    fn place(&self, name: &[u8]) -> Result<&Descent>;

    /// Goes to the directory `name` in here.
    fn enter(&mut self, name: &[u8]) -> Result<()>;

    /// Goes back to where this directory was entered from.
    fn leave(&mut self) -> Result<()>;
}

impl Tree for Descent {
    fn listing(&self) -> Result<Listing> {
        Ok(Listing { entries: self.list()?, is_whole: true, gone: Vec::new() })
    }

    fn look(&self, name: &[u8]) -> Result<Option<Stat>> {
        Descent::look(self, name)
    }

    fn place(&self, _: &[u8]) -> Result<&Descent> {
        Ok(self)
    }

    fn enter(&mut self, name: &[u8]) -> Result<()> {
        Descent::enter(self, name)
    }

    fn leave(&mut self) -> Result<()> {
        Descent::leave(self)
    }
}
