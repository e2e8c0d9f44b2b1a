//! Makes a root file system of an image: `unpack alpine /srv/jail/rootfs`.
//!
//! With `--pull`, an image that the store does not have is pulled, and unpacked while it arrives. With `--no-sync`, a
//! power cut soon after may leave a tree of empty files, and may take from the store what was pulled.
//!
//! Setuid programs and devices of the image that other users of this machine can reach are listed on stderr. They
//! cannot reach any if the directory above DIR is missing, as it is made for this user alone. `--no-setuid` and
//! `--no-devices` leave them out.
//!
//! The store may be any OCI image layout; NAME is then what its `index.json` has as `ref.name`. Exit status 0 means:
//! the tree is exactly what the layers say, or what was left out is listed.

#[cfg(feature = "registry")]
#[allow(dead_code, reason = "who signs in here does so as docker login left it")]
#[path = "support/login.rs"]
mod login;
mod support;

use std::io;
use std::io::IsTerminal;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;
use std::process::ExitCode;

use indicatif::ProgressBar;
use indicatif::ProgressStyle;
use layercake::Durability;
use layercake::Event;
#[cfg(feature = "registry")]
use layercake::ImageReference;
#[cfg(feature = "registry")]
use layercake::Store;
use layercake::changeset::Layout;
use layercake::changeset::Limits;
use layercake::changeset::Options;
use layercake::changeset::Ownership;
use layercake::changeset::Unpacked;
#[cfg(feature = "registry")]
use layercake::transfer::PullPolicy;
use lexopt::prelude::*;

const USAGE: &str = "usage: unpack [--store DIR] [--platform OS/ARCH[/VARIANT]] [--pull] [--no-sync] [--rootless] \
                     [--layout flat|overlay] [--strict] [--no-setuid] [--no-devices] [--max-unpacked-bytes N] \
                     [--max-file-bytes N] [--max-entries N] [--max-layers N] [--quiet] NAME DIR";

fn main() -> ExitCode {
    support::run(unpack)
}

fn unpack() -> support::Result {
    let mut common = support::Common::default();
    let mut options = Options::new();
    let mut limits = Limits::default();
    let (mut quiet, mut pull) = (false, false);
    let mut durability = Durability::default();
    let mut name = None;
    let mut target: Option<PathBuf> = None;
    let mut args = lexopt::Parser::from_env();
    while let Some(arg) = args.next()? {
        match arg {
            Long("help") | Short('h') => return support::print(USAGE),
            Long("pull") => pull = true,
            Long("no-sync") => durability = Durability::None,
            Long("no-setuid") => options = options.setuid(false),
            Long("no-devices") => options = options.devices(false),
            Long("rootless") => options = options.ownership(Ownership::CurrentUser),
            Long("layout") => options = options.layout(layout(&support::text(&mut args)?)?),
            Long("strict") => options = options.strict(true),
            Long("max-unpacked-bytes") => limits.unpacked_bytes = args.value()?.parse()?,
            Long("max-file-bytes") => limits.file_bytes = args.value()?.parse()?,
            Long("max-entries") => limits.entries = args.value()?.parse()?,
            Long("max-layers") => limits.layers = args.value()?.parse()?,
            Long("quiet") | Short('q') => quiet = true,
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
    let bar = bar(quiet);
    let show = |event: &Event<'_>| show(&bar, event);
    let options = options.limits(limits).durability(durability).observer(&show);
    let done = if pull {
        pull_and_unpack(&common, durability, &name, &target, &options)
    } else {
        from_store(&common, &name, &target, &options)
    };
    bar.finish_and_clear();
    let done = done?;
    let mut out = io::stdout().lock();
    for skipped in &done.skipped {
        writeln!(out, "skipped: {skipped}")?;
    }
    for path in &done.duplicates {
        writeln!(out, "comes twice in one layer: {}", support::printable(&path.to_string_lossy()))?;
    }
    for exposed in &done.exposed {
        eprintln!("exposed: {exposed}");
    }
    if done.has_more_exposed {
        eprintln!("exposed: and more");
    }
    if !quiet {
        writeln!(out, "{} entries, {} bytes, {} skipped", done.entries, done.bytes, done.skipped.len())?;
    }
    Ok(())
}

fn from_store(common: &support::Common, name: &str, target: &Path, options: &Options<'_>) -> support::Result<Unpacked> {
    Ok(common.image(name)?.unpack_with(target, options)?)
}

/// In one pass, if the store does not have the image.
#[cfg(feature = "registry")]
fn pull_and_unpack(
    common: &support::Common,
    durability: Durability,
    name: &str,
    target: &Path,
    options: &Options<'_>,
) -> support::Result<Unpacked> {
    let image = name.parse::<ImageReference>()?.or_latest();
    let store = Store::open_or_create_with(common.store_path()?, durability)?;
    let registry = login::Client::default().registry(image.host())?;
    let mut pull = registry.pull(&image).policy(PullPolicy::IfMissing);
    if let Some(platform) = &common.platform {
        pull = pull.platform(platform.clone());
    }
    Ok(pull.unpack_with(&store, target, options)?.unpacked)
}

#[cfg(not(feature = "registry"))]
fn pull_and_unpack(
    _: &support::Common,
    _: Durability,
    _: &str,
    _: &Path,
    _: &Options<'_>,
) -> support::Result<Unpacked> {
    Err("--pull: the feature `registry` is not built in".into())
}

fn layout(text: &str) -> support::Result<Layout> {
    match text {
        "flat" => Ok(Layout::Flat),
        "overlay" => Ok(Layout::Overlay),
        other => Err(format!("unknown layout {other:?}: flat or overlay").into()),
    }
}

/// On a terminal: how much of the blobs was unpacked.
fn bar(quiet: bool) -> ProgressBar {
    if quiet || !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{spinner} {bytes} {msg}");
    ProgressBar::no_length().with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// The bar's position is of the layers before the one at hand, which its prefix keeps, and of this one.
fn show(bar: &ProgressBar, event: &Event<'_>) {
    let before = || bar.prefix().parse().unwrap_or(0);
    match event {
        Event::Unpacking { entries, bytes, .. } => {
            bar.set_position(before() + bytes);
            if entries % 64 == 0 {
                bar.set_message(format!("{entries} entries"));
            }
        }
        Event::Unpacked { layer } => bar.set_prefix((before() + layer.size).to_string()),
        _ => {}
    }
}
