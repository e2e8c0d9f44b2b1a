//! The examples `load`, `save` and `import`.

use std::path::Path;
use std::process::Command;
use std::process::Stdio;

use super::*;
use crate::examples::assert_fails;
use crate::support::tools::Ran;
use crate::support::tools::example;
use crate::support::tools::run;

fn program(name: &str, store: &Path, arguments: &[&str]) -> Command {
    let mut command = example(name);
    command.arg("--store").arg(store).args(arguments);
    command
}

/// Runs it with this on its standard input.
fn fed(command: &mut Command, input: &[u8]) -> Ran {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    let _ = child.stdin.take().expect("it is piped").write_all(input);
    Ran::of(child.wait_with_output().expect("it ends"))
}

#[test]
fn load_prints_what_docker_prints() {
    let scratch = Scratch::new();
    let classic = Classic::new();
    let (store, file) = (scratch.path("store"), scratch.path("images.tar"));
    std::fs::write(&file, tar(&classic.items())).unwrap();
    let file = file.display().to_string();
    let id = classic.ids()[1];
    let expected = format!("Loaded image: small:1\nLoaded image: example.com/small:1\nLoaded image ID: {id}\n");
    assert_eq!(run(&mut program("load", &store, &[&file])).ok(), expected);
    let again = fed(&mut program("load", &store, &["-"]), &gzip(&tar(&classic.items())));
    assert_eq!(again.err, "warning: \"big\" is no name of an image, and was passed over\n");
    assert_eq!(again.ok(), expected);
    let store = Store::open(&store).unwrap();
    assert_eq!(store.image(name("small:1")).unwrap().id(), classic.ids()[0]);
}

/// P6: a load that is killed leaves nothing that anybody sees, and the next one is as if it had not been.
#[test]
fn a_load_that_is_killed_leaves_nothing() {
    let scratch = Scratch::new();
    let (classic, path) = (Classic::new(), scratch.path("store"));
    let archive = tar(&classic.items());
    let mut child = program("load", &path, &["-"]).stdin(Stdio::piped()).spawn().expect("it starts");
    let mut input = child.stdin.take().expect("it is piped");
    input.write_all(&archive[..archive.len() - 3000]).unwrap();
    let partial = path.join("layercake/partial");
    while std::fs::read_dir(&partial).map_or(0, Iterator::count) < 2 {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let store = Store::open(&path).unwrap();
    assert_eq!((store.blobs().unwrap().count(), store.entries().unwrap().count()), (0, 0));
    assert_classic(&store, &loaded(&archive[..], &store), &classic);
}

/// A tag that moves is told, as Docker does.
#[test]
fn load_says_when_a_name_moves() {
    let scratch = Scratch::new();
    let (from, store) = (scratch.store("from"), scratch.store("store"));
    let fixture = || Fixture::new(platform("linux/amd64")).layer(&[("a", b"a")]);
    fixture().tag(&from, &name("app:1")).unwrap();
    fixture().label("old", "1").tag(&store, &name("app:1")).unwrap();
    let old = store.image(name("app:1")).unwrap().id();
    let archive = saved(&from, &["app:1"], Format::Oci);
    let printed = fed(&mut program("load", store.path(), &["-"]), &archive).ok();
    let moved = format!("The image app:1 already exists, renaming the old one with ID {old} to empty string\n");
    assert_eq!(printed, format!("{moved}Loaded image: app:1\n"));
}

#[test]
fn save_writes_what_load_reads() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    demo(&store, "demo:1");
    for (format, expected) in [("docker", Format::Docker), ("oci", Format::Oci)] {
        let file = scratch.path(format);
        let output = file.display().to_string();
        assert_eq!(run(&mut program("save", store.path(), &["--format", format, "-o", &output, "demo:1"])).ok(), "");
        let archive = saved(&store, &["demo:1"], expected);
        assert_eq!(std::fs::read(&file).unwrap(), archive);
        let piped = program("save", store.path(), &["--format", format, "demo:1"]).output().unwrap();
        assert_eq!(piped.stdout, archive);
    }
    let to = scratch.path("to");
    let printed = run(&mut program("load", &to, &[&scratch.path("oci").display().to_string()])).ok();
    assert_eq!(printed, "Loaded image: demo:1\n");
    let (missing, kept) = (scratch.path("missing"), scratch.path("oci"));
    assert_fails(run(&mut program("save", store.path(), &["-o", missing.to_str().unwrap(), "nobody"])), "nobody");
    assert!(!missing.exists(), "nothing half-written");
    assert_fails(run(&mut program("save", store.path(), &["-o", kept.to_str().unwrap(), "nobody"])), "not found");
    assert_eq!(std::fs::read(&kept).unwrap(), saved(&store, &["demo:1"], Format::Oci));
    assert_fails(run(&mut program("save", store.path(), &[])), "usage: save");
    assert_fails(run(&mut program("save", store.path(), &["--format", "zip", "demo:1"])), "unknown format");
    assert_fails(run(&mut program("load", &to, &["/nowhere.tar"])), "/nowhere.tar: No such file");
    assert_fails(fed(&mut program("load", &to, &["-"]), b"rubbish"), "load an archive: ");
}

/// A terminal is no place for an archive. `script` makes one, where it is installed.
#[test]
fn save_writes_no_archive_to_a_terminal() {
    if !crate::support::tools::installed(&["script"]) {
        return;
    }
    let scratch = Scratch::new();
    let store = scratch.store("store");
    demo(&store, "demo:1");
    let line = format!("{:?}", program("save", store.path(), &["demo:1"]));
    let ran = run(Command::new("script").args(["-qec", &line, "/dev/null"]).stdin(Stdio::null()));
    assert!(ran.status == 1 && ran.out.contains("an archive is nothing for a terminal"), "{ran:?}");
}

#[test]
fn import_prints_the_id() {
    let scratch = Scratch::new();
    let tarball = tar(&[Item::file("etc/motd", "hello\n")]);
    let (store, file) = (scratch.path("store"), scratch.path("rootfs.tar"));
    std::fs::write(&file, &tarball).unwrap();
    let changes = [
        "CMD [\"/bin/sh\", \"-l\"]",
        "entrypoint run it",
        "ENV A=1 B=\"two words\" C='3'",
        "ENV D four five",
        "LABEL a.b=c",
        "EXPOSE 80 53/udp",
        "VOLUME [\"/data\"]",
        "USER 1000",
        "WORKDIR /srv",
        "STOPSIGNAL SIGINT",
    ];
    let mut arguments = vec!["-m", "by hand", "--platform", "linux/amd64", "--created", "0"];
    changes.iter().for_each(|change| arguments.extend(["-c", change]));
    let path = file.display().to_string();
    let id = run(program("import", &store, &arguments).args([&path, "base:1"])).ok();
    let again = fed(program("import", &store, &arguments).arg("-"), &tarball).ok();
    assert_eq!(id, again);
    let store = Store::open(&store).unwrap();
    let image = store.image(name("base:1")).unwrap();
    assert_eq!(id, format!("{}\n", image.id()));
    let config = image.config().unwrap();
    assert_eq!(config.cmd(), ["/bin/sh", "-l"]);
    assert_eq!(config.entrypoint(), ["/bin/sh", "-c", "run it"]);
    assert_eq!(config.env(), ["A=1", "B=two words", "C=3", "D=four five"]);
    assert_eq!(config.exposed_ports(), ["53/udp", "80/tcp"]);
    assert_eq!((config.user(), config.working_dir(), config.stop_signal()), ("1000", "/srv", Some("SIGINT")));
    assert_eq!(config.history()[0].comment.as_deref(), Some("by hand"));
    for change in ["CMD", "FROM scratch", "ENV A", "ENV A=\"b", "ENV A=b C"] {
        assert_ne!(run(program("import", store.path(), &["-c", change]).arg(&path)).status, 0, "{change}");
    }
    assert_fails(run(&mut program("import", store.path(), &[&path, "No/Name"])), "must be lowercase");
}

/// The archive of a real image, where there is one: `LAYERCAKE_TEST_ARCHIVE`, which is `docker save alpine:3.10`.
#[test]
fn a_real_archive_loads() {
    let Some(path) = std::env::var_os("LAYERCAKE_TEST_ARCHIVE") else {
        println!("ignored: needs LAYERCAKE_TEST_ARCHIVE");
        return;
    };
    let scratch = Scratch::new();
    let store = scratch.path("store");
    assert_eq!(run(program("load", &store, &[]).arg(path)).ok(), "Loaded image: alpine:3.10\n");
    let image = Store::open(&store).unwrap().image(name("alpine:3.10")).unwrap();
    assert_eq!(image.id().short().to_string(), "af341ccd2df8");
    assert!(image.read_file("etc/alpine-release").is_ok());
}
