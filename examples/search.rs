//! `docker search`: repositories on Docker Hub, or on another registry.
//!
//! ```sh
//! search nginx
//! search --filter is-official=true --filter stars=100 --limit 10 nginx
//! search --registry 127.0.0.1:5055 demo
//! ```
//!
//! A term may begin with its registry (`127.0.0.1:5055/demo`); `--registry` is for terms that do not. Filters leave out
//! some of what was found, and do not bring more.

#[path = "support/login.rs"]
mod login;
mod support;

use std::process::ExitCode;

use layercake::ImageReference;
use layercake::registry::Search;
use layercake::registry::SearchHit;
use lexopt::prelude::*;

const USAGE: &str = "usage: search [--limit N] [--filter is-official=true|false] [--filter is-automated=true|false] \
                     [--filter stars=N] [--no-trunc] [--registry HOST]";
/// How many cells a description gets.
const DESCRIPTION: usize = 45;

#[derive(Default)]
struct Options {
    client: login::Client,
    host: Option<String>,
    limit: usize,
    filters: Vec<String>,
    no_trunc: bool,
    term: Option<String>,
}

fn main() -> ExitCode {
    support::run(search)
}

fn search() -> support::Result {
    let usage = format!("{USAGE} {} TERM", login::USAGE);
    let Some(options) = parse()? else { return support::print(&usage) };
    let term = options.term.ok_or(usage)?;
    let named = term.parse().map_or_else(|_| "docker.io".to_owned(), |name: ImageReference| name.host().to_owned());
    let registry = options.client.registry(options.host.as_ref().unwrap_or(&named))?;
    let search = registry.search(&term).limit(options.limit);
    let search = options.host.iter().fold(search, |search, host| search.host(host));
    let hits = options.filters.iter().try_fold(search, filter)?.run()?;
    let mut table = vec![["NAME", "DESCRIPTION", "STARS", "OFFICIAL", "AUTOMATED"].map(str::to_owned).to_vec()];
    table.extend(hits.iter().map(|hit| row(hit, options.no_trunc)));
    Ok(support::print_table(&table)?)
}

fn parse() -> support::Result<Option<Options>> {
    let mut options = Options::default();
    let mut args = lexopt::Parser::from_env();
    while let Some(arg) = args.next()? {
        match arg {
            Long("help") | Short('h') => return Ok(None),
            Long("limit") => options.limit = args.value()?.parse()?,
            Long("filter") | Short('f') => options.filters.push(support::text(&mut args)?),
            Long("no-trunc") => options.no_trunc = true,
            Long("registry") => options.host = Some(support::text(&mut args)?),
            Long(option) => {
                let option = option.to_owned();
                if !options.client.take(&option, &mut args)? {
                    return Err(Long(&option).unexpected().into());
                }
            }
            Value(term) if options.term.is_none() => options.term = Some(support::argument(term)?),
            other => return Err(other.unexpected().into()),
        }
    }
    Ok(Some(options))
}

fn filter(search: Search, filter: &String) -> support::Result<Search> {
    let invalid = || format!("invalid filter {filter:?}: is-official=true|false, is-automated=true|false or stars=N");
    match filter.split_once('=').ok_or_else(invalid)? {
        ("is-official", value) => Ok(search.official(value.parse().map_err(|_| invalid())?)),
        ("is-automated", value) => Ok(search.automated(value.parse().map_err(|_| invalid())?)),
        ("stars", value) => Ok(search.stars(value.parse().map_err(|_| invalid())?)),
        _ => Err(invalid().into()),
    }
}

fn row(hit: &SearchHit, no_trunc: bool) -> Vec<String> {
    let ok = |is: bool| if is { "[OK]".to_owned() } else { String::new() };
    let description = hit.description.replace(['\n', '\r'], " ");
    let description = if no_trunc { description } else { ellipsis(&description, DESCRIPTION) };
    vec![hit.name.clone(), description, hit.stars.to_string(), ok(hit.is_official), ok(hit.is_automated)]
}

/// As much of a text as fits into so many cells, with `…` at its end if that is not all.
fn ellipsis(text: &str, cells: usize) -> String {
    if text.chars().map(width).sum::<usize>() <= cells {
        return text.to_owned();
    }
    let mut left = cells - 1;
    let fits = |c: &char| left.checked_sub(width(*c)).inspect(|rest| left = *rest).is_some();
    text.chars().take_while(fits).chain(['…']).collect()
}

/// How many cells a character gets: two in the scripts of East Asia (Unicode, "East Asian Width").
fn width(c: char) -> usize {
    let is_wide = matches!(c, '\u{1100}'..='\u{115f}' | '\u{2e80}'..='\u{303e}' | '\u{3041}'..='\u{a4cf}'
        | '\u{ac00}'..='\u{d7a3}' | '\u{f900}'..='\u{faff}' | '\u{fe30}'..='\u{fe6f}' | '\u{ff01}'..='\u{ff60}'
        | '\u{ffe0}'..='\u{ffe6}' | '\u{1f300}'..='\u{1f64f}' | '\u{1f900}'..='\u{1f9ff}' | '\u{20000}'..='\u{3fffd}');
    if is_wide { 2 } else { 1 }
}
