//! What changed between two trees, as layers: SPEC 1.4.

mod compression;
mod form;
mod hostile;
mod laws;
pub mod trees;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;

use layercake::changeset::Change;
use layercake::changeset::ChangeKind;
use layercake::changeset::CompareContent;
use layercake::changeset::DiffOptions;
use layercake::changeset::PackOptions;
use layercake::changeset::diff;
use layercake::changeset::pack;

use crate::support::Scratch;
use crate::support::tools::is_root;

/// Two trees that are equal, to be made different.
struct Two {
    scratch: Scratch,
}

impl Two {
    fn new(make: impl Fn(&Path)) -> Two {
        let scratch = Scratch::new();
        for name in ["old", "new"] {
            make(&scratch.dir(name));
            settle(&scratch.path(name));
        }
        Two { scratch }
    }

    fn old(&self) -> std::path::PathBuf {
        self.scratch.path("old")
    }

    fn new_tree(&self) -> std::path::PathBuf {
        self.scratch.path("new")
    }

    fn change(self, change: impl Fn(&Path)) -> Two {
        change(&self.new_tree());
        self
    }

    /// The changes as `A path`, `M path`, `D path`.
    #[track_caller]
    fn listed(&self) -> Vec<String> {
        self.listed_with(&DiffOptions::new())
    }

    #[track_caller]
    fn listed_with(&self, options: &DiffOptions) -> Vec<String> {
        let changes = diff(self.old(), self.new_tree(), options).expect("trees can be compared");
        changes.iter().map(line).collect()
    }

    /// The names of the layer's entries, with those that hard links lead to.
    #[track_caller]
    fn packed(&self) -> Vec<String> {
        let changes = diff(self.old(), self.new_tree(), &DiffOptions::new()).expect("trees can be compared");
        let mut layer = Vec::new();
        let _ = pack(self.new_tree(), &changes, &mut layer, &PackOptions::new()).expect("changes can be packed");
        names(&layer)
    }
}

fn line(change: &Change) -> String {
    let letter = match change.kind {
        ChangeKind::Added => 'A',
        ChangeKind::Modified => 'M',
        ChangeKind::Deleted => 'D',
    };
    format!("{letter} {}", change.path.display())
}

/// What a tar has, read by the `tar` crate.
#[track_caller]
fn names(layer: &[u8]) -> Vec<String> {
    let mut archive = tar::Archive::new(layer);
    let entries = archive.entries().expect("it is a tar");
    entries
        .map(|entry| {
            let entry = entry.expect("it is a tar");
            let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            match entry.link_name_bytes() {
                Some(link) if entry.header().entry_type().is_hard_link() => {
                    format!("{path} = {}", String::from_utf8_lossy(&link))
                }
                _ => path,
            }
        })
        .collect()
}

/// Gives all in a tree one time, of a whole second, as layers do.
fn settle(path: &Path) {
    if fs::symlink_metadata(path).expect("it is there").is_dir() {
        for entry in fs::read_dir(path).expect("a directory can be read") {
            settle(&entry.expect("a directory can be read").path());
        }
    }
    trees::set_time(path, 1_000_000_000, 0);
}

fn write(path: impl AsRef<Path>, content: &str) {
    fs::write(path, content).expect("a file can be written");
}

fn populate(root: &Path) {
    fs::create_dir_all(root.join("etc/conf")).expect("a directory can be made");
    fs::create_dir(root.join("usr")).expect("a directory can be made");
    write(root.join("etc/conf/a"), "a");
    write(root.join("etc/motd"), "hello");
    write(root.join("usr/tool"), "tool");
    fs::hard_link(root.join("usr/tool"), root.join("usr/alias")).expect("a link can be made");
}

/// containerd's EmptyDiff; C8: the layer is the empty tar.
#[test]
fn nothing_is_an_empty_layer() {
    let two = Two::new(populate);
    let changes = diff(two.old(), two.new_tree(), &DiffOptions::new()).unwrap();
    assert!(changes.is_empty() && changes.skipped().is_empty());
    let mut layer = Vec::new();
    let packed = pack(two.new_tree(), &changes, &mut layer, &PackOptions::new()).unwrap();
    assert_eq!(layer, [0; 1024]);
    let empty = "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef";
    assert_eq!((packed.diff_id.to_string().as_str(), packed.entries, packed.size), (empty, 0, 1024));
}

/// ParentInclusion, C2: with their own attributes, and never the root.
#[test]
fn parents_are_in_the_layer() {
    let two = Two::new(populate).change(|new| write(new.join("etc/conf/b"), "b"));
    assert_eq!(two.listed(), ["A etc/conf/b"]);
    assert_eq!(two.packed(), ["etc/", "etc/conf/", "etc/conf/b"]);
}

/// HardlinkParentInclusion, HardlinkUpdatedParent, C4.
#[test]
fn all_names_of_a_changed_file_are_listed() {
    let two = Two::new(populate);
    let more = two.change(|new| {
        fs::hard_link(new.join("usr/tool"), new.join("etc/conf/tool")).expect("a link can be made");
    });
    assert_eq!(more.listed(), ["A etc/conf/tool", "M usr/alias", "M usr/tool"]);
    let packed =
        ["etc/", "etc/conf/", "etc/conf/tool", "usr/", "usr/alias = etc/conf/tool", "usr/tool = etc/conf/tool"];
    assert_eq!(more.packed(), packed);

    let less = Two::new(populate).change(|new| fs::remove_file(new.join("usr/alias")).unwrap());
    assert_eq!(less.listed(), ["D usr/alias"]);

    let torn = Two::new(populate).change(|new| {
        fs::remove_file(new.join("usr/alias")).unwrap();
        write(new.join("usr/alias"), "tool");
        settle(new);
    });
    assert_eq!(torn.listed(), ["M usr/alias", "M usr/tool"]);
    assert_eq!(torn.packed(), ["usr/", "usr/alias", "usr/tool"]);
}

/// UpdateDirectoryPermission; sizes and times of directories are no changes.
#[test]
fn directories_change_by_their_attributes() {
    let two = Two::new(populate).change(|new| {
        fs::set_permissions(new.join("etc"), fs::Permissions::from_mode(0o700)).unwrap();
        trees::set_time(&new.join("usr"), 5, 5);
    });
    assert_eq!(two.listed(), ["M etc"]);
    assert_eq!(two.packed(), ["etc/"]);
}

/// WhiteoutIncludesParents, WhiteoutParentRemoval, L8: whiteouts stand before what is added beside them.
#[test]
fn what_is_gone_has_one_whiteout() {
    let two = Two::new(populate).change(|new| {
        fs::remove_file(new.join("etc/conf/a")).unwrap();
        fs::remove_dir_all(new.join("usr")).unwrap();
        write(new.join("etc/a"), "");
        write(new.join("opt"), "");
    });
    assert_eq!(two.listed(), ["A etc/a", "D etc/conf/a", "A opt", "D usr"]);
    assert_eq!(two.packed(), [".wh.usr", "etc/", "etc/a", "etc/conf/", "etc/conf/.wh.a", "opt"]);
}

/// C1: what takes the place of a directory says that its children are gone; names sort as if `/` were lowest.
#[test]
fn types_change_and_names_sort() {
    let two = Two::new(populate).change(|new| {
        fs::remove_dir_all(new.join("etc")).unwrap();
        write(new.join("etc"), "");
        write(new.join("etc-old"), "");
        fs::remove_file(new.join("usr/tool")).unwrap();
        fs::create_dir(new.join("usr/tool")).unwrap();
        write(new.join("usr/tool/x"), "");
        write(new.join("usr/tool-x"), "");
    });
    assert_eq!(two.listed(), ["M etc", "A etc-old", "M usr/tool", "A usr/tool/x", "A usr/tool-x"]);
}

/// IgnoreSockets: they are reported, and what they took the place of is gone.
#[test]
fn sockets_are_left_out() {
    let two = Two::new(populate).change(|new| {
        fs::remove_file(new.join("etc/motd")).unwrap();
        drop(UnixListener::bind(new.join("etc/motd")).expect("a socket can be made"));
        drop(UnixListener::bind(new.join("socket")).expect("a socket can be made"));
    });
    let changes = diff(two.old(), two.new_tree(), &DiffOptions::new()).unwrap();
    assert_eq!(changes.iter().map(line).collect::<Vec<_>>(), ["D etc/motd"]);
    let skipped: Vec<String> = changes.skipped().iter().map(ToString::to_string).collect();
    assert_eq!(skipped, ["socket: sockets are not stored", "etc/motd: sockets are not stored"]);
}

/// C3: within one second, and of one size.
#[test]
fn edits_of_the_same_second_are_seen() {
    let edit = |nanoseconds: i64| {
        move |new: &Path| {
            write(new.join("etc/motd"), "HELLO");
            trees::set_time(&new.join("etc/motd"), 1_000_000_000, nanoseconds);
        }
    };
    assert_eq!(Two::new(populate).change(edit(0)).listed(), ["M etc/motd"]);
    assert_eq!(Two::new(populate).change(edit(1)).listed(), ["M etc/motd"]);
    let hidden = Two::new(populate).change(edit(1));
    trees::set_time(&hidden.old().join("etc/motd"), 1_000_000_000, 1);
    assert_eq!(hidden.listed(), [""; 0]);
    assert_eq!(hidden.listed_with(&DiffOptions::new().content(CompareContent::Always)), ["M etc/motd"]);
}

/// C6, L16, L17, L20: attributes count, but for the host's.
#[test]
fn attributes_count_but_for_the_hosts() {
    if !is_root() {
        return;
    }
    let set = |path: &Path, name: &str, value: &[u8]| {
        rustix::fs::lsetxattr(path, name, value, rustix::fs::XattrFlags::empty()).expect("an attribute can be set");
    };
    let hosts = Two::new(populate).change(|new| {
        set(&new.join("etc"), "trusted.overlay.opaque", b"y");
        set(&new.join("etc/motd"), "trusted.overlay.metacopy", b"");
    });
    assert_eq!(hosts.listed(), [""; 0]);
    let ours = Two::new(populate).change(|new| set(&new.join("etc/motd"), "user.colour", b"blue\n\0"));
    assert_eq!(ours.listed(), ["M etc/motd"]);
    let unstorable = Two::new(populate).change(|new| {
        set(&new.join("etc/motd"), "user.a=b", b"c");
        set(&new.join("etc/motd"), "user.a%3Db", b"c");
        set(&new.join("etc/motd"), "user.d", b"");
    });
    let changes = diff(unstorable.old(), unstorable.new_tree(), &DiffOptions::new()).unwrap();
    let packed = pack(unstorable.new_tree(), &changes, Vec::new(), &PackOptions::new()).unwrap();
    let mut skipped: Vec<String> = packed.skipped.iter().map(ToString::to_string).collect();
    skipped.sort();
    let expected =
        ["user.a%3Db", "user.a=b"].map(|name| format!("etc/motd: attribute {name}: its name cannot be stored"));
    assert_eq!(skipped, expected);
}
