//! Upload sessions: what came of a blob so far.

use std::collections::HashMap;
use std::io::Read;
use std::sync::Arc;
use std::sync::Mutex;

use super::answer::Answer;
use super::body::Body;
use super::manners::Manners;
use super::refusal::Code;
use super::refusal::Refusal;
use super::refusal::Reply;
use super::request::Request;

use crate::reference::ImageReference;
use crate::store::BlobWriter;
use crate::sync::lock;

const CHUNK: usize = 64 << 10;

/// The sessions that are open.
#[derive(Debug, Default)]
pub(super) struct Sessions(Mutex<HashMap<String, Arc<Session>>>);

/// A blob on its way in.
#[derive(Debug)]
pub(super) struct Session {
    id: String,
    pub(super) repository: ImageReference,
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

impl Sessions {
    /// The session of a location, as the client comes back to it.
    pub(super) fn find(&self, name: &ImageReference, id: &str, request: &Request) -> Reply<Arc<Session>> {
        let session = lock(&self.0).get(id).cloned().filter(|session| session.repository == *name);
        let session = session.ok_or(Code::BlobUploadUnknown)?;
        if session.state.is_some() && session.state.as_deref() != request.query().first("_state") {
            return Err(Code::BlobUploadInvalid.because(&"the query of the location was not kept"));
        }
        Ok(session)
    }

    pub(super) fn insert(&self, session: &Arc<Session>) {
        lock(&self.0).insert(session.id.clone(), Arc::clone(session));
    }

    pub(super) fn forget(&self) {
        lock(&self.0).clear();
    }

    pub(super) fn remove(&self, session: &Session) {
        lock(&self.0).remove(&session.id);
    }
}

impl Session {
    pub(super) fn new(name: &ImageReference, writer: BlobWriter, manners: &Manners) -> Session {
        let id = format!("{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..));
        let state = manners.stateful.then(|| format!("{:016x}=", fastrand::u64(..)));
        let progress = Mutex::new(Progress { writer: Some(writer), written: 0, had_last: false });
        Session { id, repository: name.clone(), state, progress }
    }

    /// Adds to an answer where the session is and what it has. It says `0-0` of nothing too, as Docker's registry does.
    pub(super) fn describe(&self, manners: &Manners, answer: Answer) -> Answer {
        let mut path = format!("/v2/{}/blobs/uploads/{}", self.repository.repository(), self.id);
        if let Some(state) = &self.state {
            path.push_str(&format!("?_state={}", state.replace('=', "%3D")));
        }
        let last = lock(&self.progress).written.saturating_sub(1);
        answer
            .with("location", manners.locate(&path))
            .with("range", format!("0-{last}"))
            .with("docker-upload-uuid", &self.id)
    }

    /// D14: `Content-Range`, where there is one, begins where the last chunk ended.
    pub(super) fn check_range(&self, manners: &Manners, request: &Request, body: &Body<'_>) -> Reply<()> {
        let Some(range) = request.header("content-range") else { return Ok(()) };
        let number = |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse::<u64>().ok()).flatten();
        let (start, last) = range.split_once('-').ok_or(Code::BlobUploadInvalid)?;
        let (Some(start), Some(last)) = (number(start), number(last)) else {
            return Err(Code::BlobUploadInvalid.because(&"Content-Range is not START-END"));
        };
        if start != lock(&self.progress).written || last < start {
            return Err(Refusal(self.describe(manners, Code::RangeInvalid.answer())));
        }
        if body.length().is_some_and(|length| length != (last - start).saturating_add(1)) {
            return Err(Code::SizeInvalid.into());
        }
        Ok(())
    }

    /// Takes a chunk in. One that is shorter than `OCI-Chunk-Min-Length` has to be the last.
    pub(super) fn receive_chunk(&self, manners: &Manners, body: &mut Body<'_>) -> Reply<()> {
        if lock(&self.progress).had_last && !body.has_ended() {
            return Err(Code::BlobUploadInvalid.because(&"the chunk before was too short not to be the last"));
        }
        self.receive(manners, body)?;
        let short = manners.smallest_chunk.is_some_and(|bytes| body.count() < bytes);
        lock(&self.progress).had_last = short;
        Ok(())
    }

    /// Takes the body in. If it breaks off, what came stays, and the client may go on from there.
    pub(super) fn receive(&self, manners: &Manners, body: &mut Body<'_>) -> Reply<()> {
        let most = manners.largest_body.unwrap_or(u64::MAX);
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

    /// Closes the session, and gives what took the blob in.
    pub(super) fn close(&self) -> Reply<BlobWriter> {
        lock(&self.progress).writer.take().ok_or_else(|| Code::BlobUploadUnknown.into())
    }
}
