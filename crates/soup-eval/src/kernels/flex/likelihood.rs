//! How likely one choice of many is, and whether it is the most probable one.

use burn::backend::Flex;
use burn::backend::flex::FlexDevice;
use burn::tensor::Tensor;
use pulp::{Simd, WithSimd};

use super::super::math::exp;
use super::{contiguous_owned, sum, values, vectorised};
use crate::kernels::tensor;

/// [`Kernels::log_likelihoods`](crate::kernels::Kernels::log_likelihoods).
pub(super) fn log_likelihoods(logits: Tensor<Flex, 2>, at: &[u32]) -> Tensor<Flex, 2> {
    let [rows, choices] = logits.dims();
    let logits = contiguous_owned(logits);
    let mut out = vec![0.0; rows];
    vectorised(LogLikelihoods { logits: values(&logits), choices, at, out: &mut out });
    tensor(out, [rows, 1], &FlexDevice)
}

/// [`Kernels::most_probable`](crate::kernels::Kernels::most_probable).
pub(super) fn most_probable(logits: Tensor<Flex, 2>, at: &[u32]) -> Tensor<Flex, 2> {
    let [rows, choices] = logits.dims();
    let logits = contiguous_owned(logits);
    let is_one = |(row, &at): (&[f32], &u32)| {
        let (before, others) = row.split_at(at as usize);
        let own = others[0];
        // Compared so that what is not a number is never below.
        before.iter().all(|&v| v < own) && others.iter().all(|&v| v <= own)
    };
    let out =
        values(&logits).chunks_exact(choices).zip(at).map(|row| f32::from(u8::from(is_one(row)))).collect();
    tensor(out, [rows, 1], &FlexDevice)
}

/// The largest of a row, and the sum of the exponentials of how far all are above it.
#[inline(always)]
pub(in crate::kernels) fn partition(row: &[f32]) -> (f32, f32) {
    let largest = row.iter().fold(f32::NEG_INFINITY, |m, &v| if v > m { v } else { m });
    (largest, sum(row, |v| exp(v - largest)))
}

struct LogLikelihoods<'a> {
    logits: &'a [f32],
    choices: usize,
    at: &'a [u32],
    out: &'a mut [f32],
}

impl WithSimd for LogLikelihoods<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let LogLikelihoods { logits, choices, at, out } = self;
        for ((row, &at), out) in logits.chunks_exact(choices).zip(at).zip(out) {
            let (largest, sum) = partition(row);
            *out = row[at as usize] - largest - sum.ln();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::noise;
    use super::*;
    use crate::kernels::Kernels;

    #[test]
    fn likelihoods_are_those_of_f64() {
        for (rows, choices) in [(1, 1), (3, 7), (4, 40_001)] {
            let logits = noise([rows, choices], 9.0, 1);
            let at: Vec<u32> = (0..rows).map(|row| (row * 5 % choices) as u32).collect();
            let got = Flex::log_likelihoods(logits.clone(), &at.clone().into());
            let got = got.into_data().to_vec::<f32>().unwrap();
            let logits = logits.into_data().to_vec::<f32>().unwrap();
            for ((row, at), got) in logits.chunks_exact(choices).zip(at).zip(got) {
                let sum: f64 = row.iter().map(|&v| f64::from(v).exp()).sum();
                let want = f64::from(row[at as usize]) - sum.ln();
                // In f32 the largest of them have steps of 2e-6.
                assert!((f64::from(got) - want).abs() < 1e-5, "{got} for {want}");
            }
        }
    }

    #[test]
    fn the_first_of_the_largest_is_the_most_probable_one() {
        let is = |row: [f32; 3], at: u32| {
            let logits = Tensor::<Flex, 2>::from_data([row], &FlexDevice);
            let one = |of: Tensor<Flex, 2>| of.into_data().to_vec::<f32>().unwrap() == [1.0];
            let plain = one(crate::kernels::plain::most_probable(logits.clone(), &[at]));
            assert_eq!(one(Flex::most_probable(logits, &vec![at].into())), plain, "{row:?} at {at}");
            plain
        };
        assert!(is([0.0, 2.0, 1.0], 1) && !is([0.0, 2.0, 1.0], 2) && !is([0.0, 2.0, 1.0], 0));
        assert!(is([2.0, 2.0, 1.0], 0) && !is([2.0, 2.0, 1.0], 1) && is([0.0, -0.0, -1.0], 0));
        for at in 0..3 {
            assert!(!is([f32::NAN, 2.0, 1.0], at) && !is([2.0, 1.0, f32::NAN], at));
        }
    }

    #[test]
    fn what_is_not_a_number_is_not_passed_over() {
        for row in [[f32::NAN, 0.0], [0.0, f32::NAN], [f32::INFINITY, 0.0]] {
            let logits = Tensor::<Flex, 2>::from_data([row], &FlexDevice);
            let got = Flex::log_likelihoods(logits, &vec![1u32].into()).into_data().to_vec::<f32>().unwrap();
            assert!(!got[0].is_finite(), "{row:?}: {got:?}");
        }
    }
}
