//! The same steps make the same bytes: wherever, whenever, and with however many threads (C5, C7).

use std::time::Duration;
use std::time::SystemTime;

use layercake::Compression;
use layercake::compression::EncoderOptions;

use super::*;
use crate::support::tools::is_root;

/// Links of both kinds, names of each length, modes. Made in this order or in the other.
fn populate(root: &Path, backwards: bool) {
    let long = "l".repeat(150);
    let mut names = vec!["a".to_owned(), "b".to_owned(), format!("{long}-name"), "ü".to_owned()];
    if backwards {
        names.reverse();
    }
    fs::create_dir_all(root.join("bin")).unwrap();
    fs::create_dir_all(root.join(&long).join(&long)).unwrap();
    for name in &names {
        write(root.join(name), name);
        write(root.join(&long).join(&long).join(name), &name.repeat(1000));
    }
    fs::hard_link(root.join("a"), root.join("bin/a")).unwrap();
    symlink("t".repeat(120), root.join("bin/link")).unwrap();
    fs::set_permissions(root.join("b"), fs::Permissions::from_mode(0o4755)).unwrap();
    for directory in ["bin".to_owned(), long.clone(), format!("{long}/{long}")] {
        fs::set_permissions(root.join(directory), fs::Permissions::from_mode(0o755)).unwrap();
    }
}

fn built(scratch: &Scratch, tree: &Path, how: EncoderOptions) -> Image {
    let name = format!("store-{:016x}", fastrand::u64(..));
    scratch_builder(&scratch.store(&name))
        .created(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000))
        .compression(how)
        .copy(tree, "/opt/app")
        .copy(Files::bytes("#!/bin/sh\n").mode(0o755).owner(1000, 1 << 21), "/usr/bin/run")
        .remove("/opt/app/bin/link")
        .env("PATH", "/usr/bin")
        .entrypoint(["/usr/bin/run"])
        .cmd(["--fast"])
        .label("a", "b")
        .user("app")
        .working_dir("/opt")
        .exposed_port("80")
        .volume("/data")
        .author("me")
        .annotation("c", "d")
        .build()
        .unwrap()
        .image
}

/// If this test fails, images that were built before can no longer be built again: say so in the changelog.
#[test]
fn golden_digests() {
    let scratch = Scratch::new();
    for (name, backwards) in [("forwards", false), ("backwards", true)] {
        populate(&scratch.dir(name), backwards);
    }
    let trees = [scratch.path("forwards"), scratch.path("backwards")];
    let mut ids = Vec::new();
    for tree in &trees {
        for threads in [1, 3] {
            let gzip = built(&scratch, tree, EncoderOptions::new(Compression::Gzip).threads(threads));
            assert_eq!(
                gzip.digest().to_string(),
                "sha256:22f08ad2d80e80e5b18f67651bd7dd30b9dd8899cb792a19b8739f1e267be03c"
            );
            ids.push(gzip.id());
        }
        #[cfg(feature = "zstd")]
        {
            let zstd = built(&scratch, tree, EncoderOptions::new(Compression::Zstd));
            assert_eq!(
                zstd.digest().to_string(),
                "sha256:b51b4a62bcbe397b8df67b9f3e72b7bbb60512e4c7ffd40406a5f31d462b31ef"
            );
            ids.push(zstd.id());
        }
    }
    assert!(ids.iter().all(|id| *id == ids[0]), "the id is the same in every compression");
}

/// Attributes are in the layer, but for the host's.
#[test]
fn golden_attributes() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let tree = scratch.dir("tree");
    write(tree.join("file"), "x");
    for (name, value) in [("user.odd name", &b"a=b\nc\0"[..]), ("trusted.overlay.opaque", b"y"), ("user.a", b"")] {
        rustix::fs::lsetxattr(tree.join("file"), name, value, rustix::fs::XattrFlags::empty()).unwrap();
    }
    let store = scratch.store("store");
    let built = scratch_builder(&store).epoch(0).copy(&tree, "/").build().unwrap();
    let layers = built.image.layers().unwrap();
    let mut entries = layers[0].entries().unwrap();
    let entry = entries.next_entry().unwrap().unwrap();
    let xattrs: Vec<_> = entry.xattrs().map(|(name, value)| (name.to_owned(), value.to_vec())).collect();
    assert_eq!(xattrs, [("user.a".into(), Vec::new()), ("user.odd name".into(), b"a=b\nc\0".to_vec())]);
    assert_eq!(
        layers[0].diff_id().to_string(),
        "sha256:2f5ffd034ceb752cd0bf8cbfe27b6c93c09c8c8e1725944db70069dac8fd073c"
    );
}
