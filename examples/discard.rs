//! Removes a working copy and all that was changed in it: `discard work`. The image stays.

mod support;

use std::path::PathBuf;
use std::process::ExitCode;

use layercake::Checkout;
use lexopt::prelude::*;

const USAGE: &str = "usage: discard DIR";

fn main() -> ExitCode {
    support::run(discard)
}

fn discard() -> support::Result {
    let mut dir: Option<PathBuf> = None;
    let mut args = lexopt::Parser::from_env();
    while let Some(arg) = args.next()? {
        match arg {
            Long("help") | Short('h') => return support::print(USAGE),
            Value(value) if dir.is_none() => dir = Some(value.into()),
            other => return Err(other.unexpected().into()),
        }
    }
    Ok(Checkout::open(dir.ok_or(USAGE)?)?.discard()?)
}
