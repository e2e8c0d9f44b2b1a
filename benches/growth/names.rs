//! Looking up and giving names, in a process of its own each time.

use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use layercake::Store;

use super::support::names::filled;
use super::support::names::name;

/// A store of so many names, of as many images.
pub fn fill(path: PathBuf, names: usize) {
    drop(filled(path, names, true));
}

/// Looks one up.
pub fn resolve(store: &Path) -> Command {
    command("--resolve", store)
}

/// Gives one to another image than it had.
pub fn tag(store: &Path) -> Command {
    command("--tag", store)
}

fn command(option: &str, store: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("a bench is a file"));
    command.arg(option).arg(store);
    command
}

/// If this process is one of these: does it.
pub fn is_it(arguments: &[String]) -> bool {
    match arguments {
        [option, store] if option == "--resolve" => drop(open(store).resolve(name(0)).expect("it is there")),
        [option, store] if option == "--tag" => give(&open(store)).expect("it can be given"),
        _ => return false,
    }
    true
}

fn open(store: &str) -> Store {
    Store::open(store).expect("it opens")
}

/// What a name means already would not be written again.
fn give(store: &Store) -> layercake::Result<()> {
    let moved = "example.com/moved:1".parse().expect("it is a name");
    let (first, second) = (store.resolve(name(0))?, store.resolve(name(1))?);
    let is_first = store.resolve(&moved).is_ok_and(|root| root.digest == first.digest);
    store.tag(&moved, if is_first { &second } else { &first }).map(drop)
}
