//! Extended attributes as layers have them: read from a tree, without what belongs to the host.

use rustix::io::Errno;

use crate::changeset::attributes::is_hosts;
use crate::changeset::attributes::is_overlays;
use crate::changeset::tape::has_gnu_code;
use crate::error::Result;
use crate::fs::descent::Descent;
use crate::fs::remove::handle;

const CAPABILITY: &[u8] = b"security.capability";
/// Of the revision that says in which user namespace it holds (capabilities(7)).
const REVISION_3: u32 = 0x0300_0000;
const REVISION_2: u32 = 0x0200_0000;
const REVISION_MASK: u32 = 0xff00_0000;
const SIZE_3: usize = 24;
const SIZE_2: usize = 20;

/// The attributes of something, sorted by name.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Xattrs {
    pub(super) stored: Vec<(Vec<u8>, Vec<u8>)>,
    /// Those whose names an extended header cannot hold.
    pub(super) left_out: Vec<Vec<u8>>,
}

impl Xattrs {
    /// Those of `name` in a directory; symbolic links are not followed.
    pub(super) fn of(descent: &Descent, name: &[u8]) -> Result<Xattrs> {
        let path = [handle(descent.fd()).as_bytes(), b"/", name].concat();
        let read = || {
            let mut xattrs = Xattrs::default();
            for name in names(&path)? {
                xattrs.take(&path, name)?;
            }
            xattrs.stored.sort_unstable();
            Ok(xattrs)
        };
        read().map_err(|error| descent.error("read the attributes of", name, error))
    }

    fn take(&mut self, path: &[u8], name: Vec<u8>) -> Result<(), Errno> {
        if is_hosts(&name) || is_overlays(&name) {
            return Ok(());
        }
        if !is_storable(&name) {
            self.left_out.push(name);
            return Ok(());
        }
        match value(path, &name) {
            Ok(value) if name == CAPABILITY => self.stored.push((name, without_namespace(value))),
            Ok(value) => self.stored.push((name, value)),
            Err(Errno::NODATA) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

/// Whether a record can hold the name: its key ends at the first `=`, and readers must not take it for another name.
fn is_storable(name: &[u8]) -> bool {
    !name.contains(&b'=') && !has_gnu_code(name)
}

/// An attribute of an entry as it would be read from a tree that the layer was applied to, if it would.
pub(crate) fn captured(name: &[u8], value: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    if is_hosts(name) || is_overlays(name) || !is_storable(name) {
        return None;
    }
    let value = if name == CAPABILITY { without_namespace(value.to_vec()) } else { value.to_vec() };
    Some((name.to_vec(), value))
}

fn names(path: &[u8]) -> Result<Vec<Vec<u8>>, Errno> {
    let list = match whole(|buffer| rustix::fs::llistxattr(path, buffer)) {
        Err(Errno::NOTSUP) => return Ok(Vec::new()),
        list => list?,
    };
    Ok(list.split(|byte| *byte == 0).filter(|name| !name.is_empty()).map(<[u8]>::to_vec).collect())
}

fn value(path: &[u8], name: &[u8]) -> Result<Vec<u8>, Errno> {
    whole(|buffer| rustix::fs::lgetxattr(path, name, buffer))
}

/// Reads into a buffer that grows until all fits; the kernel has nothing that is larger than 64 KiB.
fn whole(read: impl Fn(&mut [u8]) -> Result<usize, Errno>) -> Result<Vec<u8>, Errno> {
    let mut buffer = vec![0; 256];
    loop {
        match read(&mut buffer[..]) {
            Ok(length) => {
                buffer.truncate(length);
                return Ok(buffer);
            }
            Err(Errno::RANGE) if buffer.len() < 1 << 20 => buffer.resize(buffer.len() * 16, 0),
            Err(error) => return Err(error),
        }
    }
}

/// L17: the id of the namespace's root is the host's business.
fn without_namespace(mut value: Vec<u8>) -> Vec<u8> {
    let revision = value.first_chunk::<4>().map_or(0, |first| u32::from_le_bytes(*first));
    if value.len() == SIZE_3 && revision & REVISION_MASK == REVISION_3 {
        value.truncate(SIZE_2);
        value[..4].copy_from_slice(&(revision & !REVISION_MASK | REVISION_2).to_le_bytes());
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_lose_their_namespace() {
        let with = |first: u32, more: &[u8]| [&first.to_le_bytes(), more].concat();
        let three = with(0x0300_0001, &[[7; 16].as_slice(), &1000_u32.to_le_bytes()].concat());
        let two = with(0x0200_0001, &[7; 16]);
        assert_eq!(without_namespace(three), two);
        assert_eq!(without_namespace(two.clone()), two);
        assert!(without_namespace(Vec::new()).is_empty());
    }
}
