//! Other users of the machine, and other mount namespaces: who attacks promises P14 and P15.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use super::Scratch;
use super::tools::example;
use super::tools::install;
use super::tools::installed;
use super::tools::is_root;

/// The second user: `nobody` on most systems.
pub const OTHER_USER: u32 = 65534;

/// Whether a test can act as another user; says so if not.
#[track_caller]
pub fn has_other_user() -> bool {
    is_root() && installed(&["setpriv"])
}

/// Whether a test can make mount namespaces; says so if not.
#[track_caller]
pub fn has_mount_namespaces() -> bool {
    is_root() && installed(&["unshare"])
}

/// A scratch directory that every user may enter. What is made in it is as closed as its own mode says.
pub fn shared_scratch() -> Scratch {
    let scratch = Scratch::new();
    let root = scratch.path("");
    fs::set_permissions(&root, fs::Permissions::from_mode(0o755)).expect("its owner may change its mode");
    scratch
}

/// Runs a program as the second user, with no groups and no capabilities. Its arguments are for the caller to add.
pub fn as_other_user(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    let user = OTHER_USER;
    command.args([&format!("--reuid={user}"), &format!("--regid={user}"), "--clear-groups"]).arg(program);
    command.current_dir("/");
    command
}

/// Copies an example program to where every user may run it, into a [`shared_scratch`].
#[track_caller]
pub fn public_example(name: &str, scratch: &Scratch) -> PathBuf {
    let copy = scratch.path(name);
    if !copy.exists() {
        install(example(name).get_program(), &copy);
    }
    copy
}

/// Gives a tree to the second user.
#[track_caller]
pub fn give_to_other_user(path: &Path) {
    let owner = format!("{OTHER_USER}:{OTHER_USER}");
    super::tools::run(Command::new("chown").args(["-R", "-h", &owner]).arg(path)).ok();
}

/// Runs a shell script in a mount namespace of its own: what it mounts is not seen outside.
pub fn in_mount_namespace(script: &str) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-euc", script, "sh"]);
    command
}
