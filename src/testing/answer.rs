//! The pull side of the distribution protocol, over a store.

use std::fs::File;
use std::io;
use std::io::Read;
use std::io::Seek;
use std::io::SeekFrom;

use super::request::Request;

use crate::descriptor::Descriptor;
use crate::digest::Digest;
use crate::error::Result;
use crate::manifest::Root;
use crate::media_type::MediaType;
use crate::store::Store;

/// An answer before it is sent.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) content: Content,
}

#[derive(Debug)]
pub(super) enum Content {
    Bytes(Vec<u8>),
    /// The next so many bytes of a file; one bit of the byte at `flip` is to be wrong.
    File {
        file: File,
        length: u64,
        flip: Option<usize>,
    },
}

impl Content {
    pub(super) fn len(&self) -> u64 {
        match self {
            Content::Bytes(bytes) => bytes.len() as u64,
            Content::File { length, .. } => *length,
        }
    }

    pub(super) fn flip(&mut self, at: usize) {
        match self {
            Content::Bytes(bytes) => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1),
            Content::File { flip, .. } => *flip = Some(at),
        }
    }

    pub(super) fn into_reader(self) -> Box<dyn Read> {
        match self {
            Content::Bytes(bytes) => Box::new(io::Cursor::new(bytes)),
            Content::File { file, length, flip } => Box::new(Flipped { inner: file.take(length), at: 0, flip }),
        }
    }
}

struct Flipped<R> {
    inner: R,
    at: usize,
    flip: Option<usize>,
}

impl<R: Read> Read for Flipped<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        if let Some(inside) = self.flip.and_then(|flip| flip.checked_sub(self.at)).filter(|inside| *inside < count) {
            buffer[inside] ^= 1;
        }
        self.at += count;
        Ok(count)
    }
}

impl Answer {
    pub(super) fn new(status: u16, content_type: &str, body: Vec<u8>) -> Answer {
        let headers = vec![("content-type".to_owned(), content_type.to_owned())];
        Answer { status, headers, content: Content::Bytes(body) }
    }

    /// distribution-spec, "Error Codes".
    pub(super) fn error(status: u16, code: &str, message: &str) -> Answer {
        let body = serde_json::json!({ "errors": [{ "code": code, "message": message }] });
        Answer::new(status, "application/json", body.to_string().into_bytes())
    }

    pub(super) fn with(mut self, name: &str, value: impl Into<String>) -> Answer {
        self.headers.push((name.to_owned(), value.into()));
        self
    }
}

/// Answers a request from the store.
pub(super) fn answer(store: &Store, request: &Request) -> Answer {
    if request.method != "GET" && request.method != "HEAD" {
        return Answer::error(405, "UNSUPPORTED", "this registry only serves");
    }
    let path = request.path.split('?').next().unwrap_or_default();
    let found = match path.strip_prefix("/v2/") {
        Some("") => return Answer::new(200, "application/json", b"{}".to_vec()),
        Some(rest) => endpoint(store, rest, request),
        None => return Answer::error(404, "NAME_INVALID", "there is nothing here"),
    };
    found.unwrap_or_else(|error| Answer::error(500, "UNKNOWN", &error.to_string()))
}

fn endpoint(store: &Store, path: &str, request: &Request) -> Result<Answer> {
    if let Some((name, reference)) = path.rsplit_once("/manifests/") {
        manifest(store, name, reference)
    } else if let Some((name, digest)) = path.rsplit_once("/blobs/") {
        blob(store, name, digest, request.header("range"))
    } else {
        Ok(Answer::error(404, "NAME_INVALID", "there is no such endpoint"))
    }
}

/// What the store calls images of this repository, on any host.
fn entries(store: &Store, name: &str) -> Result<Vec<(Option<String>, Descriptor)>> {
    let named = store.entries()?.filter_map(Result::ok).filter_map(|(found, root)| {
        let reference = found.reference().filter(|reference| reference.repository() == name)?;
        Some((reference.tag().map(str::to_owned), root))
    });
    Ok(named.collect())
}

fn manifest(store: &Store, name: &str, reference: &str) -> Result<Answer> {
    let entries = entries(store, name)?;
    if entries.is_empty() {
        return Ok(Answer::error(404, "NAME_UNKNOWN", "repository name not known to registry"));
    }
    let unknown = || Ok(Answer::error(404, "MANIFEST_UNKNOWN", "manifest unknown"));
    let found = match reference.parse::<Digest>() {
        Ok(digest) => store.size_of(digest)?.map(|size| Descriptor::new(MediaType::OCTET_STREAM, digest, size)),
        Err(_) => entries.into_iter().find(|(tag, _)| tag.as_deref() == Some(reference)).map(|(_, root)| root),
    };
    let Some(found) = found else { return unknown() };
    let bytes = store.read(&found)?;
    let media_type = match Root::parse(bytes.clone(), None) {
        Ok(root) => root.descriptor().media_type,
        Err(_) => return unknown(),
    };
    let answer = Answer::new(200, media_type.as_str(), bytes);
    Ok(answer.with("docker-content-digest", found.digest.to_string()))
}

fn blob(store: &Store, name: &str, digest: &str, range: Option<&str>) -> Result<Answer> {
    if entries(store, name)?.is_empty() {
        return Ok(Answer::error(404, "NAME_UNKNOWN", "repository name not known to registry"));
    }
    let Ok(digest) = digest.parse::<Digest>() else {
        return Ok(Answer::error(400, "DIGEST_INVALID", "provided digest is none"));
    };
    let Some(size) = store.size_of(digest)? else {
        return Ok(Answer::error(404, "BLOB_UNKNOWN", "blob unknown to registry"));
    };
    let mut file = store.open_blob(&Descriptor::new(MediaType::OCTET_STREAM, digest, size))?;
    let (status, start, end) = match range.map(|range| parse_range(range, size)) {
        None | Some(Asked::Nothing) => (200, 0, size),
        Some(Asked::Part(start, end)) => (206, start, end),
        Some(Asked::Outside) => {
            let refusal = Answer::error(416, "RANGE_INVALID", "no such range");
            return Ok(refusal.with("content-range", format!("bytes */{size}")));
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

enum Asked {
    /// Something that is no range of bytes, and is passed over.
    Nothing,
    /// From here to before there.
    Part(u64, u64),
    Outside,
}

/// `bytes=5-` and `bytes=5-9` (RFC 9110, section 14.2).
fn parse_range(text: &str, size: u64) -> Asked {
    let Some((start, last)) = text.strip_prefix("bytes=").and_then(|range| range.split_once('-')) else {
        return Asked::Nothing;
    };
    let last = if last.is_empty() { Ok(u64::MAX) } else { last.parse() };
    match (start.parse(), last) {
        (Ok(start), Ok(last)) if start < size && start <= last => Asked::Part(start, last.saturating_add(1).min(size)),
        (Ok(_), Ok(_)) => Asked::Outside,
        _ => Asked::Nothing,
    }
}
