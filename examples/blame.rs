//! `git blame` for images: which layer touched a path last.
//!
//! ```sh
//! blame debian:12 /etc/debian_version
//! blame --all localhost:5000/app:1 /usr/bin/app
//! ```

#[path = "support/letter.rs"]
mod letter;
mod support;

use std::process::ExitCode;

use layercake::image::Blame;
use lexopt::prelude::*;

const USAGE: &str = "usage: blame [--store DIR] [--platform OS/ARCH[/VARIANT]] [--all] NAME PATH";

fn main() -> ExitCode {
    support::run(blame)
}

fn blame() -> support::Result {
    let mut common = support::Common::default();
    let (mut name, mut path, mut all) = (None, None, false);
    let mut args = lexopt::Parser::from_env();
    while let Some(arg) = args.next()? {
        match arg {
            Long("help") | Short('h') => return support::print(USAGE),
            Long("all") => all = true,
            Long(option) => {
                let option = option.to_owned();
                common.take(&option, &mut args)?;
            }
            Value(value) if name.is_none() => name = Some(support::argument(value)?),
            Value(value) if path.is_none() => path = Some(value),
            other => return Err(other.unexpected().into()),
        }
    }
    let (Some(name), Some(path)) = (name, path) else { return Err(USAGE.into()) };
    let image = common.image(&name)?;
    let mut found = vec![image.blame(&path)?];
    if all {
        found = image.history_of(&path)?;
    }
    let mut table = vec![["CHANGE", "LAYER", "DIGEST", "CREATED BY"].map(str::to_owned).to_vec()];
    table.extend(found.iter().map(row));
    Ok(support::print_table(&table)?)
}

fn row(blame: &Blame) -> Vec<String> {
    let digest = blame.step.layer.as_ref().map(|layer| layer.digest().short().to_string());
    let command = blame.step.history.created_by.clone().unwrap_or_default().replace('\t', " ");
    vec![letter::of(blame.kind).to_string(), (blame.index + 1).to_string(), digest.unwrap_or_default(), command]
}
