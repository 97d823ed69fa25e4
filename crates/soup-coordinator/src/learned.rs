//! What a report says of learning.

use soup_core::ledger::Gradients;
use soup_core::machine::Machine;
use soup_core::recipe::learned::SteppedFigures;
use soup_core::report::{LearnedReport, LearnedStep};

use crate::prepare::PreparedRun;

/// What a recipe that learns has learned; `None` for others.
pub(crate) fn report(machine: &Machine, prepared: &PreparedRun) -> Option<LearnedReport> {
    let learned = machine.learned()?;
    let step = |(index, (figures, gradients)): (usize, (&SteppedFigures, &Gradients))| LearnedStep {
        step: index as u32 + 1,
        loss: Some(gradients.loss).filter(|l| l.is_finite()),
        correct: gradients.correct,
        total: gradients.total,
        lr: figures.lr,
        beta: figures.beta,
        gradient_norm: figures.gradient_norm,
    };
    let spec = &prepared.spec;
    Some(LearnedReport {
        groups: prepared.groups.names.clone(),
        weights: learned.weights,
        beta: learned.beta,
        beta_folded: spec.recipe.learn.is_some_and(|l| l.fold_beta),
        train: spec.train.as_ref()?.name.clone(),
        steps: learned.steps.iter().zip(machine.ledger().steps()).enumerate().map(step).collect(),
    })
}
