//! The forms that archives have.

use layercake::Compression;
use layercake::store::Name;

use super::*;
use crate::assert_kind;
use crate::support::failure;

fn fixtures() -> Vec<Fixture> {
    let small = || Fixture::new(platform("linux/amd64")).layer(&[("a", b"a")]).layer(&[("b", b"b")]);
    let mut fixtures = vec![Fixture::demo(), small(), small().docker(), Fixture::demo().docker()];
    fixtures.push(small().compression(Compression::None));
    #[cfg(feature = "zstd")]
    fixtures.push(small().compression(Compression::Zstd));
    fixtures
}

/// import ∘ export = identity: of a layout in a tar, all bytes.
#[test]
fn an_oci_archive_keeps_every_digest() {
    for fixture in fixtures() {
        let scratch = Scratch::new();
        let (from, to) = (scratch.store("from"), scratch.store("to"));
        let root = fixture.tag(&from, &name("example.com/app:1")).unwrap();
        let archive = saved(&from, &["example.com/app:1"], Format::Oci);
        assert_eq!(tagged(&archive[..], &to), [name("example.com/app:1")]);
        assert_eq!(to.resolve(name("example.com/app:1")).unwrap().digest, root.digest);
        let blobs = |store: &Store| {
            let mut blobs: Vec<_> = store.blobs().unwrap().map(|blob| blob.unwrap().0).collect();
            blobs.sort();
            blobs
        };
        assert_eq!(blobs(&from), blobs(&to), "{fixture:?}");
        assert_eq!(saved(&to, &["example.com/app:1"], Format::Oci), archive, "and back");
    }
}

/// import ∘ export = identity: of Docker's form, the ids and the trees.
#[test]
fn a_docker_archive_keeps_ids_and_layers() {
    for fixture in fixtures() {
        let scratch = Scratch::new();
        let (from, to) = (scratch.store("from"), scratch.store("to"));
        fixture.tag(&from, &name("app:1")).unwrap();
        let archive = saved(&from, &["app:1"], Format::Docker);
        assert_eq!(tagged(&archive[..], &to), [name("app:1")]);
        let (here, there) = (from.image(name("app:1")).unwrap(), to.image(name("app:1")).unwrap());
        assert_eq!((here.id(), here.config().unwrap()), (there.id(), there.config().unwrap()));
        for layer in there.layers().unwrap() {
            assert_eq!(layer.digest(), layer.diff_id(), "it is a plain tar");
        }
        assert_eq!(saved(&to, &["app:1"], Format::Docker), archive, "and back");
    }
}

/// The bytes are those of the images alone: the same as on any day and machine. A golden digest.
#[test]
fn archives_are_reproducible() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let fixture = Fixture::new(platform("linux/amd64")).layer(&[("a", b"a")]).compression(Compression::None);
    fixture.tag(&store, &name("app:1")).unwrap();
    fixture.tag(&store, &name("app:2")).unwrap();
    let mut digests = Vec::new();
    for format in BOTH {
        let archive = saved(&store, &["app:1", "app:2"], format);
        assert_eq!(archive, saved(&store, &["app:2", "app:1", "app:1"], format), "in any order");
        let mut trickle = Trickle(Vec::new());
        archive::save(&store, [name("app:1"), name("app:2")]).format(format).to(&mut trickle).unwrap();
        assert_eq!(archive, trickle.0, "to any writer");
        digests.push(Digest::sha256(&archive).hex().to_string());
    }
    let golden = [
        "90e16ddb9a8b35b7dcebe66bbe5ae0293a8b43027e32422b69ed741e86f79d25",
        "c26eaac0c89c1a4457a7192bca2e6bc41844e8c489c7765ad928ce023e189f97",
    ];
    assert_eq!(digests, golden, "Docker's, OCI's");
}

#[test]
fn images_share_layers_in_an_archive() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let noise: Vec<u8> = (0..200_000).map(|_| fastrand::u8(..)).collect();
    let base = || Fixture::new(platform("linux/amd64")).layer(&[("noise", &noise)]);
    base().tag(&store, &name("one")).unwrap();
    base().layer(&[("b", b"b")]).tag(&store, &name("two")).unwrap();
    for format in BOTH {
        let archive = saved(&store, &["one", "two"], format);
        assert!(archive.len() < 300_000, "{format:?}: {} bytes", archive.len());
        assert_eq!(loaded(&archive[..], &scratch.store(&format!("{format:?}"))).images.len(), 2);
    }
}

/// A platform of an index; and an index of which only one image is here, as after a pull.
#[test]
fn an_index_goes_as_far_as_it_is_there() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let demo = demo(&store, "demo:1");
    let index = store.resolve(&demo).unwrap();
    let arm = store.image_for(&demo, &platform("linux/arm64")).unwrap();
    let save = || archive::save(&store, [&demo]).platform(platform("linux/arm64"));
    for format in BOTH {
        let mut bytes = Vec::new();
        save().format(format).to(&mut bytes).unwrap();
        let to = scratch.store(&format!("{format:?}"));
        let loaded = loaded(&bytes[..], &to);
        assert_eq!(to.image_at(&loaded.images[0].root).unwrap().id(), arm.id());
    }
    std::fs::remove_file(blob_path(&store, &arm.manifest().layers()[1])).unwrap();
    let bytes = saved(&store, &["demo:1"], Format::Oci);
    let to = scratch.store("half");
    assert_eq!(loaded(&bytes[..], &to).images[0].root.digest, index.digest);
    assert!(!to.contains(&arm.descriptor()).unwrap());
    assert!(to.image_at(&index).unwrap().is_complete().unwrap());
    assert_kind!(failure(save().to(io::sink())), layercake::ErrorKind::NotFound { .. });
}

/// What `docker save` wrote until 2024, in any order, compressed or not, through any pipe.
#[test]
fn docker_saves_classic_form_loads_in_any_order() {
    let classic = Classic::new();
    let mut items = classic.items();
    let mut roots = Vec::new();
    for seed in 0..20 {
        let scratch = Scratch::new();
        let store = scratch.store("store");
        let archive = tar(&items);
        let loaded = if seed % 5 == 0 { loaded(Drip(&archive, 0), &store) } else { loaded(&archive[..], &store) };
        assert_classic(&store, &loaded, &classic);
        let names: Vec<Vec<String>> =
            loaded.images.iter().map(|image| image.names.iter().map(ToString::to_string).collect()).collect();
        let expected = [&["docker.io/library/small:1", "example.com/small:1"][..], &[]];
        assert_eq!(names, expected);
        assert_eq!(loaded.images[1].other_names, ["big"], "a word alone may be a tag");
        assert_eq!(store.entries().unwrap().count(), 0, "nothing is named (CVE-2026-50195)");
        roots.push(loaded.images);
        fastrand::Rng::with_seed(seed).shuffle(&mut items);
    }
    assert!(roots.iter().all(|images| *images == roots[0]));
}

#[test]
fn compressed_archives_are_found_by_their_content() {
    let classic = Classic::new();
    let plain = tar(&classic.items());
    let scratch = Scratch::new();
    let mut forms = vec![gzip(&plain), [gzip(&plain[..512]), gzip(&plain[512..])].concat()];
    #[cfg(feature = "zstd")]
    forms.push(zstd::encode_all(&plain[..], 0).unwrap());
    forms.push(plain);
    for (n, archive) in forms.iter().enumerate() {
        let store = scratch.store(&n.to_string());
        assert_classic(&store, &loaded(&archive[..], &store), &classic);
    }
}

/// Docker, skopeo and podman write links where layers are the same; paths may begin with `./`.
#[test]
fn links_inside_an_archive_are_followed() {
    let classic = Classic::new();
    let links = [
        vec![Item::symlink("one/layer.tar", "../base.tar"), Item::file("base.tar", &classic.layers[0])],
        vec![Item::hard_link("./one/layer.tar", "./x/base"), Item::file("./x/base", &classic.layers[0])],
        vec![
            Item::symlink("one/layer.tar", "./next"),
            Item::symlink("one/next", "deep/../../x//y/../base"),
            Item::hard_link("x/base", "origin"),
            Item::file("origin", &classic.layers[0]),
        ],
    ];
    for added in links {
        let scratch = Scratch::new();
        let store = scratch.store("store");
        let mut items = added;
        items.extend([Item::dir("./"), Item::symlink("two/layer.tar", "../second"), Item::fifo("fifo")]);
        items.extend([Item::file("second", &classic.layers[1]), Item::device(b'3', "null", 1, 3)]);
        items.extend(classic.items().into_iter().skip(8));
        assert_classic(&store, &loaded(&tar(&items)[..], &store), &classic);
    }
}

/// As go-containerregistry and kaniko write it: compressed layers, and `sha256:…` for a configuration.
#[test]
fn layers_of_dockers_form_may_be_compressed() {
    let classic = Classic::new();
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let id = classic.ids()[1].to_string();
    let manifest = serde_json::json!([{ "Config": id, "RepoTags": null, "Layers": ["1.tar.gz", "2.tar"] }]);
    let items = [
        Item::file("1.tar.gz", gzip(&classic.layers[0])),
        Item::file("2.tar", &classic.layers[1]),
        Item::file(&id, &classic.configs[1]),
        Item::file("manifest.json", manifest.to_string()),
    ];
    let loaded = loaded(&tar(&items)[..], &store);
    let image = store.image_at(&loaded.images[0].root).unwrap();
    assert_eq!(image.id(), classic.ids()[1]);
    let types: Vec<&str> = image.manifest().layers().iter().map(|layer| layer.media_type.as_str()).collect();
    assert_eq!(types, ["application/vnd.oci.image.layer.v1.tar+gzip", "application/vnd.oci.image.layer.v1.tar"]);
    assert!(loaded.images[0].names.is_empty() && loaded.images[0].other_names.is_empty());
}

/// Docker 25 and later: the layout counts, and both say names.
#[test]
fn docker_saves_modern_form_keeps_its_manifests() {
    let scratch = Scratch::new();
    let from = scratch.store("from");
    Fixture::new(platform("linux/amd64")).layer(&[("a", b"a")]).tag(&from, &name("alpine:3.20")).unwrap();
    let mut parts = members(&saved(&from, &["alpine:3.20"], Format::Docker));
    for (path, content) in &mut parts {
        let text = String::from_utf8_lossy(content).into_owned();
        if path == "index.json" {
            // containerd's way: the whole name, and the tag alone.
            let spec = r#""org.opencontainers.image.ref.name":"docker.io/library/alpine:3.20""#;
            *content = text.replace(spec, r#""org.opencontainers.image.ref.name":"3.20""#).into_bytes();
        } else if path == "manifest.json" {
            *content = text.replace(r#""alpine:3.20""#, r#""alpine:3.20","alpine:latest""#).into_bytes();
        }
    }
    let store = scratch.store("to");
    let loaded = loaded(&tar(&files(&parts))[..], &store);
    assert_eq!(loaded.images.len(), 1);
    assert_eq!(loaded.images[0].names, [name("alpine:3.20"), name("alpine:latest")]);
    assert_eq!(store.image_at(&loaded.images[0].root).unwrap().id(), from.image(name("alpine:3.20")).unwrap().id());
}

/// Names come from whoever wrote the archive. Those that are none are told apart, and are no error.
#[test]
fn names_that_are_none_are_told_apart() {
    let scratch = Scratch::new();
    let (from, to) = (scratch.store("from"), scratch.store("to"));
    let root = Fixture::new(platform("linux/amd64")).layer(&[("a", b"a")]).tag(&from, &name("app:1")).unwrap();
    let mut parts = members(&saved(&from, &["app:1"], Format::Oci));
    let entries: Vec<_> = ["latest", "Foo/Bar:1", "../../etc/passwd", "a b\u{7}", "short:1", "", "x@sha256:00"]
        .iter()
        .map(|name| {
            let mut entry = root.clone();
            entry.annotations.insert("org.opencontainers.image.ref.name".to_owned(), (*name).to_owned());
            entry
        })
        .collect();
    let index = serde_json::json!({ "schemaVersion": 2, "manifests": entries }).to_string();
    parts.iter_mut().filter(|(path, _)| path == "index.json").for_each(|(_, content)| *content = index.clone().into());
    let loaded = loaded(&tar(&files(&parts))[..], &to);
    assert_eq!(loaded.images.len(), 1);
    assert_eq!(loaded.images[0].names, [name("short:1")]);
    let others = ["latest", "Foo/Bar:1", "../../etc/passwd", "a b\u{7}", "x@sha256:00"];
    assert_eq!(loaded.images[0].other_names, others);
}

/// More blobs than files are open for.
#[test]
fn an_archive_may_have_many_layers() {
    let scratch = Scratch::new();
    let (from, to) = (scratch.store("from"), scratch.store("to"));
    let mut fixture = Fixture::new(platform("linux/amd64"));
    for n in 0..100 {
        fixture = fixture.layer(&[(&format!("file-{n}"), b"x")]);
    }
    fixture.tag(&from, &name("app:1")).unwrap();
    let id = from.image(name("app:1")).unwrap().id();
    let mut parts = members(&saved(&from, &["app:1"], Format::Docker));
    let classic: Vec<_> = parts.iter().filter(|(path, _)| !path.ends_with("-layout")).cloned().collect();
    parts.reverse();
    for (n, items) in [files(&parts), files(&classic)].iter().enumerate() {
        let store = if n == 0 { to.clone() } else { scratch.store("classic") };
        assert_eq!(tagged(&tar(items)[..], &store), [name("app:1")]);
        let image = store.image(name("app:1")).unwrap();
        assert_eq!((image.id(), image.layers().unwrap().len()), (id, 100));
        assert_eq!(std::fs::read_dir(store.path().join("layercake/partial")).unwrap().count(), 0);
    }
}

/// A store in a tar is a layout like another; what only stands for an image is none.
#[test]
fn a_store_can_be_packed_by_tar() {
    let scratch = Scratch::new();
    let (from, to) = (scratch.store("from"), scratch.store("to"));
    let demo = demo(&from, "example.com/demo:1");
    let tar = std::process::Command::new("tar").arg("-C").arg(from.path()).args(["-c", "."]).output().unwrap();
    assert_eq!(tagged(&tar.stdout[..], &to), std::slice::from_ref(&demo));
    assert_eq!(to.resolve(&demo).unwrap().digest, from.resolve(&demo).unwrap().digest);
}

/// What the layout in the store calls by no reference goes too, and by a digest or a root.
#[test]
fn what_has_no_reference_can_be_saved() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let root = Fixture::new(platform("linux/amd64")).layer(&[("a", b"a")]).write(&store).unwrap();
    let pinned = name("example.com/app").with_digest(root.digest);
    store.tag(&pinned, &root).unwrap();
    for format in BOTH {
        let mut bytes = Vec::new();
        archive::save(&store, [&pinned]).root(&root).format(format).to(&mut bytes).unwrap();
        let to = scratch.store(&format!("{format:?}"));
        let images = loaded(&bytes[..], &to).images;
        assert_eq!(images.len(), 1);
        let expected = if format == Format::Oci { vec![pinned.clone()] } else { Vec::new() };
        assert_eq!(images[0].names, expected, "another manifest has another digest");
    }
    let config = store.image_at(&root).unwrap().manifest().config().clone();
    let mut damaged = store.read(&config).unwrap();
    damaged[10] ^= 1;
    std::fs::remove_file(blob_path(&store, &config)).unwrap();
    std::fs::write(blob_path(&store, &config), damaged).unwrap();
    assert!(failure(archive::save(&store, [&pinned]).format(Format::Oci).to(io::sink())).is_corrupt());
    let nothing: [&Name; 0] = [];
    assert_kind!(failure(archive::save(&store, nothing).to(io::sink())), layercake::ErrorKind::InvalidInput(_));
    assert!(failure(archive::save(&store, [name("no")]).to(io::sink())).is_not_found());
}
