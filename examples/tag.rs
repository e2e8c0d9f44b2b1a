//! `docker tag`: gives an image one more name. Nothing is copied.
//!
//! ```sh
//! tag ubuntu:24.04 localhost:5000/base:1
//! ```

mod support;

use std::process::ExitCode;

use layercake::ImageReference;
use lexopt::prelude::*;

const USAGE: &str = "usage: tag [--store DIR] NAME NEW-NAME";

fn main() -> ExitCode {
    support::run(tag)
}

fn tag() -> support::Result {
    let mut common = support::Common::default();
    let mut names = Vec::new();
    let mut args = lexopt::Parser::from_env();
    while let Some(arg) = args.next()? {
        match arg {
            Long("help") | Short('h') => return support::print(USAGE),
            Long("store") => common.take("store", &mut args)?,
            Value(name) if names.len() < 2 => names.push(support::argument(name)?),
            other => return Err(other.unexpected().into()),
        }
    }
    let [name, new] = &names[..] else { return Err(USAGE.into()) };
    let store = common.store()?;
    let root = store.resolve(support::name_of(name))?;
    let new: ImageReference = new.parse()?;
    store.tag(&new.or_latest(), &root)?;
    Ok(())
}
