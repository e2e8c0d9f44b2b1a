//! The one error of this crate.
//!
//! [`Error`] says what went wrong ([`kind`](Error::kind), to match on) and, in its text, at which step: "pull
//! docker.io/library/alpine:3.20: layer 3 of 5: expected sha256:ab…, found sha256:cd…". Secrets, and the queries of
//! URLs, which often are secrets, never appear in it.
//!
//! It passes through [`io::Error`] and back without loss, so readers and writers can carry it.
//!
//! ```
//! use layercake::{Error, ErrorKind};
//!
//! let error = Error::from(ErrorKind::Cancelled).context("pull alpine");
//! assert_eq!(error.to_string(), "pull alpine: cancelled");
//!
//! let through_io: Error = std::io::Error::from(error).into();
//! assert!(matches!(through_io.kind(), ErrorKind::Cancelled));
//! ```

mod limit;
mod text;

use std::fmt;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;
use std::time::SystemTime;

use crate::digest::Digest;
use crate::digest::ParseDigestError;
use crate::media_type::MediaType;
use crate::platform::ParsePlatformError;
use crate::platform::Platform;
use crate::reference::ParseReferenceError;

pub use limit::Limit;
pub(crate) use text::printable;

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, and at which step. One pointer in size.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    /// The steps, innermost first.
    context: Vec<String>,
}

/// What went wrong.
#[non_exhaustive]
#[derive(Debug)]
pub enum ErrorKind {
    /// A text is no name of an image.
    InvalidReference(ParseReferenceError),
    /// A text is no digest, or one of an algorithm that this crate cannot verify.
    InvalidDigest(ParseDigestError),
    /// A text is no platform.
    InvalidPlatform(ParsePlatformError),
    /// An argument or setting cannot be used; the text says which and why.
    InvalidInput(String),

    /// The operating system refused something, or a file is not what it must be.
    Io {
        /// What was to be done, and to what.
        what: String,
        /// The operating system's answer.
        source: io::Error,
    },
    /// The disk, or the quota on it, is full; or the store has reached its limit.
    StorageFull {
        /// Where there was no room.
        path: PathBuf,
        /// How many bytes were needed, if that was known.
        needed: Option<u64>,
        /// How many there were, if that is known: on the disk, or below the store's limit.
        available: Option<u64>,
    },
    /// The store cannot be written: a read-only file system, or no permission.
    ReadOnly {
        /// What could not be written.
        path: PathBuf,
    },
    /// Another process kept a lock for too long.
    Locked {
        /// The lock.
        path: PathBuf,
        /// How long this process waited.
        waited: Duration,
        /// Who has it, if that is known.
        holder: Option<Holder>,
    },

    /// A directory is no OCI image layout (image-spec, image-layout.md).
    NotALayout {
        /// The directory.
        path: PathBuf,
        /// What it lacks, or has too much.
        reason: String,
    },
    /// A layout, or what this crate keeps beside it, has a version that this crate does not know.
    UnsupportedVersion {
        /// The directory.
        path: PathBuf,
        /// The version found.
        found: String,
    },
    /// A name does not mean what a change of it was to depend on: somebody else was faster.
    NameMoved {
        /// The name.
        name: String,
        /// What it was to mean; none for nothing.
        expected: Option<Digest>,
        /// What it means; none for nothing.
        found: Option<Digest>,
    },
    /// Something is not there: a name, a blob, an image.
    NotFound {
        /// What.
        what: String,
    },

    /// Content has another digest than was promised.
    DigestMismatch {
        /// The promise.
        expected: Digest,
        /// The truth.
        found: Digest,
    },
    /// Content has another length than was promised.
    SizeMismatch {
        /// The promise, in bytes.
        expected: u64,
        /// What came, in bytes; of content that is too long no more than one byte too many is read.
        found: u64,
    },
    /// A document (manifest, index, configuration, layout) is not what its specification asks for.
    InvalidDocument {
        /// Which kind of document.
        document: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// Content is of a type that cannot be used here.
    UnsupportedMediaType {
        /// The type.
        found: MediaType,
        /// What can be used.
        expected: &'static str,
    },
    /// A manifest of Docker's schema 1, which has no verifiable configuration and is obsolete since 2017.
    Schema1,
    /// An image has no entry for the platform.
    NoMatchingPlatform {
        /// The platform asked for.
        wanted: Platform,
        /// The platforms there are.
        available: Vec<Platform>,
    },
    /// The lowest layers of an image are not those of another one.
    NotBasedOn {
        /// The image's id.
        image: Digest,
        /// The other's, on which it does not stand.
        base: Digest,
    },
    /// The bytes of a layer are no valid gzip or zstd, or in a compression that is not built in.
    Compression {
        /// What is wrong.
        reason: String,
    },
    /// The bytes of a layer are no tar that can be applied: a broken header, or an entry that must be refused.
    InvalidLayer {
        /// What is wrong.
        reason: String,
    },
    /// An archive of images is not what it must be: no tar, no images in it, or members that must be refused.
    InvalidArchive {
        /// What is wrong.
        reason: String,
    },
    /// The file system takes two names of a layer for one, as those do that do not know upper case from lower.
    Collision {
        /// The name that is to be made, from the root.
        path: PathBuf,
        /// The one that is there.
        existing: PathBuf,
    },
    /// Something of a layer could not be applied, or came twice, or something of a tree could not be in a layer; and the
    /// caller wanted that to be an error.
    NotApplied {
        /// What, each with its path and the reason.
        what: Vec<String>,
    },
    /// A working copy is not what it must be, or cannot be used here.
    InvalidCheckout {
        /// The working copy, or what of it.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A directory or file is not believed, because another user of the machine owns it or may write to it.
    Untrusted {
        /// The directory or file.
        path: PathBuf,
        /// The owner, or the users who may write to it.
        reason: String,
    },
    /// Something is mounted at a path below the directory that is changed or removed. Operations stop there: neither
    /// the mount point nor anything behind it is changed.
    MountPoint {
        /// The mount point.
        path: PathBuf,
    },
    /// There is something already where something is to be made.
    AlreadyExists {
        /// Where.
        path: PathBuf,
    },
    /// Something from outside is larger than this crate accepts.
    LimitExceeded {
        /// Which limit.
        limit: Limit,
        /// Its value: bytes or a number of things, as [`Limit`] says.
        maximum: u64,
    },

    /// A registry answered with an error.
    Registry(Box<RegistryError>),
    /// A host cannot be reached: its name is unknown, or it refuses connections.
    Connect {
        /// The host, with port.
        host: String,
        /// Why.
        reason: String,
    },
    /// An encrypted connection could not be made: an invalid certificate, or a server that does not speak TLS.
    Tls {
        /// The host, with port.
        host: String,
        /// Why.
        reason: String,
    },
    /// A connection broke.
    Network {
        /// The host, with port.
        host: String,
        /// Why.
        reason: String,
    },
    /// A time limit ran out.
    TimedOut {
        /// The host, with port.
        host: String,
        /// Which limit: `connect`, `idle` or `total`.
        which: &'static str,
    },
    /// A registry's answer breaks the protocol.
    Protocol {
        /// How.
        reason: String,
    },
    /// A way to sign in could not be used: a token server that answers rubbish, a realm that must not be trusted, a
    /// configuration that cannot be understood, a credential helper that fails.
    Authentication {
        /// Why.
        reason: String,
    },
    /// The caller cancelled.
    Cancelled,
}

/// Who holds a lock.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The process.
    pub pid: u32,
    /// Since when it has the lock, by the clock.
    pub since: SystemTime,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {}", self.pid)?;
        match jiff::Timestamp::try_from(self.since) {
            Ok(since) => write!(f, " since {since:.0}"),
            Err(_) => Ok(()),
        }
    }
}

/// A registry's own words for an error (distribution-spec, "Error Codes").
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistryError {
    /// The request's method.
    pub method: &'static str,
    /// The request's URL, without its query.
    pub url: String,
    /// The HTTP status.
    pub status: u16,
    /// The errors that the body lists, as code (`MANIFEST_UNKNOWN`) and message. Control characters are replaced.
    pub errors: Vec<(String, String)>,
    /// The beginning of the body, if it lists no errors. Control characters are replaced.
    pub body: String,
    /// How long the registry asks to wait.
    pub retry_after: Option<Duration>,
}

impl RegistryError {
    /// An error without words; for the client and for tests.
    pub fn new(method: &'static str, url: impl Into<String>, status: u16) -> RegistryError {
        let url = url.into();
        RegistryError { method, url, status, errors: Vec::new(), body: String::new(), retry_after: None }
    }

    /// Whether the body lists this code.
    pub fn has_code(&self, code: &str) -> bool {
        self.errors.iter().any(|(found, _)| found.eq_ignore_ascii_case(code))
    }
}

impl fmt::Display for RegistryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: status {}", self.method, self.url, self.status)?;
        for (code, message) in &self.errors {
            write!(f, ": {code}")?;
            if !message.is_empty() {
                write!(f, ": {message}")?;
            }
        }
        if !self.body.is_empty() {
            write!(f, ": {}", self.body)?;
        }
        Ok(())
    }
}

impl Error {
    /// What went wrong.
    pub fn kind(&self) -> &ErrorKind {
        &self.0.kind
    }

    /// The same, without the steps.
    pub fn into_kind(self) -> ErrorKind {
        self.0.kind
    }

    /// Adds a step that was being taken, in front of those already there.
    #[must_use = "the error is returned with the step added"]
    pub fn context(mut self, step: impl Into<String>) -> Error {
        self.0.context.push(step.into());
        self
    }

    /// Whether the same call may succeed later without anything being changed: connections that break, time limits,
    /// and a registry's 408, 429, 500, 502, 503 and 504.
    pub fn is_retryable(&self) -> bool {
        match self.kind() {
            ErrorKind::Registry(error) => matches!(error.status, 408 | 429 | 500 | 502 | 503 | 504),
            ErrorKind::Connect { .. } | ErrorKind::Network { .. } | ErrorKind::TimedOut { .. } => true,
            ErrorKind::Locked { .. } => true,
            _ => false,
        }
    }

    /// Whether something is not there: in the store, or at the registry (status 404).
    pub fn is_not_found(&self) -> bool {
        match self.kind() {
            ErrorKind::NotFound { .. } => true,
            ErrorKind::Registry(error) => error.status == 404,
            ErrorKind::Io { source, .. } => source.kind() == io::ErrorKind::NotFound,
            _ => false,
        }
    }

    /// Whether content was not what its descriptor promised.
    pub fn is_corrupt(&self) -> bool {
        matches!(self.kind(), ErrorKind::DigestMismatch { .. } | ErrorKind::SizeMismatch { .. })
    }

    /// Whether a blob is not there, is damaged, or has something in its place that is no file: fetching it mends all.
    pub(crate) fn is_as_good_as_missing(&self) -> bool {
        let no_file = |source: &io::Error| source.kind() == io::ErrorKind::InvalidData;
        let displaced = matches!(self.kind(), ErrorKind::Io { source, .. } if no_file(source));
        self.is_not_found() || self.is_corrupt() || displaced
    }

    /// Whether the store, or the caller, is the reason, and not whoever was asked for something.
    #[cfg(feature = "registry")]
    pub(crate) fn is_of_the_store(&self) -> bool {
        let is_io = matches!(self.kind(), ErrorKind::Io { .. } | ErrorKind::StorageFull { .. });
        is_io || matches!(self.kind(), ErrorKind::ReadOnly { .. } | ErrorKind::Locked { .. } | ErrorKind::Cancelled)
    }

    /// The same; where there was no room, with how much was needed and how much there was.
    pub(crate) fn with_room(mut self, needs: u64, has: Option<u64>) -> Error {
        if let ErrorKind::StorageFull { needed, available, .. } = &mut self.0.kind
            && needed.is_none()
        {
            (*needed, *available) = (Some(needs), has);
        }
        self
    }

    /// An error of the operating system, sorted: full disks and refused writes have kinds of their own.
    pub(crate) fn io(what: &str, path: &Path, source: io::Error) -> Error {
        let source = match Error::unwrap_io(source) {
            Ok(error) => return error,
            Err(source) => source,
        };
        let path = path.to_owned();
        Error::from(match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                ErrorKind::StorageFull { path, needed: None, available: None }
            }
            io::ErrorKind::ReadOnlyFilesystem => ErrorKind::ReadOnly { path },
            _ => ErrorKind::Io { what: format!("{what} {}", path.display()), source },
        })
    }

    pub(crate) fn not_found(what: impl Into<String>) -> Error {
        ErrorKind::NotFound { what: what.into() }.into()
    }

    pub(crate) fn invalid_document(document: &'static str, reason: impl fmt::Display) -> Error {
        ErrorKind::InvalidDocument { document, reason: printable(&reason.to_string(), 300) }.into()
    }

    pub(crate) fn invalid_archive(reason: impl fmt::Display) -> Error {
        ErrorKind::InvalidArchive { reason: printable(&reason.to_string(), 300) }.into()
    }

    /// The same where the tar is no layer's but an archive's.
    pub(crate) fn of_archive(mut self) -> Error {
        if let ErrorKind::InvalidLayer { reason } = &mut self.0.kind {
            self.0.kind = ErrorKind::InvalidArchive { reason: std::mem::take(reason) };
        }
        self
    }

    pub(crate) fn invalid_input(what: impl Into<String>) -> Error {
        ErrorKind::InvalidInput(what.into()).into()
    }

    pub(crate) fn limit(limit: Limit, maximum: u64) -> Error {
        ErrorKind::LimitExceeded { limit, maximum }.into()
    }

    /// The error of ours inside an `io::Error`, if there is one.
    fn unwrap_io(error: io::Error) -> Result<Error, io::Error> {
        error.downcast::<Error>()
    }
}

impl From<ErrorKind> for Error {
    fn from(kind: ErrorKind) -> Error {
        Error(Box::new(Inner { kind, context: Vec::new() }))
    }
}

impl From<ParseReferenceError> for Error {
    fn from(error: ParseReferenceError) -> Error {
        ErrorKind::InvalidReference(error).into()
    }
}

impl From<ParseDigestError> for Error {
    fn from(error: ParseDigestError) -> Error {
        ErrorKind::InvalidDigest(error).into()
    }
}

impl From<ParsePlatformError> for Error {
    fn from(error: ParsePlatformError) -> Error {
        ErrorKind::InvalidPlatform(error).into()
    }
}

impl From<RegistryError> for Error {
    fn from(error: RegistryError) -> Error {
        ErrorKind::Registry(Box::new(error)).into()
    }
}

impl From<io::Error> for Error {
    /// Gives back the error that was put into an `io::Error`; any other becomes [`ErrorKind::Io`].
    fn from(error: io::Error) -> Error {
        Error::unwrap_io(error)
            .unwrap_or_else(|source| ErrorKind::Io { what: "read or write".to_owned(), source }.into())
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> io::Error {
        let kind = match error.kind() {
            ErrorKind::Io { source, .. } => source.kind(),
            ErrorKind::StorageFull { .. } => io::ErrorKind::StorageFull,
            ErrorKind::ReadOnly { .. } => io::ErrorKind::ReadOnlyFilesystem,
            ErrorKind::TimedOut { .. } => io::ErrorKind::TimedOut,
            ErrorKind::NotFound { .. } => io::ErrorKind::NotFound,
            ErrorKind::InvalidInput(_) => io::ErrorKind::InvalidInput,
            kind if error.is_corrupt() || matches!(kind, ErrorKind::Compression { .. }) => io::ErrorKind::InvalidData,
            _ => io::ErrorKind::Other,
        };
        io::Error::new(kind, error)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self.kind() {
            ErrorKind::InvalidReference(error) => Some(error),
            ErrorKind::InvalidDigest(error) => Some(error),
            ErrorKind::InvalidPlatform(error) => Some(error),
            ErrorKind::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error").field("kind", &self.0.kind).field("context", &self.0.context).finish()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for step in self.0.context.iter().rev() {
            write!(f, "{step}: ")?;
        }
        self.0.kind.fmt(f)
    }
}

/// Adds the step to an error.
pub(crate) trait Context<T> {
    /// The same result; `step` is only asked for where it is an error.
    fn context<S: Into<String>>(self, step: impl FnOnce() -> S) -> Result<T>;
}

impl<T> Context<T> for Result<T, Error> {
    fn context<S: Into<String>>(self, step: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|error| error.context(step()))
    }
}
