//! What judges said so far of evaluations that have no score yet, slice by slice; and who has which samples at hand.

use std::collections::BTreeMap;

use super::progress::Progress;
use super::{Action, Dataset, Error, Evaluation, Judged, Machine, Result, Slice, Work, WorkerId};
use crate::tally::Tally;

/// What was judged.
#[derive(Debug, Default)]
pub(super) struct Judging {
    /// What was said of the slices that are done, of evaluations that are not.
    partial: BTreeMap<Evaluation, BTreeMap<u32, Judged>>,
    /// Which worker has judged which slice, and so has its samples decoded.
    homes: BTreeMap<(Dataset, u32), WorkerId>,
}

impl Judging {
    /// Who has the samples of a slice.
    pub(super) fn home(&self, dataset: Dataset, slice: u32) -> Option<WorkerId> {
        self.homes.get(&(dataset, slice)).copied()
    }

    /// A worker is gone, with the samples that it had.
    pub(super) fn lose(&mut self, worker: WorkerId) {
        self.homes.retain(|_, home| *home != worker);
    }

    /// Whether a slice is judged, of an evaluation that has no score.
    pub(super) fn has(&self, evaluation: &Evaluation, slice: u32) -> bool {
        self.partial.get(evaluation).is_some_and(|judged| judged.contains_key(&slice))
    }

    /// What a slice adds up to.
    pub(super) fn tally(&self, evaluation: &Evaluation, slice: u32) -> Option<Tally> {
        self.partial.get(evaluation)?.get(&slice).map(Judged::tally)
    }

    /// Evaluations of which some slices are judged.
    pub(super) fn open(&self) -> impl Iterator<Item = &Evaluation> {
        self.partial.keys()
    }

    /// Forgets evaluations that nobody wants.
    pub(super) fn retain(&mut self, wanted: impl Fn(&Evaluation) -> bool) {
        self.partial.retain(|evaluation, _| wanted(evaluation));
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
        self.judging.homes.insert((evaluation.dataset, slice.index), worker);
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
        if self.slice_done(&evaluation, slice.index) {
            return Ok(());
        }
        if self.plan.audit.takes_slice(&evaluation, slice.index) {
            return self.claimed(worker, evaluation, slice, judged, out);
        }
        if self.plan.audit.any() {
            self.deeds.judged(worker, &evaluation);
        }
        self.judged(evaluation, slice.index, judged)
    }

    /// A slice is judged: when it was the last one, the evaluation has its score.
    pub(super) fn judged(&mut self, evaluation: Evaluation, slice: u32, judged: Judged) -> Result<()> {
        self.judging.partial.entry(evaluation.clone()).or_default().insert(slice, judged);
        if !self.complete(&evaluation)? {
            self.recorder.slice(evaluation, slice);
        }
        Ok(())
    }

    /// Adds up the slices of an evaluation, if all of them are judged, and of blends that are settled.
    pub(super) fn complete(&mut self, evaluation: &Evaluation) -> Result<bool> {
        let slices = self.slices_of(evaluation.dataset).len();
        let Some(judged) = self.judging.partial.get(evaluation).filter(|j| j.len() >= slices) else {
            return Ok(false);
        };
        if self.plan.audit.any() {
            if !self.blends_settled(&evaluation.soup) {
                return Ok(false);
            }
            if self.has_unaudited_blends(&evaluation.soup) {
                self.deeds.made(evaluation);
            }
        }
        // In slice order, so that the sum of the losses has the same bits on any cluster.
        let mut tallies = judged.values().map(Judged::tally);
        let mut score = tallies.next().ok_or_else(|| Error::internal("a dataset has no slices"))?;
        tallies.try_for_each(|tally| score.merge(&tally))?;
        self.judging.forget(evaluation);
        self.recorder.complete(evaluation.clone(), score, false);
        Ok(true)
    }

    /// Takes over the slices that a log knows.
    ///
    /// # Errors
    /// Where there is no such slice, or the run's judge cannot have said so.
    pub(super) fn adopt_slices(
        &mut self,
        evaluation: &Evaluation,
        slices: &BTreeMap<u32, Tally>,
    ) -> Result<()> {
        for (&index, tally) in slices {
            let judged = Judged::Tally(tally.clone());
            let slice = self.slices_of(evaluation.dataset).get(index as usize).copied();
            let slice = slice.ok_or_else(|| Error::data(format!("there is no slice {index}")))?;
            self.check_judged(&judged, slice.end - slice.start)?;
            self.judging.partial.entry(evaluation.clone()).or_default().insert(index, judged);
        }
        // The coordinator may have died between an evaluation's last slice and its score.
        self.complete(evaluation).map(drop)
    }

    /// Whether a slice of a goal is done already.
    pub(super) fn slice_done(&self, evaluation: &Evaluation, slice: u32) -> bool {
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
        let Some(slice) = known.copied() else { return };
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
        let fits = self.check_judged(&judged, slice.end - slice.start).is_ok();
        let scored = self.ledger.score(evaluation.dataset, &evaluation.soup).is_some();
        if !fits || scored || self.slice_done(&evaluation, slice.index) {
            return;
        }
        self.withdraw(&Work::Evaluate(evaluation.clone(), slice), out);
        if let Err(error) = self.said(worker, evaluation, slice, judged, out) {
            self.finish(Err(error), out);
        }
    }

    /// What is known of slices, for comparison with a fold.
    pub fn partial(&self) -> BTreeMap<Evaluation, BTreeMap<u32, Tally>> {
        let tallies = |judged: &BTreeMap<u32, Judged>| judged.iter().map(|(&s, j)| (s, j.tally())).collect();
        self.judging
            .partial
            .iter()
            .map(|(evaluation, judged)| (evaluation.clone(), tallies(judged)))
            .collect()
    }
}
