//! What the documents of a store lead to, each read once.

use std::collections::HashMap;
use std::collections::HashSet;
use std::io::Read;
use std::rc::Rc;

use serde_json::Value;

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
        let mut file = match self.store.open_blob(blob) {
            Ok(file) => file,
            Err(error) if error.is_as_good_as_missing() => return Ok(None),
            Err(error) => return Err(error),
        };
        let fail = |error: std::io::Error| Error::from(error).context(format!("blob {}", blob.digest));
        let mut content = vec![0; 1];
        file.read_exact(&mut content).map_err(fail)?;
        if content != *b"{" {
            return Ok(None);
        }
        file.take(MAX_DOCUMENT).read_to_end(&mut content).map_err(fail)?;
        Ok(Some(content))
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

    /// A document of a type that is not known here leads to whatever digests it has anywhere, if it is JSON.
    fn unknown(document: &Descriptor, content: &[u8]) -> Node {
        let mut digests = HashSet::new();
        let mut ahead: Vec<Value> = serde_json::from_slice(content).into_iter().collect();
        while let Some(value) = ahead.pop() {
            match value {
                Value::String(text) => digests.extend(text.parse::<Digest>()),
                Value::Array(values) => ahead.extend(values),
                Value::Object(fields) => ahead.extend(fields.into_iter().map(|(_, value)| value)),
                _ => {}
            }
        }
        let child = |digest| Descriptor::new(MediaType::OCTET_STREAM, digest, 0);
        let children = digests.into_iter().map(child).collect();
        Node { children, subject: None, config: None, descriptor: document.clone() }
    }
}

/// Whether a descriptor says that it is of a manifest or an index.
pub(super) fn is_document(descriptor: &Descriptor) -> bool {
    descriptor.media_type.is_index() || descriptor.media_type.is_manifest()
}
