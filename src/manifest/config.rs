//! The configuration of an image.

use std::collections::BTreeMap;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use serde::Deserialize;
use serde::Deserializer;
use serde::Serialize;
use serde::de::IgnoredAny;

use super::Bytes;
use super::check_size;
use super::parse;
use super::refuse_ambiguity;

use crate::digest::Digest;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::json;
use crate::platform::Platform;

/// What an image runs and how it was made (image-spec, config.md).
///
/// Everything in it comes from whoever made the image and is data: nothing is expanded, resolved or believed. A
/// `null` is the same as nothing.
///
/// Invariants: the bytes are a JSON document of at most 8 MiB; the digest is theirs and is the image's id; the
/// digests of the layers can be verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    bytes: Bytes,
    digest: Digest,
    fields: Fields,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
struct Fields {
    #[serde(default, deserialize_with = "nullable")]
    architecture: String,
    #[serde(default, deserialize_with = "nullable")]
    os: String,
    variant: Option<String>,
    created: Option<String>,
    author: Option<String>,
    #[serde(default, deserialize_with = "nullable")]
    config: Execution,
    #[serde(default, deserialize_with = "nullable")]
    rootfs: RootFs,
    #[serde(default, deserialize_with = "nullable")]
    history: Vec<History>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Execution {
    #[serde(default, deserialize_with = "nullable")]
    user: String,
    #[serde(default, deserialize_with = "nullable")]
    env: Vec<String>,
    #[serde(default, deserialize_with = "nullable")]
    entrypoint: Vec<String>,
    #[serde(default, deserialize_with = "nullable")]
    cmd: Vec<String>,
    #[serde(default, deserialize_with = "nullable")]
    working_dir: String,
    #[serde(default, deserialize_with = "nullable")]
    labels: BTreeMap<String, String>,
    #[serde(default, deserialize_with = "nullable")]
    exposed_ports: Keys,
    #[serde(default, deserialize_with = "nullable")]
    volumes: Keys,
    stop_signal: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
struct RootFs {
    #[serde(default, rename = "type", deserialize_with = "nullable")]
    kind: String,
    #[serde(default, deserialize_with = "nullable")]
    diff_ids: Vec<Digest>,
}

/// The keys of an object whose values mean nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Keys(Vec<String>);

impl<'de> Deserialize<'de> for Keys {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Keys, D::Error> {
        let object = BTreeMap::<String, IgnoredAny>::deserialize(deserializer)?;
        Ok(Keys(object.into_keys().collect()))
    }
}

/// One step of the making of an image (image-spec, config.md, `history`).
#[non_exhaustive]
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// When, as RFC 3339 text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// The command that made the layer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    /// Who.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// What was said about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// Whether this step made no layer.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "std::ops::Not::not")]
    pub empty_layer: bool,
}

impl History {
    /// A step that was made at a time.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`] if RFC 3339 has no word for the time.
    pub(crate) fn at(time: Option<SystemTime>) -> Result<History> {
        Ok(History { created: time.map(text_of).transpose()?, ..History::default() })
    }

    /// When the step was made.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidDocument`] if what is there is no date of RFC 3339.
    pub fn time(&self) -> Result<Option<SystemTime>> {
        time(self.created.as_deref())
    }
}

impl Config {
    /// Reads the bytes of a configuration.
    ///
    /// # Errors
    ///
    /// * [`ErrorKind::LimitExceeded`]: more than 8 MiB.
    /// * [`ErrorKind::InvalidDocument`]: no JSON, a field of another type than specified, a diff id that is no
    ///   digest or one that cannot be verified.
    pub fn parse(bytes: Vec<u8>) -> Result<Config> {
        let digest = Digest::sha256(&bytes);
        Config::with_digest(bytes, digest)
    }

    /// The same, under a digest that was verified already.
    pub(crate) fn with_digest(bytes: Vec<u8>, digest: Digest) -> Result<Config> {
        check_size(&bytes)?;
        let fields = parse("configuration", &bytes)?;
        refuse_ambiguity("configuration", &bytes, &json::CONFIG)?;
        Ok(Config { bytes: Bytes(bytes), digest, fields })
    }

    /// The bytes, as they came.
    pub fn raw(&self) -> &[u8] {
        &self.bytes.0
    }

    /// The digest of the bytes, which is the image's id.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The operating system, such as `linux`; empty where the configuration does not say.
    pub fn os(&self) -> &str {
        &self.fields.os
    }

    /// The architecture as written, such as `amd64`; empty where the configuration does not say.
    pub fn architecture(&self) -> &str {
        &self.fields.architecture
    }

    /// What the image runs on; none where the configuration names no system or no architecture.
    pub fn platform(&self) -> Option<Platform> {
        let Fields { os, architecture, variant, .. } = &self.fields;
        let known = !os.is_empty() && !architecture.is_empty();
        known.then(|| Platform::with_variant(os, architecture, variant.as_deref().unwrap_or_default()))
    }

    /// When the image was made; none where the configuration does not say.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidDocument`] where it says something that is no RFC 3339 date and time.
    pub fn created(&self) -> Result<Option<SystemTime>> {
        time(self.fields.created.as_deref())
    }

    /// Who made the image.
    pub fn author(&self) -> Option<&str> {
        self.fields.author.as_deref()
    }

    /// The user to run as, as written: `user`, `uid`, `user:group` and so on; empty for root.
    pub fn user(&self) -> &str {
        &self.fields.config.user
    }

    /// Environment variables, as `NAME=value`.
    pub fn env(&self) -> &[String] {
        &self.fields.config.env
    }

    /// The program to run, and its first arguments.
    pub fn entrypoint(&self) -> &[String] {
        &self.fields.config.entrypoint
    }

    /// Further arguments; the whole command where there is no entrypoint.
    pub fn cmd(&self) -> &[String] {
        &self.fields.config.cmd
    }

    /// The directory to run in, as written; empty for `/`.
    pub fn working_dir(&self) -> &str {
        &self.fields.config.working_dir
    }

    /// Notes: arbitrary names and values.
    pub fn labels(&self) -> &BTreeMap<String, String> {
        &self.fields.config.labels
    }

    /// Ports that the program listens on, as `port`, `port/tcp` or `port/udp`.
    pub fn exposed_ports(&self) -> &[String] {
        &self.fields.config.exposed_ports.0
    }

    /// Directories that hold data of the container's own, as written.
    pub fn volumes(&self) -> &[String] {
        &self.fields.config.volumes.0
    }

    /// The signal that asks the program to end.
    pub fn stop_signal(&self) -> Option<&str> {
        self.fields.config.stop_signal.as_deref()
    }

    /// The digests of the uncompressed layers, base first.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidDocument`] if `rootfs.type` is none or another than `layers` (image-spec, config.md).
    pub fn diff_ids(&self) -> Result<&[Digest]> {
        match self.fields.rootfs.kind.as_str() {
            "layers" => Ok(&self.fields.rootfs.diff_ids),
            other => Err(Error::invalid_document("configuration", format!("rootfs.type is {other:?}, not \"layers\""))),
        }
    }

    /// The names of the stacks of layers, from the base alone to all of them (image-spec, config.md, "Layer
    /// ChainID").
    ///
    /// # Errors
    ///
    /// Those of [`diff_ids`](Config::diff_ids).
    pub fn chain_ids(&self) -> Result<Vec<Digest>> {
        let mut chain: Vec<Digest> = Vec::new();
        for diff_id in self.diff_ids()? {
            chain.push(match chain.last() {
                None => *diff_id,
                Some(below) => Digest::sha256(format!("{below} {diff_id}").as_bytes()),
            });
        }
        Ok(chain)
    }

    /// The steps of the making, oldest first.
    pub fn history(&self) -> &[History] {
        &self.fields.history
    }

    /// Fails if the configuration says that the image does not run on `wanted`. A variant that it does not name, as many
    /// do not, may be any; of Windows' versions it says nothing here.
    pub(crate) fn check_platform(&self, wanted: &Platform) -> Result<()> {
        let Some(found) = self.platform() else { return Ok(()) };
        let of_any_variant = |found: &Platform| {
            wanted.preferences().any(|p| p.os() == found.os() && p.architecture() == found.architecture())
        };
        let unsaid = self.fields.variant.as_deref().unwrap_or_default().is_empty();
        let without_version =
            Platform::with_variant(wanted.os(), wanted.architecture(), wanted.variant().unwrap_or_default());
        if without_version.runs(&found) || (unsaid && of_any_variant(&found)) {
            return Ok(());
        }
        Err(ErrorKind::NoMatchingPlatform { wanted: wanted.clone(), available: vec![found] }.into())
    }

    /// Checks that the configuration belongs to a manifest with this many layers (image-spec, config.md).
    pub(crate) fn check_layers(&self, count: usize) -> Result<()> {
        let found = self.diff_ids()?.len();
        if found == count {
            return Ok(());
        }
        let reason = format!("layers from manifest don't match image configuration: {count} layers, {found} diff_ids");
        Err(ErrorKind::InvalidDocument { document: "configuration", reason }.into())
    }
}

/// `null` is the same as nothing (image-spec, config.md: optional fields may be null).
fn nullable<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// A date, if there is any.
fn time(text: Option<&str>) -> Result<Option<SystemTime>> {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(None) };
    match text.parse::<jiff::Timestamp>() {
        Ok(time) => Ok(Some(time.into())),
        Err(_) => Err(Error::invalid_document("configuration", format!("created is no date: {text:?}"))),
    }
}

/// A time as RFC 3339 has it.
fn text_of(time: SystemTime) -> Result<String> {
    let time = jiff::Timestamp::try_from(time);
    Ok(time.map_err(|error| Error::invalid_input(format!("the time of the image: {error}")))?.to_string())
}

/// Whole seconds since 1970, cut off towards the past.
pub(crate) fn seconds_of(time: SystemTime) -> i64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        Err(before) => {
            let before = before.duration();
            let whole = i64::try_from(before.as_secs()).unwrap_or(i64::MAX);
            -whole - i64::from(before.subsec_nanos() > 0)
        }
    }
}
