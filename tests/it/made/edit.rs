//! Configurations and annotations change, and nothing else does.

use std::time::Duration;
use std::time::SystemTime;

use layercake::Descriptor;
use layercake::ErrorKind;
use layercake::Image;
use layercake::MediaType;
use layercake::Store;
use layercake::manifest::ConfigEdit;
use layercake::testing::Fixture;

use crate::assert_kind;
use crate::support::Scratch;
use crate::support::failure;

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn config_of(image: &Image) -> String {
    text(image.config().unwrap().raw()).to_owned()
}

/// An image of documents with fields that nobody has heard of, and numbers and spaces that no program here would write.
fn odd(store: &Store) -> Image {
    let layer = store.write(MediaType::OCI_LAYER, &[0; 1024]).unwrap();
    let config = format!(
        r#"{{ "x": [1e0,  2], "os": "linux", "architecture": "amd64", "config": {{"Healthcheck":{{"Interval":3e10}}, "Env":["A=1"]}},
            "rootfs": {{"diff_ids": ["{}"], "type": "layers", "y": 1.50}}, "history": [{{"created_by":"\u0061", "z": null}}] }}"#,
        layer.digest,
    );
    let config = store.write(MediaType::OCI_CONFIG, config.as_bytes()).unwrap();
    let manifest = format!(
        r#"{{"v": 1e2, "schemaVersion": 2, "mediaType": "{}", "subject": {{"mediaType":"{}","digest":"{}","size":{}}},
            "config": {{"mediaType": "{}", "digest": "{}", "size": {}, "data": "AA==", "w": 1.0}},
            "layers": [{{"u": 0.10, "mediaType": "{}", "digest": "{}", "size": 1024}}], "annotations": {{"a": "\u0062"}}}}"#,
        MediaType::OCI_MANIFEST,
        layer.media_type,
        layer.digest,
        layer.size,
        config.media_type,
        config.digest,
        config.size,
        layer.media_type,
        layer.digest,
    );
    store.image_at(&store.write(MediaType::OCI_MANIFEST, manifest.as_bytes()).unwrap()).unwrap()
}

/// I15, case 207: unknown fields of all documents stay, to the byte; what was said about the old image does not.
#[test]
fn what_is_not_named_stays_to_the_byte() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let image = odd(&store);
    let created = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    let edit = image.edit(ConfigEdit::new().env("A", "2").label("l", "m"));
    let edited = edit.comment("why").created(created).annotation("b", "c").write().unwrap();
    let digest = image.manifest().layers()[0].digest;
    let expected = format!(
        r#"{{"x":[1e0,  2],"os":"linux","architecture":"amd64","config":{{"Healthcheck":{{"Interval":3e10}},"Env":["A=2"],"Labels":{{"l":"m"}}}},"rootfs":{{"diff_ids":["{digest}"],"type":"layers","y":1.50}},"history":[{{"created_by":"\u0061","z":null}},{{"comment":"why","created":"2023-11-14T22:13:20Z","created_by":"ENV A=2; LABEL l=m","empty_layer":true}}],"created":"2023-11-14T22:13:20Z"}}"#
    );
    assert_eq!(config_of(&edited), expected);
    let config = Descriptor::of(MediaType::OCI_CONFIG, expected.as_bytes());
    let expected = format!(
        r#"{{"v":1e2,"schemaVersion":2,"mediaType":"{}","config":{{"mediaType":"{}","digest":"{}","size":{},"w":1.0}},"layers":[{{"u":0.10,"mediaType":"{}","digest":"{digest}","size":1024}}],"annotations":{{"a":"\u0062","b":"c"}}}}"#,
        MediaType::OCI_MANIFEST,
        config.media_type,
        config.digest,
        config.size,
        MediaType::OCI_LAYER,
    );
    assert_eq!(text(edited.manifest().raw()), expected);
    assert_eq!(store.entries().unwrap().count(), 0, "nothing is named");
}

/// The id is the configuration's digest, and annotations are none of its business.
#[test]
fn annotations_leave_the_configuration_as_it_is() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let image = odd(&store);
    let noted = image.edit(ConfigEdit::new()).annotation("b", "c").without_annotation("a").write().unwrap();
    assert_eq!(noted.config().unwrap().raw(), image.config().unwrap().raw());
    assert_eq!(noted.manifest().annotations().clone(), [("b".to_owned(), "c".to_owned())].into());
    let bare = noted.edit(ConfigEdit::new()).without_annotation("b").write().unwrap();
    assert!(text(bare.manifest().raw()).ends_with(r#","annotations":{}}"#));
}

/// C9: media types follow the image.
#[test]
fn dockers_images_stay_dockers() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let image = store.image_at(&Fixture::demo().docker().write(&store).unwrap()).unwrap();
    let edited = image.edit(ConfigEdit::new().cmd(["sh"])).write().unwrap();
    assert_eq!(edited.manifest().media_type(), &MediaType::DOCKER_MANIFEST);
    assert_eq!(edited.manifest().config().media_type, MediaType::DOCKER_CONFIG);
    assert_eq!(edited.manifest().layers(), image.manifest().layers());
    assert_eq!(edited.config().unwrap().history().last().unwrap().created_by.as_deref(), Some(r#"CMD ["sh"]"#));
    assert_eq!(edited.config().unwrap().created().unwrap(), image.config().unwrap().created().unwrap());
}

#[test]
fn what_cannot_be_said_is_refused() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let image = odd(&store);
    let error = failure(image.edit(ConfigEdit::new().env("A=", "")).write());
    assert_kind!(error, ErrorKind::InvalidInput(_));
    let config = store.write(MediaType::OCI_EMPTY, b"{}").unwrap();
    let artifact = format!(
        r#"{{"schemaVersion":2,"artifactType":"a/b","config":{{"mediaType":"{}","digest":"{}","size":2}},"layers":[]}}"#,
        config.media_type, config.digest
    );
    let artifact = store.image_at(&store.write(MediaType::OCI_MANIFEST, artifact.as_bytes()).unwrap()).unwrap();
    let error = failure(artifact.edit(ConfigEdit::new().cmd(["x"])).write());
    assert_kind!(error, ErrorKind::UnsupportedMediaType { .. });
}
