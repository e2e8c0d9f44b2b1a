//! Archives: what goes out comes back, whatever form and order it comes in; and what is hostile leaves nothing.

mod forms;
mod hostile;
mod import;
pub mod interop;
mod programs;

use std::io;
use std::io::Read;
use std::io::Write;

use layercake::Digest;
use layercake::ImageReference;
use layercake::Store;
use layercake::archive;
use layercake::archive::Format;
use layercake::archive::Loaded;
use layercake::testing::Fixture;

use crate::support::Scratch;
use crate::support::blob_path;
use crate::support::name;
use crate::support::platform;
use crate::support::tape::Item;
use crate::support::tape::tar;

const BOTH: [Format; 2] = [Format::Docker, Format::Oci];

#[track_caller]
fn saved(store: &Store, names: &[&str], format: Format) -> Vec<u8> {
    let mut bytes = Vec::new();
    archive::save(store, names.iter().map(|text| name(text))).format(format).to(&mut bytes).unwrap();
    bytes
}

#[track_caller]
fn loaded(archive: impl Read, store: &Store) -> Loaded {
    archive::load(archive).to(store).unwrap_or_else(|error| panic!("{error}"))
}

/// Names everything as the archive does, as `docker load` would.
#[track_caller]
fn tagged(archive: impl Read, store: &Store) -> Vec<ImageReference> {
    let loaded = loaded(archive, store);
    let named = loaded.images.iter().flat_map(|image| image.names.iter().map(move |name| (name, &image.root)));
    named.map(|(name, root)| store.tag(name, root).map(|_| name.clone()).unwrap()).collect()
}

/// The members of a tar that this crate wrote.
fn members(archive: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut members = Vec::new();
    let mut rest = archive;
    while rest[0] != 0 {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned();
        let size = usize::from_str_radix(&text(&rest[124..136]), 8).unwrap();
        if rest[156] == b'0' {
            members.push((text(&rest[..100]), rest[512..512 + size].to_vec()));
        }
        rest = &rest[512 + size.next_multiple_of(512)..];
    }
    members
}

fn files(members: &[(String, Vec<u8>)]) -> Vec<Item> {
    members.iter().map(|(path, content)| Item::file(path, content)).collect()
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(content).unwrap();
    gzip.finish().unwrap()
}

/// What `docker save` wrote before version 25: two layers, of which an image has one and another has both.
struct Classic {
    layers: [Vec<u8>; 2],
    configs: [Vec<u8>; 2],
}

impl Classic {
    fn new() -> Classic {
        let layers = [tar(&[Item::file("a", "a")]), tar(&[Item::file("b", "b")])];
        let config = |count: usize| {
            let diff_ids: Vec<Digest> = layers[..count].iter().map(|layer| Digest::sha256(layer)).collect();
            // Fields that nobody here knows are in the id too.
            serde_json::json!({
                "architecture": "amd64", "os": "linux", "OnBuild": null,
                "config": { "Cmd": ["/bin/sh"], "Healthcheck": { "Test": ["NONE"] } },
                "rootfs": { "type": "layers", "diff_ids": diff_ids },
            })
            .to_string()
            .into_bytes()
        };
        Classic { configs: [config(1), config(2)], layers }
    }

    fn config(&self, number: usize) -> String {
        format!("{}.json", Digest::sha256(&self.configs[number]).hex())
    }

    fn manifest(&self) -> serde_json::Value {
        serde_json::json!([
            { "Config": self.config(0), "RepoTags": ["small:1", "example.com/small:1"], "Layers": ["one/layer.tar"] },
            { "Config": self.config(1), "RepoTags": ["big"], "Layers": ["one/layer.tar", "two/layer.tar"] },
        ])
    }

    fn items(&self) -> Vec<Item> {
        vec![
            Item::dir("one/"),
            Item::file("one/VERSION", "1.0"),
            Item::file("one/json", "{}"),
            Item::file("one/layer.tar", &self.layers[0]),
            Item::dir("two/"),
            Item::file("two/VERSION", "1.0"),
            Item::file("two/json", "{}"),
            Item::file("two/layer.tar", &self.layers[1]),
            Item::file(self.config(0), &self.configs[0]),
            Item::file(self.config(1), &self.configs[1]),
            Item::file("manifest.json", self.manifest().to_string()),
            Item::file("repositories", "{}"),
        ]
    }

    fn ids(&self) -> [Digest; 2] {
        [Digest::sha256(&self.configs[0]), Digest::sha256(&self.configs[1])]
    }
}

/// The images that the two-layer archive has to become, whatever form it came in.
#[track_caller]
fn assert_classic(store: &Store, loaded: &Loaded, classic: &Classic) {
    let ids: Vec<Digest> = loaded.images.iter().map(|image| store.image_at(&image.root).unwrap().id()).collect();
    assert_eq!(ids, classic.ids());
    for image in &loaded.images {
        for layer in store.image_at(&image.root).unwrap().layers().unwrap() {
            io::copy(&mut layer.uncompressed().unwrap(), &mut io::sink()).unwrap();
        }
    }
}

/// Gives one byte at a time, and is interrupted now and then.
struct Drip<'a>(&'a [u8], u64);

impl Read for Drip<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.1 += 1;
        if self.1.is_multiple_of(7) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let most = buffer.len().min(1);
        self.0.read(&mut buffer[..most])
    }
}

/// Takes one byte at a time.
struct Trickle(Vec<u8>);

impl Write for Trickle {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.extend(bytes.first());
        Ok(bytes.len().min(1))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn demo(store: &Store, text: &str) -> ImageReference {
    let reference = name(text);
    Fixture::demo().tag(store, &reference).unwrap();
    reference
}
