//! Pushing manifests: what is taken, and what is said about it.

use layercake::Algorithm;
use layercake::Digest;
use layercake::MediaType;
use serde_json::Value;
use serde_json::json;

use super::artifact;
use super::descriptor;
use super::digest_of;
use super::entry;
use super::image;
use super::index;
use super::push_blob;
use super::put;
use super::start;

use crate::support::http::Http;

#[track_caller]
fn assert_put(http: &mut Http, reference: &str, document: &Value) {
    let reply = put(http, "app", reference, document).ok(201);
    let digest = digest_of(document);
    assert_eq!(reply.location(), format!("/v2/app/manifests/{digest}"));
    assert_eq!(reply.header("docker-content-digest"), Some(digest.as_str()));
    let path = format!("/v2/app/manifests/{reference}");
    for path in [reply.location(), &path] {
        let found = http.ask("GET", path).ok(200);
        assert_eq!(found.body, document.to_string().into_bytes(), "D18: the bytes as they came");
        assert_eq!(found.header("content-type"), document["mediaType"].as_str());
    }
}

/// Whatever the image specification allows, and fields that nobody has heard of.
#[test]
fn every_kind_of_document_is_taken() {
    let (_served, mut http) = start();
    let image = image(&mut http, "app", &[b"layer", b"another"]);
    assert_put(&mut http, "image", &image);
    let bare = super::image(&mut http, "app", &[]);
    assert_put(&mut http, "no-layers", &bare);
    let strange = {
        let mut strange = bare.clone();
        strange["org.example.field"] = json!({ "deep": [1, 2] });
        strange["config"]["data"] = json!("e30=");
        strange
    };
    assert_put(&mut http, "strange", &strange);
    let note = artifact(&mut http, "app", "application/vnd.example.note", &entry(&image));
    assert_put(&mut http, "note", &note);
    assert_put(&mut http, "empty-index", &index(&[]));
    let both = index(&[entry(&image), entry(&bare), entry(&note)]);
    assert_put(&mut http, "index", &both);
    assert_put(&mut http, "nested", &index(&[entry(&both), entry(&index(&[]))]));
    let docker = json!({
        "schemaVersion": 2, "mediaType": MediaType::DOCKER_MANIFEST,
        "config": image["config"], "layers": image["layers"],
    });
    assert_put(&mut http, "docker", &docker);
    let list =
        json!({ "schemaVersion": 2, "mediaType": MediaType::DOCKER_MANIFEST_LIST, "manifests": [entry(&docker)] });
    assert_put(&mut http, "list", &list);
    // A manifest is not a blob, and a blob is not a manifest.
    http.ask("GET", &format!("/v2/app/blobs/{}", digest_of(&image))).refused(404, "BLOB_UNKNOWN");
}

/// D11.
#[test]
fn four_megabytes_are_taken_and_too_many_refused() {
    let (_served, mut http) = start();
    let mut large = image(&mut http, "app", &[]);
    for n in 0..400 {
        large["annotations"][format!("large-{n}")] = json!("A".repeat(10_000));
    }
    assert_put(&mut http, "large", &large);
    large["annotations"]["more"] = json!("A".repeat(5 << 20));
    put(&mut http, "app", "larger", &large).refused(413, "MANIFEST_INVALID");
    http.ask("GET", "/v2/app/manifests/large").ok(200);
}

/// D18, CVE-2021-41190.
#[test]
fn what_is_no_manifest_is_refused() {
    let (_served, mut http) = start();
    let image = image(&mut http, "app", &[]);
    let bytes = image.to_string().into_bytes();
    let oci = MediaType::OCI_MANIFEST;
    for (content_type, body) in [
        (oci.as_str(), &b"garbage"[..]),
        (oci.as_str(), b""),
        (oci.as_str(), b"{}"),
        (oci.as_str(), br#"{"schemaVersion":2}"#),
        (oci.as_str(), br#"{"schemaVersion":1,"fsLayers":[]}"#),
        (oci.as_str(), br#"{"schemaVersion":2,"manifests":[],"config":{}}"#),
        (MediaType::OCI_INDEX.as_str(), &bytes),
        (MediaType::DOCKER_MANIFEST.as_str(), &bytes),
        ("application/json", &bytes),
    ] {
        let reply = http.send("PUT", "/v2/app/manifests/1", &[("content-type", content_type)], body);
        reply.refused(400, "MANIFEST_INVALID");
    }
    http.ask("GET", "/v2/app/manifests/1").refused(404, "MANIFEST_UNKNOWN");
    for headers in [vec![], vec![("content-type", "application/vnd.oci.image.manifest.v1+json; charset=utf-8")]] {
        http.send("PUT", "/v2/app/manifests/1", &headers, &bytes).ok(201);
    }
}

/// A document that does not say its type has the one it came with.
#[test]
fn a_document_may_leave_its_type_to_the_header() {
    let (_served, mut http) = start();
    let mut image = image(&mut http, "app", &[]);
    image.as_object_mut().unwrap().remove("mediaType");
    let docker = MediaType::DOCKER_MANIFEST;
    let bytes = image.to_string().into_bytes();
    let location = {
        let reply = http.send("PUT", "/v2/app/manifests/1", &[("content-type", docker.as_str())], &bytes).ok(201);
        reply.location().to_owned()
    };
    for path in ["/v2/app/manifests/1", &location] {
        assert_eq!(http.ask("GET", path).ok(200).header("content-type"), Some(docker.as_str()));
    }
}

#[test]
fn a_manifest_is_what_its_digest_says() {
    let (_served, mut http) = start();
    let image = image(&mut http, "app", &[]);
    let bytes = image.to_string().into_bytes();
    for algorithm in Algorithm::ALL {
        let digest = Digest::of(algorithm, &bytes);
        let reply = put(&mut http, "app", &digest.to_string(), &image).ok(201);
        assert_eq!(reply.header("docker-content-digest"), Some(digest.to_string().as_str()));
        assert_eq!(reply.location(), format!("/v2/app/manifests/{digest}"));
        let found = http.ask("GET", reply.location()).ok(200);
        assert_eq!((found.header("docker-content-digest"), &found.body), (Some(digest.to_string().as_str()), &bytes));
        let other = Digest::of(algorithm, b"other");
        put(&mut http, "app", &other.to_string(), &image).refused(400, "DIGEST_INVALID");
    }
    put(&mut http, "app", "sha256:baddigeststring", &image).refused(400, "DIGEST_INVALID");
    put(&mut http, "app", "-tag", &image).refused(400, "TAG_INVALID");
}

/// D20.
#[test]
fn one_push_sets_many_tags() {
    let (_served, mut http) = start();
    let image = image(&mut http, "app", &[]);
    for algorithm in Algorithm::ALL {
        let digest = Digest::of(algorithm, image.to_string().as_bytes());
        let reply = put(&mut http, "app", &format!("{digest}?tag={algorithm}&tag=b&tag=c"), &image).ok(201);
        let tags: Vec<&str> = reply.headers.iter().filter(|(n, _)| n == "oci-tag").map(|(_, v)| v.as_str()).collect();
        assert_eq!(tags, ["b", "c", algorithm.name()]);
        for tag in tags {
            let found = http.ask("HEAD", &format!("/v2/app/manifests/{tag}")).ok(200);
            assert_eq!(found.header("docker-content-digest"), Some(digest.to_string().as_str()));
        }
        put(&mut http, "app", &format!("{digest}?tag=-b"), &image).refused(400, "TAG_INVALID");
    }
    let reply = put(&mut http, "app", "d?tag=e", &image).ok(201);
    assert_eq!(reply.header("oci-tag"), None, "only of digests");
    http.ask("HEAD", "/v2/app/manifests/e").ok(404);
}

/// D19: and by the repository that it is pushed to.
#[test]
fn what_a_manifest_leads_to_comes_first() {
    let (served, mut http) = start();
    let image = image(&mut http, "app", &[b"layer"]);
    put(&mut http, "other", "1", &image).refused(404, "MANIFEST_BLOB_UNKNOWN");
    put(&mut http, "app", "1", &index(&[entry(&image)])).refused(404, "MANIFEST_BLOB_UNKNOWN");
    put(&mut http, "app", "1", &image).ok(201);
    put(&mut http, "app", "2", &index(&[entry(&image)])).ok(201);
    put(&mut http, "other", "2", &index(&[entry(&image)])).refused(404, "MANIFEST_BLOB_UNKNOWN");
    for blob in image["layers"].as_array().unwrap().iter().chain([&image["config"]]) {
        let path = format!("/v2/other/blobs/uploads/?from=app&mount={}", blob["digest"].as_str().unwrap());
        http.ask("POST", &path).ok(201);
    }
    put(&mut http, "other", "1", &image).ok(201);

    let mut foreign = image.clone();
    let missing = Digest::sha256(b"missing");
    for media_type in [
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
    ] {
        foreign["layers"] =
            json!([{ "mediaType": media_type, "digest": missing, "size": 9, "urls": ["https://example.com/"] }]);
        put(&mut http, "app", "foreign", &foreign).ok(201);
    }
    foreign["layers"] = json!([{ "mediaType": MediaType::OCI_LAYER, "digest": missing, "size": 9 }]);
    put(&mut http, "app", "sparse", &foreign).refused(404, "MANIFEST_BLOB_UNKNOWN");
    served.registry.allow_sparse_manifests();
    put(&mut http, "app", "sparse", &foreign).ok(201);
    http.ask("GET", "/v2/app/manifests/sparse").ok(200);
    http.ask("GET", &format!("/v2/app/blobs/{missing}")).refused(404, "BLOB_UNKNOWN");
}

/// D21: a subject need not be there.
#[test]
fn subjects_are_confirmed() {
    let (served, mut http) = start();
    let missing = descriptor(&MediaType::OCI_MANIFEST, b"missing", Algorithm::Sha256);
    let note = artifact(&mut http, "app", "application/vnd.example.note", &missing);
    let mut list = index(&[]);
    list["subject"] = missing.clone();
    for document in [&note, &list] {
        let reply = put(&mut http, "app", &digest_of(document), document).ok(201);
        assert_eq!(reply.header("oci-subject"), missing["digest"].as_str());
    }
    let plain = image(&mut http, "app", &[]);
    assert_eq!(put(&mut http, "app", "1", &plain).ok(201).header("oci-subject"), None);
    served.registry.without_referrers();
    assert_eq!(put(&mut http, "app", "1", &note).ok(201).header("oci-subject"), None);
}

/// A push is seen in the store, under the name that it has there.
#[test]
fn a_pushed_tag_is_a_name_of_the_store() {
    let (served, mut http) = start();
    let reference = served.registry.reference("app:1").unwrap();
    let first = image(&mut http, "app", &[b"first"]);
    put(&mut http, "app", "1", &first).ok(201);
    assert_eq!(served.store.resolve(&reference).unwrap().digest.to_string(), digest_of(&first));

    let given = crate::support::name("example.com/given:1");
    served.store.tag(&given, &served.store.resolve(&reference).unwrap()).unwrap();
    let second = image(&mut http, "given", &[b"second"]);
    put(&mut http, "given", "1", &second).ok(201);
    assert_eq!(served.store.resolve(&given).unwrap().digest.to_string(), digest_of(&second));
    http.ask("GET", &format!("/v2/given/manifests/{}", digest_of(&first))).ok(200);
    assert_eq!(served.store.entries().unwrap().count(), 2);
    push_blob(&mut http, "given", b"more", Algorithm::Sha256);
}
