//! Trials: in which order their samples are judged, and when their verdict is certain before all are.
//!
//! # Flow
//!
//! A goal that has a [`Bar`] is judged in the [sequence](crate::sequence) that follows from the outcomes of the bar's soup, and waits for
//! these where they are not at hand: after a restart they come from the state ([`Action::Recollect`]). Where there are none, samples are
//! judged in their own order. Whenever a slice is judged, the verdict is looked for on the slices from the first on that are: what is
//! judged beyond the first that make it certain is left out of it and forgotten, so that who was fast does not show.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::{Action, Dataset, Evaluation, Judged, Machine, Result, Slice, Work, WorkerId};
use crate::ledger::{Finding, Rejection};
use crate::metric::Metric;
use crate::recipe::Bar;
use crate::run::LOOKAHEAD_MAX;
use crate::sequence::{Sequence, SequenceId};
use crate::soup::Soup;
use crate::tally::{Outcome, Tally};

/// Sequences kept of soups that are no bar now: the next bar is mostly one of the best.
const SEQUENCES_KEPT: usize = 4;
/// Soups that a worker is taken to have at hand.
const ASSEMBLED_KEPT: usize = 3;
/// Part of the slices that a trial is taken to need that is rejected, as long as none was.
const REJECTED_PART: u32 = 5;
/// Trials that are looked ahead to have to be needed with this probability.
const NEEDED_AT_LEAST: f64 = 0.5;

/// What is known of trials.
#[derive(Debug, Default)]
pub(super) struct Trying {
    /// What goals have to reach, of those that have to reach something.
    bars: BTreeMap<Evaluation, Bar>,
    /// By the soup from whose outcomes they follow, on the set on which the recipe decides.
    sequences: BTreeMap<Soup, Known>,
    /// Names of the outcomes that scores add up, where those are kept.
    outcomes: BTreeMap<Evaluation, [u8; 32]>,
    /// Evaluations that came to have a score or a verdict, and may be with workers still.
    concluded: Vec<Evaluation>,
    /// The soups that each worker was asked about last, which it has at hand.
    assembled: BTreeMap<WorkerId, VecDeque<Soup>>,
    /// Soups that were rejected early, and the slices that it took, all together.
    rejected: u32,
    rejected_slices: u32,
}

/// A sequence, as far as it is known.
#[derive(Debug)]
enum Known {
    /// Somebody looks for the outcomes.
    Asked,
    Here(Arc<Sequence>),
    /// There are no outcomes.
    Nothing,
}

/// In which order the samples of a goal are judged.
#[derive(Debug)]
pub(super) enum Order {
    /// Not known yet.
    Unknown,
    /// Their own.
    Natural,
    In(Arc<Sequence>),
}

/// What the first slices of an evaluation add up to, none of which makes its verdict certain.
#[derive(Debug)]
pub(super) struct Prefix {
    bar: Soup,
    slices: u32,
    tally: Option<Tally>,
}

impl Trying {
    /// The names of outcomes that are kept already.
    pub(super) fn adopt(&mut self, outcomes: &BTreeMap<Evaluation, [u8; 32]>) {
        self.outcomes = outcomes.clone();
    }

    /// The outcomes of a score are kept under this name.
    pub(super) fn name(&mut self, evaluation: Evaluation, sha256: [u8; 32]) {
        self.outcomes.insert(evaluation, sha256);
    }

    /// What was known of an evaluation is not believed any more.
    pub(super) fn forget(&mut self, evaluation: &Evaluation) {
        self.outcomes.remove(evaluation);
        self.sequences.remove(&evaluation.soup);
    }

    /// Whether a worker has a soup at hand.
    pub(super) fn has_assembled(&self, worker: WorkerId, soup: &Soup) -> bool {
        self.assembled.get(&worker).is_some_and(|soups| soups.contains(soup))
    }

    /// A worker is asked about a soup.
    pub(super) fn assembles(&mut self, worker: WorkerId, soup: &Soup) {
        let soups = self.assembled.entry(worker).or_default();
        if !soups.contains(soup) {
            soups.push_back(soup.clone());
            if soups.len() > ASSEMBLED_KEPT {
                soups.pop_front();
            }
        }
    }

    /// A worker is gone.
    pub(super) fn lose(&mut self, worker: WorkerId) {
        self.assembled.remove(&worker);
    }

    /// Slices that a trial takes which is rejected, of so many, by those that were.
    fn needed(&self, slices: u32) -> u32 {
        match self.rejected {
            0 => slices.div_ceil(REJECTED_PART),
            // A quarter more than the mean: most are done by then.
            rejected => (self.rejected_slices + self.rejected_slices / 4).div_ceil(rejected),
        }
    }

    /// An evaluation has its score, or its verdict.
    pub(super) fn concluded(&mut self, evaluation: Evaluation) {
        self.concluded.push(evaluation);
    }

    /// In which order the samples of a goal are judged.
    pub(super) fn order(&self, goal: &Evaluation) -> Order {
        let Some(bar) = self.bars.get(goal) else { return Order::Natural };
        match self.sequences.get(&bar.soup) {
            Some(Known::Here(sequence)) => Order::In(sequence.clone()),
            Some(Known::Nothing) => Order::Natural,
            Some(Known::Asked) | None => Order::Unknown,
        }
    }

    /// The sequence of this name, while anybody needs it.
    fn sequence(&self, id: SequenceId) -> Option<&Arc<Sequence>> {
        self.sequences.values().find_map(|known| match known {
            Known::Here(sequence) if sequence.id() == id => Some(sequence),
            _ => None,
        })
    }
}

impl Order {
    /// The name of the sequence; `None` while it is not known.
    pub(super) fn id(&self) -> Option<SequenceId> {
        match self {
            Order::Unknown => None,
            Order::Natural => Some(SequenceId::NATURAL),
            Order::In(sequence) => Some(sequence.id()),
        }
    }
}

impl Machine {
    /// The name of the outcomes that a score adds up, where they are kept.
    pub fn outcomes_sha256(&self, evaluation: &Evaluation) -> Option<[u8; 32]> {
        self.trying.outcomes.get(evaluation).copied()
    }

    /// The samples of a slice by their positions in the dataset, where these are not consecutive.
    pub fn samples_in(&self, slice: &Slice) -> Option<&[u32]> {
        match slice.sequence.is_natural() {
            true => None,
            false => self.trying.sequence(slice.sequence).map(|sequence| sequence.samples(slice)),
        }
    }

    /// The slices in which a goal is judged, in order; none while the order of its samples is not known.
    pub(super) fn slices_for(&self, goal: &Evaluation) -> impl Iterator<Item = Slice> + '_ {
        let sequence = self.trying.order(goal).id();
        let slices = sequence.map_or(&[][..], |_| self.slices_of(goal.dataset));
        slices.iter().map(move |slice| Slice { sequence: sequence.unwrap_or_default(), ..*slice })
    }

    /// The slice of a goal with this index.
    pub(super) fn slice_for(&self, goal: &Evaluation, index: u32) -> Option<Slice> {
        self.slices_for(goal).nth(index as usize)
    }

    /// Up to which slice those of a goal are likely to be needed: of a trial, as many beyond those that are judged as trials take that are
    /// rejected. What is beyond is judged where nothing else is to be done.
    pub(super) fn needed_soon(&self, goal: &Evaluation) -> u32 {
        let (Some(_), Some(id)) = (self.trying.bars.get(goal), self.trying.order(goal).id()) else {
            return u32::MAX;
        };
        let slices = self.slices_of(goal.dataset).len() as u32;
        self.judging.first(goal, id).saturating_add(self.trying.needed(slices).max(1))
    }

    /// How many trials are looked ahead to: as many as are asked for. Else as many as keep all workers busy with slices that are likely to be
    /// needed, as long as it is likely that the trials are: the one that comes after `n` others is where all of these are rejected.
    pub(super) fn lookahead(&self) -> usize {
        if let Some(asked) = self.plan.lookahead {
            return asked as usize;
        }
        let slices = self.slices_of(self.ledger.deciding_set()).len() as u32;
        let needed = if self.ends_early() { self.trying.needed(slices) } else { slices };
        let judging = self.workers.values().filter(|worker| worker.judges && !worker.leaving);
        // One more for each than it computes at a time waits with it.
        let places = judging.map(|worker| u64::from(worker.slots) + 1).sum::<u64>();
        let busy = places / u64::from(needed.max(1));
        let (accepted, decided) = self.goals.accepted();
        // One more of either kind than there were, so that the first trials say little.
        let rejected = 1.0 - f64::from(accepted + 1) / f64::from(decided + 2);
        let likely = libm::floor(libm::log(NEEDED_AT_LEAST) / libm::log(rejected)) as u64;
        busy.min(likely).clamp(1, u64::from(LOOKAHEAD_MAX)) as usize
    }

    /// Takes what the goals have to reach, and asks for the outcomes of soups that have to be reached.
    pub(super) fn try_for(&mut self, bars: BTreeMap<Evaluation, Bar>, out: &mut Vec<Action>) {
        self.trying.bars = if self.ends_early() { bars } else { BTreeMap::new() };
        let of: Vec<Soup> = self.trying.bars.values().map(|bar| bar.soup.clone()).collect();
        for soup in of {
            if self.trying.sequences.contains_key(&soup) {
                continue;
            }
            let evaluation = Evaluation { dataset: self.ledger.deciding_set(), soup: soup.clone() };
            let known = match self.trying.outcomes.get(&evaluation) {
                Some(sha256) => {
                    out.push(Action::Recollect(evaluation, *sha256));
                    Known::Asked
                }
                None => Known::Nothing,
            };
            self.trying.sequences.insert(soup, known);
        }
        self.keep_few_sequences();
        self.drop_other_orders(out);
    }

    /// Keeps the sequences that are needed, and those of the best soups besides.
    fn keep_few_sequences(&mut self) {
        let ledger = &self.ledger;
        let bars = &self.trying.bars;
        let idle = |soup: &&Soup| bars.values().all(|bar| bar.soup != **soup);
        let idle = self.trying.sequences.keys().filter(idle).cloned();
        // What has no score yet is about to have one.
        let mut scored: Vec<(Soup, &Tally)> =
            idle.filter_map(|soup| ledger.deciding(&soup).map(|score| (soup.clone(), score))).collect();
        scored.sort_by(|(_, a), (_, b)| ledger.compare(b, a));
        let dropped: Vec<Soup> = scored.into_iter().skip(SEQUENCES_KEPT).map(|(soup, _)| soup).collect();
        for soup in dropped {
            self.trying.sequences.remove(&soup);
        }
    }

    /// What was judged of a goal in another order than the one that it has now is of no use.
    fn drop_other_orders(&mut self, out: &mut Vec<Action>) {
        let other = |goal: &Evaluation, id: SequenceId| {
            self.trying.order(goal).id().is_some_and(|sequence| sequence != id)
        };
        let judged = self.judging.open().filter(|(goal, id)| other(goal, *id));
        let stale: Vec<Evaluation> = judged.map(|(goal, _)| goal.clone()).collect();
        let given = |work: &&Work| matches!(work, Work::Evaluate(goal, slice) if other(goal, slice.sequence));
        let works: Vec<Work> = self.tasks.works().filter(given).cloned().collect();
        for goal in stale.iter().chain(works.iter().filter_map(|work| match work {
            Work::Evaluate(goal, _) => Some(goal),
            _ => None,
        })) {
            self.judging.forget(goal);
            self.recorder.retain(|e| e != goal);
            self.auditing.retain(|e| e != goal);
        }
        works.iter().for_each(|work| self.withdraw(work, out));
    }

    /// The outcomes of a soup were looked for.
    pub(super) fn recollected(&mut self, evaluation: Evaluation, outcomes: Option<Vec<Outcome>>) {
        let Some(Known::Asked) = self.trying.sequences.get(&evaluation.soup) else { return };
        let name = self.trying.outcomes.get(&evaluation).map(SequenceId::of);
        let fits = |judged: &Judged| self.check_judged(judged, self.samples_of(&evaluation)).is_ok();
        let known = match outcomes.map(Judged::Outcomes).filter(fits).zip(name) {
            Some((Judged::Outcomes(outcomes), name)) => Known::Here(self.sequence_after(&outcomes, name)),
            _ => Known::Nothing,
        };
        self.trying.sequences.insert(evaluation.soup, known);
        self.goals.ask_again();
    }

    fn sequence_after(&self, outcomes: &[Outcome], id: SequenceId) -> Arc<Sequence> {
        let by_loss = self.metric().is_some_and(|metric| metric.lower_is_better());
        Arc::new(Sequence::after(outcomes, id, by_loss))
    }

    /// A soup has all of its outcomes: trials that have to reach it may follow.
    pub(super) fn sequence_made(&mut self, evaluation: &Evaluation, outcomes: &[Outcome], sha256: &[u8; 32]) {
        if self.is_tried(evaluation.dataset) {
            let sequence = self.sequence_after(outcomes, SequenceId::of(sha256));
            self.trying.sequences.insert(evaluation.soup.clone(), Known::Here(sequence));
        }
    }

    /// Whether the verdict on a goal is certain by its first slices, before all are judged; records it.
    pub(super) fn reject_early(&mut self, evaluation: &Evaluation) -> Result<bool> {
        let slices = self.slices_of(evaluation.dataset).len() as u32;
        let (Some(bar), Some(id)) = (self.trying.bars.get(evaluation), self.trying.order(evaluation).id())
        else {
            return Ok(false);
        };
        let Some(partial) = self.judging.partial_in(evaluation, id) else { return Ok(false) };
        let before = partial.prefix.take().filter(|prefix| prefix.bar == bar.soup);
        let mut prefix = before.unwrap_or_else(|| Prefix { bar: bar.soup.clone(), slices: 0, tally: None });
        let metric = self.known.as_ref().and_then(|known| known.metric());
        let accept = self.plan.recipe.accept;
        let mut certain = false;
        while !certain && prefix.slices + 1 < slices {
            let Some(judged) = partial.judged.get(&prefix.slices) else { break };
            let tally = match prefix.tally.take() {
                None => judged.tally(),
                Some(mut sum) => {
                    sum.merge(&judged.tally())?;
                    sum
                }
            };
            certain = metric.is_some_and(|metric| metric.falls_short(accept, &tally, &bar.score));
            prefix = Prefix { slices: prefix.slices + 1, tally: Some(tally), ..prefix };
        }
        if !certain || !self.blends_are_known(evaluation) {
            // What is certain is found again when the blends are known.
            let again = if certain { None } else { Some(prefix) };
            if let Some(partial) = self.judging.partial_in(evaluation, id) {
                partial.prefix = again;
            }
            return Ok(false);
        }
        let Prefix { bar, slices, tally: Some(judged) } = prefix else { return Ok(false) };
        (self.trying.rejected, self.trying.rejected_slices) =
            (self.trying.rejected.saturating_add(1), self.trying.rejected_slices.saturating_add(slices));
        self.judging.forget(evaluation);
        let finding = Finding::Rejection(Rejection { bar, judged });
        self.recorder.found(evaluation.clone(), finding, None);
        self.trying.concluded(evaluation.clone());
        Ok(true)
    }

    /// Looks for verdicts and scores of all goals of which something is judged: what they have to reach, or the order of their samples,
    /// may not have been known when that was.
    pub(super) fn conclude_goals(&mut self) -> Result<()> {
        for goal in self.goals.wanted().to_vec() {
            if !self.recorder.has(&goal) {
                self.conclude(&goal)?;
            }
        }
        Ok(())
    }

    /// Takes slices back of evaluations that need none any more.
    pub(super) fn withdraw_concluded(&mut self, out: &mut Vec<Action>) {
        let concluded = std::mem::take(&mut self.trying.concluded);
        if concluded.is_empty() {
            return;
        }
        self.withdraw_where(|work| matches!(work, Work::Evaluate(goal, _) if concluded.contains(goal)), out);
        self.auditing.retain(|evaluation| !concluded.contains(evaluation));
    }

    /// The set on which a verdict can be certain early.
    pub(super) fn is_tried(&self, dataset: Dataset) -> bool {
        self.ends_early() && dataset == self.ledger.deciding_set()
    }

    /// Whether a verdict can be certain early: how numbers correlate that are predicted is known of all samples alone.
    fn ends_early(&self) -> bool {
        self.plan.early && !matches!(self.metric(), Some(Metric::Values(_)))
    }
}
