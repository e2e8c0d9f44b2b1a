//! Who may do what, and how tokens are had.

use std::time::Duration;

use layercake::Digest;
use layercake::testing::Clock;

use super::start;

use crate::support::Served;
use crate::support::http::Http;
use crate::support::http::Reply;

const LIFE: Duration = Duration::from_secs(300);
/// `alice:secret`
const LOGIN: (&str, &str) = ("authorization", "Basic YWxpY2U6c2VjcmV0");

fn guarded() -> (Served, Http) {
    let (served, http) = start();
    served.registry.require_tokens(LIFE);
    (served, http)
}

#[track_caller]
fn token(http: &mut Http, scopes: &str) -> String {
    token_of(&http.ask("GET", &format!("/token?service=layercake&{scopes}")).ok(200), "token")
}

#[track_caller]
fn token_of(reply: &Reply, field: &str) -> String {
    reply.json()[field].as_str().unwrap_or_else(|| panic!("no {field}: {}", reply.json())).to_owned()
}

#[track_caller]
fn bear(http: &mut Http, method: &str, path: &str, token: &str) -> Reply {
    http.send(method, path, &[("authorization", &format!("Bearer {token}"))], b"")
}

/// The scope that a request is told to come back with, and the error.
#[track_caller]
fn challenge(reply: &Reply) -> (String, bool) {
    reply.refused(401, "UNAUTHORIZED");
    let challenge = reply.header("www-authenticate").unwrap();
    let scope = challenge.split_once("scope=\"").map(|(_, rest)| rest.split('"').next().unwrap().to_owned());
    (scope.unwrap_or_default(), challenge.ends_with(",error=\"insufficient_scope\""))
}

/// A1, D17: by what is to be done.
#[test]
fn each_request_needs_its_scope() {
    let (_served, mut http) = guarded();
    let digest = Digest::sha256(b"content");
    let uploads = "/v2/app/blobs/uploads/";
    for (method, path, scope) in [
        ("GET", "/v2/".to_owned(), ""),
        ("GET", "/v2/_catalog".to_owned(), "registry:catalog:*"),
        ("GET", "/v2/app/tags/list".to_owned(), "repository:app:pull"),
        ("HEAD", format!("/v2/a/b/blobs/{digest}"), "repository:a/b:pull"),
        ("GET", format!("/v2/app/referrers/{digest}"), "repository:app:pull"),
        ("PUT", "/v2/app/manifests/1".to_owned(), "repository:app:pull,push"),
        ("POST", uploads.to_owned(), "repository:app:pull,push"),
        ("PATCH", format!("{uploads}x"), "repository:app:pull,push"),
        ("PUT", format!("{uploads}x"), "repository:app:pull,push"),
        ("GET", format!("{uploads}x"), "repository:app:pull,push"),
        ("DELETE", format!("{uploads}x"), "repository:app:pull,push"),
        ("DELETE", "/v2/app/manifests/1".to_owned(), "repository:app:delete"),
        ("DELETE", format!("/v2/app/blobs/{digest}"), "repository:app:delete"),
        ("POST", format!("{uploads}?mount={digest}&from=b/c"), "repository:app:pull,push repository:b/c:pull"),
        ("POST", format!("{uploads}?mount={digest}"), "repository:app:pull,push"),
    ] {
        let refused = http.send(if method == "HEAD" { "GET" } else { method }, &path, &[], b"");
        assert_eq!(challenge(&refused), (scope.to_owned(), false), "{method} {path}");
        let little = token(&mut http, "scope=repository:app:other");
        let refused = bear(&mut http, if method == "HEAD" { "GET" } else { method }, &path, &little);
        if !scope.is_empty() {
            assert_eq!(challenge(&refused), (scope.to_owned(), true), "{method} {path}");
        }
        let scopes: Vec<String> = scope.split(' ').map(|scope| format!("scope={scope}")).collect();
        let enough = token(&mut http, &scopes.join("&"));
        assert_ne!(bear(&mut http, method, &path, &enough).status, 401, "{method} {path}");
        let enough = token(&mut http, &format!("scope={}", scope.replace(' ', "%20")));
        assert_ne!(bear(&mut http, method, &path, &enough).status, 401, "several in one parameter");
    }
}

/// A2: less than was asked for is no error, and then not enough.
#[test]
fn a_token_may_allow_less_than_was_asked_for() {
    let (served, mut http) = guarded();
    served.registry.grant_only(&["pull"]);
    let reply = http.ask("GET", "/token?service=layercake&scope=repository:app:pull,push").ok(200);
    assert_eq!(reply.json()["scope"], "repository:app:pull");
    let token = token_of(&reply, "token");
    assert!(challenge(&bear(&mut http, "POST", "/v2/app/blobs/uploads/", &token)).1);
    bear(&mut http, "GET", "/v2/app/tags/list", &token).refused(404, "NAME_UNKNOWN");
}

/// Tokens expire when a test says so.
#[test]
fn tokens_follow_a_clock() {
    let (served, mut http) = guarded();
    let before = token(&mut http, "");
    let clock = Clock::new();
    served.registry.use_clock(&clock);
    bear(&mut http, "GET", "/v2/", &before).ok(401);
    let token = token(&mut http, "");
    clock.advance(LIFE - Duration::from_secs(1));
    bear(&mut http, "GET", "/v2/", &token).ok(200);
    clock.advance(Duration::from_secs(1));
    assert_eq!(challenge(&bear(&mut http, "GET", "/v2/", &token)), (String::new(), false));
}

#[track_caller]
fn post(http: &mut Http, form: &str) -> Reply {
    let form = format!("service=layercake&client_id=test&scope=repository%3Aapp%3Apull+repository:b:pull&{form}");
    http.send("POST", "/token", &[("content-type", "application/x-www-form-urlencoded")], form.as_bytes())
}

/// oauth.md: a password, and what it gives for later.
#[test]
fn a_password_is_changed_for_a_refresh_token() {
    let (served, mut http) = guarded();
    served.registry.require_login("alice", "secret");
    http.ask("GET", "/token").ok(401);
    http.send("GET", "/token", &[LOGIN], b"").ok(200);
    assert_eq!(
        post(&mut http, "grant_type=password&username=alice&password=wrong").ok(401).json()["error"],
        "invalid_grant"
    );
    let reply = post(&mut http, "grant_type=password&username=alice&password=secret").ok(200);
    assert_eq!((&reply.json()["refresh_token"], &reply.json()["expires_in"]), (&serde_json::Value::Null, &300.into()));
    let access = token_of(&reply, "access_token");
    for name in ["app", "b"] {
        bear(&mut http, "GET", &format!("/v2/{name}/tags/list"), &access).ok(404);
    }
    let reply = post(&mut http, "grant_type=password&username=alice&password=secret&access_type=offline").ok(200);
    let refresh = token_of(&reply, "refresh_token");
    let reply = post(&mut http, &format!("grant_type=refresh_token&refresh_token={refresh}")).ok(200);
    bear(&mut http, "GET", "/v2/app/tags/list", &token_of(&reply, "access_token")).ok(404);
    post(&mut http, "grant_type=refresh_token&refresh_token=rubbish").ok(401);
    let seen = served.registry.requests().pop().unwrap();
    assert!(seen.body.ends_with(b"&grant_type=refresh_token&refresh_token=rubbish"));
    assert_eq!(post(&mut http, "grant_type=magic").ok(400).json()["error"], "unsupported_grant_type");
    let offline = http.send("GET", "/token?offline_token=true", &[LOGIN], b"").ok(200);
    token_of(&offline, "refresh_token");
}

/// A3: nothing but an identity token, and what becomes of it where there is no OAuth2.
#[test]
fn an_identity_token_logs_in() {
    let (served, mut http) = guarded();
    served.registry.require_login("alice", "secret");
    served.registry.require_identity_token("identity");
    // `<token>:identity`
    let as_password = [("authorization", "Basic PHRva2VuPjppZGVudGl0eQ==")];
    http.send("GET", "/token", &[LOGIN], b"").ok(401);
    http.send("GET", "/token", &as_password, b"").ok(401);
    post(&mut http, "grant_type=password&username=alice&password=secret").ok(401);
    post(&mut http, "grant_type=refresh_token&refresh_token=another").ok(401);
    let reply = post(&mut http, "grant_type=refresh_token&refresh_token=identity").ok(200);
    bear(&mut http, "GET", "/v2/app/tags/list", &token_of(&reply, "access_token")).ok(404);
    for status in [404, 405] {
        served.registry.without_oauth(status);
        post(&mut http, "grant_type=refresh_token&refresh_token=identity").ok(status);
        http.send("GET", "/token", &as_password, b"").ok(200);
        http.send("GET", "/token", &[LOGIN], b"").ok(401);
    }
}
