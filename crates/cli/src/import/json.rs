//! Secrets as JSON: an object of names and values, or of names and objects; or an array of objects, as the REST API's create takes it.

use std::{collections::BTreeSet, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, SeqAccess, Visitor},
};
use zeroize::Zeroizing;

use super::{Doubt, Entry};

/// What a file in JSON must look like. The library's own words may hold a part of a value.
const SHAPE: &str = "expected {\"NAME\": \"VALUE\", …}, {\"NAME\": {\"value\": …, \"scopes\": […], \"comment\": …}, …} or \
    [{\"name\": …, \"value\": …, \"scopes\": […], \"comment\": …}, …], each name once and each value a string";

pub(super) fn parse(text: &str) -> Result<Vec<Entry>, Doubt> {
    let file: File = serde_json::from_str(text).map_err(|error| {
        let what = if error.is_data() { SHAPE.to_owned() } else { format!("this is not JSON, at column {}", error.column()) };
        Doubt::at(error.line(), what)
    })?;
    Ok(file.0)
}

struct File(Vec<Entry>);

/// One secret of an array; in an object the name stands outside.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Full {
    name: Option<String>,
    value: String,
    scopes: Option<Vec<String>>,
    comment: Option<String>,
}

impl Full {
    fn entry(self, name: String) -> Entry {
        Entry { name, value: Zeroizing::new(self.value.into_bytes()), scopes: self.scopes, comment: self.comment, line: 0 }
    }
}

impl<'de> Deserialize<'de> for File {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Whole;
        impl<'de> Visitor<'de> for Whole {
            type Value = File;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(SHAPE)
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<File, A::Error> {
                let (mut file, mut names) = (Vec::new(), BTreeSet::new());
                while let Some((name, Plain(full))) = map.next_entry::<String, Plain>()? {
                    if full.name.is_some() || !names.insert(name.clone()) {
                        return Err(A::Error::custom("a name that is given already"));
                    }
                    file.push(full.entry(name));
                }
                Ok(File(file))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<File, A::Error> {
                let mut file = Vec::new();
                while let Some(mut full) = sequence.next_element::<Full>()? {
                    let name = full.name.take().ok_or_else(|| A::Error::missing_field("name"))?;
                    file.push(full.entry(name));
                }
                Ok(File(file))
            }
        }
        deserializer.deserialize_any(Whole)
    }
}

/// A value alone, or an object that holds it.
struct Plain(Full);

impl<'de> Deserialize<'de> for Plain {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Plain;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(SHAPE)
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Plain, E> {
                Ok(Plain(Full { name: None, value: text.to_owned(), scopes: None, comment: None }))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Plain, A::Error> {
                Full::deserialize(serde::de::value::MapAccessDeserializer::new(map)).map(Plain)
            }
        }
        deserializer.deserialize_any(Either)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_read_in_its_three_shapes() {
        let (workers, both) = (vec!["workers".to_owned()], vec!["workers".to_owned(), "ai_gateway".to_owned()]);
        for (text, wanted) in [
            (r#"{"A": "1", "B": "two\nlines"}"#, vec![("A", "1", None, None), ("B", "two\nlines", None, None)]),
            (
                r#"{"A": {"value": "1", "scopes": ["workers"], "comment": "c"}, "B": "2"}"#,
                vec![("A", "1", Some(&workers), Some("c")), ("B", "2", None, None)],
            ),
            (
                r#"[{"name": "A", "value": "1", "scopes": ["workers", "ai_gateway"]}, {"name": "B", "value": "2", "comment": ""}]"#,
                vec![("A", "1", Some(&both), None), ("B", "2", None, Some(""))],
            ),
        ] {
            let entries = parse(text).unwrap_or_else(|doubt| panic!("{text}: {doubt:?}"));
            let shown: Vec<_> = entries
                .iter()
                .map(|entry| {
                    (entry.name.as_str(), std::str::from_utf8(&entry.value).unwrap(), entry.scopes.as_ref(), entry.comment.as_deref())
                })
                .collect();
            assert_eq!(shown, wanted, "{text}");
        }
    }

    #[test]
    fn json_of_another_shape_is_refused_without_its_content() {
        for text in [
            r#"{"A": 5273}"#,
            r#"{"A": null}"#,
            r#"{"A": ["s3cret"]}"#,
            r#"{"A": {"value": "s3cret", "valeu": "s3cret"}}"#,
            r#"{"A": {"name": "B", "value": "s3cret"}}"#,
            r#"[{"value": "s3cret"}]"#,
            r#"["s3cret"]"#,
            r#""s3cret""#,
            r#"{"A": "s3cret""#,
            r#"{"A": "s3cret"} s3cret"#,
        ] {
            let doubt = parse(text).err().unwrap_or_else(|| panic!("{text} is accepted"));
            assert!(doubt.line == 1 && !doubt.what.contains("s3cret") && !doubt.what.contains("5273"), "{text}: {doubt:?}");
        }
    }
}
