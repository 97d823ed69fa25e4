//! Everything known so far about a run: the scores, by dataset and soup.

use std::collections::BTreeMap;

use crate::score::Score;
use crate::soup::Soup;

/// A dataset of a run, by its position: 0 is the validation set, the test sets follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Dataset(pub u32);

impl Dataset {
    /// The set on which recipes decide.
    pub const VALIDATION: Dataset = Dataset(0);

    /// Position in the run's list of datasets.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// What is known about a run.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    /// Number of ingredients in the pool.
    ingredients: u32,
    scores: BTreeMap<(Dataset, Soup), Score>,
}

impl Ledger {
    /// An empty ledger for a pool of `ingredients`.
    pub fn new(ingredients: u32) -> Ledger {
        Ledger { ingredients, scores: BTreeMap::new() }
    }

    /// Number of ingredients in the pool.
    pub fn ingredients(&self) -> u32 {
        self.ingredients
    }

    /// The score of `soup` on the validation set, if known.
    pub fn validation(&self, soup: &Soup) -> Option<&Score> {
        self.score(Dataset::VALIDATION, soup)
    }

    /// The score of `soup` on `dataset`, if known.
    pub fn score(&self, dataset: Dataset, soup: &Soup) -> Option<&Score> {
        self.scores.get(&(dataset, soup.clone()))
    }

    /// How many scores are known.
    pub fn count(&self) -> usize {
        self.scores.len()
    }

    /// What `look` sees in this ledger with one score more.
    pub fn suppose<T>(
        &mut self,
        dataset: Dataset,
        soup: &Soup,
        score: &Score,
        look: impl FnOnce(&Ledger) -> T,
    ) -> T {
        let key = (dataset, soup.clone());
        if self.scores.contains_key(&key) {
            return look(self);
        }
        self.scores.insert(key.clone(), score.clone());
        let seen = look(self);
        self.scores.remove(&key);
        seen
    }

    /// Records a score. The first answer stays: later ones are equal by construction.
    pub fn record(&mut self, dataset: Dataset, soup: Soup, score: Score) {
        self.scores.entry((dataset, soup)).or_insert(score);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::soup::Ingredient;

    fn correct(correct: u64) -> Score {
        Score { total: 10, correct, ..Score::default() }
    }

    #[test]
    fn the_first_answer_stays() {
        let mut ledger = Ledger::new(2);
        let soup = Soup::single(Ingredient(1));
        ledger.record(Dataset::VALIDATION, soup.clone(), correct(3));
        ledger.record(Dataset::VALIDATION, soup.clone(), correct(4));
        assert_eq!(ledger.validation(&soup), Some(&correct(3)));
    }

    #[test]
    fn a_supposed_score_is_seen_and_gone() {
        let mut ledger = Ledger::new(2);
        let soup = Soup::single(Ingredient(1));
        let seen = ledger.suppose(Dataset::VALIDATION, &soup, &correct(3), |l| l.validation(&soup).cloned());
        assert_eq!((seen, ledger.validation(&soup)), (Some(correct(3)), None));
        ledger.record(Dataset::VALIDATION, soup.clone(), correct(3));
        ledger.suppose(Dataset::VALIDATION, &soup, &correct(4), |_| ());
        assert_eq!(ledger.validation(&soup), Some(&correct(3)));
    }

    #[test]
    fn datasets_and_soups_are_kept_apart() {
        let mut ledger = Ledger::new(2);
        let soup = Soup::single(Ingredient(1));
        ledger.record(Dataset(1), soup.clone(), correct(3));
        assert_eq!(ledger.validation(&soup), None);
        assert_eq!(ledger.score(Dataset(1), &soup), Some(&correct(3)));
        assert_eq!(ledger.score(Dataset(1), &Soup::single(Ingredient(0))), None);
        assert_eq!(ledger.ingredients(), 2);
    }
}
