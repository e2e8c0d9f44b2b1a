//! `docker diff` for images: what changed from one to another.
//!
//! ```sh
//! diff debian:12.1 debian:12.2
//! diff --size localhost:5000/app:1 localhost:5000/app:2
//! ```

#[allow(dead_code, reason = "ages are not shown")]
#[path = "support/human.rs"]
mod human;
#[path = "support/letter.rs"]
mod letter;
mod support;

use std::io;
use std::io::Write;
use std::process::ExitCode;

use layercake::changeset::CompareContent;
use layercake::changeset::DiffOptions;
use lexopt::prelude::*;

const USAGE: &str = "usage: diff [--store DIR] [--platform OS/ARCH[/VARIANT]] [--size] [--content] OLD NEW";

fn main() -> ExitCode {
    support::run(diff)
}

fn diff() -> support::Result {
    let mut common = support::Common::default();
    let (mut names, mut sizes, mut options) = (Vec::new(), false, DiffOptions::new());
    let mut args = lexopt::Parser::from_env();
    while let Some(arg) = args.next()? {
        match arg {
            Long("help") | Short('h') => return support::print(USAGE),
            Long("size") => sizes = true,
            Long("content") => options = options.content(CompareContent::Always),
            Long(option) => {
                let option = option.to_owned();
                common.take(&option, &mut args)?;
            }
            Value(name) if names.len() < 2 => names.push(support::argument(name)?),
            other => return Err(other.unexpected().into()),
        }
    }
    let [old, new] = &names[..] else { return Err(USAGE.into()) };
    let changes = common.image(old)?.diff_with(&common.image(new)?, &options)?;
    let mut out = io::BufWriter::new(io::stdout().lock());
    for change in &changes {
        let letter = letter::of(change.kind);
        let size = if sizes { format!("{:>8} ", human::size(change.size)) } else { String::new() };
        writeln!(out, "{letter} {size}/{}", support::printable(&change.path.to_string_lossy()))?;
    }
    Ok(out.flush()?)
}
