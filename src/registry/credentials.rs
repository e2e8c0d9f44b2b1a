//! Who we are, to whom.
//!
//! * [`Credentials`] are a user name and a password. Nothing prints them.
//! * [`CredentialSource`] knows the credentials of hosts. A closure is one.
//! * [`Login`] is the simplest source: one host.

use std::fmt;

use crate::error::Result;

/// A user name and a password, or a token in its place. [`Debug`](fmt::Debug) does not show them.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    username: String,
    password: String,
}

impl Credentials {
    /// A user name and a password.
    pub fn new(username: impl Into<String>, password: impl Into<String>) -> Credentials {
        Credentials { username: username.into(), password: password.into() }
    }

    pub(super) fn username(&self) -> &str {
        &self.username
    }

    pub(super) fn password(&self) -> &str {
        &self.password
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(…)")
    }
}

/// Knows the credentials of hosts.
///
/// It is asked when a registry demands credentials, with the host as names write it (`docker.io`, whatever address
/// that has; `localhost:5000`), in lower case. What it gives goes to that host, and to a token server that the host
/// names and that belongs to it; nowhere else.
pub trait CredentialSource: Send + Sync {
    /// The credentials for this host; none to stay anonymous.
    ///
    /// # Errors
    ///
    /// Whatever kept the source from finding out; the request then fails with it.
    fn credentials(&self, host: &str) -> Result<Option<Credentials>>;
}

impl<F: Fn(&str) -> Result<Option<Credentials>> + Send + Sync> CredentialSource for F {
    fn credentials(&self, host: &str) -> Result<Option<Credentials>> {
        self(host)
    }
}

/// The credentials of one host.
#[derive(Clone, Debug)]
pub struct Login {
    host: String,
    credentials: Credentials,
}

impl Login {
    /// Credentials for the host of an image's name, such as `docker.io` or `localhost:5000`.
    pub fn new(host: &str, username: impl Into<String>, password: impl Into<String>) -> Login {
        Login { host: host.to_ascii_lowercase(), credentials: Credentials::new(username, password) }
    }
}

impl CredentialSource for Login {
    fn credentials(&self, host: &str) -> Result<Option<Credentials>> {
        Ok((host == self.host).then(|| self.credentials.clone()))
    }
}
