//! `ResNetForImageClassification`: a stem, stages of residual layers, and a linear classifier of the mean over the image (He et al.,
//! "Deep residual learning for image recognition").
//!
//! Images may have any size. Inside a layer the activation is ReLU whatever `hidden_act` says: that is the stem's and the one after the
//! sum, as in transformers.

use burn::tensor::Tensor;
use serde::Deserialize;
use soup_core::Result;

use crate::architecture::Architecture;
use crate::config::{ImageClassifier, Settings, check_size, wrong};
use crate::convolution::norm::Norms;
use crate::convolution::{Maps, Normed, Shape};
use crate::kernels::windows::Window;
use crate::kernels::{Activation, Kernels};
use crate::kind::Images;
use crate::parameters::visitor::{Form, Loaded, Visitor};
use crate::preprocess::ImageSize;
use crate::transformer::Linear;
use crate::transformer::config::activation;

/// Most stages, and most layers of all of them.
const STAGES_MAX: usize = 64;
const LAYERS_MAX: usize = 1024;
/// Epsilon of the normalisations: PyTorch's default, which no setting changes.
const EPSILON: f64 = 1e-5;
/// How many times fewer channels are within a bottleneck.
const REDUCTION: usize = 4;

/// What `config.json` says about a `ResNetForImageClassification`.
pub(crate) struct Resnet {
    classifier: ImageClassifier,
    embedding: usize,
    stages: Vec<Stage>,
    kind: Kind,
    activation: Activation,
}

/// Layers of one width.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Stage {
    channels: usize,
    layers: usize,
    /// Of its first layer.
    stride: usize,
}

/// What is in a layer.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    /// Two windows of 3 x 3 pixels.
    Basic,
    /// One of 3 x 3 pixels between two of one pixel.
    Bottleneck {
        /// Whether a stride is the first one's instead of the second one's.
        first: bool,
    },
}

/// The file's own form; defaults are those of transformers' `ResNetConfig`.
#[derive(Deserialize)]
#[serde(default)]
struct Raw {
    embedding_size: usize,
    hidden_sizes: Vec<usize>,
    depths: Vec<usize>,
    layer_type: String,
    hidden_act: String,
    downsample_in_first_stage: bool,
    downsample_in_bottleneck: bool,
}

impl Default for Raw {
    fn default() -> Self {
        Raw {
            embedding_size: 64,
            hidden_sizes: vec![256, 512, 1024, 2048],
            depths: vec![3, 4, 6, 3],
            layer_type: "bottleneck".to_owned(),
            hidden_act: "relu".to_owned(),
            downsample_in_first_stage: false,
            downsample_in_bottleneck: false,
        }
    }
}

impl Raw {
    /// # Errors
    /// [`Data`](soup_core::ErrorKind::Data) where sizes are out of range.
    fn stages(&self) -> Result<Vec<Stage>> {
        let stages = self.hidden_sizes.len();
        if !(1..=STAGES_MAX).contains(&stages) || self.depths.len() != stages {
            return Err(wrong(format!(
                "hidden_sizes has {stages} stages and depths {}, expected as many, 1 to {STAGES_MAX}",
                self.depths.len()
            )));
        }
        // A stage has a first layer whatever its depth.
        let layers = self.depths.iter().map(|&depth| depth.max(1));
        if layers.clone().any(|layers| layers > LAYERS_MAX) || layers.clone().sum::<usize>() > LAYERS_MAX {
            return Err(wrong(format!("depths has more than {LAYERS_MAX} layers")));
        }
        let all = self.hidden_sizes.iter().zip(layers).enumerate().map(|(at, (&channels, layers))| {
            check_size("hidden_sizes", channels)?;
            let stride = if at > 0 || self.downsample_in_first_stage { 2 } else { 1 };
            Ok(Stage { channels, layers, stride })
        });
        all.collect()
    }

    fn kind(&self) -> Result<Kind> {
        match self.layer_type.as_str() {
            "basic" => Ok(Kind::Basic),
            "bottleneck" => {
                if let Some(narrow) = self.hidden_sizes.iter().find(|&&channels| channels < REDUCTION) {
                    return Err(wrong(format!(
                        "hidden_sizes has {narrow}, expected at least {REDUCTION}: a bottleneck has a fourth of the channels"
                    )));
                }
                Ok(Kind::Bottleneck { first: self.downsample_in_bottleneck })
            }
            other => Err(wrong(format!("unknown layer_type {other:?}: known are basic and bottleneck"))),
        }
    }
}

/// A `ResNetForImageClassification`.
pub(crate) struct ResnetModel<F: Form> {
    stem: Normed<F>,
    layers: Vec<Layer<F>>,
    classifier: Linear<F>,
}

impl Architecture for Resnet {
    const NAME: &str = "ResNetForImageClassification";
    const MODEL_TYPE: &str = "resnet";
    const DEPTH: &str = "depths";
    const ANY_SIZE: bool = true;

    type Kind = Images;
    type Model<F: Form> = ResnetModel<F>;

    fn from_json(text: &str) -> Result<Self> {
        let settings = Settings::parse(text)?;
        let raw = settings.read::<Raw>()?;
        check_size("embedding_size", raw.embedding_size)?;
        Ok(Resnet {
            classifier: settings.classifier()?,
            embedding: raw.embedding_size,
            stages: raw.stages()?,
            kind: raw.kind()?,
            activation: activation(&raw.hidden_act)?,
        })
    }

    fn resized(mut self, size: ImageSize) -> Result<Self> {
        // Every window is padded, so that something is left of any image.
        self.classifier.image = size;
        Ok(self)
    }

    fn classifier(&self) -> &ImageClassifier {
        &self.classifier
    }

    fn parameters<V: Visitor>(&self, visitor: &mut V) -> Result<ResnetModel<V::Form>> {
        let stem = Shape::dense([self.classifier.channels, self.embedding], Window::centred(7, 2));
        let stem = visit(visitor, "resnet.embedder.embedder", stem)?;
        let (mut channels, mut layers) = (self.embedding, Vec::new());
        for (at, stage) in self.stages.iter().enumerate() {
            for index in 0..stage.layers {
                let name = format!("resnet.encoder.stages.{at}.layers.{index}");
                let stride = if index == 0 { stage.stride } else { 1 };
                layers.push(Layer::visit(visitor, &name, (self.kind, stride), [channels, stage.channels])?);
                channels = stage.channels;
            }
        }
        let classifier = Linear::classifier(visitor, "classifier.1", channels, &self.classifier)?;
        Ok(ResnetModel { stem, layers, classifier })
    }

    fn forward<B: Kernels>(&self, model: &ResnetModel<Loaded<B>>, pixels: Tensor<B, 4>) -> Tensor<B, 2> {
        self.forward_by(model, pixels, &mut Norms::Stored)
    }

    fn forward_by<B: Kernels>(
        &self,
        model: &ResnetModel<Loaded<B>>,
        pixels: Tensor<B, 4>,
        norms: &mut Norms<'_, B>,
    ) -> Tensor<B, 2> {
        let x = model.stem.forward(&Maps::of(pixels), None, self.activation, norms);
        let x = x.largest(Window::centred(3, 2));
        let x = model.layers.iter().fold(x, |x, layer| layer.forward(&x, self.activation, norms));
        model.classifier.forward(x.mean(), Activation::Linear)
    }
}

/// A convolution whose parts are called as in every layer of these.
fn visit<V: Visitor>(visitor: &mut V, at: &str, shape: Shape) -> Result<Normed<V::Form>> {
    let (convolution, norm) = (format!("{at}.convolution"), format!("{at}.normalization"));
    Normed::visit(visitor, (&convolution, &norm), shape, EPSILON)
}

struct Layer<F: Form> {
    /// What the input goes through before it is added; `None` where it stays as it is.
    shortcut: Option<Normed<F>>,
    branch: Vec<Normed<F>>,
}

impl<F: Form> Layer<F> {
    /// The one called `at`, from so many channels to so many.
    fn visit(
        visitor: &mut impl Visitor<Form = F>,
        at: &str,
        (kind, stride): (Kind, usize),
        [channels, outputs]: [usize; 2],
    ) -> Result<Self> {
        let shape = |sizes, side, stride| Shape::dense(sizes, Window::centred(side, stride));
        let shortcut = (channels != outputs || stride != 1).then(|| shape([channels, outputs], 1, stride));
        let branch = match kind {
            Kind::Basic => vec![shape([channels, outputs], 3, stride), shape([outputs; 2], 3, 1)],
            Kind::Bottleneck { first } => {
                let (narrow, strides) = (outputs / REDUCTION, if first { [stride, 1] } else { [1, stride] });
                vec![
                    shape([channels, narrow], 1, strides[0]),
                    shape([narrow; 2], 3, strides[1]),
                    shape([narrow, outputs], 1, 1),
                ]
            }
        };
        let shortcut = shortcut.map(|shape| visit(visitor, &format!("{at}.shortcut"), shape)).transpose()?;
        let branch = branch.into_iter().enumerate();
        let branch = branch.map(|(index, shape)| visit(visitor, &format!("{at}.layer.{index}"), shape));
        Ok(Layer { shortcut, branch: branch.collect::<Result<_>>()? })
    }
}

impl<B: Kernels> Layer<Loaded<B>> {
    fn forward(&self, x: &Maps<B>, act: Activation, norms: &mut Norms<'_, B>) -> Maps<B> {
        let Some((last, others)) = self.branch.split_last() else { return x.clone() };
        let shortcut = self.shortcut.as_ref().map(|own| own.forward(x, None, Activation::Linear, norms));
        let within = others.iter().fold(x.clone(), |x, own| own.forward(&x, None, Activation::Relu, norms));
        last.forward(&within, Some(shortcut.as_ref().unwrap_or(x)), act, norms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parameters::visitor::Listing;

    fn tensors(json: &str) -> Vec<(String, Vec<u64>)> {
        let mut listing = Listing::default();
        Resnet::from_json(json).unwrap().parameters(&mut listing).unwrap();
        listing.tensors
    }

    #[test]
    fn an_empty_config_is_transformers_default() {
        let all = tensors("{}");
        // microsoft/resnet-50: 53 convolutions with five tensors each (and a counter, which nothing needs), and the classifier.
        assert_eq!(all.len(), 53 * 5 + 2);
        assert!(all.contains(&("resnet.embedder.embedder.convolution.weight".to_owned(), vec![64, 3, 7, 7])));
        assert!(all.contains(&("classifier.1.weight".to_owned(), vec![2, 2048])));
        let name = "resnet.encoder.stages.3.layers.0.layer.1.convolution.weight".to_owned();
        assert!(all.contains(&(name, vec![512, 512, 3, 3])));
    }

    #[test]
    fn a_shortcut_is_where_something_changes() {
        let count = |json: &str| {
            let all = tensors(json);
            all.iter().filter(|(name, _)| name.ends_with("shortcut.convolution.weight")).count()
        };
        let small = |more: &str| {
            format!(
                r#"{{"embedding_size": 8, "hidden_sizes": [8, 8], "depths": [2, 0], "layer_type": "basic"{more}}}"#
            )
        };
        assert_eq!(count(&small("")), 1);
        assert_eq!(count(&small(r#", "downsample_in_first_stage": true"#)), 2);
        assert_eq!(tensors(&small("")).len(), (1 + 4 + 3) * 5 + 2);
    }

    #[test]
    fn bad_configs_say_what_is_wrong() {
        let error = |json: &str| Resnet::from_json(json).err().map(|e| e.chain()).unwrap();
        assert!(error(r#"{"layer_type": "preact"}"#).contains("unknown layer_type \"preact\""));
        assert!(error(r#"{"hidden_act": "mish"}"#).contains("unknown hidden_act \"mish\""));
        assert!(error(r#"{"depths": [1, 2]}"#).contains("hidden_sizes has 4 stages and depths 2"));
        assert!(error(r#"{"depths": [], "hidden_sizes": []}"#).contains("0 stages"));
        assert!(error(r#"{"depths": [1, 1, 1, 5000]}"#).contains("more than 1024 layers"));
        assert!(
            error(r#"{"hidden_sizes": [256, 3, 4, 8]}"#).contains("hidden_sizes has 3, expected at least 4")
        );
        assert!(error(r#"{"hidden_sizes": [256, 0, 4, 8]}"#).contains("hidden_sizes is 0"));
        assert!(error(r#"{"embedding_size": 0}"#).contains("embedding_size is 0"));
        assert!(error(r#"{"num_channels": 4}"#).contains("num_channels is 4"));
        assert!(error(r#"{"downsample_in_bottleneck": "yes"}"#).contains("not understood"));
    }
}
