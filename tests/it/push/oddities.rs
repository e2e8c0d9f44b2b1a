//! Registries whose answers are each in order, and together are not: each test is a dialogue.

use std::io::Read;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::time::Duration;
use std::time::Instant;

use layercake::Descriptor;
use layercake::ErrorKind;
use layercake::MediaType;
use layercake::Registry;
use layercake::Result;
use layercake::registry::Builder;
use layercake::registry::Credentials;
use layercake::registry::Failure;
use layercake::registry::Host;
use layercake::testing::Fault;
use layercake::testing::Fixture;
use layercake::transfer::copy;

use super::Pushing;
use crate::assert_kind;
use crate::support::Served;
use crate::support::client;
use crate::support::failure;
use crate::support::name;
use crate::support::quick;
use crate::support::scripted::Asked;
use crate::support::scripted::Scripted;
use crate::support::two_layers;

const SIZE: u64 = 1 << 20;
const OPENED: &str = "location: /v2/app/blobs/uploads/1\r\n";

fn patient() -> Builder {
    Registry::builder().retry(|failure: &Failure<'_>| (failure.attempt < 5).then_some(Duration::from_millis(1)))
}

/// Pushes a blob of a megabyte.
fn push(server: &Scripted) -> Result<()> {
    let content: Vec<u8> = (0..SIZE).map(|n| (n * 31 % 251) as u8).collect();
    let blob = Descriptor::of(MediaType::OCTET_STREAM, &content);
    let source = move |offset: u64| -> Result<Box<dyn Read>> {
        Ok(Box::new(std::io::Cursor::new(content[usize::try_from(offset).unwrap()..].to_vec())))
    };
    let there = name(&format!("{}/app:1", server.host));
    patient().build().unwrap().repository(&there).unwrap().push_blob(&blob, &source)
}

fn none() -> (u16, String) {
    (404, String::new())
}

fn whole() -> (u16, String) {
    (200, format!("content-length: {SIZE}\r\n"))
}

/// P9: a registry that keeps one more byte of each chunk does not get the rest again and again.
#[test]
fn a_creeping_upload_comes_to_an_end() {
    let at = AtomicU64::new(1);
    let server = Scripted::start(move |asked| match asked.method.as_str() {
        "HEAD" => none(),
        "POST" => (202, OPENED.to_owned()),
        "PUT" => (503, String::new()),
        "GET" => (204, "range: 0-1\r\n".to_owned()),
        _ => (202, format!("range: 0-{}\r\n", at.fetch_add(1, Ordering::SeqCst) + 1)),
    });
    assert_kind!(failure(push(&server)), ErrorKind::Protocol { .. } | ErrorKind::Registry(_));
    assert!(server.received() < 16 * SIZE, "{} bytes", server.received());
}

/// The same where it moves on by as much as counts as progress, and fails each time.
#[test]
fn an_upload_is_not_sent_without_end() {
    let at = AtomicU64::new(0);
    let server = Scripted::start(move |asked| match asked.method.as_str() {
        "HEAD" => none(),
        "POST" => (202, OPENED.to_owned()),
        "GET" => (204, format!("range: 0-{}\r\n", (at.fetch_add(70_000, Ordering::SeqCst) + 70_000) % SIZE)),
        _ => (503, String::new()),
    });
    assert!(push(&server).is_err());
    assert!(server.received() < (64 << 20) + 8 * SIZE, "{} bytes", server.received());
}

/// Failures that brought nothing are no reason for chunks, which this registry does not know.
#[test]
fn chunks_are_for_those_who_broke_a_body() {
    for status in [404, 405, 501] {
        let (posts, done) = (AtomicU64::new(0), AtomicBool::new(false));
        let server = Scripted::start(move |asked| match asked.method.as_str() {
            "HEAD" if done.load(Ordering::SeqCst) => whole(),
            "HEAD" => none(),
            "POST" if posts.fetch_add(1, Ordering::SeqCst) < 3 => (503, String::new()),
            "POST" => (202, OPENED.to_owned()),
            "PUT" => {
                done.store(true, Ordering::SeqCst);
                (201, String::new())
            }
            _ => (status, String::new()),
        });
        push(&server).unwrap();
        assert_eq!((server.count("PATCH"), server.count("PUT")), (0, 1));
    }
}

/// A session that broke, and does not say what it has, is not written to again; one that says `0--1` has nothing.
#[test]
fn a_session_that_says_nothing_is_left() {
    for range in ["", "range: 0--1\r\n"] {
        let (sessions, used, done) = (AtomicU64::new(0), Mutex::new(Vec::new()), AtomicBool::new(false));
        let server = Scripted::start(move |asked| match asked.method.as_str() {
            "HEAD" if done.load(Ordering::SeqCst) => whole(),
            "HEAD" => none(),
            "POST" => (202, format!("location: /v2/app/blobs/uploads/{}\r\n", sessions.fetch_add(1, Ordering::SeqCst))),
            "GET" => (204, range.to_owned()),
            _ => {
                let session = asked.path.split('?').next().unwrap().to_owned();
                let mut used = used.lock().unwrap();
                let again = used.contains(&session);
                used.push(session);
                match (used.len(), again && range.is_empty()) {
                    (1 | 2, _) => (503, String::new()),
                    // What comes is put behind what came before.
                    (_, true) => (400, String::new()),
                    _ => {
                        done.store(true, Ordering::SeqCst);
                        (201, String::new())
                    }
                }
            }
        });
        push(&server).unwrap_or_else(|error| panic!("{range:?}: {error}"));
    }
}

/// A registry that needs a moment before it finds what it has gets it once.
#[test]
fn a_registry_may_need_a_moment() {
    let taken: Mutex<Option<Instant>> = Mutex::new(None);
    let server = Scripted::start(move |asked| match asked.method.as_str() {
        "HEAD" if taken.lock().unwrap().is_some_and(|at| at.elapsed() > Duration::from_millis(200)) => whole(),
        "HEAD" => none(),
        "POST" => (202, OPENED.to_owned()),
        _ => {
            taken.lock().unwrap().get_or_insert_with(Instant::now);
            (201, String::new())
        }
    });
    push(&server).unwrap();
    assert_eq!(server.received(), SIZE);
}

/// A registry that lets nobody ask for blobs takes them all the same, also after a failure.
#[test]
fn a_registry_may_refuse_questions() {
    let puts = AtomicU64::new(0);
    let server = Scripted::start(move |asked: &Asked| match asked.method.as_str() {
        "HEAD" => (403, String::new()),
        "GET" => none(),
        "POST" => (202, OPENED.to_owned()),
        _ if puts.fetch_add(1, Ordering::SeqCst) == 0 => (503, String::new()),
        _ => (201, String::new()),
    });
    push(&server).unwrap();
}

/// A mount that did not happen is no mount: the blob is sent.
#[test]
fn a_mount_that_lies_is_found_out() {
    for sparse in [false, true] {
        let pushing = Pushing::start();
        let store = pushing.image.store().clone();
        store.tag(&pushing.served.registry.reference("base:1").unwrap(), pushing.image.root()).unwrap();
        if sparse {
            pushing.served.registry.allow_sparse_manifests();
        }
        pushing.served.registry.fault(Fault::on("mount=").status(201));
        let pushed = client().push(&pushing.image).to(&pushing.there).unwrap();
        assert_eq!((pushed.sent.blobs, pushed.mounted.blobs), (3, 0));
        pushing.assert_pushed();
    }
}

/// A registry that says to have mounted a blob, and lets nobody look, gets it: else the image might lack it. One
/// without HEAD says 501.
#[test]
fn a_mount_that_cannot_be_checked_is_no_mount() {
    for status in [403, 405, 501] {
        let pushing = Pushing::start();
        let store = pushing.image.store().clone();
        store.tag(&pushing.served.registry.reference("base:1").unwrap(), pushing.image.root()).unwrap();
        pushing.served.registry.fault(Fault::on("mount=").status(201));
        pushing.served.registry.fault(Fault::on("").method("HEAD").status(status));
        let pushed = client().push(&pushing.image).to(&pushing.there).unwrap();
        assert_eq!((pushed.sent.blobs, pushed.mounted.blobs), (3, 0), "{status}");
        pushing.assert_pushed();
    }
}

/// A registry that said to have what it lacks gets it when it refuses the manifest.
#[test]
fn a_head_that_lies_is_found_out() {
    let pushing = Pushing::start();
    let layer = &pushing.image.manifest().layers()[0];
    let length = layer.size.to_string();
    let lie = Fault::on(format!("/blobs/{}", layer.digest)).method("HEAD").times(1).status(200);
    pushing.served.registry.fault(lie.header("content-length", &length));
    let pushed = client().push(&pushing.image).jobs(1).to(&pushing.there).unwrap();
    assert_eq!((pushed.sent.blobs, pushed.reused.blobs), (3, 0), "each is counted once");
    pushing.assert_pushed();
}

/// A registry that refuses questions about manifests takes an index all the same.
#[test]
fn an_index_goes_where_questions_are_refused() {
    let served = Served::start();
    let store = served.scratch.store("store");
    let here = name("example.com/demo:1");
    Fixture::demo().tag(&store, &here).unwrap();
    served.registry.fault(Fault::on("/manifests/").method("HEAD").status(405));
    let client = client();
    copy((&store, &here)).to((&client, &served.registry.reference("demo:1").unwrap())).unwrap();
}

/// P3: a digest that is a layer in one place and a manifest in another is both: nothing that it leads to is left out.
#[test]
fn a_blob_may_be_a_manifest_too() {
    let scratch = crate::support::Scratch::new();
    let (from, to) = (scratch.store("from"), scratch.store("to"));
    let inner = two_layers().write(&from).unwrap();
    let config = from.write(MediaType::OCI_EMPTY, b"{}").unwrap();
    let as_layer = Descriptor::new(MediaType::OCTET_STREAM, inner.digest, inner.size);
    let outer = serde_json::json!({
        "schemaVersion": 2, "mediaType": MediaType::OCI_MANIFEST, "config": config, "layers": [as_layer],
    });
    let outer = from.write(MediaType::OCI_MANIFEST, outer.to_string().as_bytes()).unwrap();
    let index = serde_json::json!({
        "schemaVersion": 2, "mediaType": MediaType::OCI_INDEX, "manifests": [outer, inner],
    });
    let index = from.write(MediaType::OCI_INDEX, index.to_string().as_bytes()).unwrap();
    let name = name("example.com/odd:1");
    from.tag(&name, &index).unwrap();
    copy((&from, &name)).to((&to, &name)).unwrap();
    assert!(to.image_at(&inner).unwrap().is_complete().unwrap());
}

/// P11: two copies in opposite directions over one connection each do not wait for each other.
#[test]
fn copies_in_both_directions_do_not_wait_for_each_other() {
    let servers = [0, 1].map(|_| Served::with(&two_layers()).0);
    let one = || Host::new().connections(1);
    for served in &servers {
        served.registry.fault(Fault::on("/blobs/").delay(Duration::from_millis(20)));
        served.registry.without_mounts();
    }
    let hosts = servers.iter().fold(quick(), |builder, served| builder.host(&served.registry.host(), one()));
    let client = hosts.build().unwrap();
    let (send, receive) = mpsc::channel();
    for n in 0..2 {
        let from = servers[n].registry.reference("app:1").unwrap();
        let to = servers[1 - n].registry.reference("copy:1").unwrap();
        let (client, send) = (client.clone(), send.clone());
        std::thread::spawn(move || send.send(client.copy(&from).to(&to).map(drop)).unwrap());
    }
    for _ in 0..2 {
        receive.recv_timeout(Duration::from_secs(60)).expect("nobody waits for ever").unwrap();
    }
}

/// P11: a blob that is read on another thread than the one that opened it keeps nobody waiting.
#[test]
fn a_blob_may_move_to_another_thread() {
    let (served, image) = Served::with(&two_layers());
    let registry = quick().host(image.host(), Host::new().connections(1)).build().unwrap();
    let repository = registry.repository(&image).unwrap();
    let layer = served.store.image(name("example.com/app:1")).unwrap().manifest().layers()[0].clone();
    let mut blob = repository.blob(&layer);
    blob.read_exact(&mut [0; 1]).unwrap();
    let (send, receive) = mpsc::channel();
    std::thread::spawn(move || {
        blob.read_exact(&mut [0; 1]).unwrap();
        send.send(repository.tags().count()).unwrap();
        drop(blob);
    });
    assert_eq!(receive.recv_timeout(Duration::from_secs(30)).expect("it does not wait for itself"), 1);
}

/// Passwords that change are asked for again, once, when the old one is refused.
#[test]
fn a_password_may_change() {
    let pushing = Pushing::start();
    let password = std::sync::Arc::new(Mutex::new("old"));
    pushing.served.registry.require_login("alice", "old");
    let source = {
        let password = std::sync::Arc::clone(&password);
        move |_: &str, _: &str| Ok(Some(Credentials::new("alice", *password.lock().unwrap())))
    };
    let alice = quick().credentials(source).build().unwrap();
    alice.push(&pushing.image).to(&pushing.there).unwrap();
    pushing.served.registry.require_login("alice", "new");
    *password.lock().unwrap() = "new";
    alice.push(&pushing.image).to(&pushing.served.registry.reference("app:2").unwrap()).unwrap();
}

/// P10: what is set for one host is not sent there on another's behalf, by redirects or by the locations of uploads.
#[test]
fn nobody_else_speaks_in_our_name() {
    let pushing = Pushing::start();
    let (other, _) = Served::with(&two_layers());
    let secret = || Host::new().header("x-api-key", "secret");
    let registry = quick().host(&other.registry.host(), secret()).build().unwrap();
    let elsewhere = format!("http://{}/v2/app/manifests/sha256:{}?x", other.registry.host(), "0".repeat(64));
    pushing.served.registry.fault(Fault::on("/blobs/uploads/").method("POST").header("location", &elsewhere));
    assert!(registry.push(&pushing.image).jobs(1).to(&pushing.there).is_err());
    pushing.served.registry.clear_faults();
    pushing.served.registry.fault(Fault::on("/manifests/").redirect(&elsewhere));
    assert!(registry.pull(&pushing.there).to(&pushing.served.scratch.store("pulled")).is_err());
    let requests = other.registry.requests();
    assert!(requests.len() >= 2, "{requests:?}");
    assert!(requests.iter().all(|request| request.header("x-api-key").is_none() && request.method != "DELETE"));
    other.registry.clear_requests();
    registry.ping(&other.registry.host()).unwrap();
    assert_eq!(other.registry.requests()[0].header("x-api-key"), Some("secret"));
}
