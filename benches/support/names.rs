//! A store that is full of names.

use std::path::PathBuf;

use layercake::Durability;
use layercake::ImageReference;
use layercake::Store;
use layercake::testing::Fixture;

/// A store with so many names, which lead to as many different images, or to one.
pub fn filled(path: PathBuf, names: usize, different: bool) -> Store {
    let store = Store::create(path).expect("a store can be made");
    let fast = store.with_durability(Durability::None);
    let layer = Fixture::new("linux/amd64".parse().expect("it is a platform")).layer(&[("etc/motd", b"hello\n")]);
    let mut entries = Vec::new();
    for n in 0..names {
        let label = if different { n.to_string() } else { String::new() };
        let root = layer.clone().label("n", &label).write(&fast).expect("an image can be made");
        let name = name(n).to_string();
        entries.push(serde_json::json!({
            "mediaType": root.media_type, "digest": root.digest, "size": root.size,
            "annotations": { "org.opencontainers.image.ref.name": name, "io.containerd.image.name": name },
        }));
    }
    // All at once: one by one would take as many rewritings of the whole.
    let index = serde_json::json!({ "schemaVersion": 2, "manifests": entries });
    std::fs::write(store.path().join("index.json"), index.to_string()).expect("a file can be written");
    store.image(name(0)).and_then(|image| image.unpacked_size()).expect("it is there");
    rustix::fs::sync();
    store
}

pub fn name(n: usize) -> ImageReference {
    format!("registry.example.com/team-{}/service-{n}:v1.{n}", n % 17).parse().expect("it is a name")
}
