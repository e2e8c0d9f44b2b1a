//! New images: of another one or of nothing, with more layers and another configuration.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::SystemTime;

use serde_json::json;

use crate::changeset::Packed;
use crate::compression::Compression;
use crate::compression::EncoderOptions;
use crate::descriptor::Descriptor;
use crate::digest::Algorithm;
use crate::digest::Digest;
use crate::error::Result;
use crate::image::Image;
use crate::manifest::ConfigEdit;
use crate::manifest::History;
use crate::manifest::Object;
use crate::media_type::MediaType;
use crate::platform::Platform;
use crate::store::Store;

/// A layer that is in the store and in no image yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NewLayer {
    pub(crate) blob: Descriptor,
    pub(crate) diff_id: Digest,
}

/// An image that is being made. The media types are those of the one it is made of; what of its documents nobody
/// changes stays to the byte.
#[derive(Clone, Debug)]
pub(crate) struct Draft {
    store: Store,
    manifest: Object,
    manifest_type: MediaType,
    config: Object,
    config_type: MediaType,
    layers: Vec<Descriptor>,
    diff_ids: Vec<Digest>,
    history: Vec<Object>,
}

impl Draft {
    /// Of another image.
    pub(crate) fn of(image: &Image) -> Result<Draft> {
        let (manifest, config) = (image.manifest(), image.config()?);
        let mut document = Object::parse("manifest", manifest.raw())?;
        // What was said about something else is not said by what comes of it.
        document.remove("subject");
        let fields = Object::parse("configuration", config.raw())?;
        let mut draft = Draft {
            store: image.store().clone(),
            manifest: document,
            manifest_type: manifest.media_type().clone(),
            config_type: manifest.config().media_type.clone(),
            layers: manifest.layers().to_vec(),
            diff_ids: config.diff_ids()?.to_vec(),
            history: fields.get("history")?.unwrap_or_default(),
            config: fields,
        };
        // Steps and layers are paired in their order: one that is not told of would take the place of the next.
        let told = config.history().iter().filter(|step| !step.empty_layer).count();
        draft.history.extend(std::iter::repeat_n(Object::default(), draft.layers.len().saturating_sub(told)));
        Ok(draft)
    }

    /// Of nothing.
    pub(crate) fn scratch(store: &Store, platform: &Platform) -> Result<Draft> {
        let mut manifest = Object::default();
        manifest.set("schemaVersion", &2)?;
        manifest.set("mediaType", &MediaType::OCI_MANIFEST)?;
        let mut config = Object::default();
        ConfigEdit::new().platform(platform).apply(&mut config)?;
        Ok(Draft {
            store: store.clone(),
            manifest,
            manifest_type: MediaType::OCI_MANIFEST,
            config,
            config_type: MediaType::OCI_CONFIG,
            layers: Vec::new(),
            diff_ids: Vec::new(),
            history: Vec::new(),
        })
    }

    /// Changes the configuration.
    pub(crate) fn edit(&mut self, edit: &ConfigEdit) -> Result<()> {
        edit.apply(&mut self.config)
    }

    /// Sets when the image was made.
    pub(crate) fn set_created(&mut self, time: SystemTime) -> Result<()> {
        self.config.set("created", &History::at(Some(time))?.created)
    }

    /// Adds a note to the manifest.
    pub(crate) fn annotate(&mut self, name: &str, value: &str) -> Result<()> {
        let mut annotations: BTreeMap<String, String> = self.manifest.get("annotations")?.unwrap_or_default();
        annotations.insert(name.to_owned(), value.to_owned());
        self.manifest.set("annotations", &annotations)
    }

    /// Takes a new layer into the store; `pack` writes its tar.
    pub(crate) fn pack(
        &self,
        how: &EncoderOptions,
        pack: impl FnOnce(&mut dyn Write) -> Result<Packed>,
    ) -> Result<(NewLayer, Packed)> {
        let mut encoder = how.encode(self.store.writer(Algorithm::Sha256)?)?;
        let packed = pack(&mut encoder)?;
        let blob = encoder.finish()?.commit(self.layer_type(how.compression()))?;
        self.store.keep_size(packed.diff_id, packed.size);
        Ok((NewLayer { blob, diff_id: packed.diff_id }, packed))
    }

    /// What a layer is called among those that are there.
    pub(crate) fn layer_type(&self, compression: Compression) -> MediaType {
        if !self.manifest_type.is_docker() {
            return compression.oci_layer();
        }
        match compression {
            Compression::None => MediaType::from("application/vnd.docker.image.rootfs.diff.tar"),
            Compression::Gzip => MediaType::DOCKER_LAYER_GZIP,
            Compression::Zstd => MediaType::from("application/vnd.docker.image.rootfs.diff.tar.zstd"),
        }
    }

    /// Adds a step, and the layer that it made if it made one.
    pub(crate) fn push(&mut self, step: &History, layer: Option<&NewLayer>) -> Result<()> {
        let mut told = Object::default();
        let step = History { empty_layer: layer.is_none(), ..step.clone() };
        for (name, value) in json!(step).as_object().into_iter().flatten() {
            told.set(name, value)?;
        }
        self.history.push(told);
        if let Some(layer) = layer {
            self.layers.push(layer.blob.clone());
            self.diff_ids.push(layer.diff_id);
        }
        Ok(())
    }

    /// Writes the documents. Nothing is named.
    pub(crate) fn finish(mut self) -> Result<Image> {
        self.config.set("rootfs", &json!({ "type": "layers", "diff_ids": self.diff_ids }))?;
        self.config.set("history", &self.history)?;
        let config = self.store.write(self.config_type.clone(), &self.config.to_bytes()?)?;
        self.manifest.set("config", &config)?;
        self.manifest.set("layers", &self.layers)?;
        let manifest = self.store.write(self.manifest_type.clone(), &self.manifest.to_bytes()?)?;
        self.store.image_at(&manifest)
    }
}
