//! What a layout calls its images.

use std::fmt;

use crate::reference::ImageReference;

/// What a store calls an image.
///
/// This crate writes references. Other tools write what they like: a bare tag (`latest`), a word (`app`), a short
/// name (`alpine:3.20`), or nothing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Name {
    /// A reference in its canonical spelling.
    Reference(ImageReference),
    /// Another text, as another tool wrote it.
    Verbatim(String),
    /// None: the entry is in the layout, and only its digest says which it is.
    Unnamed,
}

impl Name {
    /// The reference, if this is one in its canonical spelling.
    pub fn reference(&self) -> Option<&ImageReference> {
        match self {
            Name::Reference(reference) => Some(reference),
            _ => None,
        }
    }

    /// The short spelling: the reference's familiar one, the text as it was written, or `<none>`.
    pub fn familiar(&self) -> String {
        match self {
            Name::Reference(reference) => reference.familiar().to_string(),
            Name::Verbatim(text) => text.clone(),
            Name::Unnamed => "<none>".to_owned(),
        }
    }

    /// Repository and tag as `docker images` has them in its first columns; none stands for `<none>`. A bare word
    /// is a tag, as the layout's specification has it.
    pub fn columns(&self) -> (Option<String>, Option<String>) {
        let columns =
            |reference: &ImageReference| (Some(reference.familiar_repository()), reference.tag().map(str::to_owned));
        match self {
            Name::Reference(reference) => columns(reference),
            Name::Verbatim(text) if !text.contains(['/', ':', '@']) => (None, Some(text.clone())),
            Name::Verbatim(text) => match text.parse() {
                Ok(reference) => columns(&reference),
                Err(_) => (Some(text.clone()), None),
            },
            Name::Unnamed => (None, None),
        }
    }

    /// The name that a text is: a reference if it is one's canonical spelling.
    pub(super) fn from_text(text: &str) -> Name {
        match text.parse::<ImageReference>() {
            Ok(reference) if reference.to_string() == text => Name::Reference(reference),
            _ => Name::Verbatim(text.to_owned()),
        }
    }
}

impl fmt::Display for Name {
    /// The canonical spelling, the text as it was written, or `<none>`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Name::Reference(reference) => reference.fmt(f),
            Name::Verbatim(text) => f.pad(text),
            Name::Unnamed => f.pad("<none>"),
        }
    }
}

impl From<&ImageReference> for Name {
    fn from(reference: &ImageReference) -> Name {
        Name::Reference(reference.clone())
    }
}

impl From<ImageReference> for Name {
    fn from(reference: ImageReference) -> Name {
        Name::Reference(reference)
    }
}

impl From<&Name> for Name {
    fn from(name: &Name) -> Name {
        name.clone()
    }
}
