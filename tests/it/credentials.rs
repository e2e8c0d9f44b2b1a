//! The files of `docker login` and `podman login`: whose credentials are found, and what is made of broken files.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;
use std::time::Instant;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use layercake::ErrorKind;
use layercake::ImageReference;
use layercake::registry::CredentialSource;
use layercake::registry::Credentials;
use layercake::registry::DockerConfig;
use layercake::registry::Login;
use layercake::testing;
use layercake::testing::Fault;
use layercake::testing::Fixture;
use serde_json::Value;
use serde_json::json;

use crate::assert_kind;
use crate::support::Scratch;
use crate::support::Served;
use crate::support::failure;
use crate::support::quick;
use crate::support::tools::is_root;

const PASSWORD: &str = "pass:word-Wonderland";

/// An entry of `auths`, as `docker login` writes it.
pub fn login(username: &str, password: &str) -> Value {
    json!({ "auth": BASE64_STANDARD.encode(format!("{username}:{password}")) })
}

/// A configuration in which the password of each key is the key.
fn keyed(keys: &[&str]) -> DockerConfig {
    let auths: Value = keys.iter().map(|key| ((*key).to_owned(), login("u", key))).collect();
    parse(&json!({ "auths": auths }))
}

#[track_caller]
pub fn parse(config: &Value) -> DockerConfig {
    DockerConfig::parse(&config.to_string()).unwrap()
}

/// Cases 166, 193: a login at Docker Hub is good for each of its names, however it was named itself; and for no other
/// host.
#[test]
fn a_login_knows_docker_hub_by_all_its_names() {
    let hub = ["docker.io", "index.docker.io", "registry-1.docker.io"];
    for login in hub.into_iter().chain(["https://index.docker.io/v1/", "Docker.IO"]) {
        let login = Login::new(login, "alice", PASSWORD);
        let knows = |host: &str| login.credentials(host, "library/ubuntu").unwrap().is_some();
        assert!(hub.into_iter().all(knows), "{login:?}");
        assert!(!["auth.docker.io", "docker.io:443", "docker.io.evil.com"].into_iter().any(knows), "{login:?}");
    }
}

/// Case 172: no password, in no form.
#[track_caller]
pub fn assert_no_secret(text: &str) {
    let basic = BASE64_STANDARD.encode(format!("alice:{PASSWORD}"));
    for secret in [PASSWORD, basic.trim_end_matches('='), "Wonderland", "V29uZGVybGFuZ", "b25kZXJsYW5k", "vbmRlcmxhbm"]
    {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
}

/// Cases 165, 166, 193: for each host and repository the entry that is found, by its key.
#[test]
fn the_best_key_of_the_host_is_found() {
    let keys = [
        "host.example",
        "quay.io",
        "quay.io/org",
        "https://quay.io/org/deep/app",
        "quay.io/organ",
        "HOST.example:5000",
        "https://ghcr.io",
        "http://scheme.example/v2/",
        "[::1]:5000",
        "https://index.docker.io/v1/",
        "docker.io/me",
        "https://index.docker.io/v1/access-token",
        "user:pw@quay.io/org",
        "localhost",
    ];
    let config = keyed(&keys);
    for (host, repository, expected) in [
        ("host.example", "a", "host.example"),
        ("host.example", "", "host.example"),
        ("Host.Example", "a", "host.example"),
        ("host.example:5000", "a", "HOST.example:5000"),
        ("host.example:443", "a", ""),
        ("host.example.evil.com", "a", ""),
        ("evil.host.example", "a", ""),
        ("example", "a", ""),
        ("quay.io", "other/org", "quay.io"),
        ("quay.io", "org", "quay.io/org"),
        ("quay.io", "org/app", "quay.io/org"),
        ("quay.io", "org/deep", "quay.io/org"),
        ("quay.io", "org/deep/app", "https://quay.io/org/deep/app"),
        ("quay.io", "org/deep/app/more", "https://quay.io/org/deep/app"),
        ("quay.io", "organ/app", "quay.io/organ"),
        ("quay.io", "organs/app", "quay.io"),
        ("quay.io:443", "org/app", ""),
        ("ghcr.io", "a/b", "https://ghcr.io"),
        ("scheme.example", "a", "http://scheme.example/v2/"),
        ("[::1]:5000", "a", "[::1]:5000"),
        ("docker.io", "library/ubuntu", "https://index.docker.io/v1/"),
        ("index.docker.io", "library/ubuntu", "https://index.docker.io/v1/"),
        ("registry-1.docker.io", "library/ubuntu", "https://index.docker.io/v1/"),
        ("docker.io", "me/app", "docker.io/me"),
        ("auth.docker.io", "library/ubuntu", ""),
        ("docker.io.evil.com", "library/ubuntu", ""),
        ("localhost", "a", "localhost"),
        ("localhost:5000", "a", ""),
        ("", "", ""),
        ("127.0.0.1", "a", ""),
    ] {
        let expected = Some(expected).filter(|key| !key.is_empty()).map(|key| Credentials::new("u", key));
        assert_eq!(config.credentials(host, repository).unwrap(), expected, "{host} {repository}");
    }
}

/// Of two spellings the usual one counts; what is empty says nothing, whichever it is.
#[test]
fn of_several_spellings_the_usual_one_counts() {
    for (keys, host, expected) in [
        (&["http://host", "host", "https://host/v1/"][..], "host", "host"),
        (&["docker.io", "https://index.docker.io/v1/", "index.docker.io"], "docker.io", "https://index.docker.io/v1/"),
    ] {
        assert_eq!(keyed(keys).credentials(host, "").unwrap(), Some(Credentials::new("u", expected)));
    }
    let config = parse(&json!({ "auths": { "host": {}, "host/org": {}, "https://host": login("u", "p") } }));
    assert_eq!(config.credentials("host", "org/app").unwrap(), Some(Credentials::new("u", "p")));
    assert_eq!(parse(&json!({ "auths": { "host": {} } })).credentials("host", "").unwrap(), None);
}

/// Case 167: an entry that is broken is an error for its host, and no other entry stands in for it.
#[test]
fn a_broken_entry_breaks_its_own_host_only() {
    let broken = |entry: Value| {
        let auths = json!({ "host/org": entry, "host": login("u", "p"), "other": login("u", "p") });
        parse(&json!({ "auths": auths }))
    };
    for (entry, why) in [
        (json!({ "auth": format!("%{PASSWORD}") }), "its auth is no base64"),
        (json!({ "auth": BASE64_STANDARD.encode("Wonderland") }), "its auth has no colon"),
        (json!({ "auth": [PASSWORD] }), "its auth is no text"),
        (json!({ "username": "alice", "password": 5 }), "its password is no text"),
        (json!(PASSWORD), "it is no object"),
    ] {
        let config = broken(entry);
        assert_eq!(config.credentials("other", "").unwrap(), Some(Credentials::new("u", "p")));
        assert_eq!(config.credentials("host", "else").unwrap(), Some(Credentials::new("u", "p")));
        let error = failure(config.credentials("host", "org/app"));
        assert_kind!(error, ErrorKind::Authentication { .. });
        let expected = format!("authentication: the configuration: the entry \"host/org\" cannot be used: {why}");
        assert_eq!(error.to_string(), expected);
        assert_no_secret(&format!("{error:?} {config:?}"));
    }
}

/// Case 167: files that are none, or no configuration. None of it waits, or quotes what it found.
#[test]
fn what_is_no_configuration_is_a_typed_error() {
    let scratch = Scratch::new();
    let write = |name: &str, text: &[u8]| fs::write(scratch.path(name), text).unwrap();
    write("text", PASSWORD.as_bytes());
    write("open", format!("{{\"auths\":{{\"host\":{{\"auth\":\"{PASSWORD}\"}}").as_bytes());
    write("list", b"[]");
    write("auths", b"{\"auths\":[\"Wonderland\"]}");
    write("helpers", b"{\"credHelpers\":\"Wonderland\"}");
    write("store", b"{\"credsStore\":{\"Wonderland\":1}}");
    write("latin", b"{\"auths\":\"\xff\"}");
    write("deep", "[".repeat(100_000).as_bytes());
    fs::File::create(scratch.path("huge")).unwrap().set_len(100 << 20).unwrap();
    scratch.dir("directory");
    fifo(&scratch.path("fifo"));
    std::os::unix::fs::symlink(scratch.path("fifo"), scratch.path("link")).unwrap();
    let started = Instant::now();
    for (name, why) in [
        ("text", "it is no JSON: expected value at line 1 column 1"),
        ("open", "it is no JSON: EOF while parsing an object at line 1 column 48"),
        ("list", "it is no JSON object"),
        ("auths", "its auths is no object"),
        ("helpers", "its credHelpers is no object"),
        ("store", "its credsStore is no text"),
        ("latin", "it is no UTF-8 text"),
        ("deep", "it is no JSON: recursion limit exceeded at line 1 column 128"),
        ("huge", "it is larger than 1048576 bytes"),
        ("directory", "it is no file"),
        ("fifo", "it is no file"),
        ("link", "it is no file"),
    ] {
        let path = scratch.path(name);
        let error = failure(DockerConfig::open(&path));
        assert_eq!(error.to_string(), format!("authentication: {}: {why}", path.display()));
        assert_kind!(error, ErrorKind::Authentication { .. });
        assert_no_secret(&format!("{error:?}"));
    }
    assert!(started.elapsed() < Duration::from_secs(10));
    assert!(failure(DockerConfig::open(scratch.path("missing"))).is_not_found());
    assert_kind!(failure(DockerConfig::open("/dev/null")), ErrorKind::Authentication { .. });
}

fn fifo(path: &Path) {
    crate::support::tools::run(std::process::Command::new("mkfifo").arg(path)).ok();
}

#[test]
fn an_unreadable_file_is_an_error_of_the_system() {
    if is_root() {
        return;
    }
    let scratch = Scratch::new();
    fs::write(scratch.path("config.json"), "{}").unwrap();
    fs::set_permissions(scratch.path("config.json"), fs::Permissions::from_mode(0o000)).unwrap();
    assert_kind!(failure(DockerConfig::open(scratch.path("config.json"))), ErrorKind::Io { .. });
}

/// What editors and other tools leave, and what other programs keep in the same file.
#[test]
fn harmless_oddities_are_read() {
    let scratch = Scratch::new();
    let text = "\u{feff}{\"auths\":{\"host\":{\"auth\":\"dTpw\",\"email\":\"a@b\"}},\"credHelpers\":null,\"credsStore\":\"\",\
                \"psFormat\":5,\"HttpHeaders\":{\"User-Agent\":\"x\"}}\n";
    fs::write(scratch.path("config.json"), text).unwrap();
    std::os::unix::fs::symlink("config.json", scratch.path("link")).unwrap();
    let config = DockerConfig::open(scratch.path("link")).unwrap();
    assert_eq!(config.credentials("host", "").unwrap(), Some(Credentials::new("u", "p")));
    for empty in ["", " \n", "{}", "{\"auths\":null}"] {
        assert_eq!(DockerConfig::parse(empty).unwrap().credentials("host", "").unwrap(), None);
    }
}

/// Used all the same, as Docker does; but said.
#[test]
fn files_that_others_may_read_or_change_are_warned_of() {
    let scratch = Scratch::new();
    let path = scratch.path("config.json");
    let secret = json!({ "auths": { "host": login("u", "p") } });
    let public = json!({ "auths": { "host": {} }, "credsStore": "pass" });
    for (config, mode, expected) in [
        (&secret, 0o600, None),
        (&secret, 0o640, Some("others may read the passwords in it: chmod go-r")),
        (&secret, 0o604, Some("others may read the passwords in it: chmod go-r")),
        (&secret, 0o620, Some("others may change it, and so what is sent and run: chmod go-w")),
        (&public, 0o644, None),
        (&public, 0o666, Some("others may change it, and so what is sent and run: chmod go-w")),
    ] {
        fs::write(&path, config.to_string()).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let config = DockerConfig::open(&path).unwrap();
        let expected: Vec<String> = expected.iter().map(|text| format!("{}: {text}", path.display())).collect();
        assert_eq!(config.warnings(), expected, "{mode:o}");
    }
}

/// Case 172: hosts, and nothing that was written where a host should be.
#[test]
fn debug_shows_hosts_only() {
    let config = parse(&json!({
        "auths": { "host:5000/org": login("alice", PASSWORD), "https://alice:Wonderland@x": {}, "HOST:5000": {} },
        "credHelpers": { "gcr.io": "gcloud" },
        "credsStore": "pass",
    }));
    assert_eq!(format!("{config:?}"), r#"DockerConfig { hosts: ["gcr.io", "host:5000"], .. }"#);
}

fn pull(config: DockerConfig, image: &ImageReference) -> layercake::Result<()> {
    let scratch = Scratch::new();
    quick().credentials(config).build().unwrap().pull(image).to(&scratch.store("store")).map(drop)
}

/// A5: a password, up to the registry.
#[test]
fn a_configuration_signs_in() {
    let (served, image) = Served::with(&Fixture::demo());
    let config = |entry: Value| parse(&json!({ "auths": { image.host(): entry } }));
    served.registry.require_login("alice", PASSWORD);
    pull(config(login("alice", PASSWORD)), &image).unwrap();
    pull(config(json!({ "username": "alice", "password": PASSWORD })), &image).unwrap();
    let error = failure(pull(config(login("alice", "wrong")), &image));
    assert_kind!(error, ErrorKind::Registry(refusal) if refusal.status == 401);
    let error = failure(pull(config(json!({ "auth": "%Wonderland" })), &image));
    assert_kind!(error, ErrorKind::Authentication { .. });
    assert_no_secret(&format!("{error} {error:?}"));
    served.registry.require_tokens(Duration::from_secs(300));
    pull(config(login("alice", PASSWORD)), &image).unwrap();
}

/// A3: an identity token goes to the token server only, in a form or, where that knows no forms, as a password; and a
/// registry token to the registry as it is.
#[test]
fn tokens_of_a_configuration_sign_in() {
    let (served, image) = Served::with(&Fixture::demo());
    let config = |entry: Value| parse(&json!({ "auths": { image.host(): entry } }));
    served.registry.require_login("<token>", "refresh");
    served.registry.require_tokens(Duration::from_secs(300));
    served.registry.fault(Fault::on("/token").times(1).status(405));
    pull(config(json!({ "auth": "MDAwMDAwMDA6", "identitytoken": "refresh" })), &image).unwrap();
    assert_eq!((served.count("POST", "/token"), served.count("GET", "/token")), (1, 1));
    served.registry.clear_requests();
    let error = failure(pull(config(json!({ "registrytoken": "opaque" })), &image));
    assert_kind!(error, ErrorKind::Registry(refusal) if refusal.status == 401);
    let requests = served.registry.requests();
    assert!(requests.iter().all(|request| request.path.starts_with("/v2/")), "no token server is asked");
    assert_eq!(requests[0].header("authorization"), None);
    assert!(requests.len() > 1 && requests[1..].iter().all(|r| r.header("authorization") == Some("Bearer opaque")));
}

/// Case 175: with credentials for one registry, another sees none, and no Authorization at all.
#[test]
fn another_registry_sees_nothing_of_it() {
    let (served, image) = Served::with(&Fixture::demo());
    served.registry.require_login("alice", PASSWORD);
    let other = testing::Registry::start_at(&served.store, ([127, 0, 0, 2], 0).into()).unwrap();
    other.require_login("alice", PASSWORD);
    let there = other.reference("app:1").unwrap();
    let config = parse(&json!({ "auths": {
        image.host(): login("alice", PASSWORD),
        "127.0.0.2": login("alice", PASSWORD),
        format!("{}/apple", other.host()): login("alice", PASSWORD),
    } }));
    pull(config.clone(), &image).unwrap();
    let error = failure(pull(config, &there));
    assert_kind!(error, ErrorKind::Registry(refusal) if refusal.status == 401);
    assert!(!other.requests().is_empty());
    assert!(other.requests().iter().all(|request| request.header("authorization").is_none()));
    assert_no_secret(&format!("{error} {error:?}"));
}
