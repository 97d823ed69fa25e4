//! What a judge promises of its figures, and what a metric made of them can come to when only some samples are judged.
//!
//! A figure of every single sample lies in its [`Range`]. So a figure of all samples lies in an interval: what the judged ones add up to,
//! and for each that is left the least and the most that one can have. A figure that is *fixed* is what it is of every soup (a count of
//! tokens), and so of the one that is to be reached. Of intervals follow those of quotients, where what is divided by is positive, and
//! those of their exponentials.
//!
//! Sums are rounded at every addition, and a judge adds up within a slice in a way of its own: intervals are wider by more than that.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Formula;
use crate::tally::Sums;

/// What rounding may do to a sum of so many samples, of what they add up to at most.
const ROUNDING: f64 = 4.0 * f64::EPSILON;
/// How far the sums of a figure may be apart that is the same of all soups, relative to them.
pub(crate) const FIXED_WITHIN: f64 = 1e-9;
/// How much larger an exponential may come out than that of a larger number, relative to it.
const EXP_ROUNDING: f64 = 1e-14;

/// What a figure of one sample can be, of whatever soup. Where it is not a number it is outside of every range, and allowed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Range {
    /// Not less than this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub least: Option<f64>,
    /// Not more than this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub most: Option<f64>,
    /// Whether it is the same of all soups.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub fixed: bool,
}

/// Ranges by the names of figures.
pub type Ranges = BTreeMap<String, Range>;

impl Range {
    /// Whether there can be such a range.
    pub(crate) fn is_one(&self) -> bool {
        let (least, most) = (self.least.unwrap_or(f64::MIN), self.most.unwrap_or(f64::MAX));
        least.is_finite() && most.is_finite() && least <= most
    }

    /// What `samples` samples add up to, at least and at most, that begin with a sum `from`.
    fn sum(&self, from: f64, samples: u64) -> Interval {
        let end = |each: Option<f64>, sign: f64| {
            let (each, samples) = (each.unwrap_or(sign * f64::INFINITY), samples as f64);
            let value = match samples > 0.0 {
                true => {
                    from + samples * each + sign * ROUNDING * samples * (from.abs() + samples * each.abs())
                }
                false => from,
            };
            // Infinity less infinity: nobody knows.
            if value.is_nan() && !from.is_nan() { sign * f64::INFINITY } else { value }
        };
        Interval { least: end(self.least, -1.0), most: end(self.most, 1.0) }
    }

    /// Whether `samples` samples can add up to `sum`.
    pub(crate) fn holds(&self, sum: f64, samples: u64) -> bool {
        let Interval { least, most } = self.sum(0.0, samples);
        sum.is_nan() || (least <= sum && sum <= most)
    }
}

/// Values from one to another one; either may be infinite.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Interval {
    pub(super) least: f64,
    pub(super) most: f64,
}

impl Interval {
    /// All that the one may be by all that the other may be. `None` where that is not known to be positive.
    fn by(self, other: Interval) -> Option<Interval> {
        if other.least <= 0.0 {
            return None;
        }
        // What is infinite stays so, by however much it is divided.
        let quotient = |a: f64, b: f64| if a.is_infinite() { a } else { a / b };
        let least = quotient(self.least, if self.least < 0.0 { other.least } else { other.most });
        let most = quotient(self.most, if self.most < 0.0 { other.most } else { other.least });
        Some(Interval { least, most })
    }
}

impl Formula {
    /// What this can come to when all samples are judged of which `judged` are some, and which add up to `whole` of another soup. `None`
    /// where nobody knows. Not a number at either end: that is what it is.
    pub(super) fn interval(&self, ranges: &Ranges, judged: &Sums, whole: &Sums) -> Option<Interval> {
        let left = whole.samples.checked_sub(judged.samples)?;
        let sum = |figure: &String| {
            let from = judged.figures.get(figure).copied()?;
            let range = ranges.get(figure).copied().unwrap_or_default();
            let rest = range.sum(from, left);
            match whole.figures.get(figure).filter(|_| range.fixed && !from.is_nan()) {
                None => Some(rest),
                Some(&sum) if rest.least <= sum && sum <= rest.most => {
                    let off = FIXED_WITHIN * sum.abs();
                    Some(Interval { least: sum - off, most: sum + off })
                }
                // It is not what was promised: all samples decide.
                Some(_) => None,
            }
        };
        let samples = whole.samples as f64;
        match self {
            Formula::Mean(figure) => sum(figure)?.by(Interval { least: samples, most: samples }),
            Formula::Ratio(figure, by) => sum(figure)?.by(sum(by)?),
            Formula::ExpRatio(figure, by) => {
                let Interval { least, most } = sum(figure)?.by(sum(by)?)?;
                let (least, most) = (libm::exp(least), libm::exp(most));
                // What is infinite stays so.
                let below = if least.is_finite() { least - EXP_ROUNDING * least } else { least };
                Some(Interval { least: below, most: most + EXP_ROUNDING * most })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(least: Option<f64>, most: Option<f64>) -> Range {
        Range { least, most, fixed: false }
    }

    #[test]
    fn sums_are_in_the_range_of_as_many_samples() {
        let hits = range(Some(0.0), Some(1.0));
        for (sum, samples, holds) in
            [(0.0, 3, true), (3.0, 3, true), (3.1, 3, false), (-1e-9, 3, false), (f64::NAN, 3, true)]
        {
            assert_eq!(hits.holds(sum, samples), holds, "{sum} of {samples}");
        }
        // A tenth, ten times, is less than one, and thirty times more than three.
        let tenth = range(Some(0.1), Some(0.1));
        for samples in [10, 30, 1000] {
            assert!(tenth.holds((0..samples).map(|_| 0.1).sum(), samples), "{samples}");
        }
        // What is infinite is not known to be less than anything.
        let Interval { least, most } = tenth.sum(f64::INFINITY, 3);
        assert!(!least.is_nan() && !most.is_nan(), "{least} {most}");
        let any = Range::default();
        assert!(any.is_one() && any.holds(f64::MAX, 1) && any.holds(f64::MIN, 1));
        for (least, most) in [(Some(1.0), Some(0.0)), (Some(f64::NAN), None), (None, Some(f64::INFINITY))] {
            assert!(!range(least, most).is_one(), "{least:?} {most:?}");
        }
    }

    #[test]
    fn quotients_have_their_ends_at_ends() {
        let of = |least, most| Interval { least, most };
        let cases = [
            (of(2.0, 6.0), of(2.0, 4.0), Some(of(0.5, 3.0))),
            (of(-6.0, 6.0), of(2.0, 4.0), Some(of(-3.0, 3.0))),
            (of(-6.0, -2.0), of(2.0, 4.0), Some(of(-3.0, -0.5))),
            (of(1.0, f64::INFINITY), of(2.0, f64::INFINITY), Some(of(0.0, f64::INFINITY))),
            (of(f64::NEG_INFINITY, 1.0), of(2.0, f64::INFINITY), Some(of(f64::NEG_INFINITY, 0.5))),
            (of(1.0, 2.0), of(0.0, 4.0), None),
            (of(1.0, 2.0), of(f64::NEG_INFINITY, 4.0), None),
        ];
        for (a, b, expected) in cases {
            assert_eq!(a.by(b), expected, "{a:?} by {b:?}");
        }
    }
}
