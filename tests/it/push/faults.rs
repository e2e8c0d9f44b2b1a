//! Registries that do not do what they should while something is pushed.

use std::net::Ipv4Addr;
use std::time::Duration;

use layercake::Cancel;
use layercake::ErrorKind;
use layercake::Event;
use layercake::Registry;
use layercake::registry::Never;
use layercake::testing;
use layercake::testing::Fault;
use layercake::testing::Fixture;

use super::Pushing;
use crate::assert_kind;
use crate::support::blob_path;
use crate::support::client;
use crate::support::failure;
use crate::support::platform;

/// An image with one layer of a megabyte that does not compress.
fn large() -> Pushing {
    let mut noise = vec![0; 1 << 20];
    fastrand::Rng::with_seed(11).fill(&mut noise);
    Pushing::of(&Fixture::new(platform("linux/amd64")).layer(&[("noise", &noise)]))
}

/// D14: when a connection breaks in the middle, the registry is asked how much it has, and gets the rest.
#[test]
fn a_broken_upload_goes_on_where_it_was() {
    let pushing = large();
    let size = pushing.image.manifest().layers()[0].size;
    pushing.served.registry.fault(Fault::on("digest=").method("PUT").times(1).break_upload(300_000));
    pushing.served.registry.fault(Fault::on("/blobs/uploads/").method("PATCH").times(1).break_upload(400_000));
    client().push(&pushing.image).jobs(1).to(&pushing.there).unwrap();
    let requests = pushing.served.registry.requests();
    let ranges: Vec<&str> = requests.iter().filter_map(|request| request.header("content-range")).collect();
    assert_eq!(ranges, [format!("300000-{}", size - 1), format!("700000-{}", size - 1)]);
    assert_eq!(pushing.served.count("GET", "/blobs/uploads/"), 2);
    pushing.assert_pushed();
}

/// The answer may be lost after all has arrived: what is there is not sent again.
#[test]
fn a_lost_answer_is_no_second_upload() {
    let pushing = large();
    pushing.served.registry.fault(Fault::on("digest=").method("PUT").times(1).carry_out().hang_up());
    client().push(&pushing.image).jobs(1).to(&pushing.there).unwrap();
    let requests = pushing.served.registry.requests();
    let size = pushing.image.manifest().layers()[0].size;
    let sent: u64 = requests.iter().filter(|r| r.path.contains("/blobs/uploads/")).map(|r| r.body_length).sum();
    assert!(sent < 2 * size, "{sent} bytes for a blob of {size}");
    pushing.assert_pushed();
}

/// A session that the registry has lost is begun anew.
#[test]
fn a_lost_session_is_begun_anew() {
    let pushing = large();
    pushing.served.registry.fault(Fault::on("digest=").method("PUT").times(1).break_upload(300_000));
    pushing.served.registry.fault(Fault::on("/blobs/uploads/").method("GET").times(1).status(404));
    client().push(&pushing.image).jobs(1).to(&pushing.there).unwrap();
    pushing.assert_pushed();
}

/// A registry that knows nothing of chunks gets the whole again.
#[test]
fn where_chunks_are_unknown_the_whole_is_sent_again() {
    let pushing = large();
    pushing.served.registry.fault(Fault::on("digest=").method("PUT").times(1).break_upload(300_000));
    pushing.served.registry.fault(Fault::on("/blobs/uploads/").method("PATCH").status(405));
    client().push(&pushing.image).jobs(1).to(&pushing.there).unwrap();
    pushing.assert_pushed();
}

/// Failures that pass are tried again, at each step.
#[test]
fn passing_failures_are_tried_again() {
    for (method, path, status) in [
        ("HEAD", "/blobs/sha256:", 503),
        ("POST", "/blobs/uploads/", 500),
        ("PUT", "/blobs/uploads/", 502),
        ("PUT", "/manifests/", 503),
        ("PUT", "/manifests/", 429),
        ("POST", "/blobs/uploads/", 429),
    ] {
        let pushing = Pushing::start();
        pushing
            .served
            .registry
            .fault(Fault::on(path).method(method).times(2).status(status).header("retry-after", "0"));
        client()
            .push(&pushing.image)
            .jobs(1)
            .to(&pushing.there)
            .unwrap_or_else(|error| panic!("{method} {path}: {error}"));
        pushing.assert_pushed();
    }
}

/// Nothing is named before all of it is there, whatever fails for good, and the error says what.
#[test]
fn what_fails_for_good_names_nothing() {
    for (method, path, status) in [
        ("HEAD", "/blobs/sha256:", 500),
        ("POST", "/blobs/uploads/", 403),
        ("PUT", "/blobs/uploads/", 400),
        ("PUT", "/blobs/uploads/", 500),
        ("PUT", "/manifests/", 400),
        ("PUT", "/manifests/", 500),
    ] {
        let pushing = Pushing::start();
        pushing.served.registry.fault(Fault::on(path).method(method).status(status));
        let error = failure(client().push(&pushing.image).to(&pushing.there));
        assert_kind!(error, ErrorKind::Registry(refusal) if refusal.status == status && refusal.method == method);
        pushing.served.registry.clear_faults();
        pushing.assert_nothing_named();
        client().push(&pushing.image).to(&pushing.there).unwrap();
        pushing.assert_pushed();
    }
}

/// A registry that accepts blobs and forgets them is told of no image that has them.
#[test]
fn a_forgetful_registry_is_found_out() {
    let pushing = Pushing::start();
    pushing.served.registry.forget_uploads();
    let error = failure(client().push(&pushing.image).to(&pushing.there));
    assert_kind!(error, ErrorKind::Protocol { reason } if reason.contains("does not have it"));
    assert_eq!(pushing.served.count("PUT", "/manifests/"), 0);
}

/// One that lost a blob between, which it said to have, gets it.
#[test]
fn a_blob_that_was_lost_meanwhile_is_sent() {
    let pushing = Pushing::start();
    client().push(&pushing.image).to(&pushing.there).unwrap();
    pushing.served.registry.clear_requests();
    // Somebody deletes a layer after the registry has said that it is there.
    let layer = pushing.image.manifest().layers()[0].clone();
    let observer = |event: &Event<'_>| match event {
        Event::Reused { blob } if blob.digest == layer.digest => {
            // The second time it is gone already.
            let _ = pushing.repository().delete_blob(layer.digest);
        }
        _ => {}
    };
    let there = pushing.served.registry.reference("app:2").unwrap();
    let pushed = client().push(&pushing.image).observer(&observer).to(&there).unwrap();
    // The registry was wrong once: it is believed nothing more.
    assert_eq!((pushed.sent.blobs, pushed.reused.blobs), (3, 0));
    assert_eq!(pushing.served.count("PUT", "/manifests/2"), 2);
    pushing.assert_pushed();
}

/// A registry that says to have something else is not believed to have what was sent.
#[test]
fn another_digest_is_an_error() {
    let other = layercake::Digest::sha256(b"other").to_string();
    for path in ["/blobs/uploads/", "/manifests/"] {
        let pushing = Pushing::start();
        pushing.served.registry.fault(Fault::on(path).method("PUT").header("docker-content-digest", &other));
        assert_kind!(failure(client().push(&pushing.image).to(&pushing.there)), ErrorKind::DigestMismatch { .. });
    }
}

/// Uploads that are never closed, counts that make no sense, locations that are none: an end, and a typed one.
#[test]
fn nonsense_comes_to_an_end() {
    let put = || Fault::on("/blobs/uploads/").method("PUT");
    let post = || Fault::on("/blobs/uploads/").method("POST");
    let patch = || Fault::on("/blobs/uploads/").method("PATCH");
    let breaks = || Some(Fault::on("digest=").method("PUT").times(1).break_upload(300_000));
    for (first, fault) in [
        (None, put().status(202)),
        (None, post().without_header("location")),
        (None, post().header("location", "ftp://example.com/")),
        (None, post().header("location", "/v2/\u{7}")),
        (None, post().header("location", "http://10.0.0.1:5000/upload")),
        (breaks(), patch().header("range", "0-0")),
        (breaks(), patch().header("range", "0--5")),
        (breaks(), patch().header("range", "-5")),
        (breaks(), patch().header("range", "0-18446744073709551615")),
        (breaks(), patch().header("range", "0-99999999")),
        (breaks(), patch().status(202).header("range", "0-299999")),
    ] {
        let pushing = large();
        let shown = format!("{first:?} {fault:?}");
        // The first fault strikes once in every attempt, so that each meets the second.
        pushing.served.registry.fault(fault);
        for _ in 0..8 {
            first.iter().for_each(|first| pushing.served.registry.fault(first.clone()));
        }
        let Err(error) = client().push(&pushing.image).jobs(1).to(&pushing.there) else {
            panic!("{shown}: it succeeded")
        };
        assert!(matches!(error.kind(), ErrorKind::Protocol { .. } | ErrorKind::Network { .. }), "{shown}: {error:?}");
        pushing.served.registry.clear_faults();
        pushing.assert_nothing_named();
    }
}

/// A limit that leaves no room even for the smallest chunk is the registry's own refusal.
#[test]
fn a_registry_that_takes_nothing_is_believed() {
    let pushing = large();
    pushing.served.registry.largest_body(1000);
    pushing.served.registry.fault(Fault::on("/blobs/uploads/").method("PATCH").status(413));
    let error = failure(client().push(&pushing.image).jobs(1).to(&pushing.there));
    assert_kind!(error, ErrorKind::Registry(refusal) if refusal.status == 413);
    pushing.assert_nothing_named();
}

/// D16: what a registry has of an upload that failed for good is given back to it.
#[test]
fn an_upload_that_fails_is_taken_back() {
    let pushing = Pushing::start();
    pushing.served.registry.fault(Fault::on("digest=").method("PUT").status(400));
    let _ = failure(client().push(&pushing.image).jobs(1).to(&pushing.there));
    assert_eq!(pushing.served.count("DELETE", "/blobs/uploads/"), 1);
}

/// X3, CVE-2026-49349: an upload that is sent elsewhere takes no credentials along; and to an address that nobody
/// signed for it, it does not go at all.
#[test]
fn an_upload_elsewhere_goes_without_credentials() {
    for (query, goes) in [("", false), ("?signature=x", true)] {
        let pushing = Pushing::start();
        let thief_store = pushing.served.scratch.store("thief");
        let thief = testing::Registry::start_at(&thief_store, (Ipv4Addr::new(127, 0, 0, 2), 0).into()).unwrap();
        pushing.served.registry.require_login("alice", "secret");
        let elsewhere = format!("http://{}/v2/app/blobs/uploads/x{query}", thief.host());
        pushing.served.registry.fault(Fault::on("/blobs/uploads/").method("POST").header("location", &elsewhere));
        let login = layercake::registry::Login::new(&pushing.served.registry.host(), "alice", "secret");
        let alice = Registry::builder().credentials(login).retry(Never).build().unwrap();
        let error = failure(alice.push(&pushing.image).jobs(1).to(&pushing.there));
        assert!(matches!(error.kind(), ErrorKind::Protocol { .. } | ErrorKind::Registry(_)), "{error:?}");
        assert_eq!(!thief.requests().is_empty(), goes);
        assert!(thief.requests().iter().all(|request| request.header("authorization").is_none()));
        assert_eq!(pushing.served.count("PUT", "/manifests/"), 0);
    }
}

/// D27, X3: nor does what changes something follow a redirect to another host, whatever it brings along.
#[test]
fn a_redirect_of_an_upload_leads_nowhere_else() {
    for path in ["/blobs/uploads/", "/manifests/"] {
        for status in [301, 302, 303, 307, 308] {
            let pushing = Pushing::start();
            let thief_store = pushing.served.scratch.store("thief");
            let thief = testing::Registry::start_at(&thief_store, (Ipv4Addr::new(127, 0, 0, 2), 0).into()).unwrap();
            let elsewhere = format!("http://{}/x?y=z", thief.host());
            pushing.served.registry.fault(Fault::on(path).method("PUT").redirect(&elsewhere).status(status));
            let _ = failure(client().push(&pushing.image).to(&pushing.there));
            assert!(thief.requests().is_empty(), "{path} {status}");
        }
    }
}

/// P3: what is damaged in the store is not sent to its end.
#[test]
fn a_damaged_blob_is_not_pushed() {
    let pushing = Pushing::start();
    let layer = &pushing.image.manifest().layers()[0];
    let path = blob_path(pushing.image.store(), layer);
    let mut content = std::fs::read(&path).unwrap();
    content[77] ^= 1;
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, content).unwrap();
    let error = failure(client().push(&pushing.image).to(&pushing.there));
    assert_kind!(error, ErrorKind::DigestMismatch { .. });
    assert!(!pushing.repository().has_blob(layer).unwrap());
    pushing.assert_nothing_named();
    std::fs::remove_file(&path).unwrap();
    assert!(failure(client().push(&pushing.image).to(&pushing.there)).is_not_found());
}

/// A push that is cancelled stops, and names nothing.
#[test]
fn a_cancelled_push_stops() {
    let pushing = large();
    let cancel = Cancel::new();
    let observer = |event: &Event<'_>| {
        if let Event::Progress { .. } = event {
            cancel.cancel();
        }
    };
    let error = failure(client().push(&pushing.image).cancel(&cancel).observer(&observer).to(&pushing.there));
    assert_kind!(error, ErrorKind::Cancelled);
    pushing.assert_nothing_named();
}

/// P9: a registry that is silent in the middle of an upload is not waited for without end.
#[test]
fn a_silent_registry_is_not_waited_for() {
    let pushing = Pushing::start();
    pushing.served.registry.fault(Fault::on("/manifests/").method("PUT").delay(Duration::from_secs(3)));
    let hasty = Registry::builder().retry(Never).idle_timeout(Duration::from_millis(300)).build().unwrap();
    assert_kind!(failure(hasty.push(&pushing.image).to(&pushing.there)), ErrorKind::TimedOut { .. });
}
