//! Names of entries: where they lie, and which of them remove something instead of adding it (image-spec, layer.md,
//! "Whiteouts").

use crate::changeset::tape::invalid;
use crate::error::Error;
use crate::error::Limit;
use crate::error::Result;
use crate::error::printable;

const PREFIX: &[u8] = b".wh.";
/// AUFS kept its own things under such names.
const META_PREFIX: &[u8] = b".wh..wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Where AUFS kept files that have several names: entries may be hard links to what lies here.
pub(crate) const LINKS: &[u8] = b".wh..wh.plnk";
/// Where it kept files that were open and had no name.
const ORPHANS: &[u8] = b".wh..wh.orph/";

/// What the name of an entry says that it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// It adds something, or changes it.
    Addition,
    /// It hides what lower layers have at this path, which is the entry's own without `.wh.`.
    Whiteout,
    /// It hides what lower layers have in this directory.
    Opaque,
    /// It means nothing.
    Metadata,
}

/// The path of a thing below the root: components without `.`, `..` and empty ones, joined with `/`. The root's is
/// empty.
///
/// What leads upwards is clamped at the root, as it is there.
pub(crate) fn clean(path: &[u8]) -> Vec<u8> {
    let mut clean = Vec::with_capacity(path.len());
    for component in path.split(|byte| *byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." => clean.truncate(split(&clean).0.len()),
            name => {
                if !clean.is_empty() {
                    clean.push(b'/');
                }
                clean.extend_from_slice(name);
            }
        }
    }
    clean
}

/// A clean path's parent and its last component; both are empty for the root.
pub(crate) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (&[], path),
    }
}

/// A clean path below another.
pub(crate) fn join(parent: &[u8], name: &[u8]) -> Vec<u8> {
    if parent.is_empty() { name.to_vec() } else { [parent, b"/", name].concat() }
}

/// Cleans an entry's name, and says what it is for and what it is about. Only the last component counts.
pub(crate) fn purpose(path: &[u8], longest: u64) -> Result<(Purpose, Vec<u8>)> {
    if path.len() as u64 > longest {
        return Err(Error::limit(Limit::PathLength, longest));
    }
    let path = clean(path);
    if path.starts_with(ORPHANS) {
        return Ok((Purpose::Metadata, path));
    }
    let (parent, name) = split(&path);
    let Some(hidden) = name.strip_prefix(PREFIX) else { return Ok((Purpose::Addition, path)) };
    match hidden {
        // They would be the directory that it lies in, and the one above.
        b"" | b"." | b".." => invalid("a whiteout names nothing"),
        _ if name == OPAQUE => Ok((Purpose::Opaque, parent.to_vec())),
        _ if name.starts_with(META_PREFIX) => Ok((Purpose::Metadata, path)),
        _ => Ok((Purpose::Whiteout, join(parent, hidden))),
    }
}

/// What readers, our own among them, take at most; programs inside of a tree can make longer ones.
const LONGEST: usize = 4095;

/// Fails if nothing in a layer can have this clean path.
pub(crate) fn check_stored(path: &[u8]) -> Result<()> {
    if path.len() > LONGEST {
        return Err(Error::limit(Limit::PathLength, LONGEST as u64));
    }
    if !split(path).1.starts_with(PREFIX) {
        return Ok(());
    }
    let path = printable(&String::from_utf8_lossy(path), 4096);
    Err(Error::invalid_input(format!("{path}: in a layer, names that start with .wh. are those of whiteouts")))
}

/// The entry that hides what lower layers have at this clean path.
pub(crate) fn hiding(path: &[u8]) -> Vec<u8> {
    let (parent, name) = split(path);
    join(parent, &[PREFIX, name].concat())
}

/// The entry that hides what lower layers have in this directory.
pub(crate) fn hiding_all_in(path: &[u8]) -> Vec<u8> {
    join(path, OPAQUE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned_and_clamped() {
        for (path, expected) in [
            ("./", ""),
            ("", ""),
            ("/", ""),
            ("..", ""),
            ("../../etc/passwd", "etc/passwd"),
            ("/etc//./passwd/", "etc/passwd"),
            ("a/b/../../../c", "c"),
            ("dne/../x", "x"),
            ("...", "..."),
        ] {
            assert_eq!(clean(path.as_bytes()), expected.as_bytes(), "{path:?}");
        }
    }

    /// L5, L6, and the name that a prefix test takes for the opaque one.
    #[test]
    fn only_the_last_component_counts() {
        let purpose = |path: &str| super::purpose(path.as_bytes(), 100).ok();
        let of = |purpose, path: &str| Some((purpose, path.as_bytes().to_vec()));
        assert_eq!(purpose("a/.wh.b"), of(Purpose::Whiteout, "a/b"));
        assert_eq!(purpose("dne/../.wh.etc/"), of(Purpose::Whiteout, "etc"));
        assert_eq!(purpose("a/.wh..wh..opq"), of(Purpose::Opaque, "a"));
        assert_eq!(purpose(".wh..wh..opq"), of(Purpose::Opaque, ""));
        assert_eq!(purpose("a/.wh..wh..opqX"), of(Purpose::Metadata, "a/.wh..wh..opqX"));
        assert_eq!(purpose(".wh.etc/passwd"), of(Purpose::Addition, ".wh.etc/passwd"));
        assert_eq!(purpose(".wh.a.wh.b"), of(Purpose::Whiteout, "a.wh.b"));
        for refused in [".wh.", "a/.wh.", ".wh..", "a/.wh...", ".wh.../"] {
            assert_eq!(purpose(refused), None, "{refused:?}");
        }
    }
}
