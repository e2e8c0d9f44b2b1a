//! `docker save`: images of a store as an archive, the same bytes each time.
//!
//! ```sh
//! save alpine:3.20 busybox | docker load
//! save --format oci -o images.tar alpine:3.20
//! ```

mod support;

use std::fs;
use std::io;
use std::io::BufWriter;
use std::io::IsTerminal;
use std::path::Path;
use std::path::PathBuf;
use std::process::ExitCode;

use layercake::archive;
use layercake::archive::Format;
use layercake::archive::Save;
use lexopt::prelude::*;

const USAGE: &str = "usage: save [--store DIR] [--platform OS/ARCH[/VARIANT]] [-o FILE] [--format docker|oci] NAME…";

fn main() -> ExitCode {
    support::run(save)
}

fn save() -> support::Result {
    let mut common = support::Common::default();
    let mut format = Format::Docker;
    let mut output: Option<PathBuf> = None;
    let mut names = Vec::new();
    let mut args = lexopt::Parser::from_env();
    while let Some(arg) = args.next()? {
        match arg {
            Long("help") | Short('h') => return support::print(USAGE),
            Long("format") => format = format_of(&support::text(&mut args)?)?,
            Long("output") | Short('o') => output = Some(args.value()?.into()),
            Long(option) => {
                let option = option.to_owned();
                common.take(&option, &mut args)?;
            }
            Value(name) => names.push(support::name_of(&support::argument(name)?)),
            other => return Err(other.unexpected().into()),
        }
    }
    if names.is_empty() {
        return Err(USAGE.into());
    }
    let mut save = archive::save(&common.store()?, names).format(format);
    if let Some(platform) = common.platform {
        save = save.platform(platform);
    }
    match output {
        Some(path) => to_file(&save, &path),
        None if io::stdout().is_terminal() => {
            Err("an archive is nothing for a terminal: say -o FILE, or pipe it".into())
        }
        None => Ok(save.to(BufWriter::new(io::stdout().lock()))?),
    }
}

fn format_of(text: &str) -> support::Result<Format> {
    match text {
        "docker" | "docker-archive" => Ok(Format::Docker),
        "oci" | "oci-archive" => Ok(Format::Oci),
        other => Err(format!("unknown format {other:?}: docker or oci").into()),
    }
}

/// A file has its name when it is whole and on the disk. A pipe or a device has it already.
fn to_file(save: &Save<'_>, path: &Path) -> support::Result {
    let fail = |error: io::Error| format!("{}: {error}", path.display());
    if fs::metadata(path).is_ok_and(|found| !found.is_file()) {
        return Ok(save.to(fs::File::create(path).map_err(fail)?)?);
    }
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let aside = tempfile::NamedTempFile::new_in(directory).map_err(fail)?;
    save.to(aside.as_file())?;
    aside.as_file().sync_all().map_err(fail)?;
    aside.persist(path).map_err(|error| fail(error.error))?;
    Ok(fs::File::open(directory).and_then(|directory| directory.sync_all()).map_err(fail)?)
}
