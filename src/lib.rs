//! Container images as a library: names, documents, layers, a store on disk that many processes share, and a blocking
//! client for registries. No daemon, no async runtime, no OpenSSL, no global state, and no child processes but the
//! credential helpers that you ask for.
//!
//! ```no_run
//! # #[cfg(feature = "registry")]
//! # fn example() -> layercake::Result<()> {
//! use layercake::{ImageReference, Registry, Store};
//!
//! let image: ImageReference = "alpine:3.20".parse()?;
//! assert_eq!(image.to_string(), "docker.io/library/alpine:3.20");
//!
//! let store = Store::open_or_create("/var/lib/layercake")?;
//! let pulled = Registry::new().pull(&image).to(&store)?;
//! println!("{}: {:?}", pulled.root.digest, pulled.status);
//!
//! for entry in store.images()? {
//!     let (reference, image) = entry?;
//!     println!("{:<40} {} {:>10}", reference.familiar(), image.id().short(), image.size());
//! }
//!
//! let done = store.image(&image)?.unpack("/srv/jail/rootfs")?;
//! println!("{} entries, {} left out", done.entries, done.skipped.len());
//! # Ok(())
//! # }
//! ```
//!
//! # The tour
//!
//! An image is files and metadata. The files are made of stacked *layers*, each a set of additions, changes and
//! removals on top of those below; layers are read-only, and images that have one in common share it. What follows
//! is named from the ground up.
//!
//! **Words.** An [`ImageReference`] is a name: `ubuntu`, `jpetazzo/clock:1`, `localhost:5000/wordpress@sha256:…`. A
//! [`Digest`] is the name that content gives itself. A [`Platform`] is what an image runs on, a [`MediaType`] says
//! what bytes are, and a [`Descriptor`] promises content: its type, its digest, its size.
//!
//! **Documents.** A [`Manifest`] is one image: a configuration and layers. An [`Index`] lists manifests, one for each
//! platform. A [`Config`] says what to run and how the image was made. Each keeps its bytes exactly as they came.
//!
//! **On the host.** A [`Store`] is a directory of images: an OCI image layout that other tools read as it stands. An
//! [`Image`] is a manifest, its configuration and its layers, in a store; a [`Layer`] is one of these, and proof that
//! its content was verified.
//!
//! **As a root file system.** [`Image::unpack`] makes one: whole and verified, or not at all. [`changeset`] applies single
//! layers and makes new ones of what changed. Nothing is unpacked to read a file ([`Image::read_file`]), to compare two
//! images ([`Image::diff`]), or to ask which layer touched a path ([`Image::blame`]).
//!
//! **To be changed.** [`Image::checkout`] makes a working copy, a [`Checkout`], which says [what
//! changed](Checkout::changes) and makes [an image of it](Checkout::commit). A [`manifest::ConfigEdit`] changes what an
//! image runs.
//!
//! **New ones.** An [`ImageBuilder`] makes an image in steps: the same steps make the same image anywhere, and what was
//! done before is not done again. [`Image::edit`], [`Image::squash`] and [`Image::rebase`] make an image of another one.
//!
//! **As files.** [`archive`] loads what `docker save` and others write, saves images so, and imports a tarball of files
//! as an image.
//!
//! **In registries.** A [`Registry`] is a client for any host. It [pulls](Registry::pull) an image into a store and
//! [pushes](Registry::push) one out of it: in parallel, in constant memory, with everything verified, and from where it
//! was when something breaks. It [copies](Registry::copy) between registries, [searches](Registry::search), lists what
//! there is, and [checks](Registry::check) whether there is something newer. What it knows of you is what you tell it,
//! or what [`registry::DockerConfig`] reads.
//!
//! **Along the way.** An [`Observer`] is told of each [`Event`], and a closure is one. A [`Cancel`] ends what watches
//! it. An [`Error`] says at which step what went wrong, and has a [`kind`](Error::kind) to match on.
//!
//! **In tests.** [`testing::Registry`] serves a store from within your process, and breaks in whichever way a test
//! asks for.
//!
//! The [`guide`] has what does not fit here: how the files of a store lie and what is promised of them, and why the
//! crate is built as it is.
//!
//! # Features
//!
//! | feature | what it brings | default |
//! | --- | --- | --- |
//! | `registry` | the registry client, over plain http | yes |
//! | `rustls` | TLS for it; implies `registry` | yes |
//! | `zstd` | layers compressed with zstd | yes |
//! | `oci-spec` | documents as the types of the crate of that name: `as_oci` | no |
//! | `testing` | a registry in this process, for tests | no |
//!
//! Without default features this is a crate that never opens a connection: names, documents, the store, its
//! images, archives.
//!
//! # What it does not do
//!
//! It runs nothing, and mounts nothing but the overlays of working copies. It reads no configuration files and no
//! environment variables unless it is told to.

#![forbid(unsafe_code)]
#![deny(missing_docs)]
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod archive;
pub mod builder;
pub mod changeset;
pub mod checkout;
pub mod compression;
pub mod descriptor;
pub mod digest;
pub mod error;
pub mod event;
mod fs;
#[cfg(feature = "testing")]
#[doc(hidden)]
pub mod fuzzing;
pub mod guide;
pub mod image;
mod json;
pub mod manifest;
pub mod media_type;
mod memory;
pub mod platform;
pub mod reference;
#[cfg(feature = "registry")]
pub mod registry;
pub mod store;
mod sync;
#[cfg(feature = "testing")]
pub mod testing;
#[cfg(feature = "registry")]
pub mod transfer;
mod verify;

pub use builder::ImageBuilder;
pub use checkout::Checkout;
pub use compression::Compression;
pub use descriptor::Descriptor;
pub use digest::Algorithm;
pub use digest::Digest;
pub use error::Error;
pub use error::ErrorKind;
pub use error::Result;
pub use event::Cancel;
pub use event::Event;
pub use event::Observer;
pub use image::Image;
pub use image::Layer;
pub use manifest::Config;
pub use manifest::Index;
pub use manifest::Manifest;
pub use media_type::MediaType;
pub use platform::Platform;
pub use reference::ImageReference;
#[cfg(feature = "registry")]
pub use registry::Registry;
pub use store::Durability;
pub use store::Store;
#[cfg(feature = "registry")]
pub use transfer::PullPolicy;
pub use verify::VerifiedReader;
