//! Soups that are compared sample by sample, where the recipe asks whether one is better than luck makes it.
//!
//! # Flow
//!
//! Both have their scores, and what happened to every sample is kept in the state. It is [looked up](Action::Recollect) for both, counted, and
//! the counts become a record of their own: like a score they take effect once that is durable, and a later coordinator has them from
//! the log. Meanwhile nothing else is asked of the recipe, and what workers are judging goes on.

use std::collections::BTreeMap;

use super::{Action, Dataset, Error, Evaluation, Machine, Result};
use crate::ledger::{Comparison, Finding};
use crate::recipe::Pair;
use crate::significance::Discordant;
use crate::soup::Soup;
use crate::tally::{Counts, Outcome, Tally};

/// The pair that is being compared.
#[derive(Debug, Default)]
pub(super) struct Comparing {
    pair: Option<Pair>,
    /// What happened with one of its soups or both.
    outcomes: BTreeMap<Soup, Vec<Outcome>>,
}

impl Comparing {
    /// What was known of an evaluation is not believed any more.
    pub(super) fn forget(&mut self, evaluation: &Evaluation) {
        let concerned = |pair: &mut Pair| [&pair.candidate, &pair.reference].contains(&&evaluation.soup);
        if self.pair.take_if(concerned).is_some() {
            self.outcomes.clear();
        }
    }

    fn awaits(&self, soup: &Soup) -> bool {
        self.pair.as_ref().is_some_and(|pair| [&pair.candidate, &pair.reference].contains(&soup))
            && !self.outcomes.contains_key(soup)
    }
}

impl Machine {
    /// Whether soups are compared sample by sample on this set.
    pub(super) fn compares(&self, dataset: Dataset) -> bool {
        self.plan.recipe.compares_samples() && dataset == self.ledger.deciding_set()
    }

    /// Compares two soups, unless that is under way.
    pub(super) fn compare(&mut self, pair: Pair, out: &mut Vec<Action>) {
        self.goals.leave_known(&self.ledger);
        let dataset = self.ledger.deciding_set();
        let under_way = self.comparing.pair.as_ref() == Some(&pair);
        if under_way || self.recorder.has(&Evaluation { dataset, soup: pair.candidate.clone() }) {
            return;
        }
        for soup in [&pair.candidate, &pair.reference] {
            let evaluation = Evaluation { dataset, soup: soup.clone() };
            match self.outcomes_sha256(&evaluation) {
                Some(sha256) => out.push(Action::Recollect(evaluation, sha256)),
                None => return self.finish(Err(untold(soup)), out),
            }
        }
        self.comparing = Comparing { pair: Some(pair), outcomes: BTreeMap::new() };
    }

    /// What happened to every sample with a soup was looked up.
    ///
    /// # Errors
    /// Where it is gone, or is not what the soup's score adds up.
    pub(super) fn recollected_to_compare(
        &mut self,
        evaluation: &Evaluation,
        outcomes: Option<&[Outcome]>,
    ) -> Result<()> {
        let Evaluation { dataset, soup } = evaluation;
        if *dataset != self.ledger.deciding_set() || !self.comparing.awaits(soup) {
            return Ok(());
        }
        let outcomes = outcomes.ok_or_else(|| untold(soup))?;
        if !self.are_of(outcomes, soup) {
            // Who was not believed any more may have judged it anew in the meantime.
            return Err(Error::try_again(format!(
                "what is kept of the samples of {} is not what its score adds up: ask for the run again",
                called(soup)
            )));
        }
        self.comparing.outcomes.insert(soup.clone(), outcomes.to_vec());
        let Some(pair) = &self.comparing.pair else { return Ok(()) };
        let Some((candidate, reference)) =
            self.comparing.outcomes.get(&pair.candidate).zip(self.comparing.outcomes.get(&pair.reference))
        else {
            return Ok(());
        };
        let counts = Discordant::of(candidate, reference)?;
        let Pair { candidate, reference } = pair.clone();
        self.comparing = Comparing::default();
        let finding = Finding::Comparison(Comparison { reference, counts });
        self.recorder.found(Evaluation { dataset: *dataset, soup: candidate }, finding, None);
        Ok(())
    }

    /// Whether outcomes are those that a soup's score adds up.
    fn are_of(&self, outcomes: &[Outcome], soup: &Soup) -> bool {
        let Some(Tally::Classes(score)) = self.ledger.deciding(soup) else { return false };
        let counted: Counts = outcomes.iter().collect();
        (counted.total, counted.correct, &counted.confusion) == (score.total, score.correct, &score.confusion)
    }
}

fn untold(soup: &Soup) -> Error {
    Error::data(format!(
        "accept significant needs to know what happened to every sample, and nothing is kept of those of {}: cook with --fresh to judge \
         it anew; a judge that only adds samples up cannot be asked that",
        called(soup)
    ))
}

/// A soup in messages.
fn called(soup: &Soup) -> String {
    const NAMED_MAX: usize = 8;
    let members = soup.members();
    let named: Vec<String> = members.iter().take(NAMED_MAX).map(|i| i.0.to_string()).collect();
    let more = members.len().saturating_sub(NAMED_MAX);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("the soup of ingredients {}{more}", named.join(", "))
}
