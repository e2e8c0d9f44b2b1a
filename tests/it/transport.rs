//! TLS, proxies, and which transport is used for whom.

use std::io::Read;
use std::io::Write;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::Mutex;
use std::thread;

use layercake::ErrorKind;
use layercake::Registry;
use layercake::registry::Login;
use layercake::testing::Fault;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::PrivateKeyDer;

use crate::assert_kind;
use crate::support::Scratch;
use crate::support::Served;
use crate::support::failure;
use crate::support::name;
use crate::support::quick;
use crate::support::scripted::Scripted;
use crate::support::two_layers;

/// For `localhost` and 127.0.0.1, by nobody that anybody trusts.
const CERTIFICATE: &[u8] = include_bytes!("support/tls/self-signed.der");
const KEY: &[u8] = include_bytes!("support/tls/self-signed.key.der");

/// A listener that hands each connection to this.
fn listen(answer: impl Fn(std::net::TcpStream) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || listener.incoming().for_each(|connection| answer(connection.unwrap())));
    address
}

fn https_pull(address: SocketAddr) -> layercake::Error {
    let scratch = Scratch::new();
    let registry = quick().https(&address.to_string()).build().unwrap();
    failure(registry.pull(&name(&format!("{address}/app:1"))).to(&scratch.store("store")))
}

/// X5: a certificate that nobody vouches for ends the pull.
#[test]
fn an_untrusted_certificate_is_refused() {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![CertificateDer::from(CERTIFICATE)], PrivateKeyDer::try_from(KEY).expect("it is a key"))
        .unwrap();
    let config = Arc::new(config);
    let address = listen(move |mut connection| {
        let mut tls = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
        while tls.is_handshaking() && tls.complete_io(&mut connection).is_ok() {}
    });
    let error = https_pull(address);
    assert_kind!(error, ErrorKind::Tls { .. });
    assert!(error.to_string().contains(&address.to_string()), "{error}");
}

/// X4: a server that does not speak TLS is not spoken to in any other way.
#[test]
fn https_is_never_given_up_for_http() {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let address = listen({
        let heard = Arc::clone(&heard);
        move |mut connection| {
            let mut start = [0; 1024];
            let count = connection.read(&mut start).unwrap_or(0);
            heard.lock().unwrap().push(start[..count].to_vec());
            let _ = connection.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n");
        }
    });
    let error = https_pull(address);
    assert_kind!(error, ErrorKind::Tls { .. });
    let heard = heard.lock().unwrap();
    assert!(!heard.is_empty());
    for start in heard.iter() {
        assert_eq!(start.first(), Some(&0x16), "a TLS handshake and nothing else");
    }
}

/// Loopback hosts get plain http without being asked for; others only if they are named.
#[test]
fn plain_http_is_for_hosts_that_are_named() {
    let (served, image) = Served::with(&two_layers());
    let port = served.registry.address().port();
    Registry::new().pull(&image).to(&served.scratch.store("by address")).unwrap();
    let by_name = name(&format!("localhost:{port}/app:1"));
    Registry::new().pull(&by_name).to(&served.scratch.store("by name")).unwrap();
    let named = quick().plain_http("REGISTRY.invalid:5000").build().unwrap();
    let error = failure(named.pull(&name("registry.invalid:5000/app")).to(&served.scratch.store("named")));
    assert!(error.to_string().contains("http://registry.invalid:5000"), "{error}");
    let error = failure(quick().build().unwrap().ping("localhost.evil.invalid:5000"));
    assert_kind!(error, ErrorKind::Connect { .. });
}

/// Case 174: loopback registries are reached without a proxy, whoever set one.
#[test]
fn a_proxy_is_only_for_encrypted_connections() {
    let heard = Arc::new(Mutex::new(String::new()));
    let proxy = listen({
        let heard = Arc::clone(&heard);
        move |mut connection| {
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                let mut byte = [0];
                connection.read_exact(&mut byte).unwrap();
                head.push(char::from(byte[0]));
            }
            heard.lock().unwrap().push_str(&head);
            let _ = connection.write_all(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n");
        }
    });
    let (served, image) = Served::with(&two_layers());
    served.registry.require_login("alice", "secret");
    let registry = quick()
        .proxy(&format!("http://{proxy}"))
        .credentials(Login::new(image.host(), "alice", "secret"))
        .build()
        .unwrap();
    registry.pull(&image).to(&served.scratch.store("store")).unwrap();
    assert_eq!(*heard.lock().unwrap(), "");

    let error = failure(registry.pull(&name("registry.invalid/app")).to(&served.scratch.store("other")));
    assert_kind!(error, ErrorKind::Connect { .. } | ErrorKind::Network { .. });
    let heard = heard.lock().unwrap();
    assert!(heard.starts_with("CONNECT registry.invalid:443"), "{heard}");
    assert!(!heard.to_ascii_lowercase().contains("\r\nauthorization"), "{heard}");
}

/// A server that sends interim answers or trailers without end is not listened to without end.
#[test]
fn interim_answers_and_trailers_are_bounded_in_bytes() {
    let interim = "HTTP/1.1 103 Early Hints\r\nlink: </style.css>; rel=preload\r\n\r\n";
    let body = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n";
    for (start, endless) in [("", interim), (body, "x-trailer: value\r\n")] {
        let server = Scripted::speaking(move |_, mut connection| {
            connection.write_all(start.as_bytes())?;
            loop {
                connection.write_all(endless.repeat(100).as_bytes())?;
            }
        });
        let scratch = Scratch::new();
        let error = failure(
            quick().build().unwrap().pull(&name(&format!("{}/app:1", server.host))).to(&scratch.store("store")),
        );
        assert_kind!(error, ErrorKind::Protocol { .. });
        assert!(error.to_string().contains("headers or trailers"), "{error}");
    }
}

/// A few interim answers are no trouble, also where a large body arrives with them.
#[test]
fn interim_answers_before_a_large_body_are_skipped() {
    for (code, count) in [(100, 1), (102, 20), (103, 1)] {
        let server = Scripted::speaking(move |_, mut connection| {
            let mut answer = format!("HTTP/1.1 {code} Interim\r\n\r\n").repeat(count).into_bytes();
            answer.extend(b"HTTP/1.1 200 OK\r\ncontent-length: 300000\r\n\r\n");
            answer.resize(answer.len() + 300_000, b'x');
            connection.write_all(&answer)
        });
        for _ in 0..20 {
            quick().build().unwrap().ping(&server.host).unwrap();
        }
    }
}

/// Limits that are as good as none are limits all the same.
#[test]
fn the_longest_limits_are_no_overflow() {
    let (served, image) = Served::with(&two_layers());
    let registry = quick()
        .connect_timeout(std::time::Duration::MAX)
        .idle_timeout(std::time::Duration::MAX)
        .total_timeout(std::time::Duration::MAX)
        .slowest_rate(0)
        .build()
        .unwrap();
    registry.pull(&image).to(&served.scratch.store("store")).unwrap();
}

#[test]
fn settings_that_cannot_be_used_are_refused() {
    for proxy in ["not a proxy", "socks5://127.0.0.1:1", "ftp://127.0.0.1:1"] {
        assert_kind!(failure(quick().proxy(proxy).build()), ErrorKind::InvalidInput(_));
    }
    assert_kind!(failure(quick().user_agent("a\r\nb").build()), ErrorKind::InvalidInput(_));
}

/// X4, and the cloud's metadata service: where redirects may not lead.
#[test]
fn redirects_to_forbidden_places_are_refused() {
    let (served, image) = Served::with(&two_layers());
    let local = ["http://169.254.169.254/latest", "http://0.0.0.0/x", "http://[fe80::1]/x"];
    for place in local {
        served.registry.clear_faults();
        served.registry.fault(Fault::on("/blobs/").after(1).redirect(place));
        let error = failure(quick().build().unwrap().pull(&image).to(&served.scratch.store(&place.replace('/', "-"))));
        assert!(error.to_string().ends_with(", a local address"), "{error}");
    }
    for place in ["ftp://127.0.0.1/x", "http://2130706433/x", "http://127.1/x", "file:///etc/passwd"] {
        served.registry.clear_faults();
        served.registry.fault(Fault::on("/blobs/").after(1).redirect(place));
        let error = failure(quick().build().unwrap().pull(&image).to(&served.scratch.store(&place.replace('/', "-"))));
        assert_kind!(error, ErrorKind::Protocol { .. });
    }
}
