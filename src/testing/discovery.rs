//! What is there: tags, repositories, referrers.

use percent_encoding::AsciiSet;
use percent_encoding::NON_ALPHANUMERIC;
use percent_encoding::utf8_percent_encode;
use serde_json::json;

use super::answer::Answer;
use super::refusal::Code;
use super::refusal::Reply;
use super::request::Request;
use super::service::Service;

use crate::descriptor::Descriptor;
use crate::digest::Digest;
use crate::manifest::Root;
use crate::media_type::MediaType;
use crate::reference::ImageReference;

/// What a query's values need not escape.
const VALUE: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/').remove(b':');

/// A part of a list, and how to get at the next.
struct Page<T> {
    items: Vec<T>,
    next: Option<String>,
}

/// The tags of a repository (D22).
pub(super) fn tags(service: &Service, name: &ImageReference, request: &Request) -> Reply {
    service.contents.members(name)?;
    let tags = service.contents.tags(name)?.into_keys().map(|tag| (tag.clone(), tag)).collect();
    let path = format!("/v2/{}/tags/list", name.repository());
    let page = cut(service, request, &path, tags)?;
    Ok(page.link(Answer::json(&json!({ "name": name.repository(), "tags": page.items }))))
}

/// The repositories (not in distribution-spec; Docker's registry has it, and podman searches in it).
pub(super) fn catalog(service: &Service, request: &Request) -> Reply {
    let names = service.contents.repositories()?.into_iter().map(|name| (name.clone(), name)).collect();
    let page = cut(service, request, "/v2/_catalog", names)?;
    Ok(page.link(Answer::json(&json!({ "repositories": page.items }))))
}

/// The manifests that say something about another (D23).
pub(super) fn referrers(service: &Service, name: &ImageReference, subject: Digest, request: &Request) -> Reply {
    if service.manners().without_referrers {
        return Err(Code::NoEndpoint.into());
    }
    let query = request.query();
    let wanted = query.first("artifactType").filter(|wanted| !wanted.is_empty());
    let mut found = Vec::new();
    for digest in service.contents.find_members(name)?.unwrap_or_default().manifests.into_keys() {
        let (descriptor, bytes) = match service.contents.manifest(name, digest) {
            Ok(manifest) => manifest,
            // The store lacks it.
            Err(_) => continue,
        };
        let Ok(root) = Root::parse(bytes, Some(&descriptor.media_type)) else { continue };
        let referrer = describe(&root, descriptor);
        let type_fits =
            wanted.is_none_or(|wanted| referrer.artifact_type.as_ref().is_some_and(|t| t.as_str() == wanted));
        if subject_of(&root).is_some_and(|found| found.digest == subject) && type_fits {
            found.push((digest.to_string(), referrer));
        }
    }
    let path = format!("/v2/{}/referrers/{subject}", name.repository());
    let page = cut(service, request, &path, found)?;
    let index = json!({ "schemaVersion": 2, "mediaType": MediaType::OCI_INDEX, "manifests": page.items });
    let answer = page.link(Answer::new(200, MediaType::OCI_INDEX.as_str(), index.to_string().into_bytes()));
    Ok(if wanted.is_some() { answer.with("oci-filters-applied", "artifactType") } else { answer })
}

fn subject_of(root: &Root) -> Option<&Descriptor> {
    match root {
        Root::Manifest(manifest) => manifest.subject(),
        Root::Index(index) => index.subject(),
    }
}

/// An entry of the list of referrers: without an `artifactType`, a manifest has its configuration's (distribution-spec,
/// "Listing Referrers").
fn describe(root: &Root, descriptor: Descriptor) -> Descriptor {
    let (artifact_type, annotations) = match root {
        Root::Manifest(manifest) => {
            let artifact_type = manifest.artifact_type().unwrap_or(&manifest.config().media_type);
            (Some(artifact_type.clone()), manifest.annotations().clone())
        }
        Root::Index(index) => (index.artifact_type().cloned(), index.annotations().clone()),
    };
    Descriptor { artifact_type, annotations, ..descriptor }
}

/// The part of a list, which is in order, that `n` and `last` ask for.
fn cut<T>(service: &Service, request: &Request, path: &str, mut list: Vec<(String, T)>) -> Reply<Page<T>> {
    let query = request.query();
    if let Some(last) = query.first("last") {
        list.retain(|(name, _)| name.as_str() > last);
    }
    let asked: Option<usize> = query.first("n").map(str::parse).transpose().map_err(|_| Code::PaginationInvalid)?;
    let most = asked.unwrap_or(usize::MAX).min(service.manners().page_size.unwrap_or(usize::MAX));
    let more = list.len() > most;
    list.truncate(most);
    let next = list.last().filter(|_| more).map(|(last, _)| {
        let mut next = format!("{path}?n={most}&last={}", utf8_percent_encode(last, VALUE));
        if let Some(wanted) = query.first("artifactType") {
            next.push_str(&format!("&artifactType={}", utf8_percent_encode(wanted, VALUE)));
        }
        next
    });
    Ok(Page { items: list.into_iter().map(|(_, item)| item).collect(), next })
}

impl<T> Page<T> {
    fn link(&self, answer: Answer) -> Answer {
        match &self.next {
            Some(next) => answer.with("link", format!("<{next}>; rel=\"next\"")),
            None => answer,
        }
    }
}
