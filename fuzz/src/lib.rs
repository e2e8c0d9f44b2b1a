//! The fuzz targets of layercake, for cargo-fuzz. Their bodies are in `tests/it/fuzz/targets`, where `cargo test` runs
//! them too. `./run TARGET SECONDS` runs one.

#[path = "../../tests/it/fuzz/targets/mod.rs"]
pub mod targets;
