//! What every `config.json` of a classifier says: sizes and classes.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;
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

pub(crate) fn wrong(text: impl std::fmt::Display) -> Error {
    Error::data(format!("config.json: {text}"))
}

/// Refuses what has no classes: all figures are about which class was predicted.
pub(crate) fn check_problem(problem_type: Option<&str>, classes: &Classes) -> Result<()> {
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
pub(crate) fn numbers(label2id: Option<BTreeMap<String, Value>>) -> BTreeMap<String, u32> {
    let number = |value: &Value| match value {
        Value::String(text) => text.parse().ok(),
        other => other.as_u64().and_then(|id| u32::try_from(id).ok()),
    };
    let pairs = label2id.unwrap_or_default();
    pairs.into_iter().filter_map(|(name, id)| Some((name, number(&id)?))).collect()
}

/// The class names in the order of their ids; transformers' default where neither field is there: two classes.
pub(crate) fn labels(
    id2label: Option<BTreeMap<String, Value>>,
    num_labels: Option<usize>,
) -> Result<Vec<String>> {
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
