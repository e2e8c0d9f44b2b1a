//! Images of tarballs.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::io::Read;
use std::time::SystemTime;

use serde_json::Value;
use serde_json::json;

use super::intake::Intake;

use crate::changeset::Entries;
use crate::changeset::Limits;
use crate::compression::Compression;
use crate::descriptor::Descriptor;
use crate::digest::Algorithm;
use crate::digest::Digest;
use crate::digest::Hasher;
use crate::error::Context;
use crate::error::Error;
use crate::error::Result;
use crate::event::Cancel;
use crate::media_type::MediaType;
use crate::platform::Platform;
use crate::store::BlobWriter;
use crate::store::Store;

/// What Docker says of an image that was read from a pipe.
const COMMENT: &str = "Imported from -";

/// A tarball that is about to become an image. Made by [`import`](super::import()); [`to`](Import::to) makes it.
#[must_use = "nothing is read before `to`"]
pub struct Import<R> {
    tarball: R,
    comment: String,
    author: Option<String>,
    created: Option<SystemTime>,
    platform: Platform,
    env: Vec<(String, String)>,
    /// What of the configuration is set, as it will stand there.
    execution: BTreeMap<&'static str, Value>,
    limits: Limits,
    cancel: Cancel,
}

impl<R: Read> Import<R> {
    pub(super) fn new(tarball: R) -> Import<R> {
        Import {
            tarball,
            comment: COMMENT.to_owned(),
            author: None,
            created: None,
            platform: Platform::host(),
            env: Vec::new(),
            execution: BTreeMap::new(),
            limits: Limits::default(),
            cancel: Cancel::new(),
        }
    }

    /// What the history says of the layer: `Imported from -` unless this is called, as Docker has it.
    pub fn comment(self, comment: &str) -> Import<R> {
        Import { comment: comment.to_owned(), ..self }
    }

    /// Who made the image.
    pub fn author(self, author: &str) -> Import<R> {
        Import { author: Some(author.to_owned()), ..self }
    }

    /// When the image was made. Unless this is called it does not say: the clock is not asked.
    pub fn created(self, time: SystemTime) -> Import<R> {
        Import { created: Some(time), ..self }
    }

    /// What it runs on: this machine's platform unless this is called.
    pub fn platform(self, platform: Platform) -> Import<R> {
        Import { platform, ..self }
    }

    /// Sets an environment variable, in the place of one of the same name.
    pub fn env(mut self, name: &str, value: &str) -> Import<R> {
        match self.env.iter_mut().find(|(known, _)| known == name) {
            Some((_, old)) => value.clone_into(old),
            None => self.env.push((name.to_owned(), value.to_owned())),
        }
        self
    }

    /// Sets the program to run, and its first arguments.
    pub fn entrypoint(self, entrypoint: impl IntoIterator<Item = impl Into<String>>) -> Import<R> {
        self.set("Entrypoint", words(entrypoint))
    }

    /// Sets further arguments; the whole command where there is no entrypoint.
    pub fn cmd(self, cmd: impl IntoIterator<Item = impl Into<String>>) -> Import<R> {
        self.set("Cmd", words(cmd))
    }

    /// Sets the directory to run in.
    pub fn working_dir(self, path: &str) -> Import<R> {
        self.set("WorkingDir", path.into())
    }

    /// Sets the user to run as: `user`, `uid`, `user:group` and so on.
    pub fn user(self, user: &str) -> Import<R> {
        self.set("User", user.into())
    }

    /// Sets the signal that asks the program to end.
    pub fn stop_signal(self, signal: &str) -> Import<R> {
        self.set("StopSignal", signal.into())
    }

    /// Adds a note.
    pub fn label(self, name: &str, value: &str) -> Import<R> {
        self.insert("Labels", name.to_owned(), value.into())
    }

    /// Adds a port that the program listens on: `port/tcp`, `port/udp`, or `port`, which is tcp.
    pub fn exposed_port(self, port: &str) -> Import<R> {
        let port = if port.contains('/') { port.to_owned() } else { format!("{port}/tcp") };
        self.insert("ExposedPorts", port, json!({}))
    }

    /// Adds a directory that holds data of the container's own.
    pub fn volume(self, path: &str) -> Import<R> {
        self.insert("Volumes", path.to_owned(), json!({}))
    }

    /// What is refused because it is too much: the tarball's entries and bytes, as with
    /// [`apply`](crate::changeset::apply).
    pub fn limits(self, limits: Limits) -> Import<R> {
        Import { limits, ..self }
    }

    /// A switch that ends the work.
    pub fn cancel(self, cancel: &Cancel) -> Import<R> {
        Import { cancel: cancel.clone(), ..self }
    }

    /// Reads the tarball, all its entries, and makes the image: an OCI manifest, which is returned. Nothing is named; to
    /// do that is for the caller, by [`Store::tag`].
    ///
    /// # Errors
    ///
    /// * [`ErrorKind::InvalidLayer`](crate::ErrorKind::InvalidLayer): it is no tar, or has an entry that could not be
    ///   applied; [`ErrorKind::InvalidArchive`](crate::ErrorKind::InvalidArchive): it is empty.
    /// * [`ErrorKind::Compression`](crate::ErrorKind::Compression): it cannot be decompressed.
    /// * [`ErrorKind::LimitExceeded`](crate::ErrorKind::LimitExceeded): there is too much of something.
    /// * [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput): a variable's name is empty or has a `=`; a time
    ///   is not one of the years -9999 to 9999.
    /// * [`ErrorKind::Cancelled`](crate::ErrorKind::Cancelled): the switch was thrown.
    /// * [`ErrorKind::ReadOnly`](crate::ErrorKind::ReadOnly),
    ///   [`ErrorKind::StorageFull`](crate::ErrorKind::StorageFull), [`ErrorKind::Io`](crate::ErrorKind::Io): the
    ///   operating system refuses, or the reader fails.
    pub fn to(mut self, store: &Store) -> Result<Descriptor> {
        let mut import = || {
            self.check()?;
            let store = &store.leased()?;
            let created = self.created.map(text_of).transpose()?;
            let (layer, diff_id, size) = self.layer(store)?;
            store.keep_size(diff_id, size);
            let config = self.config(diff_id, created.as_deref());
            let config = store.write(MediaType::OCI_CONFIG, config.to_string().as_bytes())?;
            let manifest = json!({
                "schemaVersion": 2, "mediaType": MediaType::OCI_MANIFEST, "config": config, "layers": [layer],
            });
            store.write(MediaType::OCI_MANIFEST, manifest.to_string().as_bytes())
        };
        import().context(|| "import a tarball")
    }

    fn set(mut self, key: &'static str, value: Value) -> Import<R> {
        self.execution.insert(key, value);
        self
    }

    fn insert(mut self, key: &'static str, name: String, value: Value) -> Import<R> {
        self.execution.entry(key).or_insert_with(|| json!({}))[name] = value;
        self
    }

    fn check(&self) -> Result<()> {
        let is_name = |name: &str| !name.is_empty() && !name.contains(['=', '\0']);
        match self.env.iter().find(|(name, _)| !is_name(name)) {
            Some((name, _)) => Err(Error::invalid_input(format!("{name:?} is no name of a variable"))),
            None => Ok(()),
        }
    }

    /// Takes the tarball in, as it is: the blob, and the digest and size of the tar inside.
    fn layer(&mut self, store: &Store) -> Result<(Descriptor, Digest, u64)> {
        let mut writer = store.writer(Algorithm::Sha256)?;
        let tee = Tee { reader: &mut self.tarball, writer: &mut writer };
        let intake = Intake::new(tee, self.limits, &self.cancel)?;
        let media_type = match intake.compression() {
            Compression::Gzip => MediaType::OCI_LAYER_GZIP,
            Compression::Zstd => MediaType::OCI_LAYER_ZSTD,
            Compression::None => MediaType::OCI_LAYER,
        };
        let mut hashed = Hashed { inner: intake, hasher: Hasher::new(Algorithm::Sha256), size: 0 };
        let mut entries = Entries::new(io::BufReader::with_capacity(64 << 10, &mut hashed), self.limits);
        while entries.advance()? {}
        drop(entries);
        let (diff_id, size) = (hashed.hasher.finish(), hashed.size);
        drop(hashed.inner);
        Ok((writer.commit(media_type)?, diff_id, size))
    }

    fn config(&self, diff_id: Digest, created: Option<&str>) -> Value {
        let mut step = json!({ "comment": self.comment });
        let mut execution = json!(self.execution);
        if !self.env.is_empty() {
            execution["Env"] = self.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
        }
        let mut config = json!({
            "architecture": self.platform.architecture(), "os": self.platform.os(), "config": execution,
            "rootfs": { "type": "layers", "diff_ids": [diff_id] },
        });
        if let Some(variant) = self.platform.variant() {
            config["variant"] = variant.into();
        }
        if let Some(author) = &self.author {
            config["author"] = author.as_str().into();
            step["author"] = author.as_str().into();
        }
        if let Some(created) = created {
            config["created"] = created.into();
            step["created"] = created.into();
        }
        config["history"] = json!([step]);
        config
    }
}

impl<R> fmt::Debug for Import<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Import")
            .field("comment", &self.comment)
            .field("platform", &self.platform)
            .finish_non_exhaustive()
    }
}

fn words(words: impl IntoIterator<Item = impl Into<String>>) -> Value {
    words.into_iter().map(Into::<String>::into).collect()
}

fn text_of(time: SystemTime) -> Result<String> {
    let time = jiff::Timestamp::try_from(time);
    Ok(time.map_err(|error| Error::invalid_input(format!("the time of the image: {error}")))?.to_string())
}

/// Keeps what is read.
struct Tee<'a, R> {
    reader: R,
    writer: &'a mut BlobWriter,
}

impl<R: Read> Read for Tee<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        self.writer.append(&buffer[..count])?;
        Ok(count)
    }
}

/// Hashes and counts what is read.
struct Hashed<R> {
    inner: R,
    hasher: Hasher,
    size: u64,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        self.size += count as u64;
        Ok(count)
    }
}
