//! `config.json`: its settings, and what every classifier says in it.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use soup_core::{Error, Result};

use crate::classes::Classes;
use crate::preprocess::ImageSize;

/// Largest value of any size in a config: bounds every product of two of them.
const SIZE_MAX: usize = 1 << 20;
/// As many classes as ImageNet-21k, many times over.
const CLASSES_MAX: usize = 1 << 20;

/// The side of a square, or height and width.
#[derive(Deserialize, Clone, Copy)]
#[serde(untagged)]
pub(crate) enum OneOrTwo {
    One(usize),
    Two([usize; 2]),
}

impl OneOrTwo {
    /// Height and width, of the setting `name`.
    ///
    /// # Errors
    /// As [`check_size`].
    pub(crate) fn checked(self, name: &str) -> Result<ImageSize> {
        let (height, width) = match self {
            OneOrTwo::One(side) => (side, side),
            OneOrTwo::Two([height, width]) => (height, width),
        };
        check_size(name, height)?;
        check_size(name, width)?;
        Ok(ImageSize { height, width })
    }
}

/// The settings of a `config.json`.
pub(crate) struct Settings(Map<String, Value>);

/// What goes into a classifier of images, and what comes out.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ImageClassifier {
    /// Height and width of the images that it takes: `image_size`, unless it was [resized](crate::architecture::Architecture::resized).
    pub(crate) image: ImageSize,
    /// 1 (grey) or 3 (RGB).
    pub(crate) channels: usize,
    pub(crate) classes: Classes,
}

/// The file's own form of what goes in; defaults are those of transformers' configs.
#[derive(Deserialize)]
struct RawImages {
    #[serde(default = "RawImages::image_size")]
    image_size: OneOrTwo,
    #[serde(default = "RawImages::num_channels")]
    num_channels: usize,
}

impl RawImages {
    fn image_size() -> OneOrTwo {
        OneOrTwo::One(224)
    }

    fn num_channels() -> usize {
        3
    }
}

/// The settings that [`RawClasses`] has.
const OF_CLASSES: [&str; 4] = ["id2label", "label2id", "num_labels", "problem_type"];

/// The file's own form of what comes out.
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

    /// Those of another file, in these words.
    pub(crate) fn of(settings: Map<String, Value>) -> Settings {
        Settings(settings)
    }

    /// The settings, with `value` for `key` where the file does not say: what transformers takes then.
    pub(crate) fn or(mut self, key: &str, value: Value) -> Settings {
        self.0.entry(key).or_insert(value);
        self
    }

    /// The settings of a part of the model, the object `key`: what they say of classes is what the whole's say. `None` where there is no
    /// such object.
    ///
    /// # Errors
    /// [`Data`](soup_core::ErrorKind::Data) where it is something else.
    pub(crate) fn part(&self, key: &str) -> Result<Option<Settings>> {
        let mut part = match self.0.get(key) {
            None | Some(Value::Null) => return Ok(None),
            Some(Value::Object(part)) => part.clone(),
            Some(other) => return Err(wrong(format!("{key} is {other}, expected settings"))),
        };
        for key in OF_CLASSES {
            part.remove(key);
            part.extend(self.0.get(key).map(|value| (key.to_owned(), value.clone())));
        }
        Ok(Some(Settings(part)))
    }

    /// Those that `T` knows of.
    ///
    /// # Errors
    /// [`Data`](soup_core::ErrorKind::Data) where one has a value of another type.
    pub(crate) fn read<T: DeserializeOwned>(&self) -> Result<T> {
        T::deserialize(&self.0).map_err(|e| wrong("not understood").with_source(e))
    }

    /// What the file says of every classifier of images.
    ///
    /// # Errors
    /// [`Data`](soup_core::ErrorKind::Data) where a value is out of range, or where there are no classes to tell apart.
    pub(crate) fn classifier(&self) -> Result<ImageClassifier> {
        let raw = self.read::<RawImages>()?;
        let (image, channels) = (raw.image_size.checked("image_size")?, raw.num_channels);
        if channels != 1 && channels != 3 {
            return Err(wrong(format!("num_channels is {channels}, expected 1 (grey) or 3 (RGB)")));
        }
        Ok(ImageClassifier { image, channels, classes: self.classes_or_number()? })
    }

    /// The classes that the file tells of.
    ///
    /// # Errors
    /// [`Data`](soup_core::ErrorKind::Data) where there are none to tell apart.
    pub(crate) fn classes(&self) -> Result<Classes> {
        let classes = self.classes_or_number()?;
        match classes.is_empty() {
            false => Ok(classes),
            true => Err(wrong(
                "the model predicts a number (a regression, num_labels 1), and such a model is judged by classes alone",
            )),
        }
    }

    /// The same; none where the model predicts a number, as transformers tells a regression: by one label, or by its problem's type.
    ///
    /// # Errors
    /// [`Data`](soup_core::ErrorKind::Data) where there is neither.
    pub(crate) fn classes_or_number(&self) -> Result<Classes> {
        let raw = self.read::<RawClasses>()?;
        let classes = Classes::new(labels(raw.id2label, raw.num_labels)?, &numbers(raw.label2id));
        match (raw.problem_type.as_deref(), classes.count()) {
            (None | Some("regression"), 1) => Ok(Classes::none()),
            (Some("regression"), more) => Err(wrong(format!(
                "problem_type is \"regression\" and num_labels {more}: models that predict one number can be scored"
            ))),
            (None | Some("single_label_classification"), 2..) => Ok(classes),
            (None | Some("single_label_classification"), _) => {
                Err(wrong("the model tells one class (num_labels 1): every sample would count as right"))
            }
            (Some(other), _) => Err(wrong(format!(
                "problem_type is {other:?}: only models that tell classes apart or predict a number can be scored"
            ))),
        }
    }
}

impl ImageClassifier {
    /// Logits of an image.
    pub(crate) fn outputs(&self) -> usize {
        self.classes.outputs()
    }
}

/// # Errors
/// [`Data`](soup_core::ErrorKind::Data) where the setting `name` is 0 or larger than any model's.
pub(crate) fn check_size(name: &str, size: usize) -> Result<()> {
    match size {
        1..=SIZE_MAX => Ok(()),
        _ => Err(wrong(format!("{name} is {size}, expected 1 to {SIZE_MAX}"))),
    }
}

/// Numbers that a setting can be which is no size.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Numbers {
    /// What is added to a variance, so that there is something to divide by. Models are published with 1e-12 to 1e-3.
    Epsilons,
    /// What a size is multiplied by.
    Factors,
}

impl Numbers {
    /// What is expected in the place of a value that is none of them.
    pub(crate) fn expected_for(self, value: f64) -> Option<&'static str> {
        let (is_one, expected) = match self {
            Numbers::Epsilons => (value > 0.0 && value < 1.0, "a small positive number, below 1"),
            Numbers::Factors => (value > 0.0 && value <= 1e4, "a positive number of at most 10000"),
        };
        (!is_one).then_some(expected)
    }
}

/// # Errors
/// [`Data`](soup_core::ErrorKind::Data) where the setting `name` is none of these numbers: it cannot be meant, and what a model with it says
/// of samples is as good as chance.
pub(crate) fn check_number(name: &str, value: f64, numbers: Numbers) -> Result<()> {
    match numbers.expected_for(value) {
        None => Ok(()),
        Some(expected) => Err(wrong(format!("{name} is {value}, expected {expected}"))),
    }
}

pub(crate) fn wrong(text: impl std::fmt::Display) -> Error {
    Error::data(format!("config.json: {text}"))
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
        Ok(Settings::parse(json)?.classifier()?.classes)
    }

    #[test]
    fn numbers_that_cannot_be_meant_are_refused_with_name_and_value() {
        for epsilon in [1e-12, 1e-6, 1e-5, 1e-3, 0.05] {
            assert!(check_number("layer_norm_eps", epsilon, Numbers::Epsilons).is_ok(), "{epsilon}");
        }
        for epsilon in [0.0, -1e-6, 1.0, 2_147_483_648.0, f64::INFINITY, f64::NAN] {
            let error = check_number("layer_norm_eps", epsilon, Numbers::Epsilons).unwrap_err().chain();
            assert!(
                error.contains(&format!("config.json: layer_norm_eps is {epsilon}, expected")),
                "{error}"
            );
        }
        for factor in [0.25, 2.6667, 4.0] {
            assert!(check_number("mlp_ratio", factor, Numbers::Factors).is_ok(), "{factor}");
        }
        for factor in [0.0, -4.0, 1e5, f64::INFINITY, f64::NAN] {
            let error = check_number("mlp_ratio", factor, Numbers::Factors).unwrap_err().chain();
            assert!(error.contains(&format!("mlp_ratio is {factor}, expected")), "{error}");
        }
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
        // Where nothing but classes will do.
        let numberless = Settings::parse(r#"{"num_labels": 1}"#).unwrap().classes().unwrap_err();
        assert!(numberless.chain().contains("predicts a number"));
        let one_class = r#"{"num_labels": 1, "problem_type": "single_label_classification"}"#;
        assert!(error(one_class).contains("one class"));
        let number = |json: &str| classes(json).map(|c| c.is_empty());
        for json in [
            r#"{"num_labels": 1}"#,
            r#"{"id2label": {"0": "price"}}"#,
            r#"{"id2label": {"0": "LABEL_0"}, "problem_type": "regression"}"#,
        ] {
            assert_eq!(number(json).ok(), Some(true), "{json}");
        }
        assert_eq!(number("{}").ok(), Some(false));
        for problem in ["regression", "multi_label_classification"] {
            let config = format!(r#"{{"problem_type": "{problem}", "num_labels": 3}}"#);
            assert!(error(&config).contains(problem));
        }
        assert!(error(r#"{"id2label": {"1": "a"}}"#).contains("none for class 0"));
        assert!(error(r#"{"num_channels": 4}"#).contains("num_channels is 4"));
        assert!(error(r#"{"image_size": 9999999999999}"#).contains("image_size"));
        assert!(error(r#"{"image_size": [224, 0]}"#).contains("image_size is 0"));
        assert!(error("[]").contains("config.json"));
    }
}
