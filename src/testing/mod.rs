//! A registry in this process, for tests. Not for production.
//!
//! * [`Registry`] serves a [`Store`](crate::Store) on a loopback address, over plain http, and takes in what is pushed.
//! * [`Fault`] is something that goes wrong with certain requests: a status, a delay, a body that breaks off.
//! * [`Request`] is what was asked, for tests that count.
//! * [`Fixture`] makes small images to serve.
//! * [`Protection`] refuses requests of other users and of web pages, for a registry that runs longer than a test.
//! * [`SearchResult`] is a repository that Docker's search finds.
//! * [`Clock`] is a time that a test moves, for tokens that expire.
//!
//! # Testing a program that pulls
//!
//! Fill a store, serve it, let something go wrong, and look at what the program made of it.
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
//! that the store calls `example.com/app:1` is served as `app:1`. A repository has all that its names lead to, and
//! nothing else that is in the store.
//!
//! # Testing a program that pushes
//!
//! What is pushed by tag gets a name in the store, where the test finds it: the one that the store has for it, or the
//! one that [`reference`](Registry::reference) gives. This example pushes by hand; a program of yours would be given
//! the name and do the same.
//!
//! ```
//! use std::io::{Read, Write};
//! use std::net::TcpStream;
//! use layercake::testing::{Fault, Registry};
//! use layercake::{Digest, Store};
//!
//! # let dir = tempfile::tempdir()?;
//! let store = Store::create(dir.path().join("store"))?;
//! let registry = Registry::start(&store)?;
//! let send = |request: String| -> std::io::Result<String> {
//!     let mut connection = TcpStream::connect(registry.address())?;
//!     connection.write_all(request.as_bytes())?;
//!     let mut reply = String::new();
//!     connection.read_to_string(&mut reply)?;
//!     Ok(reply)
//! };
//! let config = Digest::sha256(b"{}");
//! let push = format!("POST /v2/app/blobs/uploads/?digest={config} HTTP/1.0\r\nContent-Length: 2\r\n\r\n{{}}");
//!
//! // The first attempt fails before anything is done. With `carry_out`, only the answer would be lost.
//! registry.fault(Fault::on("/uploads/").method("POST").times(1).status(503).header("retry-after", "0"));
//! assert!(send(push.clone())?.starts_with("HTTP/1.1 503"));
//! assert!(send(push)?.starts_with("HTTP/1.1 201"));
//!
//! let config = format!("{{\"mediaType\":\"application/vnd.oci.empty.v1+json\",\"digest\":\"{config}\",\"size\":2}}");
//! let manifest = format!("{{\"schemaVersion\":2,\"config\":{config},\"layers\":[]}}");
//! let length = manifest.len();
//! send(format!("PUT /v2/app/manifests/1 HTTP/1.0\r\nContent-Length: {length}\r\n\r\n{manifest}"))?;
//! assert_eq!(store.resolve(registry.reference("app:1")?)?.digest, Digest::sha256(manifest.as_bytes()));
//! # Ok::<(), layercake::Error>(())
//! ```
//!
//! [`Fault::break_upload`] breaks a connection in the middle of a body; the session keeps what came.
//!
//! # Registries that are different
//!
//! Unless it is told otherwise, the registry does all that distribution-spec asks and allows. Real ones do less, and
//! clients have to cope: [`without_referrers`](Registry::without_referrers),
//! [`without_mounts`](Registry::without_mounts), [`largest_body`](Registry::largest_body),
//! [`stateful_locations`](Registry::stateful_locations) and others are switches for that, and a [`Fault`] takes the
//! place of any answer, or of a header in it. [`require_tokens`](Registry::require_tokens) and its kin demand that
//! clients sign in; this token lives for as long as the test wants:
//!
//! ```
//! use std::time::Duration;
//! use layercake::testing::{Clock, Registry};
//! # let dir = tempfile::tempdir()?;
//! # let store = layercake::Store::create(dir.path().join("store"))?;
//!
//! let registry = Registry::start(&store)?;
//! let clock = Clock::new();
//! registry.require_login("alice", "secret");
//! registry.require_tokens(Duration::from_secs(300));
//! registry.use_clock(&clock);
//! // Your program signs in, and then has to do so again.
//! clock.advance(Duration::from_secs(301));
//! # Ok::<(), layercake::Error>(())
//! ```
//!
//! # Limitations
//!
//! It does: pulling, pushing, discovery and management of content as distribution-spec has them, by SHA-256 and
//! SHA-512; Basic and token authentication with OAuth2; Docker's catalog and search. It does not: speak TLS, listen on
//! other than loopback addresses, tell the users of the machine apart, or remove blobs from the store. What was pushed by
//! digest alone, mounted or deleted it knows only until it stops; what has a tag stays in the store.

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
mod protection;
mod refusal;
mod request;
mod route;
mod scope;
mod search;
mod server;
mod service;
mod sessions;
mod switches;
mod token_server;
mod tokens;
mod uploads;
mod wire;

pub use clock::Clock;
pub use fault::Fault;
pub use fixture::Fixture;
pub use protection::Protection;
pub use request::Request;
pub use search::SearchResult;
pub use server::Registry;
