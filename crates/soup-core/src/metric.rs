//! The figures by which soups are compared: the value of a [`Metric`] for a [`Tally`], and which of two tallies is better.
//!
//! A metric is asked for by its [name](MetricName), and becomes one when the survey has told what there is. Of
//! classes there are those that everybody knows ([`ClassMetric`]), and so there are of predicted numbers ([`ValueMetric`]); a judge that
//! tells of other figures says itself what is made of them ([`SumMetric`]). A name may be the mean of several: `accuracy+binary-f1`.
//!
//! Comparing is deterministic everywhere, and figures of counts are compared as what they are: two that are equal are a tie, however
//! `f64` rounds the ways to them. They are computed in `f64` from integers in a fixed order of additions, and where that leaves
//! them within [`NEAR`] of each other, the integers decide ([`exact`]). A tally without samples has no value (NaN), and NaN is worse
//! than any number.

mod bound;
mod exact;
mod margins;
mod name;
mod range;
mod values;

use std::cmp::Ordering;
use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::tally::{Counts, Sums, Tally};

use exact::Exact;
pub(crate) use margins::Margins;
pub(crate) use name::is_in_words;
pub use name::{MetricName, check_word};
pub(crate) use range::FIXED_WITHIN;
pub use range::{Range, Ranges};
pub use values::ValueMetric;

/// Values that lie no further apart in `f64` may be equal; rounding is off by less than a thousandth of it.
const NEAR: f64 = 1e-9;

/// A figure of classes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClassMetric {
    /// Share of samples whose prediction is their label.
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

impl ClassMetric {
    /// All of them, for tables and tests.
    pub const ALL: [ClassMetric; 5] = [
        ClassMetric::Accuracy,
        ClassMetric::MacroF1,
        ClassMetric::BinaryF1,
        ClassMetric::Matthews,
        ClassMetric::Loss,
    ];

    /// The name, as flags and files spell it.
    pub fn name(self) -> &'static str {
        match self {
            ClassMetric::Accuracy => "accuracy",
            ClassMetric::MacroF1 => "macro-f1",
            ClassMetric::BinaryF1 => "binary-f1",
            ClassMetric::Matthews => "matthews",
            ClassMetric::Loss => "loss",
        }
    }

    /// Whether a lower value is the better one.
    pub fn lower_is_better(self) -> bool {
        self == ClassMetric::Loss
    }

    /// The value for a model with `classes` classes: a share in 0 to 1, a correlation in -1 to 1, or a mean
    /// cross-entropy in nats. NaN where there are no samples.
    pub fn value(self, counts: &Counts, classes: u32) -> f64 {
        match self {
            ClassMetric::Accuracy => counts.correct as f64 / counts.total as f64,
            ClassMetric::Loss => counts.loss_sum / counts.total as f64,
            _ if counts.confusion.is_empty() => f64::NAN,
            _ => Margins::of(counts).value(self, classes),
        }
    }
}

/// What a judge makes of its figures.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SumMetric {
    /// Its name.
    pub name: String,
    /// What it is.
    pub formula: Formula,
    /// Whether a lower value is the better one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub lower_is_better: bool,
}

/// How figures become a metric.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Formula {
    /// The figure by the number of samples.
    Mean(String),
    /// The first figure by the second.
    Ratio(String, String),
    /// The exponential of that: perplexity, of the loss and the tokens.
    ExpRatio(String, String),
}

impl Formula {
    /// The figures that it is made of.
    pub fn figures(&self) -> impl Iterator<Item = &str> {
        let (first, second) = match self {
            Formula::Mean(figure) => (figure, None),
            Formula::Ratio(figure, by) | Formula::ExpRatio(figure, by) => (figure, Some(by)),
        };
        std::iter::once(first).chain(second).map(String::as_str)
    }

    /// NaN where there are no samples, or a figure is missing.
    fn value(&self, sums: &Sums) -> f64 {
        let sum = |figure: &String| sums.figures.get(figure).copied().unwrap_or(f64::NAN);
        match self {
            Formula::Mean(figure) => sum(figure) / sums.samples as f64,
            Formula::Ratio(figure, by) => sum(figure) / sum(by),
            Formula::ExpRatio(figure, by) => libm::exp(sum(figure) / sum(by)),
        }
    }
}

/// The figure by which soups are compared: one, or the mean of several that have one direction.
#[derive(Clone, Debug, PartialEq)]
pub enum Metric {
    /// Of a model with so many classes.
    Classes {
        /// At least one.
        of: Vec<ClassMetric>,
        /// Classes of the model.
        classes: u32,
    },
    /// Of a model that predicts a number; at least one.
    Values(Vec<ValueMetric>),
    /// Of figures.
    Sums {
        /// At least one.
        of: Vec<SumMetric>,
        /// What the judge promises of its figures.
        ranges: Ranges,
    },
}

impl Metric {
    /// The metric of this name over classes.
    ///
    /// # Errors
    /// [`Usage`](crate::ErrorKind::Usage), naming what there is, for one that is not known, and for a mean of figures of
    /// which some are better high and some low.
    pub fn of_classes(name: &MetricName, classes: u32) -> Result<Metric> {
        let named = |part: &str| ClassMetric::ALL.into_iter().find(|m| m.name() == part);
        let of = name.resolve(named, ClassMetric::ALL.map(ClassMetric::name), |m| m.lower_is_better())?;
        Ok(Metric::Classes { of, classes })
    }

    /// The metric of this name over predicted numbers.
    ///
    /// # Errors
    /// As [`of_classes`](Metric::of_classes).
    pub fn of_values(name: &MetricName) -> Result<Metric> {
        let named = |part: &str| ValueMetric::ALL.into_iter().find(|m| m.name() == part);
        let of = name.resolve(named, ValueMetric::ALL.map(ValueMetric::name), |m| m.lower_is_better())?;
        Ok(Metric::Values(of))
    }

    /// Whether there is a metric of this name over classes, or over predicted numbers: before it is known which of them a model tells of.
    ///
    /// # Errors
    /// As [`of_classes`](Metric::of_classes).
    pub fn check_native(name: &MetricName) -> Result<()> {
        let (classes, values) =
            (ClassMetric::ALL.map(ClassMetric::name), ValueMetric::ALL.map(ValueMetric::name));
        let known = classes.into_iter().chain(values);
        name.resolve(|part| known.clone().find(|known| *known == part), known.clone(), |_| false)?;
        match name.parts().all(|part| values.contains(&part)) {
            true => Metric::of_values(name).map(drop),
            false => Metric::of_classes(name, 1).map(drop),
        }
    }

    /// The metric of this name among those of a judge that promises so much of its figures.
    ///
    /// # Errors
    /// As [`of_classes`](Metric::of_classes).
    pub fn of_sums(name: &MetricName, known: &[SumMetric], ranges: &Ranges) -> Result<Metric> {
        let named = |part: &str| known.iter().find(|m| m.name == part).cloned();
        let names = known.iter().map(|m| m.name.as_str());
        let of = name.resolve(named, names, |m| m.lower_is_better)?;
        Ok(Metric::Sums { of, ranges: ranges.clone() })
    }

    /// Whether a lower value is the better one.
    pub fn lower_is_better(&self) -> bool {
        match self {
            Metric::Classes { of, .. } => of.iter().any(|m| m.lower_is_better()),
            Metric::Values(of) => of.iter().any(|m| m.lower_is_better()),
            Metric::Sums { of, .. } => of.iter().any(|m| m.lower_is_better),
        }
    }

    /// The value for `tally`. NaN where there are no samples, and for a tally of another kind.
    pub fn value(&self, tally: &Tally) -> f64 {
        match (self, tally) {
            (Metric::Classes { of, classes }, Tally::Classes(counts)) => {
                mean(of.iter().map(|m| m.value(counts, *classes)))
            }
            (Metric::Values(of), Tally::Values(values)) => mean(of.iter().map(|m| m.value(values))),
            (Metric::Sums { of, .. }, Tally::Sums(sums)) => mean(of.iter().map(|m| m.formula.value(sums))),
            _ => f64::NAN,
        }
    }

    /// How many of the model's classes have no sample in `tally` and yet count, with 0, and how many it has; `None` where all have some, and
    /// where that is nothing to the metric. `answers`: the last class is that of answers that are no label.
    pub fn without_samples(&self, tally: &Tally, answers: bool) -> Option<(u32, u32)> {
        let (Metric::Classes { of, classes }, Tally::Classes(counts)) = (self, tally) else { return None };
        let own = classes.saturating_sub(u32::from(answers));
        if !of.contains(&ClassMetric::MacroF1) || counts.confusion.is_empty() {
            return None;
        }
        let labels: BTreeSet<u32> = counts.confusion.keys().map(|(label, _)| *label).collect();
        let absent = own.saturating_sub(labels.len() as u32);
        (absent > 0).then_some((absent, own))
    }

    /// Which tally is better: `Greater` where `a` is. Both must be of the same dataset and judge.
    pub fn compare(&self, a: &Tally, b: &Tally) -> Ordering {
        if let (Metric::Classes { of, classes }, Tally::Classes(a), Tally::Classes(b)) = (self, a, b)
            && let Some(order) = compare_counts(of, *classes, a, b)
        {
            return order;
        }
        self.compare_values(self.value(a), self.value(b))
    }

    /// Which value is better, as [`compare`](Metric::compare).
    fn compare_values(&self, x: f64, y: f64) -> Ordering {
        let order = x.partial_cmp(&y).unwrap_or_else(|| y.is_nan().cmp(&x.is_nan()));
        // Of two numbers the lower may be better; NaN is worse either way.
        if self.lower_is_better() && !x.is_nan() && !y.is_nan() { order.reverse() } else { order }
    }
}

/// Which counts are better by the integers, where those are all that there is to it and the values are near each other.
fn compare_counts(of: &[ClassMetric], classes: u32, a: &Counts, b: &Counts) -> Option<Ordering> {
    if of.contains(&ClassMetric::Loss) || a.total == 0 || b.total == 0 {
        return None;
    }
    // As duplicates of an ingredient give.
    if (a.total, a.correct, &a.confusion) == (b.total, b.correct, &b.confusion) {
        return Some(Ordering::Equal);
    }
    if *of == [ClassMetric::Accuracy] {
        let cross = |x: &Counts, y: &Counts| u128::from(x.correct) * u128::from(y.total);
        return Some(cross(a, b).cmp(&cross(b, a)));
    }
    if a.confusion.is_empty() || b.confusion.is_empty() {
        return None;
    }
    Some(compare_margins(of, classes, &Margins::of(a), &Margins::of(b)))
}

/// Which margins are better by figures that are all made of them; neither is without samples.
pub(crate) fn compare_margins(of: &[ClassMetric], classes: u32, a: &Margins, b: &Margins) -> Ordering {
    let apart = a.mean(of, classes) - b.mean(of, classes);
    if apart.abs() > NEAR {
        return apart.total_cmp(&0.0);
    }
    Exact::of(of, classes, a).compare(&Exact::of(of, classes, b))
}

/// The mean of at least one number: the number itself where it is one.
fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = values.len();
    let sum: f64 = values.sum();
    if count == 1 { sum } else { sum / count as f64 }
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

    fn metric(name: &str, classes: usize) -> Metric {
        Metric::of_classes(&name.parse().unwrap(), classes as u32).unwrap()
    }

    /// How `a` compares to `b`, of a model with nine classes.
    fn compare(name: &str, a: &Counts, b: &Counts) -> Ordering {
        metric(name, 9).compare(&a.clone().into(), &b.clone().into())
    }

    #[track_caller]
    fn check(of: ClassMetric, rows: &[&[u64]], expect: f64) {
        let value = metric(of.name(), rows.len()).value(&score(rows).into());
        assert!((value - expect).abs() <= 1e-15, "{of:?}: {value}, expected {expect}");
    }

    // The expected values of these tables were computed from the definitions, in exact fractions (Python).
    const BALANCED: &[&[u64]] = &[&[5, 1, 0], &[2, 3, 1], &[0, 2, 6]];
    const EMPTY_CLASS: &[&[u64]] = &[&[4, 1, 0, 0], &[2, 3, 0, 0], &[0, 0, 0, 0], &[1, 0, 0, 2]];
    const BINARY: &[&[u64]] = &[&[50, 10], &[5, 35]];
    const ONE_CLASS: &[&[u64]] = &[&[7, 0], &[3, 0]];

    #[test]
    fn accuracy_is_the_share_of_hits() {
        check(ClassMetric::Accuracy, BALANCED, 0.7);
        check(ClassMetric::Accuracy, BINARY, 0.85);
    }

    #[test]
    fn macro_f1_counts_empty_classes_as_zero() {
        check(ClassMetric::MacroF1, BALANCED, MACRO_BALANCED);
        check(ClassMetric::MacroF1, EMPTY_CLASS, MACRO_EMPTY_CLASS);
        check(ClassMetric::MacroF1, ONE_CLASS, 7.0 / 17.0);
    }

    #[test]
    fn classes_without_a_sample_are_counted_where_they_count() {
        let absent = |name: &str, rows: &[&[u64]], classes, answers| {
            metric(name, classes).without_samples(&score(rows).into(), answers)
        };
        assert_eq!(absent("macro-f1", BALANCED, 12, false), Some((9, 12)));
        // Class 2 is predicted nowhere and has no sample; a class that is only predicted has none either.
        assert_eq!(absent("accuracy+macro-f1", EMPTY_CLASS, 4, false), Some((1, 4)));
        assert_eq!(absent("macro-f1", &[&[3, 1]], 2, false), Some((1, 2)));
        assert_eq!(absent("macro-f1", BALANCED, 3, false), None);
        assert_eq!(absent("macro-f1", BALANCED, 4, true), None);
        assert_eq!(absent("matthews", BALANCED, 12, false), None);
    }

    #[test]
    fn binary_f1_is_that_of_class_one() {
        check(ClassMetric::BinaryF1, BINARY, 70.0 / 85.0);
        check(ClassMetric::BinaryF1, BALANCED, 0.5);
        check(ClassMetric::BinaryF1, ONE_CLASS, 0.0);
    }

    #[test]
    fn matthews_is_gorodkins_and_zero_where_undefined() {
        check(ClassMetric::Matthews, BALANCED, MATTHEWS_BALANCED);
        check(ClassMetric::Matthews, EMPTY_CLASS, MATTHEWS_EMPTY_CLASS);
        check(ClassMetric::Matthews, BINARY, 1700.0 / 5_940_000f64.sqrt());
        check(ClassMetric::Matthews, ONE_CLASS, 0.0);
        check(ClassMetric::Matthews, &[&[0, 3], &[4, 0]], -1.0);
    }

    #[test]
    fn loss_is_a_mean_and_lower_is_better() {
        let with = |loss_sum| Counts { total: 4, loss_sum, ..Counts::default() };
        assert_eq!(ClassMetric::Loss.value(&with(2.0), 9), 0.5);
        assert_eq!(compare("loss", &with(2.0), &with(3.0)), Ordering::Greater);
        assert_eq!(compare("loss", &with(3.0), &with(3.0)), Ordering::Equal);
        assert_eq!(compare("loss", &with(f64::INFINITY), &with(3.0)), Ordering::Less);
    }

    #[test]
    fn nan_is_worst() {
        let with = |loss_sum| Counts { total: 4, loss_sum, ..Counts::default() };
        assert_eq!(compare("loss", &with(f64::NAN), &with(f64::INFINITY)), Ordering::Less);
        assert_eq!(compare("loss", &with(f64::INFINITY), &with(f64::NAN)), Ordering::Greater);
        assert_eq!(compare("loss", &with(f64::NAN), &with(f64::NAN)), Ordering::Equal);
        for name in ClassMetric::ALL.map(ClassMetric::name) {
            let bad = score(&[&[0, 1], &[1, 0]]);
            let nothing = Counts::default();
            assert!(metric(name, 2).value(&nothing.clone().into()).is_nan());
            assert_eq!(compare(name, &bad, &nothing), Ordering::Greater, "{name}");
            assert_eq!(compare(name, &nothing, &bad), Ordering::Less, "{name}");
            assert_eq!(compare(name, &nothing, &nothing), Ordering::Equal, "{name}");
        }
    }

    #[test]
    fn accuracies_are_compared_exactly() {
        let huge = |correct| Counts { correct, total: u64::MAX, ..Counts::default() };
        // Both are 0.5 as an f64.
        let (a, b) = (huge(u64::MAX / 2), huge(u64::MAX / 2 + 1));
        assert_eq!(ClassMetric::Accuracy.value(&a, 2), ClassMetric::Accuracy.value(&b, 2));
        assert_eq!(compare("accuracy", &a, &b), Ordering::Less);
        let third = Counts { correct: 1, total: 3, ..Counts::default() };
        let ninth = Counts { correct: 3, total: 9, ..Counts::default() };
        assert_eq!(compare("accuracy", &third, &ninth), Ordering::Equal);
    }

    #[test]
    fn equal_figures_are_a_tie_however_they_are_rounded() {
        // F1 of 2/5 and 4/5, of 3/5 and 3/5: in f64 the sums differ.
        let (a, b) = (score(&[&[1, 0], &[3, 6]]), score(&[&[3, 2], &[2, 3]]));
        assert_eq!(compare("macro-f1", &a, &b), Ordering::Equal);
        // Correlations of 1/3 and -1/3, and those of classes that change places.
        let (c, d) = (score(&[&[2, 1], &[1, 2]]), score(&[&[4, 2], &[2, 4]]));
        for (x, y) in [(&c, &d), (&score(&[&[7, 2], &[3, 11]]), &score(&[&[11, 3], &[2, 7]]))] {
            assert_eq!(compare("matthews", x, y), Ordering::Equal);
        }
        let negative = score(&[&[1, 2], &[2, 1]]);
        assert_eq!(compare("matthews", &c, &negative), Ordering::Greater);
        // What is nearly equal is not equal.
        let large = |hit: u64| score(&[&[1_000_000_000 - hit, hit], &[0, 1_000_000_000]]);
        for name in ["macro-f1", "binary-f1", "matthews", "macro-f1+matthews"] {
            assert_eq!(compare(name, &large(1), &large(2)), Ordering::Greater, "{name}");
            assert_eq!(compare(name, &large(2), &large(1)), Ordering::Less, "{name}");
        }
    }

    #[test]
    fn a_mean_is_that_of_its_parts() {
        let binary = score(BINARY).into();
        let value = |name| metric(name, 2).value(&binary);
        assert_eq!(value("accuracy+binary-f1"), (0.85 + 70.0 / 85.0) / 2.0);
        assert_eq!(value("binary-f1+accuracy"), value("accuracy+binary-f1"));
        // Accuracy 6/10 with F1 of class one 1/2, and the other way round: a tie of means, of nothing else.
        let (a, b) = (score(&[&[4, 2], &[2, 2]]), score(&[&[2, 2], &[3, 3]]));
        assert_eq!(compare("accuracy", &a, &b), Ordering::Greater);
        assert_eq!(compare("binary-f1", &a, &b), Ordering::Less);
        let (x, y) = (
            metric("accuracy+binary-f1", 2).value(&a.into()),
            metric("accuracy+binary-f1", 2).value(&b.into()),
        );
        assert!((x - 0.55).abs() < 1e-15 && (y - (0.5 + 6.0 / 11.0) / 2.0).abs() < 1e-15);
    }

    #[test]
    fn means_that_are_equal_are_a_tie() {
        // (1/3 + 2/3) / 2 and (1/2 + 1/2) / 2, in accuracy and F1 of class one; and what changes places.
        let mean = "accuracy+binary-f1+matthews";
        let transposed = |rows: &[&[u64]]| {
            let confusion = score(rows).confusion.iter().map(|(&(l, p), &n)| ((p, l), n)).collect();
            Counts { confusion, ..score(rows) }
        };
        for rows in [BALANCED, EMPTY_CLASS, BINARY, &[&[7, 2], &[3, 11]]] {
            assert_eq!(compare(mean, &score(rows), &transposed(rows)), Ordering::Equal);
            let doubled: Vec<Vec<u64>> = rows.iter().map(|r| r.iter().map(|n| n * 3).collect()).collect();
            let doubled: Vec<&[u64]> = doubled.iter().map(Vec::as_slice).collect();
            assert_eq!(compare(mean, &score(rows), &score(&doubled)), Ordering::Equal);
        }
    }

    #[test]
    fn figures_become_metrics_by_their_formula() {
        let sums = |nll: f64, tokens: f64| {
            let figures = [("nll".to_owned(), nll), ("tokens".to_owned(), tokens)].into();
            Tally::Sums(Sums { samples: 4, figures })
        };
        let (nll, tokens) = ("nll".to_owned(), "tokens".to_owned());
        let known = [
            ("nll", Formula::Mean(nll.clone())),
            ("token-nll", Formula::Ratio(nll.clone(), tokens.clone())),
            ("perplexity", Formula::ExpRatio(nll, tokens)),
        ]
        .map(|(name, formula)| SumMetric { name: name.to_owned(), formula, lower_is_better: true });
        let metric = |name: &str| Metric::of_sums(&name.parse().unwrap(), &known, &Ranges::new()).unwrap();
        assert_eq!(metric("nll").value(&sums(6.0, 12.0)), 1.5);
        assert_eq!(metric("token-nll").value(&sums(6.0, 12.0)), 0.5);
        assert_eq!(metric("perplexity").value(&sums(6.0, 12.0)), libm::exp(0.5));
        assert_eq!(metric("nll+token-nll").value(&sums(6.0, 12.0)), 1.0);
        let compare = |a, b| metric("perplexity").compare(&a, &b);
        assert_eq!(compare(sums(6.0, 12.0), sums(7.0, 12.0)), Ordering::Greater, "lower is better");
        assert_eq!(compare(sums(7.0, 14.0), sums(6.0, 12.0)), Ordering::Equal);
        assert_eq!(compare(sums(f64::NAN, 12.0), sums(f64::INFINITY, 12.0)), Ordering::Less, "NaN is worst");
        assert!(metric("nll").value(&Counts::default().into()).is_nan());
    }

    #[test]
    fn names_are_checked() {
        assert_eq!(MetricName::default().as_str(), ClassMetric::Accuracy.name());
        let refused = |name: &str| name.parse::<MetricName>().unwrap_err().chain();
        assert!(refused("").contains("empty"));
        assert!(refused("accuracy+").contains("empty"));
        assert!(refused("accuracy+loss+accuracy").contains("\"accuracy\" twice"));
        assert!(refused("Accuracy").contains("other characters"));
        assert!(refused("a+b+c+d+e+f+g+h+i").contains("at most 8"));
        assert!(refused(&"a".repeat(65)).contains("more than 64"));
        assert_eq!(serde_json::to_value(MetricName::default()).unwrap(), "accuracy");
        assert!(serde_json::from_value::<MetricName>("a b".into()).is_err());
    }

    const MACRO_BALANCED: f64 = 269.0 / 390.0;
    const MACRO_EMPTY_CLASS: f64 = 8.0 / 15.0;
    const MATTHEWS_BALANCED: f64 = 0.5509473189696003;
    const MATTHEWS_EMPTY_CLASS: f64 = 0.5339390499775317;
}
