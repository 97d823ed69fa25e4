//! Boosting the pool: SAMME, the multi-class AdaBoost (Zhu, Zou, Rosset and Hastie 2009, Statistics and Its Interface 2, algorithm 2),
//! whose learners are the ingredients as they are.
//!
//! Where the paper trains a learner in each round, the one with the least weighted error is taken here; of equally good ones the first
//! in pool order. As in the paper, nothing keeps a learner from being taken again: its votes add up. The rounds end after
//! [`BOOST_ROUNDS`], or where no learner is better than chance under the weights, which the last one taken never is.
//!
//! All that this needs to know is which ingredients are right on which samples, a bit each ([`Hits`]). Workers tell these slice by slice, and
//! the votes follow from them in one place, in a fixed order: the number of workers changes no bit. The votes are cast where the
//! predictions are (see [`ensemble`](super::ensemble)).

use std::collections::BTreeMap;

use crate::error::{Error, Result};

/// Most rounds: as many as scikit-learn makes if not told otherwise.
pub const BOOST_ROUNDS: u32 = 50;
/// Most ingredients that are boosted: rounds, samples and ingredients multiply.
pub const BOOST_INGREDIENTS_MAX: usize = 256;
/// Errors that are this near to each other, and to chance, are equal: which samples are weighed together rounds their sums in one way or
/// another.
const NEAR: f64 = 1e-9;

/// Which ingredients are right on which samples.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hits {
    ingredients: usize,
    /// One row a sample, of whole bytes: ingredient i is bit i % 8, from the lowest, of byte i / 8. Bits of no ingredient are 0.
    rows: Vec<u8>,
}

impl Hits {
    /// Of no samples yet.
    pub fn new(ingredients: usize) -> Hits {
        Hits { ingredients, rows: Vec::new() }
    }

    /// From rows as [`rows`](Hits::rows) gives them.
    ///
    /// # Errors
    /// [`Internal`](crate::ErrorKind::Internal) where these are not whole rows of so many ingredients.
    pub fn from_rows(ingredients: usize, rows: Vec<u8>) -> Result<Hits> {
        let hits = Hits { ingredients, rows };
        let beyond = |row: &[u8]| (ingredients..8 * row.len()).any(|i| is_set(row, i));
        let whole = ingredients > 0 && hits.rows.len().is_multiple_of(hits.stride());
        match whole && !hits.each().any(beyond) {
            true => Ok(hits),
            false => Err(Error::internal(format!("hits are not whole rows of {ingredients} ingredients"))),
        }
    }

    /// One row a sample: ingredient i is bit i % 8, from the lowest, of byte i / 8.
    pub fn rows(&self) -> &[u8] {
        &self.rows
    }

    /// Ingredients.
    pub fn ingredients(&self) -> usize {
        self.ingredients
    }

    /// Samples.
    pub fn samples(&self) -> u64 {
        (self.rows.len() / self.stride()) as u64
    }

    /// Adds a sample: whether each ingredient is right.
    pub fn push(&mut self, right: impl IntoIterator<Item = bool>) {
        let begins = self.rows.len();
        self.rows.resize(begins + self.stride(), 0);
        for (ingredient, right) in right.into_iter().take(self.ingredients).enumerate() {
            self.rows[begins + ingredient / 8] |= u8::from(right) << (ingredient % 8);
        }
    }

    /// Adds the samples of others, of the same ingredients.
    pub fn extend(&mut self, others: &Hits) {
        self.rows.extend_from_slice(&others.rows);
    }

    /// Bytes of a row.
    fn stride(&self) -> usize {
        self.ingredients.div_ceil(8).max(1)
    }

    fn each(&self) -> impl Iterator<Item = &[u8]> {
        self.rows.chunks_exact(self.stride())
    }
}

fn is_set(row: &[u8], ingredient: usize) -> bool {
    row[ingredient / 8] >> (ingredient % 8) & 1 == 1
}

/// Samples on which the same ingredients are right: they have one weight for ever, so that they are weighed together.
struct Alike<'a> {
    row: &'a [u8],
    /// Of all of them, a share of 1.
    weight: f64,
}

/// The votes that SAMME gives the ingredients, one each, for a problem of `classes` classes; a vote is the sum of the learner's alphas,
/// log((1 - error) / error) + log(classes - 1). None is below 0 and one at least above, where there are samples.
///
/// An ingredient that is never wrong would have a vote without end, and has the only one, 1. So has the best one where not even that
/// is better than chance.
pub fn samme(hits: &Hits, classes: u32) -> Vec<f64> {
    boost(hits, classes, BOOST_ROUNDS)
}

fn boost(hits: &Hits, classes: u32, rounds: u32) -> Vec<f64> {
    let chance = 1.0 - 1.0 / f64::from(classes.max(1));
    let mut votes = vec![0.0; hits.ingredients];
    let mut samples = alike(hits);
    for round in 0..rounds {
        let Some((learner, error)) = least_error(&samples, hits.ingredients) else { break };
        let no_better = error >= chance - NEAR;
        if error == 0.0 || (no_better && round == 0) {
            votes.fill(0.0);
            votes[learner] = 1.0;
            break;
        }
        if no_better {
            break;
        }
        let odds = (1.0 - error) / error * (f64::from(classes) - 1.0);
        votes[learner] += libm::log(odds);
        // exp(alpha), by which the paper multiplies, is the odds themselves.
        samples.iter_mut().filter(|s| !is_set(s.row, learner)).for_each(|s| s.weight *= odds);
        let all: f64 = samples.iter().map(|s| s.weight).sum();
        samples.iter_mut().for_each(|s| s.weight /= all);
    }
    votes
}

/// All samples, in the order of their rows.
fn alike(hits: &Hits) -> Vec<Alike<'_>> {
    let mut counts: BTreeMap<&[u8], u64> = BTreeMap::new();
    hits.each().for_each(|row| *counts.entry(row).or_default() += 1);
    let all = hits.samples() as f64;
    counts.into_iter().map(|(row, count)| Alike { row, weight: count as f64 / all }).collect()
}

/// The first learner with the least weighted error, and that; `None` without samples or learners.
fn least_error(samples: &[Alike<'_>], ingredients: usize) -> Option<(usize, f64)> {
    let mut errors = vec![0.0; ingredients];
    for Alike { row, weight } in samples {
        errors.iter_mut().enumerate().filter(|(i, _)| !is_set(row, *i)).for_each(|(_, e)| *e += weight);
    }
    let least = errors.iter().copied().fold(f64::INFINITY, f64::min);
    let first = errors.into_iter().enumerate().find(|(_, error)| *error <= least + NEAR);
    first.filter(|_| !samples.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One text a sample, one letter an ingredient: `+` is right.
    fn hits(samples: &[&str]) -> Hits {
        let mut hits = Hits::new(samples[0].len());
        samples.iter().for_each(|sample| hits.push(sample.chars().map(|c| c == '+')));
        hits
    }

    #[test]
    fn rows_are_bits_in_whole_bytes() {
        let found = hits(&["+-+------", "--------+"]);
        assert_eq!((found.rows(), found.samples()), (&[0b101, 0, 0, 1][..], 2));
        assert_eq!(Hits::from_rows(9, found.rows().to_vec()).unwrap(), found);
        assert!(Hits::from_rows(9, vec![0; 3]).is_err(), "a row and a half");
        assert!(Hits::from_rows(9, vec![0, 0b10]).is_err(), "a tenth ingredient");
        assert!(Hits::from_rows(0, vec![]).is_err());
        let mut both = found.clone();
        both.extend(&found);
        assert_eq!(both.samples(), 4);
    }

    #[test]
    fn votes_are_the_papers() {
        // Errors of 2/5, 2/5 and 3/5: the first of equals. Where it was wrong weighs 1/4 then, the rest 1/6. Errors of 1/2, 1/3 and 7/12:
        // the second. Weights are 1/8, 1/4, 1/4, 3/16 and 3/16; errors 3/8, 1/2 and 9/16: the first again.
        let samples = hits(&["++-", "+-+", "+--", "-++", "-+-"]);
        let alphas = [1.5, 2.0, 5.0 / 3.0].map(libm::log);
        for (rounds, expected) in
            [(1, [alphas[0], 0.0]), (2, [alphas[0], alphas[1]]), (3, [alphas[0] + alphas[2], alphas[1]])]
        {
            let votes = boost(&samples, 2, rounds);
            let apart = votes.iter().zip(expected.iter().chain(&[0.0])).map(|(got, e)| (got - e).abs());
            assert!(apart.fold(0.0, f64::max) < 1e-14, "{rounds}: {votes:?}");
        }
    }

    #[test]
    fn of_equally_good_ones_the_first_is_taken_however_their_errors_add_up() {
        // The first is wrong on one sample and on two, the second on three that are alike: in f64 0.2 + 0.1 is more than 0.3.
        let samples: Vec<&str> = [("-++", 1), ("-+-", 2), ("+-+", 3), ("++-", 4)]
            .into_iter()
            .flat_map(|(sample, times)| std::iter::repeat_n(sample, times))
            .collect();
        let votes = boost(&hits(&samples), 2, 1);
        assert!((votes[0] - libm::log(7.0 / 3.0)).abs() < 1e-14, "{votes:?}");
        assert_eq!(votes[1..], [0.0, 0.0]);
    }

    #[test]
    fn who_is_never_wrong_is_asked_alone() {
        assert_eq!(samme(&hits(&["++-", "+++", "-++"]), 3), [0.0, 1.0, 0.0]);
    }

    #[test]
    fn the_best_of_those_that_are_no_better_than_chance_is_asked_alone() {
        assert_eq!(samme(&hits(&["--", "--", "-+", "+-"]), 2), [1.0, 0.0]);
        assert_eq!(samme(&hits(&["-", "+"]), 2), [1.0], "exactly chance");
        // Of three classes it is better than chance.
        assert_eq!(samme(&hits(&["-", "+"]), 3), [2f64.ln()]);
        assert_eq!(samme(&Hits::new(2), 2), [0.0; 2]);
    }

    #[test]
    fn duplicates_leave_the_votes_to_the_first() {
        let votes = samme(&hits(&["++-", "+++", "--+", "+++", "++-"]), 2);
        assert_eq!(votes[1], 0.0);
        assert!(votes[0] > 0.0);
    }

    #[test]
    fn the_order_of_the_samples_changes_no_bit() {
        let mut rows = vec!["++-+", "-+-+", "+---", "-+++", "++--", "+-++", "+-+-", "----", "+-++"];
        let votes = samme(&hits(&rows), 4);
        rows.reverse();
        assert_eq!(samme(&hits(&rows), 4), votes);
        assert!(votes.iter().all(|v| *v >= 0.0 && v.is_finite()));
    }
}
