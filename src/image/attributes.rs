//! The attributes of a node, as far as they tell two nodes apart, and the extended attributes of directories.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::rc::Rc;
use std::rc::Weak;

use crate::changeset::Entry;
use crate::changeset::EntryKind;
use crate::changeset::Timestamp;
use crate::changeset::captured;
use crate::digest::Algorithm;
use crate::digest::Digest;
use crate::digest::Hasher;
use crate::error::Error;
use crate::error::Result;
use crate::memory::MemoryBudget;
use crate::memory::MemoryReservation;
use crate::memory::allocated;

/// The bytes of an element of the map of lists.
const LIST_BYTES: usize = 2 * (size_of::<Digest>() + size_of::<Weak<XattrList>>());

/// Attributes as a tree has them that the layers were unpacked to (C3). Of equal ones, all that counts is equal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Attributes {
    seconds: i64,
    nanoseconds: u32,
    uid: u32,
    gid: u32,
    mode: u16,
    /// The digest of the extended attributes that count, which may be long.
    xattrs: Option<Box<Digest>>,
}

impl Attributes {
    /// Those of a directory that no layer describes (L11).
    pub(super) fn implied() -> Attributes {
        Attributes { seconds: 0, nanoseconds: 0, uid: 0, gid: 0, mode: 0o755, xattrs: None }
    }

    /// Those of an entry. The time of a directory does not count and is that of 1970.
    pub(super) fn of(entry: &Entry<'_>) -> Attributes {
        let Timestamp { seconds, nanoseconds } = match entry.kind() {
            EntryKind::Directory => Timestamp::default(),
            _ => entry.modified(),
        };
        let mode = match entry.kind() {
            // Linux knows no other mode of symbolic links.
            EntryKind::Symlink { .. } => 0o777,
            _ => u16::try_from(entry.mode()).expect("a mode has twelve bits"),
        };
        let (uid, gid, xattrs) = (entry.uid(), entry.gid(), xattrs(entry).map(Box::new));
        Attributes { seconds, nanoseconds, uid, gid, mode, xattrs }
    }

    pub(super) fn mode(&self) -> u32 {
        self.mode.into()
    }

    pub(super) fn owner(&self) -> (u32, u32) {
        (self.uid, self.gid)
    }

    /// Whether the time of change is a whole second.
    pub(super) fn is_coarse(&self) -> bool {
        self.nanoseconds == 0
    }

    /// The bytes that they have on the heap.
    pub(super) fn heap_bytes(&self) -> usize {
        self.xattrs.as_ref().map_or(0, |_| allocated(size_of::<Digest>()))
    }
}

fn xattrs(entry: &Entry<'_>) -> Option<Digest> {
    // Nothing else can have users' attributes (xattr(7)).
    let may_have_users = matches!(entry.kind(), EntryKind::File | EntryKind::Directory);
    let can_be = |name: &OsStr| may_have_users || !name.as_bytes().starts_with(b"user.");
    let found = entry.xattrs().filter(|(name, _)| can_be(name));
    let mut counted: Vec<_> = found.filter_map(|(name, value)| captured(name.as_bytes(), value)).collect();
    counted.sort_unstable();
    (!counted.is_empty()).then(|| digest(counted.iter().map(|(name, value)| (&name[..], &value[..]))))
}

fn digest<'a>(xattrs: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Digest {
    let mut hasher = Hasher::new(Algorithm::Sha256);
    for text in xattrs.flat_map(|(name, value)| [name, value]) {
        hasher.update(&(text.len() as u64).to_le_bytes());
        hasher.update(text);
    }
    hasher.finish()
}

/// The extended attributes of directories as their entries have them.
#[derive(Debug)]
pub(super) struct XattrList {
    pub(super) list: Vec<(Vec<u8>, Vec<u8>)>,
    _memory: MemoryReservation,
}

/// The lists that are in use. Directories with equal ones share them.
#[derive(Debug)]
pub(super) struct XattrLists {
    lists: HashMap<Digest, Weak<XattrList>>,
    /// The number of lists at which those that are no longer used are removed.
    next_cleaning: usize,
    memory: MemoryReservation,
}

impl XattrLists {
    pub(super) fn new(budget: &MemoryBudget) -> XattrLists {
        XattrLists { lists: HashMap::new(), next_cleaning: 64, memory: budget.reservation() }
    }

    /// The list of an entry; none if it is empty.
    ///
    /// # Errors
    ///
    /// A name that a record of a tar cannot have, because it contains a `=`.
    pub(super) fn list_of(&mut self, entry: &Entry<'_>) -> Result<Option<Rc<XattrList>>> {
        if entry.xattrs().next().is_none() {
            return Ok(None);
        }
        entry.xattrs().try_for_each(|(name, _)| check_name(name))?;
        let digest = digest(entry.xattrs().map(|(name, value)| (name.as_bytes(), value)));
        if let Some(list) = self.lists.get(&digest).and_then(Weak::upgrade) {
            return Ok(Some(list));
        }
        self.clean();
        let mut memory = self.memory.budget().reservation();
        let element = |(name, value): (&OsStr, &[u8])| {
            let bytes = size_of::<(Vec<u8>, Vec<u8>)>() + allocated(name.len()) + allocated(value.len());
            memory.grow(bytes)?;
            Ok((name.as_bytes().to_vec(), value.to_vec()))
        };
        let list = entry.xattrs().map(element).collect::<Result<Vec<_>>>()?;
        let list = Rc::new(XattrList { list, _memory: memory });
        self.memory.grow(LIST_BYTES)?;
        self.lists.insert(digest, Rc::downgrade(&list));
        Ok(Some(list))
    }

    fn clean(&mut self) {
        if self.lists.len() < self.next_cleaning {
            return;
        }
        let before = self.lists.len();
        self.lists.retain(|_, list| list.strong_count() > 0);
        self.memory.shrink((before - self.lists.len()) * LIST_BYTES);
        self.next_cleaning = (2 * self.lists.len()).max(64);
    }
}

/// Fails if a record of a tar cannot have an attribute's name: a record's key ends at the first `=`.
pub(super) fn check_name(name: &OsStr) -> Result<()> {
    if name.as_bytes().contains(&b'=') {
        return Err(Error::invalid_input(format!("no layer that is made here can have the attribute {name:?}")));
    }
    Ok(())
}
