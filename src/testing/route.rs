//! From a request to its answer.

use super::answer::Answer;
use super::blobs;
use super::body::Body;
use super::discovery;
use super::endpoint::Endpoint;
use super::manifests;
use super::refusal::Code;
use super::refusal::Reply;
use super::request::Request;
use super::search;
use super::service::Service;
use super::uploads;

/// Answers a request for an endpoint.
pub(super) fn answer(service: &Service, endpoint: &Endpoint, request: &Request, body: &mut Body<'_>) -> Reply {
    match endpoint {
        Endpoint::Manifest(name, wanted) => manifests::answer(service, name, wanted, request, body),
        Endpoint::Blob(name, digest) => blobs::answer(service, name, *digest, request),
        Endpoint::Uploads(name) => uploads::open(service, name, request, body),
        Endpoint::Upload(name, id) => uploads::answer(service, name, id, request, body),
        _ if !matches!(request.method.as_str(), "GET" | "HEAD") => Err(Code::Unsupported.into()),
        Endpoint::Ping => Ok(Answer::json(&serde_json::json!({}))),
        Endpoint::Catalog => discovery::catalog(service, request),
        Endpoint::Tags(name) => discovery::tags(service, name, request),
        Endpoint::Referrers(name, subject) => discovery::referrers(service, name, *subject, request),
        Endpoint::SearchPing => search::ping(service.manners().search.as_deref()),
        Endpoint::Search => search::search(service.manners().search.as_deref(), request),
    }
}
