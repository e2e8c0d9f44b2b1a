//! Advisory locks between processes and threads.

use std::fs::File;
use std::ops::Deref;
use std::ops::DerefMut;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::time::Duration;
use std::time::Instant;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use rustix::fs::FlockOperation;
use rustix::fs::Mode;
use rustix::io::Errno;

use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Holder;
use crate::error::Result;
use crate::fs::dir::Dir;

const FIRST_PAUSE: Duration = Duration::from_micros(200);
const LONGEST_PAUSE: Duration = Duration::from_millis(5);
/// The most bytes of a lock's file that say who holds it.
const MAX_NOTE: usize = 128;

/// Who else may have a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sharing {
    /// Nobody.
    Alone,
    /// Whoever shares it too.
    Shared,
}

/// A file or directory that is open and locked, until this is dropped or its process dies.
///
/// The lock is given back then and there, also where another thread is starting a program at that moment: until that
/// runs, it has all that is open here.
#[derive(Debug)]
#[must_use = "the lock is given back when this is dropped"]
pub(crate) struct Locked<F: AsFd>(F);

impl<F: AsFd> Locked<F> {
    /// Takes the lock, if nobody has it.
    pub(crate) fn alone(file: F) -> Result<Option<Locked<F>>, Errno> {
        Ok(Locked::within(file, Sharing::Alone, Duration::ZERO)?.ok())
    }

    /// Takes the lock together with others who share it, if nobody has it alone.
    pub(crate) fn shared(file: F) -> Result<Option<Locked<F>>, Errno> {
        Ok(Locked::within(file, Sharing::Shared, Duration::ZERO)?.ok())
    }

    /// Takes the lock, waiting at most `limit` for others. If they have it still: the file, and how long that was.
    pub(crate) fn within(
        file: F,
        sharing: Sharing,
        limit: Duration,
    ) -> Result<Result<Locked<F>, (F, Duration)>, Errno> {
        let operation = match sharing {
            Sharing::Alone => FlockOperation::NonBlockingLockExclusive,
            Sharing::Shared => FlockOperation::NonBlockingLockShared,
        };
        let start = Instant::now();
        let mut pause = FIRST_PAUSE;
        loop {
            match rustix::fs::flock(&file, operation) {
                Ok(()) => return Ok(Ok(Locked(file))),
                Err(Errno::WOULDBLOCK | Errno::INTR) => {}
                Err(error) => return Err(error),
            }
            let waited = start.elapsed();
            if waited >= limit {
                return Ok(Err((file, waited)));
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

impl<F: AsFd> Deref for Locked<F> {
    type Target = F;

    fn deref(&self) -> &F {
        &self.0
    }
}

impl<F: AsFd> DerefMut for Locked<F> {
    fn deref_mut(&mut self) -> &mut F {
        &mut self.0
    }
}

impl<F: AsFd> Drop for Locked<F> {
    fn drop(&mut self) {
        let _ = rustix::fs::flock(&self.0, FlockOperation::Unlock);
    }
}

/// A lock that is held until this is dropped, or its process dies.
///
/// It is `flock`'s, on an open file: two handles in one process exclude each other as two processes do. The file
/// stays when the lock is given back, so there is no moment at which two holders lock two files of one name.
///
/// While it is held, the file says who holds it. That is for error messages only, and nothing is decided by it.
#[derive(Debug)]
#[must_use = "the lock is given back when this is dropped"]
pub(crate) struct Lock(Locked<File>);

impl Lock {
    /// Takes the lock on the file `name` in `dir`, waiting at most `limit` for others.
    pub(crate) fn acquire(dir: &Dir, name: &str, limit: Duration) -> Result<Lock> {
        let file = dir.file_to_write(name)?;
        require_own(&file, dir, name)?;
        let fail = |error: Errno| Error::io("lock", &dir.path().join(name), error.into());
        let file = match Locked::within(file, Sharing::Alone, limit).map_err(fail)? {
            Ok(locked) => locked,
            Err((file, waited)) => {
                let holder = read_note(&file).and_then(|note| note.holder());
                return Err(ErrorKind::Locked { path: dir.path().join(name), waited, holder }.into());
            }
        };
        // A full disk has no room for the note, and the lock is held all the same.
        let _ = file.write_all_at(Note::own().to_string().as_bytes(), 0);
        Ok(Lock(file))
    }
}

/// Makes sure that no other user can take the lock on a file: it must belong to this user, or to the owner of a directory
/// that the caller trusts, and is closed to others if it is open.
fn require_own(file: &File, dir: &Dir, name: &str) -> Result<()> {
    let path = dir.path().join(name);
    let fail = |error: Errno| Error::io("look at", &path, error.into());
    let stat = rustix::fs::fstat(file).map_err(fail)?;
    let user = rustix::process::geteuid().as_raw();
    if stat.st_uid != user && stat.st_uid != dir.own_stat()?.st_uid {
        let reason = format!("the lock belongs to user {}, and this process runs as user {user}", stat.st_uid);
        return Err(ErrorKind::Untrusted { path, reason }.into());
    }
    if stat.st_mode & 0o077 != 0 {
        rustix::fs::fchmod(file, Mode::RUSR | Mode::WUSR).map_err(fail)?;
    }
    Ok(())
}

impl Drop for Lock {
    fn drop(&mut self) {
        // A note that stays behind names a holder that is gone, or the next one overwrites it.
        let _ = self.0.set_len(0);
    }
}

/// A lock on a directory itself: nothing has to be made for it, so it can be had where the disk is full.
#[derive(Debug)]
#[must_use = "the lock is given back when this is dropped"]
pub(crate) struct DirLock(#[expect(dead_code, reason = "held for its drop")] Locked<Dir>);

impl DirLock {
    /// Takes the lock together with others who share it. `dir` must have been opened for this lock alone.
    pub(crate) fn shared(dir: Dir, limit: Duration) -> Result<DirLock> {
        DirLock::acquire(dir, Sharing::Shared, limit)
    }

    /// Takes the lock alone. `dir` must have been opened for this lock alone.
    pub(crate) fn exclusive(dir: Dir, limit: Duration) -> Result<DirLock> {
        DirLock::acquire(dir, Sharing::Alone, limit)
    }

    fn acquire(dir: Dir, sharing: Sharing, limit: Duration) -> Result<DirLock> {
        let path = dir.path().to_owned();
        match Locked::within(dir, sharing, limit) {
            Ok(Ok(locked)) => Ok(DirLock(locked)),
            Ok(Err((_, waited))) => Err(ErrorKind::Locked { path, waited, holder: None }.into()),
            Err(error) => Err(Error::io("lock", &path, error.into())),
        }
    }
}

/// What a holder writes down: its process, when that was started, and since when it has the lock.
///
/// Numbers of processes are given again, and a process may be dead that wrote this: only a process that was started at
/// the same tick is the one.
struct Note {
    pid: u32,
    started: u64,
    since: u64,
}

impl Note {
    fn own() -> Note {
        let pid = std::process::id();
        let since = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        Note { pid, started: started(pid).unwrap_or(0), since }
    }

    /// Who that is, if it still lives.
    fn holder(&self) -> Option<Holder> {
        let lives = self.started != 0 && started(self.pid) == Some(self.started);
        let since = UNIX_EPOCH.checked_add(Duration::from_secs(self.since))?;
        lives.then_some(Holder { pid: self.pid, since })
    }
}

impl std::fmt::Display for Note {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{} {} {}", self.pid, self.started, self.since)
    }
}

fn read_note(file: &File) -> Option<Note> {
    let mut text = [0; MAX_NOTE];
    let length = file.read_at(&mut text, 0).ok()?;
    let line = std::str::from_utf8(&text[..length]).ok()?.lines().next()?;
    let mut numbers = line.split(' ');
    let mut next = || numbers.next()?.parse().ok();
    let (pid, started, since) = (next()?, next()?, next()?);
    Some(Note { pid: u32::try_from(pid).ok()?, started, since })
}

/// When a process was started, in ticks since the machine was; none if it is gone, or dead and not yet buried, or
/// nobody says (proc(5), `/proc/pid/stat`).
fn started(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may have blanks and parentheses in it.
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let is_dead = matches!(fields.first(), Some(&("Z" | "X")));
    if is_dead { None } else { fields.get(19)?.parse().ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_millis(50);

    fn holder(error: Error) -> Option<Holder> {
        match error.into_kind() {
            ErrorKind::Locked { holder, .. } => holder,
            other => panic!("{other}"),
        }
    }

    /// P6: who holds a lock is said; who held it, and is dead, is not.
    #[test]
    fn a_holder_is_named_and_a_dead_one_is_not() {
        let scratch = tempfile::tempdir().unwrap();
        let dir = Dir::open(scratch.path()).unwrap();
        let lock = Lock::acquire(&dir, "lock", SOON).unwrap();
        let found = holder(Lock::acquire(&dir, "lock", SOON).unwrap_err()).unwrap();
        assert_eq!(found.pid, std::process::id());
        let error = Lock::acquire(&dir, "lock", SOON).unwrap_err().to_string();
        assert!(error.contains(&format!("by process {} since ", found.pid)), "{error}");

        // A process that was killed left its note, and its number was given to another; or nobody has it.
        for note in [format!("{} 1 1\n", found.pid), "4194305 7 7\n".to_owned(), "rubbish".to_owned(), String::new()] {
            lock.0.set_len(0).unwrap();
            lock.0.write_all_at(note.as_bytes(), 0).unwrap();
            let error = Lock::acquire(&dir, "lock", SOON).unwrap_err();
            assert_eq!(holder(error).map(|holder| holder.pid), None, "{note:?}");
        }
        drop(lock);
        assert_eq!(std::fs::read(scratch.path().join("lock")).unwrap(), b"");
        let _lock = Lock::acquire(&dir, "lock", SOON).unwrap();
    }

    /// P6: a program that is being started has all files that are open here; what it was not given, it does not keep.
    #[test]
    fn a_lock_is_given_back_whoever_has_the_file_open() {
        let scratch = tempfile::tempdir().unwrap();
        let dir = Dir::open(scratch.path()).unwrap();
        let open = || dir.file_to_write("lock").unwrap();
        let held = Locked::alone(open()).unwrap().unwrap();
        let copy = held.try_clone().unwrap();
        assert!(Locked::shared(open()).unwrap().is_none());
        drop(held);
        let shared = [Locked::shared(open()).unwrap().unwrap(), Locked::shared(open()).unwrap().unwrap()];
        assert!(Locked::alone(open()).unwrap().is_none());
        drop((shared, copy));
    }

    /// Two open files of one directory exclude each other, in one process too.
    #[test]
    fn directories_are_locked_shared_or_alone() {
        let scratch = tempfile::tempdir().unwrap();
        let dir = || Dir::open(scratch.path()).unwrap();
        let shared = DirLock::shared(dir(), SOON).unwrap();
        let second = DirLock::shared(dir(), SOON).unwrap();
        assert_eq!(holder(DirLock::exclusive(dir(), SOON).unwrap_err()).map(|holder| holder.pid), None);
        drop((shared, second));
        let _alone = DirLock::exclusive(dir(), SOON).unwrap();
        let _ = DirLock::shared(dir(), SOON).unwrap_err();
    }
}
