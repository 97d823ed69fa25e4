//! `AlignModel` (Jia et al., "Scaling up visual and vision-language representation learning with noisy text supervision"): what an
//! EfficientNet's last block leaves of an image, pooled, is compared with the first token of a text, projected, of an encoder like BERT's.
//! A logit is their cosine by a temperature, which is learned.
//!
//! The pooler of the encoder has no part in it: a checkpoint's is ignored, and its gradient is zero. Images may have any size.

use burn::tensor::Tensor;
use serde::Deserialize;
use serde_json::json;
use soup_core::{Error, Result};

use crate::architecture::Architecture;
use crate::classes::Classes;
use crate::config::{ImageClassifier, Settings, check_size, wrong};
use crate::convolution::norm::Norms;
use crate::evaluator::EvaluatorSpec;
use crate::kernels::texts::Spans;
use crate::kernels::{Activation, Kernels};
use crate::kind::{Images, TextBatch, TextClassifier};
use crate::models::bert;
use crate::models::efficientnet::body::{Body, BodyConfig};
use crate::models::zero_shot::{Described, check_known, classes_of, cosines, longest, some_at_a_time};
use crate::parameters::visitor::{Form, Loaded, Visitor};
use crate::preprocess::ImageSize;
use crate::tokenizer::{Encoded, Takes};
use crate::transformer::Linear;
use crate::transformer::texts::Encoder;
use crate::transformer::texts::config::TextConfig;

/// What `config.json` says about an `AlignModel`, and the classes.
pub(crate) struct Align {
    classifier: ImageClassifier,
    images: BodyConfig,
    texts: TextConfig,
    /// The prompts, some at a time.
    prompts: Vec<TextBatch>,
}

/// An `AlignModel`.
pub(crate) struct AlignModel<F: Form> {
    images: Body<F>,
    texts: Encoder<F>,
    projection: Linear<F>,
    /// What cosines are divided by, `[1]`.
    temperature: F::Parameter<1>,
    /// What the prompts come out as, once that is known: `[classes, width]`.
    classes: F::Kept<2>,
}

/// The file's own form of where images and texts are compared; the default is that of transformers' `AlignConfig`.
#[derive(Deserialize)]
#[serde(default)]
struct Raw {
    projection_dim: usize,
}

impl Default for Raw {
    fn default() -> Self {
        Raw { projection_dim: 640 }
    }
}

impl Architecture for Align {
    const NAME: &str = "AlignModel";
    const MODEL_TYPE: &str = "align";
    const ANY_SIZE: bool = true;

    type Kind = Images;
    type Model<F: Form> = AlignModel<F>;

    fn from_json(_: &str) -> Result<Self> {
        Err(Error::data(
            "AlignModel compares images with texts and has no classes of its own: there are no prompts",
        ))
    }

    fn from_spec(spec: &EvaluatorSpec) -> Result<Self> {
        let Some(described) = Described::by(spec)? else { return Self::from_json(&spec.config_json) };
        let classes = described.prompts.classes().to_vec();
        Self::of(&Settings::parse(&spec.config_json)?, classes, |texts| {
            let longest = longest(texts.classifier.longest);
            described.tokens(Takes { longest, types: true, class: "BertTokenizer" })
        })
    }

    fn resized(mut self, size: ImageSize) -> Result<Self> {
        self.images.check_images(size)?;
        self.classifier.image = size;
        Ok(self)
    }

    fn classifier(&self) -> &ImageClassifier {
        &self.classifier
    }

    fn is_known(&self, tensor: &str) -> bool {
        tensor.contains("text_model.pooler.")
    }

    fn parameters<V: Visitor>(&self, visitor: &mut V) -> Result<AlignModel<V::Form>> {
        let (width, hidden) = (self.images.outputs(), self.texts.hidden);
        Ok(AlignModel {
            images: Body::visit(visitor, "vision_model", &self.images)?,
            texts: Encoder::visit(visitor, "text_model", &bert::NAMES, &self.texts)?,
            projection: Linear::visit(visitor, &["text_projection"], width, &[hidden], true)?,
            temperature: visitor.reshaped("temperature".to_owned(), Vec::new(), [1])?,
            classes: Default::default(),
        })
    }

    fn forward<B: Kernels>(&self, model: &AlignModel<Loaded<B>>, pixels: Tensor<B, 4>) -> Tensor<B, 2> {
        self.forward_by(model, pixels, &mut Norms::Stored)
    }

    fn forward_by<B: Kernels>(
        &self,
        model: &AlignModel<Loaded<B>>,
        pixels: Tensor<B, 4>,
        norms: &mut Norms<'_, B>,
    ) -> Tensor<B, 2> {
        let maps = model.images.forward(pixels, self.images.activation, norms);
        let classes = match model.temperature.is_learned() {
            true => self.classes(model),
            false => model.classes.get_or_init(|| self.classes(model)).clone(),
        };
        let cosines = cosines(self.images.pooling.of(maps), classes);
        let temperature: Tensor<B, 2> = model.temperature.on(&cosines).reshape([1, 1]);
        cosines / temperature
    }
}

impl Align {
    /// Of classes with as many prompts each, which become what `tokens` gives for a text tower, class by class.
    fn of(
        settings: &Settings,
        classes: Vec<String>,
        tokens: impl FnOnce(&TextConfig) -> Result<Vec<Encoded>>,
    ) -> Result<Self> {
        let part = |name: &str| settings.part(name)?.ok_or_else(|| wrong(format!("there is no {name}")));
        let vision = part("vision_config")?.or("image_size", json!(600));
        let mut classifier = vision.classifier()?;
        classifier.classes = Classes::new(classes, &Default::default());
        let images = BodyConfig::read(&vision, classifier.channels)?;
        let (projection, width) = (settings.read::<Raw>()?.projection_dim, images.outputs());
        check_size("projection_dim", projection)?;
        if projection != width {
            return Err(wrong(format!(
                "projection_dim is {projection}, expected {width}: so many channels has an image, of which none is projected \
                 (out_channels scaled by width_coefficient)"
            )));
        }
        let texts = TextConfig::read(&part("text_config")?)?;
        let prompts = batches(tokens(&texts)?, &texts.classifier)?;
        Ok(Align { classifier, images, texts, prompts })
    }

    /// What the prompts of each class come out as, of length one: `[classes, width]`.
    fn classes<B: Kernels>(&self, model: &AlignModel<Loaded<B>>) -> Tensor<B, 2> {
        let texts = self.prompts.iter().map(|texts| {
            let first = model.texts.first(texts, &self.texts);
            model.projection.forward(first, Activation::Linear)
        });
        classes_of(texts.collect(), self.classifier.outputs())
    }
}

/// Prompts that a text tower can take, some at a time.
fn batches(prompts: Vec<Encoded>, takes: &TextClassifier) -> Result<Vec<TextBatch>> {
    let most = longest(takes.longest);
    for Encoded { ids, types, .. } in &prompts {
        check_known(ids, takes.vocabulary, Align::NAME)?;
        if !(1..=most).contains(&ids.len()) {
            return Err(Error::data(format!(
                "a prompt of {} tokens, AlignModel takes 1 to {most}",
                ids.len()
            )));
        }
        let known = takes.types.unwrap_or(usize::MAX);
        if let Some(of) = types.iter().find(|&&of| usize::from(of) >= known) {
            return Err(Error::data(format!(
                "a prompt has a token of type {of}, and AlignModel has {known} of them: type_vocab_size in text_config"
            )));
        }
    }
    let batch = |texts: Vec<Encoded>| TextBatch {
        texts: Spans::new(texts.iter().map(|text| text.ids.len())),
        types: texts.iter().flat_map(|text| &text.types).map(|&of| u32::from(of)).collect(),
        ids: texts.into_iter().flat_map(|text| text.ids).collect(),
    };
    Ok(some_at_a_time(prompts, |text| text.ids.len()).into_iter().map(batch).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parameters::visitor::Listing;

    fn text(ids: &[u32], of: u8) -> Encoded {
        Encoded { ids: ids.to_vec(), types: vec![of; ids.len()], cut: false }
    }

    fn of(json: &str, texts: Vec<Encoded>) -> Result<Align> {
        let classes = vec!["c0".to_owned(), "c1".to_owned()];
        Align::of(&Settings::parse(json)?, classes, |_| Ok(texts))
    }

    fn error(json: &str) -> String {
        of(json, vec![text(&[1], 0), text(&[2], 0)]).err().map(|e| e.chain()).unwrap_or_default()
    }

    #[test]
    fn empty_towers_are_transformers_defaults() {
        let align = of(
            r#"{"vision_config": {}, "text_config": {}}"#,
            vec![text(&[101, 5, 102], 0), text(&[101, 102], 0)],
        );
        let align = align.unwrap();
        let mut listing = Listing::default();
        align.parameters(&mut listing).unwrap();
        // As in kakaobrain/align-base, less the pooler's two and a count of batches for each of its 162 normalisations.
        let (stem, blocks) = (5, 4 * 14 + 51 * 19);
        let bert = 5 + 12 * 16;
        assert_eq!(align.images.outputs(), 640);
        assert_eq!(listing.tensors.len() - bert - 3, stem + blocks);
        assert!(listing.tensors.contains(&("temperature".to_owned(), vec![])));
        assert!(listing.tensors.contains(&("text_projection.weight".to_owned(), vec![640, 768])));
        assert_eq!(align.classifier().classes.names(), ["c0", "c1"]);
        assert_eq!(align.classifier().image, ImageSize { height: 600, width: 600 });
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        assert!(error("{}").contains("there is no vision_config"));
        assert!(error(r#"{"vision_config": {}}"#).contains("there is no text_config"));
        let of = |vision: &str, text: &str, whole: &str| {
            error(&format!(r#"{{"vision_config": {{{vision}}}, "text_config": {{{text}}}{whole}}}"#))
        };
        assert!(of("", "", r#", "projection_dim": 512"#).contains("projection_dim is 512, expected 640"));
        assert!(of(r#""pooling_type": "sum""#, "", "").contains("unknown pooling_type \"sum\""));
        assert!(of(r#""num_channels": 2"#, "", "").contains("num_channels is 2"));
        assert!(of("", r#""hidden_act": "mish""#, "").contains("unknown hidden_act \"mish\""));
        assert!(
            of("", r#""position_embedding_type": "relative_key""#, "").contains("position_embedding_type")
        );
        assert!(of("", r#""is_decoder": true"#, "").contains("is_decoder is true"));
        let without = Align::from_spec(&EvaluatorSpec::default()).err().unwrap().chain();
        assert!(without.starts_with("AlignModel compares images with texts and has no classes"), "{without}");
    }

    #[test]
    fn prompts_that_the_tower_cannot_take_are_refused() {
        let json =
            r#"{"vision_config": {}, "text_config": {"vocab_size": 10, "max_position_embeddings": 3}}"#;
        let error = |texts: [Encoded; 2]| of(json, texts.into()).err().map(|e| e.chain()).unwrap_or_default();
        assert!(error([text(&[1], 0), text(&[10], 0)]).contains("token 10 of a prompt is not one of the 10"));
        assert!(error([text(&[1], 0), text(&[1; 4], 0)]).contains("a prompt of 4 tokens, AlignModel takes"));
        assert!(error([text(&[1], 0), text(&[], 0)]).contains("a prompt of 0 tokens"));
        assert!(error([text(&[1], 2), text(&[1], 0)]).contains("a token of type 2, and AlignModel has 2"));
    }

    #[test]
    fn images_have_to_leave_something() {
        let of = |height, width| {
            let align = of(r#"{"vision_config": {}, "text_config": {}}"#, vec![text(&[1], 0), text(&[2], 0)])
                .unwrap();
            align.resized(ImageSize { height, width }).map(|_| ()).map_err(|e| e.chain())
        };
        assert_eq!(of(289, 289), Ok(()));
        assert!(of(10, 289).unwrap_err().contains("the images are too small"));
    }
}
