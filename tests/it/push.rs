//! Pushing: what the protocol wants, and what registries do with it.

mod chaos;
mod faults;
mod oddities;

use std::sync::Mutex;
use std::time::Duration;

use layercake::Descriptor;
use layercake::Digest;
use layercake::ErrorKind;
use layercake::Event;
use layercake::Image;
use layercake::ImageReference;
use layercake::MediaType;
use layercake::Registry;
use layercake::manifest::Root;
use layercake::registry::Login;
use layercake::registry::Repository;
use layercake::testing::Fault;
use layercake::testing::Fixture;
use layercake::transfer::copy;

use crate::assert_kind;
use crate::support::Served;
use crate::support::client;
use crate::support::failure;
use crate::support::name;
use crate::support::platform;
use crate::support::quick;
use crate::support::two_layers;

/// An empty registry, and an image in a store beside it.
pub struct Pushing {
    pub served: Served,
    pub image: Image,
    pub there: ImageReference,
}

impl Pushing {
    #[track_caller]
    pub fn of(fixture: &Fixture) -> Pushing {
        let served = Served::start();
        let source = served.scratch.store("source");
        let image = fixture.write(&source).and_then(|root| source.image_at(&root)).unwrap();
        let there = served.registry.reference("app:1").unwrap();
        Pushing { served, image, there }
    }

    #[track_caller]
    pub fn start() -> Pushing {
        Pushing::of(&two_layers())
    }

    pub fn repository(&self) -> Repository {
        client().repository(&self.there).unwrap()
    }

    /// The registry has the whole image, and others get it byte for byte.
    #[track_caller]
    pub fn assert_pushed(&self) {
        let store = self.served.scratch.store(&format!("check-{:016x}", fastrand::u64(..)));
        let pulled = client().pull(&self.there).to(&store).unwrap();
        assert_eq!(pulled.image.manifest().raw(), self.image.manifest().raw());
        assert!(pulled.image.is_complete().unwrap());
        store.image(&self.there).unwrap().layers().unwrap().iter().for_each(|layer| {
            std::io::copy(&mut layer.uncompressed().unwrap(), &mut std::io::sink()).unwrap();
        });
    }

    /// Nobody can see anything under the name.
    #[track_caller]
    pub fn assert_nothing_named(&self) {
        assert!(failure(self.repository().fetch(&self.there.identifier())).is_not_found());
    }
}

/// D12, D18, D19: blobs before the manifest, by the locations that the registry gives, the manifest's own bytes and
/// type.
#[test]
fn a_push_says_what_the_protocol_wants() {
    let pushing = Pushing::start();
    pushing.served.registry.stateful_locations();
    let pushed = client().push(&pushing.image).to(&pushing.there).unwrap();
    assert_eq!((pushed.sent.blobs, pushed.reused.blobs, pushed.mounted.blobs), (3, 0, 0));
    let requests = pushing.served.registry.requests();
    let manifest = requests.iter().position(|request| request.path == "/v2/app/manifests/1").unwrap();
    assert_eq!(requests[manifest].method, "PUT");
    assert_eq!(requests[manifest].header("content-type"), Some(MediaType::OCI_MANIFEST.as_str()));
    let blobs: Vec<_> = requests.iter().filter(|r| r.method == "PUT" && r.path.contains("/blobs/uploads/")).collect();
    assert_eq!(blobs.len(), 3);
    for blob in &blobs {
        assert_eq!(blob.header("content-type"), Some("application/octet-stream"));
        assert_eq!(blob.header("content-length").unwrap(), blob.body_length.to_string());
        assert!(blob.parameter("digest").is_some(), "{}", blob.path);
    }
    let posts: Vec<_> = requests.iter().filter(|request| request.method == "POST").collect();
    assert!(posts.iter().all(|post| post.header("content-length") == Some("0")));
    assert!(requests[manifest..].iter().all(|request| !request.path.contains("/blobs/")));
    pushing.assert_pushed();
}

/// What is there is not sent again, and the name may move.
#[test]
fn what_is_there_is_not_sent_again() {
    let pushing = Pushing::start();
    client().push(&pushing.image).to(&pushing.there).unwrap();
    pushing.served.registry.clear_requests();
    let again = client().push(&pushing.image).to(&pushing.served.registry.reference("app:2").unwrap()).unwrap();
    assert_eq!((again.sent.blobs, again.reused.blobs), (0, 3));
    assert_eq!((pushing.served.count("POST", ""), pushing.served.count("PATCH", "")), (0, 0));
    assert_eq!(pushing.repository().tags().collect::<Result<Vec<_>, _>>().unwrap(), ["1", "2"]);
}

/// A name that means what it should already costs questions only; one that was moved meanwhile is moved back.
#[test]
fn a_name_that_is_right_is_not_put_again() {
    let pushing = Pushing::start();
    client().push(&pushing.image).to(&pushing.there).unwrap();
    pushing.served.registry.clear_requests();
    client().push(&pushing.image).to(&pushing.there).unwrap();
    assert!(pushing.served.registry.requests().iter().all(|request| request.method == "HEAD"));

    let other = Pushing::of(&Fixture::demo());
    client().push(&other.image).to(&pushing.there).unwrap();
    client().push(&pushing.image).to(&pushing.there).unwrap();
    pushing.assert_pushed();
    pushing.served.registry.clear_requests();
    pushing.served.registry.fault(Fault::on("/manifests/").method("HEAD").status(405));
    client().push(&pushing.image).to(&pushing.there).unwrap();
    assert_eq!(pushing.served.count("PUT", "/manifests/1"), 1, "where nobody may ask it is put");
}

/// D12: locations of all forms.
#[test]
fn locations_may_be_absolute() {
    let pushing = Pushing::start();
    pushing.served.registry.absolute_locations();
    client().push(&pushing.image).to(&pushing.there).unwrap();
    pushing.assert_pushed();
}

/// D14: a registry that takes no more than so much gets chunks, each in its place.
#[test]
fn what_is_too_much_at_once_goes_in_chunks() {
    let mut noise = vec![0; 1 << 20];
    fastrand::Rng::with_seed(3).fill(&mut noise);
    let pushing = Pushing::of(&Fixture::new(platform("linux/amd64")).layer(&[("noise", &noise)]));
    pushing.served.registry.largest_body(200_000);
    pushing.served.registry.smallest_chunk(70_000);
    client().push(&pushing.image).to(&pushing.there).unwrap();
    let requests = pushing.served.registry.requests();
    let chunks: Vec<_> =
        requests.iter().filter(|request| request.method == "PATCH" && request.body_length > 0).collect();
    let taken: Vec<_> = chunks.iter().filter(|chunk| chunk.body_length <= 200_000).collect();
    let mut end = 0;
    for chunk in &taken {
        let (start, last) = chunk.header("content-range").unwrap().split_once('-').unwrap();
        assert_eq!(start.parse::<u64>().unwrap(), end, "in order, without gaps");
        end = last.parse::<u64>().unwrap() + 1;
        assert_eq!(end - start.parse::<u64>().unwrap(), chunk.body_length);
    }
    assert!(taken.len() >= 6, "{} chunks", taken.len());
    assert!(taken[..taken.len() - 1].iter().all(|chunk| chunk.body_length >= 70_000));
    pushing.assert_pushed();
}

/// D17, A4: blobs of a repository beside are mounted, with a token for both; where that is refused, they are sent.
#[test]
fn blobs_are_mounted_from_beside() {
    let mut tokens_for_both = 0;
    for with in [
        |_: &Served| {},
        |served: &Served| served.registry.without_mounts(),
        |served: &Served| {
            served.registry.fault(Fault::on("?mount=").status(400));
        },
        |served: &Served| served.registry.fault(Fault::on("?mount=").status(403)),
    ] {
        let pushing = Pushing::start();
        pushing.served.registry.require_tokens(Duration::from_secs(300));
        let client = client();
        client.push(&pushing.image).to(&pushing.there).unwrap();
        with(&pushing.served);
        pushing.served.registry.clear_requests();
        let there = pushing.served.registry.reference("team/copy:1").unwrap();
        let copied = client.copy(&pushing.there).to(&there).unwrap();
        assert_eq!(copied.mounted.blobs + copied.sent.blobs, 3);
        let mounts = pushing.served.count("POST", "?mount=");
        assert!(mounts >= 3, "{mounts}");
        let requests = pushing.served.registry.requests();
        let token = requests
            .iter()
            .find(|request| request.path.contains("repository:app:pull") && request.path.contains("push"));
        // A registry that refuses before it has seen a token gets none for both.
        if let Some(token) = token {
            let path = &token.path;
            assert!(path.ends_with("&scope=repository:team/copy:pull,push&scope=repository:app:pull"), "{path}");
            tokens_for_both += 1;
        }
        client.pull(&there).to(&pushing.served.scratch.store("target")).unwrap();
    }
    assert_eq!(tokens_for_both, 2);
}

/// D17: of an image in a store, the names that the store has of the same host say where its blobs may be.
#[test]
fn names_in_the_store_say_what_may_be_mounted() {
    let pushing = Pushing::start();
    client().push(&pushing.image).to(&pushing.there).unwrap();
    let store = pushing.image.store().clone();
    store.tag(&pushing.there, pushing.image.root()).unwrap();
    let events = Mutex::new(Vec::new());
    let observer = |event: &Event<'_>| {
        if let Event::Mounted { from, .. } = event {
            events.lock().unwrap().push((*from).to_owned());
        }
    };
    let there = pushing.served.registry.reference("other:1").unwrap();
    let pushed = client().push(&pushing.image).observer(&observer).to(&there).unwrap();
    assert_eq!((pushed.mounted.blobs, pushed.sent.blobs), (3, 0));
    assert_eq!(*events.lock().unwrap(), ["app"; 3]);
}

/// D13: a registry may open a session where a blob was to be mounted.
#[test]
fn a_session_that_a_mount_opens_is_used() {
    let pushing = Pushing::start();
    let client = client();
    client.push(&pushing.image).to(&pushing.there).unwrap();
    pushing.served.registry.without_mounts();
    pushing.served.registry.clear_requests();
    let copied = client.copy(&pushing.there).to(&pushing.served.registry.reference("b:1").unwrap()).unwrap();
    assert_eq!(copied.sent.blobs, 3);
    assert_eq!(pushing.served.count("POST", "/blobs/uploads/"), 3, "no other session was opened");
}

/// D15: the registry is told in which algorithm a blob's digest is.
#[test]
fn sha512_is_said_beforehand() {
    let pushing = Pushing::start();
    let content = b"sha512".to_vec();
    let digest = Digest::of(layercake::Algorithm::Sha512, &content);
    let blob = Descriptor::new(MediaType::OCTET_STREAM, digest, content.len() as u64);
    let source = move |offset: u64| -> layercake::Result<Box<dyn std::io::Read>> {
        Ok(Box::new(std::io::Cursor::new(content[usize::try_from(offset).unwrap()..].to_vec())))
    };
    pushing.repository().push_blob(&blob, &source).unwrap();
    assert_eq!(pushing.served.count("POST", "?digest-algorithm=sha512"), 1);
    assert!(pushing.repository().has_blob(&blob).unwrap());
}

/// Case 207, D18: pushed bytes are the pulled ones: white space, unknown fields, order, numbers.
#[test]
fn documents_are_pushed_byte_for_byte() {
    let pushing = Pushing::start();
    client().push(&pushing.image).to(&pushing.there).unwrap();
    let text = String::from_utf8(pushing.image.manifest().raw().to_vec()).unwrap();
    let strange = text.replacen('{', "{ \n \"zz\" : 1e0 ,\t\"x\":{\"b\":1,\"a\":[]},", 1);
    let root = Root::parse(strange.clone().into_bytes(), None).unwrap();
    let tag = pushing.there.with_tag("strange").unwrap().identifier();
    pushing.repository().push_manifest(&root, &tag).unwrap();
    let back = pushing.repository().fetch(&tag).unwrap();
    assert_eq!(String::from_utf8(back.raw().to_vec()).unwrap(), strange);
}

/// D20: several tags in one request, and one by one where the registry does not say that it made them.
#[test]
fn several_tags_are_put_at_once() {
    for together in [true, false] {
        let pushing = Pushing::start();
        client().push(&pushing.image).to(&pushing.there).unwrap();
        if !together {
            pushing.served.registry.fault(Fault::on("?tag=").without_header("oci-tag"));
        }
        pushing.served.registry.clear_requests();
        let root = Root::Manifest(pushing.image.manifest().clone());
        pushing.repository().push_tags(&root, &["a", "b", "c"]).unwrap();
        assert_eq!(pushing.served.count("PUT", "/manifests/"), if together { 1 } else { 4 });
        assert_eq!(pushing.repository().tags().collect::<Result<Vec<_>, _>>().unwrap(), ["1", "a", "b", "c"]);
    }
}

/// D19: an index goes after its images, whole.
#[test]
fn an_index_is_pushed_after_its_images() {
    let served = Served::start();
    let source = served.scratch.store("source");
    let here = name("example.com/demo:1");
    Fixture::demo().tag(&source, &here).unwrap();
    let there = served.registry.reference("demo:1").unwrap();
    let client = client();
    let pushed = copy((&source, &here)).to((&client, &there)).unwrap();
    let requests = served.registry.requests();
    let puts: Vec<&str> = requests
        .iter()
        .filter(|r| r.method == "PUT" && r.path.contains("/manifests/"))
        .map(|r| r.path.as_str())
        .collect();
    assert_eq!(puts.len(), 3);
    assert!(puts[..2].iter().all(|path| path.contains("/manifests/sha256:")) && puts[2] == "/v2/demo/manifests/1");
    for text in ["linux/amd64", "linux/arm64"] {
        let store = served.scratch.store(&text.replace('/', "-"));
        let pulled = client.pull(&there).platform(platform(text)).to(&store).unwrap();
        assert_eq!(pulled.root.digest, pushed.root.digest);
    }
}

/// A name with a digest is put only for that digest, and a name without tag is `latest`.
#[test]
fn a_name_gets_what_it_says() {
    let pushing = Pushing::start();
    let right = pushing.there.without_tag().with_digest(pushing.image.digest());
    client().push(&pushing.image).to(&right).unwrap();
    client().repository(&right).unwrap().fetch(&right.identifier()).unwrap();
    let wrong = pushing.there.with_digest(Digest::sha256(b"other"));
    assert_kind!(failure(client().push(&pushing.image).to(&wrong)), ErrorKind::InvalidInput(_));
    client().push(&pushing.image).to(&pushing.served.registry.reference("app").unwrap()).unwrap();
    assert_eq!(pushing.repository().tags().collect::<Result<Vec<_>, _>>().unwrap(), ["latest"]);
}

/// I11: what must not be given to everyone is not sent, and the image is pushed all the same.
#[test]
fn layers_that_are_not_for_everyone_stay() {
    let pushing = Pushing::start();
    let store = pushing.image.store().clone();
    let text = String::from_utf8(pushing.image.manifest().raw().to_vec()).unwrap();
    let foreign = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip";
    let text = text.replacen(pushing.image.manifest().layers()[0].media_type.as_str(), foreign, 1);
    let root = store.write(MediaType::OCI_MANIFEST, text.as_bytes()).unwrap();
    let image = store.image_at(&root).unwrap();
    let pushed = client().push(&image).to(&pushing.there).unwrap();
    assert_eq!(pushed.sent.blobs, 2);
    assert!(!pushing.repository().has_blob(&image.manifest().layers()[0]).unwrap());
}

/// Events tell how far it is, in each blob's order.
#[test]
fn events_of_a_push_come_in_order() {
    let pushing = Pushing::start();
    let events = Mutex::new(Vec::new());
    let observer = |event: &Event<'_>| {
        let told = match event {
            Event::Started { blob, .. } => (blob.digest, "started"),
            Event::Finished { blob } => (blob.digest, "finished"),
            Event::Progress { blob, bytes } if *bytes == blob.size => (blob.digest, "all sent"),
            _ => return,
        };
        events.lock().unwrap().push(told);
    };
    client().push(&pushing.image).observer(&observer).to(&pushing.there).unwrap();
    let events = events.into_inner().unwrap();
    for layer in pushing.image.manifest().layers() {
        let told: Vec<&str> =
            events.iter().filter(|(digest, _)| *digest == layer.digest).map(|(_, told)| *told).collect();
        assert_eq!(told, ["started", "all sent", "finished"]);
    }
}

/// A5, A2: a password, and a token that is asked for with the right to push.
#[test]
fn a_push_logs_in() {
    let pushing = Pushing::start();
    pushing.served.registry.require_login("alice", "secret");
    assert_kind!(failure(client().push(&pushing.image).to(&pushing.there)), ErrorKind::Registry(refusal) if refusal.status == 401);
    let alice = |served: &Served| -> Registry {
        quick().credentials(Login::new(&served.registry.host(), "alice", "secret")).build().unwrap()
    };
    alice(&pushing.served).push(&pushing.image).to(&pushing.there).unwrap();
    pushing.served.registry.require_tokens(Duration::from_secs(300));
    pushing.served.registry.clear_requests();
    alice(&pushing.served).push(&pushing.image).to(&pushing.served.registry.reference("b:1").unwrap()).unwrap();
    let requests = pushing.served.registry.requests();
    let tokens: Vec<&str> = requests
        .iter()
        .filter(|request| request.path.starts_with("/token"))
        .map(|request| request.path.as_str())
        .collect();
    assert_eq!(tokens, ["/token?service=layercake&scope=repository:b:pull,push"], "one token does for all of it");
}

/// An index that is there already is pushed again, as often as anybody likes.
#[test]
fn an_index_may_be_pushed_again() {
    let (served, there) = Served::with(&Fixture::demo());
    let store = served.scratch.store("store");
    let client = client();
    copy((&client, &there)).to((&store, &there)).unwrap();
    for _ in 0..2 {
        let pushed = copy((&store, &there)).to((&client, &there)).unwrap();
        assert_eq!((pushed.sent.blobs, pushed.mounted.blobs), (0, 0));
    }
}
