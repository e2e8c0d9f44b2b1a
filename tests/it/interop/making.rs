//! Images that are committed here: other tools unpack them, run them, load them from archives, and save them.

use std::fs;
use std::fs::File;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use layercake::Compression;
use layercake::Image;
use layercake::Store;
use layercake::archive;
use layercake::archive::Format;
use layercake::checkout::CheckoutMode;
use layercake::checkout::CheckoutOptions;
use layercake::checkout::CommitOptions;
use layercake::compression::EncoderOptions;
use layercake::manifest::ConfigEdit;
use rustix::fs::CWD;
use rustix::fs::FileType;
use rustix::fs::Mode;
use rustix::fs::XattrFlags;

use super::DockerRegistry;
use crate::archive::interop::id_of;
use crate::demo;
use crate::faithful;
use crate::support::Scratch;
use crate::support::name;
use crate::support::tools::install;
use crate::support::tools::installed;
use crate::support::tools::is_root;
use crate::support::tools::mounts_overlays;
use crate::support::tools::run;
use crate::support::tools::static_busybox;
use crate::support::tree::Lines;
use crate::support::tree::lines;
use crate::support::tree::said;

const MADE: &str = "example.com/made:1";

/// An image that was committed, as [`MADE`], and what the working copy was.
struct Made {
    scratch: Scratch,
    store: Store,
    image: Image,
    tree: Lines,
}

impl Made {
    /// On an image with everything, with changes of every kind.
    fn new(compression: Compression) -> Made {
        let scratch = Scratch::new();
        let store = scratch.store("store");
        let image = store.image_at(&faithful::everything().write(&store).unwrap()).unwrap();
        let mode = if mounts_overlays() { CheckoutMode::Overlay } else { CheckoutMode::Copy };
        let work = image.checkout_with(scratch.path("work"), &CheckoutOptions::new().mode(mode)).unwrap();
        change(work.root());
        if let Some(busybox) = static_busybox() {
            install(busybox, &work.root().join("bin/busybox"));
        }
        let config = ConfigEdit::new().env("GREETING", "hello").working_dir("/srv");
        let options = CommitOptions::new().message("change everything").config(config);
        let options = options.encoder(EncoderOptions::new(compression)).tag(name(MADE));
        let image = work.commit_with(&options).unwrap();
        let tree = said(lines(work.root()));
        work.discard().unwrap();
        Made { scratch, store, image, tree }
    }

    fn layout(&self) -> String {
        self.store.path().display().to_string()
    }

    fn source(&self) -> String {
        format!("oci:{}:{MADE}", self.layout())
    }

    #[track_caller]
    fn assert_same_tree(&self, found: &Path, what: &str) {
        let found = said(lines(found));
        for path in found.keys().chain(self.tree.keys()) {
            assert_eq!(found.get(path), self.tree.get(path), "{what}: {}", String::from_utf8_lossy(path));
        }
    }
}

/// Adds, modifies, deletes and replaces, whatever a layer can say.
fn change(root: &Path) {
    let at = |path: &str| root.join(path);
    for path in ["etc", "srv", "srv/web"] {
        fs::create_dir(at(path)).unwrap();
    }
    fs::write(at("etc/motd"), "hello\n").unwrap();
    // It is of before 1970, for which not all tools have times.
    fs::remove_file(at("before")).unwrap();
    // A directory that is another one now, and one in the place of something else; and the other way round.
    fs::remove_dir_all(at("d")).unwrap();
    fs::create_dir(at("d")).unwrap();
    fs::write(at("d/four"), "4").unwrap();
    fs::remove_file(at("pipe")).unwrap();
    fs::create_dir(at("pipe")).unwrap();
    fs::write(at("pipe/in"), "in").unwrap();
    fs::remove_dir(at("tmp")).unwrap();
    std::os::unix::fs::symlink("srv/web", at("tmp")).unwrap();

    fs::write(at("srv/web/new"), "new").unwrap();
    fs::hard_link(at("srv/web/new"), at("srv/newer")).unwrap();
    std::os::unix::fs::chown(at("srv/web/new"), Some(7), Some(8)).unwrap();
    fs::set_permissions(at("srv/newer"), fs::Permissions::from_mode(0o6755)).unwrap();
    fs::set_permissions(at("bin/su"), fs::Permissions::from_mode(0o755)).unwrap();
    std::os::unix::fs::lchown(at("up"), Some(3), None).unwrap();
    let capability = b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    fs::write(at("bin/serve"), "serve").unwrap();
    rustix::fs::setxattr(at("bin/serve"), "security.capability", capability, XattrFlags::empty()).unwrap();
    rustix::fs::setxattr(at("etc/motd"), "user.note", b"a\nb\0c", XattrFlags::empty()).unwrap();
    rustix::fs::setxattr(at("srv/web"), "user.note", b"web", XattrFlags::empty()).unwrap();

    let zero = rustix::fs::makedev(1, 5);
    rustix::fs::mknodat(CWD, at("dev/zero"), FileType::CharacterDevice, Mode::from_raw_mode(0o666), zero).unwrap();
    rustix::fs::mknodat(CWD, at("srv/pipe"), FileType::Fifo, Mode::from_raw_mode(0o640), 0).unwrap();
}

/// The compressions of layers that there are.
fn compressions() -> Vec<Compression> {
    let zstd = cfg!(feature = "zstd").then_some(Compression::Zstd);
    [Compression::Gzip, Compression::None].into_iter().chain(zstd).collect()
}

/// buildah with images and containers of its own, which are gone when this is dropped. Its copies need no mounts.
struct Buildah(PathBuf);

impl Buildah {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("buildah");
        command.args(["--storage-driver", "vfs", "--root"]).arg(self.0.join("root"));
        command.arg("--runroot").arg(self.0.join("run")).args(arguments);
        command
    }

    #[track_caller]
    fn run(&self, arguments: &[&str]) -> String {
        run(&mut self.command(arguments)).ok().trim_end().to_owned()
    }
}

impl Drop for Buildah {
    fn drop(&mut self) {
        let _ = self.command(&["rm", "--all"]).output();
    }
}

/// C1 to C10: what a working copy was is what umoci unpacks.
#[test]
fn umoci_unpacks_a_commit_to_the_same_tree() {
    if !is_root() || !installed(&["umoci"]) {
        return;
    }
    for compression in compressions() {
        if compression == Compression::Zstd && run(Command::new("umoci").arg("--version")).ok().contains(" 0.4.") {
            println!("ignored: needs umoci 0.5 for zstd");
            continue;
        }
        let made = Made::new(compression);
        faithful::assert_like_umoci(&made.scratch, &made.layout(), MADE);
        let bundle = made.scratch.path("bundle");
        let image = format!("{}:{MADE}", made.layout());
        run(Command::new("umoci").args(["unpack", "--image", &image]).arg(&bundle)).ok();
        made.assert_same_tree(&bundle.join("rootfs"), &format!("{compression:?}"));
    }
}

/// The same for buildah, which knows all compressions; and what is in it runs.
#[test]
fn buildah_runs_a_commit() {
    if !is_root() || !installed(&["buildah"]) {
        return;
    }
    for compression in compressions() {
        let made = Made::new(compression);
        let buildah = Buildah(made.scratch.dir("buildah"));
        buildah.run(&["from", "--name", "made", &made.source()]);
        made.assert_same_tree(Path::new(&buildah.run(&["mount", "made"])), &format!("{compression:?}"));
        if static_busybox().is_none() {
            println!("ignored: needs a static busybox");
            continue;
        }
        let inside = |arguments: &[&str]| {
            let run = ["run", "--isolation", "chroot", "made", "--", "/bin/busybox"];
            buildah.run(&[&run[..], arguments].concat())
        };
        assert_eq!(inside(&["cat", "/etc/motd"]), "hello");
        assert_eq!(inside(&["sh", "-c", "echo $GREETING from $(/bin/busybox pwd)"]), "hello from /srv");
        assert_eq!(inside(&["stat", "-c", "%a %u:%g %h", "/srv/web/new"]), "6755 7:8 2");
    }
}

/// Out by us, in by skopeo: the image, whole, with the same configuration.
#[test]
fn skopeo_loads_a_commit_from_every_form() {
    if !is_root() || !installed(&["skopeo"]) {
        return;
    }
    let made = Made::new(Compression::Gzip);
    let mut sources = vec![made.source()];
    for (format, transport) in [(Format::Docker, "docker-archive"), (Format::Oci, "oci-archive")] {
        let path = made.scratch.path(transport);
        archive::save(&made.store, [name(MADE)]).format(format).to(File::create(&path).unwrap()).unwrap();
        sources.push(format!("{transport}:{}:{MADE}", path.display()));
    }
    for source in sources {
        let copy = format!("dir:{}", made.scratch.path("copy").display());
        run(Command::new("skopeo").args(["copy", "-q", &source, &copy])).ok();
        assert_eq!((id_of(&source), id_of(&copy)), (made.image.id(), made.image.id()), "{source}");
    }
}

/// Out by skopeo, in by us: the same configuration, and the same tree.
#[test]
fn a_commit_comes_back_from_skopeos_archives() {
    if !is_root() || !installed(&["skopeo"]) {
        return;
    }
    let made = Made::new(Compression::Gzip);
    for transport in ["docker-archive", "oci-archive"] {
        let path = made.scratch.path(transport);
        let target = format!("{transport}:{}:{MADE}", path.display());
        run(Command::new("skopeo").args(["copy", "-q", &made.source(), &target])).ok();
        let store = made.scratch.store(&format!("{transport}-store"));
        let loaded = archive::load(File::open(path).unwrap()).to(&store).unwrap();
        let [image] = &loaded.images[..] else { panic!("{loaded:?}") };
        assert_eq!(image.names, [name(MADE)], "{transport}");
        let image = store.image_at(&image.root).unwrap();
        assert_eq!(image.id(), made.image.id(), "{transport}");
        let rootfs = made.scratch.path(&format!("{transport}-rootfs"));
        assert!(image.unpack(&rootfs).unwrap().skipped.is_empty());
        made.assert_same_tree(&rootfs, transport);
    }
}

/// The whole story on a real registry.
#[test]
fn the_demo_plays_on_a_real_registry() {
    if !is_root() || !installed(&["docker-registry"]) || !mounts_overlays() {
        return;
    }
    let scratch = Scratch::new();
    let registry = DockerRegistry::start(&scratch.path("registry"), "");
    for mode in ["overlay", "copy"] {
        demo::play(&registry.host, mode);
    }
}

/// A real image is changed and runs: `LAYERCAKE_TEST_ARCHIVE`, which is `docker save alpine:3.10`.
#[test]
fn a_changed_alpine_runs() {
    let Some(path) = std::env::var_os("LAYERCAKE_TEST_ARCHIVE") else {
        println!("ignored: needs LAYERCAKE_TEST_ARCHIVE");
        return;
    };
    if !is_root() || !installed(&["buildah"]) {
        return;
    }
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let loaded = archive::load(File::open(path).unwrap()).to(&store).unwrap();
    let work = store.image_at(&loaded.images[0].root).unwrap().checkout(scratch.path("work")).unwrap();
    let script = "#!/bin/sh\necho \"hello from $(cat /etc/alpine-release)\"\n";
    fs::write(work.root().join("usr/bin/greet"), script).unwrap();
    fs::set_permissions(work.root().join("usr/bin/greet"), fs::Permissions::from_mode(0o755)).unwrap();
    work.commit_with(&CommitOptions::new().tag(name(MADE))).unwrap();
    work.discard().unwrap();
    let buildah = Buildah(scratch.dir("buildah"));
    buildah.run(&["from", "--name", "made", &format!("oci:{}:{MADE}", store.path().display())]);
    let said = buildah.run(&["run", "--isolation", "chroot", "made", "--", "/usr/bin/greet"]);
    assert_eq!(said, "hello from 3.10.4");
}
