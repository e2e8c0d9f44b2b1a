//! The grammar of names, as a row of steps (distribution-spec, "Pulling manifests"; Docker's `normalize.go`).

use std::net::Ipv6Addr;

use super::DEFAULT_HOST;
use super::ImageReference;
use super::OFFICIAL;
use super::ParseReferenceError;
use super::Problem;

use crate::digest::Digest;

const MAX_REPOSITORY: usize = 255;
const MAX_HOST: usize = 255;
const MAX_TAG: usize = 128;
/// A host, a repository, a tag and the longest digest, with what stands between: no name is longer.
const MAX_NAME: usize = MAX_HOST + 1 + MAX_REPOSITORY + 1 + MAX_TAG + 1 + "sha512:".len() + 128;

/// What other tools write before a `:` to say where an image is. They would read as names (`oci:dir` as the tag `dir`
/// of `oci`), and nobody means that. `docker` is not among them: `docker:dind` is an image.
const TRANSPORTS: [&str; 8] =
    ["oci", "oci-archive", "docker-archive", "docker-daemon", "containers-storage", "dir", "file", "ostree"];

pub(super) fn reference(text: &str) -> Result<ImageReference, ParseReferenceError> {
    let fail = |at, problem| Err(ParseReferenceError::new(text, at, problem));
    if text.is_empty() {
        return fail(0, Problem::Empty);
    }
    if is_identifier(text) {
        return fail(0, Problem::Identifier);
    }
    check_characters(text)?;
    let transport = |(first, rest): (&str, &str)| is_transport(first) && !rest.contains('/');
    if text.contains("://") || text.split_once(':').is_some_and(transport) {
        return fail(0, Problem::Scheme);
    }
    let (rest, digest) = split_digest(text)?;
    let (name, tag) = split_tag(text, rest)?;
    let (host, path) = split_host(name);
    if let Some(host) = host {
        check_host(text, host)?;
    }
    check_repository(text, name.len() - path.len(), path)?;
    if text.len() > MAX_NAME {
        return fail(MAX_NAME, Problem::RepositoryTooLong);
    }
    Ok(ImageReference { tag: tag.map(str::to_owned), digest, ..normalise(text, host, path)? })
}

/// Whether other tools would take this for the place of an image rather than for its name.
pub(super) fn is_transport(name: &str) -> bool {
    TRANSPORTS.contains(&name)
}

/// 64 hexadecimal digits: how an id looks.
pub(super) fn is_identifier(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'a'..=b'f'))
}

/// Whether a repository's first component would be read as a host if nothing stood before it.
pub(super) fn begins_with_host(repository: &str) -> bool {
    split_host(repository).0.is_some()
}

/// `host:port` in two; the brackets of an IPv6 address stay with the host.
pub(super) fn split_port(host: &str) -> (&str, Option<&str>) {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, Some(port)),
        _ => (host, None),
    }
}

pub(super) fn check_tag(text: &str, tag: &str, at: usize) -> Result<(), ParseReferenceError> {
    let valid = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    let fail = |at, problem| Err(ParseReferenceError::new(text, at, problem));
    if tag.is_empty() || tag.len() > MAX_TAG || tag.starts_with(['.', '-']) {
        return fail(at, Problem::Tag);
    }
    match tag.char_indices().find(|(_, c)| !c.is_ascii() || !valid(*c as u8)) {
        Some((index, c)) => fail(at + index, Problem::Character(c)),
        None => Ok(()),
    }
}

/// No name has anything but these; so no later step meets a control character, a blank or a letter with an accent.
fn check_characters(text: &str) -> Result<(), ParseReferenceError> {
    let valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/' | ':' | '@' | '[' | ']');
    match text.char_indices().find(|(_, c)| !valid(*c)) {
        Some((at, c)) => Err(ParseReferenceError::new(text, at, Problem::Character(c))),
        None => Ok(()),
    }
}

fn split_digest(text: &str) -> Result<(&str, Option<Digest>), ParseReferenceError> {
    let Some((rest, digest)) = text.split_once('@') else { return Ok((text, None)) };
    match digest.parse() {
        Ok(digest) => Ok((rest, Some(digest))),
        Err(error) => Err(ParseReferenceError::new(text, rest.len() + 1, Problem::Digest(error))),
    }
}

/// A tag follows the last `:` unless a `/` comes later, which makes it a host's port.
fn split_tag<'a>(text: &str, rest: &'a str) -> Result<(&'a str, Option<&'a str>), ParseReferenceError> {
    match rest.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => {
            check_tag(text, tag, name.len() + 1)?;
            Ok((name, Some(tag)))
        }
        _ => Ok((rest, None)),
    }
}

fn split_host(name: &str) -> (Option<&str>, &str) {
    match name.split_once('/') {
        Some((first, path)) if is_host(first) => (Some(first), path),
        _ => (None, name),
    }
}

fn is_host(first: &str) -> bool {
    first == "localhost" || first.bytes().any(|b| b.is_ascii_uppercase() || matches!(b, b'.' | b':' | b'['))
}

fn check_host(text: &str, host: &str) -> Result<(), ParseReferenceError> {
    let fail = |at, problem| Err(ParseReferenceError::new(text, at, problem));
    let (name, port) = split_port(host);
    let valid = match name.strip_prefix('[') {
        Some(address) => address.strip_suffix(']').is_some_and(is_ipv6),
        None => name.split('.').all(is_domain_component),
    };
    if !valid || host.len() > MAX_HOST {
        return fail(0, Problem::Host);
    }
    match port {
        Some(port) if !is_port(port) => fail(name.len() + 1, Problem::Port),
        _ => Ok(()),
    }
}

/// Digits and colons only: neither a zone nor an embedded IPv4 address, as Docker has it.
fn is_ipv6(address: &str) -> bool {
    !address.contains('.') && address.parse::<Ipv6Addr>().is_ok()
}

fn is_domain_component(part: &str) -> bool {
    !part.is_empty()
        && !part.starts_with('-')
        && !part.ends_with('-')
        && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

/// Leading zeros are accepted (`0080` is 80) as they are everywhere else, up to five digits.
fn is_port(port: &str) -> bool {
    port.len() <= 5 && port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|number| number != 0)
}

fn check_repository(text: &str, start: usize, path: &str) -> Result<(), ParseReferenceError> {
    let fail = |at, problem| Err(ParseReferenceError::new(text, at, problem));
    if let Some(at) = path.bytes().position(|b| b.is_ascii_uppercase()) {
        return fail(start + at, Problem::Uppercase);
    }
    if path.len() > MAX_REPOSITORY {
        return fail(start, Problem::RepositoryTooLong);
    }
    let mut at = start;
    for component in path.split('/') {
        if component.is_empty() {
            return fail(at, Problem::EmptyComponent);
        }
        if let Some((index, problem)) = component_problem(component) {
            return fail(at + index, problem);
        }
        at += component.len() + 1;
    }
    Ok(())
}

/// A component is runs of letters and digits with separators between.
fn component_problem(component: &str) -> Option<(usize, Problem)> {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let separator = |b: u8| matches!(b, b'.' | b'_' | b'-');
    let bytes = component.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let word = bytes[at..].iter().take_while(|b| alphanumeric(**b)).count();
        let gap = bytes[at + word..].iter().take_while(|b| separator(**b)).count();
        let end = at + word + gap;
        if word == 0 && gap == 0 {
            return Some((at, Problem::Character(char::from(bytes[at]))));
        }
        if word == 0 || (gap > 0 && (end == bytes.len() || !is_separator(&component[at + word..end]))) {
            return Some((at + word, Problem::Separator));
        }
        at = end;
    }
    None
}

/// `.`, `_`, `__`, or any number of dashes.
fn is_separator(gap: &str) -> bool {
    matches!(gap, "." | "_" | "__") || gap.bytes().all(|b| b == b'-')
}

fn normalise(text: &str, host: Option<&str>, path: &str) -> Result<ImageReference, ParseReferenceError> {
    let host = match host {
        None => DEFAULT_HOST,
        Some(host) if ["docker.io", "index.docker.io"].iter().any(|hub| host.eq_ignore_ascii_case(hub)) => DEFAULT_HOST,
        Some(host) => host,
    };
    let official = host == DEFAULT_HOST && !path.contains('/');
    let repository = if official { format!("{OFFICIAL}{path}") } else { path.to_owned() };
    if repository.len() > MAX_REPOSITORY {
        return Err(ParseReferenceError::new(text, 0, Problem::RepositoryTooLong));
    }
    Ok(ImageReference { host: host.to_owned(), repository, tag: None, digest: None })
}
