//! `BertForSequenceClassification` (Devlin et al., "BERT: Pre-training of deep bidirectional transformers for language
//! understanding"): an encoder of texts, a pooler of its first token, and a linear classifier.

use burn::tensor::Tensor;
use soup_core::Result;

use crate::architecture::Architecture;
use crate::config::Settings;
use crate::kernels::{Activation, Kernels};
use crate::kind::{TextBatch, TextClassifier, Texts};
use crate::parameters::visitor::{Form, Loaded, Visitor};
use crate::transformer::Linear;
use crate::transformer::texts::config::TextConfig;
use crate::transformer::texts::{Encoder, Names};

/// What the tensors of the encoder are called; those of RoBERTa are called the same.
pub(crate) const NAMES: Names = Names {
    layers: "encoder.layer",
    query: "attention.self.query",
    key: "attention.self.key",
    value: "attention.self.value",
    attended: "attention.output.dense",
    attended_norm: "attention.output.LayerNorm",
    up: "intermediate.dense",
    down: "output.dense",
    norm: "output.LayerNorm",
};

/// What `config.json` says about a `BertForSequenceClassification`.
pub(crate) struct Bert(TextConfig);

/// A `BertForSequenceClassification`.
pub(crate) struct BertModel<F: Form> {
    encoder: Encoder<F>,
    pooler: Linear<F>,
    classifier: Linear<F>,
}

impl Architecture for Bert {
    const NAME: &str = "BertForSequenceClassification";
    const MODEL_TYPE: &str = "bert";

    type Kind = Texts;
    type Model<F: Form> = BertModel<F>;

    fn from_json(text: &str) -> Result<Self> {
        Ok(Bert(TextConfig::read(&Settings::parse(text)?)?))
    }

    fn classifier(&self) -> &TextClassifier {
        &self.0.classifier
    }

    fn parameters<V: Visitor>(&self, visitor: &mut V) -> Result<BertModel<V::Form>> {
        let (hidden, outputs) = (self.0.hidden, self.0.classifier.outputs());
        Ok(BertModel {
            encoder: Encoder::visit(visitor, "bert", &NAMES, &self.0)?,
            pooler: Linear::visit(visitor, &["bert.pooler.dense"], hidden, &[hidden], true)?,
            classifier: Linear::visit(visitor, &["classifier"], outputs, &[hidden], true)?,
        })
    }

    fn forward<B: Kernels>(&self, model: &BertModel<Loaded<B>>, texts: TextBatch) -> Tensor<B, 2> {
        let state = model.encoder.first(&texts, &self.0);
        let pooled = model.pooler.forward(state, Activation::Tanh);
        model.classifier.forward(pooled, Activation::Linear)
    }
}
