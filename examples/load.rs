//! `docker load`: images of an archive into a store, under the names that the archive has for them.
//!
//! ```sh
//! docker save alpine:3.20 | load -
//! load images.tar.gz
//! ```
//!
//! The archive may be what `docker save` writes, old or new, or an OCI layout in a tar; compressed or not.

mod support;

use std::fs::File;
use std::io;
use std::io::IsTerminal;
use std::io::Read;
use std::process::ExitCode;

use layercake::Store;
use layercake::archive;
use layercake::archive::LoadedImage;
use lexopt::prelude::*;

const USAGE: &str = "usage: load [--store DIR] [--quiet] FILE|-";

fn main() -> ExitCode {
    support::run(load)
}

fn load() -> support::Result {
    let mut common = support::Common::default();
    let mut file = None;
    let mut quiet = false;
    let mut args = lexopt::Parser::from_env();
    while let Some(arg) = args.next()? {
        match arg {
            Long("help") | Short('h') => return support::print(USAGE),
            Long("quiet") | Short('q') => quiet = true,
            Long(option) => {
                let option = option.to_owned();
                common.take(&option, &mut args)?;
            }
            Value(value) if file.is_none() => file = Some(value),
            other => return Err(other.unexpected().into()),
        }
    }
    let file = file.ok_or(USAGE)?;
    let reader: Box<dyn Read> = match file.to_str() {
        Some("-") if io::stdin().is_terminal() => {
            return Err("an archive cannot be typed: say a file, or pipe it".into());
        }
        Some("-") => Box::new(io::stdin().lock()),
        _ => Box::new(File::open(&file).map_err(|error| format!("{}: {error}", file.display()))?),
    };
    let store = Store::open_or_create(common.store_path()?)?;
    for image in archive::load(reader).to(&store)?.images {
        name(&store, &image, quiet)?;
    }
    Ok(())
}

/// Names an image as the archive does, and says so.
fn name(store: &Store, image: &LoadedImage, quiet: bool) -> support::Result {
    for name in &image.names {
        let previous = store.tag(name, &image.root)?.filter(|previous| previous.digest != image.root.digest);
        if let (Some(previous), false) = (previous, quiet) {
            let id = store.image_at(&previous).map_or(previous.digest, |image| image.id());
            let name = name.familiar();
            support::print(&format!(
                "The image {name} already exists, renaming the old one with ID {id} to empty string"
            ))?;
        }
        support::print(&format!("Loaded image: {}", name.familiar()))?;
    }
    for text in &image.other_names {
        support::warn(&format!("{text:?} is no name of an image, and was passed over"));
    }
    if image.names.is_empty() {
        let id = store.image_at(&image.root).map_or(image.root.digest, |image| image.id());
        support::print(&format!("Loaded image ID: {id}"))?;
    }
    Ok(())
}
