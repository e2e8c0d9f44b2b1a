//! Unpacks an image onto a root file system beside other programs, in one run, and prints the ratios.
//!
//! `cargo bench --bench unpack`. Each peer is measured where it is there: umoci and tar on `PATH`, and a Rust crate
//! after `cargo build --release --manifest-path benches/peers/Cargo.toml`, which verifies nothing.
//!
//! * `LAYERCAKE_BENCH_LAYOUT`: an OCI layout and the name of a gzip image in it, such as `/srv/image:app`; without it,
//!   100,000 files of 200 bytes, and one of zeros (`LAYERCAKE_BENCH_ZEROS` bytes, 4 GiB by default), are measured.
//! * `LAYERCAKE_BENCH_RUNS`: how many runs of each; 7 by default. `LAYERCAKE_BENCH_DIR`: where to; `/dev/shm` by default.

mod support;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use flate2::Compression;
use flate2::write::GzEncoder;
use layercake::Store;
use layercake::testing::Fixture;
use support::Run;
use support::installed;
use support::measure;
use support::median;
use support::setting;

/// An image in a layout, and the files of its layers.
struct Subject {
    what: String,
    layout: String,
    name: String,
    blobs: Vec<PathBuf>,
}

type Make = fn(&Subject, &Path) -> Command;

fn main() {
    let built = Command::new(env!("CARGO")).args(["build", "-q", "--release", "--example", "unpack"]).status();
    assert!(built.expect("cargo runs").success());
    let given = std::env::var("LAYERCAKE_BENCH_DIR").unwrap_or_else(|_| "/dev/shm".to_owned());
    let scratch = tempfile::tempdir_in(given).expect("a directory can be made");
    let subjects = match std::env::var("LAYERCAKE_BENCH_LAYOUT") {
        Ok(image) => vec![subject("the given image", &image)],
        Err(_) => vec![small_files(scratch.path()), zeros(scratch.path())],
    };
    for subject in &subjects {
        compare(subject, scratch.path());
    }
}

fn compare(subject: &Subject, scratch: &Path) {
    let all: [(&str, bool, Make); 4] = [
        ("layercake", true, ours),
        ("oci-image 0.1.0", peer().exists(), oci_image),
        ("umoci", installed("umoci"), umoci),
        ("tar -xzf", installed("tar"), tar),
    ];
    let mut runs: Vec<(&str, Make, Vec<Run>)> =
        all.into_iter().filter(|(_, there, _)| *there).map(|(name, _, make)| (name, make, Vec::new())).collect();
    for round in 0..=setting("LAYERCAKE_BENCH_RUNS", 7) {
        for (_, make, runs) in &mut runs {
            let target = scratch.join("target");
            let run = measure(&mut make(subject, &target));
            fs::remove_dir_all(&target).expect("a directory can be removed");
            // The first round warms the caches.
            if round > 0 {
                runs.push(run);
            }
        }
    }
    println!("{:<40} {:>10} {:>12} {:>22}", subject.what, "median", "peak", "layercake's ratio");
    let first: Vec<Run> = runs[0].2.clone();
    for (name, _, runs) in &runs {
        let wall = median(runs.iter().map(|run| run.wall)).as_secs_f64();
        let memory = median(runs.iter().map(|run| run.memory)) as f64 / 1024.0;
        let ratio = median(first.iter().zip(runs).map(|(a, b)| a.wall.as_secs_f64() / b.wall.as_secs_f64()));
        println!("{name:<40} {wall:>8.3} s {memory:>8.1} MiB {ratio:>22.2}");
    }
}

fn ours(subject: &Subject, target: &Path) -> Command {
    let bench = std::env::current_exe().expect("a bench is a file");
    let release = bench.parent().and_then(Path::parent).expect("benches lie in target/release/deps");
    let mut command = Command::new(release.join("examples/unpack"));
    command.args(["--quiet", "--store", &subject.layout, &subject.name]).arg(target);
    command
}

fn oci_image(subject: &Subject, target: &Path) -> Command {
    let mut command = Command::new(peer());
    command.arg(target).args(&subject.blobs);
    command
}

fn umoci(subject: &Subject, target: &Path) -> Command {
    let mut command = Command::new("umoci");
    command.args(["--log=error", "unpack", "--image", &format!("{}:{}", subject.layout, subject.name)]).arg(target);
    command
}

/// Layer after layer, without whiteouts and without verifying.
fn tar(subject: &Subject, target: &Path) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", "mkdir \"$0\" && for blob; do tar -xzf \"$blob\" -C \"$0\" || exit; done"]).arg(target);
    command.args(&subject.blobs);
    command
}

fn peer() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers/target/release/unpack")
}

fn subject(what: &str, image: &str) -> Subject {
    let (layout, name) = image.rsplit_once(':').expect("LAYOUT:NAME");
    let opened = Store::open(layout).expect("it is a layout");
    let image = opened.image(layercake::store::Name::Verbatim(name.to_owned())).expect("it has the image");
    let blobs = opened.path().join("blobs");
    let file = |layer: &layercake::Descriptor| {
        blobs.join(layer.digest.algorithm().name()).join(layer.digest.hex().to_string())
    };
    let blobs = image.manifest().layers().iter().map(file).collect();
    Subject { what: what.to_owned(), layout: layout.to_owned(), name: name.to_owned(), blobs }
}

fn small_files(scratch: &Path) -> Subject {
    let files: Vec<(String, Vec<u8>)> =
        (0..100_000).map(|n: u32| (format!("d{:03}/f{n}", n / 200), format!("{n:0200}").into_bytes())).collect();
    let files: Vec<(&str, &[u8])> = files.iter().map(|(path, content)| (path.as_str(), &content[..])).collect();
    let layout = scratch.join("small");
    let store = Store::create(&layout).expect("a store can be made");
    let fixture = Fixture::new("linux/amd64".parse().expect("it is a platform")).layer(&files);
    let root = fixture.write(&store).expect("an image can be made");
    named("100,000 files of 200 bytes", &layout, &root)
}

/// The tar does not fit into memory: it is compressed as it is made.
fn zeros(scratch: &Path) -> Subject {
    let size = setting("LAYERCAKE_BENCH_ZEROS", 4 << 30) as u64;
    let mut header = ::tar::Header::new_gnu();
    header.set_path("zeros").expect("the name fits");
    header.set_size(size);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_cksum();
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    let mut hash = sha2_of_zeros(header.as_bytes());
    let block = vec![0; 1 << 20];
    gzip.write_all(header.as_bytes()).expect("memory takes everything");
    let mut left = size.next_multiple_of(512) + 1024;
    while left > 0 {
        let count = left.min(block.len() as u64);
        let bytes = &block[..usize::try_from(count).expect("it is at most a block")];
        gzip.write_all(bytes).expect("memory takes everything");
        hash.update(bytes);
        left -= count;
    }
    let layout = scratch.join("zeros");
    let store = Store::create(&layout).expect("a store can be made");
    let write = |kind, bytes: &[u8]| store.write(kind, bytes).expect("a blob can be written");
    let layer = write(layercake::MediaType::OCI_LAYER_GZIP, &gzip.finish().expect("memory takes everything"));
    let diff_id = format!("sha256:{}", hash.hex());
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux", "rootfs": { "type": "layers", "diff_ids": [diff_id] },
    });
    let config = write(layercake::MediaType::OCI_CONFIG, config.to_string().as_bytes());
    let kind = layercake::MediaType::OCI_MANIFEST;
    let manifest = serde_json::json!({ "schemaVersion": 2, "mediaType": kind, "config": config, "layers": [layer] });
    let root = write(kind, manifest.to_string().as_bytes());
    named(&format!("one file of {size} zeros"), &layout, &root)
}

struct Sum(sha2::Sha256);

fn sha2_of_zeros(header: &[u8]) -> Sum {
    let mut sum = Sum(sha2::Digest::new());
    sum.update(header);
    sum
}

impl Sum {
    fn update(&mut self, bytes: &[u8]) {
        sha2::Digest::update(&mut self.0, bytes);
    }

    fn hex(self) -> String {
        sha2::Digest::finalize(self.0).iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// Under a name that umoci takes too.
fn named(what: &str, layout: &Path, root: &layercake::Descriptor) -> Subject {
    let entry = serde_json::json!({
        "mediaType": root.media_type, "digest": root.digest, "size": root.size,
        "annotations": { "org.opencontainers.image.ref.name": "app" },
    });
    let index = serde_json::json!({ "schemaVersion": 2, "manifests": [entry] });
    fs::write(layout.join("index.json"), index.to_string()).expect("a file can be written");
    subject(what, &format!("{}:app", layout.display()))
}
