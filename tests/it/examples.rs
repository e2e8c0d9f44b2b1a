//! The examples, as programs: what they print is a contract (SPEC 2.4 and 2.5).

#[path = "../../examples/support/human.rs"]
mod human;

use std::fs;
use std::time::Duration;
use std::time::SystemTime;

use layercake::Digest;
use layercake::Store;
use layercake::testing::Fixture;
use serde_json::Value;

use crate::support::Scratch;
use crate::support::name;
use crate::support::platform;
use crate::support::tools::Ran;
use crate::support::tools::example;
use crate::support::tools::run;

/// SPEC 2.5: sizes, to the quirk.
#[test]
fn sizes_are_dockers() {
    for (bytes, expected) in [
        (0, "0B"),
        (1, "1B"),
        (999, "999B"),
        (1000, "1kB"),
        (1023, "1.02kB"),
        (12_345, "12.3kB"),
        (999_499, "999kB"),
        (999_500, "1e+03kB"),
        (999_999, "1e+03kB"),
        (1_000_000, "1MB"),
        (78_100_000, "78.1MB"),
        (117_249_345, "117MB"),
        (1_230_000_000, "1.23GB"),
        (100_000_000_000, "100GB"),
        (u64::MAX, "18.4EB"),
    ] {
        assert_eq!(human::size(bytes), expected, "{bytes}");
    }
}

/// SPEC 2.5: ages, at every border.
#[test]
fn ages_are_dockers() {
    let (minute, hour, day) = (60, 3600, 86_400);
    for (seconds, expected) in [
        (0, "Less than a second"),
        (1, "1 second"),
        (59, "59 seconds"),
        (60, "About a minute"),
        (119, "About a minute"),
        (120, "2 minutes"),
        (59 * minute + 59, "59 minutes"),
        (hour, "About an hour"),
        (hour + 29 * minute + 59, "About an hour"),
        (hour + 30 * minute, "2 hours"),
        (47 * hour + 29 * minute + 59, "47 hours"),
        (47 * hour + 30 * minute, "2 days"),
        (13 * day, "13 days"),
        (14 * day, "2 weeks"),
        (59 * day, "8 weeks"),
        (60 * day, "2 months"),
        (729 * day, "24 months"),
        (730 * day, "2 years"),
    ] {
        assert_eq!(human::duration(Duration::from_secs(seconds)), expected, "{seconds}");
    }
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_780_000_000);
    let year_1 = SystemTime::UNIX_EPOCH - Duration::from_secs(62_135_596_800);
    assert_eq!(human::age(Some(SystemTime::UNIX_EPOCH), now), "56 years ago");
    assert_eq!(human::age(Some(year_1), now), "N/A");
    assert_eq!(human::age(None, now), "N/A");
    assert_eq!(human::age(Some(now + Duration::from_secs(100)), now), "Less than a second ago", "clocks differ");
}

fn images(store: &Store, options: &[&str]) -> String {
    run(example("images").arg("--store").arg(store.path()).args(options)).ok()
}

/// A store with the rows that there can be.
fn rows(scratch: &Scratch) -> Store {
    let store = scratch.store("store");
    let fixture = |created: &str| Fixture::new(platform("linux/amd64")).created(created).layer(&[("a", b"a")]);
    for (reference, created) in [
        ("ubuntu:24.04", "2014-05-01T00:00:00Z"),
        ("ubuntu:22.04", "2014-05-01T00:00:00Z"),
        ("jpetazzo/clock:1", "2014-05-01T00:00:00Z"),
        ("localhost:5000/wordpress", "2015-01-01T00:00:00Z"),
        ("old:1", "0001-01-01T00:00:00Z"),
    ] {
        fixture(created).tag(&store, &name(reference)).unwrap();
    }
    let pinned = fixture("2013-01-01T00:00:00Z").write(&store).unwrap();
    store.tag(&name("pinned").with_digest(pinned.digest), &pinned).unwrap();
    store
}

/// The classic table: newest first, then repository, then tag.
#[test]
fn images_prints_dockers_table() {
    let scratch = Scratch::new();
    let store = rows(&scratch);
    let table = images(&store, &[]);
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines[0], "REPOSITORY                 TAG       IMAGE ID       CREATED        SIZE");
    let columns = |line: &str| line.split_whitespace().take(2).collect::<Vec<_>>().join(" ");
    let shown: Vec<String> = lines[1..].iter().map(|line| columns(line)).collect();
    assert_eq!(
        shown,
        [
            "localhost:5000/wordpress latest",
            "jpetazzo/clock 1",
            "ubuntu 22.04",
            "ubuntu 24.04",
            "pinned <none>",
            "old 1",
        ]
    );
    let id = store.image(name("old:1")).unwrap().id();
    assert_eq!(lines[6], format!("old                        1         {}   N/A            2.05kB", id.short()));
}

#[test]
fn images_has_dockers_options() {
    let scratch = Scratch::new();
    let store = rows(&scratch);
    let id = store.image(name("ubuntu:22.04")).unwrap().id();
    assert_eq!(images(&store, &["-q", "--no-trunc", "ubuntu:22.04"]), format!("{id}\n"));
    assert_eq!(images(&store, &["-q", "ubuntu"]), format!("{0}\n{0}\n", id.short()));
    for (filter, count) in
        [("ubuntu", 2), ("ubuntu:2*", 2), ("u*", 2), ("*", 4), ("*/*", 2), ("nothing", 0), ("old:1", 1)]
    {
        assert_eq!(images(&store, &["-q", filter]).lines().count(), count, "{filter}");
    }
    let digest = store.resolve(name("old:1")).unwrap().digest.to_string();
    let table = images(&store, &["--digests", "old"]);
    let header: Vec<&str> =
        table.lines().next().unwrap().split("  ").filter(|cell| !cell.is_empty()).map(str::trim).collect();
    assert_eq!(header, ["REPOSITORY", "TAG", "DIGEST", "IMAGE ID", "CREATED", "SIZE"]);
    assert!(table.contains(&digest));
    let json: Value = serde_json::from_str(&images(&store, &["--json"])).unwrap();
    assert_eq!(json.as_array().unwrap().len(), 6);
    assert_eq!(json[0]["repository"], "localhost:5000/wordpress");
    assert_eq!(json[0]["size"], 2048);
}

/// Unnamed entries, and names that are none.
#[test]
fn images_lists_what_has_no_name() {
    let scratch = Scratch::new();
    let store = rows(&scratch);
    let index = fs::read_to_string(store.path().join("index.json")).unwrap();
    let index = index
        .replace("\"io.containerd.image.name\":\"docker.io/library/old:1\",", "")
        .replace("\"docker.io/library/old:1\"", "\"app\"")
        .replace("\"annotations\":{\"io.containerd.image.name\":\"docker.io/jpetazzo/clock:1\",\"org.opencontainers.image.ref.name\":\"docker.io/jpetazzo/clock:1\"}", "\"annotations\":{}");
    fs::write(store.path().join("index.json"), index).unwrap();
    let table = images(&store, &[]);
    let columns = |line: &str| line.split_whitespace().take(2).collect::<Vec<_>>().join(" ");
    let shown: Vec<String> = table.lines().skip(1).map(columns).collect();
    assert_eq!(shown[1], "<none> <none>");
    assert_eq!(shown[5], "<none> app");
}

#[test]
fn inspect_prints_the_documents_as_they_are() {
    let scratch = Scratch::new();
    let store = rows(&scratch);
    let inspect = |options: &[&str]| run(example("inspect").arg("--store").arg(store.path()).args(options));
    let printed = inspect(&["ubuntu:24.04"]).ok();
    let report: Value = serde_json::from_str(&printed).unwrap();
    let image = store.image(name("ubuntu:24.04")).unwrap();
    assert_eq!(report["id"], image.id().to_string());
    assert!(printed.contains(std::str::from_utf8(image.config().unwrap().raw()).unwrap()));
    assert!(printed.contains(std::str::from_utf8(image.manifest().raw()).unwrap()));
    assert_eq!(report["layers"][0]["diffId"], image.config().unwrap().diff_ids().unwrap()[0].to_string());
    assert_eq!(report["layers"][0]["unpackedSize"], 2048);
    assert_fails(inspect(&["nothing"]), "image docker.io/library/nothing not found");
    assert_fails(inspect(&[]), "usage: inspect");
    assert_fails(inspect(&["--platform", "linux/arm64", "ubuntu:24.04"]), "no matching manifest for linux/arm64");
}

/// Exit status 1, and one line that begins with `error:`.
#[track_caller]
pub fn assert_fails(ran: Ran, text: &str) {
    assert_eq!((ran.status, ran.err.lines().count()), (1, 1), "{ran:?}");
    assert!(ran.err.starts_with("error: ") && ran.err.contains(text), "{ran:?}");
}

#[test]
fn mistakes_are_one_line() {
    let scratch = Scratch::new();
    let nowhere = scratch.path("nowhere");
    assert_fails(run(example("images").arg("--store").arg(&nowhere)), "nowhere");
    assert_fails(run(example("images").arg("--colour")), "--colour");
    fs::create_dir(&nowhere).unwrap();
    fs::write(nowhere.join("file"), "").unwrap();
    assert_fails(run(example("images").arg("--store").arg(&nowhere)), "no OCI image layout");
}

#[test]
fn a_store_can_come_from_the_environment() {
    let scratch = Scratch::new();
    let store = rows(&scratch);
    assert_eq!(run(example("images").arg("-q").env("LAYERCAKE_STORE", store.path())).ok().lines().count(), 6);
    let data = scratch.path("data");
    Store::create(data.join("layercake")).unwrap();
    assert_eq!(run(example("images").arg("-q").env("XDG_DATA_HOME", &data)).ok(), "");
}

#[cfg(feature = "registry")]
mod pull {
    use super::*;
    use crate::support::Served;

    fn pull(store: &std::path::Path, options: &[&str]) -> Ran {
        run(example("pull").arg("--store").arg(store).args(options))
    }

    /// The README's first command: the embedded registry, and then the table.
    #[test]
    fn without_a_name_the_demo_is_pulled() {
        let scratch = Scratch::new();
        let path = scratch.path("store");
        let printed = pull(&path, &[]).ok();
        assert!(printed.starts_with("Using default tag: latest\nlatest: Pulling from layercake/demo\n"), "{printed}");
        assert!(printed.contains("\nStatus: Downloaded newer image for 127.0.0.1:"), "{printed}");
        let table = images(&Store::open(&path).unwrap(), &[]);
        assert!(table.contains("/layercake/demo   latest"), "{table}");
        pull(&path, &["--platform", "linux/arm64"]).ok();
    }

    /// SPEC 2.4, to the line.
    #[test]
    fn pull_prints_dockers_transcript() {
        let (served, image) = Served::with(&Fixture::new(platform("linux/amd64")).layer(&[("a", b"a")]));
        let store = served.scratch.path("store");
        let root = served.store.resolve(name("example.com/app:1")).unwrap();
        let layer = served.store.image(name("example.com/app:1")).unwrap().manifest().layers()[0].digest;
        let (id, name) = (layer.short(), image.to_string());
        let last = |status: &str| format!("Digest: {}\nStatus: {status} {name}\n{name}\n", root.digest);
        let newer = last("Downloaded newer image for");
        let layers =
            format!("{id}: Pulling fs layer\n{id}: Verifying Checksum\n{id}: Download complete\n{id}: Pull complete\n");
        assert_eq!(pull(&store, &[&name]).ok(), format!("1: Pulling from app\n{layers}{newer}"));
        let up_to_date = last("Image is up to date for");
        assert_eq!(pull(&store, &[&name]).ok(), format!("1: Pulling from app\n{up_to_date}"));
        assert_eq!(pull(&store, &["--policy", "missing", &name]).ok(), up_to_date);
        assert_eq!(pull(&store, &["--policy", "never", &name]).ok(), up_to_date);
        assert_eq!(pull(&store, &["--quiet", &name]).ok(), format!("{name}\n"));

        served.store.tag(&super::name("example.com/copy"), &root).unwrap();
        let copy = format!("{}/copy", served.registry.host());
        let printed = pull(&store, &[&copy]).ok();
        let newer = newer.replace(&name, &format!("{copy}:latest"));
        let expected = format!("Using default tag: latest\nlatest: Pulling from copy\n{id}: Already exists\n{newer}");
        assert_eq!(printed, expected);

        let pinned = format!("{}/app@{}", served.registry.host(), root.digest);
        assert!(pull(&store, &[&pinned]).ok().starts_with(&format!("{pinned}: Pulling from app\n")));
    }

    #[test]
    fn pull_signs_in_with_a_password_from_stdin() {
        use std::io::Write;
        use std::process::Stdio;
        let (served, image) = Served::with(&Fixture::demo());
        served.registry.require_login("alice", "secret");
        let store = served.scratch.path("store");
        let denied = pull(&store, &[&image.to_string()]);
        let text = "repository does not exist or may require 'docker login'";
        assert_fails(denied, &format!("pull access denied for {}, {text}", image.familiar_repository()));
        let mut command = example("pull");
        command.arg("--store").arg(&store).args(["--username", "alice", "--password-stdin", &image.to_string()]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(b"secret\n").unwrap();
        assert!(child.wait_with_output().unwrap().status.success());
        assert_fails(pull(&store, &["--username", "alice", "app"]), "--username and --password-stdin go together");
    }

    /// A5: as whoever signed in with Docker or podman.
    #[test]
    fn pull_signs_in_as_dockers_and_podmans_files_say() {
        let (served, image) = Served::with(&Fixture::demo());
        served.registry.require_login("alice", "secret");
        let store = served.scratch.path("store");
        let home = served.scratch.dir("home");
        fs::create_dir_all(home.join(".docker")).unwrap();
        // base64 of `alice:secret`
        let config = serde_json::json!({ "auths": { image.host(): { "auth": "YWxpY2U6c2VjcmV0" } } }).to_string();
        fs::write(home.join(".docker/config.json"), &config).unwrap();
        fs::write(served.scratch.path("auth.json"), &config).unwrap();
        for (variable, value) in [
            ("HOME", home.clone()),
            ("DOCKER_CONFIG", home.join(".docker")),
            ("REGISTRY_AUTH_FILE", served.scratch.path("auth.json")),
        ] {
            let mut command = example("pull");
            command.env(variable, value).arg("--store").arg(&store).args(["--quiet", &image.to_string()]);
            assert_eq!(run(&mut command).ok(), format!("{image}\n"), "{variable}");
        }
        fs::write(home.join(".docker/config.json"), "secret").unwrap();
        let mut command = example("pull");
        command.env("HOME", &home).arg("--store").arg(&store).arg(image.to_string());
        assert_fails(run(&mut command), ".docker/config.json: it is no JSON: ");
    }

    /// A server that speaks TLS, by nobody that anybody trusts, and has nothing.
    #[cfg(feature = "rustls")]
    fn empty_registry() -> std::net::SocketAddr {
        use rustls::pki_types::PrivateKeyDer;
        use std::io::Read;
        use std::io::Write;
        use std::sync::Arc;
        let certificate = include_bytes!("support/tls/self-signed.der").as_slice();
        let key = include_bytes!("support/tls/self-signed.key.der").as_slice();
        let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.into()], PrivateKeyDer::try_from(key).expect("it is a key"));
        let config = Arc::new(config.unwrap());
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                let tls = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
                let mut stream = rustls::StreamOwned::new(tls, connection.unwrap());
                if stream.read(&mut [0; 4096]).is_ok() {
                    let _ =
                        stream.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
                }
            }
        });
        address
    }

    /// X5: what it takes to speak to a host whose certificate nobody vouches for.
    #[cfg(feature = "rustls")]
    #[test]
    fn pull_trusts_whom_it_is_told_to() {
        use base64::Engine;
        let scratch = Scratch::new();
        let (store, pem) = (scratch.path("store"), scratch.path("ca.pem"));
        let certificate =
            base64::prelude::BASE64_STANDARD.encode(include_bytes!("support/tls/self-signed.der").as_slice());
        let text = format!("-----BEGIN CERTIFICATE-----\n{certificate}\n-----END CERTIFICATE-----\n");
        fs::write(&pem, text).unwrap();
        let image = format!("{}/app:1", empty_registry());
        let pem = pem.to_str().unwrap();
        assert_fails(pull(&store, &["--insecure", &image]), &format!("manifest for {image} not found"));
        // It vouches for others only, not for itself.
        assert_fails(pull(&store, &["--ca", pem, &image]), "no secure connection to");
        assert_fails(pull(&store, &["--ca", "/nowhere/ca.pem", &image]), "/nowhere/ca.pem: No such file");
        assert_fails(pull(&store, &["--ca", pem, "--plain-http", &image]), "--plain-http goes neither with");
    }

    #[test]
    fn pull_fails_in_one_line() {
        let (served, image) = Served::with(&Fixture::demo());
        let store = served.scratch.path("store");
        let host = served.registry.host();
        for (options, text) in [
            (&["Foo/Bar"][..], "must be lowercase"),
            (&["scratch"], "'scratch' is a reserved name"),
            (&[&format!("{host}/app:2")], &format!("manifest for {host}/app:2 not found: ")),
            (&[&format!("{host}/nobody")], &format!("pull access denied for {host}/nobody, ")),
            (&["--platform", "linux/riscv64", &image.to_string()], "there are: linux/amd64, linux/arm64"),
            (&["--platform", "riscv", "app"], "invalid platform"),
            (&["--policy", "sometimes", "app"], "unknown policy"),
            (&["--jobs", "many", "app"], "many"),
            (&["--policy", "never", "app"], "not found"),
            (&["one", "two"], "unexpected argument"),
        ] {
            assert_fails(pull(&store, options), text);
        }
        // Nobody listens on an address that no other test uses.
        let refused = "127.0.0.8:5000/app";
        assert_fails(pull(&store, &[refused]), "Connection refused");
        let proxied = run(example("pull").env("HTTP_PROXY", "http://127.0.0.1:1").arg("--store").arg(&store).args([
            "--quiet",
            "--no-sync",
            "--jobs",
            "1",
            &image.to_string(),
        ]));
        assert_eq!(proxied.ok(), format!("{image}\n"), "no proxy unless asked");
    }
}

/// A name in the table is one that can be typed.
#[test]
fn digests_in_the_table_are_whole() {
    let scratch = Scratch::new();
    let store = rows(&scratch);
    for line in images(&store, &["--digests"]).lines().skip(1) {
        let digest = line.split_whitespace().nth(2).unwrap();
        assert!(digest.parse::<Digest>().is_ok(), "{line}");
    }
}
