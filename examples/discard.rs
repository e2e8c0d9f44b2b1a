//! Removes a working copy and all that was changed in it: `discard work`. The image stays.
//!
//! A working copy that another user owns, or may write to, is refused without `--trust DIR`.

mod support;

use std::path::PathBuf;
use std::process::ExitCode;

use layercake::Checkout;
use layercake::checkout::OpenOptions;
use lexopt::prelude::*;

const USAGE: &str = "usage: discard [--trust DIR]... DIR";

fn main() -> ExitCode {
    support::run(discard)
}

fn discard() -> support::Result {
    let mut dir: Option<PathBuf> = None;
    let mut options = OpenOptions::new();
    let mut args = lexopt::Parser::from_env();
    while let Some(arg) = args.next()? {
        match arg {
            Long("help") | Short('h') => return support::print(USAGE),
            Long("trust") => options = options.trust(args.value()?),
            Value(value) if dir.is_none() => dir = Some(value.into()),
            other => return Err(other.unexpected().into()),
        }
    }
    Ok(Checkout::open_with(dir.ok_or(USAGE)?, &options)?.discard()?)
}
