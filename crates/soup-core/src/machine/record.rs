//! What becomes durable before it takes effect, and what a new machine takes over from a log.
//!
//! One entry is on its way at a time. While it is, what completes waits: complete evaluations in their order, and the
//! slices of others together in one entry, so that a slow store makes entries larger and not more.

use std::collections::{BTreeSet, VecDeque};

use super::progress::Progress;
use super::{Action, Error, Evaluation, Fold, Judged, Machine, Millis, Report, Result, Slice, Tally};
use crate::journal::{
    Compared, Decided, Entry, Rejected, Retracted, Scored, ScoredSlice, ScoredSoup, Stepped, Surveyed,
    sha256_hex,
};
use crate::ledger::{Comparison, Finding, Gradients, Rejection};
use crate::tally::packed::Packed;

/// Slices in one entry.
const ENTRY_SLICES_MAX: usize = 256;
/// Samples in one entry, of which every one takes about fifteen bytes.
const ENTRY_SAMPLES_MAX: u64 = 1 << 18;

/// What is on its way to the journal, and what waits for its turn.
#[derive(Debug, Default)]
pub(super) struct Recorder {
    in_flight: Option<InFlight>,
    /// Evaluations that have their score or verdict, in the order they got it.
    found: VecDeque<Found>,
    /// Slices of evaluations that have neither.
    slices: Vec<(Evaluation, Slice)>,
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

/// What was found out of a soup.
#[derive(Debug)]
struct Found {
    evaluation: Evaluation,
    finding: Finding,
    /// The outcomes that it adds up, by their SHA-256, where those are kept.
    outcomes_sha256: Option<[u8; 32]>,
    /// Those that are yet to be kept.
    packed: Option<Packed>,
    /// Whether it is of an earlier run.
    recalled: bool,
}

impl Found {
    /// Whether this is about one of `evaluations`, or decided by the score of one.
    fn is_of(&self, evaluations: &BTreeSet<Evaluation>) -> bool {
        let other = self.finding.other().map(|soup| Evaluation { soup: soup.clone(), ..self.evaluation });
        evaluations.contains(&self.evaluation) || other.is_some_and(|other| evaluations.contains(&other))
    }
}

/// What takes effect when it is durable.
#[derive(Debug)]
enum InFlight {
    Surveyed(Surveyed),
    Slices,
    Found(Evaluation, Finding, Option<[u8; 32]>),
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

    /// An evaluation has its score, of these outcomes where they are known, or its verdict.
    pub(super) fn found(&mut self, evaluation: Evaluation, finding: Finding, packed: Option<Packed>) {
        self.slices.retain(|(e, _)| *e != evaluation);
        let outcomes_sha256 = packed.as_ref().map(|packed| packed.sha256);
        self.found.push_back(Found { evaluation, finding, outcomes_sha256, packed, recalled: false });
    }

    /// An evaluation has the score that an earlier run gave it.
    fn remembered(&mut self, evaluation: Evaluation, score: Tally, outcomes_sha256: Option<[u8; 32]>) {
        self.slices.retain(|(e, _)| *e != evaluation);
        let finding = Finding::Score(score);
        self.found.push_back(Found { evaluation, finding, outcomes_sha256, packed: None, recalled: true });
    }

    /// One more slice of an evaluation is judged.
    pub(super) fn slice(&mut self, evaluation: Evaluation, slice: Slice) {
        self.slices.push((evaluation, slice));
    }

    /// A step of a learned soup is complete.
    pub(super) fn step(&mut self, step: u32, gradients: Gradients) {
        self.stepped = Some((step, gradients));
    }

    /// Nothing of `evaluations` is to be known any more, nor of steps from `step` on.
    pub(super) fn take_back(&mut self, why: String, evaluations: BTreeSet<Evaluation>, step: Option<u32>) {
        self.found.retain(|found| !found.is_of(&evaluations));
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
        let in_flight = matches!(&self.in_flight, Some(InFlight::Found(e, ..)) if e == evaluation);
        in_flight
            || self.recalling.contains(evaluation)
            || self.found.iter().any(|found| found.evaluation == *evaluation)
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
            let scores = log.scores.iter().map(|(evaluation, _)| evaluation);
            let rejections = log.rejections.iter().map(|(evaluation, _)| evaluation);
            let known = scores.chain(rejections).chain(log.slices.keys());
            self.deeds.adopt(known.cloned().collect(), !log.steps.is_empty());
        }
        self.recorder.decisions = log.decisions;
        for (evaluation, score) in &log.scores {
            let samples = self.samples_of(evaluation);
            self.check_judged(&Judged::Tally(score.clone()), samples)
                .map_err(|e| misfit("it has a score that its judge cannot have given").with_source(e))?;
            self.ledger.record(evaluation.dataset, evaluation.soup.clone(), score.clone());
        }
        for (evaluation, rejection) in &log.rejections {
            let judged = &rejection.judged;
            self.check_judged(&Judged::Tally(judged.clone()), judged.samples())
                .map_err(|e| misfit("it rejects a soup as its judge cannot have judged it").with_source(e))?;
            self.ledger.find(evaluation.clone(), Finding::Rejection(rejection.clone()));
        }
        for (evaluation, comparison) in &log.comparisons {
            self.ledger.find(evaluation.clone(), Finding::Comparison(comparison.clone()));
        }
        self.trying.adopt(&log.outcomes);
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
        let mut packed = None;
        let next = self.retracted_entry().or_else(|| self.surveyed_entry());
        let next = next.or_else(|| self.found_entry(&mut packed));
        let next = next.or_else(|| self.stepped_entry());
        let next = next.or_else(|| self.slices_entry());
        if let Some((in_flight, entry)) = next.or_else(|| self.publishing_entry(out)) {
            self.recorder.in_flight = Some(in_flight);
            out.push(Action::Record(entry, packed));
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

    /// SHA-256 over the digest of each shard, of every ingredient, once all are loaded.
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

    fn found_entry(&mut self, keep: &mut Option<Packed>) -> Option<(InFlight, Entry)> {
        let Found { evaluation, finding, outcomes_sha256, packed, recalled } =
            self.recorder.found.pop_front()?;
        let recipe = &self.recipe;
        let replay = self.ledger.suppose(&evaluation, &finding, |ledger| recipe.replay(ledger, 0));
        let decisions = Decided::beyond(&replay, self.recorder.decisions as usize);
        self.recorder.decisions += decisions.len() as u32;
        let (dataset, soup) = (evaluation.dataset.0, (&evaluation.soup).into());
        let entry = match &finding {
            Finding::Score(score) => Entry::Scored(Scored {
                dataset,
                soup,
                score: score.clone(),
                outcomes_sha256: outcomes_sha256.map(hex::encode),
                recalled,
                decisions,
            }),
            Finding::Rejection(Rejection { bar, judged }) => Entry::Rejected(Rejected {
                dataset,
                soup,
                bar: bar.into(),
                judged: judged.clone(),
                decisions,
            }),
            Finding::Comparison(Comparison { reference, counts }) => Entry::Compared(Compared {
                dataset,
                soup,
                reference: reference.into(),
                counts: *counts,
                decisions,
            }),
        };
        *keep = packed;
        Some((InFlight::Found(evaluation, finding, outcomes_sha256), entry))
    }

    fn stepped_entry(&mut self) -> Option<(InFlight, Entry)> {
        let (step, gradients) = self.recorder.stepped.take()?;
        let entry = Entry::Stepped(Stepped { step, gradients: gradients.clone() });
        Some((InFlight::Stepped(gradients), entry))
    }

    fn slices_entry(&mut self) -> Option<(InFlight, Entry)> {
        let mut samples = 0;
        let within = |(_, slice): &&(Evaluation, Slice)| {
            samples += slice.end - slice.start;
            samples <= ENTRY_SAMPLES_MAX
        };
        let most = self.recorder.slices.len().min(ENTRY_SLICES_MAX);
        let count = self.recorder.slices.iter().take_while(within).count().clamp(most.min(1), most);
        let record = |(e, slice): (Evaluation, Slice)| {
            let judged = self.judging.said(&e, &slice)?;
            let judged = match judged {
                Judged::Outcomes(outcomes) if outcomes.len() as u64 > ENTRY_SAMPLES_MAX => {
                    Judged::Tally(judged.tally())
                }
                _ => judged.clone(),
            };
            let (dataset, soup, sequence) = (e.dataset.0, (&e.soup).into(), slice.sequence);
            Some(ScoredSlice { dataset, soup, slice: slice.index, sequence, judged })
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
            Some(InFlight::Found(evaluation, finding, outcomes_sha256)) => {
                self.ledger.find(evaluation.clone(), finding.clone());
                if let Some(sha256) = outcomes_sha256 {
                    self.trying.name(evaluation.clone(), sha256);
                }
                match finding {
                    Finding::Score(score) => out.push(Action::Report(Report::Scored(evaluation, score))),
                    Finding::Rejection(rejection) => {
                        out.push(Action::Report(Report::Rejected(evaluation, rejection.judged.samples())));
                    }
                    // The decision that it makes is told.
                    Finding::Comparison(_) => {}
                }
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
        for evaluation in evaluations {
            self.ledger.retract(evaluation.dataset, &evaluation.soup);
            self.trying.forget(evaluation);
            self.comparing.forget(evaluation);
        }
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
            if !self.doubt_loads(&text) {
                self.finish(Err(Error::data(text)), out);
            }
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

    pub(super) fn recalled(&mut self, evaluation: Evaluation, kept: Option<(Tally, Option<[u8; 32]>)>) {
        if !self.recorder.recalling.remove(&evaluation) {
            return;
        }
        let samples = self.samples_of(&evaluation);
        // What happened to every sample is asked for where soups are compared by it.
        let told = |outcomes: &Option<[u8; 32]>| outcomes.is_some() || !self.compares(evaluation.dataset);
        let fits = |s: &Tally| self.check_judged(&Judged::Tally(s.clone()), samples).is_ok();
        if let Some((score, outcomes_sha256)) = kept.filter(|(score, of)| fits(score) && told(of)) {
            self.judging.forget(&evaluation);
            self.recorder.remembered(evaluation, score, outcomes_sha256);
        }
    }

    /// What the survey found, once that is durable.
    pub fn surveyed(&self) -> Option<&Surveyed> {
        self.recorder.surveyed.as_ref()
    }
}
