//! Faults of requests that change something.

use layercake::Digest;
use layercake::testing::Fault;

use super::STREAM;
use super::close;
use super::image;
use super::push_blob;
use super::put;
use super::start;

use crate::support::http::Http;

/// What was refused was not done; what was lost on the way back was.
#[test]
fn a_fault_says_whether_the_request_was_carried_out() {
    let (served, mut http) = start();
    let image = image(&mut http, "app", &[]);
    for carried_out in [false, true] {
        for hung_up in [false, true] {
            let tag = format!("{carried_out}-{hung_up}");
            let fault = Fault::on(&tag).method("PUT").times(1);
            let fault = if hung_up { fault.hang_up() } else { fault.status(500) };
            served.registry.fault(if carried_out { fault.carry_out() } else { fault });
            let path = format!("/v2/app/manifests/{tag}");
            let bytes = image.to_string().into_bytes();
            http.head("PUT", &path, &[("content-length", &bytes.len().to_string())]);
            http.raw(b"\r\n");
            http.raw(&bytes);
            let status = http.try_receive("PUT").map(|reply| reply.status).ok();
            assert_eq!(status, (!hung_up).then_some(500), "{tag}");
            http = Http::connect(&served.registry.host());
            assert_eq!(http.ask("HEAD", &path).status, if carried_out { 200 } else { 404 }, "{tag}");
        }
    }
}

/// 202 for ever.
#[test]
fn an_upload_can_never_end() {
    let (served, mut http) = start();
    let location = http.ask("POST", "/v2/app/blobs/uploads/").ok(202).location().to_owned();
    served.registry.fault(Fault::on("/uploads/").method("PUT").status(202).header("location", &location));
    let digest = Digest::sha256(b"content");
    for _ in 0..3 {
        assert_eq!(close(&mut http, &location, digest, b"content").ok(202).location(), location);
    }
    http.ask("HEAD", &format!("/v2/app/blobs/{digest}")).ok(404);
}

/// Lies about what came, and about what it is.
#[test]
fn answers_can_lie() {
    let (served, mut http) = start();
    let location = http.ask("POST", "/v2/app/blobs/uploads/").ok(202).location().to_owned();
    for lie in ["0--1", "0-99", "5-9", "rubbish"] {
        served.registry.clear_faults();
        served.registry.fault(Fault::on("/uploads/").header("range", lie));
        assert_eq!(http.ask("GET", &location).ok(204).header("range"), Some(lie));
        assert_eq!(http.send("PATCH", &location, &[STREAM], b"x").ok(202).header("range"), Some(lie));
    }
    served.registry.clear_faults();
    let lie = Digest::sha256(b"another").to_string();
    served.registry.fault(Fault::on("/v2/").header("docker-content-digest", &lie));
    let reply = close(&mut http, &location, Digest::sha256(b"xxxx"), b"").ok(201);
    assert_eq!(reply.header("docker-content-digest"), Some(lie.as_str()));
    let image = image(&mut http, "app", &[]);
    assert_eq!(put(&mut http, "app", "1", &image).ok(201).header("docker-content-digest"), Some(lie.as_str()));
}

/// An older registry, which knows of no subjects and refuses mounts outright.
#[test]
fn older_registries_know_less() {
    let (served, mut http) = start();
    served.registry.fault(Fault::on("/manifests/").method("PUT").without_header("oci-subject"));
    let mut image = image(&mut http, "app", &[]);
    image["subject"] = image["config"].clone();
    assert_eq!(put(&mut http, "app", "1", &image).ok(201).header("oci-subject"), None);
    let digest = push_blob(&mut http, "source", b"content", layercake::Algorithm::Sha256);
    served.registry.fault(Fault::on("mount=").method("POST").status(405));
    http.ask("POST", &format!("/v2/app/blobs/uploads/?mount={digest}&from=source")).refused(405, "FAULT");
    http.ask("HEAD", &format!("/v2/app/blobs/{digest}")).ok(404);
    // A redirect of an upload, as CVE-2026-49349 has it.
    served.registry.fault(Fault::on("/blobs/uploads/").method("POST").redirect("http://127.0.0.1:1/elsewhere"));
    assert_eq!(http.ask("POST", "/v2/app/blobs/uploads/").ok(307).location(), "http://127.0.0.1:1/elsewhere");
}
