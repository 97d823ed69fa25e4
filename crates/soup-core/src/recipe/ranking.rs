//! The order in which candidates are taken: by score, shuffled, or as in the pool.
//!
//! Scores are those on the validation set, which are found out first: one evaluation for every ingredient. Or they are [given](given): who
//! judged the ingredients before need not do so again. What is given decides the order and nothing else: it is never compared with a
//! score that the run finds out itself.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::ledger::Ledger;
use crate::metric::Metric;
use crate::random::SplitMix64;
use crate::soup::{Ingredient, Soup};
use crate::tally::Tally;

use super::given::parse_named_once;
use super::{Order, RecipeSpec, Step, Trial};

/// Which end of the ranking comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum From {
    /// Highest score first.
    Best,
    /// Lowest score first.
    Worst,
}

/// Scores by the names of ingredients.
pub type ScoreTable = BTreeMap<String, f64>;

/// The scores in a JSON document.
///
/// # Errors
/// For anything but an object from ingredients to numbers that names each once.
pub fn parse(json: &[u8]) -> serde_json::Result<ScoreTable> {
    parse_named_once(json)
}

/// Checks scores without their pool.
///
/// # Errors
/// [`ErrorKind::Usage`](crate::ErrorKind::Usage) for one that is no finite number.
pub fn check(table: &ScoreTable) -> Result<()> {
    match table.iter().find(|(_, score)| !score.is_finite()) {
        Some((name, score)) => {
            Err(Error::usage(format!("{name:?} is ranked by {score}, which is no number to rank by")))
        }
        None => Ok(()),
    }
}

/// The scores of ingredients called `names`, in this order.
///
/// # Errors
/// [`ErrorKind::Usage`](crate::ErrorKind::Usage) for an ingredient without a score, and for a name that is no ingredient.
pub fn given(table: &ScoreTable, names: &[String]) -> Result<Arc<[f64]>> {
    check(table)?;
    if let Some(unknown) = table.keys().find(|key| !names.contains(key)) {
        return Err(Error::usage(format!("{unknown:?} is ranked, but there is no ingredient of that name")));
    }
    let score = |name: &String| {
        let unranked = || {
            Error::usage(format!("ingredient {name:?} is not ranked: give every ingredient a score, or none"))
        };
        table.get(name).copied().ok_or_else(unranked)
    };
    names.iter().map(score).collect()
}

/// The ingredients that are put in an order.
#[derive(Clone, Debug)]
pub(super) struct Candidates {
    /// Ingredients in the pool; at least one.
    pub(super) ingredients: u32,
    /// Their scores in pool order, where they are given.
    pub(super) scores: Option<Arc<[f64]>>,
}

impl Candidates {
    /// Their order under `spec`, or the step that is needed to know it.
    pub(super) fn order(
        &self,
        spec: &RecipeSpec,
        ledger: &Ledger,
        from: From,
    ) -> Result<Vec<Ingredient>, Step> {
        match (spec.order, &self.scores) {
            (Order::Pool, _) => Ok(pool_order(self.ingredients)),
            (Order::Random, _) => Ok(shuffled(self.ingredients, spec.seed)),
            (Order::Sorted, Some(scores)) => Ok(sorted_by(scores, ledger, from)),
            (Order::Sorted, None) => sorted(self.ingredients, ledger, from),
        }
    }
}

/// The ingredient with the best of these scores, the first one of equals.
pub fn best(scores: &[f64], lower_is_better: bool) -> Option<Ingredient> {
    let better = |a: f64, b: f64| if lower_is_better { a < b } else { a > b };
    let first = (0..scores.len()).reduce(|best, at| if better(scores[at], scores[best]) { at } else { best });
    first.map(|at| Ingredient(at as u32))
}

/// All ingredients by the scores that are given, which are of the direction of the metric; ties in pool order.
fn sorted_by(scores: &[f64], ledger: &Ledger, from: From) -> Vec<Ingredient> {
    let mut order = pool_order(scores.len() as u32);
    let highest_first = (from == From::Best) != ledger.metric().is_some_and(Metric::lower_is_better);
    order.sort_by(|a, b| {
        let [a, b] = [a, b].map(|ingredient| scores[ingredient.0 as usize]);
        let order = if highest_first { b.partial_cmp(&a) } else { a.partial_cmp(&b) };
        order.unwrap_or(Ordering::Equal)
    });
    order
}

/// All ingredients by their score, ties in pool order (whichever end comes first).
/// While scores are missing: the step that asks for all of them at once, in pool order and without a bar.
pub(super) fn sorted(ingredients: u32, ledger: &Ledger, from: From) -> Result<Vec<Ingredient>, Step> {
    let mut scores: Vec<(Ingredient, &Tally)> = Vec::new();
    let mut open = Vec::new();
    for ingredient in pool_order(ingredients) {
        let soup = Soup::single(ingredient);
        match ledger.deciding(&soup) {
            Some(score) => scores.push((ingredient, score)),
            None => open.push(Trial { soup, bar: None }),
        }
    }
    if !open.is_empty() {
        return Err(Step::Try(open));
    }
    // A stable sort, so that ties keep pool order in both directions.
    scores.sort_by(|(_, a), (_, b)| match from {
        From::Best => ledger.compare(b, a),
        From::Worst => ledger.compare(a, b),
    });
    Ok(scores.into_iter().map(|(ingredient, _)| ingredient).collect())
}

fn pool_order(ingredients: u32) -> Vec<Ingredient> {
    (0..ingredients).map(Ingredient).collect()
}

fn shuffled(ingredients: u32, seed: u64) -> Vec<Ingredient> {
    let mut order = pool_order(ingredients);
    shuffle(&mut order, seed);
    order
}

/// The shuffle of `seed`. Its algorithm is part of the product, because published soups are reproduced by their seed:
/// Fisher–Yates from the last place down to the second, where place `i` swaps with place `(r * (i + 1)) >> 64` in
/// 128-bit arithmetic and `r` is the next number of SplitMix64 (Steele, Lea, Flood 2014) seeded with `seed`. The bias
/// of the multiplication is below 2^-32 and accepted for the sake of a short definition.
pub(super) fn shuffle<T>(items: &mut [T], seed: u64) {
    let mut random = SplitMix64(seed);
    for place in (1..items.len()).rev() {
        items.swap(place, random.below(place as u64 + 1) as usize);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shuffles_never_change() {
        let order = |n, seed| shuffled(n, seed).into_iter().map(|i| i.0).collect::<Vec<_>>();
        assert_eq!(order(8, 0), SHUFFLE_OF_8_BY_SEED_0);
        assert_eq!(order(8, 7), SHUFFLE_OF_8_BY_SEED_7);
        assert_eq!(order(1, 7), [0]);
        assert_eq!(order(0, 7), [0u32; 0]);
    }

    #[test]
    fn shuffles_are_permutations_and_depend_on_the_seed() {
        let mut a = shuffled(500, 3);
        assert_ne!(a, shuffled(500, 4));
        a.sort_unstable();
        assert_eq!(a, pool_order(500));
    }

    // Computed by an independent implementation in Python.
    const SHUFFLE_OF_8_BY_SEED_0: [u32; 8] = [1, 2, 6, 5, 4, 0, 3, 7];
    const SHUFFLE_OF_8_BY_SEED_7: [u32; 8] = [7, 4, 6, 1, 2, 5, 0, 3];
}
