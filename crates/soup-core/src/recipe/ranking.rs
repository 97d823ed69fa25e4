//! The order in which candidates are taken: by validation score, shuffled, or as in the pool.

use crate::ledger::Ledger;
use crate::random::SplitMix64;
use crate::soup::{Ingredient, Soup};
use crate::tally::Tally;

use super::{Order, RecipeSpec, Step, Trial};

/// Which end of the ranking comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum From {
    /// Highest score first.
    Best,
    /// Lowest score first.
    Worst,
}

/// The order of all `ingredients` under `spec`, or the step that is needed to know it.
pub(super) fn order(
    spec: &RecipeSpec,
    ingredients: u32,
    ledger: &Ledger,
    from: From,
) -> Result<Vec<Ingredient>, Step> {
    match spec.order {
        Order::Pool => Ok(pool_order(ingredients)),
        Order::Random => Ok(shuffled(ingredients, spec.seed)),
        Order::Sorted => sorted(ingredients, ledger, from),
    }
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

/// Whether `score` satisfies `bar` under the rule of `spec`.
pub(super) fn accepts(spec: &RecipeSpec, ledger: &Ledger, score: &Tally, bar: &Tally) -> bool {
    spec.accept.holds(ledger.compare(score, bar))
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
