//! The registry for tests does what the distribution specification asks of registries, workflow by workflow, and what
//! its switches ask beyond that.

mod auth;
mod discovery;
mod faults;
mod manage;
mod manifests;
mod pull;
mod search;
mod uploads;
mod wire;

use layercake::Algorithm;
use layercake::Digest;
use layercake::MediaType;
use serde_json::Value;
use serde_json::json;

use crate::support::Served;
use crate::support::http::Http;
use crate::support::http::Reply;

/// An empty registry, and a connection to it.
fn start() -> (Served, Http) {
    let served = Served::start();
    let http = Http::connect(&served.registry.host());
    (served, http)
}

const STREAM: (&str, &str) = ("content-type", "application/octet-stream");

/// Pushes a blob in two requests.
#[track_caller]
fn push_blob(http: &mut Http, name: &str, content: &[u8], algorithm: Algorithm) -> Digest {
    let digest = Digest::of(algorithm, content);
    let session = http.ask("POST", &format!("/v2/{name}/blobs/uploads/?digest-algorithm={algorithm}")).ok(202);
    close(http, session.location(), digest, content).ok(201);
    digest
}

/// Closes a session with these bytes.
#[track_caller]
fn close(http: &mut Http, location: &str, digest: Digest, content: &[u8]) -> Reply {
    http.send("PUT", &with(location, &format!("digest={digest}")), &[STREAM], content)
}

/// D12: a location may have a query already.
fn with(location: &str, parameter: &str) -> String {
    let separator = if location.contains('?') { '&' } else { '?' };
    format!("{location}{separator}{parameter}")
}

fn descriptor(media_type: &MediaType, content: &[u8], algorithm: Algorithm) -> Value {
    json!({ "mediaType": media_type, "digest": Digest::of(algorithm, content), "size": content.len() })
}

/// A manifest of one configuration and these layers, whose blobs are pushed.
#[track_caller]
fn image(http: &mut Http, name: &str, layers: &[&[u8]]) -> Value {
    let config = br#"{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":[]}}"#;
    let layers = layers.iter().map(|layer| {
        push_blob(http, name, layer, Algorithm::Sha256);
        descriptor(&MediaType::OCI_LAYER, layer, Algorithm::Sha256)
    });
    let layers: Vec<Value> = layers.collect();
    push_blob(http, name, config, Algorithm::Sha256);
    let config = descriptor(&MediaType::OCI_CONFIG, config, Algorithm::Sha256);
    json!({ "schemaVersion": 2, "mediaType": MediaType::OCI_MANIFEST, "config": config, "layers": layers })
}

/// An artifact of this type about something.
#[track_caller]
fn artifact(http: &mut Http, name: &str, artifact_type: &str, subject: &Value) -> Value {
    push_blob(http, name, b"{}", Algorithm::Sha256);
    let empty = descriptor(&MediaType::OCI_EMPTY, b"{}", Algorithm::Sha256);
    json!({
        "schemaVersion": 2, "mediaType": MediaType::OCI_MANIFEST, "artifactType": artifact_type, "config": empty,
        "layers": [empty], "subject": subject, "annotations": { "org.example.note": artifact_type },
    })
}

fn index(manifests: &[Value]) -> Value {
    json!({ "schemaVersion": 2, "mediaType": MediaType::OCI_INDEX, "manifests": manifests })
}

/// Puts a document, which says its own media type.
#[track_caller]
fn put(http: &mut Http, name: &str, reference: &str, document: &Value) -> Reply {
    let media_type = document["mediaType"].as_str().expect("the document has a type");
    let path = format!("/v2/{name}/manifests/{reference}");
    http.send("PUT", &path, &[("content-type", media_type)], document.to_string().as_bytes())
}

/// How another document points to this one.
fn entry(document: &Value) -> Value {
    let media_type = MediaType::from(document["mediaType"].as_str().expect("the document has a type"));
    descriptor(&media_type, document.to_string().as_bytes(), Algorithm::Sha256)
}

fn digest_of(document: &Value) -> String {
    Digest::sha256(document.to_string().as_bytes()).to_string()
}

/// The names that a list has.
#[track_caller]
fn names(reply: &Reply, field: &str) -> Vec<String> {
    let list = reply.json()[field].as_array().expect("it is a list").clone();
    list.iter().map(|name| name.as_str().expect("it is a text").to_owned()).collect()
}
