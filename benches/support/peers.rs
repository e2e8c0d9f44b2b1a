//! Other programs that make working copies and commit them.

use std::cell::Cell;
use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use layercake::Store;
use layercake::store::Name;

use super::support::time;

/// buildah, with the image in a storage of its own, in overlay form.
pub struct Buildah {
    storage: PathBuf,
    image: String,
    containers: Cell<usize>,
}

/// A container, which is removed when this is dropped.
pub struct Container<'a> {
    buildah: &'a Buildah,
    name: String,
    pub wall: Duration,
}

impl Buildah {
    pub fn with(room: &Path, layout: &Path, name: &str) -> Buildah {
        let storage = room.join("buildah");
        let mut buildah = Buildah { storage, image: String::new(), containers: Cell::new(0) };
        let source = format!("oci:{}:{name}", layout.display());
        let pulled = buildah.output(&["pull", "-q", &source]);
        buildah.image = pulled.lines().last().expect("it prints the id").to_owned();
        buildah
    }

    pub fn from(&self) -> Container<'_> {
        let count = self.containers.replace(self.containers.get() + 1);
        let name = format!("bench-{count}");
        let wall = time(&mut self.command(&["from", "-q", "--pull-never", "--name", &name, &self.image]));
        Container { buildah: self, name, wall }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("buildah");
        command.args(["--storage-driver", "overlay", "--root"]).arg(self.storage.join("root"));
        command.arg("--runroot").arg(self.storage.join("run")).args(arguments);
        command
    }

    fn output(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().expect("buildah starts");
        assert!(output.status.success(), "buildah {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }
}

impl Drop for Buildah {
    fn drop(&mut self) {
        let _ = self.command(&["rm", "--all"]).output();
        let _ = fs::remove_dir_all(&self.storage);
    }
}

impl Container<'_> {
    /// Where its tree is, and how long it took until it was.
    pub fn mount(&self) -> (PathBuf, Duration) {
        let wall = time(&mut self.buildah.command(&["mount", &self.name]));
        (PathBuf::from(self.buildah.output(&["mount", &self.name])), wall)
    }

    pub fn commit(&self) -> Duration {
        time(&mut self.buildah.command(&["commit", "-q", &self.name, "bench-child"]))
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        let _ = self.buildah.command(&["rm", &self.name]).output();
    }
}

/// umoci, with an image that is unpacked.
pub struct Umoci {
    layout: PathBuf,
    bundle: PathBuf,
}

impl Umoci {
    pub fn with(layout: PathBuf, name: &str, bundle: PathBuf) -> Umoci {
        let umoci = Umoci { layout, bundle };
        time(umoci.command("unpack", name).arg(&umoci.bundle));
        umoci
    }

    /// An image without layers, over which lies a tree.
    pub fn of_tree(room: &Path, tree: &Path) -> Umoci {
        let umoci = Umoci { layout: room.join("umoci-tree"), bundle: room.join("bundle-tree") };
        time(Command::new("umoci").args(["--log=error", "init", "--layout"]).arg(&umoci.layout));
        time(&mut umoci.command("new", "empty"));
        time(umoci.command("unpack", "empty").arg(&umoci.bundle));
        time(Command::new("cp").arg("-a").arg(tree.join(".")).arg(umoci.root()));
        umoci
    }

    pub fn root(&self) -> PathBuf {
        self.bundle.join("rootfs")
    }

    /// Makes a layer of what changed. Returns how long that took, and the layer's size.
    pub fn repack(&self) -> (Duration, u64) {
        let wall = time(self.command("repack", "packed").arg(&self.bundle));
        let image = Store::open(&self.layout).and_then(|store| store.image(Name::Verbatim("packed".to_owned())));
        let image = image.expect("it is there");
        (wall, image.manifest().layers().last().expect("it has a layer").size)
    }

    fn command(&self, verb: &str, name: &str) -> Command {
        let mut command = Command::new("umoci");
        command.args(["--log=error", verb, "--image", &format!("{}:{name}", self.layout.display())]);
        command
    }
}

impl Drop for Umoci {
    fn drop(&mut self) {
        for directory in [&self.layout, &self.bundle] {
            let _ = fs::remove_dir_all(directory);
        }
    }
}
