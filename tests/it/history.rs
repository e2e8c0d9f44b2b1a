//! How images were made.

use layercake::Image;
use layercake::MediaType;
use layercake::Store;
use serde_json::Value;
use serde_json::json;

use crate::support::Scratch;
use crate::support::name;
use crate::support::tools::example;
use crate::support::tools::run;
use crate::support::two_layers;

/// An image of two layers whose configuration tells this of its making; tagged as `app:1`.
#[track_caller]
fn image(store: &Store, history: &Value) -> Image {
    let made = two_layers().write(store).and_then(|root| store.image_at(&root)).unwrap();
    let mut config: Value = serde_json::from_slice(made.config().unwrap().raw()).unwrap();
    config["history"] = history.clone();
    let config = store.write(MediaType::OCI_CONFIG, config.to_string().as_bytes()).unwrap();
    let mut manifest: Value = serde_json::from_slice(made.manifest().raw()).unwrap();
    manifest["config"] = json!(config);
    let root = store.write(MediaType::OCI_MANIFEST, manifest.to_string().as_bytes()).unwrap();
    store.tag(&name("app:1"), &root).unwrap();
    store.image_at(&root).unwrap()
}

/// What each step was made by, and which layer it made, from 1.
#[track_caller]
fn pairs(history: &Value) -> Vec<(String, usize)> {
    let scratch = Scratch::new();
    let image = image(&scratch.store("store"), history);
    let layers = image.layers().unwrap();
    let number = |layer: &layercake::Layer| 1 + layers.iter().position(|found| found == layer).unwrap();
    let steps = image.history().unwrap().into_iter();
    let pair = |step: layercake::image::Step| {
        assert_eq!(step.layer.is_none(), step.size().unwrap() == 0);
        (step.history.created_by.clone().unwrap_or_default(), step.layer.as_ref().map_or(0, number))
    };
    steps.map(pair).collect()
}

/// Steps that made no layer take none; layers and steps that have no counterpart are there all the same.
#[test]
fn steps_and_layers_are_paired_in_order() {
    let step = |by: &str, empty: bool| json!({ "created_by": by, "empty_layer": empty });
    let pair = |by: &str, layer: usize| (by.to_owned(), layer);
    let usual = json!([step("base", false), step("env", true), step("copy", false), step("cmd", true)]);
    assert_eq!(pairs(&usual), [pair("base", 1), pair("env", 0), pair("copy", 2), pair("cmd", 0)]);
    assert_eq!(pairs(&json!([step("base", false)])), [pair("base", 1), pair("", 2)]);
    assert_eq!(pairs(&json!([])), [pair("", 1), pair("", 2)]);
    let more = json!([step("a", false), step("b", false), step("c", false)]);
    assert_eq!(pairs(&more), [pair("a", 1), pair("b", 2), pair("c", 0)]);
}

/// One more name for the same root; what it meant before is left where it is.
#[test]
fn the_example_gives_one_more_name() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let image = image(&store, &json!([]));
    let tag = |names: &[&str]| run(example("tag").arg("--store").arg(store.path()).args(names));
    assert_eq!(tag(&["app:1", "localhost:5000/other"]).ok(), "");
    assert_eq!(store.resolve(name("localhost:5000/other:latest")).unwrap().digest, image.root().digest);
    assert_eq!(tag(&["nope", "x:1"]).status, 1);
    assert_eq!(tag(&["app:1", "X:1"]).status, 1);
    assert_eq!(store.entries().unwrap().count(), 2);
}

/// Section 2.5: Docker's table, newest first.
#[test]
fn the_example_prints_dockers_table() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let long = format!("/bin/sh -c\techo {}", "x".repeat(60));
    let image = image(
        &store,
        &json!([
            { "created": "1999-12-31T23:59:59Z", "created_by": long, "comment": "the base" },
            { "created_by": "ENV a=b", "empty_layer": true },
            { "created": "0001-01-01T00:00:00Z", "created_by": "COPY \u{1b}[2J" },
        ]),
    );
    let history =
        |arguments: &[&str]| run(example("history").arg("--store").arg(store.path()).args(arguments).arg("app:1")).ok();
    let sizes: Vec<u64> = image.layers().unwrap().iter().map(|layer| layer.unpacked_size().unwrap()).collect();
    assert_eq!(sizes, [102_912, 2_560]);
    let cut = format!("/bin/sh -c echo {}…", "x".repeat(28));
    let expected = format!(
        "IMAGE          CREATED   CREATED BY                                      SIZE      COMMENT\n\
         {:<15}N/A       COPY \u{fffd}[2J                                       2.56kB\n\
         <missing>      N/A       ENV a=b                                         0B\n\
         <missing>      N/A       {cut:<48}103kB     the base\n",
        image.id().short().to_string()
    );
    assert_eq!(history(&[]), expected);
    assert!(history(&["--no-trunc"]).contains(&format!("sha256:{}", image.id().hex())));
    assert_eq!(history(&["--quiet"]), format!("{}\n<missing>\n<missing>\n", image.id().short()));
}
