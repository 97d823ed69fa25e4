//! What all sections ask of a report.

use std::collections::{BTreeMap, BTreeSet};

use soup_core::metric::ClassMetric;
use soup_core::report::{Figures, RunReport};

use crate::plot::number::Unit;

/// A report, and what follows from it for every section.
pub(crate) struct View<'a> {
    /// What is shown.
    pub(crate) report: &'a RunReport,
    /// Ingredients in the pool, as far as the report tells.
    pub(crate) pool: usize,
    /// Names of the test sets.
    pub(crate) tests: Vec<&'a str>,
    /// Names of the chosen ingredients.
    pub(crate) chosen: BTreeSet<&'a str>,
}

impl<'a> View<'a> {
    pub(crate) fn new(report: &'a RunReport) -> View<'a> {
        let baselines = [&report.baselines.best_single, &report.baselines.uniform];
        let maps = baselines.into_iter().flatten().map(|b| &b.test).chain([&report.test]);
        let tests: BTreeSet<&str> = maps.flat_map(|m| m.keys()).map(String::as_str).collect();
        let sizes = [
            report.ingredients.len(),
            report.ranking.len(),
            report.baselines.uniform.as_ref().map_or(0, |b| b.ingredients.len()),
            report.diagnosis.as_ref().map_or(0, |d| d.ingredients.len()),
        ];
        View {
            report,
            pool: sizes.into_iter().max().unwrap_or_default(),
            tests: tests.into_iter().collect(),
            chosen: report.ingredients.iter().map(String::as_str).collect(),
        }
    }

    /// The figure that the recipe compared: what it is called, how it is written.
    pub(crate) fn metric(&self) -> (&'a str, Unit) {
        let name = self.report.options.metric.as_str();
        (name, if name == ClassMetric::Accuracy.name() { Unit::Percent } else { Unit::Number })
    }

    /// Whether a lower value of it is the better one; reports did not always say so.
    pub(crate) fn lower_is_better(&self) -> bool {
        self.report.lower_is_better || self.report.options.metric.as_str() == ClassMetric::Loss.name()
    }

    /// The metric's value in `figures`, where it is there and finite.
    pub(crate) fn value(&self, figures: &Figures) -> Option<f64> {
        figures.value(&self.report.options.metric)
    }

    /// Mean accuracy over the page's test sets, where there are any and all were scored.
    pub(crate) fn mean_test(&self, test: &BTreeMap<String, Figures>) -> Option<f64> {
        let each: Option<Vec<f64>> =
            self.tests.iter().map(|&t| test.get(t).and_then(Figures::accuracy)).collect();
        let each = each.filter(|e| !e.is_empty())?;
        Some(each.iter().sum::<f64>() / each.len() as f64)
    }

    /// What the mean over the test sets is called.
    pub(crate) fn mean_test_name(&self) -> String {
        match self.tests.as_slice() {
            [one] => format!("accuracy on {one}"),
            many => format!("mean accuracy on {} test sets", many.len()),
        }
    }

    /// The recipe's name with a capital, for titles.
    pub(crate) fn recipe_title(&self) -> String {
        let mut letters = self.report.recipe.chars();
        letters.next().map(|c| c.to_uppercase().chain(letters).collect()).unwrap_or_default()
    }
}

/// A name without the remark in parentheses behind it.
pub(crate) fn plain(name: &str) -> &str {
    name.split_once(" (").map_or(name, |(name, _)| name)
}
