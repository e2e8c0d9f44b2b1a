//! Many processes on one store, some of which are stopped or killed in the middle of it.

use std::collections::BTreeMap;
use std::fs;
use std::io::BufRead;
use std::io::BufReader;
use std::path::Path;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use layercake::Digest;
use layercake::Durability;
use layercake::ImageReference;
use layercake::MediaType;
use layercake::Store;
use layercake::store::GcOptions;
use layercake::testing::Fixture;

use crate::check::assert_clean;
use crate::gc::at_once;
use crate::support::Scratch;
use crate::support::Served;
use crate::support::client;
use crate::support::name;
use crate::support::platform;
use crate::support::tools::example;
use crate::support::tools::installed;

/// Another process: this test binary, which runs one of the helpers below.
fn helper(test: &str, store: &Path, variables: &[(&str, String)]) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([&format!("processes::{test}"), "--exact", "--ignored", "--nocapture", "-q"]);
    command.env("LAYERCAKE_TEST_STORE", store).envs(variables.iter().map(|(name, value)| (name, value)));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    command
}

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_default()
}

/// The number of the environment, or this one.
fn setting(name: &str, otherwise: u64) -> u64 {
    variable(name).parse().unwrap_or(otherwise)
}

/// P7: eight processes give 250 names each, at once: none is lost.
#[test]
fn no_name_is_lost() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let blob = store.write(MediaType::OCTET_STREAM, b"1").unwrap();
    let children: Vec<Child> =
        (0..8).map(|n| helper("helper_that_tags", store.path(), &[("WHO", n.to_string())]).spawn().unwrap()).collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    let mut expected: Vec<String> =
        (0..8).flat_map(|who| (0..250).map(move |n| format!("docker.io/library/app-{who}:{n}"))).collect();
    expected.sort();
    let mut found: Vec<String> = store.entries().unwrap().map(|entry| entry.unwrap().0.to_string()).collect();
    found.sort();
    assert_eq!(found, expected);
    assert_eq!(store.resolve(name("app-7:249")).unwrap().digest, blob.digest);
}

#[test]
#[ignore = "run by another test, as a process of its own"]
fn helper_that_tags() {
    let store = Store::open(variable("LAYERCAKE_TEST_STORE")).unwrap().with_durability(Durability::None);
    let blob = layercake::Descriptor::of(MediaType::OCTET_STREAM, b"1");
    for n in 0..250 {
        store.tag(&name(&format!("app-{}:{n}", variable("WHO"))), &blob).unwrap();
    }
}

/// Cases 124, 126 and 127: pulls of images that share blobs, while names are taken away and garbage is collected
/// without any grace: each pull that succeeds is whole, and nothing is left behind.
#[test]
fn pulls_survive_gc() {
    let served = Served::start();
    let base = || Fixture::new(platform("linux/amd64")).layer(&[("base", &[7; 20_000])]);
    let images: Vec<ImageReference> = (0..3)
        .map(|n: u8| {
            base().layer(&[("own", &[n])]).tag(&served.store, &name(&format!("example.com/app:{n}"))).unwrap();
            served.registry.reference(&format!("app:{n}")).unwrap()
        })
        .collect();
    let store = served.scratch.store("store");
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let collector = scope.spawn(|| {
            let (store, mut collected) = (Store::open(store.path()).unwrap(), 0);
            while !done.load(Ordering::Relaxed) {
                collected += store.gc_with(&at_once()).unwrap().blobs.len();
            }
            collected
        });
        let pullers: Vec<_> = images
            .iter()
            .map(|image| {
                let store = Store::open(store.path()).unwrap().with_durability(Durability::None);
                scope.spawn(move || {
                    for round in 0..17 {
                        let pulled = client().pull(image).platform(platform("linux/amd64")).to(&store).unwrap();
                        assert!(pulled.image.is_complete().unwrap(), "round {round}");
                        assert!(store.image(image).unwrap().is_complete().unwrap(), "round {round}");
                        store.untag(image).unwrap();
                    }
                })
            })
            .collect();
        let ended: Vec<_> = pullers.into_iter().map(thread::ScopedJoinHandle::join).collect();
        done.store(true, Ordering::Relaxed);
        assert!(collector.join().unwrap() > 10);
        ended.into_iter().for_each(|ended| ended.unwrap());
    });
    store.gc_with(&at_once()).unwrap();
    assert_eq!(store.blobs().unwrap().count(), 0);
    for folder in ["leases", "partial"] {
        assert_eq!(fs::read_dir(store.path().join("layercake").join(folder)).unwrap().count(), 0, "{folder}");
    }
}

/// Whether all threads of a process, and its only child, stand still for a moment.
fn stopped(strace: &Child) -> Option<u32> {
    let pid = strace.id();
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    let child: u32 = children.split_whitespace().next()?.parse().ok()?;
    let stands = || {
        let stat = fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
        matches!(stat.rsplit_once(") ").map(|(_, rest)| &rest[..1]), Some("T" | "t"))
    };
    let still = (0..5).all(|_| {
        thread::sleep(Duration::from_millis(4));
        stands()
    });
    still.then_some(child)
}

/// Cases 129 and 135: a pull is stopped at each lock that it takes, between making a file and locking it among them.
/// Meanwhile others collect, without any grace, and use the store. Then it goes on, and its image is whole.
#[test]
fn who_is_stopped_at_any_lock_is_not_taken_for_dead() {
    if !installed(&["strace"]) {
        return;
    }
    let (served, image) = Served::with(&Fixture::demo());
    let mut points = 0;
    loop {
        let scratch = Scratch::new();
        let store = scratch.store("store");
        let pull = example("pull");
        let mut command = Command::new("strace");
        let inject = format!("inject=flock:signal=SIGSTOP:when={}", points + 1);
        command.args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=flock", "-e", &inject]).arg(pull.get_program());
        command.args(["--quiet", "--jobs", "1", "--store"]).arg(store.path()).arg(image.to_string());
        let mut strace = command.stdout(Stdio::null()).spawn().unwrap();
        let start = Instant::now();
        let child = loop {
            match stopped(&strace) {
                Some(child) => break Some(child),
                None if strace.try_wait().unwrap().is_some() => break None,
                None => assert!(start.elapsed() < Duration::from_secs(60), "it neither stops nor ends"),
            }
        };
        let Some(child) = child else { break };
        points += 1;
        // The one lock that it may have is on what everyone needs: then collecting waits, and that is tested elsewhere.
        // A lock that was not made yet is free.
        let is_free = |name: &str| {
            let file = fs::File::open(store.path().join("layercake").join(name));
            file.map_or(true, |file| file.try_lock().is_ok())
        };
        if is_free("leases") && is_free("lock") {
            store.gc_with(&at_once()).unwrap();
        }
        let pid = rustix::process::Pid::from_raw(i32::try_from(child).unwrap()).unwrap();
        let status = loop {
            // One that comes before it has stopped altogether lets nobody go on.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::CONT);
            thread::sleep(Duration::from_millis(10));
            if let Some(status) = strace.try_wait().unwrap() {
                break status;
            }
            assert!(start.elapsed() < Duration::from_secs(120), "lock {points}: it does not go on");
        };
        assert!(status.success(), "lock {points}");
        assert!(store.image(&image).unwrap().is_complete().unwrap(), "lock {points}");
        store.gc_with(&at_once()).unwrap();
        assert_clean(&store);
    }
    println!("{points} locks");
    assert!(points > 8, "only {points} locks");
    drop(served);
}

/// P5 to P8: eight processes pull, write, tag, untag and collect in one store, and are killed at random moments. The
/// store is sound afterwards, and every name whose giving was reported is there, with its image whole.
#[test]
fn nothing_acknowledged_is_lost_when_processes_are_killed() {
    let rounds = setting("LAYERCAKE_KILL_ROUNDS", 4);
    let seed = setting("LAYERCAKE_KILL_SEED", 1);
    let served = Served::start();
    for n in 0..4u8 {
        let image = Fixture::new(platform("linux/amd64")).layer(&[("base", &[7; 20_000])]).layer(&[("own", &[n])]);
        image.tag(&served.store, &name(&format!("example.com/app:{n}"))).unwrap();
    }
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut meanings: BTreeMap<String, Option<Digest>> = BTreeMap::new();
    let (mut acknowledged, mut killed) = (0, 0);
    for round in 0..rounds {
        let children: Vec<Child> = (0..8)
            .map(|who: u64| {
                let variables = [
                    ("WHO", who.to_string()),
                    ("SEED", (seed + round * 8 + who).to_string()),
                    ("HOST", served.registry.host()),
                ];
                helper("helper_that_is_killed_in_the_middle", store.path(), &variables).spawn().unwrap()
            })
            .collect();
        let moments: Vec<u64> = (0..8).map(|_| random.u64(50..700)).collect();
        let start = Instant::now();
        let said: Vec<Vec<String>> = thread::scope(|scope| {
            let ends = children.into_iter().zip(moments).map(|(mut child, moment)| {
                scope.spawn(move || {
                    let out = BufReader::new(child.stdout.take().unwrap());
                    let reader = thread::spawn(move || out.lines().map_while(Result::ok).collect::<Vec<_>>());
                    thread::sleep(Duration::from_millis(moment).saturating_sub(start.elapsed()));
                    child.kill().unwrap();
                    child.wait().unwrap();
                    reader.join().unwrap()
                })
            });
            let ends: Vec<_> = ends.collect();
            ends.into_iter().map(|end| end.join().unwrap()).collect()
        });
        killed += said.len();
        for line in said.iter().flatten() {
            match line.split_whitespace().collect::<Vec<_>>()[..] {
                // What is about to change may mean the one or the other.
                ["changing", called] => drop(meanings.remove(called)),
                ["means", called, digest] => drop(meanings.insert(called.to_owned(), Some(digest.parse().unwrap()))),
                ["gone", called] => drop(meanings.insert(called.to_owned(), None)),
                ["failed", ..] => panic!("seed {seed}, round {round}: {line}"),
                // The test harness's own words, or a line that was cut.
                _ => continue,
            }
            acknowledged += 1;
        }
        let checked = store.check().unwrap();
        assert_eq!(checked.problems, [], "seed {seed}, round {round}");
        for (called, meaning) in &meanings {
            let found = store.resolve(name(called)).ok().map(|root| root.digest);
            assert_eq!(found, *meaning, "seed {seed}, round {round}: {called}");
            if found.is_some() {
                assert!(
                    store.image(name(called)).unwrap().is_complete().unwrap(),
                    "seed {seed}, round {round}: {called}"
                );
            }
        }
    }
    println!("{rounds} rounds, {killed} processes killed, {acknowledged} changes acknowledged");
    assert!(acknowledged > 20 * rounds, "only {acknowledged} changes: they were killed before they did anything");
    for entry in store.entries().unwrap().map(Result::unwrap).collect::<Vec<_>>() {
        store.untag(entry.0).unwrap();
    }
    store.gc_with(&at_once()).unwrap();
    assert_eq!(store.blobs().unwrap().count(), 0, "nothing is left");
    for folder in ["leases", "partial"] {
        assert_eq!(fs::read_dir(store.path().join("layercake").join(folder)).unwrap().count(), 0, "{folder}");
    }
}

#[test]
#[ignore = "run by another test, which kills it"]
fn helper_that_is_killed_in_the_middle() {
    let Some(store) = std::env::var_os("LAYERCAKE_TEST_STORE").map(|path| Store::open(path).unwrap()) else { return };
    let store = store.with_durability(Durability::None);
    let who = variable("WHO");
    let mut random = fastrand::Rng::with_seed(setting("SEED", 0));
    loop {
        let called = format!("{}-{}:latest", who, random.u8(..4));
        let work = || work(&store, &called, &mut fastrand::Rng::with_seed(random.u64(..)));
        if let Err(error) = { work }() {
            println!("failed {called} {error:?}");
            return;
        }
    }
}

/// Does one thing, and says before and after what.
fn work(store: &Store, called: &str, random: &mut fastrand::Rng) -> layercake::Result<()> {
    let app = name(called);
    match random.u8(..10) {
        0..4 => {
            let from: ImageReference = format!("{}/app:{}", variable("HOST"), random.u8(..4)).parse()?;
            let leased = store.leased()?;
            let pull = client().pull(&from).platform(platform("linux/amd64"));
            let pulled = match pull.to(&leased) {
                // Another process takes the same name away.
                Err(error) if error.is_not_found() => return Ok(()),
                done => done?,
            };
            println!("changing {called}");
            store.tag(&app, &pulled.root)?;
            println!("means {called} {}", pulled.root.digest);
        }
        4..6 => {
            let leased = store.leased()?;
            let image = Fixture::new(platform("linux/amd64")).layer(&[("made", &[random.u8(..8); 30_000])]);
            let root = image.write(&leased)?;
            println!("changing {called}");
            store.tag(&app, &root)?;
            println!("means {called} {}", root.digest);
        }
        6..8 => {
            println!("changing {called}");
            match store.remove(&app) {
                Err(error) if !error.is_not_found() => return Err(error),
                _ => println!("gone {called}"),
            }
        }
        8 => drop(store.gc_with(&GcOptions::new().grace(Duration::ZERO).expiry(Duration::from_secs(1)))?),
        _ => drop(store.gc_with(&at_once())?),
    }
    Ok(())
}
