//! umoci.

use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use super::support::image::NAME;
use super::support::image::copy_layout;
use super::support::image::open;
use super::support::process::Run;
use super::support::process::measure;
use super::support::scratch::Room;
use super::support::scratch::bytes_in;

/// umoci, with an image that is unpacked.
pub struct Umoci {
    room: Room,
}

impl Umoci {
    pub fn of_image(room: Room, layout: &Path) -> Result<Umoci, String> {
        let umoci = Umoci { room };
        copy_layout(layout, &umoci.layout());
        measure(&mut umoci_unpack(&umoci.layout(), &umoci.bundle()))?;
        Ok(umoci)
    }

    /// An image without layers, over which lies a tree.
    pub fn of_tree(room: Room, tree: &Path) -> Result<Umoci, String> {
        let umoci = Umoci { room };
        let layout = umoci.layout();
        measure(Command::new("umoci").args(["--log=error", "init", "--layout"]).arg(&layout))?;
        measure(&mut command("new", &layout, NAME))?;
        measure(&mut umoci_unpack(&layout, &umoci.bundle()))?;
        measure(Command::new("cp").arg("-a").arg(tree.join(".")).arg(umoci.root()))?;
        Ok(umoci)
    }

    pub fn root(&self) -> PathBuf {
        self.bundle().join("rootfs")
    }

    /// Makes a layer of what changed.
    pub fn repack(&self) -> Result<Run, String> {
        measure(command("repack", &self.layout(), "packed").arg(self.bundle()))
    }

    /// How large the layer is that was made last.
    pub fn last_layer(&self) -> u64 {
        open(&self.layout(), "packed").manifest().layers().last().expect("it has a layer").size
    }

    /// What its layout holds.
    pub fn bytes(&self) -> u64 {
        bytes_in(&self.layout())
    }

    fn layout(&self) -> PathBuf {
        self.room.path.join("layout")
    }

    fn bundle(&self) -> PathBuf {
        self.room.path.join("bundle")
    }
}

pub fn umoci_unpack(layout: &Path, bundle: &Path) -> Command {
    let mut command = command("unpack", layout, NAME);
    command.arg(bundle);
    command
}

fn command(verb: &str, layout: &Path, name: &str) -> Command {
    let mut command = Command::new("umoci");
    command.args(["--log=error", verb, "--image", &format!("{}:{name}", layout.display())]);
    command
}
