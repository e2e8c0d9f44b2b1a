//! Archives that are made to do harm, or broke on the way: a typed error, and nothing stays.

use std::time::Duration;
use std::time::Instant;

use layercake::Cancel;
use layercake::Error;
use layercake::ErrorKind;
use layercake::changeset::Limits;
use layercake::error::Limit;
use serde_json::json;

use super::*;
use crate::assert_kind;
use crate::support::contents;
use crate::support::failure;
use crate::support::tools::run;

/// Fails in bounded time, and leaves the store as it was, with nothing aside.
#[track_caller]
fn refused(archive: impl Read) -> Error {
    refused_with(archive, |load| load)
}

type Load<'a, R> = archive::Load<'a, R>;

#[track_caller]
fn refused_with<'a, R: Read>(archive: R, with: impl FnOnce(Load<'a, R>) -> Load<'a, R>) -> Error {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    std::fs::write(scratch.path("canary"), "canary").unwrap();
    let before = contents(store.path());
    let start = Instant::now();
    let error = failure(with(archive::load(archive)).to(&store));
    assert!(start.elapsed() < Duration::from_secs(60), "{error} after {:?}", start.elapsed());
    assert_eq!(contents(store.path()), before, "{error}");
    let partial = std::fs::read_dir(store.path().join("layercake/partial"));
    assert!(partial.is_err() || partial.is_ok_and(|mut left| left.next().is_none()), "{error}");
    assert_eq!(std::fs::read_dir(scratch.path("")).unwrap().count(), 2);
    error
}

#[track_caller]
fn reason(error: &Error) -> &str {
    match error.kind() {
        ErrorKind::InvalidArchive { reason } => reason,
        other => panic!("unexpected kind: {other:?}"),
    }
}

/// The archive of two layers, with members put in the place of those of the same path, or before all.
fn with(changed: &[(&str, Item)]) -> Vec<u8> {
    let classic = Classic::new();
    let paths =
        ["one/", "one/VERSION", "one/json", "one/layer.tar", "two/", "two/VERSION", "two/json", "two/layer.tar"];
    let configs = [classic.config(0), classic.config(1)];
    let paths: Vec<&str> =
        paths.into_iter().chain(configs.iter().map(String::as_str)).chain(["manifest.json", "repositories"]).collect();
    let mut items = Vec::new();
    items.extend(changed.iter().filter(|(path, _)| !paths.contains(path)).map(|(_, item)| item.clone()));
    for (path, item) in paths.iter().zip(classic.items()) {
        let change = changed.iter().find(|(changed, _)| changed == path);
        items.push(change.map_or(item, |(_, item)| item.clone()));
    }
    tar(&items)
}

fn with_manifest(manifest: &serde_json::Value) -> Vec<u8> {
    with(&[("manifest.json", Item::file("manifest.json", manifest.to_string()))])
}

/// P1: names are never paths of the file system; what leads out is refused all the same.
#[test]
fn what_leads_out_is_refused() {
    for item in [
        Item::file("../canary", "x"),
        Item::file("/etc/passwd", "x"),
        Item::file("a/../../canary", "x"),
        Item::dir("../x/"),
        Item::symlink("link", "/etc/passwd"),
        Item::symlink("one/link", "../../canary"),
        Item::hard_link("link", "../canary"),
        Item::hard_link("link", "/etc/passwd"),
    ] {
        assert_eq!(reason(&refused(&with(&[("new", item)])[..])), "a path leads out of the archive");
    }
    let classic = Classic::new();
    for path in ["../canary", "/etc/passwd", "one/../../canary"] {
        let manifest = json!([{ "Config": classic.config(0), "Layers": [path] }]);
        assert_eq!(reason(&refused(&with_manifest(&manifest)[..])), "a path leads out of the archive");
        let manifest = json!([{ "Config": path, "Layers": ["one/layer.tar"] }]);
        assert_eq!(reason(&refused(&with_manifest(&manifest)[..])), "a path leads out of the archive");
    }
}

#[test]
fn links_in_circles_lead_to_nothing() {
    for items in [
        vec![("one/layer.tar", Item::symlink("one/layer.tar", "layer.tar"))],
        vec![("one/layer.tar", Item::symlink("one/layer.tar", "../a")), ("a", Item::hard_link("a", "one/layer.tar"))],
    ] {
        assert!(reason(&refused(&with(&items)[..])).ends_with("lead to nothing"));
    }
    for (path, target) in
        [("one/layer.tar", "nowhere"), ("one/layer.tar", "../one"), ("one/layer.tar", "../manifest.json")]
    {
        let error = refused(&with(&[(path, Item::symlink(path, target))])[..]);
        assert!(error.is_not_found(), "{error}");
    }
}

/// Two readers would take two of one name for two things.
#[test]
fn members_that_come_twice_and_differ_are_refused() {
    let classic = Classic::new();
    for item in [
        Item::file("manifest.json", "[]"),
        Item::file("./manifest.json", "[]"),
        Item::file("one/layer.tar", "x"),
        Item::file("one//layer.tar", &classic.layers[1]),
        Item::symlink("one/layer.tar", "../two/layer.tar"),
    ] {
        assert_eq!(reason(&refused(&with(&[("new", item)])[..])), "it comes twice, and differs");
    }
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let twice = with(&[("new", Item::file("one/layer.tar", &classic.layers[0]))]);
    assert_classic(&store, &loaded(&twice[..], &store), &classic);
}

/// P3: what is not what it is called is not taken.
#[test]
fn content_that_is_not_its_name_is_refused() {
    let classic = Classic::new();
    let other = Item::file("one/layer.tar", &classic.layers[1]);
    assert_kind!(refused(&with(&[("one/layer.tar", other)])[..]), ErrorKind::DigestMismatch { .. });
    let config = classic.config(0);
    let changed = [&classic.configs[0][..], b" "].concat();
    assert_kind!(
        refused(&with(&[(config.as_str(), Item::file(&config, changed))])[..]),
        ErrorKind::DigestMismatch { .. }
    );
    for format in BOTH {
        let scratch = Scratch::new();
        let store = scratch.store("store");
        demo(&store, "app:1");
        let parts = members(&saved(&store, &["app:1"], format));
        for (n, (path, content)) in parts.iter().enumerate().filter(|(_, (path, _))| path.starts_with("blobs/")) {
            let mut changed = parts.clone();
            changed[n].1[content.len() / 2] ^= 1;
            assert_kind!(refused(&tar(&files(&changed))[..]), ErrorKind::DigestMismatch { .. });
            changed.remove(n);
            // Of the two images of an index one may be missing; what is there is whole.
            let store = scratch.store(&format!("{format:?}-{n}"));
            match archive::load(&tar(&files(&changed))[..]).to(&store) {
                Ok(loaded) => {
                    assert_eq!(format, Format::Oci, "{path}");
                    assert!(store.image_at(&loaded.images[0].root).unwrap().is_complete().unwrap(), "{path}");
                }
                Err(error) => {
                    assert!(error.is_not_found(), "{path}: {error}");
                    assert_eq!(store.blobs().unwrap().count(), 0);
                }
            }
        }
    }
}

/// P9: documents are no larger than documents are, and there are no more members than there can be.
#[test]
fn what_is_too_much_is_refused() {
    let huge = Item::file("manifest.json", vec![b' '; (8 << 20) + 1]);
    let limit = |error: &Error| match error.kind() {
        ErrorKind::LimitExceeded { limit, .. } => *limit,
        _ => panic!("{error:?}"),
    };
    assert_eq!(limit(&refused(&tar(&[huge])[..])), Limit::DocumentSize);
    let claimed = Item::new(b'0', "index.json").size((8 << 30) - 1);
    assert_eq!(limit(&refused(&claimed.bytes()[..])), Limit::DocumentSize);

    let config = Item::file("c", vec![b' '; (8 << 20) + 1]);
    let manifest = Item::file("manifest.json", json!([{ "Config": "c", "Layers": [] }]).to_string());
    assert_eq!(limit(&refused(&tar(&[config, manifest])[..])), Limit::DocumentSize);

    let block = Item::dir("d").bytes().repeat(1000);
    assert_eq!(limit(&refused(Repeated { block: &block, at: 0, left: 1000 })), Limit::Entries);
    let path = format!("{}/layer.tar", "x".repeat(300));
    assert_eq!(limit(&refused(&tar(&[Item::file(path, "x")])[..])), Limit::PathLength);

    let layers = vec!["one/layer.tar"; 1001];
    let manifest = json!([{ "Config": Classic::new().config(0), "Layers": layers }]);
    assert_eq!(limit(&refused(&with_manifest(&manifest)[..])), Limit::Layers);
    // One document that is read for each of many.
    let config = [&Classic::new().configs[0][..], &vec![b' '; 7 << 20]].concat();
    let images = json!(vec![json!({ "Config": "x", "Layers": ["one/layer.tar"] }); 1000]);
    let archive =
        with(&[("x", Item::file("x", config)), ("manifest.json", Item::file("manifest.json", images.to_string()))]);
    assert_eq!(limit(&refused(&archive[..])), Limit::DocumentSize);
    let images = vec![json!({ "Config": "x" }); 10_001];
    assert_eq!(limit(&refused(&with_manifest(&json!(images))[..])), Limit::Documents);
    // One image says it all.
    let image = |layers: usize, names: usize| {
        let names: Vec<String> = (0..names).map(|n| format!("a:{n}")).collect();
        json!([{ "Config": Classic::new().config(0), "RepoTags": names, "Layers": vec!["one/layer.tar"; layers] }])
    };
    assert_eq!(limit(&refused(&with_manifest(&image(400_000, 0))[..])), Limit::Layers);
    assert_eq!(limit(&refused(&with_manifest(&image(1, 60_000))[..])), Limit::Names);
}

/// P9: a `manifest.json` says of a layer in four bytes what takes a hundred and more in a manifest. Those of many
/// images are not in memory together.
#[test]
fn small_texts_that_make_large_manifests_take_no_memory() {
    let scratch = Scratch::new();
    let layer = tar(&[Item::file("a", "a")]);
    // Two layers of one diff id, so that each image has a manifest of its own.
    let configuration = json!({
        "architecture": "amd64", "os": "linux",
        "rootfs": { "type": "layers", "diff_ids": vec![Digest::sha256(&layer); 1000] },
    });
    let image = |n: usize| {
        let layers: Vec<&str> = (0..1000).map(|bit| if bit < 9 && n >> bit & 1 == 1 { "b" } else { "a" }).collect();
        json!({ "Config": "c", "Layers": layers })
    };
    let images: Vec<_> = (0..400).map(image).collect();
    let archive = tar(&[
        Item::file("a", &layer),
        Item::file("b", gzip(&layer)),
        Item::file("c", configuration.to_string()),
        Item::file("manifest.json", json!(images).to_string()),
    ]);
    std::fs::write(scratch.path("archive.tar"), archive).unwrap();
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command.args(["archive::hostile::helper_that_loads", "--exact", "--ignored", "--nocapture", "-q"]);
    let out = run(command.env("LAYERCAKE_TEST_SCRATCH", scratch.path(""))).ok();
    let peak = |line: &str| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok();
    let peak = out.lines().find_map(peak).unwrap_or_else(|| panic!("{out}"));
    let manifests: u64 = Store::open(scratch.path("store")).unwrap().blobs().unwrap().map(|blob| blob.unwrap().1).sum();
    println!("{peak} KiB at most, of {} KiB", manifests >> 10);
    assert!(manifests > 50 << 20 && peak < 36 << 10, "{peak} KiB");
}

#[test]
#[ignore = "run by another test, as a process of its own"]
fn helper_that_loads() {
    let Some(scratch) = std::env::var_os("LAYERCAKE_TEST_SCRATCH").map(std::path::PathBuf::from) else { return };
    let store = Store::create_with(scratch.join("store"), layercake::Durability::None).unwrap();
    let archive = std::fs::File::open(scratch.join("archive.tar")).unwrap();
    assert_eq!(loaded(archive, &store).images.len(), 400);
    println!("\n{}", std::fs::read_to_string("/proc/self/status").unwrap());
}

/// The same bytes again and again.
struct Repeated<'a> {
    block: &'a [u8],
    at: usize,
    left: usize,
}

impl Read for Repeated<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.block.len() {
            (self.at, self.left) = (0, self.left.saturating_sub(1));
        }
        if self.left == 0 {
            return Ok(0);
        }
        let count = buffer.len().min(self.block.len() - self.at);
        buffer[..count].copy_from_slice(&self.block[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}

/// P9, on both sides of the decompression; holes, which take no room, are counted before they are written.
#[test]
fn bombs_are_refused() {
    let limits = |unpacked_bytes| {
        let mut limits = Limits::default();
        (limits.unpacked_bytes, limits.expansion_ratio) = (unpacked_bytes, 10);
        limits
    };
    let bomb = gzip(&tar(&[Item::file("a", vec![0; 4 << 20])]));
    assert_kind!(
        refused_with(&bomb[..], |load| load.limits(limits(1 << 20))),
        ErrorKind::LimitExceeded { limit: Limit::UnpackedSize, .. }
    );
    // GNU's old form: one piece of nothing at the end of a terabyte, less one.
    let real = (1_u64 << 40) - 1;
    let holes = Item::new(b'S', "a")
        .field(257, b"ustar  \0")
        .field(386, &[&[0x80, 0, 0, 0][..], &real.to_be_bytes()].concat())
        .field(398, b"00000000000\0")
        .field(483, &[&[0x80, 0, 0, 0][..], &real.to_be_bytes()].concat());
    assert_kind!(refused(&tar(&[holes])[..]), ErrorKind::LimitExceeded { limit: Limit::ExpansionRatio, .. });
    // A layer that is small in the archive.
    let classic = Classic::new();
    let manifest = json!([{ "Config": classic.config(0), "Layers": ["one/layer.tar"] }]);
    let archive = with(&[
        ("one/layer.tar", Item::file("one/layer.tar", gzip(&vec![0; 4 << 20]))),
        ("manifest.json", Item::file("manifest.json", manifest.to_string())),
    ]);
    assert_kind!(
        refused_with(&archive[..], |load| load.limits(limits(1 << 20))),
        ErrorKind::LimitExceeded { limit: Limit::UnpackedSize, .. }
    );
}

/// P9: an archive of many images, of which each alone is within the limits.
#[test]
fn limits_hold_over_all_images_of_an_archive() {
    let layer = |n: usize| tar(&[Item::file(format!("{n}"), vec![0; 600 << 10])]);
    let archive = |count: usize| {
        let (mut items, mut images) = (Vec::new(), Vec::new());
        for n in 0..count {
            let diff_ids = [Digest::sha256(&layer(n))];
            let config = json!({ "architecture": "amd64", "os": "linux",
                "rootfs": { "type": "layers", "diff_ids": diff_ids } });
            items.push(Item::file(format!("{n}.tar.gz"), gzip(&layer(n))));
            items.push(Item::file(format!("{n}.config"), config.to_string()));
            images.push(json!({ "Config": format!("{n}.config"), "Layers": [format!("{n}.tar.gz")] }));
        }
        items.push(Item::file("manifest.json", json!(images).to_string()));
        tar(&items)
    };
    let limits = || {
        let mut limits = Limits::default();
        limits.unpacked_bytes = 1 << 20;
        limits
    };
    let scratch = Scratch::new();
    let one = archive::load(&archive(1)[..]).limits(limits()).to(&scratch.store("store")).unwrap();
    assert_eq!(one.images.len(), 1);
    for count in [2, 20] {
        let error = refused_with(&archive(count)[..], |load| load.limits(limits()));
        assert_kind!(error, ErrorKind::LimitExceeded { limit: Limit::UnpackedSize, maximum: 1_048_576 });
    }
}

#[test]
fn documents_that_are_none_are_refused() {
    let classic = Classic::new();
    for text in ["", "null", "{}", "[{}]", "[1]", "[{\"Config\":1}]", "\u{0}", "[[[[[[[["] {
        let error = refused(&with(&[("manifest.json", Item::file("manifest.json", text))])[..]);
        assert_kind!(error, ErrorKind::InvalidDocument { document: "manifest.json", .. });
    }
    assert_eq!(reason(&refused(&with_manifest(&json!([]))[..])), "its manifest.json lists no images");
    let manifest = json!([{ "Config": classic.config(0), "Layers": ["one/layer.tar", "two/layer.tar"] }]);
    assert_kind!(refused(&with_manifest(&manifest)[..]), ErrorKind::InvalidDocument { document: "configuration", .. });
    let manifest = json!([{ "Config": "one/layer.tar", "Layers": [] }]);
    assert_kind!(refused(&with_manifest(&manifest)[..]), ErrorKind::InvalidDocument { document: "configuration", .. });
    for manifest in [
        json!([{ "Config": "nothing.json", "Layers": ["one/layer.tar"] }]),
        json!([{ "Config": classic.config(0), "Layers": ["nothing"] }]),
        json!([{ "Config": "manifest.json", "Layers": [] }]),
    ] {
        assert!(refused(&with_manifest(&manifest)[..]).is_not_found());
    }
}

/// No tar, no archive of images, or one that ends too early.
#[test]
fn what_is_no_archive_is_refused() {
    assert_eq!(reason(&refused(io::empty())), "it is empty");
    let neither = "it has neither manifest.json, as `docker save` writes it, nor oci-layout and index.json";
    for archive in [tar(&[]), tar(&[Item::file("a", "a")]), tar(&[Item::file("oci-layout", "{}")])] {
        assert_eq!(reason(&refused(&archive[..])), neither);
    }
    reason(&refused(&[b'x'; 2000][..]));
    for (start, name) in [(&b"\xfd7zXZ\0...."[..], "xz"), (b"BZh91AY&SY", "bzip2")] {
        let error = refused(start);
        assert!(error.to_string().contains(&format!("{name} is not supported")), "{error}");
    }
    assert_kind!(refused(&b"\x1f\x8b\x08\x00rubbish that is no gzip"[..]), ErrorKind::Compression { .. });
    let whole = with(&[]);
    for length in (1..whole.len() - 2048).step_by(331) {
        refused(&whole[..length]);
    }
    let packed = gzip(&whole);
    for length in (1..packed.len()).step_by(41) {
        refused(&packed[..length]);
    }
}

/// Of a layout: versions, sizes that lie, roots that are not there or no documents, depths, two readings.
#[test]
fn layouts_that_lie_are_refused() {
    let config =
        json!({ "architecture": "amd64", "os": "linux", "rootfs": { "type": "layers", "diff_ids": [] } }).to_string();
    let described = |text: &str, media_type: &str| json!({ "mediaType": media_type, "digest": Digest::sha256(text.as_bytes()), "size": text.len() });
    let (manifest_type, index_type) =
        ("application/vnd.oci.image.manifest.v1+json", "application/vnd.oci.image.index.v1+json");
    let manifest = json!({ "schemaVersion": 2, "config": described(&config, "application/vnd.oci.image.config.v1+json"), "layers": [] }).to_string();
    let archive = |layout: &str, index: &serde_json::Value, blobs: &[&str]| {
        let mut items = vec![Item::file("oci-layout", layout), Item::file("index.json", index.to_string())];
        items.extend(
            blobs
                .iter()
                .map(|blob| Item::file(format!("blobs/sha256/{}", Digest::sha256(blob.as_bytes()).hex()), blob)),
        );
        tar(&items)
    };
    let index = |roots: &[serde_json::Value]| json!({ "schemaVersion": 2, "manifests": roots });
    let layout = r#"{"imageLayoutVersion":"1.0.0"}"#;
    let root = described(&manifest, manifest_type);
    let scratch = Scratch::new();
    loaded(&archive(layout, &index(std::slice::from_ref(&root)), &[&config, &manifest])[..], &scratch.store("store"));

    let newer =
        archive(r#"{"imageLayoutVersion":"2.0.0"}"#, &index(std::slice::from_ref(&root)), &[&config, &manifest]);
    assert_eq!(reason(&refused(&newer[..])), "unsupported layout version \"2.0.0\"");
    assert_eq!(reason(&refused(&archive(layout, &index(&[]), &[])[..])), "its index.json lists no images");
    assert!(refused(&archive(layout, &index(std::slice::from_ref(&root)), &[&config])[..]).is_not_found());
    assert!(refused(&archive(layout, &index(std::slice::from_ref(&root)), &[&manifest])[..]).is_not_found());
    let mut lie = root.clone();
    lie["size"] = json!(manifest.len() + 1);
    assert_kind!(refused(&archive(layout, &index(&[lie]), &[&config, &manifest])[..]), ErrorKind::SizeMismatch { .. });
    let mut other = root.clone();
    other["mediaType"] = json!(index_type);
    assert_kind!(
        refused(&archive(layout, &index(&[other]), &[&config, &manifest])[..]),
        ErrorKind::InvalidDocument { .. }
    );
    let mut escape = root.clone();
    escape["digest"] = json!("sha256:../../../canary");
    assert_kind!(
        refused(&archive(layout, &index(&[escape]), &[&config, &manifest])[..]),
        ErrorKind::InvalidDocument { .. }
    );

    let two = manifest.replace("{\"config\"", "{\"manifests\":[],\"config\"");
    let error = refused(&archive(layout, &index(&[described(&two, manifest_type)]), &[&config, &two])[..]);
    assert!(error.to_string().contains("ambiguous"), "CVE-2021-41190: {error}");
}

/// P9: indexes of indexes of indexes.
#[test]
fn indexes_do_not_nest_without_end() {
    let manifest_type = "application/vnd.oci.image.manifest.v1+json";
    let index_type = "application/vnd.oci.image.index.v1+json";
    let config =
        json!({ "architecture": "amd64", "os": "linux", "rootfs": { "type": "layers", "diff_ids": [] } }).to_string();
    let described = |text: &str, media_type: &str| json!({ "mediaType": media_type, "digest": Digest::sha256(text.as_bytes()), "size": text.len() });
    let config_type = "application/vnd.oci.image.config.v1+json";
    let manifest = json!({ "schemaVersion": 2, "config": described(&config, config_type), "layers": [] }).to_string();
    let mut documents = vec![manifest];
    for depth in 0..6 {
        let media_type = if depth == 0 { manifest_type } else { index_type };
        let last = described(documents.last().unwrap(), media_type);
        documents.push(json!({ "schemaVersion": 2, "manifests": [last] }).to_string());
    }
    let top = json!({ "schemaVersion": 2, "manifests": [described(documents.last().unwrap(), index_type)] });
    let mut items =
        vec![Item::file("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#), Item::file("index.json", top.to_string())];
    let blobs = documents.iter().chain([&config]);
    items.extend(blobs.map(|blob| Item::file(format!("blobs/sha256/{}", Digest::sha256(blob.as_bytes()).hex()), blob)));
    assert_kind!(refused(&tar(&items)[..]), ErrorKind::LimitExceeded { limit: Limit::IndexDepth, .. });
}

/// Flipped bits: an error, or images that are what they say. Never a panic, and nothing that hangs.
#[test]
fn random_damage_is_survived() {
    let classic = Classic::new();
    let (scratch, mut random) = (Scratch::new(), fastrand::Rng::with_seed(11));
    let from = scratch.store("from");
    Fixture::new(platform("linux/amd64")).layer(&[("a", b"a")]).tag(&from, &name("app:1")).unwrap();
    let archives =
        [tar(&classic.items()), saved(&from, &["app:1"], Format::Docker), saved(&from, &["app:1"], Format::Oci)];
    for round in 0..300 {
        let mut archive = archives[round % archives.len()].clone();
        for _ in 0..random.usize(1..4) {
            let at = random.usize(..archive.len());
            archive[at] ^= 1 << random.u8(..8);
        }
        let store = scratch.store(&format!("store-{round}"));
        if let Ok(loaded) = archive::load(&archive[..]).to(&store) {
            for image in loaded.images {
                assert!(store.image_at(&image.root).unwrap().is_complete().unwrap());
            }
        } else {
            assert_eq!(store.blobs().unwrap().count(), 0);
        }
    }
}

#[test]
fn a_load_can_be_cancelled_and_its_reader_can_fail() {
    let cancel = Cancel::new();
    cancel.cancel();
    assert_kind!(refused_with(&with(&[])[..], |load| load.cancel(&cancel)), ErrorKind::Cancelled);
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::ErrorKind::ConnectionReset.into())
        }
    }
    let half = with(&[]);
    assert_kind!(refused(half[..4000].chain(Broken)), ErrorKind::Io { .. });
}
