//! Keeps a store: what is in it, whether it is sound, and what can go.
//!
//! ```sh
//! store usage
//! store gc --dry-run
//! store check && store repair
//! store checkouts
//! ```

#[allow(dead_code, reason = "sizes only")]
#[path = "support/human.rs"]
mod human;
mod support;

use std::process::ExitCode;
use std::time::Duration;

use layercake::Store;
use layercake::store::GcOptions;
use layercake::store::Problem;
use layercake::store::Repaired;
use layercake::store::UnpackedPolicy;
use lexopt::prelude::*;

const USAGE: &str = "usage: store gc|check|repair|usage [--store DIR] [--dry-run] [--now] [--unpacked] [--room BYTES]
       store checkouts [--store DIR]
       store forget [--store DIR] ID
  gc       deletes what no name leads to: --now also what is younger than an hour, --unpacked also unpacked
           layers of images that have names; --room also the images that were not used for longest
  check    reads everything, and says what is wrong
  repair   mends it, and fetches what is missing
  usage    says where the bytes are
  checkouts  lists the working copies that need images of the store: ID, state and directory
  forget   stops keeping what a working copy needs that was deleted";

#[derive(Default)]
struct Options {
    common: support::Common,
    command: Option<String>,
    id: Option<String>,
    gc: GcOptions,
}

fn main() -> ExitCode {
    support::run(run)
}

fn run() -> support::Result {
    let Some(options) = parse()? else { return support::print(USAGE) };
    let store = options.common.store()?;
    match options.command.as_deref() {
        Some("gc") => gc(&store, &options.gc),
        Some("check") => check(&store),
        Some("repair") => repaired(&repair(&store)?),
        Some("usage") => usage(&store),
        Some("checkouts") => checkouts(&store),
        Some("forget") => Ok(store.forget_checkout(&options.id.ok_or(USAGE)?)?),
        _ => Err(USAGE.into()),
    }
}

fn parse() -> support::Result<Option<Options>> {
    let mut options = Options::default();
    let mut args = lexopt::Parser::from_env();
    while let Some(arg) = args.next()? {
        match arg {
            Long("help") | Short('h') => return Ok(None),
            Long("dry-run") => options.gc = options.gc.dry_run(),
            Long("now") => options.gc = options.gc.grace(Duration::ZERO),
            Long("unpacked") => options.gc = options.gc.unpacked(UnpackedPolicy::Unused),
            Long("room") => options.gc = options.gc.room(support::text(&mut args)?.parse()?),
            Long("store") => options.common.take("store", &mut args)?,
            Value(command) if options.command.is_none() => options.command = Some(support::argument(command)?),
            Value(id) if options.id.is_none() && options.command.as_deref() == Some("forget") => {
                options.id = Some(support::argument(id)?);
            }
            other => return Err(other.unexpected().into()),
        }
    }
    Ok(Some(options))
}

/// Prints the working copies. One that is not at its directory may have been moved, or be visible to others only.
fn checkouts(store: &Store) -> support::Result {
    for checkout in store.checkouts()? {
        let state = match checkout.path.symlink_metadata() {
            _ if checkout.is_gone => "deleted",
            Ok(_) => "present",
            Err(_) => "unseen",
        };
        support::print(&format!("{}  {state:<7}  {}", checkout.id, checkout.path.display()))?;
    }
    Ok(())
}

fn gc(store: &Store, options: &GcOptions) -> support::Result {
    let collected = store.gc_with(options)?;
    for name in &collected.untagged {
        support::print(&format!("Untagged: {}", name.familiar()))?;
    }
    for digest in &collected.blobs {
        support::print(&format!("Deleted: {digest}"))?;
    }
    let (partials, unpacked) = (collected.partials, collected.unpacked);
    let blobs = collected.blobs.len();
    support::print(&format!("{blobs} blobs, {partials} unfinished, {unpacked} unpacked layers"))?;
    support::print(&format!("Total reclaimed space: {}", human::size(collected.bytes)))
}

fn check(store: &Store) -> support::Result {
    let checked = store.check()?;
    if let Some(reason) = &checked.ignored {
        support::print(&format!("not used: layercake: {reason}"))?;
    }
    if checked.unverified > 0 {
        support::print(&format!("not verified: {} unpacked layers", checked.unverified))?;
    }
    found(&checked.problems)
}

/// Prints what is wrong; that anything is, is an error.
fn found(problems: &[Problem]) -> support::Result {
    for problem in problems {
        support::print(&problem.to_string())?;
    }
    match problems.len() {
        0 => support::print("nothing is wrong"),
        1 => Err("1 problem".into()),
        count => Err(format!("{count} problems").into()),
    }
}

#[cfg(feature = "registry")]
fn repair(store: &Store) -> layercake::Result<Repaired> {
    layercake::Registry::new().repair().of(store)
}

#[cfg(not(feature = "registry"))]
fn repair(store: &Store) -> layercake::Result<Repaired> {
    store.repair()
}

fn repaired(repaired: &Repaired) -> support::Result {
    for problem in &repaired.found {
        support::print(&format!("Found: {problem}"))?;
    }
    for (from, to) in &repaired.quarantined {
        support::print(&format!("Moved: {from} to {to}"))?;
    }
    for name in &repaired.names {
        support::print(&format!("Named: {}", name.familiar()))?;
    }
    found(&repaired.remaining)
}

fn usage(store: &Store) -> support::Result {
    let usage = store.usage()?;
    let heads = ["NAME", "DIGEST", "CONTENT", "SHARED", "UNIQUE", "UNPACKED", "RECLAIMABLE"];
    let mut table = vec![heads.map(str::to_owned).to_vec()];
    for image in &usage.images {
        let sizes = [image.content, image.shared, image.unique, image.unpacked, image.reclaimable].map(human::size);
        for name in &image.names {
            let row = [name.familiar(), image.root.digest.short().to_string()].into_iter().chain(sizes.clone());
            table.push(row.collect());
        }
    }
    support::print_table(&table)?;
    let [bytes, unreferenced, partial, unpacked] =
        [usage.bytes, usage.unreferenced, usage.partial, usage.unpacked].map(human::size);
    let blobs = usage.blobs;
    support::print(&format!(
        "{blobs} blobs, {bytes}, {unreferenced} without a name; unfinished {partial}; unpacked {unpacked}"
    ))
}
