//! The result of a cook as a table for people.

use std::collections::BTreeMap;

use crate::quantity::count;
use soup_core::diagnosis::{Diagnosis, SharedInitVerdict};
use soup_core::judge::JudgeId;
use soup_core::metric::{ClassMetric, MetricName};
use soup_core::recipe::Verdict;
use soup_core::report::{
    Against, Figures, LearnedReport, LearnedStep, RunReport, StatisticsReport, TrialReport, decimal, number,
    percent,
};

/// Names of ingredients in the label of a row are cut to this many characters.
const LABEL_NAME_MAX: usize = 24;
/// Weights of a learned soup that are shown.
const WEIGHTS_SHOWN: usize = 8;

/// Rows of cells as lines: the first column to the left, the others to the right, two spaces between.
pub(crate) fn align(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |c: usize| rows.iter().filter_map(|r| r.get(c)).map(|s| s.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (c, (cell, width)) in row.iter().zip(&widths).enumerate() {
            line += &if c == 0 { format!("{cell:<width$}") } else { format!("  {cell:>width$}") };
        }
        text += line.trim_end();
        text.push('\n');
    }
    text
}

/// A table with a head, all columns left-aligned.
pub(crate) fn columns(head: &[&str], rows: &[Vec<String>]) -> String {
    let head: Vec<String> = head.iter().map(|h| (*h).to_owned()).collect();
    let all: Vec<&Vec<String>> = std::iter::once(&head).chain(rows).collect();
    let width = |c: usize| all.iter().filter_map(|r| r.get(c)).map(|t| t.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |row: &&Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(text, &width)| format!("{text:<width$}"));
        format!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
    };
    all.iter().map(line).collect()
}

/// Names and values as lines, the values one below the other.
pub(crate) fn pairs(pairs: &[(&str, String)]) -> String {
    let width = pairs.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    pairs.iter().map(|(name, value)| format!("{name:<width$}  {value}\n")).collect()
}

/// The result of a run. `tests` are the test sets in the order of their columns.
pub(crate) fn render(report: &RunReport, tests: &[String]) -> String {
    let metric = &report.options.metric;
    let accuracy = metric.as_str() == ClassMetric::Accuracy.name();
    let Some(score) = &report.score else { return pairs(&details(report)) };
    // What is not counted by classes has its metric as its headline.
    let own_column = (!accuracy && score.accuracy().is_some()).then_some(metric);
    let mut rows = vec![header(&report.validation, own_column.map(MetricName::as_str), tests)];
    // Tests have no columns of their own for it.
    let of_test =
        |test: &BTreeMap<String, Figures>, name: &str| test.get(name).map(|of| of.headlines(metric));
    let row = |label: String, count: usize, score: &Figures, test: &dyn Fn(&str) -> Option<String>| {
        let mut cells = vec![label, count.to_string(), score.headline()];
        cells.extend(own_column.map(|name| number(score.value(name))));
        cells.extend(tests.iter().map(|name| test(name).unwrap_or_else(|| "-".to_owned())));
        cells
    };
    if let Some(b) = report.baselines.best_single.as_ref().filter(|_| report.recipe != "best-single") {
        let name: String = b.ingredients.concat().chars().take(LABEL_NAME_MAX).collect();
        let label = format!("best single ({name})");
        rows.push(row(label, b.ingredients.len(), &b.score, &|t| of_test(&b.test, t)));
    }
    if let Some(b) = report.baselines.uniform.as_ref().filter(|_| report.recipe != "uniform") {
        rows.push(row("uniform".to_owned(), b.ingredients.len(), &b.score, &|t| of_test(&b.test, t)));
    }
    rows.push(row(report.recipe.clone(), report.ingredients.len(), score, &|t| of_test(&report.test, t)));
    format!("{}\n{}", align(&rows), pairs(&details(report)))
}

fn header(validation: &str, metric: Option<&str>, tests: &[String]) -> Vec<String> {
    let mut cells = vec![String::new(), "ingredients".to_owned(), validation.to_owned()];
    cells.extend(metric.map(str::to_owned));
    cells.extend(tests.iter().cloned());
    cells
}

/// What was found out about the pool, in a few words.
fn pool_details(diagnosis: &Diagnosis) -> Vec<(&'static str, String)> {
    let mut details = Vec::new();
    if diagnosis.shared_init.verdict == SharedInitVerdict::Separate {
        details.push(("warning", diagnosis.shared_init.explanation.clone()));
    }
    for group in &diagnosis.duplicates {
        details.push(("equal", group.join(", ")));
    }
    for outlier in &diagnosis.outliers {
        details.push(("outlier", format!("{}: {}", outlier.ingredient, outlier.reason)));
    }
    for other in diagnosis.alternatives.iter().filter(|a| a.forward_passes > 1) {
        let share = other.score.headline();
        details.push((
            "instead",
            format!("{}: {share} for {} forward passes", other.name, other.forward_passes),
        ));
    }
    details
}

/// The heaviest weights, averaged over the groups.
fn weights(report: &RunReport, learned: &LearnedReport) -> String {
    let groups = learned.weights.len().max(1) as f64;
    let mean = |i: usize| learned.weights.iter().filter_map(|row| row.get(i)).sum::<f64>() / groups;
    let mut weights: Vec<(&String, f64)> =
        report.ingredients.iter().enumerate().map(|(i, name)| (name, mean(i))).collect();
    weights.sort_by(|a, b| b.1.abs().total_cmp(&a.1.abs()));
    let rest = weights.len().saturating_sub(WEIGHTS_SHOWN);
    let shown = weights.into_iter().take(WEIGHTS_SHOWN).map(|(name, w)| format!("{name} {w:.3}"));
    let mut text = shown.collect::<Vec<_>>().join(", ");
    if rest > 0 {
        text += &format!(", {rest} more");
    }
    match learned.groups.len() {
        0 | 1 => text,
        groups => format!("{text} (means over {groups} groups)"),
    }
}

/// How many steps there were, and what became of the loss.
fn steps(learned: &LearnedReport) -> String {
    let loss = |step: Option<&LearnedStep>| step.and_then(|s| s.loss);
    let count = learned.steps.len();
    match (loss(learned.steps.first()), loss(learned.steps.last())) {
        (Some(first), Some(last)) => {
            format!("{count}, loss of the mini-batch {} to {}", decimal(first), decimal(last))
        }
        _ => count.to_string(),
    }
}

/// How many verdicts two samples would have turned, of those of which that is known.
fn fragile(report: &RunReport) -> Option<String> {
    let known: Vec<bool> = report.trials.iter().filter_map(|t| t.fragile).collect();
    let fragile = known.iter().filter(|fragile| **fragile).count();
    (fragile > 0).then(|| {
        format!("{fragile} of {} verdicts on all samples: two samples would have turned them", known.len())
    })
}

/// How many trials there were, and what those took that were rejected.
fn trials(report: &RunReport) -> Option<String> {
    let rejected: Vec<_> = report.trials.iter().filter(|t| t.verdict == Verdict::Rejected).collect();
    let (all, accepted) = (report.trials.len(), report.trials.len() - rejected.len());
    let sum = |of: fn(&TrialReport) -> u64| rejected.iter().map(|t| of(t)).sum::<u64>();
    let (judged, samples) = (sum(|t| t.evaluated), sum(|t| t.out_of));
    let text = format!("{all}, {accepted} accepted");
    match judged < samples {
        _ if all == 0 => None,
        true => Some(format!(
            "{text}; the others were rejected after {} of their samples",
            percent(judged, samples)
        )),
        false => Some(text),
    }
}

fn details(report: &RunReport) -> Vec<(&'static str, String)> {
    let total: f64 = report.seconds.get("total").copied().unwrap_or_else(|| report.seconds.values().sum());
    let mut phases: Vec<(&String, &f64)> =
        report.seconds.iter().filter(|(name, s)| *name != "total" && **s >= 0.05).collect();
    phases.sort_by(|a, b| b.1.total_cmp(a.1));
    let phases: Vec<String> = phases.into_iter().map(|(name, s)| format!("{name} {s:.1}")).collect();
    let time = if phases.is_empty() {
        format!("{total:.1} s")
    } else {
        format!("{total:.1} s ({})", phases.join(", "))
    };
    let mut details = vec![match &report.learned {
        None => ("chosen", report.ingredients.join(", ")),
        Some(learned) => ("weights", weights(report, learned)),
    }];
    details.extend(trials(report).map(|text| ("trials", text)));
    details.extend(fragile(report).map(|text| ("fragile", text)));
    let of_validation = report.significance.iter().filter(|c| c.dataset == report.validation);
    details.extend(of_validation.map(|c| {
        let label = match c.against {
            Against::BestSingle => "vs single",
            Against::Uniform => "vs uniform",
        };
        let share = report.options.metric.as_str() == ClassMetric::Accuracy.name();
        (label, c.sentence(share))
    }));
    if let Some(learned) = &report.learned {
        if !report.score.as_ref().is_some_and(Figures::of_numbers) {
            let folded = if learned.beta_folded { ", in the classifier" } else { "" };
            details.push(("beta", format!("{:.4}{folded}", learned.beta)));
        }
        details.push(("steps", steps(learned)));
    }
    if let Some(diagnosis) = &report.diagnosis {
        details.extend(pool_details(diagnosis));
    }
    // The native one goes without saying.
    let other = report.judge.iter().filter(|judge| **judge != JudgeId::native());
    details.extend(
        other.map(|judge| ("judge", format!("{} {} ({})", judge.name, judge.version, judge.numerics))),
    );
    if let Some(StatisticsReport { statistics, tensors, calibration, samples, .. }) = &report.batch_norm {
        let on = calibration
            .as_ref()
            .zip(*samples)
            .map(|(set, n)| format!(", on {} of {set}", count(n, "sample")));
        let text = format!("{} ({}{})", statistics.name(), count(*tensors, "tensor"), on.unwrap_or_default());
        details.push(("batch norm", text));
    }
    if !report.sha256.is_empty() {
        details.push(("sha256", report.sha256.clone()));
    }
    details.extend([("output", report.output.clone()), ("time", time)]);
    details
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(metric: &str) -> RunReport {
        let figures = |correct: u64, total: u64| serde_json::json!({ "correct": correct, "total": total, "accuracy": 0.0, "loss": 0.51234, "macro_f1": 0.87654 });
        let baseline = |ingredients: &[&str], correct: u64| {
            let mut value = figures(correct, 2000);
            value["ingredients"] = serde_json::json!(ingredients);
            value["test"] = serde_json::json!({ "test": figures(3387, 4000), "blurred": figures(700, 1000) });
            value
        };
        serde_json::from_value(serde_json::json!({
            "run": "r1", "recipe": "greedy",
            "options": { "kind": "greedy", "order": "sorted", "accept": "at-least", "seed": 0, "max_ingredients": null,
                         "passes": 1, "metric": metric },
            "ingredients": ["m02", "m03", "m10"], "weights": {},
            "score": figures(1750, 2000),
            "test": { "test": figures(3421, 4000) },
            "baselines": { "best_single": baseline(&["m10"], 1738), "uniform": baseline(&["m00", "m01"], 199) },
            "ranking": [], "order": [], "trials": [], "validation": "validation",
            "output": "/soups/vit-greedy", "sha256": "abcd", "notes": [],
            "seconds": { "loading": 0.25, "trials": 11.04, "writing": 0.01 },
        }))
        .unwrap()
    }

    #[test]
    fn rows_are_aligned() {
        let expected = "                   ingredients  validation     test  blurred
best single (m10)            1     86.90 %  84.68 %  70.00 %
uniform                      2      9.95 %  84.68 %  70.00 %
greedy                       3     87.50 %  85.53 %        -

chosen  m02, m03, m10
sha256  abcd
output  /soups/vit-greedy
time    11.3 s (trials 11.0, loading 0.2)
";
        assert_eq!(render(&report("accuracy"), &["test".into(), "blurred".into()]), expected);
    }

    #[test]
    fn other_metrics_have_a_column() {
        let text = render(&report("macro-f1"), &[]);
        assert!(text.lines().next().unwrap().ends_with("validation  macro-f1"), "{text}");
        assert!(text.contains("87.50 %    0.8765"), "{text}");
        let text = render(&report("macro-f1"), &["test".into()]);
        assert!(text.contains("87.50 %    0.8765  85.53 % (0.8765)"), "{text}");
        let text = render(&report("loss"), &[]);
        assert!(text.contains("87.50 %  0.5123"), "{text}");
    }

    #[test]
    fn a_recipe_is_not_compared_with_itself() {
        let mut uniform = report("accuracy");
        uniform.recipe = "uniform".into();
        assert_eq!(render(&uniform, &[]).matches("uniform").count(), 1);
    }
}
