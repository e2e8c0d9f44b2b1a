//! Pulling: manifests and blobs, whole and in part.

use layercake::Algorithm;
use layercake::Digest;
use layercake::MediaType;
use layercake::testing::Fixture;

use super::image;
use super::push_blob;
use super::put;
use super::start;

use crate::support::Served;
use crate::support::http::Http;
use crate::support::name;

/// D32.
#[test]
fn a_ping_says_that_this_is_a_registry() {
    let (_served, mut http) = start();
    http.ask("GET", "/v2/").ok(200);
    http.ask("HEAD", "/v2/").ok(200);
    http.ask("POST", "/v2/").refused(405, "UNSUPPORTED");
    http.ask("GET", "/v3/").refused(404, "NAME_UNKNOWN");
}

/// D6, D10: `GET` and `HEAD` say the same, by tag and by digest.
#[test]
fn manifests_come_by_tag_and_by_digest() {
    let (served, _) = Served::with(&Fixture::demo());
    let mut http = Http::connect(&served.registry.host());
    let root = served.store.resolve(name("example.com/app:1")).unwrap();
    let bytes = served.store.read(&root).unwrap();
    let sha512 = Digest::of(Algorithm::Sha512, &bytes);
    for (reference, digest) in
        [("1".to_owned(), root.digest), (root.digest.to_string(), root.digest), (sha512.to_string(), sha512)]
    {
        for method in ["GET", "HEAD"] {
            let reply = http.ask(method, &format!("/v2/app/manifests/{reference}")).ok(200);
            assert_eq!(reply.header("content-type"), Some(MediaType::OCI_INDEX.as_str()));
            assert_eq!(reply.header("content-length"), Some(root.size.to_string().as_str()));
            assert_eq!(reply.header("docker-content-digest"), Some(digest.to_string().as_str()));
            assert_eq!(reply.body, if method == "GET" { &bytes[..] } else { b"" });
        }
    }
}

/// What the store names leads to the documents below it and to their blobs, and to nothing else in the store.
#[test]
fn a_repository_has_what_its_names_lead_to() {
    let (served, _) = Served::with(&Fixture::demo());
    let mut http = Http::connect(&served.registry.host());
    let image = served.store.image_for(name("example.com/app:1"), &crate::support::platform("linux/arm64")).unwrap();
    http.ask("GET", &format!("/v2/app/manifests/{}", image.digest())).ok(200);
    for blob in image.manifest().layers().iter().chain([image.manifest().config()]) {
        let reply = http.ask("GET", &format!("/v2/app/blobs/{}", blob.digest)).ok(200);
        assert_eq!(Digest::sha256(&reply.body), blob.digest);
        http.ask("GET", &format!("/v2/app/manifests/{}", blob.digest)).refused(404, "MANIFEST_UNKNOWN");
        http.ask("GET", &format!("/v2/other/blobs/{}", blob.digest)).refused(404, "NAME_UNKNOWN");
    }
    let stray = served.store.write(MediaType::OCTET_STREAM, b"stray").unwrap();
    http.ask("GET", &format!("/v2/app/blobs/{}", stray.digest)).refused(404, "BLOB_UNKNOWN");
}

/// D28: each way of not being there has its code, and `HEAD` says it without words.
#[test]
fn what_is_not_there_is_told_apart() {
    let (_served, mut http) = start();
    let image = image(&mut http, "app", &[b"layer"]);
    put(&mut http, "app", "1", &image).ok(201);
    let unknown = Digest::sha256(b"unknown");
    for (path, code) in [
        ("/v2/nobody/manifests/1".to_owned(), "NAME_UNKNOWN"),
        (format!("/v2/nobody/blobs/{unknown}"), "NAME_UNKNOWN"),
        ("/v2/nobody/tags/list".to_owned(), "NAME_UNKNOWN"),
        ("/v2/app/manifests/2".to_owned(), "MANIFEST_UNKNOWN"),
        (format!("/v2/app/manifests/{unknown}"), "MANIFEST_UNKNOWN"),
        (format!("/v2/app/blobs/{unknown}"), "BLOB_UNKNOWN"),
        ("/v2/app/blobs/uploads/none".to_owned(), "BLOB_UPLOAD_UNKNOWN"),
    ] {
        http.ask("GET", &path).refused(404, code);
        let head = http.ask("HEAD", &path).ok(404);
        assert!(head.body.is_empty());
        assert_eq!(head.header("content-type"), Some("application/json"));
    }
}

/// D1, D2, X6.
#[test]
fn names_tags_and_digests_have_a_form() {
    let (_served, mut http) = start();
    for name in ["App", "a//b", "-a", "a..b", "a/", &"a".repeat(256), "a___b", "a%20b", "a:1"] {
        http.ask("GET", &format!("/v2/{name}/tags/list")).refused(400, "NAME_INVALID");
        http.ask("POST", &format!("/v2/{name}/blobs/uploads/")).refused(400, "NAME_INVALID");
    }
    for tag in ["-a", ".a", "a%20b", &"a".repeat(129)] {
        http.ask("GET", &format!("/v2/app/manifests/{tag}")).refused(400, "TAG_INVALID");
    }
    for digest in ["sha256:baddigest", "sha256:", "md5:d41d8cd98f00b204e9800998ecf8427e", "sha256"] {
        http.ask("GET", &format!("/v2/app/blobs/{digest}")).refused(400, "DIGEST_INVALID");
    }
    http.ask("GET", "/v2/app/manifests/sha256:baddigest").refused(400, "DIGEST_INVALID");
    for name in ["blobs/blobs/uploads", "manifests", "a/blobs/b", &"a".repeat(255), "a__b--c.d/e"] {
        http.ask("POST", &format!("/v2/{name}/blobs/uploads/")).ok(202);
    }
}

/// D9.
#[test]
fn blobs_come_in_ranges() {
    let (_served, mut http) = start();
    let content: Vec<u8> = (0..2048_u32).flat_map(u32::to_le_bytes).take(2048).collect();
    for algorithm in Algorithm::ALL {
        let digest = push_blob(&mut http, "app", &content, algorithm);
        let path = format!("/v2/app/blobs/{digest}");
        for method in ["GET", "HEAD"] {
            let whole = http.ask(method, &path).ok(200);
            assert_eq!(whole.header("content-length"), Some("2048"));
            assert_eq!(whole.header("accept-ranges"), Some("bytes"));
            assert_eq!(whole.header("docker-content-digest"), Some(digest.to_string().as_str()));
        }
        for (range, start, end) in [
            ("500-1499", 500, 1500),
            ("500-", 500, 2048),
            ("-500", 1548, 2048),
            ("2000-5000", 2000, 2048),
            ("-9000", 0, 2048),
        ] {
            let part = http.send("GET", &path, &[("range", &format!("bytes={range}"))], b"").ok(206);
            assert_eq!(part.body, &content[start..end]);
            assert_eq!(part.header("content-range"), Some(format!("bytes {start}-{}/2048", end - 1).as_str()));
        }
        for range in ["500-0", "2048-", "5000-10000", "-0"] {
            let refused = http.send("GET", &path, &[("range", &format!("bytes={range}"))], b"");
            refused.refused(416, "RANGE_INVALID");
            assert_eq!(refused.header("content-range"), Some("bytes */2048"));
        }
        http.send("GET", &path, &[("range", "lines=1-2")], b"").ok(200);
    }
}
