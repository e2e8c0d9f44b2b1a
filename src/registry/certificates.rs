//! Certificates of one host: which are trusted, and which is shown.

use std::fs;
use std::io;
use std::io::Read;
use std::path::Path;

use super::host::Host;
use super::secret::Secret;

use crate::error::Error;
use crate::error::Result;

/// The most bytes of a file of certificates, or of a key.
const MAX_PEM: u64 = 1 << 20;

/// What needs the feature `rustls`.
impl Host {
    /// Does not verify the host's certificate: whoever is on the way can read and change everything but content that
    /// was asked for by digest, credentials too. Prefer [`certificate_authority`](Host::certificate_authority).
    pub fn insecure(self) -> Host {
        Host { unverified: true, ..self }
    }

    /// Trusts the certificate authorities in this PEM text, and only them.
    pub fn certificate_authority(mut self, pem: impl Into<String>) -> Host {
        self.authorities.push(pem.into());
        self
    }

    /// Shows the host who we are with a certificate: its chain and its private key, both PEM.
    pub fn client_certificate(self, chain: impl Into<String>, key: impl Into<String>) -> Host {
        Host { identity: Some((chain.into(), Secret::new(key))), ..self }
    }

    /// Reads a directory as Docker and podman have them below `certs.d`: `*.crt` are certificate authorities, and
    /// `NAME.cert` with `NAME.key` the client's certificate. Other files are passed over.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) if the directory or a file cannot be read;
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) if a file is too large or no text, or a certificate
    /// lacks its key.
    pub fn certificates_in(mut self, directory: impl AsRef<Path>) -> Result<Host> {
        let directory = directory.as_ref();
        let fail = |error| Error::io("list", directory, error);
        let paths: io::Result<Vec<_>> = fs::read_dir(directory).map_err(fail)?.map(|e| e.map(|e| e.path())).collect();
        let mut paths = paths.map_err(fail)?;
        paths.sort();
        for path in paths {
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("crt") => self = self.certificate_authority(pem(&path)?),
                Some("cert") => self = self.client_certificate(pem(&path)?, pem(&path.with_extension("key"))?),
                _ => {}
            }
        }
        Ok(self)
    }
}

fn pem(path: &Path) -> Result<String> {
    let fail = |error| Error::io("read", path, error);
    // A FIFO would wait for a writer: only files are opened.
    if !fs::metadata(path).map_err(fail)?.is_file() {
        return Err(Error::invalid_input(format!("{} is no file", path.display())));
    }
    let mut text = String::new();
    let file = fs::File::open(path).map_err(fail)?;
    file.take(MAX_PEM + 1).read_to_string(&mut text).map_err(fail)?;
    if text.len() as u64 > MAX_PEM {
        return Err(Error::invalid_input(format!("{} is too large for a certificate", path.display())));
    }
    Ok(text)
}
