//! The kernels on a device under automatic differentiation: plain operations of burn's, but for products, whose backward pass is products in
//! the same precision too, for activations, since burn's slope of GELU there is that of its approximation, and for what has a kernel of
//! several passes: attention of rows to others, windows on images, likelihoods.

mod attention;
mod choices;
mod windows;

use std::sync::Arc;

use burn::backend::Autodiff;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::NoCheckpointing;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::tensor::{Tensor, TensorPrimitive};
use burn_cubecl::tensor::CubeTensor;
use burn_cubecl::{BoolElement, CubeBackend, CubeRuntime, FloatElement, IntElement};
use soup_core::Result;

use super::matmul::product;
use super::{lift, primitive, scale_of, steps};
use crate::device::Precision;
use crate::kernels::relative::{Pairs, Relative};
use crate::kernels::texts::Spans;
use crate::kernels::windows::Windows;
use crate::kernels::{Activation, Filters, Finish, Kernels};
use crate::parameters::visitor::Layout;

impl<R: CubeRuntime, F: FloatElement, I: IntElement, T: BoolElement> Kernels
    for Autodiff<CubeBackend<R, F, I, T>>
{
    fn on<V>(device: &Self::Device, precision: Precision, work: impl FnOnce() -> Result<V>) -> Result<V> {
        CubeBackend::<R, F, I, T>::on(device, precision, work)
    }

    fn parameter<const D: usize>(
        values: Vec<f32>,
        layout: &Layout,
        shape: [usize; D],
        device: &Self::Device,
    ) -> Tensor<Self, D> {
        Tensor::from_inner(CubeBackend::<R, F, I, T>::parameter(values, layout, shape, device))
    }

    fn crop(images: Tensor<Self, 4>, sizes: [usize; 2]) -> Tensor<Self, 4> {
        Tensor::from_inner(CubeBackend::<R, F, I, T>::crop(images.inner(), sizes))
    }

    fn bias_act(x: Tensor<Self, 2>, bias: Option<&Tensor<Self, 1>>, act: Activation) -> Tensor<Self, 2> {
        let x = match bias {
            Some(bias) => x + bias.clone().unsqueeze(),
            None => x,
        };
        if act == Activation::Linear {
            return x;
        }
        let x = x.into_primitive().tensor();
        let step = Activate.prepare::<NoCheckpointing>([x.node]);
        let out = steps::bias_act(x.primitive.clone(), None, act);
        Tensor::from_primitive(TensorPrimitive::Float(match step.compute_bound().stateful() {
            OpsKind::Tracked(step) => step.finish((act, x.primitive), out),
            OpsKind::UnTracked(step) => step.finish(out),
        }))
    }

    fn matmul<const D: usize>(left: Tensor<Self, D>, right: Tensor<Self, D>) -> Tensor<Self, D> {
        let (left, right) = (left.into_primitive().tensor(), right.into_primitive().tensor());
        let step = Product::<D>.prepare::<NoCheckpointing>([left.node, right.node]);
        let out = product(left.primitive.clone(), right.primitive.clone());
        Tensor::from_primitive(TensorPrimitive::Float(match step.compute_bound().stateful() {
            OpsKind::Tracked(step) => step.finish((left.primitive, right.primitive), out),
            OpsKind::UnTracked(step) => step.finish(out),
        }))
    }

    fn attend_texts(
        query: Tensor<Self, 2>,
        key_value: Tensor<Self, 2>,
        texts: &Spans,
        heads: usize,
    ) -> Tensor<Self, 2> {
        let [rows, width] = query.dims();
        let (pairs, scale) = (Pairs::of_texts(texts, rows), scale_of(width, heads));
        attention::attend(query, key_value, (&pairs, heads, scale), None)
    }

    fn attend_pairs(
        query: Tensor<Self, 2>,
        key_value: Tensor<Self, 2>,
        (pairs, heads): (&Pairs, usize),
        relative: Option<&Relative<Self>>,
    ) -> Tensor<Self, 2> {
        attention::attend(query, key_value, (pairs, heads, 1.0), relative)
    }

    fn log_likelihoods(logits: Tensor<Self, 2>, at: &Arc<[u32]>) -> Tensor<Self, 2> {
        choices::log_likelihoods(logits, at)
    }

    fn first_of_each(x: Tensor<Self, 2>, texts: &Spans) -> Tensor<Self, 2> {
        choices::first_of_each(x, texts)
    }

    fn convolve(x: Tensor<Self, 2>, filters: Filters<Self>, on: &Windows) -> Tensor<Self, 2> {
        windows::convolve(x, filters, on)
    }

    fn finish(x: Tensor<Self, 2>, finish: Finish<'_, Self>) -> Tensor<Self, 2> {
        windows::finish(x, finish)
    }

    fn largest(x: Tensor<Self, 2>, on: &Windows) -> Tensor<Self, 2> {
        windows::largest(x, on)
    }
}

/// An activation.
#[derive(Debug)]
struct Activate;

impl<R: CubeRuntime, F: FloatElement, I: IntElement, T: BoolElement> Backward<CubeBackend<R, F, I, T>, 1>
    for Activate
{
    /// The activation, and what it was applied to.
    type State = (Activation, CubeTensor<R>);

    fn backward(self, ops: Ops<Self::State, 1>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<CubeBackend<R, F, I, T>>(&ops.node);
        let ((act, input), [parent]) = (ops.state, ops.parents);
        if let Some(parent) = parent {
            let product = steps::times_slope(gradient, input, act);
            gradients.register::<CubeBackend<R, F, I, T>>(parent.id, product);
        }
    }
}

/// The products of matrices that are the last two of `D` dimensions.
#[derive(Debug)]
struct Product<const D: usize>;

impl<R: CubeRuntime, F: FloatElement, I: IntElement, T: BoolElement, const D: usize>
    Backward<CubeBackend<R, F, I, T>, 2> for Product<D>
{
    /// The factors.
    type State = (CubeTensor<R>, CubeTensor<R>);

    fn backward(self, ops: Ops<Self::State, 2>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let transposed = |x: CubeTensor<R>| -> CubeTensor<R> {
            primitive(lift::<R, F, I, T, D>(x).swap_dims(D - 2, D - 1))
        };
        let gradient = gradients.consume::<CubeBackend<R, F, I, T>>(&ops.node);
        let (left, right) = ops.state;
        let [of_left, of_right] = ops.parents;
        if let Some(parent) = of_left {
            let product = product(gradient.clone(), transposed(right));
            gradients.register::<CubeBackend<R, F, I, T>>(parent.id, product);
        }
        if let Some(parent) = of_right {
            gradients.register::<CubeBackend<R, F, I, T>>(parent.id, product(transposed(left), gradient));
        }
    }
}
