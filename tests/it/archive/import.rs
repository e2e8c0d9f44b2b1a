//! Tarballs as images.

use std::time::SystemTime;

use layercake::Compression;
use layercake::Descriptor;
use layercake::ErrorKind;
use layercake::manifest::ConfigEdit;

use super::*;
use crate::assert_kind;
use crate::support::failure;

fn rootfs() -> Vec<u8> {
    tar(&[Item::dir("./"), Item::dir("./etc/"), Item::file("./etc/motd", "hello\n"), Item::symlink("bin", "usr/bin")])
}

fn import(store: &Store) -> Descriptor {
    archive::import(&rootfs()[..]).platform(platform("linux/amd64")).to(store).unwrap()
}

/// C9: one layer, the configuration, and a history that says where it came from; nothing of the moment.
#[test]
fn a_tarball_becomes_an_image_of_one_layer() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let root = import(&store);
    let image = store.image_at(&root).unwrap();
    let expected = format!(
        r#"{{"architecture":"amd64","os":"linux","config":{{}},"rootfs":{{"diff_ids":["{}"],"type":"layers"}},"history":[{{"comment":"Imported from -"}}]}}"#,
        Digest::sha256(&rootfs())
    );
    assert_eq!(String::from_utf8_lossy(image.config().unwrap().raw()), expected);
    assert_eq!(image.manifest().layers()[0].media_type, layercake::MediaType::OCI_LAYER);
    assert_eq!(store.read(&image.manifest().layers()[0]).unwrap(), rootfs(), "as it is");
    assert_eq!(image.unpacked_size().unwrap(), rootfs().len() as u64);
    assert_eq!(store.entries().unwrap().count(), 0, "nothing is named");
    assert_eq!(import(&scratch.store("other")), root, "reproducible");
}

#[test]
fn the_configuration_is_what_was_asked_for() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let root = archive::import(Drip(&rootfs(), 0))
        .platform(platform("linux/arm/v7"))
        .comment("by hand")
        .created(SystemTime::UNIX_EPOCH)
        .config(
            ConfigEdit::new()
                .author("alice")
                .env("A", "1")
                .env("B", "x=y z")
                .env("A", "2")
                .entrypoint(["/bin/app"])
                .cmd(["--help"])
                .working_dir("/srv")
                .user("app:app")
                .stop_signal("SIGINT")
                .label("a.b", "c")
                .exposed_port("80")
                .exposed_port("53/udp")
                .volume("/data"),
        )
        .to(&store)
        .unwrap();
    let image = store.image_at(&root).unwrap();
    let config = image.config().unwrap();
    assert_eq!(config.platform(), Some(platform("linux/arm/v7")));
    assert_eq!(config.created().unwrap(), Some(SystemTime::UNIX_EPOCH));
    assert_eq!(config.author(), Some("alice"));
    assert_eq!(config.env(), ["A=2", "B=x=y z"]);
    assert_eq!((config.entrypoint(), config.cmd()), (&["/bin/app".to_owned()][..], &["--help".to_owned()][..]));
    assert_eq!((config.working_dir(), config.user(), config.stop_signal()), ("/srv", "app:app", Some("SIGINT")));
    assert_eq!(config.labels().get("a.b").map(String::as_str), Some("c"));
    assert_eq!(
        (config.exposed_ports(), config.volumes()),
        (&["53/udp".to_owned(), "80/tcp".to_owned()][..], &["/data".to_owned()][..])
    );
    let step = &config.history()[0];
    assert_eq!((step.created.as_deref(), step.comment.as_deref()), (Some("1970-01-01T00:00:00Z"), Some("by hand")));
    assert!(config.as_oci().is_ok());
}

/// What is compressed stays so.
#[test]
fn a_compressed_tarball_is_kept_as_it_is() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let packed = gzip(&rootfs());
    let root = archive::import(&packed[..]).to(&store).unwrap();
    let image = store.image_at(&root).unwrap();
    let layer = &image.layers().unwrap()[0];
    assert_eq!((layer.digest(), layer.diff_id()), (Digest::sha256(&packed), Digest::sha256(&rootfs())));
    assert_eq!(layer.media_type().as_str(), "application/vnd.oci.image.layer.v1.tar+gzip");
    assert_eq!(Compression::detect(&store.read(layer.descriptor()).unwrap()), Compression::Gzip);
    let target = scratch.path("root");
    let options = layercake::changeset::Options::new().ownership(layercake::changeset::Ownership::CurrentUser);
    assert!(image.unpack_with(&target, &options).unwrap().skipped.is_empty());
    assert_eq!(std::fs::read_to_string(target.join("etc/motd")).unwrap(), "hello\n");
}

/// All entries are read before anything is there.
#[test]
fn what_is_no_tarball_leaves_nothing() {
    let scratch = Scratch::new();
    let store = scratch.store("store");
    let import = |bytes: &[u8]| failure(archive::import(bytes).to(&store));
    assert_kind!(import(b""), ErrorKind::InvalidArchive { .. });
    assert_kind!(import(&[b'x'; 1024]), ErrorKind::InvalidLayer { .. });
    assert_kind!(import(&rootfs()[..rootfs().len() - 1600]), ErrorKind::InvalidLayer { .. });
    assert_kind!(import(&[&tar(&[])[..512], &Item::file("a", "a").bytes()].concat()), ErrorKind::InvalidLayer { .. });
    assert_kind!(import(&gzip(&rootfs())[..100]), ErrorKind::Compression { .. });
    assert_kind!(import(&[&gzip(&rootfs())[..], b"rubbish"].concat()), ErrorKind::Compression { .. });
    assert_kind!(import(b"\xfd7zXZ\0"), ErrorKind::Compression { .. });
    assert_kind!(import(&tar(&[Item::file(".wh..", "")])), ErrorKind::InvalidLayer { .. });
    let limits = || layercake::changeset::Limits::default();
    let mut few = limits();
    few.entries = 2;
    assert_kind!(
        failure(archive::import(&rootfs()[..]).limits(few).to(&store)),
        ErrorKind::LimitExceeded { limit: layercake::error::Limit::Entries, .. }
    );
    assert_kind!(
        failure(archive::import(&rootfs()[..]).config(ConfigEdit::new().env("A=B", "")).to(&store)),
        ErrorKind::InvalidInput(_)
    );
    assert_eq!(store.blobs().unwrap().count(), 0);
    assert_eq!(std::fs::read_dir(store.path().join("layercake/partial")).unwrap().count(), 0);
}
