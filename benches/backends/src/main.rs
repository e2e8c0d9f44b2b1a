//! What could decompress and hash layers, side by side: `layercake-backends BLOB…`, with gzip blobs, such as those in the
//! layout of an image.
//!
//! Prints megabytes of content a second, the median of five rounds, on one core. Where a whole layer has to be in memory
//! at once, both as it is stored and unpacked, that is said: layers come in any size, and memory must not.

use std::io::Read;
use std::process::ExitCode;
use std::time::Duration;
use std::time::Instant;

use miniz_oxide::DataFormat;
use miniz_oxide::MZFlush;
use miniz_oxide::MZStatus;
use miniz_oxide::inflate::stream::InflateState;
use miniz_oxide::inflate::stream::inflate;
use sha2::Digest;

const CHUNK: usize = 256 << 10;
const ROUNDS: usize = 5;

/// Takes blobs and what is in them, and says how much it has worked through.
type Work = fn(&[Vec<u8>], &[Vec<u8>]) -> usize;

const ALL: [(&str, &str, Work); 5] = [
    ("inflate", "zlib-rs, by chunks (as layercake does)", |stored, _| stored.iter().map(|blob| zlib_rs(blob)).sum()),
    ("inflate", "miniz_oxide, by chunks", |stored, _| stored.iter().map(|blob| miniz(blob)).sum()),
    ("inflate", "libdeflate, whole layers in memory", |stored, tars| {
        stored.iter().zip(tars).map(|(blob, tar)| libdeflate(blob, tar.len())).sum()
    }),
    ("sha256", "sha2 (as layercake does)", |_, tars| tars.iter().map(|tar| sha2_of(tar)).sum()),
    ("sha256", "ring", |_, tars| tars.iter().map(|tar| ring_of(tar)).sum()),
];

fn main() -> ExitCode {
    let stored: Vec<Vec<u8>> = std::env::args().skip(1).filter_map(|path| std::fs::read(path).ok()).collect();
    let stored: Vec<Vec<u8>> = stored.into_iter().filter(|blob| blob.starts_with(&[0x1f, 0x8b])).collect();
    if stored.is_empty() {
        eprintln!("usage: layercake-backends BLOB…, with gzip blobs");
        return ExitCode::FAILURE;
    }
    let tars: Vec<Vec<u8>> = stored.iter().map(|blob| unpacked(blob)).collect();
    let total: usize = tars.iter().map(Vec::len).sum();
    let mut times = [const { Vec::new() }; ALL.len()];
    for _ in 0..ROUNDS {
        for ((_, _, work), times) in ALL.iter().zip(&mut times) {
            let start = Instant::now();
            assert_eq!(work(&stored, &tars), total);
            times.push(start.elapsed());
        }
    }
    println!("| work | by | MB/s |\n| --- | --- | ---: |");
    for ((what, by, _), times) in ALL.iter().zip(times) {
        println!("| {what} | {by} | {:.0} |", total as f64 / 1e6 / median(times).as_secs_f64());
    }
    ExitCode::SUCCESS
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn unpacked(blob: &[u8]) -> Vec<u8> {
    let mut tar = Vec::new();
    flate2::read::MultiGzDecoder::new(blob).read_to_end(&mut tar).expect("it is a gzip blob");
    tar
}

fn zlib_rs(blob: &[u8]) -> usize {
    let mut decoder = flate2::bufread::MultiGzDecoder::new(blob);
    let mut chunk = vec![0; CHUNK];
    let mut total = 0;
    loop {
        match decoder.read(&mut chunk).expect("it is a gzip blob") {
            0 => return total,
            count => total += count,
        }
    }
}

/// Of one member, and without its checksum.
fn miniz(blob: &[u8]) -> usize {
    let mut state = InflateState::new_boxed(DataFormat::Raw);
    let mut chunk = vec![0; CHUNK];
    let mut rest = &blob[header(blob)..];
    let mut total = 0;
    loop {
        let done = inflate(&mut state, rest, &mut chunk, MZFlush::None);
        rest = &rest[done.bytes_consumed..];
        total += done.bytes_written;
        if done.status.expect("it is a gzip blob") == MZStatus::StreamEnd {
            return total;
        }
    }
}

/// The length of a member's header (RFC 1952, section 2.3).
fn header(blob: &[u8]) -> usize {
    const EXTRA: u8 = 4;
    const NAME: u8 = 8;
    const COMMENT: u8 = 16;
    const CHECK: u8 = 2;
    let flags = blob[3];
    let mut at = 10;
    if flags & EXTRA != 0 {
        at += 2 + usize::from(u16::from_le_bytes([blob[at], blob[at + 1]]));
    }
    for text in [NAME, COMMENT] {
        if flags & text != 0 {
            at += blob[at..].iter().position(|byte| *byte == 0).expect("it ends") + 1;
        }
    }
    if flags & CHECK != 0 { at + 2 } else { at }
}

fn libdeflate(blob: &[u8], size: usize) -> usize {
    let mut tar = vec![0; size];
    libdeflater::Decompressor::new().gzip_decompress(blob, &mut tar).expect("it is a gzip blob of one member")
}

fn sha2_of(tar: &[u8]) -> usize {
    std::hint::black_box(sha2::Sha256::digest(tar));
    tar.len()
}

fn ring_of(tar: &[u8]) -> usize {
    std::hint::black_box(ring::digest::digest(&ring::digest::SHA256, tar));
    tar.len()
}
