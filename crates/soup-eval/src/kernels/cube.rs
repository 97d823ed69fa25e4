//! The kernels on a device, for every runtime of cubecl: matrix products by a fixed strategy ([`matmul`]), the steps between them as one
//! launch each ([`steps`]).
//!
//! Nothing here is chosen by how long it took, so that the same device gives the same bits in every process. burn 0.21 chooses so, behind
//! its feature `autotune`, for products, convolutions, attention and reductions; all else that it does here (copies, slices, sums along a
//! dimension) depends on shapes alone. That feature must therefore be off in the whole program, which [`never_by_timing`] makes sure of.

mod autodiff;
mod lane;
mod matmul;
mod steps;

use burn::tensor::{Tensor, TensorPrimitive};
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::kernel::matmul::MatmulStrategy;
use burn_cubecl::tensor::CubeTensor;
use burn_cubecl::{BoolElement, CubeBackend, CubeRuntime, FloatElement, IntElement};
use soup_core::Result;

use super::{Activation, Kernels, Norm, tensor};
use crate::device::Precision;
use crate::gradient::sink::Deposits;
use crate::parameters::visitor::Layout;

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
        lane::run::<R, V>(device, || matmul::within(precision, work))
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
