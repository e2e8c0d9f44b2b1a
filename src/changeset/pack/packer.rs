//! From a tree to the entries of a layer.

use std::collections::HashMap;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::vec::IntoIter;

use rustix::fs::FileType;
use rustix::fs::Stat;
use tar::EntryType;

use super::PackOptions;
use super::header::Fields;
use super::writer::Output;
use crate::changeset::capture::Xattrs;
use crate::changeset::changes::Change;
use crate::changeset::changes::ChangeKind;
use crate::changeset::report::Skipped;
use crate::changeset::report::SkippedPart;
use crate::changeset::report::to_path;
use crate::changeset::whiteout::check_stored;
use crate::changeset::whiteout::clean;
use crate::changeset::whiteout::hiding;
use crate::changeset::whiteout::hiding_all_in;
use crate::changeset::whiteout::split;
use crate::error::Error;
use crate::error::Result;
use crate::error::printable;
use crate::fs::descent::Descent;
use crate::fs::descent::listing_bytes;
use crate::fs::mount::mounts_below;
use crate::fs::rooted::Inode;
use crate::memory::MemoryReservation;
use crate::memory::allocated;

const PIECE: usize = 128 << 10;

/// The names ahead in a directory, with their memory.
type Level = (IntoIter<(Vec<u8>, Stat)>, MemoryReservation);

pub(super) struct Packer<'a, O> {
    pub(super) tree: Descent,
    pub(super) skipped: Vec<Skipped>,
    options: &'a PackOptions,
    output: O,
    /// The first name of each file that has several.
    names: HashMap<Inode, Vec<u8>>,
    /// The memory of the names and of what was skipped.
    memory: MemoryReservation,
    /// The last directory that has an entry.
    directory: Vec<u8>,
    piece: Vec<u8>,
}

impl<O: Output> Packer<'_, O> {
    pub(super) fn new<'a>(tree: Descent, output: O, options: &'a PackOptions) -> Packer<'a, O> {
        let memory = options.limits.memory();
        Packer {
            tree: tree.within(&memory),
            skipped: Vec::new(),
            options,
            output,
            names: HashMap::new(),
            memory: memory.reservation(),
            directory: Vec::new(),
            piece: vec![0; PIECE],
        }
    }

    /// What took the entries, and what could not be one.
    pub(super) fn into_parts(self) -> (O, Vec<Skipped>) {
        (self.output, self.skipped)
    }

    /// Adds all that is in the tree, but for mount points, which are reported.
    pub(super) fn all(&mut self) -> Result<()> {
        let mounts = mounts_below(self.tree.fd());
        self.skipped.extend(mounts.iter().map(|path| Skipped::mount_point(path)));
        let mut levels = vec![self.level()?];
        while let Some((level, _)) = levels.last_mut() {
            let Some((name, stat)) = level.next() else {
                self.tree.leave()?;
                levels.pop();
                continue;
            };
            if !mounts.is_empty() && mounts.contains(&self.tree.join(&name)) {
                continue;
            }
            self.entry(&name, &stat)?;
            if FileType::from_raw_mode(stat.st_mode).is_dir() {
                self.tree.enter(&name)?;
                levels.push(self.level()?);
            }
        }
        Ok(())
    }

    /// The names in the directory at hand, with their memory.
    fn level(&self) -> Result<Level> {
        let list = self.tree.list()?;
        let mut memory = self.memory.budget().reservation();
        memory.grow(listing_bytes(&list))?;
        Ok((list.into_iter(), memory))
    }

    /// Adds what a change says, and the directories above it that have no entry yet.
    pub(super) fn change(&mut self, change: &Change) -> Result<()> {
        let path = change.path.as_os_str().as_bytes();
        if path.is_empty() || clean(path) != path {
            let path = printable(&change.path.to_string_lossy(), 4096);
            return Err(Error::invalid_input(format!("{path:?} is no path of a thing below the root")));
        }
        let (parent, name) = split(path);
        self.go_to(parent)?;
        if change.kind == ChangeKind::Deleted {
            check_stored(path)?;
            return self.whiteout(hiding(path));
        }
        let stat = self.look(name)?;
        self.entry(name, &stat)?;
        if change.is_opaque {
            self.whiteout(hiding_all_in(path))?;
        }
        Ok(())
    }

    /// Goes to a directory, on a way that is as short as can be.
    fn go_to(&mut self, path: &[u8]) -> Result<()> {
        while !leads_to(self.tree.path(), path) {
            self.tree.leave()?;
        }
        let rest = path[self.tree.path().len()..].to_vec();
        for name in rest.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
            if self.directory != self.tree.join(name) {
                let stat = self.look(name)?;
                self.entry(name, &stat)?;
            }
            self.tree.enter(name)?;
        }
        Ok(())
    }

    /// Adds what has a name in the directory at hand, which must be there.
    pub(super) fn named(&mut self, name: &[u8]) -> Result<()> {
        let stat = self.look(name)?;
        self.entry(name, &stat)
    }

    fn look(&self, name: &[u8]) -> Result<Stat> {
        self.tree.look(name)?.ok_or_else(|| self.tree.error("look at", name, rustix::io::Errno::NOENT))
    }

    /// Adds what has a name in the directory at hand.
    pub(super) fn entry(&mut self, name: &[u8], stat: &Stat) -> Result<()> {
        self.options.cancel.check()?;
        let path = self.tree.join(name);
        check_stored(&path)?;
        self.add(name, path, stat)
    }

    fn add(&mut self, name: &[u8], path: Vec<u8>, stat: &Stat) -> Result<()> {
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind == FileType::Socket {
            return self.skip(&path, SkippedPart::Entry, "sockets are not stored");
        }
        let mut fields = Fields::new(entry_type(kind), path);
        if stat.st_nlink > 1 && kind != FileType::Directory {
            if let Some(first) = self.names.get(&Inode::of(stat)) {
                fields.link.clone_from(first);
                fields.kind = EntryType::Link;
            } else {
                self.memory.grow(2 * size_of::<(Inode, Vec<u8>)>() + allocated(fields.path.len()))?;
                self.names.insert(Inode::of(stat), fields.path.clone());
            }
        }
        if kind == FileType::RegularFile && fields.kind != EntryType::Link {
            return self.file(name, fields, stat);
        }
        match kind {
            FileType::Directory => {
                self.directory.clone_from(&fields.path);
                fields.path.push(b'/');
            }
            FileType::Symlink if fields.kind != EntryType::Link => fields.link = self.tree.link(name)?,
            FileType::CharacterDevice | FileType::BlockDevice if fields.kind != EntryType::Link => {
                fields.device = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
            }
            _ => {}
        }
        self.header(name, fields, stat)
    }

    /// Adds a file with its content, which must not change meanwhile.
    fn file(&mut self, name: &[u8], mut fields: Fields, seen: &Stat) -> Result<()> {
        let (mut file, stat) = self.tree.file(name, seen)?;
        fields.size = u64::try_from(stat.st_size).unwrap_or(0);
        let mut left = fields.size;
        self.header(name, fields, &stat)?;
        while left > 0 {
            self.options.cancel.check()?;
            let most = usize::try_from(left).map_or(PIECE, |left| left.min(PIECE));
            let mut piece = std::mem::take(&mut self.piece);
            let count = retried(|| file.read(&mut piece[..most]));
            let count = count.map_err(|error| Error::io("read", &self.tree.outside(name), error))?;
            if count == 0 {
                return Err(self.tree.changed(name, "shrank"));
            }
            self.output.write(&piece[..count])?;
            self.piece = piece;
            left -= count as u64;
        }
        let after = rustix::fs::fstat(&file).map_err(|error| self.tree.error("look at", name, error))?;
        if after.st_size > stat.st_size {
            return Err(self.tree.changed(name, "grew"));
        }
        if after.st_mtime != stat.st_mtime || after.st_mtime_nsec != stat.st_mtime_nsec {
            return Err(self.tree.changed(name, "was written to"));
        }
        self.output.pad()
    }

    fn header(&mut self, name: &[u8], mut fields: Fields, stat: &Stat) -> Result<()> {
        fields.mode = self.options.mode_of(stat);
        fields.owner = self.options.owners.owner(stat.st_uid, stat.st_gid)?;
        fields.seconds = self.options.epoch.map_or(stat.st_mtime, |epoch| stat.st_mtime.min(epoch));
        if fields.kind != EntryType::Link {
            let xattrs = Xattrs::of(&self.tree, name)?;
            fields.xattrs = xattrs.stored;
            for left_out in xattrs.left_out {
                let what = SkippedPart::Xattr(String::from_utf8_lossy(&left_out).into_owned());
                self.skip(&self.tree.join(name), what, "its name cannot be stored")?;
            }
        }
        self.output.put(fields)
    }

    fn whiteout(&mut self, path: Vec<u8>) -> Result<()> {
        self.output.put(Fields::new(EntryType::Regular, path))
    }

    fn skip(&mut self, path: &[u8], what: SkippedPart, reason: &str) -> Result<()> {
        let skipped = Skipped { path: to_path(path), what, reason: reason.to_owned() };
        self.memory.grow(usize::try_from(skipped.bytes()).unwrap_or(usize::MAX))?;
        self.skipped.push(skipped);
        Ok(())
    }
}

/// Whether a clean path is another's, or one of its parents'.
fn leads_to(parent: &[u8], path: &[u8]) -> bool {
    parent.is_empty() || path.strip_prefix(parent).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
}

fn entry_type(kind: FileType) -> EntryType {
    match kind {
        FileType::Directory => EntryType::Directory,
        FileType::Symlink => EntryType::Symlink,
        FileType::CharacterDevice => EntryType::Char,
        FileType::BlockDevice => EntryType::Block,
        FileType::Fifo => EntryType::Fifo,
        _ => EntryType::Regular,
    }
}

fn retried<T>(mut call: impl FnMut() -> std::io::Result<T>) -> std::io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}
