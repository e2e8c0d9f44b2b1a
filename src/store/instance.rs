//! Decides whether the private state of a store was written on this machine, into this very directory.
//!
//! The file `layercake/instance` names the machine and the directory that it lies in: inode number and time of birth. A
//! copy of the store, or a store that was unpacked from an archive, has another directory, so nobody can send unpacked
//! layers or build steps along with a store. A store that was renamed or bind-mounted keeps its directory.

use std::os::fd::AsFd;

use rustix::fs::AtFlags;
use rustix::fs::FileType;
use rustix::fs::StatxFlags;
use serde::Deserialize;
use serde::Serialize;

use super::Durability;
use super::LOCK_LIMIT;
use super::layout::FACTS;
use super::layout::LEASES;
use super::layout::LIMIT;
use super::layout::LOCK;
use super::layout::PARTIAL;
use super::steps::STEPS;
use super::unpacked::UNPACKED;

use crate::digest::Digest;
use crate::error::Context;
use crate::error::Limit;
use crate::error::Result;
use crate::fs::atomic;
use crate::fs::dir::Dir;
use crate::fs::lock::Lock;
use crate::fs::remove;
use crate::fs::remove::Nothing;

const INSTANCE: &str = "instance";
const MAX_INSTANCE: u64 = 4096;

/// State that is used without looking at its content again, or that keeps others waiting. Names (`index.json.old`), and
/// records that only keep something from being deleted (`pins`, `checkouts`, `quarantine`), stay.
const NOT_KEPT: [&str; 7] = [LOCK, LEASES, UNPACKED, STEPS, FACTS, LIMIT, PARTIAL];

/// Content of the file: the directory, and the machine that it was written on.
#[derive(Debug, Serialize, Deserialize)]
struct Instance {
    /// Hash of `/etc/machine-id`. Containers may have none, or one of their own.
    machine: Option<Digest>,
    /// Hash of the kernel's boot id, which all containers on a kernel share.
    boot: Option<Digest>,
    place: Place,
}

/// Identity of a directory on a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Place {
    inode: u64,
    /// Time of birth in seconds and nanoseconds, where the file system records it.
    born: Option<(i64, u32)>,
    /// Device number, where there is no time of birth. Device numbers may change with a reboot.
    device: Option<(u32, u32)>,
}

/// Whether the private state in this directory was written by this user's processes here.
pub(super) fn is_bound(ours: &Dir) -> Result<bool> {
    let Some(found) = Instance::read(ours) else { return Ok(false) };
    Ok(found.place == Place::of(ours)? && found.is_of_machine(machine(), boot))
}

/// Removes private state that came from elsewhere, and writes down where this directory is. Any number of processes may
/// do this at once.
pub(super) fn bind(ours: &Dir, durability: Durability) -> Result<()> {
    let here = Instance { machine: machine(), boot: boot(), place: Place::of(ours)? };
    if here.wrote_since_boot(ours) {
        return Ok(());
    }
    // The name cannot be guessed elsewhere: no other user can have made, opened or locked the file before.
    let name = here.lock_name()?;
    let _lock = Lock::acquire(ours, &name, LOCK_LIMIT)?;
    if !here.wrote_since_boot(ours) {
        if !is_bound(ours)? {
            clear(ours).context(|| "remove what was kept in another place")?;
        }
        let text = here.to_text()?;
        atomic::replace(ours, &format!("{INSTANCE}.new"), ours, INSTANCE, &text, durability)?;
    }
    ours.remove(&name)
}

fn clear(ours: &Dir) -> Result<()> {
    for name in NOT_KEPT {
        let Some(stat) = ours.stat(name)? else { continue };
        if FileType::from_raw_mode(stat.st_mode).is_dir() {
            remove::remove(ours.as_fd(), name.as_bytes(), &mut Nothing)
                .map_err(|error| error.into_error(ours.path(), name.as_bytes()))?;
        } else {
            ours.remove(name)?;
        }
    }
    Ok(())
}

impl Place {
    fn of(dir: &Dir) -> Result<Place> {
        let stat = dir.own_stat()?;
        let found = rustix::fs::statx(dir, "", AtFlags::EMPTY_PATH, StatxFlags::BTIME).ok();
        let born = found
            .filter(|found| found.stx_mask & StatxFlags::BTIME.bits() != 0)
            .map(|found| (found.stx_btime.tv_sec, found.stx_btime.tv_nsec));
        let device = (rustix::fs::major(stat.st_dev), rustix::fs::minor(stat.st_dev));
        Ok(Place { inode: stat.st_ino, born, device: born.is_none().then_some(device) })
    }
}

impl Instance {
    fn read(dir: &Dir) -> Option<Instance> {
        let content = dir.read(INSTANCE, Limit::DocumentSize, MAX_INSTANCE).ok()?;
        serde_json::from_slice(&content).ok()
    }

    /// Whether this was written on a machine with these identifiers: its own, or else that of its kernel.
    fn is_of_machine(&self, machine: Option<Digest>, boot: impl FnOnce() -> Option<Digest>) -> bool {
        if machine.is_some() && self.machine == machine {
            return true;
        }
        let boot = boot();
        self.boot == boot && (boot.is_some() || self.machine == machine)
    }

    /// Whether the file in a directory says this, and was written since the kernel was started: only then do containers
    /// with other machine ids know it too.
    fn wrote_since_boot(&self, dir: &Dir) -> bool {
        Instance::read(dir).is_some_and(|found| {
            found.place == self.place && found.boot == self.boot && found.is_of_machine(self.machine, || self.boot)
        })
    }

    fn to_text(&self) -> Result<Vec<u8>> {
        Ok(serde_json::to_vec(self).map_err(std::io::Error::from)?)
    }

    /// Name of the lock that is held while the directory is bound. Containers on one kernel use one name.
    fn lock_name(&self) -> Result<String> {
        let identity = Instance { machine: None, ..*self };
        Ok(format!("bind-{}", &Digest::sha256(&identity.to_text()?).hex().to_string()[..16]))
    }
}

fn machine() -> Option<Digest> {
    hash_of("/etc/machine-id")
}

fn boot() -> Option<Digest> {
    hash_of("/proc/sys/kernel/random/boot_id")
}

/// Hash of an identifier of this machine, if it has that. The identifier itself must not leave the machine
/// (machine-id(5)).
fn hash_of(path: &str) -> Option<Digest> {
    let text = std::fs::read_to_string(path).ok()?;
    let id = text.trim();
    (!id.is_empty()).then(|| Digest::sha256(format!("layercake {id}").as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copied_directory_is_not_bound() {
        let scratch = tempfile::tempdir().unwrap();
        let make = |name: &str| {
            std::fs::create_dir(scratch.path().join(name)).unwrap();
            Dir::open(&scratch.path().join(name)).unwrap()
        };
        let (first, second) = (make("first"), make("second"));
        bind(&first, Durability::None).unwrap();
        assert!(is_bound(&first).unwrap());
        std::fs::copy(scratch.path().join("first/instance"), scratch.path().join("second/instance")).unwrap();
        std::fs::write(scratch.path().join("second/facts"), "believed").unwrap();
        std::fs::write(scratch.path().join("second/index.json.old"), "names").unwrap();
        assert!(!is_bound(&second).unwrap());
        bind(&second, Durability::None).unwrap();
        assert!(is_bound(&second).unwrap() && is_bound(&first).unwrap());
        let mut names = second.names().unwrap();
        names.sort();
        assert_eq!(names, ["index.json.old", "instance"]);
        std::fs::rename(scratch.path().join("second"), scratch.path().join("moved")).unwrap();
        assert!(is_bound(&Dir::open(&scratch.path().join("moved")).unwrap()).unwrap());
    }

    #[test]
    fn another_machine_is_told_apart_and_another_boot_is_not() {
        let id = |text: &str| Some(Digest::sha256(text.as_bytes()));
        let scratch = tempfile::tempdir().unwrap();
        let place = Place::of(&Dir::open(scratch.path()).unwrap()).unwrap();
        let is_same = |machine, boot, here_machine, here_boot| {
            Instance { machine, boot, place }.is_of_machine(here_machine, || here_boot)
        };
        assert!(is_same(id("a"), id("1"), id("a"), id("2")), "after a reboot");
        assert!(is_same(id("a"), id("1"), id("b"), id("1")), "a container with a machine id of its own");
        assert!(is_same(id("a"), id("1"), None, id("1")), "a container without machine id");
        assert!(!is_same(id("a"), id("1"), id("b"), id("2")), "another machine");
        assert!(!is_same(None, id("1"), None, id("2")), "no machine id, and another boot");
        assert!(is_same(None, None, None, None), "nothing to tell machines apart");
        assert!(!is_same(None, None, id("a"), id("1")));
    }
}
