//! `RobertaForSequenceClassification` (Liu et al., "RoBERTa: A robustly optimized BERT pretraining approach"): BERT's encoder with
//! positions that begin after the token that pads, and a classifier of two linear maps.

use burn::tensor::Tensor;
use serde_json::json;
use soup_core::Result;

use super::bert::NAMES;
use crate::architecture::Architecture;
use crate::config::Settings;
use crate::kernels::{Activation, Kernels};
use crate::kind::{TextBatch, TextClassifier, Texts};
use crate::parameters::visitor::{Form, Loaded, Visitor};
use crate::transformer::Linear;
use crate::transformer::texts::Encoder;
use crate::transformer::texts::config::TextConfig;

/// What `config.json` says about a `RobertaForSequenceClassification`.
pub(crate) struct Roberta(TextConfig);

/// A `RobertaForSequenceClassification`.
pub(crate) struct RobertaModel<F: Form> {
    encoder: Encoder<F>,
    dense: Linear<F>,
    projection: Linear<F>,
}

impl Architecture for Roberta {
    const NAME: &str = "RobertaForSequenceClassification";
    const MODEL_TYPE: &str = "roberta";

    type Kind = Texts;
    type Model<F: Form> = RobertaModel<F>;

    fn from_json(text: &str) -> Result<Self> {
        let settings = Settings::parse(text)?.or("vocab_size", json!(50_265)).or("pad_token_id", json!(1));
        let mut config = TextConfig::read(&settings)?.with_positions_after_pad()?;
        // It gives no types, as most checkpoints have but one.
        config.classifier.tokenizer = "RobertaTokenizer";
        Ok(Roberta(config))
    }

    fn classifier(&self) -> &TextClassifier {
        &self.0.classifier
    }

    fn parameters<V: Visitor>(&self, visitor: &mut V) -> Result<RobertaModel<V::Form>> {
        let (hidden, outputs) = (self.0.hidden, self.0.classifier.outputs());
        Ok(RobertaModel {
            encoder: Encoder::visit(visitor, "roberta", &NAMES, &self.0)?,
            dense: Linear::visit(visitor, &["classifier.dense"], hidden, &[hidden], true)?,
            projection: Linear::visit(visitor, &["classifier.out_proj"], outputs, &[hidden], true)?,
        })
    }

    fn forward<B: Kernels>(&self, model: &RobertaModel<Loaded<B>>, texts: TextBatch) -> Tensor<B, 2> {
        let state = model.encoder.first(&texts, &self.0);
        model.projection.forward(model.dense.forward(state, Activation::Tanh), Activation::Linear)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_config_is_transformers_default() {
        let Roberta(config) = Roberta::from_json("{}").unwrap();
        let TextClassifier { vocabulary, types, longest, .. } = config.classifier;
        assert_eq!((vocabulary, types, longest, config.pad), (50_265, Some(2), 510, Some(1)));
    }
}
