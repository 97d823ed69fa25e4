//! How matrices are multiplied on a device: the one place to put something faster.
//!
//! The strategy follows from the precision, the architecture and how matrices lie, and so belongs to the class of numerics. What burn does
//! by itself (`float_matmul`, without its feature `autotune`) is not used: it takes the first of cubek's accelerated strategies that there
//! is, and each of them makes TF32 of f32 without saying so. Only the strategies whose tiles a unit computes by itself stay in f32.

use burn_cubecl::CubeRuntime;
use burn_cubecl::kernel::matmul::init_matmul_output;
use burn_cubecl::tensor::CubeTensor;
use cubecl::ir::features::Tma;
use cubek::matmul::definition::{MatmulElems, MatmulGlobalElems};
use cubek::matmul::launch::{Strategy, launch_ref};
use cubek::matmul::routines::BlueprintStrategy;
use cubek::std::InputBinding;

use crate::device::Precision;
use crate::kernels::arithmetic;

/// What begins at multiples of so many bytes can be copied in bulk.
const BULK_BYTES: usize = 16;

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

/// The strategy of a product. The accelerated ones were the fastest on an H200; the bulk copies of the first need a device that has them, and
/// rows that begin at multiples of 16 bytes.
fn strategy<R: CubeRuntime>(precision: Precision, left: &CubeTensor<R>, right: &CubeTensor<R>) -> Strategy {
    match precision {
        Precision::F32 => Strategy::SimpleUnit(Default::default()),
        Precision::Tf32 | Precision::Bf16 if is_copied_in_bulk(left) && is_copied_in_bulk(right) => {
            Strategy::SpecializedTmaMma(BlueprintStrategy::Inferred(().into()))
        }
        Precision::Tf32 | Precision::Bf16 => Strategy::SimpleCyclicMma(Default::default()),
    }
}

/// Whether the device has bulk copies, and they can read `of`.
fn is_copied_in_bulk<R: CubeRuntime>(of: &CubeTensor<R>) -> bool {
    of.client.properties().features.tma.contains(Tma::Base)
        && of.handle.offset_start.unwrap_or(0).is_multiple_of(BULK_BYTES as u64)
        && rows_are_aligned(of.meta.shape(), of.meta.strides(), of.dtype.size())
}

/// Whether all but the elements of one row or column of matrices begin at multiples of [`BULK_BYTES`]. The driver looks at every distance, those
/// along dimensions of one element among them, and refuses the whole launch.
fn rows_are_aligned(shape: &[usize], strides: &[usize], element_bytes: usize) -> bool {
    let ([.., columns], [outer @ .., across, along]) = (shape, strides) else { return false };
    // Rows of one element lie without gaps: as cubecl makes them, and as cubek copies them where it has to.
    if *columns == 1 {
        return false;
    }
    let step = match (across, along) {
        (_, 1) => across,
        (1, _) => along,
        _ => return false,
    };
    outer.iter().chain([step]).all(|stride| (stride * element_bytes).is_multiple_of(BULK_BYTES))
}

#[cfg(test)]
mod tests {
    use super::rows_are_aligned;

    #[test]
    fn bulk_copies_read_rows_that_are_aligned_alone() {
        // Rows with gaps, transposed, and by batch and head.
        assert!(rows_are_aligned(&[3, 7], &[8, 1], 4) && rows_are_aligned(&[7, 3], &[1, 8], 4));
        assert!(rows_are_aligned(&[2, 4, 5, 16], &[320, 16, 64, 1], 2));
        assert!(!rows_are_aligned(&[3, 7], &[7, 1], 4) && !rows_are_aligned(&[7, 3], &[1, 7], 4));
        assert!(!rows_are_aligned(&[2, 4, 5, 16], &[320, 4, 64, 1], 2));
        // Neither rows nor columns.
        assert!(!rows_are_aligned(&[4, 4], &[32, 8], 4) && !rows_are_aligned(&[4], &[1], 4));
    }

    #[test]
    fn a_dimension_of_one_element_is_looked_at_too() {
        // As cubecl lays out a single element, a column, and what a view of heads makes of one token.
        assert!(!rows_are_aligned(&[1, 1], &[1, 1], 4));
        assert!(!rows_are_aligned(&[64, 1], &[1, 1], 4));
        assert!(!rows_are_aligned(&[1, 1, 1, 1], &[2, 1, 1, 2], 2));
        // A row of what is a column elsewhere, and one without a gap behind it.
        assert!(!rows_are_aligned(&[1, 10], &[1, 1], 4) && !rows_are_aligned(&[1, 7], &[7, 1], 4));
        // A copy of this has rows of one element.
        assert!(!rows_are_aligned(&[64, 1], &[1, 64], 4));
        assert!(rows_are_aligned(&[1, 64], &[64, 1], 4));
    }
}
