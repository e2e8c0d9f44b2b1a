//! podman.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::support::scratch::Room;
use super::support::scratch::bytes_in;

/// It makes this wherever its storage is.
const LOCK: &str = "/dev/shm/libpod_lock";

/// podman, with an empty storage of its own, in overlay form.
pub struct Podman {
    storage: Room,
    /// It takes no long path for this.
    state: Room,
    is_lock_new: bool,
}

impl Podman {
    pub fn new(storage: Room, state: Room) -> Podman {
        Podman { storage, state, is_lock_new: !Path::new(LOCK).exists() }
    }

    pub fn pull(&self, name: &str) -> Command {
        let mut command = Command::new("podman");
        command.arg("--root").arg(self.storage.path.join("root"));
        command.arg("--runroot").arg(self.state.path.join("run")).arg("--tmpdir").arg(self.state.path.join("tmp"));
        command.args(["--storage-driver", "overlay", "--events-backend", "none"]);
        command.args(["pull", "-q", "--tls-verify=false", name]);
        command
    }

    /// What it holds.
    pub fn bytes(&self) -> u64 {
        bytes_in(&self.storage.path)
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        if self.is_lock_new {
            let _ = fs::remove_file(LOCK);
        }
    }
}
