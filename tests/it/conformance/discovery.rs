//! What is there: tags, repositories, referrers.

use layercake::Digest;
use layercake::MediaType;
use layercake::testing::Fault;
use layercake::testing::Fixture;

use super::artifact;
use super::digest_of;
use super::entry;
use super::image;
use super::index;
use super::names;
use super::put;
use super::start;

use crate::support::http::Http;
use crate::support::http::Reply;
use crate::support::name;
use crate::support::platform;

/// Follows the links from this path, and lists what each page has.
#[track_caller]
fn pages(http: &mut Http, path: &str, field: &str) -> Vec<Vec<String>> {
    let mut pages = Vec::new();
    let mut next = Some(path.to_owned());
    while let Some(path) = next {
        let reply = http.ask("GET", &path).ok(200);
        pages.push(names(&reply, field));
        next = reply.header("link").map(|link| {
            let (path, rest) = link.strip_prefix('<').and_then(|link| link.split_once('>')).unwrap();
            assert_eq!(rest, "; rel=\"next\"");
            path.to_owned()
        });
    }
    pages
}

/// D22.
#[test]
fn tags_are_listed_in_order_and_in_parts() {
    let (served, mut http) = start();
    let image = image(&mut http, "app", &[]);
    assert_eq!(names(&http.ask("GET", "/v2/app/tags/list").ok(200), "tags"), [""; 0]);
    for tag in ["b", "a", "C", "10", "9", "a.b-c_d"] {
        put(&mut http, "app", tag, &image).ok(201);
    }
    let all = http.ask("GET", "/v2/app/tags/list").ok(200);
    assert_eq!(all.json()["name"], "app");
    assert_eq!(names(&all, "tags"), ["10", "9", "C", "a", "a.b-c_d", "b"]);
    assert_eq!(pages(&mut http, "/v2/app/tags/list?n=4", "tags"), [vec!["10", "9", "C", "a"], vec!["a.b-c_d", "b"]]);
    assert_eq!(pages(&mut http, "/v2/app/tags/list?n=6", "tags").len(), 1, "no link where nothing follows");
    assert_eq!(pages(&mut http, "/v2/app/tags/list?last=a", "tags"), [["a.b-c_d", "b"]]);
    assert_eq!(pages(&mut http, "/v2/app/tags/list?n=1&last=aa", "tags"), [["b"]], "last need not be a tag");
    assert_eq!(names(&http.ask("GET", "/v2/app/tags/list?n=0").ok(200), "tags"), [""; 0]);
    http.ask("GET", "/v2/app/tags/list?n=x").refused(400, "PAGINATION_NUMBER_INVALID");
    served.registry.page_size(2);
    assert_eq!(pages(&mut http, "/v2/app/tags/list", "tags").concat().len(), 6);
    assert_eq!(pages(&mut http, "/v2/app/tags/list?n=100", "tags").len(), 3, "less than was asked for, and a link");
    http.ask("POST", "/v2/app/tags/list").refused(405, "UNSUPPORTED");
}

#[test]
fn repositories_are_listed() {
    let (served, mut http) = start();
    assert_eq!(names(&http.ask("GET", "/v2/_catalog").ok(200), "repositories"), [""; 0]);
    Fixture::new(platform("linux/amd64")).tag(&served.store, &name("example.com/named/app:1")).unwrap();
    for repository in ["b", "a/b"] {
        image(&mut http, repository, &[]);
    }
    http.ask("POST", "/v2/nothing/blobs/uploads/").ok(202);
    assert_eq!(pages(&mut http, "/v2/_catalog?n=2", "repositories"), [vec!["a/b", "b"], vec!["named/app"]]);
}

/// The digests that a list of referrers has.
#[track_caller]
fn digests(reply: &Reply) -> Vec<String> {
    assert_eq!(reply.header("content-type"), Some(MediaType::OCI_INDEX.as_str()), "D23");
    let list = reply.json();
    assert_eq!((&list["schemaVersion"], &list["mediaType"]), (&2.into(), &MediaType::OCI_INDEX.as_str().into()));
    let manifests = list["manifests"].as_array().unwrap();
    manifests.iter().map(|entry| entry["digest"].as_str().unwrap().to_owned()).collect()
}

/// D21, D23: the type of an artifact, or of its configuration, and all annotations.
#[test]
fn referrers_are_listed() {
    let (served, mut http) = start();
    let unknown = Digest::sha256(b"unknown");
    for name in ["app", "nobody"] {
        assert!(digests(&http.ask("GET", &format!("/v2/{name}/referrers/{unknown}")).ok(200)).is_empty());
    }
    http.ask("GET", "/v2/app/referrers/sha256:abc").refused(400, "DIGEST_INVALID");

    let subject = image(&mut http, "app", &[b"layer"]);
    let path = format!("/v2/app/referrers/{}", digest_of(&subject));
    let note = artifact(&mut http, "app", "application/vnd.example.note", &entry(&subject));
    let other = artifact(&mut http, "app", "application/vnd.example.other+json", &entry(&subject));
    let mut plain = image(&mut http, "app", &[]);
    plain["subject"] = entry(&subject);
    let mut list = index(&[]);
    list["subject"] = entry(&subject);
    list["artifactType"] = "application/vnd.example.note".into();
    // Before the subject itself, by tag and by digest.
    for document in [&note, &other, &plain, &list] {
        put(&mut http, "app", &digest_of(document), document).ok(201);
    }
    put(&mut http, "app", "1", &subject).ok(201);
    put(&mut http, "app", "note", &note).ok(201);

    let all = http.ask("GET", &path).ok(200);
    let mut expected: Vec<String> = [&note, &other, &plain, &list].map(digest_of).into();
    expected.sort();
    assert_eq!(digests(&all), expected);
    assert_eq!(all.header("oci-filters-applied"), None);
    let found = all.json()["manifests"].as_array().unwrap().clone();
    let found = |document| found.iter().find(|entry| entry["digest"] == digest_of(document)).unwrap().clone();
    assert_eq!(found(&note)["artifactType"], "application/vnd.example.note");
    assert_eq!(found(&note)["annotations"], note["annotations"]);
    assert_eq!(found(&note)["size"], note.to_string().len());
    assert_eq!(found(&note)["mediaType"], MediaType::OCI_MANIFEST.as_str());
    assert_eq!(found(&plain)["artifactType"], MediaType::OCI_CONFIG.as_str());
    assert_eq!(found(&list)["mediaType"], MediaType::OCI_INDEX.as_str());

    let filtered = http.ask("GET", &format!("{path}?artifactType=application/vnd.example.note")).ok(200);
    assert_eq!(filtered.header("oci-filters-applied"), Some("artifactType"));
    let mut expected: Vec<String> = [&note, &list].map(digest_of).into();
    expected.sort();
    assert_eq!(digests(&filtered), expected);
    let escaped = http.ask("GET", &format!("{path}?artifactType=application%2Fvnd.example.other%2Bjson")).ok(200);
    assert_eq!(digests(&escaped), [digest_of(&other)]);

    served.registry.page_size(1);
    let page = http.ask("GET", &format!("{path}?artifactType=application/vnd.example.note")).ok(200);
    assert_eq!(digests(&page), expected[..1]);
    let link = page.header("link").unwrap();
    let next = link.strip_prefix('<').and_then(|link| link.split_once('>')).unwrap().0;
    let page = http.ask("GET", next).ok(200);
    assert_eq!((digests(&page), page.header("link")), (expected[1..].to_vec(), None));

    http.ask("DELETE", &format!("/v2/app/manifests/{}", digest_of(&note))).ok(202);
    served.registry.page_size(100);
    assert_eq!(digests(&http.ask("GET", &path).ok(200)).len(), 3);
    served.registry.without_referrers();
    http.ask("GET", &path).ok(404);
}

/// A list that leads back to itself, for clients that have to notice.
#[test]
fn lists_can_go_in_circles() {
    let (served, mut http) = start();
    let image = image(&mut http, "app", &[]);
    put(&mut http, "app", "1", &image).ok(201);
    let link = "</v2/app/tags/list?n=1>; rel=\"next\"";
    served.registry.fault(Fault::on("/tags/list").header("link", link));
    assert_eq!(http.ask("GET", "/v2/app/tags/list?n=1").ok(200).header("link"), Some(link));
    let link = "</v2/_catalog>; rel=\"next\"";
    served.registry.fault(Fault::on("/v2/_catalog").header("link", link));
    assert_eq!(http.ask("GET", "/v2/_catalog").ok(200).header("link"), Some(link));
}
