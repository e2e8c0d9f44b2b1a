//! The ways out that other tools left open.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use layercake::ErrorKind;
use layercake::changeset::apply;

use super::Cage;
use super::becomes;
use super::etc;
use super::listing;
use crate::assert_kind;
use crate::support::failure;
use crate::support::tape::Item;
use crate::support::tape::tar;

/// CVE-2018-20990 (tar-rs): a file through a symlink of its own name. And everything else that could go through it.
#[test]
fn nothing_goes_through_a_symlink_of_its_own_name() {
    for cage in Cage::both() {
        for (way, _) in cage.ways_out() {
            for target in [format!("{way}/secret"), format!("{way}/dir"), format!("{way}/new"), way] {
                let link = || Item::symlink("escape", &target).owner(7, 7).mtime(7);
                cage.take(&[link(), Item::file("escape", "overwritten").mode(0o4777)]);
                assert_eq!((cage.text("escape").as_str(), cage.mode("escape")), ("overwritten", 0o4777));
                cage.take(&[link(), Item::fifo("escape").mode(0o606)]);
                assert_eq!((listing(&cage.root), cage.mode("escape")), (vec!["escape|".to_owned()], 0o606));
                cage.take(&[link(), Item::file("f", "f"), Item::hard_link("escape", "f")]);
                assert_eq!(listing(&cage.root), ["escape: f", "f = escape"]);
                cage.take(&[link(), Item::symlink("escape", "elsewhere")]);
                cage.take(&[link(), Item::file(".wh.escape", ""), Item::file(".wh.f", "")]);
                cage.take(&[Item::file(".wh.escape", "")]);
                assert!(listing(&cage.root).is_empty());
            }
        }
    }
}

/// L14: nor does a device; where none may be made it is reported, and the symlink is gone all the same.
#[test]
fn no_device_goes_through_a_symlink_of_its_own_name() {
    for cage in Cage::both() {
        for (way, _) in cage.ways_out() {
            for flag in [b'3', b'4'] {
                let link = Item::symlink("escape", format!("{way}/secret"));
                let done = cage.apply(&[link, Item::device(flag, "escape", 1, 3).mode(0o777)]).unwrap();
                let made = fs::symlink_metadata(cage.root.join("escape"));
                assert_eq!(done.skipped.len(), usize::from(made.is_err()));
                assert!(made.is_err() || made.unwrap().rdev() == rustix::fs::makedev(1, 3));
            }
        }
    }
}

/// CVE-2026-33056 (tar-rs): a directory entry changes the mode of what a symlink of its name leads to.
#[test]
fn a_directorys_mode_goes_through_no_symlink() {
    for cage in Cage::both() {
        for (way, _) in cage.ways_out() {
            let link = Item::symlink("escape", format!("{way}/dir"));
            cage.take(&[link.clone(), Item::dir("escape").mode(0o777).owner(7, 7).mtime(7)]);
            cage.take(std::slice::from_ref(&link));
            cage.take(&[Item::dir("escape/").mode(0o717)]);
            assert_eq!((listing(&cage.root), cage.mode("escape")), (vec!["escape/".to_owned()], 0o717));
        }
    }
}

/// L15: a directory's attributes are set when the layer ends. By then a symlink has its name, or a parent's.
#[test]
fn a_directorys_late_attributes_go_through_no_symlink() {
    for cage in Cage::both() {
        for (way, _) in cage.ways_out() {
            let dir = |path| Item::dir(path).mode(0o777).owner(7, 7).mtime(7);
            cage.take(&[dir("escape"), Item::file("escape/x", "x"), Item::symlink("escape", &way)]);
            cage.take(&[dir("a"), dir("a/dir"), Item::file("a/dir/x", "x"), Item::symlink("a", &way)]);
            assert_eq!(listing(&cage.root), [format!("a -> {way}"), format!("escape -> {way}")]);
        }
    }
}

/// CVE-2021-38511 (tar-rs), L11: parents are made inside, before anything else happens and after it failed.
#[test]
fn parents_are_made_inside() {
    for cage in Cage::both() {
        for (way, inside) in cage.ways_out() {
            cage.take(&[Item::symlink("escape", &way), Item::file("escape/new/planted", "planted")]);
            assert_eq!(cage.text(&format!("{inside}/new/planted")), "planted");
            assert_kind!(
                failure(cage.apply(&[Item::hard_link("escape/dir/x/link", "dne")])),
                ErrorKind::InvalidLayer { .. }
            );
        }
    }
}

/// CVE-2026-46703 (boxlite): `escape -> /tmp`, then `escape/..`. Entries' paths are cleaned; in links `..` is taken as
/// it comes, and clamped.
#[test]
fn upwards_behind_a_symlink_stays_inside() {
    for cage in Cage::both() {
        for (way, inside) in cage.ways_out() {
            let link = || Item::symlink("escape", &way);
            cage.take(&[link(), Item::file("escape/../planted", "cleaned"), Item::dir("escape/..").mode(0o711)]);
            assert_eq!((cage.text("planted").as_str(), cage.mode("")), ("cleaned", 0o711));
            cage.take(&[Item::dir(&inside), link(), Item::symlink("up", "escape/.."), Item::file("up/planted", "up")]);
            let above = inside.rsplit_once('/').map_or("", |(above, _)| above);
            assert_eq!(cage.text(&format!("./{above}/planted")), "up");
        }
    }
}

/// L10, oras-go, CVE-2026-23950 (node-tar): a link's target is neither the host's nor the process's own.
#[test]
fn hard_links_to_the_outside_are_missing() {
    for cage in Cage::both() {
        for (way, _) in cage.ways_out() {
            let links = [
                Item::symlink("one", &way),
                Item::symlink("two", "one/dir"),
                Item::symlink("three", "two/../"),
                Item::symlink("cwd", "."),
            ];
            cage.take(&links);
            let before = listing(&cage.root);
            for target in [
                format!("{way}/secret"),
                "one/secret".to_owned(),
                "two/inner".to_owned(),
                "three/secret".to_owned(),
                "cwd/Cargo.toml".to_owned(),
                "/proc/self/exe".to_owned(),
            ] {
                let error = failure(cage.apply(&[Item::hard_link("planted", &target)]));
                assert_kind!(error, ErrorKind::InvalidLayer { .. });
                assert!(error.to_string().contains("planted") && error.to_string().contains(&target), "{error}");
            }
            assert_eq!(listing(&cage.root), before);
        }
    }
}

/// L10: a hard link whose target lies behind two symlinks is the root's file.
#[test]
fn a_hard_link_behind_two_symlinks_is_the_roots_file() {
    for cage in Cage::both() {
        for (way, inside) in cage.ways_out() {
            let secret = format!("{inside}/dir/inner");
            cage.take(&[
                Item::file(&secret, "mine"),
                Item::symlink("one", &way),
                Item::symlink("two", "one/dir"),
                Item::hard_link("link", "two/inner"),
            ]);
            let inode = |path: &str| fs::symlink_metadata(cage.root.join(path)).unwrap().ino();
            assert_eq!((cage.text("link").as_str(), inode("link")), ("mine", inode(&secret)));
        }
    }
}

/// CVE-2025-45582 (GNU tar): one layer makes the link, the next goes through it. And a third one removes through it.
#[test]
fn an_escape_in_two_steps_stays_inside() {
    for cage in Cage::both() {
        for (way, inside) in cage.ways_out() {
            cage.take(&[Item::symlink("escape", &way)]);
            cage.take(&[Item::file("escape/secret", "planted").mode(0o777), Item::file("escape/dir/inner", "x")]);
            assert_eq!(cage.text(&format!("{inside}/secret")), "planted");
            cage.take(&[Item::file("escape/.wh.secret", ""), Item::file("escape/dir/.wh..wh..opq", "")]);
            assert_eq!(listing(&cage.root.join(&inside)), ["dir/"]);
        }
    }
}

/// L13: as many symlinks as the kernel follows are followed, all inside; more lead nowhere.
#[test]
fn a_chain_of_symlinks_stays_inside() {
    let chain = |length: usize, end: &str| -> Vec<Item> {
        let target = |n| if n + 1 == length { end.to_owned() } else { format!("../l{}", n + 1) };
        (0..length).map(|n| Item::symlink(format!("l{n}"), target(n))).collect()
    };
    for cage in Cage::both() {
        for (way, inside) in cage.ways_out() {
            cage.take(&chain(40, &way));
            cage.take(&[Item::file("l0/planted", "planted")]);
            assert_eq!(cage.text(&format!("{inside}/planted")), "planted");
            cage.take(&chain(41, &way));
            assert_kind!(failure(cage.apply(&[Item::file("l0/planted", "again")])), ErrorKind::Io { .. });
            cage.take(&[Item::file("l0/.wh.planted", "")]);
            assert_eq!(cage.text(&format!("{inside}/planted")), "planted");
        }
    }
}

/// CVE-2025-4517 (CPython): what a path leads through is longer than `PATH_MAX`, so a check by `realpath` sees its
/// beginning only.
#[test]
fn a_chain_longer_than_any_path_stays_inside() {
    let name = "d".repeat(247);
    for cage in Cage::both() {
        let mut layer = Vec::new();
        let mut path = String::new();
        for short in "abcdefghijklmnop".chars() {
            layer.push(Item::dir(format!("{path}{name}")));
            layer.push(Item::symlink(format!("{path}{short}"), &name));
            path = format!("{path}{short}/");
        }
        let up = format!("{path}{}", "../".repeat(17));
        layer.push(Item::symlink("escape", format!("{up}outside")));
        layer.push(Item::file("escape/secret", "planted"));
        layer.push(Item::file("escape/.wh.dir", ""));
        cage.take(&layer);
        assert_eq!(cage.text("outside/secret"), "planted");
        cage.take(&[Item::file(format!(".wh.{name}"), "")]);
    }
}

/// stereoscope #694: an opaque whiteout behind a symlink empties a directory of the root, and no other.
#[test]
fn an_opaque_whiteout_behind_a_symlink_stays_inside() {
    for cage in Cage::both() {
        for (way, inside) in cage.ways_out() {
            cage.take(&[Item::symlink("escape", &way), Item::file(format!("{inside}/dir/secret"), "x")]);
            cage.take(&[Item::file("escape/.wh..wh..opq", "")]);
            assert_eq!(listing(&cage.root.join(inside)), [""; 0]);
        }
    }
}

/// stereoscope #696, L6: names that begin like the opaque whiteout's are not the opaque whiteout.
#[test]
fn what_looks_like_an_opaque_whiteout_erases_nothing() {
    for name in
        ["etc/.wh..wh..opqX", "etc/.wh..wh..opq.bak", "etc/.wh..wh.", ".wh..wh.aufs", ".wh..wh.orph", "etc/.wh..wh.opq"]
    {
        becomes(&[&etc(), &[Item::file(name, "")]], &["etc/", "etc/passwd: inside"]);
    }
}

/// L11: a parent that is a file, or a FIFO, makes way for a directory; a symlink that leads nowhere gets a directory
/// where it leads.
#[test]
fn parents_that_are_no_directories_make_way() {
    becomes(&[&[Item::file("a", "a")], &[Item::file("a/b/c", "c")]], &["a/", "a/b/", "a/b/c: c"]);
    becomes(&[&[Item::fifo("a"), Item::file("a/b", "b")]], &["a/", "a/b: b"]);
    for target in ["x/y", "/x/y", "../../x/y"] {
        let link = Item::symlink("a", target);
        becomes(&[&[link, Item::file("a/b", "b")]], &[&format!("a -> {target}"), "x/", "x/y/", "x/y/b: b"]);
    }
    for cage in Cage::both() {
        cage.take(&[Item::symlink("a", "b"), Item::symlink("b", "a")]);
        assert_kind!(failure(cage.apply(&[Item::file("a/x", "x")])), ErrorKind::Io { .. });
        assert_eq!(listing(&cage.root), ["a -> b", "b -> a"]);
    }
}

/// RUSTSEC-2023-0018: removing a tree removes its links, not what they lead to, however the tree comes to be removed.
#[test]
fn what_is_removed_is_the_roots() {
    for cage in Cage::both() {
        for (way, _) in cage.ways_out() {
            for last in [Item::file(".wh.d", ""), Item::file("d", ""), Item::file("d/.wh..wh..opq", "")] {
                let links = [Item::symlink("d/e/link", &way), Item::symlink("d/link", format!("{way}/secret"))];
                cage.take(&[&[Item::dir("d"), Item::dir("d/e").mode(0)], &links[..]].concat());
                cage.take(&[last]);
            }
        }
        cage.take(&[Item::file(".wh..wh..opq", "")]);
        assert!(listing(&cage.root).is_empty());
    }
}

/// P1: what the kernel's own links say is a path below the root like any other.
#[test]
fn magic_links_lead_nowhere() {
    for cage in Cage::both() {
        for target in ["/proc/self/cwd", "/proc/self/root", "/dev/fd/3"] {
            cage.take(&[Item::symlink("magic", target), Item::file("magic/planted", "planted")]);
            assert_eq!(cage.text(&format!("{}/planted", &target[1..])), "planted");
        }
        assert!(!Path::new("planted").exists());
    }
}

/// Case 34: another process swaps a directory for a symlink to the outside while a hundred files are written below it,
/// and are removed again. It may fail; it may not get out.
#[test]
fn a_directory_that_is_swapped_leads_nowhere() {
    let files: Vec<Item> = (0..100).map(|n| Item::file(format!("a/b/{n}"), "planted").mode(0o777)).collect();
    let removed = [Item::file("a/b/.wh..wh..opq", ""), Item::file("a/.wh.b", "")];
    let runs = std::env::var("LAYERCAKE_RACE_RUNS").map_or(20, |runs| runs.parse().unwrap());
    for cage in Cage::both() {
        fs::create_dir_all(cage.root.join("a/b")).unwrap();
        symlink("../outside", cage.root.join("link")).unwrap();
        symlink("../../outside/dir", cage.root.join("a/link")).unwrap();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let swap = |one: &str, two: &str| {
                    let (one, two) = (cage.root.join(one), cage.root.join(two));
                    let here = rustix::fs::CWD;
                    let _ = rustix::fs::renameat_with(here, one, here, two, rustix::fs::RenameFlags::EXCHANGE);
                };
                while !done.load(Ordering::Relaxed) {
                    swap("a", "link");
                    swap("a/b", "a/link");
                }
            });
            for _ in 0..runs {
                let _ = apply(&tar(&files)[..], &cage.root, &cage.options);
                let _ = apply(&tar(&removed)[..], &cage.root, &cage.options);
            }
            done.store(true, Ordering::Relaxed);
        });
        cage.check();
    }
}
