//! `docker push`: from a store to a registry.
//!
//! ```sh
//! push 127.0.0.1:5055/demo
//! push alpine:3.20 registry.example.com/mirror/alpine:3.20
//! pass registry | push --username alice --password-stdin --platform linux/arm64 alpine quay.io/alice/alpine
//! ```
//!
//! Pushes all that NAME means in the store to DEST, which is NAME unless it is given: with an index, every image in it.
//! Where the store does not have all of them, as after a pull, the one for this machine goes alone; with `--platform`,
//! the one for that.

#[path = "support/login.rs"]
mod login;
#[path = "support/pushing.rs"]
mod pushing;
mod support;

use std::collections::HashSet;
use std::process::ExitCode;

use layercake::Descriptor;
use layercake::Digest;
use layercake::Image;
use layercake::ImageReference;
use layercake::Store;
use layercake::manifest::Root;
use layercake::transfer::copy;
use lexopt::prelude::*;
use pushing::Transcript;

const USAGE: &str = "usage: push [--store DIR] [--platform OS/ARCH[/VARIANT]] [--jobs N] [--quiet]";

#[derive(Default)]
struct Options {
    common: support::Common,
    client: login::Client,
    jobs: Option<usize>,
    quiet: bool,
    names: Vec<String>,
}

fn main() -> ExitCode {
    support::run(push)
}

fn push() -> support::Result {
    let usage = format!("{USAGE} {} NAME [DEST]", login::USAGE);
    let Some(options) = parse()? else { return support::print(&usage) };
    let name = options.names.first().ok_or(usage)?;
    let destination: ImageReference = options.names.last().unwrap_or(name).parse()?;
    if destination == destination.without_tag() && !options.quiet {
        support::print("Using default tag: latest")?;
    }
    let destination = destination.or_latest();
    let registry = options.client.registry(destination.host())?;
    let (store, source) = (options.common.store()?, support::name_of(name));
    let mut layers = Vec::new();
    let every = options.common.platform.is_none();
    let is_whole = every && gather(&store, &store.resolve(&source)?, &mut HashSet::new(), &mut layers)?;
    let image;
    let transfer = if is_whole {
        copy((&store, &source))
    } else {
        image = alone(&options.common, name)?;
        layers = image.manifest().layers().to_vec();
        copy(&image)
    };
    let jobs = options.jobs.unwrap_or(4);
    let transcript = Transcript::begin(&destination, layers, jobs, options.quiet);
    let pushed = transfer.jobs(jobs).observer(&transcript).to((&registry, &destination))?;
    Ok(transcript.finish(&pushed)?)
}

fn parse() -> support::Result<Option<Options>> {
    let mut options = Options::default();
    let mut args = lexopt::Parser::from_env();
    while let Some(arg) = args.next()? {
        match arg {
            Long("help") | Short('h') => return Ok(None),
            Long("jobs") => options.jobs = Some(args.value()?.parse()?),
            Long("quiet") | Short('q') => options.quiet = true,
            Long(option) => {
                let option = option.to_owned();
                if !options.client.take(&option, &mut args)? {
                    options.common.take(&option, &mut args)?;
                }
            }
            Value(name) if options.names.len() < 2 => options.names.push(support::argument(name)?),
            other => return Err(other.unexpected().into()),
        }
    }
    Ok(Some(options))
}

/// The one image that is pushed; says so if nobody asked for one.
fn alone(common: &support::Common, name: &str) -> support::Result<Image> {
    let image = common.image(name)?;
    if common.platform.is_none() {
        let which = image.platform().map_or_else(|| image.digest().to_string(), |platform| platform.to_string());
        support::warn(&format!("not all of {name} is in the store: only the image for {which} is pushed"));
    }
    Ok(image)
}

/// Adds the layers that a document leads to. Whether the store has everything that it leads to.
fn gather(
    store: &Store,
    document: &Descriptor,
    seen: &mut HashSet<Digest>,
    layers: &mut Vec<Descriptor>,
) -> layercake::Result<bool> {
    if !seen.insert(document.digest) || !store.contains(document)? {
        return store.contains(document);
    }
    let mut is_whole = true;
    match Root::of(document, store.read(document)?)? {
        Root::Index(index) => {
            for entry in index.manifests() {
                is_whole &= gather(store, entry, seen, layers)?;
            }
        }
        Root::Manifest(manifest) => {
            is_whole &= store.contains(manifest.config())?;
            for layer in manifest.layers().iter().filter(|layer| !layer.media_type.is_nondistributable()) {
                is_whole &= store.contains(layer)?;
                if seen.insert(layer.digest) {
                    layers.push(layer.clone());
                }
            }
        }
    }
    Ok(is_whole)
}
