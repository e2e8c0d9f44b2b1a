//! What an image's layers hold, read without a disk to unpack them to.

use std::io;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::changeset::Entries;
use crate::changeset::Entry;
use crate::changeset::Limits;
use crate::error::Context;
use crate::error::Error;
use crate::error::Limit;
use crate::error::Result;
use crate::image::Image;
use crate::image::Layer;
use crate::image::merged::File;
use crate::image::standing::Standing;

const BUFFER: usize = 64 << 10;

/// The entries of a layer that lies in a store.
pub type LayerEntries = Entries<Box<dyn BufRead + Send>>;

impl Layer {
    /// The layer's entries, in its order, whiteouts among them. At their end blob and diff id were verified.
    ///
    /// # Errors
    ///
    /// Those of [`uncompressed`](Layer::uncompressed).
    pub fn entries(&self) -> Result<LayerEntries> {
        self.entries_with(Limits::default())
    }

    /// The same with other limits.
    pub(crate) fn entries_with(&self, limits: Limits) -> Result<LayerEntries> {
        let tar: Box<dyn BufRead + Send> = Box::new(BufReader::with_capacity(BUFFER, self.uncompressed()?));
        Ok(Entries::new(tar, limits))
    }
}

/// The entries of all layers of an image, the base's first.
///
/// What stands in one layer may be changed or hidden by the next: this is what the image was made of, not what it
/// shows. One file of what it shows is [`Image::read_file`]'s.
#[derive(Debug)]
pub struct ImageEntries {
    layers: std::vec::IntoIter<Layer>,
    limits: Limits,
    layer: usize,
    count: u64,
    entries: Option<LayerEntries>,
}

impl ImageEntries {
    /// The next entry and the number of its layer, from 0; none after the last.
    ///
    /// # Errors
    ///
    /// Those of [`Layer::entries`] and of [`Entries::next_entry`].
    pub fn next_entry(&mut self) -> Result<Option<(usize, Entry<'_>)>> {
        while self.entries.is_some() || self.next_layer()? {
            let Some(entries) = &mut self.entries else { break };
            if entries.advance().context(|| format!("layer {}", self.layer))? {
                break;
            }
            self.count = entries.count();
            self.entries = None;
        }
        let layer = self.layer.saturating_sub(1);
        Ok(self.entries.as_mut().and_then(Entries::current).map(|entry| (layer, entry)))
    }

    fn next_layer(&mut self) -> Result<bool> {
        let Some(layer) = self.layers.next() else { return Ok(false) };
        self.layer += 1;
        self.limits.check(Limit::Layers, self.layer as u64)?;
        self.entries = Some(layer.entries()?.starting_at(self.count));
        Ok(true)
    }
}

impl Image {
    /// The entries of all layers, the base's first.
    ///
    /// ```
    /// # use layercake::{testing::Fixture, Store};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("store"))?;
    /// # let image = store.image_at(&Fixture::demo().write(&store)?)?;
    /// let mut entries = image.entries()?;
    /// while let Some((layer, entry)) = entries.next_entry()? {
    ///     println!("{layer} {:?} {}", entry.kind(), entry.path().display());
    /// }
    /// # Ok::<(), layercake::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`layers`](Image::layers).
    pub fn entries(&self) -> Result<ImageEntries> {
        let layers = self.layers()?.into_iter();
        Ok(ImageEntries { layers, limits: Limits::default(), layer: 0, count: 0, entries: None })
    }

    /// A reader of one file of what the image shows when its layers are stacked, without unpacking them: whiteouts
    /// hide, links are followed inside the root.
    ///
    /// All layers are read and verified for that, and the file's layer once more. The names and attributes of all
    /// entries are in memory meanwhile; of contents, a buffer.
    ///
    /// ```
    /// # use layercake::{testing::Fixture, Store};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("store"))?;
    /// # let image = store.image_at(&Fixture::demo().write(&store)?)?;
    /// let release = std::io::read_to_string(image.read_file("/etc/os-release")?)?;
    /// assert!(release.contains("ID=layercake"));
    /// # Ok::<(), layercake::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// * [`ErrorKind::NotFound`](crate::ErrorKind::NotFound): there is no such file.
    /// * [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput): it is a directory, a device or a pipe, or its
    ///   links lead in circles.
    /// * Those of [`entries`](Image::entries) and [`ImageEntries::next_entry`].
    pub fn read_file(&self, path: impl AsRef<Path>) -> Result<FileReader> {
        let path = path.as_ref();
        let read = || {
            let layers = self.layers()?;
            let file = Standing::of(&layers, Limits::default())?.tree().file(path.as_os_str().as_bytes())?;
            open_file(&layers, file)
        };
        read().context(|| format!("read {} of image {}", path.display(), self.id().short()))
    }
}

fn open_file(layers: &[Layer], file: File) -> Result<FileReader> {
    let missing = || Error::not_found("the file's layer");
    let mut entries = layers.get(file.origin.layer()).ok_or_else(missing)?.entries()?;
    for _ in 0..file.origin.number() {
        if !entries.advance()? {
            return Err(missing());
        }
    }
    Ok(FileReader { entries, size: file.size })
}

/// A reader of one file of an image.
#[derive(Debug)]
pub struct FileReader {
    entries: LayerEntries,
    size: u64,
}

impl FileReader {
    /// The file's size in bytes, holes counted.
    pub fn size(&self) -> u64 {
        self.size
    }
}

impl Read for FileReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.entries.current().map_or(Ok(0), |mut entry| entry.read(buffer))
    }
}
