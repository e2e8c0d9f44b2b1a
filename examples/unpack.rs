//! Makes a root file system of an image: `unpack alpine /srv/jail/rootfs`.
//!
//! The store may be any OCI image layout; NAME is then what its `index.json` has as `ref.name`. Exit status 0 means:
//! the tree is exactly what the layers say, or what was left out is listed.

mod support;

use std::io;
use std::io::IsTerminal;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use indicatif::ProgressBar;
use indicatif::ProgressStyle;
use layercake::Event;
use layercake::changeset::Layout;
use layercake::changeset::Limits;
use layercake::changeset::Options;
use layercake::changeset::Ownership;
use lexopt::prelude::*;

const USAGE: &str = "usage: unpack [--store DIR] [--platform OS/ARCH[/VARIANT]] [--rootless] [--layout flat|overlay] \
                     [--strict] [--sync] [--max-unpacked-bytes N] [--max-file-bytes N] [--max-entries N] \
                     [--max-layers N] [--quiet] NAME DIR";

fn main() -> ExitCode {
    support::run(unpack)
}

fn unpack() -> support::Result {
    let mut common = support::Common::default();
    let mut options = Options::new();
    let mut limits = Limits::default();
    let mut quiet = false;
    let mut name = None;
    let mut target: Option<PathBuf> = None;
    let mut args = lexopt::Parser::from_env();
    while let Some(arg) = args.next()? {
        match arg {
            Long("help") | Short('h') => return support::print(USAGE),
            Long("rootless") => options = options.ownership(Ownership::CurrentUser),
            Long("layout") => options = options.layout(layout(&support::text(&mut args)?)?),
            Long("strict") => options = options.strict(true),
            Long("sync") => options = options.sync(true),
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
    let image = common.image(&name)?;
    let bar = bar(image.manifest().layers().iter().map(|layer| layer.size).sum(), quiet);
    let show = |event: &Event<'_>| show(&bar, event);
    let done = image.unpack_with(target, &options.limits(limits).observer(&show));
    bar.finish_and_clear();
    let done = done?;
    let mut out = io::stdout().lock();
    for skipped in &done.skipped {
        writeln!(out, "skipped: {skipped}")?;
    }
    for path in &done.duplicates {
        writeln!(out, "comes twice in one layer: {}", support::printable(&path.to_string_lossy()))?;
    }
    if !quiet {
        writeln!(out, "{} entries, {} bytes, {} skipped", done.entries, done.bytes, done.skipped.len())?;
    }
    Ok(())
}

fn layout(text: &str) -> support::Result<Layout> {
    match text {
        "flat" => Ok(Layout::Flat),
        "overlay" => Ok(Layout::Overlay),
        other => Err(format!("unknown layout {other:?}: flat or overlay").into()),
    }
}

/// On a terminal: how much of the blobs was unpacked.
fn bar(bytes: u64, quiet: bool) -> ProgressBar {
    if quiet || !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{wide_bar} {bytes}/{total_bytes} {msg}");
    ProgressBar::new(bytes).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
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
