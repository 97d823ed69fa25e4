//! `Dinov2ForImageClassification`: a vision transformer whose branches are scaled ([`LayerScale`]), optionally with a
//! gated MLP, and a linear classifier of the token for the whole beside the mean of the patches' (Oquab et al., "DINOv2:
//! Learning robust visual features without supervision").
//!
//! The images may have another size than `image_size`, which the published checkpoints have from pre-training: the position
//! embeddings are then interpolated, once when a model is loaded.
//!
//! `Dinov2WithRegistersForImageClassification` has a few more tokens, which nothing looks at in the end (Darcet et al., "Vision
//! transformers need registers"), and its position embeddings are interpolated with antialiasing.
//!
//! A checkpoint mostly has a `mask_token` too, which only pre-training looks at: nothing here needs it, and its gradient
//! is zero.

use burn::tensor::Tensor;
use serde::Deserialize;
use serde_json::{Value, json};
use soup_core::Result;

use crate::architecture::Architecture;
use crate::config::{ImageClassifier, Numbers, Settings, check_number, check_size, wrong};
use crate::kernels::{Activation, Kernels};
use crate::kind::Images;
use crate::parameters::interpolation::Resampling;
use crate::parameters::visitor::{Form, Loaded, Visitor};
use crate::preprocess::ImageSize;
use crate::transformer::config::{TransformerConfig, activation};
use crate::transformer::layer::{Layers, MlpConfig, Names};
use crate::transformer::{Before, Embedding, EmbeddingNames, LayerNorm, Linear, Maps};

/// What `config.json` says about a `Dinov2ForImageClassification`.
pub(crate) type Dinov2 = Dinov2Config<false>;
/// What `config.json` says about a `Dinov2WithRegistersForImageClassification`.
pub(crate) type Dinov2WithRegisters = Dinov2Config<true>;

/// What `config.json` says about either of them.
pub(crate) struct Dinov2Config<const REGISTERS: bool> {
    transformer: TransformerConfig,
    mlp: MlpConfig,
    /// How many registers there are.
    registers: usize,
}

/// Most registers of any model.
const REGISTERS_MAX: u64 = 1024;
/// As many as transformers takes where the file does not say.
const REGISTERS_DEFAULT: usize = 4;

/// What the tensors of a layer are called.
const LAYER: Names = Names {
    norm1: "norm1",
    maps: Maps::Apart(["attention.attention.query", "attention.attention.key", "attention.attention.value"]),
    attended: "attention.output.dense",
    norm2: "norm2",
    up: "mlp.fc1",
    down: "mlp.fc2",
    scales: Some(["layer_scale1.lambda1", "layer_scale2.lambda1"]),
};
/// The same with a gated MLP.
const GATED_LAYER: Names = Names { up: "mlp.weights_in", down: "mlp.weights_out", ..LAYER };

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

impl Raw {
    fn mlp(&self, hidden: usize) -> Result<MlpConfig> {
        check_number("mlp_ratio", self.mlp_ratio, Numbers::Factors)?;
        // Truncated, in floating point, as the original does.
        let intermediate = (hidden as f64 * self.mlp_ratio) as usize;
        check_size("hidden_size * mlp_ratio", intermediate)?;
        if self.use_swiglu_ffn {
            // About as many parameters as without gates: two thirds, rounded up. `hidden_act` has no say.
            let intermediate = (intermediate * 2 / 3).next_multiple_of(8);
            check_size("hidden_size * mlp_ratio * 2 / 3", intermediate)?;
            return Ok(MlpConfig::Gated { intermediate });
        }
        Ok(MlpConfig::Plain { intermediate, activation: activation(&self.hidden_act)? })
    }

    /// How many registers there are, of a model that may have some or may have none.
    fn registers(&self, some: bool) -> Result<usize> {
        let count = &self.num_register_tokens;
        match (some, count.as_u64()) {
            (true, None) if count.is_null() => Ok(REGISTERS_DEFAULT),
            (true, Some(count @ 1..=REGISTERS_MAX)) => Ok(count as usize),
            (false, None) if count.is_null() => Ok(0),
            (false, Some(0)) => Ok(0),
            (true, _) => Err(wrong(format!("num_register_tokens is {count}, expected 1 to {REGISTERS_MAX}"))),
            (false, _) => Err(wrong(format!(
                "num_register_tokens is {count}: models with registers have model_type \"dinov2_with_registers\""
            ))),
        }
    }
}

/// A `Dinov2ForImageClassification`, with registers or without.
pub(crate) struct Dinov2Model<F: Form> {
    embedding: Embedding<F>,
    layers: Layers<F>,
    norm: LayerNorm<F>,
    classifier: Linear<F>,
}

impl<const REGISTERS: bool> Architecture for Dinov2Config<REGISTERS> {
    const NAME: &str = match REGISTERS {
        true => "Dinov2WithRegistersForImageClassification",
        false => "Dinov2ForImageClassification",
    };
    const MODEL_TYPE: &str = if REGISTERS { "dinov2_with_registers" } else { "dinov2" };
    const ANY_SIZE: bool = true;

    type Kind = Images;
    type Model<F: Form> = Dinov2Model<F>;

    fn from_json(text: &str) -> Result<Self> {
        let patch = if REGISTERS { 16 } else { 14 };
        let settings =
            Settings::parse(text)?.or("patch_size", json!(patch)).or("layer_norm_eps", json!(1e-6));
        let transformer = TransformerConfig::read(&settings)?;
        let raw = settings.read::<Raw>()?;
        let image = transformer.classifier.image;
        if image.height != image.width {
            return Err(wrong(format!(
                "image_size is [{}, {}]: {} has position_embeddings of square images alone, whatever it is shown",
                image.height,
                image.width,
                Self::NAME
            )));
        }
        Ok(Dinov2Config {
            mlp: raw.mlp(transformer.hidden)?,
            registers: raw.registers(REGISTERS)?,
            transformer,
        })
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
        let name = |name: &str| format!("{}.{name}", Self::MODEL_TYPE);
        let layer = match self.mlp {
            MlpConfig::Plain { .. } => &LAYER,
            MlpConfig::Gated { .. } => &GATED_LAYER,
        };
        Ok(Dinov2Model {
            embedding: Embedding::of(visitor, self.embedding_names(), config)?,
            layers: Layers::visit(visitor, &name("encoder.layer"), layer, (config, self.mlp))?,
            norm: LayerNorm::visit(visitor, &name("layernorm"), config)?,
            classifier: Linear::classifier(visitor, "classifier", 2 * config.hidden, &config.classifier)?,
        })
    }

    fn forward<B: Kernels>(&self, model: &Dinov2Model<Loaded<B>>, pixels: Tensor<B, 4>) -> Tensor<B, 2> {
        let x = model.embedding.forward(pixels, &self.transformer);
        let [batch, tokens, hidden] = x.dims();
        let last = model.layers.forward(x, tokens);
        let state = model.norm.forward(&last).reshape([batch, tokens, hidden]);
        let whole = state.clone().slice([0..batch, 0..1]).reshape([batch, hidden]);
        let patches =
            state.slice([0..batch, 1 + self.registers..tokens]).mean_dim(1).reshape([batch, hidden]);
        model.classifier.forward(Tensor::cat(vec![whole, patches], 1), Activation::Linear)
    }
}

impl<const REGISTERS: bool> Dinov2Config<REGISTERS> {
    fn embedding_names(&self) -> EmbeddingNames {
        let (name, hidden) =
            (|name: &str| format!("{}.embeddings.{name}", Self::MODEL_TYPE), self.transformer.hidden);
        let registers = Before {
            name: name("register_tokens"),
            stored: vec![1, self.registers, hidden],
            count: self.registers,
        };
        EmbeddingNames {
            patch: name("patch_embeddings.projection"),
            patch_bias: true,
            positions: name("position_embeddings"),
            flat_positions: false,
            placed: vec![Before::one(name("cls_token"), hidden)],
            unplaced: if REGISTERS { vec![registers] } else { Vec::new() },
            resampling: if REGISTERS { Resampling::Antialiased } else { Resampling::Plain },
        }
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
    fn registers_have_defaults_of_their_own() {
        let config = Dinov2WithRegisters::from_json("{}").unwrap();
        assert_eq!(
            (config.registers, config.transformer.epsilon, config.transformer.grid()),
            (4, 1e-6, (14, 14))
        );
        let mut listing = Listing::default();
        config.parameters(&mut listing).unwrap();
        assert_eq!(listing.tensors.len(), 9 + 12 * 18);
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
        let error_of_registers = |count: &str| {
            let json = format!(r#"{{"num_register_tokens": {count}}}"#);
            Dinov2WithRegisters::from_json(&json).err().map(|e| e.chain()).unwrap_or_default()
        };
        for count in ["0", "-1", "1.5", "\"4\"", "1025"] {
            let text = format!("num_register_tokens is {count}, expected 1 to 1024");
            assert!(error_of_registers(count).contains(&text), "{count}");
        }
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
