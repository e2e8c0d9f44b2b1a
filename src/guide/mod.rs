//! What does not fit beside the code.
//!
//! * [`cookbook`]: what one does with images, as programs.
//! * [`design`]: why the crate is built as it is.
//! * [`layout`]: how the files of a store lie, and what is promised of them.
//! * [`threats`]: what layers and registries may try, and what stands in the way.

#[doc = include_str!("cookbook.md")]
pub mod cookbook {}

#[doc = include_str!("design.md")]
pub mod design {}

#[doc = include_str!("layout.md")]
pub mod layout {}

#[doc = include_str!("threats.md")]
pub mod threats {}
