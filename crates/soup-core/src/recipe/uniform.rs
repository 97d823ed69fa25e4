//! A soup that is known beforehand: the mean of all ingredients, or weights that are given. Nothing is decided, so nothing has
//! to be scored.

use crate::ledger::Ledger;
use crate::soup::Soup;

use super::{Recipe, Replay, Step};

/// See the module.
pub(super) struct Fixed {
    pub(super) soup: Soup,
}

impl Recipe for Fixed {
    fn replay(&self, _: &Ledger, _: usize) -> Replay {
        Replay {
            order: Vec::new(),
            decisions: Vec::new(),
            incumbent: Some(self.soup.clone()),
            step: Step::Done(self.soup.clone()),
        }
    }
}
