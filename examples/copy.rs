//! `docker buildx imagetools create`, or `skopeo copy --all`: from anywhere to anywhere, with every image of an index.
//!
//! ```sh
//! copy alpine:3.20 registry.example.com/mirror/alpine:3.20
//! copy alpine:3.20 oci:/srv/images:alpine:3.20
//! copy --username alice --password-stdin oci:/srv/images:alpine:3.20 quay.io/alice/alpine < password
//! ```
//!
//! SOURCE and DEST are names on registries, or `oci:DIR:NAME`: a name in an OCI image layout, which is made if it is
//! DEST. Credentials are those that `docker login` and `podman login` left for each host. What the options say is for
//! DEST's host; if DEST is a layout, for SOURCE's. The digest is printed.

#[path = "support/login.rs"]
mod login;
#[path = "support/screen.rs"]
mod screen;
mod support;

use std::process::ExitCode;

use layercake::Event;
use layercake::ImageReference;
use layercake::Registry;
use layercake::Store;
use layercake::store::Name;
use layercake::transfer::copy;
use lexopt::prelude::*;
use login::Client;
use screen::Screen;

const USAGE: &str = "usage: copy [--jobs N] [--quiet]";

#[derive(Default)]
struct Options {
    client: Client,
    jobs: Option<usize>,
    quiet: bool,
    ends: Vec<String>,
}

enum End {
    Registry(Registry, ImageReference),
    Layout(Store, Name),
}

fn main() -> ExitCode {
    support::run(run)
}

fn run() -> support::Result {
    let usage = format!("{USAGE} {} SOURCE DEST", login::USAGE);
    let Some(options) = parse()? else { return support::print(&usage) };
    let [source, target] = &options.ends[..] else { return Err(usage.into()) };
    let host = host(target)?.or(host(source)?);
    let others = Client::default();
    let client = |of: &str| if host.as_deref() == Some(of) { options.client.registry(of) } else { others.registry(of) };
    let source = end(source, |directory| Store::open(directory), client)?;
    let target = end(target, |directory| Store::open_or_create(directory), client)?;
    let screen = Screen::new(options.quiet);
    let show = |event: &Event<'_>| show(&screen, event);
    let transfer = match &source {
        End::Registry(registry, name) => copy((registry, name)),
        End::Layout(store, name) => copy((store, name)),
    };
    let transfer = transfer.jobs(options.jobs.unwrap_or(4)).observer(&show);
    let copied = match &target {
        End::Registry(registry, name) => transfer.to((registry, name)),
        End::Layout(store, Name::Reference(name)) => transfer.to((store, name)),
        End::Layout(_, other) => return Err(format!("{} is no name of an image", other.familiar()).into()),
    }?;
    screen.clear()?;
    support::print(&copied.root.digest.to_string())
}

fn parse() -> support::Result<Option<Options>> {
    let mut options = Options::default();
    let mut args = lexopt::Parser::from_env();
    while let Some(arg) = args.next()? {
        match arg {
            Long("help") | Short('h') => return Ok(None),
            Long("jobs") => options.jobs = Some(args.value()?.parse()?),
            Long("quiet") | Short('q') => options.quiet = true,
            Long(option) => {
                let option = option.to_owned();
                if !options.client.take(&option, &mut args)? {
                    return Err(Long(&option).unexpected().into());
                }
            }
            Value(end) if options.ends.len() < 2 => options.ends.push(support::argument(end)?),
            other => return Err(other.unexpected().into()),
        }
    }
    Ok(Some(options))
}

/// The registry's host of a name; none of a layout.
fn host(text: &str) -> support::Result<Option<String>> {
    if text.starts_with("oci:") { Ok(None) } else { Ok(Some(text.parse::<ImageReference>()?.host().to_owned())) }
}

fn end(
    text: &str,
    open: impl FnOnce(&str) -> layercake::Result<Store>,
    client: impl FnOnce(&str) -> support::Result<Registry>,
) -> support::Result<End> {
    let Some(layout) = text.strip_prefix("oci:") else {
        let name: ImageReference = text.parse()?;
        return Ok(End::Registry(client(name.host())?, name));
    };
    let (directory, name) = layout.split_once(':').ok_or_else(|| format!("{text:?} has no name: oci:DIR:NAME"))?;
    Ok(End::Layout(open(directory)?, support::name_of(name)))
}

fn show(screen: &Screen, event: &Event<'_>) {
    match event {
        Event::Started { blob, .. } => screen.start(blob, "Copying"),
        Event::Progress { blob, bytes } => screen.advance(blob, *bytes),
        Event::Finished { blob } => screen.finish(blob, "Copied"),
        Event::Warning { text } => screen.warn(text),
        _ => {}
    }
}
