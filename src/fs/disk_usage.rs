//! Counts the disk space of a tree as `du` does. Used for quotas and reports of unpacked layers.

use std::collections::HashSet;

use rustix::fs::FileType;
use rustix::fs::Stat;

use crate::error::Result;
use crate::fs::descent::Descent;
use crate::fs::dir::Dir;
use crate::fs::rooted::Inode;

/// Size of the blocks that `stat` counts (stat(2)).
const BLOCK: u64 = 512;

/// Returns the bytes that are allocated for a directory and everything below it: holes take nothing, a file with several
/// names counts once. Directories that this user may not read, and other file systems mounted there, count as empty.
pub(crate) fn allocated(root: Dir) -> Result<u64> {
    let (stat, path) = (root.own_stat()?, root.path().to_owned());
    let mut tree = Descent::of(root.into(), &path)?;
    let mut linked = HashSet::new();
    let mut bytes = blocks(&stat);
    let mut levels = vec![tree.list()?.into_iter()];
    while let Some(level) = levels.last_mut() {
        let Some((name, found)) = level.next() else {
            tree.leave()?;
            levels.pop();
            continue;
        };
        if found.st_dev != stat.st_dev {
            continue;
        }
        let is_dir = FileType::from_raw_mode(found.st_mode).is_dir();
        if is_dir || found.st_nlink == 1 || linked.insert(Inode::of(&found)) {
            bytes = bytes.saturating_add(blocks(&found));
        }
        if is_dir && tree.enter(&name).is_ok() {
            match tree.list() {
                Ok(list) => levels.push(list.into_iter()),
                Err(_) => tree.leave()?,
            }
        }
    }
    Ok(bytes)
}

fn blocks(stat: &Stat) -> u64 {
    u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(BLOCK)
}
