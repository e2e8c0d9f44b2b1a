//! Pulls an image from a local `docker-registry` beside other clients, in one run, and prints the ratios.
//!
//! `cargo bench --bench pull`. Needs `docker-registry` and `skopeo` on `PATH`; a Rust client is measured too where
//! `cargo build --release --manifest-path benches/peers/Cargo.toml` was run before.
//!
//! * `LAYERCAKE_BENCH_IMAGE`: an image for skopeo to copy from, such as `oci:/srv/image:app`; without it, one of five
//!   layers of 40 MB is made.
//! * `LAYERCAKE_BENCH_RUNS`: how many runs of each; 7 by default. Each round runs all, so that all see the same machine.

#[path = "support/registry.rs"]
mod registry;
mod support;

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use registry::Registry;
use registry::source;
use support::Run;
use support::example;
use support::installed;
use support::measure;
use support::median;
use support::setting;

/// One client: its name, and its command line for an image and an empty directory.
struct Client {
    name: &'static str,
    command: fn(&str, &Path) -> Command,
    runs: Vec<Run>,
}

fn main() {
    for program in ["docker-registry", "skopeo"] {
        if !installed(program) {
            println!("nothing is measured: needs {program}");
            return;
        }
    }
    let built = Command::new(env!("CARGO")).args(["build", "-q", "--release", "--example", "pull"]).status();
    assert!(built.expect("cargo runs").success());
    let scratch = tempfile::tempdir().expect("a directory can be made");
    let registry = Registry::start(scratch.path());
    let image = registry.fill(&source(scratch.path()));

    let mut clients = vec![
        Client { name: "layercake, durability off", command: |image, dir| ours(image, dir, true), runs: vec![] },
        Client { name: "layercake, durability on", command: |image, dir| ours(image, dir, false), runs: vec![] },
        Client { name: "skopeo copy", command: skopeo, runs: vec![] },
    ];
    if peer().exists() {
        clients.push(Client { name: "oci-client 0.18", command: oci_client, runs: vec![] });
    } else {
        println!("oci-client is left out: build benches/peers first");
    }
    for round in 0..=setting("LAYERCAKE_BENCH_RUNS", 7) {
        for client in &mut clients {
            let target = scratch.path().join("target");
            fs::create_dir(&target).expect("a directory can be made");
            let run = measure(&mut (client.command)(&image, &target));
            fs::remove_dir_all(&target).expect("a directory can be removed");
            rustix::fs::sync();
            // The first round warms the caches.
            if round > 0 {
                client.runs.push(run);
            }
        }
    }
    print(&clients);
}

fn print(clients: &[Client]) {
    let (ours, peers) = clients.split_at(2);
    print!("{:<28} {:>10} {:>10}", "pull into a store", "median", "peak");
    peers.iter().for_each(|peer| print!(" {:>18}", format!("x {}", peer.name)));
    println!();
    for client in ours.iter().chain(peers) {
        let wall = median(client.runs.iter().map(|run| run.wall));
        let memory = median(client.runs.iter().map(|run| run.memory));
        print!("{:<28} {:>8.3} s {:>6.1} MiB", client.name, wall.as_secs_f64(), memory as f64 / 1024.0);
        for peer in peers {
            let pairs = client.runs.iter().zip(&peer.runs);
            let ratio = median(pairs.map(|(a, b)| a.wall.as_secs_f64() / b.wall.as_secs_f64()));
            print!(" {ratio:>18.2}");
        }
        println!();
    }
}

fn ours(image: &str, directory: &Path, fast: bool) -> Command {
    let mut command = example("pull");
    command.arg("--quiet").arg("--store").arg(directory.join("store"));
    if fast {
        command.arg("--no-sync");
    }
    command.arg(image);
    command
}

fn skopeo(image: &str, directory: &Path) -> Command {
    let mut command = Command::new("skopeo");
    command.args(["copy", "-q", "--src-tls-verify=false", &format!("docker://{image}")]);
    command.arg(format!("oci:{}:x", directory.display()));
    command
}

fn oci_client(image: &str, directory: &Path) -> Command {
    let mut command = Command::new(peer());
    command.arg(image).arg(directory.join("store"));
    command
}

fn peer() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers/target/release/layercake-peers")
}
