//! Files and directories of a store, without trusting what lies there.
//!
//! [`Dir`](dir::Dir) is an open directory; everything below it is reached from it by one plain name at a time,
//! without following a symbolic link. [`atomic`] replaces a file so that readers see the old or the new one.
//! [`Lock`](lock::Lock) keeps other processes and threads out, and dies with its holder.

pub(crate) mod atomic;
pub(crate) mod dir;
pub(crate) mod lock;
