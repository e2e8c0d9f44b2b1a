//! A registry that is protected from other users of the machine and from web pages.

use layercake::Store;
use layercake::testing::Protection;
use layercake::testing::Registry;

use crate::support::Scratch;
use crate::support::http::Http;
use crate::support::name;
use crate::support::two_layers;

fn start(protection: Protection) -> (Scratch, Store, Registry) {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    two_layers().tag(&store, &name("registry.test/app:1")).unwrap();
    let registry = Registry::start_protected(&store, ([127, 0, 0, 1], 0).into(), protection).unwrap();
    (scratch, store, registry)
}

/// The status of a request with these lines in its head.
fn status(registry: &Registry, method: &str, path: &str, lines: &str) -> u16 {
    let mut http = Http::connect(&registry.host());
    http.raw(format!("{method} {path} HTTP/1.1\r\n{lines}content-length: 0\r\n\r\n").as_bytes());
    http.receive(method).status
}

/// DNS rebinding: a web page reaches the port by a name of its own.
#[test]
fn host_and_origin_must_name_the_server() {
    let (_scratch, _, registry) = start(Protection::full().writable());
    let port = registry.address().port();
    let get = |lines: &str| status(&registry, "GET", "/v2/app/manifests/1", lines);
    for host in [format!("127.0.0.1:{port}"), format!("LocalHost:{port}"), format!("[::1]:{port}")] {
        assert_eq!(get(&format!("Host: {host}\r\n")), 200, "{host}");
        assert_eq!(get(&format!("Host: {host}\r\nOrigin: http://{host}\r\n")), 200, "{host}");
    }
    let own = format!("Host: 127.0.0.1:{port}\r\n");
    for lines in [
        String::new(),
        format!("Host: evil.example:{port}\r\n"),
        format!("Host: localhost.evil.example:{port}\r\n"),
        format!("Host: 127.0.0.2:{port}\r\n"),
        "Host: 127.0.0.1\r\n".to_owned(),
        "Host: localhost:1\r\n".to_owned(),
        format!("{own}Host: evil.example:{port}\r\n"),
        format!("{own}Origin: http://evil.example\r\n"),
        format!("{own}Origin: null\r\n"),
        format!("{own}Origin: https://localhost:{port}\r\n"),
        format!("{own}Origin: http://localhost:1\r\n"),
    ] {
        assert_eq!(get(&lines), 403, "{lines}");
        assert_eq!(status(&registry, "POST", "/v2/app/blobs/uploads/", &lines), 403, "{lines}");
    }
    assert_eq!(status(&registry, "POST", "/v2/app/blobs/uploads/", &own), 202);
}

#[test]
fn a_read_only_registry_refuses_changes() {
    let (_scratch, store, registry) = start(Protection::full());
    let own = format!("Host: {}\r\n", registry.host());
    let root = store.resolve(name("registry.test/app:1")).unwrap().digest;
    assert_eq!(status(&registry, "HEAD", "/v2/app/manifests/1", &own), 200);
    for (method, path) in [
        ("POST", "/v2/app/blobs/uploads/".to_owned()),
        ("PUT", "/v2/app/manifests/2".to_owned()),
        ("DELETE", "/v2/app/manifests/1".to_owned()),
        ("DELETE", format!("/v2/app/manifests/{root}")),
        ("DELETE", format!("/v2/app/blobs/{root}")),
        ("PATCH", "/v2/app/blobs/uploads/1".to_owned()),
    ] {
        assert_eq!(status(&registry, method, &path, &own), 403, "{method} {path}");
    }
    assert_eq!(store.resolve(name("registry.test/app:1")).unwrap().digest, root);
}

/// A push of `app:1` does not change what `registry.test/app:1` or `example.com/app:1` is.
#[test]
fn names_of_other_registries_are_not_replaced() {
    let (_scratch, store, registry) = start(Protection::full().writable());
    two_layers().tag(&store, &name("example.com/app:1")).unwrap();
    let root = store.resolve(name("example.com/app:1")).unwrap();
    let manifest = store.read(&root).unwrap();
    let mut changed: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    changed["annotations"] = serde_json::json!({ "pushed": "1" });
    let mut http = Http::connect(&registry.host());
    let host = registry.host();
    let mut send = |method: &str, path: &str, body: &[u8]| {
        let length = body.len();
        http.raw(format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\ncontent-length: {length}\r\n\r\n").as_bytes());
        http.raw(body);
        http.receive(method)
    };
    assert_eq!(send("DELETE", "/v2/app/manifests/1", b"").status, 403);
    assert_eq!(send("DELETE", &format!("/v2/app/manifests/{}", root.digest), b"").status, 403);
    let pushed = send("PUT", "/v2/app/manifests/1", changed.to_string().as_bytes());
    assert_eq!(pushed.status, 201, "{pushed:?}");
    assert_eq!(store.resolve(name("example.com/app:1")).unwrap().digest, root.digest);
    let own = store.resolve(registry.reference("app:1").unwrap()).unwrap();
    assert_ne!(own.digest, root.digest);
    let served = send("GET", "/v2/app/manifests/1", b"");
    assert_eq!(served.body, changed.to_string().as_bytes(), "the name of its own host is the one that is served");
    assert_eq!(store.resolve(name("registry.test/app:1")).unwrap().digest, root.digest);
}
