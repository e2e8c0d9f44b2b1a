//! What all this runs on.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;

use super::support::printed;

/// One line: processor, cores, memory, kernel, and the file systems that are written to.
pub fn print(scratch: &Path) {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let memory = field("/proc/meminfo", "MemTotal").and_then(|text| text.split(' ').next()?.parse::<u64>().ok());
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    println!(
        "Machine: {}, {cores} {}, {} GiB of memory, Linux {}, {}; trees are unpacked in memory (tmpfs).",
        field("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown processor".to_owned()),
        if cores == 1 { "core" } else { "cores" },
        memory.unwrap_or(0).div_ceil(1 << 20),
        kernel.trim(),
        file_system(scratch),
    );
}

fn field(file: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.trim_start().strip_prefix(':'))?;
    Some(value.trim().to_owned())
}

fn file_system(directory: &Path) -> String {
    let mut stat = Command::new("stat");
    stat.args(["--file-system", "--format=%T"]).arg(directory);
    match printed(&mut stat).as_deref() {
        // It calls all three by this name.
        Some("ext2/ext3") => "ext4".to_owned(),
        Some(name) if !name.is_empty() => name.to_owned(),
        _ => "unknown file system".to_owned(),
    }
}
