//! The kernels on a device, for every runtime of cubecl: matrix products by a fixed strategy ([`matmul`]), the steps between them as one
//! launch each ([`steps`]), attention within texts and by pairs without padding ([`attention`]), convolutions by windows that are written
//! out ([`windows`]).
//!
//! Nothing here is chosen by how long it took, so that the same device gives the same bits in every process. burn 0.21 chooses so, behind
//! its feature `autotune`, for products, convolutions, attention and reductions; all else that it does here (copies, slices, sums along a
//! dimension) depends on shapes alone. That feature must therefore be off in the whole program, which [`never_by_timing`] makes sure of.

mod attention;
mod autodiff;
mod choices;
mod lane;
mod matmul;
mod steps;
mod windows;

use std::sync::Arc;

use burn::tensor::{Tensor, TensorPrimitive};
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::kernel::matmul::MatmulStrategy;
use burn_cubecl::tensor::CubeTensor;
use burn_cubecl::{BoolElement, CubeBackend, CubeRuntime, FloatElement, IntElement};
use soup_core::Result;

use self::attention::Attention;
use super::relative::{Pairs, Relative};
use super::texts::Spans;
use super::windows::Windows;
use super::{Activation, Filters, Finish, Kernels, Norm, arithmetic, tensor};
use crate::device::Precision;
use crate::gradient::sink::Deposits;
use crate::parameters::visitor::Layout;
use crate::parameters::{pixels_first, transpose};

/// Does not compile where burn would choose by timing: the strategy that it has then is one more. A backend that is built at all has
/// this checked.
#[allow(dead_code)]
fn never_by_timing(strategy: MatmulStrategy) {
    match strategy {
        MatmulStrategy::Cube => {}
    }
}

impl<R: CubeRuntime, F: FloatElement, I: IntElement, T: BoolElement> Deposits for CubeBackend<R, F, I, T> {}

impl<R: CubeRuntime, F: FloatElement, I: IntElement, T: BoolElement> Kernels for CubeBackend<R, F, I, T> {
    fn on<V>(device: &Self::Device, precision: Precision, work: impl FnOnce() -> Result<V>) -> Result<V> {
        lane::run::<R, V>(device, || arithmetic::within(precision, work))
    }

    fn parameter<const D: usize>(
        values: Vec<f32>,
        layout: &Layout,
        shape: [usize; D],
        device: &Self::Device,
    ) -> Tensor<Self, D> {
        match (layout, &shape[..]) {
            // The checkpoint's order, seen the other way round: the products take either, and nothing is moved. What a blend on the device
            // gives lies like this, too.
            (Layout::Transposed, &[inputs, outputs]) => {
                let mut stored = shape;
                (stored[0], stored[1]) = (outputs, inputs);
                tensor::<Self, D>(values, stored, device).swap_dims(0, 1)
            }
            (&Layout::Filters { channels }, &[inputs, outputs]) => {
                let mut stored = shape;
                (stored[0], stored[1]) = (outputs, inputs);
                let values = pixels_first(&values, channels, inputs / channels);
                tensor::<Self, D>(values, stored, device).swap_dims(0, 1)
            }
            (Layout::PerChannel, &[pixels, channels]) => {
                tensor(transpose(&values, channels, pixels), shape, device)
            }
            (Layout::Interpolated(map), _) => tensor(map.apply(&values), shape, device),
            _ => tensor(values, shape, device),
        }
    }

    fn crop(images: Tensor<Self, 4>, [height, width]: [usize; 2]) -> Tensor<Self, 4> {
        let [batch, channels, _, _] = images.dims();
        let part = images.slice([0..batch, 0..channels, 0..height, 0..width]);
        // A view of rows with gaps between them must not be cut into smaller pieces: cubecl 0.10 reads four values at once where they begin at
        // multiples of four in the smallest piece, whether they do in a row or not.
        lift(into_contiguous(primitive(part)))
    }

    fn matmul<const D: usize>(left: Tensor<Self, D>, right: Tensor<Self, D>) -> Tensor<Self, D> {
        lift(matmul::product(primitive(left), primitive(right)))
    }

    fn bias_act(x: Tensor<Self, 2>, bias: Option<&Tensor<Self, 1>>, act: Activation) -> Tensor<Self, 2> {
        match bias {
            None if act == Activation::Linear => x,
            bias => lift(steps::bias_act(primitive(x), bias.cloned().map(primitive), act)),
        }
    }

    fn bias_residual(
        x: Tensor<Self, 2>,
        bias: &Tensor<Self, 1>,
        residual: &Tensor<Self, 2>,
    ) -> Tensor<Self, 2> {
        lift(steps::bias_residual(primitive(x), primitive(bias.clone()), primitive(residual.clone())))
    }

    fn scale_residual(
        x: Tensor<Self, 2>,
        scale: &Tensor<Self, 1>,
        residual: &Tensor<Self, 2>,
    ) -> Tensor<Self, 2> {
        lift(steps::scale_residual(primitive(x), primitive(scale.clone()), primitive(residual.clone())))
    }

    fn swiglu(x: Tensor<Self, 2>) -> Tensor<Self, 2> {
        lift(steps::swiglu(primitive(x)))
    }

    fn norm_rows(x: &Tensor<Self, 2>, norm: &Norm<Self>) -> Tensor<Self, 2> {
        let (gamma, beta) = (primitive(norm.gamma.clone()), primitive(norm.beta.clone()));
        lift(steps::norm_rows(primitive(x.clone()), gamma, beta, norm.epsilon as f32))
    }

    fn softmax_scaled(x: Tensor<Self, 4>, scale: f32) -> Tensor<Self, 4> {
        lift(steps::softmax(primitive(x), scale))
    }

    fn attend_texts(
        query: Tensor<Self, 2>,
        key_value: Tensor<Self, 2>,
        texts: &Spans,
        heads: usize,
    ) -> Tensor<Self, 2> {
        let [rows, width] = query.dims();
        let (query, key_value) = (primitive(query), primitive(key_value));
        let (pairs, scale) = (&Pairs::of_texts(texts, rows), scale_of(width, heads));
        lift(Attention { query, key_value, pairs, heads, scale, relative: None }.forward().0)
    }

    fn attend_pairs(
        query: Tensor<Self, 2>,
        key_value: Tensor<Self, 2>,
        (pairs, heads): (&Pairs, usize),
        relative: Option<&Relative<Self>>,
    ) -> Tensor<Self, 2> {
        let relative = relative.map(|relative| (primitive(relative.table.clone()), relative.buckets));
        let (query, key_value) = (primitive(query), primitive(key_value));
        lift(Attention { query, key_value, pairs, heads, scale: 1.0, relative }.forward().0)
    }

    fn rms_rows(x: &Tensor<Self, 2>, gamma: &Tensor<Self, 1>, epsilon: f64) -> Tensor<Self, 2> {
        lift(steps::rms_rows(primitive(x.clone()), primitive(gamma.clone()), epsilon as f32))
    }

    fn log_likelihoods(logits: Tensor<Self, 2>, at: &Arc<[u32]>) -> Tensor<Self, 2> {
        lift(choices::log_likelihoods(primitive(logits), at))
    }

    fn most_probable(logits: Tensor<Self, 2>, at: &Arc<[u32]>) -> Tensor<Self, 2> {
        lift(choices::most_probable(primitive(logits), at))
    }

    fn first_of_each(x: Tensor<Self, 2>, texts: &Spans) -> Tensor<Self, 2> {
        lift(choices::rows(primitive(x), &texts.firsts()))
    }

    fn convolve(x: Tensor<Self, 2>, filters: Filters<Self>, windows: &Windows) -> Tensor<Self, 2> {
        convolve(x, filters, windows)
    }

    fn finish(x: Tensor<Self, 2>, finish: Finish<'_, Self>) -> Tensor<Self, 2> {
        let Finish { scale, shift, residual, act } = finish;
        let (along, residual) = ([primitive(scale), primitive(shift)], residual.cloned().map(primitive));
        lift(windows::finish(primitive(x), along, residual, act))
    }

    fn largest(x: Tensor<Self, 2>, windows: &Windows) -> Tensor<Self, 2> {
        lift(windows::largest(primitive(x), windows, false).0)
    }
}

/// What products are multiplied by that heads of a `width` in all look at texts by.
fn scale_of(width: usize, heads: usize) -> f32 {
    1.0 / ((width / heads) as f32).sqrt()
}

/// See [`Kernels::convolve`]: the products of filters with windows that are written out some images at a time.
fn convolve<R: CubeRuntime, F: FloatElement, I: IntElement, T: BoolElement>(
    x: Tensor<CubeBackend<R, F, I, T>, 2>,
    filters: Filters<CubeBackend<R, F, I, T>>,
    on: &Windows,
) -> Tensor<CubeBackend<R, F, I, T>, 2> {
    let ([_, channels], x) = (x.dims(), primitive(x));
    let weight = match filters {
        Filters::Dense(weight, _) => primitive(weight),
        Filters::PerChannel(weight) => return lift(windows::per_channel(x, primitive(weight), on)),
    };
    if on.are_pixels() {
        return lift(matmul::product(x, weight));
    }
    let at_once = windows::at_once(on, channels);
    let mut parts: Vec<_> = (0..on.batch)
        .step_by(at_once)
        .map(|first| {
            let written = windows::unfolded(x.clone(), on, (first, at_once));
            lift(matmul::product(written, weight.clone()))
        })
        .collect();
    if parts.len() == 1 { parts.remove(0) } else { Tensor::cat(parts, 0) }
}

fn primitive<R: CubeRuntime, F: FloatElement, I: IntElement, T: BoolElement, const D: usize>(
    x: Tensor<CubeBackend<R, F, I, T>, D>,
) -> CubeTensor<R> {
    x.into_primitive().tensor()
}

fn lift<R: CubeRuntime, F: FloatElement, I: IntElement, T: BoolElement, const D: usize>(
    x: CubeTensor<R>,
) -> Tensor<CubeBackend<R, F, I, T>, D> {
    Tensor::from_primitive(TensorPrimitive::Float(x))
}
