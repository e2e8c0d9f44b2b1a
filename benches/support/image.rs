//! Images to measure with.

use std::fs;
use std::fs::File;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use layercake::Algorithm;
use layercake::Compression;
use layercake::Descriptor;
use layercake::Durability;
use layercake::Layer;
use layercake::MediaType;
use layercake::Store;
use layercake::archive;
use layercake::builder::ImageBuilder;
use layercake::changeset::Options;
use layercake::changeset::apply;
use layercake::compression::EncoderOptions;
use layercake::store::Name;

use super::process::run;

/// What each of them is called in its layout; a name that umoci takes too.
pub const NAME: &str = "app";

/// An image in a layout of its own.
pub struct Image {
    pub layout: PathBuf,
    /// The files of its layers.
    pub blobs: Vec<PathBuf>,
    pub compression: Compression,
}

impl Image {
    /// A copy of one that is given as `oci:DIR:NAME`.
    pub fn given(source: &str, layout: &Path) -> Image {
        let parts = source.strip_prefix("oci:").and_then(|rest| rest.split_once(':'));
        let (directory, name) = parts.expect("it is oci:DIR:NAME");
        let root = Store::open(directory).and_then(|store| store.resolve(Name::Verbatim(name.to_owned())));
        copy_layout(Path::new(directory), layout);
        Image::of(layout, &root.expect("the layout has the image"))
    }

    /// The first one of an archive that `docker save` made.
    pub fn loaded(archive: &Path, layout: &Path) -> Image {
        let file = File::open(archive).expect("the archive can be opened");
        let loaded = archive::load(file).to(&store(layout)).expect("the archive can be loaded");
        Image::of(layout, &loaded.images[0].root)
    }

    /// One with a layer of each of these directories.
    pub fn of_trees(trees: &[PathBuf], layout: &Path) -> Image {
        let store = store(layout);
        let platform = "linux/amd64".parse().expect("it is a platform");
        let builder = ImageBuilder::from_scratch(&store, &platform).without_cache().epoch(1_700_000_000);
        let builder = trees.iter().fold(builder, ImageBuilder::layer_from_dir);
        let built = builder.build().expect("an image can be built");
        Image::of(layout, built.image.root())
    }

    /// The same, its layers compressed so.
    pub fn compressed(&self, compression: Compression, layout: &Path) -> Image {
        let (image, store) = (self.open(), store(layout));
        let layers = image.layers().expect("it has layers");
        let layers: Vec<Descriptor> = layers.iter().map(|layer| compress(&store, layer, compression)).collect();
        let config = fs::read(blob_in(&self.layout, image.manifest().config())).expect("it has a configuration");
        let config = store.write(MediaType::OCI_CONFIG, &config).expect("a blob can be written");
        let kind = MediaType::OCI_MANIFEST;
        let manifest = serde_json::json!({ "schemaVersion": 2, "mediaType": kind, "config": config, "layers": layers });
        Image::of(layout, &store.write(kind, manifest.to_string().as_bytes()).expect("a blob can be written"))
    }

    /// Lays its lowest layer out as a tree.
    pub fn unpack_lowest(&self, tree: &Path) {
        fs::create_dir(tree).expect("a directory can be made");
        let lowest = self.open().layers().expect("it has layers").swap_remove(0);
        let applied =
            lowest.uncompressed().and_then(|tar| apply(tar, tree, &Options::new().durability(Durability::None)));
        assert!(applied.expect("the layer can be unpacked").skipped.is_empty());
    }

    fn of(layout: &Path, root: &Descriptor) -> Image {
        give_name(layout, root);
        let opened = open(layout, NAME);
        let blobs: Vec<PathBuf> = opened.manifest().layers().iter().map(|layer| blob_in(layout, layer)).collect();
        let start = blobs.first().map(|blob| first_bytes(blob).expect("a layer can be read"));
        let compression = Compression::detect(&start.unwrap_or_default());
        Image { layout: layout.to_owned(), blobs, compression }
    }

    fn open(&self) -> layercake::Image {
        open(&self.layout, NAME)
    }
}

/// An image of a layout, by the name that the layout has for it.
pub fn open(layout: &Path, name: &str) -> layercake::Image {
    let image = Store::open(layout).and_then(|store| store.image(Name::Verbatim(name.to_owned())));
    image.expect("the layout has the image")
}

/// The layout alone, without what a store has beside it.
pub fn copy_layout(from: &Path, to: &Path) {
    fs::create_dir(to).expect("a directory can be made");
    let parts = ["blobs", "index.json", "oci-layout"].map(|part| from.join(part));
    run(Command::new("cp").arg("-a").args(parts).arg(to));
}

fn store(layout: &Path) -> Store {
    Store::create(layout).expect("a store can be made").with_durability(Durability::None)
}

fn give_name(layout: &Path, root: &Descriptor) {
    let entry = serde_json::json!({
        "mediaType": root.media_type, "digest": root.digest, "size": root.size,
        "annotations": { "org.opencontainers.image.ref.name": NAME },
    });
    let index = serde_json::json!({ "schemaVersion": 2, "manifests": [entry] });
    fs::write(layout.join("index.json"), index.to_string()).expect("a file can be written");
}

fn blob_in(layout: &Path, blob: &Descriptor) -> PathBuf {
    layout.join("blobs").join(blob.digest.algorithm().name()).join(blob.digest.hex().to_string())
}

fn first_bytes(file: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut io::Read::take(File::open(file)?, 16), &mut bytes)?;
    Ok(bytes)
}

fn compress(store: &Store, layer: &Layer, compression: Compression) -> Descriptor {
    let kind = match compression {
        Compression::Zstd => MediaType::OCI_LAYER_ZSTD,
        _ => MediaType::OCI_LAYER_GZIP,
    };
    let writer = store.writer(Algorithm::Sha256).expect("a blob can be begun");
    let mut encoder = EncoderOptions::new(compression).encode(writer).expect("it is built in");
    let mut tar = layer.uncompressed().expect("it can be read");
    io::copy(&mut tar, &mut encoder).expect("it can be compressed");
    encoder.finish().and_then(|writer| writer.commit(kind)).expect("a blob can be written")
}
