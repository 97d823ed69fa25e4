//! How the texts of a run become tokens: what everybody who judges is told.
//!
//! A `tokenizer.json` is too large for records and messages. What is told is where it is and what is in it: whoever reads it compares
//! size and SHA-256. This document takes the place of a `preprocessor_config.json`, where the model is one of texts.

pub mod added;
pub mod anew;
pub mod weight;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use self::added::TokenizerCompanions;
use self::weight::Weight;
use crate::companion::is_open_clip;
use crate::error::{Error, Result};

/// What the names of architectures that tell classes of texts apart end in.
const OF_TEXTS: &str = "ForSequenceClassification";
/// The one that does so by what it answers.
const ANSWERS: &str = "T5ForConditionalGeneration";
/// Its model type.
const ANSWERS_TYPE: &str = "t5";
/// Model types that are meant so where no architecture is named.
const MODEL_TYPES: [&str; 4] = ["bert", "roberta", "distilbert", ANSWERS_TYPE];

/// What people should know of a tokenizer, by the files beside it: of tokens that transformers would [add](added), and of parts that it makes
/// [anew]. What is too much to read is said by whoever has to read it.
///
/// # Errors
/// [`Data`](crate::ErrorKind::Data) where transformers itself, when it saved the model, made another tokenizer of the file.
pub fn tokenizer_notes(files: TokenizerCompanions<'_>) -> Result<Vec<String>> {
    if Weight::of(files.tokenizer).is_err() {
        return Ok(Vec::new());
    }
    let mut notes = added::notes(files);
    notes.extend(anew::check(files)?);
    Ok(notes)
}

/// Which class a model that answers in words is taken to say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Decoding {
    /// The class whose label is the most probable answer.
    #[default]
    Labels,
    /// The class whose label the model writes where each token is the most probable one; none, where it writes anything else.
    Greedy,
}

impl Decoding {
    /// All of them.
    pub const ALL: [Decoding; 2] = [Decoding::Labels, Decoding::Greedy];

    /// The name in options, messages and records.
    pub fn name(self) -> &'static str {
        match self {
            Decoding::Labels => "labels",
            Decoding::Greedy => "greedy",
        }
    }

    /// The one of that name.
    pub fn from_name(name: &str) -> Option<Decoding> {
        Self::ALL.into_iter().find(|one| one.name() == name)
    }

    /// Whether it is what is done unless told otherwise.
    pub fn is_labels(&self) -> bool {
        *self == Decoding::Labels
    }
}

/// Architectures that compare images with texts.
const OF_PROMPTS: [&str; 2] = ["CLIPModel", "AlignModel"];
/// The model type that is meant so where no architecture is named: that of CLIP may also have a classifier.
const PROMPTS_MODEL_TYPE: &str = "align";

/// The document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextProcessing {
    /// The `tokenizer.json`.
    pub tokenizer: PinnedFile,
    /// Text of the `tokenizer_config.json` beside it, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokenizer_config: Option<String>,
    /// What becomes of answers, of a model that answers in words.
    #[serde(default, skip_serializing_if = "Decoding::is_labels")]
    pub decoding: Decoding,
}

/// The document of a model that compares images with texts: how both become what it takes, and which texts there are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PromptProcessing {
    /// Text of the `preprocessor_config.json`; empty where the model's own file says it.
    pub images: String,
    /// How the prompts become tokens.
    pub texts: TextProcessing,
    /// Text of the `prompts.json`.
    pub prompts: String,
}

/// A file by what is in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PinnedFile {
    /// Where it is.
    pub url: String,
    /// Its size.
    pub size_bytes: u64,
    /// The SHA-256 of its content, in hexadecimal digits.
    pub sha256: String,
}

impl TextProcessing {
    /// The document as it is told.
    ///
    /// # Errors
    /// [`Internal`](crate::ErrorKind::Internal) where it cannot be written.
    pub fn to_json(&self) -> Result<String> {
        serde_json::to_string(self)
            .map_err(|e| Error::internal("how texts become tokens could not be written").with_source(e))
    }

    /// # Errors
    /// [`Data`](crate::ErrorKind::Data) where it is none.
    pub fn parse(text: &str) -> Result<TextProcessing> {
        serde_json::from_str(text)
            .map_err(|e| Error::data("how texts become tokens is not understood").with_source(e))
    }
}

impl PromptProcessing {
    /// As [`TextProcessing::to_json`].
    ///
    /// # Errors
    /// As there.
    pub fn to_json(&self) -> Result<String> {
        serde_json::to_string(self)
            .map_err(|e| Error::internal("what the prompts are could not be written").with_source(e))
    }

    /// # Errors
    /// [`Data`](crate::ErrorKind::Data) where it is none.
    pub fn parse(text: &str) -> Result<PromptProcessing> {
        serde_json::from_str(text)
            .map_err(|e| Error::data("what the prompts are is not understood").with_source(e))
    }
}

/// Whether the model of a `config.json` compares images with texts, and has no classes but those that prompts tell of.
pub fn is_of_prompts(config_json: &str) -> bool {
    let config = serde_json::from_str::<Value>(config_json).unwrap_or_default();
    if is_open_clip(&config) {
        return true;
    }
    match config["architectures"].get(0).and_then(Value::as_str) {
        Some(architecture) => OF_PROMPTS.contains(&architecture),
        None => config["model_type"].as_str() == Some(PROMPTS_MODEL_TYPE),
    }
}

/// Whether the model of a `config.json` answers in words.
pub fn answers(config_json: &str) -> bool {
    let config = serde_json::from_str::<Value>(config_json).unwrap_or_default();
    match config["architectures"].get(0).and_then(Value::as_str) {
        Some(architecture) => architecture == ANSWERS,
        None => config["model_type"] == ANSWERS_TYPE,
    }
}

/// Whether the model of a `config.json` looks at texts and tells their classes apart.
pub fn is_of_texts(config_json: &str) -> bool {
    let Ok(config) = serde_json::from_str::<Value>(config_json) else { return false };
    match config["architectures"].get(0).and_then(Value::as_str) {
        Some(architecture) => architecture.ends_with(OF_TEXTS) || architecture == ANSWERS,
        None => config["model_type"].as_str().is_some_and(|of| MODEL_TYPES.contains(&of)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_of_texts_are_told_by_their_architecture() {
        for (config, is) in [
            (r#"{"architectures": ["BertForSequenceClassification"], "model_type": "bert"}"#, true),
            (r#"{"model_type": "distilbert"}"#, true),
            (r#"{"architectures": ["T5ForConditionalGeneration"]}"#, true),
            (r#"{"model_type": "t5"}"#, true),
            (r#"{"architectures": ["MT5ForConditionalGeneration"]}"#, false),
            (r#"{"architectures": ["BertModel"], "model_type": "bert"}"#, false),
            (r#"{"architectures": ["ViTForImageClassification"]}"#, false),
            ("{}", false),
            ("", false),
        ] {
            assert_eq!(is_of_texts(config), is, "{config}");
            assert_eq!(answers(config), is && config.to_lowercase().contains("t5"), "{config}");
        }
    }

    #[test]
    fn models_of_prompts_are_told_by_their_architecture() {
        for config in [
            r#"{"architectures": ["CLIPModel"], "model_type": "clip"}"#,
            r#"{"architectures": ["AlignModel"]}"#,
            r#"{"model_type": "align"}"#,
            r#"{"model_cfg": {"embed_dim": 512}}"#,
        ] {
            assert!(is_of_prompts(config), "{config}");
        }
        for config in
            [r#"{"architectures": ["CLIPForImageClassification"]}"#, r#"{"model_type": "clip"}"#, "[]", ""]
        {
            assert!(!is_of_prompts(config), "{config}");
        }
    }

    #[test]
    fn a_document_is_read_as_it_was_written() {
        let tokenizer = PinnedFile { url: "/p/tokenizer.json".into(), size_bytes: 7, sha256: "ab".into() };
        let document =
            TextProcessing { tokenizer, tokenizer_config: Some("{}".into()), decoding: Decoding::Labels };
        assert_eq!(TextProcessing::parse(&document.to_json().unwrap()).unwrap(), document);
        // What was kept of a run before there was a choice is what it was.
        assert!(!document.to_json().unwrap().contains("decoding"));
        let greedy = TextProcessing { decoding: Decoding::Greedy, ..document.clone() };
        assert_eq!(TextProcessing::parse(&greedy.to_json().unwrap()).unwrap(), greedy);
        let texts = document;
        let document = PromptProcessing { images: "{}".into(), texts, prompts: "{}".into() };
        assert_eq!(PromptProcessing::parse(&document.to_json().unwrap()).unwrap(), document);
        let error = TextProcessing::parse(r#"{"do_resize": true}"#).unwrap_err();
        assert!(error.chain().starts_with("how texts become tokens is not understood"), "{}", error.chain());
    }
}
