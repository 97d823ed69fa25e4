//! `Dinov2ForImageClassification`: a vision transformer whose branches are scaled ([`LayerScale`]), optionally with a
//! gated MLP, and a linear classifier of the token for the whole beside the mean of the patches' (Oquab et al., "DINOv2:
//! Learning robust visual features without supervision").
//!
//! The images may have another size than `image_size`, which the published checkpoints have from pre-training: the position
//! embeddings are then interpolated, once when a model is loaded.
//!
//! A checkpoint mostly has a `mask_token` too, which only pre-training looks at: nothing here needs it, and its gradient
//! is zero.

use burn::tensor::Tensor;
use serde::Deserialize;
use serde_json::{Value, json};
use soup_core::Result;

use crate::architecture::Architecture;
use crate::config::{ImageClassifier, Settings, check_size, wrong};
use crate::kernels::{Activation, Kernels};
use crate::kind::Images;
use crate::parameters::visitor::{Form, Loaded, Visitor};
use crate::preprocess::ImageSize;
use crate::transformer::config::{TransformerConfig, activation};
use crate::transformer::{Attention, Embedding, LayerNorm, LayerScale, Linear};

/// What `config.json` says about a `Dinov2ForImageClassification`.
pub(crate) struct Dinov2 {
    transformer: TransformerConfig,
    mlp: MlpConfig,
}

/// What is between the attentions.
#[derive(Clone, Copy, Debug, PartialEq)]
enum MlpConfig {
    Plain {
        intermediate: usize,
        activation: Activation,
    },
    /// SwiGLU: `intermediate` gates and as many values.
    Gated {
        intermediate: usize,
    },
}

/// The file's own form of what not all transformers have; defaults are those of transformers' `Dinov2Config`.
#[derive(Deserialize)]
#[serde(default)]
struct Raw {
    mlp_ratio: f64,
    hidden_act: String,
    use_swiglu_ffn: bool,
    num_register_tokens: Value,
}

impl Default for Raw {
    fn default() -> Self {
        Raw {
            mlp_ratio: 4.0,
            hidden_act: "gelu".to_owned(),
            use_swiglu_ffn: false,
            num_register_tokens: Value::Null,
        }
    }
}

impl MlpConfig {
    fn new(raw: &Raw, hidden: usize) -> Result<MlpConfig> {
        if !(raw.mlp_ratio > 0.0 && raw.mlp_ratio.is_finite()) {
            return Err(wrong(format!("mlp_ratio is {}, expected a positive number", raw.mlp_ratio)));
        }
        // Truncated, in floating point, as the original does.
        let intermediate = (hidden as f64 * raw.mlp_ratio) as usize;
        check_size("hidden_size * mlp_ratio", intermediate)?;
        if raw.use_swiglu_ffn {
            // About as many parameters as without gates: two thirds, rounded up. `hidden_act` has no say.
            let intermediate = (intermediate * 2 / 3).next_multiple_of(8);
            check_size("hidden_size * mlp_ratio * 2 / 3", intermediate)?;
            return Ok(MlpConfig::Gated { intermediate });
        }
        Ok(MlpConfig::Plain { intermediate, activation: activation(&raw.hidden_act)? })
    }
}

/// A `Dinov2ForImageClassification`.
pub(crate) struct Dinov2Model<F: Form> {
    embedding: Embedding<F>,
    layers: Vec<Layer<F>>,
    norm: LayerNorm<F>,
    classifier: Linear<F>,
}

impl Architecture for Dinov2 {
    const NAME: &str = "Dinov2ForImageClassification";
    const MODEL_TYPE: &str = "dinov2";
    const ANY_SIZE: bool = true;

    type Kind = Images;
    type Model<F: Form> = Dinov2Model<F>;

    fn from_json(text: &str) -> Result<Self> {
        let settings = Settings::parse(text)?.or("patch_size", json!(14)).or("layer_norm_eps", json!(1e-6));
        let transformer = TransformerConfig::read(&settings)?;
        let raw = settings.read::<Raw>()?;
        if raw.num_register_tokens.as_u64() != Some(0) && !raw.num_register_tokens.is_null() {
            return Err(wrong(format!(
                "num_register_tokens is {}: models with registers (model_type \"dinov2_with_registers\") are not supported",
                raw.num_register_tokens
            )));
        }
        let image = transformer.classifier.image;
        if image.height != image.width {
            return Err(wrong(format!(
                "image_size is [{}, {}]: {} has position_embeddings of square images alone, whatever it is shown",
                image.height,
                image.width,
                Self::NAME
            )));
        }
        Ok(Dinov2 { mlp: MlpConfig::new(&raw, transformer.hidden)?, transformer })
    }

    fn resized(mut self, size: ImageSize) -> Result<Self> {
        self.transformer.resize(size)?;
        let (rows, columns) = self.transformer.positions;
        // transformers takes stored positions for a square, except of square images that have as many patches.
        let as_stored = size.height == size.width && self.transformer.grid() == (rows, columns);
        if rows != columns && !as_stored {
            return Err(wrong(format!(
                "position_embeddings of {rows} x {columns} patches (image_size, patch_size) cannot be interpolated for images of {} x \
                 {} pixels: only those of as many rows as columns can",
                size.width, size.height
            )));
        }
        Ok(self)
    }

    fn classifier(&self) -> &ImageClassifier {
        &self.transformer.classifier
    }

    fn parameters<V: Visitor>(&self, visitor: &mut V) -> Result<Dinov2Model<V::Form>> {
        let config = &self.transformer;
        let embedding = Embedding::visit(visitor, "dinov2.embeddings", &["cls_token"], config)?;
        let layers = (0..config.layers)
            .map(|index| Layer::visit(visitor, &format!("dinov2.encoder.layer.{index}"), config, self.mlp));
        Ok(Dinov2Model {
            embedding,
            layers: layers.collect::<Result<_>>()?,
            norm: LayerNorm::visit(visitor, "dinov2.layernorm", config)?,
            classifier: Linear::classifier(visitor, "classifier", 2 * config.hidden, &config.classifier)?,
        })
    }

    fn forward<B: Kernels>(&self, model: &Dinov2Model<Loaded<B>>, pixels: Tensor<B, 4>) -> Tensor<B, 2> {
        let x = model.embedding.forward(pixels, &self.transformer);
        let [batch, tokens, hidden] = x.dims();
        let embedded: Tensor<B, 2> = x.reshape([batch * tokens, hidden]);
        let last = model.layers.iter().fold(embedded, |x, layer| layer.forward(x, [batch, tokens]));
        let state = model.norm.forward(&last).reshape([batch, tokens, hidden]);
        let whole = state.clone().slice([0..batch, 0..1]).reshape([batch, hidden]);
        let patches = state.slice([0..batch, 1..tokens]).mean_dim(1).reshape([batch, hidden]);
        model.classifier.forward(Tensor::cat(vec![whole, patches], 1), Activation::Linear)
    }
}

struct Layer<F: Form> {
    norm1: LayerNorm<F>,
    attention: Attention<F>,
    attended: Linear<F>,
    scale1: LayerScale<F>,
    norm2: LayerNorm<F>,
    mlp: Mlp<F>,
    scale2: LayerScale<F>,
}

impl<F: Form> Layer<F> {
    fn visit(
        visitor: &mut impl Visitor<Form = F>,
        at: &str,
        config: &TransformerConfig,
        mlp: MlpConfig,
    ) -> Result<Self> {
        let (name, hidden) = (|name: &str| format!("{at}.{name}"), config.hidden);
        Ok(Layer {
            norm1: LayerNorm::visit(visitor, &name("norm1"), config)?,
            attention: Attention::visit(visitor, &name("attention.attention"), config)?,
            attended: Linear::visit(visitor, &[&name("attention.output.dense")], hidden, &[hidden], true)?,
            scale1: LayerScale::visit(visitor, name("layer_scale1.lambda1"), config)?,
            norm2: LayerNorm::visit(visitor, &name("norm2"), config)?,
            mlp: Mlp::visit(visitor, &name("mlp"), hidden, mlp)?,
            scale2: LayerScale::visit(visitor, name("layer_scale2.lambda1"), config)?,
        })
    }
}

impl<B: Kernels> Layer<Loaded<B>> {
    /// One layer over `[batch * tokens, hidden]`.
    fn forward(&self, x: Tensor<B, 2>, [batch, tokens]: [usize; 2]) -> Tensor<B, 2> {
        let context = self.attention.forward(self.norm1.forward(&x), [batch, tokens], tokens);
        let attended = self.scale1.add_to(self.attended.forward(context, Activation::Linear), &x);
        let branch = self.mlp.forward(self.norm2.forward(&attended));
        self.scale2.add_to(branch, &attended)
    }
}

struct Mlp<F: Form> {
    config: MlpConfig,
    /// Of a gated one, gates and values side by side: so they are in the checkpoint.
    up: Linear<F>,
    down: Linear<F>,
}

impl<F: Form> Mlp<F> {
    fn visit(
        visitor: &mut impl Visitor<Form = F>,
        at: &str,
        hidden: usize,
        config: MlpConfig,
    ) -> Result<Self> {
        let ([up, down], outputs, intermediate) = match config {
            MlpConfig::Plain { intermediate, .. } => (["fc1", "fc2"], intermediate, intermediate),
            MlpConfig::Gated { intermediate } => {
                (["weights_in", "weights_out"], 2 * intermediate, intermediate)
            }
        };
        let mut linear = |name: &str, outputs, inputs| {
            Linear::visit(visitor, &[&format!("{at}.{name}")], outputs, &[inputs], true)
        };
        Ok(Mlp { config, up: linear(up, outputs, hidden)?, down: linear(down, hidden, intermediate)? })
    }
}

impl<B: Kernels> Mlp<Loaded<B>> {
    fn forward(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        let between = match self.config {
            MlpConfig::Plain { activation, .. } => self.up.forward(x, activation),
            MlpConfig::Gated { .. } => B::swiglu(self.up.forward(x, Activation::Linear)),
        };
        self.down.forward(between, Activation::Linear)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parameters::visitor::Listing;

    fn error(json: &str) -> String {
        Dinov2::from_json(json).err().map(|e| e.chain()).unwrap()
    }

    #[test]
    fn an_empty_config_is_transformers_default() {
        let config = Dinov2::from_json("{}").unwrap();
        assert_eq!(config.mlp, MlpConfig::Plain { intermediate: 3072, activation: Activation::Gelu });
        assert_eq!((config.transformer.epsilon, config.transformer.grid()), (1e-6, (16, 16)));
        let mut listing = Listing::default();
        config.parameters(&mut listing).unwrap();
        // As in facebook/dinov2-base-imagenet1k-1-layer without its mask token: 4 + 18 a layer + 2 + 2.
        assert_eq!(listing.tensors.len(), 8 + 12 * 18);
    }

    #[test]
    fn the_width_of_an_mlp_is_that_of_transformers() {
        let width = |json: &str| Dinov2::from_json(json).unwrap().mlp;
        // facebook/dinov2-giant: 4096.
        let giant =
            r#"{"hidden_size": 1536, "num_attention_heads": 24, "use_swiglu_ffn": true, "hidden_act": "?"}"#;
        assert_eq!(width(giant), MlpConfig::Gated { intermediate: 4096 });
        let gelu = Activation::Gelu;
        assert_eq!(
            width(r#"{"mlp_ratio": 2.67}"#),
            MlpConfig::Plain { intermediate: 2050, activation: gelu }
        );
    }

    #[test]
    fn other_sizes_leave_the_checkpoint_as_it_is() {
        let resized = |json: &str, height, width| {
            Dinov2::from_json(json).unwrap().resized(ImageSize { height, width }).map_err(|e| e.chain())
        };
        let published = resized(r#"{"image_size": 518}"#, 224, 238).unwrap();
        assert_eq!((published.transformer.positions, published.transformer.grid()), ((37, 37), (16, 17)));
        let mut listing = Listing::default();
        published.parameters(&mut listing).unwrap();
        let positions = ("dinov2.embeddings.position_embeddings".to_owned(), vec![1, 1 + 37 * 37, 768]);
        assert!(listing.tensors.contains(&positions));
        let oblong = r#"{"image_size": 20, "patch_size": [4, 5]}"#;
        for (height, width, good) in [(20, 20, true), (21, 21, true), (20, 21, false), (40, 40, false)] {
            let got = resized(oblong, height, width).map(|r| r.transformer.grid());
            assert_eq!(got.is_ok(), good, "{height} x {width}: {got:?}");
        }
        let error = |json: &str, height, width| resized(json, height, width).err().unwrap();
        assert!(
            error(oblong, 40, 30)
                .contains("of 5 x 4 patches (image_size, patch_size) cannot be interpolated")
        );
        assert!(error(oblong, 40, 30).contains("of 30 x 40 pixels"));
        assert!(
            error("{}", 13, 14).contains("patch_size is larger than the images, which become 14 x 13 pixels")
        );
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        assert!(error(r#"{"num_register_tokens": 4}"#).contains("num_register_tokens is 4"));
        assert!(Dinov2::from_json(r#"{"num_register_tokens": 0}"#).is_ok());
        assert!(error(r#"{"image_size": [224, 238]}"#).contains("image_size is [224, 238]"));
        assert!(error(r#"{"hidden_act": "geglu"}"#).contains("unknown hidden_act \"geglu\""));
        assert!(error(r#"{"use_swiglu_ffn": 1}"#).contains("not understood"));
        let narrow =
            r#"{"hidden_size": 1, "num_attention_heads": 1, "mlp_ratio": 1, "use_swiglu_ffn": true}"#;
        assert!(error(narrow).contains("hidden_size * mlp_ratio * 2 / 3 is 0"));
        for ratio in ["0", "-1", "1e-9", "1e300"] {
            assert!(error(&format!(r#"{{"mlp_ratio": {ratio}}}"#)).contains("mlp_ratio"), "{ratio}");
        }
    }
}
