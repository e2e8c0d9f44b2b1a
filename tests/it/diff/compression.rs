//! Compressing layers.

use std::io::Read;
use std::io::Write;
use std::process::Command;

use layercake::Compression;
use layercake::compression::Encoder;
use layercake::compression::EncoderOptions;

use crate::support::Scratch;
use crate::support::tools::installed;
use crate::support::tools::run;

const BLOCK: usize = 256 << 10;

/// Words, so that there is something to find behind the end of a block.
fn text(length: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(1);
    let words: Vec<Vec<u8>> =
        (0..500).map(|_| (0..random.usize(2..9)).map(|_| random.u8(b'a'..=b'z')).collect()).collect();
    let mut text = Vec::with_capacity(length + 10);
    while text.len() < length {
        text.extend_from_slice(&words[random.usize(..words.len())]);
        text.push(b' ');
    }
    text.truncate(length);
    text
}

fn encoded(content: &[u8], options: &EncoderOptions, piece: usize) -> Vec<u8> {
    let mut encoder = options.encode(Vec::new()).unwrap();
    for piece in content.chunks(piece) {
        encoder.write_all(piece).unwrap();
        encoder.flush().unwrap();
    }
    encoder.finish().unwrap()
}

/// One member, whose bytes do not depend on threads, nor on how they were written.
#[test]
fn gzip_is_the_same_with_any_number_of_threads() {
    let noise: Vec<u8> = (0..BLOCK + 7).map(|_| fastrand::u8(..)).collect();
    let samples = [text(0), text(1), text(BLOCK - 1), text(BLOCK), text(BLOCK + 1), text(9 * BLOCK + 5), noise];
    for content in &samples {
        for level in [0, 1, 6, 9] {
            let options = EncoderOptions::new(Compression::Gzip).level(level);
            let alone = encoded(content, &options.clone().threads(1), 1 << 20);
            for (threads, piece) in [(2, 1000), (3, BLOCK), (8, 1 << 20)] {
                let found = encoded(content, &options.clone().threads(threads), piece);
                assert!(found == alone, "{} bytes, level {level}, {threads} threads", content.len());
            }
            // flate2's reads one member only.
            let mut back = Vec::new();
            flate2::read::GzDecoder::new(&alone[..]).read_to_end(&mut back).unwrap();
            assert!(back == *content);
            assert_eq!(alone[..10], [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255]);
        }
    }
}

/// Cutting into blocks costs next to nothing.
#[test]
fn blocks_know_what_was_before_them() {
    let content = text(4 << 20);
    let ours = encoded(&content, &EncoderOptions::new(Compression::Gzip).level(6), 1 << 20);
    let mut whole = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
    whole.write_all(&content).unwrap();
    let whole = whole.finish().unwrap();
    assert!(ours.len() < whole.len() * 1005 / 1000, "{} bytes, whole {}", ours.len(), whole.len());
}

/// What is compressed already is stored as it is; what only looks so by the bytes that it has is not, and neither is what
/// lies beside it.
#[test]
fn noise_is_stored_and_nothing_else_is() {
    let mut noise = vec![0; 3 * BLOCK];
    fastrand::Rng::with_seed(3).fill(&mut noise);
    let size = |content: &[u8]| {
        let bytes = encoded(content, &EncoderOptions::new(Compression::Gzip), 1 << 20);
        let mut back = Vec::new();
        flate2::read::GzDecoder::new(&bytes[..]).read_to_end(&mut back).unwrap();
        assert!(back == content);
        bytes.len()
    };
    let stored = size(&noise);
    assert!((noise.len()..noise.len() + 200).contains(&stored), "{stored}");
    // Every byte as often as any other, but in order; or again and again the same.
    let counted: Vec<u8> = (0..3 * BLOCK).map(|n| n.to_le_bytes()[0]).collect();
    assert!(size(&counted) < counted.len() / 50);
    let again = noise[..4096].repeat(3 * BLOCK / 4096);
    assert!(size(&again) < again.len() / 20);
    // Words, between noise.
    let mixed = [&noise[..BLOCK / 2], &text(BLOCK / 2)[..]].concat();
    assert!(size(&mixed) < size(&noise[..BLOCK / 2]) + size(&text(BLOCK / 2)) + BLOCK / 100);
}

#[test]
fn gzip_reads_what_we_wrote() {
    if !installed(&["gzip"]) {
        return;
    }
    let scratch = Scratch::new();
    let (file, content) = (scratch.path("layer.gz"), text(1_000_000));
    std::fs::write(&file, encoded(&content, &EncoderOptions::new(Compression::Gzip), 77_777)).unwrap();
    run(Command::new("gzip").arg("-t").arg(&file)).ok();
    let out = Command::new("gunzip").arg("-c").arg(&file).output().unwrap();
    assert!(out.status.success() && out.stdout == content && out.stderr.is_empty());
}

#[cfg(feature = "zstd")]
#[test]
fn zstd_comes_back_and_is_the_same_twice() {
    // More than threads take at a time, which is 8 MiB; and less.
    for content in [text(1_000_000), text(20 << 20)] {
        let options = EncoderOptions::new(Compression::Zstd);
        let one = encoded(&content, &options.clone().threads(1), 1000);
        for threads in [2, 5] {
            let other = encoded(&content, &options.clone().threads(threads), 77_777);
            assert!(one == other, "{threads} threads, {} bytes", content.len());
        }
        assert!(zstd::decode_all(&one[..]).unwrap() == content);
    }
}

#[test]
fn nothing_is_nothing() {
    let mut plain = Encoder::new(Vec::new(), Compression::None).unwrap();
    plain.write_all(b"as it is").unwrap();
    assert_eq!(plain.finish().unwrap(), b"as it is");
    let error = EncoderOptions::new(Compression::Gzip).level(10).encode(Vec::new()).unwrap_err();
    assert_eq!(error.to_string(), "gzip has no level 10: there are 0 to 9");
}

/// A writer that fails ends the work; threads end with it.
#[test]
fn a_full_disk_is_an_error() {
    struct Full(usize);
    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 = self.0.checked_sub(bytes.len()).ok_or(std::io::ErrorKind::StorageFull)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    for room in [0, 5, 10, 100_000] {
        let encode = || -> layercake::Result<_> {
            let mut encoder = EncoderOptions::new(Compression::Gzip).threads(3).encode(Full(room))?;
            encoder.write_all(&text(3 << 20))?;
            encoder.finish()
        };
        assert!(encode().is_err(), "{room}");
    }
}
