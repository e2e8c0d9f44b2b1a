//! Mutated layers: bytes of a tar, and of a gzip, are flipped, cut, doubled and moved. No panic, no hang, no way out.

use std::fs;
use std::io::Write;
use std::time::Duration;
use std::time::Instant;

use fastrand::Rng;
use layercake::changeset::Limits;
use layercake::changeset::apply;

use crate::breakouts;
use crate::support::Scratch;
use crate::support::model;
use crate::support::tape::tar_of;

/// P1, P11: for as many seconds as `LAYERCAKE_FUZZ_SECONDS` says, or two.
#[test]
fn mutated_layers_do_no_harm() {
    let seconds = std::env::var("LAYERCAKE_FUZZ_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(2);
    let scratch = Scratch::new();
    let outside = scratch.dir("outside");
    fs::write(outside.join("canary"), "alive").unwrap();
    let before = breakouts::listing(&outside);
    let mut limits = Limits::default();
    limits.unpacked_bytes = 16 << 20;
    let options = breakouts::options().limits(limits);
    let end = Instant::now() + Duration::from_secs(seconds);
    let (mut tried, mut applied) = (0_u64, 0_u64);
    while Instant::now() < end {
        let seed = tried;
        let layer = mutated(seed);
        let root = scratch.dir("root");
        std::os::unix::fs::symlink(&outside, root.join("a")).unwrap();
        let start = Instant::now();
        let by_component = seed % 2 == 1;
        let options = if by_component { options.clone().without_openat2() } else { options.clone() };
        applied += u64::from(apply(&layer[..], &root, &options).is_ok());
        assert!(start.elapsed() < Duration::from_secs(20), "seed {seed} took {:?}", start.elapsed());
        assert_eq!(breakouts::listing(&outside), before, "seed {seed}");
        remove(&root);
        tried += 1;
    }
    println!("{tried} mutated layers, of which {applied} could be applied");
    assert!(tried > 20 && applied > 0, "{tried}, {applied}");
}

/// As whoever runs the tests can: directories may lock their owner out.
fn remove(root: &std::path::Path) {
    let parent = root.parent().unwrap();
    let hide = crate::support::tape::tar(&[crate::support::tape::Item::file(".wh.root", "")]);
    let _ = apply(&hide[..], parent, &breakouts::options()).unwrap();
}

/// Half of them as gzip, whose own bytes are changed too.
fn mutated(seed: u64) -> Vec<u8> {
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

fn mutate(bytes: &mut Vec<u8>, rng: &mut Rng) {
    for _ in 0..rng.usize(1..8) {
        let at = rng.usize(..bytes.len().max(1)).min(bytes.len().saturating_sub(1));
        let length = rng.usize(..1024).min(bytes.len() - at);
        match rng.u8(..6) {
            _ if bytes.is_empty() => return,
            0 => bytes[at] = rng.u8(..),
            1 => bytes.truncate(at),
            2 => drop(bytes.splice(at..at, bytes[at..at + length].to_vec()).count()),
            3 => drop(bytes.drain(at..at + length).count()),
            // A header field, with its sum made right again.
            _ => {
                let block = at / 512 * 512;
                let Some(header) = bytes.get_mut(block..block + 512) else { continue };
                header[rng.usize(..512)] = *rng.choice(b"0127/.xgLKS\0\x80\xff").unwrap();
                let header: [u8; 512] = (&*header).try_into().unwrap();
                bytes[block..block + 512].copy_from_slice(&crate::support::tape::with_checksum(header));
            }
        }
    }
}
