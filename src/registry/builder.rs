//! Setting up a client.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use super::Registry;
use super::Shared;
use super::auth::Authenticator;
use super::clock::Clock;
use super::clock::Time;
use super::credentials::CredentialSource;
use super::host::Host;
use super::http::Http;
use super::http::Timeouts;
use super::origin;
use super::pace::Pace;
use super::proxy::ProxyChoice;
use super::retry::Backoff;
use super::retry::Retry;
use super::secret::Secret;

use crate::error::Error;
use crate::error::Result;

/// Settings for a [`Registry`].
///
/// Nothing is read from files or from the environment unless a method says so.
#[must_use = "a builder makes nothing before `build`"]
pub struct Builder {
    credentials: Option<Box<dyn CredentialSource>>,
    trusted_realms: Vec<String>,
    retry: Box<dyn Retry>,
    timeouts: Timeouts,
    proxy: ProxyChoice,
    user_agent: String,
    hosts: HashMap<String, Host>,
    time: Time,
}

impl Default for Builder {
    fn default() -> Builder {
        Builder {
            credentials: None,
            trusted_realms: Vec::new(),
            retry: Box::new(Backoff::default()),
            timeouts: Timeouts {
                connect: Duration::from_secs(15),
                idle: Duration::from_secs(30),
                total: Duration::from_secs(120),
                slowest: 16 << 10,
            },
            proxy: ProxyChoice::Direct,
            user_agent: concat!("layercake/", env!("CARGO_PKG_VERSION")).to_owned(),
            hosts: HashMap::new(),
            time: Time::real(),
        }
    }
}

impl Builder {
    /// Where credentials come from; by default there are none.
    pub fn credentials(self, source: impl CredentialSource + 'static) -> Builder {
        Builder { credentials: Some(Box::new(source)), ..self }
    }

    /// Lets a token server have the credentials of registries that name it, although it is not a host under the
    /// registry's own domain. `host` is a host, or a host and a port.
    pub fn trust_token_server(mut self, host: &str) -> Builder {
        self.trusted_realms.push(host.to_ascii_lowercase());
        self
    }

    /// What to do after failures that may pass; by default [`Backoff::default`].
    pub fn retry(self, policy: impl Retry + 'static) -> Builder {
        Builder { retry: Box::new(policy), ..self }
    }

    /// How long making a connection may take; 15 seconds by default.
    pub fn connect_timeout(mut self, limit: Duration) -> Builder {
        self.timeouts.connect = limit;
        self
    }

    /// How long a registry may be silent in the middle of an answer, or before it; 30 seconds by default.
    pub fn idle_timeout(mut self, limit: Duration) -> Builder {
        self.timeouts.idle = limit;
        self
    }

    /// How long one request and its answer may take, besides what the answer's size allows at the
    /// [slowest rate](Builder::slowest_rate); two minutes by default.
    pub fn total_timeout(mut self, limit: Duration) -> Builder {
        self.timeouts.total = limit;
        self
    }

    /// How slow a download may be, in bytes per second; 16 KiB by default. A blob of a gigabyte may so take 18 hours,
    /// and one of a kilobyte two minutes.
    pub fn slowest_rate(mut self, bytes_per_second: u64) -> Builder {
        self.timeouts.slowest = bytes_per_second;
        self
    }

    /// Takes the proxy for encrypted connections from the environment: `HTTPS_PROXY`, `ALL_PROXY` or `HTTP_PROXY`, in
    /// this order, with the exceptions of `NO_PROXY`: hosts, or domains with all that is below them, separated by
    /// commas. Plain connections, to loopback hosts and to those of [`plain_http`](Builder::plain_http), never go
    /// through a proxy.
    pub fn proxy_from_env(self) -> Builder {
        Builder { proxy: ProxyChoice::Environment, ..self }
    }

    /// The proxy for encrypted connections, such as `http://user:password@proxy.example.com:3128`. It sees which
    /// hosts are spoken to and nothing more.
    pub fn proxy(self, url: &str) -> Builder {
        Builder { proxy: ProxyChoice::Url(Secret::new(url)), ..self }
    }

    /// What the client calls itself; `layercake/` and its version by default.
    pub fn user_agent(self, name: impl Into<String>) -> Builder {
        Builder { user_agent: name.into(), ..self }
    }

    /// Settings for one host, named as in images' names (`docker.io`, `registry.test:5000`). They take the place of
    /// those that were given for it before.
    pub fn host(mut self, name: &str, settings: Host) -> Builder {
        self.hosts.insert(name.to_ascii_lowercase(), settings);
        self
    }

    /// Speaks to this host without encryption. It is named as in images' names, such as `registry.test:5000`; a host
    /// without port means port 80.
    pub fn plain_http(mut self, host: &str) -> Builder {
        self.hosts.entry(host.to_ascii_lowercase()).or_default().encrypted = Some(false);
        self
    }

    /// Speaks https to this loopback host, which without this gets plain http.
    pub fn https(mut self, host: &str) -> Builder {
        self.hosts.entry(host.to_ascii_lowercase()).or_default().encrypted = Some(true);
        self
    }

    /// Reads a directory such as `/etc/docker/certs.d`, in which each directory is named for a host and has its
    /// certificates, as [`Host::certificates_in`] reads them. A directory that is not there holds nothing.
    ///
    /// # Errors
    ///
    /// Those of [`Host::certificates_in`].
    #[cfg(feature = "rustls")]
    pub fn certificates_in(mut self, directory: impl AsRef<std::path::Path>) -> Result<Builder> {
        let directory = directory.as_ref();
        let fail = |error| Error::io("list", directory, error);
        let entries = match std::fs::read_dir(directory) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(self),
            entries => entries.map_err(fail)?,
        };
        for entry in entries {
            let path = entry.map_err(fail)?.path();
            let Some(host) = path.file_name().and_then(|name| name.to_str()).map(str::to_ascii_lowercase) else {
                continue;
            };
            if path.is_dir() {
                let settings = self.hosts.remove(&host).unwrap_or_default().certificates_in(&path)?;
                self.hosts.insert(host, settings);
            }
        }
        Ok(self)
    }

    /// The clock by which tokens expire and pauses end; the real one by default.
    pub fn clock(self, clock: impl Clock + 'static) -> Builder {
        Builder { time: Time::Given(Box::new(clock)), ..self }
    }

    /// Makes the client. No request is made.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) if the proxy's address, the user agent, a header, a
    /// certificate or a key cannot be used, or if two names of one host have settings; [`ErrorKind::Protocol`](crate::ErrorKind::Protocol) if a host with
    /// settings is none.
    pub fn build(self) -> Result<Registry> {
        if !self.user_agent.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()) {
            return Err(Error::invalid_input("the user agent has characters that headers do not have"));
        }
        let mut special = Vec::new();
        for (name, settings) in &self.hosts {
            settings.check()?;
            let place = origin(name, settings.encrypted)?;
            if special.iter().any(|(known, _)| *known == place) {
                return Err(Error::invalid_input(format!("{place} has settings under two names")));
            }
            special.push((place, settings.clone()));
        }
        let variable = |name: &str| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned());
        let proxy = self.proxy.find(variable);
        let time = Arc::new(self.time);
        Ok(Registry(Arc::new(Shared {
            http: Http::new(self.timeouts, &self.user_agent, proxy, &special)?,
            auth: Authenticator::new(self.credentials, self.trusted_realms, Arc::clone(&time)),
            retry: self.retry,
            time,
            pace: Pace::new(&special),
            hosts: self.hosts,
            warned: Mutex::default(),
            resting: Mutex::default(),
            rates: Mutex::default(),
        })))
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder").finish_non_exhaustive()
    }
}
