//! The jobs of this crate, as programs.

use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use super::image::NAME;
use super::process::Run;
use super::process::measure;

/// The examples that these are.
pub const EXAMPLES: [&str; 9] = ["checkout", "commit", "copy", "discard", "images", "pull", "push", "store", "unpack"];

/// Whether what was written is there after a power cut. Peers do not see to that.
#[derive(Clone, Copy, PartialEq)]
pub enum Sync {
    Yes,
    No,
}

/// An example of this crate, built as benches are.
pub fn example(name: &str) -> Command {
    let bench = std::env::current_exe().expect("a bench is a file");
    let release = bench.parent().and_then(Path::parent).expect("benches lie in target/release/deps");
    Command::new(release.join("examples").join(name))
}

pub fn pull(name: &str, store: &Path, sync: Sync) -> Command {
    let mut command = example("pull");
    command.arg("--quiet").args(no_sync(sync)).arg("--store").arg(store).arg(name);
    command
}

pub fn unpack(layout: &Path, target: &Path, sync: Sync) -> Command {
    let mut command = example("unpack");
    command.args(no_sync(sync)).args(["--quiet", "--store"]).arg(layout).arg(NAME).arg(target);
    command
}

/// From a registry to a root file system.
pub fn one_pass(name: &str, store: &Path, target: &Path, sync: Sync) -> Command {
    let mut command = example("unpack");
    command.args(["--quiet", "--pull"]).args(no_sync(sync)).arg("--store").arg(store).arg(name).arg(target);
    command
}

pub fn push(layout: &Path, name: &str) -> Command {
    let mut command = example("push");
    command.args(["--quiet", "--store"]).arg(layout).args([NAME, name]);
    command
}

pub fn copy(from: &str, to: &str) -> Command {
    let mut command = example("copy");
    command.args(["--quiet", from, to]);
    command
}

pub fn check(layout: &Path) -> Command {
    let mut command = example("store");
    command.args(["check", "--store"]).arg(layout);
    command
}

pub fn checkout(layout: &Path, mode: &str, directory: &Path) -> Command {
    let mut command = example("checkout");
    command.arg("--store").arg(layout).args(["--mode", mode, NAME]).arg(directory);
    command
}

/// A working copy, which is discarded when this is dropped.
pub struct Work(PathBuf);

impl Work {
    pub fn make(layout: &Path, mode: &str, directory: PathBuf) -> Result<(Work, Run), String> {
        let run = measure(&mut checkout(layout, mode, &directory))?;
        Ok((Work(directory), run))
    }

    /// One that was made.
    pub fn at(directory: PathBuf) -> Work {
        Work(directory)
    }

    pub fn root(&self) -> PathBuf {
        self.0.join("root")
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn commit(&self) -> Command {
        let mut command = example("commit");
        command.arg(&self.0).arg("bench/child:1");
        command
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        // What is wrong is told by the program.
        let _ = example("discard").arg(&self.0).status();
    }
}

fn no_sync(sync: Sync) -> Option<&'static str> {
    (sync == Sync::No).then_some("--no-sync")
}
