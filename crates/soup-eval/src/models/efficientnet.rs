//! `EfficientNetForImageClassification`: a stem, blocks that widen, look at each channel's neighbourhood, weigh the channels and narrow,
//! and a linear classifier of what is pooled (Tan and Le, "EfficientNet: rethinking model scaling for convolutional neural networks").
//!
//! Images may have any size; `image_size` says which they have where the preprocessing does not.

use burn::tensor::Tensor;
use serde::Deserialize;
use serde_json::json;
use soup_core::Result;

use crate::architecture::Architecture;
use crate::config::{ImageClassifier, Settings, check_size, wrong};
use crate::convolution::norm::Norms;
use crate::convolution::{Maps, Normed, Shape, check_side};
use crate::kernels::windows::Window;
use crate::kernels::{Activation, Kernels};
use crate::kind::Images;
use crate::parameters::visitor::{Form, Loaded, Visitor};
use crate::preprocess::ImageSize;
use crate::transformer::Linear;
use crate::transformer::config::activation;

/// Most stages, and most blocks of all of them.
const STAGES_MAX: usize = 64;
const BLOCKS_MAX: usize = 1024;
/// Channels after the stem and before the pooling, before they are scaled.
const STEM: usize = 32;
const TOP: usize = 1280;

/// What `config.json` says about an `EfficientNetForImageClassification`.
pub(crate) struct EfficientNet {
    classifier: ImageClassifier,
    stem: Shape,
    blocks: Vec<BlockConfig>,
    top: Shape,
    pooling: Pooling,
    activation: Activation,
    epsilon: f64,
}

/// What a block is made of.
#[derive(Clone, Copy, Debug, PartialEq)]
struct BlockConfig {
    /// Of one pixel, to more channels; `None` where there are as many.
    expansion: Option<Shape>,
    depthwise: Shape,
    /// Channels that the weights of channels are made of.
    squeezed: usize,
    projection: Shape,
    /// Whether the input is added in the end.
    residual: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Pooling {
    Mean,
    Max,
}

/// The file's own form; defaults are those of transformers' `EfficientNetConfig`.
#[derive(Deserialize)]
#[serde(default)]
struct Raw {
    width_coefficient: f64,
    depth_coefficient: f64,
    depth_divisor: usize,
    kernel_sizes: Vec<usize>,
    in_channels: Vec<usize>,
    out_channels: Vec<usize>,
    depthwise_padding: Vec<usize>,
    strides: Vec<usize>,
    num_block_repeats: Vec<usize>,
    expand_ratios: Vec<usize>,
    squeeze_expansion_ratio: f64,
    hidden_act: String,
    hidden_dim: usize,
    pooling_type: String,
    batch_norm_eps: f64,
}

impl Default for Raw {
    fn default() -> Self {
        Raw {
            width_coefficient: 2.0,
            depth_coefficient: 3.1,
            depth_divisor: 8,
            kernel_sizes: vec![3, 3, 5, 3, 5, 5, 3],
            in_channels: vec![32, 16, 24, 40, 80, 112, 192],
            out_channels: vec![16, 24, 40, 80, 112, 192, 320],
            depthwise_padding: Vec::new(),
            strides: vec![1, 2, 2, 2, 1, 2, 1],
            num_block_repeats: vec![1, 2, 2, 3, 3, 4, 1],
            expand_ratios: vec![1, 6, 6, 6, 6, 6, 6],
            squeeze_expansion_ratio: 0.25,
            hidden_act: "swish".to_owned(),
            hidden_dim: 2560,
            pooling_type: "mean".to_owned(),
            batch_norm_eps: 0.001,
        }
    }
}

impl Raw {
    /// # Errors
    /// [`Data`](soup_core::ErrorKind::Data), naming a setting that is out of range.
    fn check(&self) -> Result<()> {
        let positive = |name: &str, value: f64| match value > 0.0 && value <= 1e4 {
            true => Ok(()),
            false => Err(wrong(format!("{name} is {value}, expected a positive number of at most 10000"))),
        };
        positive("width_coefficient", self.width_coefficient)?;
        positive("depth_coefficient", self.depth_coefficient)?;
        positive("squeeze_expansion_ratio", self.squeeze_expansion_ratio)?;
        check_size("depth_divisor", self.depth_divisor)?;
        check_size("hidden_dim", self.hidden_dim)?;
        if !(self.batch_norm_eps >= 0.0 && self.batch_norm_eps.is_finite()) {
            let value = self.batch_norm_eps;
            return Err(wrong(format!("batch_norm_eps is {value}, expected a small positive number")));
        }
        let stages = self.in_channels.len();
        if !(1..=STAGES_MAX).contains(&stages) {
            return Err(wrong(format!("in_channels has {stages} stages, expected 1 to {STAGES_MAX}")));
        }
        for (name, list) in [
            ("out_channels", &self.out_channels),
            ("kernel_sizes", &self.kernel_sizes),
            ("strides", &self.strides),
            ("num_block_repeats", &self.num_block_repeats),
            ("expand_ratios", &self.expand_ratios),
        ] {
            if list.len() != stages {
                return Err(wrong(format!("{name} has {} values, and in_channels {stages}", list.len())));
            }
        }
        self.kernel_sizes.iter().try_for_each(|&side| check_side("kernel_sizes", side))?;
        if let Some(stride) = self.strides.iter().find(|&&stride| stride != 1 && stride != 2) {
            return Err(wrong(format!("strides has {stride}, expected 1 or 2")));
        }
        self.expand_ratios.iter().try_for_each(|&ratio| check_size("expand_ratios", ratio))
    }

    /// So many channels, scaled: a multiple of `depth_divisor`, and not much less than exact.
    ///
    /// # Errors
    /// [`Data`](soup_core::ErrorKind::Data), naming the setting `name`.
    fn scaled(&self, name: &str, channels: usize) -> Result<usize> {
        check_size(name, channels)?;
        let (exact, divisor) = (channels as f64 * self.width_coefficient, self.depth_divisor);
        // Truncated, in floating point, as the original does.
        let nearest = (exact + divisor as f64 / 2.0) as usize / divisor * divisor;
        let mut rounded = nearest.max(divisor);
        if (rounded as f64) < 0.9 * exact {
            rounded += divisor;
        }
        check_size(&format!("{name} * width_coefficient"), rounded)?;
        Ok(rounded)
    }

    fn blocks(&self, stem: usize) -> Result<Vec<BlockConfig>> {
        let (mut blocks, mut channels) = (Vec::new(), stem);
        for stage in 0..self.in_channels.len() {
            let inputs = self.scaled("in_channels", self.in_channels[stage])?;
            let outputs = self.scaled("out_channels", self.out_channels[stage])?;
            let repeats = (self.depth_coefficient * self.num_block_repeats[stage] as f64).ceil() as usize;
            if repeats.saturating_add(blocks.len()) > BLOCKS_MAX {
                return Err(wrong(format!(
                    "num_block_repeats * depth_coefficient is more than {BLOCKS_MAX} blocks"
                )));
            }
            for index in 0..repeats {
                let own = if index == 0 { inputs } else { outputs };
                if own != channels {
                    return Err(wrong(format!(
                        "in_channels has {} ({own} scaled) where {channels} channels come in",
                        self.in_channels[stage]
                    )));
                }
                blocks.push(self.block(blocks.len(), stage, index, outputs, own)?);
                channels = outputs;
            }
        }
        match blocks.is_empty() {
            true => Err(wrong("num_block_repeats has no block")),
            false => Ok(blocks),
        }
    }

    /// Block `nth` of all, `index` of its stage.
    fn block(
        &self,
        nth: usize,
        stage: usize,
        index: usize,
        outputs: usize,
        channels: usize,
    ) -> Result<BlockConfig> {
        let (side, ratio) = (self.kernel_sizes[stage], self.expand_ratios[stage]);
        let stride = if index == 0 { self.strides[stage] } else { 1 };
        let wide = channels.saturating_mul(ratio);
        check_size("in_channels * expand_ratios", wide)?;
        let pixel = Window::centred(1, 1);
        let squeezed = ((channels as f64 * self.squeeze_expansion_ratio) as usize).max(1);
        check_size("in_channels * squeeze_expansion_ratio", squeezed)?;
        let window = Window { size: [side; 2], stride, padding: [self.padding(nth, side, stride); 2] };
        Ok(BlockConfig {
            expansion: (ratio != 1).then(|| Shape::dense([channels, wide], pixel)),
            depthwise: Shape { channels: wide, outputs: wide, window, per_channel: true },
            squeezed,
            projection: Shape::dense([wide, outputs], pixel),
            residual: index > 0,
        })
    }

    /// What is added before and after, in both directions. Steps of two pixels are padded by the model itself, on the far side more
    /// unless the block is listed; steps of one so that there is one for every pixel, where a side is even on the far side more.
    fn padding(&self, nth: usize, side: usize, stride: usize) -> [isize; 2] {
        let half = (side / 2) as isize;
        match (stride, self.depthwise_padding.contains(&nth)) {
            (1, _) => {
                let all = side as isize - 1;
                [all / 2, all - all / 2]
            }
            (_, true) => [half, half],
            (_, false) => [half - 1, half],
        }
    }
}

/// An `EfficientNetForImageClassification`.
pub(crate) struct EfficientNetModel<F: Form> {
    stem: Normed<F>,
    blocks: Vec<Block<F>>,
    top: Normed<F>,
    classifier: Linear<F>,
}

impl Architecture for EfficientNet {
    const NAME: &str = "EfficientNetForImageClassification";
    const MODEL_TYPE: &str = "efficientnet";
    const ANY_SIZE: bool = true;
    /// Only the processor's kernels for convolutions and running statistics have been held against others.
    const ON_DEVICES: bool = false;

    type Kind = Images;
    type Model<F: Form> = EfficientNetModel<F>;

    fn from_json(text: &str) -> Result<Self> {
        let settings = Settings::parse(text)?.or("image_size", json!(600));
        let raw = settings.read::<Raw>()?;
        raw.check()?;
        let classifier = settings.classifier()?;
        let stem = raw.scaled("channels of the stem", STEM)?;
        let blocks = raw.blocks(stem)?;
        let last = blocks.last().map_or(stem, |block| block.projection.outputs);
        let top = raw.scaled("channels of the top", TOP)?;
        if top != raw.hidden_dim {
            return Err(wrong(format!(
                "hidden_dim is {}, expected {top}: {TOP} channels scaled by width_coefficient",
                raw.hidden_dim
            )));
        }
        let pooling = match raw.pooling_type.as_str() {
            "mean" => Pooling::Mean,
            "max" => Pooling::Max,
            other => return Err(wrong(format!("unknown pooling_type {other:?}: known are mean and max"))),
        };
        let window = Window { size: [3; 2], stride: 2, padding: [[0, 1]; 2] };
        Ok(EfficientNet {
            stem: Shape::dense([classifier.channels, stem], window),
            classifier,
            blocks,
            top: Shape::dense([last, top], Window::centred(1, 1)),
            pooling,
            activation: activation(&raw.hidden_act)?,
            epsilon: raw.batch_norm_eps,
        })
    }

    fn resized(mut self, size: ImageSize) -> Result<Self> {
        let shapes = self.blocks.iter().map(|block| block.depthwise);
        let mut left = std::iter::once(self.stem).chain(shapes);
        let [height, width] = left.try_fold([size.height, size.width], |size, shape| shape.out_of(size))?;
        // Pooling is over so many pixels in both directions, and there has to be one place of it.
        if height.max(width) > self.top.outputs {
            return Err(wrong(format!(
                "images of {} x {} pixels are too large: {width} x {height} pixels are left to be pooled, at most hidden_dim = {} in \
                 each direction can be",
                size.width, size.height, self.top.outputs
            )));
        }
        self.classifier.image = size;
        Ok(self)
    }

    fn classifier(&self) -> &ImageClassifier {
        &self.classifier
    }

    fn parameters<V: Visitor>(&self, visitor: &mut V) -> Result<EfficientNetModel<V::Form>> {
        let (at, epsilon) = ("efficientnet.embeddings", self.epsilon);
        let names = (format!("{at}.convolution"), format!("{at}.batchnorm"));
        let stem = Normed::visit(visitor, (&names.0, &names.1), self.stem, epsilon)?;
        let blocks = self.blocks.iter().enumerate().map(|(nth, block)| {
            Block::visit(visitor, &format!("efficientnet.encoder.blocks.{nth}"), block, epsilon)
        });
        let blocks = blocks.collect::<Result<_>>()?;
        let names = ("efficientnet.encoder.top_conv", "efficientnet.encoder.top_bn");
        Ok(EfficientNetModel {
            stem,
            blocks,
            top: Normed::visit(visitor, names, self.top, epsilon)?,
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
        let x = model.stem.forward(&Maps::of(pixels), None, self.activation, norms);
        let x = model.blocks.iter().fold(x, |x, block| block.forward(&x, self.activation, norms));
        let x = model.top.forward(&x, None, self.activation, norms);
        let pooled = match self.pooling {
            Pooling::Mean => x.mean(),
            Pooling::Max => x.largest_of_all(),
        };
        model.classifier.forward(pooled, Activation::Linear)
    }
}

struct Block<F: Form> {
    expansion: Option<Normed<F>>,
    depthwise: Normed<F>,
    /// From the means of the channels to their weights, by way of fewer.
    reduce: Linear<F>,
    expand: Linear<F>,
    projection: Normed<F>,
    residual: bool,
}

impl<F: Form> Block<F> {
    fn visit(
        visitor: &mut impl Visitor<Form = F>,
        at: &str,
        config: &BlockConfig,
        epsilon: f64,
    ) -> Result<Self> {
        let normed = |visitor: &mut _, convolution: &str, norm: &str, shape: Shape| {
            let (convolution, norm) = (format!("{at}.{convolution}"), format!("{at}.{norm}"));
            Normed::visit(visitor, (&convolution, &norm), shape, epsilon)
        };
        let expansion = config.expansion;
        let expansion = expansion
            .map(|shape| normed(&mut *visitor, "expansion.expand_conv", "expansion.expand_bn", shape))
            .transpose()?;
        let names = ("depthwise_conv.depthwise_conv", "depthwise_conv.depthwise_norm");
        let depthwise = normed(&mut *visitor, names.0, names.1, config.depthwise)?;
        let (wide, squeezed) = (config.depthwise.outputs, config.squeezed);
        let mut linear = |name: &str, outputs, inputs| {
            let name = format!("{at}.squeeze_excite.{name}");
            Linear::visit(&mut *visitor, &[&name], outputs, &[inputs, 1, 1], true)
        };
        let (reduce, expand) = (linear("reduce", squeezed, wide)?, linear("expand", wide, squeezed)?);
        let names = ("projection.project_conv", "projection.project_bn");
        let projection = normed(&mut *visitor, names.0, names.1, config.projection)?;
        Ok(Block { expansion, depthwise, reduce, expand, projection, residual: config.residual })
    }
}

impl<B: Kernels> Block<Loaded<B>> {
    fn forward(&self, x: &Maps<B>, act: Activation, norms: &mut Norms<'_, B>) -> Maps<B> {
        let expanded = self.expansion.as_ref().map(|own| own.forward(x, None, act, norms));
        let mut wide = self.depthwise.forward(expanded.as_ref().unwrap_or(x), None, act, norms);
        let reduced = self.reduce.forward(wide.clone().mean(), act);
        let weights = self.expand.forward(reduced, Activation::Sigmoid);
        wide.values = B::scale_images(wide.values, weights);
        self.projection.forward(&wide, self.residual.then_some(x), Activation::Linear, norms)
    }
}

#[cfg(test)]
mod tests;
