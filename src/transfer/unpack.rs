//! From a registry to a root file system, in one pass: each layer's bytes are hashed, stored, decompressed, hashed again
//! and applied while they arrive.

use std::io;
use std::io::Read;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use super::Pull;
use super::arrivals::Arrivals;
use super::pulled::Pulled;
use super::run::Run;

use crate::changeset::Options;
use crate::changeset::Promise;
use crate::changeset::Source;
use crate::changeset::Unpacked;
use crate::changeset::start;
use crate::digest::Digest;
use crate::error::Context;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::event::Cancel;
use crate::image::Image;
use crate::image::Unpacking;
use crate::image::explain;
use crate::store::Store;

/// What a pull with an unpacked root file system did.
#[non_exhaustive]
#[derive(Debug)]
#[must_use = "it lists what could not be applied"]
pub struct PulledRootFs {
    /// What was pulled.
    pub pulled: Pulled,
    /// What was unpacked, and what could not be.
    pub unpacked: Unpacked,
}

impl Pull<'_> {
    /// Pulls into a store, and makes a root file system of the image while it arrives. Needs root;
    /// [`unpack_with`](Pull::unpack_with) does it without, and otherwise.
    ///
    /// # Errors
    ///
    /// Those of [`unpack_with`](Pull::unpack_with).
    pub fn unpack(&self, store: &Store, target: impl AsRef<Path>) -> Result<PulledRootFs> {
        self.unpack_with(store, target, &Options::new().observer(self.observer).cancel(&self.cancel))
    }

    /// The same, with options for what is unpacked: [`to`](Pull::to) and
    /// [`Image::unpack_with`](crate::Image::unpack_with) in one, in less time than the two take. Layers come in parallel
    /// and are applied in their order; what has to wait waits in the store, so memory is bounded. What the store has
    /// is taken from there.
    ///
    /// Other users of the machine, and power cuts: as of [`Image::unpack_with`](crate::Image::unpack_with). The root file
    /// system survives a power cut if the store does, unless [`Options::durability`] says otherwise.
    ///
    /// The root file system appears when everything is verified and the image has its name: blobs, diff ids, all of
    /// it. After a failure there is none, and what has arrived is in the store for the next attempt to go on with.
    ///
    /// ```
    /// # use layercake::{testing, Registry, Store};
    /// use layercake::changeset::{Options, Ownership};
    ///
    /// # let dir = tempfile::tempdir()?;
    /// # let served = Store::create(dir.path().join("served"))?;
    /// # testing::Fixture::demo().tag(&served, &"example.com/greeter:1".parse()?)?;
    /// # let server = testing::Registry::start(&served)?;
    /// # let name = server.reference("greeter:1")?;
    /// # let store = Store::create(dir.path().join("store"))?;
    /// # let rootfs = dir.path().join("rootfs");
    /// let options = Options::new().ownership(Ownership::CurrentUser);
    /// let done = Registry::new().pull(&name).unpack_with(&store, &rootfs, &options)?;
    /// assert!(done.unpacked.skipped.is_empty());
    /// assert_eq!(std::fs::read_to_string(rootfs.join("etc/motd"))?, "A piece of cake.\n");
    /// # Ok::<(), layercake::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`to`](Pull::to) and of [`Image::unpack_with`](crate::Image::unpack_with).
    pub fn unpack_with(&self, store: &Store, target: impl AsRef<Path>, options: &Options<'_>) -> Result<PulledRootFs> {
        let target = target.as_ref();
        let unpack = || {
            if let Some(pulled) = self.without_asking(store)? {
                let unpacked = pulled.image.unpack_with(target, options)?;
                return Ok(PulledRootFs { pulled, unpacked });
            }
            let mut unpacking = Unpacking::new(store, target, options)?;
            let mut unpacked = Unpacked::default();
            let pulled = self.ask(store, |run, image| {
                unpacked = self.unpack_arriving(run, image, &mut unpacking)?;
                Ok(())
            })?;
            unpacking.publish()?;
            Ok(PulledRootFs { pulled, unpacked })
        };
        unpack().context(|| format!("pull {} and unpack it to {}", self.reference, target.display()))
    }

    /// Brings the layers, and applies each while it comes.
    fn unpack_arriving(&self, run: &mut Run<'_>, image: &Image, unpacking: &mut Unpacking<'_>) -> Result<Unpacked> {
        let arrivals = Arrivals::default();
        let stop = run.stop();
        let (layers, diff_ids) = (image.manifest().layers(), image.config()?.diff_ids()?);
        let (brought, (unpacked, ended_the_pull)) = std::thread::scope(|scope| {
            let unpacker = start(scope, || {
                let _stop = StopOnPanic(&stop);
                let unpacked = unpacking.run(layers, sources(image, diff_ids, &arrivals, &self.cancel));
                let ends_the_pull = unpacked.as_ref().is_err_and(ends_the_pull) && !arrivals.is_broken();
                if ends_the_pull {
                    stop.store(true, Ordering::Relaxed);
                }
                (unpacked, ends_the_pull)
            })?;
            let brought = {
                let _end = EndOnDrop(&arrivals);
                run.blobs(image.manifest(), self.jobs, Some(&arrivals))
            };
            let unpacked = unpacker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            Ok::<_, Error>((brought, unpacked))
        })?;
        let is_broken = arrivals.is_broken() && !ended_the_pull;
        match (brought, unpacked) {
            // What was wrong with the bytes explains what came of them.
            (Err(error), Err(_)) if error.is_corrupt() || is_broken => Err(error),
            (_, Err(error)) if !is_broken => Err(explained(error, image)),
            (Err(error), _) => Err(error),
            (Ok(()), Ok(unpacked)) => Ok(unpacked),
            // A registry broke off and could not go on: all is in the store now.
            (Ok(()), Err(_)) => {
                unpacking.again()?;
                let stored = image.layers()?;
                let sources = stored.iter().map(|layer| Ok(until(layer.source()?, &self.cancel)));
                unpacking.run(layers, sources).map_err(|error| explained(error, image))
            }
        }
    }
}

/// The layers as they arrive.
fn sources<'a>(
    image: &'a Image,
    diff_ids: &'a [Digest],
    arrivals: &'a Arrivals,
    cancel: &'a Cancel,
) -> impl ExactSizeIterator<Item = Result<Source<'static>>> + Send + use<'a> {
    image.manifest().layers().iter().zip(diff_ids).map(|(layer, diff_id)| {
        let (stream, is_unverified) = arrivals.open(image.store(), layer)?;
        let blob = is_unverified.then(|| layer.clone());
        Ok(until(Source { stream, promise: Some(Promise { blob, diff_id: *diff_id }) }, cancel))
    })
}

/// The same, as long as the pull's own switch is not thrown: nothing else looks at it when all has arrived.
fn until(source: Source<'static>, cancel: &Cancel) -> Source<'static> {
    Source { stream: Box::new(Until { stream: source.stream, cancel: cancel.clone() }), ..source }
}

struct Until {
    stream: Box<dyn Read + Send>,
    cancel: Cancel,
}

impl Read for Until {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.cancel.check()?;
        self.stream.read(buffer)
    }
}

fn explained(error: Error, image: &Image) -> Error {
    match image.layers() {
        Ok(layers) => explain(error, &layers),
        Err(_) => error,
    }
}

/// Whether nothing else need be fetched. Where the bytes of a layer make no sense, the rest of them tells whether they are
/// the right ones.
fn ends_the_pull(error: &Error) -> bool {
    !matches!(error.kind(), ErrorKind::InvalidLayer { .. } | ErrorKind::Compression { .. })
}

/// Nobody needs what is still on its way when whoever applies it has panicked, in an observer say.
struct StopOnPanic<'a>(&'a AtomicBool);

impl Drop for StopOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.store(true, Ordering::Relaxed);
        }
    }
}

/// However the pull ends, whoever applies what it brings must not wait for more.
struct EndOnDrop<'a>(&'a Arrivals);

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}
