//! How the examples reach registries, and as whom.

use std::io;
use std::path::PathBuf;

use layercake::Registry;
use layercake::registry::DockerConfig;
use layercake::registry::Host;
use layercake::registry::Login;

use crate::support;

/// What [`Client`] takes, for usage lines.
pub const USAGE: &str = "[--username U --password-stdin] [--ca FILE] [--insecure] [--plain-http]";

/// The options of examples that talk to registries.
#[derive(Default)]
pub struct Client {
    username: Option<String>,
    password: Option<String>,
    authority: Option<PathBuf>,
    insecure: bool,
    plain_http: bool,
}

impl Client {
    /// Takes the option, if it is one of these.
    pub fn take(&mut self, option: &str, args: &mut lexopt::Parser) -> support::Result<bool> {
        match option {
            "username" => self.username = Some(support::text(args)?),
            "password-stdin" => self.password = Some(password()?),
            "ca" => self.authority = Some(args.value()?.into()),
            "insecure" => self.insecure = true,
            "plain-http" => self.plain_http = true,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// A client for the host of an image's name: as whom the options say, or else the files of `docker login` and
    /// `podman login`.
    pub fn registry(&self, host: &str) -> support::Result<Registry> {
        let builder = Registry::builder().host(host, self.host()?);
        let builder = match (&self.username, &self.password) {
            (Some(username), Some(password)) => builder.credentials(Login::new(host, username, password)),
            (None, None) => builder.credentials(docker_config()?),
            _ => return Err("--username and --password-stdin go together".into()),
        };
        Ok(builder.build()?)
    }

    fn host(&self) -> support::Result<Host> {
        let is_secured = self.insecure || self.authority.is_some();
        match (self.plain_http, is_secured) {
            (true, true) => Err("--plain-http goes neither with --ca nor with --insecure".into()),
            (true, false) => Ok(Host::new().plain_http()),
            (false, false) => Ok(Host::new()),
            (false, true) => self.secured(),
        }
    }

    /// Over https, also to hosts on this machine.
    #[cfg(feature = "rustls")]
    fn secured(&self) -> support::Result<Host> {
        let mut host = Host::new().https();
        if let Some(file) = &self.authority {
            let pem = std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
            host = host.certificate_authority(pem);
        }
        Ok(if self.insecure { host.insecure() } else { host })
    }

    #[cfg(not(feature = "rustls"))]
    fn secured(&self) -> support::Result<Host> {
        Err("--ca and --insecure need the feature rustls".into())
    }
}

fn docker_config() -> support::Result<DockerConfig> {
    let config = DockerConfig::load()?;
    config.warnings().iter().for_each(|warning| support::warn(warning));
    Ok(config)
}

/// One line of stdin.
fn password() -> support::Result<String> {
    let mut line = String::new();
    io::stdin().read_line(&mut line)?;
    Ok(line.trim_end_matches(['\n', '\r']).to_owned())
}
