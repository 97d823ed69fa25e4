//! What judges said so far of evaluations that have no score yet, slice by slice; and who has which samples at hand.

use std::collections::BTreeMap;

use super::progress::Progress;
use super::trying::{Order, Prefix};
use super::{Action, Dataset, Error, Evaluation, Judged, Machine, Result, Slice, Work, WorkerId};
use crate::journal::Slices;
use crate::ledger::Finding;
use crate::sequence::SequenceId;
use crate::tally::packed::{PACKED_MAX, Packed};
use crate::tally::{Outcome, Tally};

/// What was judged.
#[derive(Debug, Default)]
pub(super) struct Judging {
    /// What was said of the slices that are done, of evaluations that are not.
    partial: BTreeMap<Evaluation, Partial>,
    /// Which worker has judged which slice, and so has its samples decoded.
    homes: BTreeMap<(Dataset, SequenceId, u32), WorkerId>,
}

/// What was judged of one evaluation.
#[derive(Debug, Default)]
pub(super) struct Partial {
    /// The order in which its samples are.
    sequence: SequenceId,
    /// By slice.
    pub(super) judged: BTreeMap<u32, Judged>,
    /// How far a verdict was looked for in vain.
    pub(super) prefix: Option<Prefix>,
}

impl Judging {
    /// Who has the samples of a slice.
    pub(super) fn home(&self, dataset: Dataset, slice: &Slice) -> Option<WorkerId> {
        self.homes.get(&(dataset, slice.sequence, slice.index)).copied()
    }

    /// A worker is gone, with the samples that it had.
    pub(super) fn lose(&mut self, worker: WorkerId) {
        self.homes.retain(|_, home| *home != worker);
    }

    /// Whether a slice is judged, of an evaluation that has no score.
    pub(super) fn has(&self, evaluation: &Evaluation, slice: &Slice) -> bool {
        self.said(evaluation, slice).is_some()
    }

    /// What was said of a slice.
    pub(super) fn said(&self, evaluation: &Evaluation, slice: &Slice) -> Option<&Judged> {
        let partial = self.partial.get(evaluation).filter(|partial| partial.sequence == slice.sequence)?;
        partial.judged.get(&slice.index)
    }

    /// The first slice of an evaluation that is not judged in that order.
    pub(super) fn first(&self, evaluation: &Evaluation, order: SequenceId) -> u32 {
        let partial = self.partial.get(evaluation).filter(|partial| partial.sequence == order);
        let judged = partial.into_iter().flat_map(|partial| partial.judged.keys());
        judged.zip(0u32..).take_while(|(judged, nth)| *judged == nth).count() as u32
    }

    /// What was judged of an evaluation in that order.
    pub(super) fn partial_in(&mut self, evaluation: &Evaluation, order: SequenceId) -> Option<&mut Partial> {
        self.partial.get_mut(evaluation).filter(|partial| partial.sequence == order)
    }

    /// Evaluations of which some slices are judged, and in which order.
    pub(super) fn open(&self) -> impl Iterator<Item = (&Evaluation, SequenceId)> {
        self.partial.iter().map(|(evaluation, partial)| (evaluation, partial.sequence))
    }

    /// Keeps what was said of a slice. In another order than what was there before, that is of no use.
    fn keep(&mut self, evaluation: Evaluation, slice: &Slice, judged: Judged) {
        let partial = self.partial.entry(evaluation).or_default();
        if partial.sequence != slice.sequence {
            *partial = Partial { sequence: slice.sequence, ..Partial::default() };
        }
        partial.judged.insert(slice.index, judged);
    }

    /// Forgets evaluations that nobody wants.
    pub(super) fn retain(&mut self, wanted: impl Fn(&Evaluation) -> bool) {
        self.partial.retain(|evaluation, _| wanted(evaluation));
    }

    /// What was judged of an evaluation that has its score, by slice.
    fn take(&mut self, evaluation: &Evaluation) -> BTreeMap<u32, Judged> {
        self.partial.remove(evaluation).map(|partial| partial.judged).unwrap_or_default()
    }

    /// Forgets an evaluation that has its score.
    pub(super) fn forget(&mut self, evaluation: &Evaluation) {
        self.partial.remove(evaluation);
    }
}

impl Machine {
    /// A worker answered for a slice.
    pub(super) fn evaluated(
        &mut self,
        worker: WorkerId,
        evaluation: Evaluation,
        slice: Slice,
        judged: Judged,
        out: &mut Vec<Action>,
    ) -> Result<()> {
        self.judging.homes.insert((evaluation.dataset, slice.sequence, slice.index), worker);
        self.said(worker, evaluation, slice, judged, out)
    }

    /// A worker has said something of a slice: it counts, or is audited first.
    fn said(
        &mut self,
        worker: WorkerId,
        evaluation: Evaluation,
        slice: Slice,
        judged: Judged,
        out: &mut Vec<Action>,
    ) -> Result<()> {
        if self.slice_done(&evaluation, &slice) {
            return Ok(());
        }
        if self.plan.audit.takes_slice(&evaluation, slice.index) {
            return self.claimed(worker, evaluation, slice, judged, out);
        }
        if self.plan.audit.any() {
            self.deeds.judged(worker, &evaluation);
        }
        self.judged(evaluation, &slice, judged)
    }

    /// A slice is judged: when it was the last one, the evaluation has its score.
    pub(super) fn judged(&mut self, evaluation: Evaluation, slice: &Slice, judged: Judged) -> Result<()> {
        self.judging.keep(evaluation.clone(), slice, judged);
        if !self.conclude(&evaluation)? {
            self.recorder.slice(evaluation, *slice);
        }
        Ok(())
    }

    /// Rejects a soup whose verdict is certain, or gives it its score, if all slices are judged.
    pub(super) fn conclude(&mut self, evaluation: &Evaluation) -> Result<bool> {
        Ok(self.reject_early(evaluation)? || self.complete(evaluation)?)
    }

    /// Whether the blends of which a soup was made are settled; notes those that nobody has audited.
    pub(super) fn blends_are_known(&mut self, evaluation: &Evaluation) -> bool {
        if self.plan.audit.any() {
            if !self.blends_settled(&evaluation.soup) {
                return false;
            }
            if self.has_unaudited_blends(&evaluation.soup) {
                self.deeds.made(evaluation);
            }
        }
        true
    }

    /// Adds up the slices of an evaluation, if all of them are judged, and of blends that are settled.
    fn complete(&mut self, evaluation: &Evaluation) -> Result<bool> {
        let count = self.slices_of(evaluation.dataset).len();
        let order = self.trying.order(evaluation);
        let whole = order.id().and_then(|id| self.judging.partial_in(evaluation, id));
        let whole = whole.is_some_and(|partial| partial.judged.len() >= count);
        if !whole || !self.blends_are_known(evaluation) {
            return Ok(false);
        }
        let judged = self.judging.take(evaluation);
        let outcomes = all_outcomes(judged.values(), &order);
        let score = match &outcomes {
            Some(outcomes) => self.score_of(evaluation.dataset, outcomes)?,
            None if matches!(order, Order::In(_)) => {
                return Err(Error::internal("samples were judged in another order and not one by one"));
            }
            None => total(judged.values().map(Judged::tally))?,
        };
        self.check_fixed(evaluation.dataset, &score)?;
        let kept = outcomes.filter(|outcomes| outcomes.len() as u64 <= PACKED_MAX).map(|outcomes| {
            let packed = Packed::of(&outcomes);
            self.sequence_made(evaluation, &outcomes, &packed.sha256);
            packed
        });
        self.recorder.found(evaluation.clone(), Finding::Score(score), kept);
        self.trying.concluded(evaluation.clone());
        Ok(true)
    }

    /// What the outcomes of a dataset add up to. In slice order, so that the sum of the losses has the same bits on any cluster, in
    /// whichever order the samples were judged.
    fn score_of(&self, dataset: Dataset, outcomes: &[Outcome]) -> Result<Tally> {
        let of = |slice: &Slice| outcomes.get(slice.start as usize..slice.end as usize).unwrap_or_default();
        total(self.slices_of(dataset).iter().map(|slice| Tally::Classes(of(slice).iter().collect())))
    }

    /// Takes over the slices that a log knows.
    ///
    /// # Errors
    /// Where there is no such slice, or the run's judge cannot have said so.
    pub(super) fn adopt_slices(&mut self, evaluation: &Evaluation, slices: &Slices) -> Result<()> {
        for (&index, judged) in &slices.judged {
            let slice = self.slices_of(evaluation.dataset).get(index as usize).copied();
            let slice = slice.ok_or_else(|| Error::data(format!("there is no slice {index}")))?;
            let slice = Slice { sequence: slices.sequence, ..slice };
            self.check_slice(judged, &slice)?;
            self.judging.keep(evaluation.clone(), &slice, judged.clone());
        }
        Ok(())
    }

    /// Whether a slice of a goal is done already.
    pub(super) fn slice_done(&self, evaluation: &Evaluation, slice: &Slice) -> bool {
        self.recorder.has(evaluation) || self.judging.has(evaluation, slice)
    }

    /// A slice that a worker finished for an earlier coordinator: kept if it is still open.
    pub(super) fn handed_in(
        &mut self,
        worker: WorkerId,
        evaluation: Evaluation,
        slice: Slice,
        judged: Judged,
        out: &mut Vec<Action>,
    ) {
        let known =
            self.slices_of(evaluation.dataset).iter().find(|s| (s.start, s.end) == (slice.start, slice.end));
        let Some(slice) = known.map(|known| Slice { sequence: slice.sequence, ..*known }) else { return };
        // Before the survey is durable nobody was given a slice, and after the tests nobody wants one. Which statistics its soup had
        // is not said.
        let wanted = matches!(self.progress, Progress::Cooking | Progress::Testing(_));
        let ours = evaluation.soup.members().iter().all(|i| i.0 < self.plan.ingredients);
        if !self.recorder.surveyed()
            || !wanted
            || !ours
            || self.recomputes()
            || self.deeds.is_quarantined(worker)
        {
            return;
        }
        let fits = self.check_slice(&judged, &slice).is_ok();
        let scored = self.ledger.score(evaluation.dataset, &evaluation.soup).is_some();
        // Samples in an order that nobody knows are those of the goal's, if it turns out to have that one.
        let order = self.trying.order(&evaluation).id();
        let sequenced = slice.sequence.is_natural() || self.is_tried(evaluation.dataset);
        let ordered =
            sequenced && order.is_none_or(|id| id == slice.sequence || !self.goals.wants(&evaluation));
        if !fits || scored || !ordered || self.slice_done(&evaluation, &slice) {
            return;
        }
        self.withdraw(&Work::Evaluate(evaluation.clone(), slice), out);
        if let Err(error) = self.said(worker, evaluation, slice, judged, out) {
            self.finish(Err(error), out);
        }
    }

    /// What is known of slices, for comparison with a fold.
    pub fn partial(&self) -> BTreeMap<Evaluation, Slices> {
        let slices =
            |partial: &Partial| Slices { sequence: partial.sequence, judged: partial.judged.clone() };
        self.judging
            .partial
            .iter()
            .map(|(evaluation, partial)| (evaluation.clone(), slices(partial)))
            .collect()
    }
}

/// What tallies add up to, in their order.
fn total(mut tallies: impl Iterator<Item = Tally>) -> Result<Tally> {
    let mut score = tallies.next().ok_or_else(|| Error::internal("a dataset has no slices"))?;
    tallies.try_for_each(|tally| score.merge(&tally))?;
    Ok(score)
}

/// The outcomes of all samples in their own order, where they are known one by one.
fn all_outcomes<'a>(judged: impl Iterator<Item = &'a Judged>, order: &Order) -> Option<Vec<Outcome>> {
    let of = |judged: &'a Judged| match judged {
        Judged::Outcomes(outcomes) => Some(outcomes),
        Judged::Tally(_) => None,
    };
    let slices: Vec<&Vec<Outcome>> = judged.map(of).collect::<Option<_>>()?;
    let all: Vec<Outcome> = slices.into_iter().flatten().copied().collect();
    match order {
        Order::In(sequence) => sequence.restore(&all),
        Order::Natural | Order::Unknown => Some(all),
    }
}
