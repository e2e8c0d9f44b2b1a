//! Images that are built: what is copied where, and the same again.

mod cache;
mod form;
mod hostile;
mod index;
mod interop;
mod laws;
mod program;
mod run;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::fs::symlink;
use std::path::Path;

use layercake::Error;
use layercake::ErrorKind;
use layercake::Image;
use layercake::ImageBuilder;
use layercake::MediaType;
use layercake::Platform;
use layercake::Store;
use layercake::builder::Files;
use layercake::changeset::EntryKind;
use layercake::testing::Fixture;

use crate::assert_kind;
use crate::support::Scratch;
use crate::support::failure;
use crate::support::tape::Item;
use crate::support::tape::tar;

fn scratch_builder<'a>(store: &Store) -> ImageBuilder<'a> {
    ImageBuilder::from_scratch(store, &Platform::new("linux", "amd64"))
}

/// An image of one layer of these entries.
fn base(store: &Store, items: &[Item]) -> Image {
    let fixture = Fixture::new(Platform::new("linux", "amd64")).raw_layer(tar(items));
    store.image_at(&fixture.write(store).unwrap()).unwrap()
}

/// A merged `/usr`, a directory for everybody, and a file.
fn usual_base(store: &Store) -> Image {
    let items = [
        Item::dir("usr"),
        Item::dir("usr/lib").mode(0o750).owner(7, 8).mtime(5).xattr("user.x", "y"),
        Item::symlink("lib", "usr/lib"),
        Item::dir("tmp").mode(0o1777),
        Item::file("usr/lib/old", "old"),
        Item::symlink("up", "../../tmp"),
        Item::symlink("circle", "circle"),
        Item::symlink("dangling", "/var/new"),
    ];
    base(store, &items)
}

/// The topmost layer's entries: path, kind, mode in octal, owner, and time.
fn topmost(image: &Image) -> Vec<String> {
    let layers = image.layers().unwrap();
    let mut entries = layers.last().unwrap().entries().unwrap();
    let mut found = Vec::new();
    while let Some(entry) = entries.next_entry().unwrap() {
        let kind = match entry.kind() {
            EntryKind::File => String::new(),
            EntryKind::Directory => "/".to_owned(),
            EntryKind::Whiteout => " gone".to_owned(),
            EntryKind::Symlink { target } => format!(" -> {}", target.display()),
            EntryKind::HardLink { target } => format!(" = {}", target.display()),
            other => format!(" {other:?}"),
        };
        let (path, owner, time) =
            (entry.path().display().to_string(), (entry.uid(), entry.gid()), entry.modified().seconds);
        found.push(format!("{path}{kind} {:o} {}:{} {time}", entry.mode(), owner.0, owner.1));
    }
    found
}

fn write(path: impl AsRef<Path>, content: &str) {
    fs::write(path.as_ref(), content).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
}

fn text(image: &Image, path: &str) -> String {
    std::io::read_to_string(image.read_file(path).unwrap()).unwrap()
}

#[track_caller]
fn refused(builder: ImageBuilder<'_>) -> Error {
    let error = failure(builder.build());
    assert_kind!(error, ErrorKind::InvalidInput(_));
    error
}

/// C2: parents that are there stay as they are, and are said as they are; those that are not are root's. Links are
/// followed inside of the image (L13), those of the tree that is copied are not.
#[test]
fn files_go_where_the_image_leads_them() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let tree = scratch.dir("tree");
    fs::create_dir_all(tree.join("lib/sub")).unwrap();
    fs::create_dir(tree.join("tmp")).unwrap();
    write(tree.join("lib/new"), "new");
    fs::hard_link(tree.join("lib/new"), tree.join("lib/sub/alias")).unwrap();
    symlink("/etc/passwd", tree.join("tmp/link")).unwrap();
    fs::set_permissions(tree.join("lib/sub"), fs::Permissions::from_mode(0o711)).unwrap();
    let built = ImageBuilder::from_image(&usual_base(&store)).epoch(9).copy(&tree, "/").build().unwrap();
    let expected = [
        "usr/ 755 0:0 0",
        "usr/lib/ 750 7:8 5",
        "usr/lib/new 644 0:0 9",
        "usr/lib/sub/ 711 0:0 9",
        "usr/lib/sub/alias = usr/lib/new 644 0:0 9",
        "tmp/ 1777 0:0 0",
        "tmp/link -> /etc/passwd 777 0:0 9",
    ];
    assert_eq!(topmost(&built.image), expected);
    assert_eq!(text(&built.image, "lib/sub/alias"), "new");
    assert_eq!(text(&built.image, "lib/old"), "old");
}

/// Of one file and of bytes: by a new name, by their own behind a `/`, through links, and with owner and mode.
#[test]
fn one_thing_goes_where_it_is_told() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    write(scratch.path("app.conf"), "conf");
    symlink("app.conf", scratch.path("linked")).unwrap();
    let image = usual_base(&store);
    let copied = |files: Files, to: &str| {
        topmost(&ImageBuilder::from_image(&image).epoch(3).copy(files, to).build().unwrap().image)
    };
    assert_eq!(
        copied(Files::bytes("x").mode(0o600).owner(1, 2), "/up/a/x")[..],
        ["tmp/ 1777 0:0 0", "tmp/a/ 755 0:0 3", "tmp/a/x 600 1:2 3",]
    );
    assert_eq!(copied(Files::at(scratch.path("linked")).mode(0o4755), "lib/")[2], "usr/lib/linked 4755 0:0 3");
    assert_eq!(copied(Files::bytes(""), "dangling/../b")[..], ["b 644 0:0 3"]);
    assert_eq!(
        copied(Files::bytes(""), "dangling/b")[..],
        ["var/ 755 0:0 3", "var/new/ 755 0:0 3", "var/new/b 644 0:0 3",]
    );
    // A link's place is taken; it is not followed.
    assert_eq!(copied(Files::bytes(""), "lib")[..], ["lib 644 0:0 3"]);
    let kept = copied(Files::at(scratch.path("app.conf")).keep_owners(), "a");
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    assert_eq!(kept[..], [format!("a 644 {uid}:{gid} 3")]);
}

/// A directory that is missing is made, be there something to put into it or not.
#[test]
fn an_empty_tree_makes_its_directory() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let empty = scratch.dir("empty");
    let built = ImageBuilder::from_image(&usual_base(&store)).epoch(3).copy(&empty, "/lib/new/dir").build().unwrap();
    let expected = ["usr/ 755 0:0 0", "usr/lib/ 750 7:8 5", "usr/lib/new/ 755 0:0 3", "usr/lib/new/dir/ 755 0:0 3"];
    assert_eq!(topmost(&built.image), expected);
}

/// Directories may be searched by whoever may read them.
#[test]
fn modes_are_for_files_and_directories() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let tree = scratch.dir("tree");
    fs::create_dir(tree.join("d")).unwrap();
    write(tree.join("d/f"), "");
    symlink("f", tree.join("d/l")).unwrap();
    let built = scratch_builder(&store).epoch(0).copy(Files::at(&tree).mode(0o640), "/").build().unwrap();
    assert_eq!(topmost(&built.image), ["d/ 750 0:0 0", "d/f 640 0:0 0", "d/l -> f 777 0:0 0"]);
}

#[test]
fn what_would_break_the_image_is_refused() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let image = usual_base(&store);
    let on = || ImageBuilder::from_image(&image);
    let tree = scratch.dir("tree");
    fs::create_dir(tree.join("old")).unwrap();
    let error = refused(on().copy(&tree, "lib")).to_string();
    let step = format!("build an image: step 1 of 1: copy {0} to lib: pack {0}: ", tree.display());
    assert_eq!(error, format!("{step}/usr/lib/old is no directory, and something goes into it"));
    let error = refused(on().copy(Files::bytes(""), "usr/lib")).to_string();
    assert!(error.ends_with("/usr/lib is a directory, and something else would take its place"), "{error}");
    refused(on().copy(Files::bytes(""), "/"));
    refused(on().copy(Files::bytes(""), "tmp/"));
    refused(on().copy(Files::bytes(""), "circle/x"));
    refused(on().copy(Files::bytes(""), "tmp/.wh.x"));
    refused(on().copy(Files::bytes("").owner(u32::MAX, 0), "tmp/x"));
    refused(on().env("", ""));

    let two = scratch.dir("two");
    fs::create_dir_all(two.join("usr/lib")).unwrap();
    fs::create_dir(two.join("lib")).unwrap();
    write(two.join("usr/lib/other"), "");
    write(two.join("lib/new"), "");
    assert_eq!(
        topmost(&on().epoch(0).copy(&two, "/").build().unwrap().image)[2..],
        ["usr/lib/new 644 0:0 0", "usr/lib/other 644 0:0 0",]
    );
    write(two.join("lib/other"), "");
    let error = refused(on().copy(&two, "/")).to_string();
    assert!(error.ends_with("two things go to /usr/lib/other"), "{error}");
}

#[test]
fn what_is_removed_is_hidden() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let image = usual_base(&store);
    let built = ImageBuilder::from_image(&image).remove("/lib/old").build().unwrap();
    assert_eq!(topmost(&built.image), ["usr/ 755 0:0 0", "usr/lib/ 750 7:8 5", "usr/lib/old gone 0 0:0 0"]);
    assert!(built.image.read_file("usr/lib/old").unwrap_err().is_not_found());
    // The link goes, and not what it leads to.
    let unlinked = ImageBuilder::from_image(&image).remove("lib").build().unwrap();
    assert_eq!(text(&unlinked.image, "usr/lib/old"), "old");
    for path in ["lib/none", "none/none", "/"] {
        let error = failure(ImageBuilder::from_image(&image).remove(path).build());
        assert_kind!(error, ErrorKind::NotFound { .. });
    }
}

/// Steps see what those before them made; what changes nothing makes no layer (C8), and each step is in the history.
#[test]
fn steps_follow_one_another() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let empty = scratch.dir("empty");
    let built = scratch_builder(&store)
        .copy(Files::bytes("1"), "a/b")
        .copy(&empty, "/a")
        .remove("a/b")
        .copy(Files::bytes("2"), "/a/b")
        .env("A", "1")
        .layer_from_dir(&empty)
        .build()
        .unwrap();
    assert_eq!(text(&built.image, "a/b"), "2");
    let layers: Vec<bool> = built.steps.iter().map(|step| step.layer.is_some()).collect();
    assert_eq!(layers, [true, false, true, true, false, false]);
    let config = built.image.config().unwrap();
    let told: Vec<(Option<&str>, bool)> =
        config.history().iter().map(|step| (step.created_by.as_deref(), !step.empty_layer)).collect();
    let steps: Vec<(Option<&str>, bool)> =
        built.steps.iter().map(|step| (Some(step.text.as_str()), step.layer.is_some())).collect();
    assert_eq!(told, steps);
    assert_eq!(built.steps[4].text, "ENV A=1");
    assert_eq!(built.steps[2].text, "REMOVE /a/b");
    assert_eq!(config.created().unwrap(), None);
    assert!(!String::from_utf8_lossy(config.raw()).contains(&*scratch.path("").to_string_lossy()));
}

/// A tar is a layer as it is; a directory becomes one that takes the place of what is there.
#[test]
fn layers_come_from_tars_and_directories() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let image = usual_base(&store);
    let plain = tar(&[Item::file("usr/lib/.wh.old", ""), Item::file("new", "new")]);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut gzip, &plain).unwrap();
    let gzip = gzip.finish().unwrap();
    for (bytes, media_type) in [(&plain, MediaType::OCI_LAYER), (&gzip, MediaType::OCI_LAYER_GZIP)] {
        fs::write(scratch.path("layer.tar"), bytes).unwrap();
        let built = ImageBuilder::from_image(&image).layer_from_tar(scratch.path("layer.tar")).build().unwrap();
        let layer = built.image.layers().unwrap().pop().unwrap();
        let digest = layercake::Digest::sha256(bytes);
        assert_eq!(
            (layer.digest(), layer.media_type(), layer.diff_id()),
            (digest, &media_type, layercake::Digest::sha256(&plain))
        );
        assert_eq!(text(&built.image, "new"), "new");
        assert!(built.image.read_file("usr/lib/old").is_err());
    }
    let tree = scratch.dir("tree");
    fs::create_dir(tree.join("lib")).unwrap();
    write(tree.join("lib/own"), "own");
    let built = ImageBuilder::from_image(&image).layer_from_dir(&tree).build().unwrap();
    assert_eq!(text(&built.image, "lib/own"), "own");
    assert!(built.image.read_file("lib/old").is_err(), "a directory took the place of the link");
}

/// C9: media types and what nobody changes are the base's.
#[test]
fn dockers_images_stay_dockers() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let image = store.image_at(&Fixture::demo().docker().write(&store).unwrap()).unwrap();
    fs::write(scratch.path("layer.tar"), tar(&[Item::file("x", "")])).unwrap();
    let built = ImageBuilder::from_image(&image)
        .copy(Files::bytes(""), "/new")
        .layer_from_tar(scratch.path("layer.tar"))
        .user("nobody")
        .build()
        .unwrap();
    let manifest = built.image.manifest();
    assert_eq!(manifest.media_type(), &MediaType::DOCKER_MANIFEST);
    assert_eq!(manifest.config().media_type, MediaType::DOCKER_CONFIG);
    let types: Vec<&str> = manifest.layers().iter().map(|layer| layer.media_type.as_str()).collect();
    let gzip = MediaType::DOCKER_LAYER_GZIP;
    let plain = "application/vnd.docker.image.rootfs.diff.tar";
    assert_eq!(types, [gzip.as_str(), gzip.as_str(), gzip.as_str(), gzip.as_str(), plain]);
    let (old, new) = (image.config().unwrap(), built.image.config().unwrap());
    assert_eq!((new.user(), new.cmd(), new.env()), ("nobody", old.cmd(), old.env()));
}
