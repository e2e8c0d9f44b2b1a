//! Names of images: `ubuntu`, `jpetazzo/clock:1`, `localhost:5000/wordpress@sha256:…`.
//!
//! * [`ImageReference`] is such a name, parsed: a host, a repository on it, and a tag, a digest, both or neither.
//! * [`Namespace`] says which of the three kinds of names it is: an official image, a user's, or one on a registry
//!   of one's own.
//! * [`ParseReferenceError`] says what is wrong with a text that is none, and where.
//!
//! A name has two spellings. The canonical one says everything and is what [`Display`](std::fmt::Display) writes; the
//! [familiar](ImageReference::familiar) one leaves out what Docker users leave out. Both parse back to the same name.
//!
//! ```
//! use layercake::ImageReference;
//! use layercake::reference::Namespace;
//!
//! let image: ImageReference = "ubuntu".parse()?;
//! assert_eq!(image.to_string(), "docker.io/library/ubuntu");
//! assert_eq!(image.familiar().to_string(), "ubuntu");
//! assert_eq!(image.namespace(), Namespace::Root);
//!
//! let image: ImageReference = "jpetazzo/clock:1".parse()?;
//! assert_eq!(image.namespace(), Namespace::User("jpetazzo"));
//!
//! let image: ImageReference = "localhost:5000/wordpress".parse()?;
//! assert_eq!(image.namespace(), Namespace::SelfHosted { host: "localhost", port: Some(5000) });
//! # Ok::<(), layercake::reference::ParseReferenceError>(())
//! ```
//!
//! It does not: look anything up, or know which registry serves a name; that is [`Registry`](crate::Registry)'s.

mod error;
mod parse;

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;
use serde::Deserializer;
use serde::Serialize;
use serde::Serializer;
use serde::de;

use crate::digest::Digest;

pub use error::ParseReferenceError;
pub use error::Problem;

/// The host of names that name none.
pub const DEFAULT_HOST: &str = "docker.io";
/// The tag of names that have neither tag nor digest.
pub const DEFAULT_TAG: &str = "latest";

const OFFICIAL: &str = "library/";

/// A name of an image.
///
/// Invariants:
///
/// * the host is a domain name, an IPv4 or a bracketed IPv6 address, each perhaps with a port from 1 to 65535; it
///   keeps its case, and `index.docker.io` is `docker.io`;
/// * the repository matches distribution-spec's grammar ("Pulling manifests") and has at most 255 bytes; on
///   `docker.io` it has at least two components (`ubuntu` is `library/ubuntu`);
/// * the tag has at most 128 letters, digits, `_`, `.` and `-`, and begins with none of the last two;
/// * everything is ASCII, without white space or control characters.
///
/// Where a name has a tag and a digest, the digest decides what is meant; the tag is a note to the reader.
///
/// Equality and order are those of the canonical spelling's parts. Hosts are compared as they are written here; the
/// registry client compares them without regard to case.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImageReference {
    host: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl ImageReference {
    /// The host, with its port if it has one: `docker.io`, `localhost:5000`, `[::1]:5000`.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The path of the repository on its host: `library/ubuntu`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag, if the name has one.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, if the name has one.
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// Which of the three kinds of names this is.
    pub fn namespace(&self) -> Namespace<'_> {
        if self.host != DEFAULT_HOST {
            let (host, port) = parse::split_port(&self.host);
            return Namespace::SelfHosted { host, port: port.and_then(|port| port.parse().ok()) };
        }
        match self.repository.split_once('/') {
            Some((user, _)) if user != "library" => Namespace::User(user),
            _ => Namespace::Root,
        }
    }

    /// The same name with the tag `latest`, if it has neither tag nor digest; else the name as it is.
    #[must_use = "the name itself is not changed"]
    pub fn or_latest(&self) -> ImageReference {
        let mut reference = self.clone();
        if self.tag.is_none() && self.digest.is_none() {
            reference.tag = Some(DEFAULT_TAG.to_owned());
        }
        reference
    }

    /// What the name means in its repository: the digest if it has one, else the tag, else `latest`.
    pub fn identifier(&self) -> Identifier {
        match (self.digest, &self.tag) {
            (Some(digest), _) => Identifier::Digest(digest),
            (None, Some(tag)) => Identifier::Tag(tag.clone()),
            (None, None) => Identifier::Tag(DEFAULT_TAG.to_owned()),
        }
    }

    /// The same name with exactly one of tag and digest: without the tag if it has both, with the tag `latest` if it
    /// has neither. This is what a store calls the image.
    #[must_use = "the name itself is not changed"]
    pub fn exact(&self) -> ImageReference {
        match self.digest {
            Some(digest) => self.with_digest(digest),
            None => self.or_latest(),
        }
    }

    /// The same repository with this tag and no digest.
    ///
    /// # Errors
    ///
    /// [`ParseReferenceError`] if `tag` is no tag (distribution-spec, "Pulling manifests").
    pub fn with_tag(&self, tag: &str) -> Result<ImageReference, ParseReferenceError> {
        parse::check_tag(tag, tag, 0)?;
        Ok(ImageReference { tag: Some(tag.to_owned()), digest: None, ..self.clone() })
    }

    /// The same repository with this digest and no tag.
    #[must_use = "the name itself is not changed"]
    pub fn with_digest(&self, digest: Digest) -> ImageReference {
        ImageReference { tag: None, digest: Some(digest), ..self.clone() }
    }

    /// The same repository with neither tag nor digest.
    #[must_use = "the name itself is not changed"]
    pub fn without_tag(&self) -> ImageReference {
        ImageReference { tag: None, digest: None, ..self.clone() }
    }

    /// The short spelling that Docker's users know: without `docker.io/`, and without `library/` where the name
    /// still means the same.
    pub fn familiar(&self) -> Familiar<'_> {
        Familiar(self)
    }

    /// The short spelling of the repository alone: `ubuntu` of `docker.io/library/ubuntu:24.04`.
    pub fn familiar_repository(&self) -> String {
        self.without_tag().familiar().to_string()
    }

    /// Whether this is `scratch`, the name that Docker reserves for the image without layers.
    pub fn is_scratch(&self) -> bool {
        self.host == DEFAULT_HOST && self.repository == "library/scratch"
    }

    /// Whether an official image's name can stand without `library/`.
    fn parses_alone(&self, name: &str) -> bool {
        if self.tag.is_some() { !parse::is_transport(name) } else { !parse::is_identifier(name) }
    }

    /// What of host and repository the familiar spelling writes: as little as still parses to this name.
    fn familiar_parts(&self) -> (Option<&str>, &str) {
        if self.host != DEFAULT_HOST {
            return (Some(&self.host), &self.repository);
        }
        match self.repository.strip_prefix(OFFICIAL) {
            Some(name) if !name.contains('/') && self.parses_alone(name) => (None, name),
            _ if parse::begins_with_host(&self.repository) => (Some(&self.host), &self.repository),
            _ => (None, &self.repository),
        }
    }
}

/// A tag or a digest, and nothing else: how a repository's manifests are asked for (distribution-spec, "Pulling
/// manifests").
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Identifier {
    /// A tag. Only [`ImageReference::identifier`] makes one, so it is well-formed.
    #[non_exhaustive]
    Tag(String),
    /// A digest.
    Digest(Digest),
}

impl From<Digest> for Identifier {
    fn from(digest: Digest) -> Identifier {
        Identifier::Digest(digest)
    }
}

impl fmt::Display for Identifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Identifier::Tag(tag) => f.write_str(tag),
            Identifier::Digest(digest) => digest.fmt(f),
        }
    }
}

/// The three kinds of names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Namespace<'a> {
    /// An official image of Docker Hub: `ubuntu`.
    Root,
    /// An image of a user or an organisation of Docker Hub: `jpetazzo/clock`.
    User(&'a str),
    /// An image on a registry that the name itself says: `localhost:5000/wordpress`.
    SelfHosted {
        /// The host without port; an IPv6 address is in brackets.
        host: &'a str,
        /// The port, if the name has one.
        port: Option<u16>,
    },
}

/// Shows the familiar spelling. Made by [`ImageReference::familiar`].
#[derive(Clone, Copy, Debug)]
pub struct Familiar<'a>(&'a ImageReference);

impl fmt::Display for Familiar<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (host, repository) = self.0.familiar_parts();
        pad(f, |f| write_name(f, host, repository, self.0))
    }
}

impl fmt::Display for ImageReference {
    /// Writes the canonical spelling.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        pad(f, |f| write_name(f, Some(&self.host), &self.repository, self))
    }
}

impl FromStr for ImageReference {
    type Err = ParseReferenceError;

    /// Reads a name in its canonical or familiar spelling, as Docker does.
    ///
    /// What stands before the first `/` is a host if it is `localhost`, or has a `.`, a `:` or an upper-case letter;
    /// else the name is Docker Hub's.
    ///
    /// # Errors
    ///
    /// [`ParseReferenceError`] says what is wrong and where. 64 hexadecimal digits alone are refused: they would be
    /// mistaken for the id of an image.
    fn from_str(text: &str) -> Result<ImageReference, ParseReferenceError> {
        parse::reference(text)
    }
}

impl Serialize for ImageReference {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ImageReference {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ImageReference, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

fn write_name(f: &mut dyn fmt::Write, host: Option<&str>, repository: &str, reference: &ImageReference) -> fmt::Result {
    if let Some(host) = host {
        write!(f, "{host}/")?;
    }
    f.write_str(repository)?;
    if let Some(tag) = &reference.tag {
        write!(f, ":{tag}")?;
    }
    match &reference.digest {
        Some(digest) => write!(f, "@{digest}"),
        None => Ok(()),
    }
}

/// Honours a width (`{:<40}`) where one is asked for; most writing asks for none and allocates nothing.
fn pad(f: &mut fmt::Formatter<'_>, write: impl Fn(&mut dyn fmt::Write) -> fmt::Result) -> fmt::Result {
    if f.width().is_none() && f.precision().is_none() {
        return write(f);
    }
    let mut text = String::new();
    write(&mut text)?;
    f.pad(&text)
}
