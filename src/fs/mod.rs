//! Files and directories of a store, without trusting what lies there.
//!
//! [`Dir`](dir::Dir) is an open directory; everything below it is reached from it by one plain name at a time,
//! without following a symbolic link. [`atomic`] replaces a file so that readers see the old or the new one.
//! [`Lock`](lock::Lock) keeps other processes and threads out, and dies with its holder.
//!
//! [`Aside`](aside::Aside) builds a new directory out of reach of other users, and [`parents`] makes what is missing above
//! it. [`mount`] tells mount points, which no operation crosses.
//!
//! [`trust`] decides whether another user of the machine could have changed what is read.
//!
//! A root file system is trusted even less: [`Rooted`](rooted::Rooted) leads to a directory below a root without ever
//! leaving it, and [`remove`] removes trees.

pub(crate) mod aside;
pub(crate) mod atomic;
pub(crate) mod copy;
pub(crate) mod descent;
pub(crate) mod dir;
pub(crate) mod disk_usage;
pub(crate) mod lock;
pub(crate) mod mount;
pub(crate) mod parents;
pub(crate) mod remove;
pub(crate) mod rooted;
pub(crate) mod trust;

use std::ffi::OsStr;
use std::hash::BuildHasher;
use std::hash::RandomState;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use percent_encoding::AsciiSet;
use percent_encoding::NON_ALPHANUMERIC;
use percent_encoding::percent_decode_str;
use percent_encoding::percent_encode;
use rustix::rand::GetRandomFlags;

/// A name that no other user can guess: 128 random bits, as 32 hexadecimal digits.
pub(crate) fn random_name() -> String {
    let mut bytes = [0; 16];
    if rustix::rand::getrandom(&mut bytes, GetRandomFlags::empty()) != Ok(bytes.len()) {
        // A sandbox without the call: the standard library keys its hashers from another source.
        for half in bytes.chunks_exact_mut(8) {
            half.copy_from_slice(&RandomState::new().hash_one(0).to_ne_bytes());
        }
    }
    format!("{:032x}", u128::from_ne_bytes(bytes))
}

/// A path of bytes, as layers have it, to be shown or given away.
pub(crate) fn to_path(path: &[u8]) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(path))
}

/// A path as it stands in documents, which are text: percent-encoded, as paths are bytes.
pub(crate) fn path_to_text(path: &[u8]) -> String {
    const KEPT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'.').remove(b'-').remove(b'_');
    percent_encode(path, KEPT).to_string()
}

/// The path that stands in a document.
pub(crate) fn path_of_text(text: &str) -> Vec<u8> {
    percent_decode_str(text).collect()
}
