//! CLIPs of open_clip whose towers are its own transformers, as its hub has them: `open_clip_config.json` says what they are (`model_cfg`)
//! and how images become pixels (`preprocess_cfg`).
//!
//! Tensors have the names that open_clip gives them, soups too: the model here is a [`ClipZeroShot`] that is read under other names. A text
//! is what its token with the largest id comes out as.

mod config;

use burn::tensor::Tensor;
use soup_core::{Error, Result};

use self::config::Source;
use super::zero_shot::{ClipZeroShot, ClipZeroShotModel};
use super::{Tower, TowerConfig};
use crate::architecture::Architecture;
use crate::config::{ImageClassifier, Settings};
use crate::evaluator::EvaluatorSpec;
use crate::kernels::Kernels;
use crate::kind::Images;
use crate::models::zero_shot::Described;
use crate::parameters::interpolation::Resampling;
use crate::parameters::visitor::{Form, Loaded, Visitor};
use crate::preprocess::Preprocessor;
use crate::transformer::layer::{Layers, Names};
use crate::transformer::{Before, Embedding, EmbeddingNames, LayerNorm, Linear, Maps};

/// What `open_clip_config.json` says about a CLIP, and the classes.
pub(crate) struct OpenClip {
    clip: ClipZeroShot,
    source: Source,
}

/// What the tensors of a layer are called, of either tower.
const LAYER: Names = Names {
    norm1: "ln_1",
    maps: Maps::Packed { weight: "attn.in_proj_weight", bias: "attn.in_proj_bias" },
    attended: "attn.out_proj",
    norm2: "ln_2",
    up: "mlp.c_fc",
    down: "mlp.c_proj",
    scales: None,
};

impl Architecture for OpenClip {
    const NAME: &str = "open_clip's CLIP";
    const MODEL_TYPE: &str = "open_clip";
    const DEPTH: &str = "layers";

    type Kind = Images;
    type Model<F: Form> = ClipZeroShotModel<F>;

    fn from_json(_: &str) -> Result<Self> {
        Err(Error::data(
            "open_clip's CLIP compares images with texts and has no classes of its own: there are no prompts",
        ))
    }

    fn from_spec(spec: &EvaluatorSpec) -> Result<Self> {
        let Some(described) = Described::by(spec)? else { return Self::from_json(&spec.config_json) };
        let source = Source::parse(&spec.config_json)?;
        let clip = ClipZeroShot::described(&Settings::of(source.settings()?), &described)
            .map_err(|e| e.context("open_clip_config.json, in the words of CLIPModel"))?;
        Ok(OpenClip { clip, source })
    }

    fn classifier(&self) -> &ImageClassifier {
        self.clip.classifier()
    }

    fn preprocessor(&self) -> Result<Option<Preprocessor>> {
        self.source.preprocessor(self.classifier()).map(Some)
    }

    fn parameters<V: Visitor>(&self, visitor: &mut V) -> Result<ClipZeroShotModel<V::Form>> {
        let (clip, width) = (&self.clip, self.clip.projection);
        let (images, texts) = (&clip.images.transformer, &clip.texts.transformer);
        Ok(ClipZeroShotModel {
            images: tower(visitor, &clip.images)?,
            image_norm: LayerNorm::visit(visitor, "visual.ln_post", images)?,
            image_projection: Linear::of_inputs(visitor, "visual.proj", [images.hidden, width])?,
            tokens: visitor
                .tensor("token_embedding.weight".to_owned(), [clip.texts.vocabulary, texts.hidden])?,
            positions: visitor
                .tensor("positional_embedding".to_owned(), [clip.texts.positions, texts.hidden])?,
            texts: Layers::visit(visitor, "transformer.resblocks", &LAYER, (texts, clip.texts.mlp))?,
            text_norm: LayerNorm::visit(visitor, "ln_final", texts)?,
            text_projection: Linear::of_inputs(visitor, "text_projection", [texts.hidden, width])?,
            scale: visitor.reshaped("logit_scale".to_owned(), Vec::new(), [1])?,
            classes: Default::default(),
        })
    }

    fn forward<B: Kernels>(
        &self,
        model: &ClipZeroShotModel<Loaded<B>>,
        pixels: Tensor<B, 4>,
    ) -> Tensor<B, 2> {
        self.clip.forward(model, pixels)
    }
}

fn tower<V: Visitor>(visitor: &mut V, config: &TowerConfig) -> Result<Tower<V::Form>> {
    let transformer = &config.transformer;
    let whole =
        Before { name: "visual.class_embedding".to_owned(), stored: vec![transformer.hidden], count: 1 };
    let embedding = EmbeddingNames {
        patch: "visual.conv1".to_owned(),
        patch_bias: false,
        positions: "visual.positional_embedding".to_owned(),
        flat_positions: true,
        placed: vec![whole],
        unplaced: Vec::new(),
        resampling: Resampling::Plain,
    };
    Ok(Tower {
        embedding: Embedding::of(visitor, embedding, transformer)?,
        norm_before: LayerNorm::visit(visitor, "visual.ln_pre", transformer)?,
        layers: Layers::visit(visitor, "visual.transformer.resblocks", &LAYER, (transformer, config.mlp))?,
    })
}
