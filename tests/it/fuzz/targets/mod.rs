//! One function for each fuzz target. Each takes any bytes and panics if the crate breaks a promise on them.
//!
//! `cargo test` calls them with the files of `fuzz/corpus` and mutations of these (`tests/it/fuzz.rs`); the crate in
//! `fuzz/` includes this module and calls them from cargo-fuzz. So this module uses nothing else of the tests.

mod documents;
mod layers;
#[cfg(feature = "registry")]
mod registry;

use layercake::ImageReference;

pub use documents::config;
pub use documents::index;
pub use documents::manifest;
pub use layers::apply;
pub use layers::gzip;
pub use layers::is_applied;
pub use layers::tar;
#[cfg(feature = "zstd")]
pub use layers::zstd;
#[cfg(feature = "registry")]
pub use registry::challenge;
#[cfg(feature = "registry")]
pub use registry::docker_config;
#[cfg(feature = "registry")]
pub use registry::link;

/// Parses image references. A reference that parses has canonical and familiar forms that parse to it.
pub fn reference(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let reference: ImageReference = match text.parse() {
        Ok(reference) => reference,
        Err(error) => {
            assert!(error.at() <= text.len(), "{text:?}: {error:?}");
            return check_message(&error);
        }
    };
    let derived = [reference.or_latest(), reference.exact(), reference.without_tag()];
    for reference in derived.iter().chain([&reference]) {
        for spelling in [reference.to_string(), reference.familiar().to_string()] {
            assert!(spelling.bytes().all(|byte| byte.is_ascii_graphic()), "{text:?} is shown as {spelling:?}");
            assert_eq!(spelling.parse().as_ref(), Ok(reference), "{text:?} is shown as {spelling:?}");
        }
        let json = serde_json::to_string(reference).expect("a reference is a JSON string");
        assert_eq!(&serde_json::from_str::<ImageReference>(&json).expect("it was written so"), reference);
    }
    let repository = reference.repository();
    assert!(!repository.split('/').any(|part| part.is_empty() || part.starts_with('.')), "{text:?}: {repository:?}");
    assert!(reference.tag().is_none_or(|tag| (1..=128).contains(&tag.len())), "{text:?}");
}

/// Asserts that an error text is one short printable line.
fn check_message(error: &dyn std::fmt::Display) {
    let text = error.to_string();
    assert!(!text.contains(char::is_control), "{text:?} has control characters");
    assert!(text.len() < 16 << 10, "an error text of {} bytes: {}", text.len(), text.escape_debug());
}
