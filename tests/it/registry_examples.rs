//! The examples that reach registries, as programs: what they print is a contract (SPEC 2.3 and 2.4).

use std::fs;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::io::Write;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;

use layercake::Digest;
use layercake::ImageReference;
use layercake::Store;
use layercake::testing::Fixture;
use layercake::testing::SearchResult;

use crate::examples::assert_fails;
use crate::interop::pushing::podman_pulls;
use crate::support::Scratch;
use crate::support::Served;
use crate::support::name;
use crate::support::platform;
use crate::support::tools::Ran;
use crate::support::tools::example;
use crate::support::tools::installed;
use crate::support::tools::run;
use crate::support::two_layers;

/// Runs an example with a line on stdin.
fn run_with_input(command: &mut Command, input: &[u8]) -> Ran {
    let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = child.spawn().unwrap();
    // It may end without having read it.
    let _ = child.stdin.take().unwrap().write_all(input);
    Ran::of(child.wait_with_output().unwrap())
}

fn push(store: &Store, options: &[&str]) -> Ran {
    run(example("push").arg("--store").arg(store.path()).args(["--jobs", "1"]).args(options))
}

/// A store with an image of two layers, the text of a push of it without its first line, and its digest.
fn pushable(scratch: &Scratch, reference: &ImageReference) -> (Store, impl Fn(&str) -> String, Digest) {
    let store = scratch.store("store");
    two_layers().tag(&store, reference).unwrap();
    let image = store.image(reference).unwrap();
    let ids: Vec<String> = image.manifest().layers().iter().map(|layer| layer.digest.short().to_string()).collect();
    let (digest, size) = (image.digest(), image.root().size);
    let lines = move |done: &str| {
        let [first, second] = &ids[..] else { panic!("{ids:?}") };
        format!(
            "{first}: Preparing\n{second}: Preparing\n{second}: Waiting\n{first}: {done}\n{second}: {done}\n\
             latest: digest: {digest} size: {size}\n"
        )
    };
    (store, lines, digest)
}

/// SPEC 2.4, to the line: what is sent, what is there, what is mounted.
#[test]
fn push_prints_dockers_transcript() {
    let served = Served::start();
    let host = served.registry.host();
    let there = served.registry.reference("app").unwrap();
    let (store, lines, digest) = pushable(&served.scratch, &there);
    let header =
        |repository: &str| format!("Using default tag: latest\nThe push refers to repository [{host}/{repository}]\n");
    let pushed = push(&store, &[&there.to_string()]);
    assert_eq!((&*pushed.err, pushed.status), ("", 0));
    assert_eq!(pushed.out, header("app") + &lines("Pushed"));
    assert_eq!(push(&store, &[&there.to_string()]).ok(), header("app") + &lines("Layer already exists"));

    let copy = format!("{host}/team/copy");
    store.tag(&name(&copy), &store.resolve(&there).unwrap()).unwrap();
    assert_eq!(push(&store, &[&copy]).ok(), header("team/copy") + &lines("Mounted from app"));

    let tagged = format!("{host}/other:2");
    assert_eq!(push(&store, &["--quiet", &copy, &tagged]).ok(), format!("{tagged}\n"));
    assert_eq!(served.store.resolve(name(&tagged)).unwrap().digest, digest);
    let pinned = format!("{host}/other@{digest}");
    let last = push(&store, &[&copy, &pinned]).ok();
    assert!(last.contains(&format!("\n{digest}: digest: {digest} size: ")), "{last}");
}

/// A name of Docker Hub, as it is typed, is pushed elsewhere; an index goes whole, or the one image that is there.
#[test]
fn push_sends_all_that_the_store_has_of_a_name() {
    let served = Served::start();
    let (host, store) = (served.registry.host(), served.scratch.store("store"));
    let root = Fixture::demo().tag(&store, &name("demo")).unwrap();
    let there = |repository: &str| format!("{host}/{repository}:1");
    let pushed = push(&store, &["demo", &there("whole")]);
    assert_eq!((&*pushed.err, pushed.out.matches(": Pushed\n").count()), ("", 4), "the images share two layers");
    assert!(pushed.out.ends_with(&format!("\n1: digest: {} size: {}\n", root.digest, root.size)), "{}", pushed.out);
    for text in ["linux/amd64", "linux/arm64"] {
        assert!(served.store.image_for(name(&there("whole")), &platform(text)).unwrap().is_complete().unwrap());
    }
    let image = store.image_for(name("demo"), &platform("linux/arm64")).unwrap();
    let one = push(&store, &["--platform", "linux/arm64", "demo", &there("one")]);
    assert_eq!((one.err.as_str(), one.out.contains(&image.digest().to_string())), ("", true));

    let pulled = served.scratch.path("pulled");
    let pull = ["--quiet", "--platform", "linux/arm64", &there("whole")];
    run(example("pull").arg("--store").arg(&pulled).args(pull)).ok();
    let alone = push(&Store::open(&pulled).unwrap(), &[&there("whole"), &there("alone")]);
    let warning = "is in the store: only the image for linux/arm64 is pushed\n";
    assert_eq!(alone.err, format!("warning: not all of {} {warning}", there("whole")));
    assert!(alone.out.ends_with(&format!("\n1: digest: {} size: {}\n", image.digest(), image.descriptor().size)));
}

#[test]
fn push_signs_in_with_a_password_from_stdin() {
    let served = Served::start();
    served.registry.require_login("alice", "secret");
    let there = served.registry.reference("app:1").unwrap();
    let (store, ..) = pushable(&served.scratch, &there);
    let name = there.to_string();
    let layer = store.image(&there).unwrap().manifest().layers()[0].digest;
    let asked = format!("POST http://{}/v2/app/blobs/uploads/", there.host());
    let answer = "status 401: UNAUTHORIZED: authentication required";
    let refused = format!("error: push to {name}: blob 1 of 3, {layer}: {asked}: {answer}\n");
    assert_eq!(push(&store, &["--quiet", &name]).err, refused);
    let signed_in = |password: &[u8]| {
        let options = ["--username", "alice", "--password-stdin", "--quiet", &name];
        run_with_input(example("push").arg("--store").arg(store.path()).args(options), password)
    };
    assert_fails(signed_in(b"wrong\n"), "status 401: UNAUTHORIZED");
    assert_eq!(signed_in(b"secret\n").ok(), format!("{name}\n"));
}

#[test]
fn push_fails_in_one_line() {
    let served = Served::start();
    let there = served.registry.reference("app:1").unwrap();
    let (store, ..) = pushable(&served.scratch, &there);
    let there = there.to_string();
    for (options, text) in [
        (&[][..], "usage: push"),
        (&["nothing"], "image docker.io/library/nothing not found"),
        (&["Foo/Bar"], "must be lowercase"),
        (&[&there, "Foo/Bar"], "must be lowercase"),
        (&["--platform", "linux/riscv64", &there], "linux/riscv64"),
        (&["--jobs", "many", &there], "many"),
        (&["one", "two", "three"], "unexpected argument"),
        (&["--colour"], "--colour"),
    ] {
        assert_fails(push(&store, options), text);
    }
}

fn search(options: &[&str]) -> Ran {
    run(example("search").args(options))
}

/// SPEC 2.3: the table, with whatever texts people write.
#[test]
fn search_prints_dockers_table() {
    let served = Served::start();
    served.registry.offer_search(vec![
        SearchResult::new("nginx").description("Official build of Nginx.").stars(20_000).official(),
        SearchResult::new("team/nginx").description("two\r\nlines, \x1b[31mred\x1b[0m").stars(7),
        SearchResult::new("long/nginx").description("0123456789".repeat(5)).automated(),
        SearchResult::new("full/nginx").description("012345678".repeat(5)).stars(1),
        SearchResult::new("wide/nginx").description("漢字".repeat(20)),
        SearchResult::new("apache"),
    ]);
    let term = format!("{}/nginx", served.registry.host());
    let (head, tail) = ("NAME         DESCRIPTION", "STARS     OFFICIAL   AUTOMATED");
    let wide = format!("{}…", "漢字".repeat(11));
    let expected = format!(
        "{head}                                     {tail}\n\
         nginx        Official build of Nginx.                        20000     [OK]\n\
         team/nginx   two  lines, \u{fffd}[31mred\u{fffd}[0m                        7\n\
         long/nginx   01234567890123456789012345678901234567890123…   0                    [OK]\n\
         full/nginx   012345678012345678012345678012345678012345678   1\n\
         wide/nginx   {wide:45}   0\n"
    );
    assert_eq!(search(&[&term]).ok(), expected);
    assert_eq!(search(&["--registry", &served.registry.host(), "nginx"]).ok(), expected);
    assert!(search(&["--no-trunc", &term]).ok().contains(&format!("{}  ", "0123456789".repeat(5))));
    assert!(search(&["--limit", "1", &term]).ok().ends_with("20000     [OK]\n"));
}

fn names(table: &str) -> Vec<&str> {
    table.lines().skip(1).filter_map(|line| line.split_whitespace().next()).collect()
}

#[test]
fn search_filters_what_was_found() {
    let served = Served::start();
    served.registry.offer_search(vec![
        SearchResult::new("a").stars(3).official(),
        SearchResult::new("ab").stars(10),
        SearchResult::new("abc").stars(5).automated(),
    ]);
    let term = format!("{}/a", served.registry.host());
    for (filters, expected) in [
        (&[][..], &["a", "ab", "abc"][..]),
        (&["is-official=true"], &["a"]),
        (&["is-official=false"], &["ab", "abc"]),
        (&["is-automated=true"], &["abc"]),
        (&["stars=5"], &["ab", "abc"]),
        (&["stars=5", "stars=6"], &["ab"]),
        (&["stars=5", "is-automated=false"], &["ab"]),
        (&["stars=11"], &[]),
    ] {
        let options: Vec<&str> = filters.iter().flat_map(|filter| ["--filter", filter]).chain([&*term]).collect();
        assert_eq!(names(&search(&options).ok()), expected, "{filters:?}");
    }
    for (options, text) in [
        (&["--filter", "is-official=perhaps", &term][..], "invalid filter \"is-official=perhaps\""),
        (&["--filter", "colour=red", &term], "invalid filter"),
        (&["--filter", "stars", &term], "invalid filter"),
        (&["--limit", "101", &term], "limit 101 is outside the range of [1, 100]"),
        (&["http://nginx"], "a term has no scheme"),
        (&["one", "two"], "unexpected argument"),
        (&["--store", "x", "one"], "invalid option '--store'"),
        (&[], "usage: search"),
    ] {
        assert_fails(search(options), text);
    }
}

/// A registry that has no search says what it has.
#[test]
fn search_looks_through_the_catalog() {
    let (served, _) = Served::with(&Fixture::demo());
    let root = served.store.resolve(name("example.com/app:1")).unwrap();
    for other in ["team/app", "team/other"] {
        served.store.tag(&name(&format!("example.com/{other}")), &root).unwrap();
    }
    let found = search(&[&format!("{}/app", served.registry.host())]).ok();
    let head = "NAME       DESCRIPTION   STARS     OFFICIAL   AUTOMATED\n";
    assert_eq!(found, format!("{head}app                      0\nteam/app                 0\n"));
}

#[test]
fn tags_are_listed_a_line_each() {
    let (served, image) = Served::with(&Fixture::demo());
    let root = served.store.resolve(name("example.com/app:1")).unwrap();
    for tag in ["edge", "2", "1.0"] {
        served.store.tag(&name(&format!("example.com/app:{tag}")), &root).unwrap();
    }
    served.registry.page_size(3);
    let tags = |name: &str| run(example("tags").arg(name));
    assert_eq!(tags(&image.to_string()).ok(), "1\n1.0\n2\nedge\n");
    assert_fails(tags(&format!("{}/nobody", served.registry.host())), "status 404: NAME_UNKNOWN");
    assert_fails(tags("--colour"), "invalid option '--colour'");
    served.registry.require_login("alice", "secret");
    assert_fails(tags(&image.to_string()), "UNAUTHORIZED");
    let mut signed_in = example("tags");
    signed_in.args(["--username", "alice", "--password-stdin", &image.to_string()]);
    assert_eq!(run_with_input(&mut signed_in, b"secret").ok(), "1\n1.0\n2\nedge\n");
}

fn copy(options: &[&str]) -> Ran {
    run(example("copy").args(options))
}

/// Between registries, to a layout and from there; always all of it, and always the same digest.
#[test]
fn copy_goes_from_anywhere_to_anywhere() {
    let (first, image) = Served::with(&Fixture::demo());
    let second = Served::start();
    let root = first.store.resolve(name("example.com/app:1")).unwrap();
    let digest = format!("{}\n", root.digest);
    let (there, back) = (format!("{}/team/app:2", second.registry.host()), format!("{}/back", first.registry.host()));
    let layout = first.scratch.path("layout");
    let inside = |name: &str| format!("oci:{}:{name}", layout.display());
    assert_eq!(copy(&[&image.to_string(), &there]).ok(), digest);
    assert_eq!(copy(&["--jobs", "1", "--quiet", &there, &inside("demo")]).ok(), digest);
    assert_eq!(copy(&[&inside("docker.io/library/demo:latest"), &back]).ok(), digest);
    let other = first.scratch.path("other");
    assert_eq!(copy(&[&inside("demo"), &format!("oci:{}:127.0.0.1:5000/a:1", other.display())]).ok(), digest);
    for (store, at) in [
        (&second.store, there.as_str()),
        (&Store::open(&layout).unwrap(), "demo"),
        (&first.store, &back),
        (&Store::open(&other).unwrap(), "127.0.0.1:5000/a:1"),
    ] {
        for text in ["linux/amd64", "linux/arm64"] {
            assert!(store.image_for(name(at), &platform(text)).unwrap().is_complete().unwrap(), "{at} {text}");
        }
    }
    let nowhere = format!("oci:{}:demo", first.scratch.path("nowhere").display());
    for (ends, text) in [
        (&[&*there][..], "usage: copy"),
        (&[&nowhere, &there], "nowhere"),
        (&[&inside("nothing"), &there], "image docker.io/library/nothing not found"),
        (&[&there, &inside("No Name")], "No Name is no name of an image"),
        (&[&there, "oci:layout"], "\"oci:layout\" has no name: oci:DIR:NAME"),
        (&[&there.replace(":2", ":3"), &back], "status 404: MANIFEST_UNKNOWN"),
        (&["Foo", &back], "must be lowercase"),
    ] {
        assert_fails(copy(ends), text);
    }
    assert!(!first.scratch.path("nowhere").exists());
}

/// A password is for the registry that is copied to, or for the only one.
#[test]
fn copy_signs_in_where_it_copies_to() {
    let (first, image) = Served::with(&Fixture::demo());
    let second = Served::start();
    second.registry.require_login("alice", "secret");
    let there = format!("{}/app:1", second.registry.host());
    let layout = format!("oci:{}:app", first.scratch.path("layout").display());
    assert_fails(copy(&[&image.to_string(), &there]), "UNAUTHORIZED");
    let signed_in = |source: &str, target: &str| {
        let options = ["--username", "alice", "--password-stdin", source, target];
        run_with_input(example("copy").args(options), b"secret\n")
    };
    signed_in(&image.to_string(), &there).ok();
    signed_in(&there, &layout).ok();
    assert_fails(signed_in(&there, &image.to_string()), "UNAUTHORIZED");
    let asked = first.registry.requests();
    assert!(asked.iter().all(|request| request.header("authorization").is_none()), "{asked:?}");
}

/// The example `serve`, which ends with this.
struct Serving {
    child: Child,
    line: String,
    host: String,
}

impl Serving {
    /// Serves a store. Stdin is a pipe that stays open, or `/dev/null`.
    #[track_caller]
    fn start(store: &Store, stdin: Stdio) -> Serving {
        Serving::start_with(store, stdin, &["--writable"])
    }

    #[track_caller]
    fn start_with(store: &Store, stdin: Stdio, options: &[&str]) -> Serving {
        let mut command = example("serve");
        command.arg("--store").arg(store.path()).args(["--listen", "127.0.0.1:0"]).args(options);
        let mut child = command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let host = line.trim_end().rsplit(' ').next().unwrap().to_owned();
        Serving { child, line, host }
    }

    /// Ends stdin, and waits. Returns what stood on stderr.
    #[track_caller]
    fn end(mut self) -> String {
        drop(self.child.stdin.take());
        assert!(self.child.wait().unwrap().success());
        let mut text = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
        text
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn serve_serves_until_stdin_ends() {
    let scratch = Scratch::new();
    let store = scratch.store("served");
    let root = Fixture::demo().tag(&store, &name("team/demo:1")).unwrap();
    let serving = Serving::start(&store, Stdio::piped());
    assert_eq!(serving.line, format!("serving {} at {}\n", store.path().display(), serving.host));
    let image = format!("{}/team/demo:1", serving.host);
    let pulled = scratch.path("pulled");
    assert_eq!(run(example("pull").arg("--store").arg(&pulled).args(["-q", &image])).ok(), format!("{image}\n"));
    assert_eq!(Store::open(&pulled).unwrap().resolve(name(&image)).unwrap().digest, root.digest);
    let back = format!("{}/back:1", serving.host);
    push(&store, &["--quiet", "team/demo:1", &back]).ok();
    assert_eq!(store.resolve(name(&back)).unwrap().digest, root.digest, "what is pushed is in the store");
    let listed = serving.end();
    assert!(listed.lines().any(|line| line == "HEAD /v2/team/demo/manifests/1"), "{listed}");
    assert!(listed.ends_with("\nPUT /v2/back/manifests/1\n"), "{listed}");
}

/// Without `--writable`, no user of the machine can push.
#[test]
fn serve_is_read_only_by_default() {
    let scratch = Scratch::new();
    let store = scratch.store("served");
    Fixture::demo().tag(&store, &name("team/demo:1")).unwrap();
    let serving = Serving::start_with(&store, Stdio::null(), &[]);
    let image = format!("{}/team/demo:1", serving.host);
    run(example("pull").arg("--store").arg(scratch.path("pulled")).args(["-q", &image])).ok();
    let before = store.entries().unwrap().count();
    assert_fails(push(&store, &["--quiet", "team/demo:1", &format!("{}/back:1", serving.host)]), "read-only");
    assert_eq!(store.entries().unwrap().count(), before);
}

/// In the background, stdin is often nothing: that is no reason to end.
#[test]
fn serve_goes_on_without_stdin() {
    let (scratch, address) = (Scratch::new(), "0.0.0.0:0");
    let store = scratch.store("served");
    let mut serving = Serving::start(&store, Stdio::null());
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert!(serving.child.try_wait().unwrap().is_none());
    assert_fails(run(example("tags").arg(format!("{}/nobody", serving.host))), "NAME_UNKNOWN");
    let serve = |listen: &str| run(example("serve").arg("--store").arg(store.path()).args(["--listen", listen]));
    assert_fails(serve(address), "is no loopback address");
    assert_fails(serve(&serving.host), "Address already in use");
    assert_fails(serve("nowhere"), "nowhere");
}

/// Other tools take it for a registry.
#[test]
fn skopeo_pulls_from_and_pushes_to_serve() {
    if !installed(&["skopeo"]) {
        return;
    }
    let scratch = Scratch::new();
    let store = scratch.store("served");
    let image = two_layers().tag(&store, &name("team/app:1")).and_then(|root| store.image_at(&root)).unwrap();
    let serving = Serving::start(&store, Stdio::null());
    let skopeo = |arguments: &[&str]| run(Command::new("skopeo").args(["copy", "-q", "--all"]).args(arguments)).ok();
    let directory = format!("dir:{}", scratch.path("copied").display());
    let there = |name: &str| format!("docker://{}/{name}", serving.host);
    skopeo(&["--src-tls-verify=false", &there("team/app:1"), &directory]);
    assert_eq!(fs::read(scratch.path("copied/manifest.json")).unwrap(), image.manifest().raw());
    skopeo(&["--dest-tls-verify=false", &directory, &there("from/skopeo:2")]);
    let back = store.image(name(&format!("{}/from/skopeo:2", serving.host))).unwrap();
    assert_eq!((back.digest(), back.is_complete().unwrap()), (image.digest(), true));
}

#[test]
fn podman_pulls_from_serve() {
    if !installed(&["podman"]) {
        return;
    }
    let scratch = Scratch::new();
    let store = scratch.store("served");
    Fixture::demo().tag(&store, &name("layercake/demo")).unwrap();
    let serving = Serving::start(&store, Stdio::null());
    let id = store.image(name("layercake/demo")).unwrap().id().to_string();
    podman_pulls(&scratch, &format!("{}/layercake/demo:latest", serving.host), &id);
}
