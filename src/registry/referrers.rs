//! What refers to a manifest: signatures, lists of contents, attestations.

use super::Access;
use super::Repository;
use super::catalog::page_of;
use super::fault::refusal;
use super::http::Request;
use super::http::Response;
use super::listing::Listing;
use super::repository::silent;
use super::url::Url;

use crate::descriptor::Descriptor;
use crate::digest::Digest;
use crate::error::Error;
use crate::error::Result;
use crate::event::Watch;
use crate::json;
use crate::manifest::Root;
use crate::media_type::MediaType;
use crate::reference::Identifier;

/// How much of a digest's algorithm and of its hexadecimal digits a tag has.
const MAX_ALGORITHM: usize = 32;
const MAX_ENCODED: usize = 64;

impl Repository {
    /// The manifests whose subject has this digest, of one type of artifact or of all (distribution-spec, "Listing
    /// Referrers"). Where the registry keeps no such lists, the one that clients keep under a tag is read ("Referrers
    /// Tag Schema"); where it does not filter, this does.
    ///
    /// # Errors
    ///
    /// An item is an error if a page cannot be had or understood: the registry refuses otherwise than by not knowing
    /// the list, pages lead in circles or to other hosts, or a descriptor is none.
    pub fn referrers(&self, subject: Digest, artifact_type: Option<&MediaType>) -> Listing<Descriptor> {
        let mut first = self.0.url(self.path(subject));
        if let Some(wanted) = artifact_type {
            first = first.with_query("artifactType", wanted.as_str());
        }
        let endpoint = self.0.clone();
        let ask = move |url: &Url| {
            let watch = silent();
            endpoint.registry().retrying(&watch, || {
                let request = Request::get(url.clone()).header("accept", MediaType::OCI_INDEX.as_str());
                let response = endpoint.send(request, &[Access::Pull(endpoint.name())], &watch)?;
                if is_list(&response) || is_unknown(&response) { Ok(response) } else { Err(refusal(response)) }
            })
        };
        let (repository, wanted) = (self.clone(), artifact_type.cloned());
        let read = move |response: Response| {
            let is_filtered = applies(&response, "artifactType");
            let mut list = if is_list(&response) { entries(response)? } else { repository.tagged(subject)? };
            if let Some(wanted) = wanted.as_ref().filter(|_| !is_filtered) {
                list.retain(|entry| entry.artifact_type.as_ref() == Some(wanted));
            }
            Ok(list)
        };
        Listing::new(first, Box::new(ask), Box::new(read))
    }

    /// Whether the registry itself keeps the lists of referrers.
    pub(super) fn lists_referrers(&self, subject: Digest, watch: &Watch<'_>) -> Result<bool> {
        self.0.registry().retrying(watch, || {
            let request = Request::get(self.0.url(self.path(subject)));
            let response = self.0.send(request, &[Access::Pull(self.name())], watch)?;
            if is_list(&response) || is_unknown(&response) { Ok(is_list(&response)) } else { Err(refusal(response)) }
        })
    }

    fn path(&self, subject: Digest) -> String {
        format!("/v2/{}/referrers/{subject}", self.name())
    }

    /// The list that clients keep. If there is none, or something else, nothing refers to the subject.
    fn tagged(&self, subject: Digest) -> Result<Vec<Descriptor>> {
        match self.fetch(&Identifier::Tag(tag_of(subject))) {
            Ok(Root::Index(index)) => Ok(index.manifests().to_vec()),
            Ok(Root::Manifest(_)) => Ok(Vec::new()),
            Err(error) if error.is_not_found() => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }
}

fn is_list(response: &Response) -> bool {
    let media_type = response.header("content-type").map(MediaType::from);
    response.status() == 200 && media_type.is_some_and(|found| found.essence() == MediaType::OCI_INDEX.as_str())
}

/// Registries without such lists answer in many ways; 404 is the one in the specification.
fn is_unknown(response: &Response) -> bool {
    matches!(response.status(), 200 | 400 | 404 | 405 | 406)
}

/// Whether the registry says that it has applied a filter.
fn applies(response: &Response, filter: &str) -> bool {
    response.headers("oci-filters-applied").flat_map(|list| list.split(',')).any(|applied| applied.trim() == filter)
}

fn entries(response: Response) -> Result<Vec<Descriptor>> {
    let index: serde_json::Value = page_of(response, &json::DOCUMENT)?;
    let list = index.get("manifests").filter(|list| !list.is_null()).cloned().unwrap_or_else(|| serde_json::json!([]));
    serde_json::from_value(list).map_err(|error| Error::invalid_document("list of referrers", error))
}

/// The tag under which clients keep the list (distribution-spec, "Referrers Tag Schema").
pub(super) fn tag_of(subject: Digest) -> String {
    tag(subject.algorithm().name(), &subject.hex().to_string())
}

fn tag(algorithm: &str, encoded: &str) -> String {
    let fit = |text: &str, most: usize| -> String {
        let allowed = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') { c } else { '-' };
        text.chars().take(most).map(allowed).collect()
    };
    format!("{}-{}", fit(algorithm, MAX_ALGORITHM), fit(encoded, MAX_ENCODED))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// D24, with the specification's own examples.
    #[test]
    fn digests_become_tags() {
        let a = "a".repeat(128);
        assert_eq!(tag("sha256", &a[..64]), format!("sha256-{}", &a[..64]));
        assert_eq!(tag("sha512", &a), format!("sha512-{}", &a[..64]));
        assert_eq!(
            tag(
                "test+algorithm+using+algorithm+separators+and+lots+of+characters+to+excercise+overall+truncation",
                "alsoSome=InTheEncodedSectionToShowHyphenReplacementAndLotsAndLotsOfCharactersToExcerciseEncodedTruncation"
            ),
            "test-algorithm-using-algorithm-s-alsoSome-InTheEncodedSectionToShowHyphenReplacementAndLotsAndLot"
        );
    }
}
