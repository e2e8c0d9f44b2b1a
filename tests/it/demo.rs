//! An image is changed, as the examples do it: pulled, checked out, changed, committed, pushed, and pulled elsewhere.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use layercake::Store;
use layercake::testing::Fixture;

use crate::support::Scratch;
use crate::support::Served;
use crate::support::name;
use crate::support::platform;
use crate::support::tape::Item;
use crate::support::tape::tar;
use crate::support::tools::example;
use crate::support::tools::is_root;
use crate::support::tools::mounts_overlays;
use crate::support::tools::run;
use crate::support::tree::lines;
use crate::support::tree::said;

fn base() -> Fixture {
    let below = [
        Item::dir("etc/"),
        Item::file("etc/motd", "A piece of cake.\n").mtime(1_000_000_000),
        Item::file("etc/issue", "be off\n"),
        Item::dir("usr/"),
        Item::dir("usr/bin/"),
        Item::file("usr/bin/greet", "#!/bin/sh\n").mode(0o4755),
        Item::hard_link("usr/bin/hello", "usr/bin/greet"),
        Item::symlink("bin", "usr/bin"),
        Item::file("gone", "soon\n"),
    ];
    let above = [Item::file(".wh.gone", ""), Item::dir("var/").mode(0o1777), Item::file("var/old/log", "old\n")];
    Fixture::new(platform("linux/amd64")).raw_layer(tar(&below)).raw_layer(tar(&above))
}

fn change(root: &Path) {
    fs::write(root.join("etc/motd"), "hello\n").unwrap();
    fs::remove_file(root.join("etc/issue")).unwrap();
    fs::remove_dir_all(root.join("var/old")).unwrap();
    fs::create_dir_all(root.join("srv/www")).unwrap();
    fs::write(root.join("srv/www/index.html"), "<p>hello\n").unwrap();
    fs::set_permissions(root.join("srv/www"), fs::Permissions::from_mode(0o2750)).unwrap();
}

const CHANGED: &str = "D /etc/issue\nC /etc/motd\nA /srv\nA /srv/www\nA /srv/www/index.html\nD /var/old\n";

/// The whole story, with images on a registry that takes what is pushed.
#[track_caller]
pub fn play(host: &str, mode: &str) {
    let scratch = Scratch::new();
    let program = |name: &str, arguments: &[&str]| {
        let ran = run(example(name).args(arguments));
        assert_eq!(ran.err, "", "{name}");
        ran.ok()
    };
    let path = |name: &str| scratch.path(name).display().to_string();
    // The missing parent of the tree is made closed to other users: there is nothing to warn of.
    let [origin, here, there, work, rootfs] = ["origin", "here", "there", "work", "jail/rootfs"].map(path);
    let (app, greeter) = (format!("{host}/demo/app:1"), format!("{host}/demo/greeter:{mode}"));
    base().tag(&Store::create(&origin).unwrap(), &name(&app)).unwrap();
    program("push", &["--quiet", "--store", &origin, &app]);

    assert_eq!(program("pull", &["--quiet", "--store", &here, &app]), format!("{app}\n"));
    let printed = program("checkout", &["--store", &here, "--mode", mode, &app, &work]);
    let root = scratch.path("work/root");
    assert_eq!(fs::canonicalize(printed.trim_end()).unwrap(), fs::canonicalize(&root).unwrap());
    assert_eq!(program("status", &[&work]), "");
    change(&root);
    assert_eq!(program("status", &[&work]), CHANGED);
    let id = program("commit", &["-m", "say hello", &work, &greeter]);
    assert_eq!(program("push", &["--quiet", "--store", &here, &greeter]), format!("{greeter}\n"));

    program("pull", &["--quiet", "--store", &there, &greeter]);
    let rootless: &[&str] = if is_root() { &[] } else { &["--rootless"] };
    program("unpack", &[&["--quiet", "--strict", "--store", &there, &greeter, &rootfs], rootless].concat());
    let (expected, found) = (said(lines(&root)), said(lines(Path::new(&rootfs))));
    assert!(expected.contains_key(&b"usr/bin/hello"[..]));
    assert_eq!(found, expected, "{mode}: the same tree as in the working copy");

    let image = Store::open(&there).unwrap().image(name(&greeter)).unwrap();
    assert_eq!(id, format!("{}\n", image.id()));
    assert_eq!(image.history().unwrap().last().unwrap().history.comment.as_deref(), Some("say hello"));
    let below = Store::open(&origin).unwrap().image(name(&app)).unwrap();
    assert_eq!(image.manifest().layers()[..2], *below.manifest().layers());
    program("discard", &[&work]);
    assert!(!scratch.path("work").exists());
}

/// C1, C2, C9: what was pulled, changed, committed and pushed is the same tree wherever it is pulled to.
#[test]
fn a_changed_image_is_the_same_elsewhere() {
    let served = Served::start();
    play(&served.registry.host(), "copy");
    if is_root() && mounts_overlays() {
        play(&served.registry.host(), "overlay");
    }
}
