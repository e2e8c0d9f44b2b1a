//! How many connections are made: what was said on one is read to its end, and the next request goes the same way.

use std::collections::HashSet;
use std::io::Write;
use std::sync::Mutex;
use std::sync::OnceLock;
use std::time::Duration;
use std::time::Instant;

use layercake::Cancel;
use layercake::Descriptor;
use layercake::ErrorKind;
use layercake::Event;
use layercake::PullPolicy;
use layercake::Registry;
use layercake::registry::Never;
use layercake::testing;
use layercake::testing::Fault;
use layercake::testing::Fixture;

use crate::assert_kind;
use crate::push::Pushing;
use crate::support::Served;
use crate::support::assert_same_blobs;
use crate::support::blob_path;
use crate::support::client;
use crate::support::failure;
use crate::support::name;
use crate::support::platform;
use crate::support::scripted::Scripted;
use crate::support::two_layers;

/// So many layers, each of its own content, of a few bytes and of many.
fn many_layers(count: usize) -> Fixture {
    let bare = Fixture::new(platform("linux/amd64"));
    (0..count).fold(bare, |fixture, n| fixture.layer(&[(&format!("file-{n}"), &vec![n as u8; n * 40_000])]))
}

fn connections(registry: &testing::Registry) -> usize {
    registry.requests().iter().map(|request| request.connection).collect::<HashSet<_>>().len()
}

/// A connection serves one layer after the other; so does that to a storage service to which the registry redirects,
/// with a text for those who cannot follow.
#[test]
fn one_job_has_one_connection() {
    let (served, image) = Served::with(&many_layers(8));
    served.registry.require_tokens(Duration::from_secs(300));
    let store = served.scratch.store("store");
    client().pull(&image).jobs(1).to(&store).unwrap();
    assert!(served.registry.requests().len() > 10, "documents, a token, and layers");
    assert_eq!(connections(&served.registry), 1);
}

/// The same where a storage service has the layers.
#[test]
fn redirects_keep_both_connections() {
    let (served, image) = Served::with(&many_layers(8));
    let storage = testing::Registry::start_at(&served.store, ([127, 0, 0, 2], 0).into()).unwrap();
    let stored = served.store.image(name("example.com/app:1")).unwrap();
    for layer in stored.manifest().layers() {
        let there = format!("http://{}/v2/app/blobs/{}", storage.host(), layer.digest);
        let body = format!("<a href=\"{there}\">Temporary Redirect</a>.\n");
        served.registry.fault(Fault::on(layer.digest.to_string()).redirect(&there).body(body));
    }
    let store = served.scratch.store("store");
    let pulled = client().pull(&image).jobs(1).to(&store).unwrap();
    assert_same_blobs(&served.store, &store, &pulled.image);
    assert_eq!((connections(&served.registry), connections(&storage)), (1, 1));
    assert_eq!(storage.requests().len(), 8);
}

/// Many jobs have a connection each, however many layers there are; and each pull after that has the same ones.
#[test]
fn jobs_share_connections() {
    let (served, image) = Served::with(&many_layers(20));
    let client = client();
    client.pull(&image).jobs(3).to(&served.scratch.store("store")).unwrap();
    let first = connections(&served.registry);
    assert!((1..=3).contains(&first), "{first}");
    client.pull(&image).jobs(3).to(&served.scratch.store("another")).unwrap();
    assert!(connections(&served.registry) <= 3);
}

/// Uploads, and what is asked around them.
#[test]
fn a_push_has_one_connection() {
    let pushing = Pushing::of(&many_layers(8));
    pushing.served.registry.require_login("alice", "secret");
    let login = layercake::registry::Login::new(pushing.there.host(), "alice", "secret");
    let client = crate::support::quick().credentials(login).build().unwrap();
    client.push(&pushing.image).jobs(1).to(&pushing.there).unwrap();
    assert!(pushing.served.registry.requests().len() > 20);
    assert_eq!(connections(&pushing.served.registry), 1);
}

/// What nobody wants to read is not waited for: an answer that says that much is to come loses its connection instead.
#[test]
fn large_refusals_are_not_read() {
    let (served, image) = Served::with(&two_layers());
    let there = format!("http://{}/v2/app/blobs", served.registry.host());
    let stored = served.store.image(name("example.com/app:1")).unwrap();
    let layer = stored.manifest().layers()[0].digest;
    let endless = Fault::on(format!("{layer}")).times(1).redirect(&format!("{there}/{layer}"));
    served.registry.fault(endless.body(vec![b' '; 100_000]).stall(10, Duration::from_secs(600)));
    let pulled = client().pull(&image).policy(PullPolicy::Always).jobs(1).to(&served.scratch.store("store")).unwrap();
    assert_eq!(pulled.image.manifest().layers().len(), 2);
    assert_eq!(connections(&served.registry), 2);
}

/// A connection that breaks is the only one that is made anew.
#[test]
fn what_broke_is_connected_anew() {
    let (served, image) = Served::with(&two_layers());
    served.registry.fault(Fault::on("/blobs/").after(1).times(1).truncate(70_000));
    client().pull(&image).jobs(1).to(&served.scratch.store("store")).unwrap();
    assert_eq!(connections(&served.registry), 2);
}

/// The largest layer of what is served, and its bytes.
fn layer(served: &Served) -> (Descriptor, Vec<u8>) {
    let layer = served.store.image(name("example.com/app:1")).unwrap().manifest().layers()[0].clone();
    let content = std::fs::read(blob_path(&served.store, &layer)).unwrap();
    (layer, content)
}

/// Whoever stops a pull does not wait for the last bytes, however slowly they drip.
#[test]
fn what_drips_is_not_waited_for() {
    const LAST: usize = 4000;
    let (served, image) = Served::with(&two_layers());
    let (layer, content) = layer(&served);
    let arrived = (content.len() - LAST) as u64;
    let storage = Scripted::speaking(move |_, mut connection| {
        write!(connection, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", content.len())?;
        let (most, last) = content.split_at(content.len() - LAST);
        connection.write_all(most)?;
        last.iter().try_for_each(|byte| {
            std::thread::sleep(Duration::from_millis(20));
            connection.write_all(&[*byte])
        })
    });
    served.registry.fault(Fault::on(layer.digest.to_string()).redirect(&format!("http://{}/layer", storage.host)));
    let (cancel, cancelled) = (Cancel::new(), OnceLock::new());
    let observer = |event: &Event<'_>| {
        if matches!(event, Event::Progress { blob, bytes } if blob.digest == layer.digest && *bytes > arrived) {
            cancelled.get_or_init(Instant::now);
            cancel.cancel();
        }
    };
    let store = served.scratch.store("store");
    let error = failure(client().pull(&image).jobs(1).observer(&observer).cancel(&cancel).to(&store));
    assert_kind!(error, ErrorKind::Cancelled);
    let waited = cancelled.get().expect("some of the last bytes arrived").elapsed();
    assert!(waited < Duration::from_secs(10), "{waited:?}");
}

/// RFC 9112, section 9.3.1: a server may close a connection that was kept, also while the next request is on its way.
/// Whoever asks sees nothing of it, and needs no patience.
#[test]
fn a_kept_connection_may_be_gone() {
    let (served, _) = Served::with(&two_layers());
    let files = served.store.path().join("blobs/sha256");
    let root = served.store.image(name("example.com/app:1")).unwrap().descriptor();
    let answered = Mutex::new(HashSet::new());
    let server = Scripted::speaking(move |asked, mut connection| {
        if !answered.lock().unwrap().insert(connection.peer_addr()?) {
            return Err(std::io::ErrorKind::ConnectionAborted.into());
        }
        let digest = asked.path.split_once("sha256:").map_or(root.digest.hex().to_string(), |(_, hex)| hex.to_owned());
        let content = std::fs::read(files.join(digest))?;
        write!(connection, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n", content.len())?;
        write!(connection, "content-type: {}\r\n\r\n", root.media_type)?;
        connection.write_all(if asked.method == "HEAD" { b"" } else { &content })
    });
    let image = name(&format!("{}/app:1", server.host));
    let client = Registry::builder().retry(Never).build().unwrap();
    let store = served.scratch.store("store");
    let pulled = client.pull(&image).jobs(1).to(&store).unwrap();
    assert_same_blobs(&served.store, &store, &pulled.image);
    client.ping(image.host()).unwrap();
    assert_eq!(server.count("HEAD"), 1, "a connection that is new is not tried twice");
}

/// RFC 9112, section 6.3: what comes in chunks is as long as they are, whatever else the answer says.
#[test]
fn chunks_go_before_a_length() {
    let (served, image) = Served::with(&two_layers());
    let (layer, content) = layer(&served);
    let storage = Scripted::speaking(move |_, mut connection| {
        write!(connection, "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n")?;
        write!(connection, "{:x}\r\n", content.len())?;
        connection.write_all(&content)?;
        connection.write_all(b"\r\n0\r\n\r\n")
    });
    served.registry.fault(Fault::on(layer.digest.to_string()).redirect(&format!("http://{}/layer", storage.host)));
    let store = served.scratch.store("store");
    let pulled = client().pull(&image).to(&store).unwrap();
    assert_same_blobs(&served.store, &store, &pulled.image);
}
