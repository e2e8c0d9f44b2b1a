//! `docker rmi`: takes names away, and deletes what only they led to.
//!
//! ```sh
//! remove ubuntu:24.04 localhost:5000/base:1
//! ```

mod support;

use std::process::ExitCode;

use lexopt::prelude::*;

const USAGE: &str = "usage: remove [--store DIR] NAME...";

fn main() -> ExitCode {
    support::run(remove)
}

fn remove() -> support::Result {
    let mut common = support::Common::default();
    let mut names = Vec::new();
    let mut args = lexopt::Parser::from_env();
    while let Some(arg) = args.next()? {
        match arg {
            Long("help") | Short('h') => return support::print(USAGE),
            Long("store") => common.take("store", &mut args)?,
            Value(name) => names.push(support::argument(name)?),
            other => return Err(other.unexpected().into()),
        }
    }
    if names.is_empty() {
        return Err(USAGE.into());
    }
    let store = common.store()?;
    for name in names {
        let removed = store.remove(support::name_of(&name))?;
        support::print(&format!("Untagged: {}", removed.name.familiar()))?;
        // As Docker has it: by its digest too, where nothing of it is left.
        if let Some(reference) = removed.name.reference()
            && removed.collected.blobs.contains(&removed.root.digest)
        {
            support::print(&format!("Untagged: {}@{}", reference.familiar_repository(), removed.root.digest))?;
        }
        for digest in removed.collected.blobs {
            support::print(&format!("Deleted: {digest}"))?;
        }
    }
    Ok(())
}
