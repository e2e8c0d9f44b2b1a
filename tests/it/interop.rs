//! Real registries and other tools, where they are installed.

mod making;
pub mod pushing;

use std::fs;
use std::io::Write;
use std::net::Ipv4Addr;
use std::net::TcpListener;
use std::net::TcpStream;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::sync::atomic::AtomicU8;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use layercake::Durability;
use layercake::ImageReference;
use layercake::Registry;
use layercake::Store;
use layercake::registry::Failure;
use layercake::registry::Login;
use layercake::testing;
use layercake::testing::Fault;
use layercake::testing::Fixture;
use layercake::transfer::PullStatus;

use crate::support::Scratch;
use crate::support::client;
use crate::support::failure;
use crate::support::name;
use crate::support::platform;
use crate::support::tools::installed;
use crate::support::tools::run;
use crate::support::two_layers;

/// A loopback address that no other test uses, and a free port of it: nobody takes it while the registry is restarted.
fn place_of_its_own() -> String {
    static NEXT: AtomicU8 = AtomicU8::new(0);
    let last = NEXT.fetch_add(1, Ordering::Relaxed);
    TcpListener::bind((Ipv4Addr::new(127, 0, 1, last), 0)).unwrap().local_addr().unwrap().to_string()
}

/// Debian's `docker-registry`, on an address and a directory of its own.
pub struct DockerRegistry {
    child: Child,
    host: String,
    directory: PathBuf,
}

impl DockerRegistry {
    #[track_caller]
    pub fn start(directory: &Path, options: &str) -> DockerRegistry {
        DockerRegistry::start_at(directory, &place_of_its_own(), options)
    }

    #[track_caller]
    fn start_with_storage(directory: &Path, storage: &str) -> DockerRegistry {
        DockerRegistry::run(directory, &place_of_its_own(), "", storage, "")
    }

    /// With other settings of how it is spoken to.
    #[cfg(feature = "rustls")]
    #[track_caller]
    pub fn start_with_http(directory: &Path, http: &str) -> DockerRegistry {
        let host = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        DockerRegistry::run(directory, &host, "", "", http)
    }

    #[track_caller]
    fn start_at(directory: &Path, host: &str, options: &str) -> DockerRegistry {
        DockerRegistry::run(directory, host, options, "", "")
    }

    #[track_caller]
    fn run(directory: &Path, host: &str, options: &str, storage: &str, http: &str) -> DockerRegistry {
        fs::create_dir_all(directory).unwrap();
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage:\n  filesystem: {{rootdirectory: {}}}\n{storage}\
             http: {{addr: \"{host}\"{http}}}\n{options}",
            directory.join("data").display()
        );
        fs::write(directory.join("config.yml"), config).unwrap();
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(directory.join("config.yml"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let start = Instant::now();
        while TcpStream::connect(host).is_err() {
            assert!(start.elapsed() < Duration::from_secs(20), "docker-registry does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        DockerRegistry { child, host: host.to_owned(), directory: directory.to_owned() }
    }

    pub fn image(&self, name_: &str) -> ImageReference {
        name(&format!("{}/{name_}", self.host))
    }

    /// Fills the repository from a layout, as another tool does it.
    #[track_caller]
    fn push(&self, store: &Store, from: &str, to: &str, options: &[&str]) {
        let source = format!("oci:{}:{from}", store.path().display());
        let target = format!("docker://{}/{to}", self.host);
        run(Command::new("skopeo")
            .args(["copy", "-q", "--dest-tls-verify=false"])
            .args(options)
            .args([source, target]))
        .ok();
    }

    /// The file of a blob, as it lies in the registry.
    fn blob(&self, digest: &str) -> Vec<u8> {
        let hex = digest.strip_prefix("sha256:").unwrap();
        let path = format!("data/docker/registry/v2/blobs/sha256/{}/{hex}/data", &hex[..2]);
        fs::read(self.directory.join(path)).unwrap()
    }
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A store with this image as `source:1`. It is written in OCI's types, for other tools to read.
fn source(scratch: &Scratch, fixture: &Fixture) -> (Store, String) {
    let store = scratch.store("source");
    let reference = name("example.com/source:1");
    fixture.tag(&store, &reference).unwrap();
    (store, reference.to_string())
}

/// A layout as another tool writes it, with all platforms under one name.
fn whole_index(store: &Store, root: &layercake::Descriptor) {
    let entry = format!(
        r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"{}","digest":"{}","size":{},"annotations":{{"org.opencontainers.image.ref.name":"all"}}}}]}}"#,
        root.media_type, root.digest, root.size
    );
    fs::write(store.path().join("index.json"), entry).unwrap();
}

/// Every tool reads the image from our store as it stands.
#[track_caller]
fn assert_readable(store: &Store, image: &ImageReference) {
    let scratch = Scratch::new();
    let here = format!("{}:{image}", store.path().display());
    run(Command::new("skopeo").args(["inspect", &format!("oci:{here}")])).ok();
    let copy = format!("oci:{}:copy", scratch.path("copy").display());
    run(Command::new("skopeo").args(["copy", "-q", &format!("oci:{here}"), &copy])).ok();
    let copied = Store::open(scratch.path("copy")).unwrap().image(name("copy")).unwrap();
    let ours = store.image(image).unwrap();
    assert_eq!(copied.id(), ours.id(), "the configuration is the same, so it is the same image");

    let bundle = scratch.path("bundle");
    let mut unpack = Command::new("umoci");
    unpack.args(["unpack", "--rootless", "--image", &here]).arg(&bundle);
    run(&mut unpack).ok();
    assert!(fs::read_dir(bundle.join("rootfs")).unwrap().count() > 0);

    let mut from = Command::new("buildah");
    from.args(["--storage-driver", "vfs", "--root"])
        .arg(scratch.path("root"))
        .arg("--runroot")
        .arg(scratch.path("run"));
    run(from.args(["from", &format!("oci:{here}")])).ok();
    let mut rm = Command::new("buildah");
    rm.args(["--storage-driver", "vfs", "--root"]).arg(scratch.path("root")).arg("--runroot").arg(scratch.path("run"));
    run(rm.args(["rm", "--all"])).ok();
}

const TOOLS: [&str; 4] = ["docker-registry", "skopeo", "umoci", "buildah"];

/// From a real registry, for real tools, in both dialects.
#[test]
fn a_pull_from_a_real_registry_is_read_by_real_tools() {
    if !installed(&TOOLS) {
        return;
    }
    for format in ["oci", "v2s2"] {
        let scratch = Scratch::new();
        let registry = DockerRegistry::start(&scratch.path("registry"), "");
        let (from, source) = source(&scratch, &two_layers());
        registry.push(&from, &source, "library/app:1", &["--format", format]);
        let image = registry.image("library/app:1");
        let store = scratch.store("store");
        let pulled = client().pull(&image).to(&store).unwrap();
        assert_eq!(pulled.root.media_type.is_docker(), format == "v2s2");
        let manifest = pulled.image.manifest();
        for blob in manifest.layers().iter().chain([manifest.config(), &pulled.root]) {
            let ours = fs::read(store.path().join(format!("blobs/sha256/{}", blob.digest.hex()))).unwrap();
            assert_eq!(ours, registry.blob(&blob.digest.to_string()));
        }
        assert_readable(&store, &image);
        let again = client().pull(&image).to(&store).unwrap();
        assert_eq!((again.status, again.fetched.bytes), (PullStatus::UpToDate, 0));
    }
}

#[test]
fn a_multi_platform_index_is_read_by_real_tools() {
    if !installed(&TOOLS) {
        return;
    }
    let scratch = Scratch::new();
    let registry = DockerRegistry::start(&scratch.path("registry"), "");
    let from = scratch.store("source");
    let root = Fixture::demo().write(&from).unwrap();
    whole_index(&from, &root);
    registry.push(&from, "all", "demo:1", &["--all"]);
    let image = registry.image("demo:1");
    for text in ["linux/amd64", "linux/arm64"] {
        let store = scratch.store(&text.replace('/', "-"));
        let pulled = client().pull(&image).platform(platform(text)).to(&store).unwrap();
        assert_eq!(pulled.root.digest, root.digest, "the top-level digest is the one reported");
        assert_readable(&store, &image);
    }
}

#[test]
fn a_registry_with_passwords_lets_us_in() {
    if !installed(&["docker-registry", "skopeo", "htpasswd"]) {
        return;
    }
    let scratch = Scratch::new();
    let passwords = run(Command::new("htpasswd").args(["-Bbn", "alice", "secret"])).ok();
    fs::write(scratch.path("htpasswd"), passwords).unwrap();
    let auth = format!("auth: {{htpasswd: {{realm: r, path: {}}}}}\n", scratch.path("htpasswd").display());
    let registry = DockerRegistry::start(&scratch.path("registry"), &auth);
    let (from, source) = source(&scratch, &two_layers());
    registry.push(&from, &source, "app:1", &["--dest-creds", "alice:secret"]);
    let image = registry.image("app:1");
    let store = scratch.store("store");
    assert!(failure(client().pull(&image).to(&store)).to_string().contains("UNAUTHORIZED"));
    let alice = Registry::builder().credentials(Login::new(image.host(), "alice", "secret")).build().unwrap();
    alice.pull(&image).to(&store).unwrap();
    assert!(store.image(&image).unwrap().is_complete().unwrap());
}

/// A token that `docker-registry` accepts, signed with a key of its own (distribution, "Token Authentication
/// Implementation"). Returns the token and the file of the certificate.
fn signed_token(scratch: &Scratch) -> (String, PathBuf) {
    use base64::Engine;
    use base64::prelude::BASE64_STANDARD;
    use base64::prelude::BASE64_URL_SAFE_NO_PAD;
    let (key, certificate, der) = (scratch.path("key.pem"), scratch.path("cert.pem"), scratch.path("cert.der"));
    let openssl = |arguments: &[&str], paths: &[(&str, &Path)]| {
        let mut command = Command::new("openssl");
        command.args(arguments);
        for (option, path) in paths {
            command.arg(option).arg(path);
        }
        run(&mut command).ok();
    };
    let request = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=tokens"];
    openssl(&request, &[("-keyout", &key), ("-out", &certificate)]);
    openssl(&["x509", "-outform", "der"], &[("-in", &certificate), ("-out", &der)]);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let header = serde_json::json!({
        "typ": "JWT", "alg": "RS256", "x5c": [BASE64_STANDARD.encode(fs::read(&der).unwrap())],
    });
    let claims = serde_json::json!({
        "iss": "layercake", "aud": "reg", "sub": "", "jti": "1", "iat": now, "nbf": now - 60, "exp": now + 3600,
        "access": [{ "type": "repository", "name": "app", "actions": ["pull", "push"] }],
    });
    let encode = |json: serde_json::Value| BASE64_URL_SAFE_NO_PAD.encode(json.to_string());
    let payload = format!("{}.{}", encode(header), encode(claims));
    let (text, signature) = (scratch.path("payload"), scratch.path("signature"));
    fs::write(&text, &payload).unwrap();
    let mut sign = Command::new("openssl");
    sign.args(["dgst", "-sha256", "-sign"]).arg(&key).arg("-out").arg(&signature).arg(&text);
    run(&mut sign).ok();
    (format!("{payload}.{}", BASE64_URL_SAFE_NO_PAD.encode(fs::read(signature).unwrap())), certificate)
}

/// A2: a real registry that sends us to a token server.
#[test]
fn a_registry_with_tokens_lets_us_in() {
    use std::io::Read;
    if !installed(&["docker-registry", "skopeo", "openssl"]) {
        return;
    }
    let scratch = Scratch::new();
    let (token, certificate) = signed_token(&scratch);
    let tokens = TcpListener::bind("127.0.0.1:0").unwrap();
    let realm = format!("http://{}/token", tokens.local_addr().unwrap());
    let asked = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    std::thread::spawn({
        let asked = std::sync::Arc::clone(&asked);
        move || {
            for connection in tokens.incoming() {
                let mut connection = connection.unwrap();
                let mut head = [0; 4096];
                let count = connection.read(&mut head).unwrap_or(0);
                asked.lock().unwrap().push(String::from_utf8_lossy(&head[..count]).into_owned());
                let body = format!("{{\"access_token\":\"{token}\",\"expires_in\":300}}");
                let length = body.len();
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
                let _ = connection.write_all(format!("{head}{body}").as_bytes());
            }
        }
    });
    let auth = format!(
        "auth: {{token: {{realm: \"{realm}\", service: reg, issuer: layercake, rootcertbundle: {}}}}}\n",
        certificate.display()
    );
    let registry = DockerRegistry::start(&scratch.path("registry"), &auth);
    let (from, source) = source(&scratch, &two_layers());
    registry.push(&from, &source, "app:1", &[]);
    let image = registry.image("app:1");
    let store = scratch.store("store");
    asked.lock().unwrap().clear();
    client().pull(&image).to(&store).unwrap();
    assert!(store.image(&image).unwrap().is_complete().unwrap());
    let asked = asked.lock().unwrap();
    assert_eq!(asked.len(), 1, "{asked:?}");
    assert!(asked[0].starts_with("GET /token?service=reg&scope=repository:app:pull HTTP/1.1\r\n"), "{asked:?}");
}

/// A real registry is killed in the middle, and started again.
#[test]
fn a_killed_registry_is_waited_for() {
    if !installed(&["docker-registry", "skopeo"]) {
        return;
    }
    let scratch = Scratch::new();
    let mut noise = vec![0; 48 << 20];
    fastrand::Rng::with_seed(5).fill(&mut noise);
    let (from, source) = source(&scratch, &Fixture::new(platform("linux/amd64")).layer(&[("noise", &noise)]));
    let registry = DockerRegistry::start(&scratch.path("registry"), "");
    let host = registry.host.clone();
    registry.push(&from, &source, "app:1", &[]);
    let image = registry.image("app:1");
    let store = scratch.store("store");
    let patient = |failure: &Failure<'_>| (failure.attempt < 200).then_some(Duration::from_millis(100));
    let pulling = Registry::builder().retry(patient).build().unwrap();
    let (send, receive) = std::sync::mpsc::sync_channel(1);
    let observer = |event: &layercake::Event<'_>| {
        if let layercake::Event::Progress { bytes, .. } = event
            && *bytes > 1 << 20
        {
            // Slow enough to be killed in the middle.
            let _ = send.try_send(());
            std::thread::sleep(Duration::from_millis(2));
        }
    };
    let pulled = std::thread::scope(|scope| {
        let pull = scope.spawn(|| pulling.pull(&image).observer(&observer).to(&store));
        receive.recv_timeout(Duration::from_secs(30)).unwrap();
        drop(registry);
        std::thread::sleep(Duration::from_millis(300));
        let _back = DockerRegistry::start_at(&scratch.path("registry"), &host, "");
        pull.join().unwrap().unwrap()
    });
    let whole = pulled.image.size() + pulled.root.size;
    assert_eq!(pulled.fetched.bytes, whole, "no byte was fetched twice");
    assert!(store.image(&image).unwrap().is_complete().unwrap());
}

/// Other tools pull from our registry for tests, with their own ideas of how to ask.
#[test]
fn other_tools_pull_from_the_registry_for_tests() {
    if !installed(&["skopeo"]) {
        return;
    }
    let scratch = Scratch::new();
    let store = scratch.store("served").with_durability(Durability::None);
    Fixture::demo().tag(&store, &name("demo:1")).unwrap();
    let registry = testing::Registry::start(&store).unwrap();
    registry.require_login("alice", "secret");
    registry.require_tokens(Duration::from_secs(60));
    registry.fault(Fault::on("/blobs/").times(1).delay(Duration::from_millis(10)));
    let target = format!("oci:{}:copy", scratch.path("copy").display());
    let source = format!("docker://{}/library/demo:1", registry.host());
    let copy = ["copy", "-q", "--src-tls-verify=false", "--src-creds", "alice:secret", &source, &target];
    run(Command::new("skopeo").args(copy)).ok();
    let copied = Store::open(scratch.path("copy")).unwrap().image(name("copy")).unwrap();
    assert_eq!(copied.id(), store.image(name("demo:1")).unwrap().id());
    std::io::stdout().flush().unwrap();
}
