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
//! `checkout --mount work` mounts the tree of a working copy again that was made before, as after a restart of the machine.
//!
//! Setuid bits and device files have no effect in an overlay without `--setuid` and `--devices`. A store that another
//! user owns, or may write to, is refused without `--trust DIR`.
//!
//! Without `--mode` it is an overlay where this user may mount one, else a reflink where the file system can share
//! content, else a copy. An overlay that could not be mounted is for the caller to mount: how is said on stderr.

mod support;

use std::ffi::OsString;
use std::process::ExitCode;

use layercake::Checkout;
use layercake::changeset::Ownership;
use layercake::checkout::CheckoutOptions;
use layercake::checkout::OpenOptions;
use lexopt::prelude::*;

const USAGE: &str = "usage: checkout [--store DIR] [--platform OS/ARCH[/VARIANT]] [--mode overlay|reflink|copy] \
                     [--strict] [--rootless] [--setuid] [--devices] [--trust DIR]... NAME DIR
       checkout --mount [--trust DIR]... DIR";

fn main() -> ExitCode {
    support::run(checkout)
}

fn checkout() -> support::Result {
    let mut common = support::Common::default();
    let mut options = CheckoutOptions::new();
    let mut open = OpenOptions::new();
    let mut mount = false;
    let mut values: Vec<OsString> = Vec::new();
    let mut args = lexopt::Parser::from_env();
    while let Some(arg) = args.next()? {
        match arg {
            Long("help") | Short('h') => return support::print(USAGE),
            Long("mode") => options = options.mode(support::text(&mut args)?.parse()?),
            Long("strict") => options = options.strict(true),
            Long("rootless") => options = options.ownership(Ownership::CurrentUser),
            Long("setuid") => options = options.allow_setuid(true),
            Long("devices") => options = options.allow_devices(true),
            Long("trust") => {
                let dir = args.value()?;
                options = options.trust(&dir);
                open = open.trust(&dir);
            }
            Long("mount") => mount = true,
            Long(option) => {
                let option = option.to_owned();
                common.take(&option, &mut args)?;
            }
            Value(value) if values.len() < 2 => values.push(value),
            other => return Err(other.unexpected().into()),
        }
    }
    let work = match (mount, &values[..]) {
        (true, [dir]) => {
            let work = Checkout::open_with(dir, &open)?;
            work.mount()?;
            work
        }
        (false, [name, dir]) => common.image(&support::argument(name.clone())?)?.checkout_with(dir, &options)?,
        _ => return Err(USAGE.into()),
    };
    for skipped in work.skipped() {
        support::warn(&format!("left out: {skipped}"));
    }
    if let Some(mount) = work.mount_options().filter(|_| !work.is_mounted()) {
        support::warn(&format!("not mounted: mount -t overlay -o '{mount}' overlay '{}'", work.root().display()));
    }
    support::print(&work.root().display().to_string())
}
