//! Figures of predicted numbers.

use crate::tally::Values;

/// A figure of predicted numbers beside the true ones ([`Agreement`](crate::tally::agreement::Agreement)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ValueMetric {
    /// Pearson's correlation; 0 where something does not vary.
    Pearson,
    /// Spearman's correlation of ranks, equal numbers having the mean of theirs; 0 where something does not vary.
    Spearman,
    /// Mean squared error; lower is better.
    Mse,
}

impl ValueMetric {
    /// All of them, for tables and tests.
    pub const ALL: [ValueMetric; 3] = [ValueMetric::Pearson, ValueMetric::Spearman, ValueMetric::Mse];

    /// The name, as flags and files spell it.
    pub fn name(self) -> &'static str {
        match self {
            ValueMetric::Pearson => "pearson",
            ValueMetric::Spearman => "spearman",
            ValueMetric::Mse => "mse",
        }
    }

    /// Whether a lower value is the better one.
    pub fn lower_is_better(self) -> bool {
        self == ValueMetric::Mse
    }

    /// The value: a correlation in -1 to 1, or an error. NaN where there are no samples, and where a prediction is not a number.
    pub fn value(self, values: &Values) -> f64 {
        let agreement = values.agreement();
        match self {
            ValueMetric::Pearson => agreement.pearson,
            ValueMetric::Spearman => agreement.spearman,
            ValueMetric::Mse => agreement.mse,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cmp::Ordering;

    use super::super::Metric;
    use super::*;
    use crate::tally::{Counts, Tally, Value};

    fn tally(of: &[(f64, f64)]) -> Tally {
        let values: Values = of.iter().map(|&(truth, prediction)| Value { truth, prediction }).collect();
        values.into()
    }

    fn metric(name: &str) -> Metric {
        Metric::of_values(&name.parse().unwrap()).unwrap()
    }

    #[test]
    fn soups_are_compared_by_how_predictions_agree_with_the_truth() {
        let (good, bad) =
            (tally(&[(1.0, 1.5), (2.0, 2.0), (3.0, 4.0)]), tally(&[(1.0, 2.0), (2.0, 1.0), (3.0, 4.0)]));
        for name in ["pearson", "spearman", "mse", "glue/stsb"] {
            assert_eq!(metric(name).compare(&good, &bad), Ordering::Greater, "{name}");
            assert_eq!(metric(name).compare(&good, &good.clone()), Ordering::Equal, "{name}");
            let nan = tally(&[(1.0, f64::NAN), (2.0, 2.0), (3.0, 3.0)]);
            assert_eq!(metric(name).compare(&bad, &nan), Ordering::Greater, "{name}: NaN is worst");
            assert!(metric(name).value(&Counts::default().into()).is_nan());
        }
        let both = (metric("pearson").value(&bad) + metric("spearman").value(&bad)) / 2.0;
        assert_eq!(metric("glue/stsb").value(&bad), both);
        assert_eq!((metric("mse").value(&bad), metric("mse").lower_is_better()), (1.0, true));
    }

    #[test]
    fn names_are_of_classes_or_of_predicted_numbers() {
        let check = |name: &str| Metric::check_native(&name.parse().unwrap()).map_err(|e| e.chain());
        for good in ["accuracy", "glue/mrpc", "glue/stsb", "mse"] {
            assert_eq!(check(good), Ok(()));
        }
        let refused =
            |name: &str, part: &str| assert!(check(name).unwrap_err().contains(part), "{:?}", check(name));
        refused(
            "perplexity",
            "there are accuracy, macro-f1, binary-f1, matthews, loss, pearson, spearman, mse",
        );
        refused("pearson+mse", "better when it is low");
        refused("accuracy+pearson", "no metric \"pearson\", there are accuracy");
        let of_values = Metric::of_values(&"accuracy".parse().unwrap()).unwrap_err().chain();
        assert!(of_values.contains("there are pearson, spearman, mse"), "{of_values}");
    }
}
