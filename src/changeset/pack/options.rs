//! How layers are written.

use rustix::fs::FileType;
use rustix::fs::Stat;

use crate::changeset::IdMap;
use crate::changeset::Limits;
use crate::error::Error;
use crate::error::Result;
use crate::event::Cancel;

/// Whose the layer says that the files are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Owners {
    /// Whose they are in the tree: the same numbers.
    #[default]
    AsTheyAre,
    /// All are root's: for trees that were made with [`Ownership::CurrentUser`](super::super::Ownership::CurrentUser).
    Root,
    /// All are one owner's and one group's.
    One {
        /// The owner.
        uid: u32,
        /// The group.
        gid: u32,
    },
    /// Numbers are translated back: for trees that were made with
    /// [`Ownership::Mapped`](super::super::Ownership::Mapped), with the same maps.
    Mapped {
        /// Of owners.
        uids: IdMap,
        /// Of groups.
        gids: IdMap,
    },
}

impl Owners {
    /// The owner inside of what is `uid`'s and `gid`'s in the tree.
    pub(crate) fn owner(&self, uid: u32, gid: u32) -> Result<(u32, u32)> {
        let unmapped = |what, id| Error::invalid_input(format!("{what} {id} lies outside of the map of ids"));
        match self {
            Owners::AsTheyAre => Ok((uid, gid)),
            Owners::Root => Ok((0, 0)),
            // The system calls take it for "leave it as it is", so nothing could be unpacked.
            Owners::One { uid: u32::MAX, .. } | Owners::One { gid: u32::MAX, .. } => {
                Err(Error::invalid_input(format!("{} is nobody's number", u32::MAX)))
            }
            Owners::One { uid, gid } => Ok((*uid, *gid)),
            Owners::Mapped { uids, gids } => Ok((
                uids.inside(uid).ok_or_else(|| unmapped("owner", uid))?,
                gids.inside(gid).ok_or_else(|| unmapped("group", gid))?,
            )),
        }
    }
}

/// How layers are written. The default keeps owners and times.
///
/// ```
/// use layercake::changeset::{Owners, PackOptions};
///
/// let options = PackOptions::new().owners(Owners::Root).epoch(1_700_000_000);
/// ```
#[derive(Clone, Debug, Default)]
pub struct PackOptions {
    pub(crate) owners: Owners,
    pub(super) mode: Option<u32>,
    pub(crate) epoch: Option<i64>,
    pub(super) limits: Limits,
    pub(super) cancel: Cancel,
}

impl PackOptions {
    /// The default.
    pub fn new() -> PackOptions {
        PackOptions::default()
    }

    /// Whose the layer says that the files are.
    #[must_use = "the options are returned"]
    pub fn owners(self, owners: Owners) -> Self {
        PackOptions { owners, ..self }
    }

    /// What everybody may do with the files: `0o644`, say. Directories may be searched too by whoever may read them;
    /// symbolic links have no mode of their own.
    #[must_use = "the options are returned"]
    pub fn mode(self, mode: u32) -> Self {
        PackOptions { mode: Some(mode), ..self }
    }

    /// Times after this second since 1970 become this one, as programs do that obey `SOURCE_DATE_EPOCH`; the variable
    /// itself is not read here.
    #[must_use = "the options are returned"]
    pub fn epoch(self, seconds: i64) -> Self {
        PackOptions { epoch: Some(seconds), ..self }
    }

    /// Limits of the memory that the names of files with several names take, and the names in a directory.
    /// Default: [`Limits::default`].
    #[must_use = "the options are returned"]
    pub fn limits(self, limits: Limits) -> Self {
        PackOptions { limits, ..self }
    }

    /// A switch that ends the work.
    #[must_use = "the options are returned"]
    pub fn cancel(self, cancel: &Cancel) -> Self {
        PackOptions { cancel: cancel.clone(), ..self }
    }

    pub(super) fn mode_of(&self, stat: &Stat) -> u32 {
        match (self.mode, FileType::from_raw_mode(stat.st_mode)) {
            (None, _) | (_, FileType::Symlink) => stat.st_mode & 0o7777,
            (Some(mode), FileType::Directory) => (mode | (mode & 0o444) >> 2) & 0o7777,
            (Some(mode), _) => mode & 0o7777,
        }
    }
}
