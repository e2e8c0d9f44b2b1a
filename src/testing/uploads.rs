//! Taking blobs in: sessions, chunks, mounts.

use std::collections::HashMap;
use std::io;
use std::io::Read;
use std::sync::Arc;
use std::sync::Mutex;

use super::answer::Answer;
use super::body::Body;
use super::endpoint::parse_digest;
use super::endpoint::repository;
use super::refusal::Code;
use super::refusal::Refusal;
use super::refusal::Reply;
use super::request::Request;
use super::service::Service;

use crate::descriptor::Descriptor;
use crate::digest::Algorithm;
use crate::digest::Digest;
use crate::error::ErrorKind;
use crate::media_type::MediaType;
use crate::reference::ImageReference;
use crate::store::BlobWriter;
use crate::sync::lock;

const CHUNK: usize = 64 << 10;

/// The sessions that are open.
#[derive(Debug, Default)]
pub(super) struct Uploads(Mutex<HashMap<String, Arc<Session>>>);

#[derive(Debug)]
struct Session {
    id: String,
    repository: ImageReference,
    /// What the query of its location says, and has to say when the client comes back (D12).
    state: Option<String>,
    progress: Mutex<Progress>,
}

#[derive(Debug)]
struct Progress {
    /// None once the session is closed.
    writer: Option<BlobWriter>,
    written: u64,
    /// The last chunk was shorter than only the last may be.
    had_last: bool,
}

/// Answers a request for a new session (D13, D14, D17).
pub(super) fn open(service: &Service, name: &ImageReference, request: &Request, body: &mut Body<'_>) -> Reply {
    if request.method != "POST" {
        return Err(Code::Unsupported.into());
    }
    let query = request.query();
    if let Some(digest) = query.first("mount") {
        return mount(service, name, parse_digest(digest)?, query.first("from"));
    }
    let algorithm = match query.first("digest-algorithm") {
        Some(name) => Algorithm::ALL.into_iter().find(|a| a.name() == name).ok_or(Code::DigestInvalid)?,
        None => Algorithm::Sha256,
    };
    let Some(digest) = query.first("digest") else { return start(service, name, algorithm) };
    let digest = parse_digest(digest)?;
    if service.manners().without_single_posts {
        return start(service, name, digest.algorithm());
    }
    let session = Session::new(service, name, digest.algorithm())?;
    session.receive(service, body)?;
    finish(service, &session, digest)
}

/// Answers a request for a session that is there.
pub(super) fn answer(
    service: &Service,
    name: &ImageReference,
    id: &str,
    request: &Request,
    body: &mut Body<'_>,
) -> Reply {
    let session = service.uploads.find(name, id, request)?;
    match request.method.as_str() {
        "GET" | "HEAD" => Ok(session.describe(service, Answer::empty(204))),
        "PATCH" => {
            session.check_range(service, request, body)?;
            session.receive_chunk(service, body)?;
            Ok(session.describe(service, Answer::empty(202)))
        }
        "PUT" => {
            let digest = parse_digest(request.query().first("digest").ok_or(Code::DigestInvalid)?)?;
            session.check_range(service, request, body)?;
            session.receive(service, body)?;
            service.uploads.remove(&session);
            finish(service, &session, digest)
        }
        "DELETE" => {
            service.uploads.remove(&session);
            Ok(Answer::empty(204))
        }
        _ => Err(Code::Unsupported.into()),
    }
}

impl Uploads {
    fn find(&self, name: &ImageReference, id: &str, request: &Request) -> Reply<Arc<Session>> {
        let session = lock(&self.0).get(id).cloned().filter(|session| session.repository == *name);
        let session = session.ok_or(Code::BlobUploadUnknown)?;
        if session.state.is_some() && session.state.as_deref() != request.query().first("_state") {
            return Err(Code::BlobUploadInvalid.because(&"the query of the location was not kept"));
        }
        Ok(session)
    }

    pub(super) fn forget(&self) {
        lock(&self.0).clear();
    }

    fn remove(&self, session: &Session) {
        lock(&self.0).remove(&session.id);
    }
}

/// Without `from`, whatever repository has the blob will do (distribution-spec, "Mounting a blob from another
/// repository").
fn mount(service: &Service, name: &ImageReference, digest: Digest, from: Option<&str>) -> Reply {
    let manners = service.manners();
    let found = match from {
        _ if manners.without_mounts => false,
        Some(from) => service.contents.has_blob(&repository(&service.host, from)?, digest)?,
        None => !manners.without_anonymous_mounts && service.contents.has_blob_anywhere(&service.host, digest)?,
    };
    if !found {
        return start(service, name, digest.algorithm());
    }
    service.contents.add_blob(name, digest);
    Ok(created(service, name, digest))
}

fn start(service: &Service, name: &ImageReference, algorithm: Algorithm) -> Reply {
    let session = Arc::new(Session::new(service, name, algorithm)?);
    lock(&service.uploads.0).insert(session.id.clone(), Arc::clone(&session));
    let answer = session.describe(service, Answer::empty(202));
    Ok(match service.manners().smallest_chunk {
        Some(bytes) => answer.with("oci-chunk-min-length", bytes.to_string()),
        None => answer,
    })
}

fn finish(service: &Service, session: &Session, digest: Digest) -> Reply {
    let writer = lock(&session.progress).writer.take().ok_or(Code::BlobUploadUnknown)?;
    commit(service, writer, digest)?;
    if !service.manners().forgetful {
        service.contents.add_blob(&session.repository, digest);
    }
    Ok(created(service, &session.repository, digest))
}

fn commit(service: &Service, writer: BlobWriter, digest: Digest) -> Reply<()> {
    let promise = Descriptor::new(MediaType::OCTET_STREAM, digest, writer.written());
    let committed = if writer.digest().algorithm() == digest.algorithm() {
        writer.commit_as(&promise)
    } else {
        // A client need not say the algorithm before the end (D15); the store then has the blob under both.
        let store = service.contents.store();
        let stored = writer.commit(MediaType::OCTET_STREAM)?;
        let mut again = store.writer(digest.algorithm())?;
        io::copy(&mut store.blob(&stored)?, &mut again)?;
        again.commit_as(&promise)
    };
    committed.map_err(|error| match error.kind() {
        ErrorKind::DigestMismatch { .. } => Code::DigestInvalid.because(&error),
        _ => error.into(),
    })
}

fn created(service: &Service, name: &ImageReference, digest: Digest) -> Answer {
    let location = service.locate(&format!("/v2/{}/blobs/{digest}", name.repository()));
    Answer::empty(201).with("location", location).with("docker-content-digest", digest.to_string())
}

impl Session {
    fn new(service: &Service, name: &ImageReference, algorithm: Algorithm) -> Reply<Session> {
        let id = format!("{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..));
        let state = service.manners().stateful.then(|| format!("{:016x}=", fastrand::u64(..)));
        let writer = Some(service.contents.store().writer(algorithm)?);
        let progress = Mutex::new(Progress { writer, written: 0, had_last: false });
        Ok(Session { id, repository: name.clone(), state, progress })
    }

    /// Adds to an answer where the session is and what it has. It says `0-0` of nothing too, as Docker's registry does.
    fn describe(&self, service: &Service, answer: Answer) -> Answer {
        let mut path = format!("/v2/{}/blobs/uploads/{}", self.repository.repository(), self.id);
        if let Some(state) = &self.state {
            path.push_str(&format!("?_state={}", state.replace('=', "%3D")));
        }
        let last = lock(&self.progress).written.saturating_sub(1);
        answer
            .with("location", service.locate(&path))
            .with("range", format!("0-{last}"))
            .with("docker-upload-uuid", &self.id)
    }

    /// D14: `Content-Range`, where there is one, begins where the last chunk ended.
    fn check_range(&self, service: &Service, request: &Request, body: &Body<'_>) -> Reply<()> {
        let Some(range) = request.header("content-range") else { return Ok(()) };
        let number = |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse::<u64>().ok()).flatten();
        let (start, last) = range.split_once('-').ok_or(Code::BlobUploadInvalid)?;
        let (Some(start), Some(last)) = (number(start), number(last)) else {
            return Err(Code::BlobUploadInvalid.because(&"Content-Range is not START-END"));
        };
        if start != lock(&self.progress).written || last < start {
            return Err(Refusal(self.describe(service, Code::RangeInvalid.answer())));
        }
        if body.length().is_some_and(|length| length != (last - start).saturating_add(1)) {
            return Err(Code::SizeInvalid.into());
        }
        Ok(())
    }

    /// Takes a chunk in. One that is shorter than `OCI-Chunk-Min-Length` has to be the last.
    fn receive_chunk(&self, service: &Service, body: &mut Body<'_>) -> Reply<()> {
        if lock(&self.progress).had_last && !body.has_ended() {
            return Err(Code::BlobUploadInvalid.because(&"the chunk before was too short not to be the last"));
        }
        self.receive(service, body)?;
        let short = service.manners().smallest_chunk.is_some_and(|bytes| body.count() < bytes);
        lock(&self.progress).had_last = short;
        Ok(())
    }

    /// Takes the body in. If it breaks off, what came stays, and the client may go on from there.
    fn receive(&self, service: &Service, body: &mut Body<'_>) -> Reply<()> {
        let most = service.manners().largest_body.unwrap_or(u64::MAX);
        if body.length().is_some_and(|length| length > most) {
            return Err(Code::TooLarge.into());
        }
        let mut chunk = vec![0; CHUNK];
        loop {
            let count = body.read(&mut chunk)?;
            if count == 0 {
                return Ok(());
            }
            if body.count() > most {
                return Err(Code::TooLarge.into());
            }
            let mut progress = lock(&self.progress);
            progress.writer.as_mut().ok_or(Code::BlobUploadUnknown)?.append(&chunk[..count])?;
            progress.written += count as u64;
        }
    }
}
