//! What the benches share: timing of programs, medians, tables.

#![allow(dead_code, reason = "each bench uses a part of this")]

use std::path::Path;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

/// One run of a program.
#[derive(Clone, Copy)]
pub struct Run {
    pub wall: Duration,
    /// The most memory it had, in KiB; looked up every two milliseconds.
    pub memory: u64,
}

/// An example of this crate, built as benches are.
pub fn example(name: &str) -> Command {
    let bench = std::env::current_exe().expect("a bench is a file");
    let release = bench.parent().and_then(Path::parent).expect("benches lie in target/release/deps");
    Command::new(release.join("examples").join(name))
}

/// Runs a program to its end, which must be a good one.
pub fn measure(command: &mut Command) -> Run {
    let start = Instant::now();
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::inherit()).spawn().expect("the program starts");
    let status = format!("/proc/{}/status", child.id());
    let mut memory = 0;
    let code = loop {
        memory = memory.max(high_water_mark(&status).unwrap_or(0));
        match child.try_wait().expect("a child can be waited for") {
            Some(code) => break code,
            None => std::thread::sleep(Duration::from_millis(2)),
        }
    };
    let wall = start.elapsed();
    assert!(code.success(), "{command:?}: {code}");
    Run { wall, memory }
}

/// The same for what is over soon: there is no time to look at its memory, nor to look only every two milliseconds.
pub fn time(command: &mut Command) -> Duration {
    let start = Instant::now();
    let code = command.stdout(Stdio::null()).stderr(Stdio::inherit()).status().expect("the program starts");
    let wall = start.elapsed();
    assert!(code.success(), "{command:?}: {code}");
    wall
}

fn high_water_mark(status: &str) -> Option<u64> {
    let text = std::fs::read_to_string(status).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// The middle value.
pub fn median<T: Copy + PartialOrd>(values: impl IntoIterator<Item = T>) -> T {
    let mut values: Vec<T> = values.into_iter().collect();
    values.sort_by(|a, b| a.partial_cmp(b).expect("times can be compared"));
    values[values.len() / 2]
}

/// Whether a program is on `PATH`.
pub fn installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

/// A number from the environment.
pub fn setting(name: &str, otherwise: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}
