//! What the benches share: timing of programs, images, a registry, medians, settings.

#![allow(dead_code, reason = "each bench uses a part of this")]

pub mod image;
pub mod made;
pub mod names;
pub mod ours;
pub mod pack;
pub mod process;
pub mod registry;
pub mod scratch;

use std::ffi::OsString;
use std::process::Command;

/// The middle value.
pub fn median<T: Copy + PartialOrd>(values: impl IntoIterator<Item = T>) -> T {
    let mut values: Vec<T> = values.into_iter().collect();
    values.sort_by(|a, b| a.partial_cmp(b).expect("times can be compared"));
    values[values.len() / 2]
}

/// Whether a program is on `PATH`.
pub fn installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

/// A number from the environment.
pub fn setting(name: &str, otherwise: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// Builds examples of this crate as benches are built.
pub fn build(examples: &[&str]) {
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "-q", "--release"]);
    // What cargo tells a bench of its package: build scripts that look at it would all run again.
    let of_package = |name: &OsString| {
        let name = name.to_string_lossy();
        ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_CRATE_", "CARGO_BIN_"].iter().any(|start| name.starts_with(start))
    };
    std::env::vars_os().map(|(name, _)| name).filter(of_package).for_each(|name| {
        build.env_remove(name);
    });
    build.args(examples.iter().flat_map(|example| ["--example", example]));
    assert!(build.status().expect("cargo runs").success());
}

/// What a program prints, cut at both ends; nothing if it cannot be run.
pub fn printed(command: &mut Command) -> Option<String> {
    let output = command.output().ok()?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
