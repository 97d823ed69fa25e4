//! `CLIPForImageClassification`: the image tower of a CLIP (Radford et al., "Learning transferable visual models from natural language
//! supervision"), whose tokens are normalised before its layers too, and a linear classifier of the mean of the patches' tokens.
//!
//! The classifier looks at them as the last layer leaves them: the tower's last normalisation, which belongs to the token for the whole,
//! has no part in it. A checkpoint may have the text tower, too. What is not needed is ignored, and its gradient is zero.

mod open_clip;
mod zero_shot;

use burn::tensor::Tensor;
use serde::Deserialize;
use serde_json::json;
use soup_core::Result;

use crate::architecture::Architecture;
use crate::config::{ImageClassifier, Settings, check_size, wrong};
use crate::kernels::{Activation, Kernels};
use crate::kind::Images;
use crate::parameters::interpolation::Resampling;
use crate::parameters::visitor::{Form, Loaded, Visitor};
use crate::transformer::config::{TransformerConfig, activation};
use crate::transformer::layer::{Layers, MlpConfig, Names};
use crate::transformer::{Before, Embedding, EmbeddingNames, LayerNorm, Linear, Maps};

pub(crate) use self::open_clip::OpenClip;
pub(crate) use self::zero_shot::ClipZeroShot;

/// What `config.json` says about a `CLIPForImageClassification`.
pub(crate) struct Clip {
    tower: TowerConfig,
}

/// A `CLIPForImageClassification`.
pub(crate) struct ClipModel<F: Form> {
    tower: Tower<F>,
    classifier: Linear<F>,
}

impl Architecture for Clip {
    const NAME: &str = "CLIPForImageClassification";
    const MODEL_TYPE: &str = "clip";

    type Kind = Images;
    type Model<F: Form> = ClipModel<F>;

    fn from_json(text: &str) -> Result<Self> {
        Ok(Clip { tower: TowerConfig::read(&Settings::parse(text)?)? })
    }

    fn classifier(&self) -> &ImageClassifier {
        &self.tower.transformer.classifier
    }

    fn is_known(&self, tensor: &str) -> bool {
        tensor.contains(".post_layernorm.")
    }

    fn parameters<V: Visitor>(&self, visitor: &mut V) -> Result<ClipModel<V::Form>> {
        let config = &self.tower.transformer;
        Ok(ClipModel {
            tower: Tower::visit(visitor, "vision_model", &self.tower)?,
            classifier: Linear::classifier(visitor, "classifier", config.hidden, &config.classifier)?,
        })
    }

    fn forward<B: Kernels>(&self, model: &ClipModel<Loaded<B>>, pixels: Tensor<B, 4>) -> Tensor<B, 2> {
        let [batch, _, _, _] = pixels.dims();
        let (rows, columns) = self.tower.transformer.grid();
        let tokens = 1 + rows * columns;
        let state: Tensor<B, 2> = model.tower.forward(pixels, &self.tower, tokens);
        let hidden = self.tower.transformer.hidden;
        let state = state.reshape([batch, tokens, hidden]);
        let mean = state.slice([0..batch, 1..tokens]).mean_dim(1).reshape([batch, hidden]);
        model.classifier.forward(mean, Activation::Linear)
    }
}

/// What `config.json` says about an image tower.
struct TowerConfig {
    transformer: TransformerConfig,
    mlp: MlpConfig,
}

/// The file's own form of what not all transformers have; defaults are those of transformers' `CLIPVisionConfig`.
#[derive(Deserialize)]
#[serde(default)]
struct Raw {
    intermediate_size: usize,
    hidden_act: String,
}

impl Default for Raw {
    fn default() -> Self {
        Raw { intermediate_size: 3072, hidden_act: "quick_gelu".to_owned() }
    }
}

impl TowerConfig {
    /// The tower that a CLIP's settings tell of.
    ///
    /// # Errors
    /// [`Data`](soup_core::ErrorKind::Data) where a value is out of range or not understood.
    fn read(whole: &Settings) -> Result<TowerConfig> {
        // Files of early versions have both, and then transformers takes all of `vision_config_dict`, defaults too.
        let part = match whole.part("vision_config_dict")? {
            Some(part) => part,
            None => whole.part("vision_config")?.ok_or_else(|| wrong("there is no vision_config"))?,
        };
        let settings = part.or("patch_size", json!(32)).or("layer_norm_eps", json!(1e-5));
        // An option of other models, which this one has no ear for.
        let mut transformer = TransformerConfig::read(&settings)?;
        transformer.qkv_bias = true;
        let (image, patch) = (transformer.classifier.image, transformer.patch);
        if image.height != image.width || patch.height != patch.width {
            return Err(wrong("image_size and patch_size of a vision_config are those of squares"));
        }
        let raw = settings.read::<Raw>()?;
        check_size("intermediate_size", raw.intermediate_size)?;
        let mlp = MlpConfig::Plain {
            intermediate: raw.intermediate_size,
            activation: activation(&raw.hidden_act)?,
        };
        Ok(TowerConfig { transformer, mlp })
    }
}

/// What the tensors of a layer are called, of either tower.
const LAYER: Names = Names {
    norm1: "layer_norm1",
    maps: Maps::Apart(["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"]),
    attended: "self_attn.out_proj",
    norm2: "layer_norm2",
    up: "mlp.fc1",
    down: "mlp.fc2",
    scales: None,
};

/// From images to the last hidden state.
struct Tower<F: Form> {
    embedding: Embedding<F>,
    norm_before: LayerNorm<F>,
    layers: Layers<F>,
}

impl<F: Form> Tower<F> {
    /// The tower whose tensors are called `at.*`.
    fn visit(visitor: &mut impl Visitor<Form = F>, at: &str, config: &TowerConfig) -> Result<Self> {
        let (name, transformer) = (|name: &str| format!("{at}.{name}"), &config.transformer);
        let whole =
            Before { name: name("embeddings.class_embedding"), stored: vec![transformer.hidden], count: 1 };
        let embedding = EmbeddingNames {
            patch: name("embeddings.patch_embedding"),
            patch_bias: false,
            positions: name("embeddings.position_embedding.weight"),
            flat_positions: true,
            placed: vec![whole],
            unplaced: Vec::new(),
            resampling: Resampling::Plain,
        };
        Ok(Tower {
            embedding: Embedding::of(visitor, embedding, transformer)?,
            // So it is spelled there.
            norm_before: LayerNorm::visit(visitor, &name("pre_layrnorm"), transformer)?,
            layers: Layers::visit(visitor, &name("encoder.layers"), &LAYER, (transformer, config.mlp))?,
        })
    }
}

impl<B: Kernels> Tower<Loaded<B>> {
    /// The last hidden state `[batch * asked, hidden]` of the first `asked` tokens of each image, of which the first is the one for the
    /// whole.
    fn forward(&self, pixels: Tensor<B, 4>, config: &TowerConfig, asked: usize) -> Tensor<B, 2> {
        let x = self.embedding.forward(pixels, &config.transformer);
        let [batch, tokens, hidden] = x.dims();
        let normed = self.norm_before.forward(&x.reshape([batch * tokens, hidden]));
        self.layers.forward(normed.reshape([batch, tokens, hidden]), asked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parameters::visitor::Listing;
    use crate::preprocess::ImageSize;

    fn error(json: &str) -> String {
        Clip::from_json(json).err().map(|e| e.chain()).unwrap_or_default()
    }

    #[test]
    fn an_empty_tower_is_transformers_default() {
        let clip = Clip::from_json(r#"{"vision_config": {}, "num_labels": 7}"#).unwrap();
        let config = &clip.tower.transformer;
        assert_eq!((config.hidden, config.layers, config.heads, config.epsilon), (768, 12, 12, 1e-5));
        let mlp = MlpConfig::Plain { intermediate: 3072, activation: Activation::QuickGelu };
        assert_eq!((clip.tower.mlp, config.grid(), clip.classifier().outputs()), (mlp, (7, 7), 7));
        let mut listing = Listing::default();
        clip.parameters(&mut listing).unwrap();
        // As in openai/clip-vit-base-patch32, less the last normalisation: 3 + 2 + 16 a layer + 2.
        assert_eq!(listing.tensors.len(), 7 + 12 * 16);
        let positions = ("vision_model.embeddings.position_embedding.weight".to_owned(), vec![50, 768]);
        assert!(listing.tensors.contains(&positions));
    }

    #[test]
    fn classes_are_the_whole_models() {
        let json = r#"{"vision_config": {"id2label": {"0": "a", "1": "b", "2": "c"}, "qkv_bias": false},
            "id2label": {"0": "cat", "1": "dog"}}"#;
        let clip = Clip::from_json(json).unwrap();
        assert_eq!(clip.classifier().classes.names(), ["cat", "dog"]);
        let of_parts = r#"{"vision_config": {"id2label": {"0": "a", "1": "b", "2": "c"}}}"#;
        assert_eq!(Clip::from_json(of_parts).unwrap().classifier().outputs(), 2);
    }

    #[test]
    fn settings_of_early_versions_come_first_and_whole() {
        let json = r#"{"vision_config": {"hidden_size": 1024, "patch_size": 14, "num_attention_heads": 16},
            "vision_config_dict": {"hidden_size": 512, "num_attention_heads": 8}}"#;
        let config = Clip::from_json(json).unwrap().tower.transformer;
        let patch = ImageSize { height: 32, width: 32 };
        assert_eq!((config.hidden, config.heads, config.patch), (512, 8, patch));
        let json = r#"{"vision_config": {"hidden_size": 1024, "num_attention_heads": 16}, "vision_config_dict": null}"#;
        assert_eq!(Clip::from_json(json).unwrap().tower.transformer.hidden, 1024);
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        assert!(error("{}").contains("there is no vision_config"));
        assert!(error(r#"{"vision_config": 3}"#).contains("vision_config is 3, expected settings"));
        let of = |settings: &str| error(&format!(r#"{{"vision_config": {{{settings}}}}}"#));
        assert!(of(r#""hidden_act": "geglu""#).contains("unknown hidden_act \"geglu\""));
        assert!(of(r#""intermediate_size": 0"#).contains("intermediate_size is 0"));
        assert!(of(r#""image_size": [224, 256]"#).contains("those of squares"));
        assert!(of(r#""num_channels": 4"#).contains("num_channels is 4"));
        assert!(error(r#"{"vision_config": {}, "num_labels": 0}"#).contains("num_labels is 0"));
    }
}
