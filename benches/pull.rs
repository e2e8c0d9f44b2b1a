//! Pulls an image from a local `docker-registry` beside other clients, in one run, and prints the ratios.
//!
//! `cargo bench --bench pull`. Needs `docker-registry` and `skopeo` on `PATH`; a Rust client is measured too where
//! `cargo build --release --manifest-path benches/peers/Cargo.toml` was run before.
//!
//! * `LAYERCAKE_BENCH_IMAGE`: an image for skopeo to copy from, such as `oci:/srv/image:app`; without it, one of five
//!   layers of 40 MB is made.
//! * `LAYERCAKE_BENCH_RUNS`: how many runs of each; 7 by default. Each round runs all, so that all see the same machine.

mod support;

use std::fs;
use std::net::TcpListener;
use std::net::TcpStream;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;

use layercake::Store;
use layercake::testing::Fixture;
use support::Run;
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
    let image = registry.fill(scratch.path());

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
    let bench = std::env::current_exe().expect("a bench is a file");
    let release = bench.parent().and_then(Path::parent).expect("benches lie in target/release/deps");
    let mut command = Command::new(release.join("examples/pull"));
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

struct Registry {
    child: Child,
    port: u16,
}

impl Registry {
    fn start(scratch: &Path) -> Registry {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let port = listener.local_addr().expect("it has an address").port();
        drop(listener);
        let data = scratch.join("registry");
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\n\
             http: {{addr: \"127.0.0.1:{port}\"}}\n",
            data.display()
        );
        let file = scratch.join("config.yml");
        fs::write(&file, config).expect("a file can be written");
        let mut command = Command::new("docker-registry");
        let child = command.arg("serve").arg(file).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let registry = Registry { child: child.expect("the registry starts"), port };
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            std::thread::sleep(Duration::from_millis(20));
        }
        registry
    }

    /// Puts the image in. Returns its name.
    fn fill(&self, scratch: &Path) -> String {
        let source = std::env::var("LAYERCAKE_BENCH_IMAGE").unwrap_or_else(|_| made_image(scratch));
        let name = format!("127.0.0.1:{}/bench/app:latest", self.port);
        let mut copy = Command::new("skopeo");
        copy.args(["copy", "-q", "--dest-tls-verify=false", &source, &format!("docker://{name}")]);
        assert!(copy.status().expect("skopeo runs").success());
        name
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Five layers that do not compress.
fn made_image(scratch: &Path) -> String {
    let store = Store::create(scratch.join("made")).expect("a store can be made");
    let mut fixture = Fixture::new("linux/amd64".parse().expect("it is a platform"));
    for seed in 0..5 {
        let mut noise = vec![0; 40 << 20];
        fastrand::Rng::with_seed(seed).fill(&mut noise);
        fixture = fixture.layer(&[("noise", &noise)]);
    }
    fixture.tag(&store, &"bench/app".parse().expect("it is a name")).expect("an image can be made");
    format!("oci:{}:docker.io/bench/app:latest", store.path().display())
}
