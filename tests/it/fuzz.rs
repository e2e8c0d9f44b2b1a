//! Runs the fuzz targets on their corpus and on seeded mutations of it. No panic, no hang, nothing outside of the target
//! root is touched.
//!
//! Each test makes a fixed number of mutations, or as many as fit into `LAYERCAKE_FUZZ_SECONDS`. The same targets are
//! run by cargo-fuzz, see `fuzz/run`.

mod targets;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::Duration;
use std::time::Instant;

use fastrand::Rng;

use crate::support::model;
use crate::support::tape::tar_of;
use crate::support::tape::with_checksum;

/// Bytes that parsers treat specially. Mutations insert them.
const TOKENS: [&[u8]; 24] = [
    b"null",
    b"{}",
    b"[]",
    b"\"",
    b"\\",
    b"\\u0000",
    b"1e999",
    b"-0",
    b"18446744073709551616",
    b",",
    b":",
    b"/",
    b"..",
    b"@",
    b"<",
    b"=",
    b";",
    b"\n",
    b"\0",
    b".wh.",
    b"\xff",
    b"\xc5\xbf",
    b"sha256:",
    b"realm=",
];

#[test]
fn references_parse_from_what_they_display() {
    mutate_corpus("reference", 2_000, targets::reference);
}

#[test]
fn mutated_manifests_do_no_harm() {
    mutate_corpus("manifest", 1_000, targets::manifest);
}

#[test]
fn mutated_indexes_do_no_harm() {
    mutate_corpus("index", 1_000, targets::index);
}

#[test]
fn mutated_configs_do_no_harm() {
    mutate_corpus("config", 1_000, targets::config);
}

#[cfg(feature = "registry")]
#[test]
fn mutated_challenges_do_no_harm() {
    mutate_corpus("challenge", 2_000, targets::challenge);
}

#[cfg(feature = "registry")]
#[test]
fn mutated_links_lead_to_the_same_host() {
    mutate_corpus("link", 2_000, targets::link);
}

#[cfg(feature = "registry")]
#[test]
fn mutated_docker_configs_show_no_secret() {
    mutate_corpus("docker_config", 1_000, targets::docker_config);
}

#[test]
fn mutated_tars_are_read_the_same_in_small_pieces() {
    mutate_corpus("tar", 500, targets::tar);
}

/// P1, P11.
#[test]
fn mutated_layers_change_nothing_outside_the_root() {
    mutate_corpus("apply", 100, targets::apply);
}

/// P1, P11.
#[test]
fn mutated_stacks_change_nothing_outside_the_root() {
    let mut applied = 0;
    let tried = repeat(50, |seed| applied += u64::from(targets::is_applied(&random_layer(seed))));
    println!("{tried} mutated layers, of which {applied} could be applied");
    assert!(tried >= 50 && applied > 0, "{tried}, {applied}");
}

#[test]
fn mutated_gzip_streams_do_no_harm() {
    mutate_corpus("gzip", 1_000, targets::gzip);
}

#[cfg(feature = "zstd")]
#[test]
fn mutated_zstd_streams_do_no_harm() {
    mutate_corpus("zstd", 1_000, targets::zstd);
}

/// Runs a target on the files of its corpus, then on mutations of them.
#[track_caller]
fn mutate_corpus(name: &str, count: u64, target: impl Fn(&[u8])) {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    if !fuzz.exists() {
        println!("skipped: the published package has no corpus");
        return;
    }
    let files = corpus(&fuzz.join("corpus").join(name));
    assert!(files.len() >= 3, "the corpus of {name} has {} files", files.len());
    for file in &files {
        target(file);
    }
    let tried = repeat(count, |seed| {
        let mut rng = Rng::with_seed(seed);
        let mut bytes = rng.choice(&files).expect("the corpus is not empty").clone();
        mutate(&mut bytes, &mut rng);
        target(&bytes);
    });
    println!("{name}: {} files, {tried} mutations", files.len());
}

/// The committed files of a corpus. The names of those that libFuzzer added are SHA-1 digests.
fn corpus(dir: &Path) -> Vec<Vec<u8>> {
    let entries = fs::read_dir(dir).expect("the corpus can be read").map(|entry| entry.expect("it can be read"));
    let mut paths: Vec<_> = entries.filter(|entry| entry.file_name().len() != 40).map(|entry| entry.path()).collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).expect("the corpus can be read")).collect()
}

/// Calls a test with the seeds 0, 1, 2, …: `count` times, or for as many seconds as `LAYERCAKE_FUZZ_SECONDS` says.
/// Prints the seed of a call that fails. Returns the number of calls.
fn repeat(count: u64, mut test: impl FnMut(u64)) -> u64 {
    let seconds = std::env::var("LAYERCAKE_FUZZ_SECONDS").ok().and_then(|text| text.parse().ok());
    let end = seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let mut seed = 0;
    while seed < count || end.is_some_and(|end| Instant::now() < end) {
        let shown = SeedOnPanic(seed);
        test(seed);
        drop(shown);
        seed += 1;
    }
    seed
}

/// Prints a seed if it is dropped by a panic.
struct SeedOnPanic(u64);

impl Drop for SeedOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("failed with seed {}", self.0);
        }
    }
}

/// A random layer with mutations. Half of the layers are gzip, whose own bytes are mutated too.
fn random_layer(seed: u64) -> Vec<u8> {
    let mut rng = Rng::with_seed(seed);
    let layers = model::random_stack(&mut model::Random(seed));
    let mut layer = tar_of(&layers.concat());
    if rng.bool() {
        mutate(&mut layer, &mut rng);
    }
    if rng.bool() {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&layer).unwrap();
        layer = gzip.finish().unwrap();
    }
    mutate(&mut layer, &mut rng);
    layer
}

/// Flips, cuts, doubles, moves and inserts bytes, and changes tar headers.
fn mutate(bytes: &mut Vec<u8>, rng: &mut Rng) {
    for _ in 0..rng.usize(1..8) {
        let at = rng.usize(..bytes.len().max(1)).min(bytes.len().saturating_sub(1));
        let length = rng.usize(..1024).min(bytes.len() - at);
        match rng.u8(..8) {
            _ if bytes.is_empty() => return,
            0 => bytes[at] = rng.u8(..),
            1 => bytes.truncate(at),
            2 => drop(bytes.splice(at..at, bytes[at..at + length].to_vec()).count()),
            3 => drop(bytes.drain(at..at + length).count()),
            4 => drop(bytes.splice(at..at, rng.choice(TOKENS).expect("there are tokens").iter().copied()).count()),
            5 => drop(bytes.drain(at..at + length.min(8)).count()),
            // A header field, with a valid checksum.
            _ => {
                let block = at / 512 * 512;
                let Some(header) = bytes.get_mut(block..block + 512) else { continue };
                header[rng.usize(..512)] = *rng.choice(b"0127/.xgLKS\0\x80\xff").unwrap();
                let header: [u8; 512] = (&*header).try_into().unwrap();
                bytes[block..block + 512].copy_from_slice(&with_checksum(header));
            }
        }
    }
}
