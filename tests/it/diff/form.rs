//! What layers look like, byte for byte (C5).

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use layercake::changeset::Change;
use layercake::changeset::ChangeKind;
use layercake::changeset::Changes;
use layercake::changeset::Entries;
use layercake::changeset::EntryKind;
use layercake::changeset::IdMap;
use layercake::changeset::Limits;
use layercake::changeset::Owners;
use layercake::changeset::PackOptions;
use layercake::changeset::pack;
use layercake::changeset::pack_tree;

use super::names;
use super::trees::set_time;
use super::write;
use crate::support::Scratch;
use crate::support::tools::installed;
use crate::support::tools::is_root;
use crate::support::tools::run;

/// Names of each length, all types that need no privilege, times before 1970 and with fractions.
fn populate(root: &Path) {
    let long = "l".repeat(150);
    fs::create_dir_all(root.join("bin")).unwrap();
    fs::create_dir_all(root.join(&long).join(&long)).unwrap();
    write(root.join("bin/tool"), "#!/bin/sh\n");
    fs::hard_link(root.join("bin/tool"), root.join("bin/alias")).unwrap();
    symlink("../bin/tool", root.join("bin/link")).unwrap();
    symlink("t".repeat(120), root.join("bin/long-link")).unwrap();
    write(root.join(&long).join("name"), "parted in two");
    write(root.join(&long).join(&long).join("name"), "too long");
    write(root.join("ü\n"), &"x".repeat(513));
    rustix::fs::mknodat(
        rustix::fs::CWD,
        root.join("pipe"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    fs::set_permissions(root.join("bin/tool"), fs::Permissions::from_mode(0o4755)).unwrap();
    for plain in ["ü\n", "pipe"] {
        fs::set_permissions(root.join(plain), fs::Permissions::from_mode(0o640)).unwrap();
    }
    for path in [format!("{long}/name"), format!("{long}/{long}/name")] {
        fs::set_permissions(root.join(path), fs::Permissions::from_mode(0o644)).unwrap();
    }
    for directory in [format!("{long}/{long}"), long, "bin".to_owned()] {
        fs::set_permissions(root.join(directory), fs::Permissions::from_mode(0o755)).unwrap();
    }
    super::settle(root);
    set_time(&root.join("ü\n"), -5, 0);
    set_time(&root.join("pipe"), 2_000_000_000, 999_999_999);
}

fn packed(root: &Path, options: &PackOptions) -> (Vec<u8>, String) {
    let mut layer = Vec::new();
    let packed = pack_tree(root, &mut layer, options).unwrap();
    (layer, packed.diff_id.to_string())
}

/// The digest is a function of the tree and the options. If this test fails, layers that were made before can no longer
/// be made again: say so in the changelog.
#[test]
fn golden_digests() {
    let scratch = Scratch::new();
    populate(&scratch.dir("tree"));
    let options = PackOptions::new().owners(Owners::Root);
    let (layer, digest) = packed(&scratch.path("tree"), &options);
    let long = "l".repeat(150);
    let expected = [
        "bin/".to_owned(),
        "bin/alias".to_owned(),
        "bin/link".to_owned(),
        "bin/long-link".to_owned(),
        "bin/tool = bin/alias".to_owned(),
        format!("{long}/"),
        format!("{long}/{long}/"),
        format!("{long}/{long}/name"),
        format!("{long}/name"),
        "pipe".to_owned(),
        "ü\n".to_owned(),
    ];
    assert_eq!(names(&layer), expected);
    assert_eq!(digest, "sha256:fae4765f218f0652070cfdc9cb45aa2d558605aac9ce235ef50860a21cf3e752");
    let clamped = packed(&scratch.path("tree"), &options.epoch(1_000_000_000)).1;
    assert_eq!(clamped, "sha256:4d60c60db1dcea19a916d9ea44347c7a6649cfde394fe7881db85d8bec54542e");
}

/// Whiteouts stand first and have no attributes; a directory that was replaced is marked; the whole header is known.
#[test]
fn golden_whiteouts() {
    let scratch = Scratch::new();
    let root = scratch.dir("tree");
    fs::create_dir_all(root.join("a/b")).unwrap();
    fs::set_permissions(root.join("a"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(root.join("a/b"), fs::Permissions::from_mode(0o755)).unwrap();
    write(root.join("a/b/c"), "c");
    fs::set_permissions(root.join("a/b/c"), fs::Permissions::from_mode(0o600)).unwrap();
    super::settle(&root);
    let changes: Changes = [
        Change::new("a/b/c", ChangeKind::Added),
        Change::new("a/b", ChangeKind::Modified).opaque(),
        Change::new("z", ChangeKind::Deleted),
    ]
    .into_iter()
    .collect();
    let mut layer = Vec::new();
    let done = pack(&root, &changes, &mut layer, &PackOptions::new().owners(Owners::Root)).unwrap();
    assert_eq!(names(&layer), [".wh.z", "a/", "a/b/", "a/b/.wh..wh..opq", "a/b/c"]);
    assert_eq!(done.entries, 5);
    let mut archive = tar::Archive::new(&layer[..]);
    for entry in archive.entries().unwrap() {
        let header = entry.unwrap().header().clone();
        assert_eq!((header.username_bytes(), header.groupname_bytes()), (Some(&b""[..]), Some(&b""[..])));
        if header.path_bytes().windows(4).any(|part| part == b".wh.") {
            assert_eq!((header.mode().unwrap(), header.mtime().unwrap(), header.size().unwrap()), (0, 0, 0));
            assert!(header.entry_type().is_file());
        }
    }
    assert_eq!(done.diff_id.to_string(), "sha256:59fd3690a95b4e7f32d6b5937b90267ff125d2db4b9121061eaab0e9d854c1d0");
}

/// Devices, attributes and large ids: all comes back as it was.
#[test]
fn what_only_root_has_comes_back() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let root = scratch.dir("tree");
    let device = rustix::fs::makedev(0xabc, 0xabcde);
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, root.join("dev"), rustix::fs::FileType::BlockDevice, mode, device).unwrap();
    write(root.join("file"), "");
    std::os::unix::fs::lchown(root.join("file"), Some(3_000_000_000), Some(1 << 21)).unwrap();
    let value = b"a=b\nc\0".to_vec();
    rustix::fs::lsetxattr(root.join("file"), "user.odd name", &value, rustix::fs::XattrFlags::empty()).unwrap();
    let (layer, _) = packed(&root, &PackOptions::new());
    let mut entries = Entries::new(&layer[..], Limits::default());
    let entry = entries.next_entry().unwrap().unwrap();
    assert_eq!(entry.kind(), EntryKind::BlockDevice { major: 0xabc, minor: 0xabcde });
    let entry = entries.next_entry().unwrap().unwrap();
    assert_eq!((entry.uid(), entry.gid()), (3_000_000_000, 1 << 21));
    let xattrs: Vec<_> = entry.xattrs().map(|(name, value)| (name.to_owned(), value.to_vec())).collect();
    assert_eq!(xattrs, [("user.odd name".into(), value)]);
}

/// Owners are translated back, and what lies outside of the map is refused.
#[test]
fn owners_are_translated() {
    let scratch = Scratch::new();
    let root = scratch.dir("tree");
    write(root.join("file"), "");
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let owners = |uids| Owners::Mapped { uids: IdMap::new([uids]), gids: IdMap::new([(7, gid, 1)]) };
    let (layer, _) = packed(&root, &PackOptions::new().owners(owners((5, uid, 1))));
    let mut entries = Entries::new(&layer[..], Limits::default());
    let entry = entries.next_entry().unwrap().unwrap();
    assert_eq!((entry.uid(), entry.gid()), (5, 7));
    let outside = PackOptions::new().owners(owners((5, uid + 1, 1)));
    let error = pack_tree(&root, Vec::new(), &outside).unwrap_err().to_string();
    assert!(error.ends_with(&format!("owner {uid} lies outside of the map of ids")), "{error}");
}

/// GNU tar and Python read the same names, and GNU tar the same tree.
#[test]
fn other_programs_read_it() {
    let scratch = Scratch::new();
    populate(&scratch.dir("tree"));
    let (layer, _) = packed(&scratch.path("tree"), &PackOptions::new());
    let file: PathBuf = scratch.path("layer.tar");
    fs::write(&file, &layer).unwrap();
    let ours: Vec<String> =
        names(&layer).iter().map(|name| name.split(" = ").next().unwrap_or_default().to_owned()).collect();
    if installed(&["tar"]) {
        let gnu = scratch.dir("gnu");
        run(Command::new("tar").arg("--numeric-owner").arg("-xpf").arg(&file).arg("-C").arg(&gnu)).ok();
        let said = |path| crate::support::tree::said(crate::support::tree::lines(path));
        assert_eq!(said(&gnu), said(&scratch.path("tree")));
    }
    if installed(&["python3"]) {
        let list =
            "import sys, tarfile\nfor m in tarfile.open(sys.argv[1], errorlevel=2): print(ascii(m.name), m.isdir())";
        let out = run(Command::new("python3").args(["-c", list]).arg(&file)).ok();
        let python: Vec<String> = ours
            .iter()
            .map(|name| {
                let plain = name.trim_end_matches('/').replace("ü", "\\xfc").replace('\n', "\\n");
                format!("'{plain}' {}", if name.ends_with('/') { "True" } else { "False" })
            })
            .collect();
        assert_eq!(out.lines().collect::<Vec<_>>(), python);
    }
}

/// More than the header's size can hold; the content is a hole, and is stored all the same.
#[test]
#[ignore = "writes 9 GiB of zeros to nowhere, which takes a minute"]
fn files_of_nine_gibibytes() {
    let scratch = Scratch::new();
    let root = scratch.dir("tree");
    fs::File::create(root.join("huge")).unwrap().set_len(9 << 30).unwrap();
    let packed = pack_tree(&root, std::io::sink(), &PackOptions::new()).unwrap();
    assert_eq!(packed.size, (9 << 30) + 3 * 512 + 1024);
}
