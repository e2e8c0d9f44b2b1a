//! The images that `docker save` put into an archive: its `manifest.json`.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::at_most::AtMost;
use super::members::Held;
use super::members::MANIFEST;
use super::members::Members;
use super::plan::MAX_NAMES;
use super::plan::Plan;
use super::plan::Source;

use crate::changeset::Limits;
use crate::changeset::split;
use crate::descriptor::Descriptor;
use crate::digest::Digest;
use crate::error::Context;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Limit;
use crate::error::Result;
use crate::event::Cancel;
use crate::json;
use crate::manifest::Config;
use crate::manifest::Root;
use crate::media_type::MediaType;

/// How many images a `manifest.json` lists at most.
const MAX_IMAGES: usize = 10_000;
/// More layers of an image are not read, whatever the limits are.
const MAX_LAYERS: usize = 64 << 10;

/// An image in `manifest.json`. Paths are members', not the file system's.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Item {
    config: String,
    #[serde(default)]
    repo_tags: Option<AtMost<String, MAX_NAMES>>,
    #[serde(default)]
    layers: Option<AtMost<String, MAX_LAYERS>>,
}

pub(super) fn plan(members: &mut Members, limits: Limits, cancel: &Cancel, plan: &mut Plan) -> Result<()> {
    let items = items(members)?;
    if items.is_empty() {
        return Err(Error::invalid_archive("its manifest.json lists no images"));
    }
    let mut reading = Reading { members, limits, cancel, diff_ids: HashMap::new(), plan };
    let count = items.len();
    for (n, item) in items.into_iter().enumerate() {
        reading.image(item).context(|| format!("image {} of {count}", n + 1))?;
    }
    Ok(())
}

/// The manifest of an image that was planned.
pub(super) fn manifest(members: &Members, item: &RawValue) -> Result<Vec<u8>> {
    let item = Item::of(item)?;
    let config = members.held(members.find(&item.config)?);
    let config = Descriptor::new(MediaType::OCI_CONFIG, config.digest, config.size);
    let layer = |path: &String| Ok(layer_of(members.held(members.find(path)?)));
    let layers = item.paths().iter().map(layer).collect::<Result<Vec<_>>>()?;
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MediaType::OCI_MANIFEST, "config": config, "layers": layers,
    });
    Ok(manifest.to_string().into_bytes())
}

/// The layer as it is: Docker writes plain tars, others compressed ones.
fn layer_of(held: &Held) -> Descriptor {
    Descriptor::new(held.compression.oci_layer(), held.digest, held.size)
}

/// Adds the names that `manifest.json` has to the images that the layout beside it has; it says nothing else of them.
pub(super) fn add_names(members: &mut Members, plan: &mut Plan) -> Result<()> {
    let items = items(members)?;
    let mut by_config = HashMap::new();
    for image in &plan.loaded.images {
        let Some(number) = members.blob(image.root.digest) else { continue };
        if let Root::Manifest(manifest) = Root::of(&image.root, members.content(number)?)? {
            by_config.insert(manifest.config().digest, image.root.clone());
        }
    }
    for item in &items {
        let item = Item::of(item)?;
        let config = members.find(&item.config).map(|number| members.held(number).digest);
        let Some(root) = config.ok().and_then(|config| by_config.get(&config)) else { continue };
        plan.add_called(root, item.names())?;
    }
    Ok(())
}

impl Item {
    fn of(text: &RawValue) -> Result<Item> {
        serde_json::from_str(text.get()).map_err(|error| Error::invalid_document(MANIFEST, error))
    }

    fn names(&self) -> &[String] {
        self.repo_tags.as_ref().map_or(&[], |names| &names.0)
    }

    fn paths(&self) -> &[String] {
        self.layers.as_ref().map_or(&[], |layers| &layers.0)
    }
}

/// What is said of each image, as text: taken apart, all of them together may take ten times as much memory.
fn items(members: &Members) -> Result<Vec<Box<RawValue>>> {
    let content = members.document(MANIFEST).unwrap_or_default();
    json::check(content, &json::ARCHIVE).map_err(|error| Error::invalid_document(MANIFEST, error))?;
    let items = serde_json::from_slice(content).map_err(|error| Error::invalid_document(MANIFEST, error));
    let AtMost::<_, MAX_IMAGES>(items) = items?;
    if items.len() > MAX_IMAGES {
        return Err(Error::limit(Limit::Documents, MAX_IMAGES as u64));
    }
    Ok(items)
}

struct Reading<'a> {
    members: &'a mut Members,
    limits: Limits,
    cancel: &'a Cancel,
    /// Of the compressed layers that were read for it.
    diff_ids: HashMap<usize, Digest>,
    plan: &'a mut Plan,
}

impl Reading<'_> {
    /// Plans a manifest of what the archive says of an image. The configuration stays as it is, so the image's id does.
    fn image(&mut self, text: Box<RawValue>) -> Result<()> {
        let item = Item::of(&text)?;
        let number = self.members.find(&item.config)?;
        let digest = self.members.held(number).digest;
        check_id(&item.config, digest)?;
        let config = Config::with_digest(self.members.content(number)?, digest)?;
        let paths = item.paths();
        self.limits.check(Limit::Layers, paths.len() as u64)?;
        if paths.len() > MAX_LAYERS {
            return Err(Error::limit(Limit::Layers, MAX_LAYERS as u64));
        }
        config.check_layers(paths.len())?;
        for (n, (path, diff_id)) in paths.iter().zip(config.diff_ids()?).enumerate() {
            self.layer(path, *diff_id).context(|| format!("layer {} of {}", n + 1, paths.len()))?;
        }
        let config = Descriptor::new(MediaType::OCI_CONFIG, digest, self.members.held(number).size);
        self.plan.add(config, Source::Member(number));
        let root = Descriptor::of(MediaType::OCI_MANIFEST, &manifest(self.members, &text)?);
        self.plan.add(root.clone(), Source::Made(text));
        self.plan.add_called(&root, item.names())
    }

    fn layer(&mut self, path: &str, diff_id: Digest) -> Result<()> {
        let number = self.members.find(path)?;
        let descriptor = layer_of(self.members.held(number));
        let found = match self.diff_ids.get(&number) {
            Some(found) => *found,
            None => self.members.diff_id(number, self.cancel)?,
        };
        self.diff_ids.insert(number, found);
        if found != diff_id {
            return Err(ErrorKind::DigestMismatch { expected: diff_id, found }.into());
        }
        self.plan.add(descriptor, Source::Member(number));
        Ok(())
    }
}

/// A configuration whose name is an id must be what the id says.
fn check_id(path: &str, found: Digest) -> Result<()> {
    let name = String::from_utf8_lossy(split(path.as_bytes()).1).into_owned();
    let name = name.strip_suffix(".json").unwrap_or(&name);
    let id = name.strip_prefix("sha256:").unwrap_or(name);
    match format!("sha256:{id}").parse::<Digest>() {
        Ok(expected) if expected != found => Err(ErrorKind::DigestMismatch { expected, found }.into()),
        _ => Ok(()),
    }
}
