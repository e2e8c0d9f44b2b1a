//! What a working copy knows of itself, in a file beside its root.

use std::io::Read;
use std::path::Component;
use std::path::Path;
use std::path::PathBuf;

use serde::Deserialize;
use serde::Serialize;

use super::CheckoutMode;
use super::CheckoutOptions;
use crate::changeset::IdMap;
use crate::changeset::Namespace;
use crate::changeset::Ownership;
use crate::descriptor::Descriptor;
use crate::digest::Digest;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Limit;
use crate::error::Result;
use crate::fs::atomic;
use crate::fs::dir::Dir;
use crate::fs::path_of_text;
use crate::fs::path_to_text;
use crate::fs::rooted::Inode;
use crate::fs::trust::TrustedPaths;
use crate::image::folder_of;
use crate::store::Durability;
use crate::store::NewCheckout;
use crate::store::Store;

pub(super) const STATE: &str = "checkout.json";
const VERSION: u32 = 1;
const MAX_STATE: u64 = 1 << 20;

/// The state, as it is written. Paths are percent-encoded: they are bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    version: u32,
    pub(super) id: String,
    pub(super) mode: CheckoutMode,
    store: String,
    pub(super) root: Descriptor,
    pub(super) manifest: Descriptor,
    owners: Owners,
    /// Where the unpacked layers lie, in the store's folder of them.
    pub(super) folder: String,
    /// Whether overlayfs' attributes are the user's.
    pub(super) userxattr: bool,
    /// Whether the tree is mounted without `nosuid`.
    #[serde(default)]
    pub(super) setuid: bool,
    /// Whether the tree is mounted without `nodev`.
    #[serde(default)]
    pub(super) devices: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Owners {
    Preserve,
    CurrentUser,
    Mapped { uids: Vec<(u32, u32, u32)>, gids: Vec<(u32, u32, u32)> },
}

impl State {
    pub(super) fn new(
        mode: CheckoutMode,
        store: &Path,
        root: &Descriptor,
        manifest: &Descriptor,
        options: &CheckoutOptions<'_>,
    ) -> State {
        let ownership = &options.ownership_here();
        let owners = match ownership {
            Ownership::Preserve => Owners::Preserve,
            Ownership::CurrentUser => Owners::CurrentUser,
            Ownership::Mapped { uids, gids } => {
                Owners::Mapped { uids: uids.ranges().to_vec(), gids: gids.ranges().to_vec() }
            }
        };
        let id = new_id();
        let (store, root, manifest) =
            (path_to_text(store.as_os_str().as_encoded_bytes()), root.clone(), manifest.clone());
        let (folder, userxattr) = (folder_of(ownership), Namespace::of(ownership) == Namespace::User);
        let (setuid, devices) = (options.setuid, options.devices);
        State { version: VERSION, id, mode, store, root, manifest, owners, folder, userxattr, setuid, devices }
    }

    /// Reads the state of a working copy, unless another user could change it.
    pub(super) fn read(dir: &Dir, trusted: &TrustedPaths) -> Result<State> {
        let invalid = |reason: String| ErrorKind::InvalidCheckout { path: dir.path().to_owned(), reason };
        if dir.stat(STATE)?.is_none() {
            return Err(invalid(format!("it has no {STATE}")).into());
        }
        let file = dir.file(STATE)?;
        trusted.require(dir, dir.path())?;
        trusted.require(&file, &dir.path().join(STATE))?;
        let mut bytes = Vec::new();
        let read = file.take(MAX_STATE + 1).read_to_end(&mut bytes);
        read.map_err(|error| Error::io("read", &dir.path().join(STATE), error))?;
        if bytes.len() as u64 > MAX_STATE {
            return Err(Error::limit(Limit::DocumentSize, MAX_STATE));
        }
        let version: Version = serde_json::from_slice(&bytes).map_err(|error| invalid(error.to_string()))?;
        if version.version != VERSION {
            let found = version.version.to_string();
            return Err(ErrorKind::UnsupportedVersion { path: dir.path().to_owned(), found }.into());
        }
        let state: State = serde_json::from_slice(&bytes).map_err(|error| invalid(error.to_string()))?;
        state.check().map_err(|reason| invalid(reason.to_owned()))?;
        Ok(state)
    }

    pub(super) fn write(&self, dir: &Dir, durability: Durability) -> Result<()> {
        let text = serde_json::to_vec(self).map_err(|error| Error::invalid_input(error.to_string()))?;
        atomic::replace(dir, "checkout.json.new", dir, STATE, &text, durability)
    }

    pub(super) fn store_path(&self) -> PathBuf {
        decoded(&self.store)
    }

    pub(super) fn ownership(&self) -> Ownership {
        match &self.owners {
            Owners::Preserve => Ownership::Preserve,
            Owners::CurrentUser => Ownership::CurrentUser,
            Owners::Mapped { uids, gids } => {
                Ownership::Mapped { uids: IdMap::new(uids.clone()), gids: IdMap::new(gids.clone()) }
            }
        }
    }

    /// Tells the store of the working copy, so that what it needs is not collected.
    pub(super) fn register(&self, store: &Store, dir: &Dir, path: &Path, chains: &[Digest]) -> Result<()> {
        let State { id, root, manifest, folder, .. } = self;
        store.register_checkout(&NewCheckout { id, path, root, manifest, owners: folder, chains }, dir, STATE)
    }

    /// Tells it that there is none any more. A record of one that lies elsewhere stays.
    pub(super) fn forget(&self, store: &Store, path: &Path) -> Result<()> {
        match store.registered_checkout(&self.id)? {
            Some(found) if found != path => Ok(()),
            _ => store.unregister_checkout(&self.id),
        }
    }

    /// Whether the working copy that the store knows is there still and is another directory.
    pub(super) fn is_copy(&self, store: &Store, dir: &Dir, trusted: &TrustedPaths) -> Result<bool> {
        if store.has_other_checkout(&self.id, dir, STATE)? {
            return Ok(true);
        }
        let Some(path) = store.registered_checkout(&self.id)? else { return Ok(false) };
        let Ok(found) = Dir::open(&path) else { return Ok(false) };
        let inode = |dir: &Dir| rustix::fs::fstat(dir).map(|stat| Inode::of(&stat)).ok();
        Ok(inode(&found) != inode(dir) && State::read(&found, trusted).is_ok_and(|state| state.id == self.id))
    }

    /// Makes it a working copy of its own.
    pub(super) fn renew_id(&mut self) {
        self.id = new_id();
    }

    /// Fails unless what becomes names of files was made here.
    fn check(&self) -> Result<(), &'static str> {
        let is_plain = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        if self.id.len() != 32 || !is_plain(&self.id) {
            return Err("its id is none");
        }
        if !is_plain(&self.folder) {
            return Err("its layers lie nowhere");
        }
        let store = self.store_path();
        let is_clean = store.is_absolute() && store.components().all(|part| part != Component::ParentDir);
        if is_clean { Ok(()) } else { Err("the path of its store is not absolute, or has \"..\" in it") }
    }
}

#[derive(Deserialize)]
struct Version {
    version: u32,
}

fn new_id() -> String {
    format!("{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..))
}

fn decoded(path: &str) -> PathBuf {
    crate::fs::to_path(&path_of_text(path))
}
