//! The ingredient with the best validation score: what a lab would ship without soups. Ties go to the earlier one.

use crate::ledger::Ledger;
use crate::soup::{Ingredient, Soup};

use super::ranking::{self, From};
use super::{Recipe, Replay, Step};

/// See the module.
pub(super) struct BestSingle {
    /// Number of ingredients in the pool; at least one.
    pub(super) ingredients: u32,
}

impl Recipe for BestSingle {
    fn replay(&self, ledger: &Ledger, _: usize) -> Replay {
        match ranking::sorted(self.ingredients, ledger, From::Best) {
            Err(step) => Replay::needing(step),
            Ok(order) => {
                let best = Soup::single(order.first().copied().unwrap_or(Ingredient(0)));
                Replay { order, decisions: Vec::new(), incumbent: Some(best.clone()), step: Step::Done(best) }
            }
        }
    }
}
