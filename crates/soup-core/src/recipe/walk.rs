//! The walk that greedy and pruned share: an incumbent, and candidates that try to replace it one after the other.
//!
//! The walk is *real* while every trial has a score, and *virtual* after the first one without: from there on open
//! trials count as rejected, so that the trials which would come next can be proposed ahead of time. A virtual walk
//! still follows the scores it finds (a trial that is known keeps its verdict), but it decides nothing. Where that leads it to another
//! incumbent, it leaves out the candidates of open trials: if one of these is accepted, the soup of both candidates comes up again with another
//! bar, and after how many samples a soup is rejected must not hang on what was tried ahead of time.
//!
//! Where the rule asks for significance, the score of a trial does not decide alone: one that is better is compared with the incumbent
//! sample by sample, and the walk waits for that. It is known in a moment.

use crate::ledger::Ledger;
use crate::soup::{Ingredient, Soup};
use crate::tally::Tally;

use super::{Bar, Decision, Pair, RecipeSpec, Replay, Step, Trial, Verdict};
use crate::significance::{Discordant, McNemar};

/// One walk over a ledger.
pub(super) struct Walk<'a> {
    spec: &'a RecipeSpec,
    ledger: &'a Ledger,
    order: Vec<Ingredient>,
    /// How many open trials to collect; at least one.
    open_max: usize,
    incumbent: Soup,
    bar: &'a Tally,
    /// The incumbent when the walk became virtual.
    decided: Option<Soup>,
    decisions: Vec<Decision>,
    open: Vec<Trial>,
    /// Whom those trials add or remove.
    open_candidates: Vec<Ingredient>,
    /// What the walk waits for, while nothing is open.
    comparing: Option<Pair>,
}

/// What a step of the walk says about the rest of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Considered {
    /// The candidate's soup is the incumbent now.
    Accepted,
    /// The incumbent stays, or the trial is open and counts as rejected.
    Rejected,
    /// Enough trials are open: the walk need not go on.
    Enough,
}

/// Walks from `start` in passes of `one_pass`, which says whether another pass may change anything.
pub(super) fn walk(
    spec: &RecipeSpec,
    ledger: &Ledger,
    order: Vec<Ingredient>,
    start: Soup,
    lookahead: usize,
    one_pass: impl Fn(&mut Walk<'_>, u32) -> bool,
) -> Replay {
    let Some(bar) = ledger.deciding(&start) else {
        let step = Step::Try(vec![Trial { soup: start, bar: None }]);
        return Replay { order, ..Replay::needing(step) };
    };
    let mut walk = Walk {
        spec,
        ledger,
        order,
        open_max: lookahead.saturating_add(1),
        incumbent: start,
        bar,
        decided: None,
        decisions: Vec::new(),
        open: Vec::new(),
        open_candidates: Vec::new(),
        comparing: None,
    };
    let mut pass = 1;
    while one_pass(&mut walk, pass) && pass < spec.passes {
        pass += 1;
    }
    walk.finish()
}

impl Walk<'_> {
    /// The options of the recipe.
    pub(super) fn spec(&self) -> &RecipeSpec {
        self.spec
    }

    /// The soup to be replaced.
    pub(super) fn incumbent(&self) -> &Soup {
        &self.incumbent
    }

    /// The candidate at `place` of the order.
    pub(super) fn candidate(&self, place: usize) -> Option<Ingredient> {
        self.order.get(place).copied()
    }

    /// Tries `soup`, which differs from the incumbent by `candidate`, in pass `pass`.
    pub(super) fn consider(&mut self, soup: Soup, candidate: Ingredient, pass: u32) -> Considered {
        let elsewhere = self.decided.as_ref().is_some_and(|decided| *decided != self.incumbent);
        if elsewhere && self.open_candidates.contains(&candidate) {
            return Considered::Rejected;
        }
        // A verdict that was certain early stays as it was found, whatever becomes known of the soup later.
        let rejection = self.ledger.rejection(&soup, &self.incumbent);
        let (early, score) = (rejection.is_some(), rejection.map(|rejection| &rejection.judged));
        let Some(score) = score.or_else(|| self.ledger.deciding(&soup)) else {
            return self.leave_open(soup, candidate);
        };
        let can_be = !early && self.spec.accept.holds(self.ledger.compare(score, self.bar));
        let mut compared = None;
        if can_be && self.spec.compares_samples() {
            compared = self.ledger.comparison(&soup, &self.incumbent);
            if compared.is_none() {
                return self.wait_for(soup);
            }
        }
        let accepted = can_be && compared.is_none_or(|counts| self.is_significant(counts));
        if self.open.is_empty() {
            let verdict = if accepted { Verdict::Accepted } else { Verdict::Rejected };
            let (soup, score, bar) = (soup.clone(), score.clone(), self.bar.clone());
            self.decisions.push(Decision { soup, candidate, pass, score, early, bar, compared, verdict });
        }
        if !accepted {
            return Considered::Rejected;
        }
        self.incumbent = soup;
        self.bar = score;
        Considered::Accepted
    }

    fn is_significant(&self, counts: Discordant) -> bool {
        self.spec.alpha.is_some_and(|alpha| McNemar::of(counts).better <= alpha)
    }

    /// The verdict on `soup` needs a comparison with the incumbent. Where the walk is virtual the soup counts as rejected.
    fn wait_for(&mut self, soup: Soup) -> Considered {
        if !self.open.is_empty() {
            return Considered::Rejected;
        }
        self.decided = Some(self.incumbent.clone());
        self.comparing = Some(Pair { candidate: soup, reference: self.incumbent.clone() });
        Considered::Enough
    }

    fn leave_open(&mut self, soup: Soup, candidate: Ingredient) -> Considered {
        if self.open.is_empty() {
            self.decided = Some(self.incumbent.clone());
        }
        // A later pass comes back to the same soups as long as nothing is accepted.
        if self.open.iter().all(|t| t.soup != soup) {
            let bar = Bar { soup: self.incumbent.clone(), score: self.bar.clone() };
            self.open.push(Trial { soup, bar: Some(bar) });
            self.open_candidates.push(candidate);
        }
        if self.open.len() < self.open_max { Considered::Rejected } else { Considered::Enough }
    }

    /// What the walk found out.
    fn finish(self) -> Replay {
        let incumbent = self.decided.unwrap_or(self.incumbent);
        let step = match self.comparing {
            Some(pair) => Step::Compare(pair),
            None if self.open.is_empty() => Step::Done(incumbent.clone()),
            None => Step::Try(self.open),
        };
        Replay { order: self.order, decisions: self.decisions, incumbent: Some(incumbent), step }
    }
}
