//! `config.json`: its settings, and the classes that every classifier's names.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use soup_core::{Error, Result};

use crate::classes::Classes;
use crate::preprocess::ImageSize;

/// As many classes as ImageNet-21k, many times over.
const CLASSES_MAX: usize = 1 << 20;

#[derive(Deserialize, Clone, Copy)]
#[serde(untagged)]
pub(crate) enum OneOrTwo {
    One(usize),
    Two([usize; 2]),
}

impl From<OneOrTwo> for ImageSize {
    fn from(size: OneOrTwo) -> Self {
        match size {
            OneOrTwo::One(side) => ImageSize { height: side, width: side },
            OneOrTwo::Two([height, width]) => ImageSize { height, width },
        }
    }
}

/// The settings of a `config.json`.
pub(crate) struct Settings(Map<String, Value>);

/// Those that say which classes there are.
#[derive(Deserialize)]
struct RawClasses {
    id2label: Option<BTreeMap<String, Value>>,
    label2id: Option<BTreeMap<String, Value>>,
    num_labels: Option<usize>,
    problem_type: Option<String>,
}

impl Settings {
    /// # Errors
    /// [`Data`](soup_core::ErrorKind::Data) where `text` is no JSON object.
    pub(crate) fn parse(text: &str) -> Result<Settings> {
        serde_json::from_str(text).map(Settings).map_err(|e| wrong("not understood").with_source(e))
    }

    /// The settings, with `value` for `key` where the file does not say: what transformers takes then.
    pub(crate) fn or(mut self, key: &str, value: Value) -> Settings {
        self.0.entry(key).or_insert(value);
        self
    }

    /// Those that `T` knows of.
    ///
    /// # Errors
    /// [`Data`](soup_core::ErrorKind::Data) where one has a value of another type.
    pub(crate) fn read<T: DeserializeOwned>(&self) -> Result<T> {
        T::deserialize(&self.0).map_err(|e| wrong("not understood").with_source(e))
    }

    /// The classes.
    ///
    /// # Errors
    /// [`Data`](soup_core::ErrorKind::Data) where there are none to tell apart.
    pub(crate) fn classes(&self) -> Result<Classes> {
        let raw = self.read::<RawClasses>()?;
        let classes = Classes::new(labels(raw.id2label, raw.num_labels)?, &numbers(raw.label2id));
        check_problem(raw.problem_type.as_deref(), &classes)?;
        Ok(classes)
    }
}

pub(crate) fn wrong(text: impl std::fmt::Display) -> Error {
    Error::data(format!("config.json: {text}"))
}

/// Refuses what has no classes: all figures are about which class was predicted.
fn check_problem(problem_type: Option<&str>, classes: &Classes) -> Result<()> {
    if let Some(other) = problem_type.filter(|p| *p != "single_label_classification") {
        return Err(wrong(format!(
            "problem_type is {other:?}: only models that tell classes apart can be scored"
        )));
    }
    if classes.count() < 2 {
        return Err(wrong(
            "the model has one class (num_labels 1, a regression): every sample would count as right",
        ));
    }
    Ok(())
}

/// The ids in `label2id`, which some programs write as text; what is no id says nothing.
fn numbers(label2id: Option<BTreeMap<String, Value>>) -> BTreeMap<String, u32> {
    let number = |value: &Value| match value {
        Value::String(text) => text.parse().ok(),
        other => other.as_u64().and_then(|id| u32::try_from(id).ok()),
    };
    let pairs = label2id.unwrap_or_default();
    pairs.into_iter().filter_map(|(name, id)| Some((name, number(&id)?))).collect()
}

/// The class names in the order of their ids; transformers' default where neither field is there: two classes.
fn labels(id2label: Option<BTreeMap<String, Value>>, num_labels: Option<usize>) -> Result<Vec<String>> {
    let count = id2label.as_ref().map(BTreeMap::len).or(num_labels).unwrap_or(2);
    if count == 0 {
        return Err(wrong("num_labels is 0: there is no classifier to evaluate"));
    }
    if count > CLASSES_MAX {
        return Err(wrong(format!("{count} classes are too many, expected at most {CLASSES_MAX}")));
    }
    let Some(id2label) = id2label else {
        return Ok((0..count).map(|id| format!("LABEL_{id}")).collect());
    };
    (0..count)
        .map(|id| match id2label.get(&id.to_string()) {
            Some(Value::String(name)) => Ok(name.clone()),
            Some(other) => Ok(other.to_string()),
            None => Err(wrong(format!("id2label has {count} entries but none for class {id}"))),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn classes(json: &str) -> Result<Classes> {
        Settings::parse(json)?.classes()
    }

    #[test]
    fn labels_come_by_id_not_by_text() {
        let ids: Vec<String> = (0..11).map(|i| format!("\"{i}\": \"c{i}\"")).collect();
        let classes = classes(&format!("{{\"id2label\": {{{}}}}}", ids.join(","))).unwrap();
        assert_eq!(classes.names()[2], "c2");
        assert_eq!(classes.names()[10], "c10");
    }

    #[test]
    fn what_cannot_classify_is_refused() {
        let error = |json: &str| classes(json).unwrap_err().chain();
        assert!(error(r#"{"id2label": {}}"#).contains("num_labels is 0"));
        assert!(error(r#"{"num_labels": 0}"#).contains("num_labels is 0"));
        assert!(error(r#"{"num_labels": 1}"#).contains("one class"));
        assert!(error(r#"{"id2label": {"0": "price"}}"#).contains("a regression"));
        for problem in ["regression", "multi_label_classification"] {
            let config = format!(r#"{{"problem_type": "{problem}", "num_labels": 3}}"#);
            assert!(error(&config).contains(problem));
        }
        assert!(error(r#"{"id2label": {"1": "a"}}"#).contains("none for class 0"));
        assert!(error("[]").contains("config.json"));
    }
}
