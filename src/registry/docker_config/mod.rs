//! The credentials that `docker login` and `podman login` left: `config.json` and `auth.json`.

mod entry;
mod helper;
mod key;

use std::env;
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::io;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use rustix::fs::Mode;
use rustix::fs::OFlags;
use serde_json::Map;
use serde_json::Value;

use super::credentials::CredentialSource;
use super::credentials::Credentials;

use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::error::printable;
use crate::json;

use entry::field;
use helper::Helpers;
use key::Key;
use key::Server;

/// The most bytes of a configuration: 1 MiB.
const MAX_SIZE: u64 = 1 << 20;
/// How long a helper may take by default; some ask their user.
const HELPER_LIMIT: Duration = Duration::from_secs(30);

/// The credentials that `docker login` and `podman login` left, with their credential helpers.
///
/// ```
/// use layercake::Registry;
/// use layercake::registry::{CredentialSource, Credentials, DockerConfig};
///
/// // base64 of `alice:wonderland`, as `docker login` writes it
/// let config = DockerConfig::parse(r#"{"auths": {"quay.io/rabbits": {"auth": "YWxpY2U6d29uZGVybGFuZA=="}}}"#)?;
/// assert_eq!(config.credentials("quay.io", "rabbits/hole")?, Some(Credentials::new("alice", "wonderland")));
/// assert_eq!(config.credentials("quay.io", "cats/cheshire")?, None);
///
/// let registry = Registry::builder().credentials(config).build()?;
/// # Ok::<(), layercake::Error>(())
/// ```
///
/// What this process's user has, wherever it is:
///
/// ```no_run
/// use layercake::Registry;
/// use layercake::registry::DockerConfig;
///
/// let config = DockerConfig::load()?;
/// config.warnings().iter().for_each(|warning| eprintln!("warning: {warning}"));
/// let registry = Registry::builder().credentials(config).build()?;
/// # Ok::<(), layercake::Error>(())
/// ```
///
/// # Whose credentials
///
/// Each file is asked in turn, and the first that knows counts. In a file, `credHelpers` for the host goes before
/// `credsStore`, and that before `auths`. A host that is in `credHelpers` is looked for nowhere else in the file; what
/// the store does not know may be in `auths`.
///
/// A key is a host, `host:port`, either with `https://` or `http://` before it and `/`, `/v1/` or `/v2/` behind it; or
/// the beginning of a repository's name, such as `quay.io/org`, of which the longest counts. Upper and lower case are
/// the same host, and `host`, `host:5000` and `host.example.com` are three. `docker.io`, `index.docker.io`,
/// `registry-1.docker.io` and `https://index.docker.io/v1/` are one.
///
/// An entry that cannot be understood, and a helper that fails, is an error where it would have been used, an
/// [`ErrorKind::Authentication`] that names file and entry and no secret: there is no going on without it, or with
/// less. What is empty says nothing.
///
/// # Helpers
///
/// `docker-credential-NAME` is run with `get` when a registry demands credentials, each time. It is looked for in the
/// directories of `PATH`, has [30 seconds](DockerConfig::helper_timeout) and may print 64 KiB; it sees this process's
/// environment and the name of the server, and no secret. It runs in a process group of its own, which is killed when
/// its time is over; so it can open windows, but not read from the terminal.
///
/// What it answered is used for as long as the client lives, where the registry takes passwords; a registry with a
/// token server has it asked again for each token.
///
/// # Files
///
/// At most 1 MiB, and regular files, or links to such. What others may read or change is used all the same, as Docker
/// does; [`warnings`](DockerConfig::warnings) says so.
#[derive(Clone)]
pub struct DockerConfig {
    files: Vec<File>,
    warnings: Vec<String>,
    helper_path: Option<OsString>,
    helper_timeout: Duration,
}

/// One file, read.
#[derive(Clone)]
struct File {
    /// What errors call it.
    name: String,
    auths: Vec<(Key, Value)>,
    helpers: Vec<(Key, Value)>,
    store: Option<String>,
}

impl DockerConfig {
    /// Reads what Docker and podman have for this user. Files that are not there are no mistake. In this order:
    ///
    /// 1. `$REGISTRY_AUTH_FILE`; where that is not set, `$XDG_RUNTIME_DIR/containers/auth.json` and
    ///    `$XDG_CONFIG_HOME/containers/auth.json` (`$HOME/.config` if that is not set);
    /// 2. `$DOCKER_CONFIG/config.json`; where that is not set, `$HOME/.docker/config.json`.
    ///
    /// Helpers are looked for in `$PATH`, as it is now. No other part of this crate reads these variables.
    ///
    /// # Errors
    ///
    /// Those of [`open`](DockerConfig::open), but for missing files.
    pub fn load() -> Result<DockerConfig> {
        DockerConfig::load_from(&|name| env::var_os(name))
    }

    fn load_from(variable: &dyn Fn(&str) -> Option<OsString>) -> Result<DockerConfig> {
        let mut config = DockerConfig::empty(variable("PATH"));
        for path in usual_paths(variable) {
            match config.add(&path) {
                Err(error) if is_missing(&error) => {}
                added => added?,
            }
        }
        Ok(config)
    }

    /// Reads one file. Helpers are looked for in `$PATH`, as it is now.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`] if it cannot be read; [`ErrorKind::Authentication`] if it is no regular file, too large, or no
    /// configuration. A single entry that makes no sense is no error here.
    pub fn open(path: impl AsRef<Path>) -> Result<DockerConfig> {
        let mut config = DockerConfig::empty(env::var_os("PATH"));
        config.add(path.as_ref())?;
        Ok(config)
    }

    /// Reads a configuration's text. Nothing else is read: for helpers, say
    /// [where they are](DockerConfig::helper_path).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Authentication`] if it is too large, or no configuration.
    pub fn parse(text: &str) -> Result<DockerConfig> {
        let mut config = DockerConfig::empty(None);
        config.files.push(File::parse("the configuration".to_owned(), text.as_bytes())?);
        Ok(config)
    }

    /// Looks for helpers in these directories, which are written as in `PATH`. Those that are not absolute are passed
    /// over.
    #[must_use = "the configuration is returned with the setting"]
    pub fn helper_path(self, path: impl Into<OsString>) -> DockerConfig {
        DockerConfig { helper_path: Some(path.into()), ..self }
    }

    /// How long a helper may take before it is killed, which is an error; 30 seconds by default.
    #[must_use = "the configuration is returned with the setting"]
    pub fn helper_timeout(self, limit: Duration) -> DockerConfig {
        DockerConfig { helper_timeout: limit, ..self }
    }

    /// What the user should know of the files: others can read their passwords, or change who is asked for them.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    fn empty(helper_path: Option<OsString>) -> DockerConfig {
        DockerConfig { files: Vec::new(), warnings: Vec::new(), helper_path, helper_timeout: HELPER_LIMIT }
    }

    fn add(&mut self, path: &Path) -> Result<()> {
        let name = printable(&path.display().to_string(), 300);
        let (bytes, mode) = read(path, &name)?;
        let file = File::parse(name, &bytes)?;
        self.warnings.extend(file.warning(mode));
        self.files.push(file);
        Ok(())
    }
}

impl CredentialSource for DockerConfig {
    fn credentials(&self, host: &str, repository: &str) -> Result<Option<Credentials>> {
        let server = Server::new(host, repository);
        let helpers = Helpers { path: self.helper_path.as_deref(), limit: self.helper_timeout };
        for file in &self.files {
            if let Some(found) = file.credentials(&server, &helpers).map_err(|why| unusable(&file.name, &why))? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }
}

impl fmt::Debug for DockerConfig {
    /// Hosts only.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys = self.files.iter().flat_map(|file| file.auths.iter().chain(&file.helpers));
        let mut hosts: Vec<&str> = keys.map(|(key, _)| key.host()).collect();
        hosts.sort_unstable();
        hosts.dedup();
        f.debug_struct("DockerConfig").field("hosts", &hosts).finish_non_exhaustive()
    }
}

impl File {
    fn parse(name: String, bytes: &[u8]) -> Result<File> {
        let fail = |why: &str| unusable(&name, why);
        if bytes.len() as u64 > MAX_SIZE {
            return Err(fail(&format!("it is larger than {MAX_SIZE} bytes")));
        }
        let text = std::str::from_utf8(bytes).map_err(|_| fail("it is no UTF-8 text"))?;
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        if text.trim().is_empty() {
            return Ok(File { name, auths: Vec::new(), helpers: Vec::new(), store: None });
        }
        // Into a value first: where types are not as expected, serde's errors quote what they found.
        let document: Value = serde_json::from_str(text).map_err(|error| fail(&format!("it is no JSON: {error}")))?;
        json::check(text.as_bytes(), &json::DOCKER_CONFIG).map_err(|found| fail(&found.without_names()))?;
        let Value::Object(document) = document else { return Err(fail("it is no JSON object")) };
        Ok(File {
            auths: keys(&document, "auths").map_err(|why| fail(&why))?,
            helpers: keys(&document, "credHelpers").map_err(|why| fail(&why))?,
            store: entry::text(&document, "credsStore").map_err(|why| fail(&why))?.map(str::to_owned),
            name,
        })
    }

    fn credentials(&self, server: &Server<'_>, helpers: &Helpers<'_>) -> Result<Option<Credentials>, String> {
        let by_host = best(&self.helpers, server).into_iter().find(|(key, _)| key.is_host());
        if let Some((key, helper)) = by_host {
            let name = helper.as_str().ok_or_else(|| format!("the helper of {:?} is no text", key.shown()))?;
            return helpers.ask(name, key.name());
        }
        if let Some(store) = &self.store
            && let Some(found) = helpers.ask(store, self.name_in_store(server))?
        {
            return Ok(Some(found));
        }
        self.entry(server)
    }

    /// `docker login` leaves the key by which the store knows the host.
    fn name_in_store<'a>(&'a self, server: &Server<'a>) -> &'a str {
        let left = best(&self.auths, server).into_iter().find(|(key, _)| key.is_host());
        left.map_or(server.name(), |(key, _)| key.name())
    }

    /// The best entry that says something.
    fn entry(&self, server: &Server<'_>) -> Result<Option<Credentials>, String> {
        for (key, value) in best(&self.auths, server) {
            let read = entry::credentials(value);
            let found = read.map_err(|why| format!("the entry {:?} cannot be used: {why}", key.shown()))?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// Who else may do what with it.
    fn warning(&self, mode: u32) -> Option<String> {
        let is_secret = self.auths.iter().any(|(_, entry)| entry::credentials(entry) != Ok(None));
        match mode {
            mode if mode & 0o022 != 0 => {
                Some(format!("{}: others may change it, and so what is sent and run: chmod go-w", self.name))
            }
            mode if mode & 0o044 != 0 && is_secret => {
                Some(format!("{}: others may read the passwords in it: chmod go-r", self.name))
            }
            _ => None,
        }
    }
}

/// An object's fields whose names are keys.
fn keys(document: &Map<String, Value>, name: &str) -> Result<Vec<(Key, Value)>, String> {
    match field(document, name) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Object(fields)) => {
            Ok(fields.iter().filter_map(|(key, value)| Some((Key::parse(key)?, value.clone()))).collect())
        }
        Some(_) => Err(format!("its {name} is no object")),
    }
}

/// What fits, the best first.
fn best<'a>(keys: &'a [(Key, Value)], server: &Server<'_>) -> Vec<&'a (Key, Value)> {
    let mut fitting: Vec<_> = keys.iter().filter_map(|pair| Some((pair.0.rank(server)?, pair))).collect();
    fitting.sort_by_key(|(rank, _)| *rank);
    fitting.into_iter().map(|(_, pair)| pair).collect()
}

fn unusable(file: &str, why: &str) -> Error {
    ErrorKind::Authentication { reason: format!("{file}: {why}") }.into()
}

/// A file's bytes, one more than is allowed at most, and its mode.
fn read(path: &Path, name: &str) -> Result<(Vec<u8>, u32)> {
    let fail = |error| Error::io("read", path, error);
    let is_file = |found: &fs::Metadata| if found.is_file() { Ok(()) } else { Err(unusable(name, "it is no file")) };
    // Opening a device may do something, and opening a FIFO waits; the file may be another by the time it is opened.
    is_file(&fs::metadata(path).map_err(fail)?)?;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = fs::File::from(rustix::fs::open(path, flags, Mode::empty()).map_err(|error| fail(error.into()))?);
    let found = file.metadata().map_err(fail)?;
    is_file(&found)?;
    let mut bytes = Vec::new();
    file.take(MAX_SIZE + 1).read_to_end(&mut bytes).map_err(fail)?;
    Ok((bytes, found.permissions().mode()))
}

/// Also where a directory on the way is a file, as below a home of `/dev/null`.
fn is_missing(error: &Error) -> bool {
    let kinds = [io::ErrorKind::NotFound, io::ErrorKind::NotADirectory];
    matches!(error.kind(), ErrorKind::Io { source, .. } if kinds.contains(&source.kind()))
}

/// The files of [`DockerConfig::load`]. An empty variable is none.
fn usual_paths(variable: &dyn Fn(&str) -> Option<OsString>) -> Vec<PathBuf> {
    let set = |name: &str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = |below: &str| set("HOME").map(|home| home.join(below));
    let mut paths = Vec::new();
    match set("REGISTRY_AUTH_FILE") {
        Some(path) => paths.push(path),
        None => {
            let directories = [set("XDG_RUNTIME_DIR"), set("XDG_CONFIG_HOME").or_else(|| home(".config"))];
            paths.extend(directories.into_iter().flatten().map(|directory| directory.join("containers/auth.json")));
        }
    }
    let docker = set("DOCKER_CONFIG").or_else(|| home(".docker"));
    paths.extend(docker.map(|directory| directory.join("config.json")));
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The files of these variables, written as in a shell.
    fn paths(variables: &str) -> String {
        let paths = usual_paths(&variables_of(variables));
        paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(" ")
    }

    fn variables_of(variables: &str) -> impl Fn(&str) -> Option<OsString> {
        let pairs: Vec<(String, OsString)> = variables
            .split_whitespace()
            .filter_map(|pair| pair.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.into()))
            .collect();
        move |asked| pairs.iter().find(|(name, _)| name == asked).map(|(_, value)| value.clone())
    }

    /// podman's files before Docker's, and what is said before what is usual.
    #[test]
    fn the_usual_files_are_those_of_podman_and_then_of_docker() {
        for (variables, expected) in [
            ("", ""),
            ("HOME=/home/u", "/home/u/.config/containers/auth.json /home/u/.docker/config.json"),
            (
                "HOME=/h XDG_RUNTIME_DIR=/run/u XDG_CONFIG_HOME=/c DOCKER_CONFIG=/d",
                "/run/u/containers/auth.json /c/containers/auth.json /d/config.json",
            ),
            ("HOME=/h XDG_RUNTIME_DIR=/run/u REGISTRY_AUTH_FILE=/a", "/a /h/.docker/config.json"),
            ("HOME= DOCKER_CONFIG= REGISTRY_AUTH_FILE= XDG_RUNTIME_DIR=", ""),
            ("HOME= DOCKER_CONFIG=d", "d/config.json"),
        ] {
            assert_eq!(paths(variables), expected, "{variables}");
        }
    }

    fn config(host: &str, password: &str) -> String {
        format!(r#"{{"auths": {{"{host}": {{"username": "u", "password": "{password}"}}}}}}"#)
    }

    /// Missing files, also below a home that is no directory, are no mistake; later ones are asked for the rest.
    #[test]
    fn later_files_are_asked_for_what_earlier_ones_do_not_know() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().display().to_string();
        let load = |variables: &str| DockerConfig::load_from(&variables_of(&variables.replace('~', &home)));
        for nothing in ["", "HOME=~", "HOME=/dev/null", "HOME=~ REGISTRY_AUTH_FILE=~/none"] {
            assert_eq!(load(nothing).unwrap().credentials("one", "").unwrap(), None);
        }
        fs::create_dir_all(dir.path().join(".docker")).unwrap();
        fs::create_dir_all(dir.path().join(".config/containers")).unwrap();
        let docker = config("one", "docker").replace("}}}", "}, \"two\": {\"auth\": \"dTpkb2NrZXI=\"}}}");
        fs::write(dir.path().join(".docker/config.json"), docker).unwrap();
        fs::write(dir.path().join(".config/containers/auth.json"), config("one", "podman")).unwrap();
        let loaded = load("HOME=~").unwrap();
        for (host, password) in [("one", "podman"), ("two", "docker")] {
            assert_eq!(loaded.credentials(host, "").unwrap(), Some(Credentials::new("u", password)));
        }
        fs::write(dir.path().join(".config/containers/auth.json"), "{").unwrap();
        assert!(matches!(load("HOME=~").unwrap_err().kind(), ErrorKind::Authentication { .. }));
    }
}
