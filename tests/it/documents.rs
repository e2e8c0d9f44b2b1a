//! Manifests, indexes and configurations: what is read, what is tolerated, what is refused.

use std::time::Duration;
use std::time::SystemTime;

use layercake::Config;
use layercake::Descriptor;
use layercake::Digest;
use layercake::ErrorKind;
use layercake::Index;
use layercake::Manifest;
use layercake::MediaType;
use layercake::error::Limit;
use layercake::manifest::MAX_DOCUMENT;
use layercake::manifest::Root;
use serde_json::Value;
use serde_json::json;

use crate::assert_kind;
use crate::support::failure;

const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

fn descriptor(media_type: &str) -> Value {
    json!({ "mediaType": media_type, "size": 2, "digest": Digest::sha256(b"{}") })
}

fn config() -> Value {
    descriptor("application/vnd.oci.image.config.v1+json")
}

fn parse(document: &Value) -> layercake::Result<Root> {
    Root::parse(document.to_string().into_bytes(), None)
}

fn parse_as(document: &Value, media_type: &str) -> layercake::Result<Root> {
    Root::parse(document.to_string().into_bytes(), Some(&MediaType::from(media_type)))
}

/// I15, case 207: the bytes are the truth, and what nobody knows stays in them.
#[test]
fn bytes_stay_as_they_came() {
    let bytes = format!(
        "{{ \"schemaVersion\": 2,\n\t\"unknown\": {{\"x\": 1e0}}, \"config\": {}, \"layers\": [ ],\n \"annotations\": {{\"a\":\"\"}} }}\n",
        config()
    );
    let manifest = Manifest::parse(bytes.clone().into_bytes()).unwrap();
    assert_eq!(manifest.raw(), bytes.as_bytes());
    assert_eq!(manifest.digest(), Digest::sha256(bytes.as_bytes()));
    assert_eq!(manifest.descriptor(), Descriptor::of(MediaType::OCI_MANIFEST, bytes.as_bytes()));
    assert_eq!(manifest.annotations()["a"], "", "I29");
    assert_eq!(manifest.as_oci().unwrap().layers().len(), 0);
}

#[test]
fn both_dialects_are_read() {
    for (manifest, list) in [(OCI_MANIFEST, OCI_INDEX), (DOCKER_MANIFEST, DOCKER_LIST)] {
        let document = json!({ "schemaVersion": 2, "mediaType": manifest, "config": config(), "layers": [] });
        let root = parse_as(&document, &format!("{manifest}; charset=utf-8")).unwrap();
        assert_eq!(root.descriptor().media_type.as_str(), manifest, "D4");
        let document = json!({ "schemaVersion": 2, "mediaType": list, "manifests": [descriptor(manifest)] });
        let Root::Index(index) = parse_as(&document, list).unwrap() else { panic!("a manifest") };
        assert_eq!(index.manifests().len(), 1);
        assert_eq!(index.media_type().as_str(), list);
    }
}

/// X7: without any type, fields decide.
#[test]
fn fields_decide_where_nothing_else_says() {
    assert!(matches!(parse(&json!({ "schemaVersion": 2, "config": config() })), Ok(Root::Manifest(_))));
    assert!(matches!(parse(&json!({ "schemaVersion": 2, "manifests": [] })), Ok(Root::Index(_))));
    assert!(matches!(parse(&json!({ "schemaVersion": 2, "manifests": null })), Ok(Root::Index(_))));
    assert!(matches!(parse(&json!({ "schemaVersion": 2 })), Ok(Root::Index(_))));
}

/// X7, CVE-2021-41190: what one reader takes for a manifest and another for an index.
#[test]
fn ambiguous_documents_are_refused() {
    let both = json!({ "schemaVersion": 2, "config": config(), "layers": [], "manifests": [] });
    let index_with = |field: &str, value: Value| {
        let mut document = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [] });
        document[field] = value;
        document
    };
    for document in [
        both.clone(),
        index_with("config", config()),
        index_with("layers", json!([])),
        json!({ "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config(), "manifests": [] }),
    ] {
        assert_kind!(failure(parse(&document)), ErrorKind::InvalidDocument { .. });
    }
    assert_kind!(failure(parse_as(&both, OCI_MANIFEST)), ErrorKind::InvalidDocument { .. });
    assert_kind!(failure(parse_as(&both, OCI_INDEX)), ErrorKind::InvalidDocument { .. });
    let twice = br#"{"schemaVersion":2,"layers":[],"layers":[],"config":{}}"#;
    assert_kind!(failure(Root::parse(twice.to_vec(), None)), ErrorKind::InvalidDocument { .. });
}

/// D5, I14: the type that was said and the type that is inside.
#[test]
fn contradicting_types_are_refused() {
    let document = json!({ "schemaVersion": 2, "mediaType": DOCKER_MANIFEST, "config": config(), "layers": [] });
    let error = failure(parse_as(&document, OCI_MANIFEST));
    assert_kind!(error, ErrorKind::InvalidDocument { .. });
    assert_eq!(
        error.to_string(),
        format!("invalid manifest: its mediaType is \"{DOCKER_MANIFEST}\", expected \"{OCI_MANIFEST}\"")
    );
    let untyped = json!({ "schemaVersion": 2, "config": config(), "layers": [] });
    for wrong in ["text/html", "application/vnd.oci.image.config.v1+json", "application/json"] {
        assert_kind!(failure(parse_as(&untyped, wrong)), ErrorKind::UnsupportedMediaType { .. });
    }
}

#[test]
fn schema_1_is_refused_by_name() {
    let document = json!({ "schemaVersion": 1, "name": "a", "tag": "b", "fsLayers": [], "history": [] });
    for media_type in ["application/vnd.docker.distribution.manifest.v1+prettyjws", "application/json", DOCKER_MANIFEST]
    {
        let error = failure(parse_as(&document, media_type));
        assert_kind!(error, ErrorKind::Schema1);
        assert!(error.to_string().contains("schema 1"), "{error}");
    }
    assert_kind!(failure(parse(&document)), ErrorKind::Schema1);
    let disguised = json!({ "schemaVersion": 2, "fsLayers": [], "config": config(), "layers": [] });
    assert_kind!(failure(parse(&disguised)), ErrorKind::Schema1);
}

#[test]
fn rubbish_is_refused() {
    for bytes in [&b""[..], b"{", b"[]", b"\"x\"", b"null", b"<html>", b"{\"schemaVersion\":2}x", b"\xff\xfe{}"] {
        assert_kind!(failure(Root::parse(bytes.to_vec(), None)), ErrorKind::InvalidDocument { .. });
    }
    for document in [
        json!({ "schemaVersion": 3, "config": config() }),
        json!({ "config": config() }),
        json!({ "schemaVersion": 2, "layers": [] }),
        json!({ "schemaVersion": 2, "config": null, "layers": [] }),
        json!({ "schemaVersion": 2, "config": config(), "layers": {} }),
        json!({ "schemaVersion": 2, "config": config(), "layers": [{ "mediaType": "a/b", "size": -1, "digest": Digest::sha256(b"") }] }),
        json!({ "schemaVersion": 2, "config": config(), "layers": [{ "mediaType": "a/b", "size": 1, "digest": "sha256:../../etc/passwd" }] }),
        json!({ "schemaVersion": 2, "config": config(), "layers": [{ "mediaType": "a/b", "size": 1, "digest": "blake3:abcd" }] }),
    ] {
        assert_kind!(failure(parse(&document)), ErrorKind::InvalidDocument { .. });
    }
    let deep = format!("{}{}", "[".repeat(1 << 20), "]".repeat(1 << 20));
    assert_kind!(failure(Root::parse(deep.into_bytes(), None)), ErrorKind::InvalidDocument { .. });
}

#[test]
fn documents_have_a_largest_size() {
    let fill = |size: u64| {
        let mut bytes = json!({ "schemaVersion": 2, "config": config(), "layers": [] }).to_string().into_bytes();
        bytes.resize(size as usize, b' ');
        bytes
    };
    assert!(Manifest::parse(fill(MAX_DOCUMENT)).is_ok(), "D11");
    let error = failure(Manifest::parse(fill(MAX_DOCUMENT + 1)));
    assert_kind!(error, ErrorKind::LimitExceeded { limit: Limit::DocumentSize, maximum: MAX_DOCUMENT });
    assert_kind!(failure(Config::parse(fill(MAX_DOCUMENT + 1))), ErrorKind::LimitExceeded { .. });

    let layers = vec![descriptor("application/vnd.oci.image.layer.v1.tar"); 4097];
    let many = json!({ "schemaVersion": 2, "config": config(), "layers": layers });
    assert_kind!(failure(parse(&many)), ErrorKind::LimitExceeded { limit: Limit::Layers, .. });
}

#[test]
fn one_digest_has_one_size() {
    let blob = |size: u64| json!({ "mediaType": "a/b", "size": size, "digest": Digest::sha256(b"x") });
    let manifest = |a: u64, b: u64| json!({ "schemaVersion": 2, "config": config(), "layers": [blob(a), blob(b)] });
    assert!(parse(&manifest(10, 10)).is_ok());
    assert_kind!(failure(parse(&manifest(10, 11))), ErrorKind::InvalidDocument { .. });
}

/// I4, I17, I19: what the wild has.
#[test]
fn the_wild_is_tolerated() {
    let manifest = json!({
        "schemaVersion": 2, "config": descriptor("application/vnd.example.chart+json"), "layers": null,
        "annotations": null, "subject": descriptor(OCI_MANIFEST), "artifactType": null, "future": [1, 2],
    });
    let Root::Manifest(manifest) = parse(&manifest).unwrap() else { panic!("an index") };
    assert!(manifest.layers().is_empty());
    assert_eq!(manifest.artifact_type().map(MediaType::as_str), Some("application/vnd.example.chart+json"), "I12");
    assert!(manifest.subject().is_some());

    let unverifiable = json!({ "mediaType": OCI_MANIFEST, "size": 1, "digest": "blake3:abcd" });
    let index = json!({
        "schemaVersion": 2, "manifests": [unverifiable, descriptor("application/vnd.future"), descriptor(OCI_MANIFEST)],
    });
    let index = Index::parse(index.to_string().into_bytes()).unwrap();
    assert_eq!(index.manifests().len(), 2, "I1: an unknown algorithm spoils only its own entry");
}

#[test]
fn a_descriptor_is_held_to_its_promise() {
    let bytes = json!({ "schemaVersion": 2, "config": config(), "layers": [] }).to_string().into_bytes();
    let promise = Descriptor::of(MediaType::OCI_MANIFEST, &bytes);
    assert!(Root::of(&promise, bytes.clone()).is_ok());
    let mut other = bytes.clone();
    other[0] = b' ';
    assert_kind!(failure(Root::of(&promise, other)), ErrorKind::DigestMismatch { .. });
    let mut longer = bytes.clone();
    longer.push(b' ');
    assert_kind!(failure(Root::of(&promise, longer)), ErrorKind::SizeMismatch { .. });
    let index = Descriptor::new(MediaType::OCI_INDEX, promise.digest, promise.size);
    assert_kind!(failure(Root::of(&index, bytes)), ErrorKind::InvalidDocument { .. });
}

fn config_of(document: &Value) -> Config {
    Config::parse(document.to_string().into_bytes()).unwrap()
}

#[test]
fn a_configuration_says_what_an_image_runs() {
    let config = config_of(&json!({
        "architecture": "arm64", "os": "linux", "variant": "v8", "created": "2024-05-01T12:00:00.5+02:00", "author": "me",
        "config": {
            "User": "1000:1000", "Env": ["PATH=/bin", "A=b=c"], "Entrypoint": ["/init"], "Cmd": ["-v"],
            "WorkingDir": "/srv", "Labels": { "a": "b" }, "ExposedPorts": { "80/tcp": {}, "53/udp": {} },
            "Volumes": { "/data": {} }, "StopSignal": "SIGINT", "Healthcheck": { "Test": ["NONE"] }, "Shell": ["/bin/sh"],
        },
        "rootfs": { "type": "layers", "diff_ids": [Digest::sha256(b"1")] },
        "history": [{ "created_by": "COPY", "created": "2024-05-01T12:00:00Z" }, { "created_by": "ENV", "empty_layer": true }],
    }));
    assert_eq!(config.platform().unwrap().to_string(), "linux/arm64");
    assert_eq!((config.user(), config.working_dir()), ("1000:1000", "/srv"));
    assert_eq!(config.env(), ["PATH=/bin", "A=b=c"]);
    assert_eq!((config.entrypoint(), config.cmd()), (&["/init".to_owned()][..], &["-v".to_owned()][..]));
    assert_eq!(config.exposed_ports(), ["53/udp", "80/tcp"]);
    assert_eq!(config.volumes(), ["/data"]);
    assert_eq!(config.stop_signal(), Some("SIGINT"));
    assert_eq!(config.author(), Some("me"));
    assert_eq!(config.labels()["a"], "b");
    assert_eq!(config.history().len(), 2);
    assert!(config.history()[1].empty_layer);
    let expected = SystemTime::UNIX_EPOCH + Duration::from_millis(1_714_557_600_500);
    assert_eq!(config.created().unwrap(), Some(expected));
    assert_eq!(config.digest(), Digest::sha256(config.raw()), "I24");
}

/// I19: null is absent; an architecture may be empty.
#[test]
fn a_configuration_may_say_nothing() {
    let nulls = config_of(&json!({
        "architecture": null, "os": "", "created": null, "history": null,
        "config": { "Env": null, "Cmd": null, "Entrypoint": null, "Labels": null, "Volumes": null, "ExposedPorts": null, "User": null },
        "rootfs": { "type": "layers", "diff_ids": null },
    }));
    for config in [nulls, config_of(&json!({ "config": null, "rootfs": { "type": "layers" } }))] {
        assert_eq!(config.platform(), None);
        assert_eq!(config.created().unwrap(), None);
        assert!(config.env().is_empty() && config.labels().is_empty() && config.history().is_empty());
        assert!(config.diff_ids().unwrap().is_empty() && config.chain_ids().unwrap().is_empty());
    }
}

/// I20, case 206: values are data, and errors are typed.
#[test]
fn hostile_configurations_are_data_or_errors() {
    let config = config_of(&json!({
        "created": "yesterday", "rootfs": { "type": "zfs", "diff_ids": [] },
        "config": { "User": "4294967295", "WorkingDir": "../..", "Env": ["A\u{0}B=\n"], "Volumes": { "/../x": {} } },
    }));
    assert_kind!(failure(config.created()), ErrorKind::InvalidDocument { .. });
    assert_kind!(failure(config.diff_ids()), ErrorKind::InvalidDocument { .. });
    assert_kind!(failure(config.chain_ids()), ErrorKind::InvalidDocument { .. });
    assert_kind!(failure(config_of(&json!({})).diff_ids().map(<[_]>::to_vec)), ErrorKind::InvalidDocument { .. });
    assert_eq!((config.user(), config.working_dir()), ("4294967295", "../.."));
    assert_eq!(config.env(), ["A\0B=\n"]);
    assert_eq!(config.volumes(), ["/../x"]);
    for rubbish in [
        json!([]),
        json!({ "config": [] }),
        json!({ "config": { "Env": "A=b" } }),
        json!({ "rootfs": { "diff_ids": ["x"] } }),
    ] {
        assert_kind!(failure(Config::parse(rubbish.to_string().into_bytes())), ErrorKind::InvalidDocument { .. });
    }
}

/// I23: the vectors.
#[test]
fn chain_ids_are_as_specified() {
    let l0 = "sha256:c6f988f4874bb0add23a778f753c65efe992244e148a1d2ec2a8b664fb66bbd1";
    let l1 = "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef";
    let config = config_of(&json!({ "rootfs": { "type": "layers", "diff_ids": [l0, l1, l1] } }));
    let chain: Vec<String> = config.chain_ids().unwrap().iter().map(Digest::to_string).collect();
    assert_eq!(
        chain,
        [
            l0,
            "sha256:c3191d32a37d7159b2e30830937d2e30268ad6c375a773a8994911a3aba9b93f",
            "sha256:b3f2677e2ce27278b9d7cab94db2e384b4bc04278000f97c62830f0707f3a865",
        ]
    );
    assert_eq!(Digest::sha256(&[0; 1024]).to_string(), l1);
}

/// P13: Go takes the name of a known field in any case, and the last of several.
#[test]
fn fields_that_go_takes_for_others_are_refused() {
    let reason = |error: layercake::Error| match error.kind() {
        ErrorKind::InvalidDocument { reason, .. } => reason.clone(),
        kind => panic!("unexpected kind: {kind:?}"),
    };
    let layer = descriptor("application/vnd.oci.image.layer.v1.tar");
    let mut with_platform = descriptor(OCI_MANIFEST);
    with_platform["platform"] = json!({ "os": "linux", "OS": "windows", "architecture": "amd64" });
    for document in [
        json!({ "schemaVersion": 2, "config": config(), "layers": [], "Layers": [layer] }),
        json!({ "schemaVersion": 2, "config": config(), "Config": config(), "layers": [] }),
        json!({ "schemaVersion": 2, "config": config(), "layers": [], "\u{17f}ubject": layer }),
        json!({ "schemaVersion": 2, "SchemaVersion": 2, "config": config(), "layers": [] }),
        json!({ "schemaVersion": 2, "config": config(), "layers": [], "Manifests": [] }),
        json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [with_platform] }),
    ] {
        let reason = reason(failure(parse(&document)));
        assert!(reason.starts_with("ambiguous"), "{reason}");
    }
    for text in [
        r#"{"os":"linux","OS":"linux"}"#,
        r#"{"config":{"Env":[],"env":["A=b"]}}"#,
        r#"{"config":{"Labels":{"a":"1","a":"2"}}}"#,
        "{\"rootfs\":{\"type\":\"layers\",\"diff_id\u{17f}\":[]}}",
        r#"{"history":[{"created_by":"a","Created_By":"b"}]}"#,
        r#"{"unknown":{"a":1,"\u0061":2}}"#,
    ] {
        let reason = reason(failure(Config::parse(text.as_bytes().to_vec())));
        assert!(reason.starts_with("ambiguous"), "{reason}");
    }
    let free =
        r#"{"os":"linux","config":{"Labels":{"a":"1","A":"2"},"Volumes":{"/Env":{},"/env":{}}},"x":{"Os":1,"os":2}}"#;
    assert_eq!(Config::parse(free.as_bytes().to_vec()).unwrap().labels().len(), 2);
}
