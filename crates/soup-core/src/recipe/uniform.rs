//! The mean of all ingredients. Nothing is decided, so nothing has to be scored.

use crate::ledger::Ledger;
use crate::soup::Soup;

use super::{Recipe, Replay, Step};

/// See the module.
pub(super) struct Uniform {
    pub(super) soup: Soup,
}

impl Recipe for Uniform {
    fn replay(&self, _: &Ledger, _: usize) -> Replay {
        Replay {
            order: Vec::new(),
            decisions: Vec::new(),
            incumbent: Some(self.soup.clone()),
            step: Step::Done(self.soup.clone()),
        }
    }
}
