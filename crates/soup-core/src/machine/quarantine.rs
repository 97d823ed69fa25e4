//! Quarantine: who turned out not to be believed is left out of the run for good, and what it had a part in since the last audit that it
//! passed is taken back.
//!
//! # Words
//!
//! - *Deeds* are what a worker had a part in and nobody has audited: evaluations of which it judged slices, those that were made of blends
//!   which it served, and the first step of a learned soup that it had a part in. Audits that it passes clear it of the deeds before them: of
//!   what it judged, those of slices; of what it served, those of blends. So as much is kept as is done between two audits. Steps, products
//!   and surveys have none, and are done again in any case.
//! - A worker that comes back has another number, and its name: what was done under the name is its own, so that nobody gets rid of deeds
//!   by going, nor says the same thing twice.
//! - What an earlier coordinator recorded is nobody's: it is taken back with the first quarantine.
//!
//! # Flow
//!
//! Slices, scores and steps that it had a part in go. What is in the journal is *retracted* there first, and recipes, which replay the
//! ledger, ask for it again. Shards go to others, whose digests are compared with what is known. Products are made again, the survey
//! is, and the output is written again if it had been begun. What cannot be made again ends the run: a pool that was recorded wrongly.

use std::collections::{BTreeMap, BTreeSet};

use super::{Action, Error, Evaluation, Machine, Survey, Work, WorkerId};

/// What one worker had a part in.
#[derive(Debug, Default)]
struct DeedsOf {
    /// And when last.
    judged: BTreeMap<Evaluation, u64>,
    /// Since when it serves blends of which none was audited, if it does.
    serves_since: Option<u64>,
    step: Option<u32>,
}

/// Who had a part in what.
#[derive(Debug, Default)]
pub(super) struct Deeds {
    /// Counts what is done, so that it is known what came before what.
    clock: u64,
    of: BTreeMap<WorkerId, DeedsOf>,
    /// Evaluations of soups that have blends which nobody has audited, and when they were complete.
    made: BTreeMap<Evaluation, u64>,
    /// What an earlier coordinator recorded: evaluations, and whether there are steps.
    unknown: (BTreeSet<Evaluation>, bool),
    /// Who surveyed the datasets, and whether somebody else has to.
    surveyed_by: Option<WorkerId>,
    survey_doubted: bool,
    /// Whose inner products are known.
    measured_by: BTreeSet<WorkerId>,
    quarantined: BTreeSet<WorkerId>,
    /// The last number of everybody who took part.
    numbers: BTreeMap<String, WorkerId>,
}

impl Deeds {
    /// Who did something under one number has another one.
    fn renumber(&mut self, from: WorkerId, to: WorkerId) {
        if let Some(deeds) = self.of.remove(&from) {
            self.of.insert(to, deeds);
        }
        if self.measured_by.remove(&from) {
            self.measured_by.insert(to);
        }
        self.surveyed_by.iter_mut().filter(|by| **by == from).for_each(|by| *by = to);
    }

    /// The time, by what has been done.
    pub(super) fn now(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    /// A worker has judged a slice that nobody else has.
    pub(super) fn judged(&mut self, worker: WorkerId, evaluation: &Evaluation) {
        let now = self.now();
        self.of.entry(worker).or_default().judged.insert(evaluation.clone(), now);
    }

    /// Blends that nobody has audited are in an evaluation.
    pub(super) fn made(&mut self, evaluation: &Evaluation) {
        let now = self.now();
        self.made.insert(evaluation.clone(), now);
    }

    /// A worker has a shard, of which it serves blends from now on.
    pub(super) fn serves(&mut self, worker: WorkerId) {
        let now = self.now();
        self.of.entry(worker).or_default().serves_since.get_or_insert(now);
    }

    /// A worker had a part in a step.
    pub(super) fn stepped(&mut self, worker: WorkerId, step: u32) {
        self.of.entry(worker).or_default().step.get_or_insert(step);
    }

    /// A worker has surveyed the datasets.
    pub(super) fn surveyed(&mut self, worker: WorkerId) {
        self.surveyed_by = Some(worker);
    }

    /// A worker has multiplied ingredients.
    pub(super) fn measured(&mut self, worker: WorkerId) {
        self.measured_by.insert(worker);
    }

    /// What a worker said at that time of a slice is true.
    pub(super) fn judged_well(&mut self, worker: WorkerId, at: u64) {
        let Some(deeds) = self.of.get_mut(&worker) else { return };
        deeds.judged.retain(|_, when| *when > at);
    }

    /// What a worker served at that time was right.
    pub(super) fn served_well(&mut self, worker: WorkerId, at: u64) {
        let Some(deeds) = self.of.get_mut(&worker) else { return };
        deeds.serves_since = deeds.serves_since.max(Some(at));
    }

    /// What an earlier coordinator recorded, of whomever.
    pub(super) fn adopt(&mut self, evaluations: BTreeSet<Evaluation>, steps: bool) {
        self.unknown = (evaluations, steps);
    }

    /// Whether a worker is not believed.
    pub(super) fn is_quarantined(&self, worker: WorkerId) -> bool {
        self.quarantined.contains(&worker)
    }

    /// Whether the datasets have to be surveyed by somebody else.
    pub(super) fn doubts_survey(&self) -> bool {
        self.survey_doubted
    }

    /// What a worker that is not believed had a part in: evaluations, and the first step.
    fn take(&mut self, worker: WorkerId) -> (BTreeSet<Evaluation>, Option<u32>) {
        let DeedsOf { judged, serves_since, step } = self.of.remove(&worker).unwrap_or_default();
        let (mut evaluations, unknown_steps) = std::mem::take(&mut self.unknown);
        evaluations.extend(judged.into_keys());
        let served = self.made.iter().filter(|(_, at)| serves_since.is_some_and(|since| **at > since));
        evaluations.extend(served.map(|(evaluation, _)| evaluation.clone()));
        self.made.retain(|evaluation, _| !evaluations.contains(evaluation));
        (evaluations, if unknown_steps { Some(1) } else { step })
    }
}

impl Machine {
    /// Notes the name of a worker that joins. Where somebody was there under that name and is not any more, this is who that was.
    pub(super) fn is_called(&mut self, worker: WorkerId, name: String) {
        let Some(before) = self.deeds.numbers.insert(name, worker) else { return };
        if before == worker || self.workers.contains_key(&before) || self.deeds.is_quarantined(before) {
            return;
        }
        self.deeds.renumber(before, worker);
        self.auditing.renumber(before, worker);
        self.rereading.renumber(before, worker);
        self.placement.renumber(before, worker);
    }

    /// Leaves a worker that is not believed out of the run for good, and takes back what it had a part in; gives the evaluations of
    /// which nothing is known any more.
    pub(super) fn quarantine(
        &mut self,
        worker: WorkerId,
        why: &str,
        out: &mut Vec<Action>,
    ) -> BTreeSet<Evaluation> {
        if !self.progress.is_open() || !self.deeds.quarantined.insert(worker) {
            return BTreeSet::new();
        }
        let text = format!("worker {} is quarantined, and what it did is done again: {why}", worker.0);
        self.placement.left_out(&text);
        self.note(text.clone(), out);
        out.push(Action::Quarantine(worker));
        let its = self.tasks.running().into_iter().filter(|(with, _)| *with == worker);
        out.extend(its.map(|(worker, key)| Action::Cancel(worker, key)));
        let served = self.placement.by_owner().contains_key(&worker);
        let (mut evaluations, first_step) = self.deeds.take(worker);
        if served {
            // Blends of it are in what is being judged, and in what others claim of it.
            evaluations.extend(self.judging.open().map(|(evaluation, _)| evaluation.clone()));
            self.auditing.forget();
            self.forget_assembled(out);
        }
        self.lose(worker, out);
        self.auditing.disbelieve(worker);
        self.disbelieve_rereadings(worker);
        self.placement.forget_digests(|by| by == worker);
        evaluations.iter().for_each(|evaluation| self.judging.forget(evaluation));
        self.auditing.retain(|evaluation| !evaluations.contains(evaluation));
        self.recorder.take_back(text, evaluations.clone(), first_step);
        self.restart_step(out);
        if self.deeds.surveyed_by == Some(worker) {
            self.deeds.survey_doubted = true;
        }
        if self.deeds.measured_by.contains(&worker) {
            self.deeds.measured_by.clear();
            self.measure_again(out);
        }
        self.finish_again(out);
        evaluations
    }

    /// What workers have assembled, and are assembling, has blends that may be wrong.
    fn forget_assembled(&mut self, out: &mut Vec<Action>) {
        let assembled = |work: &&Work| {
            matches!(
                work,
                Work::Evaluate(..)
                    | Work::Write(..)
                    | Work::Digest(_)
                    | Work::Differentiate(_)
                    | Work::Compare(_)
            )
        };
        let works: Vec<Work> = self.tasks.works().filter(assembled).cloned().collect();
        for work in &works {
            let attempts = self.tasks.reopen(work).into_iter();
            out.extend(attempts.map(|(worker, key)| Action::Cancel(worker, key)));
        }
        self.statistics.forget();
        out.extend(self.workers.keys().map(|worker| Action::Forget(*worker)));
    }

    /// Goes back to where the recipe decides, from wherever that was left: it may decide otherwise, and what is written is written anew.
    fn finish_again(&mut self, out: &mut Vec<Action>) {
        let last = |work: &Work| {
            matches!(work, Work::Write(..) | Work::ReadBack(_) | Work::Digest(_) | Work::Compare(_))
        };
        self.withdraw_where(last, out);
        self.compare_again();
        self.write_again();
        self.progress.decide_again();
        self.goals.ask_again();
    }

    /// Another worker has surveyed the datasets, since who did is not believed.
    pub(super) fn surveyed_again(&mut self, worker: WorkerId, survey: &Survey, out: &mut Vec<Action>) {
        self.deeds.survey_doubted = false;
        self.deeds.surveyed(worker);
        if self.survey() != Some(survey) {
            let text = format!(
                "worker {} finds something else in the datasets than a worker that is quarantined, and all scores are of what that one \
                 found: cook with --fresh to begin again",
                worker.0
            );
            self.finish(Err(Error::data(text)), out);
        }
    }
}
