//! How predicted numbers agree with true ones.
//!
//! Everything is computed in `f64`, in the order of the samples, so that equal values have equal bits. Spearman's correlation is one
//! rounding of integers: twice the mean ranks, less twice their mean, are whole numbers that add up to nothing.
//!
//! A correlation with something that does not vary says nothing, and is 0. Where a prediction is not a number, no figure has a value;
//! where one is infinite, it has a rank, and no product with others.

use super::values::Value;

/// How predicted numbers agree with true ones; NaN where there is no value, as of no samples.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Agreement {
    /// Pearson's correlation of the numbers.
    pub pearson: f64,
    /// Spearman's correlation: that of their ranks, where equal numbers have the mean of theirs.
    pub spearman: f64,
    /// The mean of the squared differences.
    pub mse: f64,
}

impl Agreement {
    /// That of `samples`.
    pub(super) fn of(samples: &[Value]) -> Agreement {
        let truths: Vec<f64> = samples.iter().map(|value| value.truth).collect();
        let predictions: Vec<f64> = samples.iter().map(|value| value.prediction).collect();
        let square = |value: &Value| (value.truth - value.prediction) * (value.truth - value.prediction);
        Agreement {
            pearson: pearson(&truths, &predictions),
            spearman: spearman(&truths, &predictions),
            mse: samples.iter().map(square).sum::<f64>() / samples.len() as f64,
        }
    }
}

fn pearson(truths: &[f64], predictions: &[f64]) -> f64 {
    let all = truths.iter().chain(predictions);
    if truths.is_empty() || !all.clone().all(|number| number.is_finite()) {
        return f64::NAN;
    }
    let Some((a, b)) = deviations(truths).zip(deviations(predictions)) else { return 0.0 };
    let sum = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    (sum(&a, &b) / (sum(&a, &a) * sum(&b, &b)).sqrt()).clamp(-1.0, 1.0)
}

/// How far each number is from their mean, as parts of about the largest of that: so no square is too large or too small. `None` where they
/// do not vary.
fn deviations(numbers: &[f64]) -> Option<Vec<f64>> {
    // Whether they vary is asked of the numbers themselves: a mean is rounded.
    if numbers.windows(2).all(|pair| pair[0] == pair[1]) {
        return None;
    }
    let mut apart = numbers.to_vec();
    // The first mean is rounded, by as much as numbers may be apart that are large beside that; how far they are from it is not.
    for _ in 0..2 {
        scale(&mut apart);
        let mean = apart.iter().sum::<f64>() / apart.len() as f64;
        apart.iter_mut().for_each(|number| *number -= mean);
    }
    scale(&mut apart);
    Some(apart)
}

/// Divides by a power of two, which rounds nothing, so that the largest is between a half and one.
fn scale(numbers: &mut [f64]) {
    let largest = numbers.iter().fold(0.0f64, |most, number| most.max(number.abs()));
    let (_, exponent) = libm::frexp(largest);
    numbers.iter_mut().for_each(|number| *number = libm::scalbn(*number, -exponent));
}

fn spearman(truths: &[f64], predictions: &[f64]) -> f64 {
    if truths.is_empty() || truths.iter().chain(predictions).any(|number| number.is_nan()) {
        return f64::NAN;
    }
    let (a, b) = (ranks(truths), ranks(predictions));
    let sum =
        |a: &[i64], b: &[i64]| a.iter().zip(b).map(|(&a, &b)| i128::from(a) * i128::from(b)).sum::<i128>();
    match (sum(&a, &a), sum(&b, &b)) {
        (0, _) | (_, 0) => 0.0,
        (of_a, of_b) => (sum(&a, &b) as f64 / (of_a as f64 * of_b as f64).sqrt()).clamp(-1.0, 1.0),
    }
}

/// Twice the mean rank of each number, less twice the mean of all ranks.
fn ranks(numbers: &[f64]) -> Vec<i64> {
    let mut order: Vec<usize> = (0..numbers.len()).collect();
    // There is no NaN among them, and -0 is 0.
    order.sort_by(|&a, &b| (numbers[a] + 0.0).total_cmp(&(numbers[b] + 0.0)));
    let (mut ranks, mut first) = (vec![0; numbers.len()], 0);
    for equal in order.chunk_by(|&a, &b| numbers[a] == numbers[b]) {
        let end = first + equal.len();
        // Ranks first + 1 to end, of 1 to all.
        equal.iter().for_each(|&at| ranks[at] = (first + end) as i64 - numbers.len() as i64);
        first = end;
    }
    ranks
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn agreement(truths: &[f64], predictions: &[f64]) -> Agreement {
        let pairs = truths.iter().zip(predictions);
        let samples: Vec<Value> = pairs.map(|(&truth, &prediction)| Value { truth, prediction }).collect();
        Agreement::of(&samples)
    }

    #[test]
    fn figures_are_those_of_scipy() {
        // By pearsonr and spearmanr of scipy.stats.
        for (truths, predictions, pearson, spearman, mse) in TABLE {
            let got = agreement(truths, predictions);
            for (got, want) in [(got.pearson, pearson), (got.spearman, spearman), (got.mse, mse)] {
                assert!(
                    (got - want).abs() <= 1e-14 * want.abs().max(1.0),
                    "{truths:?}: {got}, expected {want}"
                );
            }
        }
    }

    #[test]
    fn what_does_not_vary_correlates_with_nothing() {
        // The mean of these is not one of them.
        let same = [0.1; 7];
        let others = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 9.0];
        for (truths, predictions) in [(&same, &others), (&others, &same), (&same, &same)] {
            let got = agreement(truths, predictions);
            assert_eq!((got.pearson, got.spearman), (0.0, 0.0));
        }
        assert_eq!(agreement(&[3.0], &[1.0]), Agreement { pearson: 0.0, spearman: 0.0, mse: 4.0 });
    }

    #[test]
    fn what_is_not_finite_has_no_value() {
        let none = agreement(&[], &[]);
        assert!(none.pearson.is_nan() && none.spearman.is_nan() && none.mse.is_nan());
        let nan = agreement(&[1.0, 2.0], &[1.0, f64::NAN]);
        assert!(nan.pearson.is_nan() && nan.spearman.is_nan() && nan.mse.is_nan());
        let infinite = agreement(&[1.0, 2.0, 3.0], &[1.0, f64::INFINITY, 2.0]);
        assert!(infinite.pearson.is_nan() && infinite.mse == f64::INFINITY);
        assert_eq!(infinite.spearman, 0.5);
    }

    #[test]
    fn what_varies_little_correlates_as_much() {
        // In steps of 2^-33, the last bit of a million.
        let near = |steps: [f64; 3]| steps.map(|step| 1e6 + step * 2f64.powi(-33));
        let got = agreement(&[1.0, 2.0, 4.5], &near([0.0, 1.0, 5.0]));
        assert!((got.pearson - 0.995_870_594_885_822_4).abs() < 1e-15, "{got:?}");
        assert_eq!(agreement(&[0.3, 0.7], &near([0.0, 1.0, 0.0])[..2]).pearson, 1.0);
    }

    #[test]
    fn sizes_do_not_matter() {
        for scale in [1e-300, 1e-9, 1e9, 1e300, 1.7e308] {
            let got = agreement(&[1.0, 2.0, 4.0], &[0.25 * scale, 0.5 * scale, scale]);
            assert!((got.pearson - 1.0).abs() < 1e-15 && got.spearman == 1.0, "{scale}: {got:?}");
        }
        assert_eq!(
            agreement(&[1.0, 2.0, 3.0], &[-0.0, 0.0, 1.0]).spearman,
            agreement(&[1.0, 2.0, 3.0], &[0.0, 0.0, 1.0]).spearman
        );
    }

    proptest! {
        #[test]
        fn correlations_are_those_of_any_order_and_scale(
            of in prop::collection::vec((-5i32..6, -1e3f64..1e3), 2..40), seed in any::<u64>(),
        ) {
            let (truths, predictions): (Vec<f64>, Vec<f64>) = of.iter().map(|&(t, p)| (f64::from(t) / 2.0, p)).unzip();
            let got = agreement(&truths, &predictions);
            prop_assert!((-1.0..=1.0).contains(&got.pearson) && (-1.0..=1.0).contains(&got.spearman));
            // Both ways round.
            let swapped = agreement(&predictions, &truths);
            prop_assert!((got.pearson - swapped.pearson).abs() < 1e-12 && got.spearman == swapped.spearman);
            // Spearman's is the same to the bit in any order, and of any numbers in the same order; Pearson's of any straight line.
            let mut order: Vec<usize> = (0..of.len()).collect();
            order.sort_by_key(|&at| (at as u64 ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15));
            let pick = |of: &[f64]| order.iter().map(|&at| of[at]).collect::<Vec<f64>>();
            let shuffled = agreement(&pick(&truths), &pick(&predictions));
            prop_assert!((got.pearson - shuffled.pearson).abs() < 1e-9 && got.spearman == shuffled.spearman);
            let cubed: Vec<f64> = predictions.iter().map(|p| p * p * p).collect();
            prop_assert_eq!(agreement(&truths, &cubed).spearman, got.spearman);
            let line: Vec<f64> = predictions.iter().map(|p| 3.0 - 2.0 * p).collect();
            prop_assert!((agreement(&truths, &line).pearson + got.pearson).abs() < 1e-9);
            // Of ranks without ties, the sum of their squared differences says the same.
            let of_ranks = |numbers: &[f64]| ranks(numbers).into_iter().map(|rank| rank as f64).collect::<Vec<f64>>();
            let by_ranks = agreement(&of_ranks(&truths), &of_ranks(&predictions));
            prop_assert!((by_ranks.pearson - got.spearman).abs() < 1e-12, "Spearman's is Pearson's of the ranks");
        }
    }

    /// Truths, predictions, and what scipy says of them.
    type Row = (&'static [f64], &'static [f64], f64, f64, f64);

    const TABLE: [Row; 5] = [
        (
            &[5.0, 3.8, 4.25, 0.5, 2.0, 2.0],
            &[4.75, 3.5, 4.5, 0.75, 2.25, 1.5],
            0.9800235780272532,
            0.9856107606091624,
            0.09833333333333331,
        ),
        (
            &[1.0, 2.0, 2.0, 3.0, 3.0, 3.0, 0.0],
            &[0.5, 0.5, 1.5, 1.5, 1.5, 2.5, -0.5],
            0.8874119674649424,
            0.872549019607843,
            1.1071428571428572,
        ),
        (
            &[0.0, 1.0, 2.0, 3.0, 4.0],
            &[4.0, 1.0, 3.5, -2.0, 0.25],
            -0.6749655638598864,
            -0.7999999999999999,
            11.4625,
        ),
        (
            &[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8],
            &[1000000.0, 1000001.0, 1000003.0, 1000002.0, 1000005.0, 1000008.0, 1000004.0, 1000009.0],
            0.8728715609439697,
            0.9047619047619048,
            1000007100020.455,
        ),
        (&[-1.0, 1.0], &[7.0, 6.5], -1.0, -0.9999999999999999, 47.125),
    ];
}
