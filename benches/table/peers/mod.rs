//! The programs that do the same.

mod buildah;
mod podman;
mod umoci;

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

pub use buildah::Buildah;
pub use podman::Podman;
pub use umoci::Umoci;
pub use umoci::umoci_unpack;

use super::support;
use super::support::installed;
use super::support::printed;

const PROGRAMS: [&str; 10] =
    ["docker-registry", "skopeo", "umoci", "buildah", "podman", "tar", "gzip", "pigz", "zstd", "sha256sum"];

/// The Rust crates, and which program of `benches/peers` each is.
const CRATES: [(&str, &str); 2] = [("oci-client", "layercake-peers"), ("oci-image", "unpack")];

/// Prints one line with those that are there, and on stderr those that are not.
pub fn print_versions() {
    let mut versions = Vec::new();
    for program in PROGRAMS {
        match is_there(program) {
            true => versions.push(format!("{program} {}", version(program))),
            false => eprintln!("{program} is left out: it is not installed"),
        }
    }
    for (name, _) in CRATES {
        match rust(name) {
            Some(_) => versions.push(format!("{name} {}", locked(name))),
            None => eprintln!("{name} is left out: build benches/peers first"),
        }
    }
    println!("Peers: {}.\n", versions.join(", "));
}

/// Whether it can be run.
pub fn is_there(program: &str) -> bool {
    installed(program)
}

/// The program that uses a Rust crate, if it was built.
pub fn rust(name: &str) -> Option<PathBuf> {
    let (_, program) = CRATES.into_iter().find(|(of, _)| *of == name)?;
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers/target/release").join(program);
    path.is_file().then_some(path)
}

pub fn skopeo(source: &str, target: &str) -> Command {
    let mut command = Command::new("skopeo");
    command.args(["copy", "-q"]);
    // A layout takes neither.
    command.args(source.starts_with("docker:").then_some("--src-tls-verify=false"));
    command.args(target.starts_with("docker:").then_some("--dest-tls-verify=false"));
    command.args([source, target]);
    command
}

/// Layer after layer, without whiteouts and without verifying.
pub fn tar(option: &str, blobs: &[PathBuf], target: &Path) -> Command {
    let mut command = Command::new("sh");
    let script = format!("mkdir \"$0\" && for blob; do tar {option} -xf \"$blob\" -C \"$0\" || exit; done");
    command.args(["-c", &script]).arg(target).args(blobs);
    command
}

/// Every blob of a layout, in two processes.
pub fn sha256sum(layout: &Path) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", "find \"$0/blobs\" -type f -print0 | xargs -0 -n 1 -P 2 sha256sum"]).arg(layout);
    command
}

/// The first word of what it prints that begins with a digit.
fn version(program: &str) -> String {
    let text = printed(Command::new(program).arg("--version")).unwrap_or_default();
    let mut words = text.split_whitespace().map(|word| word.trim_start_matches('v').trim_end_matches([',', ')']));
    words.find(|word| word.starts_with(|c: char| c.is_ascii_digit())).unwrap_or("?").to_owned()
}

fn locked(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers/Cargo.lock");
    let text = fs::read_to_string(path).unwrap_or_default();
    let after = text.split_once(&format!("name = \"{name}\"\nversion = \"")).map_or("?", |(_, after)| after);
    after.split('"').next().unwrap_or("?").to_owned()
}
