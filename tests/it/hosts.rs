//! Settings of one host: mirrors, headers, limits; and the client's clock.

use std::net::Ipv4Addr;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use layercake::ErrorKind;
use layercake::ImageReference;
use layercake::Registry;
use layercake::registry::Backoff;
use layercake::registry::Credentials;
use layercake::registry::Host;
use layercake::registry::Never;
use layercake::testing;
use layercake::testing::Clock;
use layercake::testing::Fault;

use crate::assert_kind;
use crate::support::Served;
use crate::support::assert_same_blobs;
use crate::support::client;
use crate::support::failure;
use crate::support::quick;
use crate::support::two_layers;

/// A registry with an image, and a mirror that serves the same store.
fn mirrored() -> (Served, ImageReference, testing::Registry) {
    let (served, image) = Served::with(&two_layers());
    let mirror = testing::Registry::start_at(&served.store, (Ipv4Addr::new(127, 0, 0, 2), 0).into()).unwrap();
    (served, image, mirror)
}

fn client_of(image: &ImageReference, mirrors: &[&testing::Registry]) -> Registry {
    let host = mirrors.iter().fold(Host::new(), |host, mirror| host.mirror(mirror.host()));
    quick().host(image.host(), host).build().unwrap()
}

/// What a mirror has is read there, and the registry itself is not asked; the name is the registry's. D31: nothing is
/// said of the registry's own host.
#[test]
fn a_mirror_is_read_first() {
    let (served, image, mirror) = mirrored();
    let store = served.scratch.store("store");
    client_of(&image, &[&mirror]).pull(&image).to(&store).unwrap();
    assert!(store.image(&image).unwrap().is_complete().unwrap());
    assert!(served.registry.requests().is_empty());
    assert!(mirror.requests().iter().all(|request| !request.path.contains("ns=")));
}

/// What a mirror does not have, or cannot give, comes from the next, and in the end from the registry.
#[test]
fn a_mirror_that_fails_is_passed_over() {
    for fault in [
        Fault::on("").status(404),
        Fault::on("").status(500),
        Fault::on("").status(401),
        Fault::on("/blobs/").status(403),
        Fault::on("").hang_up(),
        Fault::on("/blobs/").redirect("ftp://nowhere/"),
    ] {
        let (served, image, mirror) = mirrored();
        let empty = testing::Registry::start(&served.scratch.store("empty")).unwrap();
        mirror.fault(fault);
        let store = served.scratch.store("store");
        client_of(&image, &[&empty, &mirror]).pull(&image).to(&store).unwrap();
        assert!(!served.registry.requests().is_empty());
        assert!(store.image(&image).unwrap().is_complete().unwrap());
    }
    let (served, image, mirror) = mirrored();
    let registry = client_of(&image, &[&mirror]);
    mirror.stop();
    registry.pull(&image).to(&served.scratch.store("store")).unwrap();
}

/// What a mirror begins and breaks off comes from the registry itself, at once: it need not be tried again.
#[test]
fn a_mirror_that_breaks_off_is_passed_over() {
    for (path, bytes) in [("/manifests/", 50), ("/blobs/", 10), ("/blobs/", 70_000)] {
        let (served, image, mirror) = mirrored();
        mirror.fault(Fault::on(path).method("GET").truncate(bytes));
        let host = Host::new().mirror(mirror.host());
        let registry = Registry::builder().retry(Never).host(image.host(), host).build().unwrap();
        let store = served.scratch.store("store");
        let pulled = registry.pull(&image).jobs(1).to(&store).unwrap();
        assert_same_blobs(&served.store, &store, &pulled.image);
        assert!(!mirror.requests().is_empty() && served.count("GET", path) > 0);
    }
}

/// What a mirror says of a tag may make no sense: then the registry itself is asked.
#[test]
fn a_mirror_that_talks_nonsense_is_passed_over() {
    let nonsense = [
        ("docker-content-digest", "sha256:rubbish"),
        ("content-type", "application/vnd.docker.distribution.manifest.v1+json"),
    ];
    for (header, value) in nonsense {
        let (served, image, mirror) = mirrored();
        mirror.fault(Fault::on("/manifests/").method("HEAD").header(header, value));
        client_of(&image, &[&mirror]).pull(&image).to(&served.scratch.store("store")).unwrap();
        assert_eq!(served.count("HEAD", "/manifests/"), 1, "{header}");
    }
}

/// P10: a mirror never sees the registry's credentials; it may have its own.
#[test]
fn a_mirror_sees_its_own_credentials() {
    let (served, image, mirror) = mirrored();
    served.registry.require_login("alice", "secret");
    mirror.require_login("bob", "other");
    let (own, other) = (image.host().to_owned(), mirror.host());
    let source = move |host: &str, repository: &str| {
        assert_eq!(repository, "app");
        Ok(match host {
            host if host == own => Some(Credentials::new("alice", "secret")),
            host if host == other => Some(Credentials::new("bob", "other")),
            _ => None,
        })
    };
    let host = Host::new().mirror(mirror.host());
    let registry = quick().credentials(source).host(image.host(), host).build().unwrap();
    registry.pull(&image).to(&served.scratch.store("store")).unwrap();
    assert!(served.registry.requests().is_empty());
    assert!(mirror.requests().iter().filter(|request| request.path.contains("/blobs/")).count() >= 3);
}

/// Nothing is written to a mirror, and what is there is asked of the registry itself.
#[test]
fn nothing_is_pushed_to_a_mirror() {
    let (served, image, mirror) = mirrored();
    let store = served.scratch.store("store");
    client().pull(&image).to(&store).unwrap();
    let empty = testing::Registry::start(&served.scratch.store("empty")).unwrap();
    let there = empty.reference("app:1").unwrap();
    let pushed = client_of(&there, &[&mirror]).push(&store.image(&image).unwrap()).to(&there).unwrap();
    assert_eq!(pushed.sent.blobs, 3);
    assert!(mirror.requests().is_empty());
}

/// Headers go to their host with each request, and to no other.
#[test]
fn headers_go_to_their_host() {
    let (served, image, other) = mirrored();
    let settings = Host::new().header("X-Team", "cakes");
    let registry = quick().host(image.host(), settings).build().unwrap();
    served.registry.fault(Fault::on("/blobs/").redirect(&format!("http://{}/v2/app/blobs/x", other.host())).times(1));
    let _ = failure(registry.pull(&image).to(&served.scratch.store("store")));
    assert!(served.registry.requests().iter().all(|request| request.header("x-team") == Some("cakes")));
    assert!(!other.requests().is_empty());
    assert!(other.requests().iter().all(|request| request.header("x-team").is_none()));
    for (name, value) in [("a b", "c"), ("a", "b\r\nc: d"), ("Authorization", "x"), ("content-length", "1"), ("", "x")]
    {
        let host = Host::new().header(name, value);
        assert_kind!(failure(quick().host("example.com", host).build()), ErrorKind::InvalidInput(_));
    }
}

/// So many connections at once and no more, also where a copy reads from and writes to the same host.
#[test]
fn connections_are_limited() {
    let (served, image) = Served::with(&two_layers());
    served.registry.without_mounts();
    served.registry.fault(Fault::on("/blobs/").delay(Duration::from_millis(5)));
    let registry = quick().host(image.host(), Host::new().connections(1)).build().unwrap();
    registry.pull(&image).jobs(8).to(&served.scratch.store("store")).unwrap();
    let copied = registry.copy(&image).jobs(8).to(&served.registry.reference("b:1").unwrap()).unwrap();
    assert_eq!(copied.sent.blobs, 3);
}

/// So many requests in a second and no more.
#[test]
fn requests_are_limited() {
    let (served, image) = Served::with(&two_layers());
    let registry = quick().host(image.host(), Host::new().requests_per_second(50)).build().unwrap();
    let start = Instant::now();
    for _ in 0..11 {
        registry.ping(image.host()).unwrap();
    }
    assert!(start.elapsed() >= Duration::from_millis(200), "{:?}", start.elapsed());
    drop(served);
}

/// Pauses and the lives of tokens go by the clock that is given: nobody waits.
#[test]
fn a_test_need_not_wait() {
    let (served, image) = Served::with(&two_layers());
    let clock = Clock::new();
    served.registry.use_clock(&clock);
    served.registry.require_tokens(Duration::from_secs(300));
    served.registry.fault(Fault::on("/manifests/").method("GET").times(3).status(503).header("retry-after", "40"));
    let registry = Registry::builder().retry(Backoff::default()).clock(clock.clone()).build().unwrap();
    let start = Instant::now();
    registry.pull(&image).to(&served.scratch.store("store")).unwrap();
    assert_eq!(clock.now(), Duration::from_secs(120));
    assert!(start.elapsed() < Duration::from_secs(30));
    served.registry.clear_requests();
    registry.pull(&image).to(&served.scratch.store("store2")).unwrap();
    assert_eq!(served.count("GET", "/token"), 0, "the token is still good");
    clock.advance(Duration::from_secs(280));
    served.registry.clear_requests();
    registry.pull(&image).to(&served.scratch.store("store3")).unwrap();
    assert_eq!(served.count("GET", "/token"), 1, "a new one is fetched before it expires on its way");
}

/// X2: credentials are asked for once for each repository, and only where they are needed.
#[test]
fn a_source_is_asked_when_it_is_needed() {
    let (served, image) = Served::with(&two_layers());
    let asked = std::sync::Arc::new(AtomicUsize::new(0));
    let source = {
        let asked = std::sync::Arc::clone(&asked);
        move |_: &str, _: &str| {
            asked.fetch_add(1, Ordering::Relaxed);
            Ok(Some(Credentials::new("alice", "secret")))
        }
    };
    let registry = quick().credentials(source).build().unwrap();
    registry.pull(&image).to(&served.scratch.store("open")).unwrap();
    assert_eq!(asked.load(Ordering::Relaxed), 0);
    served.registry.require_login("alice", "secret");
    for n in 0..3 {
        registry.pull(&image).to(&served.scratch.store(&n.to_string())).unwrap();
    }
    assert_eq!(asked.load(Ordering::Relaxed), 1);
}
