//! `DeiTForImageClassification`, and with a teacher: a vision transformer with one more token for the whole, which
//! learned from another model (Touvron et al., "Training data-efficient image transformers & distillation through
//! attention").

use burn::tensor::Tensor;
use soup_core::Result;

use crate::architecture::Architecture;
use crate::config::{ImageClassifier, Settings};
use crate::kernels::{Activation, Kernels};
use crate::kind::Images;
use crate::models::vit::{Encoder, EncoderConfig};
use crate::parameters::visitor::{Form, Loaded, Visitor};
use crate::transformer::Linear;

const MODEL_TYPE: &str = "deit";
/// The tokens for the whole, in their order.
const WHOLE: [&str; 2] = ["cls_token", "distillation_token"];

/// What `config.json` says about a `DeiTForImageClassification`. Its options and their defaults are those of a ViT.
pub(crate) struct Deit {
    encoder: EncoderConfig,
}

/// A `DeiTForImageClassification`: its classifier looks at the first token only.
pub(crate) struct DeitModel<F: Form> {
    encoder: Encoder<F>,
    classifier: Linear<F>,
}

impl Architecture for Deit {
    const NAME: &str = "DeiTForImageClassification";
    const MODEL_TYPE: &str = MODEL_TYPE;

    type Kind = Images;
    type Model<F: Form> = DeitModel<F>;

    fn from_json(text: &str) -> Result<Self> {
        Ok(Deit { encoder: EncoderConfig::read(&Settings::parse(text)?)? })
    }

    fn classifier(&self) -> &ImageClassifier {
        &self.encoder.transformer.classifier
    }

    fn parameters<V: Visitor>(&self, visitor: &mut V) -> Result<DeitModel<V::Form>> {
        let config = &self.encoder.transformer;
        Ok(DeitModel {
            encoder: Encoder::visit(visitor, "deit", &WHOLE, &self.encoder)?,
            classifier: Linear::classifier(visitor, "classifier", config.hidden, &config.classifier)?,
        })
    }

    fn forward<B: Kernels>(&self, model: &DeitModel<Loaded<B>>, pixels: Tensor<B, 4>) -> Tensor<B, 2> {
        let state = model.encoder.forward(pixels, 1, &self.encoder);
        model.classifier.forward(state, Activation::Linear)
    }
}

/// What `config.json` says about a `DeiTForImageClassificationWithTeacher`.
pub(crate) struct DeitWithTeacher {
    encoder: EncoderConfig,
}

/// A `DeiTForImageClassificationWithTeacher`: each token for the whole has a classifier, and their mean counts.
pub(crate) struct DeitWithTeacherModel<F: Form> {
    encoder: Encoder<F>,
    classifier: Linear<F>,
    distilled: Linear<F>,
}

impl Architecture for DeitWithTeacher {
    const NAME: &str = "DeiTForImageClassificationWithTeacher";
    const MODEL_TYPE: &str = MODEL_TYPE;

    type Kind = Images;
    type Model<F: Form> = DeitWithTeacherModel<F>;

    fn from_json(text: &str) -> Result<Self> {
        Ok(DeitWithTeacher { encoder: EncoderConfig::read(&Settings::parse(text)?)? })
    }

    fn classifier(&self) -> &ImageClassifier {
        &self.encoder.transformer.classifier
    }

    fn parameters<V: Visitor>(&self, visitor: &mut V) -> Result<DeitWithTeacherModel<V::Form>> {
        let encoder = Encoder::visit(visitor, "deit", &WHOLE, &self.encoder)?;
        let config = &self.encoder.transformer;
        let mut classifier = |name| Linear::classifier(visitor, name, config.hidden, &config.classifier);
        Ok(DeitWithTeacherModel {
            encoder,
            classifier: classifier("cls_classifier")?,
            distilled: classifier("distillation_classifier")?,
        })
    }

    fn forward<B: Kernels>(
        &self,
        model: &DeitWithTeacherModel<Loaded<B>>,
        pixels: Tensor<B, 4>,
    ) -> Tensor<B, 2> {
        let state = model.encoder.forward(pixels, WHOLE.len(), &self.encoder);
        let [rows, hidden] = state.dims();
        let batch = rows / WHOLE.len();
        let state = state.reshape([batch, WHOLE.len(), hidden]);
        let of = |token: usize| -> Tensor<B, 2> {
            state.clone().slice([0..batch, token..token + 1]).reshape([batch, hidden])
        };
        let logits = model.classifier.forward(of(0), Activation::Linear);
        let distilled = model.distilled.forward(of(1), Activation::Linear);
        (logits + distilled) / 2.0
    }
}
