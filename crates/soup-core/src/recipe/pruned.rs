//! Pruned soup (Dansereau et al. 2023): start with the mean of all, then remove each ingredient whose removal the
//! score survives, pass by pass until a pass removes nothing. The last ingredient is never removed.

use crate::ledger::Ledger;
use crate::soup::Soup;

use super::ranking::{Candidates, From};
use super::walk::{Considered, Walk, walk};
use super::{Recipe, RecipeSpec, Replay};

/// See the module.
pub(super) struct Pruned {
    pub(super) spec: RecipeSpec,
    pub(super) candidates: Candidates,
    /// The mean of all of them.
    pub(super) uniform: Soup,
}

impl Recipe for Pruned {
    fn replay(&self, ledger: &Ledger, lookahead: usize) -> Replay {
        let order = match self.candidates.order(&self.spec, ledger, From::Worst) {
            Ok(order) => order,
            Err(step) => return Replay::needing(step),
        };
        walk(&self.spec, ledger, order, self.uniform.clone(), lookahead, one_pass)
    }
}

/// One pass; whether another one may change anything.
fn one_pass(walk: &mut Walk<'_>, pass: u32) -> bool {
    let mut removed = false;
    for place in 0.. {
        let Some(candidate) = walk.candidate(place) else { break };
        if !walk.incumbent().contains(candidate) {
            continue;
        }
        let Some(rest) = walk.incumbent().without(candidate) else { return false };
        match walk.consider(rest, candidate, pass) {
            Considered::Accepted => removed = true,
            Considered::Rejected => {}
            Considered::Enough => return false,
        }
    }
    removed
}
