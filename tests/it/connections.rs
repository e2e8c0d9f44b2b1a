//! How many connections are made: what was said on one is read to its end, and the next request goes the same way.

use std::collections::HashSet;
use std::time::Duration;

use layercake::PullPolicy;
use layercake::testing;
use layercake::testing::Fault;
use layercake::testing::Fixture;

use crate::push::Pushing;
use crate::support::Served;
use crate::support::assert_same_blobs;
use crate::support::client;
use crate::support::name;
use crate::support::platform;
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
