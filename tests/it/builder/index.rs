//! Images of several platforms.

use layercake::builder::IndexBuilder;
use layercake::manifest::Index;

use super::*;
use crate::support::name;
use crate::support::platform;

fn one(store: &Store, platform: &Platform) -> Image {
    let text = platform.to_string();
    ImageBuilder::from_scratch(store, platform).copy(Files::bytes(text), "/platform").build().unwrap().image
}

/// I17, I18: each platform leads to its image, by any name.
#[test]
fn a_name_leads_to_the_image_of_each_platform() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let platforms = ["linux/amd64", "linux/arm64", "linux/arm/v7"];
    let images = platforms.map(|text| one(&store, &platform(text)));
    let builder = images.iter().fold(IndexBuilder::new().annotation("a", "b"), IndexBuilder::image);
    let root = builder.write(&store).unwrap();
    assert_eq!(builder.write(&store).unwrap(), root);
    store.tag(&name("example.com/app:1"), &root).unwrap();
    for text in platforms {
        let image = store.image_for(name("example.com/app:1"), &platform(text)).unwrap();
        assert_eq!(super::text(&image, "platform"), text);
    }
    let index = Index::parse(store.read(&root).unwrap()).unwrap();
    assert_eq!(index.media_type(), &MediaType::OCI_INDEX);
    assert_eq!(index.annotations()["a"], "b");
    let entries: Vec<_> = images.iter().map(|image| (image.digest(), image.platform())).collect();
    let found: Vec<_> = index.manifests().iter().map(|entry| (entry.digest, entry.platform.clone())).collect();
    assert_eq!(found, entries);
}

#[test]
fn dockers_images_get_dockers_list() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let fixture = Fixture::new(platform("linux/amd64")).docker();
    let docker = store.image_at(&fixture.write(&store).unwrap()).unwrap();
    let list = IndexBuilder::new().image(&docker).write(&store).unwrap();
    assert_eq!(list.media_type, MediaType::DOCKER_MANIFEST_LIST);
    let mixed = IndexBuilder::new().image(&docker).image(&one(&store, &platform("linux/arm64")));
    assert_eq!(mixed.write(&store).unwrap().media_type, MediaType::OCI_INDEX);
    assert_eq!(IndexBuilder::new().write(&store).unwrap().media_type, MediaType::OCI_INDEX);
}

#[test]
fn what_could_not_be_chosen_is_refused() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let image = one(&store, &platform("linux/amd64"));
    let twice = IndexBuilder::new().image(&image).image_for(&image, platform("linux/amd64"));
    assert_kind!(failure(twice.write(&store)), ErrorKind::InvalidInput(_));
    let elsewhere = IndexBuilder::new().image(&image).write(&scratch.store("elsewhere"));
    assert_kind!(failure(elsewhere), ErrorKind::NotFound { .. });
}
