//! Inputs that mean harm, or are not what they seem (case 38, P1, P11, C10).

use std::os::unix::net::UnixListener;

use layercake::Cancel;

use super::*;
use crate::support::tools::is_root;

fn pipe(path: &Path) {
    let (kind, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::from_raw_mode(0o600));
    rustix::fs::mknodat(rustix::fs::CWD, path, kind, mode, 0).unwrap();
}

/// Nothing is waited for, and no link leads out.
#[test]
fn pipes_and_links_are_copied_and_not_followed() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let tree = scratch.dir("tree");
    write(scratch.path("secret"), "secret");
    symlink(scratch.path("secret"), tree.join("link")).unwrap();
    symlink(scratch.path("."), tree.join("outside")).unwrap();
    pipe(&tree.join("pipe"));
    drop(UnixListener::bind(tree.join("socket")).unwrap());
    let built = scratch_builder(&store).epoch(0).copy(&tree, "/").build().unwrap();
    let expected = [
        format!("link -> {} 777 0:0 0", scratch.path("secret").display()),
        format!("outside -> {} 777 0:0 0", scratch.path(".").display()),
        "pipe Fifo 600 0:0 0".to_owned(),
    ];
    assert_eq!(topmost(&built.image), expected);
    let skipped: Vec<String> = built.steps[0].skipped.iter().map(ToString::to_string).collect();
    assert_eq!(skipped, ["socket: sockets are not stored"]);
}

#[test]
fn what_no_layer_can_have_is_refused() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let tree = scratch.dir("tree");
    fs::create_dir(tree.join("d")).unwrap();
    write(tree.join("d/.wh.motd"), "");
    refused(scratch_builder(&store).copy(&tree, "/"));
    refused(scratch_builder(&store).layer_from_dir(&tree));
    pipe(&scratch.path("pipe"));
    refused(scratch_builder(&store).copy(scratch.path("pipe"), "/a"));
    refused(scratch_builder(&store).layer_from_tar(scratch.path("pipe")));
    refused(scratch_builder(&store).layer_from_tar(&tree));
    fs::write(scratch.path("no.tar"), [b'x'; 2048]).unwrap();
    let error = failure(scratch_builder(&store).layer_from_tar(scratch.path("no.tar")).build());
    assert_kind!(error, ErrorKind::InvalidLayer { .. });
    fs::write(scratch.path("up.tar"), tar(&[Item::file(".wh..", "")])).unwrap();
    let error = failure(scratch_builder(&store).layer_from_tar(scratch.path("up.tar")).build());
    assert_kind!(error, ErrorKind::InvalidLayer { .. });
    assert_eq!(fs::read_dir(store.path().join("blobs/sha256")).unwrap().count(), 0, "nothing is left");
}

/// C10: what cannot be read is not left out.
#[test]
fn what_cannot_be_read_is_an_error() {
    if rustix::process::geteuid().is_root() {
        println!("ignored: root reads everything");
        return;
    }
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let tree = scratch.dir("tree");
    write(tree.join("file"), "");
    fs::set_permissions(tree.join("file"), fs::Permissions::from_mode(0o0)).unwrap();
    assert_kind!(failure(scratch_builder(&store).copy(&tree, "/").build()), ErrorKind::Io { .. });
}

/// Destinations are clamped at the root of the image, whatever links the image has.
#[test]
fn destinations_stay_in_the_image() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let image = base(&store, &[Item::symlink("out", "/../../etc"), Item::symlink("up", "..")]);
    for (to, expected) in [("../../x", "x"), ("out/x", "etc/x"), ("up/up/../x", "x"), ("a/../../x", "x")] {
        let built = ImageBuilder::from_image(&image).copy(Files::bytes(""), to).build().unwrap();
        let found = topmost(&built.image).pop().unwrap();
        assert_eq!(found, format!("{expected} 644 0:0 0"), "{to}");
        if is_root() {
            let _ = built.image.unpack(scratch.path("root")).unwrap();
            assert!(scratch.path("root").join(expected).is_file());
            fs::remove_dir_all(scratch.path("root")).unwrap();
        }
    }
}

#[test]
fn a_build_can_be_cancelled() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let cancel = Cancel::new();
    cancel.cancel();
    let error = failure(scratch_builder(&store).cancel(&cancel).copy(Files::bytes(""), "/a").build());
    assert_kind!(error, ErrorKind::Cancelled);
}

/// A base that lacks a layer is found out before anything is done.
#[test]
fn a_base_that_is_not_whole_is_refused() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let image = usual_base(&store);
    fs::remove_file(crate::support::blob_path(&store, &image.manifest().layers()[0])).unwrap();
    assert_kind!(failure(ImageBuilder::from_image(&image).env("A", "1").build()), ErrorKind::NotFound { .. });
}
