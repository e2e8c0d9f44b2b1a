//! From a request to its answer.

use std::sync::Mutex;

use super::answer::Answer;
use super::blobs;
use super::body::Body;
use super::contents::Contents;
use super::discovery;
use super::endpoint::Endpoint;
use super::manifests;
use super::refusal::Code;
use super::refusal::Reply;
use super::request::Request;
use super::search;
use super::search::SearchResult;
use super::uploads;
use super::uploads::Uploads;

use crate::store::Store;
use crate::sync::lock;

/// The endpoints of the protocol over a store.
#[derive(Debug)]
pub(super) struct Service {
    /// Host and port.
    pub(super) host: String,
    pub(super) contents: Contents,
    pub(super) uploads: Uploads,
    manners: Mutex<Manners>,
}

/// What this registry does otherwise than the best of its kind.
#[derive(Clone, Debug, Default)]
pub(super) struct Manners {
    pub(super) without_deletes: bool,
    pub(super) without_referrers: bool,
    pub(super) without_mounts: bool,
    pub(super) without_anonymous_mounts: bool,
    pub(super) without_single_posts: bool,
    pub(super) forgetful: bool,
    pub(super) sparse: bool,
    pub(super) stateful: bool,
    pub(super) location_base: Option<String>,
    pub(super) smallest_chunk: Option<u64>,
    pub(super) largest_body: Option<u64>,
    pub(super) page_size: Option<usize>,
    pub(super) search: Option<Vec<SearchResult>>,
}

impl Service {
    pub(super) fn new(store: &Store, host: String) -> Service {
        Service { host, contents: Contents::new(store), uploads: Uploads::default(), manners: Mutex::default() }
    }

    pub(super) fn manners(&self) -> Manners {
        lock(&self.manners).clone()
    }

    pub(super) fn change_manners(&self, change: impl FnOnce(&mut Manners)) {
        change(&mut lock(&self.manners));
    }

    /// A path as a `Location` says it: relative, unless something else was asked for (D12).
    pub(super) fn locate(&self, path: &str) -> String {
        format!("{}{path}", self.manners().location_base.unwrap_or_default())
    }

    pub(super) fn answer(&self, endpoint: &Endpoint, request: &Request, body: &mut Body<'_>) -> Reply {
        match endpoint {
            Endpoint::Manifest(name, wanted) => manifests::answer(self, name, wanted, request, body),
            Endpoint::Blob(name, digest) => blobs::answer(self, name, *digest, request),
            Endpoint::Uploads(name) => uploads::open(self, name, request, body),
            Endpoint::Upload(name, id) => uploads::answer(self, name, id, request, body),
            _ if !matches!(request.method.as_str(), "GET" | "HEAD") => Err(Code::Unsupported.into()),
            Endpoint::Ping => Ok(Answer::json(&serde_json::json!({}))),
            Endpoint::Catalog => discovery::catalog(self, request),
            Endpoint::Tags(name) => discovery::tags(self, name, request),
            Endpoint::Referrers(name, subject) => discovery::referrers(self, name, *subject, request),
            Endpoint::SearchPing => search::ping(self),
            Endpoint::Search => search::search(self, request),
        }
    }
}
