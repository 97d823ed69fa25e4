//! `EfficientNetForImageClassification`: a stem, blocks that widen, look at each channel's neighbourhood, weigh the channels and narrow,
//! and a linear classifier of what is pooled (Tan and Le, "EfficientNet: rethinking model scaling for convolutional neural networks").
//!
//! Images may have any size; `image_size` says which they have where the preprocessing does not.

pub(crate) mod body;

use burn::tensor::Tensor;
use serde_json::json;
use soup_core::Result;

use self::body::{Body, BodyConfig};
use crate::architecture::Architecture;
use crate::config::{ImageClassifier, Settings, wrong};
use crate::convolution::norm::Norms;
use crate::convolution::{Normed, Shape};
use crate::kernels::windows::Window;
use crate::kernels::{Activation, Kernels};
use crate::kind::Images;
use crate::parameters::visitor::{Form, Loaded, Visitor};
use crate::preprocess::ImageSize;
use crate::transformer::Linear;

/// Channels before the pooling, before they are scaled.
const TOP: usize = 1280;

/// What `config.json` says about an `EfficientNetForImageClassification`.
pub(crate) struct EfficientNet {
    classifier: ImageClassifier,
    body: BodyConfig,
    top: Shape,
}

/// An `EfficientNetForImageClassification`.
pub(crate) struct EfficientNetModel<F: Form> {
    body: Body<F>,
    top: Normed<F>,
    classifier: Linear<F>,
}

impl Architecture for EfficientNet {
    const NAME: &str = "EfficientNetForImageClassification";
    const MODEL_TYPE: &str = "efficientnet";
    const DEPTH: &str = "num_block_repeats or depth_coefficient";
    const ANY_SIZE: bool = true;

    type Kind = Images;
    type Model<F: Form> = EfficientNetModel<F>;

    fn from_json(text: &str) -> Result<Self> {
        let settings = Settings::parse(text)?.or("image_size", json!(600));
        let classifier = settings.classifier()?;
        let body = BodyConfig::read(&settings, classifier.channels)?;
        let top = body.scaled("channels of the top", TOP)?;
        if top != body.hidden_dim() {
            return Err(wrong(format!(
                "hidden_dim is {}, expected {top}: {TOP} channels scaled by width_coefficient",
                body.hidden_dim()
            )));
        }
        let top = Shape::dense([body.outputs(), top], Window::centred(1, 1));
        Ok(EfficientNet { classifier, body, top })
    }

    fn resized(mut self, size: ImageSize) -> Result<Self> {
        self.body.check_images(size)?;
        self.classifier.image = size;
        Ok(self)
    }

    fn classifier(&self) -> &ImageClassifier {
        &self.classifier
    }

    fn parameters<V: Visitor>(&self, visitor: &mut V) -> Result<EfficientNetModel<V::Form>> {
        let names = ("efficientnet.encoder.top_conv", "efficientnet.encoder.top_bn");
        Ok(EfficientNetModel {
            body: Body::visit(visitor, "efficientnet", &self.body)?,
            top: Normed::visit(visitor, names, self.top, self.body.epsilon)?,
            classifier: Linear::classifier(visitor, "classifier", self.top.outputs, &self.classifier)?,
        })
    }

    fn forward<B: Kernels>(
        &self,
        model: &EfficientNetModel<Loaded<B>>,
        pixels: Tensor<B, 4>,
    ) -> Tensor<B, 2> {
        self.forward_by(model, pixels, &mut Norms::Stored)
    }

    fn forward_by<B: Kernels>(
        &self,
        model: &EfficientNetModel<Loaded<B>>,
        pixels: Tensor<B, 4>,
        norms: &mut Norms<'_, B>,
    ) -> Tensor<B, 2> {
        let act = self.body.activation;
        let x = model.top.forward(&model.body.forward(pixels, act, norms), None, act, norms);
        model.classifier.forward(self.body.pooling.of(x), Activation::Linear)
    }
}

#[cfg(test)]
mod tests;
