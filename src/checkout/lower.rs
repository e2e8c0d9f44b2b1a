//! The lower directories of a working copy: the image's unpacked layers, opened without following links.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::io::Errno;

use super::BASE;
use crate::changeset::Namespace;
use crate::changeset::Options;
use crate::changeset::Stack;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::fs::dir::Dir;
use crate::fs::rooted::Inode;
use crate::fs::trust::TrustedPaths;
use crate::image::Image;
use crate::image::UnpackedLayers;
use crate::store::Store;

const LISTED: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const PLACE: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// The names of the lower directories, topmost first, in the directory that holds them; there is at least one.
#[derive(Debug)]
pub(super) struct LowerDirs {
    above: Dir,
    names: Vec<String>,
}

impl LowerDirs {
    /// Returns the directories of unpacked layers; without layers, the empty directory of the working copy `work`.
    pub(super) fn of(layers: &UnpackedLayers, work: &Dir) -> Result<LowerDirs> {
        let names: Vec<String> = layers.chains.iter().rev().map(|chain| chain.hex().to_string()).collect();
        if names.is_empty() {
            return Ok(LowerDirs { above: work.again()?, names: vec![BASE.to_owned()] });
        }
        Ok(LowerDirs { above: layers.dir.again()?, names })
    }

    /// Their paths at this moment, for messages and for other programs.
    pub(super) fn paths(&self) -> Vec<PathBuf> {
        let above = self.above.real_path().unwrap_or_else(|_| self.above.path().to_owned());
        self.names.iter().map(|name| above.join(name)).collect()
    }

    pub(super) fn places(&self) -> Vec<LowerDir<'_>> {
        self.names.iter().map(|name| LowerDir { above: &self.above, name }).collect()
    }

    /// The tree that they show.
    pub(super) fn stack(&self, namespace: Namespace) -> Result<Stack> {
        let open = |(place, path): (&LowerDir<'_>, PathBuf)| {
            let fd = rustix::fs::openat(place.above, place.name, LISTED, Mode::empty());
            fd.map_err(|error| Error::io("open", &path, error.into())).map(|fd| (fd, path))
        };
        let opened = self.places().iter().zip(self.paths()).map(open).collect::<Result<Vec<_>>>()?;
        Stack::of(opened, namespace)
    }
}

/// One of them.
#[derive(Clone, Copy, Debug)]
pub(super) struct LowerDir<'a> {
    pub(super) above: &'a Dir,
    pub(super) name: &'a str,
}

impl LowerDir<'_> {
    pub(super) fn open(self) -> Result<OwnedFd, Errno> {
        rustix::fs::openat(self.above, self.name, PLACE, Mode::empty())
    }
}

/// Returns the unpacked layers of an image, if no other user can change them: neither the folder that holds them, nor
/// a directory on the way to it from the store, nor the store's own.
///
/// The layers themselves have the owner and the mode of the image's root. Only the owner of the folder can put them there.
pub(super) fn trusted_layers(
    image: &Image,
    folder: &str,
    options: &Options<'_>,
    trusted: &TrustedPaths,
) -> Result<UnpackedLayers> {
    require_trusted_store(image.store(), folder, trusted)?;
    let layers = image.held()?.unpacked_layers(folder, options)?;
    require_trusted_folder(&layers.dir, image.store(), trusted)?;
    Ok(layers)
}

/// Refuses a store before anything is written there.
fn require_trusted_store(store: &Store, folder: &str, trusted: &TrustedPaths) -> Result<()> {
    trusted.require(store.dir(), store.path())?;
    let mut here = store.dir().again()?;
    for name in ["layercake", "unpacked", folder] {
        here = match here.dir(name) {
            Ok(dir) => dir,
            Err(error) if error.is_not_found() => return Ok(()),
            Err(error) => return Err(error),
        };
        trusted.require(&here, here.path())?;
    }
    Ok(())
}

/// Refuses the folder that was opened, and the directories above it up to the store's.
fn require_trusted_folder(folder: &Dir, store: &Store, trusted: &TrustedPaths) -> Result<()> {
    let inode = |dir: &Dir| {
        let stat = rustix::fs::fstat(dir).map_err(|error| Error::io("look at", dir.path(), error.into()))?;
        Ok::<Inode, Error>(Inode::of(&stat))
    };
    let root = inode(store.dir())?;
    let mut here = folder.again()?;
    loop {
        trusted.require(&here, here.path())?;
        let above = here.above()?;
        let own = inode(&here)?;
        if own == root {
            return Ok(());
        }
        if own == inode(&above)? {
            let reason = "it lies outside of its store".to_owned();
            return Err(ErrorKind::Untrusted { path: folder.path().to_owned(), reason }.into());
        }
        here = above;
    }
}
