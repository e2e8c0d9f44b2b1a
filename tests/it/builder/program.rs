//! The example `build`.

use std::process::Command;

use super::*;
use crate::support::name;
use crate::support::tools::example;
use crate::support::tools::run;

fn lines(command: &mut Command) -> Vec<String> {
    run(command.env_remove("SOURCE_DATE_EPOCH")).ok().lines().map(str::to_owned).collect()
}

/// Without arguments there is something to see, and the second time it is cached.
#[test]
fn it_builds_something_and_says_what_was_cached() {
    let scratch = Scratch::new();
    let store = scratch.path("store");
    let build = || lines(example("build").arg("--store").arg(&store).args(["--platform", "linux/amd64"]));
    let (first, second) = (build(), build());
    assert_eq!(first.len(), 5);
    assert!(first[0].starts_with("step 1 of 4: COPY file:") && first[0].ends_with(" in /usr/bin/cake"), "{first:?}");
    assert_eq!(first[2..4], ["step 3 of 4: ENV PATH=/usr/bin:/bin", "step 4 of 4: CMD [\"/usr/bin/cake\"]"]);
    assert_eq!(first[4], "sha256:2e4417395683492d7e0d7e389749a1aae1a7c3ceef82ba39f69fe5d25485d32a");
    let cached = |line: &String| if line.contains("COPY") { format!("{line} (cached)") } else { line.clone() };
    assert_eq!(second, first.iter().map(cached).collect::<Vec<_>>());
}

/// C5: neither the mask nor the clock nor the place shows.
#[test]
fn the_mask_does_not_show() {
    let scratch = Scratch::new();
    let tree = scratch.dir("tree");
    fs::create_dir(tree.join("d")).unwrap();
    write(tree.join("d/f"), "f");
    fs::set_permissions(tree.join("d"), fs::Permissions::from_mode(0o755)).unwrap();
    let program = example("build").get_program().to_owned();
    let built = |mask: &str| {
        let store = scratch.path(&format!("store-{mask}"));
        let script = format!("umask {mask}; exec \"$0\" \"$@\"");
        let mut command = Command::new("sh");
        command.arg("-c").arg(script).arg(&program).arg("--store").arg(&store);
        command.args(["--created", "1000000000", "--platform", "linux/amd64", "-c", "CMD x", "--to", "/srv"]);
        let lines = lines(command.arg(&tree).arg("example.com/a:1"));
        let store = Store::open(&store).unwrap();
        let image = store.image(name("example.com/a:1")).unwrap();
        assert_eq!(lines.last().unwrap(), &image.id().to_string());
        assert_eq!(
            topmost(&image),
            ["srv/ 755 0:0 1000000000", "srv/d/ 755 0:0 1000000000", "srv/d/f 644 0:0 1000000000"]
        );
        image.digest()
    };
    assert_eq!(built("000"), built("077"));
}

/// On another image, at the time that the environment says; and what cannot be is said in one line.
#[test]
fn it_builds_on_an_image() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    Fixture::demo().tag(&store, &name("base:1")).unwrap();
    let tree = scratch.dir("tree");
    write(tree.join("f"), "f");
    let build = |arguments: &[&str]| {
        let mut command = example("build");
        command.arg("--store").arg(store.path()).args(["--from", "base:1", "--platform", "linux/arm64"]);
        run(command.env("SOURCE_DATE_EPOCH", "5").args(arguments).arg(&tree).arg("new:1"))
    };
    build(&[]).ok();
    let image = store.image(name("new:1")).unwrap();
    assert_eq!((topmost(&image), image.layers().unwrap().len()), (vec!["f 644 0:0 5".to_owned()], 4));
    assert_eq!(image.config().unwrap().architecture(), "arm64");
    let failed = build(&["--to", "/etc/motd"]);
    assert_eq!(failed.status, 1);
    assert!(failed.err.ends_with("/etc/motd is no directory, and something goes into it\n"), "{}", failed.err);
}
