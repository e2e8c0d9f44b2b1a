//! buildah.

use std::cell::Cell;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use super::support::image::NAME;
use super::support::process::Run;
use super::support::process::measure;
use super::support::scratch::Room;
use super::support::scratch::bytes_in;

/// buildah, with the image in a storage of its own, in overlay form.
pub struct Buildah {
    storage: Room,
    image: String,
    containers: Cell<usize>,
}

/// A container, which is removed when this is dropped.
pub struct Container<'a> {
    buildah: &'a Buildah,
    name: String,
    pub run: Run,
}

impl Buildah {
    pub fn with(storage: Room, layout: &Path) -> Result<Buildah, String> {
        let mut buildah = Buildah { storage, image: String::new(), containers: Cell::new(0) };
        let pulled = buildah.output(&["pull", "-q", &format!("oci:{}:{NAME}", layout.display())])?;
        buildah.image = pulled.lines().last().expect("it prints the id").to_owned();
        Ok(buildah)
    }

    pub fn from(&self) -> Result<Container<'_>, String> {
        let count = self.containers.replace(self.containers.get() + 1);
        let name = format!("bench-{count}");
        let run = measure(&mut self.command(&["from", "-q", "--pull-never", "--name", &name, &self.image]))?;
        Ok(Container { buildah: self, name, run })
    }

    /// What it holds.
    pub fn bytes(&self) -> u64 {
        bytes_in(&self.storage.path)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("buildah");
        command.args(["--storage-driver", "overlay", "--root"]).arg(self.storage.path.join("root"));
        command.arg("--runroot").arg(self.storage.path.join("run")).args(arguments);
        command
    }

    fn output(&self, arguments: &[&str]) -> Result<String, String> {
        let output = self.command(arguments).output().map_err(|error| error.to_string())?;
        match output.status.success() {
            true => Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned()),
            false => Err(format!("buildah {arguments:?}: {}", String::from_utf8_lossy(&output.stderr))),
        }
    }
}

impl Container<'_> {
    /// Where its tree is, and how long it took until it was.
    pub fn mount(&self) -> Result<(PathBuf, Run), String> {
        let run = measure(&mut self.buildah.command(&["mount", &self.name]))?;
        Ok((PathBuf::from(self.buildah.output(&["mount", &self.name])?), run))
    }

    pub fn commit(&self) -> Result<Run, String> {
        measure(&mut self.buildah.command(&["commit", "-q", &self.name, "bench-child"]))
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        let _ = self.buildah.command(&["rm", &self.name]).output();
    }
}
