//! Datasets as flags and cook files name them.
//!
//! The readers are visitors written by hand where a key may be a string or something larger: derived untagged enums
//! would say "did not match any variant" where people need to hear which key is unknown.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use soup_core::run::{DatasetOptions, DatasetSpec};

/// Most entries of a list in a cook file.
const ENTRIES_MAX: usize = 100_000;

/// A dataset without its name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct DatasetEntry {
    pub(crate) url: String,
    pub(crate) split: Option<String>,
    pub(crate) image_column: Option<String>,
    pub(crate) label_column: Option<String>,
    pub(crate) limit: Option<u64>,
    pub(crate) options: BTreeMap<String, String>,
}

/// The long form of a dataset.
#[derive(serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct DatasetFields {
    /// A Parquet file, a folder of them, a folder of images by class, or tar files of images; of texts also JSON lines or tab-separated values
    url: String,
    /// The split, where there are several: train, validation, test [default: the only one]
    split: Option<String>,
    /// Column of the images [default: found by its usual names]
    image_column: Option<String>,
    /// Column of the labels [default: found by its usual names]
    label_column: Option<String>,
    /// Use the first samples only
    limit: Option<u64>,
    /// What the judge is told besides, by its own names; of texts text-column and text-pair-column
    #[serde(default)]
    options: BTreeMap<String, String>,
}

/// What [`DatasetEntry`] reads, for the JSON schema.
#[derive(JsonSchema)]
#[serde(untagged)]
#[allow(dead_code)] // only its schema is used
enum DatasetForm {
    Url(String),
    Fields(DatasetFields),
}

/// What [`one_or_many`] reads, for the JSON schema.
#[derive(JsonSchema)]
#[serde(untagged)]
#[allow(dead_code)] // only its schema is used
pub(crate) enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl DatasetEntry {
    /// This dataset under a name. Its path is absolute.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](soup_core::ErrorKind::Usage) where URL and `split` name two splits.
    pub(crate) fn named(self, name: &str) -> soup_core::Result<DatasetSpec> {
        let DatasetEntry { url, split, image_column, label_column, limit, options: others } = self;
        let (url, in_url) = split_in(url);
        let named_split = match (split, in_url) {
            (Some(a), Some(b)) if a != b => {
                return Err(soup_core::Error::usage(format!(
                    "dataset {name:?} names two splits, {a:?} and {b:?}: name one"
                )));
            }
            (a, b) => a.or(b),
        };
        Ok(DatasetSpec {
            name: name.to_owned(),
            url,
            options: DatasetOptions { image_column, label_column, limit, split: None, named_split, others },
        })
    }
}

/// The place and the split in `PLACE#SPLIT`. `#` is also an ordinary character: a file that is called so is that file.
fn split_in(url: String) -> (String, Option<String>) {
    let named =
        |split: &str| !split.is_empty() && split.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '-');
    match url.rsplit_once('#') {
        Some((place, split)) if named(split) && !place.is_empty() && !std::path::Path::new(&url).exists() => {
            (place.to_owned(), Some(split.to_owned()))
        }
        _ => (url, None),
    }
}

impl FromStr for DatasetEntry {
    type Err = Infallible;
    fn from_str(url: &str) -> Result<Self, Infallible> {
        Ok(DatasetEntry { url: url.to_owned(), ..DatasetEntry::default() })
    }
}

impl<'de> Deserialize<'de> for DatasetEntry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl<'de> Visitor<'de> for Read {
            type Value = DatasetEntry;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a URL, or a map of url, split, image-column, label-column, limit and options")
            }
            fn visit_str<E>(self, url: &str) -> Result<DatasetEntry, E> {
                Ok(DatasetEntry { url: url.to_owned(), ..DatasetEntry::default() })
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<DatasetEntry, A::Error> {
                let fields = DatasetFields::deserialize(MapAccessDeserializer::new(map))?;
                let DatasetFields { url, split, image_column, label_column, limit, options } = fields;
                Ok(DatasetEntry { url, split, image_column, label_column, limit, options })
            }
        }
        deserializer.deserialize_any(Read)
    }
}

impl JsonSchema for DatasetEntry {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Dataset".into()
    }
    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        DatasetForm::json_schema(generator)
    }
}

/// Reads test sets, by name.
pub(crate) struct TestSets;

impl TestSets {
    /// `NAME=URL`, as a flag gives it.
    pub(crate) fn parse_one(text: &str) -> Result<(String, DatasetEntry), String> {
        match text.split_once('=') {
            Some((name, url)) if !name.is_empty() && !url.is_empty() => {
                Ok((name.to_owned(), DatasetEntry { url: url.to_owned(), ..DatasetEntry::default() }))
            }
            _ => Err(format!("{text:?} is not NAME=URL, such as sketch=data/sketch.parquet")),
        }
    }

    /// A map from name to dataset, in the file's order and without repeats.
    pub(crate) fn deserialize_map<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<(String, DatasetEntry)>, D::Error> {
        struct Read;
        impl<'de> Visitor<'de> for Read {
            type Value = Vec<(String, DatasetEntry)>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map from the name of a test set to its URL")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut sets: Vec<(String, DatasetEntry)> = Vec::new();
                while let Some((name, set)) = map.next_entry::<String, DatasetEntry>()? {
                    if sets.iter().any(|(known, _)| *known == name) {
                        return Err(A::Error::custom(format!("test set {name:?} is given twice")));
                    }
                    if sets.len() == soup_core::run::DATASETS_MAX {
                        return Err(A::Error::custom("too many test sets"));
                    }
                    sets.push((name, set));
                }
                Ok(sets)
            }
        }
        deserializer.deserialize_map(Read)
    }
}

/// Reads a string, or a list of strings.
pub(crate) fn one_or_many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    struct Read;
    impl<'de> Visitor<'de> for Read {
        type Value = Vec<String>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a URL, or a list of them")
        }
        fn visit_str<E>(self, one: &str) -> Result<Vec<String>, E> {
            Ok(vec![one.to_owned()])
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<String>, A::Error> {
            let mut many = Vec::new();
            while let Some(one) = seq.next_element()? {
                if many.len() == ENTRIES_MAX {
                    return Err(A::Error::custom(format!("a list has at most {ENTRIES_MAX} entries")));
                }
                many.push(one);
            }
            Ok(many)
        }
    }
    deserializer.deserialize_any(Read)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_split_is_named_after_the_place() {
        let check = |url: &str, place: &str, split: Option<&str>| {
            assert_eq!(split_in(url.to_owned()), (place.to_owned(), split.map(str::to_owned)), "{url}");
        };
        check("/data/cifar#validation", "/data/cifar", Some("validation"));
        check("s3://b/cifar#test", "s3://b/cifar", Some("test"));
        check("/data/a#b.parquet", "/data/a#b.parquet", None);
        check("/data/a#b/c", "/data/a#b/c", None);
        check("/data/a#", "/data/a#", None);
        let folder = tempfile::tempdir().unwrap();
        let literal = folder.path().join("a#b");
        std::fs::write(&literal, "").unwrap();
        let literal = literal.to_str().unwrap();
        check(literal, literal, None);
    }

    #[test]
    fn two_splits_are_one_too_many() {
        let entry =
            DatasetEntry { split: Some("test".into()), ..DatasetEntry::from_str("/d#train").unwrap() };
        assert!(entry.named("x").unwrap_err().chain().contains("two splits"));
    }
}
