//! `CLIPModel`: an image tower and a text tower, whose outputs are projected to where they can be compared. Classes are what prompts say,
//! and a logit is how well an image fits the prompts of a class (Radford et al., section 3.1): the cosine, times a scale that is learned.
//!
//! The prompts are encoded by the model itself, once: they are no input. What they come out as is differentiated like everything else.
//!
//! Attention in the text tower is causal, so what comes after the token that ends a text changes nothing: it is cut off, and a text is what
//! its last token comes out as.

use burn::tensor::Tensor;
use serde::Deserialize;
use soup_core::{Error, Result};

use super::{LAYER, Tower, TowerConfig};
use crate::architecture::Architecture;
use crate::classes::Classes;
use crate::config::{ImageClassifier, Numbers, Settings, check_number, check_size, wrong};
use crate::evaluator::EvaluatorSpec;
use crate::gradient::sink::{Learned, Rows};
use crate::kernels::texts::Spans;
use crate::kernels::{Activation, Kernels};
use crate::kind::Images;
use crate::models::zero_shot::{Described, check_known, classes_of, cosines, longest, some_at_a_time};
use crate::parameters::visitor::{Form, Loaded, Visitor};
use crate::tokenizer::Takes;
use crate::transformer::config::{TransformerConfig, activation, check_layers, check_share};
use crate::transformer::layer::{Causal, Layers, MlpConfig};
use crate::transformer::{LayerNorm, Linear};

/// What `config.json` says about a `CLIPModel`, and the classes.
pub(crate) struct ClipZeroShot {
    pub(super) images: TowerConfig,
    pub(super) texts: TextConfig,
    pub(super) projection: usize,
    /// The tokens of prompts, some at a time.
    prompts: Vec<Texts>,
}

/// The tokens of some texts, one text after the other.
struct Texts {
    ids: Rows,
    positions: Rows,
    causal: Causal,
    /// The last token of each.
    last: Rows,
}

/// A `CLIPModel`.
pub(crate) struct ClipZeroShotModel<F: Form> {
    pub(super) images: Tower<F>,
    pub(super) image_norm: LayerNorm<F>,
    pub(super) image_projection: Linear<F>,
    pub(super) tokens: F::Parameter<2>,
    pub(super) positions: F::Parameter<2>,
    pub(super) texts: Layers<F>,
    pub(super) text_norm: LayerNorm<F>,
    pub(super) text_projection: Linear<F>,
    /// The logarithm of the scale of logits, `[1]`.
    pub(super) scale: F::Parameter<1>,
    /// What the prompts come out as, once that is known: `[classes, projection]`.
    pub(super) classes: F::Kept<2>,
}

impl Architecture for ClipZeroShot {
    const NAME: &str = "CLIPModel";
    const MODEL_TYPE: &str = "clip";

    type Kind = Images;
    type Model<F: Form> = ClipZeroShotModel<F>;

    fn from_json(_: &str) -> Result<Self> {
        Err(Error::data(
            "CLIPModel compares images with texts and has no classes of its own: without prompts, supported is \
             CLIPForImageClassification, which has a classifier",
        ))
    }

    fn from_spec(spec: &EvaluatorSpec) -> Result<Self> {
        let Some(described) = Described::by(spec)? else { return Self::from_json(&spec.config_json) };
        Self::described(&Settings::parse(&spec.config_json)?, &described)
    }

    fn classifier(&self) -> &ImageClassifier {
        &self.images.transformer.classifier
    }

    fn parameters<V: Visitor>(&self, visitor: &mut V) -> Result<ClipZeroShotModel<V::Form>> {
        let (config, texts) = (&self.images.transformer, &self.texts.transformer);
        let mut projection =
            |name: &str, inputs| Linear::visit(visitor, &[name], self.projection, &[inputs], false);
        let image_projection = projection("visual_projection", config.hidden)?;
        let text_projection = projection("text_projection", texts.hidden)?;
        let table = |of: &str| format!("text_model.embeddings.{of}_embedding.weight");
        let layers = (texts, self.texts.mlp);
        Ok(ClipZeroShotModel {
            images: Tower::visit(visitor, "vision_model", &self.images)?,
            image_norm: LayerNorm::visit(visitor, "vision_model.post_layernorm", config)?,
            image_projection,
            tokens: visitor.tensor(table("token"), [self.texts.vocabulary, texts.hidden])?,
            positions: visitor.tensor(table("position"), [self.texts.positions, texts.hidden])?,
            texts: Layers::visit(visitor, "text_model.encoder.layers", &LAYER, layers)?,
            text_norm: LayerNorm::visit(visitor, "text_model.final_layer_norm", texts)?,
            text_projection,
            scale: visitor.reshaped("logit_scale".to_owned(), Vec::new(), [1])?,
            classes: Default::default(),
        })
    }

    fn forward<B: Kernels>(
        &self,
        model: &ClipZeroShotModel<Loaded<B>>,
        pixels: Tensor<B, 4>,
    ) -> Tensor<B, 2> {
        let whole = model.images.forward(pixels, &self.images, 1);
        let images = model.image_projection.forward(model.image_norm.forward(&whole), Activation::Linear);
        let classes = match model.scale.is_learned() {
            true => self.classes(model),
            false => model.classes.get_or_init(|| self.classes(model)).clone(),
        };
        let cosines = cosines(images, classes);
        let log: Tensor<B, 2> = model.scale.on(&cosines).reshape([1, 1]);
        cosines * exp(log)
    }
}

impl ClipZeroShot {
    /// Of the classes that prompts say.
    pub(super) fn described(settings: &Settings, described: &Described<'_>) -> Result<Self> {
        Self::of(settings, described.prompts.classes().to_vec(), |texts| {
            let takes = Takes { longest: texts.longest(), types: false, class: "CLIPTokenizer" };
            Ok(described.tokens(takes)?.into_iter().map(|text| text.ids).collect())
        })
    }

    /// Of classes with as many prompts each, which become what `tokens` gives for a text tower, class by class.
    fn of(
        settings: &Settings,
        classes: Vec<String>,
        tokens: impl FnOnce(&TextConfig) -> Result<Vec<Vec<u32>>>,
    ) -> Result<Self> {
        let mut images = TowerConfig::read(settings)?;
        images.transformer.classifier.classes = Classes::new(classes, &Default::default());
        let texts = TextConfig::read(settings, &images.transformer)?;
        let projection = settings.read::<RawProjection>()?.projection_dim;
        check_size("projection_dim", projection)?;
        Ok(ClipZeroShot { prompts: texts.some_at_a_time(&tokens(&texts)?)?, images, texts, projection })
    }

    /// What the prompts of each class come out as, of length one: `[classes, projection]`.
    fn classes<B: Kernels>(&self, model: &ClipZeroShotModel<Loaded<B>>) -> Tensor<B, 2> {
        let texts = self.prompts.iter().map(|texts| {
            let tokens = model.tokens.rows(&texts.ids) + model.positions.rows(&texts.positions);
            let state = model.texts.forward_causal(tokens, &texts.causal);
            let last = model.text_norm.forward(&texts.last.of(&state));
            model.text_projection.forward(last, Activation::Linear)
        });
        classes_of(texts.collect(), self.classifier().outputs())
    }
}

/// e to that, by the kernels' own arithmetic, which is the same on every machine.
fn exp<B: Kernels>(x: Tensor<B, 2>) -> Tensor<B, 2> {
    let sigmoid = |x| B::bias_act(x, None, Activation::Sigmoid);
    sigmoid(x.clone()) / sigmoid(x.neg())
}

/// What `config.json` says about a text tower.
pub(super) struct TextConfig {
    /// Its sizes; what is about images in it has no part.
    pub(super) transformer: TransformerConfig,
    pub(super) mlp: MlpConfig,
    pub(super) vocabulary: usize,
    /// Tokens of the longest text.
    pub(super) positions: usize,
    end: u32,
}

/// The file's own form; defaults are those of transformers' `CLIPTextConfig`.
#[derive(Deserialize)]
#[serde(default)]
struct RawText {
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    intermediate_size: usize,
    max_position_embeddings: usize,
    vocab_size: usize,
    hidden_act: String,
    layer_norm_eps: f64,
    eos_token_id: u32,
}

impl Default for RawText {
    fn default() -> Self {
        RawText {
            hidden_size: 512,
            num_hidden_layers: 12,
            num_attention_heads: 8,
            intermediate_size: 2048,
            max_position_embeddings: 77,
            vocab_size: 49408,
            hidden_act: "quick_gelu".to_owned(),
            layer_norm_eps: 1e-5,
            eos_token_id: 49407,
        }
    }
}

/// The file's own form of where images and texts are compared.
#[derive(Deserialize)]
struct RawProjection {
    #[serde(default = "RawProjection::usual")]
    projection_dim: usize,
}

impl RawProjection {
    fn usual() -> usize {
        512
    }
}

impl TextConfig {
    fn read(whole: &Settings, images: &TransformerConfig) -> Result<TextConfig> {
        let raw = match whole.part("text_config_dict")? {
            Some(part) => part,
            None => whole.part("text_config")?.ok_or_else(|| wrong("there is no text_config"))?,
        };
        let raw = raw.read::<RawText>()?;
        for (name, size) in [
            ("hidden_size", raw.hidden_size),
            ("num_attention_heads", raw.num_attention_heads),
            ("intermediate_size", raw.intermediate_size),
            ("max_position_embeddings", raw.max_position_embeddings),
            ("vocab_size", raw.vocab_size),
        ] {
            check_size(name, size)?;
        }
        check_share(raw.hidden_size, raw.num_attention_heads)?;
        check_number("layer_norm_eps", raw.layer_norm_eps, Numbers::Epsilons)?;
        check_layers(raw.num_hidden_layers)?;
        let activation = activation(&raw.hidden_act)?;
        Ok(TextConfig {
            transformer: TransformerConfig {
                hidden: raw.hidden_size,
                layers: raw.num_hidden_layers,
                heads: raw.num_attention_heads,
                qkv_bias: true,
                epsilon: raw.layer_norm_eps,
                ..images.clone()
            },
            mlp: MlpConfig::Plain { intermediate: raw.intermediate_size, activation },
            vocabulary: raw.vocab_size,
            positions: raw.max_position_embeddings,
            end: raw.eos_token_id,
        })
    }

    /// Prompts up to their ends, some at a time.
    fn some_at_a_time(&self, prompts: &[Vec<u32>]) -> Result<Vec<Texts>> {
        let texts = prompts.iter().map(|text| self.up_to_its_end(text));
        let texts = texts.collect::<Result<Vec<_>>>()?;
        Ok(some_at_a_time(texts, |text| text.len()).iter().map(|some| Texts::new(some)).collect())
    }

    /// Tokens of the longest prompt.
    fn longest(&self) -> usize {
        longest(self.positions)
    }

    /// The tokens of `text` that what it comes out as depends on.
    fn up_to_its_end<'a>(&self, text: &'a [u32]) -> Result<&'a [u32]> {
        check_known(text, self.vocabulary, ClipZeroShot::NAME)?;
        // Early files have a wrong end, and there it is the token with the largest id, which the true one has: so transformers does.
        let end = match self.end {
            2 => text.iter().max().and_then(|largest| text.iter().position(|id| id == largest)),
            end => text.iter().position(|&id| id == end),
        };
        let Some(end) = end else {
            return Err(Error::data(format!(
                "a prompt of {} tokens does not have the one that ends texts, {} (eos_token_id)",
                text.len(),
                self.end
            )));
        };
        let most = self.longest();
        if text.len() > most {
            return Err(Error::data(format!(
                "a prompt of {} tokens, CLIPModel takes 1 to {most}",
                text.len()
            )));
        }
        Ok(&text[..=end])
    }
}

impl Texts {
    fn new(texts: &[&[u32]]) -> Texts {
        let spans = Spans::new(texts.iter().map(|text| text.len()));
        let rows = |rows: Vec<u32>| Rows::new(rows.into(), Learned::All);
        Texts {
            ids: rows(texts.concat()),
            positions: rows(texts.iter().flat_map(|text| 0..text.len() as u32).collect()),
            last: rows(spans.iter().map(|rows| rows.end as u32 - 1).collect()),
            causal: Causal::new(&spans),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text_config: &str, texts: [&[u32]; 2]) -> Result<ClipZeroShot> {
        let json = format!(r#"{{"vision_config": {{}}, "text_config": {{{text_config}}}}}"#);
        let classes = vec!["c0".to_owned(), "c1".to_owned()];
        ClipZeroShot::of(&Settings::parse(&json)?, classes, |_| Ok(texts.map(<[u32]>::to_vec).to_vec()))
    }

    fn error(text_config: &str, texts: [&[u32]; 2]) -> String {
        of(text_config, texts).err().map(|e| e.chain()).unwrap_or_default()
    }

    #[test]
    fn an_empty_tower_is_transformers_default() {
        let clip = of("", [&[49406, 5, 49407], &[49406, 49407, 49407]]).unwrap();
        let mut listing = crate::parameters::visitor::Listing::default();
        clip.parameters(&mut listing).unwrap();
        // As in openai/clip-vit-base-patch32 less its two position_ids: 398.
        assert_eq!(listing.tensors.len(), 7 + 12 * 16 + 4 + 12 * 16 + 3);
        assert!(listing.tensors.contains(&("logit_scale".to_owned(), vec![])));
        assert_eq!(clip.classifier().classes.names(), ["c0", "c1"]);
    }

    #[test]
    fn a_text_ends_where_transformers_looks() {
        let lengths = |end: u32, texts: [&[u32]; 2]| {
            let clip = of(&format!(r#""vocab_size": 100, "eos_token_id": {end}"#), texts).unwrap();
            clip.prompts[0].last.clone()
        };
        let rows = |at: [u32; 2]| format!("{:?}", Rows::new(at.to_vec().into(), Learned::All));
        // The first of those tokens, which may pad, too.
        assert_eq!(format!("{:?}", lengths(9, [&[1, 9, 9, 9], &[1, 50, 9]])), rows([1, 4]));
        assert_eq!(format!("{:?}", lengths(2, [&[1, 99, 2, 99], &[50, 2, 1]])), rows([1, 2]));
    }

    #[test]
    fn prompts_that_the_tower_cannot_take_are_refused() {
        let small = r#""vocab_size": 10, "eos_token_id": 9, "max_position_embeddings": 3"#;
        assert!(error(small, [&[1, 9], &[10, 9]]).contains("token 10 of a prompt is not one of the 10"));
        assert!(error(small, [&[1, 9], &[1, 2]]).contains("does not have the one that ends texts, 9"));
        assert!(
            error(small, [&[1, 9], &[1, 2, 3, 9]]).contains("a prompt of 4 tokens, CLIPModel takes 1 to 3")
        );
        assert!(error(small, [&[1, 9], &[]]).contains("a prompt of 0 tokens"));
        assert!(error(r#""eos_token_id": [1, 2]"#, [&[1], &[2]]).contains("not understood"));
        assert!(error(r#""num_attention_heads": 7"#, [&[1], &[2]]).contains("not a multiple"));
        let epsilon = error(r#""layer_norm_eps": 2147483648"#, [&[1], &[2]]);
        assert!(epsilon.contains("layer_norm_eps is 2147483648"), "{epsilon}");
        let without = ClipZeroShot::from_spec(&EvaluatorSpec::default()).err().unwrap().chain();
        assert!(without.starts_with("CLIPModel compares images with texts and has no classes"), "{without}");
    }
}
