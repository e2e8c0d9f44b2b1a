//! Refuses zstd frames that need too much memory (RFC 8878, section 3.1.1.1).

use std::io;

use zstd::stream::raw::DParameter;
use zstd::stream::raw::Decoder;
use zstd::stream::raw::InBuffer;
use zstd::stream::raw::Operation;
use zstd::stream::raw::OutBuffer;
use zstd::stream::raw::WriteBuf;

use crate::error::Error;
use crate::error::Limit;

/// The logarithm of the largest window: 128 MiB, the default of `zstd -d`.
const MAX_WINDOW_LOG: u32 = 27;
const MAX_WINDOW: u64 = 1 << MAX_WINDOW_LOG;
const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// The bytes of the longest frame header.
const MAX_HEADER: usize = 18;

/// A zstd decoder that looks at the header of each frame before it decodes the frame.
pub(super) struct Checked {
    decoder: Decoder<'static>,
    /// The first bytes of the frame, until its window is known.
    header: Vec<u8>,
    is_checked: bool,
}

impl Checked {
    pub(super) fn new() -> io::Result<Checked> {
        let mut decoder = Decoder::new()?;
        decoder.set_parameter(DParameter::WindowLogMax(MAX_WINDOW_LOG))?;
        Ok(Checked { decoder, header: Vec::with_capacity(MAX_HEADER), is_checked: false })
    }

    /// Looks at the next bytes of a frame whose window is not known yet.
    fn check(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.header.extend(bytes.iter().take(MAX_HEADER - self.header.len()));
        let Some(window) = window(&self.header) else { return Ok(()) };
        self.is_checked = true;
        if window > MAX_WINDOW {
            let frame = format!("zstd frame with a window of {window} bytes");
            return Err(Error::limit(Limit::Window, MAX_WINDOW).context(frame).into());
        }
        Ok(())
    }
}

impl Operation for Checked {
    fn run<C: WriteBuf + ?Sized>(
        &mut self,
        input: &mut InBuffer<'_>,
        output: &mut OutBuffer<'_, C>,
    ) -> io::Result<usize> {
        if !self.is_checked {
            self.check(&input.src[input.pos()..])?;
        }
        self.decoder.run(input, output)
    }

    /// A new frame begins.
    fn reinit(&mut self) -> io::Result<()> {
        self.header.clear();
        self.is_checked = false;
        self.decoder.reinit()
    }

    fn finish<C: WriteBuf + ?Sized>(
        &mut self,
        output: &mut OutBuffer<'_, C>,
        finished_frame: bool,
    ) -> io::Result<usize> {
        self.decoder.finish(output, finished_frame)
    }
}

/// The window of the frame that begins so; none while more bytes are needed. Of frames that are not decoded it is 0.
fn window(header: &[u8]) -> Option<u64> {
    let (magic, rest) = header.split_first_chunk::<4>()?;
    if *magic != MAGIC {
        return Some(0);
    }
    let (descriptor, rest) = rest.split_first()?;
    let is_single_segment = descriptor & 0x20 != 0;
    if !is_single_segment {
        let byte = rest.first()?;
        let base = 1 << (10 + (byte >> 3));
        return Some(base + base / 8 * u64::from(byte & 7));
    }
    // The window is the content: its size stands behind the number of a dictionary.
    let rest = rest.get([0, 1, 2, 4][usize::from(descriptor & 3)]..)?;
    Some(match descriptor >> 6 {
        0 => u64::from(*rest.first()?),
        1 => u64::from(u16::from_le_bytes(*rest.first_chunk()?)) + 256,
        2 => u64::from(u32::from_le_bytes(*rest.first_chunk()?)),
        _ => u64::from_le_bytes(*rest.first_chunk()?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of RFC 8878, section 3.1.1.1.2, and a header of each form.
    #[test]
    fn windows_are_read_from_each_form_of_header() {
        let header = |rest: &[u8]| [&MAGIC[..], rest].concat();
        assert_eq!(window(&header(&[0, 0])), Some(1 << 10));
        assert_eq!(window(&header(&[0, 17 << 3])), Some(1 << 27));
        assert_eq!(window(&header(&[0, 17 << 3 | 1])), Some((1 << 27) + (1 << 24)));
        assert_eq!(window(&header(&[0, 0xff])), Some((1 << 41) + 7 * (1 << 38)));
        assert_eq!(window(&header(&[0x20, 200])), Some(200));
        assert_eq!(window(&header(&[0x61, 9, 1, 1])), Some(257 + 256));
        assert_eq!(window(&header(&[0xa2, 9, 9, 0, 0, 0, 16])), Some(1 << 28));
        assert_eq!(window(&header(&[0xe3, 9, 9, 9, 9, 0, 0, 0, 0, 0, 1, 0, 0])), Some(1 << 40));
        assert_eq!(window(&[0x50, 0x2a, 0x4d, 0x18]), Some(0));
        for length in 0..6 {
            assert_eq!(window(&header(&[0, 0])[..length]), None, "{length} bytes");
        }
    }
}
