//! Convolutions, poolings and what follows them under automatic differentiation. Windows are written out once more for the backward
//! pass instead of being kept: they are many times as large as the images.

use burn::backend::Autodiff;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::NoCheckpointing;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::tensor::{Tensor, TensorPrimitive};
use burn_cubecl::tensor::CubeTensor;
use burn_cubecl::{BoolElement, CubeBackend, CubeRuntime, FloatElement, IntElement};

use super::super::matmul::product;
use super::super::{convolve as convolved, lift, primitive, steps, windows};
use crate::kernels::windows::Windows;
use crate::kernels::{Activation, Filters, Finish, tensor};

/// What a convolution was made of.
#[derive(Clone, Debug)]
struct Convolved<R: CubeRuntime> {
    x: CubeTensor<R>,
    /// [pixels * channels, outputs], or [pixels, channels].
    weight: CubeTensor<R>,
    per_channel: bool,
    windows: Windows,
}

/// A convolution.
#[derive(Debug)]
struct Convolve;

/// See [`Kernels::convolve`](crate::kernels::Kernels::convolve).
pub(super) fn convolve<R: CubeRuntime, F: FloatElement, I: IntElement, T: BoolElement>(
    x: Tensor<Autodiff<CubeBackend<R, F, I, T>>, 2>,
    filters: Filters<Autodiff<CubeBackend<R, F, I, T>>>,
    windows: &Windows,
) -> Tensor<Autodiff<CubeBackend<R, F, I, T>>, 2> {
    let (weight, per_channel) = match filters {
        Filters::Dense(weight, _) => (weight, false),
        Filters::PerChannel(weight) => (weight, true),
    };
    let (x, weight) = (x.into_primitive().tensor(), weight.into_primitive().tensor());
    let inner = lift::<R, F, I, T, 2>(weight.primitive.clone());
    let [_, outputs] = inner.dims();
    let filters = if per_channel { Filters::PerChannel(inner) } else { Filters::Dense(inner, outputs) };
    let out = primitive(convolved(lift::<R, F, I, T, 2>(x.primitive.clone()), filters, windows));
    let step = Convolve.prepare::<NoCheckpointing>([x.node, weight.node]).compute_bound();
    Tensor::from_primitive(TensorPrimitive::Float(match step.stateful() {
        OpsKind::Tracked(step) => {
            let (x, weight) = (x.primitive, weight.primitive);
            step.finish(Convolved { x, weight, per_channel, windows: *windows }, out)
        }
        OpsKind::UnTracked(step) => step.finish(out),
    }))
}

impl<R: CubeRuntime, F: FloatElement, I: IntElement, T: BoolElement> Backward<CubeBackend<R, F, I, T>, 2>
    for Convolve
{
    type State = Convolved<R>;

    fn backward(self, ops: Ops<Convolved<R>, 2>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<CubeBackend<R, F, I, T>>(&ops.node);
        let [x, weight] = ops.parents;
        let of = ops.state;
        let (of_x, of_weight) = match of.per_channel {
            true => {
                let [of_x, of_weight] =
                    windows::per_channel_gradients(gradient, of.x, of.weight, &of.windows);
                (Some(of_x), of_weight)
            }
            false => of.dense_gradients::<F, I, T>(gradient, x.is_some()),
        };
        if let (Some(x), Some(of_x)) = (x, of_x) {
            gradients.register::<CubeBackend<R, F, I, T>>(x.id, of_x);
        }
        if let Some(weight) = weight {
            gradients.register::<CubeBackend<R, F, I, T>>(weight.id, of_weight);
        }
    }
}

impl<R: CubeRuntime> Convolved<R> {
    /// The gradients of images, where somebody wants it, and weight, by filters of all channels: products with the windows, and those
    /// with the weight, added where the windows were.
    fn dense_gradients<F: FloatElement, I: IntElement, T: BoolElement>(
        self,
        gradient: CubeTensor<R>,
        of_images: bool,
    ) -> (Option<CubeTensor<R>>, CubeTensor<R>) {
        let Convolved { x, weight, windows, .. } = self;
        let transposed = |x: CubeTensor<R>| primitive(lift::<R, F, I, T, 2>(x).transpose());
        if windows.are_pixels() {
            let of_x = of_images.then(|| product(gradient.clone(), transposed(weight)));
            return (of_x, product(transposed(x), gradient));
        }
        let channels = x.meta.shape().iter().next_back().copied().unwrap_or(1);
        let at_once = windows::at_once(&windows, channels);
        let (folded, per_image) =
            (windows::Folded::like(&x, &windows), windows.places[0] * windows.places[1]);
        let gradient = lift::<R, F, I, T, 2>(gradient);
        let mut of_weight: Option<Tensor<CubeBackend<R, F, I, T>, 2>> = None;
        for first in (0..windows.batch).step_by(at_once) {
            let rows = first * per_image..(first + at_once) * per_image;
            let part = primitive(gradient.clone().slice_dim(0, rows));
            let written = windows::unfolded(x.clone(), &windows, (first, at_once));
            let more = lift(product(transposed(written), part.clone()));
            of_weight = Some(match of_weight {
                Some(sum) => sum + more,
                None => more,
            });
            if of_images {
                folded.add(product(part, transposed(weight.clone())), (first, at_once));
            }
        }
        let of_weight = of_weight.map_or(weight, primitive);
        (of_images.then(|| folded.whole()), of_weight)
    }
}

/// `act(x * scale + shift + residual)`.
#[derive(Debug)]
struct Finished;

/// See [`Kernels::finish`](crate::kernels::Kernels::finish).
pub(super) fn finish<R: CubeRuntime, F: FloatElement, I: IntElement, T: BoolElement>(
    x: Tensor<Autodiff<CubeBackend<R, F, I, T>>, 2>,
    finish: Finish<'_, Autodiff<CubeBackend<R, F, I, T>>>,
) -> Tensor<Autodiff<CubeBackend<R, F, I, T>>, 2> {
    let Finish { scale, shift, residual, act } = finish;
    // One that is not there is a constant.
    let adds = residual.is_some();
    let added = residual.cloned().unwrap_or_else(|| tensor(vec![0.0], [1, 1], &x.device()));
    let (x, added) = (x.into_primitive().tensor(), added.into_primitive().tensor());
    let (scale, shift) = (scale.into_primitive().tensor(), shift.into_primitive().tensor());
    let along = [scale.primitive.clone(), shift.primitive];
    let residual = adds.then_some(added.primitive);
    let sum = windows::finish(x.primitive.clone(), along, residual, Activation::Linear);
    let (out, before) = match act {
        Activation::Linear => (sum, None),
        act => (steps::bias_act(sum.clone(), None, act), Some(sum)),
    };
    let nodes = [x.node, scale.node, shift.node, added.node];
    let step = Finished.prepare::<NoCheckpointing>(nodes).compute_bound();
    Tensor::from_primitive(TensorPrimitive::Float(match step.stateful() {
        OpsKind::Tracked(step) => step.finish((x.primitive, scale.primitive, (act, before)), out),
        OpsKind::UnTracked(step) => step.finish(out),
    }))
}

impl<R: CubeRuntime, F: FloatElement, I: IntElement, T: BoolElement> Backward<CubeBackend<R, F, I, T>, 4>
    for Finished
{
    /// The input; the scale; the activation, and what it was applied to, where its slope depends on that.
    type State = (CubeTensor<R>, CubeTensor<R>, (Activation, Option<CubeTensor<R>>));

    fn backward(self, ops: Ops<Self::State, 4>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let mut gradient = gradients.consume::<CubeBackend<R, F, I, T>>(&ops.node);
        let (input, factors, activated) = ops.state;
        if let (act, Some(before)) = activated {
            gradient = steps::times_slope(gradient, before, act);
        }
        let [x, scale, shift, residual] = ops.parents;
        let dtype = factors.dtype;
        if let Some(scale) = scale {
            let of_scale = windows::column_sums(gradient.clone(), Some(input), dtype);
            gradients.register::<CubeBackend<R, F, I, T>>(scale.id, of_scale);
        }
        if let Some(shift) = shift {
            let of_shift = windows::column_sums(gradient.clone(), None, dtype);
            gradients.register::<CubeBackend<R, F, I, T>>(shift.id, of_shift);
        }
        if let Some(x) = x {
            let factors = lift::<R, F, I, T, 1>(factors).unsqueeze::<2>();
            let of_x = primitive(lift::<R, F, I, T, 2>(gradient.clone()) * factors);
            gradients.register::<CubeBackend<R, F, I, T>>(x.id, of_x);
        }
        if let Some(residual) = residual {
            gradients.register::<CubeBackend<R, F, I, T>>(residual.id, gradient);
        }
    }
}

/// The largest value of every window.
#[derive(Debug)]
struct Largest;

/// See [`Kernels::largest`](crate::kernels::Kernels::largest).
pub(super) fn largest<R: CubeRuntime, F: FloatElement, I: IntElement, T: BoolElement>(
    x: Tensor<Autodiff<CubeBackend<R, F, I, T>>, 2>,
    on: &Windows,
) -> Tensor<Autodiff<CubeBackend<R, F, I, T>>, 2> {
    let x = x.into_primitive().tensor();
    let (out, of) = windows::largest(x.primitive, on, true);
    let step = Largest.prepare::<NoCheckpointing>([x.node]).compute_bound();
    Tensor::from_primitive(TensorPrimitive::Float(match step.stateful() {
        OpsKind::Tracked(step) => step.finish((of, *on), out),
        OpsKind::UnTracked(step) => step.finish(out),
    }))
}

impl<R: CubeRuntime, F: FloatElement, I: IntElement, T: BoolElement> Backward<CubeBackend<R, F, I, T>, 1>
    for Largest
{
    /// Which pixel of each window it is.
    type State = (CubeTensor<R>, Windows);

    fn backward(self, ops: Ops<Self::State, 1>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<CubeBackend<R, F, I, T>>(&ops.node);
        let (of, on) = ops.state;
        if let [Some(parent)] = ops.parents {
            let of_images = windows::largest_gradient(gradient, of, &on);
            gradients.register::<CubeBackend<R, F, I, T>>(parent.id, of_images);
        }
    }
}
