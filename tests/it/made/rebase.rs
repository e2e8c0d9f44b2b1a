//! What an image adds, on another base.

use layercake::ErrorKind;
use layercake::Image;
use layercake::MediaType;
use layercake::Platform;
use layercake::Store;
use layercake::manifest::ConfigEdit;
use layercake::testing::Fixture;
use serde_json::Value;
use serde_json::json;

use crate::assert_kind;
use crate::support::Scratch;
use crate::support::failure;

fn fixture() -> Fixture {
    Fixture::new(Platform::new("linux", "amd64"))
}

fn made(store: &Store, fixture: &Fixture) -> Image {
    store.image_at(&fixture.write(store).unwrap()).unwrap()
}

/// An image of the base's layers and one more, with the base's word but where it says otherwise.
fn on_base(store: &Store, base: &Fixture) -> (Image, Image) {
    let old = made(store, base);
    let config = ConfigEdit::new().env("APP", "1").env("PATH", "/app").label("own", "1").exposed_port("80");
    let app = made(store, &base.clone().layer(&[("app", b"app")]));
    (old, app.edit(config.without_label("gone")).write().unwrap())
}

fn config(image: &Image) -> Value {
    serde_json::from_slice(image.config().unwrap().raw()).unwrap()
}

/// The law: on the base that it stands on already, an image is what it was, to the byte.
#[test]
fn on_its_own_base_an_image_stays() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    for base in [fixture(), fixture().docker(), fixture().layer(&[("a", b"")]).layer(&[("b", b"")])] {
        let (old, app) = on_base(&store, &base);
        assert_eq!(app.rebase(&old, &old).unwrap().digest(), app.digest());
        assert_eq!(app.rebase(&app, &app).unwrap().digest(), app.digest());
    }
}

/// What the image says as its old base does it says as the new base does; what it says otherwise stays.
#[test]
fn what_came_from_the_base_follows_it() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let (old, app) = on_base(&store, &fixture().layer(&[("base", b"1")]).label("base", "1").label("gone", "1"));
    let new = made(&store, &fixture().layer(&[("base", b"2")]).layer(&[("fix", b"")]).label("base", "2"));
    let edit = ConfigEdit::new().env("LANG", "C").without_env("NONE").cmd(["new"]).volume("/v").author("them");
    let new = new.edit(edit.env("PATH", "/new")).write().unwrap();
    let fresh = app.rebase(&old, &new).unwrap();

    let (app_layers, new_layers) = (app.layers().unwrap(), new.layers().unwrap());
    assert_eq!(fresh.layers().unwrap(), [&new_layers[..], &app_layers[1..]].concat());
    let expected = json!({
        "Env": ["PATH=/app", "LANG=C", "APP=1"],
        "Cmd": ["new"],
        "Labels": { "base": "2", "own": "1" },
        "ExposedPorts": { "80/tcp": {} },
        "Volumes": { "/v": {} },
    });
    assert_eq!(config(&fresh)["config"], expected);
    assert_eq!(config(&fresh)["author"], "them");
    let history: Vec<Value> = [
        config(&new)["history"].as_array().unwrap().clone(),
        config(&app)["history"].as_array().unwrap()[1..].to_vec(),
    ]
    .concat();
    assert_eq!(config(&fresh)["history"], Value::Array(history));
    assert_eq!(std::io::read_to_string(fresh.read_file("base").unwrap()).unwrap(), "2");
    assert_eq!(std::io::read_to_string(fresh.read_file("app").unwrap()).unwrap(), "app");
}

/// C9: an image's media types are its own, whatever its new base's are; and what it says of its base is true again.
#[test]
fn media_types_stay_and_the_base_is_named() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let base_digest = "org.opencontainers.image.base.digest";
    let (old, app) = on_base(&store, &fixture().layer(&[("base", b"1")]).docker());
    let app = app.edit(ConfigEdit::new()).annotation(base_digest, &old.digest().to_string()).write().unwrap();
    let new = made(&store, &fixture().layer(&[("base", b"2")]));
    let fresh = app.rebase(&old, &new).unwrap();
    let types: Vec<&MediaType> = fresh.manifest().layers().iter().map(|layer| &layer.media_type).collect();
    assert_eq!(types, [&MediaType::DOCKER_LAYER_GZIP; 2]);
    assert_eq!(fresh.manifest().annotations()[base_digest], new.digest().to_string());
}

#[test]
fn what_does_not_stand_on_the_base_is_refused() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let (old, app) = on_base(&store, &fixture().layer(&[("base", b"1")]));
    let new = made(&store, &fixture().layer(&[("base", b"2")]));
    let error = failure(app.rebase(&new, &old));
    assert_kind!(error, ErrorKind::NotBasedOn { image, base } if (*image, *base) == (app.id(), new.id()));
    let arm = made(&store, &Fixture::new(Platform::new("linux", "arm64")).layer(&[("base", b"2")]));
    assert_kind!(failure(app.rebase(&old, &arm)), ErrorKind::NoMatchingPlatform { .. });
    let elsewhere = made(&scratch.store("elsewhere"), &fixture().layer(&[("base", b"3")]));
    assert_kind!(failure(app.rebase(&old, &elsewhere)), ErrorKind::NotFound { .. });
}
