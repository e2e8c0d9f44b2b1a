//! Names: what they lead to, and changing that.

use super::Durability;
use super::Name;
use super::Store;
use super::index::Entry;
use super::index::INDEX;
use super::index::Index;
use super::index::MAX_INDEX;
use super::index::PREVIOUS_INDEX;
use super::index::descriptor_of;
use super::layout::OURS;
use super::layout::UNSYNCED;
use super::lookups::is_settled;

use crate::descriptor::Descriptor;
use crate::digest::Digest;
use crate::error::Context;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Limit;
use crate::error::Result;
use crate::reference::ImageReference;

/// What a name is to mean at the moment in which it is changed.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum PreviousValue {
    /// Whatever it means, or nothing.
    #[default]
    Any,
    /// Nothing: there is no such name.
    Absent,
    /// The image or index of this digest.
    Is(Digest),
}

impl PreviousValue {
    fn check(self, name: &str, index: &Index<'_>) -> Result<()> {
        let expected = match self {
            PreviousValue::Any => return Ok(()),
            PreviousValue::Absent => None,
            PreviousValue::Is(digest) => Some(digest),
        };
        let found = index.find(name).map(Entry::descriptor).transpose()?.map(|found| found.digest);
        if found == expected {
            return Ok(());
        }
        Err(ErrorKind::NameMoved { name: name.to_owned(), expected, found }.into())
    }
}

impl Store {
    /// All entries of the layout: what they are called, and the image or index that they lead to, in the layout's
    /// order. An entry that cannot be read is an error of its own; the others follow.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`], [`ErrorKind::InvalidDocument`] and
    /// [`ErrorKind::LimitExceeded`] (128 MiB) if `index.json` cannot be read.
    pub fn entries(&self) -> Result<impl Iterator<Item = Result<(Name, Descriptor)>> + use<>> {
        Ok(layout_entries(&self.read_index()?)?.into_iter())
    }

    /// The image or index that a name leads to.
    ///
    /// A reference is looked up by its canonical spelling, with the tag `latest` if it has neither tag nor digest;
    /// where there is none, by its short spelling as other tools write it. One with a digest is found under any name
    /// of its repository that leads to that digest.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`] if there is no such name; those of
    /// [`entries`](Store::entries).
    pub fn resolve(&self, name: impl Into<Name>) -> Result<Descriptor> {
        let name = name.into();
        match self.lookup(&name)? {
            Some((_, descriptor)) => Ok(descriptor),
            None => Err(Error::not_found(format!("image {name}")).context(format!("store {}", self.path().display()))),
        }
    }

    /// The entry that a name leads to, if there is one, and what it is called there.
    pub(crate) fn lookup(&self, name: &Name) -> Result<Option<(Name, Descriptor)>> {
        let lookups = &self.shared.lookups;
        if let Some(known) = lookups.current(self.dir())? {
            for spelling in spellings(name) {
                if let Some(entry) = known.find(&spelling) {
                    return Ok(Some((Name::from_text(&spelling), descriptor_of(entry)?)));
                }
            }
            let Some(reference) = name.reference().filter(|reference| reference.digest().is_some()) else {
                return Ok(None);
            };
            return Ok(by_digest(&Index::parse(known.text())?, reference));
        }
        let before = self.dir().stat(INDEX)?;
        let text = self.read_index()?;
        let index = Index::parse(&text)?;
        let found = find(&index, name)?;
        if let Some(before) = before.filter(is_settled) {
            let places = index.places(&text);
            lookups.keep(self.dir(), &before, text, places)?;
        }
        Ok(found)
    }

    /// Gives an image or index that is in the store a name. Returns what the name meant before; its blobs stay.
    ///
    /// The name is the reference's [`exact`](ImageReference::exact) form: a digest, a tag, or the tag `latest`. The
    /// layout has its canonical spelling, for other tools to find it by. Where those could not read the root itself
    /// (an index, for tools that choose no platform; Docker's types, for tools that know only OCI's), they find under
    /// the name an OCI manifest of the image that [`Store::image`] opens.
    ///
    /// # Errors
    ///
    /// * [`ErrorKind::NotFound`]: the blob is not in the store.
    /// * [`ErrorKind::InvalidInput`]: the reference has another digest.
    /// * [`ErrorKind::Locked`]: another process changes names for longer than a minute.
    /// * [`ErrorKind::ReadOnly`], [`ErrorKind::StorageFull`],
    ///   [`ErrorKind::Io`]: the operating system refuses.
    /// * Those of [`entries`](Store::entries), also if there would be too many.
    pub fn tag(&self, reference: &ImageReference, root: &Descriptor) -> Result<Option<Descriptor>> {
        self.tag_if(reference, root, PreviousValue::Any)
    }

    /// The same, if the name means at that moment what is expected. Nobody can change it in between.
    ///
    /// ```
    /// use layercake::store::PreviousValue;
    /// use layercake::{ErrorKind, ImageReference, MediaType, Store};
    ///
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::create(dir.path().join("store"))?;
    /// # let [old, new] = [store.write(MediaType::OCTET_STREAM, b"1")?, store.write(MediaType::OCTET_STREAM, b"2")?];
    /// let name: ImageReference = "example.com/app:1".parse()?;
    /// store.tag_if(&name, &old, PreviousValue::Absent)?;
    /// store.tag_if(&name, &new, PreviousValue::Is(old.digest))?;
    /// let late = store.tag_if(&name, &old, PreviousValue::Is(old.digest)).unwrap_err();
    /// assert!(matches!(late.kind(), ErrorKind::NameMoved { found: Some(found), .. } if *found == new.digest));
    /// # Ok::<(), layercake::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NameMoved`] if it means something else; those of
    /// [`tag`](Store::tag).
    pub fn tag_if(
        &self,
        reference: &ImageReference,
        root: &Descriptor,
        expected: PreviousValue,
    ) -> Result<Option<Descriptor>> {
        let tag = || {
            if reference.digest().is_some_and(|digest| digest != root.digest) {
                return Err(Error::invalid_input(format!("the name's digest is not {}", root.digest)));
            }
            self.require(root)?;
            let name = reference.exact().to_string();
            self.settle(root)?;
            let entries = match self.view(root)? {
                Some(view) => {
                    self.settle(&view)?;
                    Entry::with_view(&name, root, &view)?
                }
                None => vec![Entry::plain(&name, root)?],
            };
            self.change(|index| {
                expected.check(&name, index)?;
                // Collected meanwhile, if nobody leads to it. From here on it is not: `gc` wants this lock too.
                for entry in &entries {
                    self.require(&entry.descriptor()?)?;
                }
                let before = index.find(&name).and_then(|entry| entry.descriptor().ok());
                index.put(&name, entries);
                Ok(before)
            })
        };
        tag().context(|| format!("tag {reference}"))
    }

    /// Takes a name away. Returns what it meant; its blobs stay.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`] if there is no such name; else those of
    /// [`tag`](Store::tag).
    pub fn untag(&self, name: impl Into<Name>) -> Result<Descriptor> {
        self.untag_if(name, PreviousValue::Any)
    }

    /// The same, if the name means at that moment what is expected.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NameMoved`] if it means something else; those of
    /// [`untag`](Store::untag).
    pub fn untag_if(&self, name: impl Into<Name>, expected: PreviousValue) -> Result<Descriptor> {
        let name = name.into();
        let untag = || {
            let spelling = spelling_of(&name)?;
            let missing = || Error::not_found(format!("image {name}"));
            self.change(|index| {
                expected.check(&spelling, index)?;
                let before = index.find(&spelling).ok_or_else(missing)?.descriptor()?;
                index.remove(&spelling);
                Ok(before)
            })
        };
        untag().context(|| format!("untag {name}"))
    }

    /// What other tools see under a name.
    pub(super) fn views(&self, name: &Name) -> Result<Vec<Descriptor>> {
        let (text, spelling) = (self.read_index()?, spelling_of(name)?);
        let index = Index::parse(&text)?;
        let views = index.all().filter(|entry| entry.is_view() && entry.name() == Some(&spelling));
        views.map(Entry::descriptor).collect()
    }

    fn require(&self, blob: &Descriptor) -> Result<()> {
        if self.contains(blob)? { Ok(()) } else { Err(Error::not_found(format!("blob {}", blob.digest))) }
    }

    pub(super) fn read_index(&self) -> Result<String> {
        let bytes = self.dir().read(INDEX, Limit::LayoutSize, MAX_INDEX)?;
        String::from_utf8(bytes).map_err(|error| Error::invalid_document(INDEX, error))
    }

    /// Reads, changes and replaces `index.json` while nobody else does. After an error it is as it was.
    fn change<T>(&self, change: impl FnOnce(&mut Index<'_>) -> Result<T>) -> Result<T> {
        let _lock = self.lock()?;
        let text = self.read_index()?;
        let mut index = Index::parse(&text)?;
        let result = change(&mut index)?;
        let content = index.to_json();
        if content.len() as u64 > MAX_INDEX {
            return Err(Error::limit(Limit::LayoutSize, MAX_INDEX));
        }
        if content == text {
            self.sync_names(|| self.put_index(&content))?;
        } else {
            let ours = self.ours()?;
            // What names meant before this change, for whoever must repair a damaged one. Without it there is less to
            // repair it from.
            let _ = ours.remove(PREVIOUS_INDEX).and_then(|()| self.dir().link(INDEX, &ours, PREVIOUS_INDEX));
            self.put_index(&content)?;
        }
        Ok(result)
    }

    /// Replaces `index.json`, under the lock on names.
    pub(super) fn put_index(&self, content: &str) -> Result<()> {
        let ours = self.ours()?;
        if self.durability == Durability::None {
            // Another handle may have brought the names to the disk; what replaces them is not there.
            ours.file_to_write(UNSYNCED)?;
        }
        self.put_public(&ours, INDEX, content.as_bytes(), self.durability)
    }

    /// Brings the names that are there to the disk, whoever gave them.
    #[cfg_attr(not(feature = "registry"), expect(dead_code, reason = "only pulls rely on names that are there"))]
    pub(crate) fn settle_names(&self) -> Result<()> {
        if self.durability == Durability::None {
            return Ok(());
        }
        if self.dir().stat(OURS)?.is_some() {
            // Where the store itself is not on the disk, no name in it is.
            self.ours()?;
        }
        self.sync_names(|| {
            let _lock = self.lock()?;
            self.put_index(&self.read_index()?)
        })
    }

    /// Nobody knows what of a file is on the disk that could not be synced, and the next sync of it would not say: then
    /// it is written anew.
    fn sync_names(&self, write_again: impl FnOnce() -> Result<()>) -> Result<()> {
        if self.durability.sync_file(&self.dir().file(INDEX)?, self.dir()).is_err() {
            return write_again();
        }
        self.durability.sync_dir(self.dir())
    }
}

/// The entries of an `index.json`, without those that only stand for others.
pub(crate) fn layout_entries(text: &str) -> Result<Vec<Result<(Name, Descriptor)>>> {
    let index = Index::parse(text)?;
    Ok(index.named().map(|(name, entry)| Ok((name, entry.descriptor()?))).collect())
}

/// What an `index.json` says of a root of this name, and of its view where it has one.
pub(crate) fn entries_of(name: &str, root: &Descriptor, view: Option<&Descriptor>) -> Result<Vec<Descriptor>> {
    let entries = match view {
        Some(view) => Entry::with_view(name, root, view)?,
        None => vec![Entry::plain(name, root)?],
    };
    entries.iter().map(Entry::descriptor).collect()
}

/// The text of a name that is to be taken away.
fn spelling_of(name: &Name) -> Result<String> {
    match name {
        Name::Reference(reference) => Ok(reference.exact().to_string()),
        Name::Verbatim(text) => Ok(text.clone()),
        Name::Unnamed => Err(Error::invalid_input("an entry without a name has none to take away")),
    }
}

/// The entry that a name leads to.
fn find(index: &Index<'_>, name: &Name) -> Result<Option<(Name, Descriptor)>> {
    for spelling in spellings(name) {
        if let Some(entry) = index.find(&spelling) {
            return Ok(Some((Name::from_text(&spelling), entry.descriptor()?)));
        }
    }
    Ok(name.reference().and_then(|reference| by_digest(index, reference)))
}

/// The texts under which an entry of this name may be found, best first.
fn spellings(name: &Name) -> Vec<String> {
    match name {
        Name::Reference(reference) => {
            let (exact, latest) = (reference.exact(), reference.or_latest());
            vec![exact.to_string(), reference.familiar().to_string(), latest.familiar().to_string()]
        }
        Name::Verbatim(text) => vec![text.clone()],
        Name::Unnamed => Vec::new(),
    }
}

/// The first entry of the reference's repository that leads to its digest.
fn by_digest(index: &Index<'_>, reference: &ImageReference) -> Option<(Name, Descriptor)> {
    let digest = reference.digest()?;
    let repository = reference.without_tag();
    let of_repository =
        index.named().filter(|(name, _)| name.reference().is_some_and(|found| found.without_tag() == repository));
    of_repository
        .filter_map(|(name, entry)| Some((name, entry.descriptor().ok()?)))
        .find(|(_, descriptor)| descriptor.digest == digest)
}
