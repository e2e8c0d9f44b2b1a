//! Where unpacked layers lie, and the records of working copies.

use super::Store;
use super::checkouts::CHECKOUTS;
use super::unpacked::UNPACKED;

use crate::error::Result;
use crate::fs::atomic;
use crate::fs::dir::Dir;
use crate::fs::trust::require_trusted;

impl Store {
    /// Opens the folder of the unpacked layers whose files belong to `owners`, and makes it if it is missing. Other users
    /// cannot look into it: there are setuid programs in there.
    pub(crate) fn unpacked_dir(&self, owners: &str) -> Result<Dir> {
        let ours = self.ours()?;
        let unpacked = self.made(&ours, UNPACKED)?;
        let dir = self.made(&unpacked, owners)?;
        if !self.trusts_owner {
            // Its owner could give these files another content, or run them as the users that they belong to.
            require_trusted(&dir, dir.path())?;
        }
        dir.close_to_others()?;
        Ok(dir)
    }

    /// The folder of the records of working copies, made if it is missing.
    pub(super) fn checkouts_dir(&self) -> Result<Dir> {
        self.made(&self.ours()?, CHECKOUTS)
    }

    /// Writes the record of a working copy. Any number of processes may write one at once.
    pub(super) fn keep_checkout(&self, name: &str, record: &[u8]) -> Result<()> {
        // Called as blobs are that are being written, so that whoever clears those away clears away what a crash left.
        let aside = format!("new-{:016x}", fastrand::u64(..));
        atomic::replace(&self.partial_dir()?, &aside, &self.checkouts_dir()?, name, record, self.durability)
    }

    fn made(&self, above: &Dir, name: &str) -> Result<Dir> {
        let (dir, _) = above.make_dir(name)?;
        // Also if it is there: who made it may have been killed before it came to this.
        self.durability.sync_dir(above)?;
        Ok(dir)
    }
}
