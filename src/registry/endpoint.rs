//! Where a repository is, and how it is asked.

use std::sync::Arc;

use super::Access;
use super::Purpose;
use super::Registry;
use super::http::Request;
use super::http::Response;
use super::url::Origin;
use super::url::Url;

use crate::digest::Digest;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::event::Watch;
use crate::reference::Identifier;

/// A repository's name on its host, and the client that asks there.
#[derive(Clone, Debug)]
pub(super) struct Endpoint(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    registry: Registry,
    name: String,
    own: Place,
    /// Where to read first.
    mirrors: Vec<Place>,
}

/// A host as credentials are kept under it, and where it is.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) host: String,
    pub(super) origin: Origin,
}

impl Endpoint {
    pub(super) fn new(registry: Registry, own: Place, mirrors: Vec<Place>, name: &str) -> Endpoint {
        Endpoint(Arc::new(Inner { registry, name: name.to_owned(), own, mirrors }))
    }

    /// The same without mirrors: what is changed must be read where it is changed.
    pub(super) fn without_mirrors(&self) -> Endpoint {
        Endpoint::new(self.0.registry.clone(), self.0.own.clone(), Vec::new(), &self.0.name)
    }

    pub(super) fn registry(&self) -> &Registry {
        &self.0.registry
    }

    pub(super) fn name(&self) -> &str {
        &self.0.name
    }

    pub(super) fn origin(&self) -> &Origin {
        &self.0.own.origin
    }

    /// The host, with its port, for messages.
    pub(super) fn authority(&self) -> String {
        self.0.own.origin.authority()
    }

    pub(super) fn blob_path(&self, digest: Digest) -> String {
        format!("/v2/{}/blobs/{digest}", self.0.name)
    }

    pub(super) fn manifest_path(&self, identifier: &Identifier) -> String {
        format!("/v2/{}/manifests/{identifier}", self.0.name)
    }

    /// An address on the registry itself.
    pub(super) fn url(&self, path: impl Into<String>) -> Url {
        self.0.own.origin.url(path.into())
    }

    /// Asks the mirrors for content, in their order, and makes something of the first answer that is of use; none if
    /// no answer is.
    pub(super) fn read_mirrors<'a, T>(
        &self,
        path: &str,
        watch: &Watch<'_>,
        make: impl Fn(Url) -> Request<'a>,
        read: impl Fn(Response) -> Result<T>,
    ) -> Result<Option<T>> {
        for mirror in &self.0.mirrors {
            let request = make(mirror.origin.url(path.to_owned()));
            if let Some(found) = self.read_mirror(mirror, request, watch, &read)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Asks the registry itself for content.
    pub(super) fn read_itself<'a>(
        &self,
        path: &str,
        watch: &Watch<'_>,
        make: impl Fn(Url) -> Request<'a>,
    ) -> Result<Response> {
        self.send(make(self.url(path)), &[Access::Pull(&self.0.name)], watch)
    }

    fn read_mirror<T>(
        &self,
        mirror: &Place,
        request: Request<'_>,
        watch: &Watch<'_>,
        read: impl Fn(Response) -> Result<T>,
    ) -> Result<Option<T>> {
        let registry = &self.0.registry;
        if registry.is_out_of_reach(&mirror.origin) {
            return Ok(None);
        }
        let purpose = Purpose::new(&mirror.host, &self.0.name, &[Access::Pull(&self.0.name)]);
        let found = registry.send(request, &purpose, watch).and_then(|response| match response.status() {
            200 | 206 => read(response).map(Some),
            _ => Ok(None),
        });
        match found {
            Err(error) if !is_cancelled(&error) => {
                registry.note_out_of_reach(&mirror.origin);
                Ok(None)
            }
            found => found,
        }
    }

    /// Sends a request to the registry itself with whatever credentials these kinds of access take.
    pub(super) fn send(&self, request: Request<'_>, access: &[Access<'_>], watch: &Watch<'_>) -> Result<Response> {
        let purpose = Purpose::new(&self.0.own.host, &self.0.name, access);
        self.0.registry.send(request, &purpose, watch)
    }
}

fn is_cancelled(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Cancelled)
}
