//! What goes wrong at the registry, and with what it gives.

use std::sync::Mutex;
use std::time::Duration;

use layercake::Compression;
use layercake::Descriptor;
use layercake::Error;

use super::*;
use crate::support::blob_path;
use crate::support::name;
use crate::support::quick;
use crate::unpack::forged;

/// How often each layer was applied to its end, in the order of the first times.
fn unpacked(observe: impl FnOnce(&Options<'_>)) -> Vec<(Digest, usize)> {
    let told: Mutex<Vec<(Digest, usize)>> = Mutex::default();
    let observer = |event: &Event<'_>| {
        let Event::Unpacked { layer } = event else { return };
        let mut told = told.lock().unwrap();
        match told.iter_mut().find(|(digest, _)| *digest == layer.digest) {
            Some((_, count)) => *count += 1,
            None => told.push((layer.digest, 1)),
        }
    };
    observe(&options().observer(&observer));
    told.into_inner().unwrap()
}

/// D9: a registry that gives no parts costs bytes, and no second pass.
#[test]
fn a_registry_without_ranges_makes_no_second_pass() {
    let (served, image) = Served::with(&two_layers());
    served.registry.fault(Fault::on("/blobs/").after(1).times(1).truncate(70_000));
    served.registry.fault(Fault::on("/blobs/").ignore_range());
    let (store, target) = (served.scratch.store("store"), served.scratch.path("rootfs"));
    let told = unpacked(|options| {
        let done = client().pull(&image).jobs(1).unpack_with(&store, &target, options).unwrap();
        let _ = done.pulled.image.unpack_with(served.scratch.path("again"), &super::options()).unwrap();
    });
    assert_eq!(told.iter().map(|(_, count)| *count).collect::<Vec<_>>(), [1, 1]);
    assert_eq!(asked(&served).len(), 4, "the configuration, the first layer twice, the second");
    assert_eq!(lines(&target), lines(&served.scratch.path("again")));
}

/// What was damaged on its way is thrown away, whatever came of it before that was known: nothing yet, some files, or
/// something that could not be understood.
#[test]
fn what_was_damaged_on_its_way_is_begun_anew() {
    let kinds = [Compression::Gzip, Compression::None];
    for (compression, at) in kinds.into_iter().flat_map(|kind| [0, 3, 600, 20_000].map(|at| (kind, at))) {
        let what = format!("{compression}, byte {at}");
        let big = [Item::file("a", "a"), Item::file("noise", noise(1, 1_000_000)), Item::file("z", "z")];
        let fixture = Fixture::new(platform("linux/amd64")).raw_layer(tar(&big)).layer(&[("b", b"b")]);
        let (served, image) = Served::with(&fixture.compression(compression));
        let store = served.scratch.store("store");
        served.registry.fault(Fault::on("/blobs/").after(1).times(1).flip(at).truncate(900_000));
        // Whoever applies it has time to see that it makes no sense.
        served.registry.fault(Fault::on("/blobs/").delay(Duration::from_millis(50)));
        let target = served.scratch.path("rootfs");
        let done = client().pull(&image).jobs(1).unpack_with(&store, &target, &options());
        let done = done.unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_same_blobs(&served.store, &store, &done.pulled.image);
        let _ = done.pulled.image.unpack_with(served.scratch.path("again"), &options()).unwrap();
        assert_eq!(lines(&target), lines(&served.scratch.path("again")), "{what}");
    }
}

/// The error without what was to be done.
fn reason(error: &Error, image: &layercake::ImageReference) -> String {
    let text = error.to_string();
    let rest = text.strip_prefix(&format!("pull {image}")).unwrap_or_else(|| panic!("{text}"));
    rest.split_once(": ").map_or(rest, |(_, rest)| rest).to_owned()
}

/// The same error as a pull's, with the same blobs kept, no name and no tree; and then only what is missing is asked
/// for.
#[test]
fn it_fails_as_a_pull_does_and_goes_on() {
    let layer = |n: usize| Fault::on("/blobs/").after(1 + n);
    let faults = [
        ("404", layer(1).times(1).status(404)),
        ("403", layer(2).times(1).status(403)),
        ("503", layer(2).status(503)),
        ("too long", layer(1).times(1).chunked().body(vec![7; 2_000_000])),
        ("another length", layer(1).times(1).body(vec![7; 3000])),
        ("other bytes", layer(3).times(1).flip(100)),
        ("the first byte", layer(3).times(1).flip(0)),
        ("cut off", layer(0).truncate(50)),
        ("no answer", layer(2).hang_up()),
    ];
    for (what, fault) in faults {
        let (served, image) = Served::with(&layered());
        let stores = ["pulled", "unpacked"].map(|name| served.scratch.store(name));
        let target = served.scratch.path("rootfs");
        served.registry.fault(fault.clone());
        let expected = failure(client().pull(&image).jobs(1).to(&stores[0]));
        served.registry.clear_faults();
        served.registry.fault(fault);
        let error = failure(client().pull(&image).jobs(1).unpack_with(&stores[1], &target, &options()));
        assert_eq!(reason(&error, &image), reason(&expected, &image), "{what}");
        assert_eq!(blobs(&stores[1]), blobs(&stores[0]), "{what}");
        assert!(stores[1].resolve(&image).unwrap_err().is_not_found(), "{what}");
        nothing_beside(&target);

        served.registry.clear_faults();
        asked(&served);
        let kept = blobs(&stores[1]);
        let done = client().pull(&image).unpack_with(&stores[1], &target, &options()).unwrap();
        let missing: BTreeSet<Digest> = blobs(&stores[1]).difference(&kept).copied().collect();
        assert_eq!(asked(&served).into_iter().collect::<BTreeSet<_>>(), missing, "{what}");
        let _ = done.pulled.image.unpack_with(served.scratch.path("again"), &options()).unwrap();
        assert_eq!(lines(&target), lines(&served.scratch.path("again")), "{what}");
    }
}

/// P11: a body that stops is waited for as long as was said, and goes on where it was.
#[test]
fn a_body_that_stops_goes_on() {
    let (served, image) = Served::with(&layered());
    served.registry.fault(Fault::on("/blobs/").after(1).times(3).stall(70_000, Duration::from_secs(3)));
    let (store, target) = (served.scratch.store("store"), served.scratch.path("rootfs"));
    let impatient = quick().idle_timeout(Duration::from_millis(500)).build().unwrap();
    let done = impatient.pull(&image).jobs(1).unpack_with(&store, &target, &options()).unwrap();
    let ranges = served.registry.requests().iter().filter(|request| request.header("range").is_some()).count();
    assert!(ranges >= 2, "{ranges}");
    let _ = done.pulled.image.unpack_with(served.scratch.path("again"), &options()).unwrap();
    assert_eq!(lines(&target), lines(&served.scratch.path("again")));
}

/// I22, P3: a layer with the right digest and another tar inside makes no tree and no name, and its blob stays.
#[test]
fn a_diff_id_that_is_a_lie_makes_nothing() {
    for lie in 0..3 {
        let (served, _) = Served::with(&layered());
        let real = served.store.image(name("example.com/app:1")).unwrap();
        let mut diff_ids = real.config().unwrap().diff_ids().unwrap().to_vec();
        diff_ids[lie] = Digest::sha256(b"another tar");
        let forged = forged(&served.store, real.manifest().layers(), &diff_ids).unwrap();
        served.store.tag(&name("example.com/lie:1"), &forged.descriptor()).unwrap();
        let image = served.registry.reference("lie:1").unwrap();
        let (store, target) = (served.scratch.store("store"), served.scratch.path("rootfs"));
        let error = failure(client().pull(&image).jobs(1).unpack_with(&store, &target, &options()));
        assert_kind!(error, ErrorKind::DigestMismatch { .. });
        let expected = format!("layer {} of 5: diff id: expected {}, found ", lie + 1, diff_ids[lie]);
        assert!(reason(&error, &image).starts_with(&expected), "{error}");
        nothing_beside(&target);
        assert!(store.resolve(&image).unwrap_err().is_not_found());
        let kept = blobs(&store);
        assert!(real.manifest().layers()[..=lie].iter().all(|layer| kept.contains(&layer.digest)), "{kept:?}");
        crate::check::assert_clean(&store);
    }
}

/// An entry that is refused is named with its layer, as where the image is unpacked from the store; the blobs stay.
#[test]
fn an_entry_that_is_refused_is_named() {
    let bad = tar(&[Item::file("ok", "ok"), Item::file("d/.wh..", "")]);
    let fixture = Fixture::new(platform("linux/amd64")).raw_layer(tar(&[Item::file("b", noise(1, 1000))]));
    let (served, image) = Served::with(&fixture.raw_layer(bad).raw_layer(tar(&[Item::file("c", noise(2, 1000))])));
    let (store, target) = (served.scratch.store("store"), served.scratch.path("rootfs"));
    let error = failure(client().pull(&image).unpack_with(&store, &target, &options()));
    let pulled = served.scratch.store("pulled");
    let unpacked = client().pull(&image).to(&pulled).unwrap().image.unpack_with(&target, &options());
    let expected = failure(unpacked).to_string().split_once(": ").unwrap().1.to_owned();
    assert_eq!(reason(&error, &image), expected);
    assert!(expected.starts_with("layer 2 of 3: ") && expected.contains("d/.wh.."), "{expected}");
    nothing_beside(&target);
    assert!(store.resolve(&image).unwrap_err().is_not_found());
    assert_eq!(blobs(&store), blobs(&pulled), "all of them were what they should be");
}

/// Case 95: what is in the store and damaged is not taken for the layer.
#[test]
fn damage_in_the_store_is_found() {
    let (served, image) = Served::with(&layered());
    let store = served.scratch.store("store");
    let layers: Vec<Descriptor> = served.store.image(name("example.com/app:1")).unwrap().manifest().layers().to_vec();
    for at in [0, 200] {
        let mut content = fs::read(blob_path(&served.store, &layers[1])).unwrap();
        store.write(layercake::MediaType::OCTET_STREAM, &content).unwrap();
        content[at] ^= 1;
        let path = blob_path(&store, &layers[1]);
        fs::remove_file(&path).unwrap();
        fs::write(&path, &content).unwrap();
        let target = served.scratch.path("rootfs");
        let error = failure(client().pull(&image).unpack_with(&store, &target, &options()));
        assert_kind!(error, ErrorKind::DigestMismatch { .. });
        assert!(error.to_string().contains("layer 2 of 5"), "{error}");
        nothing_beside(&target);
        fs::remove_file(&path).unwrap();
    }
}
