//! Figures from counts: the value of a [`Metric`] for a [`Counts`], and which of two scores is better.
//!
//! Comparing is deterministic everywhere, and figures of counts are compared as what they are: two that are equal are a tie, however
//! `f64` rounds the ways to them. They are computed in `f64` from integers in a fixed order of additions, and where that leaves
//! them within [`NEAR`] of each other, the integers decide. A score without samples has no value (NaN), and NaN is worse than any number.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use num_bigint::{BigInt, Sign};
use serde::{Deserialize, Serialize};

use crate::tally::Counts;

/// The figure by which soups are compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Metric {
    /// Share of samples whose prediction is their label.
    #[default]
    Accuracy,
    /// Mean over the classes of the F1 of each class; a class that neither occurs nor is predicted counts 0.
    MacroF1,
    /// F1 of class 1 (two classes).
    BinaryF1,
    /// Matthews correlation coefficient, multi-class (Gorodkin 2004); 0 where it is undefined.
    Matthews,
    /// Mean cross-entropy in nats; lower is better.
    Loss,
}

/// Figures that lie no further apart in `f64` may be equal; rounding is off by less than a thousandth of it.
const NEAR: f64 = 1e-9;

impl Metric {
    /// All metrics, for tables and tests.
    pub const ALL: [Metric; 5] =
        [Metric::Accuracy, Metric::MacroF1, Metric::BinaryF1, Metric::Matthews, Metric::Loss];

    /// The name, as flags and files spell it.
    pub fn name(self) -> &'static str {
        match self {
            Metric::Accuracy => "accuracy",
            Metric::MacroF1 => "macro-f1",
            Metric::BinaryF1 => "binary-f1",
            Metric::Matthews => "matthews",
            Metric::Loss => "loss",
        }
    }

    /// The value of this figure for `score` of a model with `classes` classes: a share in 0 to 1, a correlation in -1 to 1, or a mean
    /// cross-entropy in nats. NaN where there are no samples.
    pub fn value(self, score: &Counts, classes: u32) -> f64 {
        match self {
            // No class can be missing from a sum over the classes that occur: the others count 0.
            Metric::MacroF1 => self.rank(score) / f64::from(classes),
            _ => self.rank(score),
        }
    }

    /// Which score is better: `Greater` where `a` is. Both must be of the same dataset and number of classes.
    pub fn compare(self, a: &Counts, b: &Counts) -> Ordering {
        if self == Metric::Accuracy && a.total > 0 && b.total > 0 {
            let cross = |x: &Counts, y: &Counts| u128::from(x.correct) * u128::from(y.total);
            return cross(a, b).cmp(&cross(b, a));
        }
        let (x, y) = (self.rank(a), self.rank(b));
        if self != Metric::Loss && (x - y).abs() <= NEAR {
            return self.compare_exactly(a, b);
        }
        let order = x.partial_cmp(&y).unwrap_or_else(|| y.is_nan().cmp(&x.is_nan()));
        // Of two numbers the lower loss is better; NaN is worse either way.
        if self == Metric::Loss && !x.is_nan() && !y.is_nan() { order.reverse() } else { order }
    }

    /// The same by integers alone, for figures that are made of counts.
    fn compare_exactly(self, a: &Counts, b: &Counts) -> Ordering {
        let (a, b) = (Margins::of(a), Margins::of(b));
        match self {
            Metric::MacroF1 => f1_sum(a.by_class.values()).compare(&f1_sum(b.by_class.values())),
            Metric::BinaryF1 => f1_sum(a.by_class.get(&1)).compare(&f1_sum(b.by_class.get(&1))),
            Metric::Matthews => a.exact_matthews().compare(&b.exact_matthews()),
            Metric::Accuracy | Metric::Loss => Ordering::Equal,
        }
    }

    /// The value, but for the division of macro-F1 by the number of classes, which no comparison needs.
    fn rank(self, score: &Counts) -> f64 {
        match self {
            Metric::Accuracy => score.correct as f64 / score.total as f64,
            Metric::Loss => score.loss_sum / score.total as f64,
            _ if score.confusion.is_empty() => f64::NAN,
            Metric::MacroF1 => Margins::of(score).by_class.values().map(Class::f1).sum(),
            Metric::BinaryF1 => Margins::of(score).by_class.get(&1).map_or(0.0, Class::f1),
            Metric::Matthews => Margins::of(score).matthews(),
        }
    }
}

/// Row and column sums of a confusion matrix.
struct Margins {
    by_class: BTreeMap<u32, Class>,
}

/// One class: how often it was true, predicted, and both.
#[derive(Clone, Copy, Default)]
struct Class {
    labelled: u64,
    predicted: u64,
    hit: u64,
}

/// An exact number.
struct Fraction {
    numerator: BigInt,
    /// Above 0.
    denominator: BigInt,
}

impl Fraction {
    fn compare(&self, other: &Fraction) -> Ordering {
        (&self.numerator * &other.denominator).cmp(&(&other.numerator * &self.denominator))
    }
}

/// The sum of the F1 of classes.
fn f1_sum<'a>(classes: impl IntoIterator<Item = &'a Class>) -> Fraction {
    let mut sum = Fraction { numerator: BigInt::from(0), denominator: BigInt::from(1) };
    for class in classes {
        let both = BigInt::from(class.labelled) + BigInt::from(class.predicted);
        // A class that neither occurs nor is predicted counts 0.
        if both.sign() == Sign::Plus {
            sum.numerator = sum.numerator * &both + BigInt::from(class.hit) * 2 * &sum.denominator;
            sum.denominator *= both;
        }
    }
    sum
}

impl Class {
    /// 2 TP / (2 TP + FP + FN); 0 for a class that neither occurs nor is predicted.
    fn f1(&self) -> f64 {
        // TP + FN samples have the label, TP + FP the prediction.
        let both = self.labelled as f64 + self.predicted as f64;
        if both > 0.0 { 2.0 * self.hit as f64 / both } else { 0.0 }
    }
}

impl Margins {
    fn of(score: &Counts) -> Margins {
        let mut by_class: BTreeMap<u32, Class> = BTreeMap::new();
        for (&(label, prediction), &count) in &score.confusion {
            by_class.entry(label).or_default().labelled += count;
            let class = by_class.entry(prediction).or_default();
            class.predicted += count;
            if label == prediction {
                class.hit += count;
            }
        }
        Margins { by_class }
    }

    /// Gorodkin's multi-class correlation: (c s - sum t p) / sqrt((s^2 - sum p^2) (s^2 - sum t^2)), with c hits of s
    /// samples and, by class, t labels and p predictions; 0 where all labels or all predictions are of one class.
    fn matthews(&self) -> f64 {
        let sum = |f: fn(&Class) -> f64| self.by_class.values().map(f).sum::<f64>();
        let samples = sum(|c| c.labelled as f64);
        let covariance = sum(|c| c.hit as f64) * samples - sum(|c| c.labelled as f64 * c.predicted as f64);
        let of_predictions = samples * samples - sum(|c| c.predicted as f64 * c.predicted as f64);
        let of_labels = samples * samples - sum(|c| c.labelled as f64 * c.labelled as f64);
        let norm = (of_predictions * of_labels).sqrt();
        if norm > 0.0 { covariance / norm } else { 0.0 }
    }

    /// Its square with its sign, which orders as it does.
    fn exact_matthews(&self) -> Fraction {
        let sum = |f: fn(&Class) -> BigInt| self.by_class.values().map(f).sum::<BigInt>();
        let samples = sum(|c| c.labelled.into());
        let covariance =
            sum(|c| c.hit.into()) * &samples - sum(|c| BigInt::from(c.labelled) * BigInt::from(c.predicted));
        let of = |squares: BigInt| &samples * &samples - squares;
        let norm =
            of(sum(|c| BigInt::from(c.predicted).pow(2))) * of(sum(|c| BigInt::from(c.labelled).pow(2)));
        if norm.sign() != Sign::Plus {
            return Fraction { numerator: BigInt::from(0), denominator: BigInt::from(1) };
        }
        let square = &covariance * &covariance;
        Fraction {
            numerator: if covariance.sign() == Sign::Minus { -square } else { square },
            denominator: norm,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A score from rows of a confusion matrix: one row per label, one column per prediction.
    fn score(rows: &[&[u64]]) -> Counts {
        let mut score = Counts::default();
        for (label, row) in rows.iter().enumerate() {
            for (prediction, &count) in row.iter().enumerate() {
                score.total += count;
                score.correct += if label == prediction { count } else { 0 };
                if count > 0 {
                    score.confusion.insert((label as u32, prediction as u32), count);
                }
            }
        }
        score
    }

    #[track_caller]
    fn check(metric: Metric, rows: &[&[u64]], expect: f64) {
        let value = metric.value(&score(rows), rows.len() as u32);
        assert!((value - expect).abs() <= 1e-15, "{metric:?}: {value}, expected {expect}");
    }

    // The expected values of these tables were computed from the definitions, in exact fractions (Python).
    const BALANCED: &[&[u64]] = &[&[5, 1, 0], &[2, 3, 1], &[0, 2, 6]];
    const EMPTY_CLASS: &[&[u64]] = &[&[4, 1, 0, 0], &[2, 3, 0, 0], &[0, 0, 0, 0], &[1, 0, 0, 2]];
    const BINARY: &[&[u64]] = &[&[50, 10], &[5, 35]];
    const ONE_CLASS: &[&[u64]] = &[&[7, 0], &[3, 0]];

    #[test]
    fn accuracy_is_the_share_of_hits() {
        check(Metric::Accuracy, BALANCED, 0.7);
        check(Metric::Accuracy, BINARY, 0.85);
    }

    #[test]
    fn macro_f1_counts_empty_classes_as_zero() {
        check(Metric::MacroF1, BALANCED, MACRO_BALANCED);
        check(Metric::MacroF1, EMPTY_CLASS, MACRO_EMPTY_CLASS);
        check(Metric::MacroF1, ONE_CLASS, 7.0 / 17.0);
    }

    #[test]
    fn binary_f1_is_that_of_class_one() {
        check(Metric::BinaryF1, BINARY, 70.0 / 85.0);
        check(Metric::BinaryF1, BALANCED, 0.5);
        check(Metric::BinaryF1, ONE_CLASS, 0.0);
    }

    #[test]
    fn matthews_is_gorodkins_and_zero_where_undefined() {
        check(Metric::Matthews, BALANCED, MATTHEWS_BALANCED);
        check(Metric::Matthews, EMPTY_CLASS, MATTHEWS_EMPTY_CLASS);
        check(Metric::Matthews, BINARY, 1700.0 / 5_940_000f64.sqrt());
        check(Metric::Matthews, ONE_CLASS, 0.0);
        check(Metric::Matthews, &[&[0, 3], &[4, 0]], -1.0);
    }

    #[test]
    fn loss_is_a_mean_and_lower_is_better() {
        let with = |loss_sum| Counts { total: 4, loss_sum, ..Counts::default() };
        assert_eq!(Metric::Loss.value(&with(2.0), 9), 0.5);
        assert_eq!(Metric::Loss.compare(&with(2.0), &with(3.0)), Ordering::Greater);
        assert_eq!(Metric::Loss.compare(&with(3.0), &with(3.0)), Ordering::Equal);
        assert_eq!(Metric::Loss.compare(&with(f64::INFINITY), &with(3.0)), Ordering::Less);
    }

    #[test]
    fn nan_is_worst() {
        let with = |loss_sum| Counts { total: 4, loss_sum, ..Counts::default() };
        assert_eq!(Metric::Loss.compare(&with(f64::NAN), &with(f64::INFINITY)), Ordering::Less);
        assert_eq!(Metric::Loss.compare(&with(f64::INFINITY), &with(f64::NAN)), Ordering::Greater);
        assert_eq!(Metric::Loss.compare(&with(f64::NAN), &with(f64::NAN)), Ordering::Equal);
        for metric in Metric::ALL {
            let bad = score(&[&[0, 1], &[1, 0]]);
            let nothing = Counts::default();
            assert!(metric.value(&nothing, 2).is_nan());
            assert_eq!(metric.compare(&bad, &nothing), Ordering::Greater, "{metric:?}");
            assert_eq!(metric.compare(&nothing, &bad), Ordering::Less, "{metric:?}");
            assert_eq!(metric.compare(&nothing, &nothing), Ordering::Equal, "{metric:?}");
        }
    }

    #[test]
    fn accuracies_are_compared_exactly() {
        let huge = |correct| Counts { correct, total: u64::MAX, ..Counts::default() };
        // Both are 0.5 as an f64.
        let (a, b) = (huge(u64::MAX / 2), huge(u64::MAX / 2 + 1));
        assert_eq!(Metric::Accuracy.value(&a, 2), Metric::Accuracy.value(&b, 2));
        assert_eq!(Metric::Accuracy.compare(&a, &b), Ordering::Less);
        let third = Counts { correct: 1, total: 3, ..Counts::default() };
        let ninth = Counts { correct: 3, total: 9, ..Counts::default() };
        assert_eq!(Metric::Accuracy.compare(&third, &ninth), Ordering::Equal);
    }

    #[test]
    fn equal_figures_are_a_tie_however_they_are_rounded() {
        // F1 of 2/5 and 4/5, of 3/5 and 3/5: in f64 the sums differ.
        let (a, b) = (score(&[&[1, 0], &[3, 6]]), score(&[&[3, 2], &[2, 3]]));
        assert_eq!(
            f1_sum(Margins::of(&a).by_class.values()).compare(&f1_sum(Margins::of(&b).by_class.values())),
            Ordering::Equal
        );
        assert_eq!(Metric::MacroF1.compare(&a, &b), Ordering::Equal);
        // Correlations of 1/3 and -1/3, and those of classes that change places.
        let (c, d) = (score(&[&[2, 1], &[1, 2]]), score(&[&[4, 2], &[2, 4]]));
        for (x, y) in [(&c, &d), (&score(&[&[7, 2], &[3, 11]]), &score(&[&[11, 3], &[2, 7]]))] {
            assert_eq!(Metric::Matthews.compare(x, y), Ordering::Equal);
        }
        let negative = score(&[&[1, 2], &[2, 1]]);
        assert_eq!(Metric::Matthews.compare(&c, &negative), Ordering::Greater);
        // What is nearly equal is not equal.
        let large = |hit: u64| score(&[&[1_000_000_000 - hit, hit], &[0, 1_000_000_000]]);
        for metric in [Metric::MacroF1, Metric::BinaryF1, Metric::Matthews] {
            assert_eq!(metric.compare(&large(1), &large(2)), Ordering::Greater, "{metric:?}");
            assert_eq!(metric.compare(&large(2), &large(1)), Ordering::Less, "{metric:?}");
        }
    }

    #[test]
    fn names_are_those_of_files() {
        for metric in Metric::ALL {
            assert_eq!(serde_json::to_value(metric).unwrap(), metric.name());
        }
    }

    const MACRO_BALANCED: f64 = 269.0 / 390.0;
    const MACRO_EMPTY_CLASS: f64 = 8.0 / 15.0;
    const MATTHEWS_BALANCED: f64 = 0.5509473189696003;
    const MATTHEWS_EMPTY_CLASS: f64 = 0.5339390499775317;
}
