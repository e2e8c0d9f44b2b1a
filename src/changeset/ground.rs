//! The directories that layers are applied to: how they are reached and made, and what they are to look like in the
//! end.
//!
//! While a layer is applied, directories are open to their owner and their times move. What they are to be is noted
//! here, by their inode, and set when the layer ends.

use std::cell::Cell;
use std::collections::HashMap;
use std::collections::HashSet;
use std::hash::BuildHasher;
use std::hash::RandomState;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use rustix::fs::AtFlags;
use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::fs::Stat;
use rustix::io::Errno;

use crate::changeset::attributes;
use crate::changeset::attributes::Made;
use crate::changeset::attributes::Owner;
use crate::changeset::budget::Budget;
use crate::changeset::copy_up::Copies;
use crate::changeset::course::Course;
use crate::changeset::course::Lower;
use crate::changeset::folding;
use crate::changeset::overlay::Overlay;
use crate::changeset::tape::Timestamp;
use crate::changeset::trail::Maker;
use crate::changeset::trail::Route;
use crate::changeset::trail::Seeker;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Limit;
use crate::error::Result;
use crate::fs::mount::DirStatus;
use crate::fs::remove;
use crate::fs::remove::Keeper;
use crate::fs::remove::NotRemoved;
use crate::fs::rooted::Folder;
use crate::fs::rooted::Inode;
use crate::fs::rooted::Rooted;

/// What a directory that no layer describes looks like.
const IMPLIED_MODE: u32 = 0o755;
const IMPLIED_TIME: Timestamp = Timestamp { seconds: 0, nanoseconds: 0 };
/// How the kernel shows owners that have no number in a user namespace.
const NOBODY: u32 = 65534;
/// More directories are not remembered; they are finished, and looked at again when they are needed again.
const MAX_PENDING: usize = 16 << 10;

/// A directory that something is done in.
#[derive(Debug)]
pub(super) struct Parent {
    pub(super) folder: Folder,
    pub(super) inode: Inode,
    user: u32,
    /// Whose that is which is made in it, as long as nobody says otherwise; once that was seen.
    newcomers: Cell<Owner>,
}

impl Parent {
    fn new(folder: Folder, stat: &Stat) -> Parent {
        Parent { folder, inode: Inode::of(stat), user: stat.st_uid, newcomers: Cell::new(None) }
    }

    /// The owner that something must be given which was made in it just now; none if it has that already.
    ///
    /// One look at the first is enough, in a directory of the same user's: nobody else can set what else decides on that,
    /// its group and its bits, and here they stay as they are until the layer ends.
    pub(super) fn owner_to_give(&self, made: BorrowedFd<'_>, owner: Owner) -> Result<Owner, Errno> {
        let is_nobodys = |(user, group)| user == NOBODY || group == NOBODY;
        let Some(owner) = owner.filter(|owner| owner.0 == self.user && !is_nobodys(*owner)) else {
            return Ok(owner);
        };
        if self.newcomers.get().is_none() {
            let stat = rustix::fs::fstat(made)?;
            self.newcomers.set(Some((stat.st_uid, stat.st_gid)));
        }
        Ok((self.newcomers.get() != Some(owner)).then_some(owner))
    }
}

impl AsFd for Parent {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.folder.as_fd()
    }
}

/// What a directory is to look like when the layer ends.
#[derive(Debug)]
struct Pending {
    path: Vec<u8>,
    mode: u32,
    mtime: Timestamp,
}

/// Which names the layer at hand gave itself: those its whiteouts leave alone.
///
/// Of each name there is a hash of its directory's inode and itself, keyed so that nobody can choose two that are
/// one. They go with their directory, whose inode may be used again.
///
/// Beside them stand the directories in which nothing is left that a whiteout would remove: a layer may say a thousand
/// times that a directory is opaque, and would have a thousand files in it looked at each time.
#[derive(Debug, Default)]
struct Marks {
    hashes: HashSet<u64>,
    key: RandomState,
    emptied: HashSet<Inode>,
    /// Whether a directory that no layer describes was made since some were emptied: it may stay without content, and
    /// be removed by the next whiteout.
    implied: bool,
}

impl Marks {
    fn hash(&self, directory: Inode, name: &[u8]) -> u64 {
        self.key.hash_one((directory, name))
    }

    fn clear(&mut self) {
        self.hashes.clear();
        self.emptied.clear();
    }
}

#[derive(Debug)]
pub(super) struct Ground {
    pub(super) rooted: Rc<Rooted>,
    pub(super) overlay: Option<Rc<Overlay>>,
    /// The cursor over this layer and those below, in overlay form.
    pub(super) course: Option<Course>,
    /// Where the last path with symbolic links led.
    pub(super) route: Option<Route>,
    pub(super) hasher: RandomState,
    /// Whether this layer removed all that lies below.
    pub(super) is_bare: bool,
    implied_owner: Owner,
    pending: HashMap<Inode, Pending>,
    marks: Marks,
    /// The last parent: entries of one directory mostly stand together.
    here: Option<(Vec<u8>, Rc<Parent>)>,
    folding: bool,
    /// Whether some directory may hand access lists on to what is made in it.
    pub(super) inherits: bool,
    /// Whether the root was there before: who knows what is in it.
    is_found: bool,
    /// The longest path that may be made.
    longest: u64,
    /// Directories whose time the file system did not keep.
    timeless: Vec<Vec<u8>>,
    /// Budget of the bytes that may still be written.
    pub(super) budget: Budget,
    /// Copies of lower files with several names.
    pub(super) copies: Copies,
}

impl Ground {
    pub(super) fn new(
        rooted: Rooted,
        overlay: Option<(Overlay, Lower)>,
        implied_owner: Owner,
        longest: u64,
        budget: Budget,
    ) -> Result<Ground> {
        let rooted = Rc::new(rooted);
        let (overlay, lower) = overlay.map(|(overlay, lower)| (Rc::new(overlay), lower)).unzip();
        let course = overlay.as_ref().zip(lower).map(|(overlay, lower)| Course::new(overlay, &rooted, lower));
        let mut ground = Ground {
            rooted,
            overlay,
            hasher: course.as_ref().map_or_else(RandomState::new, |course| course.hasher().clone()),
            course,
            route: None,
            is_bare: false,
            implied_owner,
            pending: HashMap::new(),
            marks: Marks::default(),
            here: None,
            folding: false,
            inherits: false,
            is_found: true,
            longest,
            timeless: Vec::new(),
            budget,
            copies: Copies::default(),
        };
        let root = ground.parent(b"")?;
        ground.touch(&root)?;
        let fail = |error| ground.rooted.error("write to", b"", error);
        ground.folding = folding::folds(&root.folder).map_err(fail)?;
        if ground.folding {
            ground.rooted.walk_by_component();
        }
        Ok(ground)
    }

    /// Makes the root what it is in the layers below, or what a directory is that no layer describes.
    pub(super) fn describe_root(&mut self) -> Result<()> {
        let root = self.parent(b"")?;
        let (directory, inode) = self.open_directory(&root, b".")?;
        let made = Made::new(&directory);
        made.drop_inherited();
        self.is_found = false;
        let below = self.copy_root(&made)?;
        let fail = |error| self.owner_error(&root, b"", error);
        if below.is_none() {
            made.set_owner(self.implied_owner).map_err(fail)?;
        }
        self.inherits = below.is_some() && attributes::hands_on(directory.as_fd());
        let (mode, mtime) = below.unwrap_or((IMPLIED_MODE, IMPLIED_TIME));
        self.note(inode, Vec::new(), mode, mtime)
    }

    /// Brings all of the file system that the root lies on to the disk.
    pub(super) fn sync(&self) -> Result<()> {
        self.rooted.sync()
    }

    /// The directory at a clean path, for something to be added to it: made if it is missing.
    pub(super) fn parent(&mut self, path: &[u8]) -> Result<Rc<Parent>> {
        if let Some((known, parent)) = &self.here
            && known == path
        {
            return Ok(Rc::clone(parent));
        }
        let rooted = Rc::clone(&self.rooted);
        let folder = match self.known_route(path)? {
            Some(folder) => folder,
            None => {
                let mut maker = Maker::new(self);
                let Some(folder) = rooted.folder(path, &mut maker)? else {
                    return Err(Error::not_found(String::from_utf8_lossy(path)));
                };
                let trail = maker.into_trail();
                self.note_route(path, &folder, trail);
                folder
            }
        };
        let parent = Rc::new(self.enter(folder)?);
        self.here = Some((path.to_vec(), Rc::clone(&parent)));
        Ok(parent)
    }

    /// The directory at a clean path, if there is one. A path that leads in circles leads nowhere.
    pub(super) fn existing(&mut self, path: &[u8]) -> Result<Option<Parent>> {
        let rooted = Rc::clone(&self.rooted);
        if let Some(folder) = self.known_route(path)? {
            return self.enter(folder).map(Some);
        }
        let mut seeker = Seeker::new(self);
        let found = rooted.folder(path, &mut seeker);
        let trail = seeker.into_trail();
        match found {
            Ok(Some(folder)) => {
                if self.course.is_none() {
                    self.note_route(path, &folder, trail);
                }
                self.enter(folder).map(Some)
            }
            Ok(None) => Ok(None),
            Err(error) if is_loop(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn enter(&self, folder: Folder) -> Result<Parent> {
        let stat = self.stat(&folder)?;
        Ok(Parent::new(folder, &stat))
    }

    fn stat(&self, folder: &Folder) -> Result<Stat> {
        rustix::fs::fstat(folder).map_err(|error| self.rooted.error("open", folder.path(), error))
    }

    /// Notes what a directory looks like, before something is done in it.
    pub(super) fn touch(&mut self, parent: &Parent) -> Result<()> {
        if self.pending.contains_key(&parent.inode) {
            return Ok(());
        }
        if self.is_found {
            self.inherits |= attributes::hands_on(parent.as_fd());
        }
        let stat = self.stat(&parent.folder)?;
        let nanoseconds = u32::try_from(stat.st_mtime_nsec).unwrap_or(0);
        let mtime = Timestamp { seconds: stat.st_mtime, nanoseconds };
        self.note(parent.inode, parent.folder.path().to_vec(), stat.st_mode & 0o7777, mtime)
    }

    /// Notes what a directory is to look like in the end.
    pub(super) fn note(&mut self, inode: Inode, path: Vec<u8>, mode: u32, mtime: Timestamp) -> Result<()> {
        if self.pending.len() >= MAX_PENDING {
            self.finish_directories()?;
        }
        self.pending.insert(inode, Pending { path, mode, mtime });
        Ok(())
    }

    /// Marks a name as this layer's. Whether it was already.
    pub(super) fn mark(&mut self, parent: &Parent, name: &[u8]) -> bool {
        let hash = self.marks.hash(parent.inode, name);
        !self.marks.hashes.insert(hash)
    }

    /// Whether nothing is left in a directory that a whiteout would remove, as one of this layer found.
    pub(super) fn is_emptied(&self, directory: Inode) -> bool {
        self.marks.emptied.contains(&directory)
    }

    /// Nothing is left in a directory that a whiteout would remove.
    pub(super) fn set_emptied(&mut self, directory: Inode) {
        self.marks.emptied.insert(directory);
    }

    /// A directory that was made just now is not the one that had its inode before.
    pub(super) fn is_new(&mut self, directory: Inode) {
        self.marks.emptied.remove(&directory);
    }

    /// What was made on the way to something stays without it.
    pub(super) fn left_behind(&mut self) {
        if std::mem::take(&mut self.marks.implied) {
            self.marks.emptied.clear();
        }
    }

    /// Ends a layer: its names are no longer the newest, and its directories are what they are to be.
    pub(super) fn end_layer(&mut self) -> Result<()> {
        self.marks.clear();
        self.finish_directories()
    }

    /// The deepest first: one that locks its owner out must not be in the way of those below it.
    fn finish_directories(&mut self) -> Result<()> {
        self.here = None;
        let mut pending: Vec<(Inode, Pending)> = self.pending.drain().collect();
        pending.sort_unstable_by(|(_, a), (_, b)| b.path.cmp(&a.path));
        for (inode, directory) in pending {
            self.finish_directory(inode, &directory)?;
        }
        Ok(())
    }

    fn finish_directory(&mut self, inode: Inode, directory: &Pending) -> Result<()> {
        let rooted = Rc::clone(&self.rooted);
        // What is no longer there, or is something else by now, was removed or replaced.
        let Some(folder) = rooted.same_folder(&directory.path)? else { return Ok(()) };
        if Inode::of(&self.stat(&folder)?) != inode {
            return Ok(());
        }
        let fail = |error| rooted.error("set the attributes of", &directory.path, error);
        let opened = remove::open_listed(folder.as_fd(), b".").map_err(fail)?;
        let made = Made::new(&opened);
        made.set_mode(directory.mode).map_err(fail)?;
        made.set_times(directory.mtime).map_err(fail)?;
        if !made.has_time(directory.mtime) {
            self.timeless.push(directory.path.clone());
        }
        Ok(())
    }

    /// Directories whose time the file system did not keep, since this was asked last.
    pub(super) fn take_timeless(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.timeless)
    }

    /// Makes something in a directory, in the place of whatever is there. Says what came of it, and whether there was
    /// something.
    pub(super) fn make<T>(
        &mut self,
        parent: &Parent,
        name: &[u8],
        mut make: impl FnMut(&Folder) -> Result<T, Errno>,
    ) -> Result<(T, bool)> {
        // Links lead deeper than any path is long; what lies so deep can neither be named nor be walked to in good time.
        let length = (parent.folder.path().len() + 1 + name.len()) as u64;
        if length > self.longest {
            return Err(Error::limit(Limit::PathLength, self.longest));
        }
        self.touch(parent)?;
        if self.overlay.is_some() {
            // What is made may take the place of a link below, by which another path led on.
            self.here.take_if(|(path, here)| path != here.folder.path());
            self.changed(parent.folder.path(), Some(name));
        }
        let mut replaced = false;
        let mut unlocked = false;
        // Another process that puts something there again and again must not keep us here.
        for _ in 0..16 {
            match make(&parent.folder) {
                Ok(made) => return Ok((made, replaced)),
                Err(Errno::EXIST) => {
                    self.clear_away(parent, name)?;
                    replaced = true;
                }
                Err(Errno::ACCESS) if !unlocked => {
                    unlocked = true;
                    remove::unlock(parent.as_fd()).map_err(|error| self.error("write to", parent, name, error))?;
                }
                Err(error) => return Err(self.error("make", parent, name, error)),
            }
        }
        Err(self.error("make", parent, name, Errno::EXIST))
    }

    /// The root got another owner, so what is made in it may, too.
    pub(super) fn root_changed(&mut self) {
        self.here = None;
    }

    /// Removes what has a name, with all that is in it.
    pub(super) fn clear_away(&mut self, parent: &Parent, name: &[u8]) -> Result<()> {
        self.check_name(parent, name)?;
        self.touch(parent)?;
        self.here = None;
        self.changed(parent.folder.path(), Some(name));
        self.forget_copies(parent, Some(name))?;
        let replaced = self.marks.hash(parent.inode, name);
        remove::remove(parent.as_fd(), name, &mut Forgetting { marks: &mut self.marks, replaced })
            .map_err(|error| self.not_removed(parent, name, error))
    }

    /// Removes what lower layers have at a name, or at all names, in a directory.
    pub(super) fn hide(&mut self, parent: &Parent, name: Option<&[u8]>) -> Result<()> {
        if let Some(name) = name
            && self.folding
            && !folding::has_exactly(&parent.folder, name).unwrap_or(false)
        {
            return Ok(());
        }
        self.touch(parent)?;
        self.here = None;
        self.changed(parent.folder.path(), name);
        self.forget_copies(parent, name)?;
        let mut keeper = Marked { marks: &mut self.marks, pending: &mut self.pending, owner: self.implied_owner };
        let hidden = match name {
            Some(name) => remove::remove(parent.as_fd(), name, &mut keeper),
            None => remove::clear(parent.as_fd(), &mut keeper),
        };
        hidden.map_err(|error| self.not_removed(parent, name.unwrap_or_default(), error))
    }

    /// Forgets copies of lower files at a name, or at all names, in a directory.
    fn forget_copies(&mut self, parent: &Parent, name: Option<&[u8]>) -> Result<()> {
        if self.copies.is_empty() {
            return Ok(());
        }
        match name {
            None => self.copies.clear(),
            Some(name) => {
                if let Some(removed) = self.look(&parent.folder, name)? {
                    self.copies.forget(&removed);
                }
            }
        }
        Ok(())
    }

    /// A directory that no layer describes. It gets its attributes when the layer ends.
    pub(super) fn make_implied(&mut self, folder: &Folder, name: &[u8]) -> Result<()> {
        let parent = self.enter_again(folder)?;
        let hash = self.marks.hash(parent.inode, name);
        self.marks.hashes.remove(&hash);
        self.budget.claim_directory()?;
        self.make_directory(&parent, name)?;
        let (directory, inode) = self.open_directory(&parent, name)?;
        Made::new(&directory).set_owner(self.implied_owner).map_err(|error| self.owner_error(&parent, name, error))?;
        self.is_new(inode);
        self.marks.implied = true;
        self.note(inode, folder.join(name), IMPLIED_MODE, IMPLIED_TIME)
    }

    /// A new directory, in the place of whatever is there. Whether there was something.
    pub(super) fn make_directory(&mut self, parent: &Parent, name: &[u8]) -> Result<bool> {
        Ok(self.make(parent, name, |folder| rustix::fs::mkdirat(folder, name, Mode::RWXU))?.1)
    }

    /// A directory that was made or found, open so that its attributes can be changed.
    pub(super) fn open_directory(&mut self, parent: &Parent, name: &[u8]) -> Result<(OwnedFd, Inode)> {
        let fail = |error| match error {
            Errno::XDEV => self.rooted.mount_point(&parent.folder.join(name)),
            error => self.error("open", parent, name, error),
        };
        let directory = remove::open_listed(parent.as_fd(), name).map_err(fail)?;
        let status = DirStatus::of(&directory).map_err(fail)?;
        // The root itself may be a mount point; its name is `.` then.
        if name != b"." && status.is_mount_in(parent.inode) {
            return Err(fail(Errno::XDEV));
        }
        if self.inherits {
            Made::new(&directory).drop_inherited();
        }
        Ok((directory, status.inode))
    }

    /// What has a name in a directory, if something has.
    pub(super) fn look(&self, folder: &Folder, name: &[u8]) -> Result<Option<Stat>> {
        match rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT | Errno::NAMETOOLONG) => Ok(None),
            Err(error) => Err(self.rooted.error("look at", &folder.join(name), error)),
        }
    }

    /// Fails where the file system takes the name for another one that is there.
    pub(super) fn check_name(&self, parent: &Parent, name: &[u8]) -> Result<()> {
        if self.folding { folding::check(&self.rooted, &parent.folder, name) } else { Ok(()) }
    }

    pub(super) fn check_entered(&self, folder: &Folder, name: &[u8]) -> Result<()> {
        if self.folding { self.check_name(&self.enter_again(folder)?, name) } else { Ok(()) }
    }

    pub(super) fn error(&self, what: &str, parent: &Parent, name: &[u8], error: Errno) -> Error {
        self.rooted.error(what, &parent.folder.join(name), error)
    }

    fn not_removed(&self, parent: &Parent, name: &[u8], error: NotRemoved) -> Error {
        error.into_error(&self.rooted.outside(parent.folder.path()), name)
    }

    /// An error of changing an owner, with the remedy.
    pub(super) fn owner_error(&self, parent: &Parent, name: &[u8], error: Errno) -> Error {
        self.rooted.io_error("change the owner of", &parent.folder.join(name), attributes::owner_refused(error))
    }

    pub(super) fn enter_again(&self, folder: &Folder) -> Result<Parent> {
        let fd = rustix::fs::openat(folder, ".", OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
        let fd = fd.map_err(|error| self.rooted.error("open", folder.path(), error))?;
        let folder = folder.with_fd(fd);
        self.enter(folder)
    }
}

fn is_loop(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Io { source, .. } if source.raw_os_error() == Some(Errno::LOOP.raw_os_error()))
}

/// Keeps nothing, and forgets whose it was; but for what is replaced, whose name stays this layer's.
struct Forgetting<'a> {
    marks: &'a mut Marks,
    replaced: u64,
}

impl Keeper for Forgetting<'_> {
    fn keeps(&mut self, directory: Inode, name: &[u8]) -> bool {
        let hash = self.marks.hash(directory, name);
        if hash != self.replaced {
            self.marks.hashes.remove(&hash);
        }
        false
    }

    fn remains(&mut self, _: BorrowedFd<'_>) -> Result<(), Errno> {
        Ok(())
    }
}

/// Keeps what this layer made.
struct Marked<'a> {
    marks: &'a mut Marks,
    pending: &'a mut HashMap<Inode, Pending>,
    owner: Owner,
}

impl Keeper for Marked<'_> {
    fn keeps(&mut self, directory: Inode, name: &[u8]) -> bool {
        self.marks.hashes.contains(&self.marks.hash(directory, name))
    }

    fn is_done(&self, directory: Inode) -> bool {
        self.marks.emptied.contains(&directory)
    }

    /// From now on, only this layer puts something there.
    fn done(&mut self, directory: Inode) {
        self.marks.emptied.insert(directory);
    }

    /// As if the lower layer's had been removed, and this one made again for what is in it: whichever came first.
    fn remains(&mut self, directory: BorrowedFd<'_>) -> Result<(), Errno> {
        let made = Made::path_only(&directory);
        made.keep_xattrs(&[]);
        made.set_owner(self.owner)?;
        match self.pending.get_mut(&Inode::of(&rustix::fs::fstat(directory)?)) {
            Some(pending) => {
                pending.mode = IMPLIED_MODE;
                pending.mtime = IMPLIED_TIME;
                Ok(())
            }
            None => {
                made.set_mode(IMPLIED_MODE)?;
                made.set_times(IMPLIED_TIME)
            }
        }
    }
}
