//! The matrix of ways out of a root: containerd's `TestBreakouts`, and what other tools fell for.
//!
//! Each case is done twice, with `openat2` and without. Beside the root lies what nothing may touch; it is looked at
//! after each layer, down to the times of change of its inodes, so that links to it are seen too.

mod history;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::path::PathBuf;

use layercake::Error;
use layercake::ErrorKind;
use layercake::changeset::Options;
use layercake::changeset::Ownership;
use layercake::changeset::Unpacked;
use layercake::changeset::apply;

use crate::assert_kind;
use crate::support::Scratch;
use crate::support::failure;
use crate::support::model::Kind;
use crate::support::tape::Item;
use crate::support::tape::tar;
use crate::support::tree;
use crate::support::unsynced;

/// Those under which these tests pass for plain users too.
pub fn options() -> Options<'static> {
    let is_root = rustix::process::geteuid().is_root();
    unsynced().ownership(if is_root { Ownership::Preserve } else { Ownership::CurrentUser })
}

/// All names below a directory, each with what it is: `d/`, `file: content`, `link -> target`, `pipe|`, and
/// `b = a` for one more name of `a`.
#[track_caller]
pub fn listing(root: &Path) -> Vec<String> {
    let tree = tree::read(root);
    let line = |(path, node): (&String, &crate::support::model::Node)| match &node.kind {
        _ if node.links[0] != *path => format!("{path} = {}", node.links[0]),
        Kind::Directory => format!("{path}/"),
        Kind::File(content) => format!("{path}: {}", content.escape_ascii()),
        Kind::Symlink(target) => format!("{path} -> {target}"),
        Kind::Fifo => format!("{path}|"),
    };
    tree.iter().skip(1).map(line).collect()
}

/// A root, and beside it what nothing may touch.
struct Cage {
    scratch: Scratch,
    root: PathBuf,
    options: Options<'static>,
    outside: BTreeMap<PathBuf, String>,
}

impl Cage {
    /// One with `openat2`, one without.
    fn both() -> [Cage; 2] {
        [Cage::new(options()), Cage::new(options().without_openat2())]
    }

    fn new(options: Options<'static>) -> Cage {
        let scratch = Scratch::new();
        let outside = scratch.dir("outside");
        fs::write(outside.join("secret"), "secret").unwrap();
        fs::set_permissions(outside.join("secret"), fs::Permissions::from_mode(0o600)).unwrap();
        fs::create_dir(outside.join("dir")).unwrap();
        fs::write(outside.join("dir/inner"), "inner").unwrap();
        symlink("secret", outside.join("link")).unwrap();
        let root = scratch.dir("root");
        let mut cage = Cage { scratch, root, options, outside: BTreeMap::new() };
        cage.outside = cage.look();
        cage
    }

    /// All that is not in the root.
    fn look(&self) -> BTreeMap<PathBuf, String> {
        let mut seen = BTreeMap::new();
        look(self.root.parent().unwrap(), &self.root, &mut seen);
        seen
    }

    #[track_caller]
    fn check(&self) {
        assert_eq!(self.look(), self.outside);
    }

    #[track_caller]
    fn apply(&self, layer: &[Item]) -> layercake::Result<Unpacked> {
        let result = apply(&tar(layer)[..], &self.root, &self.options);
        self.check();
        result
    }

    /// Applies the layer, all of which can be applied.
    #[track_caller]
    fn take(&self, layer: &[Item]) {
        let done = self.apply(layer).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(done.skipped, []);
    }

    /// What a link may say to lead to `outside`, and where that is inside the root.
    fn ways_out(&self) -> [(String, String); 4] {
        let absolute = self.scratch.path("outside").to_str().unwrap().to_owned();
        let inside = absolute[1..].to_owned();
        [
            ("../outside".to_owned(), "outside".to_owned()),
            ("../../../../../../../../../outside".to_owned(), "outside".to_owned()),
            (format!("..{absolute}/."), inside.clone()),
            (absolute, inside),
        ]
    }

    #[track_caller]
    fn text(&self, path: &str) -> String {
        let path = self.root.join(path);
        assert!(fs::symlink_metadata(&path).is_ok_and(|stat| stat.is_file()), "{} is no file", path.display());
        fs::read_to_string(path).unwrap()
    }

    fn mode(&self, path: &str) -> u32 {
        fs::symlink_metadata(self.root.join(path)).unwrap().mode() & 0o7777
    }
}

fn look(path: &Path, except: &Path, seen: &mut BTreeMap<PathBuf, String>) {
    let stat = fs::symlink_metadata(path).unwrap();
    let content = match stat.file_type() {
        kind if kind.is_file() => fs::read(path).unwrap().escape_ascii().to_string(),
        kind if kind.is_symlink() => fs::read_link(path).unwrap().display().to_string(),
        _ => String::new(),
    };
    let owner = (stat.uid(), stat.gid(), stat.mode());
    let changed = (stat.mtime(), stat.mtime_nsec(), stat.ctime(), stat.ctime_nsec());
    seen.insert(path.to_owned(), format!("{} {} {owner:?} {changed:?} {content}", stat.ino(), stat.nlink()));
    if stat.is_dir() {
        let entries = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
        entries.filter(|path| path != except).for_each(|path| look(&path, except, seen));
    }
}

/// What watches over the others sees what they must not do.
#[test]
fn what_happens_outside_is_seen() {
    let acts: [fn(&Path, &Path); 5] = [
        |outside, _| fs::write(outside.join("secret"), "SECRET").unwrap(),
        |outside, _| fs::set_permissions(outside.join("dir"), fs::Permissions::from_mode(0o777)).unwrap(),
        |outside, _| fs::remove_file(outside.join("dir/inner")).unwrap(),
        |outside, _| fs::write(outside.join("../new"), "").unwrap(),
        |outside, root| fs::hard_link(outside.join("secret"), root.join("stolen")).unwrap(),
    ];
    for act in acts {
        let cage = Cage::new(options());
        act(&cage.scratch.path("outside"), &cage.root);
        assert_ne!(cage.look(), cage.outside);
    }
}

/// Applies the layers, one after another, and compares the tree.
#[track_caller]
fn becomes(layers: &[&[Item]], expected: &[&str]) {
    for cage in Cage::both() {
        for layer in layers {
            cage.take(layer);
        }
        assert_eq!(listing(&cage.root), expected);
    }
}

/// Applies the layers, the last of which is refused. Returns the reason.
#[track_caller]
fn refused(layers: &[&[Item]]) -> Error {
    let [error, same] = Cage::both().map(|cage| {
        let (last, lower) = layers.split_last().unwrap();
        for layer in lower {
            cage.take(layer);
        }
        let error = failure(cage.apply(last));
        assert_kind!(error, ErrorKind::InvalidLayer { .. });
        error
    });
    assert_eq!(format!("{:?}", error.kind()), format!("{:?}", same.kind()));
    error
}

fn etc() -> [Item; 2] {
    [Item::dir("etc").mode(0o770), Item::file("/etc/passwd", "inside")]
}

/// `etc/passwd`, and then these.
fn with_etc(items: &[Item]) -> Vec<Item> {
    [&etc(), items].concat()
}

// containerd's matrix. The names are its own.

/// L13: `SymlinkAbsolute`, `SymlinkUpAndOut`.
#[test]
fn a_file_behind_a_symlink_is_written_inside() {
    for target in ["/etc", "/dummy/../etc", "../../etc", "/../etc", "dummy/../../../etc/."] {
        let link = Item::symlink("localetc", target);
        let unbroken = Item::file("/localetc/unbroken", "unbroken");
        let expected = format!("localetc -> {target}");
        becomes(
            &[&[Item::dir("etc"), Item::dir("dummy"), link, unbroken]],
            &["dummy/", "etc/", "etc/unbroken: unbroken", &expected],
        );
    }
}

/// L13: `SymlinkMultipleAbsolute`, `SymlinkMultipleRelative`.
#[test]
fn a_file_behind_two_symlinks_is_written_inside() {
    for target in ["/dummy/etc", "./dummy/etc"] {
        let links = [Item::symlink("/dummy/etc", "/etc"), Item::symlink("localetc", target)];
        for path in ["/dummy/etc/unbroken", "localetc/unbroken"] {
            let unbroken = [Item::file(path, "unbroken")];
            becomes(
                &[&[&[Item::dir("etc"), Item::dir("dummy")], &links[..], &unbroken].concat()],
                &["dummy/", "dummy/etc -> /etc", "etc/", "etc/unbroken: unbroken", &format!("localetc -> {target}")],
            );
        }
    }
}

/// L13: `SymlinkEmptyFile`.
#[test]
fn a_file_is_emptied_inside() {
    let layer = with_etc(&[Item::symlink("localetc", "/etc"), Item::file("/localetc/passwd", "")]);
    becomes(&[&layer], &["etc/", "etc/passwd: ", "localetc -> /etc"]);
}

/// L10: `HardlinkRelative`, `HardlinkDownAndOut`.
#[test]
fn a_hard_link_behind_a_symlink_upwards_is_the_roots_file() {
    for target in ["../../etc", "../downandout/../../etc"] {
        let more = [
            Item::dir("breakouts"),
            Item::dir("downandout"),
            Item::symlink("breakouts/d1", target),
            Item::hard_link("breakouts/mypasswd", "/breakouts/d1/passwd"),
        ];
        let expected = [
            "breakouts/",
            &format!("breakouts/d1 -> {target}"),
            "breakouts/mypasswd: inside",
            "downandout/",
            "etc/",
            "etc/passwd = breakouts/mypasswd",
        ];
        becomes(&[&with_etc(&more)], &expected);
    }
}

/// L10: `HardlinkAbsolute`, `HardlinkRelativeLong`; and `HardlinkRelativeUpAndOut`, whose `upandout` has to be there.
#[test]
fn a_hard_link_behind_a_symlink_is_the_roots_file() {
    for target in ["/etc", "../../../../../../../etc", "upandout/../../../etc"] {
        let more = [
            Item::dir("upandout"),
            Item::symlink("localetc", target),
            Item::hard_link("localpasswd", "/localetc/passwd"),
        ];
        let link = format!("localetc -> {target}");
        let expected = ["etc/", "etc/passwd: inside", &link, "localpasswd = etc/passwd", "upandout/"];
        becomes(&[&with_etc(&more)], &expected);
    }
}

/// L10: `HardlinkDirectRelative`, `HardlinkDirectAbsolute`.
#[test]
fn a_hard_links_target_is_clamped() {
    for target in ["../../../../../etc/passwd", "/etc/passwd", "./etc/passwd", "dne/../etc//passwd"] {
        becomes(
            &[&with_etc(&[Item::hard_link("localpasswd", target)])],
            &["etc/", "etc/passwd: inside", "localpasswd = etc/passwd"],
        );
    }
}

/// L10: `HardlinkSymlinkBeforeCreateTarget`, `HardlinkSymlinkRelative`, `HardlinkSymlinkAbsolute`.
#[test]
fn a_hard_link_to_a_symlink_is_that_symlink() {
    for target in ["../../../../../etc/passwd", "/etc/passwd"] {
        let links = [Item::symlink("passwdlink", target), Item::hard_link("localpasswd", "/passwdlink")];
        let expected = ["etc/", "etc/passwd: inside", &format!("localpasswd -> {target}"), "passwdlink = localpasswd"];
        becomes(&[&with_etc(&links)], &expected);
        becomes(&[&[&links[..], &etc()].concat()], &expected);
    }
}

/// CVE-2021-32760, `HardlinkSymlinkChmod`: the mode of a hard link to a symlink is nobody's.
#[test]
fn a_hard_link_to_a_symlink_changes_no_mode() {
    for cage in Cage::both() {
        for (way, _) in cage.ways_out() {
            let link = Item::symlink("link", format!("{way}/secret"));
            cage.take(&[link, Item::hard_link("hard", "link").mode(0o777).owner(7, 7).mtime(7)]);
        }
        cage.take(&with_etc(&[
            Item::symlink("link", "/etc/passwd"),
            Item::hard_link("hard", "link").mode(0o777),
            Item::hard_link("harder", "hard").mode(0o777),
        ]));
        assert_eq!(cage.mode("etc/passwd"), 0o644);
    }
}

/// L12, CVE-2021-29136, `SymlinkParentDirectory`, `SymlinkEmptyFilename`: what took the root's place would lead later
/// layers elsewhere. containerd leaves it out; here it is refused.
#[test]
fn only_a_directory_is_the_root() {
    for name in ["..", "", "/.", ".", "./", "/", "/..", "etc/..", "../../."] {
        refused(&[&with_etc(&[Item::symlink(name, "/etc")])]);
        refused(&[&with_etc(&[Item::file(name, "x")])]);
        refused(&[&with_etc(&[Item::hard_link(name, "etc/passwd")])]);
        refused(&[&with_etc(&[Item::fifo(name)])]);
        becomes(&[&with_etc(&[Item::dir(name)])], &["etc/", "etc/passwd: inside"]);
    }
}

/// L2, `SymlinkOverrideDirectory`, `SymlinkOverrideDirectoryRelative`.
#[test]
fn a_symlink_over_a_directory_is_gone_through_inside() {
    for target in ["/etc", "../etc"] {
        let lower = with_etc(&[Item::dir("localetc"), Item::file("localetc/old", "old")]);
        becomes(
            &[&lower, &[Item::symlink("localetc", target), Item::file("localetc/unbroken", "unbroken")]],
            &["etc/", "etc/passwd: inside", "etc/unbroken: unbroken", &format!("localetc -> {target}")],
        );
    }
}

/// L2, `DirectoryOverrideSymlink`.
#[test]
fn a_directory_over_a_symlink_takes_its_place() {
    for target in ["/etc", "../etc", "etc"] {
        becomes(
            &[
                &with_etc(&[Item::symlink("localetc", target)]),
                &[Item::dir("localetc"), Item::file("localetc/passwd", "mine")],
            ],
            &["etc/", "etc/passwd: inside", "localetc/", "localetc/passwd: mine"],
        );
    }
}

/// L2, `DirectoryOverrideSymlinkAndHardlink`: the file is a new one.
#[test]
fn a_file_over_a_hard_link_is_another_file() {
    let lower = with_etc(&[Item::symlink("localetc", "etc"), Item::hard_link("localpasswd", "etc/passwd")]);
    becomes(
        &[&lower, &[Item::dir("localetc"), Item::file("localetc/passwd", "x"), Item::file("localpasswd", "new")]],
        &["etc/", "etc/passwd: inside", "localetc/", "localetc/passwd: x", "localpasswd: new"],
    );
}

/// L5: `WhiteoutRootParent`, `WhiteoutParent`, `WhiteoutRoot`, `WhiteoutCurrentDirectory`.
#[test]
fn whiteouts_of_nothing_are_refused() {
    for name in
        [".wh.", ".wh..", ".wh...", "etc/.wh.", "etc/.wh..", "etc/.wh...", "dne/.wh..", "etc/../.wh...", ".wh../"]
    {
        refused(&[&etc(), &[Item::file(name, "")]]);
        refused(&[&etc(), &[Item::dir(name)]]);
    }
}

/// L3: `WhiteoutSymlink`.
#[test]
fn a_whiteout_of_a_symlink_leaves_its_target() {
    for target in ["etc", "/etc", "/etc/passwd", "../../etc"] {
        becomes(
            &[&with_etc(&[Item::symlink("localetc", target)]), &[Item::file(".wh.localetc", "")]],
            &["etc/", "etc/passwd: inside"],
        );
    }
}

/// L3, L13: `WhiteoutSymlinkPath`.
#[test]
fn a_whiteout_behind_a_symlink_removes_inside() {
    becomes(
        &[&with_etc(&[Item::symlink("localetc", "/etc")]), &[Item::file("localetc/.wh.passwd", "")]],
        &["etc/", "localetc -> /etc"],
    );
}

/// L6: `WhiteoutDirectoryName`.
#[test]
fn a_directory_may_be_called_like_a_whiteout() {
    becomes(
        &[&etc(), &[Item::file(".wh.etc/somefile", "some")]],
        &[".wh.etc/", ".wh.etc/somefile: some", "etc/", "etc/passwd: inside"],
    );
}

/// L7: `WhiteoutDeadSymlinkParent`; and parents that are files, or lead in circles.
#[test]
fn a_whiteout_that_leads_nowhere_does_nothing() {
    let lower = with_etc(&[Item::symlink("dead", "/dne/etc"), Item::symlink("round", "round")]);
    for whiteout in [
        "dead/.wh.etc",
        "dead/.wh..wh..opq",
        "round/.wh.etc",
        "round/.wh..wh..opq",
        "etc/passwd/.wh.x",
        "etc/passwd/.wh..wh..opq",
        "dne/.wh.etc",
        ".wh.dne",
    ] {
        let expected = ["dead -> /dne/etc", "etc/", "etc/passwd: inside", "round -> round"];
        becomes(&[&lower, &[Item::file(whiteout, "")]], &expected);
    }
}

/// L13: `WhiteoutRelativePath`.
#[test]
fn a_whiteouts_path_is_cleaned() {
    for path in ["dne/../.wh.etc", "/.wh.etc", "../../.wh.etc", "./etc/.././.wh.etc", "etc/passwd/../../.wh.etc"] {
        becomes(&[&with_etc(&[Item::dir("left")]), &[Item::file(path, "")]], &["left/"]);
    }
}

/// L2: `SymlinkOverridePath`.
#[test]
fn a_symlink_to_the_root_leads_to_the_root() {
    let lower = [Item::dir("tmp"), Item::dir("foo"), Item::file("foo/old", "old")];
    let link = [Item::symlink("foo", "/"), Item::file("foo/tmp/x", "x")];
    becomes(&[&lower, &link], &["foo -> /", "tmp/", "tmp/x: x"]);
    becomes(&[&lower, &link, &[Item::dir("foo")]], &["foo/", "tmp/", "tmp/x: x"]);
    becomes(&[&lower, &[&link[..], &[Item::dir("foo")]].concat()], &["foo/", "tmp/", "tmp/x: x"]);
}
