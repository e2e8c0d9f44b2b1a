//! One pull on its way: documents, then layers, then the name.

use std::cell::RefCell;
use std::collections::HashSet;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use std::time::Instant;

use super::arrivals::Arrivals;
use super::arrivals::Arrived;
use super::jobs;
use super::pulled::PullStatus;
use super::pulled::Transferred;

use crate::descriptor::Descriptor;
use crate::error::Context;
use crate::error::Result;
use crate::event::Event;
use crate::event::Watch;
use crate::manifest::Config;
use crate::manifest::Manifest;
use crate::manifest::Root;
use crate::manifest::choose;
use crate::platform::Platform;
use crate::reference::Identifier;
use crate::reference::ImageReference;
use crate::registry::Download;
use crate::registry::Repository;
use crate::registry::is_refused;
use crate::store::BlobWriter;
use crate::store::Name;
use crate::store::Store;

/// How much of a blob is hashed and written at a time: large writes that begin at multiples of their size are cheaper.
const CHUNK: usize = 256 << 10;
/// For how long a chunk is waited for. After that, whoever watches or reads gets what is there, as soon as more comes or
/// nothing does for as long as a connection may be silent.
const PATIENCE: Duration = Duration::from_millis(50);

/// One pull on its way.
pub(super) struct Run<'a> {
    repository: Repository,
    store: &'a Store,
    watch: Watch<'a>,
    fetched: Transferred,
    reused: Transferred,
    /// The documents that were found in the store, or brought there.
    relied_on: Vec<Descriptor>,
}

impl<'a> Run<'a> {
    pub(super) fn new(repository: Repository, store: &'a Store, watch: Watch<'a>) -> Run<'a> {
        let (fetched, reused) = (Transferred::default(), Transferred::default());
        Run { repository, store, watch, fetched, reused, relied_on: Vec::new() }
    }

    /// What came from the registry, and what the store had.
    pub(super) fn account(&self) -> (Transferred, Transferred) {
        (self.fetched, self.reused)
    }

    /// What the name means: asked with HEAD, fetched only if the store does not have it.
    pub(super) fn root(&mut self, identifier: &Identifier, before: Option<&Descriptor>) -> Result<Root> {
        let promised = match self.repository.resolve_watched(identifier, &self.watch) {
            Ok(promised) => promised,
            // An answer to HEAD has no body that could explain it; the answer to GET does, or is the manifest.
            Err(error) if is_refused(&error) => None,
            Err(error) => return Err(error),
        };
        let Some(promised) = promised else { return self.fetch_root(identifier) };
        let known = before.filter(|root| root.digest == promised.digest).unwrap_or(&promised);
        match self.stored(known)? {
            Some(root) => Ok(root),
            // By digest: the tag may have moved since it was asked for.
            None => self.fetch_root(&Identifier::Digest(promised.digest)),
        }
    }

    fn fetch_root(&mut self, identifier: &Identifier) -> Result<Root> {
        let root = self.repository.fetch_watched(identifier, &self.watch)?;
        self.keep(&root.descriptor(), root.raw())?;
        Ok(root)
    }

    /// The manifest or index that a descriptor promises.
    pub(super) fn document(&mut self, descriptor: &Descriptor) -> Result<Root> {
        if let Some(root) = self.stored(descriptor)? {
            return Ok(root);
        }
        let root = self.repository.fetch_promised_watched(descriptor, &self.watch)?;
        self.keep(descriptor, root.raw())?;
        Ok(root)
    }

    /// The same from the store; what is damaged there is as good as missing.
    fn stored(&mut self, descriptor: &Descriptor) -> Result<Option<Root>> {
        match self.store.document(descriptor) {
            Ok(root) => {
                self.reuse(descriptor);
                Ok(Some(root))
            }
            Err(error) if error.is_as_good_as_missing() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Counts a document that the store has. One that this pull brought is counted already.
    fn reuse(&mut self, descriptor: &Descriptor) {
        if self.relied_on.iter().all(|blob| blob.digest != descriptor.digest) {
            self.reused.add(descriptor.size);
            self.relied_on.push(descriptor.clone());
        }
    }

    fn keep(&mut self, descriptor: &Descriptor, content: &[u8]) -> Result<()> {
        self.store.write_as(descriptor, content)?;
        self.fetched.add(descriptor.size);
        self.relied_on.push(descriptor.clone());
        Ok(())
    }

    /// The manifest for the platform, fetched as far as it is not in the store.
    pub(super) fn choose(&mut self, document: Root, platform: &Platform) -> Result<Manifest> {
        // Both ways to get more need all of this; only one is used at a time.
        let run = RefCell::new(self);
        choose(document, platform, &mut |entry| run.borrow_mut().document(entry), &mut |manifest| {
            Ok(run.borrow_mut().configuration(manifest)?.and_then(|config| config.platform()))
        })
    }

    /// Gets an image's configuration, and checks that the image can be what it says before layers are fetched.
    pub(super) fn config(&mut self, manifest: &Manifest, platform: Option<&Platform>) -> Result<()> {
        let Some(config) = self.configuration(manifest)? else { return Ok(()) };
        config.check_layers(manifest.layers().len())?;
        platform.map_or(Ok(()), |platform| config.check_platform(platform))
    }

    /// An image's configuration; artifacts have none.
    fn configuration(&mut self, manifest: &Manifest) -> Result<Option<Config>> {
        let descriptor = manifest.config();
        if !descriptor.media_type.is_config() {
            return Ok(None);
        }
        let bytes = match self.store.read(descriptor) {
            Ok(bytes) => {
                self.reuse(descriptor);
                bytes
            }
            Err(error) if error.is_as_good_as_missing() => {
                let bytes = self
                    .repository
                    .read_watched(descriptor, &self.watch)
                    .context(|| format!("configuration {}", descriptor.digest))?;
                self.keep(descriptor, &bytes)?;
                bytes
            }
            Err(error) => return Err(error),
        };
        Config::with_digest(bytes, descriptor.digest).map(Some)
    }

    /// Gets the layers; and of an artifact, what it has in the place of a configuration.
    pub(super) fn blobs(
        &mut self,
        manifest: &Manifest,
        threads: NonZeroUsize,
        arrivals: Option<&Arrivals>,
    ) -> Result<()> {
        let count = manifest.layers().len();
        let other = Some(manifest.config()).filter(|config| !config.media_type.is_config());
        let layers = manifest.layers().iter().enumerate();
        let named = layers.map(|(n, layer)| (format!("layer {} of {count}", n + 1), layer));
        let mut seen = HashSet::new();
        let wanted: Vec<(String, &Descriptor)> = named
            .chain(other.map(|config| ("configuration".to_owned(), config)))
            .filter(|(_, blob)| seen.insert(blob.digest))
            .collect();
        let blobs: Vec<&Descriptor> = wanted.iter().map(|(_, blob)| *blob).collect();
        let needed = self.store.reserve(&blobs)?;
        let fetched = jobs::run(&wanted, threads, &self.watch, |(name, blob)| {
            self.blob(blob, arrivals).context(|| format!("{name}, {}", blob.digest))
        });
        let fetched = fetched.map_err(|error| self.store.explain_full(error, needed))?;
        for ((_, blob), fetched) in wanted.iter().zip(fetched) {
            if fetched > 0 || blob.size == 0 {
                self.fetched.add(fetched);
            }
            if fetched < blob.size {
                self.reused.add(blob.size - fetched);
            }
        }
        Ok(())
    }

    /// What ends the pull from inside.
    pub(super) fn stop(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.watch.stop)
    }

    /// Gets a blob into the store, and lets others read it meanwhile. Returns how many bytes came from the registry.
    pub(super) fn blob(&self, blob: &Descriptor, arrivals: Option<&Arrivals>) -> Result<u64> {
        if self.store.contains(blob)? {
            self.store.settle(blob)?;
            if let Some(arrivals) = arrivals {
                arrivals.put(blob.digest, Arrived::Stored);
            }
            self.watch.tell(&Event::Reused { blob });
            return Ok(0);
        }
        let mut writer = self.store.resume(blob)?;
        if let Some(arrivals) = arrivals {
            arrivals.put(blob.digest, Arrived::Arriving(writer.arriving()?));
        }
        let mut fetched = 0;
        let mut chunk = vec![0; CHUNK];
        self.watch.tell(&Event::Started { blob, resumed: writer.written() });
        loop {
            let resumed = writer.written();
            let mut download = self.repository.download(blob, resumed);
            fetched += self.write(blob, &mut download, &mut writer, &mut chunk)?;
            // Pieces that do not fit together (a crash tore the first, a registry sent another blob's part) get one
            // more chance, in one piece.
            let pieced = resumed > 0 || download.is_pieced();
            if !pieced || writer.digest() == blob.digest || fetched > blob.size {
                break;
            }
            writer.restart()?;
        }
        writer.commit_as(blob)?;
        if let Some(arrivals) = arrivals {
            arrivals.put(blob.digest, Arrived::Verified);
        }
        self.watch.tell(&Event::Finished { blob });
        Ok(fetched)
    }

    /// Writes what comes, to its end. What came before an error is written too. Returns how many bytes that were.
    fn write(
        &self,
        blob: &Descriptor,
        download: &mut Download,
        writer: &mut BlobWriter,
        chunk: &mut [u8],
    ) -> Result<u64> {
        let start = writer.written();
        loop {
            // Up to the next multiple, from wherever an earlier attempt has come to.
            let most = chunk.len() - (writer.written() % chunk.len() as u64) as usize;
            let (count, read) = fill(download, &mut chunk[..most], &self.watch);
            if count > 0 {
                writer.append(&chunk[..count])?;
                self.watch.tell(&Event::Progress { blob, bytes: writer.written() });
            }
            read?;
            if count == 0 {
                return Ok(writer.written() - start);
            }
        }
    }

    /// Gives the image its name, if it does not have it.
    pub(super) fn tag(
        &self,
        reference: &ImageReference,
        root: &Descriptor,
        before: Option<&(Name, Descriptor)>,
        status: PullStatus,
    ) -> Result<()> {
        let exact = reference.exact();
        let named = |(name, found): &(Name, Descriptor)| found.same_content(root) && name.reference() == Some(&exact);
        // Another platform of the same root changes what other tools see under the name.
        self.relied_on.iter().try_for_each(|document| self.store.settle(document))?;
        if status == PullStatus::UpToDate && before.is_some_and(named) {
            return self.store.settle_names();
        }
        self.watch.check()?;
        self.store.tag(reference, root)?;
        self.watch.tell(&Event::Tagged { reference, root });
        Ok(())
    }
}

/// Reads until the buffer is full, the blob is over, something fails, or it has taken a while. Says how much was read,
/// whatever ended it: that is written before anybody waits.
fn fill(download: &mut Download, buffer: &mut [u8], watch: &Watch<'_>) -> (usize, Result<()>) {
    let begun = Instant::now();
    let mut filled = 0;
    while filled < buffer.len() && begun.elapsed() < PATIENCE {
        let rest = &mut buffer[filled..];
        let read = if filled == 0 { download.read(rest, watch).map(Some) } else { download.read_on(rest, watch) };
        match read {
            Ok(None | Some(0)) => break,
            Ok(Some(count)) => filled += count,
            Err(error) => return (filled, Err(error)),
        }
    }
    (filled, Ok(()))
}
