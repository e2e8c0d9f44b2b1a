//! JSON objects that change: what nobody asked to change stays as it is, to the byte.

use std::fmt;

use serde::Deserialize;
use serde::Deserializer;
use serde::Serialize;
use serde::Serializer;
use serde::de::DeserializeOwned;
use serde::de::MapAccess;
use serde::de::Visitor;
use serde::ser::SerializeMap;
use serde_json::value::RawValue;

use crate::error::Error;
use crate::error::Result;

/// An object: its fields in their order, their values as they were written.
#[derive(Clone, Debug, Default)]
pub(crate) struct Object {
    fields: Vec<(String, Box<RawValue>)>,
}

impl Object {
    pub(crate) fn parse(document: &'static str, bytes: &[u8]) -> Result<Object> {
        super::parse(document, bytes)
    }

    /// The object that something is written as.
    pub(crate) fn of(value: &impl Serialize) -> Result<Object> {
        let text = serde_json::to_vec(value).map_err(|error| Error::invalid_input(error.to_string()))?;
        Object::parse("JSON object", &text)
    }

    /// The names of its fields, in their order.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.fields.iter().map(|(name, _)| name.as_str())
    }

    /// The value of a field; `null` is the same as nothing.
    pub(crate) fn get<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>> {
        let Some((_, value)) = self.fields.iter().find(|(found, _)| found == name) else { return Ok(None) };
        serde_json::from_str(value.get()).map_err(|error| Error::invalid_document("JSON object", error))
    }

    /// Gives a field a value: in its place, or as the last one.
    pub(crate) fn set(&mut self, name: &str, value: &impl Serialize) -> Result<()> {
        let value = serde_json::value::to_raw_value(value).map_err(|error| Error::invalid_input(error.to_string()))?;
        match self.fields.iter_mut().find(|(found, _)| found == name) {
            Some((_, old)) => *old = value,
            None => self.fields.push((name.to_owned(), value)),
        }
        Ok(())
    }

    /// Takes a field away.
    pub(crate) fn remove(&mut self, name: &str) {
        self.fields.retain(|(found, _)| found != name);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// The document, without white space between the fields.
    pub(crate) fn to_bytes(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(self).map_err(|error| Error::invalid_input(error.to_string()))
    }
}

impl Serialize for Object {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.fields.len()))?;
        for (name, value) in &self.fields {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Object, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Object;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Object { fields })
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_changed_stays_to_the_byte() {
        let text = br#"{ "z": 1e0, "a": { "b" : [1.50, 18446744073709551616] }, "n": null, "s": "\u003c" }"#;
        let mut object = Object::parse("text", text).unwrap();
        assert_eq!(object.get::<String>("s").unwrap().as_deref(), Some("<"));
        assert_eq!(object.get::<String>("n").unwrap(), None);
        object.set("a2", &"new").unwrap();
        object.set("z", &2).unwrap();
        object.remove("n");
        let expected = r#"{"z":2,"a":{ "b" : [1.50, 18446744073709551616] },"s":"\u003c","a2":"new"}"#;
        assert_eq!(String::from_utf8(object.to_bytes().unwrap()).unwrap(), expected);
    }
}
