//! Holds the house to its plan: a module uses only floors below its own, and modules on one floor are strangers.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// From the ground up; `lib`, `guide` and `fuzzing` stand on the roof.
const FLOORS: [&[&str]; 11] = [
    &["digest", "platform", "media_type", "sync"],
    &["reference", "descriptor"],
    &["error"],
    &["event", "json", "memory"],
    &["compression", "verify", "fs"],
    &["manifest"],
    &["changeset", "store", "registry"],
    &["image"],
    &["transfer", "archive", "checkout"],
    &["builder"],
    &["testing"],
];
const ROOF: &[&str] = &["lib", "guide", "fuzzing"];

#[test]
fn no_module_uses_a_floor_above_its_own_or_a_neighbour() {
    let floor_of: BTreeMap<&str, usize> =
        FLOORS.iter().enumerate().flat_map(|(n, floor)| floor.iter().map(move |module| (*module, n))).collect();
    let mut read = 0;
    let mut broken = Vec::new();
    for (file, text) in sources(Path::new(env!("CARGO_MANIFEST_DIR")).join("src").as_path()) {
        let module = module_of(&file);
        if ROOF.contains(&module.as_str()) {
            continue;
        }
        let floor = *floor_of.get(module.as_str()).unwrap_or_else(|| panic!("{file}: {module} is on no floor"));
        for used in uses(&text) {
            read += 1;
            let below = floor_of.get(used.as_str()).unwrap_or_else(|| panic!("{file}: {used} is on no floor"));
            if used != module && *below >= floor {
                broken.push(format!("{file} (floor {floor}) uses crate::{used} (floor {below})"));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
    assert!(read > 100, "only {read} uses were read: has the form of imports changed?");
}

#[test]
fn only_one_file_names_the_http_client() {
    let named: Vec<String> = sources(Path::new(env!("CARGO_MANIFEST_DIR")).join("src").as_path())
        .into_iter()
        .filter(|(_, text)| text.lines().any(|line| !line.trim_start().starts_with("//") && line.contains("ureq::")))
        .map(|(file, _)| file)
        .collect();
    assert_eq!(named, ["registry/http.rs"]);
}

/// Every source file below `src`, by its path there.
fn sources(src: &Path) -> Vec<(String, String)> {
    fn walk(dir: &Path, src: &Path, found: &mut Vec<(String, String)>) {
        for entry in fs::read_dir(dir).expect("src can be read") {
            let path = entry.expect("src can be read").path();
            if path.is_dir() {
                walk(&path, src, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(src).expect("it is below src").display().to_string();
                found.push((name, fs::read_to_string(&path).expect("a source file is text")));
            }
        }
    }
    let mut found = Vec::new();
    walk(src, src, &mut found);
    found
}

fn module_of(file: &str) -> String {
    file.split(['/', '.']).next().unwrap_or_default().to_owned()
}

/// The modules that a file names behind `crate::`, outside of comments and of its tests.
fn uses(text: &str) -> Vec<String> {
    let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
    lines
        .flat_map(|line| line.split("crate::").skip(1))
        .map(|rest| rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default().to_owned())
        .filter(|module| !module.is_empty())
        .collect()
}
