//! `docker inspect`: an image's manifest, configuration and layers, as JSON.

mod support;

use std::io;
use std::io::Write;
use std::process::ExitCode;

use layercake::Layer;
use lexopt::prelude::*;
use serde::Serialize;
use serde_json::json;
use serde_json::value::RawValue;

const USAGE: &str = "usage: inspect [--store DIR] [--platform OS/ARCH[/VARIANT]] NAME";

/// Manifest and configuration as they came, to the last field.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Report<'a> {
    name: String,
    id: String,
    digest: String,
    root: String,
    platform: Option<String>,
    manifest: &'a RawValue,
    config: Option<&'a RawValue>,
    layers: Vec<serde_json::Value>,
}

fn main() -> ExitCode {
    support::run(inspect)
}

fn inspect() -> support::Result {
    let mut common = support::Common::default();
    let mut name = None;
    let mut args = lexopt::Parser::from_env();
    while let Some(arg) = args.next()? {
        match arg {
            Long("help") | Short('h') => return support::print(USAGE),
            Long(option) => {
                let option = option.to_owned();
                common.take(&option, &mut args)?;
            }
            Value(value) if name.is_none() => name = Some(support::argument(value)?),
            other => return Err(other.unexpected().into()),
        }
    }
    let name = name.ok_or(USAGE)?;
    let image = common.image(&name)?;
    let manifest: &RawValue = serde_json::from_slice(image.manifest().raw())?;
    let config: Option<&RawValue> =
        image.config().ok().map(|config| serde_json::from_slice(config.raw())).transpose()?;
    let layers =
        if config.is_some() { image.layers()?.iter().map(describe).collect::<layercake::Result<_>>()? } else { vec![] };
    let report = Report {
        name,
        id: image.id().to_string(),
        digest: image.digest().to_string(),
        root: image.root().digest.to_string(),
        platform: image.platform().map(|platform| platform.to_string()),
        manifest,
        config,
        layers,
    };
    Ok(writeln!(io::stdout(), "{}", serde_json::to_string_pretty(&report)?)?)
}

fn describe(layer: &Layer) -> layercake::Result<serde_json::Value> {
    Ok(json!({
        "digest": layer.digest(), "diffId": layer.diff_id(), "mediaType": layer.media_type(),
        "size": layer.size(), "unpackedSize": layer.unpacked_size()?,
    }))
}
