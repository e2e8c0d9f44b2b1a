//! Credential helpers: when they are run, what they are told, and how they may fail.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;
use std::time::Instant;

use layercake::Error;
use layercake::ErrorKind;
use layercake::registry::CredentialSource;
use layercake::registry::Credentials;
use layercake::registry::DockerConfig;
use layercake::testing::Fixture;
use serde_json::json;

use crate::assert_kind;
use crate::credentials::assert_no_secret;
use crate::credentials::login;
use crate::credentials::parse;
use crate::support::Scratch;
use crate::support::Served;
use crate::support::failure;
use crate::support::quick;
use crate::support::tools::run;

/// A helper's answer, which is the same as that of `login("alice", "Wonderland")`.
const ANSWER: &str = r#"{"ServerURL":"x","Username":"alice","Secret":"Wonderland"}"#;

/// A directory of helpers.
struct Helpers(Scratch);

impl Helpers {
    fn new() -> Helpers {
        Helpers(Scratch::new())
    }

    /// Adds `docker-credential-NAME`. Another program writes it, because a child that another test starts meanwhile
    /// would hold it open for writing, and the kernel does not run such a file.
    fn add(&self, name: &str, script: &str) {
        let text = self.0.path("text");
        fs::write(&text, format!("#!/bin/sh\n{script}\n")).unwrap();
        let mut install = Command::new("install");
        run(install.args(["-m", "755"]).arg(&text).arg(self.0.path(&format!("docker-credential-{name}")))).ok();
    }

    /// A helper that answers, and writes down what it was asked.
    fn add_good(&self, name: &str) {
        self.add(name, &format!("cat >> \"$0.asked\"; echo >> \"$0.asked\"; echo '{ANSWER}'"));
    }

    fn asked(&self, name: &str) -> String {
        fs::read_to_string(self.0.path(&format!("docker-credential-{name}.asked"))).unwrap_or_default()
    }

    fn config(&self, config: &serde_json::Value) -> DockerConfig {
        parse(config).helper_path(self.0.path(""))
    }

    /// What comes of a helper that is this script, and how long it takes.
    fn outcome(&self, script: &str, limit: Duration) -> (layercake::Result<Option<Credentials>>, Duration) {
        self.add("test", script);
        let config = self.config(&json!({ "credsStore": "test" })).helper_timeout(limit);
        let started = Instant::now();
        (config.credentials("host", ""), started.elapsed())
    }

    fn result(&self, script: &str) -> layercake::Result<Option<Credentials>> {
        self.outcome(script, Duration::from_secs(30)).0
    }
}

fn alice() -> Credentials {
    Credentials::new("alice", "Wonderland")
}

/// A helper's failure, without what each begins with.
#[track_caller]
fn reason(error: &Error) -> String {
    assert_kind!(error, ErrorKind::Authentication { .. });
    assert_no_secret(&format!("{error} {error:?}"));
    let text = error.to_string();
    let text = text.strip_prefix("authentication: the configuration: credential helper ").expect("it names the helper");
    text.to_owned()
}

/// A5: `credHelpers`, then `credsStore`, then `auths`.
#[test]
fn a_helper_for_the_host_goes_before_the_store_and_the_store_before_the_file() {
    let helpers = Helpers::new();
    helpers.add_good("good");
    helpers.add("empty", "echo 'credentials not found in native keychain'; exit 1");
    let file = Some(Credentials::new("u", "file"));
    for (store, helper, expected) in [
        (None, None, file.clone()),
        (Some("good"), None, Some(alice())),
        (Some("empty"), None, file),
        (Some("empty"), Some("good"), Some(alice())),
        (Some("good"), Some("empty"), None),
        (None, Some("empty"), None),
        (Some("missing"), Some("good"), Some(alice())),
    ] {
        let mut config = json!({ "auths": { "host": login("u", "file") } });
        config["credsStore"] = json!(store);
        config["credHelpers"] = helper.map_or(json!({ "host:1": "missing" }), |name| json!({ "HOST": name }));
        let found = helpers.config(&config).credentials("host", "a").unwrap();
        assert_eq!(found, expected, "{store:?} {helper:?}");
    }
}

/// The name by which `docker login` told the helper of the server; without a line end.
#[test]
fn a_helper_is_asked_by_the_key_that_login_used() {
    for (config, host, expected) in [
        (json!({ "credsStore": "good" }), "host:5000", "host:5000"),
        (
            json!({ "credsStore": "good", "auths": { "https://host:5000/v2/": {} } }),
            "host:5000",
            "https://host:5000/v2/",
        ),
        (json!({ "credsStore": "good", "auths": { "host/org": {} } }), "host", "host"),
        (json!({ "credsStore": "good" }), "docker.io", "https://index.docker.io/v1/"),
        (json!({ "credHelpers": { "docker.io": "good" } }), "docker.io", "https://index.docker.io/v1/"),
        (json!({ "credHelpers": { "https://gcr.io": "good" } }), "gcr.io", "https://gcr.io"),
    ] {
        let helpers = Helpers::new();
        helpers.add_good("good");
        assert_eq!(helpers.config(&config).credentials(host, "org/app").unwrap(), Some(alice()));
        assert_eq!(helpers.asked("good"), format!("{expected}\n"), "{config}");
    }
}

/// Case 168: refused before anything is run or looked for.
#[test]
fn a_helpers_name_is_one_word() {
    let helpers = Helpers::new();
    helpers.add_good("x");
    let long = "a".repeat(101);
    for name in ["../docker-credential-x", "../../evil", "/bin/sh", "a b", "", "-x", ".x", "x\0", "x;y", "é", &long] {
        let config = helpers.config(&json!({ "credHelpers": { "host": name } }));
        let error = failure(config.credentials("host", "")).to_string();
        assert!(error.ends_with(" is no name of a credential helper"), "{error}");
        assert_eq!(config.credentials("other", "").unwrap(), None);
    }
    let config = helpers.config(&json!({ "credHelpers": { "host": 5 } }));
    let expected = "authentication: the configuration: the helper of \"host\" is no text";
    assert_eq!(failure(config.credentials("host", "")).to_string(), expected);
    assert_eq!(helpers.asked("x"), "");
}

/// Case 169: a second line would be another question.
#[test]
fn a_server_of_two_lines_is_not_asked_for() {
    let helpers = Helpers::new();
    helpers.add_good("good");
    let long = "a".repeat(4097);
    for host in ["host\nevil", "host\r", "host\0", "", &long] {
        let error = failure(helpers.config(&json!({ "credsStore": "good" })).credentials(host, ""));
        assert_eq!(reason(&error), "docker-credential-good: it cannot be asked for a server of this name");
    }
    assert_eq!(helpers.asked("good"), "");
}

/// Cases 168, 171, CVE-2021-41092: only in the search path, and never something else instead.
#[test]
fn a_missing_helper_is_an_error_that_names_it() {
    let helpers = Helpers::new();
    helpers.add_good("other");
    helpers.0.dir("docker-credential-directory");
    fs::write(helpers.0.path("docker-credential-plain"), "#!/bin/sh").unwrap();
    let auths = json!({ "host": login("u", "p"), "https://index.docker.io/v1/": login("u", "p") });
    for name in ["missing", "directory", "plain"] {
        let config = helpers.config(&json!({ "credsStore": name, "auths": auths }));
        let expected = format!("docker-credential-{name}: there is no such program in the search path");
        for host in ["host", "docker.io", "other"] {
            assert_eq!(reason(&failure(config.credentials(host, ""))), expected);
        }
    }
    let here = parse(&json!({ "credsStore": "other" }));
    let relative = helpers.0.path("").strip_prefix("/").unwrap().to_owned();
    for path in [PathBuf::new(), ":".into(), ".".into(), "..".into(), relative] {
        assert!(here.clone().helper_path(path).credentials("host", "").is_err());
    }
    assert!(here.credentials("host", "").is_err(), "a parsed text has no search path");
    helpers.add("broken", "");
    fs::remove_file(helpers.0.path("text")).unwrap();
    run(Command::new("sed").args(["-i", "s|/bin/sh|/nowhere|"]).arg(helpers.0.path("docker-credential-broken"))).ok();
    let error = failure(helpers.config(&json!({ "credsStore": "broken" })).credentials("host", ""));
    assert!(reason(&error).starts_with("docker-credential-broken: it cannot be started: "), "{error}");
}

/// Case 170: what helpers know nothing of is no failure, however they say it.
#[test]
fn a_helper_may_know_nothing() {
    let helpers = Helpers::new();
    for script in [
        "echo 'credentials not found in native keychain'; exit 1",
        "echo 'credentials not found in native keychain' >&2; exit 1",
        "echo 'time=now starting' >&2; echo 'error: credentials not found in native keychain' >&2; exit 3",
        r#"echo '{"ServerURL":"x","Username":"","Secret":""}'"#,
    ] {
        assert_eq!(helpers.result(script).unwrap(), None, "{script}");
    }
}

/// Case 170: how it ended, the first line of its complaint, and nothing of what it printed as its answer.
#[test]
fn a_helper_that_fails_is_an_error() {
    let helpers = Helpers::new();
    for (script, expected) in [
        ("echo Wonderland; exit 2", "exit status: 2"),
        (
            "echo; printf 'no \\033[31mway\\n' >&2; echo more >&2; echo Wonderland; exit 2",
            "exit status: 2: no  [31mway",
        ),
        ("echo 'no credentials server URL'; exit 1", "exit status: 1: no credentials server URL"),
        ("echo 'credentials server URL missing' >&2; exit 1", "exit status: 1: credentials server URL missing"),
        ("kill -TERM $$; sleep 10", "signal: 15 (SIGTERM)"),
        ("true", "its answer is no JSON object"),
        ("echo Wonderland", "its answer is no JSON object"),
        ("echo '[\"Wonderland\"]'", "its answer is no JSON object"),
        (
            "echo '{\"Username\":\"alice\",\"Secret\":[\"Wonderland\"]}'",
            "its answer cannot be used: its Secret is no text",
        ),
        ("echo '{\"Username\":\"alice\"}'", "its answer cannot be used: it has no secret"),
        ("echo '{\"Secret\":\"Wonderland\"}'", "its answer cannot be used: it has no user name"),
        (
            "echo '{\"Username\":\"a:b\",\"Secret\":\"Wonderland\"}'",
            "its answer cannot be used: its user name has a colon",
        ),
        ("head -c 104857600 /dev/zero; exit 0", "it printed more than 65536 bytes"),
        ("while :; do echo Wonderland; done", "it printed more than 65536 bytes"),
    ] {
        let error = failure(helpers.result(script));
        assert_eq!(reason(&error), format!("docker-credential-test: {expected}"), "{script}");
    }
}

/// Case 170: odd, and no reason to fail.
#[test]
fn a_helper_may_behave_oddly() {
    let helpers = Helpers::new();
    for script in [
        format!("exec <&-; echo '{ANSWER}'"),
        format!("head -c 104857600 /dev/zero >&2; echo '{ANSWER}'"),
        format!("printf '%s' '{}'", ANSWER.replace("Username", "username")),
        format!("printf '{}%065000d' 0 | sed 's/0*$//'", ANSWER.replace('%', "%%")),
    ] {
        assert_eq!(helpers.result(&script).unwrap(), Some(alice()), "{script}");
    }
    let token = r#"echo '{"Username":"<token>","Secret":"refresh"}'"#;
    assert_eq!(helpers.result(token).unwrap(), Some(Credentials::identity_token("refresh")));
}

/// Case 170: somebody whom it left behind holds its output open.
#[test]
fn a_helper_is_not_waited_for_when_it_has_ended() {
    let (found, took) = Helpers::new().outcome(&format!("sleep 20 & echo '{ANSWER}'"), Duration::from_secs(30));
    assert_eq!(found.unwrap(), Some(alice()));
    assert!(took < Duration::from_secs(10), "{took:?}");
}

/// Case 170: at the limit it is ended, and so are its children, whatever they did with their output.
#[test]
fn a_helper_that_hangs_is_ended_with_its_children() {
    std::thread::scope(|scope| {
        for script in ["", "trap '' TERM HUP INT;", "exec >&- 2>&-;", "cat;", "echo '{';"] {
            scope.spawn(move || assert_ended(&format!("{script} sleep 1000 & echo $$ $! > \"$0.pids\"; wait")));
        }
    });
}

/// Of a helper that writes down its own number and its child's.
#[track_caller]
fn assert_ended(script: &str) {
    let helpers = Helpers::new();
    let limit = Duration::from_secs(2);
    let (found, took) = helpers.outcome(script, limit);
    assert_eq!(reason(&failure(found)), "docker-credential-test: it took longer than 2s and was ended", "{script}");
    assert!(took >= limit && took < limit * 5, "{took:?}");
    let pids = fs::read_to_string(helpers.0.path("docker-credential-test.pids")).unwrap();
    assert_eq!(pids.split_whitespace().count(), 2, "{pids}");
    pids.split_whitespace().for_each(assert_gone);
}

/// Its children are others' to reap: a zombie will do.
#[track_caller]
fn assert_gone(pid: &str) {
    let is_gone = || match fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => stat.rsplit_once(") ").is_some_and(|(_, state)| state.starts_with(['Z', 'X'])),
        Err(_) => true,
    };
    let started = Instant::now();
    while !is_gone() {
        assert!(started.elapsed() < Duration::from_secs(5), "process {pid} is still there");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Case 173: a helper sees one word and the server, and no secret of the configuration.
#[test]
fn a_helper_sees_no_secret() {
    let helpers = Helpers::new();
    let seen = "tr '\\0' '\\n' < /proc/$$/cmdline; tr '\\0' '\\n' < /proc/$$/environ; cat";
    helpers.add("test", &format!("({seen}) > \"$0.seen\"; echo '{ANSWER}'"));
    let auths = json!({ "host": login("alice", "Wonderland"), "other": { "identitytoken": "Wonderland" } });
    let config = helpers.config(&json!({ "credsStore": "test", "auths": auths }));
    assert_eq!(config.credentials("host", "").unwrap(), Some(alice()));
    let seen = fs::read_to_string(helpers.0.path("docker-credential-test.seen")).unwrap();
    let program = helpers.0.path("docker-credential-test");
    assert!(seen.starts_with(&format!("/bin/sh\n{}\nget\n", program.display())) && seen.ends_with("\nhost"), "{seen}");
    assert_no_secret(&seen);
}

/// A5: up to the registry; and its failure is the pull's.
#[test]
fn a_helper_signs_a_pull_in() {
    let (served, image) = Served::with(&Fixture::demo());
    served.registry.require_login("alice", "Wonderland");
    let helpers = Helpers::new();
    helpers.add_good("good");
    helpers.add("bad", "echo locked >&2; exit 1");
    let pull = |name: &str| {
        let config = helpers.config(&json!({ "credHelpers": { image.host(): name } }));
        let store = Scratch::new();
        quick().credentials(config).build().unwrap().pull(&image).to(&store.store("store")).map(drop)
    };
    pull("good").unwrap();
    assert_eq!(helpers.asked("good"), format!("{}\n", image.host()), "once");
    let error = failure(pull("bad"));
    assert_kind!(error, ErrorKind::Authentication { .. });
    assert!(error.to_string().ends_with("credential helper docker-credential-bad: exit status: 1: locked"), "{error}");
}
