//! `index.json`, taken apart no further than needed.
//!
//! An entry is kept as the text it is, with fields that nobody here knows; only the entries that a change is about
//! are written anew.
//!
//! A root that not every tool can read has two entries: itself, under containerd's annotation, and a *view* of it
//! under the layout's: an OCI manifest of one platform. Both are one name, and hold as long as both are there and the
//! view is the one that was written: other tools change and remove what they see, which is the view.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::collections::HashMap;
use std::collections::HashSet;
use std::fmt;
use std::ops::Range;

use serde::Deserialize;
use serde::Deserializer;
use serde::de;
use serde_json::value::RawValue;

use super::Name;

use crate::descriptor::Descriptor;
use crate::error::Error;
use crate::error::Result;
use crate::json;

pub(super) const INDEX: &str = "index.json";
/// The most bytes of `index.json`: some 300,000 names.
pub(super) const MAX_INDEX: u64 = 128 << 20;
/// What `index.json` was before the last change, in the folder of what is ours.
pub(super) const PREVIOUS_INDEX: &str = "index.json.old";

const REF_NAME: &str = "org.opencontainers.image.ref.name";
const CONTAINERD_NAME: &str = "io.containerd.image.name";
const VIEW: &str = "io.layercake.view";
const VIEW_OF: &str = "io.layercake.view-of";

/// The most entries: more than fit the most bytes, if they say anything.
const MAX_ENTRIES: usize = 500_000;

pub(super) struct Index<'a> {
    fields: BTreeMap<String, &'a RawValue>,
    entries: Vec<Entry<'a>>,
}

/// One entry: its text, and what it is called.
pub(super) struct Entry<'a> {
    raw: Cow<'a, RawValue>,
    role: Role<'a>,
}

/// What an entry is to its name.
enum Role<'a> {
    /// It has this name, or none.
    Root(Option<Cow<'a, str>>),
    /// It says that it has this name, which another tool gave to another entry or took away.
    Lost(Cow<'a, str>),
    /// It is what other tools see under this name.
    View(Cow<'a, str>),
}

impl<'a> Index<'a> {
    pub(super) fn parse(text: &'a str) -> Result<Index<'a>> {
        let invalid = |error| Error::invalid_document(INDEX, error);
        let json::Pairs(fields) = serde_json::from_str(text).map_err(invalid)?;
        check_fields(&fields)?;
        let mut fields: BTreeMap<String, &RawValue> =
            fields.into_iter().map(|(name, value)| (name.into_owned(), value)).collect();
        let raws: Option<Entries<'_>> = match fields.remove("manifests") {
            Some(raw) => serde_json::from_str(raw.get()).map_err(invalid)?,
            None => None,
        };
        let raws = raws.map(|entries| entries.0).unwrap_or_default();
        // What cannot be read has no name; its error comes when the entry itself is asked for.
        let labels: Vec<Labels<'a>> = raws.iter().map(|raw| Labels::of(raw).unwrap_or_default()).collect();
        let roles = assign(&labels);
        let entries = raws.into_iter().zip(roles).map(|(raw, role)| Entry { raw: Cow::Borrowed(raw), role }).collect();
        Ok(Index { fields, entries })
    }

    /// The entries without views, and what each is called.
    pub(super) fn named(&self) -> impl Iterator<Item = (Name, &Entry<'a>)> {
        self.entries.iter().filter_map(|entry| match &entry.role {
            Role::Root(Some(name)) => Some((Name::from_text(name), entry)),
            Role::Root(None) | Role::Lost(_) => Some((Name::Unnamed, entry)),
            Role::View(_) => None,
        })
    }

    /// All entries, views among them.
    pub(super) fn all(&self) -> impl Iterator<Item = &Entry<'a>> {
        self.entries.iter()
    }

    /// Where in the text that was parsed the roots of the names stand.
    pub(super) fn places(&self, text: &str) -> HashMap<String, Range<usize>> {
        let mut places = HashMap::new();
        for entry in &self.entries {
            let (Role::Root(Some(name)), Cow::Borrowed(raw)) = (&entry.role, &entry.raw) else { continue };
            let Some(start) = (raw.get().as_ptr() as usize).checked_sub(text.as_ptr() as usize) else { continue };
            places.entry(name.clone().into_owned()).or_insert(start..start + raw.get().len());
        }
        places
    }

    /// The entry of this name.
    pub(super) fn find(&self, name: &str) -> Option<&Entry<'a>> {
        self.entries.iter().find(|entry| matches!(&entry.role, Role::Root(Some(found)) if found == name))
    }

    /// Puts entries in the place of those of this name.
    pub(super) fn put(&mut self, name: &str, entries: Vec<Entry<'a>>) {
        let at = self.entries.iter().position(|entry| entry.is_called(name)).unwrap_or(self.entries.len());
        self.remove(name);
        let at = at.min(self.entries.len());
        self.entries.splice(at..at, entries);
    }

    /// Takes away the entries of this name. Those that only say that they have it lose that word: else they would have
    /// the name again when nobody else does.
    pub(super) fn remove(&mut self, name: &str) {
        self.entries.retain(|entry| !entry.is_called(name));
        for entry in &mut self.entries {
            if matches!(&entry.role, Role::Lost(lost) if lost == name) {
                entry.forget_name();
            }
        }
    }

    /// An index without entries.
    pub(super) fn empty() -> Index<'static> {
        Index { fields: BTreeMap::new(), entries: Vec::new() }
    }

    /// Adds a root without a name.
    pub(super) fn push_unnamed(&mut self, root: &Descriptor) -> Result<()> {
        self.entries.push(Entry::new(root, &[], Role::Root(None))?);
        Ok(())
    }

    /// Keeps the entries of which this is true.
    pub(super) fn retain(&mut self, keep: impl FnMut(&Entry<'a>) -> bool) {
        self.entries.retain(keep);
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

impl Entry<'_> {
    pub(super) fn descriptor(&self) -> Result<Descriptor> {
        descriptor_of(self.raw.get())
    }

    /// What it is called, or is what other tools see of.
    pub(super) fn name(&self) -> Option<&str> {
        match &self.role {
            Role::Root(name) => name.as_deref(),
            Role::Lost(_) => None,
            Role::View(name) => Some(name),
        }
    }

    pub(super) fn is_view(&self) -> bool {
        matches!(self.role, Role::View(_))
    }

    fn is_called(&self, name: &str) -> bool {
        match &self.role {
            Role::Root(found) => found.as_deref() == Some(name),
            Role::View(found) => found == name,
            Role::Lost(_) => false,
        }
    }

    /// Takes the annotations away that this crate wrote; what else the entry says stays.
    fn forget_name(&mut self) {
        let Ok(mut entry) = serde_json::from_str::<serde_json::Value>(self.raw.get()) else { return };
        if let Some(annotations) = entry.get_mut("annotations").and_then(serde_json::Value::as_object_mut) {
            annotations.retain(|name, _| name != CONTAINERD_NAME && name != VIEW);
        }
        if let Ok(raw) = serde_json::value::to_raw_value(&entry) {
            self.raw = Cow::Owned(raw);
            self.role = Role::Root(None);
        }
    }

    /// The entry of a root that every tool can read: both annotations.
    pub(super) fn plain(name: &str, root: &Descriptor) -> Result<Entry<'static>> {
        let role = Role::Root(Some(Cow::Owned(name.to_owned())));
        Entry::new(root, &[(REF_NAME, name), (CONTAINERD_NAME, name)], role)
    }

    /// The entries of a root that not every tool can read, and of a view of it.
    pub(super) fn with_view(name: &str, root: &Descriptor, view: &Descriptor) -> Result<Vec<Entry<'static>>> {
        let (root_digest, view_digest) = (root.digest.to_string(), view.digest.to_string());
        let name_ = || Cow::Owned(name.to_owned());
        let shown = [(REF_NAME, name), (VIEW, &view_digest), (VIEW_OF, &root_digest)];
        Ok(vec![
            Entry::new(root, &[(CONTAINERD_NAME, name), (VIEW, &view_digest)], Role::Root(Some(name_())))?,
            Entry::new(view, &shown, Role::View(name_()))?,
        ])
    }

    fn new(descriptor: &Descriptor, annotations: &[(&str, &str)], role: Role<'static>) -> Result<Entry<'static>> {
        let mut descriptor = descriptor.clone();
        for name in [REF_NAME, CONTAINERD_NAME, VIEW, VIEW_OF] {
            descriptor.annotations.remove(name);
        }
        let annotations = annotations.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        descriptor.annotations.extend(annotations);
        let raw = serde_json::value::to_raw_value(&descriptor).map_err(|e| Error::invalid_document(INDEX, e))?;
        Ok(Entry { raw: Cow::Owned(raw), role })
    }
}

/// Fails where the index itself can be read in two ways. Its entries are checked one by one: one of them that is
/// ambiguous does not hide the others.
fn check_fields(fields: &[(Cow<'_, str>, &RawValue)]) -> Result<()> {
    let invalid = |ambiguity| Error::invalid_document(INDEX, ambiguity);
    json::check_names(fields.iter().map(|(name, _)| &**name), &json::DOCUMENT).map_err(invalid)?;
    for (name, value) in fields.iter().filter(|(name, _)| name != "manifests") {
        let shape = json::DOCUMENT.field(name).map_err(invalid)?;
        json::check(value.get().as_bytes(), shape).map_err(invalid)?;
    }
    Ok(())
}

/// The descriptor that an entry is.
pub(super) fn descriptor_of(entry: &str) -> Result<Descriptor> {
    json::check(entry.as_bytes(), &json::DESCRIPTOR).map_err(|error| Error::invalid_document(INDEX, error))?;
    serde_json::from_str(entry).map_err(|error| Error::invalid_document(INDEX, error))
}

/// What an entry says of itself.
#[derive(Clone, Default)]
struct Labels<'a> {
    digest: Cow<'a, str>,
    layout: Option<Cow<'a, str>>,
    containerd: Option<Cow<'a, str>>,
    view: Option<Cow<'a, str>>,
    view_of: Option<Cow<'a, str>>,
}

impl<'a> Labels<'a> {
    fn of(raw: &'a RawValue) -> serde_json::Result<Labels<'a>> {
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
            #[serde(borrow, rename = "io.layercake.view")]
            view: Option<Cow<'a, str>>,
            #[serde(borrow, rename = "io.layercake.view-of")]
            view_of: Option<Cow<'a, str>>,
        }
        json::check(raw.get().as_bytes(), &json::DESCRIPTOR).map_err(de::Error::custom)?;
        let fields: Fields<'a> = serde_json::from_str(raw.get())?;
        let Annotations { layout, containerd, view, view_of } = fields.annotations.unwrap_or_default();
        let text = |label: Option<Cow<'a, str>>| label.filter(|text| !text.is_empty());
        let (layout, containerd) = (text(layout), text(containerd));
        Ok(Labels { digest: fields.digest.unwrap_or_default(), layout, containerd, view, view_of })
    }

    /// The name, where the entry is a view as it was written: another tool that changes the image keeps the annotations,
    /// and the digest is another.
    fn view_name(&self) -> Option<&Cow<'a, str>> {
        let own = self.view.as_ref() == Some(&self.digest);
        self.layout.as_ref().filter(|_| own && self.view_of.is_some())
    }

    /// What the entry is called, taken alone: the layout's annotation, unless that is only the tag of containerd's.
    fn own_name(&self) -> Option<&Cow<'a, str>> {
        match (&self.layout, &self.containerd) {
            (Some(layout), Some(containerd)) if is_tag_of(layout, containerd) => Some(containerd),
            (layout, containerd) => layout.as_ref().or(containerd.as_ref()),
        }
    }
}

/// Whether a name is the other's tag or digest alone, as containerd exports it.
fn is_tag_of(tag: &str, name: &str) -> bool {
    name.strip_suffix(tag).is_some_and(|rest| rest.ends_with([':', '@']))
}

fn assign<'a>(labels: &[Labels<'a>]) -> Vec<Role<'a>> {
    let views = || labels.iter().filter_map(|entry| Some((entry, entry.view_name()?)));
    let viewed: HashSet<(&str, &str)> =
        views().filter_map(|(entry, name)| Some((&**name, entry.view_of.as_deref()?))).collect();
    let claimed: HashSet<&str> = labels.iter().filter_map(|entry| entry.layout.as_deref()).collect();
    let rooted: HashSet<(&str, &str)> = labels
        .iter()
        .filter(|entry| entry.view_of.is_none())
        .filter_map(|entry| Some((entry.containerd.as_deref()?, &*entry.digest)))
        .collect();
    labels
        .iter()
        .map(|entry| {
            if let (Some(name), Some(root)) = (entry.view_name(), &entry.view_of)
                && rooted.contains(&(&**name, &**root))
            {
                return Role::View(name.clone());
            }
            let Some(name) = entry.own_name() else { return Role::Root(None) };
            if entry.layout.as_ref() == Some(name) {
                return Role::Root(Some(name.clone()));
            }
            // By containerd's word only. Another tool may have given the name to another entry, or taken the view away.
            let seen = viewed.contains(&(&**name, &*entry.digest));
            let lost = if entry.view.is_some() { !seen } else { claimed.contains(&**name) };
            if lost { Role::Lost(name.clone()) } else { Role::Root(Some(name.clone())) }
        })
        .collect()
}

/// A list that is not longer than it may be, checked while it is read.
struct Entries<'a>(Vec<&'a RawValue>);

impl<'de: 'a, 'a> Deserialize<'de> for Entries<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Entries<'a>, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Entries<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a list of at most {MAX_ENTRIES} manifests")
            }
            fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<Entries<'de>, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = list.next_element()? {
                    if entries.len() == MAX_ENTRIES {
                        return Err(de::Error::invalid_length(MAX_ENTRIES + 1, &self));
                    }
                    entries.push(entry);
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_seq(Visitor)
    }
}
