//! `index.json`, taken apart no further than needed.
//!
//! An entry is kept as the text it is, with fields that nobody here knows; only the entries that a change is about
//! are written anew.
//!
//! A root that not every tool can read has two entries: itself, under containerd's annotation, and a *view* of it
//! under the layout's: an OCI manifest of one platform. Both are one name.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::collections::HashSet;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::Name;

use crate::descriptor::Descriptor;
use crate::error::Error;
use crate::error::Result;

pub(super) const INDEX: &str = "index.json";

const REF_NAME: &str = "org.opencontainers.image.ref.name";
const CONTAINERD_NAME: &str = "io.containerd.image.name";
const VIEW_OF: &str = "io.layercake.view-of";

pub(super) struct Index<'a> {
    fields: BTreeMap<String, &'a RawValue>,
    entries: Vec<Entry<'a>>,
}

/// One entry: its text, and what that says of names.
pub(super) struct Entry<'a> {
    raw: Cow<'a, RawValue>,
    names: Names<'a>,
}

#[derive(Clone, Default)]
struct Names<'a> {
    digest: Cow<'a, str>,
    layout: Option<Cow<'a, str>>,
    containerd: Option<Cow<'a, str>>,
    /// The digest of the root that this is a view of.
    view_of: Option<Cow<'a, str>>,
}

impl<'a> Index<'a> {
    pub(super) fn parse(text: &'a str) -> Result<Index<'a>> {
        let invalid = |error| Error::invalid_document(INDEX, error);
        let mut fields: BTreeMap<String, &RawValue> = serde_json::from_str(text).map_err(invalid)?;
        let entries: Option<Vec<&RawValue>> = match fields.remove("manifests") {
            Some(raw) => serde_json::from_str(raw.get()).map_err(invalid)?,
            None => None,
        };
        let entries = entries.unwrap_or_default().into_iter().map(Entry::of).collect();
        Ok(Index { fields, entries })
    }

    /// The entries without views, and what each is called.
    pub(super) fn named(&self) -> impl Iterator<Item = (Name, &Entry<'a>)> {
        let roots = || self.entries.iter().filter(|entry| entry.names.view_of.is_none());
        let claimed: HashSet<&str> = roots().filter_map(|entry| entry.names.layout.as_deref()).collect();
        let shown: HashSet<(&str, &str)> = roots().filter_map(|entry| entry.names.identity()).collect();
        self.entries.iter().filter_map(move |entry| {
            let Names { layout, containerd, view_of, .. } = &entry.names;
            let (layout, containerd) = (layout.as_deref(), containerd.as_deref());
            match (view_of, layout) {
                (Some(root), Some(name)) if shown.contains(&(&**root, name)) => None,
                // Another tool gave the name to another entry, and knows nothing of containerd's annotation.
                (_, None) if containerd.is_some_and(|name| claimed.contains(name)) => Some((Name::Unnamed, entry)),
                _ => Some((Name::from_annotations(containerd, layout), entry)),
            }
        })
    }

    /// The entry of this name; the root where the name is a view's.
    pub(super) fn find(&self, name: &str) -> Option<&Entry<'a>> {
        let by_containerd = |root: Option<&str>| {
            self.entries.iter().find(|entry| {
                let Names { digest, containerd, view_of, .. } = &entry.names;
                view_of.is_none() && containerd.as_deref() == Some(name) && root.is_none_or(|root| root == digest)
            })
        };
        let by_layout = |view: bool| {
            self.entries
                .iter()
                .find(|entry| entry.names.view_of.is_some() == view && entry.names.layout.as_deref() == Some(name))
        };
        if let Some(entry) = by_layout(false) {
            return Some(entry);
        }
        match by_layout(true) {
            Some(view) => by_containerd(view.names.view_of.as_deref()).or(Some(view)),
            None => by_containerd(None),
        }
    }

    /// Puts entries in the place of those of this name.
    pub(super) fn put(&mut self, name: &str, entries: Vec<Entry<'a>>) {
        let at = self.entries.iter().position(|entry| entry.names.include(name)).unwrap_or(self.entries.len());
        self.remove(name);
        let at = at.min(self.entries.len());
        self.entries.splice(at..at, entries);
    }

    /// Takes away the entries of this name.
    pub(super) fn remove(&mut self, name: &str) {
        self.entries.retain(|entry| !entry.names.include(name));
    }

    pub(super) fn to_json(&self) -> String {
        let length: usize = self.entries.iter().map(|entry| entry.raw.get().len() + 1).sum();
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
        for (n, entry) in self.entries.iter().enumerate() {
            if n > 0 {
                json.push(',');
            }
            json.push_str(entry.raw.get());
        }
        json.push_str("]}");
        json
    }
}

impl<'a> Entry<'a> {
    fn of(raw: &'a RawValue) -> Entry<'a> {
        // What cannot be read has no name, and its error comes when the entry itself is asked for.
        let names = Names::of(raw).unwrap_or_default();
        Entry { raw: Cow::Borrowed(raw), names }
    }

    pub(super) fn descriptor(&self) -> Result<Descriptor> {
        serde_json::from_str(self.raw.get()).map_err(|error| Error::invalid_document(INDEX, error))
    }

    /// The entry of a root that every tool can read: both annotations.
    pub(super) fn plain(name: &str, root: &Descriptor) -> Result<Entry<'static>> {
        Entry::new(root, &[(REF_NAME, name), (CONTAINERD_NAME, name)])
    }

    /// The entries of a root that not every tool can read, and of a view of it.
    pub(super) fn with_view(name: &str, root: &Descriptor, view: &Descriptor) -> Result<Vec<Entry<'static>>> {
        let shown = Entry::new(root, &[(CONTAINERD_NAME, name)])?;
        let view = Entry::new(view, &[(REF_NAME, name), (VIEW_OF, &root.digest.to_string())])?;
        Ok(vec![shown, view])
    }

    fn new(descriptor: &Descriptor, annotations: &[(&str, &str)]) -> Result<Entry<'static>> {
        let mut descriptor = descriptor.clone();
        for name in [REF_NAME, CONTAINERD_NAME, VIEW_OF] {
            descriptor.annotations.remove(name);
        }
        let annotations = annotations.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        descriptor.annotations.extend(annotations);
        let raw = serde_json::value::to_raw_value(&descriptor).map_err(|e| Error::invalid_document(INDEX, e))?;
        let annotation = |name: &str| descriptor.annotations.get(name).cloned().map(Cow::Owned);
        let names = Names {
            digest: Cow::Owned(descriptor.digest.to_string()),
            layout: annotation(REF_NAME),
            containerd: annotation(CONTAINERD_NAME),
            view_of: annotation(VIEW_OF),
        };
        Ok(Entry { raw: Cow::Owned(raw), names })
    }
}

impl<'a> Names<'a> {
    fn of(raw: &'a RawValue) -> serde_json::Result<Names<'a>> {
        #[derive(Deserialize)]
        struct Fields<'a> {
            #[serde(borrow)]
            digest: Option<Cow<'a, str>>,
            #[serde(borrow)]
            annotations: Option<Annotations<'a>>,
        }
        #[derive(Default, Deserialize)]
        struct Annotations<'a> {
            #[serde(borrow, rename = "org.opencontainers.image.ref.name")]
            layout: Option<Cow<'a, str>>,
            #[serde(borrow, rename = "io.containerd.image.name")]
            containerd: Option<Cow<'a, str>>,
            #[serde(borrow, rename = "io.layercake.view-of")]
            view_of: Option<Cow<'a, str>>,
        }
        let fields: Fields<'a> = serde_json::from_str(raw.get())?;
        let Annotations { layout, containerd, view_of } = fields.annotations.unwrap_or_default();
        Ok(Names { digest: fields.digest.unwrap_or_default(), layout, containerd, view_of })
    }

    fn include(&self, text: &str) -> bool {
        self.layout.as_deref() == Some(text) || self.containerd.as_deref() == Some(text)
    }

    /// What a view says of its root.
    fn identity(&self) -> Option<(&str, &str)> {
        Some((&self.digest, self.containerd.as_deref()?))
    }
}
