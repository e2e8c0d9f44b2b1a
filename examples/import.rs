//! `docker import`: a tarball of a root file system as an image of one layer.
//!
//! ```sh
//! tar -C rootfs -c . | import -c 'CMD ["/bin/sh"]' - example.com/base:1
//! ```
//!
//! Prints the image's id. The same tarball and options make the same image: of the time it says only what
//! `--created` does.

#[path = "support/changes.rs"]
mod changes;
mod support;

use std::fs::File;
use std::io;
use std::io::IsTerminal;
use std::io::Read;
use std::process::ExitCode;
use std::time::Duration;
use std::time::SystemTime;

use layercake::ImageReference;
use layercake::Store;
use layercake::archive;
use lexopt::prelude::*;

const USAGE: &str = "usage: import [--store DIR] [--platform OS/ARCH[/VARIANT]] [-m MESSAGE] [-c CHANGE]… \
                     [--author NAME] [--created SECONDS] TARBALL|- [NAME]";

#[derive(Default)]
struct Options {
    common: support::Common,
    message: Option<String>,
    author: Option<String>,
    created: Option<u64>,
    changes: Vec<String>,
    tarball: Option<std::ffi::OsString>,
    name: Option<ImageReference>,
}

fn main() -> ExitCode {
    support::run(import)
}

fn import() -> support::Result {
    let Some(options) = parse()? else { return support::print(USAGE) };
    let tarball = options.tarball.ok_or(USAGE)?;
    let reader: Box<dyn Read> = match tarball.to_str() {
        Some("-") if io::stdin().is_terminal() => {
            return Err("a tarball cannot be typed: say a file, or pipe it".into());
        }
        Some("-") => Box::new(io::stdin().lock()),
        _ => Box::new(File::open(&tarball).map_err(|error| format!("{}: {error}", tarball.display()))?),
    };
    let mut config = changes::parse(&options.changes)?;
    if let Some(author) = &options.author {
        config = config.author(author);
    }
    let mut import = archive::import(reader).config(config);
    if let Some(message) = &options.message {
        import = import.comment(message);
    }
    if let Some(seconds) = options.created {
        let since = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds));
        import = import.created(since.ok_or("--created is too far away")?);
    }
    if let Some(platform) = options.common.platform.clone() {
        import = import.platform(platform);
    }
    let store = Store::open_or_create(options.common.store_path()?)?;
    let root = import.to(&store)?;
    if let Some(name) = &options.name {
        store.tag(name, &root)?;
    }
    support::print(&store.image_at(&root)?.id().to_string())
}

fn parse() -> support::Result<Option<Options>> {
    let mut options = Options::default();
    let mut args = lexopt::Parser::from_env();
    while let Some(arg) = args.next()? {
        match arg {
            Long("help") | Short('h') => return Ok(None),
            Long("message") | Short('m') => options.message = Some(support::text(&mut args)?),
            Long("change") | Short('c') => options.changes.push(support::text(&mut args)?),
            Long("author") => options.author = Some(support::text(&mut args)?),
            Long("created") => options.created = Some(args.value()?.parse()?),
            Long(option) => {
                let option = option.to_owned();
                options.common.take(&option, &mut args)?;
            }
            Value(value) if options.tarball.is_none() => options.tarball = Some(value),
            Value(value) if options.name.is_none() => options.name = Some(support::argument(value)?.parse()?),
            other => return Err(other.unexpected().into()),
        }
    }
    Ok(Some(options))
}
