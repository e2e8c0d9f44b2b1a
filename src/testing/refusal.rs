//! Why a request is refused.

use super::answer::Answer;

use crate::error::Error;

/// The error codes of the protocol (distribution-spec, "Error Codes"), and what this server adds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Code {
    BlobUnknown,
    BlobUploadInvalid,
    BlobUploadUnknown,
    Denied,
    DigestInvalid,
    ManifestBlobUnknown,
    ManifestInvalid,
    ManifestTooLarge,
    ManifestUnknown,
    NameInvalid,
    NameUnknown,
    NoEndpoint,
    PaginationInvalid,
    RangeInvalid,
    SizeInvalid,
    TagInvalid,
    TooLarge,
    Unsupported,
}

impl Code {
    /// Status, code and message.
    fn parts(self) -> (u16, &'static str, &'static str) {
        match self {
            Code::BlobUnknown => (404, "BLOB_UNKNOWN", "blob unknown to registry"),
            Code::BlobUploadInvalid => (400, "BLOB_UPLOAD_INVALID", "blob upload invalid"),
            Code::BlobUploadUnknown => (404, "BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry"),
            Code::Denied => (403, "DENIED", "requested access to the resource is denied"),
            Code::DigestInvalid => (400, "DIGEST_INVALID", "provided digest did not match uploaded content"),
            Code::ManifestBlobUnknown => {
                (404, "MANIFEST_BLOB_UNKNOWN", "manifest references a manifest or blob unknown to registry")
            }
            Code::ManifestInvalid => (400, "MANIFEST_INVALID", "manifest invalid"),
            Code::ManifestTooLarge => (413, "MANIFEST_INVALID", "manifest too large"),
            Code::ManifestUnknown => (404, "MANIFEST_UNKNOWN", "manifest unknown"),
            Code::NameInvalid => (400, "NAME_INVALID", "invalid repository name"),
            Code::NameUnknown => (404, "NAME_UNKNOWN", "repository name not known to registry"),
            Code::NoEndpoint => (404, "NAME_UNKNOWN", "there is no such endpoint"),
            Code::PaginationInvalid => (400, "PAGINATION_NUMBER_INVALID", "invalid number of results requested"),
            Code::RangeInvalid => (416, "RANGE_INVALID", "no such range"),
            Code::SizeInvalid => (400, "SIZE_INVALID", "provided length did not match content length"),
            Code::TagInvalid => (400, "TAG_INVALID", "invalid tag"),
            Code::TooLarge => (413, "SIZE_INVALID", "request body too large"),
            Code::Unsupported => (405, "UNSUPPORTED", "the operation is unsupported"),
        }
    }

    pub(super) fn answer(self) -> Answer {
        let (status, code, message) = self.parts();
        Answer::error(status, code, message)
    }

    /// The same with more to say.
    pub(super) fn because(self, reason: &dyn std::fmt::Display) -> Refusal {
        let (status, code, message) = self.parts();
        Refusal(Answer::error(status, code, &format!("{message}: {reason}")))
    }
}

/// An answer that ends a request early.
#[derive(Debug)]
pub(super) struct Refusal(pub(super) Answer);

/// What becomes of a request.
pub(super) type Reply<T = Answer> = Result<T, Refusal>;

impl From<Code> for Refusal {
    fn from(code: Code) -> Refusal {
        Refusal(code.answer())
    }
}

impl From<Error> for Refusal {
    /// The store's failures are the server's.
    fn from(error: Error) -> Refusal {
        Refusal(Answer::error(500, "UNKNOWN", &error.to_string()))
    }
}

impl From<std::io::Error> for Refusal {
    fn from(error: std::io::Error) -> Refusal {
        Error::from(error).into()
    }
}
