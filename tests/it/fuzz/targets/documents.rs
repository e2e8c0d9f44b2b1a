//! Fuzz targets of JSON documents: they keep their bytes, and whatever they say, reading it does not panic.

use layercake::Config;
use layercake::Descriptor;
use layercake::Digest;
use layercake::Index;
use layercake::Manifest;
use layercake::MediaType;
use layercake::Platform;
use layercake::fuzzing;
use layercake::manifest::ConfigEdit;
use layercake::manifest::Root;

use super::check_message;

/// Parses image manifests.
pub fn manifest(data: &[u8]) {
    roots(data);
    let manifest = match Manifest::parse(data.to_vec()) {
        Ok(manifest) => manifest,
        Err(error) => return check_message(&error),
    };
    assert_eq!((manifest.raw(), manifest.digest()), (data, Digest::sha256(data)));
    descriptors(manifest.layers().iter().chain([manifest.config()]).chain(manifest.subject()));
    let _ = (manifest.annotations(), manifest.artifact_type(), manifest.content_size(), manifest.as_oci());
}

/// Parses image indexes.
pub fn index(data: &[u8]) {
    roots(data);
    let index = match Index::parse(data.to_vec()) {
        Ok(index) => index,
        Err(error) => return check_message(&error),
    };
    assert_eq!((index.raw(), index.digest()), (data, Digest::sha256(data)));
    descriptors(index.manifests().iter().chain(index.subject()));
    for platform in index.platforms().iter().chain([&Platform::new("linux", "amd64")]) {
        let selected = index.select(platform);
        assert!(selected.is_none_or(|selected| index.manifests().contains(selected)));
    }
    let _ = (index.annotations(), index.artifact_type(), index.as_oci());
}

/// Parses image configs. Editing one gives a config that parses, and editing it again changes nothing.
pub fn config(data: &[u8]) {
    let config = match Config::parse(data.to_vec()) {
        Ok(config) => config,
        Err(error) => return check_message(&error),
    };
    assert_eq!((config.raw(), config.digest()), (data, Digest::sha256(data)));
    if let (Ok(diff_ids), Ok(chain_ids)) = (config.diff_ids(), config.chain_ids()) {
        assert_eq!((diff_ids.len(), diff_ids.first()), (chain_ids.len(), chain_ids.first()));
    }
    for step in config.history() {
        let _ = (step.time(), format!("{step:?}"));
    }
    let _ = (config.platform(), config.created(), config.as_oci());

    let edit = ConfigEdit::new().env("PATH", "/bin").label("title", "fuzz").exposed_port("80").without_volume("/v");
    let Ok(edited) = fuzzing::edit_config(data, &edit) else { return };
    let again = fuzzing::edit_config(&edited, &edit).expect("an edited config can be edited");
    assert_eq!(again.escape_ascii().to_string(), edited.escape_ascii().to_string());
    let edited = Config::parse(edited).expect("an edited config parses");
    assert_eq!(edited.labels().get("title").map(String::as_str), Some("fuzz"));
    assert_eq!((edited.history(), edited.os(), edited.user()), (config.history(), config.os(), config.user()));
}

/// Parses a manifest or an index, under every media type that could be expected.
fn roots(data: &[u8]) {
    for expected in MediaType::MANIFESTS.iter().map(Some).chain([None]) {
        match Root::parse(data.to_vec(), expected) {
            Ok(root) => {
                let descriptor = root.descriptor();
                assert_eq!((root.raw(), descriptor.size), (data, data.len() as u64));
                assert!(expected.is_none_or(|expected| *expected == descriptor.media_type));
                assert_eq!(Root::of(&descriptor, data.to_vec()).expect("it is what was parsed"), root);
            }
            Err(error) => check_message(&error),
        }
    }
}

/// Asserts that descriptors are written as they were read.
fn descriptors<'a>(found: impl Iterator<Item = &'a Descriptor>) {
    for descriptor in found {
        let json = serde_json::to_vec(descriptor).expect("a descriptor is a JSON object");
        assert_eq!(&serde_json::from_slice::<Descriptor>(&json).expect("it was written so"), descriptor);
    }
}
