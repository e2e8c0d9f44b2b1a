//! How steps are taken.

use std::path::PathBuf;

use crate::changeset::Limits;
use crate::compression::EncoderOptions;
use crate::event::Cancel;

/// What holds for all steps.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) how: EncoderOptions,
    pub(super) epoch: Option<i64>,
    pub(super) uses_cache: bool,
    /// Where working copies are made.
    pub(super) work_dir: Option<PathBuf>,
    pub(super) limits: Limits,
    pub(super) cancel: Cancel,
}
