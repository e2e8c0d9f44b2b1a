//! Trees that mean harm, or do not hold still.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::fs::symlink;
use std::path::Path;

use layercake::Cancel;
use layercake::ErrorKind;
use layercake::changeset::Change;
use layercake::changeset::ChangeKind;
use layercake::changeset::Changes;
use layercake::changeset::DiffOptions;
use layercake::changeset::PackOptions;
use layercake::changeset::diff;
use layercake::changeset::pack;
use layercake::changeset::pack_tree;
use layercake::error::Limit;

use super::names;
use super::write;
use crate::support::Scratch;

#[track_caller]
fn refused(root: &Path, changes: &Changes) -> String {
    pack(root, changes, Vec::new(), &PackOptions::new()).unwrap_err().to_string()
}

fn one(path: &str, kind: ChangeKind) -> Changes {
    [Change::new(path, kind)].into_iter().collect()
}

/// Does something when the first byte of a file's content is written.
struct Meddler<F>(F, usize);

impl<F: FnMut()> Write for Meddler<F> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.1 += 1;
        if self.1 == 2 {
            (self.0)();
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Case 38. A file of several pieces, to which something happens between the first and the second one.
#[test]
fn a_file_that_does_not_hold_still_is_an_error() {
    let scratch = Scratch::new();
    let root = scratch.dir("tree");
    let file = root.join("log");
    let open = || fs::OpenOptions::new().append(true).open(&file).unwrap();
    let cases: [(&str, &dyn Fn()); 3] = [
        ("it grew while it was read", &|| open().write_all(b"more").unwrap()),
        ("it shrank while it was read", &|| open().set_len(1000).unwrap()),
        ("it was written to while it was read", &|| {
            fs::write(&file, "y".repeat(300_000)).unwrap();
        }),
    ];
    for (reason, happens) in cases {
        write(&file, &"x".repeat(300_000));
        super::trees::set_time(&file, 1, 0);
        let error = pack_tree(&root, Meddler(happens, 0), &PackOptions::new()).unwrap_err();
        let expected = format!("pack {}: read {}: {reason}", root.display(), file.display());
        assert_eq!(error.to_string(), expected);
    }
}

/// Part 3, 1: what a directory became meanwhile is not followed, nor are links.
#[test]
fn links_lead_nowhere() {
    let scratch = Scratch::new();
    let (root, outside) = (scratch.dir("tree"), scratch.dir("outside"));
    write(outside.join("secret"), "classified");
    symlink(&outside, root.join("link")).unwrap();
    symlink(outside.join("secret"), root.join("leak")).unwrap();
    let mut layer = Vec::new();
    let _ = pack_tree(&root, &mut layer, &PackOptions::new()).unwrap();
    assert_eq!(names(&layer), ["leak", "link"]);
    assert!(!layer.windows(10).any(|part| part == b"classified"));
    let error = refused(&root, &one("link/secret", ChangeKind::Added));
    assert!(error.contains("open ") && error.contains("Not a directory"), "{error}");

    // The directory is swapped when its own header is written.
    fs::create_dir(root.join("d")).unwrap();
    write(root.join("d/f"), "");
    let swap = || {
        fs::rename(root.join("d"), scratch.path("moved")).unwrap();
        symlink(&outside, root.join("d")).unwrap();
    };
    let changes = one("d/f", ChangeKind::Added);
    let error = pack(&root, &changes, Meddler(swap, 1), &PackOptions::new()).unwrap_err().to_string();
    assert!(error.contains("Not a directory"), "{error}");
}

/// FIFOs, and one that takes the place of a file, hang nobody.
#[test]
fn fifos_are_not_opened() {
    let scratch = Scratch::new();
    let (old, new) = (scratch.dir("old"), scratch.dir("new"));
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    for root in [&old, &new] {
        rustix::fs::mknodat(rustix::fs::CWD, root.join("pipe"), rustix::fs::FileType::Fifo, mode, 0).unwrap();
        super::settle(root);
    }
    assert!(diff(&old, &new, &DiffOptions::new()).unwrap().is_empty());
    write(old.join("pipe2"), "");
    rustix::fs::mknodat(rustix::fs::CWD, new.join("pipe2"), rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let changes = diff(&old, &new, &DiffOptions::new()).unwrap();
    assert_eq!(changes.len(), 1);
    let mut layer = Vec::new();
    let _ = pack(&new, &changes, &mut layer, &PackOptions::new()).unwrap();
    assert_eq!(names(&layer), ["pipe2"]);
}

/// L8: nothing in a layer can have such a name.
#[test]
fn names_of_whiteouts_are_refused() {
    let scratch = Scratch::new();
    let (old, new) = (scratch.dir("old"), scratch.dir("new"));
    for name in [".wh.", ".wh.x", ".wh..wh..opq"] {
        write(new.join(name), "");
        let reason = format!("{name}: in a layer, names that start with .wh. are those of whiteouts");
        for error in [
            diff(&old, &new, &DiffOptions::new()).unwrap_err(),
            diff(&new, &old, &DiffOptions::new()).unwrap_err(),
            pack_tree(&new, Vec::new(), &PackOptions::new()).unwrap_err(),
            pack(&new, &one(name, ChangeKind::Deleted), Vec::new(), &PackOptions::new()).unwrap_err(),
        ] {
            assert!(matches!(error.kind(), ErrorKind::InvalidInput(_)));
            assert!(error.to_string().ends_with(&reason), "{error}");
        }
        fs::remove_file(new.join(name)).unwrap();
    }
}

#[test]
fn paths_out_of_the_tree_are_refused() {
    let scratch = Scratch::new();
    let root = scratch.dir("tree");
    write(scratch.path("secret"), "");
    for path in ["../secret", "/etc/passwd", "", "a/../../secret", "./a", "a//b", "."] {
        for kind in [ChangeKind::Added, ChangeKind::Deleted] {
            let error = refused(&root, &one(path, kind));
            assert!(error.ends_with("is no path of a thing below the root"), "{path}: {error}");
        }
    }
    assert!(refused(&root, &one("gone", ChangeKind::Added)).contains("No such file"));
}

/// C10: Docker leaves such files out, and says nothing.
#[test]
fn what_cannot_be_read_is_an_error() {
    if rustix::process::geteuid().is_root() {
        println!("ignored: root reads everything");
        return;
    }
    let scratch = Scratch::new();
    let (old, new) = (scratch.dir("old"), scratch.dir("new"));
    write(new.join("secret"), "");
    fs::set_permissions(new.join("secret"), fs::Permissions::from_mode(0o0)).unwrap();
    let changes = diff(&old, &new, &DiffOptions::new()).unwrap();
    assert!(refused(&new, &changes).contains("Permission denied"));
    fs::create_dir(new.join("locked")).unwrap();
    fs::set_permissions(new.join("locked"), fs::Permissions::from_mode(0o0)).unwrap();
    let error = diff(&old, &new, &DiffOptions::new()).unwrap_err().to_string();
    fs::set_permissions(new.join("locked"), fs::Permissions::from_mode(0o700)).unwrap();
    assert!(error.contains("locked: Permission denied"), "{error}");
}

/// Programs in a tree can make paths of any length; a list of such would take the square of that in memory.
#[test]
fn endless_paths_are_refused() {
    let scratch = Scratch::new();
    let (old, new) = (scratch.dir("old"), scratch.dir("new"));
    let name = "d".repeat(255);
    let flags = rustix::fs::OFlags::PATH;
    let mut here = rustix::fs::openat(rustix::fs::CWD, &new, flags, rustix::fs::Mode::empty()).unwrap();
    for _ in 0..17 {
        rustix::fs::mkdirat(&here, &*name, rustix::fs::Mode::RWXU).unwrap();
        here = rustix::fs::openat(&here, &*name, flags, rustix::fs::Mode::empty()).unwrap();
    }
    for error in [
        diff(&old, &new, &DiffOptions::new()).unwrap_err(),
        pack_tree(&new, Vec::new(), &PackOptions::new()).unwrap_err(),
    ] {
        let limit = matches!(error.kind(), ErrorKind::LimitExceeded { limit: Limit::PathLength, maximum: 4095 });
        assert!(limit, "{error}");
    }
}

/// Two trees, together deeper than a process may mostly have files open.
#[test]
fn deep_trees_need_few_descriptors() {
    let scratch = Scratch::new();
    let (old, new) = (scratch.dir("old"), scratch.dir("new"));
    let deep = "d/".repeat(700);
    for root in [&old, &new] {
        fs::create_dir_all(root.join(&deep)).unwrap();
    }
    write(new.join(&deep).join("f"), "");
    let changes = diff(&old, &new, &DiffOptions::new()).unwrap();
    assert_eq!(changes.len(), 1);
    let packed = pack(&new, &changes, Vec::new(), &PackOptions::new()).unwrap();
    assert_eq!(packed.entries, 701);
}

#[test]
fn work_can_be_ended() {
    let scratch = Scratch::new();
    let root = scratch.dir("tree");
    write(root.join("file"), "");
    let cancel = Cancel::new();
    cancel.cancel();
    let error = pack_tree(&root, Vec::new(), &PackOptions::new().cancel(&cancel)).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Cancelled));
    let error = diff(&root, &root, &DiffOptions::new().cancel(&cancel)).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Cancelled));
}
