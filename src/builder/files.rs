//! What a build copies.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::path::PathBuf;

use tar::EntryType;

use super::settings::Settings;
use crate::changeset::Fields;
use crate::changeset::Output;
use crate::changeset::Owners;
use crate::changeset::PackOptions;
use crate::changeset::Skipped;
use crate::changeset::pack_entry_to;
use crate::changeset::pack_tree_to;
use crate::error::Context;
use crate::error::Error;
use crate::error::Result;

const BYTES_MODE: u32 = 0o644;

/// Files to be put into an image: a tree, a file, or bytes; whose they will be, and what may be done with them.
///
/// A path is followed if it is a link; links in a tree are copied as links. All is root's unless
/// [`owner`](Files::owner) or [`keep_owners`](Files::keep_owners) says otherwise.
///
/// ```
/// use layercake::builder::Files;
///
/// let tree = Files::at("www").owner(33, 33).mode(0o640);
/// let text = Files::bytes("hello\n");
/// let program = Files::from("target/release/app");
/// ```
#[derive(Clone, PartialEq, Eq)]
#[must_use = "it is copied by `ImageBuilder::copy`"]
pub struct Files {
    content: Content,
    owners: Owners,
    mode: Option<u32>,
}

#[derive(Clone, PartialEq, Eq)]
enum Content {
    Path(PathBuf),
    Bytes(Vec<u8>),
}

/// What is there to be copied.
pub(super) enum Found {
    /// A directory, of which the content is copied.
    Tree(PathBuf),
    /// A file, in its directory.
    File(PathBuf, Vec<u8>),
    Bytes,
}

impl Files {
    /// A tree, of which what is in its root is copied; or a file.
    pub fn at(path: impl Into<PathBuf>) -> Files {
        Files { content: Content::Path(path.into()), owners: Owners::Root, mode: None }
    }

    /// A file with this content, which anybody may read and root may write.
    pub fn bytes(content: impl Into<Vec<u8>>) -> Files {
        Files { content: Content::Bytes(content.into()), owners: Owners::Root, mode: None }
    }

    /// Whose all of it will be.
    pub fn owner(self, uid: u32, gid: u32) -> Files {
        Files { owners: Owners::One { uid, gid }, ..self }
    }

    /// All of it will be whose it is: the same numbers.
    pub fn keep_owners(self) -> Files {
        Files { owners: Owners::AsTheyAre, ..self }
    }

    /// What may be done with the files, `0o644` say; the modes that they have unless this is called. Directories may be
    /// searched too by whoever may read them.
    pub fn mode(self, mode: u32) -> Files {
        Files { mode: Some(mode), ..self }
    }

    /// How it is written.
    pub(super) fn options(&self, settings: &Settings) -> PackOptions {
        let mut options =
            PackOptions::new().owners(self.owners.clone()).cancel(&settings.cancel).limits(settings.limits);
        if let Some(mode) = self.mode {
            options = options.mode(mode);
        }
        if let Some(epoch) = settings.epoch {
            options = options.epoch(epoch);
        }
        options
    }

    pub(super) fn find(&self) -> Result<Found> {
        let Content::Path(path) = &self.content else { return Ok(Found::Bytes) };
        let fail = |error| Error::io("open", path, error);
        let path = path.canonicalize().map_err(fail)?;
        let kind = std::fs::symlink_metadata(&path).map_err(fail)?.file_type();
        match (path.parent(), path.file_name()) {
            _ if kind.is_dir() => Ok(Found::Tree(path)),
            (Some(parent), Some(name)) if kind.is_file() => {
                Ok(Found::File(parent.to_owned(), name.as_bytes().to_vec()))
            }
            _ => Err(Error::invalid_input(format!("{} is neither a file nor a directory", path.display()))),
        }
    }

    /// Gives what was found to an output. Returns what no layer can have.
    pub(super) fn give(&self, found: &Found, options: &PackOptions, output: &mut dyn Output) -> Result<Vec<Skipped>> {
        match (found, &self.content) {
            (Found::Tree(root), _) => pack_tree_to(root, output, options),
            (Found::File(directory, name), _) => pack_entry_to(directory, name, output, options)
                .context(|| format!("read {}", directory.join(OsStr::from_bytes(name)).display())),
            (Found::Bytes, Content::Bytes(content)) => {
                let owner = options.owners.owner(0, 0)?;
                let mode = self.mode.unwrap_or(BYTES_MODE) & 0o7777;
                let fields = Fields::new(EntryType::Regular, b"bytes".to_vec());
                let seconds = options.epoch.unwrap_or(0);
                output.put(Fields { mode, owner, seconds, size: content.len() as u64, ..fields })?;
                output.write(content)?;
                output.pad()?;
                Ok(Vec::new())
            }
            (Found::Bytes, Content::Path(path)) => Err(Error::not_found(path.display().to_string())),
        }
    }

    /// What it is called by itself.
    pub(super) fn name(&self) -> Option<&OsStr> {
        match &self.content {
            Content::Path(path) => path.file_name(),
            Content::Bytes(_) => None,
        }
    }
}

impl fmt::Display for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.content {
            Content::Path(path) => path.display().fmt(f),
            Content::Bytes(content) => write!(f, "{} bytes", content.len()),
        }
    }
}

impl fmt::Debug for Files {
    /// Without the content.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let content = self.to_string();
        f.debug_struct("Files")
            .field("content", &content)
            .field("owners", &self.owners)
            .field("mode", &self.mode)
            .finish()
    }
}

impl<P: AsRef<Path> + ?Sized> From<&P> for Files {
    fn from(path: &P) -> Files {
        Files::at(path.as_ref())
    }
}

impl From<PathBuf> for Files {
    fn from(path: PathBuf) -> Files {
        Files::at(path)
    }
}

impl From<String> for Files {
    fn from(path: String) -> Files {
        Files::at(path)
    }
}
