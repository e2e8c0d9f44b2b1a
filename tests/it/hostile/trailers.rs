//! Streams that go on without end behind their content, and zstd frames that need too much memory.

use std::io;
use std::io::Read;

use layercake::archive;

use super::*;

/// These bytes, and then others again and again, without end.
struct Endless {
    content: Vec<u8>,
    again: Vec<u8>,
    at: usize,
}

impl Endless {
    fn new(content: &[u8], again: &[u8]) -> Endless {
        // Large reads are quick.
        let again = again.repeat((64 << 10) / again.len());
        Endless { content: content.to_vec(), again, at: 0 }
    }
}

impl Read for Endless {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.content.len() {
            (self.content, self.at) = (std::mem::take(&mut self.again), 0);
            self.again = self.content.clone();
        }
        let count = buffer.len().min(self.content.len() - self.at);
        buffer[..count].copy_from_slice(&self.content[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}

fn zstd_frame(content: &[u8]) -> Vec<u8> {
    // One raw block in a single segment (RFC 8878, section 3.1.1).
    let size = u32::try_from(content.len()).unwrap();
    let block = (size << 3 | 1).to_le_bytes();
    [&[0x28, 0xb5, 0x2f, 0xfd, 0xa0][..], &size.to_le_bytes(), &block[..3], content].concat()
}

fn skippable_frame(content: &[u8]) -> Vec<u8> {
    [&[0x50, 0x2a, 0x4d, 0x18][..], &u32::try_from(content.len()).unwrap().to_le_bytes(), content].concat()
}

/// The tar, plain and compressed, each with bytes that add nothing.
fn trailers(tar: &[u8]) -> Vec<(&'static str, Endless)> {
    let (gzip, zstd) = (super::gzip(tar), zstd_frame(tar));
    let mut cases = vec![
        ("zeros behind a tar", Endless::new(tar, &[0; 512])),
        ("garbage behind a tar", Endless::new(tar, b"garbage.")),
        ("zeros behind gzip", Endless::new(&gzip, &[0; 512])),
        ("empty gzip members", Endless::new(&gzip, &super::gzip(b""))),
        ("empty gzip members alone", Endless::new(b"", &super::gzip(b""))),
    ];
    if cfg!(feature = "zstd") {
        cases.push(("skippable frames", Endless::new(&zstd, &skippable_frame(&[7; 4000]))));
        cases.push(("empty skippable frames", Endless::new(&zstd, &skippable_frame(b""))));
        cases.push(("empty frames", Endless::new(&zstd, &zstd_frame(b""))));
        cases.push(("skippable frames alone", Endless::new(b"", &skippable_frame(&[7; 4000]))));
    }
    cases
}

/// P9: an endless trailer is bounded in bytes, in a layer and in an archive.
#[test]
fn endless_trailers_are_refused() {
    let layer = tar(&[Item::file("f", "f")]);
    let mut limits = Limits::default();
    limits.trailer_bytes = 4 << 20;
    let expected = (Limit::TrailerSize, 4 << 20);
    for (case, stream) in trailers(&layer) {
        let error = failure(apply(stream, Scratch::new().dir("root"), &options().limits(limits)));
        assert_eq!(limit_of(&error), expected, "{case}: {error}");
    }
    let scratch = Scratch::new();
    let store = scratch.store("store");
    for (case, stream) in trailers(&layer) {
        let error = failure(archive::load(stream).limits(limits).to(&store));
        assert_eq!(limit_of(&error), expected, "{case}: {error}");
    }
    for (case, stream) in trailers(&layer) {
        let error = failure(archive::import(stream).limits(limits).to(&store));
        assert_eq!(limit_of(&error), expected, "{case}: {error}");
    }
    assert_eq!(store.blobs().unwrap().count(), 0);
}

/// The default is a quarter of a gigabyte: tables of contents of zstd:chunked layers fit.
#[test]
fn trailers_have_a_default_limit() {
    for (case, stream) in trailers(&tar(&[Item::file("f", "f")])).into_iter().take(4) {
        let error = failure(apply(stream, Scratch::new().dir("root"), &options()));
        assert_eq!(limit_of(&error), (Limit::TrailerSize, 256 << 20), "{case}: {error}");
    }
}

fn limit_of(error: &layercake::Error) -> (Limit, u64) {
    match error.kind() {
        ErrorKind::LimitExceeded { limit, maximum } => (*limit, *maximum),
        _ => panic!("unexpected kind: {error:?}"),
    }
}

/// P9: the window of a zstd frame is memory of its decoder. More than 128 MiB are refused, in any frame of a layer.
#[test]
#[cfg(feature = "zstd")]
fn zstd_frames_with_large_windows_are_refused() {
    let layer = tar(&[Item::file("f", "f")]);
    // An empty last block, behind a header with this window descriptor.
    let frame = |window: u8| [0x28, 0xb5, 0x2f, 0xfd, 0, window, 1, 0, 0];
    let largest = 17 << 3;
    becomes(&[&frame(largest)[..], &zstd_frame(&layer)].concat(), &["f: f"]);
    let windows = [(largest + 1, 144_u64 << 20), (18 << 3, 256 << 20), (21 << 3, 2 << 30), (0xff, 15 << 38)];
    for (window, bytes) in windows {
        for layer in [frame(window).to_vec(), [&zstd_frame(&layer), &frame(window)[..]].concat()] {
            let error = fails(&layer, &options());
            assert_eq!(limit_of(&error), (Limit::Window, 128 << 20));
            let text = error.to_string();
            assert!(text.contains(&format!("zstd frame with a window of {} bytes", bytes)), "{text}");
        }
    }
}
