//! Whether one model is better than another, or only luckier: what both did on the same samples.
//!
//! # Words
//!
//! - A *candidate* is compared with a *reference*: both were judged on the same samples, in the same order.
//! - A sample is *discordant* where one of them is right and the other wrong: a *gain* where that is the candidate, else a *loss*
//!   (of a sample; nothing to do with cross-entropy). Where both are right, or both wrong, it tells nothing of which is better.
//! - A *resample* is as many samples drawn from them with replacement.
//! - A verdict is *fragile* where two samples would have turned it.
//!
//! # Flow
//!
//! [`Discordant`] counts gains and losses, and [`McNemar`] says how often a fair coin does that: a test of accuracies alone.
//! [`Bootstrap`] says in which interval the difference of any metric of classes lies. Both need what happened to every sample;
//! [`is_fragile`] makes do with what samples add up to.
//!
//! None of it decides anything. Everything is the same to the last bit everywhere: additions, products and quotients of `f64` in a
//! fixed order, and random numbers that follow from a seed.

mod bootstrap;
mod fragile;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::tally::{Outcome, Tally};

pub use bootstrap::{Bootstrap, Interval};
pub use fragile::{FRAGILE_CLASSES_MAX, FRAGILE_SAMPLES, is_fragile, is_fragile_at};

/// How many samples only one of two models got right.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Discordant {
    /// Samples that the candidate got right and the reference wrong.
    pub gains: u64,
    /// Samples that the candidate got wrong and the reference right.
    pub losses: u64,
}

impl Discordant {
    /// Of what happened to the same samples, in the same order.
    ///
    /// # Errors
    /// [`Internal`](crate::ErrorKind::Internal) where these are not the same samples: as many, with equal labels.
    pub fn of(candidate: &[Outcome], reference: &[Outcome]) -> Result<Discordant> {
        check_pairs(candidate, reference)?;
        let right = |outcome: &Outcome| outcome.label == outcome.prediction;
        let mut found = Discordant::default();
        for (candidate, reference) in candidate.iter().zip(reference) {
            match (right(candidate), right(reference)) {
                (true, false) => found.gains += 1,
                (false, true) => found.losses += 1,
                _ => (),
            }
        }
        Ok(found)
    }

    /// Whether this can be how two soups with these scores differ: as many samples more are right, of so many.
    pub fn is_between(self, candidate: &Tally, reference: &Tally) -> bool {
        let (Tally::Classes(candidate), Tally::Classes(reference)) = (candidate, reference) else {
            return false;
        };
        let right = (candidate.correct.checked_sub(self.gains), reference.correct.checked_sub(self.losses));
        let wrong = candidate.total.saturating_sub(candidate.correct);
        candidate.total == reference.total && right.0.is_some() && right.0 == right.1 && self.losses <= wrong
    }

    /// Both.
    pub fn total(self) -> u64 {
        self.gains + self.losses
    }
}

/// # Errors
/// Where the two are not of the same samples.
fn check_pairs(candidate: &[Outcome], reference: &[Outcome]) -> Result<()> {
    if candidate.len() != reference.len() {
        let (candidate, reference) = (candidate.len(), reference.len());
        return Err(Error::internal(format!("outcomes of {candidate} and {reference} samples are no pairs")));
    }
    match candidate.iter().zip(reference).position(|(c, r)| c.label != r.label) {
        Some(sample) => Err(Error::internal(format!("outcomes differ in the label of sample {sample}"))),
        None => Ok(()),
    }
}

/// McNemar's exact test (McNemar 1947): of n = gains + losses discordant samples, each is a gain as likely as not if the two models
/// are equally good, so that the number of gains is binomial, X ~ Bin(n, 1/2). Both values are 1 where no sample is discordant.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct McNemar {
    /// How often equally good models differ at least as much, in either direction: min(1, 2 P(X <= min(gains, losses))).
    pub two_sided: f64,
    /// How often a candidate that is no better gains at least as much: P(X >= gains).
    pub better: f64,
}

impl McNemar {
    /// The test of these counts. Right to about 12 digits for millions of samples; takes as many steps as 20 roots of n at most. What is
    /// below the smallest `f64` is 0.
    pub fn of(counts: Discordant) -> McNemar {
        let (n, fewer) = (counts.total(), counts.gains.min(counts.losses));
        McNemar {
            two_sided: (2.0 * at_most(fewer, n)).min(1.0),
            // Gains and losses are distributed alike.
            better: at_most(counts.losses, n),
        }
    }
}

/// Up to this many discordant samples are counted in whole numbers, which 128 bits hold.
const WHOLE_MAX: u64 = 120;

/// P(X <= k) for X ~ Bin(n, 1/2).
fn at_most(k: u64, n: u64) -> f64 {
    if k >= n {
        1.0
    } else if n <= WHOLE_MAX {
        // Rounded once: 6 gains of 6 are 1/64 and not more, which is what an alpha of 0.015625 is.
        ways(k, n) as f64 / (1u128 << n) as f64
    } else if k < n - k {
        lower_tail(k, n)
    } else {
        1.0 - lower_tail(n - k - 1, n)
    }
}

/// In how many ways k at most of n samples are gains: a sum of binomial coefficients.
fn ways(k: u64, n: u64) -> u128 {
    let mut coefficient = 1u128;
    let mut sum = 1;
    for at in 0..k {
        coefficient = coefficient * u128::from(n - at) / u128::from(at + 1);
        sum += coefficient;
    }
    sum
}

/// P(X <= k) for k below the middle. Binomial coefficients are taken as multiples of the largest one, which is in the middle: no
/// logarithm is needed, and nothing overflows.
fn lower_tail(k: u64, n: u64) -> f64 {
    let (mut half, mut tail) = (0.0, 0.0);
    let mut weight = 1.0;
    let mut at = n / 2;
    loop {
        half += weight;
        if at <= k {
            tail += weight;
        }
        if at == 0 {
            break;
        }
        weight *= at as f64 / (n - at + 1) as f64;
        at -= 1;
        // Weights shrink: where one does not count any more, none that follows does.
        if weight == 0.0 || (at <= k && tail + weight == tail) {
            break;
        }
    }
    // The other half is the same; an even n has its middle once.
    let all = if n.is_multiple_of(2) { 2.0 * half - 1.0 } else { 2.0 * half };
    tail / all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn test(gains: u64, losses: u64) -> McNemar {
        McNemar::of(Discordant { gains, losses })
    }

    /// Sums of Pascal's triangle: the number of ways to at most k hits of n, exactly.
    fn pascal(n: u64, k: u64) -> u128 {
        let mut row = vec![1u128];
        for _ in 0..n {
            let inner = row.windows(2).map(|w| w[0] + w[1]);
            row = std::iter::once(1).chain(inner).chain([1]).collect();
        }
        row[..=k as usize].iter().sum()
    }

    #[test]
    fn the_test_is_that_of_pascals_triangle() {
        for n in (1..=100).chain([WHOLE_MAX - 1, WHOLE_MAX]) {
            for losses in 0..=n {
                let all = 2f64.powi(n as i32);
                let expected = pascal(n, losses) as f64 / all;
                let got = test(n - losses, losses);
                assert_eq!(got.better, expected, "{n} {losses}");
                let both = (2.0 * pascal(n, losses.min(n - losses)) as f64 / all).min(1.0);
                assert_eq!(got.two_sided, both, "{n} {losses}");
                if losses < n - losses {
                    let tail = lower_tail(losses, n);
                    assert!((tail - expected).abs() <= 1e-14 * expected, "{n} {losses}: {tail}");
                }
            }
        }
    }

    #[test]
    fn what_is_exactly_as_probable_as_alpha_is_not_above_it() {
        // By shares of the largest coefficient these come out a little larger.
        for (gains, losses, alpha) in [(6, 0, 0.015_625), (5, 1, 0.109_375), (12, 3, 0.017_578_125)] {
            assert_eq!(test(gains, losses).better, alpha, "{gains} {losses}");
        }
    }

    #[test]
    fn without_discordant_samples_nothing_is_told() {
        assert_eq!(test(0, 0), McNemar { two_sided: 1.0, better: 1.0 });
    }

    #[test]
    fn the_test_is_symmetric_and_monotonic() {
        for n in [1, 2, 9, 10, 1001, 1_000_000] {
            let middle: u64 = n / 2;
            let from = middle.saturating_sub(2000);
            let mut last = McNemar { two_sided: 0.0, better: 0.0 };
            for losses in from..=middle {
                let got = test(n - losses, losses);
                assert_eq!(got.two_sided, test(losses, n - losses).two_sided);
                assert!(got.two_sided >= last.two_sided && got.better >= last.better, "{n} {losses}");
                // P(X >= g) + P(X >= l) counts what is exactly so twice.
                let sum = got.better + test(losses, n - losses).better;
                assert!((1.0 - 1e-12..=2.0).contains(&sum), "{n} {losses}: {sum}");
                last = got;
            }
        }
    }

    #[test]
    fn counts_are_between_two_scores_where_as_many_samples_are_right() {
        let score = |correct, total| crate::tally::Counts { correct, total, ..Default::default() }.into();
        let between = |gains, losses, candidate: u64, reference: u64| {
            Discordant { gains, losses }.is_between(&score(candidate, 10), &score(reference, 10))
        };
        assert!(between(3, 1, 7, 5) && between(0, 0, 10, 10) && between(5, 5, 5, 5));
        assert!(
            !between(3, 1, 7, 6) && !between(8, 6, 7, 5),
            "six of ten are right with one and wrong with the other"
        );
        assert!(!between(2, 0, 1, 0) && !between(1, 4, 7, 10));
        assert!(!Discordant::default().is_between(&score(5, 10), &score(5, 11)));
    }

    #[test]
    fn verdicts_that_two_samples_turn_are_fragile() {
        let score =
            |correct, total| Tally::from(crate::tally::Counts { correct, total, ..Default::default() });
        // So many samples are right with both, and so many wrong with both.
        let fragile_beside = |gains, losses, right, wrong| {
            let total = gains + losses + right + wrong;
            let (candidate, bar) = (score(right + gains, total), score(right + losses, total));
            is_fragile_at(0.05, Discordant { gains, losses }, &candidate, &bar).unwrap()
        };
        let fragile = |gains, losses| fragile_beside(gains, losses, 9, 9);
        // P(X >= 5 of 5) is 0.031, of 4 of 4 0.0625.
        assert!(fragile(5, 0) && fragile(4, 0) && fragile(3, 0));
        assert!(!fragile(2, 0) && !fragile(40, 0) && !fragile(0, 40));
        // Nothing is left to be gained, nor to be lost: of 7 and 0, 0.0078, two losses more make 0.0898, and two gains less 0.031.
        assert!(!fragile_beside(4, 0, 9, 0) && fragile_beside(4, 0, 0, 1));
        assert!(fragile_beside(7, 0, 2, 9) && !fragile_beside(7, 0, 0, 9));
        let other = is_fragile_at(0.05, Discordant { gains: 3, losses: 1 }, &score(7, 10), &score(6, 10));
        assert_eq!(other, None);
    }

    #[test]
    fn outcomes_of_other_samples_are_no_pairs() {
        let outcome = |label, prediction| Outcome { label, prediction, loss: f64::NAN };
        let candidate = [outcome(0, 0), outcome(1, 0), outcome(2, 2), outcome(0, 1)];
        let reference = [outcome(0, 1), outcome(1, 1), outcome(2, 1), outcome(0, 2)];
        assert_eq!(Discordant::of(&candidate, &reference).unwrap(), Discordant { gains: 2, losses: 1 });
        assert!(Discordant::of(&candidate, &reference[1..]).unwrap_err().chain().contains("4 and 3 samples"));
        let other = [outcome(0, 0), outcome(1, 0), outcome(1, 1), outcome(0, 1)];
        assert!(Discordant::of(&candidate, &other).unwrap_err().chain().contains("label of sample 2"));
    }
}
