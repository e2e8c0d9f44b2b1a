//! Blobs: reading, in ranges too, and deleting.

use std::io::Seek;
use std::io::SeekFrom;

use super::answer::Answer;
use super::answer::Content;
use super::refusal::Code;
use super::refusal::Refusal;
use super::refusal::Reply;
use super::request::Request;
use super::service::Service;

use crate::descriptor::Descriptor;
use crate::digest::Digest;
use crate::media_type::MediaType;
use crate::reference::ImageReference;

/// Answers a request for a blob of a repository.
pub(super) fn answer(service: &Service, name: &ImageReference, digest: Digest, request: &Request) -> Reply {
    match request.method.as_str() {
        "GET" | "HEAD" => read(service, name, digest, request.header("range")),
        "DELETE" => delete(service, name, digest),
        _ => Err(Code::Unsupported.into()),
    }
}

fn read(service: &Service, name: &ImageReference, digest: Digest, range: Option<&str>) -> Reply {
    let contents = &service.contents;
    if !contents.members(name)?.blobs.contains(&digest) {
        return Err(Code::BlobUnknown.into());
    }
    let size = contents.store().size_of(digest)?.ok_or(Code::BlobUnknown)?;
    let mut file = contents.store().open_blob(&Descriptor::new(MediaType::OCTET_STREAM, digest, size))?;
    let (status, start, end) = match range.map(|range| parse_range(range, size)) {
        None | Some(Asked::Nothing) => (200, 0, size),
        Some(Asked::Part(start, end)) => (206, start, end),
        Some(Asked::Outside) => {
            return Err(Refusal(Code::RangeInvalid.answer().with("content-range", format!("bytes */{size}"))));
        }
    };
    file.seek(SeekFrom::Start(start))?;
    let mut answer = Answer::new(status, "application/octet-stream", Vec::new())
        .with("docker-content-digest", digest.to_string())
        .with("accept-ranges", "bytes");
    if status == 206 {
        answer = answer.with("content-range", format!("bytes {start}-{}/{size}", end - 1));
    }
    answer.content = Content::File { file, length: end - start, flip: None };
    Ok(answer)
}

fn delete(service: &Service, name: &ImageReference, digest: Digest) -> Reply {
    if service.manners().without_deletes {
        return Err(Code::Unsupported.into());
    }
    if !service.contents.members(name)?.blobs.contains(&digest) {
        return Err(Code::BlobUnknown.into());
    }
    service.contents.remove_blob(name, digest);
    Ok(Answer::empty(202))
}

enum Asked {
    /// Something that is no range of bytes, and is passed over.
    Nothing,
    /// From here to before there.
    Part(u64, u64),
    Outside,
}

/// `bytes=5-`, `bytes=5-9` and `bytes=-5` (RFC 9110, section 14.2).
fn parse_range(text: &str, size: u64) -> Asked {
    let Some((start, last)) = text.strip_prefix("bytes=").and_then(|range| range.split_once('-')) else {
        return Asked::Nothing;
    };
    if start.is_empty() {
        return match last.parse::<u64>() {
            Ok(count) if count > 0 && size > 0 => Asked::Part(size.saturating_sub(count), size),
            Ok(_) => Asked::Outside,
            Err(_) => Asked::Nothing,
        };
    }
    let last = if last.is_empty() { Ok(u64::MAX) } else { last.parse() };
    match (start.parse(), last) {
        (Ok(start), Ok(last)) if start < size && start <= last => Asked::Part(start, last.saturating_add(1).min(size)),
        (Ok(_), Ok(_)) => Asked::Outside,
        _ => Asked::Nothing,
    }
}
