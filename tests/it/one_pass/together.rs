//! What is there already, what is there twice or not at all, who is told what, and others who do the same.

use std::process::Command;
use std::process::Stdio;
use std::sync::Mutex;

use layercake::Descriptor;
use layercake::transfer::Pull;
use serde_json::json;

use super::*;
use crate::support::blob_path;
use crate::support::name;
use crate::support::tools::Ran;
use crate::support::tools::example;

/// No request is made for the layers that are in the store, wherever they stand among the others.
#[test]
fn only_what_is_missing_is_asked_for() {
    let (served, image) = Served::with(&layered());
    let layers: Vec<Descriptor> = served.store.image(name("example.com/app:1")).unwrap().manifest().layers().to_vec();
    // The first and the fourth layer are one blob.
    for there in [&[0, 2][..], &[1, 4], &[4], &[0, 1, 2, 4]] {
        let scratch = crate::support::Scratch::new();
        let store = scratch.store("store");
        for n in there {
            let content = fs::read(blob_path(&served.store, &layers[*n])).unwrap();
            store.write(layers[*n].media_type.clone(), &content).unwrap();
        }
        let kept = blobs(&store);
        let done = client().pull(&image).unpack_with(&store, scratch.path("one"), &options()).unwrap();
        let missing: Vec<Digest> = asked(&served);
        let expected: BTreeSet<Digest> =
            layers.iter().map(|layer| layer.digest).chain([done.pulled.image.id()]).collect();
        assert_eq!(missing.len() + kept.len(), expected.len(), "{there:?}");
        assert_eq!(missing.into_iter().chain(kept).collect::<BTreeSet<_>>(), expected, "{there:?}");
        let _ = done.pulled.image.unpack_with(scratch.path("two"), &options()).unwrap();
        assert_eq!(lines(&scratch.path("one")), lines(&scratch.path("two")), "{there:?}");
    }
}

/// An image without layers is an empty root, or for overlayfs no directory at all.
#[test]
fn images_without_layers() {
    let (served, image) = Served::with(&Fixture::new(platform("linux/amd64")));
    for layout in [Layout::Flat, Layout::Overlay] {
        let store = served.scratch.store(&format!("{layout:?}"));
        let [one, two] = ["one", "two"].map(|name| served.scratch.path(&format!("{name}-{layout:?}")));
        let done = client().pull(&image).unpack_with(&store, &one, &options().layout(layout)).unwrap();
        let again = done.pulled.image.unpack_with(&two, &options().layout(layout)).unwrap();
        assert_eq!(done.unpacked, again);
        assert_eq!(without_times(lines(&one)), without_times(lines(&two)));
        assert!(store.image(&image).unwrap().is_complete().unwrap());
    }
}

/// L20: the layers, each in a directory of its own, are those that an unpack from the store makes.
#[test]
fn layers_for_overlayfs_are_the_same() {
    let (served, image) = Served::with(&layered());
    let overlay = options().layout(Layout::Overlay);
    let store = served.scratch.store("store");
    let (one, two) = (served.scratch.path("one"), served.scratch.path("two"));
    served.registry.fault(Fault::on("/blobs/").after(2).times(1).truncate(100_000));
    let done = client().pull(&image).unpack_with(&store, &one, &overlay).unwrap();
    let again = done.pulled.image.unpack_with(&two, &overlay).unwrap();
    assert_eq!(done.unpacked, again);
    assert_eq!(without_times(lines(&one)), without_times(lines(&two)));
    assert_eq!(fs::read_dir(&one).unwrap().count(), 5);
}

/// What was told, but how the pieces of a blob came.
struct Told(Mutex<Vec<String>>);

impl layercake::Observer for Told {
    fn event(&self, event: &Event<'_>) {
        if !matches!(event, Event::Progress { .. }) {
            self.0.lock().unwrap().push(format!("{event:?}"));
        }
    }
}

impl Told {
    fn new() -> Told {
        Told(Mutex::default())
    }

    fn all(self) -> Vec<String> {
        self.0.into_inner().unwrap()
    }
}

/// The pull's observer is told what a pull tells, and the unpacking's what an unpack tells, in the same order; one
/// observer of both is told both.
#[test]
fn the_same_is_told_as_in_two_steps() {
    let (served, image) = Served::with(&layered());
    for some_are_there in [false, true] {
        let fill = |store: &str| {
            let store = served.scratch.store(&format!("{store}-{some_are_there}"));
            let layer = served.store.image(name("example.com/app:1")).unwrap().manifest().layers()[1].clone();
            if some_are_there {
                store.write(layer.media_type.clone(), &fs::read(blob_path(&served.store, &layer)).unwrap()).unwrap();
            }
            store
        };
        let target = |name: &str| served.scratch.path(&format!("{name}-root-{some_are_there}"));
        let (to, unpack) = (Told::new(), Told::new());
        let pulled = client().pull(&image).jobs(1).observer(&to).to(&fill("two")).unwrap();
        let _ = pulled.image.unpack_with(target("two"), &options().observer(&unpack)).unwrap();
        let (to, unpack) = (to.all(), unpack.all());
        assert!(to.len() > 8 && unpack.len() > 10, "{to:?} {unpack:?}");

        let (pull, rest) = (Told::new(), Told::new());
        let run = |pull: Pull<'_>, store: &str, observer: &Told| {
            let options = options().observer(observer);
            let _ = pull.jobs(1).unpack_with(&fill(store), target(store), &options).unwrap();
        };
        run(client().pull(&image).observer(&pull), "one", &rest);
        assert_eq!(pull.all(), to);
        assert_eq!(rest.all(), unpack);

        let both = Told::new();
        run(client().pull(&image).observer(&both), "both", &both);
        let both = both.all();
        let (of_unpack, of_pull): (Vec<String>, _) = both.into_iter().partition(|told| told.starts_with("Unpack"));
        assert_eq!(of_pull, to);
        assert_eq!(of_unpack, unpack);
    }
}

fn unpack(store: &Path, image: &layercake::ImageReference, target: &Path) -> Command {
    let mut unpack = example("unpack");
    unpack.arg("--store").arg(store).args(["--pull", "--rootless", &image.to_string()]).arg(target);
    unpack.stdout(Stdio::piped()).stderr(Stdio::piped());
    unpack
}

/// P7, cases 124 and 125: several processes do it at once, with one store and a target each: all succeed. With one
/// target, one makes it, and it is whole.
#[test]
fn processes_that_do_the_same() {
    let (served, image) = Served::with(&layered());
    served.registry.fault(Fault::on("/blobs/").delay(std::time::Duration::from_millis(30)));
    let expected = {
        let done = client().pull(&image).unpack_with(
            &served.scratch.store("first"),
            served.scratch.path("first-root"),
            &options().ownership(Ownership::CurrentUser),
        );
        let _ = done.unwrap();
        lines(&served.scratch.path("first-root"))
    };
    for one_target in [false, true] {
        let scratch = crate::support::Scratch::new();
        let store = scratch.store("store");
        let targets = scratch.dir("targets");
        let target = |n: usize| targets.join(if one_target { "root".to_owned() } else { format!("root-{n}") });
        asked(&served);
        let running: Vec<_> = (0..4).map(|n| unpack(store.path(), &image, &target(n)).spawn().unwrap()).collect();
        let ended: Vec<Ran> = running.into_iter().map(|child| Ran::of(child.wait_with_output().unwrap())).collect();
        let whole = ended.iter().filter(|ran| ran.status == 0).count();
        let refused = ended.iter().filter(|ran| ran.err.contains("something already"));
        assert_eq!((whole, refused.count()), if one_target { (1, 3) } else { (4, 0) }, "{ended:?}");
        let names = fs::read_dir(&targets).unwrap().count();
        assert_eq!(names, if one_target { 1 } else { 4 });
        for n in 0..4 {
            assert_eq!(lines(&target(n)), expected);
        }
        crate::check::assert_clean(&store);
        assert_eq!(fs::read_dir(store.path().join("layercake/partial")).unwrap().count(), 0);
        assert!(asked(&served).len() <= 4 * 5);
    }
}

/// Who is killed in the middle of it holds nobody up, and what had arrived is not fetched again.
#[test]
fn a_process_that_is_killed_leaves_what_has_arrived() {
    let (served, image) = Served::with(&layered());
    let scratch = crate::support::Scratch::new();
    let store = scratch.store("store");
    let targets = scratch.dir("targets");
    // The last layer never ends.
    let last = last_layer(&served);
    let stalled = Fault::on(format!("/blobs/{last}")).times(1).stall(300_000, std::time::Duration::from_secs(20));
    served.registry.fault(stalled);
    let mut child = unpack(store.path(), &image, &targets.join("root")).spawn().unwrap();
    let start = std::time::Instant::now();
    let is_waiting = || {
        let partial = fs::read_dir(store.path().join("layercake/partial"))
            .map_or(0, |entries| entries.map(|entry| entry.unwrap().metadata().map_or(0, |stat| stat.len())).sum());
        blobs(&store).len() == 5 && partial > 200_000
    };
    while !is_waiting() {
        assert!(start.elapsed().as_secs() < 15, "it does not come as far");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(fs::read_dir(&targets).unwrap().count(), 1, "what was made aside");
    asked(&served);
    served.registry.clear_faults();
    let done = client().pull(&image).unpack_with(&store, targets.join("root"), &options()).unwrap();
    assert_eq!(asked(&served), [last]);
    let last = done.pulled.image.manifest().layers().last().unwrap();
    assert!(done.pulled.fetched.bytes < last.size - 200_000, "{:?} of {}", done.pulled.fetched, last.size);
    assert_eq!(fs::read_dir(&targets).unwrap().count(), 1, "what was made aside is gone");
    let _ = done.pulled.image.unpack_with(scratch.path("again"), &options()).unwrap();
    assert_eq!(lines(&targets.join("root")), lines(&scratch.path("again")));
}

/// An artifact has nothing that could be unpacked: that is said before its blobs are fetched.
#[test]
fn an_artifact_is_no_root_file_system() {
    let (served, _) = Served::with(&layered());
    let config = Descriptor::of("application/vnd.example.thing".into(), b"{}");
    served.store.write(config.media_type.clone(), b"{}").unwrap();
    let layers = served.store.image(name("example.com/app:1")).unwrap().manifest().layers().to_vec();
    let manifest_type = layercake::MediaType::OCI_MANIFEST;
    let manifest = json!({ "schemaVersion": 2, "mediaType": manifest_type, "config": config, "layers": layers });
    let root = served.store.write(manifest_type, manifest.to_string().as_bytes()).unwrap();
    served.store.tag(&name("example.com/thing:1"), &root).unwrap();
    let image = served.registry.reference("thing:1").unwrap();
    let (store, target) = (served.scratch.store("store"), served.scratch.path("rootfs"));
    let error = failure(client().pull(&image).unpack_with(&store, &target, &options()));
    nothing_beside(&target);
    assert_eq!(asked(&served), []);
    assert_kind!(error, ErrorKind::UnsupportedMediaType { .. });
    // As a pull and an unpack it is the same, but for what the pull has brought.
    let pulled = client().pull(&image).to(&store).unwrap();
    let expected = failure(pulled.image.unpack_with(&target, &options()));
    let cause = |error: &layercake::Error| error.to_string().rsplit_once(": ").unwrap().1.to_owned();
    assert_eq!(cause(&error), cause(&expected));
}

/// P9: where the target is slow, what has arrived waits in the store, and not in memory.
#[test]
fn a_slow_target_takes_no_memory() {
    let layers = (0..6).fold(Fixture::new(platform("linux/amd64")), |fixture, n: u64| {
        fixture.raw_layer(tar(&[Item::file(format!("{n}"), ""), Item::file(format!("{n}-big"), noise(n, 12 << 20))]))
    });
    let (served, image) = Served::with(&layers.compression(layercake::Compression::None));
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["one_pass::together::helper_that_applies_late", "--exact", "--ignored", "--nocapture", "-q"]);
    command.env("LAYERCAKE_TEST_IMAGE", image.to_string()).env("LAYERCAKE_TEST_SCRATCH", served.scratch.path(""));
    let out = Ran::of(command.output().unwrap()).ok();
    let peak = |line: &str| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok();
    let peak = out.lines().find_map(peak).unwrap_or_else(|| panic!("{out}"));
    println!("{peak} KiB at most, of 72 MiB");
    assert!(peak < 40 << 10, "{peak} KiB");
}

#[test]
#[ignore = "run by another test, as a process of its own"]
fn helper_that_applies_late() {
    let Ok(image) = std::env::var("LAYERCAKE_TEST_IMAGE") else { return };
    let scratch = std::path::PathBuf::from(std::env::var_os("LAYERCAKE_TEST_SCRATCH").unwrap());
    let store = Store::create(scratch.join("store")).unwrap().with_durability(layercake::Durability::None);
    // The first entry is applied when the last layer is there.
    let (finished, changed) = (Mutex::new(0), std::sync::Condvar::new());
    let observer = |event: &Event<'_>| match event {
        Event::Finished { .. } => {
            *finished.lock().unwrap() += 1;
            changed.notify_all();
        }
        Event::Unpacking { .. } => {
            drop(changed.wait_while(finished.lock().unwrap(), |finished| *finished < 6).unwrap())
        }
        _ => {}
    };
    let options = options().observer(&observer);
    let pull = client().pull(&name(&image)).platform(platform("linux/amd64")).observer(&observer);
    let done = pull.unpack_with(&store, scratch.join("rootfs"), &options).unwrap();
    assert_eq!(done.unpacked.bytes, 72 << 20);
    println!("\n{}", fs::read_to_string("/proc/self/status").unwrap());
}
