//! Rows over their root mean square.

use burn::backend::Flex;
use burn::tensor::{Tensor, TensorData};
use pulp::{Simd, WithSimd};

use super::{contiguous, sum, values, vectorised};

/// [`Kernels::rms_rows`](crate::kernels::Kernels::rms_rows).
pub(super) fn rms_rows(x: &Tensor<Flex, 2>, gamma: &Tensor<Flex, 1>, epsilon: f64) -> Tensor<Flex, 2> {
    let (input, gamma) = (contiguous(x), contiguous(gamma));
    let mut out = vec![0.0; values(&input).len()];
    let (input, gamma) = (values(&input), values(&gamma));
    vectorised(RmsRows { input, gamma, epsilon: epsilon as f32, out: &mut out });
    Tensor::from_data(TensorData::new(out, x.shape()), &x.device())
}

struct RmsRows<'a> {
    input: &'a [f32],
    gamma: &'a [f32],
    epsilon: f32,
    out: &'a mut [f32],
}

impl WithSimd for RmsRows<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let RmsRows { input, gamma, epsilon, out } = self;
        let width = gamma.len();
        for (row, out) in input.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
            let inverse = 1.0 / (sum(row, |v| v * v) / width as f32 + epsilon).sqrt();
            for ((out, &v), &g) in out.iter_mut().zip(row).zip(gamma) {
                *out = v * inverse * g;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::noise;
    use super::*;
    use crate::kernels::{Kernels, plain};

    #[test]
    fn rows_are_normalised_as_by_plain_operations() {
        for (rows, width) in [(1, 1), (3, 7), (5, 64), (2, 129)] {
            let (x, gamma) = (noise([rows, width], 3.0, 1), noise([width], 1.0, 2));
            let host = |x: Tensor<Flex, 2>| x.into_data().to_vec::<f32>().unwrap();
            let got = host(Flex::rms_rows(&x, &gamma, 0.01));
            for (got, want) in got.iter().zip(host(plain::rms_norm(&x, &gamma, 0.01))) {
                assert!((got - want).abs() < 2e-6, "{got} for {want}");
            }
        }
    }
}
