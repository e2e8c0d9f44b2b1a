//! The same documents as the `oci-spec` crate has them.

use oci_spec::image::ImageConfiguration;
use oci_spec::image::ImageIndex;
use oci_spec::image::ImageManifest;

use super::Config;
use super::Index;
use super::Manifest;

use crate::error::Error;
use crate::error::Result;

impl Manifest {
    /// The same document as the `oci-spec` crate has it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidDocument`](crate::ErrorKind::InvalidDocument) where that crate is stricter than the wild (it
    /// refuses `"layers": null`).
    pub fn as_oci(&self) -> Result<ImageManifest> {
        ImageManifest::from_reader(self.raw()).map_err(|error| Error::invalid_document("manifest", error))
    }
}

impl Index {
    /// The same document as the `oci-spec` crate has it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidDocument`](crate::ErrorKind::InvalidDocument) where that crate is stricter.
    pub fn as_oci(&self) -> Result<ImageIndex> {
        ImageIndex::from_reader(self.raw()).map_err(|error| Error::invalid_document("index", error))
    }
}

impl Config {
    /// The same document as the `oci-spec` crate has it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidDocument`](crate::ErrorKind::InvalidDocument) where that crate is stricter.
    pub fn as_oci(&self) -> Result<ImageConfiguration> {
        ImageConfiguration::from_reader(self.raw()).map_err(|error| Error::invalid_document("configuration", error))
    }
}
