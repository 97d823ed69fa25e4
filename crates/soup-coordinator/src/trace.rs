//! A run as a trace, for collectors of OpenTelemetry: the run, in it its trials and what else is scored, and in those the slices that workers
//! judge; all other tasks are in the run. Where nobody collects, spans are nothing.

use std::collections::BTreeMap;

use soup_core::ledger::{Dataset, Evaluation};
use soup_core::machine::Work;
use soup_telemetry::{TARGET, traceparent};
use tracing::{Span, info_span};

use crate::exchange::Incarnation;
use crate::prepare::PreparedRun;

/// Scores under way that are traced by themselves; further ones are in the run.
const SCORES_MAX: usize = 256;

/// The spans of a run.
pub(crate) struct Trace {
    run: Span,
    scores: BTreeMap<Evaluation, Span>,
}

impl Trace {
    /// Of a run that begins.
    pub(crate) fn of(prepared: &PreparedRun, of: &Incarnation) -> Trace {
        let (recipe, ingredients) = (prepared.spec.recipe.kind.name(), prepared.names.len());
        let run = info_span!(target: TARGET, parent: None, "run", run = of.run, epoch = of.epoch, recipe, ingredients);
        Trace { run, scores: BTreeMap::new() }
    }

    /// Where a task belongs.
    pub(crate) fn parent(&mut self, work: &Work) -> String {
        if self.run.is_disabled() {
            return String::new();
        }
        let Work::Evaluate(evaluation, _) = work else { return traceparent(&self.run) };
        if let Some(span) = self.scores.get(evaluation) {
            return traceparent(span);
        }
        if self.scores.len() >= SCORES_MAX {
            return traceparent(&self.run);
        }
        let (dataset, ingredients) = (evaluation.dataset.0, evaluation.soup.members().len());
        let span = match evaluation.dataset == Dataset::VALIDATION {
            true => info_span!(target: TARGET, parent: &self.run, "trial", dataset, ingredients),
            false => info_span!(target: TARGET, parent: &self.run, "score", dataset, ingredients),
        };
        let parent = traceparent(&span);
        self.scores.insert(evaluation.clone(), span);
        parent
    }

    /// A score is known.
    pub(crate) fn scored(&mut self, evaluation: &Evaluation) {
        self.scores.remove(evaluation);
    }
}
