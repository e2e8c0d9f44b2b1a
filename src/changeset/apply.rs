//! Applying layers to a root: one method for each kind of entry.

use std::collections::HashSet;
use std::fs::File;
use std::io::BufRead;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use rustix::fs::AtFlags;
use rustix::fs::FileType;
use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::fs::Stat;
use rustix::io::Errno;

use crate::changeset::Layout;
use crate::changeset::Options;
use crate::changeset::attributes;
use crate::changeset::attributes::Failure;
use crate::changeset::attributes::Made;
use crate::changeset::attributes::Owner;
use crate::changeset::budget::Budget;
use crate::changeset::course::Lower;
use crate::changeset::entry::Entries;
use crate::changeset::entry::Named;
use crate::changeset::entry::at_path;
use crate::changeset::entry::segments;
use crate::changeset::exposed::CAPABILITY;
use crate::changeset::exposed::Candidates;
use crate::changeset::exposed::SET_ID;
use crate::changeset::ground::Ground;
use crate::changeset::ground::Parent;
use crate::changeset::overlay::Namespace;
use crate::changeset::overlay::Overlay;
use crate::changeset::report::ExposedKind;
use crate::changeset::report::Report;
use crate::changeset::report::SkippedPart;
use crate::changeset::report::Unpacked;
use crate::changeset::report::to_path;
use crate::changeset::tape::RawEntry;
use crate::changeset::tape::Tape;
use crate::changeset::tape::Type;
use crate::changeset::tape::invalid;
use crate::changeset::whiteout::LINKS;
use crate::changeset::whiteout::Purpose;
use crate::changeset::whiteout::clean;
use crate::changeset::whiteout::split;
use crate::error::Error;
use crate::error::Result;
use crate::fs::mount;
use crate::fs::random_name;
use crate::fs::rooted::Folder;
use crate::fs::rooted::Inode;
use crate::fs::rooted::Rooted;
use crate::fs::trust::is_open_to_others;
use crate::fs::trust::lets_others_in;

const NEW: OFlags =
    OFlags::WRONLY.union(OFlags::CREATE).union(OFlags::EXCL).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// Why something was left out that the options exclude.
const NOT_WANTED: &str = "left out, as the options say";
const NODE: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Where an entry goes.
struct Place<'a> {
    /// The entry's path, cleaned: how reports call it.
    path: &'a [u8],
    parent: &'a Parent,
    name: &'a [u8],
}

/// The layers below a layer in overlay form, and what they left of the budget.
#[derive(Debug)]
pub(crate) struct Below {
    lower: Lower,
    budget: Budget,
}

impl Below {
    /// Layers that were unpacked at another time, topmost first.
    pub(crate) fn new(layers: Vec<Rooted>, options: &Options<'_>) -> Below {
        Below { lower: Lower::new(layers), budget: Budget::new(options.limits, &options.cancel) }
    }

    fn of(ground: Ground) -> Below {
        let lower = ground.course.map_or_else(|| Lower::new(Vec::new()), |course| course.into_lower(ground.is_bare));
        Below { lower, budget: ground.budget }
    }
}

/// Applies layers, one after another, to one root.
pub(crate) struct Applier<'a> {
    options: &'a Options<'a>,
    ground: Ground,
    report: Report,
    /// Where entries would be that were left out: hard links to them are left out too.
    left_out: HashSet<Vec<u8>>,
    exposed: Candidates,
}

impl<'a> Applier<'a> {
    /// For a root that exists.
    pub(crate) fn new(root: Rooted, options: &'a Options<'a>) -> Result<Applier<'a>> {
        let open = |lower: &Vec<PathBuf>| lower.iter().map(|path| Rooted::open(path)).collect::<Result<_>>();
        let lower = options.lower.as_ref().map(open).transpose()?;
        let budget = Budget::new(options.limits, &options.cancel);
        Applier::on(lower.map(Lower::new), budget, root, options)
    }

    /// Starts the layer above others.
    pub(crate) fn above(below: Below, root: Rooted, options: &'a Options<'a>) -> Result<Applier<'a>> {
        Applier::on(Some(below.lower), below.budget, root, options)
    }

    fn on(lower: Option<Lower>, budget: Budget, root: Rooted, options: &'a Options<'a>) -> Result<Applier<'a>> {
        if options.by_component {
            root.walk_by_component();
        }
        let overlay = match options.layout {
            Layout::Flat => None,
            Layout::Overlay => {
                let overlay = Overlay::new(Namespace::of(&options.ownership), lower.is_some());
                Some((overlay, lower.unwrap_or_else(|| Lower::new(Vec::new()))))
            }
        };
        // Where no layer says whose a directory is, it is root's; or nobody's else, where root has no number.
        let implied = options.ownership.owner(0, 0).unwrap_or(None);
        let ground = Ground::new(root, overlay, implied, options.limits.path_bytes, budget)?;
        let (report, left_out, exposed) = (Report::default(), HashSet::new(), Candidates::default());
        Ok(Applier { options, ground, report, left_out, exposed })
    }

    /// Ends this layer, and starts the layer above it, whose report continues this one's. Files to be reported as exposed
    /// are forgotten: layers that are unpacked apart lie in a directory that is closed to other users.
    pub(crate) fn next_layer(self, root: Rooted) -> Result<Applier<'a>> {
        let Applier { options, report, left_out, ground, .. } = self;
        let next = Applier::above(Below::of(ground), root, options)?;
        Ok(Applier { report, left_out, ..next })
    }

    /// Ends this layer. Returns it with the layers below, and the report.
    pub(crate) fn finish(self) -> (Below, Unpacked) {
        (Below::of(self.ground), self.report.done)
    }

    /// Goes on with what was done at another time, to the layers below: so many entries, bytes, and bytes with holes
    /// counted; and what was left out.
    pub(crate) fn remembering(
        mut self,
        (entries, bytes, claimed): (u64, u64, u64),
        left_out: HashSet<Vec<u8>>,
    ) -> Applier<'a> {
        self.report.done.entries = entries;
        self.report.done.bytes = bytes;
        self.ground.budget.set_claimed(claimed);
        Applier { left_out, ..self }
    }

    /// For a root that was made just now: it becomes what it is in the layers below, or what a root is that no layer
    /// describes.
    pub(crate) fn describe_root(&mut self) -> Result<()> {
        self.ground.describe_root()
    }

    /// What was done so far.
    pub(crate) fn report(&self) -> &Unpacked {
        &self.report.done
    }

    /// The size of all files so far, holes counted.
    pub(crate) fn claimed(&self) -> u64 {
        self.ground.budget.claimed()
    }

    /// Where things would be that were left out.
    pub(crate) fn left_out(&self) -> Vec<Vec<u8>> {
        let mut places: Vec<Vec<u8>> = self.left_out.iter().cloned().collect();
        places.sort_unstable();
        places
    }

    /// The root, open.
    pub(crate) fn open_root(&self) -> Result<Folder> {
        self.ground.rooted.root()
    }

    /// Reports the setuid programs and devices that other users can reach in the tree, which lies in this directory or
    /// will be moved there.
    pub(crate) fn report_exposed(&mut self, above: impl AsFd) -> Result<()> {
        if self.exposed.is_empty() {
            return Ok(());
        }
        let root = self.ground.rooted.root()?;
        if lets_others_in(&root) && is_open_to_others(above) {
            let (exposed, has_more) = self.exposed.list(&self.ground.rooted)?;
            self.report.done.exposed = exposed;
            self.report.done.has_more_exposed = has_more;
        }
        Ok(())
    }

    /// What was done in all.
    pub(crate) fn into_report(self) -> Unpacked {
        self.report.done
    }

    /// Brings what was done to the disk, with all of the file system that the root lies on.
    pub(crate) fn sync(&self) -> Result<()> {
        self.ground.sync()
    }

    /// Applies one layer: all of the stream, to its end. `tell` is called while it goes on.
    pub(crate) fn apply<R: BufRead>(
        &mut self,
        entries: &mut Entries<R>,
        tell: &mut dyn FnMut(&Unpacked),
    ) -> Result<()> {
        while let Some(entry) = entries.next_named()? {
            self.options.cancel.check()?;
            self.take(&entry, entries.tape(), tell).map_err(|error| at_path(error, &entry.raw.path))?;
            self.report.done.entries += 1;
            self.report.done.bytes += self.ground.budget.take_copied();
            self.ground.budget.next_entry();
            tell(&self.report.done);
        }
        self.end()
    }

    /// Ends a layer; also one that is not there, of an image without layers.
    pub(crate) fn end(&mut self) -> Result<()> {
        let root = self.ground.parent(b"")?;
        self.ground.clear_away(&root, LINKS)?;
        self.ground.end_layer()?;
        let timeless = self.ground.take_timeless();
        timeless.iter().try_for_each(|path| attributes::skip_time(path, &mut self.report))
    }

    fn take<R: BufRead>(&mut self, entry: &Named, tape: &mut Tape<R>, tell: &mut dyn FnMut(&Unpacked)) -> Result<()> {
        let path = &entry.path;
        match entry.purpose {
            Purpose::Metadata => Ok(()),
            Purpose::Whiteout => self.whiteout(path),
            Purpose::Opaque => self.opaque(path),
            Purpose::Addition if path.is_empty() => self.root(&entry.raw),
            Purpose::Addition => self.add(&entry.raw, path, tape, tell),
        }
    }

    fn whiteout(&mut self, path: &[u8]) -> Result<()> {
        if self.ground.overlay.is_some() {
            return self.ground.whiteout(path);
        }
        let (parent, name) = split(path);
        match self.ground.existing(parent)? {
            Some(parent) => self.ground.hide(&parent, Some(name)),
            None => Ok(()),
        }
    }

    fn opaque(&mut self, path: &[u8]) -> Result<()> {
        if self.ground.overlay.is_some() {
            return self.ground.opaque(path);
        }
        match self.ground.existing(path)? {
            Some(directory) => self.ground.hide(&directory, None),
            None => Ok(()),
        }
    }

    fn add<R: BufRead>(
        &mut self,
        entry: &RawEntry,
        path: &[u8],
        tape: &mut Tape<R>,
        tell: &mut dyn FnMut(&Unpacked),
    ) -> Result<()> {
        let (parent, name) = split(path);
        let parent = self.ground.parent(parent)?;
        let at = Place { path, parent: &parent, name };
        let is_made = match entry.kind {
            Type::Directory => self.directory(entry, &at)?,
            Type::File => self.file(entry, &at, tape, tell)?,
            Type::Symlink => self.symlink(entry, &at)?,
            Type::HardLink => self.hard_link(entry, &at)?,
            Type::CharDevice(..) | Type::BlockDevice(..) | Type::Fifo => self.node(entry, &at)?,
        };
        if !is_made {
            return Ok(());
        }
        if !self.left_out.is_empty() {
            self.left_out.remove(&parent.folder.join(name));
        }
        if self.ground.mark(&parent, name) { self.report.duplicate(path) } else { Ok(()) }
    }

    /// Only a directory can be the root; anything else in its place would lead later entries elsewhere
    /// (CVE-2021-29136).
    fn root(&mut self, entry: &RawEntry) -> Result<()> {
        if entry.kind != Type::Directory {
            return invalid("the root is no directory");
        }
        let root = self.ground.parent(b"")?;
        self.dress_directory(entry, &Place { path: b"", parent: &root, name: b"." }, true)?;
        self.ground.root_changed();
        if self.ground.mark(&root, b"") {
            self.report.duplicate(b"")?;
        }
        Ok(())
    }

    fn directory(&mut self, entry: &RawEntry, at: &Place<'_>) -> Result<bool> {
        let Place { parent, name, .. } = *at;
        self.ground.touch(parent)?;
        let found = self.ground.look(&parent.folder, name)?;
        let is_directory = |stat: &Stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        let exists = found.as_ref().is_some_and(is_directory);
        if exists {
            self.ground.check_name(parent, name)?;
        } else {
            self.ground.make_directory(parent, name)?;
        }
        self.dress_directory(entry, at, exists)?;
        if found.is_some() && !exists {
            self.ground.cover(parent, name)?;
        }
        Ok(true)
    }

    /// Gives a directory the entry's attributes; mode and times when the layer ends.
    fn dress_directory(&mut self, entry: &RawEntry, at: &Place<'_>, exists: bool) -> Result<()> {
        let owner = self.owner(entry)?;
        let (directory, inode) = self.ground.open_directory(at.parent, at.name)?;
        let made = Made::new(&directory);
        if exists {
            made.keep_xattrs(&entry.xattrs);
        } else {
            self.ground.is_new(inode);
        }
        self.dress(&made, entry, owner, at)?;
        self.ground.inherits |= attributes::is_inherited(&entry.xattrs);
        let place = if at.path.is_empty() { Vec::new() } else { at.parent.folder.join(at.name) };
        self.ground.note(inode, place, entry.mode, entry.mtime)
    }

    fn file<R: BufRead>(
        &mut self,
        entry: &RawEntry,
        at: &Place<'_>,
        tape: &mut Tape<R>,
        tell: &mut dyn FnMut(&Unpacked),
    ) -> Result<bool> {
        let owner = self.owner(entry)?;
        self.ground.budget.claim(entry.size)?;
        let mode = Mode::RUSR | Mode::WUSR;
        let make = |folder: &Folder| rustix::fs::openat(folder, at.name, NEW, mode);
        let (file, _) = self.ground.make(at.parent, at.name, make)?;
        let owner = self.owner_to_give(&file, owner, at)?;
        let file = self.write(File::from(file), entry, at, tape, tell)?;
        let mode = self.mode_of_file(&file, entry, at)?;
        self.complete(&Made::new(&file), entry, mode, owner, at)
    }

    /// The mode of a new file. Remembers or leaves out the rights that it would give to other users.
    fn mode_of_file(&mut self, file: &File, entry: &RawEntry, at: &Place<'_>) -> Result<u32> {
        if !self.options.setuid {
            if entry.mode & SET_ID != 0 {
                self.report.skip(at.path, SkippedPart::SetId, NOT_WANTED)?;
            }
            return Ok(entry.mode & !SET_ID);
        }
        let place = || at.parent.folder.join(at.name);
        if entry.mode & SET_ID != 0 {
            self.exposed.note(place(), ExposedKind::SetId);
        }
        if entry.xattrs.iter().any(|(name, _)| name == CAPABILITY) {
            let stat =
                rustix::fs::fstat(file).map_err(|error| self.ground.error("look at", at.parent, at.name, error))?;
            self.exposed.note_capable(place(), Inode::of(&stat));
        }
        Ok(entry.mode)
    }

    fn write<R: BufRead>(
        &mut self,
        mut file: File,
        entry: &RawEntry,
        at: &Place<'_>,
        tape: &mut Tape<R>,
        tell: &mut dyn FnMut(&Unpacked),
    ) -> Result<File> {
        let fail = |error| Error::io("write", &to_path(&at.parent.folder.join(at.name)), error);
        for segment in segments(entry.sparse.as_ref(), entry.size) {
            let mut offset = segment.offset;
            let end = segment.offset + segment.length;
            while offset < end {
                let bytes = tape.stored()?;
                let count = usize::try_from(end - offset).map_or(bytes.len(), |left| bytes.len().min(left));
                if entry.sparse.is_some() {
                    file.write_all_at(&bytes[..count], offset).map_err(fail)?;
                } else {
                    file.write_all(&bytes[..count]).map_err(fail)?;
                }
                tape.consume(count);
                offset += count as u64;
                self.report.done.bytes += count as u64;
                self.options.cancel.check()?;
                tell(&self.report.done);
            }
        }
        if entry.sparse.is_some() {
            file.set_len(entry.size).map_err(fail)?;
        }
        Ok(file)
    }

    fn symlink(&mut self, entry: &RawEntry, at: &Place<'_>) -> Result<bool> {
        let owner = self.owner(entry)?;
        if entry.link.is_empty() {
            return invalid("a symbolic link leads to nothing");
        }
        let make = |folder: &Folder| rustix::fs::symlinkat(&entry.link[..], folder, at.name);
        self.ground.make(at.parent, at.name, make)?;
        let node = self.open_node(at, FileType::Symlink, 0)?;
        let owner = self.owner_to_give(&node, owner, at)?;
        let made = Made::path_only(&node);
        self.dress(&made, entry, owner, at)?;
        self.set_times(&made, entry, at)?;
        Ok(true)
    }

    /// A device or a FIFO.
    fn node(&mut self, entry: &RawEntry, at: &Place<'_>) -> Result<bool> {
        if !self.options.devices && entry.kind != Type::Fifo {
            self.ground.clear_away(at.parent, at.name)?;
            return self.leave_out(at, NOT_WANTED);
        }
        let owner = self.owner(entry)?;
        let (kind, device) = match entry.kind {
            Type::CharDevice(0, 0) if self.ground.overlay.is_some() => {
                self.ground.clear_away(at.parent, at.name)?;
                return self.leave_out(at, "overlayfs would take the device 0/0 for a removal");
            }
            Type::CharDevice(major, minor) => (FileType::CharacterDevice, rustix::fs::makedev(major, minor)),
            Type::BlockDevice(major, minor) => (FileType::BlockDevice, rustix::fs::makedev(major, minor)),
            _ => (FileType::Fifo, 0),
        };
        let mode = Mode::RUSR | Mode::WUSR;
        let make = |folder: &Folder| match rustix::fs::mknodat(folder, at.name, kind, mode, device) {
            Err(error @ (Errno::PERM | Errno::NOTSUP)) if kind != FileType::Fifo => Ok(Err(error)),
            result => result.map(Ok),
        };
        if let (Err(error), _) = self.ground.make(at.parent, at.name, make)? {
            // What was in its place is gone in the layer's eyes, whether the device can be made or not.
            self.ground.clear_away(at.parent, at.name)?;
            return self.leave_out(at, &format!("the device cannot be made: {error}"));
        }
        let node = self.open_node(at, kind, device)?;
        let owner = self.owner_to_give(&node, owner, at)?;
        if kind != FileType::Fifo {
            self.exposed.note(at.parent.folder.join(at.name), ExposedKind::Device);
        }
        self.complete(&Made::path_only(&node), entry, entry.mode, owner, at)
    }

    /// Gives what was made just now the entry's attributes: owner, extended attributes, mode, time (L15).
    fn complete(&mut self, made: &Made<'_>, entry: &RawEntry, mode: u32, owner: Owner, at: &Place<'_>) -> Result<bool> {
        if self.ground.inherits {
            made.drop_inherited();
        }
        self.dress(made, entry, owner, at)?;
        made.set_mode(mode).map_err(|error| self.ground.error("set the mode of", at.parent, at.name, error))?;
        self.set_times(made, entry, at)?;
        Ok(true)
    }

    /// Opens what was made just now, and nothing that somebody put in its place: a link, or a file with other names.
    fn open_node(&mut self, at: &Place<'_>, kind: FileType, device: u64) -> Result<OwnedFd> {
        let fail = |error| self.ground.error("open", at.parent, at.name, error);
        let node = rustix::fs::openat(at.parent, at.name, NODE, Mode::empty()).map_err(fail)?;
        let stat = rustix::fs::fstat(&node).map_err(fail)?;
        let is_ours = FileType::from_raw_mode(stat.st_mode) == kind && stat.st_nlink == 1 && stat.st_rdev == device;
        if is_ours { Ok(node) } else { Err(fail(Errno::STALE)) }
    }

    /// One more name for what its target names. Nothing but the name is made (CVE-2021-32760).
    fn hard_link(&mut self, entry: &RawEntry, at: &Place<'_>) -> Result<bool> {
        let mut target = clean(&entry.link);
        if self.ground.overlay.is_some() {
            target = self.ground.bring_up(&target)?;
        }
        let (above, last) = split(&target);
        let shown = || String::from_utf8_lossy(&entry.link).into_owned();
        let missing = || invalid(format!("a hard link to {:?}, which is not there", shown()));
        let from = self.ground.existing(above)?;
        let target_place = from.as_ref().map_or_else(|| target.clone(), |from| from.folder.join(last));
        if self.left_out.contains(&target_place) {
            let reason = if self.options.devices { "what it is one more name of was left out" } else { NOT_WANTED };
            return self.leave_out(at, reason);
        }
        let Some(from) = from else { return missing() };
        let Some(stat) = self.ground.look(&from.folder, last)? else { return missing() };
        let is_mark = |overlay: &Overlay| overlay.is_whiteout(&from.folder, last, &stat);
        if target.is_empty() || FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            return invalid(format!("a hard link to {:?}, which is a directory", shown()));
        }
        if self.ground.overlay.as_deref().is_some_and(is_mark) {
            return missing();
        }
        self.ground.check_name(&from, last)?;
        if from.inode == at.parent.inode && last == at.name {
            return Ok(true);
        }
        self.link(&from, last, at.parent, at.name)?;
        self.exposed.note_link(|| at.parent.folder.join(at.name), &stat);
        if !self.ground.copies.is_empty() {
            self.ground.copies.add_name(Inode::of(&stat), at.parent.folder.join(at.name))?;
        }
        Ok(true)
    }

    fn link(&mut self, from: &Parent, target: &[u8], parent: &Parent, name: &[u8]) -> Result<()> {
        if self.ground.look(&parent.folder, name)?.is_none() {
            let link = |folder: &Folder| rustix::fs::linkat(from, target, folder, name, AtFlags::empty());
            let made = self.ground.make(parent, name, link).map(drop);
            return made.map_err(|error| self.not_linked(error, from, target));
        }
        // What is in the way may have the target in it: the link is made aside before that goes. A layer may have
        // directories of any name.
        let aside = format!(".wh..layercake-{}", random_name());
        let link = |folder: &Folder| rustix::fs::linkat(from, target, folder, &aside, AtFlags::empty());
        let made = self.ground.make(parent, aside.as_bytes(), link);
        made.map_err(|error| self.not_linked(error, from, target))?;
        self.ground.clear_away(parent, name)?;
        rustix::fs::renameat(parent, &aside, parent, name)
            .map_err(|error| self.ground.error("link", parent, name, error))
    }

    /// A file that something is mounted on can have no other name.
    fn not_linked(&self, error: Error, from: &Parent, target: &[u8]) -> Error {
        if mount::is_mount_at(from, target) { self.ground.rooted.mount_point(&from.folder.join(target)) } else { error }
    }

    fn leave_out(&mut self, at: &Place<'_>, reason: &str) -> Result<bool> {
        // Without devices, nothing but devices and links to them is left out.
        let part = if self.options.devices { SkippedPart::Entry } else { SkippedPart::Device };
        self.report.skip(at.path, part, reason)?;
        self.ground.left_behind();
        let place = at.parent.folder.join(at.name);
        if self.ground.overlay.as_deref().is_some_and(Overlay::knows_below) {
            // It took the place of what lies below, for all that it is not there.
            self.ground.whiteout(&place)?;
        }
        // By way of a short link it may be much longer than what was reported.
        self.report.keep(place.len() as u64)?;
        self.left_out.insert(place);
        Ok(false)
    }

    fn owner(&self, entry: &RawEntry) -> Result<Owner> {
        self.options.ownership.owner(entry.uid, entry.gid)
    }

    fn owner_to_give(&self, made: &OwnedFd, owner: Owner, at: &Place<'_>) -> Result<Owner> {
        let fail = |error| self.ground.error("look at", at.parent, at.name, error);
        at.parent.owner_to_give(made.as_fd(), owner).map_err(fail)
    }

    fn dress(&mut self, made: &Made<'_>, entry: &RawEntry, owner: Owner, at: &Place<'_>) -> Result<()> {
        attributes::set_owner_and_xattrs(made, entry, at.path, owner, self.options, &mut self.report)
            .map_err(|failure| self.refused(failure, at))
    }

    fn set_times(&mut self, made: &Made<'_>, entry: &RawEntry, at: &Place<'_>) -> Result<()> {
        attributes::set_times(made, entry.mtime, at.path, &mut self.report).map_err(|failure| self.refused(failure, at))
    }

    fn refused(&self, failure: Failure, at: &Place<'_>) -> Error {
        match failure {
            Failure::Ours(error) => error,
            Failure::Os(what, error) => self.ground.error(what, at.parent, at.name, error),
            Failure::Owner(error) => self.ground.owner_error(at.parent, at.name, error),
        }
    }
}
