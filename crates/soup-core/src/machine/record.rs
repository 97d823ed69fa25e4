//! What becomes durable before it takes effect, and what a new machine takes over from a log.
//!
//! One entry is on its way at a time. While it is, what completes waits: complete evaluations in their order, and the
//! slices of others together in one entry, so that a slow store makes entries larger and not more.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::{
    Action, Demands, Error, Evaluation, Fold, Judged, Known, Machine, Millis, Report, Result, Slice, Survey,
    Tally, Work, slices,
};
use crate::journal::{Decided, Entry, Scored, ScoredSlice, Stepped, Surveyed, sha256_hex};
use crate::ledger::Gradients;

/// Slices in one entry.
const SLICES_MAX: usize = 256;

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
    Publishing,
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
        self.recorder.decisions = log.decisions;
        for (evaluation, score) in &log.scores {
            if !self.is_of(&Judged::Tally(score.clone()), self.samples_of(evaluation)) {
                return Err(misfit("it has a score that its judge cannot have given"));
            }
            self.ledger.record(evaluation.dataset, evaluation.soup.clone(), score.clone());
        }
        let groups = self.plan.groups.names.len();
        if log.steps.iter().any(|s| s.dots.len() != groups) {
            return Err(misfit("it has a step of other groups"));
        }
        log.steps.iter().for_each(|step| self.ledger.record_step(step.clone()));
        for (evaluation, slices) in &log.slices {
            let mut known = BTreeMap::new();
            for (&index, tally) in slices {
                let judged = Judged::Tally(tally.clone());
                let slice = self.slices_of(evaluation.dataset).get(index as usize);
                if !slice.is_some_and(|slice| self.is_of(&judged, slice.end - slice.start)) {
                    return Err(misfit("it has a slice that there is not"));
                }
                known.insert(index, judged);
            }
            self.partial.insert(evaluation.clone(), known);
        }
        // The coordinator may have died between an evaluation's last slice and its score.
        let begun: Vec<Evaluation> = self.partial.keys().cloned().collect();
        begun.iter().try_for_each(|evaluation| self.complete(evaluation).map(drop))?;
        if log.epoch > 1 {
            self.settled_at = now.saturating_add(self.plan.limits.settle_ms);
            self.had_room = log.surveyed.is_some();
        }
        Ok(())
    }

    /// Takes what the judge told.
    ///
    /// # Errors
    /// Where it is not enough for the run.
    pub(super) fn know(&mut self, survey: Survey) -> Result<()> {
        let judge = self.plan.judge.clone().ok_or_else(|| Error::internal("nobody judges, and was asked"))?;
        let metric = survey.check(&Demands {
            judge: &judge,
            datasets: self.plan.datasets as usize,
            recipe: &self.plan.recipe,
            full_diagnosis: self.plan.diagnosis.full,
        })?;
        let slices = survey.samples.iter().map(|&n| slices(n, self.plan.batch_size)).collect();
        self.survey = Some(Known { survey, metric: Some(metric), slices });
        Ok(())
    }

    /// What the judge told takes effect.
    fn take_survey(&mut self) {
        if let Some(Known { survey, metric: Some(metric), .. }) = &self.survey {
            self.ledger.surveyed(survey.samples.clone(), metric.clone());
        }
    }

    /// Whether a judge of this run can have said so of so many samples.
    pub(super) fn is_of(&self, judged: &Judged, samples: u64) -> bool {
        self.survey.as_ref().is_some_and(|known| known.survey.fits(judged, samples).is_ok())
    }

    /// Sends the next entry on its way, if none is.
    pub(super) fn record_next(&mut self, out: &mut Vec<Action>) {
        if self.recorder.in_flight.is_some() || self.ended {
            return;
        }
        let next = self.surveyed_entry().or_else(|| self.scored_entry()).or_else(|| self.stepped_entry());
        let next = next.or_else(|| self.slices_entry());
        if let Some((in_flight, entry)) = next.or_else(|| self.publishing_entry()) {
            self.recorder.in_flight = Some(in_flight);
            out.push(Action::Record(entry));
        }
    }

    fn surveyed_entry(&mut self) -> Option<(InFlight, Entry)> {
        if self.recorder.surveyed() {
            return None;
        }
        let survey = self.survey.as_ref()?.survey.clone();
        let found = Surveyed { survey, ingredients_sha256: self.ingredients_sha256()? };
        Some((InFlight::Surveyed(found.clone()), Entry::Surveyed(found)))
    }

    /// SHA-256 over the SHA-256 of each shard, of every ingredient, once all are loaded.
    fn ingredients_sha256(&self) -> Option<Vec<String>> {
        let one = |i: u32| Some(sha256_hex(&self.ingredient_digests(i as usize)?.concat()));
        (0..self.plan.ingredients).map(one).collect()
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
        let count = self.recorder.slices.len().min(SLICES_MAX);
        let record = |(e, slice): (Evaluation, u32)| {
            let score = self.partial.get(&e)?.get(&slice)?.tally();
            Some(ScoredSlice { dataset: e.dataset.0, soup: (&e.soup).into(), slice, score })
        };
        let records: Vec<ScoredSlice> = self.recorder.slices.drain(..count).filter_map(record).collect();
        (!records.is_empty()).then_some((InFlight::Slices, Entry::Slices(records)))
    }

    fn publishing_entry(&self) -> Option<(InFlight, Entry)> {
        if !self.finished_writing() {
            return None;
        }
        let hex = |digest: [u8; 32]| digest.iter().map(|b| format!("{b:02x}")).collect();
        let sha256 = self.data_sha256.map_or_else(String::new, hex);
        Some((InFlight::Publishing, Entry::Publishing { sha256 }))
    }

    /// The entry on its way is durable: it takes effect.
    pub(super) fn recorded(&mut self, out: &mut Vec<Action>) {
        match self.recorder.in_flight.take() {
            Some(InFlight::Surveyed(found)) => {
                self.take_survey();
                self.recorder.surveyed = Some(found);
                self.goals_stale = true;
            }
            Some(InFlight::Scored(evaluation, score)) => {
                self.ledger.record(evaluation.dataset, evaluation.soup.clone(), score.clone());
                out.push(Action::Report(Report::Scored(evaluation, score)));
                self.goals_stale = true;
            }
            Some(InFlight::Stepped(gradients)) => {
                let loss = gradients.loss;
                self.ledger.record_step(gradients);
                if let Some(learned) = self.recipe.learned(&self.ledger) {
                    let (step, steps) = (learned.steps.len() as u32, learned.steps_total);
                    out.push(Action::Report(Report::Stepped { step, steps, loss, beta: learned.beta }));
                }
                self.goals_stale = true;
            }
            Some(InFlight::Publishing) => {
                self.publishing = true;
                out.push(Action::Publish);
            }
            Some(InFlight::Slices) | None => {}
        }
    }

    /// All shards are resident: after a restart, they must be those that the log knows.
    pub(super) fn check_digests(&mut self, out: &mut Vec<Action>) {
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
        for goal in &self.goals {
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
        let fits = |s: &Tally| self.is_of(&Judged::Tally(s.clone()), self.samples_of(&evaluation));
        if let Some(score) = score.filter(fits) {
            self.partial.remove(&evaluation);
            self.recorder.complete(evaluation, score, true);
        }
    }

    fn samples_of(&self, evaluation: &Evaluation) -> u64 {
        self.slices_of(evaluation.dataset).last().map_or(0, |s| s.end)
    }

    /// A slice that a worker finished for an earlier coordinator: kept if it is still open.
    pub(super) fn handed_in(
        &mut self,
        evaluation: Evaluation,
        slice: Slice,
        judged: Judged,
        out: &mut Vec<Action>,
    ) {
        let known =
            self.slices_of(evaluation.dataset).iter().find(|s| (s.start, s.end) == (slice.start, slice.end));
        let Some(slice) = known.copied() else { return };
        let whole = self.is_of(&judged, slice.end - slice.start);
        let scored = self.ledger.score(evaluation.dataset, &evaluation.soup).is_some();
        if !whole || scored || self.slice_done(&evaluation, slice.index) {
            return;
        }
        self.withdraw(&Work::Evaluate(evaluation.clone(), slice), out);
        if let Err(error) = self.judged(evaluation, slice.index, judged) {
            self.finish(Err(error), out);
        }
    }

    /// Forgets a work, and takes its attempts back from their workers.
    pub(super) fn withdraw(&mut self, work: &Work, out: &mut Vec<Action>) {
        for (worker, key) in self.tasks.forget(work) {
            out.push(Action::Cancel(worker, key));
            self.release(worker);
        }
    }

    /// What the survey found, once that is durable.
    pub fn surveyed(&self) -> Option<&Surveyed> {
        self.recorder.surveyed.as_ref()
    }

    /// Whether the output is being made visible: the run cannot be stopped any more.
    pub fn publishing(&self) -> bool {
        self.publishing
    }

    /// What is known of slices, for comparison with a fold.
    pub fn partial(&self) -> BTreeMap<Evaluation, BTreeMap<u32, Tally>> {
        let tallies = |judged: &BTreeMap<u32, Judged>| judged.iter().map(|(&s, j)| (s, j.tally())).collect();
        self.partial.iter().map(|(evaluation, judged)| (evaluation.clone(), tallies(judged))).collect()
    }
}
