//! Several layers as one.

use std::io::Read;
use std::io::Write;
use std::time::SystemTime;

use tar::EntryType;

use crate::changeset::Entry;
use crate::changeset::Fields;
use crate::changeset::Limits;
use crate::changeset::Output;
use crate::changeset::Packed;
use crate::changeset::TarWriter;
use crate::changeset::check_stored;
use crate::changeset::hiding;
use crate::compression::Compression;
use crate::compression::EncoderOptions;
use crate::error::Context;
use crate::error::Error;
use crate::error::Limit;
use crate::error::Result;
use crate::event::Cancel;
use crate::image::Draft;
use crate::image::Image;
use crate::image::Layer;
use crate::image::merged::Origin;
use crate::image::merged::ROOT;
use crate::image::standing::Standing;
use crate::image::standing::header;
use crate::manifest::History;
use crate::memory::MemoryReservation;

const PIECE: usize = 128 << 10;
/// The memory of a name in a list, which is sorted in the end.
const THING_BYTES: usize = size_of::<Named<'_>>() * 3 / 2;
/// The memory of a name that is gone; a list may have room for twice as many.
const GONE_BYTES: usize = 2 * size_of::<&[u8]>();

/// An image that is about to be written with fewer layers. Made by [`Image::squash`]; [`write`](Squash::write) writes
/// it.
#[must_use = "nothing is written before `write`"]
#[derive(Clone, Debug)]
pub struct Squash {
    image: Image,
    keep: usize,
    compression: EncoderOptions,
    comment: Option<String>,
    created: Option<SystemTime>,
    limits: Limits,
    cancel: Cancel,
}

impl Image {
    /// Makes one layer of the image's layers: what some add and others hide or replace is gone from the image for
    /// good, and what it shows stays what it is.
    ///
    /// No disk is needed to unpack to, and no privilege: owners, times and attributes are those that the layers say,
    /// whoever does it. The layers are read twice; names are in memory meanwhile, and of contents a buffer.
    ///
    /// ```
    /// # use layercake::{testing::Fixture, Platform, Store};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("store"))?;
    /// # let image = store.image_at(&Fixture::demo().write(&store)?)?;
    /// let flat = image.squash().write()?;
    /// assert_eq!(flat.layers()?.len(), 1);
    ///
    /// // The base stays a layer of its own, which others share.
    /// let on_base = image.squash().keep(1).comment("one layer of ours").write()?;
    /// assert_eq!(on_base.layers()?[0], image.layers()?[0]);
    /// # assert_eq!(on_base.layers()?.len(), 2);
    /// # Ok::<(), layercake::Error>(())
    /// ```
    pub fn squash(&self) -> Squash {
        Squash {
            image: self.clone(),
            keep: 0,
            compression: EncoderOptions::new(Compression::Gzip),
            comment: None,
            created: None,
            limits: Limits::default(),
            cancel: Cancel::new(),
        }
    }
}

impl Squash {
    /// How many of the lowest layers stay as they are, to be shared with other images: none unless this is called.
    pub fn keep(self, layers: usize) -> Squash {
        Squash { keep: layers, ..self }
    }

    /// How the new layer is compressed: with gzip unless this is called.
    pub fn compression(self, compression: EncoderOptions) -> Squash {
        Squash { compression, ..self }
    }

    /// What the history says about it: how many layers became one, unless this is called.
    pub fn comment(self, comment: &str) -> Squash {
        Squash { comment: Some(comment.to_owned()), ..self }
    }

    /// When the new image was made. Unless this is called, it says what the old one says: the clock is not asked.
    pub fn created(self, time: SystemTime) -> Squash {
        Squash { created: Some(time), ..self }
    }

    /// Limits of the layers, and of the memory for names and attributes. Default: [`Limits::default`].
    pub fn limits(self, limits: Limits) -> Squash {
        Squash { limits, ..self }
    }

    /// A switch that ends the work.
    pub fn cancel(self, cancel: &Cancel) -> Squash {
        Squash { cancel: cancel.clone(), ..self }
    }

    /// Writes the layer, a configuration and a manifest. Of the history all steps stay, those whose layers are gone as
    /// steps without one. An image of which all layers are kept is returned as it is. Nothing is named.
    ///
    /// # Errors
    ///
    /// * [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput): the image has fewer layers than are to stay; a
    ///   layer says something that no layer made here can say, such as a directory whose name starts with `.wh.`; a
    ///   time is not one of the years -9999 to 9999.
    /// * [`ErrorKind::InvalidLayer`](crate::ErrorKind::InvalidLayer),
    ///   [`ErrorKind::Compression`](crate::ErrorKind::Compression),
    ///   [`ErrorKind::DigestMismatch`](crate::ErrorKind::DigestMismatch),
    ///   [`ErrorKind::LimitExceeded`](crate::ErrorKind::LimitExceeded): a layer cannot be unpacked, or the
    ///   names and attributes take more memory than the limits allow.
    /// * [`ErrorKind::Cancelled`](crate::ErrorKind::Cancelled): the switch was thrown.
    /// * [`ErrorKind::ReadOnly`](crate::ErrorKind::ReadOnly),
    ///   [`ErrorKind::StorageFull`](crate::ErrorKind::StorageFull), [`ErrorKind::Io`](crate::ErrorKind::Io): the
    ///   operating system refuses.
    /// * Those of [`Image::layers`].
    pub fn write(self) -> Result<Image> {
        self.written().context(|| format!("squash image {}", self.image.id().short()))
    }

    fn written(&self) -> Result<Image> {
        let layers = self.image.layers()?;
        if self.keep > layers.len() {
            return Err(Error::invalid_input(format!("{} layers cannot stay of {}", self.keep, layers.len())));
        }
        if self.keep == layers.len() {
            return Ok(self.image.clone());
        }
        let mut draft = Draft::of(&self.image)?;
        let (all, kept) = self.trees(&layers)?;
        let plan = Plan::new(&all, &kept, self.limits)?;
        let layer = if plan.is_empty() {
            None
        } else {
            let (layer, _) = draft.pack(&self.compression, |writer| plan.write(writer, &layers, &self.cancel))?;
            Some(layer)
        };
        draft.forget_layers(self.keep)?;
        let merged = || format!("{} layers as one", layers.len() - self.keep);
        let comment = Some(self.comment.clone().unwrap_or_else(merged));
        draft.push(&History { comment, ..History::at(self.created)? }, layer.as_ref())?;
        if let Some(time) = self.created {
            draft.set_created(time)?;
        }
        draft.finish()
    }

    /// The trees of all layers and of those that are kept.
    fn trees(&self, layers: &[Layer]) -> Result<(Standing, Standing)> {
        let mut all = Standing::with_headers(self.limits, &self.limits.memory())?;
        layers[..self.keep].iter().try_for_each(|layer| all.add(layer, &self.cancel))?;
        let kept = all.duplicate()?;
        layers[self.keep..].iter().try_for_each(|layer| all.add(layer, &self.cancel))?;
        Ok((all, kept))
    }
}

impl Draft {
    /// Takes all layers but the lowest away; the steps that made them stay as steps without a layer.
    fn forget_layers(&mut self, keep: usize) -> Result<()> {
        self.layers.truncate(keep);
        let mut kept = 0;
        for step in &mut self.history {
            let has_layer = step.get("empty_layer")? != Some(true);
            if has_layer && kept < keep {
                kept += 1;
            } else if has_layer && !step.is_empty() {
                step.set("empty_layer", &true)?;
            }
        }
        // Steps that say nothing stood for layers that nobody told of.
        let mut kept = 0;
        self.history.retain(|step| {
            kept += usize::from(step.is_empty());
            !step.is_empty() || kept <= keep
        });
        Ok(())
    }
}

/// A directory of the new tree.
struct Place<'a> {
    above: usize,
    name: &'a [u8],
    node: usize,
    /// What lay here below, if that was a directory too.
    below: Option<usize>,
    /// Whether it has an entry.
    is_put: bool,
    /// The names that are there no more.
    gone: Vec<&'a [u8]>,
}

/// A name of something that is not a directory.
struct Named<'a> {
    /// The entry that describes it.
    origin: Origin,
    place: u32,
    name: &'a [u8],
    is_new: bool,
}

/// What the layer will say: the difference of all layers and the lowest ones.
struct Plan<'a> {
    all: &'a Standing,
    kept: &'a Standing,
    limits: Limits,
    /// A directory before those that are in it.
    places: Vec<Place<'a>>,
    /// The names of everything else; in the end those of one file stand together, in the order of the layers.
    things: Vec<Named<'a>>,
    memory: MemoryReservation,
}

impl<'a> Plan<'a> {
    /// Compares the tree of all layers with that of those that are kept.
    fn new(all: &'a Standing, kept: &'a Standing, limits: Limits) -> Result<Plan<'a>> {
        let memory = all.budget().reservation();
        let mut plan = Plan { all, kept, limits, places: Vec::new(), things: Vec::new(), memory };
        plan.enter(0, b"", ROOT, Some(ROOT))?;
        // The root stands whoever describes it; an entry it needs only where its attributes changed.
        plan.places[0].is_put = plan.is_described_otherwise(0);
        plan.walk()?;
        Ok(plan)
    }

    /// Whether there is nothing to say.
    fn is_empty(&self) -> bool {
        self.things.is_empty() && self.places.iter().all(|place| !place.is_put && place.gone.is_empty())
    }

    fn enter(&mut self, above: usize, name: &'a [u8], node: usize, below: Option<usize>) -> Result<()> {
        self.memory.grow(size_of::<Place<'_>>() + size_of::<usize>())?;
        self.places.push(Place { above, name, node, below, is_put: false, gone: Vec::new() });
        Ok(())
    }

    /// The clean path of what has a name in a place. Made when it is wanted: links make long paths of short entries.
    fn path(&self, place: usize, name: &[u8]) -> Vec<u8> {
        let mut names = vec![name];
        let mut at = place;
        while at != 0 {
            names.push(self.places[at].name);
            at = self.places[at].above;
        }
        names.reverse();
        names.join(&b'/')
    }

    fn walk(&mut self) -> Result<()> {
        // Depth first: the last place that was found is the next to be looked into.
        let mut ahead = vec![0];
        while let Some(place) = ahead.pop() {
            let first = self.places.len();
            self.look_into(place)?;
            ahead.extend((first..self.places.len()).rev());
        }
        // What one name of a thing says, all its names have to say (C4).
        self.things.sort_by_key(|named| (named.origin.layer(), named.origin.number()));
        for names in self.things.chunk_by_mut(|a, b| a.origin == b.origin) {
            let is_new = names.iter().any(|named| named.is_new);
            names.iter_mut().for_each(|named| named.is_new = is_new);
        }
        self.things.retain(|named| named.is_new);
        for n in 0..self.things.len() {
            self.put_up_to(self.things[n].place as usize);
        }
        for place in 0..self.places.len() {
            if self.places[place].is_put || !self.places[place].gone.is_empty() {
                self.put_up_to(place);
            }
        }
        Ok(())
    }

    /// C2: the directories above what is said are said too, but not the root.
    fn put_up_to(&mut self, place: usize) {
        let mut at = place;
        while at != 0 {
            if std::mem::replace(&mut self.places[at].is_put, true) && at != place {
                return;
            }
            at = self.places[at].above;
        }
    }

    fn look_into(&mut self, place: usize) -> Result<()> {
        let Place { node, below, .. } = self.places[place];
        let Some(new) = self.all.tree().node(node).directory() else { return Ok(()) };
        let old = below.and_then(|below| self.kept.tree().node(below).directory()).map(|old| &old.children);
        for (name, to) in new.children.iter() {
            let (to, old) = (to.node(), old.and_then(|old| old.get(name)).map(|old| old.node()));
            if self.all.tree().node(to).directory().is_some() {
                let below = old.filter(|old| self.kept.tree().node(*old).directory().is_some());
                self.enter(place, name, to, below)?;
                let last = self.places.len() - 1;
                self.places[last].is_put = below.is_none() || self.is_described_otherwise(last);
            } else {
                let Some(origin) = self.all.tree().node(to).origin else { continue };
                let is_new = old.is_none_or(|old| self.kept.tree().node(old).origin != Some(origin));
                self.memory.grow(THING_BYTES)?;
                let place = u32::try_from(place).expect("a tree has less nodes");
                self.things.push(Named { origin, place, name, is_new });
            }
        }
        for (name, _) in old.into_iter().flat_map(|old| old.iter()) {
            if !new.children.contains_key(name) {
                self.memory.grow(GONE_BYTES)?;
                self.places[place].gone.push(name);
            }
        }
        Ok(())
    }

    fn is_described_otherwise(&self, place: usize) -> bool {
        let Place { node, below, .. } = self.places[place];
        below.is_none_or(|below| self.all.directory(node, b"") != self.kept.directory(below, b""))
    }

    /// Directories and what is gone from them first, and then all else in the order in which the layers have it.
    fn write(&self, writer: &mut dyn Write, layers: &[Layer], cancel: &Cancel) -> Result<Packed> {
        let mut tar = TarWriter::new(writer);
        for (n, place) in self.places.iter().enumerate() {
            if place.is_put {
                let path = if n == 0 { b".".to_vec() } else { self.path(place.above, place.name) };
                check_stored(&path)?;
                tar.put(self.all.directory(place.node, &path))?;
            }
            for name in &place.gone {
                tar.put(Fields::new(EntryType::Regular, hiding(&self.path(n, name))))?;
            }
        }
        for (n, layer) in layers.iter().enumerate() {
            let first = self.things.partition_point(|named| named.origin.layer() < n);
            let end = self.things.partition_point(|named| named.origin.layer() <= n);
            self.copy(layer, &self.things[first..end], &mut tar, cancel)?;
        }
        tar.finish(Vec::new())
    }

    fn copy(
        &self,
        layer: &Layer,
        wanted: &[Named<'_>],
        tar: &mut TarWriter<&mut dyn Write>,
        cancel: &Cancel,
    ) -> Result<()> {
        let mut entries = layer.entries_with(self.limits)?;
        let mut at = 0;
        for names in wanted.chunk_by(|a, b| a.origin == b.origin) {
            while at < names[0].origin.number() {
                cancel.check()?;
                at += 1;
                if !entries.advance()? {
                    return Err(Error::not_found("an entry that was there"));
                }
            }
            if let Some(entry) = entries.current() {
                self.copy_entry(entry, names, tar, cancel)?;
            }
        }
        Ok(())
    }

    fn copy_entry(
        &self,
        mut entry: Entry<'_>,
        names: &[Named<'_>],
        tar: &mut TarWriter<&mut dyn Write>,
        cancel: &Cancel,
    ) -> Result<()> {
        let path = |named: &Named<'_>| self.path(named.place as usize, named.name);
        let Some((first, others)) = names.split_first() else { return Ok(()) };
        let first = path(first);
        check_stored(&first)?;
        let fields = header(&entry, first.clone())?;
        self.limits.check(Limit::UnpackedSize, tar.size().saturating_add(fields.size))?;
        tar.put(fields.clone())?;
        let mut piece = vec![0; if fields.size > 0 { PIECE } else { 0 }];
        loop {
            cancel.check()?;
            match entry.read(&mut piece)? {
                0 => break,
                count => tar.write(&piece[..count])?,
            }
        }
        tar.pad()?;
        for named in others {
            let path = path(named);
            check_stored(&path)?;
            let link = Fields { kind: EntryType::Link, path, link: first.clone(), size: 0, ..fields.clone() };
            tar.put(Fields { xattrs: Vec::new(), device: (0, 0), ..link })?;
        }
        Ok(())
    }
}
