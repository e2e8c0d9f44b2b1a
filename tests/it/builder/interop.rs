//! Other programs make the same of what is built.

use std::process::Command;

use super::*;
use crate::support::name;
use crate::support::tools::installed;
use crate::support::tools::is_root;
use crate::support::tools::run;
use crate::support::tree;

/// umoci unpacks a built, squashed and rebased image to the tree that we do.
#[test]
fn umoci_unpacks_the_same_tree() {
    if !installed(&["umoci", "skopeo"]) || !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let source = scratch.dir("source");
    fs::create_dir_all(source.join("lib/deep")).unwrap();
    write(source.join("lib/deep/file"), "file");
    fs::hard_link(source.join("lib/deep/file"), source.join("alias")).unwrap();
    symlink("/nix/../x", source.join("link")).unwrap();
    let old = usual_base(&store);
    let built = ImageBuilder::from_image(&old)
        .epoch(1_000_000_000)
        .copy(Files::at(&source).owner(5, 6), "/")
        .copy(Files::bytes("x"), "/opt/new/x")
        .remove("/lib/old")
        .build()
        .unwrap()
        .image;
    let new = base(
        &store,
        &[Item::dir("usr"), Item::dir("usr/lib"), Item::symlink("lib", "usr/lib"), Item::file("usr/lib/old", "")],
    );
    let images = [
        ("built", built.clone()),
        ("squashed", built.squash().write().unwrap()),
        ("kept", built.squash().keep(1).write().unwrap()),
        ("rebased", built.rebase(&old, &new).unwrap()),
    ];
    let layout = scratch.path("layout");
    for (tag, image) in images {
        let reference = format!("example.com/{tag}:1");
        store.tag(&name(&reference), &image.descriptor()).unwrap();
        // umoci takes no colon in a name.
        let from = format!("oci:{}:{reference}", store.path().display());
        run(Command::new("skopeo").args(["copy", "-q", &from, &format!("oci:{}:{tag}", layout.display())])).ok();
        let (theirs, ours) = (scratch.path(&format!("{tag}-umoci")), scratch.path(&format!("{tag}-ours")));
        run(Command::new("umoci").args(["unpack", "--image", &format!("{}:{tag}", layout.display())]).arg(&theirs))
            .ok();
        let done = image.unpack(&ours).unwrap();
        assert_eq!(done.skipped, []);
        let seen = |root: &Path| {
            let mut tree = tree::read(root);
            // What no layer describes is of 1970 with us, and of the time of unpacking with umoci.
            tree.remove("");
            tree
        };
        assert_eq!(seen(&ours), seen(&theirs.join("rootfs")), "{tag}");
    }
}

/// skopeo reads what is said of it.
#[test]
fn skopeo_takes_it_for_an_image() {
    if !installed(&["skopeo"]) {
        return;
    }
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let built = scratch_builder(&store).copy(Files::bytes("x"), "/a").cmd(["/a"]).build().unwrap();
    store.tag(&name("example.com/a:1"), &built.image.descriptor()).unwrap();
    let from = format!("oci:{}:example.com/a:1", store.path().display());
    let said = run(Command::new("skopeo").args(["inspect", "--config", &from])).ok();
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(said["config"]["Cmd"], serde_json::json!(["/a"]));
    assert_eq!(said["history"].as_array().unwrap().len(), 2);
}
