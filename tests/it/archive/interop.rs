//! Other tools read what this crate writes, and write what it reads.

use std::path::Path;
use std::process::Command;

use super::*;
use crate::support::tools::installed;
use crate::support::tools::run;

fn skopeo(arguments: &[&str]) -> String {
    run(Command::new("skopeo").args(arguments)).ok()
}

fn write(path: &Path, content: &[u8]) -> String {
    std::fs::write(path, content).unwrap();
    path.display().to_string()
}

/// The id by which skopeo knows an image: the digest of the configuration's bytes.
pub fn id_of(image: &str) -> Digest {
    Digest::sha256(skopeo(&["inspect", "--config", "--raw", image]).trim_end_matches('\n').as_bytes())
}

fn one() -> Fixture {
    Fixture::new(platform("linux/amd64")).layer(&[("etc/motd", b"hello\n")]).layer(&[("bin/app", b"app")])
}

#[test]
fn skopeo_reads_both_forms() {
    if !installed(&["skopeo"]) {
        return;
    }
    let scratch = Scratch::new();
    let store = scratch.store("store");
    for (fixture, text) in [(one(), "app:1"), (one().docker(), "example.com/b:2"), (one().label("c", "c"), "c:3")] {
        fixture.tag(&store, &name(text)).unwrap();
    }
    for text in ["app:1", "example.com/b:2", "c:3"] {
        let id = store.image(name(text)).unwrap().id();
        let all = ["c:3", "app:1", "example.com/b:2"];
        let docker = write(&scratch.path("docker.tar"), &saved(&store, &all, Format::Docker));
        assert_eq!(id_of(&format!("docker-archive:{docker}:{text}")), id);
        let oci = write(&scratch.path("oci.tar"), &saved(&store, &all, Format::Oci));
        assert_eq!(id_of(&format!("oci-archive:{oci}:{}", name(text))), id);
        skopeo(&[
            "copy",
            "-q",
            &format!("docker-archive:{docker}:{text}"),
            &format!("dir:{}", scratch.path("dir").display()),
        ]);
    }
}

#[test]
fn skopeos_archives_load_with_equal_ids() {
    if !installed(&["skopeo"]) {
        return;
    }
    let scratch = Scratch::new();
    let from = scratch.store("from");
    one().tag(&from, &name("example.com/app:1")).unwrap();
    let id = from.image(name("example.com/app:1")).unwrap().id();
    let source = format!("oci:{}:example.com/app:1", from.path().display());
    for form in ["docker-archive", "oci-archive"] {
        let path = scratch.path(form);
        skopeo(&["copy", "-q", &source, &format!("{form}:{}:example.com/app:1", path.display())]);
        let store = scratch.store(&format!("{form}-store"));
        assert_eq!(tagged(std::fs::File::open(path).unwrap(), &store), [name("example.com/app:1")]);
        assert_eq!(store.image(name("example.com/app:1")).unwrap().id(), id, "{form}");
        // And what was loaded is a layout that others read.
        assert_eq!(id_of(&format!("oci:{}:example.com/app:1", store.path().display())), id, "{form}");
    }
}

#[test]
fn umoci_unpacks_what_was_loaded() {
    if !installed(&["umoci"]) {
        return;
    }
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let classic = Classic::new();
    tagged(&tar(&classic.items())[..], &store);
    let bundle = scratch.path("bundle");
    let image = format!("{}:docker.io/library/small:1", store.path().display());
    run(Command::new("umoci").args(["unpack", "--rootless", "--image", &image]).arg(&bundle)).ok();
    assert_eq!(std::fs::read_to_string(bundle.join("rootfs/a")).unwrap(), "a");
}

/// With a storage of its own, which needs no mounts.
#[test]
fn podman_loads_both_forms_and_saves_what_loads() {
    if !installed(&["podman"]) || !crate::support::tools::is_root() {
        return;
    }
    let scratch = Scratch::new();
    let store = scratch.store("store");
    one().tag(&store, &name("example.com/app:1")).unwrap();
    let image = store.image(name("example.com/app:1")).unwrap();
    let podman = |directory: &Path, arguments: &[&str]| {
        let mut command = Command::new("podman");
        command.arg("--root").arg(directory.join("root")).arg("--runroot").arg(directory.join("run"));
        run(command.args(["--storage-driver", "vfs"]).args(arguments)).ok()
    };
    for format in BOTH {
        let directory = scratch.dir(&format!("{format:?}"));
        let archive = write(&directory.join("archive"), &saved(&store, &["example.com/app:1"], format));
        assert_eq!(podman(&directory, &["load", "-q", "-i", &archive]), "Loaded image: example.com/app:1\n");
        let id = podman(&directory, &["images", "--no-trunc", "--format", "{{.ID}}"]);
        assert_eq!(id.trim(), image.id().to_string());
        let back = directory.join("back").display().to_string();
        podman(&directory, &["save", "-q", "-o", &back, "example.com/app:1"]);
        let to = scratch.store(&format!("{format:?}-back"));
        assert_eq!(tagged(std::fs::File::open(&back).unwrap(), &to), [name("example.com/app:1")]);
        assert_eq!(to.image(name("example.com/app:1")).unwrap().id(), image.id());
    }
}
