//! Unpacks gzip layers onto a directory with oci-image, in its fastest way, which verifies nothing: `unpack DIR BLOB…`.

use std::path::Path;

use oci_image::UnpackOptions;
use oci_image::apply_layer_file;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [directory, blobs @ ..] = &arguments[..] else { return Err("usage: DIR BLOB…".into()) };
    std::fs::create_dir_all(directory)?;
    for blob in blobs {
        apply_layer_file(Path::new(blob), Path::new(directory), &UnpackOptions::default())?;
    }
    Ok(())
}
