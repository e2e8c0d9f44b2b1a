//! Credential helpers: programs that keep credentials and give them away one by one.
//!
//! `docker-credential-NAME get` reads the name of a server and prints JSON. It is a child process of the caller's: it
//! has a time limit and what it prints has one too; at the first it is killed, with the children it has then.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::io::ErrorKind;
use std::io::Read;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::ExitStatus;
use std::process::Stdio;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use rustix::fs::OFlags;
use rustix::process::Pid;
use rustix::process::Signal;
use serde_json::Value;

use super::entry::password_of;
use super::entry::text;

use crate::error::printable;
use crate::registry::credentials::Credentials;
use crate::registry::credentials::TOKEN_USER;

/// The most bytes that a helper may print, and that are kept of its complaints.
const MAX_OUTPUT: usize = 64 << 10;
/// The most bytes of a server's name. A pipe takes as many without a reader.
const MAX_NAME: usize = 4096;
/// How often a helper is looked at, at least.
const TICK: Duration = Duration::from_millis(20);
/// How often one is looked at that has just begun, or has something to say.
const SHORTEST_TICK: Duration = Duration::from_millis(1);
/// A limit beyond which there is none.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// What helpers say where they know nothing (docker-credential-helpers, "credentials/error.go").
const NOT_FOUND: &str = "credentials not found in native keychain";
/// Their other fixed words, which are said on stdout too.
const COMPLAINTS: [&str; 3] =
    ["no credentials server URL", "credentials server URL missing", "no credentials username"];

/// Where helpers are, and how long they may take.
#[derive(Clone, Debug)]
pub(super) struct Helpers<'a> {
    /// Directories, as `PATH` has them.
    pub(super) path: Option<&'a OsStr>,
    pub(super) limit: Duration,
}

impl Helpers<'_> {
    /// Asks a helper for a server's credentials. The reason for a failure names the helper and no secret.
    pub(super) fn ask(&self, name: &str, server: &str) -> Result<Option<Credentials>, String> {
        check_name(name)?;
        let program = format!("docker-credential-{name}");
        let fail = |why: String| format!("credential helper {program}: {why}");
        check_server(server).map_err(fail)?;
        let path = self.find(&program).ok_or_else(|| fail("there is no such program in the search path".to_owned()))?;
        run(&path, server, self.limit).and_then(|finished| finished.credentials()).map_err(fail)
    }

    /// A program in one of the directories. Those that are not absolute would depend on where this process is.
    fn find(&self, program: &str) -> Option<PathBuf> {
        let is_program = |path: &PathBuf| {
            fs::metadata(path).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
        };
        std::env::split_paths(self.path?).filter(|dir| dir.is_absolute()).map(|dir| dir.join(program)).find(is_program)
    }
}

/// Case 168: it becomes a command.
fn check_name(name: &str) -> Result<(), String> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    if name.is_empty() || name.len() > 100 || name.starts_with(['-', '.']) || !name.bytes().all(plain) {
        return Err(format!("{:?} is no name of a credential helper", printable(name, 100)));
    }
    Ok(())
}

/// Case 169, CVE-2020-5260: a second line would be another question.
fn check_server(server: &str) -> Result<(), String> {
    match server.len() <= MAX_NAME && !server.is_empty() && !server.contains(char::is_control) {
        true => Ok(()),
        false => Err("it cannot be asked for a server of this name".to_owned()),
    }
}

/// Runs a helper to its end, or to the limit.
fn run(program: &Path, server: &str, limit: Duration) -> Result<Finished, String> {
    let deadline = Instant::now() + limit.min(LONGEST);
    let mut helper = Running::start(program, server).map_err(|error| format!("it cannot be started: {error}"))?;
    let mut pause = SHORTEST_TICK;
    loop {
        // In this order: what it printed before it ended is then read, and nobody waits for an end of file that its
        // own children may keep from coming.
        let status = helper.child.try_wait().map_err(|error| error.to_string())?;
        let has_printed = helper.read().map_err(|error| format!("its output cannot be read: {error}"))?;
        if helper.out.len() > MAX_OUTPUT {
            return Err(format!("it printed more than {MAX_OUTPUT} bytes"));
        }
        if let Some(status) = status {
            helper.reaped = true;
            let (out, err) = (std::mem::take(&mut helper.out), std::mem::take(&mut helper.err));
            return Ok(Finished { status, out, err });
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(format!("it took longer than {limit:?} and was ended"));
        }
        pause = if has_printed { SHORTEST_TICK } else { (pause * 2).min(TICK) };
        thread::sleep(pause.min(left));
    }
}

/// A helper, which ends with this value, and its children with it.
struct Running {
    child: Child,
    reaped: bool,
    out: Vec<u8>,
    err: Vec<u8>,
}

impl Running {
    fn start(program: &Path, server: &str) -> io::Result<Running> {
        // All of it is in the pipe before anybody reads: a helper that does not care breaks nothing.
        let (stdin, mut input) = io::pipe()?;
        input.write_all(server.as_bytes())?;
        drop(input);
        let mut command = Command::new(program);
        command.arg("get").stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let running = Running { child: command.spawn()?, reaped: false, out: Vec::new(), err: Vec::new() };
        running.child.stdout.as_ref().map_or(Ok(()), do_not_wait)?;
        running.child.stderr.as_ref().map_or(Ok(()), do_not_wait)?;
        Ok(running)
    }

    /// Reads what there is. Returns whether there was something.
    fn read(&mut self) -> io::Result<bool> {
        let out = read_some(self.child.stdout.as_mut(), &mut self.out)?;
        let err = read_some(self.child.stderr.as_mut(), &mut self.err)?;
        Ok(out || err)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.reaped {
            return;
        }
        // Until it is reaped its number is its own.
        if let Some(group) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = rustix::process::kill_process_group(group, Signal::KILL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn do_not_wait(stream: &impl AsFd) -> io::Result<()> {
    let flags = rustix::fs::fcntl_getfl(stream)?;
    Ok(rustix::fs::fcntl_setfl(stream, flags | OFlags::NONBLOCK)?)
}

/// Reads what there is, and keeps one byte more than is allowed. Of a stream without end it reads no more than a pipe
/// holds, and is back. Returns whether there was something.
fn read_some(stream: Option<&mut impl Read>, kept: &mut Vec<u8>) -> io::Result<bool> {
    let Some(stream) = stream else { return Ok(false) };
    let mut chunk = [0; 8 << 10];
    let mut is_any = false;
    for _ in 0..128 {
        match stream.read(&mut chunk) {
            Ok(0) => break,
            Ok(n) => kept.extend_from_slice(&chunk[..n.min(MAX_OUTPUT + 1 - kept.len())]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        }
        is_any = true;
    }
    Ok(is_any)
}

/// What a helper left.
struct Finished {
    status: ExitStatus,
    out: Vec<u8>,
    err: Vec<u8>,
}

impl Finished {
    fn credentials(&self) -> Result<Option<Credentials>, String> {
        match () {
            () if self.status.success() => answer(&self.out),
            () if self.says(NOT_FOUND) => Ok(None),
            () => Err(self.complaint()),
        }
    }

    /// Some write logs around it.
    fn says(&self, words: &str) -> bool {
        let in_lines = |bytes: &[u8]| String::from_utf8_lossy(bytes).lines().any(|line| line.trim().ends_with(words));
        in_lines(&self.out) || in_lines(&self.err)
    }

    /// Of stdout only what helpers say in fixed words: it is where secrets are printed.
    fn complaint(&self) -> String {
        let err = String::from_utf8_lossy(&self.err);
        let line = err.lines().map(str::trim).find(|line| !line.is_empty());
        match line.or_else(|| COMPLAINTS.into_iter().find(|words| self.says(words))) {
            Some(line) => format!("{}: {}", self.status, printable(line, 200)),
            None => self.status.to_string(),
        }
    }
}

/// `{"ServerURL":…,"Username":…,"Secret":…}`.
fn answer(out: &[u8]) -> Result<Option<Credentials>, String> {
    let Ok(Value::Object(fields)) = serde_json::from_slice(out) else {
        return Err("its answer is no JSON object".to_owned());
    };
    let of_answer = |why: String| format!("its answer cannot be used: {why}");
    let username = text(&fields, "Username").map_err(of_answer)?;
    let secret = text(&fields, "Secret").map_err(of_answer)?;
    match (username, secret) {
        (None, None) => Ok(None),
        (_, None) => Err(of_answer("it has no secret".to_owned())),
        (Some(TOKEN_USER), Some(token)) => Ok(Some(Credentials::identity_token(token))),
        (username, Some(secret)) => password_of(username.unwrap_or_default(), secret).map(Some).map_err(of_answer),
    }
}
