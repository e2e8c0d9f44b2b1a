//! How errors read.

use std::fmt;

use super::ErrorKind;

use crate::digest::Digest;
use crate::platform::Platform;

/// How many platforms a message lists.
const MAX_PLATFORMS: usize = 20;

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ErrorKind::InvalidReference(error) => error.fmt(f),
            ErrorKind::InvalidDigest(error) => error.fmt(f),
            ErrorKind::InvalidPlatform(error) => error.fmt(f),
            ErrorKind::InvalidInput(reason) => f.write_str(reason),
            ErrorKind::Io { what, source } => write!(f, "{what}: {source}"),
            ErrorKind::StorageFull { path, needed, available } => {
                write!(f, "{}: no space left", path.display())?;
                needed.map_or(Ok(()), |needed| write!(f, ": {needed} bytes are needed"))?;
                available.map_or(Ok(()), |available| write!(f, ", {available} are there"))
            }
            ErrorKind::ReadOnly { path } => write!(f, "{}: cannot be written", path.display()),
            ErrorKind::Locked { path, waited, holder } => {
                let holder = holder.map_or_else(|| "another process".to_owned(), |holder| holder.to_string());
                write!(f, "{}: still locked after {waited:.0?} by {holder}", path.display())
            }
            ErrorKind::NameMoved { name, expected, found } => {
                write!(f, "{name} was expected to mean {}, and means {}", meaning(expected), meaning(found))
            }
            ErrorKind::NotALayout { path, reason } => write!(f, "{} is no OCI image layout: {reason}", path.display()),
            ErrorKind::UnsupportedVersion { path, found } => {
                write!(f, "{}: unsupported layout version {found:?}, perhaps of a newer program", path.display())
            }
            ErrorKind::NotFound { what } => write!(f, "{what} not found"),
            ErrorKind::DigestMismatch { expected, found } => write!(f, "expected {expected}, found {found}"),
            ErrorKind::SizeMismatch { expected, found } if found > expected => {
                write!(f, "expected {expected} bytes, found more")
            }
            ErrorKind::SizeMismatch { expected, found } => write!(f, "expected {expected} bytes, found {found}"),
            ErrorKind::InvalidDocument { document, reason } => write!(f, "invalid {document}: {reason}"),
            ErrorKind::UnsupportedMediaType { found, expected } => {
                write!(f, "unsupported media type {:?}, expected {expected}", found.as_str())
            }
            ErrorKind::Schema1 => f.write_str(
                "a manifest of schema 1 (application/vnd.docker.distribution.manifest.v1) is not supported: \
                 push the image again with a current tool",
            ),
            ErrorKind::NoMatchingPlatform { wanted, available } => no_platform(f, wanted, available),
            ErrorKind::NotBasedOn { image, base } => write!(f, "image {image} does not stand on the layers of {base}"),
            ErrorKind::Compression { reason } => write!(f, "invalid compressed data: {reason}"),
            ErrorKind::InvalidLayer { reason } => write!(f, "invalid layer: {reason}"),
            ErrorKind::InvalidArchive { reason } => write!(f, "invalid archive: {reason}"),
            ErrorKind::InvalidCheckout { path, reason } => write!(f, "working copy {}: {reason}", path.display()),
            ErrorKind::Untrusted { path, reason } => write!(
                f,
                "{} is not trusted: {reason}; run as its owner, take the write permission away, or trust it explicitly",
                path.display()
            ),
            ErrorKind::Collision { path, existing } => write!(
                f,
                "the file system takes {:?} for {:?}, which is there: unpack where case and spelling count",
                path.display(),
                existing.display()
            ),
            ErrorKind::NotApplied { what } => {
                let first = what.first().map_or("", String::as_str);
                write!(f, "{} things could not be applied, the first is {first}", what.len())
            }
            ErrorKind::MountPoint { path } => {
                write!(
                    f,
                    "something is mounted on {}, and no change crosses a mount point; unmount it first",
                    path.display()
                )
            }
            ErrorKind::AlreadyExists { path } => write!(f, "{}: there is something already", path.display()),
            ErrorKind::LimitExceeded { limit, maximum } => write!(f, "limit exceeded: {limit}, at most {maximum}"),
            ErrorKind::Registry(error) => error.fmt(f),
            ErrorKind::Connect { host, reason } => write!(f, "cannot connect to {host}: {reason}"),
            ErrorKind::Tls { host, reason } => write!(f, "no secure connection to {host}: {reason}"),
            ErrorKind::Network { host, reason } => write!(f, "connection to {host} broke: {reason}"),
            ErrorKind::TimedOut { host, which } => write!(f, "{host}: {which} time limit exceeded"),
            ErrorKind::Protocol { reason } => write!(f, "invalid answer: {reason}"),
            ErrorKind::Authentication { reason } => write!(f, "authentication: {reason}"),
            ErrorKind::Cancelled => f.write_str("cancelled"),
        }
    }
}

fn meaning(digest: &Option<Digest>) -> String {
    digest.map_or_else(|| "nothing".to_owned(), |digest| digest.to_string())
}

fn no_platform(f: &mut fmt::Formatter<'_>, wanted: &Platform, available: &[Platform]) -> fmt::Result {
    write!(f, "no matching manifest for {wanted} in the manifest list entries")?;
    for (n, platform) in available.iter().take(MAX_PLATFORMS).enumerate() {
        let platform = printable(&platform.to_string(), 60);
        write!(f, "{}{platform}", if n == 0 { "; there are: " } else { ", " })?;
    }
    match available.len().saturating_sub(MAX_PLATFORMS) {
        0 => Ok(()),
        more => write!(f, " and {more} more"),
    }
}

/// Text from outside, fit for a terminal and a log: one line, no control characters, at most `most` characters.
pub(crate) fn printable(text: &str, most: usize) -> String {
    let clean = |c: char| if c.is_control() || is_bidi_control(c) { ' ' } else { c };
    let mut out: String = text.chars().take(most).map(clean).collect();
    if text.chars().nth(most).is_some() {
        out.push('…');
    }
    out.trim().to_owned()
}

fn is_bidi_control(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}
