//! Everything known so far about a run: what the survey told, the scores, by dataset and soup, soups that were rejected before they had one,
//! pairs of soups that were compared sample by sample, and the steps of a learned soup. Beside it: what a score is asked for ([`Evaluation`]), and the ranges in which it is found out
//! ([`Slice`]).

use std::cmp::Ordering;
use std::collections::BTreeMap;

use crate::metric::Metric;
use crate::run::BATCH_SIZE_MAX;
use crate::sequence::SequenceId;
use crate::significance::Discordant;
use crate::soup::Soup;
use crate::survey::SAMPLES_MAX;
use crate::tally::Tally;

/// A dataset of a run, by its position: 0 is the validation set, the test sets follow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Dataset(pub u32);

impl Dataset {
    /// The set on which recipes decide.
    pub const VALIDATION: Dataset = Dataset(0);

    /// Position in the run's list of datasets.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// A soup on a dataset.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Evaluation {
    /// The dataset.
    pub dataset: Dataset,
    /// The soup.
    pub soup: Soup,
}

/// Most slices a dataset is cut into.
pub const SLICES_MAX: u64 = 64;

/// Most samples of a slice, whatever dataset it is of and however large the batches are.
pub const SLICE_SAMPLES_MAX: u64 = SAMPLES_MAX / SLICES_MAX + 2 * BATCH_SIZE_MAX as u64;

/// Samples `start` to `end` of a dataset, counted in a [sequence](crate::sequence).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slice {
    /// Which of the dataset's slices this is.
    pub index: u32,
    /// First sample.
    pub start: u64,
    /// After the last sample.
    pub end: u64,
    /// The order in which samples are counted.
    pub sequence: SequenceId,
}

/// Cuts `samples` into at most [`SLICES_MAX`] slices of whole batches. Depends on nothing but its arguments, so that
/// sums over slices are the same on any cluster.
pub fn slices(samples: u64, batch_size: u32) -> Vec<Slice> {
    let batch = u64::from(batch_size.max(1));
    let length = batch * samples.div_ceil(batch).div_ceil(SLICES_MAX).max(1);
    (0..samples.div_ceil(length))
        .map(|i| Slice {
            index: i as u32,
            start: i * length,
            end: ((i + 1) * length).min(samples),
            sequence: SequenceId::NATURAL,
        })
        .collect()
}

/// Loss and gradient of one step of a learned soup, summed over its mini-batch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Gradients {
    /// Mean loss of the mini-batch: cross-entropy in nats, or the squared error of a number.
    pub loss: f64,
    /// Its derivative with respect to beta; 0 of numbers.
    pub d_beta: f64,
    /// Samples whose prediction is their label; 0 of numbers.
    pub correct: u64,
    /// Samples of the mini-batch.
    pub total: u64,
    /// `dots[group][ingredient]`: <dL/dtheta, theta_i> over the group's parameters, which is the derivative with respect to
    /// the weight of the ingredient there.
    pub dots: Vec<Vec<f64>>,
}

impl Gradients {
    /// Whether every number is finite.
    pub fn finite(&self) -> bool {
        self.loss.is_finite() && self.d_beta.is_finite() && self.dots.iter().flatten().all(|d| d.is_finite())
    }
}

/// Why a soup was rejected before all of its samples were judged.
#[derive(Clone, Debug, PartialEq)]
pub struct Rejection {
    /// The soup whose score it had to reach.
    pub bar: Soup,
    /// What the samples add up to that were judged: of these it is certain that the bar is not reached.
    pub judged: Tally,
}

/// What was found out of a soup.
#[derive(Clone, Debug, PartialEq)]
pub enum Finding {
    /// Its score.
    Score(Tally),
    /// That it is rejected, on the set on which the recipe decides.
    Rejection(Rejection),
    /// How it compares with another soup, on the set on which the recipe decides.
    Comparison(Comparison),
}

/// What happened to the samples with a soup and with another one, which both have their scores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Comparison {
    /// The other one.
    pub reference: Soup,
    /// The samples that only one of them got right.
    pub counts: Discordant,
}

impl Finding {
    /// The soup that what was found stands and falls with, besides the one that it is about.
    pub fn other(&self) -> Option<&Soup> {
        match self {
            Finding::Score(_) => None,
            Finding::Rejection(Rejection { bar, .. }) => Some(bar),
            Finding::Comparison(Comparison { reference, .. }) => Some(reference),
        }
    }
}

/// What is known about a run.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    /// Number of ingredients in the pool.
    ingredients: u32,
    scores: BTreeMap<(Dataset, Soup), Tally>,
    /// On the set on which the recipe decides.
    rejections: BTreeMap<Soup, Rejection>,
    /// There too: a soup, and the one that it was compared with.
    comparisons: BTreeMap<(Soup, Soup), Discordant>,
    /// The set on which the recipe decides.
    deciding: Dataset,
    /// Samples of every dataset, once counted.
    samples: Vec<u64>,
    /// By what scores are compared, once known.
    metric: Option<Metric>,
    /// The steps of a learned soup so far.
    steps: Vec<Gradients>,
}

impl Ledger {
    /// An empty ledger for a pool of `ingredients`.
    pub fn new(ingredients: u32) -> Ledger {
        Ledger { ingredients, ..Ledger::default() }
    }

    /// The same, for a recipe that decides on `dataset` and not on the validation set.
    #[must_use]
    pub fn deciding_on(self, dataset: Dataset) -> Ledger {
        Ledger { deciding: dataset, ..self }
    }

    /// The set on which the recipe decides.
    pub fn deciding_set(&self) -> Dataset {
        self.deciding
    }

    /// The score of `soup` on the set on which the recipe decides, if known.
    pub fn deciding(&self, soup: &Soup) -> Option<&Tally> {
        self.score(self.deciding, soup)
    }

    /// Notes what the survey told: how many samples every dataset has, and by what scores are compared.
    pub fn surveyed(&mut self, samples: Vec<u64>, metric: Metric) {
        (self.samples, self.metric) = (samples, Some(metric));
    }

    /// By what scores are compared, once surveyed.
    pub fn metric(&self) -> Option<&Metric> {
        self.metric.as_ref()
    }

    /// Which of two scores of one dataset is better: `Greater` where `a` is. Scores are known after the survey only.
    pub fn compare(&self, a: &Tally, b: &Tally) -> Ordering {
        self.metric.as_ref().map_or(Ordering::Equal, |metric| metric.compare(a, b))
    }

    /// Samples of a dataset, once counted.
    pub fn samples(&self, dataset: Dataset) -> Option<u64> {
        self.samples.get(dataset.index()).copied()
    }

    /// The steps of a learned soup, in order.
    pub fn steps(&self) -> &[Gradients] {
        &self.steps
    }

    /// Records the next step.
    pub fn record_step(&mut self, gradients: Gradients) {
        self.steps.push(gradients);
    }

    /// Number of ingredients in the pool.
    pub fn ingredients(&self) -> u32 {
        self.ingredients
    }

    /// The score of `soup` on the validation set, if known.
    pub fn validation(&self, soup: &Soup) -> Option<&Tally> {
        self.score(Dataset::VALIDATION, soup)
    }

    /// The score of `soup` on `dataset`, if known.
    pub fn score(&self, dataset: Dataset, soup: &Soup) -> Option<&Tally> {
        self.scores.get(&(dataset, soup.clone()))
    }

    /// All scores.
    pub fn scores(&self) -> impl Iterator<Item = (Dataset, &Soup, &Tally)> {
        self.scores.iter().map(|((dataset, soup), score)| (*dataset, soup, score))
    }

    /// How many scores are known.
    pub fn count(&self) -> usize {
        self.scores.len()
    }

    /// What `look` sees in this ledger with one finding more.
    pub fn suppose<T>(
        &mut self,
        evaluation: &Evaluation,
        finding: &Finding,
        look: impl FnOnce(&Ledger) -> T,
    ) -> T {
        let Evaluation { dataset, soup } = evaluation;
        match finding {
            Finding::Score(score) => {
                let key = (*dataset, soup.clone());
                if self.scores.contains_key(&key) {
                    return look(self);
                }
                self.scores.insert(key.clone(), score.clone());
                let seen = look(self);
                self.scores.remove(&key);
                seen
            }
            Finding::Rejection(rejection) => {
                self.with(|ledger| &mut ledger.rejections, soup.clone(), rejection.clone(), look)
            }
            Finding::Comparison(Comparison { reference, counts }) => {
                let key = (soup.clone(), reference.clone());
                self.with(|ledger| &mut ledger.comparisons, key, *counts, look)
            }
        }
    }

    /// What `look` sees with another value in one of its maps.
    fn with<K: Ord + Clone, V, T>(
        &mut self,
        map: fn(&mut Ledger) -> &mut BTreeMap<K, V>,
        key: K,
        value: V,
        look: impl FnOnce(&Ledger) -> T,
    ) -> T {
        let before = map(self).insert(key.clone(), value);
        let seen = look(self);
        match before {
            Some(before) => map(self).insert(key, before),
            None => map(self).remove(&key),
        };
        seen
    }

    /// Records what was found out.
    pub fn find(&mut self, evaluation: Evaluation, finding: Finding) {
        match finding {
            Finding::Score(score) => self.record(evaluation.dataset, evaluation.soup, score),
            Finding::Rejection(rejection) => drop(self.rejections.insert(evaluation.soup, rejection)),
            Finding::Comparison(Comparison { reference, counts }) => {
                self.comparisons.insert((evaluation.soup, reference), counts);
            }
        }
    }

    /// Why `soup` was rejected for not reaching the score of `bar`, if it was before it had a score itself.
    pub fn rejection(&self, soup: &Soup, bar: &Soup) -> Option<&Rejection> {
        self.rejections.get(soup).filter(|rejection| rejection.bar == *bar)
    }

    /// All soups that were rejected before they had a score.
    pub fn rejections(&self) -> impl ExactSizeIterator<Item = (&Soup, &Rejection)> {
        self.rejections.iter()
    }

    /// How `soup` compares with `reference` sample by sample, if it was compared with it.
    pub fn comparison(&self, soup: &Soup, reference: &Soup) -> Option<Discordant> {
        self.comparisons.get(&(soup.clone(), reference.clone())).copied()
    }

    /// All pairs of soups that were compared sample by sample.
    pub fn comparisons(&self) -> impl ExactSizeIterator<Item = (&(Soup, Soup), &Discordant)> {
        self.comparisons.iter()
    }

    /// Forgets what turned out not to be believed: the score of a soup, its rejection, those of soups that did not reach it, and what it was
    /// compared with.
    pub fn retract(&mut self, dataset: Dataset, soup: &Soup) {
        self.scores.remove(&(dataset, soup.clone()));
        if dataset == self.deciding {
            self.rejections.remove(soup);
            self.rejections.retain(|_, rejection| rejection.bar != *soup);
            self.comparisons.retain(|(candidate, reference), _| candidate != soup && reference != soup);
        }
    }

    /// Forgets all steps but the first `count`.
    pub fn retract_steps(&mut self, count: usize) {
        self.steps.truncate(count);
    }

    /// Records a score. The first answer stays: later ones are equal by construction.
    pub fn record(&mut self, dataset: Dataset, soup: Soup, score: Tally) {
        self.scores.entry((dataset, soup)).or_insert(score);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::soup::Ingredient;
    use crate::tally::Counts;

    fn correct(correct: u64) -> Tally {
        Counts { total: 10, correct, ..Counts::default() }.into()
    }

    #[test]
    fn no_slice_is_longer_than_slices_may_be() {
        for batch_size in [1, 7, 1000, 40_000, BATCH_SIZE_MAX - 1, BATCH_SIZE_MAX] {
            for samples in [1, u64::from(BATCH_SIZE_MAX) + 1, SAMPLES_MAX - 1, SAMPLES_MAX] {
                let longest = slices(samples, batch_size).iter().map(|slice| slice.end - slice.start).max();
                assert!(longest <= Some(SLICE_SAMPLES_MAX), "{samples} {batch_size} {longest:?}");
            }
        }
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
        let of = Evaluation { dataset: Dataset::VALIDATION, soup: soup.clone() };
        let score = |n| Finding::Score(correct(n));
        let seen = ledger.suppose(&of, &score(3), |l| l.validation(&soup).cloned());
        assert_eq!((seen, ledger.validation(&soup)), (Some(correct(3)), None));
        ledger.record(Dataset::VALIDATION, soup.clone(), correct(3));
        ledger.suppose(&of, &score(4), |_| ());
        assert_eq!(ledger.validation(&soup), Some(&correct(3)));
    }

    #[test]
    fn a_rejection_is_against_one_bar_and_goes_with_it() {
        let mut ledger = Ledger::new(3);
        let [tried, bar, other] = [1, 0, 2].map(|i| Soup::single(Ingredient(i)));
        let of = Evaluation { dataset: Dataset::VALIDATION, soup: tried.clone() };
        let rejection = Rejection { bar: bar.clone(), judged: correct(3) };
        let finding = Finding::Rejection(rejection.clone());
        let seen = ledger.suppose(&of, &finding, |l| l.rejection(&tried, &bar).cloned());
        assert_eq!((seen, ledger.rejections().len()), (Some(rejection.clone()), 0));
        ledger.find(of, finding);
        assert_eq!(ledger.rejection(&tried, &bar), Some(&rejection));
        assert_eq!((ledger.rejection(&tried, &other), ledger.count()), (None, 0));
        ledger.retract(Dataset(1), &bar);
        ledger.retract(Dataset::VALIDATION, &other);
        assert_eq!(ledger.rejections().len(), 1);
        ledger.retract(Dataset::VALIDATION, &bar);
        assert_eq!(ledger.rejections().len(), 0);
    }

    #[test]
    fn what_is_retracted_can_be_recorded_anew() {
        let mut ledger = Ledger::new(2);
        let (soup, other) = (Soup::single(Ingredient(1)), Soup::single(Ingredient(0)));
        ledger.record(Dataset::VALIDATION, soup.clone(), correct(3));
        ledger.record(Dataset(1), soup.clone(), correct(4));
        ledger.record(Dataset::VALIDATION, other.clone(), correct(5));
        ledger.retract(Dataset::VALIDATION, &soup);
        assert_eq!((ledger.validation(&soup), ledger.count()), (None, 2));
        ledger.record(Dataset::VALIDATION, soup.clone(), correct(6));
        assert_eq!(ledger.validation(&soup), Some(&correct(6)));
        (0..3).for_each(|_| ledger.record_step(Gradients::default()));
        ledger.retract_steps(1);
        assert_eq!(ledger.steps().len(), 1);
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
