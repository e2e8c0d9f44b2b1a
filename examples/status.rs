//! What changed in a working copy: `status work`. A line for each path, as `docker diff` has them: `A`dded, `C`hanged,
//! `D`eleted.
//!
//! A working copy that another user owns, or may write to, is refused without `--trust DIR`; its store likewise.

#[path = "support/letter.rs"]
mod letter;
mod support;

use std::io;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use layercake::Checkout;
use layercake::checkout::OpenOptions;
use lexopt::prelude::*;

const USAGE: &str = "usage: status [--trust DIR]... DIR";

fn main() -> ExitCode {
    support::run(status)
}

fn status() -> support::Result {
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
    let changes = Checkout::open_with(dir.ok_or(USAGE)?, &options)?.changes()?;
    let mut out = io::BufWriter::new(io::stdout().lock());
    for change in &changes {
        writeln!(out, "{} /{}", letter::of(change.kind), support::printable(&change.path.to_string_lossy()))?;
    }
    for skipped in changes.skipped() {
        support::warn(&format!("cannot be committed: {skipped}"));
    }
    Ok(out.flush()?)
}
