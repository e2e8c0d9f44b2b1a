//! Taking blobs in: sessions, chunks, mounts.

use std::io;
use std::sync::Arc;

use super::answer::Answer;
use super::body::Body;
use super::endpoint::parse_digest;
use super::endpoint::repository;
use super::refusal::Code;
use super::refusal::Reply;
use super::request::Request;
use super::service::Service;
use super::sessions::Session;

use crate::descriptor::Descriptor;
use crate::digest::Algorithm;
use crate::digest::Digest;
use crate::error::ErrorKind;
use crate::media_type::MediaType;
use crate::reference::ImageReference;
use crate::store::BlobWriter;

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
    let session = new_session(service, name, digest.algorithm())?;
    session.receive(&service.manners(), body)?;
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
    let session = service.sessions.find(name, id, request)?;
    let manners = service.manners();
    match request.method.as_str() {
        "GET" | "HEAD" => Ok(session.describe(&manners, Answer::empty(204))),
        "PATCH" => {
            session.check_range(&manners, request, body)?;
            session.receive_chunk(&manners, body)?;
            Ok(session.describe(&manners, Answer::empty(202)))
        }
        "PUT" => {
            let digest = parse_digest(request.query().first("digest").ok_or(Code::DigestInvalid)?)?;
            session.check_range(&manners, request, body)?;
            session.receive(&manners, body)?;
            service.sessions.remove(&session);
            finish(service, &session, digest)
        }
        "DELETE" => {
            service.sessions.remove(&session);
            Ok(Answer::empty(204))
        }
        _ => Err(Code::Unsupported.into()),
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
    let session = Arc::new(new_session(service, name, algorithm)?);
    service.sessions.insert(&session);
    let manners = service.manners();
    let answer = session.describe(&manners, Answer::empty(202));
    Ok(match manners.smallest_chunk {
        Some(bytes) => answer.with("oci-chunk-min-length", bytes.to_string()),
        None => answer,
    })
}

fn new_session(service: &Service, name: &ImageReference, algorithm: Algorithm) -> Reply<Session> {
    let writer = service.contents.store().writer(algorithm)?;
    Ok(Session::new(name, writer, &service.manners()))
}

fn finish(service: &Service, session: &Session, digest: Digest) -> Reply {
    commit(service, session.close()?, digest)?;
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
    let location = service.manners().locate(&format!("/v2/{}/blobs/{digest}", name.repository()));
    Answer::empty(201).with("location", location).with("docker-content-digest", digest.to_string())
}
