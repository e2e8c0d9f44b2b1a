//! `docker images`: what is in a store.

#[path = "support/human.rs"]
mod human;
mod support;

use std::collections::HashSet;
use std::io;
use std::io::Write;
use std::process::ExitCode;
use std::time::SystemTime;

use layercake::Image;
use layercake::store::Name;
use lexopt::prelude::*;
use serde_json::json;

const USAGE: &str = "usage: images [--store DIR] [--digests] [--no-trunc] [--quiet] [--json] [FILTER]";

#[derive(Default)]
struct Options {
    common: support::Common,
    digests: bool,
    no_trunc: bool,
    quiet: bool,
    json: bool,
    filter: Option<glob::Pattern>,
}

struct Row {
    repository: Option<String>,
    tag: Option<String>,
    image: Image,
    created: Option<SystemTime>,
    size: Option<u64>,
}

fn main() -> ExitCode {
    support::run(images)
}

fn images() -> support::Result {
    let Some(options) = parse()? else { return support::print(USAGE) };
    let mut rows = Vec::new();
    for entry in options.common.store()?.images()? {
        match entry {
            Ok((name, image)) if selected(&options, &name) => rows.push(row(&name, image)),
            Ok(_) => {}
            Err(error) => support::warn(&error.to_string()),
        }
    }
    drop_digests_of_tagged(&mut rows);
    rows.sort_by(|a, b| {
        let newest_first = b.created.cmp(&a.created);
        newest_first.then_with(|| a.repository.cmp(&b.repository)).then_with(|| a.tag.cmp(&b.tag))
    });
    Ok(print(&options, &rows)?)
}

fn parse() -> support::Result<Option<Options>> {
    let mut options = Options::default();
    let mut args = lexopt::Parser::from_env();
    while let Some(arg) = args.next()? {
        match arg {
            Long("help") | Short('h') => return Ok(None),
            Long("digests") => options.digests = true,
            Long("no-trunc") => options.no_trunc = true,
            Long("quiet") | Short('q') => options.quiet = true,
            Long("json") => options.json = true,
            Long(option) => {
                let option = option.to_owned();
                options.common.take(&option, &mut args)?;
            }
            Value(filter) if options.filter.is_none() => {
                options.filter = Some(glob::Pattern::new(&support::argument(filter)?)?);
            }
            other => return Err(other.unexpected().into()),
        }
    }
    Ok(Some(options))
}

/// Docker's `reference` filter: a pattern for the familiar or the canonical name, with or without the tag.
fn selected(options: &Options, name: &Name) -> bool {
    let Some(filter) = &options.filter else { return true };
    let mut spellings = vec![name.familiar(), name.to_string()];
    if let Some(reference) = name.reference() {
        spellings.extend([reference.familiar_repository(), reference.without_tag().to_string()]);
    }
    let exact = glob::MatchOptions { require_literal_separator: true, ..glob::MatchOptions::default() };
    spellings.iter().any(|spelling| filter.matches_with(spelling, exact))
}

/// An image that was pulled by tag and by digest is one row, the tag's.
fn drop_digests_of_tagged(rows: &mut Vec<Row>) {
    let key = |row: &Row| (row.repository.clone(), row.image.id());
    let tagged: HashSet<_> = rows.iter().filter(|row| row.tag.is_some()).map(key).collect();
    rows.retain(|row| row.tag.is_some() || row.repository.is_none() || !tagged.contains(&key(row)));
}

fn row(name: &Name, image: Image) -> Row {
    let (repository, tag) = name.columns();
    let created = image.config().and_then(|config| config.created()).ok().flatten();
    let size = match image.config() {
        Ok(_) => image.unpacked_size().map_err(|error| support::warn(&format!("{name}: {error}"))).ok(),
        Err(_) => Some(image.size()),
    };
    Row { repository, tag, image, created, size }
}

fn print(options: &Options, rows: &[Row]) -> io::Result<()> {
    let id = |row: &Row| if options.no_trunc { row.image.id().to_string() } else { row.image.id().short().to_string() };
    if options.json {
        return print_json(rows);
    }
    if options.quiet {
        let mut out = io::stdout().lock();
        return rows.iter().try_for_each(|row| writeln!(out, "{}", id(row)));
    }
    let now = SystemTime::now();
    let none = |text: &Option<String>| text.clone().unwrap_or_else(|| "<none>".to_owned());
    let mut table = vec![["REPOSITORY", "TAG", "DIGEST", "IMAGE ID", "CREATED", "SIZE"].map(str::to_owned).to_vec()];
    table.extend(rows.iter().map(|row| {
        let size = row.size.map_or_else(|| "N/A".to_owned(), human::size);
        let digest = row.image.root().digest.to_string();
        vec![none(&row.repository), none(&row.tag), digest, id(row), human::age(row.created, now), size]
    }));
    if !options.digests {
        table.iter_mut().for_each(|row| drop(row.remove(2)));
    }
    support::print_table(&table)
}

fn print_json(rows: &[Row]) -> io::Result<()> {
    let seconds = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).map(|since| since.as_secs()).ok();
    let rows = rows.iter().map(|row| {
        json!({
            "repository": row.repository, "tag": row.tag, "digest": row.image.root().digest, "id": row.image.id(),
            "created": row.created.and_then(seconds), "size": row.size, "contentSize": row.image.size(),
            "platform": row.image.platform().map(|platform| platform.to_string()),
        })
    });
    writeln!(io::stdout(), "{:#}", serde_json::Value::from_iter(rows))
}
