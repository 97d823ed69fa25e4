//! What networks of this family begin with: a stem, and blocks that widen, look at each channel's neighbourhood, weigh the channels and
//! narrow. What comes out is pooled over each image.

use burn::tensor::Tensor;
use serde::Deserialize;
use soup_core::Result;

use crate::config::{Numbers, Settings, check_number, check_size, wrong};
use crate::convolution::norm::Norms;
use crate::convolution::{Maps, Normed, Shape, check_side};
use crate::kernels::windows::Window;
use crate::kernels::{Activation, Kernels};
use crate::parameters::visitor::{Form, Loaded, Visitor};
use crate::preprocess::ImageSize;
use crate::transformer::Linear;
use crate::transformer::config::activation;

/// Most stages, and most blocks of all of them.
const STAGES_MAX: usize = 64;
const BLOCKS_MAX: usize = 1024;
/// Channels after the stem, before they are scaled.
const STEM: usize = 32;

/// What a `config.json` says about it.
pub(crate) struct BodyConfig {
    raw: Raw,
    pub(super) stem: Shape,
    pub(super) blocks: Vec<BlockConfig>,
    pub(crate) pooling: Pooling,
    pub(crate) activation: Activation,
    pub(crate) epsilon: f64,
}

impl BodyConfig {
    /// The one that `settings` tell of, for images of so many `channels`.
    ///
    /// # Errors
    /// [`Data`](soup_core::ErrorKind::Data) where a value is out of range or not understood.
    pub(crate) fn read(settings: &Settings, channels: usize) -> Result<BodyConfig> {
        let raw = settings.read::<Raw>()?;
        raw.check()?;
        let stem = raw.scaled("channels of the stem", STEM)?;
        let blocks = raw.blocks(stem)?;
        let window = Window { size: [3; 2], stride: 2, padding: [[0, 1]; 2] };
        let pooling = match raw.pooling_type.as_str() {
            "mean" => Pooling::Mean,
            "max" => Pooling::Max,
            other => return Err(wrong(format!("unknown pooling_type {other:?}: known are mean and max"))),
        };
        Ok(BodyConfig {
            stem: Shape::dense([channels, stem], window),
            blocks,
            pooling,
            activation: activation(&raw.hidden_act)?,
            epsilon: raw.batch_norm_eps,
            raw,
        })
    }

    /// Channels that come out.
    pub(crate) fn outputs(&self) -> usize {
        self.blocks.last().map_or(self.stem.outputs, |block| block.projection.outputs)
    }

    /// What `hidden_dim` says.
    pub(crate) fn hidden_dim(&self) -> usize {
        self.raw.hidden_dim
    }

    /// So many channels, scaled as all are.
    ///
    /// # Errors
    /// [`Data`](soup_core::ErrorKind::Data), naming the setting `name`.
    pub(crate) fn scaled(&self, name: &str, channels: usize) -> Result<usize> {
        self.raw.scaled(name, channels)
    }

    /// # Errors
    /// [`Data`](soup_core::ErrorKind::Data) for a size of which nothing is left, or more than is pooled.
    pub(crate) fn check_images(&self, size: ImageSize) -> Result<()> {
        let shapes = self.blocks.iter().map(|block| block.depthwise);
        let mut left = std::iter::once(self.stem).chain(shapes);
        let [height, width] = left.try_fold([size.height, size.width], |size, shape| shape.out_of(size))?;
        // Pooling is over so many pixels in both directions, and there has to be one place of it.
        if height.max(width) > self.hidden_dim() {
            return Err(wrong(format!(
                "images of {} x {} pixels are too large: {width} x {height} pixels are left to be pooled, at most hidden_dim = {} in \
                 each direction can be",
                size.width,
                size.height,
                self.hidden_dim()
            )));
        }
        Ok(())
    }
}

/// What a block is made of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct BlockConfig {
    /// Of one pixel, to more channels; `None` where there are as many.
    expansion: Option<Shape>,
    depthwise: Shape,
    /// Channels that the weights of channels are made of.
    pub(super) squeezed: usize,
    projection: Shape,
    /// Whether the input is added in the end.
    residual: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Pooling {
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
        check_number("width_coefficient", self.width_coefficient, Numbers::Factors)?;
        check_number("depth_coefficient", self.depth_coefficient, Numbers::Factors)?;
        check_number("squeeze_expansion_ratio", self.squeeze_expansion_ratio, Numbers::Factors)?;
        check_size("depth_divisor", self.depth_divisor)?;
        check_size("hidden_dim", self.hidden_dim)?;
        check_number("batch_norm_eps", self.batch_norm_eps, Numbers::Epsilons)?;
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

/// A stem and blocks.
pub(crate) struct Body<F: Form> {
    stem: Normed<F>,
    blocks: Vec<Block<F>>,
}

impl<F: Form> Body<F> {
    /// The one whose tensors are called `at.*`.
    pub(crate) fn visit(visitor: &mut impl Visitor<Form = F>, at: &str, config: &BodyConfig) -> Result<Self> {
        let names = (format!("{at}.embeddings.convolution"), format!("{at}.embeddings.batchnorm"));
        let stem = Normed::visit(visitor, (&names.0, &names.1), config.stem, config.epsilon)?;
        let blocks = config.blocks.iter().enumerate().map(|(nth, block)| {
            Block::visit(visitor, &format!("{at}.encoder.blocks.{nth}"), block, config.epsilon)
        });
        Ok(Body { stem, blocks: blocks.collect::<Result<_>>()? })
    }
}

impl<B: Kernels> Body<Loaded<B>> {
    /// What images `[batch, channels, height, width]` become.
    pub(crate) fn forward(&self, pixels: Tensor<B, 4>, act: Activation, norms: &mut Norms<'_, B>) -> Maps<B> {
        let x = self.stem.forward(&Maps::of(pixels), None, act, norms);
        self.blocks.iter().fold(x, |x, block| block.forward(&x, act, norms))
    }
}

impl Pooling {
    /// One value of each channel of each image, `[batch, channels]`.
    pub(crate) fn of<B: Kernels>(self, x: Maps<B>) -> Tensor<B, 2> {
        match self {
            Pooling::Mean => x.mean(),
            Pooling::Max => x.largest_of_all(),
        }
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
mod tests {
    use super::*;

    #[test]
    fn steps_of_two_are_padded_on_the_far_side_unless_listed() {
        let raw = Raw { depthwise_padding: vec![3], ..Raw::default() };
        assert_eq!(raw.padding(0, 3, 2), [0, 1]);
        assert_eq!(raw.padding(3, 3, 2), [1, 1]);
        assert_eq!(raw.padding(0, 1, 2), [-1, 0]);
        assert_eq!(raw.padding(0, 4, 2), [1, 2]);
        for nth in [0, 3] {
            assert_eq!((raw.padding(nth, 5, 1), raw.padding(nth, 4, 1)), ([2, 2], [1, 2]));
        }
    }
}
