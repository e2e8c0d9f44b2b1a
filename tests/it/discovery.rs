//! What a registry has, and taking it away.

use std::net::Ipv4Addr;
use std::time::Duration;

use layercake::Descriptor;
use layercake::Digest;
use layercake::ErrorKind;
use layercake::MediaType;
use layercake::manifest::Root;
use layercake::reference::Identifier;
use layercake::registry::Credentials;
use layercake::registry::Host;
use layercake::registry::Login;
use layercake::registry::Repository;
use layercake::testing;
use layercake::testing::Fault;
use layercake::testing::Fixture;
use layercake::testing::SearchResult;
use serde_json::json;

use crate::assert_kind;
use crate::support::Served;
use crate::support::client;
use crate::support::failure;
use crate::support::name;
use crate::support::platform;
use crate::support::quick;
use crate::support::two_layers;

const SIGNATURE: &str = "application/vnd.example.signature";
const CONTENTS: &str = "application/vnd.example.contents";

fn repository(served: &Served) -> Repository {
    client().repository(&served.registry.reference("app").unwrap()).unwrap()
}

/// A registry with `app:1` to `app:<count>`.
#[track_caller]
fn tagged(count: usize) -> Served {
    let (served, _) = Served::with(&two_layers());
    let root = served.store.resolve(name("example.com/app:1")).unwrap();
    for n in 2..=count {
        served.store.tag(&name(&format!("example.com/app:{n}")), &root).unwrap();
    }
    served
}

#[track_caller]
fn tags(served: &Served) -> Vec<String> {
    repository(served).tags().collect::<Result<_, _>>().unwrap()
}

/// D22: pages are followed by their links, though they are shorter than was asked for.
#[test]
fn tags_come_page_by_page() {
    let served = tagged(7);
    served.registry.page_size(2);
    assert_eq!(tags(&served), ["1", "2", "3", "4", "5", "6", "7"]);
    assert_eq!(served.count("GET", "/tags/list"), 4);
    served.registry.clear_requests();
    assert_eq!(repository(&served).tags().next().unwrap().unwrap(), "1");
    assert_eq!(served.count("GET", "/tags/list"), 1, "pages are fetched as they are needed");
    served.registry.fault(Fault::on("/tags/list").body(r#"{"name":"app","tags":null}"#).without_header("link"));
    assert_eq!(tags(&served), [""; 0]);
}

/// D22, P9: pages that lead in circles, to other hosts, or to rubbish.
#[test]
fn strange_pages_come_to_an_end() {
    let served = tagged(3);
    let thief = testing::Registry::start_at(&served.store, (Ipv4Addr::new(127, 0, 0, 2), 0).into()).unwrap();
    served.registry.require_login("alice", "secret");
    let alice = quick().credentials(Login::new(&served.registry.host(), "alice", "secret")).build().unwrap();
    let app = alice.repository(&served.registry.reference("app").unwrap()).unwrap();
    let link = |target: &str| Fault::on("/tags/list").header("link", &format!("<{target}>; rel=\"next\""));
    let last = |served: &Served, fault: Fault| {
        served.registry.clear_faults();
        served.registry.fault(fault);
        failure(app.tags().last().unwrap())
    };
    assert_kind!(last(&served, link("/v2/app/tags/list?n=1000")), ErrorKind::Protocol { .. });
    assert_kind!(last(&served, link(&format!("http://{}/v2/app/tags/list", thief.host()))), ErrorKind::Protocol { .. });
    assert!(thief.requests().is_empty());
    assert_kind!(last(&served, link("ftp://x/")), ErrorKind::Protocol { .. });
    for body in [
        "",
        "[]x",
        r#"{"tags":7}"#,
        r#"{"tags":["a b"]}"#,
        r#"{"tags":["\u001b[2J"]}"#,
        r#"{"tags":["../x"]}"#,
        r#"{"tags":["a:b"]}"#,
    ] {
        assert_kind!(last(&served, Fault::on("/tags/list").body(body)), ErrorKind::InvalidDocument { .. });
    }
    assert_kind!(last(&served, Fault::on("/tags/list").body(vec![b' '; 9 << 20])), ErrorKind::LimitExceeded { .. });
    assert!(last(&served, Fault::on("/tags/list").status(404)).is_not_found());
    let mut listed = app.tags();
    served.registry.clear_faults();
    served.registry.fault(Fault::on("/tags/list").status(404));
    assert!(listed.next().unwrap().is_err() && listed.next().is_none(), "after an error there is nothing");
}

/// The catalog, with a token for it.
#[test]
fn repositories_come_page_by_page() {
    let served = tagged(1);
    let root = served.store.resolve(name("example.com/app:1")).unwrap();
    for other in ["zoo", "team/tool", "library/base"] {
        served.store.tag(&name(&format!("example.com/{other}:1")), &root).unwrap();
    }
    served.registry.page_size(3);
    served.registry.require_tokens(Duration::from_secs(300));
    let found: Vec<String> = client().repositories(&served.registry.host()).unwrap().collect::<Result<_, _>>().unwrap();
    assert_eq!(found, ["app", "library/base", "team/tool", "zoo"]);
    let requests = served.registry.requests();
    assert!(requests.iter().any(|request| request.path.contains("scope=registry:catalog:%2A")), "{requests:?}");
}

/// An artifact that refers to the image.
fn artifact(subject: &Descriptor, kind: &str, note: &str) -> Root {
    let empty = Digest::sha256(b"{}");
    let text = serde_json::json!({
        "schemaVersion": 2, "mediaType": MediaType::OCI_MANIFEST, "artifactType": kind,
        "config": { "mediaType": MediaType::OCI_EMPTY, "digest": empty, "size": 2 }, "layers": [],
        "subject": subject, "annotations": { "note": note, "second": "2" },
    });
    Root::parse(text.to_string().into_bytes(), None).unwrap()
}

#[track_caller]
fn refer(app: &Repository, subject: &Descriptor, kind: &str, note: &str) -> Descriptor {
    let root = artifact(subject, kind, note);
    app.push_bytes(MediaType::OCI_EMPTY, b"{}").unwrap();
    app.push_manifest(&root, &Identifier::Digest(root.descriptor().digest)).unwrap();
    root.descriptor()
}

/// D21, D23, D24, D25: lists of referrers, kept by the registry or by its clients, are the same; also where both kinds of
/// registry do not filter.
#[test]
fn referrers_are_listed_by_whoever_keeps_them() {
    for own in [true, false] {
        let (served, image) = Served::with(&two_layers());
        if !own {
            served.registry.without_referrers();
        }
        let app = repository(&served);
        let subject = app.fetch(&image.identifier()).unwrap().descriptor();
        assert_eq!(app.referrers(subject.digest, None).count(), 0);
        let first = refer(&app, &subject, SIGNATURE, "one");
        let second = refer(&app, &subject, CONTENTS, "two");
        refer(&app, &subject, CONTENTS, "two");

        let found: Vec<Descriptor> = app.referrers(subject.digest, None).collect::<Result<_, _>>().unwrap();
        let mut digests: Vec<Digest> = found.iter().map(|found| found.digest).collect();
        let mut expected = vec![first.digest, second.digest];
        digests.sort();
        expected.sort();
        assert_eq!(digests, expected, "own: {own}");
        let wanted = MediaType::from(SIGNATURE);
        let signatures: Vec<Descriptor> =
            app.referrers(subject.digest, Some(&wanted)).collect::<Result<_, _>>().unwrap();
        assert_eq!(signatures.len(), 1);
        let found = &signatures[0];
        assert_eq!((found.digest, found.artifact_type.as_ref()), (first.digest, Some(&wanted)));
        assert_eq!(found.annotations["note"], "one", "all annotations are there");
        assert_eq!(found.annotations["second"], "2");

        app.delete(&Identifier::Digest(first.digest)).unwrap();
        let left: Vec<Descriptor> = app.referrers(subject.digest, None).collect::<Result<_, _>>().unwrap();
        assert_eq!(left.iter().map(|left| left.digest).collect::<Vec<_>>(), [second.digest]);
    }
}

/// D23: registries that answer to questions about referrers with other things than 404.
#[test]
fn registries_without_referrers_say_so_in_many_ways() {
    for fault in [
        Fault::on("/referrers/").status(400),
        Fault::on("/referrers/").status(406),
        Fault::on("/referrers/").header("content-type", "text/html").body("<html>"),
    ] {
        let (served, image) = Served::with(&two_layers());
        served.registry.without_referrers();
        let app = repository(&served);
        let subject = app.fetch(&image.identifier()).unwrap().descriptor();
        let first = refer(&app, &subject, SIGNATURE, "one");
        served.registry.fault(fault);
        let found: Vec<Descriptor> = app.referrers(subject.digest, None).collect::<Result<_, _>>().unwrap();
        assert_eq!(found[0].digest, first.digest);
    }
    let (served, image) = Served::with(&two_layers());
    let app = repository(&served);
    let subject = app.fetch(&image.identifier()).unwrap().descriptor();
    served.registry.fault(Fault::on("/referrers/").status(500));
    assert_kind!(failure(app.referrers(subject.digest, None).next().unwrap()), ErrorKind::Registry(_));
}

/// D21: what stands under the tag for referrers and is no list of them is left alone, and said.
#[test]
fn a_tag_that_is_no_list_is_left_alone() {
    let (served, image) = Served::with(&two_layers());
    served.registry.without_referrers();
    let app = repository(&served);
    let root = app.fetch(&image.identifier()).unwrap();
    let subject = root.descriptor();
    let tag = image.with_tag(&format!("sha256-{}", subject.digest.hex())).unwrap();
    app.push_manifest(&root, &tag.identifier()).unwrap();
    let signature = artifact(&subject, SIGNATURE, "x");
    app.push_bytes(MediaType::OCI_EMPTY, b"{}").unwrap();
    let error = failure(app.push_manifest(&signature, &Identifier::Digest(signature.descriptor().digest)));
    assert_kind!(error, ErrorKind::InvalidDocument { .. });
    assert_eq!(app.fetch(&tag.identifier()).unwrap().descriptor().digest, subject.digest);
}

/// D25: tags, manifests and blobs are deleted, and registries that delete nothing say so.
#[test]
fn deletion_takes_away_what_it_names() {
    let served = tagged(3);
    let app = repository(&served);
    let root = app.fetch(&name("x:1").identifier()).unwrap();
    app.delete(&name("x:2").identifier()).unwrap();
    assert_eq!(tags(&served), ["1", "3"]);
    assert!(failure(app.delete(&name("x:2").identifier())).is_not_found());
    app.delete(&Identifier::Digest(root.descriptor().digest)).unwrap();
    assert!(failure(app.fetch(&name("x:1").identifier())).is_not_found());
    served.registry.without_deletes();
    for error in [failure(app.delete(&name("x:3").identifier())), failure(app.delete_blob(Digest::sha256(b"x")))] {
        assert_kind!(error, ErrorKind::Registry(refusal) if refusal.status == 405);
    }
}

/// D25: what cannot be read, for whatever reason, can be deleted; and a mirror is not asked about it.
#[test]
fn what_cannot_be_read_can_be_deleted() {
    let of = |media_type: &str, body: &str| {
        Fault::on("/manifests/").method("GET").header("content-type", media_type).body(body)
    };
    let layer = json!({ "mediaType": "a/b", "digest": Digest::sha256(b"x"), "size": 1 });
    let layered = json!({ "schemaVersion": 2, "config": layer, "layers": vec![&layer; 5000] }).to_string();
    let unreadable = [
        of("application/vnd.docker.distribution.manifest.v1+json", r#"{"schemaVersion":1,"fsLayers":[],"history":[]}"#),
        of("application/vnd.oci.artifact.manifest.v1+json", r#"{"schemaVersion":2,"blobs":[]}"#),
        of(MediaType::OCI_MANIFEST.as_str(), &layered),
        of(MediaType::OCI_MANIFEST.as_str(), &" ".repeat((8 << 20) + 1)),
        of(MediaType::OCI_MANIFEST.as_str(), "{damaged"),
        Fault::on("/manifests/").method("GET").header("docker-content-digest", "sha256:rubbish"),
    ];
    for fault in unreadable {
        let served = tagged(1);
        let mirror = testing::Registry::start(&served.store).unwrap();
        let here = served.registry.reference("app").unwrap();
        let host = Host::new().mirror(mirror.host());
        let app = quick().host(here.host(), host).build().unwrap().repository(&here).unwrap();
        let root = repository(&served).fetch(&name("x:1").identifier()).unwrap().descriptor();
        served.registry.fault(fault);
        app.delete(&Identifier::Digest(root.digest)).unwrap();
        served.registry.clear_faults();
        assert!(failure(repository(&served).fetch(&name("x:1").identifier())).is_not_found());
        assert!(mirror.requests().is_empty());
    }
}

/// A proxy may say of an answer to HEAD that it has 0 bytes: then it says no size. What is there is there.
#[test]
fn a_length_of_nothing_is_no_length() {
    let served = tagged(1);
    let app = repository(&served);
    let root = app.fetch(&name("x:1").identifier()).unwrap();
    let Root::Manifest(manifest) = &root else { panic!("it is an image") };
    served.registry.fault(Fault::on("").method("HEAD").header("content-length", "0"));
    assert_eq!(app.resolve(&name("x:1").identifier()).unwrap(), None);
    assert!(app.has_blob(manifest.config()).unwrap());
    let store = served.scratch.store("store");
    client().pull(&served.registry.reference("app:1").unwrap()).to(&store).unwrap();
    // A registry may have an empty file, too.
    served.registry.fault(Fault::on("/blobs/").method("GET").body(""));
    assert!(!app.has_blob(manifest.config()).unwrap());
}

/// Section 2.2: one HEAD request says whether there is something newer, by the digest of the index.
#[test]
fn a_check_costs_one_head_request() {
    let served = Served::start();
    let here = name("example.com/demo:1");
    Fixture::demo().tag(&served.store, &here).unwrap();
    let there = served.registry.reference("demo:1").unwrap();
    let store = served.scratch.store("store");
    let client = client();
    assert_eq!(client.check(&there, &store).unwrap().stored, None);
    let pulled = client.pull(&there).platform(platform("linux/arm64")).to(&store).unwrap();
    served.registry.clear_requests();
    let fresh = client.check(&there, &store).unwrap();
    assert!(fresh.is_up_to_date());
    assert_eq!(fresh.offered.digest, pulled.root.digest);
    let requests = served.registry.requests();
    assert_eq!(requests.iter().map(|request| request.method.as_str()).collect::<Vec<_>>(), ["HEAD"]);

    two_layers().tag(&served.store, &here).unwrap();
    let newer = client.check(&there, &store).unwrap();
    assert!(!newer.is_up_to_date());
    assert_eq!(newer.stored.unwrap().digest, pulled.root.digest);
    assert_eq!(store.resolve(&there).unwrap().digest, pulled.root.digest, "nothing is changed");
    served.registry.fault(Fault::on("/manifests/").method("HEAD").without_header("docker-content-digest"));
    assert!(!client.check(&there, &store).unwrap().is_up_to_date());
    client.pull(&there).to(&store).unwrap();
    assert!(client.check(&there, &store).unwrap().is_up_to_date());
}

/// Section 2.2: what Docker Hub says of its limit is data, and nothing is decided by it.
#[test]
fn rate_limits_are_read_from_headers() {
    let (served, image) = Served::with(&two_layers());
    let client = client();
    let app = client.repository(&image).unwrap();
    app.resolve(&image.identifier()).unwrap();
    assert_eq!(client.rate_limit(image.host()).unwrap(), None);
    served.registry.fault(
        Fault::on("/manifests/")
            .header("ratelimit-limit", "100;w=21600")
            .header("ratelimit-remaining", "0;w=21600")
            .header("docker-ratelimit-source", "192.0.2.1"),
    );
    app.resolve(&image.identifier()).unwrap();
    let rate = client.rate_limit(image.host()).unwrap().unwrap();
    assert_eq!((rate.limit, rate.remaining, rate.window), (Some(100), Some(0), Some(Duration::from_secs(21600))));
    assert_eq!(rate.source.as_deref(), Some("192.0.2.1"));
    app.fetch(&image.identifier()).unwrap();
    served.registry.fault(Fault::on("/manifests/").status(429));
    served.registry.clear_faults();
    assert!(client.rate_limit(image.host()).unwrap().is_some(), "the last word stands");
}

/// A registry that can be searched.
fn searchable() -> Served {
    let served = tagged(1);
    served.registry.offer_search(vec![
        SearchResult::new("ubuntu").description("A Debian-based\nsystem").stars(17_000).official(),
        SearchResult::new("someone/ubuntu-plus").description("more").stars(3).automated(),
        SearchResult::new("nginx").stars(20_000).official(),
    ]);
    served
}

/// X2: a source of credentials is asked for hosts in lower case, by searches too.
#[test]
fn credentials_are_asked_for_in_lower_case() {
    let served = searchable();
    let challenge = Fault::on("/v1/search").times(1).status(401).header("www-authenticate", "Basic realm=\"index\"");
    served.registry.fault(challenge);
    let port = served.registry.address().port();
    let expected = format!("localhost:{port}");
    let source = move |host: &str, _: &str| {
        assert_eq!(host, expected);
        Ok(Some(Credentials::new("alice", "secret")))
    };
    let registry = quick().credentials(source).build().unwrap();
    assert_eq!(registry.search("ubuntu").host(&format!("LocalHost:{port}")).run().unwrap().len(), 2);
    let requests = served.registry.requests();
    assert!(requests.last().is_some_and(|request| request.header("authorization").is_some()));
}

/// Section 2.3: what is asked, and what is found, in the registry's order.
#[test]
fn a_search_finds_what_the_index_has() {
    let served = searchable();
    let host = served.registry.host();
    let found = client().search(&format!("{host}/ubuntu")).run().unwrap();
    assert_eq!(found.iter().map(|hit| hit.name.as_str()).collect::<Vec<_>>(), ["ubuntu", "someone/ubuntu-plus"]);
    assert_eq!((found[0].stars, found[0].is_official, found[1].is_automated), (17_000, true, true));
    assert_eq!(found[0].description, "A Debian-based\nsystem");
    let asked = served.registry.requests().pop().unwrap();
    assert_eq!((asked.parameter("q").as_deref(), asked.parameter("n").as_deref()), (Some("ubuntu"), Some("25")));
    assert_eq!(asked.header("x-docker-token"), Some("true"));

    let names = |search: layercake::registry::Search| -> Vec<String> {
        search.host(&host).run().unwrap().into_iter().map(|hit| hit.name).collect()
    };
    assert_eq!(names(client().search("ubuntu").official(true)), ["ubuntu"]);
    assert_eq!(names(client().search("ubuntu").official(false)), ["someone/ubuntu-plus"]);
    assert_eq!(names(client().search("ubuntu").stars(1).stars(4)), ["ubuntu"]);
    assert_eq!(names(client().search("ubuntu").automated(true)), ["someone/ubuntu-plus"]);
    assert_eq!(names(client().search("ubuntu").limit(1)), ["ubuntu"]);
    assert_eq!(names(client().search("a/b c&n=9")), [""; 0]);
    assert_eq!(served.registry.requests().pop().unwrap().parameter("q").as_deref(), Some("a/b c&n=9"));
}

/// Section 2.3: limits and terms that are refused before anything is asked.
#[test]
fn searches_that_cannot_be_are_refused() {
    let served = searchable();
    let host = served.registry.host();
    let error = failure(client().search("x").host(&host).limit(101).run());
    assert_eq!(error.to_string(), "search for \"x\": limit 101 is outside the range of [1, 100]");
    assert_kind!(failure(client().search("https://x").host(&host).run()), ErrorKind::InvalidInput(_));
    assert!(served.registry.requests().is_empty());
}

/// Section 2.3: where there is no search, names are looked through; the one that is the term comes first.
#[test]
fn a_catalog_does_for_a_search() {
    let served = tagged(1);
    let root = served.store.resolve(name("example.com/app:1")).unwrap();
    for other in ["a/app", "zoo", "application"] {
        served.store.tag(&name(&format!("example.com/{other}:1")), &root).unwrap();
    }
    let host = served.registry.host();
    let found = client().search("APP").host(&host).limit(2).run().unwrap();
    assert_eq!(found.iter().map(|hit| hit.name.as_str()).collect::<Vec<_>>(), ["app", "a/app"]);
    served.registry.fault(Fault::on("/v2/_catalog").status(404));
    let error = failure(client().search("app").host(&host).run());
    assert_kind!(error, ErrorKind::Registry(refusal) if refusal.url.contains("/v1/search"));
}

/// P9, P11: answers to searches that are none.
#[test]
fn rubbish_is_no_search_result() {
    let served = searchable();
    let host = served.registry.host();
    served.registry.fault(Fault::on("/v2/_catalog").status(404));
    for body in ["", "[]", r#"{"results":[{"star_count":1}]}"#, r#"{"results":{}}"#, r#"{"results":[{"name":7}]}"#] {
        served.registry.clear_faults();
        served.registry.fault(Fault::on("/v2/_catalog").status(404));
        served.registry.fault(Fault::on("/v1/search").body(body));
        assert_kind!(failure(client().search("x").host(&host).run()), ErrorKind::InvalidDocument { .. });
    }
    served.registry.clear_faults();
    served
        .registry
        .fault(Fault::on("/v1/search").body(r#"{"results":[{"name":"x","star_count":-1,"description":null}]}"#));
    let found = client().search("x").host(&host).run().unwrap();
    assert_eq!((found[0].stars, found[0].description.as_str()), (0, ""));
    served.registry.clear_faults();
    served.registry.fault(Fault::on("/v1/search").body(r#"{"results":null}"#));
    assert!(client().search("x").host(&host).run().unwrap().is_empty());
}
