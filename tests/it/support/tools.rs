//! Programs that tests drive: the examples of this crate, and other tools where they are installed.

use std::ffi::OsStr;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Output;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

/// What a program printed, and how it ended.
#[derive(Debug)]
pub struct Ran {
    pub status: i32,
    pub out: String,
    pub err: String,
}

impl Ran {
    pub fn of(output: Output) -> Ran {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ran { status: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
    }

    /// What it printed, if it ended well.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.status, 0, "{self:?}");
        self.out
    }
}

/// An example of this crate, which `cargo test` builds beside the tests. It finds nobody's stores and passwords.
pub fn example(name: &str) -> Command {
    let test = std::env::current_exe().expect("a test is a file");
    let profile = test.parent().and_then(Path::parent).expect("tests lie in target/*/deps");
    let path = profile.join("examples").join(name);
    assert!(path.exists(), "{} is not built: run `cargo test` without naming targets", path.display());
    let mut command = Command::new(path);
    for variable in ["LAYERCAKE_STORE", "REGISTRY_AUTH_FILE", "DOCKER_CONFIG", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME"] {
        command.env_remove(variable);
    }
    command.env("HOME", "/dev/null").stdin(Stdio::null());
    command
}

pub fn run(command: &mut Command) -> Ran {
    Ran::of(command.output().unwrap_or_else(|error| panic!("{command:?}: {error}")))
}

/// Puts a copy of a program somewhere, for everybody to run.
///
/// Another program writes it, because a child that another test starts meanwhile would hold it open for writing, and
/// the kernel does not run such a file.
#[track_caller]
pub fn install(program: impl AsRef<OsStr>, to: &Path) {
    run(Command::new("install").args(["-m", "755"]).arg(program.as_ref()).arg(to)).ok();
}

/// Takes away what is mounted. Children that other tests start meanwhile have what is open here, until they run.
#[track_caller]
pub fn unmount(point: &Path) {
    let start = Instant::now();
    loop {
        let ran = run(Command::new("umount").arg(point));
        if ran.status == 0 {
            return;
        }
        assert!(start.elapsed() < Duration::from_secs(10), "{ran:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Whether all these programs are installed. Says so if not; under `LAYERCAKE_INTEROP=1` that is a failure.
#[track_caller]
pub fn installed(programs: &[&str]) -> bool {
    let missing: Vec<&&str> = programs.iter().filter(|program| find(program).is_none()).collect();
    if missing.is_empty() {
        return true;
    }
    assert!(std::env::var_os("LAYERCAKE_INTEROP").is_none_or(|set| set != "1"), "missing: {missing:?}");
    println!("ignored: needs {missing:?}");
    false
}

/// Whether this test runs as root; says so if not.
pub fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("ignored: needs root");
    }
    root
}

/// A busybox that needs no libraries, so that it runs in any tree; under `LAYERCAKE_INTEROP=1` there must be one.
pub fn static_busybox() -> Option<PathBuf> {
    let found = find("busybox").filter(|path| !is_dynamic(&std::fs::read(path).expect("a program can be read")));
    let needed = std::env::var_os("LAYERCAKE_INTEROP").is_some_and(|set| set == "1");
    assert!(found.is_some() || !needed, "missing: a static busybox");
    found
}

/// Whether the kernel starts an interpreter for it (elf(5), `PT_INTERP`).
fn is_dynamic(elf: &[u8]) -> bool {
    let number = |at: usize, length: usize| {
        elf.get(at..at + length).map_or(0, |bytes| bytes.iter().rev().fold(0, |n, byte| n << 8 | usize::from(*byte)))
    };
    let (start, size, count) = (number(32, 8), number(54, 2), number(56, 2));
    (0..count).any(|n| number(start + n * size, 4) == 3)
}

fn find(program: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?).map(|dir| dir.join(program)).find(|path| path.is_file())
}

/// Whether overlays can be mounted here; says so if not.
pub fn mounts_overlays() -> bool {
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    let below = directory.path().join("below");
    std::fs::create_dir(&below).expect("a directory can be made");
    let mounted = mount(&[below], &directory.path().join("mnt"));
    if mounted.status == 0 {
        run(Command::new("umount").arg("--lazy").arg(directory.path().join("mnt"))).ok();
        return true;
    }
    assert!(std::env::var_os("LAYERCAKE_INTEROP").is_none_or(|set| set != "1"), "overlays: {}", mounted.err);
    println!("ignored: overlays cannot be mounted: {}", mounted.err);
    false
}

/// What `look` sees in a mount of these directories, the topmost first.
#[track_caller]
pub fn overlay<T>(lower: &[PathBuf], target: &Path, look: impl FnOnce(&Path) -> T) -> T {
    mount(lower, target).ok();
    let seen = look(target);
    // Other threads start processes, which hold what is open for a moment.
    run(Command::new("umount").arg("--lazy").arg(target)).ok();
    seen
}

/// overlayfs wants two directories at least; the lowest one adds nothing.
fn mount(lower: &[PathBuf], target: &Path) -> Ran {
    let below = target.with_extension("empty");
    for directory in [target, &below] {
        std::fs::create_dir_all(directory).expect("a directory can be made");
    }
    let stack: Vec<String> = lower.iter().chain([&below]).map(|path| path.display().to_string()).collect();
    let options = format!("lowerdir={}", stack.join(":"));
    run(Command::new("mount").args(["-t", "overlay", "overlay", "-o", &options]).arg(target))
}
