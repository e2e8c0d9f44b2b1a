//! What `strace -y` says: each call with its arguments, a file by its number and its path.

use std::path::Path;
use std::path::PathBuf;

/// All that changes files or what a change of files means, and what makes a change last.
pub const TRACED: &str = "open,openat,openat2,creat,write,writev,pwrite64,pwritev,read,readv,lseek,copy_file_range,\
    sendfile,splice,ftruncate,truncate,fallocate,rename,renameat,renameat2,link,linkat,unlink,unlinkat,rmdir,mkdir,\
    mkdirat,symlink,symlinkat,mknod,mknodat,fsync,fdatasync,syncfs,sync,chmod,fchmod,fchmodat,dup,dup2,dup3,fcntl,ioctl";

/// A call that succeeded.
#[derive(Debug)]
pub struct Call {
    pub name: String,
    pub arguments: Vec<String>,
    pub result: String,
}

impl Call {
    /// What it returned.
    pub fn returned(&self) -> i64 {
        let digits = self.result.split(['<', ' ']).next().unwrap_or_default();
        digits.parse().unwrap_or_else(|_| panic!("{self:?}"))
    }

    /// An argument that is an open file: its number, and its path unless it has none any more.
    pub fn file(&self, n: usize) -> (i64, Option<PathBuf>) {
        file(&self.arguments[n])
    }

    /// What was opened.
    pub fn opened(&self) -> (i64, Option<PathBuf>) {
        file(&self.result)
    }

    pub fn bytes(&self, n: usize) -> Vec<u8> {
        unescaped(self.arguments[n].trim_end_matches("..."))
    }

    /// The path in argument `n + 1`, from the directory that is argument `n`.
    pub fn path_at(&self, n: usize) -> Option<PathBuf> {
        let path = String::from_utf8(self.bytes(n + 1)).unwrap();
        if path.starts_with('/') {
            return Some(PathBuf::from(path));
        }
        let (_, directory) = self.file(n);
        Some(directory?.join(path))
    }

    pub fn path(&self, n: usize) -> PathBuf {
        PathBuf::from(String::from_utf8(self.bytes(n)).unwrap())
    }

    pub fn number(&self, n: usize) -> usize {
        self.arguments[n].parse().unwrap_or_else(|_| panic!("{self:?}"))
    }

    pub fn octal(&self, n: usize) -> u32 {
        u32::from_str_radix(&self.arguments[n], 8).unwrap_or_else(|_| panic!("{self:?}"))
    }

    pub fn has(&self, n: usize, flag: &str) -> bool {
        self.arguments.get(n).is_some_and(|flags| flags.split(['|', '{', '=', ',', '}']).any(|set| set.trim() == flag))
    }
}

/// The calls that succeeded, in the order in which they ended.
pub fn calls(log: &str) -> Vec<Call> {
    let mut begun: std::collections::HashMap<&str, String> = std::collections::HashMap::new();
    let mut calls = Vec::new();
    for line in log.lines() {
        let Some((process, rest)) = line.split_once(' ') else { continue };
        let rest = rest.trim_start();
        if let Some(start) = rest.strip_suffix(" <unfinished ...>") {
            begun.insert(process, start.to_owned());
            continue;
        }
        let whole = match rest.strip_prefix("<... ") {
            Some(end) => {
                let (_, end) = end.split_once(" resumed>").unwrap_or_else(|| panic!("{line}"));
                begun.remove(process).unwrap_or_else(|| panic!("{line}")) + end
            }
            None => rest.to_owned(),
        };
        calls.extend(parse(&whole));
    }
    calls
}

/// One whole line. None if it is no call, or one that failed, or was never made.
fn parse(line: &str) -> Option<Call> {
    let (name, rest) = line.split_once('(')?;
    let (arguments, result) = rest.rsplit_once(" = ")?;
    if result.ends_with("(INJECTED)") {
        return None;
    }
    if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') || result.starts_with(['-', '?']) {
        return None;
    }
    let arguments = arguments.trim_end().strip_suffix(')')?;
    Some(Call { name: name.to_owned(), arguments: split(arguments), result: result.to_owned() })
}

/// At commas, but not at those in quotes and brackets.
fn split(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let (mut quoted, mut depth, mut escaped) = (false, 0, false);
    for letter in text.chars() {
        match letter {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => quoted = !quoted,
            '<' | '{' | '[' if !quoted => depth += 1,
            '>' | '}' | ']' if !quoted => depth -= 1,
            ',' if !quoted && depth == 0 => {
                parts.push(String::new());
                continue;
            }
            _ => {}
        }
        parts.last_mut().unwrap().push(letter);
    }
    parts.into_iter().map(|part| part.trim().to_owned()).collect()
}

/// `5</path>`; what was removed meanwhile has no path.
fn file(text: &str) -> (i64, Option<PathBuf>) {
    let (number, path) = text.split_once('<').unwrap_or((text, ""));
    let number = number.split(' ').next().unwrap_or_default();
    let path = path.strip_suffix('>').filter(|path| path.starts_with('/') && !path.ends_with("(deleted)"));
    (number.parse().unwrap_or(-1), path.map(|path| Path::new(path).to_owned()))
}

/// A string as C writes it.
fn unescaped(text: &str) -> Vec<u8> {
    let text = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or_else(|| panic!("{text}"));
    let mut bytes = Vec::new();
    let mut rest = text.bytes().peekable();
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        bytes.push(match rest.next().unwrap() {
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'v' => 11,
            b'f' => 12,
            digit @ b'0'..=b'7' => {
                let mut value = u32::from(digit - b'0');
                for _ in 0..2 {
                    if let Some(digit) = rest.next_if(|next| (b'0'..=b'7').contains(next)) {
                        value = value * 8 + u32::from(digit - b'0');
                    }
                }
                value as u8
            }
            other => other,
        });
    }
    bytes
}
