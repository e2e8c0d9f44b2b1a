//! The members of an archive: taken aside as they come, and found again by what documents call them.
//!
//! Members may come in any order, and only documents, which often come last, say what they are for. So whatever can be
//! a blob is taken aside in the store, where nobody sees it, and gets a name, or goes, when all was read.

use std::collections::HashMap;
use std::collections::hash_map;
use std::io;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;

use super::intake::Budget;
use super::intake::Intake;

use crate::changeset::Entries;
use crate::changeset::Entry;
use crate::changeset::EntryKind;
use crate::changeset::Limits;
use crate::changeset::split;
use crate::compression::Compression;
use crate::descriptor::Descriptor;
use crate::digest::Algorithm;
use crate::digest::Digest;
use crate::error::Context;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Limit;
use crate::error::Result;
use crate::error::printable;
use crate::event::Cancel;
use crate::manifest::MAX_DOCUMENT;
use crate::store::BlobWriter;
use crate::store::Parked;
use crate::store::Store;

pub(super) const LAYOUT: &str = "oci-layout";
pub(super) const INDEX: &str = "index.json";
pub(super) const MANIFEST: &str = "manifest.json";

const BUFFER: usize = 64 << 10;
/// How many members are held with their files open.
const MAX_OPEN: usize = 64;
/// How many bytes of documents among the blobs are read, those counted again that several lead to.
const MAX_DOCUMENTS: u64 = 256 << 20;
/// How many links lead from one to the next.
const MAX_LINKS: usize = 16;

/// What an archive has, by path.
pub(super) struct Members {
    by_path: HashMap<Vec<u8>, Member>,
    held: Vec<Held>,
    open: usize,
    /// How many bytes of documents were read.
    documents: u64,
    /// Budget of the bytes that come out of the archive and of the layers in it.
    budget: Budget,
}

enum Member {
    /// A document, in memory.
    Document(Vec<u8>),
    /// Something that may be a blob: its number among those.
    Held(usize),
    /// Another name for what is there, links followed.
    Link(Vec<u8>),
}

/// A member that may be a blob, aside.
pub(super) struct Held {
    pub(super) digest: Digest,
    pub(super) size: u64,
    pub(super) compression: Compression,
    content: Content,
}

enum Content {
    Open(BlobWriter),
    Parked(Parked),
    Gone,
}

impl Members {
    /// Reads an archive to its end.
    pub(super) fn read(reader: impl Read, store: &Store, limits: Limits, cancel: &Cancel) -> Result<Members> {
        let budget = Budget::new(limits);
        let intake = Intake::new(reader, &budget, cancel)?;
        let mut taker = Taker { store, budget: budget.clone(), out: 0, buffer: vec![0; BUFFER] };
        let mut entries = Entries::new(intake.buffered(), limits);
        let mut members = Members { by_path: HashMap::new(), held: Vec::new(), open: 0, documents: 0, budget };
        while entries.advance().map_err(Error::of_archive)? {
            let Some(mut entry) = entries.current() else { break };
            let name = printable(&String::from_utf8_lossy(entry.written_path()), 200);
            members.take(&mut entry, &mut taker).map_err(Error::of_archive).context(|| format!("member {name:?}"))?;
        }
        Ok(members)
    }

    fn take(&mut self, entry: &mut Entry<'_>, taker: &mut Taker<'_>) -> Result<()> {
        let path = inside(b"", entry.written_path())?;
        let member = match entry.kind() {
            EntryKind::File if is_idle(&path) => return Ok(()),
            EntryKind::File if is_document(&path) => Member::Document(taker.document(entry)?),
            EntryKind::File => self.hold(taker.blob(&path, entry)?)?,
            EntryKind::Symlink { target } => Member::Link(inside(split(&path).0, target.as_os_str().as_bytes())?),
            EntryKind::HardLink { target } => Member::Link(inside(b"", target.as_os_str().as_bytes())?),
            // Nothing that a document can lead to.
            _ => return Ok(()),
        };
        self.put(path, member)
    }

    /// A member that comes twice is one that two readers may take for two things.
    fn put(&mut self, path: Vec<u8>, member: Member) -> Result<()> {
        match self.by_path.entry(path) {
            hash_map::Entry::Vacant(place) => {
                place.insert(member);
                Ok(())
            }
            hash_map::Entry::Occupied(place) => match (place.get(), &member) {
                (Member::Document(first), Member::Document(second)) if first == second => Ok(()),
                (Member::Link(first), Member::Link(second)) if first == second => Ok(()),
                (Member::Held(first), Member::Held(second))
                    if self.held[*first].digest == self.held[*second].digest =>
                {
                    Ok(())
                }
                _ => Err(Error::invalid_archive("it comes twice, and differs")),
            },
        }
    }

    fn hold(&mut self, (writer, compression): (BlobWriter, Compression)) -> Result<Member> {
        let (digest, size) = (writer.digest(), writer.written());
        let content = if self.open < MAX_OPEN {
            self.open += 1;
            Content::Open(writer)
        } else {
            Content::Parked(writer.park()?)
        };
        self.held.push(Held { digest, size, compression, content });
        Ok(Member::Held(self.held.len() - 1))
    }

    /// A document at the top.
    pub(super) fn document(&self, path: &str) -> Option<&[u8]> {
        match self.by_path.get(path.as_bytes())? {
            Member::Document(content) => Some(content),
            _ => None,
        }
    }

    /// The number of what a path leads to; links inside the archive are followed.
    pub(super) fn find(&self, path: &str) -> Result<usize> {
        let mut place = inside(b"", path.as_bytes())?;
        for _ in 0..=MAX_LINKS {
            match self.by_path.get(&place) {
                Some(Member::Held(number)) => return Ok(*number),
                Some(Member::Link(target)) => place = target.clone(),
                Some(Member::Document(_)) | None => {
                    return Err(Error::not_found(format!("member {:?}", printable(path, 200))));
                }
            }
        }
        Err(Error::invalid_archive(format!("the links at {:?} lead to nothing", printable(path, 200))))
    }

    /// The number of a blob, by its place in a layout; none if the archive does not have it.
    pub(super) fn blob(&self, digest: Digest) -> Option<usize> {
        self.find(&blob_path(digest)).ok().filter(|number| self.held[*number].digest == digest)
    }

    pub(super) fn held(&self, number: usize) -> &Held {
        &self.held[number]
    }

    /// The content of a document among the blobs.
    pub(super) fn content(&mut self, number: usize) -> Result<Vec<u8>> {
        let held = &mut self.held[number];
        if held.size > MAX_DOCUMENT {
            return Err(Error::limit(Limit::DocumentSize, MAX_DOCUMENT));
        }
        self.documents += held.size;
        if self.documents > MAX_DOCUMENTS {
            return Err(Error::limit(Limit::DocumentSize, MAX_DOCUMENTS));
        }
        let mut content = Vec::new();
        held.reopened()?.reader().read_to_end(&mut content)?;
        Ok(content)
    }

    /// The digest of the tar that a held layer is, whatever its compression.
    pub(super) fn diff_id(&mut self, number: usize, cancel: &Cancel) -> Result<Digest> {
        let held = &mut self.held[number];
        if held.compression == Compression::None {
            return Ok(held.digest);
        }
        let mut tar = Intake::new(held.reopened()?.reader(), &self.budget, cancel)?;
        let mut hasher = crate::digest::Hasher::new(Algorithm::Sha256);
        let mut buffer = vec![0; BUFFER];
        loop {
            match tar.read(&mut buffer)? {
                0 => return Ok(hasher.finish()),
                count => hasher.update(&buffer[..count]),
            }
        }
    }

    /// Gives what is held its name in the store.
    pub(super) fn commit(&mut self, number: usize, promise: &Descriptor) -> Result<()> {
        let held = &mut self.held[number];
        match std::mem::replace(&mut held.content, Content::Gone) {
            Content::Open(writer) => writer.commit_as(promise),
            Content::Parked(parked) => parked.reopen()?.commit_as(promise),
            Content::Gone => Ok(()),
        }
    }
}

impl Held {
    fn reopened(&mut self) -> Result<&BlobWriter> {
        if let Content::Parked(_) = self.content
            && let Content::Parked(parked) = std::mem::replace(&mut self.content, Content::Gone)
        {
            self.content = Content::Open(parked.reopen()?);
        }
        match &self.content {
            Content::Open(writer) => Ok(writer),
            _ => Err(Error::not_found(format!("blob {}", self.digest))),
        }
    }
}

/// What takes contents.
struct Taker<'a> {
    store: &'a Store,
    budget: Budget,
    /// How many bytes were taken, holes counted.
    out: u64,
    buffer: Vec<u8>,
}

impl Taker<'_> {
    /// CVE-2023-25153: a document is no larger than documents are.
    fn document(&mut self, entry: &mut Entry<'_>) -> Result<Vec<u8>> {
        if entry.size() > MAX_DOCUMENT {
            return Err(Error::limit(Limit::DocumentSize, MAX_DOCUMENT));
        }
        let mut content = Vec::new();
        entry.read_to_end(&mut content)?;
        Ok(content)
    }

    /// Takes a content aside; what is where a layout has blobs must be what its name says.
    fn blob(&mut self, path: &[u8], entry: &mut Entry<'_>) -> Result<(BlobWriter, Compression)> {
        let promised = digest_of(path);
        let mut writer = self.store.writer(promised.map_or(Algorithm::Sha256, |digest| digest.algorithm()))?;
        let mut start = Vec::with_capacity(4);
        if entry.has_holes() {
            // Before the zeros are written and not after.
            self.budget.check(self.out.saturating_add(entry.size()))?;
        }
        loop {
            let count = match entry.read(&mut self.buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            let bytes = &self.buffer[..count];
            start.extend(bytes.iter().take(4 - start.len()));
            self.out += count as u64;
            self.budget.check(self.out)?;
            writer.append(bytes)?;
        }
        let found = writer.digest();
        match promised {
            Some(expected) if expected != found => Err(ErrorKind::DigestMismatch { expected, found }.into()),
            _ => Ok((writer, Compression::detect(&start))),
        }
    }
}

/// Where a layout has a blob.
pub(super) fn blob_path(digest: Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm(), digest.hex())
}

fn digest_of(path: &[u8]) -> Option<Digest> {
    let (algorithm, hex) = std::str::from_utf8(path).ok()?.strip_prefix("blobs/")?.split_once('/')?;
    format!("{algorithm}:{hex}").parse().ok()
}

fn is_document(path: &[u8]) -> bool {
    [LAYOUT, INDEX, MANIFEST].iter().any(|name| name.as_bytes() == path)
}

/// What Docker before 1.10 needed, and others since then leave alone.
fn is_idle(path: &[u8]) -> bool {
    let (parent, name) = split(path);
    (parent.is_empty() && name == b"repositories") || (!parent.is_empty() && (name == b"json" || name == b"VERSION"))
}

/// Where a path leads from a directory of the archive. It never is a path of the file system; but whoever writes one
/// that leads out means no good.
fn inside(from: &[u8], path: &[u8]) -> Result<Vec<u8>> {
    let mut place: Vec<&[u8]> = from.split(|byte| *byte == b'/').filter(|part| !part.is_empty()).collect();
    let leads_out = || Error::invalid_archive("a path leads out of the archive");
    if path.starts_with(b"/") {
        return Err(leads_out());
    }
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(place.pop().ok_or_else(leads_out)?),
            name => place.push(name),
        }
    }
    Ok(place.join(&b'/'))
}
