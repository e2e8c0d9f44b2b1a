//! Who we are, to whom.
//!
//! * [`Credentials`] are a user name and a password, or a token in their place. Nothing prints them.
//! * [`CredentialSource`] knows the credentials of hosts. A closure is one.
//! * [`Login`] is the simplest source: one host.

use std::fmt;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use super::secret::Secret;

use crate::error::Result;
use crate::reference::DEFAULT_HOST;

/// The user name that credential helpers give with an identity token, and that goes with it where only a user name
/// and a password are taken.
pub(super) const TOKEN_USER: &str = "<token>";

/// The names of Docker Hub, which are one identity.
const DOCKER_HUB: [&str; 3] = [DEFAULT_HOST, "index.docker.io", "registry-1.docker.io"];
/// The key that `docker login` uses for Docker Hub, and that helpers know it by.
pub(super) const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";

pub(super) fn is_docker_hub(host: &str) -> bool {
    DOCKER_HUB.iter().any(|name| host.eq_ignore_ascii_case(name))
}

/// What credentials are kept under: the host in lower case, and Docker Hub under its first name.
pub(super) fn identity(host: &str) -> String {
    if is_docker_hub(host) { DEFAULT_HOST.to_owned() } else { host.to_ascii_lowercase() }
}

/// Who we are, to one host. [`Debug`](fmt::Debug) does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials(Kind);

#[derive(Clone, PartialEq, Eq)]
enum Kind {
    Password { username: String, password: String },
    Identity(Secret),
    Registry(Secret),
}

impl Credentials {
    /// A user name and a password.
    pub fn new(username: impl Into<String>, password: impl Into<String>) -> Credentials {
        Credentials(Kind::Password { username: username.into(), password: password.into() })
    }

    /// An identity token, as `docker login` gets it from some registries: a token server gives tokens for it
    /// (distribution, "OAuth2 Token Authentication"), and the registry never sees it.
    pub fn identity_token(token: impl Into<String>) -> Credentials {
        Credentials(Kind::Identity(Secret::new(token)))
    }

    /// A token that the registry itself takes, whatever its challenge says.
    pub fn registry_token(token: impl Into<String>) -> Credentials {
        Credentials(Kind::Registry(Secret::new(token)))
    }

    /// The identity token, if it is one.
    pub(super) fn identity(&self) -> Option<&Secret> {
        match &self.0 {
            Kind::Identity(token) => Some(token),
            _ => None,
        }
    }

    /// The header that says it without a token server; of an identity token only if `to_token_server`.
    pub(super) fn header(&self, to_token_server: bool) -> Option<Secret> {
        let basic = |username: &str, password: &str| {
            Some(Secret::new(format!("Basic {}", BASE64_STANDARD.encode(format!("{username}:{password}")))))
        };
        match &self.0 {
            Kind::Password { username, password } => basic(username, password),
            Kind::Identity(token) if to_token_server => basic(TOKEN_USER, token.reveal()),
            Kind::Identity(_) => None,
            Kind::Registry(token) => Some(Secret::new(format!("Bearer {}", token.reveal()))),
        }
    }

    /// Whether there is nothing to ask a token server for.
    pub(super) fn is_registry_token(&self) -> bool {
        matches!(self.0, Kind::Registry(_))
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(…)")
    }
}

/// Knows the credentials of hosts.
///
/// It is asked when a registry demands credentials, with the host as names write it (`localhost:5000`; `docker.io`,
/// whichever of its names and addresses is used), in lower case, and the repository on it (`library/ubuntu`; empty
/// where a request is about none). What it gives goes to that host, and to a token server that the host names and that
/// belongs to it; nowhere else.
pub trait CredentialSource: Send + Sync {
    /// The credentials for this repository on this host; none to stay anonymous.
    ///
    /// # Errors
    ///
    /// Whatever kept the source from finding out; the request then fails with it.
    fn credentials(&self, host: &str, repository: &str) -> Result<Option<Credentials>>;
}

impl<F: Fn(&str, &str) -> Result<Option<Credentials>> + Send + Sync> CredentialSource for F {
    fn credentials(&self, host: &str, repository: &str) -> Result<Option<Credentials>> {
        self(host, repository)
    }
}

/// The credentials of one host.
#[derive(Clone, Debug)]
pub struct Login {
    host: String,
    credentials: Credentials,
}

impl Login {
    /// Credentials for the host of an image's name, such as `localhost:5000` or `docker.io`: whichever of its names is
    /// given, and whichever an image's name has.
    pub fn new(host: &str, username: impl Into<String>, password: impl Into<String>) -> Login {
        let host = if host.eq_ignore_ascii_case(DOCKER_HUB_KEY) { DEFAULT_HOST } else { host };
        Login { host: identity(host), credentials: Credentials::new(username, password) }
    }
}

impl CredentialSource for Login {
    fn credentials(&self, host: &str, _: &str) -> Result<Option<Credentials>> {
        Ok((identity(host) == self.host).then(|| self.credentials.clone()))
    }
}
