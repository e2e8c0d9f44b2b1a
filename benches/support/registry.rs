//! The registry that benches talk to, and the image that they move.

#![allow(dead_code, reason = "each bench uses a part of this")]

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

/// Debian's `docker-registry`, with an empty directory of its own, for as long as this lives.
pub struct Registry {
    child: Child,
    port: u16,
    data: PathBuf,
}

impl Registry {
    pub fn start(scratch: &Path) -> Registry {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let port = listener.local_addr().expect("it has an address").port();
        drop(listener);
        let data = scratch.join(format!("registry-{port}"));
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\n\
             http: {{addr: \"127.0.0.1:{port}\"}}\n",
            data.display()
        );
        let file = scratch.join(format!("config-{port}.yml"));
        fs::write(&file, config).expect("a file can be written");
        let mut command = Command::new("docker-registry");
        let child = command.arg("serve").arg(file).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let registry = Registry { child: child.expect("the registry starts"), port, data };
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            std::thread::sleep(Duration::from_millis(20));
        }
        registry
    }

    /// The name of an image in it.
    pub fn name(&self, name: &str) -> String {
        format!("127.0.0.1:{}/{name}", self.port)
    }

    /// Puts an image in, as skopeo writes its source. Returns its name.
    pub fn fill(&self, source: &str) -> String {
        let name = self.name("bench/app:latest");
        let mut copy = Command::new("skopeo");
        copy.args(["copy", "-q", "--dest-tls-verify=false", source, &format!("docker://{name}")]);
        assert!(copy.status().expect("skopeo runs").success());
        name
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.data);
    }
}

/// The image to move, as skopeo writes sources: `LAYERCAKE_BENCH_IMAGE`, or one that is made.
pub fn source(scratch: &Path) -> String {
    std::env::var("LAYERCAKE_BENCH_IMAGE").unwrap_or_else(|_| made_image(scratch))
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
