//! Who we are, to whom, and to nobody else.

mod identity;

use std::sync::Mutex;
use std::time::Duration;

use layercake::Error;
use layercake::ErrorKind;
use layercake::ImageReference;
use layercake::Registry;
use layercake::registry::Credentials;
use layercake::registry::Login;
use layercake::testing;
use layercake::testing::Clock;
use layercake::testing::Fault;
use layercake::testing::Fixture;

use crate::assert_kind;
use crate::support::Scratch;
use crate::support::Served;
use crate::support::client;
use crate::support::failure;
use crate::support::quick;
use crate::support::two_layers;

const USER: &str = "alice";
const PASSWORD: &str = "pass:word-Wonderland";
/// The same in base64, as it goes over the wire.
const BASIC: &str = "YWxpY2U6cGFzczp3b3JkLVdvbmRlcmxhbmQ=";

fn alice(image: &ImageReference) -> Registry {
    quick().credentials(Login::new(image.host(), USER, PASSWORD)).build().unwrap()
}

/// Case 172: neither the password nor what it becomes.
#[track_caller]
fn assert_no_secret(text: &str) {
    for secret in [PASSWORD, BASIC, "Wonderland", "token-"] {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
}

fn pull(registry: &Registry, image: &ImageReference) -> layercake::Result<()> {
    let scratch = Scratch::new();
    registry.pull(image).to(&scratch.store("store")).map(drop)
}

#[test]
fn a_password_opens_a_registry_that_asks_for_one() {
    let (served, image) = Served::with(&two_layers());
    served.registry.require_login(USER, PASSWORD);
    pull(&alice(&image), &image).unwrap();
    let requests = served.registry.requests();
    assert_eq!(requests[0].header("authorization"), None, "case 175: anonymous first");
    let with: Vec<_> = requests[1..].iter().map(|request| request.header("authorization").unwrap()).collect();
    assert!(with.iter().all(|header| *header == format!("Basic {BASIC}")));
}

#[test]
fn without_a_way_in_the_error_says_so() {
    let (served, image) = Served::with(&two_layers());
    served.registry.require_login(USER, PASSWORD);
    let wrong = quick().credentials(Login::new(image.host(), USER, "Wonderland?")).build().unwrap();
    for registry in [client(), wrong] {
        served.registry.clear_requests();
        let error = failure(pull(&registry, &image));
        assert_kind!(error, ErrorKind::Registry(refusal) if refusal.status == 401 && refusal.has_code("UNAUTHORIZED"));
        assert_no_secret(&format!("{error} {error:?} {registry:?}"));
        assert!(served.registry.requests().len() <= 4, "a wrong password is not tried for ever");
    }
}

/// A1, A2: a token, asked for once and used by all threads.
#[test]
fn a_token_is_fetched_once() {
    for login in [false, true] {
        let (served, image) = Served::with(&Fixture::demo());
        served.registry.require_tokens(Duration::from_secs(300));
        if login {
            served.registry.require_login(USER, PASSWORD);
        }
        let registry = if login { alice(&image) } else { client() };
        pull(&registry, &image).unwrap();
        pull(&registry, &image).unwrap();
        assert_eq!(served.count("GET", "/token"), 1);
        let requests = served.registry.requests();
        let token = requests.iter().find(|request| request.path.starts_with("/token")).unwrap();
        assert_eq!(token.path, "/token?service=layercake&scope=repository:app:pull");
        assert_eq!(token.header("authorization").is_some(), login);
        let refused = requests.iter().filter(|r| r.path.starts_with("/v2/") && r.header("authorization").is_none());
        assert_eq!(refused.count(), 1, "only the first request goes without");
    }
}

/// Refreshed in the middle of a pull, by one thread for all.
#[test]
fn an_expired_token_is_replaced_in_the_middle_of_a_pull() {
    let (served, image) = Served::with(&two_layers());
    served.registry.require_tokens(Duration::from_secs(300));
    let store = served.scratch.store("store");
    let expired = Mutex::new(false);
    let observer = |event: &layercake::Event<'_>| {
        if matches!(event, layercake::Event::Selected { .. }) && !std::mem::replace(&mut *expired.lock().unwrap(), true)
        {
            served.registry.expire_tokens();
        }
    };
    client().pull(&image).observer(&observer).to(&store).unwrap();
    assert_eq!(served.count("GET", "/token"), 2);
}

/// A2: a token's life is counted on our own clock.
#[test]
fn a_token_is_not_used_beyond_its_life() {
    let (served, image) = Served::with(&two_layers());
    let clock = Clock::new();
    served.registry.use_clock(&clock);
    served.registry.require_tokens(Duration::from_secs(300));
    let registry = quick().clock(clock.clone()).build().unwrap();
    pull(&registry, &image).unwrap();
    clock.advance(Duration::from_secs(300));
    served.registry.clear_requests();
    pull(&registry, &image).unwrap();
    assert_eq!(served.count("GET", "/token"), 1);
    assert_eq!(served.registry.requests()[0].header("authorization"), None, "the old one was not sent");
}

/// D32: the question whether this is a registry at all, with and without signing in.
#[test]
fn a_ping_signs_in_if_it_has_to() {
    let (served, _) = Served::with(&two_layers());
    let host = served.registry.host();
    client().ping(&host).unwrap();
    served.registry.require_tokens(Duration::from_secs(300));
    client().ping(&host).unwrap();
    served.registry.require_login(USER, PASSWORD);
    assert_kind!(failure(client().ping(&host)), ErrorKind::Registry(refusal) if refusal.status == 401);
    quick().credentials(Login::new(&host, USER, PASSWORD)).build().unwrap().ping(&host).unwrap();
    served.registry.fault(Fault::on("/v2/").status(404));
    assert!(failure(client().ping(&host)).is_not_found());
}

/// A1: of several ways in, a token goes before a password; unknown ways are passed over.
#[test]
fn the_best_of_several_challenges_is_answered() {
    let (served, image) = Served::with(&two_layers());
    served.registry.require_tokens(Duration::from_secs(300));
    let realm = format!("http://{}/token?account=x", served.registry.host());
    let challenge = format!(
        "Negotiate, Basic realm=\"a, b\", bearer REALM=\"{realm}\",service=\"s\\\"q\",scope=\"repository:app:pull repository:b:pull\""
    );
    served.registry.fault(Fault::on("/v2/").times(1).status(401).header("www-authenticate", &challenge));
    pull(&alice(&image), &image).unwrap();
    let requests = served.registry.requests();
    let token = requests.iter().find(|request| request.path.starts_with("/token")).unwrap();
    assert_eq!(
        token.path, "/token?account=x&service=s%22q&scope=repository:app:pull",
        "the realm's own query stays, and no scope is asked for that the pull does not need"
    );
}

/// A challenge cannot widen what a token is asked for: neither other repositories nor more actions.
#[test]
fn a_challenge_does_not_widen_the_scope() {
    let (served, image) = Served::with(&two_layers());
    served.registry.require_tokens(Duration::from_secs(300));
    let realm = format!("http://{}/token", served.registry.host());
    let scopes = |challenged: &str, ask: &dyn Fn(&Registry)| {
        let challenge = format!("Bearer realm=\"{realm}\",service=\"s\",scope=\"{challenged}\"");
        served.registry.clear_faults();
        served.registry.fault(Fault::on("/v2/").times(1).status(401).header("www-authenticate", &challenge));
        served.registry.clear_requests();
        ask(&client());
        let requests = served.registry.requests();
        let token = requests.iter().find(|request| request.path.starts_with("/token")).expect("a token is asked for");
        token.path.split_once("service=s").unwrap().1.to_owned()
    };
    let wide = "repository:app:pull,push,delete repository:other:pull,push registry:catalog:*";
    let (host, absent) = (served.registry.host(), layercake::Digest::sha256(b"absent"));
    assert_eq!(scopes(wide, &|registry| pull(registry, &image).unwrap()), "&scope=repository:app:pull");
    assert_eq!(scopes(wide, &|registry| registry.ping(&host).unwrap()), "");
    let list = |registry: &Registry| drop(registry.repositories(&host).unwrap().collect::<Vec<_>>());
    assert_eq!(scopes(wide, &list), "&scope=registry:catalog:%2A");
    let delete = |registry: &Registry| drop(registry.repository(&image).unwrap().delete_blob(absent));
    assert_eq!(scopes("repository:app:delete", &delete), "&scope=repository:app:delete");
    assert_eq!(scopes(wide, &delete), "&scope=repository:app:pull,delete");
    assert_eq!(scopes("repository:app:*,pull,push", &delete), "&scope=repository:app:pull,push,delete");
}

/// A2: a token that does not allow enough is replaced once.
#[test]
fn an_insufficient_token_is_replaced_once() {
    let (served, image) = Served::with(&two_layers());
    served.registry.require_tokens(Duration::from_secs(300));
    let realm = format!("http://{}/token", served.registry.host());
    let challenge = format!("Bearer realm=\"{realm}\",scope=\"repository:app:pull\",error=\"insufficient_scope\"");
    served.registry.fault(Fault::on("/blobs/").times(1).status(403).header("www-authenticate", &challenge));
    pull(&client(), &image).unwrap();
    assert_eq!(served.count("GET", "/token"), 2);

    served.registry.fault(Fault::on("/manifests/").status(403).header("www-authenticate", &challenge));
    served.registry.clear_requests();
    assert_kind!(failure(pull(&client(), &image)), ErrorKind::Registry(refusal) if refusal.status == 403);
    assert!(served.registry.requests().len() <= 10);
}

/// X2, case 175: credentials are for one host, and another never sees them.
#[test]
fn credentials_stay_with_their_host() {
    let (served, image) = Served::with(&two_layers());
    served.registry.require_login(USER, PASSWORD);
    let elsewhere = Login::new("127.0.0.1:1", USER, PASSWORD);
    assert!(pull(&quick().credentials(elsewhere).build().unwrap(), &image).is_err());
    assert!(served.registry.requests().iter().all(|request| request.header("authorization").is_none()));

    let asked = std::sync::Arc::new(Mutex::new(Vec::new()));
    let source = {
        let asked = std::sync::Arc::clone(&asked);
        move |host: &str, _: &str| {
            asked.lock().unwrap().push(host.to_owned());
            Ok(Some(Credentials::new(USER, PASSWORD)))
        }
    };
    pull(&quick().credentials(source).build().unwrap(), &image).unwrap();
    assert!(asked.lock().unwrap().iter().all(|host| host == image.host()));
    assert_eq!(format!("{:?}", Credentials::new(USER, PASSWORD)), "Credentials(…)");
}

#[test]
fn a_source_that_fails_fails_the_pull() {
    let (served, image) = Served::with(&two_layers());
    served.registry.require_login(USER, PASSWORD);
    let source = |_: &str, _: &str| Err(Error::from(ErrorKind::Authentication { reason: "no helper".to_owned() }));
    let error = failure(pull(&quick().credentials(source).build().unwrap(), &image));
    assert_kind!(error, ErrorKind::Authentication { .. });
    assert!(error.to_string().ends_with("authentication: no helper"), "{error}");
}

/// A server on another loopback address, which keeps what it is shown.
fn thief() -> (Scratch, testing::Registry) {
    let scratch = Scratch::new();
    let store = scratch.store("loot");
    let thief = testing::Registry::start_at(&store, ([127, 0, 0, 2], 0).into()).unwrap();
    (scratch, thief)
}

/// X3, D27, CVE-2026-49349: redirects never carry credentials to another host, and its challenges are not answered.
#[test]
fn redirects_carry_no_credentials_to_another_host() {
    for tokens in [false, true] {
        let (served, image) = Served::with(&two_layers());
        served.registry.require_login(USER, PASSWORD);
        if tokens {
            served.registry.require_tokens(Duration::from_secs(300));
        }
        let (_scratch, thief) = thief();
        let trap = format!("http://{}/v2/x/blobs/?signature=secret", thief.host());
        thief.fault(Fault::on("").status(401).header("www-authenticate", "Basic realm=\"give me\""));
        served.registry.fault(Fault::on("/blobs/").after(1).redirect(&trap));
        let error = failure(pull(&alice(&image), &image));
        assert_kind!(error, ErrorKind::Registry(refusal) if refusal.status == 401);
        assert!(!error.to_string().contains("secret"), "the query of a signed address: {error}");
        assert!(!thief.requests().is_empty());
        for request in thief.requests() {
            assert_eq!(request.header("authorization"), None, "{request:?}");
        }
        assert_no_secret(&format!("{error} {error:?}"));
    }
}

/// Blobs that lie elsewhere are fetched there all the same.
#[test]
fn a_redirect_to_a_storage_service_works() {
    let (served, image) = Served::with(&two_layers());
    served.registry.require_login(USER, PASSWORD);
    let storage = testing::Registry::start_at(&served.store, ([127, 0, 0, 2], 0).into()).unwrap();
    let layer = served.store.image(crate::support::name("example.com/app:1")).unwrap().manifest().layers()[0].clone();
    let there = format!("http://{}/v2/app/blobs/{}?X-Amz-Signature=secret", storage.host(), layer.digest);
    served.registry.fault(Fault::on(format!("/blobs/{}", layer.digest)).redirect(&there));
    storage.fault(Fault::on("/blobs/").times(1).truncate(10_000));
    pull(&alice(&image), &image).unwrap();
    let ranges: Vec<_> = storage.requests().iter().map(|request| request.header("range").map(str::to_owned)).collect();
    assert_eq!(ranges, [None, Some("bytes=10000-".to_owned())]);
    assert!(storage.requests().iter().all(|request| request.header("authorization").is_none()));
}

/// X2, CVE-2026-33540: a realm on a stranger's host gets nothing, unless the caller trusts it.
#[test]
fn a_foreign_realm_gets_no_credentials() {
    let (served, image) = Served::with(&two_layers());
    let (_scratch, thief) = thief();
    let token = Fault::on("/token").status(200).body("{\"token\":\"token-1\"}");
    thief.fault(token);
    served.registry.require_tokens_of(&format!("http://{}/token", thief.host()), Duration::from_secs(300));
    let error = failure(pull(&alice(&image), &image));
    assert_kind!(error, ErrorKind::Authentication { .. });
    assert!(thief.requests().is_empty(), "{:?}", thief.requests());
    assert_no_secret(&error.to_string());

    let error = failure(pull(&client(), &image));
    assert_kind!(error, ErrorKind::Registry(refusal) if refusal.status == 401);
    assert_eq!(thief.requests().len(), 2, "anonymous users may ask anybody, once for each request");
    assert!(thief.requests().iter().all(|request| request.header("authorization").is_none()));
    thief.clear_requests();

    let login = Login::new(image.host(), USER, PASSWORD);
    let trusting = quick().credentials(login).trust_token_server(&thief.host()).build().unwrap();
    assert!(pull(&trusting, &image).is_err(), "its tokens are worth nothing");
    assert_eq!(thief.requests()[0].header("authorization"), Some(format!("Basic {BASIC}").as_str()));
}

/// X2: a token server that leads elsewhere.
#[test]
fn a_token_server_may_not_redirect_to_another_host() {
    let (served, image) = Served::with(&two_layers());
    let (_scratch, thief) = thief();
    served.registry.require_tokens(Duration::from_secs(300));
    served.registry.fault(Fault::on("/token").redirect(&format!("http://{}/token", thief.host())));
    assert_kind!(failure(pull(&alice(&image), &image)), ErrorKind::Authentication { .. });
    assert!(thief.requests().is_empty());
}

/// A token server that answers rubbish; X1: more than is read of it.
#[test]
fn a_token_server_may_answer_anything() {
    let huge = format!("{{\"token\":\"{}\"}}", "a".repeat(70_000));
    for (fault, expected) in [
        (Fault::on("/token").status(200).body("rubbish"), "authentication: token server: its answer is not JSON"),
        (Fault::on("/token").status(200).body("{}"), "authentication: token server: its answer has no token"),
        (
            Fault::on("/token").status(200).body("{\"token\":\"a\\r\\nX: y\"}"),
            "authentication: token server: its token has characters that tokens do not have",
        ),
        (Fault::on("/token").status(200).body(huge.clone()), "limit exceeded: bytes of a token reply, at most 65536"),
        (Fault::on("/token").status(200).body(huge).chunked(), "limit exceeded: bytes of a token reply, at most 65536"),
        (Fault::on("/token").status(500), "status 500: FAULT: a fault that a test asked for"),
        (Fault::on("/token").status(401), "status 401: FAULT: a fault that a test asked for"),
        (Fault::on("/token").status(404), "status 404: FAULT: a fault that a test asked for"),
        (Fault::on("/token").hang_up(), "connection to"),
    ] {
        let (served, image) = Served::with(&two_layers());
        served.registry.require_tokens(Duration::from_secs(300));
        served.registry.fault(fault);
        let error = failure(pull(&alice(&image), &image)).to_string();
        assert!(error.contains(expected), "{error}");
        assert_no_secret(&error);
    }
}

#[test]
fn a_strange_realm_is_a_typed_error() {
    for realm in
        ["", "token", "ftp://127.0.0.1/", "http://127.1/token", "http://user:pw@127.0.0.1/", "http://169.254.169.254/"]
    {
        let (served, image) = Served::with(&two_layers());
        served.registry.require_tokens_of(realm, Duration::from_secs(300));
        let error = failure(pull(&alice(&image), &image));
        assert_kind!(error, ErrorKind::Protocol { .. } | ErrorKind::Authentication { .. });
        assert!(!error.to_string().contains("pw@"), "{error}");
    }
}

/// X3, CVE-2020-15157: other places that a descriptor names for its content are asked for nothing, with or without
/// credentials, even where the registry does not have the content.
#[test]
fn foreign_places_of_content_are_not_visited() {
    let (served, image) = Served::with(&two_layers());
    let (_scratch, thief) = thief();
    let root = served.store.image(crate::support::name("example.com/app:1")).unwrap();
    let mut manifest: serde_json::Value = serde_json::from_slice(root.manifest().raw()).unwrap();
    for layer in manifest["layers"].as_array_mut().unwrap() {
        layer["urls"] = serde_json::json!([format!("http://{}/layer", thief.host())]);
        layer["mediaType"] = serde_json::json!("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip");
    }
    let manifest = served.store.write(layercake::MediaType::OCI_MANIFEST, manifest.to_string().as_bytes()).unwrap();
    served.store.tag(&crate::support::name("example.com/app:1"), &manifest).unwrap();
    served.registry.require_login(USER, PASSWORD);
    pull(&alice(&image), &image).unwrap();
    let layer = root.manifest().layers()[0].digest.to_string();
    served.registry.fault(Fault::on(format!("/blobs/{layer}")).status(404));
    assert!(failure(pull(&alice(&image), &image)).is_not_found());
    assert!(thief.requests().is_empty());
}
