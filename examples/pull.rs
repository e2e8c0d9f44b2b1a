//! `docker pull`: from a registry into a store.
//!
//! Without a name it starts a registry in this process, with a small image for two platforms, and pulls that.

#[path = "support/login.rs"]
mod login;
mod support;
#[path = "support/transcript.rs"]
mod transcript;

use std::process::ExitCode;

use layercake::Durability;
use layercake::Error;
use layercake::ErrorKind;
use layercake::ImageReference;
use layercake::Registry;
use layercake::Store;
use layercake::testing;
use layercake::transfer::PullPolicy;
use lexopt::prelude::*;
use login::Client;
use transcript::Transcript;

const USAGE: &str = "usage: pull [--store DIR] [--platform OS/ARCH[/VARIANT]] [--policy always|missing|never] \
                     [--jobs N] [--no-sync] [--quiet]";

#[derive(Default)]
struct Options {
    common: support::Common,
    client: Client,
    name: Option<String>,
    policy: PullPolicy,
    jobs: Option<usize>,
    durability: Durability,
    quiet: bool,
}

fn main() -> ExitCode {
    support::run(pull)
}

fn pull() -> support::Result {
    let Some(options) = parse()? else { return support::print(&format!("{USAGE} {} [NAME]", login::USAGE)) };
    let store = Store::open_or_create_with(options.common.store_path()?, options.durability)?;
    let demo = if options.name.is_none() { Some(Demo::start()?) } else { None };
    let name = options.name.clone().or(demo.as_ref().map(|demo| demo.name())).unwrap_or_default();
    let image: ImageReference = name.parse()?;
    if image.tag().is_none() && image.digest().is_none() && !options.quiet {
        println!("Using default tag: latest");
    }
    let image = image.or_latest();
    let registry = if demo.is_some() { Registry::new() } else { options.client.registry(image.host())? };
    let transcript = Transcript::new(&image, options.quiet);
    let mut pull = registry.pull(&image).policy(options.policy).observer(&transcript);
    if let Some(platform) = options.common.platform {
        pull = pull.platform(platform);
    }
    if let Some(jobs) = options.jobs {
        pull = pull.jobs(jobs);
    }
    let pulled = pull.to(&store).map_err(|error| in_dockers_words(&image, &error))?;
    Ok(transcript.finish(&pulled)?)
}

fn parse() -> support::Result<Option<Options>> {
    let mut options = Options::default();
    let mut args = lexopt::Parser::from_env();
    while let Some(arg) = args.next()? {
        match arg {
            Long("help") | Short('h') => return Ok(None),
            Long("policy") => options.policy = policy(&support::text(&mut args)?)?,
            Long("jobs") => options.jobs = Some(args.value()?.parse()?),
            Long("no-sync") => options.durability = Durability::None,
            Long("quiet") | Short('q') => options.quiet = true,
            Short('u') => drop(options.client.take("username", &mut args)?),
            Long(option) => {
                let option = option.to_owned();
                if !options.client.take(&option, &mut args)? {
                    options.common.take(&option, &mut args)?;
                }
            }
            Value(name) if options.name.is_none() => options.name = Some(support::argument(name)?),
            other => return Err(other.unexpected().into()),
        }
    }
    Ok(Some(options))
}

fn policy(text: &str) -> support::Result<PullPolicy> {
    match text {
        "always" => Ok(PullPolicy::Always),
        "missing" => Ok(PullPolicy::IfMissing),
        "never" => Ok(PullPolicy::Never),
        other => Err(format!("unknown policy {other:?}: always, missing or never").into()),
    }
}

/// What Docker's users look for, and then what really happened.
fn in_dockers_words(image: &ImageReference, error: &Error) -> String {
    let name = image.familiar();
    match error.kind() {
        // Of a layer, or of a token server, it would send the user after the wrong cause.
        ErrorKind::Registry(refusal) if !refusal.url.contains("/manifests/") => error.to_string(),
        ErrorKind::Registry(refusal)
            if matches!(refusal.status, 401 | 403) || (refusal.status == 404 && refusal.has_code("NAME_UNKNOWN")) =>
        {
            let name = image.familiar_repository();
            format!("pull access denied for {name}, repository does not exist or may require 'docker login': {error}")
        }
        ErrorKind::Registry(refusal) if refusal.status == 404 => format!("manifest for {name} not found: {error}"),
        _ => error.to_string(),
    }
}

/// A registry in this process, with an image in it.
struct Demo {
    server: testing::Registry,
    _directory: tempfile::TempDir,
}

impl Demo {
    fn start() -> support::Result<Demo> {
        let directory = tempfile::tempdir()?;
        let store = Store::create_with(directory.path().join("served"), Durability::None)?;
        testing::Fixture::demo().tag(&store, &"layercake/demo".parse()?)?;
        // The same address each time, if it is free, so that the second run finds the image up to date.
        let server = testing::Registry::start_at(&store, ([127, 0, 0, 1], 5055).into())
            .or_else(|_| testing::Registry::start(&store))?;
        Ok(Demo { server, _directory: directory })
    }

    fn name(&self) -> String {
        format!("{}/layercake/demo", self.server.host())
    }
}
