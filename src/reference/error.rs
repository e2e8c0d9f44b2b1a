//! Why a text is no name.

use std::fmt;

use crate::digest::ParseDigestError;

/// A text that is no [`ImageReference`](super::ImageReference): what is wrong, where, and the text (its beginning, if
/// it is long).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseReferenceError {
    text: String,
    at: usize,
    problem: Problem,
}

/// What is wrong with the text of a name.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// There is no text.
    Empty,
    /// The text is 64 hexadecimal digits, which is how ids look.
    Identifier,
    /// A URL's scheme or a transport (`https://`, `oci:`) stands before the name.
    Scheme,
    /// The host is no domain name or address.
    Host,
    /// The port is not a number from 1 to 65535.
    Port,
    /// The repository has an upper-case letter.
    Uppercase,
    /// The repository has an empty component: a `/` at its beginning or end, or two in a row.
    EmptyComponent,
    /// A component of the repository begins or ends with a separator, or has a separator that is none of `.`, `_`,
    /// `__` and dashes.
    Separator,
    /// A character that names do not have.
    Character(char),
    /// The repository is longer than 255 bytes.
    RepositoryTooLong,
    /// The tag is empty, longer than 128 bytes, or begins with `.` or `-`.
    Tag,
    /// What follows `@` is no digest.
    Digest(ParseDigestError),
}

impl ParseReferenceError {
    pub(super) fn new(text: &str, at: usize, problem: Problem) -> ParseReferenceError {
        ParseReferenceError { text: text.chars().take(300).collect(), at, problem }
    }

    /// What is wrong.
    pub fn problem(&self) -> &Problem {
        &self.problem
    }

    /// Where: the number of bytes before it.
    pub fn at(&self) -> usize {
        self.at
    }
}

impl std::error::Error for ParseReferenceError {}

impl fmt::Display for ParseReferenceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ParseReferenceError { text, at, problem } = self;
        match problem {
            Problem::Empty => f.write_str("invalid reference format: the name is empty"),
            Problem::Identifier => {
                write!(f, "invalid repository name ({text}), cannot specify 64-byte hexadecimal strings")
            }
            Problem::Uppercase => {
                write!(f, "invalid reference format: repository name ({text}) must be lowercase, at byte {at}")
            }
            Problem::RepositoryTooLong => {
                write!(f, "invalid reference format: repository name must not be more than 255 characters")
            }
            problem => write!(f, "invalid reference format: {problem}, at byte {at} of {text:?}"),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Problem::Empty => f.write_str("the name is empty"),
            Problem::Identifier => f.write_str("64 hexadecimal digits are an id"),
            Problem::Scheme => f.write_str("a name has no scheme or transport in front"),
            Problem::Host => f.write_str("malformed host"),
            Problem::Port => f.write_str("the port is not a number from 1 to 65535"),
            Problem::Uppercase => f.write_str("the repository must be lowercase"),
            Problem::EmptyComponent => f.write_str("empty path component"),
            Problem::Separator => f.write_str(
                "misplaced separator (components are letters and digits, joined by '.', '_', '__' or dashes)",
            ),
            Problem::Character(found) => write!(f, "unexpected character {found:?}"),
            Problem::RepositoryTooLong => f.write_str("the repository is longer than 255 characters"),
            Problem::Tag => f.write_str("malformed tag (at most 128 letters, digits, '_', '.' and '-')"),
            Problem::Digest(error) => error.fmt(f),
        }
    }
}
