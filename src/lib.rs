//! Container images.

#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod compression;
pub mod descriptor;
pub mod digest;
pub mod error;
pub mod event;
mod fs;
pub mod image;
pub mod manifest;
pub mod media_type;
pub mod platform;
pub mod reference;
pub mod store;
mod verify;

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
pub use store::Durability;
pub use store::Store;
#[cfg(feature = "registry")]
pub mod registry;
#[cfg(feature = "registry")]
pub mod transfer;
#[cfg(feature = "registry")]
pub use registry::Registry;
#[cfg(feature = "testing")]
pub mod testing;
