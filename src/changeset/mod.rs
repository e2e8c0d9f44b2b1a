//! Layers as sets of changes: reading them, applying them to a directory, and making them.
//!
//! * [`apply`] applies one layer to a directory: additions, changes, and removals as *whiteouts*. An image with all
//!   its layers, verified, is [`Image::unpack`](crate::Image::unpack)'s.
//! * [`Options`] say how: whose the files will be ([`Ownership`]), what is written ([`Layout`]), what is too much
//!   ([`Limits`]).
//! * [`Unpacked`] says what was done, and lists what could not be.
//! * [`Entries`] are a layer's entries, to be read without a disk.
//! * [`diff`] says what changed from one tree to another: [`Changes`], each a [`Change`].
//! * [`pack`] writes changes as a layer, and [`pack_tree`] a whole tree; [`PackOptions`] say how, and [`Packed`] what
//!   came of it. An [`Encoder`](crate::compression::Encoder) compresses it.
//!
//! The rules are those of the OCI image-spec, layer.md; where it leaves a choice, they are these:
//!
//! * Paths are cleaned (`.`, `..`, doubled and leading `/`) and clamped at the root. Symbolic links on the way to an
//!   entry are followed inside the root, as under `chroot`; what links say is kept verbatim.
//! * A directory over a directory takes its place in all but its children. Everything else is removed before
//!   something takes its place, so other names of a file keep the old one.
//! * Whiteouts hide what lower layers have, wherever they stand in their layer. What `.wh.`, `.wh..` and `.wh...`
//!   would remove is refused.
//! * Directories that are missing on the way are made: mode 0755, root's, of 1970.
//! * Of entries that come twice in a layer the last counts; they are reported.
//! * Equal trees make equal layers, byte for byte. What can be said of a tree is said, except its root's attributes,
//!   fractions of seconds, sockets, and attributes that belong to the host.
//!
//! ```
//! use std::io::Write;
//! use layercake::changeset::{self, Options, Ownership};
//!
//! # let dir = tempfile::tempdir()?;
//! # let mut tar = tar::Builder::new(Vec::new());
//! # let mut header = tar::Header::new_ustar();
//! # header.set_size(6);
//! # header.set_mode(0o644);
//! # header.set_mtime(0);
//! # header.set_uid(0);
//! # header.set_gid(0);
//! # tar.append_data(&mut header, "etc/motd", &b"hello\n"[..])?;
//! # let layer = tar.into_inner()?;
//! let options = Options::new().ownership(Ownership::CurrentUser);
//! let done = changeset::apply(&layer[..], dir.path(), &options)?;
//! assert_eq!(std::fs::read_to_string(dir.path().join("etc/motd"))?, "hello\n");
//! assert_eq!((done.entries, done.bytes), (1, 6));
//! # Ok::<(), layercake::Error>(())
//! ```
//!
//! And back:
//!
//! ```
//! use layercake::Compression;
//! use layercake::changeset::{self, DiffOptions, PackOptions};
//! use layercake::compression::Encoder;
//!
//! # let dir = tempfile::tempdir()?;
//! # let (old, new) = (dir.path().join("old"), dir.path().join("new"));
//! # std::fs::create_dir(&old)?;
//! # std::fs::create_dir(&new)?;
//! std::fs::write(old.join("issue"), "be off\n")?;
//! std::fs::write(new.join("motd"), "hello\n")?;
//! let changes = changeset::diff(&old, &new, &DiffOptions::new())?;
//! assert_eq!(changes.len(), 2);
//!
//! let mut gzip = Encoder::new(Vec::new(), Compression::Gzip)?;
//! let packed = changeset::pack(&new, &changes, &mut gzip, &PackOptions::new())?;
//! let layer = gzip.finish()?;
//! println!("{}: {} bytes, {} compressed", packed.diff_id, packed.size, layer.len());
//!
//! # let options = changeset::Options::new().ownership(changeset::Ownership::CurrentUser);
//! # let _ =
//! changeset::apply(&layer[..], &old, &options)?;
//! assert!(!old.join("issue").exists() && old.join("motd").exists());
//! # Ok::<(), layercake::Error>(())
//! ```

mod apply;
mod attributes;
mod budget;
mod capture;
mod changes;
mod copy_up;
mod course;
mod diff;
mod entry;
mod exposed;
mod folding;
mod ground;
mod lowerdir;
mod options;
mod overlay;
mod pack;
mod report;
mod stack;
mod stream;
mod tape;
mod trail;
mod whiteout;

use std::io::Read;
use std::path::Path;

use crate::descriptor::Descriptor;
use crate::error::Context;
use crate::error::Result;
use crate::event::Event;
use crate::fs::atomic::Durability;
use crate::fs::rooted::Rooted;

pub(crate) use apply::Applier;
pub(crate) use apply::Below;
pub(crate) use attributes::hand_nothing_on;
pub(crate) use capture::captured;
pub use changes::Change;
pub use changes::ChangeKind;
pub(crate) use changes::ChangeList;
pub use changes::Changes;
pub use diff::CompareContent;
pub use diff::DiffOptions;
pub(crate) use diff::Linked;
pub(crate) use diff::Links;
pub(crate) use diff::compare;
pub use diff::diff;
pub use entry::Entries;
pub use entry::Entry;
pub use entry::EntryKind;
pub use options::IdMap;
pub use options::Layout;
pub use options::Limits;
pub use options::Options;
pub use options::Ownership;
pub(crate) use overlay::Namespace;
pub(crate) use overlay::id_maps;
pub(crate) use pack::Fields;
pub(crate) use pack::Output;
pub use pack::Owners;
pub use pack::PackOptions;
pub use pack::Packed;
pub(crate) use pack::TarWriter;
pub use pack::pack;
pub(crate) use pack::pack_entry_to;
pub(crate) use pack::pack_from;
pub use pack::pack_tree;
pub(crate) use pack::pack_tree_to;
pub use report::Exposed;
pub use report::ExposedKind;
pub use report::Skipped;
pub use report::SkippedPart;
pub use report::Unpacked;
pub(crate) use report::check_bytes;
pub(crate) use report::to_path;
pub(crate) use stack::CopyMethod;
pub(crate) use stack::Stack;
pub(crate) use stack::Upper;
pub(crate) use stream::Promise;
pub(crate) use stream::Source;
pub(crate) use stream::Tars;
pub(crate) use stream::run;
#[cfg(feature = "registry")]
pub(crate) use stream::start;
pub use tape::Timestamp;
pub(crate) use tape::invalid;
pub(crate) use whiteout::LINKS;
pub(crate) use whiteout::check_stored;
pub(crate) use whiteout::clean;
pub(crate) use whiteout::hiding;
pub(crate) use whiteout::join;
pub(crate) use whiteout::split;

/// Applies one layer to a directory that exists. The layer may be compressed, with gzip or zstd; that is found by its
/// content. It is read to its end, so that a reader which verifies has verified when this returns.
///
/// The directory is changed as the layer goes on; after an error it has what was applied so far. A layer that is not
/// trusted should be applied to a directory that other users cannot reach: its setuid programs and devices are there
/// as soon as they are applied, before the rest of the layer is read. [`Unpacked::exposed`] lists those that other
/// users can reach. [`Image::unpack`](crate::Image::unpack) builds a tree out of reach, verifies it and publishes it.
///
/// Nothing is changed across a mount point below the directory: the layer is refused where it would remove, replace or
/// enter one. The directory itself may be a mount point.
///
/// When this returns, the tree survives a power cut, unless [`Options::durability`] trades that away: the file system is
/// synced once.
///
/// # Errors
///
/// * [`ErrorKind::InvalidLayer`](crate::ErrorKind::InvalidLayer): the bytes are no tar, or an entry must be refused.
/// * [`ErrorKind::Compression`](crate::ErrorKind::Compression): the bytes cannot be decompressed.
/// * [`ErrorKind::LimitExceeded`](crate::ErrorKind::LimitExceeded): there is too much of something.
/// * [`ErrorKind::Collision`](crate::ErrorKind::Collision): the file system takes two names for one.
/// * [`ErrorKind::MountPoint`](crate::ErrorKind::MountPoint): the layer leads to a mount point below the directory.
/// * [`ErrorKind::NotApplied`](crate::ErrorKind::NotApplied): the options are strict, and something was left out.
/// * [`ErrorKind::Cancelled`](crate::ErrorKind::Cancelled): the options' switch was thrown.
/// * [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput): an owner lies outside of the map of ids.
/// * [`ErrorKind::StorageFull`](crate::ErrorKind::StorageFull), [`ErrorKind::Io`](crate::ErrorKind::Io): the
///   operating system refused something; or the layer's reader did.
pub fn apply(layer: impl Read + Send, root: impl AsRef<Path>, options: &Options<'_>) -> Result<Unpacked> {
    let root = root.as_ref();
    let apply = || {
        let mut applier = Applier::new(Rooted::open(root)?, options)?;
        let source = Source { stream: Box::new(layer), promise: None };
        run([Ok(source)].into_iter(), options.limits, |tars| apply_next(&mut applier, tars, options, None))?;
        if options.durability.unwrap_or_default() == Durability::Full {
            applier.sync()?;
        }
        applier.report_exposed(applier.open_root()?)?;
        let done = applier.into_report();
        done.check(options)?;
        Ok(done)
    };
    apply().context(|| format!("apply a layer to {}", root.display()))
}

/// Applies the next of several layers.
pub(crate) fn apply_next(
    applier: &mut Applier<'_>,
    tars: &mut Tars,
    options: &Options<'_>,
    layer: Option<&Descriptor>,
) -> Result<()> {
    let position = tars.position();
    let mut entries = Entries::new(tars.next_tar(), options.limits).starting_at(applier.report().entries);
    let before = applier.report().entries;
    let mut tell = |done: &Unpacked| {
        let entries = done.entries - before;
        options.observer.event(&Event::Unpacking { layer, entries, bytes: position.get() });
    };
    applier.apply(&mut entries, &mut tell)
}
