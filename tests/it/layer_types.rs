//! Layers that cannot be unpacked by their media type: encrypted ones, and those that are not a tar.

use layercake::Descriptor;
use layercake::Digest;
use layercake::ErrorKind;
use layercake::Image;
use layercake::MediaType;
use layercake::Store;
use layercake::archive;
use layercake::archive::Format;
use serde_json::json;

use crate::assert_kind;
use crate::breakouts;
use crate::support::Scratch;
use crate::support::failure;
use crate::support::name;
use crate::support::tape::Item;
use crate::support::tape::tar;

/// An image with one layer of this type.
fn image(store: &Store, media_type: &str, name_: &str) -> Image {
    let layer = tar(&[Item::file("f", "content")]);
    let diff_id = Digest::sha256(&layer);
    let layer = store.write(MediaType::from(media_type), &layer).unwrap();
    let config = json!({
        "architecture": "amd64", "os": "linux", "rootfs": { "type": "layers", "diff_ids": [diff_id] },
    });
    let config = store.write(MediaType::OCI_CONFIG, config.to_string().as_bytes()).unwrap();
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MediaType::OCI_MANIFEST, "config": config, "layers": [layer],
    });
    let root: Descriptor = store.write(MediaType::OCI_MANIFEST, manifest.to_string().as_bytes()).unwrap();
    store.tag(&name(name_), &root).unwrap();
    store.image_at(&root).unwrap()
}

/// P13: the bytes of such a layer are not read as a tar, and the error names the type and the way out.
#[test]
fn layers_that_are_not_tars_are_refused_by_their_type() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    for (n, (media_type, words)) in [
        ("application/vnd.oci.image.layer.v1.tar+gzip+encrypted", "decrypt the image first"),
        ("application/vnd.oci.image.layer.v1.tar+encrypted", "decrypt the image first"),
        ("application/vnd.docker.image.rootfs.diff.tar.gzip+encrypted", "decrypt the image first"),
        ("application/vnd.wasm.content.layer.v1+wasm", "a layer that is a tar"),
        ("application/vnd.oci.image.layer.v1.squashfs", "a layer that is a tar"),
        ("application/vnd.cncf.model.weight.v1.raw", "a layer that is a tar"),
        ("application/vnd.in-toto+json", "a layer that is a tar"),
        ("application/octet-stream", "a layer that is a tar"),
    ]
    .into_iter()
    .enumerate()
    {
        let image = image(&store, media_type, &format!("refused:{n}"));
        let layer = &image.layers().unwrap()[0];
        let target = scratch.path("target");
        let errors = [
            failure(image.unpack_with(&target, &breakouts::options())),
            failure(layer.entries()),
            failure(layer.uncompressed().map(drop)),
            failure(image.read_file("f")),
        ];
        for error in errors {
            assert_kind!(&error, ErrorKind::UnsupportedMediaType { found, .. } if found.as_str() == media_type);
            let text = error.to_string();
            assert!(text.contains(words) && text.contains(media_type), "{text}");
        }
        assert!(!target.exists());
        // It can be kept and moved.
        assert!(image.is_complete().unwrap());
        assert!(store.check().unwrap().is_clean());
        let mut archived = Vec::new();
        archive::save(&store, [name(&format!("refused:{n}"))]).format(Format::Oci).to(&mut archived).unwrap();
        let _ = archive::load(&archived[..]).to(&scratch.store(&format!("loaded-{n}"))).unwrap();
    }
}

/// The types that images have, in the spelling of OCI, of Docker and of others, are read.
#[test]
fn layers_of_any_tar_type_are_unpacked() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    for (n, media_type) in [
        "application/vnd.oci.image.layer.v1.tar",
        "application/vnd.oci.image.layer.v1.tar+gzip",
        "application/vnd.oci.image.layer.v1.tar+zstd",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        "application/vnd.docker.image.rootfs.diff.tar",
        "application/vnd.docker.image.rootfs.diff.tar.gzip",
        "application/vnd.docker.image.rootfs.diff.tar.zstd",
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        "application/vnd.oci.image.layer.v1.tar+gzip; charset=binary",
        "application/x-tar",
        "application/vnd.example.layer.v1.tar+gzip",
    ]
    .into_iter()
    .enumerate()
    {
        let image = image(&store, media_type, &format!("read:{n}"));
        let target = scratch.path(&format!("target-{n}"));
        let _ = image.unpack_with(&target, &breakouts::options()).unwrap();
        assert!(target.join("f").exists(), "{media_type}");
    }
}
