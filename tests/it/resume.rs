//! Pulls that break, and go on.

use std::fs;
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use layercake::Cancel;
use layercake::ErrorKind;
use layercake::Event;
use layercake::Registry;
use layercake::Store;
use layercake::registry::Failure;
use layercake::registry::Never;
use layercake::testing;
use layercake::testing::Fault;
use layercake::testing::Fixture;

use crate::assert_kind;
use crate::support::Served;
use crate::support::assert_same_blobs;
use crate::support::blob_path;
use crate::support::client;
use crate::support::failure;
use crate::support::name;
use crate::support::platform;
use crate::support::two_layers;

/// A body that breaks goes on where it was, in one process.
#[test]
fn a_broken_body_is_resumed() {
    let (served, image) = Served::with(&two_layers());
    // The configuration comes first; then the first layer breaks twice.
    served.registry.fault(Fault::on("/blobs/").after(1).times(2).truncate(30_000));
    let store = served.scratch.store("store");
    let retries = AtomicUsize::new(0);
    let observer = |event: &Event<'_>| {
        if let Event::Retrying { blob, error, .. } = event {
            assert!(blob.is_some() && error.is_retryable());
            retries.fetch_add(1, Ordering::Relaxed);
        }
    };
    let pulled = client().pull(&image).jobs(1).observer(&observer).to(&store).unwrap();
    assert_same_blobs(&served.store, &store, &pulled.image);
    assert_eq!(retries.load(Ordering::Relaxed), 2);
    let ranges: Vec<String> =
        served.registry.requests().iter().filter_map(|request| request.header("range").map(str::to_owned)).collect();
    assert!(ranges.contains(&"bytes=30000-".to_owned()), "{ranges:?}");
    assert_eq!(pulled.fetched.bytes, pulled.image.size() + pulled.root.size, "no byte was fetched twice");
}

/// What has arrived is written before the pause that a failure costs: whoever is killed then keeps it.
#[test]
fn what_arrived_is_written_before_a_pause() {
    let (served, image) = Served::with(&two_layers());
    served.registry.fault(Fault::on("/blobs/").after(1).times(1).truncate(30_000));
    let (written, at_pause) = (AtomicU64::new(0), Mutex::new(Vec::new()));
    let observer = |event: &Event<'_>| match event {
        Event::Progress { bytes, .. } => written.store(*bytes, Ordering::Relaxed),
        Event::Retrying { .. } => at_pause.lock().unwrap().push(written.load(Ordering::Relaxed)),
        _ => {}
    };
    let store = served.scratch.store("store");
    let pulled = client().pull(&image).jobs(1).observer(&observer).to(&store).unwrap();
    assert_eq!(*at_pause.lock().unwrap(), [30_000]);
    assert_same_blobs(&served.store, &store, &pulled.image);
}

/// D9: registries that ignore `Range`, answer with another range, or know no such range.
#[test]
fn useless_answers_to_range_are_got_around() {
    for useless in [
        Fault::on("/blobs/").after(1).ignore_range(),
        Fault::on("/blobs/").after(1).times(1).status(416),
        Fault::on("/blobs/").after(1).times(1).header("content-range", "bytes 0-9/100"),
        Fault::on("/blobs/").after(1).times(1).without_header("content-range"),
        Fault::on("/blobs/").after(1).times(1).header("content-range", "rubbish"),
    ] {
        let (served, image) = Served::with(&Fixture::new(platform("linux/amd64")).layer(&[("a", &[7; 100])]));
        // The configuration comes first; then the only layer breaks.
        served.registry.fault(Fault::on("/blobs/").after(1).times(1).truncate(50));
        served.registry.fault(useless);
        let store = served.scratch.store("store");
        let pulled = client().pull(&image).to(&store).unwrap();
        assert_same_blobs(&served.store, &store, &pulled.image);
    }
}

/// What one run left, the next run takes up.
#[test]
fn the_next_run_resumes_from_what_is_there() {
    let (served, image) = Served::with(&two_layers());
    let store = served.scratch.store("store");
    served.registry.fault(Fault::on("/blobs/").after(1).truncate(40_000));
    let impatient = Registry::builder().retry(Never).build().unwrap();
    let error = failure(impatient.pull(&image).jobs(1).to(&store));
    assert_kind!(error, ErrorKind::Network { .. });
    served.registry.clear_faults();

    let resumed = Mutex::new(Vec::new());
    let observer = |event: &Event<'_>| {
        if let Event::Started { resumed: bytes, .. } = event {
            resumed.lock().unwrap().push(*bytes);
        }
    };
    let store = Store::open(store.path()).unwrap();
    let pulled = impatient.pull(&image).jobs(1).observer(&observer).to(&store).unwrap();
    assert_same_blobs(&served.store, &store, &pulled.image);
    assert_eq!(*resumed.lock().unwrap(), [40_000, 0]);
    let whole = pulled.image.size() + pulled.root.size;
    assert!(pulled.fetched.bytes <= whole - 40_000);
    assert_eq!(pulled.fetched.bytes + pulled.reused.bytes, whole);
}

/// A crash of the kernel may have left rubbish in the partial file: the pieces do not fit, and one piece does.
#[test]
fn a_rotten_partial_file_costs_a_second_download() {
    let (served, image) = Served::with(&two_layers());
    let store = served.scratch.store("store");
    let layer = served.store.image(name("example.com/app:1")).unwrap().manifest().layers()[0].clone();
    store.resume(&layer).unwrap().append(&[0; 1000]).unwrap();
    let pulled = client().pull(&image).to(&store).unwrap();
    assert_same_blobs(&served.store, &store, &pulled.image);
    assert!(pulled.fetched.bytes > pulled.image.size());
}

/// The registry dies in the middle and comes back.
#[test]
fn a_registry_that_comes_back_finds_the_pull_waiting() {
    let (mut served, _) = Served::with(&two_layers());
    // Nobody else's, so that nobody takes the port meanwhile.
    served.registry = testing::Registry::start_at(&served.store, ([127, 0, 0, 9], 0).into()).unwrap();
    let image = served.registry.reference("app:1").unwrap();
    let address = served.registry.address();
    served.registry.fault(Fault::on("/blobs/").after(1).times(1).stall(50_000, Duration::from_secs(60)));
    let store = served.scratch.store("store");
    let patient = |failure: &Failure<'_>| (failure.attempt < 100).then_some(Duration::from_millis(50));
    let registry = Registry::builder().retry(patient).build().unwrap();
    let Served { scratch: _scratch, store: served, registry: server } = served;
    let pulled = std::thread::scope(|scope| {
        let pull = scope.spawn(|| registry.pull(&image).jobs(1).to(&store));
        while server.requests().iter().filter(|request| request.path.contains("/blobs/")).count() < 2 {
            std::thread::sleep(Duration::from_millis(10));
        }
        server.stop();
        std::thread::sleep(Duration::from_millis(200));
        let _back = testing::Registry::start_at(&served, address).unwrap();
        pull.join().unwrap().unwrap()
    });
    assert_same_blobs(&served, &store, &pulled.image);
    assert_eq!(pulled.fetched.bytes, pulled.image.size() + pulled.root.size, "no byte was fetched twice");
}

/// D29: the registry says when to come back.
#[test]
fn retry_after_is_honoured() {
    let (served, image) = Served::with(&two_layers());
    served.registry.fault(Fault::on("/manifests/").times(1).status(429).header("retry-after", "1"));
    let start = Instant::now();
    let delays = Mutex::new(Vec::new());
    let observer = |event: &Event<'_>| {
        if let Event::Retrying { delay, .. } = event {
            delays.lock().unwrap().push(*delay);
        }
    };
    Registry::new().pull(&image).observer(&observer).to(&served.scratch.store("store")).unwrap();
    assert_eq!(*delays.lock().unwrap(), [Duration::from_secs(1)]);
    assert!(start.elapsed() >= Duration::from_secs(1));
}

#[test]
fn each_passing_fault_is_tried_again() {
    for status in [408, 429, 500, 502, 503, 504] {
        let (served, image) = Served::with(&two_layers());
        served.registry.fault(Fault::on("/manifests/").times(2).status(status));
        served.registry.fault(Fault::on("/blobs/").times(2).status(status));
        client().pull(&image).to(&served.scratch.store("store")).unwrap();
    }
    let (served, image) = Served::with(&two_layers());
    served.registry.fault(Fault::on("").times(2).hang_up());
    client().pull(&image).to(&served.scratch.store("store")).unwrap();
}

#[test]
fn a_cancelled_pull_stops_and_is_resumed() {
    let (served, image) = Served::with(&two_layers());
    let store = served.scratch.store("store");
    let cancel = Cancel::new();
    let observer = |event: &Event<'_>| {
        if matches!(event, Event::Progress { .. }) {
            cancel.cancel();
        }
    };
    served.registry.fault(Fault::on("/blobs/").after(1).times(1).stall(20_000, Duration::from_millis(50)));
    let error = failure(client().pull(&image).jobs(1).observer(&observer).cancel(&cancel).to(&store));
    assert_kind!(error, ErrorKind::Cancelled);
    assert!(failure(store.resolve(&image)).is_not_found());
    let pulled = client().pull(&image).to(&store).unwrap();
    assert!(pulled.reused.bytes > 0, "what had arrived was kept");
    assert_same_blobs(&served.store, &store, &pulled.image);
}

#[test]
fn a_pause_before_a_retry_can_be_cancelled() {
    let (served, image) = Served::with(&two_layers());
    served.registry.fault(Fault::on("/manifests/").status(503));
    let registry = Registry::builder().retry(|_: &Failure<'_>| Some(Duration::from_secs(3600))).build().unwrap();
    let cancel = Cancel::new();
    let observer = |event: &Event<'_>| {
        if matches!(event, Event::Retrying { .. }) {
            cancel.cancel();
        }
    };
    let start = Instant::now();
    let store = served.scratch.store("store");
    assert_kind!(failure(registry.pull(&image).observer(&observer).cancel(&cancel).to(&store)), ErrorKind::Cancelled);
    assert!(start.elapsed() < Duration::from_secs(10));
}

/// RFC 9110, section 15.3.7: a server may send less of the rest than was asked for.
#[test]
fn short_parts_are_put_together() {
    let (served, image) = Served::with(&two_layers());
    let layer = served.store.image(name("example.com/app:1")).unwrap().manifest().layers()[0].clone();
    let path = served.store.path().join(format!("blobs/sha256/{}", layer.digest.hex()));
    let content = fs::read(path).unwrap();
    let store = served.scratch.store("store");
    store.resume(&layer).unwrap().append(&content[..1000]).unwrap();
    let range = format!("bytes 1000-1999/{}", content.len());
    let part = Fault::on(format!("/blobs/{}", layer.digest)).times(1).header("content-range", &range);
    served.registry.fault(part.body(&content[1000..2000]));
    let pulled = client().pull(&image).to(&store).unwrap();
    assert_same_blobs(&served.store, &store, &pulled.image);
}

/// Many parts are no failures: a registry that sends a blob in pieces needs no patience.
#[test]
fn a_blob_in_many_parts_is_no_failure() {
    let (served, image) = Served::with(&two_layers());
    let layer = served.store.image(name("example.com/app:1")).unwrap().manifest().layers()[0].clone();
    let content = fs::read(blob_path(&served.store, &layer)).unwrap();
    let store = served.scratch.store("store");
    store.resume(&layer).unwrap().append(&content[..10]).unwrap();
    let end = 10 + (70 << 10);
    let range = format!("bytes 10-{}/{}", end - 1, content.len());
    let part = Fault::on(format!("/blobs/{}", layer.digest)).times(1).header("content-range", &range);
    served.registry.fault(part.body(&content[10..end]));
    Registry::builder().retry(Never).build().unwrap().pull(&image).to(&store).unwrap();
    assert!(store.image(&image).unwrap().is_complete().unwrap());
}

/// D9: with no second chance at all, a useless answer to `Range` still costs nothing but the request.
#[test]
fn a_useless_range_costs_no_attempt() {
    let (served, image) = Served::with(&two_layers());
    let layer = served.store.image(name("example.com/app:1")).unwrap().manifest().layers()[0].clone();
    let path = served.store.path().join(format!("blobs/sha256/{}", layer.digest.hex()));
    let store = served.scratch.store("store");
    store.resume(&layer).unwrap().append(&fs::read(path).unwrap()[..1000]).unwrap();
    served.registry.fault(Fault::on(format!("/blobs/{}", layer.digest)).times(1).status(416));
    Registry::builder().retry(Never).build().unwrap().pull(&image).to(&store).unwrap();
    assert!(store.image(&image).unwrap().is_complete().unwrap());
}
