//! How far a run has come in what is taken back only where a worker turns out not to be believed
//! ([quarantine](super::quarantine)). What lost workers take back (shards) is known to the [placement](super::placement).

use super::{Machine, Phase};
use crate::soup::Soup;

/// What there is to be done once the pool is resident, from the first to the last.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Progress {
    /// The recipe decides.
    Cooking,
    /// It chose this soup; what the report needs of it and of others is scored.
    Testing(Soup),
    /// Everything is scored; other uses of the ingredients are compared.
    Comparing(Soup),
    /// The output is written.
    Writing(Soup),
    /// The output is made visible, which cannot be taken back half-way.
    Publishing(Soup),
    /// Nothing is to be done any more. The soup, if one was chosen.
    Ended(Option<Soup>),
}

impl Progress {
    /// The soup that the recipe chose, once it is done.
    pub(super) fn chosen(&self) -> Option<&Soup> {
        match self {
            Progress::Cooking => None,
            Progress::Testing(soup)
            | Progress::Comparing(soup)
            | Progress::Writing(soup)
            | Progress::Publishing(soup) => Some(soup),
            Progress::Ended(soup) => soup.as_ref(),
        }
    }

    /// Goes on with `next`, where a soup is chosen.
    pub(super) fn go_on(&mut self, next: fn(Soup) -> Progress) {
        if let Some(soup) = self.chosen().cloned() {
            *self = next(soup);
        }
    }

    /// Goes back to the recipe, since something that it decided by is not believed any more.
    pub(super) fn decide_again(&mut self) {
        if self.is_open() {
            *self = Progress::Cooking;
        }
    }

    /// Ends the run wherever it is; false where it has ended before.
    pub(super) fn end(&mut self) -> bool {
        let ended = matches!(self, Progress::Ended(_));
        *self = Progress::Ended(self.chosen().cloned());
        !ended
    }

    /// Whether there is anything that workers could do.
    pub(super) fn is_open(&self) -> bool {
        !matches!(self, Progress::Publishing(_) | Progress::Ended(_))
    }
}

impl Machine {
    /// How far the run has come. Lost workers can take it back to loading.
    pub fn phase(&self) -> Phase {
        if self.tasks.is_empty() {
            return Phase::Gathering;
        }
        if !self.surveyed_enough() || !self.placement.all_resident() {
            return Phase::Loading;
        }
        match &self.progress {
            Progress::Cooking | Progress::Ended(None) => Phase::Cooking,
            Progress::Testing(_) | Progress::Comparing(_) => Phase::Testing,
            Progress::Writing(_) | Progress::Publishing(_) | Progress::Ended(Some(_)) => Phase::Writing,
        }
    }

    /// Whether judges are needed still: for scores, and for statistics that what is written has from them.
    pub(super) fn is_judging(&self) -> bool {
        let needed = match self.progress {
            Progress::Cooking | Progress::Testing(_) | Progress::Comparing(_) => true,
            Progress::Writing(_) => self.recomputes(),
            Progress::Publishing(_) | Progress::Ended(_) => false,
        };
        self.plan.judge.is_some() && needed
    }

    /// Whether the run has ended.
    pub fn ended(&self) -> bool {
        matches!(self.progress, Progress::Ended(_))
    }

    /// Whether the output is being made visible: the run cannot be stopped any more.
    pub fn publishing(&self) -> bool {
        matches!(self.progress, Progress::Publishing(_))
    }

    /// The soup that the recipe chose, once it is done.
    pub fn chosen(&self) -> Option<&Soup> {
        self.progress.chosen()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::soup::Ingredient;

    #[test]
    fn a_run_goes_on_and_ends_once() {
        let soup = Soup::single(Ingredient(0));
        let mut progress = Progress::Cooking;
        progress.go_on(Progress::Writing);
        assert_eq!(progress, Progress::Cooking, "there is no soup to go on with");
        progress = Progress::Testing(soup.clone());
        for next in [Progress::Comparing, Progress::Writing, Progress::Publishing] {
            assert!(progress.is_open());
            progress.go_on(next);
            assert_eq!(progress, next(soup.clone()));
        }
        assert!(!progress.is_open() && progress.end() && !progress.end());
        assert_eq!(progress, Progress::Ended(Some(soup)));
        let mut progress = Progress::Cooking;
        assert!(progress.end() && progress == Progress::Ended(None));
    }
}
