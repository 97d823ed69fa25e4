//! `ViTForImageClassification`: tokens of patches and one for the whole, layers that normalise first, and a linear
//! classifier of the token for the whole.
//!
//! The encoder serves `DeiTForImageClassification` too, which differs in its tokens and heads.

use burn::tensor::Tensor;
use serde::Deserialize;
use soup_core::Result;

use crate::architecture::Architecture;
use crate::config::{ImageClassifier, Settings, check_size};
use crate::kernels::{Activation, Kernels};
use crate::kind::Images;
use crate::parameters::visitor::{Form, Loaded, Visitor};
use crate::transformer::config::{TransformerConfig, activation};
use crate::transformer::layer::{Layers, MlpConfig, Names};
use crate::transformer::{Embedding, LayerNorm, Linear, Maps};

/// What `config.json` says about a `ViTForImageClassification`.
pub(crate) struct Vit {
    encoder: EncoderConfig,
}

/// A `ViTForImageClassification`.
pub(crate) struct VitModel<F: Form> {
    encoder: Encoder<F>,
    classifier: Linear<F>,
}

impl Architecture for Vit {
    const NAME: &str = "ViTForImageClassification";
    const MODEL_TYPE: &str = "vit";

    type Kind = Images;
    type Model<F: Form> = VitModel<F>;

    fn from_json(text: &str) -> Result<Self> {
        Ok(Vit { encoder: EncoderConfig::read(&Settings::parse(text)?)? })
    }

    fn classifier(&self) -> &ImageClassifier {
        &self.encoder.transformer.classifier
    }

    fn parameters<V: Visitor>(&self, visitor: &mut V) -> Result<VitModel<V::Form>> {
        let config = &self.encoder.transformer;
        Ok(VitModel {
            encoder: Encoder::visit(visitor, "vit", &["cls_token"], &self.encoder)?,
            classifier: Linear::classifier(visitor, "classifier", config.hidden, &config.classifier)?,
        })
    }

    fn forward<B: Kernels>(&self, model: &VitModel<Loaded<B>>, pixels: Tensor<B, 4>) -> Tensor<B, 2> {
        let state = model.encoder.forward(pixels, 1, &self.encoder);
        model.classifier.forward(state, Activation::Linear)
    }
}

/// What `config.json` says about an encoder.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct EncoderConfig {
    pub(crate) transformer: TransformerConfig,
    mlp: MlpConfig,
}

/// What the tensors of a layer are called.
const LAYER: Names = Names {
    norm1: "layernorm_before",
    maps: Maps::Apart(["attention.attention.query", "attention.attention.key", "attention.attention.value"]),
    attended: "attention.output.dense",
    norm2: "layernorm_after",
    up: "intermediate.dense",
    down: "output.dense",
    scales: None,
};

/// The file's own form of what not all transformers have; defaults are those of transformers' `ViTConfig`.
#[derive(Deserialize)]
#[serde(default)]
struct Raw {
    intermediate_size: usize,
    hidden_act: String,
}

impl Default for Raw {
    fn default() -> Self {
        Raw { intermediate_size: 3072, hidden_act: "gelu".to_owned() }
    }
}

impl EncoderConfig {
    /// # Errors
    /// [`Data`](soup_core::ErrorKind::Data) where a value is out of range or not understood.
    pub(crate) fn read(settings: &Settings) -> Result<EncoderConfig> {
        let transformer = TransformerConfig::read(settings)?;
        let raw = settings.read::<Raw>()?;
        check_size("intermediate_size", raw.intermediate_size)?;
        let activation = activation(&raw.hidden_act)?;
        let mlp = MlpConfig::Plain { intermediate: raw.intermediate_size, activation };
        Ok(EncoderConfig { transformer, mlp })
    }
}

/// From images to the last hidden state.
pub(crate) struct Encoder<F: Form> {
    embedding: Embedding<F>,
    layers: Layers<F>,
    norm: LayerNorm<F>,
}

impl<F: Form> Encoder<F> {
    /// The encoder whose tensors are called `at.*`; `whole` are the tokens that stand for the whole image.
    pub(crate) fn visit(
        visitor: &mut impl Visitor<Form = F>,
        at: &str,
        whole: &[&str],
        config: &EncoderConfig,
    ) -> Result<Self> {
        let (transformer, mlp) = (&config.transformer, config.mlp);
        let layers = format!("{at}.encoder.layer");
        Ok(Encoder {
            embedding: Embedding::visit(visitor, &format!("{at}.embeddings"), whole, transformer)?,
            layers: Layers::visit(visitor, &layers, &LAYER, (transformer, mlp))?,
            norm: LayerNorm::visit(visitor, &format!("{at}.layernorm"), transformer)?,
        })
    }
}

impl<B: Kernels> Encoder<Loaded<B>> {
    /// The last hidden state `[batch * asked, hidden]` of the first `asked` tokens of each image.
    pub(crate) fn forward(&self, pixels: Tensor<B, 4>, asked: usize, config: &EncoderConfig) -> Tensor<B, 2> {
        let x = self.embedding.forward(pixels, &config.transformer);
        self.norm.forward(&self.layers.forward(x, asked))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parameters::visitor::Listing;

    fn tensors(json: &str) -> Vec<(String, Vec<u64>)> {
        let mut listing = Listing::default();
        Vit::from_json(json).unwrap().parameters(&mut listing).unwrap();
        listing.tensors
    }

    #[test]
    fn an_empty_config_is_transformers_default() {
        let vit = Vit::from_json("{}").unwrap();
        let config = &vit.encoder.transformer;
        assert_eq!((config.hidden, config.layers, config.heads), (768, 12, 12));
        let mlp = MlpConfig::Plain { intermediate: 3072, activation: Activation::Gelu };
        assert_eq!(vit.encoder.mlp, mlp);
        assert_eq!(config.grid(), (14, 14));
        assert_eq!(vit.classifier().classes.names(), ["LABEL_0", "LABEL_1"]);
        // 4 + 16 a layer + 2 + 2, as in google/vit-base-patch16-224 without its pooler.
        assert_eq!(tensors("{}").len(), 8 + 12 * 16);
    }

    #[test]
    fn without_qkv_bias_there_are_three_tensors_a_layer_less() {
        assert_eq!(tensors(r#"{"qkv_bias": false}"#).len(), 8 + 12 * 13);
    }

    #[test]
    fn bad_configs_say_what_is_wrong() {
        let error = |json: &str| Vit::from_json(json).err().map(|e| e.chain()).unwrap();
        assert!(error(r#"{"hidden_act": "geglu"}"#).contains("unknown hidden_act \"geglu\""));
        assert!(error(r#"{"intermediate_size": 0}"#).contains("intermediate_size is 0"));
        assert!(error("[]").contains("config.json"));
    }
}
