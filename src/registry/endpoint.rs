//! Where a repository is, and how it is asked.

use std::sync::Arc;

use super::Purpose;
use super::Registry;
use super::http::Request;
use super::http::Response;
use super::url::Origin;
use super::url::Url;

use crate::digest::Digest;
use crate::error::Result;
use crate::event::Watch;
use crate::reference::Identifier;

/// A repository's name on its host, and the client that asks there.
#[derive(Clone, Debug)]
pub(super) struct Endpoint {
    registry: Registry,
    origin: Origin,
    purpose: Arc<Purpose>,
    name: Arc<str>,
}

impl Endpoint {
    pub(super) fn new(registry: Registry, host: String, origin: Origin, name: &str) -> Endpoint {
        let scope = format!("repository:{name}:pull");
        Endpoint { registry, origin, purpose: Arc::new(Purpose { host, scope }), name: name.into() }
    }

    pub(super) fn registry(&self) -> &Registry {
        &self.registry
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The host, with its port, for messages.
    pub(super) fn authority(&self) -> String {
        self.origin.authority()
    }

    pub(super) fn blob_url(&self, digest: Digest) -> Url {
        self.origin.url(format!("/v2/{}/blobs/{digest}", self.name))
    }

    pub(super) fn manifest_url(&self, identifier: &Identifier) -> Url {
        self.origin.url(format!("/v2/{}/manifests/{identifier}", self.name))
    }

    /// Sends a request with whatever credentials reading here takes.
    pub(super) fn send(&self, request: Request, watch: &Watch<'_>) -> Result<Response> {
        self.registry.send(request, &self.purpose, watch)
    }
}
