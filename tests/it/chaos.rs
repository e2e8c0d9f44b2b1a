//! Whatever goes wrong, in whatever combination: the result is the registry's image, or a typed error and a store that is
//! sound.

use std::time::Duration;
use std::time::Instant;

use fastrand::Rng;
use layercake::Descriptor;
use layercake::ErrorKind;
use layercake::MediaType;
use layercake::Store;
use layercake::testing::Fault;
use layercake::testing::Fixture;

use crate::support::Served;
use crate::support::assert_same_blobs;
use crate::support::name;
use crate::support::platform;
use crate::support::quick;

const ROUNDS: u64 = 300;

/// Something that goes wrong, at random.
pub fn fault(random: &mut Rng, host: &str) -> Fault {
    let places = ["", "/v2/", "/manifests/", "/blobs/", "/token"];
    let mut fault = Fault::on(places[random.usize(..places.len())]).after(random.usize(..5)).times(random.usize(1..4));
    if random.bool() {
        fault = fault.method(["GET", "HEAD"][random.usize(..2)]);
    }
    for _ in 0..random.usize(1..3) {
        let headers = ["content-type", "docker-content-digest", "content-range", "content-length", "www-authenticate"];
        let header = headers[random.usize(..headers.len())];
        let digest = format!("sha256:{}", "0".repeat(64));
        let values = ["", "0", "1e9", "-1", "bytes 0-0/1", "text/html", "Bearer realm=\"x\"", "Basic", &digest];
        fault = match random.usize(..12) {
            0 => fault.status([200, 204, 206, 301, 400, 401, 403, 404, 416, 429, 500, 503][random.usize(..12)]),
            1 => fault.truncate(random.usize(..100_000)),
            2 => fault.flip(random.usize(..2000)),
            3 => fault.chunked(),
            4 => fault.hang_up(),
            5 => fault.ignore_range(),
            6 => fault.without_header(header),
            7 => fault.header(header, values[random.usize(..values.len())]),
            8 => fault.body(vec![random.u8(..); random.usize(..5000)]),
            9 => fault.redirect(&format!("http://{host}/v2/app/blobs/{digest}")),
            10 => fault.redirect(["/", "//", "http://", "https://127.0.0.1:1/", "?", "\u{fc}"][random.usize(..6)]),
            _ => fault.delay(Duration::from_millis(random.u64(..5))),
        };
    }
    fault
}

/// Every blob is what its name says, and the name means a whole image or nothing.
fn assert_sound(store: &Store, image: &layercake::ImageReference, seed: u64) {
    for blob in store.blobs().unwrap() {
        let (digest, size) = blob.unwrap();
        let read = store.read(&Descriptor::new(MediaType::OCTET_STREAM, digest, size));
        assert!(read.is_ok(), "seed {seed}: {read:?}");
    }
    if store.resolve(image).is_ok() {
        assert!(store.image(image).unwrap().is_complete().unwrap(), "seed {seed}");
    }
}

#[test]
fn any_combination_of_faults_ends_well_or_in_a_typed_error() {
    let mut noise = vec![0; 150_000];
    Rng::with_seed(0).fill(&mut noise);
    let image = |text: &str| Fixture::new(platform(text)).layer(&[("noise", &noise)]).layer(&[("a", text.as_bytes())]);
    let fixture = image("linux/amd64").and(image("linux/arm64"));
    let (served, image) = Served::with(&fixture);
    let (mut whole, mut failed) = (0, 0);
    for seed in 0..ROUNDS {
        let mut random = Rng::with_seed(seed);
        served.registry.clear_faults();
        served.registry.clear_requests();
        if random.u8(..4) == 0 {
            served.registry.require_tokens(Duration::from_secs(60));
        }
        for _ in 0..random.usize(1..5) {
            let fault = fault(&mut random, &served.registry.host());
            served.registry.fault(fault);
        }
        let store = served.scratch.store(&format!("store-{seed}"));
        let start = Instant::now();
        let registry =
            quick().idle_timeout(Duration::from_secs(2)).total_timeout(Duration::from_secs(4)).build().unwrap();
        match registry.pull(&image).to(&store) {
            Ok(pulled) => {
                whole += 1;
                assert_same_blobs(&served.store, &store, &pulled.image);
            }
            Err(error) => {
                failed += 1;
                assert!(!matches!(error.kind(), ErrorKind::Io { .. }), "seed {seed}: {error:?}");
                assert!(!error.to_string().contains(|c: char| c.is_control()), "seed {seed}: {error}");
            }
        }
        assert!(start.elapsed() < Duration::from_secs(60), "seed {seed} took {:?}", start.elapsed());
        assert!(served.registry.requests().len() < 200, "seed {seed}: {} requests", served.registry.requests().len());
        assert_sound(&store, &image, seed);
        served.registry.clear_faults();
        let again = registry.pull(&image).to(&store).unwrap_or_else(|error| panic!("seed {seed}: {error:?}"));
        assert_eq!(again.root.digest, served.store.resolve(name("example.com/app:1")).unwrap().digest);
    }
    println!("{whole} pulls ended well, {failed} in an error");
    assert!(whole > 20 && failed > 20, "{whole} and {failed}: the faults are too many or too few");
}

/// Bytes that were changed, cut, doubled or put in from elsewhere.
fn mutate(random: &mut Rng, original: &[u8]) -> Vec<u8> {
    let mut bytes = original.to_vec();
    let pieces: [&[u8]; 10] =
        [b"null", b"[]", b"{}", b"-1", b"1e400", b"\"\"", b"\xff", b",", b"\"sha256:../x\"", b"99999999999999999999"];
    for _ in 0..random.usize(1..4) {
        let at = random.usize(..bytes.len().max(1));
        match random.usize(..5) {
            0 if at < bytes.len() => bytes[at] = random.u8(..),
            1 => bytes.truncate(at),
            2 => drop(
                bytes.splice(at.min(bytes.len())..at.min(bytes.len()), pieces[random.usize(..pieces.len())].to_vec()),
            ),
            3 => {
                // The value behind some colon becomes another.
                let colons: Vec<usize> =
                    bytes.iter().enumerate().filter(|(_, b)| **b == b':').map(|(n, _)| n + 1).collect();
                if let Some(start) = random.choice(colons) {
                    let length = bytes[start..].iter().take_while(|b| !b",}]".contains(b)).count();
                    drop(bytes.splice(start..start + length, pieces[random.usize(..pieces.len())].to_vec()));
                }
            }
            _ => {
                let end = (at + random.usize(..40)).min(bytes.len());
                let copy = bytes[at.min(end)..end].to_vec();
                bytes.extend_from_slice(&copy);
            }
        }
    }
    bytes
}

/// P11: no document panics, and what is read keeps its bytes.
#[test]
fn mutated_documents_are_read_or_refused() {
    let served = Served::start();
    let root = Fixture::demo().tag(&served.store, &name("demo")).unwrap();
    let image = served.store.image(name("demo")).unwrap();
    let index = served.store.read(&root).unwrap();
    let (manifest, config) = (image.manifest().raw().to_vec(), image.config().unwrap().raw().to_vec());
    let layout = std::fs::read(served.store.path().join("index.json")).unwrap();
    let mut random = Rng::with_seed(11);
    let mut read = 0;
    for _ in 0..20_000 {
        for original in [&index, &manifest] {
            let bytes = mutate(&mut random, original);
            if let Ok(root) = layercake::manifest::Root::parse(bytes.clone(), None) {
                assert_eq!(root.raw(), bytes);
                read += 1;
            }
        }
        if let Ok(config) = layercake::Config::parse(mutate(&mut random, &config)) {
            let _ = (config.created(), config.diff_ids().map(<[_]>::len), config.chain_ids(), config.platform());
            read += 1;
        }
    }
    for _ in 0..2_000 {
        std::fs::write(served.store.path().join("index.json"), mutate(&mut random, &layout)).unwrap();
        if let Ok(entries) = served.store.entries() {
            entries.for_each(drop);
            read += 1;
        }
        let _ = (served.store.resolve(name("demo")), served.store.untag(name("demo")));
    }
    assert!(read > 2000, "only {read} were read: they are mutated too much");
}
