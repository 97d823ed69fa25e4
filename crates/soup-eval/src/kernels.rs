//! The steps between two matrix products, as one fused kernel each, so that a backend may do each in one pass.
//!
//! Models are written over [`Kernels`], never over one backend. Every kernel has a default in plain burn operations
//! ([`plain`]), which any backend runs and automatic differentiation can go through; a backend overrides those it has a
//! faster form of. On the CPU ([`flex`]) a chain of elementwise operations costs more than the matrix products of a
//! small model, because every operation is a pass over memory into a new buffer and none is vectorised. On a device (`cube`) each is
//! a launch and a pass over memory too. There matrix products are kernels of ours as well: burn's choice of strategies is not one
//! for which a score could be told from another.

mod arithmetic;
mod attention;
mod autodiff;
#[cfg(test)]
mod conformance;
#[cfg(feature = "cube")]
mod cube;
mod flex;
mod math;
pub(crate) mod relative;
pub(crate) mod texts;
pub(crate) mod windows;

use std::sync::Arc;

use attention::Split;
use burn::tensor::backend::Backend;
use burn::tensor::{Element, Tensor, TensorData};
use relative::{Pairs, Relative};
use soup_core::{Error, Result};
use texts::Spans;

use crate::device::Precision;
use crate::gradient::sink::Deposits;
use crate::parameters::visitor::Layout;
use crate::parameters::{pixels_first, transpose};
use windows::{Windows, by_pixel};

/// The function between the two linear maps of a transformer's MLP; the names are transformers' (`hidden_act`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Activation {
    /// x times the normal distribution function of x, by `erf`.
    Gelu,
    /// GELU by the `tanh` approximation.
    GeluTanh,
    /// x times the logistic function of 1.702 x.
    QuickGelu,
    Relu,
    Silu,
    Tanh,
    Sigmoid,
    /// The identity.
    Linear,
}

impl Activation {
    /// Every one, for those who try them all.
    #[cfg(any(test, feature = "cube"))]
    pub(crate) const ALL: [Activation; 8] = [
        Activation::Gelu,
        Activation::GeluTanh,
        Activation::QuickGelu,
        Activation::Relu,
        Activation::Silu,
        Activation::Tanh,
        Activation::Sigmoid,
        Activation::Linear,
    ];

    /// The activation that transformers calls `name`.
    pub(crate) fn from_name(name: &str) -> Option<Activation> {
        Some(match name {
            "gelu" | "gelu_python" => Activation::Gelu,
            "gelu_new" | "gelu_pytorch_tanh" | "gelu_accurate" | "gelu_fast" | "gelu_python_tanh" => {
                Activation::GeluTanh
            }
            "quick_gelu" => Activation::QuickGelu,
            "relu" => Activation::Relu,
            "silu" | "swish" => Activation::Silu,
            "tanh" => Activation::Tanh,
            "sigmoid" => Activation::Sigmoid,
            "linear" => Activation::Linear,
            _ => return None,
        })
    }

    /// The names of all of them, for messages.
    pub(crate) const NAMES: &str =
        "gelu, gelu_new, gelu_pytorch_tanh, gelu_fast, quick_gelu, relu, silu, swish, tanh, sigmoid, linear";
}

/// Scale and shift of a layer normalisation over the last dimension.
#[derive(Clone, Debug)]
pub(crate) struct Norm<B: Backend> {
    pub(crate) gamma: Tensor<B, 1>,
    pub(crate) beta: Tensor<B, 1>,
    pub(crate) epsilon: f64,
}

/// The weights of a convolution, for one use.
#[derive(Clone, Debug)]
pub(crate) enum Filters<B: Backend> {
    /// From all channels of a window to so many outputs: a parameter of the layout [`Filters`](Layout::Filters).
    Dense(Tensor<B, 2>, usize),
    /// Every channel by itself: a parameter of the layout [`PerChannel`](Layout::PerChannel).
    PerChannel(Tensor<B, 2>),
}

/// What follows a convolution: a factor and a summand of each channel, what is added to that, and an activation of it all.
#[derive(Clone, Debug)]
pub(crate) struct Finish<'a, B: Backend> {
    pub(crate) scale: Tensor<B, 1>,
    pub(crate) shift: Tensor<B, 1>,
    /// As large as the result.
    pub(crate) residual: Option<&'a Tensor<B, 2>>,
    pub(crate) act: Activation,
}

/// A tensor of `values` in the backend's own type. burn's default would be the type of whichever backend used the device first.
pub(crate) fn tensor<B: Backend, const D: usize>(
    values: Vec<f32>,
    shape: [usize; D],
    device: &B::Device,
) -> Tensor<B, D> {
    Tensor::from_data(TensorData::new(values, shape), (device, B::FloatElem::dtype()))
}

/// The values of `tensor`, once they are there.
///
/// # Errors
/// [`Internal`](soup_core::ErrorKind::Internal), with `what` they are, where a device does not give them.
pub(crate) fn values<B: Backend, const D: usize>(tensor: Tensor<B, D>, what: &str) -> Result<Vec<f32>> {
    let elements: usize = tensor.dims().iter().product();
    let data = tensor.try_into_data().map_err(|e| Error::internal(format!("no {what} came back: {e:?}")))?;
    let values = data.convert::<f32>().into_vec::<f32>();
    let values = values.map_err(|e| Error::internal(format!("{what} are not f32: {e:?}")))?;
    match values.len() == elements {
        true => Ok(values),
        false => Err(Error::internal(format!("{} of {elements} {what} came back", values.len()))),
    }
}

/// A burn backend with the fused steps that models need, and a way for their parameters into its graph.
pub(crate) trait Kernels: Deposits {
    /// Whether a sample comes out as the same bits whatever the batch that it is in has for a size. Where not, batches of one size are
    /// what makes sure of it.
    const ANY_BATCH: bool = false;

    /// Runs `work`, which puts something on `device` or waits for what comes of it, in `precision`. What goes wrong on a device is an
    /// error by the time this returns; on the processor nothing is done about it. `work` never calls this itself.
    ///
    /// # Errors
    /// Those of `work`, and [`Internal`](soup_core::ErrorKind::Internal) where the device fails.
    fn on<T>(device: &Self::Device, precision: Precision, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let (_, _) = (device, precision);
        work()
    }

    /// A parameter of `shape` in the model, of the `values` of a checkpoint that are laid out as `layout` says. Matrices are laid out as
    /// the linear maps of the backend take them, which may be in another shape.
    fn parameter<const D: usize>(
        values: Vec<f32>,
        layout: &Layout,
        shape: [usize; D],
        device: &Self::Device,
    ) -> Tensor<Self, D> {
        let values = match (layout, &shape[..]) {
            (Layout::Transposed, [inputs, outputs]) => transpose(&values, *outputs, *inputs),
            (Layout::Interpolated(map), _) => map.apply(&values),
            (&Layout::Filters { channels }, &[inputs, outputs]) => {
                transpose(&pixels_first(&values, channels, inputs / channels), outputs, inputs)
            }
            (Layout::PerChannel, &[pixels, channels]) => transpose(&values, channels, pixels),
            _ => values,
        };
        tensor(values, shape, device)
    }

    /// The upper left `height` x `width` pixels of images `[batch, channels, height, width]`, which no gradient is wanted of.
    fn crop(images: Tensor<Self, 4>, [height, width]: [usize; 2]) -> Tensor<Self, 4> {
        let [batch, channels, _, _] = images.dims();
        images.slice([0..batch, 0..channels, 0..height, 0..width])
    }

    /// The patches of images `[batch, channels, height, width]`, so many rows and columns of patches of so many pixels, end to end:
    /// `[batch * patches, channels * pixels]`. What lies beyond the last whole patch is dropped, as a strided convolution does. No
    /// gradient is wanted of them.
    fn patches(
        images: Tensor<Self, 4>,
        [rows, columns]: [usize; 2],
        [height, width]: [usize; 2],
    ) -> Tensor<Self, 2> {
        let [batch, channels, _, _] = images.dims();
        Self::crop(images, [rows * height, columns * width])
            .reshape([batch, channels, rows, height, columns, width])
            .permute([0, 2, 4, 1, 3, 5])
            .reshape([batch * rows * columns, channels * height * width])
    }

    /// The tokens of images `[batch, tokens, hidden]`: those of `whole`, `[1, some, hidden]` each, before those of the patches,
    /// `[batch * patches, hidden]`; and the embedding of its position, `[1, tokens, hidden]`, added to each.
    fn tokens(
        whole: Vec<Tensor<Self, 3>>,
        patches: Tensor<Self, 2>,
        positions: Tensor<Self, 3>,
    ) -> Tensor<Self, 3> {
        let [rows, hidden] = patches.dims();
        let [_, tokens, _] = positions.dims();
        let patches_of_one = tokens - whole.iter().map(|token| token.dims()[1]).sum::<usize>();
        let batch = rows / patches_of_one;
        let expand = |some: Tensor<Self, 3>| {
            let [_, count, _] = some.dims();
            some.expand([batch, count, hidden])
        };
        let mut all: Vec<_> = whole.into_iter().map(expand).collect();
        all.push(patches.reshape([batch, patches_of_one, hidden]));
        Tensor::cat(all, 1) + positions
    }

    /// The products of matrices that are the last two dimensions; the others are the same in both.
    fn matmul<const D: usize>(left: Tensor<Self, D>, right: Tensor<Self, D>) -> Tensor<Self, D> {
        left.matmul(right)
    }

    /// `act(x * weight + bias)`, bias along the rows; the weight is a [`parameter`](Kernels::parameter), from inputs to so many outputs.
    fn linear_act(
        x: Tensor<Self, 2>,
        (weight, _outputs): (Tensor<Self, 2>, usize),
        bias: Option<&Tensor<Self, 1>>,
        act: Activation,
    ) -> Tensor<Self, 2> {
        Self::bias_act(Self::matmul(x, weight), bias, act)
    }

    /// `x * weight + bias + residual`, as [`linear_act`](Kernels::linear_act).
    fn linear_residual(
        x: Tensor<Self, 2>,
        (weight, _outputs): (Tensor<Self, 2>, usize),
        bias: Option<&Tensor<Self, 1>>,
        residual: &Tensor<Self, 2>,
    ) -> Tensor<Self, 2> {
        let product = Self::matmul(x, weight);
        match bias {
            Some(bias) => Self::bias_residual(product, bias, residual),
            None => product + residual.clone(),
        }
    }

    /// `act(x + bias)`, bias along the rows.
    fn bias_act(x: Tensor<Self, 2>, bias: Option<&Tensor<Self, 1>>, act: Activation) -> Tensor<Self, 2> {
        plain::bias_act(x, bias, act)
    }

    /// `x + bias + residual`.
    fn bias_residual(
        x: Tensor<Self, 2>,
        bias: &Tensor<Self, 1>,
        residual: &Tensor<Self, 2>,
    ) -> Tensor<Self, 2> {
        plain::bias_residual(x, bias, residual)
    }

    /// `x * scale + residual`, scale along the rows.
    fn scale_residual(
        x: Tensor<Self, 2>,
        scale: &Tensor<Self, 1>,
        residual: &Tensor<Self, 2>,
    ) -> Tensor<Self, 2> {
        plain::scale_residual(x, scale, residual)
    }

    /// SwiGLU of what two linear maps side by side give: `[rows, 2 * width]`, the gate first, to
    /// `silu(gate) * value`, `[rows, width]`.
    fn swiglu(x: Tensor<Self, 2>) -> Tensor<Self, 2> {
        plain::swiglu(x)
    }

    /// Layer normalisation of every row.
    fn norm_rows(x: &Tensor<Self, 2>, norm: &Norm<Self>) -> Tensor<Self, 2> {
        plain::layer_norm(x, norm)
    }

    /// `softmax(scale * x)` over the last dimension.
    fn softmax_scaled(x: Tensor<Self, 4>, scale: f32) -> Tensor<Self, 4> {
        plain::softmax(x, scale)
    }

    /// Attention within each of `batch` images, by `heads`: queries `[batch * asked, hidden]`; keys and values side by
    /// side, `[batch * tokens, 2 * hidden]`; result `[batch * asked, hidden]`.
    fn attend(
        query: Tensor<Self, 2>,
        key_value: Tensor<Self, 2>,
        [batch, heads]: [usize; 2],
    ) -> Tensor<Self, 2> {
        let asked_and_hidden = query.dims();
        let split = Split::new(query, key_value, [batch, heads]);
        let shares = split.shares();
        split.context(shares).swap_dims(1, 2).reshape(asked_and_hidden)
    }

    /// Attention within each of `texts`, by `heads`: keys and values side by side, `[tokens of all, 2 * hidden]`; queries of all those
    /// tokens, or of one a text; as many rows come out.
    fn attend_texts(
        query: Tensor<Self, 2>,
        key_value: Tensor<Self, 2>,
        texts: &Spans,
        heads: usize,
    ) -> Tensor<Self, 2> {
        let [rows, hidden] = query.dims();
        let parts = texts.asked(rows).map(|(asked, tokens)| {
            let query = query.clone().slice([asked, 0..hidden]);
            Self::attend(query, key_value.clone().slice([tokens, 0..2 * hidden]), [1, heads])
        });
        Tensor::cat(parts.collect(), 0)
    }

    /// The products of every row with every row of a `table` that has been loaded as it is stored: `x * table^T`.
    fn against_rows(x: Tensor<Self, 2>, table: Tensor<Self, 2>) -> Tensor<Self, 2> {
        Self::matmul(x, table.transpose())
    }

    /// Every row over its root mean square, times `gamma` (Zhang and Sennrich, "Root mean square layer normalization").
    fn rms_rows(x: &Tensor<Self, 2>, gamma: &Tensor<Self, 1>, epsilon: f64) -> Tensor<Self, 2> {
        plain::rms_norm(x, gamma, epsilon)
    }

    /// Attention of the rows that ask to those they are paired with, by `heads`: queries `[asked of all, heads * width]`; keys and values
    /// side by side, `[tokens of all, 2 * heads * width]`; as many rows as queries come out. Products are not scaled; what `relative`
    /// says is added to them.
    fn attend_pairs(
        query: Tensor<Self, 2>,
        key_value: Tensor<Self, 2>,
        (pairs, heads): (&Pairs, usize),
        relative: Option<&Relative<Self>>,
    ) -> Tensor<Self, 2> {
        relative::attend_pairs(query, key_value, (pairs, heads), relative)
    }

    /// The logarithm of the probability that each row of `logits`, `[rows, choices]`, gives to the choice in `at`: `[rows, 1]`.
    fn log_likelihoods(logits: Tensor<Self, 2>, at: &Arc<[u32]>) -> Tensor<Self, 2> {
        plain::log_likelihoods(logits, at)
    }

    /// One for each row of `logits`, `[rows, choices]`, of which the choice in `at` is the most probable one, else zero: `[rows, 1]`. Of
    /// equal ones it is the first; of a row that is not all numbers none. It has no gradient.
    fn most_probable(logits: Tensor<Self, 2>, at: &Arc<[u32]>) -> Tensor<Self, 2> {
        plain::most_probable(logits, at)
    }

    /// The first row of each of `texts`: `[tokens of all, hidden]` to `[texts, hidden]`.
    fn first_of_each(x: Tensor<Self, 2>, texts: &Spans) -> Tensor<Self, 2> {
        let [_, hidden] = x.dims();
        let firsts = texts.iter().map(|rows| x.clone().slice([rows.start..rows.start + 1, 0..hidden]));
        Tensor::cat(firsts.collect(), 0)
    }

    /// Images `[batch, channels, height, width]` with their channels last, a row for every pixel: `[batch * height * width, channels]`.
    /// No gradient is wanted of them.
    fn channels_last(images: Tensor<Self, 4>) -> Tensor<Self, 2> {
        let [batch, channels, height, width] = images.dims();
        images.permute([0, 2, 3, 1]).reshape([batch * height * width, channels])
    }

    /// The products of `filters` with the windows of images whose channels are last: a row for every place of the window.
    fn convolve(x: Tensor<Self, 2>, filters: Filters<Self>, windows: &Windows) -> Tensor<Self, 2> {
        by_pixel::convolve(x, filters, windows)
    }

    /// [`convolve`](Kernels::convolve), then [`finish`](Kernels::finish).
    fn convolve_then(
        x: Tensor<Self, 2>,
        filters: Filters<Self>,
        windows: &Windows,
        finish: Finish<'_, Self>,
    ) -> Tensor<Self, 2> {
        Self::finish(Self::convolve(x, filters, windows), finish)
    }

    /// `act(x * scale + shift + residual)`, scale and shift along the rows.
    fn finish(x: Tensor<Self, 2>, finish: Finish<'_, Self>) -> Tensor<Self, 2> {
        by_pixel::finish(x, finish)
    }

    /// The largest value of each channel in every window, of those in the image; no window is all beyond it.
    fn largest(x: Tensor<Self, 2>, windows: &Windows) -> Tensor<Self, 2> {
        by_pixel::largest(&x, windows)
    }

    /// The mean of each channel over the pixels of each of `batch` images: `[batch, channels]`.
    fn mean(x: Tensor<Self, 2>, batch: usize) -> Tensor<Self, 2> {
        by_pixel::mean(x, batch)
    }

    /// Every pixel of an image times the image's own factors, `[batch, channels]`.
    fn scale_images(x: Tensor<Self, 2>, factors: Tensor<Self, 2>) -> Tensor<Self, 2> {
        by_pixel::scale_images(x, factors)
    }
}

/// The kernels in plain burn operations.
pub(crate) mod plain {
    use super::{Activation, Norm};
    use burn::tensor::backend::Backend;
    use burn::tensor::{Element, Int, Tensor, TensorData, activation};

    pub(crate) fn bias_act<B: Backend>(
        x: Tensor<B, 2>,
        bias: Option<&Tensor<B, 1>>,
        act: Activation,
    ) -> Tensor<B, 2> {
        let x = match bias {
            Some(bias) => x + bias.clone().unsqueeze(),
            None => x,
        };
        match act {
            Activation::Gelu => activation::gelu(x),
            Activation::GeluTanh => activation::gelu_approximate(x),
            Activation::QuickGelu => x.clone() * activation::sigmoid(x * 1.702),
            Activation::Relu => activation::relu(x),
            Activation::Silu => activation::silu(x),
            Activation::Tanh => activation::tanh(x),
            Activation::Sigmoid => activation::sigmoid(x),
            Activation::Linear => x,
        }
    }

    pub(crate) fn bias_residual<B: Backend>(
        x: Tensor<B, 2>,
        bias: &Tensor<B, 1>,
        residual: &Tensor<B, 2>,
    ) -> Tensor<B, 2> {
        x + bias.clone().unsqueeze() + residual.clone()
    }

    pub(crate) fn scale_residual<B: Backend>(
        x: Tensor<B, 2>,
        scale: &Tensor<B, 1>,
        residual: &Tensor<B, 2>,
    ) -> Tensor<B, 2> {
        x * scale.clone().unsqueeze() + residual.clone()
    }

    pub(crate) fn swiglu<B: Backend>(x: Tensor<B, 2>) -> Tensor<B, 2> {
        let [rows, columns] = x.dims();
        let gate = x.clone().slice([0..rows, 0..columns / 2]);
        activation::silu(gate) * x.slice([0..rows, columns / 2..columns])
    }

    pub(crate) fn layer_norm<B: Backend>(x: &Tensor<B, 2>, norm: &Norm<B>) -> Tensor<B, 2> {
        let centred = x.clone() - x.clone().mean_dim(1);
        let variance = centred.clone().square().mean_dim(1);
        let normed = centred / (variance + norm.epsilon).sqrt();
        normed * norm.gamma.clone().unsqueeze() + norm.beta.clone().unsqueeze()
    }

    pub(crate) fn rms_norm<B: Backend>(x: &Tensor<B, 2>, gamma: &Tensor<B, 1>, epsilon: f64) -> Tensor<B, 2> {
        let square = x.clone().square().mean_dim(1);
        x.clone() / (square + epsilon).sqrt() * gamma.clone().unsqueeze()
    }

    pub(crate) fn log_likelihoods<B: Backend>(logits: Tensor<B, 2>, at: &[u32]) -> Tensor<B, 2> {
        let at = indices(at, &logits.device());
        activation::log_softmax(logits, 1).gather(1, at)
    }

    pub(crate) fn most_probable<B: Backend>(logits: Tensor<B, 2>, at: &[u32]) -> Tensor<B, 2> {
        let at = indices(at, &logits.device());
        // What is not a number makes a sum of it all none either.
        let numbers = (logits.clone().sum_dim(1) * 0.0).equal_elem(0.0);
        logits.argmax(1).equal(at).bool_and(numbers).float()
    }

    /// One index a row.
    fn indices<B: Backend>(at: &[u32], device: &B::Device) -> Tensor<B, 2, Int> {
        let rows: Vec<i64> = at.iter().map(|&at| i64::from(at)).collect();
        Tensor::from_data(TensorData::new(rows, [at.len(), 1]), (device, B::IntElem::dtype()))
    }

    pub(crate) fn softmax<B: Backend>(x: Tensor<B, 4>, scale: f32) -> Tensor<B, 4> {
        activation::softmax(x * scale, 3)
    }
}
