//! From a registry into a store, when all goes well and when it does not at first.

use std::fs;
use std::sync::Mutex;

use layercake::ErrorKind;
use layercake::Event;
use layercake::MediaType;
use layercake::Store;
use layercake::store::Name;
use layercake::testing::Fault;
use layercake::testing::Fixture;
use layercake::transfer::PullPolicy;
use layercake::transfer::PullStatus;
use serde_json::json;

use crate::assert_kind;
use crate::support::Served;
use crate::support::assert_same_blobs;
use crate::support::client;
use crate::support::contents;
use crate::support::failure;
use crate::support::name;
use crate::support::platform;
use crate::support::quick;
use crate::support::two_layers;

#[test]
fn a_pulled_image_is_the_registrys() {
    for fixture in [two_layers(), two_layers().docker(), Fixture::demo(), Fixture::demo().docker()] {
        let (served, image) = Served::with(&fixture);
        let store = served.scratch.store("store");
        let pulled = client().pull(&image).platform(platform("linux/amd64")).to(&store).unwrap();
        assert_eq!(pulled.status, PullStatus::DownloadedNewer);
        assert_eq!(pulled.root.digest, served.store.resolve(name("example.com/app:1")).unwrap().digest);
        assert_same_blobs(&served.store, &store, &pulled.image);
        assert_eq!(store.resolve(&image).unwrap().digest, pulled.root.digest, "the top-level digest is kept");
        assert_eq!(store.image(&image).unwrap().id(), pulled.image.id());
        let root_and_image = if pulled.root.media_type.is_index() { 2 } else { 1 };
        assert_eq!(pulled.fetched.blobs, root_and_image + 1 + pulled.image.manifest().layers().len() as u64);
        assert_eq!(pulled.reused.blobs, 0);
    }
}

#[test]
fn pulling_again_fetches_nothing() {
    let (served, image) = Served::with(&Fixture::demo());
    let store = served.scratch.store("store");
    client().pull(&image).to(&store).unwrap();
    let before = contents(store.path());
    served.registry.clear_requests();
    let again = client().pull(&image).to(&store).unwrap();
    assert_eq!(again.status, PullStatus::UpToDate);
    assert_eq!((again.fetched.bytes, again.fetched.blobs), (0, 0));
    assert!(again.reused.bytes > 0);
    let requests = served.registry.requests();
    assert_eq!(requests.len(), 1, "one HEAD and nothing else (SPEC 2.2): {requests:?}");
    assert_eq!(requests[0].method, "HEAD");
    assert_eq!(contents(store.path()), before);
}

/// SPEC 2.4: "newer" is about the image; the root is told apart.
#[test]
fn a_moved_tag_is_a_newer_image_and_a_moved_index_is_not() {
    let (served, image) = Served::with(&Fixture::demo());
    let store = served.scratch.store("store");
    let app = name("example.com/app:1");
    let pull = || client().pull(&image).platform(platform("linux/amd64")).to(&store).unwrap();
    let first = pull();
    assert_eq!(first.previous, None);

    Fixture::demo().and(Fixture::new(platform("linux/s390x"))).tag(&served.store, &app).unwrap();
    let second = pull();
    assert_eq!(second.status, PullStatus::UpToDate, "the same image for this platform");
    assert_eq!(second.previous.as_ref().map(|root| root.digest), Some(first.root.digest));
    assert_ne!(second.root.digest, first.root.digest);
    assert_eq!(store.resolve(&image).unwrap().digest, second.root.digest);

    two_layers().tag(&served.store, &app).unwrap();
    let third = pull();
    assert_eq!(third.status, PullStatus::DownloadedNewer);
    assert_eq!(store.image(&image).unwrap().id(), third.image.id());
    assert_eq!(store.entries().unwrap().count(), 1);
}

#[test]
fn policies_ask_as_often_as_they_say() {
    let (served, image) = Served::with(&Fixture::demo());
    let store = served.scratch.store("store");
    let pull = |policy| client().pull(&image).policy(policy).to(&store);
    let error = failure(pull(PullPolicy::Never));
    assert!(error.is_not_found(), "{error}");
    assert_eq!(served.registry.requests().len(), 0);
    assert_eq!(pull(PullPolicy::IfMissing).unwrap().status, PullStatus::DownloadedNewer);
    served.registry.clear_requests();
    for policy in [PullPolicy::IfMissing, PullPolicy::Never] {
        let pulled = pull(policy).unwrap();
        assert_eq!(pulled.status, PullStatus::UpToDate);
        assert_eq!(pulled.fetched.bytes, 0);
    }
    assert_eq!(served.registry.requests().len(), 0, "present: no request");
    let layer = store.image(&image).unwrap().manifest().layers()[0].clone();
    fs::remove_file(store.path().join(format!("blobs/sha256/{}", layer.digest.hex()))).unwrap();
    assert!(failure(pull(PullPolicy::Never)).is_not_found());
    assert_eq!(pull(PullPolicy::IfMissing).unwrap().fetched.bytes, layer.size, "an image is there whole or not");
}

#[test]
fn platforms_of_one_name_are_kept_side_by_side() {
    let (served, image) = Served::with(&Fixture::demo());
    let store = served.scratch.store("store");
    let pull = |text: &str| client().pull(&image).platform(platform(text)).policy(PullPolicy::IfMissing).to(&store);
    let arm = pull("linux/arm64").unwrap();
    assert_eq!(store.image(&image).unwrap().id(), arm.image.id(), "the one that is there");
    let amd = pull("linux/amd64").unwrap();
    assert_ne!(arm.image.id(), amd.image.id());
    assert_eq!(arm.root, amd.root);
    assert_eq!(amd.status, PullStatus::DownloadedNewer);
    assert!(amd.reused.bytes > 200_000, "the first layer is shared");
    for (text, id) in [("linux/arm64", arm.image.id()), ("linux/amd64", amd.image.id())] {
        assert_eq!(store.image_for(&image, &platform(text)).unwrap().id(), id);
        assert_eq!(pull(text).unwrap().fetched.bytes, 0);
    }
}

/// Case 180: by digest, which is what comes or nothing does.
#[test]
fn pulls_by_digest_get_that_digest() {
    let (served, image) = Served::with(&two_layers());
    let store = served.scratch.store("store");
    let digest = served.store.resolve(name("example.com/app:1")).unwrap().digest;
    let pinned = name(&format!("{}/app:1@{digest}", served.registry.host()));
    let pulled = client().pull(&pinned).to(&store).unwrap();
    assert_eq!(pulled.root.digest, digest);
    let entries: Vec<Name> = store.entries().unwrap().map(|entry| entry.unwrap().0).collect();
    assert_eq!(entries, [Name::Reference(image.with_digest(digest))]);
    assert_eq!(client().pull(&pinned).to(&store).unwrap().status, PullStatus::UpToDate);
    assert!(served.count("HEAD", "/manifests/1") == 0, "the tag is not asked for");
}

/// D3, D9: what is asked, and how.
#[test]
fn requests_say_what_the_protocol_wants() {
    let (served, image) = Served::with(&two_layers());
    client().pull(&image).to(&served.scratch.store("store")).unwrap();
    let requests = served.registry.requests();
    for request in requests.iter().filter(|request| request.path.contains("/manifests/")) {
        let accept = request.header("accept").unwrap();
        for media_type in MediaType::MANIFESTS {
            assert!(accept.contains(media_type.as_str()), "D3: {accept}");
        }
    }
    for request in &requests {
        assert_eq!(request.header("range"), None, "D9: only where it is needed");
        assert_eq!(request.header("authorization"), None);
        assert_eq!(request.header("accept-encoding"), Some("identity"));
        assert!(request.header("user-agent").unwrap().starts_with("layercake/"));
        assert!(!request.path.contains("ns="), "D31");
    }
}

/// D26, D6, D10: older registries that say less, and types with parameters (D4).
#[test]
fn registries_may_say_little() {
    let little = [
        Fault::on("/manifests/").without_header("docker-content-digest"),
        Fault::on("/manifests/").header("content-type", "application/vnd.oci.image.manifest.v1+json; charset=utf-8"),
        Fault::on("/manifests/").without_header("content-type"),
        Fault::on("/manifests/").header("docker-content-digest", "blake3:abcdef"),
        Fault::on("/manifests/").chunked(),
        Fault::on("/manifests/").method("HEAD").status(405),
        Fault::on("/manifests/").method("HEAD").status(501),
        Fault::on("/manifests/").method("HEAD").header("content-length", "0"),
        Fault::on("/blobs/").chunked(),
        Fault::on("/blobs/").without_header("docker-content-digest"),
        Fault::on("/blobs/").header("docker-content-digest", "sha256:rubbish"),
        Fault::on("/blobs/").header("content-encoding", "gzip"),
    ];
    for fault in little {
        let (served, image) = Served::with(&two_layers());
        served.registry.fault(fault.clone());
        let store = served.scratch.store("store");
        let pulled = client().pull(&image).to(&store).unwrap_or_else(|error| panic!("{fault:?}: {error}"));
        assert_same_blobs(&served.store, &store, &pulled.image);
    }
}

/// What happens is told: enough to draw `docker pull`.
#[test]
fn events_tell_the_whole_story() {
    let (served, image) = Served::with(&two_layers());
    let store = served.scratch.store("store");
    let story = Mutex::new(Vec::new());
    let observer = |event: &Event<'_>| {
        let line = match event {
            Event::Resolved { reference, .. } => format!("resolved {}", reference.repository()),
            Event::Selected { layers, .. } => format!("selected {}", layers.len()),
            Event::Started { resumed, .. } => format!("started {resumed}"),
            Event::Progress { blob, bytes } if *bytes == blob.size => "all".to_owned(),
            Event::Progress { .. } => return,
            Event::Finished { .. } => "finished".to_owned(),
            Event::Reused { .. } => "reused".to_owned(),
            Event::Tagged { reference, .. } => format!("tagged {}", reference.tag().unwrap()),
            other => format!("{other:?}"),
        };
        story.lock().unwrap().push(line);
    };
    let pull = || client().pull(&image).jobs(1).observer(&observer).to(&store).unwrap();
    pull();
    let layer = ["started 0", "all", "finished"];
    let expected = [&["resolved app", "selected 2"][..], &layer, &layer, &["tagged 1"]].concat();
    assert_eq!(std::mem::take(&mut *story.lock().unwrap()), expected);
    pull();
    assert_eq!(*story.lock().unwrap(), ["resolved app", "selected 2", "reused", "reused"]);
}

/// D30: warnings are told once, and nothing comes of them.
#[test]
fn warnings_are_told_once() {
    let (served, image) = Served::with(&two_layers());
    served.registry.fault(Fault::on("").header("warning", "299 - \"this registry\u{9}retires\""));
    let warnings = Mutex::new(Vec::new());
    let observer = |event: &Event<'_>| {
        if let Event::Warning { text } = event {
            warnings.lock().unwrap().push(text.to_string());
        }
    };
    client().pull(&image).observer(&observer).to(&served.scratch.store("store")).unwrap();
    assert_eq!(*warnings.lock().unwrap(), ["this registry retires"]);
}

/// Case 132: a panic in a callback leaves a store that can be used.
#[test]
fn a_panicking_observer_breaks_nothing() {
    let (served, image) = Served::with(&two_layers());
    let store = served.scratch.store("store");
    let observer = |event: &Event<'_>| assert!(!matches!(event, Event::Progress { .. }), "a panic in a callback");
    let pull = std::panic::AssertUnwindSafe(|| client().pull(&image).observer(&observer).to(&store).is_ok());
    assert!(std::panic::catch_unwind(pull).is_err());
    client().pull(&image).to(&store).unwrap();
    assert!(store.image(&image).unwrap().is_complete().unwrap());
}

/// Case 124: everybody pulls the same.
#[test]
fn many_pulls_of_one_image_all_succeed() {
    let (served, image) = Served::with(&two_layers());
    let store = served.scratch.store("store");
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                let store = Store::open(store.path()).unwrap();
                client().pull(&image).to(&store).unwrap();
            });
        }
    });
    assert!(store.image(&image).unwrap().is_complete().unwrap());
    assert_eq!(fs::read_dir(store.path().join("layercake/partial")).unwrap().count(), 0, "nothing is left over");
    let layers = store.image(&image).unwrap().layers().unwrap();
    for layer in layers {
        layer.unpacked_size().unwrap();
    }
}

/// Case 95: damage by size is noticed, and documents are read anyway.
#[test]
fn pulling_again_mends_damage() {
    let (served, image) = Served::with(&Fixture::demo());
    let store = served.scratch.store("store");
    let pulled = client().pull(&image).to(&store).unwrap();
    let manifest = pulled.image.manifest();
    for blob in [&pulled.root, &pulled.image.descriptor(), manifest.config(), &manifest.layers()[0]] {
        let path = store.path().join(format!("blobs/sha256/{}", blob.digest.hex()));
        let whole = fs::read(&path).unwrap();
        let mut damage = vec![Vec::new(), whole[..whole.len() / 2].to_vec()];
        if blob.size < 10_000 {
            damage.push([&[whole[0] ^ 1], &whole[1..]].concat());
        }
        for damaged in damage {
            fs::remove_file(&path).unwrap();
            fs::write(&path, damaged).unwrap();
            let mended = client().pull(&image).to(&store).unwrap();
            assert_eq!(mended.root.digest, pulled.root.digest);
            assert_eq!(fs::read(&path).unwrap(), whole);
        }
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", &path).unwrap();
        client().pull(&image).to(&store).unwrap();
        assert!(path.symlink_metadata().unwrap().is_file());
    }
}

/// I4: artifacts are pulled like images, and nothing in them is interpreted.
#[test]
fn artifacts_are_pulled_too() {
    let served = Served::start();
    let chart = served.store.write(MediaType::from("application/vnd.example.chart+json"), b"{}").unwrap();
    let payload = served.store.write(MediaType::from("application/x-anything"), b"anything").unwrap();
    let manifest = json!({ "schemaVersion": 2, "config": chart, "layers": [payload, payload] });
    let manifest = served.store.write(MediaType::OCI_MANIFEST, manifest.to_string().as_bytes()).unwrap();
    served.store.tag(&name("chart:1"), &manifest).unwrap();
    let store = served.scratch.store("store");
    let image = served.registry.reference("library/chart:1").unwrap();
    let pulled = client().pull(&image).to(&store).unwrap();
    assert!(pulled.image.is_complete().unwrap());
    assert_eq!(client().pull(&image).to(&store).unwrap().status, PullStatus::UpToDate);
    assert_eq!(store.read(&payload).unwrap(), b"anything");
}

/// X9: indexes in indexes, to a depth.
#[test]
fn nested_indexes_are_followed_to_a_depth() {
    let served = Served::start();
    let image = two_layers().write(&served.store).unwrap().with_platform(platform("linux/amd64"));
    let mut root = image.clone();
    for depth in 1..=5 {
        root.platform = None;
        let entry = if depth == 1 { image.clone() } else { root.clone() };
        let index = json!({ "schemaVersion": 2, "mediaType": MediaType::OCI_INDEX, "manifests": [entry] });
        root = served.store.write(MediaType::OCI_INDEX, index.to_string().as_bytes()).unwrap();
        served.store.tag(&name(&format!("nested:{depth}")), &root).unwrap();
        let store = served.scratch.store(&format!("store-{depth}"));
        let nested = served.registry.reference(&format!("library/nested:{depth}")).unwrap();
        let result = client().pull(&nested).platform(platform("linux/amd64")).to(&store);
        match depth {
            1..=4 => assert_eq!(result.unwrap().image.digest(), image.digest),
            _ => assert_kind!(failure(result), ErrorKind::LimitExceeded { .. }),
        }
    }
}

/// Durability is paid for and gives nothing else away.
#[test]
fn durable_stores_are_filled_too() {
    let (served, image) = Served::with(&Fixture::demo());
    let store = Store::create(served.scratch.path("durable")).unwrap();
    let pulled = quick().build().unwrap().pull(&image).to(&store).unwrap();
    assert_same_blobs(&served.store, &store, &pulled.image);
}

/// X8: entries that name no platform are told apart by their configurations.
#[test]
fn entries_without_a_platform_are_looked_into() {
    let served = Served::start();
    let entry = |text: &str| {
        let image = Fixture::new(platform(text)).layer(&[("a", text.as_bytes())]).write(&served.store).unwrap();
        (image.digest, image)
    };
    let ((amd, one), (arm, two)) = (entry("linux/amd64"), entry("linux/arm64"));
    let index = json!({ "schemaVersion": 2, "mediaType": MediaType::OCI_INDEX, "manifests": [one, two] });
    let root = served.store.write(MediaType::OCI_INDEX, index.to_string().as_bytes()).unwrap();
    served.store.tag(&name("example.com/app:1"), &root).unwrap();
    let image = served.registry.reference("app:1").unwrap();
    for (text, expected) in [("linux/amd64", amd), ("linux/arm64", arm)] {
        let store = served.scratch.store(&text.replace('/', "-"));
        let pulled = client().pull(&image).platform(platform(text)).to(&store).unwrap();
        assert_eq!(pulled.image.digest(), expected);
    }
    let error = failure(client().pull(&image).platform(platform("linux/s390x")).to(&served.scratch.store("none")));
    assert!(error.to_string().ends_with("there are: linux/amd64, linux/arm64"), "{error}");
}

/// Case 208: what says something about images is none of them.
#[test]
fn an_artifact_beside_images_is_not_the_image() {
    let served = Served::start();
    let image = Fixture::new(platform("linux/arm64")).layer(&[("a", b"a")]).write(&served.store).unwrap();
    let image = image.with_platform(platform("linux/arm64"));
    let note = served.store.write(MediaType::from("application/vnd.example.note"), b"note").unwrap();
    let note = json!({ "schemaVersion": 2, "config": note, "layers": [] });
    let note = served.store.write(MediaType::OCI_MANIFEST, note.to_string().as_bytes()).unwrap();
    let index = json!({ "schemaVersion": 2, "mediaType": MediaType::OCI_INDEX, "manifests": [note, image] });
    let root = served.store.write(MediaType::OCI_INDEX, index.to_string().as_bytes()).unwrap();
    served.store.tag(&name("example.com/app:1"), &root).unwrap();
    let app = served.registry.reference("app:1").unwrap();
    let store = served.scratch.store("store");
    let error = failure(client().pull(&app).platform(platform("linux/amd64")).to(&store));
    assert_kind!(error, ErrorKind::NoMatchingPlatform { .. });
    assert_eq!(client().pull(&app).platform(platform("linux/arm64")).to(&store).unwrap().image.digest(), image.digest);
}

/// P9: an index that sends us from one entry to the next.
#[test]
fn entries_without_platform_are_not_looked_into_for_ever() {
    let served = Served::start();
    let entries: Vec<_> = (0..100)
        .map(|n| Fixture::new(platform("linux/s390x")).label("n", &n.to_string()).write(&served.store).unwrap())
        .collect();
    let index = json!({ "schemaVersion": 2, "mediaType": MediaType::OCI_INDEX, "manifests": entries });
    let root = served.store.write(MediaType::OCI_INDEX, index.to_string().as_bytes()).unwrap();
    served.store.tag(&name("example.com/app:1"), &root).unwrap();
    let app = served.registry.reference("app:1").unwrap();
    let error = failure(client().pull(&app).platform(platform("linux/amd64")).to(&served.scratch.store("store")));
    assert_kind!(error, ErrorKind::LimitExceeded { .. });
}

/// A pull that broke and is taken up brings a newer image, whatever of it was there.
#[test]
fn half_an_image_is_not_up_to_date() {
    let (served, image) = Served::with(&Fixture::demo());
    let store = served.scratch.store("store");
    let pull = |text: &str| client().pull(&image).platform(platform(text)).to(&store);
    pull("linux/arm64").unwrap();
    served.registry.fault(Fault::on("/blobs/").after(1).status(404));
    failure(pull("linux/amd64"));
    served.registry.clear_faults();
    assert_eq!(pull("linux/amd64").unwrap().status, PullStatus::DownloadedNewer);
}

/// A pull by digest that finds the image under a tag gives it the name of the digest too.
#[test]
fn what_is_present_under_another_name_gets_the_one_asked_for() {
    let (served, image) = Served::with(&two_layers());
    let store = served.scratch.store("store");
    let root = client().pull(&image).to(&store).unwrap().root;
    let pinned = image.with_digest(root.digest);
    client().pull(&pinned).policy(PullPolicy::IfMissing).to(&store).unwrap();
    store.untag(&image).unwrap();
    assert_eq!(store.resolve(&pinned).unwrap().digest, root.digest);
}

/// Configurations of old images name no variant; the index's word is enough.
#[test]
fn a_configuration_without_variant_may_be_any() {
    let served = Served::start();
    let config = json!({ "os": "linux", "architecture": "arm", "rootfs": { "type": "layers", "diff_ids": [] } });
    let config = served.store.write(MediaType::OCI_CONFIG, config.to_string().as_bytes()).unwrap();
    let manifest = json!({ "schemaVersion": 2, "config": config, "layers": [] });
    let manifest = served.store.write(MediaType::OCI_MANIFEST, manifest.to_string().as_bytes()).unwrap();
    let entry = manifest.with_platform(platform("linux/arm/v6"));
    let index = json!({ "schemaVersion": 2, "mediaType": MediaType::OCI_INDEX, "manifests": [entry] });
    let root = served.store.write(MediaType::OCI_INDEX, index.to_string().as_bytes()).unwrap();
    served.store.tag(&name("example.com/app:1"), &root).unwrap();
    let image = served.registry.reference("app:1").unwrap();
    let pull = client().pull(&image).platform(platform("linux/arm/v6"));
    pull.to(&served.scratch.store("store")).unwrap();
}

/// D6, I7: what was asked for by SHA-512 is that, whatever the registry calls it.
#[test]
fn a_pinned_sha512_is_kept() {
    let (served, image) = Served::with(&two_layers());
    let bytes = served.store.read(&served.store.resolve(name("example.com/app:1")).unwrap()).unwrap();
    let digest = layercake::Digest::of(layercake::Algorithm::Sha512, &bytes);
    let promise = layercake::Descriptor::new(MediaType::OCI_MANIFEST, digest, bytes.len() as u64);
    let mut writer = served.store.writer(digest.algorithm()).unwrap();
    writer.append(&bytes).unwrap();
    writer.commit_as(&promise).unwrap();
    let sha256 = layercake::Digest::sha256(&bytes).to_string();
    served.registry.fault(Fault::on("/manifests/").header("docker-content-digest", &sha256));
    let store = served.scratch.store("store");
    let pinned = image.with_digest(digest);
    assert_eq!(client().pull(&pinned).to(&store).unwrap().root.digest, digest);
    assert_eq!(client().repository(&pinned).unwrap().resolve(&pinned.identifier()).unwrap().unwrap().digest, digest);

    let other = image.with_digest(layercake::Digest::of(layercake::Algorithm::Sha512, b"other"));
    served.registry.fault(Fault::on("sha512").status(200).body(bytes));
    assert!(client().pull(&other).to(&store).is_err(), "only the pinned content will do");
}

/// The repository's own methods, without a store.
#[test]
fn a_repository_answers_single_questions() {
    use std::io::Read;
    let (served, image) = Served::with(&two_layers());
    let repository = client().repository(&image).unwrap();
    assert_eq!(repository.name(), "app");
    let promised = repository.resolve(&image.identifier()).unwrap().unwrap();
    let root = repository.fetch(&image.identifier()).unwrap();
    assert_eq!(root.descriptor(), promised);
    assert_eq!(repository.fetch_promised(&promised).unwrap(), root);
    let layercake::manifest::Root::Manifest(manifest) = root else { panic!("an index") };
    let layer = &manifest.layers()[0];
    served.registry.fault(Fault::on("/blobs/").times(1).truncate(1000));
    let mut content = Vec::new();
    repository.blob(layer).read_to_end(&mut content).unwrap();
    assert_eq!(layercake::Digest::sha256(&content), layer.digest);
    client().ping(&served.registry.host()).unwrap();
}
