//! Runs programs, and sees how long they take and how much memory they have.

use std::collections::HashMap;
use std::fs;
use std::process::Command;
use std::process::Stdio;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;
use std::time::Instant;

/// One run of a program.
#[derive(Clone, Copy)]
pub struct Run {
    pub wall: Duration,
    /// The most memory that it, or one process that it started, had, in KiB; none if it was over before one could look.
    pub memory: Option<u64>,
}

impl Run {
    /// This one, and another one after it.
    pub fn and(self, next: Run) -> Run {
        Run { wall: self.wall + next.wall, memory: self.memory.max(next.memory) }
    }
}

/// In the beginning one looks more often: what is over soon is to be seen too.
const SOON: Duration = Duration::from_millis(20);
const OFTEN: Duration = Duration::from_micros(250);
const USUALLY: Duration = Duration::from_millis(2);
/// To find the processes that it started, all there are must be read.
const SEARCH: Duration = Duration::from_millis(100);

/// Runs a program to its end, which must be a good one.
pub fn run(command: &mut Command) -> Run {
    measure(command).unwrap_or_else(|error| panic!("{error}"))
}

/// Runs a program to its end.
pub fn measure(command: &mut Command) -> Result<Run, String> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::inherit());
    let start = Instant::now();
    let mut child = command.spawn().map_err(|error| format!("{command:?}: {error}"))?;
    let (pid, is_over) = (child.id(), AtomicBool::new(false));
    let (code, wall, memory) = thread::scope(|scope| {
        let watcher = scope.spawn(|| watch(pid, &is_over));
        let code = child.wait().expect("a child can be waited for");
        let wall = start.elapsed();
        is_over.store(true, Ordering::Relaxed);
        (code, wall, watcher.join().expect("looking does not panic"))
    });
    if code.success() { Ok(Run { wall, memory }) } else { Err(format!("{command:?}: {code}")) }
}

fn watch(pid: u32, is_over: &AtomicBool) -> Option<u64> {
    let start = Instant::now();
    let (mut most, mut watched, mut search) = (None, vec![pid], SOON);
    while !is_over.load(Ordering::Relaxed) {
        most = most.max(watched.iter().filter_map(|&pid| high_water_mark(pid)).max());
        let elapsed = start.elapsed();
        if elapsed >= search {
            watched = family(pid);
            search = elapsed + SEARCH;
        }
        thread::sleep(if elapsed < SOON { OFTEN } else { USUALLY });
    }
    most
}

fn high_water_mark(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// A process and all that come of it.
fn family(pid: u32) -> Vec<u32> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        if let Some(parent) = parent(pid) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut family = vec![pid];
    let mut n = 0;
    while let Some(member) = family.get(n) {
        family.extend(children.remove(member).unwrap_or_default());
        n += 1;
    }
    family
}

fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name of the program stands in brackets, and may have some itself.
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}
