//! What lies on the disk, in the model's terms.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::model::Kind;
use super::model::Meta;
use super::model::Node;
use super::model::Tree;

/// The tree below `root`, with everything that layers can say of it.
#[track_caller]
pub fn read(root: &Path) -> Tree {
    let mut tree = Tree::new();
    let mut names: BTreeMap<(u64, u64), Vec<String>> = BTreeMap::new();
    add(root, "", &mut tree, &mut names);
    for links in names.values() {
        for path in links {
            tree.get_mut(path).expect("it was added").links.clone_from(links);
        }
    }
    tree
}

#[track_caller]
fn add(path: &Path, name: &str, tree: &mut Tree, names: &mut BTreeMap<(u64, u64), Vec<String>>) {
    let stat = fs::symlink_metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let file_type = stat.file_type();
    let kind = if file_type.is_dir() {
        Kind::Directory
    } else if file_type.is_symlink() {
        Kind::Symlink(text(fs::read_link(path).expect("a link can be read").as_os_str().as_bytes()))
    } else if file_type.is_fifo() {
        Kind::Fifo
    } else if file_type.is_file() {
        Kind::File(fs::read(path).expect("a file can be read"))
    } else {
        panic!("{}: the model knows no {file_type:?}", path.display());
    };
    let mode = if file_type.is_symlink() { 0o777 } else { stat.mode() & 0o7777 };
    let nanoseconds = u32::try_from(stat.mtime_nsec()).expect("it is below a billion");
    let meta =
        Meta { mode, uid: stat.uid(), gid: stat.gid(), mtime: (stat.mtime(), nanoseconds), xattrs: xattrs(path) };
    tree.insert(name.to_owned(), Node { kind, meta, links: vec![name.to_owned()] });
    if file_type.is_dir() {
        for entry in fs::read_dir(path).expect("a directory can be read") {
            let entry = entry.expect("a directory can be read");
            let child = text(entry.file_name().as_bytes());
            let child = if name.is_empty() { child } else { format!("{name}/{child}") };
            add(&entry.path(), &child, tree, names);
        }
    } else {
        let links = names.entry((stat.dev(), stat.ino())).or_default();
        links.push(name.to_owned());
        links.sort();
    }
}

fn xattrs(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut list = vec![0; 64 << 10];
    let Ok(length) = rustix::fs::llistxattr(path, &mut list[..]) else { return BTreeMap::new() };
    let names = list[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty());
    names.map(|name| (text(name), xattr(path, name))).filter(|(name, _)| name != "security.selinux").collect()
}

/// The value of an extended attribute, which must be there.
#[track_caller]
pub fn xattr(path: &Path, name: impl AsRef<[u8]>) -> Vec<u8> {
    let mut value = vec![0; 64 << 10];
    let length = rustix::fs::lgetxattr(path, name.as_ref(), &mut value[..]);
    value.truncate(length.unwrap_or_else(|error| panic!("{}: {error}", path.display())));
    value
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("the test uses names of text")
}

/// A line of text for each path.
pub type Lines = BTreeMap<Vec<u8>, String>;

/// The tree below `root` as text, one for each path: type, mode, owner, size, time, device, attributes, content, names.
#[track_caller]
pub fn lines(root: &Path) -> Lines {
    let mut found = Vec::new();
    let mut names: BTreeMap<(u64, u64), Vec<Vec<u8>>> = BTreeMap::new();
    let mut ahead = vec![root.to_owned()];
    while let Some(path) = ahead.pop() {
        let stat = fs::symlink_metadata(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let name = path.strip_prefix(root).expect("it is below").as_os_str().as_bytes().to_vec();
        if stat.is_dir() {
            let children = fs::read_dir(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            ahead.extend(children.map(|child| child.expect("a directory can be read").path()));
        } else {
            names.entry((stat.dev(), stat.ino())).or_default().push(name.clone());
        }
        found.push((name, path, stat));
    }
    names.values_mut().for_each(|names| names.sort());
    let line = |(name, path, stat): (Vec<u8>, std::path::PathBuf, fs::Metadata)| {
        let content = match stat.file_type() {
            file if file.is_file() => {
                layercake::Digest::sha256(&fs::read(&path).expect("a file can be read")).to_string()
            }
            link if link.is_symlink() => format!("{:?}", fs::read_link(&path).expect("a link can be read")),
            _ => String::new(),
        };
        let size = if stat.is_dir() { 0 } else { stat.size() };
        let links = names.get(&(stat.dev(), stat.ino()));
        let text = format!(
            "{:o} {}:{} {size} bytes, {}.{:09}, device {}, {:?} {content} {links:?}",
            stat.mode(),
            stat.uid(),
            stat.gid(),
            stat.mtime(),
            stat.mtime_nsec(),
            stat.rdev(),
            xattrs(&path),
        );
        (name, text)
    };
    found.into_iter().map(line).collect()
}

/// What layers say of a tree: nothing of the root, no fractions of seconds, and no times of directories that did not
/// change.
pub fn said(lines: Lines) -> Lines {
    lines.into_iter().filter(|(path, _)| !path.is_empty()).map(|(path, line)| (path, without_fraction(&line))).collect()
}

fn without_fraction(line: &str) -> String {
    let (before, rest) = line.split_once(" bytes, ").expect("a line has a size");
    let (time, after) = rest.split_once(", ").expect("a line has a time");
    let seconds = time.split('.').next().unwrap_or_default();
    // Directories' modes begin so.
    let seconds = if line.starts_with("40") || line.starts_with("41") { "?" } else { seconds };
    format!("{before} bytes, {seconds}, {after}")
}
