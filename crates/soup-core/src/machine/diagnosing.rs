//! Looking at the pool itself: the inner products of its ingredients, before anything is decided, and in the end what else
//! could be made of them.
//!
//! Inner products are asked of the owners of the shards, each shard once, and kept as long as the machine lives; they are a
//! cache of what the shards say, as residency is. *Comparing* scores the alternatives on every slice, where its logits are:
//! first on the validation set, again and again under the weights of the stacking that is being fitted there, then on the
//! test sets under the best of them. The first time it is also told who is right where, from which the votes of the boosting follow; they are
//! counted from the second time on.

use std::collections::BTreeMap;

use super::progress::Progress;
use super::{
    Action, Dataset, Error, ErrorKind, Evaluation, Machine, Millis, Slice, Underway, Work, WorkerId,
};
use crate::diagnosis::SharedInitVerdict;
use crate::diagnosis::boosting::{BOOST_INGREDIENTS_MAX, samme};
use crate::diagnosis::ensemble::{Alternatives, Fit, STACK_INGREDIENTS_MAX, STACK_STEPS};
use crate::diagnosis::geometry::Gram;
use crate::diagnosis::path::{Grid, line, prefixes};
use crate::machine::exchange::{Compare, LayerGram};
use crate::shard::Shard;
use crate::soup::{Ingredient, Soup, Weight};
use crate::survey::Tallies;
use crate::tally::Counts;

/// Points on the way from one ingredient to another, the first one not counted.
pub const LINE_SEGMENTS: u32 = 10;
/// Points of a plane's grid in each direction.
pub const PLANE_SIDE: u32 = 7;

/// The inner products of a pool.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    /// Over all averaged parameters.
    pub whole: Gram,
    /// Over those that are matrices (and of higher rank).
    pub matrices: Gram,
    /// By layer.
    pub layers: Vec<Gram>,
}

/// What is known of the pool itself.
#[derive(Debug, Default)]
pub(super) struct Diagnosing {
    grams: BTreeMap<Shard, Vec<LayerGram>>,
    measured: Option<Measured>,
    comparing: Option<Comparing>,
    compared: Option<BTreeMap<Dataset, Alternatives>>,
    /// Votes of the boosting that was compared; empty where there was none.
    votes: Vec<f64>,
}

/// The comparison of alternatives in work.
#[derive(Debug)]
struct Comparing {
    dataset: Dataset,
    step: u32,
    weights: Vec<f64>,
    /// Of the boosting, once they are found.
    votes: Vec<f64>,
    /// What they led to on the validation set.
    boosted: Option<Counts>,
    slices: BTreeMap<u32, Alternatives>,
    /// The hundredth of the way that was told last.
    told: Option<usize>,
    /// Of the stacking.
    fit: Fit,
    done: BTreeMap<Dataset, Alternatives>,
}

impl Comparing {
    fn new(ingredients: u32) -> Comparing {
        Comparing {
            dataset: Dataset::VALIDATION,
            step: 0,
            weights: vec![1.0 / f64::from(ingredients); ingredients as usize],
            votes: Vec::new(),
            boosted: None,
            slices: BTreeMap::new(),
            told: None,
            fit: Fit::default(),
            done: BTreeMap::new(),
        }
    }

    fn work(&self, slice: Slice) -> Option<Work> {
        let finite = |of: &[f64]| of.iter().map(|w| Weight::new(*w)).collect::<Option<_>>();
        Some(Work::Compare(Box::new(Compare {
            dataset: self.dataset,
            step: self.step,
            slice,
            weights: finite(&self.weights)?,
            votes: finite(&self.votes)?,
            hits: self.step == 0 && self.weights.len() <= BOOST_INGREDIENTS_MAX,
        })))
    }
}

impl Machine {
    /// Whether nothing is left to measure before the recipe begins.
    pub(super) fn measured_enough(&self) -> bool {
        self.plan.diagnosis.layers.is_none() || self.diagnosing.measured.is_some()
    }

    /// The inner products of the pool, once all are there.
    pub fn measured(&self) -> Option<&Measured> {
        self.diagnosing.measured.as_ref()
    }

    /// The alternatives on every reported set, once compared.
    pub fn compared(&self) -> Option<&BTreeMap<Dataset, Alternatives>> {
        self.diagnosing.compared.as_ref()
    }

    /// The votes of the boosting that was compared, one an ingredient; empty where there was none.
    pub fn votes(&self) -> &[f64] {
        &self.diagnosing.votes
    }

    /// A shard of `worker` whose inner products are missing.
    pub(super) fn pick_gram(&self, worker: WorkerId, own: &[Shard], now: Millis) -> Option<Work> {
        // What is streamed is multiplied as it is read.
        if self.measured_enough() || self.plan.streams {
            return None;
        }
        let missing = |shard: &Shard| !self.diagnosing.grams.contains_key(shard);
        let mut missing = own.iter().copied().filter(missing).map(Work::Gram);
        missing.find(|w| self.tasks.is_open(w, now) && !self.tasks.failed_on(w, worker))
    }

    /// The inner products on a shard are there.
    pub(super) fn gram_done(&mut self, shard: Shard, grams: Vec<LayerGram>, out: &mut Vec<Action>) {
        let Some(layers) = self.plan.diagnosis.layers.clone() else { return };
        let k = self.plan.ingredients as usize;
        self.diagnosing.grams.insert(shard, grams);
        let (done, shards) = (self.diagnosing.grams.len(), self.placement.shards());
        // What is streamed is told of as it is read.
        if !self.plan.streams {
            out.push(Action::underway(Underway::Products, (done, shards)));
        }
        if done < shards {
            return;
        }
        let mut measured = Measured {
            whole: Gram::zeros(k),
            matrices: Gram::zeros(k),
            layers: vec![Gram::zeros(k); layers.names.len()],
        };
        // In the order of shards and tensors, so that who did what changes no bit.
        for gram in std::mem::take(&mut self.diagnosing.grams).into_values().flatten() {
            measured.whole.add(&gram.packed);
            measured.layers[gram.layer as usize].add(&gram.packed);
            if gram.matrix {
                measured.matrices.add(&gram.packed);
            }
        }
        let shared = measured.matrices.shared_init();
        self.diagnosing.measured = Some(measured);
        if shared.verdict != SharedInitVerdict::Separate {
            return;
        }
        if self.plan.diagnosis.require_shared_init {
            let error = Error::new(ErrorKind::Gate, shared.explanation.as_str());
            return self.finish(Err(error.context("the ingredients must share an initialisation")), out);
        }
        self.note(shared.explanation, out);
    }

    /// Ingredients are multiplied again, since somebody did that who is not believed.
    pub(super) fn measure_again(&mut self, out: &mut Vec<Action>) {
        self.diagnosing.grams.clear();
        self.diagnosing.measured = None;
        self.withdraw_where(|work| matches!(work, Work::Gram(_) | Work::Pass(_)), out);
        if self.plan.streams {
            // That is found together.
            self.placement.forget_digests(|_| true);
        }
    }

    /// Alternatives are compared again, once everything is scored.
    pub(super) fn compare_again(&mut self) {
        (self.diagnosing.comparing, self.diagnosing.compared) = (None, None);
        self.diagnosing.votes.clear();
    }

    /// The soups between ingredients that a full diagnosis looks at, and every ingredient on every set, once the ranking is
    /// known.
    pub(super) fn diagnosis_goals(&self) -> Vec<Evaluation> {
        if !self.plan.diagnosis.full {
            return Vec::new();
        }
        let Some(order) = self.ranking() else { return Vec::new() };
        let mut soups: Vec<Soup> = prefixes(&order).collect();
        for (from, to) in self.lines(&order) {
            soups.extend(line(from, to, LINE_SEGMENTS).into_iter().map(|(_, soup)| soup));
        }
        soups.extend(self.grid(&order).iter().flat_map(|g| g.soups().collect::<Vec<_>>()));
        let on = |dataset: Dataset, soups: Vec<Soup>| {
            soups.into_iter().map(move |soup| Evaluation { dataset, soup })
        };
        let singles: Vec<Soup> = order.iter().map(|i| Soup::single(*i)).collect();
        let tests = self.reported_tests().flat_map(|d| on(d, singles.clone()).collect::<Vec<_>>());
        on(Dataset::VALIDATION, soups).chain(tests).collect()
    }

    /// The ingredients from best to worst on the validation set, once all are scored; ties in pool order.
    pub fn ranking(&self) -> Option<Vec<Ingredient>> {
        let all = (0..self.plan.ingredients).map(Ingredient);
        let scored = |i: Ingredient| Some((i, self.ledger.validation(&Soup::single(i))?));
        let mut scores = all.map(scored).collect::<Option<Vec<_>>>()?;
        scores.sort_by(|(_, a), (_, b)| self.ledger.compare(b, a));
        Some(scores.into_iter().map(|(i, _)| i).collect())
    }

    /// The two ends of the lines to look at: the best two ingredients, and the best and the worst.
    pub fn lines(&self, order: &[Ingredient]) -> Vec<(Ingredient, Ingredient)> {
        match self.distinct(order)[..] {
            [] | [_] => Vec::new(),
            [a, b] => vec![(a, b)],
            [a, b, .., z] => vec![(a, b), (a, z)],
        }
    }

    /// The grid of the plane to look at: through the best three ingredients.
    pub fn grid(&self, order: &[Ingredient]) -> Option<Grid> {
        let [a, b, c, ..] = self.distinct(order)[..] else { return None };
        Grid::new(&self.measured()?.whole, [a, b, c], PLANE_SIDE)
    }

    /// Groups of two or more ingredients that are equal, by position.
    pub fn duplicates(&self) -> Vec<Vec<usize>> {
        let alike = self.measured().map_or_else(Vec::new, |m| m.whole.duplicates());
        equal_among(alike, |index| self.ingredient_digests(index))
    }

    /// `order` with one of each group of duplicates.
    fn distinct(&self, order: &[Ingredient]) -> Vec<Ingredient> {
        let groups = self.duplicates();
        let mut seen: Vec<usize> = Vec::new();
        let mut first = |i: &Ingredient| match groups.iter().position(|g| g.contains(&i.index())) {
            Some(group) if seen.contains(&group) => false,
            Some(group) => {
                seen.push(group);
                true
            }
            None => true,
        };
        order.iter().copied().filter(|i| first(i)).collect()
    }

    /// The test sets that are reported on.
    pub(super) fn reported_tests(&self) -> impl Iterator<Item = Dataset> + use<> {
        let others = [self.plan.train, self.plan.calibration];
        (1..self.plan.datasets).map(Dataset).filter(move |d| !others.contains(&Some(*d)))
    }

    /// Everything is scored: other uses of the ingredients are compared, where that is wanted.
    pub(super) fn all_scored(&mut self, out: &mut Vec<Action>) {
        if !self.plan.diagnosis.full {
            return self.begin_writing(out);
        }
        self.diagnosing.comparing = Some(Comparing::new(self.plan.ingredients));
        self.progress.go_on(Progress::Comparing);
    }

    /// A slice to compare for `worker`: of those that it, or nobody, has evaluated before and so has the logits of.
    pub(super) fn pick_compare(&self, worker: WorkerId, may: &dyn Fn(&Work) -> bool) -> Option<Work> {
        let comparing = self.diagnosing.comparing.as_ref()?;
        let elsewhere =
            |slice: &Slice| self.judging.home(comparing.dataset, slice).is_some_and(|home| home != worker);
        self.slices_of(comparing.dataset)
            .iter()
            .filter(|s| !comparing.slices.contains_key(&s.index) && !elsewhere(s))
            .filter_map(|s| comparing.work(*s))
            .find(may)
    }

    /// A slice was compared.
    pub(super) fn compare_done(&mut self, work: &Compare, found: Alternatives, out: &mut Vec<Action>) {
        let slices = self.slices_of(work.dataset).len();
        let tests: Vec<Dataset> = self.reported_tests().collect();
        let sets = std::iter::once(Dataset::VALIDATION).chain(tests.iter().copied());
        let sets: Vec<(Dataset, usize)> = sets.map(|set| (set, self.slices_of(set).len())).collect();
        let classes = match self.survey().map(|s| &s.tallies) {
            Some(Tallies::Classes { classes }) => *classes,
            _ => 0,
        };
        let Some(comparing) = &mut self.diagnosing.comparing else { return };
        if (comparing.dataset, comparing.step) != (work.dataset, work.step) {
            return;
        }
        comparing.slices.insert(work.slice.index, found);
        if let Some(way) = comparing.way(&sets) {
            out.push(Action::underway(Underway::Uses, way));
        }
        if comparing.slices.len() < slices {
            return;
        }
        let total = total(std::mem::take(&mut comparing.slices));
        if comparing.dataset == Dataset::VALIDATION {
            comparing.fit(total, classes);
        } else {
            comparing.done.insert(comparing.dataset, total);
        }
        if comparing.done.is_empty() {
            return;
        }
        match tests.into_iter().find(|d| !comparing.done.contains_key(d)) {
            Some(next) => comparing.dataset = next,
            None => {
                self.diagnosing.compared = Some(std::mem::take(&mut comparing.done));
                self.diagnosing.votes = std::mem::take(&mut comparing.votes);
                self.diagnosing.comparing = None;
                self.begin_writing(out);
            }
        }
    }
}

impl Comparing {
    /// How many slices of these datasets were compared, of how many at most, where that is worth telling: nobody knows how many steps the fit
    /// will take.
    fn way(&mut self, sets: &[(Dataset, usize)]) -> Option<(usize, usize)> {
        let fitted = if self.weights.len() <= STACK_INGREDIENTS_MAX { STACK_STEPS as usize } else { 0 };
        // One before the first step, and one where the votes are counted.
        let times = |set: Dataset| if set == Dataset::VALIDATION { fitted + 2 } else { 1 };
        let most = |(set, slices): &(Dataset, usize)| slices * times(*set);
        let before: usize = sets.iter().take_while(|(set, _)| *set != self.dataset).map(most).sum();
        let own = sets.iter().find(|(set, _)| *set == self.dataset).map_or(0, |(_, slices)| *slices);
        let steps = if self.dataset == Dataset::VALIDATION { self.step as usize } else { 0 };
        let (done, all) = (before + steps * own + self.slices.len(), sets.iter().map(most).sum::<usize>());
        let hundredth = (done * 100).checked_div(all);
        let is_new = self.told != hundredth;
        self.told = hundredth;
        is_new.then_some((done, all))
    }

    /// One more step of the fit, or its end: then the weights are the best ones, and the validation set is done.
    fn fit(&mut self, mut total: Alternatives, classes: u32) {
        if let Some(hits) = total.hits.take() {
            self.votes = samme(&hits, classes);
        }
        self.boosted = total.boosted.take().or(self.boosted.take());
        let votes_to_count = self.boosted.is_none() && !self.votes.is_empty();
        let next = self.fit.next(&self.weights, total);
        match next.filter(|_| self.weights.len() <= STACK_INGREDIENTS_MAX) {
            Some(next) => (self.step, self.weights) = (self.step + 1, next),
            None if votes_to_count => self.step += 1,
            None => {
                let Some((weights, best)) = std::mem::take(&mut self.fit).best() else { return };
                self.weights = weights;
                let best = Alternatives { boosted: self.boosted.take(), ..best };
                self.done.insert(Dataset::VALIDATION, best);
            }
        }
    }
}

/// Groups of those that have one digest, of groups whose products are the same: beside a number that is large enough to be all that sums tell
/// of, so are those of any.
fn equal_among<D: Ord>(alike: Vec<Vec<usize>>, digest: impl Fn(usize) -> D) -> Vec<Vec<usize>> {
    let mut groups = Vec::new();
    for some in alike {
        let mut equal: BTreeMap<D, Vec<usize>> = BTreeMap::new();
        some.into_iter().for_each(|index| equal.entry(digest(index)).or_default().push(index));
        groups.extend(equal.into_values().filter(|group| group.len() > 1));
    }
    groups.sort();
    groups
}

/// Sums slices, in order.
fn total(slices: BTreeMap<u32, Alternatives>) -> Alternatives {
    let sum = |mut sum: Alternatives, slice: Alternatives| {
        sum.add(&slice);
        sum
    };
    slices.into_values().reduce(sum).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_products_do_not_tell_apart_digests_do() {
        let digests = ["a", "b", "a", "c", "b", "d", "e"];
        let alike = vec![vec![0, 1, 2, 4], vec![3, 5]];
        assert_eq!(equal_among(alike.clone(), |index| Some(digests[index])), [[0, 2], [1, 4]]);
        // Where digests are not known products decide.
        assert_eq!(equal_among(alike, |_| None::<u8>), [vec![0, 1, 2, 4], vec![3, 5]]);
    }
}
