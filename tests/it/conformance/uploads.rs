//! Pushing blobs: whole, streamed, in chunks, and not at all.

use layercake::Algorithm;
use layercake::Digest;

use super::STREAM;
use super::close;
use super::push_blob;
use super::start;
use super::with;

use crate::support::http::Http;
use crate::support::http::Reply;

/// A session of `app`.
#[track_caller]
fn open(http: &mut Http) -> String {
    http.ask("POST", "/v2/app/blobs/uploads/").ok(202).location().to_owned()
}

#[track_caller]
fn chunk(http: &mut Http, location: &str, range: &str, content: &[u8]) -> Reply {
    http.send("PATCH", location, &[STREAM, ("content-range", range)], content)
}

/// The blob is there, and the answer to its last request leads to it.
#[track_caller]
fn assert_pushed(http: &mut Http, reply: Reply, content: &[u8], digest: Digest) {
    let reply = reply.ok(201);
    assert_eq!(reply.header("docker-content-digest"), Some(digest.to_string().as_str()));
    assert_eq!(reply.header("content-length"), Some("0"));
    assert_eq!(http.ask("GET", reply.location()).ok(200).body, content);
}

#[test]
fn a_session_takes_a_blob_whole() {
    let (_served, mut http) = start();
    for algorithm in Algorithm::ALL {
        for content in [&b"content"[..], b"", b"{}"] {
            let digest = Digest::of(algorithm, content);
            // D15: the algorithm need not be known at the beginning.
            for query in ["", &format!("?digest-algorithm={algorithm}")] {
                let session = http.ask("POST", &format!("/v2/app/blobs/uploads/{query}")).ok(202);
                assert!(session.location().starts_with("/v2/app/blobs/uploads/"), "D12: relative");
                assert_eq!(session.header("range"), Some("0-0"));
                assert!(session.location().ends_with(session.header("docker-upload-uuid").unwrap()));
                let reply = close(&mut http, session.location(), digest, content);
                assert_pushed(&mut http, reply, content, digest);
                http.ask("GET", session.location()).refused(404, "BLOB_UPLOAD_UNKNOWN");
            }
        }
    }
    http.ask("POST", "/v2/app/blobs/uploads/?digest-algorithm=md5").refused(400, "DIGEST_INVALID");
}

/// D13.
#[test]
fn a_single_post_is_enough() {
    let (served, mut http) = start();
    for algorithm in Algorithm::ALL {
        let digest = Digest::of(algorithm, b"content");
        let path = format!("/v2/app/blobs/uploads/?digest={digest}");
        let reply = http.send("POST", &path, &[STREAM], b"content");
        assert_pushed(&mut http, reply, b"content", digest);
        http.send("POST", &path, &[STREAM], b"other").refused(400, "DIGEST_INVALID");
    }
    served.registry.without_single_posts();
    let digest = Digest::sha256(b"later");
    let session = http.send("POST", &format!("/v2/app/blobs/uploads/?digest={digest}"), &[STREAM], b"later").ok(202);
    let reply = close(&mut http, session.location(), digest, b"later");
    assert_pushed(&mut http, reply, b"later", digest);
}

/// D14: without `Content-Range`, with a length or without.
#[test]
fn a_blob_can_be_streamed() {
    let (_served, mut http) = start();
    for algorithm in Algorithm::ALL {
        let location = open(&mut http);
        let digest = Digest::of(algorithm, b"streamed content");
        http.send("PATCH", &location, &[STREAM], b"streamed").ok(202);
        let reply = http.send_chunked("PATCH", &location, &[STREAM], &[b" con", b"te", b"nt"]).ok(202);
        assert_eq!(reply.header("range"), Some("0-15"));
        let reply = close(&mut http, reply.location(), digest, b"");
        assert_pushed(&mut http, reply, b"streamed content", digest);
    }
    let digest = Digest::sha256(b"all");
    let path = with(&open(&mut http), &format!("digest={digest}"));
    let reply = http.send_chunked("PUT", &path, &[STREAM], &[b"a", b"ll"]);
    assert_pushed(&mut http, reply, b"all", digest);
}

/// D14: in order, and the last chunk either way.
#[test]
fn chunks_come_in_order() {
    let (_served, mut http) = start();
    for algorithm in Algorithm::ALL {
        let digest = Digest::of(algorithm, b"0123456789");
        for last_by_put in [false, true] {
            let location = open(&mut http);
            for range in ["5-9", "1-3"] {
                let refused = chunk(
                    &mut http,
                    &location,
                    range,
                    b"56789"[..].get(..usize::from(range == "5-9") * 2 + 3).unwrap(),
                );
                refused.refused(416, "RANGE_INVALID");
                assert_eq!((refused.location(), refused.header("range")), (location.as_str(), Some("0-0")));
            }
            let reply = chunk(&mut http, &location, "0-3", b"0123").ok(202);
            assert_eq!((reply.location(), reply.header("range")), (location.as_str(), Some("0-3")));
            for range in ["0-3", "3-6", "5-8"] {
                chunk(&mut http, &location, range, b"xxxx").refused(416, "RANGE_INVALID");
            }
            let state = http.ask("GET", &location).ok(204);
            assert_eq!((state.location(), state.header("range")), (location.as_str(), Some("0-3")));
            assert_eq!(state.header("content-length"), None, "a 204 has none");
            let path = with(&location, &format!("digest={digest}"));
            let last = [STREAM, ("content-range", "4-9")];
            let reply = if last_by_put {
                http.send("PUT", &path, &[STREAM, ("content-range", "5-9")], b"56789").refused(416, "RANGE_INVALID");
                http.send("PUT", &path, &last, b"456789")
            } else {
                chunk(&mut http, &location, "4-9", b"456789").ok(202);
                http.send("PUT", &path, &[STREAM], b"")
            };
            assert_pushed(&mut http, reply, b"0123456789", digest);
        }
    }
}

#[test]
fn a_chunk_is_as_long_as_it_says() {
    let (_served, mut http) = start();
    let location = open(&mut http);
    for range in ["bytes 0-3/4", "0-", "-3", "a-b", "0", "0-+3"] {
        chunk(&mut http, &location, range, b"0123").refused(400, "BLOB_UPLOAD_INVALID");
    }
    chunk(&mut http, &location, "0-4", b"0123").refused(400, "SIZE_INVALID");
    assert_eq!(http.ask("GET", &location).ok(204).header("range"), Some("0-0"), "nothing was taken");
}

/// A blob that is not what was promised is thrown away with its session.
#[test]
fn a_wrong_digest_is_refused() {
    let (_served, mut http) = start();
    for algorithm in Algorithm::ALL {
        let digest = Digest::of(algorithm, b"promised");
        let location = open(&mut http);
        close(&mut http, &location, digest, b"promised, oh no").refused(400, "DIGEST_INVALID");
        close(&mut http, &location, digest, b"promised").refused(404, "BLOB_UPLOAD_UNKNOWN");
        let location = open(&mut http);
        http.send("PATCH", &location, &[STREAM], b"promise").ok(202);
        close(&mut http, &location, digest, b"").refused(400, "DIGEST_INVALID");
    }
    http.ask("GET", &format!("/v2/app/blobs/{}", Digest::sha256(b"promised"))).refused(404, "NAME_UNKNOWN");
    let location = open(&mut http);
    for query in ["digest=sha256:abc", "digest=", "x=y", "digest=md5:d41d8cd98f00b204e9800998ecf8427e"] {
        http.send("PUT", &with(&location, query), &[STREAM], b"content").refused(400, "DIGEST_INVALID");
    }
    let digest = Digest::sha256(b"content");
    close(&mut http, &location, digest, b"content").ok(201);
}

/// D16.
#[test]
fn a_session_can_be_given_up() {
    let (served, mut http) = start();
    let location = open(&mut http);
    http.send("PATCH", &location, &[STREAM], b"content").ok(202);
    http.ask("GET", &location.replace("/app/", "/other/")).refused(404, "BLOB_UPLOAD_UNKNOWN");
    http.ask("DELETE", &location).ok(204);
    for method in ["GET", "PATCH", "DELETE"] {
        http.ask(method, &location).refused(404, "BLOB_UPLOAD_UNKNOWN");
    }
    http.ask("POST", &location).refused(404, "BLOB_UPLOAD_UNKNOWN");
    assert_eq!(std::fs::read_dir(served.store.path().join("layercake/partial")).unwrap().count(), 0);
    let location = open(&mut http);
    served.registry.forget_sessions();
    http.ask("GET", &location).refused(404, "BLOB_UPLOAD_UNKNOWN");
    http.ask("GET", "/v2/app/blobs/uploads/").refused(405, "UNSUPPORTED");
}

/// D17.
#[test]
fn a_blob_is_mounted_from_where_it_is() {
    let (served, mut http) = start();
    for algorithm in Algorithm::ALL {
        let content = algorithm.name().as_bytes();
        let digest = push_blob(&mut http, "source", content, algorithm);
        http.ask("HEAD", &format!("/v2/app/blobs/{digest}")).ok(404);
        let mount = |from: &str| format!("/v2/app/blobs/uploads/?mount={digest}{from}");
        for (method, path) in [("POST", mount("&from=elsewhere")), ("POST", mount("&from=app"))] {
            let session = http.ask(method, &path).ok(202);
            assert!(session.location().contains("/uploads/"));
            http.ask("DELETE", session.location()).ok(204);
        }
        let reply = http.ask("POST", &mount("&from=source"));
        assert_pushed(&mut http, reply, content, digest);
        http.ask("DELETE", &format!("/v2/app/blobs/{digest}")).ok(202);
        let reply = http.ask("POST", &mount(""));
        assert_pushed(&mut http, reply, content, digest);
        http.ask("DELETE", &format!("/v2/app/blobs/{digest}")).ok(202);
        http.ask("POST", &mount("&from=NO")).refused(400, "NAME_INVALID");
    }
    http.ask("POST", "/v2/app/blobs/uploads/?mount=sha256:abc&from=source").refused(400, "DIGEST_INVALID");
    let unknown = Digest::sha256(b"unknown");
    http.ask("POST", &format!("/v2/app/blobs/uploads/?mount={unknown}")).ok(202);

    let digest = Digest::sha256(b"sha256");
    served.registry.without_anonymous_mounts();
    http.ask("POST", &format!("/v2/app/blobs/uploads/?mount={digest}")).ok(202);
    http.ask("POST", &format!("/v2/app/blobs/uploads/?mount={digest}&from=source")).ok(201);
    served.registry.without_mounts();
    let session = http.ask("POST", &format!("/v2/third/blobs/uploads/?mount={digest}&from=source")).ok(202);
    close(&mut http, session.location(), digest, b"sha256").ok(201);
}

/// What the store names can be mounted too.
#[test]
fn blobs_of_named_images_are_mounted() {
    let (served, _) = crate::support::Served::with(&crate::support::two_layers());
    let mut http = Http::connect(&served.registry.host());
    let image = served.store.image(crate::support::name("example.com/app:1")).unwrap();
    let digest = image.manifest().layers()[0].digest;
    http.ask("POST", &format!("/v2/copy/blobs/uploads/?mount={digest}&from=app")).ok(201);
    http.ask("HEAD", &format!("/v2/copy/blobs/{digest}")).ok(200);
}

/// D12: the query of a location is kept, and a location may name a host.
#[test]
fn locations_have_many_forms() {
    let (served, mut http) = start();
    served.registry.stateful_locations();
    let location = open(&mut http);
    let (path, state) = location.split_once("?_state=").unwrap();
    assert!(state.ends_with("%3D"), "something that has to stay escaped");
    http.send("PATCH", path, &[STREAM], b"con").refused(400, "BLOB_UPLOAD_INVALID");
    let next = http.send("PATCH", &location, &[STREAM], b"con").ok(202).location().to_owned();
    close(&mut http, path, Digest::sha256(b"content"), b"tent").refused(400, "BLOB_UPLOAD_INVALID");
    close(&mut http, &next, Digest::sha256(b"content"), b"tent").ok(201);

    served.registry.absolute_locations();
    let here = format!("http://{}", served.registry.host());
    assert!(open(&mut http).starts_with(&format!("{here}/v2/app/blobs/uploads/")));
    served.registry.locations_at("http://127.0.0.1:1/prefix");
    assert!(open(&mut http).starts_with("http://127.0.0.1:1/prefix/v2/app/blobs/uploads/"));
    let path = format!("/v2/app/blobs/uploads/?digest={}", Digest::sha256(b"{}"));
    let blob = http.send("POST", &path, &[STREAM], b"{}").ok(201);
    assert!(blob.location().starts_with("http://127.0.0.1:1/prefix/v2/app/blobs/sha256:"));
}

/// D14: `OCI-Chunk-Min-Length`.
#[test]
fn chunks_can_be_too_small() {
    let (served, mut http) = start();
    served.registry.smallest_chunk(4);
    let session = http.ask("POST", "/v2/app/blobs/uploads/").ok(202);
    assert_eq!(session.header("oci-chunk-min-length"), Some("4"));
    let location = session.location().to_owned();
    chunk(&mut http, &location, "0-3", b"0123").ok(202);
    chunk(&mut http, &location, "4-5", b"45").ok(202);
    chunk(&mut http, &location, "6-9", b"6789").refused(400, "BLOB_UPLOAD_INVALID");
    close(&mut http, &location, Digest::sha256(b"012345"), b"").ok(201);
}

/// A proxy before the registry does not let everything through.
#[test]
fn bodies_can_be_too_large() {
    let (served, mut http) = start();
    served.registry.largest_body(4);
    let digest = Digest::sha256(b"01234567");
    let location = open(&mut http);
    close(&mut http, &location, digest, b"01234567").refused(413, "SIZE_INVALID");
    http.send_chunked("PATCH", &location, &[STREAM], &[b"012", b"345"]).refused(413, "SIZE_INVALID");
    let location = http.ask("GET", &location).ok(204).location().to_owned();
    http.ask("DELETE", &location).ok(204);
    let location = open(&mut http);
    chunk(&mut http, &location, "0-3", b"0123").ok(202);
    chunk(&mut http, &location, "4-7", b"4567").ok(202);
    close(&mut http, &location, digest, b"").ok(201);
}

/// Accepted, and gone.
#[test]
fn uploads_can_be_forgotten() {
    let (served, mut http) = start();
    served.registry.forget_uploads();
    let digest = push_blob(&mut http, "app", b"content", Algorithm::Sha256);
    http.ask("HEAD", &format!("/v2/app/blobs/{digest}")).ok(404);
}

/// Nothing of a large blob is kept in memory, and it arrives whole.
#[test]
fn a_large_blob_is_streamed() {
    let (_served, mut http) = start();
    let mut content = vec![0; 10 << 20];
    fastrand::Rng::with_seed(3).fill(&mut content);
    let digest = push_blob(&mut http, "app", &content, Algorithm::Sha512);
    let reply = http.ask("GET", &format!("/v2/app/blobs/{digest}")).ok(200);
    assert_eq!(Digest::of(Algorithm::Sha512, &reply.body), digest);
}

/// All blobs of an image arrive side by side, and none is lost to another.
#[test]
fn many_clients_push_at_once() {
    let (served, mut http) = start();
    std::thread::scope(|scope| {
        for n in 0..8 {
            let host = served.registry.host();
            scope.spawn(move || {
                let mut http = Http::connect(&host);
                let image = super::image(&mut http, "app", &[format!("layer {n}").as_bytes()]);
                super::put(&mut http, "app", &n.to_string(), &image).ok(201);
            });
        }
    });
    for n in 0..8 {
        http.ask("GET", &format!("/v2/app/manifests/{n}")).ok(200);
        http.ask("GET", &format!("/v2/app/blobs/{}", Digest::sha256(format!("layer {n}").as_bytes()))).ok(200);
    }
}
