//! Which scores are wanted now, and what becomes of those that arrive.

use super::{
    Action, BTreeSet, Dataset, Error, Evaluation, FileDigest, Judged, Machine, Report, Result, Slice, Soup,
    Tally, Work,
};
use crate::recipe::Step;
use crate::soup::Ingredient;

impl Machine {
    /// Asks the recipe again, reports new decisions, and drops evaluations that nobody wants any more.
    pub(super) fn refresh_goals(&mut self, out: &mut Vec<Action>) {
        let replay = self.recipe.replay(&self.ledger, self.plan.lookahead as usize);
        for (index, decision) in replay.decisions.iter().enumerate().skip(self.decisions_reported) {
            out.push(Action::Report(Report::Decided(index as u32 + 1, Box::new(decision.clone()))));
        }
        self.decisions_reported = replay.decisions.len();
        self.goals = match replay.step {
            Step::Try(trials) => trials
                .into_iter()
                .map(|t| Evaluation { dataset: self.ledger.deciding_set(), soup: t.soup })
                .collect(),
            Step::Differentiate(mini) => {
                self.begin_step(*mini);
                Vec::new()
            }
            Step::Waiting => {
                // Everything that a recipe may wait for is known once the pool is resident and the datasets are counted.
                return self.finish(Err(Error::internal("the recipe does not say what it needs")), out);
            }
            Step::Done(soup) => {
                let goals = self.report_goals(&soup);
                self.chosen = Some(soup);
                goals
            }
        };
        self.drop_unwanted(out);
        self.recall_goals(out);
    }

    /// The scores that a report needs and the recipe did not.
    fn report_goals(&self, soup: &Soup) -> Vec<Evaluation> {
        if self.plan.datasets == 0 {
            return Vec::new();
        }
        let mut soups = vec![soup.clone()];
        let mut validation = soups.clone();
        if self.plan.baselines || self.plan.diagnosis.full {
            soups.extend(self.best_single());
            soups.extend(Soup::uniform(self.plan.ingredients));
            validation.extend((0..self.plan.ingredients).map(|i| Soup::single(Ingredient(i))));
            validation.extend(Soup::uniform(self.plan.ingredients));
        }
        let on = |dataset: Dataset, soups: Vec<Soup>| {
            soups.into_iter().map(move |soup| Evaluation { dataset, soup }).collect::<Vec<_>>()
        };
        let mut goals = on(Dataset::VALIDATION, validation);
        goals.extend(self.reported_tests().flat_map(|d| on(d, soups.clone())));
        goals.extend(self.diagnosis_goals());
        let mut seen = BTreeSet::new();
        goals.retain(|e| self.ledger.score(e.dataset, &e.soup).is_none() && seen.insert(e.clone()));
        goals
    }

    /// The ingredient with the best validation score, the first one of equals; `None` until all are scored.
    pub fn best_single(&self) -> Option<Soup> {
        let mut best: Option<(Soup, &Tally)> = None;
        for soup in (0..self.plan.ingredients).map(|i| Soup::single(Ingredient(i))) {
            let score = self.ledger.validation(&soup)?;
            if best.as_ref().is_none_or(|(_, b)| self.ledger.compare(score, b).is_gt()) {
                best = Some((soup, score));
            }
        }
        best.map(|(soup, _)| soup)
    }

    fn drop_unwanted(&mut self, out: &mut Vec<Action>) {
        let wanted: BTreeSet<&Evaluation> = self.goals.iter().collect();
        let unwanted = |work: &&Work| matches!(work, Work::Evaluate(e, _) if !wanted.contains(e));
        let works: Vec<Work> = self.tasks.works().filter(unwanted).cloned().collect();
        self.partial.retain(|e, _| wanted.contains(e));
        self.recorder.retain(|e| wanted.contains(e));
        works.iter().for_each(|work| self.withdraw(work, out));
    }

    /// A slice was judged: when it was the last one, the evaluation has its score.
    pub(super) fn judged(&mut self, evaluation: Evaluation, slice: u32, judged: Judged) -> Result<()> {
        self.partial.entry(evaluation.clone()).or_default().insert(slice, judged);
        if !self.complete(&evaluation)? {
            self.recorder.slice(evaluation, slice);
        }
        Ok(())
    }

    /// Adds up the slices of an evaluation, if all of them are judged.
    pub(super) fn complete(&mut self, evaluation: &Evaluation) -> Result<bool> {
        let slices = self.slices_of(evaluation.dataset).len();
        if self.partial.get(evaluation).is_none_or(|judged| judged.len() < slices) {
            return Ok(false);
        }
        // In slice order, so that the sum of the losses has the same bits on any cluster.
        let mut tallies =
            self.partial.remove(evaluation).unwrap_or_default().into_values().map(|j| j.tally());
        let mut score = tallies.next().ok_or_else(|| Error::internal("a dataset has no slices"))?;
        tallies.try_for_each(|tally| score.merge(&tally))?;
        self.recorder.complete(evaluation.clone(), score, false);
        Ok(true)
    }

    pub(super) fn slices_of(&self, dataset: Dataset) -> &[Slice] {
        self.survey.as_ref().and_then(|s| s.slices.get(dataset.index())).map_or(&[], Vec::as_slice)
    }

    /// Whether a slice of a goal is done already.
    pub(super) fn slice_done(&self, evaluation: &Evaluation, slice: u32) -> bool {
        self.recorder.has(evaluation) || self.partial.get(evaluation).is_some_and(|p| p.contains_key(&slice))
    }

    pub(super) fn written(&mut self, file: u32, digest: FileDigest, out: &mut Vec<Action>) {
        let Some(slot) = self.files.get_mut(file as usize) else {
            return self.finish(
                Err(Error::internal(format!("a worker wrote file {file}, which is not planned"))),
                out,
            );
        };
        *slot = Some(digest);
        if self.plan.files == 1 {
            self.data_sha256 = Some(digest.data_sha256);
        }
        let written = self.files.iter().flatten().count() as u32;
        out.push(Action::Report(Report::Writing { written, files: self.plan.files }));
    }

    /// Whether the soup is chosen, and everything has its score that the report needs.
    pub(super) fn all_scored(&self) -> bool {
        self.chosen.is_some() && self.goals.is_empty() && !self.goals_stale
    }

    pub(super) fn finished_writing(&self) -> bool {
        let written = self.files.iter().all(Option::is_some);
        // Without files there is nothing to write, and nothing to digest.
        let digested = self.files.is_empty() || self.data_sha256.is_some();
        self.all_scored() && written && digested && self.compared_enough() && self.streamed_enough()
    }

    /// What is left to write of the chosen soup, once nothing is left to score.
    pub(super) fn writing_works(&self) -> Vec<Work> {
        let chosen = self.chosen.as_ref().filter(|_| self.all_scored() && self.compared_enough());
        let Some(soup) = chosen else { return Vec::new() };
        let open = (0..self.plan.files).filter(|&f| self.files[f as usize].is_none());
        let mut works: Vec<Work> = open.map(|f| Work::Write(soup.clone(), f)).collect();
        // The one file's own digest is the soup's; several files need a pass over all of them.
        // Where blends are not at hand, that is over what was written.
        let before_files = !self.plan.streams || works.is_empty();
        if self.plan.files > 1 && self.data_sha256.is_none() && before_files {
            works.push(Work::Digest(soup.clone()));
        }
        works
    }
}
