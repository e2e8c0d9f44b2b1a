//! Images and layers in a store.

use std::fs;
use std::io::Read;
use std::io::Write;

use layercake::Compression;
use layercake::Digest;
use layercake::ErrorKind;
use layercake::MediaType;
use layercake::Store;
use layercake::testing::Fixture;
use serde_json::json;

use crate::assert_kind;
use crate::support::Scratch;
use crate::support::blob_path;
use crate::support::failure;
use crate::support::name;
use crate::support::platform;
use crate::support::two_layers;

/// A pull that failed half-way takes no image away that was whole.
#[test]
fn half_an_image_does_not_hide_a_whole_one() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    Fixture::demo().tag(&store, &name("demo")).unwrap();
    let host = store.image(name("demo")).unwrap();
    let layer = host.manifest().layers()[1].clone();
    fs::remove_file(blob_path(&store, &layer)).unwrap();
    let opened = store.image(name("demo")).unwrap();
    assert_ne!(opened.platform(), host.platform());
    assert!(opened.is_complete().unwrap());
}

/// Whoever holds the file of facts holds up nobody.
#[test]
fn a_held_lock_on_facts_is_not_waited_for() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    two_layers().tag(&store, &name("app")).unwrap();
    let held = fs::File::create(store.path().join("layercake/facts")).unwrap();
    held.lock().unwrap();
    assert!(store.image(name("app")).unwrap().unpacked_size().unwrap() > 0);
}

#[test]
fn an_index_opens_as_the_image_for_the_platform() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let root = Fixture::demo().tag(&store, &name("demo")).unwrap();
    for text in ["linux/amd64", "linux/arm64"] {
        let image = store.image_for(name("demo"), &platform(text)).unwrap();
        assert_eq!(image.platform(), Some(platform(text)));
        assert_eq!(image.root().digest, root.digest);
        assert!(image.is_complete().unwrap());
    }
    let error = failure(store.image_for(name("demo"), &platform("linux/s390x")));
    assert_eq!(
        error.to_string(),
        "image docker.io/library/demo: no matching manifest for linux/s390x in the manifest list entries; \
         there are: linux/amd64, linux/arm64"
    );
}

#[test]
fn without_the_hosts_image_the_one_that_is_there_opens() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    Fixture::demo().tag(&store, &name("demo")).unwrap();
    let host = store.image(name("demo")).unwrap();
    fs::remove_file(blob_path(&store, &host.descriptor())).unwrap();
    let other = store.image(name("demo")).unwrap();
    assert_ne!(other.platform(), host.platform());
    fs::remove_file(blob_path(&store, &other.descriptor())).unwrap();
    assert!(failure(store.image(name("demo"))).is_not_found());
}

/// I9, I21: artifacts, and configurations that do not fit.
#[test]
fn layers_need_a_configuration_that_fits() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let chart = store.write(MediaType::from("application/vnd.example.chart+json"), b"\"no object\"").unwrap();
    let manifest = json!({ "schemaVersion": 2, "config": chart, "layers": [chart] });
    let manifest = store.write(MediaType::OCI_MANIFEST, manifest.to_string().as_bytes()).unwrap();
    let artifact = store.image_at(&manifest).unwrap();
    assert_kind!(failure(artifact.config().cloned()), ErrorKind::UnsupportedMediaType { .. });
    assert_kind!(failure(artifact.layers()), ErrorKind::UnsupportedMediaType { .. });
    assert!(artifact.is_complete().unwrap());

    let config = store.write(MediaType::OCI_CONFIG, br#"{"rootfs":{"type":"layers","diff_ids":[]}}"#).unwrap();
    let manifest = json!({ "schemaVersion": 2, "config": config, "layers": [chart] });
    let manifest = store.write(MediaType::OCI_MANIFEST, manifest.to_string().as_bytes()).unwrap();
    let error = failure(store.image_at(&manifest));
    assert_eq!(
        error.to_string(),
        "invalid configuration: layers from manifest don't match image configuration: 1 layers, 0 diff_ids"
    );
}

fn compressions() -> Vec<Compression> {
    let mut all = vec![Compression::None, Compression::Gzip];
    if cfg!(feature = "zstd") {
        all.push(Compression::Zstd);
    }
    all
}

/// I22: the size is counted, and kept; the content is held to the diff id.
#[test]
fn unpacked_sizes_are_counted_once() {
    let scratch = Scratch::new();
    for compression in compressions() {
        let store = scratch.store(&compression.to_string());
        let app = name("app");
        two_layers().compression(compression).tag(&store, &app).unwrap();
        let image = store.image(&app).unwrap();
        let mut sum = 0;
        for layer in image.layers().unwrap() {
            let mut tar = Vec::new();
            layer.uncompressed().unwrap().read_to_end(&mut tar).unwrap();
            assert_eq!(Digest::sha256(&tar), layer.diff_id());
            assert_eq!(layer.unpacked_size().unwrap(), tar.len() as u64);
            let mut blob = Vec::new();
            layer.compressed().unwrap().read_to_end(&mut blob).unwrap();
            assert_eq!(Digest::sha256(&blob), layer.digest());
            sum += tar.len() as u64;
        }
        assert_eq!(image.unpacked_size().unwrap(), sum);
        let layers = image.layers().unwrap();
        for layer in layers {
            fs::remove_file(blob_path(&store, layer.descriptor())).unwrap();
        }
        let elsewhere = Store::open(store.path()).unwrap().image(&app).unwrap();
        assert_eq!(elsewhere.unpacked_size().unwrap(), sum, "it was kept");
        assert!(failure(elsewhere.layers()).is_not_found());
    }
}

/// A layer in `store` of these bytes, with the diff id of that tar.
fn layer_of(store: &Store, media_type: &str, blob: &[u8], tar: &[u8]) -> layercake::Layer {
    let blob = store.write(MediaType::from(media_type), blob).unwrap();
    let config = json!({ "rootfs": { "type": "layers", "diff_ids": [Digest::sha256(tar)] } });
    let config = store.write(MediaType::OCI_CONFIG, config.to_string().as_bytes()).unwrap();
    let manifest = json!({ "schemaVersion": 2, "config": config, "layers": [blob] });
    let manifest = store.write(MediaType::OCI_MANIFEST, manifest.to_string().as_bytes()).unwrap();
    store.image_at(&manifest).unwrap().layers().unwrap().remove(0)
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(content).unwrap();
    gzip.finish().unwrap()
}

/// L19: several members, zero bytes behind, labels that lie.
#[test]
fn compression_is_found_by_content() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let tar = [b"first half ".repeat(1000), b"second half".repeat(1000)].concat();
    let (first, second) = tar.split_at(11_000);
    let members = [gzip(first), gzip(second)].concat();
    let padded = [members.clone(), vec![0; 100_000]].concat();
    let plain = "application/vnd.oci.image.layer.v1.tar";
    for blob in [&members, &padded, &tar, &gzip(&tar)] {
        for media_type in
            [plain, "application/vnd.oci.image.layer.v1.tar+gzip", "application/vnd.docker.image.rootfs.diff.tar"]
        {
            let layer = layer_of(&store, media_type, blob, &tar);
            assert_eq!(layer.unpacked_size().unwrap(), tar.len() as u64);
        }
    }
    #[cfg(feature = "zstd")]
    {
        let frame = |content: &[u8]| zstd::encode_all(content, 1).unwrap();
        let skippable = [&[0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0][..], b"skip"].concat();
        for blob in [
            [frame(first), frame(second)].concat(),
            [skippable.clone(), frame(first), skippable.clone(), frame(second), skippable].concat(),
        ] {
            let layer = layer_of(&store, plain, &blob, &tar);
            let mut read = Vec::new();
            layer.uncompressed().unwrap().read_to_end(&mut read).unwrap();
            assert_eq!(read, tar);
        }
    }
}

#[test]
fn layers_that_are_not_what_they_say_are_errors() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let tar = b"0123456789".repeat(10_000);
    let whole = gzip(&tar);
    let gzip_type = "application/vnd.oci.image.layer.v1.tar+gzip";
    for (blob, tar) in [
        (whole[..whole.len() / 2].to_vec(), &tar),
        ([&whole[..], b"trailing"].concat(), &tar),
        ([&whole[..], &[0x1f, 0x8b]].concat(), &tar),
        (vec![0x1f, 0x8b], &tar),
    ] {
        let error = failure(layer_of(&store, gzip_type, &blob, tar).unpacked_size());
        assert_kind!(error, ErrorKind::Compression { .. });
    }
    let error = failure(layer_of(&store, gzip_type, &whole, b"another tar").unpacked_size());
    assert_kind!(error, ErrorKind::DigestMismatch { .. });
    let bomb = gzip(&vec![0; 10 << 20]);
    assert_eq!(layer_of(&store, gzip_type, &bomb, &vec![0; 10 << 20]).unpacked_size().unwrap(), 10 << 20);
}

/// P9: what unpacks a thousand times is stopped.
#[cfg(feature = "zstd")]
#[test]
fn a_bomb_is_stopped() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    // Two gigabytes of zeros in some hundred kilobytes.
    let mut bomb = zstd::Encoder::new(Vec::new(), 1).unwrap();
    let zeros = vec![0; 1 << 20];
    for _ in 0..2048 {
        bomb.write_all(&zeros).unwrap();
    }
    let bomb = bomb.finish().unwrap();
    let error = failure(layer_of(&store, "application/vnd.oci.image.layer.v1.tar+zstd", &bomb, b"").unpacked_size());
    assert_kind!(error, ErrorKind::LimitExceeded { .. });
}
