//! Odd documents, compared with a model of Go's `encoding/json` and with Python's `json`.

use layercake::Config;
use layercake::Descriptor;
use layercake::Digest;
use layercake::Manifest;
use layercake::manifest::Root;
use serde_json::Value;
use serde_json::json;

use super::Reader;
use super::Run;
use super::one_in;
use crate::support::model::Random;
use crate::support::tools::installed;

/// A document whose objects may have a name twice.
#[derive(Clone, Debug)]
enum Node {
    Object(Vec<(String, Node)>),
    List(Vec<Node>),
    Leaf(Value),
}

impl Node {
    fn of(value: &Value) -> Node {
        match value {
            Value::Object(fields) => {
                Node::Object(fields.iter().map(|(name, value)| (name.clone(), Node::of(value))).collect())
            }
            Value::Array(values) => Node::List(values.iter().map(Node::of).collect()),
            other => Node::Leaf(other.clone()),
        }
    }

    fn write(&self, random: &mut Random, text: &mut String) {
        match self {
            Node::Leaf(value) => text.push_str(&value.to_string()),
            Node::List(values) => {
                text.push('[');
                for (n, value) in values.iter().enumerate() {
                    text.push_str(if n > 0 { ", " } else { "" });
                    value.write(random, text);
                }
                text.push(']');
            }
            Node::Object(fields) => {
                text.push('{');
                for (n, (name, value)) in fields.iter().enumerate() {
                    text.push_str(if n > 0 { "," } else { "" });
                    text.push_str(&quoted(name, random));
                    text.push_str(if one_in(random, 4) { " : " } else { ":" });
                    value.write(random, text);
                }
                text.push('}');
            }
        }
    }

    /// The nodes below and itself, in order.
    fn count(&self) -> usize {
        1 + match self {
            Node::Leaf(_) => 0,
            Node::List(values) => values.iter().map(Node::count).sum(),
            Node::Object(fields) => fields.iter().map(|(_, value)| value.count()).sum(),
        }
    }

    fn nth(&mut self, n: usize) -> Option<&mut Node> {
        let mut ahead = vec![self];
        for _ in 0..n {
            match ahead.pop()? {
                Node::Leaf(_) => {}
                Node::List(values) => ahead.extend(values.iter_mut()),
                Node::Object(fields) => ahead.extend(fields.iter_mut().map(|(_, value)| value)),
            }
        }
        ahead.pop()
    }
}

/// A string with some of its characters escaped.
fn quoted(name: &str, random: &mut Random) -> String {
    let mut text = String::from('"');
    for c in name.chars() {
        match c {
            c if one_in(random, 40) => text.push_str(&format!("\\u{:04x}", u32::from(c))),
            '"' | '\\' => text.extend(['\\', c]),
            c => text.push(c),
        }
    }
    text + "\""
}

/// The name with letters in another case, Go's two other ones among them.
fn folded(name: &str, random: &mut Random) -> String {
    let change = |c: char, random: &mut Random| match c {
        'k' | 'K' if one_in(random, 2) => '\u{212a}',
        's' | 'S' if one_in(random, 2) => '\u{17f}',
        c if c.is_ascii_lowercase() && one_in(random, 3) => c.to_ascii_uppercase(),
        c if one_in(random, 3) => c.to_ascii_lowercase(),
        c => c,
    };
    name.chars().map(|c| change(c, random)).collect()
}

const NAMES: [&str; 14] = [
    "Layers",
    "layers",
    "Config",
    "digest",
    "Digest",
    "annotations",
    "platform",
    "OS",
    "env",
    "Env",
    "x",
    "layerS",
    "diff_ids",
    "mediatype",
];

/// The fields of one of the objects.
fn object<'a>(document: &'a mut Node, random: &mut Random) -> Option<&'a mut Vec<(String, Node)>> {
    let is_object = |document: &mut Node, n| matches!(document.nth(n), Some(Node::Object(_)));
    let count = document.count();
    let n = (0..20).map(|_| random.below(count)).find(|n| is_object(document, *n))?;
    match document.nth(n) {
        Some(Node::Object(fields)) => Some(fields),
        _ => None,
    }
}

/// Changes one object: a field comes again, has another case, is new, goes or becomes null.
fn change(document: &mut Node, random: &mut Random) {
    let Some(fields) = object(document, random) else { return };
    if fields.is_empty() {
        return fields.push(((*random.pick(&NAMES)).to_owned(), Node::Leaf(json!("new"))));
    }
    let at = random.below(fields.len());
    let (name, value) = fields[at].clone();
    let place = random.below(fields.len() + 1);
    match random.below(7) {
        0 => fields.insert(place, (name, other(&value, random))),
        1 => fields.insert(place, (folded(&name, random), other(&value, random))),
        2 => fields[at].0 = folded(&name, random),
        3 => fields.insert(place, ((*random.pick(&NAMES)).to_owned(), other(&value, random))),
        4 => drop(fields.remove(at)),
        5 => fields[at].1 = Node::Leaf(Value::Null),
        _ => {
            let last = fields.len() - 1;
            fields.swap(at, place.min(last));
        }
    }
}

/// A value of the same form that says something else.
fn other(value: &Node, random: &mut Random) -> Node {
    match value {
        Node::Leaf(Value::String(text)) if text.starts_with("sha256:") => {
            Node::Leaf(json!(Digest::sha256(&[random.below(4) as u8])))
        }
        Node::Leaf(Value::String(_)) => Node::Leaf(json!("another")),
        Node::Leaf(Value::Number(_)) => Node::Leaf(json!(2)),
        Node::List(values) if one_in(random, 2) => {
            Node::List(values.iter().map(|value| other(value, random)).collect())
        }
        Node::Object(fields) if one_in(random, 2) => {
            let fields = fields.iter().map(|(name, value)| (name.clone(), other(value, random)));
            Node::Object(fields.collect())
        }
        value => value.clone(),
    }
}

fn descriptor(kind: &str, content: &[u8]) -> Value {
    json!({
        "mediaType": format!("application/vnd.oci.image.{kind}"), "digest": Digest::sha256(content), "size": 1,
        "annotations": { "Digest": "a", "digest": "b" },
    })
}

fn manifest() -> Value {
    json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("config.v1+json", b"c"),
        "layers": [descriptor("layer.v1.tar", b"1"), descriptor("layer.v1.tar", b"2")],
        "subject": descriptor("manifest.v1+json", b"s"), "annotations": { "layers": "free", "Layers": "free" },
        "unknown": { "layers": 1, "Layers": [{ "digest": 2 }] },
    })
}

fn index() -> Value {
    let mut entry = descriptor("manifest.v1+json", b"m");
    entry["platform"] = json!({ "os": "linux", "architecture": "riscv64", "variant": "v7" });
    json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [entry, descriptor("manifest.v1+json", b"n")], "annotations": {},
    })
}

fn config() -> Value {
    json!({
        "architecture": "amd64", "os": "linux",
        "config": {
            "User": "1", "Env": ["A=b"], "Entrypoint": ["/e"], "Cmd": ["c"], "WorkingDir": "/w", "StopSignal": "TERM",
            "Labels": { "user": "free", "User": "free" }, "Volumes": { "/v": {} },
        },
        "rootfs": { "type": "layers", "diff_ids": [Digest::sha256(b"1")] },
        "history": [{ "created_by": "step", "empty_layer": false }],
    })
}

/// How a reader finds the fields of an object.
#[derive(Clone, Copy)]
enum Matching {
    /// `encoding/json` of Go: by name in any case, the exact name first; the last of several fields counts.
    Go,
    /// By the exact name.
    Exact,
}

/// The known names of each kind of object; written down once more, so that a mistake in the crate's own list shows.
const OF_DESCRIPTOR: &[&str] =
    &["mediaType", "digest", "size", "urls", "annotations", "data", "artifactType", "platform"];
const OF_DOCUMENT: &[&str] =
    &["schemaVersion", "mediaType", "artifactType", "config", "layers", "manifests", "subject", "annotations"];
const OF_PLATFORM: &[&str] = &["os", "architecture", "variant", "os.version", "os.features"];
const OF_CONFIG: &[&str] = &["architecture", "os", "variant", "created", "author", "config", "rootfs", "history"];
const OF_EXECUTION: &[&str] =
    &["User", "Env", "Entrypoint", "Cmd", "WorkingDir", "StopSignal", "Labels", "Volumes", "ExposedPorts"];

/// `unicode.SimpleFold` for what folds to ASCII.
fn fold(name: &str) -> String {
    name.replace('\u{212a}', "k").replace('\u{17f}', "s").to_ascii_lowercase()
}

/// The value of a field, as a reader finds it.
fn field<'a>(node: &'a Node, known: &[&str], name: &str, matching: Matching) -> Option<&'a Node> {
    let Node::Object(fields) = node else { return None };
    let is_it = |found: &str| match matching {
        Matching::Exact => found == name,
        Matching::Go if known.contains(&found) => found == name,
        Matching::Go => fold(found) == fold(name),
    };
    let found = fields.iter().rfind(|(found, value)| is_it(found) && !matches!(value, Node::Leaf(Value::Null)));
    found.map(|(_, value)| value)
}

fn text(node: Option<&Node>) -> String {
    match node {
        Some(Node::Leaf(Value::String(text))) => text.clone(),
        Some(Node::Leaf(other)) => other.to_string(),
        _ => String::new(),
    }
}

fn texts(node: Option<&Node>) -> Vec<String> {
    match node {
        Some(Node::List(values)) => values.iter().map(|value| text(Some(value))).collect(),
        _ => Vec::new(),
    }
}

/// The free names and values of an object: the last of several counts.
fn map(node: Option<&Node>) -> Vec<String> {
    let Some(Node::Object(fields)) = node else { return Vec::new() };
    let map: std::collections::BTreeMap<_, _> = fields.iter().map(|(name, value)| (name, text(Some(value)))).collect();
    map.into_iter().map(|(name, value)| format!("{name}={value}")).collect()
}

fn view_of_descriptor(node: Option<&Node>, matching: Matching) -> Value {
    let Some(node) = node else { return Value::Null };
    let get = |name| field(node, OF_DESCRIPTOR, name, matching);
    let platform = get("platform").map(|platform| {
        let part = |name| text(field(platform, OF_PLATFORM, name, matching));
        json!([part("os"), part("architecture"), part("variant")])
    });
    json!([text(get("mediaType")), text(get("digest")), text(get("size")), map(get("annotations")), platform])
}

/// The parts of a manifest or an index that say what it is, as a reader finds them.
fn view_of_document(node: &Node, matching: Matching) -> Value {
    let get = |name| field(node, OF_DOCUMENT, name, matching);
    let list = |name| match get(name) {
        Some(Node::List(entries)) => entries.iter().map(|entry| view_of_descriptor(Some(entry), matching)).collect(),
        _ => Vec::new(),
    };
    json!([
        view_of_descriptor(get("config"), matching),
        list("layers"),
        list("manifests"),
        view_of_descriptor(get("subject"), matching),
        map(get("annotations")),
    ])
}

fn view_of_config(node: &Node, matching: Matching) -> Value {
    let get = |name| field(node, OF_CONFIG, name, matching);
    let run = |name| get("config").and_then(|config| field(config, OF_EXECUTION, name, matching));
    let diff_ids = get("rootfs").and_then(|rootfs| field(rootfs, &["type", "diff_ids"], "diff_ids", matching));
    json!([
        text(get("os")),
        text(get("architecture")),
        texts(diff_ids),
        text(run("User")),
        texts(run("Env")),
        texts(run("Entrypoint")),
        texts(run("Cmd")),
        text(run("WorkingDir")),
        text(run("StopSignal")),
        map(run("Labels")),
    ])
}

fn seen_descriptor(descriptor: &Descriptor) -> Value {
    let annotations: Vec<String> =
        descriptor.annotations.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let platform = descriptor
        .platform
        .as_ref()
        .map(|platform| json!([platform.os(), platform.architecture(), platform.variant().unwrap_or_default()]));
    let (digest, size) = (descriptor.digest.to_string(), descriptor.size.to_string());
    json!([descriptor.media_type.as_str(), digest, size, annotations, platform])
}

/// The same parts as this crate reads them.
fn seen_document(root: &Root) -> Value {
    let all = |list: &[Descriptor]| list.iter().map(seen_descriptor).collect::<Vec<_>>();
    let notes = |notes: &std::collections::BTreeMap<String, String>| {
        notes.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>()
    };
    match root {
        Root::Manifest(manifest) => json!([
            seen_descriptor(manifest.config()),
            all(manifest.layers()),
            [],
            manifest.subject().map(seen_descriptor),
            notes(manifest.annotations()),
        ]),
        Root::Index(index) => {
            json!([null, [], all(index.manifests()), index.subject().map(seen_descriptor), notes(index.annotations())])
        }
    }
}

fn seen_config(config: &Config) -> Value {
    let labels: Vec<String> = config.labels().iter().map(|(name, value)| format!("{name}={value}")).collect();
    json!([
        config.os(),
        config.architecture(),
        config.diff_ids().map(|ids| ids.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap_or_default(),
        config.user(),
        config.env(),
        config.entrypoint(),
        config.cmd(),
        config.working_dir(),
        config.stop_signal().unwrap_or_default(),
        labels,
    ])
}

/// Python keeps the last of several fields. Platforms are spelled as they are made, which this does not compare.
const PYTHON: &str = r#"
def answer(text):
    twice = []
    def pairs(found):
        if len(set(name for name, _ in found)) < len(found): twice.append(1)
        return dict(found)
    json.loads(text.decode(), object_pairs_hook=pairs)
    return "twice" if twice else "once"
"#;

/// P13, CVE-2021-41190: an accepted document means the same to Go, field by field, and has no name twice for Python.
#[test]
fn accepted_documents_mean_the_same_to_go_and_python() {
    if !installed(&["python3"]) {
        return;
    }
    let (mut run, mut python) = (Run::new(), Reader::python(PYTHON));
    let bases = [manifest(), index(), config()].map(|base| Node::of(&base));
    let (mut made, mut accepted, mut refused, mut differ_for_go) = (0_u64, 0_u64, 0_u64, 0_u64);
    while let Some(mut random) = run.next(made) {
        made += 1;
        let kind = random.below(bases.len());
        let mut document = bases[kind].clone();
        for _ in 0..1 + random.below(3) {
            change(&mut document, &mut random);
        }
        let mut bytes = String::new();
        document.write(&mut random, &mut bytes);
        let view = |matching| match kind {
            2 => view_of_config(&document, matching),
            _ => view_of_document(&document, matching),
        };
        differ_for_go += u64::from(view(Matching::Go) != view(Matching::Exact));
        let seen = match kind {
            2 => Config::parse(bytes.clone().into_bytes()).ok().map(|config| seen_config(&config)),
            _ => Root::parse(bytes.clone().into_bytes(), None).ok().map(|root| seen_document(&root)),
        };
        let Some(seen) = seen else {
            refused += 1;
            continue;
        };
        accepted += 1;
        if kind == 2 && view(Matching::Go)[2] != seen[2] && seen[2] == json!([]) {
            // Without a type of the root file system there are no layers to be read.
            continue;
        }
        assert_eq!(seen, view(Matching::Go), "Go, seed {}: {bytes}", run.seed);
        assert_eq!(python.ask(bytes.as_bytes()), "once", "Python, seed {}: {bytes}", run.seed);
    }
    println!("{made} documents, {accepted} accepted, {refused} refused, {differ_for_go} of which Go reads otherwise");
    assert!(accepted > 20 && differ_for_go > 5, "{accepted}, {differ_for_go}");
}

/// The cases of skopeo and umoci, by hand: each is refused.
#[test]
fn manifests_that_go_reads_otherwise_are_refused() {
    let evil = descriptor("layer.v1.tar", b"evil");
    for (name, value) in [("Layers", json!([evil])), ("Config", evil.clone()), ("layer\u{17f}", json!([]))] {
        let mut document = manifest();
        document[name] = value;
        assert!(Manifest::parse(document.to_string().into_bytes()).is_err(), "{name}");
    }
}
