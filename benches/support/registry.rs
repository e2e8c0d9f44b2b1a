//! The registry that benches talk to.

use std::fs;
use std::net::TcpListener;
use std::net::TcpStream;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;

use super::image::Image;
use super::ours;
use super::process::run;
use super::scratch::bytes_in;

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

    /// Puts an image in, byte for byte. Returns its whole name.
    pub fn fill(&self, image: &Image, name: &str) -> String {
        let name = self.name(name);
        run(&mut ours::push(&image.layout, &name));
        name
    }

    /// What it holds.
    pub fn bytes(&self) -> u64 {
        bytes_in(&self.data)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.data);
    }
}
