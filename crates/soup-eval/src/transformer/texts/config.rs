//! What the `config.json` of every encoder of texts says.

use serde::Deserialize;
use serde_json::Value;
use soup_core::Result;

use crate::config::{Numbers, Settings, check_number, check_size, wrong};
use crate::kernels::Activation;
use crate::kind::{TextBatch, TextClassifier};
use crate::transformer::config::{activation, check_layers, check_pruned, check_share};

/// Most types of tokens: prepared texts have a byte for each.
const TYPES_MAX: usize = 256;

/// Sizes and options that all encoders of texts have.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TextConfig {
    pub(crate) hidden: usize,
    pub(crate) layers: usize,
    pub(crate) heads: usize,
    pub(crate) intermediate: usize,
    pub(crate) activation: Activation,
    pub(crate) epsilon: f64,
    /// Rows of the table of positions.
    pub(crate) positions_max: usize,
    pub(crate) positions: Positions,
    /// The token that pads, whose embedding is not learned.
    pub(crate) pad: Option<u32>,
    pub(crate) classifier: TextClassifier,
}

/// Which positions tokens have, and which of their embeddings are learned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Positions {
    /// 0, 1, 2 and so on.
    FromZero,
    /// The same, in a table that is a constant.
    Constant,
    /// From the id of the token that pads on, plus one; those that are this token have its id, and do not count.
    AfterPad(u32),
}

impl Positions {
    /// The position of every token; of those of no text, any.
    pub(crate) fn of(self, batch: &TextBatch) -> Vec<u32> {
        let mut positions = Vec::with_capacity(batch.ids.len());
        for rows in batch.texts.iter() {
            match self {
                Positions::FromZero | Positions::Constant => positions.extend(0..rows.len() as u32),
                Positions::AfterPad(pad) => {
                    let mut last = pad;
                    positions.extend(batch.ids[rows].iter().map(|&id| {
                        if id == pad {
                            return pad;
                        }
                        last += 1;
                        last
                    }));
                }
            }
        }
        positions.resize(batch.ids.len(), 0);
        positions
    }

    /// Tokens of the longest text that has positions below `positions_max`.
    pub(crate) fn longest(self, positions_max: usize) -> usize {
        match self {
            Positions::FromZero | Positions::Constant => positions_max,
            Positions::AfterPad(pad) => positions_max.saturating_sub(pad as usize + 1),
        }
    }
}

/// The file's own form; defaults are those of transformers' `BertConfig`.
#[derive(Deserialize)]
#[serde(default)]
struct Raw {
    vocab_size: usize,
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    intermediate_size: usize,
    hidden_act: String,
    max_position_embeddings: usize,
    type_vocab_size: usize,
    layer_norm_eps: f64,
    pad_token_id: Option<i64>,
}

impl Default for Raw {
    fn default() -> Self {
        Raw {
            vocab_size: 30_522,
            hidden_size: 768,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            intermediate_size: 3072,
            hidden_act: "gelu".to_owned(),
            max_position_embeddings: 512,
            type_vocab_size: 2,
            layer_norm_eps: 1e-12,
            pad_token_id: Some(0),
        }
    }
}

/// Options that make another model of it.
#[derive(Deserialize)]
struct RawOthers {
    position_embedding_type: Option<Value>,
    is_decoder: Option<Value>,
    add_cross_attention: Option<Value>,
    #[serde(default)]
    pruned_heads: Value,
}

impl TextConfig {
    /// The config of an encoder like BERT's.
    ///
    /// # Errors
    /// [`Data`](soup_core::ErrorKind::Data) where a value is out of range or not understood, or where there are no classes to tell apart.
    pub(crate) fn read(settings: &Settings) -> Result<TextConfig> {
        let raw = settings.read::<Raw>()?;
        check_size("vocab_size", raw.vocab_size)?;
        check_size("type_vocab_size", raw.type_vocab_size)?;
        if raw.type_vocab_size > TYPES_MAX {
            return Err(wrong(format!(
                "type_vocab_size is {}, expected 1 to {TYPES_MAX}",
                raw.type_vocab_size
            )));
        }
        let config = TextConfig {
            hidden: raw.hidden_size,
            layers: raw.num_hidden_layers,
            heads: raw.num_attention_heads,
            intermediate: raw.intermediate_size,
            activation: activation(&raw.hidden_act)?,
            epsilon: raw.layer_norm_eps,
            positions_max: raw.max_position_embeddings,
            positions: Positions::FromZero,
            pad: pad(raw.pad_token_id, raw.vocab_size)?,
            classifier: TextClassifier {
                classes: settings.classes_or_number()?,
                vocabulary: raw.vocab_size,
                types: Some(raw.type_vocab_size),
                tokenizer: "BertTokenizer",
                longest: raw.max_position_embeddings,
            },
        };
        config.checked(settings)
    }

    /// The same, if its sizes are possible and no option makes another model of it.
    ///
    /// # Errors
    /// [`Data`](soup_core::ErrorKind::Data), naming the option.
    pub(crate) fn checked(self, settings: &Settings) -> Result<TextConfig> {
        let sizes = [
            ("vocab_size", self.classifier.vocabulary),
            ("hidden_size", self.hidden),
            ("num_attention_heads", self.heads),
            ("intermediate_size", self.intermediate),
            ("max_position_embeddings", self.positions_max),
        ];
        sizes.into_iter().try_for_each(|(name, size)| check_size(name, size))?;
        check_layers(self.layers)?;
        check_number("layer_norm_eps", self.epsilon, Numbers::Epsilons)?;
        check_share(self.hidden, self.heads)?;
        let others = settings.read::<RawOthers>()?;
        check_pruned(&others.pruned_heads)?;
        let is =
            |value: &Option<Value>, usual: Value| value.as_ref().is_none_or(|v| v.is_null() || *v == usual);
        for (name, value, usual) in [
            ("position_embedding_type", &others.position_embedding_type, "absolute".into()),
            ("is_decoder", &others.is_decoder, false.into()),
            ("add_cross_attention", &others.add_cross_attention, false.into()),
        ] {
            if !is(value, Value::clone(&usual)) {
                let value = value.as_ref().unwrap_or(&Value::Null);
                return Err(wrong(format!("{name} is {value}: only {usual} is supported")));
            }
        }
        Ok(self)
    }

    /// The same with positions that begin after the token that pads.
    ///
    /// # Errors
    /// [`Data`](soup_core::ErrorKind::Data) where there is none, or no position is left.
    pub(crate) fn with_positions_after_pad(mut self) -> Result<TextConfig> {
        let pad = self.pad.ok_or_else(|| wrong("pad_token_id is null: positions begin after it"))?;
        self.positions = Positions::AfterPad(pad);
        self.classifier.longest = self.positions.longest(self.positions_max);
        if self.classifier.longest == 0 {
            return Err(wrong(format!(
                "max_position_embeddings is {}: positions begin after pad_token_id, {pad}, and none is left",
                self.positions_max
            )));
        }
        Ok(self)
    }
}

/// The token that pads.
///
/// # Errors
/// [`Data`](soup_core::ErrorKind::Data) where it is none of the vocabulary.
pub(crate) fn pad(id: Option<i64>, vocabulary: usize) -> Result<Option<u32>> {
    let Some(id) = id else { return Ok(None) };
    let known = u32::try_from(id).ok().filter(|&id| (id as usize) < vocabulary);
    match known {
        Some(id) => Ok(Some(id)),
        None => Err(wrong(format!(
            "pad_token_id is {id}, expected a token: 0 to {}",
            vocabulary.saturating_sub(1)
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::texts::Spans;

    fn read(json: &str) -> Result<TextConfig> {
        TextConfig::read(&Settings::parse(json)?)
    }

    fn error(json: &str) -> String {
        read(json).unwrap_err().chain()
    }

    #[test]
    fn an_empty_config_is_transformers_default() {
        let config = read("{}").unwrap();
        assert_eq!((config.hidden, config.layers, config.heads, config.intermediate), (768, 12, 12, 3072));
        assert_eq!((config.activation, config.epsilon, config.pad), (Activation::Gelu, 1e-12, Some(0)));
        let TextClassifier { vocabulary, types, longest, .. } = config.classifier;
        assert_eq!((vocabulary, types, longest), (30_522, Some(2), 512));
    }

    #[test]
    fn options_of_other_models_are_refused_by_name() {
        for (json, part) in [
            (r#"{"position_embedding_type": "relative_key"}"#, "position_embedding_type is \"relative_key\""),
            (r#"{"is_decoder": true}"#, "is_decoder is true"),
            (r#"{"add_cross_attention": true}"#, "add_cross_attention is true"),
            (r#"{"pruned_heads": {"0": [1]}}"#, "pruned_heads is"),
            (r#"{"hidden_act": "mish"}"#, "unknown hidden_act \"mish\""),
            (r#"{"hidden_size": 10, "num_attention_heads": 3}"#, "not a multiple"),
            (r#"{"vocab_size": 0}"#, "vocab_size is 0"),
            (r#"{"type_vocab_size": 0}"#, "type_vocab_size is 0"),
            (r#"{"type_vocab_size": 300}"#, "type_vocab_size is 300"),
            (r#"{"max_position_embeddings": 0}"#, "max_position_embeddings is 0"),
            (r#"{"pad_token_id": -1}"#, "pad_token_id is -1"),
            (r#"{"pad_token_id": 30522}"#, "pad_token_id is 30522"),
            (r#"{"layer_norm_eps": -1}"#, "layer_norm_eps is -1"),
            (r#"{"layer_norm_eps": 2147483648}"#, "layer_norm_eps is 2147483648"),
            (r#"{"num_hidden_layers": 5000}"#, "num_hidden_layers is 5000"),
            (r#"{"num_labels": 3, "problem_type": "regression"}"#, "predict one number"),
            (r#"{"problem_type": "multi_label_classification", "num_labels": 3}"#, "multi_label"),
        ] {
            assert!(error(json).contains(part), "{json}: {}", error(json));
        }
        for json in [
            r#"{"position_embedding_type": "absolute", "is_decoder": false, "pruned_heads": {}}"#,
            r#"{"position_embedding_type": null, "pad_token_id": null}"#,
        ] {
            assert!(read(json).is_ok(), "{json}");
        }
    }

    #[test]
    fn positions_begin_after_the_token_that_pads() {
        let ids: Vec<u32> = vec![7, 2, 8, 2, 9, 7, 8];
        let batch = TextBatch { types: ids.clone().into(), ids: ids.into(), texts: Spans::new([5, 2]) };
        assert_eq!(Positions::FromZero.of(&batch), [0, 1, 2, 3, 4, 0, 1]);
        assert_eq!(Positions::AfterPad(2).of(&batch), [3, 2, 4, 2, 5, 3, 4]);
        assert_eq!((Positions::FromZero.longest(9), Positions::AfterPad(2).longest(9)), (9, 6));
        let of = |json: &str| read(json).unwrap().with_positions_after_pad().map_err(|e| e.chain());
        assert_eq!(
            of(r#"{"pad_token_id": 1, "max_position_embeddings": 514}"#).unwrap().classifier.longest,
            512
        );
        assert!(of(r#"{"pad_token_id": null}"#).unwrap_err().contains("pad_token_id is null"));
        assert!(
            of(r#"{"pad_token_id": 5, "max_position_embeddings": 6}"#).unwrap_err().contains("none is left")
        );
    }
}
