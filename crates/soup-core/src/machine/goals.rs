//! Which scores are wanted now.

use super::progress::Progress;
use super::{
    Action, BTreeMap, BTreeSet, Dataset, Error, Evaluation, Ledger, Machine, Report, Soup, Underway, Work,
};
use crate::recipe::{Order, RecipeKind, Replay, Step, Trial, Verdict, ranking};
use crate::soup::Ingredient;
use crate::tally::Tally;

/// What is wanted.
#[derive(Debug)]
pub(super) struct Goals {
    /// The most urgent first.
    wanted: Vec<Evaluation>,
    /// Whether something became known since the recipe was asked.
    stale: bool,
    /// Decisions that watchers were told of.
    decisions_reported: usize,
    /// Trials that were accepted, and all that are decided.
    accepted: (u32, u32),
    /// Scores that the report needed so far and the recipe did not, and how many of these are missing.
    reported: (usize, usize),
}

impl Default for Goals {
    /// Nobody has been asked yet.
    fn default() -> Goals {
        Goals { wanted: Vec::new(), stale: true, decisions_reported: 0, accepted: (0, 0), reported: (0, 0) }
    }
}

impl Goals {
    /// The scores that are wanted, the most urgent first.
    pub(super) fn wanted(&self) -> &[Evaluation] {
        &self.wanted
    }

    /// Trials that were accepted, and all that are decided.
    pub(super) fn accepted(&self) -> (u32, u32) {
        self.accepted
    }

    /// What is known is wanted no more.
    pub(super) fn leave_known(&mut self, ledger: &Ledger) {
        self.wanted.retain(|e| ledger.score(e.dataset, &e.soup).is_none());
    }

    /// Whether a score is wanted.
    pub(super) fn wants(&self, evaluation: &Evaluation) -> bool {
        self.wanted.contains(evaluation)
    }

    /// So many decisions remain: the recipe is asked again for the others.
    pub(super) fn undecide(&mut self, remain: usize) {
        self.decisions_reported = self.decisions_reported.min(remain);
        self.ask_again();
    }

    /// Something became known: the recipe is asked again.
    pub(super) fn ask_again(&mut self) {
        self.stale = true;
    }
}

impl Machine {
    /// Asks the recipe again, if that may tell more: reports new decisions, and drops evaluations that nobody wants any more. When
    /// nothing is left to be scored, the run goes on with what follows.
    pub(super) fn refresh_goals(&mut self, out: &mut Vec<Action>) {
        // What is streamed is not known before it is written, and nothing is decided by it.
        let known = self.plan.streams || self.recorder.surveyed() && self.measured_enough();
        let asking = matches!(self.progress, Progress::Cooking | Progress::Testing(_));
        // By what is not believed nothing is decided.
        let known = known && !self.recorder.is_retracting();
        if !known || !asking || !std::mem::take(&mut self.goals.stale) {
            return;
        }
        let replay = self.recipe.replay(&self.ledger, self.lookahead());
        let accepted = replay.decisions.iter().filter(|d| d.verdict == Verdict::Accepted).count() as u32;
        self.goals.accepted = (accepted, replay.decisions.len() as u32);
        for (index, decision) in replay.decisions.iter().enumerate().skip(self.goals.decisions_reported) {
            out.push(Action::Report(Report::Decided(index as u32 + 1, Box::new(decision.clone()))));
        }
        self.goals.decisions_reported = replay.decisions.len();
        let mut bars = BTreeMap::new();
        self.goals.wanted = match replay.step {
            Step::Try(trials) => {
                let dataset = self.ledger.deciding_set();
                let goal = |Trial { soup, bar }| {
                    let goal = Evaluation { dataset, soup };
                    bars.extend(bar.map(|bar| (goal.clone(), bar)));
                    goal
                };
                trials.into_iter().map(goal).collect()
            }
            // In a moment more is known: what is under way goes on.
            Step::Compare(pair) => return self.compare(pair, out),
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
                self.progress = Progress::Testing(soup);
                goals
            }
        };
        self.plan_rereadings();
        self.drop_unwanted(out);
        self.try_for(bars, out);
        self.recall_goals(out);
        if let Err(error) = self.conclude_goals() {
            return self.finish(Err(error), out);
        }
        self.tell_of_scores(out);
        if self.goals.wanted.is_empty() && matches!(self.progress, Progress::Testing(_)) {
            self.all_scored(out);
        }
    }

    /// Tells how many of the scores that a full diagnosis asks for are there: most are told of in no other way.
    fn tell_of_scores(&mut self, out: &mut Vec<Action>) {
        if !self.plan.diagnosis.full || !matches!(self.progress, Progress::Testing(_)) {
            return;
        }
        let (all, missing) = self.goals.reported;
        let left = self.goals.wanted.len();
        // Once the ranking is known there are more.
        let now = (all + left.saturating_sub(missing), left);
        if now != self.goals.reported {
            self.goals.reported = now;
            out.push(Action::underway(Underway::Scores, (now.0 - now.1, now.0)));
        }
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
            // Who gave the ranking knows the others.
            if self.plan.ranking.is_none() || self.plan.diagnosis.full {
                validation.extend((0..self.plan.ingredients).map(|i| Soup::single(Ingredient(i))));
            }
            validation.extend(self.best_single());
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

    /// The ingredient with the best validation score, the first one of equals; `None` until all are scored, and where nobody asks for that. Where
    /// the ranking is given, the best one of that.
    pub fn best_single(&self) -> Option<Soup> {
        if let Some(scores) = &self.plan.ranking {
            let lower_is_better = self.ledger.metric()?.lower_is_better();
            return ranking::best(scores, lower_is_better).map(Soup::single);
        }
        if self.tries_some_alone() {
            return None;
        }
        let mut best: Option<(Soup, &Tally)> = None;
        for soup in (0..self.plan.ingredients).map(|i| Soup::single(Ingredient(i))) {
            let score = self.ledger.validation(&soup)?;
            if best.as_ref().is_none_or(|(_, b)| self.ledger.compare(score, b).is_gt()) {
                best = Some((soup, score));
            }
        }
        best.map(|(soup, _)| soup)
    }

    /// Whether the report tells of the score of an ingredient alone. Of those that were tried ahead of their turn it depends on who was fast which
    /// have one.
    pub fn tells_of(&self, single: &Soup, replay: &Replay) -> bool {
        let tried = || replay.decisions.iter().any(|decision| decision.soup == *single && !decision.early);
        let is_best = || self.plan.baselines && self.best_single().as_ref() == Some(single);
        !self.tries_some_alone() || self.chosen() == Some(single) || is_best() || tried()
    }

    /// Whether some ingredients alone are scored as trials, in which pruning ends, and not all of them for the ranking or the report.
    fn tries_some_alone(&self) -> bool {
        let recipe = &self.plan.recipe;
        let ranks = recipe.order == Order::Sorted || self.plan.baselines;
        let all = self.plan.diagnosis.full || (self.plan.ranking.is_none() && ranks);
        recipe.kind == RecipeKind::Pruned && !all
    }

    fn drop_unwanted(&mut self, out: &mut Vec<Action>) {
        let wanted: BTreeSet<&Evaluation> = self.goals.wanted.iter().collect();
        let unwanted = |work: &&Work| matches!(work, Work::Evaluate(e, _) if !wanted.contains(e));
        let works: Vec<Work> = self.tasks.works().filter(unwanted).cloned().collect();
        self.judging.retain(|e| wanted.contains(e));
        self.recorder.retain(|e| wanted.contains(e));
        self.auditing.retain(|e| wanted.contains(e));
        works.iter().for_each(|work| self.withdraw(work, out));
    }
}
