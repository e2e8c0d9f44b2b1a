//! What must not work: each case a typed error that says what happened, and a store that is as it was.

use std::time::Duration;
use std::time::Instant;

use layercake::ErrorKind;
use layercake::ImageReference;
use layercake::Registry;
use layercake::Store;
use layercake::error::Limit;
use layercake::registry::Failure;
use layercake::testing::Fault;
use layercake::testing::Fixture;
use layercake::transfer::PullPolicy;

use crate::assert_kind;
use crate::support::Served;
use crate::support::client;
use crate::support::contents;
use crate::support::failure;
use crate::support::name;
use crate::support::platform;
use crate::support::quick;
use crate::support::tools;
use crate::support::two_layers;

/// Pulls with a fault, from a store that has another image. Returns the error, after checking that the store did not
/// change but for blobs that are whole.
#[track_caller]
fn pull_with(fixture: &Fixture, fault: Fault) -> layercake::Error {
    let (served, image) = Served::with(fixture);
    served.registry.fault(fault);
    let store = served.scratch.store("store");
    Fixture::new(platform("linux/amd64")).layer(&[("old", b"old")]).tag(&store, &image).unwrap();
    let before = contents(store.path());
    let error = failure(client().pull(&image).platform(platform("linux/amd64")).to(&store));
    let after = contents(store.path());
    for (path, content) in &before {
        assert_eq!(after.get(path), Some(content), "{}", path.display());
    }
    for path in after.keys().filter(|path| !before.contains_key(*path)) {
        assert!(path.starts_with("blobs"), "{} is new", path.display());
    }
    for blob in store.blobs().unwrap() {
        let (digest, size) = blob.unwrap();
        store.read(&layercake::Descriptor::new(layercake::MediaType::OCTET_STREAM, digest, size)).unwrap();
    }
    let text = error.to_string();
    assert!(text.starts_with(&format!("pull {image}: ")), "{text}");
    assert!(!text.contains('\n'), "{text}");
    error
}

#[track_caller]
fn pull(image: &ImageReference) -> layercake::Error {
    let scratch = crate::support::Scratch::new();
    failure(client().pull(image).to(&scratch.store("store")))
}

#[test]
fn an_unknown_host() {
    let start = Instant::now();
    let error = pull(&name("registry.invalid/app:1"));
    assert_kind!(error, ErrorKind::Connect { .. });
    assert!(error.to_string().contains("registry.invalid:443"), "{error}");
    assert!(start.elapsed() < Duration::from_secs(30));
}

#[test]
fn a_refused_connection() {
    let (served, image) = Served::with(&two_layers());
    served.registry.stop();
    let store = served.scratch.store("store");
    let start = Instant::now();
    let error = failure(Registry::new().pull(&image).to(&store));
    assert_kind!(error, ErrorKind::Connect { .. });
    assert!(error.to_string().contains(image.host()), "{error}");
    assert!(start.elapsed() < Duration::from_secs(10), "a host that never answered is not waited for");
}

#[test]
fn statuses_that_refuse() {
    for (status, code) in [(401, "UNAUTHORIZED"), (403, "DENIED"), (400, "NAME_INVALID"), (418, "TEAPOT")] {
        let body =
            format!("{{\"errors\":[{{\"code\":\"{code}\",\"message\":\"no\\u001b[31m\\nentry\",\"detail\":1}}]}}");
        let error = pull_with(&two_layers(), Fault::on("/manifests/").status(status).body(body));
        assert_kind!(error, ErrorKind::Registry(refusal) if refusal.status == status && refusal.has_code(code));
        assert!(!error.is_retryable());
        let text = error.to_string();
        assert!(text.ends_with(&format!("/v2/app/manifests/1: status {status}: {code}: no [31m entry")), "{text}");
    }
}

/// D10, D28: an error without words from HEAD gets them from GET; bodies of any form are kept.
#[test]
fn names_and_tags_that_are_not_there() {
    let (served, _) = Served::with(&two_layers());
    for (missing, code) in [("nobody:1", "NAME_UNKNOWN"), ("app:2", "MANIFEST_UNKNOWN")] {
        let error = pull(&served.registry.reference(missing).unwrap());
        assert!(error.is_not_found());
        assert_kind!(error, ErrorKind::Registry(refusal) if refusal.has_code(code) && refusal.method == "GET");
    }
    let error = pull_with(&two_layers(), Fault::on("/manifests/").status(404).body("<h1>nginx</h1>"));
    assert!(error.to_string().ends_with("status 404: <h1>nginx</h1>"), "{error}");
}

#[test]
fn refusals_for_ever() {
    for status in [429, 500, 503] {
        let (served, image) = Served::with(&two_layers());
        served.registry.fault(Fault::on("/manifests/").status(status));
        let error = failure(client().pull(&image).to(&served.scratch.store("store")));
        assert_kind!(error, ErrorKind::Registry(refusal) if refusal.status == status);
        assert!(error.is_retryable());
        assert!(error.to_string().contains("after 3 attempts"), "{error}");
        assert_eq!(served.count("HEAD", "/manifests/"), 3);
        let error = pull_with(&two_layers(), Fault::on("/blobs/").after(1).status(status));
        assert_kind!(error, ErrorKind::Registry(refusal) if refusal.status == status);
    }
}

/// A registry that wants us to come back next year is not waited for.
#[test]
fn a_pause_without_end() {
    let (served, image) = Served::with(&two_layers());
    served.registry.fault(Fault::on("/manifests/").status(429).header("retry-after", "31536000"));
    let store = served.scratch.store("store");
    let start = Instant::now();
    let error = failure(Registry::new().pull(&image).to(&store));
    assert_kind!(error, ErrorKind::Registry(refusal) if refusal.retry_after == Some(Duration::from_secs(31_536_000)));
    assert!(start.elapsed() < Duration::from_secs(60));
}

#[test]
fn a_manifest_that_is_not_json() {
    for body in ["", "rubbish", "[]", "{}", "{\"schemaVersion\":2,", "\u{0}"] {
        let fault = Fault::on("/manifests/").method("GET").body(body).without_header("docker-content-digest");
        let (served, image) = Served::with(&two_layers());
        // Without a digest from HEAD nothing is known before the body.
        served.registry.fault(Fault::on("/manifests/").method("HEAD").status(405));
        served.registry.fault(fault);
        let error = failure(client().pull(&image).to(&served.scratch.store("store")));
        assert_kind!(error, ErrorKind::InvalidDocument { .. });
    }
}

#[test]
fn a_manifest_that_is_too_large() {
    let huge = vec![b' '; (8 << 20) + 1];
    for fault in [
        Fault::on("/manifests/").method("GET").body(huge.clone()),
        Fault::on("/manifests/").method("GET").body(huge).chunked(),
    ] {
        let error = pull_with(&two_layers(), fault);
        assert_kind!(error, ErrorKind::LimitExceeded { limit: Limit::DocumentSize, .. });
    }
}

#[test]
fn a_manifest_of_the_wrong_type() {
    for media_type in ["text/html", "application/vnd.oci.image.config.v1+json", "application/octet-stream"] {
        let error = pull_with(&two_layers(), Fault::on("/manifests/").header("content-type", media_type));
        assert_kind!(error, ErrorKind::InvalidDocument { .. } | ErrorKind::UnsupportedMediaType { .. });
    }
    let index = "application/vnd.oci.image.index.v1+json";
    let error = pull_with(&two_layers(), Fault::on("/manifests/").header("content-type", index));
    assert_kind!(error, ErrorKind::InvalidDocument { .. });
}

#[test]
fn a_manifest_of_schema_1() {
    let prettyjws = "application/vnd.docker.distribution.manifest.v1+prettyjws";
    for fault in [
        Fault::on("/manifests/").header("content-type", prettyjws),
        Fault::on("/manifests/").method("GET").header("content-type", prettyjws),
    ] {
        assert_kind!(pull_with(&two_layers(), fault), ErrorKind::Schema1);
    }
}

/// D6, D7: of another digest than asked, than promised, than the header says.
#[test]
fn a_manifest_of_another_digest() {
    let other = format!("sha256:{}", "ab".repeat(32));
    let error =
        pull_with(&two_layers(), Fault::on("/manifests/").method("GET").header("docker-content-digest", &other));
    assert_kind!(error, ErrorKind::DigestMismatch { .. });
    let error = pull_with(&two_layers(), Fault::on("/manifests/").method("GET").flip(20));
    assert_kind!(error, ErrorKind::DigestMismatch { .. });
    let error = pull_with(&Fixture::demo(), Fault::on("/manifests/").after(2).flip(20));
    assert_kind!(error, ErrorKind::DigestMismatch { .. });
    let error = pull_with(&two_layers(), Fault::on("/manifests/").header("docker-content-digest", "sha256:../../x"));
    assert_kind!(error, ErrorKind::InvalidDigest(_));

    let (served, image) = Served::with(&two_layers());
    let digest = layercake::Digest::sha256(b"another");
    let pinned = image.with_digest(digest);
    served.registry.fault(Fault::on("/manifests/").status(200).body("{}").without_header("content-type"));
    let error = failure(client().pull(&pinned).to(&served.scratch.store("store")));
    assert_kind!(error, ErrorKind::DigestMismatch { expected, .. } if *expected == digest);
}

/// D8, I3: a layer that is short, long, or something else.
#[test]
fn a_blob_that_is_not_what_was_promised() {
    let layer = |fault: fn(Fault) -> Fault| pull_with(&two_layers(), fault(Fault::on("/blobs/").after(1)));
    for fault in [
        (|fault| fault.body("short")) as fn(Fault) -> Fault,
        |fault| fault.body(vec![7; 300_000]),
        |fault| fault.body(vec![7; 300_000]).chunked(),
    ] {
        assert_kind!(layer(fault), ErrorKind::SizeMismatch { .. });
    }
    assert_kind!(layer(|fault| fault.flip(90)), ErrorKind::DigestMismatch { .. });
    assert_kind!(layer(|fault| fault.truncate(50)), ErrorKind::Network { .. });
    assert_kind!(layer(|fault| fault.body("short").chunked()), ErrorKind::Network { .. });
    assert_kind!(layer(|fault| fault.status(404)), ErrorKind::Registry(refusal) if refusal.status == 404);
    let error = layer(|fault| fault.flip(90)).to_string();
    assert!(
        error.contains(" of 2, sha256:") && error.contains("expected sha256:") && error.contains("found sha256:"),
        "{error}"
    );

    for fault in [
        (|fault| fault.body("short")) as fn(Fault) -> Fault,
        |fault| fault.flip(10),
        |fault| fault.truncate(10),
        |fault| fault.status(500),
    ] {
        let error = pull_with(&two_layers(), fault(Fault::on("/blobs/").times(3)));
        assert!(error.to_string().contains("configuration sha256:"), "{error}");
    }
}

/// A corrupt layer is not tried for ever, and its bytes are not kept.
#[test]
fn a_corrupt_blob_leaves_nothing_behind() {
    let (served, image) = Served::with(&two_layers());
    served.registry.fault(Fault::on("/blobs/").after(1).flip(90));
    let store = served.scratch.store("store");
    assert!(failure(client().pull(&image).jobs(1).to(&store)).is_corrupt());
    assert_eq!(served.count("GET", "/blobs/"), 2);
    assert_eq!(std::fs::read_dir(store.path().join("layercake/partial")).unwrap().count(), 0);
}

#[test]
fn no_entry_for_the_platform() {
    let (served, image) = Served::with(&Fixture::demo());
    let store = served.scratch.store("store");
    let error = failure(client().pull(&image).platform(platform("linux/riscv64")).to(&store));
    assert_eq!(
        error.to_string(),
        format!(
            "pull {image}: no matching manifest for linux/riscv64 in the manifest list entries; \
             there are: linux/amd64, linux/arm64"
        )
    );
    let (served, image) = Served::with(&two_layers());
    let error = failure(client().pull(&image).platform(platform("linux/arm64")).to(&served.scratch.store("store")));
    assert_kind!(error, ErrorKind::NoMatchingPlatform { .. });
    assert_eq!(served.count("GET", "/blobs/"), 1, "only the configuration was fetched");
}

/// What an index says of platforms is shown, as text and not too much of it.
#[test]
fn platforms_in_messages_are_harmless() {
    let served = Served::start();
    let entry = |n: usize| {
        let os = format!("linux\u{1b}]0;{n}\u{7}");
        let digest = layercake::Digest::sha256(n.to_string().as_bytes());
        serde_json::json!({
            "mediaType": layercake::MediaType::OCI_MANIFEST, "size": 1, "digest": digest,
            "platform": { "os": os, "architecture": "a".repeat(1000) },
        })
    };
    let entries: Vec<_> = (0..1000).map(entry).collect();
    let index = serde_json::json!({ "schemaVersion": 2, "manifests": entries });
    let root = served.store.write(layercake::MediaType::OCI_INDEX, index.to_string().as_bytes()).unwrap();
    served.store.tag(&name("example.com/app:1"), &root).unwrap();
    let text = pull(&served.registry.reference("app:1").unwrap()).to_string();
    assert!(text.len() < 3000 && text.ends_with(" and 980 more"), "{text}");
    assert!(!text.contains(|c: char| c.is_control()), "{text:?}");
}

#[test]
fn a_redirect_loop() {
    let (served, image) = Served::with(&two_layers());
    let loop_ = format!("http://{}/v2/app/manifests/1", served.registry.host());
    served.registry.fault(Fault::on("/manifests/").redirect(&loop_));
    let error = failure(client().pull(&image).to(&served.scratch.store("store")));
    assert_kind!(error, ErrorKind::LimitExceeded { limit: Limit::Redirects, .. });
    assert!(served.registry.requests().len() < 30);

    for nowhere in ["ftp://127.0.0.1/", "//", "http://[::1", "http://127.0.0.1:0/", "http://a b/", "\u{fc}"] {
        let error = pull_with(&two_layers(), Fault::on("/manifests/").redirect(nowhere));
        assert_kind!(error, ErrorKind::Protocol { .. } | ErrorKind::Registry(_) | ErrorKind::Network { .. });
    }
}

/// Answers that are no HTTP, or far too much of it.
#[test]
fn answers_that_are_no_answers() {
    use std::io::Read;
    use std::io::Write;
    let endless = [b"HTTP/1.1 200 OK\r\nx: ".to_vec(), vec![b'a'; 1 << 20]].concat();
    for answer in
        [b"rubbish\r\n\r\n".to_vec(), b"\0\0\0\0".to_vec(), Vec::new(), endless, b"HTTP/1.1 999999 X\r\n\r\n".to_vec()]
    {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                let mut connection = connection.unwrap();
                let _ = connection.read(&mut [0; 4096]);
                let _ = connection.write_all(&answer);
            }
        });
        let error = pull(&name(&format!("{host}/app:1")));
        assert_kind!(error, ErrorKind::Network { .. } | ErrorKind::Protocol { .. });
    }
}

/// P9: a registry that is silent, or slow without end.
#[test]
fn a_registry_that_never_ends() {
    let impatient = || quick().retry(|_: &Failure<'_>| None).idle_timeout(Duration::from_millis(300));
    let start = Instant::now();
    for fault in [
        Fault::on("/manifests/").delay(Duration::from_secs(20)),
        Fault::on("/blobs/").after(1).stall(10, Duration::from_secs(20)),
    ] {
        let (served, image) = Served::with(&two_layers());
        served.registry.fault(fault);
        let registry = impatient().build().unwrap();
        let error = failure(registry.pull(&image).to(&served.scratch.store("store")));
        assert_kind!(error, ErrorKind::TimedOut { which: "idle", .. });
    }
    let (served, image) = Served::with(&two_layers());
    served.registry.fault(Fault::on("/blobs/").after(1).stall(10, Duration::from_secs(20)));
    let registry =
        quick().retry(|_: &Failure<'_>| None).total_timeout(Duration::from_millis(300)).slowest_rate(1 << 30);
    let error = failure(registry.build().unwrap().pull(&image).to(&served.scratch.store("store")));
    assert_kind!(error, ErrorKind::TimedOut { which: "total", .. });
    assert!(start.elapsed() < Duration::from_secs(15));
}

#[test]
fn names_that_cannot_be_pulled() {
    assert!(pull(&name("scratch")).to_string().ends_with("'scratch' is a reserved name"));
    assert_kind!(pull(&name("127.1:5000/app")), ErrorKind::Protocol { .. });
    let scratch = crate::support::Scratch::new();
    let error = failure(client().pull(&name("app")).policy(PullPolicy::Never).to(&scratch.store("store")));
    assert_eq!(error.to_string(), "pull docker.io/library/app:latest: image docker.io/library/app:latest not found");
}

/// A disk that fills up in the middle of a layer: nothing is published, and with room it goes on.
#[test]
fn a_disk_that_fills_up() {
    if !tools::is_root() {
        return;
    }
    let mut generator = fastrand::Rng::with_seed(3);
    let noise: Vec<u8> = (0..2 << 20).map(|_| generator.u8(..)).collect();
    let (served, image) = Served::with(&Fixture::new(platform("linux/amd64")).layer(&[("noise", &noise)]));
    let path = served.scratch.path("small");
    std::fs::create_dir(&path).unwrap();
    let mount = |options: &str| {
        tools::run(std::process::Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(&path)).ok();
    };
    mount("size=1m");
    let store = Store::create(path.join("store")).unwrap();
    let before = contents(store.path());
    let error = failure(client().pull(&image).to(&store));
    assert_kind!(error, ErrorKind::StorageFull { .. });
    assert!(error.to_string().contains("no space left"), "{error}");
    assert!(failure(store.resolve(&image)).is_not_found());
    let layers = contents(store.path());
    assert!(layers.keys().filter(|path| !before.contains_key(*path)).all(|path| path.starts_with("blobs")));
    mount("remount,size=16m");
    let pulled = client().pull(&image).to(&store).map(|pulled| pulled.status);
    drop(store);
    tools::unmount(&path);
    assert!(pulled.is_ok(), "{pulled:?}");
}
