//! Whether two things of one name differ (C3).

use std::io::Read;

use rustix::fs::FileType;
use rustix::fs::Stat;

use super::CompareContent;
use crate::changeset::capture::Xattrs;
use crate::error::Error;
use crate::error::Result;
use crate::fs::descent::Descent;
use crate::fs::rooted::Inode;

const PIECE: usize = 64 << 10;

/// What has one name in both trees.
pub(super) struct Pair<'a> {
    pub(super) name: &'a [u8],
    pub(super) old: (&'a Descent, &'a Stat),
    pub(super) new: (&'a Descent, &'a Stat),
}

impl Pair<'_> {
    pub(super) fn differs(&self, content: CompareContent) -> Result<bool> {
        let (old, new) = (self.old.1, self.new.1);
        let kind = FileType::from_raw_mode(new.st_mode);
        if old.st_mode != new.st_mode || old.st_uid != new.st_uid || old.st_gid != new.st_gid {
            return Ok(true);
        }
        if !kind.is_dir() && times(old) != times(new) {
            return Ok(true);
        }
        Ok(self.xattrs_differ()? || self.substance_differs(kind, content)?)
    }

    fn xattrs_differ(&self) -> Result<bool> {
        let (old, new) = (Xattrs::of(self.old.0, self.name)?, Xattrs::of(self.new.0, self.name)?);
        Ok(old.stored != new.stored)
    }

    /// What only some types have.
    fn substance_differs(&self, kind: FileType, content: CompareContent) -> Result<bool> {
        let (old, new) = (self.old.1, self.new.1);
        match kind {
            FileType::CharacterDevice | FileType::BlockDevice => Ok(old.st_rdev != new.st_rdev),
            FileType::Symlink => Ok(self.old.0.link(self.name)? != self.new.0.link(self.name)?),
            FileType::RegularFile if old.st_size != new.st_size => Ok(true),
            FileType::RegularFile if Inode::of(old) == Inode::of(new) => Ok(false),
            FileType::RegularFile => {
                let is_coarse = times(old).1 == 0 && times(new).1 == 0;
                Ok((is_coarse || content == CompareContent::Always) && self.content_differs()?)
            }
            _ => Ok(false),
        }
    }

    fn content_differs(&self) -> Result<bool> {
        let (mut old, _) = self.old.0.file(self.name, self.old.1)?;
        let (mut new, _) = self.new.0.file(self.name, self.new.1)?;
        let (mut a, mut b) = (Vec::with_capacity(PIECE), Vec::with_capacity(PIECE));
        loop {
            piece(&mut old, &mut a).map_err(|error| Error::io("read", &self.old.0.outside(self.name), error))?;
            piece(&mut new, &mut b).map_err(|error| Error::io("read", &self.new.0.outside(self.name), error))?;
            if a != b || a.is_empty() {
                return Ok(a != b);
            }
        }
    }
}

fn piece(file: &mut impl Read, buffer: &mut Vec<u8>) -> std::io::Result<usize> {
    buffer.clear();
    file.take(PIECE as u64).read_to_end(buffer)
}

fn times(stat: &Stat) -> (i64, u64) {
    (stat.st_mtime, stat.st_mtime_nsec)
}
