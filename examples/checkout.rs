//! Makes a working copy of an image, to be changed and committed: `checkout alpine work`. Prints where its tree is.
//!
//! ```sh
//! root=$(checkout alpine work)
//! echo hello > "$root/etc/motd"
//! status work
//! commit -m "say hello" work example.com/greeter:1
//! discard work
//! ```
//!
//! Without `--mode` it is an overlay where this user may mount one, else a reflink where the file system can share
//! content, else a copy. An overlay that could not be mounted is for the caller to mount: how is said on stderr.

mod support;

use std::path::PathBuf;
use std::process::ExitCode;

use layercake::checkout::CheckoutOptions;
use lexopt::prelude::*;

const USAGE: &str = "usage: checkout [--store DIR] [--platform OS/ARCH[/VARIANT]] [--mode overlay|reflink|copy] \
                     [--strict] NAME DIR";

fn main() -> ExitCode {
    support::run(checkout)
}

fn checkout() -> support::Result {
    let mut common = support::Common::default();
    let mut options = CheckoutOptions::new();
    let mut name = None;
    let mut target: Option<PathBuf> = None;
    let mut args = lexopt::Parser::from_env();
    while let Some(arg) = args.next()? {
        match arg {
            Long("help") | Short('h') => return support::print(USAGE),
            Long("mode") => options = options.mode(support::text(&mut args)?.parse()?),
            Long("strict") => options = options.strict(true),
            Long(option) => {
                let option = option.to_owned();
                common.take(&option, &mut args)?;
            }
            Value(value) if name.is_none() => name = Some(support::argument(value)?),
            Value(value) if target.is_none() => target = Some(value.into()),
            other => return Err(other.unexpected().into()),
        }
    }
    let (name, target) = name.zip(target).ok_or(USAGE)?;
    let work = common.image(&name)?.checkout_with(target, &options)?;
    for skipped in work.skipped() {
        support::warn(&format!("left out: {skipped}"));
    }
    if let Some(mount) = work.mount_options().filter(|_| !work.is_mounted()) {
        support::warn(&format!("not mounted: mount -t overlay -o '{mount}' overlay '{}'", work.root().display()));
    }
    support::print(&work.root().display().to_string())
}
