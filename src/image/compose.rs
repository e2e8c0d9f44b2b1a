//! New images: of another one or of nothing, with more layers and another configuration.

use std::io::Write;
use std::time::SystemTime;

use serde_json::json;

use crate::changeset::Packed;
use crate::changeset::Skipped;
use crate::compression::Compression;
use crate::compression::EncoderOptions;
use crate::descriptor::Descriptor;
use crate::digest::Algorithm;
use crate::digest::Digest;
use crate::error::Result;
use crate::image::Image;
use crate::image::Layer;
use crate::image::Onto;
use crate::image::Standing;
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

/// A layer of an image that is being made, and what its manifest says of it.
#[derive(Clone, Debug)]
pub(super) struct Stacked {
    pub(super) told: Object,
    pub(super) layer: NewLayer,
}

impl Stacked {
    fn new(layer: &NewLayer) -> Result<Stacked> {
        Ok(Stacked { told: Object::of(&layer.blob)?, layer: layer.clone() })
    }
}

/// An image that is being made. The media types are those of the one it is made of; what of its documents nobody
/// changes stays to the byte.
#[derive(Clone, Debug)]
pub(crate) struct Draft {
    /// With a lease: what is relied on or written is not collected meanwhile.
    pub(super) store: Store,
    /// The same as the caller has it.
    plain: Store,
    pub(super) manifest: Object,
    manifest_type: MediaType,
    pub(super) config: Object,
    config_type: MediaType,
    pub(super) layers: Vec<Stacked>,
    pub(super) history: Vec<Object>,
    /// Whether the configuration is another than that of the image it is made of.
    pub(super) is_reconfigured: bool,
}

impl Draft {
    /// Of another image.
    pub(crate) fn of(image: &Image) -> Result<Draft> {
        let (manifest, config) = (image.manifest(), image.config()?);
        let mut document = Object::parse("manifest", manifest.raw())?;
        // What was said about something else is not said by what comes of it.
        document.remove("subject");
        let fields = Object::parse("configuration", config.raw())?;
        let told: Vec<Object> = document.get("layers")?.unwrap_or_default();
        let layers = manifest.layers().iter().zip(config.diff_ids()?);
        let layers = layers.map(|(blob, diff_id)| NewLayer { blob: blob.clone(), diff_id: *diff_id });
        let store = image.store().leased()?;
        // Asking for a blob pins it; what is not here need not be.
        for blob in manifest.layers().iter().chain([manifest.config()]) {
            store.contains(blob)?;
        }
        let mut draft = Draft {
            store,
            plain: image.store().clone(),
            manifest: document,
            manifest_type: manifest.media_type().clone(),
            config_type: manifest.config().media_type.clone(),
            layers: told.into_iter().zip(layers).map(|(told, layer)| Stacked { told, layer }).collect(),
            history: fields.get("history")?.unwrap_or_default(),
            config: fields,
            is_reconfigured: false,
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
            store: store.leased()?,
            plain: store.clone(),
            manifest,
            manifest_type: MediaType::OCI_MANIFEST,
            config,
            config_type: MediaType::OCI_CONFIG,
            layers: Vec::new(),
            history: Vec::new(),
            is_reconfigured: true,
        })
    }

    /// The store that it will be in.
    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    /// The name of the stack of its layers (I23); none if there are none.
    pub(crate) fn chain_id(&self) -> Option<Digest> {
        self.layers.iter().map(|stacked| stacked.layer.diff_id).fold(None, |below, diff_id| match below {
            None => Some(diff_id),
            Some(below) => Some(Digest::sha256(format!("{below} {diff_id}").as_bytes())),
        })
    }

    /// The digest of what is said so far, but for the steps and layers.
    pub(crate) fn config_digest(&self) -> Result<Digest> {
        Ok(Digest::sha256(&self.config.to_bytes()?))
    }

    /// Its layers, which must be in the store.
    pub(crate) fn opened(&self) -> Result<Vec<Layer>> {
        let open = |Stacked { layer, .. }: &Stacked| Layer::open(&self.store, &layer.blob, layer.diff_id);
        self.layers.iter().map(open).collect()
    }

    /// Changes the configuration.
    pub(crate) fn edit(&mut self, edit: &ConfigEdit) -> Result<()> {
        self.is_reconfigured |= !edit.is_empty();
        edit.apply(&mut self.config)
    }

    /// Sets when the image was made.
    pub(crate) fn set_created(&mut self, time: SystemTime) -> Result<()> {
        self.is_reconfigured = true;
        self.config.set("created", &History::at(Some(time))?.created)
    }

    /// Adds a note to the manifest.
    pub(crate) fn annotate(&mut self, name: &str, value: &str) -> Result<()> {
        let mut annotations: Object = self.manifest.get("annotations")?.unwrap_or_default();
        annotations.set(name, &value)?;
        self.manifest.set("annotations", &annotations)
    }

    /// Takes a note from the manifest.
    pub(crate) fn remove_annotation(&mut self, name: &str) -> Result<()> {
        let Some(mut annotations) = self.manifest.get::<Object>("annotations")? else { return Ok(()) };
        annotations.remove(name);
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

    /// Takes a new layer of what is put on what stands. There is none where nothing changes. Says too the
    /// digest of what came.
    pub(crate) fn lay(
        &self,
        how: &EncoderOptions,
        standing: &Standing,
        seconds: i64,
        put: impl FnOnce(&mut Onto<'_, &mut dyn Write>) -> Result<Vec<Skipped>>,
    ) -> Result<(Option<NewLayer>, Digest)> {
        let mut encoder = how.encode(self.store.writer(Algorithm::Sha256)?)?;
        let mut onto = Onto::new(standing, &mut encoder as &mut dyn Write, seconds);
        let skipped = put(&mut onto)?;
        let (packed, came) = onto.finish(skipped)?;
        let Some(packed) = packed else { return Ok((None, came)) };
        let blob = encoder.finish()?.commit(self.layer_type(how.compression()))?;
        self.store.keep_size(packed.diff_id, packed.size);
        Ok((Some(NewLayer { blob, diff_id: packed.diff_id }), came))
    }

    pub(crate) fn is_docker(&self) -> bool {
        self.manifest_type.is_docker()
    }

    /// What a layer is called among those that are there.
    pub(crate) fn layer_type(&self, compression: Compression) -> MediaType {
        if !self.is_docker() {
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
        self.is_reconfigured = true;
        self.layers.extend(layer.map(Stacked::new).transpose()?);
        Ok(())
    }

    /// Writes the documents. Nothing is named.
    pub(crate) fn finish(mut self) -> Result<Image> {
        if self.is_reconfigured {
            self.write_config()?;
        }
        let layers: Vec<&Object> = self.layers.iter().map(|stacked| &stacked.told).collect();
        self.manifest.set("layers", &layers)?;
        let manifest = self.store.write(self.manifest_type.clone(), &self.manifest.to_bytes()?)?;
        self.plain.image_at(&manifest)
    }

    fn write_config(&mut self) -> Result<()> {
        let diff_ids: Vec<Digest> = self.layers.iter().map(|stacked| stacked.layer.diff_id).collect();
        let mut rootfs: Object = self.config.get("rootfs")?.unwrap_or_default();
        rootfs.set("diff_ids", &diff_ids)?;
        rootfs.set("type", &"layers")?;
        self.config.set("rootfs", &rootfs)?;
        self.config.set("history", &self.history)?;
        let written = self.store.write(self.config_type.clone(), &self.config.to_bytes()?)?;
        let mut told: Object = self.manifest.get("config")?.unwrap_or_default();
        told.set("mediaType", &written.media_type)?;
        told.set("digest", &written.digest)?;
        told.set("size", &written.size)?;
        // A copy of the old one.
        told.remove("data");
        self.manifest.set("config", &told)
    }
}
