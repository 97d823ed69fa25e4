//! Names that come twice in one object of a JSON document: readers take one or the other, and which was meant is not known.

use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

/// The first name that comes twice in one object of `json`. What is no JSON is for others to refuse.
pub fn named_twice(json: &[u8]) -> Option<String> {
    let mut found = None;
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    // What was found before an error counts.
    let _ = Names(&mut found).deserialize(&mut deserializer);
    found
}

/// Looks through a value.
struct Names<'a>(&'a mut Option<String>);

impl<'de> DeserializeSeed<'de> for Names<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Names<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while items.next_element_seed(Names(&mut *self.0))?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut seen = HashSet::new();
        while let Some(name) = map.next_key::<String>()? {
            if seen.contains(&name) {
                self.0.get_or_insert(name);
            } else {
                seen.insert(name);
            }
            map.next_value_seed(Names(&mut *self.0))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_comes_twice_is_found_at_any_depth() {
        let found = |json: &str| named_twice(json.as_bytes());
        assert_eq!(
            found(r#"{"a": 1, "b": -2.5, "c": null, "d": [true, "a", {"a": 1}], "e": {"a": 1}}"#),
            None
        );
        assert_eq!(found(r#"{"a": 1, "b": 2, "a": 1}"#).as_deref(), Some("a"));
        assert_eq!(found(r#"{"x": [{"id2label": {"0": "cat", "0": "dog"}}]}"#).as_deref(), Some("0"));
        assert_eq!(found(r#"{"a\u0062": 1, "ab": 2}"#).as_deref(), Some("ab"));
        assert_eq!(found("{"), None);
        assert_eq!(found("3"), None);
    }
}
