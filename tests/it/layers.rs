//! What layers do to a directory.
