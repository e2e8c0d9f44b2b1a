//! What `docker pull --all-tags` would pull: the tags of a repository, one on each line, in the registry's order.
//!
//! ```sh
//! tags alpine
//! tags --username alice --password-stdin registry.example.com/team/app < password
//! ```

#[path = "support/login.rs"]
mod login;
mod support;

use std::process::ExitCode;

use layercake::ImageReference;
use lexopt::prelude::*;

fn main() -> ExitCode {
    support::run(tags)
}

fn tags() -> support::Result {
    let usage = format!("usage: tags {} NAME", login::USAGE);
    let mut client = login::Client::default();
    let mut name = None;
    let mut args = lexopt::Parser::from_env();
    while let Some(arg) = args.next()? {
        match arg {
            Long("help") | Short('h') => return support::print(&usage),
            Long(option) => {
                let option = option.to_owned();
                if !client.take(&option, &mut args)? {
                    return Err(Long(&option).unexpected().into());
                }
            }
            Value(value) if name.is_none() => name = Some(support::argument(value)?),
            other => return Err(other.unexpected().into()),
        }
    }
    let name: ImageReference = name.ok_or(usage)?.parse()?;
    let registry = client.registry(name.host())?;
    for tag in registry.repository(&name)?.tags() {
        support::print(&tag?)?;
    }
    Ok(())
}
