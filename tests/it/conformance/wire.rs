//! HTTP: bodies in every form, refused ones too, and connections that go on.

use std::io::ErrorKind;
use std::time::Duration;

use layercake::Digest;
use layercake::testing::Fault;

use super::STREAM;
use super::start;
use super::with;

use crate::support::Served;
use crate::support::http::Http;

/// A client that asks first whether to send at all.
#[test]
fn a_client_may_wait_to_be_asked_for_the_body() {
    let (_served, mut http) = start();
    let digest = Digest::sha256(b"content");
    let path = format!("/v2/app/blobs/uploads/?digest={digest}");
    let headers = [STREAM, ("content-length", "7"), ("expect", "100-continue")];
    http.head("POST", &path, &headers);
    http.raw(b"\r\n");
    assert_eq!(http.receive("HEAD").status, 100);
    http.raw(b"content");
    http.receive("POST").ok(201);
    http.ask("GET", "/v2/").ok(200);

    // Refused before it was asked for: the body does not come, and the connection is closed.
    http.head("POST", "/v2/app/blobs/uploads/?digest=rubbish", &headers);
    http.raw(b"\r\n");
    let refused = http.receive("POST");
    refused.refused(400, "DIGEST_INVALID");
    assert_eq!(refused.header("connection"), Some("close"));
}

/// The next request on the connection is not taken for a body that nobody wanted.
#[test]
fn a_body_that_is_not_wanted_is_passed_over() {
    let (served, mut http) = start();
    served.registry.require_login("alice", "secret");
    let body = vec![b'x'; 1 << 20];
    for _ in 0..3 {
        http.send("PUT", "/v2/app/manifests/1", &[], &body).refused(401, "UNAUTHORIZED");
        http.send_chunked("PATCH", "/v2/app/blobs/uploads/x", &[], &[&body, b"end"]).refused(401, "UNAUTHORIZED");
        http.send("GET", "/v2/", &[], &body).refused(401, "UNAUTHORIZED");
    }
    let login = ("authorization", "Basic YWxpY2U6c2VjcmV0");
    http.send("GET", "/v2/", &[login], b"").ok(200);
    let lengths: Vec<u64> = served.registry.requests().iter().map(|request| request.body_length).collect();
    assert_eq!(lengths[..3], [1 << 20, (1 << 20) + 3, 1 << 20]);
}

/// More than is passed over: the answer arrives, and the connection ends.
#[test]
fn an_endless_body_is_not_read_for_ever() {
    let (_served, mut http) = start();
    http.head("PUT", "/v2/app/manifests/1", &[("content-length", "100000000000")]);
    http.raw(b"\r\n");
    http.raw(&vec![b'x'; 1 << 20]);
    let refused = http.receive("PUT");
    refused.refused(413, "MANIFEST_INVALID");
    assert_eq!(refused.header("connection"), Some("close"));
}

#[test]
fn rubbish_ends_the_connection() {
    for rubbish in ["rubbish\r\n\r\n", "PUT /v2/ HTTP/1.1\r\ncontent-length: -1\r\n\r\n"] {
        let (_served, mut http) = start();
        http.raw(rubbish.as_bytes());
        assert!(http.try_receive("GET").is_err());
    }
    let (_served, mut http) = start();
    let session = http.ask("POST", "/v2/app/blobs/uploads/").ok(202).location().to_owned();
    http.head("PATCH", &session, &[("transfer-encoding", "chunked")]);
    http.raw(b"\r\n4\r\nabcdefgh\r\n0\r\n\r\n");
    assert!(http.try_receive("PATCH").is_err());
}

/// An upload that breaks keeps what came, and a client goes on from there.
#[test]
fn an_upload_that_breaks_can_be_resumed() {
    let (served, mut http) = start();
    let content = vec![b'x'; 300_000];
    let digest = Digest::sha256(&content);
    for method in ["PATCH", "PUT"] {
        let location = http.ask("POST", "/v2/app/blobs/uploads/").ok(202).location().to_owned();
        served.registry.fault(Fault::on("/uploads/").method(method).times(1).break_upload(200_000));
        http.head(method, &with(&location, &format!("digest={digest}")), &[STREAM, ("content-length", "300000")]);
        http.raw(b"\r\n");
        http.raw(&content);
        assert!(http.try_receive(method).is_err());
        http = Http::connect(&served.registry.host());
        let state = http.ask("GET", &location).ok(204);
        assert_eq!(state.header("range"), Some("0-199999"));
        let rest = [STREAM, ("content-range", "200000-299999")];
        http.send("PUT", &with(&location, &format!("digest={digest}")), &rest, &content[200_000..]).ok(201);
        let broken = served.registry.requests().into_iter().find(|r| r.method == method && r.body_length > 0).unwrap();
        assert_eq!(broken.body_length, 200_000);
        assert_eq!(broken.parameter("digest"), Some(digest.to_string()));
        served.registry.clear_requests();
    }
}

/// The client goes away in the middle.
#[test]
fn a_client_that_hangs_up_leaves_what_it_sent() {
    let (served, mut http) = start();
    let location = http.ask("POST", "/v2/app/blobs/uploads/").ok(202).location().to_owned();
    http.head("PATCH", &location, &[STREAM, ("content-length", "100")]);
    http.raw(b"\r\n0123456789");
    drop(http);
    let mut http = Http::connect(&served.registry.host());
    let range = || http.ask("GET", &location).ok(204).header("range").unwrap().to_owned();
    let seen: Vec<String> = std::iter::repeat_with(range)
        .inspect(|_| std::thread::sleep(Duration::from_millis(10)))
        .take(500)
        .take_while(|range| range != "0-9")
        .collect();
    assert!(seen.len() < 500, "what came is there: {:?}", seen.last());
}

/// A registry that stops in the middle of an upload.
#[test]
fn a_stopped_registry_breaks_uploads_off() {
    let (served, mut http) = start();
    let location = http.ask("POST", "/v2/app/blobs/uploads/").ok(202).location().to_owned();
    http.head("PATCH", &location, &[STREAM, ("content-length", "100")]);
    http.raw(b"\r\n0123456789");
    let Served { registry, .. } = served;
    registry.stop();
    let error = http.try_receive("PATCH").unwrap_err();
    let expected = [ErrorKind::ConnectionReset, ErrorKind::InvalidData, ErrorKind::UnexpectedEof];
    assert!(expected.contains(&error.kind()), "{error:?}");
}

/// A client that wants one answer gets it, and the connection's end.
#[test]
fn a_connection_is_closed_if_the_client_wants() {
    let (_served, mut http) = start();
    http.send("GET", "/v2/", &[("connection", "close")], b"").ok(200);
    assert!(http.try_receive("GET").is_err());
}
