//! Checks dependencies against the licences, bans and sources of `deny.toml`, and what the published package contains.
//!
//! `cargo deny check` reads the same file; these tests need neither the tool nor a network.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde::Deserialize;
use serde::de::DeserializeOwned;

/// The rules of `deny.toml` that are checked here.
#[derive(Deserialize)]
struct Rules {
    graph: Graph,
    licenses: Licenses,
    bans: Bans,
    sources: Sources,
}

#[derive(Deserialize)]
struct Graph {
    targets: Vec<String>,
}

#[derive(Deserialize)]
struct Licenses {
    allow: Vec<String>,
    exceptions: Vec<Exception>,
}

/// More licences that one crate may have.
#[derive(Deserialize)]
struct Exception {
    #[serde(rename = "crate")]
    name: String,
    allow: Vec<String>,
}

#[derive(Deserialize)]
struct Bans {
    deny: Vec<Banned>,
}

#[derive(Deserialize)]
struct Banned {
    #[serde(rename = "crate")]
    name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Sources {
    allow_registry: Vec<String>,
}

/// A package, as `cargo metadata` and `Cargo.lock` describe it.
#[derive(Deserialize)]
struct Package {
    name: String,
    license: Option<String>,
    source: Option<String>,
}

/// The packages of `cargo metadata`'s output.
#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

/// The packages of a `Cargo.lock`.
#[derive(Deserialize)]
struct Lock {
    package: Vec<Package>,
}

#[test]
fn licences_of_dependencies_are_allowed() {
    let rules = rules();
    for target in &rules.graph.targets {
        let arguments = ["metadata", "--locked", "--all-features", "--format-version=1", "--filter-platform", target];
        let metadata: Metadata = serde_json::from_str(&cargo(&arguments)).expect("cargo prints JSON");
        assert!(metadata.packages.len() > 50, "cargo lists only {} packages", metadata.packages.len());
        assert_eq!(forbidden_licences(&rules.licenses, &metadata.packages), Vec::<String>::new(), "for {target}");
    }
}

#[test]
fn banned_crates_are_not_dependencies() {
    let rules = rules();
    let banned = |package: &&Package| rules.bans.deny.iter().any(|banned| banned.name == package.name);
    let lock: Lock = toml("Cargo.lock");
    let found: Vec<&str> = lock.package.iter().filter(banned).map(|package| package.name.as_str()).collect();
    assert_eq!(found, Vec::<&str>::new());
}

/// Also those of the crates beside this one, which are not published.
#[test]
fn dependencies_come_from_crates_io() {
    let rules = rules();
    let allowed = |source: &str| rules.sources.allow_registry.iter().any(|url| source == format!("registry+{url}"));
    for file in ["Cargo.lock", "fuzz/Cargo.lock", "benches/peers/Cargo.lock", "benches/backends/Cargo.lock"] {
        if !root().join(file).exists() && file != "Cargo.lock" {
            println!("skipped: the published package has no {file}");
            continue;
        }
        let lock: Lock = toml(file);
        // A package without a source is a directory of this repository.
        let sources = lock.package.iter().filter_map(|package| Some((&package.name, package.source.as_ref()?)));
        let elsewhere: BTreeMap<&String, &String> = sources.filter(|(_, source)| !allowed(source)).collect();
        assert_eq!(elsewhere, BTreeMap::new(), "in {file}");
    }
}

/// The check of licences finds the packages that break the rules.
#[test]
fn licence_expressions_are_evaluated() {
    let exceptions = vec![Exception { name: "excepted".to_owned(), allow: vec!["MPL-2.0".to_owned()] }];
    let allow = ["MIT", "Apache-2.0", "Unicode-3.0"].map(str::to_owned).to_vec();
    let licences = Licenses { allow, exceptions };
    let package = |name: &str, license: Option<&str>| Package {
        name: name.to_owned(),
        license: license.map(str::to_owned),
        source: None,
    };
    for (name, license, is_allowed) in [
        ("a", Some("MIT"), true),
        ("a", Some("MIT/Apache-2.0"), true),
        ("a", Some("MIT OR GPL-3.0-only"), true),
        ("a", Some("(MIT OR GPL-3.0-only) AND Unicode-3.0"), true),
        ("a", Some("MIT AND GPL-3.0-only"), false),
        ("a", Some("MPL-2.0"), false),
        ("a", Some("Apache-2.0 WITH LLVM-exception"), false),
        ("excepted", Some("MPL-2.0"), true),
        ("excepted", Some("GPL-3.0-only"), false),
        ("a", Some("nonsense licence"), false),
        ("a", None, false),
    ] {
        let found = forbidden_licences(&licences, &[package(name, license)]);
        assert_eq!(found.is_empty(), is_allowed, "{name}: {license:?}");
    }
}

/// Fuzz targets, CI and programs to compare with are of use only in the repository.
#[test]
fn package_contains_no_development_crates() {
    if root().join("Cargo.toml.orig").exists() {
        println!("skipped: this is the published package");
        return;
    }
    let list = cargo(&["package", "--list", "--allow-dirty"]);
    for needed in ["src/lib.rs", "Cargo.toml", "README.md", "SECURITY.md", "LICENSE-MIT", "LICENSE-APACHE"] {
        assert!(list.lines().any(|file| file == needed), "the package has no {needed}");
    }
    let unwanted = [".ci/", "fuzz/", "benches/peers/", "benches/backends/", "target/"];
    let found: Vec<&str> = list.lines().filter(|file| unwanted.iter().any(|dir| file.starts_with(dir))).collect();
    assert_eq!(found, Vec::<&str>::new());
}

/// The packages whose licence is not allowed, each with the licence.
fn forbidden_licences(rules: &Licenses, packages: &[Package]) -> Vec<String> {
    let is_allowed = |package: &&Package| {
        let exceptions = rules.exceptions.iter().filter(|exception| exception.name == package.name);
        let allow: Vec<&String> = rules.allow.iter().chain(exceptions.flat_map(|exception| &exception.allow)).collect();
        let license = package.license.as_deref().unwrap_or_default();
        // Lax, because older crates write `MIT/Apache-2.0`.
        spdx::Expression::parse_mode(license, spdx::ParseMode::LAX)
            .is_ok_and(|expression| expression.evaluate(|required| allow.contains(&&required.to_string())))
    };
    let forbidden = packages.iter().filter(|package| !is_allowed(package));
    forbidden.map(|package| format!("{}: {:?}", package.name, package.license)).collect()
}

fn rules() -> Rules {
    toml("deny.toml")
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[track_caller]
fn toml<T: DeserializeOwned>(file: &str) -> T {
    let text = fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
    toml::from_str(&text).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// Runs cargo and returns what it prints.
#[track_caller]
fn cargo(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO")).args(arguments).current_dir(root()).output().expect("cargo can be run");
    assert!(output.status.success(), "cargo {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("cargo prints text")
}
