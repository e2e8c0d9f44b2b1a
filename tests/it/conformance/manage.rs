//! Deleting.

use layercake::Algorithm;
use layercake::Digest;
use layercake::testing::Fixture;

use super::digest_of;
use super::entry;
use super::image;
use super::index;
use super::names;
use super::push_blob;
use super::put;
use super::start;

use crate::support::Served;
use crate::support::http::Http;
use crate::support::name;

/// D25: only the tag goes.
#[test]
fn a_tag_is_deleted_alone() {
    let (_served, mut http) = start();
    let image = image(&mut http, "app", &[b"layer"]);
    for tag in ["1", "2"] {
        put(&mut http, "app", tag, &image).ok(201);
    }
    http.ask("DELETE", "/v2/app/manifests/1").ok(202);
    http.ask("GET", "/v2/app/manifests/1").refused(404, "MANIFEST_UNKNOWN");
    http.ask("DELETE", "/v2/app/manifests/1").refused(404, "MANIFEST_UNKNOWN");
    assert_eq!(names(&http.ask("GET", "/v2/app/tags/list").ok(200), "tags"), ["2"]);
    http.ask("DELETE", "/v2/app/manifests/2").ok(202);
    assert!(names(&http.ask("GET", "/v2/app/tags/list").ok(200), "tags").is_empty());
    http.ask("GET", &format!("/v2/app/manifests/{}", digest_of(&image))).ok(200);
    http.ask("GET", &format!("/v2/app/blobs/{}", Digest::sha256(b"layer"))).ok(200);
}

/// D25: and its tags go with a manifest, but nothing that it leads to.
#[test]
fn a_manifest_is_deleted_with_its_tags() {
    let (_served, mut http) = start();
    let image = image(&mut http, "app", &[b"layer"]);
    put(&mut http, "app", "1", &image).ok(201);
    let list = index(&[entry(&image)]);
    put(&mut http, "app", "2", &list).ok(201);
    put(&mut http, "app", "3", &list).ok(201);
    let path = format!("/v2/app/manifests/{}", digest_of(&list));
    http.ask("DELETE", &path).ok(202);
    for path in [&path, "/v2/app/manifests/2", "/v2/app/manifests/3"] {
        http.ask("GET", path).refused(404, "MANIFEST_UNKNOWN");
        http.ask("DELETE", path).refused(404, "MANIFEST_UNKNOWN");
    }
    http.ask("GET", "/v2/app/manifests/1").ok(200);
    let path = format!("/v2/app/manifests/{}", Digest::of(Algorithm::Sha512, image.to_string().as_bytes()));
    http.ask("DELETE", &path).ok(202);
    http.ask("GET", "/v2/app/manifests/1").refused(404, "MANIFEST_UNKNOWN");
    put(&mut http, "app", "1", &image).ok(201);
    http.ask("GET", "/v2/app/manifests/1").ok(200);
}

#[test]
fn a_blob_is_deleted_from_its_repository() {
    let (_served, mut http) = start();
    for algorithm in Algorithm::ALL {
        let digest = push_blob(&mut http, "app", b"content", algorithm);
        push_blob(&mut http, "other", b"content", algorithm);
        let path = format!("/v2/app/blobs/{digest}");
        http.ask("DELETE", &path).ok(202);
        http.ask("HEAD", &path).ok(404);
        http.ask("DELETE", &path).refused(404, "BLOB_UNKNOWN");
        http.ask("GET", &format!("/v2/other/blobs/{digest}")).ok(200);
        push_blob(&mut http, "app", b"content", algorithm);
        http.ask("GET", &path).ok(200);
    }
    http.ask("DELETE", &format!("/v2/nobody/blobs/{}", Digest::sha256(b""))).refused(404, "NAME_UNKNOWN");
}

/// What the store names can be deleted too; the store keeps its blobs.
#[test]
fn what_the_store_names_is_deleted() {
    let (served, _) = Served::with(&Fixture::demo());
    let mut http = Http::connect(&served.registry.host());
    let image = served.store.image_for(name("example.com/app:1"), &crate::support::platform("linux/arm64")).unwrap();
    let layer = image.manifest().layers()[0].digest;
    http.ask("DELETE", &format!("/v2/app/blobs/{layer}")).ok(202);
    http.ask("HEAD", &format!("/v2/app/blobs/{layer}")).ok(404);
    http.ask("DELETE", "/v2/app/manifests/1").ok(202);
    assert!(served.store.resolve(name("example.com/app:1")).is_err());
    http.ask("HEAD", &format!("/v2/app/blobs/{layer}")).ok(404);
    http.ask("GET", &format!("/v2/app/manifests/{}", image.digest())).ok(200);
    assert!(served.store.size_of(layer).unwrap().is_some());
}

#[test]
fn deletes_can_be_disabled() {
    let (served, mut http) = start();
    let image = image(&mut http, "app", &[]);
    put(&mut http, "app", "1", &image).ok(201);
    served.registry.without_deletes();
    let config = image["config"]["digest"].as_str().unwrap();
    for path in ["manifests/1", &format!("manifests/{}", digest_of(&image)), &format!("blobs/{config}")] {
        http.ask("DELETE", &format!("/v2/app/{path}")).refused(405, "UNSUPPORTED");
        http.ask("GET", &format!("/v2/app/{path}")).ok(200);
    }
    let session = http.ask("POST", "/v2/app/blobs/uploads/").ok(202);
    http.ask("DELETE", session.location()).ok(204);
}
