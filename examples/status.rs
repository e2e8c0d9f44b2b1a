//! What changed in a working copy: `status work`. A line for each path, as `docker diff` has them: `A`dded, `C`hanged,
//! `D`eleted.

#[path = "support/letter.rs"]
mod letter;
mod support;

use std::io;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use layercake::Checkout;
use lexopt::prelude::*;

const USAGE: &str = "usage: status DIR";

fn main() -> ExitCode {
    support::run(status)
}

fn status() -> support::Result {
    let mut dir: Option<PathBuf> = None;
    let mut args = lexopt::Parser::from_env();
    while let Some(arg) = args.next()? {
        match arg {
            Long("help") | Short('h') => return support::print(USAGE),
            Value(value) if dir.is_none() => dir = Some(value.into()),
            other => return Err(other.unexpected().into()),
        }
    }
    let changes = Checkout::open(dir.ok_or(USAGE)?)?.changes()?;
    let mut out = io::BufWriter::new(io::stdout().lock());
    for change in &changes {
        writeln!(out, "{} /{}", letter::of(change.kind), support::printable(&change.path.to_string_lossy()))?;
    }
    for skipped in changes.skipped() {
        support::warn(&format!("cannot be committed: {skipped}"));
    }
    Ok(out.flush()?)
}
