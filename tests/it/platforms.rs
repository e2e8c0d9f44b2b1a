//! Platforms, and which image of an index runs on them.

use layercake::Index;
use layercake::Platform;
use serde_json::json;

use crate::support::platform;

const DIGESTS: [&str; 4] = ["a", "b", "c", "d"];

/// X8: one spelling for each platform.
#[test]
fn spellings_are_normalised() {
    for (text, expected) in [
        ("linux/amd64", "linux/amd64"),
        ("Linux/x86_64", "linux/amd64"),
        ("linux/x86-64/v1", "linux/amd64"),
        ("linux/amd64/v3", "linux/amd64/v3"),
        ("linux/aarch64", "linux/arm64"),
        ("linux/arm64/v8", "linux/arm64"),
        ("linux/arm64/8", "linux/arm64"),
        ("linux/arm64/v8.0", "linux/arm64"),
        ("linux/arm64/9", "linux/arm64/v9"),
        ("linux/armhf", "linux/arm/v7"),
        ("linux/armel", "linux/arm/v6"),
        ("linux/arm", "linux/arm/v7"),
        ("linux/i386", "linux/386"),
        ("macos/arm64", "darwin/arm64"),
        ("windows/amd64", "windows/amd64"),
        ("linux/riscv64", "linux/riscv64"),
    ] {
        let parsed = platform(text);
        assert_eq!(parsed.to_string(), expected, "{text}");
        assert_eq!(platform(expected), parsed, "{text}");
    }
    for text in ["", "linux", "linux/", "/amd64", "linux/arm/v7/x", "linux/a b", "linux/\n"] {
        assert!(text.parse::<Platform>().is_err(), "{text:?}");
    }
}

/// X8: what else runs, best first.
#[test]
fn older_variants_run_too() {
    let preferences = |text: &str| -> Vec<String> { platform(text).preferences().map(|p| p.to_string()).collect() };
    assert_eq!(preferences("linux/amd64/v3"), ["linux/amd64/v3", "linux/amd64/v2", "linux/amd64", "linux/386"]);
    assert_eq!(preferences("linux/amd64"), ["linux/amd64", "linux/386"]);
    assert_eq!(preferences("linux/arm/v7"), ["linux/arm/v7", "linux/arm/v6", "linux/arm/v5"]);
    assert_eq!(preferences("linux/arm/v5"), ["linux/arm/v5"]);
    assert_eq!(preferences("linux/riscv64"), ["linux/riscv64"]);
    let v8_2 = preferences("linux/arm64/v8.2");
    assert_eq!(v8_2[..4], ["linux/arm64/v8.2", "linux/arm64/v8.1", "linux/arm64", "linux/arm/v8"]);
    assert_eq!(preferences("linux/arm64/v9")[..3], ["linux/arm64/v9", "linux/arm64/v8.5", "linux/arm64/v8.4"]);
    assert!(preferences("linux/arm64/v9.4000000000").len() < 100, "no name makes a long list");
}

/// An index of manifests for these platforms; the n-th has a digest of the n-th letter.
fn index(platforms: &[serde_json::Value]) -> Index {
    let entry = |(n, platform): (usize, &serde_json::Value)| {
        json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json", "size": 1, "platform": platform,
            "digest": format!("sha256:{}", DIGESTS[n].repeat(64)),
        })
    };
    let entries: Vec<_> = platforms.iter().enumerate().map(entry).collect();
    let json =
        json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": entries });
    Index::parse(json.to_string().into_bytes()).unwrap()
}

fn selected(index: &Index, wanted: &str) -> Option<String> {
    let digest = index.select(&platform(wanted))?.digest.hex().to_string();
    Some(digest[..1].to_owned())
}

/// I18, case 208.
#[test]
fn the_best_entry_is_selected_and_of_equals_the_first() {
    let linux =
        |architecture: &str, variant: &str| json!({ "os": "linux", "architecture": architecture, "variant": variant });
    let arm = index(&[linux("arm", "v6"), linux("arm", "v7"), linux("arm64", "v8"), linux("arm", "v7")]);
    assert_eq!(selected(&arm, "linux/arm/v7").as_deref(), Some("b"));
    assert_eq!(selected(&arm, "linux/arm/v8").as_deref(), Some("b"));
    assert_eq!(selected(&arm, "linux/arm/v6").as_deref(), Some("a"));
    assert_eq!(selected(&arm, "linux/arm/v5"), None);
    assert_eq!(selected(&arm, "linux/arm64").as_deref(), Some("c"));
    assert_eq!(selected(&arm, "linux/amd64"), None);

    let amd = index(&[linux("amd64", "v3"), linux("amd64", ""), linux("386", "")]);
    assert_eq!(selected(&amd, "linux/amd64").as_deref(), Some("b"));
    assert_eq!(selected(&amd, "linux/amd64/v2").as_deref(), Some("b"));
    assert_eq!(selected(&amd, "linux/amd64/v4").as_deref(), Some("a"));
}

#[test]
fn attestations_and_strange_entries_are_never_selected() {
    let index = index(&[
        json!({ "os": "unknown", "architecture": "unknown" }),
        json!({ "os": "linux" }),
        json!({ "os": "linux", "architecture": "amd64", "os.features": ["win32k"] }),
        json!({ "os": "linux", "architecture": "amd64", "os.version": "10.0", "future": true }),
    ]);
    assert_eq!(selected(&index, "unknown/unknown"), None);
    assert_eq!(selected(&index, "linux/amd64").as_deref(), Some("d"));

    let attested = json!({
        "schemaVersion": 2,
        "manifests": [{
            "mediaType": "application/vnd.oci.image.manifest.v1+json", "size": 1,
            "digest": format!("sha256:{}", "a".repeat(64)),
            "platform": { "os": "linux", "architecture": "amd64" },
            "annotations": { "vnd.docker.reference.type": "attestation-manifest" },
        }],
    });
    let index = Index::parse(attested.to_string().into_bytes()).unwrap();
    assert_eq!(selected(&index, "linux/amd64"), None);
}
