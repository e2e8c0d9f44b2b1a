//! A registry in this process, for tests. Not for production.
//!
//! * [`Registry`] serves a [`Store`](crate::Store) on a loopback address, over plain http.
//! * [`Fault`] is something that goes wrong with certain requests: a status, a delay, a body that breaks off.
//! * [`Request`] is what was asked, for tests that count.
//! * [`Fixture`] makes small images to serve.
//!
//! ```
//! use layercake::testing::{Fault, Fixture, Registry};
//! use layercake::{ImageReference, Store};
//!
//! # let dir = tempfile::tempdir()?;
//! let served = Store::create(dir.path().join("served"))?;
//! let name: ImageReference = "example.com/app:1".parse()?;
//! Fixture::new("linux/amd64".parse()?).layer(&[("etc/motd", b"hello\n")]).tag(&served, &name)?;
//!
//! let registry = Registry::start(&served)?;
//! registry.fault(Fault::on("/blobs/").times(1).truncate(10));
//!
//! // Your program pulls this, and has to cope.
//! let image = registry.reference("app:1")?;
//! # #[cfg(feature = "registry")] {
//! # let quick = |failure: &layercake::registry::Failure<'_>| (failure.attempt < 3).then_some(std::time::Duration::ZERO);
//! let store = Store::create(dir.path().join("store"))?;
//! # let client = layercake::Registry::builder().retry(quick).build()?;
//! # client.pull(&image).to(&store)?;
//! assert!(registry.requests().iter().filter(|request| request.path.contains("/blobs/")).count() > 2);
//! # }
//! # Ok::<(), layercake::Error>(())
//! ```
//!
//! The name of a repository is what stands behind the host in the names of the store, whatever their host: an image
//! that the store calls `example.com/app:1` is served as `app:1`.
//!
//! It does: manifests by tag and digest, blobs with ranges, Basic and token authentication, all for reading. It does
//! not: take anything in, speak TLS, listen on other than loopback addresses, or protect itself from its clients.

mod answer;
mod auth;
mod blobs;
mod body;
mod clock;
mod connection;
mod contents;
mod discovery;
mod endpoint;
mod fault;
mod fixture;
mod manifests;
mod manners;
mod refusal;
mod request;
mod search;
mod server;
mod service;
mod tokens;
mod uploads;
mod wire;

pub use clock::Clock;
pub use fault::Fault;
pub use fixture::Fixture;
pub use request::Request;
pub use search::SearchResult;
pub use server::Registry;
