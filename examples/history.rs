//! `docker history`: how an image was made, newest step first.
//!
//! ```sh
//! history ubuntu
//! history --no-trunc --quiet localhost:5000/app:1
//! ```

#[path = "support/human.rs"]
mod human;
mod support;

use std::process::ExitCode;
use std::time::Duration;
use std::time::SystemTime;

use layercake::Image;
use layercake::image::Step;
use lexopt::prelude::*;

const USAGE: &str = "usage: history [--store DIR] [--platform OS/ARCH[/VARIANT]] [--no-trunc] [--quiet] NAME";
/// How many characters of a command are shown.
const CELLS: usize = 45;

fn main() -> ExitCode {
    support::run(history)
}

fn history() -> support::Result {
    let mut common = support::Common::default();
    let (mut name, mut no_trunc, mut quiet) = (None, false, false);
    let mut args = lexopt::Parser::from_env();
    while let Some(arg) = args.next()? {
        match arg {
            Long("help") | Short('h') => return support::print(USAGE),
            Long("no-trunc") => no_trunc = true,
            Long("quiet") | Short('q') => quiet = true,
            Long(option) => {
                let option = option.to_owned();
                common.take(&option, &mut args)?;
            }
            Value(value) if name.is_none() => name = Some(support::argument(value)?),
            other => return Err(other.unexpected().into()),
        }
    }
    let image = common.image(&name.ok_or(USAGE)?)?;
    let steps = image.history()?;
    let ids = (0..steps.len()).map(|n| if n == 0 { id(&image, no_trunc) } else { "<missing>".to_owned() });
    if quiet {
        return ids.into_iter().try_for_each(|id| support::print(&id));
    }
    let mut table = vec![["IMAGE", "CREATED", "CREATED BY", "SIZE", "COMMENT"].map(str::to_owned).to_vec()];
    for (id, step) in ids.zip(steps.iter().rev()) {
        let command = command(step, no_trunc);
        let comment = step.history.comment.clone().unwrap_or_default();
        table.push(vec![id, age(step)?, command, human::size(step.size()?), comment]);
    }
    Ok(support::print_table(&table)?)
}

fn id(image: &Image, no_trunc: bool) -> String {
    if no_trunc { image.id().to_string() } else { image.id().short().to_string() }
}

/// Docker says of the last century that nothing is known.
fn age(step: &Step) -> support::Result<String> {
    let century = SystemTime::UNIX_EPOCH + Duration::from_secs(946_684_800);
    let created = step.history.time()?.filter(|time| *time > century);
    Ok(human::age(created, SystemTime::now()))
}

fn command(step: &Step, no_trunc: bool) -> String {
    let command = step.history.created_by.clone().unwrap_or_default().replace('\t', " ");
    if no_trunc || command.chars().count() <= CELLS {
        return command;
    }
    command.chars().take(CELLS - 1).chain(['…']).collect()
}
