//! Vision transformers of timm (`VisionTransformer`), as its hub has them: `config.json` names an architecture, which stands for
//! arguments of the model's class, and has those that differ in `model_args`.
//!
//! Tensors have the names that timm gives them, soups too: the model here is only another view of them. What architectures stand for is in
//! `timm/architectures.json`, which `tests/golden/timm_models.py` makes with timm itself. Images become pixels as `pretrained_cfg` says,
//! unless there is a `preprocessor_config.json`.

mod arguments;

use burn::tensor::Tensor;
use serde_json::{Map, Value, json};
use soup_core::Result;

use self::arguments::{Arguments, Pool, Source};
use crate::architecture::Architecture;
use crate::config::{ImageClassifier, Settings, wrong};
use crate::kernels::{Activation, Kernels};
use crate::kind::Images;
use crate::parameters::interpolation::Resampling;
use crate::parameters::visitor::{Form, Loaded, Visitor};
use crate::preprocess::Preprocessor;
use crate::transformer::config::TransformerConfig;
use crate::transformer::layer::{Layers, MlpConfig, Names};
use crate::transformer::{Before, Embedding, EmbeddingNames, LayerNorm, Linear, Maps};

/// What `config.json` says about a `VisionTransformer` of timm.
pub(crate) struct TimmVit {
    arguments: Arguments,
    transformer: TransformerConfig,
    mlp: MlpConfig,
    /// How images become pixels.
    pretrained: Map<String, Value>,
}

/// A `VisionTransformer` of timm.
pub(crate) struct TimmVitModel<F: Form> {
    embedding: Embedding<F>,
    norm_before: Option<LayerNorm<F>>,
    layers: Layers<F>,
    /// Of all tokens, before they are pooled,
    norm: Option<LayerNorm<F>>,
    /// and of what comes of that.
    norm_pooled: Option<LayerNorm<F>>,
    head: Linear<F>,
}

/// What the tensors of a layer are called.
const LAYER: Names = Names {
    norm1: "norm1",
    maps: Maps::Fused("attn.qkv"),
    attended: "attn.proj",
    norm2: "norm2",
    up: "mlp.fc1",
    down: "mlp.fc2",
    scales: None,
};
/// The same of one whose branches are scaled.
const SCALED_LAYER: Names = Names { scales: Some(["ls1.gamma", "ls2.gamma"]), ..LAYER };

impl Architecture for TimmVit {
    const NAME: &str = "timm's VisionTransformer";
    const MODEL_TYPE: &str = "timm";
    const DEPTH: &str = "model_args.depth or architecture";

    type Kind = Images;
    type Model<F: Form> = TimmVitModel<F>;

    fn from_json(text: &str) -> Result<Self> {
        let source = Source::parse(text)?;
        let arguments = Arguments::read(&source)?;
        let settings = Settings::of(settings(&arguments, &source)?);
        Ok(TimmVit {
            transformer: TransformerConfig::read(&settings)?,
            mlp: arguments.mlp()?,
            arguments,
            pretrained: source.pretrained,
        })
    }

    fn classifier(&self) -> &ImageClassifier {
        &self.transformer.classifier
    }

    fn preprocessor(&self) -> Result<Option<Preprocessor>> {
        let ImageClassifier { image, channels, .. } = self.transformer.classifier;
        Preprocessor::of_timm(&self.pretrained, image, channels).map(Some)
    }

    fn parameters<V: Visitor>(&self, visitor: &mut V) -> Result<TimmVitModel<V::Form>> {
        let (arguments, config) = (&self.arguments, &self.transformer);
        let layer = if arguments.is_scaled() { &SCALED_LAYER } else { &LAYER };
        let norm = |visitor: &mut V, name: &str, there: bool| {
            there.then(|| LayerNorm::visit(visitor, name, config)).transpose()
        };
        let pooled = arguments.normalises_pooled();
        Ok(TimmVitModel {
            embedding: Embedding::of(visitor, self.embedding_names(), config)?,
            norm_before: norm(visitor, "norm_pre", arguments.raw.pre_norm)?,
            layers: Layers::visit(visitor, "blocks", layer, (config, self.mlp))?,
            norm: norm(visitor, "norm", arguments.raw.final_norm && !pooled)?,
            norm_pooled: norm(visitor, "fc_norm", arguments.raw.final_norm && pooled)?,
            head: Linear::classifier(visitor, "head", config.hidden, &config.classifier)?,
        })
    }

    fn forward<B: Kernels>(&self, model: &TimmVitModel<Loaded<B>>, pixels: Tensor<B, 4>) -> Tensor<B, 2> {
        let x = model.embedding.forward(pixels, &self.transformer);
        let [batch, tokens, hidden] = x.dims();
        let x = match &model.norm_before {
            Some(norm) => norm.forward(&x.reshape([batch * tokens, hidden])).reshape([batch, tokens, hidden]),
            None => x,
        };
        let asked = match self.arguments.pool {
            Pool::Token => 1,
            Pool::Mean { .. } => tokens,
        };
        let state = normed(&model.norm, model.layers.forward(x, asked));
        let pooled = match self.arguments.pool {
            Pool::Token => state,
            Pool::Mean { first } => {
                let state: Tensor<B, 3> = state.reshape([batch, tokens, hidden]);
                state.slice([0..batch, first..tokens]).mean_dim(1).reshape([batch, hidden])
            }
        };
        model.head.forward(normed(&model.norm_pooled, pooled), Activation::Linear)
    }
}

impl TimmVit {
    fn embedding_names(&self) -> EmbeddingNames {
        let (arguments, hidden) = (&self.arguments, self.transformer.hidden);
        let mut before = Vec::new();
        if arguments.raw.class_token {
            before.push(Before::one("cls_token".to_owned(), hidden));
        }
        let count = arguments.raw.reg_tokens;
        if count > 0 {
            before.push(Before { name: "reg_token".to_owned(), stored: vec![1, count, hidden], count });
        }
        let (placed, unplaced) =
            if arguments.raw.no_embed_class { (Vec::new(), before) } else { (before, Vec::new()) };
        EmbeddingNames {
            patch: "patch_embed.proj".to_owned(),
            // The normalisation that follows has one.
            patch_bias: !arguments.raw.pre_norm,
            positions: "pos_embed".to_owned(),
            flat_positions: false,
            placed,
            unplaced,
            resampling: Resampling::Plain,
        }
    }
}

fn normed<B: Kernels>(norm: &Option<LayerNorm<Loaded<B>>>, x: Tensor<B, 2>) -> Tensor<B, 2> {
    match norm {
        Some(norm) => norm.forward(&x),
        None => x,
    }
}

/// The same in the words of transformers, which every transformer is read from.
fn settings(arguments: &Arguments, source: &Source) -> Result<Map<String, Value>> {
    let mut settings = Map::new();
    let mut set = |key: &str, value: Value| settings.insert(key.to_owned(), value);
    set("hidden_size", json!(arguments.raw.embed_dim));
    set("num_hidden_layers", json!(arguments.raw.depth));
    set("num_attention_heads", json!(arguments.raw.num_heads));
    set("image_size", json!(arguments.image));
    set("patch_size", json!(arguments.patch));
    set("num_channels", json!(arguments.raw.in_chans));
    set("qkv_bias", json!(arguments.raw.qkv_bias));
    set("layer_norm_eps", json!(arguments.epsilon()?));
    if arguments.raw.num_classes == 1 {
        return Err(wrong("num_classes is 1, and what one class means is not said: a number, or yes and no"));
    }
    set("num_labels", json!(arguments.raw.num_classes));
    let Some(names) = source.class_names()? else { return Ok(settings) };
    if names.len() != arguments.raw.num_classes {
        return Err(wrong(format!(
            "label_names has {} names of {} classes (num_classes)",
            names.len(),
            arguments.raw.num_classes
        )));
    }
    let descriptions = source.descriptions();
    let described = names
        .iter()
        .enumerate()
        .filter_map(|(id, name)| Some((descriptions?.get(name)?.as_str()?.to_owned(), json!(id))));
    set("label2id", Value::Object(described.collect()));
    let by_id = names.iter().enumerate().map(|(id, name)| (id.to_string(), json!(name)));
    set("id2label", Value::Object(by_id.collect()));
    Ok(settings)
}

#[cfg(test)]
mod tests;
