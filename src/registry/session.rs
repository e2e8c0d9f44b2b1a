//! What is asked of a registry around an upload: to open it, to give it up, to mount a blob in its place, to say whether a
//! blob is there.

use super::Access;
use super::endpoint::Endpoint;
use super::fault::is_refused;
use super::fault::refusal;
use super::http::Payload;
use super::http::Request;
use super::http::Response;
use super::reach::Lead;
use super::reach::Way;
use super::repository::content_digest;
use super::url::Url;

use crate::descriptor::Descriptor;
use crate::digest::Algorithm;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::event::Watch;

/// An upload that a registry has opened.
pub(super) struct Session {
    pub(super) location: Url,
    /// How many bytes the registry has; none where it has to be asked.
    pub(super) offset: Option<u64>,
    /// The least that a chunk may have, unless it is the last.
    pub(super) smallest: u64,
    /// Whether anything was sent to it.
    pub(super) used: bool,
}

/// Tells the registry that a session is not needed (distribution-spec, "Cancel an upload").
pub(super) fn give_up(endpoint: &Endpoint, session: &Session, watch: &Watch<'_>) {
    if session.location.origin == *endpoint.origin() {
        let _ = send(endpoint, Request::delete(session.location.clone()), watch);
    }
}

/// Whether the registry itself has the blob; mirrors are not asked.
pub(super) fn has(endpoint: &Endpoint, blob: &Descriptor, access: &Access<'_>, watch: &Watch<'_>) -> Result<bool> {
    let request = Request::head(endpoint.url(endpoint.blob_path(blob.digest)));
    let response = endpoint.send(request, &[*access], watch)?;
    match response.status() {
        // Some proxies say 0 of whatever has no body; some registries have an empty file.
        200 if response.content_length() == Some(0) && blob.size > 0 => begins(endpoint, blob, access, watch),
        200 => Ok(response.content_length().is_none_or(|length| length == blob.size)),
        404 => Ok(false),
        _ => Err(refusal(response)),
    }
}

/// The same by beginning to fetch the blob.
fn begins(endpoint: &Endpoint, blob: &Descriptor, access: &Access<'_>, watch: &Watch<'_>) -> Result<bool> {
    let url = endpoint.url(endpoint.blob_path(blob.digest));
    let response = endpoint.send(Request { expected: blob.size, ..Request::get(url) }, &[*access], watch)?;
    match response.status() {
        200 => {
            let is_whole = response.content_length().is_none_or(|length| length == blob.size);
            response.into_body().discard();
            Ok(is_whole)
        }
        404 => Ok(false),
        _ => Err(refusal(response)),
    }
}

/// Opens a session.
pub(super) fn open(endpoint: &Endpoint, blob: &Descriptor, watch: &Watch<'_>) -> Result<Session> {
    let mut url = endpoint.url(uploads(endpoint));
    if blob.digest.algorithm() != Algorithm::Sha256 {
        url = url.with_query("digest-algorithm", blob.digest.algorithm().name());
    }
    let response =
        endpoint.send(Request::send("POST", url, Payload::Bytes(&[])), &[Access::Push(endpoint.name())], watch)?;
    match response.status() {
        202 => session(endpoint, &response),
        _ => Err(refusal(response)),
    }
}

/// What came of an attempt to have a blob of another repository.
pub(super) enum Mount {
    Mounted,
    /// The registry will not, but has opened a session.
    Opened(Session),
    Refused,
}

/// Asks for a blob of another repository of the same registry (distribution-spec, "Mounting a blob from another
/// repository"). Any refusal only means that it has to be sent.
pub(super) fn mount(endpoint: &Endpoint, blob: &Descriptor, from: &str, watch: &Watch<'_>) -> Result<Mount> {
    let url = endpoint.url(uploads(endpoint)).with_query("mount", &blob.digest.to_string()).with_query("from", from);
    let access = [Access::Push(endpoint.name()), Access::Pull(from)];
    let response = match endpoint.send(Request::send("POST", url, Payload::Bytes(&[])), &access, watch) {
        Ok(response) => response,
        // A token server may refuse a token for both, and some registries fail at mounting as such.
        Err(error) if matches!(error.kind(), ErrorKind::Registry(_)) => return Ok(Mount::Refused),
        Err(error) => return Err(error),
    };
    match response.status() {
        // Not every registry that says so has it.
        201 if check_digest(blob, &response).is_ok() => {
            match has(endpoint, blob, &Access::Push(endpoint.name()), watch) {
                Ok(true) => Ok(Mount::Mounted),
                Ok(false) => Ok(Mount::Refused),
                // Where nobody can look, it is sent.
                Err(error) if is_refused(&error) => Ok(Mount::Refused),
                Err(error) => Err(error),
            }
        }
        202 => Ok(session(endpoint, &response).map_or(Mount::Refused, Mount::Opened)),
        _ => Ok(Mount::Refused),
    }
}

fn uploads(endpoint: &Endpoint) -> String {
    format!("/v2/{}/blobs/uploads/", endpoint.name())
}

fn session(endpoint: &Endpoint, response: &Response) -> Result<Session> {
    let smallest = response.header("oci-chunk-min-length").and_then(|text| text.trim().parse().ok()).unwrap_or(0);
    Ok(Session { location: location(endpoint, response)?, offset: Some(0), smallest, used: false })
}

/// Where an answer says that the upload goes on: anywhere on the registry; elsewhere only at an address that is signed
/// for this, and never at a weaker place. Credentials stay with the registry.
pub(super) fn location(endpoint: &Endpoint, response: &Response) -> Result<Url> {
    let Some(location) = response.header("location") else {
        return Err(nonsense("the registry opens an upload nowhere"));
    };
    let url = response.url().join(location)?;
    if url.origin != *endpoint.origin() {
        let lead = lead(endpoint);
        endpoint.registry().check_lead(&lead, &url.origin)?;
        if !url.has_query() {
            return Err(lead.refuse(&url.origin, "another host"));
        }
    }
    Ok(url)
}

/// The answer that named the location of an upload elsewhere.
fn lead(endpoint: &Endpoint) -> Lead {
    Lead { from: endpoint.origin().clone(), way: Way::Upload }
}

/// Sends a request about a session. Only the registry itself gets credentials.
pub(super) fn send(endpoint: &Endpoint, request: Request<'_>, watch: &Watch<'_>) -> Result<Response> {
    if request.url.origin == *endpoint.origin() {
        endpoint.send(request, &[Access::Push(endpoint.name())], watch)
    } else {
        endpoint.registry().send_as_nobody(Request { lead: Some(lead(endpoint)), ..request })
    }
}

pub(super) fn check_digest(blob: &Descriptor, response: &Response) -> Result<()> {
    match content_digest(response)? {
        Some(found) if found.algorithm() == blob.digest.algorithm() && found != blob.digest => {
            Err(ErrorKind::DigestMismatch { expected: blob.digest, found }.into())
        }
        _ => Ok(()),
    }
}

/// `0-499`: how many bytes that are, from the first.
pub(super) fn parse_range(text: &str) -> Option<u64> {
    let (start, last) = text.trim().strip_prefix("bytes=").unwrap_or(text.trim()).split_once('-')?;
    if (start, last) == ("0", "-1") {
        // zot says so of an empty session.
        return Some(0);
    }
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if start != "0" || !digits(last) {
        return None;
    }
    last.parse::<u64>().ok()?.checked_add(1)
}

const NONSENSE: &str = "upload: ";

pub(super) fn nonsense(reason: &str) -> Error {
    ErrorKind::Protocol { reason: format!("{NONSENSE}{reason}") }.into()
}

pub(super) fn is_nonsense(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Protocol { reason } if reason.starts_with(NONSENSE))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// D14: from the first byte on, both ends included; anything else is no offset.
    #[test]
    fn ranges_say_how_much_is_there() {
        assert_eq!(parse_range("0-499"), Some(500));
        assert_eq!(parse_range("bytes=0-0"), Some(1));
        assert_eq!(parse_range("0--1"), Some(0));
        for rubbish in
            ["", "0", "-", "0-", "-5", "0--5", "5-9", "0-+5", "0-18446744073709551615", "0-99999999999999999999"]
        {
            assert_eq!(parse_range(rubbish), None, "{rubbish:?}");
        }
    }
}
