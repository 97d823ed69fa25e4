//! Greedy soup (Wortsman et al. 2022, recipe 1): start with the first ingredient of the order, then add each next one
//! whose addition the score survives.
//!
//! Further passes try the ingredients that are not in the soup yet again, because a larger soup may welcome what a
//! smaller one refused. A pass that accepts nothing ends the recipe.

use crate::ledger::Ledger;
use crate::soup::{Ingredient, Soup};

use super::ranking::{Candidates, From};
use super::walk::{Considered, Walk, walk};
use super::{Recipe, RecipeSpec, Replay};

/// See the module.
pub(super) struct Greedy {
    pub(super) spec: RecipeSpec,
    pub(super) candidates: Candidates,
}

impl Recipe for Greedy {
    fn replay(&self, ledger: &Ledger, lookahead: usize) -> Replay {
        let order = match self.candidates.order(&self.spec, ledger, From::Best) {
            Ok(order) => order,
            Err(step) => return Replay::needing(step),
        };
        let first = Soup::single(order.first().copied().unwrap_or(Ingredient(0)));
        walk(&self.spec, ledger, order, first, lookahead, one_pass)
    }
}

/// One pass; whether another one may change anything.
fn one_pass(walk: &mut Walk<'_>, pass: u32) -> bool {
    let members_max = walk.spec().max_ingredients.unwrap_or(u32::MAX) as usize;
    let mut accepted = false;
    for place in 0.. {
        let Some(candidate) = walk.candidate(place) else { break };
        if walk.incumbent().members().len() >= members_max {
            return false;
        }
        if walk.incumbent().contains(candidate) {
            continue;
        }
        match walk.consider(walk.incumbent().with(candidate), candidate, pass) {
            Considered::Accepted => accepted = true,
            Considered::Rejected => {}
            Considered::Enough => return false,
        }
    }
    accepted
}
