//! Small images to serve.

use std::io::Write;

use flate2::Compression as GzipLevel;
use flate2::GzBuilder;
use serde_json::json;

use crate::compression::Compression;
use crate::descriptor::Descriptor;
use crate::digest::Digest;
#[cfg(not(feature = "zstd"))]
use crate::error::Error;
use crate::error::Result;
use crate::media_type::MediaType;
use crate::platform::Platform;
use crate::reference::ImageReference;
use crate::store::Store;

/// An image that is made on the spot, the same bytes each time; or, of several platforms, an index of such images.
///
/// ```
/// # use layercake::{testing::Fixture, ImageReference, Store};
/// # let dir = tempfile::tempdir()?;
/// # let store = Store::create(dir.path().join("store"))?;
/// let amd64 = Fixture::new("linux/amd64".parse()?).layer(&[("bin/app", b"\x7fELF")]).layer(&[("etc/app.conf", b"")]);
/// let arm64 = Fixture::new("linux/arm64".parse()?).layer(&[("bin/app", b"\x7fELF")]);
/// let index = amd64.and(arm64).tag(&store, &"example.com/app:1".parse()?)?;
/// assert!(index.media_type.is_index());
/// # Ok::<(), layercake::Error>(())
/// ```
#[must_use = "nothing is made before `write` or `tag`"]
#[derive(Clone, Debug)]
pub struct Fixture {
    images: Vec<OneImage>,
    docker: bool,
    compression: Compression,
}

#[derive(Clone, Debug)]
struct OneImage {
    platform: Platform,
    layers: Vec<Vec<u8>>,
    created: String,
    labels: Vec<(String, String)>,
}

impl Fixture {
    /// An image without layers.
    pub fn new(platform: Platform) -> Fixture {
        let created = "2024-01-01T00:00:00Z".to_owned();
        let image = OneImage { platform, layers: Vec::new(), created, labels: Vec::new() };
        Fixture { images: vec![image], docker: false, compression: Compression::Gzip }
    }

    /// An image of three layers for `linux/amd64` and `linux/arm64`, which share the first.
    pub fn demo() -> Fixture {
        let image = |architecture: &str| {
            let program = format!("#!/bin/sh\n# for {architecture}\ncat /etc/motd\n");
            Fixture::new(Platform::new("linux", architecture))
                .layer(&[("etc/os-release", b"NAME=layercake\nID=layercake\n"), ("usr/share/numbers", &numbers())])
                .layer(&[("usr/bin/greet", program.as_bytes())])
                .layer(&[("etc/motd", b"A piece of cake.\n")])
        };
        image("amd64").and(image("arm64"))
    }

    /// Adds a layer with these files, as path and content; their directories are made.
    pub fn layer(self, files: &[(&str, &[u8])]) -> Fixture {
        self.raw_layer(tar(files))
    }

    /// Adds a layer of these bytes, which should be a tar. They are compressed like the others.
    pub fn raw_layer(mut self, tar: Vec<u8>) -> Fixture {
        self.last().layers.push(tar);
        self
    }

    /// When the image was made, as RFC 3339 text.
    pub fn created(mut self, time: &str) -> Fixture {
        self.last().created = time.to_owned();
        self
    }

    /// Adds a label.
    pub fn label(mut self, name: &str, value: &str) -> Fixture {
        self.last().labels.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Uses Docker's media types instead of OCI's.
    pub fn docker(self) -> Fixture {
        Fixture { docker: true, ..self }
    }

    /// Compresses the layers so; with gzip by default.
    pub fn compression(self, compression: Compression) -> Fixture {
        Fixture { compression, ..self }
    }

    /// Puts other images beside this one, in an index.
    pub fn and(mut self, other: Fixture) -> Fixture {
        self.images.extend(other.images);
        self
    }

    /// Makes the image, or the index of several.
    ///
    /// # Errors
    ///
    /// Those of [`Store::write`].
    pub fn write(&self, store: &Store) -> Result<Descriptor> {
        let manifests: Vec<Descriptor> = self.images.iter().map(|i| self.manifest(store, i)).collect::<Result<_>>()?;
        match &manifests[..] {
            [only] => Ok(Descriptor { platform: None, ..only.clone() }),
            several => {
                let (media_type, _, _) = self.media_types();
                let index = json!({ "schemaVersion": 2, "mediaType": media_type, "manifests": several });
                store.write(media_type, index.to_string().as_bytes())
            }
        }
    }

    /// Makes it, and gives it a name.
    ///
    /// # Errors
    ///
    /// Those of [`Store::write`] and [`Store::tag`].
    pub fn tag(&self, store: &Store, reference: &ImageReference) -> Result<Descriptor> {
        let root = self.write(store)?;
        store.tag(reference, &root)?;
        Ok(root)
    }

    fn last(&mut self) -> &mut OneImage {
        self.images.last_mut().expect("a fixture has at least one image")
    }

    /// Of an index, a manifest and a configuration.
    fn media_types(&self) -> (MediaType, MediaType, MediaType) {
        if self.docker {
            (MediaType::DOCKER_MANIFEST_LIST, MediaType::DOCKER_MANIFEST, MediaType::DOCKER_CONFIG)
        } else {
            (MediaType::OCI_INDEX, MediaType::OCI_MANIFEST, MediaType::OCI_CONFIG)
        }
    }

    fn layer_type(&self) -> MediaType {
        match self.compression {
            Compression::Gzip if self.docker => MediaType::DOCKER_LAYER_GZIP,
            other => other.oci_layer(),
        }
    }

    fn manifest(&self, store: &Store, image: &OneImage) -> Result<Descriptor> {
        let (_, manifest_type, config_type) = self.media_types();
        let mut layers = Vec::new();
        for tar in &image.layers {
            layers.push(store.write(self.layer_type(), &self.compress(tar)?)?);
        }
        let config = store.write(config_type, image.config().as_bytes())?;
        let manifest = json!({
            "schemaVersion": 2, "mediaType": manifest_type, "config": config, "layers": layers,
        });
        let manifest = store.write(manifest_type, manifest.to_string().as_bytes())?;
        Ok(manifest.with_platform(image.platform.clone()))
    }

    fn compress(&self, tar: &[u8]) -> Result<Vec<u8>> {
        match self.compression {
            Compression::None => Ok(tar.to_vec()),
            Compression::Gzip => {
                let mut gzip = GzBuilder::new().mtime(0).write(Vec::new(), GzipLevel::default());
                gzip.write_all(tar)?;
                Ok(gzip.finish()?)
            }
            #[cfg(feature = "zstd")]
            Compression::Zstd => Ok(zstd::encode_all(tar, 0)?),
            #[cfg(not(feature = "zstd"))]
            Compression::Zstd => Err(Error::invalid_input("zstd is not built in (feature `zstd`)")),
        }
    }
}

impl OneImage {
    fn config(&self) -> String {
        let diff_ids: Vec<Digest> = self.layers.iter().map(|tar| Digest::sha256(tar)).collect();
        let step = |n: usize| json!({ "created": self.created, "created_by": format!("fixture layer {}", n + 1) });
        let history: Vec<_> = (0..diff_ids.len()).map(step).collect();
        let labels: serde_json::Map<_, _> =
            self.labels.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
        let mut config = json!({
            "architecture": self.platform.architecture(), "os": self.platform.os(), "created": self.created,
            "config": { "Env": ["PATH=/usr/bin:/bin"], "Cmd": ["/usr/bin/greet"], "Labels": labels },
            "rootfs": { "type": "layers", "diff_ids": diff_ids }, "history": history,
        });
        if let Some(variant) = self.platform.variant() {
            config["variant"] = json!(variant);
        }
        config.to_string()
    }
}

/// Something that is not as small as text and does not compress to nothing.
fn numbers() -> Vec<u8> {
    let mut generator = fastrand::Rng::with_seed(1);
    (0..40_000).flat_map(|_| format!("{}\n", generator.u32(..)).into_bytes()).collect()
}

fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut made = std::collections::BTreeSet::new();
    for (path, content) in files {
        for (at, _) in path.match_indices('/') {
            if made.insert(&path[..=at]) {
                append(&mut builder, &path[..=at], tar::EntryType::Directory, 0o755, &[]);
            }
        }
        append(&mut builder, path, tar::EntryType::Regular, 0o644, content);
    }
    builder.into_inner().expect("writing to memory succeeds")
}

fn append(builder: &mut tar::Builder<Vec<u8>>, path: &str, kind: tar::EntryType, mode: u32, content: &[u8]) {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(content.len() as u64);
    builder.append_data(&mut header, path, content).expect("the path fits a tar header");
}
