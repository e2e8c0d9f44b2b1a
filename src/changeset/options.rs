//! How layers are applied.

use std::path::Path;
use std::path::PathBuf;

use crate::compression::TRAILER_BYTES;
use crate::error::Error;
use crate::error::Limit;
use crate::error::Result;
use crate::event::Cancel;
use crate::event::Observer;
use crate::event::Silent;
use crate::fs::atomic::Durability;
use crate::memory::MemoryBudget;

/// Whose the files are that layers say are someone's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Ownership {
    /// Whose the layers say: the same numbers. Needs root, or its power to give files away.
    #[default]
    Preserve,
    /// All are the current user's. Modes are kept, those too that lock the owner out; such directories are opened
    /// while work is going on in them.
    CurrentUser,
    /// Numbers are translated, as in a user namespace.
    Mapped {
        /// Of owners.
        uids: IdMap,
        /// Of groups.
        gids: IdMap,
    },
}

impl Ownership {
    /// Returns the ownership that this process can apply: [`Ownership::Preserve`] for root, and
    /// [`Ownership::CurrentUser`] for other users and for the root of a user namespace that has a single user or group id
    /// (`unshare --map-root-user`), where no file can be given to anybody else.
    ///
    /// It is the default for working copies. [`Options::new`] takes it for root only, so that other users do not get a
    /// tree with changed owners without asking for it.
    pub fn available() -> Ownership {
        let is_root = rustix::process::geteuid().is_root();
        if is_root && !has_single_id() { Ownership::Preserve } else { Ownership::CurrentUser }
    }

    /// The default for applying layers.
    fn for_layers() -> Ownership {
        if rustix::process::geteuid().is_root() { Ownership::available() } else { Ownership::Preserve }
    }
}

/// Whether this process's user namespace has a single user id, or a single group id (user_namespaces(7)).
fn has_single_id() -> bool {
    let is_single = |path: &str| std::fs::read_to_string(path).is_ok_and(|map| count_of_ids(&map) == 1);
    ["/proc/self/uid_map", "/proc/self/gid_map"].into_iter().any(is_single)
}

/// How many ids a map has; each line is a first id inside, a first id outside, and a count.
fn count_of_ids(map: &str) -> u64 {
    let count = |line: &str| line.split_whitespace().nth(2)?.parse::<u64>().ok();
    map.lines().filter_map(count).sum()
}

/// Ranges of ids inside an image, and where they lie outside.
///
/// ```
/// use layercake::changeset::IdMap;
///
/// let map = IdMap::new([(0, 1000, 1), (1, 100_000, 65_535)]);
/// assert_eq!(map.outside(0), Some(1000));
/// assert_eq!(map.outside(33), Some(100_032));
/// assert_eq!(map.outside(65_536), None);
/// assert_eq!(map.inside(100_032), Some(33));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IdMap(Vec<(u32, u32, u32)>);

impl IdMap {
    /// Ranges as (first inside, first outside, how many), as `/proc/self/uid_map` has them. The first that has an id
    /// counts.
    pub fn new(ranges: impl IntoIterator<Item = (u32, u32, u32)>) -> IdMap {
        IdMap(ranges.into_iter().collect())
    }

    /// The ranges, as they were given.
    pub(crate) fn ranges(&self) -> &[(u32, u32, u32)] {
        &self.0
    }

    /// What an id inside is outside; none if no range has it.
    pub fn outside(&self, inside: u32) -> Option<u32> {
        let (first, to, _) =
            self.0.iter().find(|(first, _, count)| inside.checked_sub(*first) < Some(*count) && inside >= *first)?;
        to.checked_add(inside - first).filter(|id| *id != u32::MAX)
    }

    /// What an id outside is inside; none if no range has it.
    pub fn inside(&self, outside: u32) -> Option<u32> {
        let holds = |first: u32, count: u32| outside.checked_sub(first).is_some_and(|offset| offset < count);
        let (to, first, _) = self.0.iter().find(|(_, first, count)| holds(*first, *count))?;
        to.checked_add(outside - first).filter(|id| *id != u32::MAX)
    }
}

/// What is written for a layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Layout {
    /// The root file system: what a layer removes is gone.
    #[default]
    Flat,
    /// The layer itself, as overlayfs wants it in `lowerdir`: what it removes is marked as removed. The marks are
    /// devices 0/0, or extended attributes where no device can be made, and `trusted.overlay.opaque`; with
    /// [`Ownership::CurrentUser`] it is `user.overlay.opaque`, for mounts with the option `userxattr`.
    ///
    /// Only its owner may enter the directory that holds the layers (mode 0700).
    Overlay,
}

/// What is refused because it is too much. All of it can be set; what a file system cannot hold it refuses itself.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How many layers an image may have: 1,000.
    pub layers: u64,
    /// How many entries all layers together may have: four million.
    pub entries: u64,
    /// The size of one file in bytes, holes counted: 1 TiB.
    pub file_bytes: u64,
    /// The size of all layers together in bytes, as tar, and of all files together, holes counted: 1 TiB.
    pub unpacked_bytes: u64,
    /// How many bytes may come out of a compressed layer for each that goes in, once it is more than a GiB: 1,100,
    /// which is more than gzip can.
    pub expansion_ratio: u64,
    /// The length of a path, and of a link's target, in bytes: 4,095.
    pub path_bytes: u64,
    /// Bytes of memory that an operation keeps: names, link targets, extended attributes and lists of changes, of all
    /// images that it compares. Contents are never kept. A file takes 160 to 260 bytes, so a million files fit.
    /// Default: 256 MiB.
    pub memory_bytes: u64,
    /// Bytes that may follow without adding content: behind the end of a tar, as empty gzip members, as skippable zstd
    /// frames, or as padding. The table of contents of a zstd:chunked layer is such a frame. Default: 256 MiB.
    pub trailer_bytes: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            layers: 1_000,
            entries: 4_000_000,
            file_bytes: 1 << 40,
            unpacked_bytes: 1 << 40,
            expansion_ratio: 1_100,
            path_bytes: 4_095,
            memory_bytes: MemoryBudget::DEFAULT,
            trailer_bytes: TRAILER_BYTES,
        }
    }
}

impl Limits {
    /// Fails if there is more than may be.
    pub(crate) fn check(&self, limit: Limit, found: u64) -> Result<()> {
        let maximum = match limit {
            Limit::Layers => self.layers,
            Limit::Entries => self.entries,
            Limit::FileSize => self.file_bytes,
            Limit::PathLength => self.path_bytes,
            Limit::TrailerSize => self.trailer_bytes,
            _ => self.unpacked_bytes,
        };
        if found > maximum { Err(Error::limit(limit, maximum)) } else { Ok(()) }
    }

    /// A budget for the memory of one operation.
    pub(crate) fn memory(&self) -> MemoryBudget {
        MemoryBudget::new(self.memory_bytes)
    }
}

/// How layers are applied. The default keeps owners (but see [`Ownership::available`]), writes a root file system, and goes on where something cannot
/// be applied, which it reports.
///
/// ```
/// use layercake::changeset::{Options, Ownership};
///
/// let options = Options::new().ownership(Ownership::CurrentUser).strict(true);
/// ```
#[derive(Clone)]
pub struct Options<'a> {
    pub(crate) ownership: Ownership,
    pub(crate) layout: Layout,
    pub(crate) lower: Option<Vec<PathBuf>>,
    pub(crate) strict: bool,
    pub(crate) setuid: bool,
    pub(crate) devices: bool,
    pub(crate) durability: Option<Durability>,
    pub(crate) limits: Limits,
    pub(crate) cancel: Cancel,
    pub(crate) observer: &'a dyn Observer,
    pub(crate) by_component: bool,
}

impl<'a> Options<'a> {
    /// The default.
    pub fn new() -> Options<'a> {
        Options {
            ownership: Ownership::for_layers(),
            layout: Layout::default(),
            lower: None,
            strict: false,
            setuid: true,
            devices: true,
            durability: None,
            limits: Limits::default(),
            cancel: Cancel::new(),
            observer: &Silent,
            by_component: false,
        }
    }

    /// The owners of the files. Default: [`Ownership::Preserve`]; in a user namespace with a single id, where root cannot
    /// apply that, [`Ownership::CurrentUser`].
    #[must_use = "the options are returned"]
    pub fn ownership(self, ownership: Ownership) -> Self {
        Options { ownership, ..self }
    }

    /// What is written.
    #[must_use = "the options are returned"]
    pub fn layout(self, layout: Layout) -> Self {
        Options { layout, ..self }
    }

    /// For [`Layout::Overlay`] and [`apply`](crate::changeset::apply): the directories of the layers below, topmost
    /// first, as in overlayfs' `lowerdir`. Attributes of directories that a layer only passes through, and files
    /// that it links to, are taken from there, and nothing is marked as removed that is not there. Without this,
    /// nothing is known of what lies below.
    #[must_use = "the options are returned"]
    pub fn lower<P: AsRef<Path>>(self, lower: impl IntoIterator<Item = P>) -> Self {
        Options { lower: Some(lower.into_iter().map(|path| path.as_ref().to_owned()).collect()), ..self }
    }

    /// Whether to fail with [`ErrorKind::NotApplied`](crate::ErrorKind::NotApplied) where otherwise something would
    /// be left out, or come twice in one layer, and be reported.
    #[must_use = "the options are returned"]
    pub fn strict(self, strict: bool) -> Self {
        Options { strict, ..self }
    }

    /// Whether files keep their setuid and setgid bits and their capabilities (`security.capability`), with which a
    /// program runs with the rights of its file. Default: true. What is left out is reported in [`Unpacked::skipped`],
    /// as [`SkippedPart::SetId`] and [`SkippedPart::Capabilities`], and is no failure for [`strict`](Options::strict).
    ///
    /// [`Unpacked::skipped`]: crate::changeset::Unpacked::skipped
    /// [`SkippedPart::SetId`]: crate::changeset::SkippedPart::SetId
    /// [`SkippedPart::Capabilities`]: crate::changeset::SkippedPart::Capabilities
    #[must_use = "the options are returned"]
    pub fn setuid(self, setuid: bool) -> Self {
        Options { setuid, ..self }
    }

    /// Whether character and block devices are made. Default: true. What is left out is reported in
    /// [`Unpacked::skipped`], as [`SkippedPart::Device`], and is no failure for [`strict`](Options::strict).
    ///
    /// [`Unpacked::skipped`]: crate::changeset::Unpacked::skipped
    /// [`SkippedPart::Device`]: crate::changeset::SkippedPart::Device
    #[must_use = "the options are returned"]
    pub fn devices(self, devices: bool) -> Self {
        Options { devices, ..self }
    }

    /// Whether the tree survives a power cut once the call returned. Default: the durability of the store that the
    /// image is in; [`Durability::Full`] for [`apply`](crate::changeset::apply()), which knows no store.
    ///
    /// [`Durability::Full`] syncs the file system that the target lies on, once, when all layers are applied.
    /// With [`Durability::None`] a power cut soon after may leave a tree of empty files under the target's name.
    #[must_use = "the options are returned"]
    pub fn durability(self, durability: Durability) -> Self {
        Options { durability: Some(durability), ..self }
    }

    /// What is refused because it is too much.
    #[must_use = "the options are returned"]
    pub fn limits(self, limits: Limits) -> Self {
        Options { limits, ..self }
    }

    /// A switch that ends the work.
    #[must_use = "the options are returned"]
    pub fn cancel(self, cancel: &Cancel) -> Self {
        Options { cancel: cancel.clone(), ..self }
    }

    /// Who is told of [`Event::Unpacking`](crate::Event::Unpacking) and
    /// [`Event::Unpacked`](crate::Event::Unpacked).
    #[must_use = "the options are returned"]
    pub fn observer(self, observer: &'a dyn Observer) -> Self {
        Options { observer, ..self }
    }

    /// Walks to each directory by its components, as is done where the kernel has no `openat2`, or forbids it.
    #[doc(hidden)]
    #[must_use = "the options are returned"]
    pub fn without_openat2(self) -> Self {
        Options { by_component: true, ..self }
    }
}

impl Default for Options<'_> {
    fn default() -> Self {
        Options::new()
    }
}

impl std::fmt::Debug for Options<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("ownership", &self.ownership)
            .field("layout", &self.layout)
            .field("lower", &self.lower)
            .field("strict", &self.strict)
            .field("setuid", &self.setuid)
            .field("devices", &self.devices)
            .field("durability", &self.durability)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_a_user_namespace_are_counted() {
        for (map, count) in [
            ("         0          0 4294967295\n", 4_294_967_295),
            ("         0       1000          1\n", 1),
            ("0 1000 1\n1 100000 65536\n", 65_537),
            ("", 0),
        ] {
            assert_eq!(count_of_ids(map), count, "{map}");
        }
    }
}
