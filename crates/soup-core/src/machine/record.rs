//! What becomes durable before it takes effect, and what a new machine takes over from a log.
//!
//! One entry is on its way at a time. While it is, what completes waits: complete evaluations in their order, and the
//! slices of others together in one entry, so that a slow store makes entries larger and not more.

use std::collections::{BTreeSet, VecDeque};

use super::progress::Progress;
use super::{Action, Error, Evaluation, Fold, Judged, Machine, Millis, Report, Result, Tally};
use crate::journal::{
    Decided, Entry, Retracted, Scored, ScoredSlice, ScoredSoup, Stepped, Surveyed, sha256_hex,
};
use crate::ledger::Gradients;

/// Slices in one entry.
const ENTRY_SLICES_MAX: usize = 256;

/// What is on its way to the journal, and what waits for its turn.
#[derive(Debug, Default)]
pub(super) struct Recorder {
    in_flight: Option<InFlight>,
    /// Evaluations that have their score, in the order they got it.
    complete: VecDeque<(Evaluation, Tally, bool)>,
    /// Slices of evaluations that are not complete.
    slices: Vec<(Evaluation, u32)>,
    /// The step of a learned soup that is complete.
    stepped: Option<(u32, Gradients)>,
    /// What the survey found, once durable.
    surveyed: Option<Surveyed>,
    /// What is to be taken back.
    retracting: Option<Retracting>,
    /// Decisions in entries so far.
    decisions: u32,
    /// Goals that earlier runs are being asked for, and all that they were asked for.
    recalling: BTreeSet<Evaluation>,
    asked: BTreeSet<Evaluation>,
}

/// What takes effect when it is durable.
#[derive(Debug)]
enum InFlight {
    Surveyed(Surveyed),
    Slices,
    Scored(Evaluation, Tally),
    Stepped(Gradients),
    Retracted(Retracted, BTreeSet<Evaluation>),
    Publishing,
}

/// What is taken back once nothing else is on its way.
#[derive(Debug, Default)]
struct Retracting {
    why: Vec<String>,
    evaluations: BTreeSet<Evaluation>,
    /// The first step of a learned soup that goes.
    step: Option<u32>,
}

impl Recorder {
    /// Whether what the survey found is durable: only then are soups scored.
    pub(super) fn surveyed(&self) -> bool {
        self.surveyed.is_some()
    }

    /// An evaluation has its score.
    pub(super) fn complete(&mut self, evaluation: Evaluation, score: Tally, recalled: bool) {
        self.slices.retain(|(e, _)| *e != evaluation);
        self.complete.push_back((evaluation, score, recalled));
    }

    /// An evaluation has the score of one more slice.
    pub(super) fn slice(&mut self, evaluation: Evaluation, slice: u32) {
        self.slices.push((evaluation, slice));
    }

    /// A step of a learned soup is complete.
    pub(super) fn step(&mut self, step: u32, gradients: Gradients) {
        self.stepped = Some((step, gradients));
    }

    /// Nothing of `evaluations` is to be known any more, nor of steps from `step` on.
    pub(super) fn take_back(&mut self, why: String, evaluations: BTreeSet<Evaluation>, step: Option<u32>) {
        self.complete.retain(|(evaluation, ..)| !evaluations.contains(evaluation));
        self.slices.retain(|(evaluation, _)| !evaluations.contains(evaluation));
        self.stepped.take_if(|(stepped, _)| step.is_some_and(|first| *stepped >= first));
        // Earlier runs may have left the same.
        self.asked.extend(evaluations.iter().cloned());
        let retracting = self.retracting.get_or_insert_default();
        retracting.why.push(why);
        retracting.evaluations.extend(evaluations);
        retracting.step = retracting.step.into_iter().chain(step).min();
    }

    /// Whether something is known still that is to be taken back.
    pub(super) fn is_retracting(&self) -> bool {
        self.retracting.is_some() || matches!(self.in_flight, Some(InFlight::Retracted(..)))
    }

    /// Whether the score of an evaluation is here, or is being looked for.
    pub(super) fn has(&self, evaluation: &Evaluation) -> bool {
        let in_flight = matches!(&self.in_flight, Some(InFlight::Scored(e, _)) if e == evaluation);
        in_flight
            || self.recalling.contains(evaluation)
            || self.complete.iter().any(|(e, ..)| e == evaluation)
    }

    /// Drops the slices of evaluations that nobody wants. Complete ones stay: another run may want them.
    pub(super) fn retain(&mut self, wanted: impl Fn(&Evaluation) -> bool) {
        self.slices.retain(|(e, _)| wanted(e));
    }
}

impl Machine {
    /// Takes over what a log knows.
    pub(super) fn adopt(&mut self, now: Millis, log: &Fold) -> Result<()> {
        let misfit = |what: &str| Error::data(format!("the log of this run does not fit it: {what}"));
        if let Some(found) = &log.surveyed {
            if found.ingredients_sha256.len() != self.plan.ingredients as usize {
                return Err(misfit("it has another number of ingredients"));
            }
            if self.plan.datasets as usize != found.survey.samples.len() {
                return Err(misfit("it has another number of datasets"));
            }
            if self.plan.datasets > 0 {
                self.know(found.survey.clone()).map_err(|e| misfit("its survey").with_source(e))?;
            }
            self.recorder.surveyed = Some(found.clone());
            self.take_survey();
        }
        if self.plan.audit.any() {
            let known = log.scores.iter().map(|(evaluation, _)| evaluation).chain(log.slices.keys());
            self.deeds.adopt(known.cloned().collect(), !log.steps.is_empty());
        }
        self.recorder.decisions = log.decisions;
        for (evaluation, score) in &log.scores {
            let samples = self.samples_of(evaluation);
            self.check_judged(&Judged::Tally(score.clone()), samples)
                .map_err(|e| misfit("it has a score that its judge cannot have given").with_source(e))?;
            self.ledger.record(evaluation.dataset, evaluation.soup.clone(), score.clone());
        }
        let groups = self.plan.groups.names.len();
        if log.steps.iter().any(|s| s.dots.len() != groups) {
            return Err(misfit("it has a step of other groups"));
        }
        log.steps.iter().for_each(|step| self.ledger.record_step(step.clone()));
        for (evaluation, slices) in &log.slices {
            self.adopt_slices(evaluation, slices).map_err(|e| misfit("it has slices").with_source(e))?;
        }
        if log.epoch > 1 {
            self.gathering.settle(now.saturating_add(self.plan.limits.settle_ms));
            self.placement.adopt(log.surveyed.is_some());
        }
        Ok(())
    }

    /// Sends the next entry on its way, if none is.
    pub(super) fn record_next(&mut self, out: &mut Vec<Action>) {
        if self.recorder.in_flight.is_some() || !self.progress.is_open() {
            return;
        }
        let next = self.retracted_entry().or_else(|| self.surveyed_entry()).or_else(|| self.scored_entry());
        let next = next.or_else(|| self.stepped_entry());
        let next = next.or_else(|| self.slices_entry());
        if let Some((in_flight, entry)) = next.or_else(|| self.publishing_entry(out)) {
            self.recorder.in_flight = Some(in_flight);
            out.push(Action::Record(entry));
        }
    }

    fn surveyed_entry(&mut self) -> Option<(InFlight, Entry)> {
        if self.recorder.surveyed() || !self.loads_settled() {
            return None;
        }
        let survey = self.survey()?.clone();
        let found = Surveyed { survey, ingredients_sha256: self.ingredients_sha256()? };
        Some((InFlight::Surveyed(found.clone()), Entry::Surveyed(found)))
    }

    /// SHA-256 over the SHA-256 of each shard, of every ingredient, once all are loaded.
    fn ingredients_sha256(&self) -> Option<Vec<String>> {
        let one = |i: u32| Some(sha256_hex(&self.ingredient_digests(i as usize)?.concat()));
        (0..self.plan.ingredients).map(one).collect()
    }

    fn retracted_entry(&mut self) -> Option<(InFlight, Entry)> {
        let Retracting { why, evaluations, step } = self.recorder.retracting.take()?;
        let mut left = self.ledger.clone();
        evaluations.iter().for_each(|evaluation| left.retract(evaluation.dataset, &evaluation.soup));
        let steps = left.steps().len() as u32;
        let steps = step.map_or(steps, |first| steps.min(first.saturating_sub(1)));
        left.retract_steps(steps as usize);
        let decisions = self.recipe.replay(&left, 0).decisions.len() as u32;
        let scores = evaluations
            .iter()
            .map(|evaluation| ScoredSoup { dataset: evaluation.dataset.0, soup: (&evaluation.soup).into() });
        let retracted = Retracted {
            why: why.join("; "),
            scores: scores.collect(),
            steps,
            decisions: decisions.min(self.recorder.decisions),
        };
        Some((InFlight::Retracted(retracted.clone(), evaluations), Entry::Retracted(retracted)))
    }

    fn scored_entry(&mut self) -> Option<(InFlight, Entry)> {
        let (evaluation, score, recalled) = self.recorder.complete.pop_front()?;
        let known = self.recorder.decisions;
        let recipe = &self.recipe;
        let replay =
            self.ledger.suppose(evaluation.dataset, &evaluation.soup, &score, |l| recipe.replay(l, 0));
        let decided = replay.decisions.iter().enumerate().skip(known as usize).map(|(index, d)| Decided {
            trial: index as u32 + 1,
            candidate: d.candidate.0,
            pass: d.pass,
            verdict: d.verdict,
        });
        let decisions: Vec<Decided> = decided.collect();
        self.recorder.decisions += decisions.len() as u32;
        let entry = Entry::Scored(Scored {
            dataset: evaluation.dataset.0,
            soup: (&evaluation.soup).into(),
            score: score.clone(),
            recalled,
            decisions,
        });
        Some((InFlight::Scored(evaluation, score), entry))
    }

    fn stepped_entry(&mut self) -> Option<(InFlight, Entry)> {
        let (step, gradients) = self.recorder.stepped.take()?;
        let entry = Entry::Stepped(Stepped { step, gradients: gradients.clone() });
        Some((InFlight::Stepped(gradients), entry))
    }

    fn slices_entry(&mut self) -> Option<(InFlight, Entry)> {
        let count = self.recorder.slices.len().min(ENTRY_SLICES_MAX);
        let record = |(e, slice): (Evaluation, u32)| {
            let score = self.judging.tally(&e, slice)?;
            Some(ScoredSlice { dataset: e.dataset.0, soup: (&e.soup).into(), slice, score })
        };
        let records: Vec<ScoredSlice> = self.recorder.slices.drain(..count).filter_map(record).collect();
        (!records.is_empty()).then_some((InFlight::Slices, Entry::Slices(records)))
    }

    fn publishing_entry(&mut self, out: &mut Vec<Action>) -> Option<(InFlight, Entry)> {
        if !self.finished_writing() {
            return None;
        }
        let sha256 = self.data_sha256().map_or_else(String::new, hex::encode);
        self.tell_of_audits(out);
        Some((InFlight::Publishing, Entry::Publishing { sha256 }))
    }

    /// The entry on its way is durable: it takes effect.
    pub(super) fn recorded(&mut self, out: &mut Vec<Action>) {
        match self.recorder.in_flight.take() {
            Some(InFlight::Surveyed(found)) => {
                self.take_survey();
                self.recorder.surveyed = Some(found);
                self.goals.ask_again();
            }
            Some(InFlight::Scored(evaluation, score)) => {
                self.ledger.record(evaluation.dataset, evaluation.soup.clone(), score.clone());
                out.push(Action::Report(Report::Scored(evaluation, score)));
                self.goals.ask_again();
            }
            Some(InFlight::Retracted(retracted, evaluations)) => {
                self.retracted(&retracted, &evaluations, out)
            }
            Some(InFlight::Stepped(gradients)) => {
                let loss = gradients.loss;
                self.ledger.record_step(gradients);
                if let Some(learned) = self.recipe.learned(&self.ledger) {
                    let (step, steps) = (learned.steps.len() as u32, learned.steps_total);
                    out.push(Action::Report(Report::Stepped { step, steps, loss, beta: learned.beta }));
                }
                self.goals.ask_again();
            }
            Some(InFlight::Publishing) => {
                self.progress.go_on(Progress::Publishing);
                out.push(Action::Publish);
            }
            Some(InFlight::Slices) | None => {}
        }
    }

    /// What is taken back is not known any more.
    fn retracted(&mut self, of: &Retracted, evaluations: &BTreeSet<Evaluation>, out: &mut Vec<Action>) {
        let known = (self.ledger.count(), self.ledger.steps().len(), self.recorder.decisions);
        evaluations.iter().for_each(|e| self.ledger.retract(e.dataset, &e.soup));
        self.ledger.retract_steps(of.steps as usize);
        self.recorder.decisions = of.decisions;
        self.goals.undecide(of.decisions as usize);
        if known != (self.ledger.count(), self.ledger.steps().len(), of.decisions) {
            let scores = (known.0 - self.ledger.count()) as u32;
            out.push(Action::Report(Report::Retracted { scores, trials: of.decisions, steps: of.steps }));
        }
    }

    /// All shards are resident, or were passed over: after a restart, they must be those that the log knows. What is audited is not
    /// held against the log before that is settled: who says something else may be lying.
    pub(super) fn check_digests(&mut self, out: &mut Vec<Action>) {
        if !self.loads_settled() {
            return;
        }
        let (Some(known), Some(found)) = (&self.recorder.surveyed, self.ingredients_sha256()) else { return };
        if let Some(changed) = known.ingredients_sha256.iter().zip(&found).position(|(a, b)| a != b) {
            let text = format!(
                "ingredient {changed} changed since this run began: restore it, or cook with --fresh to begin again"
            );
            self.finish(Err(Error::data(text)), out);
        }
    }

    /// Asks for the scores of goals that earlier runs may have left.
    pub(super) fn recall_goals(&mut self, out: &mut Vec<Action>) {
        if !self.plan.recall {
            return;
        }
        for goal in self.goals.wanted() {
            if !self.recorder.has(goal) && self.recorder.asked.insert(goal.clone()) {
                self.recorder.recalling.insert(goal.clone());
                out.push(Action::Recall(goal.clone()));
            }
        }
    }

    pub(super) fn recalled(&mut self, evaluation: Evaluation, score: Option<Tally>) {
        if !self.recorder.recalling.remove(&evaluation) {
            return;
        }
        let samples = self.samples_of(&evaluation);
        let fits = |s: &Tally| self.check_judged(&Judged::Tally(s.clone()), samples).is_ok();
        if let Some(score) = score.filter(fits) {
            self.judging.forget(&evaluation);
            self.recorder.complete(evaluation, score, true);
        }
    }

    /// What the survey found, once that is durable.
    pub fn surveyed(&self) -> Option<&Surveyed> {
        self.recorder.surveyed.as_ref()
    }
}
