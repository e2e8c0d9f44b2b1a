//! What the documents of a store lead to, each read once.

use std::collections::HashMap;
use std::collections::HashSet;
use std::io::Read;
use std::rc::Rc;

use super::Store;

use crate::descriptor::Descriptor;
use crate::digest::Digest;
use crate::error::Context;
use crate::error::Error;
use crate::error::Result;
use crate::manifest::MAX_DOCUMENT;
use crate::manifest::Root;
use crate::media_type::MediaType;

/// The documents that were read so far.
#[derive(Debug)]
pub(super) struct Graph {
    store: Store,
    nodes: HashMap<Digest, Rc<Node>>,
}

/// A child of a document.
#[derive(Clone, Debug)]
pub(super) enum Child {
    /// A document, by its media type, or content that leads to nothing: a layer, a configuration.
    Typed(Descriptor),
    /// Content of a type that is not known here, which may lead to more.
    Unknown(Descriptor),
    /// A digest in the text of a document of such a type.
    Mentioned(Digest),
}

/// What one document says.
#[derive(Debug)]
pub(super) struct Node {
    /// What it leads to.
    pub(super) children: Vec<Descriptor>,
    /// What it speaks of.
    pub(super) subject: Option<Digest>,
    /// Of an image's manifest, the configuration.
    pub(super) config: Option<Descriptor>,
    pub(super) descriptor: Descriptor,
}

impl Child {
    pub(super) fn digest(&self) -> Digest {
        match self {
            Child::Typed(descriptor) | Child::Unknown(descriptor) => descriptor.digest,
            Child::Mentioned(digest) => *digest,
        }
    }
}

impl Graph {
    pub(super) fn new(store: &Store) -> Graph {
        Graph { store: store.clone(), nodes: HashMap::new() }
    }

    /// A manifest, an index, or another document that a layout lists; none if it is not there.
    pub(super) fn node(&mut self, document: &Descriptor) -> Result<Option<Rc<Node>>> {
        if let Some(node) = self.nodes.get(&document.digest) {
            return Ok(Some(Rc::clone(node)));
        }
        let read = || {
            let content = match self.store.read(document) {
                Ok(content) => content,
                Err(error) if error.is_not_found() => return Ok(None),
                Err(error) => return Err(error),
            };
            let node = if is_document(document) {
                Node::of(&Root::of(document, content)?)
            } else {
                Node::unknown(document, &content)
            };
            Ok(Some(Rc::new(node)))
        };
        let node = read().context(|| format!("document {}", document.digest))?;
        self.nodes.extend(node.clone().map(|node| (document.digest, node)));
        Ok(node)
    }

    pub(super) fn size_of(&self, digest: Digest) -> Result<Option<u64>> {
        self.store.size_of(digest)
    }

    /// The digests in the text of content of another type, wherever they stand in it; none where the content is not
    /// there or too large for a document. `is_listed` says that an index lists it: then it is searched whatever it looks like,
    /// else only if it is text.
    ///
    /// # Errors
    ///
    /// Content that does not have its digest may have lost some of the digests in it.
    pub(super) fn mentions(&self, digest: Digest, is_listed: bool) -> Result<Option<HashSet<Digest>>> {
        let mentions = || {
            let Some(found) = self.store.size_of(digest)? else { return Ok(None) };
            if found > MAX_DOCUMENT {
                return Ok(None);
            }
            let blob = Descriptor::new(MediaType::OCTET_STREAM, digest, found);
            let Some(content) = self.unverified(&blob)? else { return Ok(None) };
            if !is_listed && std::str::from_utf8(&content).is_err() {
                return Ok(None);
            }
            if content.len() as u64 != found || Digest::of(digest.algorithm(), &content) != digest {
                return Err(self.store.read(&blob).err().unwrap_or_else(|| Error::not_found("its content")));
            }
            Ok(Some(digests_in(&content)))
        };
        mentions().context(|| format!("document {digest}"))
    }

    /// A document that was read before.
    pub(super) fn known(&self, digest: Digest) -> Option<&Node> {
        self.nodes.get(&digest).map(Rc::as_ref)
    }

    /// A blob of which nobody says what it is, if it is a manifest or an index, and what its name says.
    pub(super) fn sniff(&mut self, digest: Digest, size: u64) -> Result<Option<Rc<Node>>> {
        if let Some(node) = self.nodes.get(&digest) {
            return Ok(Some(Rc::clone(node)));
        }
        let blob = Descriptor::new(MediaType::OCTET_STREAM, digest, size);
        let Some(content) = self.json(&blob)? else { return Ok(None) };
        let Ok(root) = Root::with_algorithm(content, None, digest.algorithm()) else { return Ok(None) };
        if root.descriptor().digest != digest {
            return Ok(None);
        }
        let node = Rc::new(Node::of(&root));
        self.nodes.insert(digest, Rc::clone(&node));
        Ok(Some(node))
    }

    /// The content of a small blob that begins as JSON does, not verified.
    fn json(&self, blob: &Descriptor) -> Result<Option<Vec<u8>>> {
        if blob.size > MAX_DOCUMENT || blob.size == 0 {
            return Ok(None);
        }
        let Some(mut file) = self.open(blob)? else { return Ok(None) };
        let fail = |error: std::io::Error| Error::from(error).context(format!("blob {}", blob.digest));
        let mut content = vec![0; 1];
        file.read_exact(&mut content).map_err(fail)?;
        // White space and a byte order mark may stand before a document.
        if !matches!(content[0], b'{' | b' ' | b'\t' | b'\r' | b'\n' | 0xef) {
            return Ok(None);
        }
        file.take(MAX_DOCUMENT).read_to_end(&mut content).map_err(fail)?;
        Ok(Some(content))
    }

    /// The content of a small blob, not verified; none if it is not there.
    fn unverified(&self, blob: &Descriptor) -> Result<Option<Vec<u8>>> {
        let Some(file) = self.open(blob)? else { return Ok(None) };
        let mut content = Vec::new();
        file.take(MAX_DOCUMENT).read_to_end(&mut content)?;
        Ok(Some(content))
    }

    fn open(&self, blob: &Descriptor) -> Result<Option<std::fs::File>> {
        match self.store.open_blob(blob) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.is_as_good_as_missing() => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl Node {
    fn of(root: &Root) -> Node {
        let descriptor = root.descriptor();
        match root {
            Root::Manifest(manifest) => Node {
                children: [manifest.config()].into_iter().chain(manifest.layers()).cloned().collect(),
                subject: manifest.subject().map(|subject| subject.digest),
                config: Some(manifest.config().clone()).filter(|config| config.media_type.is_config()),
                descriptor,
            },
            Root::Index(index) => Node {
                children: index.manifests().to_vec(),
                subject: index.subject().map(|subject| subject.digest),
                config: None,
                descriptor,
            },
        }
    }

    /// A document of an unknown type leads to every digest in it.
    fn unknown(document: &Descriptor, content: &[u8]) -> Node {
        let child = |digest| Descriptor::new(MediaType::OCTET_STREAM, digest, 0);
        let children = digests_in(content).into_iter().map(child).collect();
        Node { children, subject: None, config: None, descriptor: document.clone() }
    }

    /// The content that it leads to.
    pub(super) fn next(&self) -> impl Iterator<Item = Child> + '_ {
        let is_index = self.descriptor.media_type.is_index();
        self.children.iter().cloned().map(move |child| match &child.media_type {
            media_type if is_index && !is_document(&child) && !media_type.is_layer() => Child::Unknown(child),
            _ => Child::Typed(child),
        })
    }
}

/// The digests that stand anywhere in a text, however deep it is nested and whether it is JSON or not. Characters that
/// JSON escapes are read as they are meant.
fn digests_in(text: &[u8]) -> HashSet<Digest> {
    let text = unescape(text);
    let is_hex = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let mut found = HashSet::new();
    for (name, length) in [("sha256:", 64), ("sha512:", 128)] {
        for start in positions(&text, name.as_bytes()) {
            let hex = &text[start + name.len()..];
            let Some(hex) = hex.get(..length).filter(|hex| hex.iter().all(is_hex)) else { continue };
            found.extend(std::str::from_utf8(hex).ok().and_then(|hex| format!("{name}{hex}").parse::<Digest>().ok()));
        }
    }
    found
}

fn positions<'a>(text: &'a [u8], name: &'a [u8]) -> impl Iterator<Item = usize> + 'a {
    text.windows(name.len()).enumerate().filter(move |(_, window)| *window == name).map(|(place, _)| place)
}

/// Replaces the escapes `\u00xx` of JSON.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, after @ ..] = rest {
        let code = after.strip_prefix(b"u00").and_then(|hex| std::str::from_utf8(hex.get(..2)?).ok());
        match code.and_then(|code| u8::from_str_radix(code, 16).ok()) {
            Some(byte) if *first == b'\\' => {
                plain.push(byte);
                rest = &after[5..];
            }
            _ => {
                plain.push(*first);
                rest = after;
            }
        }
    }
    plain
}

/// Whether a descriptor says that it is of a manifest or an index.
pub(super) fn is_document(descriptor: &Descriptor) -> bool {
    descriptor.media_type.is_index() || descriptor.media_type.is_manifest()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_found_wherever_they_stand() {
        let (one, two) = (Digest::sha256(b"1"), Digest::of(crate::digest::Algorithm::Sha512, b"2"));
        let deep = format!("{}\"{one}\"{}", "[".repeat(100_000), "]".repeat(100_000));
        let escaped = format!("{{\"x\":\"{}\"}}", one.to_string().replace(':', "\\u003A").replace('s', "\\u0073"));
        for text in [deep, escaped, format!("a: {one}-{one}\n- x@{one}"), format!("\\u00zz\\{one}")] {
            assert_eq!(digests_in(text.as_bytes()), HashSet::from([one]), "{text:.100}");
        }
        assert_eq!(digests_in(format!("{one}{two}").as_bytes()), HashSet::from([one, two]));
        for text in ["", "\\", "\\u00", "sha256:", "sha256:abc", "md5:00000000000000000000000000000000"] {
            assert_eq!(digests_in(text.as_bytes()), HashSet::new(), "{text}");
        }
    }
}
