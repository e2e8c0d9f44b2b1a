//! Names: reading and changing `index.json`.
//!
//! An entry is kept as the text it is, with fields that nobody here knows; only the entry that a change is about is
//! written anew.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::Name;
use super::Store;
use super::layout::INDEX;

use crate::descriptor::Descriptor;
use crate::error::Context;
use crate::error::Error;
use crate::error::Limit;
use crate::error::Result;
use crate::fs::atomic;
use crate::reference::ImageReference;

const REF_NAME: &str = "org.opencontainers.image.ref.name";
const CONTAINERD_NAME: &str = "io.containerd.image.name";

/// The most bytes of `index.json`: some 300,000 names.
const MAX_INDEX: u64 = 128 << 20;

impl Store {
    /// All entries of the layout: what they are called, and the image or index that they lead to, in the layout's
    /// order. An entry that cannot be read is an error of its own; the others follow.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) and [`ErrorKind::InvalidDocument`](crate::ErrorKind::InvalidDocument)
    /// if `index.json` cannot be read.
    pub fn entries(&self) -> Result<impl Iterator<Item = Result<(Name, Descriptor)>> + use<>> {
        let text = self.read_index()?;
        let entries: Vec<_> = Entries::parse(&text)?.manifests.iter().map(|raw| read_entry(raw)).collect();
        Ok(entries.into_iter())
    }

    /// The image or index that a name leads to.
    ///
    /// A reference is looked up by its canonical spelling, with the tag `latest` if it has neither tag nor digest;
    /// where there is none, by its short spelling as other tools write it. One with a digest is found under any name
    /// of its repository that leads to that digest.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) if there is no such name; those of
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
        let text = self.read_index()?;
        let entries = Entries::parse(&text)?;
        let spellings = spellings(name);
        let by_text = spellings.iter().find_map(|spelling| {
            entries.manifests.iter().find(|raw| EntryNames::of(raw).is_ok_and(|names| names.include(spelling)))
        });
        match by_text {
            Some(raw) => read_entry(raw).map(Some),
            None => Ok(name.reference().and_then(|reference| by_digest(&entries, reference))),
        }
    }

    /// Gives an image or index that is in the store a name. Returns what the name meant before; its blobs stay.
    ///
    /// The name is the reference's [`exact`](ImageReference::exact) form: a digest, a tag, or the tag `latest`. The
    /// entry carries its canonical spelling, for other tools to find it by.
    ///
    /// # Errors
    ///
    /// * [`ErrorKind::NotFound`](crate::ErrorKind::NotFound): the blob is not in the store.
    /// * [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput): the reference has another digest.
    /// * [`ErrorKind::Locked`](crate::ErrorKind::Locked): another process changes names for longer than a minute.
    /// * [`ErrorKind::ReadOnly`](crate::ErrorKind::ReadOnly), [`ErrorKind::StorageFull`](crate::ErrorKind::StorageFull),
    ///   [`ErrorKind::Io`](crate::ErrorKind::Io): the operating system refuses.
    pub fn tag(&self, reference: &ImageReference, root: &Descriptor) -> Result<Option<Descriptor>> {
        let tag = || {
            if reference.digest().is_some_and(|digest| digest != root.digest) {
                return Err(Error::invalid_input(format!("the name's digest is not {}", root.digest)));
            }
            if !self.contains(root)? {
                return Err(Error::not_found(format!("blob {}", root.digest)));
            }
            let name = reference.exact().to_string();
            let entry = new_entry(&name, root)?;
            self.change(|entries| entries.put(&name, entry))
        };
        tag().context(|| format!("tag {reference}"))
    }

    /// Takes a name away. Returns what it meant; its blobs stay.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) if there is no such name; else those of
    /// [`tag`](Store::tag).
    pub fn untag(&self, name: impl Into<Name>) -> Result<Descriptor> {
        let name = name.into();
        let untag = || {
            let spelling = match &name {
                Name::Reference(reference) => reference.exact().to_string(),
                Name::Verbatim(text) => text.clone(),
                Name::Unnamed => return Err(Error::invalid_input("an entry without a name has none to take away")),
            };
            let found = self.change(|entries| entries.take(&spelling))?;
            found.ok_or_else(|| Error::not_found(format!("image {name}")))
        };
        untag().context(|| format!("untag {name}"))
    }

    fn read_index(&self) -> Result<String> {
        let bytes = self.dir.read(INDEX, Limit::LayoutSize, MAX_INDEX)?;
        String::from_utf8(bytes).map_err(|error| Error::invalid_document(INDEX, error))
    }

    /// Reads, changes and replaces `index.json` while nobody else does.
    fn change<T>(&self, change: impl FnOnce(&mut Entries<'_>) -> Result<T>) -> Result<T> {
        let _lock = self.lock()?;
        let text = self.read_index()?;
        let mut entries = Entries::parse(&text)?;
        let result = change(&mut entries)?;
        let ours = self.ours()?;
        let content = entries.to_json();
        atomic::replace(&ours, "index.json.new", &self.dir, INDEX, content.as_bytes(), self.durability)?;
        Ok(result)
    }
}

/// The texts under which an entry of this name may be found, best first.
fn spellings(name: &Name) -> Vec<String> {
    match name {
        Name::Reference(reference) => {
            vec![
                reference.exact().to_string(),
                reference.familiar().to_string(),
                reference.or_latest().familiar().to_string(),
            ]
        }
        Name::Verbatim(text) => vec![text.clone()],
        Name::Unnamed => Vec::new(),
    }
}

/// The first entry of the reference's repository that leads to its digest.
fn by_digest(entries: &Entries<'_>, reference: &ImageReference) -> Option<(Name, Descriptor)> {
    let digest = reference.digest()?;
    let repository = reference.without_tag();
    entries.manifests.iter().filter_map(|raw| read_entry(raw).ok()).find(|(name, descriptor)| {
        descriptor.digest == digest && name.reference().is_some_and(|found| found.without_tag() == repository)
    })
}

/// `index.json`, taken apart no further than needed.
struct Entries<'a> {
    fields: BTreeMap<String, &'a RawValue>,
    manifests: Vec<Cow<'a, RawValue>>,
}

impl<'a> Entries<'a> {
    fn parse(text: &'a str) -> Result<Entries<'a>> {
        let invalid = |error| Error::invalid_document(INDEX, error);
        let mut fields: BTreeMap<String, &RawValue> = serde_json::from_str(text).map_err(invalid)?;
        let manifests: Option<Vec<&RawValue>> = match fields.remove("manifests") {
            Some(raw) => serde_json::from_str(raw.get()).map_err(invalid)?,
            None => None,
        };
        let manifests = manifests.unwrap_or_default().into_iter().map(Cow::Borrowed).collect();
        Ok(Entries { fields, manifests })
    }

    /// Puts an entry in the place of those of this name.
    fn put(&mut self, name: &str, entry: Box<RawValue>) -> Result<Option<Descriptor>> {
        let at = self.manifests.iter().position(|raw| is_named(raw, name)).unwrap_or(self.manifests.len());
        let before = self.take(name)?;
        self.manifests.insert(at.min(self.manifests.len()), Cow::Owned(entry));
        Ok(before)
    }

    /// Takes away the entries of this name. Says what the first of them meant.
    fn take(&mut self, name: &str) -> Result<Option<Descriptor>> {
        let mut before = None;
        self.manifests.retain(|raw| {
            let found = is_named(raw, name);
            if found && before.is_none() {
                before = serde_json::from_str(raw.get()).ok();
            }
            !found
        });
        Ok(before)
    }

    fn to_json(&self) -> String {
        let length: usize = self.manifests.iter().map(|raw| raw.get().len() + 1).sum();
        let mut json = String::with_capacity(length + 512);
        json.push('{');
        if !self.fields.contains_key("schemaVersion") {
            json.push_str("\"schemaVersion\":2,");
        }
        for (field, value) in &self.fields {
            json.push_str(&serde_json::Value::from(field.as_str()).to_string());
            json.push(':');
            json.push_str(value.get());
            json.push(',');
        }
        json.push_str("\"manifests\":[");
        for (n, raw) in self.manifests.iter().enumerate() {
            if n > 0 {
                json.push(',');
            }
            json.push_str(raw.get());
        }
        json.push_str("]}");
        json
    }
}

/// The names that an entry's annotations give.
#[derive(Default, Deserialize)]
struct EntryNames<'a> {
    #[serde(borrow, rename = "org.opencontainers.image.ref.name")]
    layout: Option<Cow<'a, str>>,
    #[serde(borrow, rename = "io.containerd.image.name")]
    containerd: Option<Cow<'a, str>>,
}

impl<'a> EntryNames<'a> {
    fn of(raw: &'a RawValue) -> Result<EntryNames<'a>> {
        #[derive(Deserialize)]
        struct Entry<'a> {
            #[serde(borrow)]
            annotations: Option<EntryNames<'a>>,
        }
        let entry: Entry<'_> =
            serde_json::from_str(raw.get()).map_err(|error| Error::invalid_document(INDEX, error))?;
        Ok(entry.annotations.unwrap_or_default())
    }

    fn include(&self, text: &str) -> bool {
        self.layout.as_deref() == Some(text) || self.containerd.as_deref() == Some(text)
    }
}

fn is_named(raw: &RawValue, name: &str) -> bool {
    EntryNames::of(raw).is_ok_and(|names| names.include(name))
}

fn read_entry(raw: &RawValue) -> Result<(Name, Descriptor)> {
    let names = EntryNames::of(raw)?;
    let descriptor = serde_json::from_str(raw.get()).map_err(|error| Error::invalid_document(INDEX, error))?;
    Ok((Name::from_annotations(names.containerd.as_deref(), names.layout.as_deref()), descriptor))
}

fn new_entry(name: &str, root: &Descriptor) -> Result<Box<RawValue>> {
    let mut entry = root.clone();
    for annotation in [REF_NAME, CONTAINERD_NAME] {
        entry.annotations.insert(annotation.to_owned(), name.to_owned());
    }
    serde_json::value::to_raw_value(&entry).map_err(|error| Error::invalid_document(INDEX, error))
}
