//! Intervals of differences: the percentile bootstrap (Efron 1979; Efron and Tibshirani 1993, chapter 13) over pairs.
//!
//! A pair is what happened to one sample under both models, so that what is hard for both never looks like a difference. For each
//! resample, n pairs are drawn of n with replacement and the difference of the metric is computed anew; the interval is what
//! is left of the sorted differences when as many are cut off at both ends.
//!
//! # What is drawn
//!
//! r is the next number of SplitMix64, from the seed on; "one of n" is `(r * n) >> 64` in 128-bit arithmetic.
//!
//! - Accuracy: only discordant samples tell, d of n. How many a resample has is binomial, Bin(n, d / n), and found by one number: the
//!   first count whose cumulative probability is above `(r >> 11) / 2^53`. Each of them is a gain where one of d is below the gains. That is
//!   the same distribution as that of n draws, and takes d of them in the mean.
//! - Loss: one of n, n times; the differences of the losses are added in this order.
//! - All others: one of n, n times. Pairs with the same label and predictions are one *cell*; how often each cell was drawn gives the margins
//!   of both models, and these the metric.
//!
//! # Cost
//!
//! Numbers drawn: resamples times discordant samples for accuracy, else resamples times samples, and then resamples times (cells +
//! classes) additions. 2,000 resamples of 50,000 samples are 1e8 numbers: about half a second of one core. Memory: a few words for each
//! sample and class.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{Discordant, check_pairs};
use crate::error::{Error, Result};
use crate::metric::{ClassMetric, Margins, Metric};
use crate::random::SplitMix64;
use crate::tally::{Counts, Outcome};

/// Weights of a distribution below this share of the largest are left out: far less than a number of 53 bits can tell.
const NEGLIGIBLE: f64 = 1e-20;

/// How intervals are found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bootstrap {
    /// How many resamples.
    pub resamples: u32,
    /// The share of them that is within the interval: above 0 and below 1.
    pub confidence: f64,
    /// What the random numbers follow from.
    pub seed: u64,
}

impl Default for Bootstrap {
    fn default() -> Bootstrap {
        Bootstrap { resamples: 2000, confidence: 0.95, seed: 0 }
    }
}

/// The difference of a metric between two models: the candidate's value less the reference's, in the metric's own unit (above 0 is
/// better, except for a loss).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// On the samples as they are.
    pub difference: f64,
    /// Where the interval begins.
    pub low: f64,
    /// Where it ends.
    pub high: f64,
}

impl Bootstrap {
    /// The interval of the difference of `metric` between two models that were judged on the same samples. Where the difference is not
    /// finite (no samples, a loss that is no number), there is no interval: both ends are NaN.
    ///
    /// # Errors
    /// [`Internal`](crate::ErrorKind::Internal) where these are not the same samples, or the metric is not one of classes;
    /// [`Usage`](crate::ErrorKind::Usage) where there are too few resamples for the confidence.
    pub fn interval(
        &self,
        metric: &Metric,
        candidate: &[Outcome],
        reference: &[Outcome],
    ) -> Result<Interval> {
        check_pairs(candidate, reference)?;
        let cut = self.cut_off()?;
        let Metric::Classes { of, classes } = metric else {
            return Err(Error::internal("an interval is wanted of a metric that is not made of outcomes"));
        };
        let value = |outcomes: &[Outcome]| metric.value(&outcomes.iter().collect::<Counts>().into());
        let difference = value(candidate) - value(reference);
        if !difference.is_finite() {
            return Ok(Interval { difference, low: f64::NAN, high: f64::NAN });
        }
        let mut sorted = match of[..] {
            [ClassMetric::Accuracy] => {
                let counts = Discordant::of(candidate, reference)?;
                self.accuracies(counts, candidate.len() as u64)
            }
            [ClassMetric::Loss] => self.losses(candidate, reference),
            _ => self.figures((of, *classes), candidate, reference),
        };
        sorted.sort_by(f64::total_cmp);
        Ok(Interval { difference, low: sorted[cut - 1], high: sorted[sorted.len() - cut] })
    }

    /// The place of the interval's ends in the sorted differences, from either end, the first being 1.
    fn cut_off(&self) -> Result<usize> {
        let outside = (1.0 - self.confidence) / 2.0;
        let cut = ((f64::from(self.resamples) + 1.0) * outside) as usize;
        let may = self.confidence > 0.0 && self.confidence < 1.0;
        if may && cut > 0 {
            return Ok(cut);
        }
        let Bootstrap { resamples, confidence, .. } = self;
        Err(Error::usage(format!("{resamples} resamples have no interval of confidence {confidence}")))
    }

    fn accuracies(&self, counts: Discordant, samples: u64) -> Vec<f64> {
        let mut random = SplitMix64(self.seed);
        let drawn = Binomial::new(counts.total(), samples);
        let one = |_| {
            let discordant = drawn.invert(random.unit());
            let gains = (0..discordant).filter(|_| random.below(counts.total()) < counts.gains).count();
            (2.0 * gains as f64 - discordant as f64) / samples as f64
        };
        (0..self.resamples).map(one).collect()
    }

    fn losses(&self, candidate: &[Outcome], reference: &[Outcome]) -> Vec<f64> {
        let mut random = SplitMix64(self.seed);
        let apart: Vec<f64> = candidate.iter().zip(reference).map(|(c, r)| c.loss - r.loss).collect();
        let samples = apart.len() as u64;
        let one = |_| {
            let sum: f64 = (0..samples).map(|_| apart[random.below(samples) as usize]).sum();
            sum / samples as f64
        };
        (0..self.resamples).map(one).collect()
    }

    fn figures(
        &self,
        (of, classes): (&[ClassMetric], u32),
        candidate: &[Outcome],
        reference: &[Outcome],
    ) -> Vec<f64> {
        let mut random = SplitMix64(self.seed);
        let mut cells = Cells::new(candidate, reference);
        let one = |_| {
            cells.draw(&mut random);
            cells.candidate.mean(of, classes) - cells.reference.mean(of, classes)
        };
        (0..self.resamples).map(one).collect()
    }
}

/// How many of n draws with replacement hit one of `hits` of n: Bin(n, hits / n), cumulated.
struct Binomial {
    /// The count that the first entry is of.
    first: u64,
    cumulative: Vec<f64>,
}

impl Binomial {
    fn new(hits: u64, n: u64) -> Binomial {
        if hits == 0 || hits >= n {
            return Binomial { first: hits, cumulative: vec![1.0] };
        }
        // Multiples of the largest probability, which is that of the mean: from there down, and from there up.
        let odds = hits as f64 / (n - hits) as f64;
        let below = |k: u64, weight: f64| weight * k as f64 / (n - k + 1) as f64 / odds;
        let above = |k: u64, weight: f64| weight * (n - k) as f64 / (k + 1) as f64 * odds;
        let (mut first, mut weight) = (hits, 1.0);
        let mut weights = Vec::new();
        while weight > NEGLIGIBLE && first > 0 {
            weight = below(first, weight);
            first -= 1;
            weights.push(weight);
        }
        weights.reverse();
        weights.push(1.0);
        let mut last = hits;
        weight = 1.0;
        while weight > NEGLIGIBLE && last < n {
            weight = above(last, weight);
            last += 1;
            weights.push(weight);
        }
        let all: f64 = weights.iter().sum();
        let mut sum = 0.0;
        for weight in &mut weights {
            sum += *weight;
            *weight = sum / all;
        }
        Binomial { first, cumulative: weights }
    }

    /// The count of a number in [0, 1).
    fn invert(&self, unit: f64) -> u64 {
        let at = self.cumulative.partition_point(|c| *c <= unit);
        self.first + at.min(self.cumulative.len() - 1) as u64
    }
}

/// Samples by what happened to them under both models.
struct Cells {
    /// The cell of every sample.
    of_samples: Vec<u32>,
    /// Label and both predictions, as positions among the classes that occur.
    cells: Vec<[u32; 3]>,
    /// How often each was drawn.
    drawn: Vec<u64>,
    /// What that adds up to, of all classes that occur.
    candidate: Margins,
    reference: Margins,
}

impl Cells {
    fn new(candidate: &[Outcome], reference: &[Outcome]) -> Cells {
        let pairs = || candidate.iter().zip(reference).map(|(c, r)| [c.label, c.prediction, r.prediction]);
        let classes: BTreeSet<u32> = pairs().flatten().collect();
        let positions: BTreeMap<u32, u32> = classes.iter().copied().zip(0..).collect();
        let distinct: BTreeSet<[u32; 3]> = pairs().collect();
        let numbers: BTreeMap<[u32; 3], u32> = distinct.iter().copied().zip(0..).collect();
        let nothing = || Margins { by_class: classes.iter().map(|c| (*c, Default::default())).collect() };
        Cells {
            of_samples: pairs().map(|pair| numbers[&pair]).collect(),
            cells: distinct.iter().map(|cell| cell.map(|class| positions[&class])).collect(),
            drawn: vec![0; distinct.len()],
            candidate: nothing(),
            reference: nothing(),
        }
    }

    /// Makes the margins those of a resample.
    fn draw(&mut self, random: &mut SplitMix64) {
        self.drawn.fill(0);
        let samples = self.of_samples.len() as u64;
        for _ in 0..samples {
            self.drawn[self.of_samples[random.below(samples) as usize] as usize] += 1;
        }
        for (margins, prediction) in [(&mut self.candidate, 1), (&mut self.reference, 2)] {
            let mut rows: Vec<_> = margins.by_class.values_mut().collect();
            rows.iter_mut().for_each(|row| **row = Default::default());
            for (cell, count) in self.cells.iter().zip(&self.drawn) {
                rows[cell[0] as usize].labelled += count;
                let row = &mut rows[cell[prediction] as usize];
                row.predicted += count;
                row.hit += if cell[0] == cell[prediction] { *count } else { 0 };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Outcomes of `samples` samples of four classes that are right in `percent` of all cases.
    fn outcomes(samples: u64, percent: u64, seed: u64) -> Vec<Outcome> {
        let (mut labels, mut random) = (SplitMix64(7), SplitMix64(seed));
        let one = |_| {
            let label = labels.below(4) as u32;
            let prediction = if random.below(100) < percent { label } else { random.below(4) as u32 };
            Outcome { label, prediction, loss: random.unit() }
        };
        (0..samples).map(one).collect()
    }

    fn metric(name: &str) -> Metric {
        Metric::of_classes(&name.parse().unwrap(), 4).unwrap()
    }

    fn interval(name: &str, candidate: &[Outcome], reference: &[Outcome]) -> Interval {
        Bootstrap::default().interval(&metric(name), candidate, reference).unwrap()
    }

    const METRICS: [&str; 6] = ["accuracy", "macro-f1", "binary-f1", "matthews", "loss", "accuracy+macro-f1"];

    #[test]
    fn what_is_better_by_far_is_better_in_every_resample() {
        let (good, bad) = (outcomes(400, 90, 1), outcomes(400, 40, 2));
        for name in METRICS.into_iter().filter(|n| *n != "loss") {
            let found = interval(name, &good, &bad);
            assert!(0.0 < found.low && found.low < found.difference, "{name}: {found:?}");
            assert!(found.difference < found.high && found.high < 1.0, "{name}: {found:?}");
        }
    }

    #[test]
    fn a_model_does_not_differ_from_itself() {
        let same = outcomes(50, 60, 1);
        for name in METRICS {
            let found = interval(name, &same, &same);
            assert_eq!(found, Interval { difference: 0.0, low: 0.0, high: 0.0 }, "{name}");
        }
    }

    #[test]
    fn what_changes_places_changes_the_sign() {
        let (a, b) = (outcomes(90, 70, 1), outcomes(90, 50, 2));
        for name in METRICS.into_iter().filter(|n| *n != "accuracy") {
            let (there, back) = (interval(name, &a, &b), interval(name, &b, &a));
            assert_eq!([there.low, there.high], [-back.high, -back.low], "{name}");
        }
    }

    #[test]
    fn accuracies_are_those_of_whole_resamples() {
        // Drawn sample by sample: the mean of accuracy twice over, by way of cells, is another path to the same interval.
        let (a, b) = (outcomes(300, 70, 1), outcomes(300, 60, 2));
        let many = Bootstrap { resamples: 20_000, ..Bootstrap::default() };
        let short = many.interval(&metric("accuracy"), &a, &b).unwrap();
        let cells = many.figures((&[ClassMetric::Accuracy], 4), &a, &b);
        let mean = cells.iter().sum::<f64>() / cells.len() as f64;
        let variance = cells.iter().map(|c| (c - mean).powi(2)).sum::<f64>() / cells.len() as f64;
        for end in [mean - 1.96 * variance.sqrt() - short.low, mean + 1.96 * variance.sqrt() - short.high] {
            assert!(end.abs() < 0.005, "{short:?}, {end} off");
        }
    }

    #[test]
    fn draws_are_binomial() {
        let hits = Binomial::new(3, 4);
        let expected = [1.0 / 256.0, 13.0 / 256.0, 67.0 / 256.0, 175.0 / 256.0, 1.0];
        assert_eq!((hits.first, hits.cumulative.len()), (0, 5));
        assert!(hits.cumulative.iter().zip(expected).all(|(got, e)| (got - e).abs() < 1e-15));
        assert_eq!([0.0, 0.05, 0.2, 0.5, 0.9].map(|u| hits.invert(u)), [0, 1, 2, 3, 4]);
        assert_eq!([(0, 9), (9, 9)].map(|(h, n)| Binomial::new(h, n).invert(0.7)), [0, 9]);
        let wide = Binomial::new(25_000, 50_000);
        assert!(wide.cumulative.len() < 4000 && wide.first > 23_000);
    }

    #[test]
    fn what_is_no_number_has_no_interval() {
        let (a, mut b) = (outcomes(40, 70, 1), outcomes(40, 50, 2));
        for bad in [f64::NAN, f64::INFINITY] {
            b[3].loss = bad;
            let found = interval("loss", &a, &b);
            assert!(!found.difference.is_finite() && found.low.is_nan() && found.high.is_nan(), "{found:?}");
            assert!(interval("accuracy", &a, &b).low.is_finite());
        }
        for name in METRICS {
            assert!(interval(name, &[], &[]).low.is_nan(), "{name}");
        }
    }

    #[test]
    fn what_cannot_be_asked_is_refused() {
        let same = outcomes(5, 60, 1);
        let refused = |bootstrap: Bootstrap| bootstrap.interval(&metric("loss"), &same, &same).is_err();
        let default = Bootstrap::default();
        assert!(
            refused(Bootstrap { resamples: 38, ..default })
                && !refused(Bootstrap { resamples: 39, ..default })
        );
        assert!(
            [0.0, 1.0, f64::NAN].into_iter().all(|confidence| refused(Bootstrap { confidence, ..default }))
        );
        assert!(
            default
                .interval(&Metric::Sums { of: Vec::new(), ranges: Default::default() }, &same, &same)
                .is_err()
        );
        assert!(default.interval(&metric("loss"), &same, &same[1..]).is_err());
    }
}
