//! Checks JSON text for fields that two readers take for different ones.
//!
//! Go's `encoding/json`, which docker, containerd, podman and umoci use, finds a field of a struct by its name in any
//! case, and the last of several counts. serde takes the exact name. So a manifest with `layers` and `Layers` is one image
//! here and another one there (CVE-2021-41190 is of this kind). [`check`] refuses every name that is a known field's in
//! another case, and every name that comes twice in one object. A [`Shape`] says which fields are known where.

use std::borrow::Cow;
use std::fmt;
use std::hash::BuildHasher;
use std::hash::RandomState;

use serde::Deserialize;
use serde::Deserializer;
use serde::de;
use serde_json::value::RawValue;

use crate::error::printable;

/// How deep values may nest: Go refuses more.
const MAX_DEPTH: usize = 10_000;

/// The known fields of a value, as the structs of Go's tools have them.
pub(crate) enum Shape {
    /// Names mean nothing here.
    Any,
    /// An object with free names, such as labels.
    Map(&'static Shape),
    List(&'static Shape),
    Struct(&'static [(&'static str, &'static Shape)]),
}

use Shape::Any;
use Shape::List;
use Shape::Map;
use Shape::Struct;

static FREE: Shape = Map(&Any);

static PLATFORM: Shape = Struct(&[
    ("architecture", &Any),
    ("os", &Any),
    ("os.version", &Any),
    ("os.features", &Any),
    ("variant", &Any),
    ("features", &Any),
]);

/// A descriptor.
pub(crate) static DESCRIPTOR: Shape = Struct(&[
    ("mediaType", &Any),
    ("digest", &Any),
    ("size", &Any),
    ("urls", &Any),
    ("annotations", &FREE),
    ("data", &Any),
    ("artifactType", &Any),
    ("platform", &PLATFORM),
]);

static DESCRIPTORS: Shape = List(&DESCRIPTOR);

/// A manifest or an index of any kind: which of them it is, its fields decide.
pub(crate) static DOCUMENT: Shape = Struct(&[
    ("schemaVersion", &Any),
    ("mediaType", &Any),
    ("artifactType", &Any),
    ("config", &DESCRIPTOR),
    ("layers", &DESCRIPTORS),
    ("blobs", &DESCRIPTORS),
    ("manifests", &DESCRIPTORS),
    ("subject", &DESCRIPTOR),
    ("annotations", &FREE),
    ("fsLayers", &Any),
    ("history", &Any),
    ("signatures", &Any),
]);

static EXECUTION: Shape = Struct(&[
    ("Hostname", &Any),
    ("Domainname", &Any),
    ("User", &Any),
    ("AttachStdin", &Any),
    ("AttachStdout", &Any),
    ("AttachStderr", &Any),
    ("ExposedPorts", &FREE),
    ("Tty", &Any),
    ("OpenStdin", &Any),
    ("StdinOnce", &Any),
    ("Env", &Any),
    ("Cmd", &Any),
    ("Healthcheck", &HEALTH_CHECK),
    ("ArgsEscaped", &Any),
    ("Image", &Any),
    ("Volumes", &FREE),
    ("WorkingDir", &Any),
    ("Entrypoint", &Any),
    ("NetworkDisabled", &Any),
    ("MacAddress", &Any),
    ("OnBuild", &Any),
    ("Labels", &FREE),
    ("StopSignal", &Any),
    ("StopTimeout", &Any),
    ("Shell", &Any),
]);

static HEALTH_CHECK: Shape = Struct(&[
    ("Test", &Any),
    ("Interval", &Any),
    ("Timeout", &Any),
    ("StartPeriod", &Any),
    ("StartInterval", &Any),
    ("Retries", &Any),
]);

/// The configuration of an image.
pub(crate) static CONFIG: Shape = Struct(&[
    ("architecture", &Any),
    ("os", &Any),
    ("os.version", &Any),
    ("os.features", &Any),
    ("variant", &Any),
    ("created", &Any),
    ("author", &Any),
    ("comment", &Any),
    ("id", &Any),
    ("parent", &Any),
    ("container", &Any),
    ("container_config", &EXECUTION),
    ("docker_version", &Any),
    ("config", &EXECUTION),
    ("rootfs", &Struct(&[("type", &Any), ("diff_ids", &Any)])),
    (
        "history",
        &List(&Struct(&[
            ("created", &Any),
            ("created_by", &Any),
            ("author", &Any),
            ("comment", &Any),
            ("empty_layer", &Any),
        ])),
    ),
]);

/// The file `oci-layout`.
pub(crate) static LAYOUT: Shape = Struct(&[("imageLayoutVersion", &Any)]);

/// The `manifest.json` of an archive that `docker save` wrote.
pub(crate) static ARCHIVE: Shape = List(&Struct(&[
    ("Config", &Any),
    ("RepoTags", &Any),
    ("Layers", &Any),
    ("Parent", &Any),
    ("LayerSources", &Map(&DESCRIPTOR)),
]));

/// A `config.json` of Docker's or an `auth.json` of podman's.
#[cfg(feature = "registry")]
pub(crate) static DOCKER_CONFIG: Shape = Struct(&[
    (
        "auths",
        &Map(&Struct(&[
            ("username", &Any),
            ("password", &Any),
            ("auth", &Any),
            ("email", &Any),
            ("serveraddress", &Any),
            ("identitytoken", &Any),
            ("registrytoken", &Any),
        ])),
    ),
    ("credHelpers", &FREE),
    ("credsStore", &Any),
]);

impl Shape {
    /// The shape of a field's value, or the refusal of its name.
    pub(crate) fn field(&self, name: &str) -> Result<&'static Shape, Ambiguity> {
        match self {
            Map(value) => Ok(value),
            Struct(fields) => match fields.iter().find(|(known, _)| *known == name) {
                Some((_, shape)) => Ok(shape),
                None => match fields.iter().find(|(known, _)| folds_to(name, known)) {
                    Some((known, _)) => Err(Ambiguity::Case { known }),
                    None => Ok(&Any),
                },
            },
            Any | List(_) => Ok(&Any),
        }
    }

    fn element(&self) -> &'static Shape {
        match self {
            List(element) => element,
            _ => &Any,
        }
    }
}

/// Whether Go takes a name for that of a known field, which is ASCII: beside the two cases of a letter, two other
/// characters fold to `k` and `s`.
fn folds_to(name: &str, known: &str) -> bool {
    let fold = |c: char| match c {
        '\u{212a}' => 'k',
        '\u{17f}' => 's',
        c => c.to_ascii_lowercase(),
    };
    name.chars().map(fold).eq(known.chars().map(fold))
}

/// Two readings of one document.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ambiguity {
    /// A name is a known field's in another case.
    Case { known: &'static str },
    /// A name comes twice in one object.
    Twice { name: String },
    /// The values nest deeper than Go reads.
    Depth,
}

impl Ambiguity {
    /// The reason without names that the document chose, which may be secret in a configuration file.
    #[cfg(feature = "registry")]
    pub(crate) fn without_names(&self) -> String {
        match self {
            Ambiguity::Twice { .. } => "ambiguous: a field comes twice in one object".to_owned(),
            other => other.to_string(),
        }
    }
}

impl fmt::Display for Ambiguity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ambiguity::Case { known } => {
                write!(f, "ambiguous: the field {known:?} is written in another case, which some readers take for it")
            }
            Ambiguity::Twice { name } => {
                write!(f, "ambiguous: the field {:?} comes twice in one object", printable(name, 80))
            }
            Ambiguity::Depth => write!(f, "its values nest deeper than {MAX_DEPTH} levels"),
        }
    }
}

/// Checks the names in a text that is valid JSON: in linear time, with some bytes for each name of the objects that
/// are open.
pub(crate) fn check(text: &[u8], shape: &'static Shape) -> Result<(), Ambiguity> {
    Scan { text, at: 0, open: Vec::new(), names: Names::default(), next: shape, expects_name: false }.run()
}

/// Checks the fields of an object that was taken apart; values are left out.
pub(crate) fn check_names<'a>(names: impl Iterator<Item = &'a str>, shape: &Shape) -> Result<(), Ambiguity> {
    let mut seen = std::collections::HashSet::new();
    for name in names {
        shape.field(name)?;
        if !seen.insert(name) {
            return Err(Ambiguity::Twice { name: name.to_owned() });
        }
    }
    Ok(())
}

/// The fields of an object in their order, with their values as they are written.
pub(crate) struct Pairs<'a>(pub(crate) Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Pairs<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Pairs<'a>, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Pairs<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Pairs<'de>, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry::<String, &RawValue>()? {
                    pairs.push((Cow::Owned(pair.0), pair.1));
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(Visitor)
    }
}

/// An object or a list whose end was not reached yet.
enum Open {
    /// The number of names of the objects around it.
    Object(&'static Shape, usize),
    List(&'static Shape),
}

struct Scan<'a> {
    text: &'a [u8],
    at: usize,
    open: Vec<Open>,
    names: Names,
    /// The shape of the value to come.
    next: &'static Shape,
    /// Whether the string to come is the name of a field.
    expects_name: bool,
}

impl Scan<'_> {
    fn run(mut self) -> Result<(), Ambiguity> {
        while let Some(byte) = self.text.get(self.at) {
            match byte {
                b'"' => self.string()?,
                b'{' => {
                    self.open(Open::Object(self.next, self.names.0.len()))?;
                    self.expects_name = true;
                }
                b'[' => {
                    self.open(Open::List(self.next.element()))?;
                    self.next = self.next.element();
                    self.expects_name = false;
                }
                b'}' | b']' => self.close()?,
                b',' => match self.open.last() {
                    Some(Open::List(element)) => self.next = element,
                    Some(Open::Object(..)) => self.expects_name = true,
                    None => {}
                },
                _ => {}
            }
            self.at += 1;
        }
        Ok(())
    }

    fn open(&mut self, open: Open) -> Result<(), Ambiguity> {
        if self.open.len() == MAX_DEPTH {
            return Err(Ambiguity::Depth);
        }
        self.open.push(open);
        Ok(())
    }

    fn close(&mut self) -> Result<(), Ambiguity> {
        self.expects_name = false;
        match self.open.pop() {
            Some(Open::Object(_, start)) => self.names.close(start, self.text),
            _ => Ok(()),
        }
    }

    /// Goes to the closing quote.
    fn string(&mut self) -> Result<(), Ambiguity> {
        let start = self.at;
        self.at += string_length(&self.text[start..]) - 1;
        if !std::mem::take(&mut self.expects_name) {
            return Ok(());
        }
        if let Some(Open::Object(shape, _)) = self.open.last() {
            let name = name_at(self.text, start);
            self.next = shape.field(&name)?;
            self.names.push(&name, start);
        }
        Ok(())
    }
}

/// The length of a string with its quotes.
fn string_length(text: &[u8]) -> usize {
    let mut at = 1;
    loop {
        match text.get(at) {
            Some(b'\\') => at += 2,
            Some(b'"') => return at + 1,
            Some(_) => at += 1,
            None => return text.len(),
        }
    }
}

/// The name that starts with the quote at a place. As in Go, halves of surrogate pairs become a replacement character.
fn name_at(text: &[u8], start: usize) -> Cow<'_, str> {
    let quoted = &text[start..start + string_length(&text[start..])];
    let inner = quoted.get(1..quoted.len().saturating_sub(1)).unwrap_or_default();
    if !inner.contains(&b'\\') {
        return String::from_utf8_lossy(inner);
    }
    serde_json::from_slice(quoted).map_or_else(|_| String::from_utf8_lossy(inner), Cow::Owned)
}

/// The names of the objects that are open: the hash of each, and where it starts.
#[derive(Default)]
struct Names(Vec<(u64, usize)>, RandomState);

impl Names {
    fn push(&mut self, name: &str, start: usize) {
        self.0.push((self.1.hash_one(name), start));
    }

    /// Compares the names of the innermost object, and forgets them.
    fn close(&mut self, start: usize, text: &[u8]) -> Result<(), Ambiguity> {
        let names = &mut self.0[start..];
        names.sort_unstable();
        let twice = names
            .windows(2)
            .find(|pair| pair[0].0 == pair[1].0 && name_at(text, pair[0].1) == name_at(text, pair[1].1));
        if let Some(pair) = twice {
            return Err(Ambiguity::Twice { name: name_at(text, pair[0].1).into_owned() });
        }
        self.0.truncate(start);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn found(text: &str, shape: &'static Shape) -> Result<(), Ambiguity> {
        serde_json::from_str::<&RawValue>(text).expect("it is JSON");
        check(text.as_bytes(), shape)
    }

    #[test]
    fn known_fields_in_another_case_are_found_at_every_level() {
        for (text, known) in [
            (r#"{"layers":[],"Layers":[]}"#, "layers"),
            (r#"{"LAYERS":[]}"#, "layers"),
            (r#"{"\u004cayers":[]}"#, "layers"),
            ("{\"layer\u{17f}\":[]}", "layers"),
            (r#"{"layer\u017f":[]}"#, "layers"),
            (r#"{"layers":[{},{"Digest":""}]}"#, "digest"),
            (r#"{"manifests":[{"platform":{"OS":""}}]}"#, "os"),
            (r#"{"config":{"a":{"digest":1},"Platform":{}}}"#, "platform"),
            (r#"{"a":[{"Digest":1}],"subject":{"annotations":{"Digest":""},"Size":1}}"#, "size"),
        ] {
            assert_eq!(found(text, &DOCUMENT), Err(Ambiguity::Case { known }), "{text}");
        }
        for (text, known) in [
            (r#"{"config":{"env":[]}}"#, "Env"),
            ("{\"rootfs\":{\"diff_id\u{17f}\":[]}}", "diff_ids"),
            (r#"{"history":[{"Created_By":""}]}"#, "created_by"),
            ("{\"config\":{\"Healthchec\u{212a}\":{}}}", "Healthcheck"),
        ] {
            assert_eq!(found(text, &CONFIG), Err(Ambiguity::Case { known }), "{text}");
        }
    }

    #[test]
    fn names_that_come_twice_are_found_at_every_level() {
        for text in [
            r#"{"layers":[],"layers":[]}"#,
            r#"{"unknown":[[{"x":1,"\u0078":2}]]}"#,
            r#"{"annotations":{"a":"","b":"","a":""}}"#,
            r#"{"x":{"":0,"":0}}"#,
            r#"{"x":{"y":{"a":1}},"a":1,"b":[{}],"a":2}"#,
        ] {
            assert!(matches!(found(text, &DOCUMENT), Err(Ambiguity::Twice { .. })), "{text}");
        }
    }

    #[test]
    fn other_names_are_left_alone() {
        for text in [
            r#"{"annotations":{"Layers":"","layers":"","LAYERS":""},"urls":[1,2,{"a":"\"{,"}],"x-layers":1}"#,
            r#"{"layers":[{"digest":"digest","annotations":{"Digest":"{\"a\":1,\"a\":2}"}}],"unknown":{"Digest":1,"digest":2}}"#,
            r#"[{"Digest":1},"{"]"#,
            r#"{"a":{"a":{"a":1}},"b":{"a":1}}"#,
            r#""{""#,
            "1e999",
        ] {
            assert_eq!(found(text, &DOCUMENT), Ok(()), "{text}");
        }
    }

    /// P9: a million names, and values that nest.
    #[test]
    fn large_objects_are_checked_in_linear_time() {
        let names: String = (0..1_000_000).map(|n| format!("\"{n}\":0,")).collect();
        assert_eq!(check(format!("{{{names}\"x\":0}}").as_bytes(), &DOCUMENT), Ok(()));
        assert!(check(format!("{{{names}\"7\":0}}").as_bytes(), &DOCUMENT).is_err());
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert_eq!(check(nested(MAX_DEPTH).as_bytes(), &DOCUMENT), Ok(()));
        assert_eq!(check(nested(MAX_DEPTH + 1).as_bytes(), &DOCUMENT), Err(Ambiguity::Depth));
    }

    /// Text that is not JSON is another one's to refuse.
    #[test]
    fn text_that_is_not_json_does_no_harm() {
        for text in ["", "\"", "\"\\", "{\"", "{\"a\\", "}]", "{]}", "{\"a\"\"b\"", ",,{,\"\",", "{\"\\u00\":1}"] {
            let _ = check(text.as_bytes(), &DOCUMENT);
        }
    }
}
