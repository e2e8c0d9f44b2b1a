//! An image of a directory, built step by step.
//!
//! ```sh
//! build --from alpine:3.20 -c 'CMD ["/srv/app/run"]' app example.com/app:1
//! build                      # a tiny one that is built in
//! ```
//!
//! Prints each step, whether it was cached, and the image's id. The same directory and options make the same image,
//! anywhere: of the time it says what `--created` or `$SOURCE_DATE_EPOCH` does, and nothing else.

#[path = "support/changes.rs"]
mod changes;
mod support;

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;
use std::time::SystemTime;

use layercake::ImageBuilder;
use layercake::ImageReference;
use layercake::Platform;
use layercake::Store;
use layercake::builder::Built;
use layercake::builder::Files;
use lexopt::prelude::*;

const USAGE: &str = "usage: build [--store DIR] [--platform OS/ARCH[/VARIANT]] [--from NAME] [--to PATH] [-c CHANGE]… \
                     [--created SECONDS] [--no-cache] [DIR [NAME]]";

#[derive(Default)]
struct Options {
    common: support::Common,
    from: Option<String>,
    to: Option<OsString>,
    changes: Vec<String>,
    created: Option<u64>,
    no_cache: bool,
    directory: Option<OsString>,
    name: Option<ImageReference>,
}

fn main() -> ExitCode {
    support::run(build)
}

fn build() -> support::Result {
    let Some(options) = parse()? else { return support::print(USAGE) };
    let store = Store::open_or_create(options.common.store_path()?)?;
    let platform = options.common.platform.clone().unwrap_or_else(Platform::host);

    // On an image of the store, or on nothing.
    let mut builder = match &options.from {
        Some(name) => ImageBuilder::from_image(&options.common.image(name)?),
        None => ImageBuilder::from_scratch(&store, &platform),
    };
    if let Some(created) = options.created()? {
        builder = builder.created(created);
    }
    if options.no_cache {
        builder = builder.without_cache();
    }
    // What is in the directory, all of it root's; or a program of one line.
    builder = match &options.directory {
        Some(directory) => builder.copy(directory, options.to.as_deref().unwrap_or("/".as_ref())),
        None => builder
            .copy(Files::bytes("#!/bin/sh\necho \"A piece of cake.\"\n").mode(0o755), "/usr/bin/cake")
            .copy(Files::bytes("ID=cake\n"), "/etc/os-release")
            .env("PATH", "/usr/bin:/bin")
            .cmd(["/usr/bin/cake"]),
    };
    if !options.changes.is_empty() {
        builder = builder.config(changes::parse(&options.changes)?);
    }

    let built = builder.build()?;
    if let Some(name) = &options.name {
        store.tag(name, &built.image.descriptor())?;
    }
    show(&built)
}

fn show(built: &Built) -> support::Result {
    for (n, step) in built.steps.iter().enumerate() {
        let cached = if step.is_cached { " (cached)" } else { "" };
        let text = support::printable(&step.text);
        support::print(&format!("step {} of {}: {text}{cached}", n + 1, built.steps.len()))?;
        for skipped in &step.skipped {
            support::warn(&format!("left out: {skipped}"));
        }
    }
    support::print(&built.image.id().to_string())
}

impl Options {
    /// `--created`, or `$SOURCE_DATE_EPOCH`: the library reads no variables.
    fn created(&self) -> support::Result<Option<SystemTime>> {
        let seconds = match (self.created, std::env::var("SOURCE_DATE_EPOCH")) {
            (Some(seconds), _) => seconds,
            (None, Ok(text)) => text.parse().map_err(|_| format!("SOURCE_DATE_EPOCH is no number: {text:?}"))?,
            (None, Err(_)) => return Ok(None),
        };
        let since = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds));
        Ok(Some(since.ok_or("the time is too far away")?))
    }
}

fn parse() -> support::Result<Option<Options>> {
    let mut options = Options::default();
    let mut args = lexopt::Parser::from_env();
    while let Some(arg) = args.next()? {
        match arg {
            Long("help") | Short('h') => return Ok(None),
            Long("from") => options.from = Some(support::text(&mut args)?),
            Long("to") => options.to = Some(args.value()?),
            Long("change") | Short('c') => options.changes.push(support::text(&mut args)?),
            Long("created") => options.created = Some(args.value()?.parse()?),
            Long("no-cache") => options.no_cache = true,
            Long(option) => {
                let option = option.to_owned();
                options.common.take(&option, &mut args)?;
            }
            Value(value) if options.directory.is_none() => options.directory = Some(value),
            Value(value) if options.name.is_none() => options.name = Some(support::argument(value)?.parse()?),
            other => return Err(other.unexpected().into()),
        }
    }
    Ok(Some(options))
}
