//! What the examples share: common options, errors, tables. Beside it lie parts that only some need.

#![allow(dead_code, reason = "each example uses a part of this")]

use std::error::Error as StdError;
use std::io;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use layercake::Image;
use layercake::ImageReference;
use layercake::Platform;
use layercake::Store;
use layercake::store::Name;

pub type Result<T = ()> = std::result::Result<T, Box<dyn StdError>>;

/// Runs an example: exit status 0, or 1 with one `error:` line. A reader that has seen enough (`| head`) is no error.
pub fn run(example: fn() -> Result) -> ExitCode {
    match example() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_broken_pipe(&*error) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "error: {}", printable(&error.to_string()));
            ExitCode::FAILURE
        }
    }
}

fn is_broken_pipe(error: &(dyn StdError + 'static)) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// The options that all examples have.
#[derive(Default)]
pub struct Common {
    store: Option<PathBuf>,
    pub platform: Option<Platform>,
}

impl Common {
    /// Takes the option, which is one of these or a mistake.
    pub fn take(&mut self, option: &str, args: &mut lexopt::Parser) -> Result {
        match option {
            "store" => self.store = Some(args.value()?.into()),
            "platform" => self.platform = Some(text(args)?.parse()?),
            _ => return Err(lexopt::Arg::Long(option).unexpected().into()),
        }
        Ok(())
    }

    /// `--store`, `$LAYERCAKE_STORE`, or `layercake` in the user's data directory.
    pub fn store_path(&self) -> Result<PathBuf> {
        let given = self.store.clone().or_else(|| std::env::var_os("LAYERCAKE_STORE").map(PathBuf::from));
        let path = given.or_else(|| dirs::data_dir().map(|data| data.join("layercake")));
        path.ok_or_else(|| "there is no home directory: say --store DIR".into())
    }

    pub fn store(&self) -> Result<Store> {
        Ok(Store::open(self.store_path()?)?)
    }

    /// An image of the store: by its name as a reference, or as another tool wrote it.
    pub fn image(&self, name: &str) -> Result<Image> {
        let (store, name) = (self.store()?, name_of(name));
        Ok(match &self.platform {
            Some(platform) => store.image_for(name, platform)?,
            None => store.image(name)?,
        })
    }
}

/// What a text calls an image of a store: a reference, or what another tool wrote.
pub fn name_of(text: &str) -> Name {
    match text.parse::<ImageReference>() {
        Ok(reference) => Name::Reference(reference),
        Err(_) => Name::Verbatim(text.to_owned()),
    }
}

/// The value of an option, as text.
pub fn text(args: &mut lexopt::Parser) -> Result<String> {
    Ok(args.value()?.into_string().map_err(|value| format!("{value:?} is not UTF-8"))?)
}

/// An argument that is no option, as text.
pub fn argument(value: std::ffi::OsString) -> Result<String> {
    Ok(value.into_string().map_err(|value| format!("{value:?} is not UTF-8"))?)
}

pub fn print(text: &str) -> Result {
    Ok(writeln!(io::stdout(), "{text}")?)
}

/// Says on stderr what went wrong and is no reason to stop.
pub fn warn(text: &str) {
    let _ = writeln!(io::stderr(), "warning: {}", printable(text));
}

/// Names in a layout come from anywhere: a terminal must not take them for commands.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// Prints rows as Docker does: columns of ten cells at least, three between.
pub fn print_table(rows: &[Vec<String>]) -> io::Result<()> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count() + 3).max().unwrap_or(0).max(10);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = io::BufWriter::new(io::stdout().lock());
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{:<width$}", printable(cell)));
        let line: String = cells.collect();
        writeln!(out, "{}", line.trim_end())?;
    }
    out.flush()
}
