//! Makes working copies and commits them beside buildah and umoci, and makes layers beside tar, in one run; prints the
//! ratios.
//!
//! `cargo bench --bench checkout`, as root; with `-- overlay`, `-- copy` or `-- layer`, only a part of it. Each peer is
//! measured where it is on `PATH`: buildah, umoci, and tar with gzip, pigz and zstd. What unpacks the image for each of
//! them is not timed.
//!
//! * `LAYERCAKE_BENCH_IMAGE`: an image in a layout, as skopeo writes it, such as `oci:/srv/image:app`; without it, one of
//!   4,100 files is made.
//! * `LAYERCAKE_BENCH_RUNS`: how many runs of each; 7 by default. `LAYERCAKE_BENCH_DIR`: where; the temporary directory
//!   by default.

#[path = "support/peers.rs"]
mod peers;
mod support;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use layercake::Compression;
use layercake::MediaType;
use layercake::Store;
use layercake::changeset::Options;
use layercake::changeset::PackOptions;
use layercake::changeset::apply;
use layercake::changeset::pack_tree;
use layercake::compression::EncoderOptions;
use layercake::store::Name;
use layercake::testing::Fixture;
use peers::Buildah;
use peers::Umoci;
use support::example;
use support::installed;
use support::median;
use support::setting;
use support::time;

/// An image in a layout of its own, which is changed, and room beside it.
struct Subject {
    room: PathBuf,
    layout: PathBuf,
    name: String,
}

/// How long it took, and how large what it made is.
type Outcome = (Duration, Option<u64>);

/// A name, and what is done in each round; only a part of that is timed.
type Contender<'a> = (&'a str, Box<dyn FnMut(usize) -> Outcome + 'a>);

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [option, compression, tree, store] = &arguments[..]
        && option == "--pack"
    {
        return pack(compression, tree, store);
    }
    if !rustix::process::geteuid().is_root() {
        println!("nothing is measured: needs root");
        return;
    }
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "-q", "--release", "--example", "checkout", "--example", "commit", "--example", "discard"]);
    assert!(build.status().expect("cargo runs").success());
    let scratch = scratch();
    let subject = Subject::in_dir(scratch.path());
    let is_wanted = |what: &str| arguments.iter().all(|a| a.starts_with('-')) || arguments.iter().any(|a| a == what);
    if is_wanted("overlay") {
        let buildah = installed("buildah").then(|| Buildah::with(&subject.room, &subject.layout, &subject.name));
        checkouts(&subject, buildah.as_ref());
        overlay_commits(&subject, buildah.as_ref());
    }
    if is_wanted("copy") {
        copy_commits(&subject);
    }
    if is_wanted("layer") {
        layers(&subject);
    }
}

/// In lower case, because buildah takes paths for names of images.
fn scratch() -> tempfile::TempDir {
    let parent = std::env::var_os("LAYERCAKE_BENCH_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    let name = format!("layercake-bench-{:016x}", fastrand::u64(..));
    let directory = tempfile::Builder::new().prefix(&name).rand_bytes(0).tempdir_in(parent);
    directory.expect("a directory can be made")
}

impl Subject {
    fn in_dir(room: &Path) -> Subject {
        let layout = room.join("layout");
        let name = match std::env::var("LAYERCAKE_BENCH_IMAGE") {
            Ok(source) => {
                let parts = source.strip_prefix("oci:").and_then(|rest| rest.split_once(':'));
                let (directory, name) = parts.expect("it is oci:DIR:NAME");
                copy_layout(Path::new(directory), &layout);
                name.to_owned()
            }
            Err(_) => make_image(&layout),
        };
        Subject { room: room.to_owned(), layout, name }
    }

    fn checkout(&self, mode: &str) -> (Work, Duration) {
        let work = Work(self.room.join(format!("work-{mode}")));
        let mut command = example("checkout");
        command.arg("--store").arg(&self.layout).args(["--mode", mode, &self.name]).arg(&work.0);
        let wall = time(&mut command);
        (work, wall)
    }
}

/// The layout alone, without what a store has beside it.
fn copy_layout(from: &Path, to: &Path) {
    fs::create_dir(to).expect("a directory can be made");
    let parts = ["blobs", "index.json", "oci-layout"].map(|part| from.join(part));
    time(Command::new("cp").arg("-a").args(parts).arg(to));
}

/// A working copy, which is discarded when this is dropped.
struct Work(PathBuf);

impl Work {
    fn root(&self) -> PathBuf {
        self.0.join("root")
    }

    fn commit(&self) -> Duration {
        time(example("commit").arg(&self.0).arg("bench/child:1"))
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        // What is wrong is told by the program.
        let _ = example("discard").arg(&self.0).status();
    }
}

/// A working copy of an image that is unpacked already.
fn checkouts(subject: &Subject, buildah: Option<&Buildah>) {
    let ours = |_| (subject.checkout("overlay").1, None);
    // The layers are unpacked by the first one.
    ours(0);
    let mut all: Vec<Contender> = vec![("layercake", Box::new(ours))];
    if let Some(buildah) = buildah {
        all.push(("buildah from", Box::new(|_| (buildah.from().wall, None))));
        let mounted = |_| {
            let container = buildah.from();
            (container.wall + container.mount().1, None)
        };
        all.push(("buildah from, buildah mount", Box::new(mounted)));
    }
    race("a working copy, overlay", all);
}

/// One file was changed in the mounted tree.
fn overlay_commits(subject: &Subject, buildah: Option<&Buildah>) {
    let ours = |round| {
        let (work, _) = subject.checkout("overlay");
        change(&work.root(), round);
        (work.commit(), None)
    };
    let mut all: Vec<Contender> = vec![("layercake", Box::new(ours))];
    if let Some(buildah) = buildah {
        let theirs = |round| {
            let container = buildah.from();
            change(&container.mount().0, round);
            (container.commit(), None)
        };
        all.push(("buildah commit", Box::new(theirs)));
    }
    race("a commit of one file, overlay", all);
}

/// One file was changed in a tree that was copied.
fn copy_commits(subject: &Subject) {
    let umoci = installed("umoci").then(|| {
        let layout = subject.room.join("umoci");
        copy_layout(&subject.layout, &layout);
        Umoci::with(layout, &subject.name, subject.room.join("bundle"))
    });
    let (work, _) = subject.checkout("copy");
    let ours = |round| {
        change(&work.root(), round);
        (work.commit(), None)
    };
    let mut all: Vec<Contender> = vec![("layercake", Box::new(ours))];
    if let Some(umoci) = &umoci {
        let theirs = |round| {
            change(&umoci.root(), round);
            (umoci.repack().0, None)
        };
        all.push(("umoci repack", Box::new(theirs)));
    }
    race("a commit of one file, copied tree", all);
}

/// All of a tree becomes a layer: that of the image's lowest one.
fn layers(subject: &Subject) {
    let tree = subject.room.join("tree");
    let image = Store::open(&subject.layout).and_then(|store| store.image(Name::Verbatim(subject.name.clone())));
    let image = image.expect("it has the image");
    let base = image.layers().expect("it has layers").swap_remove(0);
    fs::create_dir(&tree).expect("a directory can be made");
    let applied = base.uncompressed().and_then(|tar| apply(tar, &tree, &Options::new()));
    assert!(applied.expect("the layer can be unpacked").skipped.is_empty());

    let pipe = |program: &'static str| pipe(&tree, subject.room.join("piped"), program);
    let umoci = installed("umoci").then(|| Umoci::of_tree(&subject.room, &tree));
    let mut gzip: Vec<Contender> = vec![("layercake", packed(subject, &tree, "gzip"))];
    if let Some(umoci) = &umoci {
        let theirs = |_| {
            let (wall, size) = umoci.repack();
            (wall, Some(size))
        };
        gzip.push(("umoci repack", Box::new(theirs)));
    }
    gzip.extend(installed("gzip").then(|| ("tar | gzip -6", pipe("gzip -6"))));
    gzip.extend(installed("pigz").then(|| ("tar | pigz -6", pipe("pigz -6"))));
    race("a new layer, gzip", gzip);
    if cfg!(feature = "zstd") {
        let mut zstd: Vec<Contender> = vec![("layercake", packed(subject, &tree, "zstd"))];
        zstd.extend(installed("zstd").then(|| ("tar | zstd -T2", pipe("zstd -q -T2"))));
        race("a new layer, zstd", zstd);
    }
}

/// This program itself does it, as a process of its own like the others.
fn packed<'a>(subject: &'a Subject, tree: &'a Path, compression: &'a str) -> Box<dyn FnMut(usize) -> Outcome + 'a> {
    Box::new(move |_| {
        let store = subject.room.join("packed");
        let mut command = Command::new(std::env::current_exe().expect("a bench is a file"));
        let wall = time(command.args(["--pack", compression]).arg(tree).arg(&store));
        let (_, size) = Store::open(&store).unwrap().blobs().unwrap().next().expect("it has one").unwrap();
        fs::remove_dir_all(&store).expect("a directory can be removed");
        (wall, Some(size))
    })
}

/// A layer as a commit makes it: both its digests are known, and it is in a store for good.
fn pack(compression: &str, tree: &str, store: &str) {
    let compression = if compression == "zstd" { Compression::Zstd } else { Compression::Gzip };
    let pack = || {
        let writer = Store::create(store)?.writer(layercake::Algorithm::Sha256)?;
        let mut encoder = EncoderOptions::new(compression).encode(writer)?;
        let _ = pack_tree(tree, &mut encoder, &PackOptions::new())?;
        encoder.finish()?.commit(MediaType::OCTET_STREAM)
    };
    pack().expect("the tree can be packed");
}

fn pipe<'a>(tree: &'a Path, target: PathBuf, program: &'static str) -> Box<dyn FnMut(usize) -> Outcome + 'a> {
    Box::new(move |_| {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("tar -C \"$0\" -cf - . | {program} > \"$1\"")]).arg(tree).arg(&target);
        let wall = time(&mut command);
        (wall, Some(fs::metadata(&target).expect("it was made").len()))
    })
}

/// Lets all of them do it, round by round, and prints what the first one's times are to theirs.
fn race(what: &str, mut all: Vec<Contender<'_>>) {
    let mut walls: Vec<Vec<Duration>> = vec![Vec::new(); all.len()];
    let mut sizes = vec![None; all.len()];
    for round in 0..=setting("LAYERCAKE_BENCH_RUNS", 7) {
        for (n, (_, job)) in all.iter_mut().enumerate() {
            // What the one before has written does not slow down this one.
            rustix::fs::sync();
            let (wall, size) = job(round);
            sizes[n] = size;
            // The first round warms the caches.
            if round > 0 {
                walls[n].push(wall);
            }
        }
    }
    println!("{what:<36} {:>10} {:>14} {:>18} {:>10}", "median", "bytes", "layercake's ratio", "bytes");
    for (((name, _), theirs), size) in all.iter().zip(&walls).zip(&sizes) {
        let wall = median(theirs.iter().copied()).as_secs_f64();
        let ratio = median(walls[0].iter().zip(theirs).map(|(a, b)| a.as_secs_f64() / b.as_secs_f64()));
        print!("{name:<36} {wall:>8.4} s ");
        match (sizes[0], size) {
            (Some(ours), Some(size)) => println!("{size:>14} {ratio:>18.2} {:>10.3}", ours as f64 / *size as f64),
            _ => println!("{:>14} {ratio:>18.2}", ""),
        }
    }
    println!();
}

/// Adds a line to one file, the same in each tree.
fn change(root: &Path, round: usize) {
    let path = some_file(root).expect("the image has a small file");
    let mut file = fs::File::options().append(true).open(path).expect("the file can be written to");
    writeln!(file, "round {round}").expect("the file can be written to");
}

fn some_file(directory: &Path) -> Option<PathBuf> {
    let entries = fs::read_dir(directory).expect("a directory can be read");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("a directory can be read").path()).collect();
    paths.sort();
    paths.into_iter().find_map(|path| {
        let stat = fs::symlink_metadata(&path).expect("it is there");
        match stat.is_dir() {
            true => some_file(&path),
            false => (stat.is_file() && (1..65536).contains(&stat.len())).then_some(path),
        }
    })
}

/// Three layers: 4,000 files of words, a hundred others, and one of noise. Returns its name.
fn make_image(layout: &Path) -> String {
    let mut random = fastrand::Rng::with_seed(1);
    let words: Vec<String> =
        (0..2000).map(|_| (0..random.usize(2..12)).map(|_| random.lowercase()).collect()).collect();
    let mut text = |length: usize| {
        let mut text = String::new();
        while text.len() < length {
            text += &words[random.usize(..words.len())];
            text.push(' ');
        }
        text.into_bytes()
    };
    let mut files = |from: usize, count: usize| -> Vec<(String, Vec<u8>)> {
        (from..from + count).map(|n| (format!("usr/share/{:03}/{n}", n / 50), text(n * 7 % 20_000))).collect()
    };
    let mut noise = vec![0; 8 << 20];
    fastrand::Rng::with_seed(2).fill(&mut noise);
    let layers = [files(0, 4000), files(4000, 100), vec![("usr/lib/noise".to_owned(), noise)]];
    let mut fixture = Fixture::new("linux/amd64".parse().expect("it is a platform"));
    for layer in &layers {
        let files: Vec<(&str, &[u8])> = layer.iter().map(|(path, content)| (path.as_str(), &content[..])).collect();
        fixture = fixture.layer(&files);
    }
    let store = Store::create(layout).expect("a store can be made");
    let name = "example.com/bench/app:1";
    fixture.tag(&store, &name.parse().expect("it is a name")).expect("an image can be made");
    name.to_owned()
}
