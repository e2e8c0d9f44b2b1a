//! Entry points for the fuzz targets into parsers that are not public. Not part of the API: they may change in any
//! release.
//!
//! The targets are in `tests/it/fuzz/targets.rs`. `cargo test` runs them on seeded input, `fuzz/` with cargo-fuzz.

use std::io::BufRead;
use std::io::Read;

use crate::compression::Bound;
use crate::compression::Decoder;
use crate::error::Result;
use crate::manifest::ConfigEdit;
use crate::manifest::Object;

#[cfg(feature = "registry")]
pub use crate::registry::fuzzing::challenges;
#[cfg(feature = "registry")]
pub use crate::registry::fuzzing::next_page;

/// Decompresses a layer of any compression. More than `maximum` bytes are an error.
///
/// # Errors
///
/// Those of reading a compressed layer.
pub fn decompress(stream: impl BufRead, maximum: u64) -> Result<Vec<u8>> {
    let mut content = Vec::new();
    Decoder::new(stream, Bound::at_most(maximum, maximum))?.read_to_end(&mut content)?;
    Ok(content)
}

/// Changes the JSON text of a config, as [`Image::edit`](crate::Image::edit) does.
///
/// # Errors
///
/// Those of editing an image.
pub fn edit_config(config: &[u8], edit: &ConfigEdit) -> Result<Vec<u8>> {
    let mut object = Object::parse("configuration", config)?;
    edit.apply(&mut object)?;
    object.to_bytes()
}
