//! `DistilBertForSequenceClassification` (Sanh et al., "DistilBERT, a distilled version of BERT"): an encoder of texts without types of
//! tokens, whose options have names of their own, and a classifier of two linear maps.

use burn::tensor::Tensor;
use serde::Deserialize;
use soup_core::Result;

use crate::architecture::Architecture;
use crate::config::Settings;
use crate::kernels::{Activation, Kernels};
use crate::kind::{TextBatch, TextClassifier, Texts};
use crate::parameters::visitor::{Form, Loaded, Visitor};
use crate::transformer::Linear;
use crate::transformer::config::activation;
use crate::transformer::texts::config::{Positions, TextConfig, pad};
use crate::transformer::texts::{Encoder, Names};

const NAMES: Names = Names {
    layers: "transformer.layer",
    query: "attention.q_lin",
    key: "attention.k_lin",
    value: "attention.v_lin",
    attended: "attention.out_lin",
    attended_norm: "sa_layer_norm",
    up: "ffn.lin1",
    down: "ffn.lin2",
    norm: "output_layer_norm",
};
/// Of all its normalisations; no option says another.
const EPSILON: f64 = 1e-12;

/// What `config.json` says about a `DistilBertForSequenceClassification`.
pub(crate) struct DistilBert(TextConfig);

/// A `DistilBertForSequenceClassification`.
pub(crate) struct DistilBertModel<F: Form> {
    encoder: Encoder<F>,
    pre_classifier: Linear<F>,
    classifier: Linear<F>,
}

/// The file's own form, with the names that transformers takes for the same; defaults are those of its `DistilBertConfig`.
#[derive(Deserialize)]
#[serde(default)]
struct Raw {
    vocab_size: usize,
    max_position_embeddings: usize,
    sinusoidal_pos_embds: bool,
    #[serde(alias = "num_hidden_layers")]
    n_layers: usize,
    #[serde(alias = "num_attention_heads")]
    n_heads: usize,
    #[serde(alias = "hidden_size")]
    dim: usize,
    hidden_dim: usize,
    activation: String,
    pad_token_id: Option<i64>,
}

impl Default for Raw {
    fn default() -> Self {
        Raw {
            vocab_size: 30_522,
            max_position_embeddings: 512,
            sinusoidal_pos_embds: false,
            n_layers: 6,
            n_heads: 12,
            dim: 768,
            hidden_dim: 3072,
            activation: "gelu".to_owned(),
            pad_token_id: Some(0),
        }
    }
}

impl Architecture for DistilBert {
    const NAME: &str = "DistilBertForSequenceClassification";
    const MODEL_TYPE: &str = "distilbert";
    const DEPTH: &str = "n_layers";

    type Kind = Texts;
    type Model<F: Form> = DistilBertModel<F>;

    fn from_json(text: &str) -> Result<Self> {
        let settings = Settings::parse(text)?;
        let raw = settings.read::<Raw>()?;
        let config = TextConfig {
            hidden: raw.dim,
            layers: raw.n_layers,
            heads: raw.n_heads,
            intermediate: raw.hidden_dim,
            activation: activation(&raw.activation)?,
            epsilon: EPSILON,
            positions_max: raw.max_position_embeddings,
            // They are in the checkpoint either way.
            positions: if raw.sinusoidal_pos_embds { Positions::Constant } else { Positions::FromZero },
            pad: pad(raw.pad_token_id, raw.vocab_size)?,
            classifier: TextClassifier {
                classes: settings.classes_or_number()?,
                vocabulary: raw.vocab_size,
                types: None,
                tokenizer: "DistilBertTokenizer",
                longest: raw.max_position_embeddings,
            },
        };
        Ok(DistilBert(config.checked(&settings)?))
    }

    fn classifier(&self) -> &TextClassifier {
        &self.0.classifier
    }

    fn parameters<V: Visitor>(&self, visitor: &mut V) -> Result<DistilBertModel<V::Form>> {
        let (hidden, outputs) = (self.0.hidden, self.0.classifier.outputs());
        Ok(DistilBertModel {
            encoder: Encoder::visit(visitor, "distilbert", &NAMES, &self.0)?,
            pre_classifier: Linear::visit(visitor, &["pre_classifier"], hidden, &[hidden], true)?,
            classifier: Linear::visit(visitor, &["classifier"], outputs, &[hidden], true)?,
        })
    }

    fn forward<B: Kernels>(&self, model: &DistilBertModel<Loaded<B>>, texts: TextBatch) -> Tensor<B, 2> {
        let state = model.encoder.first(&texts, &self.0);
        model.classifier.forward(model.pre_classifier.forward(state, Activation::Relu), Activation::Linear)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_config_is_transformers_default() {
        let DistilBert(config) = DistilBert::from_json("{}").unwrap();
        assert_eq!((config.hidden, config.layers, config.heads, config.intermediate), (768, 6, 12, 3072));
        assert_eq!((config.classifier.types, config.classifier.longest), (None, 512));
    }

    #[test]
    fn sizes_have_two_names_and_one_value() {
        let of = |json: &str| DistilBert::from_json(json).map(|d| d.0.hidden).map_err(|e| e.chain());
        assert_eq!((of(r#"{"dim": 24}"#), of(r#"{"hidden_size": 24}"#)), (Ok(24), Ok(24)));
        assert!(of(r#"{"dim": 24, "hidden_size": 36}"#).unwrap_err().contains("config.json"));
        assert!(of(r#"{"activation": "mish"}"#).unwrap_err().contains("mish"));
        assert!(of(r#"{"n_heads": 5}"#).unwrap_err().contains("not a multiple"));
    }
}
