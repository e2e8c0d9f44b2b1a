//! Whatever goes wrong while something is pushed, in whatever combination: the registry has all of it under the name, or
//! there is a typed error and the name means nothing.

use std::time::Duration;
use std::time::Instant;

use fastrand::Rng;
use layercake::ErrorKind;
use layercake::testing;
use layercake::testing::Fault;
use layercake::testing::Fixture;

use super::Pushing;
use crate::support::client;
use crate::support::platform;
use crate::support::quick;

const ROUNDS: u64 = 200;

/// Something that goes wrong, at random.
fn fault(random: &mut Rng, host: &str) -> Fault {
    let places = ["", "/blobs/uploads/", "/blobs/uploads/", "digest=", "/manifests/", "/blobs/sha256:"];
    let mut fault = Fault::on(places[random.usize(..places.len())]).after(random.usize(..5)).times(random.usize(1..4));
    if random.bool() {
        fault = fault.method(["GET", "HEAD", "POST", "PUT", "PATCH"][random.usize(..5)]);
    }
    for _ in 0..random.usize(1..3) {
        let headers = ["location", "range", "docker-content-digest", "content-length", "oci-chunk-min-length"];
        let header = headers[random.usize(..headers.len())];
        let elsewhere = format!("http://{host}/v2/other/blobs/uploads/x");
        let values =
            ["", "0", "0-0", "0-99", "0--1", "-1", "0-99999999999", "/", "x?y", &elsewhere, "9223372036854775808"];
        fault = match random.usize(..10) {
            0 => fault.status([200, 201, 202, 204, 400, 401, 403, 404, 413, 416, 429, 500, 503][random.usize(..13)]),
            1 => fault.break_upload(random.u64(..200_000)),
            2 => fault.hang_up(),
            3 => fault.carry_out().hang_up(),
            4 => fault.without_header(header),
            5 | 6 => fault.header(header, values[random.usize(..values.len())]),
            7 => fault.redirect(["/", "//", "http://", "https://127.0.0.1:1/", "?", &elsewhere][random.usize(..6)]),
            8 => fault.carry_out().status([202, 500, 502, 404][random.usize(..4)]),
            _ => fault.delay(Duration::from_millis(random.u64(..5))),
        };
    }
    fault
}

/// What a registry that is wiser than its faults would be asked for.
fn manners(random: &mut Rng, registry: &testing::Registry) {
    if random.u8(..4) == 0 {
        registry.require_tokens(Duration::from_secs(60));
    }
    if random.u8(..4) == 0 {
        registry.largest_body(random.u64(60_000..200_000));
    }
    if random.u8(..4) == 0 {
        registry.stateful_locations();
    }
}

#[test]
fn any_combination_of_faults_ends_well_or_names_nothing() {
    let mut noise = vec![0; 300_000];
    Rng::with_seed(0).fill(&mut noise);
    let fixture = Fixture::new(platform("linux/amd64")).layer(&[("noise", &noise)]).layer(&[("a", b"a")]);
    let (mut whole, mut failed) = (0, 0);
    for seed in 0..ROUNDS {
        let mut random = Rng::with_seed(seed);
        let pushing = Pushing::of(&fixture);
        let registry = &pushing.served.registry;
        manners(&mut random, registry);
        for _ in 0..random.usize(1..5) {
            registry.fault(fault(&mut random, &registry.host()));
        }
        let start = Instant::now();
        let pushed = quick()
            .idle_timeout(Duration::from_secs(2))
            .total_timeout(Duration::from_secs(4))
            .build()
            .unwrap()
            .push(&pushing.image)
            .to(&pushing.there);
        let requests = registry.requests().len();
        registry.clear_faults();
        match pushed {
            Ok(_) => {
                whole += 1;
                pushing.assert_pushed();
            }
            Err(error) => {
                failed += 1;
                assert!(!matches!(error.kind(), ErrorKind::Io { .. }), "seed {seed}: {error:?}");
                assert!(!error.to_string().contains(|c: char| c.is_control()), "seed {seed}: {error}");
                // An answer that was lost may have been the last: then the name means all of it.
                if client().repository(&pushing.there).unwrap().resolve(&pushing.there.identifier()).is_ok() {
                    pushing.assert_pushed();
                }
                client().push(&pushing.image).to(&pushing.there).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
                pushing.assert_pushed();
            }
        }
        assert!(start.elapsed() < Duration::from_secs(60), "seed {seed} took {:?}", start.elapsed());
        assert!(requests < 200, "seed {seed}: {requests} requests");
    }
    assert!(whole > 30 && failed > 30, "{whole} whole, {failed} failed");
}
