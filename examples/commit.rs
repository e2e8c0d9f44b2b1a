//! `docker commit`: makes an image of what changed in a working copy: `commit -m "say hello" work example.com/greeter:1`.
//! Prints the image's id.
//!
//! ```sh
//! commit -c 'CMD ["/usr/bin/greeter"]' --author "Jane <jane@example.com>" work example.com/greeter:1
//! ```
//!
//! A working copy that another user owns, or may write to, is refused without `--trust DIR`; its store likewise.
//! `--created` makes it reproducible: the same changes make the same image then.

#[path = "support/changes.rs"]
mod changes;
mod support;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use std::time::SystemTime;

use layercake::Checkout;
use layercake::Compression;
use layercake::ImageReference;
use layercake::checkout::CommitOptions;
use layercake::checkout::OpenOptions;
use layercake::compression::EncoderOptions;
use lexopt::prelude::*;

const USAGE: &str = "usage: commit [-m MESSAGE] [-c CHANGE]… [-a AUTHOR] [--created SECONDS] \
                     [--compression gzip|zstd|none] [--level N] [--trust DIR]... DIR [NAME]";

#[derive(Default)]
struct Options {
    commit: CommitOptions,
    changes: Vec<String>,
    compression: Option<Compression>,
    level: Option<i32>,
    open: OpenOptions,
    dir: Option<PathBuf>,
    name: Option<ImageReference>,
}

fn main() -> ExitCode {
    support::run(commit)
}

fn commit() -> support::Result {
    let Some(options) = parse()? else { return support::print(USAGE) };
    let work = Checkout::open_with(options.dir.ok_or(USAGE)?, &options.open)?;
    let mut encoder = EncoderOptions::new(options.compression.unwrap_or(Compression::Gzip));
    if let Some(level) = options.level {
        encoder = encoder.level(level);
    }
    let mut commit = options.commit.config(changes::parse(&options.changes)?).encoder(encoder);
    if let Some(name) = options.name {
        commit = commit.tag(name.or_latest());
    }
    support::print(&work.commit_with(&commit)?.id().to_string())
}

fn parse() -> support::Result<Option<Options>> {
    let mut options = Options::default();
    let mut args = lexopt::Parser::from_env();
    while let Some(arg) = args.next()? {
        match arg {
            Long("help") | Short('h') => return Ok(None),
            Long("message") | Short('m') => options.commit = options.commit.message(&support::text(&mut args)?),
            Long("author") | Short('a') => options.commit = options.commit.author(&support::text(&mut args)?),
            Long("change") | Short('c') => options.changes.push(support::text(&mut args)?),
            Long("created") => {
                let since = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(args.value()?.parse()?));
                options.commit = options.commit.created(since.ok_or("--created is too far away")?);
            }
            Long("compression") => options.compression = Some(compression(&support::text(&mut args)?)?),
            Long("level") => options.level = Some(args.value()?.parse()?),
            Long("trust") => options.open = options.open.trust(args.value()?),
            Value(value) if options.dir.is_none() => options.dir = Some(value.into()),
            Value(value) if options.name.is_none() => options.name = Some(support::argument(value)?.parse()?),
            other => return Err(other.unexpected().into()),
        }
    }
    Ok(Some(options))
}

fn compression(text: &str) -> support::Result<Compression> {
    match text {
        "gzip" => Ok(Compression::Gzip),
        "zstd" => Ok(Compression::Zstd),
        "none" => Ok(Compression::None),
        other => Err(format!("unknown compression {other:?}: gzip, zstd or none").into()),
    }
}
