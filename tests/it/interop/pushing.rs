//! Pushes to a real registry, read back by real tools.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use layercake::Event;
use layercake::Registry;
use layercake::Store;
use layercake::registry::DockerConfig;
use layercake::registry::Failure;
use layercake::registry::Login;
use layercake::testing::Fixture;
use layercake::transfer::copy;

use super::DockerRegistry;
use crate::support::Scratch;
use crate::support::client;
use crate::support::failure;
use crate::support::name;
use crate::support::platform;
use crate::support::tools::installed;
use crate::support::tools::run;
use crate::support::two_layers;

/// Everything may be deleted.
const DELETE: &str = "  delete: {enabled: true}\n";

/// What skopeo says that a name on a registry means.
#[track_caller]
fn digest_there(image: &str, credentials: &[&str]) -> String {
    let mut inspect = Command::new("skopeo");
    inspect.args(["inspect", "--tls-verify=false", "--format", "{{.Digest}}"]).args(credentials);
    run(inspect.arg(format!("docker://{image}"))).ok().trim().to_owned()
}

/// A registry with passwords, in which everything may be deleted.
fn guarded(scratch: &Scratch) -> DockerRegistry {
    let passwords = run(Command::new("htpasswd").args(["-Bbn", "alice", "secret"])).ok();
    fs::write(scratch.path("htpasswd"), passwords).unwrap();
    let auth = format!("auth: {{htpasswd: {{realm: r, path: {}}}}}\n", scratch.path("htpasswd").display());
    DockerRegistry::start(&scratch.path("registry"), &auth)
}

/// D12, D19: what is pushed is what skopeo reads, copies and pulls, in both dialects, with a password.
#[test]
fn a_push_is_read_back_by_real_tools() {
    if !installed(&["docker-registry", "skopeo", "htpasswd"]) {
        return;
    }
    let scratch = Scratch::new();
    let registry = guarded(&scratch);
    let store = scratch.store("store");
    let oci = name("example.com/oci:1");
    two_layers().tag(&store, &oci).unwrap();
    let docker = registry.image("from/skopeo:1");
    registry.push(&store, &oci.to_string(), "from/skopeo:1", &["--format", "v2s2", "--dest-creds", "alice:secret"]);
    let alice = Registry::builder().credentials(Login::new(docker.host(), "alice", "secret")).build().unwrap();
    alice.pull(&docker).to(&store).unwrap();
    for source in [&oci, &docker] {
        let image = store.image(source).unwrap();
        let there = registry.image(if source == &oci { "oci:1" } else { "docker:1" });
        let refused = failure(client().push(&image).to(&there));
        assert!(refused.to_string().contains("UNAUTHORIZED"), "{refused}");
        let pushed = alice.push(&image).to(&there).unwrap();
        assert_eq!(pushed.root.digest, image.digest());
        let credentials = ["--creds", "alice:secret"];
        assert_eq!(digest_there(&there.to_string(), &credentials), image.digest().to_string());
        let back = format!("dir:{}", scratch.path("back").display());
        let from = ["copy", "-q", "--src-tls-verify=false", "--src-creds", "alice:secret"];
        run(Command::new("skopeo").args(from).args([format!("docker://{there}"), back])).ok();
        assert_eq!(fs::read(scratch.path("back/manifest.json")).unwrap(), image.manifest().raw());
        let again = alice.push(&image).to(&there).unwrap();
        assert_eq!((again.sent.blobs, again.reused.blobs), (0, 3), "all of it is there");
    }
}

/// podman runs what we push.
#[test]
fn a_push_is_pulled_by_podman() {
    if !installed(&["docker-registry", "podman"]) {
        return;
    }
    let scratch = Scratch::new();
    let registry = DockerRegistry::start(&scratch.path("registry"), "");
    let store = scratch.store("store");
    let image = Fixture::demo().write(&store).and_then(|root| store.image_at(&root)).unwrap();
    let there = registry.image("library/demo:1");
    client().push(&image).to(&there).unwrap();
    podman_pulls(&scratch, &there.to_string(), &image.id().to_string());
}

/// A5: as whoever `podman login` has signed in.
#[test]
fn podmans_login_signs_us_in() {
    use std::io::Write;
    if !installed(&["docker-registry", "podman", "htpasswd"]) {
        return;
    }
    let scratch = Scratch::new();
    let registry = guarded(&scratch);
    let there = registry.image("team/app:1");
    let file = scratch.path("auth.json");
    let mut login = Command::new("podman");
    login.args(["login", "--tls-verify=false", "-u", "alice", "--password-stdin", "--authfile"]).arg(&file);
    let mut login = login.arg(there.host()).stdin(std::process::Stdio::piped()).spawn().unwrap();
    login.stdin.take().unwrap().write_all(b"secret\n").unwrap();
    assert!(login.wait().unwrap().success());
    let store = scratch.store("store");
    let image = two_layers().write(&store).and_then(|root| store.image_at(&root)).unwrap();
    let config = DockerConfig::open(&file).unwrap();
    Registry::builder().credentials(config).build().unwrap().push(&image).to(&there).unwrap();
    assert_eq!(digest_there(&there.to_string(), &["--creds", "alice:secret"]), image.digest().to_string());
}

/// Pulls with podman, into a storage of its own, and compares the image's id.
#[track_caller]
pub fn podman_pulls(scratch: &Scratch, image: &str, id: &str) {
    let podman = |arguments: &[&str]| {
        let mut command = Command::new("podman");
        command.args(["--storage-driver", "vfs", "--root"]).arg(scratch.path("podman-root"));
        command.arg("--runroot").arg(scratch.path("podman-run")).args(arguments);
        run(&mut command).ok()
    };
    podman(&["pull", "-q", "--tls-verify=false", image]);
    let found = podman(&["image", "inspect", "--format", "{{.Id}}", image]);
    assert_eq!(format!("sha256:{}", found.trim()), id);
}

/// A whole index with its images, to a registry, to another one, and into a store; byte for byte.
#[test]
fn an_index_is_copied_from_place_to_place() {
    if !installed(&["docker-registry", "skopeo"]) {
        return;
    }
    let scratch = Scratch::new();
    let first = DockerRegistry::start(&scratch.path("first"), "");
    let second = DockerRegistry::start(&scratch.path("second"), "");
    let (from, to) = (scratch.store("from"), scratch.store("to"));
    let here = name("example.com/demo:1");
    Fixture::demo().tag(&from, &here).unwrap();
    let root = from.resolve(&here).unwrap();
    let client = client();
    let (one, two) = (first.image("demo:1"), second.image("other/demo:1"));
    assert_eq!(copy((&from, &here)).to((&client, &one)).unwrap().root.digest, root.digest);
    let copied = client.copy(&one).to(&two).unwrap();
    assert_eq!(copied.root.digest, root.digest);
    assert!(copied.sent.blobs >= 4, "{copied:?}");
    copy((&client, &two)).to((&to, &here)).unwrap();
    assert_eq!(fs::read(root_path(&from, &root)).unwrap(), fs::read(root_path(&to, &root)).unwrap());
    for text in ["linux/amd64", "linux/arm64"] {
        assert!(to.image_for(&here, &platform(text)).unwrap().is_complete().unwrap(), "{text}");
    }
    assert_eq!(digest_there(&two.to_string(), &["--raw=false"]), root.digest.to_string());
}

fn root_path(store: &Store, root: &layercake::Descriptor) -> std::path::PathBuf {
    store.path().join(Path::new("blobs/sha256")).join(root.digest.hex().to_string())
}

/// D17, D22, D25: blobs are mounted, tags and repositories listed, manifests deleted.
#[test]
fn a_real_registry_mounts_lists_and_deletes() {
    if !installed(&["docker-registry"]) {
        return;
    }
    let scratch = Scratch::new();
    let registry = DockerRegistry::start_with_storage(&scratch.path("registry"), DELETE);
    let store = scratch.store("store");
    let image = two_layers().write(&store).and_then(|root| store.image_at(&root)).unwrap();
    let client = client();
    for tag in ["b", "a", "1.0"] {
        client.push(&image).to(&registry.image(&format!("app:{tag}"))).unwrap();
    }
    let app = client.repository(&registry.image("app")).unwrap();
    let mut tags = app.tags().collect::<Result<Vec<_>, _>>().unwrap();
    tags.sort();
    assert_eq!(tags, ["1.0", "a", "b"]);
    let mounted = client.copy(&registry.image("app:a")).to(&registry.image("team/app:1")).unwrap();
    assert_eq!((mounted.mounted.blobs, mounted.sent.blobs), (3, 0));
    let host = registry.image("app").host().to_owned();
    let names = client.repositories(&host).unwrap().collect::<Result<Vec<_>, _>>().unwrap();
    assert_eq!(names, ["app", "team/app"]);
    let found = client.search("app").host(&host).run().unwrap();
    assert_eq!(found.iter().map(|hit| hit.name.as_str()).collect::<Vec<_>>(), ["app", "team/app"]);
    assert!(client.check(&registry.image("app:a"), &store).unwrap().stored.is_none());

    app.delete(&layercake::reference::Identifier::Digest(image.digest())).unwrap();
    assert!(failure(app.fetch(&registry.image("app:a").identifier())).is_not_found());
    let team = client.repository(&registry.image("team/app")).unwrap();
    team.fetch(&registry.image("team/app:1").identifier()).unwrap();
    let layer = &image.manifest().layers()[0];
    assert!(team.has_blob(layer).unwrap());
    team.delete_blob(layer.digest).unwrap();
    assert!(!team.has_blob(layer).unwrap());
}

/// D14: a registry that is killed in the middle of an upload, and started again, has what it had.
#[test]
fn an_upload_to_a_killed_registry_goes_on() {
    if !installed(&["docker-registry"]) {
        return;
    }
    let scratch = Scratch::new();
    let mut noise = vec![0; 48 << 20];
    fastrand::Rng::with_seed(5).fill(&mut noise);
    let store = scratch.store("store");
    let fixture = Fixture::new(platform("linux/amd64")).layer(&[("noise", &noise)]);
    let image = fixture.write(&store).and_then(|root| store.image_at(&root)).unwrap();
    let registry = DockerRegistry::start(&scratch.path("registry"), "");
    let host = registry.host.clone();
    let there = registry.image("app:1");
    let patient = |failure: &Failure<'_>| (failure.attempt < 200).then_some(Duration::from_millis(100));
    let pushing = Registry::builder().retry(patient).build().unwrap();
    let (send, receive) = std::sync::mpsc::sync_channel(1);
    let observer = |event: &Event<'_>| {
        if let Event::Progress { bytes, .. } = event
            && *bytes > 1 << 20
        {
            let _ = send.try_send(());
            std::thread::sleep(Duration::from_millis(2));
        }
    };
    std::thread::scope(|scope| {
        let push = scope.spawn(|| pushing.push(&image).observer(&observer).to(&there));
        receive.recv_timeout(Duration::from_secs(30)).unwrap();
        drop(registry);
        std::thread::sleep(Duration::from_millis(300));
        let _back = DockerRegistry::start_at(&scratch.path("registry"), &host, "");
        push.join().unwrap().unwrap();
        let target = scratch.store("target");
        client().pull(&there).to(&target).unwrap();
        assert!(target.image(&there).unwrap().is_complete().unwrap());
    });
}
