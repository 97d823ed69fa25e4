//! How matrices are multiplied on a device: the one place to put something faster.
//!
//! The strategy follows from the precision alone, and so belongs to the class of numerics. What burn does by itself (`float_matmul`,
//! without its feature `autotune`) is not used: it takes the first of cubek's accelerated strategies that there is, and each of them makes
//! TF32 of f32 without saying so. Only the strategies whose tiles a unit computes by itself stay in f32.

use burn_cubecl::CubeRuntime;
use burn_cubecl::kernel::matmul::init_matmul_output;
use burn_cubecl::tensor::CubeTensor;
use cubek::matmul::definition::{MatmulElems, MatmulGlobalElems};
use cubek::matmul::launch::{Strategy, launch_ref};
use cubek::matmul::routines::BlueprintStrategy;
use cubek::std::InputBinding;

use crate::device::Precision;
use crate::kernels::arithmetic;

/// The products of `left` and `right`. Panics where the device has no such strategy, which its trial has found out before.
pub(super) fn product<R: CubeRuntime>(left: CubeTensor<R>, right: CubeTensor<R>) -> CubeTensor<R> {
    let out = init_matmul_output(&left, &right, left.dtype);
    let strategy = strategy(arithmetic::in_force(), &left, &right);
    let (client, dtype) = (out.client.clone(), left.dtype);
    let mut elements = MatmulElems::from_globals(&MatmulGlobalElems {
        lhs: dtype.into(),
        rhs: dtype.into(),
        out: dtype.into(),
    });
    let (left, right) = (left.binding(), right.binding());
    let (left, right) = (InputBinding::new(left, dtype.into()), InputBinding::new(right, dtype.into()));
    let launched = launch_ref(&strategy, &client, left, right, out.clone().binding(), &mut elements);
    if let Err(error) = launched {
        panic!("{strategy} does not multiply {:?}: {error:?}", out.meta.shape());
    }
    out
}

/// The strategy of a product. The accelerated ones were the fastest on an H200; the bulk copies of the first need rows that begin at
/// multiples of 16 bytes.
fn strategy<R: CubeRuntime>(precision: Precision, left: &CubeTensor<R>, right: &CubeTensor<R>) -> Strategy {
    match precision {
        Precision::F32 => Strategy::SimpleUnit(Default::default()),
        Precision::Tf32 | Precision::Bf16 if is_aligned(left) && is_aligned(right) => {
            Strategy::SpecializedTmaMma(BlueprintStrategy::Inferred(().into()))
        }
        Precision::Tf32 | Precision::Bf16 => Strategy::SimpleCyclicMma(Default::default()),
    }
}

/// Whether everything but the elements of one row or column begins at a multiple of 16 bytes.
fn is_aligned<R: CubeRuntime>(of: &CubeTensor<R>) -> bool {
    const BYTES: usize = 16;
    let mut steps = of.meta.strides().iter().zip(of.meta.shape().iter());
    steps.all(|(&stride, &length)| {
        stride == 1 || length == 1 || (stride * of.dtype.size()).is_multiple_of(BYTES)
    }) && of.handle.offset_start.unwrap_or(0).is_multiple_of(BYTES as u64)
}
