//! Rows that are picked out of others, how likely one choice of many is, and whether it is the most probable one.

mod programs;

use burn_cubecl::CubeRuntime;
use burn_cubecl::tensor::CubeTensor;

use super::steps::{Rows, u32s};

/// In place of a row: there is none, and zeros come out.
pub(super) const NONE: u32 = u32::MAX;

/// The rows `at` of `x`, one after the other; zeros for [`NONE`].
pub(super) fn rows<R: CubeRuntime>(x: CubeTensor<R>, at: &[u32]) -> CubeTensor<R> {
    let x = Rows::of(x);
    let out = x.matrix([at.len(), x.width]);
    let (count, dim) = x.by_element(out.elements());
    programs::rows::launch(
        &x.tensor.client,
        count,
        dim,
        x.arg(),
        u32s(&x.tensor, at).into_tensor_arg(),
        out.arg(),
        out.elements(),
        x.width,
        x.pitch,
        out.pitch,
        x.tensor.dtype.into(),
    );
    out.tensor
}

/// The logarithm of the probability that each row of `logits` gives to the choice in `at`: `[rows, 1]`.
pub(super) fn log_likelihoods<R: CubeRuntime>(logits: CubeTensor<R>, at: &[u32]) -> CubeTensor<R> {
    let logits = Rows::of(logits);
    let out = logits.matrix([logits.rows, 1]);
    let (count, dim, units) = logits.by_row();
    programs::log_likelihoods::launch(
        &logits.tensor.client,
        count,
        dim,
        logits.arg(),
        u32s(&logits.tensor, at).into_tensor_arg(),
        out.arg(),
        logits.rows,
        logits.width,
        logits.pitch,
        out.pitch,
        units,
        logits.tensor.dtype.into(),
    );
    out.tensor
}

/// One for each row of `logits` of which the choice in `at` is the most probable one, else zero: `[rows, 1]`.
pub(super) fn most_probable<R: CubeRuntime>(logits: CubeTensor<R>, at: &[u32]) -> CubeTensor<R> {
    let logits = Rows::of(logits);
    let out = logits.matrix([logits.rows, 1]);
    let (count, dim, units) = logits.by_row();
    programs::most_probable::launch(
        &logits.tensor.client,
        count,
        dim,
        logits.arg(),
        u32s(&logits.tensor, at).into_tensor_arg(),
        out.arg(),
        logits.rows,
        logits.width,
        logits.pitch,
        out.pitch,
        units,
        logits.tensor.dtype.into(),
    );
    out.tensor
}

/// The gradient of `logits` from that of [`log_likelihoods`].
pub(super) fn log_likelihood_gradients<R: CubeRuntime>(
    gradient: CubeTensor<R>,
    logits: CubeTensor<R>,
    at: &[u32],
) -> CubeTensor<R> {
    let (gradient, logits) = (Rows::of(gradient), Rows::of(logits));
    let out = logits.like(logits.width);
    let (count, dim, units) = logits.by_row();
    programs::log_likelihood_gradients::launch(
        &logits.tensor.client,
        count,
        dim,
        gradient.arg(),
        logits.arg(),
        u32s(&logits.tensor, at).into_tensor_arg(),
        out.arg(),
        logits.rows,
        logits.width,
        gradient.pitch,
        logits.pitch,
        out.pitch,
        units,
        logits.tensor.dtype.into(),
    );
    out.tensor
}
